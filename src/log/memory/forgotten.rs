//! [`Forgotten`]: what is remembered of logs that are no more, so that whoever watched a topic before
//! it had a log is told if they missed one.

use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

use crate::position::{LogHistory, UNWRITTEN_AT_MAX};
use crate::topic::Topic;

/// Groups of topics of which one time is remembered: 128 KiB.
const GROUPS: usize = 16_384;

/// When logs that are no more were last written to.
pub(super) struct Forgotten {
    hasher: RandomState,
    /// When this memory begins.
    begun_at: u64,
    /// Milliseconds since 1970, of each group of topics: right after the last entry of a log of one of
    /// them.
    last_written: Box<[u64]>,
    /// The latest time that was told: clocks go back, times here do not.
    latest: u64,
}

impl Forgotten {
    pub(super) fn new() -> Forgotten {
        // Whatever came before this process is gone with all its logs.
        let begun_at = after(milliseconds());
        Forgotten {
            hasher: RandomState::new(),
            begun_at,
            last_written: vec![0; GROUPS].into_boxed_slice(),
            latest: begun_at,
        }
    }

    /// When this memory begins, in milliseconds since 1970.
    pub(super) fn begun_at(&self) -> u64 {
        self.begun_at
    }

    /// Milliseconds since 1970.
    pub(super) fn now(&mut self) -> u64 {
        self.latest = self.latest.max(milliseconds().min(UNWRITTEN_AT_MAX));
        self.latest
    }

    /// Whoever found no log of this name then or later has missed none.
    pub(super) fn unwritten_since(&self, topic: &Topic) -> u64 {
        self.begun_at.max(self.last_written[self.group(topic)])
    }

    /// A topic that has no log, as a subscriber finds it.
    pub(super) fn unwritten(&mut self, topic: &Topic) -> LogHistory {
        let since = self.unwritten_since(topic);
        LogHistory::unwritten(self.now().max(since), since)
    }

    /// A log is no more that was last written to at this time.
    pub(super) fn note(&mut self, topic: &Topic, written_at: u64) {
        let group = self.group(topic);
        let last_written = &mut self.last_written[group];
        *last_written = (*last_written).max(after(written_at));
    }

    fn group(&self, topic: &Topic) -> usize {
        self.hasher.hash_one(topic) as usize % GROUPS
    }
}

/// The next millisecond that an epoch can say.
fn after(milliseconds: u64) -> u64 {
    milliseconds.saturating_add(1).min(UNWRITTEN_AT_MAX)
}

/// Milliseconds since 1970, by the clock of this process.
pub(super) fn milliseconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
