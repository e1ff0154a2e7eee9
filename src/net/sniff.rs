//! Looking at the first request head of a connection before the HTTP server reads it.
//!
//! Where the first bytes are one complete, ordinary `GET` of a stream and nothing else, the routes
//! are asked at once; if they open a stream, its bytes are consumed and the socket goes to a
//! [reactor](super::reactor). Everything else (other requests, refusals, HTTP/2, heads in pieces, odd
//! input) goes to the HTTP server, which finds all bytes still unread. What a head means is decided
//! by the same parser that the HTTP server uses, and only heads that it would take the same way are
//! taken here: there must be nothing that one of both understands otherwise.

use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::time::SystemTime;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};
use axum::response::Response;
use hyper::Request;
use rustix::net::RecvFlags;
use tokio::io::Interest;

use super::places::UnderWay;
use super::{Answer, OpenedStream, Peer};
use crate::stream::Session;
use crate::telemetry::metric;

/// The longest request head that is looked at, in bytes, and the most headers in it. Longer ones go
/// to the HTTP server.
const HEAD_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;

/// What a new connection begins with.
pub(super) enum Sniffed {
    /// A stream was opened: this is the head of its response.
    Stream(Box<Session>, Vec<u8>),
    /// Nothing has come yet.
    Nothing,
    /// It is for the HTTP server, with the answer to its first request if the routes have given it.
    Other(Option<Box<Response>>),
}

/// Looks at the first bytes of a connection.
pub(super) async fn sniff(socket: &impl FirstBytes, api: &impl Answer, peer: &Peer) -> Sniffed {
    let (length, request) = match peek(socket) {
        Peeked::Nothing => return Sniffed::Nothing,
        Peeked::Other => return Sniffed::Other(None),
        Peeked::Stream(length, request) => (length, *request),
    };
    let _under_way = UnderWay::on(&peer.state.standing);
    let response = ask(api, peer, request).await;
    // Only a 200 has one. Once the head is consumed there is no way back.
    let opened = response.extensions().get::<OpenedStream>();
    if let Some(session) = opened.and_then(OpenedStream::take)
        && consume_head(socket, length)
    {
        metric::head_sniffed("taken");
        return Sniffed::Stream(Box::new(session), response_head(response.headers()));
    }
    Sniffed::Other(Some(Box::new(response)))
}

/// What a connection with TLS begins with.
pub(super) enum SniffedOverTls {
    /// A stream was opened, by so many bytes: this is the head of its response, and its body.
    Stream(usize, Vec<u8>, Body),
    /// As without TLS.
    Other(Option<Box<Response>>),
}

/// Looks at the first bytes of a connection with TLS.
pub(super) async fn sniff_over_tls(bytes: &[u8], api: &impl Answer, peer: &Peer) -> SniffedOverTls {
    let Peeked::Stream(length, request) = peeked(bytes) else { return SniffedOverTls::Other(None) };
    let _under_way = UnderWay::on(&peer.state.standing);
    let response = ask(api, peer, *request).await;
    if response.extensions().get::<OpenedStream>().is_some() {
        metric::head_sniffed("taken");
        let head = response_head(response.headers());
        return SniffedOverTls::Stream(length, head, response.into_body());
    }
    SniffedOverTls::Other(Some(Box::new(response)))
}

async fn ask(api: &impl Answer, peer: &Peer, mut request: Request<Body>) -> Response {
    request.extensions_mut().insert(peer.clone());
    api.answer(request).await
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

fn peek(socket: &impl FirstBytes) -> Peeked {
    // On the stack: nothing is left of it when thousands come at once.
    let mut bytes = [MaybeUninit::uninit(); HEAD_BYTES_MAX];
    match socket.receive(&mut bytes, RecvFlags::PEEK, |_| true) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Peeked::Nothing,
        Err(_) => Peeked::Other,
        Ok(come) => peeked(come),
    }
}

/// What these bytes are, all that has come. Whatever stands behind a head, such as another request,
/// needs the HTTP server.
fn peeked(bytes: &[u8]) -> Peeked {
    match read_head(bytes) {
        Some((length, request)) if length == bytes.len() => {
            Peeked::Stream(length, Box::new(request))
        }
        _ => Peeked::Other,
    }
}

/// Reads a request head: its length in bytes, and the request if it asks for a stream in the most
/// ordinary way.
pub(super) fn read_head(bytes: &[u8]) -> Option<(usize, Request<Body>)> {
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
fn consume_head(socket: &impl FirstBytes, length: usize) -> bool {
    let mut bytes = [MaybeUninit::uninit(); HEAD_BYTES_MAX];
    let Some(bytes) = bytes.get_mut(..length) else { return false };
    let read = socket.receive(bytes, RecvFlags::empty(), |_| true);
    read.is_ok_and(|read| read.len() == length)
}

/// A socket whose first bytes can be looked at. Never waits: nothing there is `WouldBlock`, and so is
/// what is not enough.
pub(super) trait FirstBytes {
    fn receive<'a>(
        &self,
        bytes: &'a mut [MaybeUninit<u8>],
        flags: RecvFlags,
        is_enough: impl FnOnce(&[u8]) -> bool,
    ) -> io::Result<&'a mut [u8]>;
}

fn receive_from(
    socket: impl AsFd,
    bytes: &mut [MaybeUninit<u8>],
    flags: RecvFlags,
    is_enough: impl FnOnce(&[u8]) -> bool,
) -> io::Result<&mut [u8]> {
    let ((come, _), _) = rustix::net::recv(socket, bytes, flags)?;
    if is_enough(come) { Ok(come) } else { Err(ErrorKind::WouldBlock.into()) }
}

impl FirstBytes for std::net::TcpStream {
    fn receive<'a>(
        &self,
        bytes: &'a mut [MaybeUninit<u8>],
        flags: RecvFlags,
        is_enough: impl FnOnce(&[u8]) -> bool,
    ) -> io::Result<&'a mut [u8]> {
        receive_from(self, bytes, flags, is_enough)
    }
}

impl FirstBytes for tokio::net::TcpStream {
    /// Through the runtime: it has to learn that there is nothing, to wait for more.
    fn receive<'a>(
        &self,
        bytes: &'a mut [MaybeUninit<u8>],
        flags: RecvFlags,
        is_enough: impl FnOnce(&[u8]) -> bool,
    ) -> io::Result<&'a mut [u8]> {
        self.try_io(Interest::READABLE, || receive_from(self, bytes, flags, is_enough))
    }
}

/// The head of a response whose body is a stream, as the HTTP server writes it.
fn response_head(headers: &HeaderMap) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    head.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    let mut line = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            head.extend_from_slice(part);
        }
    };
    for (name, value) in headers {
        line(name.as_str(), value.as_bytes());
    }
    line("transfer-encoding", b"chunked");
    line("date", httpdate::fmt_http_date(SystemTime::now()).as_bytes());
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests;
