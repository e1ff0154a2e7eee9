//! Whom something is counted for: a [`Client`] by its address, and [`Whose`] it is where a token says
//! for whom somebody acts.

use std::net::IpAddr;
use std::num::NonZeroU64;

use crate::address::{AddressBlock, TrustedProxies};

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// The client's address.
    pub address: AddressBlock,
    /// What it does is counted for nobody: it is of this machine, or a proxy behind which there are
    /// others.
    pub is_exempt: bool,
}

impl Client {
    /// The client at this address, where these may speak for others.
    pub fn of(address: IpAddr, trusted: &TrustedProxies) -> Client {
        Client { address: AddressBlock::of(address), is_exempt: trusted.exempt(address) }
    }
}

/// A subject, as a digest that only this node knows: 56 bits, which leaves room for something small
/// beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subject(NonZeroU64);

impl Subject {
    const BITS: u32 = 56;

    pub(super) fn of_digest(digest: u64) -> Subject {
        let bits = NonZeroU64::new(digest >> (u64::BITS - Subject::BITS));
        Subject(bits.unwrap_or(NonZeroU64::MIN))
    }

    pub(super) fn bits(self) -> u64 {
        self.0.get()
    }

    pub(super) fn of_bits(bits: u64) -> Option<Subject> {
        NonZeroU64::new(bits).map(Subject)
    }
}

/// Whose tokens of a rate something costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whose {
    /// Of somebody who has not said who they are.
    Address(AddressBlock),
    /// Of somebody whose token says it.
    Subject(Subject),
}
