//! [`Problem`]: every error the API answers with, as RFC 9457 `application/problem+json`. The
//! place that maps errors to statuses; an application maps its own beside its routes.

use std::ops::RangeInclusive;
use std::sync::{LazyLock, Mutex, PoisonError};

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::admission::NotAdmitted;
use crate::admission::rates::TooFast;
use crate::backoff::Rarely;
use crate::log::LogError;
use crate::position::Position;
use crate::telemetry::metric;
use crate::wire::Encoding;

/// When those come again who may. Spread, so that they do not come together.
const RETRY_SECONDS: RangeInclusive<u32> = 1..=5;

/// An error as a client sees it.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    status: StatusCode,
    /// The last part of the `type` URN.
    kind: &'static str,
    title: &'static str,
    detail: String,
    retry_after_seconds: Option<u32>,
    /// Where the log is, if that is what is wrong.
    head: Option<Position>,
    /// What was done too often, and its rate. Boxed: few have it, and all are handed on.
    limit: Option<Box<(&'static str, TooFast)>>,
    /// Whatever else the status wants to be said: name and value.
    header: Option<&'static [&'static str; 2]>,
}

impl Problem {
    /// Says what is wrong: `kind` is the last part of the `type` URN.
    pub(super) fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: String,
    ) -> Problem {
        Problem {
            status,
            kind,
            title,
            detail,
            retry_after_seconds: None,
            head: None,
            limit: None,
            header: None,
        }
    }

    /// Says something in a header, too: its name in small letters, and its value.
    pub(super) fn with_header(mut self, header: &'static [&'static str; 2]) -> Problem {
        self.header = Some(header);
        self
    }

    /// 400: what was sent can never be accepted.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "bad-request", "Bad request", detail.into())
    }

    /// 404 for an id that cannot exist, or a path that nothing answers to.
    pub(crate) fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail.into())
    }

    pub(crate) fn method_not_allowed() -> Problem {
        Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "Method not allowed",
            "the Allow header lists the methods of this path".to_owned(),
        )
    }

    /// 406: a stream was asked for in none of the encodings that there are.
    pub(super) fn no_encoding(offered: &[Encoding]) -> Problem {
        let names: Vec<&str> = offered.iter().map(|encoding| encoding.name()).collect();
        Problem::new(
            StatusCode::NOT_ACCEPTABLE,
            "not-acceptable",
            "Not acceptable",
            format!(
                "Accept-Encoding excludes everything that there is: {} and identity",
                names.join(", ")
            ),
        )
        .with_header(&["vary", "accept-encoding"])
    }

    /// 500: what the log has is not what was ever put there.
    pub(super) fn broken(detail: String) -> Problem {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Problem::new(status, "entry-broken", "Entry broken", detail)
    }

    /// 503 with a jittered `Retry-After`: another node, or a later moment, will do.
    pub(super) fn try_later(kind: &'static str, title: &'static str, detail: String) -> Problem {
        let mut problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, kind, title, detail);
        problem.retry_after_seconds = Some(fastrand::u32(RETRY_SECONDS));
        problem
    }

    /// 429 with a jittered `Retry-After`: whoever asks has as much as they may for now.
    pub(super) fn too_many(kind: &'static str, title: &'static str, detail: String) -> Problem {
        let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, kind, title, detail);
        problem.retry_after_seconds = Some(fastrand::u32(RETRY_SECONDS));
        problem
    }

    /// 429 with `Retry-After`: whoever asks does more of this than they may in the time. `of` says
    /// of what, and `doing` as the end of a sentence.
    pub(super) fn too_fast(of: &'static str, doing: &str, why: TooFast) -> Problem {
        metric::request_limited(of);
        let detail = too_fast_in_words(doing, why);
        let status = StatusCode::TOO_MANY_REQUESTS;
        Problem::new(status, "too-fast", "Too fast", detail).with_limit(of, why)
    }

    /// The same for somebody else who asked together with others: they come again at other moments.
    pub(super) fn for_another(mut self) -> Problem {
        if self.limit.is_none() {
            self.retry_after_seconds =
                self.retry_after_seconds.map(|_| fastrand::u32(RETRY_SECONDS));
        }
        self
    }

    fn with_limit(mut self, of: &'static str, why: TooFast) -> Problem {
        self.retry_after_seconds = Some(why.retry_after_seconds());
        self.limit = Some(Box::new((of, why)));
        self
    }

    /// 503: the node is about to stop.
    pub(crate) fn draining() -> Problem {
        Problem::try_later("draining", "Draining", "this node is about to stop".to_owned())
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Problem {
        match error {
            LogError::ReservedEventType => Problem::new(
                StatusCode::CONFLICT,
                "event-type-of-board",
                "Event type of the board",
                "this topic belongs to a board, and events of this type come from changes of the \
                 board alone"
                    .to_owned(),
            ),
            LogError::HasState => Problem::new(
                StatusCode::CONFLICT,
                "topic-of-board",
                "Topic of a board",
                "this topic belongs to a board: its history goes with the board".to_owned(),
            ),
            LogError::PreconditionFailed(head) => {
                let mut problem = Problem::new(
                    StatusCode::PRECONDITION_FAILED,
                    "head-moved",
                    "Head moved",
                    format!("the newest event is at {head} and not where If-Match says"),
                );
                problem.head = Some(head);
                problem
            }
            LogError::KeyReused => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "other-request",
                "Idempotency key of another request",
                "this Idempotency-Key came before, with another request".to_owned(),
            ),
            LogError::Unavailable(reason) => {
                say_rarely(&reason);
                Problem::try_later(
                    "log-unavailable",
                    "Log unavailable",
                    "nothing was changed: the log cannot be reached, or refuses".to_owned(),
                )
            }
            LogError::OutcomeUnknown(reason) => {
                say_rarely(&reason);
                Problem::try_later(
                    "outcome-unknown",
                    "Outcome unknown",
                    "if this was a change, it may or may not have happened: the log did not say"
                        .to_owned(),
                )
            }
        }
    }
}

/// Tells operators what the log has said. It is not for whoever asks: it may name servers, users
/// and scripts.
fn say_rarely(reason: &str) {
    static LINE: LazyLock<Mutex<Rarely>> = LazyLock::new(Mutex::default);
    if LINE.lock().unwrap_or_else(PoisonError::into_inner).is_due() {
        tracing::warn!(reason, "a request was answered 503 for the log's sake");
    }
}

impl From<NotAdmitted> for Problem {
    fn from(why: NotAdmitted) -> Problem {
        metric::connection_refused(why.as_str());
        let full = |detail: &str| Problem::try_later("full", "Full", detail.to_owned());
        // An `EventSource` that is told 429 never comes back; 503 has the next node tried.
        let too_fast = |of, doing, why| {
            let detail = too_fast_in_words(doing, why);
            Problem::try_later("too-fast", "Too fast", detail).with_limit(of, why)
        };
        let problem = match why {
            NotAdmitted::Full => full("this node carries as many streams as it may"),
            NotAdmitted::AddressFull => full("this client address has as many streams as it may"),
            NotAdmitted::SubjectFull => full("this token's subject has as many streams as it may"),
            NotAdmitted::TopicsFull => full("this node follows as many topics as it may"),
            NotAdmitted::AddressTopicsFull => {
                full("the streams of this client address follow as many topics as they may")
            }
            NotAdmitted::NewTopics(why) => {
                too_fast("newTopics", "topics that nobody followed here before", why)
            }
            NotAdmitted::Requests(why) => too_fast("requests", "requests", why),
        };
        // Nothing else is wished for on this connection: it shall not hold a place. (Over HTTP/2,
        // where connections are few, the server leaves the header out.)
        problem.with_header(&["connection", "close"])
    }
}

/// Says what the rate is, of these.
fn too_fast_in_words(of: &str, TooFast { rate, .. }: TooFast) -> String {
    let within = humantime::format_duration(rate.window);
    format!("this client may have {} {of} within {within}", rate.count)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Document<'a> {
            r#type: String,
            title: &'a str,
            status: u16,
            detail: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            limit: Option<Limit>,
        }
        /// What a client that minds it needs, with the `Retry-After` of the header.
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Limit {
            of: &'static str,
            count: u32,
            window_seconds: f64,
            retry_after_seconds: u32,
        }
        let body = crate::json::to_text(&Document {
            r#type: format!("urn:fantail:problem:{}", self.kind),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            limit: self.limit.map(|limit| *limit).map(|(of, why)| Limit {
                of,
                count: why.rate.count,
                window_seconds: why.rate.window.as_secs_f64(),
                retry_after_seconds: why.retry_after_seconds(),
            }),
        });
        let content_type = HeaderValue::from_static("application/problem+json");
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, content_type);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some([name, value]) = self.header {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        if let Some(head) = self.head {
            super::set_last_event_id(&mut response, head);
        }
        response
    }
}
