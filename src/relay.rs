//! [`Relay`]: follow the log, repair gaps, audit heads, feed the [`Hub`].
//!
//! It hears [notifications](Notification) and gives each frame to its topic's tail if it is the
//! next one. Whatever is not so simple is a [repair](repairs): read the log from the tail's head on
//! and feed that. Topics are [opened](opening) as streams come for them, and what their tails know
//! is compared with the log [again and again](audits).
//!
//! A node may follow a quarter of a million topics. Whatever concerns many of them is done a
//! [slice](SLICE_TOPICS_MAX) at a time, with something awaited in between: a slice takes about a
//! millisecond, and nobody else waits longer than that.

mod audits;
mod opening;
mod repairs;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use crate::frame::Frame;
use crate::hub::tail::Pushed;
use crate::hub::{Asleep, Hub, HubTopic};
use crate::log::{Log, Notification, Notifications};
use crate::telemetry::metric;
use crate::topic::Topic;
use repairs::{Repair, RepairsUnderWay};

pub use audits::{AUDIT_INTERVAL, IDLE_AUDIT_INTERVAL};

/// Topics that are subscribed, asked for or left in one step at most.
const SLICE_TOPICS_MAX: usize = 500;

/// How many repairs read from the log at the same time.
const READS_MAX: usize = 32;

/// Announcements that are given to the hub before those who follow the topics are woken.
const TOGETHER_MAX: usize = 64;

/// The node's follower of the log.
pub struct Relay {
    log: Arc<dyn Log>,
    hub: Arc<Hub>,
    /// Topics under repair.
    repairs: Mutex<HashMap<Topic, Repair>>,
    /// What they buffer together, in bytes.
    buffered_bytes: Arc<AtomicUsize>,
    under_way: Arc<RepairsUnderWay>,
    reads: Semaphore,
    audit_now: Notify,
    /// Told when the log can be heard again: repairs that wait for it need not wait longer.
    heard_again: watch::Sender<()>,
    history_ttl: Duration,
}

impl Relay {
    /// A relay from `log` to `hub`. `history_ttl` is after what time the log forgets idle topics.
    pub fn new(log: Arc<dyn Log>, hub: Arc<Hub>, history_ttl: Duration) -> Arc<Relay> {
        Arc::new(Relay {
            log,
            hub,
            repairs: Mutex::default(),
            buffered_bytes: Arc::default(),
            under_way: Arc::default(),
            reads: Semaphore::new(READS_MAX),
            audit_now: Notify::new(),
            heard_again: watch::Sender::new(()),
            history_ttl,
        })
    }

    /// Follows the log until its notifications end.
    pub async fn run(self: Arc<Relay>, notifications: Notifications) {
        // Tasks of their own: where more is announced than can be heard, one that did all in turn
        // would spend its time on what is announced, and never open a topic or find what it missed.
        let mut tasks = JoinSet::new();
        let relay = self.clone();
        tasks.spawn(async move { relay.open_requested().await });
        let relay = self.clone();
        tasks.spawn(async move { relay.audit().await });
        // In a fixed order, here and below, so that a simulated world can be played again.
        tokio::select! {
            biased;
            () = self.listen(notifications) => {}
            Some(Err(error)) = tasks.join_next() => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }

    /// Reads a topic's log now: somebody knows more of it than its tail does.
    pub fn request_repair(self: &Arc<Relay>, topic: &Arc<HubTopic>) {
        self.repair(topic, None);
    }

    /// Changes when the log can be heard again: whoever waits for it need not wait longer.
    pub fn heard_again(&self) -> watch::Receiver<()> {
        self.heard_again.subscribe()
    }

    async fn listen(self: &Arc<Relay>, mut notifications: Notifications) {
        while let Some(first) = notifications.recv().await {
            // Those who are about to publish go first: what comes together leaves together, in one
            // write a stream.
            go_last().await;
            let mut asleep = Asleep::default();
            self.on_notification(first, &mut asleep);
            for _ in 1..TOGETHER_MAX {
                let Some(next) = notifications.try_recv() else { break };
                self.on_notification(next, &mut asleep);
            }
        }
    }

    fn on_notification(self: &Arc<Relay>, notification: Notification, asleep: &mut Asleep) {
        match notification {
            Notification::Entry(topic, frame) => {
                if let Some(topic) = self.hub.get(&topic) {
                    self.on_announced(&topic, frame, asleep);
                }
            }
            Notification::Look(topic) => {
                if let Some(topic) = self.hub.get(&topic) {
                    self.request_repair(&topic);
                }
            }
            Notification::Dropped => self.audit_now.notify_one(),
            Notification::MaybeLost => {
                self.audit_now.notify_one();
                self.heard_again.send_replace(());
            }
        }
    }

    fn on_announced(self: &Arc<Relay>, topic: &Arc<HubTopic>, frame: Frame, asleep: &mut Asleep) {
        if let Some(repair) = self.repairs().get_mut(topic.name()) {
            repair.buffer(frame, &self.buffered_bytes);
            return;
        }
        // Not open and not under repair: it waits for the log, and will read everything then.
        let pushed = self.hub.push_one_of_several(topic, frame.clone(), asleep);
        if pushed == Some(Pushed::Gap) {
            // The first entry of all is of a log that is new here; nothing of it was lost.
            if topic.is_written() || frame.position.seq > 1 {
                metric::gap_found();
            }
            self.repair(topic, Some(frame));
        }
    }
}

/// Has all tasks run first that can run now. The runtime comes back to a task that woke itself after
/// them; `yield_now` would look for news from sockets as well, with a system call for each event.
async fn go_last() {
    let mut has_waited = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
