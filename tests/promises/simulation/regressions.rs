//! What the simulation and the model have taught, one by one, on a single node: a log that goes back in time
//! at the wrong moment, and what must not be left to the next audit.

use std::sync::Arc;
use std::time::Duration;

use fantail::entry::{Data, Event};
use fantail::log::Conditions;
use fantail::position::{Cursor, Position};
use fantail::relay::AUDIT_INTERVAL;
use fantail::stream::{Node, StartAt};
use fantail::topic::Topic;

use super::{Polled, Simulation};
use crate::harness::client::{self, Interpreter};
use crate::harness::faulty_log::{Faults, FaultyLog};

/// One node and one topic, in which all goes well but what is said.
struct SmallSimulation {
    simulation: Arc<Simulation>,
    topic: Topic,
}

impl SmallSimulation {
    fn new(faults: Faults) -> SmallSimulation {
        let topic = Topic::new("t").unwrap();
        let log = FaultyLog::new(100);
        let simulation = Simulation::over(log, vec![faults], vec![topic.clone()], 0);
        SmallSimulation { simulation, topic }
    }

    async fn publish(&self, text: &str) -> Position {
        let event = Event { event_type: None, data: Data::Text(text.to_owned()) };
        let log = &self.node().log;
        log.append(&self.topic, &[event], &Conditions::NONE).await.unwrap().last
    }

    /// A client that comes back from this position and has got its hello.
    async fn client(&self, from: Position) -> Client {
        let topics = std::slice::from_ref(&self.topic);
        let start = StartAt::Resume(Cursor::read(&from.to_string(), topics));
        let connection = self.simulation.connect(0, topics, start);
        let mut client = Client { connection, interpreter: Interpreter::default() };
        assert!(client.event().await.is_connected());
        client
    }

    /// A repair has read the log, and does not know it yet.
    async fn begin_repair(&self) {
        self.simulation.log.hold(true);
        self.node().relay.request_repair(&self.node().hub.get(&self.topic).unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    fn node(&self) -> &Node {
        &self.simulation.nodes[0]
    }

    /// The newest copy takes over.
    fn fail_over(&self) {
        self.simulation.log.fail_over(1);
        self.simulation.log.mend();
    }
}

struct Client {
    connection: Polled,
    interpreter: Interpreter,
}

impl Client {
    async fn event(&mut self) -> client::Event {
        let waits = self.event_within(Duration::from_secs(60)).await;
        waits.expect("an event")
    }

    async fn event_within(&mut self, time: Duration) -> Option<client::Event> {
        tokio::time::timeout(time, async {
            loop {
                if let Some(event) = self.interpreter.events.pop_front() {
                    return event;
                }
                let block = self.connection.next().await.expect("the stream goes on");
                self.interpreter.feed(&block);
            }
        })
        .await
        .ok()
    }

    /// Before an audit, or a heartbeat, could have brought it.
    async fn expect_soon(&mut self, position: Position) {
        let event = self.event_within(AUDIT_INTERVAL / 4).await;
        assert_eq!(event.expect("an entry, soon").id, position.to_string());
    }

    /// Takes its connection as far as it gets without anybody else doing anything.
    async fn look(&mut self) {
        tokio::select! {
            biased;
            block = self.connection.next() => panic!("{block:?}"),
            () = std::future::ready(()) => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_ahead_of_a_node_is_told_when_the_log_goes_back_to_where_the_node_is() {
    let small = SmallSimulation::new(Faults::deaf());
    let first = small.publish("1").await;
    // The node follows the topic, but never hears of the second entry.
    let _other = small.client(first).await;
    small.simulation.log.replicate();
    let second = small.publish("2").await;
    let mut client = small.client(second).await;
    // The log says that the client is right; then, before the node has looked, it has never been.
    client.look().await;
    small.fail_over();
    let reset = client.event().await;
    assert_eq!((reset.kind.as_str(), &reset.json()["reason"]), ("reset", &"lost".into()));
    assert_eq!(client.event().await.id, first.to_string());
}

#[tokio::test(start_paused = true)]
async fn pages_read_before_the_log_went_back_are_not_read_again() {
    let small = SmallSimulation::new(Faults::deaf());
    let first = small.publish("1").await;
    small.simulation.log.replicate();
    let second = small.publish("2").await;
    // The node opens the topic behind both entries: they come from a page of the log.
    let mut client = small.client(Position { seq: 0, ..first }).await;
    assert_eq!(client.event().await.id, first.to_string());
    assert_eq!(client.event().await.id, second.to_string());
    small.fail_over();
    assert_eq!(client.event().await.kind, "reset");
    assert_eq!(client.event().await.id, first.to_string());
    let more = client.event_within(Duration::from_secs(60)).await;
    assert_eq!(more, None, "there is nothing more in the log");
}

#[tokio::test(start_paused = true)]
async fn what_a_reconnect_finds_does_not_wait_for_the_next_audit() {
    let small = SmallSimulation::new(Faults::deaf());
    let first = small.publish("1").await;
    let mut client = small.client(first).await;
    small.begin_repair().await;
    let second = small.publish("2").await;
    small.simulation.log.cut(0);
    small.simulation.log.mend();
    tokio::time::sleep(Duration::from_millis(10)).await;
    small.simulation.log.hold(false);
    client.expect_soon(second).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_woken_by_an_announcement() {
    let small = SmallSimulation::new(Faults::none());
    let first = small.publish("1").await;
    let mut client = small.client(first).await;
    client.look().await;
    let second = small.publish("2").await;
    client.expect_soon(second).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_announced_during_a_repair_follows_it() {
    let small = SmallSimulation::new(Faults::none());
    let first = small.publish("1").await;
    let mut client = small.client(first).await;
    small.begin_repair().await;
    let second = small.publish("2").await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    small.simulation.log.hold(false);
    client.expect_soon(second).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_published_while_a_topic_is_being_subscribed_is_not_left_to_an_audit() {
    let small = SmallSimulation::new(Faults::none());
    let first = small.publish("1").await;
    small.simulation.log.hold(true);
    let (mut client, second) = tokio::join!(small.client(first), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let second = small.publish("2").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        small.simulation.log.hold(false);
        second
    });
    client.expect_soon(second).await;
}

#[tokio::test(start_paused = true)]
async fn another_entry_with_the_same_number_is_found_by_the_audit() {
    let small = SmallSimulation::new(Faults::deaf());
    let first = small.publish("1").await;
    small.simulation.log.replicate();
    let lost = small.publish("2").await;
    let mut client = small.client(lost).await;
    client.look().await;
    small.fail_over();
    let new = small.publish("another 2").await;
    assert_eq!(new.seq, lost.seq);
    assert_eq!(client.event().await.kind, "reset");
    assert_eq!(client.event().await.id, first.to_string());
    assert_eq!(client.event().await.data, "another 2");
}
