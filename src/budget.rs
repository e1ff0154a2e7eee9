//! [`Budget`]: how many bytes a node holds of what it has made for readers and they have not taken.
//!
//! Pages of the log, states of topics and answers about history are made when somebody asks for
//! them, and stay until the last reader has taken them. A reader that is slow, or does not read at
//! all, keeps them. So all of them together have one bound: whoever finds nothing left waits until
//! others have read, or were given up for not reading.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::telemetry::metric;

/// What a node holds at most, in bytes.
pub const BUDGET_BYTES_MAX: usize = 48 << 20;

/// Bytes that may be held over the whole node.
#[derive(Clone)]
pub struct Budget {
    free: Arc<Semaphore>,
    bytes_max: usize,
}

/// A part of the budget, given back when it is dropped.
pub struct Reserved {
    permit: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes_max: usize) -> Budget {
        Budget { free: Arc::new(Semaphore::new(bytes_max)), bytes_max }
    }

    /// Reserves so many bytes if they are free now. What is larger than the whole budget takes all
    /// of it.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reserved> {
        let permit = self.free.clone().try_acquire_many_owned(self.clamped(bytes)).ok()?;
        Some(Reserved { permit })
    }

    /// Waits until so many bytes are free, and reserves them. In the order of asking.
    pub async fn reserve(&self, bytes: usize) -> Reserved {
        if let Some(reserved) = self.try_reserve(bytes) {
            return reserved;
        }
        let _waiting = Waiting::new();
        loop {
            // The semaphore is never closed.
            if let Ok(permit) = self.free.clone().acquire_many_owned(self.clamped(bytes)).await {
                return Reserved { permit };
            }
        }
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        self.bytes_max - self.free.available_permits()
    }

    fn clamped(&self, bytes: usize) -> u32 {
        bytes.min(self.bytes_max).try_into().unwrap_or(u32::MAX)
    }
}

impl Reserved {
    /// Keeps these bytes for readers: what they need of the budget is given back when the last
    /// reader lets go of them, the rest at once. What was reserved is taken for enough.
    pub fn hold(mut self, bytes: Vec<u8>) -> Bytes {
        let rest = self.permit.num_permits().saturating_sub(bytes.capacity());
        drop(self.permit.split(rest));
        Bytes::from_owner(Held { bytes, _permit: self.permit })
    }

    /// Reserves what these bytes need instead, if it is more, and keeps them as [`Reserved::hold`]
    /// does. What was reserved is given back first: nobody waits while holding a part.
    pub async fn hold_all(self, budget: &Budget, mut bytes: Vec<u8>) -> Bytes {
        bytes.shrink_to_fit();
        if self.permit.num_permits() >= bytes.len().min(budget.bytes_max) {
            return self.hold(bytes);
        }
        drop(self);
        budget.reserve(bytes.len()).await.hold(bytes)
    }
}

struct Held {
    bytes: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Counts somebody who waits.
struct Waiting;

impl Waiting {
    fn new() -> Waiting {
        metric::budget_waiting(1.0);
        Waiting
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        metric::budget_waiting(-1.0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_count_until_their_last_reader_lets_go_of_them() {
        let budget = Budget::new(100);
        let held = budget.reserve(80).await.hold(vec![0; 50]);
        assert_eq!(budget.held(), 50);
        let part = held.slice(3..4);
        drop(held);
        assert_eq!(budget.held(), 50);
        assert!(budget.try_reserve(60).is_none());
        let waits = budget.reserve(60);
        let waits = tokio::time::timeout(Duration::from_secs(1), waits).await;
        assert!(waits.is_err());
        drop(part);
        assert_eq!(budget.held(), 0);
        budget.reserve(60).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_turns_out_larger_waits_without_holding_anything() {
        let budget = Budget::new(100);
        let first = budget.reserve(10).await.hold_all(&budget, vec![0; 90]).await;
        assert_eq!(budget.held(), 90);
        let reserved = budget.reserve(10).await;
        let for_second = budget.clone();
        let second = tokio::spawn(async move { reserved.hold_all(&for_second, vec![0; 60]).await });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        let second = second.await.unwrap();
        assert_eq!(budget.held(), 60);
        drop(second);
        // More than there is takes all there is, and is not refused.
        let huge = budget.reserve(1_000).await.hold_all(&budget, vec![0; 1_000]).await;
        assert_eq!(budget.held(), 100);
        drop(huge);
        assert_eq!(budget.held(), 0);
    }
}
