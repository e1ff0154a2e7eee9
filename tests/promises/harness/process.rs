//! Nodes as processes of their own, and what all processes of the tests have in common.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::proxy::Proxy;
use super::redis_server::{self, Redis};
use super::{Api, encoding, tls, until};

/// A child that is killed when dropped, and can be signalled before.
pub struct Process {
    child: Child,
    /// Printed if the test fails.
    log: Arc<Mutex<Vec<String>>>,
    end: End,
}

/// What ends a process together with its children.
#[derive(Clone, Copy)]
enum End {
    /// It has none.
    Kill,
    /// It ends them itself when asked to.
    Terminate,
    /// They are in a process group of its own.
    KillGroup,
}

/// What Linux counts processor time in, a second (proc(5)).
const TICKS: u32 = 100;

impl Process {
    /// Processor time so far, in its own code and in the kernel for it: no neighbour on the machine
    /// adds to it.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        // utime and stime, the 14th and the 15th of all.
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_secs(ticks) / TICKS
    }

    /// Memory that it has for itself, in KiB: without the pages of its program, of which more are
    /// there the more of it has run.
    pub fn anonymous_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub fn new(child: Child, log: Arc<Mutex<Vec<String>>>) -> Process {
        Process { child, log, end: End::Kill }
    }

    /// A process that is asked to end, because it must end its own children.
    pub fn quitting(child: Child) -> Process {
        Process { child, log: Arc::default(), end: End::Terminate }
    }

    /// The leader of a process group, which ends as a whole.
    pub fn group(child: Child) -> Process {
        Process { child, log: Arc::default(), end: End::KillGroup }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn as_pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.as_pid(), signal).unwrap();
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill(&mut self) {
        if self.has_ended() {
            return;
        }
        let pid = Pid::from_child(&self.child);
        let _ = match self.end {
            End::Kill => kill_process(pid, Signal::KILL),
            End::Terminate => kill_process(pid, Signal::TERM),
            End::KillGroup => rustix::process::kill_process_group(pid, Signal::KILL),
        };
        let _ = self.child.wait();
    }

    /// Waits until it has ended by itself; its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let child = &mut self.child;
        until("a process has ended", async || child.try_wait().unwrap()).await.code()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in self.log.lock().unwrap().iter() {
                println!("{}: {line}", self.pid());
            }
        }
        self.kill();
    }
}

/// The setting of a node that has a door for operators.
pub const OPERATORS: (&str, &str) = ("FANTAIL_ADMIN_LISTEN", "127.0.0.1:0");

/// A running `fantail serve`.
pub struct Node {
    pub process: Process,
    pub address: SocketAddr,
    /// The same, but for a node that speaks TLS: that has somebody in front who does so for the tests.
    pub listens_at: SocketAddr,
    pub api: Api,
    /// Its operators' door, if it has one.
    operators: Option<Api>,
    _front: Option<tls::Front>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Node {
    /// Starts a node; it listens when this returns, and with a Redis it is ready.
    pub async fn start(id: &str, redis: Option<&Redis>, settings: &[(&str, &str)]) -> Node {
        let url = redis.map(Redis::url);
        Node::start_ready(id, url.as_deref(), settings).await
    }

    /// The same, with this network between it and its Redis.
    pub async fn start_behind(id: &str, proxy: &Proxy, settings: &[(&str, &str)]) -> Node {
        Node::start_ready(id, Some(&proxy.url()), settings).await
    }

    async fn start_ready(id: &str, url: Option<&str>, settings: &[(&str, &str)]) -> Node {
        let node = Node::start_at(id, "127.0.0.1:0", url, settings).await;
        until(&format!("{id} is ready"), async || {
            let ready = node.api.send("GET", "/readyz", None).await;
            (ready.status == 200).then_some(())
        })
        .await;
        // The first board comes with the first look at Redis.
        until("the first board is there", async || {
            let boards = node.api.send("GET", "/boards/board-1", None).await;
            // With a key it is not for everybody.
            matches!(boards.status, 200 | 401).then_some(())
        })
        .await;
        node
    }

    /// Starts a node and waits only until it listens. Settings are variables, or flags by `--`.
    pub async fn start_at(
        id: &str,
        listen: &str,
        redis_url: Option<&str>,
        settings: &[(&str, &str)],
    ) -> Node {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fantail"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FANTAIL_")) {
            command.env_remove(name);
        }
        // TLS=1 runs the same tests with nodes that speak TLS alone.
        let has_certificate = settings.iter().any(|(name, _)| *name == "FANTAIL_TLS_CERT");
        let is_tls = has_certificate || tls::is_wanted();
        if is_tls && !has_certificate {
            command.envs(tls::CERTIFICATE.settings());
        }
        let own = if is_tls { "127.0.0.1:0" } else { listen };
        command.env("FANTAIL_LISTEN", own).env("FANTAIL_NODE_ID", id);
        // REACTORS=0 runs the same tests with all streams left to the HTTP server.
        if let Ok(reactors) = std::env::var("REACTORS") {
            command.env("FANTAIL_REACTORS", reactors);
        }
        if let Some(encoding) = encoding::wanted() {
            command.env("FANTAIL_COMPRESSION", encoding);
        }
        if let Some(url) = redis_url {
            command.env("FANTAIL_REDIS_URL", url);
            command.envs(redis_server::settings_for(url));
        }
        // What is sent byte by byte names hosts that nobody has.
        command.env("FANTAIL_HOSTS", "*");
        for (name, value) in settings {
            // Nothing is what a variable is that is not set.
            match *value {
                "" => command.env_remove(name),
                value if name.starts_with("--") => command.arg(name).arg(value),
                value => command.env(name, value),
            };
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (tell, told) = std::sync::mpsc::channel();
        let kept = log.clone();
        std::thread::spawn(move || {
            let mut operators = None;
            for line in lines.map_while(Result::ok) {
                // Said in this order.
                operators = address_after(&line, "operators' door at http://").or(operators);
                let listening = ["listening on http://", "listening on https://"];
                let listening = listening.iter().find_map(|at| address_after(&line, at));
                if let Some(address) = listening {
                    let _ = tell.send((address, operators));
                }
                kept.lock().unwrap().push(line);
            }
        });
        let process = Process::new(child, log.clone());
        let address = tokio::task::spawn_blocking(move || {
            told.recv_timeout(Duration::from_secs(20)).expect("the node says where it listens")
        });
        let (listens_at, operators) = address.await.unwrap();
        let front = match is_tls {
            true => Some(tls::Front::listen(listen, listens_at).await.unwrap()),
            false => None,
        };
        let address = front.as_ref().map_or(listens_at, |front| front.address);
        let api = Api::new(&format!("http://{address}"));
        let operators = operators.map(|address| Api::new(&format!("http://{address}")));
        Node { process, address, listens_at, api, operators, _front: front, log }
    }

    /// Its operators' door, of a node that was started with [`OPERATORS`].
    pub fn operators(&self) -> &Api {
        self.operators.as_ref().expect("the node has a door for operators")
    }

    /// What it has logged.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }
}

impl std::ops::Deref for Node {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

/// The address that a log line says behind these words.
fn address_after(line: &str, words: &str) -> Option<SocketAddr> {
    let (_, address) = line.split_once(words)?;
    let address = address.split(|c: char| c.is_whitespace() || c == ',').next()?;
    address.trim_matches('"').parse().ok()
}

/// A free port below those that the system gives to outgoing connections, so that ten thousand
/// streams do not take it while a server is being restarted on it. Another process could take it
/// before it is used; whoever starts something on it tries again then.
pub fn free_port() -> u16 {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(10_000..32_000)).find(free).unwrap()
}

/// A directory that goes away with its owner.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fantail-test-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
