//! [`AbusiveClients`]: clients that behave as no browser does, and many that come at once.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use super::client::{Stream, open_many};

/// How many of each kind come to each node.
const EACH: usize = 10;

/// How many come back at the same moment.
const STAMPEDE: usize = 150;

/// AbusiveClients clients that are connected.
pub struct AbusiveClients {
    gone: Vec<Stream>,
    /// They read a byte a second, or have closed their own half.
    others: JoinSet<()>,
}

impl AbusiveClients {
    /// Lets them come to all nodes.
    pub async fn gather(nodes: &[SocketAddr], topics: &[String]) -> AbusiveClients {
        let mut clients = AbusiveClients { gone: Vec::new(), others: JoinSet::new() };
        for &node in nodes {
            for n in 0..EACH {
                let path = path_of(topics, n);
                let vanishing = narrow_stream(node, &path).await;
                // The kernel drops whatever arrives for it: gone without a word.
                super::proxy::swallow(&vanishing.socket, true);
                clients.gone.push(vanishing);

                let mut reading = narrow_stream(node, &path).await;
                clients.others.spawn(async move {
                    let mut byte = [0];
                    while matches!(reading.socket.read(&mut byte).await, Ok(1)) {
                        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    }
                });

                let mut half = narrow_stream(node, &path).await;
                half.socket.shutdown().await.unwrap();
                clients.others.spawn(async move { while half.more().await {} });
            }
        }
        clients
    }

    /// They go, and many others come back all at once and want everything.
    pub async fn leave(self, nodes: &[SocketAddr], topics: &[String]) {
        drop(self);
        let stampedes = nodes
            .iter()
            .map(|&node| async move { open_many(node, &path_of(topics, 0), STAMPEDE, &[]).await });
        for streams in futures_util::future::join_all(stampedes).await {
            assert!(streams.iter().all(|stream| stream.status == 200));
        }
    }
}

fn path_of(topics: &[String], n: usize) -> String {
    format!("/topics/{}/events?from=earliest", topics[n % topics.len()])
}

/// A stream into whose socket little goes.
async fn narrow_stream(node: SocketAddr, path: &str) -> Stream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let socket = socket.connect(node).await.unwrap();
    Stream::request_on(socket, node, path, "").await.unwrap()
}
