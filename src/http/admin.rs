//! `GET /admin/connections`, `GET /metrics`, `GET /healthz`, `GET /readyz`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::App;
use super::access::Administrator;
use super::held::OperatorsAnswers;
use super::problem::Problem;
use super::request::query::Query;
use super::request::{self, Parameters};
use crate::canary::Level;
use crate::json;
use crate::log::TopicStreams;
use crate::stats::{Largest, NodeView, TOLD_TOPICS_MAX, View};
use crate::telemetry::metric;
use crate::topic::Topic;

/// Topics of each kind that are shown unless the question says otherwise.
const LIMIT: usize = 100;

#[derive(Deserialize)]
pub(super) struct ConnectionsOptions {
    limit: Option<usize>,
    topic: Option<String>,
}

impl Query for ConnectionsOptions {}

/// Streams over all nodes. Topics stand in the order of their streams, the largest first.
#[derive(Serialize)]
struct Connections<'a> {
    total: usize,
    boards: Streams<'a>,
    topics: Streams<'a>,
    nodes: Nodes<'a>,
    /// False while the other nodes cannot be asked: they are here as they last were, then no more.
    complete: bool,
    /// Topics that are left out.
    omitted: usize,
}

/// Streams of one node.
#[derive(Serialize)]
struct NodeConnections<'a> {
    total: usize,
    boards: Streams<'a>,
    topics: Streams<'a>,
    omitted: usize,
}

/// What is shown of topics.
#[derive(Clone, Copy)]
enum Shown<'a> {
    /// So many of each kind.
    Largest(usize),
    /// One, and its streams on this node.
    One(&'a TopicStreams),
}

/// An object of topics and their streams.
enum Streams<'a> {
    /// In this order.
    Largest(&'a [(Topic, usize)]),
    /// One, unless it has none.
    One(&'a Topic, usize),
}

impl Serialize for Streams<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Streams::Largest(topics) => {
                serializer.collect_map(topics.iter().map(|(topic, streams)| (topic, streams)))
            }
            Streams::One(_, 0) => serializer.serialize_map(Some(0))?.end(),
            Streams::One(topic, streams) => serializer.collect_map([(topic, streams)]),
        }
    }
}

struct Nodes<'a> {
    view: &'a View,
    own: &'a str,
    shown: Shown<'a>,
}

impl Serialize for Nodes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Nodes { view, own, shown } = self;
        serializer.collect_map(view.nodes.iter().map(|(name, node)| {
            let [boards, topics] = [true, false].map(|has_state| match shown {
                Shown::Largest(limit) => largest(&node.largest, has_state, *limit),
                Shown::One(one) => {
                    Streams::One(&one.topic, on_node(node, name == own, one, has_state))
                }
            });
            let omitted = match shown {
                Shown::Largest(_) => node.totals.topics.saturating_sub(boards.len() + topics.len()),
                Shown::One(_) if name == own => 0,
                Shown::One(_) => node.untold(),
            };
            (name, NodeConnections { total: node.totals.streams, boards, topics, omitted })
        }))
    }
}

impl Streams<'_> {
    fn len(&self) -> usize {
        match self {
            Streams::Largest(topics) => topics.len(),
            Streams::One(_, streams) => usize::from(*streams > 0),
        }
    }
}

fn largest(largest: &Largest, has_state: bool, limit: usize) -> Streams<'_> {
    let topics = largest.of(has_state);
    Streams::Largest(&topics[..limit.min(topics.len())])
}

/// How many streams of a node follow a topic of this kind, as far as the node has told; of this
/// node it is known.
fn on_node(node: &NodeView, is_own: bool, one: &TopicStreams, has_state: bool) -> usize {
    if is_own {
        return if one.has_state == has_state { one.streams } else { 0 };
    }
    let told = node.largest.of(has_state).iter().find(|(topic, _)| *topic == one.topic);
    told.map_or(0, |(_, streams)| *streams)
}

/// Answers from a view that is shared by all who ask. What this node serves is in it within half a
/// second, what the others serve within a second.
pub(super) async fn connections(
    _: Administrator,
    State(app): State<App>,
    Parameters(options): Parameters<ConnectionsOptions>,
) -> Result<Response, Problem> {
    let topic = options.topic.as_deref().map(request::topic).transpose()?;
    let limit = options.limit.unwrap_or(LIMIT).min(TOLD_TOPICS_MAX);
    let make = async || {
        let own = topic.as_ref().map(|topic| app.stats.own_streams(topic));
        let shown = own.as_ref().map_or(Shown::Largest(limit), Shown::One);
        Ok(connections_text(&app, shown).into())
    };
    let OperatorsAnswers { budget, connections, .. } = &*app.operators_answers;
    let question = (limit, topic.clone());
    connections.answer(budget, question, "application/json", make).await
}

fn connections_text(app: &App, shown: Shown<'_>) -> String {
    let view = app.stats.view();
    let [boards, topics] = [true, false].map(|has_state| match shown {
        Shown::Largest(limit) => largest(&view.largest, has_state, limit),
        Shown::One(one) => {
            let nodes = view.nodes.iter();
            let streams =
                nodes.map(|(name, node)| on_node(node, *name == app.node.id, one, has_state));
            Streams::One(&one.topic, streams.sum())
        }
    });
    let omitted = match shown {
        Shown::Largest(_) => {
            let told = view.largest.with_state.len() + view.largest.plain.len();
            view.omitted + told - boards.len() - topics.len()
        }
        Shown::One(_) => {
            let others = view.nodes.iter().filter(|(name, _)| **name != app.node.id);
            others.map(|(_, node)| node.untold()).sum()
        }
    };
    let nodes = Nodes { view: &view, own: &app.node.id, shown };
    let (total, complete) = (view.total(), view.complete);
    json::to_text(&Connections { total, boards, topics, nodes, complete, omitted })
}

pub(super) async fn metrics(_: Administrator, State(app): State<App>) -> Result<Response, Problem> {
    let make = async || {
        metric::topics(app.node.hub.count());
        metric::budget_held(app.node.replays.budget().held());
        app.canary.measure();
        Ok(app.metrics.as_ref().map(|metrics| metrics.render()).unwrap_or_default().into())
    };
    let OperatorsAnswers { budget, metrics, .. } = &*app.operators_answers;
    metrics.answer(budget, (), "text/plain; version=0.0.4; charset=utf-8", make).await
}

/// The process is alive and answers: 200 as long as none of its parts has ended, else 503. Why is for
/// operators: what a part ended with may be what Redis has said.
pub(super) async fn healthz(State(app): State<App>) -> (StatusCode, &'static str) {
    match app.background.fault() {
        None => (StatusCode::OK, "ok\n"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "a part of this node has ended\n"),
    }
}

/// The same for operators: with what has gone wrong.
pub(super) async fn healthz_in_full(State(app): State<App>) -> (StatusCode, String) {
    match app.background.fault() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// Whether this node can deliver (`docs/guarantees.md`, 8): 200 while ready or degraded, else 503.
/// The word is all that a load balancer needs.
pub(super) async fn readyz(State(app): State<App>) -> Response {
    #[derive(Serialize)]
    struct Ready {
        status: &'static str,
    }
    let (code, status) = readiness(&app, app.canary.state().level);
    not_stored(code, Ready { status })
}

/// The same for operators: with what is known of it.
pub(super) async fn readyz_in_full(State(app): State<App>) -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Ready<'a> {
        status: &'a str,
        node: &'a str,
        log: &'a str,
        /// Since the canary was last heard; null if it never was.
        canary_age_seconds: Option<f64>,
        /// What went wrong last, while something does.
        reason: Option<String>,
    }
    let state = app.canary.state();
    let (code, status) = readiness(&app, state.level);
    let body = Ready {
        status,
        node: &app.node.id,
        log: app.node.probe.name(),
        canary_age_seconds: state.age.map(|age| age.as_secs_f64()),
        reason: state.reason,
    };
    not_stored(code, body)
}

fn readiness(app: &App, level: Level) -> (StatusCode, &'static str) {
    match (app.node.endings.all_ended(), level) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (_, Level::Ready) => (StatusCode::OK, "ready"),
        (_, Level::Degraded) => (StatusCode::OK, "degraded"),
        (_, Level::NotReady) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    }
}

fn not_stored(code: StatusCode, body: impl Serialize) -> Response {
    let mut response = (code, Json(body)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
