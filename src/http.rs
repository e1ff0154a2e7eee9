//! The API: all routes on one screen.
//!
//! A request is read by [`request`], answered by the resource's own file, and whatever goes wrong
//! becomes a [`problem`]. [`net`](crate::net) brings the sockets.

mod admin;
mod board;
mod page;
pub(crate) mod problem;
mod request;
mod streams;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use tower::ServiceExt;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::admission::Admission;
use crate::background::Background;
use crate::board::Boards;
use crate::canary::Canary;
use crate::config::CorsOrigins;
use crate::position::Position;
use crate::stats::ClusterStats;
use crate::stream::Node;
use crate::telemetry::metric;
use problem::Problem;
use request::body_limit::BodyLimit;
use request::host::one_host;
use request::query::no_parameters;
use streams::LAST_EVENT_ID;

/// On the answer to a write that was carried out before.
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) node: Arc<Node>,
    pub(crate) stats: Arc<ClusterStats>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) background: Background,
    pub(crate) canary: Arc<Canary>,
    pub(crate) metrics: Option<PrometheusHandle>,
}

/// All routes. Those that read a query refuse parameters that they do not know, the others any.
pub(crate) fn router(
    app: App,
    boards: Arc<dyn Boards>,
    body_bytes_max: usize,
    origins: &CorsOrigins,
) -> Router {
    let with_parameters = Router::new()
        .route("/boards/{board}/events", get(streams::board_events))
        .route("/events", get(streams::events))
        .route("/topics/{topic}/events", get(streams::topic_events))
        .route("/topics/{topic}/history", get(topics::history))
        .route("/admin/connections", get(admin::connections))
        .route("/", get(page::index));
    let without_parameters = Router::new()
        // The task board
        .merge(board::routes(boards, app.node.clone()))
        // Topics
        .route("/topics/{topic}/events", post(topics::publish))
        // Operations
        .route("/metrics", get(admin::metrics))
        .route("/healthz", get(admin::healthz))
        .route("/readyz", get(admin::readyz))
        // The page
        .route("/app.js", get(page::script))
        .route("/style.css", get(page::style))
        .route("/favicon.svg", get(page::icon))
        .route_layer(middleware::from_fn(no_parameters));
    let routes = with_parameters
        .merge(without_parameters)
        .fallback(async || Problem::not_found("nothing answers to this path"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(Extension(BodyLimit::new(body_bytes_max)))
        .layer(cors(origins))
        .layer(middleware::from_fn(one_host))
        .layer(middleware::from_fn(count))
        .with_state(app);
    Router::new().fallback_service(routes.map_request(with_plain_slashes))
}

/// Slashes too many in the path of a stream say nothing: whoever joins a base and a path gets them
/// easily, and a 404 ends an `EventSource` for ever. Those that are part of a name are written `%2F`.
///
/// No other request is helped so: what is meant for `/metrics` has to look like it to whoever
/// guards it, in front of this node. `deploy/` has the same paths of streams.
fn with_plain_slashes(mut request: Request) -> Request {
    let uri = request.uri();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads || !(uri.path().contains("//") || uri.path().ends_with('/')) {
        return request;
    }
    let parts: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let (["events"] | ["boards" | "topics", _, "events"]) = parts[..] else { return request };
    let mut plain = format!("/{}", parts.join("/"));
    if let Some(query) = uri.query() {
        plain.push('?');
        plain.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    // It was a path before, and has fewer bytes now.
    parts.path_and_query = plain.try_into().ok();
    if let Ok(plain) = Uri::from_parts(parts) {
        *request.uri_mut() = plain;
    }
    request
}

/// Lets pages of other origins in; preflights are answered here.
fn cors(origins: &CorsOrigins) -> CorsLayer {
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([LAST_EVENT_ID, header::LOCATION, header::RETRY_AFTER, IDEMPOTENT_REPLAYED])
        .max_age(Duration::from_secs(3600));
    match origins {
        CorsOrigins::Any => layer.allow_origin(AllowOrigin::any()),
        CorsOrigins::Only(origins) => {
            let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
            layer.allow_origin(AllowOrigin::list(origins)).allow_credentials(true)
        }
    }
}

/// Counts requests by route, method and status.
async fn count(request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or("none", MatchedPath::as_str).to_owned();
    let method = match *request.method() {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        _ => "other",
    };
    let response = next.run(request).await;
    metric::request(route, method, response.status().as_u16());
    response
}

/// Says that this answer was given before, to the same request with the same idempotency key.
fn set_replayed(response: &mut Response, replayed: bool) {
    if replayed {
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
}

/// Puts a position into the `Last-Event-ID` header of a response.
fn set_last_event_id(response: &mut Response, position: Position) {
    if let Ok(id) = HeaderValue::from_str(&position.to_string()) {
        response.headers_mut().insert(LAST_EVENT_ID, id);
    }
}
