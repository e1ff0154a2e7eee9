//! What it costs to watch a great many topics on which nothing happens, and what one on which
//! something happens suffers from them.

use std::time::{Duration, Instant};

use super::fanout::{Cost, Shape, drive};
use super::{Measured, Settings};
use crate::load::http::Client;
use crate::load::subscribers::{Plan, Subscribers};
use crate::redis::Redis;
use crate::server::{Kind, Server};

/// Streams, each with topics of its own.
const STREAMS: usize = 2_500;
const STREAMS_QUICK: usize = 100;
/// Topics of each: the most that a stream can have.
const TOPICS_EACH: u32 = 100;
/// Events a second to the witness: a stream of a topic of its own.
const WITNESS_RATE: f64 = 50.0;
/// What opening leaves to be done is done by then.
const SETTLING_TIME: Duration = Duration::from_secs(5);
const SETTLING_TIME_QUICK: Duration = Duration::from_secs(2);
/// Time between two questions for all connections.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Processor time of 250,000 idle topics, the latency of one more on which something happens, and
/// both again while all connections are asked for.
///
/// # Errors
/// When a stream fails, or did not get everything.
pub(crate) fn watched_topics(settings: &Settings, kind: &Kind) -> Measured {
    let mut samples = settings.samples("watched-topics", kind);
    let quick = settings.quick;
    let (server, run) = settings.start(kind)?;
    let streams = settings.at_most(if quick { STREAMS_QUICK } else { STREAMS });
    let topics = streams as u32 * TOPICS_EACH;
    let case = format!("{topics} idle topics on {streams} streams");
    let before = server.memory_bytes()?;
    let plans = Plan::spread_groups(topics, TOPICS_EACH, streams);
    let (subscribers, took) = Subscribers::opened(&server, &run, &plans, settings.threads)?;
    samples.add(&case, "all open after ms", took.as_secs_f64() * 1e3);
    std::thread::sleep(if quick { SETTLING_TIME_QUICK } else { SETTLING_TIME });
    let each = (server.memory_bytes()? - before) / f64::from(topics);
    samples.add(&case, "user memory bytes per topic", each);

    let commands = |redis: &Option<Redis>| redis.as_ref().map(Redis::commands).transpose();
    let (cpu, asked, began) = (server.cpu_seconds()?, commands(&server.redis)?, Instant::now());
    std::thread::sleep(Duration::from_secs(if quick { 4 } else { 20 }));
    let seconds = began.elapsed().as_secs_f64();
    let after = server.cpu_seconds()?;
    let [own_cpu, redis_cpu] = [0, 1].map(|n| after[n] - cpu[n]);
    samples.add(&case, "CPU % of one processor", own_cpu / seconds * 100.0);
    if let Some((before, after)) = asked.zip(commands(&server.redis)?) {
        samples.add(&case, "Redis CPU % of one processor", redis_cpu / seconds * 100.0);
        samples.add(&case, "Redis commands/s", (after - before) / seconds);
    }

    let witness = witness(settings, &server)?;
    samples.add(&case, "witness latency p50 ms", witness.account.latencies.milliseconds(0.5));
    samples.add(&case, "witness latency p99 ms", witness.account.latencies.milliseconds(0.99));
    samples.add(&case, "witness latency max ms", witness.account.latencies.milliseconds(1.0));
    samples.add(&case, "generator late p99 ms", witness.lateness.milliseconds(0.99));

    if kind.is_fantail() {
        let (witness, mut answers, bytes) = while_asked(settings, &server)?;
        answers.sort();
        let milliseconds = |answer: Duration| answer.as_secs_f64() * 1e3;
        let case = format!("{case}, GET /admin/connections twice a second");
        samples.add(&case, "answer median ms", milliseconds(answers[answers.len() / 2]));
        samples.add(&case, "answer max ms", milliseconds(answers[answers.len() - 1]));
        samples.add(&case, "answer KiB", bytes as f64 / 1024.0);
        samples.add(&case, "witness latency p99 ms", witness.account.latencies.milliseconds(0.99));
    }
    subscribers.close_complete(&vec![0; topics as usize])?;
    Ok(samples.all)
}

fn witness(settings: &Settings, server: &Server) -> Result<Cost, String> {
    let seconds = if settings.quick { 4.0 } else { 20.0 };
    drive(settings, server, Shape { seconds, ..Shape::of(1, 1, WITNESS_RATE) })
}

/// The witness while all connections are asked for; how long each answer took; and bytes of the last.
fn while_asked(
    settings: &Settings,
    server: &Server,
) -> Result<(Cost, Vec<Duration>, usize), String> {
    let mut client = Client::connect(server.publishing)?;
    std::thread::scope(|scope| {
        let witness = scope.spawn(|| witness(settings, server));
        let mut answers = Vec::new();
        let mut bytes = 0;
        while !witness.is_finished() {
            let began = Instant::now();
            bytes = client.get("/admin/connections")?.len();
            answers.push(began.elapsed());
            std::thread::sleep(ASK_EVERY.saturating_sub(began.elapsed()));
        }
        let witness = witness.join().map_err(|_| "the witness panicked".to_owned())??;
        Ok((witness, answers, bytes))
    })
}
