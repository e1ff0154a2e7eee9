//! [`Server`]: one of the programs that are measured, as a running process, and its dialect.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{self, Process};
use crate::redis::Redis;
use crate::report;

mod peers;

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Fantail's topics API; the reference speaks it too.
    Fantail,
    /// Nchan as [`peers`] configures it.
    Nchan,
    /// Pushpin, whose backend holds every stream.
    Pushpin,
    /// The Durable Streams protocol.
    DurableStreams,
}

impl Dialect {
    /// Whether every stream begins with a block.
    pub(crate) fn greets(self) -> bool {
        self == Dialect::Fantail
    }

    /// Streams of one thread that are being opened at the same time; below every server's backlog.
    pub(crate) fn opening_max(self) -> usize {
        match self {
            // With more, some are refused with 502.
            Dialect::Pushpin => 16,
            _ => 128,
        }
    }

    /// The request that opens a stream.
    pub(crate) fn stream_request(
        self,
        run: &str,
        topic: u32,
        last_event_id: Option<&str>,
    ) -> String {
        let path = match self {
            Dialect::Fantail => format!("/topics/{run}-{topic}/events"),
            Dialect::Nchan => format!("/sub/{run}-{topic}"),
            Dialect::Pushpin => format!("/stream/{run}-{topic}"),
            Dialect::DurableStreams => format!("/v1/stream/{run}-{topic}?offset=-1&live=sse"),
        };
        let resume = last_event_id.map(|id| format!("last-event-id: {id}\r\n"));
        let resume = resume.unwrap_or_default();
        format!(
            "GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n{resume}\r\n"
        )
    }

    /// Appends the request that publishes `data`, which needs no escaping in JSON.
    pub(crate) fn publish_request(self, run: &str, topic: u32, data: &str, request: &mut Vec<u8>) {
        use std::io::Write as _;
        let (path, kind, before, after) = match self {
            Dialect::Fantail => {
                (format!("/topics/{run}-{topic}/events"), "application/json", "{\"data\":\"", "\"}")
            }
            Dialect::Nchan => (format!("/pub/{run}-{topic}"), "text/plain", "", ""),
            Dialect::DurableStreams => (format!("/v1/stream/{run}-{topic}"), "text/plain", "", ""),
            Dialect::Pushpin => ("/publish/".to_owned(), "application/json", "", ""),
        };
        let (before, after) = match self {
            Dialect::Pushpin => (
                format!(
                    "{{\"items\":[{{\"channel\":\"{run}-{topic}\",\"formats\":\
                     {{\"http-stream\":{{\"content\":\"data: "
                ),
                "\\n\\n\"}}}]}",
            ),
            _ => (before.to_owned(), after),
        };
        let length = before.len() + data.len() + after.len();
        // Writing into memory cannot fail.
        let _ = write!(
            request,
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {kind}\r\n\
             content-length: {length}\r\n\r\n{before}{data}{after}"
        );
    }
}

/// Which server to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    /// How it is named in the table: what was written, without the path.
    pub name: String,
    base: Base,
    binary: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Fantail { redis: bool },
    Reference { io_uring: bool },
    Nchan { redis: bool },
    Pushpin,
    DurableStreams,
    Running(SocketAddrV4),
}

impl std::str::FromStr for Kind {
    type Err = String;

    /// `fantail`, `fantail-embedded`, `reference`, `reference-io-uring`, `nchan`, `nchan-redis`,
    /// `pushpin`, `durable-streams`, each with `@<binary>` or without; or
    /// `http://127.0.0.1:<port>`, a Fantail that runs already. With `=<name>` in front they go by that
    /// name.
    fn from_str(text: &str) -> Result<Kind, String> {
        let (name, rest) = text.split_once('=').map_or((None, text), |(n, rest)| (Some(n), rest));
        let (base, binary) =
            rest.split_once('@').map_or((rest, None), |(b, path)| (b, Some(PathBuf::from(path))));
        let name = name.unwrap_or(base).to_owned();
        let base = match base {
            "fantail" => Base::Fantail { redis: true },
            "fantail-embedded" => Base::Fantail { redis: false },
            "reference" => Base::Reference { io_uring: false },
            "reference-io-uring" => Base::Reference { io_uring: true },
            "nchan" => Base::Nchan { redis: false },
            "nchan-redis" => Base::Nchan { redis: true },
            "pushpin" => Base::Pushpin,
            "durable-streams" => Base::DurableStreams,
            url => match url.strip_prefix("http://").map(str::parse) {
                Some(Ok(address)) => Base::Running(address),
                _ => return Err(format!("there is no server {url:?}")),
            },
        };
        Ok(Kind { name, base, binary })
    }
}

impl Kind {
    /// Whether it keeps its events in Redis.
    pub(crate) fn has_redis(&self) -> bool {
        matches!(self.base, Base::Fantail { redis: true } | Base::Nchan { redis: true })
    }

    /// Whether a stream can resume.
    pub(crate) fn resumes(&self) -> bool {
        matches!(self.base, Base::Fantail { .. })
    }

    /// Whether it is Fantail or the reference: whatever the bench measures, they can do.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.base, Base::Fantail { .. } | Base::Reference { .. } | Base::Running(_))
    }

    /// Why it cannot be started here, if it cannot.
    pub(crate) fn absent(&self) -> Option<String> {
        let lacks = |path: &str| !Path::new(path).exists();
        match self.base {
            Base::Fantail { .. } => self.binary("fantail").err(),
            Base::Reference { io_uring } => match self.binary("fantail-bench-reference") {
                Err(why) => Some(why),
                Ok(_) if io_uring => self.start(None).err(),
                Ok(_) => None,
            },
            Base::Running(_) => None,
            Base::Nchan { .. } if lacks(peers::NCHAN_MODULE) => {
                Some("apt-get install libnginx-mod-nchan".to_owned())
            }
            Base::Pushpin if lacks(peers::PUSHPIN) || lacks(peers::NGINX) => {
                Some("apt-get install pushpin nginx".to_owned())
            }
            Base::DurableStreams if self.version().is_none() => {
                Some("cargo install durable-streams-server".to_owned())
            }
            Base::Nchan { .. } | Base::Pushpin | Base::DurableStreams => None,
        }
    }

    /// Its program, and what that says its version is.
    pub(crate) fn version(&self) -> Option<(String, String)> {
        let package = |name: &str| {
            let format = "-f=${Package} ${Version}";
            report::says("dpkg-query", &["-W", format, name])
        };
        let version = match self.base {
            Base::Fantail { .. } => {
                report::says(&self.binary("fantail").ok()?.to_string_lossy(), &["--version"])
            }
            Base::Nchan { .. } => {
                format!("{}, {}", package("nginx"), package("libnginx-mod-nchan"))
            }
            Base::Pushpin => {
                format!("{}, {}, {}", package("pushpin"), package("condure"), package("zurl"))
            }
            Base::DurableStreams => {
                let path = self.binary.clone().unwrap_or_else(peers::durable_streams_binary);
                let version = report::says(&path.to_string_lossy(), &["--version"]);
                return (version != "unknown").then(|| (self.name.clone(), version));
            }
            Base::Reference { .. } | Base::Running(_) => return None,
        };
        Some((self.name.clone(), version))
    }

    /// The program, if it is one of ours: the one that was named, or the one beside this.
    fn binary(&self, ours: &str) -> Result<PathBuf, String> {
        if let Some(path) = &self.binary {
            return Ok(path.clone());
        }
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let path = own.parent().unwrap_or(Path::new(".")).join(ours);
        if path.exists() {
            return Ok(path);
        }
        Err(format!("there is no {}: build it first", path.display()))
    }

    /// Starts it, with a Redis of its own if it needs one. `pid`: the process of a server that runs
    /// already.
    ///
    /// # Errors
    /// When something does not start.
    pub(crate) fn start(&self, pid: Option<u32>) -> Result<Server, String> {
        let redis = if self.has_redis() { Some(Redis::start()?) } else { None };
        self.start_on(redis, pid)
    }

    /// Starts it on a Redis that has run already.
    ///
    /// # Errors
    /// When something does not start.
    pub(crate) fn start_on(
        &self,
        redis: Option<Redis>,
        pid: Option<u32>,
    ) -> Result<Server, String> {
        match self.base {
            Base::Fantail { .. } => {
                let mut command = Command::new(self.binary("fantail")?);
                command.env("FANTAIL_LISTEN", "127.0.0.1:0").env("FANTAIL_NODE_ID", "bench");
                command.env("FANTAIL_DRAIN", "0s").env_remove("FANTAIL_REDIS_URL");
                if let Some(redis) = &redis {
                    let url = format!("redis://127.0.0.1:{}", redis.port);
                    command.env("FANTAIL_REDIS_URL", url);
                }
                self.ours(&mut command, redis)
            }
            Base::Reference { io_uring } => {
                let mut command = Command::new(self.binary("fantail-bench-reference")?);
                if io_uring {
                    command.arg("--io-uring");
                }
                self.ours(&mut command, None)
            }
            Base::Running(address) => Ok(Server {
                streams: address,
                publishing: address,
                dialect: Dialect::Fantail,
                root: pid,
                redis: None,
                _processes: Vec::new(),
                _directory: None,
            }),
            Base::Nchan { .. } => peers::nchan(redis),
            Base::Pushpin => peers::pushpin(),
            Base::DurableStreams => peers::durable_streams(self),
        }
    }

    fn ours(&self, command: &mut Command, redis: Option<Redis>) -> Result<Server, String> {
        let (process, address) = Process::start_listening(command)?;
        let address = address.parse().map_err(|_| format!("it listens on {address}"))?;
        Ok(Server {
            streams: address,
            publishing: address,
            dialect: Dialect::Fantail,
            root: Some(process.pid()),
            redis,
            _processes: vec![process],
            _directory: None,
        })
    }
}

/// A server that runs.
pub(crate) struct Server {
    /// Where streams are opened.
    pub streams: SocketAddrV4,
    /// Where events are published.
    pub publishing: SocketAddrV4,
    /// How it is spoken to.
    pub dialect: Dialect,
    /// The process that stands for it, with all its descendants.
    root: Option<u32>,
    // Dropped in this order: Redis after whoever uses it, files last.
    _processes: Vec<Process>,
    /// The Redis behind it.
    pub redis: Option<Redis>,
    _directory: Option<peers::Directory>,
}

impl Server {
    /// Its processes, without Redis.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.root.map(process::family).unwrap_or_default()
    }

    /// Processor time of its processes and of Redis up to now, in seconds.
    ///
    /// # Errors
    /// When one of them is gone.
    pub(crate) fn cpu_seconds(&self) -> Result<[f64; 2], String> {
        let redis: Vec<u32> = self.redis.iter().map(Redis::pid).collect();
        Ok([process::cpu_seconds(&self.pids())?, process::cpu_seconds(&redis)?])
    }

    /// Memory of its processes, in bytes.
    ///
    /// # Errors
    /// When one of them is gone.
    pub(crate) fn memory_bytes(&self) -> Result<f64, String> {
        process::memory_bytes(&self.pids())
    }

    /// Ends the server and returns its Redis, which goes on.
    pub(crate) fn end(self) -> Option<Redis> {
        self.redis
    }

    /// Makes topics that must be there before they are used.
    ///
    /// # Errors
    /// When the server refuses.
    pub(crate) fn prepare(&self, run: &str, topics: u32) -> Result<(), String> {
        if self.dialect == Dialect::DurableStreams {
            peers::create_streams(self, run, topics)?;
        }
        Ok(())
    }
}

/// 127.0.0.1 and a port.
fn loopback(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}
