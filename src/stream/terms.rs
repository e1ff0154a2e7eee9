//! [`Terms`]: on what terms a stream runs, and [`Endings`]: how streams are ended from outside.
//!
//! All streams of the same terms share one [`Terms`], wherever they wait: a waiting stream pays for
//! it with one pointer. To end streams is to give their terms an [`EndOrder`]; whoever carries
//! streams of these terms is told, and ends each of them in its turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::said::EndReason;
use crate::wire::{Encoding, Wire};

/// What one stream was granted, and how it speaks.
#[derive(Debug)]
pub struct Terms {
    /// For whom; `None` while nobody has to say who they are.
    pub subject: Option<String>,
    /// When the grant ends.
    pub expires_at: Option<Instant>,
    /// How it speaks.
    pub wire: Wire,
    /// How its bytes are encoded.
    pub encoding: Encoding,
    order: watch::Sender<Option<EndOrder>>,
}

/// Streams have to end.
#[derive(Debug, Clone)]
pub struct EndOrder {
    /// Why.
    pub reason: EndReason,
    turns: Turns,
}

/// A place in a window for each of so many streams: the n-th of N, counted from 0, ends at
/// (n + ½)/N of the window, so that their clients do not come back all at once.
#[derive(Debug, Clone)]
struct Turns {
    began_at: Instant,
    window: Duration,
    streams: usize,
    taken: Arc<AtomicUsize>,
}

impl EndOrder {
    /// Ends `streams` streams spread evenly over `window` from now on.
    pub fn spread(reason: EndReason, window: Duration, streams: usize) -> EndOrder {
        let taken = Arc::new(AtomicUsize::new(0));
        EndOrder { reason, turns: Turns { began_at: Instant::now(), window, streams, taken } }
    }

    /// When the next stream that asks shall end. Each stream asks once.
    pub fn take_turn(&self) -> Instant {
        let Turns { began_at, window, streams, taken } = &self.turns;
        let turn = taken.fetch_add(1, Ordering::Relaxed);
        let share = (turn as f64 + 0.5) / ((*streams).max(1) as f64);
        *began_at + window.mul_f64(share.min(1.0))
    }
}

/// A moment at which one stream ends whatever else happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndsAt {
    /// When.
    pub at: Instant,
    /// Why.
    pub reason: EndReason,
}

impl Terms {
    /// What an order says to streams of these terms, if there is one.
    pub fn order(&self) -> Option<EndOrder> {
        self.order.borrow().clone()
    }

    /// Waits until a stream of these terms has to say goodbye, and says why. `limit` is its own
    /// end. Takes the stream's turn, so it is asked once for each.
    pub async fn ended(self: Arc<Terms>, limit: Option<EndsAt>) -> EndReason {
        let mut orders = self.order.subscribe();
        let ordered = async {
            // The sender lives in `self`.
            let order = orders.wait_for(Option::is_some).await.ok().and_then(|order| order.clone());
            match order {
                Some(order) => {
                    tokio::time::sleep_until(order.take_turn()).await;
                    order.reason
                }
                None => std::future::pending().await,
            }
        };
        let over = async {
            match limit {
                Some(EndsAt { at, reason }) => {
                    tokio::time::sleep_until(at).await;
                    reason
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            reason = ordered => reason,
            reason = over => reason,
        }
    }
}

/// Somebody who carries streams and ends them when their terms are given an order.
pub trait EndListener: Send + Sync + 'static {
    /// Streams of these terms have to end as their [order](Terms::order) says. Must not wait.
    fn terms_ended(&self, terms: &Arc<Terms>);
}

/// All terms of a node, and how to end the streams that run on them.
pub struct Endings {
    /// The terms of whoever has no others, one for each way to speak.
    open: [Arc<Terms>; 2],
    stream_age_max: Option<Duration>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    terms: Vec<Weak<Terms>>,
    listeners: Vec<Weak<dyn EndListener>>,
    /// Given to all terms, and to those that come later.
    all: Option<EndOrder>,
}

impl Endings {
    /// Nothing has ended yet. A stream lasts `stream_age_max` at most.
    pub fn new(stream_age_max: Option<Duration>) -> Endings {
        let open = [false, true].map(|named_heartbeat| {
            Arc::new(Terms {
                subject: None,
                expires_at: None,
                wire: Wire::Sse { named_heartbeat },
                encoding: Encoding::default(),
                order: watch::Sender::new(None),
            })
        });
        let state = State { terms: open.iter().map(Arc::downgrade).collect(), ..State::default() };
        Endings { open, stream_age_max, state: Mutex::new(state) }
    }

    /// The terms of a stream for which nothing else was agreed.
    pub fn open_terms(&self, wire: Wire) -> Arc<Terms> {
        let [plain, named] = &self.open;
        match wire {
            Wire::Sse { named_heartbeat: false } => plain.clone(),
            Wire::Sse { named_heartbeat: true } => named.clone(),
        }
    }

    /// New terms, for streams of one subject that speak like this; they can be ended apart from all
    /// others.
    pub fn terms(
        &self,
        subject: Option<String>,
        expires_at: Option<Instant>,
        wire: Wire,
    ) -> Arc<Terms> {
        let mut state = self.state();
        let order = watch::Sender::new(state.all.clone());
        let encoding = Encoding::default();
        let terms = Arc::new(Terms { subject, expires_at, wire, encoding, order });
        if state.terms.len() == state.terms.capacity() {
            state.terms.retain(|terms| terms.strong_count() > 0);
        }
        state.terms.push(Arc::downgrade(&terms));
        terms
    }

    /// From now on this listener is told which terms have ended.
    pub fn listen(&self, listener: &Arc<impl EndListener>) {
        let listener: Weak<dyn EndListener> = Arc::downgrade(listener) as Weak<dyn EndListener>;
        self.state().listeners.push(listener);
    }

    /// When a stream that begins now on these terms ends whatever happens. Streams that began
    /// together do not end together: each lasts 80 to 100 % of the longest age.
    pub fn limit(&self, terms: &Terms) -> Option<EndsAt> {
        let age = self.stream_age_max.map(|age| EndsAt {
            at: Instant::now() + age.mul_f64(0.8 + 0.2 * fastrand::f64()),
            reason: EndReason::Age,
        });
        let expiry = terms.expires_at.map(|at| EndsAt { at, reason: EndReason::Expired });
        [age, expiry].into_iter().flatten().min_by_key(|end| end.at)
    }

    /// Ends the streams of these terms.
    pub fn end(&self, terms: &Arc<Terms>, order: EndOrder) {
        let state = self.state();
        state.give(terms, order);
    }

    /// Ends all streams, also those that are still being opened.
    pub fn end_all(&self, order: EndOrder) {
        let mut state = self.state();
        state.all = Some(order.clone());
        for terms in state.terms.iter().filter_map(Weak::upgrade) {
            state.give(&terms, order.clone());
        }
    }

    /// Whether all streams were told to end.
    pub fn all_ended(&self) -> bool {
        self.state().all.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn give(&self, terms: &Arc<Terms>, order: EndOrder) {
        terms.order.send_replace(Some(order));
        for listener in self.listeners.iter().filter_map(Weak::upgrade) {
            listener.terms_ended(terms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSE: Wire = Wire::Sse { named_heartbeat: false };

    #[tokio::test(start_paused = true)]
    async fn streams_that_are_ended_take_turns_over_the_window() {
        let endings = Endings::new(None);
        let began_at = Instant::now();
        let streams: Vec<_> = (0..4)
            .map(|_| {
                let ended = endings.open_terms(SSE).ended(endings.limit(&endings.open[0]));
                tokio::spawn(async move {
                    assert_eq!(ended.await, EndReason::Drain);
                    began_at.elapsed().as_secs()
                })
            })
            .collect();
        tokio::task::yield_now().await;
        endings.end_all(EndOrder::spread(EndReason::Drain, Duration::from_secs(8), 4));
        let mut ended_at = Vec::new();
        for stream in streams {
            ended_at.push(stream.await.unwrap());
        }
        ended_at.sort_unstable();
        assert_eq!(ended_at, [1, 3, 5, 7]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_streams_of_the_ended_terms_end() {
        let endings = Endings::new(None);
        let [alice, bob] =
            ["alice", "bob"].map(|name| endings.terms(Some(name.to_owned()), None, SSE));
        endings.end(&alice, EndOrder::spread(EndReason::Revoked, Duration::ZERO, 1));
        assert_eq!(alice.ended(None).await, EndReason::Revoked);
        let waits = tokio::time::timeout(Duration::from_secs(3600), bob.ended(None)).await;
        assert!(waits.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn terms_that_are_agreed_after_everything_ended_have_ended_too() {
        let endings = Endings::new(None);
        endings.end_all(EndOrder::spread(EndReason::Drain, Duration::ZERO, 0));
        assert_eq!(endings.terms(None, None, SSE).ended(None).await, EndReason::Drain);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_of_an_age_end_apart_and_none_later() {
        let age = Duration::from_secs(100);
        let endings = Endings::new(Some(age));
        let limits: Vec<EndsAt> =
            (0..100).filter_map(|_| endings.limit(&endings.open[0])).collect();
        let now = Instant::now();
        assert!(limits.iter().all(|limit| limit.at >= now + age.mul_f64(0.8)));
        assert!(limits.iter().all(|limit| limit.at <= now + age));
        assert!(limits.iter().any(|limit| limit.at < now + age.mul_f64(0.85)));
        let expires_at = now + Duration::from_secs(10);
        let terms = endings.terms(None, Some(expires_at), SSE);
        let limit = endings.limit(&terms).unwrap();
        assert_eq!((limit.at, limit.reason), (expires_at, EndReason::Expired));
        assert_eq!(terms.ended(Some(limit)).await, EndReason::Expired);
    }
}
