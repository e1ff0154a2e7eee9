//! What happens to a stream when its token's time is over.

use std::time::Duration;

use serde_json::json;

use crate::harness::tokens::{SECRET, Signer, in_seconds};
use crate::harness::{Backend, Stream, on_both_logs, within};

on_both_logs! {
    async fn a_stream_ends_with_its_token_and_says_so(backend: Backend) {
        let settings = [("FANTAIL_JWT_SECRET", SECRET), ("FANTAIL_RETRY", "2s")];
        let node = backend.start(&settings).await;
        let signer = Signer::with_secret("HS256", SECRET);
        let all = signer.everything();
        // Until then a busy machine has to have opened its streams.
        let expires_at = in_seconds(8);
        let token = signer.token(&json!({
            "sub": "a", "exp": expires_at, "fantail": { "subscribe": ["news"] },
        }));
        let bearer = format!("Authorization: Bearer {token}");
        let mut streams = Vec::new();
        for path in ["/topics/news/events", "/topics/news/events?heartbeat=event"] {
            let mut stream = Stream::request_with(node.address, path, &[&bearer]).await;
            assert!(stream.event().await.is_connected());
            streams.push(stream);
        }
        let id = node.with_token(&all).publish("news", "seen").await;
        let publishing = async {
            loop {
                node.with_token(&all).publish("news", "perhaps").await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let reading = futures_util::future::join_all(streams.iter_mut().map(async |stream| {
            let mut events = Vec::new();
            while let Some(event) = stream.next().await {
                events.push(event);
            }
            (events, in_seconds(0))
        }));
        let ended = tokio::select! {
            ended = within("the ends of the streams", reading) => ended,
            () = publishing => unreachable!(),
        };
        node.with_token(&all).publish("news", "after").await;
        let head = node.with_token(&all).get("/topics/news/history?limit=1").await["head"].clone();
        for (stream, (events, ended_at)) in streams.iter().zip(&ended) {
            // Within a second, and what a busy machine makes of it.
            assert!((expires_at..=expires_at + 3).contains(ended_at), "{ended_at} {expires_at}");
            assert_eq!(events[0].id, id);
            let [.., last, goodbye] = &events[..] else { panic!("{events:?}") };
            assert_eq!(goodbye.kind, "goodbye");
            assert_eq!(goodbye.json(), json!({ "reason": "expired", "retry": true }));
            assert_eq!(goodbye.id, last.id, "the client keeps its position");
            assert_ne!(json!(last.id), head, "what comes after the end is not for it");
            let retry = stream.interpreter.retry.unwrap();
            assert!((1_000..=3_000).contains(&retry), "{retry}");
        }
        // Whatever is let pass for clocks that differ: no stream begins that would end at once.
        let again = Stream::request_with(node.address, "/topics/news/events", &[&bearer]).await;
        assert_eq!(again.status, 401);
    }
}
