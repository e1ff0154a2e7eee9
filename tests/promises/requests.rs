//! Requests as clients really write them: positions in several spellings and places, slashes too
//! many, bodies in other encodings, hosts. What can be understood is; what cannot is refused in
//! words, and never ignored.

use std::time::Duration;

use serde_json::json;

use crate::harness::raw::ask;
use crate::harness::{Backend, Node, Stream};

/// Streams are asked for on both roads: taken past the HTTP server, and by it.
pub const ROADS: [[(&str, &str); 1]; 2] =
    [[("FANTAIL_REACTORS", "1")], [("FANTAIL_REACTORS", "0")]];

/// Every route that answers something, with a path that names what is there.
pub const ROUTES: [(&str, &str); 20] = [
    ("GET", "/boards/board-1/events"),
    ("GET", "/events?topics=t"),
    ("GET", "/topics/t/events"),
    ("POST", "/topics/t/events"),
    ("GET", "/topics/t/history"),
    ("POST", "/tasks"),
    ("PATCH", "/tasks/task-1"),
    ("DELETE", "/tasks/task-1"),
    ("PATCH", "/tasks/task-1/move"),
    ("GET", "/boards"),
    ("POST", "/boards"),
    ("GET", "/boards/board-1"),
    ("POST", "/boards/board-1/lists"),
    ("GET", "/admin/connections"),
    ("GET", "/metrics"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/"),
    ("GET", "/app.js"),
    ("HEAD", "/topics/t/events"),
];

/// Publishes three events to `t`; their ids.
async fn three_events(node: &Node) -> [String; 3] {
    [node.publish("t", 1).await, node.publish("t", 2).await, node.publish("t", 3).await]
}

/// What the first event after the opening one tells: its id, or why there is a reset.
async fn told_first(node: &Node, path: &str, headers: &str) -> String {
    let mut stream = Stream::open_from(node.address, path, headers).await;
    let event = stream.event().await;
    match &event.kind[..] {
        "reset" => event.json()["reason"].as_str().unwrap().to_owned(),
        _ => event.id,
    }
}

#[tokio::test]
async fn a_position_counts_however_its_parameter_is_spelt() {
    for road in ROADS {
        let node = Backend::Embedded.start(&road).await;
        let [first, second, third] = three_events(&node).await;
        for (query, told) in [
            (format!("lastEventId={first}"), &second[..]),
            (format!("lastEventID={first}"), &second),
            (format!("last_event_id={first}"), &second),
            (format!("lastEventId=&last_event_id={second}&lastEventID={second}"), &third),
            (format!("&&lastEventId={second}&"), &third),
            (format!("lastEventId={first}&lastEventId={second}"), "unreadable"),
            (format!("lastEventId={first}&lastEventID={second}"), "unreadable"),
            ("last_event_id=caf%E9&from=earliest".to_owned(), "unreadable"),
            ("lastEventId=&from=earliest".to_owned(), &first),
        ] {
            for path in ["/topics/t/events?", "/events?topics=t&"] {
                assert_eq!(told_first(&node, &format!("{path}{query}"), "").await, told, "{query}");
            }
        }
    }
}

#[tokio::test]
async fn header_lines_that_say_nothing_hide_none_that_does() {
    for road in ROADS {
        let node = Backend::Embedded.start(&road).await;
        let [first, second, third] = three_events(&node).await;
        let line = "\r\nLast-Event-ID:";
        let by_query = format!("?lastEventId={second}");
        for (query, headers, told) in [
            ("", format!("{line} {first}"), &second[..]),
            ("", format!("{first}{line}"), &second),
            ("", format!("{line}{line} {second}{line}"), &third),
            ("", format!("{second}{line} {second}"), &third),
            // As a proxy may join lines.
            ("", format!(", {second}"), &third),
            ("", format!("{second}, {second}"), &third),
            ("", format!("{first}{line} {second}"), "unreadable"),
            ("", format!("{first}, {second}"), "unreadable"),
            ("", format!("{first}{line} ?"), "unreadable"),
            // The header comes first, and one that says nothing is none.
            (&by_query, first.clone(), &second),
            (&by_query, format!("{line} "), &third),
            (&by_query, "?".to_owned(), "unreadable"),
            (&by_query, format!("{first}{line} {third}"), "unreadable"),
        ] {
            let path = format!("/topics/t/events{query}");
            assert_eq!(told_first(&node, &path, &headers).await, told, "{query} {headers:?}");
        }
        // Of several topics, too: each is told.
        let several = Stream::open(node.address, "/events?topics=t,u").await;
        let position = several.last_event_id().to_owned();
        node.publish("u", 1).await;
        let again = format!("{line} {position}{line} {position}");
        let mut stream = Stream::open_from(node.address, "/events?topics=t,u", &again).await;
        assert_eq!(stream.event().await.data, "1");
        let other = format!("{position}{line} 7");
        let mut stream = Stream::open_from(node.address, "/events?topics=t,u", &other).await;
        for _ in 0..2 {
            assert_eq!(stream.event().await.json()["reason"], "unreadable");
        }
    }
}

#[tokio::test]
async fn an_unknown_parameter_is_refused_on_every_route() {
    for road in ROADS {
        let node = Backend::Embedded.start(&road).await;
        for (method, path) in ROUTES {
            let mark = if path.contains('?') { "&" } else { "?" };
            let answer = node.raw(method, &format!("{path}{mark}nonsense=1"), "", vec![]).await;
            assert_eq!(answer.status, 400, "{method} {path}: {answer:?}");
            if method != "HEAD" {
                assert_eq!(answer.problem(400), "bad-request", "{method} {path}");
                assert!(answer.body["detail"].as_str().unwrap().contains("nonsense"), "{answer:?}");
            }
        }
        for (path, nearest) in [
            ("/topics/t/history?limt=7", "did you mean limit?"),
            ("/topics/t/history?from=earliest", "takes after and limit"),
            ("/topics/t/history?lastEventId=7", "takes after and limit"),
            ("/events?board=board-1", "did you mean boards?"),
            ("/events?topic=t", "did you mean topics?"),
            ("/topics/t/events?lasteventid=7", "did you mean lastEventId?"),
            ("/topics/t/events?last-event-id=7", "did you mean lastEventId?"),
            ("/boards/board-1/events?snapshots=true", "did you mean snapshot?"),
            ("/boards?limit=7", "takes none"),
            ("/topics/t/history?limit=7&limit=7", "limit may be given once only"),
            ("/events?topics=t&topics=u", "topics may be given once only"),
            ("/events?topics=%FF", "topics is not UTF-8"),
            ("/topics/t/events?snapshot=1", "snapshot must be true or false"),
            ("/topics/t/events?from=latest", "from must be earliest"),
            ("/topics/t/events?connected=yes", "connected must be event"),
            ("/topics/t/events?heartbeat=", "heartbeat must be event"),
        ] {
            let answer = node.send("GET", path, None).await;
            assert_eq!(answer.problem(400), "bad-request", "{path}");
            assert!(answer.body["detail"].as_str().unwrap().ends_with(nearest), "{answer:?}");
        }
        // The page reads its address itself.
        assert_eq!(node.send("GET", "/?board=board-1", None).await.status, 200);
    }
}

#[tokio::test]
async fn slashes_too_many_change_nothing_where_a_stream_is_read() {
    for road in ROADS {
        let node = Backend::Embedded.start(&road).await;
        let [first, second, _] = three_events(&node).await;
        for path in [
            "/topics/t/events/",
            "//topics/t/events",
            "/topics//t/events",
            "/topics/t//events",
            "/topics/t/events//",
            "///topics///t///events///",
        ] {
            let path = format!("{path}?lastEventId={first}");
            assert_eq!(told_first(&node, &path, "").await, second, "{path}");
        }
        for path in ["//events?topics=t", "/events/?topics=t", "//events//?topics=t"] {
            assert_eq!(told_first(&node, &format!("{path}&from=earliest"), "").await, first);
        }
        Stream::open(node.address, "/boards/board-1/events/").await;
        // A slash that is part of a name stays one.
        let id = node.publish("a%2F%2Fb%2F", 1).await;
        assert_eq!(told_first(&node, "/topics/a%2F%2Fb%2F/events/?from=earliest", "").await, id);
        let page = node.get("/topics/a%2F%2Fb%2F/history").await;
        assert_eq!((&page["topic"], &page["head"]), (&json!("a//b/"), &json!(id)));
        assert_eq!(node.get("/topics/a%2Fb/history").await["head"], json!(null));
    }
}

/// Whoever guards a path in front of a node writes it as the documentation does.
#[tokio::test]
async fn slashes_too_many_make_another_path_of_everything_else() {
    for road in ROADS {
        let node = Backend::Embedded.start(&road).await;
        for (method, path) in ROUTES {
            let is_stream = path.contains("events") && method != "POST";
            if is_stream || path == "/" {
                continue;
            }
            let middle = path.replacen("/", "//", 2);
            for path in [format!("{path}/"), format!("/{path}"), format!("{path}//"), middle] {
                let answer = node.raw(method, &path, "application/json", "{}".into()).await;
                assert_eq!(answer.problem(404), "not-found", "{method} {path}");
            }
        }
        assert_eq!(node.send("GET", "//", None).await.status, 404);
        assert_eq!(node.get("/topics/t/history").await["head"], json!(null));
    }
}

#[tokio::test]
async fn names_that_no_path_can_name_are_refused() {
    for road in ROADS {
        let node = Backend::Embedded.start(&road).await;
        for name in [".", "..", "%2e", "%2E%2e", ".%2e"] {
            for (method, path, body) in [
                ("GET", format!("/topics/{name}/events"), ""),
                ("GET", format!("/topics/{name}/history"), ""),
                ("POST", format!("/topics/{name}/events"), r#"{"data":1}"#),
                ("GET", format!("/events?topics=t,{name}"), ""),
                ("GET", format!("/events?boards={name}"), ""),
                ("GET", format!("/boards/{name}/events"), ""),
                ("GET", format!("/boards/{name}"), ""),
                ("POST", format!("/boards/{name}/lists"), r#"{"title":"x"}"#),
            ] {
                let start = format!("{method} {path} HTTP/1.1");
                let length = format!("Content-Length: {}", body.len());
                let lines = [&start, "Host: a", "Content-Type: application/json", &length];
                let answer = ask(node.address, &lines, body.as_bytes()).await;
                assert_eq!(answer.problem(400), "bad-request", "{method} {path}");
            }
        }
        for body in [
            json!({ "id": ".", "name": "x" }),
            json!({ "id": "..", "name": "x" }),
            json!({ "name": "x", "lists": [{ "id": "..", "title": "x" }] }),
        ] {
            assert_eq!(node.send("POST", "/boards", Some(body)).await.problem(400), "bad-request");
        }
        let list = json!({ "id": ".", "title": "x" });
        let answer = node.send("POST", "/boards/board-1/lists", Some(list)).await;
        assert_eq!(answer.problem(400), "bad-request");
        // Others with dots are names as any.
        node.publish("...", 1).await;
        node.publish(".well-known", 1).await;
    }
}

#[tokio::test]
async fn a_request_says_once_which_host_it_is_for() {
    for road in ROADS {
        let node = Backend::Embedded.start(&road).await;
        for path in ["/topics/t/events", "/topics/t/events/", "/healthz", "/nowhere"] {
            let start = format!("GET {path} HTTP/1.1");
            for hosts in [
                &[][..],
                &["Host:"],
                &["Host: a b"],
                &["Host: a,b"],
                &["Host: http://a"],
                &["Host: user@a"],
                &["Host: a:b"],
                &["Host: a:99999"],
                &["Host: [::1"],
                &["Host: a", "Host: a"],
                &["Host: a", "host: b"],
                &["Host:", "Host: a"],
            ] {
                let lines = [&[&start[..]], hosts].concat();
                let answer = ask(node.address, &lines, b"").await;
                assert_eq!(answer.problem(400), "bad-request", "{lines:?}");
            }
        }
        for host in ["a", "a.example:3000", "127.0.0.1", "[::1]:3000", "a:"] {
            let lines = ["GET /healthz HTTP/1.1", &format!("Host: {host}")];
            assert_eq!(ask(node.address, &lines, b"").await.status, 200, "{host}");
        }
        let lines = ["GET http://a/healthz HTTP/1.1", "Host: a"];
        assert_eq!(ask(node.address, &lines, b"").await.status, 200);
        // An older client knows no such header.
        assert_eq!(ask(node.address, &["GET /healthz HTTP/1.0"], b"").await.status, 200);
        let lines = ["GET /healthz HTTP/1.0", "Host: a", "Host: b"];
        assert_eq!(ask(node.address, &lines, b"").await.problem(400), "bad-request");
    }
}

#[tokio::test]
async fn over_http_2_the_authority_is_the_host() {
    let node = Backend::Embedded.start(&[]).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    let url = format!("{}/healthz", node.base);
    let own = node.address.to_string();
    for (host, status) in [(None, 200), (Some(&own[..]), 200), (Some("b.example"), 400)] {
        let mut request = client.get(&url);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        assert_eq!(request.send().await.unwrap().status(), status, "{host:?}");
    }
}

#[tokio::test]
async fn a_body_in_another_encoding_is_refused_in_words() {
    let node = Backend::Embedded.start(&[]).await;
    let json = "application/json";
    let event = br#"{"data":"x"}"#.to_vec();
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\x02\x03\xabVJI,IT\xb2Rr\0\xd6\0\0\0".to_vec();
    let utf_16: Vec<u8> =
        "\u{feff}{\"data\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (content_type, encoding, body, status, kind, said) in [
        (json, "gzip", &gzip, 415, "content-encoding", "Content-Encoding: gzip"),
        (json, "gzip", &event, 415, "content-encoding", "Content-Encoding: gzip"),
        (json, "Identity, br", &event, 415, "content-encoding", "Content-Encoding: br"),
        (json, "", &gzip, 400, "bad-request", "compressed (gzip)"),
        (json, "identity", &gzip, 400, "bad-request", "compressed (gzip)"),
        (json, "", &utf_16, 400, "bad-request", "UTF-16"),
        (json, "", &b"\xef\xbb\xbf".to_vec(), 400, "bad-request", "empty"),
        ("application/json; charset=utf-16", "", &utf_16, 415, "not-json", "UTF-8"),
        ("application/json; charset=latin1", "", &event, 415, "not-json", "UTF-8"),
        ("text/json", "", &event, 415, "not-json", "application/json"),
    ] {
        let headers = [("content-encoding", encoding)];
        let headers = if encoding.is_empty() { &[][..] } else { &headers };
        for (method, path) in [("POST", "/topics/t/events"), ("POST", "/tasks")] {
            let answer = node.raw_with(method, path, content_type, headers, body.clone()).await;
            assert_eq!(answer.problem(status), kind, "{content_type} {encoding}");
            assert!(answer.body["detail"].as_str().unwrap().contains(said), "{answer:?}");
            if kind == "content-encoding" {
                assert_eq!(answer.header("accept-encoding"), "identity");
            }
        }
    }
    let marked = [&b"\xef\xbb\xbf"[..], &event].concat();
    for (content_type, encoding, body) in [
        (json, "identity", &event),
        (json, "", &marked),
        ("application/json;charset=UTF-8", "", &marked),
        ("Application/Json; charset=\"utf-8\"; x=y", "", &event),
        ("application/cloudevents+json", "", &event),
    ] {
        let headers = [("content-encoding", encoding)];
        let headers = if encoding.is_empty() { &[][..] } else { &headers };
        let body = body.clone();
        let answer = node.raw_with("POST", "/topics/t/events", content_type, headers, body).await;
        assert_eq!(answer.status, 201, "{content_type} {answer:?}");
    }
    let history = node.get("/topics/t/history").await;
    let entries = history["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 5);
    assert!(entries.iter().all(|entry| entry["data"] == "x"));
}

#[tokio::test]
async fn no_request_costs_more_than_in_proportion_to_its_length() {
    let node = Backend::Embedded.start(&[]).await;
    let names = |count: usize| -> Vec<String> { (0..count).map(|n| format!("{n:03x}")).collect() };
    let many = names(0xfff).join(",");
    let many = [&many[..], &many, &many].concat();
    let ids = names(0xfff).join(":42-k3f9,");
    let same = "a,".repeat(30_000);
    let pairs = "&".repeat(60_000);
    let positions: String = (0..3_000).map(|n| format!("lastEventId={n}&")).collect();
    let long = "x".repeat(60_000);
    let accepts: String =
        (0..90).map(|n| format!("x-{n}: {n}\r\nlast-event-id: {n}\r\n")).take(40).collect();
    let deep = format!(r#"{{"data":{}}}"#, "[".repeat(500_000));
    let events = format!("[{}", r#"{"data":1},"#.repeat(90_000));
    let lists = format!(r#"{{"name":"x","lists":[{}"#, r#"{"title":"x"},"#.repeat(60_000));
    let fields: String = (0..50_000).map(|n| format!(r#""f{n}":1,"#)).collect();
    let get = |query: &str, headers: &str| {
        (format!("GET {query} HTTP/1.1\r\nHost: a\r\n{headers}"), String::new())
    };
    let post = |path: &str, body: &str| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n",
            body.len()
        );
        (head, body.to_owned())
    };
    for (what, (head, body)) in [
        ("topics", get(&format!("/events?topics={many}"), "")),
        ("boards", get(&format!("/events?boards={many}"), "")),
        ("one topic, often", get(&format!("/events?topics={same}&x=1"), "")),
        ("empty pairs", get(&format!("/events?{pairs}x=1"), "")),
        ("positions", get(&format!("/topics/t/events?{positions}x=1"), "")),
        ("a long parameter", get(&format!("/topics/t/events?{long}=1"), "")),
        ("a long path", get(&format!("/{long}"), "")),
        ("slashes", get(&format!("{}x", "/".repeat(60_000)), "")),
        ("a long name", get(&format!("/topics/{long}/events"), "")),
        ("a long position", get("/topics/t/events?x=1", &format!("last-event-id: {long}\r\n"))),
        ("a position of many", get("/boards/nope/events", &format!("last-event-id: {ids}\r\n"))),
        ("many headers", get("/boards/nope/events", &accepts)),
        ("If-Match", {
            let (head, body) = post("/topics/t/events", r#"{"data":1}"#);
            (format!("{head}if-match: \"{long}\"\r\n"), body)
        }),
        ("Idempotency-Key", {
            let (head, body) = post("/topics/t/events", r#"{"data":1}"#);
            (format!("{head}idempotency-key: {long}\r\n"), body)
        }),
        ("deep JSON", post("/topics/t/events", &deep)),
        ("many events", post("/topics/t/events", &events)),
        ("many lists", post("/boards", &lists)),
        ("many fields", post("/tasks", &format!("{{{fields}"))),
    ] {
        let bytes = [head.as_bytes(), b"\r\n", body.as_bytes()].concat();
        let began = node.process.processor_time();
        for _ in 0..10 {
            let lines: Vec<&str> = head.trim_end().split("\r\n").collect();
            let answer = ask(node.address, &lines, body.as_bytes()).await;
            assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
        }
        let each = (node.process.processor_time() - began) / 10;
        // Without optimisation, and with all that is done for any request. What goes by the square of
        // a length takes seconds.
        let allowed = Duration::from_millis(20) + Duration::from_micros(bytes.len() as u64 / 4);
        assert!(each < allowed, "{what}: {each:?} of {allowed:?} for {} bytes", bytes.len());
    }
}
