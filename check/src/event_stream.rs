//! [`EventParser`]: bytes of a stream become events, as an `EventSource` reads them.
//!
//! Written from the standard (HTML, "Interpreting an event stream") and not from what the gateway
//! writes: a witness that reads with the author's own eyes would share their mistakes. One thing is
//! as browsers do it and not as the standard has it: a stream begins with the id that the client
//! came with, so that a block without an id does not make it forget.

/// The longest line that is taken, in bytes; it bounds what a broken server can make us hold.
pub const LINE_BYTES_MAX: usize = 64 << 20;

/// One event, as a listener would get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamEvent<'a> {
    /// `message` if it had no type.
    pub kind: &'a str,
    /// Its data, lines divided by line feeds.
    pub data: &'a str,
    /// The last event id as of this event.
    pub id: &'a str,
}

/// A stream whose line is longer than [`LINE_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineTooLong;

/// What is known of a stream that is being read.
#[derive(Debug, Default)]
pub struct EventParser {
    line: Vec<u8>,
    /// The last byte was a carriage return, so that a line feed now belongs to the same line end.
    after_return: bool,
    /// A line has ended: a byte order mark can no longer come.
    begun: bool,
    data: String,
    kind: String,
    id_buffer: String,
    last_event_id: String,
    retry_milliseconds: Option<u64>,
}

impl EventParser {
    /// Starts to read the stream of a client that came with this id; empty if it had none.
    pub fn new(last_event_id: &str) -> EventParser {
        EventParser {
            id_buffer: last_event_id.to_owned(),
            last_event_id: last_event_id.to_owned(),
            ..EventParser::default()
        }
    }

    /// Where an `EventSource` would resume; empty while it was told no id.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The last reconnection time that was told, in milliseconds.
    pub fn retry_milliseconds(&self) -> Option<u64> {
        self.retry_milliseconds
    }

    /// Reads some bytes, cut anywhere, and passes on every event that ends in them.
    ///
    /// # Errors
    /// [`LineTooLong`]; nothing more can be read then.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut on_event: impl FnMut(StreamEvent<'_>),
    ) -> Result<(), LineTooLong> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_return) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                if self.line.len() + bytes.len() > LINE_BYTES_MAX {
                    return Err(LineTooLong);
                }
                self.line.extend_from_slice(bytes);
                return Ok(());
            };
            self.after_return = bytes[end] == b'\r';
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let mut line = std::mem::take(&mut self.line);
            self.read_line(&line, &mut on_event);
            line.clear();
            self.line = line;
        }
        Ok(())
    }

    fn read_line(&mut self, line: &[u8], on_event: &mut impl FnMut(StreamEvent<'_>)) {
        let line = String::from_utf8_lossy(line);
        let mut line: &str = &line;
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            self.dispatch(on_event);
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "event" => value.clone_into(&mut self.kind),
            "id" if !value.contains('\0') => value.clone_into(&mut self.id_buffer),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry_milliseconds = value.parse().ok().or(self.retry_milliseconds);
            }
            // Comments (an empty field name) and what the standard does not know.
            _ => {}
        }
    }

    fn dispatch(&mut self, on_event: &mut impl FnMut(StreamEvent<'_>)) {
        self.last_event_id.clone_from(&self.id_buffer);
        if self.data.pop().is_some() {
            let kind = if self.kind.is_empty() { "message" } else { &self.kind };
            on_event(StreamEvent { kind, data: &self.data, id: &self.last_event_id });
        }
        self.data.clear();
        self.kind.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(parts: &[&[u8]]) -> (Vec<[String; 3]>, EventParser) {
        let mut parser = EventParser::new("");
        let mut events = Vec::new();
        for part in parts {
            let on_event = |event: StreamEvent<'_>| {
                events.push([event.kind, event.data, event.id].map(str::to_owned));
            };
            parser.feed(part, on_event).unwrap();
        }
        (events, parser)
    }

    fn all(text: &str) -> Vec<[String; 3]> {
        read(&[text.as_bytes()]).0
    }

    #[test]
    fn the_examples_of_the_standard_are_read_as_it_says() {
        assert_eq!(all("data: YHOO\ndata: +2\ndata: 10\n\n"), [["message", "YHOO\n+2\n10", ""]]);
        let several = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n\
                       data:  third event\n\n";
        assert_eq!(
            all(several),
            [
                ["message", "first event", "1"],
                ["message", "second event", ""],
                ["message", " third event", ""]
            ]
        );
        assert_eq!(
            all("data\n\ndata\ndata\n\ndata:"),
            [["message", "", ""], ["message", "\n", ""]]
        );
        assert_eq!(all("data:test\n\ndata: test\n\n").len(), 2);
    }

    #[test]
    fn ids_with_nul_and_retries_that_are_no_number_are_ignored() {
        let (events, parser) =
            read(&[b"id: 1\nid: 2\0\nretry: 40\nretry: 4x\nretry:\nretry: +5\ndata: a\n\n"]);
        assert_eq!(events, [["message", "a", "1"]]);
        assert_eq!(parser.retry_milliseconds(), Some(40));
    }

    #[test]
    fn a_block_without_data_moves_the_id_and_is_no_event() {
        let (events, parser) = read(&[b"event: x\nid: 7\n\ndata: a\n\n"]);
        assert_eq!(events, [["message", "a", "7"]]);
        assert_eq!(parser.last_event_id(), "7");
        let mut resumed = EventParser::new("9-abcd");
        resumed.feed(b"retry: 10\n\n", |_| panic!("no data, no event")).unwrap();
        assert_eq!(resumed.last_event_id(), "9-abcd");
    }

    #[test]
    fn an_unfinished_block_is_nothing() {
        let (events, parser) = read(&[b"id: 1\ndata: a\n\nid: 2\ndata: b\n"]);
        assert_eq!(events.len(), 1);
        assert_eq!(parser.last_event_id(), "1");
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_and_how_lines_end_changes_nothing(
            blocks in proptest::collection::vec(
                ("[a-z]{0,3}", proptest::collection::vec("[ :a-zé]{0,6}", 1..4), "[0-9]{1,3}"),
                0..8,
            ),
            ends in proptest::collection::vec(0..3_usize, 64),
            cuts in proptest::collection::vec(1..7_usize, 0..200),
            mark in any::<bool>(),
        ) {
            let mut text = if mark { "\u{feff}".to_owned() } else { String::new() };
            let mut expected = Vec::new();
            let mut turn = 0;
            let mut line = |text: &mut String, line: &str| {
                // A carriage return before an empty line that a line feed ends would be one end.
                let end = ["\n", "\r\n", "\r"][ends[turn % ends.len()]];
                turn += 1;
                if line.is_empty() && text.ends_with('\r') && end == "\n" {
                    text.push('\r');
                } else {
                    text.push_str(line);
                    text.push_str(end);
                }
            };
            for (kind, data, id) in &blocks {
                line(&mut text, &format!("id: {id}"));
                line(&mut text, &format!("event:{kind}"));
                line(&mut text, ": a comment");
                for part in data {
                    line(&mut text, &format!("data: {part}"));
                }
                line(&mut text, "");
                let kind = if kind.is_empty() { "message" } else { kind };
                expected.push([kind.to_owned(), data.join("\n"), id.clone()]);
            }
            let mut parts = Vec::new();
            let mut left = text.as_bytes();
            for cut in cuts {
                let (part, rest) = left.split_at(cut.min(left.len()));
                parts.push(part);
                left = rest;
            }
            parts.push(left);
            prop_assert_eq!(read(&parts).0, expected);
        }
    }
}
