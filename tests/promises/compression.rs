//! Streams that are compressed: the same promises, however they are carried. Decoders that are not ours
//! are tried in [`decoders`].

mod decoders;

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::harness::encoding::decode_whole;
use crate::harness::tls::CERTIFICATE;
use crate::harness::tokens::{SECRET, Signer, in_seconds};
use crate::harness::{Backend, Cluster, Event, Single, Stream, epoch, h2c, seq};

const ENCODINGS: [&str; 3] = ["zstd", "br", "gzip"];

/// What a whole body says.
fn text_of(encoding: &str, body: &[u8]) -> String {
    String::from_utf8(decode_whole(encoding, body)).unwrap()
}

/// How streams are carried: by a reactor, or by the HTTP server, or over HTTP/2, or past the HTTP
/// server over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Road {
    Reactor,
    HttpServer,
    Http2,
    Tls,
}

/// Runs a test on every road.
macro_rules! on_every_road {
    ($(async fn $name:ident($road:ident: Road) $body:block)+) => {
        $(mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn run($road: Road) $body

            #[tokio::test]
            async fn by_a_reactor() {
                run(Road::Reactor).await;
            }

            #[tokio::test]
            async fn by_the_http_server() {
                run(Road::HttpServer).await;
            }

            #[tokio::test]
            async fn over_http_2() {
                run(Road::Http2).await;
            }

            #[tokio::test]
            async fn over_tls() {
                run(Road::Tls).await;
            }
        })+
    };
}

/// A node with all encodings whose streams go this way.
async fn start(road: Road, settings: &[(&str, &str)]) -> Single {
    let certificate = CERTIFICATE.settings();
    let mut all = vec![
        ("FANTAIL_COMPRESSION", "zstd,br,gzip"),
        ("FANTAIL_REACTORS", if road == Road::Reactor { "1" } else { "0" }),
        ("FANTAIL_DRAIN", "1s"),
    ];
    if road == Road::Tls {
        all.extend(certificate.iter().map(|(name, value)| (*name, value.as_str())));
    }
    all.extend(settings);
    Backend::Embedded.start(&all).await
}

async fn connect(road: Road, address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).await.unwrap();
    if road == Road::Http2 { h2c::in_front_of(socket).await.unwrap() } else { socket }
}

async fn open(
    road: Road,
    address: SocketAddr,
    path: &str,
    last_event_id: &str,
    encoding: &str,
) -> Stream {
    let socket = connect(road, address).await;
    let stream = Stream::request_in(socket, address, path, last_event_id, encoding).await.unwrap();
    assert_eq!(stream.status, 200, "{}", stream.head);
    stream
}

/// About a kilobyte, as an application would send it.
fn document(n: usize) -> Value {
    let items = (0..12).map(|item| {
        json!({ "id": format!("item-{n}-{item}"), "title": "Something to do", "done": n.is_multiple_of(2) })
    });
    json!({ "order": n, "items": items.collect::<Vec<_>>() })
}

fn document_item(n: usize) -> Value {
    json!({ "id": format!("item-{n}"), "title": "Something to do", "note": "as soon as there is time" })
}

/// The same stream as it is and in every encoding: all of them say the same.
async fn together(road: Road, address: SocketAddr, path: &str, last_event_id: &str) -> Vec<Stream> {
    let mut streams = vec![open(road, address, path, last_event_id, "").await];
    for encoding in ENCODINGS {
        let stream = open(road, address, path, last_event_id, encoding).await;
        let said = format!("\r\ncontent-encoding: {encoding}");
        assert!(stream.head.contains(&said), "{}", stream.head);
        streams.push(stream);
    }
    for stream in &mut streams {
        assert!(stream.event().await.is_connected());
    }
    streams
}

/// The next events of all of them, which must be the same.
async fn same_events(streams: &mut [Stream], count: usize) -> Vec<Event> {
    let mut all = Vec::new();
    for stream in streams.iter_mut() {
        all.push(stream.events(count).await);
    }
    assert!(all.windows(2).all(|two| two[0] == two[1]), "{all:#?}");
    all.swap_remove(0)
}

on_every_road! {
    async fn in_every_encoding_a_stream_says_the_same(road: Road) {
        let settings = [("FANTAIL_HEARTBEAT", "300ms"), ("FANTAIL_HISTORY_SIZE", "20")];
        let mut node = start(road, &settings).await;
        // Live, of all sizes.
        let mut live = together(road, node.address, "/topics/t/events", "").await;
        let mut ids = Vec::new();
        for n in 0..10 {
            ids.push(node.publish("t", document(n)).await);
            ids.push(node.publish("t", n).await);
        }
        let events = same_events(&mut live, 20).await;
        assert_eq!(events.iter().map(|event| event.id.clone()).collect::<Vec<_>>(), ids);
        assert_eq!(events[4].json(), document(2));

        // Resumed, from the tail; and more of it than one batch takes.
        let mut resumed = together(road, node.address, "/topics/t/events", &ids[3]).await;
        assert_eq!(same_events(&mut resumed, 16).await, events[4..]);
        // From the beginning.
        let mut all = together(road, node.address, "/topics/t/events?from=earliest", "").await;
        assert_eq!(same_events(&mut all, 20).await, events);

        // Several topics: each stream has a cursor of its own.
        let path = "/events?topics=t,u";
        let mut several = together(road, node.address, path, "").await;
        node.publish("u", document(100)).await;
        let first = same_events(&mut several, 1).await;
        node.publish("t", document(101)).await;
        let second = same_events(&mut several, 1).await;
        assert_eq!(second[0].json(), document(101));
        let mut again = together(road, node.address, path, &first[0].id).await;
        assert_eq!(same_events(&mut again, 1).await, second);

        // What can no longer be read.
        let lost = format!("1-{}", epoch(&ids[0]));
        for n in 0..10 {
            node.publish("t", document(n)).await;
        }
        let mut reset = together(road, node.address, "/topics/t/events", &lost).await;
        let told = same_events(&mut reset, 21).await;
        assert_eq!((told[0].kind.as_str(), told[20].seq()), ("reset", 31));

        // A board, its state first.
        node.create("A", "list-todo").await;
        let path = "/boards/board-1/events?snapshot=true";
        let mut board = together(road, node.address, path, "").await;
        node.create("B", "list-todo").await;
        let kinds: Vec<String> =
            same_events(&mut board, 2).await.into_iter().map(|event| event.kind).collect();
        assert_eq!(kinds, ["snapshot", "task_created"]);

        // Heartbeats.
        for stream in &mut board {
            while stream.interpreter.comments.len() < 2 {
                assert!(stream.more().await);
            }
        }

        // And the end, which is clean.
        node.node.terminate();
        for (n, stream) in live.iter_mut().enumerate() {
            stream.interpreter.retry = None;
            stream.end().await;
            assert!(stream.interpreter.retry.is_some(), "it was told when to come back");
            if n > 0 {
                let text = text_of(ENCODINGS[n - 1], &stream.body);
                assert!(text.contains("item-9-11"));
            }
        }
        drop((resumed, all, several, again, reset, board));
        assert_eq!(node.node.process.ended().await, Some(0));
    }

    async fn what_is_large_is_compressed_while_others_are_served(road: Road) {
        let node = start(road, &[("FANTAIL_MAX_BODY", "8MiB")]).await;
        let mut large = together(road, node.address, "/topics/t/events", "").await;
        let mut several = together(road, node.address, "/events?topics=t,u", "").await;
        let array = |items: usize| json!((0..items).map(document_item).collect::<Vec<_>>());
        for items in [1, 900, 8_000] {
            node.publish("t", array(items)).await;
            // What is small comes behind it.
            node.publish("t", items).await;
        }
        let mut events = same_events(&mut large, 6).await;
        assert_eq!((events[4].json(), events[5].json()), (array(8_000), json!(8_000)));
        for stream in &large[1..] {
            assert!(stream.bytes < large[0].bytes / 4, "{} {}", stream.bytes, large[0].bytes);
        }
        // Beyond 4 MiB nothing is compressed.
        let largest = array(60_000);
        assert!(largest.to_string().len() > 4 << 20);
        let before: Vec<usize> = large.iter().map(|stream| stream.bytes).collect();
        node.publish("t", largest).await;
        let last = node.publish("t", 60_000).await;
        events.extend(same_events(&mut large, 2).await);
        assert_eq!(events[7].id, last);
        assert!(large.iter().zip(before).all(|(stream, before)| stream.bytes - before > 4 << 20));
        let of_several = same_events(&mut several, 8).await;
        assert!(of_several.iter().zip(&events).all(|(one, other)| one.data == other.data));
        // From the log: the tail holds no more than the largest.
        let first = format!("0-{}", epoch(&last));
        let mut again = together(road, node.address, "/topics/t/events", &first).await;
        assert_eq!(same_events(&mut again, 8).await, events);
    }

    async fn a_large_board_is_compressed_for_those_who_ask_for_it(road: Road) {
        let node = start(road, &[]).await;
        for n in 0..300 {
            node.create(&format!("{n} {}", "a title ".repeat(100)), "list-todo").await;
        }
        let path = "/boards/board-1/events?snapshot=true";
        let mut streams = together(road, node.address, path, "").await;
        let events = same_events(&mut streams, 1).await;
        assert_eq!(events[0].kind, "snapshot");
        assert_eq!(events[0].json()["lists"][0]["tasks"].as_array().unwrap().len(), 300);
        for stream in &streams[1..] {
            assert!(stream.bytes < streams[0].bytes / 5, "{} {}", stream.bytes, streams[0].bytes);
        }
    }

    async fn a_stream_that_is_not_granted_any_longer_says_so_in_every_encoding(road: Road) {
        let node = start(road, &[("FANTAIL_JWT_SECRET", SECRET)]).await;
        let signer = Signer::with_secret("HS256", SECRET);
        for encoding in ENCODINGS {
            let token = signer.token(&json!({
                "sub": "a", "exp": in_seconds(6), "fantail": { "subscribe": ["t"] },
            }));
            let headers =
                format!("Authorization: Bearer {token}\r\nAccept-Encoding: {encoding}\r\n");
            let socket = connect(road, node.address).await;
            let stream = Stream::with_headers(socket, node.address, "/topics/t/events", &headers);
            let mut stream = stream.await.unwrap();
            assert_eq!(stream.status, 200, "{}", stream.head);
            assert!(stream.event().await.is_connected());
            let goodbye = stream.event().await;
            assert_eq!(goodbye.kind, "goodbye");
            assert_eq!(goodbye.json()["reason"], "expired");
            stream.end().await;
            assert!(text_of(encoding, &stream.body).contains("goodbye"));
        }
    }
}

#[tokio::test]
async fn streams_of_one_token_are_encoded_each_as_it_asks() {
    let node = start(Road::Reactor, &[("FANTAIL_JWT_SECRET", SECRET)]).await;
    let signer = Signer::with_secret("HS256", SECRET);
    let token = signer.everything();
    let mut streams = Vec::new();
    for encoding in ["identity", "gzip", "br", "zstd"] {
        let headers = format!("Authorization: Bearer {token}\r\nAccept-Encoding: {encoding}\r\n");
        let socket = TcpStream::connect(node.address).await.unwrap();
        let stream = Stream::with_headers(socket, node.address, "/topics/t/events", &headers);
        streams.push(stream.await.unwrap());
    }
    node.with_token(&token).publish("t", document(1)).await;
    // What the head says is what comes.
    assert_eq!(same_events(&mut streams, 2).await[1].json(), document(1));
}

#[tokio::test]
async fn an_entry_is_compressed_once_however_many_streams_there_are() {
    for road in [Road::Reactor, Road::HttpServer] {
        let node = start(road, &[]).await;
        let encoded = async |encoding: &str| {
            let labels = format!("encoding=\"{encoding}\"");
            node.metric("fantail_encoded_entries_total", &labels).await
        };
        let mut streams = Vec::new();
        for encoding in ["", "gzip", "zstd"] {
            for n in 0..40 {
                let path = if n % 2 == 0 { "/topics/t/events" } else { "/events?topics=t,u" };
                streams.push(open(road, node.address, path, "", encoding).await);
            }
        }
        for stream in &mut streams {
            stream.event().await;
        }
        let mut last = String::new();
        for n in 0..30 {
            last = node.publish("t", document(n)).await;
        }
        for stream in &mut streams {
            for n in 0..30 {
                assert_eq!(stream.event().await.json(), document(n));
            }
        }
        assert_eq!(encoded("gzip").await, 30.0);
        assert_eq!(encoded("zstd").await, 30.0);
        // Nobody asked.
        assert_eq!(encoded("br").await, 0.0);
        // Who comes later shares it as well.
        let first = format!("0-{}", epoch(&last));
        let mut late = open(road, node.address, "/topics/t/events", &first, "gzip").await;
        assert_eq!(late.events(31).await.last().unwrap().id, last);
        assert_eq!(encoded("gzip").await, 30.0);
        let size = async |size: &str| {
            let labels = format!("encoding=\"zstd\",size=\"{size}\"");
            node.metric("fantail_encoded_bytes_total", &labels).await
        };
        assert!(size("after").await < size("before").await / 2.0);
    }
}

#[tokio::test]
async fn a_replay_from_the_log_is_compressed_once_for_all_who_ask_for_it() {
    let settings = [("FANTAIL_COMPRESSION", "zstd,br,gzip")];
    let cluster = Cluster::start(1, &settings).await;
    let node = &cluster.nodes[0];
    let mut last = String::new();
    for n in 0..200 {
        last = node.publish("t", document(n)).await;
    }
    // Nobody was here: the tail is empty.
    let first = format!("100-{}", epoch(&last));
    let open_one = |_| open(Road::Reactor, node.address, "/topics/t/events", &first, "zstd");
    let mut streams = futures_util::future::join_all((0..20).map(open_one)).await;
    for stream in &mut streams {
        assert_eq!(stream.events(101).await.last().unwrap().id, last);
    }
    let encoded = node.metric("fantail_encoded_entries_total", "zstd").await;
    // Once for each time the page was read, which was some few times at most.
    assert!((100.0..=400.0).contains(&encoded), "{encoded}");
    assert_eq!(seq(&last), 200);
}

#[tokio::test]
async fn a_client_gets_what_it_asks_for_and_caches_are_told() {
    let node = Backend::Embedded.start(&[("FANTAIL_COMPRESSION", "br,gzip")]).await;
    let head = async |accept: &str| {
        let socket = TcpStream::connect(node.address).await.unwrap();
        let path = "/topics/t/events";
        Stream::request_in(socket, node.address, path, "", accept).await.unwrap().head
    };
    let encoding = |head: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix("content-encoding: "));
        line.map(str::to_owned)
    };
    for (accept, expected) in [
        ("", None),
        ("identity", None),
        ("zstd", None),
        ("gzip, deflate, br, zstd", Some("br")),
        ("gzip;q=0.9, br;q=0.1", Some("gzip")),
        ("*;q=0, gzip", Some("gzip")),
    ] {
        let head = head(accept).await;
        assert_eq!(encoding(&head).as_deref(), expected, "{accept:?}: {head}");
        let vary = head.lines().filter(|line| line.starts_with("vary: "));
        assert!(vary.clone().any(|line| line.contains("accept-encoding")), "{head}");
        assert!(head.contains("cache-control: no-cache, no-transform"), "{head}");
    }
    // Several lines are one, and to ask for the head is to ask for the same.
    let lines =
        "Accept-Encoding: identity;q=0\r\naccept-encoding: zstd\r\nAccept-Encoding: gzip\r\n";
    let socket = TcpStream::connect(node.address).await.unwrap();
    let stream = Stream::with_headers(socket, node.address, "/topics/t/events", lines).await;
    assert_eq!(encoding(&stream.unwrap().head).as_deref(), Some("gzip"));
    let asked = [("accept-encoding", "gzip, br")];
    let of_head = node.send_with("HEAD", "/topics/t/events", &asked, None).await;
    assert_eq!((of_head.status, of_head.header("content-encoding").as_str()), (200, "br"));
    assert!(of_head.headers.get_all("vary").iter().any(|vary| vary == "accept-encoding"));
    for excluded in ["identity;q=0, zstd", "*;q=0", "identity;q=0, *;q=0, deflate"] {
        let excluded = [("accept-encoding", excluded)];
        let refused = node.send_with("GET", "/topics/t/events", &excluded, None).await;
        assert_eq!(refused.problem(406), "not-acceptable");
        assert!(refused.headers.get_all("vary").iter().any(|vary| vary == "accept-encoding"));
    }
    // Nobody is counted for it.
    node.until_streams(0).await;

    // Where it is off nobody is asked.
    let off = Backend::Embedded.start(&[("FANTAIL_COMPRESSION", "off")]).await;
    let socket = TcpStream::connect(off.address).await.unwrap();
    let accept = "gzip, identity;q=0";
    let stream = Stream::request_in(socket, off.address, "/topics/t/events", "", accept);
    let head = stream.await.unwrap().head;
    assert!(!head.contains("content-encoding") && !head.contains("accept-encoding"), "{head}");
}
