//! [`RedisUrl`]: the address of a Redis, which may have a password in it.

use std::fmt;
use std::ops::Deref;

/// The URL of a Redis, as it was given. Its `Debug` shows nothing of it: settings are looked at.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl Deref for RedisUrl {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisUrl(…)")
    }
}

/// What the address of a Redis looks like. Only the log can say whether one is right in full, so
/// this file looks at its beginning alone.
pub const REDIS_URL_RIGHT: &str = "must be a URL such as redis://:password@redis.example:6379/0, rediss://… or \
     redis-sentinel://host:26379,host:26379/0#mymaster";

/// What the URLs of those begin with that are reached by TLS.
pub(super) const TLS_SCHEMES: [&str; 3] = ["rediss://", "valkeys://", "redis-sentinels://"];

/// What the URLs of those begin with whose place sentinels know.
pub(super) const SENTINEL_SCHEMES: [&str; 2] = ["redis-sentinel://", "redis-sentinels://"];

pub(super) fn redis_url(text: &str) -> Result<RedisUrl, String> {
    let known = ["redis://", "valkey://", "unix://", "redis+unix://"];
    let mut known = known.iter().chain(&TLS_SCHEMES).chain(&SENTINEL_SCHEMES);
    if known.any(|scheme| text.starts_with(scheme)) {
        Ok(RedisUrl(text.to_owned()))
    } else if ["redis-cluster://", "redis-clusters://"].iter().any(|s| text.starts_with(s)) {
        Err(format!("{REDIS_URL_RIGHT}; Redis Cluster is not supported"))
    } else {
        Err(REDIS_URL_RIGHT.to_owned())
    }
}
