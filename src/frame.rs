//! [`Frame`]: an entry as SSE text, encoded once and shared by all connections of a node.
//!
//! The publishing node encodes everything after the `id:` line ([`encode_rest`]); the log puts the
//! `id:` line before it when it knows the position. Connections to one topic send a frame as it
//! is; connections to several send their own cursor as the id and the shared rest after it.
//!
//! Here too: every other block a stream can carry. What a line means is said in the HTML Living
//! Standard, section 9.2.6 "Interpreting an event stream".

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::entry::{Entry, Event};
use crate::position::{LogHistory, Position, Verdict};
use crate::topic::Topic;

/// A comment in silence, so that proxies and browsers know the stream lives. No blank line
/// after it: several well-known clients turn a lone blank line into an empty event.
pub const HEARTBEAT: &str = ": heartbeat\n";

/// One entry, ready to send.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The place of the entry.
    pub position: Position,
    /// When the log took it, in milliseconds since 1970 by the log's clock.
    pub milliseconds: u64,
    /// The block as one chunk of a response in chunked transfer coding (RFC 9112, section 7.1), as
    /// most sockets want it.
    chunk: Bytes,
    /// Where the block begins in `chunk`, and where its `id:` line ends.
    whole_at: usize,
    rest_at: usize,
}

/// What follows the data of a chunk.
const CHUNK_END: &[u8] = b"\r\n";

/// The chunk that ends a response.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Writes a block as one chunk of a response in chunked transfer coding. An empty block would end
/// the response and is left out.
pub fn write_chunk(out: &mut Vec<u8>, block: &[&[u8]]) {
    let size: usize = block.iter().map(|part| part.len()).sum();
    if size > 0 {
        out.extend_from_slice(format!("{size:X}\r\n").as_bytes());
        block.iter().for_each(|part| out.extend_from_slice(part));
        out.extend_from_slice(CHUNK_END);
    }
}

impl Frame {
    /// Encodes the `id:` line of an entry that was read from the log.
    pub fn new(entry: &Entry) -> Frame {
        let id = id_line(entry.position);
        Frame::of(entry.position, entry.milliseconds, id.as_bytes(), &entry.rest)
    }

    /// Takes SSE text that starts with its `id:` line; `None` if it does not.
    pub fn from_announced(milliseconds: u64, text: &[u8]) -> Option<Frame> {
        let line_end = text.iter().take(64).position(|&b| b == b'\n')?;
        let line = std::str::from_utf8(&text[..line_end]).ok()?;
        let position = line.strip_prefix("id: ")?.parse().ok()?;
        let (id, rest) = text.split_at(line_end + 1);
        Some(Frame::of(position, milliseconds, id, rest))
    }

    /// Copied once a node, whether it came from the log or as an announcement.
    fn of(position: Position, milliseconds: u64, id: &[u8], rest: &[u8]) -> Frame {
        let mut chunk = Vec::with_capacity(id.len() + rest.len() + 12);
        write_chunk(&mut chunk, &[id, rest]);
        let whole_at = chunk.len() - CHUNK_END.len() - rest.len() - id.len();
        Frame {
            position,
            milliseconds,
            chunk: chunk.into(),
            whole_at,
            rest_at: whole_at + id.len(),
        }
    }

    /// The whole block: `id:`, `event:`, `data:` and the blank line.
    pub fn whole(&self) -> Bytes {
        self.chunk.slice(self.whole_at..self.end())
    }

    /// The whole block as a chunk.
    pub fn chunk(&self) -> &Bytes {
        &self.chunk
    }

    /// The block without its `id:` line, for a connection whose id is a cursor over several topics.
    pub fn rest(&self) -> Bytes {
        self.chunk.slice(self.rest_at..self.end())
    }

    /// Size of the whole block in bytes.
    pub fn size(&self) -> usize {
        self.end() - self.whole_at
    }

    fn end(&self) -> usize {
        self.chunk.len() - CHUNK_END.len()
    }
}

/// The `id:` line of a position or cursor.
pub fn id_line(id: impl std::fmt::Display) -> String {
    format!("id: {id}\n")
}

/// Everything of an event's SSE text but its id: `event:` if it has a type, one `data:` line per
/// line of data, and the blank line that ends the block.
///
/// A carriage return ends a line in SSE as a line feed does, so data comes out with `\n` for
/// `\r\n` and `\r`.
pub fn encode_rest(event: &Event) -> Bytes {
    let text = event.data.text();
    let mut rest = String::with_capacity(text.len() + 64);
    if let Some(event_type) = &event.event_type {
        rest.push_str("event: ");
        rest.push_str(event_type.as_str());
        rest.push('\n');
    }
    for line in lines(text) {
        rest.push_str("data: ");
        rest.push_str(line);
        rest.push('\n');
    }
    rest.push('\n');
    rest.into()
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

/// Type and data of an encoded event: the inverse of [`encode_rest`], for readers of history.
pub fn decode_rest(rest: &str) -> (Option<&str>, String) {
    let mut event_type = None;
    let mut data = String::new();
    for line in rest.split('\n') {
        if let Some(text) = line.strip_prefix("event: ") {
            event_type = Some(text);
        } else if let Some(text) = line.strip_prefix("data: ") {
            data.push_str(text);
            data.push('\n');
        }
    }
    data.pop();
    (event_type, data)
}

/// Removes the white space between the tokens of a valid JSON text, so that it takes one `data:`
/// line. Numbers, keys and their order stay as the publisher wrote them.
pub fn minify_json(json: &str) -> String {
    let mut minified = String::with_capacity(json.len());
    let mut in_string = false;
    let mut escaped = false;
    for c in json.chars() {
        if in_string {
            minified.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if !matches!(c, ' ' | '\t' | '\r' | '\n') {
            minified.push(c);
            in_string = c == '"';
        }
    }
    minified
}

/// The reconnection time as a line of its own: takes effect when it is read and dispatches nothing.
pub fn retry_line(retry: Duration) -> String {
    format!("retry: {}\n", retry.as_millis())
}

/// The first block of a stream, without its `retry:` line: an unnamed event, so that `onmessage`
/// of any page sees which node it reached, and an id, so that a connection that drops before its
/// first real event loses nothing (promise 4).
pub fn connected(cursor: &str, node: &str) -> Bytes {
    #[derive(Serialize)]
    struct Connected<'a> {
        r#type: &'a str,
        node: &'a str,
    }
    let data = json(&Connected { r#type: "connected", node });
    format!("{}data: {data}\n\n", id_line(cursor)).into()
}

/// The last block of a stream that the node ends: when to come back, and from where. It carries
/// no data, so it dispatches no event.
pub fn goodbye(cursor: Option<&str>, retry: Duration) -> Bytes {
    let mut block = retry_line(retry);
    if let Some(cursor) = cursor {
        block.push_str(&id_line(cursor));
    }
    block.push('\n');
    block.into()
}

/// Why a stream cannot go on without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ResetReason {
    /// Entries after the client's position are no longer retained.
    Trimmed,
    /// What the client has seen was lost, or belongs to another incarnation of the log.
    Lost,
    /// The client's id is no position.
    Unreadable,
}

impl ResetReason {
    /// The word on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ResetReason::Trimmed => "trimmed",
            ResetReason::Lost => "lost",
            ResetReason::Unreadable => "unreadable",
        }
    }

    /// The reason a verdict gives, if it calls for a reset.
    pub fn of(verdict: Verdict) -> Option<ResetReason> {
        match verdict {
            Verdict::Continues => None,
            Verdict::Trimmed => Some(ResetReason::Trimmed),
            Verdict::Lost => Some(ResetReason::Lost),
        }
    }
}

/// What a `reset` event tells (design §4). Ids are texts of positions.
#[derive(Debug, Clone, Serialize)]
pub struct Reset {
    /// Which topic lost its thread.
    pub topic: String,
    /// Why.
    pub reason: ResetReason,
    /// Where the client said it was.
    pub from: String,
    /// The oldest entry that can still be read; null when none can.
    pub oldest: Option<String>,
    /// The newest entry.
    pub head: String,
}

impl Reset {
    /// Tells that `from`, as the client said it, cannot be continued in the log of `topic`.
    pub fn new(topic: &str, reason: ResetReason, from: String, history: &LogHistory) -> Reset {
        let any = history.oldest <= history.head;
        Reset {
            topic: topic.to_owned(),
            reason,
            from,
            oldest: any.then(|| history.at(history.oldest).to_string()),
            head: history.at(history.head).to_string(),
        }
    }
}

/// A `reset` block. `cursor` is where the stream goes on; without one the block has no id, so
/// that a client that drops right after it is told again.
pub fn reset(cursor: Option<&str>, reset: &Reset) -> Bytes {
    let id = cursor.map(id_line).unwrap_or_default();
    format!("{id}event: reset\ndata: {}\n\n", json(reset)).into()
}

/// The beginning of a `snapshot` block that is exact at `cursor`. The board as JSON on one line
/// and [`SNAPSHOT_END`] follow; they are apart so that many streams can share one board.
pub fn snapshot_head(cursor: &str) -> Bytes {
    format!("{}event: snapshot\ndata: ", id_line(cursor)).into()
}

/// What ends a `snapshot` block.
pub const SNAPSHOT_END: &str = "\n\n";

/// JSON of our own types.
pub(crate) fn json(value: &impl Serialize) -> String {
    // Only maps with keys that are no strings and failing `Serialize` code can fail; ours are neither.
    serde_json::to_string(value).unwrap_or_default()
}

/// The longest cursor we put into an `id:` line, in bytes. It comes back as a request header, and
/// widely used proxies refuse header lines of more than 8 KiB.
pub const CURSOR_BYTES_MAX: usize = 7_000;

/// An upper bound for the length of the cursor over `topics`, in bytes.
pub fn cursor_bytes(topics: &[Topic]) -> usize {
    // `,` + name + `:` + 16 digits + `-` + 8 characters.
    topics.iter().map(|topic| topic.as_str().len() + 27).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::{Data, EventType};

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
        Entry { position, milliseconds: 0, json: false, rest: encode_rest(event) }
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
                let frame = Frame::new(&entry(n as u64, &event));
                stream.extend_from_slice(HEARTBEAT.as_bytes());
                stream.extend_from_slice(&frame.whole());
                expected.push((
                    event_type.map_or("message".to_owned(), |kind| kind.as_str().to_owned()),
                    data.replace("\r\n", "\n").replace('\r', "\n"),
                    format!("{n}-k3f9"),
                ));
                let rest = frame.rest();
                let (decoded_type, decoded_data) = decode_rest(std::str::from_utf8(&rest).unwrap());
                let last = &expected[expected.len() - 1];
                prop_assert_eq!(decoded_type.unwrap_or("message"), &last.0);
                prop_assert_eq!(&decoded_data, &last.1);
            }
            prop_assert_eq!(interpret(&stream), expected);
        }

        #[test]
        fn minified_json_means_the_same_on_one_line(value in any_json(), pretty in any::<bool>()) {
            let text = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                format!(" \t\r\n{value}\n")
            };
            let minified = minify_json(&text);
            prop_assert_eq!(&minified, &value.to_string());
            prop_assert!(!minified.contains(['\r', '\n']));
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "(?s).{0,20}|[\\\\\" \n]{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::hash_map("[a\\\\\" ]{0,4}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn a_frame_and_its_announcement_are_the_same_bytes() {
        let event = Event { event_type: None, data: Data::Text("a\nb".into()) };
        let frame = Frame::new(&entry(7, &event));
        assert_eq!(&frame.whole()[..], b"id: 7-k3f9\ndata: a\ndata: b\n\n");
        let announced = Frame::from_announced(5, &frame.whole()).unwrap();
        assert_eq!(announced.position, frame.position);
        assert_eq!(announced.rest(), frame.rest());
        assert_eq!(&announced.chunk()[..], b"1C\r\nid: 7-k3f9\ndata: a\ndata: b\n\n\r\n");
        assert_eq!(announced.size(), 0x1c);
        assert!(Frame::from_announced(5, b"data: x\n\n").is_none());
        assert!(Frame::from_announced(5, b"id: 7").is_none());
    }

    #[test]
    fn the_other_blocks_are_what_the_design_says() {
        let connected = connected("42-k3f9", "node \"a\"");
        assert_eq!(
            interpret(&connected),
            [(
                "message".into(),
                r#"{"type":"connected","node":"node \"a\""}"#.into(),
                "42-k3f9".into()
            )]
        );
        let goodbye = goodbye(Some("42-k3f9"), Duration::from_millis(1500));
        assert_eq!(&goodbye[..], b"retry: 1500\nid: 42-k3f9\n\n");
        assert!(interpret(&goodbye).is_empty());
        assert!(interpret(HEARTBEAT.as_bytes()).is_empty());
        let told = Reset {
            topic: "board-1".into(),
            reason: ResetReason::Trimmed,
            from: "1-k3f9".into(),
            oldest: Some("3-k3f9".into()),
            head: "9-k3f9".into(),
        };
        assert_eq!(
            &reset(Some("2-k3f9"), &told)[..],
            b"id: 2-k3f9\nevent: reset\ndata: {\"topic\":\"board-1\",\"reason\":\"trimmed\",\
              \"from\":\"1-k3f9\",\"oldest\":\"3-k3f9\",\"head\":\"9-k3f9\"}\n\n"
        );
        assert!(reset(None, &told).starts_with(b"event: reset\n"));
    }
}
