//! Variables that nobody reads: a setting with a wrong name would be ignored in silence.

use fantail::config::Config;
use fantail::nearest::nearest;

/// What the names of all settings begin with.
const PREFIX: &str = "FANTAIL_";
const NAME: &str = "FANTAIL";

/// Variables of the tools around the program (`make demo`, `make load`, the tests), which may stand
/// in the environment that it is started in.
const TOOLS: [&str; 4] = ["FANTAIL_BINARY", "FANTAIL_BEFORE", "FANTAIL_CHUNKS", "FANTAIL_URL"];
const TOOLS_PREFIXES: [&str; 2] = ["FANTAIL_DEMO_", "FANTAIL_LOAD_"];

/// Looks for variables that are meant as settings and are none.
///
/// # Errors
/// The first of them, with the name that was probably meant.
pub(super) fn check(variables: impl Iterator<Item = (String, String)>) -> Result<(), String> {
    let settings: Vec<String> =
        Config::reference().into_iter().map(|[_, variable, ..]| variable).collect();
    let mut unknown: Vec<String> = variables
        .filter(|(name, value)| {
            (name.starts_with(PREFIX) || is_meant(name, &settings))
                && !settings.contains(name)
                && !TOOLS.contains(&name.as_str())
                && !TOOLS_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                && !is_of_a_service(name, value)
        })
        .map(|(name, _)| name)
        .collect();
    unknown.sort_unstable();
    let Some(unknown) = unknown.first() else { return Ok(()) };
    // The value is not told: it may be a secret.
    Err(match meant(unknown, &settings) {
        Some(meant) => format!("{unknown} is no setting: did you mean {meant}? (see --help)"),
        None => format!("{unknown} is no setting (see --help)"),
    })
}

/// Whether a name that begins almost as settings do is close to one of them: in small letters, or
/// without the underscore.
fn is_meant(name: &str, settings: &[String]) -> bool {
    let start = name.get(..NAME.len()).unwrap_or_default();
    start.eq_ignore_ascii_case(NAME) && meant(name, settings).is_some()
}

/// Whether Kubernetes, or a link between containers, has put this into the environment because a
/// service there is called fantail, or fantail-something.
fn is_of_a_service(name: &str, value: &str) -> bool {
    let of_port = name.split_once("_PORT_").is_some_and(|(_, rest)| {
        rest.split('_').next().is_some_and(|port| port.parse::<u16>().is_ok())
    });
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|start| value.starts_with(start));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || of_port
        || (name.ends_with("_PORT") && is_address)
}

/// The setting that was probably meant. What all of them begin with says nothing.
fn meant<'a>(unknown: &str, settings: &'a [String]) -> Option<&'a String> {
    let own = |name: &'a String| name.strip_prefix(PREFIX).unwrap_or(name);
    let start = unknown.get(..NAME.len()).unwrap_or_default();
    let unknown = if start.eq_ignore_ascii_case(NAME) { &unknown[NAME.len()..] } else { unknown };
    let nearest = match unknown.trim_start_matches('_').to_ascii_uppercase().as_str() {
        // Shorter ones are nearer, and nobody means them.
        "REDIS" => "REDIS_URL",
        _ => nearest(unknown, settings.iter().map(own))?,
    };
    settings.iter().find(|setting| own(setting) == nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, value: &str) -> Option<String> {
        check([(name.to_owned(), value.to_owned())].into_iter()).err()
    }

    #[test]
    fn an_unknown_setting_is_told_with_the_nearest_name_and_without_its_value() {
        for (name, nearest) in [
            ("FANTAIL_REDIS", "FANTAIL_REDIS_URL"),
            ("FANTAIL_REDISURL", "FANTAIL_REDIS_URL"),
            ("FANTAIL_HEARTBEATS", "FANTAIL_HEARTBEAT"),
            ("FANTAIL_LOGFORMAT", "FANTAIL_LOG_FORMAT"),
            ("FANTAIL_MAX_CONECTIONS", "FANTAIL_MAX_CONNECTIONS"),
            ("fantail_redis_url", "FANTAIL_REDIS_URL"),
            ("Fantail_Redis_Url", "FANTAIL_REDIS_URL"),
            ("FANTAIL_redis_url", "FANTAIL_REDIS_URL"),
            ("FANTAILREDIS_URL", "FANTAIL_REDIS_URL"),
            ("FANTAIL-LISTEN", "FANTAIL_LISTEN"),
        ] {
            let line = line(name, "hunter2").unwrap();
            assert!(line.contains(&format!("did you mean {nearest}?")), "{line}");
            assert!(line.contains(name) && !line.contains("hunter2"), "{line}");
        }
        assert_eq!(line("FANTAIL_ZZZ", "").unwrap(), "FANTAIL_ZZZ is no setting (see --help)");
    }

    #[test]
    fn settings_tools_and_what_orchestrators_put_there_are_no_mistakes() {
        for [_, variable, ..] in Config::reference() {
            assert_eq!(line(&variable, ""), None);
        }
        for (name, value) in [
            ("PATH", "/bin"),
            ("FANTAIL", "yes"),
            ("FANTAIL1_SERVICE_HOST", "10.0.0.1"),
            ("fantail_home", "/srv"),
            ("FANTAILS_OWN", "1"),
            ("FANTAIL_DEMO_NODES", "3"),
            ("FANTAIL_LOAD_URL", "http://127.0.0.1:3000"),
            ("FANTAIL_BINARY", "target/release/fantail"),
            ("FANTAIL_SERVICE_HOST", "10.0.0.1"),
            ("FANTAIL_SERVICE_PORT", "80"),
            ("FANTAIL_SERVICE_PORT_HTTP", "80"),
            ("FANTAIL_PORT", "tcp://10.0.0.1:80"),
            ("FANTAIL_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("FANTAIL_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("FANTAIL_REDIS_SERVICE_HOST", "10.0.0.2"),
            ("FANTAIL_REDIS_PORT", "tcp://10.0.0.2:6379"),
            ("FANTAIL_REDIS_PORT_6379_TCP_PROTO", "tcp"),
        ] {
            assert_eq!(line(name, value), None);
        }
        // What looks like one of those and is a mistake.
        assert!(line("FANTAIL_PORT", "3000").is_some());
    }
}
