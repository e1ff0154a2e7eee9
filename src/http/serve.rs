//! Sockets: accept, HTTP/1.1 and HTTP/2 on one port, deadlines for stuck peers, and the end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Version;
use axum::response::Response;
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep};
use tower::ServiceExt;

use super::line::Line;
use super::listener::Listener;
use super::speakers::Speakers;
use super::streams::Peer;
use super::takeover::{Looked, look};
use crate::admission::{OpenSocket, Sockets};
use crate::connection::Node;
use crate::reactor::{Reactors, Returned};

/// Time to send the first request head: guards against peers that open sockets and say nothing.
const FIRST_HEAD_WITHIN: Duration = Duration::from_secs(10);

/// Time to send any later request head on the same connection, idle time included. Longer than the
/// 60 s for which nginx keeps upstream connections, so that the proxy closes first and no request
/// meets a closing socket.
const NEXT_HEAD_WITHIN: Duration = Duration::from_secs(75);

/// What one HTTP/1.1 connection buffers, in bytes: the largest request head, and what is written
/// ahead of a slow socket.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Streams on one HTTP/2 connection, and what each buffers ahead of a slow peer, in bytes.
const HTTP2_STREAMS_MAX: u32 = 250;
const HTTP2_BUFFER_BYTES_MAX: usize = 64 << 10;

/// How often an HTTP/2 peer must answer a ping, and how fast.
const HTTP2_PING_EVERY: Duration = Duration::from_secs(20);

/// How long connections may still bring their first request when the node stops; then those that
/// have brought none are closed.
const LAST_REQUESTS_WITHIN: Duration = Duration::from_millis(50);

/// What came on a connection so far.
const NOTHING: u8 = 0;
const HTTP_1: u8 = 1;
const HTTP_2: u8 = 2;

/// What sockets are held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Sockets open at the same time; more are closed at once.
    pub(crate) sockets_max: usize,
    /// A peer that takes no bytes for this long is given up.
    pub(crate) write_timeout: Duration,
    /// Silence after which every stream sends something.
    pub(crate) heartbeat: Duration,
}

/// Where streams go that leave the HTTP server, and from where they come back.
pub(crate) type Carriers = (Arc<Reactors>, mpsc::UnboundedReceiver<Returned>);

/// Accepts connections until `stop` is set, then waits until all of them are over.
pub(crate) async fn serve(
    listener: Listener,
    node: Arc<Node>,
    router: Router,
    limits: Limits,
    carriers: Option<Carriers>,
    mut stop: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    let sockets = Arc::new(Sockets::default());
    let speakers = carriers.map(|(reactors, returned)| {
        let write_timeout = limits.write_timeout;
        let speakers = Arc::new(Speakers { node, reactors, write_timeout });
        (speakers.clone(), AbortOnDrop(tokio::spawn(speakers.take_back(returned))))
    });
    let reception = Arc::new(Reception {
        router,
        limits,
        server: server(),
        speakers: speakers.as_ref().map(|(speakers, _)| speakers.clone()),
        stop: stop.clone(),
    });
    let receive = |(line, address): (Line, SocketAddr)| {
        let Some(open) = sockets.open(limits.sockets_max) else { return };
        let peer = Peer::new(address.ip());
        tokio::spawn(reception.clone().receive(line, peer, open, graceful.watcher()));
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok(accepted) => receive(accepted),
            Err(error) => {
                // Out of descriptors, mostly. They come back when streams end; do not spin.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // What the kernel has accepted already is answered, not reset.
    std::iter::from_fn(|| listener.accept_waiting()).for_each(receive);
    while let Some(Ok(accepted)) = listener.accept().now_or_never() {
        receive(accepted);
    }
    drop(listener);
    tokio::time::sleep(LAST_REQUESTS_WITHIN).await;
    graceful.shutdown().await;
    sockets.all_closed().await;
}

/// Ends a task together with what it works for.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What all new connections meet.
struct Reception {
    router: Router,
    limits: Limits,
    server: auto::Builder<TokioExecutor>,
    speakers: Option<Arc<Speakers>>,
    stop: watch::Receiver<bool>,
}

impl Reception {
    async fn receive(
        self: Arc<Reception>,
        mut line: Line,
        peer: Peer,
        open: OpenSocket,
        watcher: Watcher,
    ) {
        let mut answer = None;
        if let Some(speakers) = &self.speakers {
            let first = tokio::time::timeout(FIRST_HEAD_WITHIN, self.first(&mut line, &peer));
            match first.await {
                Ok(Looked::Stream(connection, head)) => {
                    let speaker = speakers.clone().speak(line, *connection, head, open);
                    let mut speaker = Box::pin(speaker);
                    // Mostly it has nothing to wait for, and is over. Otherwise it gets a task of
                    // its own: this one is larger.
                    if speaker.as_mut().now_or_never().is_none() {
                        tokio::spawn(speaker);
                    }
                    return;
                }
                Ok(Looked::Other(given)) => answer = given,
                Ok(Looked::Nothing) | Err(_) => return,
            }
        }
        match line.into_watched() {
            // Boxed: it is large, and most connections never need it.
            Ok(stream) => Box::pin(self.serve(stream, peer, answer, watcher)).await,
            Err(error) => tracing::warn!(%error, "a socket cannot be watched"),
        }
        drop(open);
    }

    /// Waits for the first bytes and looks at them; nothing if the peer is gone. If this node stops
    /// first, the HTTP server knows how to end a connection that has not begun.
    async fn first(&self, line: &mut Line, peer: &Peer) -> Looked {
        let mut stop = None;
        loop {
            match look(line, &self.router, peer).await {
                Looked::Nothing => {}
                looked => return looked,
            }
            let stop = stop.get_or_insert_with(|| self.stop.clone());
            let stream = match line.watched() {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a socket cannot be watched");
                    return Looked::Nothing;
                }
            };
            tokio::select! {
                readable = stream.readable() => {
                    if readable.is_err() {
                        return Looked::Nothing;
                    }
                }
                _ = stop.wait_for(|stop| *stop) => return Looked::Other(None),
            }
        }
    }

    /// Leaves a connection to the HTTP server; `answer` is given to its first request if it is there
    /// already.
    async fn serve(
        &self,
        stream: TcpStream,
        peer: Peer,
        answer: Option<Box<Response>>,
        watcher: Watcher,
    ) {
        let Limits { write_timeout, heartbeat, .. } = self.limits;
        let socket = Socket::new(stream, write_timeout, peer.stalled.clone());
        let began = Arc::new(AtomicU8::new(NOTHING));
        let answer = Mutex::new(answer);
        let service = {
            let (router, began, peer) = (self.router.clone(), began.clone(), peer.clone());
            hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
                let version = if request.version() == Version::HTTP_2 { HTTP_2 } else { HTTP_1 };
                began.store(version, Ordering::Relaxed);
                let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
                let (router, peer) = (router.clone(), peer.clone());
                async move {
                    if let Some(answer) = answer {
                        return Ok(*answer);
                    }
                    let mut request = request.map(Body::new);
                    request.extensions_mut().insert(peer);
                    router.oneshot(request).await
                }
            })
        };
        let connection = self.server.serve_connection(TokioIo::new(socket), service).into_owned();
        let mut connection = std::pin::pin!(watcher.watch(connection));
        let first = tokio::time::timeout(FIRST_HEAD_WITHIN, connection.as_mut()).await;
        // A connection that has not brought a request by now is dropped, whatever it sent.
        match (first, began.load(Ordering::Relaxed)) {
            (Ok(_), _) | (Err(_), NOTHING) => {}
            (Err(_), HTTP_2) => tokio::select! {
                _ = connection => {}
                () = peer.end_unread_streams(heartbeat + write_timeout) => {}
            },
            (Err(_), _) => {
                let _ = connection.await;
            }
        }
    }
}

fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(NEXT_HEAD_WITHIN)
        .max_buf_size(BUFFER_BYTES_MAX);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_send_buf_size(HTTP2_BUFFER_BYTES_MAX)
        .max_header_list_size(BUFFER_BYTES_MAX as u32)
        .keep_alive_interval(HTTP2_PING_EVERY)
        .keep_alive_timeout(HTTP2_PING_EVERY);
    server
}

/// A socket that is given up when its peer takes no bytes for too long (a client that stopped
/// reading for good, a proxy that hangs).
struct Socket {
    stream: TcpStream,
    write_timeout: Duration,
    stalled: Arc<AtomicBool>,
    /// Runs while the peer takes nothing.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    fn new(stream: TcpStream, write_timeout: Duration, stalled: Arc<AtomicBool>) -> Socket {
        Socket { stream, write_timeout, stalled, deadline: None }
    }

    /// The kernel gives such peers up, too, and may be the first to; it tells whoever asks next.
    fn note<T>(&self, result: &io::Result<T>) {
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            self.stalled.store(true, Ordering::Relaxed);
        }
    }

    /// Watches the result of a write for progress.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(result) = &written {
            self.deadline = None;
            self.note(result);
            return written;
        }
        let at = Instant::now() + self.write_timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        match deadline.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                self.stalled.store(true, Ordering::Relaxed);
                // Unread bytes are of no use to anybody: reset instead of lingering.
                let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(result) = &read {
            self.note(result);
        }
        read
    }
}

impl AsyncWrite for Socket {
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
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
