//! Whatever is written under a topic's keys, no stream asks or tells in a loop without a wait, and all
//! go on once the keys are as they were.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use crate::harness::{Event, Node, Redis, Stream, until};

/// How long corrupt logs are watched, in audits of one node: two seconds each.
const AUDITS: u64 = 4;

/// Entries of a topic before it is corrupted.
const ENTRIES: usize = 10;

/// What somebody wrote under a topic's keys: a name, and commands in which `SEQ`, `LOG` and `META`
/// stand for the keys, `EPOCH` and `REIGN` for what is in `meta`.
const KINDS: &[(&str, &[&str])] = &[
    ("nothing", &[]),
    ("floor-beyond-the-head", &["SET META|EPOCH REIGN 999999"]),
    ("floor-of-many-digits", &["SET META|EPOCH REIGN 99999999999999999999999999"]),
    ("an-end-beyond-the-head", &["SET META|EPOCH REIGN 0 zzzz:999999"]),
    ("entries-of-an-unknown-epoch", &["SET META|bbbb REIGN 0"]),
    ("entries-beyond-their-end", &["SET META|bbbb REIGN 0 EPOCH:3"]),
    ("meta-of-no-meaning", &["SET META|nonsense"]),
    ("past-of-no-meaning", &["SET META|EPOCH REIGN 0 what:ever"]),
    ("epoch-of-no-meaning", &["SET META|EPOCHEPOCH REIGN 0"]),
    ("meta-of-another-type", &["DEL META", "RPUSH META|x"]),
    ("seq-is-no-number", &["SET SEQ|many"]),
    ("seq-is-as-large-as-can-be", &["SET SEQ|9223372036854775807"]),
    ("seq-is-the-largest-exact", &["SET SEQ|9007199254740991"]),
    ("seq-is-negative", &["SET SEQ|-5"]),
    ("seq-is-behind-the-log", &["SET SEQ|3"]),
    ("seq-is-ahead-of-the-log", &["SET SEQ|1000"]),
    ("seq-of-another-type", &["DEL SEQ", "RPUSH SEQ|x"]),
    ("log-of-another-type", &["DEL LOG", "SET LOG|x"]),
    ("log-of-other-fields", &["DEL LOG", "XADD LOG|10-0|a|b"]),
    ("log-of-other-values", &["DEL LOG", "XADD LOG|10-0|e|E!|t|x|j|y|f|z"]),
    ("an-entry-was-deleted", &["XDEL LOG|5-0"]),
    (
        "an-entry-is-missing-behind-the-newest",
        &["XADD LOG|12-0|e|EPOCH|t|0|j|0|f|data: by hand\n\n", "SET SEQ|12"],
    ),
    ("the-newest-entry-was-deleted", &["XDEL LOG|10-0"]),
    ("all-but-the-oldest-were-deleted", &["XDEL LOG|2-0|3-0|4-0|5-0|6-0|7-0|8-0|9-0|10-0"]),
];

/// Somebody who reads a stream all the time.
struct Reader {
    what: String,
    events: Arc<Mutex<Vec<Event>>>,
    reading: AbortHandle,
}

impl Reader {
    async fn start(node: &Node, path: &str, id: &str) -> Reader {
        let mut stream = Stream::request(node.address, path, id).await;
        assert_eq!(stream.status, 200, "{path} from {id:?}: {}", stream.head);
        let events = Arc::<Mutex<Vec<Event>>>::default();
        let heard = events.clone();
        let reading = tokio::spawn(async move {
            while let Some(event) = stream.next().await {
                heard.lock().unwrap().push(event);
            }
        });
        let what = format!("{} {path} from {id:?}", node.address);
        Reader { what, events, reading: reading.abort_handle() }
    }

    /// Numbers go up by one, or a reset says that they do not.
    fn misses_nothing_in_silence(&self, topic: &str) {
        let mut last: Option<u64> = None;
        if !self.what.contains("/topics/") {
            return;
        }
        for event in self.heard() {
            if event.kind == "reset" {
                last = None;
            } else if !event.is_connected() {
                let follows = last.is_none_or(|last| event.seq() == last + 1);
                assert!(follows, "{topic}: {}: {:?}", self.what, self.heard());
                last = Some(event.seq());
            }
        }
    }

    fn heard(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

fn key(topic: &str, name: &str) -> String {
    format!("fantail:{{{topic}}}:{}", name.to_lowercase())
}

async fn corrupt(redis: &Redis, topic: &str, commands: &[&str]) {
    let meta: String = redis.ask(&["GET", &key(topic, "meta")]).await;
    let [epoch, reign, ..] = meta.split(' ').collect::<Vec<_>>()[..] else { panic!("{meta}") };
    for command in commands {
        let (start, arguments) = command.split_once('|').unwrap_or((command, ""));
        let (verb, name) = start.split_once(' ').unwrap();
        let key = key(topic, name);
        let arguments = arguments.replace("EPOCH", epoch).replace("REIGN", reign);
        let mut words = vec![verb, &key];
        words.extend(arguments.split('|').filter(|word| !word.is_empty()));
        redis.ask::<redis::Value>(&words).await;
    }
}

/// What is stored under the keys of a topic.
async fn dump(redis: &Redis, topic: &str) -> Vec<(String, Vec<u8>)> {
    let mut dumped = Vec::new();
    for name in ["seq", "log", "meta"] {
        let key = key(topic, name);
        let value = redis.ask(&["DUMP", &key]).await;
        dumped.push((key, value));
    }
    dumped
}

async fn restore(redis: &Redis, dumped: &[(String, Vec<u8>)]) {
    let client = redis::Client::open(redis.administrators_url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for (key, value) in dumped {
        let mut command = redis::cmd("RESTORE");
        command.arg(key).arg(0).arg(value).arg("REPLACE");
        command.query_async::<()>(&mut connection).await.unwrap();
    }
}

/// How many resets a stream can have been told in this time: two at once, if entries that are new
/// come between them; then the waits double, and each is at least half as long as it may be.
fn resets_max(time: Duration) -> usize {
    let (mut wait, mut next_at) = (Duration::from_millis(250), Duration::ZERO);
    let mut resets = 1;
    while next_at <= time {
        resets += 1;
        next_at += wait;
        wait = (wait * 2).min(Duration::from_secs(15));
    }
    resets
}

#[tokio::test]
async fn there_is_no_loop_without_a_wait_whatever_a_log_says() {
    let redis = Redis::start().await;
    let by_reactor = Node::start("by-reactor", Some(&redis), &[]).await;
    let by_server = Node::start("by-server", Some(&redis), &[("FANTAIL_REACTORS", "0")]).await;
    let nodes = [&by_reactor, &by_server];

    let began_at = Instant::now();
    let mut readers = Vec::new();
    let mut whole = Vec::new();
    for (topic, commands) in KINDS {
        let mut ids = Vec::new();
        for n in 0..ENTRIES {
            ids.push(by_reactor.publish(topic, n).await);
        }
        whole.push(dump(&redis, topic).await);
        let path = format!("/topics/{topic}/events");
        let several = format!("/events?topics=other,{topic}");
        let mut returning = Vec::new();
        for node in nodes {
            let mut stream = Stream::open_from(node.address, &several, "").await;
            node.publish("other", 0).await;
            returning.push(stream.event().await.id);
            // One that has been there all the time: the node has a tail of the topic.
            readers.push((topic, Reader::start(node, &path, "").await));
        }
        corrupt(&redis, topic, commands).await;
        for (node, returning) in nodes.iter().zip(&returning) {
            for id in ["", &ids[2], ids.last().unwrap(), "500-zzzz", "12345"] {
                readers.push((topic, Reader::start(node, &path, id).await));
            }
            let earliest = format!("{path}?from=earliest");
            readers.push((topic, Reader::start(node, &earliest, "").await));
            readers.push((topic, Reader::start(node, &several, returning).await));
        }
    }

    // A busy topic beside one that cannot be read costs no read of the latter for each entry.
    let _: String = redis.ask(&["CONFIG", "RESETSTAT"]).await;
    let mut published = 0;
    until("the corrupt logs were watched for some audits", async || {
        for _ in 0..10 {
            by_reactor.publish("other", "meanwhile").await;
            published += 1;
        }
        (redis.calls("mget").await >= AUDITS * nodes.len() as u64).then_some(())
    })
    .await;
    let scripts = redis.calls("evalsha").await - published;
    let streams = readers.len() as u64;
    println!("{scripts} scripts beside {published} that published, for {streams} streams");
    assert!(scripts <= streams * 5, "{scripts} scripts for {streams} streams");
    for (topic, reader) in &readers {
        let heard = reader.heard();
        let resets = heard.iter().filter(|event| event.kind == "reset").count();
        assert!(
            resets <= resets_max(began_at.elapsed()),
            "{topic}: {} was told {resets} resets: {heard:?}",
            reader.what
        );
        reader.misses_nothing_in_silence(topic);
    }

    for dumped in &whole {
        restore(&redis, dumped).await;
    }
    for (topic, _) in KINDS {
        by_server.publish(topic, "it is whole again").await;
    }
    for (topic, reader) in &readers {
        until(&format!("{topic}: {} goes on", reader.what), async || {
            let heard = reader.heard();
            heard.iter().any(|event| event.data == "it is whole again").then_some(())
        })
        .await;
    }
}
