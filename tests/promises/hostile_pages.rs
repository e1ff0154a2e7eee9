//! A page that wants something of a node on the machine of whoever looks at it, in a real browser:
//! from another origin, and under its own name that leads to the node (DNS rebinding).

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::chromium::Chromium;
use crate::harness::{Backend, Node, within};

/// Everything that a page can try without the help of its user; what came of it, by name.
const TRY_EVERYTHING: &str = r#"
const [base, done] = arguments;
const json = { 'Content-Type': 'application/json' };
const event = JSON.stringify({ data: 'from a hostile page' });
const asked = (path, options) => fetch(base + path, options).then(
  async (answer) => [answer.type, answer.status, await answer.text()],
  () => 'refused by the browser',
);
const heard = (path) => new Promise((resolve) => {
  const source = new EventSource(base + path);
  const ended = (what) => { source.close(); resolve(what); };
  source.onmessage = (event) => ended(event.data);
  source.onerror = () => source.readyState === EventSource.CLOSED && ended('refused by the browser');
  setTimeout(() => ended('silence'), 5000);
});
const shown = (tag, attribute) => new Promise((resolve) => {
  const element = document.createElement(tag);
  element.onload = () => resolve('loaded');
  element.onerror = () => resolve('refused by the browser');
  element[attribute] = base + (tag === 'script' ? '/app.js' : '/favicon.svg');
  document.body.append(element);
});
/** Posts as forms do, without asking first, into a frame. */
const posted = (enctype) => new Promise((resolve) => {
  const frame = Object.assign(document.createElement('iframe'), { name: `frame-${enctype}` });
  const form = document.createElement('form');
  Object.assign(form, { action: `${base}/topics/t/events`, method: 'POST', enctype, target: frame.name });
  // As text it is JSON: what stands behind the name is in its string.
  form.append(Object.assign(document.createElement('input'), { name: '{"data":"', value: '"}' }));
  document.body.append(frame, form);
  frame.onload = () => resolve('sent');
  setTimeout(() => resolve('sent, and not shown'), 5000);
  form.submit();
});
(async () => done({
  'read boards': await asked('/boards'),
  'read metrics': await asked('/metrics'),
  'read connections': await asked('/admin/connections'),
  'read the page': await asked('/'),
  'read without CORS': await asked('/boards', { mode: 'no-cors' }),
  'publish': await asked('/topics/t/events', { method: 'POST', headers: json, body: event }),
  'publish as text': await asked('/topics/t/events', { method: 'POST', body: event }),
  'publish without CORS': await asked('/topics/t/events', { method: 'POST', mode: 'no-cors', body: event }),
  'publish with credentials': await asked('/topics/t/events',
    { method: 'POST', headers: json, body: event, credentials: 'include' }),
  'beacon': navigator.sendBeacon(`${base}/topics/t/events`, new Blob([event], { type: 'text/plain' })),
  'create a task': await asked('/tasks',
    { method: 'POST', headers: json, body: JSON.stringify({ title: 'theirs', listId: 'list-todo' }) }),
  'delete a task': await asked('/tasks/task-1', { method: 'DELETE' }),
  'rename a task': await asked('/tasks/task-1', { method: 'PATCH', headers: json, body: '{"title":"theirs"}' }),
  'create a board': await asked('/boards', { method: 'POST', headers: json, body: '{"name":"theirs"}' }),
  'form': await posted('application/x-www-form-urlencoded'),
  'form as text': await posted('text/plain'),
  'script': await shown('script', 'src'),
  'image': await shown('img', 'src'),
  'follow a board': await heard('/boards/board-1/events?from=earliest'),
  'follow a topic': await heard('/topics/t/events?connected=event&heartbeat=event'),
}))();
"#;

/// Serves an empty page to whoever asks, which has all that it needs.
async fn another_site() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = socket.read(&mut head).await;
                let page = "<!doctype html><title>Nice pictures</title><body></body>";
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\
                     Connection: close\r\n\r\n{page}",
                    page.len()
                );
                let _ = socket.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

/// What a page at `at` gets of a node at `base`.
async fn gets(browser: &Chromium, at: &str, base: &str) -> Value {
    browser.open(at).await;
    let tries = browser.client.execute_async(TRY_EVERYTHING, vec![json!(base)]);
    within("everything to be tried", tries).await.unwrap()
}

/// A node as it is without any setting, on which somebody works.
async fn developers_node() -> Node {
    let node = Backend::Embedded.start(&[("FANTAIL_HOSTS", "")]).await.node;
    node.create("private", "list-todo").await;
    node
}

async fn assert_untouched(node: &Node) {
    let board = node.get("/boards/board-1").await;
    assert_eq!(board["lists"][0]["tasks"].as_array().unwrap().len(), 1, "{board}");
    assert_eq!(board["lists"][0]["tasks"][0]["title"], "private");
    assert_eq!(node.get("/boards").await.as_array().unwrap().len(), 1);
    assert_eq!(node.metric("fantail_events_published_total", "").await, 1.0);
    let history = node.get("/topics/t/history").await;
    assert_eq!(history["entries"], json!([]), "{history}");
}

#[tokio::test]
async fn a_page_of_another_origin_gets_nothing_read_or_write() {
    let node = developers_node().await;
    let site = another_site().await;
    let rules = "--host-resolver-rules=MAP evil.example 127.0.0.1";
    let browser = Chromium::start_with(&[rules]).await;
    // Another site, and another port of the same host, which is the same site.
    for at in [format!("http://evil.example:{}/", site.port()), format!("http://{site}/")] {
        let got = gets(&browser, &at, &node.base).await;
        for (what, came) in got.as_object().unwrap() {
            let said = came.to_string();
            let is_nothing = match what.as_str() {
                // It is sent; what comes of it nobody sees, and nothing has come of it, see below.
                "beacon" | "form" | "form as text" => true,
                "read without CORS" | "publish without CORS" => {
                    // Opaque at best: neither status nor text.
                    said.contains("refused") || *came == json!(["opaque", 0, ""])
                }
                _ => *came == json!("refused by the browser"),
            };
            assert!(is_nothing, "{at}: {what}: {said}");
            assert!(!said.contains("private") && !said.contains("board-1"), "{what}: {said}");
        }
        assert_untouched(&node).await;
    }
    browser.close().await;
}

#[tokio::test]
async fn a_page_whose_name_leads_to_the_node_gets_nothing_read_or_write() {
    let node = developers_node().await;
    let rules = "--host-resolver-rules=MAP evil.example 127.0.0.1";
    let browser = Chromium::start_with(&[rules]).await;
    // For the browser this is the node's own page: no rule of origins is in the way.
    let own = format!("http://evil.example:{}", node.address.port());
    let got = gets(&browser, &format!("{own}/nowhere"), "").await;
    for (what, came) in got.as_object().unwrap() {
        let said = came.to_string();
        let is_nothing = match what.as_str() {
            "beacon" | "form" | "form as text" => true,
            "script" | "image" | "follow a board" | "follow a topic" => {
                *came == json!("refused by the browser")
            }
            _ => came[1] == 421 && said.contains("not-this-host"),
        };
        assert!(is_nothing, "{what}: {said}");
        assert!(!said.contains("private") && !said.contains("board-1"), "{what}: {said}");
    }
    assert_untouched(&node).await;
    browser.close().await;
}
