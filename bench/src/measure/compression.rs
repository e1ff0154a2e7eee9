//! What compressed streams cost: bytes and processor time, beside streams as they are, and beside nginx,
//! which compresses each connection by itself.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::{Measured, Settings};
use crate::load::http::{BodyReader, Client};
use crate::load::socket::{connect, wait};
use crate::process;
use crate::server::{Kind, NginxInFront, Server};

/// Streams, all of one topic.
const STREAMS: usize = 1_000;
/// Events a second, for so many seconds after one that does not count.
const RATE: f64 = 50.0;
const SECONDS: f64 = 6.0;
/// Bytes of an event's data, about: JSON as applications send it.
const EVENT_BYTES: usize = 1 << 10;
/// When nothing has come for so long everything has: streams that are compressed one by one differ in
/// length, by what each was given together.
const QUIET: Duration = Duration::from_millis(500);
/// How long the last event may take to come.
const LAST_TIMEOUT: Duration = Duration::from_secs(30);
/// What one `recv` takes at most, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// How streams are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Not at all.
    Off,
    /// By the node, in this encoding.
    Node(&'static str),
    /// Not at all, by nginx in front of the node.
    Nginx,
    /// By nginx in front of the node, in gzip.
    NginxGzip,
}

/// In this order.
pub(crate) const WAYS: [Way; 6] =
    [Way::Off, Way::Node("gzip"), Way::Node("br"), Way::Node("zstd"), Way::Nginx, Way::NginxGzip];

/// Bytes and processor time of 1,000 streams of one topic with JSON events of 1 KiB.
///
/// # Errors
/// When somebody did not get everything.
pub(crate) fn compression(settings: &Settings, kind: &Kind, way: Way) -> Measured {
    let mut samples = settings.samples("compression", kind);
    let (encoding, case) = match way {
        Way::Off => ("", "as it is".to_owned()),
        Way::Node(encoding) => (encoding, encoding.to_owned()),
        Way::Nginx => ("", "through nginx".to_owned()),
        Way::NginxGzip => ("gzip", "gzip by nginx, each stream".to_owned()),
    };
    let offered = if let Way::Node(encoding) = way { encoding } else { "off" };
    let (server, run) = settings.start(&kind.with("FANTAIL_COMPRESSION", offered))?;
    let nginx = match way {
        Way::Nginx | Way::NginxGzip => {
            Some(NginxInFront::start(server.streams, way == Way::NginxGzip)?)
        }
        Way::Off | Way::Node(_) => None,
    };
    let count = settings.at_most(if settings.quick { 200 } else { STREAMS });
    let address = nginx.as_ref().map_or(server.streams, |nginx| nginx.address);
    let pids = || {
        let mut pids = server.pids();
        pids.extend(nginx.iter().flat_map(|nginx| process::family(nginx.pid())));
        pids
    };
    let memory_before = process::memory_bytes(&pids())?;
    let path = format!("/topics/{run}/events");
    // A topic without a log has a position that is a time, which differs from stream to stream.
    Client::connect(server.publishing)?.post(&path, "{\"data\":\"first\"}")?;
    // One that anybody can read: by it we know that everything was sent.
    let mut readers = vec![Reader::open(server.streams, &path, "")?];
    for _ in 0..count {
        readers.push(Reader::open(address, &path, encoding)?);
    }
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| error.to_string())?;
    for (n, reader) in readers.iter().enumerate() {
        let index = epoll::EventData::new_u64(n as u64);
        let added = epoll::add(&epoll, &reader.socket, index, epoll::EventFlags::IN);
        added.map_err(|error| error.to_string())?;
    }
    let mut load =
        Load { server: &server, epoll, readers, run: &run, sent: 0, heard_at: Instant::now() };
    load.read_until(LAST_TIMEOUT, |load| load.readers.iter().all(|reader| reader.bytes > 0))?;
    load.publish(RATE as usize)?;
    let (before, cpu_before) = (load.bytes(), process::cpu_seconds(&pids())?);
    let events = (RATE * SECONDS) as usize;
    load.publish(events)?;
    let cpu = process::cpu_seconds(&pids())? - cpu_before;
    let bytes = load.bytes() - before;
    let memory = process::memory_bytes(&pids())? - memory_before;

    let of_streams = &load.readers[1..];
    let hashes = of_streams.iter().filter(|reader| reader.hash == of_streams[0].hash).count();
    if nginx.is_none() && hashes != count {
        return Err(format!("{} of {count} streams got other bytes", count - hashes));
    }
    let deliveries = (count * events) as f64;
    let case = format!("{count} streams, JSON of 1 KiB, {case}");
    samples.add(&case, "bytes per delivery", bytes as f64 / deliveries);
    samples.add(&case, "CPU s per million deliveries", cpu / deliveries * 1e6);
    samples.add(&case, "user memory KiB per stream", memory / 1024.0 / count as f64);
    Ok(samples.all)
}

/// One stream, as bytes.
struct Reader {
    socket: OwnedFd,
    body: BodyReader,
    bytes: usize,
    /// Of all bytes of the body (FNV-1a).
    hash: u64,
    /// Blank lines, which are events where the body is not compressed.
    blocks: usize,
    last: u8,
}

impl Reader {
    fn open(address: std::net::SocketAddrV4, path: &str, encoding: &str) -> Result<Reader, String> {
        let accept = match encoding {
            "" => String::new(),
            encoding => format!("accept-encoding: {encoding}\r\n"),
        };
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{accept}\r\n");
        let failed = |error: &dyn std::fmt::Display| format!("GET {path}: {error}");
        let socket = connect(address, 0, None).map_err(|error| failed(&error))?;
        let sent = rustix::net::send(&socket, request.as_bytes(), SendFlags::NOSIGNAL);
        sent.map_err(|error| failed(&error))?;
        let body = BodyReader::new();
        Ok(Reader { socket, body, bytes: 0, hash: 0xcbf2_9ce4_8422_2325, blocks: 0, last: 0 })
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), String> {
        let length = match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err("the server closed a stream".to_owned()),
            Ok((length, _)) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(format!("a stream: {error}")),
        };
        let Reader { body, bytes, hash, blocks, last, .. } = self;
        body.read(&buffer[..length], |data| {
            *bytes += data.len();
            for &byte in data {
                *hash = (*hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                *blocks += usize::from(byte == b'\n' && *last == b'\n');
                *last = byte;
            }
            Ok(())
        })
    }
}

struct Load<'a> {
    server: &'a Server,
    epoll: OwnedFd,
    /// The first is not compressed.
    readers: Vec<Reader>,
    run: &'a str,
    sent: usize,
    /// When bytes last came.
    heard_at: Instant,
}

impl Load<'_> {
    /// Bytes that came on all streams but the first.
    fn bytes(&self) -> usize {
        self.readers[1..].iter().map(|reader| reader.bytes).sum()
    }

    /// Publishes so many events at the rate, and reads until all of them have come.
    fn publish(&mut self, events: usize) -> Result<(), String> {
        let (server, run, sent) = (self.server, self.run, self.sent);
        self.sent += events;
        std::thread::scope(|scope| {
            let publishing = scope.spawn(move || {
                let mut client = Client::connect(server.publishing)?;
                let began = Instant::now();
                for n in 0..events {
                    let due = Duration::from_secs_f64(n as f64 / RATE);
                    std::thread::sleep(due.saturating_sub(began.elapsed()));
                    let body = format!("{{\"data\":{}}}", document(sent + n));
                    client.post(&format!("/topics/{run}/events"), &body)?;
                }
                Ok::<(), String>(())
            });
            let read = self.read_all(events);
            publishing.join().map_err(|_| "the publisher panicked".to_owned())??;
            read
        })
    }

    fn read_all(&mut self, events: usize) -> Result<(), String> {
        let within = Duration::from_secs_f64(events as f64 / RATE) + LAST_TIMEOUT;
        // The opening event is one more.
        self.read_until(within, |load| {
            let is_quiet = load.heard_at.elapsed() >= QUIET;
            load.readers[0].blocks > load.sent && (load.are_alike() || is_quiet)
        })
    }

    fn read_until(
        &mut self,
        within: Duration,
        is_enough: impl Fn(&Self) -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + within;
        let mut buffer = vec![0; BUFFER_BYTES];
        let nothing =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut woken = vec![nothing; 256];
        while !is_enough(self) {
            if Instant::now() > deadline {
                let (least, most) = self.least_and_most();
                return Err(format!(
                    "{} of {} events came, {least} to {most} bytes on a stream",
                    self.readers[0].blocks, self.sent
                ));
            }
            let tick = Duration::from_millis(100);
            let count = wait(&self.epoll, &mut woken, tick).map_err(|error| error.to_string())?;
            if count > 0 {
                self.heard_at = Instant::now();
            }
            for event in &woken[..count] {
                let data = event.data;
                self.readers[data.u64() as usize].read(&mut buffer)?;
            }
        }
        Ok(())
    }

    fn least_and_most(&self) -> (usize, usize) {
        let bytes = || self.readers[1..].iter().map(|reader| reader.bytes);
        (bytes().min().unwrap_or(0), bytes().max().unwrap_or(0))
    }

    /// Whether all streams but the first have as many bytes.
    fn are_alike(&self) -> bool {
        let (least, most) = self.least_and_most();
        least > 0 && least == most
    }
}

/// About a kilobyte of JSON, no two alike.
fn document(n: usize) -> String {
    let mut random = n as u64 + 1;
    let mut next = || {
        // Knuth's MMIX.
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random >> 33
    };
    let mut items = String::new();
    while items.len() < EVENT_BYTES - 120 {
        items += &format!(
            "{{\"id\":\"item-{}\",\"price\":{}.{:02},\"quantity\":{},\"state\":\"{}\"}},",
            next() % 100_000,
            next() % 1_000,
            next() % 100,
            next() % 10,
            ["open", "reserved", "shipped", "returned"][next() as usize % 4],
        );
    }
    items.pop();
    format!(
        "{{\"order\":\"order-{}\",\"customer\":\"customer-{}\",\"number\":{n},\"items\":[{items}]}}",
        next() % 1_000_000,
        next() % 10_000
    )
}
