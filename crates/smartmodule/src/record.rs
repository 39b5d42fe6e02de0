//! Records as an author sees them. Keys and values are slices of the call's input: nothing is copied to make them.

use std::{
    borrow::Cow,
    fmt,
    ops::{Deref, DerefMut},
    str::Utf8Error,
};

use bytes::Bytes;

/// A place in a partition.
pub type Offset = i64;

/// Milliseconds since 1970.
pub type Timestamp = i64;

/// The bytes of a key or a value.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct RecordData(Bytes);

/// A record's key or [`RecordKey::NULL`], made from whatever becomes bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RecordKey(Option<RecordData>);

/// What a record carries beside key and value; deltas count from the base of its batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordHeader {
    pub(crate) attributes: i8,
    pub(crate) timestamp_delta: Timestamp,
    pub(crate) offset_delta: Offset,
}

/// A record without the base of its batch.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Record<B = RecordData> {
    /// Attributes and deltas.
    pub preamble: RecordHeader,
    /// The key, if it has one.
    pub key: Option<B>,
    /// The value, which may be empty.
    pub value: B,
    /// A number that Fluvio keeps for headers; it carries none.
    pub headers: i64,
}

/// A record with the base of its batch, so that its offset and time are known.
#[derive(Clone, Debug, Default)]
pub struct SmartModuleRecord {
    inner_record: Record,
    base_offset: Offset,
    base_timestamp: Timestamp,
}

impl RecordData {
    /// Wraps bytes without copying them.
    pub(crate) fn of(bytes: Bytes) -> Self {
        RecordData(bytes)
    }

    /// Whether it does not look like text: a zero byte near its start.
    pub fn is_binary(&self) -> bool {
        const LOOKED_AT: usize = 1024;
        self.0.iter().take(LOOKED_AT).any(|byte| *byte == 0)
    }

    /// The text, or the number of bytes where it is none.
    pub fn describe(&self) -> String {
        if self.is_binary() { self.to_string() } else { format!("text: '{self}'") }
    }

    /// The text it is.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn as_str(&self) -> Result<&str, Utf8Error> {
        std::str::from_utf8(&self.0)
    }

    /// The text it is, with a mark in place of what is not UTF-8.
    pub fn as_utf8_lossy_string(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// The bytes as a vector of their own.
    pub fn into_vec(self) -> Vec<u8> {
        self.0.into()
    }
}

impl Deref for RecordData {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.0
    }
}

impl AsRef<[u8]> for RecordData {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl<V: Into<Vec<u8>>> From<V> for RecordData {
    fn from(value: V) -> Self {
        RecordData(Bytes::from(value.into()))
    }
}

impl fmt::Display for RecordData {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_BYTES_MAX: usize = 16_384;
        if self.is_binary() {
            return write!(formatter, "binary: ({} bytes)", self.0.len());
        }
        match self.0.get(..SHOWN_BYTES_MAX) {
            Some(start) => write!(formatter, "{}...", String::from_utf8_lossy(start)),
            None => formatter.write_str(&self.as_utf8_lossy_string()),
        }
    }
}

impl fmt::Debug for RecordData {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.is_binary() { "values " } else { "" };
        write!(formatter, "{prefix}{self}")
    }
}

impl RecordKey {
    /// No key.
    pub const NULL: Self = RecordKey(None);

    #[doc(hidden)]
    pub fn from_option(key: Option<RecordData>) -> Self {
        RecordKey(key)
    }
}

impl From<RecordData> for RecordKey {
    fn from(key: RecordData) -> Self {
        RecordKey(Some(key))
    }
}

impl<K: Into<Vec<u8>>> From<K> for RecordKey {
    fn from(key: K) -> Self {
        RecordKey(Some(key.into().into()))
    }
}

impl From<RecordKey> for Option<RecordData> {
    fn from(key: RecordKey) -> Self {
        key.0
    }
}

impl RecordHeader {
    /// The offset, counted from the batch's.
    pub fn offset_delta(&self) -> Offset {
        self.offset_delta
    }

    /// The offset, counted from the batch's.
    pub fn get_offset_delta(&self) -> Offset {
        self.offset_delta
    }

    /// Changes the offset.
    pub fn set_offset_delta(&mut self, delta: Offset) {
        self.offset_delta = delta;
    }

    /// Moves the offset.
    pub fn add_base_offset(&mut self, relative_base_offset: Offset) {
        self.offset_delta += relative_base_offset;
    }

    /// The time, counted from the batch's.
    pub fn get_timestamp_delta(&self) -> Timestamp {
        self.timestamp_delta
    }

    /// Changes the time.
    pub fn set_timestamp_delta(&mut self, delta: Timestamp) {
        self.timestamp_delta = delta;
    }
}

impl<B: Default> Record<B> {
    /// Attributes and deltas.
    pub fn get_header(&self) -> &RecordHeader {
        &self.preamble
    }

    /// Attributes and deltas.
    pub fn get_mut_header(&mut self) -> &mut RecordHeader {
        &mut self.preamble
    }

    /// Moves the offset.
    pub fn add_base_offset(&mut self, relative_base_offset: Offset) {
        self.preamble.add_base_offset(relative_base_offset);
    }

    /// The value.
    pub fn value(&self) -> &B {
        &self.value
    }

    /// The key, if it has one.
    pub fn key(&self) -> Option<&B> {
        self.key.as_ref()
    }

    /// The value alone.
    pub fn into_value(self) -> B {
        self.value
    }

    /// The key alone.
    pub fn into_key(self) -> Option<B> {
        self.key
    }
}

impl Record {
    /// A record without a key.
    pub fn new(value: impl Into<RecordData>) -> Self {
        Record { value: value.into(), ..Record::default() }
    }

    /// A record with a key.
    pub fn new_key_value(key: impl Into<RecordKey>, value: impl Into<RecordData>) -> Self {
        Record { key: key.into().0, value: value.into(), ..Record::default() }
    }

    /// The time, counted from the batch's.
    pub fn timestamp_delta(&self) -> Timestamp {
        self.preamble.timestamp_delta
    }

    /// The offset, counted from the batch's.
    pub fn offset_delta(&self) -> Offset {
        self.preamble.offset_delta
    }
}

impl<K: Into<RecordKey>, V: Into<RecordData>> From<(K, V)> for Record {
    fn from((key, value): (K, V)) -> Self {
        Record::new_key_value(key, value)
    }
}

impl<B: fmt::Debug> fmt::Debug for Record<B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Record")
            .field("preamble", &self.preamble)
            .field("key", &self.key)
            .field("value", &self.value)
            .field("headers", &self.headers)
            .finish()
    }
}

impl SmartModuleRecord {
    /// A record of a batch with this base.
    pub fn new(inner_record: Record, base_offset: Offset, base_timestamp: Timestamp) -> Self {
        SmartModuleRecord { inner_record, base_offset, base_timestamp }
    }

    /// The record without the base of its batch.
    pub fn into_inner(self) -> Record {
        self.inner_record
    }

    /// When it was made, in milliseconds since 1970.
    pub fn timestamp(&self) -> Timestamp {
        self.base_timestamp.saturating_add(self.inner_record.timestamp_delta())
    }

    /// Its place in the partition.
    pub fn offset(&self) -> Offset {
        self.base_offset.saturating_add(self.inner_record.offset_delta())
    }

    /// The key, if it has one.
    pub fn key(&self) -> Option<&RecordData> {
        self.inner_record.key()
    }

    /// The value.
    pub fn value(&self) -> &RecordData {
        self.inner_record.value()
    }
}

impl Deref for SmartModuleRecord {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.inner_record
    }
}

impl DerefMut for SmartModuleRecord {
    fn deref_mut(&mut self) -> &mut Record {
        &mut self.inner_record
    }
}

impl From<SmartModuleRecord> for Record {
    fn from(record: SmartModuleRecord) -> Self {
        record.inner_record
    }
}
