//! [`Catalogue`]: which topics have a log, and the end of one.

use async_trait::async_trait;

use super::{Conditions, LogError};
use crate::position::Position;
use crate::topic::Topic;

/// Topics that one page of a catalogue has at most.
pub const CATALOGUE_PAGE_MAX: usize = 1_000;

/// A topic that somebody has written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSummary {
    /// Its name.
    pub topic: Topic,
    /// Where its newest entry is, or was before all were deleted.
    pub head: Position,
    /// Entries that can still be read.
    pub entries: u64,
    /// Whether it has a state (see [`Snapshots`](super::Snapshots)).
    pub has_state: bool,
}

/// Some of the topics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CataloguePage {
    /// In an order of the backend's own.
    pub topics: Vec<TopicSummary>,
    /// Where the next page begins, in the backend's own words. `None` after the last one.
    pub next: Option<String>,
}

/// What became of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// All entries are gone, and the deletion has this place.
    At(Position),
    /// There were no entries.
    Nothing,
}

/// Which topics there are, for those who look after all of them.
#[async_trait]
pub trait Catalogue: Send + Sync + 'static {
    /// Those whose names begin with `prefix`: about `limit`, at most [`CATALOGUE_PAGE_MAX`], of those
    /// after a page that said `after`. Whoever reads on to the last page has had every topic that was
    /// there all the time, and perhaps some that were not. A page may be empty and not the last.
    /// `None`: no page has said this `after`.
    async fn topics(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<CataloguePage>, LogError>;

    /// Deletes all entries of a topic without a state in one atomic step. The deletion takes a number
    /// of its own, so that whoever stands before it is told; no entry has that number.
    ///
    /// # Errors
    /// [`LogError::HasState`] of a topic that has one: what it is would be left without its past.
    async fn delete(&self, topic: &Topic, conditions: &Conditions) -> Result<Deleted, LogError>;
}
