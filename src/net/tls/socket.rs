//! [`TlsSocket`]: what the HTTP server sees of a connection with TLS.
//!
//! Beneath it is a [`TimeoutSocket`], which gives slow peers up and lingers, whatever the bytes mean.
//! That a peer sends no more is another matter: it says so within TLS (`close_notify`, RFC 8446
//! §6.1), and as long as nobody reads, nobody would know.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::server::TlsStream;

use super::super::peer::SocketState;
use super::super::socket::TimeoutSocket;

/// A connection with TLS.
pub(in crate::net) struct TlsSocket {
    stream: Box<TlsStream<TimeoutSocket>>,
    state: Arc<SocketState>,
    /// Something has come that nobody has read yet.
    is_unread: bool,
    /// Once the peer has sent all: when to look next whether it is still there.
    looks_next: Option<Pin<Box<Sleep>>>,
}

/// How often it is asked whether a peer that sends no more is still there. After its end the runtime
/// tells nobody that it broke off.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

impl TlsSocket {
    pub(super) fn new(stream: TlsStream<TimeoutSocket>, state: Arc<SocketState>) -> TlsSocket {
        TlsSocket { stream: Box::new(stream), state, is_unread: false, looks_next: None }
    }

    /// What has come and was not read, once something has; empty at the end.
    ///
    /// # Errors
    /// When the connection broke.
    pub(in crate::net) async fn first_bytes(&mut self) -> io::Result<&[u8]> {
        self.stream.fill_buf().await
    }

    /// So many of them are read.
    pub(in crate::net) fn consume(&mut self, count: usize) {
        Pin::new(&mut self.stream).consume(count);
    }

    /// Whether HTTP/2 was agreed on.
    pub(in crate::net) fn is_http_2(&self) -> bool {
        self.stream.get_ref().1.alpn_protocol() == Some(b"h2")
    }

    /// Notices that the peer sends no more, or that the socket broke. At most what fits into one record
    /// (16 KiB) is read for it. A peer whose end came without a word is taken for one that sends no
    /// more: what it sent has lengths of its own.
    fn watch_peer(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.state.half_closed.load(Ordering::Relaxed) {
            return self.look(context);
        }
        if self.is_unread {
            return Ok(());
        }
        match Pin::new(&mut self.stream).poll_fill_buf(context) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok([_, ..])) => {
                self.is_unread = true;
                Ok(())
            }
            Poll::Ready(Err(error)) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
            Poll::Ready(_) => {
                self.state.half_closed.store(true, Ordering::Relaxed);
                // Whoever is answering has a look.
                context.waker().wake_by_ref();
                Ok(())
            }
        }
    }
}

impl TlsSocket {
    /// Looks whether a peer is there that has sent all, now and then as long as somebody waits.
    fn look(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        self.stream.get_ref().0.broken()?;
        let timer = self.looks_next.get_or_insert_with(|| Box::pin(sleep(LOOK_INTERVAL)));
        while timer.as_mut().poll(context).is_ready() {
            timer.as_mut().reset(Instant::now() + LOOK_INTERVAL);
        }
        Ok(())
    }
}

impl AsyncRead for TlsSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_unread = false;
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Poll::Ready(Ok(()))
            }
            read => read,
        }
    }
}

impl AsyncWrite for TlsSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch_peer(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
