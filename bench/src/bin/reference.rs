//! The limit to compare with: the smallest server that says what Fantail says.
//!
//! One thread, one epoll. A stream of `GET /topics/{topic}/events` gets the same head, the same
//! opening block, and every event as one chunk with the same `data:` and `id:` lines; a
//! `POST /topics/{topic}/events` with `{"data":"…"}` sends it at once to all streams of the topic,
//! with exactly one `send` for each and nothing else. A stream of `GET /events?topics={topic},…` gets
//! the events of all of them, and as their `id:` where it stands in each. There is no history, no resume, no second
//! node, no protection from slow readers (one whose socket is full is cut), no escaping, no limit,
//! and whatever is not expected ends the connection. What is left is what the kernel takes.
//!
//! With `--io-uring` the sends of one event are handed to the kernel together, up to 128 at a time,
//! instead of one call each: what that saves is what a gateway could save by it.
//!
//!     fantail-bench-reference [--io-uring] [<address>]     default 127.0.0.1:0; says where it listens

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, sockopt};

/// As Fantail's default.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// As Fantail's.
const BACKLOG: i32 = 4096;
const LISTENER: u64 = u64::MAX;
/// Sends handed to the kernel together, with io_uring.
const SENDS_MAX: usize = 128;
const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
    cache-control: no-cache, no-transform\r\nx-accel-buffering: no\r\nconnection: keep-alive\r\n\
    vary: origin\r\naccess-control-expose-headers: last-event-id,location,retry-after,\
    idempotent-replayed\r\nx-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\n\
    cross-origin-resource-policy: same-origin\r\n\
    transfer-encoding: chunked\r\ndate: Sat, 21 Nov 2026 07:10:38 GMT\r\n\r\n";

/// What stands between the head and the opening block.
const RETRY: &str = "C\r\nretry: 3000\n\r\n";
/// As many as an id of several topics has.
const CHECK_DIGITS: &str = "~abcdef";

struct Connection {
    socket: OwnedFd,
    /// The index of its group, once it is a stream.
    group: Option<u32>,
    /// What came of a request that is not complete.
    request: Vec<u8>,
    last_sent: Instant,
}

#[derive(Default)]
struct Topic {
    seq: u64,
    /// Whose streams carry it.
    groups: Vec<u32>,
}

/// All streams that carry the same topics.
struct Group {
    topics: Vec<u32>,
    /// The topics' names; none of a single one.
    names: Vec<String>,
    streams: Vec<u32>,
}

#[derive(Default)]
struct Server {
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    names: HashMap<String, u32>,
    topics: Vec<Topic>,
    /// By what was asked for: one name, or several with commas between them.
    groups_by_names: HashMap<String, u32>,
    groups: Vec<Group>,
    /// When which stream is due for a heartbeat if nothing else is sent to it, the earliest first.
    heartbeats: BinaryHeap<Reverse<(Instant, u32)>>,
    text: String,
    ring: Option<IoUring>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
    let (flags, addresses): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument == "--io-uring");
    let address = addresses.first().map_or("127.0.0.1:0", String::as_str);
    let mut server = Server::default();
    if !flags.is_empty() {
        let mut builder = IoUring::builder();
        // The kernel works when it is asked to, not whenever a send is done.
        builder.setup_single_issuer().setup_defer_taskrun();
        server.ring = Some(builder.build(SENDS_MAX as u32)?);
    }
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    rustix::net::listen(&listener, BACKLOG)?;
    eprintln!("listening on http://{}", listener.local_addr()?);

    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let readable = epoll::EventFlags::IN;
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), readable)?;
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
            let connection = Connection { socket, group: None, request, last_sent: Instant::now() };
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
        if let Some(rest) = head.strip_prefix("GET /events?topics=") {
            self.open(index, rest.split(' ').next()?);
            return Some(true);
        }
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

    fn group(&mut self, names: &str) -> u32 {
        if let Some(&group) = self.groups_by_names.get(names) {
            return group;
        }
        let index = self.groups.len() as u32;
        let topics: Vec<u32> = names.split(',').map(|name| self.topic(name)).collect();
        for &topic in &topics {
            self.topics[topic as usize].groups.push(index);
        }
        let single = topics.len() == 1;
        let names_kept = names.split(',').filter(|_| !single).map(str::to_owned).collect();
        self.groups.push(Group { topics, names: names_kept, streams: Vec::new() });
        self.groups_by_names.insert(names.to_owned(), index);
        index
    }

    /// Where the streams of a group stand now.
    fn id(&self, group: &Group) -> String {
        let seq = |topic: &u32| self.topics[*topic as usize].seq;
        if let [topic] = group.topics.as_slice() {
            return format!("{}-abcdef", seq(topic));
        }
        let mut id = String::new();
        for (topic, name) in group.topics.iter().zip(&group.names) {
            let comma = if id.is_empty() { "" } else { "," };
            let _ = write!(id, "{comma}{name}:{}-abcdef", seq(topic));
        }
        id + CHECK_DIGITS
    }

    fn open(&mut self, index: u32, names: &str) {
        let group = self.group(names);
        self.groups[group as usize].streams.push(index);
        let id = self.id(&self.groups[group as usize]);
        let block = format!("data: {{\"type\":\"connected\",\"node\":\"bench\"}}\nid: {id}\n\n");
        let Some(connection) = &mut self.connections[index as usize] else { return };
        connection.group = Some(group);
        // Streams say nothing more; what they asked with need not be kept.
        connection.request = Vec::new();
        self.heartbeats.push(Reverse((Instant::now() + HEARTBEAT, index)));
        let text = format!("{STREAM_HEAD}{RETRY}{:X}\r\n{block}\r\n", block.len());
        self.send(index, text.as_bytes());
    }

    fn publish(&mut self, index: u32, name: &str, data: &str) {
        let topic = self.topic(name) as usize;
        self.topics[topic].seq += 1;
        let seq = self.topics[topic].seq;
        let mut text = std::mem::take(&mut self.text);
        let groups = std::mem::take(&mut self.topics[topic].groups);
        for &group in &groups {
            let id = self.id(&self.groups[group as usize]);
            let block_bytes = "data: \nid: \n\n".len() + id.len() + data.len();
            text.clear();
            let _ = write!(text, "{block_bytes:X}\r\ndata: {data}\nid: {id}\n\n\r\n");
            let streams = std::mem::take(&mut self.groups[group as usize].streams);
            self.send_to_all(&streams, text.as_bytes());
            // Closing takes from this list; none was closed unless a reader was too slow.
            let open = |stream: &u32| self.connections[*stream as usize].is_some();
            let streams = streams.into_iter().filter(open).collect();
            self.groups[group as usize].streams = streams;
        }
        self.topics[topic].groups = groups;
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

    fn send_to_all(&mut self, streams: &[u32], bytes: &[u8]) {
        let Some(mut ring) = self.ring.take() else {
            return streams.iter().for_each(|&stream| self.send(stream, bytes));
        };
        for some in streams.chunks(SENDS_MAX) {
            self.send_together(&mut ring, some, bytes);
        }
        self.ring = Some(ring);
    }

    fn send(&mut self, index: u32, bytes: &[u8]) {
        let Some(connection) = &mut self.connections[index as usize] else { return };
        let sent = rustix::net::send(&connection.socket, bytes, SendFlags::NOSIGNAL);
        connection.last_sent = Instant::now();
        if sent != Ok(bytes.len()) {
            self.close(index);
        }
    }

    /// Sends the same bytes to at most [`SENDS_MAX`] streams.
    #[allow(unsafe_code)]
    fn send_together(&mut self, ring: &mut IoUring, streams: &[u32], bytes: &[u8]) {
        let flags = (SendFlags::NOSIGNAL | SendFlags::DONTWAIT).bits() as i32;
        let mut in_flight = 0;
        for &index in streams {
            let Some(connection) = &mut self.connections[index as usize] else { continue };
            connection.last_sent = Instant::now();
            let socket = types::Fd(connection.socket.as_raw_fd());
            let send = opcode::Send::new(socket, bytes.as_ptr(), bytes.len() as u32).flags(flags);
            // SAFETY: the kernel may read `bytes` and use the socket until the send has completed.
            // Both outlive that: this function does not return, and closes nothing, before as many
            // sends have completed as were pushed; where it cannot wait for them, the process ends,
            // and where it panics here, nothing was submitted.
            let pushed = unsafe { ring.submission().push(&send.build().user_data(index.into())) };
            pushed.expect("there is room for as many as are sent together");
            in_flight += 1;
        }
        let mut broken = Vec::new();
        while in_flight > 0 {
            match ring.submit_and_wait(in_flight) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                    let _ = writeln!(std::io::stderr(), "io_uring: {error}");
                    std::process::abort();
                }
                _ => {}
            }
            for completed in ring.completion() {
                in_flight -= 1;
                if usize::try_from(completed.result()) != Ok(bytes.len()) {
                    broken.push(completed.user_data() as u32);
                }
            }
        }
        for index in broken {
            self.close(index);
        }
    }

    fn close(&mut self, index: u32) {
        let Some(connection) = self.connections[index as usize].take() else { return };
        if let Some(group) = connection.group {
            self.groups[group as usize].streams.retain(|&stream| stream != index);
        }
        self.free.push(index);
    }

    /// Sends the heartbeats that are due. Returns the time until the next.
    fn beat(&mut self) -> Duration {
        let now = Instant::now();
        while let Some(&Reverse((due, index))) = self.heartbeats.peek() {
            if now < due {
                return due - now;
            }
            self.heartbeats.pop();
            let Some(connection) = &self.connections[index as usize] else { continue };
            if connection.group.is_none() {
                continue;
            }
            // An index that has come to another stream has two entries; the second one to be due
            // finds that something was just sent.
            let mut next = connection.last_sent + HEARTBEAT;
            if next <= now {
                self.send(index, b"C\r\n: heartbeat\n\r\n");
                next = now + HEARTBEAT;
            }
            self.heartbeats.push(Reverse((next, index)));
        }
        HEARTBEAT
    }
}
