//! [`Event`] and [`Entry`]: what a publisher says, and what became of it in a log.
//!
//! An event comes from [`http`](crate::http) or from a decision of the [`board`](crate::board);
//! the [`log`](crate::log) gives it a position; [`wire`](crate::wire) turns it into bytes.

use std::fmt;

use bytes::Bytes;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::position::Position;

/// The longest event type, in bytes.
pub const EVENT_TYPE_BYTES_MAX: usize = 200;

/// Event types that are the gateway's own on every stream.
///
/// `error` and `open` are said by nobody, but browsers dispatch events of these types to the
/// handlers that tell of the connection. `end` is said by nobody yet; it is kept for topics that are
/// closed, so that no application uses it until then.
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
    /// A line break, a control character, or one that is not seen: some readers of lines end one at
    /// U+2028 and U+2029 too, and would take what follows for a field.
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
        } else if is_reserved(text) {
            Err(EventTypeError::Reserved)
        } else if text.chars().any(|c| c.is_control() || is_separator_or_format(c)) {
            Err(EventTypeError::Control)
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
                f.write_str("an event type is one line of characters that can be seen")
            }
            EventTypeError::Reserved => {
                write!(f, "these event types are the gateway's own: {}", RESERVED.join(", "))
            }
        }
    }
}

impl std::error::Error for EventTypeError {}

/// Whether this is, or looks like, a type of the gateway's own: what is left of it without all that
/// is not seen, without regard to case and width.
fn is_reserved(text: &str) -> bool {
    let seen: String = text.chars().filter(|&c| is_seen(c)).map(narrow).collect();
    // Some letters have no capital of their own and share one: ſ is a small s.
    let folded = seen.to_uppercase().to_lowercase();
    RESERVED.contains(&&*folded)
}

/// Whether a character shows by itself. White space, controls and formats do not, nor do marks,
/// which join or vary the character before them. (A letter that has an accent of its own is another
/// letter.)
fn is_seen(c: char) -> bool {
    use GeneralCategoryGroup::{Letter, Number, Punctuation, Symbol};
    // Letters and symbols by their category, and blank.
    let is_filler =
        matches!(c, '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}' | '\u{1d159}');
    if c.is_ascii() {
        return c.is_ascii_graphic();
    }
    !is_filler && matches!(c.general_category_group(), Letter | Number | Punctuation | Symbol)
}

/// The ASCII character of which this is the form as wide as a Chinese character, if it is one.
fn narrow(c: char) -> char {
    match u32::from(c) {
        wide @ 0xff01..=0xff5e => char::from_u32(wide - 0xff01 + 0x21).unwrap_or(c),
        _ => c,
    }
}

/// Whether a character ends a line for some readers, or changes others and is not seen.
fn is_separator_or_format(c: char) -> bool {
    use GeneralCategory::{Format, LineSeparator, ParagraphSeparator};
    !c.is_ascii() && matches!(c.general_category(), Format | LineSeparator | ParagraphSeparator)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_type_of_the_gateway_is_refused_as_one() {
        for text in [
            "connected",
            " connected",
            "Connected",
            "RESET\u{a0}",
            "\u{feff}connected",
            "con\u{200b}nected",
            "snap\u{ad}shot",
            "reset\u{fe0f}",
            "\u{3164}end",
            "reset\n",
            "open\u{2028}",
            "\u{3000}Error\t",
            "re set",
            "re\nset",
            "end\0",
            // Joiners, variants, bidirectional controls, tags, fillers, marks and what is unassigned
            // or private, wherever they stand.
            "re\u{34f}set",
            "\u{202e}reset\u{202c}",
            "\u{2066}open\u{2069}",
            "error\u{e0101}",
            "e\u{e0072}rror",
            "good\u{2060}bye",
            "o\u{61c}pen",
            "o\u{115f}pen",
            "\u{2800}heartbeat",
            "en\u{180b}d",
            "\u{17b4}end",
            "end\u{1d159}",
            "end\u{fff0}",
            "end\u{e000}",
            "e\u{20dd}nd",
            "e\u{2d7f}nd",
            // Other sizes of the same letters.
            "ＲＥＳＥＴ",
            "ｃonnected",
            "re\u{17f}et",
        ] {
            assert_eq!(EventType::new(text), Err(EventTypeError::Reserved), "{text:?}");
        }
    }

    #[test]
    fn a_type_is_one_line_for_every_reader_of_lines() {
        for text in [
            "a\u{2028}id: 9",
            "a\u{2029}data: x",
            "a\u{85}b",
            "a\nb",
            "a\rb",
            "a\u{b}b",
            "a\u{c}b",
            "a\u{1c}b",
            "a\u{1e}b",
            "a\u{202e}b",
            "a\u{200d}b",
            "\u{feff}a",
        ] {
            assert_eq!(EventType::new(text), Err(EventTypeError::Control), "{text:?}");
        }
        for text in [
            "a",
            "task created",
            "größer",
            "タスク",
            "❤\u{fe0f}",
            "connected-twice",
            "Reset2",
            "rését",
            "ended",
        ] {
            assert!(EventType::new(text).is_ok(), "{text:?}");
        }
    }
}
