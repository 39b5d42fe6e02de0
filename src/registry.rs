//! The only file that names concrete systems. Adding a sink, a store or a broker is a line here.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use millrace_config::{
    Catalog, Handover, Memory, ModuleLimits, Plan, Section, SettingsCheck, SinkKind, SinkPlan, SystemPlan,
};
use millrace_core::{
    Broker, Error, Ledger, Sink, SinkId, Store,
    module_info::ShippedModule,
    settings::{Problems, Settings},
};
use millrace_engine::{EngineOptions, Limits, SmartEngine};
use millrace_registry::{ModuleRegistry, TopicRegistry};
use millrace_runtime::Clock;

use crate::report::Failure;

pub use millrace_file::{KeyPath, Lines, Options as LineOptions, Progress as LinesProgress};
pub use millrace_sqlite::SqliteStore as EmbeddedViews;

/// The SmartModules that are part of the program.
const MODULES: &[ShippedModule] = &[
    ShippedModule {
        name: "visible-posts",
        doc: "drops posts whose visibility is hidden",
        wasm: include_bytes!("../smartmodules/dist/visible-posts.wasm"),
        params: &["hide"],
        output_fields: None,
    },
    ShippedModule {
        name: "feed-fanout",
        doc: "turns a post with its followers into one timeline entry per follower",
        wasm: include_bytes!("../smartmodules/dist/feed-fanout.wasm"),
        params: &["from"],
        output_fields: Some(&["op", "follower", "post_id", "author_id", "created_at"]),
    },
    ShippedModule {
        name: "search-document",
        doc: "turns an event into a versioned part of a document",
        wasm: include_bytes!("../smartmodules/dist/search-document.wasm"),
        params: &["id", "delete", "version", "status"],
        output_fields: Some(&["op", "id", "version", "document", "rank"]),
    },
    ShippedModule {
        name: "notification",
        doc: "turns likes, comments and follows into notifications",
        wasm: include_bytes!("../smartmodules/dist/notification.wasm"),
        params: &["count"],
        output_fields: Some(&["notification_id", "recipient", "actor", "kind", "post_id", "at", "unread"]),
    },
    ShippedModule {
        name: "mask-fields",
        doc: "replaces secret fields by a mask",
        wasm: include_bytes!("../smartmodules/dist/mask-fields.wasm"),
        params: &["fields", "mask"],
        output_fields: None,
    },
    ShippedModule {
        name: "count-by",
        doc: "counts records by a field",
        wasm: include_bytes!("../smartmodules/dist/count-by.wasm"),
        params: &["by", "keys_max"],
        output_fields: Some(&["total", "counts"]),
    },
];

/// Everything a pipeline file may name.
pub fn catalog() -> Catalog {
    let mut sinks = SinkKind::builtin();
    sinks.push(SinkKind::system(&millrace_stdout::STDOUT));
    let ledger = Memory { store: "ledger", lives: "remember" };
    sinks.push(SinkKind::with_ledger(&millrace_notify::WEBHOOK, ledger));
    Catalog {
        brokers: vec![&millrace_kafka::KAFKA, &millrace_embedded::EMBEDDED],
        stores: vec![
            &millrace_redis::REDIS,
            &millrace_elasticsearch::ELASTICSEARCH,
            &millrace_sqlite::SQLITE,
        ],
        sinks,
        modules: MODULES.to_vec(),
        checks: checks(),
        handovers: vec![Handover {
            kind: "kafka",
            patience: |settings| {
                let options = millrace_kafka::Options::read(settings, &mut Problems::default());
                options.map(|options| options.handover())
            },
        }],
    }
}

/// What systems say about their settings beyond the tables.
fn checks() -> Vec<SettingsCheck> {
    let check = |section, kind, check| SettingsCheck { section, kind, check };
    vec![
        check(Section::Brokers, "kafka", |settings, problems| {
            drop(millrace_kafka::Options::read(settings, problems));
        }),
        check(Section::Stores, "redis", |settings, problems| {
            drop(millrace_redis::RedisSettings::read(settings, problems));
        }),
        check(Section::Stores, "elasticsearch", |settings, problems| {
            drop(millrace_elasticsearch::Options::read(settings, problems));
        }),
        check(Section::Sinks, "webhook", |settings, problems| {
            drop(millrace_notify::Options::read(settings, problems));
        }),
    ]
}

/// The code of a shipped module.
pub fn shipped_module(name: &str) -> &'static [u8] {
    let module = MODULES.iter().find(|module| module.name == name);
    module.map(|module| module.wasm).expect("invariant: a checked plan names only modules the catalog has")
}

/// The host of SmartModules. Compiled code is kept in the user's cache folder, if there is one.
pub fn engine() -> Result<SmartEngine, Error> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let cache_dir = cache.filter(|dir| dir.is_absolute()).map(|dir| dir.join("millrace").join("modules"));
    SmartEngine::new(EngineOptions { cache_dir, ..EngineOptions::default() })
}

/// What a pipeline lets a module use, as the engine takes it.
pub fn module_limits(plan: ModuleLimits) -> Limits {
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    Limits {
        memory_bytes_max: bytes(plan.memory_bytes),
        timeout_ms: u64::try_from(plan.timeout.as_millis()).unwrap_or(u64::MAX),
        fuel_max: plan.fuel,
        output_bytes_max: bytes(plan.output_bytes),
        output_records_max: plan.output_records as usize,
        fan_out_max: plan.output_records as usize,
        ..Limits::default()
    }
}

/// Opens a broker. Connects at the first use.
pub fn open_broker(system: &SystemPlan) -> Result<Arc<dyn Broker>, Error> {
    match system.kind_name {
        "kafka" => {
            let settings = options(system, millrace_kafka::Options::read)?;
            Ok(Arc::new(millrace_kafka::KafkaBroker::open(&system.name, settings)?))
        }
        "embedded" => Ok(Arc::new(embedded(folder(system)))),
        other => Err(unknown("broker", other)),
    }
}

/// The topic of a broker that operators and processes share.
pub fn control_topic(system: &SystemPlan) -> Result<String, Error> {
    match system.kind_name {
        "kafka" => Ok(options(system, millrace_kafka::Options::read)?.own_topic("control")),
        _ => Ok("millrace.control".to_owned()),
    }
}

/// The registry of deployed modules that a broker keeps.
pub fn module_registry(
    broker: Arc<dyn Broker>,
    system: &SystemPlan,
) -> Result<Arc<dyn ModuleRegistry>, Error> {
    let topic = match system.kind_name {
        "kafka" => options(system, millrace_kafka::Options::read)?.own_topic("modules"),
        _ => "millrace.modules".to_owned(),
    };
    Ok(Arc::new(TopicRegistry::new(broker, topic)))
}

/// Opens a store. Connects at the first use.
pub async fn open_store(system: &SystemPlan) -> Result<Arc<dyn Store>, Error> {
    match system.kind_name {
        "redis" => {
            let settings = options(system, millrace_redis::RedisSettings::read)?;
            Ok(Arc::new(millrace_redis::RedisStore::open(&system.name, settings)?))
        }
        "elasticsearch" => {
            let settings = options(system, millrace_elasticsearch::Options::read)?;
            Ok(Arc::new(millrace_elasticsearch::Elasticsearch::open(&system.name, &settings)?))
        }
        "embedded" => Ok(Arc::new(millrace_sqlite::SqliteStore::open(&folder(system)).await?)),
        other => Err(unknown("store", other)),
    }
}

/// Opens a sink that is no view and no topic.
pub fn open_sink(
    sink: &SinkPlan,
    id: SinkId,
    ledger: Option<Arc<dyn Ledger>>,
) -> Result<Arc<dyn Sink>, Error> {
    match sink.kind_name {
        "stdout" => Ok(Arc::new(millrace_stdout::StdoutSink::open(&sink.settings))),
        "webhook" => {
            let mut problems = Problems::default();
            let settings = millrace_notify::Options::read(&sink.settings, &mut problems);
            let settings = settings.ok_or_else(|| wrong_settings(&id.to_string(), problems))?;
            let clock = Clock::system();
            Ok(Arc::new(millrace_notify::Webhook::open(
                id,
                settings,
                ledger,
                Arc::new(move || clock.now_ms()),
            )?))
        }
        other => Err(unknown("sink", other)),
    }
}

/// The name of the system that a sink of no store and no broker calls: those that share it share its breaker.
pub fn endpoint(sink: &SinkPlan) -> String {
    let mut problems = Problems::default();
    let webhook =
        (sink.kind_name == "webhook").then(|| millrace_notify::Options::read(&sink.settings, &mut problems));
    match webhook.flatten() {
        Some(options) => format!("webhook {}", options.destination()),
        None => sink.kind_name.to_owned(),
    }
}

fn options<T>(system: &SystemPlan, read: impl Fn(&Settings, &mut Problems) -> Option<T>) -> Result<T, Error> {
    let mut problems = Problems::default();
    read(&system.settings, &mut problems)
        .ok_or_else(|| wrong_settings(&format!("{} {}", system.kind_name, system.name), problems))
}

/// The check finds these first; this is for plans that were never checked.
fn wrong_settings(who: &str, problems: Problems) -> Error {
    let why = problems.into_sorted().into_iter().next().map_or_else(String::new, |problem| problem.message);
    Error::fatal(who, format!("its settings are wrong: {why}"))
}

/// The folder of an embedded system.
fn folder(system: &SystemPlan) -> PathBuf {
    system.settings.file("dir").unwrap_or_else(|| PathBuf::from(".millrace"))
}

fn embedded(dir: PathBuf) -> millrace_embedded::EmbeddedBroker {
    millrace_embedded::EmbeddedBroker::new(millrace_embedded::EmbeddedSettings { dir })
}

/// The right to run pipelines on every embedded log of a plan: one process at a time has it.
pub fn run_locks(plan: &Plan) -> Result<RunLocks, Failure> {
    let mut locks = RunLocks::default();
    locks.take(plan)?;
    Ok(locks)
}

/// The embedded logs that this process may run pipelines on.
#[derive(Default)]
pub struct RunLocks {
    held: BTreeMap<PathBuf, millrace_embedded::RunLock>,
}

impl RunLocks {
    /// Takes those of a plan that are not held yet.
    pub fn take(&mut self, plan: &Plan) -> Result<(), Failure> {
        let embedded_logs = plan.brokers.values().filter(|system| system.kind_name == "embedded");
        for dir in embedded_logs.map(folder) {
            if self.held.contains_key(&dir) {
                continue;
            }
            let lock = embedded(dir.clone()).run_lock().map_err(|error| {
                match std::error::Error::source(&error) {
                    Some(source) if source.is::<millrace_embedded::AlreadyRunning>() => {
                        Failure::environment(error.chain())
                    }
                    _ => Failure::from(error),
                }
            })?;
            self.held.insert(dir, lock);
        }
        Ok(())
    }
}

fn unknown(what: &str, kind: &str) -> Error {
    Error::fatal("registry", format!("there is no {what} of kind '{kind}'"))
}
