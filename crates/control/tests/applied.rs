//! Whatever appliers do at the same time, and wherever they are killed, everybody agrees on what is in force.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use millrace_control::{Applied, AppliedEntry, Board, Chain, GENERATIONS_KEPT, applied_key, chain};
use millrace_core::Broker;
use millrace_testkit::memory::MemoryBroker;
use proptest::prelude::*;
use serde_json::json;

const TOPIC: &str = "millrace.control";

/// What one of the appliers does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Reads what is in force.
    Read(usize),
    /// Appends an entry that follows what it has read.
    Write(usize),
    /// Removes what is not needed, and is killed after so many removals.
    Remove(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..4_usize).prop_map(Step::Read),
        3 => (0..4_usize).prop_map(Step::Write),
        2 => (0..30_usize).prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 0..100)
}

/// A compacted log, and beside it what is true of it.
#[derive(Default)]
struct World {
    records: BTreeMap<i64, (String, AppliedEntry)>,
    end: i64,
    /// The offset in force, and its generation.
    truth: Option<(i64, u64)>,
    accepted: Vec<i64>,
    views: [Option<(i64, u64)>; 4],
}

impl World {
    fn chain(&self) -> Chain {
        let placed = self
            .records
            .iter()
            .map(|(offset, (key, entry))| (key.clone(), *offset, millrace_control::Entry::of(&json!(entry))));
        chain(placed)
    }

    fn in_force(&self) -> Option<Applied> {
        self.chain().in_force().unwrap().cloned()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Read(who) => {
                self.views[who] = self.in_force().map(|it| (it.offset, it.entry.generation));
            }
            Step::Write(who) => {
                let view = self.views[who];
                let generation = view.map_or(1, |(_, generation)| generation + 1);
                let predecessor = view.map(|(offset, _)| offset);
                let entry = AppliedEntry { generation, predecessor, ..AppliedEntry::default() };
                let offset = self.end;
                self.end += 1;
                self.records.insert(offset, (applied_key(generation, offset.cast_unsigned()), entry));
                if view == self.truth {
                    self.truth = Some((offset, generation));
                    self.accepted.push(offset);
                }
            }
            Step::Remove(killed_after) => {
                let keys: Vec<String> = self.chain().obsolete().concat();
                for key in keys.iter().take(killed_after) {
                    self.records.retain(|_, (of, _)| of != key);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn all_agree_on_what_is_in_force(steps in steps()) {
        let mut world = World::default();
        for step in steps {
            world.take(step);
            let seen = world.in_force().map(|it| (it.offset, it.entry.generation));
            prop_assert_eq!(seen, world.truth, "after {:?}", step);
            let history: Vec<i64> = world.chain().history().iter().map(|it| it.offset).collect();
            prop_assert!(world.accepted.ends_with(&history), "{:?} of {:?}", history, world.accepted);
            prop_assert!(history.len() >= GENERATIONS_KEPT.min(world.accepted.len()));
        }
    }
}

async fn log(broker: &MemoryBroker) -> Chain {
    chain(Board::look_in_order(broker, TOPIC).await.unwrap())
}

async fn apply(board: &Board, generation: u64, nonce: u64, predecessor: Option<i64>) {
    let entry = AppliedEntry { generation, predecessor, by: nonce.to_string(), ..AppliedEntry::default() };
    board.put(&[(applied_key(generation, nonce), Some(json!(entry)))]).await.unwrap();
}

#[tokio::test]
async fn the_lower_offset_of_two_wins() {
    let broker = MemoryBroker::default();
    let board = Board::open(&broker, TOPIC).await.unwrap();
    apply(&board, 1, 7, None).await;
    let first = log(&broker).await.in_force().unwrap().unwrap().offset;
    // Both have read the first one. The keys are in the other order.
    apply(&board, 2, 9, Some(first)).await;
    apply(&board, 2, 3, Some(first)).await;
    let won = log(&broker).await.in_force().unwrap().unwrap().clone();
    assert_eq!((won.entry.by.as_str(), won.entry.generation), ("9", 2));
    apply(&board, 3, 1, Some(won.offset)).await;
    let chain = log(&broker).await;
    let generations: Vec<u64> = chain.history().iter().map(|it| it.entry.generation).collect();
    assert_eq!(generations, [1, 2, 3]);
}

/// A control topic that somebody made with several partitions has one order of applied entries all the same.
#[tokio::test]
async fn one_partition_holds_them_all() {
    let broker = MemoryBroker::with_topic(TOPIC, 4);
    let board = Board::open(&broker, TOPIC).await.unwrap();
    let mut last = None;
    for generation in 1..=20 {
        apply(&board, generation, generation * 77, last).await;
        last = log(&broker).await.in_force().unwrap().map(|it| it.offset);
    }
    assert_eq!(last, Some(19));
    assert!(broker.records(TOPIC).iter().all(|record| record.partition == 0));
}

#[tokio::test]
async fn what_is_newer_than_the_program_is_not_passed_over() {
    let broker = MemoryBroker::default();
    let board = Board::open(&broker, TOPIC).await.unwrap();
    apply(&board, 1, 1, None).await;
    let record = |text: &str| millrace_core::NewRecord {
        key: Some(applied_key(2, 2).into()),
        value: Some(text.to_owned().into()),
        partition: Some(0),
        ..millrace_core::NewRecord::default()
    };
    let newer = json!({ "format": 2, "entry": {} }).to_string();
    broker.producer().await.unwrap().send(TOPIC, vec![record(&newer)]).await.remove(0).unwrap();
    let error = log(&broker).await.in_force().unwrap_err();
    assert!(error.chain().contains("format 2"), "{}", error.chain());
    broker.producer().await.unwrap().send(TOPIC, vec![record("damaged")]).await.remove(0).unwrap();
    assert!(log(&broker).await.in_force().is_err());
}
