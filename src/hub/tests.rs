use std::sync::atomic::{AtomicBool, AtomicU64};

use bytes::Bytes;

use super::tail::TAIL_FRAMES_MAX;
use super::*;
use crate::entry::Entry;
use crate::frame::digest::Digest;
use crate::frame::pieces::Piece;
use crate::hub::tail::Next;
use crate::position::{Epoch, Position};
use crate::wire::sse;

/// Counts what it is told, and sleeps or does not.
#[derive(Default)]
struct CountingObserver {
    sleeps: AtomicBool,
    told: AtomicU64,
    woken: AtomicU64,
}

impl TopicObserver for CountingObserver {
    fn topic_changed(&self, _: u32) -> bool {
        self.told.fetch_add(1, Ordering::Relaxed);
        self.sleeps.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        self.woken.fetch_add(1, Ordering::Relaxed);
    }
}

impl CountingObserver {
    fn counts(&self) -> (u64, u64) {
        (self.told.load(Ordering::Relaxed), self.woken.load(Ordering::Relaxed))
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn epoch() -> Epoch {
    "e000".parse().unwrap()
}

fn history(head: u64) -> LogHistory {
    LogHistory {
        epoch: epoch(),
        past_epochs: Vec::new(),
        head,
        oldest: 1,
        unwritten_since: 0,
        begun_at: 0,
        deleted_through: 0,
    }
}

fn frame(seq: u64, bytes: usize) -> Frame {
    let position = Position { seq, epoch: epoch() };
    let rest = format!("data: {}\n\n", "x".repeat(bytes)).into();
    sse::frame(&Entry { position, milliseconds: 0, json: false, rest })
}

fn names(topics: &[(Topic, usize)]) -> Vec<&str> {
    topics.iter().map(|(topic, _)| topic.as_str()).collect()
}

#[test]
fn the_topics_that_most_streams_follow_come_first() {
    let hub = Hub::new();
    let observer: Arc<dyn TopicObserver> = Arc::new(CountingObserver::default());
    let mut joined = Vec::new();
    for (name, waiters, observed) in [("a", 1, 0), ("b", 1, 5), ("c", 3, 0), ("d", 2, 2)] {
        for _ in 0..waiters {
            joined.push(hub.join(&topic(name), Arc::default()));
        }
        for _ in 0..observed {
            joined[joined.len() - 1].topic.observe(&observer, || 0);
        }
    }
    while hub.rank(3) {}
    let largest = hub.largest(9);
    assert_eq!(names(&largest.topics.plain), ["b", "d", "c", "a"]);
    assert_eq!(largest.topics.plain[0].1, 6);
    assert_eq!((largest.counts.plain, largest.counts.with_state), (4, 0));

    let busiest = hub.get(&topic("b")).unwrap();
    for _ in 0..5 {
        busiest.unobserve(&observer);
    }
    hub.get(&topic("c")).unwrap().set_has_state(true);
    assert_eq!(hub.ranking_changes(), largest.changes, "nothing is ranked by itself");
    while hub.rank(3) {}
    let largest = hub.largest(2);
    assert_eq!(names(&largest.topics.plain), ["d", "a"]);
    assert_eq!(names(&largest.topics.with_state), ["c"]);
    assert_eq!(largest.counts.plain, 3);
    assert!(!hub.rank(3), "nothing changed since");
}

#[test]
fn an_observer_is_told_once_for_all_its_streams_and_woken_if_it_sleeps() {
    let hub = Hub::new();
    let counting = Arc::new(CountingObserver::default());
    let observer: Arc<dyn TopicObserver> = counting.clone();
    let joined = hub.join(&topic("t"), Arc::default());
    let keys: Vec<u32> = (7..10).map(|key| joined.topic.observe(&observer, || key)).collect();
    assert_eq!(keys, [7, 7, 7], "it keeps the key that it gave first");
    hub.open(&joined.topic, history(0), false);
    assert_eq!(counting.counts(), (1, 0));
    counting.sleeps.store(true, Ordering::Relaxed);
    assert_eq!(hub.push_announced(&joined.topic, frame(1, 1)), Some(Pushed::Appended));
    assert_eq!(counting.counts(), (2, 1));
    // Known already: no news.
    assert_eq!(hub.push_announced(&joined.topic, frame(1, 1)), Some(Pushed::Known));
    assert_eq!(counting.counts(), (2, 1));
    for _ in 0..3 {
        joined.topic.unobserve(&observer);
    }
    hub.push_announced(&joined.topic, frame(2, 1));
    assert_eq!(counting.counts(), (2, 1), "it has no streams there");
    // Another time, another key.
    assert_eq!(joined.topic.observe(&observer, || 11), 11);
}

#[test]
fn all_tails_together_stay_within_their_bound() {
    const TOPICS: usize = 800;
    let hub = Hub::new();
    let entry = frame(1, 1 << 20);
    let joined: Vec<Joined> = (0..TOPICS)
        .map(|n| hub.join(&topic(&format!("t{n}")), Arc::default()))
        .inspect(|joined| {
            hub.open(&joined.topic, history(0), false);
            hub.push_announced(&joined.topic, entry.clone());
            assert!(hub.tails_bytes.load(Ordering::Relaxed) <= TAILS_BYTES_MAX);
        })
        .collect();
    let held = joined.iter().map(|joined| joined.topic.lock().tail.as_ref().unwrap().bytes());
    let held: Vec<usize> = held.collect();
    assert_eq!(held.iter().sum::<usize>(), hub.tails_bytes.load(Ordering::Relaxed));
    let full = TAILS_BYTES_MAX / entry.memory();
    let is_full = |bytes: &&usize| **bytes > 0;
    assert_eq!(held.iter().filter(is_full).count(), full);
    assert_eq!(held.iter().rev().take_while(is_full).count(), full, "the last to be filled");
    // Readers of the others go to the log, and lose nothing.
    let start = Position { seq: 0, epoch: epoch() };
    assert_eq!(joined[0].topic.after(start), Some(Next::Behind));
    // One that was emptied takes what comes next.
    assert_eq!(hub.push_announced(&joined[0].topic, frame(2, 9)), Some(Pushed::Appended));
    let first = Position { seq: 1, epoch: epoch() };
    assert!(matches!(joined[0].topic.after(first), Some(Next::Frames(_))));
    assert!(hub.tails_bytes.load(Ordering::Relaxed) <= TAILS_BYTES_MAX);
}

#[test]
fn what_is_made_of_entries_and_the_entries_have_one_sum() {
    let hub = Hub::keeping_pieces();
    let entry = frame(1, 900 << 10);
    let start = Position { seq: 0, epoch: epoch() };
    let (mut most_tails, mut most_pieces) = (0, 0);
    let mut all = Vec::new();
    for n in 0..300 {
        let joined = hub.join(&topic(&format!("t{n}")), Arc::default());
        hub.open(&joined.topic, history(0), false);
        hub.push_announced(&joined.topic, entry.clone());
        // First none is compressed, then all are, worse and worse.
        let Some(Next::Frames(frames)) = joined.topic.after(start) else { panic!("it was pushed") };
        let pieces = frames[0].pieces().unwrap();
        for encoding in 0..if n < 100 { 0 } else { 3 } {
            let chunk = Bytes::from(vec![0; (100 + n) << 10]);
            let end = chunk.len();
            let piece = Piece::new(chunk, 0..end, end, Digest::EMPTY, Digest::EMPTY);
            pieces.get_or_make(encoding, || Some(piece));
        }
        let tails = hub.tails_bytes.load(Ordering::Relaxed);
        let pieces = hub.pieces.as_ref().unwrap().bytes();
        assert!(tails <= TAILS_BYTES_MAX - PIECES_BYTES_MAX && pieces <= PIECES_BYTES_MAX);
        (most_tails, most_pieces) = (most_tails.max(tails), most_pieces.max(pieces));
        all.push(joined);
    }
    assert!(most_tails > (TAILS_BYTES_MAX - PIECES_BYTES_MAX) * 9 / 10, "{most_tails}");
    assert!(most_pieces > PIECES_BYTES_MAX / 2, "{most_pieces}");
}

#[test]
fn a_tail_of_tiny_entries_counts_as_the_memory_it_takes() {
    let hub = Hub::new();
    let joined = hub.join(&topic("t"), Arc::default());
    hub.open(&joined.topic, history(0), false);
    for seq in 1..=TAIL_FRAMES_MAX as u64 {
        hub.push_announced(&joined.topic, frame(seq, 1));
    }
    let one = size_of::<Frame>() + frame(1, 1).chunk().len();
    let counted = hub.tails_bytes.load(Ordering::Relaxed);
    assert!(counted > TAIL_FRAMES_MAX * one, "{counted} for {TAIL_FRAMES_MAX} times {one}");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_nobody_follows_is_removed_after_a_while() {
    let hub = Hub::new();
    let mut joined: Vec<Joined> =
        ["a", "b", "c"].map(|name| hub.join(&topic(name), Arc::default())).into();
    hub.open(&joined[0].topic, history(0), false);
    hub.push_announced(&joined[0].topic, frame(1, 1_000));
    let first = joined[0].topic.clone();
    while hub.rank(9) {}
    tokio::time::advance(TOPIC_LINGER * 2).await;
    assert_eq!(hub.sweep(9).count, 0, "all are followed");

    joined.clear();
    tokio::time::advance(TOPIC_LINGER / 2).await;
    assert_eq!(hub.sweep(9).count, 0, "it is too soon");
    // One has somebody again, one had somebody for a moment.
    let again = hub.join(&topic("b"), Arc::default());
    drop(hub.join(&topic("c"), Arc::default()));
    tokio::time::advance(TOPIC_LINGER / 2).await;
    assert_eq!(hub.sweep(9).removed, [topic("a")]);
    assert_eq!((hub.count(), hub.tails_bytes.load(Ordering::Relaxed)), (2, 0));
    assert_eq!(hub.largest(9).counts.plain, 2);
    assert_eq!(hub.push_announced(&first, frame(2, 1)), None, "it is no more");
    hub.open(&first, history(2), false);
    assert_eq!(first.head(), None);

    tokio::time::advance(TOPIC_LINGER / 2).await;
    assert_eq!(hub.sweep(9).removed, [topic("c")]);
    drop(again);
    tokio::time::advance(TOPIC_LINGER).await;
    assert_eq!(hub.sweep(9).removed, [topic("b")]);
    assert_eq!((hub.count(), hub.sweep(9).count), (0, 0));
    while hub.rank(9) {}
    assert_eq!(hub.largest(9).counts.plain, 0);
}

#[tokio::test(start_paused = true)]
async fn topics_that_come_and_go_with_their_entries_leave_nothing_behind() {
    let hub = Hub::new();
    for n in 0..1_000 {
        let joined = hub.join(&topic(&format!("session-{n}")), Arc::default());
        hub.open(&joined.topic, history(0), false);
        hub.push_announced(&joined.topic, frame(1, 10));
        drop(joined);
        tokio::time::advance(TOPIC_LINGER).await;
        // As relay and statistics do it every now and then.
        hub.sweep(9);
        hub.next_in_rotation(9);
        hub.next_active(9);
        hub.requested_opens(9).await;
        hub.rank(9);
    }
    // A list that still has a topic keeps its memory, even if the topic is no more.
    let listed = [hub.filled.len(), hub.rotation_len(), hub.active_len()];
    assert_eq!((hub.count(), listed), (0, [0; 3]));
}

#[tokio::test(start_paused = true)]
async fn a_sweep_looks_at_no_more_topics_than_it_is_told() {
    let hub = Hub::new();
    for n in 0..25 {
        drop(hub.join(&topic(&format!("t{n}")), Arc::default()));
    }
    tokio::time::advance(TOPIC_LINGER).await;
    let swept = [hub.sweep(10), hub.sweep(10), hub.sweep(10)];
    assert_eq!(swept.map(|swept| swept.removed.len()), [10, 10, 5]);
}

#[tokio::test(start_paused = true)]
async fn each_topic_has_its_turn_in_the_rotation() {
    let hub = Hub::new();
    let mut joined: Vec<Joined> =
        (0..10).map(|n| hub.join(&topic(&n.to_string()), Arc::default())).collect();
    let take = |max: usize| {
        let taken = hub.next_in_rotation(max).topics;
        taken.iter().map(|topic| topic.name().to_string()).collect::<Vec<_>>().concat()
    };
    assert_eq!([take(4), take(4), take(4)], ["0123", "4567", "8901"]);
    joined.drain(3..8);
    tokio::time::advance(TOPIC_LINGER).await;
    assert_eq!(hub.sweep(9).removed.len(), 5);
    joined.push(hub.join(&topic("3"), Arc::default()));
    // Those that are gone take a turn as well, the last one.
    assert_eq!([take(7), take(9)], ["28", "901328"]);
}

#[test]
fn a_topic_with_news_is_active_for_some_rounds() {
    let hub = Hub::new();
    let joined = ["a", "b"].map(|name| hub.join(&topic(name), Arc::default()));
    for joined in &joined {
        hub.open(&joined.topic, history(0), false);
    }
    let active = || {
        let taken = hub.next_active(9).topics;
        taken.iter().map(|topic| topic.name().to_string()).collect::<Vec<_>>().concat()
    };
    assert_eq!(active(), "");
    hub.push_announced(&joined[0].topic, frame(1, 1));
    for _ in 0..3 {
        assert_eq!(active(), "a");
        hub.begin_round();
    }
    hub.refresh(&joined[1].topic, history(1), vec![frame(1, 1)]);
    assert_eq!(active(), "ab");
    for _ in 0..3 {
        hub.begin_round();
    }
    assert_eq!(active(), "b");
    assert_eq!(hub.active_len(), 1);
}
