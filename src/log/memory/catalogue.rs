//! The catalogue of the embedded log. Pages are in the order of names; the next begins behind the last
//! name of the one before.

use async_trait::async_trait;

use super::{MemoryLog, State};
use crate::log::{Catalogue, CataloguePage, Conditions, Deleted, LogError, TopicSummary};
use crate::topic::Topic;

#[async_trait]
impl Catalogue for MemoryLog {
    async fn topics(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<CataloguePage>, LogError> {
        let Ok(after) = after.map(Topic::new).transpose() else { return Ok(None) };
        let state = self.state();
        let mut names = state.topics.names(prefix, after.as_ref());
        let page: Vec<&Topic> = names.by_ref().take(limit).collect();
        let next = names.next().and(page.last()).map(|last| last.to_string());
        let topics = page.into_iter().filter_map(|topic| state.summary(topic)).collect();
        Ok(Some(CataloguePage { topics, next }))
    }

    async fn delete(&self, topic: &Topic, conditions: &Conditions) -> Result<Deleted, LogError> {
        let state = &mut *self.state();
        if state.boards.contain(topic) {
            return Err(LogError::HasState);
        }
        if state.get(topic).is_none_or(|log| log.count() == 0) {
            return Ok(Deleted::Nothing);
        }
        state.check_head(topic, conditions)?;
        let Some(position) = state.topics.delete(topic) else { return Ok(Deleted::Nothing) };
        if state.subscribed.contains(topic) {
            self.notifier.look(topic.clone());
        }
        Ok(Deleted::At(position))
    }
}

impl State {
    /// A topic's log, if it has not expired.
    fn summary(&self, topic: &Topic) -> Option<TopicSummary> {
        let has_state = self.boards.contain(topic);
        let log = self.topics.peek(topic, self.lifetime(topic))?;
        let (head, entries) = (log.head(), log.count() as u64);
        Some(TopicSummary { topic: topic.clone(), head, entries, has_state })
    }
}
