//! Nodes whose wall clocks are decades or millennia wrong.

use serde_json::json;

use crate::harness::fault_cluster::FAKETIME;
use crate::harness::{Backend, Stream, on_both_logs};

/// The `Date` of a response's head.
fn date(head: &str) -> &str {
    let date = head.lines().find_map(|line| line.strip_prefix("date: "));
    date.unwrap_or_else(|| panic!("no date: {head}"))
}

on_both_logs! {
    async fn a_node_serves_whatever_its_clock_says(backend: Backend) {
        for (clock, expected) in [
            // Before 1970, where counting begins, and after 9999, where HTTP's dates end.
            ("-60y", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("+8000y", "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            let node = backend
                .start(&[
                    ("LD_PRELOAD", FAKETIME),
                    ("FAKETIME", clock),
                    // Timers go by the other clock, which nobody sets.
                    ("DONT_FAKE_MONOTONIC", "1"),
                ])
                .await;
            let mut stream = Stream::open(node.address, "/topics/t/events").await;
            assert_eq!(date(&stream.head), expected.to_ascii_lowercase());
            let mut board = Stream::open(node.address, "/boards/board-1/events?snapshot=true").await;
            assert_eq!(board.event().await.kind, "snapshot");
            let alive = node.send("GET", "/healthz", None).await;
            assert_eq!((alive.status, alive.header("date").as_str()), (200, expected));
            assert_eq!(node.send("GET", "/readyz", None).await.status, 200);

            let id = node.publish("t", "heard").await;
            let heard = stream.event().await;
            assert_eq!((heard.data.as_str(), &heard.id), ("heard", &id));
            let mut resumed = Stream::open(node.address, "/topics/t/events?from=earliest").await;
            assert_eq!(resumed.event().await.id, id);
            let page = node.get("/topics/t/history").await;
            assert_eq!(page["entries"].as_array().map(Vec::len), Some(1), "{page}");
            let (task, id) = node.create("a task", "list-todo").await;
            let told = board.event().await;
            assert_eq!((told.id.as_str(), &told.json()["task"]["id"]), (id.as_str(), &task["id"]));

            let text = node.get("/metrics").await;
            assert!(text.as_str().unwrap().contains("fantail_events_published_total"), "{text}");
            // The other HTTP writes the date by itself.
            let client =
                reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
            let body = json!({ "data": "over HTTP/2" });
            let url = format!("{}/topics/t/events", node.base);
            let answer = client.post(url).json(&body).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 201);
            assert_eq!(answer.headers()["date"], expected);
            assert_eq!(stream.event().await.data, "over HTTP/2");
            assert!(!node.node.log().concat().contains("panicked"), "{:?}", node.node.log());
        }
    }
}
