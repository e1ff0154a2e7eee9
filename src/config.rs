//! Every setting: flag, `FANTAIL_…` variable, default, unit, why; and how they must relate.
//!
//! Values alone: this file imports nothing of the others, and whoever starts one of them hands it
//! what it needs. The command line that reads them, and says in one line which is wrong, is the
//! program's.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use clap::{FromArgMatches, ValueEnum};
use compression::compression;
use ipnet::IpNet;
use log_filter::log_filter;
pub use redis_files::RedisFiles;
pub use redis_url::{REDIS_URL_RIGHT, RedisUrl};

mod compression;
mod file;
mod hosts;
mod identity;
mod limits;
mod log_filter;
mod redis_files;
mod redis_url;

pub use compression::{Coding, Compression};
pub use file::SettingsFile;
pub use hosts::{HostName, Hosts};
pub use identity::{Issuer, KeySource, Secret};
pub use limits::{ClientLimits, Rate, RateByToken};

/// The settings of `fantail serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Settings file (TOML): a setting there is named as its variable, in small letters and without FANTAIL_, and holds where neither flag nor variable says anything [default: none]
    #[arg(long = "config", env = "FANTAIL_CONFIG", value_name = "FILE", value_parser = identity::path)]
    pub config_file: Option<PathBuf>,

    /// Those who stand in the settings file: whose tokens are believed, each with keys of their own.
    #[arg(skip)]
    pub issuers_of_file: Vec<Issuer>,

    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, env = "FANTAIL_LISTEN", default_value = "127.0.0.1:3000", value_parser = listen_address)]
    pub listen: SocketAddr,

    /// Address and port of the operators' door: /metrics, /admin, /healthz and /readyz, for whoever can reach it, without a token [default: none]
    #[arg(long, env = "FANTAIL_ADMIN_LISTEN", value_parser = listen_address)]
    pub admin_listen: Option<SocketAddr>,

    /// Certificate (chain) to speak TLS with, as a PEM file; read again when it changes [default: no TLS]
    #[arg(long, env = "FANTAIL_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of the certificate, as a PEM file
    #[arg(long, env = "FANTAIL_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// Redis to share with the other nodes, as redis:// or rediss:// URL; without it the node keeps an embedded log in memory, alone
    #[arg(long, env = "FANTAIL_REDIS_URL", hide_env_values = true, value_parser = redis_url::redis_url)]
    pub redis_url: Option<RedisUrl>,

    /// What Redis is shown besides.
    #[command(flatten)]
    pub redis_files: RedisFiles,

    /// What all keys and channels in Redis begin with
    #[arg(long, env = "FANTAIL_REDIS_PREFIX", default_value = "fantail", value_parser = redis_prefix)]
    pub redis_prefix: String,

    /// Name of this node, unique among the replicas [default: host name and a random suffix]
    #[arg(long, env = "FANTAIL_NODE_ID", default_value_t = default_node_id(), hide_default_value = true, value_parser = node_id)]
    pub node_id: String,

    /// Entries kept per topic for replay, 1 to 1000000
    #[arg(long, env = "FANTAIL_HISTORY_SIZE", default_value = "1000", value_parser = number::<1, 1_000_000>)]
    pub history_size: usize,

    /// After this time without use a topic's history is forgotten, 1s or more
    #[arg(long, env = "FANTAIL_HISTORY_TTL", default_value = "24h", value_parser = duration::<1_000, 31_536_000_000>)]
    pub history_ttl: Duration,

    /// How long the answer to a request with an Idempotency-Key is kept, 1s to 7d
    #[arg(long, env = "FANTAIL_IDEMPOTENCY_WINDOW", default_value = "10m", value_parser = duration::<1_000, 604_800_000>)]
    pub idempotency_window: Duration,

    /// Replicas of Redis that must have a write before it is acknowledged, 0 to 100
    #[arg(long, env = "FANTAIL_WAIT_REPLICAS", default_value = "0", value_parser = number::<0, 100>)]
    pub wait_replicas: usize,

    /// Silence on a stream after which a heartbeat comment is sent, 100ms to 10m
    #[arg(long, env = "FANTAIL_HEARTBEAT", default_value = "15s", value_parser = duration::<100, 600_000>)]
    pub heartbeat: Duration,

    /// How long browsers wait before they reconnect, 10ms to 10m
    #[arg(long, env = "FANTAIL_RETRY", default_value = "3s", value_parser = duration::<10, 600_000>)]
    pub retry: Duration,

    /// On SIGTERM, the time over which streams are ended, 0s to 10m
    #[arg(long, env = "FANTAIL_DRAIN", default_value = "10s", value_parser = duration::<0, 600_000>)]
    pub drain: Duration,

    /// Each stream ends at a random 80 to 100 % of this age, with its position and a short retry, so that a cluster evens out after a node was added; 1s to 365d [default: off]
    #[arg(long, env = "FANTAIL_MAX_STREAM_AGE", value_parser = duration::<1_000, 31_536_000_000>)]
    pub max_stream_age: Option<Duration>,

    /// Streams this node accepts, 1 to 10000000; lowered to what the file-descriptor limit allows
    #[arg(long, env = "FANTAIL_MAX_CONNECTIONS", default_value = "100000", value_parser = number::<1, 10_000_000>)]
    pub max_connections: usize,

    /// Streams this node accepts from one client address, 0 for no limit; behind a proxy that is not trusted all clients have its address
    #[arg(long, env = "FANTAIL_MAX_CONNECTIONS_PER_ADDRESS", default_value = "0", value_parser = number::<0, 10_000_000>)]
    pub max_connections_per_address: usize,

    /// Sockets this node keeps open for one client address, 0 for no limit; loopback and trusted proxies have none
    #[arg(long, env = "FANTAIL_MAX_SOCKETS_PER_ADDRESS", default_value = "512", value_parser = number::<0, 10_000_000>)]
    pub max_sockets_per_address: usize,

    /// What one client may have and do.
    #[command(flatten)]
    pub limits: ClientLimits,

    /// Proxies that may say for whom they ask (Forwarded, X-Forwarded-For, PROXY protocol), as addresses and networks separated by commas
    #[arg(long, env = "FANTAIL_TRUSTED_PROXIES", default_value = "", value_parser = networks)]
    pub trusted_proxies: Networks,

    /// Threads that carry waiting streams outside the HTTP server, 0 to 64; 0 leaves all of them to the HTTP server [default: half as many as processors]
    #[arg(long, env = "FANTAIL_REACTORS", default_value_t = default_reactors(), hide_default_value = true, value_parser = number::<0, 64>)]
    pub reactors: usize,

    /// Threads for everything else (requests, the log, streams left to the HTTP server), 1 to 1024 [default: one for each processor without a reactor]
    #[arg(long, env = "FANTAIL_WORKERS", value_parser = number::<1, 1024>)]
    pub workers: Option<usize>,

    /// Largest request body, as bytes or with KiB or MiB, 1KiB to 64MiB
    #[arg(long, env = "FANTAIL_MAX_BODY", default_value = "1MiB", value_parser = size::<{ 1 << 10 }, { 64 << 20 }>)]
    pub max_body: usize,

    /// How streams are compressed for clients that can read it: zstd, br and gzip in order of preference, separated by commas, or off
    #[arg(long, env = "FANTAIL_COMPRESSION", default_value = "off", value_parser = compression)]
    pub compression: Compression,

    /// A connection whose peer takes no bytes for this long is ended, 1s to 1h
    #[arg(long, env = "FANTAIL_WRITE_TIMEOUT", default_value = "60s", value_parser = duration::<1_000, 3_600_000>)]
    pub write_timeout: Duration,

    /// What to log: error, warn, info, debug, trace, or a filter such as info,fantail::relay=debug; what it does not name is logged from info on
    #[arg(long, env = "FANTAIL_LOG", default_value = "info", value_parser = log_filter)]
    pub log: String,

    /// How to write log lines
    #[arg(long, env = "FANTAIL_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Origins whose pages may use this gateway besides its own, separated by commas, or * for all (without credentials)
    #[arg(long, env = "FANTAIL_CORS_ORIGINS", default_value = "", value_parser = cors_origins)]
    pub cors_origins: CorsOrigins,

    /// What may be done without a token: true is everything but administration, read is following and reading, false is nothing; where there is no key, a node on loopback leaves everything to its machine
    #[arg(long, env = "FANTAIL_ANONYMOUS", default_value = "false")]
    pub anonymous: Anonymous,

    /// Hosts that clients may name besides those of this machine, separated by commas, each with or without a port, or * for any [default: none where it listens on loopback, else any]
    #[arg(long, env = "FANTAIL_HOSTS", value_parser = Hosts::read)]
    pub hosts: Option<Hosts>,

    /// Secret that tokens are signed with (HS256, HS384, HS512), 32 bytes or more; with it every request needs a token. A flag is seen by everybody on the machine: use the variable or the file
    #[arg(long, env = "FANTAIL_JWT_SECRET", hide_env_values = true, value_parser = identity::secret)]
    pub jwt_secret: Option<Secret>,

    /// File that holds that secret; a line break at its end is no part of it
    #[arg(long, env = "FANTAIL_JWT_SECRET_FILE", value_parser = identity::path)]
    pub jwt_secret_file: Option<PathBuf>,

    /// PEM file with the public keys of whoever signs tokens: RSA (RS256 to PS512), EC (ES256, ES384, ES512) or Ed25519 (EdDSA); with it every request needs a token
    #[arg(long, env = "FANTAIL_JWT_PUBLIC_KEY", value_parser = identity::path)]
    pub jwt_public_key: Option<PathBuf>,

    /// JWK set with the public keys of whoever signs tokens, as URL or path; fetched again when it gets old, or a token names a key that is not in it; with it every request needs a token
    #[arg(long, env = "FANTAIL_JWKS", value_parser = identity::jwks)]
    pub jwks: Option<String>,

    /// What tokens must have as iss [default: anything]
    #[arg(long, env = "FANTAIL_JWT_ISSUER", value_parser = identity::claim)]
    pub jwt_issuer: Option<String>,

    /// What tokens must have as aud, or among it [default: they may have none]
    #[arg(long, env = "FANTAIL_JWT_AUDIENCE", value_parser = identity::claim)]
    pub jwt_audience: Option<String>,

    /// Whether what tokens say to Mercure hubs is read, too, as far as it names exact topics or *: authorization_details of 1.0, and the claim mercure of 0.x
    #[arg(long, env = "FANTAIL_MERCURE_TOKENS", default_value = "false", action = clap::ArgAction::Set)]
    pub mercure_tokens: bool,

    /// Name of the cookie that may carry a token, in the place of the Authorization header
    #[arg(long, env = "FANTAIL_JWT_COOKIE", default_value = "fantail", value_parser = cookie_name)]
    pub jwt_cookie: String,

    /// How long a ticket is good, 1s to 10m
    #[arg(long, env = "FANTAIL_TICKET_TTL", default_value = "30s", value_parser = duration::<1_000, 600_000>)]
    pub ticket_ttl: Duration,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Addresses, and networks of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<IpNet>);

/// Which origins' pages may use the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigins {
    /// All, without credentials.
    Any,
    /// These, with credentials; maybe none.
    Only(Vec<String>),
}

/// What the setting says may be done without a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Anonymous {
    /// Nothing, where it is to be decided who may do what.
    #[value(name = "false")]
    Nothing,
    /// Following and reading.
    Read,
    /// Everything but administration.
    #[value(name = "true")]
    Use,
}

/// What may be done without a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutToken {
    /// Nothing.
    Nothing,
    /// Following and reading.
    Read,
    /// Everything but administration.
    Use,
    /// Everything: the node is its machine's own.
    Everything,
}

impl Config {
    /// How many threads the runtime gets.
    ///
    /// Fewer than processors by default: an event that comes alone costs the same few wake-ups
    /// whatever there is to wake, but each idle thread is woken in vain to see whether it can help.
    /// On two processors, 5,000 events a second to one listener each took 111 s of processor time
    /// per million with one thread and 141 s with two; bursts took the same.
    pub fn workers(&self) -> usize {
        self.workers.unwrap_or_else(|| processors().saturating_sub(self.reactors).max(1))
    }

    /// Reads settings from flags (the first argument is the program's name) and the environment,
    /// each by itself.
    ///
    /// # Errors
    /// What clap found wrong.
    pub fn from_arguments<I, T>(arguments: I) -> Result<Config, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        Config::from_arg_matches(&Config::command().try_get_matches_from(arguments)?)
    }

    /// To which hosts the node answers besides those of its own machine. Where nobody but this
    /// machine can reach it, a request for another host comes from a page that has had its own name
    /// lead here (DNS rebinding).
    pub fn served_hosts(&self) -> Hosts {
        match &self.hosts {
            Some(hosts) => hosts.clone(),
            None => hosts_at(self.listen),
        }
    }

    /// What may be done without a token.
    pub fn without_token(&self) -> WithoutToken {
        let is_machines_own = !self.has_key() && is_loopback(self.listen);
        match self.anonymous {
            Anonymous::Read => WithoutToken::Read,
            Anonymous::Nothing | Anonymous::Use if is_machines_own => WithoutToken::Everything,
            Anonymous::Use => WithoutToken::Use,
            Anonymous::Nothing => WithoutToken::Nothing,
        }
    }

    /// Whether others than this machine can reach the node, and nobody is asked who they are.
    pub fn is_open_to_others(&self) -> bool {
        !self.has_key() && !is_loopback(self.listen)
    }

    /// Whether tokens are asked for.
    pub fn has_key(&self) -> bool {
        !self.issuers().is_empty()
    }

    /// The same for the operators' door at `address`. It has nothing for pages, so that nobody needs
    /// to list more names for it.
    pub fn hosts_of_operators(address: SocketAddr) -> Hosts {
        hosts_at(address)
    }

    /// How settings must relate.
    ///
    /// # Errors
    /// One line that names the settings and what would be right.
    pub fn check_relations(&self) -> Result<(), String> {
        if self.wait_replicas > 0 && self.redis_url.is_none() {
            return Err(format!(
                "--wait-replicas (FANTAIL_WAIT_REPLICAS) is {}: it needs --redis-url \
                 (FANTAIL_REDIS_URL), the embedded log has no replicas",
                self.wait_replicas
            ));
        }
        let (one, other) = ("--tls-cert (FANTAIL_TLS_CERT)", "--tls-key (FANTAIL_TLS_KEY)");
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => return Err(format!("{one} needs {other}, and that is not set")),
            (None, Some(_)) => return Err(format!("{other} needs {one}, and that is not set")),
            _ => {}
        }
        if self.is_open_to_others() && self.anonymous == Anonymous::Nothing {
            return Err(format!(
                "--listen (FANTAIL_LISTEN) is \"{}\", where others can reach this node: set a key, such \
                 as --jwt-secret-file (FANTAIL_JWT_SECRET_FILE), or say by --anonymous \
                 (FANTAIL_ANONYMOUS) what everybody may do, read or true",
                self.listen
            ));
        }
        self.check_keys()?;
        self.redis_files.check_relations(self.redis_url.as_deref())
    }

    /// Flags and variables alone, without the program's subcommands.
    fn command() -> clap::Command {
        <Config as clap::Args>::augment_args(clap::Command::new("fantail"))
    }

    /// All settings as (flag, variable, default, help), for documentation and its test.
    pub fn reference() -> Vec<[String; 4]> {
        let command = Config::command();
        let settings = command.get_arguments().filter_map(|argument| {
            let variable = argument.get_env()?.to_string_lossy().into_owned();
            let flag = format!("--{}", argument.get_long()?);
            let default = if argument.is_hide_default_value_set() {
                String::new()
            } else {
                let defaults = argument.get_default_values().iter();
                defaults.map(|value| value.to_string_lossy()).collect()
            };
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            Some([flag, variable, default, help])
        });
        settings.collect()
    }
}

/// The hosts that are answered to at this address unless others are listed, besides the names of
/// this machine.
fn hosts_at(address: SocketAddr) -> Hosts {
    if is_loopback(address) { Hosts::Only(Vec::new()) } else { Hosts::Any }
}

/// Whether nobody but this machine reaches it.
fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Reads an address to listen on.
///
/// # Errors
/// What would be right.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let wrong = |_| "must be an address and a port, such as 127.0.0.1:3000 or 0.0.0.0:3000";
    let mut addresses = text.to_socket_addrs().map_err(wrong)?;
    addresses.next().ok_or_else(|| "must be an address that exists".to_owned())
}

fn networks(text: &str) -> Result<Networks, String> {
    let network = |text: &str| {
        let text = text.trim();
        let address = text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
        address.ok().or_else(|| text.parse().ok())
    };
    let names = text.split(',').filter(|name| !name.trim().is_empty());
    let networks: Option<Vec<IpNet>> = names.map(network).collect();
    networks.map(Networks).ok_or_else(|| {
        "must be addresses and networks such as 10.0.0.0/8,192.0.2.7,fd00::/8".to_owned()
    })
}

fn redis_prefix(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/".contains(&b));
    if fits {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 64 letters, digits or any of - _ . : /".to_owned())
    }
}

fn node_id(text: &str) -> Result<String, String> {
    let fits = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if fits {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 128 visible ASCII characters without spaces".to_owned())
    }
}

/// A token of RFC 9110 §5.6.2, as RFC 6265 has it.
fn cookie_name(text: &str) -> Result<String, String> {
    let is_of_name = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if (1..=128).contains(&text.len()) && text.bytes().all(is_of_name) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 128 letters, digits or any of ! # $ % & ' * + - . ^ _ ` | ~".to_owned())
    }
}

fn number<const LEAST: usize, const MOST: usize>(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (LEAST..=MOST).contains(number));
    number.ok_or_else(|| format!("must be a whole number from {LEAST} to {MOST}"))
}

fn duration<const LEAST: u64, const MOST: u64>(text: &str) -> Result<Duration, String> {
    let bounds = Duration::from_millis(LEAST)..=Duration::from_millis(MOST);
    let duration = humantime::parse_duration(text).ok().filter(|time| bounds.contains(time));
    duration.ok_or_else(|| {
        format!(
            "must be a duration such as 500ms, 15s or 24h, from {} to {}",
            humantime::format_duration(*bounds.start()),
            humantime::format_duration(*bounds.end())
        )
    })
}

fn size<const LEAST: usize, const MOST: usize>(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" | "kib" => Some(1 << 10),
        "m" | "mb" | "mib" => Some(1 << 20),
        "g" | "gb" | "gib" => Some(1 << 30),
        _ => None,
    };
    let bytes = digits.parse().ok().zip(factor).and_then(|(n, f): (usize, usize)| n.checked_mul(f));
    bytes.filter(|bytes| (LEAST..=MOST).contains(bytes)).ok_or_else(|| {
        let [least, most] = [LEAST, MOST].map(|bytes| match bytes {
            _ if bytes % (1 << 30) == 0 => format!("{}GiB", bytes >> 30),
            _ if bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
            _ => format!("{}KiB", bytes >> 10),
        });
        format!("must be a size such as 65536, 512KiB or 1MiB, from {least} to {most}")
    })
}

fn cors_origins(text: &str) -> Result<CorsOrigins, String> {
    match text.trim() {
        "*" => return Ok(CorsOrigins::Any),
        "" => return Ok(CorsOrigins::Only(Vec::new())),
        _ => {}
    }
    let origin = |origin: &str| {
        let origin = origin.trim();
        let (scheme, authority) = origin.split_once("://")?;
        // The address of a host has colons itself, in brackets.
        let after_host = authority.rfind(']').map_or(0, |end| end + 1);
        let (host, port) = match authority[after_host..].find(':') {
            Some(at) => authority.split_at(after_host + at),
            None => (authority, ""),
        };
        // As browsers write it: no sign, no zero in front.
        let is_port = |port: &str| port.parse::<u16>().is_ok_and(|read| read.to_string() == port);
        let fits = ["http", "https"].contains(&scheme)
            && !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_graphic() && !b"/*,?#@%".contains(&b))
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
        fits.then(|| origin.to_owned())
    };
    let origins: Option<Vec<String>> = text.split(',').map(origin).collect();
    origins.map(CorsOrigins::Only).ok_or_else(|| {
        "must be * or origins such as https://app.example,http://localhost:8080".to_owned()
    })
}

/// One reactor keeps a processor busy with some 150,000 deliveries a second; the other half is for
/// the log and for requests. Elsewhere than on Linux there are none, whatever is asked for.
fn default_reactors() -> usize {
    if cfg!(target_os = "linux") { (processors() / 2).clamp(1, 64) } else { 0 }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn default_node_id() -> String {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    let host: String = host.chars().filter(char::is_ascii_graphic).take(100).collect();
    let suffix: String = std::iter::repeat_with(fastrand::lowercase).take(4).collect();
    format!("{host}-{suffix}").trim_start_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(arguments: &[&str]) -> Result<Config, clap::Error> {
        Config::from_arguments(std::iter::once("fantail").chain(arguments.iter().copied()))
    }

    #[test]
    fn without_arguments_the_settings_are_those_that_are_documented() {
        let config = from(&[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:3000");
        assert_eq!(config.redis_url, None);
        assert_eq!(config.history_size, 1000);
        assert_eq!(config.history_ttl, Duration::from_secs(24 * 3600));
        assert_eq!(config.heartbeat, Duration::from_secs(15));
        assert_eq!(config.retry, Duration::from_secs(3));
        assert_eq!(config.drain, Duration::from_secs(10));
        assert_eq!(config.max_stream_age, None);
        assert_eq!(config.max_body, 1 << 20);
        assert_eq!(config.cors_origins, CorsOrigins::Only(Vec::new()));
        assert_eq!(config.served_hosts(), Hosts::Only(Vec::new()));
        assert_eq!(config.jwt_cookie, "fantail");
        assert_eq!(config.ticket_ttl, Duration::from_secs(30));
        assert_eq!(config.compression, Compression(Vec::new()));
        assert_eq!(config.check_relations(), Ok(()));
        assert_ne!(default_node_id(), default_node_id());
    }

    #[test]
    fn where_others_reach_a_node_somebody_says_who_may_do_what() {
        use WithoutToken::{Everything, Nothing, Read, Use};
        let key = ["--jwt-secret-file", "a"];
        for (listen, anonymous, with_key, without_token) in [
            ("127.0.0.1:1", "false", false, Some(Everything)),
            ("[::1]:1", "true", false, Some(Everything)),
            ("127.9.9.9:1", "read", false, Some(Read)),
            ("127.0.0.1:1", "false", true, Some(Nothing)),
            ("127.0.0.1:1", "true", true, Some(Use)),
            ("0.0.0.0:1", "false", false, None),
            ("[::]:1", "false", false, None),
            ("192.0.2.1:1", "false", false, None),
            ("0.0.0.0:1", "true", false, Some(Use)),
            ("[::]:1", "read", false, Some(Read)),
            ("0.0.0.0:1", "false", true, Some(Nothing)),
            ("0.0.0.0:1", "read", true, Some(Read)),
            ("0.0.0.0:1", "true", true, Some(Use)),
        ] {
            let mut arguments = vec!["--listen", listen, "--anonymous", anonymous];
            arguments.extend(if with_key { &key[..] } else { &[] });
            let config = from(&arguments).unwrap();
            let said = config.check_relations();
            assert_eq!(said.is_ok(), without_token.is_some(), "{arguments:?}: {said:?}");
            if let Some(without_token) = without_token {
                assert_eq!(config.without_token(), without_token, "{arguments:?}");
            }
        }
        assert!(from(&["--anonymous", "yes"]).is_err());
    }

    #[test]
    fn replicas_can_only_be_waited_for_where_there_is_a_redis() {
        let alone = from(&["--wait-replicas", "1"]).unwrap();
        let line = alone.check_relations().unwrap_err();
        assert!(line.contains("--wait-replicas") && line.contains("--redis-url"), "{line}");
        let with_redis = ["--wait-replicas", "1", "--redis-url", "redis://127.0.0.1"];
        assert_eq!(from(&with_redis).unwrap().check_relations(), Ok(()));
    }

    #[test]
    fn a_certificate_needs_a_key_and_a_key_a_certificate() {
        for (set, missing) in [("--tls-cert", "--tls-key"), ("--tls-key", "--tls-cert")] {
            let line = from(&[set, "x.pem"]).unwrap().check_relations().unwrap_err();
            assert!(line.starts_with(set) && line.contains(missing), "{line}");
        }
        let both = from(&["--tls-cert", "c.pem", "--tls-key", "k.pem"]).unwrap();
        assert_eq!(both.check_relations(), Ok(()));
    }

    #[test]
    fn tokens_are_verified_with_one_kind_of_key_and_claims_need_one() {
        let both = from(&["--jwt-secret-file", "a", "--jwt-public-key", "b"]).unwrap();
        let line = both.check_relations().unwrap_err();
        assert!(line.contains("--jwt-secret-file") && line.contains("--jwt-public-key"), "{line}");
        for flag in ["--jwt-issuer", "--jwt-audience"] {
            let none = from(&[flag, "x"]).unwrap();
            assert!(none.check_relations().unwrap_err().contains(flag));
            assert_eq!(none.issuers(), []);
            let with_key = from(&[flag, "x", "--jwt-secret-file", "a"]).unwrap();
            assert_eq!(with_key.check_relations(), Ok(()));
            assert_eq!(with_key.issuers().len(), 1);
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let config = from(&["--jwt-secret", "hunter2-hunter2"]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(from(&["--jwt-secret", " "]).is_err());
    }

    #[test]
    fn origins_have_ports_that_can_be() {
        let right =
            ["https://a", "http://localhost:8080", "http://[::1]:80", "https://a:65535,https://b"];
        for origins in right {
            assert!(from(&["--cors-origins", origins]).is_ok(), "{origins}");
        }
        let wrong = [
            "https://a:99999",
            "https://a:",
            "https://a:x",
            "https://a:+1",
            "https://[::1]:1:2",
            "a",
            "https://a,",
            "null",
        ];
        for origins in wrong {
            assert!(from(&["--cors-origins", origins]).is_err(), "{origins}");
        }
    }

    #[test]
    fn proxies_are_addresses_and_networks() {
        let networks =
            |text| from(&["--trusted-proxies", text]).map(|config| config.trusted_proxies);
        assert_eq!(networks("").unwrap(), Networks::default());
        let read = networks("10.0.0.0/8, 192.0.2.7,fd00::/8,::ffff:192.0.2.9,").unwrap();
        let read: Vec<String> = read.0.iter().map(ToString::to_string).collect();
        assert_eq!(read, ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8", "192.0.2.9/32"]);
        for wrong in ["10.0.0.0/33", "proxy.example", "*", "10.0.0.0-10.0.0.9", "10.0.0"] {
            assert!(networks(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_and_durations_are_read_as_written() {
        let arguments = ["--max-body", "64KiB", "--retry", "1s 500ms", "--max-stream-age", "1h"];
        let config = from(&arguments).unwrap();
        assert_eq!(config.max_body, 65536);
        assert_eq!(config.retry, Duration::from_millis(1500));
        assert_eq!(config.max_stream_age, Some(Duration::from_secs(3600)));
    }
}
