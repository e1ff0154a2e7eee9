//! A token in a cookie: reading it, and who may write with it.
//!
//! A browser sends a cookie along whatever page asks for it. So what is read by it is kept from
//! foreign pages by the browser (no answer of ours lets them see it), and what is written by it must
//! come from a page that may.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::super::door::Sender;
use super::super::problem::Problem;
use crate::telemetry::metric;

/// What a browser says of the page that asks (Fetch Metadata); no page can write it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The cookie that may carry a token.
#[derive(Debug)]
pub(crate) struct Cookies {
    name: String,
}

impl Cookies {
    /// Of this name.
    pub(crate) fn new(name: &str) -> Cookies {
        Cookies { name: name.to_owned() }
    }

    /// The token that a request shows by it.
    ///
    /// # Errors
    /// 400 if it cannot be told, 403 if the request is a write that a foreign page may have sent.
    pub(in crate::http) fn token<'a>(
        &self,
        request: &'a Request,
    ) -> Result<Option<&'a str>, Problem> {
        let token = token_cookie(request.headers(), &self.name)?;
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let sender = request.extensions().get().copied();
        if token.is_some() && !is_read && !may_write(sender, request.headers()) {
            metric::access_refused("page");
            let detail = "a write with a cookie needs an Origin that is this host or one of \
                          FANTAIL_CORS_ORIGINS";
            let status = StatusCode::FORBIDDEN;
            return Err(Problem::new(status, "foreign-page", "Foreign page", detail.to_owned()));
        }
        Ok(token)
    }
}

/// The value of the cookie of this name (RFC 6265 §4.2.1). Other cookies are other programs', which
/// may write them as they like.
///
/// # Errors
/// When there are two, which browsers send if another program of the same site, or somebody else,
/// has set one too; or when it is none that we would have set.
pub(in crate::http) fn token_cookie<'a>(
    headers: &'a HeaderMap,
    name: &str,
) -> Result<Option<&'a str>, Problem> {
    let mut found = None;
    // HTTP/2 divides the header into several (RFC 9113 §8.2.3).
    for line in headers.get_all(header::COOKIE) {
        for pair in line.as_bytes().split(|byte| *byte == b';') {
            let pair = pair.trim_ascii();
            let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            if !pair[..end].trim_ascii().eq_ignore_ascii_case(name.as_bytes()) {
                continue;
            }
            // Names are told apart by case; whoever reads one less strictly must not find another.
            let value = pair.get(end + 1..).filter(|_| &pair[..end] == name.as_bytes());
            let value = value.and_then(token).ok_or_else(|| refused(name, "cannot be read"))?;
            if found.replace(value).is_some() {
                return Err(refused(name, "was sent twice"));
            }
        }
    }
    Ok(found)
}

fn refused(name: &str, why: &str) -> Problem {
    Problem::bad_request(format!("the cookie {name} {why}"))
}

/// A value without the quotes that it may have, if it has nothing but what tokens have.
fn token(value: &[u8]) -> Option<&str> {
    let value = match value {
        [b'"', value @ .., b'"'] => value,
        value => value,
    };
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~+/=".contains(byte);
    let fits = !value.is_empty() && value.iter().all(is_of_token);
    std::str::from_utf8(value).ok().filter(|_| fits)
}

/// Whether somebody who has shown a cookie may write: the page that asks is of this host, or of an
/// origin that is listed. One that has no origin to show is of this host if its browser says so;
/// whoever is no browser can show its token otherwise.
fn may_write(sender: Option<Sender>, headers: &HeaderMap) -> bool {
    match sender {
        Some(Sender::Own | Sender::Listed) => true,
        Some(Sender::Program) => {
            let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
            let site = sites.next().map(|site| site.as_bytes());
            site == Some(b"same-origin") && sites.next().is_none()
        }
        Some(Sender::Foreign) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn a_cookie_is_found_among_others_and_only_under_its_name() {
        let read = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| (header::COOKIE, *line)).collect();
            token_cookie(&headers(&lines), "fantail").map(|value| value.map(str::to_owned))
        };
        let token = |value: &str| Some(Some(value.to_owned()));
        for (lines, expected) in [
            (&[][..], Some(None)),
            (&["fantail=a.b-c_d"], token("a.b-c_d")),
            (&["x=1; fantail=a.b; y={\"q\": 1, ü}"], token("a.b")),
            (&["x=1;fantail=a.b ;y=2"], token("a.b")),
            (&["fantail=\"a.b\""], token("a.b")),
            (&["x=1", "fantail=a.b"], token("a.b")),
            (&["xfantail=a", "x=fantail=a"], Some(None)),
            (&["fantail=a; fantail=a"], None),
            (&["fantail=a", "fantail=b"], None),
            (&["fantail=a; Fantail=b"], None),
            (&["fantail=a; fantail =b"], None),
            (&["Fantail=a"], None),
            (&["fantail = a"], None),
            (&["fantail"], None),
            (&["fantail="], None),
            (&["fantail=\"\""], None),
            (&["fantail=\"a"], None),
            (&["fantail=a b"], None),
            (&["fantail=ü"], None),
            (&["fantail=a,fantail=b"], None),
        ] {
            assert_eq!(read(lines).ok(), expected, "{lines:?}");
        }
    }

    #[test]
    fn only_pages_of_this_host_and_of_listed_origins_write_by_cookie() {
        let may = |sender, sites: &[&str]| {
            let lines: Vec<_> = sites.iter().map(|site| (SEC_FETCH_SITE, *site)).collect();
            may_write(sender, &headers(&lines))
        };
        assert!(may(Some(Sender::Own), &[]));
        assert!(may(Some(Sender::Listed), &["cross-site"]));
        assert!(may(Some(Sender::Program), &["same-origin"]));
        for sites in [&[][..], &["none"], &["same-site"], &["same-origin", "same-origin"], &[""]] {
            assert!(!may(Some(Sender::Program), sites), "{sites:?}");
        }
        assert!(!may(Some(Sender::Foreign), &["same-origin"]));
        assert!(!may(None, &["same-origin"]));
    }
}
