//! [`Watched`]: a master with two replicas, and three sentinels that watch it.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use super::process::{Process, TempDir, free_port};
use super::redis_server::{self, Redis};
use super::until;

/// What sentinels call the master.
pub const NAME: &str = "mymaster";

/// A master does not answer for so long before a sentinel of a [`Watched`] believes that it is down.
const DOWN_AFTER: Duration = Duration::from_millis(500);

/// One sentinel, a process of the test's own.
pub struct Sentinel {
    process: Option<Process>,
    port: u16,
    dir: TempDir,
    /// Who may do what there, and with which password tests ask.
    doors: Doors,
}

/// What a sentinel asks of those who connect to it.
#[derive(Clone, Default)]
pub struct Doors {
    /// Lines of its configuration.
    pub lines: Vec<String>,
    /// With which user and password tests, and other sentinels, ask.
    pub credentials: String,
}

impl Sentinel {
    /// Watches the Redis at this port, which is down when it has not answered for so long by the word
    /// of `quorum` sentinels.
    pub async fn start(port: u16, quorum: usize, down_after: Duration, doors: &Doors) -> Sentinel {
        for _ in 0..10 {
            let mut sentinel = Sentinel {
                process: None,
                port: free_port(),
                dir: TempDir::new(),
                doors: doors.clone(),
            };
            let mut lines = vec![
                format!("port {}", sentinel.port),
                "bind 127.0.0.1".to_owned(),
                format!("dir {}", sentinel.dir.0.display()),
                "logfile sentinel.log".to_owned(),
                format!("sentinel monitor {NAME} 127.0.0.1 {port} {quorum}"),
                format!("sentinel down-after-milliseconds {NAME} {}", down_after.as_millis()),
                format!("sentinel failover-timeout {NAME} 5000"),
                format!("sentinel parallel-syncs {NAME} 2"),
            ];
            lines.extend(
                redis_server::sentinels_password()
                    .map(|password| format!("sentinel auth-pass {NAME} {password}")),
            );
            lines.extend(doors.lines.iter().cloned());
            std::fs::write(sentinel.dir.0.join("sentinel.conf"), lines.join("\n")).unwrap();
            if sentinel.launch().await {
                return sentinel;
            }
        }
        panic!("cannot start a sentinel: is redis-server installed?");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again where it was, with what it knew.
    pub async fn restart(&mut self) {
        assert!(self.launch().await, "a sentinel did not start again");
    }

    pub fn freeze(&self) {
        self.process.as_ref().unwrap().signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.process.as_ref().unwrap().signal(Signal::CONT);
    }

    /// Starts the process; no if it ended at once.
    async fn launch(&mut self) -> bool {
        let child = Command::new("redis-server")
            .arg(self.dir.0.join("sentinel.conf"))
            .arg("--sentinel")
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.process = Some(Process::new(child, Arc::default()));
        for _ in 0..1_000 {
            if self.process.as_mut().is_some_and(Process::has_ended) {
                return false;
            }
            if self.try_ask::<redis::Value>(&["PING"]).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    pub async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).await.unwrap()
    }

    pub async fn try_ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let url = format!("redis://{}127.0.0.1:{}", self.doors.credentials, self.port);
        let client = redis::Client::open(url)?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query_async(&mut connection).await
    }

    /// The port of the master that it names.
    pub async fn master(&self) -> u16 {
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
        let (_, port): (String, u16) = self.ask(&words).await;
        port
    }
}

/// A master with two replicas, and three sentinels of which two must agree.
pub struct Watched {
    pub redis: Vec<Redis>,
    pub sentinels: Vec<Sentinel>,
}

impl Watched {
    pub async fn start() -> Watched {
        Watched::start_with(&Doors::default()).await
    }

    pub async fn start_with(doors: &Doors) -> Watched {
        let durable = ["--appendonly", "yes", "--appendfsync", "always"];
        let quick = ["--repl-diskless-sync-delay", "0"];
        let mut redis = vec![Redis::start_unwatched(&[&durable[..], &quick].concat()).await];
        let port = redis[0].port().to_string();
        for _ in 0..2 {
            let follows = ["--replicaof", "127.0.0.1", &port];
            redis.push(Redis::start_unwatched(&[&durable[..], &quick, &follows].concat()).await);
        }
        until("both replicas follow", async || {
            let info: String = redis[0].ask(&["INFO", "replication"]).await;
            (info.matches("state=online").count() == 2).then_some(())
        })
        .await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(Sentinel::start(redis[0].port(), 2, DOWN_AFTER, doors).await);
        }
        let watched = Watched { redis, sentinels };
        watched.periods("200").await;
        for sentinel in &watched.sentinels {
            until("a sentinel knows all others, and both replicas", async || {
                let words = ["SENTINEL", "MASTER", NAME];
                let known: std::collections::HashMap<String, String> = sentinel.ask(&words).await;
                (known["num-slaves"] == "2" && known["num-other-sentinels"] == "2").then_some(())
            })
            .await;
        }
        // As sentinels are by themselves: a master that was deposed is told so seconds later.
        watched.periods("2000").await;
        watched
    }

    /// How often sentinels tell each other what they know; it takes that four times until a master
    /// that was deposed is told so.
    async fn periods(&self, milliseconds: &str) {
        for sentinel in &self.sentinels {
            let _: String =
                sentinel.ask(&["SENTINEL", "DEBUG", "PUBLISH-PERIOD", milliseconds]).await;
            let _: String = sentinel.ask(&["SENTINEL", "DEBUG", "INFO-PERIOD", "500"]).await;
        }
    }

    /// The address of all sentinels.
    pub fn url(&self) -> String {
        url(&self.sentinels.iter().map(Sentinel::port).collect::<Vec<_>>())
    }

    /// Which of the servers is the master, by the word of any sentinel that is there.
    pub async fn master(&self) -> usize {
        for sentinel in &self.sentinels {
            if sentinel.process.is_some() {
                let port = sentinel.master().await;
                return self.redis.iter().position(|redis| redis.port() == port).unwrap();
            }
        }
        panic!("no sentinel is there");
    }

    /// Waits until some sentinel names another master than `before`; which, and when that was.
    pub async fn until_failed_over(&self, before: usize) -> (usize, std::time::Instant) {
        let old = self.redis[before].port();
        let new = until("the sentinels name another master", async || {
            for sentinel in self.sentinels.iter().filter(|sentinel| sentinel.process.is_some()) {
                let port = sentinel.master().await;
                if port != old {
                    return Some(port);
                }
            }
            None
        })
        .await;
        let at = std::time::Instant::now();
        (self.redis.iter().position(|redis| redis.port() == new).unwrap(), at)
    }
}

/// The address of a Redis that the sentinels at these ports know.
pub fn url(ports: &[u16]) -> String {
    let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let plain = redis_server::url_of(hosts.join(","));
    format!("{}/0#{NAME}", plain.replacen("redis://", "redis-sentinel://", 1))
}
