//! [`publish`]: sends events at the moments at which they are due, or as fast as answers come.
//!
//! A schedule is fixed before the run and never waits for the server (an open loop): what is due
//! while the answer to an earlier publish is awaited, waits in line with its moment in its marker,
//! and that wait is part of its latency. Each topic has its connection, so that its events are
//! published in the order of their numbers.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::http::header;
use super::scanner::Marker;
use super::socket::{connect, wait};
use crate::clock;
use crate::histogram::Histogram;
use crate::server::Server;

/// How long the last answers may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// When to publish what.
pub(crate) enum Pace {
    /// (microseconds from the beginning, topic), in order of time. Each topic is a series.
    Schedule(Vec<(u64, u32)>),
    /// As soon as the connection has its answer, for so long; connection n publishes to topic n,
    /// or to the only one. Each connection is a series.
    Closed(Duration),
}

impl Pace {
    /// `rate` events a second for so long, evenly, to one topic after the other.
    pub(crate) fn rate(rate: f64, seconds: f64, topics: u32) -> Pace {
        Pace::bursts(1, rate, seconds, topics)
    }

    /// The same, but so many at the same moment.
    pub(crate) fn bursts(burst: u32, rate: f64, seconds: f64, topics: u32) -> Pace {
        let count = (rate * seconds).round().max(1.0) as u64;
        let at = |n: u64| {
            let first = n - n % u64::from(burst);
            ((first as f64 * 1e6 / rate) as u64, (n % u64::from(topics)) as u32)
        };
        Pace::Schedule((0..count).map(at).collect())
    }
}

/// What was published.
#[derive(Default)]
pub(crate) struct Published {
    /// Events of each series.
    pub counts: Vec<u32>,
    /// From when a publish was due to its answer.
    pub answers: Histogram,
    /// From when a publish was due to when it was sent, for those that had no answer to await: how
    /// late the load is by itself.
    pub lateness: Histogram,
    /// From the first moment to the last answer.
    pub took: Duration,
    /// The id that the last answer named, if it named one.
    pub last_id: String,
}

impl Published {
    /// How many events were published.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().map(|&count| u64::from(count)).sum()
    }
}

/// What to publish where.
pub(crate) struct Job<'a> {
    /// The server.
    pub server: &'a Server,
    /// What the names of this run's topics begin with.
    pub run: &'a str,
    /// How many topics there are.
    pub topics: u32,
    /// Bytes of an event's data, its marker included.
    pub bytes: usize,
    /// Connections at most.
    pub connections: usize,
    /// When it begins, in microseconds of the run's clock.
    pub begins: u64,
}

impl Job<'_> {
    /// A connection, known to epoll by its index.
    fn connect(&self, epoll: &OwnedFd, index: usize) -> Result<OwnedFd, String> {
        let socket = connect(self.server.publishing, 0, None);
        let socket = socket.map_err(|error| format!("publisher: {error}"))?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(epoll, &socket, data, epoll::EventFlags::IN).map_err(|e| e.to_string())?;
        Ok(socket)
    }
}

struct Connection {
    socket: OwnedFd,
    /// (due, series)
    waiting: VecDeque<(u64, u32)>,
    /// When the publish was due that is being answered.
    unanswered: Option<u64>,
    answer: Vec<u8>,
}

/// Publishes everything, and returns when all answers are there.
///
/// # Errors
/// When a publish is refused, or an answer does not come.
pub(crate) fn publish(job: &Job<'_>, pace: Pace) -> Result<Published, String> {
    // By default the kernel may wake this thread 50 µs after an event is due. Not critical.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let (connections, series) = match pace {
        Pace::Schedule(_) => (job.connections.min(job.topics as usize), job.topics as usize),
        Pace::Closed(_) => (job.connections, job.connections),
    };
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| e.to_string())?;
    let connection = |n| {
        let socket = job.connect(&epoll, n)?;
        let (waiting, answer) = (VecDeque::new(), Vec::new());
        Ok::<_, String>(Connection { socket, waiting, unanswered: None, answer })
    };
    let mut publisher = Publisher {
        job,
        connections: (0..connections).map(connection).collect::<Result<_, _>>()?,
        unanswered: 0,
        published: Published { counts: vec![0; series], ..Published::default() },
        data: String::new(),
        request: Vec::new(),
    };
    publisher.run(&epoll, pace)?;
    Ok(publisher.published)
}

struct Publisher<'a> {
    job: &'a Job<'a>,
    connections: Vec<Connection>,
    /// Answers that are awaited.
    unanswered: usize,
    published: Published,
    data: String,
    request: Vec<u8>,
}

impl Publisher<'_> {
    fn run(&mut self, epoll: &OwnedFd, pace: Pace) -> Result<(), String> {
        let (schedule, closed) = match pace {
            Pace::Schedule(schedule) => (schedule, None),
            Pace::Closed(duration) => {
                let ends = self.job.begins + duration.as_micros() as u64;
                let first = (0..self.connections.len() as u32).map(|n| (0, n));
                (first.collect(), Some(ends))
            }
        };
        let nothing =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = vec![nothing; 256];
        let mut schedule = schedule.into_iter().peekable();
        let mut waiting_since = clock::now();
        loop {
            let now = clock::now();
            while let Some((at, series)) = schedule.next_if(|(at, _)| self.job.begins + at <= now) {
                let index = series as usize % self.connections.len();
                let due = self.job.begins + at;
                let connection = &mut self.connections[index];
                connection.waiting.push_back((due, series));
                if connection.unanswered.is_none() {
                    self.published.lateness.record(clock::now().saturating_sub(due));
                }
                self.send_next(index)?;
            }
            let next = schedule.peek().map(|(at, _)| self.job.begins + at);
            if next.is_none() && self.unanswered == 0 {
                break;
            }
            let now = clock::now();
            let pause = next.map_or(100_000, |next| next.saturating_sub(now).min(100_000));
            let count = wait(epoll, &mut events, Duration::from_micros(pause))
                .map_err(|error| format!("epoll: {error}"))?;
            if count > 0 || self.unanswered == 0 {
                waiting_since = now;
            } else if now - waiting_since > ANSWER_TIMEOUT.as_micros() as u64 {
                return Err(format!("{} publishes were not answered", self.unanswered));
            }
            for event in &events[..count] {
                let data = event.data;
                let index = data.u64() as usize;
                if self.read_answer(epoll, index)? {
                    let now = clock::now();
                    if closed.is_some_and(|ends| now < ends) {
                        self.connections[index].waiting.push_back((now, index as u32));
                    }
                    self.send_next(index)?;
                }
            }
        }
        self.published.took = Duration::from_micros(clock::now().saturating_sub(self.job.begins));
        Ok(())
    }

    /// Sends what waits on a connection, unless an answer is awaited there.
    fn send_next(&mut self, index: usize) -> Result<(), String> {
        let Publisher { job, connections, published, data, request, unanswered } = self;
        let connection = &mut connections[index];
        if connection.unanswered.is_some() {
            return Ok(());
        }
        let Some((due, series)) = connection.waiting.pop_front() else { return Ok(()) };
        let number = &mut published.counts[series as usize];
        *number += 1;
        data.clear();
        let _ = write!(data, "{}", Marker { series, number: *number, due });
        // Comes out as text without anything to escape.
        data.extend(std::iter::repeat_n('x', job.bytes.saturating_sub(data.len())));
        request.clear();
        job.server.dialect.publish_request(job.run, series % job.topics, data, request);
        let sent = rustix::net::send(&connection.socket, request, SendFlags::NOSIGNAL);
        if sent != Ok(request.len()) {
            return Err(format!("publisher: cannot send: {sent:?}"));
        }
        connection.unanswered = Some(due);
        *unanswered += 1;
        Ok(())
    }

    /// Reads what there is of an answer; says whether it is complete.
    fn read_answer(&mut self, epoll: &OwnedFd, index: usize) -> Result<bool, String> {
        let connection = &mut self.connections[index];
        let mut buffer = [0; 4096];
        match rustix::net::recv(&connection.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err("the server closed a publisher's connection".to_owned()),
            Ok((length, _)) => connection.answer.extend_from_slice(&buffer[..length]),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(error) => return Err(format!("publisher: {error}")),
        }
        let Some((body, goes_on)) = complete(&connection.answer)? else { return Ok(false) };
        if let Some((_, id)) = body.split_once("{\"id\":\"") {
            self.published.last_id.clear();
            self.published.last_id.push_str(id.split('"').next().unwrap_or_default());
        }
        connection.answer.clear();
        if !goes_on {
            // Some take one request a connection.
            connection.socket = self.job.connect(epoll, index)?;
        }
        if let Some(due) = connection.unanswered.take() {
            self.published.answers.record(clock::now().saturating_sub(due));
            self.unanswered -= 1;
        }
        Ok(true)
    }
}

/// The body of an answer, once all of it is there, and whether another request can follow.
fn complete(answer: &[u8]) -> Result<Option<(&str, bool)>, String> {
    let text = std::str::from_utf8(answer).map_err(|_| "an answer that is no text".to_owned())?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    let status = head.get(9..12).unwrap_or_default();
    // Centrifugo answers errors with 200, too.
    if !status.starts_with('2') || body.contains("\"error\":") {
        return Err(format!("a publish was answered: {text}"));
    }
    let whole = if let Some(length) = header(head, "content-length") {
        body.len() >= length.parse().map_err(|_| format!("an answer's length is {length}"))?
    } else {
        header(head, "transfer-encoding").is_none() || body.ends_with("0\r\n\r\n")
    };
    let close = header(head, "connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
    Ok(whole.then_some((body, !close)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_keep_the_rate_and_the_order_of_topics() {
        let schedule = |pace| match pace {
            Pace::Schedule(schedule) => schedule,
            Pace::Closed(_) => Vec::new(),
        };
        let even = schedule(Pace::rate(1000.0, 0.004, 3));
        assert_eq!(even, [(0, 0), (1000, 1), (2000, 2), (3000, 0)]);
        let bursts = schedule(Pace::bursts(2, 1000.0, 0.004, 3));
        assert_eq!(bursts, [(0, 0), (0, 1), (2000, 2), (2000, 0)]);
    }

    #[test]
    fn an_answer_is_complete_with_its_body() {
        let answer = "HTTP/1.1 201 Created\r\ncontent-length: 2\r\n";
        let close = format!("{answer}connection: Close\r\n\r\nok");
        assert_eq!(complete(format!("{answer}\r\no").as_bytes()), Ok(None));
        assert_eq!(complete(format!("{answer}\r\nok").as_bytes()), Ok(Some(("ok", true))));
        assert_eq!(complete(close.as_bytes()), Ok(Some(("ok", false))));
        for wrong in ["HTTP/1.1 503 Full\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n{\"error\":{}}"] {
            assert!(complete(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
