use std::collections::HashSet;

use redis::IntoConnectionInfo;
use tokio::task::JoinHandle;

use super::*;
use crate::config::RedisFiles;
use crate::log::redis::keys::Keys;
use crate::log::redis::scripted_server::{Reply, ScriptedServer};
use crate::log::{Notification, Notifications, Notifier};

/// Beyond this time a test has failed, however slow the machine is.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

struct Running {
    subscription: Arc<Subscription>,
    generation: Arc<ConnectionGeneration>,
    notifications: Notifications,
    task: JoinHandle<()>,
}

impl Running {
    fn start(server: &ScriptedServer) -> Running {
        let info = server.url().into_connection_info().unwrap();
        let server = Arc::new(Server::new(info, &RedisFiles::default()));
        let (notifier, notifications) = Notifier::new();
        let generation = ConnectionGeneration::new();
        let listening = Arc::new(Listening::new(Keys::new("fantail"), "n", notifier, false));
        let subscription = Subscription::new(server, listening, generation.clone());
        let subscription = Arc::new(subscription);
        let task = tokio::spawn(subscription.clone().run());
        Running { subscription, generation, notifications, task }
    }

    /// The topic and the sequence number of an entry, or nothing if some may be lost.
    async fn notified(&mut self) -> Option<(String, u64)> {
        let next = tokio::time::timeout(TEST_TIMEOUT, self.notifications.recv()).await;
        match next.expect("nothing is notified").expect("the subscription is gone") {
            Notification::Entry(topic, frame) => Some((topic.to_string(), frame.position.seq)),
            Notification::Look(_) | Notification::Dropped | Notification::MaybeLost => None,
        }
    }

    /// Waits until everything wanted is subscribed on a connection of at least this number.
    async fn subscribed(&self, number: u64) {
        let wait = async {
            while self.subscription.subscribed_connection() < Some(number) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(TEST_TIMEOUT, wait).await.expect("it does not subscribe");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a real server says.
fn healthy(command: &str) -> Reply {
    match command {
        "INFO server" => Reply::Sent("$19\r\nredis_version:7.0.0\r\n".to_owned()),
        "PING" => Reply::line("PONG"),
        _ if command.starts_with("PUBLISH ") => Reply::Sent(":0\r\n".to_owned()),
        _ if command.starts_with("EVALSHA ") => Reply::Sent("*0\r\n".to_owned()),
        _ => Reply::error("ERR not in the script of this test"),
    }
}

fn topics(names: &[&str]) -> Vec<Topic> {
    names.iter().map(|name| Topic::new(name).unwrap()).collect()
}

/// The channels that a connection has subscribed.
fn channels(commands: &[String]) -> HashSet<String> {
    let subscribe = commands.iter().filter_map(|command| command.strip_prefix("SUBSCRIBE "));
    subscribe.flat_map(|channels| channels.split(' ').map(ToOwned::to_owned)).collect()
}

const CANARY: &str = "fantail:{index,}:canary:n";

#[tokio::test]
async fn what_is_announced_is_notified_and_what_cannot_be_read_may_be_a_loss() {
    let server = ScriptedServer::start(healthy).await;
    let mut running = Running::start(&server);
    // Whatever was announced before the first moment was missed.
    assert_eq!(running.notified().await, None);
    running.subscribed(1).await;
    running.subscription.subscribe(&topics(&["a", "b"])).await.unwrap();
    server.push(0, "fantail:{a}", "1700000000000\nid: 7-k3f9\ndata: x\n\n");
    assert_eq!(running.notified().await, Some(("a".to_owned(), 7)));
    for nonsense in ["", "\n", "1\n", "1700000000000\ndata: x\n\n", "x\nid: 7-k3f9\ndata: x\n\n"] {
        server.push(0, "fantail:{b}", nonsense);
        assert_eq!(running.notified().await, None, "{nonsense:?}");
    }
    // Other people's channels are theirs.
    server.push(0, "other:{a}", "1700000000000\nid: 8-k3f9\ndata: x\n\n");
    server.push(0, "fantail:{a}", "1700000000000\nid: 9-k3f9\ndata: x\n\n");
    assert_eq!(running.notified().await, Some(("a".to_owned(), 9)));
}

#[tokio::test]
async fn a_canary_is_heard_with_all_that_went_before_it() {
    let server = ScriptedServer::start(healthy).await;
    let running = Running::start(&server);
    running.subscribed(1).await;
    assert_eq!(running.subscription.listening.canary_channel(), CANARY);
    server.push(0, CANARY, "nonsense");
    server.push(0, CANARY, "5");
    let heard = running.subscription.listening.canary_heard(4);
    tokio::time::timeout(TEST_TIMEOUT, heard).await.expect("it is not heard");
    let later =
        tokio::time::timeout(Duration::ZERO, running.subscription.listening.canary_heard(6)).await;
    assert!(later.is_err(), "nobody has published it");
}

#[tokio::test]
async fn after_a_break_everything_that_is_wanted_is_subscribed_again_and_the_relay_is_told() {
    let server = ScriptedServer::start(healthy).await;
    let mut running = Running::start(&server);
    assert_eq!(running.notified().await, None);
    running.subscribed(1).await;
    running.subscription.subscribe(&topics(&["a", "b", "c"])).await.unwrap();
    running.subscription.unsubscribe(&topics(&["b"])).await;
    server.cut(0);
    assert_eq!(running.notified().await, None);
    running.subscribed(2).await;
    let wanted = ["fantail:{a}", "fantail:{c}", CANARY].map(ToOwned::to_owned);
    assert_eq!(channels(&server.commands()[1]), HashSet::from(wanted));
    assert_eq!(running.subscription.health(), Health::Up);
}

#[tokio::test]
async fn what_is_not_wanted_any_more_when_it_is_subscribed_again_is_left() {
    let server = ScriptedServer::start(healthy).await;
    let running = Running::start(&server);
    running.subscribed(1).await;
    running.subscription.subscribe(&topics(&["a", "b"])).await.unwrap();
    let copied = topics(&["a", "b", "c"]);
    running.subscription.unsubscribe(&topics(&["b"])).await;
    let mut connection = running.subscription.state().current.clone().unwrap();
    running.subscription.subscribe_copied(&mut connection, &copied).await.unwrap();
    let commands = server.commands()[0].clone();
    let subscribing = commands.iter().filter(|command| command.contains("SUBSCRIBE"));
    let last: Vec<&str> = subscribing.rev().take(2).map(String::as_str).collect();
    let again = "SUBSCRIBE fantail:{a} fantail:{b} fantail:{c}";
    assert_eq!(last, ["UNSUBSCRIBE fantail:{b} fantail:{c}", again]);
}

#[tokio::test]
async fn what_is_wanted_while_nothing_can_be_heard_is_subscribed_when_it_can() {
    let server = ScriptedServer::start(|command| match command {
        "INFO server" => Reply::Cut,
        command => healthy(command),
    })
    .await;
    let running = Running::start(&server);
    let refused = running.subscription.subscribe(&topics(&["a"])).await;
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    assert_eq!(running.subscription.subscribed_connection(), None);
    server.answer(healthy);
    running.subscribed(1).await;
    let commands = server.commands();
    let last = commands.last().expect("it connects");
    assert!(channels(last).contains("fantail:{a}"), "{last:?}");
}

#[tokio::test]
async fn a_connection_that_does_not_answer_is_replaced_and_so_are_those_of_commands() {
    let server = ScriptedServer::start(|command| match command {
        "PING" => Reply::Silence,
        command => healthy(command),
    })
    .await;
    let running = Running::start(&server);
    running.subscribed(1).await;
    let before = running.generation.current();
    server.until(|commands| commands[0].iter().any(|command| command == "PING")).await;
    // Only the first connection has an unanswered question.
    server.answer(healthy);
    running.subscribed(2).await;
    assert!(running.generation.current() > before);
}

#[tokio::test]
async fn a_connection_that_did_not_hear_a_canary_is_replaced_and_no_other() {
    let server = ScriptedServer::start(healthy).await;
    let running = Running::start(&server);
    running.subscribed(1).await;
    running.subscription.reconnect(1);
    running.subscribed(2).await;
    // Somebody who learns late of the first one's fate.
    running.subscription.reconnect(1);
    server.until(|commands| commands[1].iter().filter(|c| *c == "PING").count() >= 2).await;
    assert_eq!(server.commands().len(), 2);
}

#[tokio::test]
async fn a_server_that_is_too_old_is_given_up_for_good() {
    let server = ScriptedServer::start(|command| match command {
        "INFO server" => Reply::Sent("$20\r\nredis_version:6.0.16\r\n".to_owned()),
        command => healthy(command),
    })
    .await;
    let mut running = Running::start(&server);
    let ended = tokio::time::timeout(TEST_TIMEOUT, &mut running.task).await;
    ended.expect("it goes on").unwrap();
    assert!(matches!(running.subscription.health(), Health::Unusable(why) if why.contains("6.2")));
    assert_eq!(server.commands().len(), 1);
}
