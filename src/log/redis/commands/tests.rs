use futures_util::future::join_all;
use redis::IntoConnectionInfo;

use super::*;
use crate::log::redis::scripted_server::{Reply, ScriptedServer};

/// Over connections to `url`.
fn commands_to(url: &str, connections: usize, slow_replies_expected: bool) -> Commands {
    let info = with_resp3(url.into_connection_info().unwrap());
    Commands::new(&info, connections, ConnectionGeneration::new(), slow_replies_expected).unwrap()
}

/// What became of a command that a script answers with a line.
async fn get(commands: &Commands, what: &str) -> Result<String, LogError> {
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

#[tokio::test]
async fn what_redis_refuses_was_not_done_and_what_broke_half_way_may_have_been() {
    let server = ScriptedServer::start(|command| match command {
        "GET loading" => Reply::error("LOADING Redis is loading the dataset in memory"),
        "GET memory" => Reply::error("OOM command not allowed when used memory > 'maxmemory'"),
        // As servers before 7.0 wrap it.
        "GET wrapped" => Reply::error("ERR Error running script (call to f_1): -OOM command not"),
        "GET broken" => Reply::error("ERR Error running script (call to f_1): attempt to index"),
        _ => Reply::line("yes"),
    })
    .await;
    let commands = commands_to(&server.url(), 1, false);
    for (what, done_for_sure_not) in
        [("loading", true), ("memory", true), ("wrapped", true), ("broken", false)]
    {
        match get(&commands, what).await {
            Err(LogError::Unavailable(_)) if done_for_sure_not => {}
            Err(LogError::OutcomeUnknown(_)) if !done_for_sure_not => {}
            result => panic!("{what}: {result:?}"),
        }
    }
    // A server that says no is alive.
    assert_eq!(get(&commands, "a").await.unwrap(), "yes");
    assert_eq!(server.commands().len(), 1);
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
