//! Streams over TLS and HTTP/1.1, past the HTTP server: it would keep twice as much memory for each as
//! TLS does. What it does here is little: a head, a body in chunks, and an end.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http_body::Body as _;
use tokio::io::AsyncWrite;

use super::socket::TlsSocket;

/// Writes the head of a response and its body, to the end of both. Slow peers and those that are gone
/// are noticed by the socket, and what is decided and not taken is bounded by the body.
pub(in crate::net) async fn carry(mut socket: TlsSocket, head: Vec<u8>, body: Body) {
    let mut response = Response { waits: VecDeque::from([head.into()]), body: Some(body) };
    if poll_fn(|context| response.poll_written(&mut socket, context)).await.is_ok() {
        let _ = poll_fn(|context| Pin::new(&mut socket).poll_shutdown(context)).await;
    }
}

struct Response {
    /// What the socket has not taken: one frame at most, or the head.
    waits: VecDeque<Bytes>,
    /// Until it has ended.
    body: Option<Body>,
}

impl Response {
    /// Ready when all is written.
    ///
    /// # Errors
    /// When the socket broke, or the body: then the transfer has to break, too.
    fn poll_written(
        &mut self,
        socket: &mut TlsSocket,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            while let Some(first) = self.waits.front_mut() {
                let parts: [io::IoSlice<'_>; 1] = [io::IoSlice::new(first)];
                let written = ready!(Pin::new(&mut *socket).poll_write_vectored(context, &parts))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                let _ = first.split_to(written.min(first.len()));
                if first.is_empty() {
                    self.waits.pop_front();
                }
            }
            // Also where nothing was written: it has a look at the peer.
            ready!(Pin::new(&mut *socket).poll_flush(context))?;
            let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
            match ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        self.waits.extend(chunk(data));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => {
                    self.body = None;
                    self.waits.push_back(Bytes::from_static(b"0\r\n\r\n"));
                }
            }
        }
    }
}

/// How many bytes are copied rather than written as a record of their own.
const COPIED_BYTES_MAX: usize = 8 << 10;

/// A chunk (RFC 9112 §7.1), in as few parts as it is worth: each part is a record of TLS, with some
/// twenty bytes and an encryption of its own.
fn chunk(data: Bytes) -> impl Iterator<Item = Bytes> {
    let head = format!("{:x}\r\n", data.len());
    if data.len() <= COPIED_BYTES_MAX {
        let mut whole = Vec::with_capacity(head.len() + data.len() + 2);
        for part in [head.as_bytes(), &data, b"\r\n"] {
            whole.extend_from_slice(part);
        }
        return Vec::from([whole.into()]).into_iter();
    }
    Vec::from([head.into(), data, Bytes::from_static(b"\r\n")]).into_iter()
}
