//! Reading from a store on the way: the asynchronous step between SmartModules.

use async_trait::async_trait;
use tokio::time::Duration;

use crate::error::Result;

/// One page of one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The set's key, rendered.
    pub key: String,
    /// The last member of the page before; none for the first page.
    pub after: Option<String>,
    /// The most members wanted, at least 1.
    pub members_max: u32,
}

/// Members in byte order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// At most as many as asked for.
    pub members: Vec<String>,
    /// Whether there may be more after the last one.
    pub more: bool,
}

/// A store that answers lookups. All methods are cancel-safe; errors are Retry when the store is away and
/// Fatal when it refuses (credentials, a key of another type is Reject).
#[async_trait]
pub trait Lookup: Send + Sync {
    /// Pages of many sets in one round trip, in the order asked. An absent set is an empty page.
    async fn members(&self, requests: &[PageRequest]) -> Result<Vec<Page>>;

    /// Many documents in one round trip, as JSON text; none where there is none.
    async fn documents(&self, keys: &[String]) -> Result<Vec<Option<String>>>;

    /// Marks guards as closed for `ttl`. Acknowledged before the record's first page is read.
    async fn close(&self, guards: &[String], ttl: Duration) -> Result<()>;

    /// Which guards are closed, in the order asked. Asked after a page was read and before it is handed on.
    async fn closed(&self, guards: &[String]) -> Result<Vec<bool>>;
}
