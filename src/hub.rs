//! [`Hub`]: the topics of this node that have local connections, with their [tails](tail).
//!
//! The [`relay`](crate::relay) feeds it, [connections](crate::connection) join it, are woken by it
//! and ask it what comes after their position. It never waits on the network.

pub mod tail;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::frame::Frame;
use crate::position::{LogHistory, Position};
use crate::topic::Topic;
use tail::{After, Fed, Tail};

/// Bytes that all tails of a node hold at most, roughly: beyond it a tail keeps only its newest
/// frame, and readers that are behind go to the log.
pub const TAILS_BYTES_MAX: usize = 256 << 20;

/// How long a topic stays followed after its last connection left, so that a page that reloads
/// does not cost an unsubscribe and a subscribe.
pub const LINGER: Duration = Duration::from_secs(5);

/// How many topics one node names in its census; the busiest, if there are more.
const CENSUS_TOPICS_MAX: usize = 2_000;

/// Somebody who carries many streams and wants to hear of a topic once for all of them.
pub trait Audience: Send + Sync + 'static {
    /// The topic that this audience knows by `key` has news. Says whether the audience sleeps and
    /// has to be [rung](Audience::ring) for; then whoever asked must do so soon. Must not wait.
    fn news(&self, key: u32) -> bool;

    /// Wakes it.
    fn ring(&self);
}

/// The topics with local connections.
#[derive(Default)]
pub struct Hub {
    topics: Mutex<HashMap<Topic, Arc<HubTopic>>>,
    /// Topics that nobody has opened yet; the relay takes them from here.
    wanted: Mutex<Vec<Arc<HubTopic>>>,
    want: Notify,
    tails_bytes: AtomicUsize,
}

/// One topic of the hub.
pub struct HubTopic {
    name: Topic,
    state: Mutex<TopicState>,
}

struct TopicState {
    /// Absent until the log was asked.
    tail: Option<Tail>,
    has_state: bool,
    /// The log could not be asked yet: connections are held open meanwhile.
    waiting: bool,
    /// How often the tail was brought to where the log was.
    renewals: u64,
    watchers: Slab<Arc<Notify>>,
    /// At most one party an audience.
    parties: Vec<Party>,
    /// When the last connection left.
    left_at: Instant,
    /// No longer in the hub: whatever still comes for it is dropped.
    swept: bool,
}

/// The streams of one audience in one topic.
struct Party {
    audience: Arc<dyn Audience>,
    key: u32,
    streams: usize,
}

/// A connection's place among the watchers of a topic; leaves when dropped.
pub struct Joined {
    /// The topic.
    pub topic: Arc<HubTopic>,
    key: usize,
}

/// How far a topic has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
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
        // swept away between being found and being joined.
        let mut topics = lock(&self.topics);
        let topic = match topics.get(name) {
            Some(topic) => topic.clone(),
            None => {
                let topic = Arc::new(HubTopic::new(name.clone()));
                topics.insert(name.clone(), topic.clone());
                self.want(topic.clone());
                topic
            }
        };
        let key = topic.state().watchers.insert(signal);
        Joined { topic, key }
    }

    /// Asks the relay to open a topic (again).
    pub fn want(&self, topic: Arc<HubTopic>) {
        lock(&self.wanted).push(topic);
        self.want.notify_one();
    }

    /// Waits until topics are wanted and takes them.
    pub async fn wanted(&self) -> Vec<Arc<HubTopic>> {
        loop {
            let wanted = std::mem::take(&mut *lock(&self.wanted));
            if !wanted.is_empty() {
                return wanted;
            }
            self.want.notified().await;
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
            (std::cmp::Reverse(topic.state().streams()), topic.name.clone())
        });
        topics
    }

    /// How many topics this node follows.
    pub fn count(&self) -> usize {
        lock(&self.topics).len()
    }

    /// Removes and returns the topics that nobody has watched for [`LINGER`].
    pub fn sweep(&self) -> Vec<Topic> {
        let mut left = Vec::new();
        lock(&self.topics).retain(|name, topic| {
            let mut state = topic.state();
            let stay = state.streams() > 0 || state.left_at.elapsed() < LINGER;
            if !stay {
                left.push(name.clone());
                let bytes = state.tail.take().map_or(0, |tail| tail.bytes());
                self.tails_bytes.fetch_sub(bytes, Ordering::Relaxed);
                state.swept = true;
            }
            stay
        });
        left
    }

    /// Gives a topic an announced frame and wakes its watchers if it was the next one. `None`
    /// while the topic is not open.
    pub fn feed(&self, topic: &HubTopic, frame: Frame) -> Option<Fed> {
        let mut state = topic.state();
        let fed = self.account(state.tail.as_mut()?, |tail| tail.feed(frame));
        if fed == Fed::Appended {
            wake(state);
        }
        Some(fed)
    }

    /// Opens a topic, or renews one whose log was made anew, and wakes its watchers.
    pub fn open(&self, topic: &HubTopic, history: LogHistory, has_state: bool) {
        let mut state = topic.state();
        if state.swept {
            return;
        }
        state.has_state = has_state;
        state.waiting = false;
        state.renewals += 1;
        match &mut state.tail {
            Some(tail) => {
                self.account(tail, |tail| tail.renew(history, Vec::new()));
            }
            None => state.tail = Some(Tail::new(history)),
        }
        wake(state);
    }

    /// Gives a topic what was read from its log and wakes its watchers. Says whether the log had
    /// more.
    pub fn renew(&self, topic: &HubTopic, history: LogHistory, read: Vec<Frame>) -> bool {
        let mut state = topic.state();
        let Some(tail) = &mut state.tail else { return false };
        let more = self.account(tail, |tail| tail.renew(history, read));
        state.renewals += 1;
        wake(state);
        more
    }

    /// How many topics have connections here, and what this node serves.
    pub fn census(&self, total: usize) -> Census {
        let mut counts: Vec<(usize, bool, String)> = Vec::new();
        for topic in self.all() {
            let state = topic.state();
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

    /// Changes a tail and keeps the node's sum of bytes within its bound.
    fn account<T>(&self, tail: &mut Tail, change: impl FnOnce(&mut Tail) -> T) -> T {
        let before = tail.bytes();
        let result = change(tail);
        let after = tail.bytes();
        self.tails_bytes.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        if self.tails_bytes.load(Ordering::Relaxed) > TAILS_BYTES_MAX {
            tail.shrink();
            self.tails_bytes.fetch_sub(after - tail.bytes(), Ordering::Relaxed);
        }
        result
    }
}

impl HubTopic {
    fn new(name: Topic) -> HubTopic {
        let state = TopicState {
            tail: None,
            has_state: false,
            waiting: false,
            renewals: 0,
            watchers: Slab::new(),
            parties: Vec::new(),
            left_at: Instant::now(),
            swept: false,
        };
        HubTopic { name, state: Mutex::new(state) }
    }

    /// Its name.
    pub fn name(&self) -> &Topic {
        &self.name
    }

    /// How far it has got.
    pub fn stage(&self) -> Stage {
        let state = self.state();
        match &state.tail {
            Some(_) => Stage::Open { has_state: state.has_state },
            None if state.waiting => Stage::Waiting,
            None => Stage::Opening,
        }
    }

    /// Where its newest known entry is; `None` until it is open.
    pub fn head(&self) -> Option<Position> {
        self.state().tail.as_ref().map(Tail::head)
    }

    /// How often its tail was brought to where the log was then.
    pub fn renewals(&self) -> u64 {
        self.state().renewals
    }

    /// What comes after a position; `None` until it is open.
    pub fn after(&self, position: Position) -> Option<After> {
        self.state().tail.as_ref().map(|tail| tail.after(position))
    }

    /// Whether nothing comes after a position now.
    pub fn stands_at(&self, position: Position) -> bool {
        self.state().tail.as_ref().is_some_and(|tail| tail.head() == position)
    }

    /// Counts one more stream of `audience`, which hears of news from now on. Returns its key for
    /// this topic: the one it gave before, or else what `new_key` makes.
    pub fn attach(&self, audience: &Arc<dyn Audience>, new_key: impl FnOnce() -> u32) -> u32 {
        let mut state = self.state();
        let known = state.parties.iter_mut().find(|party| Arc::ptr_eq(&party.audience, audience));
        if let Some(party) = known {
            party.streams += 1;
            return party.key;
        }
        let key = new_key();
        state.parties.push(Party { audience: audience.clone(), key, streams: 1 });
        key
    }

    /// Counts one stream of `audience` less.
    pub fn detach(&self, audience: &Arc<dyn Audience>) {
        let mut state = self.state();
        let at = state.parties.iter().position(|party| Arc::ptr_eq(&party.audience, audience));
        let Some(at) = at else { return };
        state.parties[at].streams -= 1;
        if state.parties[at].streams == 0 {
            state.parties.swap_remove(at);
            state.left_at = Instant::now();
        }
    }

    /// Remembers that the log cannot be asked now, and tells those who wait for it.
    pub fn set_waiting(&self) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.waiting, true) {
            wake(state);
        }
    }

    /// Remembers that the topic got a state after it was opened.
    pub fn set_has_state(&self) {
        self.state().has_state = true;
    }

    fn state(&self) -> MutexGuard<'_, TopicState> {
        lock(&self.state)
    }
}

/// Tells everybody who follows a topic that it has news.
fn wake(state: MutexGuard<'_, TopicState>) {
    let mut asleep = Vec::new();
    for party in &state.parties {
        if party.audience.news(party.key) {
            asleep.push(party.audience.clone());
        }
    }
    for (_, signal) in &state.watchers {
        signal.notify_one();
    }
    // Only now: whoever wakes up asks the topic what the news is, and would have to wait for it.
    // Other topics' news for the same audience waits for this bell; ten thousand watchers that are
    // told first take a millisecond or so.
    drop(state);
    for audience in asleep {
        audience.ring();
    }
}

impl TopicState {
    /// How many streams follow the topic.
    fn streams(&self) -> usize {
        self.watchers.len() + self.parties.iter().map(|party| party.streams).sum::<usize>()
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut state = self.topic.state();
        state.watchers.remove(self.key);
        if state.watchers.is_empty() {
            // Ten thousand streams that left leave no room behind.
            state.watchers.shrink_to_fit();
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

    struct Deaf;

    impl Audience for Deaf {
        fn news(&self, _: u32) -> bool {
            false
        }

        fn ring(&self) {}
    }

    #[test]
    fn the_topics_that_most_streams_follow_come_first() {
        let hub = Hub::new();
        let audience: Arc<dyn Audience> = Arc::new(Deaf);
        let mut joined = Vec::new();
        for (name, connections, parked) in [("a", 1, 0), ("b", 1, 5), ("c", 3, 0), ("d", 2, 2)] {
            let topic = Topic::new(name).unwrap_or_else(|_| panic!("{name} is a name"));
            for _ in 0..connections {
                joined.push(hub.join(&topic, Arc::default()));
            }
            for _ in 0..parked {
                joined[joined.len() - 1].topic.attach(&audience, || 0);
            }
        }
        let order: Vec<String> = hub.all().iter().map(|topic| topic.name().to_string()).collect();
        assert_eq!(order, ["b", "d", "c", "a"]);
        assert_eq!(hub.census(12).topics["b"], 6);
        let busiest = hub.all()[0].clone();
        for _ in 0..5 {
            busiest.detach(&audience);
        }
        let order: Vec<String> = hub.all().iter().map(|topic| topic.name().to_string()).collect();
        assert_eq!(order, ["d", "c", "a", "b"]);
    }
}
