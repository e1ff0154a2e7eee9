//! Event-stream text: the only place that writes it.
//!
//! What a line means is said in the HTML Living Standard, section 9.2.6 "Interpreting an event
//! stream". The publishing node writes everything of an entry but its id ([`event_text`]), once; the
//! log keeps that and puts the id to it when it knows the position. Streams of one topic send the
//! [`Frame`] as it is; streams of several send their own cursor as the id, and the shared fields.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::chunked::{CHUNK_END, chunk_head};
use crate::entry::{Entry, Event};
use crate::frame::Frame;
use crate::json;
use crate::position::Position;
use crate::said::{EndReason, Reset, Said};

/// A comment in silence, so that proxies and browsers know the stream lives. No blank line
/// after it: several well-known clients turn a lone blank line into an empty event.
pub const HEARTBEAT: &str = within_chunk(HEARTBEAT_CHUNK);

/// A heartbeat that scripts can see. Without an id: it tells of nothing that could be lost. With data
/// that any reader of JSON can read.
pub const NAMED_HEARTBEAT: &str = within_chunk(NAMED_HEARTBEAT_CHUNK);

/// Both as chunks, which is what most streams send: constants, so that none of many thousands costs
/// an allocation.
const HEARTBEAT_CHUNK: &str = "C\r\n: heartbeat\n\r\n";
const NAMED_HEARTBEAT_CHUNK: &str = "1B\r\nevent: heartbeat\ndata: {}\n\n\r\n";

/// What stands between the first line of a chunk, its size, and its end.
const fn within_chunk(chunk: &'static str) -> &'static str {
    let mut begin = 0;
    while chunk.as_bytes()[begin] != b'\n' {
        begin += 1;
    }
    let (text, _) = chunk.split_at(chunk.len() - CHUNK_END.len());
    text.split_at(begin + 1).1
}

/// The heartbeat as a chunk.
pub(super) fn heartbeat_chunk(named: bool) -> Bytes {
    let chunk = if named { NAMED_HEARTBEAT_CHUNK } else { HEARTBEAT_CHUNK };
    Bytes::from_static(chunk.as_bytes())
}

/// The parts of the block that says this.
///
/// The id is the last field of every block: some clients take it when they read its line, and one
/// whose connection breaks before the block is whole must not have taken it. No block without data
/// ends in a blank line: some clients make an empty event of it.
pub(super) fn block(said: &Said, named_heartbeat: bool) -> Vec<Bytes> {
    match said {
        Said::Retry(retry) => vec![retry_line(*retry).into()],
        Said::Goodbye { reason, retry } => vec![goodbye(*reason, *retry).into()],
        Said::Opened { cursor, node, named } => vec![connected(cursor, node, *named)],
        Said::Entry { frame, cursor: None } => vec![frame.block()],
        Said::Entry { frame, cursor: Some(cursor) } => {
            vec![frame.fields(), cursor_lines(cursor).into()]
        }
        Said::Reset { reset: told, cursor } => vec![reset(cursor.as_deref(), told)],
        Said::Snapshot { cursor, state, .. } => {
            let head = Bytes::from_static(SNAPSHOT_HEAD);
            vec![head, state.clone(), snapshot_end(cursor).into()]
        }
        Said::Heartbeat if named_heartbeat => vec![Bytes::from_static(NAMED_HEARTBEAT.as_bytes())],
        Said::Heartbeat => vec![Bytes::from_static(HEARTBEAT.as_bytes())],
    }
}

/// The frame of an entry.
pub fn frame(entry: &Entry) -> Frame {
    let mut bytes = Vec::new();
    let layout = Layout::write(&mut bytes, entry.position, entry.milliseconds, &entry.rest);
    layout.frame(&bytes.into())
}

/// The text of an entry, as [`event_text`] wrote it, from its frame.
pub fn text_of_frame(frame: &Frame) -> Bytes {
    let fields = frame.fields();
    let mut text = Vec::with_capacity(fields.len() + 1);
    text.extend_from_slice(&fields);
    text.push(b'\n');
    text.into()
}

/// Takes an announcement: an entry's SSE text that starts with its `id:` line; `None` if it does
/// not.
pub fn frame_of_announced(milliseconds: u64, text: &[u8]) -> Option<Frame> {
    let line_end = text.iter().take(64).position(|&b| b == b'\n')?;
    let line = std::str::from_utf8(&text[..line_end]).ok()?;
    let position = line.strip_prefix("id: ")?.parse().ok()?;
    let mut bytes = Vec::new();
    let layout = Layout::write(&mut bytes, position, milliseconds, &text[line_end + 1..]);
    Some(layout.frame(&bytes.into()))
}

/// Many entries in one allocation, and where each of them is in it.
pub fn lay_out(entries: &[Entry]) -> (Vec<u8>, Vec<Layout>) {
    let size = entries.iter().map(|entry| entry.rest.len() + 64).sum();
    let mut bytes = Vec::with_capacity(size);
    let write =
        |entry: &Entry| Layout::write(&mut bytes, entry.position, entry.milliseconds, &entry.rest);
    let layouts = entries.iter().map(write).collect();
    (bytes, layouts)
}

/// Where an entry and the parts of its [`Frame`] are in some bytes.
#[derive(Debug, Clone)]
pub struct Layout {
    position: Position,
    milliseconds: u64,
    chunk: Range<usize>,
    /// Within the chunk.
    fields: Range<usize>,
}

impl Layout {
    /// Writes an entry's text in the layout of a frame. Copied once a node, whether it came from the
    /// log or as an announcement.
    fn write(bytes: &mut Vec<u8>, position: Position, milliseconds: u64, text: &[u8]) -> Layout {
        let id = id_line(position);
        let head = chunk_head(id.len() + text.len());
        let block_end = head.len() + id.len() + text.len();
        // The id goes before the blank line that ends the block.
        let (blank_line, text) =
            text.split_last().map_or((b'\n', text), |(last, text)| (*last, text));
        let fields = head.len()..head.len() + text.len();
        let begin = bytes.len();
        bytes.reserve(block_end + CHUNK_END.len());
        for part in [head.as_bytes(), text, id.as_bytes(), &[blank_line], CHUNK_END] {
            bytes.extend_from_slice(part);
        }
        Layout { position, milliseconds, chunk: begin..bytes.len(), fields }
    }

    /// The frame that these bytes hold here.
    pub fn frame(&self, bytes: &Bytes) -> Frame {
        let chunk = bytes.slice(self.chunk.clone());
        Frame::new(self.position, self.milliseconds, chunk, self.fields.clone())
    }
}

/// What comes before the state in the block of a snapshot.
pub(super) const SNAPSHOT_HEAD: &[u8] = b"event: snapshot\ndata: ";

/// What comes behind it.
pub(super) fn snapshot_end(cursor: &str) -> String {
    format!("\n{}\n", id_line(cursor))
}

/// What ends the block of an entry whose id is this cursor.
pub(super) fn cursor_lines(cursor: &str) -> String {
    format!("{}\n", id_line(cursor))
}

/// The `id:` line of a position or cursor.
fn id_line(id: impl std::fmt::Display) -> String {
    format!("id: {id}\n")
}

/// Everything of an event's SSE text but its id: `event:` if it has a type, one `data:` line per
/// line of data, and the blank line that ends the block.
///
/// A carriage return ends a line in SSE as a line feed does, so data comes out with `\n` for
/// `\r\n` and `\r`.
pub fn event_text(event: &Event) -> Bytes {
    let text = event.data.text();
    let mut written = String::with_capacity(text.len() + 64);
    if let Some(event_type) = &event.event_type {
        written.push_str("event: ");
        written.push_str(event_type.as_str());
        written.push('\n');
    }
    for line in lines(text) {
        written.push_str("data: ");
        written.push_str(line);
        written.push('\n');
    }
    written.push('\n');
    written.into()
}

/// The lines of a text as SSE sees them: divided by `\r\n`, `\n` or `\r`. A text always has at
/// least one, possibly empty.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut left = Some(text);
    std::iter::from_fn(move || {
        let text = left?;
        match text.find(['\r', '\n']) {
            None => {
                left = None;
                Some(text)
            }
            Some(end) => {
                let wide = text[end..].starts_with("\r\n");
                left = Some(&text[end + if wide { 2 } else { 1 }..]);
                Some(&text[..end])
            }
        }
    })
}

/// Type and data of an encoded event: the inverse of [`event_text`], for readers of history.
pub fn read_event_text(text: &str) -> (Option<&str>, String) {
    let mut event_type = None;
    let mut data = String::new();
    for line in text.split('\n') {
        if let Some(value) = line.strip_prefix("event: ") {
            event_type = Some(value);
        } else if let Some(value) = line.strip_prefix("data: ") {
            data.push_str(value);
            data.push('\n');
        }
    }
    data.pop();
    (event_type, data)
}

/// The reconnection time as a line of its own: takes effect when it is read and dispatches nothing.
fn retry_line(retry: Duration) -> String {
    format!("retry: {}\n", retry.as_millis())
}

/// The first block of a stream, without its `retry:` line: an unnamed event mostly, so that `onmessage`
/// of any page sees which node it reached, and an id, so that a connection that drops before its
/// first real event loses nothing (`docs/guarantees.md`, 4).
fn connected(cursor: &str, node: &str, named: bool) -> Bytes {
    #[derive(Serialize)]
    struct Connected<'a> {
        r#type: &'a str,
        node: &'a str,
    }
    let data = json::to_text(&Connected { r#type: "connected", node });
    let event_type = if named { "event: connected\n" } else { "" };
    format!("{event_type}data: {data}\n{}\n", id_line(cursor)).into()
}

/// A `reset` block. `cursor` is where the stream goes on; without one the block has no id, so
/// that a client that drops right after it is told again.
fn reset(cursor: Option<&str>, reset: &Reset) -> Bytes {
    let id = cursor.map(id_line).unwrap_or_default();
    format!("event: reset\ndata: {}\n{id}\n", json::to_text(reset)).into()
}

/// The last block of a stream: when to come back, if that makes sense (an `EventSource` comes back
/// whatever it is told), and why it ends, if that is because of its terms. Without an id: the client
/// keeps the one that it has.
fn goodbye(reason: EndReason, retry: Duration) -> String {
    #[derive(Serialize)]
    struct Goodbye {
        reason: &'static str,
        retry: bool,
    }
    let may_come_back = reason.may_come_back();
    let mut told = if may_come_back { retry_line(retry) } else { String::new() };
    if reason.is_of_terms() {
        let data = Goodbye { reason: reason.as_str(), retry: may_come_back };
        told.push_str(&format!("event: goodbye\ndata: {}\n\n", json::to_text(&data)));
    }
    told
}

/// The longest cursor we put into an `id:` line, in bytes. It comes back as a request header, and
/// widely used proxies refuse header lines of more than 8 KiB.
pub const CURSOR_BYTES_MAX: usize = 7_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::{Data, EventType};
    use std::collections::VecDeque;

    use crate::said::ResetReason;
    use crate::wire::chunked::push_chunk;

    /// An event stream parser written from section 9.2.6 of the standard and nothing else: bytes
    /// in, `(type, data, last event id)` out. Independent of the encoder on purpose.
    fn interpret(stream: &[u8]) -> Vec<(String, String, String)> {
        let text = String::from_utf8_lossy(stream).into_owned();
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let (mut events, mut data, mut kind, mut id) =
            (vec![], String::new(), String::new(), String::new());
        for line in text.split_inclusive('\n') {
            let Some(line) = line.strip_suffix('\n') else { break };
            if line.is_empty() {
                if data.is_empty() {
                    kind.clear();
                    continue;
                }
                data.pop();
                let name = if kind.is_empty() { "message".into() } else { kind.clone() };
                events.push((name, std::mem::take(&mut data), id.clone()));
                kind.clear();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "data" => {
                    data.push_str(value);
                    data.push('\n');
                }
                "event" => kind = value.to_owned(),
                "id" if !value.contains('\0') => id = value.to_owned(),
                _ => {}
            }
        }
        events
    }

    fn entry(seq: u64, event: &Event) -> Entry {
        let position = Position { seq, epoch: "k3f9".parse().unwrap() };
        Entry { position, milliseconds: 0, json: false, rest: event_text(event) }
    }

    proptest! {
        #[test]
        fn a_browser_reads_back_exactly_what_was_published(
            events in proptest::collection::vec(
                (proptest::option::of("[^\\p{C}]{1,20}"), "(?s).{0,80}|[\r\n :a]{0,12}"), 1..8
            )
        ) {
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            for (n, (kind, data)) in events.iter().enumerate() {
                let event_type = kind.as_deref().and_then(|kind| EventType::new(kind).ok());
                let event = Event { event_type: event_type.clone(), data: Data::Text(data.clone()) };
                let made = frame(&entry(n as u64, &event));
                stream.extend_from_slice(HEARTBEAT.as_bytes());
                stream.extend_from_slice(&made.block());
                expected.push((
                    event_type.map_or("message".to_owned(), |kind| kind.as_str().to_owned()),
                    data.replace("\r\n", "\n").replace('\r', "\n"),
                    format!("{n}-k3f9"),
                ));
                let rest = made.fields();
                let (decoded_type, decoded_data) = read_event_text(std::str::from_utf8(&rest).unwrap());
                let last = &expected[expected.len() - 1];
                prop_assert_eq!(decoded_type.unwrap_or("message"), &last.0);
                prop_assert_eq!(&decoded_data, &last.1);
            }
            prop_assert_eq!(interpret(&stream), expected);
        }

    }

    #[test]
    fn a_frame_and_its_announcement_are_the_same_bytes() {
        let event = Event { event_type: None, data: Data::Text("a\nb".into()) };
        let made = frame(&entry(7, &event));
        assert_eq!(&made.block()[..], b"data: a\ndata: b\nid: 7-k3f9\n\n");
        let announced = b"id: 7-k3f9\ndata: a\ndata: b\n\n";
        let announced = frame_of_announced(5, announced).unwrap();
        assert_eq!(announced.position, made.position);
        assert_eq!(announced.fields(), made.fields());
        assert_eq!(&announced.chunk()[..], b"1C\r\ndata: a\ndata: b\nid: 7-k3f9\n\n\r\n");
        assert_eq!(announced.size(), 0x1c);
        assert!(frame_of_announced(5, b"data: x\n\n").is_none());
        assert!(frame_of_announced(5, b"id: 7").is_none());
    }

    #[test]
    fn the_other_blocks_are_what_is_documented() {
        let opened = connected("42-k3f9", "node \"a\"", false);
        let data = r#"{"type":"connected","node":"node \"a\""}"#;
        assert_eq!(interpret(&opened), [("message".into(), data.into(), "42-k3f9".into())]);
        let opened = connected("42-k3f9", "node \"a\"", true);
        assert_eq!(interpret(&opened), [("connected".into(), data.into(), "42-k3f9".into())]);
        let retry = Duration::from_millis(1500);
        let goodbye = |reason| block(&Said::Goodbye { reason, retry }, false).concat();
        assert_eq!(goodbye(EndReason::Drain), b"retry: 1500\n");
        assert_eq!(goodbye(EndReason::NoState), b"");
        for (reason, word, may_come_back) in [
            (EndReason::Expired, "expired", true),
            (EndReason::TicketExpired, "expired", false),
            (EndReason::Revoked, "revoked", false),
            (EndReason::TicketUsed, "ticket", false),
        ] {
            let data = format!(r#"{{"reason":"{word}","retry":{may_come_back}}}"#);
            let stream = [&opened[..], &goodbye(reason)].concat();
            let told = interpret(&stream).pop().unwrap();
            assert_eq!(told, ("goodbye".to_owned(), data, "42-k3f9".to_owned()));
            let is_told_when = goodbye(reason).starts_with(b"retry: 1500\n");
            assert_eq!(is_told_when, may_come_back, "{reason:?}");
        }
        assert_eq!(HEARTBEAT, ": heartbeat\n");
        assert!(interpret(HEARTBEAT.as_bytes()).is_empty());
        assert_eq!(
            interpret(NAMED_HEARTBEAT.as_bytes()),
            [("heartbeat".into(), "{}".into(), String::new())]
        );
        for named in [false, true] {
            let chunk = heartbeat_chunk(named);
            let mut chunked = VecDeque::new();
            push_chunk(&mut chunked, block(&Said::Heartbeat, named));
            assert_eq!(chunk, chunked.iter().flatten().copied().collect::<Vec<u8>>());
        }
        let told = Reset {
            topic: "board-1".into(),
            reason: ResetReason::Trimmed,
            from: "1-k3f9".into(),
            oldest: Some("3-k3f9".into()),
            head: "9-k3f9".into(),
        };
        assert_eq!(
            &reset(Some("2-k3f9"), &told)[..],
            b"event: reset\ndata: {\"topic\":\"board-1\",\"reason\":\"trimmed\",\
              \"from\":\"1-k3f9\",\"oldest\":\"3-k3f9\",\"head\":\"9-k3f9\"}\nid: 2-k3f9\n\n"
        );
        assert!(reset(None, &told).starts_with(b"event: reset\n"));
    }
}
