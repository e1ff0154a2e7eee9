//! The streams: `GET /boards/{board}/events`, `GET /events`, `GET /topics/{topic}/events`.
//!
//! Here it is decided whether a stream may begin; then a [`Connection`] speaks, and its
//! [`Connection::next`] is the body.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;

use super::App;
use super::problem::Problem;
use super::request::{IdPath, Parameters, TopicPath, topic};
use super::takeover::Slot;
use crate::board::BoardError;
use crate::connection::{Connection, Request, Start, Wanted};
use crate::frame::{CURSOR_BYTES_MAX, cursor_bytes};
use crate::hub::Stage;
use crate::position::Cursor;
use crate::telemetry::metric;
use crate::topic::Topic;

/// Topics of one stream at most (design §4).
const TOPICS_MAX: usize = 100;

/// How long a stream waits for the log before it is answered and held open.
const PATIENCE: Duration = Duration::from_secs(2);

/// The header and the request header of a position.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Who is at the other end of a socket.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// Set when the socket is given up because the peer takes no bytes.
    pub(crate) stalled: Arc<AtomicBool>,
    /// Where to leave a stream that goes on over the bare socket, if it may.
    slot: Option<Slot>,
    /// The streams on this socket, if it may carry several.
    seats: Arc<Mutex<Vec<Weak<Seat>>>>,
}

/// Where the connection of an HTTP/2 stream sits while nobody asks it for more.
///
/// Over HTTP/2 a peer can leave one stream unread while it reads the others, which no socket
/// notices. But a stream that is read is asked for more after each heartbeat at the latest; one
/// that was not asked for long loses its connection, and with it everything but what the HTTP
/// server has buffered for it. Its neighbours on the socket go on.
struct Seat {
    connection: Mutex<(Option<Connection>, Instant)>,
}

impl Seat {
    fn take(&self) -> Option<Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).0.take()
    }

    fn put_back(&self, connection: Connection) {
        let now = Instant::now();
        let mut seat = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        *seat = (Some(connection), now);
    }

    /// Ends a connection that was not asked for more for `longest`.
    fn clear(&self, longest: Duration) {
        let mut seat = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if seat.1.elapsed() > longest
            && let Some(connection) = seat.0.take()
        {
            connection.stalled();
        }
    }
}

impl Peer {
    pub(crate) fn new(address: IpAddr) -> Peer {
        Peer { address, stalled: Arc::default(), slot: None, seats: Arc::default() }
    }

    /// Streams of the request that carries it are left in `slot`.
    pub(super) fn with_slot(self, slot: Slot) -> Peer {
        Peer { slot: Some(slot), ..self }
    }

    fn seat(&self, connection: Connection) -> Arc<Seat> {
        let seat = Arc::new(Seat { connection: Mutex::new((Some(connection), Instant::now())) });
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.retain(|seat| seat.strong_count() > 0);
        seats.push(Arc::downgrade(&seat));
        seat
    }

    /// Ends streams on this socket that were not asked for more for `longest`, for ever.
    pub(crate) async fn end_unread_streams(&self, longest: Duration) {
        loop {
            tokio::time::sleep(longest / 4).await;
            let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for seat in seats.iter().filter_map(Weak::upgrade) {
                seat.clear(longest);
            }
        }
    }
}

/// Where to start, and what to send besides entries.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Options {
    last_event_id: Option<String>,
    from: Option<From>,
    #[serde(default)]
    snapshot: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum From {
    Earliest,
}

/// Which topics `GET /events` shall carry, divided by commas.
#[derive(Debug, Deserialize)]
pub(super) struct Several {
    #[serde(default)]
    boards: String,
    #[serde(default)]
    topics: String,
}

pub(super) async fn board_events(
    State(app): State<App>,
    IdPath(board): IdPath,
    Parameters(options): Parameters<Options>,
    peer: Extension<Peer>,
    version: Version,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wanted = vec![Wanted { topic: board, board: true }];
    stream_of(app, wanted, options, &peer, version, &headers).await
}

pub(super) async fn topic_events(
    State(app): State<App>,
    TopicPath(topic): TopicPath,
    Parameters(options): Parameters<Options>,
    peer: Extension<Peer>,
    version: Version,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wanted = vec![Wanted { topic, board: false }];
    stream_of(app, wanted, options, &peer, version, &headers).await
}

pub(super) async fn events(
    State(app): State<App>,
    Parameters(several): Parameters<Several>,
    Parameters(options): Parameters<Options>,
    peer: Extension<Peer>,
    version: Version,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    stream_of(app, several.wanted()?, options, &peer, version, &headers).await
}

impl Several {
    fn wanted(&self) -> Result<Vec<Wanted>, Problem> {
        let mut wanted: Vec<Wanted> = Vec::new();
        for (names, board) in [(&self.boards, true), (&self.topics, false)] {
            for name in names.split(',').filter(|name| !name.is_empty()) {
                let topic = topic(name)?;
                // A board's topic has the board's name, so one topic can be named twice.
                if !wanted.iter().any(|known| known.topic == topic) {
                    wanted.push(Wanted { topic, board });
                }
            }
        }
        if wanted.is_empty() {
            return Err(Problem::bad_request("name at least one of boards and topics"));
        }
        if wanted.len() > TOPICS_MAX {
            return Err(Problem::bad_request(format!("at most {TOPICS_MAX} topics a stream")));
        }
        let topics: Vec<Topic> = wanted.iter().map(|wanted| wanted.topic.clone()).collect();
        if cursor_bytes(&topics) > CURSOR_BYTES_MAX {
            return Err(Problem::bad_request(
                "these names together are too long for an event id: use fewer topics a stream",
            ));
        }
        Ok(wanted)
    }
}

async fn stream_of(
    app: App,
    wanted: Vec<Wanted>,
    options: Options,
    peer: &Peer,
    version: Version,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    if app.node.drain.borrow().is_some() {
        metric::connection_refused("draining");
        return Err(Problem::draining());
    }
    let admitted = app.admission.admit(peer.address).inspect_err(|why| {
        metric::connection_refused(why.as_str());
    })?;
    if !boards_exist(&app, &wanted).await {
        return Err(BoardError::NoSuchBoard.into());
    }
    let topics: Vec<Topic> = wanted.iter().map(|wanted| wanted.topic.clone()).collect();
    let request = Request {
        start: start(&options, headers, &topics),
        topics: wanted,
        snapshot: options.snapshot,
        stalled: peer.stalled.clone(),
    };
    let mut connection = Connection::new(app.node.clone(), admitted, request);
    if !connection.settle(PATIENCE).await {
        return Err(BoardError::NoSuchBoard.into());
    }
    let body = if let Some(slot) = &peer.slot {
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        Body::empty()
    } else if version == Version::HTTP_2 {
        let seat = peer.seat(connection);
        Body::from_stream(stream::unfold(seat, |seat| async {
            let mut connection = seat.take()?;
            let block = connection.next().await?;
            seat.put_back(connection);
            Some((Ok::<_, Infallible>(block), seat))
        }))
    } else {
        Body::from_stream(stream::unfold(connection, |mut connection| async {
            let block = connection.next().await?;
            Some((Ok::<_, Infallible>(block), connection))
        }))
    };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if version == Version::HTTP_11 {
        // HTTP/2 knows no such header and forbids it.
        headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
    }
    Ok(response)
}

/// Whether all boards exist, as far as can be told now; a stream whose log cannot be asked is held
/// open and finds out later. Before the topics are joined, so that asking for boards that are none
/// leaves nothing behind in the log.
async fn boards_exist(app: &App, wanted: &[Wanted]) -> bool {
    let known = |wanted: &&Wanted| {
        let topic = app.node.hub.get(&wanted.topic);
        topic.is_some_and(|topic| topic.stage() == Stage::Open { has_state: true })
    };
    let boards = wanted.iter().filter(|wanted| wanted.board && !known(wanted));
    let boards: Vec<Topic> = boards.map(|wanted| wanted.topic.clone()).collect();
    if boards.is_empty() {
        return true;
    }
    let asked = tokio::time::timeout(PATIENCE, app.node.snapshots.exist(&boards)).await;
    !matches!(asked, Ok(Ok(false)))
}

/// `Last-Event-ID`, else `?lastEventId=`, else `?from=earliest`, else now (design §4).
fn start(options: &Options, headers: &HeaderMap, topics: &[Topic]) -> Start {
    let header = headers.get(LAST_EVENT_ID).map(|id| String::from_utf8_lossy(id.as_bytes()));
    let id = header.as_deref().filter(|id| !id.is_empty()).or(options.last_event_id.as_deref());
    match (id, options.from) {
        (Some(id), _) if !id.is_empty() => Start::Resume(Cursor::read(id, topics)),
        (_, Some(From::Earliest)) => Start::Earliest,
        _ => Start::Now,
    }
}
