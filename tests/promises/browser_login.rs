//! A real browser whose page has tokens of a few seconds: by cookie, and by ticket from another site.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::header;
use axum::response::Html;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::harness::chromium::Chromium;
use crate::harness::tokens::{SECRET, Signer, in_seconds};
use crate::harness::{Api, Backend, Node, until};

/// How long tokens last, and how long the page is watched, in seconds.
#[derive(Clone, Copy)]
struct Times {
    token: i64,
    watched: u64,
}

const SHORT: Times = Times { token: 4, watched: 14 };
const LONG: Times = Times { token: 10, watched: 60 };

/// The application whose page it is: it knows who is logged in, and gives tokens.
struct Application {
    address: SocketAddr,
    tokens: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Application {
    async fn start(token_seconds: i64) -> Application {
        let tokens: Arc<Mutex<Vec<String>>> = Arc::default();
        let issued = tokens.clone();
        let token = move || {
            let claims = json!({
                "sub": "alice", "exp": in_seconds(token_seconds), "iat": in_seconds(0),
                "fantail": { "subscribe": ["news"], "publish": ["own"] },
            });
            let token = Signer::with_secret("HS256", SECRET).token(&claims);
            issued.lock().unwrap().push(token.clone());
            token
        };
        let for_cookie = token.clone();
        let login = async move || {
            let cookie = format!("fantail={}; HttpOnly; SameSite=Lax; Path=/", for_cookie());
            [(header::SET_COOKIE, cookie)]
        };
        let routes = Router::new()
            .route("/", get(async || Html("<!doctype html><title>application</title>")))
            .route("/login", post(login))
            .route("/token", post(async move || token()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Application { address, tokens, task }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn start_node(origin: &str) -> Node {
    let settings = [
        ("FANTAIL_JWT_SECRET", SECRET),
        ("FANTAIL_CORS_ORIGINS", origin),
        ("FANTAIL_LOG", "trace"),
        ("FANTAIL_RETRY", "400ms"),
    ];
    Backend::Embedded.start(&settings).await.node
}

fn everything(node: &Node) -> Api {
    node.with_token(&Signer::with_secret("HS256", SECRET).everything())
}

/// How often a stream was asked for.
async fn stream_requests(node: &Node) -> f64 {
    let labels = r#"route="/topics/{topic}/events",method="GET""#;
    everything(node).metric("fantail_requests_total", labels).await
}

/// JavaScript: what the page hears.
const HEAR: &str = "
    window.heard = []; window.goodbyes = []; window.opened = 0;
    window.hear = source => {
      source.onopen = () => window.opened++;
      source.addEventListener('message', event => {
        if (!event.data.includes('connected')) window.heard.push(Number(event.data));
      });
      source.addEventListener('goodbye', event => window.goodbyes.push(JSON.parse(event.data)));
    };";

/// Publishes while the page renews its tokens; all of it is heard, and no more is asked than there
/// are tokens.
async fn hears_everything(node: &Node, browser: &Chromium, times: Times) {
    browser.until("window.opened > 0").await;
    let publisher = everything(node);
    let began_at = Instant::now();
    let mut published = 0;
    while began_at.elapsed() < Duration::from_secs(times.watched) {
        published += 1;
        publisher.publish("news", published).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    browser.until(&format!("window.heard.length >= {published}")).await;
    let heard = browser.value("window.heard").await;
    assert_eq!(heard, json!((1..=published).collect::<Vec<u64>>()));
    let requests = stream_requests(node).await;
    let tokens = began_at.elapsed().as_secs_f64() / times.token as f64;
    assert!(requests >= tokens.floor(), "{requests} requests for {tokens} tokens");
    // Twice as many, where a busy machine renews late.
    assert!(requests <= 2.0 * tokens + 3.0, "{requests} requests for {tokens} tokens");
}

/// Waits until nobody asks for a stream any more, and asserts that nobody does.
async fn is_quiet(node: &Node) {
    let before = stream_requests(node).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stream_requests(node).await, before, "somebody goes on asking");
}

fn assert_no_secret_is_logged(node: &Node, secrets: &[String]) {
    assert!(secrets.len() >= 3);
    let log = node.log();
    for secret in secrets {
        let line = log.iter().find(|line| line.contains(&secret[secret.len() - 24..]));
        assert_eq!(line, None);
    }
}

async fn cookie_login(times: Times) {
    let application = Application::start(times.token).await;
    let origin = format!("http://{}", application.address);
    let node = start_node(&origin).await;
    let browser = Chromium::start().await;
    browser.open(&origin).await;
    let gateway = format!("http://{}", node.address);
    let script = format!(
        "{HEAR}
         window.login = () => fetch('/login', {{ method: 'POST' }});
         window.login().then(() => {{
           window.renewing = setInterval(window.login, {});
           window.source = new EventSource('{gateway}/topics/news/events', {{ withCredentials: true }});
           window.hear(window.source);
         }});",
        times.token * 500,
    );
    browser.client.execute(&script, Vec::new()).await.unwrap();
    hears_everything(&node, &browser, times).await;
    let goodbyes = browser.value("window.goodbyes").await;
    let goodbyes = goodbyes.as_array().unwrap();
    assert!(goodbyes.len() >= 2, "{goodbyes:?}");
    let told = json!({ "reason": "expired", "retry": true });
    assert!(goodbyes.iter().all(|goodbye| *goodbye == told), "{goodbyes:?}");

    // The page of the application may write with it.
    let write = format!(
        "fetch('{gateway}/topics/own/events', {{ method: 'POST', credentials: 'include', \
           headers: {{ 'Content-Type': 'application/json' }}, body: '{{\"data\":1}}' }}) \
           .then(answer => window.written = answer.status, error => window.written = String(error))"
    );
    browser.client.execute(&write, Vec::new()).await.unwrap();
    browser.until("window.written !== undefined").await;
    assert_eq!(browser.value("window.written").await, 201);
    // No script can read it.
    assert_eq!(browser.value("document.cookie").await, "");

    // Who does not renew is told, and then stopped.
    browser.client.execute("clearInterval(window.renewing)", Vec::new()).await.unwrap();
    browser.until("window.source.readyState === EventSource.CLOSED").await;
    is_quiet(&node).await;
    let tokens = application.tokens.lock().unwrap().clone();
    assert_no_secret_is_logged(&node, &tokens);
    browser.close().await;
}

async fn ticket_login(times: Times) {
    let application = Application::start(times.token).await;
    // Another site than the gateway's, which is asked by its address.
    let origin = format!("http://localhost:{}", application.address.port());
    let node = start_node(&origin).await;
    let browser = Chromium::start().await;
    browser.open(&origin).await;
    let gateway = format!("http://{}", node.address);
    let script = format!(
        "{HEAR}
         window.tickets = []; window.position = '';
         window.ticket = async () => {{
           const token = await (await fetch('/token', {{ method: 'POST' }})).text();
           const answer = await fetch('{gateway}/tickets', {{
             method: 'POST', headers: {{ Authorization: `Bearer ${{token}}` }} }});
           const {{ ticket }} = await answer.json();
           window.tickets.push(ticket);
           return '{gateway}/topics/news/events?ticket=' + ticket;
         }};
         window.open_again = async () => {{
           const address = await window.ticket();
           window.source?.close();
           window.source = new EventSource(address +
             (window.position && '&lastEventId=' + encodeURIComponent(window.position)));
           window.hear(window.source);
           window.source.addEventListener('message', event => window.position = event.lastEventId);
           window.source.addEventListener('goodbye', () => {{
             window.source.close();
             window.open_again();
           }});
         }};
         window.open_again();"
    );
    browser.client.execute(&script, Vec::new()).await.unwrap();
    hears_everything(&node, &browser, times).await;
    let goodbyes = browser.value("window.goodbyes").await;
    let told = json!({ "reason": "expired", "retry": false });
    let goodbyes: Vec<Value> = goodbyes.as_array().unwrap().clone();
    assert!(goodbyes.len() >= 2 && goodbyes.iter().all(|g| *g == told), "{goodbyes:?}");

    // A page that knows nothing of goodbyes: its browser comes back with the old ticket, is told so,
    // and then stopped.
    let naive = "
        window.source.close(); window.goodbyes = []; window.open_again = () => {};
        window.ticket().then(address => {
          window.naive = new EventSource(address);
          window.hear(window.naive);
        });";
    let before = stream_requests(&node).await;
    browser.client.execute(naive, Vec::new()).await.unwrap();
    browser.until("window.naive?.readyState === EventSource.CLOSED").await;
    let told =
        json!([{ "reason": "expired", "retry": false }, { "reason": "ticket", "retry": false }]);
    assert_eq!(browser.value("window.goodbyes").await, told);
    assert_eq!(stream_requests(&node).await - before, 3.0);
    is_quiet(&node).await;

    let mut secrets = application.tokens.lock().unwrap().clone();
    let tickets = browser.value("window.tickets").await;
    secrets.extend(tickets.as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()));
    assert_no_secret_is_logged(&node, &secrets);
    browser.close().await;
}

#[tokio::test]
async fn a_page_with_cookies_of_seconds_hears_everything_and_stops_when_it_is_over() {
    cookie_login(SHORT).await;
}

#[tokio::test]
async fn a_page_of_another_site_with_tickets_hears_everything_and_stops_when_it_is_over() {
    ticket_login(SHORT).await;
}

#[tokio::test]
#[ignore = "takes more than a minute"]
async fn a_page_with_cookies_hears_everything_for_a_minute() {
    cookie_login(LONG).await;
}

#[tokio::test]
#[ignore = "takes more than a minute"]
async fn a_page_with_tickets_hears_everything_for_a_minute() {
    ticket_login(LONG).await;
}

#[tokio::test]
async fn an_eventsource_whose_token_is_revoked_is_told_and_stops() {
    let application = Application::start(600).await;
    let origin = format!("http://{}", application.address);
    let node = start_node(&origin).await;
    let browser = Chromium::start().await;
    browser.open(&origin).await;
    let script = format!(
        "{HEAR}
         fetch('/login', {{ method: 'POST' }}).then(() => {{
           window.source = new EventSource('http://{}/topics/news/events', {{ withCredentials: true }});
           window.hear(window.source);
         }});",
        node.address
    );
    browser.client.execute(&script, Vec::new()).await.unwrap();
    browser.until("window.opened === 1").await;
    let whom = Some(json!({ "subject": "alice" }));
    let revoked = everything(&node).send("POST", "/admin/revoke", whom).await;
    assert_eq!(revoked.status, 204);
    browser.until("window.source.readyState === EventSource.CLOSED").await;
    let told = json!([{ "reason": "revoked", "retry": false }]);
    assert_eq!(browser.value("window.goodbyes").await, told);
    until("it has asked once more", async || (stream_requests(&node).await == 2.0).then_some(()))
        .await;
    is_quiet(&node).await;
    browser.close().await;
}
