//! [`FakeLog`]: a log that does as it is told, and writes down what it is asked.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::entry::{Data, Entry, Event};
use crate::log::{
    Appended, Conditions, Heads, Log, LogError, Notification, Opened, Page, READ_ENTRIES_MAX,
};
use crate::position::{Epoch, LogHistory, Position};
use crate::topic::Topic;
use crate::wire::sse;

pub(super) struct FakeLog {
    state: Mutex<State>,
    notifications: mpsc::UnboundedSender<Notification>,
    /// While it is set, what was read does not arrive, and nothing is subscribed.
    held: watch::Sender<bool>,
}

#[derive(Default)]
pub(super) struct State {
    topics: HashMap<Topic, (Epoch, Vec<Entry>)>,
    subscribed: HashSet<Topic>,
    /// Nothing is answered.
    pub(super) away: bool,
    /// How long heads take to arrive.
    pub(super) heads_take: Duration,
    pub(super) asked: Vec<(Instant, Asked)>,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Open(Topic),
    Read(Topic),
    Heads(Vec<Topic>),
    Keep(Vec<Topic>),
    Subscribe(Vec<Topic>),
    Unsubscribe(Vec<Topic>),
}

impl FakeLog {
    pub(super) fn new() -> (FakeLog, mpsc::UnboundedReceiver<Notification>) {
        let (notifications, announced) = mpsc::unbounded_channel();
        let held = watch::Sender::new(false);
        (FakeLog { state: Mutex::default(), notifications, held }, announced)
    }

    /// Appends an entry, and announces it or does not.
    pub(super) fn publish(&self, topic: &Topic, text: &str, announced: bool) -> Position {
        let mut state = self.state();
        let new = || (Epoch::random(), Vec::new());
        let (epoch, entries) = state.topics.entry(topic.clone()).or_insert_with(new);
        let position = Position { seq: entries.len() as u64 + 1, epoch: *epoch };
        let rest = sse::event_text(&Event { event_type: None, data: Data::Text(text.to_owned()) });
        let entry = Entry { position, milliseconds: 0, json: false, rest };
        let frame = sse::frame(&entry);
        entries.push(entry);
        if announced && state.subscribed.contains(topic) {
            let _ = self.notifications.send(Notification::Entry(topic.clone(), frame));
        }
        position
    }

    pub(super) fn tell(&self, notification: Notification) {
        let _ = self.notifications.send(notification);
    }

    /// A topic's log is gone.
    pub(super) fn forget(&self, topic: &Topic) {
        self.state().topics.remove(topic);
    }

    /// Keeps what was read, and what shall be subscribed, on its way, or lets it arrive.
    pub(super) fn hold(&self, hold: bool) {
        self.held.send_replace(hold);
    }

    /// What was asked since this was last called.
    pub(super) fn asked(&self) -> Vec<Asked> {
        let asked = std::mem::take(&mut self.state().asked);
        asked.into_iter().map(|(_, asked)| asked).collect()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn take(&self, asked: Asked) -> Result<MutexGuard<'_, State>, LogError> {
        let mut state = self.state();
        state.asked.push((Instant::now(), asked));
        match state.away {
            true => Err(LogError::Unavailable("away".to_owned())),
            false => Ok(state),
        }
    }

    async fn arrive(&self) {
        let _ = self.held.subscribe().wait_for(|held| !held).await;
    }
}

fn history(epoch: Epoch, entries: &[Entry]) -> LogHistory {
    let head = entries.len() as u64;
    LogHistory {
        epoch,
        past_epochs: Vec::new(),
        head,
        oldest: 1,
        deleted_through: 0,
        unwritten_since: 0,
        begun_at: 0,
    }
}

#[async_trait]
impl Log for FakeLog {
    async fn append(&self, _: &Topic, _: &[Event], _: &Conditions) -> Result<Appended, LogError> {
        unreachable!("the relay never writes")
    }

    async fn open(&self, topic: &Topic) -> Result<Opened, LogError> {
        let history = {
            let mut state = self.take(Asked::Open(topic.clone()))?;
            let new = || (Epoch::random(), Vec::new());
            let (epoch, entries) = state.topics.entry(topic.clone()).or_insert_with(new);
            history(*epoch, entries)
        };
        self.arrive().await;
        Ok(Opened { history, has_state: false })
    }

    async fn read(&self, topic: &Topic, after: u64, _: u64) -> Result<Option<Page>, LogError> {
        let page = {
            let state = self.take(Asked::Read(topic.clone()))?;
            state.topics.get(topic).map(|(epoch, entries)| {
                let read = entries.iter().skip(after as usize).take(READ_ENTRIES_MAX);
                Page { history: history(*epoch, entries), entries: read.cloned().collect() }
            })
        };
        self.arrive().await;
        Ok(page)
    }

    async fn history(&self, _: &Topic) -> Result<Option<LogHistory>, LogError> {
        unreachable!("the relay reads entries")
    }

    async fn heads(&self, topics: &[Topic]) -> Result<Heads, LogError> {
        let (heads, heads_take) = {
            let state = self.take(Asked::Heads(topics.to_vec()))?;
            let head = |topic| {
                state.topics.get(topic).map(|(epoch, entries)| (*epoch, entries.len() as u64))
            };
            (topics.iter().map(head).collect(), state.heads_take)
        };
        if !heads_take.is_zero() {
            tokio::time::sleep(heads_take).await;
        }
        Ok(Heads { of_topics: heads, unwritten_since: vec![0; topics.len()] })
    }

    async fn keep(&self, topics: &[Topic]) -> Result<(), LogError> {
        self.take(Asked::Keep(topics.to_vec())).map(drop)
    }

    async fn subscribe(&self, topics: &[Topic]) -> Result<(), LogError> {
        drop(self.take(Asked::Subscribe(topics.to_vec()))?);
        self.arrive().await;
        self.state().subscribed.extend(topics.iter().cloned());
        Ok(())
    }

    async fn unsubscribe(&self, topics: &[Topic]) {
        if let Ok(mut state) = self.take(Asked::Unsubscribe(topics.to_vec())) {
            state.subscribed.retain(|topic| !topics.contains(topic));
        }
    }
}
