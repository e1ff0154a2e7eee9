//! [`ReconnectingClient`]: a subscriber that comes back by itself, as browsers do, and keeps an account of
//! everything it saw.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::client::{Event, Stream};

/// What such a subscriber saw.
#[derive(Debug, Default)]
pub struct Account {
    /// Entries in the order of their arrival.
    pub events: Vec<Event>,
    pub resets: Vec<Event>,
    /// When each connection after the first was asked for.
    pub reconnects: Vec<Instant>,
    /// The last reconnection times it was told.
    pub retries: Vec<u64>,
    /// Statuses other than 200.
    pub refusals: Vec<u16>,
    /// How often a proxy told it to come back later instead of a node.
    pub told_to_come_back: usize,
}

/// Follows `path` at one of several addresses; goes on to the next when a stream ends.
pub struct ReconnectingClient {
    pub account: Arc<Mutex<Account>>,
    task: JoinHandle<()>,
}

impl ReconnectingClient {
    /// Starts to follow. `scale` shortens the reconnection times it is told, to keep tests short.
    pub fn start(
        addresses: Vec<SocketAddr>,
        first: usize,
        path: &str,
        scale: f64,
    ) -> ReconnectingClient {
        let account = Arc::new(Mutex::new(Account::default()));
        let shared = account.clone();
        let path = path.to_owned();
        let task = tokio::spawn(async move {
            let mut at = first;
            let mut last_event_id = String::new();
            let mut retry = 50;
            loop {
                let address = addresses[at % addresses.len()];
                if let Ok(mut stream) = Stream::try_request(address, &path, &last_event_id).await {
                    if stream.status == 200 {
                        if stream.head.contains("content-length") {
                            shared.lock().unwrap().told_to_come_back += 1;
                        }
                        while let Some(event) = stream.next().await {
                            let mut account = shared.lock().unwrap();
                            match event.kind.as_str() {
                                "reset" => account.resets.push(event),
                                _ if event.is_connected() => {}
                                _ => account.events.push(event),
                            }
                        }
                    } else {
                        shared.lock().unwrap().refusals.push(stream.status);
                    }
                    if !stream.last_event_id().is_empty() {
                        last_event_id = stream.last_event_id().to_owned();
                    }
                    retry = stream.interpreter.retry.unwrap_or(retry);
                }
                let wait = Duration::from_millis(retry).mul_f64(scale);
                tokio::time::sleep(wait).await;
                let mut account = shared.lock().unwrap();
                account.reconnects.push(Instant::now());
                account.retries.push(retry);
                at += 1;
            }
        });
        ReconnectingClient { account, task }
    }

    /// How many entries it has seen.
    pub fn count(&self) -> usize {
        self.account.lock().unwrap().events.len()
    }

    /// Asserts order, no twins and no holes from `first` to `last`, and that no reset was told.
    pub fn assert_complete(&self, first: u64, last: u64) {
        let account = self.account.lock().unwrap();
        assert!(account.resets.is_empty(), "{:?}", account.resets);
        let seqs: Vec<u64> = account.events.iter().map(Event::seq).collect();
        let expected: Vec<u64> = (first..=last).collect();
        assert!(seqs == expected, "expected {first}..={last}, got {seqs:?}");
    }
}

impl Drop for ReconnectingClient {
    fn drop(&mut self) {
        self.task.abort();
    }
}
