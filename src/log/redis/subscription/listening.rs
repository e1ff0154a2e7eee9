//! [`Listening`]: what a node listens for, whichever servers it hears that from.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::wanted::Wanted;
use crate::log::Notifier;
use crate::log::redis::keys::Keys;
use crate::topic::Topic;

/// What a node listens for, and where it tells what was heard.
pub(in crate::log::redis) struct Listening {
    pub(super) keys: Keys,
    pub(super) canary_channel: String,
    pub(super) notifier: Notifier,
    wanted: Mutex<Wanted>,
    /// The number of the last canary heard.
    pub(super) canary: watch::Sender<u64>,
    /// A server was once connected and had subscribed everything.
    pub(super) was_up: AtomicBool,
    /// Writes do, and the user needs the right to.
    pub(super) waits_for_replicas: bool,
}

impl Listening {
    pub(in crate::log::redis) fn new(
        keys: Keys,
        node: &str,
        notifier: Notifier,
        waits_for_replicas: bool,
    ) -> Listening {
        Listening {
            canary_channel: keys.canary_channel(node),
            keys,
            notifier,
            wanted: Mutex::new(Wanted::new()),
            canary: watch::Sender::new(0),
            was_up: AtomicBool::new(false),
            waits_for_replicas,
        }
    }

    /// From now on, whoever connects subscribes these.
    pub(in crate::log::redis) fn want(&self, topics: &[Topic]) {
        let mut wanted = self.wanted();
        topics.iter().for_each(|topic| wanted.insert(topic));
    }

    /// Nobody wants them any more.
    pub(in crate::log::redis) fn leave(&self, topics: &[Topic]) {
        let mut wanted = self.wanted();
        topics.iter().for_each(|topic| wanted.remove(topic));
    }

    /// The channel on which canaries are heard.
    pub(in crate::log::redis) fn canary_channel(&self) -> &str {
        &self.canary_channel
    }

    /// Waits until the canary with this number, or a later one, was heard.
    pub(in crate::log::redis) async fn canary_heard(&self, number: u64) {
        let _ = self.canary.subscribe().wait_for(|&heard| heard >= number).await;
    }

    pub(super) fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
