//! One connection through the proxy: two sockets, and what happens between them.

use std::sync::Arc;

use socket2::{SockFilter, SockRef, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;

use super::pubsub_faults::Held;
use super::resp::{announced_on, texts, value_length};
use super::{Direction, Kind, Shared, Stroke, Who};

/// A connection.
pub(super) struct Line {
    shared: Arc<Shared>,
    kind: watch::Sender<Kind>,
}

impl Line {
    pub(super) fn new(shared: Arc<Shared>) -> Line {
        Line { shared, kind: watch::Sender::new(Kind::Unknown) }
    }

    pub(super) async fn carry(self, mut client: TcpStream) {
        if self.shared.weather.borrow().refusing {
            // With a reset, as nobody listening would.
            let _ = client.set_zero_linger();
            return;
        }
        let mut strokes = self.shared.strokes.subscribe();
        let mut seen = strokes.borrow_and_update().len();
        let Ok(node) = SockRef::from(&client).try_clone() else { return };
        let mut exchange = Box::pin(self.exchange(&mut client));
        let mut frozen = false;
        let stroke = loop {
            tokio::select! {
                stroke = self.struck(&mut strokes, &mut seen) => match stroke {
                    Stroke::Freeze => {
                        frozen = true;
                        swallow(&node, true);
                    }
                    stroke => break stroke,
                },
                () = &mut exchange, if !frozen => return,
            }
        };
        // With it, the way to Redis closes.
        drop(exchange);
        drop(node);
        if stroke == Stroke::Half {
            while self.struck(&mut strokes, &mut seen).await != Stroke::Close {}
        }
    }

    /// Carries bytes until one side closes.
    async fn exchange(&self, client: &mut TcpStream) {
        // What cannot reach Redis cannot find out that nobody listens there.
        self.passable(Direction::ToRedis).await;
        let Ok(mut server) = self.shared.connect().await else { return };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let Ok(node) = SockRef::from(&*client).try_clone() else { return };
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        tokio::select! {
            () = self.filter(&node) => {}
            _ = self.pump(client_reads, server_writes, Direction::ToRedis) => {}
            _ = self.pump(server_reads, client_writes, Direction::ToNode) => {}
        }
    }

    /// While nothing passes to Redis, nothing that the node sends is acknowledged either: its
    /// kernel sends it again, further and further apart, as over a real network.
    async fn filter(&self, node: &Socket) {
        loop {
            self.passable(Direction::ToRedis).await;
            swallow(node, false);
            let mut weather = self.shared.weather.subscribe();
            let mut kind = self.kind.subscribe();
            while !weather.borrow_and_update().holds(*kind.borrow_and_update(), Direction::ToRedis)
            {
                tokio::select! {
                    _ = weather.changed() => {}
                    _ = kind.changed() => {}
                }
            }
            swallow(node, true);
        }
    }

    async fn pump(
        &self,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
        direction: Direction,
    ) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        let mut held = Held::default();
        loop {
            self.passable(direction).await;
            if from.read_buf(&mut bytes).await? == 0 {
                // Nor does an end arrive through what lets nothing through.
                self.passable(direction).await;
                return Ok(());
            }
            let mut at = 0;
            while let Some(length) = value_length(&bytes[at..]) {
                let value = &bytes[at..at + length];
                at += length;
                if direction == Direction::ToRedis {
                    self.learn(value);
                }
                self.passable(direction).await;
                match announced_on(value) {
                    Some(channel) if direction == Direction::ToNode => {
                        let pubsub_faults = self.shared.weather.borrow().pubsub_faults;
                        let sent = self
                            .shared
                            .random(|random| held.pass(value, &channel, &pubsub_faults, random));
                        self.send(&sent, &mut to).await?;
                    }
                    _ => self.send(value, &mut to).await?,
                }
            }
            bytes.drain(..at);
        }
    }

    async fn send(&self, bytes: &[u8], to: &mut WriteHalf<'_>) -> std::io::Result<()> {
        let (slow, dribbling) = {
            let weather = self.shared.weather.borrow();
            (weather.slow, weather.dribbling)
        };
        if let Some(slow) = slow {
            let seconds = bytes.len() as f64 / slow.bytes_per_second as f64;
            let wait = slow.latency + std::time::Duration::from_secs_f64(seconds);
            tokio::time::sleep(wait).await;
        }
        if !dribbling {
            return to.write_all(bytes).await;
        }
        for byte in bytes {
            to.write_all(&[*byte]).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Waits until bytes of this connection pass in this direction.
    async fn passable(&self, direction: Direction) {
        let mut weather = self.shared.weather.subscribe();
        let mut kind = self.kind.subscribe();
        while weather.borrow_and_update().holds(*kind.borrow_and_update(), direction) {
            tokio::select! {
                _ = weather.changed() => {}
                _ = kind.changed() => {}
            }
        }
    }

    /// Waits for the next stroke that hits this connection.
    async fn struck(
        &self,
        strokes: &mut watch::Receiver<Vec<(Who, Stroke)>>,
        seen: &mut usize,
    ) -> Stroke {
        loop {
            while let Some((who, stroke)) = strokes.borrow_and_update().get(*seen).copied() {
                *seen += 1;
                if who.concerns(*self.kind.borrow()) {
                    return stroke;
                }
            }
            if strokes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Takes from a command what this connection is for.
    fn learn(&self, command: &[u8]) {
        let name = texts(command).first().map(|name| name.to_ascii_uppercase());
        let kind = match name.as_deref().unwrap_or_default() {
            b"HELLO" | b"AUTH" | b"SELECT" | b"CLIENT" | b"INFO" => return,
            b"SUBSCRIBE" | b"SSUBSCRIBE" => Kind::Subscription,
            _ => Kind::Commands,
        };
        if *self.kind.borrow() == Kind::Unknown {
            self.kind.send_replace(kind);
        }
    }
}

/// Lets the kernel drop all packets that arrive for this socket, or none. A listener loses the
/// attempts to connect.
pub fn swallow<'a>(socket: impl Into<SockRef<'a>>, all: bool) {
    let socket: SockRef<'_> = socket.into();
    let nothing_is_kept = [SockFilter::new(0x06, 0, 0, 0)];
    let done = if all { socket.attach_filter(&nothing_is_kept) } else { socket.detach_filter() };
    // To detach where nothing is attached is an error of no meaning.
    assert!(done.is_ok() || !all, "{done:?}");
}
