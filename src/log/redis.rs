//! The log in Redis, shared by all nodes.
//!
//! Every write is one Lua script: change of state, sequence number, entry and announcement happen
//! together or not at all. [`address`] reads where Redis is, [`server`] what to show there, and
//! [`servers`] knows who takes the writes now. [`commands`] carries [`scripts`] and reads there, over
//! a [`lane`] for each kind of them; [`replies`] understands what comes back, [`boards`] knows which
//! script a change of a board is, [`subscription`] hears announcements, [`registry`] knows the other
//! nodes, [`revocations`] and [`tickets`] are what they share of access, [`keys`] names things,
//! [`layout`] moves what an earlier version named otherwise. Keys of one topic share a hash tag, which
//! says in which of the [`slots`] they lie; no command and no script has keys of two.

mod address;
mod boards;
mod catalogue;
mod commands;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod keys;
mod lane;
mod layout;
mod meaning;
mod registry;
mod replies;
mod revocations;
mod rights;
#[cfg(test)]
mod scripted_server;
mod scripts;
mod server;
mod servers;
mod slots;
mod subscription;
mod tickets;
mod version;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::{FromRedisValue, Value};

use super::{
    Appended, Conditions, Heads, Health, Log, LogError, Notifications, Notifier, Opened, Page,
    Probe, READ_BYTES_MAX, READ_ENTRIES_MAX, Retention, Snapshots,
};
use crate::config::RedisFiles;
use crate::entry::{Data, Event};
use crate::position::{Epoch, LogHistory, UNWRITTEN_AT_MAX};
use crate::topic::Topic;
use crate::wire::sse;
pub use address::{check_url, has_password};
use boards::KnownBoards;
use commands::Commands;
use keys::Keys;
use layout::Layout;
use replies::{accepted, asks_for_keys, entry, has_written, history, text, unexpected};
use scripts::Call;
pub use server::check_files;
use servers::{Kind, Servers};
use subscription::Listening;

/// How long a write waits for replicas; less than an answer may take.
const REPLICAS_TIMEOUT: Duration = Duration::from_millis(1_000);

/// Topics whose heads are asked for in one command.
const HEADS_BATCH: usize = 500;

/// A log in Redis.
pub struct RedisLog {
    servers: Arc<Servers>,
    commands: Commands,
    reads: Commands,
    /// For writes that wait for replicas.
    replicated: Option<Replicated>,
    keys: Keys,
    retention: Retention,
    layout: Layout,
    known_boards: KnownBoards,
}

/// Writes that wait until some replicas have them.
struct Replicated {
    commands: Commands,
    replicas: usize,
}

impl RedisLog {
    /// Starts following `url`, whether or not it can be reached already, with what `files` say to
    /// show there; what it hears comes out of the notifications. A write counts as done when `wait_replicas` replicas have it too. Must be
    /// called within a runtime.
    ///
    /// # Errors
    /// When `url` is no address of a Redis.
    pub fn start(
        url: &str,
        files: &RedisFiles,
        prefix: &str,
        node: &str,
        retention: Retention,
        wait_replicas: usize,
    ) -> Result<(Arc<RedisLog>, Notifications), String> {
        // redis-rs leaves the choice of a cryptography provider to us. An error means that one is
        // chosen already.
        let _ = server::crypto().install_default();
        let address = address::read(url)?;
        tracing::info!(redis = %address, prefix, "log in Redis");
        let (notifier, notifications) = Notifier::new();
        let keys = Keys::new(prefix);
        let listening = Listening::new(keys.clone(), node, notifier, wait_replicas > 0);
        let servers = Servers::start(address, files, Arc::new(listening));
        let commands = |kind| Commands::new(servers.clone(), kind);
        let replicated = match wait_replicas {
            0 => None,
            replicas => Some(Replicated { commands: commands(Kind::WaitingWrites), replicas }),
        };
        let log = RedisLog {
            commands: commands(Kind::Commands),
            reads: commands(Kind::Reads),
            replicated,
            servers,
            keys,
            retention,
            layout: Layout::default(),
            known_boards: KnownBoards::default(),
        };
        Ok((Arc::new(log), notifications))
    }

    /// Entries and bytes that are kept at most, as scripts take them.
    fn history_sizes(&self) -> String {
        let Retention { history_entries_max, history_bytes_max, .. } = &self.retention;
        format!("{history_entries_max} {history_bytes_max}")
    }

    fn ttl_milliseconds(&self) -> u64 {
        self.retention.history_ttl.as_millis() as u64
    }
}

#[async_trait]
impl Log for RedisLog {
    async fn append(
        &self,
        topic: &Topic,
        events: &[Event],
        conditions: &Conditions,
    ) -> Result<Appended, LogError> {
        self.settled().await?;
        let mut answer = self.write(self.append_call(topic, events, conditions, &[])).await?;
        if asks_for_keys(&answer) {
            let others = self.keys.topic(topic).others();
            answer = self.write(self.append_call(topic, events, conditions, &others)).await?;
        }
        accepted(&answer)
    }

    async fn open(&self, topic: &Topic) -> Result<Opened, LogError> {
        self.settled().await?;
        let open = async |others: &[String]| {
            let call = Call::new(&scripts::OPEN, &self.keys.topic(topic).of_log())
                .keys(others)
                .arg(Epoch::random().as_str())
                .arg(self.ttl_milliseconds());
            self.commands.call::<Vec<String>>(call).await
        };
        let mut answer = open(&[]).await?;
        if asks_for_keys(&answer) {
            answer = open(&self.keys.topic(topic).others()).await?;
        }
        let [head, meta, oldest, is_board] = &answer[..] else {
            return Err(unexpected("a topic"));
        };
        // One that a new installation has may be about to come.
        let has_state = is_board == "1"
            || (boards::is_first_board(topic) && self.exist(std::slice::from_ref(topic)).await?);
        Ok(Opened { history: history(head, meta, oldest)?, has_state })
    }

    async fn read(
        &self,
        topic: &Topic,
        after: u64,
        through: u64,
    ) -> Result<Option<Page>, LogError> {
        self.page(topic, after.saturating_add(1), through).await
    }

    async fn history(&self, topic: &Topic) -> Result<Option<LogHistory>, LogError> {
        // A stretch that no entry can be in.
        let page = self.page(topic, 1, 0).await?;
        Ok(page.map(|page| page.history))
    }

    async fn heads(&self, topics: &[Topic]) -> Result<Heads, LogError> {
        self.settled().await?;
        let mut of_topics = Vec::with_capacity(topics.len());
        for batch in topics.chunks(HEADS_BATCH) {
            // One for each topic: what has keys of several slots is refused where these lie apart.
            let mut pipe = redis::pipe();
            for topic in batch {
                pipe.cmd("MGET").arg(self.keys.seq(topic)).arg(self.keys.meta(topic));
            }
            let stored: Vec<(Option<String>, Option<String>)> =
                self.reads.pipe("mget", &pipe).await?;
            of_topics.extend(stored.into_iter().map(|(seq, meta)| head(seq, meta)));
        }
        let mut unwritten_since = vec![0; topics.len()];
        let without: Vec<usize> =
            (0..of_topics.len()).filter(|&n| of_topics[n].is_none()).collect();
        for batch in without.chunks(HEADS_BATCH) {
            // After the heads: a log that was flushed away before this is one whose head is missing.
            let mut pipe = redis::pipe();
            for &n in batch {
                pipe.exists(self.keys.log(&topics[n]));
                pipe.cmd("EVAL").arg(EMPTY_SINCE).arg(1).arg(self.keys.births(&topics[n]));
            }
            let found: Vec<Value> = self.reads.pipe("mget", &pipe).await?;
            for (&n, found) in batch.iter().zip(found.chunks(2)) {
                let (has_log, (at, seconds)): (bool, (Option<u64>, u64)) =
                    FromRedisValue::from_redis_value(Value::Array(found.to_vec()))
                        .map_err(|_| unexpected("what is known of a topic without a log"))?;
                // Both other keys may have been evicted.
                of_topics[n] = if has_log { BROKEN } else { None };
                // What is gone and not flushed has expired, and was not there before.
                let expired_before = (seconds * 1000).saturating_sub(self.ttl_milliseconds());
                unwritten_since[n] =
                    at.map_or(u64::MAX, |at| at.max(expired_before).min(UNWRITTEN_AT_MAX));
            }
        }
        Ok(Heads { of_topics, unwritten_since })
    }

    async fn keep(&self, topics: &[Topic]) -> Result<(), LogError> {
        self.settled().await?;
        let mut pipe = redis::pipe();
        for topic in topics {
            let keys = self.keys.topic(topic).of_log();
            pipe.cmd("EVAL").arg(KEEP).arg(3).arg(&keys[..]);
            pipe.arg(self.ttl_milliseconds()).ignore();
        }
        self.commands.pipe("keep", &pipe).await
    }

    async fn subscribe(&self, topics: &[Topic]) -> Result<(), LogError> {
        self.servers.subscribe(topics).await
    }

    async fn unsubscribe(&self, topics: &[Topic]) {
        self.servers.unsubscribe(topics).await;
    }
}

#[async_trait]
impl Probe for RedisLog {
    async fn canary(&self) -> Result<(), LogError> {
        self.servers.canary().await
    }

    fn name(&self) -> &'static str {
        "redis"
    }

    fn health(&self) -> Health {
        self.layout.refusal().map_or_else(|| self.servers.health(), Health::Unusable)
    }

    fn now_milliseconds(&self) -> Option<u64> {
        self.servers.now_milliseconds()
    }
}

impl RedisLog {
    /// Calls a script that writes; its answer counts once enough replicas have it too.
    async fn write(&self, call: Call<'static>) -> Result<Vec<String>, LogError> {
        let Some(Replicated { commands, replicas }) = &self.replicated else {
            return self.commands.call(call).await;
        };
        let (answer, reached) = commands.call_and_wait(call, *replicas, REPLICAS_TIMEOUT).await?;
        if has_written(&answer) && reached < *replicas {
            return Err(LogError::OutcomeUnknown(format!(
                "Redis has it, but only {reached} of {replicas} replicas had it within \
                 {REPLICAS_TIMEOUT:?}"
            )));
        }
        Ok(answer)
    }

    /// A call of the script that appends, with these keys besides those of the log.
    fn append_call(
        &self,
        topic: &Topic,
        events: &[Event],
        conditions: &Conditions,
        others: &[String],
    ) -> Call<'static> {
        let Conditions { idempotency_key, if_match } = conditions;
        let window = idempotency_key
            .as_ref()
            .map(|_| self.retention.idempotency_window.as_millis().to_string());
        let mut call = Call::new(&scripts::APPEND, &self.keys.topic(topic).of_log())
            .key(idempotency_key.as_ref().map(|key| self.keys.once(topic, key)))
            .keys(others)
            .arg(self.keys.channel(topic))
            .arg(Epoch::random().as_str())
            .arg(self.history_sizes())
            .arg(self.ttl_milliseconds())
            .arg(if_match.map(|position| position.to_string()).unwrap_or_default())
            .arg(window.unwrap_or_default())
            .arg(i32::from(boards::are_of_board(events)));
        for event in events {
            call = call
                .arg(i32::from(matches!(event.data, Data::Json(_))))
                .arg(&sse::event_text(event)[..]);
        }
        call
    }

    /// Reads the entries with a seq in `first ..= last`.
    async fn page(&self, topic: &Topic, first: u64, last: u64) -> Result<Option<Page>, LogError> {
        self.settled().await?;
        let read = async |others: &[String]| {
            let call = Call::new(&scripts::READ, &self.keys.topic(topic).of_log())
                .keys(others)
                .arg(first)
                .arg(last)
                .arg(READ_ENTRIES_MAX)
                .arg(READ_BYTES_MAX)
                .arg(self.ttl_milliseconds());
            self.reads.call::<Vec<Value>>(call).await
        };
        let mut answer = read(&[]).await?;
        if answer.len() == 1 {
            answer = read(&[self.keys.births(topic)]).await?;
        }
        let Ok([head, meta, oldest, entries]) = <[Value; 4]>::try_from(answer) else {
            return Ok(None);
        };
        // What is not as the scripts leave it is as good as nothing: whoever asks opens the log then,
        // and the script that does so makes anew what it cannot understand.
        let Ok(history) = history(&text(head)?, &text(meta)?, &text(oldest)?) else {
            return Ok(None);
        };
        let Value::Array(entries) = entries else { return Err(unexpected("entries")) };
        let entries = entries.into_iter().map(entry).collect::<Result<_, _>>()?;
        Ok(Some(Page { history, entries }))
    }
}

/// The head of a log of which a key is missing: what no tail has, so that the log is opened anew.
const BROKEN: Option<(Epoch, u64)> = Some((Epoch::NONE, 0));

/// The head of a log, from its seq and meta.
fn head(seq: Option<String>, meta: Option<String>) -> Option<(Epoch, u64)> {
    let (seq, meta) = match (seq, meta) {
        (None, None) => return None,
        (Some(seq), Some(meta)) => (seq, meta),
        _ => return BROKEN,
    };
    let read = || Some((meta.split(' ').next()?.parse().ok()?, seq.parse().ok()?));
    read().or(BROKEN)
}

/// Puts off the expiry of those keys of a topic that have one: a board's numbering does not expire,
/// and must stay so.
const KEEP: &str = "for _, key in ipairs(KEYS) do if redis.call('PTTL', key) >= 0 then \
                    redis.call('PEXPIRE', key, ARGV[1]) end end";

/// When a slot was found empty, and what time it is there.
const EMPTY_SINCE: &str = "return { redis.call('HGET', KEYS[1], 'at'), redis.call('TIME')[1] }";
