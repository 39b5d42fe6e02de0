//! Compiling: the wasmtime engines of the process, and the way from bytes to a factory of steps.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, mpsc::sync_channel},
    thread,
};

use millrace_core::{Error, Result};
use sha2::{Digest, Sha256};
use tokio::time::Duration;
use wasmtime::{Config, Engine, Inlining, Module};

use crate::{
    cache::CodeCache,
    clock::{Clock, Ticks},
    deadline::Deadlines,
    instrument::{instrument, may_inline},
    module::{ModuleInfo, refuse_other_formats},
    program::{ModuleFactory, ModuleOptions, Program, who},
    room::Room,
};

/// Who an error of the engine itself is by.
const WHO: &str = "module engine";

/// Compiled modules kept in memory, so that pipelines that share a module compile it once.
const COMPILED_MAX: usize = 64;

/// How the engine works, for all modules.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Where compiled modules are kept between runs; none compiles in each. The folder is made if it is not there.
    /// It holds machine code: it is used only if it belongs to this user and nobody else may write into it.
    pub cache_dir: Option<PathBuf>,
    /// The largest module accepted, in bytes.
    pub wasm_bytes_max: usize,
    /// How long compiling one module may take, in milliseconds.
    pub compile_timeout_ms: u64,
}

/// How a module is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Manner {
    /// Its code counts what it computes, which costs speed: for modules that are limited by it.
    metered: bool,
    /// Functions go into those that call them, which makes them faster, and takes memory: for modules of few.
    inlines: bool,
}

/// The host of SmartModules. Cloning shares it; one is enough for a process.
#[derive(Clone)]
pub struct SmartEngine {
    shared: Arc<Shared>,
}

struct Shared {
    /// Of each manner of compiling that was asked for.
    engines: Mutex<BTreeMap<Manner, Engine>>,
    clock: Clock,
    room: Room,
    cache: Option<CodeCache>,
    options: EngineOptions,
    /// By the digest of the bytes, and whether the code is metered.
    compiled: Mutex<BTreeMap<(String, bool), Module>>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { cache_dir: None, wasm_bytes_max: 10 << 20, compile_timeout_ms: 60_000 }
    }
}

impl fmt::Debug for SmartEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmartEngine").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl SmartEngine {
    /// Starts the engine and its clock.
    ///
    /// # Errors
    /// Fatal when this machine cannot run it. A cache that cannot be used is logged and left out.
    pub fn new(options: EngineOptions) -> Result<Self> {
        let clock =
            Clock::start().map_err(|error| Error::fatal(WHO, "cannot start its clock").with_source(error))?;
        let cache = options.cache_dir.as_deref().and_then(|dir| match CodeCache::open(dir) {
            Ok(cache) => Some(cache),
            Err(error) => {
                tracing::warn!(%error, "compiled modules are not cached");
                None
            }
        });
        let (engines, room, compiled) = (Mutex::default(), Room::default(), Mutex::default());
        let shared = Shared { engines, clock, room, cache, options, compiled };
        let engine = SmartEngine { shared: Arc::new(shared) };
        // Whether this machine can do it is known at once.
        engine.wasmtime(Manner { metered: false, inlines: true })?;
        Ok(engine)
    }

    /// Compiles and checks a module, and runs its `init` once to prove the parameters. `name` is what errors call it.
    ///
    /// # Errors
    /// Fatal: it is too large, no SmartModule, imports what this host does not have, or refuses its parameters.
    pub fn load(&self, name: &str, wasm: &[u8], options: &ModuleOptions) -> Result<ModuleFactory> {
        let (module, info) = self.compiled(name, wasm, options.limits.fuel_max.is_some())?;
        ModuleFactory::proven(Program::link(self, name, &module, info, options)?)
    }

    /// Compiles and checks a module, without running anything of it.
    ///
    /// # Errors
    /// Fatal: it is too large or no SmartModule.
    pub fn inspect(&self, name: &str, wasm: &[u8]) -> Result<ModuleInfo> {
        Ok(self.compiled(name, wasm, false)?.1)
    }

    fn wasmtime(&self, manner: Manner) -> Result<Engine> {
        let mut engines =
            self.shared.engines.lock().expect("invariant: nothing panics with the engines locked");
        if let Some(engine) = engines.get(&manner) {
            return Ok(engine.clone());
        }
        let engine = Engine::new(&config(manner)).map_err(|error| {
            Error::fatal(WHO, "cannot be set up").with_source(error.into_boxed_dyn_error())
        })?;
        engines.insert(manner, engine.clone());
        Ok(engine)
    }

    pub(crate) fn room(&self) -> &Room {
        &self.shared.room
    }

    pub(crate) fn ticks(&self) -> &Ticks {
        self.shared.clock.ticks()
    }

    pub(crate) fn deadlines(&self) -> &Deadlines {
        self.shared.clock.deadlines()
    }

    fn compiled(&self, name: &str, wasm: &[u8], metered: bool) -> Result<(Module, ModuleInfo)> {
        let max = self.shared.options.wasm_bytes_max;
        if wasm.len() > max {
            let why = format!("is {} bytes large, at most {max} are accepted", wasm.len());
            return Err(Error::fatal(who(name), why));
        }
        refuse_other_formats(wasm).map_err(|why| Error::fatal(who(name), why))?;
        let sha256 = hex::encode(Sha256::digest(wasm));
        let module = self.module(name, wasm, &sha256, metered)?;
        let info = ModuleInfo::of(&module, sha256, wasm.len())
            .map_err(|why| Error::fatal(who(name), format!("is no SmartModule: {why}")))?;
        Ok((module, info))
    }

    /// From memory, from the cache, or by compiling.
    fn module(&self, name: &str, wasm: &[u8], sha256: &str, metered: bool) -> Result<Module> {
        const POISONED: &str = "invariant: nothing panics with the map of modules locked";
        let key = (sha256.to_owned(), metered);
        if let Some(module) = self.shared.compiled.lock().expect(POISONED).get(&key) {
            return Ok(module.clone());
        }
        let manner = Manner { metered, inlines: may_inline(wasm) };
        let engine = self.wasmtime(manner)?;
        let cache = self.shared.cache.as_ref();
        let module = match cache.and_then(|cache| cache.get(&engine, sha256)) {
            Some(module) => module,
            None => {
                let module = self.compile(name, wasm, manner)?;
                if let Some(cache) = cache {
                    cache.put(sha256, &module);
                }
                module
            }
        };
        let mut compiled = self.shared.compiled.lock().expect(POISONED);
        if compiled.len() >= COMPILED_MAX {
            compiled.clear();
        }
        compiled.insert(key, module.clone());
        Ok(module)
    }

    /// Compiles on a thread of its own: the compiler cannot be interrupted, but it need not be waited for.
    fn compile(&self, name: &str, wasm: &[u8], manner: Manner) -> Result<Module> {
        let fatal = |why: String| Error::fatal(who(name), why);
        let (done, result) = sync_channel(1);
        let (engine, wasm) = (self.wasmtime(manner)?, wasm.to_vec());
        thread::Builder::new()
            .name("millrace-compile".to_owned())
            .spawn(move || {
                let compiled = instrument(&wasm, manner.inlines)
                    .map_err(wasmtime::Error::new)
                    .and_then(|wasm| Module::from_binary(&engine, &wasm));
                // Nobody waits any more if this took too long.
                let _ = done.send(compiled);
            })
            .map_err(|error| fatal("cannot start its compilation".to_owned()).with_source(error))?;
        let timeout_ms = self.shared.options.compile_timeout_ms;
        match result.recv_timeout(Duration::from_millis(timeout_ms)) {
            Ok(Ok(module)) => Ok(module),
            Ok(Err(error)) => {
                Err(fatal("is not a valid module".to_owned()).with_source(error.into_boxed_dyn_error()))
            }
            Err(_) => Err(fatal(format!("cannot be compiled within {timeout_ms} ms"))),
        }
    }
}

fn config(manner: Manner) -> Config {
    const STACK_BYTES: usize = 512 << 10;
    let mut config = Config::new();
    config
        .max_wasm_stack(STACK_BYTES)
        .consume_fuel(manner.metered)
        .compiler_inlining(if manner.inlines { Inlining::Yes } else { Inlining::No })
        // A module has one of its own, and is given another (`instrument`).
        .wasm_multi_memory(true)
        .wasm_memory64(false)
        // Faults are told by their kind; nobody reads a guest's backtrace.
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false);
    config
}
