//! Which addresses are public. What is not known to be public is not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    bits: u32,
}

/// Networks that are not public, with what they are.
const V4: [([u8; 4], u32, &str); 16] = [
    ([0, 0, 0, 0], 8, "unspecified"),
    ([10, 0, 0, 0], 8, "private"),
    ([100, 64, 0, 0], 10, "shared by a carrier"),
    ([127, 0, 0, 0], 8, "loopback"),
    ([168, 63, 129, 16], 32, "a cloud's metadata service"),
    ([169, 254, 0, 0], 16, "link-local"),
    ([172, 16, 0, 0], 12, "private"),
    ([192, 0, 0, 0], 24, "reserved"),
    ([192, 0, 2, 0], 24, "for documentation"),
    ([192, 88, 99, 0], 24, "reserved"),
    ([192, 168, 0, 0], 16, "private"),
    ([198, 18, 0, 0], 15, "for benchmarks"),
    ([198, 51, 100, 0], 24, "for documentation"),
    ([203, 0, 113, 0], 24, "for documentation"),
    ([224, 0, 0, 0], 4, "multicast"),
    ([240, 0, 0, 0], 4, "reserved"),
];

/// The same within the one part of IPv6 that is public, 2000::/3, and names for some parts outside of it.
const V6: [([u16; 8], u32, &str); 10] = [
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, "unspecified"),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, "loopback"),
    ([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, "an IPv4 address in disguise"),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "private"),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link-local"),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "private"),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast"),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "reserved"),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "for documentation"),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "for documentation"),
];

const GLOBAL_V6: Network =
    Network { address: IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0)), bits: 3 };
const NAT64: Network =
    Network { address: IpAddr::V6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0)), bits: 96 };
const SIX_TO_FOUR: Network =
    Network { address: IpAddr::V6(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0)), bits: 16 };

impl Network {
    /// `10.1.0.0/16`, or a single address. None when it is neither.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= all)?,
            None => all,
        };
        Some(Network { address, bits })
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                same_bits(u32::from(own).into(), u32::from(other).into(), 32 - self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => same_bits(own.into(), other.into(), 128 - self.bits),
            _ => false,
        }
    }
}

/// What an address is instead of public; none when it is public.
pub(super) fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => not_public_v4(v4),
        IpAddr::V6(v6) => {
            let segments = v6.segments();
            let embedded = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
            if NAT64.contains(address) {
                return not_public_v4(embedded(segments[6], segments[7]));
            }
            if SIX_TO_FOUR.contains(address) {
                return not_public_v4(embedded(segments[1], segments[2]));
            }
            let named = V6.iter().find(|(network, bits, _)| {
                Network { address: Ipv6Addr::from(*network).into(), bits: *bits }.contains(address)
            });
            match named {
                Some((.., what)) => Some(what),
                None if GLOBAL_V6.contains(address) => None,
                None => Some("reserved"),
            }
        }
    }
}

fn not_public_v4(address: Ipv4Addr) -> Option<&'static str> {
    V4.iter()
        .find(|(network, bits, _)| {
            Network { address: Ipv4Addr::from(*network).into(), bits: *bits }.contains(address.into())
        })
        .map(|(.., what)| *what)
}

/// Whether two addresses are equal but for their last bits.
fn same_bits(one: u128, two: u128, ignored: u32) -> bool {
    (one ^ two).checked_shr(ignored).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_not_public() {
        let cases = [
            ("0.0.0.0", "unspecified"),
            ("10.255.0.1", "private"),
            ("100.100.100.200", "shared by a carrier"),
            ("127.9.9.9", "loopback"),
            ("168.63.129.16", "a cloud's metadata service"),
            ("169.254.169.254", "link-local"),
            ("172.31.255.255", "private"),
            ("192.0.0.192", "reserved"),
            ("192.168.0.1", "private"),
            ("198.19.0.1", "for benchmarks"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::127.0.0.1", "reserved"),
            ("::ffff:127.0.0.1", "an IPv4 address in disguise"),
            ("::ffff:8.8.8.8", "an IPv4 address in disguise"),
            ("64:ff9b::10.0.0.1", "private"),
            ("64:ff9b:1::1", "reserved"),
            ("100::1", "reserved"),
            ("2001::1", "reserved"),
            ("2001:db8::1", "for documentation"),
            ("2002:7f00:1::", "loopback"),
            ("3fff::1", "for documentation"),
            ("4000::1", "reserved"),
            ("fd00:ec2::254", "private"),
            ("fe80::1", "link-local"),
            ("fec0::1", "private"),
            ("ff02::1", "multicast"),
        ];
        for (address, what) in cases {
            assert_eq!(not_public(address.parse().unwrap()), Some(what), "{address}");
        }
    }

    #[test]
    fn what_is_public() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860::8888",
            "64:ff9b::8.8.8.8",
            "2002:808:808::",
        ] {
            assert_eq!(not_public(address.parse().unwrap()), None, "{address}");
        }
    }

    #[test]
    fn networks_compare_their_leading_bits() {
        let contains = |network: &str, address: &str| {
            Network::parse(network).unwrap().contains(address.parse().unwrap())
        };
        assert!(contains("0.0.0.0/0", "255.1.2.3") && contains("::/0", "ff::"));
        assert!(contains("10.1.2.3/16", "10.1.0.0") && !contains("10.1.2.3/17", "10.1.128.0"));
        assert!(contains("fd00::/8", "fdff::1") && !contains("fd00::/8", "fe00::1"));
        assert!(!contains("0.0.0.0/0", "::ffff:1.2.3.4"));
        assert_eq!(Network::parse("10.0.0.0/x"), None);
    }
}
