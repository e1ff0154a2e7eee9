//! Audits: what the tails know is compared with what the log has, again and again. The last event of
//! a burst has no successor to reveal that its announcement was lost; an audit finds it.
//!
//! Up to [`ROUND_TOPICS_MAX`] topics are all compared every [`AUDIT_INTERVAL`]. If there are more,
//! those that had something new in the last rounds are still compared that often (again up to so
//! many), and the others in rotation, at least every [`IDLE_AUDIT_INTERVAL`]: 250,000 idle topics
//! cost 10,000 questions in two seconds, and not 250,000.
//!
//! When announcements may have been lost (a connection broke, an inbox was full) all are compared at
//! once, a slice after the other, those first that most streams follow: their repairs are the first
//! to read. Nothing is read where the heads agree. What may be lost while that is under way is looked
//! for afterwards: if it interrupted, a loss after the other would keep it from getting round.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Relay, SLICE_TOPICS_MAX};
use crate::hub::HubTopic;
use crate::log::LogError;
use crate::position::Position;
use crate::telemetry::metric;
use crate::topic::Topic;

/// How often the heads of topics are compared with the log.
pub const AUDIT_INTERVAL: Duration = Duration::from_secs(2);

/// How often at least those of topics on which nothing happens, however many there are.
pub const IDLE_AUDIT_INTERVAL: Duration = Duration::from_secs(60);

/// Topics that are compared in one round in rotation, unless there are so many that idle topics
/// would wait too long; and active ones at most.
const ROUND_TOPICS_MAX: usize = 10_000;

/// How often topics are ranked before the largest are asked for: enough for all of them.
const RANK_SLICES_MAX: usize = 1_000;

/// One round of audits.
struct Round {
    /// How long it takes.
    interval: Duration,
    ends_at: Instant,
    /// After so many rounds a topic's history is kept from expiring again.
    keep_rounds: u32,
    number: u32,
}

/// What an audit still has to do.
#[derive(Default)]
struct Overdue {
    /// So many topics of the rotation were not compared since announcements may have been lost.
    topics: usize,
    /// Nor those that most streams follow.
    largest: bool,
}

impl Relay {
    /// Compares what the tails know with what the log has.
    pub(super) async fn audit(self: &Arc<Relay>) {
        // Histories that are kept for seconds only must be looked after more often.
        let interval = AUDIT_INTERVAL.min(self.history_ttl / 4);
        let keep_rounds = (self.history_ttl / 4).div_duration_f64(interval) as u32;
        let mut overdue = Overdue::default();
        let mut round = self.begin_round(interval, keep_rounds);
        loop {
            let done = match overdue.topics {
                0 => self.audit_some(&round).await,
                _ => self.audit_all(&round, &mut overdue).await,
            };
            if let Err(error) = done {
                tracing::debug!(%error, "cannot audit heads");
                // Nobody knows what became of those that were asked for.
                overdue.topics = self.hub.rotation_len();
            }
            if self.is_lost_before(round.ends_at).await {
                overdue = Overdue { topics: self.hub.rotation_len(), largest: true };
            }
            // Rounds are a clock: a loss begins none, and many losses delay none.
            if Instant::now() >= round.ends_at {
                round = self.begin_round(interval, keep_rounds);
            }
        }
    }

    fn begin_round(&self, interval: Duration, keep_rounds: u32) -> Round {
        let ends_at = Instant::now() + interval;
        Round { interval, ends_at, keep_rounds, number: self.hub.begin_round() }
    }

    /// Waits until a time, or until announcements may have been lost: says whether they may.
    async fn is_lost_before(&self, at: Instant) -> bool {
        tokio::select! {
            biased;
            () = self.audit_now.notified() => true,
            () = tokio::time::sleep_until(at) => false,
        }
    }

    /// Pauses, unless announcements may have been lost: then it is left for another to hear of.
    async fn pause(&self, pause: Duration) -> bool {
        let lost = self.is_lost_before(Instant::now() + pause).await;
        if lost {
            self.audit_now.notify_one();
        }
        lost
    }

    /// One round while all is well, spread over its time.
    async fn audit_some(self: &Arc<Relay>, round: &Round) -> Result<(), LogError> {
        let topics = self.hub.rotation_len();
        let in_rotation = self.topics_in_a_round(topics, round.interval);
        let active = self.hub.active_len().min(ROUND_TOPICS_MAX);
        // They are among all that are compared anyway, unless there are too many.
        let audit_active = in_rotation < topics;
        let extra = if audit_active { active } else { 0 };
        let slices = in_rotation.div_ceil(SLICE_TOPICS_MAX) + extra.div_ceil(SLICE_TOPICS_MAX);
        let pause = round.interval / (slices as u32 + 1);
        for done in (0..active).step_by(SLICE_TOPICS_MAX) {
            let slice = self.hub.next_active(SLICE_TOPICS_MAX.min(active - done)).topics;
            if audit_active {
                self.audit_slice(&slice).await?;
                if self.pause(pause).await {
                    return Ok(());
                }
            } else {
                tokio::task::yield_now().await;
            }
        }
        for done in (0..in_rotation).step_by(SLICE_TOPICS_MAX) {
            let slice = self.hub.next_in_rotation(SLICE_TOPICS_MAX.min(in_rotation - done)).topics;
            self.keep_slice(&slice, round).await?;
            self.audit_slice(&slice).await?;
            if self.pause(pause).await {
                break;
            }
        }
        Ok(())
    }

    /// How many of so many topics have to be compared in one round, so that each has its turn in
    /// time, and its history is kept from expiring.
    fn topics_in_a_round(&self, topics: usize, interval: Duration) -> usize {
        let turn = IDLE_AUDIT_INTERVAL.min(self.history_ttl / 4);
        let share = topics as f64 * interval.div_duration_f64(turn);
        (share.ceil() as usize).max(ROUND_TOPICS_MAX).min(topics)
    }

    /// Compares all of them without a pause, as far as the log answers.
    async fn audit_all(
        self: &Arc<Relay>,
        round: &Round,
        overdue: &mut Overdue,
    ) -> Result<(), LogError> {
        if overdue.largest {
            for _ in 0..RANK_SLICES_MAX {
                if !self.hub.rank(SLICE_TOPICS_MAX) {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let largest = self.hub.largest(SLICE_TOPICS_MAX).topics;
            for topics in [largest.with_state, largest.plain] {
                let slice = topics.iter().filter_map(|(name, _)| self.hub.get(name));
                self.audit_slice(&slice.collect::<Vec<_>>()).await?;
            }
            overdue.largest = false;
        }
        while overdue.topics > 0 {
            let taken = self.hub.next_in_rotation(SLICE_TOPICS_MAX.min(overdue.topics));
            if taken.count == 0 {
                overdue.topics = 0;
            }
            self.keep_slice(&taken.topics, round).await?;
            self.audit_slice(&taken.topics).await?;
            overdue.topics = overdue.topics.saturating_sub(taken.count);
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Keeps the histories of those topics from expiring for which it is time.
    async fn keep_slice(&self, topics: &[Arc<HubTopic>], round: &Round) -> Result<(), LogError> {
        let is_due = |topic: &&Arc<HubTopic>| topic.is_keep_due(round.number, round.keep_rounds);
        let due: Vec<&Arc<HubTopic>> = topics.iter().filter(is_due).collect();
        if due.is_empty() {
            return Ok(());
        }
        let names: Vec<Topic> = due.iter().map(|topic| topic.name().clone()).collect();
        self.log.keep(&names).await?;
        for topic in due {
            topic.set_kept(round.number);
        }
        Ok(())
    }

    async fn audit_slice(self: &Arc<Relay>, topics: &[Arc<HubTopic>]) -> Result<(), LogError> {
        if topics.is_empty() {
            return Ok(());
        }
        // Taken before asking: what the log answers is at least as new as this.
        let known: Vec<Option<Position>> = topics.iter().map(|topic| topic.head()).collect();
        let names: Vec<Topic> = topics.iter().map(|topic| topic.name().clone()).collect();
        let heads = self.log.heads(&names).await?;
        let heads = heads.of_topics.into_iter().zip(heads.unwritten_since);
        for ((topic, known), (head, unwritten_since)) in topics.iter().zip(known).zip(heads) {
            // What was read to open it may be older than what the log says now.
            let Some(now) = topic.head() else {
                self.read_again(topic);
                continue;
            };
            let agrees = match head {
                // The tail may have moved on while the log was asked, but the log must have what
                // the tail had before.
                Some((epoch, seq)) => known.is_some_and(|known| {
                    epoch == now.epoch && (known.seq..=now.seq).contains(&seq)
                }),
                // Nobody has written to it yet.
                None => known == Some(now) && now.epoch.unwritten_time().is_some(),
            };
            if !agrees {
                metric::audit_found();
                self.repair(topic, None);
            } else if now.epoch.unwritten_time().is_some_and(|at| at < unwritten_since) {
                // As far as is known here. It was found so long ago that a log may be gone since.
                self.repair(topic, None);
            }
        }
        self.under_way.few().await;
        Ok(())
    }
}
