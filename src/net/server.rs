//! Accepting connections: what each begins with decides who carries it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::FutureExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::http::HttpServer;
use super::listener::Listener;
use super::reactor::Reactors;
use super::sniff::{Sniffed, sniff};
use super::{Limits, Peer};
use crate::admission::{OpenSocket, Sockets};
use crate::backoff::{Backoff, Rarely};
use crate::telemetry::metric;

/// Time to send the first request head: guards against peers that open sockets and say nothing.
const FIRST_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long connections may still bring their first request when the node stops; then those that
/// have brought none are closed.
const LAST_REQUESTS_TIMEOUT: Duration = Duration::from_millis(50);

/// How long to wait before accepting again when the process has no descriptors left. They come back
/// when streams end.
const ACCEPT_RETRY_FIRST: Duration = Duration::from_millis(20);
const ACCEPT_RETRY_LONGEST: Duration = Duration::from_millis(500);

/// Accepts connections until `stop` is set, then waits until all of them are over. Without
/// `reactors` the HTTP server carries all streams.
pub(crate) async fn serve(
    listener: Listener,
    router: Router,
    limits: Limits,
    reactors: Option<Arc<Reactors>>,
    mut stop: watch::Receiver<bool>,
) {
    let (end_idle, ending) = watch::channel(false);
    let sockets = Sockets::new(limits.sockets_max);
    let handler = Arc::new(ConnectionHandler {
        http: HttpServer::new(router.clone(), limits),
        router,
        reactors,
        stop: stop.clone(),
    });
    let handle = |(socket, address): (TcpStream, SocketAddr)| {
        let Some(open) = sockets.open() else { return };
        let peer = Peer::new(address.ip());
        tokio::spawn(handler.clone().handle(socket, peer, open, ending.clone()));
    };
    let mut backoff = Backoff::new(ACCEPT_RETRY_FIRST, ACCEPT_RETRY_LONGEST);
    let mut line = Rarely::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok(accepted) => {
                backoff.reset();
                handle(accepted);
            }
            Err(error) => {
                metric::accept_failed();
                if line.is_due() {
                    tracing::warn!(%error, "cannot accept connections");
                }
                tokio::time::sleep(backoff.wait()).await;
            }
        }
    }
    // What the kernel has accepted already is answered, not reset.
    std::iter::from_fn(|| listener.accept_waiting()).for_each(handle);
    while let Some(Ok(accepted)) = listener.accept().now_or_never() {
        handle(accepted);
    }
    drop(listener);
    tokio::time::sleep(LAST_REQUESTS_TIMEOUT).await;
    end_idle.send_replace(true);
    sockets.all_closed().await;
}

/// What all new connections meet.
struct ConnectionHandler {
    http: HttpServer,
    router: Router,
    reactors: Option<Arc<Reactors>>,
    stop: watch::Receiver<bool>,
}

impl ConnectionHandler {
    async fn handle(
        self: Arc<ConnectionHandler>,
        socket: TcpStream,
        peer: Peer,
        open: OpenSocket,
        ending: watch::Receiver<bool>,
    ) {
        let first_head_by = Instant::now() + FIRST_HEAD_TIMEOUT;
        let mut answer = None;
        if let Some(reactors) = &self.reactors {
            let first = self.sniff_first_request(&socket, &peer, &open);
            match tokio::time::timeout_at(first_head_by, first).await {
                Ok(Sniffed::Stream(session, head)) => {
                    match socket.into_std() {
                        Ok(socket) => reactors.adopt(socket, open, *session, head),
                        Err(error) => tracing::warn!(%error, "a stream was lost"),
                    }
                    return;
                }
                Ok(Sniffed::Other(given)) => answer = given,
                Ok(Sniffed::Nothing) | Err(_) => return,
            }
            metric::head_sniffed("left");
        }
        // Boxed: it is large, and most connections never need it.
        Box::pin(self.http.serve(socket, peer, answer, first_head_by, &open, ending)).await;
    }

    /// Waits for the first bytes and looks at them; nothing if the peer is gone, or has to go. If
    /// this node stops first, the HTTP server knows how to end a connection that has not begun.
    async fn sniff_first_request(
        &self,
        socket: &TcpStream,
        peer: &Peer,
        open: &OpenSocket,
    ) -> Sniffed {
        let mut stop = None;
        loop {
            match sniff(socket, &self.router, peer).await {
                Sniffed::Nothing => {}
                sniffed => return sniffed,
            }
            let stop = stop.get_or_insert_with(|| self.stop.clone());
            tokio::select! {
                readable = socket.readable() => {
                    if readable.is_err() {
                        return Sniffed::Nothing;
                    }
                }
                _ = stop.wait_for(|stop| *stop) => return Sniffed::Other(None),
                () = open.crowded_out() => return Sniffed::Nothing,
            }
        }
    }
}
