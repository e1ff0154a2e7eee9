//! [`Terms`]: on what terms a stream runs, and [`Endings`]: how streams are ended from outside.
//!
//! All streams of the same terms share one [`Terms`], wherever they wait: a waiting stream pays for
//! it with one pointer. To end streams is to give their terms an [`EndOrder`]; whoever carries
//! streams is told that there are orders, and ends each of those that have one in its turn. Of two
//! orders that terms are given the one that is over first holds.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::said::EndReason;
use crate::wire::{Encoding, Speech, Wire};

/// What one stream was granted, and how it speaks.
pub struct Terms {
    /// For whom.
    pub holder: Holder,
    /// How it speaks, and how its bytes are encoded.
    pub speech: Speech,
    orders: Mutex<Orders>,
    /// Wakes those who wait for orders. Both take less than a channel would: streams with tokens of
    /// their own have terms of their own.
    given: Notify,
}

/// For whom streams run, and until when: what their token says. Nothing of it is there while nobody
/// has to say who they are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Holder {
    /// Whose token it is (`sub`).
    pub subject: Option<String>,
    /// Its name (`jti`).
    pub token_id: Option<String>,
    /// Who gave it (`iss`).
    pub issuer: Option<String>,
    /// When it was given, in seconds since 1970 (`iat`).
    pub issued_at: Option<u64>,
    /// When it ends.
    pub expires_at: Option<Instant>,
    /// They were opened with a ticket for it, whose address opens no other.
    pub by_ticket: bool,
}

/// Says how streams speak, not for whom: what a token says stands in no log.
impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms").field("speech", &self.speech).finish_non_exhaustive()
    }
}

/// What terms were ordered.
#[derive(Debug, Default)]
struct Orders {
    /// How many they were given that held; wraps around.
    count: u8,
    last: Option<Box<EndOrder>>,
}

/// How many orders of its terms one stream has heard: it takes one turn of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OrdersHeard(u8);

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

    /// Whether all its streams have ended before those of the other.
    fn is_over_before(&self, other: &EndOrder) -> bool {
        let ends_at = |order: &EndOrder| order.turns.began_at + order.turns.window;
        ends_at(self) < ends_at(other)
    }
}

impl Orders {
    /// Takes an order, unless another is over by then; says whether it took it.
    fn give(&mut self, order: EndOrder) -> bool {
        let holds = self.last.as_ref().is_none_or(|last| order.is_over_before(last));
        if holds {
            self.count = self.count.wrapping_add(1);
            self.last = Some(Box::new(order));
        }
        holds
    }

    /// What one stream has not heard of yet.
    fn hear(&self, heard: &mut OrdersHeard) -> Option<EndOrder> {
        let is_new = std::mem::replace(&mut heard.0, self.count) != self.count;
        self.last.as_deref().filter(|_| is_new).cloned()
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
    fn new(holder: Holder, speech: Speech, orders: Orders) -> Terms {
        Terms { holder, speech, orders: Mutex::new(orders), given: Notify::new() }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, order: EndOrder) {
        if self.orders().give(order) {
            self.given.notify_waiters();
        }
    }

    /// What a stream of these terms was ordered and has not heard of yet.
    pub fn hear_order(&self, heard: &mut OrdersHeard) -> Option<EndOrder> {
        self.orders().hear(heard)
    }

    /// Waits until a stream of these terms has to say goodbye, and says why. `limit` is its own
    /// end. Takes the stream's turns, so it is asked once for each.
    pub async fn ended(self: Arc<Terms>, mut limit: Option<EndsAt>) -> EndReason {
        let mut heard = OrdersHeard::default();
        loop {
            // Enabled before it is asked for orders, so that none falls between.
            let mut given = pin!(self.given.notified());
            given.as_mut().enable();
            let order = self.orders().hear(&mut heard);
            if let Some(order) = order {
                let turn = EndsAt { at: order.take_turn(), reason: order.reason };
                limit = Some(limit.filter(|limit| limit.at <= turn.at).unwrap_or(turn));
            }
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
                () = given => {}
                reason = over => return reason,
            }
        }
    }
}

/// Somebody who carries streams and ends them when their terms are given an order.
pub trait EndListener: Send + Sync + 'static {
    /// Some terms were given an order: streams of theirs [hear](Terms::hear_order) of it when they
    /// are asked. Told once for all terms that are given it together. Must not wait.
    fn orders_given(&self);
}

/// The digest of a token, whether its streams were opened with a ticket, and how they speak.
type TokenTerms = ([u8; 32], bool, Speech);

/// All terms of a node, and how to end the streams that run on them.
pub struct Endings {
    /// The terms of whoever has no others, one for each way to speak.
    open: Vec<Arc<Terms>>,
    stream_age_max: Option<Duration>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    terms: Vec<Weak<Terms>>,
    /// Those that streams of one token share.
    of_tokens: HashMap<TokenTerms, Weak<Terms>>,
    listeners: Vec<Weak<dyn EndListener>>,
    /// Given to all terms, and to those that come later.
    all: Option<EndOrder>,
}

impl Endings {
    /// Nothing has ended yet. A stream lasts `stream_age_max` at most.
    pub fn new(stream_age_max: Option<Duration>) -> Endings {
        let speeches = Encoding::ALL.into_iter().flat_map(|encoding| {
            let wires = [false, true].map(|named_heartbeat| Wire::Sse { named_heartbeat });
            wires.map(|wire| Speech { wire, encoding })
        });
        let open = speeches
            .map(|speech| Arc::new(Terms::new(Holder::default(), speech, Orders::default())));
        let open: Vec<Arc<Terms>> = open.collect();
        let state = State { terms: open.iter().map(Arc::downgrade).collect(), ..State::default() };
        Endings { open, stream_age_max, state: Mutex::new(state) }
    }

    /// The terms of a stream for which nothing else was agreed.
    pub fn open_terms(&self, speech: impl Into<Speech>) -> Arc<Terms> {
        let speech = speech.into();
        let open = self.open.iter().find(|terms| terms.speech == speech);
        // There are some for every way to speak.
        open.cloned().unwrap_or_else(|| self.terms(Holder::default(), speech))
    }

    /// New terms, for streams of one holder that speak like this; they can be ended apart from all
    /// others.
    pub fn terms(&self, holder: Holder, speech: impl Into<Speech>) -> Arc<Terms> {
        self.state().agree(holder, speech.into())
    }

    /// The terms of the streams of one token, known by its digest, that speak like this: the same for
    /// all of them, as long as there are any.
    pub fn terms_of_token(
        &self,
        digest: [u8; 32],
        holder: Holder,
        speech: impl Into<Speech>,
    ) -> Arc<Terms> {
        let speech = speech.into();
        let state = &mut *self.state();
        let key = (digest, holder.by_ticket, speech);
        let known = state.of_tokens.get(&key).and_then(Weak::upgrade);
        // Those that were ended stay so; what ended them may be over.
        if let Some(terms) = known.filter(|terms| terms.orders().last.is_none()) {
            return terms;
        }
        let terms = state.agree(holder, speech);
        if state.of_tokens.len() == state.of_tokens.capacity() {
            state.forget_unused();
        }
        state.of_tokens.insert(key, Arc::downgrade(&terms));
        terms
    }

    /// Forgets terms that no stream runs on any more. Done now and then: what nobody asks for would
    /// otherwise stay until somebody comes with a new token.
    pub fn sweep(&self) {
        self.state().forget_unused();
    }

    /// From now on this listener is told of orders.
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
        let expired = match terms.holder.by_ticket {
            true => EndReason::TicketExpired,
            false => EndReason::Expired,
        };
        let expiry = terms.holder.expires_at.map(|at| EndsAt { at, reason: expired });
        [age, expiry].into_iter().flatten().min_by_key(|end| end.at)
    }

    /// Ends the streams of these terms.
    pub fn end(&self, terms: &Arc<Terms>, order: EndOrder) {
        let state = self.state();
        terms.give(order);
        state.tell();
    }

    /// All terms that streams run on, or may.
    pub fn all_terms(&self) -> Vec<Arc<Terms>> {
        self.state().terms.iter().filter_map(Weak::upgrade).collect()
    }

    /// Ends the streams of all these terms.
    pub fn end_each(&self, terms: &[Arc<Terms>], order: &EndOrder) {
        let state = self.state();
        for terms in terms {
            terms.give(order.clone());
        }
        state.tell();
    }

    /// Ends all streams, also those that are still being opened.
    pub fn end_all(&self, order: EndOrder) {
        let mut state = self.state();
        if state.all.as_ref().is_none_or(|all| order.is_over_before(all)) {
            state.all = Some(order.clone());
        }
        for terms in state.terms.iter().filter_map(Weak::upgrade) {
            terms.give(order.clone());
        }
        state.tell();
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
    fn agree(&mut self, holder: Holder, speech: Speech) -> Arc<Terms> {
        let mut orders = Orders::default();
        if let Some(order) = self.all.clone() {
            orders.give(order);
        }
        let terms = Arc::new(Terms::new(holder, speech, orders));
        if self.terms.len() == self.terms.capacity() {
            self.forget_unused();
        }
        self.terms.push(Arc::downgrade(&terms));
        terms
    }

    fn forget_unused(&mut self) {
        let is_used = |terms: &Weak<Terms>| terms.strong_count() > 0;
        self.terms.retain(is_used);
        self.of_tokens.retain(|_, terms| is_used(terms));
        // As many again may come before it is worth looking through all of them again.
        let (terms, of_tokens) = (self.terms.len(), self.of_tokens.len());
        self.terms.shrink_to(2 * terms);
        self.terms.reserve(terms + 1);
        self.of_tokens.shrink_to(2 * of_tokens);
        self.of_tokens.reserve(of_tokens + 1);
    }

    fn tell(&self) {
        for listener in self.listeners.iter().filter_map(Weak::upgrade) {
            listener.orders_given();
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
    async fn of_two_orders_the_one_that_is_over_first_holds() {
        let hour = EndOrder::spread(EndReason::Revoked, Duration::from_secs(3_600), 1);
        let soon = EndOrder::spread(EndReason::Drain, Duration::from_secs(8), 1);
        for orders in [[hour.clone(), soon.clone()], [soon, hour]] {
            let endings = Endings::new(None);
            let began_at = Instant::now();
            let terms = endings.terms(Holder::default(), SSE);
            let ended = tokio::spawn(terms.clone().ended(None));
            for order in orders {
                tokio::task::yield_now().await;
                endings.end(&terms, order);
            }
            assert_eq!(ended.await.unwrap(), EndReason::Drain);
            assert!(began_at.elapsed() <= Duration::from_secs(8), "{:?}", began_at.elapsed());
            // Whoever comes later hears the same.
            assert_eq!(terms.ended(None).await, EndReason::Drain);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_all_terms_is_told_once() {
        #[derive(Default)]
        struct Listener(AtomicUsize);
        impl EndListener for Listener {
            fn orders_given(&self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let endings = Endings::new(None);
        let listener = Arc::new(Listener::default());
        endings.listen(&listener);
        let tokens: Vec<_> = (0..1_000).map(|_| endings.terms(Holder::default(), SSE)).collect();
        endings.end_all(EndOrder::spread(EndReason::Drain, Duration::ZERO, 1));
        assert_eq!(listener.0.load(Ordering::Relaxed), 1);
        let mut heard = OrdersHeard::default();
        assert!(tokens[7].hear_order(&mut heard).is_some());
        assert!(tokens[7].hear_order(&mut heard).is_none(), "each stream takes one turn");
    }

    #[tokio::test(start_paused = true)]
    async fn only_streams_of_the_ended_terms_end() {
        let endings = Endings::new(None);
        let of = |name: &str| Holder { subject: Some(name.to_owned()), ..Holder::default() };
        let [alice, bob] = ["alice", "bob"].map(|name| endings.terms(of(name), SSE));
        endings.end(&alice, EndOrder::spread(EndReason::Revoked, Duration::ZERO, 1));
        assert_eq!(alice.ended(None).await, EndReason::Revoked);
        let waits = tokio::time::timeout(Duration::from_secs(3600), bob.ended(None)).await;
        assert!(waits.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn terms_that_were_ended_are_not_found_again() {
        let endings = Endings::new(None);
        let holder = |by_ticket| Holder { by_ticket, ..Holder::default() };
        let terms = endings.terms_of_token([1; 32], holder(false), SSE);
        let by_ticket = endings.terms_of_token([1; 32], holder(true), SSE);
        assert!(!Arc::ptr_eq(&terms, &by_ticket));
        let all = endings.all_terms();
        assert!(all.iter().any(|other| Arc::ptr_eq(other, &terms)));
        let order = EndOrder::spread(EndReason::Revoked, Duration::ZERO, 1);
        endings.end_each(&[terms.clone(), by_ticket], &order);
        let again = endings.terms_of_token([1; 32], holder(false), SSE);
        assert!(!Arc::ptr_eq(&again, &terms));
        assert_eq!(terms.ended(None).await, EndReason::Revoked);
        let waits = tokio::time::timeout(Duration::from_secs(3600), again.ended(None)).await;
        assert!(waits.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn terms_that_are_agreed_after_everything_ended_have_ended_too() {
        let endings = Endings::new(None);
        endings.end_all(EndOrder::spread(EndReason::Drain, Duration::ZERO, 0));
        assert_eq!(endings.terms(Holder::default(), SSE).ended(None).await, EndReason::Drain);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_of_one_token_share_their_terms_as_long_as_there_are_any() {
        let endings = Endings::new(None);
        let terms = |token: u32, speech: Speech| {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&token.to_le_bytes());
            endings.terms_of_token(digest, Holder::default(), speech)
        };
        let (named, plain) = (Wire::Sse { named_heartbeat: true }.into(), Speech::from(SSE));
        let one = terms(1, plain);
        assert!(Arc::ptr_eq(&one, &terms(1, plain)));
        assert!(!Arc::ptr_eq(&one, &terms(2, plain)) && !Arc::ptr_eq(&one, &terms(1, named)));
        // All that their bytes depend on is part of their terms.
        let compressed = Speech { wire: SSE, encoding: Encoding::Gzip };
        assert!(!Arc::ptr_eq(&one, &terms(1, compressed)));
        assert_eq!(terms(1, compressed).speech, compressed);
        for token in 0..100_000 {
            drop(terms(token, plain));
            assert!(endings.state().terms.len() < 1_000 && endings.state().of_tokens.len() < 1_000);
        }
        // They end together, and are the same until then.
        endings.end(&terms(1, plain), EndOrder::spread(EndReason::Revoked, Duration::ZERO, 1));
        assert_eq!(one.ended(None).await, EndReason::Revoked);
        endings.sweep();
        assert_eq!(endings.state().of_tokens.len(), 0);
    }

    #[test]
    fn for_whom_they_are_is_not_shown() {
        let holder = Holder { subject: Some("alice".to_owned()), ..Holder::default() };
        let terms = Endings::new(None).terms(holder, SSE);
        assert!(!format!("{terms:?}").contains("alice"));
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
        let holder = Holder { expires_at: Some(expires_at), ..Holder::default() };
        let terms = endings.terms(holder, SSE);
        let limit = endings.limit(&terms).unwrap();
        assert_eq!((limit.at, limit.reason), (expires_at, EndReason::Expired));
        assert_eq!(terms.ended(Some(limit)).await, EndReason::Expired);
    }
}
