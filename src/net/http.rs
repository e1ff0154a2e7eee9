//! One connection with the HTTP server: hyper, HTTP/1.1 and HTTP/2 on one port.

use std::convert::Infallible;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Version, header};
use axum::response::Response;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::sync::watch;
use tokio::time::Instant;

use super::http_socket::HttpSocket;
use super::places::{IDLE_TIMEOUT, UnderWay};
use super::request_body::{Announced, RequestBody};
use super::{Answer, Peer};
use crate::telemetry::metric;

/// Time to send any request head but the first on a connection, idle time included.
const NEXT_HEAD_TIMEOUT: Duration = IDLE_TIMEOUT;

/// What one HTTP/1.1 connection buffers, in bytes: the largest request head, and what is written
/// ahead of a slow socket.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Streams on one HTTP/2 connection, and what each buffers ahead of a slow peer, in bytes.
const HTTP2_STREAMS_MAX: u32 = 250;
const HTTP2_BUFFER_BYTES_MAX: usize = 64 << 10;

/// How often an HTTP/2 peer must answer a ping, and how fast.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);

/// The HTTP server that all connections share.
pub(super) struct HttpServer<A> {
    server: auto::Builder<TokioExecutor>,
    api: A,
}

impl<A: Answer> HttpServer<A> {
    pub(super) fn new(api: A) -> HttpServer<A> {
        let mut server = auto::Builder::new(TokioExecutor::new());
        server
            .http1()
            .timer(TokioTimer::new())
            // Whether a peer that sends no more is gone, the socket finds out.
            .half_close(true)
            .header_read_timeout(NEXT_HEAD_TIMEOUT)
            .max_buf_size(BUFFER_BYTES_MAX);
        server
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .max_send_buf_size(HTTP2_BUFFER_BYTES_MAX)
            .max_header_list_size(BUFFER_BYTES_MAX as u32)
            .keep_alive_interval(HTTP2_PING_INTERVAL)
            .keep_alive_timeout(HTTP2_PING_INTERVAL);
        HttpServer { server, api }
    }

    /// Serves a connection to its end. `answer` is given to its first request if it is there already;
    /// without one the first request has to come until `first_head_by`. Once `ending`, what
    /// is under way is answered and nothing more is taken; so too when the connection has been idle for
    /// too long.
    pub(super) async fn serve(
        &self,
        socket: HttpSocket,
        peer: Peer,
        answer: Option<Box<Response>>,
        first_head_by: Instant,
        mut ending: watch::Receiver<bool>,
    ) {
        let standing = peer.state.standing.clone();
        // Whether the first request has come.
        let seen: Arc<AtomicBool> = Arc::default();
        let answer = Mutex::new(answer);
        let service = {
            let (api, seen) = (self.api.clone(), seen.clone());
            hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
                seen.store(true, Ordering::Relaxed);
                let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
                let (api, peer) = (api.clone(), peer.clone());
                async move {
                    if let Some(answer) = answer {
                        return Ok::<_, Infallible>(*answer);
                    }
                    Ok(answered(api, peer, request).await)
                }
            })
        };
        let connection = self.server.serve_connection(TokioIo::new(socket), service).into_owned();
        let mut connection = std::pin::pin!(connection);
        let connection = async {
            tokio::select! {
                biased;
                ended = connection.as_mut() => return note(ended),
                _ = ending.wait_for(|ending| *ending) => {}
                () = standing.is_idle_too_long() => {}
            }
            connection.as_mut().graceful_shutdown();
            note(connection.await);
        };
        let mut connection = std::pin::pin!(connection);
        if tokio::time::timeout_at(first_head_by, connection.as_mut()).await.is_ok() {
            return;
        }
        // Otherwise nothing that is a request has come by now, whatever was sent.
        if seen.load(Ordering::Relaxed) {
            connection.await;
        }
    }
}

/// Counts connections that were ended because their peer did what only attackers do. The library of
/// HTTP/2 knows such things and says so in the error.
fn note(ended: Result<(), Box<dyn Error + Send + Sync>>) {
    let Err(error) = ended else { return };
    let mut cause = Some(&*error as &(dyn Error + 'static));
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            if error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) {
                metric::http2_abuse("calm");
            }
            return;
        }
        cause = error.source();
    }
}

/// Asks the routes, and sees to what they left of the request's body.
async fn answered(api: impl Answer, peer: Peer, request: hyper::Request<Incoming>) -> Response {
    let is_http_2 = request.version() == Version::HTTP_2;
    let announced = Announced::of(request.headers(), request.body());
    let state = peer.state.clone();
    let (mut head, body) = request.into_parts();
    head.extensions.insert(peer);
    if body.is_end_stream() {
        let _under_way = UnderWay::on(&state.standing);
        state.body_unread.store(false, Ordering::Relaxed);
        return api.answer(hyper::Request::from_parts(head, Body::empty())).await;
    }
    let body = RequestBody::new(body, state.standing.clone());
    let request = hyper::Request::from_parts(head, Body::new(body.clone()));
    let mut response = api.answer(request).await;
    if is_http_2 {
        if body.is_unread() {
            tokio::spawn(body.throw_away());
        }
        return response;
    }
    if body.is_unread() && announced.comes_with_its_head(response.status()) {
        body.clone().throw_away_small().await;
    }
    let is_unread = body.is_unread();
    state.body_unread.store(is_unread, Ordering::Relaxed);
    if is_unread {
        // The last answer on this connection, and its client need not go on sending.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
