//! The parameters of `init`, and their encoding, which is how an author gets at the names that were given.

use std::{collections::BTreeMap, io, time::Duration};

use bytes::BufMut;

/// A version of the ABI.
pub type Version = i16;

/// The version of the ABI that this SDK speaks.
pub const SMARTMODULE_TIMESTAMPS_VERSION: Version = 22;

/// The parameters a module was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SmartModuleExtraParams {
    inner: BTreeMap<String, String>,
    lookback: Option<Lookback>,
}

/// The records before the first that `look_back` is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookback {
    /// How many at most.
    pub last: u64,
    /// How old at most.
    pub age: Option<Duration>,
}

/// What has an encoding in the ABI.
pub trait Encoder {
    /// How many bytes [`Encoder::encode`] writes.
    fn write_size(&self, version: Version) -> usize;

    /// Appends the encoding.
    ///
    /// # Errors
    /// When a length does not fit its field.
    fn encode<T: BufMut>(&self, dest: &mut T, version: Version) -> io::Result<()>;
}

impl From<BTreeMap<String, String>> for SmartModuleExtraParams {
    fn from(inner: BTreeMap<String, String>) -> Self {
        SmartModuleExtraParams { inner, lookback: None }
    }
}

impl SmartModuleExtraParams {
    /// Parameters, and what `look_back` is shown.
    pub fn new(params: BTreeMap<String, String>, lookback: Option<Lookback>) -> Self {
        SmartModuleExtraParams { inner: params, lookback }
    }

    /// The value of a parameter that was given.
    pub fn get(&self, key: &str) -> Option<&String> {
        self.inner.get(key)
    }

    /// Adds a parameter, or replaces it.
    pub fn insert(&mut self, key: String, value: String) {
        self.inner.insert(key, value);
    }

    /// What `look_back` is shown.
    pub fn lookback(&self) -> Option<&Lookback> {
        self.lookback.as_ref()
    }

    /// Changes what `look_back` is shown.
    pub fn set_lookback(&mut self, lookback: Option<Lookback>) {
        self.lookback = lookback;
    }
}

impl Lookback {
    /// The last records.
    pub fn last(last: u64) -> Self {
        Lookback { last, age: None }
    }

    /// The records of a time.
    pub fn age(age: Duration, last: Option<u64>) -> Self {
        Lookback { last: last.unwrap_or_default(), age: Some(age) }
    }
}

impl Encoder for SmartModuleExtraParams {
    fn write_size(&self, version: Version) -> usize {
        let texts = self.inner.iter().map(|(name, value)| 4 + name.len() + value.len());
        2 + texts.sum::<usize>()
            + 1
            + self.lookback.as_ref().map_or(0, |lookback| lookback.write_size(version))
    }

    fn encode<T: BufMut>(&self, dest: &mut T, version: Version) -> io::Result<()> {
        dest.put_u16(short(self.inner.len())?);
        for text in self.inner.iter().flat_map(|(name, value)| [name, value]) {
            dest.put_u16(short(text.len())?);
            dest.put_slice(text.as_bytes());
        }
        dest.put_u8(self.lookback.is_some().into());
        self.lookback.as_ref().map_or(Ok(()), |lookback| lookback.encode(dest, version))
    }
}

impl Encoder for Lookback {
    fn write_size(&self, _version: Version) -> usize {
        8 + 1 + if self.age.is_some() { 12 } else { 0 }
    }

    fn encode<T: BufMut>(&self, dest: &mut T, _version: Version) -> io::Result<()> {
        dest.put_u64(self.last);
        dest.put_u8(self.age.is_some().into());
        if let Some(age) = self.age {
            dest.put_u64(age.as_secs());
            dest.put_u32(age.subsec_nanos());
        }
        Ok(())
    }
}

fn short(length: usize) -> io::Result<u16> {
    u16::try_from(length)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{length} is above 65535")))
}
