//! Whatever a GET asks for, it costs at most a millisecond of a processor for each KiB that it has, or
//! is refused for no more than that.
//!
//! What counts is the processor time of the node, not the clock on the wall: neighbours on a busy
//! machine add nothing to it.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Node, within};

/// What a request may cost whatever it asks for: a connection, an answer, a stream that opens and
/// ends. A build without optimisation takes a millisecond or two.
const EACH_REQUEST: Duration = Duration::from_millis(5);
const EACH_KIB: Duration = Duration::from_millis(1);

/// How often each is asked, so that ticks of the clock are small beside it.
const TIMES: usize = 3;

/// The routes that answer to GET, read where they are written, with names in their places. Those that
/// do not are asked too: to be refused costs as well.
fn routes() -> BTreeSet<String> {
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut routes = BTreeSet::from(["/no/such/path".to_owned()]);
    for file in ["src/http.rs", "src/http/board.rs"] {
        let text = std::fs::read_to_string(top.join(file)).unwrap();
        let written = text.split('"').skip(1).step_by(2).filter(|text| text.starts_with('/'));
        routes.extend(written.map(|path| {
            path.replace("{board}", "board-1").replace("{topic}", "t").replace("{task}", "task-1")
        }));
    }
    assert!(routes.len() > 12 && routes.contains("/events"), "{routes:?}");
    routes
}

/// Bytes that a query, or a header, has at most here. Together with the rest of a head they stay
/// below the 64 KiB that a node reads.
const LARGE: usize = 60_000;

/// Repeats a text until it is about as long as anything may be.
fn fill(part: impl Fn(usize) -> String) -> String {
    let mut text = String::with_capacity(LARGE);
    for n in 0.. {
        let next = part(n);
        if text.len() + next.len() > LARGE {
            break;
        }
        text.push_str(&next);
    }
    text
}

/// Queries that ask for much, or for nothing that can be.
fn queries() -> Vec<(&'static str, String)> {
    vec![
        ("no query", String::new()),
        ("many names", format!("topics={}", fill(|n| format!("{n},")))),
        ("many boards", format!("boards={}", fill(|n| format!("b{n:x},")))),
        (
            "a hundred names",
            format!("topics={}", (0..100).map(|n| format!("topic-{n},")).collect::<String>()),
        ),
        ("one name many times", format!("topics={}", fill(|_| "a,".to_owned()))),
        ("commas", format!("topics={}", ",".repeat(LARGE))),
        ("long names", format!("topics={}", fill(|n| format!("{n:0>200},")))),
        ("a very long name", format!("topics={}", "a".repeat(LARGE))),
        ("one parameter many times", fill(|_| "topics=a&".to_owned())),
        ("many parameters", fill(|n| format!("p{n}=&"))),
        ("a long parameter", "topicz".repeat(LARGE / 6)),
        ("ampersands", "&".repeat(LARGE)),
        ("many positions", format!("topics=a&{}", fill(|n| format!("lastEventId={n}-k3f9&")))),
        (
            "equal positions",
            format!("topics=a&{}", fill(|n| format!("last_event_i{}=1&", ["d", "D"][n % 2]))),
        ),
        (
            "a long position",
            format!("topics=a,b&lastEventId={}", fill(|n| format!("t{n}:1-aaaa,"))),
        ),
        ("a position of marks", format!("topics=a,b&lastEventId={}", "~".repeat(LARGE - 20))),
        ("encoded letters", format!("topics={}", fill(|n| format!("%{:02X}", 65 + n % 26)))),
        ("encoded commas", format!("topics={}", fill(|_| "%2Ca".to_owned()))),
        ("percents", format!("topics={}", "%".repeat(LARGE))),
        ("pluses", format!("topics={}", "+".repeat(LARGE))),
        ("not UTF-8", format!("topics={}", fill(|_| "%ff".to_owned()))),
        ("a long number", format!("limit={}", "9".repeat(LARGE))),
        ("a ticket", format!("ticket={}", "x".repeat(LARGE))),
        ("a long place in the history", format!("after={}", "1".repeat(LARGE))),
    ]
}

/// Header lines that say much, or nothing that can be.
fn headers() -> Vec<(&'static str, String)> {
    let one = |name: &str, value: String| format!("{name}: {value}\r\n");
    // As many as the HTTP server takes, and more.
    let many =
        |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<String>();
    vec![
        ("a large Last-Event-ID", one("Last-Event-ID", fill(|n| format!("t{n}:1-aaaa,")))),
        ("a Last-Event-ID of commas", one("Last-Event-ID", ", ".repeat(LARGE / 2))),
        ("a Last-Event-ID of parts", one("Last-Event-ID", fill(|n| format!("{n}-k3f9, ")))),
        ("a Last-Event-ID of bytes", one("Last-Event-ID", "ö".repeat(LARGE / 2))),
        (
            "many Last-Event-IDs",
            many(90, &|n| format!("Last-Event-ID: {}\r\n", format!("{n}-k3f9, ").repeat(50))),
        ),
        ("a large cookie", one("Cookie", "x".repeat(LARGE))),
        ("many cookies", one("Cookie", fill(|n| format!("c{n}=v; ")))),
        ("one cookie many times", one("Cookie", fill(|_| "fantail=v; ".to_owned()))),
        ("many Cookie lines", many(90, &|n| format!("Cookie: c{n}={}\r\n", "v".repeat(600)))),
        ("a large token", one("Authorization", format!("Bearer {}", "x".repeat(LARGE)))),
        ("a token of dots", one("Authorization", format!("Bearer {}", ".".repeat(LARGE)))),
        ("many headers", many(90, &|n| format!("X-Header-{n}: {}\r\n", "v".repeat(600)))),
        ("very many headers", many(5_000, &|n| format!("x{n}: v\r\n"))),
        ("one header many times", many(90, &|_| format!("Accept: {}\r\n", "a/b,".repeat(150)))),
        ("a long Connection", one("Connection", fill(|_| "a,".to_owned()))),
        ("a long Accept-Encoding", one("Accept-Encoding", fill(|n| format!("gzip;q=0.{n},")))),
        ("a long Origin", one("Origin", format!("https://{}", "a.".repeat(LARGE / 2)))),
        ("a long Forwarded", one("Forwarded", fill(|n| format!("for=10.0.0.{n},")))),
        ("a long X-Forwarded-For", one("X-Forwarded-For", fill(|n| format!("10.0.0.{n}, ")))),
        ("a long If-None-Match", one("If-None-Match", fill(|n| format!("\"{n}\", ")))),
        ("preflight headers", one("Access-Control-Request-Headers", fill(|n| format!("x-{n},")))),
    ]
}

/// Sends a request and waits for the beginning of its answer.
async fn ask(node: &Node, head: &str) {
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    // One that is refused early does not take all of it.
    let _ = socket.write_all(head.as_bytes()).await;
    let mut answer = vec![0; 16 << 10];
    let read = within("an answer", socket.read(&mut answer)).await.unwrap_or(0);
    let text = String::from_utf8_lossy(&answer[..read]);
    assert!(read == 0 || text.starts_with("HTTP/1.1 "), "{text}");
}

/// Asks for the same a few times, and for the same again while it costs too much.
async fn costs_no_more_than_its_length(node: &Node, what: &str, heads: &[String]) {
    let bytes: usize = heads.iter().map(String::len).sum::<usize>() * TIMES;
    let requests = u32::try_from(heads.len() * TIMES).unwrap();
    let allowed = EACH_REQUEST * requests + EACH_KIB * u32::try_from(bytes >> 10).unwrap();
    let mut least = Duration::MAX;
    for _ in 0..3 {
        let before = node.process.processor_time();
        for head in heads.iter().cycle().take(heads.len() * TIMES) {
            ask(node, head).await;
        }
        least = least.min(node.process.processor_time() - before);
        if least <= allowed {
            return;
        }
    }
    panic!(
        "{what}: {requests} requests of {bytes} bytes took {least:?}, and {allowed:?} are allowed"
    );
}

#[tokio::test]
async fn large_and_odd_queries_cost_a_millisecond_a_kib_at_most_on_every_route() {
    let node = Node::start("node-1", None, &[]).await;
    let routes = routes();
    for (what, query) in queries() {
        let head = |route: &String| {
            let mark = if query.is_empty() { "" } else { "?" };
            format!(
                "GET {route}{mark}{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
        };
        let heads: Vec<String> = routes.iter().map(head).collect();
        costs_no_more_than_its_length(&node, what, &heads).await;
    }
}

#[tokio::test]
async fn large_and_odd_headers_cost_a_millisecond_a_kib_at_most_on_every_route() {
    let node = Node::start("node-1", None, &[]).await;
    let routes = routes();
    for (what, lines) in headers() {
        // Of one topic and of several.
        let routes = routes.iter().map(String::as_str).chain(["/events?topics=a,b,c"]);
        let head = |route: &str| format!("GET {route} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        let heads: Vec<String> = routes.map(head).collect();
        costs_no_more_than_its_length(&node, what, &heads).await;
    }
}

#[tokio::test]
async fn long_and_odd_paths_cost_a_millisecond_a_kib_at_most() {
    let node = Node::start("node-1", None, &[]).await;
    for (what, path) in [
        ("slashes", "/".repeat(LARGE)),
        ("slashes before a stream", format!("{}events?topics=a", "/".repeat(LARGE))),
        ("many parts", fill(|n| format!("/{n}"))),
        ("a long name", format!("/topics/{}/events", "a".repeat(LARGE))),
        ("an encoded name", format!("/topics/{}/events", fill(|_| "%41".to_owned()))),
        ("encoded slashes", format!("/topics/{}/history", fill(|_| "%2F".to_owned()))),
        ("a name that is not UTF-8", format!("/boards/{}", fill(|_| "%ff".to_owned()))),
        ("dots", fill(|_| "/..".to_owned())),
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        costs_no_more_than_its_length(&node, what, &[head]).await;
    }
}
