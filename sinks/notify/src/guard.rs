//! Keeps requests out of our own network: only public addresses are connected to, and those that were listed.
//!
//! Names are checked after they are resolved, by the resolver that the connection itself uses: there is no second
//! look-up that could answer otherwise.

mod address;
mod resolver;

use std::net::IpAddr;

use url::Host;

use address::Network;
pub(crate) use resolver::{GuardedResolver, ResolveError};

/// What is reached although it is not public.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allowed {
    networks: Vec<Network>,
    hosts: Vec<String>,
}

/// Why an address is not connected to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {what}; list it under 'allow_private' if it is meant")]
pub(crate) struct Refused {
    address: IpAddr,
    what: &'static str,
}

impl Allowed {
    /// Reads one entry: an address, a network such as `10.1.0.0/16`, or a host name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn add(&mut self, entry: &str) -> Result<(), &'static str> {
        if let Some(network) = Network::parse(entry) {
            self.networks.push(network);
            return Ok(());
        }
        if entry.contains('/') {
            return Err("is no network; write it as '10.1.0.0/16'");
        }
        match Host::parse(entry) {
            Ok(Host::Domain(name)) => {
                self.hosts.push(name.to_ascii_lowercase());
                Ok(())
            }
            _ => Err("is neither an address, nor a network, nor a host name"),
        }
    }

    /// Whether every address of a name is allowed.
    fn has_host(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.');
        self.hosts.iter().any(|host| host.trim_end_matches('.').eq_ignore_ascii_case(name))
    }

    /// Whether an address may be connected to.
    ///
    /// # Errors
    /// What it is instead of public.
    pub(crate) fn check(&self, address: IpAddr) -> Result<(), Refused> {
        if self.networks.iter().any(|network| network.contains(address)) {
            return Ok(());
        }
        address::not_public(address).map_or(Ok(()), |what| Err(Refused { address, what }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn allowed(entries: &[&str]) -> Allowed {
        let mut allowed = Allowed::default();
        for entry in entries {
            allowed.add(entry).unwrap();
        }
        allowed
    }

    #[test]
    fn what_is_listed_is_allowed_and_nothing_beside_it() {
        let allowed = allowed(&["10.1.0.0/16", "::1", "Hooks.Internal", "192.168.7.7"]);
        for address in ["10.1.255.255", "::1", "192.168.7.7", "8.8.8.8"] {
            assert_eq!(allowed.check(address.parse().unwrap()), Ok(()), "{address}");
        }
        for address in ["10.2.0.0", "::2", "192.168.7.8", "127.0.0.1"] {
            assert!(allowed.check(address.parse().unwrap()).is_err(), "{address}");
        }
        assert!(allowed.has_host("hooks.internal") && allowed.has_host("HOOKS.internal."));
        assert!(!allowed.has_host("internal") && !allowed.has_host("evil.hooks.internal"));
    }

    #[test]
    fn entries_that_are_none_are_named() {
        for entry in ["10.0.0.0/33", "10.0.0.1/8/8", "a b", "", "::/129", "x/8"] {
            assert!(Allowed::default().add(entry).is_err(), "{entry}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let refused = Allowed::default().check("169.254.169.254".parse().unwrap()).unwrap_err();
        let text = "169.254.169.254 is link-local; list it under 'allow_private' if it is meant";
        assert_eq!(refused.to_string(), text);
    }
}
