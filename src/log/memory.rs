//! The embedded log: everything in this process's memory, for one node.
//!
//! It keeps every promise of [`Log`] except outliving the process, so that one command shows
//! Fantail working and tests run against a real log without Redis. All state stands behind one
//! lock, which makes each step as atomic as a Redis script.

mod boards;
mod catalogue;
mod forgotten;
mod idempotency;
mod revocations;
mod tickets;
mod topics;

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Appended, Conditions, Heads, Health, Log, LogError, Notifications, Notifier, Opened, Page,
    Probe, Published, Registry, Retention, StatsUpdate,
};
use crate::entry::Event;
use crate::position::{LogHistory, Position};
use crate::topic::Topic;
use boards::BoardStates;
use idempotency::{IdempotencyCache, StoredResult};
use tickets::Tickets;
use topics::{Lifetime, StoredEntry, TopicLog, Topics};

/// A log in memory.
pub struct MemoryLog {
    state: Mutex<State>,
    notifier: Notifier,
}

struct State {
    topics: Topics,
    boards: BoardStates,
    subscribed: HashSet<Topic>,
    results: IdempotencyCache,
    tickets: Tickets,
}

impl MemoryLog {
    /// An empty log, and where it announces what is appended.
    pub fn new(retention: Retention) -> (MemoryLog, Notifications) {
        let (notifier, notifications) = Notifier::new();
        let state = State {
            topics: Topics::new(&retention),
            boards: BoardStates::default(),
            subscribed: HashSet::new(),
            results: IdempotencyCache::new(retention.idempotency_window),
            tickets: Tickets::default(),
        };
        (MemoryLog { state: Mutex::new(state), notifier }, notifications)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half-way through a change that matters to others.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends under the lock, so that announcements leave in log order.
    fn append_to(&self, state: &mut State, topic: &Topic, event: &Event) -> Position {
        let lifetime = state.lifetime(topic);
        let frame = state.topics.append(topic, lifetime, event);
        let position = frame.position;
        if state.subscribed.contains(topic) {
            self.notifier.notify(topic.clone(), frame);
        }
        state.make_room(topic);
        position
    }
}

impl State {
    /// A topic as a subscriber finds it.
    fn history(&mut self, topic: &Topic) -> LogHistory {
        let lifetime = self.lifetime(topic);
        // A board has a log from the beginning, which lives as long.
        if lifetime == Lifetime::Forever {
            self.topics.open(topic, lifetime);
        }
        self.topics.history(topic, lifetime)
    }

    /// Finds a topic's log, or makes it.
    fn open(&mut self, topic: &Topic) -> &mut TopicLog {
        let lifetime = self.lifetime(topic);
        self.topics.open(topic, lifetime)
    }

    /// A topic's log, if there is one.
    fn get(&mut self, topic: &Topic) -> Option<&TopicLog> {
        let lifetime = self.lifetime(topic);
        self.topics.get(topic, lifetime)
    }

    fn lifetime(&self, topic: &Topic) -> Lifetime {
        if self.boards.contain(topic) { Lifetime::Forever } else { Lifetime::UntilIdle }
    }

    fn make_room(&mut self, current: &Topic) {
        if self.topics.are_too_large() {
            let (subscribed, boards) = (&self.subscribed, &self.boards);
            let watched = |topic: &Topic| subscribed.contains(topic) || boards.contain(topic);
            self.topics.make_room(current, watched);
        }
    }

    /// Whether the head is where the request wants it.
    fn check_head(&mut self, topic: &Topic, conditions: &Conditions) -> Result<(), LogError> {
        let Some(position) = conditions.if_match else { return Ok(()) };
        let history = self.history(topic);
        match history.is_head(position) {
            true => Ok(()),
            false => Err(LogError::PreconditionFailed(history.at(history.head))),
        }
    }

    /// What the request was answered before, if it was.
    fn stored_result(
        &mut self,
        topic: &Topic,
        request: &impl Hash,
        conditions: &Conditions,
    ) -> Result<Option<StoredResult>, LogError> {
        let Some(key) = &conditions.idempotency_key else { return Ok(None) };
        self.results.find(&(topic.clone(), key.clone()), request)
    }

    /// Keeps what the request is answered, if it has an idempotency key.
    fn store_result(
        &mut self,
        topic: &Topic,
        request: &impl Hash,
        conditions: &Conditions,
        position: Position,
        answer: Bytes,
    ) {
        if let Some(key) = &conditions.idempotency_key {
            self.results.store((topic.clone(), key.clone()), request, position, answer);
        }
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn append(
        &self,
        topic: &Topic,
        events: &[Event],
        conditions: &Conditions,
    ) -> Result<Appended, LogError> {
        let state = &mut *self.state();
        if let Some(stored) = state.stored_result(topic, &events, conditions)? {
            return Ok(Appended { last: stored.position, replayed: true });
        }
        if state.boards.contain(topic) && boards::are_of_board(events) {
            return Err(LogError::ReservedEventType);
        }
        state.check_head(topic, conditions)?;
        let mut last = state.open(topic).head();
        for event in events {
            last = self.append_to(state, topic, event);
        }
        state.store_result(topic, &events, conditions, last, Bytes::new());
        Ok(Appended { last, replayed: false })
    }

    async fn open(&self, topic: &Topic) -> Result<Opened, LogError> {
        let mut state = self.state();
        state.make_room(topic);
        let has_state = state.boards.contain(topic);
        Ok(Opened { history: state.history(topic), has_state })
    }

    async fn read(
        &self,
        topic: &Topic,
        after: u64,
        through: u64,
    ) -> Result<Option<Page>, LogError> {
        let (history, entries) = {
            let mut state = self.state();
            match state.get(topic) {
                Some(log) => (log.history(), log.entries(after, through)),
                None => (state.history(topic), Vec::new()),
            }
        };
        // Copied after the lock was let go.
        let entries = entries.iter().map(StoredEntry::entry).collect();
        Ok(Some(Page { history, entries }))
    }

    async fn history(&self, topic: &Topic) -> Result<Option<LogHistory>, LogError> {
        let mut state = self.state();
        let history = state.get(topic).map(TopicLog::history);
        Ok(Some(history.unwrap_or_else(|| state.history(topic))))
    }

    async fn heads(&self, topics: &[Topic]) -> Result<Heads, LogError> {
        let state = self.state();
        let of_topics = topics.iter().map(|topic| state.topics.head(topic)).collect();
        let unwritten_since = vec![state.topics.unwritten_since(); topics.len()];
        Ok(Heads { of_topics, unwritten_since })
    }

    async fn keep(&self, topics: &[Topic]) -> Result<(), LogError> {
        let mut state = self.state();
        topics.iter().for_each(|topic| state.topics.keep(topic));
        Ok(())
    }

    async fn subscribe(&self, topics: &[Topic]) -> Result<(), LogError> {
        self.state().subscribed.extend(topics.iter().cloned());
        Ok(())
    }

    async fn unsubscribe(&self, topics: &[Topic]) {
        let mut state = self.state();
        for topic in topics {
            state.subscribed.remove(topic);
        }
    }
}

/// There is one node.
#[async_trait]
impl Registry for MemoryLog {
    async fn publish_stats(&self, _: &str, _: &StatsUpdate) -> Result<Published, LogError> {
        Ok(Published::Taken)
    }

    async fn cluster_stats(
        &self,
        _: &str,
        _: &HashMap<String, u64>,
    ) -> Result<Vec<(String, StatsUpdate)>, LogError> {
        Ok(Vec::new())
    }

    async fn remove_stats(&self, _: &str) {}
}

#[async_trait]
impl Probe for MemoryLog {
    async fn canary(&self) -> Result<(), LogError> {
        Ok(())
    }

    fn health(&self) -> Health {
        Health::Up
    }

    fn name(&self) -> &'static str {
        "embedded"
    }

    fn now_milliseconds(&self) -> Option<u64> {
        Some(forgotten::milliseconds())
    }
}
