//! [`Speakers`]: those who say over a bare socket what a stream has to say before it is parked with a
//! [reactor](crate::reactor), and when it comes back from there.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::line::Line;
use crate::admission::OpenSocket;
use crate::connection::{Connection, Node};
use crate::frame::{LAST_CHUNK, write_chunk};
use crate::reactor::{LINGER, Reactors, Returned};

/// What is gathered for one write, in bytes, roughly.
const WRITE_BYTES: usize = 64 << 10;

/// What a client may send after the request of a stream, in bytes, while nobody answers it.
const UNREAD_BYTES_MAX: usize = 64 << 10;

/// Those who speak over bare sockets.
pub(super) struct Speakers {
    pub(super) node: Arc<Node>,
    pub(super) reactors: Arc<Reactors>,
    pub(super) write_timeout: Duration,
}

/// Why a stream is over.
enum Over {
    /// Everything was said.
    Said,
    /// The peer is gone.
    Gone,
    /// The peer takes nothing.
    Stalled,
}

impl Speakers {
    /// Goes on with the streams that reactors give back, for ever.
    pub(super) async fn take_back(
        self: Arc<Speakers>,
        mut returned: mpsc::UnboundedReceiver<Returned>,
    ) {
        while let Some(returned) = returned.recv().await {
            let Returned { socket, open, topic, position, snapshot, lifetime } = returned;
            let node = self.node.clone();
            let connection = Connection::go_on(node, topic.name(), position, snapshot, lifetime);
            let line = Line::new(socket);
            tokio::spawn(self.clone().speak(line, connection, Vec::new(), open));
        }
    }

    /// Says what there is to say, after `out`, until the stream can be parked or is over.
    pub(super) async fn speak(
        self: Arc<Speakers>,
        mut line: Line,
        mut connection: Connection,
        mut out: Vec<u8>,
        open: OpenSocket,
    ) {
        loop {
            if out.is_empty() && connection.rests() {
                match connection.park() {
                    Ok(parked) => {
                        match line.into_bare() {
                            Ok(socket) => self.reactors.park(socket, open, parked),
                            Err(error) => lost(&error),
                        }
                        return;
                    }
                    Err(back) => connection = *back,
                }
            }
            let over = self.say_more(&mut line, &mut connection, &mut out).await;
            match over {
                Ok(None) => {}
                Ok(Some(Over::Said)) => return farewell(line).await,
                Ok(Some(Over::Gone)) => return,
                Err(error) => return lost(&error),
                Ok(Some(Over::Stalled)) => {
                    // Unread bytes are of no use to anybody: reset instead of lingering.
                    if let Ok(socket) = line.socket() {
                        let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
                    }
                    return connection.stalled();
                }
            }
        }
    }

    /// Waits for the next blocks and writes them.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    async fn say_more(
        &self,
        line: &mut Line,
        connection: &mut Connection,
        out: &mut Vec<u8>,
    ) -> io::Result<Option<Over>> {
        let greeting = !out.is_empty();
        let mut next = match line.first_of(connection.next(), gone).await? {
            Ok(block) => block,
            Err(over) => return Ok(Some(over)),
        };
        let mut over = next.is_none();
        if greeting && let Some(first) = next.take() {
            write_chunk(out, &[&first]);
            // The hello is ready mostly, and then goes out with the head.
            match connection.next().now_or_never() {
                Some(Some(hello)) => next = Some(hello),
                Some(None) => over = true,
                None => {}
            }
        }
        while let Some(block) = next {
            write_chunk(out, &[&block]);
            next = if out.len() < WRITE_BYTES { connection.ready() } else { None };
        }
        if over {
            out.extend_from_slice(LAST_CHUNK);
        }
        let written = line.write(out, self.write_timeout).await;
        out.clear();
        // What a burst needed is not kept while nothing happens.
        out.shrink_to(1 << 10);
        Ok(match written {
            Ok(()) if over => Some(Over::Said),
            Ok(()) => None,
            Err(error) => Some(broken(&error)),
        })
    }
}

/// A stream ends because the system has no room to watch its socket; its client comes back.
fn lost(error: &io::Error) {
    tracing::warn!(%error, "a stream was lost");
}

/// How a stream ended whose socket broke like this: the kernel, too, gives up peers that take
/// nothing, and it tells whoever uses the socket next.
fn broken(error: &io::Error) -> Over {
    if error.kind() == ErrorKind::TimedOut { Over::Stalled } else { Over::Gone }
}

/// Waits until the peer has closed its side, or sends what nobody asked for.
async fn gone(stream: &TcpStream) -> Over {
    let mut unread = 0;
    loop {
        if let Err(error) = stream.readable().await {
            return broken(&error);
        }
        let mut bytes = [0; 512];
        match stream.try_read(&mut bytes) {
            Ok(0) => return Over::Gone,
            Ok(read) => unread += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return broken(&error),
        }
        if unread > UNREAD_BYTES_MAX {
            return Over::Gone;
        }
    }
}

/// Ends a connection so that its last bytes arrive: a socket that is closed with unread bytes is
/// reset.
async fn farewell(mut line: Line) {
    let Ok(stream) = line.watched() else { return };
    if stream.shutdown().await.is_ok() {
        let _ = tokio::time::timeout(LINGER, gone(stream)).await;
    }
}
