//! [`Cursor`]: what a client gives back of the ids that it was told.

use std::collections::HashSet;
use std::fmt;

use super::{POSITION_BYTES_MAX, Position, parse_seq};
use crate::topic::Topic;

/// Where a client says it stands in one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResumePoint {
    /// An exact position.
    Position(Position),
    /// A bare number: that many entries, in whatever epoch is current.
    Seq(u64),
    /// A text that cannot be read as a position (kept short, to be told back).
    Unreadable(String),
}

/// How much of an unreadable id is told back in a reset, in characters: of a stream of one topic, and
/// of one of several, where it stands in the cursor in the place of a position and is no longer than
/// one ([`cursor_bytes`]).
const UNREADABLE_CHARACTERS_MAX: usize = 64;
const UNREADABLE_PART_CHARACTERS_MAX: usize = POSITION_BYTES_MAX;

/// Stands for what cannot be told back as it was. No name and no position has it.
const UNREADABLE_MARK: char = '{';

impl ResumePoint {
    /// The text goes back to the client as an id, so that one that drops before its reset is told
    /// again: it must stay one line of ASCII, which no client changes on its way, of at most so many
    /// characters, and must stay unreadable. Cut short it could become readable, and it is marked.
    fn unreadable(text: &str, characters_max: usize) -> ResumePoint {
        let is_harmless = |c: char| c.is_ascii() && !c.is_control();
        let harmless = |c: char| if is_harmless(c) { c } else { UNREADABLE_MARK };
        let is_cut = text.chars().nth(characters_max).is_some();
        let mark = is_cut.then_some(UNREADABLE_MARK).into_iter();
        let characters = mark.chain(text.chars().map(harmless)).take(characters_max);
        ResumePoint::Unreadable(characters.collect())
    }
}

impl fmt::Display for ResumePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResumePoint::Position(position) => position.fmt(f),
            ResumePoint::Seq(seq) => seq.fmt(f),
            ResumePoint::Unreadable(text) => f.write_str(text),
        }
    }
}

/// Where a `Last-Event-ID` says that a client stands in several topics.
///
/// For one topic its text is the position; for several, `board-1:42-k3f9,board-2:17-c01d~1x7k0q`:
/// names percent-encoded to ASCII, and check digits over all of it at the end, so that one that was
/// cut, altered or put in another order on its way is known as such.
/// Reading never fails: what cannot be read becomes a point that leads to a reset, because a
/// refused `EventSource` would give up for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    points: Vec<(Topic, ResumePoint)>,
    /// Holds for every requested topic that has no point of its own.
    rest: Option<ResumePoint>,
}

/// Divides the check digits of a cursor from what they check.
const CHECK_MARK: char = '~';

/// How many check digits there are: one change in two thousand million goes unnoticed.
const CHECK_DIGITS: usize = 6;

impl Cursor {
    /// Reads the text of a cursor for a stream of `topics`.
    pub fn read(text: &str, topics: &[Topic]) -> Cursor {
        let plain = |point| Cursor { points: Vec::new(), rest: Some(point) };
        let characters_max = match topics {
            [_] => UNREADABLE_CHARACTERS_MAX,
            _ => UNREADABLE_PART_CHARACTERS_MAX,
        };
        if let [_] = topics {
            if let Ok(position) = text.parse() {
                return plain(ResumePoint::Position(position));
            }
            if let Ok(seq) = parse_seq(text) {
                return plain(ResumePoint::Seq(seq));
            }
        }
        if let Some(parts) = read_parts(text) {
            let wanted: HashSet<&Topic> = topics.iter().collect();
            let points = parts
                .into_iter()
                .filter(|(topic, _)| wanted.contains(topic))
                .map(|(topic, position)| {
                    let point = match position.parse() {
                        Ok(position) => ResumePoint::Position(position),
                        // Told back by itself it would be a place.
                        Err(_) if parse_seq(position).is_ok() => {
                            let marked = format!("{UNREADABLE_MARK}{position}");
                            ResumePoint::unreadable(&marked, characters_max)
                        }
                        Err(_) => ResumePoint::unreadable(position, characters_max),
                    };
                    (topic, point)
                })
                .collect();
            return Cursor { points, rest: None };
        }
        match topics {
            [_] if text.len() <= characters_max => {
                plain(ResumePoint::unreadable(text, characters_max))
            }
            // Cut short, or put into a cursor of several, it could become readable: by its own
            // separators, or because each topic's part is a position.
            _ => {
                let start: String = text.chars().take(characters_max - 1).collect();
                let start = start.replace([',', ':', CHECK_MARK], &UNREADABLE_MARK.to_string());
                let marked = format!("{UNREADABLE_MARK}{start}");
                plain(ResumePoint::unreadable(&marked, characters_max))
            }
        }
    }

    /// Where to resume `topic`; `None` where the cursor does not know the topic (a board that was
    /// added to the page since then starts now).
    pub fn resume_point(&self, topic: &Topic) -> Option<&ResumePoint> {
        let own = self.points.iter().find(|(name, _)| name == topic).map(|(_, point)| point);
        own.or(self.rest.as_ref())
    }
}

/// The names and positions of a cursor of several topics, if it is as it was written: each topic
/// once, at most [`CURSOR_TOPICS_MAX`] of them, with the right check digits.
fn read_parts(text: &str) -> Option<Vec<(Topic, &str)>> {
    let (text, digits) = text.rsplit_once(CHECK_MARK)?;
    let mut check = Check::new();
    let mut known = HashSet::new();
    let mut parts = Vec::new();
    for part in text.split(',') {
        if parts.len() == CURSOR_TOPICS_MAX {
            return None;
        }
        // Names have no `:` once they are encoded; some clients decode them on the way.
        let (name, position) = part.rsplit_once(':')?;
        let name = percent_decode(name)?;
        check.add(&name, position);
        let topic = Topic::new(&name).ok()?;
        if !known.insert(topic.clone()) {
            return None;
        }
        parts.push((topic, position));
    }
    (check.digits() == digits.as_bytes()).then_some(parts)
}

/// How many topics a cursor can name; streams have fewer.
const CURSOR_TOPICS_MAX: usize = 1_000;

/// Writes the cursor of several topics: `board-1:42-k3f9,board-2:17-c01d~1x7k0q`.
pub fn write_cursor<'a, P: fmt::Display>(
    positions: impl Iterator<Item = (&'a Topic, P)>,
) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let mut check = Check::new();
    for (topic, position) in positions {
        if !text.is_empty() {
            text.push(',');
        }
        percent_encode(topic.as_str(), &mut text);
        text.push(':');
        let begin = text.len();
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{position}");
        check.add(topic.as_str(), &text[begin..]);
    }
    text.push(CHECK_MARK);
    text.extend(check.digits().map(char::from));
    text
}

/// An upper bound for the length of the cursor over `topics`, in bytes.
pub fn cursor_bytes(topics: &[Topic]) -> usize {
    let name = |topic: &Topic| -> usize {
        topic.as_str().bytes().map(|byte| if is_plain(byte) { 1 } else { 3 }).sum()
    };
    // `,` + name + `:` + a position, or what is told back in its place; `~` and the check digits.
    let part = |topic: &Topic| name(topic) + 2 + POSITION_BYTES_MAX;
    topics.iter().map(part).sum::<usize>() + 1 + CHECK_DIGITS
}

/// Whether a byte of a name stands for itself in a cursor: nothing that any client, header, query or
/// separator of ours could take for something else.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn percent_encode(name: &str, text: &mut String) {
    use std::fmt::Write;
    for byte in name.bytes() {
        if is_plain(byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut left = text.bytes();
    while let Some(byte) = left.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let value = digit(left.next()?)? * 16 + digit(left.next()?)?;
            bytes.push(value as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// The check digits of a cursor: FNV-1a (64 bits) over its names as they are, its positions and
/// what divides them, in base 36. They tell accidents, not forgers.
struct Check(u64);

impl Check {
    fn new() -> Check {
        Check(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, name: &str, position: &str) {
        for byte in name.bytes().chain([b':']).chain(position.bytes()).chain([b',']) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn digits(&self) -> [u8; CHECK_DIGITS] {
        // The upper half of the hash is mixed better than the lower.
        let mut left = self.0 ^ (self.0 >> 32);
        std::array::from_fn(|_| {
            let digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(left % 36) as usize];
            left /= 36;
            digit
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::position::SEQ_MAX;
    use crate::position::tests::any_position;

    fn any_topic() -> impl Strategy<Value = Topic> {
        "[^\\p{C}\\s,{}]{1,40}".prop_filter_map("a topic", |name| Topic::new(&name).ok())
    }

    /// What happens to a text on its way.
    #[derive(Debug, Clone)]
    enum Change {
        CutEnd(prop::sample::Index),
        CutStart(prop::sample::Index),
        Replace(prop::sample::Index, char),
        Remove(prop::sample::Index),
        Insert(prop::sample::Index, char),
        SwapParts,
        Uppercase,
    }

    impl Change {
        fn make(&self, text: &str) -> String {
            let mut changed: Vec<char> = text.chars().collect();
            let at = |index: &prop::sample::Index| index.index(text.len());
            match self {
                Change::CutEnd(index) => changed.truncate(at(index)),
                Change::CutStart(index) => drop(changed.drain(..at(index))),
                Change::Replace(index, c) => changed[at(index)] = *c,
                Change::Remove(index) => drop(changed.remove(at(index))),
                Change::Insert(index, c) => changed.insert(at(index), *c),
                Change::SwapParts => {
                    let (parts, digits) = text.rsplit_once(CHECK_MARK).unwrap();
                    let mut parts: Vec<&str> = parts.split(',').collect();
                    parts.rotate_left(1);
                    return format!("{}{CHECK_MARK}{digits}", parts.join(","));
                }
                Change::Uppercase => return text.to_uppercase(),
            }
            changed.into_iter().collect()
        }
    }

    fn any_change() -> impl Strategy<Value = Change> {
        let index = any::<prop::sample::Index>;
        let character = || {
            prop_oneof!["[0-9a-z]", "[,:~%A-Z-]"]
                .prop_map(|text: String| text.chars().next().unwrap_or('x'))
        };
        prop_oneof![
            index().prop_map(Change::CutEnd),
            index().prop_map(Change::CutStart),
            (index(), character()).prop_map(|(at, c)| Change::Replace(at, c)),
            index().prop_map(Change::Remove),
            (index(), character()).prop_map(|(at, c)| Change::Insert(at, c)),
            Just(Change::SwapParts),
            Just(Change::Uppercase),
        ]
    }

    proptest! {
        #[test]
        fn a_cursor_survives_its_text(
            positions in proptest::collection::btree_map(any_topic(), any_position(), 2..20)
        ) {
            let topics: Vec<Topic> = positions.keys().cloned().collect();
            let text = write_cursor(positions.iter().map(|(topic, &position)| (topic, position)));
            prop_assert!(text.is_ascii());
            prop_assert!(text.len() <= cursor_bytes(&topics));
            let cursor = Cursor::read(&text, &topics);
            for (topic, position) in positions {
                prop_assert_eq!(cursor.resume_point(&topic), Some(&ResumePoint::Position(position)));
            }
        }

        #[test]
        fn a_cursor_that_was_changed_on_its_way_is_unreadable_for_each_topic(
            positions in proptest::collection::btree_map(any_topic(), any_position(), 2..6),
            change in any_change(),
        ) {
            let topics: Vec<Topic> = positions.keys().cloned().collect();
            let text = write_cursor(positions.iter().map(|(topic, &position)| (topic, position)));
            let changed = change.make(&text);
            let cursor = Cursor::read(&changed, &topics);
            // An escape says the same in small letters, and a name may come decoded.
            prop_assume!(cursor != Cursor::read(&text, &topics));
            for topic in &topics {
                let point = cursor.resume_point(topic);
                prop_assert!(matches!(point, Some(ResumePoint::Unreadable(_))), "{changed} {point:?}");
            }
        }

        #[test]
        fn a_cursor_whose_names_were_decoded_on_their_way_is_the_same(
            positions in proptest::collection::btree_map(
                "[a-zé日~:!-]{1,12}".prop_filter_map("a topic", |name| Topic::new(&name).ok()),
                any_position(),
                2..6,
            ),
        ) {
            let topics: Vec<Topic> = positions.keys().cloned().collect();
            let text = write_cursor(positions.iter().map(|(topic, &position)| (topic, position)));
            let decoded = percent_decode(&text).unwrap();
            prop_assert_eq!(Cursor::read(&decoded, &topics), Cursor::read(&text, &topics));
        }

        #[test]
        fn what_is_unreadable_stays_one_line_and_unreadable(
            text in "[a-b0-9:,\n\r\0 -]{0,30}|.{0,100}", several in any::<bool>()
        ) {
            let topics = [Topic::new("a").unwrap(), Topic::new("b").unwrap()];
            let topics = if several { &topics[..] } else { &topics[..1] };
            let cursor = Cursor::read(&text, topics);
            let told = topics.iter().filter_map(|topic| Some((topic, cursor.resume_point(topic)?)));
            let again = match topics {
                [only] => cursor.resume_point(only).map(ToString::to_string).unwrap_or_default(),
                _ => write_cursor(told.clone()),
            };
            prop_assert!(!again.chars().any(char::is_control), "{again:?}");
            for (topic, point) in told {
                if matches!(point, ResumePoint::Unreadable(_)) {
                    let point = Cursor::read(&again, topics).resume_point(topic).cloned();
                    prop_assert!(matches!(point, Some(ResumePoint::Unreadable(_))), "{again:?}");
                }
            }
        }

        #[test]
        fn no_id_is_longer_than_the_bound_whatever_its_client_came_with(
            names in proptest::collection::btree_set(any_topic(), 1..20),
            position in "[ -~]{0,200}|[0-9]{1,20}-[0-9a-z]{0,12}|.{0,60}",
            is_cursor in any::<bool>(),
        ) {
            let topics: Vec<Topic> = names.into_iter().collect();
            // One with the right check digits, or just any.
            let text = match is_cursor {
                true => write_cursor(topics.iter().map(|topic| (topic, &position))),
                false => position,
            };
            let cursor = Cursor::read(&text, &topics);
            let start = Position { seq: SEQ_MAX, epoch: "zzzzzzzz".parse().unwrap() };
            let point = |topic: &Topic| {
                let told = cursor.resume_point(topic).cloned();
                told.unwrap_or(ResumePoint::Position(start))
            };
            let id = match topics.as_slice() {
                [only] => point(only).to_string(),
                _ => write_cursor(topics.iter().map(|topic| (topic, point(topic)))),
            };
            let bound = match topics.as_slice() {
                [_] => UNREADABLE_CHARACTERS_MAX,
                several => cursor_bytes(several),
            };
            prop_assert!(id.len() <= bound, "{} > {bound}: {id}", id.len());
            prop_assert!(id.is_ascii());
            // What was unreadable stays so, and as long as it is.
            let again = Cursor::read(&id, &topics);
            for topic in &topics {
                if matches!(point(topic), ResumePoint::Unreadable(_)) {
                    let told = again.resume_point(topic);
                    prop_assert!(matches!(told, Some(ResumePoint::Unreadable(_))), "{id}: {told:?}");
                }
            }
        }

        #[test]
        fn any_text_is_read_and_never_a_panic(text in ".{0,300}") {
            let topics = [Topic::new("a").unwrap(), Topic::new("b").unwrap()];
            Cursor::read(&text, &topics[..1]);
            Cursor::read(&text, &topics);
        }
    }

    #[test]
    fn a_bare_number_is_a_place_in_a_single_topic_only() {
        let topics = [Topic::new("a").unwrap(), Topic::new("b").unwrap()];
        assert_eq!(
            Cursor::read("42", &topics[..1]).resume_point(&topics[0]),
            Some(&ResumePoint::Seq(42))
        );
        let several = Cursor::read("42", &topics);
        assert_eq!(several.resume_point(&topics[0]), Some(&ResumePoint::Unreadable("{42".into())));
        assert_eq!(several.resume_point(&topics[1]), Some(&ResumePoint::Unreadable("{42".into())));
    }

    #[test]
    fn a_bare_number_in_the_cursor_of_a_single_topic_stays_unreadable() {
        let topics = [Topic::new("a").unwrap()];
        let text = write_cursor([(&topics[0], "0")].into_iter());
        let unreadable = ResumePoint::Unreadable("{0".into());
        let cursor = Cursor::read(&text, &topics);
        assert_eq!(cursor.resume_point(&topics[0]), Some(&unreadable));
        let again = Cursor::read(&unreadable.to_string(), &topics);
        assert_eq!(again.resume_point(&topics[0]), Some(&unreadable));
    }

    #[test]
    fn a_topic_the_cursor_does_not_know_has_no_resume_point() {
        let topics = [Topic::new("a").unwrap(), Topic::new("b").unwrap()];
        let gone = Topic::new("gone").unwrap();
        let text = write_cursor([(&topics[0], "42-k3f9"), (&gone, "7-k3f9")].into_iter());
        let cursor = Cursor::read(&text, &topics);
        assert!(matches!(cursor.resume_point(&topics[0]), Some(ResumePoint::Position(_))));
        assert_eq!(cursor.resume_point(&topics[1]), None);
    }
}
