//! `GET /topics`, `DELETE /topics/{topic}`, `POST /topics/{topic}/events`,
//! `GET /topics/{topic}/history`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::access::{Administrator, Caller, PublishableTopic};
use super::held::SharedAnswers;
use super::problem::Problem;
use super::request::body::{AtMost, Object};
use super::request::query::Query;
use super::request::{Body, Parameters, Preconditions, TopicPath};
use super::{App, set_last_event_id, set_replayed};
use crate::access::Action;
use crate::entry::{Data, Entry, Event, EventType};
use crate::json;
use crate::log::{Appended, CATALOGUE_PAGE_MAX, Deleted, READ_ENTRIES_MAX, TopicSummary};
use crate::net;
use crate::position::{Cursor, LogHistory, Position, ResumePoint};
use crate::replay::Replays;
use crate::said::{Reset, ResetReason};
use crate::telemetry::metric;
use crate::topic::Topic;
use crate::wire::sse::read_event_text;

/// Events that one request may publish. Redis does nothing else meanwhile.
const EVENTS_MAX: usize = 1_000;

/// What is published: one event, or an array of them, which is appended as one step.
pub(super) enum NewEvents {
    One(NewEvent),
    Several(AtMost<NewEvent, EVENTS_MAX>),
}

impl<'de> Deserialize<'de> for NewEvents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NewEvents, D::Error> {
        // Raw values, which keep what was written, cannot be tried one shape after the other.
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let read = match raw.get().starts_with('[') {
            true => serde_json::from_str(raw.get()).map(NewEvents::Several),
            false => serde_json::from_str(raw.get()).map(|Object(event)| NewEvents::One(event)),
        };
        read.map_err(D::Error::custom)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewEvent {
    event: Option<String>,
    /// Kept as it was written: numbers keep their digits and objects their order.
    data: Box<RawValue>,
}

impl NewEvent {
    fn into_event(self) -> Result<Event, Problem> {
        let event_type = self.event.as_deref().map(EventType::new).transpose();
        let event_type = event_type.map_err(|error| Problem::bad_request(error.to_string()))?;
        Ok(Event { event_type, data: data(&self.data)? })
    }
}

/// Where what was published has its places.
#[derive(Serialize)]
#[serde(untagged)]
enum Published {
    One { id: String },
    Several { ids: Vec<String> },
}

pub(super) async fn publish(
    State(app): State<App>,
    PublishableTopic(topic, caller): PublishableTopic,
    Preconditions(conditions): Preconditions,
    Body(new, _memory): Body<NewEvents>,
) -> Result<Response, Problem> {
    let several = matches!(new, NewEvents::Several(_));
    let events = events_of(new)?;
    caller.may_publish_now(&app.rates, events.len())?;
    let Appended { last, replayed } = app.node.log.append(&topic, &events, &conditions).await?;
    let count = events.len() as u64;
    if !replayed {
        metric::published(count);
    }
    let published = if several {
        let place = |seq| Position { seq, ..last }.to_string();
        Published::Several { ids: (last.seq + 1 - count..=last.seq).map(place).collect() }
    } else {
        Published::One { id: last.to_string() }
    };
    let mut response = (StatusCode::CREATED, Json(published)).into_response();
    set_last_event_id(&mut response, last);
    set_replayed(&mut response, replayed);
    Ok(response)
}

/// What is to be appended as one step.
pub(super) fn events_of(new: NewEvents) -> Result<Vec<Event>, Problem> {
    match new {
        NewEvents::One(event) => Ok(vec![event.into_event()?]),
        NewEvents::Several(AtMost(events)) if events.is_empty() => {
            Err(Problem::bad_request(format!("send 1 to {EVENTS_MAX} events at once")))
        }
        NewEvents::Several(AtMost(events)) => {
            events.into_iter().map(NewEvent::into_event).collect()
        }
    }
}

/// A JSON string is text; anything else is JSON on one line.
fn data(raw: &RawValue) -> Result<Data, Problem> {
    let raw = raw.get();
    if raw.starts_with('"') {
        let text: String = serde_json::from_str(raw)
            .map_err(|error| Problem::bad_request(format!("data: {error}")))?;
        return Ok(Data::Text(text));
    }
    Ok(Data::Json(json::minify(raw)))
}

#[derive(Deserialize)]
pub(super) struct HistoryOptions {
    after: Option<String>,
    limit: Option<usize>,
}

impl Query for HistoryOptions {}

/// By topic, after which position, and how many entries.
pub(crate) type Histories = SharedAnswers<(Topic, Option<String>, usize)>;

/// A page of a topic's history.
#[derive(Serialize)]
struct History {
    topic: String,
    entries: Vec<HistoryEntry>,
    /// Pass it as `after` for the next page.
    next: Option<String>,
    /// Whether the next page has entries already.
    more: bool,
    /// The oldest entry that can still be read.
    oldest: Option<String>,
    /// The newest entry.
    head: Option<String>,
    /// Set when entries after `after` are gone; the page then begins at the oldest.
    #[serde(skip_serializing_if = "Option::is_none")]
    reset: Option<Reset>,
}

#[derive(Serialize)]
struct HistoryEntry {
    id: String,
    event: Option<String>,
    data: Box<RawValue>,
    /// When the log took it, in milliseconds since 1970.
    milliseconds: u64,
}

pub(super) async fn history(
    caller: Caller,
    State(app): State<App>,
    TopicPath(topic): TopicPath,
    Parameters(options): Parameters<HistoryOptions>,
) -> Result<Response, Problem> {
    caller.may(Action::Subscribe(&topic))?;
    let limit = options.limit.unwrap_or(100);
    if !(1..=READ_ENTRIES_MAX).contains(&limit) {
        return Err(Problem::bad_request(format!(
            "limit must be a whole number from 1 to {READ_ENTRIES_MAX}"
        )));
    }
    let after = options.after.as_deref().filter(|after| !after.is_empty());
    let cursor = after.map(|after| Cursor::read(after, std::slice::from_ref(&topic)));
    let resume_point = cursor.as_ref().and_then(|cursor| cursor.resume_point(&topic));
    let from = match resume_point {
        Some(ResumePoint::Position(position)) => position.seq,
        Some(ResumePoint::Seq(seq)) => *seq,
        Some(ResumePoint::Unreadable(_)) => {
            return Err(Problem::bad_request("after is not a position such as 42-k3f9"));
        }
        None => 0,
    };
    let replays = &app.node.replays;
    let question = (topic.clone(), options.after.clone(), limit);
    let make = async || {
        let range = (from, from.saturating_add(limit as u64));
        page_of_history(replays, &topic, range, resume_point).await
    };
    app.histories.answer(replays.budget(), question, "application/json", make).await
}

/// What is told of the entries with a seq in `from + 1 ..= to`, as JSON.
async fn page_of_history(
    replays: &Replays,
    topic: &Topic,
    (from, to): (u64, u64),
    resume_point: Option<&ResumePoint>,
) -> Result<Bytes, Problem> {
    let (page, mut reserved) = replays.read(topic, from, to).await?;
    let told = |history: &LogHistory| {
        resume_point.and_then(|point| told(&topic.to_string(), point, history))
    };
    let mut page = match page {
        Some(page) if page.history.is_written() => page,
        not_written => {
            let history = not_written.map(|page| page.history);
            let empty = History {
                topic: topic.to_string(),
                entries: Vec::new(),
                next: history.as_ref().map(|history| history.at(0).to_string()),
                more: false,
                oldest: None,
                head: None,
                reset: history.as_ref().and_then(told),
            };
            return Ok(json::to_text(&empty).into());
        }
    };
    let limit = to - from;
    let reset = told(&page.history);
    if reset.is_some() || page.entries.is_empty() {
        // Begin with the oldest: for who lost the thread, and for who did not say where to begin.
        let lost = reset.is_some() || resume_point.is_none();
        let oldest = page.history.oldest - 1;
        if lost {
            // Nobody waits while holding a part of the budget.
            drop(reserved);
            let again = replays.read(topic, oldest, oldest.saturating_add(limit)).await?;
            page = again.0.unwrap_or(page);
            reserved = again.1;
        }
    }
    page.entries.truncate(limit as usize);
    let log = &page.history;
    let next = match page.entries.last() {
        Some(entry) => entry.position,
        None => log.at(log.head),
    };
    let history = History {
        topic: topic.to_string(),
        more: next.seq < log.head,
        next: Some(next.to_string()),
        oldest: (log.oldest <= log.head).then(|| log.at(log.oldest).to_string()),
        head: Some(log.at(log.head).to_string()),
        entries: page.entries.iter().map(shown).collect::<Result<_, _>>()?,
        reset,
    };
    Ok(reserved.hold(json::to_text(&history).into_bytes()))
}

/// What a stream would say to a client with this resume point.
fn told(topic: &str, resume_point: &ResumePoint, history: &LogHistory) -> Option<Reset> {
    let position = match resume_point {
        ResumePoint::Position(position) => *position,
        ResumePoint::Seq(seq) => history.at(*seq),
        ResumePoint::Unreadable(_) => return None,
    };
    let reason = ResetReason::of(history.judge(position))?;
    Some(Reset::new(topic, reason, resume_point.to_string(), history))
}

/// # Errors
/// What the log has of the entry is no event: somebody else has written it, or a mistake of ours.
fn shown(entry: &Entry) -> Result<HistoryEntry, Problem> {
    let rest = String::from_utf8_lossy(&entry.rest);
    let (event_type, data) = read_event_text(&rest);
    let data = if entry.json { data } else { json::to_text(&data) };
    let data = RawValue::from_string(data).map_err(|error| {
        let position = entry.position;
        tracing::error!(%position, %error, "an entry in the log is broken");
        Problem::broken(format!("the entry {position} in the log is not JSON"))
    })?;
    Ok(HistoryEntry {
        id: entry.position.to_string(),
        event: event_type.map(ToOwned::to_owned),
        data,
        milliseconds: entry.milliseconds,
    })
}

#[derive(Deserialize)]
pub(super) struct CatalogueOptions {
    prefix: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

impl Query for CatalogueOptions {}

/// What a topic takes in a page of them, about, in bytes.
const TOPIC_VIEW_BYTES: usize = 128;

/// Some of the topics that somebody has written to.
#[derive(Serialize)]
struct CatalogueView {
    topics: Vec<TopicView>,
    /// Pass it as `after` for the next page; null after the last one.
    next: Option<String>,
}

#[derive(Serialize)]
struct TopicView {
    topic: String,
    /// Where its newest event is.
    head: String,
    /// Events that can still be read.
    entries: u64,
    /// Whether it is a board's.
    board: bool,
}

/// Page by page. For those who administer alone: a name may be all that keeps strangers from a topic.
pub(super) async fn all(
    _: Administrator,
    State(app): State<App>,
    Parameters(options): Parameters<CatalogueOptions>,
) -> Result<Response, Problem> {
    let limit = options.limit.unwrap_or(100);
    if !(1..=CATALOGUE_PAGE_MAX).contains(&limit) {
        return Err(Problem::bad_request(format!(
            "limit must be a whole number from 1 to {CATALOGUE_PAGE_MAX}"
        )));
    }
    let prefix = options.prefix.unwrap_or_default();
    let after = options.after.as_deref().filter(|after| !after.is_empty());
    let budget = app.node.replays.budget();
    // Nobody waits with something in his hands.
    let reserved = budget.reserve(limit * TOPIC_VIEW_BYTES).await;
    let page = app.catalogue.topics(&prefix, after, limit).await?;
    let Some(page) = page else {
        return Err(Problem::bad_request("after must be what `next` of a page was"));
    };
    let view = |TopicSummary { topic, head, entries, has_state }: TopicSummary| TopicView {
        topic: topic.to_string(),
        head: head.to_string(),
        entries,
        board: has_state,
    };
    let topics = page.topics.into_iter().map(view).collect();
    let json = json::to_text(&CatalogueView { topics, next: page.next });
    let body = net::body_of_held(reserved.hold(json.into_bytes()), budget);
    let content_type = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, content_type)], body).into_response())
}

/// Deletes a topic's history. To delete twice is to delete once: the second finds nothing.
pub(super) async fn delete(
    _: Administrator,
    State(app): State<App>,
    TopicPath(topic): TopicPath,
    Preconditions(conditions): Preconditions,
) -> Result<Response, Problem> {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Deleted::At(position) = app.catalogue.delete(&topic, &conditions).await? {
        set_last_event_id(&mut response, position);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn an_entry_that_is_broken_in_the_log_is_not_the_clients_fault() {
        let entry = |rest: &'static str| Entry {
            position: Position { seq: 7, epoch: "k3f9".parse().unwrap() },
            milliseconds: 0,
            json: true,
            rest: Bytes::from_static(rest.as_bytes()),
        };
        assert!(shown(&entry("data: {\"a\":1}\n\n")).is_ok());
        let problem = shown(&entry("data: {\"a\":\n\n")).err().unwrap();
        assert_eq!(problem.into_response().status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
