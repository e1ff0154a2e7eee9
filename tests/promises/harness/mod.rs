//! Real processes: nodes, Redis, and clients that keep a view.
//!
//! Everything listens on a free loopback port and is ended by pid when dropped, also by a failing
//! test.

pub mod abusive_clients;
pub mod balancer;
pub mod certificates;
pub mod chromium;
pub mod client;
pub mod encoding;
pub mod fault;
pub mod fault_cluster;
pub mod faulty_gateway;
pub mod faulty_log;
pub mod firefox;
pub mod h2c;
pub mod key_server;
pub mod keyspace;
pub mod nginx;
pub mod oracle;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod reconnecting_client;
pub mod redis_server;
pub mod sentinels;
pub mod server;
pub mod tls;
pub mod tokens;

use std::sync::LazyLock;
use std::time::Duration;

use fantail_check::Plan;
use serde_json::{Value, json};

pub use client::{Event, Stream};
pub use process::{Node, OPERATORS};
pub use redis_server::Redis;

/// How long anything may take that is expected to happen. Long, because machines are busy
/// sometimes; nobody waits for it unless the test is about to fail. Shorter in the environment,
/// as `TIMEOUT_SECONDS`, where that is wanted.
pub static TIMEOUT: LazyLock<Duration> = LazyLock::new(|| {
    let seconds = std::env::var("TIMEOUT_SECONDS").ok().map(|text| text.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(60))
});

/// Which log a node runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Embedded,
    Redis,
}

/// One node, and the Redis it runs on if it does.
pub struct Single {
    pub node: Node,
    pub redis: Option<Redis>,
}

impl Backend {
    /// Starts one node on this log, with these settings.
    pub async fn start(self, settings: &[(&str, &str)]) -> Single {
        let redis = match self {
            Backend::Embedded => None,
            Backend::Redis => Some(Redis::start().await),
        };
        let node = Node::start("node-1", redis.as_ref(), settings).await;
        Single { node, redis }
    }
}

impl std::ops::Deref for Single {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

/// Nodes `node-1`, `node-2` … over one Redis.
pub struct Cluster {
    pub redis: Redis,
    pub nodes: Vec<Node>,
}

impl Cluster {
    pub async fn start(count: usize, settings: &[(&str, &str)]) -> Cluster {
        let redis = Redis::start().await;
        let mut nodes = Vec::new();
        for n in 1..=count {
            nodes.push(Node::start(&format!("node-{n}"), Some(&redis), settings).await);
        }
        Cluster { redis, nodes }
    }
}

/// Runs a test on both logs: one promise, every backend.
macro_rules! on_both_logs {
    ($($(#[$meta:meta])* async fn $name:ident($backend:ident: Backend) $body:block)+) => {
        $(mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn run($backend: Backend) $body

            $(#[$meta])*
            #[tokio::test]
            async fn embedded() {
                run(Backend::Embedded).await;
            }

            $(#[$meta])*
            #[tokio::test]
            async fn redis() {
                run(Backend::Redis).await;
            }
        })+
    };
}
pub(crate) use on_both_logs;

/// Asks again and again until `condition` gives something; panics after [`TIMEOUT`].
pub async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let result = tokio::time::timeout(*TIMEOUT, async {
        loop {
            if let Some(result) = condition().await {
                return result;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    result.await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

/// Panics after [`TIMEOUT`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(*TIMEOUT, future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Asserts that something takes less than `bound`. It has three tries, each of which a busy
/// neighbour can delay; what is slow by itself is slow three times.
pub async fn takes_less_than(bound: Duration, mut measured: impl AsyncFnMut() -> Duration) {
    let mut times = Vec::new();
    for _ in 0..3 {
        times.push(measured().await);
        if times.last().is_some_and(|time| *time < bound) {
            return;
        }
    }
    panic!("{times:?} of {bound:?}");
}

/// What a check does while something happens to these nodes, or to what they need.
pub fn plan_of_check(nodes: &[Node], loss_expected: bool, duration: Duration) -> Plan {
    Plan {
        urls: nodes.iter().map(|node| node.base.parse().unwrap()).collect(),
        topics: 4,
        publishers: 6,
        subscribers: 20,
        rate: 120.0,
        roam: Some(Duration::from_secs(3)),
        retry_max: Duration::from_millis(500),
        answer_timeout: Duration::from_secs(3),
        loss_expected,
        duration,
        ..Plan::default()
    }
}

/// An answer of the API.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The position in the `Last-Event-ID` header.
    pub fn position(&self) -> String {
        self.header("last-event-id")
    }

    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    /// Asserts that this is problem+json with its own status inside, and returns its type's word.
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(self.body["status"], status, "{self:?}");
        assert!(self.body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{self:?}");
        assert!(self.body["title"].as_str().is_some_and(|title| !title.is_empty()), "{self:?}");
        let kind = self.body["type"].as_str().unwrap();
        kind.strip_prefix("urn:fantail:problem:").unwrap().to_owned()
    }
}

/// The API of one base URL.
#[derive(Clone)]
pub struct Api {
    pub base: String,
    client: reqwest::Client,
}

impl Api {
    pub fn new(base: &str) -> Api {
        // A connection of its own for each request: what is tested here is not keep-alive.
        let client = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .timeout(*TIMEOUT)
            .no_proxy()
            .build()
            .unwrap();
        Api { base: base.to_owned(), client }
    }

    /// One that keeps its connections, for tests that send thousands of requests.
    pub fn keeping_alive(base: &str) -> Api {
        let client = reqwest::Client::builder().timeout(*TIMEOUT).no_proxy().build().unwrap();
        Api { base: base.to_owned(), client }
    }

    /// The same for somebody who has this token.
    pub fn with_token(&self, token: &str) -> Api {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        let client = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .timeout(*TIMEOUT)
            .no_proxy()
            .default_headers(headers)
            .build()
            .unwrap();
        Api { base: self.base.clone(), client }
    }

    pub async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.try_send(method, path, body).await.unwrap()
    }

    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Result<Answer, reqwest::Error> {
        let method: reqwest::Method = method.parse().unwrap();
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(&body);
        }
        Api::answer(request).await
    }

    /// Sends a request with headers.
    pub async fn send_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        match body {
            Some(body) => {
                let body = body.to_string().into_bytes();
                self.raw_with(method, path, "application/json", headers, body).await
            }
            None => self.raw_with(method, path, "", headers, Vec::new()).await,
        }
    }

    /// Sends a request that a well-behaved client would not.
    pub async fn raw(&self, method: &str, path: &str, content_type: &str, body: Vec<u8>) -> Answer {
        self.raw_with(method, path, content_type, &[], body).await
    }

    pub async fn raw_with(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let method: reqwest::Method = method.parse().unwrap();
        let mut request = self.client.request(method, format!("{}{path}", self.base)).body(body);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Api::answer(request).await.unwrap()
    }

    async fn answer(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        let response = request.send().await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { status, headers, body })
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.send("GET", path, None).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    }

    /// Creates a task; returns it and the position of its event.
    pub async fn create(&self, title: &str, list: &str) -> (Value, String) {
        let body = json!({ "title": title, "listId": list });
        let answer = self.send("POST", "/tasks", Some(body)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        (answer.body.clone(), answer.position())
    }

    pub async fn move_to(&self, task: &str, list: &str, index: Option<usize>) -> Answer {
        let mut body = json!({ "listId": list });
        if let Some(index) = index {
            body["index"] = index.into();
        }
        let answer = self.send("PATCH", &format!("/tasks/{task}/move"), Some(body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }

    /// Publishes an event; returns its position.
    pub async fn publish(&self, topic: &str, data: impl Into<Value>) -> String {
        let body = json!({ "data": data.into() });
        let answer = self.send("POST", &format!("/topics/{topic}/events"), Some(body)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body["id"].as_str().unwrap().to_owned()
    }

    /// One metric of the node, summed over all its labels that contain `labels`.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        self.try_metric(name, labels).await.unwrap()
    }

    /// The same, where the node may close the connection.
    pub async fn try_metric(&self, name: &str, labels: &str) -> Result<f64, reqwest::Error> {
        let answer = self.try_send("GET", "/metrics", None).await?;
        assert_eq!(answer.status, 200, "{answer:?}");
        let lines = answer.body.as_str().unwrap().lines();
        let values = lines.filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (series_name, series_labels) = series.split_once('{').unwrap_or((series, ""));
            (series_name == name && series_labels.contains(labels)).then(|| value.parse().ok())?
        });
        Ok(values.fold(0.0, |sum: f64, value: f64| sum + value))
    }

    /// Waits until the node carries this many streams.
    pub async fn until_streams(&self, count: usize) {
        until(&format!("{} carries {count} streams", self.base), async || {
            (self.metric("fantail_connections", "").await as usize == count).then_some(())
        })
        .await;
    }
}

/// The seq of a position.
pub fn seq(position: &str) -> u64 {
    position.split_once('-').unwrap_or_else(|| panic!("{position:?}")).0.parse().unwrap()
}

/// The epoch of a position.
pub fn epoch(position: &str) -> &str {
    position.split_once('-').unwrap_or_else(|| panic!("{position:?}")).1
}

/// Lets this process open as many sockets as the system allows.
pub fn raise_descriptor_limit(needed: u64) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    assert!(
        limit.maximum.is_none_or(|maximum| maximum >= needed),
        "this test needs {needed} open files; raise the hard limit (ulimit -Hn)"
    );
}
