//! The log in Redis, shared by all nodes.
//!
//! Every write is one Lua script: change of state, sequence number, entry and announcement happen
//! together or not at all. [`address`] reads where Redis is, [`server`] what to show there, [`commands`] carries [`scripts`] and
//! reads, [`replies`] understands what comes back, [`boards`] knows which script a change of a board
//! is, [`subscription`] hears announcements, [`registry`] knows the other nodes, [`revocations`] and
//! [`tickets`] are what they share of access, [`keys`] names things. Keys of one topic share a hash
//! tag.

mod address;
mod boards;
mod commands;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod keys;
mod meaning;
mod registry;
mod replies;
mod revocations;
mod rights;
#[cfg(test)]
mod scripted_server;
mod scripts;
mod server;
#[cfg_attr(not(test), allow(dead_code, reason = "keys are sorted by it from the next step on"))]
mod slots;
mod subscription;
mod tickets;
mod version;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use redis::Value;
use tokio::time::Instant;

use super::{
    Appended, Conditions, Heads, Health, Log, LogError, Notifications, Notifier, Opened, Page,
    Probe, READ_BYTES_MAX, READ_ENTRIES_MAX, Retention, Snapshots,
};
use crate::background;
use crate::config::RedisFiles;
use crate::entry::{Data, Event};
use crate::position::{Epoch, LogHistory, UNWRITTEN_AT_MAX};
use crate::topic::Topic;
use crate::wire::sse;
pub use address::{check_url, has_password};
use commands::{Commands, ConnectionGeneration};
use keys::Keys;
use replies::{accepted, entry, has_written, history, text, unexpected};
use scripts::Call;
use server::Server;
pub use server::check_files;
use subscription::Subscription;

/// Connections for commands, for reads whose answers are large, and for writes that wait for
/// replicas. Commands that come together on one connection travel together: 64 clients published
/// 31,600 events a second over two, 26,000 over four, and 28,500 over one.
const WRITE_CONNECTIONS: usize = 2;
const READ_CONNECTIONS: usize = 2;
const WAIT_CONNECTIONS: usize = 16;

/// How long a write waits for replicas; less than an answer may take.
const REPLICAS_TIMEOUT: Duration = Duration::from_millis(1_000);

/// How long a canary may take from publish to subscription.
const CANARY_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How often the subscription is connected anew while Redis stays read-only.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(3);

/// Topics whose heads are asked for in one command.
const HEADS_BATCH: usize = 500;

/// A log in Redis.
pub struct RedisLog {
    commands: Commands,
    /// For replays, whole boards and audits: megabytes of replies shall hold up no write.
    reads: Commands,
    /// For writes that wait for replicas: they hold up what comes after them on their connection,
    /// and nothing else shall be there.
    replicated: Option<Replicated>,
    subscription: Arc<Subscription>,
    keys: Keys,
    retention: Retention,
    /// Lists never change boards, so what was once looked up stays true until Redis loses it.
    board_of_list: Mutex<HashMap<Topic, Topic>>,
    canaries: AtomicU64,
    clock: Mutex<Option<(Instant, u64)>>,
    /// When the subscription was last connected anew because Redis was found to be read-only.
    reconnected_at: Mutex<Option<Instant>>,
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
        let server = Arc::new(Server::new(url, files)?);
        tracing::info!(redis = server.place(), prefix, "log in Redis");
        let (notifier, notifications) = Notifier::new();
        let keys = Keys::new(prefix);
        let generation = ConnectionGeneration::new();
        let waits = wait_replicas > 0;
        let subscription = Subscription::new(
            server.clone(),
            keys.clone(),
            node,
            notifier,
            generation.clone(),
            waits,
        );
        let subscription = Arc::new(subscription);
        let heard = subscription.clone();
        let begin = move || heard.clone().run();
        tokio::spawn(background::restarting("the subscription", begin));
        let commands = |connections, slow_replies_expected| {
            let (server, generation) = (server.clone(), generation.clone());
            Commands::new(server, connections, generation, slow_replies_expected)
        };
        let replicated = match wait_replicas {
            0 => None,
            replicas => Some(Replicated { commands: commands(WAIT_CONNECTIONS, true), replicas }),
        };
        let log = RedisLog {
            commands: commands(WRITE_CONNECTIONS, false),
            reads: commands(READ_CONNECTIONS, false),
            replicated,
            subscription,
            keys,
            retention,
            board_of_list: Mutex::default(),
            canaries: AtomicU64::new(0),
            clock: Mutex::new(None),
            reconnected_at: Mutex::new(None),
        };
        Ok((Arc::new(log), notifications))
    }

    /// Whether a demoted master was last turned away from long enough ago to do so again.
    fn may_reconnect(&self) -> bool {
        let mut reconnected_at = self.reconnected_at.lock().unwrap_or_else(PoisonError::into_inner);
        let may = reconnected_at.is_none_or(|at| at.elapsed() >= RECONNECT_INTERVAL);
        if may {
            *reconnected_at = Some(Instant::now());
        }
        may
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
        self.subscription.subscribe(topics).await
    }

    async fn unsubscribe(&self, topics: &[Topic]) {
        self.subscription.unsubscribe(topics).await;
    }
}

#[async_trait]
impl Probe for RedisLog {
    async fn canary(&self) -> Result<(), LogError> {
        let number = self.canaries.fetch_add(1, Ordering::Relaxed) + 1;
        let subscribed = self.subscription.subscribed_connection();
        let asked_at = Instant::now();
        let mut pipe = redis::pipe();
        pipe.cmd("TIME");
        // Whether Redis takes writes shows only when one is tried: a master that was demoted
        // publishes as if nothing had happened.
        pipe.set_ex(self.subscription.canary_channel(), number, 60).ignore();
        pipe.publish(self.subscription.canary_channel(), number);
        let sent = self.commands.pipe("canary", &pipe).await;
        if self.commands.was_demoted()
            && let Some(subscribed) = subscribed
            && self.may_reconnect()
        {
            // The name of the primary may lead elsewhere by now.
            self.subscription.reconnect(subscribed);
        }
        let ((seconds, microseconds), hearers): ((u64, u64), i64) = sent?;
        // Redis read its clock somewhere between asking and now: take the middle.
        let read_at = asked_at + asked_at.elapsed() / 2;
        let milliseconds = seconds * 1000 + microseconds / 1000;
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some((read_at, milliseconds));
        let Some(subscribed) = subscribed else {
            return Err(LogError::Unavailable("not hearing announcements yet".to_owned()));
        };
        // With nobody subscribed where the commands go, there is nothing to wait for.
        let heard = self.subscription.canary_heard(number);
        if hearers == 0 || tokio::time::timeout(CANARY_TIMEOUT, heard).await.is_err() {
            self.subscription.reconnect(subscribed);
            let why = "a canary was published, and this node's own subscription did not hear it";
            return Err(LogError::Unavailable(why.to_owned()));
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        "redis"
    }

    fn health(&self) -> Health {
        self.subscription.health()
    }

    fn now_milliseconds(&self) -> Option<u64> {
        let clock = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.map(|(read_at, milliseconds)| milliseconds + read_at.elapsed().as_millis() as u64)
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
