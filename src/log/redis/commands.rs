//! [`Commands`]: the way of all commands to Redis, over a deadpool-redis pool.
//!
//! A few connections carry everything, each many commands at a time: a *lane* takes a connection
//! from the pool and keeps it while it works. So a command is one round trip (the pool alone would
//! check a connection with a round trip of its own before each), and a connection that broke is
//! replaced once, not once per caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use deadpool_redis::{Connection, Manager, Pool, Runtime};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ConnectionInfo, ErrorKind, FromRedisValue, ProtocolVersion, PushInfo,
    PushKind, RedisError, ServerErrorKind,
};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::scripts::Call;
use crate::log::LogError;
use crate::telemetry::metric;

/// How long to wait for a connection.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_millis(1_000);

/// How long to wait for an answer. Then the outcome is unknown.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_millis(2_000);

/// How long commands may still be answered on a connection that is being replaced. Where one
/// connection died without a word the others did too, and who waits for them waits in vain.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_millis(250);

/// Counts connections that broke: one that is older than the last break is replaced before
/// anything is sent on it.
pub(super) struct Breaks(watch::Sender<usize>);

impl Breaks {
    pub(super) fn new() -> Arc<Breaks> {
        Arc::new(Breaks(watch::Sender::new(0)))
    }

    /// A connection is dead that nobody has closed; so all others may be.
    pub(super) fn all_may_be_dead(&self) {
        self.0.send_modify(|breaks| *breaks += 1);
    }

    fn now(&self) -> usize {
        *self.0.borrow()
    }

    /// A connection that was made when there were this many broke. Counts once: the next commands
    /// to fail on it were sent before.
    fn broke(&self, made_at: usize) {
        self.0.send_if_modified(|breaks| {
            let first = *breaks == made_at;
            *breaks += usize::from(first);
            first
        });
    }

    /// Waits until a connection that was made when there were this many has had its time.
    async fn given_up(&self, made_at: usize) {
        let broke = self.0.subscribe().wait_for(|breaks| *breaks != made_at).await.is_ok();
        if !broke {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(LAST_ANSWERS_WITHIN).await;
    }
}

/// The way of all commands.
pub(super) struct Commands {
    pool: Pool,
    lanes: Vec<Lane>,
    next: AtomicUsize,
    breaks: Arc<Breaks>,
    /// Redis said READONLY since somebody last asked.
    demoted: AtomicBool,
    /// Late answers are no sign of a dead connection.
    waits: bool,
}

#[derive(Default)]
struct Lane {
    state: Mutex<LaneState>,
}

#[derive(Default)]
struct LaneState {
    held: Option<(Connection, usize)>,
    /// When the last attempt to connect began, and why it failed: shared by all who waited for it.
    failed: Option<(Instant, LogError)>,
}

impl Commands {
    /// Over `lanes` connections. Nothing is connected before the first command. `waits` says that
    /// commands wait for one another, or for replicas: late answers are no sign of a dead connection.
    pub(super) fn new(
        info: &ConnectionInfo,
        lanes: usize,
        breaks: Arc<Breaks>,
        waits: bool,
    ) -> Result<Commands, RedisError> {
        let on_push = {
            let breaks = breaks.clone();
            move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    breaks.all_may_be_dead();
                }
                Ok::<(), ()>(())
            }
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_response_timeout(Some(ANSWER_WITHIN))
            .set_push_sender(on_push);
        let manager = Manager::new_with_config(info.clone(), config)?;
        let pool = Pool::builder(manager)
            .max_size(lanes)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT_WITHIN))
            .create_timeout(Some(CONNECT_WITHIN))
            .recycle_timeout(Some(CONNECT_WITHIN))
            .build()
            .map_err(|error| {
                RedisError::from((ErrorKind::InvalidClientConfig, "pool", error.to_string()))
            })?;
        let lanes = std::iter::repeat_with(Lane::default).take(lanes).collect();
        Ok(Commands {
            pool,
            lanes,
            next: AtomicUsize::new(0),
            breaks,
            demoted: AtomicBool::new(false),
            waits,
        })
    }

    /// Runs a script; `name` is its name in metrics.
    pub(super) async fn call<T: FromRedisValue>(&self, call: Call<'_>) -> Result<T, LogError> {
        let name = call.name();
        self.send(name, async move |connection| call.invoke(connection).await).await
    }

    /// Runs a script that writes, then waits until `replicas` replicas have what it wrote, or the
    /// time is up; returns how many have it.
    pub(super) async fn call_and_wait<T: FromRedisValue>(
        &self,
        call: Call<'_>,
        replicas: usize,
        within: Duration,
    ) -> Result<(T, usize), LogError> {
        let name = call.name();
        self.send(name, async move |connection| {
            let answer = call.invoke(connection).await?;
            // On the same connection: it is the connection's last write that is waited for.
            let wait = redis::cmd("WAIT").arg(replicas).arg(within.as_millis() as u64).to_owned();
            Ok((answer, wait.query_async(connection).await?))
        })
        .await
    }

    /// Sends commands as one batch.
    pub(super) async fn pipe<T: FromRedisValue>(
        &self,
        name: &'static str,
        pipe: &redis::Pipeline,
    ) -> Result<T, LogError> {
        self.send(name, async |connection| pipe.query_async(connection).await).await
    }

    async fn send<T>(
        &self,
        name: &'static str,
        send: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, LogError> {
        let lane = self.next.fetch_add(1, Ordering::Relaxed) % self.lanes.len();
        let (mut connection, made_at) =
            self.connection(&self.lanes[lane]).await.inspect_err(count_error)?;
        let began_at = Instant::now();
        let result = tokio::select! {
            result = send(&mut connection) => result,
            () = self.breaks.given_up(made_at) => {
                let why = "no answer on a connection that was given up".to_owned();
                let error = LogError::OutcomeUnknown(why);
                count_error(&error);
                return Err(error);
            }
        };
        metric::redis_command(name, began_at.elapsed());
        result.map_err(|error| {
            let demoted = error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
                || error.to_string().contains("-READONLY");
            self.demoted.fetch_or(demoted, Ordering::Relaxed);
            let silent = error.is_timeout() && !self.waits;
            if error.is_unrecoverable_error() || silent || demoted {
                // A connection that does not answer may be cut somewhere on the way, and one to a
                // master that was demoted must be made anew to find the one that rules now.
                self.breaks.broke(made_at);
            }
            let error = explain(&error);
            count_error(&error);
            error
        })
    }

    /// Whether Redis said READONLY since this was last asked.
    pub(super) fn was_demoted(&self) -> bool {
        self.demoted.swap(false, Ordering::Relaxed)
    }

    /// The lane's connection, made if there is none or if some broke since it was made.
    /// The second value is what `breaks` was when it was made.
    async fn connection(&self, lane: &Lane) -> Result<(MultiplexedConnection, usize), LogError> {
        let asked_at = Instant::now();
        let mut state = lane.state.lock().await;
        let breaks = self.breaks.now();
        if let Some((held, made_at)) = &state.held
            && *made_at == breaks
        {
            return Ok((MultiplexedConnection::clone(held), breaks));
        }
        if let Some((began_at, error)) = &state.failed
            && *began_at >= asked_at
        {
            return Err(error.clone());
        }
        if let Some((held, _)) = state.held.take() {
            // Out of the pool for good.
            drop(Connection::take(held));
        }
        let began_at = Instant::now();
        match self.pool.get().await {
            Ok(held) => {
                let connection = MultiplexedConnection::clone(&held);
                state.held = Some((held, breaks));
                state.failed = None;
                Ok((connection, breaks))
            }
            Err(error) => {
                let error = LogError::Unavailable(format!("cannot connect to Redis: {error}"));
                state.failed = Some((began_at, error.clone()));
                Err(error)
            }
        }
    }
}

/// What an error of Redis means for whoever asked.
fn explain(error: &RedisError) -> LogError {
    if error.is_timeout() {
        LogError::OutcomeUnknown(format!("Redis did not answer within {ANSWER_WITHIN:?}"))
    } else if error.is_io_error() {
        LogError::OutcomeUnknown(format!("the connection to Redis broke: {error}"))
    } else if script_broke(error) {
        // Half-way, over data that is not ours or not whole.
        LogError::OutcomeUnknown(format!("a script failed: {error}"))
    } else {
        // Redis itself says no: READONLY, LOADING, OOM, BUSY … A script refused is a script that
        // changed nothing.
        LogError::Unavailable(format!("Redis refused: {error}"))
    }
}

/// Whether a script ended with an error of its own, perhaps after its first write. Redis before 7
/// wraps refusals of that first write in the same error: those changed nothing.
fn script_broke(error: &RedisError) -> bool {
    const REFUSALS: [&str; 5] = ["-READONLY", "-OOM", "-MISCONF", "-NOREPLICAS", "-MASTERDOWN"];
    let text = error.to_string();
    error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError)
        && text.contains("script")
        && !REFUSALS.iter().any(|refusal| text.contains(refusal))
}

fn count_error(error: &LogError) {
    metric::redis_error(match error {
        LogError::OutcomeUnknown(_) => "unanswered",
        _ => "unavailable",
    });
}

/// Connection settings with RESP3, which tells of broken connections and carries announcements.
pub(super) fn with_resp3(info: ConnectionInfo) -> ConnectionInfo {
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    info.set_redis_settings(settings)
}
