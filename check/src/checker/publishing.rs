//! What publishers see: what was sent, how it was answered, and whether that can be.

use std::time::Duration;

use super::records::ViolationContext;
use super::{Agreement, Checker, EventId, Kind, PublishRecord};
use crate::position::Position;

impl Checker {
    /// An event is about to be sent for the first time.
    pub fn event_sent(&mut self, topic: usize, publisher: usize, now: Duration) -> EventId {
        self.counts.sent += 1;
        self.publish_log.add(topic, publisher, now)
    }

    /// The event is sent again.
    pub fn event_resent(&mut self, event: EventId, now: Duration) {
        self.counts.retries += 1;
        self.publish_log.attempt(event, now);
    }

    /// The event was answered with its position.
    pub fn event_acknowledged(
        &mut self,
        event: EventId,
        position: Position,
        url: &str,
        now: Duration,
    ) {
        let Some(&published) = self.publish_log.get(event) else { return };
        self.counts.acknowledged += 1;
        let agreement = self.publish_log.acknowledge(event, position, now);
        let context = ViolationContext::of_answer(Some(published.topic()), url);
        match agreement {
            Agreement::Agrees => {}
            Agreement::Conflict(other) => {
                let expected = format!("{position} to be {}", self.describe(other));
                let came = format!("{} was acknowledged there", self.describe(event));
                self.report(Kind::Conflict, now, context.clone(), expected, came);
            }
            Agreement::Elsewhere(others) => {
                if let Some(&other) = others.iter().find(|other| other.epoch == position.epoch) {
                    self.duplicate_append(event, other, position, context.clone(), now);
                }
            }
        }
        let last = self.last_of.insert((published.publisher(), published.topic()), position);
        if let Some(last) =
            last.filter(|last| last.epoch == position.epoch && last.seq > position.seq)
        {
            let expected = format!(
                "a position after {last}, where the previous event of publisher {} was acknowledged",
                published.publisher()
            );
            let came = format!("{} was acknowledged at {position}", self.describe(event));
            self.report(Kind::Reordered, now, context, expected, came);
        }
    }

    /// The event was refused for good.
    pub fn event_refused(
        &mut self,
        event: EventId,
        url: &str,
        status: u16,
        body: &str,
        now: Duration,
    ) {
        self.counts.refused += 1;
        self.publish_log.refuse(event);
        // The status that says that the key came with another body.
        if status == 422 {
            let topic = self.publish_log.get(event).map(PublishRecord::topic);
            let context = ViolationContext::of_answer(topic, url);
            let expected =
                format!("{} to be taken: its key and body never change", self.describe(event));
            self.report(Kind::KeyMisjudged, now, context, expected, format!("422 {body}"));
        }
    }

    /// Something about the answer to a publisher that no rule above is about.
    pub fn report_answer(
        &mut self,
        kind: Kind,
        topic: usize,
        url: &str,
        expected: impl Into<String>,
        came: impl Into<String>,
        now: Duration,
    ) {
        let context = ViolationContext::of_answer(Some(topic), url);
        self.report(kind, now, context, expected.into(), came.into());
    }

    /// An event has two positions in one log.
    pub(super) fn duplicate_append(
        &mut self,
        event: EventId,
        one: Position,
        two: Position,
        context: ViolationContext,
        now: Duration,
    ) {
        if !self.duplicated.insert(event) {
            return;
        }
        self.counts.duplicate_appends += 1;
        let sent = self.publish_log.get(event).map_or(0, PublishRecord::attempts);
        if self.rules.idempotent || sent < 2 {
            let event = self.describe(event);
            let expected = format!("{event} at {one} alone; it was sent {sent} times");
            let came = format!("it is at {two} too");
            self.report(Kind::DuplicateAppend, now, context, expected, came);
        }
    }
}
