//! Topics are opened as streams come for them, and left when nobody follows them any more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::{Relay, SLICE_TOPICS_MAX};
use crate::backoff::Backoff;
use crate::hub::{HubTopic, TOPIC_LINGER};
use crate::topic::Topic;

/// How often topics that nobody follows are looked for, and how soon again if there are more than
/// a slice of them.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
const SWEEP_PAUSE: Duration = Duration::from_millis(5);
const _: () = assert!(SWEEP_INTERVAL.as_secs() < TOPIC_LINGER.as_secs());

/// The first and the longest wait before topics are subscribed again that could not be.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(200);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(1);

impl Relay {
    /// Opens topics as streams come for them, and leaves those that nobody follows.
    pub(super) async fn open_requested(self: &Arc<Relay>) {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Topics that could not be subscribed yet. One slice at a time is tried again: whether the
        // log is there can be told by it as well as by all of them.
        let mut refused: VecDeque<Arc<HubTopic>> = VecDeque::new();
        let mut retry_at = Instant::now();
        let mut heard_again = self.heard_again.subscribe();
        let mut backoff = Backoff::new(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
        loop {
            tokio::select! {
                biased;
                _ = sweep.tick() => {
                    // In the same task as opening: a topic that comes back is subscribed after
                    // it was unsubscribed, never the other way round.
                    let swept = self.hub.sweep(SLICE_TOPICS_MAX);
                    if !swept.removed.is_empty() {
                        self.log.unsubscribe(&swept.removed).await;
                    }
                    if swept.count == SLICE_TOPICS_MAX {
                        sweep.reset_after(SWEEP_PAUSE);
                    }
                }
                () = tokio::time::sleep_until(retry_at), if !refused.is_empty() => {
                    let count = SLICE_TOPICS_MAX.min(refused.len());
                    let mut slice: Vec<_> = refused.drain(..count).collect();
                    slice.retain(|topic| !self.is_left(topic));
                    match self.open_slice(slice).await {
                        Ok(()) => {
                            backoff.reset();
                            retry_at = Instant::now();
                        }
                        Err(slice) => {
                            refused.extend(slice);
                            retry_at = Instant::now() + backoff.wait();
                        }
                    }
                }
                // The log can be heard again: whoever waits for it need not wait longer.
                Ok(()) = heard_again.changed(), if !refused.is_empty() => {
                    backoff.reset();
                    retry_at = Instant::now();
                }
                mut slice = self.hub.requested_opens(SLICE_TOPICS_MAX) => {
                    slice.retain(|topic| !self.is_left(topic));
                    if let Err(slice) = self.open_slice(slice).await {
                        if refused.is_empty() {
                            retry_at = Instant::now() + backoff.wait();
                        }
                        refused.extend(slice);
                    }
                }
            }
        }
    }

    /// Subscribes first and reads afterwards, so that nothing falls between the two. Gives the
    /// topics back if they cannot be subscribed.
    ///
    /// Not for those that are [left](Relay::is_left): the hub has forgotten them, and nobody would
    /// unsubscribe them. None is meanwhile, since topics are left where they are opened.
    async fn open_slice(
        self: &Arc<Relay>,
        slice: Vec<Arc<HubTopic>>,
    ) -> Result<(), Vec<Arc<HubTopic>>> {
        if slice.is_empty() {
            return Ok(());
        }
        let names: Vec<Topic> = slice.iter().map(|topic| topic.name().clone()).collect();
        match self.log.subscribe(&names).await {
            Ok(()) => {
                for topic in slice {
                    self.repair(&topic, None);
                }
                self.under_way.few().await;
                Ok(())
            }
            Err(error) => {
                tracing::debug!(%error, topics = names.len(), "cannot subscribe yet");
                for topic in &slice {
                    topic.set_waiting();
                }
                Err(slice)
            }
        }
    }
}
