//! The container image: what it runs, and what building it needs.

use std::net::SocketAddr;
use std::process::Command;

use crate::files::{image_environment, text, top};
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
    let ports = image_environment().into_iter().map(|(_, address)| {
        let address: SocketAddr = address.parse().unwrap();
        assert!(address.ip().is_unspecified(), "{address} cannot be reached from outside");
        address.port().to_string()
    });
    assert_eq!(instruction("EXPOSE "), ports.collect::<Vec<_>>().join(" "));
}

#[tokio::test]
async fn the_health_check_of_the_image_tells_a_gateway_that_answers_from_one_that_is_gone() {
    let node = Node::start(&[("FANTAIL_HOSTS", "app.example")]).await;
    let (address, operators) = (node.address.to_string(), node.operators.to_string());
    let mut command = Command::new(env!("CARGO_BIN_EXE_fantail"));
    // One without a door for operators.
    let output = command.arg("health").env("FANTAIL_LISTEN", &address).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let health = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fantail"));
        command.env("FANTAIL_LISTEN", "127.0.0.1:1").env("FANTAIL_ADMIN_LISTEN", &operators);
        let output = command.arg("health").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(health(), (Some(0), String::new()));
    node.kill();
    let (status, line) = health();
    assert_eq!(status, Some(1));
    assert!(line.starts_with("fantail: ") && line.contains("/healthz"), "{line}");
}
