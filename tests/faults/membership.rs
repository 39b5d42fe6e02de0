//! Processes come and go, and each like is counted once.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{clock, faults, input::Event, likes, processes::Process, say, seed, stage::Stage};

const PROCESSES: usize = 8;
const PATIENCE: Duration = Duration::from_secs(120);

fn event(number: u64) -> Event {
    Event { topic: likes::TOPIC, key: likes::author(number), line: likes::line(number) }
}

fn start(stage: &Stage, name: &str, instance: &str) -> Process {
    let mut command = stage.millrace.command(&["run", "--listen", "127.0.0.1:0", "--log", "info"]);
    command.env("INSTANCE", instance);
    Process::spawn(command, stage.millrace.path().join(format!("{name}.log")))
}

#[test]
fn eight_processes_come_and_go() {
    let stage = Stage::with("members", |prefix| likes::pipelines(prefix, 12, ""));
    let mut rng = SmallRng::seed_from_u64(seed());
    let (enough, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut started = 0;
    let mut next = || {
        started += 1;
        start(&stage, &format!("run-{started}"), "")
    };
    std::thread::scope(|scope| {
        let mut slots: Vec<Option<Process>> = (0..PROCESSES).map(|_| Some(next())).collect();
        let input = scope.spawn(|| {
            let mut appender = stage.appender();
            while !enough.load(Ordering::Relaxed) {
                for _ in 0..20 {
                    appender.append(&event(sent.fetch_add(1, Ordering::Relaxed)));
                }
                clock::pause(Duration::from_millis(20));
            }
            appender.flush();
        });
        let mut ends = Vec::new();
        for _ in 0..faults(4) * 4 {
            let at = rng.random_range(0..PROCESSES);
            slots[at] = match slots[at].take() {
                None => Some(next()),
                Some(process) => {
                    ends.push(scope.spawn(|| process.stop()));
                    None
                }
            };
            clock::pause(Duration::from_millis(rng.random_range(100..1_000)));
        }
        slots[0].get_or_insert_with(&mut next);
        enough.store(true, Ordering::Relaxed);
        input.join().expect("everything is appended");
        stage.drained(&[(likes::TOPIC, likes::PIPELINE)], String::new);
        for process in slots.into_iter().flatten() {
            ends.push(scope.spawn(|| process.stop()));
        }
        for end in ends {
            let (status, log) = end.join().expect("an end");
            assert!(status.success(), "{log}");
        }
    });
    let sent = sent.load(Ordering::Relaxed);
    let repeated = likes::check(&stage, sent);
    say(&format!(
        "{started} processes came and went: {sent} likes, each counted once, {repeated} copies repeated"
    ));
}

/// A process with a name of its own restarts within its session: nobody else notices.
#[test]
fn a_named_process_restarts_without_a_rebalance() {
    let instance = ", group_instance_id: \"${INSTANCE:-none}\"";
    let stage = Stage::with("named", |prefix| likes::pipelines(prefix, 6, instance));
    let mut appender = stage.appender();
    let (stays, goes) = (start(&stage, "a", "a"), start(&stage, "b-1", "b"));
    let mut sent = 0;
    let mut append_until = |what: &str, done: &dyn Fn() -> bool| {
        clock::until(
            PATIENCE,
            || format!("{what}\n{}", stays.last_words()),
            || {
                appender.append(&event(sent));
                sent += 1;
                done().then_some(())
            },
        );
    };
    let works = |process: &Process| {
        process.metrics().is_some_and(|m| m.of("millrace_records_in_total").any(|(_, count)| count > 0.0))
    };
    append_until("both work", &|| works(&stays) && works(&goes));
    let moves = |process: &Process| process.said().matches("partition assigned").count();
    let before = moves(&stays);
    let (status, log) = goes.stop();
    assert!(status.success(), "{log}");
    let back = start(&stage, "b-2", "b");
    append_until("it works again", &|| works(&back));
    appender.flush();
    stage.drained(&[(likes::TOPIC, likes::PIPELINE)], String::new);
    assert_eq!(moves(&stays), before, "partitions moved:\n{}", stays.said());
    for process in [stays, back] {
        assert!(process.stop().0.success());
    }
    likes::check(&stage, sent);
}
