//! [`List`]: what one node knows was revoked. Pure.

use std::collections::{HashMap, HashSet};

use super::Revocable;
use crate::log::{ListVersion, RevocationPage, RevocationRecord, RevocationState, RevokedKey};

/// What is over is kept this much longer, in seconds: clocks differ.
const OVER_SECONDS: u64 = 60;

/// How long it is remembered that something was lifted, in seconds: for nodes that were away and
/// know only what was before.
const LIFTED_SECONDS: u64 = 24 * 3_600;

/// The records, and which of them the store is not known to have.
///
/// Invariant: every key in `unshared` is in `records`.
#[derive(Debug, Default)]
pub(super) struct List {
    records: HashMap<RevokedKey, RevocationRecord>,
    unshared: HashSet<RevokedKey>,
    version: ListVersion,
}

impl List {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// What is known of the store's list.
    pub(super) fn version(&self) -> &ListVersion {
        &self.version
    }

    /// Whether what can be revoked by this is: the token itself, or its subject at a time when it had
    /// been issued, or may have been.
    pub(super) fn revokes(&self, revocable: &Revocable, now_seconds: u64) -> bool {
        let Revocable { subject, token_id, issued_at } = revocable;
        let holding = |key: &Option<RevokedKey>| {
            let record = self.records.get(key.as_ref()?)?;
            match record.state {
                RevocationState::Revoked { until } => {
                    until.is_none_or(|until| now_seconds < until).then_some(record)
                }
                RevocationState::Lifted => None,
            }
        };
        // Times of tokens are whole seconds: one of the same second may be older.
        let is_before = |record: &RevocationRecord| {
            issued_at.is_none_or(|issued_at| issued_at <= record.changed_at / 1_000)
        };
        holding(token_id).is_some() || holding(subject).is_some_and(is_before)
    }

    /// Notes what somebody says of a key; `None` if there would be more than `records_max`. The store
    /// is yet to be told.
    pub(super) fn say(
        &mut self,
        key: RevokedKey,
        state: RevocationState,
        now_milliseconds: u64,
        records_max: usize,
    ) -> Option<RevocationRecord> {
        let before = self.records.get(&key);
        if before.is_none() && self.records.len() >= records_max {
            return None;
        }
        // It is later than what it changes, whatever the clock says.
        let after = before.map_or(0, |record| record.changed_at.saturating_add(1));
        let record = RevocationRecord { key, changed_at: now_milliseconds.max(after), state };
        self.records.insert(key, record);
        self.unshared.insert(key);
        Some(record)
    }

    /// Takes out a record that was just said, unless something else was said since.
    pub(super) fn take_out(&mut self, record: &RevocationRecord) {
        if self.records.get(&record.key) == Some(record) {
            self.records.remove(&record.key);
            self.unshared.remove(&record.key);
        }
    }

    /// Takes what the store says; returns whether something is revoked by it that was not, or not
    /// for as long.
    pub(super) fn merge(&mut self, page: RevocationPage) -> bool {
        // Whatever is here may be missing there; and while there is no list, all of it is.
        if page.version.list != self.version.list || page.version.list.is_empty() {
            self.unshared = self.records.keys().copied().collect();
        }
        self.version = page.version;
        let mut is_news = false;
        for record in page.records {
            match self.records.get(&record.key) {
                Some(own) if own.changed_at > record.changed_at => {
                    self.unshared.insert(record.key);
                }
                Some(own) if own.changed_at == record.changed_at => {
                    self.unshared.remove(&record.key);
                }
                _ => {
                    is_news |= matches!(record.state, RevocationState::Revoked { .. });
                    self.unshared.remove(&record.key);
                    self.records.insert(record.key, record);
                }
            }
        }
        is_news
    }

    /// Some of those that the store has to be told.
    pub(super) fn unshared(&self, records_max: usize) -> Vec<RevocationRecord> {
        let records = self.unshared.iter().filter_map(|key| self.records.get(key));
        records.take(records_max).copied().collect()
    }

    /// The store has these, or later ones.
    pub(super) fn shared(&mut self, records: &[RevocationRecord]) {
        for record in records {
            if self.records.get(&record.key) == Some(record) {
                self.unshared.remove(&record.key);
            }
        }
    }

    /// Removes those whose time is over.
    pub(super) fn take_old(&mut self, now_milliseconds: u64) -> Vec<RevocationRecord> {
        let now = now_milliseconds / 1_000;
        let is_old = |record: &RevocationRecord| match record.state {
            RevocationState::Revoked { until: Some(until) } => {
                until.saturating_add(OVER_SECONDS) <= now
            }
            RevocationState::Revoked { until: None } => false,
            RevocationState::Lifted => record.changed_at / 1_000 + LIFTED_SECONDS <= now,
        };
        let old: Vec<RevocationRecord> =
            self.records.extract_if(|_, record| is_old(record)).map(|(_, record)| record).collect();
        for record in &old {
            self.unshared.remove(&record.key);
        }
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn key(n: u8) -> RevokedKey {
        [n; 32]
    }

    fn token(issued_at: Option<u64>) -> Revocable {
        Revocable { subject: Some(key(1)), token_id: Some(key(2)), issued_at }
    }

    fn say(list: &mut List, n: u8, state: RevocationState) -> RevocationRecord {
        list.say(key(n), state, NOW * 1_000 + 500, 10).unwrap()
    }

    const FOR_GOOD: RevocationState = RevocationState::Revoked { until: None };

    #[test]
    fn a_subject_loses_what_it_was_given_until_then_and_a_token_id_that_token() {
        let mut list = List::default();
        assert!(!list.revokes(&token(None), NOW));
        say(&mut list, 1, FOR_GOOD);
        for (issued_at, revoked) in
            [(None, true), (Some(NOW - 1), true), (Some(NOW), true), (Some(NOW + 1), false)]
        {
            assert_eq!(list.revokes(&token(issued_at), NOW + 5), revoked, "{issued_at:?}");
        }
        assert!(!list.revokes(&Revocable::default(), NOW));
        say(&mut list, 2, FOR_GOOD);
        assert!(list.revokes(&token(Some(NOW + 1)), NOW + 5));
    }

    #[test]
    fn a_revocation_lets_go_at_its_time_or_when_it_is_lifted() {
        let mut list = List::default();
        say(&mut list, 2, RevocationState::Revoked { until: Some(NOW + 10) });
        assert!(list.revokes(&token(None), NOW + 9));
        assert!(!list.revokes(&token(None), NOW + 10));
        say(&mut list, 2, RevocationState::Lifted);
        assert!(!list.revokes(&token(None), NOW));
        say(&mut list, 2, FOR_GOOD);
        assert!(list.revokes(&token(None), NOW + 1_000_000));
        assert_eq!(list.len(), 1);
    }

    #[test]
    fn what_is_said_later_counts_whatever_the_clock_says() {
        let mut list = List::default();
        let first = list.say(key(1), FOR_GOOD, 5_000, 10).unwrap();
        let lifted = list.say(key(1), RevocationState::Lifted, 4_000, 10).unwrap();
        assert!(lifted.changed_at > first.changed_at);
    }

    #[test]
    fn there_is_a_bound_and_what_is_known_can_be_changed_beyond_it() {
        let mut list = List::default();
        assert!(list.say(key(1), FOR_GOOD, 1, 1).is_some());
        assert!(list.say(key(2), FOR_GOOD, 1, 1).is_none());
        assert!(list.say(key(1), RevocationState::Lifted, 2, 1).is_some());
        assert_eq!(list.len(), 1);
    }

    #[test]
    fn what_is_over_goes_and_what_holds_stays() {
        let mut list = List::default();
        say(&mut list, 1, RevocationState::Revoked { until: Some(NOW + 10) });
        say(&mut list, 2, FOR_GOOD);
        say(&mut list, 3, RevocationState::Lifted);
        assert!(list.take_old(NOW * 1_000).is_empty());
        assert_eq!(list.take_old((NOW + 10 + OVER_SECONDS) * 1_000).len(), 1);
        assert_eq!(list.take_old((NOW + 1 + LIFTED_SECONDS) * 1_000).len(), 1);
        assert_eq!(list.len(), 1);
        assert!(list.unshared(10).iter().all(|record| record.key == key(2)));
    }
}
