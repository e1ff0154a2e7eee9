//! The API: all routes on one screen.
//!
//! A request is read by [`request`], answered by the resource's own file, and whatever goes wrong
//! becomes a [`problem`]. [`net`](crate::net) brings the sockets.

mod access;
mod admin;
mod board;
mod cors;
mod door;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod held;
mod page;
pub(crate) mod problem;
mod request;
mod revocations;
mod streams;
mod tickets;
mod topics;

use std::convert::Infallible;
use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use tower::{Layer, ServiceExt, service_fn};
use tower_http::cors::CorsLayer;

use crate::access::Access;
use crate::access::revocations::Revocations;
use crate::access::tickets::Tickets;
use crate::admission::client_rates::ClientRates;
use crate::admission::{Admission, NotAdmitted};
use crate::background::Background;
use crate::board::Boards;
use crate::canary::Canary;
use crate::config::{CorsOrigins, Hosts};
use crate::log::Catalogue;
use crate::net::Answer;
use crate::position::Position;
use crate::stats::ClusterStats;
use crate::stream::Node;
use crate::telemetry::metric;
use crate::wire::Encoding;
use access::{Caller, CountedAsNobody, account_of_nobody, identify};
use door::Door;
pub(crate) use held::OperatorsAnswers;
use problem::Problem;
use request::body_limit::BodyLimit;
use request::client::find_client;
pub(crate) use request::cookie::Cookies;
use request::query::no_parameters;
use streams::LAST_EVENT_ID;
pub(crate) use topics::Histories;

/// On the answer to a write that was carried out before.
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

/// The parts of an [`App`].
pub(crate) struct Shared {
    pub(crate) access: Arc<Access>,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) tickets: Arc<Tickets>,
    pub(crate) cookies: Arc<Cookies>,
    pub(crate) node: Arc<Node>,
    pub(crate) catalogue: Arc<dyn Catalogue>,
    /// What streams can be encoded in beside identity, what is preferred first.
    pub(crate) compression: Arc<[Encoding]>,
    pub(crate) stats: Arc<ClusterStats>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) rates: Arc<ClientRates>,
    pub(crate) background: Background,
    pub(crate) canary: Arc<Canary>,
    pub(crate) metrics: Option<PrometheusHandle>,
    pub(crate) histories: Histories,
    pub(crate) operators_answers: Arc<OperatorsAnswers>,
}

impl App {
    pub(crate) fn new(shared: Shared) -> App {
        App(Arc::new(shared))
    }
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// All routes. Those that read a query refuse parameters that they do not know, the others any. They
/// are for [callers](access::Caller) who may do something, unless it is said that they are for everybody.
fn routes(app: &App, boards: Arc<dyn Boards>) -> Vec<Route> {
    let mut routes = vec![
        // Streams
        Route::new("/boards/{board}/events", get(streams::board_events)),
        Route::new("/events", get(streams::events)),
        Route::new("/topics/{topic}/events", get(streams::topic_events).post(topics::publish))
            .without_parameters(&[Method::POST]),
        // Topics
        Route::new("/topics/{topic}/history", get(topics::history)),
        Route::new("/topics", get(topics::all)),
        Route::new("/topics/{topic}", delete(topics::delete)).without_parameters(&[Method::DELETE]),
        // Tokens
        Route::new("/tickets", post(tickets::issue)).without_parameters(&[Method::POST]),
        // Operations
        Route::new("/admin/connections", get(admin::connections)),
        revoke(),
        Route::new("/metrics", get(admin::metrics)).without_parameters(READS),
        Route::new("/healthz", get(admin::healthz)).without_parameters(READS).for_everybody(),
        Route::new("/readyz", get(admin::readyz)).without_parameters(READS).for_everybody(),
        // The page
        Route::new("/", get(page::index)).for_everybody(),
        Route::new("/app.js", get(page::script)).without_parameters(READS).for_everybody(),
        Route::new("/style.css", get(page::style)).without_parameters(READS).for_everybody(),
        Route::new("/favicon.svg", get(page::icon)).without_parameters(READS).for_everybody(),
    ];
    // The task board
    routes.extend(board::routes(boards, app.node.clone(), app.rates.clone()));
    routes
}

/// What the operators' door has, and nothing else: what the public is not told, for whoever can reach
/// it. It asks for no token, and it is the network's to keep others away.
fn routes_of_operators() -> Vec<Route> {
    vec![
        Route::new("/admin/connections", get(admin::connections)),
        revoke(),
        Route::new("/metrics", get(admin::metrics)).without_parameters(READS),
        Route::new("/healthz", get(admin::healthz_in_full)).without_parameters(READS),
        Route::new("/readyz", get(admin::readyz_in_full)).without_parameters(READS),
    ]
}

/// What both have.
fn revoke() -> Route {
    Route::new("/admin/revoke", post(revocations::revoke).delete(revocations::lift))
        .without_parameters(&[Method::POST, Method::DELETE])
}

/// Larger than what anybody has to tell the operators' door.
const OPERATORS_BODY_BYTES_MAX: usize = 16 << 10;

/// What is told of the node's health to everybody, always.
const HEALTH: [&str; 2] = ["/healthz", "/readyz"];

/// The methods that `get` answers to.
const READS: &[Method] = &[Method::GET, Method::HEAD];

/// Everything that answers to one path.
struct Route {
    path: &'static str,
    methods: MethodRouter<App>,
    without_parameters: &'static [Method],
    for_everybody: bool,
}

impl Route {
    fn new(path: &'static str, methods: MethodRouter<App>) -> Route {
        Route { path, methods, without_parameters: &[], for_everybody: false }
    }

    /// Nobody is asked who they are.
    fn for_everybody(self) -> Route {
        Route { for_everybody: true, ..self }
    }

    /// Of these methods any parameter is refused; the handlers of the others read theirs.
    fn without_parameters(self, without_parameters: &'static [Method]) -> Route {
        Route { without_parameters, ..self }
    }
}

/// What answers requests: the routes, and around them what is the same for all.
///
/// That is one function and no layers: a layer of axum's is put around each route, and costs every
/// request a copy of itself and of all within it, and some allocations. Five of them were a quarter
/// of the instructions of a small publish.
#[derive(Clone)]
pub(crate) struct Api(Arc<ApiParts>);

struct ApiParts {
    router: Router,
    /// Who callers are; without it each is an operator.
    identity: Option<App>,
    /// The same paths, to tell of a request which it is for, whatever comes of it.
    paths: matchit::Router<KnownPath>,
    body_limit: BodyLimit,
    door: Arc<Door>,
    cors: CorsLayer,
}

#[derive(Clone, Copy)]
struct KnownPath {
    path: &'static str,
    without_parameters: &'static [Method],
    for_everybody: bool,
}

impl Api {
    pub(crate) fn new(
        app: App,
        boards: Arc<dyn Boards>,
        body_bytes_max: usize,
        hosts: Hosts,
        origins: CorsOrigins,
    ) -> Api {
        let routes = routes(&app, boards);
        let identity = Some(app.clone());
        Api::of(routes, app, identity, body_bytes_max, Door::new(hosts, origins))
    }

    /// The operators' door, which answers to these hosts. Health it tells whatever the node is
    /// called: those who ask for it call it by an address.
    pub(crate) fn of_operators(app: App, hosts: Hosts) -> Api {
        let door = Door::to_operators(hosts, &HEALTH);
        Api::of(routes_of_operators(), app, None, OPERATORS_BODY_BYTES_MAX, door)
    }

    fn of(
        routes: Vec<Route>,
        app: App,
        identity: Option<App>,
        body_bytes_max: usize,
        door: Door,
    ) -> Api {
        let (mut router, mut paths) = (Router::new(), matchit::Router::new());
        for Route { path, methods, without_parameters, for_everybody } in routes {
            router = router.route(path, methods);
            let known = KnownPath { path, without_parameters, for_everybody };
            let inserted = paths.insert(path, known);
            debug_assert!(inserted.is_ok(), "the router took {path}");
        }
        let router = router
            .fallback(async || Problem::not_found("nothing answers to this path"))
            .method_not_allowed_fallback(async || Problem::method_not_allowed())
            .with_state(app);
        let body_limit = BodyLimit::new(body_bytes_max);
        let door = Arc::new(door);
        let cors = cors::layer(&door);
        Api(Arc::new(ApiParts { router, identity, paths, body_limit, door, cors }))
    }

    /// Past what pages of other origins are held to.
    async fn route(
        &self,
        mut request: Request,
        known: Option<KnownPath>,
    ) -> Result<Response, Infallible> {
        let known_path = known.map_or("", |known| known.path);
        let identified = match (known, &self.0.identity) {
            (Some(KnownPath { path, for_everybody: false, .. }), Some(app)) => {
                identify(app, path, &mut request).await
            }
            (Some(KnownPath { for_everybody: false, .. }), None) => {
                request.extensions_mut().insert(Caller::operator());
                Ok(())
            }
            _ => Ok(()),
        };
        if let Some(app) = &self.0.identity
            && let Err(problem) = count_request(&app.rates, known_path, &request)
        {
            return Ok(problem.into_response());
        }
        if let Err(problem) = identified {
            return Ok(problem.into_response());
        }
        let takes_none =
            known.is_some_and(|known| known.without_parameters.contains(request.method()));
        if takes_none && let Err(problem) = no_parameters(request.uri()) {
            return Ok(problem.into_response());
        }
        request.extensions_mut().insert(self.0.body_limit.clone());
        self.0.router.clone().oneshot(request).await
    }
}

/// Counts a request on this path, or on none that is known, for whoever sends it, believed or not. Who
/// asks how the node does is answered always.
fn count_request(rates: &ClientRates, path: &str, request: &Request) -> Result<(), Problem> {
    let caller = request.extensions().get::<Caller>();
    let is_counted = caller.is_none() && request.extensions().get::<CountedAsNobody>().is_some();
    if HEALTH.contains(&path) || is_counted {
        return Ok(());
    }
    let account = caller.map_or_else(|| account_of_nobody(request), |caller| caller.account);
    rates.request(account).map_err(|why| match request.method() {
        &Method::GET if path.ends_with("/events") => NotAdmitted::Requests(why).into(),
        _ => Problem::too_fast("requests", "requests", why),
    })
}

impl Answer for Api {
    async fn answer(&self, request: Request) -> Response {
        let mut request = with_plain_slashes(request);
        let known = self.0.paths.at(request.uri().path()).ok().map(|matched| *matched.value);
        let method = request.method().clone();
        let admitted = self.0.door.admit(&request);
        let admitted = admitted.and_then(|sender| find_client(&mut request).map(|()| sender));
        let mut response = match admitted {
            Ok(sender) => {
                request.extensions_mut().insert(sender);
                let routes = service_fn(|request| self.route(request, known));
                let Ok(response) = self.0.cors.layer(routes).oneshot(request).await;
                response
            }
            Err(problem) => problem.into_response(),
        };
        door::secure(response.headers_mut());
        let path = known.map_or("none", |known| known.path);
        metric::request(path, name_of(&method), response.status().as_u16());
        response
    }
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

/// The word in metrics.
fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        _ => "other",
    }
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
