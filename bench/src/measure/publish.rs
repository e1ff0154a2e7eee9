//! How many events a server takes, beside what its Redis can do with the same script.

use std::process::Command;
use std::time::Duration;

use super::fanout::LAST_DELIVERY_TIMEOUT;
use super::{Measured, Settings, append, new_run};
use crate::clock;
use crate::load::publisher::{Job, Pace, publish};
use crate::load::subscribers::{Plan, Subscribers};
use crate::redis::Redis;
use crate::sample::Samples;
use crate::server::{Dialect, Kind, Server};

/// Clients, each of which publishes again as soon as it has its answer.
const CLIENTS: usize = 64;
/// Clients while somebody listens, and as many while nobody does.
const CLIENTS_HEARD: usize = 32;

/// Publishes a second to a topic without streams, and to one with a single stream, which must get
/// everything; for servers with Redis also what redis-benchmark gets from the same Redis with the
/// same script, in the same run.
///
/// # Errors
/// When a publish is refused, or the stream did not get everything, once and in order.
pub(crate) fn publishing(settings: &Settings, kind: &Kind) -> Measured {
    let mut samples = settings.samples("publish", kind);
    let (server, _) = settings.start(kind)?;
    let seconds = if settings.quick { 2 } else { 8 };
    for (clients, listens) in [(CLIENTS, false), (CLIENTS_HEARD, false), (CLIENTS_HEARD, true)] {
        // What does not count, to warm up.
        at_full_speed(settings, &server, clients, listens, 1, None)?;
        at_full_speed(settings, &server, clients, listens, seconds, Some(&mut samples))?;
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

fn at_full_speed(
    settings: &Settings,
    server: &Server,
    clients: usize,
    listens: bool,
    seconds: u64,
    samples: Option<&mut Samples>,
) -> Result<(), String> {
    let run = new_run();
    server.prepare(&run, 1)?;
    let plan = Plan { series: 0..clients as u32, ..Plan::of(0..1) };
    let plans = if listens { vec![plan] } else { Vec::new() };
    let (listener, _) = Subscribers::opened(server, &run, &plans, 1)?;
    let before = server.cpu_seconds()?;
    let (bytes, begins) = (settings.bytes, clock::now());
    let job = Job { server, run: &run, topics: 1, bytes, connections: clients, begins };
    let published = publish(&job, Pace::Closed(Duration::from_secs(seconds)))?;
    if listens {
        listener.until_delivered(published.total(), LAST_DELIVERY_TIMEOUT)?;
    }
    let cpu = server.cpu_seconds()?;
    let account = listener.close_complete(&published.counts)?;
    let Some(samples) = samples else { return Ok(()) };
    let million = published.answers.total() as f64 / 1e6;
    let topic = if listens { "1 topic with 1 stream" } else { "1 topic" };
    let case = format!("{clients} clients, {topic}");
    samples.add(&case, "publishes/s", million * 1e6 / published.took.as_secs_f64());
    samples.add(&case, "answer p50 ms", published.answers.milliseconds(0.5));
    samples.add(&case, "answer p99 ms", published.answers.milliseconds(0.99));
    if listens {
        samples.add(&case, "latency p99 ms", account.latencies.milliseconds(0.99));
    }
    samples.add(&case, "CPU s per million publishes", (cpu[0] - before[0]) / million);
    if server.redis.is_some() {
        samples.add(&case, "Redis CPU s per million publishes", (cpu[1] - before[1]) / million);
    }
    Ok(())
}

/// Calls a second of the append script with the arguments of a publish.
fn script_alone(settings: &Settings, redis: &Redis, pipeline: usize) -> Result<f64, String> {
    const TOPIC: &str = "alone";
    let script = append::load(redis)?;
    let calls = if settings.quick { 20_000 } else { 200_000 };
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", "127.0.0.1", "-p", &redis.port.to_string()]);
    command.args(["-c", &CLIENTS.to_string(), "-n", &calls.to_string()]);
    command.args(["-P", &pipeline.to_string(), "--csv"]);
    let data = "x".repeat(settings.bytes);
    let call = |is| append::call(&script, (TOPIC, is), &append::channel(TOPIC), &data);
    let begin = call(append::Topic::New);
    redis.ask(&begin.iter().map(String::as_str).collect::<Vec<_>>())?;
    command.args(call(append::Topic::Written));
    let output = command.output().map_err(|error| format!("redis-benchmark: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    // "<command>","<calls a second>",…; the command has commas of its own.
    let mut fields = line.rsplit("\",\"").map(|field| field.trim_matches('"'));
    let rate = fields.nth(6).and_then(|rate| rate.parse::<f64>().ok());
    let rate = rate.ok_or_else(|| format!("redis-benchmark says {text}"))?;
    // It counts errors as calls, too.
    let head = append::head(redis, TOPIC)?;
    if head >= calls {
        Ok(rate)
    } else {
        Err(format!("redis-benchmark made {calls} calls, but only {head} appended"))
    }
}
