//! The task board page at `/`: plain HTML, CSS and JavaScript, part of the binary.
//!
//! It uses nothing but `fetch` and `EventSource`, as any user's page would.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::request::Parameters;
use super::request::query::Query;

/// The page runs its own script and no other, speaks with this node alone, and stands in no frame:
/// what somebody writes on a card stays text, whatever mistake shows it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// What the script reads of the page's address.
#[derive(Deserialize)]
pub(super) struct PageOptions {
    #[serde(rename = "board")]
    _board: Option<String>,
}

impl Query for PageOptions {}

pub(super) async fn index(_: Parameters<PageOptions>) -> Response {
    file("text/html; charset=utf-8", include_str!("../page/index.html"))
}

pub(super) async fn script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("../page/app.js"))
}

pub(super) async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("../page/style.css"))
}

pub(super) async fn icon() -> Response {
    file("image/svg+xml", include_str!("../page/favicon.svg"))
}

fn file(content_type: &'static str, text: &'static str) -> Response {
    let mut response = text.into_response();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        // A node of a newer version must not meet the script of an older one.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        // Whoever opens it in a window of theirs has no hold on it.
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
