//! How the C library's allocator keeps memory that was freed: it has all allocations of the process, those of librdkafka,
//! OpenSSL and SQLite included.
//!
//! Left alone, glibc makes eight arenas for each core, one after the other as threads come, and each keeps what was ever
//! freed in it: a process whose threads come and go grows to a multiple of what it uses, and goes on growing.

/// Says it before any thread starts. What an operator sets in the environment stands. Other C libraries have no arenas.
pub(crate) fn bound() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::bound();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, c_int};

    /// Buffers from this size on are mapped for themselves and given back when they are freed. Without it, the first
    /// large one that is freed makes all later ones stay in an arena.
    const MAPPED_FROM_BYTES: c_int = 512 << 10;
    /// What stays at the end of an arena, for what comes next.
    const KEPT_BYTES: c_int = 1 << 20;

    pub(super) fn bound() {
        let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 64));
        let arenas = c_int::try_from(cores).expect("invariant: at most 64");
        set("MALLOC_ARENA_MAX", M_ARENA_MAX, arenas);
        set("MALLOC_MMAP_THRESHOLD_", M_MMAP_THRESHOLD, MAPPED_FROM_BYTES);
        set("MALLOC_TRIM_THRESHOLD_", M_TRIM_THRESHOLD, KEPT_BYTES);
    }

    #[expect(unsafe_code, reason = "a call into the C library, which Rust has no name for")]
    fn set(variable: &str, parameter: c_int, value: c_int) {
        if std::env::var_os(variable).is_none() {
            // SAFETY: any parameter and value may be given, at any time; those it does not know are refused.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}
