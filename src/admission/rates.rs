//! [`Rates`]: how much each client does in a time.
//!
//! Guards the others against a client that does more than its share. Each has a bucket of as many
//! tokens as the rate says, which fills again evenly within its time. A bucket is one number, the
//! time at which it will be full again (the generic cell rate algorithm); one that is full need not
//! be kept.
//!
//! No more buckets are kept than have room, whatever clients there are: for a newcomer the fullest of
//! its [set](WAYS) is forgotten. Whoever would have their own empty bucket forgotten has to empty
//! many others further, of addresses each of which had as much to spend; and nobody is ever refused
//! for what somebody else did.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::client::Whose;
use crate::config::Rate;

/// Buckets are kept in so many sets, of at most so many each: 1 MiB if all are there.
const SETS: usize = 4_096;
const WAYS: usize = 16;

/// The buckets of all clients for one rate.
pub struct Rates {
    rate: Rate,
    /// What one token is, in nanoseconds, and how many of them a bucket has.
    token: u64,
    window: u64,
    began_at: Instant,
    /// Nobody can choose a client with whom it shares a set.
    hasher: RandomState,
    sets: Box<[Mutex<Vec<Bucket>>]>,
}

struct Bucket {
    whose: u64,
    /// In nanoseconds since the beginning.
    full_at: u64,
}

/// A client has done as much as it may for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFast {
    /// The rate.
    pub rate: Rate,
    /// When what was refused would be allowed.
    pub retry_after: Duration,
}

impl TooFast {
    /// The same in whole seconds, one at least.
    pub fn retry_after_seconds(&self) -> u32 {
        let seconds = self.retry_after.as_millis().div_ceil(1_000).max(1);
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }
}

impl Rates {
    /// Buckets for this rate; `None` if there is no limit.
    pub fn new(rate: Rate) -> Option<Rates> {
        let window = u64::try_from(rate.window.as_nanos()).unwrap_or(u64::MAX >> 16);
        let token = window.checked_div(rate.count.into())?.max(1);
        let sets = std::iter::repeat_with(Mutex::default).take(SETS).collect();
        let (began_at, hasher) = (Instant::now(), RandomState::new());
        Some(Rates { rate, token, window, began_at, hasher, sets })
    }

    /// Takes so many tokens at once. Of more than a bucket has it must be full, and is empty for all
    /// the longer.
    ///
    /// # Errors
    /// When there are too few. Then none is taken.
    pub fn take(&self, whose: Whose, count: usize) -> Result<(), TooFast> {
        let now = u64::try_from(self.began_at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.take_at(now, whose, count)
    }

    fn take_at(&self, now: u64, whose: Whose, count: usize) -> Result<(), TooFast> {
        let whose = self.hasher.hash_one(whose);
        let cost = self.token.saturating_mul(count as u64);
        let set = &self.sets[whose as usize % SETS];
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        let at = set.iter().position(|bucket| bucket.whose == whose);
        let lacking = at.map_or(0, |at| set[at].full_at.saturating_sub(now));
        // What it may lack beforehand.
        let allowed = self.window.saturating_sub(cost);
        if let Some(wait @ 1..) = lacking.checked_sub(allowed) {
            return Err(TooFast { rate: self.rate, retry_after: Duration::from_nanos(wait) });
        }
        let full_at = now.saturating_add(lacking).saturating_add(cost);
        match at {
            Some(at) => set[at].full_at = full_at,
            None => keep(&mut set, Bucket { whose, full_at }),
        }
        Ok(())
    }

    #[cfg(test)]
    fn kept(&self) -> usize {
        self.sets.iter().map(|set| set.lock().unwrap().len()).sum()
    }
}

/// In the place of the fullest if there is no other.
fn keep(set: &mut Vec<Bucket>, bucket: Bucket) {
    if set.len() < WAYS {
        set.push(bucket);
        return;
    }
    if let Some(fullest) = set.iter_mut().min_by_key(|bucket| bucket.full_at) {
        *fullest = bucket;
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::address::AddressBlock;

    const SECOND: u64 = 1_000_000_000;

    fn client(n: u32) -> Whose {
        Whose::Address(AddressBlock::of(IpAddr::from(n.to_be_bytes())))
    }

    fn rates(count: u32, seconds: u64) -> Rates {
        Rates::new(Rate { count, window: Duration::from_secs(seconds) }).unwrap()
    }

    #[test]
    fn as_many_as_the_rate_says_at_once_and_as_many_again_in_its_time() {
        let rates = rates(10, 5);
        for _ in 0..10 {
            assert_eq!(rates.take_at(0, client(1), 1), Ok(()));
        }
        let refused = rates.take_at(0, client(1), 1).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_millis(500));
        assert_eq!(refused.retry_after_seconds(), 1);
        // Others have their own, and what was refused has cost nothing.
        assert_eq!(rates.take_at(0, client(2), 10), Ok(()));
        assert_eq!(rates.take_at(SECOND / 2, client(1), 1), Ok(()));
        assert!(rates.take_at(SECOND / 2, client(1), 1).is_err());
        assert_eq!(rates.take_at(6 * SECOND, client(1), 10), Ok(()));
        assert_eq!(Rates::new(Rate::NONE).map(|_| ()), None);
    }

    #[test]
    fn more_at_once_than_a_bucket_has_is_possible_and_paid_for() {
        let rates = rates(10, 1);
        assert_eq!(rates.take_at(0, client(1), 1_000), Ok(()));
        let refused = rates.take_at(0, client(1), 1).unwrap_err();
        assert_eq!(refused.retry_after_seconds(), 100);
        assert!(rates.take_at(99 * SECOND, client(1), 1).is_err());
        assert_eq!(rates.take_at(100 * SECOND, client(1), 1), Ok(()));
        // Not while anything is missing.
        assert!(rates.take_at(100 * SECOND, client(1), 1_000).is_err());
    }

    #[test]
    fn a_flood_of_clients_takes_bounded_room_and_has_nothing_forgiven() {
        let rates = rates(100, 1_000);
        let greedy = client(u32::MAX);
        assert_eq!(rates.take_at(0, greedy, 100), Ok(()));
        for n in 0..200_000 {
            assert_eq!(rates.take_at(0, client(n), 1), Ok(()), "nobody pays for another");
        }
        assert_eq!(rates.kept(), SETS * WAYS);
        assert!(rates.take_at(0, greedy, 1).is_err());
    }

    /// Tokens as anybody would count them.
    struct Plain {
        level: i128,
        at: u64,
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_bucket_of_tokens_and_says_exactly_when_to_come_again(
            count in 1..50_u32,
            seconds in 1..20_u64,
            steps in prop::collection::vec((0..3 * SECOND, 1..80_usize), 1..100),
        ) {
            let rates = rates(count, seconds);
            let (token, full) = (i128::from(rates.token), i128::from(rates.window));
            let mut plain = Plain { level: full, at: 0 };
            let mut now = 0;
            for (wait, wanted) in steps {
                now += wait;
                plain.level = full.min(plain.level + i128::from(now - plain.at));
                plain.at = now;
                let cost = token * wanted as i128;
                let fits = plain.level >= cost.min(full);
                let taken = rates.take_at(now, client(1), wanted);
                prop_assert_eq!(taken.is_ok(), fits);
                if fits {
                    plain.level -= cost;
                } else if let Err(refused) = taken {
                    let wait = u64::try_from(refused.retry_after.as_nanos()).unwrap();
                    prop_assert!(rates.take_at(now + wait - 1, client(1), wanted).is_err());
                }
            }
        }
    }
}
