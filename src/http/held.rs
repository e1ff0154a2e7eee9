//! [`HeldAnswers`] and [`SharedAnswers`]: answers that may be large. A [budget](crate::budget) has them
//! until they are taken, as it has pages and boards: who asks for many and reads none gets no more of the
//! node's memory than anybody else. Nor of its time: whoever waits for the same answer as others gets the
//! same, which is made once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use tokio::sync::Mutex;

use super::problem::Problem;
use crate::budget::Budget;
use crate::net;
use crate::replay::shared::Shared;
use crate::topic::Topic;

/// Answers that are smaller, in bytes, wait for nobody: what the HTTP server keeps of any connection
/// is more.
const SMALL_BYTES: usize = 32 << 10;

/// What operators are answered and have not taken, in bytes. Apart from the budget of all others: who
/// looks why a node is slow does not wait for those who make it so.
const OPERATORS_BYTES_MAX: usize = 16 << 20;

/// Answers to questions that many ask at the same time. Each is made after its question came, and once
/// for all whose question came before that; nothing is kept for later ones.
pub(crate) struct SharedAnswers<Q>(Shared<Q, Bytes, Problem>);

impl<Q: Ord + Clone> Default for SharedAnswers<Q> {
    fn default() -> SharedAnswers<Q> {
        // No more than there are requests.
        SharedAnswers(Shared::new(usize::MAX))
    }
}

impl<Q: Ord + Clone> SharedAnswers<Q> {
    /// Has the answer to a question made, or waits for who has. What depends on who asks has to be
    /// part of the question.
    pub(super) async fn answer<F: Future<Output = Result<Bytes, Problem>>>(
        &self,
        budget: &Budget,
        question: Q,
        content_type: &'static str,
        make: impl FnOnce() -> F,
    ) -> Result<Response, Problem> {
        let text = self.0.together(question, make).await.map_err(Problem::for_another)?;
        let body = if budget.holds(&text) { net::body_of_held(text, budget) } else { text.into() };
        let mut response = Response::new(body);
        let content_type = HeaderValue::from_static(content_type);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        Ok(response)
    }
}

/// The answers of one route.
pub(super) struct HeldAnswers<Q> {
    shared: SharedAnswers<Q>,
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

impl<Q: Ord + Clone> Default for HeldAnswers<Q> {
    fn default() -> HeldAnswers<Q> {
        HeldAnswers {
            shared: SharedAnswers::default(),
            last_bytes: AtomicUsize::new(SMALL_BYTES),
            turn: Mutex::default(),
        }
    }
}

impl<Q: Ord + Clone> HeldAnswers<Q> {
    /// Has the answer to a question made as soon as there is room for it; see [`SharedAnswers`].
    pub(super) async fn answer(
        &self,
        budget: &Budget,
        question: Q,
        content_type: &'static str,
        make: impl AsyncFnOnce() -> Result<Made, Problem>,
    ) -> Result<Response, Problem> {
        self.shared.answer(budget, question, content_type, || self.make(budget, make)).await
    }

    async fn make(
        &self,
        budget: &Budget,
        make: impl AsyncFnOnce() -> Result<Made, Problem>,
    ) -> Result<Bytes, Problem> {
        let is_small = || self.last_bytes.load(Ordering::Relaxed) < SMALL_BYTES;
        let _turn = if is_small() { None } else { Some(self.turn.lock().await) };
        let expected = if is_small() { 0 } else { self.last_bytes.load(Ordering::Relaxed) };
        let reserved = budget.reserve(expected).await;
        let Made { text, bytes } = make().await?;
        self.last_bytes.store(bytes, Ordering::Relaxed);
        let text = text.into_bytes();
        Ok(if text.len() < SMALL_BYTES { text.into() } else { reserved.hold(text) })
    }
}

/// What operators are answered.
pub(crate) struct OperatorsAnswers {
    pub(super) budget: Budget,
    pub(super) metrics: HeldAnswers<()>,
    /// By how many topics are shown, or which one.
    pub(super) connections: HeldAnswers<(usize, Option<Topic>)>,
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
