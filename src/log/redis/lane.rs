//! [`Lane`]: carries commands of one kind to one server, over a deadpool-redis pool.
//!
//! A few connections carry everything, each many commands at a time: a [`Connection`] takes one from
//! the pool and keeps it while it works. So a command is one round trip (the pool alone would check
//! a connection with a round trip of its own before each), and a connection that broke is replaced
//! once, not once per caller: its [`ConnectionGeneration`] is over then. What a connection shows to be
//! let in is asked for when it is made, and where that is new a new pool makes it. A server that is
//! [left](ConnectionGeneration::leave) is sent nothing more, and no answer of it counts any more.

mod failure;
mod generation;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_redis::{Connection as PooledConnection, Manager, Pool, PoolError, Runtime};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ErrorKind, FromRedisValue, PushInfo, PushKind, RedisError,
    ServerErrorKind,
};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::meaning::{one_line, told};
use super::replies::has_written;
use super::scripts::Call;
use super::server::{Server, Shown, unusable};
use crate::backoff::Backoff;
use crate::log::LogError;
use crate::telemetry::metric;
use failure::Failure;
pub(super) use generation::ConnectionGeneration;
use generation::GivenUp;

/// How long to wait for a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);

/// How long to wait for a reply. Then the outcome is unknown.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_millis(2_000);

/// The first and the longest time for which a failed attempt to connect stands for those that would
/// follow it, from its beginning. Short: whoever asks when Redis is back is turned away meanwhile.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_millis(500);

/// Carries commands over its connections, one after the other.
pub(super) struct Lane {
    server: Arc<Server>,
    config: AsyncConnectionConfig,
    /// The pool that connections come from now. One shows for ever what it was made with.
    pool: std::sync::Mutex<Option<ServerPool>>,
    connections: Vec<Connection>,
    next: AtomicUsize,
    generation: Arc<ConnectionGeneration>,
    /// Redis said READONLY since somebody last asked.
    demoted: AtomicBool,
    /// Late replies are no sign of a dead connection.
    slow_replies_expected: bool,
    /// The last attempt to connect, if it failed: shared by all who ask until the next one is due.
    failed: std::sync::Mutex<Failed>,
}

/// A pool, and what its connections show.
struct ServerPool {
    pool: Pool,
    shown: Shown,
}

/// What came of attempts to connect. A Redis that is there and wants nobody would be asked hundreds
/// of times a second otherwise, once for each request.
struct Failed {
    backoff: Backoff,
    last: Option<FailedAttempt>,
}

struct FailedAttempt {
    began_at: Instant,
    /// Until then nobody tries again.
    over_at: Instant,
    why: LogError,
}

/// One connection, made when it is needed.
#[derive(Default)]
struct Connection {
    state: Mutex<ConnectionState>,
}

#[derive(Default)]
struct ConnectionState {
    held: Option<Held>,
}

struct Held {
    connection: PooledConnection,
    /// The generation that it was made in.
    made_in: usize,
    began_at: Instant,
    /// A command was answered on it.
    is_sound: Arc<AtomicBool>,
}

/// A connection as a command has it.
struct Lent {
    connection: MultiplexedConnection,
    generation: usize,
    began_at: Instant,
    is_sound: Arc<AtomicBool>,
}

impl Lane {
    /// Over so many connections. Nothing is connected before the first command.
    /// `slow_replies_expected` says that commands wait for one another, or for replicas: a late reply
    /// is no sign of a dead connection then.
    pub(super) fn new(
        server: Arc<Server>,
        connections: usize,
        generation: Arc<ConnectionGeneration>,
        slow_replies_expected: bool,
    ) -> Lane {
        let on_push = {
            let generation = generation.clone();
            move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    generation.invalidate_all();
                }
                Ok::<(), ()>(())
            }
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(REPLY_TIMEOUT))
            .set_push_sender(on_push);
        let connections = std::iter::repeat_with(Connection::default).take(connections).collect();
        Lane {
            server,
            config,
            pool: std::sync::Mutex::default(),
            connections,
            next: AtomicUsize::new(0),
            generation,
            demoted: AtomicBool::new(false),
            slow_replies_expected,
            failed: std::sync::Mutex::new(Failed {
                backoff: Backoff::new(RETRY_FIRST, RETRY_LONGEST),
                last: None,
            }),
        }
    }

    /// The pool whose connections show what is to be shown now.
    ///
    /// # Errors
    /// A file with some of that cannot be used.
    fn pool(&self) -> Result<Pool, RedisError> {
        let shown = self.server.shown().map_err(unusable)?;
        let mut last = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = &*last
            && last.shown == shown
        {
            return Ok(last.pool.clone());
        }
        let info = self.server.info_with(&shown)?;
        let manager = Manager::new_with_config(info, self.config.clone())?;
        let pool = Pool::builder(manager)
            .max_size(self.connections.len())
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(last.insert(ServerPool { pool, shown }).pool.clone())
    }

    /// Runs a script.
    pub(super) async fn call<T: FromRedisValue>(&self, call: Call<'_>) -> Result<T, LogError> {
        let name = call.name();
        self.send(name, async move |connection| Ok(call.invoke(connection).await?)).await
    }

    /// Runs a script that writes and, if it answers that it did, waits until `replicas` replicas
    /// have what it wrote, or the time is up; returns how many have it. Whatever goes wrong with
    /// the waiting, the write is done, so that its outcome is unknown and never "not done".
    pub(super) async fn call_and_wait(
        &self,
        call: Call<'_>,
        replicas: usize,
        within: Duration,
    ) -> Result<(Vec<String>, usize), LogError> {
        let name = call.name();
        self.send(name, async move |connection| {
            let answer: Vec<String> = call.invoke(connection).await?;
            if !has_written(&answer) {
                return Ok((answer, 0));
            }
            // On the same connection: it is the connection's last write that is waited for.
            let wait = redis::cmd("WAIT").arg(replicas).arg(within.as_millis() as u64).to_owned();
            let reached = wait.query_async(connection).await;
            Ok((answer, reached.map_err(Failure::after_a_write)?))
        })
        .await
    }

    /// Sends commands as one batch. Redis may refuse some of them and do the others.
    pub(super) async fn pipe<T: FromRedisValue>(
        &self,
        name: &'static str,
        pipe: &redis::Pipeline,
    ) -> Result<T, LogError> {
        self.send(name, async |connection| {
            pipe.query_async(connection).await.map_err(|error| Failure::of_batch(error, pipe.len()))
        })
        .await
    }

    async fn send<T>(
        &self,
        name: &'static str,
        send: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, Failure>,
    ) -> Result<T, LogError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        let Lent { mut connection, generation, began_at: connected_at, is_sound } =
            self.connect(&self.connections[turn]).await.inspect_err(count_error)?;
        let began_at = Instant::now();
        let result = tokio::select! {
            // First: what a server says that was left is not to be heard.
            biased;
            given_up = self.generation.given_up(generation) => {
                let why = match given_up {
                    GivenUp::Replaced => "no reply on a connection that was given up",
                    GivenUp::Left => "no reply before another Redis took over",
                };
                let error = LogError::OutcomeUnknown(why.to_owned());
                count_error(&error);
                return Err(error);
            }
            result = send(&mut connection) => result,
        };
        metric::redis_command(name, began_at.elapsed());
        match result.as_ref().map_err(|failure| &failure.error) {
            Err(error) if error.is_timeout() => {}
            Err(error) if error.is_unrecoverable_error() => {
                if !is_sound.load(Ordering::Relaxed) {
                    let why = "cannot use a connection to Redis: it broke before any answer";
                    self.failed().add(connected_at, LogError::Unavailable(why.to_owned()));
                }
            }
            _ => {
                if !is_sound.swap(true, Ordering::Relaxed) {
                    self.failed().backoff.reset();
                }
            }
        }
        result.map_err(|failure| {
            let error = &failure.error;
            let demoted = error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
                || error.to_string().contains("-READONLY");
            self.demoted.fetch_or(demoted, Ordering::Relaxed);
            let silent = error.is_timeout() && !self.slow_replies_expected;
            if error.is_unrecoverable_error() || silent || demoted {
                // A connection that does not answer may be cut somewhere on the way, and one to a
                // master that was demoted must be made anew to find the one that rules now.
                self.generation.invalidate(generation);
            }
            let error = failure.explain();
            count_error(&error);
            error
        })
    }

    /// Whether Redis said READONLY since this was last asked.
    pub(super) fn was_demoted(&self) -> bool {
        self.demoted.swap(false, Ordering::Relaxed)
    }

    /// The connection, made if there is none of the current generation.
    async fn connect(&self, connection: &Connection) -> Result<Lent, LogError> {
        let asked_at = Instant::now();
        let mut state = connection.state.lock().await;
        self.check_not_left()?;
        let generation = self.generation.current();
        if let Some(held) = &state.held
            && held.made_in == generation
        {
            return Ok(held.lend());
        }
        if let Some(FailedAttempt { began_at, over_at, why }) = &self.failed().last
            && (*began_at >= asked_at || Instant::now() < *over_at)
        {
            return Err(why.clone());
        }
        if let Some(held) = state.held.take() {
            // Out of the pool for good.
            drop(PooledConnection::take(held.connection));
        }
        let began_at = Instant::now();
        let made = match self.pool() {
            Ok(pool) => pool.get().await,
            Err(error) => Err(PoolError::Backend(error)),
        };
        match made {
            Ok(connection) => {
                self.check_not_left()?;
                let is_sound = Arc::new(AtomicBool::new(false));
                let held = Held { connection, made_in: generation, began_at, is_sound };
                Ok(state.held.insert(held).lend())
            }
            Err(error) => {
                let why = match &error {
                    PoolError::Backend(error) => told(error),
                    error => one_line(&error.to_string()),
                };
                let why = LogError::Unavailable(format!("cannot connect to Redis: {why}"));
                self.failed().add(began_at, why.clone());
                Err(why)
            }
        }
    }

    /// # Errors
    /// Nothing is to be sent here any more.
    fn check_not_left(&self) -> Result<(), LogError> {
        if self.generation.is_left() {
            return Err(LogError::Unavailable("another Redis has just taken over".to_owned()));
        }
        Ok(())
    }

    fn failed(&self) -> MutexGuard<'_, Failed> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failed {
    /// An attempt failed. What took its time to fail is not waited for once more.
    fn add(&mut self, began_at: Instant, why: LogError) {
        let over_at = began_at + self.backoff.wait();
        self.last = Some(FailedAttempt { began_at, over_at, why });
    }
}

impl Held {
    fn lend(&self) -> Lent {
        Lent {
            connection: MultiplexedConnection::clone(&self.connection),
            generation: self.made_in,
            began_at: self.began_at,
            is_sound: self.is_sound.clone(),
        }
    }
}

fn count_error(error: &LogError) {
    metric::redis_error(match error {
        LogError::OutcomeUnknown(_) => "unanswered",
        _ => "unavailable",
    });
}
