//! [`NodeLog`]: one node's way to the log, which is slow, fails, and loses announcements.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use fantail::entry::Event;
use fantail::log::{
    Appended, Conditions, Heads, Health, Log, LogError, Notification, Opened, Page, Probe,
    Snapshot, Snapshots,
};
use fantail::position::LogHistory;
use fantail::topic::Topic;
use tokio::sync::mpsc;

use super::FaultyLog;

/// How bad one node's network is.
#[derive(Debug, Clone)]
pub struct Faults {
    seed: u64,
    /// How often a question is slow, is not answered, and an announcement is lost.
    slow: f64,
    failing: f64,
    loss: f64,
    /// How often one that is not lost is doubled, held back or delayed, at most.
    unrest: f64,
}

impl Faults {
    pub fn random(random: &mut fastrand::Rng) -> Faults {
        Faults {
            seed: random.u64(..),
            slow: random.f64() * 0.5,
            failing: random.f64() * 0.3,
            // Some nodes are merely unlucky, to some hardly anything comes through.
            loss: random.f64(),
            unrest: 0.3,
        }
    }

    /// All is well.
    pub fn none() -> Faults {
        Faults { seed: 0, slow: 0.0, failing: 0.0, loss: 0.0, unrest: 0.0 }
    }

    /// Nothing is slow and nothing fails, but nothing is announced either.
    pub fn deaf() -> Faults {
        Faults { loss: 1.0, ..Faults::none() }
    }

    /// What comes through of what is announced.
    pub(super) fn disturb(
        &self,
        announced: mpsc::UnboundedReceiver<Notification>,
        delivered: mpsc::Sender<Notification>,
    ) -> impl Future<Output = ()> + use<> {
        disturb(announced, delivered, self.of("announcements"), self.loss, self.unrest)
    }

    /// Chances of its own for each matter, so that the order in which a node happens to look at
    /// several topics changes nothing.
    fn of(&self, matter: &str) -> fastrand::Rng {
        let mix = |seed: u64, byte| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        fastrand::Rng::with_seed(matter.bytes().fold(self.seed, mix))
    }
}

/// Passes announcements on as badly as a network and a bounded inbox can.
async fn disturb(
    mut announced: mpsc::UnboundedReceiver<Notification>,
    delivered: mpsc::Sender<Notification>,
    mut random: fastrand::Rng,
    loss: f64,
    unrest: f64,
) {
    let mut held: VecDeque<Notification> = VecDeque::new();
    while let Some(announcement) = announced.recv().await {
        let Notification::Entry(topic, frame) = announcement else {
            let _ = delivered.send(announcement).await;
            continue;
        };
        if random.f64() < loss {
            continue;
        }
        if random.f64() < unrest {
            held.push_back(Notification::Entry(topic.clone(), frame.clone()));
        }
        if random.f64() < unrest {
            held.push_back(Notification::Entry(topic, frame));
        } else {
            let _ = delivered.send(Notification::Entry(topic, frame)).await;
        }
        if random.f64() < unrest {
            tokio::time::sleep(Duration::from_millis(random.u64(0..50))).await;
        }
        while !held.is_empty() && random.f64() < 0.4 {
            let any = random.usize(..held.len());
            if let Some(late) = held.remove(any) {
                let _ = delivered.send(late).await;
            }
        }
    }
}

/// The log, as one node reaches it.
pub struct NodeLog {
    log: Arc<FaultyLog>,
    number: usize,
    faults: Faults,
    randoms: Mutex<BTreeMap<String, fastrand::Rng>>,
}

impl NodeLog {
    pub(super) fn new(log: Arc<FaultyLog>, number: usize, faults: Faults) -> NodeLog {
        NodeLog { log, number, faults, randoms: Mutex::default() }
    }

    /// Takes its time, and then perhaps fails.
    async fn suffer(&self, matter: &str) -> Result<(), LogError> {
        let (wait, fails) = {
            let mut randoms = self.randoms.lock().unwrap();
            let new = || self.faults.of(matter);
            let random = randoms.entry(matter.to_owned()).or_insert_with(new);
            let slow = random.f64() < self.faults.slow;
            let wait = if slow { random.u64(0..3_000) } else { 0 };
            (wait, random.f64() < self.faults.failing)
        };
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        if fails { Err(LogError::Unavailable("simulated".to_owned())) } else { Ok(()) }
    }

    /// An answer that is lost on the way leaves open what was done.
    async fn suffer_answer(&self, matter: &str) -> Result<(), LogError> {
        let lost = |_| LogError::OutcomeUnknown("simulated".to_owned());
        self.suffer(matter).await.map_err(lost)
    }
}

#[async_trait]
impl Log for NodeLog {
    async fn append(
        &self,
        topic: &Topic,
        events: &[Event],
        _: &Conditions,
    ) -> Result<Appended, LogError> {
        self.suffer("append").await?;
        let mut last = None;
        for event in events {
            last = Some(self.log.append(topic, event));
        }
        self.suffer_answer("append").await?;
        let last = last.ok_or(LogError::KeyReused)?;
        Ok(Appended { last, replayed: false })
    }

    async fn open(&self, topic: &Topic) -> Result<Opened, LogError> {
        // Slow on the way there, and on the way back.
        self.suffer(topic.as_str()).await?;
        let history = self.log.records(topic, |topic| {
            let history = topic.log.open(&mut topic.oracle);
            topic.note();
            history
        });
        self.suffer_answer(topic.as_str()).await?;
        Ok(Opened { history, has_state: false })
    }

    async fn read(
        &self,
        topic: &Topic,
        after: u64,
        through: u64,
    ) -> Result<Option<Page>, LogError> {
        self.suffer(topic.as_str()).await?;
        let page = self.log.records(topic, |topic| {
            let keys = &topic.log.keys;
            // Small pages, so that much takes several.
            let entries: Vec<_> = keys.entries(after, through).take(16).cloned().collect();
            let history = topic.log.history(&mut topic.oracle);
            history.map(|history| Page { history, entries })
        });
        let _ = self.log.held.subscribe().wait_for(|held| !held).await;
        self.suffer_answer(topic.as_str()).await?;
        Ok(page)
    }

    async fn history(&self, topic: &Topic) -> Result<Option<LogHistory>, LogError> {
        self.suffer(topic.as_str()).await?;
        let history = self.log.records(topic, |topic| topic.log.history(&mut topic.oracle));
        let _ = self.log.held.subscribe().wait_for(|held| !held).await;
        self.suffer_answer(topic.as_str()).await?;
        Ok(history)
    }

    async fn heads(&self, topics: &[Topic]) -> Result<Heads, LogError> {
        self.suffer("heads").await?;
        let heads = topics.iter().map(|topic| {
            self.log.records(topic, |topic| (topic.log.head(), topic.log.unwritten_since()))
        });
        let (of_topics, unwritten_since) = heads.unzip();
        self.suffer_answer("heads").await?;
        Ok(Heads { of_topics, unwritten_since })
    }

    async fn keep(&self, _: &[Topic]) -> Result<(), LogError> {
        Ok(())
    }

    async fn subscribe(&self, topics: &[Topic]) -> Result<(), LogError> {
        self.suffer("subscribe").await?;
        let _ = self.log.held.subscribe().wait_for(|held| !held).await;
        let down = {
            let mut state = self.log.state();
            let ear = &mut state.ears[self.number];
            ear.wanted.extend(topics.iter().cloned());
            if ear.up {
                ear.subscribed.extend(topics.iter().cloned());
            }
            !ear.up
        };
        if down {
            return Err(LogError::Unavailable("simulated".to_owned()));
        }
        self.suffer_answer("subscribe").await
    }

    async fn unsubscribe(&self, topics: &[Topic]) {
        let mut state = self.log.state();
        let ear = &mut state.ears[self.number];
        for topic in topics {
            ear.wanted.remove(topic);
            ear.subscribed.remove(topic);
        }
    }
}

#[async_trait]
impl Snapshots for NodeLog {
    async fn exist(&self, _: &[Topic]) -> Result<bool, LogError> {
        Ok(false)
    }

    async fn snapshot(&self, _: &Topic) -> Result<Option<Snapshot>, LogError> {
        Ok(None)
    }
}

#[async_trait]
impl Probe for NodeLog {
    async fn canary(&self) -> Result<(), LogError> {
        Ok(())
    }

    fn name(&self) -> &'static str {
        "simulated"
    }

    fn health(&self) -> Health {
        Health::Up
    }

    fn now_milliseconds(&self) -> Option<u64> {
        Some(0)
    }
}
