//! [`Ledger`]: what was published, how it was answered, and which event each position stands for.
//!
//! Compact, because a long check at a high rate writes hundreds of thousands of lines here: 64
//! bytes an event, and some 40 for its position.

use std::collections::HashMap;
use std::time::Duration;

use crate::position::{Epoch, Position};

/// An event of this check: the how-manieth it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u32);

/// How far the publication of an event got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was sent and not answered, or not yet.
    Open,
    /// It was acknowledged with a position.
    Acknowledged,
    /// It was refused for good, so it is in no log.
    Refused,
}

/// One line of the ledger. Times are microseconds since the start.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    first_sent: u64,
    last_sent: u64,
    acknowledged: u64,
    /// 32 bytes with the mark that there is none.
    place: Option<Position>,
    topic: u16,
    publisher: u16,
    attempts: u16,
    outcome: Outcome,
}

impl Line {
    /// Index of its topic.
    pub fn topic(&self) -> usize {
        usize::from(self.topic)
    }

    /// Number of its publisher.
    pub fn publisher(&self) -> usize {
        usize::from(self.publisher)
    }

    /// How often it was sent.
    pub fn attempts(&self) -> u16 {
        self.attempts
    }

    /// When it was sent first.
    pub fn first_sent(&self) -> Duration {
        Duration::from_micros(self.first_sent)
    }

    /// When it was sent last.
    pub fn last_sent(&self) -> Duration {
        Duration::from_micros(self.last_sent)
    }

    /// When it was acknowledged, if it was.
    pub fn acknowledged(&self) -> Option<Duration> {
        (self.outcome == Outcome::Acknowledged).then(|| Duration::from_micros(self.acknowledged))
    }

    /// The first position it was known to have.
    pub fn place(&self) -> Option<Position> {
        self.place
    }
}

/// What a position and an event say of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agreement {
    /// Nothing that contradicts what is known.
    Agrees,
    /// The position stands for another event.
    Conflict(Token),
    /// The event has these positions too.
    Elsewhere(Vec<Position>),
}

#[derive(Debug, Default)]
struct TopicBook {
    events: HashMap<Position, Token>,
    /// Every epoch that a position was seen in.
    epochs: Vec<Epoch>,
    acknowledged: Vec<Token>,
    newest: Option<Position>,
}

/// What was published and where it is.
#[derive(Debug)]
pub struct Ledger {
    lines: Vec<Line>,
    topics: Vec<TopicBook>,
    /// Further positions of events that have more than one: rare.
    elsewhere: HashMap<Token, Vec<Position>>,
}

fn microseconds(at: Duration) -> u64 {
    u64::try_from(at.as_micros()).unwrap_or(u64::MAX)
}

impl Ledger {
    /// An empty ledger for this many topics.
    pub fn new(topics: usize) -> Ledger {
        let topics = std::iter::repeat_with(TopicBook::default).take(topics).collect();
        Ledger { lines: Vec::new(), topics, elsewhere: HashMap::new() }
    }

    /// Opens a line for an event that is about to be sent.
    pub fn open(&mut self, topic: usize, publisher: usize, now: Duration) -> Token {
        let token = Token(u32::try_from(self.lines.len()).unwrap_or(u32::MAX));
        self.lines.push(Line {
            first_sent: microseconds(now),
            last_sent: microseconds(now),
            acknowledged: 0,
            place: None,
            topic: u16::try_from(topic).unwrap_or(u16::MAX),
            publisher: u16::try_from(publisher).unwrap_or(u16::MAX),
            attempts: 1,
            outcome: Outcome::Open,
        });
        token
    }

    /// The line of an event, `None` if this check has none.
    pub fn line(&self, token: Token) -> Option<&Line> {
        self.lines.get(token.0 as usize)
    }

    /// How many events were sent.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether nothing was sent yet.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Notes that the event is sent again.
    pub fn attempt(&mut self, token: Token, now: Duration) {
        if let Some(line) = self.lines.get_mut(token.0 as usize) {
            line.attempts = line.attempts.saturating_add(1);
            line.last_sent = microseconds(now);
        }
    }

    /// Notes that the event was refused for good.
    pub fn refuse(&mut self, token: Token) {
        if let Some(line) = self.lines.get_mut(token.0 as usize) {
            line.outcome = Outcome::Refused;
        }
    }

    /// Notes that the event was acknowledged at this position.
    pub fn acknowledge(&mut self, token: Token, place: Position, now: Duration) -> Agreement {
        let Some(line) = self.lines.get_mut(token.0 as usize) else { return Agreement::Agrees };
        line.outcome = Outcome::Acknowledged;
        line.acknowledged = microseconds(now);
        let topic = line.topic();
        let agreement = self.place(topic, place, token);
        // What must be delivered is what the answer said, also if a stream said otherwise before.
        self.lines[token.0 as usize].place = Some(place);
        let book = &mut self.topics[topic];
        book.acknowledged.push(token);
        let is_newer = |newest: Position| newest.epoch != place.epoch || newest.seq < place.seq;
        if book.newest.is_none_or(is_newer) {
            book.newest = Some(place);
        }
        agreement
    }

    /// Notes that the event was seen at this position, and says whether that can be.
    pub fn place(&mut self, topic: usize, place: Position, token: Token) -> Agreement {
        let Some(line) = self.lines.get_mut(token.0 as usize) else { return Agreement::Agrees };
        let book = &mut self.topics[topic];
        if !book.epochs.contains(&place.epoch) {
            book.epochs.push(place.epoch);
        }
        let known = *book.events.entry(place).or_insert(token);
        if known != token {
            return Agreement::Conflict(known);
        }
        let first = *line.place.get_or_insert(place);
        if first == place && !self.elsewhere.contains_key(&token) {
            return Agreement::Agrees;
        }
        let others = self.elsewhere.entry(token).or_insert_with(|| vec![first]);
        if !others.contains(&place) {
            others.push(place);
        }
        Agreement::Elsewhere(others.iter().copied().filter(|&other| other != place).collect())
    }

    /// The events of a topic that were acknowledged, in the order of the answers.
    pub fn acknowledged(&self, topic: usize) -> &[Token] {
        &self.topics[topic].acknowledged
    }

    /// The newest position of a topic that was acknowledged.
    pub fn newest(&self, topic: usize) -> Option<Position> {
        self.topics[topic].newest
    }

    /// The event at this position, as far as known.
    pub fn event_at(&self, topic: usize, place: Position) -> Option<Token> {
        self.topics[topic].events.get(&place).copied()
    }

    /// Whether the number of an acknowledged event was given to another one that was sent later:
    /// numbers are given once, so the log has lost the first.
    pub fn was_given_again(&self, topic: usize, place: Position, acknowledged: Duration) -> bool {
        let book = &self.topics[topic];
        let others = book.epochs.iter().filter(|epoch| **epoch != place.epoch);
        others.copied().any(|epoch| {
            let other = book.events.get(&Position { epoch, ..place });
            let other = other.and_then(|token| self.line(*token));
            other.is_some_and(|line| line.first_sent() >= acknowledged)
        })
    }
}
