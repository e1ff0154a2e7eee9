//! What Redis runs for a publish, called past the gateway.

use crate::redis::Redis;

/// The script.
const SCRIPT: &str = concat!(
    include_str!("../../../src/log/redis/log.lua"),
    "\n",
    include_str!("../../../src/log/redis/append.lua"),
    "\n"
);

/// Loads the script; returns its name.
///
/// # Errors
/// When Redis refuses.
pub(crate) fn load(redis: &Redis) -> Result<String, String> {
    redis.ask(&["SCRIPT", "LOAD", SCRIPT])
}

/// The call that appends an event with this text to a topic and announces it on this channel: KEYS
/// and ARGV as append.lua lists them, with the gateway's defaults.
pub(crate) fn call(script: &str, topic: &str, channel: &str, data: &str) -> Vec<String> {
    let mut call = vec!["EVALSHA".to_owned(), script.to_owned(), "4".to_owned()];
    call.extend(["seq", "log", "meta", "board"].map(|key| format!("fantail:{{{topic}}}:{key}")));
    call.extend([channel, "abcdef", "1000", "86400000", "", "600000", "0", "0"].map(str::to_owned));
    call.push(format!("data: {data}\n\n"));
    call
}

/// The channel on which a topic's entries are announced.
pub(crate) fn channel(topic: &str) -> String {
    format!("fantail:{{{topic}}}")
}

/// How many events were ever appended to a topic.
///
/// # Errors
/// When Redis does not say.
pub(crate) fn head(redis: &Redis, topic: &str) -> Result<usize, String> {
    let head = redis.ask(&["GET", &format!("fantail:{{{topic}}}:seq")])?;
    head.parse().map_err(|_| format!("Redis says that the head is {head}"))
}
