//! [`Dialect`]: how a server is spoken to.

use std::ops::Range;
use std::sync::LazyLock;

use super::tokens;

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Fantail's topics API; the reference speaks it too.
    Fantail,
    /// The same with a key: every stream has a token of its own.
    FantailKeyed,
    /// Nchan as [`super::peers`] configures it.
    Nchan,
    /// Pushpin, whose backend holds every stream.
    Pushpin,
    /// The Durable Streams protocol.
    DurableStreams,
    /// Centrifugo's unidirectional SSE, and its HTTP API.
    Centrifugo,
}

impl Dialect {
    /// Whether every stream begins with a block.
    pub(crate) fn greets(self) -> bool {
        matches!(self, Dialect::Fantail | Dialect::FantailKeyed | Dialect::Centrifugo)
    }

    /// Streams of one thread that are being opened at the same time; below every server's backlog.
    pub(crate) fn opening_max(self) -> usize {
        match self {
            // With more, some are refused with 502.
            Dialect::Pushpin => 16,
            _ => 128,
        }
    }

    /// The request that opens a stream of one topic or, in those that can, of several.
    pub(crate) fn stream_request(
        self,
        run: &str,
        topics: Range<u32>,
        last_event_id: Option<&str>,
    ) -> String {
        let first = topics.start;
        let several = |divider: &str, name: &dyn Fn(u32) -> String| {
            topics.clone().map(name).collect::<Vec<_>>().join(divider)
        };
        let path = match self {
            Dialect::Fantail | Dialect::FantailKeyed if topics.len() > 1 => {
                format!("/events?topics={}", several(",", &|topic| format!("{run}-{topic}")))
            }
            Dialect::Fantail | Dialect::FantailKeyed => format!("/topics/{run}-{first}/events"),
            Dialect::Nchan => format!("/sub/{run}-{first}"),
            Dialect::Pushpin => format!("/stream/{run}-{first}"),
            Dialect::DurableStreams => format!("/v1/stream/{run}-{first}?offset=-1&live=sse"),
            Dialect::Centrifugo => {
                // {"subs":{"<topic>":{},…}}, as a query wants it.
                let subscriptions = several(",", &|topic| format!("%22{run}-{topic}%22:%7B%7D"));
                format!("/connection/uni_sse?cf_connect=%7B%22subs%22:%7B{subscriptions}%7D%7D")
            }
        };
        let resume = last_event_id.map(|id| format!("last-event-id: {id}\r\n"));
        let resume = resume.unwrap_or_default();
        let token = match self {
            Dialect::FantailKeyed => {
                format!("authorization: Bearer {}\r\n", tokens::of_a_follower())
            }
            _ => String::new(),
        };
        format!(
            "GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n\
             {token}{resume}\r\n"
        )
    }

    /// Appends the request that publishes `data`, which needs no escaping in JSON.
    pub(crate) fn publish_request(self, run: &str, topic: u32, data: &str, request: &mut Vec<u8>) {
        use std::io::Write as _;
        let name = format!("{run}-{topic}");
        let (path, kind, before, after) = match self {
            Dialect::Fantail | Dialect::FantailKeyed => (
                format!("/topics/{name}/events"),
                "application/json",
                "{\"data\":\"".to_owned(),
                "\"}",
            ),
            Dialect::Nchan => (format!("/pub/{name}"), "text/plain", String::new(), ""),
            Dialect::DurableStreams => {
                (format!("/v1/stream/{name}"), "text/plain", String::new(), "")
            }
            Dialect::Pushpin => (
                "/publish/".to_owned(),
                "application/json",
                format!(
                    "{{\"items\":[{{\"channel\":\"{name}\",\"formats\":\
                     {{\"http-stream\":{{\"content\":\"data: "
                ),
                "\\n\\n\"}}}]}",
            ),
            Dialect::Centrifugo => (
                "/api/publish".to_owned(),
                "application/json",
                format!("{{\"channel\":\"{name}\",\"data\":\""),
                "\"}",
            ),
        };
        let length = before.len() + data.len() + after.len();
        static AUTHORIZATION: LazyLock<String> =
            LazyLock::new(|| format!("authorization: Bearer {}\r\n", tokens::of_the_application()));
        let token = if self == Dialect::FantailKeyed { AUTHORIZATION.as_str() } else { "" };
        // Writing into memory cannot fail.
        let _ = write!(
            request,
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{token}content-type: {kind}\r\n\
             content-length: {length}\r\n\r\n{before}{data}{after}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_several_topics_name_all_of_them() {
        let line = |dialect: Dialect, topics| {
            let request = dialect.stream_request("r", topics, None);
            request.lines().next().unwrap_or_default().to_owned()
        };
        assert_eq!(line(Dialect::Fantail, 7..8), "GET /topics/r-7/events HTTP/1.1");
        assert_eq!(line(Dialect::Fantail, 0..2), "GET /events?topics=r-0,r-1 HTTP/1.1");
        assert_eq!(
            line(Dialect::Centrifugo, 0..2),
            "GET /connection/uni_sse?cf_connect=\
             %7B%22subs%22:%7B%22r-0%22:%7B%7D,%22r-1%22:%7B%7D%7D%7D HTTP/1.1"
        );
    }

    #[test]
    fn the_length_of_a_publish_is_its_body_s() {
        for dialect in [
            Dialect::Fantail,
            Dialect::FantailKeyed,
            Dialect::Nchan,
            Dialect::Pushpin,
            Dialect::Centrifugo,
        ] {
            let mut request = Vec::new();
            dialect.publish_request("r", 0, "|0.1.2|", &mut request);
            let text = String::from_utf8(request).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{text}");
            assert!(body.contains("|0.1.2|"));
        }
    }
}
