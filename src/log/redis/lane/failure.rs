//! [`Failure`]: an error of Redis, and what it says about the write that it answers.

use redis::{ErrorKind, RedisError, ServerError};

use super::REPLY_TIMEOUT;
use crate::log::LogError;
use crate::log::redis::meaning::one_line;

/// What Redis refuses writes with because of the state it is in. A script that ends with one of
/// these was refused at its first write, and so changed nothing: the state does not change while it
/// runs, and memory is looked at before its first write alone.
const WRITES_REFUSED: [&str; 5] = ["READONLY", "OOM", "MISCONF", "NOREPLICAS", "MASTERDOWN"];

/// What Redis answers instead of beginning with a command.
const NOT_BEGUN: [&str; 10] = [
    "LOADING",
    "BUSY",
    "NOSCRIPT",
    "NOAUTH",
    "NOPERM",
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "CROSSSLOT",
];

/// Why commands were not answered as they should have been.
pub(super) struct Failure {
    pub(super) error: RedisError,
    /// How many commands could have done something. If Redis has not refused all of them, something
    /// may be done.
    commands: usize,
    /// Something is done for sure, whatever this error says.
    is_after_a_write: bool,
}

impl From<RedisError> for Failure {
    /// Of a single command.
    fn from(error: RedisError) -> Failure {
        Failure::of_batch(error, 1)
    }
}

impl Failure {
    /// Of so many commands that were sent together.
    pub(super) fn of_batch(error: RedisError, commands: usize) -> Failure {
        Failure { error, commands, is_after_a_write: false }
    }

    /// Of a command that follows a write which Redis has acknowledged.
    pub(super) fn after_a_write(error: RedisError) -> Failure {
        Failure { error, commands: 1, is_after_a_write: true }
    }

    /// What it means for whoever asked. Only what surely did nothing is [`LogError::Unavailable`]:
    /// whoever hears that repeats the write, and an event that was there already would be there
    /// twice.
    pub(super) fn explain(&self) -> LogError {
        let error = &self.error;
        let said = one_line(&error.to_string());
        if self.is_after_a_write {
            LogError::OutcomeUnknown(format!("Redis has it, but could not be waited for: {said}"))
        } else if error.is_timeout() {
            LogError::OutcomeUnknown(format!("Redis did not answer within {REPLY_TIMEOUT:?}"))
        } else if error.is_io_error() {
            LogError::OutcomeUnknown(format!("the connection to Redis broke: {said}"))
        } else if self.is_refusal() {
            LogError::Unavailable(format!("Redis refused: {said}"))
        } else if matches!(error.kind(), ErrorKind::Parse | ErrorKind::UnexpectedReturnType) {
            LogError::OutcomeUnknown(format!("Redis replied what cannot be read: {said}"))
        } else {
            // A script that broke half-way, over data that is not ours or not whole; a proxy that
            // lost its server; whatever later servers will say.
            LogError::OutcomeUnknown(format!("Redis replied with an error: {said}"))
        }
    }

    /// Whether Redis has surely done nothing of what it was sent.
    fn is_refusal(&self) -> bool {
        let errors = self.error.clone().into_server_errors();
        errors.is_some_and(|errors| {
            errors.len() == self.commands && errors.iter().all(|(_, error)| is_refusal(error))
        })
    }
}

/// Whether a command did nothing that is answered like this.
fn is_refusal(error: &ServerError) -> bool {
    let detail = error.details().unwrap_or_default();
    if WRITES_REFUSED.contains(&error.code()) {
        return true;
    }
    // Redis 7 keeps the code of the command that failed within a script; the ones before put the
    // whole error into one of their own. Other commands of the script came before it.
    let is_of_script = detail.contains("script: ") || detail.contains("Error running script");
    if is_of_script {
        return WRITES_REFUSED.iter().any(|code| detail.contains(&format!(": -{code} ")));
    }
    NOT_BEGUN.contains(&error.code())
}
