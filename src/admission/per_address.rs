//! [`PerAddress`]: how many of something each client address has.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::address::AddressBlock;

/// Counts something by [client address](AddressBlock), up to a limit.
#[derive(Debug)]
pub struct PerAddress {
    /// 0: no limit, and nothing is counted.
    each_max: usize,
    blocks: Mutex<HashMap<AddressBlock, usize>>,
}

/// One that is counted; given back when dropped.
#[derive(Debug)]
pub struct Counted {
    of: Arc<PerAddress>,
    block: AddressBlock,
}

/// An address has as many as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl PerAddress {
    /// At most `each_max` an address; 0 is no limit.
    pub fn new(each_max: usize) -> Arc<PerAddress> {
        Arc::new(PerAddress { each_max, blocks: Mutex::default() })
    }

    /// How many an address may have; 0 is no limit.
    pub fn each_max(&self) -> usize {
        self.each_max
    }

    /// One more of this address; `None` if nothing is counted.
    ///
    /// # Errors
    /// When it has as many as it may.
    pub fn take(self: &Arc<PerAddress>, address: IpAddr) -> Result<Option<Counted>, TooMany> {
        if self.each_max == 0 {
            return Ok(None);
        }
        let block = AddressBlock::of(address);
        let mut blocks = self.lock();
        let count = blocks.entry(block).or_insert(0);
        if *count >= self.each_max {
            return Err(TooMany);
        }
        *count += 1;
        Ok(Some(Counted { of: self.clone(), block }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AddressBlock, usize>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut blocks = self.of.lock();
        if let Some(count) = blocks.get_mut(&self.block) {
            *count -= 1;
            if *count == 0 {
                blocks.remove(&self.block);
            }
        }
        if blocks.is_empty() {
            // Ten thousand that left leave no room behind.
            blocks.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_as_many_as_it_may_and_leaves_nothing_behind() {
        let per_address = PerAddress::new(2);
        let first = per_address.take(address("2001:db8::1")).unwrap();
        let second = per_address.take(address("2001:db8::2")).unwrap();
        // It is the same network, so the same client.
        assert_eq!(per_address.take(address("2001:db8::3")).err(), Some(TooMany));
        let other = per_address.take(address("2001:db8:0:1::1")).unwrap();
        drop(first);
        let third = per_address.take(address("2001:db8::3")).unwrap();
        assert!(per_address.take(address("2001:db8::1")).is_err());
        drop((second, other, third));
        assert!(per_address.lock().is_empty());
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let per_address = PerAddress::new(0);
        let counted: Vec<_> = (0..5).map(|_| per_address.take(address("192.0.2.1"))).collect();
        assert!(counted.iter().all(|counted| matches!(counted, Ok(None))));
        assert!(per_address.lock().is_empty());
    }
}
