//! [`Answers`]: what requests with an idempotency key were answered, for as long as the window says.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::log::{IdempotencyKey, LogError};
use crate::position::Position;
use crate::topic::Topic;

/// Memory that kept answers may take, in bytes. Beyond it the oldest are forgotten early.
const BYTES_MAX: usize = 32 << 20;

/// What one answer costs beside its texts, roughly, in bytes.
const OVERHEAD_BYTES: usize = 250;

type Place = (Topic, IdempotencyKey);

/// Invariant: `order` has the places of `kept`, oldest first, and `bytes` is what they take.
#[derive(Default)]
pub(super) struct Answers {
    kept: HashMap<Place, Kept>,
    order: VecDeque<(Instant, Place)>,
    bytes: usize,
}

/// One answer.
#[derive(Clone)]
pub(super) struct Kept {
    request: u64,
    pub(super) position: Position,
    pub(super) answer: Bytes,
}

impl Answers {
    /// What this request was answered before, if it was.
    ///
    /// # Errors
    /// [`LogError::KeyReused`], when the key came with another request.
    pub(super) fn find(
        &mut self,
        place: &Place,
        request: &impl Hash,
        window: Duration,
    ) -> Result<Option<Kept>, LogError> {
        while self.order.front().is_some_and(|(kept_at, _)| kept_at.elapsed() > window) {
            self.forget_oldest();
        }
        match self.kept.get(place) {
            Some(kept) if kept.request == digest(request) => Ok(Some(kept.clone())),
            Some(_) => Err(LogError::KeyReused),
            None => Ok(None),
        }
    }

    /// Keeps an answer for a place that [`Answers::find`] found empty.
    pub(super) fn keep(
        &mut self,
        place: Place,
        request: &impl Hash,
        position: Position,
        answer: Bytes,
    ) {
        let kept = Kept { request: digest(request), position, answer };
        self.bytes += bytes(&place, &kept);
        self.order.push_back((Instant::now(), place.clone()));
        self.kept.insert(place, kept);
        while self.bytes > BYTES_MAX {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, place)) = self.order.pop_front() else { return };
        if let Some(kept) = self.kept.remove(&place) {
            self.bytes -= bytes(&place, &kept);
        }
    }
}

/// Tells requests apart within this process. Not against malice: who knows a key may publish.
fn digest(request: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    request.hash(&mut hasher);
    hasher.finish()
}

fn bytes((topic, key): &Place, kept: &Kept) -> usize {
    // The place is in the map and in the order.
    2 * (topic.as_str().len() + key.as_str().len()) + kept.answer.len() + OVERHEAD_BYTES
}
