//! The address of a Redis: a URL, and in our own words what is wrong with one.
//!
//! The words of the library repeat what they are about, which may be a password.

use redis::{ConnectionInfo, IntoConnectionInfo};

/// Checks that `url` can be the address of a Redis.
///
/// # Errors
/// What is wrong with it, without any part of it.
pub fn check_url(url: &str) -> Result<(), String> {
    read(url).map(|_| ())
}

/// Whether a password stands in it, as far as it is the address of a Redis.
pub fn has_password(url: &str) -> bool {
    read(url).is_ok_and(|info| info.redis_settings().password().is_some())
}

/// Reads the address of a Redis.
///
/// # Errors
/// What is wrong with it, without any part of it.
pub(super) fn read(url: &str) -> Result<ConnectionInfo, String> {
    let wrong = |what: &str| Err(what.to_owned());
    let Some(parsed) = redis::parse_redis_url(url) else {
        return wrong("it cannot be read as a URL");
    };
    let is_socket = parsed.scheme().ends_with("unix");
    let known = if is_socket { &["db", "user", "pass", "protocol"][..] } else { &["protocol"] };
    let mut has_unknown = false;
    for (name, value) in parsed.query_pairs() {
        has_unknown |= !known.contains(&&*name);
        if name == "protocol" && !["2", "3", "resp2", "resp3"].contains(&&*value) {
            return wrong("its protocol must be resp2 or resp3");
        }
        if name == "db" && value.parse::<u32>().is_err() {
            return wrong("its database must be a number");
        }
    }
    if has_unknown && is_socket {
        return wrong("it has a parameter other than user, pass, db and protocol");
    }
    if has_unknown {
        return wrong(
            "it has a parameter other than protocol: user and password stand before the host",
        );
    }
    if parsed.fragment().is_some() {
        return wrong("it has a fragment: a # within a password is written %23");
    }
    if !is_socket {
        let host = parsed.host_str().unwrap_or_default();
        if host.is_empty() {
            return wrong("it has no host");
        }
        if host.contains(',') {
            return wrong("it names several hosts, and takes one");
        }
        let is_of_a_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[:]".contains(&byte);
        if !host.bytes().all(is_of_a_host) {
            return wrong("its host is not a name or an address");
        }
        let database = parsed.path().trim_matches('/');
        if !database.is_empty() && database.parse::<u32>().is_err() {
            return wrong("its database must be a number");
        }
    }
    // A user or a password that is not UTF-8, a path that is none, and the address of all hosts.
    parsed.into_connection_info().map_err(|_| "it is not the address of a Redis".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_without_a_part_of_it() {
        for (url, told) in [
            ("redis://:hunter2@h:hunter2", "cannot be read as a URL"),
            ("redis:hunter2", "no host"),
            ("rediss//:hunter2", "cannot be read as a URL"),
            ("redis:///hunter2", "no host"),
            ("redis://h/hunter2", "database must be a number"),
            ("redis://h/-1", "database must be a number"),
            ("redis://h/0?password=hunter2", "before the host"),
            ("redis://h/0?hunter2", "before the host"),
            ("redis://h/0?protocol=hunter2", "resp2 or resp3"),
            ("redis://h/0#hunter2", "%23"),
            ("rediss://h/0#insecure", "%23"),
            ("redis://a,b:6379", "several hosts"),
            ("redis://a*b", "not a name"),
            ("redis://0.0.0.0", "not the address"),
            ("redis://:hunter2%ff@h", "not the address"),
            ("unix:///run/r.sock?db=zz&pass=hunter2", "database must be a number"),
            ("redis+unix:///run/r.sock?password=hunter2", "user, pass, db and protocol"),
        ] {
            let error = read(url).unwrap_err();
            assert!(error.contains(told) && !error.contains("hunter2"), "{url}: {error}");
        }
    }

    #[test]
    fn what_is_right_is_taken() {
        for url in [
            "redis://h",
            "redis://me:p%23w@redis.example:6380/3?protocol=resp3",
            "rediss://:p%40w@h_1",
            "valkey://127.0.0.1",
            "redis://[::1]:6379/0",
            "unix:///run/r.sock?db=1&user=me&pass=x",
        ] {
            assert_eq!(check_url(url), Ok(()), "{url}");
        }
    }
}
