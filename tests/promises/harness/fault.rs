//! [`Fault`]: everything that may inject a [`FaultCluster`], each as one call.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, prlimit};

use super::Redis;
use super::abusive_clients::AbusiveClients;
use super::fault_cluster::FaultCluster;
use super::proxy::{Channels, Direction, Proxy, PubsubFaults, Who};

macro_rules! faults {
    ($($(#[$meta:meta])* $name:ident = $text:literal,)+) => {
        /// What may go wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            $($(#[$meta])* $name,)+
        }

        impl Fault {
            pub const ALL: &[Fault] = &[$(Fault::$name,)+];

            /// In one line, for tables.
            pub fn text(self) -> &'static str {
                match self {
                    $(Fault::$name => $text,)+
                }
            }
        }
    };
}

faults! {
    NodeKilled = "node: SIGKILL, started again",
    NodeFrozen = "node: SIGSTOP, then SIGCONT",
    NodesRestarted = "node: SIGTERM one after the other",
    NodeWithoutDescriptors = "node: no file descriptors, and all connections to Redis lost",
    SubscriptionsKilled = "Redis: CLIENT KILL TYPE pubsub, again and again",
    ConnectionsKilled = "Redis: CLIENT KILL TYPE normal, again and again",
    RedisFrozen = "Redis: SIGSTOP, then SIGCONT",
    RedisCrashed = "Redis: SIGKILL, started again with its disk",
    RedisEmptied = "Redis: SIGKILL, started again empty",
    RedisFlushed = "Redis: FLUSHALL",
    RedisFull = "Redis: maxmemory reached, noeviction",
    RedisEvicting = "Redis: maxmemory reached, our keys evicted",
    RedisReadOnly = "Redis: READONLY, and master again",
    RedisFailedOver = "Redis: FAILOVER to a replica that has everything",
    RedisFailedOverWithLoss = "Redis: failover to a replica that lacks the last writes",
    RedisLoading = "Redis: LOADING",
    RedisBusy = "Redis: BUSY with a long script",
    SubscriptionsOverflow = "Redis: output buffer limit hit on subscriptions",
    Cut = "network: cut",
    BlackHole = "network: black hole",
    BlackHoleOfOne = "network: black hole before one node",
    DeadConnections = "network: all connections dead without a word",
    DeadCommandConnections = "network: connections for commands dead without a word",
    HalfOpen = "network: connections closed on the side of Redis alone",
    AnswersLost = "network: nothing arrives from Redis",
    CommandsLost = "network: nothing arrives at Redis",
    Slow = "network: 50 ms and 50 kB/s",
    Dribble = "network: byte by byte, then cut in the middle of a reply",
    AnnouncementsDropped = "announcements: half of them lost",
    TopicAnnouncementsDropped = "announcements: all lost, canaries heard",
    CanariesDropped = "announcements: canaries alone lost",
    AnnouncementsDoubled = "announcements: half of them twice",
    AnnouncementsReordered = "announcements: half of them out of order",
    AbusiveClients = "clients: gone without FIN, a byte a second, half-closed, a stampede",
    ClocksWrong = "clocks: nodes an hour ahead and an hour behind",
}

/// What a fault may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Nothing that was acknowledged.
    Nothing,
    /// What was acknowledged may be gone, as long as everybody concerned is told.
    Loss,
}

impl Fault {
    pub fn cost(self) -> Cost {
        match self {
            Fault::RedisEmptied
            | Fault::RedisFlushed
            | Fault::RedisEvicting
            | Fault::RedisFailedOverWithLoss => Cost::Loss,
            _ => Cost::Nothing,
        }
    }

    /// Whether deliveries must go on while it lasts, to everybody. After all others they must when
    /// it is over.
    pub fn is_bridged(self) -> bool {
        matches!(
            self,
            Fault::NodesRestarted
                | Fault::SubscriptionsKilled
                | Fault::ConnectionsKilled
                | Fault::RedisFlushed
                | Fault::RedisEvicting
                | Fault::RedisFailedOver
                | Fault::SubscriptionsOverflow
                | Fault::DeadConnections
                | Fault::DeadCommandConnections
                | Fault::HalfOpen
                | Fault::Slow
                | Fault::AnnouncementsDropped
                | Fault::TopicAnnouncementsDropped
                | Fault::CanariesDropped
                | Fault::AnnouncementsDoubled
                | Fault::AnnouncementsReordered
                | Fault::AbusiveClients
                | Fault::ClocksWrong
        )
    }

    /// Whether no node is ended, stopped or kept from accepting.
    pub fn leaves_nodes_alone(self) -> bool {
        let touching = [
            Fault::NodeKilled,
            Fault::NodeFrozen,
            Fault::NodesRestarted,
            Fault::NodeWithoutDescriptors,
        ];
        !touching.contains(&self)
    }

    /// Lets it inject this cluster, for some time if it is of a kind that lasts. It is over when this
    /// returns. `topics` are those that abusive clients ask for.
    pub async fn inject(self, cluster: &mut FaultCluster, lasts: Duration, topics: &[String]) {
        let again_and_again = Duration::from_millis(300);
        match self {
            Fault::NodeKilled => {
                let n = cluster.any();
                cluster.nodes[n].process.kill();
                tokio::time::sleep(lasts).await;
                cluster.restart_node(n).await;
            }
            Fault::NodeFrozen => {
                let n = cluster.any();
                cluster.nodes[n].process.signal(Signal::STOP);
                tokio::time::sleep(lasts).await;
                cluster.nodes[n].process.signal(Signal::CONT);
            }
            Fault::NodesRestarted => {
                for n in 0..cluster.nodes.len() {
                    cluster.nodes[n].terminate();
                    assert_eq!(cluster.nodes[n].process.ended().await, Some(0));
                    cluster.restart_node(n).await;
                }
            }
            Fault::NodeWithoutDescriptors => {
                let n = cluster.any();
                let pid = cluster.nodes[n].process.as_pid();
                let none = Rlimit { current: Some(0), maximum: None };
                // The maximum stays as it is: it is this process's own.
                let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
                let before =
                    prlimit(Some(pid), Resource::Nofile, Rlimit { maximum, ..none }).unwrap();
                cluster.proxies[n].close(Who::All);
                tokio::time::sleep(lasts).await;
                // Connections wait in the kernel, and nobody takes them.
                let asked = cluster.nodes[n].send("GET", "/healthz", None);
                let answered = tokio::time::timeout(Duration::from_millis(100), asked).await;
                assert!(answered.is_err(), "{answered:?}");
                prlimit(Some(pid), Resource::Nofile, before).unwrap();
            }
            Fault::SubscriptionsKilled | Fault::ConnectionsKilled => {
                let kind = if self == Fault::SubscriptionsKilled { "pubsub" } else { "normal" };
                repeat(lasts, again_and_again, async || {
                    cluster.redis.ask::<u64>(&["CLIENT", "KILL", "TYPE", kind]).await;
                })
                .await;
            }
            Fault::RedisFrozen => {
                cluster.redis.freeze();
                tokio::time::sleep(lasts).await;
                cluster.redis.thaw();
            }
            Fault::RedisCrashed => {
                cluster.redis.kill();
                tokio::time::sleep(lasts).await;
                cluster.redis.restart().await;
            }
            Fault::RedisEmptied => {
                cluster.redis.kill();
                tokio::time::sleep(lasts).await;
                cluster.redis.forget();
                cluster.redis.restart().await;
            }
            Fault::RedisFlushed => {
                cluster.redis.ask::<String>(&["FLUSHALL"]).await;
                tokio::time::sleep(lasts).await;
            }
            Fault::RedisFull => {
                set(&cluster.redis, "maxmemory", "1").await;
                tokio::time::sleep(lasts).await;
                set(&cluster.redis, "maxmemory", "0").await;
            }
            Fault::RedisEvicting => evict(&cluster.redis, lasts).await,
            Fault::RedisReadOnly => {
                let nobody = super::process::free_port().to_string();
                cluster.redis.ask::<String>(&["REPLICAOF", "127.0.0.1", &nobody]).await;
                tokio::time::sleep(lasts).await;
                cluster.redis.ask::<String>(&["REPLICAOF", "NO", "ONE"]).await;
            }
            Fault::RedisFailedOver => {
                cluster.have_replica().await;
                let replica = cluster.replica.as_ref().unwrap().port().to_string();
                cluster.redis.ask::<String>(&["FAILOVER", "TO", "127.0.0.1", &replica]).await;
                super::until("the replica is the master", async || {
                    let info: String = cluster.redis.ask(&["INFO", "replication"]).await;
                    info.contains("role:slave").then_some(())
                })
                .await;
                cluster.promote();
                tokio::time::sleep(lasts).await;
            }
            Fault::RedisFailedOverWithLoss => {
                cluster.have_replica().await;
                let replica = cluster.replica.as_ref().unwrap();
                // It stops to hear from its master, which goes on for a while.
                replica.ask::<String>(&["REPLICAOF", "NO", "ONE"]).await;
                tokio::time::sleep(lasts / 2).await;
                let replicas = replica.port().to_string();
                cluster.redis.ask::<String>(&["REPLICAOF", "127.0.0.1", &replicas]).await;
                tokio::time::sleep(lasts / 2).await;
                cluster.promote();
            }
            Fault::RedisLoading => {
                let keys: u64 = cluster.redis.ask(&["DBSIZE"]).await;
                // What was rewritten is loaded key by key, and every key can be made to take time.
                cluster.redis.ask::<String>(&["BGREWRITEAOF"]).await;
                super::until("the file was rewritten", async || {
                    let info: String = cluster.redis.ask(&["INFO", "persistence"]).await;
                    let over = info.contains("aof_rewrite_in_progress:0")
                        && info.contains("aof_rewrite_scheduled:0");
                    over.then_some(())
                })
                .await;
                cluster.redis.kill();
                let delay = lasts.as_micros() as u64 / keys.max(1);
                assert!(cluster.redis.restart_slowly(delay).await, "it was not seen loading");
            }
            Fault::RedisBusy => {
                let script = "local now = function() local t = redis.call('TIME') \
                              return t[1] * 1000 + t[2] / 1000 end \
                              local started = now() \
                              while now() - started < tonumber(ARGV[1]) do end";
                let milliseconds = lasts.as_millis().to_string();
                let patience = lasts + Duration::from_secs(5);
                let words = ["EVAL", script, "0", &milliseconds];
                let refused = async {
                    tokio::time::sleep(lasts / 2).await;
                    cluster.redis.try_ask::<String>(&["GET", "x"]).await.unwrap_err().to_string()
                };
                let (_, refusal) =
                    tokio::join!(cluster.redis.ask_patiently(patience, &words), refused);
                assert!(refusal.contains("BUSY"), "{refusal}");
            }
            Fault::SubscriptionsOverflow => {
                let before = cluster.reconnects().await;
                let limit = "client-output-buffer-limit";
                set(&cluster.redis, limit, "pubsub 65536 0 0").await;
                let flood = "for i = 1, 300 do for n = 1, 3 do redis.call('PUBLISH', \
                             'fantail:{index,}:canary:node-' .. n, string.rep('x', 1000)) end end";
                repeat(lasts, again_and_again * 3, async || {
                    cluster.redis.ask::<redis::Value>(&["EVAL", flood, "0"]).await;
                })
                .await;
                set(&cluster.redis, limit, "pubsub 33554432 8388608 60").await;
                assert!(cluster.reconnects().await >= before + 3.0, "nothing overflowed");
            }
            Fault::Cut => during(cluster, lasts, Proxy::cut).await,
            Fault::BlackHole => during(cluster, lasts, |proxy| proxy.black_hole(Who::All)).await,
            Fault::BlackHoleOfOne => {
                let n = cluster.any();
                cluster.proxies[n].black_hole(Who::All);
                tokio::time::sleep(lasts).await;
                cluster.mend();
            }
            Fault::DeadConnections => during(cluster, lasts, |proxy| proxy.freeze(Who::All)).await,
            Fault::DeadCommandConnections => {
                during(cluster, lasts, |proxy| proxy.freeze(Who::Commands)).await;
            }
            Fault::HalfOpen => during(cluster, lasts, |proxy| proxy.half_open(Who::All)).await,
            Fault::AnswersLost => {
                during(cluster, lasts, |proxy| proxy.one_way(Who::All, Direction::ToNode)).await;
            }
            Fault::CommandsLost => {
                during(cluster, lasts, |proxy| proxy.one_way(Who::All, Direction::ToRedis)).await;
            }
            Fault::Slow => {
                during(cluster, lasts, |proxy| proxy.slow(Duration::from_millis(50), 50_000)).await;
            }
            Fault::Dribble => {
                during(cluster, lasts, Proxy::dribble).await;
                cluster.close_all(Who::All);
            }
            Fault::AnnouncementsDropped => {
                pubsub_faults(cluster, lasts, PubsubFaults::dropping(Channels::All, 0.5)).await;
            }
            Fault::TopicAnnouncementsDropped => {
                pubsub_faults(cluster, lasts, PubsubFaults::dropping(Channels::Topics, 1.0)).await;
            }
            Fault::CanariesDropped => {
                pubsub_faults(cluster, lasts, PubsubFaults::dropping(Channels::Canaries, 1.0))
                    .await;
            }
            Fault::AnnouncementsDoubled => {
                pubsub_faults(cluster, lasts, PubsubFaults::duplicating(0.5)).await;
            }
            Fault::AnnouncementsReordered => {
                pubsub_faults(cluster, lasts, PubsubFaults::reordering(0.5)).await;
            }
            Fault::AbusiveClients => {
                let addresses: Vec<_> = cluster.nodes.iter().map(|node| node.address).collect();
                let clients = AbusiveClients::gather(&addresses, topics).await;
                tokio::time::sleep(lasts).await;
                clients.leave(&addresses, topics).await;
            }
            Fault::ClocksWrong => {
                cluster.set_clock(0, 3_600);
                cluster.set_clock(1, -3_600);
                tokio::time::sleep(lasts).await;
                let mut dates = Vec::new();
                for node in &cluster.nodes {
                    dates.push(node.send("GET", "/healthz", None).await.header("date"));
                }
                dates.sort();
                let hours = |date: &String| date.split([' ', ':']).nth(4).map(str::to_owned);
                let mut hours: Vec<_> = dates.iter().map(hours).collect();
                hours.dedup();
                // HTTP never dates back, so the one that is behind shows the time of before.
                assert!(hours.len() >= 2, "no clock is wrong: {dates:?}");
                cluster.set_clock(0, 0);
                cluster.set_clock(1, 0);
            }
        }
    }
}

async fn during(cluster: &FaultCluster, lasts: Duration, begin: impl Fn(&Proxy)) {
    cluster.proxies.iter().for_each(begin);
    tokio::time::sleep(lasts).await;
    cluster.mend();
}

async fn pubsub_faults(cluster: &FaultCluster, lasts: Duration, pubsub_faults: PubsubFaults) {
    cluster.announcements(pubsub_faults);
    tokio::time::sleep(lasts).await;
    cluster.mend();
}

async fn repeat(lasts: Duration, every: Duration, mut what: impl AsyncFnMut()) {
    let began_at = tokio::time::Instant::now();
    while began_at.elapsed() < lasts {
        what().await;
        tokio::time::sleep(every).await;
    }
}

async fn set(redis: &Redis, name: &str, value: &str) {
    redis.ask::<String>(&["CONFIG", "SET", name, value]).await;
}

/// A number that Redis tells of itself.
async fn number(redis: &Redis, section: &str, name: &str) -> u64 {
    let info: String = redis.ask(&["INFO", section]).await;
    let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().parse().unwrap()
}

/// Lowers the limit until Redis has evicted some of our keys.
async fn evict(redis: &Redis, lasts: Duration) {
    set(redis, "maxmemory-policy", "allkeys-random").await;
    let evicted = async || number(redis, "stats", "evicted_keys:").await;
    let before = evicted().await;
    let began_at = tokio::time::Instant::now();
    while evicted().await < before + 20 || began_at.elapsed() < lasts {
        let used = number(redis, "memory", "used_memory:").await;
        set(redis, "maxmemory", &(used - (20 << 10)).to_string()).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        set(redis, "maxmemory", "0").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    set(redis, "maxmemory-policy", "noeviction").await;
}
