//! `Last-Event-ID`: lines of a header, positions and cursors.

use fantail::http::fuzz::last_event_id;
use fantail::position::{Cursor, Position, ResumePoint, parse_seq, write_cursor};
use fantail::topic::Topic;
use http::{HeaderMap, HeaderValue};

use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "last_event_id",
    run,
    words: &[
        "42-k3f9",
        "0-0000",
        "9007199254740991-zzzzzzzz",
        "9007199254740992-aaaa",
        "042-k3f9",
        "a:42-k3f9",
        ",",
        ":",
        "~",
        "~000000",
        ", ",
        "%C3%B6",
        "%2C",
        "%",
        "{",
        "a:1-aaaa,b:2-bbbb",
        "\r\n",
        "\u{feff}",
    ],
};

fn run(input: &[u8]) {
    header(input);
    let text = String::from_utf8_lossy(input);
    let one = [topic("a")];
    let several = ["a", "b", "board-1", "Köln", "x:y%~"].map(topic);
    one_topic(&text, &one);
    several_topics(&text, &several);
    written(input, &several);
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// What is said by a header is one of its parts, or a text that is no position.
fn header(input: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("last-event-id", value);
        }
    }
    let Some(said) = last_event_id(&headers) else { return };
    assert!(!said.is_empty());
    let is_a_part =
        headers.values().any(|line| String::from_utf8_lossy(line.as_bytes()).contains(&said));
    let is_unreadable = matches!(
        Cursor::read(&said, &[topic("a")]).resume_point(&topic("a")),
        Some(ResumePoint::Unreadable(_))
    );
    assert!(is_a_part || is_unreadable, "{said:?}");
}

/// As the documentation writes a position: digits without a zero in front, a dash, 4 to 8 of 0-9a-z.
fn is_position(text: &str) -> bool {
    let Some((seq, epoch)) = text.split_once('-') else { return false };
    is_seq(seq)
        && (4..=8).contains(&epoch.len())
        && epoch.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'))
}

fn is_seq(text: &str) -> bool {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty();
    digits
        && (text == "0" || !text.starts_with('0'))
        && text.len() <= 16
        && text.parse::<u64>().is_ok_and(|seq| seq < 1 << 53)
}

fn one_topic(text: &str, topics: &[Topic]) {
    assert_eq!(text.parse::<Position>().is_ok(), is_position(text), "{text:?}");
    assert_eq!(parse_seq(text).is_ok(), is_seq(text), "{text:?}");
    let cursor = Cursor::read(text, topics);
    match cursor.resume_point(&topics[0]) {
        Some(ResumePoint::Position(position)) if is_position(text) => {
            assert_eq!(position.to_string(), text);
        }
        Some(ResumePoint::Seq(seq)) => assert_eq!(seq.to_string(), text),
        Some(ResumePoint::Unreadable(told)) => {
            assert!(!is_position(text) && !is_seq(text), "{text:?}");
            stays_unreadable(told, topics, 64);
        }
        // A cursor of several topics, with its check digits.
        Some(ResumePoint::Position(_)) | None => {
            assert!(text.contains('~') && text.contains(':'), "{text:?}");
        }
    }
}

fn several_topics(text: &str, topics: &[Topic]) {
    let cursor = Cursor::read(text, topics);
    for topic in topics {
        match cursor.resume_point(topic) {
            Some(ResumePoint::Position(position)) => {
                assert!(text.contains(&position.to_string()), "{text:?}");
                assert!(text.contains('~'), "{text:?} has no check digits");
            }
            Some(ResumePoint::Seq(_)) => panic!("{text:?} is of one topic"),
            Some(ResumePoint::Unreadable(told)) => stays_unreadable(told, &topics[..1], 25),
            None => {}
        }
    }
}

/// What is told back in a reset comes back as an id, and must lead to a reset again.
fn stays_unreadable(told: &str, topics: &[Topic], characters_max: usize) {
    assert!(told.len() <= characters_max, "{told:?}");
    assert!(told.chars().all(|c| c.is_ascii() && !c.is_control()), "{told:?}");
    let again = Cursor::read(told, topics);
    let point = again.resume_point(&topics[0]);
    assert!(matches!(point, Some(ResumePoint::Unreadable(_))), "{told:?} became {point:?}");
}

/// What is written is read, and what was altered on its way is known as such.
fn written(input: &[u8], topics: &[Topic]) {
    let mut bytes = input.iter().copied().chain(std::iter::repeat(7));
    let mut number = || bytes.next().map_or(0, u64::from);
    let positions: Vec<(&Topic, Position)> = topics
        .iter()
        .map(|topic| {
            let seq = (number() << 32 | number() << 8 | number()) & ((1 << 53) - 1);
            let epoch = format!("{:04}", number() * 36 + number());
            (topic, Position { seq, epoch: epoch.parse().unwrap() })
        })
        .collect();
    let text = write_cursor(positions.iter().copied());
    assert!(text.is_ascii());
    let of = |text: &str| -> Vec<Option<Position>> {
        let cursor = Cursor::read(text, topics);
        let point = |topic| match cursor.resume_point(topic) {
            Some(ResumePoint::Position(position)) => Some(*position),
            _ => None,
        };
        topics.iter().map(point).collect()
    };
    let right: Vec<Option<Position>> =
        positions.iter().map(|(_, position)| Some(*position)).collect();
    assert_eq!(of(&text), right);
    let at = number() as usize * 251 % text.len();
    let mut altered = text.clone().into_bytes();
    altered[at] = 32 + (number() % 95) as u8;
    let altered = String::from_utf8(altered).unwrap();
    let read = of(&altered);
    // An encoding of a name may be written otherwise.
    assert!(read == right || read.iter().all(Option::is_none), "{text} and {altered}: {read:?}");
    let cut = of(&text[..at]);
    assert!(cut.iter().all(Option::is_none), "{text} cut at {at}: {cut:?}");
}
