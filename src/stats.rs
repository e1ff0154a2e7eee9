//! [`ClusterStats`]: how many streams follow which topics, on this node and on the others.
//!
//! The [`hub`](crate::hub) ranks its topics as their streams come and go. Twice a second what has
//! changed of the largest goes into the [`View`] from which everybody is answered who asks, and to
//! the other nodes by the [`Registry`]; what they have told comes back. An idle node tells no more
//! than that it lives.

mod nodes;
mod view;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use crate::admission::Admission;
use crate::hub::ranking::ByKind;
use crate::hub::{Hub, LargestTopics};
use crate::log::{LogError, NodeTotals, Published, Registry, TopicStreams};
use crate::topic::Topic;
use nodes::{Nodes, Own};
pub use view::{Largest, NodeView, View};

/// Topics that a node tells of, the largest, of those that have a state and of those that have
/// none.
pub const TOLD_TOPICS_MAX: usize = 1_000;

/// How often the view is brought up to date, and the others are told and asked after that. What this
/// node serves is in it after this time, what another does after twice this time.
const INTERVAL: Duration = Duration::from_millis(500);

/// Topics that are ranked in one step.
const SLICE_TOPICS_MAX: usize = 500;

/// After this time without an answer the other nodes are forgotten.
const UNHEARD_MAX: Duration = Duration::from_secs(5);

/// What this node and the others serve.
pub struct ClusterStats {
    node: String,
    hub: Arc<Hub>,
    admission: Arc<Admission>,
    registry: Arc<dyn Registry>,
    state: Mutex<State>,
    view: Mutex<Arc<View>>,
    /// Told when the others can be told what changed here.
    own_taken: Notify,
}

struct State {
    own: Own,
    nodes: Nodes,
    /// The other nodes were heard when they were last asked.
    complete: bool,
    heard_at: Instant,
    /// Something is not in the view yet.
    view_is_old: bool,
}

impl ClusterStats {
    /// Those of this node, and of the others that `registry` knows.
    pub fn new(
        node: &str,
        hub: Arc<Hub>,
        admission: Arc<Admission>,
        registry: Arc<dyn Registry>,
    ) -> Arc<ClusterStats> {
        let mut state = State {
            own: Own::new(),
            nodes: Nodes::new(node),
            complete: false,
            heard_at: Instant::now(),
            view_is_old: false,
        };
        let view = Mutex::new(Arc::new(state.nodes.view(false)));
        let node = node.to_owned();
        let (state, own_taken) = (Mutex::new(state), Notify::new());
        Arc::new(ClusterStats { node, hub, admission, registry, state, view, own_taken })
    }

    /// What is served, as it was a moment ago. Costs nothing.
    pub fn view(&self) -> Arc<View> {
        lock(&self.view).clone()
    }

    /// How many streams of this node follow one topic now, however small it is; with whether it has
    /// a state.
    pub fn own_streams(&self, topic: &Topic) -> TopicStreams {
        let found = self.hub.get(topic);
        let (has_state, streams) = found.map_or((false, 0), |topic| topic.kind_and_streams());
        TopicStreams { topic: topic.clone(), has_state, streams }
    }

    /// Keeps the view up to date for ever.
    pub async fn run(self: Arc<ClusterStats>) {
        tokio::join!(self.follow_own(), self.follow_others());
    }

    /// Takes away what this node has told: it is going away.
    pub async fn remove(&self) {
        self.registry.remove_stats(&self.node).await;
    }

    async fn follow_own(&self) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.take_own().await;
            self.own_taken.notify_one();
        }
    }

    /// Puts into the view what changed on this node.
    async fn take_own(&self) {
        while self.hub.rank(SLICE_TOPICS_MAX) {
            tokio::task::yield_now().await;
        }
        let mut state = self.state();
        let State { own, nodes, .. } = &mut *state;
        let mut totals = NodeTotals { streams: self.admission.streams(), ..own.totals() };
        let mut changed = false;
        if own.hub_changes != Some(self.hub.ranking_changes()) {
            let LargestTopics { topics, counts, changes } = self.hub.largest(TOLD_TOPICS_MAX);
            own.hub_changes = Some(changes);
            totals.topics = counts.with_state + counts.plain;
            let changes = own.change(&topics);
            changed = !changes.is_empty();
            nodes.apply(&self.node, changes);
        }
        changed |= nodes.set_totals(&self.node, totals);
        own.set_totals(totals);
        state.view_is_old |= changed;
        self.renew_view(&mut state);
    }

    /// By itself, so that a registry that does not answer keeps nobody from what this node serves.
    async fn follow_others(&self) {
        loop {
            self.own_taken.notified().await;
            let exchanged = self.exchange().await;
            let mut state = self.state();
            let complete = exchanged.is_ok();
            if let Err(error) = exchanged {
                tracing::debug!(%error, "cannot tell or ask the other nodes");
                if state.heard_at.elapsed() > UNHEARD_MAX {
                    state.nodes.forget_others();
                    state.view_is_old = true;
                }
            } else {
                state.heard_at = Instant::now();
            }
            state.view_is_old |= state.complete != complete;
            state.complete = complete;
            self.renew_view(&mut state);
        }
    }

    /// Tells the other nodes what changed here, and takes what changed there.
    async fn exchange(&self) -> Result<(), LogError> {
        self.publish().await?;
        let known = self.state().nodes.versions();
        let updates = self.registry.cluster_stats(&self.node, &known).await?;
        let living: Vec<String> = updates.iter().map(|(node, _)| node.clone()).collect();
        for (node, update) in updates {
            let mut state = self.state();
            state.view_is_old |= state.nodes.update(&node, update);
        }
        let mut state = self.state();
        state.view_is_old |= state.nodes.forget_all_but(&living);
        Ok(())
    }

    async fn publish(&self) -> Result<(), LogError> {
        // Once more, in full, if the other side does not know what changed since when.
        for _ in 0..2 {
            let update = self.state().own.next_update();
            let published = self.registry.publish_stats(&self.node, &update).await;
            if !matches!(published, Ok(Published::Taken)) {
                self.state().own.tell_everything();
            }
            if published? == Published::Taken {
                break;
            }
        }
        Ok(())
    }

    /// Makes the view anew if something has changed.
    fn renew_view(&self, state: &mut State) {
        if std::mem::take(&mut state.view_is_old) {
            *lock(&self.view) = Arc::new(state.nodes.view(state.complete));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many streams follow each of some topics.
type Counts = ByKind<std::collections::HashMap<Topic, usize>>;

#[cfg(test)]
mod tests;
