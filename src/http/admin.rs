//! `GET /admin/connections`, `GET /metrics`, `GET /healthz`, `GET /readyz`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::App;
use crate::canary::Level;
use crate::hub::Census;
use crate::telemetry::metric;

/// Streams over all nodes.
#[derive(Default, Serialize)]
pub(super) struct Connections {
    total: usize,
    boards: BTreeMap<String, usize>,
    topics: BTreeMap<String, usize>,
    nodes: BTreeMap<String, Census>,
    /// False while the other nodes' reports cannot be read: then this node speaks for itself alone.
    complete: bool,
}

/// Other nodes are counted as they were at their last report, at most some seconds ago.
pub(super) async fn connections(State(app): State<App>) -> Json<Connections> {
    let reports = app.registry.reports().await;
    let mut all = Connections { complete: reports.is_ok(), ..Connections::default() };
    for (node, report) in reports.unwrap_or_default() {
        // A node of another version may say something we cannot read; its total is not ours to guess.
        if let Ok(census) = serde_json::from_str(&report) {
            all.nodes.insert(node, census);
        }
    }
    let own = app.node.hub.census(app.admission.streams());
    all.nodes.insert(app.node.id.clone(), own);
    for census in all.nodes.values() {
        all.total += census.total;
        for (group, counts) in
            [(&mut all.boards, &census.with_state), (&mut all.topics, &census.topics)]
        {
            for (name, count) in counts {
                *group.entry(name.clone()).or_default() += count;
            }
        }
    }
    Json(all)
}

pub(super) async fn metrics(State(app): State<App>) -> Response {
    metric::topics(app.node.hub.count());
    metric::budget_held(app.node.replays.bytes_held());
    app.canary.measure();
    let text = app.metrics.as_ref().map(|metrics| metrics.render()).unwrap_or_default();
    let mut response = text.into_response();
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// The process is alive and answers: 200 as long as none of its parts has ended, else 503.
pub(super) async fn healthz(State(app): State<App>) -> (StatusCode, String) {
    match app.background.fault() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// Whether this node can deliver (promise 8): 200 while ready or degraded, else 503.
pub(super) async fn readyz(State(app): State<App>) -> Response {
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
    let draining = app.node.endings.all_ended();
    let state = app.canary.state();
    let (code, status) = match (draining, state.level) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (_, Level::Ready) => (StatusCode::OK, "ready"),
        (_, Level::Degraded) => (StatusCode::OK, "degraded"),
        (_, Level::NotReady) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let body = Ready {
        status,
        node: &app.node.id,
        log: app.node.probe.name(),
        canary_age_seconds: state.age.map(|age| age.as_secs_f64()),
        reason: state.reason,
    };
    let mut response = (code, Json(body)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
