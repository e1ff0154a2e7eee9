//! [`FaultCluster`]: several nodes, each with a network of its own to one Redis, in which faults inject.

use std::time::Duration;

use super::process::TempDir;
use super::proxy::{Proxy, PubsubFaults, Who};
use super::{Node, OPERATORS, Redis, until};

/// Nodes over one Redis, with a proxy before it for each of them.
pub struct FaultCluster {
    pub redis: Redis,
    /// A replica that takes over when the other one has to go, if this cluster has one.
    pub replica: Option<Redis>,
    pub proxies: Vec<Proxy>,
    pub nodes: Vec<Node>,
    pub random: fastrand::Rng,
    may_set_clocks: bool,
    /// Where its nodes read how wrong their clocks are.
    clocks: TempDir,
}

const NODES: usize = 3;

/// How Redis keeps what it acknowledged, and how soon it says that it is busy.
const DURABLE: [&str; 6] =
    ["--appendonly", "yes", "--appendfsync", "always", "--busy-reply-threshold", "100"];

impl FaultCluster {
    pub async fn start(seed: u64) -> FaultCluster {
        FaultCluster::start_with(seed, false).await
    }

    /// One whose nodes' clocks can be set with [`FaultCluster::set_clock`].
    pub async fn with_clocks(seed: u64) -> FaultCluster {
        FaultCluster::start_with(seed, true).await
    }

    async fn start_with(seed: u64, may_set_clocks: bool) -> FaultCluster {
        let redis = Redis::start_with(&DURABLE).await;
        let mut cluster = FaultCluster {
            redis,
            replica: None,
            proxies: Vec::new(),
            nodes: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            may_set_clocks,
            clocks: TempDir::new(),
        };
        for n in 0..NODES {
            let proxy = Proxy::start(cluster.redis.port(), seed.wrapping_add(n as u64)).await;
            cluster.set_clock(n, 0);
            cluster.proxies.push(proxy);
            let settings = cluster.settings(n);
            let node =
                Node::start_behind(&name(n), &cluster.proxies[n], &borrowed(&settings)).await;
            cluster.nodes.push(node);
        }
        cluster
    }

    fn settings(&self, n: usize) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("FANTAIL_DRAIN", "500ms".to_owned()),
            ("FANTAIL_RETRY", "200ms".to_owned()),
            ("FANTAIL_HISTORY_SIZE", "100000".to_owned()),
            (OPERATORS.0, OPERATORS.1.to_owned()),
        ];
        if self.may_set_clocks {
            settings.extend([
                ("LD_PRELOAD", FAKETIME.to_owned()),
                ("FAKETIME_TIMESTAMP_FILE", self.clock(n)),
                ("FAKETIME_NO_CACHE", "1".to_owned()),
                // Timers go by the other clock, which nobody sets.
                ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ]);
        }
        settings
    }

    fn clock(&self, n: usize) -> String {
        self.clocks.0.join(name(n)).to_str().unwrap().to_owned()
    }

    /// Puts a node's wall clock this many seconds ahead, or behind.
    pub fn set_clock(&self, n: usize, seconds: i64) {
        // Never seen half-written.
        let draft = format!("{}.draft", self.clock(n));
        std::fs::write(&draft, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(draft, self.clock(n)).unwrap();
    }

    /// Ends a node by whatever means, and starts it again where it was.
    pub async fn restart_node(&mut self, n: usize) {
        self.nodes[n].process.kill();
        let listen = self.nodes[n].address.to_string();
        let (url, settings) = (self.proxies[n].url(), self.settings(n));
        let node = Node::start_at(&name(n), &listen, Some(&url), &borrowed(&settings)).await;
        until("a node is ready again", async || {
            (node.send("GET", "/readyz", None).await.status == 200).then_some(())
        })
        .await;
        self.nodes[n] = node;
    }

    /// One of the nodes.
    pub fn any(&mut self) -> usize {
        self.random.usize(..self.nodes.len())
    }

    pub fn mend(&self) {
        self.proxies.iter().for_each(Proxy::mend);
    }

    pub fn close_all(&self, who: Who) {
        self.proxies.iter().for_each(|proxy| proxy.close(who));
    }

    pub fn announcements(&self, pubsub_faults: PubsubFaults) {
        self.proxies.iter().for_each(|proxy| proxy.announcements(pubsub_faults));
    }

    /// Makes sure that there is an replica that has everything so far.
    pub async fn have_replica(&mut self) {
        let port = self.redis.port().to_string();
        if self.replica.is_none() {
            self.replica = Some(Redis::start_with(&DURABLE).await);
        }
        let replica = self.replica.as_ref().unwrap();
        let _: String = replica.ask(&["REPLICAOF", "127.0.0.1", &port]).await;
        until("the replica follows, and the master knows it", async || {
            let info: String = replica.ask(&["INFO", "replication"]).await;
            let known: String = self.redis.ask(&["INFO", "replication"]).await;
            let follows = info.contains("master_link_status:up") && known.contains("state=online");
            follows.then_some(())
        })
        .await;
    }

    /// The replica is the master from now on, and the name leads to it. The other one is its replica.
    pub fn promote(&mut self) {
        std::mem::swap(&mut self.redis, self.replica.as_mut().unwrap());
        for proxy in &self.proxies {
            proxy.lead_to(self.redis.port());
        }
    }

    /// Waits until every node says of itself that it is ready.
    pub async fn until_ready(&self) {
        for node in &self.nodes {
            until("a node is ready", async || {
                let ready = node.try_send("GET", "/readyz", None).await.ok()?;
                (ready.status == 200 && ready.body["status"] == "ready").then_some(())
            })
            .await;
        }
    }

    /// How often subscriptions were made anew, over all nodes.
    pub async fn reconnects(&self) -> f64 {
        let mut sum = 0.0;
        for node in &self.nodes {
            sum += node.metric("fantail_redis_reconnects_total", "").await;
        }
        sum
    }

    pub async fn pause(&mut self, shortest: Duration, longest: Duration) {
        let milliseconds = shortest.as_millis() as u64..=longest.as_millis() as u64;
        tokio::time::sleep(Duration::from_millis(self.random.u64(milliseconds))).await;
    }
}

/// Debian's libfaketime; the path is the loader's to complete.
pub const FAKETIME: &str = "/usr/$LIB/faketime/libfaketime.so.1";

fn name(n: usize) -> String {
    format!("node-{}", n + 1)
}

fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
}
