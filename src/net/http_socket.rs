//! [`HttpSocket`]: what the HTTP server reads from and writes to, with TLS or without.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::http2_frames::FrameBudget;
use super::socket::TimeoutSocket;
use super::tls::socket::TlsSocket;

/// A connection that the HTTP server serves. One type for all, so that there is one HTTP server.
pub(super) struct HttpSocket {
    bytes: Bytes,
    frames: FrameBudget,
}

enum Bytes {
    Plain(TimeoutSocket),
    Tls(TlsSocket),
}

impl From<TimeoutSocket> for HttpSocket {
    fn from(socket: TimeoutSocket) -> HttpSocket {
        HttpSocket { bytes: Bytes::Plain(socket), frames: FrameBudget::default() }
    }
}

impl From<TlsSocket> for HttpSocket {
    fn from(socket: TlsSocket) -> HttpSocket {
        HttpSocket { bytes: Bytes::Tls(socket), frames: FrameBudget::default() }
    }
}

/// The same question to whichever it is.
macro_rules! either {
    ($self:ident, $socket:ident => $answer:expr) => {
        match &mut $self.bytes {
            Bytes::Plain($socket) => $answer,
            Bytes::Tls($socket) => $answer,
        }
    };
}

impl AsyncRead for HttpSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = either!(self, socket => Pin::new(socket).poll_read(context, buffer));
        if let (Poll::Ready(Ok(())), Some(come)) = (&read, buffer.filled().get(before..)) {
            self.frames.spend(come)?;
        }
        read
    }
}

impl AsyncWrite for HttpSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, socket => Pin::new(socket).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, socket => Pin::new(socket).poll_write_vectored(context, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.bytes {
            Bytes::Plain(socket) => socket.is_write_vectored(),
            Bytes::Tls(socket) => socket.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, socket => Pin::new(socket).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, socket => Pin::new(socket).poll_shutdown(context))
    }
}
