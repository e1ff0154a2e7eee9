//! Who is let in: for which hosts a node answers, which pages may write, which may read, and what
//! every answer says to browsers.

use serde_json::json;

use crate::harness::raw::ask;
use crate::harness::{Answer, Backend, Node};
use crate::requests::{ROADS, ROUTES};

/// As a node is without any setting: the others of these tests answer to every host.
const OWN_HOSTS: (&str, &str) = ("FANTAIL_HOSTS", "");

const HOSTS_OF_OTHERS: [&str; 8] = [
    "attacker.example",
    "attacker.example:3000",
    "localhost.attacker.example",
    "127.0.0.1.nip.io:3000",
    "10.0.0.7:3000",
    "0.0.0.0",
    "[::2]:3000",
    "a%2Db",
];

const OWN_NAMES: [&str; 6] =
    ["localhost:3000", "LocalHost.", "127.0.0.1", "127.9.9.9:1", "[::1]:3000", "app.localhost"];

/// A client that names such a host and meets this node, as a browser does after DNS rebinding.
fn rebound(node: &Node, is_http_2: bool) -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().resolve("attacker.example", node.address);
    let client = if is_http_2 { client.http2_prior_knowledge() } else { client.http1_only() };
    client.build().unwrap()
}

/// Neither streams nor entries nor tasks have come of what was asked.
async fn assert_nothing_was_done(node: &Node) {
    for metric in ["fantail_connections_opened_total", "fantail_events_published_total"] {
        assert_eq!(node.metric(metric, "").await, 0.0, "{metric}");
    }
    assert_eq!(node.get("/boards").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_node_for_its_own_machine_answers_to_no_name_that_somebody_else_can_have() {
    for road in ROADS {
        let node = Backend::Embedded.start(&[&road[..], &[OWN_HOSTS]].concat()).await;
        let routes = ROUTES.into_iter().chain([("POST", "/nowhere"), ("OPTIONS", "/tasks")]);
        for (method, path) in routes {
            for host in HOSTS_OF_OTHERS {
                let start = format!("{method} {path} HTTP/1.1");
                let target = format!("{method} http://{host}{path} HTTP/1.1");
                let (host, body) = (format!("Host: {host}"), r#"{"data":1}"#);
                let length = format!("Content-Length: {}", body.len());
                let kind = "Content-Type: application/json";
                for lines in [
                    [&start[..], &host[..], kind, &length],
                    [&start, &host, "Origin: http://attacker.example", "Connection: close"],
                    [&target, "Host: localhost", kind, &length],
                ] {
                    // A target with such a host is no HTTP.
                    if lines[0] == target && target.contains('%') {
                        continue;
                    }
                    let answer = refused(&node, &lines, body).await;
                    if method != "HEAD" {
                        assert_eq!(answer.problem(421), "not-this-host", "{lines:?}");
                        let said = format!("{answer:?}");
                        assert!(!said.contains("attacker"), "{said}");
                    }
                    assert_eq!(answer.status, 421, "{lines:?}");
                }
            }
            let url = format!("http://attacker.example:{}{path}", node.address.port());
            for is_http_2 in [false, true] {
                let client = rebound(&node, is_http_2);
                let answer = client.request(method.parse().unwrap(), &url).send().await.unwrap();
                assert_eq!(answer.status(), 421, "{method} {path}, HTTP/2: {is_http_2}");
            }
        }
        // One of HTTP/1.0 may name no host, but none of others.
        let lines = ["GET /boards HTTP/1.0", "Host: attacker.example"];
        assert_eq!(ask(node.address, &lines, b"").await.problem(421), "not-this-host");
        assert_eq!(ask(node.address, &["GET /boards HTTP/1.0"], b"").await.status, 200);
        assert_nothing_was_done(&node).await;

        for host in OWN_NAMES {
            let lines = ["GET /boards/board-1 HTTP/1.1", &format!("Host: {host}")];
            assert_eq!(ask(node.address, &lines, b"").await.status, 200, "{host}");
        }
    }
}

/// Asks, and reads the answer, with a body only where one is expected.
async fn refused(node: &Node, lines: &[&str], body: &str) -> Answer {
    let body = if lines.iter().any(|line| line.starts_with("Content-Length")) { body } else { "" };
    if !lines[0].starts_with("HEAD") {
        return ask(node.address, lines, body.as_bytes()).await;
    }
    let bytes = [&lines.join("\r\n"), "\r\nConnection: close\r\n\r\n", body].concat();
    let said = crate::harness::raw::say(node.address, bytes.as_bytes()).await;
    crate::harness::raw::parse_answer(said.as_bytes(), false).unwrap()
}

#[tokio::test]
async fn hosts_that_are_listed_are_answered_to_and_with_a_star_all() {
    let listed = ("FANTAIL_HOSTS", "App.example, events.example:8443");
    let node = Backend::Embedded.start(&[listed]).await;
    for (host, status) in [
        ("app.example", 200),
        ("app.example:3000", 200),
        ("events.example:8443", 200),
        ("localhost:3000", 200),
        ("events.example", 421),
        ("www.app.example", 421),
        ("attacker.example", 421),
    ] {
        let lines = ["GET /boards HTTP/1.1", &format!("Host: {host}")];
        assert_eq!(ask(node.address, &lines, b"").await.status, status, "{host}");
    }
    let node = Backend::Embedded.start(&[("FANTAIL_HOSTS", "*")]).await;
    for host in HOSTS_OF_OTHERS {
        let lines = ["GET /boards HTTP/1.1", &format!("Host: {host}")];
        assert_eq!(ask(node.address, &lines, b"").await.status, 200, "{host}");
    }
}

const LISTED: &str = "https://app.example";
const SETTINGS: (&str, &str) =
    ("FANTAIL_CORS_ORIGINS", "https://app.example,http://localhost:8080");

/// What browsers send with a request of a page of another origin.
fn of_foreign_pages(port: u16) -> Vec<Vec<(&'static str, String)>> {
    let origin = |origin: &str| ("origin", origin.to_owned());
    let site = |site: &str| ("sec-fetch-site", site.to_owned());
    vec![
        vec![origin("https://evil.example")],
        vec![origin("https://evil.example"), site("cross-site")],
        vec![origin("null")],
        vec![origin("null"), site("same-origin")],
        vec![origin("https://app.example.evil.example")],
        vec![origin("http://app.example")],
        vec![origin("http://127.0.0.1")],
        vec![origin(&format!("http://127.0.0.1:{}", port ^ 1)), site("same-site")],
        vec![origin(&format!("http://127.0.0.1:{port}")), site("cross-site")],
        vec![site("cross-site")],
        vec![site("same-site")],
    ]
}

#[tokio::test]
async fn a_page_of_another_origin_writes_nothing_whatever_it_sends() {
    for road in ROADS {
        let node = Backend::Embedded.start(&[&road[..], &[SETTINGS]].concat()).await;
        let writes = [
            ("POST", "/topics/t/events", r#"{"data":1}"#),
            ("POST", "/tasks", r#"{"title":"x","listId":"list-todo"}"#),
            ("POST", "/boards", r#"{"name":"theirs"}"#),
            ("POST", "/boards/board-1/lists", r#"{"title":"x"}"#),
            ("PATCH", "/tasks/task-1", r#"{"title":"x"}"#),
            ("DELETE", "/tasks/task-1", ""),
            ("PUT", "/tasks/task-1", "{}"),
            ("FLY", "/nowhere", ""),
        ];
        for is_http_2 in [false, true] {
            let client = reqwest::Client::builder().no_proxy();
            let client = if is_http_2 { client.http2_prior_knowledge() } else { client };
            let client = client.build().unwrap();
            for headers in of_foreign_pages(node.address.port()) {
                for (method, path, body) in writes {
                    for kind in ["application/json", "text/plain"] {
                        let url = format!("{}{path}", node.base);
                        let mut request = client.request(method.parse().unwrap(), url);
                        for (name, value) in &headers {
                            request = request.header(*name, value);
                        }
                        let request = request.header("content-type", kind).body(body);
                        let answer = request.send().await.unwrap();
                        assert_eq!(answer.status(), 403, "{method} {path} {headers:?}");
                        let allowed = answer.headers().get("access-control-allow-origin");
                        assert_eq!(allowed, None, "{method} {path} {headers:?}");
                        assert!(header(&answer, "vary").contains("origin"));
                        let text = answer.text().await.unwrap();
                        assert!(text.contains("foreign-page") && !text.contains("evil"), "{text}");
                    }
                }
            }
        }
        assert_nothing_was_done(&node).await;

        // Its own pages, those of listed origins, and programs that are no browsers.
        let own = format!("http://127.0.0.1:{}", node.address.port());
        for headers in [
            &[][..],
            &[("sec-fetch-site", "none")],
            &[("origin", &own), ("sec-fetch-site", "same-origin")],
            &[("origin", LISTED), ("sec-fetch-site", "cross-site")],
        ] {
            let event = Some(json!({ "data": 1 }));
            let answer = node.send_with("POST", "/topics/t/events", headers, event).await;
            assert_eq!(answer.status, 201, "{headers:?}");
        }
    }
}

#[tokio::test]
async fn all_origins_are_let_in_where_that_is_said() {
    let node = Backend::Embedded.start(&[("FANTAIL_CORS_ORIGINS", "*")]).await;
    let headers = [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")];
    let event = Some(json!({ "data": 1 }));
    let answer = node.send_with("POST", "/topics/t/events", &headers, event).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    // That would be all, with everything that a user's cookies allow.
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    let asks = [headers[0], PRIVATE_NETWORK, ("access-control-request-method", "POST")];
    let answer = node.send_with("OPTIONS", "/tasks", &asks, None).await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("access-control-allow-private-network"), "");
}

const PRIVATE_NETWORK: (&str, &str) = ("access-control-request-private-network", "true");

#[tokio::test]
async fn a_preflight_is_answered_for_listed_origins_alone_and_reflects_nothing() {
    let node = Backend::Embedded.start(&[SETTINGS]).await;
    let preflight = async |headers: &[(&str, &str)]| {
        let asks = [
            ("access-control-request-method", "PATCH"),
            ("access-control-request-headers", "content-type, x-injected, if-match"),
        ];
        let headers = [&asks, headers].concat();
        node.send_with("OPTIONS", "/tasks/task-1/move", &headers, None).await
    };
    let answer = preflight(&[("origin", LISTED)]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), LISTED);
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    assert_eq!(answer.header("access-control-allow-methods"), "GET,POST,PATCH,DELETE");
    assert_eq!(
        answer.header("access-control-allow-headers"),
        "authorization,content-type,idempotency-key,if-match,last-event-id,cache-control"
    );
    assert_eq!(answer.header("access-control-max-age"), "7200");
    assert!(answer.header("vary").contains("origin"), "{answer:?}");
    assert_eq!(answer.header("access-control-allow-private-network"), "", "nobody has asked");
    let answer = preflight(&[("origin", LISTED), PRIVATE_NETWORK]).await;
    assert_eq!(answer.header("access-control-allow-private-network"), "true");

    for origin in ["https://evil.example", "null", "https://app.example.", "HTTPS://app.example"] {
        let answer = preflight(&[("origin", origin), PRIVATE_NETWORK]).await;
        for name in ["origin", "credentials", "private-network"] {
            assert_eq!(answer.header(&format!("access-control-allow-{name}")), "", "{origin}");
        }
        assert!(!format!("{answer:?}").contains("injected"), "{answer:?}");
        assert!(answer.header("vary").contains("origin"), "{answer:?}");
    }
}

#[tokio::test]
async fn streams_and_refusals_say_who_may_read_them_on_every_road() {
    for road in ROADS {
        let node = Backend::Embedded.start(&[&road[..], &[SETTINGS]].concat()).await;
        for is_http_2 in [false, true] {
            let client = reqwest::Client::builder().no_proxy();
            let client = if is_http_2 { client.http2_prior_knowledge() } else { client };
            let client = client.build().unwrap();
            for (path, status) in [
                ("/topics/t/events", 200),
                ("/boards/nope/events", 404),
                ("/topics/t/events?form=earliest", 400),
                ("/topics/t/history", 200),
                ("/nowhere", 404),
            ] {
                for (origin, is_listed) in [(LISTED, true), ("https://evil.example", false)] {
                    let request = client.get(format!("{}{path}", node.base));
                    let answer = request.header("origin", origin).send().await.unwrap();
                    assert_eq!(answer.status(), status, "{path}");
                    let (allowed, with) = if is_listed { (LISTED, "true") } else { ("", "") };
                    assert_eq!(header(&answer, "access-control-allow-origin"), allowed, "{path}");
                    assert_eq!(header(&answer, "access-control-allow-credentials"), with);
                    assert!(header(&answer, "vary").contains("origin"), "{path}: {answer:?}");
                    let exposed = header(&answer, "access-control-expose-headers");
                    assert!(exposed.contains("last-event-id"), "{path}: {answer:?}");
                }
            }
        }
    }
}

fn header(answer: &reqwest::Response, name: &str) -> String {
    answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn every_answer_says_what_it_is_and_to_whom_it_is_nothing() {
    for road in ROADS {
        let node = Backend::Embedded.start(&[&road[..], &[OWN_HOSTS]].concat()).await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let others = [
            ("GET", "/nowhere"),
            ("PUT", "/tasks"),
            ("OPTIONS", "/tasks"),
            ("GET", "/boards/nope/events"),
            ("GET", "/style.css"),
            ("GET", "/favicon.svg"),
        ];
        for (method, path) in ROUTES.into_iter().chain(others) {
            for headers in [&[][..], &[("origin", "null")], &[("host", "attacker.example")]] {
                let method: reqwest::Method = method.parse().unwrap();
                let mut request = client.request(method, format!("{}{path}", node.base));
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                let answer = request.send().await.unwrap();
                for (name, value) in [
                    ("x-content-type-options", "nosniff"),
                    ("referrer-policy", "no-referrer"),
                    ("cross-origin-resource-policy", "same-origin"),
                ] {
                    assert_eq!(header(&answer, name), value, "{path}: {answer:?}");
                }
            }
        }
        let page = node.send("GET", "/", None).await;
        let policy = page.header("content-security-policy");
        let rules: Vec<&str> = policy.split(';').map(str::trim).collect();
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(rules.contains(&rule), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}
