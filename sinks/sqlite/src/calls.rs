//! Collects the operations of a batch into calls, and reads them again on the thread that writes.

use bytes::Bytes;
use millrace_core::{Call, Class, Encoded, Error, Op};
use millrace_sqlite_file::Failure;

/// A call holds this many operations: what a rejected one makes the runtime send again one by one.
const OPS_MAX: usize = 1_000;

/// The calls of one kind for a batch.
pub(crate) struct Calls {
    kind: &'static str,
    encoded: Encoded,
}

/// An operation on one key, by its place in the call.
pub(crate) struct Keyed<'a> {
    pub(crate) key: &'a str,
    pub(crate) op: Parts<'a>,
}

/// The parts of an operation: first its verb, second its key.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a>(&'a [Bytes]);

impl Calls {
    pub(crate) fn new(kind: &'static str) -> Self {
        Calls { kind, encoded: Encoded::default() }
    }

    /// Adds the operation that `message` asks for.
    pub(crate) fn push(&mut self, message: u32, parts: Vec<Bytes>) {
        let op = Op { message, parts };
        match self.encoded.calls.last_mut() {
            Some(call) if call.ops.len() < OPS_MAX => call.ops.push(op),
            _ => self.encoded.calls.push(Call { kind: self.kind, ops: vec![op] }),
        }
    }

    pub(crate) fn reject(&mut self, message: u32, error: Error) {
        self.encoded.rejected.push((message, error));
    }

    pub(crate) fn done(self) -> Encoded {
        self.encoded
    }
}

impl<'a> Parts<'a> {
    pub(crate) fn of(op: &'a Op) -> Self {
        Parts(&op.parts)
    }

    /// The bytes at a place.
    ///
    /// # Errors
    /// Fatal where the operation has no such part: another sink made it.
    pub(crate) fn bytes(self, place: usize) -> Result<&'a [u8], Failure> {
        self.0.get(place).map(|part| &**part).ok_or_else(foreign)
    }

    /// The text at a place.
    ///
    /// # Errors
    /// As [`Parts::bytes`].
    pub(crate) fn text(self, place: usize) -> Result<&'a str, Failure> {
        std::str::from_utf8(self.bytes(place)?).map_err(|_| foreign())
    }

    /// The integer at a place.
    ///
    /// # Errors
    /// As [`Parts::bytes`].
    pub(crate) fn integer(self, place: usize) -> Result<i64, Failure> {
        Ok(i64::from_be_bytes(self.bytes(place)?.try_into().map_err(|_| foreign())?))
    }

    /// The number at a place.
    ///
    /// # Errors
    /// As [`Parts::bytes`].
    pub(crate) fn number(self, place: usize) -> Result<f64, Failure> {
        Ok(f64::from_be_bytes(self.bytes(place)?.try_into().map_err(|_| foreign())?))
    }
}

/// The operations of a call, those of one key together and in their order.
///
/// # Errors
/// Fatal for operations of another sink.
pub(crate) fn by_key(ops: &[Op]) -> Result<Vec<Keyed<'_>>, Failure> {
    let mut keyed = Vec::with_capacity(ops.len());
    for op in ops {
        let op = Parts::of(op);
        keyed.push(Keyed { key: op.text(1)?, op });
    }
    keyed.sort_by_key(|keyed| keyed.key);
    Ok(keyed)
}

pub(crate) fn integer_part(integer: i64) -> Bytes {
    Bytes::copy_from_slice(&integer.to_be_bytes())
}

pub(crate) fn number_part(number: f64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// An operation that cannot be read.
pub(crate) fn foreign() -> Failure {
    Failure::new(Class::Fatal, "a call that another sink encoded")
}
