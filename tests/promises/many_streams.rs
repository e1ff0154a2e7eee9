//! Many streams at once.

use futures_util::future::join_all;

use crate::harness::client::open_many;
use crate::harness::{Api, Backend, Stream, epoch, raise_descriptor_limit, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_streams_on_one_node_all_hear_the_same() {
    const STREAMS: usize = 10_000;
    raise_descriptor_limit(STREAMS as u64 + 500);
    // Long heartbeats: what is counted here are events.
    let node = Backend::Redis.start(&[("FANTAIL_HEARTBEAT", "5m")]).await;
    let mut streams = open_many(node.address, "/boards/board-1/events", STREAMS, &[]).await;
    assert!(streams.iter().all(|stream| stream.status == 200));
    node.until_streams(STREAMS).await;
    let mut positions = Vec::new();
    for n in 0..3 {
        positions.push(node.create(&format!("{n}"), "list-todo").await.1);
    }
    let heard = join_all(streams.iter_mut().map(|stream| async {
        let events = stream.events(4).await;
        assert!(events[0].is_connected());
        events[1..].iter().map(|event| event.id.clone()).collect::<Vec<_>>()
    }));
    for ids in within("everybody to hear", heard).await {
        assert_eq!(ids, positions);
    }
    drop(streams);
    node.until_streams(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stampede_of_resuming_clients_costs_redis_a_handful_of_reads() {
    const STREAMS: usize = 2_000;
    raise_descriptor_limit(STREAMS as u64 + 500);
    let node = Backend::Redis.start(&[("FANTAIL_HEARTBEAT", "5m")]).await;
    let redis = node.redis.as_ref().unwrap();
    let api = Api::keeping_alive(&node.base);
    let mut last = String::new();
    for n in 0..1_000 {
        last = api.publish("t", n).await;
    }
    let epoch = epoch(&last).to_owned();
    // Everybody was somewhere else when the node went away.
    let ids: Vec<String> = (0..1_000).map(|n| format!("{n}-{epoch}")).collect();
    let _: String = redis.ask(&["CONFIG", "RESETSTAT"]).await;
    let streams = open_many(node.address, "/topics/t/events", STREAMS, &ids).await;
    let caught_up = join_all(streams.into_iter().enumerate().map(|(n, mut stream)| {
        let last = &last;
        async move {
            let events = stream.until_id(last).await;
            // The hello, and everything after the position.
            assert_eq!(events.len(), 1 + 1_000 - n % 1_000);
            stream
        }
    }));
    let streams = within("everybody to catch up", caught_up).await;
    let scripts = redis.calls("evalsha").await;
    println!("{STREAMS} clients resumed: {scripts} scripts");
    // Some thirty where nothing else is to do; more when pages are gone before a slow machine has
    // come to the last. Each by itself would be thousands.
    assert!(scripts <= 200, "{scripts} scripts");
    drop(streams);
}

#[tokio::test]
async fn a_full_node_says_so_and_takes_streams_again_when_it_is_not() {
    let node = Backend::Embedded.start(&[("FANTAIL_MAX_CONNECTIONS", "3")]).await;
    let path = "/boards/board-1/events";
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(Stream::open(node.address, path).await);
    }
    let full = node.send("GET", path, None).await;
    assert_eq!(full.problem(503), "full");
    let seconds: u32 = full.header("retry-after").parse().unwrap();
    assert!((1..=5).contains(&seconds));
    // Everything else still works.
    node.create("task", "list-todo").await;
    streams.pop();
    node.until_streams(2).await;
    Stream::open(node.address, path).await;
    assert!(node.metric("fantail_connections_refused_total", "full").await >= 1.0);
}

#[tokio::test]
async fn one_address_gets_no_more_streams_than_it_may() {
    let settings = [("FANTAIL_MAX_CONNECTIONS_PER_ADDRESS", "2")];
    let node = Backend::Embedded.start(&settings).await;
    let path = "/boards/board-1/events";
    let _first = Stream::open(node.address, path).await;
    let _second = Stream::open(node.address, path).await;
    assert_eq!(node.send("GET", path, None).await.problem(503), "full");
}
