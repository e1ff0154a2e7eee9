//! [`Position`]: where a stream stands in a topic, as the ids on the wire say it.
//!
//! The gateway has code for this, and none of it is used here, on purpose: a witness that read ids
//! with the gateway's own code would take the gateway's mistakes for the truth. So this is written
//! from the description of the wire alone, and knows only as much of it as a check needs: to read
//! an id strictly, to compare, and to say it again.

use std::fmt;
use std::str::FromStr;

/// The largest number that a browser holds exactly; no entry has a larger one.
const SEQ_MAX: u64 = 9_007_199_254_740_991;

/// The incarnation of a log: 4 to 8 characters `0-9a-z`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// The characters, and zeros after them.
    text: [u8; 8],
}

/// After the entry with this number, in this incarnation of a log; 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Number of the last entry that lies behind.
    pub seq: u64,
    /// The incarnation of the log in which it has this number.
    pub epoch: Epoch,
}

/// A text that is no position and no epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPosition;

impl FromStr for Epoch {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Epoch, NoPosition> {
        let is_epoch = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'));
        if !is_epoch || !(4..=8).contains(&text.len()) {
            return Err(NoPosition);
        }
        let mut epoch = Epoch { text: [0; 8] };
        epoch.text[..text.len()].copy_from_slice(text.as_bytes());
        Ok(epoch)
    }
}

impl FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Position, NoPosition> {
        let (number, epoch) = text.split_once('-').ok_or(NoPosition)?;
        let seq: u64 = number.parse().map_err(|_| NoPosition)?;
        // Written in the one way in which it is written: no sign, no leading zero.
        if seq > SEQ_MAX || seq.to_string() != number {
            return Err(NoPosition);
        }
        Ok(Position { seq, epoch: epoch.parse()? })
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let characters = self.text.iter().take_while(|byte| **byte != 0);
        characters.map(|byte| char::from(*byte)).try_for_each(|c| fmt::Write::write_char(f, c))
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.seq, self.epoch)
    }
}

/// The positions that the id of a stream says, in the order of the stream's `topics`; `None` if it
/// does not say one for each. The id of one topic is its position; that of several names each, and
/// ends in check digits: `check-a-1:42-k3f9,check-a-2:17-c01d~1x7k0q`. Whether those are right is
/// the gateway's to judge when it gets them back. The names of a check's topics need no escapes.
pub fn read_id(id: &str, topics: &[&str]) -> Option<Vec<Position>> {
    if let [_] = topics {
        return Some(vec![id.parse().ok()?]);
    }
    let (named, check_digits) = id.rsplit_once('~')?;
    if check_digits.len() != 6 || !check_digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let parts: Vec<(&str, &str)> =
        named.split(',').filter_map(|part| part.rsplit_once(':')).collect();
    let position = |topic: &&str| {
        let (_, text) = parts.iter().find(|(name, _)| name == topic)?;
        text.parse().ok()
    };
    topics.iter().map(position).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_position_is_not_taken_for_one() {
        for text in [
            "",
            "-",
            "42",
            "42-",
            "-k3f9",
            "042-k3f9",
            "+42-k3f9",
            "42-K3F9",
            "42-k3f",
            "42-k3f9k3f9k",
            "42-k3f9 ",
            "42-k3-f9",
            "9007199254740992-k3f9",
            "99999999999999999999-k3f9",
        ] {
            assert_eq!(text.parse::<Position>(), Err(NoPosition), "{text}");
        }
        assert!("9007199254740991-k3f9".parse::<Position>().is_ok());
    }

    #[test]
    fn the_id_of_several_topics_must_name_each_of_them() {
        let read = |id| read_id(id, &["check-a-1", "check-a-2"]);
        let both = read("check-a-2:17-c01d,check-a-1:42-k3f9~1x7k0q").unwrap();
        assert_eq!(texts(&both), ["42-k3f9", "17-c01d"]);
        for id in [
            "",
            "42-k3f9",
            "check-a-1:42-k3f9",
            "check-a-1:42-k3f9~1x7k0q",
            "check-a-1:42-k3f9,check-a-2:17~1x7k0q",
            "check-a-1:42-k3f9,check-a-2:17-c01d",
            "check-a-1:42-k3f9,check-a-2:17-c01d~1x7k0",
        ] {
            assert_eq!(read(id), None, "{id}");
        }
        assert_eq!(texts(&read_id("42-k3f9", &["check-a-1"]).unwrap()), ["42-k3f9"]);
    }

    fn texts(positions: &[Position]) -> Vec<String> {
        positions.iter().map(Position::to_string).collect()
    }

    proptest! {
        #[test]
        fn a_position_is_said_as_it_was_read(seq in 0..=SEQ_MAX, epoch in "[0-9a-z]{4,8}") {
            let text = format!("{seq}-{epoch}");
            let position: Position = text.parse().unwrap();
            prop_assert_eq!((position.seq, position.epoch.to_string()), (seq, epoch));
            prop_assert_eq!(position.to_string(), text);
        }
    }
}
