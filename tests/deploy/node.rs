//! A gateway without Redis, to stand behind a proxy.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::process::{Ended, until};

/// A running gateway; its log is in its memory.
pub struct Node {
    process: Ended,
    pub address: SocketAddr,
}

impl Node {
    /// Starts one and waits until it is ready.
    pub async fn start(settings: &[(&str, &str)]) -> Node {
        let mut gateway = Command::new(env!("CARGO_BIN_EXE_fantail"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env_remove("FANTAIL_REDIS_URL")
            .env_remove("FANTAIL_LOG")
            .envs(settings.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(gateway.stderr.take().unwrap()).lines();
        let process = Ended(gateway);
        let address = lines.find_map(|line| {
            let line = line.ok()?;
            let at = line.find("listening on http://")?;
            line[at + 20..].split(' ').next()?.parse().ok()
        });
        // What it says later must go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        let address = address.expect("the gateway says where it listens");
        let node = Node { process, address };
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
        let metrics = reqwest::get(self.url("/metrics")).await.unwrap().text().await.unwrap();
        let value = metrics.lines().find_map(|line| line.strip_prefix("fantail_connections "));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// As if its machine lost power, except that the kernel still closes its sockets.
    pub fn kill(mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }
}
