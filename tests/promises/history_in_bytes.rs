//! A history is bounded in bytes besides entries, and whoever comes back to what is gone is told.

use serde_json::{Value, json};

use crate::harness::{Backend, Cluster, Event, Node, Stream, on_both_logs};

/// A history that has room for six texts of 300,000 bytes.
const BYTES: [(&str, &str); 2] = [("FANTAIL_HISTORY_BYTES", "2MiB"), ("FANTAIL_MAX_BODY", "3MiB")];

/// What stands before the counts in meta, they themselves, and what stands behind them.
fn around_counts(meta: &str) -> [&str; 3] {
    let at = meta.find(" #").expect("counts");
    let counts = meta[at + 1..].split(' ').next().unwrap();
    [&meta[..at], counts, &meta[at + 1 + counts.len()..]]
}

/// Opens a stream there, reads it up to the newest, and returns the reset it began with, if it did, and
/// the numbers of its entries.
async fn resumed(node: &Node, id: &str, newest: &str) -> (Option<Value>, Vec<u64>) {
    let mut stream = Stream::request(node.address, "/topics/t/events", id).await;
    let mut events = stream.until_id(newest).await;
    events.retain(|event| !event.is_connected());
    let reset = (events[0].kind == "reset").then(|| events.remove(0).json());
    (reset, events.iter().map(Event::seq).collect())
}

on_both_logs! {
    async fn a_history_has_no_more_bytes_than_it_may_and_what_is_gone_is_told(backend: Backend) {
        let node = backend.start(&BYTES).await;
        let text = "x".repeat(300_000);
        let mut ids = Vec::new();
        for n in 0..10 {
            // In one step, too.
            if n == 4 {
                let two = json!([{ "data": text }, { "data": text }]);
                let answer = node.send("POST", "/topics/t/events", Some(two)).await;
                let published = answer.body["ids"].as_array().unwrap().clone();
                ids.extend(published.iter().map(|id| id.as_str().unwrap().to_owned()));
            }
            ids.push(node.publish("t", text.clone()).await);
        }
        let history = node.get("/topics/t/history").await;
        assert_eq!((&history["oldest"], &history["head"]), (&json!(ids[6]), &json!(ids[11])));
        // Whoever has seen all that is gone has lost nothing; one entry less, and it is told.
        let (reset, seqs) = resumed(&node, &ids[5], &ids[11]).await;
        assert_eq!((reset, seqs), (None, (7..=12).collect()));
        let (reset, seqs) = resumed(&node, &ids[4], &ids[11]).await;
        let reset = reset.expect("a reset");
        assert_eq!((&reset["reason"], &reset["oldest"]), (&json!("trimmed"), &json!(ids[6])));
        assert_eq!(seqs, (7..=12).collect::<Vec<_>>());
        // One that is larger than all of it is kept, alone.
        let large = node.publish("t", "y".repeat(2_200_000)).await;
        let history = node.get("/topics/t/history").await;
        assert_eq!((&history["oldest"], &history["head"]), (&json!(large), &json!(large)));
        let after = node.publish("t", 1).await;
        let history = node.get("/topics/t/history").await;
        assert_eq!((&history["oldest"], &history["head"]), (&json!(after), &json!(after)));
        // Small ones are counted by themselves.
        for n in 0..50 {
            node.publish("u", n).await;
        }
        assert_eq!(node.get("/topics/u/history").await["entries"].as_array().unwrap().len(), 50);
    }
}

#[tokio::test]
async fn bytes_are_counted_from_the_first_large_entry_on_whatever_becomes_of_the_counts() {
    let cluster = Cluster::start(2, &BYTES).await;
    let node = &cluster.nodes[0];
    let meta = "fantail:{t}:meta";
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(node.publish("t", n).await);
    }
    let stored: String = cluster.redis.ask(&["GET", meta]).await;
    assert!(!stored.contains('#'), "a thousand as small as these are not too many: {stored}");
    let text = "x".repeat(300_000);
    for n in 0..6 {
        ids.push(node.publish("t", text.clone()).await);
        let history = node.get("/topics/t/history?limit=1").await;
        assert_eq!(history["oldest"], json!(ids[0]), "{n}: nothing had to go");
    }
    assert_eq!(resumed(node, &ids[0], &ids[10]).await, (None, (2..=11).collect()));
    let stored: String = cluster.redis.ask(&["GET", meta]).await;
    assert_eq!(around_counts(&stored)[1], format!("#{}-0", 5 * 9 + 6 * 300_008));
    // Six are nearly all of it, and the seventh is too much.
    ids.push(node.publish("t", text.clone()).await);
    let six_are_left = async |ids: &[String], what: &str| {
        let history = node.get("/topics/t/history?limit=1").await;
        let [oldest, head] = [&ids[ids.len() - 6], &ids[ids.len() - 1]];
        assert_eq!(
            (&history["oldest"], &history["head"]),
            (&json!(oldest), &json!(head)),
            "{what}"
        );
    };
    six_are_left(&ids, "the seventh").await;
    // Whatever is lost of the counts, or written there, the entries have them.
    for counts in ["", " #0-0", " #many-few", " #99999999999999999999-0"] {
        let stored: String = cluster.redis.ask(&["GET", meta]).await;
        let [before, _, behind] = around_counts(&stored);
        let changed = format!("{before}{counts}{behind}");
        let _: String = cluster.redis.ask(&["SET", meta, &changed]).await;
        ids.push(node.publish("t", text.clone()).await);
        six_are_left(&ids, counts).await;
    }
    let newest = &ids[ids.len() - 1];
    // A node that has read nothing of it before: pages that were read stay for some seconds.
    let (reset, seqs) = resumed(&cluster.nodes[1], &ids[6], newest).await;
    assert_eq!(reset.expect("a reset")["reason"], "trimmed");
    assert_eq!(seqs, (11..=16).collect::<Vec<_>>());
}
