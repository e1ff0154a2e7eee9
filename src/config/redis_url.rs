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
pub const REDIS_URL_RIGHT: &str =
    "must be a URL such as redis://:password@redis.example:6379/0 or rediss://…";

pub(super) fn redis_url(text: &str) -> Result<RedisUrl, String> {
    let known = ["redis://", "rediss://", "valkey://", "valkeys://", "unix://", "redis+unix://"];
    if known.iter().any(|scheme| text.starts_with(scheme)) {
        Ok(RedisUrl(text.to_owned()))
    } else {
        Err(REDIS_URL_RIGHT.to_owned())
    }
}
