//! What fuzzing asks of this room: its readers of what Redis says, each by itself.

use std::sync::Arc;

use futures_util::FutureExt;
use redis::{IntoConnectionInfo, PushKind, Value};

use super::keys::Keys;
use super::lane::ConnectionGeneration;
use super::replies;
use super::server::Server;
use super::subscription::{Listening, Subscription};
use crate::config::RedisFiles;
use crate::entry::Entry;
use crate::frame::Frame;
use crate::log::{Appended, LogError, Notification, Notifications, Notifier};
use crate::position::LogHistory;
use crate::topic::Topic;

/// A subscription without a connection: what would come over one is given to it.
pub struct Ear {
    subscription: Subscription,
    notifications: Notifications,
}

/// What a subscription made of something.
#[derive(Debug)]
pub enum Heard {
    /// An entry of a topic.
    Entry(Topic, Frame),
    /// Something that was meant for a topic and is no entry, so that one may be lost.
    Unreadable,
    /// Nothing that concerns it.
    Nothing,
}

impl Ear {
    /// Under the prefix `fantail`.
    ///
    /// # Errors
    /// Never.
    pub fn new() -> Result<Ear, String> {
        let info = "redis://localhost".into_connection_info().map_err(|e| e.to_string())?;
        let server = Arc::new(Server::new(info, &RedisFiles::default()));
        let (notifier, notifications) = Notifier::new();
        let listening = Arc::new(Listening::new(Keys::new("fantail"), "n", notifier, false));
        let subscription = Subscription::new(server, listening, ConnectionGeneration::new());
        Ok(Ear { subscription, notifications })
    }

    /// Takes what Redis pushes, as its protocol writes it.
    pub fn push(&mut self, resp: &[u8]) -> Heard {
        match redis::parse_redis_value(resp) {
            Ok(Value::Push { kind: PushKind::Message, data }) => self.message(data),
            _ => Heard::Nothing,
        }
    }

    /// Takes what was published on a channel.
    pub fn announcement(&mut self, channel: &str, payload: &[u8]) -> Heard {
        let bulk = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
        self.message(vec![bulk(channel.as_bytes()), bulk(payload)])
    }

    fn message(&mut self, data: Vec<Value>) -> Heard {
        self.subscription.on_message(data);
        match self.notifications.recv().now_or_never().flatten() {
            Some(Notification::Entry(topic, frame)) => Heard::Entry(topic, frame),
            Some(_) => Heard::Unreadable,
            None => Heard::Nothing,
        }
    }
}

/// Reads an entry as a script returns it, as its protocol writes it.
///
/// # Errors
/// It is none.
pub fn entry(resp: &[u8]) -> Result<Entry, LogError> {
    replies::entry(redis::parse_redis_value(resp).unwrap_or(Value::Nil))
}

/// Reads what is stored of a log's past: its head, its epochs, the id of its oldest entry.
///
/// # Errors
/// It is not as scripts leave it.
pub fn history(head: &str, meta: &str, oldest: &str) -> Result<LogHistory, LogError> {
    replies::history(head, meta, oldest)
}

/// Reads what a script that appends answers.
///
/// # Errors
/// It did not append, or nobody knows.
pub fn accepted(answer: &[String]) -> Result<Appended, LogError> {
    replies::accepted(answer)
}
