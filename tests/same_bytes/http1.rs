//! HTTP/1.1 as bytes: a connection over which anything can be sent, and as much of the framing of
//! answers (RFC 9112) as it takes to know where one ends.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::gateway::within;

/// A connection that keeps everything that comes back.
pub struct Connection {
    pub socket: TcpStream,
    pub received: Vec<u8>,
    /// How it ended, once it has.
    pub end: Option<End>,
    /// What is known of the body of the stream whose head stands at the beginning.
    body: Body,
}

/// How the other side ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Closed,
    Reset,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Connection {
        Connection::of(TcpStream::connect(address).await.unwrap())
    }

    pub fn of(socket: TcpStream) -> Connection {
        socket.set_nodelay(true).unwrap();
        Connection { socket, received: Vec::new(), end: None, body: Body::default() }
    }

    /// Sends bytes. The peer may have hung up already; then reading tells.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes).await;
    }

    /// Reads some more; no at the end.
    pub async fn more(&mut self) -> bool {
        if self.end.is_some() {
            return false;
        }
        match self.socket.read_buf(&mut self.received).await {
            Ok(0) => self.end = Some(End::Closed),
            Ok(_) => return true,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.end = Some(End::Reset),
            Err(error) => panic!("a socket broke: {error}"),
        }
        false
    }

    pub async fn until_end(&mut self) {
        while self.more().await {}
    }

    /// Waits for the answer that begins after `from` received bytes, and says where it ends; at the
    /// end of what was received if the connection ends before.
    pub async fn answer(&mut self, from: usize, to_head: bool) -> usize {
        within("an answer", async {
            loop {
                if let Some(length) = answer_length(&self.received[from..], to_head) {
                    return from + length;
                }
                if !self.more().await {
                    return self.received.len();
                }
            }
        })
        .await
    }

    /// Waits until this has come.
    ///
    /// Panics if the connection ends before, or nothing comes any more.
    pub async fn raw_until(&mut self, text: &str) {
        while find(&self.received, text.as_bytes()).is_none() {
            let more = within(text, self.more()).await;
            assert!(more, "waited for {text}: {}", String::from_utf8_lossy(&self.received));
        }
    }

    /// Waits until the body of the stream that begins this connection satisfies `condition`.
    ///
    /// Panics if it ends before, or nothing comes any more.
    pub async fn body_until(&mut self, what: &str, mut condition: impl FnMut(&[u8]) -> bool) {
        loop {
            self.body.decode(&self.received);
            if condition(&self.body.bytes) {
                return;
            }
            let more = within(what, self.more()).await;
            assert!(more, "waited for {what}: {}", String::from_utf8_lossy(&self.received));
        }
    }
}

/// A body that is decoded as it comes.
#[derive(Default)]
struct Body {
    /// Where the next chunk begins, once the head is there.
    at: Option<usize>,
    chunked: bool,
    bytes: Vec<u8>,
}

impl Body {
    fn decode(&mut self, received: &[u8]) {
        if self.at.is_none()
            && let Some(end) = head_end(received)
        {
            self.chunked = is_chunked(&received[..end]);
            self.at = Some(end);
        }
        let Some(at) = &mut self.at else { return };
        if !self.chunked {
            self.bytes.extend_from_slice(&received[*at..]);
            *at = received.len();
        }
        while let (true, Some((data, length))) = (self.chunked, chunk(&received[*at..])) {
            self.bytes.extend_from_slice(data);
            *at += length;
            if data.is_empty() {
                break;
            }
        }
    }
}

/// Where the first head ends, its blank line included.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The value of a header, as gateways write it: in lower case, after one space.
fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let head = std::str::from_utf8(head).ok()?;
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn is_chunked(head: &[u8]) -> bool {
    header(head, "transfer-encoding") == Some("chunked")
}

fn status(head: &[u8]) -> Option<u16> {
    std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()
}

/// The data of the chunk at the beginning, and the length of all of it; nothing while it is not
/// whole or if it is no chunk.
fn chunk(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let line = bytes.iter().take(20).position(|&byte| byte == b'\r')?;
    let size = std::str::from_utf8(&bytes[..line]).ok()?;
    let size = usize::from_str_radix(size, 16).ok()?;
    let from = line + 2;
    let end = from + size + 2;
    (bytes.len() >= end && &bytes[line..from] == b"\r\n" && &bytes[end - 2..end] == b"\r\n")
        .then(|| (&bytes[from..end - 2], end))
}

/// How long the answer at the beginning is, if it is whole and its end is told by itself.
pub fn answer_length(bytes: &[u8], to_head: bool) -> Option<usize> {
    let end = head_end(bytes)?;
    let head = &bytes[..end];
    let status = status(head)?;
    if (100..200).contains(&status) {
        // Not the answer yet.
        return Some(end + answer_length(&bytes[end..], to_head)?);
    }
    if to_head || status == 204 || status == 304 {
        return Some(end);
    }
    if is_chunked(head) {
        let mut at = end;
        loop {
            let (data, length) = chunk(&bytes[at..])?;
            at += length;
            if data.is_empty() {
                return Some(at);
            }
        }
    }
    let length: usize = header(head, "content-length")?.parse().ok()?;
    (bytes.len() >= end + length).then_some(end + length)
}

/// What came over a connection, with the chunks of event streams joined: where chunks are divided
/// is up to whoever writes them, and means nothing (RFC 9112, section 7.1). Everything else stays
/// as it is, and so does whatever is no chunk where one should be.
pub fn joined(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    while let Some(end) = head_end(bytes) {
        let (head, rest) = bytes.split_at(end);
        out.extend_from_slice(head);
        bytes = rest;
        let is_stream = header(head, "content-type")
            .is_some_and(|value| value.starts_with("text/event-stream"));
        if is_stream && is_chunked(head) {
            while let Some((data, length)) = chunk(bytes) {
                out.extend_from_slice(data);
                bytes = &bytes[length..];
                if data.is_empty() {
                    out.extend_from_slice(b"<the last chunk>\n");
                    break;
                }
            }
        } else if let Some(length) = header(head, "content-length").and_then(|l| l.parse().ok()) {
            let (body, rest) = bytes.split_at(bytes.len().min(length));
            out.extend_from_slice(body);
            bytes = rest;
        }
    }
    out.extend_from_slice(bytes);
    out
}

#[test]
fn chunks_are_joined_in_streams_and_nowhere_else() {
    let stream = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
                  transfer-encoding: chunked\r\n\r\n";
    let other = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    let plain = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
    for (chunks, joined_as) in [
        ("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", "abc<the last chunk>\n"),
        ("3\r\nabc\r\n0\r\n\r\n", "abc<the last chunk>\n"),
        ("3\r\nabc\r\n2\r\nd", "abc2\r\nd"),
        ("3\r\nabcd", "3\r\nabcd"),
    ] {
        let text = |chunks| format!("{other}{plain}{stream}{chunks}");
        let joined = String::from_utf8(joined(text(chunks).as_bytes())).unwrap();
        assert_eq!(joined, text(joined_as));
    }
}

#[test]
fn the_end_of_an_answer_is_found() {
    let length = |text: &str, to_head| answer_length(text.as_bytes(), to_head);
    let plain = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n";
    assert_eq!(length(&format!("{plain}abcX"), false), Some(plain.len() + 3));
    assert_eq!(length(&format!("{plain}ab"), false), None);
    assert_eq!(length(plain, true), Some(plain.len()));
    let asked_on = format!("HTTP/1.1 100 Continue\r\n\r\n{plain}abc");
    assert_eq!(length(&asked_on, false), Some(asked_on.len()));
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n";
    assert_eq!(length(chunked, false), None);
    assert_eq!(length(&format!("{chunked}0\r\n\r\n"), false), Some(chunked.len() + 5));
}
