//! A Redis that forgets, and one that is full.

use std::time::Duration;

use redis::Connection;

use crate::{clock, input::Event, likes, processes::Process, stage::Stage};

const PATIENCE: Duration = Duration::from_secs(60);

/// A setting of the laboratory's Redis, for as long as this lives.
struct Setting {
    redis: Connection,
    name: &'static str,
    usual: &'static str,
}

impl Setting {
    fn change(stage: &Stage, name: &'static str, usual: &'static str, value: &str) -> Self {
        let client = redis::Client::open(stage.lab.redis.as_str()).expect("an address");
        let mut setting = Setting { redis: client.get_connection().expect("redis answers"), name, usual };
        setting.set(value);
        setting
    }

    fn set(&mut self, value: &str) {
        redis::cmd("CONFIG")
            .arg("SET")
            .arg(self.name)
            .arg(value)
            .exec(&mut self.redis)
            .expect("redis answers");
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        self.set(self.usual);
    }
}

#[test]
fn a_redis_that_evicts_is_found_out() {
    let stage = Stage::with("evicts", |prefix| likes::pipelines(prefix, 1));
    let _evicts = Setting::change(&stage, "maxmemory-policy", "noeviction", "allkeys-lru");
    let ran = stage.millrace.run(&["doctor"]);
    assert_eq!(ran.code, Some(3), "{ran:#?}");
    assert!(ran.stdout.contains("maxmemory-policy is allkeys-lru, must be noeviction"), "{ran:#?}");
}

#[test]
fn a_redis_that_is_full_is_waited_for() {
    let stage = Stage::with("full", |prefix| likes::pipelines(prefix, 3));
    let full = Setting::change(&stage, "maxmemory", "1gb", "1");
    let events: Vec<Event> = (0..1_000)
        .map(|number| Event { topic: likes::TOPIC, key: likes::author(number), line: likes::line(number) })
        .collect();
    stage.appender().append_all(&events);
    let process = Process::start(&stage.millrace, "run", &[]);
    clock::until(
        PATIENCE,
        || format!("it does not say so:\n{}", process.last_words()),
        || process.get("/readyz").filter(|states| states.contains("retrying") && states.contains("OOM")),
    );
    drop(full);
    stage.drained(&[(likes::TOPIC, likes::PIPELINE)], || process.last_words());
    let (status, log) = process.stop();
    assert!(status.success(), "{log}");
    likes::check(&stage, 1_000);
}
