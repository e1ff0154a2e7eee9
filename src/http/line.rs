//! [`Line`]: a socket that the runtime watches, or does not yet.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// A connected socket that does not block. The runtime watches those that it accepted. One that a
/// reactor gave back, or that is taken in while the node stops, it watches only once there is
/// something to wait for; the former mostly returns to its reactor before.
pub(super) struct Line {
    /// One of both, unless registering failed.
    bare: Option<std::net::TcpStream>,
    watched: Option<TcpStream>,
}

impl Line {
    /// Takes a socket that does not block.
    pub(super) fn new(socket: std::net::TcpStream) -> Line {
        Line { bare: Some(socket), watched: None }
    }

    /// Takes a socket that the runtime watches already.
    pub(super) fn of_watched(stream: TcpStream) -> Line {
        Line { bare: None, watched: Some(stream) }
    }

    /// The socket as the runtime knows it.
    ///
    /// # Errors
    /// When the system has no room to watch one more.
    pub(super) fn watched(&mut self) -> io::Result<&mut TcpStream> {
        if let Some(socket) = self.bare.take() {
            self.watched = Some(TcpStream::from_std(socket)?);
        }
        self.watched.as_mut().ok_or_else(|| ErrorKind::NotConnected.into())
    }

    /// As [`watched`](Line::watched), for good.
    ///
    /// # Errors
    /// As there.
    pub(super) fn into_watched(mut self) -> io::Result<TcpStream> {
        self.watched()?;
        self.watched.ok_or_else(|| ErrorKind::NotConnected.into())
    }

    /// The socket by itself.
    ///
    /// # Errors
    /// When the runtime does not let go of it.
    pub(super) fn into_bare(self) -> io::Result<std::net::TcpStream> {
        match (self.bare, self.watched) {
            (Some(socket), _) => Ok(socket),
            (None, Some(stream)) => stream.into_std(),
            (None, None) => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// The socket, for calls that do not wait.
    ///
    /// # Errors
    /// When registering it failed before.
    pub(super) fn socket(&self) -> io::Result<BorrowedFd<'_>> {
        match (&self.bare, &self.watched) {
            (Some(socket), _) => Ok(socket.as_fd()),
            (None, Some(stream)) => Ok(stream.as_fd()),
            (None, None) => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// What has come and was not read, as far as it fits; it stays unread.
    ///
    /// # Errors
    /// `WouldBlock` if nothing has come; whatever broke the socket.
    pub(super) fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.receive(bytes, RecvFlags::PEEK)
    }

    /// Reads what has come.
    ///
    /// # Errors
    /// As [`peek`](Line::peek).
    pub(super) fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.receive(bytes, RecvFlags::empty())
    }

    fn receive(&self, bytes: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        let mut receive = || Ok(rustix::net::recv(self.socket()?, &mut *bytes, flags)?.0);
        match &self.watched {
            // Through the runtime: it has to learn that there is nothing, to wait for more.
            Some(stream) => stream.try_io(tokio::io::Interest::READABLE, receive),
            None => receive(),
        }
    }

    /// Writes all bytes, as long as the peer takes some every `patience`.
    ///
    /// # Errors
    /// `TimedOut` when it does not; whatever broke the socket.
    pub(super) async fn write(&mut self, bytes: &[u8], patience: Duration) -> io::Result<()> {
        let mut left = bytes;
        if self.bare.is_some() {
            match rustix::net::send(self.socket()?, left, SendFlags::NOSIGNAL) {
                Ok(written) => left = &left[written..],
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        while !left.is_empty() {
            let stream = self.watched()?;
            let written = tokio::time::timeout(patience, stream.write(left)).await;
            match written.map_err(|_| ErrorKind::TimedOut)?? {
                0 => return Err(ErrorKind::WriteZero.into()),
                written => left = &left[written..],
            }
        }
        Ok(())
    }

    /// Waits for `future`; `Err` with what `other` says if that comes first. What is ready already
    /// is had without watching the socket.
    pub(super) async fn first_of<T, O>(
        &mut self,
        future: impl Future<Output = T>,
        other: impl AsyncFnOnce(&TcpStream) -> O,
    ) -> io::Result<Result<T, O>> {
        let mut future = std::pin::pin!(future);
        if let Some(ready) = futures_util::FutureExt::now_or_never(future.as_mut()) {
            return Ok(Ok(ready));
        }
        let stream = self.watched()?;
        Ok(tokio::select! {
            biased;
            ready = future => Ok(ready),
            other = other(stream) => Err(other),
        })
    }
}
