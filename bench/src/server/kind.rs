//! [`Kind`]: which server to start, with which settings.

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Dialect, Server, peers, tokens};
use crate::process::{self, Process};
use crate::redis::Redis;

/// Which server to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    /// How it is named in the table: what was written, without the path.
    pub name: String,
    base: Base,
    /// Settings of a Fantail: (variable, value).
    settings: Vec<(String, String)>,
    binary: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Fantail {
        redis: bool,
    },
    /// With a key; nobody asks it for anything but streams and publishes.
    FantailKeyed {
        redis: bool,
    },
    Reference {
        io_uring: bool,
    },
    Nchan {
        redis: bool,
    },
    Pushpin,
    DurableStreams,
    Centrifugo {
        redis: bool,
    },
    Running(SocketAddrV4),
}

/// Every server that can be named.
pub(crate) const NAMES: &str = "fantail, fantail-embedded, fantail-keyed, fantail-embedded-keyed, \
    reference, reference-io-uring, nchan, nchan-redis, pushpin, durable-streams, centrifugo, centrifugo-redis";

impl std::str::FromStr for Kind {
    type Err = String;

    /// `[<name>=]<server>[+<setting>=<value>]…[@<binary>]`: one of [`NAMES`], or
    /// `http://127.0.0.1:<port>`, a Fantail that runs already. `fantail+reactors=0` is started with
    /// `FANTAIL_REACTORS=0`. Without a name it goes by what stands before the `@`.
    fn from_str(text: &str) -> Result<Kind, String> {
        let (front, binary) = text
            .split_once('@')
            .map_or((text, None), |(front, path)| (front, Some(PathBuf::from(path))));
        let mut parts = front.split('+');
        let first = parts.next().unwrap_or_default();
        let (name, base) = first.split_once('=').map_or((None, first), |(n, base)| (Some(n), base));
        let settings = parts.map(|setting| {
            let (name, value) = setting
                .split_once('=')
                .ok_or_else(|| format!("{setting:?} is no <setting>=<value>"))?;
            let variable = name.to_uppercase().replace('-', "_");
            Ok((format!("FANTAIL_{variable}"), value.to_owned()))
        });
        let settings: Vec<(String, String)> = settings.collect::<Result<_, String>>()?;
        let name = name.unwrap_or(front).to_owned();
        let base = match base {
            "fantail" => Base::Fantail { redis: true },
            "fantail-embedded" => Base::Fantail { redis: false },
            "fantail-keyed" => Base::FantailKeyed { redis: true },
            "fantail-embedded-keyed" => Base::FantailKeyed { redis: false },
            "reference" => Base::Reference { io_uring: false },
            "reference-io-uring" => Base::Reference { io_uring: true },
            "nchan" => Base::Nchan { redis: false },
            "nchan-redis" => Base::Nchan { redis: true },
            "pushpin" => Base::Pushpin,
            "durable-streams" => Base::DurableStreams,
            "centrifugo" => Base::Centrifugo { redis: false },
            "centrifugo-redis" => Base::Centrifugo { redis: true },
            url => match url.strip_prefix("http://").map(str::parse) {
                Some(Ok(address)) => Base::Running(address),
                _ => return Err(format!("there is no server {url:?}, but {NAMES}")),
            },
        };
        let takes_settings = matches!(base, Base::Fantail { .. } | Base::FantailKeyed { .. });
        if !settings.is_empty() && !takes_settings {
            return Err(format!("{text:?}: only a fantail that is started takes settings"));
        }
        Ok(Kind { name, base, settings, binary })
    }
}

impl Kind {
    /// The same with one more setting, which has a meaning for a Fantail alone.
    pub(crate) fn with(&self, variable: &str, value: &str) -> Kind {
        let mut kind = self.clone();
        kind.settings.push((variable.to_owned(), value.to_owned()));
        kind
    }

    /// Whether it keeps its events in Redis.
    pub(crate) fn has_redis(&self) -> bool {
        match self.base {
            Base::Fantail { redis }
            | Base::FantailKeyed { redis }
            | Base::Nchan { redis }
            | Base::Centrifugo { redis } => redis,
            _ => false,
        }
    }

    /// Whether it is a Fantail: has boards, resumes streams, reports its connections.
    pub(crate) fn is_fantail(&self) -> bool {
        matches!(self.base, Base::Fantail { .. } | Base::Running(_))
    }

    /// Whether it is one that this starts, which can be restarted on the same Redis.
    pub(crate) fn restarts(&self) -> bool {
        matches!(self.base, Base::Fantail { .. })
    }

    /// Whether it is Fantail or the reference: whatever streams can do, they can.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.base, Base::Fantail { .. } | Base::Reference { .. } | Base::Running(_))
    }

    /// Whether one stream can have several topics.
    pub(crate) fn carries_several_topics(&self) -> bool {
        self.is_ours() || matches!(self.base, Base::FantailKeyed { .. } | Base::Centrifugo { .. })
    }

    /// Whether it keeps streams whose clients do not read, for some time at least.
    pub(crate) fn waits_for_readers(&self) -> bool {
        !matches!(self.base, Base::Reference { .. })
    }

    /// Why it cannot be started here, if it cannot.
    pub(crate) fn absent(&self) -> Option<String> {
        let lacks = |path: &str| !Path::new(path).exists();
        match self.base {
            Base::Fantail { .. } | Base::FantailKeyed { .. } => self.own_binary("fantail").err(),
            Base::Reference { io_uring } => match self.own_binary("fantail-bench-reference") {
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
            Base::Centrifugo { .. } if self.version().is_none() => {
                Some("go install github.com/centrifugal/centrifugo/v6".to_owned())
            }
            Base::Nchan { .. } | Base::Pushpin | Base::DurableStreams | Base::Centrifugo { .. } => {
                None
            }
        }
    }

    /// Its program, and what that says its version is.
    pub(crate) fn version(&self) -> Option<(String, String)> {
        let package = |name: &str| {
            let format = "-f=${Package} ${Version}";
            process::first_line_of("dpkg-query", &["-W", format, name])
        };
        let installed = |name: &str, arguments: &[&str]| {
            let path = self.peer_binary(name);
            let version = process::first_line_of(&path.to_string_lossy(), arguments);
            (version != "unknown").then_some(version)
        };
        let version = match self.base {
            Base::Fantail { .. } | Base::FantailKeyed { .. } => process::first_line_of(
                &self.own_binary("fantail").ok()?.to_string_lossy(),
                &["--version"],
            ),
            Base::Nchan { .. } => {
                format!("{}, {}", package("nginx"), package("libnginx-mod-nchan"))
            }
            Base::Pushpin => {
                format!("{}, {}, {}", package("pushpin"), package("condure"), package("zurl"))
            }
            Base::DurableStreams => installed("durable-streams-server", &["--version"])?,
            Base::Centrifugo { .. } => installed("centrifugo", &["version"])?,
            Base::Reference { .. } | Base::Running(_) => return None,
        };
        Some((self.name.clone(), version))
    }

    /// The program, if it is one of ours: the one that was named, or the one beside this.
    fn own_binary(&self, ours: &str) -> Result<PathBuf, String> {
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

    /// The program of a peer that is no package: the one that was named, the one that
    /// `make bench-peers` installed, or the one in the path.
    fn peer_binary(&self, name: &str) -> PathBuf {
        let ours = Path::new("target/bench/peers/bin").join(name);
        let found = || if ours.exists() { ours } else { PathBuf::from(name) };
        self.binary.clone().unwrap_or_else(found)
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
            Base::Fantail { .. } | Base::FantailKeyed { .. } => {
                let mut command = Command::new(self.own_binary("fantail")?);
                command.env("FANTAIL_LISTEN", "127.0.0.1:0").env("FANTAIL_NODE_ID", "bench");
                command.env("FANTAIL_DRAIN", "0s").env_remove("FANTAIL_REDIS_URL");
                let keyed = matches!(self.base, Base::FantailKeyed { .. });
                let dialect = if keyed { Dialect::FantailKeyed } else { Dialect::Fantail };
                if keyed {
                    command.env("FANTAIL_JWT_SECRET", tokens::SECRET);
                }
                command.envs(self.settings.iter().cloned());
                if let Some(redis) = &redis {
                    let url = format!("redis://127.0.0.1:{}", redis.port);
                    command.env("FANTAIL_REDIS_URL", url);
                }
                ours(&mut command, redis, dialect)
            }
            Base::Reference { io_uring } => {
                let mut command = Command::new(self.own_binary("fantail-bench-reference")?);
                if io_uring {
                    command.arg("--io-uring");
                }
                ours(&mut command, None, Dialect::Fantail)
            }
            Base::Running(address) => Ok(Server::running(address, pid)),
            Base::Nchan { .. } => peers::nchan(redis),
            Base::Pushpin => peers::pushpin(),
            Base::DurableStreams => {
                peers::durable_streams(&self.peer_binary("durable-streams-server"))
            }
            Base::Centrifugo { .. } => peers::centrifugo(&self.peer_binary("centrifugo"), redis),
        }
    }
}

fn ours(command: &mut Command, redis: Option<Redis>, dialect: Dialect) -> Result<Server, String> {
    let (process, address) = Process::start_listening(command)?;
    let address = address.parse().map_err(|_| format!("it listens on {address}"))?;
    Ok(Server {
        streams: address,
        publishing: address,
        dialect,
        root: Some(process.pid()),
        redis,
        _processes: vec![process],
        _directory: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_written_with_a_name_settings_and_a_binary() {
        let kind: Kind = "fantail-embedded+reactors=0+write-timeout=5s".parse().unwrap();
        assert_eq!(kind.name, "fantail-embedded+reactors=0+write-timeout=5s");
        assert_eq!(kind.base, Base::Fantail { redis: false });
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let settings = [setting("FANTAIL_REACTORS", "0"), setting("FANTAIL_WRITE_TIMEOUT", "5s")];
        assert_eq!(kind.settings, settings);

        let kind: Kind = "old=fantail+reactors=2@/some+where/a=b@c".parse().unwrap();
        assert_eq!((kind.name.as_str(), kind.has_redis()), ("old", true));
        assert_eq!(kind.binary, Some(PathBuf::from("/some+where/a=b@c")));

        for wrong in ["nothing", "reference+reactors=0", "fantail+reactors", "http://nowhere"] {
            assert!(wrong.parse::<Kind>().is_err(), "{wrong}");
        }
    }
}
