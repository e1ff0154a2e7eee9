//! Resuming (`docs/guarantees.md`, 1 to 4).

use std::time::Duration;

use serde_json::json;

use crate::harness::{
    Api, Backend, Cluster, Event, Node, Redis, Single, Stream, TIMEOUT, epoch, on_both_logs, seq,
};

/// After so long nothing more is expected.
const QUIET: Duration = Duration::from_millis(300);

/// A node with 20 retained entries of 30 on topic `t`, and their ids (`ids[0]` is of seq 1).
async fn trimmed_topic(backend: Backend) -> (Single, Vec<String>) {
    let node = backend.start(&[("FANTAIL_HISTORY_SIZE", "20")]).await;
    let mut ids = Vec::new();
    for n in 1..=30 {
        ids.push(node.publish("t", n).await);
    }
    (node, ids)
}

fn seqs(events: &[Event]) -> Vec<u64> {
    events.iter().map(Event::seq).collect()
}

/// Expects a reset with this reason and then everything retained, 11 to 30.
async fn expect_reset(mut stream: Stream, ids: &[String], reason: &str, from: &str) {
    let reset = stream.event().await;
    assert_eq!(reset.kind, "reset");
    assert_eq!(
        reset.json(),
        json!({ "topic": "t", "reason": reason, "from": from, "oldest": ids[10], "head": ids[29] })
    );
    assert_eq!(reset.seq(), 10, "a drop right after the reset loses nothing");
    assert_eq!(seqs(&stream.events(20).await), (11..=30).collect::<Vec<_>>());
    stream.silent_for(Duration::from_millis(50)).await;
}

on_both_logs! {
    async fn every_kind_of_last_event_id_is_judged_rightly(backend: Backend) {
        let (node, ids) = trimmed_topic(backend).await;
        let path = "/topics/t/events";
        let epoch = epoch(&ids[0]);

        let mut current = Stream::open_from(node.address, path, &ids[29]).await;
        assert_eq!(current.last_event_id(), ids[29]);
        current.silent_for(Duration::from_millis(50)).await;

        let mut old = Stream::open_from(node.address, path, &ids[19]).await;
        assert_eq!(seqs(&old.events(10).await), (21..=30).collect::<Vec<_>>());

        // The last position that has lost nothing, and the first that has.
        let mut oldest = Stream::open_from(node.address, path, &ids[9]).await;
        assert_eq!(seqs(&oldest.events(20).await), (11..=30).collect::<Vec<_>>());
        let trimmed = Stream::open_from(node.address, path, &ids[8]).await;
        expect_reset(trimmed, &ids, "trimmed", &ids[8]).await;
        let zero = format!("0-{epoch}");
        expect_reset(Stream::open_from(node.address, path, &zero).await, &ids, "trimmed", &zero).await;

        let other = Stream::open_from(node.address, path, "25-zzzzzz").await;
        expect_reset(other, &ids, "lost", "25-zzzzzz").await;
        let ahead = format!("31-{epoch}");
        expect_reset(Stream::open_from(node.address, path, &ahead).await, &ids, "lost", &ahead).await;

        let mut bare = Stream::open_from(node.address, path, "28").await;
        assert_eq!(bare.last_event_id(), format!("28-{epoch}"));
        assert_eq!(seqs(&bare.events(2).await), [29, 30]);
        let bare = Stream::open_from(node.address, path, "99").await;
        expect_reset(bare, &ids, "lost", &format!("99-{epoch}")).await;

        for sent in ["nonsense", "-1", "28-", "028-abcd", "28-ABCD", "1e3", "😀", "a,b:c"] {
            // Told back in ASCII alone, which no client changes on its way.
            let unreadable = if sent.is_ascii() { sent } else { "{" };
            let stream = Stream::open_from(node.address, path, sent).await;
            assert_eq!(stream.last_event_id(), unreadable, "a drop before the reset repeats it");
            expect_reset(stream, &ids, "unreadable", unreadable).await;
        }
        let long = "9".repeat(8_000);
        let stream = Stream::open_from(node.address, path, &long).await;
        expect_reset(stream, &ids, "unreadable", &format!("{{{}", &long[..63])).await;
    }

    async fn an_id_cannot_smuggle_lines_into_a_stream(backend: Backend) {
        let node = backend.start(&[]).await;
        node.publish("t", 1).await;
        let forged = "x%0Aevent:%20forged%0Adata:%20hi%0A%0A%0Did:%207%00";
        for path in [
            format!("/topics/t/events?lastEventId={forged}"),
            format!("/events?topics=t,u&lastEventId={forged}"),
            format!("/events?topics=t,u&lastEventId=t:{forged}"),
        ] {
            let mut stream = Stream::open(node.address, &path).await;
            assert_eq!(stream.event().await.kind, "reset", "{path}");
            assert!(stream.interpreter.events.iter().all(|event| event.kind != "forged"));
        }
    }

    async fn the_header_wins_over_the_query_and_the_query_over_from(backend: Backend) {
        let (node, ids) = trimmed_topic(backend).await;
        let path = format!("/topics/t/events?from=earliest&lastEventId={}", ids[27]);
        let mut header = Stream::open_from(node.address, &path, &ids[28]).await;
        assert_eq!(seqs(&header.events(1).await), [30]);
        let mut query = Stream::open(node.address, &path).await;
        assert_eq!(seqs(&query.events(2).await), [29, 30]);
    }

    async fn a_connection_that_drops_after_connected_loses_nothing(backend: Backend) {
        let node = backend.start(&[]).await;
        // Nothing was ever said on this topic.
        let first = Stream::open(node.address, "/topics/t/events").await;
        let hello = first.last_event_id().to_owned();
        drop(first);
        let missed = node.publish("t", "while away").await;
        let mut again = Stream::open_from(node.address, "/topics/t/events", &hello).await;
        assert_eq!(again.event().await.id, missed);
    }

    async fn an_answered_write_is_where_a_stream_can_begin(backend: Backend) {
        let node = backend.start(&[]).await;
        let (_, position) = node.create("A", "list-todo").await;
        let (_, next) = node.create("B", "list-todo").await;
        let path = format!("/boards/board-1/events?lastEventId={position}");
        let mut stream = Stream::open(node.address, &path).await;
        assert_eq!(stream.event().await.id, next);
    }

    async fn a_reset_on_a_snapshot_stream_is_answered_with_a_new_snapshot(backend: Backend) {
        let node = backend.start(&[("FANTAIL_HISTORY_SIZE", "3")]).await;
        for n in 0..10 {
            node.create(&n.to_string(), "list-todo").await;
        }
        let epoch = epoch(node.get("/boards/board-1").await["lastEventId"].as_str().unwrap()).to_owned();
        let path = "/boards/board-1/events?snapshot=true";
        let gone = format!("2-{epoch}");
        let mut stream = Stream::open_from(node.address, path, &gone).await;
        let reset = stream.event().await;
        assert_eq!((reset.kind.as_str(), reset.id.as_str()), ("reset", gone.as_str()));
        let snapshot = stream.event().await;
        assert_eq!((snapshot.kind.as_str(), snapshot.seq()), ("snapshot", 10));
        assert_eq!(snapshot.json()["lists"][0]["tasks"].as_array().unwrap().len(), 10);
        let (_, next) = node.create("after", "list-todo").await;
        assert_eq!(stream.event().await.id, next);
    }

    async fn at_the_seam_of_replay_and_live_nothing_is_lost_or_doubled(backend: Backend) {
        // More entries than a tail holds, so that some resume from the log and some from the tail.
        let node = backend.start(&[("FANTAIL_HISTORY_SIZE", "5000")]).await;
        let first = node.publish("t", 0).await;
        let epoch = epoch(&first).to_owned();
        let api = Api::keeping_alive(&node.base);
        let writing = tokio::spawn({
            let api = api.clone();
            async move {
                for n in 1..2_500 {
                    api.publish("t", n).await;
                }
            }
        });
        let address = node.address;
        let mut resumed = 0;
        let mut from: u64 = 0;
        while !writing.is_finished() || resumed < 1_000 {
            let batch = (0..20).map(|n| {
                // From the very beginning, from somewhere, and from close to the head.
                let start = [0, from / 2, from, from.saturating_sub(n)][(n % 4) as usize];
                let id = format!("{start}-{epoch}");
                // Entries that are there already must come. Some of them, and some of what is
                // written while we read, are past the seam.
                let due = (from - start).min(30);
                async move {
                    let mut stream = Stream::open_from(address, "/topics/t/events", &id).await;
                    let mut last = start;
                    while last < start + 30 {
                        let patience = if last < start + due { *TIMEOUT } else { QUIET };
                        let next = tokio::time::timeout(patience, stream.next()).await;
                        let Ok(Some(event)) = next else { break };
                        assert_eq!(event.kind, "message", "{event:?}");
                        assert_eq!(event.seq(), last + 1, "a hole or a twin");
                        assert_eq!(event.data, last.to_string());
                        last = event.seq();
                    }
                    assert!(last >= start + due, "nothing after {last} of {from}");
                    last
                }
            });
            let lasts = futures_util::future::join_all(batch).await;
            resumed += lasts.len();
            let head = api.get("/topics/t/history?limit=1").await["head"].clone();
            from = seq(head.as_str().unwrap());
        }
        writing.await.unwrap();
        println!("{resumed} streams resumed while 2500 events were written");
    }
}

#[tokio::test]
async fn a_resume_is_judged_by_what_the_log_retains_on_a_node_that_watched_and_on_one_that_did_not()
{
    let cluster = Cluster::start(2, &[("FANTAIL_HISTORY_SIZE", "10")]).await;
    let [watches, did_not] = [&cluster.nodes[0], &cluster.nodes[1]];
    let mut watcher = Stream::open(watches.address, "/topics/t/events").await;
    let mut ids = Vec::new();
    for n in 0..15 {
        ids.push(watches.publish("t", n).await);
    }
    // Who was there is served from memory, however slowly it reads.
    assert_eq!(seqs(&watcher.events(15).await), (1..=15).collect::<Vec<_>>());
    for node in [watches, did_not] {
        let mut resumed = Stream::open_from(node.address, "/topics/t/events", &ids[0]).await;
        let reset = resumed.event().await;
        assert_eq!((reset.kind.as_str(), &reset.json()["reason"]), ("reset", &"trimmed".into()));
        assert_eq!(seqs(&resumed.events(10).await), (6..=15).collect::<Vec<_>>());
        let mut resumed = Stream::open_from(node.address, "/topics/t/events", &ids[4]).await;
        assert_eq!(seqs(&resumed.events(10).await), (6..=15).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_replay_of_large_entries_has_redis_read_each_byte_about_once() {
    let redis = Redis::start().await;
    let node = Node::start("node-1", Some(&redis), &[]).await;
    let large = "x".repeat(1_000_000);
    for n in 0..60 {
        // Some small ones between, so that no page is alike.
        node.publish("t", if n % 7 == 3 { "small".to_owned() } else { large.clone() }).await;
    }
    let stats = async || {
        let info: String = redis.ask(&["INFO", "all"]).await;
        let number = |name: &str| -> f64 {
            let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
            line.split(',').next().unwrap().parse().unwrap()
        };
        (number("total_net_output_bytes:"), number("cmdstat_xrange:calls="))
    };
    let before = stats().await;
    let mut stream = Stream::open(node.address, "/topics/t/events?from=earliest").await;
    assert_eq!(seqs(&stream.events(60).await), (1..=60).collect::<Vec<_>>());
    let after = stats().await;
    let sent = after.0 - before.0;
    assert!(sent <= 1.2 * 60e6, "Redis sent {sent} bytes");
    let reads = after.1 - before.1;
    assert!(reads <= 2.5 * 60.0, "{reads} XRANGE for 60 entries");
}
