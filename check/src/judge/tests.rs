use std::collections::HashMap;

use proptest::prelude::*;

use super::super::history::{Retained, fate_of, in_vain};
use super::*;
use crate::position::Epoch;

/// What the log of the world below knows of itself: its epoch, how far the earlier ones reached,
/// and what it still holds. Written from the promises, as the checker is, and not from the server.
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
    fn reset_for(&self, position: Position) -> Option<Reason> {
        let now = (self.epoch, self.head);
        let mut epochs = std::iter::once(&now).chain(&self.past);
        match epochs.find(|(epoch, _)| *epoch == position.epoch) {
            Some((_, last)) if position.seq <= *last => {
                (position.seq + 1 < self.oldest).then_some(Reason::Trimmed)
            }
            _ => Some(Reason::Lost),
        }
    }
}

/// A log that suffers, and gateways that deliver from it. Honest, unless told to lie.
struct World {
    judge: Judge,
    log: LogState,
    /// Entries that were not lost, from 1 on; those before `log.oldest` cannot be read.
    entries: Vec<(Position, Token)>,
    /// Where each subscriber is.
    at: Vec<Position>,
    epochs: u32,
    clock: Duration,
    questions: Vec<Question>,
}

const SUBSCRIBERS: usize = 3;

fn epoch(n: u32) -> Epoch {
    format!("e{n:04}").parse().unwrap()
}

impl World {
    fn new(rules: Rules) -> World {
        let follows = vec![vec![0]; SUBSCRIBERS];
        let log = LogState::new(epoch(0));
        let mut world = World {
            judge: Judge::new(rules, vec!["check-t-1".to_owned()], &follows),
            at: vec![log.at(0); SUBSCRIBERS],
            log,
            entries: Vec::new(),
            epochs: 0,
            clock: Duration::ZERO,
            questions: Vec::new(),
        };
        for subscriber in 0..SUBSCRIBERS {
            world.connect(subscriber);
        }
        world
    }

    fn now(&mut self) -> Duration {
        self.clock += Duration::from_millis(1);
        self.clock
    }

    fn connect(&mut self, subscriber: usize) {
        let now = self.now();
        self.judge.asks(subscriber, "http://a", now);
        self.judge.hello(subscriber, 0, self.at[subscriber], now);
    }

    fn write(&mut self, token: Token) -> Position {
        self.log.head += 1;
        let place = self.log.at(self.log.head);
        self.entries.push((place, token));
        place
    }

    fn publish(&mut self) -> (Token, Position) {
        let now = self.now();
        let token = self.judge.send(0, 0, now);
        let place = self.write(token);
        let now = self.now();
        self.judge.acknowledge(token, place, "http://a", now);
        (token, place)
    }

    /// The answer never comes, and the event is sent again with its key, which the log knows if it
    /// has the event.
    fn publish_with_retry(&mut self, between: impl FnOnce(&mut World)) {
        let now = self.now();
        let token = self.judge.send(0, 1, now);
        let place = self.write(token);
        between(self);
        let now = self.now();
        self.judge.send_again(token, now);
        let place = match self.entries.contains(&(place, token)) {
            true => place,
            false => self.write(token),
        };
        let now = self.now();
        self.judge.acknowledge(token, place, "http://b", now);
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
            let at = self.at[subscriber];
            if let Some(reason) = self.log.reset_for(at) {
                self.reset(subscriber, reason);
            } else if at.seq < self.log.head {
                let (place, token) = self.entries[at.seq as usize];
                self.entry(subscriber, place, token);
            }
        }
    }

    fn entry(&mut self, subscriber: usize, place: Position, token: Token) {
        let now = self.now();
        self.judge.entry(subscriber, 0, place, Some(token), now);
        self.at[subscriber] = place;
    }

    fn reset(&mut self, subscriber: usize, reason: Reason) {
        let log = &self.log;
        let oldest = log.at(log.oldest);
        let reset = Reset {
            reason,
            from: self.at[subscriber].to_string(),
            oldest: (log.oldest <= log.head).then_some(oldest),
            head: Some(log.at(log.head)),
        };
        let resume = log.at(log.oldest - 1);
        let now = self.now();
        let question = self.judge.reset(subscriber, 0, &reset, resume, now);
        self.questions.extend(question);
        self.at[subscriber] = resume;
    }

    fn retained(&self) -> Retained {
        let log = &self.log;
        let entries = &self.entries[log.oldest as usize - 1..];
        Retained {
            entries: entries.iter().map(|(place, _)| *place).collect(),
            oldest: (!entries.is_empty()).then(|| log.at(log.oldest)),
            head: Some(log.at(log.head)),
        }
    }

    fn answer_questions(&mut self) {
        let now = self.retained();
        for question in std::mem::take(&mut self.questions) {
            // The same question as over HTTP: only what comes from the client's place on.
            let Doubt::Reset { from, head } = question.doubt else { continue };
            let mut seen = now.clone();
            seen.entries.retain(|entry| entry.seq >= from.seq);
            let finding =
                if in_vain(from, head, &seen) { Finding::Accuses } else { Finding::Excuses };
            self.judge.answer(question, finding, "");
        }
    }

    /// The end of a check, as [`Running::finish`](super::super::Running::finish) has it.
    fn close(mut self) -> Judge {
        self.answer_questions();
        let now = self.retained();
        let mut missing = self.judge.missing();
        for missing in &mut missing {
            for (place, _, fate) in &mut missing.events {
                *fate = fate_of(*place, *fate, now.entries.contains(place), &now);
            }
        }
        let at = self.now();
        self.judge.close(&missing, at);
        self.judge
    }

    fn close_after_delivering_all(mut self) -> Judge {
        for subscriber in 0..SUBSCRIBERS {
            self.deliver(subscriber, self.entries.len() + 2);
        }
        assert!(self.questions.is_empty() || !self.entries.is_empty() || self.log.head == 0);
        self.close()
    }
}

const LOSS_EXPECTED: Rules = Rules { idempotent: true, loss_expected: true };
const NO_LOSS: Rules = Rules { idempotent: true, loss_expected: false };

fn kinds(judge: &Judge) -> HashMap<Kind, u64> {
    judge.kinds().iter().map(|(&kind, &count)| (kind, count)).collect()
}

#[derive(Debug, Clone)]
enum Happening {
    Publish,
    PublishTwice(u64),
    Deliver(usize, usize),
    Reconnect(usize),
    FailOver(u64),
    Flush,
    Trim(u64),
    Ask,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let happening = prop_oneof![
        12 => Just(Happening::Publish),
        2 => (0..3_u64).prop_map(Happening::PublishTwice),
        12 => (0..SUBSCRIBERS, 1..6_usize).prop_map(|(who, most)| Happening::Deliver(who, most)),
        3 => (0..SUBSCRIBERS).prop_map(Happening::Reconnect),
        2 => (0..4_u64).prop_map(Happening::FailOver),
        1 => Just(Happening::Flush),
        2 => (1..5_u64).prop_map(Happening::Trim),
        1 => Just(Happening::Ask),
    ];
    proptest::collection::vec(happening, 0..120)
}

proptest! {
    #[test]
    fn an_honest_gateway_is_never_accused_whatever_happens_to_its_log(
        happenings in happenings()
    ) {
        let mut world = World::new(LOSS_EXPECTED);
        for happening in happenings {
            match happening {
                Happening::Publish => { world.publish(); }
                Happening::PublishTwice(lost) => world.publish_with_retry(|world| {
                    if lost > 0 {
                        // Some see it before it is lost.
                        world.deliver(0, 3);
                        world.fail_over(lost);
                    }
                }),
                Happening::Deliver(who, most) => world.deliver(who, most),
                Happening::Reconnect(who) => {
                    world.judge.roamed(who, world.clock);
                    world.connect(who);
                }
                Happening::FailOver(lost) => world.fail_over(lost),
                Happening::Flush => world.flush(),
                Happening::Trim(count) => world.trim(count),
                Happening::Ask => world.answer_questions(),
            }
        }
        let judge = world.close_after_delivering_all();
        prop_assert_eq!(judge.violations().len(), 0, "{}", judge.violations()[0]);
        prop_assert_eq!(judge.counts().resets_in_vain, 0);
        prop_assert_eq!(judge.counts().doubled_by_retry, 0);
    }

    #[test]
    fn one_lie_is_seen_as_what_it_is(before in 3..20_usize, after in 2..20_usize, lie in 0..7_u8) {
        let mut world = World::new(NO_LOSS);
        for _ in 0..before {
            world.publish();
        }
        for subscriber in 0..SUBSCRIBERS {
            world.deliver(subscriber, before);
        }
        let expected: &[(Kind, u64)] = match lie {
            // One entry is left out for one subscriber.
            0 => {
                world.publish();
                world.at[1] = world.log.at(world.log.head);
                &[(Kind::Hole, 1), (Kind::LostInSilence, 1)]
            }
            // One comes twice.
            1 => {
                let (place, token) = world.entries[before - 1];
                world.entry(1, place, token);
                &[(Kind::Twin, 1)]
            }
            // Two change places.
            2 => {
                let ((one, first), (other, second)) = (world.publish(), world.publish());
                world.entry(1, second, other);
                world.entry(1, first, one);
                world.at[1] = second;
                &[(Kind::OutOfOrder, 1)]
            }
            // A loss is told that is none.
            3 => {
                world.reset(1, Reason::Lost);
                &[(Kind::ResetInVain, 1)]
            }
            // An acknowledged event is thrown away.
            4 => {
                let now = world.now();
                let token = world.judge.send(0, 0, now);
                let place = Position { seq: 1_000_000, epoch: world.log.epoch };
                world.judge.acknowledge(token, place, "http://a", now);
                &[(Kind::LostInSilence, SUBSCRIBERS as u64), (Kind::Overtaken, 1)]
            }
            // Somebody gets another event at a place than the others.
            5 => {
                let (one, first) = world.publish();
                let (other, _) = (Token(one.0 - 1), ());
                world.deliver(0, 1);
                world.entry(1, first, other);
                &[(Kind::Conflict, 1)]
            }
            // The log has an event twice that was sent once.
            _ => {
                let (token, _) = world.publish();
                world.write(token);
                &[(Kind::Doubled, 1)]
            }
        };
        for _ in 0..after {
            world.publish();
        }
        let judge = world.close_after_delivering_all();
        prop_assert_eq!(kinds(&judge), expected.iter().copied().collect(), "{:#?}", judge.violations());
    }
}

#[test]
fn what_a_failover_loses_is_told_to_those_who_saw_it_and_counted_for_all() {
    let mut world = World::new(NO_LOSS);
    for _ in 0..5 {
        world.publish();
    }
    world.deliver(0, 5);
    world.deliver(1, 3);
    world.fail_over(2);
    world.publish();
    let judge = world.close_after_delivering_all();
    // Subscriber 0 saw 4 and 5; the others were never told that there had been such.
    assert_eq!(kinds(&judge), HashMap::from([(Kind::LostByLog, 2)]), "{:?}", judge.violations());
    assert_eq!(judge.counts().lost_by_log, 4);
    assert_eq!(judge.counts().resets_justified, 1);
    assert_eq!(judge.counts().lost_in_silence, 0);
    // Subscriber 0 got 1 to 3 again, which says nothing of how long a delivery takes.
    assert_eq!(judge.lags().count(), judge.counts().delivered - 3);
}

#[test]
fn what_a_flush_takes_from_a_subscriber_is_lost_and_told() {
    let mut world = World::new(NO_LOSS);
    for _ in 0..5 {
        world.publish();
    }
    for subscriber in 0..SUBSCRIBERS {
        world.deliver(subscriber, 3);
    }
    world.flush();
    world.publish();
    let judge = world.close_after_delivering_all();
    assert_eq!(kinds(&judge), HashMap::from([(Kind::LostAndTold, 3)]), "{:?}", judge.violations());
    assert_eq!(judge.counts().lost_and_told, 6);
}

#[test]
fn an_event_that_was_lost_and_sent_again_is_not_doubled_but_two_in_one_log_are() {
    let doubled = |lost: u64| {
        let mut world = World::new(NO_LOSS);
        for _ in 0..3 {
            world.publish();
        }
        let now = world.now();
        let token = world.judge.send(0, 1, now);
        world.write(token);
        world.deliver(0, 4);
        world.fail_over(lost);
        let now = world.now();
        world.judge.send_again(token, now);
        // A log that does not know the key takes it as new.
        let place = world.write(token);
        let now = world.now();
        world.judge.acknowledge(token, place, "http://b", now);
        let counts = world.close_after_delivering_all().counts();
        (counts.doubled_by_retry, counts.republished_after_loss)
    };
    assert_eq!(doubled(1), (0, 1));
    assert_eq!(doubled(0), (1, 0));
}

#[test]
fn what_is_trimmed_while_a_stream_from_the_earliest_opens_was_too_old_for_it() {
    let follows = vec![vec![0]];
    let mut judge = Judge::new(NO_LOSS, vec!["check-t-1".to_owned()], &follows);
    let at = Duration::from_secs;
    let place = |seq| Position { seq, epoch: epoch(0) };
    let token = |judge: &mut Judge, seq, sent| {
        let token = judge.send(0, 0, at(sent));
        judge.acknowledge(token, place(seq), "http://a", at(sent));
        token
    };
    token(&mut judge, 5, 1);
    judge.hello(0, 0, place(4), at(2));
    token(&mut judge, 6, 3);
    let last = token(&mut judge, 7, 4);
    let (oldest, head) = (Some(place(7)), Some(place(7)));
    let reset = Reset { reason: Reason::Trimmed, from: place(4).to_string(), oldest, head };
    judge.reset(0, 0, &reset, place(6), at(5));
    judge.entry(0, 0, place(7), Some(last), at(5));
    judge.close(&judge.missing(), at(6));
    // 5 was sent before it joined, 6 after that.
    assert_eq!(kinds(&judge), HashMap::from([(Kind::LostAndTold, 1)]), "{:?}", judge.violations());
    assert_eq!((judge.counts().too_old, judge.counts().lost_and_told), (1, 1));
}

#[test]
fn a_stream_that_skips_a_lost_stretch_without_a_reset_is_caught() {
    let mut world = World::new(LOSS_EXPECTED);
    for _ in 0..5 {
        world.publish();
    }
    world.deliver(0, 5);
    world.fail_over(2);
    // It saw 5 of the old epoch, and goes on with 6 of the new one as if nothing were.
    for _ in 0..3 {
        world.publish();
    }
    world.at[0] = world.log.at(5);
    let judge = world.close_after_delivering_all();
    assert_eq!(
        kinds(&judge),
        HashMap::from([(Kind::LostInSilence, 1)]),
        "{:?}",
        judge.violations()
    );
    assert_eq!(judge.counts().lost_in_silence, 2);
}

#[test]
fn every_violation_carries_what_led_to_it() {
    let mut world = World::new(NO_LOSS);
    world.publish();
    world.deliver(2, 1);
    let (place, token) = world.entries[0];
    world.entry(2, place, token);
    let judge = world.close_after_delivering_all();
    let [violation] = judge.violations() else { panic!("{:?}", judge.violations()) };
    assert_eq!((violation.subscriber, violation.connection), (Some(2), Some(1)));
    assert_eq!(violation.url.as_deref(), Some("http://a"));
    let text = violation.to_string();
    for part in
        ["twin", "check-t-1", "subscriber 2", "number 2", "1-e0000", "event 0 of publisher 0"]
    {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert_eq!(violation.recent.len(), 3, "asked, opening event, the entry: {text}");
}

#[test]
fn progress_is_when_the_last_subscriber_got_something_acknowledged_later() {
    let mut world = World::new(NO_LOSS);
    world.publish();
    world.deliver(0, 1);
    world.clock = Duration::from_secs(1);
    let fault = world.now();
    assert_eq!(world.judge.progress_after(fault), None);
    world.publish();
    for (subscriber, at) in [(0, 2), (1, 3), (2, 4)] {
        assert_eq!(world.judge.progress_after(fault), None);
        world.clock = Duration::from_secs(at);
        world.deliver(subscriber, 2);
    }
    let reached = world.judge.progress_after(fault).unwrap();
    assert!((Duration::from_secs(4)..Duration::from_millis(4_100)).contains(&reached));
}
