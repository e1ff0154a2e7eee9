//! What Redis runs for a publish, called past the gateway.

use crate::redis::Redis;

/// The script.
const SCRIPT: &str = concat!(
    include_str!("../../../src/log/redis/server.lua"),
    "\n",
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

/// What a call is for.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Topic {
    /// A topic that perhaps has no log yet: all keys are declared.
    New,
    /// One that has.
    Written,
}

/// The call that appends an event with this text to a topic and announces it on this channel: KEYS
/// and ARGV as append.lua lists them, with the gateway's defaults.
pub(crate) fn call(
    script: &str,
    (topic, is): (&str, Topic),
    channel: &str,
    data: &str,
) -> Vec<String> {
    let keys = ["seq", "log", "meta", "births", "board"];
    let keys = if is == Topic::New { &keys[..] } else { &keys[..3] };
    let mut call = vec!["EVALSHA".to_owned(), script.to_owned(), keys.len().to_string()];
    call.extend(keys.iter().map(|key| format!("fantail:{{{topic}}}:{key}")));
    call.extend(
        [channel, "abcdef", "1000 67108864", "86400000", "", "", "0", "0"].map(str::to_owned),
    );
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
