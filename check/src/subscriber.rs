//! A subscriber: follows some topics over one stream, as an `EventSource` does, and comes back
//! somewhere else whenever the stream ends or it is time to leave.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Version;
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::checker::{Checker, Question, Reset};
use super::event_stream::{EventParser, StreamEvent};
use super::payload::Recognised;
use super::plan::{Join, Role};
use super::publish_log::EventId;
use super::publisher::is_final;
use super::view::ResetReason;
use super::{CheckContext, Kind, Phase};
use crate::position::{Position, read_id};

/// How long at most a subscriber is away that left in order to come back.
const AWAY_MAX: Duration = Duration::from_millis(50);

/// How long it waits at most before it asks another gateway when one cannot serve it.
const FAILOVER_DELAY_MAX: Duration = Duration::from_millis(200);

/// A subscriber, and what it remembers between its streams.
struct Subscriber {
    context: Arc<CheckContext>,
    number: usize,
    role: Role,
    last_event_id: String,
    /// The last reconnection time that a stream told.
    retry: Duration,
    /// Index of the URL it was at last.
    at: usize,
    /// When the current stream was asked for.
    requested_at: Duration,
    /// Whether the current stream has had its opening event.
    opened: bool,
}

/// Why a stream was left.
enum StreamEnd {
    /// By the subscriber, to come back elsewhere.
    Left,
    /// It never was one: nobody answered, or somebody who cannot serve now.
    Refused(String),
    /// By the other side, or because it was silent for too long.
    Dropped { why: String, silent: bool },
}

/// Follows its topics until the phase says otherwise.
pub(super) async fn run(
    context: Arc<CheckContext>,
    number: usize,
    role: Role,
    mut phase: watch::Receiver<Phase>,
) {
    if let Join::Now(percent) | Join::Earliest(percent) = role.join {
        let late = context.plan.duration.mul_f64(f64::from(percent) / 100.0);
        tokio::select! {
            biased;
            // Who has not come by now does not come any more.
            _ = phase.wait_for(|phase| *phase > Phase::Publishing) => return,
            () = async { context.until_publishing(late).await } => {}
        }
    }
    let mut subscriber = Subscriber {
        at: fastrand::usize(..context.plan.urls.len()),
        context,
        number,
        role,
        last_event_id: String::new(),
        retry: Duration::MAX,
        requested_at: Duration::ZERO,
        opened: false,
    };
    let closing = async { phase.clone().wait_for(|phase| *phase == Phase::Closing).await.is_ok() };
    tokio::select! {
        biased;
        _ = closing => {}
        () = subscriber.follow(phase.clone()) => {}
    }
}

impl Subscriber {
    /// Opens one stream after the other, for ever.
    async fn follow(&mut self, phase: watch::Receiver<Phase>) {
        loop {
            let count = self.context.plan.urls.len();
            if count > 1 {
                self.at = (self.at + fastrand::usize(1..count)) % count;
            }
            let end = self.follow_once(phase.clone()).await;
            let now = self.context.now();
            let wait = match end {
                StreamEnd::Left => {
                    self.context.checker().stream_left(self.number, now);
                    AWAY_MAX
                }
                StreamEnd::Refused(why) => {
                    self.context.checker().stream_dropped(self.number, &why, false, now);
                    // Another node will do: this is what load balancers do for browsers.
                    FAILOVER_DELAY_MAX.min(self.context.plan.retry_max)
                }
                StreamEnd::Dropped { why, silent } => {
                    self.context.checker().stream_dropped(self.number, &why, silent, now);
                    self.retry.min(self.context.plan.retry_max)
                }
            };
            tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
    }

    /// One stream, from request to end.
    async fn follow_once(&mut self, mut phase: watch::Receiver<Phase>) -> StreamEnd {
        let base = self.context.plan.urls[self.at].to_string();
        let url = format!("{base}{}", self.path());
        self.requested_at = self.context.now();
        self.context.checker().stream_requested(self.number, &base, self.requested_at);
        let response = match self.context.client.stream(&url, &self.last_event_id).await {
            Ok(response) => response,
            Err(why) => return StreamEnd::Refused(format!("{base}: {why}")),
        };
        let status = response.status().as_u16();
        let content_type = response.headers().get(hyper::header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_stream = content_type.split(';').next().map(str::trim) == Some("text/event-stream");
        if is_final(status) || status == 204 || (status == 200 && !is_stream) {
            let came = format!("{base} answered {status} {content_type}");
            let expected =
                "200 text/event-stream, or an error that passes: a browser never asks again";
            let now = self.context.now();
            let mut checker = self.context.checker();
            checker.report_other(Kind::FatalAnswer, self.number, None, expected, came.clone(), now);
            return StreamEnd::Refused(came);
        }
        if status != 200 {
            return StreamEnd::Refused(format!("{base} answered {status}"));
        }
        self.context.checker().stream_opened(response.version() == Version::HTTP_2);
        self.opened = false;
        let leave = self.context.plan.roam.filter(|_| self.role.roams);
        let leave = leave.map(|mean| Instant::now() + mean.mul_f64(0.5 + fastrand::f64()));
        let leave = async {
            match leave {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
            // At the end everybody stays, so that what is missing can come.
            if *phase.borrow_and_update() > Phase::Publishing {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            end = self.read(response.into_body()) => end,
            () = leave => StreamEnd::Left,
        }
    }

    /// Reads a stream to its end.
    async fn read(&mut self, mut body: Incoming) -> StreamEnd {
        let mut parser = EventParser::new(&self.last_event_id);
        let silence_max = self.context.plan.silence_max;
        loop {
            let frame = match tokio::time::timeout(silence_max, body.frame()).await {
                Err(_) => {
                    let why = format!("no byte came for {silence_max:?}");
                    return StreamEnd::Dropped { why, silent: true };
                }
                Ok(None) => {
                    return StreamEnd::Dropped { why: "it ended".to_owned(), silent: false };
                }
                Ok(Some(Err(error))) => {
                    return StreamEnd::Dropped { why: error.to_string(), silent: false };
                }
                Ok(Some(Ok(frame))) => frame,
            };
            let Some(bytes) = frame.data_ref() else { continue };
            let context = self.context.clone();
            let now = context.now();
            let mut questions = Vec::new();
            let fed = {
                let mut checker = context.checker();
                parser.feed(bytes, |event| {
                    questions.extend(self.on_event(&mut checker, &event, now));
                })
            };
            for question in questions {
                context.ask_log(question);
            }
            self.last_event_id.clear();
            self.last_event_id.push_str(parser.last_event_id());
            if let Some(retry) = parser.retry_milliseconds() {
                self.retry = Duration::from_millis(retry);
            }
            if fed.is_err() {
                return StreamEnd::Dropped { why: "a line without end".to_owned(), silent: false };
            }
        }
    }

    /// Tells the checker of one event, and returns what only the log can decide about it.
    fn on_event(
        &mut self,
        checker: &mut Checker,
        event: &StreamEvent<'_>,
        now: Duration,
    ) -> Vec<Question> {
        let number = self.number;
        let mut questions = Vec::new();
        let malformed = |checker: &mut Checker, expected: &str, came: String| {
            checker.report_other(Kind::Malformed, number, None, expected, came, now);
        };
        let Some(positions) = self.positions(event.id) else {
            let came = format!("the id {:?} on an event of type {:?}", event.id, event.kind);
            malformed(checker, "an id with the position in every topic of the stream", came);
            return questions;
        };
        if event.kind == "message" && is_opening_event(event.data) {
            self.opened = true;
            for (&topic, position) in self.role.topics.iter().zip(positions) {
                let is_first = checker.position_of(number, topic).is_none();
                checker.opening_event(number, topic, position, now);
                if is_first && matches!(self.role.join, Join::Earliest(_)) {
                    questions.extend(checker.earliest_requested(
                        number,
                        topic,
                        position,
                        self.requested_at,
                        now,
                    ));
                }
            }
            return questions;
        }
        if !std::mem::replace(&mut self.opened, true) {
            let came = format!("{:?} at {}", event.kind, event.id);
            malformed(checker, "the opening event before any other", came);
        }
        if event.kind == "reset" {
            questions.extend(self.on_reset(checker, event, &positions, now));
            return questions;
        }
        let recognised = self.context.payload.recognise(event.kind, event.data);
        let published = match recognised {
            Recognised::Event(id) | Recognised::Altered(id) => Some(id),
            Recognised::Unknown => None,
        };
        let Some((topic, position)) = self.moved(checker, &positions, published) else {
            let came = format!("the id {}", event.id);
            malformed(checker, "an id in which one topic has moved on", came);
            return questions;
        };
        match recognised {
            Recognised::Event(_) => checker.entry(number, topic, position, published, now),
            Recognised::Altered(_) => {
                checker.entry(number, topic, position, published, now);
                let came = format!("type {:?}, data {:?}", event.kind, short(event.data));
                let expected = "the type and data that were published";
                checker.report_other(Kind::Altered, number, Some(topic), expected, came, now);
            }
            Recognised::Unknown => {
                checker.entry(number, topic, position, None, now);
                let came =
                    format!("{position}: type {:?}, data {:?}", event.kind, short(event.data));
                let expected = "events of this check alone";
                let kind = Kind::UnexpectedEvent;
                checker.report_other(kind, number, Some(topic), expected, came, now);
            }
        }
        questions
    }

    fn on_reset(
        &self,
        checker: &mut Checker,
        event: &StreamEvent<'_>,
        positions: &[Position],
        now: Duration,
    ) -> Option<Question> {
        let read = || {
            let data: ResetData<'_> = serde_json::from_str(event.data).ok()?;
            let names = &self.context.topics;
            let mut topics = self.role.topics.iter().zip(positions);
            let (&topic, &resume) = topics.find(|(topic, _)| names[**topic] == data.topic)?;
            let reason = match data.reason {
                "trimmed" => ResetReason::Trimmed,
                "lost" => ResetReason::Lost,
                "unreadable" => ResetReason::Unreadable,
                _ => return None,
            };
            let position = |text: Option<&str>| text.map(str::parse::<Position>).transpose();
            let (oldest, head) = (position(data.oldest).ok()?, position(data.head).ok()?);
            let reset = Reset { reason, from: data.from.to_owned(), oldest, head };
            Some((topic, reset, resume))
        };
        let Some((topic, reset, resume)) = read() else {
            let expected = "topic, reason, from, oldest and head of a reset of this stream";
            let came = short(event.data);
            checker.report_other(Kind::BadReset, self.number, None, expected, came, now);
            return None;
        };
        checker.reset(self.number, topic, &reset, resume, now)
    }

    /// The topic that an entry is of, and its position: the one that has moved in the stream's id.
    fn moved(
        &self,
        checker: &Checker,
        positions: &[Position],
        published: Option<EventId>,
    ) -> Option<(usize, Position)> {
        let topics = || self.role.topics.iter().copied().zip(positions.iter().copied());
        if let [topic] = self.role.topics[..] {
            return Some((topic, positions[0]));
        }
        let mut moved = topics().filter(|(topic, position)| {
            checker.position_of(self.number, *topic) != Some(*position)
        });
        match (moved.next(), moved.next()) {
            (Some(one), None) => Some(one),
            (Some(_), Some(_)) => None,
            // Nothing moved: something that was delivered already comes again.
            (None, _) => {
                let topic = checker.topic_of(published?)?;
                topics().find(|(its, _)| *its == topic)
            }
        }
    }

    /// The positions in an id, in the order of the subscriber's topics.
    fn positions(&self, id: &str) -> Option<Vec<Position>> {
        read_id(id, &self.topic_names())
    }

    fn topic_names(&self) -> Vec<&str> {
        self.role.topics.iter().map(|&topic| self.context.topics[topic].as_str()).collect()
    }

    fn path(&self) -> String {
        let names = self.topic_names();
        let earliest = matches!(self.role.join, Join::Earliest(_));
        match names.as_slice() {
            [name] => {
                format!("/topics/{name}/events{}", if earliest { "?from=earliest" } else { "" })
            }
            names => {
                let earliest = if earliest { "&from=earliest" } else { "" };
                format!("/events?topics={}{earliest}", names.join(","))
            }
        }
    }
}

#[derive(Deserialize)]
struct ResetData<'a> {
    topic: &'a str,
    reason: &'a str,
    from: &'a str,
    oldest: Option<&'a str>,
    head: Option<&'a str>,
}

/// Whether the data of an unnamed event is that of an opening event.
fn is_opening_event(data: &str) -> bool {
    #[derive(Deserialize)]
    struct Opening<'a> {
        r#type: &'a str,
    }
    serde_json::from_str::<Opening<'_>>(data).is_ok_and(|opening| opening.r#type == "connected")
}

/// The beginning of a text that may be long.
fn short(text: &str) -> String {
    let mut short: String = text.chars().take(200).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
