//! Whoever gets a new token goes on from the same position without a gap (`docs/guarantees.md`, 9).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::client::Event;
use crate::harness::tokens::{SECRET, Signer, in_seconds};
use crate::harness::{Api, Backend, Node, Stream, on_both_logs, within};

/// How long a token lasts.
const TOKEN_SECONDS: i64 = 3;

/// For how long something is published, and how often: over some tokens.
const PUBLISHING: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_millis(25);

/// From the first event on, if the client has no position.
const PATH: &str = "/topics/news/events?from=earliest";

/// The last that is published.
const LAST: &str = "last";

fn short_token() -> String {
    let claims = json!({
        "sub": "alice", "exp": in_seconds(TOKEN_SECONDS), "fantail": { "subscribe": ["news"] },
    });
    Signer::with_secret("HS256", SECRET).token(&claims)
}

/// What one client saw, and of how many streams.
#[derive(Default)]
struct View {
    entries: Vec<Event>,
    streams: usize,
    goodbyes: Vec<Value>,
}

impl View {
    /// Takes what the stream says until it ends, or all entries are there; for this long at most.
    async fn follow(&mut self, stream: &mut Stream, at_most: Duration) {
        self.streams += 1;
        let _ = tokio::time::timeout(at_most, async {
            while !self.is_complete()
                && let Some(event) = stream.next().await
            {
                match &*event.kind {
                    "goodbye" => self.goodbyes.push(event.json()),
                    _ if event.is_connected() => {}
                    _ => self.entries.push(event),
                }
            }
        })
        .await;
    }

    fn is_complete(&self) -> bool {
        self.entries.last().is_some_and(|event| event.data == LAST)
    }

    fn position(&self) -> Option<&str> {
        self.entries.last().map(|event| &*event.id)
    }

    fn assert_no_gap(&self, published: u64) {
        let seqs: Vec<u64> = self.entries.iter().map(Event::seq).collect();
        let expected: Vec<u64> = (1..=published).collect();
        assert_eq!(seqs, expected);
    }
}

/// A browser whose page gets a new cookie before the old token is over, or some time after.
async fn by_cookie(address: SocketAddr, is_late: bool) -> View {
    let mut view = View::default();
    let mut token = short_token();
    while !view.is_complete() {
        let cookie = format!("Cookie: fantail={token}");
        let position = format!("Last-Event-ID: {}", view.position().unwrap_or_default());
        let mut stream = Stream::request_with(address, PATH, &[&cookie, &position]).await;
        if stream.status == 401 && is_late {
            // This is where an EventSource stops, and the page logs in again.
            token = short_token();
            continue;
        }
        assert_eq!(stream.status, 200, "{}", stream.head);
        view.follow(&mut stream, Duration::from_secs(60)).await;
        if !is_late {
            token = short_token();
        }
        let retry = stream.interpreter.retry.unwrap();
        assert!((100..=300).contains(&retry), "{retry}");
        tokio::time::sleep(Duration::from_millis(retry)).await;
    }
    view
}

/// A page of another origin, which opens a new stream with a new ticket: when it is told to, or in
/// time.
async fn by_ticket(address: SocketAddr, in_time: bool) -> View {
    let mut view = View::default();
    let api = Api::new(&format!("http://{address}"));
    while !view.is_complete() {
        let answer = api.with_token(&short_token()).send("POST", "/tickets", None).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let ticket = answer.body["ticket"].as_str().unwrap();
        let position = view.position().unwrap_or_default();
        let path = format!("{PATH}&ticket={ticket}&lastEventId={position}");
        let mut stream = Stream::request_with(address, &path, &[]).await;
        assert_eq!(stream.status, 200, "{}", stream.head);
        let at_most = if in_time { Duration::from_secs(1) } else { Duration::from_secs(60) };
        view.follow(&mut stream, at_most).await;
    }
    view
}

on_both_logs! {
    async fn a_client_with_new_tokens_misses_nothing(backend: Backend) {
        let settings = [("FANTAIL_JWT_SECRET", SECRET), ("FANTAIL_RETRY", "200ms")];
        let single = backend.start(&settings).await;
        let node: &Node = &single.node;
        let publisher = node.with_token(&Signer::with_secret("HS256", SECRET).everything());
        // A node that has just started takes a moment until it knows what is revoked.
        publisher.get("/topics/news/history").await;
        let publishing = async {
            let began_at = Instant::now();
            let mut published = 1;
            while began_at.elapsed() < PUBLISHING {
                publisher.publish("news", published).await;
                published += 1;
                tokio::time::sleep(INTERVAL).await;
            }
            publisher.publish("news", LAST).await;
            published
        };
        let following = async {
            tokio::join!(
                by_cookie(node.address, false),
                by_cookie(node.address, true),
                by_ticket(node.address, false),
                by_ticket(node.address, true),
            )
        };
        let (views, published) = within("all events", async { tokio::join!(following, publishing) }).await;
        let (cookie, late_cookie, ticket, ticket_in_time) = views;
        for (view, retry) in [(&cookie, true), (&late_cookie, true), (&ticket, false)] {
            view.assert_no_gap(published);
            assert!(view.goodbyes.len() >= 2, "{} goodbyes", view.goodbyes.len());
            // Not one stream more than there were tokens.
            assert!(view.streams <= view.goodbyes.len() + 1, "{} streams", view.streams);
            let told = json!({ "reason": "expired", "retry": retry });
            assert!(view.goodbyes.iter().all(|goodbye| *goodbye == told), "{:?}", view.goodbyes);
        }
        ticket_in_time.assert_no_gap(published);
        assert!(ticket_in_time.goodbyes.is_empty(), "{:?}", ticket_in_time.goodbyes);
    }
}
