//! [`Replays`]: reading the log for streams that are behind their topic's tail.
//!
//! Two thousand browsers that come back after a deploy ask for much the same entries. Reads go by
//! aligned pages, and whoever wants a page that is being read waits for that read: a stampede
//! costs one read per topic and page, not one per client. What was read stays within the node's
//! [budget](crate::budget) until the last reader has taken it.

pub mod page;
pub(crate) mod shared;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::budget::{Budget, Reserved};
use crate::frame::pieces::{PieceSum, Pieces};
use crate::log::{Log, LogError, Page, READ_BYTES_MAX, READ_ENTRIES_MAX, Snapshot, Snapshots};
use crate::position::{LogHistory, Position};
use crate::telemetry::metric;
use crate::topic::Topic;
use crate::wire::sse::{self, Layout};
use page::ReplayPage;
use shared::Shared;

/// How many reads for replays are in flight to the log at most; a page is about a megabyte.
const READS_MAX: usize = 16;

/// How many reads of histories, which are small, are in flight at most. They have their own bound:
/// who only has to be told that its position is lost, or where the log begins, does not wait for
/// those who wait for pages.
const HISTORY_READS_MAX: usize = 16;

/// How many states are read at the same time: until one is read nobody knows how large it is.
const STATE_READS_MAX: usize = 1;

/// What is reserved for a state that was never read, in bytes.
const STATE_BYTES_GUESSED: usize = 256 << 10;

/// How long a page that nobody asks for stays in memory.
const PAGE_STAYS: Duration = Duration::from_secs(3);

/// How many pages stay in memory at most; beyond it those go that nobody asked for for longest.
const PAGES_MAX: usize = 128;

/// What was made of the pages for streams that are compressed takes no more, in bytes of memory:
/// beyond it entries go out as they are.
const PIECES_BYTES_MAX: usize = 16 << 20;

/// How many histories stay in memory at most.
const HISTORIES_MAX: usize = 128;

/// How many states stay in memory at most: the largest boards take some 24 MB.
const STATES_MAX: usize = 8;

/// Reads of the log, shared by all streams of a node.
///
/// Whoever reads has a permit first, and reserves a part of the budget then: so what turns out larger
/// than what was reserved for it is bounded by the permits. Nobody waits for a permit while holding a
/// part of the budget.
pub struct Replays {
    log: Arc<dyn Log>,
    snapshots: Arc<dyn Snapshots>,
    /// By after which entry they begin.
    pages: Shared<(Topic, u64), Option<Arc<ReplayPage>>>,
    histories: Shared<Topic, Option<LogHistory>>,
    states: Shared<Topic, Option<Snapshot>>,
    reads: Semaphore,
    history_reads: Semaphore,
    state_reads: Semaphore,
    budget: Budget,
    /// What was made of frames for streams that are compressed; `None` if none are.
    pieces: Option<Arc<PieceSum>>,
}

impl Replays {
    /// Shared reads of `log`, and of the states of its topics, within a budget.
    pub fn new(log: Arc<dyn Log>, snapshots: Arc<dyn Snapshots>, budget: Budget) -> Replays {
        Replays {
            log,
            snapshots,
            pages: Shared::new(PAGES_MAX),
            histories: Shared::new(HISTORIES_MAX),
            states: Shared::new(STATES_MAX),
            reads: Semaphore::new(READS_MAX),
            history_reads: Semaphore::new(HISTORY_READS_MAX),
            state_reads: Semaphore::new(STATE_READS_MAX),
            budget,
            pieces: None,
        }
    }

    /// From now on frames keep what is made of them for streams that are compressed.
    pub fn keeping_pieces(self) -> Replays {
        Replays { pieces: Some(PieceSum::new(PIECES_BYTES_MAX)), ..self }
    }

    /// What bounds how much is held for readers.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Waits until so many bytes may be held for readers. What is kept in case somebody asks for it
    /// again goes first, the oldest of it first.
    async fn reserve(&self, bytes: usize) -> Reserved {
        loop {
            if let Some(reserved) = self.budget.try_reserve(bytes) {
                return reserved;
            }
            if !self.pages.forget_oldest() && !self.states.forget_oldest() {
                return self.budget.reserve(bytes).await;
            }
        }
    }

    /// Reads a stretch of the log for one reader alone, as [`Log::read`] does, and reserves what its
    /// answer will need.
    pub async fn read(
        &self,
        topic: &Topic,
        from: u64,
        to: u64,
    ) -> Result<(Option<Page>, Reserved), LogError> {
        let _permit = self.reads.acquire().await;
        let reserved = self.reserve(READ_BYTES_MAX).await;
        metric::replay_read();
        Ok((self.log.read(topic, from, to).await?, reserved))
    }

    /// A page of entries around `position`: either read after this call began, or some time
    /// before, but then it has the entry after the position, and is of the incarnation of the log
    /// that the topic's tail is following, no further than that (`tail_head`). Judge the position
    /// by the page's history before anything else. `None` if the topic has no log.
    ///
    /// Pages begin where [`READ_ENTRIES_MAX`] divides, which everybody shares; where entries are so
    /// large that such a page ends before the position, another one begins there. Whoever reads on
    /// finds the page that begins next before its position.
    pub async fn after(
        &self,
        topic: &Topic,
        position: Position,
        tail_head: Position,
    ) -> Result<Option<Arc<ReplayPage>>, LogError> {
        let seq = position.seq;
        let begin = seq - seq % READ_ENTRIES_MAX as u64;
        let follows = |page: &Option<Arc<ReplayPage>>| {
            page.as_ref().is_some_and(|page| {
                page::page_will_do(&page.history, &page.frames, position, tail_head)
            })
        };
        let ends_before = |page: &Option<Arc<ReplayPage>>| {
            page.as_ref().is_some_and(|page| page.ends_before(seq))
        };
        let nearest = self.pages.last_in((topic.clone(), begin)..=(topic.clone(), seq));
        let from = nearest.map_or(begin, |(_, from)| from);
        if from < seq {
            let tells = |page: &Option<Arc<ReplayPage>>| follows(page) || ends_before(page);
            let page = self.page(topic, from, tells).await?;
            if !ends_before(&page) {
                return Ok(page);
            }
        }
        self.page(topic, seq, follows).await
    }

    /// The page that begins after the entry `from`, shared if it is `good`.
    async fn page(
        &self,
        topic: &Topic,
        from: u64,
        good: impl Fn(&Option<Arc<ReplayPage>>) -> bool,
    ) -> Result<Option<Arc<ReplayPage>>, LogError> {
        let page_entries = READ_ENTRIES_MAX as u64;
        let to = from - from % page_entries + page_entries;
        self.pages
            .get((topic.clone(), from), good, |_| async move {
                let (Some(page), reserved) = self.read(topic, from, to).await? else {
                    return Ok(None);
                };
                let (bytes, layouts) = sse::lay_out(&page.entries);
                let bytes = reserved.hold(bytes);
                let frame = |layout: &Layout| {
                    let mut frame = layout.frame(&bytes);
                    self.pieces.iter().for_each(|pieces| frame.keep_pieces(pieces));
                    frame
                };
                let frames = layouts.iter().map(frame).collect();
                Ok(Some(Arc::new(ReplayPage { history: page.history, frames, to })))
            })
            .await
    }

    /// The log as it is now: read after this call began.
    pub async fn history(&self, topic: &Topic) -> Result<Option<LogHistory>, LogError> {
        self.histories
            .get(
                topic.clone(),
                |_| false,
                |_| async {
                    let _permit = self.history_reads.acquire().await;
                    metric::replay_read();
                    self.log.history(topic).await
                },
            )
            .await
    }

    /// The log as it is now, and its first entry with a seq above `seq` if there is one; for logs
    /// that have a gap, which no page is made for.
    pub async fn next(
        &self,
        topic: &Topic,
        seq: u64,
    ) -> Result<Option<(LogHistory, Option<u64>)>, LogError> {
        let (page, _reserved) = self.read(topic, seq, u64::MAX).await?;
        let first = |page: &Page| page.entries.first().map(|entry| entry.position.seq);
        Ok(page.map(|page| (page.history.clone(), first(&page))))
    }

    /// The whole state of a topic, read after this call began; `None` if it has none.
    pub async fn snapshot(&self, topic: &Topic) -> Result<Option<Snapshot>, LogError> {
        self.states
            .get(
                topic.clone(),
                |_| false,
                |last| async move {
                    let last = last.flatten();
                    if let Some(last) = &last
                        && self.is_still_at(topic, last.position).await?
                    {
                        return Ok(Some(last.clone()));
                    }
                    // The one before is kept no longer: it may be what is waited for.
                    let guessed = last.map_or(STATE_BYTES_GUESSED, |last| last.json.len());
                    let _permit = self.state_reads.acquire().await;
                    let reserved = self.reserve(guessed).await;
                    let Some(read) = self.snapshots.snapshot(topic).await? else { return Ok(None) };
                    let json: Bytes = reserved.hold(read.json.into());
                    let pieces = self.pieces.as_ref().map(|sum| Arc::new(Pieces::new(sum.clone())));
                    Ok(Some(Snapshot { position: read.position, json, pieces }))
                },
            )
            .await
    }

    /// Whether nothing was written to a topic since it stood at `position`: each change of its state
    /// is an entry.
    async fn is_still_at(&self, topic: &Topic, position: Position) -> Result<bool, LogError> {
        let heads = self.log.heads(std::slice::from_ref(topic)).await?;
        Ok(heads.of_topics.first() == Some(&Some((position.epoch, position.seq))))
    }

    /// Forgets what nobody asked for lately; all that is kept in case if somebody waits for the
    /// budget. To be called once a second.
    pub fn sweep(&self) {
        self.pages.sweep(PAGE_STAYS);
        self.histories.sweep(PAGE_STAYS);
        self.states.sweep(PAGE_STAYS);
        while self.budget.is_waited_for()
            && (self.pages.forget_oldest() || self.states.forget_oldest())
        {}
        self.budget.look();
    }
}

#[cfg(test)]
mod tests;
