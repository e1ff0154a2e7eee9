//! [`Subscription`]: the node's one connection for announcements of one server.
//!
//! It carries the channels of all topics with local connections, and the canary's. When it breaks
//! it is made again, everything wanted is subscribed again, and the relay is told that it may have
//! missed something. What arrives goes into the relay's bounded inbox. What is wanted is the
//! [`Listening`]'s, and outlives the server.

mod listening;
#[cfg(test)]
mod tests;
mod wanted;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, PushInfo, PushKind, RedisError, Value};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::lane::{CONNECT_TIMEOUT, ConnectionGeneration};
use super::meaning::{is_denied, is_refusal, meaning, told};
use super::rights;
use super::server::Server;
use super::version;
use crate::backoff::{Backoff, Rarely};
use crate::frame::Frame;
use crate::log::{Health, LogError};
use crate::telemetry::metric;
use crate::topic::Topic;
use crate::wire::sse;
pub(super) use listening::Listening;

/// How often the connection is asked whether it still lives, and how long the reply may take: a
/// connection through which nothing passes any more is replaced after the sum of the two.
const PING_INTERVAL: Duration = Duration::from_millis(500);
const REPLY_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The first and the longest wait between attempts to connect. Short: held streams wait for it.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_millis(1_000);

/// The longest wait where a Redis is there and does not want us: it will not change its mind soon.
const REFUSED_RETRY_LONGEST: Duration = Duration::from_secs(5);

/// A connection that held for so long was sound.
const SOUND_AFTER: Duration = Duration::from_secs(2);

/// Channels subscribed in one command.
const SUBSCRIBE_CHANNELS_MAX: usize = 500;

/// The node's connection for announcements of one server.
pub(super) struct Subscription {
    server: Arc<Server>,
    listening: Arc<Listening>,
    state: Mutex<State>,
    health: Mutex<Health>,
    /// The number of the last connection that hears nothing although it seems to live.
    stale: watch::Sender<u64>,
    /// That of the connections that carry commands. Where a connection turned out to be dead
    /// although nobody had closed it, those may be dead as well.
    generation: Arc<ConnectionGeneration>,
}

/// Why a connection must be replaced.
enum Disconnect {
    /// It was closed.
    Broken,
    /// It says nothing, or not what it should.
    Silent(String),
}

#[derive(Default)]
struct State {
    current: Option<MultiplexedConnection>,
    /// Counts connections; the current one's number.
    number: u64,
    /// The current connection has subscribed all that was wanted when it was made.
    is_subscribed: bool,
}

impl Subscription {
    pub(super) fn new(
        server: Arc<Server>,
        listening: Arc<Listening>,
        generation: Arc<ConnectionGeneration>,
    ) -> Self {
        Subscription {
            server,
            listening,
            state: Mutex::default(),
            health: Mutex::new(Health::Down("not connected yet".to_owned())),
            stale: watch::Sender::new(0),
            generation,
        }
    }

    /// Keeps the connection alive for ever; returns only if this Redis can never do.
    pub(super) async fn run(self: Arc<Subscription>) {
        // One that ran before may have broken.
        self.forget();
        let mut unreachable = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        let mut refused = Backoff::new(RETRY_FIRST, REFUSED_RETRY_LONGEST);
        let mut line = Rarely::default();
        let mut is_told = true;
        let mut told_refusal = "";
        loop {
            let connected = self.connect().await;
            let (why, meaning, wait, is_refused) = match connected {
                Ok((connection, broken)) => {
                    if std::mem::take(&mut is_told) {
                        tracing::info!(redis = self.server.place(), "hearing announcements");
                    }
                    if self.listening.was_up.swap(true, Ordering::Relaxed) {
                        metric::redis_reconnected();
                    }
                    self.set_health(Health::Up);
                    metric::redis_up(true);
                    unreachable.reset();
                    let up_since = Instant::now();
                    let why = match self.watch(connection, &broken).await {
                        Disconnect::Broken => "the connection broke".to_owned(),
                        Disconnect::Silent(why) => {
                            self.generation.invalidate_all();
                            why
                        }
                    };
                    if up_since.elapsed() >= SOUND_AFTER {
                        refused.reset();
                    }
                    (why, "the connection to Redis is gone", refused.wait(), false)
                }
                Err(error) => {
                    let meaning = meaning(&error);
                    // A reason not to start. Rights that are taken away later may come back.
                    if is_denied(&error) && !self.listening.was_up.load(Ordering::Relaxed) {
                        let why = format!("{meaning} ({}): {}", self.server.place(), told(&error));
                        self.set_health(Health::Unusable(why));
                    }
                    let is_refused = is_refusal(&error);
                    let wait = if is_refused { &mut refused } else { &mut unreachable };
                    (told(&error), meaning, wait.wait(), is_refused)
                }
            };
            self.forget();
            metric::redis_up(false);
            if matches!(self.health(), Health::Unusable(_)) {
                return;
            }
            // Who mends what is wrong wants to know what else is.
            let is_news = is_refused && meaning != told_refusal;
            if line.is_due() || is_news {
                is_told = true;
                told_refusal = if is_refused { meaning } else { told_refusal };
                tracing::warn!(
                    redis = self.server.place(),
                    %why,
                    "not hearing announcements: {meaning}; until that changes, streams are silent \
                     and changes are answered 503"
                );
            }
            self.set_health(Health::Down(format!("{meaning} ({}): {why}", self.server.place())));
            tokio::time::sleep(wait).await;
        }
    }

    /// Lets go of the connection.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        state.current = None;
        state.is_subscribed = false;
    }

    pub(super) fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_health(&self, health: Health) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }

    /// Connects and subscribes everything that is wanted. The second value is notified when the
    /// connection breaks.
    async fn connect(
        self: &Arc<Subscription>,
    ) -> Result<(MultiplexedConnection, Arc<Notify>), RedisError> {
        let broken = Arc::new(Notify::new());
        let on_push = {
            let (subscription, broken) = (self.clone(), broken.clone());
            move |push: PushInfo| {
                match push.kind {
                    PushKind::Message => subscription.on_message(push.data),
                    PushKind::Disconnection => broken.notify_one(),
                    _ => {}
                }
                Ok::<(), ()>(())
            }
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(REPLY_TIMEOUT))
            .set_push_sender(on_push);
        let client = Client::open(self.server.info()?)?;
        let connected = client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = match connected {
            Err(error) if error.kind() == ErrorKind::RESP3NotSupported => {
                self.set_health(Health::Unusable(version::TOO_OLD.to_owned()));
                return Err(error);
            }
            connected => connected?,
        };
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
        if let Err(why) = version::check(&info) {
            self.set_health(Health::Unusable(why));
            return Err(RedisError::from((ErrorKind::Client, "too old")));
        }
        // What is wanted from here on subscribes itself on this connection; what was wanted
        // before is in `wanted`. Nothing falls between.
        {
            let mut state = self.state();
            state.current = Some(connection.clone());
            state.number += 1;
        }
        connection.subscribe(&self.listening.canary_channel).await?;
        if !self.listening.was_up.load(Ordering::Relaxed) {
            // What shows only half-way through a script cannot be answered well.
            let Listening { keys, canary_channel, waits_for_replicas, .. } = &*self.listening;
            rights::check(&mut connection, keys, canary_channel, *waits_for_replicas).await?;
        }
        self.subscribe_wanted(&mut connection).await?;
        // Everything announced before this moment may have been missed.
        self.listening.notifier.maybe_lost();
        self.state().is_subscribed = true;
        Ok((connection, broken))
    }

    /// Returns why the connection must be replaced, when it must. Whoever is first to know decides:
    /// an answer that is waited for keeps nobody else from speaking.
    async fn watch(&self, connection: MultiplexedConnection, broken: &Notify) -> Disconnect {
        let number = self.state().number;
        let mut stale = self.stale.subscribe();
        tokio::select! {
            () = broken.notified() => Disconnect::Broken,
            () = wait_for(&mut stale, number) => Disconnect::Silent("the canary was not heard".to_owned()),
            error = ping_until_error(connection) => Disconnect::Silent(told(&error)),
        }
    }

    pub(super) async fn subscribe(&self, topics: &[Topic]) -> Result<(), LogError> {
        self.listening.want(topics);
        let current = self.state().current.clone();
        let Some(mut connection) = current else {
            return Err(LogError::Unavailable("not hearing announcements".to_owned()));
        };
        tokio::select! {
            // One that is frozen would let us wait.
            () = self.generation.left() => {
                Err(LogError::Unavailable("another Redis has just taken over".to_owned()))
            }
            subscribed = self.subscribe_on(&mut connection, topics) => subscribed
                .map_err(|error| LogError::Unavailable(format!("cannot subscribe: {}", told(&error)))),
        }
    }

    /// Subscribes everything that is wanted, part by part: there may be a great many topics.
    async fn subscribe_wanted(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        let mut topics = Vec::new();
        for part in 0.. {
            let Some(wanted) = self.listening.wanted().part(part) else { break };
            topics.extend(wanted);
            if topics.len() >= SUBSCRIBE_CHANNELS_MAX {
                self.subscribe_copied(connection, &topics).await?;
                topics.clear();
            }
        }
        self.subscribe_copied(connection, &topics).await
    }

    /// Subscribes what was wanted when it was copied, and leaves what is not wanted any more: it was
    /// unsubscribed perhaps before this subscribed it, and nobody would come back to it.
    async fn subscribe_copied(
        &self,
        connection: &mut MultiplexedConnection,
        topics: &[Topic],
    ) -> Result<(), RedisError> {
        self.subscribe_on(connection, topics).await?;
        let mut left = self.not_wanted(topics);
        while !left.is_empty() {
            self.unsubscribe_on(connection, &left).await?;
            // Somebody may have wanted and subscribed it before that. Whoever wants it from now on
            // subscribes it after that.
            let unwanted = self.not_wanted(&left);
            left.retain(|topic| !unwanted.contains(topic));
            self.subscribe_on(connection, &left).await?;
            left = self.not_wanted(&left);
        }
        Ok(())
    }

    fn not_wanted(&self, topics: &[Topic]) -> Vec<Topic> {
        let wanted = self.listening.wanted();
        topics.iter().filter(|topic| !wanted.contains(topic)).cloned().collect()
    }

    async fn subscribe_on(
        &self,
        connection: &mut MultiplexedConnection,
        topics: &[Topic],
    ) -> Result<(), RedisError> {
        for batch in topics.chunks(SUBSCRIBE_CHANNELS_MAX) {
            let channels: Vec<String> =
                batch.iter().map(|topic| self.listening.keys.channel(topic)).collect();
            connection.subscribe(channels).await?;
        }
        Ok(())
    }

    pub(super) async fn unsubscribe(&self, topics: &[Topic]) {
        self.listening.leave(topics);
        let current = self.state().current.clone();
        let Some(mut connection) = current else { return };
        // If it fails the connection is broken, and the next one subscribes what is wanted.
        let _ = self.unsubscribe_on(&mut connection, topics).await;
    }

    async fn unsubscribe_on(
        &self,
        connection: &mut MultiplexedConnection,
        topics: &[Topic],
    ) -> Result<(), RedisError> {
        for batch in topics.chunks(SUBSCRIBE_CHANNELS_MAX) {
            let channels: Vec<String> =
                batch.iter().map(|topic| self.listening.keys.channel(topic)).collect();
            connection.unsubscribe(channels).await?;
        }
        Ok(())
    }

    /// The number of the connection that hears everything that is wanted, if there is one.
    pub(super) fn subscribed_connection(&self) -> Option<u64> {
        let state = self.state();
        state.is_subscribed.then_some(state.number)
    }

    /// A canary was published while this connection should have heard it, and it did not:
    /// whatever it says of itself, it is stale and must be replaced.
    pub(super) fn reconnect(&self, number: u64) {
        self.stale.send_replace(number);
    }

    /// Takes one message: channel and payload.
    pub(super) fn on_message(&self, data: Vec<Value>) {
        // What a server says that was left is not heard.
        if self.generation.is_left() {
            return;
        }
        let Listening { keys, canary_channel, canary, notifier, .. } = &*self.listening;
        let mut data = data.into_iter();
        let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) =
            (data.next(), data.next())
        else {
            return;
        };
        let Ok(channel) = String::from_utf8(channel) else { return };
        if channel == *canary_channel {
            let number = std::str::from_utf8(&payload).ok().and_then(|text| text.parse().ok());
            if let Some(number) = number {
                canary.send_replace(number);
            }
        } else if let Some(topic) = keys.topic_of_channel(&channel) {
            match frame(&payload) {
                None if payload == DELETED => notifier.look(topic),
                Some(frame) => notifier.notify(topic, frame),
                // Somebody else publishes on our channels; the log decides, as always.
                None => notifier.dropped(),
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the connection whether it lives until it does not answer. An answer that is an error is one:
/// Redis refuses PING while it cannot save to disk, and goes on announcing what it takes.
async fn ping_until_error(mut connection: MultiplexedConnection) -> RedisError {
    let mut every = tokio::time::interval(PING_INTERVAL);
    loop {
        every.tick().await;
        let pong: Result<Value, _> = redis::cmd("PING").query_async(&mut connection).await;
        if let Err(error) = pong
            && error.code().is_none()
        {
            return error;
        }
    }
}

/// Waits until the watched number is this one; for ever if nobody can change it any more.
async fn wait_for(numbers: &mut watch::Receiver<u64>, number: u64) {
    let came = numbers.wait_for(|&current| current == number).await.is_ok();
    if !came {
        std::future::pending().await
    }
}

/// What is announced of a deletion, which is no entry.
const DELETED: &[u8] = b"deleted";

/// Reads `<milliseconds>\n<frame>`.
fn frame(payload: &[u8]) -> Option<Frame> {
    let line_end = payload.iter().take(20).position(|&b| b == b'\n')?;
    let milliseconds = std::str::from_utf8(&payload[..line_end]).ok()?.parse().ok()?;
    sse::frame_of_announced(milliseconds, &payload[line_end + 1..])
}
