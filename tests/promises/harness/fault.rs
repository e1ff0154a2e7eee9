//! [`Fault`]: everything that may befall a [`World`], each as one call.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, prlimit};

use super::Redis;
use super::proxy::{Channels, Direction, Mischief, Proxy, Who};
use super::rude::Rude;
use super::world::World;

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
    DeadLanes = "network: connections for commands dead without a word",
    HalfOpen = "network: connections closed on the side of Redis alone",
    AnswersLost = "network: nothing arrives from Redis",
    CommandsLost = "network: nothing arrives at Redis",
    Slow = "network: 50 ms and 50 kB/s",
    Dribble = "network: byte by byte, then cut in the middle of a reply",
    AnnouncementsDropped = "announcements: half of them lost",
    DeafToTopics = "announcements: all lost, canaries heard",
    CanariesDropped = "announcements: canaries alone lost",
    AnnouncementsDoubled = "announcements: half of them twice",
    AnnouncementsReordered = "announcements: half of them out of order",
    RudeClients = "clients: gone without FIN, a byte a second, half-closed, a stampede",
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
                | Fault::DeadLanes
                | Fault::HalfOpen
                | Fault::Slow
                | Fault::AnnouncementsDropped
                | Fault::DeafToTopics
                | Fault::CanariesDropped
                | Fault::AnnouncementsDoubled
                | Fault::AnnouncementsReordered
                | Fault::RudeClients
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

    /// Lets it befall this world, for some time if it is of a kind that lasts. It is over when this
    /// returns. `topics` are those that rude clients ask for.
    pub async fn befall(self, world: &mut World, lasts: Duration, topics: &[String]) {
        let again_and_again = Duration::from_millis(300);
        match self {
            Fault::NodeKilled => {
                let n = world.any();
                world.nodes[n].process.kill();
                tokio::time::sleep(lasts).await;
                world.restart_node(n).await;
            }
            Fault::NodeFrozen => {
                let n = world.any();
                world.nodes[n].process.signal(Signal::STOP);
                tokio::time::sleep(lasts).await;
                world.nodes[n].process.signal(Signal::CONT);
            }
            Fault::NodesRestarted => {
                for n in 0..world.nodes.len() {
                    world.nodes[n].terminate();
                    assert_eq!(world.nodes[n].process.ended().await, Some(0));
                    world.restart_node(n).await;
                }
            }
            Fault::NodeWithoutDescriptors => {
                let n = world.any();
                let pid = world.nodes[n].process.as_pid();
                let none = Rlimit { current: Some(0), maximum: None };
                // The maximum stays as it is: it is this process's own.
                let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
                let before =
                    prlimit(Some(pid), Resource::Nofile, Rlimit { maximum, ..none }).unwrap();
                world.proxies[n].close(Who::All);
                tokio::time::sleep(lasts).await;
                // Connections wait in the kernel, and nobody takes them.
                let asked = world.nodes[n].send("GET", "/healthz", None);
                let answered = tokio::time::timeout(Duration::from_millis(100), asked).await;
                assert!(answered.is_err(), "{answered:?}");
                prlimit(Some(pid), Resource::Nofile, before).unwrap();
            }
            Fault::SubscriptionsKilled | Fault::ConnectionsKilled => {
                let kind = if self == Fault::SubscriptionsKilled { "pubsub" } else { "normal" };
                repeat(lasts, again_and_again, async || {
                    world.redis.ask::<u64>(&["CLIENT", "KILL", "TYPE", kind]).await;
                })
                .await;
            }
            Fault::RedisFrozen => {
                world.redis.freeze();
                tokio::time::sleep(lasts).await;
                world.redis.thaw();
            }
            Fault::RedisCrashed => {
                world.redis.kill();
                tokio::time::sleep(lasts).await;
                world.redis.restart().await;
            }
            Fault::RedisEmptied => {
                world.redis.kill();
                tokio::time::sleep(lasts).await;
                world.redis.forget();
                world.redis.restart().await;
            }
            Fault::RedisFlushed => {
                world.redis.ask::<String>(&["FLUSHALL"]).await;
                tokio::time::sleep(lasts).await;
            }
            Fault::RedisFull => {
                set(&world.redis, "maxmemory", "1").await;
                tokio::time::sleep(lasts).await;
                set(&world.redis, "maxmemory", "0").await;
            }
            Fault::RedisEvicting => evict(&world.redis, lasts).await,
            Fault::RedisReadOnly => {
                let nobody = super::process::free_port().to_string();
                world.redis.ask::<String>(&["REPLICAOF", "127.0.0.1", &nobody]).await;
                tokio::time::sleep(lasts).await;
                world.redis.ask::<String>(&["REPLICAOF", "NO", "ONE"]).await;
            }
            Fault::RedisFailedOver => {
                world.have_heir().await;
                let heir = world.heir.as_ref().unwrap().port().to_string();
                world.redis.ask::<String>(&["FAILOVER", "TO", "127.0.0.1", &heir]).await;
                super::until("the heir rules", async || {
                    let info: String = world.redis.ask(&["INFO", "replication"]).await;
                    info.contains("role:slave").then_some(())
                })
                .await;
                world.enthrone();
                tokio::time::sleep(lasts).await;
            }
            Fault::RedisFailedOverWithLoss => {
                world.have_heir().await;
                let heir = world.heir.as_ref().unwrap();
                // It stops to hear from its master, which goes on for a while.
                heir.ask::<String>(&["REPLICAOF", "NO", "ONE"]).await;
                tokio::time::sleep(lasts / 2).await;
                let heirs = heir.port().to_string();
                world.redis.ask::<String>(&["REPLICAOF", "127.0.0.1", &heirs]).await;
                tokio::time::sleep(lasts / 2).await;
                world.enthrone();
            }
            Fault::RedisLoading => {
                let keys: u64 = world.redis.ask(&["DBSIZE"]).await;
                // What was rewritten is loaded key by key, and every key can be made to take time.
                world.redis.ask::<String>(&["BGREWRITEAOF"]).await;
                super::until("the file was rewritten", async || {
                    let info: String = world.redis.ask(&["INFO", "persistence"]).await;
                    let over = info.contains("aof_rewrite_in_progress:0")
                        && info.contains("aof_rewrite_scheduled:0");
                    over.then_some(())
                })
                .await;
                world.redis.kill();
                let delay = lasts.as_micros() as u64 / keys.max(1);
                assert!(world.redis.restart_slowly(delay).await, "it was not seen loading");
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
                    world.redis.try_ask::<String>(&["GET", "x"]).await.unwrap_err().to_string()
                };
                let (_, refusal) =
                    tokio::join!(world.redis.ask_patiently(patience, &words), refused);
                assert!(refusal.contains("BUSY"), "{refusal}");
            }
            Fault::SubscriptionsOverflow => {
                let before = world.reconnects().await;
                let limit = "client-output-buffer-limit";
                set(&world.redis, limit, "pubsub 65536 0 0").await;
                let flood = "for i = 1, 300 do for n = 1, 3 do redis.call('PUBLISH', \
                             'fantail:{index,}:canary:node-' .. n, string.rep('x', 1000)) end end";
                repeat(lasts, again_and_again * 3, async || {
                    world.redis.ask::<redis::Value>(&["EVAL", flood, "0"]).await;
                })
                .await;
                set(&world.redis, limit, "pubsub 33554432 8388608 60").await;
                assert!(world.reconnects().await >= before + 3.0, "nothing overflowed");
            }
            Fault::Cut => during(world, lasts, Proxy::cut).await,
            Fault::BlackHole => during(world, lasts, |proxy| proxy.black_hole(Who::All)).await,
            Fault::BlackHoleOfOne => {
                let n = world.any();
                world.proxies[n].black_hole(Who::All);
                tokio::time::sleep(lasts).await;
                world.mend();
            }
            Fault::DeadConnections => during(world, lasts, |proxy| proxy.freeze(Who::All)).await,
            Fault::DeadLanes => {
                during(world, lasts, |proxy| proxy.freeze(Who::Commands)).await;
            }
            Fault::HalfOpen => during(world, lasts, |proxy| proxy.half_open(Who::All)).await,
            Fault::AnswersLost => {
                during(world, lasts, |proxy| proxy.one_way(Who::All, Direction::ToNode)).await;
            }
            Fault::CommandsLost => {
                during(world, lasts, |proxy| proxy.one_way(Who::All, Direction::ToRedis)).await;
            }
            Fault::Slow => {
                during(world, lasts, |proxy| proxy.slow(Duration::from_millis(50), 50_000)).await;
            }
            Fault::Dribble => {
                during(world, lasts, Proxy::dribble).await;
                world.close_all(Who::All);
            }
            Fault::AnnouncementsDropped => {
                mischief(world, lasts, Mischief::dropping(Channels::All, 0.5)).await;
            }
            Fault::DeafToTopics => {
                mischief(world, lasts, Mischief::dropping(Channels::Topics, 1.0)).await;
            }
            Fault::CanariesDropped => {
                mischief(world, lasts, Mischief::dropping(Channels::Canaries, 1.0)).await;
            }
            Fault::AnnouncementsDoubled => {
                mischief(world, lasts, Mischief::duplicating(0.5)).await;
            }
            Fault::AnnouncementsReordered => {
                mischief(world, lasts, Mischief::reordering(0.5)).await;
            }
            Fault::RudeClients => {
                let addresses: Vec<_> = world.nodes.iter().map(|node| node.address).collect();
                let rude = Rude::gather(&addresses, topics).await;
                tokio::time::sleep(lasts).await;
                rude.leave(&addresses, topics).await;
            }
            Fault::ClocksWrong => {
                world.set_clock(0, 3_600);
                world.set_clock(1, -3_600);
                tokio::time::sleep(lasts).await;
                let mut dates = Vec::new();
                for node in &world.nodes {
                    dates.push(node.send("GET", "/healthz", None).await.header("date"));
                }
                dates.sort();
                let hours = |date: &String| date.split([' ', ':']).nth(4).map(str::to_owned);
                let mut hours: Vec<_> = dates.iter().map(hours).collect();
                hours.dedup();
                // HTTP never dates back, so the one that is behind shows the time of before.
                assert!(hours.len() >= 2, "no clock is wrong: {dates:?}");
                world.set_clock(0, 0);
                world.set_clock(1, 0);
            }
        }
    }
}

async fn during(world: &World, lasts: Duration, begin: impl Fn(&Proxy)) {
    world.proxies.iter().for_each(begin);
    tokio::time::sleep(lasts).await;
    world.mend();
}

async fn mischief(world: &World, lasts: Duration, mischief: Mischief) {
    world.announcements(mischief);
    tokio::time::sleep(lasts).await;
    world.mend();
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
