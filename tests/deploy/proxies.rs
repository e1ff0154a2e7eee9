//! What every proxy in front of the gateway owes its clients, with the files that ship.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::files::{text, top};
use crate::node::Node;
use crate::process::{A_MINUTE, Directory, free_port, post, until};
use crate::proxy::{Kind, Proxy, program, run_nginx};

const KINDS: [Kind; 3] = [Kind::Nginx, Kind::Haproxy, Kind::Caddy];

/// Nobody listens there.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

#[test]
fn haproxy_and_caddy_accept_their_files_as_they_are() {
    let haproxy = top().join("deploy/haproxy/haproxy.cfg");
    let output = program("haproxy").arg("-c").arg("-f").arg(haproxy).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let directory = Directory::new("caddy-validate");
    let mut caddy = program("caddy");
    for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
        caddy.env(variable, &directory.0);
    }
    let file = top().join("deploy/caddy/Caddyfile");
    let arguments = ["validate", "--adapter", "caddyfile", "--config"];
    let output = caddy.args(arguments).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn streams_are_told_to_come_back_and_writers_the_truth_when_no_node_is_there() {
    for kind in KINDS {
        let proxy = Proxy::start(kind, &[NOBODY]).await;
        assert_told_to_come_back(&proxy.url("")).await;
        for path in ["/tasks", "/topics/news/events"] {
            let status = post(&proxy.url(""), path, r#"{"data":1}"#).await;
            assert!([502, 503].contains(&status), "{kind:?}: {path}: {status}");
        }
    }
}

/// What a node takes for a stream's path. A topic's name can be a slash.
const PATHS_OF_STREAMS: [&str; 11] = [
    "/events?topics=t",
    "/events/?topics=t",
    "//events//?topics=t",
    "/boards/board-1/events",
    "/boards/board-1/events/",
    "/topics/t//events",
    "//topics//t//events//",
    "/topics/a%2Fb/events/",
    "/topics/%2F/events",
    "/topics/events/events",
    "/topics/%C3%BC/events",
];

/// What begins or ends like one.
const OTHER_PATHS: [&str; 9] = [
    "/eventsx",
    "/events/x",
    "/tasks/events",
    "/xtopics/t/events",
    "/topics/t/events/x",
    "/topics/tevents",
    "/topics/t/history/",
    "/topics/t/Events",
    "/",
];

/// One that is taken for an ordinary request is buffered, cut when it is silent, and told to go away
/// for ever when its node is gone.
#[tokio::test]
async fn every_spelling_of_a_stream_s_path_is_a_stream_s_to_node_and_proxies() {
    let client = reqwest::Client::new();
    let node = Node::start(&[]).await;
    let get = async |url: String| client.get(url).send().await.unwrap();
    let is_stream = |answer: &reqwest::Response| {
        let kind = answer.headers().get("content-type").map(|kind| kind.as_bytes());
        answer.status() == 200 && kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"))
    };
    for (paths, of_streams) in [(&PATHS_OF_STREAMS[..], true), (&OTHER_PATHS, false)] {
        for path in paths {
            assert_eq!(is_stream(&get(node.url(path)).await), of_streams, "{path}");
        }
        for kind in KINDS {
            let there = Proxy::start(kind, &[&node]).await;
            let gone = Proxy::start(kind, &[NOBODY]).await;
            // All at once: Caddy goes on looking for a node for some seconds.
            let all = paths.iter().map(async |path| {
                let told = get(there.url(path)).await;
                assert_eq!(is_stream(&told), of_streams, "{kind:?}: {path}: {told:?}");
                let told = get(gone.url(path)).await;
                assert_eq!(is_stream(&told), of_streams, "{kind:?}, no node: {path}: {told:?}");
            });
            futures_util::future::join_all(all).await;
        }
    }
}

/// Each event comes through while nothing follows it, encoded as the node has encoded it.
#[tokio::test]
async fn streams_that_a_node_compresses_pass_through_as_they_are() {
    let node = Node::start(&[("FANTAIL_COMPRESSION", "br,gzip")]).await;
    let client = reqwest::Client::new();
    for kind in KINDS {
        let proxy = Proxy::start(kind, &[&node]).await;
        let topic = format!("/topics/{kind:?}/events");
        let request = client.get(proxy.url(&topic)).header("accept-encoding", "gzip");
        let mut through = request.send().await.unwrap();
        assert_eq!(through.headers()["content-encoding"], "gzip", "{kind:?}");
        let mut decoder = flate2::write::GzDecoder::new(Vec::new());
        for n in 0..5 {
            let data = format!("{n} {}", "something to do ".repeat(n * 20));
            let status = post(&proxy.url(""), &topic, &format!("{{\"data\":\"{data}\"}}")).await;
            assert_eq!(status, 201, "{kind:?}");
            let read = async {
                while !String::from_utf8_lossy(decoder.get_ref()).contains(&data) {
                    let chunk = through.chunk().await.unwrap().expect("the stream goes on");
                    std::io::Write::write_all(&mut decoder, &chunk).unwrap();
                    std::io::Write::flush(&mut decoder).unwrap();
                }
            };
            tokio::time::timeout(A_MINUTE, read).await.expect("it comes at once");
        }
    }
}

/// What a guard in front of the nodes keeps back, no spelling of it gets past.
#[tokio::test]
async fn what_is_for_operators_is_not_reached_by_another_spelling() {
    let node = Node::start(&[]).await;
    let proxy = Proxy::start_for_strangers(&[&node]).await;
    let spellings = "/metrics|/metrics/|//metrics|/metrics//|/metrics?|/%6detrics|/metrics%2f|\
                     /./metrics|/metrics/.|/x/../metrics|/METRICS|/metrics;|/metrics/%2e|/metrics#x|\
                     /readyz|/readyz/|/readyz//|//readyz|/admin/connections|/admin/connections/|\
                     /admin//connections|/admin/connections//|/admin/connections/?limit=1|\
                     /admin/./connections|/admin%2fconnections|http://localhost/metrics|http://localhost//metrics/";
    for spelling in spellings.split('|') {
        let mut socket = TcpStream::connect(proxy.http1).await.unwrap();
        let head =
            format!("GET {spelling} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = socket.read_to_string(&mut answer);
        tokio::time::timeout(A_MINUTE, read).await.expect("it is answered").unwrap();
        let status = &answer[9..12];
        assert!(["403", "404"].contains(&status), "{spelling}: {answer}");
    }
    assert_eq!(reqwest::get(proxy.url("/healthz")).await.unwrap().status(), 200);
}

/// Traefik and ingress-nginx have no answers of their own and ask this server.
#[tokio::test]
async fn the_server_that_says_retry_for_other_proxies_says_it_to_streams_alone() {
    let directory = Directory::new("retry");
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let shipped = text(&top().join("deploy/nginx/retry.conf"));
    assert!(shipped.contains("listen 8080;"));
    let path = directory.0.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {path}/{name};"))
        .join(" ");
    let configuration = format!(
        "daemon off; pid {path}/pid; events {{}} http {{ {temporary} {} }}",
        shipped.replace("listen 8080;", &format!("listen {address};"))
    );
    let _nginx = run_nginx(&configuration, &directory.0);
    until("nginx listens", async || TcpStream::connect(address).await.is_ok()).await;
    let url = format!("http://{address}");
    assert_told_to_come_back(&url).await;
    assert_eq!(post(&url, "/topics/news/events", "{}").await, 503);
}

/// Every stream's address gives 200 and a time to wait, and not everybody the same. Nothing follows
/// the time: four client libraries make an empty event of a blank line.
pub async fn assert_told_to_come_back(url: &str) {
    let paths = ["/boards/board-1/events", "/events?boards=board-1", "/topics/a%2Fb/events"];
    let client = reqwest::Client::new();
    // All at once: Caddy goes on looking for a node for some seconds.
    let answers = futures_util::future::join_all(paths.iter().cycle().take(36).map(async |path| {
        let request = client.get(format!("{url}{path}"));
        let answer = request.header("Origin", "https://app.example").send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let header = |name| answer.headers()[name].to_str().unwrap().to_owned();
        assert!(header("content-type").starts_with("text/event-stream"));
        assert!(header("cache-control").contains("no-cache"));
        assert_eq!(header("access-control-allow-origin"), "https://app.example");
        let body = answer.text().await.unwrap();
        let wait = body.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix('\n'));
        let wait = wait.and_then(|wait| wait.parse::<u64>().ok());
        wait.unwrap_or_else(|| panic!("{path}: {body:?}"))
    }));
    let waits: BTreeSet<u64> = answers.await.into_iter().collect();
    assert!(waits.iter().all(|wait| (1000..=6000).contains(wait)), "{waits:?}");
    assert!(waits.len() > 1, "all clients would come back at once: {waits:?}");
}

#[tokio::test]
async fn the_stream_of_a_client_that_is_killed_is_gone_from_its_node_at_once() {
    // A heartbeat would find it out, too, and so would the proxies' 75 seconds.
    let node = Node::start(&[("FANTAIL_HEARTBEAT", "10m")]).await;
    for kind in KINDS {
        let proxy = Proxy::start(kind, &[&node]).await;
        let over_http1 = RawStream::open(proxy.http1).await;
        let over_http2 = Http2::connect(proxy.http2).await;
        let body = over_http2.stream().await;
        assert_eq!(node.streams().await, 2, "{kind:?}");

        // What the kernel does for a process that is killed: it closes its sockets.
        drop(over_http1);
        gone(&node, 1, &format!("{kind:?} over HTTP/1.1")).await;
        drop(over_http2);
        drop(body);
        gone(&node, 0, &format!("{kind:?} over HTTP/2")).await;
    }
}

/// Until the node has only so many streams left.
async fn gone(node: &Node, left: usize, kind: &str) {
    let what = format!("the stream is gone behind {kind}");
    until(&what, async || node.streams().await == left).await;
}

#[tokio::test]
async fn one_http_2_connection_carries_240_streams_and_the_requests_beside_them() {
    let node = Node::start(&[]).await;
    for kind in KINDS {
        let proxy = Proxy::start(kind, &[&node]).await;
        let browser = Http2::connect(proxy.http2).await;
        let mut bodies = Vec::new();
        for number in 0..240 {
            let opened = tokio::time::timeout(A_MINUTE, browser.stream()).await;
            bodies.push(opened.unwrap_or_else(|_| panic!("{kind:?}: stream {number} hangs")));
        }
        let board = tokio::time::timeout(A_MINUTE, browser.get("/boards/board-1"));
        assert_eq!(board.await.expect("a request is answered").status(), 200, "{kind:?}");
        assert_eq!(node.streams().await, 240, "{kind:?}");
        drop((bodies, browser));
        gone(&node, 0, &format!("{kind:?}")).await;
    }
}

/// A client that takes a clean end for the end of the stream stops for ever behind a proxy that makes
/// one of a node's death.
#[tokio::test]
async fn what_a_client_sees_when_its_node_dies_is_what_the_documentation_says() {
    let page = text(&top().join("docs/clients.md"));
    for (kind, name) in KINDS.into_iter().zip(["nginx", "HAProxy", "Caddy"]) {
        let node = Node::start(&[]).await;
        let proxy = Proxy::start(kind, &[&node]).await;
        let over_http1 = RawStream::open(proxy.http1).await;
        let mut over_http2 = Http2::connect(proxy.http2).await.stream().await;
        node.kill();
        let http1 = over_http1.ends_cleanly().await;
        let http2 = loop {
            match over_http2.frame().await {
                Some(Ok(_)) => {}
                end => break end.is_none(),
            }
        };
        let [http1, http2] = [http1, http2].map(|clean| if clean { "clean end" } else { "cut" });
        let row = format!("\n| {name} | {http1} | {http2} |\n");
        assert!(page.contains(&row), "docs/clients.md does not say {row}");
    }
}

/// A client of HTTP/1.0 need not name a host, and a node that is asked with HTTP/1.1 insists on one.
#[tokio::test]
async fn a_request_without_a_host_is_answered() {
    let node = Node::start(&[]).await;
    for kind in [Kind::Nginx, Kind::Haproxy] {
        let proxy = Proxy::start(kind, &[&node]).await;
        let mut socket = TcpStream::connect(proxy.http1).await.unwrap();
        socket.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        let read = socket.read_to_string(&mut answer);
        tokio::time::timeout(A_MINUTE, read).await.expect("it is answered").unwrap();
        assert!(answer.contains(" 200 OK") && answer.contains("\r\n\r\nok"), "{kind:?}: {answer}");
    }
}

#[tokio::test]
async fn a_write_that_was_sent_is_not_sent_again_and_a_stream_is_asked_for_elsewhere() {
    for kind in KINDS {
        let (first, second) = (DyingNode::start().await, DyingNode::start().await);
        let proxy = Proxy::start(kind, &[first.address, second.address]).await;
        let count = |line: &str| first.heard(line) + second.heard(line);
        for method in ["POST", "PATCH"] {
            let method = method.parse::<reqwest::Method>().unwrap();
            let line = format!("{method} /tasks/task-1/move");
            let request = reqwest::Client::new().request(method, proxy.url("/tasks/task-1/move"));
            let answer = request.body("{}").send().await.unwrap();
            assert!([502, 503].contains(&answer.status().as_u16()), "{kind:?}: {answer:?}");
            assert_eq!(count(&line), 1, "{kind:?}: {line} was sent again");
        }
        let answer = reqwest::get(proxy.url("/topics/t/events")).await.unwrap();
        assert_eq!(answer.status(), 200, "{kind:?}");
        assert!(answer.text().await.unwrap().starts_with("retry: "), "{kind:?}");
        assert!(count("GET /topics/t/events") >= 2, "{kind:?} asked one node only");
    }
}

/// A node that dies whenever it has read a request; to health checks it is well.
struct DyingNode {
    address: SocketAddr,
    requests: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

impl DyingNode {
    async fn start() -> DyingNode {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
        let heard = requests.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let heard = heard.clone();
                tokio::spawn(async move {
                    let mut head = [0; 4096];
                    let length = socket.read(&mut head).await.unwrap_or(0);
                    let head = String::from_utf8_lossy(&head[..length]).into_owned();
                    if head.starts_with("GET /readyz") {
                        let well =
                            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                        let _ = socket.write_all(well).await;
                    } else if !head.is_empty() {
                        heard.lock().unwrap().push(head);
                    }
                });
            }
        });
        DyingNode { address, requests }
    }

    /// How many requests began like this.
    fn heard(&self, line: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|head| head.starts_with(line)).count()
    }
}

/// A stream over a bare HTTP/1.1 connection, to see its every byte.
struct RawStream(TcpStream);

impl RawStream {
    /// Opens one and waits for its first event.
    async fn open(proxy: SocketAddr) -> RawStream {
        let mut socket = TcpStream::connect(proxy).await.unwrap();
        let request = format!("GET /topics/t/events HTTP/1.1\r\nHost: {proxy}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        let opened = async {
            while !String::from_utf8_lossy(&said).contains("connected") {
                assert_ne!(socket.read_buf(&mut said).await.unwrap(), 0, "the stream ended");
            }
        };
        tokio::time::timeout(A_MINUTE, opened).await.expect("the stream opens");
        RawStream(socket)
    }

    /// Whether the response ends as if it were complete, after which the connection may stay open.
    async fn ends_cleanly(mut self) -> bool {
        let mut rest = Vec::new();
        let read = async {
            while !rest.ends_with(b"0\r\n\r\n") {
                if !self.0.read_buf(&mut rest).await.is_ok_and(|length| length > 0) {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(A_MINUTE, read).await.expect("the response ends")
    }
}

/// One HTTP/2 connection, as a browser has one for all its tabs.
struct Http2 {
    sender: SendRequest<Empty<Bytes>>,
    authority: String,
}

impl Http2 {
    async fn connect(proxy: SocketAddr) -> Http2 {
        let socket = TcpStream::connect(proxy).await.unwrap();
        let (sender, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        Http2 { sender, authority: proxy.to_string() }
    }

    async fn get(&self, path: &str) -> hyper::Response<Incoming> {
        let request = hyper::Request::get(format!("http://{}{path}", self.authority));
        let request = request.body(Empty::new()).unwrap();
        let mut sender = self.sender.clone();
        sender.ready().await.unwrap();
        sender.send_request(request).await.unwrap()
    }

    /// The body of a stream whose head came.
    async fn stream(&self) -> Incoming {
        let answer = self.get("/topics/t/events").await;
        assert_eq!(answer.status(), 200);
        answer.into_body()
    }
}
