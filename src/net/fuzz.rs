//! What fuzzing asks of this room: its readers of what the network brings, each by itself.

use std::net::IpAddr;

use axum::http::request::Parts;

use super::proxy_header::{self, Header};

/// Reads a request head as it is looked at before the HTTP server sees it: how many bytes it has, and
/// what it says, if it asks for a stream in the most ordinary way.
pub fn request_head(bytes: &[u8]) -> Option<(usize, Parts)> {
    let (length, request) = super::sniff::read_head(bytes)?;
    Some((length, request.into_parts().0))
}

/// What the beginning of a connection of a trusted proxy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// No PROXY header.
    Absent,
    /// Too few bytes to tell.
    Undecided,
    /// The beginning of one.
    Incomplete,
    /// One of so many bytes, and the client's address if it tells one.
    Complete(usize, Option<IpAddr>),
    /// It begins as one and is none.
    Malformed,
}

/// Reads the PROXY header in front of a connection.
pub fn proxy_header(bytes: &[u8]) -> ProxyHeader {
    match proxy_header::read(bytes) {
        Header::Absent => ProxyHeader::Absent,
        Header::Undecided => ProxyHeader::Undecided,
        Header::Incomplete => ProxyHeader::Incomplete,
        Header::Complete(length, client) => ProxyHeader::Complete(length, client),
        Header::Malformed => ProxyHeader::Malformed,
    }
}
