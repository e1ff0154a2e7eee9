//! [`Topics`]: the logs of all topics, within a bound of memory.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use tokio::time::Instant;

use super::forgotten::{Forgotten, milliseconds};
use crate::entry::{Data, Entry, Event};
use crate::frame::Frame;
use crate::log::{READ_BYTES_MAX, READ_ENTRIES_MAX, Retention};
use crate::position::{Epoch, LogHistory, Position};
use crate::topic::Topic;
use crate::wire::sse;

/// Memory that entries may take over all topics, in bytes. Beyond it the longest idle topics
/// expire early, then the fullest lose their oldest entries, at last any loses all of them; that is
/// told as resets.
///
/// An entry is stored once, as the frame that goes out: the node's tails
/// ([`TAILS_BYTES_MAX`](crate::hub::TAILS_BYTES_MAX)) and what waits for the relay
/// ([`INBOX_BYTES_MAX`](crate::log::INBOX_BYTES_MAX)) refer to the same bytes. Only what is gone
/// from here, or was read again, is theirs alone, so that at worst the three add up: 128 + 96 + 16 MiB.
/// The states of boards are not among it: there is no board of which something could be forgotten.
const ENTRIES_BYTES_MAX: usize = 128 << 20;

/// What an entry costs beside its text, roughly, in bytes: its place in a queue that may be half
/// empty, and the allocation of its frame.
const ENTRY_OVERHEAD_BYTES: usize = 200;

/// What a topic costs beside its entries, roughly, in bytes.
const TOPIC_OVERHEAD_BYTES: usize = 400;

/// How long a topic's log lasts while nobody uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// As long as its state.
    Forever,
    /// `history_ttl`.
    UntilIdle,
}

/// The logs of all topics.
///
/// Invariants: `bytes` is what they take, `names` are those of `logs`.
pub(super) struct Topics {
    logs: HashMap<Topic, TopicLog>,
    /// Those of all logs, for whoever reads them page by page.
    names: BTreeSet<Topic>,
    forgotten: Forgotten,
    bytes: usize,
    bytes_max: usize,
    /// Beyond this many room is made: `bytes_max`, or more while that does not suffice for the
    /// watched topics alone, so that looking at all of them stays seldom.
    make_room_at: usize,
    history_entries_max: usize,
    history_bytes_max: usize,
    history_ttl: Duration,
}

/// Invariant: `entries` is contiguous and ends at `seq`, or is empty.
pub(super) struct TopicLog {
    epoch: Epoch,
    seq: u64,
    entries: VecDeque<StoredEntry>,
    /// See [`LogHistory`].
    deleted_through: u64,
    bytes: usize,
    /// What the texts of the entries take alone.
    text_bytes: usize,
    used_at: Instant,
    /// See [`LogHistory`].
    unwritten_since: u64,
    begun_at: u64,
    /// When the last entry came, in milliseconds since 1970.
    written_at: u64,
}

/// An entry as it is stored: the frame that goes out, and what is not in it.
#[derive(Debug, Clone)]
pub(super) struct StoredEntry {
    frame: Frame,
    json: bool,
}

impl Topics {
    pub(super) fn new(retention: &Retention) -> Topics {
        Topics {
            logs: HashMap::new(),
            names: BTreeSet::new(),
            forgotten: Forgotten::new(),
            bytes: 0,
            bytes_max: ENTRIES_BYTES_MAX,
            make_room_at: ENTRIES_BYTES_MAX,
            history_entries_max: retention.history_entries_max,
            history_bytes_max: retention.history_bytes_max,
            history_ttl: retention.history_ttl,
        }
    }

    /// A topic as a subscriber finds it; no log is made. Counts as use.
    pub(super) fn history(&mut self, topic: &Topic, lifetime: Lifetime) -> LogHistory {
        self.expire(topic, lifetime);
        match self.logs.get_mut(topic) {
            Some(log) => {
                log.used_at = Instant::now();
                log.history()
            }
            None => self.forgotten.unwritten(topic),
        }
    }

    /// Whoever found a topic without a log before may have missed one.
    pub(super) fn unwritten_since(&self) -> u64 {
        self.forgotten.begun_at()
    }

    /// Finds a topic's log that has not expired, or makes it.
    pub(super) fn open(&mut self, topic: &Topic, lifetime: Lifetime) -> &mut TopicLog {
        self.expire(topic, lifetime);
        let unwritten_since = self.forgotten.unwritten_since(topic);
        let written_at = self.forgotten.now();
        let log = self.logs.entry(topic.clone()).or_insert_with(|| {
            self.bytes += TOPIC_OVERHEAD_BYTES;
            self.names.insert(topic.clone());
            TopicLog {
                epoch: Epoch::random(),
                seq: 0,
                entries: VecDeque::new(),
                deleted_through: 0,
                bytes: TOPIC_OVERHEAD_BYTES,
                text_bytes: 0,
                used_at: Instant::now(),
                unwritten_since,
                begun_at: written_at.max(unwritten_since),
                written_at,
            }
        });
        log.used_at = Instant::now();
        log
    }

    /// A topic's log that has not expired, if there is one. Does not count as use.
    pub(super) fn get(&mut self, topic: &Topic, lifetime: Lifetime) -> Option<&TopicLog> {
        self.expire(topic, lifetime);
        self.logs.get(topic)
    }

    /// Epoch and head of a topic's log.
    pub(super) fn head(&self, topic: &Topic) -> Option<(Epoch, u64)> {
        self.logs.get(topic).map(|log| (log.epoch, log.seq))
    }

    /// Counts as use.
    pub(super) fn keep(&mut self, topic: &Topic) {
        if let Some(log) = self.logs.get_mut(topic) {
            log.used_at = Instant::now();
        }
    }

    /// Appends an event. Returns its frame, which shares its bytes.
    pub(super) fn append(&mut self, topic: &Topic, lifetime: Lifetime, event: &Event) -> Frame {
        let Topics { history_entries_max, history_bytes_max, .. } = *self;
        let written_at = self.forgotten.now();
        let log = self.open(topic, lifetime);
        log.seq += 1;
        log.written_at = written_at;
        let json = matches!(event.data, Data::Json(_));
        let frame = sse::frame(&Entry {
            position: Position { seq: log.seq, epoch: log.epoch },
            milliseconds: milliseconds(),
            json,
            rest: sse::event_text(event),
        });
        let entry = StoredEntry { frame: frame.clone(), json };
        let before = log.bytes;
        log.bytes += entry.bytes();
        log.text_bytes += entry.text_bytes();
        log.entries.push_back(entry);
        while log.entries.len() > history_entries_max
            || (log.text_bytes > history_bytes_max && log.entries.len() > 1)
        {
            log.trim();
        }
        let after = log.bytes;
        self.bytes = self.bytes + after - before;
        frame
    }

    /// Deletes all entries of a log; that has a number, too. `None` if there are none.
    pub(super) fn delete(&mut self, topic: &Topic) -> Option<Position> {
        let written_at = self.forgotten.now();
        let log = self.logs.get_mut(topic).filter(|log| !log.entries.is_empty())?;
        while !log.entries.is_empty() {
            self.bytes -= log.trim();
        }
        log.entries.shrink_to_fit();
        log.seq += 1;
        log.deleted_through = log.seq;
        log.used_at = Instant::now();
        log.written_at = written_at;
        Some(log.head())
    }

    /// The names of all logs after this one that begin so, in order. Some may have expired.
    pub(super) fn names<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a Topic>,
    ) -> impl Iterator<Item = &'a Topic> {
        let first = after.map(Topic::as_str).filter(|after| *after >= prefix);
        let from = first.map_or(Bound::Included(prefix), Bound::Excluded);
        let names = self.names.range::<str, _>((from, Bound::Unbounded));
        names.take_while(move |name| name.as_str().starts_with(prefix))
    }

    /// A topic's log that has not expired, without a change to any.
    pub(super) fn peek(&self, topic: &Topic, lifetime: Lifetime) -> Option<&TopicLog> {
        self.logs.get(topic).filter(|log| !self.has_expired(log, lifetime))
    }

    /// Whether they take more than they may.
    pub(super) fn are_too_large(&self) -> bool {
        self.bytes > self.make_room_at
    }

    /// Brings them to nine tenths of their bound; `current` is the last to lose something, and those
    /// that are `watched` expire no earlier than they would. Seldom, and so allowed to look at all.
    pub(super) fn make_room(&mut self, current: &Topic, watched: impl Fn(&Topic) -> bool) {
        let enough = self.bytes_max / 10 * 9;
        let mut by_use: Vec<(Instant, Topic)> =
            self.logs.iter().map(|(topic, log)| (log.used_at, topic.clone())).collect();
        by_use.sort_by_key(|(used_at, topic)| (topic == current, *used_at));
        for (_, topic) in &by_use {
            if self.bytes > enough && topic != current && !watched(topic) {
                self.forget(topic);
            }
        }
        let mut by_size: Vec<&mut TopicLog> = self.logs.values_mut().collect();
        by_size.sort_by_key(|log| std::cmp::Reverse(log.bytes));
        for log in by_size {
            while self.bytes > enough && log.entries.len() > 1 {
                self.bytes -= log.trim();
            }
        }
        for (_, topic) in &by_use {
            if self.bytes > enough
                && let Some(log) = self.logs.get_mut(topic)
            {
                self.bytes -= log.trim();
            }
        }
        self.make_room_at = self.bytes_max.max(self.bytes + self.bytes_max / 10);
    }

    /// Forgets the topic if it was idle for too long.
    fn expire(&mut self, topic: &Topic, lifetime: Lifetime) {
        let Some(log) = self.logs.get(topic) else { return };
        if self.has_expired(log, lifetime) {
            self.forget(topic);
        }
    }

    fn has_expired(&self, log: &TopicLog, lifetime: Lifetime) -> bool {
        lifetime == Lifetime::UntilIdle && log.used_at.elapsed() > self.history_ttl
    }

    fn forget(&mut self, topic: &Topic) {
        self.names.remove(topic);
        if let Some(log) = self.logs.remove(topic) {
            self.bytes -= log.bytes;
            if log.seq > 0 {
                self.forgotten.note(topic, log.written_at);
            }
        }
    }
}

impl TopicLog {
    /// What it is now. The past ends with the process.
    pub(super) fn history(&self) -> LogHistory {
        let oldest = self.seq + 1 - self.entries.len() as u64;
        LogHistory {
            epoch: self.epoch,
            past_epochs: Vec::new(),
            head: self.seq,
            oldest,
            deleted_through: self.deleted_through,
            unwritten_since: self.unwritten_since,
            begun_at: self.begun_at,
        }
    }

    /// How many entries it has.
    pub(super) fn count(&self) -> usize {
        self.entries.len()
    }

    /// Where its newest entry is.
    pub(super) fn head(&self) -> Position {
        Position { seq: self.seq, epoch: self.epoch }
    }

    /// The entries with a seq in `after + 1 ..= through`, as many as a page takes.
    pub(super) fn entries(&self, after: u64, through: u64) -> Vec<StoredEntry> {
        let first = after.saturating_add(1);
        let mut bytes = 0;
        self.entries
            .iter()
            .skip(first.saturating_sub(self.seq + 1 - self.entries.len() as u64) as usize)
            .take(READ_ENTRIES_MAX)
            .take_while(|entry| {
                let size = entry.frame.size();
                let fits = bytes == 0 || bytes + size <= READ_BYTES_MAX;
                bytes += size;
                fits && entry.frame.position.seq <= through
            })
            .cloned()
            .collect()
    }

    /// Removes the oldest entry and says how many bytes that freed.
    fn trim(&mut self) -> usize {
        let Some(oldest) = self.entries.pop_front() else { return 0 };
        self.bytes -= oldest.bytes();
        self.text_bytes -= oldest.text_bytes();
        oldest.bytes()
    }
}

impl StoredEntry {
    /// As whoever reads the log gets it, with a copy of its text.
    pub(super) fn entry(&self) -> Entry {
        let Frame { position, milliseconds, .. } = self.frame;
        Entry { position, milliseconds, json: self.json, rest: sse::text_of_frame(&self.frame) }
    }

    fn bytes(&self) -> usize {
        self.frame.chunk().len() + ENTRY_OVERHEAD_BYTES
    }

    /// What its text takes, as `text_of_frame` writes it.
    fn text_bytes(&self) -> usize {
        self.frame.fields().len() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    fn topic(n: usize) -> Topic {
        Topic::new(&format!("t{n}")).unwrap()
    }

    fn event(bytes: usize) -> Event {
        Event { event_type: None, data: Data::Text("x".repeat(bytes)) }
    }

    fn topics(history_entries_max: usize) -> Topics {
        Topics::new(&Retention {
            history_entries_max,
            history_bytes_max: usize::MAX,
            history_ttl: Duration::from_secs(60),
            idempotency_window: Duration::from_secs(60),
        })
    }

    fn bounded(bytes_max: usize) -> Topics {
        let topics = topics(1_000);
        Topics { bytes_max, make_room_at: bytes_max, ..topics }
    }

    /// Appends 1 KiB, and makes room where that is needed.
    fn append(topics: &mut Topics, topic: &Topic, watched: bool) {
        topics.append(topic, Lifetime::UntilIdle, &event(KIB));
        if topics.are_too_large() {
            topics.make_room(topic, |_| watched);
        }
        let sum: usize = topics.logs.values().map(|log| log.bytes).sum();
        assert_eq!(topics.bytes, sum);
        for log in topics.logs.values() {
            let entries: usize = log.entries.iter().map(StoredEntry::bytes).sum();
            assert_eq!(log.bytes, TOPIC_OVERHEAD_BYTES + entries);
        }
    }

    fn entries(topics: &mut Topics, topic: &Topic) -> usize {
        let log = topics.get(topic, Lifetime::UntilIdle);
        log.map_or(0, |log| log.entries(0, u64::MAX).len())
    }

    #[tokio::test]
    async fn an_entry_is_stored_once_and_read_as_it_was_written() {
        let mut topics = topics(10);
        let announced = topics.append(&topic(1), Lifetime::UntilIdle, &event(KIB));
        let log = topics.get(&topic(1), Lifetime::UntilIdle).unwrap();
        let [stored] = log.entries(0, 1).try_into().unwrap();
        assert_eq!(stored.frame.chunk().as_ptr(), announced.chunk().as_ptr());
        assert_eq!(stored.entry().rest, sse::event_text(&event(KIB)));
        assert_eq!(sse::frame(&stored.entry()).block(), announced.block());
    }

    #[tokio::test]
    async fn the_bound_holds_when_every_topic_is_watched_and_has_one_entry() {
        let mut topics = bounded(100 * KIB);
        for n in 0..150 {
            append(&mut topics, &topic(n), true);
            assert!(topics.bytes <= topics.bytes_max, "{n}: {}", topics.bytes);
            assert_eq!(entries(&mut topics, &topic(n)), 1, "what was just written is there");
        }
        // Those that lost theirs say so.
        let first = topics.get(&topic(0), Lifetime::UntilIdle).unwrap().history();
        assert_eq!((first.head, first.oldest), (1, 2));
    }

    #[tokio::test]
    async fn more_watched_topics_than_fit_are_not_looked_at_each_time() {
        let mut topics = bounded(10 * KIB);
        let mut rooms_made = 0;
        for n in 0..1_000 {
            topics.append(&topic(n), Lifetime::UntilIdle, &event(1));
            if topics.are_too_large() {
                topics.make_room(&topic(n), |_| true);
                rooms_made += 1;
            }
        }
        assert!(topics.bytes <= 1_000 * TOPIC_OVERHEAD_BYTES + 2 * KIB, "{}", topics.bytes);
        assert!(rooms_made < 700, "{rooms_made}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_idle_and_not_watched_goes_first_and_then_the_fullest_lose_their_oldest() {
        let mut topics = bounded(100 * KIB);
        for n in 0..4 {
            tokio::time::advance(Duration::from_secs(1)).await;
            for _ in 0..20 {
                append(&mut topics, &topic(n), false);
            }
        }
        while topics.head(&topic(0)).is_some() {
            append(&mut topics, &topic(3), false);
        }
        let left = [1, 2, 3].map(|n| entries(&mut topics, &topic(n)));
        assert_eq!(left[..2], [20, 20]);
        assert!((21..25).contains(&left[2]), "{left:?}");
        for _ in 0..30 {
            append(&mut topics, &topic(1), true);
        }
        let left = [1, 2, 3].map(|n| entries(&mut topics, &topic(n)));
        assert!((22..50).contains(&left[0]), "{left:?}");
        assert_eq!(left[1], 20);
        let fullest = topics.get(&topic(1), Lifetime::UntilIdle).unwrap().history();
        assert_eq!((fullest.head, fullest.oldest), (50, 51 - left[0] as u64));
    }

    #[tokio::test]
    async fn a_history_ends_where_its_bytes_are_too_many_and_never_without_the_newest() {
        let text = |bytes| sse::event_text(&event(bytes)).len();
        let bytes_max = 3 * text(1_000);
        let mut topics = Topics { history_bytes_max: bytes_max, ..topics(5) };
        let mut kept = VecDeque::new();
        for n in 0..400 {
            let bytes = [1, 10, 1_000, 1_001, 2_500, 5_000][fastrand::usize(..6)];
            topics.append(&topic(1), Lifetime::UntilIdle, &event(bytes));
            kept.push_back(text(bytes));
            while kept.len() > 5 || (kept.len() > 1 && kept.iter().sum::<usize>() > bytes_max) {
                kept.pop_front();
            }
            let log = topics.get(&topic(1), Lifetime::UntilIdle).unwrap();
            let texts: Vec<usize> =
                log.entries.iter().map(|entry| entry.entry().rest.len()).collect();
            assert_eq!(texts, Vec::from(kept.clone()), "{n}");
            assert_eq!(log.text_bytes, kept.iter().sum::<usize>());
            assert_eq!(log.history().oldest, log.seq + 1 - kept.len() as u64);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_topic_expires_and_comes_back_as_another_unless_it_has_a_state() {
        let mut topics = topics(10);
        for lifetime in [Lifetime::UntilIdle, Lifetime::Forever] {
            let before = topics.append(&topic(1), lifetime, &event(1)).position;
            tokio::time::advance(Duration::from_secs(59)).await;
            assert!(topics.get(&topic(1), lifetime).is_some());
            tokio::time::advance(Duration::from_secs(2)).await;
            let after = topics.append(&topic(1), lifetime, &event(1)).position;
            assert_eq!(after.epoch == before.epoch, lifetime == Lifetime::Forever);
        }
    }
}
