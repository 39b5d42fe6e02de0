//! Collects the operations of a batch into calls: bounded ones, and on a cluster one slot per call.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use millrace_core::{Call, Encoded, Error, Op};
use redis::cluster_routing::Slot;

use crate::slot;

/// A script runs while nobody else does: this many operations take about a millisecond.
const OPS_MAX: usize = 500;
/// A call carries this much, or one operation that is larger.
const CALL_BYTES_MAX: usize = 1 << 20;
/// What an operation takes in the buffer, about.
const OP_BYTES_GUESS: usize = 96;
/// The first buffer is no larger than this, whatever the batch.
const BUFFER_BYTES_MAX: usize = 256 * 1024;

/// The calls of one kind for a batch.
pub(crate) struct Calls {
    kind: &'static str,
    groups: Groups,
    calls: Vec<Call>,
    sizes_bytes: Vec<usize>,
    rejected: Vec<(u32, Error)>,
    buffer: BytesMut,
    ops_left: usize,
}

/// Which call an operation may join.
enum Groups {
    /// The last one: order is kept among all.
    Single,
    /// The last one of its slot: order is kept per key.
    BySlot(HashMap<Slot, usize>),
}

/// The parts of one operation, written into the buffer all of them share.
pub(crate) struct Parts<'a> {
    buffer: &'a mut BytesMut,
    list: Vec<Bytes>,
}

impl Calls {
    /// For a batch of `messages`; `cluster` keeps slots apart.
    pub(crate) fn new(kind: &'static str, cluster: bool, messages: usize) -> Self {
        Calls {
            kind,
            groups: if cluster { Groups::BySlot(HashMap::new()) } else { Groups::Single },
            calls: Vec::new(),
            sizes_bytes: Vec::new(),
            rejected: Vec::new(),
            buffer: BytesMut::with_capacity((messages * OP_BYTES_GUESS).min(BUFFER_BYTES_MAX)),
            ops_left: messages,
        }
    }

    /// Adds the operation on `key` that `message` asks for: the key, its companions in their roles, and what
    /// `write` appends, about `arguments` parts. A key that can have no companions rejects the message.
    pub(crate) fn push(
        &mut self,
        message: u32,
        key: &str,
        roles: &[&str],
        arguments: usize,
        write: impl FnOnce(&mut Parts<'_>),
    ) {
        self.ops_left = self.ops_left.saturating_sub(1);
        if let Err(error) = slot::check(key) {
            self.rejected.push((message, error));
            return;
        }
        let mut op =
            Parts { buffer: &mut self.buffer, list: Vec::with_capacity(1 + roles.len() + arguments) };
        op.text(key);
        for role in roles {
            op.part(|buffer| slot::write_companion(buffer, role, key));
        }
        write(&mut op);
        let parts = op.list;
        let size_bytes = parts.iter().map(Bytes::len).sum();
        let call = self.call_for(key, size_bytes);
        self.calls[call].ops.push(Op { message, parts });
        self.sizes_bytes[call] += size_bytes;
    }

    /// Gives a message up.
    pub(crate) fn reject(&mut self, message: u32, error: Error) {
        self.ops_left = self.ops_left.saturating_sub(1);
        self.rejected.push((message, error));
    }

    /// What was collected.
    pub(crate) fn finish(self) -> Encoded {
        Encoded { calls: self.calls, rejected: self.rejected }
    }

    /// The place of the call that takes an operation of this size on this key.
    fn call_for(&mut self, key: &str, size_bytes: usize) -> usize {
        let next = self.calls.len();
        let open = match &mut self.groups {
            Groups::Single => next.checked_sub(1),
            Groups::BySlot(last) => last.get(&Slot::for_key(key)).copied(),
        };
        if let Some(call) = open
            && self.calls[call].ops.len() < OPS_MAX
            && self.sizes_bytes[call] + size_bytes <= CALL_BYTES_MAX
        {
            return call;
        }
        let ops_expected = match &mut self.groups {
            Groups::Single => self.ops_left.saturating_add(1).min(OPS_MAX),
            Groups::BySlot(last) => {
                last.insert(Slot::for_key(key), next);
                1
            }
        };
        self.calls.push(Call { kind: self.kind, ops: Vec::with_capacity(ops_expected) });
        self.sizes_bytes.push(0);
        next
    }
}

impl Parts<'_> {
    /// Appends text.
    pub(crate) fn text(&mut self, text: &str) {
        self.part(|buffer| buffer.put_slice(text.as_bytes()));
    }

    /// Appends a word that the program brings along; nothing is copied.
    pub(crate) fn word(&mut self, word: &'static str) {
        self.list.push(Bytes::from_static(word.as_bytes()));
    }

    /// Appends what `write` writes.
    pub(crate) fn part(&mut self, write: impl FnOnce(&mut BytesMut)) {
        write(self.buffer);
        self.list.push(self.buffer.split().freeze());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(cluster: bool, ops: impl IntoIterator<Item = (u32, String, usize)>) -> Encoded {
        let mut calls = Calls::new("test", cluster, 4);
        for (message, key, bytes) in ops {
            calls.push(message, &key, &["companion"], 1, |parts| parts.text(&"x".repeat(bytes)));
        }
        calls.finish()
    }

    fn messages(call: &Call) -> Vec<u32> {
        call.ops.iter().map(|op| op.message).collect()
    }

    #[test]
    fn calls_are_bounded_in_ops_and_in_bytes() {
        let many = calls(false, (0..1_201).map(|n| (n, format!("k{n}"), 1)));
        assert_eq!(many.calls.iter().map(|call| call.ops.len()).collect::<Vec<_>>(), [500, 500, 201]);
        let large = calls(false, (0..5).map(|n| (n, "k".into(), 400 * 1024)));
        assert_eq!(large.calls.iter().map(messages).collect::<Vec<_>>(), [vec![0, 1], vec![2, 3], vec![4]]);
        let huge = calls(false, [(0, "k".into(), 1), (1, "k".into(), 3 << 20), (2, "k".into(), 1)]);
        assert_eq!(huge.calls.len(), 3, "an operation larger than a call has one of its own");
    }

    #[test]
    fn a_cluster_has_one_slot_per_call_and_keeps_the_order_of_a_key() {
        let ops = (0..1_500).map(|n| (n, format!("k{}", n % 3), 1));
        let encoded = calls(true, ops);
        assert_eq!(encoded.calls.len(), 3);
        for call in &encoded.calls {
            let slots: std::collections::HashSet<Slot> =
                call.ops.iter().flat_map(|op| &op.parts[..2]).map(Slot::for_key).collect();
            assert_eq!(slots.len(), 1);
            assert!(messages(call).is_sorted());
        }
        let wide = calls(true, (0..600).map(|n| (n, "one".into(), 1)));
        assert_eq!(wide.calls.iter().map(|call| call.ops.len()).collect::<Vec<_>>(), [500, 100]);
    }

    #[test]
    fn a_key_without_a_companion_is_rejected_alone() {
        let encoded = calls(false, [(0, "a{".into(), 1), (1, "b".into(), 1)]);
        assert_eq!(encoded.rejected.iter().map(|(message, _)| *message).collect::<Vec<_>>(), [0]);
        assert_eq!(encoded.calls.iter().map(messages).collect::<Vec<_>>(), [vec![1]]);
        assert_eq!(encoded.calls[0].ops[0].parts, ["b", "companion:{b}", "x"]);
    }
}
