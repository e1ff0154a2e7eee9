//! How many events a server takes, beside what its Redis can do with the same script.

use std::process::Command;
use std::time::Duration;

use super::{Measured, Settings};
use crate::clock;
use crate::publisher::{Job, Pace, publish};
use crate::redis::Redis;
use crate::server::{Dialect, Kind};

/// Clients, each of which publishes again as soon as it has its answer.
const CLIENTS: usize = 64;
/// What Redis runs for every publish.
const APPEND: &str = concat!(
    include_str!("../../../src/log/redis/log.lua"),
    "\n",
    include_str!("../../../src/log/redis/append.lua"),
    "\n"
);

/// Publishes a second to a topic without streams; for servers with Redis also what redis-benchmark
/// gets from the same Redis with the same script, in the same run.
///
/// # Errors
/// When a publish is refused.
pub(crate) fn publishing(settings: &Settings, kind: &Kind) -> Measured {
    let mut samples = settings.samples("publish", kind);
    let (server, run) = settings.start(kind)?;
    server.prepare(&run, 1)?;
    let seconds = if settings.quick { 2 } else { 8 };
    for seconds in [1, seconds] {
        let before = server.cpu_seconds()?;
        let begins = clock::now();
        let bytes = settings.bytes;
        let job =
            Job { server: &server, run: &run, topics: 1, bytes, connections: CLIENTS, begins };
        let published = publish(&job, Pace::Closed(Duration::from_secs(seconds)))?;
        if seconds == 1 {
            // To warm up.
            continue;
        }
        let cpu = server.cpu_seconds()?;
        let million = published.answers.total() as f64 / 1e6;
        let case = format!("{CLIENTS} clients, 1 topic");
        samples.add(&case, "publishes/s", million * 1e6 / published.took.as_secs_f64());
        samples.add(&case, "answer p50 ms", published.answers.milliseconds(0.5));
        samples.add(&case, "answer p99 ms", published.answers.milliseconds(0.99));
        samples.add(&case, "CPU s per million publishes", (cpu[0] - before[0]) / million);
        if server.redis.is_some() {
            samples.add(&case, "Redis CPU s per million publishes", (cpu[1] - before[1]) / million);
        }
    }
    if let Some(redis) = &server.redis
        && server.dialect == Dialect::Fantail
    {
        for pipeline in [1, 16] {
            let rate = script_alone(settings, redis, pipeline)?;
            let case = "redis-benchmark, the same script";
            let metric = format!("{CLIENTS} clients, {pipeline} at a time: calls/s");
            samples.add(case, &metric, rate);
        }
    }
    Ok(samples.all)
}

/// Calls a second of the append script with the arguments of a publish.
fn script_alone(settings: &Settings, redis: &Redis, pipeline: usize) -> Result<f64, String> {
    let hash = redis.ask(&["SCRIPT", "LOAD", APPEND])?;
    let calls = if settings.quick { 20_000 } else { 200_000 };
    let rest = format!("data: {}\n\n", "x".repeat(settings.bytes));
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", "127.0.0.1", "-p", &redis.port.to_string()]);
    command.args(["-c", &CLIENTS.to_string(), "-n", &calls.to_string()]);
    command.args(["-P", &pipeline.to_string(), "--csv", "EVALSHA", &hash, "4"]);
    // KEYS and ARGV as append.lua lists them, with the gateway's defaults.
    command.args(["seq", "log", "meta", "board"].map(|key| format!("fantail:{{alone}}:{key}")));
    command.args(["fantail:{alone}", "abcdef", "1000", "86400000", "", "600000", "0"]);
    command.args(["0", &rest]);
    let output = command.output().map_err(|error| format!("redis-benchmark: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    // "<command>","<calls a second>",…; the command has commas of its own.
    let mut fields = line.rsplit("\",\"").map(|field| field.trim_matches('"'));
    let rate = fields.nth(6).and_then(|rate| rate.parse::<f64>().ok());
    let rate = rate.ok_or_else(|| format!("redis-benchmark says {text}"))?;
    // It counts errors as calls, too.
    let head = redis.ask(&["GET", "fantail:{alone}:seq"])?;
    if head.parse::<usize>().is_ok_and(|head| head >= calls) {
        Ok(rate)
    } else {
        Err(format!("redis-benchmark made {calls} calls, but only {head} appended"))
    }
}
