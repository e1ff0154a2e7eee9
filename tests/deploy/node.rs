//! A gateway without Redis, to stand behind a proxy.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::process::{Ended, until};

/// A running gateway; its log is in its memory.
pub struct Node {
    process: Ended,
    pub address: SocketAddr,
    pub operators: SocketAddr,
}

/// Where a proxy finds a node.
#[derive(Clone, Copy)]
pub struct Place {
    pub address: SocketAddr,
    /// Where it is asked for its health.
    pub operators: SocketAddr,
}

impl From<SocketAddr> for Place {
    /// One that answers everything in one place, or nothing.
    fn from(address: SocketAddr) -> Place {
        Place { address, operators: address }
    }
}

impl From<&Node> for Place {
    fn from(node: &Node) -> Place {
        Place { address: node.address, operators: node.operators }
    }
}

impl Node {
    /// Starts one and waits until it is ready.
    pub async fn start(settings: &[(&str, &str)]) -> Node {
        let mut gateway = Command::new(env!("CARGO_BIN_EXE_fantail"))
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .env_remove("FANTAIL_REDIS_URL")
            .env_remove("FANTAIL_LOG")
            .envs(settings.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(gateway.stderr.take().unwrap()).lines();
        let process = Ended(gateway);
        let mut address_after = |words: &str| -> Option<SocketAddr> {
            lines.find_map(|line| {
                let line = line.ok()?;
                let (_, address) = line.split_once(words)?;
                address.split([' ', ',']).next()?.parse().ok()
            })
        };
        let operators = address_after("operators' door at http://");
        let address = address_after("listening on http://");
        // What it says later must go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        let address = address.expect("the gateway says where it listens");
        let operators = operators.expect("the gateway says where its operators' door is");
        let node = Node { process, address, operators };
        until("the gateway is ready", async || {
            reqwest::get(node.url("/readyz")).await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        node
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The streams that are open on this node, as it says itself.
    pub async fn streams(&self) -> usize {
        let metrics = reqwest::get(format!("http://{}/metrics", self.operators))
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let value = metrics.lines().find_map(|line| line.strip_prefix("fantail_connections "));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// As if its machine lost power, except that the kernel still closes its sockets.
    pub fn kill(mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }
}
