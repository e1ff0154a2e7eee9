//! The rules of the scripts, written again for model and simulation: both do the same.

use std::collections::HashMap;
use std::time::Duration;

use fantail::config::RedisFiles;
use fantail::entry::{Data, Event};
use fantail::log::redis::RedisLog;
use fantail::log::{Conditions, Log, LogError, Retention};
use fantail::position::{Epoch, LogHistory};
use fantail::topic::Topic;
use fantail::wire::sse;

use crate::harness::keyspace::{Key, Keyspace};
use crate::harness::{Redis, until};

const HISTORY_ENTRIES_MAX: usize = 5;

/// Some of the entries that are written here; the largest are larger.
const HISTORY_BYTES_MAX: usize = 128;

#[tokio::test]
async fn scripts_and_their_rules_in_rust_lead_to_the_same_logs() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let redis = Redis::start().await;
    let retention = Retention {
        history_entries_max: HISTORY_ENTRIES_MAX,
        history_bytes_max: HISTORY_BYTES_MAX,
        history_ttl: Duration::from_secs(3600),
        idempotency_window: Duration::from_secs(60),
    };
    let (log, _heard) = RedisLog::start(
        &redis.plain_url(),
        &RedisFiles::default(),
        "fantail",
        "node",
        retention,
        0,
    )
    .unwrap();
    let topic = Topic::new("t").unwrap();
    let mut keys = Keyspace::default();
    let mut replication_id = 0;
    let mut epochs = 0;
    // Ours by theirs.
    let mut names: HashMap<Epoch, Epoch> = HashMap::new();
    for step in 0..400 {
        let who = format!("seed {seed}, step {step}");
        let mut open = |keys: &mut Keyspace| {
            epochs += 1;
            keys.open(replication_id, format!("e{epochs:03}").parse().unwrap(), 0);
        };
        match random.u32(..20) {
            0..10 => {
                open(&mut keys);
                // Some are larger than a history may be.
                let text = step.to_string().repeat(random.usize(1..8).pow(2));
                let event = Event { event_type: None, data: Data::Text(text) };
                let text = sse::event_text(&event);
                keys.append(HISTORY_ENTRIES_MAX, HISTORY_BYTES_MAX, 0, false, text);
                let append = async || {
                    log.append(&topic, std::slice::from_ref(&event), &Conditions::NONE).await
                };
                until("it is appended", async || answered(append().await)).await;
            }
            10..15 => {
                // What was never there, or is gone, is not made by being looked at.
                if keys.is_written() {
                    open(&mut keys);
                }
                until("it is opened", async || answered(log.open(&topic).await)).await;
            }
            15..18 => {
                let (key, name) =
                    [(Key::Seq, "seq"), (Key::Log, "log"), (Key::Meta, "meta")][random.usize(..3)];
                keys.lose(key);
                let _: u64 = redis.ask(&["DEL", &format!("fantail:{{t}}:{name}")]).await;
            }
            _ => {
                // A master that is demoted and promoted again begins a new epoch.
                replication_id += 1;
                let _: String = redis.ask(&["REPLICAOF", "127.0.0.1", "1"]).await;
                let _: String = redis.ask(&["REPLICAOF", "NO", "ONE"]).await;
            }
        }
        let page = until("it is read", async || answered(log.read(&topic, 0, 1 << 40).await)).await;
        let history = keys.history();
        if !keys.is_written() {
            let theirs = page.map(|page| page.history);
            let is_unwritten = |theirs: &LogHistory| theirs.epoch.unwritten_time().is_some();
            assert!(theirs.as_ref().is_some_and(is_unwritten), "{who}: {theirs:?}, {keys:?}");
            continue;
        }
        let (Some(page), Some(history)) = (&page, &history) else {
            assert!(page.is_none() && history.is_none(), "{who}: {page:?}, {keys:?}");
            continue;
        };
        let theirs = &page.history;
        assert_eq!((theirs.head, theirs.oldest), (history.head, history.oldest), "{who}: {keys:?}");
        let ends = |past: &[(Epoch, u64)]| past.iter().map(|&(_, end)| end).collect::<Vec<_>>();
        assert_eq!(ends(&theirs.past_epochs), ends(&history.past_epochs), "{who}: {keys:?}");
        let epochs = |current: Epoch, past: &[(Epoch, u64)]| {
            std::iter::once(current).chain(past.iter().map(|&(epoch, _)| epoch)).collect::<Vec<_>>()
        };
        let ours = epochs(history.epoch, &history.past_epochs);
        for (theirs, ours) in epochs(theirs.epoch, &theirs.past_epochs).into_iter().zip(ours) {
            assert_eq!(*names.entry(theirs).or_insert(ours), ours, "{who}: another epoch");
        }
        let mut entries = keys.entries(0, 1 << 40);
        for entry in &page.entries {
            let ours = entries.next().unwrap_or_else(|| panic!("{who}: {keys:?}"));
            assert_eq!(entry.position.seq, ours.position.seq, "{who}");
            assert_eq!(names[&entry.position.epoch], ours.position.epoch, "{who}");
            assert_eq!(entry.rest, ours.rest, "{who}");
        }
        assert_eq!(entries.next(), None, "{who}");
    }
}

/// The answer, unless Redis was just being promoted.
fn answered<T>(result: Result<T, LogError>) -> Option<T> {
    match result {
        Err(LogError::Unavailable(_)) => None,
        result => Some(result.unwrap()),
    }
}
