//! Who Redis is and who a node is there: certificates and passwords that are right, wrong, renewed.
//!
//! Whatever is wrong is one sentence in the log of a node that holds its streams, tries again with
//! patience, and goes on by itself as soon as it is mended, on whichever side.

use std::process::Command;
use std::time::Duration;

use crate::harness::certificates::{Authority, Certified};
use crate::harness::process::{TempDir, free_port};
use crate::harness::{Node, Redis, Stream, until, within};

/// A Redis that speaks TLS, and the files on both sides.
struct Place {
    dir: TempDir,
    authority: Authority,
    redis: Redis,
    tls_port: u16,
}

/// What Redis wants of its clients.
#[derive(Clone, Copy)]
enum Clients {
    Anybody,
    WithCertificate,
}

impl Place {
    async fn start(clients: Clients) -> Place {
        let authority = Authority::new();
        Place::start_with(clients, authority.server(&["localhost"]), authority).await
    }

    async fn start_with(clients: Clients, server: Certified, authority: Authority) -> Place {
        let dir = TempDir::new();
        authority.write(&dir.0, "ca");
        server.write(&dir.0, "server");
        let file = |name: &str| dir.0.join(name).to_str().unwrap().to_owned();
        let tls_port = free_port();
        let redis = Redis::start_with(&[
            "--tls-port",
            &tls_port.to_string(),
            "--tls-cert-file",
            &file("server.pem"),
            "--tls-key-file",
            &file("server.key"),
            "--tls-ca-cert-file",
            &file("ca.pem"),
            "--tls-auth-clients",
            match clients {
                Clients::Anybody => "no",
                Clients::WithCertificate => "yes",
            },
        ])
        .await;
        let _: String = redis
            .ask(&["ACL", "SETUSER", "app", "on", ">hunter2", "+@all", "-@admin", "~*", "&*"])
            .await;
        Place { dir, authority, redis, tls_port }
    }

    fn file(&self, name: &str) -> String {
        self.dir.0.join(name).to_str().unwrap().to_owned()
    }

    /// Redis shows another certificate from now on, and everybody has to look at it.
    async fn show(&self, server: &Certified) {
        server.write(&self.dir.0, "server");
        let _: String = self
            .redis
            .ask(&[
                "CONFIG",
                "SET",
                "tls-cert-file",
                &self.file("server.pem"),
                "tls-key-file",
                &self.file("server.key"),
            ])
            .await;
        self.disconnect().await;
    }

    async fn disconnect(&self) {
        for kind in ["pubsub", "normal"] {
            let _: u64 = self.redis.ask(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await;
        }
    }

    async fn node(&self, files: &[(&str, &str)]) -> Node {
        let url = format!("rediss://app:hunter2@localhost:{}", self.tls_port);
        let files: Vec<(&str, String)> =
            files.iter().map(|(setting, name)| (*setting, self.file(name))).collect();
        let mut settings: Vec<(&str, &str)> =
            files.iter().map(|(setting, file)| (*setting, file.as_str())).collect();
        settings.push(("FANTAIL_LOG", "trace"));
        Node::start_at("node-1", "127.0.0.1:0", Some(&url), &settings).await
    }
}

const CA: (&str, &str) = ("FANTAIL_REDIS_CA", "ca.pem");
const CERT: (&str, &str) = ("FANTAIL_REDIS_CERT", "client.pem");
const KEY: (&str, &str) = ("FANTAIL_REDIS_KEY", "client.key");

async fn until_ready(node: &Node) {
    until("it is ready", async || {
        let ready = node.send("GET", "/readyz", None).await;
        (ready.status == 200 && ready.body["status"] == "ready").then_some(())
    })
    .await;
}

/// It publishes, and what is published arrives.
async fn works(node: &Node, stream: &mut Stream) {
    until("it publishes", async || {
        let event = serde_json::json!({ "data": "x" });
        (node.send("POST", "/topics/t/events", Some(event)).await.status == 201).then_some(())
    })
    .await;
    assert_eq!(stream.event().await.data, "x");
}

/// It says this once, names the server, holds streams, tells nobody its password, and is patient.
async fn holds(node: &Node, sentence: &str) {
    until(&format!("it says {sentence:?}"), async || {
        node.log().iter().any(|line| line.contains(sentence)).then_some(())
    })
    .await;
    let held = Stream::request(node.address, "/topics/held/events", "").await;
    assert_eq!(held.status, 200);
    drop(held);
    let answer = node.send("POST", "/topics/t/events", Some(serde_json::json!({"data": 1}))).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let log = node.log();
    let warnings: Vec<_> = log.iter().filter(|line| line.contains("WARN")).collect();
    assert!(warnings.len() <= 2, "{warnings:#?}");
    assert!(!format!("{log:?}{answer:?}").contains("hunter2"), "{log:#?}");
}

#[tokio::test]
async fn a_redis_with_a_certificate_of_its_own_ca_is_trusted_by_that_ca_alone() {
    let place = Place::start(Clients::Anybody).await;
    let node = place.node(&[CA]).await;
    until_ready(&node).await;
    let mut stream = Stream::open(node.address, "/topics/t/events").await;
    works(&node, &mut stream).await;

    // Another CA: neither that of the certificate nor those that the system trusts.
    Authority::new().write(&place.dir.0, "other");
    let strict = place.node(&[("FANTAIL_REDIS_CA", "other.pem")]).await;
    holds(&strict, "the certificate of Redis is signed by nobody who is trusted here").await;
    // The file is mended where it lies.
    place.authority.write(&place.dir.0, "other");
    until_ready(&strict).await;
    let mut stream = Stream::open(strict.address, "/topics/t/events").await;
    works(&strict, &mut stream).await;
}

#[tokio::test]
async fn a_certificate_of_redis_that_is_over_or_for_another_is_told_until_there_is_a_right_one() {
    let authority = Authority::new();
    let expired = authority.expired_server(&["localhost"]);
    let place = Place::start_with(Clients::Anybody, expired, authority).await;
    let node = place.node(&[CA]).await;
    holds(&node, "the certificate of Redis has expired").await;
    place.show(&place.authority.server(&["localhost"])).await;
    until_ready(&node).await;
    let mut stream = Stream::open(node.address, "/topics/t/events").await;
    works(&node, &mut stream).await;

    // While it runs, too: what is open goes on as long as nobody cuts it.
    place.show(&place.authority.server(&["redis.example"])).await;
    let sentence = "the certificate of Redis is not for the host of FANTAIL_REDIS_URL";
    until("it says so", async || {
        node.log().iter().any(|line| line.contains(sentence)).then_some(())
    })
    .await;
    place.show(&place.authority.server(&["redis.example", "localhost"])).await;
    until_ready(&node).await;
    works(&node, &mut stream).await;
}

#[tokio::test]
async fn a_redis_that_demands_certificates_takes_the_right_one_and_no_other() {
    let place = Place::start(Clients::WithCertificate).await;
    let without = place.node(&[CA]).await;
    holds(&without, "Redis wants a certificate of this node (FANTAIL_REDIS_CERT").await;

    // One of somebody else, then one whose time is over, then the right one: each where the node
    // looks for it.
    Authority::new().client("node").write(&place.dir.0, "client");
    let node = place.node(&[CA, CERT, KEY]).await;
    holds(&node, "Redis does not accept the certificate of FANTAIL_REDIS_CERT").await;
    place.authority.expired_client("node").write(&place.dir.0, "client");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node.send("GET", "/readyz", None).await.status, 503);
    place.authority.client("node").write(&place.dir.0, "client");
    until_ready(&node).await;
    let mut stream = Stream::open(node.address, "/topics/t/events").await;
    works(&node, &mut stream).await;

    // A key that is not that of the certificate: not even asked with, and told as what it is.
    place.authority.client("node").write(&place.dir.0, "next");
    std::fs::rename(place.file("next.key"), place.file("client.key")).unwrap();
    place.disconnect().await;
    until("it says so", async || {
        let says = |line: &String| line.contains("is not the key of the certificate");
        node.log().iter().any(says).then_some(())
    })
    .await;
    std::fs::rename(place.file("next.pem"), place.file("client.pem")).unwrap();
    until_ready(&node).await;
    works(&node, &mut stream).await;
}

#[tokio::test]
async fn a_redis_without_tls_and_one_with_it_are_not_mistaken_for_each_other() {
    let place = Place::start(Clients::Anybody).await;
    let url = format!("rediss://app:hunter2@localhost:{}", place.redis.port());
    let ca = place.file("ca.pem");
    let settings = [("FANTAIL_REDIS_CA", &*ca), ("FANTAIL_LOG", "trace")];
    let node = Node::start_at("node-1", "127.0.0.1:0", Some(&url), &settings).await;
    // Redis waits for the end of what it takes for a command.
    holds(&node, "not hearing announcements").await;
    let url = format!("redis://app:hunter2@localhost:{}", place.tls_port);
    let settings = [("FANTAIL_LOG", "trace")];
    let node = Node::start_at("node-1", "127.0.0.1:0", Some(&url), &settings).await;
    holds(&node, "not hearing announcements").await;
}

#[tokio::test]
async fn over_tls_a_subscription_that_was_cut_is_mended_and_nothing_is_lost() {
    let place = Place::start(Clients::WithCertificate).await;
    place.authority.client("node").write(&place.dir.0, "client");
    let node = place.node(&[CA, CERT, KEY]).await;
    until_ready(&node).await;
    let mut stream = Stream::open(node.address, "/topics/t/events").await;
    for n in 1..=60 {
        if n % 20 == 0 {
            let _: u64 = place.redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        }
        let id = node.publish("t", n).await;
        assert_eq!(stream.event().await.id, id);
    }
    assert!(node.metric("fantail_redis_reconnects_total", "").await >= 1.0);
}

#[tokio::test]
async fn over_tls_a_redis_that_was_away_or_silent_is_found_again() {
    let mut place = Place::start(Clients::Anybody).await;
    let node = place.node(&[CA]).await;
    until_ready(&node).await;
    let mut stream = Stream::open(node.address, "/topics/t/events").await;
    works(&node, &mut stream).await;
    place.redis.freeze();
    until("the silence is noticed", async || {
        (node.metric("fantail_redis_up", "").await == 0.0).then_some(())
    })
    .await;
    place.redis.thaw();
    until_ready(&node).await;
    works(&node, &mut stream).await;
    place.redis.kill();
    until("the end is noticed", async || {
        (node.metric("fantail_redis_up", "").await == 0.0).then_some(())
    })
    .await;
    place.redis.restart().await;
    // Its users are gone with it, as is its log.
    let _: String = place
        .redis
        .ask(&["ACL", "SETUSER", "app", "on", ">hunter2", "+@all", "-@admin", "~*", "&*"])
        .await;
    until_ready(&node).await;
    until("it publishes", async || {
        let event = serde_json::json!({ "data": "again" });
        (node.send("POST", "/topics/t/events", Some(event)).await.status == 201).then_some(())
    })
    .await;
    assert_eq!(within("the reset", stream.event()).await.kind, "reset");
    assert_eq!(stream.event().await.data, "again");
}

#[tokio::test]
async fn a_password_of_a_file_is_read_again_when_it_was_changed() {
    let dir = TempDir::new();
    let file = dir.0.join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    let redis = Redis::start().await;
    let set = async |password: &str| {
        let password = format!(">{password}");
        let rules = ["+@all", "-@admin", "~*", "&*"];
        let user = [&["ACL", "SETUSER", "app", "on", "resetpass", &password], &rules[..]].concat();
        let _: String = redis.ask(&user).await;
        for kind in ["pubsub", "normal"] {
            let _: u64 = redis.ask(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await;
        }
    };
    set("hunter2").await;
    let url = format!("redis://app@127.0.0.1:{}", redis.port());
    let path = file.to_str().unwrap();
    let settings = [("FANTAIL_REDIS_PASSWORD_FILE", path), ("FANTAIL_LOG", "trace")];
    let node = Node::start_at("node-1", "127.0.0.1:0", Some(&url), &settings).await;
    until_ready(&node).await;
    let mut stream = Stream::open(node.address, "/topics/t/events").await;
    works(&node, &mut stream).await;

    set("hunter3").await;
    let sentence = "Redis refuses the user or the password";
    until("it says that the password is wrong now", async || {
        node.log().iter().any(|line| line.contains(sentence)).then_some(())
    })
    .await;
    std::fs::write(&file, "hunter3").unwrap();
    until_ready(&node).await;
    works(&node, &mut stream).await;

    // A file that is gone is told as what it is; what is connected goes on until it is cut.
    std::fs::remove_file(&file).unwrap();
    works(&node, &mut stream).await;
    set("hunter4").await;
    until("it says that there is no file", async || {
        let says = |line: &String| {
            line.contains("FANTAIL_REDIS_PASSWORD_FILE") && line.contains("cannot be read")
        };
        node.log().iter().any(says).then_some(())
    })
    .await;
    std::fs::write(&file, "hunter4\r\n").unwrap();
    until_ready(&node).await;
    works(&node, &mut stream).await;

    let ready = node.send("GET", "/readyz", None).await;
    let metrics = node.get("/metrics").await;
    let command_line = std::fs::read(format!("/proc/{}/cmdline", node.process.pid())).unwrap();
    let command_line = String::from_utf8_lossy(&command_line);
    let said = format!("{:?} {ready:?} {metrics} {command_line}", node.log());
    assert!(!said.contains("hunter"), "{said}");
}

/// Its HELLO, of which AUTH is a part, is unknown there, and Redis repeats what it does not know.
#[tokio::test]
async fn a_redis_that_repeats_what_it_was_told_does_not_get_the_password_into_the_log() {
    let redis = Redis::start_with(&["--rename-command", "HELLO", ""]).await;
    let url = format!("redis://:hunter2@127.0.0.1:{}", redis.port());
    let settings = [("FANTAIL_LOG", "trace")];
    let mut node = Node::start_at("node-1", "127.0.0.1:0", Some(&url), &settings).await;
    let answer = node.send("POST", "/topics/t/events", Some(serde_json::json!({"data": 1}))).await;
    assert_eq!(answer.status, 503);
    let ready = node.send("GET", "/readyz", None).await;
    until("it has said something", async || {
        node.log().iter().any(|line| line.contains("HELLO")).then_some(())
    })
    .await;
    let said = format!("{:?} {answer:?} {ready:?}", node.log());
    assert!(!said.contains("hunter2"), "{said}");
    node.process.kill();
}

/// The line that a start with these settings ends with.
fn refused(arguments: &[&str], settings: &[(&str, &str)]) -> String {
    let ended = Command::new(env!("CARGO_BIN_EXE_fantail"))
        .args(arguments)
        .env_clear()
        .env("FANTAIL_LISTEN", "127.0.0.1:0")
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{settings:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn files_that_cannot_do_are_refused_at_the_start_in_one_sentence() {
    let dir = TempDir::new();
    let authority = Authority::new();
    authority.write(&dir.0, "ca");
    authority.client("node").write(&dir.0, "client");
    authority.client("node").write(&dir.0, "other");
    let file = |name: &str| dir.0.join(name).to_str().unwrap().to_owned();
    std::fs::write(file("empty"), "").unwrap();
    std::fs::write(file("newline"), "\n").unwrap();
    std::fs::write(file("latin"), b"gr\xfc\xdfe").unwrap();
    std::fs::write(file("password"), "hunter2\n").unwrap();
    std::fs::write(file("broken"), "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")
        .unwrap();
    let nonsense = "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n";
    std::fs::write(file("nonsense"), nonsense).unwrap();
    let nonsense = nonsense.replace("CERTIFICATE", "PRIVATE KEY");
    std::fs::write(file("nonsense.key"), nonsense).unwrap();
    let (secure, plain) = ("rediss://app@h", "redis://app@h");
    for (url, files, told) in [
        (secure, &[("FANTAIL_REDIS_CA", "none")][..], ["FANTAIL_REDIS_CA", "cannot be read"]),
        (secure, &[("FANTAIL_REDIS_CA", "empty")], ["FANTAIL_REDIS_CA", "no certificate"]),
        (secure, &[("FANTAIL_REDIS_CA", "client.key")], ["FANTAIL_REDIS_CA", "no certificate"]),
        (secure, &[("FANTAIL_REDIS_CA", "broken")], ["FANTAIL_REDIS_CA", "not PEM"]),
        (secure, &[("FANTAIL_REDIS_CA", "nonsense")], ["FANTAIL_REDIS_CA", "cannot be"]),
        (plain, &[CA], ["FANTAIL_REDIS_CA", "rediss://"]),
        (plain, &[CERT, KEY], ["FANTAIL_REDIS_CERT", "rediss://"]),
        (secure, &[CERT], ["FANTAIL_REDIS_CERT", "FANTAIL_REDIS_KEY"]),
        (secure, &[KEY], ["FANTAIL_REDIS_KEY", "FANTAIL_REDIS_CERT"]),
        (
            secure,
            &[CERT, ("FANTAIL_REDIS_KEY", "other.key")],
            ["FANTAIL_REDIS_KEY", "not the key of the certificate"],
        ),
        (
            secure,
            &[CERT, ("FANTAIL_REDIS_KEY", "client.pem")],
            ["FANTAIL_REDIS_KEY", "no private key"],
        ),
        (
            secure,
            &[CERT, ("FANTAIL_REDIS_KEY", "nonsense.key")],
            ["FANTAIL_REDIS_KEY", "cannot be used"],
        ),
        (
            secure,
            &[("FANTAIL_REDIS_CERT", "nonsense"), KEY],
            ["FANTAIL_REDIS_CERT", "cannot be read"],
        ),
        (plain, &[("FANTAIL_REDIS_PASSWORD_FILE", "none")], ["PASSWORD_FILE", "cannot be read"]),
        (plain, &[("FANTAIL_REDIS_PASSWORD_FILE", "empty")], ["PASSWORD_FILE", "no password"]),
        (plain, &[("FANTAIL_REDIS_PASSWORD_FILE", "newline")], ["PASSWORD_FILE", "no password"]),
        (plain, &[("FANTAIL_REDIS_PASSWORD_FILE", "latin")], ["PASSWORD_FILE", "UTF-8"]),
        (
            "redis://app:hunter2@h",
            &[("FANTAIL_REDIS_PASSWORD_FILE", "password")],
            ["PASSWORD_FILE", "both"],
        ),
    ] {
        let files: Vec<(&str, String)> = files.iter().map(|(name, f)| (*name, file(f))).collect();
        let mut settings: Vec<(&str, &str)> =
            files.iter().map(|(name, file)| (*name, file.as_str())).collect();
        settings.push(("FANTAIL_REDIS_URL", url));
        let line = refused(&[], &settings);
        for part in told {
            assert!(line.contains(part), "{part:?} is not in {line}");
        }
        assert!(!line.contains("hunter2") && !line.contains("aHVudGVy"), "{line}");
    }
    let line = refused(&[], &[("FANTAIL_REDIS_CA", &file("ca.pem"))]);
    assert!(line.contains("needs --redis-url"), "{line}");
}

#[tokio::test]
async fn a_password_in_the_arguments_is_warned_of_loudly() {
    let mut node = Command::new(env!("CARGO_BIN_EXE_fantail"))
        .args(["--redis-url", "redis://:hunter2@127.0.0.1:1", "--drain", "0s"])
        .env_clear()
        .env("FANTAIL_LISTEN", "127.0.0.1:0")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(node.stderr.take().unwrap()));
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("WARN") && first.contains("--redis-url"), "{first}");
    assert!(first.contains("ps") && !first.contains("hunter2"), "{first}");
    // It hears signals by then.
    assert!(lines.any(|line| line.unwrap().contains("listening on")));
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&node),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    node.wait().unwrap();
}
