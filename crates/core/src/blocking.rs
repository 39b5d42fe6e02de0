//! Work that blocks its thread, done so that only its own task waits.

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::block_in_place,
};

/// Does `work` without holding up the other tasks of this thread: signals, leases and other partitions go on. It cannot
/// be cancelled. A runtime of one thread, as tests have it, waits.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn off_the_reactor<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => block_in_place(work),
        _ => work(),
    }
}
