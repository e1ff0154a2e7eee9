//! Reads of the embedded log, counted, on paused time.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use super::*;
use crate::budget::BUDGET_BYTES_MAX;
use crate::entry::{Data, Event};
use crate::log::memory::MemoryLog;
use crate::log::{Appended, Conditions, Heads, Opened, Retention};

struct CountingLog {
    log: MemoryLog,
    reads: AtomicUsize,
}

#[async_trait]
impl Log for CountingLog {
    async fn append(
        &self,
        topic: &Topic,
        events: &[Event],
        conditions: &Conditions,
    ) -> Result<Appended, LogError> {
        self.log.append(topic, events, conditions).await
    }

    async fn open(&self, topic: &Topic) -> Result<Opened, LogError> {
        self.log.open(topic).await
    }

    async fn read(&self, topic: &Topic, after: u64, to: u64) -> Result<Option<Page>, LogError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.log.read(topic, after, to).await
    }

    async fn history(&self, topic: &Topic) -> Result<Option<LogHistory>, LogError> {
        self.log.history(topic).await
    }

    async fn heads(&self, topics: &[Topic]) -> Result<Heads, LogError> {
        self.log.heads(topics).await
    }

    async fn keep(&self, topics: &[Topic]) -> Result<(), LogError> {
        self.log.keep(topics).await
    }

    async fn subscribe(&self, topics: &[Topic]) -> Result<(), LogError> {
        self.log.subscribe(topics).await
    }

    async fn unsubscribe(&self, topics: &[Topic]) {
        self.log.unsubscribe(topics).await;
    }
}

#[async_trait]
impl Snapshots for CountingLog {
    async fn exist(&self, topics: &[Topic]) -> Result<bool, LogError> {
        self.log.exist(topics).await
    }

    async fn snapshot(&self, topic: &Topic) -> Result<Option<Snapshot>, LogError> {
        self.log.snapshot(topic).await
    }
}

struct World {
    log: Arc<CountingLog>,
    replays: Arc<Replays>,
}

impl World {
    fn new() -> World {
        let retention = Retention {
            history_entries_max: 1_000,
            history_bytes_max: usize::MAX,
            history_ttl: Duration::from_secs(3600),
            idempotency_window: Duration::from_secs(60),
        };
        let (log, _) = MemoryLog::new(retention);
        let log = Arc::new(CountingLog { log, reads: AtomicUsize::new(0) });
        let budget = Budget::new(BUDGET_BYTES_MAX, Duration::from_secs(60));
        let replays = Arc::new(Replays::new(log.clone(), log.clone(), budget));
        World { log, replays }
    }

    /// Appends so many entries of so many bytes, and says where the log stands.
    async fn append(&self, topic: &Topic, count: usize, bytes: usize) -> Position {
        let event = Event { event_type: None, data: Data::Text("x".repeat(bytes)) };
        let mut last = None;
        for _ in 0..count {
            let events = std::slice::from_ref(&event);
            let appended = self.log.append(topic, events, &Conditions::NONE).await.unwrap();
            last = Some(appended.last);
        }
        last.unwrap()
    }

    /// Reads one entry on, and says where the reader stands then.
    async fn read_on(&self, topic: &Topic, from: Position, head: Position) -> Position {
        let page = self.replays.after(topic, from, head).await.unwrap().unwrap();
        let frames = page::frames_after(&page.history, &page.frames, from).unwrap();
        assert_eq!(frames[0].position.seq, from.seq + 1);
        frames[0].position
    }

    fn reads(&self) -> usize {
        self.log.reads.swap(0, Ordering::Relaxed)
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_budget_for_pages_histories_are_read_all_the_same() {
    let world = World::new();
    let held = world.replays.budget().try_reserve(BUDGET_BYTES_MAX).unwrap();
    let mut waiting = Vec::new();
    for n in 0..2 * READS_MAX {
        let topic = topic(&format!("t{n}"));
        let head = world.append(&topic, 2, 10).await;
        let replays = world.replays.clone();
        let start = Position { seq: 0, epoch: head.epoch };
        waiting.push(tokio::spawn(async move { replays.after(&topic, start, head).await }));
    }
    tokio::task::yield_now().await;
    let asked = topic("t1");
    let history = world.replays.history(&asked);
    let history = tokio::time::timeout(Duration::from_secs(1), history).await.unwrap();
    assert_eq!(history.unwrap().unwrap().head, 2);
    assert_eq!(world.reads(), 0);
    drop(held);
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().unwrap().unwrap().frames.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn readers_at_different_places_of_large_entries_do_not_take_each_others_pages_away() {
    let world = World::new();
    let topic = topic("t");
    let head = world.append(&topic, 60, 300 << 10).await;
    let at = |seq| Position { seq, ..head };
    let mut readers = [at(0), at(20), at(40)];
    // Each alone, and in turn: a page has three of them.
    for _ in 0..18 {
        for reader in &mut readers {
            *reader = world.read_on(&topic, *reader, head).await;
        }
    }
    assert_eq!(readers.map(|position| position.seq), [18, 38, 58]);
    let reads = world.reads();
    assert!(reads <= 3 * 6 + 3, "{reads} reads of 3 entries for 3 x 18");
    // Who comes to a place that somebody was at takes what is there.
    world.read_on(&topic, at(1), head).await;
    world.read_on(&topic, at(47), head).await;
    assert_eq!(world.reads(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stampede_over_small_entries_is_a_read_a_page() {
    let world = World::new();
    let topic = topic("t");
    let head = world.append(&topic, 600, 100).await;
    let mut asking = Vec::new();
    for seq in (0..600).rev() {
        let (replays, topic) = (world.replays.clone(), topic.clone());
        let position = Position { seq, ..head };
        asking.push(tokio::spawn(async move {
            let page = replays.after(&topic, position, head).await.unwrap().unwrap();
            assert!(page::frames_after(&page.history, &page.frames, position).is_some());
        }));
    }
    for asked in asking {
        asked.await.unwrap();
    }
    // Who stands at the beginning of a page may have asked for it before.
    let reads = world.reads();
    assert!(reads <= 6, "{reads} reads of three pages");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asked_for_lately_goes_before_somebody_waits() {
    let world = World::new();
    let topic = topic("t");
    let head = world.append(&topic, 12, 1 << 20).await;
    for seq in 0..12 {
        tokio::time::advance(Duration::from_millis(1)).await;
        world.read_on(&topic, Position { seq, ..head }, head).await;
    }
    world.reads();
    let budget = world.replays.budget();
    assert!(budget.held() > 12 << 20);
    let held = budget.try_reserve(BUDGET_BYTES_MAX - budget.held()).unwrap();
    drop(world.replays.reserve(2 << 20).await);
    // The last are still there.
    for seq in 4..12 {
        world.read_on(&topic, Position { seq, ..head }, head).await;
    }
    assert_eq!(world.reads(), 0);
    drop(held);
}
