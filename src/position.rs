//! [`Position`], [`Epoch`] and [`Cursor`]: where in a log a reader stands, and how it says so.
//!
//! A position is what a browser gets as the SSE `id:` and gives back as `Last-Event-ID`, to any
//! node, after any fault. [`LogHistory`] is what the log knows of its own past; together they decide
//! whether something was lost, with nobody's memory needed (ARCHITECTURE.md, "Epochs").

mod cursor;
mod log_history;

use std::fmt;
use std::str::FromStr;

pub use cursor::{Cursor, ResumePoint, cursor_bytes, write_cursor};
pub use log_history::{EPOCHS_KEPT, EPOCHS_MAX, LogHistory, Verdict};

/// The largest sequence number we read: what a Lua number and a JavaScript number hold exactly.
pub const SEQ_MAX: u64 = (1 << 53) - 1;

/// The longest text of a position, in bytes: 16 digits, `-`, 8 characters.
const POSITION_BYTES_MAX: usize = 25;

/// The digits of base 36.
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The latest time that an epoch of a topic without a log can say, in 2059: the largest number of eight
/// digits in base 36. Clocks that are wrong tell later ones, which count as this one.
pub const UNWRITTEN_AT_MAX: u64 = 36_u64.pow(8) - 1;

/// One incarnation of a log: 4 to 8 characters `0-9a-z`.
///
/// A topic that nobody has written to has no log, and costs the log nothing. Whoever watches it stands
/// at seq 0 of an epoch that is the time at which there was none: [`unwritten_at`](Epoch::unwritten_at).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch {
    length: u8,
    characters: [u8; 8],
}

impl Epoch {
    /// No log's, and no topic's without one.
    pub const NONE: Epoch = Epoch { length: 8, characters: *b"00000000" };

    /// A new epoch, drawn at random: with six characters, two epochs of one log meet with a
    /// chance of one in two thousand million.
    pub fn random() -> Epoch {
        let text: [u8; 6] = std::array::from_fn(|_| DIGITS[fastrand::usize(..36)]);
        let mut characters = [0; 8];
        characters[..6].copy_from_slice(&text);
        Epoch { length: 6, characters }
    }

    /// The epoch of a topic that had no log at this time, in milliseconds since 1970: eight characters,
    /// the number in base 36. Times after [`UNWRITTEN_AT_MAX`] count as that.
    pub fn unwritten_at(milliseconds: u64) -> Epoch {
        let mut left = milliseconds.min(UNWRITTEN_AT_MAX);
        let mut characters = [b'0'; 8];
        for character in characters.iter_mut().rev() {
            *character = DIGITS[(left % 36) as usize];
            left /= 36;
        }
        Epoch { length: 8, characters }
    }

    /// When there was no log, if this is the epoch of a topic that had none. Epochs of logs are shorter.
    pub fn unwritten_time(&self) -> Option<u64> {
        let is_time = usize::from(self.length) == self.characters.len();
        is_time.then(|| u64::from_str_radix(self.as_str(), 36).ok()).flatten()
    }

    /// The epoch as it stands in a position.
    pub fn as_str(&self) -> &str {
        // Only `from_str` and `random` make epochs, and both take nothing but ASCII.
        std::str::from_utf8(&self.characters[..usize::from(self.length)]).unwrap_or("")
    }
}

impl FromStr for Epoch {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Epoch, PositionError> {
        let fits = (4..=8).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        if !fits {
            return Err(PositionError);
        }
        let mut characters = [0; 8];
        characters[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Epoch { length: text.len() as u8, characters })
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({})", self.as_str())
    }
}

/// The place after the `seq`-th entry of a log, as seen in one of its epochs. `seq` 0 is the
/// place before the first entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Position {
    /// How many entries of the log lie behind.
    pub seq: u64,
    /// The incarnation of the log in which that was true.
    pub epoch: Epoch,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.seq, self.epoch)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Position, PositionError> {
        let (seq, epoch) = text.split_once('-').ok_or(PositionError)?;
        Ok(Position { seq: parse_seq(seq)?, epoch: epoch.parse()? })
    }
}

/// Reads a decimal sequence number, strictly: digits only, no leading zero, at most [`SEQ_MAX`].
pub fn parse_seq(text: &str) -> Result<u64, PositionError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return Err(PositionError);
    }
    text.parse().ok().filter(|&seq| seq <= SEQ_MAX).ok_or(PositionError)
}

/// A text that is no position, epoch or cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PositionError;

impl fmt::Display for PositionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a position: write it as 42-k3f9")
    }
}

impl std::error::Error for PositionError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn any_position() -> impl Strategy<Value = Position> {
        (0..=SEQ_MAX, "[0-9a-z]{4,8}")
            .prop_map(|(seq, text)| Position { seq, epoch: text.parse().unwrap() })
    }

    proptest! {
        #[test]
        fn a_position_survives_its_text(position in any_position()) {
            let text = position.to_string();
            prop_assert_eq!(text.parse(), Ok(position));
            // `parseInt` of a browser stops at the dash.
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            prop_assert_eq!(digits.parse(), Ok(position.seq));
        }
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in [
            "",
            "-",
            "42",
            "42-",
            "-k3f9",
            "042-k3f9",
            "42-K3F9",
            "42-k3f",
            "42-k3f9k3f9k",
            "42-k3f9-",
            " 42-k3f9",
            "+42-k3f9",
            "9007199254740992-k3f9",
            "٤٢-k3f9",
        ] {
            assert_eq!(text.parse::<Position>(), Err(PositionError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_epoch_of_a_topic_without_a_log_is_a_time(milliseconds in any::<u64>()) {
            let epoch = Epoch::unwritten_at(milliseconds);
            prop_assert_eq!(epoch.as_str().parse(), Ok(epoch));
            prop_assert_eq!(epoch.unwritten_time(), Some(milliseconds.min(UNWRITTEN_AT_MAX)));
        }
    }

    #[test]
    fn random_epochs_are_epochs_and_no_times() {
        for _ in 0..1000 {
            let epoch = Epoch::random();
            assert_eq!(epoch.as_str().parse(), Ok(epoch));
            assert_eq!(epoch.unwritten_time(), None);
        }
    }
}
