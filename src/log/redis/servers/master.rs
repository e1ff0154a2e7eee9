//! [`Master`]: one Redis that takes writes, and everything that a node has open there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::background;
use crate::log::redis::lane::{ConnectionGeneration, Lane};
use crate::log::redis::server::Server;
use crate::log::redis::subscription::{Listening, Subscription};
use crate::log::{Health, LogError};
use crate::telemetry::metric;

/// Connections for commands, for reads whose answers are large, and for writes that wait for
/// replicas. Commands that come together on one connection travel together: 64 clients published
/// 31,600 events a second over two, 26,000 over four, and 28,500 over one.
const WRITE_CONNECTIONS: usize = 2;
const READ_CONNECTIONS: usize = 2;
const WAIT_CONNECTIONS: usize = 16;

/// How long a canary may take from publish to subscription.
const CANARY_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How often the subscription is connected anew while Redis stays read-only.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(3);

/// What is asked of a server, and how long its answer may hold up what follows it.
#[derive(Debug, Clone, Copy)]
pub(in crate::log::redis) enum Kind {
    /// What is short.
    Commands,
    /// Replays, whole boards and audits: megabytes of replies shall hold up no write.
    Reads,
    /// Writes that wait for replicas: they hold up what comes after them on their connection, and
    /// nothing else shall be there.
    WaitingWrites,
}

/// The clock of whoever takes the writes, as far as it was read.
#[derive(Default)]
pub(super) struct Clock(Mutex<Option<(Instant, u64)>>);

impl Clock {
    /// It was read somewhere between `asked_at` and now: take the middle.
    fn set(&self, asked_at: Instant, milliseconds: u64) {
        let read_at = asked_at + asked_at.elapsed() / 2;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((read_at, milliseconds));
    }

    /// What it says now, in milliseconds since 1970; `None` before it was read.
    pub(super) fn now_milliseconds(&self) -> Option<u64> {
        let read = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        read.map(|(read_at, milliseconds)| milliseconds + read_at.elapsed().as_millis() as u64)
    }
}

/// One Redis that takes writes.
pub(in crate::log::redis) struct Master {
    commands: Lane,
    reads: Lane,
    waiting_writes: Lane,
    subscription: Arc<Subscription>,
    listening: Arc<Listening>,
    generation: Arc<ConnectionGeneration>,
    /// Keeps the subscription alive.
    hearing: AbortHandle,
    clock: Arc<Clock>,
    /// When the subscription was last connected anew because Redis was found to be read-only.
    reconnected_at: Mutex<Option<Instant>>,
}

impl Master {
    /// Starts to listen there, whether or not it can be reached already.
    pub(super) fn start(server: Server, listening: Arc<Listening>, clock: Arc<Clock>) -> Master {
        let server = Arc::new(server);
        let generation = ConnectionGeneration::new();
        let subscription = Subscription::new(server.clone(), listening.clone(), generation.clone());
        let subscription = Arc::new(subscription);
        let heard = subscription.clone();
        let begin = move || heard.clone().run();
        let hearing = tokio::spawn(background::restarting("the subscription", begin));
        let lane = |connections, slow_replies_expected| {
            let (server, generation) = (server.clone(), generation.clone());
            Lane::new(server, connections, generation, slow_replies_expected)
        };
        Master {
            commands: lane(WRITE_CONNECTIONS, false),
            reads: lane(READ_CONNECTIONS, false),
            waiting_writes: lane(WAIT_CONNECTIONS, true),
            subscription,
            listening,
            generation,
            hearing: hearing.abort_handle(),
            clock,
            reconnected_at: Mutex::default(),
        }
    }

    /// Nothing is sent there any more, and nothing that comes from there is heard: neither an answer
    /// nor an announcement.
    pub(super) fn leave(&self) {
        if self.generation.is_left() {
            return;
        }
        self.generation.leave();
        self.hearing.abort();
        self.subscription.forget();
        metric::redis_up(false);
    }

    /// Where commands of a kind go.
    pub(in crate::log::redis) fn lane(&self, kind: Kind) -> &Lane {
        match kind {
            Kind::Commands => &self.commands,
            Kind::Reads => &self.reads,
            Kind::WaitingWrites => &self.waiting_writes,
        }
    }

    pub(super) fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    pub(super) fn health(&self) -> Health {
        self.subscription.health()
    }

    /// Waits until something goes wrong with a connection to it.
    pub(super) async fn troubled(&self) {
        self.generation.troubled().await;
    }

    /// Sends the canary of this number, and waits until it is heard.
    pub(super) async fn canary(&self, number: u64) -> Result<(), LogError> {
        let subscribed = self.subscription.subscribed_connection();
        let channel = self.listening.canary_channel();
        let asked_at = Instant::now();
        let mut pipe = redis::pipe();
        pipe.cmd("TIME");
        // Whether Redis takes writes shows only when one is tried: a master that was demoted
        // publishes as if nothing had happened.
        pipe.set_ex(channel, number, 60).ignore();
        pipe.publish(channel, number);
        let sent = self.commands.pipe("canary", &pipe).await;
        if self.commands.was_demoted()
            && let Some(subscribed) = subscribed
            && self.may_reconnect()
        {
            // The name of the primary may lead elsewhere by now.
            self.subscription.reconnect(subscribed);
        }
        let ((seconds, microseconds), hearers): ((u64, u64), i64) = sent?;
        self.clock.set(asked_at, seconds * 1000 + microseconds / 1000);
        let Some(subscribed) = subscribed else {
            return Err(LogError::Unavailable("not hearing announcements yet".to_owned()));
        };
        // With nobody subscribed where the commands go, there is nothing to wait for.
        let heard = self.listening.canary_heard(number);
        if hearers == 0 || tokio::time::timeout(CANARY_TIMEOUT, heard).await.is_err() {
            self.subscription.reconnect(subscribed);
            let why = "a canary was published, and this node's own subscription did not hear it";
            return Err(LogError::Unavailable(why.to_owned()));
        }
        Ok(())
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
}

impl Drop for Master {
    fn drop(&mut self) {
        self.leave();
    }
}
