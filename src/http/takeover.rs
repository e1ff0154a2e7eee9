//! Streams leave the HTTP server once they are decided.
//!
//! A plain HTTP/1.1 connection is looked at before the HTTP server reads from it. Where its first
//! bytes are one complete, ordinary `GET` of a stream, the routes decide as always; on yes, the
//! stream goes on over the bare socket: [`Speakers`] say what there is to say, and once it has
//! caught up it is parked with a [reactor](crate::reactor). Everything else (other requests, errors,
//! HTTP/2, heads in pieces, odd input) goes to the HTTP server, which finds all bytes still unread.
//! So there is one place that reads requests, one that decides, and both ways send the same bytes.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::response::Response;
use futures_util::FutureExt;
use hyper::Request;
use rustix::net::RecvFlags;
use socket2::SockRef;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tower::ServiceExt;

use super::streams::Peer;
use crate::admission::OpenSocket;
use crate::connection::{Connection, Node};
use crate::frame::{LAST_CHUNK, write_chunk};
use crate::reactor::{LINGER, Reactors, Returned};

/// The longest request head that is looked at, in bytes, and the most headers in it. Longer ones go
/// to the HTTP server.
const HEAD_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;

/// What is gathered for one write, in bytes, roughly.
const WRITE_BYTES: usize = 64 << 10;

/// What a client may send after the request of a stream, in bytes, while nobody answers it.
const UNREAD_BYTES_MAX: usize = 64 << 10;

/// Where the routes leave a stream that goes on over the bare socket.
pub(crate) type Slot = Arc<Mutex<Option<Connection>>>;

/// What a look at a new connection led to.
pub(super) enum Looked {
    /// A stream began: this is the head of its response.
    Stream(Box<Connection>, Vec<u8>),
    /// Nothing has come yet, whatever the runtime said.
    Nothing,
    /// It is for the HTTP server, with the answer to its first request if the routes have given it.
    Other(Option<Box<Response>>),
}

/// Looks at the first bytes of a connection.
pub(super) async fn look(stream: &TcpStream, router: &Router, peer: &Peer) -> Looked {
    let (length, mut request) = match peek(stream) {
        Peeked::Nothing => return Looked::Nothing,
        Peeked::Other => return Looked::Other(None),
        Peeked::Stream(length, request) => (length, *request),
    };
    let slot = Slot::default();
    request.extensions_mut().insert(peer.clone().with_slot(slot.clone()));
    let response = match router.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let connection = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    match connection {
        Some(connection) if response.status() == StatusCode::OK && swallow(stream, length) => {
            Looked::Stream(Box::new(connection), head(response.headers()))
        }
        _ => Looked::Other(Some(Box::new(response))),
    }
}

/// What is at the beginning of a connection.
enum Peeked {
    /// Nothing yet.
    Nothing,
    /// Nothing but an ordinary `GET` of a stream, of so many bytes.
    Stream(usize, Box<Request<Body>>),
    /// Something else.
    Other,
}

fn peek(stream: &TcpStream) -> Peeked {
    // On the stack: nothing is left of it when thousands come at once.
    let mut bytes = [0; HEAD_BYTES_MAX];
    let peek = || Ok(rustix::net::recv(stream, &mut bytes[..], RecvFlags::PEEK)?.0);
    let come = stream.try_io(Interest::READABLE, peek);
    match come {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Peeked::Nothing,
        Err(_) => Peeked::Other,
        Ok(come) => match read_head(&bytes[..come]) {
            Some((length, request)) if length == come => Peeked::Stream(length, Box::new(request)),
            _ => Peeked::Other,
        },
    }
}

/// Reads a request head: its length in bytes, and the request if it asks for a stream in the most
/// ordinary way.
fn read_head(bytes: &[u8]) -> Option<(usize, Request<Body>)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(bytes).ok()? else { return None };
    let path = head.path?;
    let names_a_stream = path.split('?').next()?.ends_with("/events") && path.starts_with('/');
    if head.method != Some("GET") || head.version != Some(1) || !names_a_stream {
        return None;
    }
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = Uri::try_from(path).ok()?;
    *request.version_mut() = Version::HTTP_11;
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_bytes(field.value).ok()?;
        let ordinary = match name {
            // A body, another protocol, or an end after this answer: not ours.
            header::CONTENT_LENGTH
            | header::TRANSFER_ENCODING
            | header::UPGRADE
            | header::EXPECT => false,
            header::CONNECTION => value.as_bytes().eq_ignore_ascii_case(b"keep-alive"),
            _ => true,
        };
        if !ordinary {
            return None;
        }
        request.headers_mut().append(name, value);
    }
    Some((length, request))
}

/// Reads what was looked at, so that the connection is past the request.
fn swallow(stream: &TcpStream, length: usize) -> bool {
    let mut bytes = [0; HEAD_BYTES_MAX];
    let Some(bytes) = bytes.get_mut(..length) else { return false };
    matches!(stream.try_read(bytes), Ok(read) if read == length)
}

/// The head of a response, as the HTTP server writes it.
fn head(headers: &HeaderMap) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    head.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    let mut line = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            head.extend_from_slice(part);
        }
    };
    // The routes found an empty body in place of the stream.
    for (name, value) in headers.iter().filter(|(name, _)| *name != header::CONTENT_LENGTH) {
        line(name.as_str(), value.as_bytes());
    }
    line("transfer-encoding", b"chunked");
    line("date", httpdate::fmt_http_date(SystemTime::now()).as_bytes());
    head.extend_from_slice(b"\r\n");
    head
}

/// Those who speak over bare sockets.
pub(super) struct Speakers {
    pub(super) node: Arc<Node>,
    pub(super) reactors: Arc<Reactors>,
    pub(super) write_timeout: Duration,
}

/// Why a stream is over.
enum Over {
    /// Everything was said.
    Said,
    /// The peer is gone.
    Gone,
    /// The peer takes nothing.
    Stalled,
}

impl Speakers {
    /// Goes on with the streams that reactors give back, for ever.
    pub(super) async fn take_back(
        self: Arc<Speakers>,
        mut returned: mpsc::UnboundedReceiver<Returned>,
    ) {
        while let Some(returned) = returned.recv().await {
            let Returned { socket, open, topic, position, snapshot, lifetime } = returned;
            let node = self.node.clone();
            let connection = Connection::go_on(node, topic.name(), position, snapshot, lifetime);
            match TcpStream::from_std(socket) {
                Ok(stream) => {
                    let speaker = self.clone().speak(stream, connection, Vec::new(), open);
                    tokio::spawn(speaker);
                }
                Err(error) => tracing::warn!(%error, "a stream was lost"),
            }
        }
    }

    /// Says what there is to say, after `out`, until the stream can be parked or is over.
    pub(super) async fn speak(
        self: Arc<Speakers>,
        mut stream: TcpStream,
        mut connection: Connection,
        mut out: Vec<u8>,
        open: OpenSocket,
    ) {
        loop {
            if out.is_empty() && connection.rests() {
                match connection.park() {
                    Ok(parked) => {
                        // Without a descriptor of its own it is closed, and comes back.
                        if let Ok(socket) = stream.into_std() {
                            self.reactors.park(socket, open, parked);
                        }
                        return;
                    }
                    Err(back) => connection = *back,
                }
            }
            let over = self.say_more(&mut stream, &mut connection, &mut out).await;
            match over {
                None => {}
                Some(Over::Said) => return farewell(stream).await,
                Some(Over::Gone) => return,
                Some(Over::Stalled) => {
                    // Unread bytes are of no use to anybody: reset instead of lingering.
                    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                    return connection.stalled();
                }
            }
        }
    }

    /// Waits for the next blocks and writes them.
    async fn say_more(
        &self,
        stream: &mut TcpStream,
        connection: &mut Connection,
        out: &mut Vec<u8>,
    ) -> Option<Over> {
        let greeting = !out.is_empty();
        let block = tokio::select! {
            biased;
            block = connection.next() => block,
            over = gone(stream) => return Some(over),
        };
        let mut next = block;
        let mut over = next.is_none();
        if greeting && let Some(first) = next.take() {
            write_chunk(out, &[&first]);
            // The hello is ready mostly, and then goes out with the head.
            match connection.next().now_or_never() {
                Some(Some(hello)) => next = Some(hello),
                Some(None) => over = true,
                None => {}
            }
        }
        while let Some(block) = next {
            write_chunk(out, &[&block]);
            next = if out.len() < WRITE_BYTES { connection.ready() } else { None };
        }
        if over {
            out.extend_from_slice(LAST_CHUNK);
        }
        let written = self.write(stream, out).await;
        out.clear();
        // What a burst needed is not kept while nothing happens.
        out.shrink_to(1 << 10);
        match written {
            Ok(()) if over => Some(Over::Said),
            Ok(()) => None,
            Err(error) => Some(broken(&error)),
        }
    }

    /// Writes all bytes, as long as the peer takes some.
    async fn write(&self, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            let written = tokio::time::timeout(self.write_timeout, stream.write(left)).await;
            match written.map_err(|_| ErrorKind::TimedOut)?? {
                0 => return Err(ErrorKind::WriteZero.into()),
                written => left = &left[written..],
            }
        }
        Ok(())
    }
}

/// How a stream ended whose socket broke like this: the kernel, too, gives up peers that take
/// nothing, and it tells whoever uses the socket next.
fn broken(error: &io::Error) -> Over {
    if error.kind() == ErrorKind::TimedOut { Over::Stalled } else { Over::Gone }
}

/// Waits until the peer has closed its side, or sends what nobody asked for.
async fn gone(stream: &TcpStream) -> Over {
    let mut unread = 0;
    loop {
        if let Err(error) = stream.readable().await {
            return broken(&error);
        }
        let mut bytes = [0; 512];
        match stream.try_read(&mut bytes) {
            Ok(0) => return Over::Gone,
            Ok(read) => unread += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return broken(&error),
        }
        if unread > UNREAD_BYTES_MAX {
            return Over::Gone;
        }
    }
}

/// Ends a connection so that its last bytes arrive: a socket that is closed with unread bytes is
/// reset.
async fn farewell(mut stream: TcpStream) {
    if stream.shutdown().await.is_ok() {
        let _ = tokio::time::timeout(LINGER, gone(&stream)).await;
    }
}
