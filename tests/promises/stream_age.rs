//! Streams end by themselves at some age, so that a cluster evens out (`FANTAIL_MAX_STREAM_AGE`).

use std::time::{Duration, Instant};

use crate::harness::{Backend, Stream, on_both_logs, until, within};

on_both_logs! {
    async fn streams_of_an_age_end_apart_with_their_position_and_a_short_retry(backend: Backend) {
        let settings = [("FANTAIL_MAX_STREAM_AGE", "2s"), ("FANTAIL_RETRY", "60s")];
        let node = backend.start(&settings).await;
        let began_at = Instant::now();
        let mut streams = Vec::new();
        for n in 0..30 {
            let path = match n % 3 {
                0 => "/topics/t/events",
                1 => "/events?topics=t,u",
                _ => "/boards/board-1/events?snapshot=true",
            };
            streams.push(Stream::open(node.address, path).await);
        }
        let position = node.publish("t", 1).await;
        let ends = futures_util::future::join_all(streams.iter_mut().map(|stream| async move {
            within("the end of a stream", stream.end()).await;
            (began_at.elapsed(), stream.interpreter.retry.unwrap())
        }))
        .await;
        assert!(ends.iter().all(|end| end.0 >= Duration::from_millis(1_600)), "{ends:?}");
        assert!(ends.iter().all(|end| end.1 <= 1_500), "{ends:?}");
        let [first, last] = [ends.iter().min().unwrap().0, ends.iter().max().unwrap().0];
        assert!(last - first > Duration::from_millis(100), "{ends:?}");
        for stream in streams.iter().step_by(3) {
            assert_eq!(stream.interpreter.last_event_id, position);
        }
        until("all are counted", async || {
            let ended = node.metric("fantail_connections_closed_total", r#"reason="age""#).await;
            (ended == 30.0).then_some(())
        })
        .await;
        // The node itself goes on.
        Stream::open(node.address, "/topics/t/events").await;
    }
}
