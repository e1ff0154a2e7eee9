use std::collections::HashMap;

use proptest::prelude::*;

use super::super::history::{Retained, cause_of, is_spurious};
use super::*;
use crate::position::Epoch;

/// What the log of the simulation below knows of itself: its epoch, how far the earlier ones
/// reached, and what it still holds. Written from the promises, as the checker is, and not from the
/// server.
struct LogState {
    epoch: Epoch,
    /// Each with the last number of it that this log holds, newest first.
    past: Vec<(Epoch, u64)>,
    head: u64,
    oldest: u64,
}

impl LogState {
    fn new(epoch: Epoch) -> LogState {
        LogState { epoch, past: Vec::new(), head: 0, oldest: 1 }
    }

    fn at(&self, seq: u64) -> Position {
        Position { seq, epoch: self.epoch }
    }

    /// Why a client at this position must be told a reset, if it must.
    fn reset_for(&self, position: Position) -> Option<ResetReason> {
        let now = (self.epoch, self.head);
        let mut epochs = std::iter::once(&now).chain(&self.past);
        match epochs.find(|(epoch, _)| *epoch == position.epoch) {
            Some((_, last)) if position.seq <= *last => {
                (position.seq + 1 < self.oldest).then_some(ResetReason::Trimmed)
            }
            _ => Some(ResetReason::Lost),
        }
    }
}

/// A log with faults, and gateways that deliver from it, as promised unless a test does otherwise.
struct Simulation {
    checker: Checker,
    log: LogState,
    /// Entries that were not lost, from 1 on; those before `log.oldest` cannot be read.
    entries: Vec<(Position, EventId)>,
    /// Where each subscriber is.
    positions: Vec<Position>,
    epochs: u32,
    clock: Duration,
    questions: Vec<Question>,
}

const SUBSCRIBERS: usize = 3;

fn epoch(n: u32) -> Epoch {
    format!("e{n:04}").parse().unwrap()
}

impl Simulation {
    fn new(rules: Rules) -> Simulation {
        let follows = vec![vec![0]; SUBSCRIBERS];
        let log = LogState::new(epoch(0));
        let mut simulation = Simulation {
            checker: Checker::new(rules, vec!["check-t-1".to_owned()], &follows),
            positions: vec![log.at(0); SUBSCRIBERS],
            log,
            entries: Vec::new(),
            epochs: 0,
            clock: Duration::ZERO,
            questions: Vec::new(),
        };
        for subscriber in 0..SUBSCRIBERS {
            simulation.connect(subscriber);
        }
        simulation
    }

    fn now(&mut self) -> Duration {
        self.clock += Duration::from_millis(1);
        self.clock
    }

    fn connect(&mut self, subscriber: usize) {
        let now = self.now();
        self.checker.stream_requested(subscriber, "http://a", now);
        self.checker.opening_event(subscriber, 0, self.positions[subscriber], now);
    }

    fn write(&mut self, event: EventId) -> Position {
        self.log.head += 1;
        let position = self.log.at(self.log.head);
        self.entries.push((position, event));
        position
    }

    fn publish(&mut self) -> (EventId, Position) {
        let now = self.now();
        let event = self.checker.event_sent(0, 0, now);
        let position = self.write(event);
        let now = self.now();
        self.checker.event_acknowledged(event, position, "http://a", now);
        (event, position)
    }

    /// The answer never comes, and the event is sent again with its key, which the log knows if it
    /// has the event.
    fn publish_with_retry(&mut self, between: impl FnOnce(&mut Simulation)) {
        let now = self.now();
        let event = self.checker.event_sent(0, 1, now);
        let position = self.write(event);
        between(self);
        let now = self.now();
        self.checker.event_resent(event, now);
        let position = match self.entries.contains(&(position, event)) {
            true => position,
            false => self.write(event),
        };
        let now = self.now();
        self.checker.event_acknowledged(event, position, "http://b", now);
    }

    fn new_epoch(&mut self) -> Epoch {
        self.epochs += 1;
        epoch(self.epochs)
    }

    /// Another process takes over and lacks the last `lost` entries.
    fn fail_over(&mut self, lost: u64) {
        let keeps = self.log.head.saturating_sub(lost);
        self.entries.truncate(keeps as usize);
        let log = &mut self.log;
        let old = (log.epoch, log.head);
        log.past.insert(0, old);
        for (_, end) in &mut log.past {
            *end = keeps.min(*end);
        }
        log.past.truncate(16);
        log.head = keeps;
        log.oldest = log.oldest.min(keeps + 1);
        self.log.epoch = self.new_epoch();
    }

    fn flush(&mut self) {
        self.entries.clear();
        let epoch = self.new_epoch();
        self.log = LogState::new(epoch);
    }

    fn trim(&mut self, count: u64) {
        self.log.oldest = (self.log.oldest + count).min(self.log.head + 1);
    }

    /// Delivers what one subscriber is due, up to `most` entries.
    fn deliver(&mut self, subscriber: usize, most: usize) {
        for _ in 0..most {
            let at = self.positions[subscriber];
            if let Some(reason) = self.log.reset_for(at) {
                self.reset(subscriber, reason);
            } else if at.seq < self.log.head {
                let (position, event) = self.entries[at.seq as usize];
                self.entry(subscriber, position, event);
            }
        }
    }

    fn entry(&mut self, subscriber: usize, position: Position, event: EventId) {
        let now = self.now();
        self.checker.entry(subscriber, 0, position, Some(event), now);
        self.positions[subscriber] = position;
    }

    fn reset(&mut self, subscriber: usize, reason: ResetReason) {
        let log = &self.log;
        let oldest = log.at(log.oldest);
        let reset = Reset {
            reason,
            from: self.positions[subscriber].to_string(),
            oldest: (log.oldest <= log.head).then_some(oldest),
            head: Some(log.at(log.head)),
        };
        let resume = log.at(log.oldest - 1);
        let now = self.now();
        let question = self.checker.reset(subscriber, 0, &reset, resume, now);
        self.questions.extend(question);
        self.positions[subscriber] = resume;
    }

    fn retained(&self) -> Retained {
        let log = &self.log;
        let entries = &self.entries[log.oldest as usize - 1..];
        Retained {
            entries: entries.iter().map(|(position, _)| *position).collect(),
            oldest: (!entries.is_empty()).then(|| log.at(log.oldest)),
            head: Some(log.at(log.head)),
        }
    }

    fn answer_questions(&mut self) {
        let now = self.retained();
        for question in std::mem::take(&mut self.questions) {
            // The same question as over HTTP: only what comes from the client's position on.
            let Claim::Reset { from, head } = question.claim else { continue };
            let mut seen = now.clone();
            seen.entries.retain(|entry| entry.seq >= from.seq);
            let evidence = match is_spurious(from, head, &seen) {
                true => Evidence::Refutes(String::new()),
                false => Evidence::Supports,
            };
            self.checker.answer_question(question, &evidence);
        }
    }

    /// The end of a check, as [`Check::finish`](super::super::Check::finish) has it.
    fn close(mut self) -> Checker {
        self.answer_questions();
        let now = self.retained();
        let mut missing = self.checker.missing();
        for missing in &mut missing {
            for (position, _, cause) in &mut missing.events {
                *cause = cause_of(*position, *cause, now.entries.contains(position), &now);
            }
        }
        let at = self.now();
        self.checker.close(&missing, at);
        self.checker
    }

    fn close_after_delivering_all(mut self) -> Checker {
        for subscriber in 0..SUBSCRIBERS {
            self.deliver(subscriber, self.entries.len() + 2);
        }
        assert!(self.questions.is_empty() || !self.entries.is_empty() || self.log.head == 0);
        self.close()
    }
}

const LOSS_EXPECTED: Rules = Rules { idempotent: true, loss_expected: true };
const NO_LOSS: Rules = Rules { idempotent: true, loss_expected: false };

fn kinds(checker: &Checker) -> HashMap<Kind, u64> {
    checker.kinds().iter().map(|(&kind, &count)| (kind, count)).collect()
}

#[derive(Debug, Clone)]
enum Action {
    Publish,
    PublishTwice(u64),
    Deliver(usize, usize),
    Reconnect(usize),
    FailOver(u64),
    Flush,
    Trim(u64),
    Ask,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        12 => Just(Action::Publish),
        2 => (0..3_u64).prop_map(Action::PublishTwice),
        12 => (0..SUBSCRIBERS, 1..6_usize).prop_map(|(who, most)| Action::Deliver(who, most)),
        3 => (0..SUBSCRIBERS).prop_map(Action::Reconnect),
        2 => (0..4_u64).prop_map(Action::FailOver),
        1 => Just(Action::Flush),
        2 => (1..5_u64).prop_map(Action::Trim),
        1 => Just(Action::Ask),
    ];
    proptest::collection::vec(action, 0..120)
}

proptest! {
    #[test]
    fn an_honest_gateway_is_never_reported_whatever_happens_to_its_log(
        actions in actions()
    ) {
        let mut simulation = Simulation::new(LOSS_EXPECTED);
        for action in actions {
            match action {
                Action::Publish => { simulation.publish(); }
                Action::PublishTwice(lost) => simulation.publish_with_retry(|simulation| {
                    if lost > 0 {
                        // Some see it before it is lost.
                        simulation.deliver(0, 3);
                        simulation.fail_over(lost);
                    }
                }),
                Action::Deliver(who, most) => simulation.deliver(who, most),
                Action::Reconnect(who) => {
                    simulation.checker.stream_left(who, simulation.clock);
                    simulation.connect(who);
                }
                Action::FailOver(lost) => simulation.fail_over(lost),
                Action::Flush => simulation.flush(),
                Action::Trim(count) => simulation.trim(count),
                Action::Ask => simulation.answer_questions(),
            }
        }
        let checker = simulation.close_after_delivering_all();
        prop_assert_eq!(checker.violations().len(), 0, "{}", checker.violations()[0]);
        prop_assert_eq!(checker.counts().resets_spurious, 0);
        prop_assert_eq!(checker.counts().duplicate_appends, 0);
    }

    #[test]
    fn one_defect_is_seen_as_what_it_is(before in 3..20_usize, after in 2..20_usize, defect in 0..7_u8) {
        let mut simulation = Simulation::new(NO_LOSS);
        for _ in 0..before {
            simulation.publish();
        }
        for subscriber in 0..SUBSCRIBERS {
            simulation.deliver(subscriber, before);
        }
        let expected: &[(Kind, u64)] = match defect {
            // One entry is left out for one subscriber.
            0 => {
                simulation.publish();
                simulation.positions[1] = simulation.log.at(simulation.log.head);
                &[(Kind::Gap, 1), (Kind::LostInSilence, 1)]
            }
            // One comes twice.
            1 => {
                let (position, event) = simulation.entries[before - 1];
                simulation.entry(1, position, event);
                &[(Kind::Duplicate, 1)]
            }
            // Two come in the wrong order.
            2 => {
                let ((one, first), (other, second)) = (simulation.publish(), simulation.publish());
                simulation.entry(1, second, other);
                simulation.entry(1, first, one);
                simulation.positions[1] = second;
                &[(Kind::OutOfOrder, 1)]
            }
            // A loss is told that is none.
            3 => {
                simulation.reset(1, ResetReason::Lost);
                &[(Kind::SpuriousReset, 1)]
            }
            // An acknowledged event is thrown away.
            4 => {
                let now = simulation.now();
                let event = simulation.checker.event_sent(0, 0, now);
                let position = Position { seq: 1_000_000, epoch: simulation.log.epoch };
                simulation.checker.event_acknowledged(event, position, "http://a", now);
                &[(Kind::LostInSilence, SUBSCRIBERS as u64), (Kind::Reordered, 1)]
            }
            // Somebody gets another event at a position than the others got.
            5 => {
                let (one, first) = simulation.publish();
                let (other, _) = (EventId(one.0 - 1), ());
                simulation.deliver(0, 1);
                simulation.entry(1, first, other);
                &[(Kind::Conflict, 1)]
            }
            // The log has an event twice that was sent once.
            _ => {
                let (event, _) = simulation.publish();
                simulation.write(event);
                &[(Kind::DuplicateAppend, 1)]
            }
        };
        for _ in 0..after {
            simulation.publish();
        }
        let checker = simulation.close_after_delivering_all();
        prop_assert_eq!(kinds(&checker), expected.iter().copied().collect(), "{:#?}", checker.violations());
    }
}

#[test]
fn what_a_failover_loses_is_told_to_those_who_saw_it_and_counted_for_all() {
    let mut simulation = Simulation::new(NO_LOSS);
    for _ in 0..5 {
        simulation.publish();
    }
    simulation.deliver(0, 5);
    simulation.deliver(1, 3);
    simulation.fail_over(2);
    simulation.publish();
    let checker = simulation.close_after_delivering_all();
    // Subscriber 0 saw 4 and 5; the others were never told that there had been such.
    assert_eq!(
        kinds(&checker),
        HashMap::from([(Kind::LostByLog, 2)]),
        "{:?}",
        checker.violations()
    );
    assert_eq!(checker.counts().lost_by_log, 4);
    assert_eq!(checker.counts().resets_justified, 1);
    assert_eq!(checker.counts().lost_in_silence, 0);
    // Subscriber 0 got 1 to 3 again, which says nothing of how long a delivery takes.
    assert_eq!(checker.lags().count(), checker.counts().delivered - 3);
}

#[test]
fn what_a_flush_takes_from_a_subscriber_is_lost_and_told() {
    let mut simulation = Simulation::new(NO_LOSS);
    for _ in 0..5 {
        simulation.publish();
    }
    for subscriber in 0..SUBSCRIBERS {
        simulation.deliver(subscriber, 3);
    }
    simulation.flush();
    simulation.publish();
    let checker = simulation.close_after_delivering_all();
    assert_eq!(
        kinds(&checker),
        HashMap::from([(Kind::LostAndTold, 3)]),
        "{:?}",
        checker.violations()
    );
    assert_eq!(checker.counts().lost_and_told, 6);
}

#[test]
fn an_event_that_was_lost_and_sent_again_is_no_duplicate_but_two_in_one_log_are() {
    let duplicates = |lost: u64| {
        let mut simulation = Simulation::new(NO_LOSS);
        for _ in 0..3 {
            simulation.publish();
        }
        let now = simulation.now();
        let event = simulation.checker.event_sent(0, 1, now);
        simulation.write(event);
        simulation.deliver(0, 4);
        simulation.fail_over(lost);
        let now = simulation.now();
        simulation.checker.event_resent(event, now);
        // A log that does not know the key takes it as new.
        let position = simulation.write(event);
        let now = simulation.now();
        simulation.checker.event_acknowledged(event, position, "http://b", now);
        let counts = simulation.close_after_delivering_all().counts();
        (counts.duplicate_appends, counts.republished_after_loss)
    };
    assert_eq!(duplicates(1), (0, 1));
    assert_eq!(duplicates(0), (1, 0));
}

#[test]
fn what_is_trimmed_while_a_stream_from_the_earliest_opens_was_too_old_for_it() {
    let follows = vec![vec![0]];
    let mut checker = Checker::new(NO_LOSS, vec!["check-t-1".to_owned()], &follows);
    let at = Duration::from_secs;
    let position = |seq| Position { seq, epoch: epoch(0) };
    let event = |checker: &mut Checker, seq, sent| {
        let event = checker.event_sent(0, 0, at(sent));
        checker.event_acknowledged(event, position(seq), "http://a", at(sent));
        event
    };
    event(&mut checker, 5, 1);
    checker.opening_event(0, 0, position(4), at(2));
    event(&mut checker, 6, 3);
    let last = event(&mut checker, 7, 4);
    let (oldest, head) = (Some(position(7)), Some(position(7)));
    let reset = Reset { reason: ResetReason::Trimmed, from: position(4).to_string(), oldest, head };
    checker.reset(0, 0, &reset, position(6), at(5));
    checker.entry(0, 0, position(7), Some(last), at(5));
    checker.close(&checker.missing(), at(6));
    // 5 was sent before it joined, 6 after that.
    assert_eq!(
        kinds(&checker),
        HashMap::from([(Kind::LostAndTold, 1)]),
        "{:?}",
        checker.violations()
    );
    assert_eq!((checker.counts().too_old, checker.counts().lost_and_told), (1, 1));
}

#[test]
fn a_stream_that_skips_a_lost_stretch_without_a_reset_is_caught() {
    let mut simulation = Simulation::new(LOSS_EXPECTED);
    for _ in 0..5 {
        simulation.publish();
    }
    simulation.deliver(0, 5);
    simulation.fail_over(2);
    // It saw 5 of the old epoch, and goes on with 6 of the new one as if nothing were.
    for _ in 0..3 {
        simulation.publish();
    }
    simulation.positions[0] = simulation.log.at(5);
    let checker = simulation.close_after_delivering_all();
    assert_eq!(
        kinds(&checker),
        HashMap::from([(Kind::LostInSilence, 1)]),
        "{:?}",
        checker.violations()
    );
    assert_eq!(checker.counts().lost_in_silence, 2);
}

#[test]
fn every_violation_carries_what_led_to_it() {
    let mut simulation = Simulation::new(NO_LOSS);
    simulation.publish();
    simulation.deliver(2, 1);
    let (position, event) = simulation.entries[0];
    simulation.entry(2, position, event);
    let checker = simulation.close_after_delivering_all();
    let [violation] = checker.violations() else { panic!("{:?}", checker.violations()) };
    assert_eq!((violation.subscriber, violation.connection), (Some(2), Some(1)));
    assert_eq!(violation.url.as_deref(), Some("http://a"));
    let text = violation.to_string();
    for part in
        ["duplicate", "check-t-1", "subscriber 2", "number 2", "1-e0000", "event 0 of publisher 0"]
    {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert_eq!(violation.recent.len(), 3, "asked, opening event, the entry: {text}");
}

#[test]
fn progress_is_when_the_last_subscriber_got_something_acknowledged_later() {
    let mut simulation = Simulation::new(NO_LOSS);
    simulation.publish();
    simulation.deliver(0, 1);
    simulation.clock = Duration::from_secs(1);
    let fault = simulation.now();
    assert_eq!(simulation.checker.progress_after(fault), None);
    simulation.publish();
    for (subscriber, at) in [(0, 2), (1, 3), (2, 4)] {
        assert_eq!(simulation.checker.progress_after(fault), None);
        simulation.clock = Duration::from_secs(at);
        simulation.deliver(subscriber, 2);
    }
    let reached = simulation.checker.progress_after(fault).unwrap();
    assert!((Duration::from_secs(4)..Duration::from_millis(4_100)).contains(&reached));
}
