//! [`publish`]: sends events at the moments at which they are due, or as fast as answers come.
//!
//! A schedule is fixed before the run and never waits for the server (an open loop): what is due
//! while the answer to an earlier publish is awaited, waits in line with its moment in its marker,
//! and that wait is part of its latency. Each topic has its connection, so that its events are
//! published in the order of their numbers.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::clock;
use crate::crowd::connect;
use crate::histogram::Histogram;
use crate::server::Server;

/// How long the last answers may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// When to publish what.
pub(crate) enum Pace {
    /// (microseconds from the beginning, topic), in order of time.
    Schedule(Vec<(u64, u32)>),
    /// As soon as the connection has its answer, for so long; connection n publishes to topic n.
    Closed(Duration),
}

impl Pace {
    /// `rate` events a second for so long, evenly, to one topic after the other.
    pub(crate) fn rate(rate: f64, seconds: f64, topics: u32) -> Pace {
        let count = (rate * seconds).round().max(1.0) as u64;
        let at = |n: u64| ((n as f64 * 1e6 / rate) as u64, (n % u64::from(topics)) as u32);
        Pace::Schedule((0..count).map(at).collect())
    }
}

/// What was published.
#[derive(Default)]
pub(crate) struct Published {
    /// Events of each topic.
    pub counts: Vec<u32>,
    /// From when a publish was due to its answer.
    pub answers: Histogram,
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
    /// A connection of the line with this index.
    fn connect(&self, epoll: &OwnedFd, index: usize) -> Result<OwnedFd, String> {
        let socket = connect(self.server.publishing, 0).map_err(|e| format!("publisher: {e}"))?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(epoll, &socket, data, epoll::EventFlags::IN).map_err(|e| e.to_string())?;
        Ok(socket)
    }
}

struct Line {
    socket: OwnedFd,
    /// (due, topic)
    waiting: VecDeque<(u64, u32)>,
    /// When what is being answered was due.
    asked: Option<u64>,
    answer: Vec<u8>,
}

/// Publishes everything, and returns when all answers are there.
///
/// # Errors
/// When a publish is refused, or an answer does not come.
pub(crate) fn publish(job: &Job<'_>, pace: Pace) -> Result<Published, String> {
    let count = match pace {
        Pace::Schedule(_) => job.connections.min(job.topics as usize),
        Pace::Closed(_) => job.connections,
    };
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| e.to_string())?;
    let mut lines = Vec::new();
    for n in 0..count {
        let socket = job.connect(&epoll, n)?;
        lines.push(Line { socket, waiting: VecDeque::new(), asked: None, answer: Vec::new() });
    }
    let mut run = Run {
        job,
        lines,
        asked: 0,
        published: Published { counts: vec![0; job.topics as usize], ..Published::default() },
        data: String::new(),
        request: Vec::new(),
    };
    run.whole(&epoll, pace)?;
    Ok(run.published)
}

struct Run<'a> {
    job: &'a Job<'a>,
    lines: Vec<Line>,
    /// Answers that are awaited.
    asked: usize,
    published: Published,
    data: String,
    request: Vec<u8>,
}

impl Run<'_> {
    fn whole(&mut self, epoll: &OwnedFd, pace: Pace) -> Result<(), String> {
        let (schedule, closed) = match pace {
            Pace::Schedule(schedule) => (schedule, None),
            Pace::Closed(duration) => {
                let ends = self.job.begins + duration.as_micros() as u64;
                let first = (0..self.lines.len() as u32).map(|n| (0, n % self.job.topics));
                (first.collect(), Some(ends))
            }
        };
        let nothing =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = vec![nothing; 256];
        let mut schedule = schedule.into_iter().enumerate().peekable();
        let mut waiting_since = clock::now();
        loop {
            let now = clock::now();
            while let Some((n, (at, topic))) =
                schedule.next_if(|next| self.job.begins + next.1.0 <= now)
            {
                let line = if closed.is_some() { n } else { topic as usize % self.lines.len() };
                self.lines[line].waiting.push_back((self.job.begins + at, topic));
                self.send_next(line)?;
            }
            let next = schedule.peek().map(|(_, (at, _))| self.job.begins + at);
            if next.is_none() && self.asked == 0 {
                break;
            }
            let now = clock::now();
            let pause = next.map_or(100_000, |next| next.saturating_sub(now).min(100_000));
            let pause = Timespec { tv_sec: 0, tv_nsec: pause as i64 * 1000 };
            let count = match epoll::wait(epoll, &mut events[..], Some(&pause)) {
                Ok(count) => count,
                Err(Errno::INTR) => 0,
                Err(error) => return Err(format!("epoll: {error}")),
            };
            if count > 0 || self.asked == 0 {
                waiting_since = now;
            } else if now - waiting_since > ANSWERS_WITHIN.as_micros() as u64 {
                return Err(format!("{} publishes were not answered", self.asked));
            }
            for event in &events[..count] {
                let data = event.data;
                let line = data.u64() as usize;
                if self.answered(epoll, line)? {
                    let now = clock::now();
                    if closed.is_some_and(|ends| now < ends) {
                        let topic = line as u32 % self.job.topics;
                        self.lines[line].waiting.push_back((now, topic));
                    }
                    self.send_next(line)?;
                }
            }
        }
        self.published.took = Duration::from_micros(clock::now().saturating_sub(self.job.begins));
        Ok(())
    }

    fn send_next(&mut self, line: usize) -> Result<(), String> {
        let Run { job, lines, published, data, request, asked } = self;
        let line = &mut lines[line];
        if line.asked.is_some() {
            return Ok(());
        }
        let Some((due, topic)) = line.waiting.pop_front() else { return Ok(()) };
        let number = &mut published.counts[topic as usize];
        *number += 1;
        data.clear();
        let _ = write!(data, "~{number}.{due}~");
        // Comes out as text without anything to escape.
        data.extend(std::iter::repeat_n('x', job.bytes.saturating_sub(data.len())));
        request.clear();
        job.server.dialect.publish_request(job.run, topic, data, request);
        let sent = rustix::net::send(&line.socket, request, SendFlags::NOSIGNAL);
        if sent != Ok(request.len()) {
            return Err(format!("publisher: cannot send: {sent:?}"));
        }
        line.asked = Some(due);
        *asked += 1;
        Ok(())
    }

    /// Reads what there is of an answer; says whether it is complete.
    fn answered(&mut self, epoll: &OwnedFd, index: usize) -> Result<bool, String> {
        let line = &mut self.lines[index];
        let mut buffer = [0; 4096];
        match rustix::net::recv(&line.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err("the server closed a publisher's connection".to_owned()),
            Ok((length, _)) => line.answer.extend_from_slice(&buffer[..length]),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(error) => return Err(format!("publisher: {error}")),
        }
        let Some((body, goes_on)) = complete(&line.answer)? else { return Ok(false) };
        if let Some((_, id)) = body.split_once("{\"id\":\"") {
            self.published.last_id.clear();
            self.published.last_id.push_str(id.split('"').next().unwrap_or_default());
        }
        line.answer.clear();
        if !goes_on {
            // Some take one request a connection.
            line.socket = self.job.connect(epoll, index)?;
        }
        if let Some(due) = line.asked.take() {
            self.published.answers.record(clock::now().saturating_sub(due));
            self.asked -= 1;
        }
        Ok(true)
    }
}

/// The body of an answer, once all of it is there, and whether another request can follow.
fn complete(answer: &[u8]) -> Result<Option<(&str, bool)>, String> {
    let text = std::str::from_utf8(answer).map_err(|_| "an answer that is no text".to_owned())?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    let status = head.get(9..12).unwrap_or_default();
    if !status.starts_with('2') {
        return Err(format!("a publish was answered: {text}"));
    }
    let header = |name: &str| {
        let mut lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let whole = if let Some(length) = header("content-length") {
        body.len() >= length.parse().map_err(|_| format!("an answer's length is {length}"))?
    } else {
        header("transfer-encoding").is_none() || body.ends_with("0\r\n\r\n")
    };
    let goes_on = !header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(whole.then_some((body, goes_on)))
}
