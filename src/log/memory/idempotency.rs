//! [`IdempotencyCache`]: what requests with an idempotency key were answered, for as long as the
//! window says.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::log::{IdempotencyKey, LogError};
use crate::position::Position;
use crate::topic::Topic;

/// Memory that stored results may take, in bytes. Beyond it the oldest are forgotten early.
const BYTES_MAX: usize = 32 << 20;

/// What one result costs beside its texts, roughly, in bytes.
const OVERHEAD_BYTES: usize = 250;

/// Keys of one topic are not those of another.
type Key = (Topic, IdempotencyKey);

/// Invariant: `order` has the keys of `results`, oldest first, and `bytes` is what they take.
pub(super) struct IdempotencyCache {
    results: HashMap<Key, StoredResult>,
    order: VecDeque<(Instant, Key)>,
    bytes: usize,
    window: Duration,
}

/// What one request was answered.
#[derive(Clone)]
pub(super) struct StoredResult {
    request: u64,
    pub(super) position: Position,
    pub(super) answer: Bytes,
}

impl IdempotencyCache {
    pub(super) fn new(window: Duration) -> IdempotencyCache {
        let (results, order) = (HashMap::new(), VecDeque::new());
        IdempotencyCache { results, order, bytes: 0, window }
    }

    /// What this request was answered before, if it was.
    ///
    /// # Errors
    /// [`LogError::KeyReused`], when the key came with another request.
    pub(super) fn find(
        &mut self,
        key: &Key,
        request: &impl Hash,
    ) -> Result<Option<StoredResult>, LogError> {
        while self.order.front().is_some_and(|(stored_at, _)| stored_at.elapsed() > self.window) {
            self.forget_oldest();
        }
        match self.results.get(key) {
            Some(stored) if stored.request == digest(request) => Ok(Some(stored.clone())),
            Some(_) => Err(LogError::KeyReused),
            None => Ok(None),
        }
    }

    /// Stores what a request is answered whose key [`IdempotencyCache::find`] did not find.
    pub(super) fn store(
        &mut self,
        key: Key,
        request: &impl Hash,
        position: Position,
        answer: Bytes,
    ) {
        let result = StoredResult { request: digest(request), position, answer };
        self.bytes += bytes(&key, &result);
        self.order.push_back((Instant::now(), key.clone()));
        self.results.insert(key, result);
        while self.bytes > BYTES_MAX {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, key)) = self.order.pop_front() else { return };
        if let Some(result) = self.results.remove(&key) {
            self.bytes -= bytes(&key, &result);
        }
    }
}

/// Tells requests apart within this process. Not against malice: who knows a key may publish.
fn digest(request: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    request.hash(&mut hasher);
    hasher.finish()
}

fn bytes((topic, key): &Key, result: &StoredResult) -> usize {
    // The key is in the map and in the order.
    2 * (topic.as_str().len() + key.as_str().len()) + result.answer.len() + OVERHEAD_BYTES
}
