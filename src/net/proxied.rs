//! Connections that a trusted proxy brings: whose they are stands in front of their first byte.
//!
//! The header is taken out of the socket, and nothing behind it, so that whoever looks at the
//! connection next finds its first request there. [`proxy_header`](super::proxy_header) knows what a
//! header looks like.

use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::net::{IpAddr, TcpStream};

use rustix::net::RecvFlags;
use tokio::io::Interest;

use super::proxy_header::{self, Header};
use super::sniff::FirstBytes;

/// What is looked at together, in bytes: more than nearly all headers have.
const PART_BYTES: usize = 512;

/// Waits for the PROXY header of a connection, or for bytes that are none, and takes it away. The
/// client that it names, if there is one and it names any.
///
/// # Errors
/// `InvalidData` when it is no header and nothing else either; else what is wrong with the socket.
pub(super) async fn take_header(socket: TcpStream) -> io::Result<(TcpStream, Option<IpAddr>)> {
    let mut header = Taken(Vec::new());
    // It comes with the first segment, as good as always.
    if let Some(client) = header.go_on(&socket, false)? {
        return Ok((socket, client));
    }
    let watched = tokio::net::TcpStream::from_std(socket)?;
    loop {
        let is_last = watched.ready(Interest::READABLE).await?.is_read_closed();
        if let Some(client) = header.go_on(&watched, is_last)? {
            return Ok((watched.into_std()?, client));
        }
    }
}

/// What was taken of a header that is not whole yet.
struct Taken(Vec<u8>);

impl Taken {
    /// Takes what is there; the client that is named once all of it is. Nothing more comes behind what
    /// `is_last`.
    fn go_on(
        &mut self,
        socket: &impl FirstBytes,
        is_last: bool,
    ) -> io::Result<Option<Option<IpAddr>>> {
        loop {
            let before = self.0.len();
            let mut part = [MaybeUninit::uninit(); PART_BYTES];
            // As long as it can be the beginning of a request, it is left where it is.
            let is_decided =
                |come: &[u8]| before > 0 || proxy_header::read(come) != Header::Undecided;
            let is_enough = |come: &[u8]| is_last || come.is_empty() || is_decided(come);
            match socket.receive(&mut part, RecvFlags::PEEK, is_enough) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
                Ok([]) if before == 0 => return Ok(Some(None)),
                Ok([]) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(come) => self.0.extend_from_slice(come),
            }
            let (count, client) = match proxy_header::read(&self.0) {
                Header::Absent | Header::Undecided => return Ok(Some(None)),
                Header::Malformed => return Err(ErrorKind::InvalidData.into()),
                Header::Incomplete => (self.0.len(), None),
                Header::Complete(length, client) => (length, Some(client)),
            };
            // It was there a moment ago.
            let Some(part) = part.get_mut(..count - before) else {
                return Err(ErrorKind::InvalidData.into());
            };
            let expected = part.len();
            let taken = socket.receive(part, RecvFlags::empty(), |_| true)?;
            if taken.len() != expected {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if client.is_some() {
                return Ok(client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    /// Two ends of a connection, the first as it was accepted.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nodelay(true).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        (socket, client)
    }

    const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n";
    const BINARY: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xc0\0\x02\x01\x01\x01\x01\x01\0\x01\0\x02\x04\0\0";

    /// What is taken for the client when the bytes come in parts, and what is found behind.
    async fn taken(parts: &[&[u8]]) -> io::Result<(Option<IpAddr>, Vec<u8>)> {
        let (socket, mut client) = connection();
        let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
        let sender = std::thread::spawn(move || {
            for part in parts {
                client.write_all(&part).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let taken = tokio::time::timeout(std::time::Duration::from_secs(20), take_header(socket));
        let taken = taken.await.unwrap();
        sender.join().unwrap();
        let (mut socket, client) = taken?;
        socket.set_nonblocking(false).unwrap();
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).unwrap();
        Ok((client, rest))
    }

    #[tokio::test]
    async fn the_header_is_taken_and_the_request_behind_it_is_left() {
        let request = b"GET / HTTP/1.1\r\n\r\n";
        for header in [LINE, BINARY] {
            let whole = [header, request].concat();
            let bytes: Vec<&[u8]> = whole.chunks(1).collect();
            for parts in [&[&*whole][..], &bytes, &[header, request]] {
                let (client, rest) = taken(parts).await.unwrap();
                assert_eq!(client, Some("192.0.2.1".parse().unwrap()));
                assert_eq!(rest, request);
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_left_as_it_is() {
        for parts in [
            &[&b"GET / HTTP/1.1\r\n"[..]][..],
            &[b"P", b"OST / HTTP/1.1\r\n"],
            &[b"\r", b"\nGET / HTTP/1.1\r\n"],
            &[b"P", b"R", b"O"],
            &[],
        ] {
            let (client, rest) = taken(parts).await.unwrap();
            assert_eq!((client, rest), (None, parts.concat()));
        }
    }

    #[tokio::test]
    async fn half_a_header_and_a_wrong_one_are_errors() {
        for (parts, kind) in [
            (&[&LINE[..20]][..], ErrorKind::UnexpectedEof),
            (&[&BINARY[..20]], ErrorKind::UnexpectedEof),
            (&[b"PROXY TCP", b"5 x\r\n"], ErrorKind::InvalidData),
            (&[b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0"], ErrorKind::InvalidData),
        ] {
            assert_eq!(taken(parts).await.unwrap_err().kind(), kind, "{parts:?}");
        }
    }
}
