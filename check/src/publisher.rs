//! A publisher: one event after the other, each sent until it is answered.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::payload::EVENT_TYPE;
use super::publish_log::EventId;
use super::{CheckContext, Kind, Phase};
use crate::position::Position;

/// The first wait before an event is sent again; it doubles from time to time.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// The longest.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(1);

/// A publisher that is late by more than this gives up what it missed, so that it does not flood a
/// gateway that comes back.
const BACKLOG_MAX: Duration = Duration::from_secs(1);

/// Publishes until the phase says otherwise.
pub(super) async fn run(
    context: Arc<CheckContext>,
    publisher: usize,
    mut phase: watch::Receiver<Phase>,
) {
    let period = Duration::from_secs_f64(context.plan.publishers as f64 / context.plan.rate);
    let mut next = Instant::now() + period.mul_f64(fastrand::f64());
    loop {
        tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase != Phase::Publishing) => return,
            () = tokio::time::sleep_until(next) => {}
        }
        let topic = fastrand::usize(..context.topics.len());
        let event = context.checker().event_sent(topic, publisher, context.now());
        tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase == Phase::Closing) => return,
            () = publish(&context, topic, publisher, event) => {}
        }
        next = (next + period).max(Instant::now() - BACKLOG_MAX);
    }
}

/// Sends one event until it is answered.
async fn publish(context: &CheckContext, topic: usize, publisher: usize, event: EventId) {
    let data = context.payload.data(publisher, event);
    let body = format!(r#"{{"event":"{EVENT_TYPE}","data":{data}}}"#);
    let key = format!("{}-{}", context.run, event.0);
    let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
    let urls = context.plan.publish_to();
    let mut at = fastrand::usize(..urls.len());
    let mut wait = RETRY_DELAY;
    loop {
        let base = urls[at % urls.len()].as_str();
        let url = format!("{base}/topics/{}/events", context.topics[topic]);
        let answer = context.client.ask(Method::POST, &url, &headers, body.clone()).await;
        let now = context.now();
        match answer {
            Ok(answer) if answer.status == 201 => {
                let position = read_position(&answer.body);
                let mut checker = context.checker();
                match position {
                    Some(position) => checker.event_acknowledged(event, position, base, now),
                    None => checker.report_answer(
                        Kind::Malformed,
                        topic,
                        base,
                        r#"{"id":"a position"}"#,
                        String::from_utf8_lossy(&answer.body),
                        now,
                    ),
                }
                return;
            }
            // These say "not now"; every other 4xx says "never".
            Ok(answer) if is_final(answer.status) => {
                let body = String::from_utf8_lossy(&answer.body);
                context.checker().event_refused(event, base, answer.status, &body, now);
                return;
            }
            Ok(_) | Err(_) => {}
        }
        tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64())).await;
        wait = (wait * 2).min(RETRY_DELAY_MAX);
        at += 1;
        context.checker().event_resent(event, context.now());
    }
}

/// Whether a status means that the same request will never be taken.
pub(super) fn is_final(status: u16) -> bool {
    (400..500).contains(&status) && ![408, 425, 429].contains(&status)
}

fn read_position(body: &[u8]) -> Option<Position> {
    #[derive(Deserialize)]
    struct Published<'a> {
        id: &'a str,
    }
    serde_json::from_slice::<Published<'_>>(body).ok()?.id.parse().ok()
}
