//! [`Worklists`]: topics about which something has to be done later, so that nobody has to look
//! through all topics to find them.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use tokio::time::Instant;

use super::lock;

/// Topics in the order in which they came, each at most once: whoever puts one on a list first
/// looks whether it is on it. A topic that is no more disappears by itself.
pub(super) struct Worklist<T>(Mutex<VecDeque<Weak<T>>>);

impl<T> Worklist<T> {
    fn new() -> Worklist<T> {
        Worklist(Mutex::default())
    }

    /// Puts a topic at the end.
    pub(super) fn push(&self, topic: &Arc<T>) {
        lock(&self.0).push_back(Arc::downgrade(topic));
    }

    /// Takes a number of topics from the beginning; says how many of them are no more, too.
    pub(super) fn take(&self, max: usize) -> Taken<T> {
        let mut list = lock(&self.0);
        let count = max.min(list.len());
        let topics: Vec<_> = list.drain(..count).filter_map(|topic| topic.upgrade()).collect();
        if list.is_empty() {
            // What a quarter of a million topics needed is not kept for ever.
            list.shrink_to(1_024);
        }
        Taken { topics, count }
    }

    /// How many there are, with those that are no more.
    pub(super) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}

/// What was taken from a list.
pub struct Taken<T> {
    /// Topics that are still there.
    pub topics: Vec<Arc<T>>,
    /// How many were looked at for that.
    pub count: usize,
}

/// Topics that nobody followed any more at some time, with that time, the earliest first.
pub(super) struct Emptied<T>(Mutex<VecDeque<(Instant, Weak<T>)>>);

impl<T> Emptied<T> {
    /// Puts a topic at the end.
    pub(super) fn push(&self, at: Instant, topic: &Arc<T>) {
        lock(&self.0).push_back((at, Arc::downgrade(topic)));
    }

    /// Takes the first one, if its time is not after `until`.
    pub(super) fn take_until(&self, until: Instant) -> Option<Weak<T>> {
        let mut list = lock(&self.0);
        let (at, _) = list.front()?;
        if *at > until {
            return None;
        }
        let taken = list.pop_front().map(|(_, topic)| topic);
        if list.is_empty() {
            list.shrink_to(1_024);
        }
        taken
    }
}

/// Topics whose tails have frames, in the order in which they came, each at most once. Nobody goes
/// through this list unless memory is short, so a topic is taken from it when it leaves the hub: what
/// is here is as many as there are topics.
pub(super) struct Filled<T>(Mutex<FilledInner<T>>);

struct FilledInner<T> {
    last: NonZeroU64,
    topics: BTreeMap<FilledAs, Weak<T>>,
}

/// A topic's place among those that have frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FilledAs(NonZeroU64);

impl<T> Filled<T> {
    /// None has any.
    pub(super) fn new() -> Filled<T> {
        Filled(Mutex::new(FilledInner { last: NonZeroU64::MIN, topics: BTreeMap::new() }))
    }

    /// Puts a topic at the end; it is to be removed as what this returns.
    pub(super) fn push(&self, topic: &Arc<T>) -> FilledAs {
        let mut inner = lock(&self.0);
        inner.last = inner.last.saturating_add(1);
        let filled = FilledAs(inner.last);
        inner.topics.insert(filled, Arc::downgrade(topic));
        filled
    }

    /// Removes a topic, if it was not taken meanwhile.
    pub(super) fn remove(&self, filled: FilledAs) {
        lock(&self.0).topics.remove(&filled);
    }

    /// Takes the first one.
    pub(super) fn take_first(&self) -> Option<Weak<T>> {
        lock(&self.0).topics.pop_first().map(|(_, topic)| topic)
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.0).topics.len()
    }
}

/// The lists of one hub.
pub(super) struct Worklists<T> {
    /// Whose streams are not as many as the ranking has it.
    pub(super) changed: Worklist<T>,
    pub(super) emptied: Emptied<T>,
    /// That had something new lately.
    pub(super) active: Worklist<T>,
    /// All of them, those first that were not audited for the longest time.
    pub(super) rotation: Worklist<T>,
    /// Counts rounds of audits: the clock by which topics are active or not.
    round: AtomicU32,
}

impl<T> Worklists<T> {
    /// All of them empty.
    pub(super) fn new() -> Worklists<T> {
        Worklists {
            changed: Worklist::new(),
            emptied: Emptied(Mutex::default()),
            active: Worklist::new(),
            rotation: Worklist::new(),
            round: AtomicU32::new(0),
        }
    }

    /// The current round of audits.
    pub(super) fn round(&self) -> u32 {
        self.round.load(Ordering::Relaxed)
    }

    /// Begins another one, and returns its number.
    pub(super) fn begin_round(&self) -> u32 {
        self.round.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }
}
