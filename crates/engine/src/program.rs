//! A module that is ready to run: compiled, linked, its parameters encoded and proven by one `init`.

use std::{collections::BTreeMap, sync::Arc};

use millrace_core::{Error, LookBack, Result, Step, StepContext, StepFactory};
use wasmtime::{ExternType, InstancePre, Linker, Module};

use crate::{
    abi::{COPY_RECORDS, Kind, encode_params},
    clock::Ticks,
    deadline::Deadlines,
    engine::SmartEngine,
    instance::{Host, Instance},
    limits::Limits,
    module::ModuleInfo,
    room::Room,
    step::ModuleStep,
    wasi::{self, GuestLog},
};

/// How a pipeline uses a module.
#[derive(Clone, Debug, Default)]
pub struct ModuleOptions {
    /// The parameters of `init`.
    pub params: BTreeMap<String, String>,
    /// What an instance and a call may use.
    pub limits: Limits,
    /// The records before the first that `look_back` shall see; none leaves `look_back` uncalled.
    pub look_back: Option<LookBack>,
}

/// What the instances of one use of a module share.
pub(crate) struct Program {
    pub(crate) name: Arc<str>,
    pub(crate) info: ModuleInfo,
    pub(crate) limits: Limits,
    pub(crate) look_back: Option<LookBack>,
    pub(crate) init_input: Option<Vec<u8>>,
    pub(crate) pre: InstancePre<Host>,
    pub(crate) log: Arc<GuestLog>,
    engine: SmartEngine,
}

/// Opens a [`Step`] for each partition that runs through the module.
#[derive(Clone)]
pub struct ModuleFactory {
    pub(crate) program: Arc<Program>,
}

impl Program {
    pub(crate) fn link(
        engine: &SmartEngine,
        name: &str,
        module: &Module,
        info: ModuleInfo,
        options: &ModuleOptions,
    ) -> Result<Self> {
        let fatal = |why: String| Error::fatal(who(name), why);
        options.limits.check().map_err(|why| fatal(format!("its limits cannot hold: {why}")))?;
        if !info.init && !options.params.is_empty() {
            let names: Vec<_> = options.params.keys().map(String::as_str).collect();
            return Err(fatal(format!("takes no parameters, but is given {}", names.join(", "))));
        }
        if !info.look_back && options.look_back.is_some() {
            return Err(fatal("has no look_back to show records to".to_owned()));
        }
        let init_input = encode_params(&options.params, options.look_back).map_err(fatal)?;
        let pre = pre(module).map_err(|error| {
            Error::fatal(who(name), "cannot be linked").with_source(error.into_boxed_dyn_error())
        })?;
        let name: Arc<str> = name.into();
        Ok(Program {
            log: Arc::new(GuestLog::new(name.clone(), engine.ticks().clone())),
            name,
            init_input: info.init.then_some(init_input),
            limits: Limits {
                // Where an array_map does not tell, only in a call of its own is it known which record an output came from.
                call_records_max: if info.kind == Kind::ArrayMap && !info.provenance {
                    1
                } else {
                    options.limits.call_records_max
                },
                ..options.limits
            },
            look_back: options.look_back,
            info,
            pre,
            engine: engine.clone(),
        })
    }

    pub(crate) fn engine(&self) -> &wasmtime::Engine {
        self.pre.module().engine()
    }

    pub(crate) fn room(&self) -> &Room {
        self.engine.room()
    }

    pub(crate) fn ticks(&self) -> &Ticks {
        self.engine.ticks()
    }

    pub(crate) fn deadlines(&self) -> &Deadlines {
        self.engine.deadlines()
    }

    /// Who an error of this module is by.
    pub(crate) fn who(&self) -> String {
        who(&self.name)
    }

    pub(crate) fn open(&self) -> Result<Instance> {
        Instance::open(self).map_err(|error| Error::fatal(self.who(), error.to_string()))
    }
}

impl ModuleFactory {
    /// Proves that an instance can be opened with these parameters.
    pub(crate) fn proven(program: Program) -> Result<Self> {
        program.open()?;
        Ok(ModuleFactory { program: Arc::new(program) })
    }

    /// What the module is.
    pub fn info(&self) -> &ModuleInfo {
        &self.program.info
    }
}

impl StepFactory for ModuleFactory {
    fn open(&self, context: &StepContext) -> Result<Box<dyn Step>> {
        let step = ModuleStep::open(self.program.clone())?;
        tracing::debug!(
            module = %self.program.name,
            pipeline = %context.pipeline,
            partition = context.partition,
            "module opened"
        );
        Ok(Box::new(step))
    }

    fn keeps_state(&self) -> bool {
        self.program.info.kind == Kind::Aggregate
    }
}

pub(crate) fn who(name: &str) -> String {
    format!("module '{name}'")
}

/// Links exactly what the module imports; that all of it is known was checked before.
fn pre(module: &Module) -> wasmtime::Result<InstancePre<Host>> {
    let mut linker: Linker<Host> = Linker::new(module.engine());
    // A module may import the same name twice.
    linker.allow_shadowing(true);
    for import in module.imports() {
        match import.ty() {
            ExternType::Func(_) if import.name() == COPY_RECORDS => {
                linker.func_wrap(
                    import.module(),
                    COPY_RECORDS,
                    |mut caller: wasmtime::Caller<'_, Host>, pointer: i32, length: i32| {
                        caller.data_mut().copied = Some((pointer.cast_unsigned(), length.cast_unsigned()));
                    },
                )?;
            }
            ExternType::Func(ty) => wasi::define(&mut linker, import.name(), ty)?,
            _ => {}
        }
    }
    linker.instantiate_pre(module)
}
