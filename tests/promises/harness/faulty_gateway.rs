//! A gateway with a defect: a proxy before an honest node that breaks one promise, once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use tokio::task::JoinHandle;

/// Which promise is broken. On streams, at the fifth entry of the first stream that has so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// None.
    None,
    /// An entry is left out.
    Drop,
    /// An entry comes twice.
    Double,
    /// An entry comes after the one that follows it.
    Swap,
    /// An entry's data is changed.
    Alter,
    /// A loss is told, and nothing was lost.
    VainReset,
    /// Nothing more comes, and the connection stays.
    FallSilent,
    /// The first stream is refused as if it did not exist.
    Refuse,
    /// An event is acknowledged and thrown away.
    Swallow,
    /// Who wants everything that is retained gets what comes from now on.
    SkipEarliest,
}

impl Defect {
    fn is_on_streams(self) -> bool {
        !matches!(self, Defect::None | Defect::Refuse | Defect::Swallow | Defect::SkipEarliest)
    }
}

/// At which entry the defect shows.
const AT: usize = 5;

struct Shared {
    node: SocketAddr,
    defect: Defect,
    shown: AtomicBool,
    client: reqwest::Client,
    posts: AtomicUsize,
}

impl Shared {
    /// Whether the defect shows now; true once.
    fn takes_turn(&self) -> bool {
        !self.shown.swap(true, Ordering::SeqCst)
    }
}

/// A proxy with a defect.
pub struct FaultyGateway {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl FaultyGateway {
    pub async fn start(node: SocketAddr, defect: Defect) -> FaultyGateway {
        let shared = Arc::new(Shared {
            node,
            defect,
            shown: AtomicBool::new(defect == Defect::None),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            posts: 0.into(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new().fallback(forward).with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        FaultyGateway { address, shared, task }
    }

    /// Whether the defect has shown.
    pub fn has_shown(&self) -> bool {
        self.shared.shown.load(Ordering::SeqCst)
    }
}

impl Drop for FaultyGateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let is_stream = head.uri.path().ends_with("/events") && head.method == "GET";
    if shared.defect == Defect::Refuse && is_stream && shared.takes_turn() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let mut url = format!("http://{}{}", shared.node, head.uri);
    if shared.defect == Defect::SkipEarliest
        && url.ends_with("?from=earliest")
        && shared.takes_turn()
    {
        url = url.replace("?from=earliest", "");
    }
    if shared.defect == Defect::Swallow && head.method == "POST" {
        let nth = shared.posts.fetch_add(1, Ordering::SeqCst);
        if nth == AT && shared.takes_turn() {
            // Far beyond the head, in the epoch that the log has.
            let history = shared.client.get(url.replace("/events", "/history")).send().await;
            let page: serde_json::Value = history.unwrap().json().await.unwrap();
            let epoch = super::epoch(page["head"].as_str().unwrap()).to_owned();
            let id = format!(r#"{{"id":"1000000-{epoch}"}}"#);
            return (StatusCode::CREATED, id).into_response();
        }
    }
    let mut ask = shared.client.request(head.method.clone(), url).body(body);
    for name in ["content-type", "last-event-id", "idempotency-key"] {
        if let Some(value) = head.headers.get(name) {
            ask = ask.header(name, value);
        }
    }
    let Ok(answer) = ask.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let mut response = Response::builder().status(answer.status());
    if let Some(value) = answer.headers().get("content-type") {
        response = response.header("content-type", value);
    }
    let topic = head.uri.path().split('/').nth(2).unwrap_or_default().to_owned();
    let body = match is_stream {
        true => Body::from_stream(with_defect(shared, topic, answer)),
        false => Body::from(answer.bytes().await.unwrap()),
    };
    response.body(body).unwrap()
}

/// The stream of an answer, block by block, with the defect in it.
fn with_defect(
    shared: Arc<Shared>,
    topic: String,
    answer: reqwest::Response,
) -> impl Stream<Item = Result<Bytes, reqwest::Error>> {
    let mut received = Vec::new();
    let mut entries = 0;
    let mut id = String::new();
    let mut kept_back: Option<String> = None;
    let silent = Arc::new(AtomicBool::new(false));
    let falls_silent = silent.clone();
    let blocks = answer.bytes_stream().map(move |part| {
        received.extend_from_slice(&part?);
        let mut out: Vec<String> = Vec::new();
        while let Some(end) = received.windows(2).position(|two| two == b"\n\n") {
            let block = String::from_utf8(received.drain(..end + 2).collect()).unwrap();
            let its = block.lines().find_map(|line| line.strip_prefix("id: ")).unwrap_or_default();
            let before = std::mem::replace(&mut id, its.to_owned());
            let is_entry = block.contains("event: check");
            entries += usize::from(is_entry);
            let now = is_entry && entries == AT && shared.defect.is_on_streams();
            if !now || !shared.takes_turn() {
                out.push(block);
                out.extend(kept_back.take());
                continue;
            }
            match shared.defect {
                Defect::Drop => {}
                Defect::Double => out.extend([block.clone(), block]),
                Defect::Swap => kept_back = Some(block),
                Defect::Alter => out.push(block.replacen("xx", "xy", 1)),
                Defect::VainReset => out.extend([
                    format!(
                        "id: {before}\nevent: reset\ndata: {{\"topic\":\"{topic}\",\
                         \"reason\":\"lost\",\"from\":\"{before}\",\"oldest\":\"{id}\",\
                         \"head\":\"{id}\"}}\n\n"
                    ),
                    block,
                ]),
                _ => silent.store(true, Ordering::SeqCst),
            }
        }
        Ok(Bytes::from(out.concat()))
    });
    // The part in which it falls silent is still sent, without what comes after.
    let mut last = false;
    let heard = blocks.take_while(move |_| {
        let goes_on = !last;
        last = falls_silent.load(Ordering::SeqCst);
        std::future::ready(goes_on)
    });
    // And then nothing, for ever.
    heard.chain(stream::pending())
}
