//! [`Listener`]: the listening socket, and what every socket accepted from it is held to.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

use super::socket::NOT_SENT_BYTES_MAX;

/// Connections waiting to be accepted.
const BACKLOG: i32 = 4096;

/// A peer of whom nothing was heard for this long is asked whether it is there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// A listening socket with room for a stampede.
pub(crate) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    write_timeout: Duration,
}

impl Listener {
    /// Listens at `address`. A peer that does not acknowledge bytes for `write_timeout` is given up.
    ///
    /// # Errors
    /// When the address is taken, or not one of this machine.
    pub(crate) fn bind(address: SocketAddr, write_timeout: Duration) -> io::Result<Listener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        if cfg!(target_os = "linux") {
            // Linux hands them down to every socket accepted, which saves four calls for each.
            prepare(&socket, write_timeout)?;
        }
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into())?;
        let address = socket.local_addr()?;
        Ok(Listener { socket, address, write_timeout })
    }

    /// Where it listens; the port is known even if any was asked for.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub(super) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let (stream, address) = self.socket.accept().await?;
            if !cfg!(target_os = "linux")
                && let Err(error) = self.prepare(&stream)
            {
                tracing::debug!(%error, "a socket was gone before it was served");
                continue;
            }
            return Ok((stream, address));
        }
    }

    /// One more connection, if it waits already, whether or not the runtime has heard of it: for the
    /// end. Always accepting like this, 64 at a time and past the runtime, gained nothing (20,800
    /// connections a second, and 21,300 one by one; medians of seven).
    #[cfg(target_os = "linux")]
    pub(super) fn accept_waiting(&self) -> Option<(TcpStream, SocketAddr)> {
        use rustix::net::SocketFlags;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        // Whatever is wrong for longer, `accept` will find, too.
        let (socket, address) = rustix::net::acceptfrom_with(&self.socket, flags).ok()?;
        let address = SocketAddr::try_from(address?).ok()?;
        Some((TcpStream::from_std(socket.into()).ok()?, address))
    }

    /// Elsewhere accepted sockets block at first, and `accept` does what there is to do.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn accept_waiting(&self) -> Option<(TcpStream, SocketAddr)> {
        None
    }

    fn prepare(&self, stream: &TcpStream) -> io::Result<()> {
        prepare(&socket2::SockRef::from(stream), self.write_timeout)
    }
}

/// Small frames leave at once; a peer that is gone without a word is noticed by the kernel.
fn prepare(socket: &Socket, write_timeout: Duration) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(write_timeout))?;
        socket.set_tcp_notsent_lowat(NOT_SENT_BYTES_MAX)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = write_timeout;
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::Ipv4Addr;

    use socket2::SockRef;

    use super::*;

    #[tokio::test]
    async fn accepted_sockets_inherit_what_they_are_held_to() {
        let patience = Duration::from_millis(4_321);
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), patience).unwrap();
        let clients = [(); 2].map(|()| std::net::TcpStream::connect(listener.address()).unwrap());
        let first = listener.accept().await.unwrap();
        let second = listener.accept_waiting().unwrap();
        assert!(listener.accept_waiting().is_none());
        for (client, (accepted, address)) in clients.iter().zip([first, second]) {
            assert_eq!(address, client.local_addr().unwrap());
            let socket = SockRef::from(&accepted);
            assert!(socket.tcp_nodelay().unwrap());
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_AFTER);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(patience));
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), NOT_SENT_BYTES_MAX);
            let read = accepted.try_read(&mut [0]);
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }
}
