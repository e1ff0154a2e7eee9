//! Streams leave the HTTP server once they are decided.
//!
//! A plain HTTP/1.1 connection is looked at before the HTTP server reads from it. Where its first
//! bytes are one complete, ordinary `GET` of a stream, the routes decide as always; on yes, the
//! stream goes on over the bare socket: [speakers](super::speakers) say what there is to say, and once it has
//! caught up it is parked with a [reactor](crate::reactor). Everything else (other requests, errors,
//! HTTP/2, heads in pieces, odd input) goes to the HTTP server, which finds all bytes still unread.
//! So there is one place that reads requests, one that decides, and both ways send the same bytes.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::response::Response;
use hyper::Request;
use tower::ServiceExt;

use super::line::Line;
use super::streams::Peer;
use crate::connection::Connection;

/// The longest request head that is looked at, in bytes, and the most headers in it. Longer ones go
/// to the HTTP server.
const HEAD_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;

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
pub(super) async fn look(line: &Line, router: &Router, peer: &Peer) -> Looked {
    let (length, mut request) = match peek(line) {
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
        Some(connection) if response.status() == StatusCode::OK && swallow(line, length) => {
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

fn peek(line: &Line) -> Peeked {
    // On the stack: nothing is left of it when thousands come at once.
    let mut bytes = [0; HEAD_BYTES_MAX];
    match line.peek(&mut bytes) {
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
fn swallow(line: &Line, length: usize) -> bool {
    let mut bytes = [0; HEAD_BYTES_MAX];
    let Some(bytes) = bytes.get_mut(..length) else { return false };
    matches!(line.try_read(bytes), Ok(read) if read == length)
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
