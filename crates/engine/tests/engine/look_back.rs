//! The records before the first: shown at the start and after each replacement of an instance.

#![allow(clippy::unwrap_used, clippy::panic)]

use millrace_core::{LookBack, Message, Step};
use millrace_engine::ModuleOptions;
use tokio::time::Duration;

use crate::{
    sins::module_with,
    support::{apply, batch, load, message, open},
};

/// `look_back` counts the records it is shown, and traps on a mark; the filter keeps a batch only if as many were
/// shown as its first record's value has bytes, and traps on a mark.
fn counts_what_it_is_shown() -> String {
    module_with(
        "filter",
        r#"(global $shown (mut i32) (i32.const 0))
           (func (export "alloc") (param i32) (result i32) (i32.const 65536))
           (func (export "look_back") (param $p i32) (param $n i32) (param $version i32) (result i32)
             (local $raw i32)
             (local.set $raw (i32.add (local.get $p) (i32.const 12)))
             (if (call $marked (local.get $raw) (call $be32 (i32.add (local.get $p) (i32.const 8)))) (then (unreachable)))
             (global.set $shown (i32.add (global.get $shown) (call $be32 (local.get $raw))))
             (i32.const 0))"#,
        "(if (call $marked (local.get $raw) (local.get $len)) (then (unreachable)))
         (if (i32.ne
               (i32.shr_u (i32.load8_u offset=9 (local.get $raw)) (i32.const 1))
               (global.get $shown))
           (then (call $put32 (i32.const 16) (i32.const 0)) (call $put32 (i32.const 20) (i32.const 0))
             (call $copy_records (i32.const 16) (i32.const 5)) (return (i32.const 0))))
         (call $pass (local.get $raw) (local.get $len))",
    )
}

fn step(records_max: u32, age_max: Option<Duration>) -> Box<dyn Step> {
    let look_back = LookBack { records_max, age_max };
    let options = ModuleOptions { look_back: Some(look_back), ..ModuleOptions::default() };
    let step = open(&load(&counts_what_it_is_shown(), &options));
    assert_eq!(step.look_back(), Some(look_back));
    step
}

/// Whether the module was shown so many records.
fn was_shown(step: &mut dyn Step, count: usize) -> bool {
    let value = "x".repeat(count);
    !step.apply(batch(&[&value])).unwrap().passed.is_empty()
}

fn history(count: i64) -> Vec<Message> {
    (0..count).map(|n| message(n, n * 1_000, None, b"h")).collect()
}

#[test]
fn records_are_shown_before_the_first_batch() {
    let mut step = step(5, None);
    step.prime(history(3)).unwrap();
    assert!(was_shown(&mut *step, 3));
}

#[test]
fn no_more_and_no_older_records_than_asked_for_are_shown() {
    let mut by_number = step(2, None);
    by_number.prime(history(5)).unwrap();
    assert!(was_shown(&mut *by_number, 2));
    let mut by_age = step(100, Some(Duration::from_millis(1_500)));
    by_age.prime(history(5)).unwrap();
    assert!(was_shown(&mut *by_age, 2));
}

#[test]
fn a_new_instance_is_shown_what_was_processed_since() {
    let mut step = step(5, None);
    step.prime(history(3)).unwrap();
    assert!(was_shown(&mut *step, 3));
    // The trap costs the instance; the record that caused it is not remembered.
    assert_eq!(apply(&mut *step, batch(&["!"])).rejected.len(), 1);
    assert!(was_shown(&mut *step, 4), "three of the history, one processed");
    assert_eq!(apply(&mut *step, batch(&["!"])).rejected.len(), 1);
    assert!(was_shown(&mut *step, 5));
    assert_eq!(apply(&mut *step, batch(&["!"])).rejected.len(), 1);
    assert!(was_shown(&mut *step, 5), "the oldest is forgotten");
}

#[test]
fn a_record_that_look_back_fails_on_is_left_out() {
    let mut step = step(50, None);
    let mut records = history(20);
    records[4] = message(4, 4_000, None, b"!");
    records[11] = message(11, 11_000, None, b"!");
    step.prime(records).unwrap();
    assert!(was_shown(&mut *step, 18));
}

#[test]
fn a_look_back_that_always_fails_ends_the_pipeline() {
    let mut step = step(500, None);
    let records = (0..500).map(|n| message(n, n, None, b"!")).collect();
    let error = step.prime(records).unwrap_err();
    assert!(error.to_string().starts_with("module 'm': look_back failed 41 times, last: trapped"), "{error}");
}
