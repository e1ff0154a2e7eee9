//! What to log, as a level or as directives. One that names nothing would leave a node without a
//! word, and whoever looks for the reason has no line to start from.

use std::collections::BTreeSet;

/// What is logged if nothing else is asked for.
const DEFAULT: &str = "info";

/// The modules of this gateway that write log lines, or did when this was written: all that lies
/// right under the gateway can be named besides.
const MODULES: [&str; 24] = [
    "fantail",
    "fantail::access::issuer",
    "fantail::access::jwks",
    "fantail::access::revocations",
    "fantail::background",
    "fantail::board::first",
    "fantail::canary",
    "fantail::http::problem",
    "fantail::http::topics",
    "fantail::log::redis",
    "fantail::log::redis::subscription",
    "fantail::net::http2_frames",
    "fantail::net::places",
    "fantail::net::reactor",
    "fantail::net::reactor::guard",
    "fantail::net::server",
    "fantail::net::sockets",
    "fantail::net::tls",
    "fantail::relay::audits",
    "fantail::relay::opening",
    "fantail::relay::repairs",
    "fantail::stats",
    "fantail::stream::follower",
    "fantail::telemetry",
];

/// The libraries that do, each with modules that are its own matter.
const LIBRARIES: [&str; 9] =
    ["axum", "h2", "hyper", "hyper_util", "mio", "redis", "rustls", "tokio", "tower_http"];

/// Reads a filter. What it does not name is logged from [`DEFAULT`] on.
///
/// # Errors
/// Which directive is wrong, and what is probably meant.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    let directives = text.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    let directives: Vec<&str> = directives.collect();
    let mut has_default = false;
    for directive in &directives {
        match directive.split_once('=') {
            None => {
                has_default = true;
                check_level(directive)?;
            }
            Some((target, level)) => {
                check_target(target.trim())?;
                check_level(level.trim())?;
            }
        }
    }
    let default = (!has_default).then_some(DEFAULT);
    let filter = default.into_iter().chain(directives).collect::<Vec<_>>().join(",");
    match tracing_subscriber::EnvFilter::try_new(&filter) {
        Ok(_) => Ok(filter),
        Err(_) => Err(right()),
    }
}

fn right() -> String {
    "must be error, warn, info, debug, trace, off, or a filter such as info,fantail::relay=debug"
        .to_owned()
}

fn check_level(level: &str) -> Result<(), String> {
    let is_level = level.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    if is_level && !level.is_empty() { Ok(()) } else { Err(right()) }
}

fn check_target(target: &str) -> Result<(), String> {
    let known = modules();
    let library = target.split("::").next().unwrap_or_default();
    if known.contains(target) || LIBRARIES.contains(&library) {
        return Ok(());
    }
    let names = known.iter().map(String::as_str).chain(LIBRARIES);
    let edits = names.map(|name| (strsim::osa_distance(target, name), name));
    let nearest = edits.min().filter(|(edits, name)| *edits <= name.len() / 3);
    Err(match nearest {
        Some((_, name)) => {
            format!("{}; one of its modules does not exist: did you mean {name}?", right())
        }
        None => format!("{}; one of its modules does not exist", right()),
    })
}

/// All that can be named: modules, and those that they lie in.
fn modules() -> BTreeSet<String> {
    let with_parents = |module: &'static str| {
        let ends = module.match_indices("::").map(|(end, _)| end).chain([module.len()]);
        ends.map(|end| module[..end].to_owned())
    };
    let rooms = include_str!("../lib.rs").lines().filter_map(|line| {
        let room = line.strip_prefix("pub mod ")?.strip_suffix(';')?;
        Some(format!("fantail::{room}"))
    });
    MODULES.into_iter().flat_map(with_parents).chain(rooms).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_not_named_is_logged_from_info_on() {
        for (text, filter) in [
            ("", "info"),
            (" ", "info"),
            (",", "info"),
            ("info,", "info"),
            ("warn", "warn"),
            ("OFF", "OFF"),
            ("hyper=debug", "info,hyper=debug"),
            ("fantail::relay=debug", "info,fantail::relay=debug"),
            ("warn, fantail::relay::audits=trace", "warn,fantail::relay::audits=trace"),
        ] {
            assert_eq!(log_filter(text).as_deref(), Ok(filter), "{text:?}");
        }
    }

    #[test]
    fn what_does_not_exist_is_refused_with_what_was_probably_meant() {
        for (text, meant) in [
            ("fantail::rellay=debug", "did you mean fantail::relay?"),
            ("info,fantial=debug", "did you mean fantail?"),
            (
                "fantail::log::redis::subscriptions=debug",
                "did you mean fantail::log::redis::subscription?",
            ),
            ("hyperr=debug", "did you mean hyper?"),
            ("zzzzzzzz=debug", "does not exist"),
            ("fantail=", "must be"),
            ("fantail", "must be"),
            ("=debug", "must be"),
            ("a=b=c", "must be"),
            ("info,verbose", "must be"),
        ] {
            let error = log_filter(text).unwrap_err();
            assert!(error.contains(meant), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_can_be_named_exists_and_the_room_of_whatever_logs_can_be_named() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let known = modules();
        for module in known.iter().filter_map(|module| module.strip_prefix("fantail::")) {
            let source = root.join(module.replace("::", "/")).with_extension("rs");
            assert!(source.exists(), "{module} is no module any more");
        }
        let mut directories = vec![root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                    continue;
                }
                let source = std::fs::read_to_string(&path).unwrap_or_default();
                let levels = ["error", "warn", "info", "debug", "trace"];
                let mut calls = levels.iter().map(|level| format!("tracing::{level}!("));
                let path = path.strip_prefix(&root).unwrap().with_extension("");
                // The program is called as the library is.
                if path != Path::new("main") && calls.any(|call| source.contains(&call)) {
                    let room = path.iter().next().unwrap().to_str().unwrap();
                    assert!(known.contains(&format!("fantail::{room}")), "{room} logs");
                }
            }
        }
    }
}
