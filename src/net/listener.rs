//! [`Listener`]: the listening socket, and what every socket accepted from it is held to.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::socket::NOT_SENT_BYTES_MAX;

/// Connections waiting to be accepted.
const BACKLOG: i32 = 4096;

/// A peer of whom nothing was heard for this long is asked whether it is there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// A listening socket with room for a stampede.
pub(crate) struct Listener {
    socket: AsyncFd<TcpListener>,
    address: SocketAddr,
    #[cfg_attr(target_os = "linux", expect(dead_code, reason = "sockets inherit it"))]
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
        let socket = TcpListener::from(socket);
        let address = socket.local_addr()?;
        #[expect(
            deprecated,
            reason = "a standard socket keeps its descriptor, which is all that \
            the other one's caller has to see to; and unsafe code is forbidden"
        )]
        let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
        Ok(Listener { socket, address, write_timeout })
    }

    /// Where it listens; the port is known even if any was asked for.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection. The runtime does not watch its socket: most sockets have brought their
    /// request by now, and those of streams are watched by a reactor.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub(super) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        // Others have their turn, however many wait here.
        tokio::task::consume_budget().await;
        loop {
            let mut ready = self.socket.readable().await?;
            if let Ok(accepted) = ready.try_io(|listener| self.accept_from(listener.get_ref())) {
                return accepted;
            }
        }
    }

    /// One more connection, if it waits already, whether or not the runtime has heard of it.
    pub(super) fn accept_waiting(&self) -> Option<(TcpStream, SocketAddr)> {
        // Whatever is wrong for longer, `accept` will find, too.
        self.accept_from(self.socket.get_ref()).ok()
    }

    #[cfg(target_os = "linux")]
    fn accept_from(&self, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        use rustix::net::SocketFlags;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (socket, address) = rustix::net::acceptfrom_with(listener, flags)?;
        let address = address.and_then(|address| SocketAddr::try_from(address).ok());
        Ok((socket.into(), address.ok_or(io::ErrorKind::AddrNotAvailable)?))
    }

    /// Elsewhere accepted sockets block at first, and have to be held to what this one is.
    #[cfg(not(target_os = "linux"))]
    fn accept_from(&self, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, address) = listener.accept()?;
        socket.set_nonblocking(true)?;
        prepare(&socket2::SockRef::from(&socket), self.write_timeout)?;
        Ok((socket, address))
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
            let read = std::io::Read::read(&mut &accepted, &mut [0]);
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }
}
