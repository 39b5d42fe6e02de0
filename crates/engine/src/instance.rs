//! One guest: a store, its memory and its exports, and the calls the host makes into it.

use tokio::time::Instant;
use wasmtime::{Memory, Store, TypedFunc};

use crate::{
    abi::{INIT_REFUSED, Input, LOOK_BACK_REFUSED, VERSION, decode_hint, decode_refusal},
    deadline::{Deadline, Due},
    fault::{Fault, hint_text},
    instrument::{DEADLINE, START},
    limits::StoreGuard,
    memory::{region, region_mut},
    program::Program,
    room::Place,
    wasi,
};

/// The shortest deadline for starting and for `init`, in milliseconds: they run seldom and their failure is fatal.
const OPEN_TIMEOUT_MS_MIN: u64 = 1_000;

/// What a guest's imports work on.
pub(crate) struct Host {
    pub(crate) guard: StoreGuard,
    /// Pointer and length of the last `copy_records` of a call.
    pub(crate) copied: Option<(u32, u32)>,
    pub(crate) output: wasi::Output,
    pub(crate) started: Instant,
    pub(crate) due: Due,
}

type Call = TypedFunc<(i32, i32, i32), i32>;

/// What is called of it.
struct Exports {
    alloc: TypedFunc<i32, i32>,
    transform: Call,
    init: Option<Call>,
    look_back: Option<Call>,
}

/// An instance that has been initialised. After a fault it is thrown away: its state is undefined.
pub(crate) struct Instance {
    // Before the store: it must not outlive the memory it takes away.
    deadline: Deadline,
    store: Store<Host>,
    memory: Memory,
    exports: Exports,
    /// Its memory when it was ready.
    opened_bytes: usize,
    /// What was found to be not too much.
    fitting_bytes: usize,
    /// By how much it may grow at the most.
    growth_bytes_max: usize,
    /// Its history is dear to read again: it may grow that far, however many others there are.
    keeps_history: bool,
    place: Place,
    /// Whether no record has been given to the transform.
    fresh: bool,
}

/// Why an instance cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("cannot be started: {0}")]
    Start(Fault),
    #[error("init failed: {0}")]
    Init(Fault),
    /// The author's words about the parameters.
    #[error("init refused its parameters: {0}")]
    Refused(String),
}

/// What `look_back` made of its records.
pub(crate) enum LookedBack {
    All,
    Refused { offset: i64, hint: String },
}

impl OpenError {
    fn is_time_out(&self) -> bool {
        matches!(self, OpenError::Start(fault) | OpenError::Init(fault) if fault.is_time_out())
    }
}

impl Instance {
    /// Instantiates and initialises. A time-out is tried again once: the machine may have been busy.
    pub(crate) fn open(program: &Program) -> Result<Self, OpenError> {
        match Self::open_once(program) {
            Err(error) if error.is_time_out() => Self::open_once(program),
            result => result,
        }
    }

    fn open_once(program: &Program) -> Result<Self, OpenError> {
        let timeout_ms = program.limits.timeout_ms.max(OPEN_TIMEOUT_MS_MIN);
        let host = Host {
            guard: StoreGuard::new(&program.limits),
            copied: None,
            output: wasi::Output::new(program.log.clone()),
            started: wasi::monotonic_start(),
            due: Due::default(),
        };
        let mut store = Store::new(program.engine(), host);
        store.limiter(|host| &mut host.guard);
        refuel(&mut store, u64::MAX);
        let instance = match program.pre.instantiate(&mut store) {
            Ok(instance) => instance,
            Err(error) => return Err(OpenError::Start(Fault::of(&error, &store.data().guard))),
        };
        const CHECKED: &str = "invariant: exports were checked when the module was loaded";
        let ends = instance.get_memory(&mut store, DEADLINE).expect(CHECKED);
        // SAFETY: the instance has both, the deadline before the store, so it is dropped before; and nobody asks for this
        // memory but here.
        #[expect(unsafe_code, reason = "see the comment")]
        let deadline = unsafe { program.deadlines().watch(&ends, &store) };
        store.data_mut().due = deadline.due();
        let mut opened = Instance {
            deadline,
            memory: instance.get_memory(&mut store, "memory").expect(CHECKED),
            exports: Exports {
                alloc: instance.get_typed_func(&mut store, "alloc").expect(CHECKED),
                transform: instance.get_typed_func(&mut store, program.info.kind.name()).expect(CHECKED),
                init: instance.get_typed_func(&mut store, "init").ok(),
                look_back: instance.get_typed_func(&mut store, "look_back").ok(),
            },
            store,
            opened_bytes: 0,
            fitting_bytes: 0,
            growth_bytes_max: 0,
            keeps_history: program.look_back.is_some(),
            place: program.room().enter(),
            fresh: true,
        };
        // The module's own start, then the constructors of a reactor of WASI.
        for name in [START, "_initialize"] {
            if let Ok(start) = instance.get_typed_func::<(), ()>(&mut opened.store, name) {
                opened
                    .within(timeout_ms, |opened| start.call(&mut opened.store, ()))
                    .map_err(OpenError::Start)?;
            }
        }
        if let Some(input) = &program.init_input {
            opened.init(input, timeout_ms)?;
        }
        opened.opened_bytes = opened.memory_bytes();
        opened.growth_bytes_max = program.limits.memory_bytes_max.saturating_sub(opened.opened_bytes) / 2;
        Ok(opened)
    }

    fn init(&mut self, input: &[u8], timeout_ms: u64) -> Result<(), OpenError> {
        match self
            .call(|exports| exports.init.as_ref(), input, timeout_ms, u64::MAX)
            .map_err(OpenError::Init)?
        {
            0.. => Ok(()),
            INIT_REFUSED => {
                let hint = self.answer(usize::MAX).ok().and_then(|answer| decode_hint(answer).ok());
                Err(OpenError::Refused(hint_text(hint.unwrap_or_default())))
            }
            code => Err(OpenError::Init(Fault::Code { code })),
        }
    }

    /// Shows records to `look_back`.
    pub(crate) fn look_back(&mut self, input: &impl Input, timeout_ms: u64) -> Result<LookedBack, Fault> {
        if self.exports.look_back.is_none() {
            return Ok(LookedBack::All);
        }
        match self.call(|exports| exports.look_back.as_ref(), input, timeout_ms, u64::MAX)? {
            0.. => Ok(LookedBack::All),
            LOOK_BACK_REFUSED => {
                let refusal = decode_refusal(self.answer(usize::MAX)?)
                    .map_err(|error| Fault::of_decoding(&error, 0))?;
                Ok(LookedBack::Refused { offset: refusal.offset, hint: hint_text(refusal.hint) })
            }
            code => Err(Fault::Code { code }),
        }
    }

    /// Runs the transform; its answer is read with [`Instance::answer`].
    pub(crate) fn transform(&mut self, input: &impl Input, timeout_ms: u64) -> Result<(), Fault> {
        self.fresh = false;
        let fuel = self.store.data().guard.fuel_max().unwrap_or(u64::MAX);
        match self.call(|exports| Some(&exports.transform), input, timeout_ms, fuel)? {
            // The count it returns is also in the answer, where it is checked.
            0.. => Ok(()),
            code => Err(Fault::Code { code }),
        }
    }

    /// What the guest handed over in the last call.
    pub(crate) fn answer(&self, bytes_max: usize) -> Result<&[u8], Fault> {
        let (pointer, length) = self.store.data().copied.ok_or(Fault::NoOutput)?;
        let answer = region(self.memory.data(&self.store), pointer, length)
            .ok_or(Fault::OutputBounds { pointer, length })?;
        if answer.len() > bytes_max {
            return Err(Fault::OutputBytes { length: answer.len(), max: bytes_max });
        }
        Ok(answer)
    }

    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory.data_size(&self.store)
    }

    /// Whether it is to be replaced: Fluvio's guests never free what they answer, and each step has an instance per
    /// partition, so this is what a process's memory is made of.
    pub(crate) fn has_outgrown(&mut self) -> bool {
        let bytes = self.memory_bytes();
        if bytes == self.fitting_bytes {
            return false;
        }
        let share = if self.keeps_history { usize::MAX } else { self.place.growth_bytes_max() };
        self.fitting_bytes = bytes;
        bytes > self.opened_bytes + self.growth_bytes_max.min(share)
    }

    /// Whether the last call came near what it may compute: a larger one would not go well.
    pub(crate) fn is_fuel_low(&self) -> bool {
        let max = self.store.data().guard.fuel_max();
        max.is_some_and(|max| self.store.get_fuel().is_ok_and(|left| left < max / 4 * 3))
    }

    /// Hands the input over, which the guest frees, and calls. One deadline covers both, as does the fuel.
    fn call(
        &mut self,
        export: impl FnOnce(&Exports) -> Option<&Call>,
        input: &(impl Input + ?Sized),
        timeout_ms: u64,
        fuel: u64,
    ) -> Result<i32, Fault> {
        let length =
            u32::try_from(input.length()).expect("invariant: inputs are bounded by the memory limit");
        refuel(&mut self.store, fuel);
        self.store.data_mut().copied = None;
        self.within(timeout_ms, |guest| {
            let function = export(&guest.exports).expect("invariant: only what is exported is called");
            let pointer = guest.exports.alloc.call(&mut guest.store, length.cast_signed())?;
            match region_mut(guest.memory.data_mut(&mut guest.store), pointer.cast_unsigned(), length) {
                None => return Ok(Err(Fault::Alloc { pointer: pointer.cast_unsigned(), length })),
                Some(place) => input.write(place),
            }
            function.call(&mut guest.store, (pointer, length.cast_signed(), VERSION)).map(Ok)
        })?
    }

    /// Runs the guest under a deadline. One that was due is over, whatever it came to.
    fn within<T>(
        &mut self,
        timeout_ms: u64,
        runs: impl FnOnce(&mut Self) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        self.deadline.begin(timeout_ms);
        let result = runs(self);
        if self.deadline.end() {
            return Err(Fault::TimedOut { timeout_ms });
        }
        result.map_err(|error| Fault::of(&error, &self.store.data().guard))
    }
}

/// Code that is metered stands still without fuel, be it limited by it or not: opening and `look_back` are not.
fn refuel(store: &mut Store<Host>, fuel: u64) {
    if store.data().guard.fuel_max().is_some() {
        store.set_fuel(fuel).expect("invariant: what is limited by fuel was compiled to count it");
    }
}
