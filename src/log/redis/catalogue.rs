//! The catalogue of all topics in Redis: its keys, looked through a part at a time.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::RedisLog;
use super::replies::{accepted, asks_for_keys, history};
use super::scripts::{self, Call};
use crate::log::{
    CATALOGUE_PAGE_MAX, Catalogue, CataloguePage, Conditions, Deleted, LogError, TopicSummary,
};
use crate::position::Epoch;
use crate::topic::Topic;

/// About as many keys as a topic has: so many times the topics that are wanted are looked at.
const KEYS_PER_TOPIC: usize = 3;

#[async_trait]
impl Catalogue for RedisLog {
    async fn topics(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<CataloguePage>, LogError> {
        let cursor = after.map_or(Some(0), |after| after.parse::<u64>().ok());
        let Some(cursor) = cursor else { return Ok(None) };
        self.settled().await?;
        let mut pipe = redis::pipe();
        pipe.cmd("SCAN").arg(cursor).arg("MATCH").arg(self.keys.pattern_of_seq(prefix));
        pipe.arg("COUNT").arg(limit.min(CATALOGUE_PAGE_MAX) * KEYS_PER_TOPIC);
        let ((next, found),): ((u64, Vec<String>),) = self.reads.pipe("scan", &pipe).await?;
        let topics = found.iter().filter_map(|key| self.keys.topic_of_seq(key));
        let topics: BTreeSet<Topic> =
            topics.filter(|topic| topic.as_str().starts_with(prefix)).collect();
        let topics = self.summaries(topics).await?;
        Ok(Some(CataloguePage { topics, next: (next != 0).then(|| next.to_string()) }))
    }

    async fn delete(&self, topic: &Topic, conditions: &Conditions) -> Result<Deleted, LogError> {
        self.settled().await?;
        let if_match = conditions.if_match.map(|position| position.to_string()).unwrap_or_default();
        let call = |others: &[String]| {
            Call::new(&scripts::DELETE, &self.keys.topic(topic).of_log())
                .keys(others)
                .arg(self.keys.channel(topic))
                .arg(Epoch::random().as_str())
                .arg(self.ttl_milliseconds())
                .arg(&if_match)
        };
        let mut answer = self.write(call(&[])).await?;
        if asks_for_keys(&answer) {
            answer = self.write(call(&self.keys.topic(topic).others())).await?;
        }
        match answer.first().map(String::as_str) {
            Some("nothing") => Ok(Deleted::Nothing),
            Some("has_state") => Err(LogError::HasState),
            _ => Ok(Deleted::At(accepted(&answer)?.last)),
        }
    }
}

impl RedisLog {
    /// What each of them has; nothing of those that are gone meanwhile, or are not as our scripts
    /// leave them.
    async fn summaries(&self, topics: BTreeSet<Topic>) -> Result<Vec<TopicSummary>, LogError> {
        type Found = (Option<String>, Option<String>, u64, bool);
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for topic in &topics {
            pipe.get(self.keys.seq(topic)).get(self.keys.meta(topic));
            pipe.cmd("XLEN").arg(self.keys.log(topic));
            pipe.exists(self.keys.state(topic));
        }
        let found: Vec<redis::Value> = self.reads.pipe("scan", &pipe).await?;
        let summary = |(topic, values): (Topic, &[redis::Value])| {
            let values = redis::Value::Array(values.to_vec());
            let (seq, meta, entries, has_state): Found = redis::from_redis_value(values).ok()?;
            let history = history(&seq?, &meta?, "").ok()?;
            let head = history.at(history.head);
            Some(TopicSummary { topic, head, entries, has_state })
        };
        Ok(topics.into_iter().zip(found.chunks(4)).filter_map(summary).collect())
    }
}
