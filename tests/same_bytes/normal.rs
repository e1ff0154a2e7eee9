//! What differs between any two runs, made equal: times, and what is drawn at random.
//!
//! Each kind is taken only where it stands in just the shape it has to have, so that a gateway that
//! got the shape wrong is found.

use std::collections::HashMap;

/// The reconnection time that gateways under test are told, in milliseconds: at the end of a stream
/// it is jittered by half, and then still has as many digits, so that chunks have the same size.
pub const RETRY_MILLISECONDS: u64 = 2_000;

/// Takes out of one gateway's bytes what is drawn at random.
#[derive(Default)]
pub struct Normaliser {
    /// Epochs, numbered in the order in which they were first seen.
    epochs: HashMap<Vec<u8>, usize>,
}

impl Normaliser {
    /// What came over one connection, or of one stream, after all that was normalised before.
    pub fn normalise(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        // The reconnection time at the beginning is told as it was set.
        let mut has_begun = false;
        let mut at = 0;
        while at < bytes.len() {
            let starts_line = at == 0 || bytes[at - 1] == b'\n';
            let found = (starts_line.then(|| at_start_of_line(&bytes[at..], has_begun)).flatten())
                .or_else(|| self.at_start_of_word(&bytes[at..]));
            has_begun |= starts_line && bytes[at..].starts_with(b"retry: ");
            if let Some((length, put)) = found {
                out.extend_from_slice(put.as_bytes());
                at += length;
                continue;
            }
            // To the end of the word, or of what stands between two.
            let word = bytes[at..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
            out.extend_from_slice(&bytes[at..at + word.max(1)]);
            at += word.max(1);
        }
        out
    }

    fn at_start_of_word(&mut self, bytes: &[u8]) -> Option<(usize, String)> {
        if fits(bytes, "dddd-dd-ddTdd:dd:dd.dddZ") {
            return Some((24, "<time>".to_owned()));
        }
        if let Some(rest) = bytes.strip_prefix(b"milliseconds\":") {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            return (digits == 13).then(|| (14 + digits, "milliseconds\":<time>".to_owned()));
        }
        // Check digits of a cursor: six, over epochs that are drawn at random.
        if let Some(digits) = bytes.strip_prefix(b"~") {
            let is_digit = |byte: &&u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
            let count = digits.iter().take_while(is_digit).count();
            return (count == 6).then(|| (7, "~<check>".to_owned()));
        }
        // A position: digits, and an epoch of six characters; of a topic without a log, a time of eight.
        let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let epoch = bytes.get(digits..)?.strip_prefix(b"-")?;
        let is_in_epoch = |byte: &&u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
        let length = epoch.iter().take_while(is_in_epoch).count();
        let seq = String::from_utf8_lossy(&bytes[..digits]);
        if digits > 0 && length == 8 {
            return Some((digits + 9, format!("{seq}-<unwritten>")));
        }
        if digits == 0 || length != 6 {
            return None;
        }
        let next = self.epochs.len() + 1;
        let number = *self.epochs.entry(epoch[..6].to_vec()).or_insert(next);
        Some((digits + 7, format!("{seq}-<epoch {number}>")))
    }
}

fn at_start_of_line(bytes: &[u8], has_begun: bool) -> Option<(usize, String)> {
    if fits(bytes, "date: Aaa, dd Aaa dddd dd:dd:dd GMT\r\n") {
        return Some((37, "date: <date>\r\n".to_owned()));
    }
    if fits(bytes, "retry-after: d\r\n") && (b'1'..=b'5').contains(&bytes[13]) {
        return Some((16, "retry-after: <1 to 5>\r\n".to_owned()));
    }
    if has_begun && fits(bytes, "retry: dddd\n") {
        let milliseconds: u64 = String::from_utf8_lossy(&bytes[7..11]).parse().ok()?;
        let half = RETRY_MILLISECONDS / 2;
        if milliseconds.abs_diff(RETRY_MILLISECONDS) <= half {
            return Some((12, "retry: <jittered>\n".to_owned()));
        }
    }
    None
}

/// Whether bytes begin with this shape: `d` is any digit, `A` and `a` any letter of that case,
/// unless they belong to a word that begins the shape.
fn fits(bytes: &[u8], shape: &str) -> bool {
    let name = shape.find(": ").map_or(0, |colon| colon + 2);
    let fit = |(at, (byte, shape)): (usize, (&u8, u8))| match shape {
        b'd' if at >= name => byte.is_ascii_digit(),
        b'A' if at >= name => byte.is_ascii_uppercase(),
        b'a' if at >= name => byte.is_ascii_lowercase(),
        shape => *byte == shape,
    };
    bytes.len() >= shape.len() && bytes.iter().zip(shape.bytes()).enumerate().all(fit)
}

#[test]
fn only_what_is_random_is_made_equal() {
    for (text, normal) in [
        ("date: Tue, 01 Jul 2025 09:08:07 GMT\r\n", "date: <date>\r\n"),
        ("date: Tue, 1 Jul 2025 09:08:07 GMT\r\n", "date: Tue, 1 Jul 2025 09:08:07 GMT\r\n"),
        ("x-date: Tue, 01 Jul 2025 09:08:07 GMT\r\n", "x-date: Tue, 01 Jul 2025 09:08:07 GMT\r\n"),
        (
            "id: 12-abc123\nid: 3-zzzzzz\n a:4-abc123,b:5-0\n",
            "id: 12-<epoch 1>\nid: 3-<epoch 2>\n a:4-<epoch 1>,b:5-0\n",
        ),
        ("id: 0-mi2x7k4w\nid: 1-mi2x7k4w\n", "id: 0-<unwritten>\nid: 1-<unwritten>\n"),
        ("board-1 task-123456 7-abcdefg", "board-1 task-123456 7-abcdefg"),
        (
            "retry: 1999\nretry: 2000\nretry: 3001\n",
            "retry: 1999\nretry: <jittered>\nretry: 3001\n",
        ),
        ("retry-after: 5\r\nretry-after: 6\r\n", "retry-after: <1 to 5>\r\nretry-after: 6\r\n"),
        (
            r#"{"at":"2025-07-01T09:08:07.123Z","milliseconds":1751360887123}"#,
            r#"{"at":"<time>","milliseconds":<time>}"#,
        ),
    ] {
        let normalised = Normaliser::default().normalise(text.as_bytes());
        assert_eq!(String::from_utf8(normalised).unwrap(), normal);
    }
}
