use std::os::unix::ffi::OsStringExt;

use proptest::prelude::*;

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
            ["--redis-url", "FANTAIL_REDIS_URL", "not shown", "redis.example:6379"],
        ),
        (
            ["--redis-url", "redis://me@127.0.0.1:1/x"],
            ["--redis-url", "FANTAIL_REDIS_URL", "\"redis://…@127.0.0.1:1/…\"", "database"],
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

/// What stands in the place of a secret.
const SECRET: &str = "hunter2";

/// What is printed for such a text, wherever it was written.
fn told_of(text: &str) -> Vec<String> {
    let publish = ["check", "http://a", "--publish-to", text];
    [
        &["--redis-url", text][..],
        &["serve", &format!("--redis-url={text}")],
        &["check", text],
        &publish,
        &["check", &format!("--json={text}"), "http://a"],
        &["check", "--header", text, "http://a"],
        &["health", "--url", text],
        &["--listen", text],
        &["--cors-origins", text],
        &["--log", text],
        &[text],
        &["serve", text],
        &[&format!("--{text}")],
        &[&format!("--redis={text}")],
    ]
    .into_iter()
    .filter_map(|arguments| asked(arguments).err())
    .map(|wrong| wrong.line)
    .collect()
}

#[test]
fn of_a_wrong_url_its_place_is_told_and_nothing_else() {
    for text in [
        "unix:///run/r.sock?db=zz&pass=hunter2",
        "redis+unix:///run/r.sock?user=u&pass=hunter2&db=zz",
        "redis:hunter2",
        "redis:/:hunter2@h",
        "rediss//:hunter2",
        "redis://:hunter2",
        "redis://u:hunter2/0",
        "redis://127.0.0.1:1/0?protocol=hunter2",
        "redis://h/0?password=hunter2",
        "redis://:1234/hunter2@h",
        "redis://u:1234?hunter2@h",
        "http://me:hunter2@host:port",
        " redis://:hunter2@h",
        "https://a,https://u:hunter2@b/",
        "me:hunter2@host",
        "redis://:hun\nter2@h",
    ] {
        for line in told_of(text) {
            assert!(!line.contains(SECRET) && !line.contains("ter2"), "{text}: {line}");
        }
    }
    for (arguments, told) in [
        (&["--redis-url", "redis://:hunter2@host:1/x"][..], "\"redis://…@host:1/…\""),
        (&["--redis-url", "http://[::1]:80/"], "\"http://[::1]:80/\""),
        (&["--cors-origins", "https://a/,https://b"], "\"https://a/,https://b\""),
        (&["check", "http://me:hunter2@host"], "\"http://…@host\""),
        (&["redis://:hunter2@host"], "'redis://…@host'"),
        (&["check", "--header", "Bearer hunter2", "http://a"], "--header is wrong, and not shown"),
        (&["--node-id", &"a b".repeat(1_000)], "a ba…\""),
    ] {
        let line = wrong(arguments).line;
        assert!(line.contains(told) && !line.contains(SECRET), "{line}");
        assert!(line.len() < 1_000, "{line}");
    }
}

proptest! {
    /// A host that is told is not the secret; everything else may be or contain it.
    #[test]
    fn a_secret_that_is_not_the_host_is_never_told(
        scheme in "(redis|rediss|valkey|unix|redis\\+unix|https?|REDIS|hunter2)",
        divider in "(://|:/|:|//|:///| ://)",
        user in "([a-z%@:/?#]{0,4}(hunter2)?[a-z%@:/?# ,]{0,4}@)?",
        host in "(h|127\\.0\\.0\\.1|\\[::1\\]|a\\.example|)",
        port in "(:[0-9]{1,6}|:hunter2|:6379hunter2|)",
        path in "(/[0-9]?|/hunter2|/\\.\\./hunter2)?",
        query in "(\\?[a-z]{0,8}=hunter2|\\?hunter2|\\?db=zz&pass=hunter2|\\?protocol=hunter2)?",
        fragment in "(#hunter2|#)?",
    ) {
        // Such a thing is a host and a port.
        prop_assume!(scheme != SECRET || divider.contains('/'));
        // And such a path.
        let has_host = !(user.is_empty() && host.is_empty() && port.is_empty());
        prop_assume!(has_host || divider != ":/");
        let text = format!("{scheme}{divider}{user}{host}{port}{path}{query}{fragment}");
        for line in told_of(&text) {
            prop_assert!(!line.contains(SECRET), "{text}: {line}");
        }
    }
}

#[test]
fn a_setting_without_a_value_and_one_that_is_not_utf8_are_named() {
    for arguments in [&["serve", "--redis-url"][..], &["--redis-url", "--listen", "[::1]:1"]] {
        let line = wrong(arguments).line;
        assert_eq!(line, "--redis-url (FANTAIL_REDIS_URL) needs a value");
    }
    let not_utf8 = OsString::from_vec(b"redis://:hunter2\xff@h".to_vec());
    let joined = OsString::from_vec(b"--redis-url=redis://:hunter2\xff@h".to_vec());
    for arguments in [vec!["--redis-url".into(), not_utf8.clone()], vec![joined]] {
        let line = parse([vec!["fantail".into()], arguments].concat()).unwrap_err().line;
        assert_eq!(line, "--redis-url (FANTAIL_REDIS_URL) is not valid UTF-8");
    }
    let line = parse(["check".into(), "check".into(), not_utf8.clone()]).unwrap_err().line;
    assert!(line.contains("not valid UTF-8") && !line.contains(SECRET), "{line}");
    let variables = [("PATH".into(), not_utf8.clone()), ("FANTAIL_REDIS_URL".into(), not_utf8)];
    let line = not_utf8_line(variables);
    assert_eq!(line, "--redis-url (FANTAIL_REDIS_URL) is not valid UTF-8");
}

fn not_utf8_line(variables: [(OsString, OsString); 2]) -> String {
    wrong::not_utf8(&["fantail".into()], variables.into_iter())
}

#[test]
fn health_asks_the_own_listen_address_unless_told_otherwise() {
    let url = |arguments: &[&str]| match asked(arguments) {
        Ok(Invocation::Health(url)) => url.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(url(&["health"]), "http://127.0.0.1:3000/healthz");
    assert_eq!(url(&["health", "--listen", "0.0.0.0:80"]), "http://127.0.0.1:80/healthz");
    let with_admin = ["health", "--listen", "0.0.0.0:80", "--admin-listen", "[::]:81"];
    assert_eq!(url(&with_admin), "http://[::1]:81/healthz");
    assert_eq!(url(&["health", "--url", "http://a:1/readyz"]), "http://a:1/readyz");
    assert_eq!(url(&["health", "--url", "https://a/readyz"]), "https://a:443/readyz");
    let UsageError { line, status } = wrong(&["health", "--url", "ftp://a/"]);
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
