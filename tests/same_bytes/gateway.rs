//! Gateways and Redis as processes of their own, ended by pid when dropped, also by a failing test.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::http1::Connection;

/// How long anything may take that is expected to happen. Nobody waits for it unless the test is
/// about to fail.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Panics after [`PATIENCE`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// One of the two gateways that are compared: which program, and how it carries streams.
#[derive(Clone, Debug)]
pub struct Side {
    pub binary: PathBuf,
    pub reactors: &'static str,
}

impl Side {
    /// Whether it is the program that this test was built with.
    pub fn is_of_now(&self) -> bool {
        self.binary == Path::new(env!("CARGO_BIN_EXE_fantail"))
    }
}

/// A running gateway.
pub struct Gateway {
    child: Child,
    pub address: SocketAddr,
    /// Printed if the test fails.
    log: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    /// Starts a gateway with these settings; it is ready when this returns.
    pub async fn start(side: &Side, settings: &[(&str, &str)]) -> Gateway {
        let mut command = Command::new(&side.binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FANTAIL_") {
                command.env_remove(name);
            }
        }
        command
            .env("FANTAIL_LISTEN", "127.0.0.1:0")
            .env("FANTAIL_NODE_ID", "gateway")
            .env("FANTAIL_REACTORS", side.reactors)
            .envs(settings.iter().copied())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", side.binary.display()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(vec![format!("{side:?}")]));
        let (tell, told) = tokio::sync::oneshot::channel();
        let kept = log.clone();
        std::thread::spawn(move || {
            let mut tell = Some(tell);
            for line in lines.map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("listening on http://")
                    && let Some(tell) = tell.take()
                {
                    let address = address.split_whitespace().next().unwrap_or_default();
                    let _ = tell.send(address.trim_matches('"').to_owned());
                }
                kept.lock().unwrap().push(line);
            }
        });
        // From here on it is ended, whatever happens.
        let mut gateway = Gateway { child, address: ([127, 0, 0, 1], 0).into(), log };
        let address = within("a gateway that says where it listens", told).await;
        gateway.address = address.expect("it listens").parse().unwrap();
        within("a gateway that is ready", gateway.until_ready()).await;
        gateway
    }

    /// Waits until it can deliver and has its first board.
    async fn until_ready(&self) {
        for path in ["/readyz", "/boards/board-1"] {
            while !self.get(path).await.starts_with("HTTP/1.1 200") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// One request on a connection of its own; head and body of the answer.
    pub async fn get(&self, path: &str) -> String {
        let mut connection = Connection::open(self.address).await;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: gateway.localhost\r\nConnection: close\r\n\r\n");
        connection.send(request.as_bytes()).await;
        within(path, connection.until_end()).await;
        String::from_utf8(connection.received).unwrap()
    }

    /// SIGTERM: the drain begins.
    pub fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> std::process::ExitStatus {
        within("the end of a gateway", async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in self.log.lock().unwrap().iter() {
                println!("{}: {line}", self.child.id());
            }
        }
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // One that was waited for has no pid any more that is ours.
    if matches!(child.try_wait(), Ok(None)) {
        let _ = kill_process(Pid::from_child(child), Signal::KILL);
        let _ = child.wait();
    }
}

/// A redis-server of the test's own. Gateways share it, each under its own prefix.
pub struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    pub async fn start() -> Redis {
        for _ in 0..10 {
            // Below the ports that the system gives to outgoing connections.
            let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
            let port = std::iter::repeat_with(|| fastrand::u16(10_000..32_000)).find(free);
            let mut redis = Redis::launch(port.unwrap());
            // Until it answers, or ended because somebody else took the port.
            let up = within("redis-server", async {
                loop {
                    if redis.child.try_wait().unwrap().is_some() {
                        return false;
                    }
                    if redis.answers().await {
                        return true;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
            if up.await {
                return redis;
            }
        }
        panic!("cannot start redis-server");
    }

    fn launch(port: u16) -> Redis {
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        Redis { child, port }
    }

    async fn answers(&self) -> bool {
        let Ok(client) = redis::Client::open(self.url()) else { return false };
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
            return false;
        };
        redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
