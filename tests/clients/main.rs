//! Client libraries as they install from their registries: each follows a topic through the nginx
//! that ships to two gateways, while its connection is cut at every byte of a block, while all nodes
//! are lost for a while, and while streams reach their greatest age.
//!
//! `make clients` installs the libraries and runs this; docs/clients.md says what it found.

#![allow(unreachable_pub, dead_code, reason = "rooms of tests/deploy are used in part")]

mod cut_proxy;
#[path = "../deploy/files.rs"]
mod files;
#[path = "../deploy/process.rs"]
mod process;
#[path = "../deploy/running_demo.rs"]
mod running_demo;

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cut_proxy::{Cut, CutProxy};
use files::{text, top};
use process::{Ended, signal};
use running_demo::Demo;
use rustix::process::Signal;
use serde::Deserialize;

/// How many streams of each library share the cuts: some libraries wait a second before they come
/// back, whatever the gateway asks for.
const INSTANCES: usize = 8;

/// Longer than all of it takes on a machine that is busy with other things.
const AT_MOST: Duration = Duration::from_secs(170);

/// A library, and what is expected of it.
struct Library {
    name: &'static str,
    verdict: Verdict,
    /// What it asks for beside the topic.
    query: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing is lost, repeated or garbled, wherever the connection is cut.
    Sound,
    /// It takes an id before the event is whole. The id is the last line of a block, so that this
    /// costs one event at most: the one whose connection is cut between that line and the blank
    /// line behind it.
    TakesIdEarly,
    /// It garbles, repeats or loses whatever a gateway does, and is shown here without being judged.
    Avoid,
}

const fn library(name: &'static str, verdict: Verdict) -> Library {
    Library { name, verdict, query: "" }
}

const LIBRARIES: [Library; 13] = [
    library("eventsource", Verdict::Sound),
    // What it has of a half event it puts before the data of the next connection's first event:
    // with a name that nobody listens to, that is nobody's.
    Library { name: "eventsource-2", verdict: Verdict::TakesIdEarly, query: "&connected=event" },
    library("event-source-polyfill", Verdict::Sound),
    library("reconnecting-eventsource", Verdict::Sound),
    library("eventsource-client", Verdict::Sound),
    library("fetch-event-source", Verdict::TakesIdEarly),
    library("sseclient-py", Verdict::Sound),
    library("sseclient", Verdict::Avoid),
    library("requests-sse", Verdict::Sound),
    library("httpx-sse", Verdict::Sound),
    library("aiohttp-sse-client", Verdict::Sound),
    library("aiohttp-sse-client2", Verdict::Sound),
    library("r3labs-sse", Verdict::Avoid),
];

#[test]
fn the_documentation_names_the_versions_that_are_tried() {
    let page = text(&top().join("docs/clients.md"));
    let source = |name| text(&top().join("tests/clients").join(name));
    let package: serde_json::Value = serde_json::from_str(&source("package.json")).unwrap();
    let npm = package["dependencies"].as_object().unwrap().iter().map(|(name, version)| {
        // Installed under another name: npm:eventsource@2.0.2.
        let version = version.as_str().unwrap().trim_start_matches("npm:");
        let (name, version) = version.rsplit_once('@').unwrap_or((name, version));
        (name.to_owned(), version.to_owned())
    });
    let requirements = source("requirements.txt") + &source("requirements-sseclient.txt");
    let pypi = requirements.lines().filter_map(|line| {
        let (name, version) = line.split_once("==")?;
        name.contains("sse").then(|| (name.to_owned(), version.to_owned()))
    });
    let go = ("github.com/r3labs/sse".to_owned(), "2.10.0".to_owned());
    assert!(source("go.mod").contains("github.com/r3labs/sse/v2 v2.10.0"));
    let tried: Vec<(String, String)> = npm.chain(pypi).chain([go]).collect();
    assert_eq!(tried.len(), LIBRARIES.len());
    for (name, version) in tried {
        let said =
            page.lines().any(|row| row.contains(&format!("`{name}`")) && row.contains(&version));
        assert!(said, "docs/clients.md does not name {name} {version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs client libraries that tests/clients/install.sh installs: make clients"]
async fn no_library_loses_or_repeats_an_event_wherever_its_connection_is_cut() {
    let demo = Demo::start(&[
        ("FANTAIL_DEMO_NODES", "2"),
        ("FANTAIL_DEMO_RESTART", "1"),
        ("FANTAIL_DEMO_SECONDS", "200"),
        ("FANTAIL_RETRY", "10ms"),
        ("FANTAIL_HEARTBEAT", "1s"),
        ("FANTAIL_MAX_STREAM_AGE", "8s"),
    ]);
    let topic = Topic { url: format!("{}/topics/clients/events", demo.http), said: 0.into() };
    topic.publish(40).await;
    let [opening, entry] = topic.lengths_of_blocks().await;
    let mut plans = vec![VecDeque::new(); INSTANCES];
    for byte in 0..opening.max(entry) {
        let plan = &mut plans[byte % INSTANCES];
        plan.extend((byte < opening).then_some(Cut::Opening(byte)));
        plan.extend((byte < entry).then_some(Cut::SecondEntry(byte)));
    }
    let address = demo.http.strip_prefix("http://").unwrap().parse().unwrap();
    let mut clients = Vec::new();
    for library in &LIBRARIES {
        let mut proxies = Vec::new();
        for plan in &plans {
            proxies.push(CutProxy::start(address, plan.clone()).await);
        }
        clients.push(Client::start(library, proxies));
    }
    let until = Instant::now() + AT_MOST;

    // All are cut as planned and get everything.
    let mut everybody = true;
    everybody &= heard(&clients, &topic, until).await;

    // No node is there for a while: nginx says when to come back, and the nodes start again.
    for &node in &demo.nodes {
        signal(node, Signal::KILL);
    }
    topic.publish(3).await;
    everybody &= heard(&clients, &topic, until).await;

    // Streams end of age meanwhile, each with a goodbye, and a heartbeat comes every second.
    tokio::time::sleep(Duration::from_secs(9)).await;
    topic.publish(1).await;
    everybody &= heard(&clients, &topic, until).await;

    println!("\n{opening} bytes of the opening block and {entry} of an entry were cut at.");
    println!("library                     lost  repeated  garbled  empty  not cut");
    let mut wrong = Vec::new();
    for client in &clients {
        let [lost, repeated, garbled, empty] = client.counts(&topic);
        let not_cut: usize = client.proxies.iter().map(CutProxy::left).sum();
        let name = client.library.name;
        println!("{name:26}{lost:>6}{repeated:>10}{garbled:>9}{empty:>7}{not_cut:>9}");
        let lost_max = match client.library.verdict {
            Verdict::Sound => 0,
            Verdict::TakesIdEarly => 1,
            Verdict::Avoid => continue,
        };
        if lost > lost_max || repeated + garbled + empty + not_cut > 0 {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty() && everybody, "not as docs/clients.md says: {wrong:?}");
}

/// Waits until every stream that is judged has the newest event. Whether it has come to that in time.
async fn heard(clients: &[Client], topic: &Topic, until: Instant) -> bool {
    let newest = topic.said.load(Ordering::SeqCst);
    let clients: Vec<&Client> =
        clients.iter().filter(|client| client.library.verdict != Verdict::Avoid).collect();
    while Instant::now() < until {
        if clients.iter().all(|client| client.has(newest)) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for client in clients.iter().filter(|client| !client.has(newest)) {
        println!("{} has not heard event {newest}", client.library.name);
    }
    false
}

/// The topic that all follow; its events are numbered.
struct Topic {
    url: String,
    said: AtomicUsize,
}

impl Topic {
    /// Two lines, and letters of two and three bytes, to be cut in.
    fn data(number: usize) -> String {
        format!("{number:03} caf\u{e9} \u{65e5}\u{672c}\nand a second line")
    }

    /// Publishes so many events more; as often as it takes while no node is there.
    async fn publish(&self, count: usize) {
        for _ in 0..count {
            let number = self.said.fetch_add(1, Ordering::SeqCst) + 1;
            let body = serde_json::json!({ "data": Topic::data(number) });
            process::until("an event is published", async || {
                let request = reqwest::Client::new().post(&self.url).json(&body);
                // Sent again, it is the same one.
                let request = request.header("Idempotency-Key", format!("event-{number}"));
                request.send().await.is_ok_and(|answer| answer.status() == 201)
            })
            .await;
        }
    }

    /// How many bytes the longest opening block and the longest entry have.
    async fn lengths_of_blocks(&self) -> [usize; 2] {
        let stream = reqwest::get(format!("{}?from=earliest&connected=event", self.url));
        let mut stream = stream.await.unwrap();
        let read = process::read_until(&mut stream, &Topic::data(12)[..3]).await;
        let lengths: Vec<usize> = read.split_inclusive("\n\n").map(str::len).collect();
        [lengths[0], lengths[10]]
    }
}

/// A program that uses a library for its streams.
struct Client {
    library: &'static Library,
    proxies: Vec<CutProxy>,
    told: Arc<Mutex<BTreeMap<usize, Vec<String>>>>,
    _program: Ended,
}

/// What a program says of an event.
#[derive(Deserialize)]
struct Told {
    instance: usize,
    data: Option<String>,
}

impl Client {
    fn start(library: &'static Library, proxies: Vec<CutProxy>) -> Client {
        let installed = top().join("target/clients");
        assert!(
            installed.join("installed").exists(),
            "first run tests/clients/install.sh, or both with: make clients"
        );
        let sources = top().join("tests/clients");
        let urls: Vec<String> = proxies
            .iter()
            .map(|proxy| {
                let query = library.query;
                format!("http://{}/topics/clients/events?from=earliest{query}", proxy.address)
            })
            .collect();
        let mut command = match library.name {
            "r3labs-sse" => Command::new(installed.join("go/client")),
            name if ["sse", "httpx", "requests", "aiohttp"]
                .iter()
                .any(|it| name.starts_with(it)) =>
            {
                let modules = if name == "sseclient" { "python-sseclient" } else { "" };
                let path = format!("{0}/{modules}:{0}/python", installed.display());
                let mut python = Command::new("python3");
                python.env("PYTHONPATH", path).arg(sources.join("client.py"));
                python
            }
            _ => {
                // Modules are looked for beside the program.
                let program = installed.join("node/client.mjs");
                std::fs::write(&program, text(&sources.join("client.mjs"))).unwrap();
                let mut node = Command::new("node");
                node.arg(program);
                node
            }
        };
        let log = std::fs::File::create(installed.join(format!("{}.log", library.name))).unwrap();
        command.args([library.name, &urls.join(",")]).stdout(Stdio::piped()).stderr(log);
        let mut program = Ended(command.spawn().unwrap());
        let lines = BufReader::new(program.0.stdout.take().unwrap()).lines();
        let told = Arc::<Mutex<BTreeMap<usize, Vec<String>>>>::default();
        let tell = told.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Ok(Told { instance, data }) = serde_json::from_str(&line) else { continue };
                tell.lock().unwrap().entry(instance).or_default().push(data.unwrap_or_default());
            }
        });
        Client { library, proxies, told, _program: program }
    }

    /// Whether all its streams have this event.
    fn has(&self, number: usize) -> bool {
        let told = self.told.lock().unwrap();
        let wanted = Topic::data(number);
        (0..INSTANCES).all(|n| told.get(&n).is_some_and(|told| told.contains(&wanted)))
    }

    /// Events lost, repeated or out of order, garbled, and empty, of all its streams.
    fn counts(&self, topic: &Topic) -> [usize; 4] {
        let said = topic.said.load(Ordering::SeqCst);
        let [mut lost, mut repeated, mut garbled, mut empty] = [0; 4];
        for told in self.told.lock().unwrap().values() {
            let mut seen = vec![false; said + 1];
            let mut last = 0;
            for data in told {
                let number = data.split(' ').next().and_then(|word| word.parse().ok());
                match number {
                    Some(number)
                        if (1..=said).contains(&number) && *data == Topic::data(number) =>
                    {
                        repeated += usize::from(seen[number] || number < last);
                        (seen[number], last) = (true, number);
                    }
                    _ if data.is_empty() => empty += 1,
                    _ if data.starts_with(r#"{"type":"connected""#) && data.ends_with("\"}") => {}
                    _ => garbled += 1,
                }
            }
            lost += seen[1..].iter().filter(|seen| !**seen).count();
        }
        [lost, repeated, garbled, empty]
    }
}
