//! A TCP proxy in front of the load balancer that cuts a stream after a byte of its content that is
//! planned beforehand, as a load balancer's worker does that is killed.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Where a connection is cut.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// So many bytes into the opening block.
    Opening(usize),
    /// So many bytes into the second entry: the first one is the progress that the client makes.
    SecondEntry(usize),
}

impl Cut {
    /// Whether the content so far is all that is to pass.
    fn is_here(self, content: &[u8]) -> bool {
        match self {
            Cut::Opening(bytes) => content.len() == bytes,
            Cut::SecondEntry(bytes) => {
                let ends = content.windows(2).enumerate().filter(|(_, two)| *two == b"\n\n");
                ends.map(|(at, _)| at + 2).nth(1).is_some_and(|end| content.len() == end + bytes)
            }
        }
    }
}

/// One client's proxy. Each connection is cut as planned; when nothing is planned any more, what
/// follows passes.
pub struct CutProxy {
    pub address: SocketAddr,
    plan: Arc<Mutex<VecDeque<Cut>>>,
}

impl CutProxy {
    pub async fn start(server: SocketAddr, plan: VecDeque<Cut>) -> CutProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plan = Arc::new(Mutex::new(plan));
        let cuts = plan.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let cuts = cuts.clone();
                tokio::spawn(async move {
                    let cut = cuts.lock().unwrap().pop_front();
                    // One that ended by itself is still to be cut.
                    if let (Some(cut), false) = (cut, carry(client, server, cut).await) {
                        cuts.lock().unwrap().push_front(cut);
                    }
                });
            }
        });
        CutProxy { address, plan }
    }

    /// How many cuts are still to be made.
    pub fn left(&self) -> usize {
        self.plan.lock().unwrap().len()
    }
}

/// Carries a connection; whether it was cut where it should be.
async fn carry(mut client: TcpStream, server: SocketAddr, cut: Option<Cut>) -> bool {
    let Ok(mut server) = TcpStream::connect(server).await else { return false };
    let Some(cut) = cut else {
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        return false;
    };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let asking = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
        false
    };
    let answering = async {
        let (mut response, mut content) = (Chunked::default(), Vec::new());
        let mut read = vec![0; 4096];
        loop {
            let Ok(length @ 1..) = from_server.read(&mut read).await else { return false };
            for (at, &byte) in read[..length].iter().enumerate() {
                if response.is_in_body() && cut.is_here(&content) {
                    let _ = to_client.write_all(&read[..at]).await;
                    return true;
                }
                content.extend(response.content(byte));
            }
            if to_client.write_all(&read[..length]).await.is_err() {
                return false;
            }
        }
    };
    tokio::select! {
        cut = answering => cut,
        cut = asking => cut,
    }
}

/// A response in chunks, byte by byte.
#[derive(Default)]
struct Chunked {
    head: Vec<u8>,
    /// The line with the size of the next chunk.
    size: Vec<u8>,
    /// Bytes of the chunk that are still to come, with the line end behind them.
    left: usize,
}

impl Chunked {
    fn is_in_body(&self) -> bool {
        self.head.ends_with(b"\r\n\r\n")
    }

    /// The byte, if it is one of the content.
    fn content(&mut self, byte: u8) -> Option<u8> {
        if !self.is_in_body() {
            self.head.push(byte);
            return None;
        }
        if self.left == 0 {
            self.size.push(byte);
            if self.size.ends_with(b"\r\n") {
                let size = std::str::from_utf8(&self.size).unwrap().trim();
                self.left = usize::from_str_radix(size, 16).map_or(0, |size| size + 2);
                self.size.clear();
            }
            return None;
        }
        self.left -= 1;
        (self.left >= 2).then_some(byte)
    }
}
