//! What the nodes tell each other, in Redis.
//!
//! All nodes: a hash with the totals of each, its version, and when it last said so. Each node: a
//! hash with its topics, and a stream with its last changes, so that who was there reads no more
//! than what changed, and who was not reads the hash. All of it expires with the node.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;

use super::RedisLog;
use super::scripts::{self, Call};
use crate::log::{LogError, NodeTotals, Published, Registry, StatsUpdate, TopicStreams};
use crate::topic::Topic;

/// How long what a node has told counts.
const STATS_LIFETIME: Duration = Duration::from_secs(5);

/// How many changes are kept for nodes that read them late.
const CHANGES_MAX: usize = 8;

/// The field with the version in the hash of a node's topics. No topic is called like this, as each
/// field begins with the kind of its topic.
const VERSION_FIELD: &str = "";

/// A node as the hash of all nodes has it.
struct Heartbeat {
    node: String,
    milliseconds: u64,
    version: u64,
    totals: NodeTotals,
}

#[async_trait]
impl Registry for RedisLog {
    async fn publish_stats(&self, node: &str, update: &StatsUpdate) -> Result<Published, LogError> {
        let keys = [self.keys.shared("stats"), self.topics_key(node), self.changes_key(node)];
        let NodeTotals { streams, topics } = update.totals;
        let mut call = Call::new(&scripts::PUBLISH_STATS, &keys)
            .arg(node)
            .arg(update.base.map(|base| base.to_string()).unwrap_or_default())
            .arg(update.version)
            .arg(format!("{streams} {topics}"))
            .arg(STATS_LIFETIME.as_millis() as u64)
            .arg(CHANGES_MAX);
        for topic in &update.topics {
            call = call.arg(field(topic)).arg(topic.streams);
        }
        let taken: bool = self.commands.call(call).await?;
        Ok(if taken { Published::Taken } else { Published::BaseMissing })
    }

    async fn cluster_stats(
        &self,
        node: &str,
        known: &HashMap<String, u64>,
    ) -> Result<Vec<(String, StatsUpdate)>, LogError> {
        let mut pipe = redis::pipe();
        pipe.cmd("TIME").cmd("HGETALL").arg(self.keys.shared("stats"));
        let ((seconds, microseconds), nodes): ((u64, u64), Vec<(String, String)>) =
            self.reads.pipe("cluster_stats", &pipe).await?;
        let now = seconds * 1_000 + microseconds / 1_000;
        let heartbeats = nodes.into_iter().filter_map(|(node, text)| heartbeat(node, &text));
        let is_alive = |heartbeat: &Heartbeat| {
            let age = now.saturating_sub(heartbeat.milliseconds);
            heartbeat.node != node && age <= STATS_LIFETIME.as_millis() as u64
        };
        let mut updates = Vec::new();
        for heartbeat in heartbeats.filter(is_alive) {
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
        pipe.cmd("HDEL").arg(self.keys.shared("stats")).arg(node).ignore();
        pipe.cmd("DEL").arg(self.topics_key(node)).arg(self.changes_key(node)).ignore();
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
        let mut pipe = redis::pipe();
        pipe.cmd("HGETALL").arg(self.topics_key(node));
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
        let mut pipe = redis::pipe();
        let range = (format!("({after}-0"), format!("{through}-0"));
        pipe.cmd("XRANGE").arg(self.changes_key(node)).arg(range.0).arg(range.1);
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

    fn topics_key(&self, node: &str) -> String {
        self.keys.shared(&format!("stats:topics:{node}"))
    }

    fn changes_key(&self, node: &str) -> String {
        self.keys.shared(&format!("stats:changes:{node}"))
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
    let (milliseconds, version) = (number()?, number()?);
    let totals = NodeTotals { streams: number()? as usize, topics: number()? as usize };
    Some(Heartbeat { node, milliseconds, version, totals })
}
