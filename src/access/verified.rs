//! [`Verified`]: tokens whose signature was found right not long ago.
//!
//! A page that opens ten streams sends one token ten times, and some signatures take longer to
//! verify than a stream takes to open. A token is known again by its SHA-256, so it is not kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::grant::Grant;

/// What is remembered in one of two generations at most, as the bytes of the tokens: what a grant
/// says of topics is no longer than its token.
const GENERATION_BYTES_MAX: usize = 4 << 20;

/// What an entry takes besides.
const ENTRY_BYTES: usize = 512;

/// A bounded memory of two generations: what was not asked for while one filled up is forgotten.
#[derive(Default)]
pub(super) struct Verified(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<[u8; 32], Entry>,
    old: HashMap<[u8; 32], Entry>,
    /// Of the young ones.
    bytes: usize,
}

/// A token by which it was verified.
#[derive(Clone)]
struct Entry {
    grant: Arc<Grant>,
    bytes: usize,
    /// Which keys it was verified with: others may not know it any more.
    keys: (usize, u64),
}

impl Verified {
    /// What the token with this digest grants, if it was verified, and `are_current` says that it was
    /// with the keys that its issuer still has.
    pub(super) fn get(
        &self,
        digest: &[u8; 32],
        are_current: impl FnOnce((usize, u64)) -> bool,
    ) -> Option<Arc<Grant>> {
        let generations = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match generations.young.get(digest) {
            Some(entry) => entry.clone(),
            None => {
                let entry = generations.old.remove(digest)?;
                generations.add(*digest, entry.clone());
                entry
            }
        };
        are_current(entry.keys).then_some(entry.grant)
    }

    /// Remembers a token of so many bytes, verified with the keys that are named so.
    pub(super) fn add(
        &self,
        digest: [u8; 32],
        grant: Arc<Grant>,
        token_bytes: usize,
        keys: (usize, u64),
    ) {
        let entry = Entry { grant, bytes: token_bytes + ENTRY_BYTES, keys };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(digest, entry);
    }
}

impl Generations {
    fn add(&mut self, digest: [u8; 32], entry: Entry) {
        if self.bytes + entry.bytes > GENERATION_BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += entry.bytes;
        if let Some(before) = self.young.insert(digest, entry) {
            self.bytes -= before.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: usize) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&n.to_le_bytes());
        digest
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_is_bounded() {
        let verified = Verified::default();
        let grant = Arc::new(Grant::nothing());
        for n in 0..100_000 {
            verified.add(digest(n), grant.clone(), 500, (0, 0));
            assert!(verified.get(&digest(0), |_| true).is_some(), "forgotten after {n}");
        }
        let generations = verified.0.lock().unwrap();
        let kept = generations.young.len() + generations.old.len();
        let most = 2 * GENERATION_BYTES_MAX / (500 + ENTRY_BYTES);
        assert!(kept <= most && kept >= most / 2, "{kept} of {most}");
        drop(generations);
        assert!(verified.get(&digest(1), |_| true).is_none());
    }

    #[test]
    fn what_was_verified_with_keys_that_are_gone_is_verified_again() {
        let verified = Verified::default();
        verified.add(digest(1), Arc::new(Grant::nothing()), 100, (2, 7));
        assert!(verified.get(&digest(1), |keys| keys == (2, 7)).is_some());
        assert!(verified.get(&digest(1), |keys| keys == (2, 8)).is_none());
    }

    #[test]
    fn a_token_that_is_verified_again_and_again_is_one() {
        let verified = Verified::default();
        for _ in 0..100_000 {
            verified.add(digest(1), Arc::new(Grant::nothing()), 8_000, (0, 0));
        }
        assert_eq!(verified.0.lock().unwrap().bytes, 8_000 + ENTRY_BYTES);
    }
}
