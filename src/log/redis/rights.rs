//! Whether the user of the URL may do what Fantail does.

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError};

use super::keys::Keys;
use super::scripts::{Call, RIGHTS};
use crate::topic::Topic;

/// Tries what can be tried, and asks for the rest; `waits_for_replicas` says that writes do, which
/// takes one right more.
///
/// # Errors
/// What Redis says, or `NOPERM` and what this user may not do.
pub(super) async fn check(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    canary_channel: &str,
    waits_for_replicas: bool,
) -> Result<(), RedisError> {
    // Nobody takes this for a canary: it is no number.
    let publish = redis::cmd("PUBLISH").arg(canary_channel).arg("rights").to_owned();
    let _: i64 = publish.query_async(connection).await?;
    let Ok(topic) = Topic::new("rights") else { return Ok(()) };
    // Scripts are loaded and called by their digests, as all others are.
    let call = Call::new(&RIGHTS, &keys.topic(&topic).of_log())
        .arg(keys.channel(&topic))
        .arg(i32::from(waits_for_replicas));
    let denied: Vec<String> = call.invoke(connection).await?;
    if denied.is_empty() {
        return Ok(());
    }
    let topics = keys.channel(&topic);
    let why = format!("on keys and channels such as {topics} it may not {}", denied.join(", "));
    Err(RedisError::from((ErrorKind::Client, "NOPERM", why)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    /// All text of this room's files with this ending, without what is for tests, and what is said
    /// to sentinels.
    fn text(dir: &Path, ending: &str) -> String {
        let mut all = String::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with("sentinels") {
                continue;
            } else if path.is_dir() {
                all += &text(&path, ending);
            } else if name.ends_with(ending) && !["tests.rs", "rights.lua"].contains(&name) {
                let file = std::fs::read_to_string(&path).unwrap();
                all += file.split("#[cfg(test)]\nmod tests {").next().unwrap();
            }
        }
        all
    }

    /// The names that stand after `before`, up to the first character that no name has.
    fn names(text: &str, before: &str) -> BTreeSet<String> {
        let is_of_name = |c: &char| c.is_ascii_alphabetic() || *c == '_';
        let rests = text.split(before).skip(1);
        let names = rests.map(|rest| rest.chars().take_while(is_of_name).collect::<String>());
        names.filter(|name| !name.is_empty()).collect()
    }

    /// The commands of redis-rs' methods that are called on this, one after the other.
    fn commands_of_methods(text: &str, variable: &str) -> BTreeSet<String> {
        const OTHER: [&str; 11] = [
            "cmd",
            "arg",
            "ignore",
            "len",
            "is_empty",
            "query_async",
            "await",
            "map_err",
            "clone",
            "state",
            "to_owned",
        ];
        let before = format!(" {variable}.");
        let mut methods = names(text, &before);
        for rest in text.split(&before).skip(1) {
            methods.append(&mut names(rest.split([';', '{', '}']).next().unwrap(), ")."));
        }
        methods.retain(|method| !OTHER.contains(&method.as_str()));
        methods.into_iter().map(|method| method.replace('_', "").to_uppercase()).collect()
    }

    #[test]
    fn whatever_is_sent_or_called_is_asked_for_and_nothing_else() {
        let room = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/log/redis");
        let (lua, mut rust) = (text(&room, ".lua"), text(&room, ".rs"));
        rust += &std::fs::read_to_string(room.with_extension("rs")).unwrap();
        let mut called = names(&lua, "redis.call('");
        called.append(&mut names(&lua, "redis.pcall('"));
        // The one script that stands in no file of its own.
        called.append(&mut names(&rust, "redis.call('"));
        called.append(&mut names(&rust, "cmd(\""));
        called.append(&mut commands_of_methods(&rust, "pipe"));
        called.append(&mut commands_of_methods(&rust, "connection"));
        let mut asked_for = names(include_str!("rights.lua"), "{ '");
        assert!(called.len() > 30, "what is called was not found: {called:?}");
        let missing: Vec<_> = called.difference(&asked_for).collect();
        assert!(missing.is_empty(), "rights.lua does not ask for {missing:?}");
        // Those of a connection's beginning are tried.
        asked_for.retain(|command| !called.contains(command));
        assert!(asked_for.is_empty(), "rights.lua asks for {asked_for:?}, which nobody calls");
    }
}
