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

use super::events::{Heard, Interpreter};
use super::judge::{Judge, Question, Reset};
use super::payload::Recognised;
use super::plan::{Join, Role};
use super::publisher::is_refusal;
use super::view::Reason;
use super::{Kind, Phase, Scene};
use crate::position::{Position, read_id};

/// How long at most a subscriber is away that left in order to come back.
const AWAY: Duration = Duration::from_millis(50);

/// How long it waits at most before it asks another gateway when one cannot serve it.
const ELSEWHERE_AFTER: Duration = Duration::from_millis(200);

/// A subscriber and what it remembers between its streams.
struct Subscriber {
    scene: Arc<Scene>,
    number: usize,
    role: Role,
    last_event_id: String,
    /// The last reconnection time that a stream told.
    retry: Duration,
    /// Index of the URL it was at last.
    at: usize,
    /// When the current stream was asked for.
    asked_at: Duration,
    /// Whether the current stream has had its opening event.
    greeted: bool,
}

/// Why a stream was left.
enum End {
    /// By the subscriber, to come back elsewhere.
    Roamed,
    /// It never was one: nobody answered, or somebody who cannot serve now.
    Refused(String),
    /// By the other side, or because it was silent for too long.
    Dropped { why: String, silent: bool },
}

/// Follows its topics until the phase says otherwise.
pub(super) async fn run(
    scene: Arc<Scene>,
    number: usize,
    role: Role,
    mut phase: watch::Receiver<Phase>,
) {
    if let Join::Now(percent) | Join::Earliest(percent) = role.join {
        let late = scene.plan.duration.mul_f64(f64::from(percent) / 100.0);
        tokio::select! {
            biased;
            // Who has not come by now does not come any more.
            _ = phase.wait_for(|phase| *phase > Phase::Publishing) => return,
            () = async { scene.until_publishing(late).await } => {}
        }
    }
    let mut subscriber = Subscriber {
        at: fastrand::usize(..scene.plan.urls.len()),
        scene,
        number,
        role,
        last_event_id: String::new(),
        retry: Duration::MAX,
        asked_at: Duration::ZERO,
        greeted: false,
    };
    let closing = async { phase.clone().wait_for(|phase| *phase == Phase::Closing).await.is_ok() };
    tokio::select! {
        biased;
        _ = closing => {}
        () = subscriber.roam(phase.clone()) => {}
    }
}

impl Subscriber {
    /// Opens one stream after the other, for ever.
    async fn roam(&mut self, phase: watch::Receiver<Phase>) {
        loop {
            let count = self.scene.plan.urls.len();
            if count > 1 {
                self.at = (self.at + fastrand::usize(1..count)) % count;
            }
            let end = self.visit(phase.clone()).await;
            let now = self.scene.now();
            let wait = match end {
                End::Roamed => {
                    self.scene.judge().roamed(self.number, now);
                    AWAY
                }
                End::Refused(why) => {
                    self.scene.judge().dropped(self.number, &why, false, now);
                    // Another node will do: this is what load balancers do for browsers.
                    ELSEWHERE_AFTER.min(self.scene.plan.retry_max)
                }
                End::Dropped { why, silent } => {
                    self.scene.judge().dropped(self.number, &why, silent, now);
                    self.retry.min(self.scene.plan.retry_max)
                }
            };
            tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
    }

    /// One stream, from request to end.
    async fn visit(&mut self, mut phase: watch::Receiver<Phase>) -> End {
        let base = self.scene.plan.urls[self.at].to_string();
        let url = format!("{base}{}", self.path());
        self.asked_at = self.scene.now();
        self.scene.judge().asks(self.number, &base, self.asked_at);
        let response = match self.scene.client.stream(&url, &self.last_event_id).await {
            Ok(response) => response,
            Err(why) => return End::Refused(format!("{base}: {why}")),
        };
        let status = response.status().as_u16();
        let content_type = response.headers().get(hyper::header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_stream = content_type.split(';').next().map(str::trim) == Some("text/event-stream");
        if is_refusal(status) || status == 204 || (status == 200 && !is_stream) {
            let came = format!("{base} answered {status} {content_type}");
            let expected =
                "200 text/event-stream, or an error that passes: a browser never asks again";
            let now = self.scene.now();
            let mut judge = self.scene.judge();
            judge.complain(Kind::FatalAnswer, self.number, None, expected, came.clone(), now);
            return End::Refused(came);
        }
        if status != 200 {
            return End::Refused(format!("{base} answered {status}"));
        }
        self.scene.judge().opened(response.version() == Version::HTTP_2);
        self.greeted = false;
        let leave = self.scene.plan.roam.filter(|_| self.role.roams);
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
            () = leave => End::Roamed,
        }
    }

    /// Reads a stream to its end.
    async fn read(&mut self, mut body: Incoming) -> End {
        let mut interpreter = Interpreter::new(&self.last_event_id);
        let silence_max = self.scene.plan.silence_max;
        loop {
            let frame = match tokio::time::timeout(silence_max, body.frame()).await {
                Err(_) => {
                    let why = format!("no byte came for {silence_max:?}");
                    return End::Dropped { why, silent: true };
                }
                Ok(None) => return End::Dropped { why: "it ended".to_owned(), silent: false },
                Ok(Some(Err(error))) => {
                    return End::Dropped { why: error.to_string(), silent: false };
                }
                Ok(Some(Ok(frame))) => frame,
            };
            let Some(bytes) = frame.data_ref() else { continue };
            let scene = self.scene.clone();
            let now = scene.now();
            let mut questions = Vec::new();
            let fed = {
                let mut judge = scene.judge();
                interpreter.feed(bytes, |heard| {
                    questions.extend(self.hear(&mut judge, heard, now));
                })
            };
            for question in questions {
                scene.ask(question);
            }
            self.last_event_id.clear();
            self.last_event_id.push_str(interpreter.last_event_id());
            if let Some(retry) = interpreter.retry_milliseconds() {
                self.retry = Duration::from_millis(retry);
            }
            if fed.is_err() {
                return End::Dropped { why: "a line without end".to_owned(), silent: false };
            }
        }
    }

    /// Takes one event to the judge.
    fn hear(&mut self, judge: &mut Judge, heard: Heard<'_>, now: Duration) -> Vec<Question> {
        let number = self.number;
        let mut questions = Vec::new();
        let garbled = |judge: &mut Judge, expected: &str, came: String| {
            judge.complain(Kind::Garbled, number, None, expected, came, now);
        };
        let Some(places) = self.places(heard.id) else {
            let came = format!("the id {:?} on an event of type {:?}", heard.id, heard.kind);
            garbled(judge, "an id with the place in every topic of the stream", came);
            return questions;
        };
        if heard.kind == "message" && is_hello(heard.data) {
            self.greeted = true;
            for (&topic, place) in self.role.topics.iter().zip(places) {
                let is_first = judge.at(number, topic).is_none();
                judge.hello(number, topic, place, now);
                if is_first && matches!(self.role.join, Join::Earliest(_)) {
                    questions.extend(judge.wanted_earliest(
                        number,
                        topic,
                        place,
                        self.asked_at,
                        now,
                    ));
                }
            }
            return questions;
        }
        if !std::mem::replace(&mut self.greeted, true) {
            let came = format!("{:?} at {}", heard.kind, heard.id);
            garbled(judge, "the opening event before any other", came);
        }
        if heard.kind == "reset" {
            questions.extend(self.hear_reset(judge, heard, &places, now));
            return questions;
        }
        let recognised = self.scene.payload.recognise(heard.kind, heard.data);
        let token = match recognised {
            Recognised::Event(token) | Recognised::Altered(token) => Some(token),
            Recognised::Stranger => None,
        };
        let Some((topic, place)) = self.moved(judge, &places, token) else {
            let came = format!("the id {}", heard.id);
            garbled(judge, "an id in which one topic has moved on", came);
            return questions;
        };
        match recognised {
            Recognised::Event(token) => judge.entry(number, topic, place, Some(token), now),
            Recognised::Altered(token) => {
                judge.entry(number, topic, place, Some(token), now);
                let came = format!("type {:?}, data {:?}", heard.kind, short(heard.data));
                let expected = "the type and data that were published";
                judge.complain(Kind::Altered, number, Some(topic), expected, came, now);
            }
            Recognised::Stranger => {
                judge.entry(number, topic, place, None, now);
                let came = format!("{place}: type {:?}, data {:?}", heard.kind, short(heard.data));
                let expected = "events of this check alone";
                judge.complain(Kind::Stray, number, Some(topic), expected, came, now);
            }
        }
        questions
    }

    fn hear_reset(
        &self,
        judge: &mut Judge,
        heard: Heard<'_>,
        places: &[Position],
        now: Duration,
    ) -> Option<Question> {
        let read = || {
            let data: ResetData<'_> = serde_json::from_str(heard.data).ok()?;
            let names = &self.scene.topics;
            let mut topics = self.role.topics.iter().zip(places);
            let (&topic, &resume) = topics.find(|(topic, _)| names[**topic] == data.topic)?;
            let reason = match data.reason {
                "trimmed" => Reason::Trimmed,
                "lost" => Reason::Lost,
                "unreadable" => Reason::Unreadable,
                _ => return None,
            };
            let place = |text: Option<&str>| text.map(str::parse::<Position>).transpose();
            let (oldest, head) = (place(data.oldest).ok()?, place(data.head).ok()?);
            let reset = Reset { reason, from: data.from.to_owned(), oldest, head };
            Some((topic, reset, resume))
        };
        let Some((topic, reset, resume)) = read() else {
            let expected = "topic, reason, from, oldest and head of a reset of this stream";
            let came = short(heard.data);
            judge.complain(Kind::BadReset, self.number, None, expected, came, now);
            return None;
        };
        judge.reset(self.number, topic, &reset, resume, now)
    }

    /// The topic that an entry is of, and its place: the one that has moved in the stream's id.
    fn moved(
        &self,
        judge: &Judge,
        places: &[Position],
        token: Option<super::ledger::Token>,
    ) -> Option<(usize, Position)> {
        let topics = || self.role.topics.iter().copied().zip(places.iter().copied());
        if let [topic] = self.role.topics[..] {
            return Some((topic, places[0]));
        }
        let mut moved =
            topics().filter(|(topic, place)| judge.at(self.number, *topic) != Some(*place));
        match (moved.next(), moved.next()) {
            (Some(one), None) => Some(one),
            (Some(_), Some(_)) => None,
            // Nothing moved: something that was delivered already comes again.
            (None, _) => {
                let topic = judge.topic_of(token?)?;
                topics().find(|(its, _)| *its == topic)
            }
        }
    }

    /// The places in an id, in the order of the subscriber's topics.
    fn places(&self, id: &str) -> Option<Vec<Position>> {
        read_id(id, &self.topic_names())
    }

    fn topic_names(&self) -> Vec<&str> {
        self.role.topics.iter().map(|&topic| self.scene.topics[topic].as_str()).collect()
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
fn is_hello(data: &str) -> bool {
    #[derive(Deserialize)]
    struct Hello<'a> {
        r#type: &'a str,
    }
    serde_json::from_str::<Hello<'_>>(data).is_ok_and(|hello| hello.r#type == "connected")
}

/// The beginning of a text that may be long.
fn short(text: &str) -> String {
    let mut short: String = text.chars().take(200).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
