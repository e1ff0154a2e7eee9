//! [`HubTopic`]: one topic of the [`Hub`](super::Hub): its tail, and who follows it.
//!
//! Two kinds of followers: those that carry one stream wait for a [`Notify`]; a
//! [`TopicObserver`] carries many and is told once for all of them.

use std::sync::{Arc, Mutex, MutexGuard};

use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::lock;
use super::tail::{Next, Tail};
use super::worklists::{FilledAs, Worklists};
use crate::position::Position;
use crate::topic::Topic;

/// For how many rounds of audits a topic that had something new counts as active.
const ACTIVE_ROUNDS: u32 = 5;

/// Somebody who carries many streams and wants to hear of a topic once for all of them.
pub trait TopicObserver: Send + Sync + 'static {
    /// The topic that this observer knows by `key` has news. Says whether the observer sleeps and
    /// has to be [woken](TopicObserver::wake); then whoever asked must do so soon. Must not wait.
    fn topic_changed(&self, key: u32) -> bool;

    /// Wakes it.
    fn wake(&self);
}

/// One topic of the hub.
pub struct HubTopic {
    name: Topic,
    state: Mutex<TopicInner>,
    worklists: Arc<Worklists<HubTopic>>,
}

pub(super) struct TopicInner {
    /// Absent until the log was asked.
    pub(super) tail: Option<Tail>,
    pub(super) has_state: bool,
    /// The log could not be asked yet: streams are held open meanwhile.
    pub(super) waiting: bool,
    /// How often the tail was brought to where the log was.
    pub(super) refreshes: u64,
    waiters: Slab<Arc<Notify>>,
    /// At most one entry an observer.
    observers: Vec<ObserverEntry>,
    /// When the last stream left.
    pub(super) left_at: Instant,
    /// No longer in the hub: whatever still comes for it is dropped.
    pub(super) removed: bool,
    /// What the hub's ranking has of it.
    pub(super) ranked: Ranked,
    /// The rounds of audits in which it last had something new, and in which its history was last
    /// kept from expiring.
    active_in: u32,
    kept_in: u32,
    /// On which lists it is.
    pub(super) listed: Listed,
}

/// How a topic is ranked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ranked {
    pub(super) streams: usize,
    pub(super) has_state: bool,
}

/// Whether a topic is on the hub's lists, one by one.
#[derive(Default)]
pub(super) struct Listed {
    /// As what it is in `Hub::filled`.
    pub(super) filled: Option<FilledAs>,
    pub(super) changed: bool,
    pub(super) emptied: bool,
    pub(super) active: bool,
}

/// The streams of one observer in one topic.
struct ObserverEntry {
    observer: Arc<dyn TopicObserver>,
    key: u32,
    streams: usize,
}

/// A waiter of a topic; it is one no longer when this is dropped.
pub struct Joined {
    /// The topic.
    pub topic: Arc<HubTopic>,
    key: usize,
}

/// How far a topic has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicState {
    /// The log is being asked.
    Opening,
    /// The log cannot be asked now; the relay keeps trying.
    Waiting,
    /// Followed.
    Open {
        /// Whether it had a state when it was opened, or is known to have one since.
        has_state: bool,
    },
}

impl HubTopic {
    pub(super) fn new(name: Topic, worklists: Arc<Worklists<HubTopic>>) -> HubTopic {
        let round = worklists.round();
        let state = TopicInner {
            tail: None,
            has_state: false,
            waiting: false,
            refreshes: 0,
            waiters: Slab::new(),
            observers: Vec::new(),
            left_at: Instant::now(),
            removed: false,
            ranked: Ranked::default(),
            active_in: round,
            kept_in: round,
            listed: Listed::default(),
        };
        HubTopic { name, state: Mutex::new(state), worklists }
    }

    /// Its name.
    pub fn name(&self) -> &Topic {
        &self.name
    }

    /// How far it has got.
    pub fn state(&self) -> TopicState {
        let state = self.lock();
        match &state.tail {
            Some(_) => TopicState::Open { has_state: state.has_state },
            None if state.waiting => TopicState::Waiting,
            None => TopicState::Opening,
        }
    }

    /// Whether it has a state, as far as is known, and how many streams follow it now.
    pub fn kind_and_streams(&self) -> (bool, usize) {
        let state = self.lock();
        (state.has_state, state.streams())
    }

    /// Where its newest known entry is; `None` until it is open.
    pub fn head(&self) -> Option<Position> {
        self.lock().tail.as_ref().map(Tail::head)
    }

    /// Whether it has a log, as far as is known.
    pub fn is_written(&self) -> bool {
        self.head().is_some_and(|head| head.epoch.unwritten_time().is_none())
    }

    /// How often its tail was brought to where the log was then.
    pub fn refreshes(&self) -> u64 {
        self.lock().refreshes
    }

    /// What comes after a position; `None` until it is open.
    pub fn after(&self, position: Position) -> Option<Next> {
        self.lock().tail.as_ref().map(|tail| tail.after(position))
    }

    /// Whether everything that comes after a position is in the tail, or nothing comes.
    pub fn reaches(&self, position: Position) -> bool {
        self.lock().tail.as_ref().is_some_and(|tail| tail.reaches(position))
    }

    /// Whether nothing comes after a position now.
    pub fn is_head(&self, position: Position) -> bool {
        self.lock().tail.as_ref().is_some_and(|tail| tail.is_head(position))
    }

    /// Counts a waiter that is notified of news.
    pub(super) fn join(self: &Arc<HubTopic>, signal: Arc<Notify>) -> Joined {
        let mut state = self.lock();
        let key = state.waiters.insert(signal);
        self.streams_changed(&mut state);
        Joined { topic: self.clone(), key }
    }

    /// Counts one more stream of `observer`, which hears of news from now on. Returns its key for
    /// this topic: the one it gave before, or else what `new_key` makes.
    pub fn observe(
        self: &Arc<HubTopic>,
        observer: &Arc<dyn TopicObserver>,
        new_key: impl FnOnce() -> u32,
    ) -> u32 {
        let mut state = self.lock();
        let known = state.observers.iter_mut().find(|entry| Arc::ptr_eq(&entry.observer, observer));
        let key = match known {
            Some(entry) => {
                entry.streams += 1;
                entry.key
            }
            None => {
                let key = new_key();
                let entry = ObserverEntry { observer: observer.clone(), key, streams: 1 };
                state.observers.push(entry);
                key
            }
        };
        self.streams_changed(&mut state);
        key
    }

    /// Counts one stream of `observer` less.
    pub fn unobserve(self: &Arc<HubTopic>, observer: &Arc<dyn TopicObserver>) {
        let mut state = self.lock();
        let at = state.observers.iter().position(|entry| Arc::ptr_eq(&entry.observer, observer));
        let Some(at) = at else { return };
        state.observers[at].streams -= 1;
        if state.observers[at].streams == 0 {
            state.observers.swap_remove(at);
        }
        self.streams_changed(&mut state);
    }

    /// Remembers that the log cannot be asked now, and tells those who wait for it.
    pub fn set_waiting(&self) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.waiting, true) {
            wake(state);
        }
    }

    /// Remembers that the topic got a state after it was opened, or has lost the one that it had.
    pub fn set_has_state(self: &Arc<HubTopic>, has_state: bool) {
        let mut state = self.lock();
        self.note_has_state(&mut state, has_state);
    }

    pub(super) fn note_has_state(self: &Arc<HubTopic>, state: &mut TopicInner, has_state: bool) {
        state.has_state = has_state;
        self.list_changed(state);
    }

    /// Notes that the topic had something new: for a while it is audited more often than others.
    pub(super) fn note_activity(self: &Arc<HubTopic>, state: &mut TopicInner) {
        state.active_in = self.worklists.round();
        if !std::mem::replace(&mut state.listed.active, true) {
            self.worklists.active.push(self);
        }
    }

    /// Whether it had something new lately and is still in the hub; one that had not is on the list
    /// of such topics no longer.
    pub(super) fn stays_active(&self, round: u32) -> bool {
        let mut state = self.lock();
        let stays = !state.removed && round.wrapping_sub(state.active_in) <= ACTIVE_ROUNDS;
        state.listed.active = stays;
        stays
    }

    /// Whether its history was not [kept](HubTopic::set_kept) for so many rounds of audits.
    pub(crate) fn is_keep_due(&self, round: u32, rounds: u32) -> bool {
        round.wrapping_sub(self.lock().kept_in) >= rounds
    }

    /// Its history was kept from expiring in this round of audits.
    pub(crate) fn set_kept(&self, round: u32) {
        self.lock().kept_in = round;
    }

    fn streams_changed(self: &Arc<HubTopic>, state: &mut TopicInner) {
        self.list_changed(state);
        if state.streams() == 0 {
            state.left_at = Instant::now();
            if !std::mem::replace(&mut state.listed.emptied, true) {
                self.worklists.emptied.push(state.left_at, self);
            }
        }
    }

    fn list_changed(self: &Arc<HubTopic>, state: &mut TopicInner) {
        if !std::mem::replace(&mut state.listed.changed, true) {
            self.worklists.changed.push(self);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, TopicInner> {
        lock(&self.state)
    }
}

/// Observers that were told of news while they slept, and have to be woken; dropping this wakes them.
/// Each is here once: it does not count as asleep again before it has looked.
#[derive(Default)]
pub struct Asleep(Vec<Arc<dyn TopicObserver>>);

impl Drop for Asleep {
    fn drop(&mut self) {
        for observer in self.0.drain(..) {
            observer.wake();
        }
    }
}

/// Tells everybody who follows a topic that it has news.
pub(super) fn wake(state: MutexGuard<'_, TopicInner>) {
    let mut asleep = Asleep::default();
    tell(&state, &mut asleep);
    // Only now: whoever wakes up asks the topic what the news is, and would have to wait for it.
    // Other topics' news for the same observer waits as well; ten thousand waiters that are told
    // first take a millisecond or so.
    drop(state);
}

/// The same, but observers that sleep are left to be woken, and not before `state` is let go.
pub(super) fn tell(state: &TopicInner, asleep: &mut Asleep) {
    for entry in &state.observers {
        if entry.observer.topic_changed(entry.key) {
            asleep.0.push(entry.observer.clone());
        }
    }
    for (_, signal) in &state.waiters {
        signal.notify_one();
    }
}

impl TopicInner {
    /// How many streams follow the topic.
    pub(super) fn streams(&self) -> usize {
        self.waiters.len() + self.observers.iter().map(|entry| entry.streams).sum::<usize>()
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut state = self.topic.lock();
        state.waiters.remove(self.key);
        if state.waiters.is_empty() {
            // Ten thousand streams that left leave no room behind.
            state.waiters.shrink_to_fit();
        }
        self.topic.streams_changed(&mut state);
    }
}
