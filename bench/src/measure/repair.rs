//! How long it takes to find what Redis took, but nobody announced to the gateway.

use std::time::Duration;

use super::{Measured, Settings, append, new_run};
use crate::clock;
use crate::load::http::Client;
use crate::load::scanner::Marker;
use crate::load::subscribers::{Account, Plan, Subscribers};
use crate::server::{Kind, Server};

/// Streams, each with topics of its own.
const STREAMS: usize = 500;
const STREAMS_QUICK: usize = 50;
/// Topics of each.
const TOPICS_EACH: u32 = 100;
/// How often an announcement is lost, and a subscription.
const LOST: u32 = 20;
const LOST_QUICK: u32 = 5;
/// They are lost at moments spread evenly over so long: what looks for them looks every so often.
const SPREAD: Duration = Duration::from_secs(2);
/// How long it may take at most.
const FOUND_TIMEOUT: Duration = Duration::from_secs(30);

/// From when an entry was appended to when a stream had it: of entries that nobody announced, and
/// of those that were published when the gateway's subscription had just been cut.
///
/// # Errors
/// When one is not found.
pub(crate) fn repair(settings: &Settings, kind: &Kind) -> Measured {
    let mut samples = settings.samples("repair", kind);
    let (server, _) = settings.start(kind)?;
    let redis = server.redis.as_ref().ok_or("there is no Redis that could lose something")?;
    let topics = streams(settings) as u32 * TOPICS_EACH;
    let mut sample = |case: &str, found: &Account| {
        let case = format!("{topics} topics, {case}");
        samples.add(&case, "found after median ms", found.latencies.milliseconds(0.5));
        samples.add(&case, "found after max ms", found.latencies.milliseconds(1.0));
    };

    let script = append::load(redis)?;
    let found = lose(settings, &server, |topic, data| {
        // Announced where nobody listens: as if pub/sub had lost it.
        let call = append::call(&script, (topic, append::Topic::New), "fantail:nobody", data);
        let words: Vec<&str> = call.iter().map(String::as_str).collect();
        redis.ask(&words).map(drop)
    })?;
    sample("an announcement lost", &found);

    let mut client = Client::connect(server.publishing)?;
    let found = lose(settings, &server, |topic, data| {
        redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"])?;
        let event = format!("{{\"data\":\"{data}\"}}");
        client.post(&format!("/topics/{topic}/events"), &event).map(drop)
    })?;
    sample("the subscription cut", &found);
    Ok(samples.all)
}

fn streams(settings: &Settings) -> usize {
    settings.at_most(if settings.quick { STREAMS_QUICK } else { STREAMS })
}

/// Appends events by `append(topic, data)`, one after the other, each when the one before was found.
fn lose(
    settings: &Settings,
    server: &Server,
    mut append: impl FnMut(&str, &str) -> Result<(), String>,
) -> Result<Account, String> {
    let run = new_run();
    let streams = streams(settings);
    let topics = streams as u32 * TOPICS_EACH;
    let plans = Plan::spread_groups(topics, TOPICS_EACH, streams);
    let (subscribers, _) = Subscribers::opened(server, &run, &plans, settings.threads)?;
    std::thread::sleep(settings.rest());
    let mut published = vec![0; topics as usize];
    for n in 0..if settings.quick { LOST_QUICK } else { LOST } {
        // Multiples of the golden ratio are spread evenly, however many there are.
        let share = (f64::from(n) * 0.618_034).fract();
        std::thread::sleep(SPREAD.mul_f64(share));
        let topic = (share * f64::from(topics)) as u32;
        published[topic as usize] += 1;
        let number = published[topic as usize];
        let marker = Marker { series: topic, number, due: clock::now() };
        append(&format!("{run}-{topic}"), &marker.to_string())?;
        subscribers.until_delivered(u64::from(n) + 1, FOUND_TIMEOUT)?;
    }
    subscribers.close_complete(&published)
}
