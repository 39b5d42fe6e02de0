//! Which slots lie on one master, so that commands to one master travel together.
//!
//! A cluster's client routes every command by itself, at ten times the cost of a pipelined one. What is grouped
//! here may be wrong, after slots were moved: the master says so, and the command goes the single way.

use std::collections::HashMap;

use redis::{Arg, Cmd, Value, cluster_routing::Slot};

/// Slots by the master that serves them.
#[derive(Debug, Default)]
pub(crate) struct Shards {
    of_slot: HashMap<Slot, usize>,
}

/// How commands are to be sent: by their places, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Per master: a slot of it, and the commands for it.
    pub(crate) groups: Vec<(Slot, Vec<usize>)>,
    /// Commands without a key, or of a slot that nobody was seen to serve.
    pub(crate) alone: Vec<usize>,
}

impl Shards {
    /// Reads the answer to `CLUSTER SLOTS`; what cannot be read serves no slot.
    pub(crate) fn parse(answer: &Value) -> Self {
        let mut shards = Shards::default();
        let mut masters: HashMap<String, usize> = HashMap::new();
        for range in items(answer) {
            let [Value::Int(first), Value::Int(last), master, ..] = items(range) else { continue };
            // Host and port; what follows may change while the master stays.
            let name = format!("{:?}", items(master).get(..2));
            let next = masters.len();
            let shard = *masters.entry(name).or_insert(next);
            for slot in (*first).max(0)..=(*last).min(i64::from(u16::MAX)) {
                if let Some(slot) = u16::try_from(slot).ok().and_then(Slot::new) {
                    shards.of_slot.insert(slot, shard);
                }
            }
        }
        shards
    }

    /// Groups commands by master, in the order of the commands.
    pub(crate) fn plan(&self, commands: &[Cmd]) -> Plan {
        let mut plan = Plan::default();
        let mut groups: HashMap<usize, usize> = HashMap::new();
        for (place, command) in commands.iter().enumerate() {
            let slot = key_of(command).map(Slot::for_key);
            let Some((slot, shard)) = slot.and_then(|slot| Some((slot, *self.of_slot.get(&slot)?))) else {
                plan.alone.push(place);
                continue;
            };
            let next = plan.groups.len();
            let group = *groups.entry(shard).or_insert(next);
            if group == next {
                plan.groups.push((slot, Vec::new()));
            }
            plan.groups[group].1.push(place);
        }
        plan
    }
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        _ => &[],
    }
}

/// The first key of a command that this crate sends.
fn key_of(command: &Cmd) -> Option<&[u8]> {
    let word = |place: usize| match command.args_iter().nth(place) {
        Some(Arg::Simple(word)) => Some(word),
        _ => None,
    };
    match word(0)? {
        b"EVALSHA" | b"EVAL" => word(3),
        b"SCRIPT" | b"INFO" | b"CLUSTER" => None,
        _ => word(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: i64, last: i64, port: i64) -> Value {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let master =
            Value::Array(vec![text("127.0.0.1"), Value::Int(port), text("id"), Value::Array(vec![])]);
        let replica = Value::Array(vec![text("127.0.0.2"), Value::Int(port)]);
        Value::Array(vec![Value::Int(first), Value::Int(last), master, replica])
    }

    fn words(words: &[&str]) -> Cmd {
        let mut command = Cmd::new();
        command.arg(words);
        command
    }

    #[test]
    fn commands_are_grouped_by_master_in_their_order() {
        // Slots: a 15495, b 3300, c 7365, foo 12182.
        let answer = Value::Array(vec![range(0, 5000, 1), range(5001, 9000, 2), range(9001, 16383, 1)]);
        let plan = Shards::parse(&answer).plan(&[
            words(&["GET", "a"]),
            words(&["GET", "c"]),
            words(&["EVALSHA", "hash", "2", "b", "x:{b}", "argument"]),
            words(&["SCRIPT", "LOAD", "return 1"]),
            words(&["EXISTS", "foo"]),
        ]);
        let places: Vec<&[usize]> = plan.groups.iter().map(|(_, places)| places.as_slice()).collect();
        assert_eq!(places, [&[0, 2, 4][..], &[1]]);
        assert_eq!(plan.groups[0].0, Slot::for_key("a"));
        assert_eq!(plan.alone, [3]);
    }

    #[test]
    fn what_nobody_serves_goes_alone() {
        for answer in
            [Value::Nil, Value::Array(vec![Value::Int(3), range(-5, 99_999, 1)]), Value::Array(vec![])]
        {
            let plan = Shards::parse(&answer).plan(&[words(&["GET", "a"]), Cmd::new()]);
            let all: usize =
                plan.alone.len() + plan.groups.iter().map(|(_, places)| places.len()).sum::<usize>();
            assert_eq!(all, 2, "{answer:?}");
            assert!(plan.alone.contains(&1));
        }
    }
}
