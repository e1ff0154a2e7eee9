//! What fuzzing asks of this room: its readers of what the network brings, each by itself.

use axum::http::{HeaderMap, Uri};

use super::board::fuzz::{NewBoard, NewListBody, NewPlace, NewTask, NewTitle};
use super::request::body::{Object, parse};
use super::request::{Parameters, accept_encoding, cookie, host};
use super::streams::{Options, Several, said_by_header};
use super::topics::{NewEvents, events_of};
use crate::entry::Event;
use crate::topic::Topic;
use crate::wire::Encoding;

/// What the query of `GET /events` asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct StreamQuery {
    /// Each once, and whether it is a board.
    pub topics: Vec<(Topic, bool)>,
    /// Where to start, if that is said.
    pub last_event_id: Option<String>,
    /// Whether it opens with the whole board.
    pub snapshot: bool,
}

/// Reads the query of `GET /events`; `None` where it is refused.
pub fn stream_query(uri: &Uri) -> Option<StreamQuery> {
    let Parameters((several, options)) = Parameters::<(Several, Options)>::read(uri).ok()?;
    let requested = several.requested().ok()?;
    let topics = requested.into_iter().map(|one| (one.topic, one.must_have_state)).collect();
    let Options { last_event_id, snapshot, .. } = options;
    Some(StreamQuery { topics, last_event_id, snapshot })
}

/// The position that the lines of `Last-Event-ID` say.
pub fn last_event_id(headers: &HeaderMap) -> Option<String> {
    said_by_header(headers)
}

/// Reads the body of `POST /topics/{topic}/events`; `None` where it is refused.
pub fn events(body: &[u8]) -> Option<Vec<Event>> {
    events_of(parse::<NewEvents>(body).ok()?).ok()
}

/// Reads a body as each request of the task board would, and says which of them take it.
pub fn board_bodies(body: &[u8]) -> Vec<&'static str> {
    let mut taken = Vec::new();
    let mut take = |name, is_taken: bool| taken.extend(is_taken.then_some(name));
    take("task", parse::<Object<NewTask>>(body).is_ok());
    take("title", parse::<Object<NewTitle>>(body).is_ok());
    take("place", parse::<Object<NewPlace>>(body).is_ok());
    take("board", parse::<Object<NewBoard>>(body).is_ok());
    take("list", parse::<Object<NewListBody>>(body).is_ok());
    taken
}

/// Whether this may be the host of a request.
pub fn is_host(text: &[u8]) -> bool {
    host::is_host(text)
}

/// The token in the cookie of this name, if there is one; `None` where it is refused: it is there more
/// than once, or cannot be read.
pub fn token_of_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<Option<&'a str>> {
    cookie::token_cookie(headers, name).ok()
}

/// The encoding that these headers choose of those that are offered; `None` if they exclude all.
pub fn chosen_encoding(headers: &HeaderMap, offered: &[Encoding]) -> Option<Encoding> {
    accept_encoding::choose(headers, offered)
}
