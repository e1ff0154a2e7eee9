//! [`Relay`]: follow the log, repair gaps, audit heads, feed the [`Hub`].
//!
//! It is [notified](crate::log::Notification) of entries and gives each frame to its topic's tail if
//! it is the next one. Whatever is not so simple is a *repair*: read the log from the tail's head on and
//! feed that. Opening a topic, a gap, a new epoch, a lost subscription and a flushed log are all
//! the same repair. While one runs, what is announced for its topic is parked, so that nothing is
//! delivered before what came earlier.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::background;
use crate::backoff::Backoff;
use crate::frame::Frame;
use crate::hub::tail::Pushed;
use crate::hub::{Hub, HubTopic};
use crate::log::{Log, LogError, Notification, Notifications};
use crate::position::{Epoch, Position};
use crate::telemetry::metric;
use crate::topic::Topic;
use crate::wire::sse;

/// How often the heads of all followed topics are compared with the log: the last event of a
/// burst has no successor to reveal its loss.
pub const AUDIT_EVERY: Duration = Duration::from_secs(2);

/// How many heads are asked for at a time.
const AUDIT_BATCH: usize = 1_000;

/// How many announcements are parked during a repair. Beyond it the oldest are dropped, and the
/// repair reads them from the log.
const PARKED_FRAMES_MAX: usize = 256;
const PARKED_BYTES_MAX: usize = 1 << 20;

/// How many repairs read from the log at the same time.
const REPAIRS_MAX: usize = 32;

/// The first and the longest wait before asking a log again that did not answer.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(1);

/// The node's one ear on the log.
pub struct Relay {
    log: Arc<dyn Log>,
    hub: Arc<Hub>,
    /// Topics under repair.
    repairs: Mutex<HashMap<Topic, Repair>>,
    reads: Semaphore,
    audit_now: Notify,
    /// Told when the log can be heard again: repairs that wait for it need not wait longer.
    missed: watch::Sender<()>,
    history_ttl: Duration,
}

/// What happened to a topic during its repair.
#[derive(Default)]
struct Repair {
    /// What was announced.
    parked: VecDeque<Frame>,
    /// Somebody found that the log has more than was read, perhaps after it was read.
    again: bool,
}

impl Relay {
    /// A relay from `log` to `hub`. `history_ttl` is after what time the log forgets idle topics.
    pub fn new(log: Arc<dyn Log>, hub: Arc<Hub>, history_ttl: Duration) -> Arc<Relay> {
        Arc::new(Relay {
            log,
            hub,
            repairs: Mutex::default(),
            reads: Semaphore::new(REPAIRS_MAX),
            audit_now: Notify::new(),
            missed: watch::Sender::new(()),
            history_ttl,
        })
    }

    /// Follows the log until its notifications end.
    pub async fn run(self: Arc<Relay>, notifications: Notifications) {
        // In a fixed order, here and below, so that a simulated world can be played again.
        tokio::select! {
            biased;
            () = self.listen(notifications) => {}
            () = self.open_requested() => {}
            () = self.audit() => {}
        }
    }

    /// Reads a topic's log now: somebody knows more of it than its tail does.
    pub fn request_repair(self: &Arc<Relay>, topic: &Arc<HubTopic>) {
        self.repair(topic, None);
    }

    async fn listen(self: &Arc<Relay>, mut notifications: Notifications) {
        while let Some(notification) = notifications.recv().await {
            match notification {
                Notification::Entry(topic, frame) => {
                    if let Some(topic) = self.hub.get(&topic) {
                        self.hear(&topic, frame);
                    }
                }
                Notification::MaybeLost => {
                    self.audit_now.notify_one();
                    self.missed.send_replace(());
                }
            }
        }
    }

    fn hear(self: &Arc<Relay>, topic: &Arc<HubTopic>, frame: Frame) {
        if let Some(repair) = self.repairs().get_mut(topic.name()) {
            park(&mut repair.parked, frame);
            return;
        }
        // Not open and not under repair: it waits for the log, and will read everything then.
        if self.hub.push_announced(topic, frame.clone()) == Some(Pushed::Gap) {
            metric::gap_found();
            self.repair(topic, Some(frame));
        }
    }

    /// Opens topics as connections arrive for them, and leaves those that nobody watches.
    async fn open_requested(self: &Arc<Relay>) {
        let mut sweep = tokio::time::interval(Duration::from_secs(1));
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        loop {
            tokio::select! {
                biased;
                _ = sweep.tick() => {
                    // In the same task as opening: a topic that comes back is subscribed after
                    // it was unsubscribed, never the other way round.
                    let left = self.hub.sweep();
                    if !left.is_empty() {
                        self.log.unsubscribe(&left).await;
                    }
                }
                wanted = self.hub.requested_opens() => self.open_batch(wanted, &mut backoff).await,
            }
        }
    }

    /// Subscribes first and reads afterwards, so that nothing falls between the two.
    async fn open_batch(self: &Arc<Relay>, wanted: Vec<Arc<HubTopic>>, backoff: &mut Backoff) {
        let mut missed = self.missed.subscribe();
        let names: Vec<Topic> = wanted.iter().map(|topic| topic.name().clone()).collect();
        match self.log.subscribe(&names).await {
            Ok(()) => {
                backoff.reset();
                for topic in wanted {
                    self.repair(&topic, None);
                }
            }
            Err(error) => {
                tracing::debug!(%error, topics = names.len(), "cannot subscribe yet");
                for topic in &wanted {
                    topic.set_waiting();
                }
                let relay = self.clone();
                let wait = backoff.wait();
                tokio::spawn(async move {
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        _ = missed.changed() => {}
                    }
                    for topic in wanted {
                        if relay.hub.get(topic.name()).is_some_and(|now| Arc::ptr_eq(&now, &topic))
                        {
                            relay.hub.request_open(topic);
                        }
                    }
                });
            }
        }
    }

    /// Compares what the tails know with what the log has, again and again.
    async fn audit(self: &Arc<Relay>) {
        // Histories that are kept for seconds only must be looked after more often.
        let mut every = tokio::time::interval(AUDIT_EVERY.min(self.history_ttl / 4));
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut kept_at = Instant::now();
        loop {
            tokio::select! {
                biased;
                _ = every.tick() => {}
                () = self.audit_now.notified() => every.reset(),
            }
            // In batches, the most watched first: their repairs are the first to read. After an
            // outage that is what most people wait for.
            let topics = self.hub.all();
            let keep = kept_at.elapsed() >= self.history_ttl / 4;
            let mut complete = true;
            for batch in topics.chunks(AUDIT_BATCH) {
                if let Err(error) = self.audit_batch(batch, keep).await {
                    tracing::debug!(%error, "cannot audit heads");
                    complete = false;
                    break;
                }
            }
            if keep && complete {
                kept_at = Instant::now();
            }
        }
    }

    async fn audit_batch(
        self: &Arc<Relay>,
        topics: &[Arc<HubTopic>],
        keep: bool,
    ) -> Result<(), LogError> {
        // Taken before asking: what the log answers is at least as new as this.
        let known: Vec<Option<Position>> = topics.iter().map(|topic| topic.head()).collect();
        let names: Vec<Topic> = topics.iter().map(|topic| topic.name().clone()).collect();
        if keep {
            self.log.keep(&names).await?;
        }
        let heads: Vec<Option<(Epoch, u64)>> = self.log.heads(&names).await?;
        for ((topic, known), head) in topics.iter().zip(known).zip(heads) {
            // What was read to open it may be older than what the log says now.
            let Some(now) = topic.head() else {
                self.read_again(topic);
                continue;
            };
            let agrees = known.zip(head).is_some_and(|(known, (epoch, seq))| {
                // The tail may have moved on while the log was asked, but the log must have what
                // the tail had before.
                epoch == now.epoch && (known.seq..=now.seq).contains(&seq)
            });
            if !agrees {
                metric::audit_found();
                self.repair(topic, None);
            }
        }
        Ok(())
    }

    /// Has a repair that is running, if there is one, read once more.
    fn read_again(&self, topic: &HubTopic) {
        if let Some(repair) = self.repairs().get_mut(topic.name()) {
            repair.again = true;
        }
    }

    /// Starts the topic's repair; one that is running reads what is wanted.
    fn repair(self: &Arc<Relay>, topic: &Arc<HubTopic>, announced: Option<Frame>) {
        let mut repairs = self.repairs();
        let running = repairs.contains_key(topic.name());
        let repair = repairs.entry(topic.name().clone()).or_default();
        match announced {
            Some(frame) => park(&mut repair.parked, frame),
            None => repair.again = true,
        }
        drop(repairs);
        if !running {
            let relay = self.clone();
            let topic = topic.clone();
            // A repair that broke has left its topic marked as under repair, and nothing would come
            // through: it reads again what it has not read.
            let begin = move || {
                let (relay, topic) = (relay.clone(), topic.clone());
                async move { relay.run_repair(&topic).await }
            };
            tokio::spawn(background::restarting("a repair", begin));
        }
    }

    async fn run_repair(self: Arc<Relay>, topic: &Arc<HubTopic>) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        loop {
            let announced = self.take_parked(topic);
            let mut missed = self.missed.subscribe();
            match self.catch_up(topic).await {
                Ok(()) => {
                    for frame in announced {
                        // The log was read after these were announced. One that still does not
                        // fit belongs to a log that is no more.
                        self.hub.push_announced(topic, frame);
                    }
                    if self.unpark(topic) {
                        return;
                    }
                    backoff.reset();
                }
                Err(error) => {
                    tracing::debug!(%error, topic = %topic.name(), "cannot read yet");
                    topic.set_waiting();
                    tokio::select! {
                        () = tokio::time::sleep(backoff.wait()) => {}
                        _ = missed.changed() => backoff.reset(),
                    }
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
        let left = self.left(topic);
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
    fn left(&self, topic: &Arc<HubTopic>) -> bool {
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
            let Some(page) = page else {
                let opened = self.log.open(topic.name()).await?;
                self.hub.open(topic, opened.history, opened.has_state);
                return Ok(());
            };
            let read: Vec<Frame> = page.entries.iter().map(sse::frame).collect();
            let progress = !read.is_empty();
            metric::repaired(read.len());
            // Without progress there is nothing more to read: the rest was trimmed meanwhile and
            // the next round would see the same.
            if !self.hub.refresh(topic, page.history, read) || !progress {
                return Ok(());
            }
        }
    }

    fn take_parked(&self, topic: &HubTopic) -> VecDeque<Frame> {
        self.repairs().get_mut(topic.name()).map(std::mem::take).unwrap_or_default().parked
    }

    /// Feeds what was announced during the last read and ends the repair; says no if there is a
    /// gap again, or somebody else found that there is more to read.
    fn unpark(self: &Arc<Relay>, topic: &Arc<HubTopic>) -> bool {
        // The lock is held to the end: nothing can be parked after the last look, and nobody can
        // rely on this repair between the last look and its end.
        let mut repairs = self.repairs();
        if self.left(topic) {
            drop(repairs);
            return self.hand_over(topic);
        }
        let Some(repair) = repairs.get_mut(topic.name()) else { return true };
        if repair.again {
            return false;
        }
        while let Some(frame) = repair.parked.pop_front() {
            if self.hub.push_announced(topic, frame.clone()) == Some(Pushed::Gap) {
                repair.parked.push_front(frame);
                return false;
            }
        }
        repairs.remove(topic.name());
        true
    }

    fn repairs(&self) -> MutexGuard<'_, HashMap<Topic, Repair>> {
        self.repairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn park(parked: &mut VecDeque<Frame>, frame: Frame) {
    parked.push_back(frame);
    let mut bytes: usize = parked.iter().map(Frame::size).sum();
    while parked.len() > PARKED_FRAMES_MAX || (bytes > PARKED_BYTES_MAX && parked.len() > 1) {
        bytes -= parked.pop_front().map_or(0, |frame| frame.size());
    }
}
