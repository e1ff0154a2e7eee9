//! [`Hub`]: the topics of this node that have local streams, with their [tails](tail).
//!
//! The [`relay`](crate::relay) feeds it, [streams](crate::stream) join it, are woken by it
//! and ask it what comes after their position. It never waits on the network.
//!
//! There may be a quarter of a million topics: nothing here looks at all of them in one go. What has
//! to be done about a topic later stands on a [list](worklists), and is done a number at a time.

pub mod ranking;
pub mod tail;
mod topic;
mod worklists;

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::frame::Frame;
use crate::frame::pieces::PieceSum;
use crate::position::LogHistory;
use crate::topic::Topic;
use ranking::{ByKind, Ranking};
use tail::{Pushed, Tail};
pub use topic::{Asleep, HubTopic, Joined, TopicObserver, TopicState};
use topic::{Ranked, TopicInner, tell, wake};
pub use worklists::Taken;
use worklists::{Filled, Worklist, Worklists};

/// Bytes of memory that the frames of all tails of a node take at most: beyond it tails are emptied,
/// those first that were filled first, and readers that are behind go to the log. The largest of the
/// sums that bound a node's memory, which ARCHITECTURE.md lists.
pub const TAILS_BYTES_MAX: usize = 96 << 20;

/// Bytes of memory that their pieces take at most, where streams are compressed: beyond it entries go
/// out as they are. It hardly comes to that, for tails are emptied before. Tails have so much less
/// then, so that the sum stays what it is.
pub const PIECES_BYTES_MAX: usize = 32 << 20;

/// How long a topic stays followed after its last stream left, so that a page that reloads
/// does not cost an unsubscribe and a subscribe.
pub const TOPIC_LINGER: Duration = Duration::from_secs(5);

/// Parts of the map of topics, each with a lock of its own: when one grows, it is moved while
/// others go on, and a quarter of a million names take 20 ms to be moved.
const SHARDS: usize = 64;

type Shard = Mutex<HashMap<Topic, Arc<HubTopic>>>;

/// The topics with local streams.
///
/// Locks are taken in this order, if several are: ranking, a shard, a topic, a list.
pub struct Hub {
    shards: [Shard; SHARDS],
    hasher: RandomState,
    /// How many there are in all shards.
    count: AtomicUsize,
    /// Topics that nobody has opened yet; the relay takes them from here.
    pending_opens: Mutex<VecDeque<Arc<HubTopic>>>,
    open_requested: Notify,
    tails_bytes: AtomicUsize,
    /// What was made of frames for streams that are compressed; `None` if none are.
    pieces: Option<Arc<PieceSum>>,
    /// Topics whose tails have frames, the first to be emptied first.
    filled: Filled<HubTopic>,
    worklists: Arc<Worklists<HubTopic>>,
    /// Topics by their streams, as they were when they were last [ranked](Hub::rank).
    ranking: Mutex<Rankings>,
}

#[derive(Default)]
struct Rankings {
    of_kind: ByKind<Ranking>,
    /// How often a topic's place changed.
    changes: u64,
}

/// The topics that most streams follow.
pub struct LargestTopics {
    /// The largest first, each with its streams.
    pub topics: ByKind<Vec<(Topic, usize)>>,
    /// How many topics have streams.
    pub counts: ByKind<usize>,
    /// How often the ranking had changed by then.
    pub changes: u64,
}

impl Hub {
    /// A hub without topics.
    pub fn new() -> Arc<Hub> {
        Hub::keeping(None)
    }

    /// A hub without topics whose frames keep what is made of them for streams that are compressed.
    pub fn keeping_pieces() -> Arc<Hub> {
        Hub::keeping(Some(PieceSum::new(PIECES_BYTES_MAX)))
    }

    fn keeping(pieces: Option<Arc<PieceSum>>) -> Arc<Hub> {
        Arc::new(Hub {
            pieces,
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            count: AtomicUsize::new(0),
            pending_opens: Mutex::default(),
            open_requested: Notify::new(),
            tails_bytes: AtomicUsize::new(0),
            filled: Filled::new(),
            worklists: Arc::new(Worklists::new()),
            ranking: Mutex::default(),
        })
    }

    /// Watches a topic: `signal` is notified whenever it has news. The first to join has it
    /// opened by the relay.
    pub fn join(&self, name: &Topic, signal: Arc<Notify>) -> Joined {
        // The topic's own lock is taken under the shard's, here and in `sweep`: a topic is never
        // removed between being found and being joined.
        let mut topics = self.shard(name);
        let topic = match topics.get(name) {
            Some(topic) => topic.clone(),
            None => {
                let topic = Arc::new(HubTopic::new(name.clone(), self.worklists.clone()));
                topics.insert(name.clone(), topic.clone());
                self.count.fetch_add(1, Ordering::AcqRel);
                self.worklists.rotation.push(&topic);
                self.request_open(topic.clone());
                topic
            }
        };
        topic.join(signal)
    }

    /// Asks the relay to open a topic.
    fn request_open(&self, topic: Arc<HubTopic>) {
        lock(&self.pending_opens).push_back(topic);
        self.open_requested.notify_one();
    }

    /// Waits until there are topics to be opened and takes at most so many, the first to come
    /// first.
    pub async fn requested_opens(&self, max: usize) -> Vec<Arc<HubTopic>> {
        loop {
            let requested: Vec<Arc<HubTopic>> = {
                let mut pending = lock(&self.pending_opens);
                let count = max.min(pending.len());
                pending.drain(..count).collect()
            };
            if !requested.is_empty() {
                return requested;
            }
            self.open_requested.notified().await;
        }
    }

    /// The topic, if it has streams here (or had some a moment ago).
    pub fn get(&self, name: &Topic) -> Option<Arc<HubTopic>> {
        self.shard(name).get(name).cloned()
    }

    /// How many topics this node follows.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Removes topics that nobody has followed for [`TOPIC_LINGER`], looking at `max` at most, and
    /// returns them; fewer than `max` were looked at if there are no more.
    pub fn sweep(&self, max: usize) -> Swept {
        let mut swept = Swept { removed: Vec::new(), count: 0 };
        let Some(until) = Instant::now().checked_sub(TOPIC_LINGER) else { return swept };
        while swept.count < max
            && let Some(topic) = self.worklists.emptied.take_until(until)
        {
            swept.count += 1;
            if let Some(topic) = topic.upgrade()
                && self.remove_if_left(&topic, until)
            {
                swept.removed.push(topic.name().clone());
            }
        }
        swept
    }

    fn remove_if_left(&self, topic: &Arc<HubTopic>, until: Instant) -> bool {
        // Dropped after the locks: it may have much to give back.
        let tail;
        let mut rankings = lock(&self.ranking);
        let mut topics = self.shard(topic.name());
        let mut state = topic.lock();
        state.listed.emptied = false;
        if state.streams() > 0 || state.removed {
            return false;
        }
        if state.left_at > until {
            // Somebody came and left again meanwhile.
            state.listed.emptied = true;
            self.worklists.emptied.push(state.left_at, topic);
            return false;
        }
        topics.remove(topic.name());
        self.count.fetch_sub(1, Ordering::AcqRel);
        if topics.is_empty() {
            topics.shrink_to_fit();
        }
        rankings.rank(topic.name(), &mut state, Ranked::default());
        state.removed = true;
        if let Some(filled) = state.listed.filled.take() {
            self.filled.remove(filled);
        }
        tail = state.tail.take();
        let bytes = tail.as_ref().map_or(0, Tail::bytes);
        self.tails_bytes.fetch_sub(bytes, Ordering::Relaxed);
        true
    }

    /// Gives a topic an announced frame and wakes its waiters if it was the next one. `None` while
    /// the topic is not open.
    pub fn push_announced(&self, topic: &Arc<HubTopic>, frame: Frame) -> Option<Pushed> {
        self.push_one_of_several(topic, frame, &mut Asleep::default())
    }

    /// The same for one of several that came together: who sleeps is woken once for all of them,
    /// when `asleep` is dropped, which should be soon.
    pub fn push_one_of_several(
        &self,
        topic: &Arc<HubTopic>,
        mut frame: Frame,
        asleep: &mut Asleep,
    ) -> Option<Pushed> {
        if let Some(pieces) = &self.pieces {
            frame.keep_pieces(pieces);
        }
        let mut state = topic.lock();
        let pushed = self.account(topic, &mut state, |tail| tail.push_announced(frame))?;
        if pushed == Pushed::Appended {
            topic.note_activity(&mut state);
            tell(&state, asleep);
        }
        drop(state);
        self.make_room();
        Some(pushed)
    }

    /// Opens a topic, or renews one whose log was made anew, and wakes its waiters.
    pub fn open(&self, topic: &Arc<HubTopic>, history: LogHistory, has_state: bool) {
        let mut state = topic.lock();
        if state.removed {
            return;
        }
        topic.note_has_state(&mut state, has_state);
        state.waiting = false;
        state.refreshes += 1;
        match &mut state.tail {
            Some(_) => {
                self.account(topic, &mut state, |tail| tail.refresh(history, Vec::new()));
            }
            None => state.tail = Some(Tail::new(history)),
        }
        wake(state);
    }

    /// Gives a topic what was read from its log and wakes its waiters. Says whether the log had
    /// more.
    pub fn refresh(
        &self,
        topic: &Arc<HubTopic>,
        history: LogHistory,
        mut read: Vec<Frame>,
    ) -> bool {
        if let Some(pieces) = &self.pieces {
            read.iter_mut().for_each(|frame| frame.keep_pieces(pieces));
        }
        let mut state = topic.lock();
        let has_news = !read.is_empty();
        let more = self.account(topic, &mut state, |tail| tail.refresh(history, read));
        let Some(more) = more else { return false };
        if has_news {
            topic.note_activity(&mut state);
        }
        state.refreshes += 1;
        wake(state);
        self.make_room();
        more
    }

    /// Ranks topics whose streams have changed by what they are now, `max` at most. Says whether
    /// there were any, and so perhaps more.
    pub fn rank(&self, max: usize) -> bool {
        let mut rankings = lock(&self.ranking);
        let changed = self.worklists.changed.take(max);
        for topic in &changed.topics {
            let mut state = topic.lock();
            state.listed.changed = false;
            let streams = if state.removed { 0 } else { state.streams() };
            let now = Ranked { streams, has_state: state.has_state };
            rankings.rank(topic.name(), &mut state, now);
        }
        changed.count > 0
    }

    /// The topics that most streams follow, at most `max` of each kind, as they were when they were
    /// [ranked](Hub::rank).
    pub fn largest(&self, max: usize) -> LargestTopics {
        let Rankings { of_kind, changes } = &*lock(&self.ranking);
        LargestTopics {
            topics: of_kind.map(|ranking| ranking.largest(max)),
            counts: of_kind.map(Ranking::len),
            changes: *changes,
        }
    }

    /// How often the ranking has changed.
    pub fn ranking_changes(&self) -> u64 {
        lock(&self.ranking).changes
    }

    /// Begins a round of audits, and returns its number. A topic that had nothing new for some
    /// rounds counts as idle.
    pub fn begin_round(&self) -> u32 {
        self.worklists.begin_round()
    }

    /// Takes topics in rotation: those first that were not taken for the longest time.
    pub fn next_in_rotation(&self, max: usize) -> Taken<HubTopic> {
        take_in_turn(&self.worklists.rotation, max, |topic| !topic.lock().removed)
    }

    /// How many topics there are to be taken in rotation; about [`Hub::count`].
    pub fn rotation_len(&self) -> usize {
        self.worklists.rotation.len()
    }

    /// Takes topics that had something new lately, in rotation; those that had not are taken from
    /// the list.
    pub fn next_active(&self, max: usize) -> Taken<HubTopic> {
        let round = self.worklists.round();
        take_in_turn(&self.worklists.active, max, |topic| topic.stays_active(round))
    }

    /// How many topics had something new lately, or had it a while ago and were not taken since.
    pub fn active_len(&self) -> usize {
        self.worklists.active.len()
    }

    /// Changes a tail, if there is one, and counts its bytes.
    fn account<T>(
        &self,
        topic: &Arc<HubTopic>,
        state: &mut TopicInner,
        change: impl FnOnce(&mut Tail) -> T,
    ) -> Option<T> {
        let tail = state.tail.as_mut()?;
        let before = tail.bytes();
        let result = change(tail);
        let after = tail.bytes();
        self.tails_bytes.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        if after > 0 && state.listed.filled.is_none() {
            state.listed.filled = Some(self.filled.push(topic));
        }
        Some(result)
    }

    /// Empties tails, those first that were filled first, until their sum is within its bound. No
    /// topic may be locked by the caller.
    fn make_room(&self) {
        while self.is_over() {
            let Some(topic) = self.filled.take_first() else { return };
            let Some(topic) = topic.upgrade() else { continue };
            let mut state = topic.lock();
            state.listed.filled = None;
            if let Some(tail) = &mut state.tail {
                self.tails_bytes.fetch_sub(tail.bytes(), Ordering::Relaxed);
                tail.shrink();
            }
        }
    }

    /// Whether tails and their pieces take too much.
    fn is_over(&self) -> bool {
        let tails = self.tails_bytes.load(Ordering::Relaxed);
        match &self.pieces {
            None => tails > TAILS_BYTES_MAX,
            Some(pieces) => tails > TAILS_BYTES_MAX - PIECES_BYTES_MAX || pieces.is_short(),
        }
    }

    fn shard(&self, name: &Topic) -> MutexGuard<'_, HashMap<Topic, Arc<HubTopic>>> {
        lock(&self.shards[self.hasher.hash_one(name) as usize % SHARDS])
    }
}

/// What a sweep came to.
pub struct Swept {
    /// Topics that are no longer in the hub.
    pub removed: Vec<Topic>,
    /// How many were looked at.
    pub count: usize,
}

/// Takes topics from the beginning of a list, and puts those that stay on it at its end.
fn take_in_turn(
    list: &Worklist<HubTopic>,
    max: usize,
    stays: impl Fn(&HubTopic) -> bool,
) -> Taken<HubTopic> {
    let mut taken = list.take(max);
    taken.topics.retain(|topic| stays(topic));
    for topic in &taken.topics {
        list.push(topic);
    }
    taken
}

impl Rankings {
    /// Moves a topic to where it now belongs.
    fn rank(&mut self, name: &Topic, state: &mut TopicInner, now: Ranked) {
        let before = std::mem::replace(&mut state.ranked, now);
        if before == now {
            return;
        }
        self.changes += 1;
        if before.has_state == now.has_state {
            self.of_kind.of_mut(now.has_state).change(name, before.streams, now.streams);
        } else {
            self.of_kind.of_mut(before.has_state).change(name, before.streams, 0);
            self.of_kind.of_mut(now.has_state).change(name, 0, now.streams);
        }
    }
}

/// A panic elsewhere must not take the whole node's fan-out with it; nothing here is left half
/// changed by one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
