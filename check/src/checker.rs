//! [`Checker`]: is told what publishers and subscribers saw, and says which promises were broken.
//!
//! Knows neither clock nor network: everything comes with its time since the start. What it cannot
//! decide alone, whether the log still has what a gateway claimed to be gone, it asks as a
//! [`Question`] that [`history`](super::history) answers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::publish_log::{Agreement, EventId, PublishLog, PublishRecord};
use super::view::{Continuity, ResetNotice, ResetReason, View};
use super::{Kind, LatencyHistogram, Violation};
use crate::position::Position;

mod completeness;
mod counts;
mod publishing;
mod records;
mod reset_checks;

pub use completeness::{Missing, MissingCause};
pub use counts::Counts;
pub use records::VIOLATIONS_MAX;
pub use reset_checks::{Claim, Evidence, Question, Reset};

use records::{Observation, SubscriberRecord, describe_position};

/// Of the deliveries to one subscriber within this time, [`Checker::progress_after`] knows the
/// last.
const DELIVERY_TIMES_STEP: Duration = Duration::from_millis(10);

/// What is expected beyond the promises.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// An event that was sent again with the same key must not be in the log twice.
    pub idempotent: bool,
    /// The log may lose what it acknowledged, as long as it says so.
    pub loss_expected: bool,
}

/// Is told everything and judges it.
#[derive(Debug)]
pub struct Checker {
    rules: Rules,
    topics: Vec<String>,
    publish_log: PublishLog,
    subscribers: Vec<SubscriberRecord>,
    counts: Counts,
    kinds: BTreeMap<Kind, u64>,
    violations: Vec<Violation>,
    lags: LatencyHistogram,
    /// Events with two positions in one log.
    duplicated: HashSet<EventId>,
    /// Events with two positions, in logs of which one may have lost the other.
    republished: HashSet<EventId>,
    /// The newest acknowledged position of each publisher in each topic.
    last_of: HashMap<(usize, usize), Position>,
}

impl Checker {
    /// A checker over these topics; subscriber `n` follows those with the indices `follows[n]`.
    pub fn new(rules: Rules, topics: Vec<String>, follows: &[Vec<usize>]) -> Checker {
        let subscribers = follows.iter().map(|topics| SubscriberRecord {
            views: topics.iter().map(|&topic| (topic, View::default())).collect(),
            ..SubscriberRecord::default()
        });
        Checker {
            rules,
            publish_log: PublishLog::new(topics.len()),
            subscribers: subscribers.collect(),
            topics,
            counts: Counts::default(),
            kinds: BTreeMap::new(),
            violations: Vec::new(),
            lags: LatencyHistogram::default(),
            duplicated: HashSet::new(),
            republished: HashSet::new(),
            last_of: HashMap::new(),
        }
    }

    // --- What subscribers see ------------------------------------------------------------------

    /// A stream is asked for.
    pub fn stream_requested(&mut self, subscriber: usize, url: &str, now: Duration) {
        let record = &mut self.subscribers[subscriber];
        record.connection += 1;
        url.clone_into(&mut record.url);
        record.note(now, None, Observation::Requested(url.to_owned()));
    }

    /// It was answered 200.
    pub fn stream_opened(&mut self, http_2: bool) {
        self.counts.connections += 1;
        self.counts.http_2_connections += u64::from(http_2);
    }

    /// A stream ended without the subscriber's doing, or could not be opened.
    pub fn stream_dropped(&mut self, subscriber: usize, why: &str, silent: bool, now: Duration) {
        self.counts.drops += 1;
        self.counts.silent_streams += u64::from(silent);
        self.stream_ended(subscriber, why, now);
    }

    /// The subscriber left a stream.
    pub fn stream_left(&mut self, subscriber: usize, now: Duration) {
        self.counts.roams += 1;
        self.stream_ended(subscriber, "left by the subscriber", now);
    }

    fn stream_ended(&mut self, subscriber: usize, why: &str, now: Duration) {
        self.subscribers[subscriber].note(now, None, Observation::Ended(why.to_owned()));
        self.settle_gaps(subscriber);
    }

    /// The opening event said that the stream stands here in this topic.
    pub fn opening_event(
        &mut self,
        subscriber: usize,
        topic: usize,
        position: Position,
        now: Duration,
    ) {
        let record = &mut self.subscribers[subscriber];
        let Some(view) = record.view(topic) else { return };
        let at = view.position();
        if !view.open(position, now) {
            let expected = format!("the position it came with, {}", describe_position(at));
            let came = position.to_string();
            self.report_by_subscriber(Kind::Moved, now, subscriber, topic, expected, came);
        }
        self.subscribers[subscriber].note(now, Some(topic), Observation::Opening(position));
    }

    /// An entry came. `event` is what its data says it is, if it is one of this check's.
    pub fn entry(
        &mut self,
        subscriber: usize,
        topic: usize,
        position: Position,
        event: Option<EventId>,
        now: Duration,
    ) {
        self.counts.delivered += 1;
        let Some(view) = self.subscribers[subscriber].view(topic) else { return };
        let at = view.position();
        // After a reset a stream begins anew with what is retained.
        let again = view.was_reset() && view.has(position);
        let continuity = view.record(position);
        match continuity {
            Continuity::Next => {}
            Continuity::Gap(from, to) => {
                // What it looked like goes with it if nothing fills it.
                let numbers = if from == to { "number" } else { "numbers" };
                let to_last = if from == to { String::new() } else { format!(" to {to}") };
                let expected = format!("{numbers} {from}{to_last}");
                let came =
                    format!("{position}, and nothing of these until the stream ended or went on");
                let context = self.context_of(subscriber, Some(topic));
                let violation = context.violation(Kind::Gap, now, &self.topics, expected, came);
                self.subscribers[subscriber].pending_gaps.push((topic, from, to, violation));
            }
            Continuity::OutOfOrder | Continuity::Duplicate | Continuity::EpochReturned => {
                let kind = match continuity {
                    Continuity::Duplicate => Kind::Duplicate,
                    _ => Kind::OutOfOrder,
                };
                let expected = match continuity {
                    Continuity::EpochReturned => {
                        format!("no entry of {} after {}", position.epoch, describe_position(at))
                    }
                    _ => format!("number {}", at.map_or(position.seq, |at| at.seq + 1)),
                };
                let came = position.to_string();
                self.report_by_subscriber(kind, now, subscriber, topic, expected, came);
            }
        }
        if let Some(event) = event {
            self.match_event(subscriber, topic, position, event, now);
        }
        let record = &mut self.subscribers[subscriber];
        record.note(now, Some(topic), Observation::Entry(position, event));
        if let Some(event) = event.filter(|_| continuity != Continuity::Duplicate && !again) {
            self.measure(subscriber, topic, event, now);
        }
        // A gap that is not filled soon stays one.
        let passed = |view: &mut View| view.has_gaps() && position.seq.is_multiple_of(64);
        if self.subscribers[subscriber].view(topic).is_some_and(passed) {
            self.settle_gaps(subscriber);
        }
    }

    fn match_event(
        &mut self,
        subscriber: usize,
        topic: usize,
        position: Position,
        event: EventId,
        now: Duration,
    ) {
        let topic_of = self.publish_log.get(event).map(PublishRecord::topic);
        if topic_of != Some(topic) {
            let of = topic_of.map(|topic| self.topics[topic].clone());
            let of = of.unwrap_or_else(|| "never sent".to_owned());
            let came = format!("{} at {position}, which is of {of}", self.describe(event));
            let expected = "events of this topic".to_owned();
            let kind = Kind::UnexpectedEvent;
            self.report_by_subscriber(kind, now, subscriber, topic, expected, came);
            return;
        }
        match self.publish_log.observe(topic, position, event) {
            Agreement::Agrees => {}
            Agreement::Conflict(other) => {
                let expected = format!("{position} to be {}", self.describe(other));
                let came = self.describe(event);
                self.report_by_subscriber(Kind::Conflict, now, subscriber, topic, expected, came);
            }
            Agreement::Elsewhere(others) => {
                let Some(view) = self.subscribers[subscriber].view(topic) else { return };
                let same_log = |other: &&Position| {
                    other.epoch == position.epoch || view.has_in_this_stretch(**other)
                };
                match others.iter().find(same_log) {
                    Some(&other) => {
                        let context = self.context_of(subscriber, Some(topic));
                        self.duplicate_append(event, other, position, context, now);
                    }
                    // Unless somebody else saw both in one log.
                    None => drop(self.republished.insert(event)),
                }
            }
        }
    }

    fn measure(&mut self, subscriber: usize, topic: usize, event: EventId, now: Duration) {
        let Some(&published) = self.publish_log.get(event) else { return };
        let record = &mut self.subscribers[subscriber];
        let Some((joined, _)) = record.view(topic).and_then(|view| view.opening()) else { return };
        if published.first_sent() >= joined {
            self.lags.add(now.saturating_sub(published.last_sent()));
            if let Some(acknowledged) = published.acknowledged() {
                record.longest_wait = record.longest_wait.max(now.saturating_sub(acknowledged));
            }
        }
        let milliseconds = u32::try_from(now.as_millis()).unwrap_or(u32::MAX);
        // The newest of each step: after an outage the old come first, and the new is the news.
        match record.delivery_times.last_mut() {
            Some(last) if now < record.step_ends_at => *last = (milliseconds, event),
            _ => {
                record.step_ends_at = now + DELIVERY_TIMES_STEP;
                record.delivery_times.push((milliseconds, event));
            }
        }
    }

    /// Something that no rule above is context.
    pub fn report_other(
        &mut self,
        kind: Kind,
        subscriber: usize,
        topic: Option<usize>,
        expected: impl Into<String>,
        came: impl Into<String>,
        now: Duration,
    ) {
        let context = self.context_of(subscriber, topic);
        self.report(kind, now, context, expected.into(), came.into());
    }

    /// Where a subscriber stands in a topic.
    pub fn position_of(&self, subscriber: usize, topic: usize) -> Option<Position> {
        let views = &self.subscribers[subscriber].views;
        views.iter().find(|(its, _)| *its == topic).and_then(|(_, view)| view.position())
    }

    /// The topic that an event was published to.
    pub fn topic_of(&self, event: EventId) -> Option<usize> {
        self.publish_log.get(event).map(PublishRecord::topic)
    }

    /// Gaps that nothing has filled by now are violations.
    fn settle_gaps(&mut self, subscriber: usize) {
        let record = &mut self.subscribers[subscriber];
        let pending = std::mem::take(&mut record.pending_gaps);
        let mut open = Vec::new();
        for (topic, view) in &mut record.views {
            open.extend(view.take_gaps().into_iter().map(|(first, last)| (*topic, first, last)));
        }
        for (topic, from, to, violation) in pending {
            let is_part = |(its, first, last): &&(usize, u64, u64)| {
                *its == topic && *first >= from && *last <= to
            };
            let events = open.iter().filter(is_part).map(|(_, first, last)| last - first + 1).sum();
            if events > 0 {
                self.store(Violation { events, ..violation });
            }
        }
    }

    // --- What is asked while it runs -----------------------------------------------------------

    /// The sums so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many violations of each kind.
    pub fn kinds(&self) -> &BTreeMap<Kind, u64> {
        &self.kinds
    }

    /// The violations that were kept, oldest first.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// From sending to delivery, over all subscribers that had joined before.
    pub fn lags(&self) -> &LatencyHistogram {
        &self.lags
    }

    /// For each subscriber the longest time it waited for an event that was acknowledged already.
    pub fn longest_waits(&self) -> Vec<Duration> {
        self.subscribers.iter().map(|record| record.longest_wait).collect()
    }

    /// How many subscribers asked for a stream and never got an opening event.
    pub fn never_opened(&self) -> usize {
        let waits = |record: &&SubscriberRecord| {
            record.connection > 0 && record.views.iter().any(|(_, view)| view.opening().is_none())
        };
        self.subscribers.iter().filter(waits).count()
    }

    /// Whether this subscriber has had an opening event.
    pub fn has_opened(&self, subscriber: usize) -> bool {
        self.subscribers[subscriber].views.iter().all(|(_, view)| view.opening().is_some())
    }

    /// When, after `since`, the last of the subscribers that had joined before it was delivered an
    /// event that was acknowledged after it; `None` while one of them was not.
    pub fn progress_after(&self, since: Duration) -> Option<Duration> {
        let mut latest = since;
        for record in &self.subscribers {
            let joined =
                |(_, view): &(usize, View)| view.opening().is_some_and(|(at, _)| at <= since);
            if !record.views.iter().all(joined) {
                continue;
            }
            let from = record
                .delivery_times
                .partition_point(|&(at, _)| u128::from(at) < since.as_millis());
            let delivered = record.delivery_times[from..].iter().find(|(_, event)| {
                let published = self.publish_log.get(*event);
                published
                    .and_then(|published| published.acknowledged())
                    .is_some_and(|at| at > since)
            });
            latest = latest.max(Duration::from_millis(delivered?.0.into()));
        }
        Some(latest)
    }
}

#[cfg(test)]
mod tests;
