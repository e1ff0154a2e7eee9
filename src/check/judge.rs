//! [`Judge`]: hears what publishers and subscribers saw, and says which promises were broken.
//!
//! Knows neither clock nor network: every happening comes with its time since the start. What it
//! cannot decide alone, whether the log still has what somebody was told to be gone, it asks as a
//! [`Question`] that [`history`](super::history) answers.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::time::Duration;

use super::ledger::{Agreement, Ledger, Token};
use super::view::{Step, Told, View};
use super::violation::seconds;
use super::{Kind, Lags, Violation};
use crate::position::Position;

/// Violations that are kept with their evidence; the others are counted.
pub const VIOLATIONS_MAX: usize = 1_000;

/// How many of the last things a subscriber saw go with a violation.
const RECENT_MAX: usize = 8;

/// One delivery is kept for [`Judge::progress_after`] out of those that come within this time.
const SERIES_STEP: Duration = Duration::from_millis(10);

/// Why a stream said that it could not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Entries after the client's place are no longer retained.
    Trimmed,
    /// What the client has seen was lost.
    Lost,
    /// The client's id is no position.
    Unreadable,
}

/// The data of a `reset` event, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    /// Why.
    pub reason: Reason,
    /// The client's place, as the server understood it.
    pub from: String,
    /// The oldest entry that is retained.
    pub oldest: Option<Position>,
    /// The newest entry.
    pub head: Option<Position>,
}

/// Whether the log still has what a reset told to be gone.
#[derive(Debug, Clone)]
pub struct Question {
    /// Index of the topic.
    pub topic: usize,
    /// The client's place when it was told.
    pub from: Position,
    /// The head of the log as the reset told it.
    pub head: Option<Position>,
    accusation: Violation,
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The log has the client's place and everything after it.
    InVain,
    /// It has not.
    Justified,
    /// The log could not be asked.
    Unknown,
}

/// Acknowledged events that a subscriber should have been delivered and was not.
#[derive(Debug, Clone)]
pub struct Missing {
    /// Who.
    pub subscriber: usize,
    /// Index of the topic.
    pub topic: usize,
    /// Positions, and what is known of each.
    pub events: Vec<(Position, Token, Fate)>,
}

/// What became of an event that was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nobody said anything.
    Silence,
    /// A reset said that it was gone.
    Told,
    /// The log went on without it.
    LostByLog,
}

/// Sums over the whole check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// Events that were sent at least once.
    pub sent: u64,
    /// Events that were answered with a position.
    pub acknowledged: u64,
    /// Events that no answer came for until the end.
    pub unknown: u64,
    /// Events that were refused for good.
    pub refused: u64,
    /// Times an event was sent again.
    pub retries: u64,
    /// Entries that came on streams, over all subscribers.
    pub delivered: u64,
    /// Opening events, over all subscribers.
    pub connections: u64,
    /// Streams that ended without the subscriber's doing, could not be opened, or were refused for now.
    pub drops: u64,
    /// Of these, streams on which nothing came for too long.
    pub silent_streams: u64,
    /// Streams that their subscriber left in order to come back elsewhere.
    pub roams: u64,
    /// Resets, over all subscribers and topics.
    pub resets: u64,
    /// Resets after which the log did not have the client's place and all after it.
    pub resets_justified: u64,
    /// Resets after which it did.
    pub resets_in_vain: u64,
    /// Resets about which the log could not be asked.
    pub resets_unjudged: u64,
    /// Events that got a second position in the same log.
    pub doubled_by_retry: u64,
    /// Events that got a second position after the log had lost the first.
    pub republished_after_loss: u64,
    /// Deliveries of acknowledged events that are missing, and nobody said so.
    pub lost_in_silence: u64,
    /// Deliveries of acknowledged events that are missing, and a reset said so.
    pub lost_and_told: u64,
    /// Deliveries of acknowledged events that are missing because the log lost them before.
    pub lost_by_log: u64,
    /// Violations, with those beyond [`VIOLATIONS_MAX`].
    pub violations: u64,
}

/// Something that a subscriber saw.
#[derive(Debug, Clone)]
enum Seen {
    Opened(String),
    Hello(Position),
    Entry(Position, Option<Token>),
    Reset(String),
    Ended(String),
}

#[derive(Debug, Default)]
struct Book {
    views: Vec<(usize, View)>,
    url: String,
    connection: u32,
    recent: VecDeque<(Duration, Option<usize>, Seen)>,
    /// Holes that may still be filled: topic, first and last number, and what they would be told as.
    drafts: Vec<(usize, u64, u64, Violation)>,
    longest_wait: Duration,
    /// Some of its deliveries: milliseconds since the start, and which event.
    series: Vec<(u32, Token)>,
}

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

    /// A stream was opened and answered 200.
    pub fn opened(&mut self, subscriber: usize, url: &str, now: Duration) {
        let book = &mut self.books[subscriber];
        book.connection += 1;
        url.clone_into(&mut book.url);
        book.note(now, None, Seen::Opened(url.to_owned()));
        self.counts.connections += 1;
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
        if let Some(token) = event.filter(|_| step != Step::Twin) {
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
                    None => {
                        if self.republished.insert(token) {
                            self.counts.republished_after_loss += 1;
                        }
                    }
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
        let step = SERIES_STEP.as_millis() as u32;
        if book.series.last().is_none_or(|&(last, _)| milliseconds >= last + step) {
            book.series.push((milliseconds, token));
        }
    }

    /// A reset came, with an id that says after which place the stream goes on.
    pub fn reset(
        &mut self,
        subscriber: usize,
        topic: usize,
        reset: &Reset,
        resume: Position,
        now: Duration,
    ) -> Option<Question> {
        self.counts.resets += 1;
        self.settle_holes(subscriber);
        let text = format!("{:?} from {} to after {resume}", reset.reason, reset.from);
        self.books[subscriber].note(now, Some(topic), Seen::Reset(text.clone()));
        let view = self.books[subscriber].view(topic)?;
        let from = view.at()?;
        let wrong = if reset.from != from.to_string() {
            Some(format!("the client's place {from}"))
        } else if reset.oldest.is_some_and(|oldest| oldest.seq != resume.seq + 1) {
            Some(format!("an id just before the oldest entry {}", shown(reset.oldest)))
        } else if reset.reason == Reason::Trimmed && resume.seq <= from.seq {
            Some(format!("an oldest entry beyond {}", from.seq + 1))
        } else {
            None
        };
        view.reset(Told { reason: reset.reason, from, resume, at: now });
        if let Some(expected) = wrong {
            self.accuse(Kind::BadReset, now, subscriber, topic, expected, text.clone());
        }
        let about = self.about(subscriber, Some(topic));
        let expected = format!("no reset: the log has {from} and everything after it");
        let accusation = about.violation(Kind::ResetInVain, now, &self.topics, expected, text);
        Some(Question { topic, from, head: reset.head, accusation })
    }

    /// The log was asked about a reset.
    pub fn answer(&mut self, question: Question, finding: Finding, evidence: &str) {
        match finding {
            Finding::Justified => self.counts.resets_justified += 1,
            Finding::Unknown => self.counts.resets_unjudged += 1,
            Finding::InVain => {
                self.counts.resets_in_vain += 1;
                let mut violation = question.accusation;
                violation.expected = format!("{}; {evidence}", violation.expected);
                self.keep(violation);
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

    // --- At the end ----------------------------------------------------------------------------

    /// Whether every subscriber has, or was told of, the newest acknowledged event of each of its
    /// topics. Cheap; what came before it is [`Judge::missing`]'s question.
    pub fn is_settled(&self) -> bool {
        let settled = |(topic, view): &(usize, View)| {
            self.ledger.newest(*topic).is_none_or(|newest| {
                let event = self.ledger.event_at(*topic, newest);
                let line = event.and_then(|token| self.ledger.line(token));
                line.is_none_or(|line| {
                    let sent = line.first_sent();
                    !view.is_due(newest, sent)
                        || view.has(newest)
                        || view.was_told(newest, sent)
                        || view.was_passed_over(newest)
                })
            })
        };
        self.books.iter().all(|book| book.views.iter().all(settled))
    }

    /// Every acknowledged event that was due to a subscriber and not delivered.
    pub fn missing(&self) -> Vec<Missing> {
        let mut missing = Vec::new();
        for (subscriber, book) in self.books.iter().enumerate() {
            for (topic, view) in &book.views {
                let events = self.ledger.acknowledged(*topic).iter().filter_map(|&token| {
                    let line = self.ledger.line(token)?;
                    let place = line.place()?;
                    let sent = line.first_sent();
                    if view.has(place) || !view.is_due(place, sent) {
                        return None;
                    }
                    let fate = if view.was_told(place, sent) {
                        Fate::Told
                    } else if view.was_passed_over(place) {
                        Fate::LostByLog
                    } else {
                        Fate::Silence
                    };
                    Some((place, token, fate))
                });
                let mut events: Vec<_> = events.collect();
                events.sort_by_key(|(place, ..)| place.seq);
                if !events.is_empty() {
                    missing.push(Missing { subscriber, topic: *topic, events });
                }
            }
        }
        missing
    }

    /// Closes the books: judges what is missing and what is still open.
    pub fn close(&mut self, missing: &[Missing], now: Duration) {
        for subscriber in 0..self.books.len() {
            self.settle_holes(subscriber);
        }
        self.counts.unknown = self.counts.sent - self.counts.acknowledged - self.counts.refused;
        for missing in missing {
            for (fate, kind) in [
                (Fate::Silence, Kind::LostInSilence),
                (Fate::Told, Kind::LostAndTold),
                (Fate::LostByLog, Kind::LostByLog),
            ] {
                let events = missing.events.iter().filter(|(.., its)| *its == fate);
                let events: Vec<_> = events.collect();
                let Some(first) = events.first() else { continue };
                let count = events.len() as u64;
                match fate {
                    Fate::Silence => self.counts.lost_in_silence += count,
                    Fate::Told => self.counts.lost_and_told += count,
                    Fate::LostByLog => self.counts.lost_by_log += count,
                }
                if fate != Fate::Silence && self.rules.loss_expected {
                    continue;
                }
                let (place, token, _) = first;
                let acknowledged = self.ledger.line(*token).and_then(|line| line.acknowledged());
                let expected = format!(
                    "{count} acknowledged {}, the first {} at {place}, acknowledged at {:.3} s",
                    if count == 1 { "event" } else { "events" },
                    self.show(*token),
                    seconds(acknowledged.unwrap_or_default())
                );
                let at = self.books[missing.subscriber].view(missing.topic).and_then(|v| v.at());
                let came = match fate {
                    Fate::Silence => "no delivery and no reset",
                    Fate::Told => "a reset that told of the loss",
                    Fate::LostByLog => "no delivery; the log went on without it",
                };
                let came = format!("{came}; the stream stands at {}", shown(at));
                let about = self.about(missing.subscriber, Some(missing.topic));
                let mut violation = about.violation(kind, now, &self.topics, expected, came);
                violation.events = count;
                self.keep(violation);
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

    /// How many subscribers were never sent an opening event.
    pub fn never_opened(&self) -> usize {
        let opened = |book: &&Book| book.views.iter().any(|(_, view)| view.hello().is_none());
        self.books.iter().filter(opened).count()
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

    // --- Evidence ------------------------------------------------------------------------------

    fn about(&self, subscriber: usize, topic: Option<usize>) -> About {
        let book = &self.books[subscriber];
        About {
            topic,
            subscriber: Some(subscriber),
            url: Some(book.url.clone()),
            connection: Some(book.connection),
            recent: book.recent.iter().map(|seen| self.show_seen(seen)).collect(),
        }
    }

    fn accuse(
        &mut self,
        kind: Kind,
        now: Duration,
        subscriber: usize,
        topic: usize,
        expected: String,
        came: String,
    ) {
        let about = self.about(subscriber, Some(topic));
        self.violate(kind, now, about, expected, came);
    }

    fn violate(&mut self, kind: Kind, now: Duration, about: About, expected: String, came: String) {
        let violation = about.violation(kind, now, &self.topics, expected, came);
        self.keep(violation);
    }

    fn keep(&mut self, violation: Violation) {
        self.counts.violations += 1;
        *self.kinds.entry(violation.kind).or_default() += 1;
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(violation);
        }
    }

    fn show(&self, token: Token) -> String {
        match self.ledger.line(token) {
            Some(line) => format!("event {} of publisher {}", token.0, line.publisher()),
            None => format!("event {}, which was never sent,", token.0),
        }
    }

    fn show_seen(&self, (at, topic, seen): &(Duration, Option<usize>, Seen)) -> String {
        let topic = topic.map_or(String::new(), |topic| format!("{} ", self.topics[topic]));
        let what = match seen {
            Seen::Opened(url) => format!("connected to {url}"),
            Seen::Hello(place) => format!("opening event at {place}"),
            Seen::Entry(place, Some(token)) => format!("{place} {}", self.show(*token)),
            Seen::Entry(place, None) => format!("{place}, no event of this check"),
            Seen::Reset(text) => format!("reset {text}"),
            Seen::Ended(why) => format!("stream ended: {why}"),
        };
        format!("{:9.3} s  {topic}{what}", at.as_secs_f64())
    }
}

fn shown(place: Option<Position>) -> impl fmt::Display {
    place.map_or_else(|| "nowhere".to_owned(), |place| place.to_string())
}

impl Book {
    fn view(&mut self, topic: usize) -> Option<&mut View> {
        self.views.iter_mut().find(|(its, _)| *its == topic).map(|(_, view)| view)
    }

    fn note(&mut self, now: Duration, topic: Option<usize>, seen: Seen) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((now, topic, seen));
    }
}

/// Whom and what a violation is about.
#[derive(Debug, Clone)]
struct About {
    topic: Option<usize>,
    subscriber: Option<usize>,
    url: Option<String>,
    connection: Option<u32>,
    recent: Vec<String>,
}

impl About {
    const NOBODY: About =
        About { topic: None, subscriber: None, url: None, connection: None, recent: Vec::new() };

    fn violation(
        self,
        kind: Kind,
        now: Duration,
        topics: &[String],
        expected: String,
        came: String,
    ) -> Violation {
        Violation {
            kind,
            at_seconds: seconds(now),
            topic: self.topic.map(|topic| topics[topic].clone()),
            subscriber: self.subscriber,
            url: self.url,
            connection: self.connection,
            expected,
            came,
            events: 1,
            recent: self.recent,
        }
    }
}
