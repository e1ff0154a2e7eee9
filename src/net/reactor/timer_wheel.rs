//! [`TimerWheel`]: heartbeats of many streams by a few buckets instead of a timer each.

use std::time::{Duration, Instant};

/// Ticks in one heartbeat: a heartbeat is late by one tick at most.
const TICKS: u64 = 32;

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    /// Its key among the streams of its reactor.
    pub(super) index: u32,
    /// Tells it from others that had this key.
    pub(super) serial: u32,
}

/// Buckets of streams by the tick at which they have been silent for long enough. A stream that was
/// written to meanwhile is put off when its bucket comes, so writing costs the wheel nothing.
///
/// Invariant: each stream is in exactly one bucket, at most [`TICKS`] ahead.
pub(super) struct TimerWheel {
    began_at: Instant,
    tick: Duration,
    now: u64,
    buckets: Vec<Vec<Id>>,
}

impl TimerWheel {
    pub(super) fn new(heartbeat: Duration, now: Instant) -> TimerWheel {
        let tick = (heartbeat / TICKS as u32).max(Duration::from_millis(1));
        let buckets = std::iter::repeat_with(Vec::new).take(TICKS as usize + 1).collect();
        TimerWheel { began_at: now, tick, now: 0, buckets }
    }

    /// The tick that passes now.
    pub(super) fn tick(&self) -> u64 {
        self.now
    }

    /// When the next tick begins.
    pub(super) fn next_at(&self) -> Instant {
        self.began_at + self.tick.mul_f64((self.now + 1) as f64)
    }

    /// Puts a stream that was last written to at tick `written` where its heartbeat is due.
    pub(super) fn schedule(&mut self, id: Id, written: u64) {
        let due = (written + TICKS).clamp(self.now + 1, self.now + TICKS);
        let bucket = due as usize % self.buckets.len();
        self.buckets[bucket].push(id);
    }

    /// Whether one that was last written to at tick `written` has been silent for long enough.
    pub(super) fn is_due(&self, written: u64) -> bool {
        self.now.saturating_sub(written) >= TICKS
    }

    /// Forgets all: there are no streams.
    pub(super) fn clear(&mut self) {
        self.buckets.fill(Vec::new());
    }

    /// Goes on to `now`; returns those to look at. Whoever stays must be put back.
    pub(super) fn advance(&mut self, now: Instant) -> Vec<Id> {
        let mut due = Vec::new();
        // After a long stop each bucket is visited once.
        let target = (now.saturating_duration_since(self.began_at).as_nanos()
            / self.tick.as_nanos().max(1)) as u64;
        let first = target.saturating_sub(TICKS).max(self.now);
        for tick in first + 1..=target {
            let bucket = tick as usize % self.buckets.len();
            if due.is_empty() {
                due = std::mem::take(&mut self.buckets[bucket]);
            } else {
                due.append(&mut self.buckets[bucket]);
            }
        }
        self.now = self.now.max(target);
        due
    }
}
