//! Whether the user of the URL may do what Fantail does.

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError};

use super::keys::Keys;
use super::scripts::{Call, RIGHTS};
use crate::topic::Topic;

/// Tries what can be tried, and asks for the rest.
///
/// # Errors
/// What Redis says, or `NOPERM` and what this user may not do.
pub(super) async fn check(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    canary_channel: &str,
) -> Result<(), RedisError> {
    // Nobody takes this for a canary: it is no number.
    let publish = redis::cmd("PUBLISH").arg(canary_channel).arg("rights").to_owned();
    let _: i64 = publish.query_async(connection).await?;
    let Ok(topic) = Topic::new("rights") else { return Ok(()) };
    // Scripts are loaded and called by their digests, as all others are.
    let call = Call::new(&RIGHTS, &keys.topic(&topic).all()).arg(keys.channel(&topic));
    let denied: Vec<String> = call.invoke(connection).await?;
    if denied.is_empty() {
        return Ok(());
    }
    let topics = keys.channel(&topic);
    let why = format!("on keys and channels such as {topics} it may not {}", denied.join(", "));
    Err(RedisError::from((ErrorKind::Client, "NOPERM", why)))
}
