use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;

use super::*;
use crate::address::TrustedProxies;
use crate::admission::client::Client;
use crate::admission::{Admitted, StreamLimits};
use crate::hub::Joined;
use crate::log::StatsUpdate;

/// What nodes have told, for the others to read.
#[derive(Default)]
struct FakeRegistry {
    nodes: Mutex<BTreeMap<String, Told>>,
    /// What was published in full, and how many topics were in each of the others.
    published: Mutex<Vec<Option<usize>>>,
    away: std::sync::atomic::AtomicBool,
}

struct Told {
    version: u64,
    totals: NodeTotals,
    topics: HashMap<(bool, Topic), usize>,
    changes: Vec<(u64, Vec<TopicStreams>)>,
}

impl FakeRegistry {
    fn is_away(&self) -> Result<(), LogError> {
        match self.away.load(std::sync::atomic::Ordering::Relaxed) {
            true => Err(LogError::Unavailable("away".to_owned())),
            false => Ok(()),
        }
    }

    fn published(&self) -> Vec<Option<usize>> {
        std::mem::take(&mut *lock(&self.published))
    }
}

#[async_trait]
impl Registry for FakeRegistry {
    async fn publish_stats(&self, node: &str, update: &StatsUpdate) -> Result<Published, LogError> {
        self.is_away()?;
        let mut nodes = lock(&self.nodes);
        let known = nodes.remove(node).filter(|told| update.base == Some(told.version));
        lock(&self.published).push(update.base.map(|_| update.topics.len()));
        let mut told = match (known, update.base) {
            (Some(told), _) => told,
            (None, Some(_)) => return Ok(Published::BaseMissing),
            (None, None) => Told {
                version: 0,
                totals: update.totals,
                topics: HashMap::new(),
                changes: Vec::new(),
            },
        };
        for TopicStreams { topic, has_state, streams } in update.topics.clone() {
            match streams {
                0 => told.topics.remove(&(has_state, topic)),
                _ => told.topics.insert((has_state, topic), streams),
            };
        }
        if update.base.is_some() && !update.topics.is_empty() {
            assert_eq!(update.version, told.version + 1);
            told.changes.push((update.version, update.topics.clone()));
        }
        told.version = update.version;
        told.totals = update.totals;
        nodes.insert(node.to_owned(), told);
        Ok(Published::Taken)
    }

    async fn cluster_stats(
        &self,
        node: &str,
        known: &HashMap<String, u64>,
    ) -> Result<Vec<(String, StatsUpdate)>, LogError> {
        self.is_away()?;
        let nodes = lock(&self.nodes);
        let others = nodes.iter().filter(|(name, _)| *name != node);
        let update = |(name, told): (&String, &Told)| {
            let Told { version, totals, .. } = *told;
            let base = known.get(name).copied();
            let base = base.filter(|base| told.changes.iter().any(|(at, _)| *at == base + 1));
            let base = base.or_else(|| known.get(name).copied().filter(|base| *base == version));
            let topics = match base {
                Some(base) => {
                    let changes = told.changes.iter().filter(|(at, _)| *at > base);
                    changes.flat_map(|(_, topics)| topics.clone()).collect()
                }
                None => {
                    let topics =
                        told.topics.iter().map(|((has_state, topic), streams)| TopicStreams {
                            topic: topic.clone(),
                            has_state: *has_state,
                            streams: *streams,
                        });
                    topics.collect()
                }
            };
            (name.clone(), StatsUpdate { version, base, totals, topics })
        };
        Ok(others.map(update).collect())
    }

    async fn remove_stats(&self, node: &str) {
        lock(&self.nodes).remove(node);
    }
}

/// A node with streams.
struct FakeNode {
    hub: Arc<Hub>,
    admission: Arc<Admission>,
    stats: Arc<ClusterStats>,
    running: tokio::task::JoinHandle<()>,
    streams: Vec<(Admitted, Joined)>,
}

impl FakeNode {
    fn start(name: &str, registry: &Arc<FakeRegistry>) -> FakeNode {
        let hub = Hub::new();
        let admission = Admission::new(StreamLimits::of_streams(1_000_000));
        let stats = ClusterStats::new(name, hub.clone(), admission.clone(), registry.clone());
        let running = tokio::spawn(stats.clone().run());
        FakeNode { hub, admission, stats, running, streams: Vec::new() }
    }

    fn open(&mut self, name: &str) {
        let client = Client::of([127, 0, 0, 1].into(), &TrustedProxies::default());
        let admitted = self.admission.admit(client, 1);
        let joined = self.hub.join(&topic(name), Arc::default());
        self.streams.push((admitted.unwrap_or_else(|_| panic!("full")), joined));
    }

    /// Topics over all nodes and their streams, as this node shows them.
    fn shown(&self) -> Vec<(String, usize)> {
        let view = self.stats.view();
        let shown = view.largest.plain.iter();
        shown.map(|(topic, streams)| (topic.to_string(), *streams)).collect()
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// What is counted now is shown everywhere after this.
async fn a_second() {
    tokio::time::sleep(Duration::from_millis(1_001)).await;
}

#[tokio::test(start_paused = true)]
async fn every_node_shows_the_streams_of_all_within_a_second() {
    let registry = Arc::new(FakeRegistry::default());
    let mut nodes = ["one", "two", "three"].map(|name| FakeNode::start(name, &registry));
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..60 {
        let node = &mut nodes[random.usize(..3)];
        for _ in 0..random.usize(..8) {
            match random.bool() {
                true => node.open(["a", "b", "c", "d"][random.usize(..4)]),
                false if node.streams.is_empty() => {}
                false => drop(node.streams.swap_remove(random.usize(..node.streams.len()))),
            }
        }
        if random.bool() {
            // What it is known by is gone.
            lock(&registry.nodes).clear();
        }
        tokio::time::sleep(Duration::from_millis(random.u64(..1_000))).await;
        a_second().await;
        let mut expected = BTreeMap::<&str, usize>::new();
        for (_, joined) in nodes.iter().flat_map(|node| &node.streams) {
            *expected.entry(joined.topic.name().as_str()).or_default() += 1;
        }
        let total: usize = nodes.iter().map(|node| node.streams.len()).sum();
        for node in &nodes {
            let shown = node.shown();
            assert!(shown.is_sorted_by_key(|(_, streams)| std::cmp::Reverse(*streams)));
            let shown = shown.iter().map(|(name, streams)| (name.as_str(), *streams));
            assert_eq!(shown.collect::<BTreeMap<_, _>>(), expected);
            let view = node.stats.view();
            assert_eq!((view.total(), view.omitted, view.nodes.len()), (total, 0, 3));
            assert!(view.complete);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_tells_what_changed_and_nothing_when_it_is_idle() {
    let registry = Arc::new(FakeRegistry::default());
    let mut node = FakeNode::start("one", &registry);
    for n in 0..700 {
        node.open(&format!("t{n}"));
    }
    a_second().await;
    registry.published();
    node.open("t17");
    node.open("new");
    a_second().await;
    assert_eq!(registry.published(), [Some(2), Some(0)]);
    for n in 0..700 {
        node.open(&format!("t{n}"));
    }
    a_second().await;
    a_second().await;
    // A bounded number at a time.
    assert_eq!(registry.published(), [Some(500), Some(200), Some(0), Some(0)]);
}

#[tokio::test(start_paused = true)]
async fn of_more_topics_than_are_told_the_largest_are_and_totals_are_complete() {
    let registry = Arc::new(FakeRegistry::default());
    let mut node = FakeNode::start("one", &registry);
    let other = FakeNode::start("two", &registry);
    for n in 0..TOLD_TOPICS_MAX + 500 {
        node.open(&format!("t{n}"));
    }
    node.open("t1234");
    a_second().await;
    for stats in [&node.stats, &other.stats] {
        let view = stats.view();
        assert_eq!((view.total(), view.omitted), (TOLD_TOPICS_MAX + 501, 500));
        assert_eq!(view.largest.plain.len(), TOLD_TOPICS_MAX);
        assert_eq!(view.largest.plain[0], (topic("t1234"), 2));
        assert_eq!(view.nodes["one"].untold(), 500);
    }
    // On the node itself each topic is known.
    let smallest = node.stats.own_streams(&topic("t999"));
    assert_eq!(smallest.streams, 1);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_gone_or_cannot_be_heard_are_no_longer_counted() {
    let registry = Arc::new(FakeRegistry::default());
    let mut nodes = ["one", "two"].map(|name| FakeNode::start(name, &registry));
    for node in &mut nodes {
        node.open("t");
    }
    a_second().await;
    assert_eq!(nodes[0].shown(), [("t".to_owned(), 2)]);

    registry.away.store(true, std::sync::atomic::Ordering::Relaxed);
    a_second().await;
    // As it last was.
    assert_eq!(nodes[0].shown(), [("t".to_owned(), 2)]);
    assert!(!nodes[0].stats.view().complete);
    tokio::time::sleep(UNHEARD_MAX).await;
    assert_eq!(nodes[0].shown(), [("t".to_owned(), 1)]);

    registry.away.store(false, std::sync::atomic::Ordering::Relaxed);
    a_second().await;
    assert_eq!(nodes[0].shown(), [("t".to_owned(), 2)]);
    assert!(nodes[0].stats.view().complete);
    nodes[1].running.abort();
    nodes[1].stats.remove().await;
    a_second().await;
    assert_eq!(nodes[0].shown(), [("t".to_owned(), 1)]);
    assert_eq!(nodes[0].stats.view().nodes.len(), 1);
}
