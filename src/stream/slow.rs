//! [`Slow`]: whether a stream is behind, counted once whoever finds out.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::telemetry::metric;

/// Counts a stream as slow while there is a reason to, until it is dropped. Shared by the stream's
/// cursor and whoever carries it.
#[derive(Debug, Default)]
pub struct Slow(AtomicU8);

/// Why a stream is behind its topics' tails, as a bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlowReason {
    /// The tails do not reach back to it any more.
    ReadsLog = 1,
    /// What it says is not taken.
    NotTaken = 2,
}

impl Slow {
    /// Sets a reason, or takes it back.
    pub fn set(&self, reason: SlowReason, holds: bool) {
        let bit = reason as u8;
        let (before, after) = if holds {
            let before = self.0.fetch_or(bit, Ordering::Relaxed);
            (before, before | bit)
        } else {
            let before = self.0.fetch_and(!bit, Ordering::Relaxed);
            (before, before & !bit)
        };
        match (before, after) {
            (0, 1..) => metric::slow_connections(1.0),
            (1.., 0) => metric::slow_connections(-1.0),
            _ => {}
        }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        if *self.0.get_mut() != 0 {
            metric::slow_connections(-1.0);
        }
    }
}
