//! What a node's process meets besides clients and Redis: a standard error that nobody reads,
//! signals that mean something else, few descriptors.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::process::{Process, TempDir, free_port};
use crate::harness::{Api, Backend, Redis, Stream, until, within};

/// Starts a node whose log goes there, and waits until it answers.
async fn start_logging_to(stderr: Stdio, settings: &[(&str, &str)]) -> (Process, SocketAddr, Api) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let child = Command::new(env!("CARGO_BIN_EXE_fantail"))
        .env_clear()
        .env("FANTAIL_LISTEN", address.to_string())
        .env("FANTAIL_NODE_ID", "node-1")
        .envs(settings.iter().copied())
        .stderr(stderr)
        .spawn()
        .unwrap();
    let process = Process::quitting(child);
    let api = Api::new(&format!("http://{address}"));
    until("the node is ready", async || {
        let ready = api.try_send("GET", "/readyz", None).await.ok()?;
        (ready.status == 200).then_some(())
    })
    .await;
    (process, address, api)
}

/// A pipe with a name, open at both ends.
fn fifo(dir: &Path) -> (File, File) {
    let path = dir.join("stderr");
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    // Opening one end alone would wait for the other.
    let both = File::options().read(true).write(true).open(&path).unwrap();
    let reader = File::open(&path).unwrap();
    let writer = File::options().write(true).open(&path).unwrap();
    drop(both);
    (reader, writer)
}

/// Loses its subscription, says so, and serves as before.
async fn outlives_its_log(
    redis: &Redis,
    mut process: Process,
    address: SocketAddr,
    api: Api,
    is_dropped: bool,
) {
    let mut stream = Stream::open(address, "/topics/news/events").await;
    for n in 0..3 {
        let reconnects = api.metric("fantail_redis_reconnects_total", "").await;
        let _: u64 = redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        until("it has subscribed again", async || {
            (api.metric("fantail_redis_reconnects_total", "").await > reconnects).then_some(())
        })
        .await;
        api.publish("news", n).await;
        assert_eq!(stream.event().await.data, n.to_string());
        assert_eq!(api.send("GET", "/healthz", None).await.status, 200);
    }
    let dropped = api.metric("fantail_log_lines_dropped_total", "").await;
    assert_eq!(dropped > 0.0, is_dropped, "{dropped} lines were dropped");
    process.signal(Signal::TERM);
    within("the stream to be ended by the drain", async { while stream.next().await.is_some() {} })
        .await;
    assert_eq!(process.ended().await, Some(0));
}

#[tokio::test]
async fn a_node_goes_on_when_the_reader_of_its_log_is_gone() {
    let redis = Redis::start().await;
    let dir = TempDir::new();
    let (reader, writer) = fifo(&dir.0);
    let settings = [("FANTAIL_REDIS_URL", &*redis.plain_url()), ("FANTAIL_DRAIN", "300ms")];
    let (process, address, api) = start_logging_to(writer.into(), &settings).await;
    drop(reader);
    outlives_its_log(&redis, process, address, api, true).await;
}

#[tokio::test]
async fn a_node_goes_on_when_the_disk_behind_its_log_is_full() {
    let redis = Redis::start().await;
    let full = File::options().write(true).open("/dev/full").unwrap();
    let settings = [("FANTAIL_REDIS_URL", &*redis.plain_url()), ("FANTAIL_DRAIN", "300ms")];
    let (process, address, api) = start_logging_to(full.into(), &settings).await;
    outlives_its_log(&redis, process, address, api, true).await;
}

#[tokio::test]
async fn a_node_goes_on_when_nobody_reads_its_log() {
    let redis = Redis::start().await;
    let dir = TempDir::new();
    let (_reader, writer) = fifo(&dir.0);
    // Full to the last byte: whoever writes waits.
    let filling = File::options().write(true).open(dir.0.join("stderr")).unwrap();
    rustix::io::ioctl_fionbio(&filling, true).unwrap();
    for size in [4096, 1] {
        while rustix::io::write(&filling, &vec![b'x'; size]).is_ok() {}
    }
    let settings = [("FANTAIL_REDIS_URL", &*redis.plain_url()), ("FANTAIL_DRAIN", "300ms")];
    let (process, address, api) = start_logging_to(writer.into(), &settings).await;
    outlives_its_log(&redis, process, address, api, false).await;
}

#[tokio::test]
async fn a_node_goes_on_when_its_log_file_may_not_grow() {
    let redis = Redis::start().await;
    let dir = TempDir::new();
    let log = File::create(dir.0.join("log")).unwrap();
    let settings = [("FANTAIL_REDIS_URL", &*redis.plain_url()), ("FANTAIL_DRAIN", "300ms")];
    let (process, address, api) = start_logging_to(log.into(), &settings).await;
    let limit = Rlimit { current: Some(64), maximum: Some(64) };
    rustix::process::prlimit(Some(process.as_pid()), Resource::Fsize, limit).unwrap();
    outlives_its_log(&redis, process, address, api, true).await;
}

#[tokio::test]
async fn signals_that_mean_something_else_end_nothing() {
    let mut node = Backend::Embedded.start(&[("FANTAIL_DRAIN", "300ms")]).await.node;
    let mut stream = Stream::open(node.address, "/topics/news/events").await;
    for signal in [
        Signal::USR1,
        Signal::USR2,
        Signal::HUP,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::PIPE,
        Signal::XFSZ,
    ] {
        node.process.signal(signal);
    }
    // Real-time signals have no names; SIGRTMIN + 3 stops other programs.
    let real_time = Command::new("kill").args(["-37", &node.process.pid().to_string()]).status();
    assert!(real_time.unwrap().success());
    until("it has said what SIGHUP does", async || {
        node.log().iter().any(|line| line.contains("SIGHUP changes nothing")).then_some(())
    })
    .await;
    node.publish("news", "still here").await;
    assert_eq!(stream.event().await.data, "still here");
    node.terminate();
    within("the drain", async { while stream.next().await.is_some() {} }).await;
    assert_eq!(node.process.ended().await, Some(0));
}

#[tokio::test]
async fn whatever_means_to_stop_is_a_reason_to_drain() {
    for signal in [Signal::INT, Signal::QUIT, Signal::XCPU, Signal::POWER] {
        let mut node = Backend::Embedded.start(&[("FANTAIL_DRAIN", "300ms")]).await.node;
        let mut stream = Stream::open(node.address, "/topics/news/events").await;
        node.process.signal(signal);
        within("the drain", async { while stream.next().await.is_some() {} }).await;
        assert_eq!(node.process.ended().await, Some(0), "{signal:?}");
        // Its last lines may still be on their way to this test.
        until("it has said that it drained", async || {
            node.log().iter().any(|line| line.contains(" drained ")).then_some(())
        })
        .await;
    }
}

/// What a client says that keeps its connection, and the socket with the head of the answer.
async fn ask(address: SocketAddr, path: &str) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        assert_ne!(socket.read_buf(&mut head).await.unwrap(), 0, "closed without an answer");
    }
    (socket, String::from_utf8_lossy(&head).to_ascii_lowercase())
}

/// A node that may have few sockets, most of them for streams.
async fn start_small(settings: &[(&str, &str)]) -> (Process, SocketAddr, Api) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let child = Command::new("prlimit")
        .args(["--nofile=256:256", env!("CARGO_BIN_EXE_fantail")])
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap())
        .env("FANTAIL_LISTEN", address.to_string())
        .env("FANTAIL_DRAIN", "0s")
        .envs(settings.iter().copied())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let process = Process::quitting(child);
    let api = Api::new(&format!("http://{address}"));
    until("the node is ready", async || {
        let ready = api.try_send("GET", "/readyz", None).await.ok()?;
        (ready.status == 200).then_some(())
    })
    .await;
    (process, address, api)
}

/// Connects again and again, says this, and keeps each connection until the node closes it; without
/// reading an answer for two seconds, which it cannot notice.
async fn take_a_place(address: SocketAddr, said: Vec<u8>, reads: bool) {
    loop {
        if let Ok(mut socket) = TcpStream::connect(address).await {
            let _ = socket.write_all(&said).await;
            if reads {
                while matches!(socket.read(&mut [0; 4096]).await, Ok(1..)) {}
            } else {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn health_checks_and_publishers_find_a_place_whatever_others_do_with_theirs() {
    for road in ["1", "0"] {
        let (_process, address, _) = start_small(&[("FANTAIL_REACTORS", road)]).await;
        let mut streams = Vec::new();
        for _ in 0..126 {
            let (socket, head) = ask(address, "/topics/news/events").await;
            assert!(head.starts_with("http/1.1 200"), "{head}");
            streams.push(socket);
        }
        let post = "POST /topics/news/events HTTP/1.1\r\nHost: a\r\n\
                    Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{";
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        for (what, said, reads) in [
            ("say nothing", Vec::new(), true),
            ("send half a head", b"GET /topics/news/ev".to_vec(), true),
            ("send a part of a body", post.into(), true),
            ("keep a connection", get("/healthz").into(), true),
            ("speak HTTP/2 without a request", preface.to_vec(), true),
            ("do not read what they ask for", get("/app.js").repeat(300).into(), false),
        ] {
            let fresh = || Api::new(&format!("http://{address}"));
            let dropped = async || {
                // Who asks for it may lose its place, too, and comes again.
                until("the metrics are read", async || {
                    fresh().try_metric("fantail_sockets_dropped_total", "").await.ok()
                })
                .await
            };
            let dropped_before = dropped().await;
            let mut others = tokio::task::JoinSet::new();
            for _ in 0..100 {
                others.spawn(take_a_place(address, said.clone(), reads));
            }
            until("places are short", async || (dropped().await > dropped_before).then_some(()))
                .await;
            for n in 0..10 {
                for (method, path, body, status) in [
                    ("GET", "/healthz", None, 200),
                    ("POST", "/topics/news/events", Some(serde_json::json!({ "data": "x" })), 201),
                ] {
                    // Where this machine takes long to send a request, its place may be given to
                    // somebody else; then it comes again, as whoever asks for health does. A busy
                    // machine takes long again and again.
                    let mut statuses = Vec::new();
                    while statuses.len() < 20 && statuses.last() != Some(&Some(status)) {
                        let answer = fresh().try_send(method, path, body.clone()).await;
                        statuses.push(answer.ok().map(|answer| answer.status));
                    }
                    assert_eq!(statuses.last(), Some(&Some(status)), "{what}: {n}: {statuses:?}");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let api = Api::new(&format!("http://{address}"));
        assert_eq!(api.metric("fantail_connections", "").await, 126.0, "a stream was ended");
        assert_eq!(api.metric("fantail_connections_opened_total", "").await, 126.0);
        drop(streams);
    }
}

#[tokio::test]
async fn a_node_that_is_full_answers_operators_and_publishes() {
    let (_process, address, api) = start_small(&[]).await;
    let mut streams = Vec::new();
    let mut refused = Vec::new();
    while refused.len() < 64 {
        let (socket, head) = ask(address, "/topics/news/events").await;
        match &head[..12] {
            "http/1.1 200" => streams.push(socket),
            "http/1.1 503" => {
                assert!(head.contains("connection: close"), "{head}");
                refused.push(socket);
            }
            _ => panic!("{head}"),
        }
    }
    assert!(streams.len() > 100, "{} streams", streams.len());
    let serves = async || {
        for path in ["/healthz", "/readyz"] {
            let answer = api.try_send("GET", path, None).await.ok()?;
            assert_eq!(answer.status, 200);
        }
        let event = Some(serde_json::json!({ "data": "x" }));
        let published = api.try_send("POST", "/topics/news/events", event).await.ok()?;
        assert_eq!(published.status, 201);
        let url = format!("http://{address}/healthz");
        let health = Command::new(env!("CARGO_BIN_EXE_fantail"))
            .args(["health", "--url", &url])
            .env_clear()
            .status();
        health.unwrap().success().then_some(())
    };
    // Those that were refused have been let go, whether or not they want to.
    assert_eq!(serves().await, Some(()));
    for mut socket in refused {
        let mut rest = Vec::new();
        within("a refused connection to be closed", socket.read_to_end(&mut rest)).await.unwrap();
    }
    // Nor do those take all the places that keep a connection after an answer, or say nothing.
    let mut kept = Vec::new();
    for n in 0..200 {
        if n % 2 == 0 {
            kept.extend(TcpStream::connect(address).await);
        } else if let Ok(mut socket) = TcpStream::connect(address).await {
            let _ = socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
            kept.push(socket);
        }
    }
    let began_at = Instant::now();
    until("it serves again", serves).await;
    assert!(began_at.elapsed() < Duration::from_secs(20), "after {:?}", began_at.elapsed());
    // And no stream was ended.
    for mut stream in streams {
        let mut part = [0; 4096];
        let read = within("what was published", stream.read(&mut part)).await.unwrap();
        assert_ne!(read, 0, "a stream was ended");
    }
}

/// Sends a PING every half second and answers those that come, as a client does that wants its
/// connection for ever; the types of the frames that come until the end.
async fn ping_to_the_end(socket: TcpStream) -> Vec<u8> {
    let (mut reading, mut writing) = socket.into_split();
    let (answer, mut asked) = tokio::sync::mpsc::unbounded_channel::<Vec<u8>>();
    let pinging = tokio::spawn(async move {
        loop {
            let (flags, contents) =
                match tokio::time::timeout(Duration::from_millis(500), asked.recv()).await {
                    Ok(None) => return,
                    Ok(Some(contents)) => (1, contents),
                    Err(_) => (0, b"fantail!".to_vec()),
                };
            let ping = [&[0, 0, 8, 6, flags, 0, 0, 0, 0][..], &contents].concat();
            if writing.write_all(&ping).await.is_err() {
                return;
            }
        }
    });
    let mut kinds = Vec::new();
    let mut head = [0; 9];
    while reading.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut contents = vec![0; length];
        if reading.read_exact(&mut contents).await.is_err() {
            break;
        }
        if head[3] == 6 && head[4] & 1 == 0 {
            let _ = answer.send(contents);
        }
        kinds.push(head[3]);
    }
    pinging.abort();
    kinds
}

#[tokio::test]
async fn connections_that_ask_for_nothing_any_more_end_sooner_as_places_run_out() {
    let (_process, address, api) = start_small(&[("FANTAIL_MAX_CONNECTIONS", "200")]).await;
    let mut streams = Vec::new();
    // Together with what follows, more than half of the places and no shortage yet.
    for _ in 0..124 {
        streams.push(ask(address, "/topics/news/events").await.0);
    }
    let mut silent = Vec::new();
    for _ in 0..24 {
        silent.push(ask(address, "/healthz").await.0);
    }
    let began_at = Instant::now();
    let get = |path: &str| {
        let length = [path.len() as u8];
        let head = [&b"\x82\x86\x44"[..], &length, path.as_bytes(), b"\x41\x09localhost"].concat();
        [&[0, 0, head.len() as u8, 1, 5, 0, 0, 0, 1][..], &head].concat()
    };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let [idle, busy] = [(); 2].map(|()| TcpStream::connect(address));
    let (mut idle, mut busy) = (idle.await.unwrap(), busy.await.unwrap());
    idle.write_all(&[&preface[..], &get("/healthz")].concat()).await.unwrap();
    busy.write_all(&[&preface[..], &get("/topics/t/events")].concat()).await.unwrap();
    let mut busy = tokio::spawn(ping_to_the_end(busy));
    let kinds = within("the end of an idle connection", ping_to_the_end(idle)).await;
    // That it will not be served any more is said before (GOAWAY).
    assert!(kinds.contains(&7), "{kinds:?}");
    let took = began_at.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(60)).contains(&took), "{took:?}");
    for mut socket in silent {
        let mut rest = Vec::new();
        let _ = within("the end", socket.read_to_end(&mut rest)).await;
    }
    // What is under way goes on.
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut busy).await.is_err());
    assert_eq!(api.metric("fantail_connections", "").await, 125.0);
    assert_eq!(api.metric("fantail_sockets_dropped_total", "").await, 0.0);
    drop(streams);
}
