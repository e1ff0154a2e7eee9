//! What stands around the gateway: the container, the load balancers, the dashboards, the demo.
//!
//! There is no container engine here, so the files are read as their readers would read them, and
//! whatever can run as a plain process does: nginx, HAProxy, and the whole demo.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantail::config::Config;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::Deserialize;
use yaml_serde::Value;

/// After the drain window, the time in which a gateway lets the last bytes leave.
const LAST_BYTES: Duration = Duration::from_secs(3);

#[test]
fn every_yaml_and_json_file_can_be_read() {
    let mut read = 0;
    for path in files() {
        let text = text(&path);
        let path = path.display();
        match path.to_string().rsplit('.').next() {
            Some("yml" | "yaml") => {
                let documents = documents(&text);
                assert!(documents.iter().all(Value::is_mapping), "{path} is not about anything");
            }
            Some("json") => {
                let json: Result<serde_json::Value, _> = serde_json::from_str(&text);
                assert!(json.is_ok(), "{path}: {json:?}");
            }
            _ => continue,
        }
        read += 1;
    }
    assert!(read >= 8, "only {read} files were found");
}

#[test]
fn every_variable_that_is_named_is_a_setting() {
    let settings: BTreeSet<String> =
        Config::reference().into_iter().map(|[_, variable, ..]| variable).collect();
    let mut named = BTreeSet::new();
    for path in files() {
        for variable in words(&text(&path), "FANTAIL_", |c| c.is_ascii_uppercase() || c == '_') {
            // The scripts' own, which each script explains in its first lines.
            let of_scripts = ["FANTAIL_BINARY", "FANTAIL_DEMO_", "FANTAIL_LOAD_"];
            if of_scripts.iter().any(|prefix| variable.starts_with(prefix)) {
                continue;
            }
            assert!(settings.contains(&variable), "{}: {variable} is not known", path.display());
            named.insert(variable);
        }
    }
    assert!(named.contains("FANTAIL_REDIS_URL") && named.contains("FANTAIL_DRAIN"), "{named:?}");
}

#[test]
fn what_containers_are_told_is_what_the_gateway_accepts() {
    for (file, environment) in
        [("docker-compose.yml", compose_environment()), ("fantail.yaml", kubernetes_environment())]
    {
        assert!(environment.iter().any(|(name, _)| name == "FANTAIL_REDIS_URL"), "{file}");
        let mut arguments = vec!["fantail".to_owned()];
        for (variable, value) in environment {
            let setting = Config::reference().into_iter().find(|setting| setting[1] == variable);
            let Some([flag, ..]) = setting else { panic!("{file}: {variable} is not known") };
            arguments.extend([flag, value]);
        }
        let config = Config::from_arguments(&arguments);
        let config = config.unwrap_or_else(|error| panic!("{file}: {arguments:?}: {error}"));
        assert_eq!(config.check_relations(), Ok(()), "{file}: {arguments:?}");
        let url = config.redis_url.expect("there is one");
        assert_eq!(fantail::log::redis::check_url(&url), Ok(()), "{file}");
    }
}

#[test]
fn whatever_stops_a_gateway_waits_for_its_drain() {
    let drain = |environment: Vec<(String, String)>| {
        let drain = environment.into_iter().find(|(name, _)| name == "FANTAIL_DRAIN");
        seconds(&drain.expect("FANTAIL_DRAIN is set").1)
    };
    let gateway = &compose()["services"]["gateway"];
    let grace = seconds(gateway["stop_grace_period"].as_str().unwrap());
    assert!(grace > drain(compose_environment()) + LAST_BYTES);

    let pod = &kubernetes("Deployment", "fantail")["spec"]["template"]["spec"];
    let grace = Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().unwrap());
    let before_stop = &pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"];
    assert_eq!(before_stop[0], "sleep");
    let before_stop: u64 = before_stop[1].as_str().unwrap().parse().unwrap();
    let stopping = Duration::from_secs(before_stop) + drain(kubernetes_environment()) + LAST_BYTES;
    assert!(grace > stopping);
}

#[test]
fn no_proxy_takes_the_silence_between_two_heartbeats_for_the_end() {
    let heartbeat = Config::reference().into_iter().find(|setting| setting[0] == "--heartbeat");
    let heartbeat = seconds(&heartbeat.unwrap()[2]);
    let locations = text(&top().join("deploy/nginx/common/locations.conf"));
    let stream = locations.split("location").find(|part| part.contains("fantail_streams")).unwrap();
    let haproxy = text(&top().join("deploy/haproxy/haproxy.cfg"));
    let timeouts = ["proxy_read_timeout ", "send_timeout ", "timeout server ", "timeout client "]
        .map(|name| (name, if name.contains("_") { stream } else { &haproxy }));
    for (name, text) in timeouts {
        let (_, rest) = text.split_once(name).unwrap_or_else(|| panic!("{name}is not set"));
        let value = rest.split([';', '\n']).next().unwrap();
        assert!(seconds(value) > 2 * heartbeat, "{name}{value}");
    }
}

#[test]
fn every_metric_that_is_shown_or_alerts_exists() {
    let telemetry = text(&top().join("src/telemetry.rs"));
    let lower = |c: char| c.is_ascii_lowercase() || c == '_';
    let known: BTreeSet<String> = words(&telemetry, "\"fantail_", lower)
        .map(|word| word.trim_start_matches('"').to_owned())
        .collect();
    let mut shown = BTreeSet::new();
    for file in [
        "deploy/grafana/dashboards/fantail.json",
        "deploy/prometheus/alerts.yml",
        "deploy/load/run.sh",
    ] {
        for word in words(&text(&top().join(file)), "fantail_", lower) {
            let histogram = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|suffix| word.strip_suffix(suffix).filter(|name| known.contains(*name)));
            let name = histogram.unwrap_or(&word);
            // The bare prefix, as scripts use it to filter.
            assert!(name == "fantail_" || known.contains(name), "{file}: {word} is not measured");
            shown.insert(name.to_owned());
        }
    }
    shown.remove("fantail_");
    let unseen: Vec<_> = known.difference(&shown).collect();
    assert!(unseen.is_empty(), "nobody looks at {unseen:?}");
}

#[test]
fn the_image_runs_as_nobody_special_and_checks_its_health() {
    let dockerfile = text(&top().join("deploy/Dockerfile"));
    let last_stage = dockerfile.rsplit("\nFROM ").next().unwrap();
    let instruction = |name: &str| {
        let line = last_stage.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name}in the last stage")).to_owned()
    };
    let user = instruction("USER ");
    let user = user.split(':').next().unwrap();
    assert!(user.parse::<u32>().is_ok_and(|id| id > 0), "{user}");
    assert!(instruction("HEALTHCHECK ").contains(r#"CMD ["fantail", "health"]"#));
    assert_eq!(instruction("STOPSIGNAL "), "SIGTERM");
    assert_eq!(instruction("ENV "), "FANTAIL_LISTEN=0.0.0.0:3000");
}

#[test]
fn the_health_check_of_the_image_tells_a_gateway_that_answers_from_one_that_is_gone() {
    let binary = env!("CARGO_BIN_EXE_fantail");
    let mut gateway = Command::new(binary)
        .args(["serve", "--listen", "127.0.0.1:0"])
        .env_remove("FANTAIL_REDIS_URL")
        .env_remove("FANTAIL_LOG")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(gateway.stderr.take().unwrap()).lines();
    let address = lines.find_map(|line| {
        let line = line.ok()?;
        let at = line.find("listening on http://")?;
        Some(line[at + 20..].split(' ').next()?.to_owned())
    });
    let health = |address: &str| {
        let output = Command::new(binary).arg("health").env("FANTAIL_LISTEN", address).output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let alive = address.as_deref().map(health);
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    let address = address.expect("the gateway says where it listens");
    assert_eq!(alive.unwrap(), (Some(0), String::new()));
    let (status, line) = health(&address);
    assert_eq!(status, Some(1));
    assert!(line.starts_with("fantail: ") && line.contains("/healthz"), "{line}");
}

#[test]
fn nginx_accepts_its_configuration() {
    need(&["nginx", "openssl"]);
    let output = Command::new(top().join("deploy/demo.sh")).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn haproxy_accepts_its_configuration_and_tells_streams_to_come_back_when_no_node_is_there() {
    need(&["haproxy"]);
    let file = top().join("deploy/haproxy/haproxy.cfg");
    let output = haproxy().arg("-c").arg("-f").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // The same without containers: a port of its own, and nodes at an address where nobody is.
    let port = free_port();
    let configuration: String = text(&file)
        .lines()
        .map(|line| match line.trim() {
            "bind :8080" => format!("    bind 127.0.0.1:{port}\n"),
            trimmed if trimmed.starts_with("server-template") => {
                "    server gone 127.0.0.1:1 check\n".to_owned()
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let directory = Directory::new("haproxy");
    let file = directory.0.join("haproxy.cfg");
    std::fs::write(&file, configuration).unwrap();
    let mut haproxy = haproxy();
    haproxy.arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let _haproxy = Ended(haproxy.spawn().unwrap());

    let url = format!("http://127.0.0.1:{port}");
    until("HAProxy listens", async || reqwest::get(&url).await.is_ok()).await;
    assert_told_to_come_back(&url).await;
    for path in ["/tasks", "/topics/news/events"] {
        assert_eq!(post(&url, path, r#"{"data":1}"#).await, 503, "{path}");
    }
}

#[tokio::test]
async fn the_demo_delivers_through_nginx_and_tells_streams_to_come_back_while_no_node_is_there() {
    need(&["redis-server", "nginx", "openssl", "curl"]);
    let mut demo = Demo::start();
    let url = demo.http.clone();

    // A task arrives on a stream; both came through nginx.
    let mut stream = reqwest::get(format!("{url}/boards/board-1/events")).await.unwrap();
    let head = read_until(&mut stream, "connected").await;
    let id = head.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    let task = r#"{"title":"Through nginx","listId":"list-todo"}"#;
    assert_eq!(post(&url, "/tasks", task).await, 201);
    let entry = read_until(&mut stream, "Through nginx").await;
    assert!(entry.contains("event: task_created"), "{entry}");
    let mut curl = Command::new("curl");
    curl.args(["-sk", "-o", "/dev/null", "-w", "%{http_version} %{http_code}"]);
    let output = curl.arg(format!("{}/boards/board-1", demo.https)).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2 200");

    // One node is lost: nobody who opens a stream notices.
    signal(demo.nodes[1], Signal::KILL);
    for _ in 0..6 {
        let mut stream = reqwest::get(format!("{url}/boards/board-1/events")).await.unwrap();
        assert!(!read_until(&mut stream, "connected").await.contains("node-2"));
    }

    // All are lost: streams hear when to come back, writers hear the truth.
    for &node in &demo.nodes {
        signal(node, Signal::KILL);
    }
    until("the nodes are gone", async || !demo.nodes.iter().any(|&node| exists(node))).await;
    assert_told_to_come_back(&url).await;
    for path in ["/tasks", "/topics/news/events"] {
        assert_eq!(post(&url, path, r#"{"data":1}"#).await, 502, "{path}");
    }

    // They come back, and so does the stream: where it was.
    signal(demo.child.id(), Signal::USR1);
    for node in &demo.urls {
        until("all nodes are back", async || {
            reqwest::get(format!("{node}/readyz")).await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }
    let resumed = reqwest::Client::new()
        .get(format!("{url}/boards/board-1/events"))
        .header("Last-Event-ID", &id)
        .send();
    let replayed = read_until(&mut resumed.await.unwrap(), "Through nginx").await;
    assert!(!replayed.contains("event: reset"), "{replayed}");

    // New streams are spread over all of them, at once.
    let (mut streams, mut heads) = (Vec::new(), String::new());
    for _ in 0..9 {
        let mut stream = reqwest::get(format!("{url}/boards/board-1/events")).await.unwrap();
        heads += &read_until(&mut stream, "connected").await;
        streams.push(stream);
    }
    for node in ["node-1", "node-2", "node-3"] {
        assert!(heads.matches(node).count() >= 2, "{node} gets no streams: {heads}");
    }

    // It ends, and leaves nothing behind.
    signal(demo.child.id(), Signal::TERM);
    let status = demo.ended_within(Duration::from_secs(10)).expect("the demo ends when told to");
    assert_eq!(status.code(), Some(143));
    assert!(!demo.directory.exists());
    assert!(!exists(demo.nginx) && !exists(demo.redis), "the demo left processes behind");
}

/// Every stream's address gives 200 and a time to wait, and not everybody the same.
async fn assert_told_to_come_back(url: &str) {
    let mut waits = BTreeSet::new();
    for path in ["/boards/board-1/events", "/events?boards=board-1", "/topics/a%2Fb/events"] {
        for _ in 0..12 {
            let request = reqwest::Client::new().get(format!("{url}{path}"));
            let answer = request.header("Origin", "https://app.example").send().await.unwrap();
            assert_eq!(answer.status(), 200, "{path}");
            let header = |name| answer.headers()[name].to_str().unwrap().to_owned();
            assert!(header("content-type").starts_with("text/event-stream"));
            assert!(header("cache-control").contains("no-cache"));
            assert_eq!(header("access-control-allow-origin"), "https://app.example");
            let body = answer.text().await.unwrap();
            let wait = body.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\n\n"));
            let wait = wait.and_then(|wait| wait.parse::<u64>().ok());
            let wait = wait.unwrap_or_else(|| panic!("{path}: {body:?}"));
            assert!((1000..=6000).contains(&wait), "{wait}");
            waits.insert(wait);
        }
    }
    assert!(waits.len() > 1, "all clients would come back at once: {waits:?}");
}

/// A running demo; it ends when this is dropped, however a test ends.
struct Demo {
    child: Child,
    http: String,
    https: String,
    nodes: Vec<u32>,
    urls: Vec<String>,
    nginx: u32,
    redis: u32,
    directory: PathBuf,
}

impl Demo {
    fn start() -> Demo {
        let mut child = Command::new(top().join("deploy/demo.sh"))
            .env("FANTAIL_BINARY", env!("CARGO_BIN_EXE_fantail"))
            // Even if this process is killed, the demo ends some time.
            .env("FANTAIL_DEMO_SECONDS", "120")
            .env("FANTAIL_DEMO_PORTS", "free")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        let words: Vec<&str> = ready.split_whitespace().collect();
        let word = |name: &str| {
            let value = words.iter().find_map(|word| word.strip_prefix(name));
            value.unwrap_or_else(|| panic!("the demo did not say {name} but {ready:?}"))
        };
        let id = |text: &str| text.rsplit(':').next().unwrap().parse().unwrap();
        Demo {
            http: words[1].to_owned(),
            https: words[2].to_owned(),
            nodes: word("pids=").split(',').map(id).collect(),
            urls: word("nodes=").split(',').map(str::to_owned).collect(),
            nginx: id(word("nginx=")),
            redis: id(word("redis=")),
            directory: word("directory=").into(),
            child,
        }
    }

    fn ended_within(&mut self, time: Duration) -> Option<std::process::ExitStatus> {
        let began_at = Instant::now();
        while began_at.elapsed() < time {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        signal(self.child.id(), Signal::TERM);
        if self.ended_within(Duration::from_secs(10)).is_none() {
            // It hangs, so it cannot do this itself.
            for &pid in self.nodes.iter().chain([&self.nginx, &self.redis]) {
                signal(pid, Signal::KILL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// A process that ends when this is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory that is removed when this is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("fantail-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Reads a stream until it has said `part`; a minute at most.
async fn read_until(stream: &mut reqwest::Response, part: &str) -> String {
    let mut text = String::new();
    let read = async {
        while !text.contains(part) {
            match stream.chunk().await.unwrap() {
                Some(chunk) => text.push_str(&String::from_utf8_lossy(&chunk)),
                None => break,
            }
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), read).await.is_ok();
    assert!(in_time && text.contains(part), "no {part:?} in {text:?}");
    text
}

async fn post(url: &str, path: &str, body: &str) -> u16 {
    let request = reqwest::Client::new().post(format!("{url}{path}"));
    let request = request.header("Content-Type", "application/json").body(body.to_owned());
    request.send().await.unwrap().status().as_u16()
}

/// Asks again and again, for a minute at most.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began_at = Instant::now();
    while !is_so().await {
        assert!(began_at.elapsed() < Duration::from_secs(60), "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn pid(id: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(id).ok()?)
}

fn signal(id: u32, signal: Signal) {
    if let Some(pid) = pid(id) {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

fn exists(id: u32) -> bool {
    pid(id).is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// Fails at once where a program is missing: a test that is left out in silence proves nothing.
fn need(programs: &[&str]) {
    let path = std::env::var("PATH").unwrap_or_default();
    for program in programs {
        let mut places = path.split(':').chain(["/usr/sbin"]);
        let there = places.any(|at| Path::new(at).join(program).is_file());
        assert!(there, "{program} is not installed: tests/require.sh says how");
    }
}

/// Debian keeps it where not everybody looks.
fn haproxy() -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("haproxy");
    command.env("PATH", format!("{path}:/usr/sbin"));
    command
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of the deployment.
fn files() -> Vec<PathBuf> {
    let mut files = vec![top().join("docker-compose.yml"), top().join("Makefile")];
    let mut directories = vec![top().join("deploy")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { directories.push(path) } else { files.push(path) }
        }
    }
    files
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Words of `text` that begin with `prefix` and go on with letters that `belong`.
fn words<'a>(
    text: &'a str,
    prefix: &'a str,
    belongs: impl Fn(char) -> bool + 'a,
) -> impl Iterator<Item = String> + 'a {
    text.match_indices(prefix).filter_map(move |(at, _)| {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
            return None;
        }
        let rest = &text[at + prefix.len()..];
        let length = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        Some(format!("{prefix}{}", &rest[..length]))
    })
}

fn seconds(text: &str) -> Duration {
    humantime::parse_duration(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn documents(text: &str) -> Vec<Value> {
    let documents = yaml_serde::Deserializer::from_str(text);
    documents.map(|document| Value::deserialize(document).unwrap()).collect()
}

fn compose() -> Value {
    documents(&text(&top().join("docker-compose.yml"))).remove(0)
}

fn compose_environment() -> Vec<(String, String)> {
    let compose = compose();
    let environment = compose["services"]["gateway"]["environment"].as_mapping().unwrap();
    let pairs = environment.iter().map(|(name, value)| {
        (name.as_str().unwrap().to_owned(), value.as_str().unwrap().to_owned())
    });
    pairs.collect()
}

fn kubernetes(kind: &str, name: &str) -> Value {
    let documents = documents(&text(&top().join("deploy/kubernetes/fantail.yaml")));
    let mut found = documents
        .into_iter()
        .filter(|document| document["kind"] == kind && document["metadata"]["name"] == name);
    found.next().unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// Those with a value; others come from the cluster.
fn kubernetes_environment() -> Vec<(String, String)> {
    let deployment = kubernetes("Deployment", "fantail");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let environment = container["env"].as_sequence().unwrap().iter();
    let pairs = environment.filter_map(|variable| {
        let name = variable["name"].as_str()?.to_owned();
        Some((name, variable["value"].as_str()?.to_owned()))
    });
    pairs.collect()
}
