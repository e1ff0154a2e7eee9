//! [`Topic`]: the name of one log.
//!
//! A name comes in by [`http`](crate::http) and ends up inside Redis keys (`{<topic>}` is their
//! hash tag), inside cursors (`board-1:42-k3f9,board-2:…`) and inside channel names. Whatever
//! would be ambiguous in one of these is refused here, once.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest name, in bytes of UTF-8.
pub const TOPIC_BYTES_MAX: usize = 200;

/// The name of a topic: 1 to [`TOPIC_BYTES_MAX`] bytes of UTF-8 without control characters,
/// white space, `,`, `{` or `}`, and neither `.` nor `..`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// Why a text is not a [`Topic`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicError {
    /// No characters at all.
    Empty,
    /// More than [`TOPIC_BYTES_MAX`] bytes.
    TooLong,
    /// This character may not stand in a name.
    Forbidden(char),
    /// In a path, `.` and `..` mean another place, however they are written.
    Dots,
}

impl Topic {
    /// Takes `name` for a topic's name, if it can be one.
    pub fn new(name: &str) -> Result<Topic, TopicError> {
        if name.is_empty() {
            return Err(TopicError::Empty);
        }
        if name.len() > TOPIC_BYTES_MAX {
            return Err(TopicError::TooLong);
        }
        if matches!(name, "." | "..") {
            return Err(TopicError::Dots);
        }
        let forbidden =
            |c: char| c.is_control() || c.is_whitespace() || matches!(c, ',' | '{' | '}');
        match name.chars().find(|&c| forbidden(c)) {
            Some(c) => Err(TopicError::Forbidden(c)),
            None => Ok(Topic(name.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({:?})", &*self.0)
    }
}

impl serde::Serialize for Topic {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TopicError::Empty => f.write_str("a name needs at least one character"),
            TopicError::TooLong => write!(f, "a name has at most {TOPIC_BYTES_MAX} bytes"),
            TopicError::Forbidden(c) => write!(f, "a name cannot contain {c:?}"),
            TopicError::Dots => f.write_str("a name cannot be . or .., which no path can name"),
        }
    }
}

impl std::error::Error for TopicError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_no_key_or_cursor_could_misread() {
        for good in
            ["a", "board-1", "orders/eu:42", "Köln", "a\"b\\c", "...", ".a", &"x".repeat(200)]
        {
            assert_eq!(Topic::new(good).unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", TopicError::Empty),
            ("a,b", TopicError::Forbidden(',')),
            ("{a", TopicError::Forbidden('{')),
            ("a}", TopicError::Forbidden('}')),
            ("a b", TopicError::Forbidden(' ')),
            ("a\nb", TopicError::Forbidden('\n')),
            ("a\u{7f}", TopicError::Forbidden('\u{7f}')),
            ("a\u{2028}b", TopicError::Forbidden('\u{2028}')),
            (&"é".repeat(101), TopicError::TooLong),
            (".", TopicError::Dots),
            ("..", TopicError::Dots),
        ] {
            assert_eq!(Topic::new(bad), Err(why));
        }
    }
}
