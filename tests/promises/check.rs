//! `fantail check`: it sees what it is for, and nothing where nothing is.

use std::time::Duration;

use fantail::check::{Checker, Plan};

use crate::harness::{Backend, Cluster};

fn plan(bases: &[&str]) -> Plan {
    Plan {
        urls: bases.iter().map(|base| base.parse().unwrap()).collect(),
        topics: 4,
        publishers: 3,
        subscribers: 15,
        rate: 300.0,
        duration: Duration::from_secs(2),
        roam: Some(Duration::from_millis(300)),
        retry_max: Duration::from_millis(100),
        ..Plan::default()
    }
}

#[tokio::test]
async fn a_healthy_node_and_a_healthy_cluster_keep_their_promises() {
    let single = Backend::Embedded.start(&[]).await;
    let cluster = Cluster::start(3, &[]).await;
    let of_cluster: Vec<&str> = cluster.nodes.iter().map(|node| node.base.as_str()).collect();
    let check = async |bases: &[&str]| {
        let running = Checker::start(plan(bases)).await.unwrap();
        running.until_planned_end().await;
        let half = std::time::Instant::now();
        let after = running.next_delivery_after(half).await;
        assert!(after < Duration::from_secs(2), "{after:?}");
        running.finish().await
    };
    let of_single = [single.node.base.as_str()];
    let verdicts = tokio::join!(check(&of_single), check(&of_cluster));
    for verdict in [verdicts.0, verdicts.1] {
        println!("{verdict}");
        assert!(verdict.is_kept(), "{verdict}");
    }
}

#[tokio::test]
async fn scratch_faults() {
    let which = std::env::var("FAULT").unwrap_or_default();
    let mut cluster = Cluster::start(3, &[("FANTAIL_HEARTBEAT", "500ms")]).await;
    let bases: Vec<String> = cluster.nodes.iter().map(|node| node.base.clone()).collect();
    let bases: Vec<&str> = bases.iter().map(|b| b.as_str()).collect();
    let running = Checker::start(Plan {
        duration: Duration::from_secs(8),
        subscribers: 30,
        silence_max: Duration::from_secs(2),
        idempotent: false,
        loss_expected: which == "flush" || which == "restart",
        answer_within: Duration::from_secs(3),
        ..plan(&bases)
    })
    .await
    .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let fault = std::time::Instant::now();
    match which.as_str() {
        "flush" => {
            cluster.redis.ask::<String>(&["FLUSHALL"]).await;
        }
        "freeze" => {
            cluster.redis.freeze();
            tokio::time::sleep(Duration::from_secs(3)).await;
            cluster.redis.thaw();
        }
        "kill" => {
            cluster.nodes[0].process.kill();
        }
        "restart" => {
            cluster.redis.kill();
            cluster.redis.restart().await;
        }
        "term" => {
            cluster.nodes[0].terminate();
        }
        _ => {}
    }
    let after = running.next_delivery_after(fault).await;
    println!("progress after {after:?}");
    running.until_planned_end().await;
    let verdict = running.finish().await;
    println!("{verdict}");
}
