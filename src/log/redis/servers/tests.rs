use std::sync::atomic::AtomicU16;
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::log::Notifier;
use crate::log::redis::address;
use crate::log::redis::commands::Commands;
use crate::log::redis::keys::Keys;
use crate::log::redis::scripted_server::{Reply, ScriptedServer};

/// Beyond this time a test has failed, however slow the machine is.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A Redis of this role that is well, and never answers to one key.
async fn redis(role: &'static str) -> ScriptedServer {
    ScriptedServer::start(move |command| match command {
        "INFO server" => Reply::Sent("$19\r\nredis_version:7.0.0\r\n".to_owned()),
        "INFO replication" => {
            let text = format!("# Replication\r\nrole:{role}\r\n");
            Reply::Sent(format!("${}\r\n{text}\r\n", text.len()))
        }
        "PING" => Reply::line("PONG"),
        "GET nothing" => Reply::Silence,
        _ if command.starts_with("PUBLISH ") => Reply::Sent(":0\r\n".to_owned()),
        _ if command.starts_with("EVALSHA ") => Reply::Sent("*0\r\n".to_owned()),
        _ => Reply::line("yes"),
    })
    .await
}

fn port(server: &ScriptedServer) -> u16 {
    server.url().rsplit(':').next().unwrap().parse().unwrap()
}

/// A sentinel that names whoever listens at this port, after so many failovers.
async fn sentinel(named: Arc<AtomicU16>, failovers: Arc<AtomicU16>) -> ScriptedServer {
    ScriptedServer::start(move |command| {
        let (port, epoch) = (named.load(Ordering::Relaxed), failovers.load(Ordering::Relaxed));
        match command {
            "SENTINEL MASTER m" => Reply::Sent(format!("*2\r\n+config-epoch\r\n+{epoch}\r\n")),
            "SENTINEL GET-MASTER-ADDR-BY-NAME m" => {
                Reply::Sent(format!("*2\r\n+127.0.0.1\r\n+{port}\r\n"))
            }
            "SENTINEL SENTINELS m" => Reply::Sent("*0\r\n".to_owned()),
            _ => Reply::error("ERR not in the script of this test"),
        }
    })
    .await
}

/// Servers by the word of this sentinel, and the way of commands to whoever is the master.
fn follow(sentinel: &ScriptedServer) -> (Arc<Servers>, Commands) {
    let url = format!("redis-sentinel://127.0.0.1:{}/0#m", port(sentinel));
    let (notifier, _) = Notifier::new();
    let listening = Arc::new(Listening::new(Keys::new("fantail"), "n", notifier, false));
    let servers = Servers::start(address::read(&url).unwrap(), &RedisFiles::default(), listening);
    (servers.clone(), Commands::new(servers, Kind::Commands))
}

async fn get(commands: &Commands, what: &str) -> Result<String, LogError> {
    let mut pipe = redis::pipe();
    pipe.get(what);
    let answer: Result<(String,), LogError> = commands.pipe("get", &pipe).await;
    answer.map(|(line,)| line)
}

fn has_got(server: &ScriptedServer, what: &str) -> bool {
    server.commands().iter().flatten().any(|command| *command == format!("GET {what}"))
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began_at = Instant::now();
    while !is_so().await {
        assert!(began_at.elapsed() < TEST_TIMEOUT, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_master_is_left_in_the_moment_in_which_a_sentinel_announces_another() {
    let (first, second) = (redis("master").await, redis("master").await);
    let (named, failovers) = (Arc::new(AtomicU16::new(port(&first))), Arc::default());
    let sentinel = sentinel(named.clone(), Arc::clone(&failovers)).await;
    let (servers, commands) = follow(&sentinel);
    // Who asks before a sentinel could answer waits for it.
    assert_eq!(get(&commands, "a").await.unwrap(), "yes");
    let announce = async {
        first.until(|commands| commands.iter().flatten().any(|c| c == "GET nothing")).await;
        named.store(port(&second), Ordering::Relaxed);
        failovers.store(1, Ordering::Relaxed);
        let announced_at = Instant::now();
        sentinel.push(0, "+switch-master", "m 127.0.0.1 1 127.0.0.1 2");
        announced_at
    };
    let answered = async { (get(&commands, "nothing").await, Instant::now()) };
    let (announced_at, (answer, answered_at)) = tokio::join!(announce, answered);
    // Nobody knows whether it was done, and nobody waits until the first says so.
    assert!(matches!(answer, Err(LogError::OutcomeUnknown(_))), "{answer:?}");
    assert!(
        answered_at - announced_at < Duration::from_secs(1),
        "{:?}",
        answered_at - announced_at
    );
    until("the second is followed", async || get(&commands, "b").await.is_ok()).await;
    assert!(has_got(&second, "b") && !has_got(&first, "b"));
    until("announcements are heard there", async || servers.health() == Health::Up).await;
}

#[tokio::test]
async fn whoever_says_that_it_is_no_master_is_not_followed_whatever_a_sentinel_says() {
    let replica = redis("slave").await;
    let named = Arc::new(AtomicU16::new(port(&replica)));
    let sentinel = sentinel(named.clone(), Arc::default()).await;
    let (servers, commands) = follow(&sentinel);
    let is_told = |health: Health| matches!(health, Health::Down(why) if why.contains("no master"));
    until("it is told", async || is_told(servers.health())).await;
    let refused = get(&commands, "a").await;
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    assert!(!has_got(&replica, "a"));
    let master = redis("master").await;
    named.store(port(&master), Ordering::Relaxed);
    until("the master is followed", async || get(&commands, "b").await.is_ok()).await;
    assert!(has_got(&master, "b"));
}
