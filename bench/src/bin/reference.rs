//! The limit to compare with: the smallest server that says what Fantail says.
//!
//! One thread, one epoll. A stream of `GET /topics/{topic}/events` gets the same head, the same
//! opening block, and every event as one chunk with the same `id:` and `data:` lines; a
//! `POST /topics/{topic}/events` with `{"data":"…"}` sends it at once to all streams of the topic,
//! with exactly one `send` for each and nothing else. There is no history, no resume, no second
//! node, no protection from slow readers (one whose socket is full is cut), no escaping, no limit,
//! and whatever is not expected ends the connection. What is left is what the kernel takes.
//!
//!     fantail-bench-reference [<address>]     default 127.0.0.1:0; says where it listens

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, sockopt};

/// As Fantail's default.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// As Fantail's.
const BACKLOG: i32 = 4096;
const LISTENER: u64 = u64::MAX;
const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
    cache-control: no-cache, no-transform\r\nx-accel-buffering: no\r\nconnection: keep-alive\r\n\
    vary: access-control-request-headers\r\naccess-control-allow-origin: *\r\n\
    access-control-expose-headers: last-event-id,location,retry-after,\
    idempotent-replayed\r\n\
    transfer-encoding: chunked\r\ndate: Sat, 21 Nov 2026 07:10:38 GMT\r\n\r\n";

struct Connection {
    socket: OwnedFd,
    /// The index of its topic, once it is a stream.
    topic: Option<u32>,
    /// What came of a request that is not complete.
    request: Vec<u8>,
    last_sent: Instant,
}

#[derive(Default)]
struct Topic {
    seq: u64,
    streams: Vec<u32>,
}

#[derive(Default)]
struct Server {
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    names: HashMap<String, u32>,
    topics: Vec<Topic>,
    /// When which stream was given its last heartbeat, the oldest first.
    heartbeats: VecDeque<(Instant, u32)>,
    text: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    rustix::net::listen(&listener, BACKLOG)?;
    eprintln!("listening on http://{}", listener.local_addr()?);

    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let readable = epoll::EventFlags::IN;
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), readable)?;
    let mut server = Server::default();
    let nothing =
        epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
    let mut events = vec![nothing; 1024];
    loop {
        let pause = server.beat();
        let pause = Timespec::try_from(pause)?;
        let count = match epoll::wait(&epoll, &mut events[..], Some(&pause)) {
            Err(Errno::INTR) => continue,
            count => count?,
        };
        for event in &events[..count] {
            let data = event.data;
            match data.u64() {
                LISTENER => server.accept(&listener, &epoll)?,
                index => server.read(index as u32),
            }
        }
    }
}

impl Server {
    fn accept(&mut self, listener: &TcpListener, epoll: &OwnedFd) -> Result<(), Box<dyn Error>> {
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = match rustix::net::accept_with(listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            sockopt::set_tcp_nodelay(&socket, true)?;
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() as u32 - 1
            });
            let data = epoll::EventData::new_u64(u64::from(index));
            epoll::add(epoll, &socket, data, epoll::EventFlags::IN)?;
            let request = Vec::new();
            let connection = Connection { socket, topic: None, request, last_sent: Instant::now() };
            self.connections[index as usize] = Some(connection);
        }
    }

    fn read(&mut self, index: u32) {
        let Some(connection) = &mut self.connections[index as usize] else { return };
        let mut buffer = [0; 16 << 10];
        match rustix::net::recv(&connection.socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((length, _)) if length > 0 => {
                connection.request.extend_from_slice(&buffer[..length]);
            }
            Err(Errno::AGAIN | Errno::INTR) => return,
            _ => return self.close(index),
        }
        // Nobody sends a second request before the first is answered.
        let request = std::mem::take(&mut connection.request);
        match self.answer(index, &request) {
            Some(true) => {}
            Some(false) => {
                if let Some(connection) = &mut self.connections[index as usize] {
                    connection.request = request;
                }
            }
            None => self.close(index),
        }
    }

    /// Some(false) if the request is not complete, `None` if it is none that is known here.
    fn answer(&mut self, index: u32, request: &[u8]) -> Option<bool> {
        let request = std::str::from_utf8(request).ok()?;
        let Some((head, body)) = request.split_once("\r\n\r\n") else { return Some(false) };
        let (method, rest) = head.split_once(" /topics/")?;
        let (name, _) = rest.split_once("/events")?;
        if method == "GET" {
            self.open(index, name);
            return Some(true);
        }
        let head = head.to_ascii_lowercase();
        let (_, length) = head.split_once("content-length: ")?;
        let length: usize = length.lines().next()?.trim().parse().ok()?;
        if body.len() < length {
            return Some(false);
        }
        let data = body.strip_prefix("{\"data\":\"")?.strip_suffix("\"}")?;
        self.publish(index, name, data);
        Some(true)
    }

    fn topic(&mut self, name: &str) -> u32 {
        if let Some(&topic) = self.names.get(name) {
            return topic;
        }
        let topic = self.topics.len() as u32;
        self.topics.push(Topic::default());
        self.names.insert(name.to_owned(), topic);
        topic
    }

    fn open(&mut self, index: u32, name: &str) {
        let topic = self.topic(name);
        let Topic { seq, streams } = &mut self.topics[topic as usize];
        streams.push(index);
        let block = format!(
            "retry: 3000\nid: {seq}-abcdef\ndata: {{\"type\":\"connected\",\"node\":\"bench\"}}\n\n"
        );
        let Some(connection) = &mut self.connections[index as usize] else { return };
        connection.topic = Some(topic);
        // Streams say nothing more; what they asked with need not be kept.
        connection.request = Vec::new();
        self.heartbeats.push_back((Instant::now(), index));
        let text = format!("{STREAM_HEAD}{:x}\r\n{block}\r\n", block.len());
        self.send(index, text.as_bytes());
    }

    fn publish(&mut self, index: u32, name: &str, data: &str) {
        let topic = self.topic(name);
        let Topic { seq, streams } = &mut self.topics[topic as usize];
        *seq += 1;
        let seq = *seq;
        let streams = std::mem::take(streams);
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let block_bytes = "id: -abcdef\ndata: \n\n".len() + digits(seq) + data.len();
        let _ = write!(text, "{block_bytes:x}\r\nid: {seq}-abcdef\ndata: {data}\n\n\r\n");
        for &stream in &streams {
            self.send(stream, text.as_bytes());
        }
        // Closing takes from this list; none was closed unless a reader was too slow.
        let closed = |stream: &u32| self.connections[*stream as usize].is_some();
        self.topics[topic as usize].streams = streams.into_iter().filter(closed).collect();
        text.clear();
        let body = format!("{{\"id\":\"{seq}-abcdef\"}}");
        let _ = write!(
            text,
            "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\n\
             last-event-id: {seq}-abcdef\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.send(index, text.as_bytes());
        self.text = text;
    }

    fn send(&mut self, index: u32, bytes: &[u8]) {
        let Some(connection) = &mut self.connections[index as usize] else { return };
        let sent = rustix::net::send(&connection.socket, bytes, SendFlags::NOSIGNAL);
        connection.last_sent = Instant::now();
        if sent != Ok(bytes.len()) {
            self.close(index);
        }
    }

    fn close(&mut self, index: u32) {
        let Some(connection) = self.connections[index as usize].take() else { return };
        if let Some(topic) = connection.topic {
            self.topics[topic as usize].streams.retain(|&stream| stream != index);
        }
        self.free.push(index);
    }

    /// Sends the heartbeats that are due. Returns the time until the next.
    fn beat(&mut self) -> Duration {
        let now = Instant::now();
        while let Some(&(since, index)) = self.heartbeats.front() {
            if now < since + HEARTBEAT {
                return since + HEARTBEAT - now;
            }
            self.heartbeats.pop_front();
            let Some(connection) = &self.connections[index as usize] else { continue };
            if connection.topic.is_none() {
                continue;
            }
            // Heartbeats are for silence: what was sent since puts them off.
            let last_sent = connection.last_sent;
            if now < last_sent + HEARTBEAT {
                self.heartbeats.push_back((last_sent, index));
                continue;
            }
            self.send(index, b"c\r\n: heartbeat\n\r\n");
            self.heartbeats.push_back((now, index));
        }
        HEARTBEAT
    }
}

/// How many decimal digits a number from 1 on has.
fn digits(number: u64) -> usize {
    number.ilog10() as usize + 1
}
