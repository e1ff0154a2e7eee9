//! Addresses of clients: whom a client counts as, and who may say what a client's address is.
//!
//! [`AddressBlock`] is what everything is counted by that is counted per address; [`TrustedProxies`]
//! are those whose word about an address is taken, and [`forwarded`] reads what they say.

pub mod forwarded;

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU64;

use ipnet::IpNet;

/// How many leading bits of an IPv6 address are one client: a subscriber is given a network of this
/// size at least, and has every address in it.
const IPV6_PREFIX_BITS: u32 = 64;

/// Whom an address counts as: an IPv4 address as itself, an IPv6 address as its /64. Small, since
/// every stream has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressBlock(NonZeroU64);

/// Stands before an IPv4 address: a network of IPv6 that is given to nobody (RFC 4291 §4, `::/8`).
const IPV4_PREFIX: u64 = 1 << 32;

impl AddressBlock {
    /// The block that `address` is in.
    pub fn of(address: IpAddr) -> AddressBlock {
        let bits = match plain(address) {
            IpAddr::V4(address) => IPV4_PREFIX | u64::from(address.to_bits()),
            IpAddr::V6(address) => {
                (address.to_bits() >> (Ipv6Addr::BITS - IPV6_PREFIX_BITS)) as u64
            }
        };
        // The network of `::1` counts as its neighbour, which is given to nobody, either.
        AddressBlock(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }
}

/// An address as it is meant: sockets that take both families show IPv4 as IPv6 (`::ffff:192.0.2.1`).
pub fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Peers whose word about the address of a client is taken.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Those with an address in any of these networks.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> TrustedProxies {
        TrustedProxies(networks.into_iter().collect())
    }

    /// Whether the word of this address is taken.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = plain(address);
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether nobody counts connections of this address: a machine's own clients, and those behind
    /// which there are others.
    pub fn exempt(&self, address: IpAddr) -> bool {
        plain(address).is_loopback() || self.contain(address)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(text: &str) -> AddressBlock {
        AddressBlock::of(text.parse().unwrap())
    }

    #[test]
    fn an_ipv6_address_counts_as_its_network_and_a_mapped_one_as_ipv4() {
        assert_eq!(block("2001:db8:1:2::1"), block("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(block("2001:db8:1:2::1"), block("2001:db8:1:3::1"));
        assert_eq!(block("::ffff:192.0.2.1"), block("192.0.2.1"));
        assert_ne!(block("192.0.2.1"), block("192.0.2.2"));
        assert_ne!(block("192.0.2.1"), block("::1"));
        assert_ne!(block("::1"), block("0.0.0.0"));
    }

    #[test]
    fn proxies_are_known_by_address_and_by_network_in_either_way_of_writing() {
        let networks = ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"];
        let trusted = TrustedProxies::new(networks.map(|network| network.parse().unwrap()));
        for (address, is_trusted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("fd12::1", true),
            ("fe80::1", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(trusted.contain(address.parse().unwrap()), is_trusted, "{address}");
        }
        assert!(trusted.exempt("127.0.0.2".parse().unwrap()));
        assert!(trusted.exempt("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!trusted.exempt("192.0.2.8".parse().unwrap()));
        assert!(!TrustedProxies::default().contain("127.0.0.1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn two_addresses_share_a_block_exactly_if_they_are_one_client(one: u128, flip in 0..128_u32) {
            let other = one ^ (1 << flip);
            let [one, other] = [one, other].map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits)));
            // By chance a mapped one: then it is IPv4, each of which counts by itself.
            prop_assume!([one, other].iter().all(|address| plain(*address).is_ipv6()));
            let is_one_client = flip < Ipv6Addr::BITS - IPV6_PREFIX_BITS;
            prop_assert_eq!(AddressBlock::of(one) == AddressBlock::of(other), is_one_client);
        }
    }
}
