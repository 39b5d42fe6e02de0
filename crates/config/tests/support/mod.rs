//! A catalog like the program's, and the way from a node to JSON.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::path::Path;

use millrace_config::{Catalog, Handover, Memory, Plan, Section, SettingsCheck, SinkKind, load, render};
use millrace_core::{
    StoreKind,
    module_info::ShippedModule,
    settings::{Field, Kind, Node, NodeKind, Object, Problems, Settings, Shape},
};
use serde_json::Value;

static KAFKA: Kind = Kind {
    name: "kafka",
    settings: &Object {
        name: "kafka",
        doc: "Kafka.",
        fields: &[
            Field::required("bootstrap", Shape::Text, "the brokers"),
            Field::optional("password", Shape::Secret, "the password"),
            Field::optional("password_file", Shape::Path, "a file with the password"),
            Field::with_default("timeout", Shape::Duration, "10s", "how long a call may take"),
            Field::optional("patience", Shape::Duration, "how long a partition waits for its pipeline"),
            Field::with_default("tls", Shape::Flag, "false", "whether to use TLS"),
        ],
    },
};

static EMBEDDED_BROKER: Kind = Kind { name: "embedded", settings: &EMBEDDED_SETTINGS };

static EMBEDDED_SETTINGS: Object = Object {
    name: "embedded",
    doc: "One folder.",
    fields: &[Field::with_default("dir", Shape::Path, ".millrace", "the folder")],
};

static REDIS: StoreKind = StoreKind {
    kind: Kind {
        name: "redis",
        settings: &Object {
            name: "redis",
            doc: "Redis.",
            fields: &[
                Field::required("url", Shape::Text, "where it is"),
                Field::optional("password", Shape::Secret, "the password"),
                Field::with_default("pool", Shape::Integer { min: 1, max: 64 }, "4", "connections"),
            ],
        },
    },
    views: &["timeline", "members", "document", "counter"],
    lookup: true,
    ledger: true,
};

static SEARCH: StoreKind = StoreKind {
    kind: Kind {
        name: "elasticsearch",
        settings: &Object {
            name: "elasticsearch",
            doc: "Elasticsearch.",
            fields: &[Field::required("url", Shape::Text, "where it is")],
        },
    },
    views: &["index"],
    lookup: false,
    ledger: false,
};

static EMBEDDED_STORE: StoreKind = StoreKind {
    kind: Kind { name: "embedded", settings: &EMBEDDED_SETTINGS },
    views: &["timeline", "members", "document", "counter", "index"],
    lookup: true,
    ledger: true,
};

static STDOUT: Kind =
    Kind { name: "stdout", settings: &Object { name: "stdout", doc: "Standard output.", fields: &[] } };

static WEBHOOK: Kind = Kind {
    name: "webhook",
    settings: &Object {
        name: "webhook",
        doc: "An HTTP receiver.",
        fields: &[
            Field::required("url", Shape::Text, "the receiver"),
            Field::optional("secret", Shape::Secret, "signs the body"),
            Field::optional("headers", Shape::Map(&Shape::Secret), "more headers"),
            Field::optional("key", Shape::Template, "the message's id for the receiver"),
            Field::optional("ledger", Shape::Text, "where the ledger is"),
            Field::with_default("remember", Shape::Duration, "30d", "how long a sent message is remembered"),
        ],
    },
};

/// A module's name, parameters and output fields.
type Module = (&'static str, &'static [&'static str], Option<&'static [&'static str]>);

const MODULES: [Module; 6] = [
    ("visible-posts", &["hide"], None),
    ("feed-fanout", &["from"], Some(&["op", "follower", "post_id", "author_id", "created_at"])),
    (
        "search-document",
        &["id", "delete", "version", "status"],
        Some(&["op", "id", "version", "document", "rank"]),
    ),
    (
        "notification",
        &["count"],
        Some(&["notification_id", "recipient", "actor", "kind", "post_id", "at", "unread"]),
    ),
    ("mask-fields", &["fields", "mask"], None),
    ("count-by", &["by", "keys_max"], Some(&["total", "counts"])),
];

/// A catalog like the program's.
pub fn catalog() -> Catalog {
    let mut sinks = SinkKind::builtin();
    let memory = Memory { store: "ledger", lives: "remember" };
    sinks.extend([SinkKind::system(&STDOUT), SinkKind::with_ledger(&WEBHOOK, memory)]);
    Catalog {
        brokers: vec![&KAFKA, &EMBEDDED_BROKER],
        stores: vec![&REDIS, &SEARCH, &EMBEDDED_STORE],
        sinks,
        modules: MODULES
            .iter()
            .map(|(name, params, output_fields)| ShippedModule {
                name,
                doc: "",
                wasm: &[],
                params,
                output_fields: *output_fields,
            })
            .collect(),
        checks: vec![SettingsCheck { section: Section::Sinks, kind: "webhook", check: https }],
        handovers: vec![Handover { kind: "kafka", patience: |settings| settings.duration("patience") }],
    }
}

fn https(settings: &Settings, problems: &mut Problems) {
    if settings.text("url").is_some_and(|url| !url.starts_with("https://")) {
        problems.add(settings.at_key("url"), &settings.path_of("url"), "must begin with https://");
    }
}

/// The variables of the tests.
pub fn env(name: &str) -> Option<String> {
    match name {
        "REDIS_PASSWORD" => Some("s3cr3t-value".into()),
        "WORD" => Some("s3cr3t-word".into()),
        "FIVE" => Some("5".into()),
        _ => None,
    }
}

/// Loads a text as `pipelines.yaml` in `/etc/millrace`.
///
/// # Errors
/// The rendered problems.
pub fn plan_of(text: &str) -> Result<Plan, String> {
    load("pipelines.yaml", text, Path::new("/etc/millrace"), &env, &catalog())
        .map_err(|problems| render(&problems, "pipelines.yaml", text))
}

/// A node as an editor's YAML reader sees it.
pub fn to_json(node: &Node) -> Value {
    match &node.kind {
        NodeKind::Null => Value::Null,
        NodeKind::Scalar { text, plain: true } => {
            let number = text.parse::<i64>().ok().map(Value::from);
            number
                .or_else(|| text.parse::<bool>().ok().map(Value::from))
                .unwrap_or_else(|| text.as_str().into())
        }
        NodeKind::Scalar { text, .. } | NodeKind::Expanded { source: text, .. } => text.as_str().into(),
        NodeKind::List(items) => items.iter().map(to_json).collect(),
        NodeKind::Map(entries) => {
            Value::Object(entries.iter().map(|(key, value)| (key.text.clone(), to_json(value))).collect())
        }
    }
}
