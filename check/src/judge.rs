//! [`Judge`]: hears what publishers and subscribers saw, and says which promises were broken.
//!
//! Knows neither clock nor network: every happening comes with its time since the start. What it
//! cannot decide alone, whether the log still has what somebody was told to be gone, it asks as a
//! [`Question`] that [`history`](super::history) answers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::ledger::{Agreement, Ledger, Token};
use super::view::{Reason, Step, Told, View};
use super::{Kind, Lags, Violation};
use crate::position::Position;

mod books;
mod closing;
mod counts;
mod doubts;

pub use books::VIOLATIONS_MAX;
pub use closing::{Fate, Missing};
pub use counts::Counts;
pub use doubts::{Doubt, Finding, Question, Reset};

use books::{About, Book, Seen, shown};

/// Of the deliveries to one subscriber within this time, [`Judge::progress_after`] knows the last.
const SERIES_STEP: Duration = Duration::from_millis(10);

/// What is expected beyond the promises.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// An event that was sent again with the same key must not be doubled.
    pub idempotent: bool,
    /// The log may lose what it acknowledged, as long as it says so.
    pub loss_expected: bool,
}

/// Hears everything and judges.
#[derive(Debug)]
pub struct Judge {
    rules: Rules,
    topics: Vec<String>,
    ledger: Ledger,
    books: Vec<Book>,
    counts: Counts,
    kinds: BTreeMap<Kind, u64>,
    violations: Vec<Violation>,
    lags: Lags,
    doubled: HashSet<Token>,
    republished: HashSet<Token>,
    /// The newest acknowledged position of each publisher in each topic.
    last_of: HashMap<(usize, usize), Position>,
}

impl Judge {
    /// A judge over these topics; subscriber `n` follows the topics with the indices `follows[n]`.
    pub fn new(rules: Rules, topics: Vec<String>, follows: &[Vec<usize>]) -> Judge {
        let books = follows.iter().map(|topics| Book {
            views: topics.iter().map(|&topic| (topic, View::default())).collect(),
            ..Book::default()
        });
        Judge {
            rules,
            ledger: Ledger::new(topics.len()),
            books: books.collect(),
            topics,
            counts: Counts::default(),
            kinds: BTreeMap::new(),
            violations: Vec::new(),
            lags: Lags::default(),
            doubled: HashSet::new(),
            republished: HashSet::new(),
            last_of: HashMap::new(),
        }
    }

    // --- What publishers see -------------------------------------------------------------------

    /// An event is about to be sent for the first time.
    pub fn send(&mut self, topic: usize, publisher: usize, now: Duration) -> Token {
        self.counts.sent += 1;
        self.ledger.open(topic, publisher, now)
    }

    /// The event is sent again.
    pub fn send_again(&mut self, token: Token, now: Duration) {
        self.counts.retries += 1;
        self.ledger.attempt(token, now);
    }

    /// The event was answered with its position.
    pub fn acknowledge(&mut self, token: Token, place: Position, url: &str, now: Duration) {
        let Some(&line) = self.ledger.line(token) else { return };
        self.counts.acknowledged += 1;
        let agreement = self.ledger.acknowledge(token, place, now);
        let about = About { topic: Some(line.topic()), url: Some(url.to_owned()), ..About::NOBODY };
        match agreement {
            Agreement::Agrees => {}
            Agreement::Conflict(other) => {
                let expected = format!("{place} to be {}", self.show(other));
                let came = format!("{} was acknowledged there", self.show(token));
                self.violate(Kind::Conflict, now, about.clone(), expected, came);
            }
            Agreement::Elsewhere(others) => {
                if let Some(&other) = others.iter().find(|other| other.epoch == place.epoch) {
                    self.double(token, other, place, about.clone(), now);
                }
            }
        }
        let last = self.last_of.insert((line.publisher(), line.topic()), place);
        if let Some(last) = last.filter(|last| last.epoch == place.epoch && last.seq > place.seq) {
            let expected = format!(
                "a place after {last}, where the previous event of publisher {} was acknowledged",
                line.publisher()
            );
            let came = format!("{} was acknowledged at {place}", self.show(token));
            self.violate(Kind::Overtaken, now, about, expected, came);
        }
    }

    /// The event was refused for good.
    pub fn refuse(&mut self, token: Token, url: &str, status: u16, body: &str, now: Duration) {
        self.counts.refused += 1;
        self.ledger.refuse(token);
        // The status that says that the key came with another body.
        if status == 422 {
            let topic = self.ledger.line(token).map(super::ledger::Line::topic);
            let about = About { topic, url: Some(url.to_owned()), ..About::NOBODY };
            let expected =
                format!("{} to be taken: its key and body never change", self.show(token));
            self.violate(Kind::KeyMisjudged, now, about, expected, format!("422 {body}"));
        }
    }

    // --- What subscribers see ------------------------------------------------------------------

    /// A stream is asked for.
    pub fn asks(&mut self, subscriber: usize, url: &str, now: Duration) {
        let book = &mut self.books[subscriber];
        book.connection += 1;
        url.clone_into(&mut book.url);
        book.note(now, None, Seen::Asked(url.to_owned()));
    }

    /// It was answered 200.
    pub fn opened(&mut self, http_2: bool) {
        self.counts.connections += 1;
        self.counts.http_2_connections += u64::from(http_2);
    }

    /// A stream ended without the subscriber's doing, or could not be opened.
    pub fn dropped(&mut self, subscriber: usize, why: &str, silent: bool, now: Duration) {
        self.counts.drops += 1;
        self.counts.silent_streams += u64::from(silent);
        self.left(subscriber, why, now);
    }

    /// The subscriber left a stream.
    pub fn roamed(&mut self, subscriber: usize, now: Duration) {
        self.counts.roams += 1;
        self.left(subscriber, "left by the subscriber", now);
    }

    fn left(&mut self, subscriber: usize, why: &str, now: Duration) {
        self.books[subscriber].note(now, None, Seen::Ended(why.to_owned()));
        self.settle_holes(subscriber);
    }

    /// The opening event said that the stream stands here in this topic.
    pub fn hello(&mut self, subscriber: usize, topic: usize, place: Position, now: Duration) {
        let book = &mut self.books[subscriber];
        let Some(view) = book.view(topic) else { return };
        let at = view.at();
        if !view.open(place, now) {
            let expected = format!("the place it came with, {}", shown(at));
            self.accuse(Kind::Moved, now, subscriber, topic, expected, place.to_string());
        }
        self.books[subscriber].note(now, Some(topic), Seen::Hello(place));
    }

    /// An entry came. `event` is what its data says it is, if it is one of this check's.
    pub fn entry(
        &mut self,
        subscriber: usize,
        topic: usize,
        place: Position,
        event: Option<Token>,
        now: Duration,
    ) {
        self.counts.delivered += 1;
        let Some(view) = self.books[subscriber].view(topic) else { return };
        let at = view.at();
        // After a reset a stream begins anew with what is retained.
        let again = view.was_reset() && view.has(place);
        let step = view.step(place);
        match step {
            Step::Next => {}
            Step::Hole(from, to) => {
                // What it looked like goes with it if nothing fills it.
                let numbers = if from == to { "number" } else { "numbers" };
                let to_last = if from == to { String::new() } else { format!(" to {to}") };
                let expected = format!("{numbers} {from}{to_last}");
                let came =
                    format!("{place}, and nothing of these until the stream ended or went on");
                let about = self.about(subscriber, Some(topic));
                let draft = about.violation(Kind::Hole, now, &self.topics, expected, came);
                self.books[subscriber].drafts.push((topic, from, to, draft));
            }
            Step::Late | Step::Twin => {
                let kind = if step == Step::Late { Kind::OutOfOrder } else { Kind::Twin };
                let next = at.map_or(place.seq, |at| at.seq + 1);
                self.accuse(
                    kind,
                    now,
                    subscriber,
                    topic,
                    format!("number {next}"),
                    place.to_string(),
                );
            }
            Step::EpochReturned => {
                let expected = format!("no entry of {} after {}", place.epoch, shown(at));
                self.accuse(Kind::OutOfOrder, now, subscriber, topic, expected, place.to_string());
            }
        }
        if let Some(token) = event {
            self.match_event(subscriber, topic, place, token, now);
        }
        let book = &mut self.books[subscriber];
        book.note(now, Some(topic), Seen::Entry(place, event));
        if let Some(token) = event.filter(|_| step != Step::Twin && !again) {
            self.measure(subscriber, topic, token, now);
        }
        // A hole that is not filled soon stays one.
        let passed = |view: &mut View| view.has_holes() && place.seq.is_multiple_of(64);
        if self.books[subscriber].view(topic).is_some_and(passed) {
            self.settle_holes(subscriber);
        }
    }

    fn match_event(
        &mut self,
        subscriber: usize,
        topic: usize,
        place: Position,
        token: Token,
        now: Duration,
    ) {
        let topic_of = self.ledger.line(token).map(super::ledger::Line::topic);
        if topic_of != Some(topic) {
            let of = topic_of.map(|topic| self.topics[topic].clone());
            let of = of.unwrap_or_else(|| "never sent".to_owned());
            let came = format!("{} at {place}, which is of {of}", self.show(token));
            let expected = "events of this topic".to_owned();
            self.accuse(Kind::Stray, now, subscriber, topic, expected, came);
            return;
        }
        match self.ledger.place(topic, place, token) {
            Agreement::Agrees => {}
            Agreement::Conflict(other) => {
                let expected = format!("{place} to be {}", self.show(other));
                let came = self.show(token);
                self.accuse(Kind::Conflict, now, subscriber, topic, expected, came);
            }
            Agreement::Elsewhere(others) => {
                let Some(view) = self.books[subscriber].view(topic) else { return };
                let same_log = |other: &&Position| {
                    other.epoch == place.epoch || view.has_in_this_stretch(**other)
                };
                match others.iter().find(same_log) {
                    Some(&other) => {
                        let about = self.about(subscriber, Some(topic));
                        self.double(token, other, place, about, now);
                    }
                    // Unless somebody else saw both in one log.
                    None => drop(self.republished.insert(token)),
                }
            }
        }
    }

    /// An event has two positions in one log.
    fn double(&mut self, token: Token, one: Position, two: Position, about: About, now: Duration) {
        if !self.doubled.insert(token) {
            return;
        }
        self.counts.doubled_by_retry += 1;
        let sent = self.ledger.line(token).map_or(0, super::ledger::Line::attempts);
        if self.rules.idempotent || sent < 2 {
            let expected = format!("{} at {one} alone; it was sent {sent} times", self.show(token));
            self.violate(Kind::Doubled, now, about, expected, format!("it is at {two} too"));
        }
    }

    fn measure(&mut self, subscriber: usize, topic: usize, token: Token, now: Duration) {
        let Some(&line) = self.ledger.line(token) else { return };
        let book = &mut self.books[subscriber];
        let Some((joined, _)) = book.view(topic).and_then(|view| view.hello()) else { return };
        if line.first_sent() >= joined {
            self.lags.add(now.saturating_sub(line.last_sent()));
            if let Some(acknowledged) = line.acknowledged() {
                book.longest_wait = book.longest_wait.max(now.saturating_sub(acknowledged));
            }
        }
        let milliseconds = u32::try_from(now.as_millis()).unwrap_or(u32::MAX);
        // The newest of each step: after an outage the old come first, and the new is the news.
        match book.series.last_mut() {
            Some(last) if now < book.step_ends => *last = (milliseconds, token),
            _ => {
                book.step_ends = now + SERIES_STEP;
                book.series.push((milliseconds, token));
            }
        }
    }

    /// Something that no rule above is about.
    pub fn complain(
        &mut self,
        kind: Kind,
        subscriber: usize,
        topic: Option<usize>,
        expected: impl Into<String>,
        came: impl Into<String>,
        now: Duration,
    ) {
        let about = self.about(subscriber, topic);
        self.violate(kind, now, about, expected.into(), came.into());
    }

    /// The same about the answer to a publisher.
    pub fn complain_of_answer(
        &mut self,
        kind: Kind,
        topic: usize,
        url: &str,
        expected: impl Into<String>,
        came: impl Into<String>,
        now: Duration,
    ) {
        let about = About { topic: Some(topic), url: Some(url.to_owned()), ..About::NOBODY };
        self.violate(kind, now, about, expected.into(), came.into());
    }

    /// Where a subscriber stands in a topic.
    pub fn at(&self, subscriber: usize, topic: usize) -> Option<Position> {
        let views = &self.books[subscriber].views;
        views.iter().find(|(its, _)| *its == topic).and_then(|(_, view)| view.at())
    }

    /// The topic that an event was published to.
    pub fn topic_of(&self, token: Token) -> Option<usize> {
        self.ledger.line(token).map(super::ledger::Line::topic)
    }

    fn settle_holes(&mut self, subscriber: usize) {
        let book = &mut self.books[subscriber];
        let drafts = std::mem::take(&mut book.drafts);
        let mut open = Vec::new();
        for (topic, view) in &mut book.views {
            open.extend(view.take_holes().into_iter().map(|hole| (*topic, hole)));
        }
        for (its, from, to, draft) in drafts {
            let left = |&(topic, (first, last)): &(usize, (u64, u64))| {
                topic == its && first >= from && last <= to
            };
            let left: u64 =
                open.iter().filter(|hole| left(hole)).map(|(_, (f, l))| l - f + 1).sum();
            if left > 0 {
                self.keep(Violation { events: left, ..draft });
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
    pub fn lags(&self) -> &Lags {
        &self.lags
    }

    /// For each subscriber the longest time it waited for an event that was acknowledged already.
    pub fn longest_waits(&self) -> Vec<Duration> {
        self.books.iter().map(|book| book.longest_wait).collect()
    }

    /// How many subscribers asked for a stream and never got an opening event.
    pub fn never_opened(&self) -> usize {
        let waits = |book: &&Book| {
            book.connection > 0 && book.views.iter().any(|(_, view)| view.hello().is_none())
        };
        self.books.iter().filter(waits).count()
    }

    /// Whether this subscriber has had an opening event.
    pub fn has_opened(&self, subscriber: usize) -> bool {
        self.books[subscriber].views.iter().all(|(_, view)| view.hello().is_some())
    }

    /// When, after `since`, the last of the subscribers that had joined before it was delivered an
    /// event that was acknowledged after it; `None` while one of them was not.
    pub fn progress_after(&self, since: Duration) -> Option<Duration> {
        let mut latest = since;
        for book in &self.books {
            let joined =
                |(_, view): &(usize, View)| view.hello().is_some_and(|(at, _)| at <= since);
            if !book.views.iter().all(joined) {
                continue;
            }
            let from = book.series.partition_point(|&(at, _)| u128::from(at) < since.as_millis());
            let delivered = book.series[from..].iter().find(|(_, token)| {
                let line = self.ledger.line(*token);
                line.and_then(|line| line.acknowledged()).is_some_and(|at| at > since)
            });
            latest = latest.max(Duration::from_millis(delivered?.0.into()));
        }
        Some(latest)
    }
}

#[cfg(test)]
mod tests;
