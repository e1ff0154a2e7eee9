//! [`Frames`]: a request over HTTP/2 as anybody might send it, nearly ordinary mostly.

use fastrand::Rng;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Types of frames, and their flags.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 32;

/// The largest frame that any peer has to take, in bytes.
const FRAME_BYTES_MAX: usize = 16 << 10;

/// The frames of a request and of the next.
#[derive(Clone)]
pub struct Frames {
    frames: Vec<Vec<u8>>,
    /// The stream of the request, and of the one after it.
    pub stream: u32,
    pub next_stream: u32,
    /// Where everything is cut when it is sent, in bytes.
    cuts: Vec<usize>,
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for frame in &self.frames {
            writeln!(f, "{}", frame.escape_ascii())?;
        }
        write!(f, "cut at {:?}", self.cuts)
    }
}

impl Frames {
    /// The request of this number; it may name `topic` and nothing else that keeps something.
    pub fn draw(seed: u64, number: u64, topic: &str) -> Frames {
        let mut rng = Rng::with_seed(seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let rng = &mut rng;
        let mut request = Request::ordinary(rng, topic);
        for _ in 0..[0, 1, 1, 1, 2, 2, 3][rng.usize(..7)] {
            request.alter(rng, topic);
        }
        // Without a table of fields that were said before, heads are written independently of each
        // other, whichever is first.
        let mut frames = vec![frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0])];
        frames.extend(request.frames());
        let next_stream = request.stream.max(1) + 2;
        let next = Request {
            stream: next_stream,
            fields: fields("GET", "/healthz"),
            ..Request::default()
        };
        frames.extend(next.frames());
        let length = PREFACE.len() + frames.iter().map(Vec::len).sum::<usize>();
        let cuts: Vec<usize> = match rng.u32(..3) {
            0 => (0..rng.usize(1..5)).map(|_| rng.usize(..length)).collect(),
            1 if length < 400 && rng.bool() => (1..length).collect(),
            _ => Vec::new(),
        };
        Frames { frames, stream: request.stream, next_stream, cuts }
    }

    /// What is to be sent at a time, after the preface; each frame by itself, if they are to be
    /// read one after the other.
    pub fn pieces(&self, one_by_one: bool) -> Vec<Vec<u8>> {
        let mut bytes = PREFACE.to_vec();
        let mut cuts = self.cuts.clone();
        for frame in &self.frames {
            if one_by_one {
                cuts.push(bytes.len());
            }
            bytes.extend(frame);
        }
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let mut from = 0;
        let pieces = cuts.iter().map(|&to| bytes[std::mem::replace(&mut from, to)..to].to_vec());
        pieces.filter(|piece| !piece.is_empty()).collect()
    }
}

type Field = (Vec<u8>, Vec<u8>);

/// A request before it is made into frames.
#[derive(Default)]
struct Request {
    stream: u32,
    fields: Vec<Field>,
    /// What stands in the head block as it is, before or after the fields.
    block_begins: Vec<u8>,
    block_ends: Vec<u8>,
    /// Flags of the first frame beside those that it needs.
    flags: u8,
    padding: Vec<u8>,
    /// The head is divided into frames of so many bytes; 0: of as many as they take.
    frame_bytes: usize,
    /// Frames between the first and the second of the head, and after the head.
    between: Vec<Vec<u8>>,
    after: Vec<Vec<u8>>,
    /// Data follows the head.
    has_body: bool,
}

fn fields(method: &str, path: &str) -> Vec<Field> {
    let pairs = [
        (":method", method),
        (":scheme", "http"),
        (":authority", "gateway.localhost"),
        (":path", path),
    ];
    pairs.map(|(name, value)| (name.into(), value.into())).into()
}

/// One of these texts, which are divided by bars.
fn text<'a>(rng: &mut Rng, texts: &'a str) -> &'a str {
    let texts: Vec<&str> = texts.split('|').collect();
    texts[rng.usize(..texts.len())]
}

impl Request {
    fn ordinary(rng: &mut Rng, topic: &str) -> Request {
        let own = format!("/topics/{topic}/events");
        let (method, path) = match rng.u32(..12) {
            0..6 => ("GET", own),
            6 => ("GET", format!("/events?topics={topic},other")),
            7 => ("GET", "/boards/nope/events".to_owned()),
            8 => ("HEAD", own),
            9 => ("POST", own),
            10 => ("GET", "/healthz".to_owned()),
            _ => ("GET", "/boards/board-1/events".to_owned()),
        };
        Request { stream: 1, fields: fields(method, &path), ..Request::default() }
    }

    fn alter(&mut self, rng: &mut Rng, topic: &str) {
        let at = rng.usize(..=self.fields.len());
        match rng.u32(..20) {
            0..7 => self.fields.insert(at, field(rng)),
            7 => {
                if at < self.fields.len() {
                    self.fields.remove(at);
                }
            }
            8 => {
                let again = self.fields.get(at).cloned();
                self.fields.extend(again);
            }
            9 => {
                let paths = format!(
                    "|*|x|/topics/{topic}|//|/topics/{topic}/events?from=earliest|/events#x|\
                     /topics/{topic}/events?lastEventId=1|/topics/%/events|/topics/\u{fc}/events|\
                     http://gateway.localhost/healthz|/a b"
                );
                let path = text(rng, &paths).as_bytes().to_vec();
                self.fields.retain(|(name, _)| name != b":path");
                self.fields.push((b":path".to_vec(), path));
            }
            10 => {
                let length = self.fields.len();
                self.fields.rotate_left(at % length.max(1));
            }
            11 => {
                // About as much as one frame, or the whole head, may have. A field counts 32 more.
                let bound = [FRAME_BYTES_MAX, 64 << 10][rng.usize(..2)];
                let size: usize = self.fields.iter().map(|(n, v)| n.len() + v.len() + 32).sum();
                let missing = bound.saturating_sub(size + 33) + rng.usize(..9);
                let value = vec![b'v'; missing.saturating_sub(4)];
                self.fields.push((b"x".to_vec(), value));
            }
            12 => self.frame_bytes = rng.usize(1..60),
            13 => {
                self.flags |= PADDED;
                self.padding = vec![0; rng.usize(..20)];
            }
            14 => self.flags |= WITH_PRIORITY,
            15 => self.stream = [2, 3, 5, 0, 1 << 30][rng.usize(..5)],
            16 => {
                let odd: [&[u8]; 7] = [
                    &[0x80],
                    &[0xff, 0xff, 0xff, 0xff, 0x7f],
                    &[0xbe],
                    &[0x82],
                    &[0x20],
                    &[0x3f, 0xff, 0xff, 0x7f],
                    &[0x40, 0x81, 0xff, 0x81, 0xff],
                ];
                let odd = odd[rng.usize(..odd.len())].to_vec();
                if rng.bool() { self.block_begins = odd } else { self.block_ends = odd }
            }
            17 => self.between.push(any_frame(rng, self.stream)),
            18 => self.after.push(any_frame(rng, self.stream)),
            _ => {
                self.has_body = true;
                let length = text(rng, "0|2|5|x|-1|99999999999999999999|");
                if rng.bool() {
                    self.fields.push((b"content-length".to_vec(), length.into()));
                }
            }
        }
    }

    fn frames(&self) -> Vec<Vec<u8>> {
        let mut block = self.block_begins.clone();
        for (name, value) in &self.fields {
            // A literal that nobody remembers, as it is.
            block.push(0);
            for text in [name, value] {
                block.extend(integer(text.len()));
                block.extend(text);
            }
        }
        block.extend(&self.block_ends);
        let size = if self.frame_bytes == 0 { FRAME_BYTES_MAX } else { self.frame_bytes };
        let parts: Vec<&[u8]> = block.chunks(size.saturating_sub(40).max(1)).collect();
        let mut frames = Vec::new();
        for (n, part) in parts.iter().enumerate() {
            let mut flags = if n + 1 == parts.len() { END_HEADERS } else { 0 };
            if n > 0 {
                frames.push(frame(CONTINUATION, flags, self.stream, part));
                continue;
            }
            flags |= self.flags | if self.has_body { 0 } else { END_STREAM };
            let mut payload = Vec::new();
            if self.flags & PADDED > 0 {
                payload.push(self.padding.len() as u8);
            }
            if self.flags & WITH_PRIORITY > 0 {
                payload.extend([0, 0, 0, 0, 16]);
            }
            payload.extend_from_slice(part);
            payload.extend(&self.padding);
            frames.push(frame(HEADERS, flags, self.stream, &payload));
            frames.extend(self.between.clone());
        }
        if self.has_body {
            frames.push(frame(DATA, 0, self.stream, b"{}"));
            frames.push(frame(DATA, END_STREAM, self.stream, b""));
        }
        frames.extend(self.after.clone());
        frames
    }
}

/// A field that means something to somebody, or should not be one.
fn field(rng: &mut Rng) -> Field {
    let names = "connection|te|transfer-encoding|upgrade|keep-alive|proxy-connection|host|cookie|\
                 last-event-id|last-event-id|expect|origin|accept|X-Upper||with space|näme|a:b|\
                 :method|:path|:scheme|:authority|:status|:protocol|:x|content-length|x-other";
    let values = "keep-alive|close|trailers|gzip|chunked|h2c|gateway|1|x|0-zzzzzz|GET|/healthz|\
                  http|https|200|websocket||ü| padded |with\nline|with\0null|100-continue";
    (text(rng, names).into(), text(rng, values).into())
}

/// A frame where none is expected.
fn any_frame(rng: &mut Rng, stream: u32) -> Vec<u8> {
    match rng.u32(..12) {
        0 => frame(DATA, 0, stream, b"data"),
        1 => frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0x82]),
        2 => frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 1]),
        3 => frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
        4 => frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        5 => frame(PUSH_PROMISE, END_HEADERS, stream, &[0, 0, 0, 2, 0x82]),
        6 => frame(PING, 0, 0, b"12345678"),
        7 => frame(PING, 0, 0, b"short"),
        8 => frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 0]),
        9 => frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        10 => frame(CONTINUATION, END_HEADERS, stream, &[]),
        _ => frame(rng.u8(10..), rng.u8(..), stream, b"unknown"),
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = &(payload.len() as u32).to_be_bytes()[1..];
    [length, &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The length of a text that is not compressed (RFC 7541, section 5.1).
fn integer(length: usize) -> Vec<u8> {
    let Some(mut left) = length.checked_sub(127) else { return vec![length as u8] };
    let mut bytes = vec![127];
    while left >= 128 {
        bytes.push((left % 128) as u8 | 128);
        left /= 128;
    }
    bytes.push(left as u8);
    bytes
}
