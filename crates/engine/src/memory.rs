//! The guest's linear memory, reached only through checked regions: pointers and lengths are the guest's claims.

/// The bytes at `pointer`, if they lie in the memory as a whole.
pub(crate) fn region(memory: &[u8], pointer: u32, length: u32) -> Option<&[u8]> {
    let start = usize::try_from(pointer).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    memory.get(start..end)
}

/// As [`region`], to be written.
pub(crate) fn region_mut(memory: &mut [u8], pointer: u32, length: u32) -> Option<&mut [u8]> {
    let start = usize::try_from(pointer).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    memory.get_mut(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_inside_is_reached() {
        let mut memory = [1, 2, 3, 4];
        assert_eq!(region(&memory, 1, 3), Some([2, 3, 4].as_slice()));
        assert_eq!(region(&memory, 4, 0), Some([].as_slice()));
        assert_eq!(region(&memory, 5, 0), None);
        assert_eq!(region(&memory, 2, 3), None);
        assert_eq!(region(&memory, u32::MAX, u32::MAX), None);
        assert_eq!(region_mut(&mut memory, 0, 1), Some([1].as_mut_slice()));
        assert_eq!(region_mut(&mut memory, u32::MAX, 1), None);
    }
}
