//! What the nodes tell each other, in Redis.
//!
//! All nodes: a sorted set of their names. Each node, under a hash tag of its own: a string with its
//! version and its totals, a hash with its topics, and a stream with its last changes, so that who
//! was there reads no more than what changed, and who was not reads the hash. All of it expires with
//! the node.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;

use super::RedisLog;
use super::scripts::{self, Call};
use crate::log::{LogError, NodeTotals, Published, Registry, StatsUpdate, TopicStreams};
use crate::topic::Topic;

/// How long what a node has told counts.
pub(super) const STATS_LIFETIME: Duration = Duration::from_secs(5);

/// How many changes are kept for nodes that read them late.
const CHANGES_MAX: usize = 8;

/// The field with the version in the hash of a node's topics. No topic is called like this, as each
/// field begins with the kind of its topic.
const VERSION_FIELD: &str = "";

/// What a living node says first.
struct Heartbeat {
    node: String,
    version: u64,
    totals: NodeTotals,
}

#[async_trait]
impl Registry for RedisLog {
    async fn publish_stats(&self, node: &str, update: &StatsUpdate) -> Result<Published, LogError> {
        let NodeTotals { streams, topics } = update.totals;
        let mut call = Call::new(&scripts::PUBLISH_STATS, &self.keys.node(node))
            .arg(update.base.map(|base| base.to_string()).unwrap_or_default())
            .arg(update.version)
            .arg(format!("{streams} {topics}"))
            .arg(STATS_LIFETIME.as_millis() as u64)
            .arg(CHANGES_MAX);
        for topic in &update.topics {
            call = call.arg(field(topic)).arg(topic.streams);
        }
        let taken: bool = self.commands.call(call).await?;
        // After what it says: whoever finds the name asks for that.
        let noted = Call::new(&scripts::NOTE_NODE, &[self.keys.nodes()])
            .arg(node)
            .arg(STATS_LIFETIME.as_millis() as u64);
        let _: bool = self.commands.call(noted).await?;
        Ok(if taken { Published::Taken } else { Published::BaseMissing })
    }

    async fn cluster_stats(
        &self,
        node: &str,
        known: &HashMap<String, u64>,
    ) -> Result<Vec<(String, StatsUpdate)>, LogError> {
        let mut pipe = redis::pipe();
        pipe.cmd("ZRANGE").arg(self.keys.nodes()).arg(0).arg(-1);
        let (mut nodes,): (Vec<String>,) = self.reads.pipe("cluster_stats", &pipe).await?;
        nodes.retain(|other| other != node);
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for node in &nodes {
            let [alive, ..] = self.keys.node(node);
            pipe.cmd("GET").arg(alive);
        }
        let texts: Vec<Option<String>> = self.reads.pipe("cluster_stats", &pipe).await?;
        let heartbeats = nodes.into_iter().zip(texts);
        let heartbeats = heartbeats.filter_map(|(node, text)| heartbeat(node, &text?));
        let mut updates = Vec::new();
        for heartbeat in heartbeats {
            let known = known.get(&heartbeat.node).copied();
            // A node that is gone since has told nothing.
            if let Some(update) = self.update_of(&heartbeat, known).await? {
                updates.push((heartbeat.node, update));
            }
        }
        Ok(updates)
    }

    async fn remove_stats(&self, node: &str) {
        let mut pipe = redis::pipe();
        pipe.cmd("ZREM").arg(self.keys.nodes()).arg(node).ignore();
        pipe.cmd("DEL").arg(&self.keys.node(node)[..]).ignore();
        // What stays is forgotten after STATS_LIFETIME.
        let _: Result<(), LogError> = self.commands.pipe("remove_stats", &pipe).await;
    }
}

impl RedisLog {
    async fn update_of(
        &self,
        heartbeat: &Heartbeat,
        known: Option<u64>,
    ) -> Result<Option<StatsUpdate>, LogError> {
        let Heartbeat { node, version, totals, .. } = heartbeat;
        let (version, totals) = (*version, *totals);
        if known == Some(version) {
            return Ok(Some(StatsUpdate { version, base: known, totals, topics: Vec::new() }));
        }
        if let Some(known) = known
            && let Some(topics) = self.changes(node, known, version).await?
        {
            return Ok(Some(StatsUpdate { version, base: Some(known), totals, topics }));
        }
        let [_, topics, _] = self.keys.node(node);
        let mut pipe = redis::pipe();
        pipe.cmd("HGETALL").arg(topics);
        let (fields,): (HashMap<String, String>,) = self.reads.pipe("cluster_stats", &pipe).await?;
        // Perhaps newer than the heartbeat.
        let version = fields.get(VERSION_FIELD).and_then(|version| version.parse().ok());
        Ok(version.map(|version| {
            let topics = fields.iter().filter_map(|(field, streams)| topic(field, streams));
            StatsUpdate { version, base: None, totals, topics: topics.collect() }
        }))
    }

    /// What a node changed after one version and through another; `None` if not all of it is there.
    async fn changes(
        &self,
        node: &str,
        after: u64,
        through: u64,
    ) -> Result<Option<Vec<TopicStreams>>, LogError> {
        type Changes = Vec<(String, Vec<(String, String)>)>;
        let [.., changes] = self.keys.node(node);
        let mut pipe = redis::pipe();
        let range = (format!("({after}-0"), format!("{through}-0"));
        pipe.cmd("XRANGE").arg(changes).arg(range.0).arg(range.1);
        let (changes,): (Changes,) = self.reads.pipe("cluster_stats", &pipe).await?;
        let is_next = |((id, _), expected): (&(String, _), u64)| *id == format!("{expected}-0");
        // One that comes back under the same name may have begun with any number.
        let complete = through.checked_sub(after) == Some(changes.len() as u64)
            && changes.iter().zip(after + 1..).all(is_next);
        if !complete {
            return Ok(None);
        }
        // In order, so that the last one counts.
        let fields = changes.into_iter().flat_map(|(_, fields)| fields);
        Ok(Some(fields.filter_map(|(field, streams)| topic(&field, &streams)).collect()))
    }
}

/// The field of a topic: its kind, and its name.
fn field(topic: &TopicStreams) -> String {
    let kind = if topic.has_state { 's' } else { 't' };
    format!("{kind}{}", topic.topic)
}

fn topic(field: &str, streams: &str) -> Option<TopicStreams> {
    let has_state = match field.as_bytes().first()? {
        b's' => true,
        b't' => false,
        _ => return None,
    };
    let topic = Topic::new(&field[1..]).ok()?;
    Some(TopicStreams { topic, has_state, streams: streams.parse().ok()? })
}

fn heartbeat(node: String, text: &str) -> Option<Heartbeat> {
    let mut numbers = text.split(' ').map(str::parse::<u64>);
    let mut number = || numbers.next()?.ok();
    let version = number()?;
    let totals = NodeTotals { streams: number()? as usize, topics: number()? as usize };
    Some(Heartbeat { node, version, totals })
}
