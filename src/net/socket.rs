//! [`TimeoutSocket`]: a socket that is given up when its peer takes too few bytes, and that is not
//! closed over what its peer still sends.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::linger::Linger;
use super::peer::SocketState;

/// What a peer must take in one write timeout while something waits for it, in bytes: one that
/// takes a byte now and then holds memory as one that takes nothing does.
pub(super) const TAKEN_BYTES_MIN: usize = 4 << 10;

/// How much of what was written may wait in the kernel before it was sent, in bytes: per socket, so
/// that thousands of readers that stopped hold little of the kernel's memory.
pub(super) const NOT_SENT_BYTES_MAX: u32 = 32 << 10;

/// A stream is slow when nothing was taken of what it says for this long.
pub(super) const SLOW_AFTER: Duration = Duration::from_millis(500);

/// A socket that is given up when its peer takes no bytes for too long, or too few (a client
/// that stopped reading for good, a proxy that hangs).
///
/// It also notices while nobody reads that its peer sends no more (`shutdown(SHUT_WR)`), or is gone.
/// The HTTP server does not read while it answers: it would take the first for the second, and give
/// up an answer that is waited for.
pub(super) struct TimeoutSocket {
    stream: TcpStream,
    write_timeout: Duration,
    state: Arc<SocketState>,
    /// Runs while something waits for the peer.
    window: Option<Box<Window>>,
    /// Once everything is written.
    linger: Option<Linger>,
    /// Something has come that nobody has read yet.
    is_unread: bool,
    /// What comes is for whoever is above this socket to understand, the end of it too.
    is_beneath_tls: bool,
}

/// A time in which a peer has to take something.
struct Window {
    ends: Pin<Box<Sleep>>,
    taken: usize,
}

impl TimeoutSocket {
    pub(super) fn new(
        stream: TcpStream,
        write_timeout: Duration,
        state: Arc<SocketState>,
    ) -> TimeoutSocket {
        TimeoutSocket {
            stream,
            write_timeout,
            state,
            window: None,
            linger: None,
            is_unread: false,
            is_beneath_tls: false,
        }
    }

    /// For TLS, which has its own way to say that a peer sends no more.
    pub(super) fn beneath_tls(self) -> TimeoutSocket {
        TimeoutSocket { is_beneath_tls: true, ..self }
    }

    /// Whether the peer has broken off, as far as it is known without reading or writing.
    ///
    /// # Errors
    /// When it has.
    pub(super) fn broken(&self) -> io::Result<()> {
        match self.stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// The kernel gives such peers up, too, and may be the first to; it tells whoever asks next.
    fn note<T>(&self, result: &io::Result<T>) {
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            self.state.stalled.store(true, Ordering::Relaxed);
        }
    }

    /// Watches the result of a write for progress.
    fn watch(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = written {
            self.note(&result);
            // A peer that took something in its window gets the rest of it, and no more.
            if let (Ok(taken), Some(window)) = (&result, &mut self.window) {
                window.taken = window.taken.saturating_add(*taken);
                if window.taken >= TAKEN_BYTES_MIN {
                    self.window = None;
                }
            }
            return Poll::Ready(result);
        }
        let timeout = self.write_timeout;
        let window = self.window.get_or_insert_with(|| {
            Box::new(Window { ends: Box::pin(tokio::time::sleep(timeout)), taken: 0 })
        });
        match window.ends.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                self.state.stalled.store(true, Ordering::Relaxed);
                // Unread bytes are of no use to anybody: reset instead of lingering.
                let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// Notices that the peer sends no more, or that the socket broke. Behind what nobody has read yet
    /// nothing can be seen.
    fn watch_peer(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.is_beneath_tls || self.is_unread || self.state.half_closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut byte = [MaybeUninit::uninit()];
        match self.stream.poll_peek(context, &mut ReadBuf::uninit(&mut byte)) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(0)) => {
                self.state.half_closed.store(true, Ordering::Relaxed);
                // Whoever is answering has a look.
                context.waker().wake_by_ref();
                Ok(())
            }
            Poll::Ready(Ok(_)) => {
                self.is_unread = true;
                Ok(())
            }
            Poll::Ready(Err(error)) => {
                let broken = Err(error);
                self.note(&broken);
                broken
            }
        }
    }

    /// Everything that waited was taken: the next wait has a window of its own.
    fn flushed(&mut self) {
        self.window = None;
    }
}

impl AsyncRead for TimeoutSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_unread = false;
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(result) = &read {
            self.note(result);
        }
        read
    }
}

impl AsyncWrite for TimeoutSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushed();
        self.watch_peer(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let TimeoutSocket { stream, state, linger, .. } = &mut *self;
        let linger = match linger {
            Some(linger) => linger,
            none => {
                ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
                none.insert(Linger::new(state.body_unread.load(Ordering::Relaxed)))
            }
        };
        linger.poll_end(stream, context).map(Ok)
    }
}
