//! The resolver a connection uses: it hands on only addresses that may be connected to.

use std::{net::SocketAddr, sync::Arc};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{Allowed, Refused};

/// The system's resolver, guarded. The request's time-out bounds it.
#[derive(Clone, Debug)]
pub(crate) struct GuardedResolver {
    allowed: Arc<Allowed>,
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    /// It has addresses, and none of them may be connected to.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It cannot be resolved.
    #[error("the name cannot be resolved")]
    Unknown(#[source] std::io::Error),
    /// It has no address.
    #[error("the name has no address")]
    Empty,
}

impl GuardedResolver {
    pub(crate) fn new(allowed: Allowed) -> Self {
        GuardedResolver { allowed: Arc::new(allowed) }
    }

    /// The addresses of a name that may be connected to: at least one.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn addresses(&self, name: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        let found = tokio::net::lookup_host((name, 0)).await.map_err(ResolveError::Unknown)?;
        let mut refused = None;
        let mut addresses = Vec::new();
        for address in found {
            match self.allowed.check(address.ip()) {
                Err(why) if !self.allowed.has_host(name) => refused = Some(why),
                _ => addresses.push(address),
            }
        }
        match (addresses.is_empty(), refused) {
            (false, _) => Ok(addresses),
            (true, Some(why)) => Err(why.into()),
            (true, None) => Err(ResolveError::Empty),
        }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.addresses(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_name_that_leads_inside_is_refused_unless_listed() {
        let refused = GuardedResolver::new(Allowed::default()).addresses("localhost").await.unwrap_err();
        assert!(matches!(refused, ResolveError::Refused(_)), "{refused}");
        let mut by_name = Allowed::default();
        by_name.add("localhost").unwrap();
        assert!(!GuardedResolver::new(by_name).addresses("localhost").await.unwrap().is_empty());
        let mut by_network = Allowed::default();
        by_network.add("127.0.0.0/8").unwrap();
        let found = GuardedResolver::new(by_network).addresses("localhost").await.unwrap();
        assert!(found.iter().all(SocketAddr::is_ipv4), "{found:?}");
    }
}
