use futures_util::future::join_all;
use redis::IntoConnectionInfo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::config::RedisFiles;
use crate::log::redis::scripted_server::{Reply, ScriptedServer};

/// Over connections to `url`.
fn commands_to(url: &str, connections: usize, slow_replies_expected: bool) -> Lane {
    let info = url.into_connection_info().unwrap();
    let server = Arc::new(Server::new(info, &RedisFiles::default()));
    Lane::new(server, connections, ConnectionGeneration::new(), slow_replies_expected)
}

/// What became of a command that a script answers with a line.
async fn get(commands: &Lane, what: &str) -> Result<String, LogError> {
    let mut pipe = redis::pipe();
    pipe.get(what);
    let answer: Result<(String,), LogError> = commands.pipe("get", &pipe).await;
    answer.map(|(line,)| line)
}

/// The connections to a server, each as the commands on it that a test has sent.
fn sent(server: &ScriptedServer) -> Vec<Vec<String>> {
    let connections = server.commands().into_iter();
    let gets = |commands: Vec<String>| commands.into_iter().filter(|c| c.starts_with("GET"));
    connections.map(|commands| gets(commands).collect()).collect()
}

#[tokio::test]
async fn a_command_is_one_round_trip_on_a_connection_that_stays() {
    let server = ScriptedServer::start(|_| Reply::line("yes")).await;
    let commands = commands_to(&server.url(), 2, false);
    for n in 0..6 {
        assert_eq!(get(&commands, &n.to_string()).await.unwrap(), "yes");
    }
    assert_eq!(sent(&server), [["GET 0", "GET 2", "GET 4"], ["GET 1", "GET 3", "GET 5"]]);
    for connection in server.commands() {
        let others = connection.iter().filter(|command| !command.starts_with("GET"));
        let unexpected = others.filter(|c| !c.starts_with("HELLO") && !c.starts_with("CLIENT"));
        assert_eq!(unexpected.count(), 0, "{connection:?}");
    }
}

#[tokio::test]
async fn a_connection_that_was_cut_is_replaced_once_for_all_who_use_it() {
    let server = ScriptedServer::start(|command| match command {
        "GET cut" => Reply::Cut,
        _ => Reply::line("yes"),
    })
    .await;
    let commands = commands_to(&server.url(), 1, false);
    assert_eq!(get(&commands, "a").await.unwrap(), "yes");
    // Nobody knows whether it was done.
    let cut = join_all((0..10).map(|_| get(&commands, "cut"))).await;
    for result in cut {
        assert!(matches!(result, Err(LogError::OutcomeUnknown(_))), "{result:?}");
    }
    for result in join_all((0..10).map(|_| get(&commands, "b"))).await {
        assert_eq!(result.unwrap(), "yes");
    }
    assert_eq!(server.commands().len(), 2, "{:?}", server.commands());
}

/// What became of a command that is answered with this.
async fn outcome_of(reply: Reply) -> Result<String, LogError> {
    let server = ScriptedServer::start(move |_| reply.clone()).await;
    get(&commands_to(&server.url(), 1, false), "a").await
}

#[tokio::test]
async fn what_redis_refuses_was_not_done() {
    for refusal in [
        "LOADING Redis is loading the dataset in memory",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "OOM command not allowed when used memory > 'maxmemory'",
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to",
        "READONLY You can't write against a read only replica.",
        "NOREPLICAS Not enough good replicas to write.",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "NOAUTH Authentication required.",
        "NOPERM User app has no permissions to run the 'script|load' command",
        // As servers from 7.0 on say it of a script's first write, and as those before wrap it.
        "OOM command not allowed when used memory > 'maxmemory'. script: f1, on @user_script:1.",
        "ERR Error running script (call to f_1): @user_script:9: -OOM command not allowed",
        "ERR Error running script (call to f_1): @user_script:9: -READONLY You can't write",
    ] {
        let outcome = outcome_of(Reply::error(refusal)).await;
        assert!(matches!(outcome, Err(LogError::Unavailable(_))), "{refusal}: {outcome:?}");
    }
}

#[tokio::test]
async fn what_redis_does_not_surely_refuse_may_have_been_done() {
    for reply in [
        // A script that broke half-way.
        Reply::error("ERR Error running script (call to f_1): @user_script:9: attempt to index"),
        Reply::error(
            "ERR user_script:9: attempt to index a nil value script: f1, on @user_script:9",
        ),
        Reply::error("WRONGTYPE Operation against a key of the wrong kind script: f1, on @u:9."),
        Reply::error("NOPERM The user can't run this command script: f1, on @user_script:9."),
        Reply::error("ERR Error running script (call to f_1): @user_script:9: -WRONGTYPE no"),
        // What proxies say whose server is gone, and what nobody knows.
        Reply::error("ERR upstream failure"),
        Reply::error("NEWERROR of a later server"),
        // A reply of another type than the command has, and one that is none.
        Reply::Sent("*1\r\n+not one line\r\n".to_owned()),
        Reply::Sent("?\r\n".to_owned()),
        Reply::Cut,
    ] {
        let told = format!("{reply:?}");
        let outcome = outcome_of(reply).await;
        assert!(matches!(outcome, Err(LogError::OutcomeUnknown(_))), "{told}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_keeps_its_connection() {
    let server = ScriptedServer::start(|command| match command {
        "GET a" => Reply::line("yes"),
        _ => Reply::error("OOM command not allowed when used memory > 'maxmemory'"),
    })
    .await;
    let commands = commands_to(&server.url(), 1, false);
    for _ in 0..3 {
        assert!(get(&commands, "b").await.is_err());
    }
    assert_eq!(get(&commands, "a").await.unwrap(), "yes");
    assert_eq!(server.commands().len(), 1);
}

#[tokio::test]
async fn a_batch_of_which_one_part_was_refused_may_have_been_done() {
    let server = ScriptedServer::start(|command| match command.starts_with("SET") {
        true => Reply::error("OOM command not allowed when used memory > 'maxmemory'"),
        false => Reply::Sent(":1\r\n".to_owned()),
    })
    .await;
    let commands = commands_to(&server.url(), 1, false);
    let mut part = redis::pipe();
    part.set("a", "b").ignore();
    part.publish("a", "b").ignore();
    let outcome: Result<(), LogError> = commands.pipe("part", &part).await;
    assert!(matches!(outcome, Err(LogError::OutcomeUnknown(_))), "{outcome:?}");
    let mut all = redis::pipe();
    all.set("a", "b").ignore();
    all.set("a", "c").ignore();
    let outcome: Result<(), LogError> = commands.pipe("all", &all).await;
    assert!(matches!(outcome, Err(LogError::Unavailable(_))), "{outcome:?}");
}

/// A write that waits for one replica, of which the script and `WAIT` are answered with these; and
/// whether `WAIT` was sent.
async fn write_and_wait(
    script: Reply,
    wait: Reply,
) -> (Result<(Vec<String>, usize), LogError>, bool) {
    let server = ScriptedServer::start(move |command| match command.starts_with("WAIT") {
        true => wait.clone(),
        false => script.clone(),
    })
    .await;
    let call = Call::new(&crate::log::redis::scripts::APPEND, &[]);
    let outcome = commands_to(&server.url(), 1, true)
        .call_and_wait(call, 1, Duration::from_millis(100))
        .await;
    (outcome, server.commands().concat().contains(&"WAIT 1 100".to_owned()))
}

fn words(words: &[&str]) -> Reply {
    let lines: String = words.iter().map(|word| format!("+{word}\r\n")).collect();
    Reply::Sent(format!("*{}\r\n{lines}", words.len()))
}

#[tokio::test]
async fn a_write_that_redis_has_is_never_called_undone_whatever_waiting_comes_to() {
    let written = ["ok", "1", "k3f9aa"];
    let (outcome, _) = write_and_wait(words(&written), Reply::Sent(":1\r\n".to_owned())).await;
    assert_eq!(outcome.unwrap(), (written.map(str::to_owned).to_vec(), 1));
    for wait in [
        Reply::error("NOPERM User app has no permissions to run the 'wait' command"),
        Reply::error("ERR WAIT cannot be used with replica instances."),
        Reply::error("UNBLOCKED force unblock from blocking operation, instance state changed"),
        Reply::error("READONLY You can't write against a read only replica."),
        Reply::error("BUSY Redis is busy running a script."),
        Reply::error("LOADING Redis is loading the dataset in memory"),
        Reply::error("NOREPLICAS Not enough good replicas to write."),
        Reply::line("many"),
        Reply::Cut,
        Reply::Silence,
    ] {
        let told = format!("{wait:?}");
        let (outcome, _) = write_and_wait(words(&written), wait).await;
        assert!(matches!(outcome, Err(LogError::OutcomeUnknown(_))), "{told}: {outcome:?}");
    }
}

#[tokio::test]
async fn what_a_script_did_not_do_is_not_waited_for() {
    let wait = Reply::error("NOPERM User app has no permissions to run the 'wait' command");
    let refused = ["precondition_failed", "7", "k3f9aa"];
    let (outcome, waited) = write_and_wait(words(&refused), wait.clone()).await;
    assert_eq!(outcome.unwrap(), (refused.map(str::to_owned).to_vec(), 0));
    assert!(!waited);
    let memory = Reply::error("OOM command not allowed when used memory > 'maxmemory'");
    let (outcome, waited) = write_and_wait(memory, wait).await;
    assert!(matches!(outcome, Err(LogError::Unavailable(_))), "{outcome:?}");
    assert!(!waited);
}

#[tokio::test]
async fn a_server_that_is_read_only_is_left_and_that_is_told_once() {
    let server = ScriptedServer::start(|command| match command {
        "GET write" => Reply::error("READONLY You can't write against a read only replica."),
        _ => Reply::line("yes"),
    })
    .await;
    let commands = commands_to(&server.url(), 1, false);
    assert!(!commands.was_demoted());
    let refused = get(&commands, "write").await;
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    assert!(commands.was_demoted());
    assert!(!commands.was_demoted());
    // Its name may lead to another server by now.
    assert_eq!(get(&commands, "a").await.unwrap(), "yes");
    assert_eq!(sent(&server), [["GET write"], ["GET a"]]);
}

#[tokio::test]
async fn who_waits_on_a_silent_connection_is_told_when_it_is_given_up() {
    let server = ScriptedServer::start(|command| match command {
        "GET nothing" => Reply::Silence,
        _ => Reply::line("yes"),
    })
    .await;
    let commands = commands_to(&server.url(), 1, false);
    let began_at = Instant::now();
    let give_up = async {
        server.until(|commands| commands.iter().flatten().any(|c| c == "GET nothing")).await;
        commands.generation.invalidate_all();
    };
    let (result, ()) = tokio::join!(get(&commands, "nothing"), give_up);
    assert!(matches!(result, Err(LogError::OutcomeUnknown(_))), "{result:?}");
    assert!(began_at.elapsed() < REPLY_TIMEOUT, "{:?}", began_at.elapsed());
    assert_eq!(get(&commands, "a").await.unwrap(), "yes");
    assert_eq!(sent(&server), [["GET nothing"], ["GET a"]]);
}

#[tokio::test]
async fn a_server_that_is_left_is_not_believed_and_not_asked() {
    let server = ScriptedServer::start(|command| match command {
        "GET nothing" => Reply::Silence,
        _ => Reply::line("yes"),
    })
    .await;
    let commands = commands_to(&server.url(), 1, false);
    let began_at = Instant::now();
    let leave = async {
        server.until(|commands| commands.iter().flatten().any(|c| c == "GET nothing")).await;
        commands.generation.leave();
    };
    // It was sent, and nobody knows whether it is done.
    let (result, ()) = tokio::join!(get(&commands, "nothing"), leave);
    assert!(matches!(result, Err(LogError::OutcomeUnknown(_))), "{result:?}");
    assert!(began_at.elapsed() < REPLY_TIMEOUT, "{:?}", began_at.elapsed());
    // What comes later is not sent.
    let result = get(&commands, "a").await;
    assert!(matches!(result, Err(LogError::Unavailable(_))), "{result:?}");
    assert_eq!(sent(&server), [["GET nothing"]]);
}

#[tokio::test]
async fn a_late_reply_is_a_sign_of_a_dead_connection_unless_replies_are_slow_by_nature() {
    let server = ScriptedServer::start(|_| Reply::Silence).await;
    let quick = commands_to(&server.url(), 1, false);
    let slow = commands_to(&server.url(), 1, true);
    let before = [quick.generation.current(), slow.generation.current()];
    let results: [_; 2] = tokio::join!(get(&quick, "a"), get(&slow, "a")).into();
    for result in results {
        assert!(matches!(result, Err(LogError::OutcomeUnknown(_))), "{result:?}");
    }
    assert_ne!(quick.generation.current(), before[0]);
    assert_eq!(slow.generation.current(), before[1]);
}

#[tokio::test]
async fn with_nobody_there_nothing_is_done() {
    let url = ScriptedServer::start(|_| Reply::Silence).await.url();
    let commands = commands_to(&url, 1, false);
    let result = get(&commands, "a").await;
    assert!(matches!(result, Err(LogError::Unavailable(_))), "{result:?}");
}

/// How many connections a server counts in 2 s while eight publishers ask as fast as they can.
async fn connections_of_publishers(port: u16, accepted: &AtomicUsize) -> usize {
    let commands = commands_to(&format!("redis://127.0.0.1:{port}"), 2, false);
    let ask = async || {
        let until = Instant::now() + Duration::from_secs(2);
        let mut words = std::collections::BTreeSet::new();
        while Instant::now() < until {
            let answer = get(&commands, "a").await;
            words.insert(format!("{:?}", answer.unwrap_err()));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(words.len() <= 3, "{words:?}");
    };
    join_all((0..8).map(|_| ask())).await;
    accepted.load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_server_that_wants_nobody_is_not_asked_once_for_each_request() {
    for answer in [
        "-ERR max number of clients reached\r\n",
        "-LOADING Redis is loading\r\n",
        "",
        "HTTP/1.1\r\n\r\n",
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = accepted.clone();
        let serving = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = socket.readable().await;
                let _ = socket.write_all(answer.as_bytes()).await;
                // With what it sent unread, a close would be a reset that overtakes the answer.
                let mut asked = [0; 4096];
                let _ = socket.try_read(&mut asked);
            }
        });
        let connections = connections_of_publishers(port, &accepted).await;
        assert!((2..40).contains(&connections), "{answer:?}: {connections} connections in 2 s");
        serving.abort();
    }
}

#[tokio::test]
async fn a_server_that_breaks_every_connection_is_not_asked_once_for_each_request() {
    let server = ScriptedServer::start(|_| Reply::Cut).await;
    let accepted = AtomicUsize::new(0);
    connections_of_publishers(server.url().rsplit_once(':').unwrap().1.parse().unwrap(), &accepted)
        .await;
    let connections = server.commands().len();
    assert!((2..40).contains(&connections), "{connections} connections in 2 s");
    // And soon after it has changed its mind it is asked again.
    let commands = commands_to(&server.url(), 1, false);
    for _ in 0..10 {
        assert!(get(&commands, "a").await.is_err());
    }
    server.answer(|_| Reply::line("yes"));
    let mended_at = Instant::now();
    while get(&commands, "a").await.is_err() {
        assert!(mended_at.elapsed() < Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn what_a_server_says_that_is_no_redis_is_told_on_one_line() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let commands = commands_to(&format!("redis://{}", listener.local_addr().unwrap()), 1, false);
    let answer = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut asked = [0; 4096];
        let _ = socket.read(&mut asked).await;
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\nno\r\n").await.unwrap();
        socket
    };
    let (result, _socket) = tokio::join!(get(&commands, "a"), answer);
    let Err(LogError::Unavailable(why)) = result else { panic!("{result:?}") };
    assert_eq!(why.lines().count(), 1, "{why}");
    assert!(why.contains("does not speak as Redis does"), "{why}");
}
