//! [`Scanner`]: reads one stream as it comes off the socket, and keeps nothing of it.
//!
//! It looks for [`Marker`]s in the body. No server puts a `|` around the data, or changes one in it, so
//! that the same scanner reads all of them. No allocation once the head was read, some 80 bytes a stream.

use std::fmt;

use memchr::memchr;

use super::http::BodyReader;

/// Where a marker begins and ends.
const MARK: u8 = b'|';

/// What tells one event from all others: text that its data begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marker {
    /// What one connection publishes to one topic, in order, is a series.
    pub series: u32,
    /// Which of its series the event is, counted from 1.
    pub number: u32,
    /// When it was due to be published, in microseconds of the run's clock.
    pub due: u64,
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Marker { series, number, due } = self;
        let mark = char::from(MARK);
        write!(f, "{mark}{series}.{number}.{due}{mark}")
    }
}

/// What a stream said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scanned {
    /// The stream is open: the head came and, if the server greets, its first block.
    Opened,
    /// An event.
    Event(Marker),
}

/// Where in a stream its reader is.
#[derive(Debug)]
pub(crate) struct Scanner {
    body: BodyReader,
    text: Text,
}

#[derive(Debug)]
struct Text {
    opened: bool,
    /// Whether the stream is open only behind its first block.
    greets: bool,
    /// Whether the last byte ended a line, while the greeting is awaited.
    line_ended: bool,
    place: Place,
}

/// Where in a marker.
#[derive(Debug, Clone, Copy)]
enum Place {
    Outside,
    Series(u32),
    Number(u32, u32),
    Due(u32, u32, u64),
}

impl Scanner {
    /// At the beginning of an answer. `greets`: the server begins its streams with a block.
    pub(crate) fn new(greets: bool) -> Scanner {
        let text = Text { opened: false, greets, line_ended: false, place: Place::Outside };
        Scanner { body: BodyReader::new(), text }
    }

    /// Reads on.
    ///
    /// # Errors
    /// What is wrong with the stream; it should not be read any further.
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        mut found: impl FnMut(Scanned),
    ) -> Result<(), String> {
        let Scanner { body, text } = self;
        body.read(bytes, |data| text.read(data, &mut found))?;
        if body.has_ended() {
            return Err("the server ended a stream".to_owned());
        }
        if body.has_head() {
            // Where nothing greets, the head may come alone.
            text.read(&[], &mut found)?;
        }
        Ok(())
    }
}

impl Text {
    fn read(&mut self, data: &[u8], found: &mut impl FnMut(Scanned)) -> Result<(), String> {
        let mut rest = data;
        if !self.opened {
            let greeted = !self.greets || self.skip_greeting(&mut rest);
            if !greeted {
                return Ok(());
            }
            self.opened = true;
            found(Scanned::Opened);
        }
        while !rest.is_empty() {
            if let Place::Outside = self.place {
                let Some(at) = memchr(MARK, rest) else { break };
                self.place = Place::Series(0);
                rest = &rest[at + 1..];
                continue;
            }
            let byte = rest[0];
            rest = &rest[1..];
            let digit = byte.wrapping_sub(b'0');
            let more = |number: u32| number.wrapping_mul(10).wrapping_add(u32::from(digit));
            self.place = match (self.place, byte) {
                (Place::Series(series), b'0'..=b'9') => Place::Series(more(series)),
                (Place::Series(series), b'.') => Place::Number(series, 0),
                (Place::Number(series, number), b'0'..=b'9') => Place::Number(series, more(number)),
                (Place::Number(series, number), b'.') => Place::Due(series, number, 0),
                (Place::Due(series, number, due), b'0'..=b'9') => {
                    let due = due.wrapping_mul(10).wrapping_add(u64::from(digit));
                    Place::Due(series, number, due)
                }
                (Place::Due(series, number, due), MARK) => {
                    found(Scanned::Event(Marker { series, number, due }));
                    Place::Outside
                }
                _ => return Err("a marker came mutilated".to_owned()),
            };
        }
        Ok(())
    }

    /// Skips up to the first blank line; says whether it came.
    fn skip_greeting(&mut self, rest: &mut &[u8]) -> bool {
        while let Some((&byte, after)) = rest.split_first() {
            *rest = after;
            if byte == b'\n' && self.line_ended {
                return true;
            }
            self.line_ended = byte == b'\n';
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\ndate: now\r\n\r\n";

    fn read(text: &str, greets: bool, piece: usize) -> Result<Vec<Scanned>, String> {
        let mut scanner = Scanner::new(greets);
        let mut all = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            scanner.read(piece, |scanned| all.push(scanned))?;
        }
        Ok(all)
    }

    #[test]
    fn events_are_found_wherever_reads_and_chunks_are_cut() {
        let body = "retry: 1\nid: 0-a\ndata: {}\n\nid: 1-a\ndata: |0.1.20|xx\n\n: heartbeat\n\
                    id: a:2-a,b:1-c~1k3f9w\ndata: |31.2.4000000000|\n\n";
        let event = |series, number, due| Scanned::Event(Marker { series, number, due });
        for cut in 1..body.len() {
            let mut text = HEAD.to_owned();
            for chunk in body.as_bytes().chunks(cut) {
                let chunk = std::str::from_utf8(chunk).unwrap();
                text += &format!("{:X}\r\n{chunk}\r\n", chunk.len());
            }
            for piece in [1, 2, 3, 7, text.len()] {
                let all = [Scanned::Opened, event(0, 1, 20), event(31, 2, 4_000_000_000)];
                assert_eq!(read(&text, true, piece).unwrap(), all, "cut {cut}, piece {piece}");
            }
        }
    }

    #[test]
    fn a_body_without_chunks_is_read_too() {
        let text = "HTTP/1.1 200 OK\r\n\r\n: hi\n\ndata: |0.7.8|\n\n";
        let all = [Scanned::Opened, Scanned::Event(Marker { series: 0, number: 7, due: 8 })];
        assert_eq!(read(text, true, 5).unwrap(), all);
    }

    #[test]
    fn where_nothing_greets_a_stream_is_open_with_its_head() {
        for piece in [1, 1000] {
            assert_eq!(read(HEAD, false, piece).unwrap(), [Scanned::Opened]);
        }
        assert_eq!(read(HEAD, true, 1000).unwrap(), []);
    }

    #[test]
    fn refusals_and_ends_are_errors() {
        let refused = read("HTTP/1.1 503 Full\r\n\r\n", true, 9);
        assert!(refused.unwrap_err().contains("503"));
        let ended = read(&format!("{HEAD}0\r\n\r\n"), true, 9);
        assert!(ended.unwrap_err().contains("ended"));
    }
}
