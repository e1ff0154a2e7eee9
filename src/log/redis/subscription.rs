//! [`Subscription`]: the node's one connection for announcements.
//!
//! It carries the channels of all topics with local connections, and the canary's. When it breaks
//! it is made again, everything wanted is subscribed again, and the relay is told that it may have
//! missed something. What arrives goes into the relay's bounded inbox.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, PushInfo, PushKind, RedisError, Value};
use tokio::sync::{Notify, watch};

use super::commands::{CONNECT_TIMEOUT, ConnectionGeneration};
use super::keys::Keys;
use super::version;
use crate::frame::Frame;
use crate::log::{Health, LogError, Notifier};
use crate::telemetry::metric;
use crate::topic::Topic;
use crate::wire::sse;

/// How often the connection is asked whether it still lives, and how long the reply may take: a
/// connection through which nothing passes any more is replaced after the sum of the two.
const PING_INTERVAL: Duration = Duration::from_millis(500);
const REPLY_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The first and the longest wait between attempts to connect. Short: held streams wait for it.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(50);
const RETRY_DELAY_MAX: Duration = Duration::from_millis(250);

/// Channels subscribed in one command.
const SUBSCRIBE_CHANNELS_MAX: usize = 500;

/// The node's connection for announcements.
pub(super) struct Subscription {
    client: Client,
    keys: Keys,
    canary_channel: String,
    notifier: Notifier,
    state: Mutex<State>,
    health: Mutex<Health>,
    /// The number of the last canary heard.
    canary: watch::Sender<u64>,
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

struct State {
    wanted: HashSet<Topic>,
    current: Option<MultiplexedConnection>,
    /// Counts connections; the current one's number.
    number: u64,
    /// The current connection has subscribed all that was wanted when it was made.
    is_subscribed: bool,
}

impl Subscription {
    pub(super) fn new(
        client: Client,
        keys: Keys,
        node: &str,
        notifier: Notifier,
        generation: Arc<ConnectionGeneration>,
    ) -> Self {
        Subscription {
            client,
            canary_channel: keys.canary_channel(node),
            keys,
            notifier,
            state: Mutex::new(State {
                wanted: HashSet::new(),
                current: None,
                number: 0,
                is_subscribed: false,
            }),
            health: Mutex::new(Health::Down("not connected yet".to_owned())),
            canary: watch::Sender::new(0),
            stale: watch::Sender::new(0),
            generation,
        }
    }

    /// Keeps the connection alive for ever; returns only if this Redis can never do.
    pub(super) async fn run(self: Arc<Subscription>) {
        let mut wait = RETRY_DELAY_MIN;
        let mut noted = false;
        loop {
            let why = match self.connect().await {
                Ok((connection, broken)) => {
                    tracing::info!("hearing announcements");
                    if std::mem::replace(&mut noted, true) {
                        metric::redis_reconnected();
                    }
                    self.set_health(Health::Up);
                    metric::redis_up(true);
                    wait = RETRY_DELAY_MIN;
                    match self.watch(connection, &broken).await {
                        Disconnect::Broken => "the connection broke".to_owned(),
                        Disconnect::Silent(why) => {
                            self.generation.invalidate_all();
                            why
                        }
                    }
                }
                Err(error) => error.to_string(),
            };
            self.forget();
            metric::redis_up(false);
            if matches!(self.health(), Health::Unusable(_)) {
                return;
            }
            if self.health() == Health::Up || !noted {
                tracing::warn!(%why, "not hearing announcements");
                noted = true;
            }
            self.set_health(Health::Down(why));
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_DELAY_MAX);
        }
    }

    fn forget(&self) {
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
        let connected = self.client.get_multiplexed_async_connection_with_config(&config).await;
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
        let wanted: Vec<Topic> = {
            let mut state = self.state();
            state.current = Some(connection.clone());
            state.number += 1;
            state.wanted.iter().cloned().collect()
        };
        connection.subscribe(&self.canary_channel).await?;
        self.subscribe_on(&mut connection, &wanted).await?;
        // Everything announced before this moment may have been missed.
        self.notifier.maybe_lost();
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
            error = ping_until_error(connection) => Disconnect::Silent(error.to_string()),
        }
    }

    pub(super) async fn subscribe(&self, topics: &[Topic]) -> Result<(), LogError> {
        let current = {
            let mut state = self.state();
            state.wanted.extend(topics.iter().cloned());
            state.current.clone()
        };
        let Some(mut connection) = current else {
            return Err(LogError::Unavailable("not hearing announcements".to_owned()));
        };
        self.subscribe_on(&mut connection, topics)
            .await
            .map_err(|error| LogError::Unavailable(format!("cannot subscribe: {error}")))
    }

    async fn subscribe_on(
        &self,
        connection: &mut MultiplexedConnection,
        topics: &[Topic],
    ) -> Result<(), RedisError> {
        for batch in topics.chunks(SUBSCRIBE_CHANNELS_MAX) {
            let channels: Vec<String> =
                batch.iter().map(|topic| self.keys.channel(topic)).collect();
            connection.subscribe(channels).await?;
        }
        Ok(())
    }

    pub(super) async fn unsubscribe(&self, topics: &[Topic]) {
        let current = {
            let mut state = self.state();
            for topic in topics {
                state.wanted.remove(topic);
            }
            state.current.clone()
        };
        let Some(mut connection) = current else { return };
        for batch in topics.chunks(SUBSCRIBE_CHANNELS_MAX) {
            let channels: Vec<String> =
                batch.iter().map(|topic| self.keys.channel(topic)).collect();
            // If it fails the connection is broken, and the next one subscribes what is wanted.
            let _ = connection.unsubscribe(channels).await;
        }
    }

    /// The channel on which canaries are heard.
    pub(super) fn canary_channel(&self) -> &str {
        &self.canary_channel
    }

    /// Waits until the canary with this number, or a later one, was heard.
    pub(super) async fn canary_heard(&self, number: u64) {
        let _ = self.canary.subscribe().wait_for(|&heard| heard >= number).await;
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
    fn on_message(&self, data: Vec<Value>) {
        let mut data = data.into_iter();
        let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) =
            (data.next(), data.next())
        else {
            return;
        };
        let Ok(channel) = String::from_utf8(channel) else { return };
        if channel == self.canary_channel {
            let number = std::str::from_utf8(&payload).ok().and_then(|text| text.parse().ok());
            if let Some(number) = number {
                self.canary.send_replace(number);
            }
        } else if let Some(topic) = self.keys.topic_of_channel(&channel) {
            match frame(&payload) {
                Some(frame) => self.notifier.notify(topic, frame),
                // Somebody else publishes on our channels; the log decides, as always.
                None => self.notifier.maybe_lost(),
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the connection whether it lives until it does not say so.
async fn ping_until_error(mut connection: MultiplexedConnection) -> RedisError {
    let mut every = tokio::time::interval(PING_INTERVAL);
    loop {
        every.tick().await;
        let pong: Result<Value, _> = redis::cmd("PING").query_async(&mut connection).await;
        if let Err(error) = pong {
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

/// Reads `<milliseconds>\n<frame>`.
fn frame(payload: &[u8]) -> Option<Frame> {
    let line_end = payload.iter().take(20).position(|&b| b == b'\n')?;
    let milliseconds = std::str::from_utf8(&payload[..line_end]).ok()?.parse().ok()?;
    sse::frame_of_announced(milliseconds, &payload[line_end + 1..])
}
