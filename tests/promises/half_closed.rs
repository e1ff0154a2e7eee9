//! Clients that send no more and still read (`shutdown(SHUT_WR)`), and clients that are gone.

use tokio::io::AsyncWriteExt;

use crate::harness::{Backend, Stream, on_both_logs};

on_both_logs! {
    async fn a_stream_goes_on_for_a_client_that_sends_no_more(backend: Backend) {
        let node = backend.start(&[]).await;
        for path in ["/topics/t/events", "/events?topics=t,u"] {
            let mut stream = Stream::open(node.address, path).await;
            stream.socket.shutdown().await.unwrap();
            for n in 0..3 {
                let id = node.publish("t", n).await;
                assert!(stream.event().await.id.contains(&id));
            }
        }
    }

    async fn a_client_that_is_gone_is_noticed_long_before_the_next_heartbeat(backend: Backend) {
        let node = backend.start(&[("FANTAIL_HEARTBEAT", "60s")]).await;
        let streams = [
            Stream::open(node.address, "/topics/t/events").await,
            Stream::open(node.address, "/events?topics=t,u").await,
        ];
        node.until_streams(2).await;
        drop(streams);
        // The harness waits for a third of a heartbeat at most.
        node.until_streams(0).await;
    }
}
