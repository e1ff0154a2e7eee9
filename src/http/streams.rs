//! The streams: `GET /boards/{board}/events`, `GET /events`, `GET /topics/{topic}/events`.
//!
//! Here it is decided whether a stream may begin; what it says is [`stream`](crate::stream)'s, and
//! who carries it is [`net`](crate::net)'s.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use axum::response::Response;
use serde::Deserialize;

use super::App;
use super::access::{Caller, StreamCaller, check_not_revoked};
use super::problem::Problem;
use super::request::accept_encoding;
use super::request::query::{BETWEEN_POSITIONS, OnePosition, Query};
use super::request::{IdPath, Parameters, TopicPath, topic};
use super::tickets::goodbye_of_ticket;
use crate::access::Action;
use crate::admission::NotAdmitted;
use crate::admission::client::Whose;
use crate::admission::client_rates::Account;
use crate::hub::TopicState;
use crate::log::NoState;
use crate::net::{self, Peer};
use crate::position::{Cursor, cursor_bytes};
use crate::stream::{Request, RequestedTopic, Session, StartAt};
use crate::telemetry::metric;
use crate::topic::Topic;
use crate::wire::sse::CURSOR_BYTES_MAX;
use crate::wire::{Encoding, Speech, Wire};

/// Topics of one stream at most: the position in each of them stands in every id.
const TOPICS_MAX: usize = 100;

/// How long a stream waits for the log before it is answered and held open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// The header and the request header of a position.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Where to start, and what to send besides entries.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Options {
    pub(super) last_event_id: Option<String>,
    from: Option<From>,
    #[serde(default)]
    pub(super) snapshot: bool,
    connected: Option<ByName>,
    heartbeat: Option<ByName>,
    /// Read before, by whoever finds out who this is.
    #[serde(rename = "ticket")]
    _ticket: Option<String>,
}

impl Query for Options {}

/// Said as an event of that name.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ByName {
    Event,
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

impl Query for Several {}

pub(super) async fn board_events(
    caller: StreamCaller,
    State(app): State<App>,
    IdPath(board): IdPath,
    Parameters(options): Parameters<Options>,
    peer: Extension<Peer>,
    version: Version,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let requested = vec![RequestedTopic { topic: board, must_have_state: true }];
    stream_of(app, caller, requested, options, &peer, version, &headers).await
}

pub(super) async fn topic_events(
    caller: StreamCaller,
    State(app): State<App>,
    TopicPath(topic): TopicPath,
    Parameters(options): Parameters<Options>,
    peer: Extension<Peer>,
    version: Version,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let requested = vec![RequestedTopic { topic, must_have_state: false }];
    stream_of(app, caller, requested, options, &peer, version, &headers).await
}

pub(super) async fn events(
    caller: StreamCaller,
    State(app): State<App>,
    Parameters((several, options)): Parameters<(Several, Options)>,
    peer: Extension<Peer>,
    version: Version,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    stream_of(app, caller, several.requested()?, options, &peer, version, &headers).await
}

impl Several {
    /// The topics, each once. What a query can name is hundreds of times as many: no more are
    /// looked at than a stream may have.
    pub(super) fn requested(&self) -> Result<Vec<RequestedTopic>, Problem> {
        let named = [(&self.boards, true), (&self.topics, false)].into_iter();
        let named =
            named.flat_map(|(names, is_board)| names.split(',').map(move |name| (name, is_board)));
        // A board's topic has the board's name, so one topic can be named twice.
        let mut known = HashSet::new();
        let mut requested = Vec::new();
        for (name, must_have_state) in named.filter(|(name, _)| !name.is_empty()) {
            if !known.insert(name) {
                continue;
            }
            if requested.len() == TOPICS_MAX {
                return Err(Problem::bad_request(format!("at most {TOPICS_MAX} topics a stream")));
            }
            requested.push(RequestedTopic { topic: topic(name)?, must_have_state });
        }
        if requested.is_empty() {
            return Err(Problem::bad_request("name at least one of boards and topics"));
        }
        let topics: Vec<Topic> =
            requested.iter().map(|requested| requested.topic.clone()).collect();
        if cursor_bytes(&topics) > CURSOR_BYTES_MAX {
            return Err(Problem::bad_request(
                "these names together are too long for an event id: use fewer topics a stream",
            ));
        }
        Ok(requested)
    }
}

async fn stream_of(
    app: App,
    caller: StreamCaller,
    requested: Vec<RequestedTopic>,
    options: Options,
    peer: &Peer,
    version: Version,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    if let StreamCaller::Known(caller) = &caller {
        may_follow(caller, &requested, options.snapshot)?;
    }
    if app.node.endings.all_ended() {
        metric::connection_refused("draining");
        return Err(Problem::draining());
    }
    let encoding = accept_encoding::choose(headers, &app.compression)
        .ok_or_else(|| Problem::no_encoding(&app.compression))?;
    let mut admitted = app.admission.admit(peer.client(), requested.len())?;
    let is_new = |requested: &&RequestedTopic| app.node.hub.get(&requested.topic).is_none();
    let new_topics = requested.iter().filter(is_new).count();
    // Until they are followed.
    let _reserved = app.admission.reserve_topics(new_topics, || app.node.hub.count())?;
    let resumes = said_position(&options, headers).is_some();
    let (caller, ticket) = match caller {
        StreamCaller::Known(caller) => (caller, None),
        StreamCaller::Ticket(ticket) => {
            let Some(caller) = ticket.caller(&app, peer.client(), resumes).await? else {
                return Ok(goodbye_of_ticket(&app));
            };
            may_follow(&caller, &requested, options.snapshot)?;
            (caller, Some(ticket))
        }
    };
    if let Some(Account { whose: Whose::Subject(subject), .. }) = caller.account {
        admitted.count_for(subject)?;
    }
    let wire = Wire::Sse { named_heartbeat: options.heartbeat.is_some() };
    let terms = caller.terms(&app.node.endings, Speech { wire, encoding })?;
    // What was revoked before there were terms has not ended them.
    check_not_revoked(&app, &caller.grant).await?;
    if !states_exist(&app, &requested).await {
        return Err(NoState.into());
    }
    // The last that can refuse it: nothing is opened for who is refused, or paid for it.
    app.rates.watch_new(caller.account, new_topics).map_err(NotAdmitted::NewTopics)?;
    // Good once: whoever was refused before this can use it elsewhere, or later.
    if let Some(ticket) = ticket
        && !ticket.redeem(&app, resumes).await?
    {
        return Ok(goodbye_of_ticket(&app));
    }
    let topics: Vec<Topic> = requested.iter().map(|requested| requested.topic.clone()).collect();
    let request = Request {
        start: start(&options, headers, &topics),
        topics: requested,
        snapshot: options.snapshot,
        named_connected: options.connected.is_some(),
    };
    let mut session = Session::open(&app.node, admitted, terms, &request);
    if !session.wait_until_open(OPEN_TIMEOUT).await {
        return Err(NoState.into());
    }
    // HTTP/2 knows no such header and forbids it. Where this is the last answer on a connection, the
    // HTTP server says so.
    let keeps_alive = version == Version::HTTP_11 && !asks_to_close(headers);
    let mut response = net::respond(session, peer, version);
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !app.compression.is_empty() {
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    if encoding != Encoding::Identity {
        let name = HeaderValue::from_static(encoding.name());
        headers.insert(header::CONTENT_ENCODING, name);
    }
    if keeps_alive {
        headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
    }
    Ok(response)
}

/// Whether they may follow all of these. One that is refused refuses them all: a stream with less in
/// it than was asked for would look whole.
fn may_follow(
    caller: &Caller,
    requested: &[RequestedTopic],
    snapshot: bool,
) -> Result<(), Problem> {
    for RequestedTopic { topic, .. } in requested {
        caller.may(Action::Subscribe(topic))?;
        if snapshot {
            caller.may(Action::ReadBoard(topic))?;
        }
    }
    Ok(())
}

/// Whether all states that are asked for exist, as far as can be told now; a stream whose log cannot be asked is held
/// open and finds out later. Before the topics are joined, so that asking for what does not exist
/// leaves nothing behind in the log.
async fn states_exist(app: &App, requested: &[RequestedTopic]) -> bool {
    let known = |requested: &&RequestedTopic| {
        let topic = app.node.hub.get(&requested.topic);
        topic.is_some_and(|topic| topic.state() == TopicState::Open { has_state: true })
    };
    let unknown = |requested: &&RequestedTopic| requested.must_have_state && !known(requested);
    let unknown = requested.iter().filter(unknown);
    let topics: Vec<Topic> = unknown.map(|requested| requested.topic.clone()).collect();
    if topics.is_empty() {
        return true;
    }
    let asked = tokio::time::timeout(OPEN_TIMEOUT, app.node.snapshots.exist(&topics)).await;
    !matches!(asked, Ok(Ok(false)))
}

/// Whether the connection is to be closed after the answer.
fn asks_to_close(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::CONNECTION).iter();
    let mut options = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// `Last-Event-ID`, else `?lastEventId=`, else `?from=earliest`, else now. The header comes first: a
/// browser that reconnects to a URL with a position goes on where it was.
fn start(options: &Options, headers: &HeaderMap, topics: &[Topic]) -> StartAt {
    match (said_position(options, headers), options.from) {
        (Some(id), _) => StartAt::Resume(Cursor::read(&id, topics)),
        (_, Some(From::Earliest)) => StartAt::Earliest,
        _ => StartAt::Now,
    }
}

/// The position that the client says it has, if it says any.
fn said_position<'a>(options: &'a Options, headers: &HeaderMap) -> Option<Cow<'a, str>> {
    let said = said_by_header(headers).map(Cow::Owned);
    let said = said.or(options.last_event_id.as_deref().map(Cow::Borrowed));
    said.filter(|id| !id.is_empty())
}

/// The position in the header, which may have several lines: a page's own and the browser's, or
/// those of a proxy, which may also join them into one.
pub(super) fn said_by_header(headers: &HeaderMap) -> Option<String> {
    let mut position = OnePosition::default();
    for line in headers.get_all(LAST_EVENT_ID) {
        let line = String::from_utf8_lossy(line.as_bytes());
        // Not what somebody says who has no position, and no position either.
        if !line.is_empty() && line.trim_matches([',', ' ', '\t']).is_empty() {
            position.add(line.into_owned().into());
            continue;
        }
        for part in line.split(BETWEEN_POSITIONS) {
            let part = part.trim_matches([',', ' ', '\t']);
            position.add(part.to_owned().into());
        }
    }
    position.said().map(Cow::into_owned)
}
