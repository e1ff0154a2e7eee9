//! Which host a request is for: it has to say so, once (RFC 9112 §3.2, RFC 9113 §8.3.1).
//!
//! A request with two hosts is one thing to us and may be another to the proxy before us, and one
//! without any was written by nobody who speaks HTTP/1.1.

use std::net::Ipv6Addr;

use axum::http::{Request, Version, header};

/// The longest name of a host, in bytes, as DNS has it.
const NAME_BYTES_MAX: usize = 255;

/// Whether a request says once, and in an understandable way, which host it is for.
///
/// # Errors
/// What it lacks.
pub(in crate::http) fn check<B>(request: &Request<B>) -> Result<(), &'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("Host may be sent once only");
    }
    // Of an absolute target, or the `:authority` of HTTP/2.
    let authority = request.uri().authority().map(|authority| authority.as_str());
    if host.is_some_and(|host| !is_host(host.as_bytes()))
        || authority.is_some_and(|authority| !is_host(authority.as_bytes()))
    {
        return Err("the host is not a name or an address, with or without a port");
    }
    match (request.version(), host, authority) {
        // Knows no such header.
        (Version::HTTP_09 | Version::HTTP_10, ..) => Ok(()),
        (Version::HTTP_11, None, _) => Err("HTTP/1.1 needs a Host header"),
        // The target is what counts, and that the header says the same is the client's duty.
        (Version::HTTP_11, Some(_), _) => Ok(()),
        (_, None, None) => Err("a request needs an :authority or a Host header"),
        (_, Some(host), Some(authority))
            if !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) =>
        {
            Err(":authority and Host name two hosts")
        }
        _ => Ok(()),
    }
}

/// The hosts that a request names, the target's first, which counts where they differ. Where the
/// request was [checked](check) they are text, at most two, and none only in HTTP/1.0.
pub(in crate::http) fn named<B>(request: &Request<B>) -> impl Iterator<Item = &str> {
    let target = request.uri().authority().map(|authority| authority.as_str());
    let headers = request.headers().get_all(header::HOST).iter();
    target.into_iter().chain(headers.map(|host| host.to_str().unwrap_or_default()))
}

/// Whether this is a name or an address of a host, with or without a port.
pub(in crate::http) fn is_host(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let (is_right, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else { return false };
            // Link-local addresses come with the name of an interface.
            let (address, interface) = address.split_once('%').unwrap_or((address, "none"));
            let is_named = !interface.is_empty() && interface.bytes().all(is_of_a_name);
            (is_named && address.parse::<Ipv6Addr>().is_ok(), port)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (name, port) = text.split_at(end);
            let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
            (fits && is_name(name), port)
        }
    };
    let is_number = |port: &str| port.is_empty() || port.parse::<u16>().is_ok();
    let port_is_right = match port.strip_prefix(':') {
        Some(port) => port.bytes().all(|byte| byte.is_ascii_digit()) && is_number(port),
        None => port.is_empty(),
    };
    is_right && port_is_right
}

/// Whether this is a name of letters, digits and what else a name in a URL may have, with something
/// between its dots.
fn is_name(text: &str) -> bool {
    let labels = text.strip_suffix('.').unwrap_or(text).split('.');
    let codes = text.split('%').skip(1);
    let is_code = |code: &str| {
        let digits = code.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    text.bytes().all(is_of_a_name)
        && labels.into_iter().all(|label| !label.is_empty())
        && codes.into_iter().all(is_code)
}

/// What a name in a URL may have (RFC 3986 §3.2.2), without the comma, by which somebody on the
/// way may have joined two, and the star, which stands for many.
fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for right in [
            "localhost",
            "a.example:3000",
            "fantail_1:80",
            "127.0.0.1:3000",
            "[::1]",
            "[::1]:3000",
            "[fe80::1%25eth0]:3000",
            "xn--kln-sna.example",
            "example.",
            "a:",
            "a%2Db.example",
        ] {
            assert!(is_host(right.as_bytes()), "{right}");
        }
        for wrong in [
            "",
            ":80",
            "a b",
            "a,b",
            "a/b",
            "a:b",
            "a:+80",
            "a:80:80",
            "a:65536",
            "user@a",
            ".",
            "..",
            ".a",
            "a..b",
            "a..",
            "*",
            "*.a",
            "%",
            "a%2",
            "a%zz",
            ".:80",
            "http://a",
            "[::1",
            "[::1]x",
            "[a]",
            "[fe80::1%]",
            "[fe80::1%e/0]:80",
            "[fe80::1%e\u{7f}]",
            "::1",
            "köln.example",
            &"a".repeat(256),
        ] {
            assert!(!is_host(wrong.as_bytes()), "{wrong}");
        }
        assert!(!is_host(b"\xff"));
    }

    #[test]
    fn each_version_says_its_host_in_its_own_way() {
        let check = |version, uri: &str, hosts: &[&str]| {
            let mut request = Request::builder().version(version).uri(uri);
            for host in hosts {
                request = request.header(header::HOST, *host);
            }
            check(&request.body(()).unwrap()).is_ok()
        };
        let (http_10, http_11, http_2) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        for (version, uri, hosts, is_right) in [
            (http_10, "/", &[][..], true),
            (http_10, "/", &["a"], true),
            (http_10, "/", &["a b"], false),
            (http_10, "/", &["a", "a"], false),
            (http_11, "/", &[], false),
            (http_11, "/", &["a"], true),
            (http_11, "/", &["a", "a"], false),
            (http_11, "http://a/", &[], false),
            (http_11, "http://a/", &["b"], true),
            (http_11, "http://u@a/", &["b"], false),
            (http_2, "http://a:80/", &[], true),
            (http_2, "http://a:80/", &["A:80"], true),
            (http_2, "http://a:80/", &["b"], false),
            (http_2, "/", &["a"], true),
            (http_2, "/", &[], false),
        ] {
            assert_eq!(check(version, uri, hosts), is_right, "{version:?} {uri} {hosts:?}");
        }
    }
}
