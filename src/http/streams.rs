//! The streams: `GET /boards/{board}/events`, `GET /events`, `GET /topics/{topic}/events`.
//!
//! Here it is decided whether a stream may begin; then a [`Connection`] speaks, and its
//! [`Connection::next`] is the body.

use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

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
use crate::board::Refusal;
use crate::connection::{Connection, Pulse, Request, Start, Wanted};
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
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// Set when the socket is given up because the peer takes no bytes.
    pub(crate) stalled: Arc<AtomicBool>,
    /// The streams on this socket.
    pulses: Arc<Mutex<Vec<Weak<Pulse>>>>,
}

impl Peer {
    pub(crate) fn new(address: IpAddr) -> Peer {
        Peer { address, stalled: Arc::default(), pulses: Arc::default() }
    }

    fn start_pulse(&self) -> Arc<Pulse> {
        let pulse = Pulse::start();
        let mut pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        pulses.retain(|pulse| pulse.strong_count() > 0);
        pulses.push(Arc::downgrade(&pulse));
        pulse
    }

    /// Waits until one of the streams on this socket was not asked for more for `longest`.
    pub(crate) async fn stuck(&self, longest: Duration) {
        loop {
            tokio::time::sleep(longest / 4).await;
            let pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
            let old = |pulse: Arc<Pulse>| pulse.age() > longest;
            if pulses.iter().filter_map(Weak::upgrade).any(old) {
                return;
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
        return Err(Refusal::NoSuchBoard.into());
    }
    let topics: Vec<Topic> = wanted.iter().map(|wanted| wanted.topic.clone()).collect();
    let request = Request {
        start: start(&options, headers, &topics),
        topics: wanted,
        snapshot: options.snapshot,
        stalled: peer.stalled.clone(),
        pulse: peer.start_pulse(),
    };
    let mut connection = Connection::new(app.node.clone(), admitted, request);
    if !connection.settle(PATIENCE).await {
        return Err(Refusal::NoSuchBoard.into());
    }
    let blocks = stream::unfold(connection, |mut connection| async {
        let block = connection.next().await?;
        Some((Ok::<_, std::convert::Infallible>(block), connection))
    });
    let mut response = Body::from_stream(blocks).into_response();
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
    for wanted in wanted.iter().filter(|wanted| wanted.board) {
        let here = app.node.hub.get(&wanted.topic).map(|topic| topic.stage());
        if here == Some(Stage::Open { is_board: true }) {
            continue;
        }
        if let Ok(false) = app.node.log.has_board(&wanted.topic).await {
            return false;
        }
    }
    true
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
