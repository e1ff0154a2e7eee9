//! The address of a Redis, or of the sentinels that know where it is: a URL, and in our own words
//! what is wrong with one.
//!
//! The words of the library repeat what they are about, which may be a password.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

/// The port of a sentinel that is named without one.
const SENTINEL_PORT: u16 = 26379;

/// Sentinels that a URL may name.
const SENTINELS_MAX: usize = 16;

/// Where a Redis is.
#[derive(Debug, Clone)]
pub(super) enum Address {
    /// There.
    One(ConnectionInfo),
    /// Where these say.
    Sentinels(Sentinels),
}

/// Who says where a Redis is.
#[derive(Debug, Clone)]
pub(super) struct Sentinels {
    /// At least one.
    pub(super) places: Vec<Place>,
    /// What they call the master.
    pub(super) name: String,
    /// What is shown to the master. Its place is that of the first sentinel.
    pub(super) master: ConnectionInfo,
}

impl fmt::Display for Address {
    /// As the log has it: without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::One(info) => info.addr().fmt(f),
            Address::Sentinels(Sentinels { places, .. }) => {
                let places: Vec<String> = places.iter().map(Place::to_string).collect();
                write!(f, "the master of sentinels {}", places.join(","))
            }
        }
    }
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Checks that `url` can be the address of a Redis.
///
/// # Errors
/// What is wrong with it, without any part of it.
pub fn check_url(url: &str) -> Result<(), String> {
    read(url).map(|_| ())
}

/// Whether a password stands in it, as far as it is the address of a Redis.
pub fn has_password(url: &str) -> bool {
    read(url).is_ok_and(|address| {
        let (Address::One(info) | Address::Sentinels(Sentinels { master: info, .. })) = address;
        info.redis_settings().password().is_some()
    })
}

/// Reads the address of a Redis.
///
/// # Errors
/// What is wrong with it, without any part of it.
pub(super) fn read(url: &str) -> Result<Address, String> {
    match url.split_once("://") {
        Some(("redis-sentinel", rest)) => read_sentinels("redis", rest).map(Address::Sentinels),
        Some(("redis-sentinels", rest)) => read_sentinels("rediss", rest).map(Address::Sentinels),
        _ => read_one(url).map(Address::One),
    }
}

/// Reads `user:password@host:port,host:port/database?protocol=…#name`, for a master that is reached
/// by this scheme.
fn read_sentinels(scheme: &str, rest: &str) -> Result<Sentinels, String> {
    let no_name = "it names no master: after # comes what the sentinels call it";
    let (rest, name) = rest.split_once('#').ok_or(no_name)?;
    if name.is_empty() {
        return Err(no_name.to_owned());
    }
    let is_of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !name.bytes().all(is_of_a_name) {
        return Err("what comes after # is no name of a master, which has letters, digits, dots, \
                    dashes and underscores: a # within a password is written %23"
            .to_owned());
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let at = authority.rfind('@').map_or(0, |at| at + 1);
    let (user, hosts) = authority.split_at(at);
    let mut read = Vec::new();
    for host in hosts.split(',') {
        if read.len() == SENTINELS_MAX {
            return Err(format!("it names more than {SENTINELS_MAX} sentinels"));
        }
        // A colon within brackets is of an address.
        let has_port = host.rfind(']').map_or(host, |end| &host[end..]).contains(':');
        let port = if has_port { String::new() } else { format!(":{SENTINEL_PORT}") };
        let host = if host.is_empty() { String::new() } else { format!("{host}{port}") };
        let info = read_one(&format!("{scheme}://{user}{host}{path}"))?;
        let (ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }) =
            info.addr().clone()
        else {
            return Err("it has no host".to_owned());
        };
        read.push((Place { host, port }, info));
    }
    let master = read.first().map(|(_, info)| info.clone()).ok_or("it has no host")?;
    let places = read.into_iter().map(|(place, _)| place).collect();
    Ok(Sentinels { places, name: name.to_owned(), master })
}

/// Reads the address of one server.
fn read_one(url: &str) -> Result<ConnectionInfo, String> {
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
            ("redis-sentinel://:hunter2@h", "names no master"),
            ("redis-sentinel://:hunter2@h#", "names no master"),
            ("redis-sentinel://:p#hunter2@h#m", "%23"),
            ("redis-sentinel:///0#hunter2", "no host"),
            ("redis-sentinel://h,/0#hunter2", "no host"),
            ("redis-sentinel://h,hunter2*/0#m", "not a name"),
            ("redis-sentinel://h:hunter2/0#m", "cannot be read as a URL"),
            ("redis-sentinels://h/hunter2#m", "database must be a number"),
            ("redis-sentinel://h?sentinel=hunter2#m", "before the host"),
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
            "redis-sentinel://h#mymaster",
            "redis-sentinels://me:p%23w@a.example:1,b_2,[::1]/3?protocol=resp3#my-master.1",
        ] {
            assert_eq!(check_url(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn sentinels_are_read_with_what_is_shown_to_their_master() {
        let url = "redis-sentinels://me:p%2cw%23@a.example,10.0.0.1:1,[::1],[fe80::1]:2/3#cache.1";
        let Ok(Address::Sentinels(read)) = read(url) else { panic!("not read") };
        let places: Vec<String> = read.places.iter().map(Place::to_string).collect();
        assert_eq!(places, ["a.example:26379", "10.0.0.1:1", "[::1]:26379", "[fe80::1]:2"]);
        assert_eq!(read.places[2], Place { host: "::1".to_owned(), port: 26379 });
        assert_eq!(read.name, "cache.1");
        let settings = read.master.redis_settings();
        let shown = (settings.username(), settings.password(), settings.db());
        assert_eq!(shown, (Some("me"), Some("p,w#"), 3));
        assert!(matches!(read.master.addr(), ConnectionAddr::TcpTls { insecure: false, .. }));
        assert!(has_password(url) && !has_password("redis-sentinel://me@h#m"));
        let many = vec!["h"; SENTINELS_MAX + 1].join(",");
        assert!(check_url(&format!("redis-sentinel://{many}#m")).unwrap_err().contains("16"));
    }
}
