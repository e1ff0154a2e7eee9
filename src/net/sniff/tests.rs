use proptest::prelude::*;

use super::*;

const PLAIN: &str =
    "GET /topics/t/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n";

/// Whether these bytes, all that has come, are taken past the HTTP server.
fn is_taken(bytes: &[u8]) -> bool {
    matches!(peeked(bytes), Peeked::Stream(..))
}

fn with(header: &str) -> Vec<u8> {
    format!("{PLAIN}{header}\r\n\r\n").into_bytes()
}

#[test]
fn an_ordinary_get_of_a_stream_is_taken() {
    for head in [
        format!("{PLAIN}\r\n"),
        format!("{PLAIN}Last-Event-ID: 42-k3f9\r\nCookie: a=b\r\nConnection: Keep-Alive\r\n\r\n"),
        "GET /boards/board-1/events?snapshot=true HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /events?topics=a,b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    ] {
        assert!(is_taken(head.as_bytes()), "{head:?}");
    }
}

#[test]
fn what_the_http_server_would_understand_otherwise_is_left_to_it() {
    for header in [
        "Content-Length: 0",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Upgrade: h2c",
        "Expect: 100-continue",
        "Connection: close",
        "Connection: keep-alive, close",
        "Connection: upgrade",
        "Transfer-Encoding : chunked",
        " folded: x",
        "no colon",
    ] {
        assert!(!is_taken(&with(header)), "{header:?}");
    }
    for head in [
        "POST /topics/t/events HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD /topics/t/events HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /topics/t/events HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET /topics/t/events HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET /topics/t/history HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /topics/t?x=/events HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/topics/t/events HTTP/1.1\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        assert!(!is_taken(head.as_bytes()), "{head:?}");
    }
}

#[test]
fn more_headers_or_bytes_than_are_looked_at_are_left_to_the_http_server() {
    let with_headers = |count: usize| {
        let more: String = (2..count).map(|n| format!("x-{n}: y\r\n")).collect();
        format!("{PLAIN}{more}\r\n").into_bytes()
    };
    assert!(is_taken(&with_headers(HEADERS_MAX)));
    assert!(!is_taken(&with_headers(HEADERS_MAX + 1)));
}

proptest! {
    #[test]
    fn a_head_in_pieces_is_not_taken_before_it_is_whole(cut in 0..PLAIN.len() + 2) {
        let whole = format!("{PLAIN}\r\n");
        prop_assert!(!is_taken(&whole.as_bytes()[..cut]));
    }

    #[test]
    fn whatever_comes_behind_a_head_leaves_it_to_the_http_server(more in prop::collection::vec(any::<u8>(), 1..200)) {
        let mut bytes = format!("{PLAIN}\r\n").into_bytes();
        bytes.extend(more);
        prop_assert!(!is_taken(&bytes));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = read_head(&bytes);
    }

    #[test]
    fn what_is_taken_is_what_was_sent(
        names in prop::collection::vec("[A-Za-z][A-Za-z0-9-]{0,20}", 0..20),
        value in "[ -~]{0,40}",
    ) {
        let value = value.trim();
        let more: String = names.iter().map(|name| format!("{name}: {value}\r\n")).collect();
        let bytes = format!("{PLAIN}{more}\r\n").into_bytes();
        let special = ["content-length", "transfer-encoding", "upgrade", "expect", "connection"];
        let odd = names.iter().any(|name| special.contains(&name.to_ascii_lowercase().as_str()));
        match peeked(&bytes) {
            Peeked::Stream(length, request) => {
                prop_assert_eq!(length, bytes.len());
                prop_assert_eq!(request.uri().path(), "/topics/t/events");
                for name in &names {
                    let found = request.headers().get_all(name.as_str()).iter();
                    let value = value.as_bytes();
                    prop_assert!(found.into_iter().any(|found| found.as_bytes() == value));
                }
                prop_assert_eq!(request.headers().len(), names.len() + 2);
            }
            _ => prop_assert!(odd, "{:?}", names),
        }
    }
}
