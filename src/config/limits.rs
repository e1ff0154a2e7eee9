//! [`ClientLimits`]: how much of a node one client may have, and all of them together.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{number, size};

/// Limits that are counted by subject (the claim `sub` of a token) or by client address.
#[derive(Debug, Clone, clap::Args)]
pub struct ClientLimits {
    /// Streams this node accepts of one subject (the claim sub of tokens), 0 for no limit
    #[arg(long, env = "FANTAIL_MAX_CONNECTIONS_PER_SUBJECT", default_value = "1000", value_parser = number::<0, 10_000_000>)]
    pub max_connections_per_subject: usize,

    /// Topics this node follows at a time, for all streams together, 1 to 10000000
    #[arg(long, env = "FANTAIL_MAX_WATCHED_TOPICS", default_value = "300000", value_parser = number::<1, 10_000_000>)]
    pub max_watched_topics: usize,

    /// Topics that the streams of one client address follow, counted once for each stream, 0 for no limit; loopback and trusted proxies have none
    #[arg(long, env = "FANTAIL_MAX_WATCHED_TOPICS_PER_ADDRESS", default_value = "10000", value_parser = number::<0, 10_000_000>)]
    pub max_watched_topics_per_address: usize,

    /// Topics that nobody watched on this node before, by subject or client address, as many within a time as 10000/100s says, 0 for no limit; loopback and trusted proxies have none
    #[arg(long, env = "FANTAIL_MAX_NEW_TOPICS", default_value = "10000/100s")]
    pub max_new_topics: Rate,

    /// Bytes of text kept per topic for replay, besides entries, as bytes or with KiB, MiB or GiB, 2MiB to 1024GiB; the newest entry is kept however large it is
    #[arg(long, env = "FANTAIL_HISTORY_BYTES", default_value = "64MiB", value_parser = size::<{ 2 << 20 }, { 1 << 40 }>)]
    pub history_bytes: usize,

    /// Requests by subject or client address, such as 1000/10s, 0 for no limit; loopback and trusted proxies have none [default: 1000/10s for those who show no token where there is a key, else none]
    #[arg(long, env = "FANTAIL_MAX_REQUESTS")]
    pub max_requests: Option<Rate>,

    /// Events that are published, and changes of boards, by subject or client address, such as 1000/10s, 0 for no limit; loopback and trusted proxies have none [default: 1000/10s for those who show no token where there is a key, else none]
    #[arg(long, env = "FANTAIL_MAX_PUBLISHED")]
    pub max_published: Option<Rate>,
}

/// So many of something within a time: as many at once, and as many again while the time passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many; 0 is no limit.
    pub count: u32,
    /// Within which time.
    pub window: Duration,
}

/// The longest time that counts, and the shortest.
const WINDOW_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const WINDOW_MIN: Duration = Duration::from_millis(1);

/// As many as anybody could want.
const COUNT_MAX: u32 = 1_000_000_000;

/// For browsers without a token: a thousand of them behind one address come back to a page together
/// and are not noticed; a script that asks as fast as it can is.
const WITHOUT_TOKEN: Rate = Rate { count: 1_000, window: Duration::from_secs(10) };

impl Rate {
    /// No limit.
    pub const NONE: Rate = Rate { count: 0, window: WINDOW_MIN };
}

/// A rate for those who have shown a token, and one for those who have not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateByToken {
    /// With a token.
    pub with: Rate,
    /// Without.
    pub without: Rate,
}

impl ClientLimits {
    /// Of requests, where there is a key or not.
    pub fn requests(&self, has_key: bool) -> RateByToken {
        by_token(self.max_requests, has_key)
    }

    /// Of what is published and changed.
    pub fn published(&self, has_key: bool) -> RateByToken {
        by_token(self.max_published, has_key)
    }
}

/// What an application server does with its token is an attack if a browser does it, and only its
/// operator knows how much it does. So nobody is limited by default but those who show no token
/// where all that is not for everybody needs one.
fn by_token(set: Option<Rate>, has_key: bool) -> RateByToken {
    match set {
        Some(rate) => RateByToken { with: rate, without: rate },
        None if has_key => RateByToken { with: Rate::NONE, without: WITHOUT_TOKEN },
        None => RateByToken { with: Rate::NONE, without: Rate::NONE },
    }
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Rate, &'static str> {
        const RIGHT: &str =
            "must be a number within a time from 1ms to 1day, such as 1000/10s, or 0 for no limit";
        if text.trim() == "0" {
            return Ok(Rate::NONE);
        }
        let (count, window) = text.split_once('/').ok_or(RIGHT)?;
        let count = count.trim().parse().ok().filter(|count| (1..=COUNT_MAX).contains(count));
        let window = humantime::parse_duration(window.trim()).ok();
        let window = window.filter(|window| (WINDOW_MIN..=WINDOW_MAX).contains(window));
        count.zip(window).map(|(count, window)| Rate { count, window }).ok_or(RIGHT)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            0 => f.write_str("0"),
            count => write!(f, "{count}/{}", humantime::format_duration(self.window)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_within_a_time() {
        let rate = |count, seconds| Ok(Rate { count, window: Duration::from_secs(seconds) });
        for (text, read) in [
            ("1000/10s", rate(1_000, 10)),
            (" 5 / 1m 30s ", rate(5, 90)),
            ("1000000000/1day", rate(1_000_000_000, 86_400)),
            ("0", Ok(Rate::NONE)),
        ] {
            assert_eq!(text.parse(), read, "{text}");
        }
        for wrong in ["", "5", "0/1s", "-1/1s", "5/", "5/0s", "5/2days", "5/s", "1000000001/1s"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
        assert_eq!("90/1m 30s".parse::<Rate>().unwrap().to_string(), "90/1m 30s");
    }

    #[test]
    fn who_shows_no_token_where_there_is_a_key_has_a_limit_by_default_and_nobody_else() {
        let set = "5/1s".parse().unwrap();
        let all = RateByToken { with: set, without: set };
        assert_eq!([true, false].map(|has_key| by_token(Some(set), has_key)), [all, all]);
        let none = by_token(None, false);
        assert_eq!([none.with, none.without], [Rate::NONE, Rate::NONE]);
        let keyed = by_token(None, true);
        assert_eq!([keyed.with, keyed.without], [Rate::NONE, WITHOUT_TOKEN]);
    }
}
