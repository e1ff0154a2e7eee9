//! Which servers will do.

/// The oldest Redis that has what the scripts use (LPOS, exact XADD trimming, RESP3 and PERSIST
/// inside scripts that replicate their effects).
const OLDEST: (u32, u32) = (6, 2);

/// What to say to one that is too old to even say so.
pub(super) const TOO_OLD: &str =
    "this Redis is too old: Fantail needs Redis 6.2 or newer, or Valkey";

/// Checks the answer to `INFO server`. Valkey reports the Redis version it is compatible with.
pub(super) fn check(info: &str) -> Result<(), String> {
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
    let Some(version) = version.map(str::trim) else {
        // A server that hides its version is taken at its word.
        return Ok(());
    };
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found >= OLDEST {
        return Ok(());
    }
    Err(format!("Redis {version} is too old: Fantail needs Redis 6.2 or newer, or Valkey"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_from_6_2_on_will_do() {
        for good in ["6.2.0", "7.0.15", "7.2.4", "8.2.1", "255.255.255"] {
            assert_eq!(check(&format!("# Server\r\nredis_version:{good}\r\n")), Ok(()));
        }
        for old in ["6.0.16", "5.0.7", "2.8.24"] {
            let why = check(&format!("# Server\r\nredis_version:{old}\r\n")).unwrap_err();
            assert!(why.contains(old) && why.contains("6.2"), "{why}");
        }
    }
}
