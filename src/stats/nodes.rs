//! What the nodes tell: [`Own`] is what this one does, [`Nodes`] what all do, added up. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Counts, Largest, NodeView, TOLD_TOPICS_MAX, View};
use crate::hub::ranking::{ByKind, Ranking};
use crate::log::{NodeTotals, StatsUpdate, TopicStreams};
use crate::topic::Topic;

/// Changes that one update tells at most; what is left comes with the next one.
const UPDATE_TOPICS_MAX: usize = 500;

/// What this node tells the others.
pub(super) struct Own {
    /// How often the hub's ranking had changed when it was last looked at.
    pub(super) hub_changes: Option<u64>,
    version: u64,
    totals: NodeTotals,
    /// Its largest topics.
    told: Counts,
    /// What of it changed since the last update.
    changed: Counts,
    /// The next update says everything.
    everything: bool,
}

impl Own {
    pub(super) fn new() -> Own {
        Own {
            hub_changes: None,
            // Lua and Redis take it as a number of 53 bits.
            version: fastrand::u64(1..1 << 48),
            totals: NodeTotals::default(),
            told: Counts::default(),
            changed: Counts::default(),
            everything: true,
        }
    }

    pub(super) fn totals(&self) -> NodeTotals {
        self.totals
    }

    pub(super) fn set_totals(&mut self, totals: NodeTotals) {
        self.totals = totals;
    }

    /// These are the largest topics now; returns what that changes.
    pub(super) fn change(&mut self, largest: &Largest) -> Vec<TopicStreams> {
        let mut changes = Vec::new();
        for has_state in [true, false] {
            let told = self.told.of_mut(has_state);
            let now: HashMap<&Topic, usize> =
                largest.of(has_state).iter().map(|(topic, streams)| (topic, *streams)).collect();
            let gone = told.keys().filter(|topic| !now.contains_key(topic));
            let gone: Vec<(Topic, usize)> = gone.map(|topic| (topic.clone(), 0)).collect();
            let changed = largest.of(has_state).iter();
            let changed = changed.filter(|(topic, streams)| told.get(topic) != Some(streams));
            let changed: Vec<(Topic, usize)> = changed.cloned().collect();
            for (topic, streams) in gone.into_iter().chain(changed) {
                match streams {
                    0 => told.remove(&topic),
                    _ => told.insert(topic.clone(), streams),
                };
                self.changed.of_mut(has_state).insert(topic.clone(), streams);
                changes.push(TopicStreams { topic, has_state, streams });
            }
        }
        changes
    }

    /// What has to be told now; it counts as told.
    pub(super) fn next_update(&mut self) -> StatsUpdate {
        let before = self.version;
        let (base, topics) = match std::mem::take(&mut self.everything) {
            true => {
                self.changed = Counts::default();
                (None, take_some(&mut self.told.clone(), usize::MAX))
            }
            false => (Some(before), take_some(&mut self.changed, UPDATE_TOPICS_MAX)),
        };
        if base.is_none() || !topics.is_empty() {
            self.version += 1;
        }
        StatsUpdate { version: self.version, base, totals: self.totals, topics }
    }

    /// Nobody knows what became of the last update.
    pub(super) fn tell_everything(&mut self) {
        self.everything = true;
    }
}

fn take_some(counts: &mut Counts, max: usize) -> Vec<TopicStreams> {
    let mut taken = Vec::new();
    for has_state in [true, false] {
        let counts = counts.of_mut(has_state);
        let some: Vec<Topic> = counts.keys().take(max - taken.len()).cloned().collect();
        for topic in some {
            let streams = counts.remove(&topic).unwrap_or_default();
            taken.push(TopicStreams { topic, has_state, streams });
        }
    }
    taken
}

/// What all nodes serve: kept as it changes.
///
/// Invariant: `sums` is the sum of what the nodes tell.
pub(super) struct Nodes {
    own: String,
    nodes: BTreeMap<String, Node>,
    sums: ByKind<Sums>,
}

#[derive(Default)]
struct Node {
    /// The last update that is in here.
    version: Option<u64>,
    totals: NodeTotals,
    told: Counts,
    /// How it is shown, until something changes.
    view: Option<Arc<NodeView>>,
}

/// Topics by their streams over all nodes.
#[derive(Default)]
struct Sums {
    streams: HashMap<Topic, usize>,
    ranking: Ranking,
}

impl Sums {
    /// A node has so many streams of a topic now, and had so many before.
    fn change(&mut self, topic: &Topic, before: usize, now: usize) {
        let sum = self.streams.get(topic).copied().unwrap_or_default();
        let new = (sum + now).saturating_sub(before);
        self.ranking.change(topic, sum, new);
        match new {
            0 => self.streams.remove(topic),
            _ => self.streams.insert(topic.clone(), new),
        };
    }
}

impl Nodes {
    pub(super) fn new(own: &str) -> Nodes {
        let nodes = BTreeMap::from([(own.to_owned(), Node::default())]);
        Nodes { own: own.to_owned(), nodes, sums: ByKind::default() }
    }

    /// The last updates of the other nodes.
    pub(super) fn versions(&self) -> HashMap<String, u64> {
        let versions = self.nodes.iter().map(|(name, node)| Some((name.clone(), node.version?)));
        versions.flatten().collect()
    }

    /// Takes what another node has told; says whether that was anything new.
    pub(super) fn update(&mut self, name: &str, update: StatsUpdate) -> bool {
        let StatsUpdate { version, base, totals, topics } = update;
        if base.is_none() {
            self.forget(name);
        }
        let is_new = !self.nodes.contains_key(name) || !topics.is_empty();
        self.apply(name, topics);
        let is_new = self.set_totals(name, totals) || is_new;
        if let Some(node) = self.nodes.get_mut(name) {
            node.version = Some(version);
        }
        is_new
    }

    /// Changes what a node serves.
    pub(super) fn apply(&mut self, name: &str, changes: Vec<TopicStreams>) {
        let node = self.nodes.entry(name.to_owned()).or_default();
        for TopicStreams { topic, has_state, streams } in changes {
            let told = node.told.of_mut(has_state);
            let before = told.get(&topic).copied().unwrap_or_default();
            self.sums.of_mut(has_state).change(&topic, before, streams);
            match streams {
                0 => told.remove(&topic),
                _ => told.insert(topic, streams),
            };
            node.view = None;
        }
    }

    /// Changes how much a node serves; says whether that was another number.
    pub(super) fn set_totals(&mut self, name: &str, totals: NodeTotals) -> bool {
        let node = self.nodes.entry(name.to_owned()).or_default();
        let changed = node.totals != totals;
        if changed {
            node.totals = totals;
            node.view = None;
        }
        changed
    }

    /// Forgets nodes that are no more; says whether there were any.
    pub(super) fn forget_all_but(&mut self, living: &[String]) -> bool {
        let is_dead = |name: &&String| **name != self.own && !living.contains(name);
        let dead: Vec<String> = self.nodes.keys().filter(is_dead).cloned().collect();
        for name in &dead {
            self.forget(name);
        }
        !dead.is_empty()
    }

    /// Forgets what the other nodes have told.
    pub(super) fn forget_others(&mut self) {
        self.forget_all_but(&[]);
    }

    fn forget(&mut self, name: &str) {
        let Some(node) = self.nodes.remove(name) else { return };
        for has_state in [true, false] {
            for (topic, streams) in node.told.of(has_state) {
                self.sums.of_mut(has_state).change(topic, *streams, 0);
            }
        }
    }

    /// How all of it is shown.
    pub(super) fn view(&mut self, complete: bool) -> View {
        let largest = self.sums.map(|sums| sums.ranking.largest(TOLD_TOPICS_MAX));
        let told = self.sums.with_state.ranking.len() + self.sums.plain.ranking.len();
        let shown = largest.with_state.len() + largest.plain.len();
        let nodes: BTreeMap<String, Arc<NodeView>> =
            self.nodes.iter_mut().map(|(name, node)| (name.clone(), node.view())).collect();
        let untold: usize = nodes.values().map(|node| node.untold()).sum();
        View { largest, omitted: told - shown + untold, nodes, complete }
    }
}

impl Node {
    fn view(&mut self) -> Arc<NodeView> {
        let Node { view, totals, told, .. } = self;
        let view = view.get_or_insert_with(|| {
            let largest = told.map(|told| {
                let mut largest: Vec<(Topic, usize)> =
                    told.iter().map(|(topic, streams)| (topic.clone(), *streams)).collect();
                largest.sort_unstable_by(|(one, ones), (other, others)| {
                    (Reverse(ones), one).cmp(&(Reverse(others), other))
                });
                largest
            });
            Arc::new(NodeView { totals: *totals, largest })
        });
        view.clone()
    }
}
