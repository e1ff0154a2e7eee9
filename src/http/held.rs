//! [`HeldAnswers`]: answers that are made for one reader and may be large. A [budget](crate::budget)
//! has them until they are taken, as it has pages and boards: who asks for many and reads none gets
//! no more of the node's memory than anybody else.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::{HeaderValue, header};
use axum::response::Response;
use tokio::sync::Mutex;

use super::problem::Problem;
use crate::budget::Budget;
use crate::net;

/// Answers that are smaller, in bytes, wait for nobody: what the HTTP server keeps of any connection
/// is more.
const SMALL_BYTES: usize = 32 << 10;

/// What operators are answered and have not taken, in bytes. Apart from the budget of all others: who
/// looks why a node is slow does not wait for those who make it so.
const OPERATORS_BYTES_MAX: usize = 16 << 20;

/// The answers of one route.
pub(super) struct HeldAnswers {
    /// What the last one took to be made: so much the next one is expected to take.
    last_bytes: AtomicUsize,
    /// Large ones are made one after the other: whatever each turns out to be, the budget knows of it
    /// before the next.
    turn: Mutex<()>,
}

/// An answer, and how many bytes were there while it was made.
pub(super) struct Made {
    pub(super) text: String,
    pub(super) bytes: usize,
}

impl From<String> for Made {
    fn from(text: String) -> Made {
        Made { bytes: text.len(), text }
    }
}

impl Default for HeldAnswers {
    fn default() -> HeldAnswers {
        HeldAnswers { last_bytes: AtomicUsize::new(SMALL_BYTES), turn: Mutex::default() }
    }
}

impl HeldAnswers {
    /// Has an answer made as soon as there is room for it.
    pub(super) async fn answer(
        &self,
        budget: &Budget,
        content_type: &'static str,
        make: impl AsyncFnOnce() -> Result<Made, Problem>,
    ) -> Result<Response, Problem> {
        let is_small = || self.last_bytes.load(Ordering::Relaxed) < SMALL_BYTES;
        let _turn = if is_small() { None } else { Some(self.turn.lock().await) };
        let expected = if is_small() { 0 } else { self.last_bytes.load(Ordering::Relaxed) };
        let reserved = budget.reserve(expected).await;
        let Made { text, bytes } = make().await?;
        self.last_bytes.store(bytes, Ordering::Relaxed);
        let body = if text.len() < SMALL_BYTES {
            text.into()
        } else {
            net::body_of_held(reserved.hold(text.into_bytes()), budget)
        };
        let mut response = Response::new(body);
        let content_type = HeaderValue::from_static(content_type);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        Ok(response)
    }
}

/// What operators are answered.
pub(crate) struct OperatorsAnswers {
    pub(super) budget: Budget,
    pub(super) metrics: HeldAnswers,
    pub(super) connections: HeldAnswers,
}

impl OperatorsAnswers {
    /// For readers of whom each has this time to take anything at all.
    pub(crate) fn new(write_timeout: Duration) -> OperatorsAnswers {
        OperatorsAnswers {
            budget: Budget::new(OPERATORS_BYTES_MAX, write_timeout),
            metrics: HeldAnswers::default(),
            connections: HeldAnswers::default(),
        }
    }

    /// Lets go of what is taken too slowly while somebody waits. To be called once a second.
    pub(crate) fn look(&self) {
        self.budget.look();
    }
}
