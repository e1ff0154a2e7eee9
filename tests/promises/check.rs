//! `fantail check`: it sees what it is for, and nothing where nothing is.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use fantail_check::{Check, Kind, Outcome, Plan, Verdict};
use serde_json::Value;

use crate::harness::faulty_gateway::{Defect, FaultyGateway};
use crate::harness::nginx::Nginx;
use crate::harness::{Backend, Cluster, Node};

/// Short, and restless enough to come to every node.
fn plan(bases: &[&str]) -> Plan {
    Plan {
        urls: bases.iter().map(|base| base.parse().unwrap()).collect(),
        topics: 4,
        publishers: 3,
        subscribers: 15,
        rate: 300.0,
        duration: Duration::from_millis(1_500),
        roam: Some(Duration::from_millis(300)),
        retry_max: Duration::from_millis(100),
        ..Plan::default()
    }
}

#[tokio::test]
async fn a_healthy_node_keeps_its_promises() {
    let single = Backend::Embedded.start(&[]).await;
    let check = Check::start(plan(&[&single.node.base])).await.unwrap();
    check.until_planned_end().await;
    let progress = check.progress();
    let verdict = check.finish().await;
    assert_eq!(verdict.outcome, Outcome::Kept, "{verdict}");
    let counts = verdict.counts;
    // How many there are is the machine's; more than are due there cannot be.
    assert!(progress.counts.acknowledged > 0 && progress.counts.roams > 0, "{progress:?}");
    assert!((1..=500).contains(&counts.acknowledged), "{verdict}");
    // Nine of the fifteen are there from the start; three of these follow all four topics.
    assert!(counts.delivered >= counts.acknowledged * 4, "{verdict}");
    assert_eq!((counts.unknown, counts.refused, counts.resets, verdict.never_opened), (0, 0, 0, 0));
    assert!(verdict.lags.count() > counts.acknowledged && !verdict.lag_p50.is_zero(), "{verdict}");
}

#[tokio::test]
async fn a_killed_node_breaks_connections_and_no_promise() {
    let mut cluster = Cluster::start(3, &[]).await;
    let bases: Vec<String> = cluster.nodes.iter().map(|node| node.base.clone()).collect();
    let bases: Vec<&str> = bases.iter().map(String::as_str).collect();
    // What the node had published and not answered yet is sent again: that is another promise.
    let check = Check::start(plan(&bases)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.nodes[0].process.kill();
    let fault = Instant::now();
    let after = check.next_delivery_after(fault).await;
    assert!(after < Duration::from_secs(5), "{after:?}");
    check.until_planned_end().await;
    let verdict = check.finish().await;
    assert!(verdict.is_kept(), "{verdict}");
    assert!(verdict.counts.drops > 0 && verdict.counts.retries > 0, "{verdict}");
    assert!(verdict.longest_wait >= Duration::from_millis(1), "{verdict}");
}

#[tokio::test]
async fn a_flushed_log_is_loss_that_was_told_and_its_resets_are_justified() {
    let cluster = Cluster::start(2, &[]).await;
    let bases: Vec<&str> = cluster.nodes.iter().map(|node| node.base.as_str()).collect();
    let check = Check::start(Plan { loss_expected: true, late_joiners: false, ..plan(&bases) })
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.redis.ask::<String>(&["FLUSHALL"]).await;
    check.until_planned_end().await;
    let verdict = check.finish().await;
    assert!(verdict.is_kept(), "{verdict}");
    let counts = verdict.counts;
    assert!(counts.resets >= 15 && counts.resets == counts.resets_justified, "{verdict}");
}

#[tokio::test]
async fn it_speaks_http_2_over_tls_through_a_load_balancer() {
    let single = Backend::Embedded.start(&[]).await;
    let nginx = Nginx::start(&[single.node.address]).await;
    let base = format!("https://{}", nginx.https);
    let few = Plan { subscribers: 5, duration: Duration::from_millis(700), ..plan(&[&base]) };
    let untrusted = Check::start(few.clone()).await.err().map(|why| why.to_string());
    assert!(untrusted.as_ref().is_some_and(|why| why.contains("certificate")), "{untrusted:?}");
    let check = Check::start(Plan { insecure: true, ..few }).await.unwrap();
    check.until_planned_end().await;
    let verdict = check.finish().await;
    assert!(verdict.is_kept(), "{verdict}");
    assert_eq!(verdict.counts.http_2_connections, verdict.counts.connections, "{verdict}");
}

/// Some subscribers of one topic, of whom a faulty_gateway fools one.
async fn verdict_on(defect: Defect, node: &Node) -> Verdict {
    let gateway = FaultyGateway::start(node.address, defect).await;
    let base = format!("http://{}", gateway.address);
    let lied_to = Plan {
        topics: 1,
        publishers: 1,
        // The fourth joins late and wants everything.
        subscribers: if defect == Defect::SkipEarliest { 4 } else { 2 },
        rate: 50.0,
        duration: Duration::from_secs(1),
        roam: None,
        settle: Duration::from_secs(4),
        silence_max: Duration::from_secs(2),
        ..plan(&[&base])
    };
    let check = Check::start(lied_to).await.unwrap();
    check.until_planned_end().await;
    let verdict = check.finish().await;
    assert!(gateway.has_shown(), "{defect:?}: {verdict}");
    verdict
}

#[tokio::test]
async fn every_lie_is_seen_as_what_it_is() {
    let single = Backend::Embedded.start(&[("FANTAIL_HEARTBEAT", "100ms")]).await;
    let defects: [(Defect, &[Kind]); 9] = [
        (Defect::None, &[]),
        (Defect::Drop, &[Kind::Gap, Kind::LostInSilence]),
        (Defect::Double, &[Kind::Duplicate]),
        (Defect::Swap, &[Kind::OutOfOrder]),
        (Defect::Alter, &[Kind::Altered]),
        (Defect::VainReset, &[Kind::SpuriousReset]),
        (Defect::Refuse, &[Kind::FatalAnswer]),
        (Defect::SkipEarliest, &[Kind::Gap]),
        (Defect::Swallow, &[Kind::LostInSilence, Kind::Reordered]),
    ];
    let verdicts = defects.iter().map(|(defect, _)| verdict_on(*defect, &single.node));
    let verdicts = futures_util::future::join_all(verdicts).await;
    for ((defect, kinds), verdict) in defects.iter().zip(verdicts) {
        let seen: Vec<Kind> = verdict.kinds.keys().copied().collect();
        let mut expected = kinds.to_vec();
        expected.sort();
        assert_eq!(seen, expected, "{defect:?}: {verdict}");
        let expected = if kinds.is_empty() { Outcome::Kept } else { Outcome::Violated };
        assert_eq!(verdict.outcome, expected, "{defect:?}: {verdict}");
        let events = match defect {
            Defect::None => 0,
            // Neither subscriber gets it.
            Defect::Swallow => 2,
            _ => 1,
        };
        for kind in kinds.iter().filter(|kind| **kind != Kind::Reordered) {
            let violations = verdict.violations.iter().filter(|violation| violation.kind == *kind);
            assert_eq!(
                violations.map(|violation| violation.events).sum::<u64>(),
                events,
                "{defect:?}"
            );
        }
        for violation in &verdict.violations {
            assert!(!violation.expected.is_empty() && !violation.came.is_empty(), "{violation}");
            assert!(violation.subscriber.is_none() || !violation.recent.is_empty(), "{violation}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_left_and_nothing_is_missed() {
    let single = Backend::Embedded.start(&[("FANTAIL_HEARTBEAT", "100ms")]).await;
    let verdict = verdict_on(Defect::FallSilent, &single.node).await;
    assert!(verdict.is_kept(), "{verdict}");
    assert_eq!(verdict.counts.silent_streams, 1, "{verdict}");
    assert!(verdict.longest_wait >= Duration::from_millis(300), "{verdict}");
}

/// Runs `fantail check` to its end, without keeping the runtime from serving it.
async fn command(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fantail"));
    command.arg("check").args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test]
async fn the_command_ends_with_a_verdict_and_its_status() {
    let single = Backend::Embedded.start(&[]).await;
    let honest = single.node.base.as_str();
    let gateway = FaultyGateway::start(single.node.address, Defect::Double).await;
    let lying = format!("http://{}", gateway.address);
    let dir = crate::harness::process::TempDir::new();
    let evidence = dir.0.join("evidence.jsonl");
    let short = ["--seconds", "1.2", "--subscribers", "5", "--topics", "2", "--roam", "400ms"];
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let arguments =
        |more: &[&'static str], base: &'static str| [&short[..], more, &[base]].concat();
    let (honest, lying): (&'static str, &'static str) = (honest.to_owned().leak(), lying.leak());
    let path: &'static str = evidence.to_str().unwrap().to_owned().leak();
    let (as_text, as_json, violated) = (
        arguments(&["--header", "X-Check: yes"], honest),
        arguments(&["--json", "--quiet"], honest),
        arguments(&["--evidence", path], lying),
    );
    let (as_text, as_json, violated) =
        tokio::join!(command(&as_text), command(&as_json), command(&violated));

    let (out, progress) = (text(&as_text.stdout), text(&as_text.stderr));
    assert_eq!(as_text.status.code(), Some(0), "{out}{progress}");
    assert!(out.contains("KEPT") && out.contains("acknowledged in 1."), "{out}");
    assert!(progress.contains("1 s  ") && progress.contains("0 violations"), "{progress}");

    let verdict: Value = serde_json::from_slice(&as_json.stdout).unwrap();
    assert_eq!(as_json.status.code(), Some(0));
    assert_eq!(verdict["outcome"], "kept");
    assert!(verdict["counts"]["delivered"].as_u64() > verdict["counts"]["acknowledged"].as_u64());
    assert_eq!(text(&as_json.stderr), "");

    let out = text(&violated.stdout);
    assert_eq!(violated.status.code(), Some(1), "{out}");
    assert!(out.contains("VIOLATED: 1 × duplicate") && out.contains("expected  number"), "{out}");
    let lines = std::fs::read_to_string(&evidence).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["kind"]), (1, &Value::from("duplicate")));
    assert!(lines[0]["recent"].as_array().is_some_and(|recent| !recent.is_empty()), "{lines:?}");
}

#[tokio::test]
async fn what_cannot_be_checked_is_told_in_one_line_with_status_2() {
    let port = crate::harness::process::free_port();
    let nobody = format!("http://127.0.0.1:{port}");
    for (arguments, parts) in [
        (&[][..], ["<URL>", "missing"]),
        (&["ftp://a"], ["must be a URL", "http://127.0.0.1:3000"]),
        (&["--rate", "many", "http://a"], ["--rate", "events per second"]),
        (&["--roam", "soon", "http://a"], ["--roam", "\"never\""]),
        (&["--header", "x", "http://a"], ["--header", "Authorization"]),
        (&["--topics", "0", "http://a"], ["topics", "1 to 1000"]),
        (&["--colour", "http://a"], ["--colour", "--help"]),
        (&[&nobody], [&nobody, "does not answer"]),
    ] {
        let output = command(arguments).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(!error.contains("FANTAIL_"), "there are no such variables: {error}");
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }
}
