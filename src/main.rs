//! The `fantail` program: what was asked for, telemetry, start, first signal, drain.

use std::future::poll_fn;
use std::io::Write;
use std::process::ExitCode;
use std::task::Poll;
use std::time::{Duration, Instant};

use fantail::config::{Config, LogFormat, WithoutToken};
use fantail::gateway::Gateway;
use fantail::telemetry;
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal as Heard, SignalKind, signal};

mod cli;

use cli::check::CheckArguments;
use cli::{ExitStatus, Invocation, UsageError};

/// Chosen by what publishing costs at full speed (64 clients, medians of three): 17 µs of processor
/// time each and 41,500 a second with mimalloc 2, 21 µs and 34,800 with jemalloc, 25 µs and 32,200
/// with glibc. An idle stream pays with some 250 bytes instead of 150. Version 3 of mimalloc asks for
/// huge pages so early that ten thousand streams took a kilobyte each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let status = match cli::parse(std::env::args_os()) {
        Ok(Invocation::Serve(config)) => status_of(serve(&config), ExitStatus::Failure),
        Ok(Invocation::Health(url)) => status_of(url.ask(), ExitStatus::Failure),
        Ok(Invocation::Check(arguments)) => match check(&arguments) {
            Ok(status) => status,
            Err(line) => status_of(Err(line), ExitStatus::NotTested),
        },
        Ok(Invocation::Print(text)) => {
            // Whoever closed the pipe has read enough.
            let _ = write!(std::io::stdout(), "{text}");
            ExitStatus::Success
        }
        Err(UsageError { line, status }) => status_of(Err(line), status),
    };
    status.into()
}

/// Success, or the line that says why not and then this status.
fn status_of(result: Result<(), String>, failure: ExitStatus) -> ExitStatus {
    match result {
        Ok(()) => ExitStatus::Success,
        Err(line) => {
            telemetry::say(&format!("fantail: {line}"));
            failure
        }
    }
}

/// Serves until a signal.
fn serve(config: &Config) -> Result<(), String> {
    let format = match config.log_format {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    };
    telemetry::start_logging(&config.log, format);
    for warning in cli::exposed::warnings(std::env::args_os()) {
        tracing::warn!("{warning}");
    }
    let served = runtime(Some(config.workers()))?.block_on(run(config));
    telemetry::flush_log();
    served
}

/// Checks a deployment.
fn check(arguments: &CheckArguments) -> Result<ExitStatus, String> {
    raise_descriptor_limit();
    runtime(None)?.block_on(arguments.run())
}

/// A runtime with this many threads, or with one for each processor.
fn runtime(workers: Option<usize>) -> Result<Runtime, String> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = workers {
        runtime.worker_threads(workers);
    }
    runtime.enable_all().build().map_err(|error| format!("cannot start the runtime: {error}"))
}

/// Start, first signal, drain.
async fn run(config: &Config) -> Result<(), String> {
    let mut signals = StopSignals::new()?;
    let gateway = start(config).await?;
    let ended = tokio::select! {
        () = signals.next() => Ok(()),
        // Its streams can go on elsewhere, from where they stand.
        why = gateway.unusable() => Err(why),
    };
    tokio::select! {
        () = drain(gateway, config) => {}
        () = signals.next() => tracing::warn!("ended at once by a second signal"),
    }
    ended
}

async fn start(config: &Config) -> Result<Gateway, String> {
    let metrics = telemetry::start_metrics()?;
    if config.redis_url.is_none() {
        tracing::info!(
            "embedded log: entries live in this process's memory, for this node alone; \
             set FANTAIL_REDIS_URL to run several nodes"
        );
    }
    if let Some(file) = &config.config_file {
        tracing::info!(?file, "settings file");
    }
    let descriptors_max = raise_descriptor_limit();
    tracing::info!(descriptors_max, "file-descriptor limit");
    let gateway = Gateway::start(config, descriptors_max, Some(metrics)).await;
    let gateway = gateway.map_err(|error| error.to_string())?;
    if let Some(address) = gateway.admin_address() {
        tracing::info!("operators' door at http://{address}, without a token");
    }
    if config.is_open_to_others() {
        let may = match config.without_token() {
            WithoutToken::Read => "follow and read",
            _ => "follow, read, publish and change",
        };
        tracing::warn!(
            "there is no key: whoever reaches {} may {may} everything, by FANTAIL_ANONYMOUS",
            gateway.address()
        );
    }
    let scheme = if config.tls_cert.is_some() { "https" } else { "http" };
    tracing::info!(node = config.node_id, "listening on {scheme}://{}", gateway.address());
    Ok(gateway)
}

async fn drain(gateway: Gateway, config: &Config) {
    let window = config.drain;
    tracing::info!(?window, "draining; a second signal ends at once");
    let began_at = Instant::now();
    let drained = gateway.drain(window).await;
    let took = began_at.elapsed();
    tracing::info!(streams = drained.streams, cut = drained.cut, ?took, "drained");
}

/// Signals that mean to stop: from orchestrators, Ctrl-C, Ctrl-\\, a limit of processor time that has
/// one more to come, and a host whose power fails.
const STOP: &[Signal] = &[
    Signal::TERM,
    Signal::INT,
    Signal::QUIT,
    Signal::XCPU,
    #[cfg(target_os = "linux")]
    Signal::POWER,
];

/// Signals that would end the process without a drain, and for no good reason. With SIGXFSZ ignored
/// a log file that may not grow is told to whoever writes, as a full disk is.
const IGNORED: &[Signal] = &[
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
    Signal::VTALARM,
    Signal::PROF,
    Signal::IO,
    Signal::XFSZ,
];

/// Those without a name, on Linux.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Process groups and wrappers both pass a signal on: within this time it is the same one.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// What comes of signals that would end the process; docs/operations.md has the table.
struct StopSignals {
    stop: Vec<Heard>,
    hangup: Heard,
    _ignored: Vec<Heard>,
    /// When the first one came.
    began_at: Option<Instant>,
}

impl StopSignals {
    /// From now on none of these signals ends the process by itself.
    fn new() -> Result<StopSignals, String> {
        let hear = |kind: Signal| {
            let heard = signal(SignalKind::from_raw(kind.as_raw()));
            heard.map_err(|error| format!("cannot wait for signals: {error}"))
        };
        let mut ignored: Vec<Heard> =
            IGNORED.iter().map(|kind| hear(*kind)).collect::<Result<_, _>>()?;
        if cfg!(target_os = "linux") {
            // Some belong to the C library, which says so.
            ignored.extend(REAL_TIME.filter_map(|kind| signal(SignalKind::from_raw(kind)).ok()));
        }
        Ok(StopSignals {
            stop: STOP.iter().map(|kind| hear(*kind)).collect::<Result<_, _>>()?,
            hangup: hear(Signal::HUP)?,
            _ignored: ignored,
            began_at: None,
        })
    }

    /// Waits for the next one that means to stop.
    async fn next(&mut self) {
        loop {
            let stop = poll_fn(|context| {
                // All are asked, so that each wakes this task.
                let mut heard = Poll::Pending;
                for one in &mut self.stop {
                    if one.poll_recv(context).is_ready() {
                        heard = Poll::Ready(());
                    }
                }
                heard
            });
            tokio::select! {
                () = stop => {
                    let is_the_same = self.began_at.is_some_and(|at| at.elapsed() < SAME_SIGNAL);
                    self.began_at.get_or_insert_with(Instant::now);
                    if !is_the_same {
                        return;
                    }
                }
                _ = self.hangup.recv() => tracing::warn!(
                    "SIGHUP changes nothing: settings are read when the program starts"
                ),
            }
        }
    }
}

/// Raises the limit of open files to what the system allows this process, and says what it is:
/// every stream is a descriptor, and the usual soft limit is 1024.
fn raise_descriptor_limit() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let raised = setrlimit(Resource::Nofile, limit);
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the file-descriptor limit");
    }
    let current = getrlimit(Resource::Nofile).current;
    current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}
