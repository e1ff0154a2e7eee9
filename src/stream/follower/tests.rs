//! One follower over the embedded log, on paused time.

use std::time::Duration;

use super::*;
use crate::entry::{Data, Event};
use crate::hub::Hub;
use crate::log::memory::MemoryLog;
use crate::log::{Conditions, Retention};
use crate::position::Cursor;
use crate::relay::Relay;
use crate::replay::Replays;
use crate::stream::{Endings, RequestedTopic};
use crate::topic::Topic;

const HISTORY: usize = 100;

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// A node over an embedded log that keeps [`HISTORY`] entries of a topic.
fn node() -> Arc<Node> {
    let retention = Retention {
        history_entries_max: HISTORY,
        history_ttl: Duration::from_secs(3600),
        idempotency_window: Duration::from_secs(60),
    };
    let (log, heard) = MemoryLog::new(retention);
    let log = Arc::new(log);
    let hub = Hub::new();
    let relay = Relay::new(log.clone(), hub.clone(), Duration::from_secs(3600));
    tokio::spawn(relay.clone().run(heard));
    Arc::new(Node {
        id: "node-1".to_owned(),
        heartbeat: Duration::from_secs(15),
        retry: Duration::from_secs(3),
        replays: Replays::new(log.clone(), log.clone()),
        probe: log.clone(),
        snapshots: log.clone(),
        log,
        hub,
        relay,
        history_entries_max: HISTORY as u64,
        endings: Endings::new(None),
    })
}

fn follower(node: &Arc<Node>, topics: &[&str], start: StartAt) -> Follower {
    let requested = |name: &&str| RequestedTopic { topic: topic(name), board: false };
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
    assert!(follower.legs().is_none(), "not before it is open");
    assert_eq!(opened(&mut follower).await, first.to_string());
    let legs = follower.legs().unwrap();
    assert_eq!(legs.iter().map(|leg| leg.position).collect::<Vec<_>>(), [first]);
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
    assert!(follower.legs().is_none());
    assert_eq!(seqs(&next(&mut follower).await), [2, 3, 4, 5]);
    assert_eq!(follower.legs().map(|legs| legs[0].position.seq), Some(5));
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
