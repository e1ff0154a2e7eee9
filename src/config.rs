//! Every setting: flag, `FANTAIL_…` variable, default, unit, why; and how they must relate.
//!
//! A wrong value stops the start with one line that names the setting, the value and what would
//! be right.

use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZero;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use fantail_check::command::CheckArguments;

use crate::health::HealthUrl;

/// Fantail: a horizontally scalable Server-Sent Events gateway backed by Redis.
#[derive(Debug, Parser)]
#[command(
    name = "fantail",
    version,
    about,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Subcommands>,
    #[command(flatten)]
    config: Config,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Serve streams, tasks and topics (the default)
    Serve(Box<Config>),
    /// Ask a running gateway whether it answers: exit status 0 if so, else 1 and one line that says why
    Health(Health),
    /// Check a running deployment: publish, roam, and verify order, completeness and resets
    Check(Box<CheckArguments>),
}

#[derive(Debug, clap::Args)]
struct Health {
    /// What to ask [default: /healthz where FANTAIL_LISTEN says that this machine's gateway listens]
    #[arg(long)]
    url: Option<HealthUrl>,

    /// Where the gateway of this machine listens
    #[arg(long, env = "FANTAIL_LISTEN", default_value = "127.0.0.1:3000", value_parser = listen)]
    listen: SocketAddr,
}

/// The settings of `fantail serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, env = "FANTAIL_LISTEN", default_value = "127.0.0.1:3000", value_parser = listen)]
    pub listen: SocketAddr,

    /// Redis to share with the other nodes, as redis:// or rediss:// URL; without it the node keeps an embedded log in memory, alone
    #[arg(long, env = "FANTAIL_REDIS_URL", hide_env_values = true, value_parser = redis_url)]
    pub redis_url: Option<String>,

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

    /// Streams this node accepts, 1 to 10000000; lowered to what the file-descriptor limit allows
    #[arg(long, env = "FANTAIL_MAX_CONNECTIONS", default_value = "100000", value_parser = number::<1, 10_000_000>)]
    pub max_connections: usize,

    /// Streams this node accepts from one client address, 0 for no limit; behind a proxy all clients have its address
    #[arg(long, env = "FANTAIL_MAX_CONNECTIONS_PER_ADDRESS", default_value = "0", value_parser = number::<0, 10_000_000>)]
    pub max_connections_per_address: usize,

    /// Threads that carry waiting streams outside the HTTP server, 0 to 64; 0 leaves all of them to the HTTP server [default: half as many as processors]
    #[arg(long, env = "FANTAIL_REACTORS", default_value_t = default_reactors(), hide_default_value = true, value_parser = number::<0, 64>)]
    pub reactors: usize,

    /// Threads for everything else (requests, the log, streams left to the HTTP server), 1 to 1024 [default: one for each processor without a reactor]
    #[arg(long, env = "FANTAIL_WORKERS", value_parser = number::<1, 1024>)]
    pub workers: Option<usize>,

    /// Largest request body, as bytes or with KiB or MiB, 1KiB to 64MiB
    #[arg(long, env = "FANTAIL_MAX_BODY", default_value = "1MiB", value_parser = size)]
    pub max_body: usize,

    /// A connection whose peer takes no bytes for this long is ended, 1s to 1h
    #[arg(long, env = "FANTAIL_WRITE_TIMEOUT", default_value = "60s", value_parser = duration::<1_000, 3_600_000>)]
    pub write_timeout: Duration,

    /// What to log: error, warn, info, debug, trace, or a filter such as info,fantail::relay=debug
    #[arg(long, env = "FANTAIL_LOG", default_value = "info", value_parser = log_filter)]
    pub log: String,

    /// How to write log lines
    #[arg(long, env = "FANTAIL_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Origins whose pages may use this gateway, separated by commas, or * for all (without credentials)
    #[arg(long, env = "FANTAIL_CORS_ORIGINS", default_value = "*", value_parser = cors_origins)]
    pub cors_origins: CorsOrigins,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Which origins' pages may use the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigins {
    /// All, without credentials.
    Any,
    /// These, with credentials.
    Only(Vec<String>),
}

/// What the command line asked for instead of serving, or why it cannot be served.
#[derive(Debug)]
pub enum Stop {
    /// `--help` or `--version`: print this and succeed.
    Print(String),
    /// `health`: ask there whether a gateway answers.
    Health(HealthUrl),
    /// `check`: verify the promises of a running deployment.
    Check(Box<CheckArguments>),
    /// One line that says what is wrong with the arguments of `check`.
    CannotCheck(String),
    /// One line that says what is wrong.
    Wrong(String),
}

impl Config {
    /// Reads the command line of this process and its environment.
    ///
    /// # Errors
    /// [`Stop`], when there is nothing to serve.
    pub fn from_environment() -> Result<Config, Stop> {
        Config::from_arguments(std::env::args_os())
    }

    /// How many threads the runtime gets.
    ///
    /// Fewer than processors by default: an event that comes alone costs the same few wake-ups
    /// whatever there is to wake, but each idle thread is woken in vain to see whether it can help.
    /// On two processors, 5,000 events a second to one listener each took 111 s of processor time
    /// per million with one thread and 141 s with two; bursts took the same.
    pub fn workers(&self) -> usize {
        self.workers.unwrap_or_else(|| processors().saturating_sub(self.reactors).max(1))
    }

    /// Reads a command line (its first argument is the program's name) and the environment.
    ///
    /// # Errors
    /// [`Stop`], when there is nothing to serve.
    pub fn from_arguments<I, T>(arguments: I) -> Result<Config, Stop>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        let arguments: Vec<std::ffi::OsString> = arguments.into_iter().map(Into::into).collect();
        let is_check = arguments.get(1).is_some_and(|first| first == "check");
        let arguments =
            Arguments::try_parse_from(arguments).map_err(|error| match stop(&error) {
                Stop::Wrong(line) if is_check => Stop::CannotCheck(line),
                stop => stop,
            })?;
        match arguments.command {
            Some(Subcommands::Serve(config)) => config.consistent(),
            Some(Subcommands::Health(Health { url, listen })) => {
                Err(Stop::Health(url.unwrap_or_else(|| HealthUrl::of(listen))))
            }
            Some(Subcommands::Check(check)) => Err(Stop::Check(check)),
            None => arguments.config.consistent(),
        }
    }

    /// How settings must relate.
    fn consistent(self) -> Result<Config, Stop> {
        if self.wait_replicas > 0 && self.redis_url.is_none() {
            return Err(Stop::Wrong(format!(
                "--wait-replicas (FANTAIL_WAIT_REPLICAS) is {}: it needs --redis-url \
                 (FANTAIL_REDIS_URL), the embedded log has no replicas",
                self.wait_replicas
            )));
        }
        Ok(self)
    }

    /// All settings as (flag, variable, default, help), for documentation and its test.
    pub fn reference() -> Vec<[String; 4]> {
        let command = Arguments::command();
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

/// Turns what clap found into one line.
fn stop(error: &clap::Error) -> Stop {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Stop::Print(error.to_string()),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let argument = text(ContextKind::InvalidArg);
            let flag = argument.split_whitespace().next().unwrap_or_default();
            let variable = flag.trim_start_matches('-').replace('-', "_").to_uppercase();
            let value = text(ContextKind::InvalidValue);
            let right = match std::error::Error::source(error) {
                Some(source) => source.to_string(),
                None => format!("must be one of: {}", text(ContextKind::ValidValue)),
            };
            // An argument of a question is no setting: it has no variable.
            if Config::reference().iter().any(|[setting, ..]| setting == flag) {
                Stop::Wrong(format!("{flag} (FANTAIL_{variable}) is {value:?}: {right}"))
            } else {
                Stop::Wrong(format!("{flag} is {value:?}: {right}"))
            }
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = text(ContextKind::InvalidArg);
            Stop::Wrong(format!("{missing} is missing (see --help)"))
        }
        _ => {
            let rendered = error.to_string();
            let line = rendered.lines().next().unwrap_or_default();
            Stop::Wrong(format!("{} (see --help)", line.trim_start_matches("error: ")))
        }
    }
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let wrong = |_| "must be an address and a port, such as 127.0.0.1:3000 or 0.0.0.0:3000";
    let mut addresses = text.to_socket_addrs().map_err(wrong)?;
    addresses.next().ok_or_else(|| "must be an address that exists".to_owned())
}

fn redis_url(text: &str) -> Result<String, String> {
    let right = "must be a URL such as redis://:password@redis.example:6379/0 or rediss://…";
    let known = ["redis://", "rediss://", "valkey://", "valkeys://", "unix://", "redis+unix://"];
    if !known.iter().any(|scheme| text.starts_with(scheme)) {
        return Err(right.to_owned());
    }
    match crate::log::redis::check_url(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{right} ({error})")),
    }
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

fn size(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" | "kib" => Some(1 << 10),
        "m" | "mb" | "mib" => Some(1 << 20),
        _ => None,
    };
    let bytes = digits.parse().ok().zip(factor).and_then(|(n, f): (usize, usize)| n.checked_mul(f));
    bytes.filter(|bytes| (1 << 10..=64 << 20).contains(bytes)).ok_or_else(|| {
        "must be a size such as 65536, 512KiB or 1MiB, from 1KiB to 64MiB".to_owned()
    })
}

fn log_filter(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err("must be error, warn, info, debug, trace, or a filter such as \
                  info,fantail::relay=debug"
            .to_owned()),
    }
}

fn cors_origins(text: &str) -> Result<CorsOrigins, String> {
    if text.trim() == "*" {
        return Ok(CorsOrigins::Any);
    }
    let origin = |origin: &str| {
        let origin = origin.trim();
        let (scheme, host) = origin.split_once("://")?;
        let fits = ["http", "https"].contains(&scheme)
            && !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_graphic() && !b"/*,?#@".contains(&b));
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

    fn from(arguments: &[&str]) -> Result<Config, String> {
        let arguments = std::iter::once("fantail").chain(arguments.iter().copied());
        Config::from_arguments(arguments).map_err(|stop| match stop {
            Stop::Print(text) | Stop::Wrong(text) | Stop::CannotCheck(text) => text,
            Stop::Health(url) => url.to_string(),
            Stop::Check(check) => format!("{check:?}"),
        })
    }

    #[test]
    fn without_arguments_it_serves_with_the_defaults_of_the_design() {
        for config in [from(&[]).unwrap(), from(&["serve"]).unwrap()] {
            assert_eq!(config.listen.to_string(), "127.0.0.1:3000");
            assert_eq!(config.redis_url, None);
            assert_eq!(config.history_size, 1000);
            assert_eq!(config.history_ttl, Duration::from_secs(24 * 3600));
            assert_eq!(config.heartbeat, Duration::from_secs(15));
            assert_eq!(config.retry, Duration::from_secs(3));
            assert_eq!(config.drain, Duration::from_secs(10));
            assert_eq!(config.max_body, 1 << 20);
            assert_eq!(config.cors_origins, CorsOrigins::Any);
        }
        assert_ne!(default_node_id(), default_node_id());
    }

    #[test]
    fn a_wrong_value_is_one_line_that_names_setting_value_and_remedy() {
        for (arguments, parts) in [
            (["--heartbeat", "soon"], ["--heartbeat", "FANTAIL_HEARTBEAT", "\"soon\"", "15s"]),
            (["--heartbeat", "1ms"], ["--heartbeat", "FANTAIL_HEARTBEAT", "\"1ms\"", "100ms"]),
            (["--history-size", "0"], ["--history-size", "FANTAIL_HISTORY_SIZE", "\"0\"", "1 to"]),
            (["--listen", "3000"], ["--listen", "FANTAIL_LISTEN", "\"3000\"", "127.0.0.1:3000"]),
            (
                ["--redis-url", "http://x"],
                ["--redis-url", "FANTAIL_REDIS_URL", "http://x", "rediss://"],
            ),
            (
                ["--redis-prefix", "a{b}"],
                ["--redis-prefix", "FANTAIL_REDIS_PREFIX", "a{b}", "letters"],
            ),
            (["--max-body", "1GB"], ["--max-body", "FANTAIL_MAX_BODY", "1GB", "1MiB"]),
            (["--log-format", "xml"], ["--log-format", "FANTAIL_LOG_FORMAT", "xml", "text, json"]),
            (["--log", "a=b=c"], ["--log", "FANTAIL_LOG", "a=b=c", "debug"]),
            (
                ["--cors-origins", "app.example"],
                ["--cors-origins", "FANTAIL_CORS_ORIGINS", "app.example", "https://"],
            ),
            (["--node-id", "a b"], ["--node-id", "FANTAIL_NODE_ID", "a b", "ASCII"]),
        ] {
            for arguments in [&arguments[..], &["serve", arguments[0], arguments[1]]] {
                let line = from(arguments).unwrap_err();
                assert_eq!(line.lines().count(), 1, "{line}");
                for part in parts {
                    assert!(line.contains(part), "{part:?} is not in {line:?}");
                }
            }
        }
        assert!(from(&["--colour"]).unwrap_err().contains("--colour"));
    }

    #[test]
    fn health_asks_the_own_listen_address_unless_told_otherwise() {
        let asks = |arguments: &[&str]| from(arguments).unwrap_err();
        assert_eq!(asks(&["health"]), "http://127.0.0.1:3000/healthz");
        assert_eq!(asks(&["health", "--listen", "0.0.0.0:80"]), "http://127.0.0.1:80/healthz");
        assert_eq!(asks(&["health", "--url", "http://a:1/readyz"]), "http://a:1/readyz");
        let line = asks(&["health", "--url", "https://a/"]);
        assert!(line.contains("--url") && line.contains("http://"), "{line}");
        assert!(!line.contains("FANTAIL_URL"), "there is no such variable: {line}");
    }

    #[test]
    fn sizes_and_durations_are_read_as_written() {
        let config = from(&["--max-body", "64KiB", "--retry", "1s 500ms"]).unwrap();
        assert_eq!(config.max_body, 65536);
        assert_eq!(config.retry, Duration::from_millis(1500));
    }
}
