//! A poison record in every place of a pipeline: it becomes a dead letter with the right place and reason, is
//! mended in an export, replayed, and has its effect once, however often it is replayed.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::support::{
    millrace::{Millrace, Ran},
    servers::{Embedded, Servers, World, required},
};

/// A place, a record that fails there, and the payload that mends it.
struct Poison {
    /// The pipeline's name without the prefix.
    name: &'static str,
    event_type: &'static str,
    payload: Value,
    mended: Value,
    place: &'static str,
    reason: &'static str,
    steps: &'static str,
    /// The sink at test; none: only the counter that every pipeline has.
    sink: &'static str,
}

/// A step of each kind, and a lookup. `P_` stands for the prefix of the test, also in what follows.
fn in_steps() -> Vec<Poison> {
    let step = |name, event_type, (payload, mended): (Value, Value), reason, steps| Poison {
        name,
        event_type,
        payload,
        mended,
        place: "step:one",
        reason,
        steps,
        sink: "",
    };
    vec![
        step(
            "filter",
            "test.filter.made.v1",
            (json!({ "visibility": 7 }), json!({ "visibility": "PUBLIC" })),
            "payload.visibility must be",
            "{ id: one, uses: visible-posts }",
        ),
        step(
            "map",
            "test.map.made.v1",
            (json!({ "version": 1 }), json!({ "version": 1, "post_id": "p" })),
            "payload.post_id",
            "{ id: one, uses: search-document, with: { id: post_id } }",
        ),
        step(
            "filter-map",
            "social.post.liked.v1",
            (
                json!({ "user_id": "u1", "post_id": "p", "at": 1 }),
                json!({ "user_id": "u1", "author_id": "u2", "post_id": "p", "at": 1 }),
            ),
            "payload.author_id",
            "{ id: one, uses: notification }",
        ),
        step(
            "array-map",
            "content.post.deleted.v1",
            (json!({}), json!({ "post_id": "p" })),
            "payload.post_id",
            "{ id: one, uses: feed-fanout, with: { from: readers } }",
        ),
        step(
            "aggregate",
            "test.aggregate.made.v1",
            (json!({}), json!({ "kind": "a" })),
            "payload.kind",
            "{ id: one, uses: count-by, with: { by: payload.kind } }",
        ),
        Poison {
            place: "lookup:one",
            ..step(
                "lookup",
                "test.lookup.made.v1",
                (json!({}), json!({ "user": "u1" })),
                "field 'payload.user': is missing",
                "{ id: one, lookup: { store: views, document: \"P_user:{payload.user}\", into: user } }",
            )
        },
    ]
}

/// A sink of each kind that there is with and without servers.
fn in_sinks() -> Vec<Poison> {
    let sink = |name, event_type, (payload, mended): (Value, Value), reason, sink| Poison {
        name,
        event_type,
        payload,
        mended,
        place: "sink:one",
        reason,
        steps: "",
        sink,
    };
    let number = || (json!({ "id": "P_o1", "n": "many" }), json!({ "id": "P_o1", "n": 4 }));
    vec![
        sink(
            "timeline",
            "test.timeline.made.v1",
            number(),
            "n",
            "timeline: { store: views, key: \"feed:P_u\", member: \"{payload.id}\", score: \"{payload.n}\" }",
        ),
        sink(
            "members",
            "test.members.made.v1",
            number(),
            "n",
            "members: { store: views, key: \"P_set\", member: \"{payload.id}\", version: \"{payload.n}\" }",
        ),
        sink(
            "document",
            "test.document.made.v1",
            number(),
            "n",
            "document: { store: views, key: \"post:{payload.id}\", version: \"{payload.n}\", document: \"{payload}\" }",
        ),
        sink(
            "counter",
            "test.counter.made.v1",
            number(),
            "n",
            "counter: { store: views, key: \"unread:P_sum\", by: \"{payload.n}\" }",
        ),
        sink(
            "index",
            "test.index.made.v1",
            number(),
            "n",
            "index: { store: search, index: P_things, id: \"{payload.id}\", version: \"{payload.n}\", document: \"{payload}\" }",
        ),
        sink(
            "topic",
            "test.topic.made.v1",
            (json!({ "id": "P_o1" }), json!({ "id": "P_o1", "to": "k" })),
            "field 'payload.to': is missing",
            "topic: { topic: P_out, key: \"{payload.to}\" }",
        ),
    ]
}

fn poisons() -> Vec<Poison> {
    in_steps().into_iter().chain(in_sinks()).collect()
}

/// A stage on one kind of systems.
struct Stage {
    millrace: Millrace,
    prefix: String,
    poisons: Vec<Poison>,
}

impl Stage {
    /// `systems` are the brokers and stores of the file.
    fn new(millrace: Millrace, prefix: &str, systems: &str, poisons: Vec<Poison>) -> Self {
        let mut text = format!(
            "version: 1\n{systems}topics:\n  P_raw: {{ broker: main, partitions: 1 }}\n  P_things: {{ broker: main, partitions: 2 }}\n  \
             P_out: {{ broker: main, partitions: 1 }}\nindexes: {{ P_things: {{ fields: {{ id: keyword, n: long }} }} }}\npipelines:\n"
        );
        let seen = |name: &str| format!("seen: {{ counter: {{ store: views, key: \"unread:P_{name}\" }} }}");
        text.push_str(&format!(
            "  P_decode:\n    from: {{ topic: P_raw }}\n    to:\n      {}\n",
            seen("decode")
        ));
        for Poison { name, event_type, steps, sink, .. } in &poisons {
            text.push_str(&format!(
                "  P_{name}:\n    from: {{ topic: P_things, events: [{event_type}] }}\n    steps: [ {steps} ]\n    to:\n      {}\n",
                seen(name)
            ));
            if !sink.is_empty() {
                text.push_str(&format!("      one: {{ {sink} }}\n"));
            }
        }
        millrace.write("pipelines.yaml", text.replace("P_", prefix));
        let stage = Stage { millrace, prefix: prefix.to_owned(), poisons };
        stage.millrace.ok(&["topic", "create", "--all"]);
        stage
    }

    fn event(&self, poison: &Poison, payload: &Value) -> String {
        let event = json!({
            "eventId": format!("{}{}", self.prefix, poison.name), "eventType": poison.event_type, "bizId": "b",
            "occurredAt": "2026-01-01T00:00:00Z", "payload": payload, "readers": ["u1"],
        });
        event.to_string().replace("P_", &self.prefix)
    }

    fn produce(&self, topic: &str, lines: &[String]) {
        let file = self.millrace.write("lines.ndjson", lines.join("\n"));
        let topic = format!("{}{topic}", self.prefix);
        self.millrace.ok(&["topic", "produce", &topic, "--file", &file.to_string_lossy()]);
    }

    fn poison(&self) {
        self.produce("raw", &["{\"eventId\": ".to_owned()]);
        let events: Vec<String> = self.poisons.iter().map(|p| self.event(p, &p.payload)).collect();
        self.produce("things", &events);
        self.millrace.ok(&["run", "--until-end", "--listen", "off"]);
    }

    /// Every place has its letter, and only it.
    fn check_letters(&self) {
        let listed = self.millrace.ok(&["dlq", "list", "--json"]);
        let mut found = BTreeMap::new();
        for line in listed.stdout.lines() {
            let letter: Value = serde_json::from_str(line).unwrap();
            let text = |field: &str| letter[field].as_str().unwrap().to_owned();
            let other = found.insert(text("pipeline"), (text("place"), text("reason")));
            assert!(other.is_none(), "{letter}");
        }
        let decode = ("decode", "decode", "ends too early");
        let expected = self.poisons.iter().map(|p| (p.name, p.place, p.reason)).chain([decode]);
        for (name, place, reason) in expected {
            let seen = found.remove(&format!("{}{name}", self.prefix)).unwrap_or_default();
            assert!(seen.0 == place && seen.1.contains(reason), "{name}: {seen:?}");
        }
        assert!(found.is_empty(), "{found:?}");
    }

    /// The letters with mended values, in a file.
    fn mend(&self) {
        let exported = self.millrace.ok(&["dlq", "export"]).stdout;
        let mut mended = String::new();
        for line in exported.lines() {
            let mut letter: Value = serde_json::from_str(line).unwrap();
            let pipeline = letter["pipeline"].as_str().unwrap().to_owned();
            let name = pipeline.strip_prefix(&self.prefix).unwrap();
            letter["value"] = match self.poisons.iter().find(|poison| poison.name == name) {
                Some(poison) => self.event(poison, &poison.mended).into(),
                None => json!({ "eventId": format!("{}d", self.prefix), "payload": {} }).to_string().into(),
            };
            mended.push_str(&format!("{letter}\n"));
        }
        self.millrace.write("mended.ndjson", mended);
    }

    fn replay(&self, more: &[&str]) -> (Ran, Value) {
        let ran =
            self.millrace.run(&[&["dlq", "replay", "--from", "mended.ndjson", "--json"], more].concat());
        let report = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:#?}"));
        (ran, report)
    }

    /// Mends, replays, replays again; the effects are there, once.
    fn check(&self, world: &mut dyn World) {
        let ambiguous = self.millrace.run(&["dlq", "show", "0:0"]);
        assert_eq!(ambiguous.code, Some(2), "{ambiguous:#?}");
        assert!(ambiguous.stderr.contains(&format!("say {}raw.dlq/0:0 or", self.prefix)), "{ambiguous:#?}");
        let letters = self.poisons.len() + 1;
        self.mend();
        // The aggregate has a memory that a replay has not.
        let (ran, report) = self.replay(&[]);
        assert_eq!(
            (ran.code, &report["left"], &report["replayed"]),
            (Some(1), &json!(1), &json!(letters - 1))
        );
        assert!(ran.stderr.contains("'one' of") && ran.stderr.contains("aggregate"), "{ran:#?}");
        let (ran, report) = self.replay(&["--force", "--pipeline", &format!("{}aggregate", self.prefix)]);
        assert_eq!((ran.code, &report["replayed"]), (Some(0), &json!(1)), "{ran:#?}");
        self.check_effects(world);
        let (ran, report) = self.replay(&[]);
        assert_eq!((ran.code, &report["already_resolved"]), (Some(0), &json!(letters)), "{ran:#?}");
        let (ran, report) =
            self.replay(&["--force", "--place", "step", "--place", "decode", "--place", "lookup"]);
        assert_eq!((ran.code, &report["failed_again"]), (Some(0), &json!(0)), "{ran:#?}");
        let (ran, _) = self.replay(&["--force", "--pipeline", &format!("{}counter", self.prefix)]);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        self.check_effects(world);
        assert_eq!(self.millrace.ok(&["dlq", "list", "--json"]).stdout, "");
        // Nothing of it went back into the topics it came from, and no other pipeline has noticed.
        self.millrace.ok(&["run", "--until-end", "--listen", "off"]);
        self.check_effects(world);
    }

    fn check_effects(&self, world: &mut dyn World) {
        let prefix = &self.prefix;
        for name in self.poisons.iter().map(|poison| poison.name).chain(["decode"]) {
            assert_eq!(world.unread(&format!("{prefix}{name}")), Some(1), "what {name} has seen");
        }
        let object = format!("{prefix}o1");
        assert_eq!(world.feed(&format!("{prefix}u")), [(object.clone(), 4)]);
        assert_eq!(world.unread(&format!("{prefix}sum")), Some(4));
        assert_eq!(world.post(&object).unwrap()["n"], 4);
        let out = format!("{prefix}out");
        let tail = self.millrace.ok(&["topic", "tail", &out, "--from", "beginning", "--until-end", "--json"]);
        let appended: Vec<Value> = tail.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert!(appended.len() == 1 && appended[0]["key"] == "k", "{appended:?}");
    }
}

/// Answers webhooks: 422 where the body has `many` in it, else 200. Gives its port, and the bodies it took.
fn receiver() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let taken = Arc::new(Mutex::new(Vec::new()));
    let bodies = taken.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4_096];
            let body = loop {
                let read = stream.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..read]);
                let text = String::from_utf8_lossy(&request).into_owned();
                let whole = text.split_once("\r\n\r\n").filter(|(head, body)| {
                    let head = head.to_ascii_lowercase();
                    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
                    length
                        .and_then(|length| length.parse().ok())
                        .is_some_and(|length: usize| body.len() >= length)
                });
                if let Some((_, body)) = whole {
                    break body.to_owned();
                }
                assert!(read > 0, "{text}");
            };
            let status = if body.contains("many") { "422 No" } else { "200 OK" };
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            if status.starts_with("200") {
                bodies.lock().unwrap().push(body);
            }
        }
    });
    (port, taken)
}

#[test]
fn on_the_embedded_form() {
    let (port, taken) = receiver();
    let hook = format!(
        "webhook: {{ url: \"http://127.0.0.1:{port}/\", allow_http: true, allow_private: [127.0.0.1], secret: s, ledger: views }}"
    );
    let mut poisons = poisons();
    poisons.push(Poison {
        name: "webhook",
        event_type: "test.webhook.made.v1",
        payload: json!({ "n": "many" }),
        mended: json!({ "n": 4 }),
        place: "sink:one",
        reason: "422",
        steps: "",
        sink: hook.leak(),
    });
    let systems = "brokers: { main: { embedded: {} } }\nstores: { views: { embedded: {} }, search: { embedded: {} } }\n";
    let stage = Stage::new(Millrace::new(), "x-", systems, poisons);
    stage.poison();
    stage.check_letters();
    let mut world = Embedded::open(&stage.millrace.path().join(".millrace"));
    stage.check(&mut world);
    assert_eq!(taken.lock().unwrap().len(), 1);
    assert_eq!(world.index("x-things")["x-o1"]["n"], 4);
}

#[test]
fn on_servers() {
    let prefix = format!("dlq-{}-", std::process::id());
    let (redis, elasticsearch) = (required("REDIS_URL"), required("ES_URL"));
    let systems = format!(
        "brokers: {{ main: {{ kafka: {{ bootstrap: \"{}\", group_prefix: \"{prefix}\" }} }} }}\nstores:\n  views: {{ redis: {{ url: \"{redis}\" }} }}\n  \
         search: {{ elasticsearch: {{ url: \"{elasticsearch}\" }} }}\n",
        required("KAFKA_BROKERS")
    );
    let stage = Stage::new(Millrace::new(), &prefix, &systems, poisons());
    stage.poison();
    stage.check_letters();
    let mut world = Servers::connect(&redis, &elasticsearch, "");
    stage.check(&mut world);
    assert_eq!(world.index(&format!("{prefix}things"))[&format!("{prefix}o1")]["n"], 4);
}
