//! One follower over the embedded log, on paused time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::*;
use crate::budget::{BUDGET_BYTES_MAX, Budget};
use crate::entry::{Data, Event};
use crate::hub::Hub;
use crate::log::memory::MemoryLog;
use crate::log::{Appended, Conditions, Heads, Log, Opened, Page, Retention};
use crate::position::{Cursor, Epoch};
use crate::relay::Relay;
use crate::replay::Replays;
use crate::stream::{Endings, RequestedTopic};
use crate::topic::Topic;

const HISTORY: usize = 100;

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// An embedded log of which the topic `sick` can be opened and written, and not read.
struct SickLog {
    log: Arc<MemoryLog>,
    reads: AtomicUsize,
}

impl SickLog {
    fn check(&self, topic: &Topic) -> Result<(), LogError> {
        if topic.as_str() == "sick" {
            self.reads.fetch_add(1, Ordering::Relaxed);
            return Err(LogError::Unavailable("sick".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl Log for SickLog {
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

    async fn read(
        &self,
        topic: &Topic,
        after: u64,
        through: u64,
    ) -> Result<Option<Page>, LogError> {
        self.check(topic)?;
        self.log.read(topic, after, through).await
    }

    async fn history(&self, topic: &Topic) -> Result<Option<LogHistory>, LogError> {
        self.check(topic)?;
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

/// A node over an embedded log that keeps [`HISTORY`] entries of a topic.
fn node() -> Arc<Node> {
    node_and_log().0
}

fn node_and_log() -> (Arc<Node>, Arc<SickLog>) {
    let retention = Retention {
        history_entries_max: HISTORY,
        history_bytes_max: usize::MAX,
        history_ttl: Duration::from_secs(3600),
        idempotency_window: Duration::from_secs(60),
    };
    let (memory, heard) = MemoryLog::new(retention);
    let memory = Arc::new(memory);
    let log = Arc::new(SickLog { log: memory.clone(), reads: AtomicUsize::new(0) });
    let hub = Hub::new();
    let relay = Relay::new(log.clone(), hub.clone(), Duration::from_secs(3600));
    tokio::spawn(relay.clone().run(heard));
    let node = Node {
        id: "node-1".to_owned(),
        heartbeat: Duration::from_secs(15),
        retry: Duration::from_secs(3),
        replays: Replays::new(
            log.clone(),
            memory.clone(),
            Budget::new(BUDGET_BYTES_MAX, Duration::from_secs(60)),
        ),
        probe: memory.clone(),
        snapshots: memory,
        log: log.clone(),
        hub,
        relay,
        history_entries_max: HISTORY as u64,
        endings: Endings::new(None),
    };
    (Arc::new(node), log)
}

fn follower(node: &Arc<Node>, topics: &[&str], start: StartAt) -> Follower {
    let requested = |name: &&str| RequestedTopic { topic: topic(name), must_have_state: false };
    let topics = topics.iter().map(requested).collect();
    let request = Request { topics, start, snapshot: false, named_connected: false };
    Follower::new(node.clone(), &request)
}

fn resume(text: &str, topics: &[&str]) -> StartAt {
    let topics: Vec<Topic> = topics.iter().map(|name| topic(name)).collect();
    StartAt::Resume(Cursor::read(text, &topics))
}

async fn publish(node: &Node, name: &str, text: &str) -> Position {
    let event = Event { event_type: None, data: Data::Text(text.to_owned()) };
    node.log.append(&topic(name), &[event], &Conditions::NONE).await.unwrap().last
}

/// What it says next.
async fn next(follower: &mut Follower) -> Vec<Said> {
    assert!(follower.advance().await);
    follower.take_said()
}

/// The retry and the opening; the cursor that the latter tells.
async fn opened(follower: &mut Follower) -> String {
    assert!(matches!(next(follower).await.as_slice(), [Said::Retry(_)]));
    match next(follower).await.as_slice() {
        [Said::Opened { cursor, .. }] => cursor.clone(),
        said => panic!("{said:?}"),
    }
}

/// The seqs of entries.
fn seqs(said: &[Said]) -> Vec<u64> {
    let seq = |said: &Said| match said {
        Said::Entry { frame, .. } => frame.position.seq,
        said => panic!("{said:?}"),
    };
    said.iter().map(seq).collect()
}

#[tokio::test(start_paused = true)]
async fn it_opens_where_the_log_is_and_says_what_comes_then() {
    let node = node();
    let first = publish(&node, "t", "before").await;
    let mut follower = follower(&node, &["t"], StartAt::Now);
    assert!(follower.places().is_none(), "not before it is open");
    assert_eq!(opened(&mut follower).await, first.to_string());
    let places = follower.places().unwrap();
    assert_eq!(places.iter().map(|place| place.position).collect::<Vec<_>>(), [first]);
    publish(&node, "t", "after").await;
    assert_eq!(seqs(&next(&mut follower).await), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_one_has_caught_up_only_when_it_has_said_everything() {
    let node = node();
    let first = publish(&node, "t", "1").await;
    for n in 2..=5 {
        publish(&node, "t", &n.to_string()).await;
    }
    let mut follower = follower(&node, &["t"], resume(&first.to_string(), &["t"]));
    assert_eq!(opened(&mut follower).await, first.to_string());
    assert!(follower.places().is_none());
    assert_eq!(seqs(&next(&mut follower).await), [2, 3, 4, 5]);
    assert_eq!(follower.places().map(|places| places[0].position.seq), Some(5));
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_to_the_head_has_caught_up_although_another_epoch_began() {
    let node = node();
    let last = publish(&node, "t", "1").await;
    let mut before = follower(&node, &["t"], StartAt::Now);
    assert_eq!(opened(&mut before).await, last.to_string());
    // Another server has taken over, and nobody has published since.
    let past_epochs = vec![(last.epoch, last.seq)];
    let epoch = Epoch::random();
    let history = LogHistory {
        epoch,
        past_epochs,
        head: last.seq,
        oldest: 1,
        unwritten_since: 0,
        begun_at: 0,
        deleted_through: 0,
    };
    node.hub.open(&node.hub.get(&topic("t")).unwrap(), history, false);
    let mut back = follower(&node, &["t"], resume(&last.to_string(), &["t"]));
    assert_eq!(opened(&mut back).await, last.to_string());
    assert_eq!(back.places().map(|places| places[0].position), Some(last));
    // One that has seen what the other server never had goes on asking.
    let ahead = Position { seq: last.seq + 1, ..last };
    let mut ahead = follower(&node, &["t"], resume(&ahead.to_string(), &["t"]));
    opened(&mut ahead).await;
    assert!(ahead.places().is_none());
}

#[tokio::test(start_paused = true)]
async fn one_batch_is_said_at_a_time() {
    let node = node();
    let start = publish(&node, "t", "1").await;
    for _ in 0..40 {
        publish(&node, "t", &"x".repeat(10_000)).await;
    }
    let mut follower = follower(&node, &["t"], resume(&start.to_string(), &["t"]));
    opened(&mut follower).await;
    let mut all = Vec::new();
    while all.len() < 40 {
        let said = next(&mut follower).await;
        assert!(said.len() <= 1 + BATCH_BYTES_MAX / 10_000, "{} at once", said.len());
        all.extend(seqs(&said));
    }
    assert_eq!(all, (2..=41).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_continued_is_told_once_and_then_what_is_retained() {
    let node = node();
    let first = publish(&node, "t", "1").await;
    for n in 2..=(HISTORY + 5) {
        publish(&node, "t", &n.to_string()).await;
    }
    for (text, reason) in [
        (first.to_string(), ResetReason::Trimmed),
        ("3-zzzz".to_owned(), ResetReason::Lost),
        ("no position".to_owned(), ResetReason::Unreadable),
    ] {
        let mut follower = follower(&node, &["t"], resume(&text, &["t"]));
        assert_eq!(opened(&mut follower).await, text);
        match next(&mut follower).await.as_slice() {
            [Said::Reset { reset, cursor: Some(cursor) }] => {
                assert_eq!((reset.reason, &reset.from), (reason, &text));
                assert!(cursor.starts_with("5-"), "{cursor}");
            }
            said => panic!("{said:?}"),
        }
        assert_eq!(seqs(&next(&mut follower).await)[0], 6);
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_topics_each_moves_by_itself_and_a_busy_one_starves_none() {
    let node = node();
    let mut follower = follower(&node, &["busy", "quiet"], StartAt::Now);
    opened(&mut follower).await;
    for n in 0..50 {
        publish(&node, "busy", &format!("{n}{}", "x".repeat(10_000))).await;
    }
    publish(&node, "quiet", "heard").await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    next(&mut follower).await;
    let second = next(&mut follower).await;
    match second.as_slice() {
        [Said::Entry { cursor: Some(cursor), .. }] => {
            let topics = [topic("busy"), topic("quiet")];
            let cursor = Cursor::read(cursor, &topics);
            let Some(ResumePoint::Position(quiet)) = cursor.resume_point(&topics[1]) else {
                panic!("{cursor:?}");
            };
            assert_eq!(quiet.seq, 1);
        }
        said => panic!("{said:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_cannot_be_read_delays_no_other_of_its_stream() {
    let (node, log) = node_and_log();
    let topics = ["sick", "well"];
    let begin = Position { seq: 0, epoch: publish(&node, "sick", "1").await.epoch };
    let well = publish(&node, "well", "1").await;
    let places = [(&topic("sick"), begin), (&topic("well"), well)];
    let start = resume(&write_cursor(places.into_iter()), &topics);
    let mut follower = follower(&node, &topics, start);
    opened(&mut follower).await;
    let began_at = Instant::now();
    for n in 2..100 {
        let later = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            publish(&node, "well", &n.to_string()).await;
            Instant::now()
        };
        let (said, published_at) = tokio::join!(next(&mut follower), later);
        assert_eq!(seqs(&said), [n]);
        assert!(published_at.elapsed() < Duration::from_millis(10), "entry {n} was late");
    }
    // Nor is the log asked again for each of them.
    let reads = log.reads.load(Ordering::Relaxed);
    assert!(began_at.elapsed() > Duration::from_millis(900));
    assert!((2..6).contains(&reads), "{reads} reads");
}

#[tokio::test(start_paused = true)]
async fn who_was_reset_is_handed_on_only_when_it_has_what_the_log_had_then() {
    let node = node();
    for n in 1..=(HISTORY + 5) {
        publish(&node, "t", &n.to_string()).await;
    }
    let mut follower = follower(&node, &["t"], resume("3-zzzz", &["t"]));
    opened(&mut follower).await;
    assert!(matches!(next(&mut follower).await.as_slice(), [Said::Reset { .. }]));
    let mut last = 5;
    while last < HISTORY as u64 + 5 {
        assert!(follower.places().is_none(), "whoever asks for it then knows of no reset");
        last = *seqs(&next(&mut follower).await).last().unwrap();
    }
    assert!(follower.places().is_some());
}

#[tokio::test(start_paused = true)]
async fn dropped_at_any_await_it_has_said_and_forgotten_nothing() {
    let node = node();
    let start = publish(&node, "t", "1").await;
    for n in 2..=20 {
        publish(&node, "t", &n.to_string()).await;
    }
    let mut follower = follower(&node, &["t"], resume(&start.to_string(), &["t"]));
    let mut all = Vec::new();
    while all.len() < 19 {
        // Each poll gets no further than its first wait.
        let polled = tokio::time::timeout(Duration::ZERO, follower.advance()).await;
        if polled.is_ok() {
            for said in follower.take_said() {
                if let Said::Entry { frame, .. } = said {
                    all.push(frame.position.seq);
                }
            }
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(all, (2..=20).collect::<Vec<_>>());
}
