//! Repairs: read the log from a tail's head on, and feed it what is found.
//!
//! Opening a topic, a gap, a new epoch, a lost subscription and a flushed log are all the same
//! repair. While one runs, what is announced for its topic is buffered, so that nothing is delivered
//! before what came earlier.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::Relay;
use crate::background;
use crate::backoff::Backoff;
use crate::frame::Frame;
use crate::hub::HubTopic;
use crate::hub::tail::Pushed;
use crate::log::LogError;
use crate::telemetry::metric;
use crate::topic::Topic;
use crate::wire::sse;

/// How many announcements are buffered during a repair. Beyond it the oldest are dropped, and the
/// repair reads them from the log.
pub(super) const BUFFERED_FRAMES_MAX: usize = 256;
const BUFFERED_BYTES_MAX: usize = 1 << 20;

/// What all topics under repair buffer together, in bytes of memory. Beyond it a topic that gets more
/// buffers nothing, and is read once more instead.
const BUFFERED_SUM_BYTES_MAX: usize = 32 << 20;

/// How many repairs may be under way before another slice of topics gets theirs: each is a task,
/// and a quarter of a million of them would take 150 MB.
const UNDER_WAY_MAX: usize = 1_000;

/// The first and the longest wait before asking a log again that did not answer.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(1);

/// What happened to a topic during its repair.
#[derive(Default)]
pub(super) struct Repair {
    /// What was announced.
    buffered: Buffered,
    /// Somebody found that the log has more than was read, perhaps after it was read.
    again: bool,
}

/// Frames that were announced during a repair, counted among those of all repairs while they are
/// here.
#[derive(Default)]
struct Buffered {
    frames: VecDeque<Frame>,
    bytes: usize,
    sum: Arc<AtomicUsize>,
}

impl Repair {
    /// Keeps what was announced meanwhile. `sum` counts what all repairs keep, in bytes.
    pub(super) fn buffer(&mut self, frame: Frame, sum: &Arc<AtomicUsize>) {
        let buffered = &mut self.buffered;
        if buffered.frames.is_empty() {
            buffered.sum = sum.clone();
        }
        buffered.push_back(frame);
        while buffered.frames.len() > BUFFERED_FRAMES_MAX
            || (buffered.bytes > BUFFERED_BYTES_MAX && buffered.frames.len() > 1)
        {
            buffered.pop_front();
        }
        if sum.load(Ordering::Relaxed) > BUFFERED_SUM_BYTES_MAX {
            *buffered = Buffered::default();
            self.again = true;
        }
    }
}

impl Buffered {
    fn push_back(&mut self, frame: Frame) {
        self.bytes += frame.memory();
        self.sum.fetch_add(frame.memory(), Ordering::Relaxed);
        self.frames.push_back(frame);
    }

    fn pop_front(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.memory();
        self.sum.fetch_sub(frame.memory(), Ordering::Relaxed);
        Some(frame)
    }
}

impl Drop for Buffered {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Counts repairs that read or wait for their turn to read. Those that wait for a log that did not
/// answer are not among them: nobody else shall wait for it.
#[derive(Default)]
pub(super) struct RepairsUnderWay {
    count: AtomicUsize,
    fewer: Notify,
}

/// One of them, until it is dropped.
struct UnderWay(Arc<RepairsUnderWay>);

impl RepairsUnderWay {
    /// Waits until another slice of topics may be repaired.
    pub(super) async fn few(&self) {
        loop {
            let fewer = self.fewer.notified();
            if self.count.load(Ordering::Relaxed) < UNDER_WAY_MAX {
                return;
            }
            fewer.await;
        }
    }
}

impl UnderWay {
    fn begin(counted: &Arc<RepairsUnderWay>) -> UnderWay {
        counted.count.fetch_add(1, Ordering::Relaxed);
        UnderWay(counted.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
        self.0.fewer.notify_waiters();
    }
}

impl Relay {
    /// Starts the topic's repair; one that is running reads what is wanted.
    pub(super) fn repair(self: &Arc<Relay>, topic: &Arc<HubTopic>, announced: Option<Frame>) {
        let mut repairs = self.repairs();
        let running = repairs.contains_key(topic.name());
        let repair = repairs.entry(topic.name().clone()).or_default();
        match announced {
            Some(frame) => repair.buffer(frame, &self.buffered_bytes),
            None => repair.again = true,
        }
        drop(repairs);
        if !running {
            let relay = self.clone();
            let topic = topic.clone();
            let mut under_way = Some(UnderWay::begin(&self.under_way));
            // A repair that broke has left its topic marked as under repair, and nothing would come
            // through: it reads again what it has not read.
            let begin = move || {
                let (relay, topic) = (relay.clone(), topic.clone());
                let begun = || UnderWay::begin(&relay.under_way);
                let under_way = under_way.take().unwrap_or_else(begun);
                async move { relay.run_repair(&topic, under_way).await }
            };
            tokio::spawn(background::restarting("a repair", begin));
        }
    }

    /// Has a repair that is running, if there is one, read once more.
    pub(super) fn read_again(&self, topic: &HubTopic) {
        if let Some(repair) = self.repairs().get_mut(topic.name()) {
            repair.again = true;
        }
    }

    async fn run_repair(self: &Arc<Relay>, topic: &Arc<HubTopic>, mut under_way: UnderWay) {
        let mut backoff = Backoff::new(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
        loop {
            let mut announced = self.take_buffered(topic);
            let mut heard_again = self.heard_again.subscribe();
            match self.catch_up(topic).await {
                Ok(()) => {
                    while let Some(frame) = announced.pop_front() {
                        // The log was read after these were announced. One that still does not
                        // fit belongs to a log that is no more.
                        self.hub.push_announced(topic, frame);
                    }
                    if self.flush_buffered(topic) {
                        return;
                    }
                    backoff.reset();
                }
                Err(error) => {
                    tracing::debug!(%error, topic = %topic.name(), "cannot read yet");
                    topic.set_waiting();
                    drop(under_way);
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep(backoff.wait()) => {}
                        _ = heard_again.changed() => backoff.reset(),
                    }
                    under_way = UnderWay::begin(&self.under_way);
                    if self.hand_over(topic) {
                        return;
                    }
                }
            }
        }
    }

    /// Ends the repair if everybody has left the topic meanwhile. If some came back, they joined a
    /// new entry of the hub, which found this repair running and relies on it: it gets its own now.
    fn hand_over(self: &Arc<Relay>, topic: &Arc<HubTopic>) -> bool {
        let mut repairs = self.repairs();
        let left = self.is_left(topic);
        if left {
            repairs.remove(topic.name());
            drop(repairs);
            if let Some(current) = self.hub.get(topic.name()) {
                self.repair(&current, None);
            }
        }
        left
    }

    /// Whether the hub no longer has this topic, or another of its name.
    pub(super) fn is_left(&self, topic: &Arc<HubTopic>) -> bool {
        !self.hub.get(topic.name()).is_some_and(|current| Arc::ptr_eq(&current, topic))
    }

    /// Brings the tail to where the log is now.
    async fn catch_up(&self, topic: &Arc<HubTopic>) -> Result<(), LogError> {
        loop {
            let _permit = self.reads.acquire().await;
            let page = match topic.head() {
                None => None,
                Some(head) => self.log.read(topic.name(), head.seq, u64::MAX).await?,
            };
            // One that is gone, with the state that it had: what it is now is for opening to find out.
            let page = page.filter(|page| page.history.is_written());
            let Some(page) = page else {
                let opened = self.log.open(topic.name()).await?;
                self.hub.open(topic, opened.history, opened.has_state);
                return Ok(());
            };
            let read: Vec<Frame> = page.entries.iter().map(sse::frame).collect();
            if topic.is_written() {
                metric::repaired(read.len());
            }
            let before = topic.head();
            // Without progress there is nothing more to read, whatever the log says: the next round
            // would see the same.
            if !self.hub.refresh(topic, page.history, read) || topic.head() == before {
                return Ok(());
            }
        }
    }

    fn take_buffered(&self, topic: &HubTopic) -> Buffered {
        self.repairs().get_mut(topic.name()).map(std::mem::take).unwrap_or_default().buffered
    }

    /// Feeds what was announced during the last read and ends the repair; says no if there is a
    /// gap again, or somebody else found that there is more to read.
    fn flush_buffered(self: &Arc<Relay>, topic: &Arc<HubTopic>) -> bool {
        // The lock is held to the end: nothing can be buffered after the last look, and nobody can
        // rely on this repair between the last look and its end.
        let mut repairs = self.repairs();
        if self.is_left(topic) {
            drop(repairs);
            return self.hand_over(topic);
        }
        let Some(repair) = repairs.get_mut(topic.name()) else { return true };
        if repair.again {
            return false;
        }
        while let Some(frame) = repair.buffered.frames.front() {
            if self.hub.push_announced(topic, frame.clone()) == Some(Pushed::Gap) {
                return false;
            }
            repair.buffered.pop_front();
        }
        repairs.remove(topic.name());
        true
    }

    pub(super) fn repairs(&self) -> MutexGuard<'_, HashMap<Topic, Repair>> {
        self.repairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
