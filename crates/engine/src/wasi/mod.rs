//! WASI preview 1, as much as a module built for wasm32-wasip1 needs to load and to run: the clock, random bytes,
//! and output that goes to the log. Everything else is there and answers an errno: no files, no network, no
//! arguments, no environment.

mod output;

use tokio::time::Instant;
use wasmtime::{Caller, Extern, FuncType, Linker, Result, Val, ValType};

use crate::{fault::Exit, instance::Host, memory::region_mut};

pub(crate) use output::{GuestLog, Output};

/// The namespace of the imports.
pub(crate) const NAMESPACE: &str = "wasi_snapshot_preview1";

type Errno = i32;

const SUCCESS: Errno = 0;
const BAD_DESCRIPTOR: Errno = 8;
const FAULT: Errno = 21;
const INVALID: Errno = 28;
const NOT_THERE: Errno = 52;

/// Adds the import `name` to the linker. Names beyond preview 1 are taken too: they answer like unsupported ones.
pub(crate) fn define(linker: &mut Linker<Host>, name: &str, ty: FuncType) -> Result<()> {
    match name {
        "clock_time_get" => linker.func_wrap(NAMESPACE, name, clock_time_get)?,
        "clock_res_get" => linker.func_wrap(NAMESPACE, name, clock_res_get)?,
        "random_get" => linker.func_wrap(NAMESPACE, name, random_get)?,
        "fd_write" => linker.func_wrap(NAMESPACE, name, fd_write)?,
        "args_sizes_get" | "environ_sizes_get" => linker.func_wrap(NAMESPACE, name, no_strings)?,
        "args_get" | "environ_get" => linker.func_wrap(NAMESPACE, name, |_: i32, _: i32| SUCCESS)?,
        "sched_yield" => linker.func_wrap(NAMESPACE, name, || SUCCESS)?,
        "proc_exit" => linker.func_wrap(NAMESPACE, name, proc_exit)?,
        _ => {
            let descriptor = ["fd_", "path_", "sock_"].iter().any(|prefix| name.starts_with(prefix));
            let errno = if descriptor { BAD_DESCRIPTOR } else { NOT_THERE };
            let answers_errno = ty.results().all(|result| matches!(result, ValType::I32));
            linker.func_new(NAMESPACE, name, ty, move |_caller, _params, results| {
                refuse(errno, answers_errno, results)
            })?
        }
    };
    Ok(())
}

/// Answers `errno`, if an errno is what the function answers.
fn refuse(errno: Errno, answers_errno: bool, results: &mut [Val]) -> Result<()> {
    match results {
        [result] if answers_errno => {
            *result = Val::I32(errno);
            Ok(())
        }
        _ => Err(wasmtime::Error::msg("called a function of WASI that this host does not have")),
    }
}

fn clock_time_get(mut caller: Caller<'_, Host>, clock: i32, _precision: i64, result: i32) -> Errno {
    let nanoseconds = match clock {
        0 => time_of_day_ns(),
        1 => u64::try_from(caller.data().started.elapsed().as_nanos()).unwrap_or(u64::MAX),
        _ => return INVALID,
    };
    write(&mut caller, result, &nanoseconds.to_le_bytes())
}

fn clock_res_get(mut caller: Caller<'_, Host>, clock: i32, result: i32) -> Errno {
    if !(0..=1).contains(&clock) {
        return INVALID;
    }
    write(&mut caller, result, &1_u64.to_le_bytes())
}

fn random_get(mut caller: Caller<'_, Host>, pointer: i32, length: i32) -> Result<Errno> {
    caller.data().due.check()?;
    Ok(with_memory(&mut caller, |memory| {
        let bytes = region_mut(memory, pointer.cast_unsigned(), length.cast_unsigned())?;
        rand::fill(bytes);
        Some(SUCCESS)
    }))
}

fn fd_write(
    caller: Caller<'_, Host>,
    descriptor: i32,
    vectors: i32,
    count: i32,
    written: i32,
) -> Result<Errno> {
    caller.data().due.check()?;
    Ok(output::fd_write(caller, descriptor, vectors, count, written))
}

/// Says that there are no strings, of no bytes.
fn no_strings(mut caller: Caller<'_, Host>, count: i32, bytes: i32) -> Errno {
    match write(&mut caller, count, &0_u32.to_le_bytes()) {
        SUCCESS => write(&mut caller, bytes, &0_u32.to_le_bytes()),
        errno => errno,
    }
}

fn proc_exit(code: i32) -> Result<()> {
    Err(wasmtime::Error::new(Exit(code)))
}

fn write(caller: &mut Caller<'_, Host>, pointer: i32, bytes: &[u8]) -> Errno {
    let length = u32::try_from(bytes.len()).expect("invariant: results are a few bytes");
    with_memory(caller, |memory| {
        region_mut(memory, pointer.cast_unsigned(), length)?.copy_from_slice(bytes);
        Some(SUCCESS)
    })
}

/// Runs `body` on the guest's memory; a region outside of it, which gives none, is a fault.
fn with_memory(caller: &mut Caller<'_, Host>, body: impl FnOnce(&mut [u8]) -> Option<Errno>) -> Errno {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else { return FAULT };
    body(memory.data_mut(caller)).unwrap_or(FAULT)
}

#[expect(clippy::disallowed_methods, reason = "it is the time of day that a module asks for")]
fn time_of_day_ns() -> u64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    since_1970.map_or(0, |since_1970| u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX))
}

/// Where a store's monotonic clock begins.
pub(crate) fn monotonic_start() -> Instant {
    Instant::now()
}
