//! Accepting connections: what each begins with decides who carries it.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use tokio::sync::watch;
use tokio::time::Instant;

use super::http::HttpServer;
use super::listener::Listener;
use super::places::{Place, Places};
use super::proxied::take_header;
use super::reactor::Reactors;
use super::sniff::{Sniffed, SniffedOverTls, sniff, sniff_over_tls};
use super::socket::TimeoutSocket;
use super::sockets::Sockets;
use super::tls::Tls;
use super::tls::socket::TlsSocket;
use super::tls::stream::carry;
use super::unread::UnreadStreams;
use super::{Answer, Entrance, Limits, Peer};
use crate::address::plain;
use crate::admission::per_address::Counted;
use crate::backoff::{Backoff, Rarely};
use crate::stream::Session;
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
    api: impl Answer,
    limits: Limits,
    entrance: Entrance,
    reactors: Option<Arc<Reactors>>,
    stop: watch::Receiver<bool>,
) {
    let unread = Arc::new(UnreadStreams::new(limits.heartbeat + limits.write_timeout));
    let places = Places::new(limits.sockets_max);
    let handler = Arc::new(ConnectionHandler {
        http: HttpServer::new(api.clone()),
        api,
        limits,
        tls: entrance.tls,
        reactors,
        sockets: Sockets::new(limits.sockets_per_address_max, entrance.trusted),
        stop: stop.clone(),
    });
    tokio::select! {
        () = accept(listener, &handler, &places, &unread, stop) => {}
        never = unread.look_after() => match never {},
        never = places.end_idle() => match never {},
    }
}

/// Accepts connections; those that the HTTP server serves add their streams to `unread`.
async fn accept(
    listener: Listener,
    handler: &Arc<ConnectionHandler<impl Answer>>,
    places: &Arc<Places>,
    unread: &Arc<UnreadStreams>,
    mut stop: watch::Receiver<bool>,
) {
    let (end_idle, ending) = watch::channel(false);
    let peer = |address| Peer::new(address, handler.sockets.trusted().clone(), unread.clone());
    let handle = |socket: TcpStream, peer: Peer, mut place: Place, counted: Option<Counted>| {
        place.count(counted);
        tokio::spawn(handler.clone().handle(socket, peer, place, ending.clone()));
    };
    let mut backoff = Backoff::new(ACCEPT_RETRY_FIRST, ACCEPT_RETRY_LONGEST);
    let mut line = Rarely::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((socket, address)) => {
                backoff.reset();
                let peer = peer(address.ip());
                let Ok(counted) = handler.sockets.count(peer.address) else { continue };
                // Whoever else comes waits with the kernel.
                if let Some(place) = places.open(&peer.state.standing).await {
                    handle(socket, peer, place, counted);
                }
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
    while let Some((socket, address)) = listener.accept_waiting() {
        let peer = peer(address.ip());
        let Ok(counted) = handler.sockets.count(peer.address) else { continue };
        if let Some(place) = places.try_open(&peer.state.standing) {
            handle(socket, peer, place, counted);
        }
    }
    drop(listener);
    tokio::time::sleep(LAST_REQUESTS_TIMEOUT).await;
    end_idle.send_replace(true);
    places.all_free().await;
}

/// What all new connections meet.
struct ConnectionHandler<A> {
    http: HttpServer<A>,
    api: A,
    limits: Limits,
    tls: Option<Tls>,
    reactors: Option<Arc<Reactors>>,
    sockets: Sockets,
    stop: watch::Receiver<bool>,
}

impl<A: Answer> ConnectionHandler<A> {
    async fn handle(
        self: Arc<ConnectionHandler<A>>,
        socket: TcpStream,
        peer: Peer,
        place: Place,
        ending: watch::Receiver<bool>,
    ) {
        let state = peer.state.clone();
        tokio::select! {
            () = self.serve(socket, peer, place, ending) => {}
            () = state.standing.has_to_go() => {}
        }
    }

    async fn serve(
        self: Arc<ConnectionHandler<A>>,
        mut socket: TcpStream,
        mut peer: Peer,
        mut place: Place,
        mut ending: watch::Receiver<bool>,
    ) {
        let first_head_by = Instant::now() + FIRST_HEAD_TIMEOUT;
        if self.sockets.trusted().contain(peer.address) {
            // Boxed: few connections need it.
            let proxied = Box::pin(self.proxied(socket, &mut peer, &mut place));
            let proxied = tokio::select! {
                proxied = tokio::time::timeout_at(first_head_by, proxied) => proxied,
                _ = ending.wait_for(|ending| *ending) => return,
            };
            match proxied {
                Ok(Some(rest)) => socket = rest,
                Ok(None) | Err(_) => return,
            }
        }
        if let Some(tls) = &self.tls {
            let serve = self.serve_tls(tls, socket, peer, first_head_by, ending);
            return Box::pin(serve).await;
        }
        let first = self.first_request(socket, &peer);
        match tokio::time::timeout_at(first_head_by, first).await {
            Ok(Ok(First::Stream { reactors, socket, session, head })) => {
                reactors.adopt(socket, place.for_a_stream(), *session, head);
            }
            Ok(Ok(First::Http { socket, answer })) => {
                // Boxed: it is large, and most connections never need it.
                let socket = self.held_to_limits(socket, &peer).into();
                let serve = self.http.serve(socket, peer, answer, first_head_by, ending);
                Box::pin(serve).await;
            }
            Ok(Ok(First::Nothing)) | Err(_) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a connection was lost"),
        }
    }

    /// Speaks TLS, and carries a stream that is the first request; leaves the rest to the HTTP server.
    async fn serve_tls(
        &self,
        tls: &Tls,
        socket: TcpStream,
        peer: Peer,
        first_head_by: Instant,
        mut ending: watch::Receiver<bool>,
    ) {
        let Ok(socket) = tokio::net::TcpStream::from_std(socket) else { return };
        let socket = self.held_to_limits(socket, &peer).beneath_tls();
        // Boxed: it is large, and of no use once it is done.
        let accept = Box::pin(tls.accept(socket, peer.state.clone()));
        let accepted = tokio::select! {
            accepted = tokio::time::timeout_at(first_head_by, accept) => accepted,
            _ = ending.wait_for(|ending| *ending) => return,
        };
        let socket = match accepted {
            Ok(Ok(socket)) => socket,
            Ok(Err(_)) => return metric::tls_handshake("failed"),
            Err(_) => return metric::tls_handshake("late"),
        };
        metric::tls_handshake("done");
        let first = Box::pin(self.first_request_over_tls(socket, &peer, &mut ending));
        match tokio::time::timeout_at(first_head_by, first).await {
            Ok(Some(FirstOverTls::Stream { socket, head, body })) => {
                drop(ending);
                carry(socket, head, body).await;
            }
            Ok(Some(FirstOverTls::Http { socket, answer })) => {
                let serve = self.http.serve(socket.into(), peer, answer, first_head_by, ending);
                Box::pin(serve).await;
            }
            Ok(None) | Err(_) => {}
        }
    }

    /// Waits for the first bytes and looks at them. `None` if the connection broke, or this node has
    /// stopped and nothing has come.
    async fn first_request_over_tls(
        &self,
        mut socket: TlsSocket,
        peer: &Peer,
        ending: &mut watch::Receiver<bool>,
    ) -> Option<FirstOverTls> {
        if socket.is_http_2() {
            return Some(FirstOverTls::Http { socket, answer: None });
        }
        let bytes = tokio::select! {
            bytes = socket.first_bytes() => bytes.ok()?,
            _ = ending.wait_for(|ending| *ending) => return None,
        };
        match sniff_over_tls(bytes, &self.api, peer).await {
            SniffedOverTls::Stream(length, head, body) => {
                socket.consume(length);
                Some(FirstOverTls::Stream { socket, head, body })
            }
            SniffedOverTls::Other(answer) => {
                metric::head_sniffed("left");
                Some(FirstOverTls::Http { socket, answer })
            }
        }
    }

    fn held_to_limits(&self, socket: tokio::net::TcpStream, peer: &Peer) -> TimeoutSocket {
        TimeoutSocket::new(socket, self.limits.write_timeout, peer.state.clone())
    }

    /// Reads for whom a trusted proxy has brought this connection. `None` if it cannot be served.
    async fn proxied(
        &self,
        socket: TcpStream,
        peer: &mut Peer,
        place: &mut Place,
    ) -> Option<TcpStream> {
        match take_header(socket).await {
            Ok((socket, None)) => Some(socket),
            Ok((socket, Some(client))) => {
                peer.address = plain(client);
                place.count(self.sockets.count(peer.address).ok()?);
                Some(socket)
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    metric::socket_dropped("proxy_header");
                }
                None
            }
        }
    }

    /// Waits for the first bytes and looks at them. If this node stops first, the HTTP server knows
    /// how to end a connection that has not begun.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    async fn first_request(&self, socket: TcpStream, peer: &Peer) -> io::Result<First<'_>> {
        let Some(reactors) = &self.reactors else {
            return Ok(First::Http { socket: socket.try_into()?, answer: None });
        };
        let socket = match sniff(&socket, &self.api, peer).await {
            Sniffed::Stream(session, head) => {
                return Ok(First::Stream { reactors, socket, session, head });
            }
            Sniffed::Other(answer) => return First::http(socket.try_into()?, answer),
            // Only now does the runtime have to watch it.
            Sniffed::Nothing => tokio::net::TcpStream::from_std(socket)?,
        };
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                readable = socket.readable() => {
                    if readable.is_err() {
                        return Ok(First::Nothing);
                    }
                }
                _ = stop.wait_for(|stop| *stop) => return First::http(socket, None),
            }
            match sniff(&socket, &self.api, peer).await {
                Sniffed::Stream(session, head) => {
                    let socket = socket.into_std()?;
                    return Ok(First::Stream { reactors, socket, session, head });
                }
                Sniffed::Other(answer) => return First::http(socket, answer),
                // Whatever the runtime said.
                Sniffed::Nothing => {}
            }
        }
    }
}

/// What a connection with TLS begins with.
enum FirstOverTls {
    /// A stream that was opened: the head of its response, and its body.
    Stream { socket: TlsSocket, head: Vec<u8>, body: Body },
    /// It is for the HTTP server, with the answer to its first request if the routes have given it.
    Http { socket: TlsSocket, answer: Option<Box<Response>> },
}

/// What a connection begins with.
enum First<'a> {
    /// A stream that was opened: the head of its response, and who carries it.
    Stream { reactors: &'a Reactors, socket: TcpStream, session: Box<Session>, head: Vec<u8> },
    /// It is for the HTTP server, with the answer to its first request if the routes have given it.
    Http { socket: tokio::net::TcpStream, answer: Option<Box<Response>> },
    /// The peer is gone.
    Nothing,
}

impl First<'_> {
    /// A request that was looked at, and is not taken.
    fn http(
        socket: tokio::net::TcpStream,
        answer: Option<Box<Response>>,
    ) -> io::Result<First<'static>> {
        metric::head_sniffed("left");
        Ok(First::Http { socket, answer })
    }
}
