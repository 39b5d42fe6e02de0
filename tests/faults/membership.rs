//! Processes come and go, and each like is counted once.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{clock, faults, input::Event, likes, processes::Process, say, seed, stage::Stage};

const PROCESSES: usize = 8;

fn event(number: u64) -> Event {
    Event { topic: likes::TOPIC, key: likes::author(number), line: likes::line(number) }
}

#[test]
fn eight_processes_come_and_go() {
    let stage = Stage::with("members", |prefix| likes::pipelines(prefix, 12));
    let mut rng = SmallRng::seed_from_u64(seed());
    let (enough, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut started = 0;
    let mut next = || {
        started += 1;
        Process::start(&stage.millrace, &format!("run-{started}"), &[])
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
    likes::check(&stage, sent);
    say(&format!("{started} processes came and went: {sent} likes, each is there once and in order"));
}
