//! [`FaultyLog`]: the embedded log, answered slowly and sometimes not at all.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use fantail::board::{BoardSummary, Command};
use fantail::entry::Event;
use fantail::log::memory::MemoryLog;
use fantail::log::{
    Appended, Changed, Conditions, EventLog, Health, LogError, Opened, Page, Snapshot,
};
use fantail::position::Epoch;
use fantail::topic::Topic;

/// A log between which and its users lies a bad network. Writes are left alone: what the
/// simulation checks is delivery.
pub struct FaultyLog {
    inner: MemoryLog,
    random: Mutex<fastrand::Rng>,
    /// How often a read is slow, and how often it fails.
    slow: f64,
    failing: f64,
}

impl FaultyLog {
    pub fn new(inner: MemoryLog, mut random: fastrand::Rng) -> FaultyLog {
        let (slow, failing) = (random.f64() * 0.5, random.f64() * 0.3);
        FaultyLog { inner, random: Mutex::new(random), slow, failing }
    }

    /// Takes its time, and then perhaps fails.
    async fn suffer(&self) -> Result<(), LogError> {
        let (wait, fails) = {
            let mut random = self.random.lock().unwrap();
            let slow = random.f64() < self.slow;
            let wait = if slow { random.u64(0..3_000) } else { 0 };
            (Duration::from_millis(wait), random.f64() < self.failing)
        };
        tokio::time::sleep(wait).await;
        if fails { Err(LogError::Unavailable("simulated".to_owned())) } else { Ok(()) }
    }
}

#[async_trait]
impl EventLog for FaultyLog {
    async fn append(
        &self,
        topic: &Topic,
        events: &[Event],
        conditions: &Conditions,
    ) -> Result<Appended, LogError> {
        self.inner.append(topic, events, conditions).await
    }

    async fn change(&self, command: Command, conditions: &Conditions) -> Result<Changed, LogError> {
        self.inner.change(command, conditions).await
    }

    async fn open(&self, topic: &Topic) -> Result<Opened, LogError> {
        // Slow on the way there, and on the way back.
        self.suffer().await?;
        let opened = self.inner.open(topic).await;
        self.suffer().await?;
        opened
    }

    async fn have_boards(&self, boards: &[Topic]) -> Result<bool, LogError> {
        self.inner.have_boards(boards).await
    }

    async fn read(
        &self,
        topic: &Topic,
        after: u64,
        through: u64,
    ) -> Result<Option<Page>, LogError> {
        self.suffer().await?;
        let page = self.inner.read(topic, after, through).await;
        self.suffer().await?;
        page
    }

    async fn heads(&self, topics: &[Topic]) -> Result<Vec<Option<(Epoch, u64)>>, LogError> {
        self.suffer().await?;
        let heads = self.inner.heads(topics).await;
        self.suffer().await?;
        heads
    }

    async fn keep(&self, topics: &[Topic]) -> Result<(), LogError> {
        self.inner.keep(topics).await
    }

    async fn subscribe(&self, topics: &[Topic]) -> Result<(), LogError> {
        self.suffer().await?;
        self.inner.subscribe(topics).await
    }

    async fn unsubscribe(&self, topics: &[Topic]) {
        self.inner.unsubscribe(topics).await;
    }

    async fn boards(&self) -> Result<Vec<BoardSummary>, LogError> {
        self.inner.boards().await
    }

    async fn board(&self, board: &Topic) -> Result<Snapshot, LogError> {
        self.inner.board(board).await
    }

    async fn ensure_first_board(&self) -> Result<(), LogError> {
        self.suffer().await?;
        self.inner.ensure_first_board().await
    }

    async fn canary(&self) -> Result<(), LogError> {
        self.inner.canary().await
    }

    async fn report(&self, node: &str, report: &str) -> Result<(), LogError> {
        self.inner.report(node, report).await
    }

    async fn reports(&self) -> Result<Vec<(String, String)>, LogError> {
        self.inner.reports().await
    }

    async fn withdraw(&self, node: &str) {
        self.inner.withdraw(node).await;
    }

    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn health(&self) -> Health {
        self.inner.health()
    }

    fn now_milliseconds(&self) -> Option<u64> {
        self.inner.now_milliseconds()
    }
}
