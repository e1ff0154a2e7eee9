//! [`Reactors`]: a few threads that carry the streams of plain HTTP/1.1 sockets.
//!
//! Most streams wait most of the time, and when something comes it is the next frame of one of their
//! topics. For that a task and an HTTP connection are far too much: here a stream is a socket, a
//! position per topic and a few words ([`streams`]). A socket that came here stays until it is
//! closed. What comes next is asked of the topics' [tails](crate::hub::tail); where these do not
//! know, a task of the runtime is asked, which has the stream's [`Follower`] and all the time it
//! needs, one question a stream at a time. So nothing is decided here that is decided elsewhere.
//!
//! The [hub](crate::hub) tells each reactor once that a topic has changed, however many streams it
//! has there; the frame is shared by all, and goes out with one `send` per stream. While a reactor
//! sleeps, whoever tells it does the first slice of its work at once: handing it to another thread
//! would often take longer.

mod deliver;
mod guard;
mod limits;
mod mailbox;
mod pins;
mod poller;
mod streams;
#[cfg(test)]
mod tests;
mod timer_wheel;
mod timers;

use std::io::{self, IoSlice};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use rustix::net::SendFlags;
use socket2::SockRef;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::places::OpenSocket;
use crate::hub::TopicObserver;
use crate::hub::tail::BATCH_BYTES_MAX;
use crate::net::compression;
use crate::stream::terms::EndListener;
use crate::stream::{Answer, Follower, Node, Session, Terms, ask};
use crate::telemetry;
use crate::wire::{Encoding, Parts, Uncompressed};
use mailbox::{Mailbox, Message};
use pins::PinnedByNode;
use poller::Readiness;
use streams::{Adopted, Adoption, Asker, Question, StreamSettings, StreamSocket, Streams};
use timer_wheel::Id;

/// The reactors of a node.
pub struct Reactors {
    reactors: Vec<Arc<Reactor>>,
    next: AtomicUsize,
}

impl Reactors {
    /// Starts `count` threads that carry streams of `node`. Must be called within a runtime, whose
    /// tasks answer the reactors' questions.
    ///
    /// # Errors
    /// When the system has no descriptors or threads left, or nothing to build this on
    /// ([`io::ErrorKind::Unsupported`]).
    pub fn start(
        count: usize,
        node: &Arc<Node>,
        write_timeout: Duration,
    ) -> io::Result<Arc<Reactors>> {
        let mut reactors = Vec::new();
        let pinned = PinnedByNode::new(count);
        for n in 0..count {
            let reactor = Reactor::new(node, write_timeout, pinned.clone())?;
            node.endings.listen(&reactor);
            let running = reactor.clone();
            std::thread::Builder::new()
                .name(format!("reactor-{n}"))
                .spawn(move || run_or_abort(&running))?;
            reactors.push(reactor);
        }
        Ok(Arc::new(Reactors { reactors, next: AtomicUsize::new(0) }))
    }

    /// Takes a stream that was opened, and its socket for good. `head` is that of its response.
    pub(crate) fn adopt(
        &self,
        socket: std::net::TcpStream,
        open: OpenSocket,
        session: Session,
        head: Vec<u8>,
    ) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.reactors.len();
        self.reactors[next].open(ReactorSocket { socket, _open: open }, session, head);
    }
}

impl Drop for Reactors {
    fn drop(&mut self) {
        for reactor in &self.reactors {
            reactor.post(Message::Stop);
        }
    }
}

/// One thread, and what others may do for it while it sleeps.
struct Reactor {
    mailbox: Mailbox,
    /// Locked by the thread while it works, not while it waits.
    work: Mutex<Work>,
    runtime: Handle,
}

struct Work {
    streams: Streams<ReactorSocket>,
    /// Empty: room for the messages of a turn, taken in exchange for that of the mailbox.
    changed: Vec<u32>,
    messages: Vec<Message>,
}

/// A socket with what belongs to it.
struct ReactorSocket {
    socket: std::net::TcpStream,
    /// Keeps it counted as open.
    _open: OpenSocket,
}

impl StreamSocket for ReactorSocket {
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = match parts {
            [one] => rustix::net::send(&self.socket, one, SendFlags::NOSIGNAL),
            several => rustix::io::writev(&self.socket, several),
        };
        Ok(written?)
    }

    fn shutdown_write(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
    }

    fn reset(&mut self) {
        let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }

    fn error(&self) -> Option<io::ErrorKind> {
        self.socket.take_error().ok().flatten().map(|error| error.kind())
    }
}

/// Runs a reactor until its node ends. A reactor that ended before would leave its streams open and
/// silent, and new ones with them: rather than that, the whole node ends, and clients come back
/// elsewhere. A panic while a stream is served does not get here.
fn run_or_abort(reactor: &Reactor) {
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| reactor.run()));
    if !matches!(ran, Ok(Ok(()))) {
        tracing::error!(?ran, "a reactor broke");
        telemetry::flush_log();
        std::process::abort();
    }
}

impl Reactor {
    fn new(
        node: &Arc<Node>,
        write_timeout: Duration,
        pinned: Arc<PinnedByNode>,
    ) -> io::Result<Arc<Reactor>> {
        let mailbox = Mailbox::new()?;
        let runtime = Handle::current();
        let clock = node.probe.clone();
        let settings = StreamSettings {
            heartbeat: node.heartbeat,
            retry: node.retry,
            write_timeout,
            budget: node.replays.budget().clone(),
            pinned,
            clock: Box::new(move || clock.now_milliseconds()),
        };
        let node = node.clone();
        Ok(Arc::new_cyclic(|reactor: &Weak<Reactor>| {
            let asker = RuntimeAsker { node, reactor: reactor.clone() };
            let observer: Weak<dyn TopicObserver> = reactor.clone();
            let streams = Streams::new(settings, Box::new(asker), observer, Instant::now());
            let work = Work { streams, changed: Vec::new(), messages: Vec::new() };
            Reactor { mailbox, work: Mutex::new(work), runtime }
        }))
    }

    /// # Errors
    /// When the kernel refuses to wait, which it has no reason to: the descriptors are ours.
    fn run(&self) -> io::Result<()> {
        let mut woken = Vec::new();
        loop {
            let mut work = self.lock();
            let mut timeout = work.timeout();
            if timeout != Some(Duration::ZERO) && !self.mailbox.try_sleep() {
                timeout = Some(Duration::ZERO);
            }
            drop(work);
            self.mailbox.poller.wait(timeout, |data, readiness| woken.push((data, readiness)))?;
            self.mailbox.woke();
            work = self.lock();
            let now = Instant::now();
            for (data, readiness) in woken.drain(..) {
                let id = id_of(data);
                match readiness {
                    Readiness::Closed => work.streams.peer_closed(id),
                    Readiness::HalfClosed => work.streams.peer_half_closed(id, now),
                    Readiness::Writable => work.streams.writable(id, now),
                }
            }
            if !self.turn(&mut work, now) {
                return Ok(());
            }
        }
    }

    /// Reads the mailbox, does what is due, and one slice of work. Says no when it is time to stop.
    fn turn(&self, work: &mut Work, now: Instant) -> bool {
        let Work { streams, changed, messages } = work;
        self.mailbox.take(changed, messages);
        changed.iter().for_each(|key| streams.topic_changed(*key));
        for message in messages.drain(..) {
            match message {
                Message::Adopt(adoption) => {
                    self.take(streams, *adoption, now);
                }
                Message::Answered { id, follower, parts, end } => {
                    streams.answered(id, follower, parts, end, now);
                }
                Message::Failed(id) => streams.failed(id),
                Message::Compressed { key, encoding } => streams.compressed(key, encoding),
                Message::OrdersGiven => streams.orders_given(),
                Message::Stop => {
                    streams.close_all();
                    return false;
                }
            }
        }
        streams.run_timers(now);
        streams.run_slice(now);
        self.watch_blocked(streams);
        true
    }

    fn take(
        &self,
        streams: &mut Streams<ReactorSocket>,
        adoption: Adoption<ReactorSocket>,
        now: Instant,
    ) -> Option<Id> {
        let id = streams.adopt(adoption, now)?;
        let socket = streams.socket(id)?;
        if let Err(error) = self.mailbox.poller.watch(&socket.socket, event_data(id)) {
            tracing::warn!(%error, "a stream cannot be carried");
            streams.peer_closed(id);
        }
        self.watch_blocked(streams);
        Some(id)
    }

    /// Has the sockets that took no more since the last time tell when they do.
    fn watch_blocked(&self, streams: &mut Streams<ReactorSocket>) {
        while let Some(id) = streams.newly_blocked.pop() {
            let Some(socket) = streams.socket(id) else { continue };
            if let Err(error) = self.mailbox.poller.watch_full(&socket.socket, event_data(id)) {
                tracing::warn!(%error, "a stream cannot be carried further");
                streams.peer_closed(id);
            }
        }
    }

    /// Writes the head and what can be said at once, and takes the stream.
    fn open(self: &Arc<Reactor>, socket: ReactorSocket, session: Session, head: Vec<u8>) {
        let Session { mut follower, terms, limit, guard } = session;
        let mut opened = Parts::default();
        terms.speech.begin_chunked(&mut opened);
        let (state, question) = loop {
            if let Some(places) = follower.places() {
                break (Adopted::Live { places, snapshot: follower.snapshot }, None);
            }
            let interrupt = Arc::new(Notify::new());
            let mut question = ask_in(terms.speech.encoding, follower, &interrupt);
            // What is ready goes out with the head. A question that is not is put only once.
            let Some(answer) = question.as_mut().now_or_never() else {
                break (Adopted::Asked(interrupt), Some(question));
            };
            for said in &answer.said {
                terms.speech.encode_chunked(said, &mut opened);
            }
            follower = answer.follower;
            if let Some(reason) = answer.end {
                break (Adopted::Over(reason), None);
            }
            if opened.bytes.iter().map(Bytes::len).sum::<usize>() > BATCH_BYTES_MAX {
                break (Adopted::Holding(follower), None);
            }
        };
        let mut first = head;
        // Small parts become one: mostly everything there is to say goes out with one `send`.
        while opened.bytes.front().is_some_and(|part| part.len() <= SMALL_PART) {
            first.extend_from_slice(&opened.bytes.pop_front().unwrap_or_default());
        }
        opened.bytes.push_front(Bytes::from(first));
        let for_question = terms.clone();
        let adoption = Adoption { socket, terms, limit, guard, pending: opened, state };
        match question {
            None => self.post(Message::Adopt(Box::new(adoption))),
            Some(question) => {
                // The answer is given under an id, so the stream is taken first.
                let mut work = self.lock();
                let id = self.take(&mut work.streams, adoption, Instant::now());
                drop(work);
                if let Some(id) = id {
                    self.answer(id, question, for_question);
                }
                // What the thread waits for was decided before.
                self.mailbox.poller.wake();
            }
        }
    }

    /// Has a task wait for the answer to a question.
    fn answer(self: &Arc<Reactor>, id: Id, question: PendingQuestion, terms: Arc<Terms>) {
        let reactor = Arc::downgrade(self);
        self.runtime.spawn(async move {
            let answer = answer_to(id, question, &terms).await;
            if let Some(reactor) = reactor.upgrade() {
                reactor.post(answer);
            }
        });
    }

    fn post(&self, message: Message) {
        if self.mailbox.push(message) {
            self.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the kernel says of a stream's socket carries the stream's id.
fn event_data(id: Id) -> u64 {
    (u64::from(id.index) << 32) | u64::from(id.serial)
}

fn id_of(data: u64) -> Id {
    Id { index: (data >> 32) as u32, serial: data as u32 }
}

/// Parts up to this size, in bytes, are copied together into a stream's first write.
const SMALL_PART: usize = 1 << 10;

type PendingQuestion = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What a reactor is told when a question is answered, or when it never will be.
async fn answer_to(id: Id, question: PendingQuestion, terms: &Terms) -> Message {
    let answer = AssertUnwindSafe(async {
        let Answer { follower, said, end } = question.await;
        let mut parts = Parts::default();
        for said in &said {
            terms.speech.encode_chunked(said, &mut parts);
        }
        Message::Answered { id, follower, parts, end }
    });
    answer.catch_unwind().await.unwrap_or(Message::Failed(id))
}

impl Work {
    /// How long nothing is to be done if nothing happens; `None` for ever.
    fn timeout(&self) -> Option<Duration> {
        if self.streams.is_busy() {
            return Some(Duration::ZERO);
        }
        Some(self.streams.next_deadline()?.saturating_duration_since(Instant::now()))
    }
}

impl TopicObserver for Reactor {
    fn topic_changed(&self, key: u32) -> bool {
        self.mailbox.flag(key)
    }

    /// Does the reactor's next turn here and now, since it sleeps; wakes it only for what is left.
    fn wake(&self) {
        let mut work = match self.work.try_lock() {
            Ok(work) => work,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // It has woken by itself, or somebody else is doing its work.
            Err(TryLockError::WouldBlock) => return self.mailbox.poller.wake(),
        };
        let deadline = work.streams.next_deadline();
        let goes_on = self.turn(&mut work, Instant::now());
        let is_earlier = match (work.streams.next_deadline(), deadline) {
            (Some(now), Some(before)) => now < before,
            (now, _) => now.is_some(),
        };
        // The thread waits until `deadline` at most, and until it is woken.
        if !goes_on || is_earlier || work.streams.is_busy() || !self.mailbox.try_sleep() {
            if !goes_on {
                self.mailbox.push(Message::Stop);
            }
            self.mailbox.poller.wake();
        }
    }
}

impl EndListener for Reactor {
    fn orders_given(&self) {
        self.post(Message::OrdersGiven);
    }
}

/// Has tasks of the runtime find out what the tails do not know.
struct RuntimeAsker {
    node: Arc<Node>,
    reactor: Weak<Reactor>,
}

impl Asker for RuntimeAsker {
    fn ask(&self, id: Id, question: Question, terms: &Arc<Terms>, interrupt: &Arc<Notify>) {
        let Some(reactor) = self.reactor.upgrade() else { return };
        let follower: Box<Follower> = match question {
            Question::Next(follower) => follower,
            // Joins here and now: the topics must not be swept in between.
            Question::From { places, snapshot } => {
                Box::new(Follower::resume_from(self.node.clone(), &places, snapshot))
            }
        };
        let question = ask_in(terms.speech.encoding, follower, interrupt);
        reactor.answer(id, question, terms.clone());
    }

    fn compress(&self, key: u32, large: Uncompressed) {
        let Some(reactor) = self.reactor.upgrade() else { return };
        let (runtime, reactor) = (reactor.runtime.clone(), self.reactor.clone());
        let encoding = large.encoding();
        runtime.spawn(async move {
            compression::compress(large).await;
            if let Some(reactor) = reactor.upgrade() {
                reactor.post(Message::Compressed { key, encoding });
            }
        });
    }
}

/// What a stream says next, of which nothing large has to be compressed any more.
fn ask_in(encoding: Encoding, follower: Box<Follower>, interrupt: &Arc<Notify>) -> PendingQuestion {
    let question = ask(follower, interrupt.clone());
    if encoding == Encoding::Identity {
        return Box::pin(question);
    }
    Box::pin(async move {
        let answer = question.await;
        compression::compress_all(compression::large(encoding, &answer.said)).await;
        answer
    })
}
