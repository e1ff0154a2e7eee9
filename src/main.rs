//! The `fantail` program: arguments, telemetry, start, first signal, drain.

use std::process::ExitCode;
use std::time::Instant;

use fantail::config::{Config, Stop};
use fantail::gateway::Gateway;
use fantail::telemetry;
use fantail_check::command::{CANNOT_RUN, CheckArguments};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Chosen by what publishing costs at full speed (64 clients, medians of three): 17 µs of processor
/// time each and 41,500 a second with mimalloc 2, 21 µs and 34,800 with jemalloc, 25 µs and 32,200
/// with glibc. An idle stream pays with some 250 bytes instead of 150. Version 3 of mimalloc asks for
/// huge pages so early that ten thousand streams took a kilobyte each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config = match Config::from_environment() {
        Ok(config) => config,
        Err(Stop::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(Stop::Health(url)) => {
            return url.ask().map_or_else(|line| fail(&line), |()| ExitCode::SUCCESS);
        }
        Err(Stop::Check(check)) => return check_deployment(&check),
        Err(Stop::CannotCheck(line)) => return cannot_check(&line),
        Err(Stop::Wrong(line)) => return fail(&line),
    };
    telemetry::start_logging(&config);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.worker_threads(config.workers()).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the runtime: {error}")),
    };
    match runtime.block_on(run(&config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => fail(&line),
    }
}

/// Checks a deployment; the exit status says what came of it.
fn check_deployment(arguments: &CheckArguments) -> ExitCode {
    raise_descriptor_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return cannot_check(&format!("cannot start the runtime: {error}")),
    };
    match runtime.block_on(arguments.run()) {
        Ok(status) => ExitCode::from(status),
        Err(line) => cannot_check(&line),
    }
}

fn cannot_check(line: &str) -> ExitCode {
    eprintln!("fantail: {line}");
    ExitCode::from(CANNOT_RUN)
}

async fn run(config: &Config) -> Result<(), String> {
    let metrics = telemetry::start_metrics()?;
    let [mut terminate, mut interrupt] = [SignalKind::terminate(), SignalKind::interrupt()]
        .map(|kind| signal(kind).map_err(|error| format!("cannot wait for signals: {error}")));
    let (terminate, interrupt) = (
        terminate.as_mut().map_err(|error| error.clone())?,
        interrupt.as_mut().map_err(|error| error.clone())?,
    );

    match &config.redis_url {
        None => tracing::info!(
            "embedded log: entries live in this process's memory, for this node alone; \
             set FANTAIL_REDIS_URL to run several nodes"
        ),
        Some(_) => tracing::info!(prefix = config.redis_prefix, "log in Redis"),
    }
    let descriptors_max = raise_descriptor_limit();
    tracing::info!(descriptors_max, "file-descriptor limit");
    let gateway =
        Gateway::start(config, descriptors_max, Some(metrics)).await.map_err(|error| {
            format!(
                "--listen (FANTAIL_LISTEN) is \"{}\": cannot listen there: {error}",
                config.listen
            )
        })?;
    tracing::info!(node = config.node_id, "listening on http://{}", gateway.address());

    tokio::select! {
        () = either(terminate, interrupt) => {}
        why = gateway.unusable() => return Err(why),
    }
    let window = config.drain;
    tracing::info!(?window, "draining; a second signal ends at once");
    let began_at = Instant::now();
    tokio::select! {
        drained = gateway.drain(window) => tracing::info!(
            streams = drained.streams,
            cut = drained.cut,
            took = ?began_at.elapsed(),
            "drained"
        ),
        () = either(terminate, interrupt) => tracing::warn!("ended at once by a second signal"),
    }
    Ok(())
}

/// The next SIGTERM or SIGINT.
async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
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

fn fail(line: &str) -> ExitCode {
    eprintln!("fantail: {line}");
    ExitCode::FAILURE
}
