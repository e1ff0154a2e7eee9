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
