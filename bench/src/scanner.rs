//! [`Scanner`]: reads one stream as it comes off the socket, and keeps nothing of it.
//!
//! It takes the HTTP head and the chunks off, wherever they are cut, and looks for markers in what
//! is left. A marker is `~<number>.<due>~`: which event of its topic this is, counted from 1, and
//! when it was due to be published, in microseconds of the run's clock. Markers are the only `~` in
//! what the bench publishes, so that the same scanner reads every server, whatever it puts around
//! the data. No allocation, some 40 bytes a stream.

use memchr::memchr;

/// What a stream said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The stream is open: the head came and, if the server greets, its first block.
    Opened,
    /// An event.
    Event {
        /// Which of its topic, counted from 1.
        number: u32,
        /// When it was due to be published, in microseconds of the run's clock.
        due: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    /// In the hexadecimal size of a chunk.
    Size,
    /// Behind it, up to the end of the line.
    AfterSize,
    /// In the data of a chunk, or in a body without chunks.
    Data,
    /// In the line end behind the data.
    AfterData,
}

/// Where in a stream its reader is.
#[derive(Debug)]
pub(crate) struct Scanner {
    place: Place,
    greets: bool,
    opened: bool,
    chunked: bool,
    /// How much of `\r\n\r\n` and of `chunked` the head's last bytes are.
    end_matched: u8,
    chunked_matched: u8,
    head_bytes: u16,
    status: u16,
    /// Bytes that are left of the chunk.
    left: u64,
    /// Whether the last byte ended a line, while the greeting is awaited.
    line_ended: bool,
    marker: Marker,
}

#[derive(Debug, Clone, Copy)]
enum Marker {
    Outside,
    Number(u32),
    Due(u32, u64),
}

impl Scanner {
    /// At the beginning of an answer. `greets`: the server begins its streams with a block.
    pub(crate) fn new(greets: bool) -> Scanner {
        Scanner {
            place: Place::Head,
            greets,
            opened: false,
            chunked: false,
            end_matched: 0,
            chunked_matched: 0,
            head_bytes: 0,
            status: 0,
            left: 0,
            line_ended: false,
            marker: Marker::Outside,
        }
    }

    /// Reads on.
    ///
    /// # Errors
    /// What is wrong with the stream; it should not be read any further.
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        mut heard: impl FnMut(Heard),
    ) -> Result<(), String> {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            match self.place {
                Place::Head => {
                    self.head(byte, &mut heard)?;
                    rest = &rest[1..];
                }
                Place::Size => {
                    match (byte as char).to_digit(16) {
                        Some(digit) => self.left = self.left * 16 + u64::from(digit),
                        None if byte == b'\n' => self.chunk_begins()?,
                        None => self.place = Place::AfterSize,
                    }
                    rest = &rest[1..];
                }
                Place::AfterSize => {
                    if byte == b'\n' {
                        self.chunk_begins()?;
                    }
                    rest = &rest[1..];
                }
                Place::Data => {
                    let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                    self.data(&rest[..length], &mut heard)?;
                    rest = &rest[length..];
                    if self.chunked {
                        self.left -= length as u64;
                        if self.left == 0 {
                            self.place = Place::AfterData;
                        }
                    }
                }
                Place::AfterData => {
                    if byte == b'\n' {
                        self.place = Place::Size;
                    }
                    rest = &rest[1..];
                }
            }
        }
        Ok(())
    }

    fn head(&mut self, byte: u8, heard: &mut impl FnMut(Heard)) -> Result<(), String> {
        self.head_bytes = self.head_bytes.saturating_add(1);
        // "HTTP/1.1 200 OK": the status is in the bytes 10 to 12.
        if (10..=12).contains(&self.head_bytes) {
            self.status = self.status * 10 + u16::from(byte.wrapping_sub(b'0'));
        }
        self.end_matched = match (self.end_matched, byte) {
            (0 | 2, b'\r') | (1 | 3, b'\n') => self.end_matched + 1,
            (_, b'\r') => 1,
            _ => 0,
        };
        let wanted = b"chunked"[usize::from(self.chunked_matched)];
        self.chunked_matched = match byte.to_ascii_lowercase() {
            b if b == wanted => self.chunked_matched + 1,
            b'c' => 1,
            _ => 0,
        };
        if self.chunked_matched == 7 {
            self.chunked = true;
            self.chunked_matched = 0;
        }
        if self.end_matched == 4 {
            if self.status != 200 {
                return Err(format!("a stream was answered with status {}", self.status));
            }
            (self.place, self.left) =
                if self.chunked { (Place::Size, 0) } else { (Place::Data, u64::MAX) };
            if !self.greets {
                self.opened = true;
                heard(Heard::Opened);
            }
        }
        Ok(())
    }

    fn chunk_begins(&mut self) -> Result<(), String> {
        if self.left == 0 {
            return Err("the server ended a stream".to_owned());
        }
        self.place = Place::Data;
        Ok(())
    }

    fn data(&mut self, bytes: &[u8], heard: &mut impl FnMut(Heard)) -> Result<(), String> {
        let mut rest = bytes;
        if !self.opened {
            while let Some((&byte, after)) = rest.split_first() {
                rest = after;
                if byte == b'\n' && self.line_ended {
                    self.opened = true;
                    heard(Heard::Opened);
                    break;
                }
                self.line_ended = byte == b'\n';
            }
        }
        while !rest.is_empty() {
            if let Marker::Outside = self.marker {
                let Some(at) = memchr(b'~', rest) else { break };
                self.marker = Marker::Number(0);
                rest = &rest[at + 1..];
                continue;
            }
            let byte = rest[0];
            rest = &rest[1..];
            let digit = byte.wrapping_sub(b'0');
            self.marker = match (self.marker, byte) {
                (Marker::Number(number), b'0'..=b'9') => {
                    Marker::Number(number.wrapping_mul(10).wrapping_add(u32::from(digit)))
                }
                (Marker::Number(number), b'.') => Marker::Due(number, 0),
                (Marker::Due(number, due), b'0'..=b'9') => {
                    Marker::Due(number, due.wrapping_mul(10).wrapping_add(u64::from(digit)))
                }
                (Marker::Due(number, due), b'~') => {
                    heard(Heard::Event { number, due });
                    Marker::Outside
                }
                _ => return Err("a marker came mutilated".to_owned()),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\ndate: now\r\n\r\n";

    fn read(text: &str, piece: usize) -> Result<Vec<Heard>, String> {
        let mut scanner = Scanner::new(true);
        let mut all = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            scanner.read(piece, |heard| all.push(heard))?;
        }
        Ok(all)
    }

    #[test]
    fn events_are_found_wherever_reads_and_chunks_are_cut() {
        let body = "retry: 1\nid: 0-a\ndata: {}\n\nid: 1-a\ndata: ~1.20~xx\n\n: heartbeat\n\
                    id: 2-a\ndata: ~2.4000000000~\n\n";
        let event = |number, due| Heard::Event { number, due };
        for cut in 1..body.len() {
            let mut text = HEAD.to_owned();
            for chunk in body.as_bytes().chunks(cut) {
                let chunk = std::str::from_utf8(chunk).unwrap();
                text += &format!("{:X}\r\n{chunk}\r\n", chunk.len());
            }
            for piece in [1, 2, 3, 7, text.len()] {
                let all = [Heard::Opened, event(1, 20), event(2, 4_000_000_000)];
                assert_eq!(read(&text, piece).unwrap(), all, "cut {cut}, piece {piece}");
            }
        }
    }

    #[test]
    fn a_body_without_chunks_is_read_too() {
        let text = "HTTP/1.1 200 OK\r\n\r\n: hi\n\ndata: ~7.8~\n\n";
        let all = [Heard::Opened, Heard::Event { number: 7, due: 8 }];
        assert_eq!(read(text, 5).unwrap(), all);
    }

    #[test]
    fn refusals_and_ends_are_errors() {
        assert!(read("HTTP/1.1 503 Full\r\n\r\n", 9).unwrap_err().contains("503"));
        assert!(read(&format!("{HEAD}0\r\n\r\n"), 9).unwrap_err().contains("ended"));
    }
}
