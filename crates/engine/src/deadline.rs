//! How a call that runs too long is ended: the page that its module touches all the time is taken away from it.
//!
//! Each module is compiled with a second memory and a store to it in every function and every loop (`instrument`).
//! While all goes well that store is all a deadline costs. When a call is due the clock forbids access to that
//! memory, so that the next store faults and wasmtime ends the call with a trap. The memory belongs to one instance,
//! holds nothing, and is never looked at by the host; it stays forbidden, and the instance is thrown away.

use std::{
    collections::BTreeMap,
    io, ptr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::mm::{MprotectFlags, mprotect};
use wasmtime::{AsContext, Memory};

use crate::clock::{Ticks, ticks_of};

/// No call runs.
const IDLE: u64 = u64::MAX;
/// The running call is due, and the clock has ended it.
const DUE: u64 = u64::MAX - 1;

/// The instances whose calls have deadlines.
#[derive(Clone, Debug)]
pub(crate) struct Deadlines {
    ticks: Ticks,
    watched: Arc<Mutex<Watched>>,
}

#[derive(Debug, Default)]
struct Watched {
    next: u64,
    calls: BTreeMap<u64, Arc<Call>>,
}

/// The call that an instance is in, if it is in one, and the memory to take away.
#[derive(Debug)]
pub(crate) struct Call {
    /// The tick at which it is due, [`IDLE`] or [`DUE`].
    due: AtomicU64,
    /// The last one that could not be ended.
    failed: AtomicU64,
    address: usize,
    length: usize,
}

/// For what the host does in a call, which no page ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Due(Option<Arc<Call>>);

/// Of one instance, which must own it, so that it does not outlive the memory.
#[derive(Debug)]
pub(crate) struct Deadline {
    number: u64,
    call: Arc<Call>,
    deadlines: Deadlines,
}

impl Deadlines {
    pub(crate) fn new(ticks: Ticks) -> Self {
        Deadlines { ticks, watched: Arc::default() }
    }

    /// Watches an instance by the memory that was added to its module.
    ///
    /// # Safety
    /// The store must live until the deadline has been dropped, and nothing but the module's code may use that memory.
    #[expect(unsafe_code, reason = "the memory's life is the caller's to see to")]
    pub(crate) unsafe fn watch(&self, memory: &Memory, store: impl AsContext) -> Deadline {
        let address = memory.data_ptr(&store).expose_provenance();
        let (due, failed) = (AtomicU64::new(IDLE), AtomicU64::new(IDLE));
        let call = Arc::new(Call { due, failed, address, length: memory.data_size(&store) });
        let mut watched = self.lock();
        let number = watched.next;
        watched.next += 1;
        watched.calls.insert(number, call.clone());
        drop(watched);
        Deadline { number, call, deadlines: self.clone() }
    }

    /// Ends the calls that are due at this tick or were before.
    pub(crate) fn end_due(&self, now: u64) {
        let failed: Vec<io::Error> =
            self.lock().calls.values().filter_map(|call| call.end_if_due(now).err()).collect();
        // Not with the lock: whoever opens an instance waits for it.
        for error in failed {
            tracing::error!(%error, "a call that runs too long cannot be ended yet");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().expect("invariant: nothing panics with the deadlines locked")
    }
}

impl Deadline {
    /// A call begins, which is due after so many milliseconds.
    pub(crate) fn begin(&self, timeout_ms: u64) {
        self.call.due.store(self.deadlines.ticks.now() + ticks_of(timeout_ms), Ordering::Release);
    }

    /// For the host's part of the calls.
    pub(crate) fn due(&self) -> Due {
        Due(Some(self.call.clone()))
    }

    /// The call has come back, of its own or not; says whether it was due. Then the instance cannot be used again.
    pub(crate) fn end(&self) -> bool {
        self.call.due.swap(IDLE, Ordering::AcqRel) == DUE
    }
}

impl Due {
    /// # Errors
    /// The call is due: the host does nothing more for it.
    pub(crate) fn check(&self) -> wasmtime::Result<()> {
        match &self.0 {
            Some(call) if call.due.load(Ordering::Relaxed) == DUE => {
                Err(wasmtime::Error::msg("the call is due"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        // Waits for the clock if it is about to take the memory away: after this nobody knows of it.
        self.deadlines.lock().calls.remove(&self.number);
    }
}

impl Call {
    /// Fails, and is tried again with the next tick, when the memory cannot be taken away; says so once for each call.
    fn end_if_due(&self, now: u64) -> io::Result<()> {
        let due = self.due.load(Ordering::Acquire);
        // A call that ends meanwhile, and the next that begins, have another value here.
        if due > now || self.exchange(due, DUE).is_err() {
            return Ok(());
        }
        let taken = self.take_away();
        if taken.is_err() {
            // Where it has come back by itself there is nothing to try again.
            let _ = self.exchange(DUE, due);
            if self.failed.swap(due, Ordering::Relaxed) == due {
                return Ok(());
            }
        }
        taken
    }

    fn exchange(&self, from: u64, to: u64) -> Result<u64, u64> {
        self.due.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
    }

    fn take_away(&self) -> io::Result<()> {
        let start = ptr::with_exposed_provenance_mut(self.address);
        // SAFETY: the range is a memory of wasmtime's, whole pages of a mapping of its own, and it is there: whoever
        // called `watch` keeps the store until the `Deadline` has been dropped, which waits for the lock that is held
        // here. Nothing but the module's own code, whose faults wasmtime makes traps of, reads or writes that memory.
        #[expect(unsafe_code, reason = "there is no other way to end a call that checks nothing")]
        unsafe {
            mprotect(start, self.length, MprotectFlags::empty())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use wasmtime::{Engine, Instance, MemoryType, Module, Store, TypedFunc};

    use super::*;

    const TOUCHES: &str = r#"(module (import "" "" (memory 1 1))
        (func (export "f") (i32.store (i32.const 0) (i32.const 0))))"#;

    struct Guest {
        deadline: Deadline,
        store: Store<()>,
        touches: TypedFunc<(), ()>,
    }

    impl Guest {
        fn new(engine: &Engine, deadlines: &Deadlines) -> Self {
            let mut store = Store::new(engine, ());
            let memory = Memory::new(&mut store, MemoryType::new(1, Some(1))).unwrap();
            let module = Module::new(engine, wat::parse_str(TOUCHES).unwrap()).unwrap();
            let instance = Instance::new(&mut store, &module, &[memory.into()]).unwrap();
            let touches = instance.get_typed_func(&mut store, "f").unwrap();
            // SAFETY: fields are dropped in their order.
            #[expect(unsafe_code, reason = "as the engine does it")]
            let deadline = unsafe { deadlines.watch(&memory, &store) };
            Guest { deadline, store, touches }
        }

        fn works(&mut self) -> bool {
            self.touches.call(&mut self.store, ()).is_ok()
        }
    }

    fn deadlines() -> Deadlines {
        Deadlines::new(Ticks::default())
    }

    #[test]
    fn a_call_that_is_due_faults_and_says_so_and_no_other_does() {
        let (engine, deadlines) = (Engine::default(), deadlines());
        let [mut late, mut early] = [(); 2].map(|()| Guest::new(&engine, &deadlines));
        late.deadline.begin(100);
        early.deadline.begin(1_000);
        deadlines.end_due(ticks_of(100) - 1);
        assert!(late.works() && early.works());
        deadlines.end_due(ticks_of(100));
        assert!(!late.works());
        assert!(early.works());
        assert!(late.deadline.end());
        assert!(!early.deadline.end());
    }

    #[test]
    fn what_has_come_back_is_not_due_any_more() {
        let (engine, deadlines) = (Engine::default(), deadlines());
        let mut guest = Guest::new(&engine, &deadlines);
        guest.deadline.begin(10);
        assert!(!guest.deadline.end());
        deadlines.end_due(u64::MAX - 2);
        assert!(guest.works());
    }

    #[test]
    fn nobody_knows_of_an_instance_that_is_gone() {
        let (engine, deadlines) = (Engine::default(), deadlines());
        let guest = Guest::new(&engine, &deadlines);
        guest.deadline.begin(10);
        drop(guest);
        assert!(deadlines.lock().calls.is_empty());
    }
}
