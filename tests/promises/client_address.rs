//! Whose a connection or a request is, behind proxies: what is counted per address is counted for
//! the client.

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::process::{Process, TempDir, free_port};
use crate::harness::raw::{self, read_answer};
use crate::harness::{Backend, Single, Stream, until, within};

const PATH: &str = "/topics/t/events";

/// A node that takes the word of its own machine, and one stream of each address.
async fn start(settings: &[(&str, &str)]) -> Single {
    let always =
        [("FANTAIL_TRUSTED_PROXIES", "127.0.0.1"), ("FANTAIL_MAX_CONNECTIONS_PER_ADDRESS", "1")];
    Backend::Embedded.start(&[&always[..], settings].concat()).await
}

/// What a request for a stream with these header lines is answered, and its socket.
async fn ask(node: &Single, lines: &str) -> (u16, TcpStream) {
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    (ask_on(&mut socket, PATH, lines).await, socket)
}

async fn ask_on(socket: &mut TcpStream, path: &str, lines: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    within("an answer", async {
        while !head.ends_with(b"\r\n\r\n") {
            let byte = socket.read_u8().await.unwrap();
            head.push(byte);
        }
    })
    .await;
    String::from_utf8_lossy(&head)[9..12].parse().unwrap()
}

#[tokio::test]
async fn streams_are_counted_for_the_clients_that_a_trusted_proxy_names() {
    for reactors in ["1", "0"] {
        let node = start(&[("FANTAIL_REACTORS", reactors)]).await;
        let mut open = Vec::new();
        for (lines, status) in [
            ("X-Forwarded-For: 192.0.2.1\r\n", 200),
            ("X-Forwarded-For: 198.51.100.1, 192.0.2.1\r\n", 503),
            ("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 127.0.0.1\r\n", 503),
            ("Forwarded: for=192.0.2.1;proto=https\r\n", 503),
            ("Forwarded: for=192.0.2.2\r\nX-Forwarded-For: 192.0.2.2\r\n", 200),
            ("Forwarded: for=\"[2001:db8::1]:80\"\r\n", 200),
            // The same network.
            ("X-Forwarded-For: 2001:db8::2\r\n", 503),
            ("X-Forwarded-For: 2001:db8:0:1::2\r\n", 200),
            // The proxy itself.
            ("", 200),
            ("X-Forwarded-For: unknown\r\n", 503),
            // Who it is cannot be told.
            ("Forwarded: for=192.0.2.3\r\nX-Forwarded-For: 192.0.2.4\r\n", 400),
            ("Forwarded: for=\", for=192.0.2.5\r\n", 400),
        ] {
            let (answered, socket) = ask(&node, lines).await;
            assert_eq!(answered, status, "{lines:?}");
            open.push(socket);
        }
        assert_eq!(node.metric("fantail_connections_refused_total", "address").await, 5.0);
    }
}

#[tokio::test]
async fn one_connection_of_a_proxy_carries_the_requests_of_many_clients() {
    let node = start(&[]).await;
    // One after the other over HTTP/1.1, the last of them a stream.
    let mut sockets = Vec::new();
    for (client, status) in [("192.0.2.1", 200), ("192.0.2.2", 200), ("192.0.2.1", 503)] {
        let mut socket = TcpStream::connect(node.address).await.unwrap();
        for before in ["198.51.100.1", "198.51.100.2"] {
            let request = format!(
                "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {before}\r\n\r\n"
            );
            socket.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(read_answer(&mut socket).await.status, 200);
        }
        let line = format!("X-Forwarded-For: {client}\r\n");
        assert_eq!(ask_on(&mut socket, PATH, &line).await, status, "{client}");
        sockets.push(socket);
    }
    // Side by side over HTTP/2.
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    let mut streams = Vec::new();
    for (n, status) in [(3, 200), (4, 200), (3, 503), (1, 503)] {
        let request = client.get(format!("{}{PATH}", node.base));
        let response = request.header("x-forwarded-for", format!("192.0.2.{n}")).send().await;
        let response = response.unwrap();
        assert_eq!(response.status(), status, "{n}");
        streams.push(response);
    }
    drop((sockets, streams));
    node.until_streams(0).await;
}

#[tokio::test]
async fn nobody_else_may_say_whose_a_request_or_a_connection_is() {
    let settings =
        [("FANTAIL_TRUSTED_PROXIES", "192.0.2.0/24"), ("FANTAIL_MAX_CONNECTIONS_PER_ADDRESS", "1")];
    let node = Backend::Embedded.start(&settings).await;
    let (status, _first) = ask(&node, "X-Forwarded-For: 198.51.100.1\r\n").await;
    assert_eq!(status, 200);
    for lines in [
        "X-Forwarded-For: 198.51.100.2\r\n",
        "Forwarded: for=198.51.100.2\r\n",
        "Forwarded: for=198.51.100.2\r\nX-Forwarded-For: 198.51.100.3\r\n",
    ] {
        assert_eq!(ask(&node, lines).await.0, 503, "{lines:?}");
    }
    for header in [v1("198.51.100.9"), v2("198.51.100.9")] {
        let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let answer = raw::say(node.address, &[&*header, request].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer:?}");
    }
}

fn v1(client: &str) -> Vec<u8> {
    let family = if client.contains(':') { "TCP6" } else { "TCP4" };
    let server = if client.contains(':') { "::1" } else { "127.0.0.1" };
    format!("PROXY {family} {client} {server} 4711 3000\r\n").into_bytes()
}

/// With an addition behind the addresses.
fn v2(client: &str) -> Vec<u8> {
    let mut addresses = match client.parse().unwrap() {
        IpAddr::V4(address) => [&address.octets()[..], &[127, 0, 0, 1]].concat(),
        IpAddr::V6(address) => [address.octets(), std::net::Ipv6Addr::LOCALHOST.octets()].concat(),
    };
    let family = if addresses.len() == 8 { 0x11 } else { 0x21 };
    addresses.extend_from_slice(&[0x12, 0x67, 0x0b, 0xb8, 0x02, 0, 3, b'a', b'.', b'b']);
    let fixed = [0x21, family, 0, addresses.len() as u8];
    [b"\r\n\r\n\0\r\nQUIT\n", &fixed[..], &addresses].concat()
}

async fn connect_as(node: &Single, header: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    socket.write_all(header).await.unwrap();
    socket
}

#[tokio::test]
async fn behind_a_proxy_header_streams_are_what_they_are_without() {
    for reactors in ["1", "0"] {
        let node = start(&[("FANTAIL_REACTORS", reactors)]).await;
        let taken = async || node.metric("fantail_request_heads_total", "taken").await;
        let before = taken().await;
        let mut streams = Vec::new();
        for header in [v1("192.0.2.1"), v2("192.0.2.2"), v1("2001:db8::1"), v2("2001:db8:0:1::1")] {
            let socket = connect_as(&node, &header).await;
            streams.push(Stream::request_on(socket, node.address, PATH, "").await.unwrap());
        }
        // In single bytes.
        for header in [v1("192.0.2.3"), v2("192.0.2.4")] {
            let mut socket = TcpStream::connect(node.address).await.unwrap();
            socket.set_nodelay(true).unwrap();
            for byte in header {
                socket.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            streams.push(Stream::request_on(socket, node.address, PATH, "").await.unwrap());
        }
        // Header and request at once.
        let request = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let whole = [v2("192.0.2.5"), request.into_bytes()].concat();
        let mut at_once = connect_as(&node, &whole).await;
        for stream in &mut streams {
            assert_eq!(stream.status, 200, "{}", stream.head);
            assert!(stream.event().await.is_connected());
        }
        node.until_streams(streams.len() + 1).await;
        if reactors == "1" && !crate::harness::h2c::is_wanted() {
            assert_eq!(taken().await - before, streams.len() as f64 + 1.0);
        }
        let id = node.publish("t", "x").await;
        for stream in &mut streams {
            assert_eq!(stream.event().await.id, id);
        }
        within("the event", async {
            let mut come = Vec::new();
            while !come.windows(id.len()).any(|part| part == id.as_bytes()) {
                assert_ne!(at_once.read_buf(&mut come).await.unwrap(), 0);
            }
        })
        .await;
        // Each address has its one stream by now.
        for header in [v2("192.0.2.1"), v1("192.0.2.5"), v2("2001:db8::ffff")] {
            let socket = connect_as(&node, &header).await;
            let stream = Stream::request_on(socket, node.address, PATH, "").await.unwrap();
            assert_eq!(stream.status, 503, "{header:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_of_the_proxys_own_is_the_proxys() {
    let node = start(&[]).await;
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let unix = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8"[..], &[b'/'; 216]].concat();
    let unspecified = b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x04\x04\0\x01x";
    let mut statuses = Vec::new();
    let mut sockets = Vec::new();
    for header in [&local[..], &unix, unspecified, b"PROXY UNKNOWN ::1 ::1 1 1\r\n", b""] {
        let mut socket = connect_as(&node, header).await;
        statuses.push(ask_on(&mut socket, PATH, "").await);
        sockets.push(socket);
    }
    assert_eq!(statuses, [200, 503, 503, 503, 503]);
    // And it may speak for others, as ever.
    let mut socket = connect_as(&node, local).await;
    assert_eq!(ask_on(&mut socket, PATH, "X-Forwarded-For: 192.0.2.1\r\n").await, 200);
    // Whom it brings may not.
    let mut socket = connect_as(&node, &v2("192.0.2.2")).await;
    assert_eq!(ask_on(&mut socket, PATH, "X-Forwarded-For: 192.0.2.1\r\n").await, 200);
}

#[tokio::test]
async fn a_header_that_is_none_closes_its_connection_and_half_a_one_does_so_after_a_while() {
    let node = start(&[]).await;
    let dropped = async || node.metric("fantail_sockets_dropped_total", "proxy_header").await;
    for (n, header) in [
        &b"PROXY TCP4 192.0.2.1\r\n"[..],
        b"PROXY TCP5 192.0.2.1 192.0.2.1 1 1\r\n",
        &[&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0b",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\r\n\r\n\0\r\nQUIT\n\x13\x11\0\x0c",
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(raw::say(node.address, header).await, "", "{header:?}");
        until("it is counted", async || (dropped().await == n as f64 + 1.0).then_some(())).await;
    }
    let halves = [&b"PRO"[..], b"PROXY TCP4 192.0.2.1 ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0"];
    let closed = halves.map(|half| {
        let address = node.address;
        async move {
            let began_at = std::time::Instant::now();
            assert_eq!(raw::say(address, half).await, "");
            began_at.elapsed()
        }
    });
    for took in futures_util::future::join_all(closed).await {
        assert!((Duration::from_secs(9)..Duration::from_secs(15)).contains(&took), "{took:?}");
    }
}

#[tokio::test]
async fn an_address_has_as_many_sockets_as_it_may_and_the_machine_itself_any() {
    let node = start(&[("FANTAIL_MAX_SOCKETS_PER_ADDRESS", "3")]).await;
    let dropped = async || node.metric("fantail_sockets_dropped_total", "\"address\"").await;
    // The machine's own, and those of the proxy.
    let mut own = Vec::new();
    for _ in 0..10 {
        own.push(connect_as(&node, b"").await);
    }
    let mut sockets = Vec::new();
    for n in 0..3 {
        let mut socket = connect_as(&node, &v2(&format!("2001:db8::{n}"))).await;
        // A stream in a reactor counts on.
        let path = if n == 0 { PATH } else { "/healthz" };
        assert_eq!(ask_on(&mut socket, path, "").await, 200);
        sockets.push(socket);
    }
    assert_eq!(dropped().await, 0.0);
    let mut fourth = connect_as(&node, &v1("2001:db8::ffff")).await;
    let mut rest = Vec::new();
    let _ = within("the end of one too many", fourth.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
    assert_eq!(dropped().await, 1.0);
    let mut other = connect_as(&node, &v1("2001:db8:1::1")).await;
    assert_eq!(ask_on(&mut other, "/healthz", "").await, 200);
    assert_eq!(node.send("GET", "/healthz", None).await.status, 200);
    // Once one of them has left, another may come.
    sockets.remove(0);
    until("there is room again", async || {
        let mut socket = connect_as(&node, &v1("2001:db8::ffff")).await;
        socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.ok()?;
        (socket.read_u8().await.ok()? == b'H').then_some(())
    })
    .await;
    until("the log says it", async || {
        let is_said = |line: &String| line.contains("FANTAIL_TRUSTED_PROXIES");
        node.log().iter().any(is_said).then_some(())
    })
    .await;
}

/// HAProxy in front of a node: its HTTP and its TCP side.
struct Haproxy {
    _process: Process,
    _dir: TempDir,
    http: SocketAddr,
    tcp: [SocketAddr; 2],
}

impl Haproxy {
    async fn start(node: SocketAddr) -> Haproxy {
        let dir = TempDir::new();
        let [http, tcp1, tcp2] = [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let text = format!(
            "global\n  maxconn 200\n\
             defaults\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             frontend http\n  mode http\n  bind {http}\n  option forwardfor\n  default_backend http\n\
             backend http\n  mode http\n  server node {node}\n\
             frontend tcp1\n  mode tcp\n  bind {tcp1}\n  default_backend tcp1\n\
             backend tcp1\n  mode tcp\n  server node {node} send-proxy\n\
             frontend tcp2\n  mode tcp\n  bind {tcp2}\n  default_backend tcp2\n\
             backend tcp2\n  mode tcp\n  server node {node} send-proxy-v2 \
             proxy-v2-options unique-id check check-send-proxy inter 100ms\n"
        );
        let file = dir.0.join("haproxy.cfg");
        std::fs::write(&file, text).unwrap();
        let child = Command::new("haproxy").arg("-f").arg(&file).stderr(Stdio::null()).spawn();
        let process = Process::quitting(child.expect("haproxy is installed"));
        until("HAProxy listens", async || TcpStream::connect(tcp2).await.ok().map(drop)).await;
        Haproxy { _process: process, _dir: dir, http, tcp: [tcp1, tcp2] }
    }
}

/// A connection from an address of this machine.
async fn connect_from(client: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((client, 0))).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test]
async fn a_real_haproxy_says_who_its_clients_are_in_three_ways() {
    let node = start(&[]).await;
    let haproxy = Haproxy::start(node.address).await;
    for way in [haproxy.http, haproxy.tcp[0], haproxy.tcp[1]] {
        let [mut first, mut second] = [
            Stream::request_on(connect_from([127, 0, 0, 2], way).await, way, PATH, "")
                .await
                .unwrap(),
            Stream::request_on(connect_from([127, 0, 0, 3], way).await, way, PATH, "")
                .await
                .unwrap(),
        ];
        for stream in [&mut first, &mut second] {
            assert_eq!(stream.status, 200, "{way}: {}", stream.head);
            assert!(stream.event().await.is_connected());
        }
        let again = connect_from([127, 0, 0, 2], way).await;
        let refused = Stream::request_on(again, way, PATH, "").await.unwrap();
        assert_eq!(refused.status, 503, "{way}");
        let id = node.publish("t", "x").await;
        for stream in [&mut first, &mut second] {
            assert_eq!(stream.event().await.id, id, "{way}");
        }
        drop((first, second));
        node.until_streams(0).await;
    }
}
