//! [`Event`] and [`Entry`]: what a publisher says, and what became of it in a log.
//!
//! An event comes from [`http`](crate::http) or from a decision of the [`board`](crate::board);
//! the [`log`](crate::log) gives it a position; [`wire`](crate::wire) turns it into bytes.

use std::fmt;

use bytes::Bytes;

use crate::position::Position;

/// The longest event type, in bytes.
pub const EVENT_TYPE_BYTES_MAX: usize = 200;

/// Event types that are the gateway's own on every stream.
///
/// `error` and `open` are said by nobody, but browsers dispatch events of these types to the
/// handlers that tell of the connection. `goodbye` and `end` are said by nobody yet; they are kept
/// for streams that end for good, so that no application uses them until then.
const RESERVED: [&str; 8] =
    ["connected", "heartbeat", "reset", "snapshot", "goodbye", "end", "error", "open"];

/// The type of an event: the SSE `event:` field, one line of 1 to [`EVENT_TYPE_BYTES_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventType(String);

/// Why a text is not an [`EventType`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventTypeError {
    /// No characters at all: leave the type out instead.
    Empty,
    /// More than [`EVENT_TYPE_BYTES_MAX`] bytes.
    TooLong,
    /// A line break or another control character.
    Control,
    /// A type of the gateway's own, such as `reset`: subscribers must be able to trust that these
    /// come from the gateway.
    Reserved,
}

impl EventType {
    /// Takes `text` for an event type, if it can be one.
    pub fn new(text: &str) -> Result<EventType, EventTypeError> {
        if text.is_empty() {
            Err(EventTypeError::Empty)
        } else if text.len() > EVENT_TYPE_BYTES_MAX {
            Err(EventTypeError::TooLong)
        } else if text.chars().any(char::is_control) {
            Err(EventTypeError::Control)
        } else if RESERVED.contains(&text) {
            Err(EventTypeError::Reserved)
        } else {
            Ok(EventType(text.to_owned()))
        }
    }

    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventTypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventTypeError::Empty => f.write_str("an event type needs at least one character"),
            EventTypeError::TooLong => {
                write!(f, "an event type has at most {EVENT_TYPE_BYTES_MAX} bytes")
            }
            EventTypeError::Control => {
                f.write_str("an event type is one line without control characters")
            }
            EventTypeError::Reserved => {
                write!(f, "these event types are the gateway's own: {}", RESERVED.join(", "))
            }
        }
    }
}

impl std::error::Error for EventTypeError {}

/// What the publisher gave as data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Data {
    /// JSON text on one line.
    Json(String),
    /// Text as it is; may have several lines.
    Text(String),
}

impl Data {
    /// The text that goes into the `data:` lines.
    pub fn text(&self) -> &str {
        match self {
            Data::Json(text) | Data::Text(text) => text,
        }
    }
}

/// What a publisher says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Event {
    /// The SSE `event:`; without one, browsers call `onmessage`.
    pub event_type: Option<EventType>,
    /// The SSE `data:`.
    pub data: Data,
}

/// An event that has its place in a log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its place.
    pub position: Position,
    /// When the log took it, in milliseconds since 1970 by the log's clock.
    pub milliseconds: u64,
    /// Whether its data was published as JSON.
    pub json: bool,
    /// Its SSE text after the `id:` line, blank line included
    /// (see [`sse::event_text`](crate::wire::sse::event_text)).
    pub rest: Bytes,
}
