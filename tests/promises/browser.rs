//! A real browser: the page that ships, and `EventSource` as browsers have it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::balancer::Balancer;
use crate::harness::chromium::Chromium;
use crate::harness::nginx::Nginx;
use crate::harness::{Backend, Cluster, Redis, epoch, until};

/// JavaScript: the page's stream is live.
const LIVE: &str = "document.querySelector('#state')?.dataset.state === 'live'";

/// JavaScript: a list shows a task with this title.
fn shows(list: &str, title: &str) -> String {
    let (list, title) = (json!(list), json!(title));
    format!(
        "[...document.querySelectorAll('[data-list-id]')].some(list => \
           list.dataset.listId === {list} && \
           [...list.querySelectorAll('[data-task-id]')].some(task => \
             task.textContent.includes({title}) || \
             [...task.querySelectorAll('input, textarea')].some(i => i.value.includes({title}))))"
    )
}

#[tokio::test]
async fn two_pages_on_different_nodes_show_each_others_changes() {
    let cluster = Cluster::start(2, &[]).await;
    let browser = Chromium::start().await;
    let first = browser.client.window().await.unwrap();
    browser.open(&format!("{}/", cluster.nodes[0].base)).await;
    browser.until(LIVE).await;
    assert_eq!(browser.value("document.querySelector('#node').textContent").await, "node-1");
    let second = browser.client.new_window(false).await.unwrap().handle;
    browser.client.switch_to_window(second.clone()).await.unwrap();
    browser.open(&format!("{}/", cluster.nodes[1].base)).await;
    browser.until(LIVE).await;
    assert_eq!(browser.value("document.querySelector('#node').textContent").await, "node-2");

    // Written in one page by its own form …
    let input = "[data-list-id='list-todo'] form input";
    let input = browser.client.find(fantoccini::Locator::Css(input)).await.unwrap();
    input.send_keys("From <b>two</b> & \u{2602}\u{e007}").await.unwrap();
    browser.until(&shows("list-todo", "From <b>two</b> & \u{2602}")).await;
    // … seen in the other, as text.
    browser.client.switch_to_window(first).await.unwrap();
    browser.until(&shows("list-todo", "From <b>two</b> & \u{2602}")).await;
    browser.until("document.querySelector('[data-task-id] b') === null").await;

    // And back, by a change that another program makes.
    cluster.nodes[0].move_to("task-1", "list-done", None).await;
    browser.until(&shows("list-done", "From <b>two</b>")).await;
    browser.client.switch_to_window(second).await.unwrap();
    browser.until(&shows("list-done", "From <b>two</b>")).await;
    browser.picture("two-pages").await;
    browser.close().await;
}

#[tokio::test]
async fn a_page_whose_node_is_killed_goes_on_with_another_and_misses_nothing() {
    let settings = [("FANTAIL_RETRY", "500ms")];
    let mut cluster = Cluster::start(2, &settings).await;
    let addresses = cluster.nodes.iter().map(|node| node.address).collect();
    let balancer = Balancer::start(addresses).await;
    let browser = Chromium::start().await;
    browser.open(&format!("http://{}/", balancer.address)).await;
    browser.until(LIVE).await;
    cluster.nodes[0].create("before", "list-todo").await;
    browser.until(&shows("list-todo", "before")).await;
    let node = browser.value("document.querySelector('#node').textContent").await;
    let killed = if node == "node-1" { 0 } else { 1 };
    let other = format!("node-{}", 2 - killed);

    cluster.nodes[killed].process.kill();
    let alive = &cluster.nodes[1 - killed];
    alive.create("meanwhile", "list-doing").await;
    browser.until(&shows("list-doing", "meanwhile")).await;
    browser.until(LIVE).await;
    browser.until(&format!("document.querySelector('#node').textContent === '{other}'")).await;
    let (_, last) = alive.create("after", "list-done").await;
    browser.until(&shows("list-done", "after")).await;
    browser.until(&shows("list-todo", "before")).await;
    let id = browser.value("document.querySelector('#last-event-id').textContent").await;
    assert!(id.as_str().unwrap().contains(&last), "{id} does not show {last}");
    // It resumed: nothing was reset.
    for reason in ["trimmed", "deleted", "lost", "unreadable"] {
        assert_eq!(alive.metric("fantail_resets_total", reason).await, 0.0);
    }
    browser.picture("after-a-killed-node").await;
    browser.close().await;
}

/// JavaScript: the page's next write goes out right after somebody else's, of which it knows nothing.
fn somebody_is_faster(method: &str, path: &str, body: Value) -> String {
    format!(
        "(() => {{ const real = fetch; window.fetch = async (...own) => {{ \
           if (own[1]?.method !== 'PATCH') return real(...own); \
           window.fetch = real; \
           await real('{path}', {{ method: '{method}', body: JSON.stringify({body}), \
             headers: {{ 'Content-Type': 'application/json' }} }}); \
           return real(...own); }}; return true; }})()"
    )
}

#[tokio::test]
async fn a_card_that_somebody_else_moved_meanwhile_stays_there_and_the_page_says_so() {
    let node = Backend::Embedded.start(&[]).await;
    node.create("mine", "list-todo").await;
    node.create("other", "list-todo").await;
    let browser = Chromium::start().await;
    browser.open(&format!("{}/", node.base)).await;
    browser.until(LIVE).await;
    browser.until(&shows("list-todo", "mine")).await;
    let move_right = async || {
        // The keyboard's way to drag.
        let key = "document.querySelector('.card[data-task-id=\"task-1\"]').dispatchEvent( \
                     new KeyboardEvent('keydown', { key: 'ArrowRight', altKey: true, bubbles: true }))";
        browser.value(key).await;
    };

    // Another card changed: nothing that this move would undo.
    let place = json!({ "listId": "list-done" });
    browser.until(&somebody_is_faster("PATCH", "/tasks/task-2/move", place)).await;
    move_right().await;
    browser.until(&shows("list-doing", "mine")).await;
    browser.until(&shows("list-done", "other")).await;
    until("the move was saved", async || {
        let board = node.get("/boards/board-1").await;
        (board["lists"][1]["tasks"][0]["id"] == "task-1").then_some(())
    })
    .await;

    // This card was moved by somebody else: it stays where they put it.
    let place = json!({ "listId": "list-todo" });
    browser.until(&somebody_is_faster("PATCH", "/tasks/task-1/move", place)).await;
    move_right().await;
    browser
        .until("document.querySelector('#toasts').textContent.includes('Somebody else changed')")
        .await;
    browser.until(&shows("list-todo", "mine")).await;
    browser.picture("somebody-was-faster").await;
    let board = node.get("/boards/board-1").await;
    assert_eq!(board["lists"][0]["tasks"][0]["id"], "task-1", "{board}");
    browser.close().await;
}

#[tokio::test]
async fn a_page_whose_log_is_gone_recovers_by_a_new_snapshot() {
    let node = Backend::Redis.start(&[]).await;
    let browser = Chromium::start().await;
    node.create("will be lost", "list-todo").await;
    browser.open(&format!("{}/", node.base)).await;
    browser.until(&shows("list-todo", "will be lost")).await;
    let _: String = node.redis.as_ref().unwrap().ask(&["FLUSHALL"]).await;
    browser.until("document.querySelector('[data-task-id]') === null").await;
    browser.until(LIVE).await;
    node.create("new", "list-todo").await;
    browser.until(&shows("list-todo", "new")).await;
    browser.close().await;
}

/// Opens `count` EventSources on `path` in the page and keeps them in `window.sources`.
async fn open_sources(browser: &Chromium, path: &str, count: usize) {
    let script = format!(
        "window.sources ??= []; window.heard = 0;
         for (let n = 0; n < {count}; n++) {{
           const source = new EventSource('{path}');
           source.addEventListener('task_created', () => window.heard++);
           window.sources.push(source);
         }}"
    );
    browser.client.execute(&script, Vec::new()).await.unwrap();
}

const OPEN: &str = "window.sources.filter(source => source.readyState === 1).length";

#[tokio::test]
async fn the_seventh_stream_of_an_http_1_origin_waits_and_there_are_two_ways_out() {
    let cluster = Cluster::start(2, &[]).await;
    let nodes: Vec<_> = cluster.nodes.iter().map(|node| node.address).collect();
    let node = &cluster.nodes[0];
    let body = json!({ "id": "b2", "name": "Two", "lists": [{ "id": "l2", "title": "L" }] });
    node.send("POST", "/boards", Some(body)).await;
    let browser = Chromium::start().await;
    // A page without streams of its own.
    browser.open(&format!("{}/healthz", node.base)).await;
    open_sources(&browser, "/boards/board-1/events", 7).await;
    browser.until(&format!("{OPEN} === 6")).await;
    // It is not merely late: it waits as long as the six are open, and comes when one goes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(browser.value(OPEN).await, 6);
    assert_eq!(node.metric("fantail_connections", "").await, 6.0);
    let close = "window.sources.find(source => source.readyState === 1).close()";
    browser.client.execute(close, Vec::new()).await.unwrap();
    browser.until(&format!("{OPEN} === 6")).await;
    // A page of this origin could not even be loaded now: it would wait for a connection too.
    let close = "window.sources.forEach(source => source.close())";
    browser.client.execute(close, Vec::new()).await.unwrap();

    // One way out: several boards over one connection.
    browser.open(&format!("{}/healthz", node.base)).await;
    open_sources(&browser, "/events?boards=board-1,b2", 1).await;
    browser.until(&format!("{OPEN} === 1")).await;
    node.create("one", "list-todo").await;
    node.create("two", "l2").await;
    browser.until("window.heard === 2").await;

    // The other: HTTP/2, through the nginx that ships.
    let nginx = Nginx::start(&nodes).await;
    browser.open(&format!("https://{}/healthz", nginx.https)).await;
    open_sources(&browser, "/boards/board-1/events", 30).await;
    browser.until(&format!("{OPEN} === 30")).await;
    let protocols = browser
        .value(
            "[...new Set(performance.getEntriesByType('navigation').map(e => e.nextHopProtocol))]",
        )
        .await;
    assert_eq!(protocols, json!(["h2"]));
    cluster.nodes[1].create("three", "list-todo").await;
    browser.until("window.heard === 30").await;
    browser.close().await;
}

#[tokio::test]
async fn a_browser_resumes_by_itself_from_another_origin_and_hears_resets() {
    // The page is on one node, its stream on another: CORS, Last-Event-ID and all.
    let settings = [("FANTAIL_RETRY", "200ms"), ("FANTAIL_CORS_ORIGINS", "*")];
    let mut cluster = Cluster::start(2, &settings).await;
    let browser = Chromium::start().await;
    browser.open(&format!("{}/healthz", cluster.nodes[0].base)).await;
    let balancer = Balancer::start(vec![cluster.nodes[1].address, cluster.nodes[0].address]).await;
    let script = format!(
        "window.heard = []; window.source = new EventSource('http://{}/topics/t/events');
         window.source.onmessage = event => window.heard.push([event.data, event.lastEventId]);
         window.source.addEventListener('reset', event => window.heard.push(['reset', event.data]));",
        balancer.address
    );
    browser.client.execute(&script, Vec::new()).await.unwrap();
    browser.until("window.heard.length === 1").await;
    cluster.nodes[0].publish("t", "one").await;
    browser.until("window.heard.length === 2").await;
    let which = browser.value("JSON.parse(window.heard[0][0]).node").await;
    let killed = if which == "node-1" { 0 } else { 1 };
    let killed_page = killed == 0;
    cluster.nodes[killed].process.kill();
    let alive = &cluster.nodes[1 - killed];
    alive.publish("t", "two").await;
    alive.publish("t", "three").await;
    let heard = until("the browser has heard everything", async || {
        let heard = browser.value("window.heard.map(event => event[0])").await;
        (heard.as_array().unwrap().len() == 5).then_some(heard)
    })
    .await;
    let texts: Vec<&Value> =
        heard.as_array().unwrap().iter().filter(|t| !t.to_string().contains("connected")).collect();
    assert_eq!(
        texts,
        [&json!("one"), &json!("two"), &json!("three")],
        "page killed: {killed_page}"
    );
    browser.close().await;
}

#[tokio::test]
async fn a_page_that_is_left_takes_its_stream_along_and_goes_on_when_it_is_shown_again() {
    let node = Backend::Embedded.start(&[]).await;
    let browser = Chromium::start().await;
    // Marks too many make other addresses of the same page.
    let page = |number: usize| format!("{}/?board=board-1{}", node.base, "&".repeat(number));
    node.create("before", "list-todo").await;
    // With a stream in each of them the seventh could not even be loaded.
    for number in 0..9 {
        browser.open(&page(number)).await;
        browser.until(LIVE).await;
        browser.until(&shows("list-todo", "before")).await;
        let notice = "addEventListener('pageshow', event => (window.fromCache = event.persisted))";
        browser.client.execute(notice, Vec::new()).await.unwrap();
    }
    until("one page has one stream", async || {
        (node.metric("fantail_connections", "").await == 1.0).then_some(())
    })
    .await;

    // The one before comes out of the cache, and hears what it missed and what follows.
    node.create("meanwhile", "list-doing").await;
    browser.client.back().await.unwrap();
    browser.until("location.search.length === 21").await;
    // It is the same page: a new one would have nothing here.
    browser.until("window.fromCache").await;
    browser.until(LIVE).await;
    browser.until(&shows("list-doing", "meanwhile")).await;
    node.create("after", "list-done").await;
    browser.until(&shows("list-done", "after")).await;
    for number in (0..7).rev() {
        browser.client.back().await.unwrap();
        browser.until(&format!("location.search.length === {}", number + 14)).await;
        browser.until(LIVE).await;
        browser.until(&shows("list-done", "after")).await;
    }
    until("the page that is shown has the one stream", async || {
        (node.metric("fantail_connections", "").await == 1.0).then_some(())
    })
    .await;
    for reason in ["trimmed", "deleted", "lost", "unreadable"] {
        assert_eq!(node.metric("fantail_resets_total", reason).await, 0.0);
    }
    browser.close().await;
}

#[tokio::test]
async fn the_focus_is_never_lost_with_what_had_it() {
    let node = Backend::Embedded.start(&[]).await;
    node.create("first", "list-todo").await;
    node.create("second", "list-todo").await;
    let browser = Chromium::start().await;
    browser.open(&format!("{}/", node.base)).await;
    browser.until(&shows("list-todo", "second")).await;
    let focused = |what: &str| format!("document.activeElement?.matches(`{what}`)");
    let press = async |keys: &str| {
        let focused = browser.client.active_element().await.unwrap();
        focused.send_keys(keys).await.unwrap();
    };
    let (delete, tab, enter) = ("\u{e017}", "\u{e004}", "\u{e007}");

    let focus = "document.querySelector('[data-task-id=\"task-1\"]').focus()";
    browser.client.execute(focus, Vec::new()).await.unwrap();
    press(delete).await;
    browser.until(&focused("[data-task-id='task-2']")).await;
    press(delete).await;
    let add = "[data-list-id='list-todo'] form input";
    browser.until(&focused(add)).await;
    press(&format!("third{enter}")).await;
    browser.until(&shows("list-todo", "third")).await;

    // A toast with a button that is pressed gives it back.
    let undo = "#toasts .toast:last-child button";
    browser.until(&format!("document.querySelector(`{undo}`) !== null")).await;
    browser
        .client
        .execute(&format!("document.querySelector(`{undo}`).focus()"), Vec::new())
        .await
        .unwrap();
    browser.until(&focused(undo)).await;
    press(enter).await;
    browser.until(&shows("list-todo", "second")).await;
    browser.until(&focused(add)).await;
    press(tab).await;
    browser.until("document.activeElement !== document.body").await;
    browser.close().await;
}

#[tokio::test]
async fn the_help_is_about_what_is_used() {
    let node = Backend::Embedded.start(&[]).await;
    node.create("card", "list-todo").await;
    let browser = Chromium::start().await;
    browser.open(&format!("{}/", node.base)).await;
    browser.until(&shows("list-todo", "card")).await;
    let helps = |with: &str, not_with: &str| {
        format!(
            "document.querySelector('.for-{with}').checkVisibility() && \
             !document.querySelector('.for-{not_with}').checkVisibility()"
        )
    };
    let press_key = async || {
        let card = browser.client.find(fantoccini::Locator::Css(".card")).await.unwrap();
        card.send_keys("\u{e015}").await.unwrap();
    };
    // Whatever this machine says that it has: a browser without a screen says "hover: none".
    press_key().await;
    browser.until(&helps("keys", "touch")).await;
    let touch = "document.querySelector('.card').dispatchEvent(new PointerEvent('pointerdown', \
                   { pointerType: 'touch', bubbles: true, button: 1 }))";
    browser.client.execute(touch, Vec::new()).await.unwrap();
    browser.until(&helps("touch", "keys")).await;
    // The keyboard on a screen types into a field.
    let field = "[data-list-id='list-todo'] form input";
    let field = browser.client.find(fantoccini::Locator::Css(field)).await.unwrap();
    field.send_keys("typed").await.unwrap();
    browser.until(&helps("touch", "keys")).await;
    press_key().await;
    browser.until(&helps("keys", "touch")).await;
    browser.close().await;
}

/// Appends what no node would take any more: an event of this type, as if it had been published
/// before the type was the gateway's own.
async fn append_by_hand(redis: &Redis, topic: &str, position: &str, event_type: &str) {
    let rest = format!("event: {event_type}\ndata: x\n\n");
    let (seq, epoch) = position.split_once('-').unwrap();
    let [log, seq_key] = ["log", "seq"].map(|key| format!("fantail:{{{topic}}}:{key}"));
    let entry = ["e", epoch, "t", "0", "j", "0", "f", &rest];
    let _: String = redis.ask(&[&["XADD", &log, &format!("{seq}-0")][..], &entry].concat()).await;
    let _: String = redis.ask(&["SET", &seq_key, seq]).await;
    let announcement = format!("0\nid: {position}\n{rest}");
    let _: u64 = redis.ask(&["PUBLISH", &format!("fantail:{{{topic}}}"), &announcement]).await;
}

#[tokio::test]
async fn nobody_but_the_gateway_tells_a_page_where_it_is_and_that_it_is_connected() {
    let node = Backend::Redis.start(&[]).await;
    let redis = node.redis.as_ref().unwrap();
    let browser = Chromium::start().await;
    browser.open(&format!("{}/", node.base)).await;
    browser.until(LIVE).await;
    let count_errors = "window.failed = 0; addEventListener('error', () => (window.failed += 1))";
    browser.client.execute(count_errors, Vec::new()).await.unwrap();
    // A page of somebody who has read the README, beside it.
    let page = browser.client.window().await.unwrap();
    let other = browser.client.new_window(false).await.unwrap().handle;
    browser.client.switch_to_window(other.clone()).await.unwrap();
    browser.open(&format!("{}/healthz", node.base)).await;
    let readme = include_str!("../../README.md");
    let example = readme.split("```js\n").nth(1).unwrap().split("```").next().unwrap();
    let said = "window.said = []; console.log = (...words) => window.said.push(words);";
    browser.client.execute(&format!("{said}\n{example}"), Vec::new()).await.unwrap();
    browser.until("window.said.some(([word]) => word === 'on')").await;

    let (_, first) = node.create("first", "list-todo").await;
    let at = |seq: u64| format!("{seq}-{}", epoch(&first));
    let hello = json!({ "type": "connected", "node": "EVIL" });
    node.publish("board-1", hello.clone()).await;
    node.publish("board-1", "no JSON").await;
    append_by_hand(redis, "board-1", &at(4), "open").await;
    node.publish("board-1", hello.clone()).await;
    append_by_hand(redis, "board-1", &at(6), "error").await;
    node.publish("board-1", hello).await;
    let (_, last) = node.create("last", "list-todo").await;
    assert_eq!(last, at(8));

    browser.until("window.said.filter(([word]) => word === 'new').length === 2").await;
    let greetings = browser.value("window.said.filter(([word]) => word === 'on')").await;
    assert_eq!(greetings.as_array().unwrap().len(), 1, "{greetings}");
    assert_eq!(greetings[0][1], "node-1");
    browser.client.switch_to_window(page).await.unwrap();
    browser.until(&shows("list-todo", "last")).await;
    assert_eq!(browser.value("document.querySelector('#node').textContent").await, "node-1");
    assert_eq!(browser.value("document.querySelector('#state').dataset.state").await, "live");
    assert_eq!(browser.value("window.fantail.lastEventId").await, json!(last));
    let activity = browser.value("document.querySelector('#activity').textContent").await;
    let activity = activity.as_str().unwrap();
    assert!(!activity.contains("EVIL") && !activity.contains("lost"), "{activity}");
    assert_eq!(browser.value("window.failed").await, 0);
    browser.close().await;
}
