//! [`Reactors`]: a few threads that carry streams which have nothing special to say.
//!
//! Most streams wait most of the time, and when something comes it is the next frame of their one
//! topic. For that a task and an HTTP connection are far too much: here a stream is a socket, a
//! position and a few words ([`carried`]). [`http`](crate::http) parks a stream here once it has
//! caught up; as soon as something else is to be said (its reader fell behind its topic's
//! [tail](crate::hub::tail), or the log became another one) it goes back to be a
//! [connection](crate::connection), which knows all that, and returns when it has caught up again.
//! So nothing is decided here that is decided elsewhere.
//!
//! The [hub](crate::hub) tells each reactor once that a topic has news, however many streams it
//! carries there; the frame is shared by all, and goes out with one `send` per stream, or one
//! `writev` where several wait.

mod carried;
mod events;
#[cfg(test)]
mod tempers;
mod wheel;

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::SendFlags;
use socket2::SockRef;
use tokio::sync::mpsc;

use crate::admission::OpenSocket;
use crate::connection::{Drain, Lifetime, Node, Parked};
use crate::hub::{Audience, HubTopic};
use crate::position::Position;
use carried::{Carried, Moving, Outlet, Ways};
use events::{Events, Happened};

/// Messages for which a reactor and its inbox keep room.
const MESSAGES_KEPT: usize = 256;

/// How long a stream that was ended waits for its peer to close.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// A stream that goes back to be a connection.
pub struct Returned {
    /// Its socket, which does not block.
    pub socket: std::net::TcpStream,
    /// That it is open.
    pub open: OpenSocket,
    /// The topic it follows.
    pub topic: Arc<HubTopic>,
    /// Where it stands.
    pub position: Position,
    /// Whether it answers resets with a snapshot.
    pub snapshot: bool,
    /// That the stream is open.
    pub lifetime: Lifetime,
}

/// The reactors of a node.
pub struct Reactors {
    inboxes: Vec<Arc<Inbox>>,
    next: AtomicUsize,
}

impl Reactors {
    /// Starts `count` threads that carry streams of `node`. Streams that must go on elsewhere come
    /// out of the receiver: as many as there are streams, so its bound is theirs.
    ///
    /// # Errors
    /// When the system has no descriptors or threads left, or nothing to build this on
    /// ([`io::ErrorKind::Unsupported`]).
    pub fn start(
        count: usize,
        node: &Arc<Node>,
        write_timeout: Duration,
    ) -> io::Result<(Arc<Reactors>, mpsc::UnboundedReceiver<Returned>)> {
        let (give_back, returned) = mpsc::unbounded_channel();
        let mut inboxes = Vec::new();
        for n in 0..count {
            let inbox = Arc::new(Inbox::new()?);
            let clock = node.probe.clone();
            let ways = Ways {
                heartbeat: node.heartbeat,
                retry: node.retry,
                write_timeout,
                clock: Box::new(move || clock.now_milliseconds()),
            };
            let carried = Carried::new(ways, inbox.clone(), Instant::now());
            let give_back = give_back.clone();
            let reactor = Reactor {
                inbox: inbox.clone(),
                carried,
                give_back,
                draining: false,
                messages: Vec::new(),
            };
            std::thread::Builder::new()
                .name(format!("reactor-{n}"))
                .spawn(move || end_with(reactor))?;
            inboxes.push(inbox);
        }
        Ok((Arc::new(Reactors { inboxes, next: AtomicUsize::new(0) }), returned))
    }

    /// Takes over a stream that has caught up.
    pub fn park(&self, socket: std::net::TcpStream, open: OpenSocket, parked: Parked) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.inboxes.len();
        self.inboxes[next].post(Message::Park(Box::new((Carrier { socket, open }, parked))));
    }

    /// Ends all streams as `drain` says.
    pub fn drain(&self, drain: &Drain) {
        for inbox in &self.inboxes {
            inbox.post(Message::Drain(Box::new(drain.clone())));
        }
    }
}

impl Drop for Reactors {
    fn drop(&mut self) {
        for inbox in &self.inboxes {
            inbox.post(Message::Stop);
        }
    }
}

/// What reaches a reactor from other threads.
struct Inbox {
    /// Taken as a whole before each slice of work.
    messages: Mutex<Vec<Message>>,
    /// The reactor waits, or is about to, and has seen no message: the next to leave one rings.
    asleep: AtomicBool,
    events: Events,
}

enum Message {
    /// The topic that the reactor knows by this key has news.
    News(u32),
    Park(Box<(Carrier, Parked)>),
    Drain(Box<Drain>),
    Stop,
}

impl Inbox {
    fn new() -> io::Result<Inbox> {
        let events = Events::new()?;
        Ok(Inbox { messages: Mutex::default(), asleep: AtomicBool::new(false), events })
    }

    fn post(&self, message: Message) {
        if self.leave(message) {
            self.events.ring();
        }
    }

    /// Leaves a message; says whether the reactor has to be rung for to see it.
    fn leave(&self, message: Message) -> bool {
        self.messages().push(message);
        self.asleep.swap(false, Ordering::AcqRel)
    }

    /// Whether the reactor may wait now. If so, the next message rings.
    fn falls_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::Release);
        // Whoever takes the lock after this sees that it sleeps; whoever had it before was seen.
        let is_empty = self.messages().is_empty();
        if !is_empty {
            self.asleep.store(false, Ordering::Release);
        }
        is_empty
    }

    fn messages(&self) -> MutexGuard<'_, Vec<Message>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Audience for Inbox {
    fn news(&self, key: u32) -> bool {
        self.leave(Message::News(key))
    }

    fn ring(&self) {
        self.events.ring();
    }
}

/// A socket with what belongs to it.
struct Carrier {
    socket: std::net::TcpStream,
    open: OpenSocket,
}

impl Outlet for Carrier {
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = match parts {
            [one] => rustix::net::send(&self.socket, one, SendFlags::NOSIGNAL),
            several => rustix::io::writev(&self.socket, several),
        };
        Ok(written?)
    }

    fn finish(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
    }

    fn abandon(&mut self) {
        let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }

    fn error(&self) -> Option<io::ErrorKind> {
        self.socket.take_error().ok().flatten().map(|error| error.kind())
    }
}

/// Runs a reactor until its node ends. A reactor that ended before would leave its streams open and
/// silent, and new ones with them: rather than that, the whole node ends, and clients come back
/// elsewhere.
fn end_with(reactor: Reactor) {
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| reactor.run()));
    if !matches!(ran, Ok(Ok(()))) {
        tracing::error!(?ran, "a reactor broke");
        std::process::abort();
    }
}

/// One thread.
struct Reactor {
    inbox: Arc<Inbox>,
    carried: Carried<Carrier>,
    give_back: mpsc::UnboundedSender<Returned>,
    draining: bool,
    /// Empty: room for the messages of a turn, taken in exchange for that of the inbox.
    messages: Vec<Message>,
}

impl Reactor {
    /// # Errors
    /// When the kernel refuses to wait, which it has no reason to: the descriptors are ours.
    fn run(mut self) -> io::Result<()> {
        // A handle of its own: `self` is lent to what happens.
        let inbox = self.inbox.clone();
        loop {
            let mut now = None;
            let mut longest = self.longest_wait();
            if longest != Some(Duration::ZERO) && !inbox.falls_asleep() {
                longest = Some(Duration::ZERO);
            }
            inbox.events.wait(longest, |data, happened| {
                let now = *now.get_or_insert_with(Instant::now);
                let id = ((data >> 32) as u32, data as u32);
                match happened {
                    Happened::HungUp => self.carried.hung_up(id),
                    Happened::Writable => self.carried.writable(id, now),
                }
            })?;
            inbox.asleep.store(false, Ordering::Release);
            if !self.read_inbox() {
                return Ok(());
            }
            let now = Instant::now();
            self.carried.pass_time(now);
            self.carried.work(now);
            self.let_go();
        }
    }

    /// How long nothing is to be done if nothing happens; `None` for ever.
    fn longest_wait(&self) -> Option<Duration> {
        if self.carried.is_busy() {
            return Some(Duration::ZERO);
        }
        Some(self.carried.wakes_at()?.saturating_duration_since(Instant::now()))
    }

    /// Says no when it is time to stop.
    fn read_inbox(&mut self) -> bool {
        let mut messages = std::mem::take(&mut self.messages);
        std::mem::swap(&mut *self.inbox.messages(), &mut messages);
        for message in messages.drain(..) {
            match message {
                Message::News(key) => self.carried.news(key),
                Message::Park(parked) => self.take(parked.0, parked.1),
                Message::Drain(drain) => {
                    self.draining = true;
                    self.carried.drain(|| drain.take_turn().into_std());
                }
                Message::Stop => return false,
            }
        }
        // Room is kept from turn to turn, but not that of a stampede.
        messages.shrink_to(MESSAGES_KEPT);
        self.messages = messages;
        true
    }

    fn take(&mut self, outlet: Carrier, parked: Parked) {
        let Parked { joined, position, snapshot, lifetime } = parked;
        let topic = joined.topic.clone();
        let moving = Moving { outlet, topic, position, snapshot, lifetime };
        if self.draining {
            // Connections know how to take their turn.
            self.carried.leaving.push(moving);
            return;
        }
        let (id, outlet) = self.carried.take(moving);
        let data = (u64::from(id.0) << 32) | u64::from(id.1);
        if let Err(error) = self.inbox.events.watch(&outlet.socket, data) {
            tracing::warn!(%error, "a stream cannot be carried");
            self.carried.hung_up(id);
        }
        // Only now: the topic must not be swept between the connection and the stream.
        drop(joined);
    }

    fn let_go(&mut self) {
        for moving in self.carried.leaving.drain(..) {
            let Moving { outlet, topic, position, snapshot, lifetime } = moving;
            let Carrier { socket, open } = outlet;
            self.inbox.events.unwatch(&socket);
            let returned = Returned { socket, open, topic, position, snapshot, lifetime };
            // With nobody left to take it the node is about to end, and so is the stream.
            let _ = self.give_back.send(returned);
        }
    }
}
