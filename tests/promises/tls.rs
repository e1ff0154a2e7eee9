//! TLS at the node: what is spoken and what is not, certificates that change, ends that are told
//! within TLS. With `TLS=1` all other promises are checked over it, too.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ALL_VERSIONS;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::client::Interpreter;
use crate::harness::tls::{CertificateFiles, over};
use crate::harness::{Backend, Single, until, within};

/// A node that speaks TLS with this certificate, whatever the environment says.
async fn start(files: &CertificateFiles, settings: &[(&str, &str)]) -> Single {
    let own = files.settings();
    let own = own.iter().map(|(name, value)| (*name, value.as_str()));
    let settings: Vec<(&str, &str)> = own.chain(settings.iter().copied()).collect();
    Backend::Embedded.start(&settings).await
}

/// Where the node itself listens.
fn address(node: &Single) -> SocketAddr {
    node.listens_at
}

type Tls = TlsStream<TcpStream>;

async fn connect(files: &CertificateFiles, node: &Single, protocols: &[&str]) -> Tls {
    let socket = TcpStream::connect(address(node)).await.unwrap();
    let client = files.client(protocols, ALL_VERSIONS);
    within("a handshake", over(socket, &client)).await.unwrap()
}

async fn open_stream(files: &CertificateFiles, node: &Single) -> Tls {
    let mut stream = connect(files, node, &["http/1.1"]).await;
    let request = "GET /topics/t/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    until_text(&mut stream, "connected").await;
    stream
}

/// Reads until this text has come.
async fn until_text(stream: &mut Tls, text: &str) {
    let (mut come, mut searched) = (Vec::new(), 0);
    within(text, async {
        // It may have begun in what was searched already.
        while !come[searched..].windows(text.len()).any(|part| part == text.as_bytes()) {
            searched = (come.len() + 1).saturating_sub(text.len());
            if searched > 1 << 16 {
                come.drain(..searched);
                searched = 0;
            }
            let read = stream.read_buf(&mut come).await.unwrap();
            assert_ne!(read, 0, "the end, after {:?}", String::from_utf8_lossy(&come));
        }
    })
    .await;
}

#[tokio::test]
async fn both_protocols_are_spoken_over_both_versions_and_nothing_older() {
    let files = CertificateFiles::make();
    let node = start(&files, &[]).await;
    for version in [&TLS12, &TLS13] {
        for (offered, taken) in
            [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
        {
            let socket = TcpStream::connect(address(&node)).await.unwrap();
            let stream = over(socket, &files.client(offered, &[version])).await.unwrap();
            let (_, session) = stream.get_ref();
            assert_eq!(session.alpn_protocol(), taken.map(str::as_bytes));
            assert_eq!(session.protocol_version(), Some(version.version));
        }
        // Something else than HTTP.
        let socket = TcpStream::connect(address(&node)).await.unwrap();
        assert!(over(socket, &files.client(&["smtp"], &[version])).await.is_err());
    }
    let old = Command::new("openssl")
        .args(["s_client", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-connect"])
        .arg(address(&node).to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!old.status.success());
    // Nor without TLS.
    let mut plain = TcpStream::connect(address(&node)).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = within("an end", plain.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    let metric = async |outcome| node.metric("fantail_tls_handshakes_total", outcome).await;
    until("all are counted", async || (metric("failed").await == 4.0).then_some(())).await;
    assert!(metric("done").await >= 6.0);
}

#[tokio::test]
async fn streams_run_over_http_2_and_http_1_side_by_side() {
    let files = CertificateFiles::make();
    let node = start(&files, &[]).await;
    let mut over_http_1 = open_stream(&files, &node).await;
    let stream = connect(&files, &node, &["h2"]).await;
    let builder = http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut streams = Vec::new();
    for _ in 0..20 {
        let request = Request::get("https://localhost/topics/t/events");
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response = within("an answer", sender.send_request(request)).await.unwrap();
        assert_eq!(response.status(), 200);
        streams.push((response.into_body(), Interpreter::default()));
    }
    node.until_streams(21).await;
    let id = node.publish("t", "over both").await;
    until_text(&mut over_http_1, "over both").await;
    for (body, interpreter) in &mut streams {
        while interpreter.events.len() < 2 {
            let frame = within("a frame", body.frame()).await.unwrap().unwrap();
            interpreter.feed(&frame.into_data().unwrap());
        }
        assert_eq!(interpreter.events[1].id, id);
    }
    // What was not read to its end is over with its connection.
    drop((over_http_1, streams, sender));
    node.until_streams(0).await;
}

#[tokio::test]
async fn a_session_is_taken_up_again_and_nothing_is_kept_for_it() {
    let files = CertificateFiles::make();
    let node = start(&files, &[]).await;
    for version in [&TLS12, &TLS13] {
        let client = files.client(&["http/1.1"], &[version]);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let socket = TcpStream::connect(address(&node)).await.unwrap();
            let mut stream = over(socket, &client).await.unwrap();
            // The ticket comes after the handshake.
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            until_text(&mut stream, "ok").await;
            kinds.push(stream.get_ref().1.handshake_kind().unwrap());
        }
        assert_eq!(kinds, [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed]);
    }
}

#[tokio::test]
async fn whoever_does_not_finish_the_handshake_is_let_go() {
    let files = CertificateFiles::make();
    let node = start(&files, &[]).await;
    let address = address(&node);
    let closed = [&b""[..], b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"].map(|said| async move {
        let began_at = Instant::now();
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(said).await.unwrap();
        let _ = within("the end", socket.read_to_end(&mut Vec::new())).await;
        began_at.elapsed()
    });
    for took in futures_util::future::join_all(closed).await {
        assert!((Duration::from_secs(9)..Duration::from_secs(15)).contains(&took), "{took:?}");
    }
    let late = async || node.metric("fantail_tls_handshakes_total", "late").await;
    until("both are counted", async || (late().await == 2.0).then_some(())).await;
}

#[tokio::test]
async fn an_end_that_is_told_within_tls_is_a_half_closed_connection() {
    let files = CertificateFiles::make();
    let node = start(&files, &[("FANTAIL_HEARTBEAT", "60s")]).await;
    for version in [&TLS12, &TLS13] {
        let socket = TcpStream::connect(address(&node)).await.unwrap();
        let client = files.client(&["http/1.1"], &[version]);
        let mut stream = over(socket, &client).await.unwrap();
        let request = "GET /topics/t/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        until_text(&mut stream, "connected").await;
        node.until_streams(1).await;
        // The client has said all, and reads on; it is found out whether it is there.
        stream.shutdown().await.unwrap();
        until_text(&mut stream, ": heartbeat").await;
        node.publish("t", "to the last").await;
        until_text(&mut stream, "to the last").await;
        // One that is gone by now is noticed when something is to be said.
        drop(stream);
        until("it is noticed", async || {
            node.publish("t", "to nobody").await;
            (node.metric("fantail_connections", "").await == 0.0).then_some(())
        })
        .await;
    }
    // One that waits for nothing is closed with its client, and hears that this is the end.
    let mut idle = connect(&files, &node, &["http/1.1"]).await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    until_text(&mut idle, "ok").await;
    idle.shutdown().await.unwrap();
    assert_eq!(within("the end", idle.read_to_end(&mut Vec::new())).await.unwrap(), 0);
}

#[tokio::test]
async fn a_reader_that_stopped_is_given_up() {
    let files = CertificateFiles::make();
    let node =
        start(&files, &[("FANTAIL_WRITE_TIMEOUT", "1s"), ("FANTAIL_HEARTBEAT", "300ms")]).await;
    let stuck = open_stream(&files, &node).await;
    let mut reads = open_stream(&files, &node).await;
    node.until_streams(2).await;
    let reading = tokio::spawn(async move { until_text(&mut reads, "still here").await });
    let text = "x".repeat(64 << 10);
    until("one is given up", async || {
        node.publish("t", text.clone()).await;
        (node.metric("fantail_connections_closed_total", "stalled").await == 1.0).then_some(())
    })
    .await;
    node.publish("t", "still here").await;
    within("its neighbour", reading).await.unwrap();
    drop(stuck);
}

/// The serial number of the certificate that the node shows.
async fn shown(node: &Single) -> Vec<u8> {
    // Whatever it is: who is right here is not the question.
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address(node).to_string()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = output.stdout;
    let begin = text.windows(11).position(|part| part == b"-----BEGIN ").unwrap();
    let end = text.windows(9).position(|part| part == b"-----END ").unwrap();
    text[begin..end].to_vec()
}

#[tokio::test]
async fn a_certificate_is_replaced_without_an_end_to_any_stream() {
    let files = CertificateFiles::make();
    let node = start(&files, &[]).await;
    let mut stream = open_stream(&files, &node).await;
    let first = shown(&node).await;
    let changes =
        async |outcome| node.metric("fantail_tls_certificate_changes_total", outcome).await;
    // One without its key: the old one stays, and it is said once.
    let other = CertificateFiles::make();
    std::fs::copy(other.certificate(), files.certificate()).unwrap();
    until("it is noticed", async || (changes("wrong").await == 1.0).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(changes("wrong").await, 1.0);
    assert_eq!(shown(&node).await, first);
    // A right one.
    files.become_like(&other);
    until("it is taken", async || (changes("taken").await == 1.0).then_some(())).await;
    assert_ne!(shown(&node).await, first);
    let mut new = open_stream(&files, &node).await;
    node.publish("t", "to both").await;
    until_text(&mut stream, "to both").await;
    until_text(&mut new, "to both").await;
    // No file at all: nothing changes.
    std::fs::remove_file(files.key()).unwrap();
    until("it is noticed", async || (changes("wrong").await == 2.0).then_some(())).await;
    let mut last = open_stream(&files, &node).await;
    node.publish("t", "to all").await;
    for stream in [&mut stream, &mut new, &mut last] {
        until_text(stream, "to all").await;
    }
    let told = node.log().iter().filter(|line| line.contains("cannot be used")).count();
    assert_eq!(told, 2, "{:#?}", node.log());
    let expiry = node.metric("fantail_tls_certificate_expiry_timestamp_seconds", "").await;
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!((86_400.0..3.0 * 86_400.0).contains(&(expiry - now)), "{expiry}");
}

#[tokio::test]
async fn files_that_cannot_be_used_stop_the_start_with_one_line() {
    let files = CertificateFiles::make();
    let other = CertificateFiles::make();
    let expired = CertificateFiles::make_expired();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let junk = files.certificate().with_file_name("junk.pem");
    std::fs::write(&junk, "no PEM at all").unwrap();
    let nowhere = files.certificate().with_file_name("nowhere.pem");
    for (certificate, key, setting, what) in [
        (nowhere.clone(), files.key(), "FANTAIL_TLS_CERT", "cannot read it"),
        (files.certificate(), nowhere, "FANTAIL_TLS_KEY", "cannot read it"),
        (junk.clone(), files.key(), "FANTAIL_TLS_CERT", "no certificate"),
        (files.certificate(), junk, "FANTAIL_TLS_KEY", "no private key"),
        (files.certificate(), other.key(), "FANTAIL_TLS_KEY", "not that of the certificate"),
        (expired.certificate(), expired.key(), "FANTAIL_TLS_CERT", "has expired"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_fantail"))
            .env("FANTAIL_LISTEN", "127.0.0.1:0")
            .env("FANTAIL_LOG", "error")
            .arg("--tls-cert")
            .arg(&certificate)
            .arg("--tls-key")
            .arg(&key)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(setting) && told.contains(what), "{what}: {told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[tokio::test]
async fn the_health_check_of_an_image_speaks_tls_where_the_node_does() {
    let files = CertificateFiles::make();
    let node = start(&files, &[]).await;
    let health = |arguments: &[&str], with_certificate: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fantail"));
        command.arg("health").args(arguments).env("FANTAIL_LISTEN", address(&node).to_string());
        if with_certificate {
            command.envs(files.settings());
        }
        command.output().unwrap()
    };
    assert!(health(&[], true).status.success());
    let url = format!("https://{}/readyz", address(&node));
    assert!(health(&["--url", &url], false).status.success());
    assert!(!health(&[], false).status.success());
    // Nobody waits for whoever says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/readyz", silent.local_addr().unwrap());
    assert!(!health(&["--url", &url], false).status.success());
}

#[tokio::test]
async fn a_proxy_header_stands_before_the_handshake() {
    let files = CertificateFiles::make();
    let settings =
        [("FANTAIL_TRUSTED_PROXIES", "127.0.0.1"), ("FANTAIL_MAX_CONNECTIONS_PER_ADDRESS", "1")];
    let node = start(&files, &settings).await;
    let mut streams = Vec::new();
    for (client, status) in [("192.0.2.1", "200"), ("192.0.2.1", "503"), ("192.0.2.2", "200")] {
        let mut socket = TcpStream::connect(address(&node)).await.unwrap();
        let header = format!("PROXY TCP4 {client} 127.0.0.1 4711 443\r\n");
        socket.write_all(header.as_bytes()).await.unwrap();
        let client = files.client(&["http/1.1"], ALL_VERSIONS);
        let mut stream = over(socket, &client).await.unwrap();
        let request = "GET /topics/t/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        until_text(&mut stream, &format!("HTTP/1.1 {status}")).await;
        streams.push(stream);
    }
}

/// Figures for `docs/operations.md`: run alone, with the release profile, and read what is printed.
/// `STREAMS=10000` for as many.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "a measurement"]
async fn memory_and_processor_time_of_streams_with_tls_beside_those_without() {
    let count: usize = std::env::var("STREAMS").map_or(1_000, |text| text.parse().unwrap());
    crate::harness::raise_descriptor_limit(count as u64 + 200);
    let files = CertificateFiles::make();
    for way in ["plain, reactor", "plain, HTTP server", "TLS, HTTP/1.1", "TLS, HTTP/2"] {
        let reactors = if way == "plain, HTTP server" { "0" } else { "1" };
        let settings = [("FANTAIL_REACTORS", reactors), ("FANTAIL_HEARTBEAT", "10m")];
        let is_tls = way.starts_with("TLS");
        let node = match is_tls {
            true => start(&files, &settings).await,
            false => Backend::Embedded.start(&settings).await,
        };
        let pid = node.process.pid();
        let before = resident_bytes(pid);
        let mut streams = tokio::task::JoinSet::new();
        // Over HTTP/2 a browser's tabs share a connection.
        let share = if way == "TLS, HTTP/2" { 10 } else { 1 };
        let client = files.client(&[if share > 1 { "h2" } else { "http/1.1" }], ALL_VERSIONS);
        for _ in 0..count / share {
            let socket = TcpStream::connect(address(&node)).await.unwrap();
            let request = b"GET /topics/t/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
            if !is_tls {
                let mut socket = socket;
                socket.write_all(request).await.unwrap();
                streams.spawn(swallow(socket));
            } else if share == 1 {
                let mut stream = over(socket, &client).await.unwrap();
                stream.write_all(request).await.unwrap();
                streams.spawn(swallow(stream));
            } else {
                let stream = over(socket, &client).await.unwrap();
                let builder = http2::Builder::new(TokioExecutor::new());
                let (mut sender, connection) =
                    builder.handshake(TokioIo::new(stream)).await.unwrap();
                streams.spawn(async move { drop(connection.await) });
                for _ in 0..share {
                    let request = Request::get("https://localhost/topics/t/events");
                    let request = request.body(Empty::<Bytes>::new()).unwrap();
                    let response = sender.send_request(request).await.unwrap();
                    let sender = sender.clone();
                    streams.spawn(async move {
                        let mut body = response.into_body();
                        while body.frame().await.is_some() {}
                        drop(sender);
                    });
                }
            }
        }
        node.until_streams(count).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let each = resident_bytes(pid).saturating_sub(before) / count;
        let began = cpu_ticks(pid);
        let events = 100_000 / count;
        for _ in 0..events {
            node.publish("t", "x".repeat(100)).await;
        }
        let delivered = (events * count) as f64;
        until("all is delivered", async || {
            (node.metric("fantail_deliveries_total", "").await >= delivered).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let micros = (cpu_ticks(pid) - began) as f64 * 10_000.0 / delivered;
        println!("{way}: {count} streams, {each} bytes each; {micros:.1} µs a delivery");
        drop(streams);
    }
}

async fn swallow(mut socket: impl tokio::io::AsyncRead + Unpin) {
    let mut part = [0; 4096];
    while socket.read(&mut part).await.is_ok_and(|count| count > 0) {}
}

/// What a process has in memory.
fn resident_bytes(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Hundredths of a second of a processor.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
