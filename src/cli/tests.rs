use super::*;

fn asked(arguments: &[&str]) -> Result<Invocation, UsageError> {
    parse(std::iter::once("fantail").chain(arguments.iter().copied()))
}

fn wrong(arguments: &[&str]) -> UsageError {
    match asked(arguments) {
        Ok(invocation) => panic!("{arguments:?} is {invocation:?}"),
        Err(wrong) => wrong,
    }
}

#[test]
fn serving_is_what_it_does_unless_told_otherwise() {
    for arguments in [&[][..], &["serve"]] {
        let invocation = asked(arguments).unwrap();
        let Invocation::Serve(config) = invocation else { panic!("{invocation:?}") };
        assert_eq!(config.listen.to_string(), "127.0.0.1:3000");
    }
    let arguments = ["serve", "--retry", "1s", "--redis-url", "redis://:secret@127.0.0.1/3"];
    let invocation = asked(&arguments).unwrap();
    let Invocation::Serve(config) = invocation else { panic!("{invocation:?}") };
    assert_eq!(config.redis_url.as_deref(), Some("redis://:secret@127.0.0.1/3"));
}

#[test]
fn a_wrong_value_is_one_line_that_names_setting_value_and_remedy() {
    for (arguments, parts) in [
        (["--heartbeat", "soon"], ["--heartbeat", "FANTAIL_HEARTBEAT", "\"soon\"", "15s"]),
        (["--heartbeat", "1ms"], ["--heartbeat", "FANTAIL_HEARTBEAT", "\"1ms\"", "100ms"]),
        (["--history-size", "0"], ["--history-size", "FANTAIL_HISTORY_SIZE", "\"0\"", "1 to"]),
        (
            ["--max-stream-age", "10ms"],
            ["--max-stream-age", "FANTAIL_MAX_STREAM_AGE", "\"10ms\"", "from 1s"],
        ),
        (["--listen", "3000"], ["--listen", "FANTAIL_LISTEN", "\"3000\"", "127.0.0.1:3000"]),
        (
            ["--redis-url", "http://x"],
            ["--redis-url", "FANTAIL_REDIS_URL", "http://x", "rediss://"],
        ),
        (
            ["--redis-url", "redis://127.0.0.1:port"],
            ["--redis-url", "FANTAIL_REDIS_URL", "redis://127.0.0.1:…", "redis.example:6379"],
        ),
        (["--redis-prefix", "a{b}"], ["--redis-prefix", "FANTAIL_REDIS_PREFIX", "a{b}", "letters"]),
        (["--max-body", "1GB"], ["--max-body", "FANTAIL_MAX_BODY", "1GB", "1MiB"]),
        (["--log-format", "xml"], ["--log-format", "FANTAIL_LOG_FORMAT", "xml", "text, json"]),
        (["--log", "a=b=c"], ["--log", "FANTAIL_LOG", "a=b=c", "debug"]),
        (
            ["--cors-origins", "app.example"],
            ["--cors-origins", "FANTAIL_CORS_ORIGINS", "app.example", "https://"],
        ),
        (["--node-id", "a b"], ["--node-id", "FANTAIL_NODE_ID", "a b", "ASCII"]),
        (
            ["--wait-replicas", "2"],
            ["--wait-replicas", "FANTAIL_WAIT_REPLICAS", "2", "--redis-url"],
        ),
    ] {
        for arguments in [&arguments[..], &["serve", arguments[0], arguments[1]]] {
            let UsageError { line, status } = wrong(arguments);
            assert_eq!((line.lines().count(), status), (1, ExitStatus::Failure), "{line}");
            for part in parts {
                assert!(line.contains(part), "{part:?} is not in {line:?}");
            }
        }
    }
    assert!(wrong(&["--colour"]).line.contains("--colour"));
}

#[test]
fn the_password_in_a_wrong_url_is_not_told_back() {
    for value in ["redis://:hunter2@host:port", "http://me:hunter2@host", "me:hunter2@host"] {
        let line = wrong(&["--redis-url", value]).line;
        assert!(line.contains("…@host") && !line.contains("hunter2"), "{line}");
    }
    let line = wrong(&["check", "http://me:hunter2@host"]).line;
    assert!(line.contains("http://…@host") && !line.contains("hunter2"), "{line}");
}

#[test]
fn health_asks_the_own_listen_address_unless_told_otherwise() {
    let url = |arguments: &[&str]| match asked(arguments) {
        Ok(Invocation::Health(url)) => url.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(url(&["health"]), "http://127.0.0.1:3000/healthz");
    assert_eq!(url(&["health", "--listen", "0.0.0.0:80"]), "http://127.0.0.1:80/healthz");
    assert_eq!(url(&["health", "--url", "http://a:1/readyz"]), "http://a:1/readyz");
    let UsageError { line, status } = wrong(&["health", "--url", "https://a/"]);
    assert_eq!(status, ExitStatus::Failure);
    assert!(line.contains("--url") && line.contains("http://"), "{line}");
    assert!(!line.contains("FANTAIL_URL"), "there is no such variable: {line}");
}

#[test]
fn a_check_that_cannot_be_made_is_told_from_one_that_failed() {
    assert!(matches!(asked(&["check", "http://a"]), Ok(Invocation::Check(_))));
    for arguments in [
        &["check"][..],
        &["check", "ftp://a"],
        &["check", "--colour", "http://a"],
        &["check", "--rate", "many", "http://a"],
    ] {
        assert_eq!(wrong(arguments).status, ExitStatus::NotTested, "{arguments:?}");
    }
    // A value is no command.
    let arguments = ["serve", "--node-id", "check", "--retry", "soon"];
    assert_eq!(wrong(&arguments).status, ExitStatus::Failure);
    assert_eq!(wrong(&["chekc"]).status, ExitStatus::Failure);
}

#[test]
fn help_and_version_are_printed_and_no_mistake() {
    for arguments in [&["--help"][..], &["--version"], &["check", "--help"], &["health", "-h"]] {
        assert!(matches!(asked(arguments), Ok(Invocation::Print(_))), "{arguments:?}");
    }
}
