//! [`FaultyLog`]: one log that several nodes share and that can go back in time, behind a network
//! that is slow, fails, and loses announcements.
//!
//! Topics follow the [rules of the scripts](super::keyspace), and beside them stands what has
//! [truly](super::oracle) happened, for the judge of a simulation.

mod node_log;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use fantail::entry::{Data, Event};
use fantail::log::{Notification, Notifications};
use fantail::position::Position;
use fantail::topic::Topic;
use fantail::wire::sse;
use tokio::sync::{mpsc, watch};

use super::keyspace::Key;
use super::oracle::{LogEvent, Oracle};
use super::server::Server;
pub use node_log::{Faults, NodeLog};

/// The log, as those see it who make its weather.
pub struct FaultyLog {
    state: Mutex<State>,
    history_entries_max: usize,
    /// While it is set, what was read from the log does not arrive, and nothing is subscribed.
    held: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<Topic, Records>,
    /// What replicas have, oldest first.
    copies: VecDeque<BTreeMap<Topic, Server>>,
    ears: Vec<Ear>,
}

/// One topic, and what is known about it that no Redis knows.
pub struct Records {
    pub log: Server,
    pub oracle: Oracle,
    /// What the log was after each change: the newest entry and the oldest.
    pub states: Vec<(LogEvent, u64)>,
    /// What each entry says.
    pub data: BTreeMap<LogEvent, String>,
}

/// A node's connection for announcements.
struct Ear {
    up: bool,
    wanted: BTreeSet<Topic>,
    subscribed: BTreeSet<Topic>,
    inbox: mpsc::UnboundedSender<Notification>,
}

impl FaultyLog {
    pub fn new(history_entries_max: usize) -> Arc<FaultyLog> {
        let held = watch::Sender::new(false);
        Arc::new(FaultyLog { state: Mutex::default(), history_entries_max, held })
    }

    /// One more node: its way to the log, and what is announced to it.
    pub fn node(self: &Arc<FaultyLog>, faults: Faults) -> (NodeLog, Notifications) {
        let (inbox, announced) = mpsc::unbounded_channel();
        let (delivered, heard) = mpsc::channel(1024);
        let mut state = self.state();
        let ear = Ear { up: true, wanted: BTreeSet::new(), subscribed: BTreeSet::new(), inbox };
        state.ears.push(ear);
        tokio::spawn(faults.disturb(announced, delivered));
        (NodeLog::new(self.clone(), state.ears.len() - 1, faults), heard.into())
    }

    /// Replicas have everything now.
    pub fn replicate(&self) {
        let mut state = self.state();
        let copy = state.topics.iter().map(|(name, topic)| (name.clone(), topic.log.copy()));
        let copy = copy.collect();
        state.copies.push_back(copy);
        if state.copies.len() > 8 {
            state.copies.pop_front();
        }
    }

    /// A replica takes over, with what it had so many copies ago; with everything if there are
    /// not so many.
    pub fn fail_over(&self, copies_ago: usize) {
        let state = &mut *self.state();
        let kept = state.copies.len().saturating_sub(copies_ago);
        let copy = state.copies.get(kept).cloned();
        if copy.is_some() {
            state.copies.truncate(kept + 1);
        }
        for (name, topic) in &mut state.topics {
            match &copy {
                None => topic.log.take_over(&topic.log.copy()),
                Some(copy) => match copy.get(name) {
                    Some(copy) => topic.log.take_over(copy),
                    None => topic.log.flush(&mut topic.oracle),
                },
            }
            topic.note();
        }
        state.ears.iter_mut().for_each(Ear::cut);
    }

    /// Everything is gone.
    pub fn flush(&self) {
        for topic in self.state().topics.values_mut() {
            topic.log.flush(&mut topic.oracle);
            topic.note();
        }
    }

    /// A key is evicted.
    pub fn evict(&self, topic: &Topic, key: Key) {
        let mut state = self.state();
        if let Some(topic) = state.topics.get_mut(topic) {
            topic.log.lose(key, &mut topic.oracle);
            topic.note();
        }
    }

    /// A node's connection for announcements breaks.
    pub fn cut(&self, node: usize) {
        self.state().ears[node].cut();
    }

    /// Connections that broke are made again.
    pub fn mend(&self) {
        for ear in &mut self.state().ears {
            if !ear.up {
                ear.up = true;
                ear.subscribed = ear.wanted.clone();
                let _ = ear.inbox.send(Notification::MaybeLost);
            }
        }
    }

    /// Keeps answers of reads, and what shall be subscribed, on their way, or lets them arrive.
    pub fn hold(&self, hold: bool) {
        self.held.send_replace(hold);
    }

    /// Looks at the records of a topic, which are made if there are none.
    pub fn records<T>(&self, topic: &Topic, look: impl FnOnce(&mut Records) -> T) -> T {
        look(self.state().topic(topic))
    }

    fn append(&self, topic: &Topic, event: &Event) -> Position {
        let mut state = self.state();
        let records = state.topic(topic);
        let Records { log, oracle, .. } = records;
        let json = matches!(event.data, Data::Json(_));
        let rest = sse::event_text(event);
        let entry = log.append(oracle, self.history_entries_max, |_| 0, json, rest);
        records.data.insert(records.log.tip, event.data.text().to_owned());
        records.note();
        let frame = sse::frame(&entry);
        for ear in state.ears.iter().filter(|ear| ear.subscribed.contains(topic)) {
            let _ = ear.inbox.send(Notification::Entry(topic.clone(), frame.clone()));
        }
        entry.position
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A judge that finds something wrong panics under it.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn topic(&mut self, topic: &Topic) -> &mut Records {
        self.topics.entry(topic.clone()).or_insert_with(|| {
            let mut oracle = Oracle::default();
            let log = Server::new(oracle.anew());
            Records { log, oracle, states: Vec::new(), data: BTreeMap::new() }
        })
    }
}

impl Records {
    fn note(&mut self) {
        self.states.push((self.log.tip, self.log.oldest()));
    }
}

impl Ear {
    fn cut(&mut self) {
        self.up = false;
        self.subscribed.clear();
    }
}
