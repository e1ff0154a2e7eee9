//! [`BodyLimit`]: how many bytes of request bodies a node holds.
//!
//! A body may take its time to come, and a client may have many connections. So all bodies that are
//! coming or being worked on have a sum: one that grows when there is no room waits a moment for
//! others to be done, and is then refused. Small ones have a sum of their own: large bodies that come
//! slowly do not keep a task from being moved.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What counts as small of every body, in bytes, and what all that is small may take together.
const SMALL_BYTES_MAX: usize = 16 << 10;
const SMALL_SUM_BYTES_MAX: usize = 16 << 20;

/// What all bodies may take beyond that, in bytes: or two of the largest, if these are larger.
const LARGE_SUM_BYTES_MAX: usize = 32 << 20;

/// How long a body waits for others.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// The largest body that is read, and what all of them may take; an extension of every request.
#[derive(Debug, Clone)]
pub(in crate::http) struct BodyLimit {
    /// The largest, in bytes.
    pub(super) bytes_max: usize,
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// What one body takes. Given back when it is dropped.
#[derive(Debug)]
pub(in crate::http) struct BodyMemory {
    limit: BodyLimit,
    small: Option<OwnedSemaphorePermit>,
    large: Option<OwnedSemaphorePermit>,
}

/// There is no room, and nobody was done in time.
#[derive(Debug)]
pub(super) struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this node holds as many bytes of request bodies as it may")
    }
}

impl BodyLimit {
    /// Bodies of at most so many bytes each.
    pub(in crate::http) fn new(bytes_max: usize) -> BodyLimit {
        // What a body is read into may be twice as large as what has come.
        let large = LARGE_SUM_BYTES_MAX.max(4 * bytes_max);
        BodyLimit {
            bytes_max,
            small: Arc::new(Semaphore::new(SMALL_SUM_BYTES_MAX)),
            large: Arc::new(Semaphore::new(large)),
        }
    }

    /// For a body of which nothing has come.
    pub(super) fn memory(&self) -> BodyMemory {
        BodyMemory { limit: self.clone(), small: None, large: None }
    }
}

impl BodyMemory {
    /// Waits until the body may take so many bytes.
    pub(super) async fn grow_to(&mut self, bytes: usize) -> Result<(), Full> {
        let small = bytes.min(SMALL_BYTES_MAX);
        // Nearly always there is room, and no need for a timer.
        if grows_at_once(&mut self.small, &self.limit.small, small)
            && grows_at_once(&mut self.large, &self.limit.large, bytes - small)
        {
            return Ok(());
        }
        let grown = async {
            grow(&mut self.small, &self.limit.small, small).await;
            grow(&mut self.large, &self.limit.large, bytes - small).await;
        };
        tokio::time::timeout(WAIT_MAX, grown).await.map_err(|_| Full)
    }
}

async fn grow(held: &mut Option<OwnedSemaphorePermit>, sum: &Arc<Semaphore>, bytes: usize) {
    let more = lacking(held.as_ref(), bytes);
    if more == 0 {
        return;
    }
    // The semaphore is never closed.
    let Ok(more) = sum.clone().acquire_many_owned(more).await else { return };
    add(held, more);
}

/// Grows if there is room, and says whether there was.
fn grows_at_once(
    held: &mut Option<OwnedSemaphorePermit>,
    sum: &Arc<Semaphore>,
    bytes: usize,
) -> bool {
    let more = lacking(held.as_ref(), bytes);
    if more == 0 {
        return true;
    }
    let Ok(more) = sum.clone().try_acquire_many_owned(more) else { return false };
    add(held, more);
    true
}

fn lacking(held: Option<&OwnedSemaphorePermit>, bytes: usize) -> u32 {
    let before = held.map_or(0, OwnedSemaphorePermit::num_permits);
    u32::try_from(bytes.saturating_sub(before)).unwrap_or(u32::MAX)
}

fn add(held: &mut Option<OwnedSemaphorePermit>, more: OwnedSemaphorePermit) {
    match held {
        Some(held) => held.merge(more),
        none => *none = Some(more),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn large_bodies_that_stay_are_refused_together_and_small_ones_are_not() {
        let limit = BodyLimit::new(1 << 20);
        let mut held = Vec::new();
        for _ in 0..40 {
            let mut memory = limit.memory();
            memory.grow_to(64 << 10).await.unwrap();
            held.push(memory);
        }
        let mut refused = 0;
        for memory in &mut held {
            refused += usize::from(memory.grow_to(1 << 20).await.is_err());
        }
        assert!((5..12).contains(&refused), "{refused} of 40 were refused");
        let mut small = limit.memory();
        small.grow_to(2_000).await.unwrap();
        drop(held);
        for _ in 0..40 {
            limit.memory().grow_to(1 << 20).await.unwrap();
        }
    }
}
