//! [`Violation`]: a promise that was seen broken, with what is needed to believe it.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// What kind of promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A stream went on after a number that is not the one before, without a reset.
    Gap,
    /// A stream delivered a number again, or one that it had passed, without a reset.
    Duplicate,
    /// A stream delivered entries in another order than the log's, without a reset.
    OutOfOrder,
    /// One position stands for two events.
    Conflict,
    /// An event that this check did not publish there.
    UnexpectedEvent,
    /// An event whose type or data is not what was published.
    Altered,
    /// An event has two positions in one log.
    DuplicateAppend,
    /// Acknowledged, due to a subscriber, never delivered, and nothing was said.
    LostInSilence,
    /// Acknowledged and not delivered, and a reset said so. A violation unless loss is expected.
    LostAndTold,
    /// Acknowledged, and the log gave its number to another event or no longer knows it, so that a
    /// subscriber that had not seen it went on without. A violation unless loss is expected.
    LostByLog,
    /// A reset told of a loss, and the log still had everything.
    SpuriousReset,
    /// A reset that cannot be read or contradicts the stream.
    BadReset,
    /// The opening event of a resumed stream is at another position than the client was.
    Moved,
    /// An answer after which a browser gives up for ever.
    FatalAnswer,
    /// Something on a stream or in an answer that cannot be read.
    Malformed,
    /// One publisher's later event was acknowledged at an earlier position than one before it.
    Reordered,
    /// The server says that an `Idempotency-Key` came with another body, which it never did.
    KeyMisjudged,
}

impl Kind {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Gap => "gap",
            Kind::Duplicate => "duplicate",
            Kind::OutOfOrder => "out of order",
            Kind::Conflict => "one position, two events",
            Kind::UnexpectedEvent => "unexpected event",
            Kind::Altered => "altered event",
            Kind::DuplicateAppend => "appended twice",
            Kind::LostInSilence => "lost in silence",
            Kind::LostAndTold => "lost and told",
            Kind::LostByLog => "lost by the log",
            Kind::SpuriousReset => "spurious reset",
            Kind::BadReset => "bad reset",
            Kind::Moved => "resumed elsewhere",
            Kind::FatalAnswer => "fatal answer",
            Kind::Malformed => "malformed",
            Kind::Reordered => "reordered",
            Kind::KeyMisjudged => "idempotency key misjudged",
        }
    }
}

/// A promise that was seen broken.
#[derive(Debug, Clone, Serialize)]
pub struct Violation {
    /// Which promise.
    pub kind: Kind,
    /// Since the start of the check, in seconds.
    pub at_seconds: f64,
    /// The topic, if it is about one.
    pub topic: Option<String>,
    /// Number of the subscriber, if one saw it.
    pub subscriber: Option<usize>,
    /// The gateway that the subscriber or publisher spoke to.
    pub url: Option<String>,
    /// Which connection of that subscriber it was, counted from 1.
    pub connection: Option<u32>,
    /// What should have come.
    pub expected: String,
    /// What came.
    pub came: String,
    /// How many events or deliveries it is about; 1 for most.
    pub events: u64,
    /// The last things that the subscriber saw before, oldest first.
    pub recent: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:.3} s", self.kind.as_str(), self.at_seconds)?;
        if let Some(topic) = &self.topic {
            write!(f, ", topic {topic}")?;
        }
        if let Some(subscriber) = self.subscriber {
            write!(f, ", subscriber {subscriber}")?;
        }
        if let Some(connection) = self.connection {
            write!(f, ", its connection {connection}")?;
        }
        if let Some(url) = &self.url {
            write!(f, " to {url}")?;
        }
        write!(f, "\n    expected  {}\n    came      {}", self.expected, self.came)?;
        for (n, line) in self.recent.iter().enumerate() {
            let name = if n == 0 { "before" } else { "" };
            write!(f, "\n    {name:8}  {line}")?;
        }
        Ok(())
    }
}

/// Seconds for reports, from a time since the start.
pub(super) fn seconds(at: Duration) -> f64 {
    (at.as_secs_f64() * 1e6).round() / 1e6
}
