//! [`Downloads`]: many clients that ask for the same large answer, and read it or do not.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::http::BodyReader;
use super::socket::{connect, wait};
use crate::server::Server;

/// How long all answers together may take.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long nothing may come before it is looked how long it has taken.
const TICK: Duration = Duration::from_secs(1);
/// What one `recv` takes at most, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// Requests that were sent, whose answers nobody has read yet.
pub(crate) struct Downloads {
    sockets: Vec<OwnedFd>,
}

impl Downloads {
    /// Sends `count` requests for the same path, each on its own connection.
    ///
    /// # Errors
    /// When one cannot be sent.
    pub(crate) fn ask(server: &Server, path: &str, count: usize) -> Result<Downloads, String> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
        let ask = |_| {
            let socket = connect(server.streams, 0, None)?;
            rustix::net::send(&socket, request.as_bytes(), SendFlags::NOSIGNAL)?;
            Ok(socket)
        };
        let sockets: Result<Vec<OwnedFd>, std::io::Error> = (0..count).map(ask).collect();
        Ok(Downloads { sockets: sockets.map_err(|error| format!("GET {path}: {error}"))? })
    }

    /// Reads all answers at once, each until it has ended or has `bytes` bytes of body up to a blank
    /// line (that is, the first event of a stream). Returns how long that took.
    ///
    /// # Errors
    /// When an answer is no good, or does not come in two minutes.
    pub(crate) fn read_all(&self, bytes: usize) -> Result<Duration, String> {
        let began = Instant::now();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| e.to_string())?;
        for (n, socket) in self.sockets.iter().enumerate() {
            let index = epoll::EventData::new_u64(n as u64);
            let added = epoll::add(&epoll, socket, index, epoll::EventFlags::IN);
            added.map_err(|error| error.to_string())?;
        }
        let answer = || Answer { body: BodyReader::new(), bytes: 0, line_ended: false };
        let mut answers: Vec<Answer> = self.sockets.iter().map(|_| answer()).collect();
        let mut buffer = vec![0; BUFFER_BYTES];
        let nothing =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = vec![nothing; 64];
        let mut left = answers.len();
        while left > 0 {
            if began.elapsed() > COMPLETE_TIMEOUT {
                return Err(format!("{left} of {} answers are not complete", answers.len()));
            }
            let count = wait(&epoll, &mut events, TICK).map_err(|error| error.to_string())?;
            for event in &events[..count] {
                let data = event.data;
                let n = data.u64() as usize;
                let read =
                    rustix::net::recv(&self.sockets[n], &mut buffer[..], RecvFlags::DONTWAIT);
                let length = match read {
                    Ok((0, _)) => return Err("the server closed an answer".to_owned()),
                    Ok((length, _)) => length,
                    Err(Errno::AGAIN | Errno::INTR) => continue,
                    Err(error) => return Err(format!("an answer: {error}")),
                };
                if answers[n].read(&buffer[..length], bytes)? {
                    left -= 1;
                    let _ = epoll::delete(&epoll, &self.sockets[n]);
                }
            }
        }
        Ok(began.elapsed())
    }
}

/// How far one answer was read.
struct Answer {
    body: BodyReader,
    bytes: usize,
    /// Whether the last byte of the body ended a line.
    line_ended: bool,
}

impl Answer {
    /// Says whether it is complete now.
    fn read(&mut self, bytes: &[u8], wanted: usize) -> Result<bool, String> {
        let Answer { body, bytes: read, line_ended } = self;
        let mut complete = false;
        body.read(bytes, |data| {
            *read += data.len();
            // The end of an event can be cut in two by a chunk or a read, and a heartbeat can follow.
            let event_ended = data.ends_with(b"\n\n") || (*line_ended && data == b"\n");
            complete |= *read >= wanted && event_ended;
            *line_ended = data.ends_with(b"\n");
            Ok(())
        })?;
        if self.body.has_ended() && self.bytes < wanted {
            return Err(format!("an answer ended after {} of {wanted} bytes", self.bytes));
        }
        Ok(complete || self.body.has_ended())
    }
}
