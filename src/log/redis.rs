//! The log in Redis, shared by all nodes.
//!
//! Every write is one Lua script: change of state, sequence number, entry and announcement happen
//! together or not at all. [`address`] reads where Redis is, [`server`] what to show there, and
//! [`servers`] knows who takes the writes now. [`commands`] carries [`scripts`] and reads there, over
//! a [`lane`] for each kind of them; [`replies`] understands what comes back, [`boards`] knows which
//! script a change of a board is, [`subscription`] hears announcements, [`registry`] knows the other nodes, [`revocations`] and
//! [`tickets`] are what they share of access, [`keys`] names things. Keys of one topic share a hash
//! tag.

mod address;
mod boards;
mod catalogue;
mod commands;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod keys;
mod lane;
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
#[cfg_attr(not(test), allow(dead_code, reason = "keys are sorted by it from the next step on"))]
mod slots;
mod subscription;
mod tickets;
mod version;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

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
use commands::Commands;
use keys::Keys;
use replies::{accepted, entry, has_written, history, text, unexpected};
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
    /// Lists never change boards, so what was once looked up stays true until Redis loses it.
    board_of_list: Mutex<HashMap<Topic, Topic>>,
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
            board_of_list: Mutex::default(),
        };
        Ok((Arc::new(log), notifications))
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
        let Conditions { idempotency_key, if_match } = conditions;
        let mut call = Call::new(&scripts::APPEND, &self.keys.topic(topic).all())
            .key(idempotency_key.as_ref().map(|key| self.keys.once(topic, key)))
            .arg(self.keys.channel(topic))
            .arg(Epoch::random().as_str())
            .arg(self.retention.history_entries_max)
            .arg(self.ttl_milliseconds())
            .arg(if_match.map(|position| position.to_string()).unwrap_or_default())
            .arg(self.retention.idempotency_window.as_millis() as u64)
            .arg(i32::from(boards::are_of_board(events)));
        for event in events {
            call = call
                .arg(i32::from(matches!(event.data, Data::Json(_))))
                .arg(&sse::event_text(event)[..]);
        }
        accepted(&self.write(call).await?)
    }

    async fn open(&self, topic: &Topic) -> Result<Opened, LogError> {
        let call = Call::new(&scripts::OPEN, &self.keys.topic(topic).all())
            .arg(Epoch::random().as_str())
            .arg(self.ttl_milliseconds());
        let (head, meta, oldest, is_board): (String, String, String, bool) =
            self.commands.call(call).await?;
        // One that a new installation has may be about to come.
        let has_state = is_board
            || (boards::is_first_board(topic) && self.exist(std::slice::from_ref(topic)).await?);
        Ok(Opened { history: history(&head, &meta, &oldest)?, has_state })
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
        if topics.is_empty() {
            return Ok(Heads { of_topics: Vec::new(), unwritten_since: 0 });
        }
        let mut pipe = redis::pipe();
        for batch in topics.chunks(HEADS_BATCH) {
            let keys = batch.iter().flat_map(|topic| [self.keys.seq(topic), self.keys.meta(topic)]);
            pipe.cmd("MGET").arg(keys.collect::<Vec<String>>());
        }
        // Last: a log that was flushed away before it is one whose head is missing above.
        pipe.cmd("HMGET").arg(self.keys.births()).arg("at");
        pipe.cmd("TIME");
        let mut batches: Vec<Vec<Option<String>>> = self.reads.pipe("mget", &pipe).await?;
        let seconds = batches.pop().and_then(|mut time| time.swap_remove(0));
        let births = batches.pop().and_then(|mut births| births.pop()).flatten();
        // What is gone and not flushed has expired, and was not there before.
        let expired_before = seconds
            .and_then(|seconds| seconds.parse().ok())
            .map(|now: u64| (now * 1000).saturating_sub(self.ttl_milliseconds()));
        let since = births.and_then(|at| at.parse().ok()).zip(expired_before);
        let values: Vec<Option<String>> = batches.into_iter().flatten().collect();
        let read = |seq: &str, meta: &str| {
            Some((meta.split(' ').next()?.parse().ok()?, seq.parse().ok()?))
        };
        let head = |pair: &[Option<String>]| match pair {
            [None, None] => None,
            [Some(seq), Some(meta)] => read(seq, meta).or(BROKEN),
            _ => BROKEN,
        };
        let mut of_topics: Vec<_> = values.chunks(2).map(head).collect();
        self.find_logs(topics, &mut of_topics).await?;
        Ok(Heads {
            of_topics,
            unwritten_since: since
                .map_or(u64::MAX, |(at, before): (u64, u64)| at.max(before).min(UNWRITTEN_AT_MAX)),
        })
    }

    async fn keep(&self, topics: &[Topic]) -> Result<(), LogError> {
        let mut pipe = redis::pipe();
        for topic in topics {
            for key in self.keys.topic(topic).of_log() {
                // Only where it expires: a board's numbering does not, and must stay so.
                let ttl = self.ttl_milliseconds();
                pipe.cmd("EVAL").arg(KEEP).arg(1).arg(key).arg(ttl).ignore();
            }
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
        self.servers.health()
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

    /// Notes of those topics that have no head whether they have a log all the same: both other keys
    /// may have been evicted.
    async fn find_logs(
        &self,
        topics: &[Topic],
        heads: &mut [Option<(Epoch, u64)>],
    ) -> Result<(), LogError> {
        let without: Vec<usize> = (0..topics.len()).filter(|&n| heads[n].is_none()).collect();
        let mut pipe = redis::pipe();
        for batch in without.chunks(HEADS_BATCH) {
            pipe.cmd("EXISTS");
            for &n in batch {
                pipe.arg(self.keys.log(&topics[n]));
            }
        }
        if without.is_empty() {
            return Ok(());
        }
        let counts: Vec<u64> = self.reads.pipe("exists", &pipe).await?;
        for (batch, _) in without.chunks(HEADS_BATCH).zip(counts).filter(|(_, count)| *count > 0) {
            let mut pipe = redis::pipe();
            for &n in batch {
                pipe.exists(self.keys.log(&topics[n]));
            }
            let exist: Vec<bool> = self.reads.pipe("exists", &pipe).await?;
            for (&n, _) in batch.iter().zip(exist).filter(|(_, exists)| *exists) {
                heads[n] = BROKEN;
            }
        }
        Ok(())
    }

    /// Reads the entries with a seq in `first ..= last`.
    async fn page(&self, topic: &Topic, first: u64, last: u64) -> Result<Option<Page>, LogError> {
        let call = Call::new(&scripts::READ, &self.keys.topic(topic).for_reading())
            .arg(first)
            .arg(last)
            .arg(READ_ENTRIES_MAX)
            .arg(READ_BYTES_MAX)
            .arg(self.ttl_milliseconds());
        let answer: Vec<Value> = self.reads.call(call).await?;
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

/// Puts off the expiry of a key that has one.
const KEEP: &str =
    "if redis.call('PTTL', KEYS[1]) >= 0 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end";
