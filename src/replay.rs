//! [`Replays`]: reading the log for streams that are behind their topic's tail.
//!
//! Two thousand browsers that come back after a deploy ask for much the same entries. Reads go by
//! aligned pages, and whoever wants a page that is being read waits for that read: a stampede
//! costs one read per topic and page, not one per client. What was read stays within the node's
//! [budget](crate::budget) until the last reader has taken it.

pub mod page;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::Instant;

use crate::budget::{BUDGET_BYTES_MAX, Budget, Reserved};
use crate::log::{Log, LogError, Page, READ_BYTES_MAX, READ_ENTRIES_MAX, Snapshot, Snapshots};
use crate::position::{LogHistory, Position};
use crate::telemetry::metric;
use crate::topic::Topic;
use crate::wire::sse;
use page::ReplayPage;

/// How many reads for replays are in flight to the log at most; a page is about a megabyte.
const READS_MAX: usize = 16;

/// How many states are read at the same time: until one is read nobody knows how large it is.
const STATE_READS_MAX: usize = 1;

/// What is reserved for a state that was never read, in bytes.
const STATE_BYTES_GUESSED: usize = 256 << 10;

/// How long a page that nobody asks for stays in memory.
const PAGE_STAYS: Duration = Duration::from_secs(3);

/// How many pages stay in memory at most; beyond it all go, and are read again when asked for.
const PAGES_MAX: usize = 128;

/// How many states stay in memory at most: the largest boards take some 24 MB.
const STATES_MAX: usize = 8;

/// Reads of the log, shared by all streams of a node.
pub struct Replays {
    log: Arc<dyn Log>,
    snapshots: Arc<dyn Snapshots>,
    pages: Shared<(Topic, u64), Option<Arc<ReplayPage>>>,
    histories: Shared<Topic, Option<LogHistory>>,
    states: Shared<Topic, Option<Snapshot>>,
    reads: Semaphore,
    state_reads: Semaphore,
    budget: Budget,
}

impl Replays {
    /// Shared reads of `log`, and of the states of its topics.
    pub fn new(log: Arc<dyn Log>, snapshots: Arc<dyn Snapshots>) -> Replays {
        Replays {
            log,
            snapshots,
            pages: Shared::new(PAGES_MAX),
            histories: Shared::new(PAGES_MAX),
            states: Shared::new(STATES_MAX),
            reads: Semaphore::new(READS_MAX),
            state_reads: Semaphore::new(STATE_READS_MAX),
            budget: Budget::new(BUDGET_BYTES_MAX),
        }
    }

    /// Waits until so many bytes may be held for readers. What is kept in case somebody asks for it
    /// again goes first.
    pub async fn reserve(&self, bytes: usize) -> Reserved {
        if let Some(reserved) = self.budget.try_reserve(bytes) {
            return reserved;
        }
        self.pages.forget();
        self.states.forget();
        self.budget.reserve(bytes).await
    }

    /// Keeps bytes for readers for which `reserved` was an estimate.
    pub async fn hold(&self, reserved: Reserved, bytes: Vec<u8>) -> Bytes {
        reserved.hold_all(&self.budget, bytes).await
    }

    /// Bytes that are held for readers now.
    pub fn bytes_held(&self) -> usize {
        self.budget.held()
    }

    /// A page of entries around `position`: either read after this call began, or some time
    /// before, but then it has the entry after the position, and is of the incarnation of the log
    /// that the topic's tail is following, no further than that (`tail_head`). Judge the position
    /// by the page's history before anything else. `None` if the topic has no log.
    pub async fn after(
        &self,
        topic: &Topic,
        position: Position,
        tail_head: Position,
    ) -> Result<Option<Arc<ReplayPage>>, LogError> {
        let seq = position.seq;
        let page_entries = READ_ENTRIES_MAX as u64;
        let page = seq / page_entries;
        let follows = |page: &Option<Arc<ReplayPage>>| {
            page.as_ref().is_some_and(|page| {
                page::page_will_do(&page.history, &page.frames, position, tail_head)
            })
        };
        self.pages
            .get((topic.clone(), page), follows, |before| async move {
                let _permit = self.reads.acquire().await;
                let reserved = self.reserve(READ_BYTES_MAX).await;
                metric::replay_read();
                let (begin, end) = (page * page_entries, (page + 1) * page_entries);
                // A page of large entries ends early: then read on from here.
                let ended =
                    before.flatten().and_then(|page| page.frames.last()?.position.seq.into());
                let from = if ended.is_some_and(|ended| ended <= seq) { seq } else { begin };
                let mut read = self.log.read(topic, from, end).await?;
                let last = read.as_ref().and_then(|page| Some(page.entries.last()?.position.seq));
                if from < seq && last.is_some_and(|last| last <= seq) {
                    read = self.log.read(topic, seq, end).await?;
                }
                let Some(page) = read else { return Ok(None) };
                let (bytes, layouts) = sse::lay_out(&page.entries);
                let bytes = self.hold(reserved, bytes).await;
                let frames = layouts.iter().map(|layout| layout.frame(&bytes)).collect();
                Ok(Some(Arc::new(ReplayPage { history: page.history, frames })))
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
                    let _permit = self.reads.acquire().await;
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
        let _permit = self.reads.acquire().await;
        let _reserved = self.reserve(READ_BYTES_MAX).await;
        metric::replay_read();
        let page = self.log.read(topic, seq, u64::MAX).await?;
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
                    let _permit = self.state_reads.acquire().await;
                    let last = last.flatten();
                    if let Some(last) = &last
                        && self.is_still_at(topic, last.position).await?
                    {
                        return Ok(Some(last.clone()));
                    }
                    let guessed = last.map_or(STATE_BYTES_GUESSED, |last| last.json.len());
                    let reserved = self.reserve(guessed).await;
                    let Some(read) = self.snapshots.snapshot(topic).await? else { return Ok(None) };
                    let json = self.hold(reserved, read.json.into()).await;
                    Ok(Some(Snapshot { position: read.position, json }))
                },
            )
            .await
    }

    /// Whether nothing was written to a topic since it stood at `position`: each change of its state
    /// is an entry.
    async fn is_still_at(&self, topic: &Topic, position: Position) -> Result<bool, LogError> {
        let heads = self.log.heads(std::slice::from_ref(topic)).await?;
        Ok(heads.first() == Some(&Some((position.epoch, position.seq))))
    }

    /// Forgets what nobody asked for lately.
    pub fn sweep(&self) {
        self.pages.sweep();
        self.histories.sweep();
        self.states.sweep();
    }
}

/// Results of reads, shared by those who asked before they began.
struct Shared<K, V> {
    slots: Mutex<HashMap<K, Arc<Slot<V>>>>,
    slots_max: usize,
}

struct Slot<V> {
    asked_at: Mutex<Instant>,
    /// Held while reading; the next in line finds what was read.
    last: AsyncMutex<Option<(Instant, Result<V, LogError>)>>,
}

impl<K: Hash + Eq + Clone, V: Clone> Shared<K, V> {
    fn new(slots_max: usize) -> Shared<K, V> {
        Shared { slots: Mutex::default(), slots_max }
    }

    /// The result of a read of `key` that began after this call, or an earlier one that is
    /// `good` all the same. `read` is given the result before. Failures are shared too, so that a log that does not answer is not
    /// asked once per client.
    async fn get<F: Future<Output = Result<V, LogError>>>(
        &self,
        key: K,
        good: impl Fn(&V) -> bool,
        read: impl FnOnce(Option<V>) -> F,
    ) -> Result<V, LogError> {
        let asked_at = Instant::now();
        let slot = self.slot(key, asked_at);
        let mut last = slot.last.lock().await;
        if let Some((began_at, result)) = &*last
            && (*began_at > asked_at || result.as_ref().is_ok_and(good))
        {
            return result.clone();
        }
        let began_at = Instant::now();
        let before = last.as_ref().and_then(|(_, result)| result.clone().ok());
        let result = read(before).await;
        *last = Some((began_at, result.clone()));
        result
    }

    fn slot(&self, key: K, asked_at: Instant) -> Arc<Slot<V>> {
        let mut slots = self.slots();
        if slots.len() >= self.slots_max && !slots.contains_key(&key) {
            slots.clear();
        }
        let slot = slots.entry(key).or_insert_with(|| {
            Arc::new(Slot { asked_at: Mutex::new(asked_at), last: AsyncMutex::new(None) })
        });
        *slot.asked_at.lock().unwrap_or_else(PoisonError::into_inner) = asked_at;
        slot.clone()
    }

    fn sweep(&self) {
        self.slots().retain(|_, slot| {
            slot.asked_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < PAGE_STAYS
        });
    }

    /// Forgets all results; who waits for one still gets it.
    fn forget(&self) {
        self.slots().clear();
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<K, Arc<Slot<V>>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_asks_while_a_read_runs_shares_the_next_one() {
        let shared = Arc::new(Shared::<u32, usize>::new(9));
        let reads = Arc::new(AtomicUsize::new(0));
        let mut asking = Vec::new();
        for n in 0..1000_u64 {
            let (shared, reads) = (shared.clone(), reads.clone());
            asking.push(tokio::spawn(async move {
                // Half come while the first read runs.
                tokio::time::sleep(Duration::from_millis(n % 2)).await;
                let read = |_| async {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    Ok(reads.fetch_add(1, Ordering::Relaxed))
                };
                shared.get(7, |_| false, read).await.unwrap()
            }));
        }
        for asked in asking {
            asked.await.unwrap();
        }
        assert!(reads.load(Ordering::Relaxed) <= 3, "{reads:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_from_before_the_question_is_no_answer_unless_it_is_good() {
        let shared = Shared::<u32, usize>::new(9);
        let read = |n| move |_| async move { Ok(n) };
        assert_eq!(shared.get(1, |_| false, read(1)).await.unwrap(), 1);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(shared.get(1, |_| false, read(2)).await.unwrap(), 2);
        assert_eq!(shared.get(1, |&n| n == 2, read(3)).await.unwrap(), 2);
    }
}
