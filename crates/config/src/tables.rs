//! The grammar of the file, as tables: what the checks, the JSON Schema and the reference page have in common.
//! Where a kind of the catalog stands, a table says [`Shape::Any`] and `select` checks the rest.

use millrace_core::{
    settings::{Field, Object, Shape},
    views::{INDEX_FIELD_TYPES, LEDGER_DEFAULT},
};

/// The whole file.
pub static FILE: Object = Object {
    name: "file",
    doc: "A pipeline file: where events come from, what happens to them, where results go.",
    fields: &[
        Field::required("version", Shape::Integer { min: 1, max: 1 }, "the format of this file: 1"),
        Field::required(
            "brokers",
            Shape::Map(&Shape::Any),
            "systems that hold topics, by name: one kind each",
        ),
        Field::optional("stores", Shape::Map(&Shape::Any), "systems that keep views, by name: one kind each"),
        Field::optional(
            "state",
            Shape::Text,
            "the broker that keeps deployed SmartModules; the only broker, or the first one, if not given",
        ),
        Field::optional(
            "smartmodules",
            Shape::Map(&Shape::Object(&SMARTMODULE)),
            "SmartModules by names of their own; shipped and deployed ones need no entry, and an entry of a shipped one's name replaces it",
        ),
        Field::optional(
            "require_signature",
            Shape::Object(&REQUIRE_SIGNATURE),
            "only modules that are signed may run, beside the shipped ones",
        ),
        Field::required(
            "topics",
            Shape::Map(&Shape::Object(&TOPIC)),
            "topics that are read or written, by name",
        ),
        Field::optional(
            "indexes",
            Shape::Map(&Shape::Object(&INDEX)),
            "search indexes that are written, by name",
        ),
        Field::required("pipelines", Shape::Map(&Shape::Object(&PIPELINE)), "what runs, by name"),
    ],
};

/// An entry of `smartmodules`.
pub static SMARTMODULE: Object = Object {
    name: "smartmodule",
    doc: "A compiled SmartModule: in a file, or deployed.",
    fields: &[
        Field::optional("file", Shape::Path, "the .wasm file"),
        Field::optional(
            "registry",
            Shape::Text,
            "a deployed module: NAME@VERSION, or NAME@latest for whichever is the latest, also while the pipeline runs",
        ),
    ],
};

/// `require_signature`.
pub static REQUIRE_SIGNATURE: Object = Object {
    name: "require_signature",
    doc: "Who may vouch for modules.",
    fields: &[Field::required(
        "keys",
        Shape::List(&Shape::Path),
        "files with ed25519 public keys in PEM; a module must be signed with one of them",
    )],
};

/// An entry of `topics`.
pub static TOPIC: Object = Object {
    name: "topic",
    doc: "A topic, as `topic create` creates it. One that exists is never changed.",
    fields: &[
        Field::required("broker", Shape::Text, "the broker it lies on"),
        Field::with_default("partitions", Shape::Integer { min: 1, max: 10_000 }, "3", "how many partitions"),
        Field::with_default("retention", Shape::Duration, "168h", "how long records are kept"),
        Field::optional(
            "retention_bytes",
            Shape::Size,
            "how many bytes a partition keeps; as the broker does if not given",
        ),
        Field::with_default(
            "max_record_bytes",
            Shape::Size,
            "1MiB",
            "the largest record, from 1KiB to 64MiB",
        ),
        Field::optional(
            "replication",
            Shape::Integer { min: 1, max: 100 },
            "copies of each partition; as the broker does if not given",
        ),
    ],
};

/// An entry of `indexes`.
pub static INDEX: Object = Object {
    name: "index declaration",
    doc: "A search index: the types of its fields, fixed before the first document. Other fields are kept and not searchable.",
    fields: &[
        Field::required("fields", Shape::Map(&Shape::Choice(INDEX_FIELD_TYPES)), "the type of each field"),
        Field::optional(
            "shards",
            Shape::Integer { min: 1, max: 1024 },
            "primary shards; as the store does if not given",
        ),
        Field::optional(
            "replicas",
            Shape::Integer { min: 0, max: 100 },
            "copies of each shard; as the store does if not given",
        ),
    ],
};

/// An entry of `pipelines`.
pub static PIPELINE: Object = Object {
    name: "pipeline",
    doc: "Reads one topic, passes its records through steps, and hands every result to every sink.",
    fields: &[
        Field::required("from", Shape::Object(&FROM), "what it reads"),
        Field::optional("steps", Shape::List(&Shape::Object(&STEP)), "what happens to each record, in order"),
        Field::required("to", Shape::Map(&Shape::Any), "where results go, by id: one kind of sink each"),
        Field::optional("batch", Shape::Object(&BATCH), "when a batch is full"),
        Field::optional("in_flight", Shape::Object(&IN_FLIGHT), "bounds on what is under way"),
        Field::optional("retry", Shape::Object(&RETRY), "waits between tries, and for how long"),
        Field::optional("dead_letters", Shape::Object(&DEAD_LETTERS), "where rejected records go"),
        Field::optional(
            "transactions",
            Shape::Flag,
            "one transaction for what a batch appends to the broker it is read from, the state of aggregates, and progress; on where there is such a topic or an aggregate, if not given",
        ),
        Field::with_default(
            "send_timeout",
            Shape::Duration,
            "10s",
            "how long one call may take, of a sink, a lookup, a ledger or the broker, before it has failed and is tried again; at most drain_timeout, and no longer where this is not given",
        ),
        Field::with_default(
            "drain_timeout",
            Shape::Duration,
            "20s",
            "how long work under way may take to end on shutdown or when a partition is taken away; at most as long as the broker waits, and no longer where this is not given",
        ),
        Field::with_default("commit_interval", Shape::Duration, "250ms", "how often progress is committed"),
    ],
};

/// `from`.
pub static FROM: Object = Object {
    name: "from",
    doc: "The topic a pipeline reads, from its beginning when it never ran before.",
    fields: &[
        Field::required("topic", Shape::Text, "the topic"),
        Field::optional("events", Shape::List(&Shape::Text), "event types; others are skipped"),
        Field::with_default(
            "format",
            Shape::Choice(&["json", "bytes"]),
            "json",
            "json: events in their envelope; bytes: anything, for modules that know what it is",
        ),
        Field::with_default(
            "on_gap",
            Shape::Choice(&["stop", "continue"]),
            "stop",
            "when retention removed records before they were read: stop and name them, or count them and go on",
        ),
    ],
};

/// An item of `steps`.
pub static STEP: Object = Object {
    name: "step",
    doc: "A SmartModule (`uses`) or a lookup (`lookup`).",
    fields: &[
        Field::required("id", Shape::Text, "names the step in metrics and dead letters"),
        Field::optional(
            "uses",
            Shape::Text,
            "the SmartModule: a shipped one, one of 'smartmodules', or a deployed one as NAME@VERSION or NAME@latest",
        ),
        Field::optional(
            "with",
            Shape::Map(&Shape::Scalar),
            "the module's parameters; a list is written 'a, b'",
        ),
        Field::optional("lookback", Shape::Object(&LOOK_BACK), "the history the module wants to see first"),
        Field::optional("limits", Shape::Object(&LIMITS), "what the module may use"),
        Field::optional(
            "canary",
            Shape::Object(&CANARY),
            "another version of a deployed module, which takes a part of the records",
        ),
        Field::optional(
            "shadow",
            Shape::Object(&SHADOW),
            "another version of a deployed module, which is given all records and whose results are only compared",
        ),
        Field::optional(
            "quarantine",
            Shape::Object(&QUARANTINE),
            "what is done when the module fails on one record after the other",
        ),
        Field::optional(
            "lookup",
            Shape::Object(&LOOKUP),
            "reads a store and puts the answer into the message",
        ),
    ],
};

/// `lookback`.
pub static LOOK_BACK: Object = Object {
    name: "lookback",
    doc: "Records before the first one, shown to the module's `look_back` when it starts.",
    fields: &[
        Field::with_default(
            "last",
            Shape::Integer { min: 1, max: 1_000_000 },
            "1000",
            "at most this many records",
        ),
        Field::optional("age", Shape::Duration, "no older than this; of any age if not given"),
    ],
};

/// `limits`.
pub static LIMITS: Object = Object {
    name: "limits",
    doc: "What a module may use. A record that makes it use more becomes a dead letter.",
    fields: &[
        Field::with_default("memory", Shape::Size, "64MiB", "memory of an instance, at most 1GiB"),
        Field::with_default("timeout", Shape::Duration, "1s", "time of one call, at most 10m"),
        Field::with_default(
            "output_records",
            Shape::Integer { min: 1, max: 10_000_000 },
            "100000",
            "records a call may answer",
        ),
        Field::with_default("output_bytes", Shape::Size, "16MiB", "bytes a call may answer, at most 1GiB"),
        Field::optional(
            "fuel",
            Shape::Integer { min: 1_000, max: 1_000_000_000_000 },
            "what one call may compute, about one for each instruction; not counted if not given, which is faster",
        ),
    ],
};

/// `quarantine`.
pub static QUARANTINE: Object = Object {
    name: "quarantine",
    doc: "When a module fails on one record of a partition after the other. A record fails when the module refuses it or breaks on it; one that passes or is dropped ends the row.",
    fields: &[
        Field::with_default(
            "after",
            Shape::Integer { min: 1, max: 1_000_000 },
            "1000",
            "so many records in a row",
        ),
        Field::with_default(
            "then",
            Shape::Choice(&["stop", "skip", "previous"]),
            "stop",
            "stop: pause the pipeline until somebody resumes it; skip: go on, each record becomes a dead letter; previous, of a deployed module: the version before it takes over, and where there is none, stop",
        ),
    ],
};

/// `canary`.
pub static CANARY: Object = Object {
    name: "canary",
    doc: "A version that takes a part of the records in place of the one that the step uses, with all effects: either `share` or `partitions`.",
    fields: &[
        Field::required("version", Shape::Text, "the version, as 1.1.0"),
        Field::optional(
            "share",
            Shape::Text,
            "a part of each partition, as 10%: all records of a key go to one version; not for aggregates, nor with 'lookback'",
        ),
        Field::optional(
            "partitions",
            Shape::List(&Shape::Integer { min: 0, max: 9_999 }),
            "all records of these partitions",
        ),
    ],
};

/// `shadow`.
pub static SHADOW: Object = Object {
    name: "shadow",
    doc: "A version that is given all records beside the one that the step uses, without any effect. `status` and metrics say how its results differ.",
    fields: &[Field::required("version", Shape::Text, "the version, as 1.1.0")],
};

/// `lookup`.
pub static LOOKUP: Object = Object {
    name: "lookup",
    doc: "Reads a set or a document from a store, one multi-get a batch. A set larger than a page makes several messages, a page each.",
    fields: &[
        Field::required("store", Shape::Text, "the store"),
        Field::optional("members", Shape::Template, "the key of a set; its members become an array"),
        Field::optional("document", Shape::Template, "the key of a document; null where there is none"),
        Field::required("into", Shape::Text, "the top-level field that takes the answer"),
        Field::with_default(
            "page",
            Shape::Integer { min: 1, max: 100_000 },
            "1000",
            "members only: the most of them in one message",
        ),
        Field::with_default(
            "cache_ttl",
            Shape::Duration,
            "5s",
            "how long an answer is used again; 0s: never",
        ),
        Field::with_default(
            "cache_entries",
            Shape::Integer { min: 1, max: 10_000_000 },
            "10000",
            "how many answers are kept for that",
        ),
        Field::optional("uncached", Shape::List(&Shape::Text), "event types that always ask the store"),
        Field::optional(
            "guard",
            Shape::Object(&GUARD),
            "members only: keeps an event from undoing a later one on the same object",
        ),
    ],
};

/// `guard`.
pub static GUARD: Object = Object {
    name: "guard",
    doc: "Makes a create and a delete of one object converge when two workers handle them at the same moment: the delete closes the guard before it reads, and a page that a create reads is dropped when the guard is closed by then.",
    fields: &[
        Field::required("id", Shape::Template, "the object, as '{payload.post_id}'"),
        Field::required("closed_by", Shape::List(&Shape::Text), "event types that close it"),
        Field::with_default("ledger", Shape::Duration, LEDGER_DEFAULT, "how long it stays closed"),
    ],
};

/// `batch`.
pub static BATCH: Object = Object {
    name: "batch",
    doc: "A worker takes a batch when one of these is reached.",
    fields: &[
        Field::with_default("records", Shape::Integer { min: 1, max: 100_000 }, "1000", "records"),
        Field::with_default("bytes", Shape::Size, "1MiB", "bytes; a single larger record is taken alone"),
        Field::with_default(
            "linger",
            Shape::Duration,
            "5ms",
            "how long a batch waits to become full, at most 1m",
        ),
    ],
};

/// `in_flight`.
pub static IN_FLIGHT: Object = Object {
    name: "in_flight",
    doc: "Bounds on what is under way; when one is reached, the source waits.",
    fields: &[
        Field::with_default(
            "outputs",
            Shape::Integer { min: 1, max: 100_000 },
            "4096",
            "per partition: results handed to the sinks at once",
        ),
        Field::with_default("output_bytes", Shape::Size, "4MiB", "per partition: their bytes"),
        Field::with_default("queue_bytes", Shape::Size, "4MiB", "per partition: bytes read and waiting"),
        Field::with_default("prefetch_bytes", Shape::Size, "32MiB", "of all partitions: bytes fetched ahead"),
    ],
};

/// `retry`.
pub static RETRY: Object = Object {
    name: "retry",
    doc: "Waits between tries are random, up to a bound that doubles from `initial` to `max`. Without a budget tries do not end: a store that is away stops its partitions and loses nothing.",
    fields: &[
        Field::with_default("initial", Shape::Duration, "100ms", "the bound of the first wait"),
        Field::with_default("max", Shape::Duration, "30s", "the bound of every wait"),
        Field::optional(
            "budget",
            Shape::Duration,
            "how long one call is tried, waits for its breaker included; for ever if not given",
        ),
        Field::with_default(
            "exhausted",
            Shape::Choice(&["pause", "dead_letters"]),
            "pause",
            "when the budget is spent: pause the pipeline until somebody resumes it, or give the records concerned up as dead letters",
        ),
    ],
};

/// `breaker`.
pub static BREAKER: Object = Object {
    name: "breaker",
    doc: "When a system fails again and again, it is left alone for a while; then one call finds out whether it is back.",
    fields: &[
        Field::with_default(
            "failures",
            Shape::Integer { min: 1, max: 1_000_000 },
            "5",
            "failures in a row, of all who call it, that open it",
        ),
        Field::with_default(
            "open_for",
            Shape::Duration,
            "1s",
            "how long it is open, doubled each time the one call fails; between half of it and the whole",
        ),
        Field::with_default("open_for_max", Shape::Duration, "30s", "the longest time it is open"),
    ],
};

/// What may stand beside the kind of a broker or a store.
pub static SYSTEM: Object = Object {
    name: "beside a system",
    doc: "Beside the kind of a broker or a store.",
    fields: &[Field::optional(
        "breaker",
        Shape::Object(&BREAKER),
        "when calls to it are left out for a while, by all pipelines together",
    )],
};

/// What may stand beside the kind of a sink.
pub static SINK: Object = Object {
    name: "beside a sink",
    doc: "Beside the kind of a sink.",
    fields: &[
        Field::with_default(
            "isolated",
            Shape::Flag,
            "false",
            "whether it has progress of its own, so that it stops no other sink while it is away",
        ),
        Field::optional(
            "retry",
            Shape::Object(&RETRY),
            "in place of the pipeline's; what is not given stays",
        ),
        Field::optional(
            "breaker",
            Shape::Object(&BREAKER),
            "for a system that is neither a store nor a broker; webhooks of one host share that of the first",
        ),
    ],
};

/// `dead_letters`.
pub static DEAD_LETTERS: Object = Object {
    name: "dead_letters",
    doc: "Rejected records go to a topic on the same broker, unchanged, with the reason in their headers.",
    fields: &[
        Field::optional("topic", Shape::Text, "the topic; the one that is read, with '.dlq', if not given"),
        Field::with_default(
            "retention",
            Shape::Duration,
            "14d",
            "how long they are kept, unless the topic is declared",
        ),
        Field::with_default(
            "per_minute_max",
            Shape::Integer { min: 1, max: 10_000_000 },
            "6000",
            "when a process would make more of them within a minute, the pipeline pauses before it writes them",
        ),
    ],
};

/// All tables of the file itself, for the reference page.
pub static OBJECTS: &[&Object] = &[
    &FILE,
    &TOPIC,
    &INDEX,
    &SMARTMODULE,
    &REQUIRE_SIGNATURE,
    &PIPELINE,
    &FROM,
    &STEP,
    &LOOK_BACK,
    &LIMITS,
    &CANARY,
    &SHADOW,
    &QUARANTINE,
    &LOOKUP,
    &GUARD,
    &BATCH,
    &IN_FLIGHT,
    &RETRY,
    &DEAD_LETTERS,
    &BREAKER,
    &SYSTEM,
    &SINK,
];
