//! Secrets that stand in the arguments, where every user of the machine can read them.

use std::ffi::OsString;

use fantail::log::redis::has_password;

/// What is a secret, or may have one in it; how that shows in its value; and where it is safe.
const SECRETS: [Secret; 3] = [
    Secret {
        flag: "--redis-url",
        is_in: has_password,
        instead: "FANTAIL_REDIS_URL, or FANTAIL_REDIS_PASSWORD_FILE",
    },
    Secret {
        flag: "--redis-sentinel-password",
        is_in: |password| !password.is_empty(),
        instead: "FANTAIL_REDIS_SENTINEL_PASSWORD, or FANTAIL_REDIS_SENTINEL_PASSWORD_FILE",
    },
    Secret {
        flag: "--jwt-secret",
        is_in: |secret| !secret.is_empty(),
        instead: "FANTAIL_JWT_SECRET, or FANTAIL_JWT_SECRET_FILE",
    },
];

struct Secret {
    flag: &'static str,
    is_in: fn(&str) -> bool,
    instead: &'static str,
}

/// Warnings about secrets that `ps` shows.
pub(crate) fn warnings(arguments: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let arguments: Vec<String> =
        arguments.into_iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let value_of = |flag: &str| {
        arguments.iter().enumerate().find_map(|(at, argument)| {
            let rest = argument.strip_prefix(flag)?;
            match rest.strip_prefix('=') {
                Some(value) => Some(value),
                None if rest.is_empty() => arguments.get(at + 1).map(String::as_str),
                None => None,
            }
        })
    };
    let exposed = SECRETS.iter().filter(|secret| value_of(secret.flag).is_some_and(secret.is_in));
    let warning = |Secret { flag, instead, .. }: &Secret| {
        format!(
            "{flag} has a secret in it, and every user of this machine can read the arguments of \
             a process (ps): change the secret, and give the new one by {instead}"
        )
    };
    exposed.map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(arguments: &[&str]) -> usize {
        let warnings = warnings(arguments.iter().map(OsString::from));
        assert!(warnings.iter().all(|warning| !warning.contains("hunter2")), "{warnings:?}");
        warnings.len()
    }

    #[test]
    fn a_password_on_the_command_line_is_warned_of_and_not_repeated() {
        for arguments in [
            &["fantail", "--redis-url", "redis://:hunter2@h"][..],
            &["fantail", "serve", "--redis-url=rediss://app:hunter2@h:1/2"],
            &["fantail", "--redis-url", "unix:///run/r.sock?user=app&pass=hunter2"],
            &["fantail", "--redis-url", "redis-sentinel://:hunter2@a,b#m"],
            &["fantail", "--redis-sentinel-password=hunter2"],
            &["fantail", "--jwt-secret", "hunter2"],
        ] {
            assert_eq!(warned(arguments), 1, "{arguments:?}");
        }
        for arguments in [
            &["fantail"][..],
            &["fantail", "--redis-url", "redis://h"],
            &["fantail", "--redis-url", "redis://app@h"],
            &["fantail", "--redis-url"],
            &["fantail", "--redis-password-file", "/run/secrets/redis"],
            &["fantail", "--redis-sentinel-password-file", "/run/secrets/sentinel"],
            &["fantail", "--jwt-secret-file", "/run/secrets/jwt"],
        ] {
            assert_eq!(warned(arguments), 0, "{arguments:?}");
        }
    }
}
