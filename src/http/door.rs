//! What every request is asked before anything is done about it: for which host it is, and which
//! page sends it.
//!
//! A browser carries out what any page tells it to, with all that its user can reach. Two things
//! tell such a request from others, and no page can change them: the name under which this node is
//! asked for (a page that has had its own name lead here, by DNS rebinding, asks for that name), and
//! the `Origin`.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};

use super::problem::Problem;
use super::request::host;
use crate::config::{CorsOrigins, HostName, Hosts};

/// Who is let in.
pub(super) struct Door {
    /// To which hosts the node answers, besides the names of its own machine.
    hosts: Hosts,
    /// Which origins' pages may use it, besides its own.
    origins: CorsOrigins,
    /// Paths that are answered whatever the host is.
    for_any_host: &'static [&'static str],
}

/// Which page sends a request, as its browser says; an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// A program that is no browser; or a browser whose user has typed the address, or one that says
    /// nothing of reads on the same origin.
    Program,
    /// A page of this node.
    Own,
    /// A page of an origin that is listed by name.
    Listed,
    /// A page of any other origin, or of one that cannot be told (`null`).
    Foreign,
}

impl Door {
    pub(super) fn new(hosts: Hosts, origins: CorsOrigins) -> Door {
        Door { hosts, origins, for_any_host: &[] }
    }

    /// One that has nothing for pages of other origins.
    pub(super) fn to_operators(hosts: Hosts, for_any_host: &'static [&'static str]) -> Door {
        Door { hosts, origins: CorsOrigins::Only(Vec::new()), for_any_host }
    }

    /// Lets a request in, or says why not.
    ///
    /// # Errors
    /// 400 for a host that is none, 421 for one of others, 403 for a page of others that would write.
    pub(super) fn admit<B>(&self, request: &Request<B>) -> Result<Sender, Problem> {
        host::check(request).map_err(Problem::bad_request)?;
        let all_hosts =
            self.hosts == Hosts::Any || self.for_any_host.contains(&request.uri().path());
        // One of HTTP/1.0 may name none. No browser asks so, and there is nothing to mislead.
        if !all_hosts && !host::named(request).all(|host| self.serves(host)) {
            return Err(misdirected());
        }
        let sender = self.sender(request);
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if !is_read && sender == Sender::Foreign && self.origins != CorsOrigins::Any {
            return Err(foreign_page());
        }
        Ok(sender)
    }

    /// Whether the node answers to this host. The names of its own machine are nobody else's.
    fn serves(&self, host: &str) -> bool {
        HostName::read(host).is_some_and(|host| host.is_loopback() || self.hosts.has(&host))
    }

    /// Browsers send an `Origin` with every request that is no plain read, and, to addresses that
    /// they trust, `Sec-Fetch-Site` with all. Neither can be set by a page.
    fn sender<B>(&self, request: &Request<B>) -> Sender {
        let headers = request.headers();
        let of_other_origin = headers
            .get_all("sec-fetch-site")
            .iter()
            .any(|site| matches!(site.as_bytes(), b"cross-site" | b"same-site"));
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let origin = match (origins.next(), origins.next()) {
            (None, _) if of_other_origin => return Sender::Foreign,
            (None, _) => return Sender::Program,
            (Some(origin), None) => origin,
            (Some(_), Some(_)) => return Sender::Foreign,
        };
        if self.lists(origin) {
            return Sender::Listed;
        }
        // What the target says counts more than the header (RFC 9112 §3.2.2).
        let host = host::named(request).next().and_then(HostName::read);
        let is_own = host.is_some_and(|host| is_origin_of(origin, &host));
        if is_own && !of_other_origin { Sender::Own } else { Sender::Foreign }
    }

    /// Whether an origin is listed by name.
    pub(super) fn lists(&self, origin: &HeaderValue) -> bool {
        let CorsOrigins::Only(origins) = &self.origins else { return false };
        origins.iter().any(|listed| listed.as_bytes() == origin.as_bytes())
    }

    pub(super) fn origins(&self) -> &CorsOrigins {
        &self.origins
    }
}

/// Whether pages of this host have this origin. The host was named without its scheme, which a
/// proxy may have taken off, so that of the origin is taken for it.
fn is_origin_of(origin: &HeaderValue, host: &HostName) -> bool {
    let Some((scheme, authority)) = origin.to_str().ok().and_then(|text| text.split_once("://"))
    else {
        return false;
    };
    let port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    HostName::read(authority).is_some_and(|origin| origin.is_same(host, port))
}

/// 421 (RFC 9110 §15.5.20). What was asked for is not repeated: a name that somebody else has made
/// up says nothing to whoever reads this.
fn misdirected() -> Problem {
    Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        "not-this-host",
        "Not this host",
        "this node does not answer to the host that was asked for: FANTAIL_HOSTS lists those it \
         answers to, besides the names of its own machine"
            .to_owned(),
    )
}

/// 403: whoever looks at such a page has not meant to write here.
fn foreign_page() -> Problem {
    let problem = Problem::new(
        StatusCode::FORBIDDEN,
        "foreign-page",
        "Foreign page",
        "pages of this origin may not write here: FANTAIL_CORS_ORIGINS lists those that may"
            .to_owned(),
    );
    // Another origin gets another answer.
    problem.with_header(&["vary", "origin"])
}

/// On every answer, whatever it is: it is what it says it is, a link on it tells nobody where it
/// was, and no page of another origin embeds it. (Pages that are allowed to read it ask with CORS,
/// which this does not touch.)
pub(super) fn secure(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    fn only(origins: &[&str]) -> CorsOrigins {
        CorsOrigins::Only(origins.iter().map(|&origin| origin.to_owned()).collect())
    }

    fn asked(door: &Door, request: &str, headers: &[(&str, &str)]) -> Result<Sender, StatusCode> {
        let (method, uri) = request.split_once(' ').unwrap();
        let mut request = axum::http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let admitted = door.admit(&request.body(()).unwrap());
        admitted.map_err(|problem| problem.into_response().status())
    }

    #[test]
    fn a_node_for_its_own_machine_answers_to_no_name_that_somebody_else_can_have() {
        let door = Door::new(Hosts::read("app.example").unwrap(), only(&[]));
        let host = |host: &str| asked(&door, "GET /", &[("host", host)]);
        for own in ["localhost:3000", "127.0.0.1", "[::1]:3000", "a.localhost", "app.example:80"] {
            assert_eq!(host(own), Ok(Sender::Program), "{own}");
        }
        for other in ["attacker.example", "10.0.0.7:3000", "localhost.attacker.example", "a%2Db"] {
            assert_eq!(host(other), Err(StatusCode::MISDIRECTED_REQUEST), "{other}");
        }
        // Both that are named have to be right.
        for (uri, name) in [("http://attacker.example/", "localhost"), ("http://localhost/", "b")] {
            let answer = asked(&door, &format!("GET {uri}"), &[("host", name)]);
            assert_eq!(answer, Err(StatusCode::MISDIRECTED_REQUEST), "{uri} {name}");
        }
        let anywhere = Door::new(Hosts::Any, only(&[]));
        for name in ["attacker.example", "a%2Db"] {
            assert_eq!(asked(&anywhere, "GET /", &[("host", name)]), Ok(Sender::Program));
        }
    }

    #[test]
    fn pages_of_other_origins_write_nothing_unless_they_are_listed() {
        let door = Door::new(Hosts::Any, only(&["https://app.example"]));
        let own = ("host", "localhost:3000");
        for (headers, sender) in [
            (&[][..], Sender::Program),
            (&[("sec-fetch-site", "none")], Sender::Program),
            (&[("sec-fetch-site", "same-origin")], Sender::Program),
            (&[("sec-fetch-site", "cross-site")], Sender::Foreign),
            (&[("sec-fetch-site", "same-site")], Sender::Foreign),
            (&[("origin", "http://localhost:3000")], Sender::Own),
            (&[("origin", "https://LOCALHOST:3000")], Sender::Own),
            (
                &[("origin", "http://localhost:3000"), ("sec-fetch-site", "cross-site")],
                Sender::Foreign,
            ),
            (
                &[("origin", "https://app.example"), ("sec-fetch-site", "cross-site")],
                Sender::Listed,
            ),
            (&[("origin", "http://app.example")], Sender::Foreign),
            (&[("origin", "https://app.example:443")], Sender::Foreign),
            (&[("origin", "https://app.example.evil.example")], Sender::Foreign),
            (&[("origin", "http://localhost")], Sender::Foreign),
            (&[("origin", "http://localhost:8000")], Sender::Foreign),
            (&[("origin", "http://127.0.0.1:3000")], Sender::Foreign),
            (&[("origin", "ftp://localhost:3000")], Sender::Foreign),
            (&[("origin", "null")], Sender::Foreign),
            (&[("origin", "")], Sender::Foreign),
            (
                &[("origin", "http://localhost:3000"), ("origin", "https://app.example")],
                Sender::Foreign,
            ),
        ] {
            let headers = [&[own], headers].concat();
            assert_eq!(asked(&door, "GET /", &headers), Ok(sender), "{headers:?}");
            for write in ["POST /", "DELETE /", "PATCH /", "PUT /", "FLY /"] {
                let allowed = match sender {
                    Sender::Foreign => Err(StatusCode::FORBIDDEN),
                    sender => Ok(sender),
                };
                assert_eq!(asked(&door, write, &headers), allowed, "{write} {headers:?}");
            }
        }
        // The scheme's own port need not be named.
        for (origin, host) in [
            ("https://events.example", "events.example"),
            ("https://events.example", "events.example:443"),
            ("http://events.example:80", "EVENTS.example."),
            ("http://[::1]:3000", "[0::1]:3000"),
        ] {
            let headers = [("origin", origin), ("host", host)];
            assert_eq!(asked(&door, "POST /", &headers), Ok(Sender::Own), "{headers:?}");
        }
        let open = Door::new(Hosts::Any, CorsOrigins::Any);
        let headers = [own, ("origin", "https://evil.example")];
        assert_eq!(asked(&open, "POST /", &headers), Ok(Sender::Foreign));
    }
}
