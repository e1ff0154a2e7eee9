//! [`Registry`]: what the nodes tell each other of the streams that they serve.

use std::collections::HashMap;

use async_trait::async_trait;

use super::LogError;
use crate::topic::Topic;

/// How many streams a node serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeTotals {
    /// Open streams.
    pub streams: usize,
    /// Topics that they follow, those with a state and those without one.
    pub topics: usize,
}

/// How many streams of one node follow one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicStreams {
    /// The topic.
    pub topic: Topic,
    /// Whether it has a state beside its log.
    pub has_state: bool,
    /// Streams that follow it; 0 takes it from what the node has told.
    pub streams: usize,
}

/// What a node serves, or what of it has changed.
///
/// A node's updates are numbered without a hole. Each either says everything, or builds on the one
/// before: `base` is that one's number. It is its own number if no topic has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsUpdate {
    /// Its number. A process begins at random, so that two of the same name are not mixed up.
    pub version: u64,
    /// The number of the update that this one builds on; `None` if it says everything.
    pub base: Option<u64>,
    /// Totals now.
    pub totals: NodeTotals,
    /// Topics that changed, or all that are told if it says everything; some thousands at most. If
    /// one comes twice, the last one counts.
    pub topics: Vec<TopicStreams>,
}

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The other nodes can read it.
    Taken,
    /// What it builds on is not there (any more): say everything.
    BaseMissing,
}

/// What the nodes tell each other of themselves.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// Tells the other nodes what this one serves, and that it lives: a node of which nothing was
    /// heard for some seconds is forgotten. After an error say everything.
    async fn publish_stats(&self, node: &str, update: &StatsUpdate) -> Result<Published, LogError>;

    /// The living nodes other than `node`, each with an update that builds on the one that is
    /// `known` of it, or says everything.
    async fn cluster_stats(
        &self,
        node: &str,
        known: &HashMap<String, u64>,
    ) -> Result<Vec<(String, StatsUpdate)>, LogError>;

    /// Removes what this node has told: it is going away.
    async fn remove_stats(&self, node: &str);
}
