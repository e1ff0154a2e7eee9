//! [`Hub`]: the topics of this node that have local connections, with their [tails](tail).
//!
//! The [`relay`](crate::relay) feeds it, [streams](crate::stream) join it, are woken by it
//! and ask it what comes after their position. It never waits on the network.

pub mod tail;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::frame::Frame;
use crate::position::{LogHistory, Position};
use crate::topic::Topic;
use tail::{Next, Pushed, Tail};

/// Bytes that all tails of a node hold at most: beyond it a tail that gets a frame keeps none, and
/// readers that are behind go to the log. Together with the embedded log's entries and the budget
/// for what was read from the log, a node stays within 256 MiB.
pub const TAILS_BYTES_MAX: usize = 96 << 20;

/// How long a topic stays followed after its last connection left, so that a page that reloads
/// does not cost an unsubscribe and a subscribe.
pub const TOPIC_LINGER: Duration = Duration::from_secs(5);

/// How many topics one node names in its census; the busiest, if there are more.
const CENSUS_TOPICS_MAX: usize = 2_000;

/// Somebody who carries many streams and wants to hear of a topic once for all of them.
pub trait TopicObserver: Send + Sync + 'static {
    /// The topic that this observer knows by `key` has news. Says whether the observer sleeps and
    /// has to be [rung](TopicObserver::wake) for; then whoever asked must do so soon. Must not wait.
    fn topic_changed(&self, key: u32) -> bool;

    /// Wakes it.
    fn wake(&self);
}

/// The topics with local connections.
#[derive(Default)]
pub struct Hub {
    topics: Mutex<HashMap<Topic, Arc<HubTopic>>>,
    /// Topics that nobody has opened yet; the relay takes them from here.
    pending_opens: Mutex<Vec<Arc<HubTopic>>>,
    open_requested: Notify,
    tails_bytes: AtomicUsize,
    /// Topics whose tails have frames, each once, the first to be emptied first.
    filled: Mutex<VecDeque<Weak<HubTopic>>>,
}

/// One topic of the hub.
pub struct HubTopic {
    name: Topic,
    state: Mutex<TopicInner>,
}

struct TopicInner {
    /// Absent until the log was asked.
    tail: Option<Tail>,
    has_state: bool,
    /// The log could not be asked yet: connections are held open meanwhile.
    waiting: bool,
    /// How often the tail was brought to where the log was.
    refreshes: u64,
    waiters: Slab<Arc<Notify>>,
    /// At most one entry an observer.
    observers: Vec<ObserverEntry>,
    /// When the last connection left.
    left_at: Instant,
    /// No longer in the hub: whatever still comes for it is dropped.
    removed: bool,
    /// In `Hub::filled`.
    is_filled: bool,
}

/// The streams of one observer in one topic.
struct ObserverEntry {
    observer: Arc<dyn TopicObserver>,
    key: u32,
    streams: usize,
}

/// A connection's place among the waiters of a topic; leaves when dropped.
pub struct Joined {
    /// The topic.
    pub topic: Arc<HubTopic>,
    key: usize,
}

/// How far a topic has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicState {
    /// The log is being asked.
    Opening,
    /// The log cannot be asked now; the relay keeps trying.
    Waiting,
    /// Followed.
    Open {
        /// Whether it had a state when it was opened, or is known to have one since.
        has_state: bool,
    },
}

/// What one node serves, as it tells the others.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Census {
    /// Open streams.
    pub total: usize,
    /// Streams per topic that has a state; a stream of several counts for each. The word on the
    /// wire is that of the application, whose state is a board.
    #[serde(rename = "boards")]
    pub with_state: BTreeMap<String, usize>,
    /// Streams per topic that has none.
    pub topics: BTreeMap<String, usize>,
    /// Topics left out because there were too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Hub {
    /// A hub without topics.
    pub fn new() -> Arc<Hub> {
        Arc::new(Hub::default())
    }

    /// Watches a topic: `signal` is notified whenever it has news. The first to join has it
    /// opened by the relay.
    pub fn join(&self, name: &Topic, signal: Arc<Notify>) -> Joined {
        // The topic's own lock is taken under the hub's, here and in `sweep`: a topic is never
        // removed away between being found and being joined.
        let mut topics = lock(&self.topics);
        let topic = match topics.get(name) {
            Some(topic) => topic.clone(),
            None => {
                let topic = Arc::new(HubTopic::new(name.clone()));
                topics.insert(name.clone(), topic.clone());
                self.request_open(topic.clone());
                topic
            }
        };
        let key = topic.lock().waiters.insert(signal);
        Joined { topic, key }
    }

    /// Asks the relay to open a topic (again).
    pub fn request_open(&self, topic: Arc<HubTopic>) {
        lock(&self.pending_opens).push(topic);
        self.open_requested.notify_one();
    }

    /// Waits until topics are wanted and takes them.
    pub async fn requested_opens(&self) -> Vec<Arc<HubTopic>> {
        loop {
            let wanted = std::mem::take(&mut *lock(&self.pending_opens));
            if !wanted.is_empty() {
                return wanted;
            }
            self.open_requested.notified().await;
        }
    }

    /// The topic, if it has connections here (or had some a moment ago).
    pub fn get(&self, name: &Topic) -> Option<Arc<HubTopic>> {
        lock(&self.topics).get(name).cloned()
    }

    /// All topics of this node, those that most connections watch first; in the same order
    /// whenever the same are watched.
    pub fn all(&self) -> Vec<Arc<HubTopic>> {
        let mut topics: Vec<Arc<HubTopic>> = lock(&self.topics).values().cloned().collect();
        topics.sort_by_cached_key(|topic| {
            (std::cmp::Reverse(topic.lock().streams()), topic.name.clone())
        });
        topics
    }

    /// How many topics this node follows.
    pub fn count(&self) -> usize {
        lock(&self.topics).len()
    }

    /// Removes and returns the topics that nobody has watched for [`TOPIC_LINGER`].
    pub fn sweep(&self) -> Vec<Topic> {
        let mut left = Vec::new();
        lock(&self.topics).retain(|name, topic| {
            let mut state = topic.lock();
            let stay = state.streams() > 0 || state.left_at.elapsed() < TOPIC_LINGER;
            if !stay {
                left.push(name.clone());
                let bytes = state.tail.take().map_or(0, |tail| tail.bytes());
                self.tails_bytes.fetch_sub(bytes, Ordering::Relaxed);
                state.removed = true;
            }
            stay
        });
        left
    }

    /// Gives a topic an announced frame and wakes its waiters if it was the next one. `None` while
    /// the topic is not open.
    pub fn push_announced(&self, topic: &Arc<HubTopic>, frame: Frame) -> Option<Pushed> {
        let mut state = topic.lock();
        let pushed = self.account(topic, &mut state, |tail| tail.push_announced(frame))?;
        if pushed == Pushed::Appended {
            wake(state);
        } else {
            drop(state);
        }
        self.make_room();
        Some(pushed)
    }

    /// Opens a topic, or renews one whose log was made anew, and wakes its waiters.
    pub fn open(&self, topic: &Arc<HubTopic>, history: LogHistory, has_state: bool) {
        let mut state = topic.lock();
        if state.removed {
            return;
        }
        state.has_state = has_state;
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
    pub fn refresh(&self, topic: &Arc<HubTopic>, history: LogHistory, read: Vec<Frame>) -> bool {
        let mut state = topic.lock();
        let more = self.account(topic, &mut state, |tail| tail.refresh(history, read));
        let Some(more) = more else { return false };
        state.refreshes += 1;
        wake(state);
        self.make_room();
        more
    }

    /// How many topics have connections here, and what this node serves.
    pub fn census(&self, total: usize) -> Census {
        let mut counts: Vec<(usize, bool, String)> = Vec::new();
        for topic in self.all() {
            let state = topic.lock();
            if state.streams() > 0 {
                counts.push((state.streams(), state.has_state, topic.name.to_string()));
            }
        }
        let omitted = counts.len().saturating_sub(CENSUS_TOPICS_MAX);
        if omitted > 0 {
            counts.sort_unstable_by(|a, b| b.cmp(a));
            counts.truncate(CENSUS_TOPICS_MAX);
        }
        let mut census = Census { total, omitted, ..Census::default() };
        for (count, has_state, name) in counts {
            let group = if has_state { &mut census.with_state } else { &mut census.topics };
            group.insert(name, count);
        }
        census
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
        if after > 0 && !std::mem::replace(&mut state.is_filled, true) {
            lock(&self.filled).push_back(Arc::downgrade(topic));
        }
        Some(result)
    }

    /// Empties tails, those first that were filled first, until their sum is within its bound. No
    /// topic may be locked by the caller.
    fn make_room(&self) {
        while self.tails_bytes.load(Ordering::Relaxed) > TAILS_BYTES_MAX {
            let Some(topic) = lock(&self.filled).pop_front() else { return };
            let Some(topic) = topic.upgrade() else { continue };
            let mut state = topic.lock();
            state.is_filled = false;
            if let Some(tail) = &mut state.tail {
                self.tails_bytes.fetch_sub(tail.bytes(), Ordering::Relaxed);
                tail.shrink();
            }
        }
    }
}

impl HubTopic {
    fn new(name: Topic) -> HubTopic {
        let state = TopicInner {
            tail: None,
            has_state: false,
            waiting: false,
            refreshes: 0,
            waiters: Slab::new(),
            observers: Vec::new(),
            left_at: Instant::now(),
            removed: false,
            is_filled: false,
        };
        HubTopic { name, state: Mutex::new(state) }
    }

    /// Its name.
    pub fn name(&self) -> &Topic {
        &self.name
    }

    /// How far it has got.
    pub fn state(&self) -> TopicState {
        let state = self.lock();
        match &state.tail {
            Some(_) => TopicState::Open { has_state: state.has_state },
            None if state.waiting => TopicState::Waiting,
            None => TopicState::Opening,
        }
    }

    /// Where its newest known entry is; `None` until it is open.
    pub fn head(&self) -> Option<Position> {
        self.lock().tail.as_ref().map(Tail::head)
    }

    /// How often its tail was brought to where the log was then.
    pub fn refreshes(&self) -> u64 {
        self.lock().refreshes
    }

    /// What comes after a position; `None` until it is open.
    pub fn after(&self, position: Position) -> Option<Next> {
        self.lock().tail.as_ref().map(|tail| tail.after(position))
    }

    /// Whether everything that comes after a position is in the tail, or nothing comes.
    pub fn reaches(&self, position: Position) -> bool {
        self.lock().tail.as_ref().is_some_and(|tail| tail.reaches(position))
    }

    /// Whether nothing comes after a position now.
    pub fn is_head(&self, position: Position) -> bool {
        self.lock().tail.as_ref().is_some_and(|tail| tail.head() == position)
    }

    /// Counts one more stream of `observer`, which hears of news from now on. Returns its key for
    /// this topic: the one it gave before, or else what `new_key` makes.
    pub fn observe(&self, observer: &Arc<dyn TopicObserver>, new_key: impl FnOnce() -> u32) -> u32 {
        let mut state = self.lock();
        let known = state.observers.iter_mut().find(|entry| Arc::ptr_eq(&entry.observer, observer));
        if let Some(entry) = known {
            entry.streams += 1;
            return entry.key;
        }
        let key = new_key();
        state.observers.push(ObserverEntry { observer: observer.clone(), key, streams: 1 });
        key
    }

    /// Counts one stream of `observer` less.
    pub fn unobserve(&self, observer: &Arc<dyn TopicObserver>) {
        let mut state = self.lock();
        let at = state.observers.iter().position(|entry| Arc::ptr_eq(&entry.observer, observer));
        let Some(at) = at else { return };
        state.observers[at].streams -= 1;
        if state.observers[at].streams == 0 {
            state.observers.swap_remove(at);
            state.left_at = Instant::now();
        }
    }

    /// Remembers that the log cannot be asked now, and tells those who wait for it.
    pub fn set_waiting(&self) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.waiting, true) {
            wake(state);
        }
    }

    /// Remembers that the topic got a state after it was opened.
    pub fn set_has_state(&self) {
        self.lock().has_state = true;
    }

    fn lock(&self) -> MutexGuard<'_, TopicInner> {
        lock(&self.state)
    }
}

/// Tells everybody who follows a topic that it has news.
fn wake(state: MutexGuard<'_, TopicInner>) {
    let mut asleep = Vec::new();
    for entry in &state.observers {
        if entry.observer.topic_changed(entry.key) {
            asleep.push(entry.observer.clone());
        }
    }
    for (_, signal) in &state.waiters {
        signal.notify_one();
    }
    // Only now: whoever wakes up asks the topic what the news is, and would have to wait for it.
    // Other topics' news for the same observer waits for this bell; ten thousand waiters that are
    // told first take a millisecond or so.
    drop(state);
    for observer in asleep {
        observer.wake();
    }
}

impl TopicInner {
    /// How many streams follow the topic.
    fn streams(&self) -> usize {
        self.waiters.len() + self.observers.iter().map(|entry| entry.streams).sum::<usize>()
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut state = self.topic.lock();
        state.waiters.remove(self.key);
        if state.waiters.is_empty() {
            // Ten thousand streams that left leave no room behind.
            state.waiters.shrink_to_fit();
            state.left_at = Instant::now();
        }
    }
}

/// A panic elsewhere must not take the whole node's fan-out with it; nothing here is left half
/// changed by one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoopObserver;

    impl TopicObserver for NoopObserver {
        fn topic_changed(&self, _: u32) -> bool {
            false
        }

        fn wake(&self) {}
    }

    #[test]
    fn the_topics_that_most_streams_follow_come_first() {
        let hub = Hub::new();
        let observer: Arc<dyn TopicObserver> = Arc::new(NoopObserver);
        let mut joined = Vec::new();
        for (name, connections, parked) in [("a", 1, 0), ("b", 1, 5), ("c", 3, 0), ("d", 2, 2)] {
            let topic = Topic::new(name).unwrap_or_else(|_| panic!("{name} is a name"));
            for _ in 0..connections {
                joined.push(hub.join(&topic, Arc::default()));
            }
            for _ in 0..parked {
                joined[joined.len() - 1].topic.observe(&observer, || 0);
            }
        }
        let order: Vec<String> = hub.all().iter().map(|topic| topic.name().to_string()).collect();
        assert_eq!(order, ["b", "d", "c", "a"]);
        assert_eq!(hub.census(12).topics["b"], 6);
        let busiest = hub.all()[0].clone();
        for _ in 0..5 {
            busiest.unobserve(&observer);
        }
        let order: Vec<String> = hub.all().iter().map(|topic| topic.name().to_string()).collect();
        assert_eq!(order, ["d", "c", "a", "b"]);
    }
}
