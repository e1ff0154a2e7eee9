//! A publisher: one event after the other, each sent until it is answered.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::ledger::Token;
use super::payload::EVENT_TYPE;
use super::{Kind, Phase, Scene};
use crate::position::Position;

/// The first wait before an event is sent again; it doubles from time to time.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The longest.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(1);

/// A publisher that is late by more than this gives up what it missed, so that it does not flood a
/// gateway that comes back.
const LATE_MAX: Duration = Duration::from_secs(1);

/// Publishes until the phase says otherwise.
pub(super) async fn run(scene: Arc<Scene>, publisher: usize, mut phase: watch::Receiver<Phase>) {
    let period = Duration::from_secs_f64(scene.plan.publishers as f64 / scene.plan.rate);
    let mut next = Instant::now() + period.mul_f64(fastrand::f64());
    loop {
        tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase != Phase::Publishing) => return,
            () = tokio::time::sleep_until(next) => {}
        }
        let topic = fastrand::usize(..scene.topics.len());
        let token = scene.judge().send(topic, publisher, scene.now());
        tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase == Phase::Closing) => return,
            () = publish(&scene, topic, publisher, token) => {}
        }
        next = (next + period).max(Instant::now() - LATE_MAX);
    }
}

/// Sends one event until it is answered.
async fn publish(scene: &Scene, topic: usize, publisher: usize, token: Token) {
    let data = scene.payload.data(publisher, token);
    let body = format!(r#"{{"event":"{EVENT_TYPE}","data":{data}}}"#);
    let key = format!("{}-{}", scene.run, token.0);
    let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
    let urls = scene.plan.publish_to();
    let mut at = fastrand::usize(..urls.len());
    let mut wait = AGAIN_AFTER;
    loop {
        let base = urls[at % urls.len()].as_str();
        let url = format!("{base}/topics/{}/events", scene.topics[topic]);
        let answer = scene.client.ask(Method::POST, &url, &headers, body.clone()).await;
        let now = scene.now();
        match answer {
            Ok(answer) if answer.status == 201 => {
                let place = read_place(&answer.body);
                let mut judge = scene.judge();
                match place {
                    Some(place) => judge.acknowledge(token, place, base, now),
                    None => judge.complain_of_answer(
                        Kind::Garbled,
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
            Ok(answer) if is_refusal(answer.status) => {
                let body = String::from_utf8_lossy(&answer.body);
                scene.judge().refuse(token, base, answer.status, &body, now);
                return;
            }
            Ok(_) | Err(_) => {}
        }
        tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64())).await;
        wait = (wait * 2).min(AGAIN_AFTER_MAX);
        at += 1;
        scene.judge().send_again(token, scene.now());
    }
}

/// Whether a status means that the same request will never be taken.
pub(super) fn is_refusal(status: u16) -> bool {
    (400..500).contains(&status) && ![408, 425, 429].contains(&status)
}

fn read_place(body: &[u8]) -> Option<Position> {
    #[derive(Deserialize)]
    struct Published<'a> {
        id: &'a str,
    }
    serde_json::from_slice::<Published<'_>>(body).ok()?.id.parse().ok()
}
