//! [`Session`]: one stream from its opening on, and [`ask`]: what it says next.
//!
//! A question owns its [`Follower`] until it is answered. So nothing that is under way, such as a
//! read of the log, is given up because something else is due meanwhile: whoever waits for the
//! answer says heartbeats, and only the end of the stream interrupts.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::follower::Follower;
use super::slow::Slow;
use super::terms::{EndsAt, Terms};
use super::{Node, Request};
use crate::admission::Admitted;
use crate::said::{EndManner, EndReason, Said};
use crate::telemetry::metric;

/// When a client whose stream was old enough shall come back, at most.
const AGE_RETRY_MAX: Duration = Duration::from_secs(1);

/// When a client that may be gone is sent something for the second time: what the first met has come
/// back by then, and the second finds the socket broken.
const SECOND_PROBE_AFTER: Duration = Duration::from_secs(1);

/// One client's stream.
pub struct Session {
    /// Its cursor.
    pub follower: Box<Follower>,
    /// On what terms it runs.
    pub terms: Arc<Terms>,
    /// When it ends whatever happens.
    pub limit: Option<EndsAt>,
    /// Keeps it counted.
    pub guard: StreamGuard,
}

/// Counts a stream as open until it is dropped, and then by how it ended.
pub struct StreamGuard {
    reason: Option<EndReason>,
    /// Set by a socket that gives it up.
    stalled: Option<Arc<AtomicBool>>,
    _admitted: Admitted,
}

impl Session {
    /// Joins the topics. Says nothing by itself.
    pub fn open(
        node: &Arc<Node>,
        admitted: Admitted,
        terms: Arc<Terms>,
        request: &Request,
    ) -> Session {
        Session {
            follower: Box::new(Follower::new(node.clone(), request)),
            limit: node.endings.limit(&terms),
            terms,
            guard: StreamGuard::new(admitted),
        }
    }

    /// Waits until every topic is open, or it is clear that the log cannot be asked now. `false`
    /// if a state that was asked for does not exist: then the stream should be refused instead of
    /// begun.
    ///
    /// At most `timeout`: an `EventSource` waits, but it should not wait long for a status.
    pub async fn wait_until_open(&mut self, timeout: Duration) -> bool {
        let opened = tokio::time::timeout(timeout, self.follower.wait_until_open()).await;
        let exists = opened.unwrap_or(true);
        if !exists {
            self.guard.set_reason(EndReason::NoState);
        }
        exists
    }
}

impl StreamGuard {
    /// Counts one more open stream.
    pub fn new(admitted: Admitted) -> StreamGuard {
        metric::connection_opened();
        StreamGuard { reason: None, stalled: None, _admitted: admitted }
    }

    /// Whoever sets `stalled` gives the stream up because its client takes no bytes.
    pub fn watch_stalled(&mut self, stalled: Arc<AtomicBool>) {
        self.stalled = Some(stalled);
    }

    /// Says why it ends. Whatever we did not end, the client did.
    pub fn set_reason(&mut self, reason: EndReason) {
        self.reason = Some(reason);
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let stalled = self.stalled.as_ref().is_some_and(|stalled| stalled.load(Ordering::Relaxed));
        let reason = if stalled { Some(EndReason::Stalled) } else { self.reason };
        metric::connection_closed(reason.unwrap_or(EndReason::Client).as_str());
    }
}

/// What a stream says next.
pub struct Answer {
    /// The cursor, which stands after what is said.
    pub follower: Box<Follower>,
    /// Nothing if the question was interrupted.
    pub said: Vec<Said>,
    /// The stream is over after that.
    pub end: Option<EndReason>,
}

/// Waits until there is something to say, or until `interrupt` is notified.
pub async fn ask(mut follower: Box<Follower>, interrupt: Arc<Notify>) -> Answer {
    let exists = tokio::select! {
        biased;
        // May be dropped at any `await`: until something is said, nothing has changed.
        () = interrupt.notified() => true,
        exists = follower.advance() => exists,
    };
    let said = follower.take_said();
    Answer { follower, said, end: (!exists).then_some(EndReason::NoState) }
}

/// A stream that says everything by itself when it is polled: heartbeats and the goodbye, too. For
/// the HTTP server's bodies; a [reactor](crate::net::reactor) has its own ways for many at once.
pub struct PolledStream {
    question: Pin<Box<dyn Future<Output = Answer> + Send>>,
    interrupt: Arc<Notify>,
    ended: Pin<Box<dyn Future<Output = EndReason> + Send>>,
    /// Set once it has to end; said when the question is answered.
    ending: Option<EndReason>,
    heartbeat: Pin<Box<Sleep>>,
    heartbeat_interval: Duration,
    /// When the client that may be gone is sent something whatever was said before.
    second_probe_at: Option<Instant>,
    retry: Duration,
    over: Option<EndReason>,
    /// On what terms it runs.
    pub terms: Arc<Terms>,
    /// Keeps it counted.
    pub guard: StreamGuard,
    /// Whether it is behind.
    pub slow: Arc<Slow>,
}

impl PolledStream {
    /// Goes on with a stream that was opened.
    pub fn new(session: Session) -> PolledStream {
        let Session { follower, terms, limit, guard } = session;
        let Node { heartbeat, retry, .. } = **follower.node();
        let interrupt = Arc::new(Notify::new());
        let slow = follower.slow().clone();
        PolledStream {
            question: Box::pin(ask(follower, interrupt.clone())),
            interrupt,
            ended: Box::pin(terms.clone().ended(limit)),
            ending: None,
            heartbeat: Box::pin(tokio::time::sleep(heartbeat)),
            heartbeat_interval: heartbeat,
            second_probe_at: None,
            retry,
            over: None,
            terms,
            guard,
            slow,
        }
    }

    /// Says something at once and again soon, whatever else happens: the client sends no more, and
    /// if it does not read either, its kernel answers what is sent to it with a reset.
    pub fn probe(&mut self) {
        let now = Instant::now();
        self.second_probe_at = Some(now + SECOND_PROBE_AFTER);
        self.heartbeat.as_mut().reset(now);
    }

    /// What is said next; `None` when the stream is over. Called again only when the client takes
    /// more, which is all the flow control there is. May be dropped at any `await`.
    pub async fn next(&mut self) -> Option<Vec<Said>> {
        let said = self.decide().await;
        let now = Instant::now();
        let due = now + self.heartbeat_interval;
        self.second_probe_at = self.second_probe_at.filter(|at| *at > now);
        self.heartbeat.as_mut().reset(self.second_probe_at.map_or(due, |at| due.min(at)));
        said
    }

    /// How it ends, once it has said everything.
    pub fn end_manner(&self) -> EndManner {
        self.terms.speech.wire.end_manner(self.over.unwrap_or(EndReason::Client))
    }

    async fn decide(&mut self) -> Option<Vec<Said>> {
        while self.over.is_none() {
            tokio::select! {
                biased;
                reason = &mut self.ended, if self.ending.is_none() => {
                    self.ending = Some(reason);
                    self.interrupt.notify_one();
                }
                answer = &mut self.question => {
                    let Answer { follower, mut said, end } = answer;
                    if let Some(reason) = self.ending {
                        let retry = self.retry;
                        said.push(goodbye(reason, retry));
                    }
                    if let Some(reason) = self.ending.or(end) {
                        self.guard.set_reason(reason);
                        self.over = Some(reason);
                    }
                    self.question = Box::pin(ask(follower, self.interrupt.clone()));
                    if !said.is_empty() {
                        return Some(said);
                    }
                }
                () = &mut self.heartbeat => return Some(vec![Said::Heartbeat]),
            }
        }
        None
    }
}

/// The goodbye of a stream whose client is to come back after `retry`, more or less: what ends
/// together shall not come back together. Where nothing is wrong with the node it may come back
/// sooner.
pub fn goodbye(reason: EndReason, retry: Duration) -> Said {
    let retry = if reason == EndReason::Age { retry.min(AGE_RETRY_MAX) } else { retry };
    Said::Goodbye { reason, retry: retry.mul_f64(0.5 + fastrand::f64()) }
}
