//! The border to the host: memory it is lent to write a call's input to, and the answer it is shown. All there is of
//! unsafe code in the SDK stands here.
//!
//! A pointer that a host gives back is only looked up among those it was lent: the buffer itself never leaves this
//! file. So a host that is wrong about a pointer or a length gets an error code, and nothing is ever made of a
//! pointer. Two invariants are left, each at its line:
//!
//! 1. A host writes all it announced to [`lend`] before it calls. In WASM the bytes of linear memory have some value
//!    in any case, and the pointer was handed out of the module, so the compiler must expect them to be written.
//! 2. `copy_records` only notes where an answer lies; the host reads it when the call has returned, which is before
//!    the buffer is written to again, by the next call.

use std::cell::RefCell;

/// An answer's buffer above this is given back before the next call.
const ANSWER_BYTES_KEPT: usize = 4 << 20;

thread_local! {
    static LENT: RefCell<Lent> = const { RefCell::new(Lent { buffers: Vec::new() }) };
    static ANSWER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Buffers that the host may write to, empty but with room.
struct Lent {
    buffers: Vec<Vec<u8>>,
}

impl Lent {
    fn lend(&mut self, length: usize) -> *mut u8 {
        let mut buffer = Vec::with_capacity(length);
        let pointer = buffer.as_mut_ptr();
        self.buffers.push(buffer);
        pointer
    }

    /// Takes back the buffer at `pointer`, if it was lent and has room for `length` bytes.
    fn take_back(&mut self, pointer: *const u8, length: usize) -> Option<Vec<u8>> {
        let lent = |buffer: &Vec<u8>| buffer.as_ptr() == pointer && buffer.capacity() >= length;
        let index = self.buffers.iter().position(lent)?;
        Some(self.buffers.swap_remove(index))
    }
}

/// Memory for the input of the next call.
#[cfg_attr(target_family = "wasm", expect(unsafe_code, reason = "the ABI asks for this name"))]
#[cfg_attr(target_family = "wasm", unsafe(export_name = "alloc"))]
#[cfg_attr(not(any(target_family = "wasm", test)), expect(dead_code, reason = "only a host calls it"))]
extern "C" fn lend(length: usize) -> *mut u8 {
    LENT.with_borrow_mut(|lent| lent.lend(length))
}

/// Takes memory back that no call was made with. What is no such memory, an answer for instance, is left alone.
#[cfg_attr(target_family = "wasm", expect(unsafe_code, reason = "the ABI asks for this name"))]
#[cfg_attr(target_family = "wasm", unsafe(export_name = "dealloc"))]
#[cfg_attr(not(any(target_family = "wasm", test)), expect(dead_code, reason = "only a host calls it"))]
extern "C" fn take_back(pointer: *mut u8, length: usize) {
    LENT.with_borrow_mut(|lent| drop(lent.take_back(pointer, length)));
}

/// The input that the host has written; none if the memory was not lent to it.
pub(crate) fn input(pointer: *mut u8, length: usize) -> Option<Vec<u8>> {
    let mut buffer = LENT.with_borrow_mut(|lent| lent.take_back(pointer, length))?;
    #[expect(unsafe_code, reason = "the host has filled it")]
    // SAFETY: the capacity was checked, and the bytes are written: invariant 1.
    unsafe {
        buffer.set_len(length);
    }
    Some(buffer)
}

/// Has an answer written into the buffer that is used again, and shows it to the host if `write` says so.
pub(crate) fn answer(write: impl FnOnce(&mut Vec<u8>) -> (i32, bool)) -> i32 {
    // It is taken out meanwhile: what the author's function panics over must not be found borrowed by the next call.
    let mut out = ANSWER.take();
    if out.capacity() > ANSWER_BYTES_KEPT {
        out = Vec::new();
    }
    out.clear();
    let (code, shown) = write(&mut out);
    if shown {
        show(&out);
    }
    ANSWER.set(out);
    code
}

#[cfg(target_family = "wasm")]
fn show(answer: &[u8]) {
    #[link(wasm_import_module = "env")]
    #[expect(unsafe_code, reason = "the host's function")]
    unsafe extern "C" {
        fn copy_records(pointer: *const u8, length: usize);
    }
    #[expect(unsafe_code, reason = "the host's function")]
    // SAFETY: it gets a place and does not write: invariant 2.
    unsafe {
        copy_records(answer.as_ptr(), answer.len());
    }
}

/// Without a host, nobody is there to be shown anything.
#[cfg(not(target_family = "wasm"))]
fn show(_answer: &[u8]) {}

/// What a host does before a call.
#[cfg(test)]
pub(crate) fn lend_for_tests(input: &[u8]) -> *mut u8 {
    let pointer = lend(input.len());
    LENT.with_borrow_mut(|lent| {
        let buffer = lent.buffers.last_mut().expect("invariant: it was just lent");
        buffer.extend_from_slice(input);
    });
    pointer
}

/// What a host reads after a call.
#[cfg(test)]
pub(crate) fn answer_for_tests() -> Vec<u8> {
    ANSWER.with_borrow(Clone::clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_lent_is_taken_back_and_only_once() {
        let first = lend(10);
        let second = lend(20);
        assert!(input(first.wrapping_add(1), 1).is_none(), "a pointer into it");
        assert!(input(first, 11).is_none(), "more than was lent");
        assert!(input(std::ptr::null_mut(), 0).is_none());
        take_back(second, 20);
        assert!(input(second, 20).is_none(), "it was given back");
        let lent = LENT.with_borrow_mut(|lent| lent.take_back(first, 10));
        assert_eq!(lent.map(|buffer| buffer.as_ptr()), Some(first.cast_const()));
        assert!(input(first, 0).is_none(), "it was taken");
    }

    #[test]
    fn the_answers_buffer_is_used_again_unless_it_is_large() {
        let place = |length: usize| {
            let mut place = std::ptr::null();
            let code = answer(|out| {
                assert!(out.is_empty());
                out.resize(length, 1);
                place = out.as_ptr();
                (7, true)
            });
            assert_eq!(code, 7);
            place
        };
        let first = place(1_000);
        assert_eq!(place(500), first);
        place(ANSWER_BYTES_KEPT + 1);
        answer(|out| {
            assert!(out.capacity() <= ANSWER_BYTES_KEPT);
            (0, false)
        });
    }
}
