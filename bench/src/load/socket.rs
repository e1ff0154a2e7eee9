//! [`connect`] and [`wait`]: the two things that all of the load does with sockets.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

/// A connection that leaves nothing behind when it is dropped: the kernel keeps a closed
/// connection's port for a minute, and run follows upon run. `source`: which of the loopback
/// addresses it comes from; `receive_buffer`: its bytes, if they are not left to the kernel.
///
/// # Errors
/// As the system says.
pub(crate) fn connect(
    address: SocketAddrV4,
    source: usize,
    receive_buffer: Option<usize>,
) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let kind = SocketType::STREAM;
    let socket = rustix::net::socket_with(AddressFamily::INET, kind, flags, Some(ipproto::TCP))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    if let Some(bytes) = receive_buffer {
        // Before connecting: the window is settled with the first packet.
        sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
    }
    if source > 0 {
        let source = Ipv4Addr::new(127, 0, 0, 1 + source as u8);
        rustix::net::bind(&socket, &SocketAddrV4::new(source, 0))?;
    }
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// Waits for events, at most so long, to the microsecond. `epoll_wait` by itself counts whole
/// milliseconds: whatever is due within one would leave together, up to a millisecond late.
///
/// # Errors
/// As the system says.
pub(crate) fn wait(
    epoll: &OwnedFd,
    events: &mut [epoll::Event],
    at_most: Duration,
) -> io::Result<usize> {
    const NOT_AT_ALL: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    let at_most = Timespec::try_from(at_most).map_err(io::Error::other)?;
    let mut readable = [PollFd::new(epoll, PollFlags::IN)];
    let waited = poll(&mut readable, Some(&at_most));
    match waited.and_then(|_| epoll::wait(epoll, events, Some(&NOT_AT_ALL))) {
        Err(Errno::INTR) => Ok(0),
        count => Ok(count?),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn waiting_is_not_rounded_to_milliseconds() {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let nothing =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut took: Vec<Duration> = (0..101)
            .map(|_| {
                let began = Instant::now();
                assert_eq!(wait(&epoll, &mut [nothing], Duration::from_micros(100)).unwrap(), 0);
                began.elapsed()
            })
            .collect();
        took.sort();
        assert!(took[0] >= Duration::from_micros(100), "{took:?}");
        // The quickest, not the median: other programs may run, but not every time.
        assert!(took[0] < Duration::from_micros(900), "{took:?}");
    }
}
