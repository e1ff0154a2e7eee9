//! Why a command line, or an environment, asks for nothing that can be done, on one line.
//!
//! The line goes to whoever reads the log, and what is wrong may have the right password in it, at
//! the right place or at a wrong one. So of a URL it shows what says where something is, and
//! nothing else.

use std::borrow::Cow;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use fantail::config::Config;

/// What is shown of a value at most, in characters.
const SHOWN_CHARACTERS_MAX: usize = 100;

/// Schemes that have a host; a word that is none of them may be a part of a password.
const SCHEMES: [&str; 6] = ["redis", "rediss", "valkey", "valkeys", "http", "https"];

/// What is a URL, whatever it looks like.
const URLS: [&str; 4] = ["--redis-url", "--url", "--publish-to", "<URL>..."];

/// What is a secret as a whole.
const SECRETS: [&str; 2] = ["--header", "--jwt-secret"];

/// What the parser found wrong.
pub(super) fn one_line(error: &clap::Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    let argument = text(ContextKind::InvalidArg);
    match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let flag = argument.split_whitespace().next().unwrap_or_default();
            let value = text(ContextKind::InvalidValue);
            match (std::error::Error::source(error), text(ContextKind::ValidValue)) {
                (Some(source), _) => wrong_value(flag, &value, &source.to_string()),
                (None, valid) if valid.is_empty() => format!("{} needs a value", setting(flag)),
                (None, valid) => wrong_value(flag, &value, &format!("must be one of: {valid}")),
            }
        }
        ErrorKind::MissingRequiredArgument => format!("{argument} is missing (see --help)"),
        _ => {
            let mut rendered = error.to_string();
            for kind in
                [ContextKind::InvalidArg, ContextKind::InvalidSubcommand, ContextKind::InvalidValue]
            {
                let said = text(kind);
                if said.is_empty() {
                    continue;
                }
                if !rendered.contains(&said) {
                    return "the arguments cannot be understood (see --help)".to_owned();
                }
                rendered = rendered.replace(&said, &word(&said).unwrap_or("…".into()));
            }
            let line = rendered.lines().next().unwrap_or_default();
            format!("{} (see --help)", line.trim_start_matches("error: "))
        }
    }
}

/// A value that cannot be, by its flag and, if it is a setting, by its variable.
pub(super) fn wrong_value(flag: &str, value: &str, right: &str) -> String {
    let shown = match value {
        "" => Some("".into()),
        _ if SECRETS.contains(&flag) => None,
        url if URLS.contains(&flag) => place(url).map(Cow::Owned),
        value => shown(value),
    };
    match shown {
        Some(shown) => format!("{} is {shown:?}: {right}", setting(flag)),
        None => format!(
            "{} is wrong, and not shown, for it may hold a secret: it {right}",
            setting(flag)
        ),
    }
}

/// A flag with its variable, if it is a setting.
fn setting(flag: &str) -> String {
    match Config::reference().iter().find(|[setting, ..]| setting == flag) {
        Some([_, variable, ..]) => format!("{flag} ({variable})"),
        None => flag.to_owned(),
    }
}

/// A value as it may stand in a log: the beginning of what is long, the places of URLs, and nothing
/// of what looks like a URL and cannot be read as one.
fn shown(value: &str) -> Option<Cow<'_, str>> {
    if looks_like_url(value) {
        let places: Option<Vec<String>> = value.split(',').map(place).collect();
        return places.map(|places| places.join(",").into());
    }
    match value.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((end, _)) => Some(format!("{}…", &value[..end]).into()),
        None => Some(value.into()),
    }
}

fn looks_like_url(value: &str) -> bool {
    let marks = ["//", ":/", "@", "?", "#"];
    let (scheme, rest) = value.split_once(':').unwrap_or(("", ""));
    let scheme = scheme.trim().to_ascii_lowercase();
    let has_scheme = SCHEMES.contains(&&*scheme) || scheme.ends_with("unix");
    marks.iter().any(|mark| value.contains(mark)) || has_scheme && !rest.is_empty()
}

/// A word that stands where none is known, if it is no more than a word.
fn word(text: &str) -> Option<Cow<'_, str>> {
    let is_of_a_word = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.trim_start_matches("--").chars().all(is_of_a_word) {
        return shown(text);
    }
    // What names an argument of ours is as we have written it.
    let is_ours = text.starts_with("--") && text.ends_with('>') && !text.contains([':', '@']);
    if is_ours { Some(text.into()) } else { place(text).map(Cow::Owned) }
}

/// Where a URL leads, with `…` for what is left out; `None` where that cannot be told for sure from
/// what nobody else may know.
fn place(url: &str) -> Option<String> {
    let (scheme, rest) = url.trim().split_once("://")?;
    if !SCHEMES.contains(&scheme) {
        return None;
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // A password with a `/` ends what looks like the authority.
    if path.contains('@') {
        return None;
    }
    let (user, host) = match authority.rsplit_once('@') {
        Some((_, host)) => ("…@", host),
        None => ("", authority),
    };
    let path = if ["", "/"].contains(&path) { path } else { "/…" };
    is_host_and_port(host).then(|| format!("{scheme}://{user}{host}{path}"))
}

fn is_host_and_port(text: &str) -> bool {
    let (is_host, port) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((address, port)) => (address.parse::<std::net::Ipv6Addr>().is_ok(), port),
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let is_of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            (!name.is_empty() && name.bytes().all(is_of_a_name), port)
        }
    };
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// Names what is not UTF-8: the flag, or the variable, that has such a value.
pub(super) fn not_utf8(
    arguments: &[std::ffi::OsString],
    variables: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> String {
    let mut before = None;
    for argument in arguments {
        if argument.to_str().is_none() {
            let lossy = argument.to_string_lossy();
            let flag = lossy.split_once('=').map_or(before, |(flag, _)| Some(flag.to_owned()));
            return match flag.filter(|flag| flag.starts_with("--")) {
                Some(flag) => format!("{} is not valid UTF-8", setting(&flag)),
                None => "an argument is not valid UTF-8 (see --help)".to_owned(),
            };
        }
        before = argument.to_str().map(ToOwned::to_owned);
    }
    let settings = Config::reference();
    let not_utf8 = variables.filter(|(_, value)| value.to_str().is_none());
    let named = not_utf8.filter_map(|(name, _)| {
        settings.iter().find(|[_, variable, ..]| *name == **variable).cloned()
    });
    match named.min() {
        Some([flag, variable, ..]) => format!("{flag} ({variable}) is not valid UTF-8"),
        None => "a setting is not valid UTF-8 (see --help)".to_owned(),
    }
}
