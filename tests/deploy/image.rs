//! The container image: what it runs, and what building it needs.

use std::net::SocketAddr;
use std::process::Command;

use crate::files::{compose_environment, image_environment, text, top};
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

/// As it runs there, but for its ports, its log lines, and Redis.
#[tokio::test]
async fn a_gateway_of_the_compose_file_asks_for_a_token_and_tells_operators_without_one() {
    let mut environment = compose_environment();
    let elsewhere = ["FANTAIL_REDIS_URL", "FANTAIL_LOG", "FANTAIL_LOG_FORMAT"];
    environment.retain(|(name, _)| !elsewhere.contains(&name.as_str()));
    let settings: Vec<_> = environment.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let node = Node::start(&settings).await;
    let status = async |url: String| reqwest::get(url).await.unwrap().status().as_u16();
    for (path, public, operators) in [
        ("/boards", 401, 404),
        ("/topics/news/events", 401, 404),
        ("/metrics", 401, 200),
        ("/admin/connections", 401, 200),
        ("/healthz", 200, 200),
        ("/readyz", 200, 200),
    ] {
        assert_eq!(status(node.url(path)).await, public, "{path}");
        let url = format!("http://{}{path}", node.operators);
        assert_eq!(status(url).await, operators, "{path} of operators");
    }
}
