//! An SSE client over a bare socket, written from the standard: what a browser's `EventSource`
//! would see, and where it would resume.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::encoding::{self, Decoder};
use super::{h2c, within};

/// An event as `addEventListener` would get it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `message` if it had no type.
    pub kind: String,
    pub data: String,
    /// The last event id as of this event.
    pub id: String,
}

impl Event {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub fn seq(&self) -> u64 {
        super::seq(&self.id)
    }

    pub fn is_connected(&self) -> bool {
        self.kind == "message" && self.data.starts_with(r#"{"type":"connected""#)
    }
}

/// What the standard calls interpreting an event stream.
#[derive(Debug, Default)]
pub struct Interpreter {
    line: Vec<u8>,
    data: String,
    kind: String,
    id_buffer: String,
    pub last_event_id: String,
    pub retry: Option<u64>,
    pub comments: Vec<String>,
    pub events: VecDeque<Event>,
    /// The current block has its id.
    has_id: bool,
}

impl Interpreter {
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            // Fantail ends lines with a line feed alone.
            assert_ne!(byte, b'\r', "a carriage return on the wire");
            if byte == b'\n' {
                let line = String::from_utf8(std::mem::take(&mut self.line)).unwrap();
                self.interpret(&line);
            } else {
                self.line.push(byte);
            }
        }
    }

    fn interpret(&mut self, line: &str) {
        if line.is_empty() {
            self.last_event_id.clone_from(&self.id_buffer);
            self.has_id = false;
            // Several clients make an empty event of it.
            assert!(!self.data.is_empty(), "a blank line without data");
            self.data.pop();
            let kind = std::mem::take(&mut self.kind);
            self.events.push_back(Event {
                kind: if kind.is_empty() { "message".to_owned() } else { kind },
                data: std::mem::take(&mut self.data),
                id: self.last_event_id.clone(),
            });
            return;
        }
        if let Some(comment) = line.strip_prefix(':') {
            self.comments.push(comment.trim().to_owned());
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        // Some clients take an id when they read its line, before the event is whole.
        assert!(!self.has_id, "{line:?} comes after the id of its block");
        match field {
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "event" => self.kind = value.to_owned(),
            "id" if !value.contains('\0') => {
                assert!(value.is_ascii(), "an id that clients may change on its way: {value:?}");
                self.id_buffer = value.to_owned();
                self.has_id = true;
            }
            "retry" => self.retry = value.parse().ok().or(self.retry),
            other => panic!("an unknown field on the wire: {other:?} in {line:?}"),
        }
    }
}

/// A stream that is open.
pub struct Stream {
    pub socket: TcpStream,
    pub status: u16,
    pub head: String,
    received: Vec<u8>,
    decoder: Decoder,
    /// The body as it came.
    pub body: Vec<u8>,
    pub interpreter: Interpreter,
    /// Bytes of the body that were interpreted.
    pub bytes: usize,
    ended: bool,
    length_left: Option<usize>,
}

impl Stream {
    /// Opens a stream and takes its first event, which must be the hello.
    pub async fn open(address: SocketAddr, path: &str) -> Stream {
        Stream::open_from(address, path, "").await
    }

    /// The same, after the event with this id.
    pub async fn open_from(address: SocketAddr, path: &str, last_event_id: &str) -> Stream {
        let mut stream = Stream::request(address, path, last_event_id).await;
        assert_eq!(stream.status, 200, "{}", stream.head);
        let hello = stream.event().await;
        assert!(hello.is_connected(), "the first event is the hello: {hello:?}");
        stream
    }

    /// Sends the request of an `EventSource` and reads the head of the response.
    pub async fn request(address: SocketAddr, path: &str, last_event_id: &str) -> Stream {
        Stream::try_request(address, path, last_event_id).await.unwrap()
    }

    pub async fn try_request(
        address: SocketAddr,
        path: &str,
        last_event_id: &str,
    ) -> std::io::Result<Stream> {
        let socket = TcpStream::connect(address).await?;
        Stream::request_on(socket, address, path, last_event_id).await
    }

    /// Sends the same request with these headers, each on a line.
    pub async fn request_with(address: SocketAddr, path: &str, headers: &[&str]) -> Stream {
        let socket = TcpStream::connect(address).await.unwrap();
        let accept = encoding::wanted().map(|name| format!("Accept-Encoding: {name}"));
        let lines = headers.iter().copied().chain(accept.as_deref());
        let headers: String = lines.map(|line| format!("{line}\r\n")).collect();
        Stream::with_headers(socket, address, path, &headers).await.unwrap()
    }

    pub async fn request_on(
        socket: TcpStream,
        address: SocketAddr,
        path: &str,
        last_event_id: &str,
    ) -> std::io::Result<Stream> {
        let accept = encoding::wanted().unwrap_or_default();
        Stream::request_in(socket, address, path, last_event_id, &accept).await
    }

    /// Asks for one of these encodings.
    pub async fn request_in(
        socket: TcpStream,
        address: SocketAddr,
        path: &str,
        last_event_id: &str,
        accept: &str,
    ) -> std::io::Result<Stream> {
        let named = [("Last-Event-ID", last_event_id), ("Accept-Encoding", accept)];
        let said = named.into_iter().filter(|(_, value)| !value.is_empty());
        let headers: String = said.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        Stream::with_headers(socket, address, path, &headers).await
    }

    /// Sends the same request with these lines among its headers, and no other of ours.
    pub async fn with_headers(
        mut socket: TcpStream,
        address: SocketAddr,
        path: &str,
        headers: &str,
    ) -> std::io::Result<Stream> {
        socket.set_nodelay(true)?;
        if h2c::is_wanted() {
            socket = h2c::in_front_of(socket).await?;
        }
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\
             Cache-Control: no-cache\r\n{headers}\r\n"
        );
        socket.write_all(request.as_bytes()).await?;
        let mut received = Vec::new();
        let end = loop {
            if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if socket.read_buf(&mut received).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        };
        let head = String::from_utf8(received[..end].to_vec()).unwrap().to_ascii_lowercase();
        received.drain(..end + 4);
        let status = head[9..12].parse().unwrap();
        // A stream of Fantail has no length; what a proxy says in its place has.
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let encoding = head.lines().find_map(|line| line.strip_prefix("content-encoding: "));
        Ok(Stream {
            decoder: Decoder::new(encoding),
            body: Vec::new(),
            length_left: length.map(|length| length.trim().parse().unwrap()),
            socket,
            status,
            head,
            received,
            interpreter: Interpreter::default(),
            bytes: 0,
            ended: false,
        })
    }

    /// The next event; panics if none comes or the stream ends.
    pub async fn event(&mut self) -> Event {
        let event = within("an event", self.next()).await;
        event.unwrap_or_else(|| panic!("the stream ended"))
    }

    /// The next event, `None` when the stream ends.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.interpreter.events.pop_front() {
                return Some(event);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The next `count` events.
    pub async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            events.push(self.event().await);
        }
        events
    }

    /// Reads to the event with this id; returns everything up to it.
    pub async fn until_id(&mut self, id: &str) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event = self.event().await;
            let found = event.id == id;
            events.push(event);
            if found {
                return events;
            }
        }
    }

    /// Asserts that nothing but comments comes for `time`.
    pub async fn silent_for(&mut self, time: Duration) {
        if let Ok(event) = tokio::time::timeout(time, self.next()).await {
            panic!("expected silence and got {event:?}");
        }
    }

    /// Waits until the server ends the stream.
    pub async fn end(&mut self) {
        within("the end of a stream", async { while self.more().await {} }).await;
    }

    /// Where an `EventSource` would resume.
    pub fn last_event_id(&self) -> &str {
        &self.interpreter.last_event_id
    }

    /// Reads some more of the body; no at its end.
    pub async fn more(&mut self) -> bool {
        loop {
            if self.ended {
                return false;
            }
            if self.take_chunk() {
                return true;
            }
            match self.socket.read_buf(&mut self.received).await {
                Ok(0) | Err(_) => self.ended = true,
                Ok(_) => {}
            }
        }
    }

    /// Decodes one chunk of the transfer coding, or some of a body whose length was told, if there
    /// is any.
    fn take_chunk(&mut self) -> bool {
        if let Some(left) = self.length_left {
            let count = left.min(self.received.len());
            let part: Vec<u8> = self.received.drain(..count).collect();
            self.length_left = Some(left - count);
            self.ended |= left == count;
            self.interpreter.feed(&part);
            return count > 0;
        }
        let Some(line_end) = self.received.windows(2).position(|two| two == b"\r\n") else {
            return false;
        };
        let size = std::str::from_utf8(&self.received[..line_end]).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let (from, to) = (line_end + 2, line_end + 2 + size);
        if self.received.len() < to + 2 {
            return false;
        }
        self.bytes += size;
        let chunk = self.received[from..to].to_vec();
        self.received.drain(..to + 2);
        if !matches!(self.decoder, Decoder::Identity) {
            self.body.extend(&chunk);
        }
        self.interpreter.feed(&self.decoder.decode(&chunk));
        self.ended |= size == 0;
        true
    }
}

/// Opens many streams, a few at a time, so that no listen queue overflows.
pub async fn open_many(
    address: SocketAddr,
    path: &str,
    count: usize,
    ids: &[String],
) -> Vec<Stream> {
    let mut streams = Vec::with_capacity(count);
    let mut n = 0;
    while n < count {
        let batch = (n..count.min(n + 200)).map(|n| {
            let id = if ids.is_empty() { "" } else { ids[n % ids.len()].as_str() };
            async move { within("a stream", Stream::request(address, path, id)).await }
        });
        streams.extend(futures_util::future::join_all(batch).await);
        n = streams.len();
    }
    streams
}

impl Stream {
    /// The body of a stream without entries, after its second heartbeat, byte for byte.
    pub async fn raw_bytes_of_a_silent_stream(address: SocketAddr) -> String {
        let socket = TcpStream::connect(address).await.unwrap();
        let stream = Stream::request_in(socket, address, "/topics/silent/events", "", "");
        let mut stream = stream.await.unwrap();
        let mut body = String::new();
        within("two heartbeats", async {
            while body.matches(": heartbeat").count() < 2 {
                stream.socket.read_buf(&mut stream.received).await.unwrap();
                let text = String::from_utf8(stream.received.clone()).unwrap();
                // Chunk sizes stand on lines of their own, which end with CR LF.
                let parts = text.split("\r\n").enumerate();
                body = parts.filter(|(n, _)| n % 2 == 1).map(|(_, part)| part).collect();
            }
        })
        .await;
        body
    }
}
