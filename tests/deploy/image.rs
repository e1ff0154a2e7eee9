//! The container image: what it runs, and what building it needs.

use std::process::Command;

use crate::files::{text, top};
use crate::node::Node;

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

#[tokio::test]
async fn the_health_check_of_the_image_tells_a_gateway_that_answers_from_one_that_is_gone() {
    let node = Node::start(&[]).await;
    let address = node.address.to_string();
    let health = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fantail"));
        let output = command.arg("health").env("FANTAIL_LISTEN", &address).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(health(), (Some(0), String::new()));
    node.kill();
    let (status, line) = health();
    assert_eq!(status, Some(1));
    assert!(line.starts_with("fantail: ") && line.contains("/healthz"), "{line}");
}
