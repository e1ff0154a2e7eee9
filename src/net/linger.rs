//! [`Linger`]: how a socket is closed whose peer may still be sending.
//!
//! A request can be refused before its body has come. To close the socket then would reset it as soon
//! as more arrives, and take the answer away from a client that reads only after it has sent
//! everything, as many do. So after the last byte of ours, what still comes is taken and thrown away
//! for a while. (No request is read any more: the peer was told that this is the end.)

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long a peer may go on sending: as long as a body may take that is accepted.
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one is waited for that sends nothing.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(2);

/// What is thrown away at most, in bytes: several of the largest bodies that anybody sends by
/// mistake, and some hundredths of a second.
pub(super) const BYTES_MAX: usize = 64 << 20;

/// What is read at once, in bytes.
const READ_BYTES: usize = 16 << 10;

/// A socket between its last written byte and its end.
pub(super) struct Linger {
    /// More will come, although there may be nothing now.
    is_awaited: bool,
    bytes_left: usize,
    ends_at: Instant,
    silent_since: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Linger {
    /// Begins, after everything was written. Where nothing `is_awaited`, only what is there already
    /// is a sign of more.
    pub(super) fn new(is_awaited: bool) -> Linger {
        let now = Instant::now();
        Linger {
            is_awaited,
            bytes_left: BYTES_MAX,
            ends_at: now + LINGER_TIMEOUT,
            silent_since: now,
            timer: None,
        }
    }

    /// Ready when the socket can be closed.
    pub(super) fn poll_end<S: AsyncRead + Unpin>(
        &mut self,
        socket: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let mut scratch = [MaybeUninit::uninit(); READ_BYTES];
        loop {
            let mut buffer = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut *socket).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let Some(left) = self.bytes_left.checked_sub(buffer.filled().len()) else {
                        return Poll::Ready(());
                    };
                    self.bytes_left = left;
                    self.is_awaited = true;
                    self.silent_since = Instant::now();
                    if self.silent_since >= self.ends_at {
                        return Poll::Ready(());
                    }
                }
                // It has ended, or is gone.
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if !self.is_awaited => return Poll::Ready(()),
                Poll::Pending => return self.poll_timer(context),
            }
        }
    }

    /// Waits until too little has come for too long.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let due = self.ends_at.min(self.silent_since + SILENCE_TIMEOUT);
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            // It was set when less had come: then it rings early, and is set again.
            ready!(timer.as_mut().poll(context));
            timer.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// How long a socket lingers over what its peer does, in time that passes only in waiting.
    async fn lingers<F: Future<Output = ()> + Send + 'static>(
        is_awaited: bool,
        peer: impl FnOnce(tokio::io::DuplexStream) -> F,
    ) -> Duration {
        let (mut near, far) = tokio::io::duplex(64 << 10);
        tokio::spawn(peer(far));
        tokio::task::yield_now().await;
        let began_at = Instant::now();
        let mut linger = Linger::new(is_awaited);
        std::future::poll_fn(|context| linger.poll_end(&mut near, context)).await;
        began_at.elapsed()
    }

    async fn send_every(mut far: tokio::io::DuplexStream, pause: Duration, bytes: usize) {
        let bytes = vec![0; bytes];
        while far.write_all(&bytes).await.is_ok() {
            tokio::time::sleep(pause).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_still_comes_is_waited_for_in_bounds() {
        let silent = lingers(true, |far| async move {
            let _open = far;
            std::future::pending::<()>().await;
        });
        assert_eq!(silent.await.as_secs(), SILENCE_TIMEOUT.as_secs());
        let slow = lingers(true, |far| send_every(far, Duration::from_secs(1), 10)).await;
        assert_eq!(slow.as_secs(), LINGER_TIMEOUT.as_secs());
        let large = lingers(false, |far| send_every(far, Duration::ZERO, 64 << 10)).await;
        assert!(large < SILENCE_TIMEOUT, "{large:?}");
        let ends = lingers(true, |mut far| async move {
            far.write_all(&[0; 1 << 20]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        });
        assert_eq!(ends.await.as_millis(), 500);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_peer_that_has_nothing_to_send() {
        let silent = lingers(false, |far| async move {
            let _open = far;
            std::future::pending::<()>().await;
        });
        assert_eq!(silent.await, Duration::ZERO);
    }
}
