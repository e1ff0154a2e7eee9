//! [`Subscribers`]: many streams, read by a few threads that each wait on one epoll.
//!
//! What it costs matters, because it shares the machine with what it measures: a stream is one
//! socket and some hundred bytes, a delivery is one `recv` into a buffer that all streams of the
//! thread share. What comes is read at once: a server that lets small writes wait for
//! acknowledgements (Nagle's algorithm) would seem cheap to a load that reads late. Every stream's
//! account is kept: what it missed, got twice or got out of order.

use std::io;
use std::net::SocketAddrV4;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::scanner::{Marker, Scanned, Scanner};
use super::socket::connect;
use crate::clock;
use crate::histogram::Histogram;
use crate::server::{Dialect, Server};

/// Streams of one group from one source address: the kernel has some 28,000 ports for it, and there
/// can be three groups at a time.
const STREAMS_PER_ADDRESS: usize = 8_000;
/// How long opening all of them may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(300);
/// What one `recv` takes at most, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// One stream to open.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Indices of its topics.
    pub topics: Range<u32>,
    /// The series of events it should get.
    pub series: Range<u32>,
    /// The number of the first event it should get of each series.
    pub first: u32,
    /// Where to resume, if it does.
    pub last_event_id: Option<Arc<str>>,
    /// Bytes of the socket's receive buffer, if it is not left to the kernel.
    pub receive_buffer: Option<usize>,
}

impl Plan {
    /// A stream of these topics, to each of which one connection publishes from now on.
    pub(crate) fn of(topics: Range<u32>) -> Plan {
        let series = topics.clone();
        Plan { topics, series, first: 1, last_event_id: None, receive_buffer: None }
    }

    /// `count` streams, spread over `topics` topics.
    pub(crate) fn spread(topics: u32, count: usize) -> Vec<Plan> {
        Plan::spread_groups(topics, 1, count)
    }

    /// `count` streams of `each` topics, spread over `topics` topics.
    pub(crate) fn spread_groups(topics: u32, each: u32, count: usize) -> Vec<Plan> {
        let plan = |n| {
            let first = n as u32 % (topics / each) * each;
            Plan::of(first..first + each)
        };
        (0..count).map(plan).collect()
    }
}

/// What the threads say while they run.
#[derive(Default)]
struct Progress {
    opened: AtomicUsize,
    last_opened: AtomicU64,
    delivered: AtomicU64,
    /// Times at which a stream had something to read.
    reads: AtomicU64,
    failed: AtomicBool,
    /// Nothing is read any more.
    silent: AtomicBool,
    stop: AtomicBool,
    /// Events that were due earlier are not counted among the latencies: the warm-up.
    counts_from: AtomicU64,
}

/// Streams that are open, and the threads that read them.
pub(crate) struct Subscribers {
    progress: Arc<Progress>,
    threads: Vec<JoinHandle<Result<Account, String>>>,
    streams: usize,
    began: u64,
}

/// What all streams of a group got.
#[derive(Default)]
pub(crate) struct Account {
    /// From when a publish was due to when a stream had it.
    pub latencies: Histogram,
    /// From `connect` to when a stream was open.
    pub openings: Histogram,
    /// Events that streams got.
    pub delivered: u64,
    /// Events that were passed over.
    pub lost: u64,
    /// Events that came again, or after a later one.
    pub duplicates: u64,
    /// The streams: series, and number of the next event.
    ends: Vec<(u32, u32)>,
}

impl Subscribers {
    /// Opens all planned streams, as fast as the server takes them.
    pub(crate) fn open(server: &Server, run: &str, plans: &[Plan], threads: usize) -> Subscribers {
        let progress = Arc::<Progress>::default();
        let began = clock::now();
        let threads = (0..threads).map(|thread| {
            // Every thread has streams of every topic.
            let share = plans.iter().enumerate().skip(thread).step_by(threads);
            let mut reader = Reader {
                address: server.streams,
                plans: share.map(|(n, plan)| (n, plan.clone())).collect(),
                dialect: server.dialect,
                run: run.to_owned(),
                streams: Vec::new(),
                next: Vec::new(),
                opening: 0,
                account: Account::default(),
                progress: progress.clone(),
            };
            std::thread::spawn(move || {
                let result = reader.read_all();
                if result.is_err() {
                    reader.progress.failed.store(true, Ordering::Relaxed);
                }
                result.map(|()| reader.account)
            })
        });
        let threads = threads.collect();
        Subscribers { progress, threads, streams: plans.len(), began }
    }

    /// Opens all planned streams and waits until they are open. Returns how long it took from the
    /// first `connect` to the last greeting, too.
    ///
    /// # Errors
    /// When a stream failed, or not all are open after five minutes.
    pub(crate) fn opened(
        server: &Server,
        run: &str,
        plans: &[Plan],
        threads: usize,
    ) -> Result<(Subscribers, Duration), String> {
        let subscribers = Subscribers::open(server, run, plans, threads);
        let opened = || subscribers.progress.opened.load(Ordering::Relaxed);
        let what = format!("{} streams to open", subscribers.streams);
        let done = || opened() == subscribers.streams || subscribers.failed();
        if let Err(why) = clock::until(&what, OPEN_TIMEOUT, done) {
            let why = format!("{why} ({} are)", opened());
            return Err(subscribers.close().err().unwrap_or(why));
        }
        if subscribers.failed() {
            subscribers.close()?;
            return Err("a stream failed".to_owned());
        }
        let took = subscribers.progress.last_opened.load(Ordering::Relaxed) - subscribers.began;
        Ok((subscribers, Duration::from_micros(took)))
    }

    /// How many streams there are.
    pub(crate) fn streams(&self) -> usize {
        self.streams
    }

    /// Counts latencies of events that are due from now on.
    pub(crate) fn count_from(&self, microseconds: u64) {
        self.progress.counts_from.store(microseconds, Ordering::Relaxed);
    }

    /// Reads nothing any more, and leaves the streams open.
    pub(crate) fn fall_silent(&self) {
        self.progress.silent.store(true, Ordering::Relaxed);
    }

    /// Events that streams got up to now.
    pub(crate) fn delivered(&self) -> u64 {
        self.progress.delivered.load(Ordering::Relaxed)
    }

    /// How often a stream had something to read, up to now.
    pub(crate) fn reads(&self) -> u64 {
        self.progress.reads.load(Ordering::Relaxed)
    }

    /// Waits until streams got `events` events, all together.
    ///
    /// # Errors
    /// When a stream failed, or after `at_most`; then the account says what is missing.
    pub(crate) fn until_delivered(&self, events: u64, at_most: Duration) -> Result<(), String> {
        let what = format!("{events} deliveries");
        clock::until(&what, at_most, || self.delivered() >= events || self.failed())
            .map_err(|why| format!("{why} (there were {})", self.delivered()))
    }

    /// Whether a stream failed; closing says why.
    pub(crate) fn failed(&self) -> bool {
        self.progress.failed.load(Ordering::Relaxed)
    }

    /// Closes all streams, and returns what they got.
    ///
    /// # Errors
    /// When a stream failed.
    pub(crate) fn close(self) -> Result<Account, String> {
        self.progress.stop.store(true, Ordering::Relaxed);
        let mut whole = Account::default();
        for thread in self.threads {
            let account = thread.join().map_err(|_| "a reader panicked".to_owned())??;
            whole.latencies.add(&account.latencies);
            whole.openings.add(&account.openings);
            whole.delivered += account.delivered;
            whole.lost += account.lost;
            whole.duplicates += account.duplicates;
            whole.ends.extend(account.ends);
        }
        Ok(whole)
    }

    /// Closes all streams, and returns what they got if every stream got every event once and in
    /// order. `published`: how many events each series has.
    ///
    /// # Errors
    /// What was wrong.
    pub(crate) fn close_complete(self, published: &[u32]) -> Result<Account, String> {
        let streams = self.streams;
        let account = self.close()?;
        let behind = |&&(series, next): &&(u32, u32)| next != published[series as usize] + 1;
        let incomplete = account.ends.iter().filter(behind).count();
        if incomplete + (account.lost + account.duplicates) as usize > 0 {
            return Err(format!(
                "of {streams} streams with {} series, {incomplete} series lack the last event; {} \
                 events were passed over, {} came again or out of order",
                account.ends.len(),
                account.lost,
                account.duplicates
            ));
        }
        Ok(account)
    }
}

struct Stream {
    socket: OwnedFd,
    scanner: Scanner,
    series: Range<u32>,
    /// Where the numbers of its series begin in [`Reader::next`].
    next_at: usize,
    began: u64,
}

/// One thread's streams.
struct Reader {
    address: SocketAddrV4,
    dialect: Dialect,
    run: String,
    plans: Vec<(usize, Plan)>,
    streams: Vec<Stream>,
    /// For each series of each stream the number of the next event.
    next: Vec<u32>,
    opening: usize,
    account: Account,
    progress: Arc<Progress>,
}

impl Reader {
    fn read_all(&mut self) -> Result<(), String> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| e.to_string())?;
        let nothing =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = vec![nothing; 1024];
        let mut buffer = vec![0; BUFFER_BYTES];
        let tick = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let mut plans = std::mem::take(&mut self.plans).into_iter().peekable();
        while !self.progress.stop.load(Ordering::Relaxed) {
            if self.progress.silent.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            while self.opening < self.dialect.opening_max() {
                let Some((n, plan)) = plans.next() else { break };
                self.open(&epoll, n, plan).map_err(|error| format!("a stream: {error}"))?;
            }
            let count = match epoll::wait(&epoll, &mut events[..], Some(&tick)) {
                Ok(count) => count,
                Err(Errno::INTR) => 0,
                Err(error) => return Err(format!("epoll: {error}")),
            };
            let before = self.account.delivered;
            for event in &events[..count] {
                let data = event.data;
                self.read(data.u64() as usize, &mut buffer)?;
            }
            self.progress.reads.fetch_add(count as u64, Ordering::Relaxed);
            let more = self.account.delivered - before;
            if more > 0 {
                self.progress.delivered.fetch_add(more, Ordering::Relaxed);
            }
        }
        for stream in &self.streams {
            let next = self.next[stream.next_at..].iter().copied();
            self.account.ends.extend(stream.series.clone().zip(next));
        }
        self.streams.clear();
        Ok(())
    }

    /// On loopback `connect` and the request take no waiting: both sides are this kernel.
    fn open(&mut self, epoll: &OwnedFd, n: usize, plan: Plan) -> io::Result<()> {
        let began = clock::now();
        let socket = connect(self.address, n / STREAMS_PER_ADDRESS, plan.receive_buffer)?;
        let id = plan.last_event_id.as_deref();
        let request = self.dialect.stream_request(&self.run, plan.topics, id);
        rustix::net::send(&socket, request.as_bytes(), SendFlags::NOSIGNAL)?;
        let index = epoll::EventData::new_u64(self.streams.len() as u64);
        epoll::add(epoll, &socket, index, epoll::EventFlags::IN)?;
        let scanner = Scanner::new(self.dialect.greets());
        let next_at = self.next.len();
        self.next.extend(plan.series.clone().map(|_| plan.first));
        self.streams.push(Stream { socket, scanner, series: plan.series, next_at, began });
        self.opening += 1;
        Ok(())
    }

    /// Reads what one stream has.
    fn read(&mut self, index: usize, buffer: &mut [u8]) -> Result<(), String> {
        let Reader { streams, next, account, progress, opening, .. } = self;
        let stream = &mut streams[index];
        let length = match rustix::net::recv(&stream.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err("the server closed a stream".to_owned()),
            Ok((length, _)) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(format!("a stream: {error}")),
        };
        let now = clock::now();
        let counts_from = progress.counts_from.load(Ordering::Relaxed);
        let mut strange = None;
        stream.scanner.read(&buffer[..length], |scanned| match scanned {
            Scanned::Opened => {
                account.openings.record(now - stream.began);
                *opening -= 1;
                progress.last_opened.fetch_max(now, Ordering::Relaxed);
                progress.opened.fetch_add(1, Ordering::Relaxed);
            }
            Scanned::Event(Marker { series, number, due }) => {
                if !stream.series.contains(&series) {
                    strange = Some(series);
                    return;
                }
                account.delivered += 1;
                let next = &mut next[stream.next_at + (series - stream.series.start) as usize];
                if number < *next {
                    account.duplicates += 1;
                    return;
                }
                account.lost += u64::from(number - *next);
                *next = number.wrapping_add(1);
                if due >= counts_from {
                    account.latencies.record(now.saturating_sub(due));
                }
            }
        })?;
        strange.map_or(Ok(()), |series| Err(format!("a stream got what is for others: {series}")))
    }
}

#[cfg(test)]
mod tests;
