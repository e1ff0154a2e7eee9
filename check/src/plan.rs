//! [`Plan`]: what a check does, and [`GatewayUrl`]: where.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Where a gateway, or a load balancer before gateways, answers: an `http://` or `https://` URL,
/// with a path if it is served below one.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct GatewayUrl(String);

impl GatewayUrl {
    /// The URL without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As it may stand in a log: of a path, nobody knows what is in it.
    pub(super) fn place(&self) -> String {
        let host = self.0.find("://").map_or(0, |at| at + 3);
        match self.0[host..].find('/') {
            Some(end) => format!("{}/…", &self.0[..host + end]),
            None => self.0.clone(),
        }
    }
}

impl FromStr for GatewayUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<GatewayUrl, String> {
        let right = "must be a URL such as http://127.0.0.1:3000 or https://events.example";
        let text = text.trim_end_matches('/');
        let url: hyper::Uri = text.parse().map_err(|_| right.to_owned())?;
        let scheme = url.scheme_str().unwrap_or_default();
        let has_user = url.authority().is_none_or(|authority| authority.as_str().contains('@'));
        let has_more = url.query().is_some() || text.contains('#');
        let has_word_for_port = url.authority().is_some_and(|authority| {
            authority.as_str() != authority.host() && authority.port_u16().is_none()
        });
        if !["http", "https"].contains(&scheme) || has_user || has_more || has_word_for_port {
            return Err(right.to_owned());
        }
        Ok(GatewayUrl(text.to_owned()))
    }
}

impl fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a check does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The gateways that subscribers roam between and publishers publish to. At least one.
    pub urls: Vec<GatewayUrl>,
    /// Where to publish instead, if not to [`Plan::urls`].
    pub publish_urls: Vec<GatewayUrl>,
    /// Topics, 1 to 1,000. Their names are drawn at random, so that two checks do not meet.
    pub topics: usize,
    /// Publishers, 1 to 10,000. Each has one request under way at a time, so together they publish
    /// at most their number divided by the time of one answer.
    pub publishers: usize,
    /// Subscribers, 1 to 100,000: streams that are open at a time.
    pub subscribers: usize,
    /// Events per second, from all publishers together.
    pub rate: f64,
    /// How long to publish: [`Check::until_planned_end`](super::Check::until_planned_end) waits
    /// for it, and subscribers that join late do so within it.
    pub duration: Duration,
    /// How long a subscriber stays on average before it leaves in order to come back elsewhere;
    /// every fourth stays for good. `None`: nobody leaves.
    pub roam: Option<Duration>,
    /// Sent with every request, as names and values.
    pub headers: Vec<(String, String)>,
    /// Whether to believe every TLS certificate, such as the self-signed one of a demo.
    pub insecure: bool,
    /// Size of an event's data in bytes, at least what says which event it is (some 60).
    pub payload_bytes: usize,
    /// How long to wait for the last deliveries after the last event.
    pub settle: Duration,
    /// How long a subscriber waits at most before it comes back to a stream that broke; the wait
    /// that the stream told if that is shorter.
    pub retry_max: Duration,
    /// A stream on which no byte came for so long is given up: more than two heartbeats.
    pub silence_max: Duration,
    /// How long a request may take until its answer, and a stream until its head.
    pub answer_timeout: Duration,
    /// Whether an event that was sent again with the same `Idempotency-Key` must not be in the log
    /// twice.
    pub idempotent: bool,
    /// Whether the log may lose what it acknowledged as long as it says so.
    pub loss_expected: bool,
    /// Of the subscribers, whether some join late and some ask for everything that is retained.
    pub late_joiners: bool,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            urls: Vec::new(),
            publish_urls: Vec::new(),
            topics: 10,
            publishers: 4,
            subscribers: 50,
            rate: 200.0,
            duration: Duration::from_secs(30),
            roam: Some(Duration::from_secs(10)),
            headers: Vec::new(),
            insecure: false,
            payload_bytes: 100,
            settle: Duration::from_secs(20),
            retry_max: Duration::from_secs(1),
            silence_max: Duration::from_secs(40),
            answer_timeout: Duration::from_secs(10),
            idempotent: true,
            loss_expected: false,
            late_joiners: true,
        }
    }
}

/// When a subscriber joins, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Join {
    /// Before the first event.
    First,
    /// After a part of the time, in percent, at the newest entry.
    Now(u32),
    /// After a part of the time, in percent, at the oldest entry.
    Earliest(u32),
}

/// What one subscriber does.
#[derive(Debug, Clone)]
pub(super) struct Role {
    pub(super) topics: Vec<usize>,
    pub(super) join: Join,
    pub(super) roams: bool,
}

impl Plan {
    /// Where to publish.
    pub(super) fn publish_to(&self) -> &[GatewayUrl] {
        if self.publish_urls.is_empty() { &self.urls } else { &self.publish_urls }
    }

    /// Whether it can be done.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub(super) fn validate(&self) -> Result<(), String> {
        if self.urls.is_empty() {
            return Err("name at least one URL to check".to_owned());
        }
        if !(self.rate > 0.0 && self.rate <= 1e6) {
            let rate = self.rate;
            return Err(format!("the rate must be more than 0 and at most 1000000, not {rate}"));
        }
        for (name, value, max) in [
            ("topics", self.topics, 1_000),
            ("publishers", self.publishers, 10_000),
            ("subscribers", self.subscribers, 100_000),
            ("the payload in bytes", self.payload_bytes, 1 << 20),
        ] {
            if !(1..=max).contains(&value) {
                return Err(format!("{name} must be 1 to {max}, not {value}"));
            }
        }
        // A stream carries at most 100 topics, and every topic needs a witness from the start.
        let witnesses = self.roles().iter().filter(|role| role.join == Join::First).count();
        if self.topics.div_ceil(witnesses.max(1)) > 90 {
            return Err(format!("{} topics need more subscribers", self.topics));
        }
        Ok(())
    }

    /// What each subscriber does. Those that join first watch all topics between them, so that
    /// every event has a witness; every third follows some more topics over the same stream.
    pub(super) fn roles(&self) -> Vec<Role> {
        let joins = (0..self.subscribers).map(|n| match n % 5 {
            3 if self.late_joiners => Join::Earliest((n * 37 % 80) as u32 + 5),
            4 if self.late_joiners => Join::Now((n * 53 % 80) as u32 + 5),
            _ => Join::First,
        });
        let joins: Vec<Join> = joins.collect();
        let early = joins.iter().filter(|join| **join == Join::First).count();
        let mut first = 0;
        let roles = joins.into_iter().enumerate().map(|(n, join)| {
            let turn = if join == Join::First { first } else { n };
            let mut topics: Vec<usize> = if join == Join::First && self.topics > early {
                (0..self.topics).filter(|topic| topic % early == turn).collect()
            } else {
                vec![turn % self.topics.max(1)]
            };
            if n % 3 == 1 {
                for more in 1..4 {
                    let topic = (turn + more) % self.topics.max(1);
                    if !topics.contains(&topic) {
                        topics.push(topic);
                    }
                }
            }
            first += usize::from(join == Join::First);
            Role { topics, join, roams: n % 4 != 3 }
        });
        roles.collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_are_http_or_https_and_may_have_a_path() {
        for (text, url) in [
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("https://events.example/", "https://events.example"),
            ("http://[::1]:80/fantail/", "http://[::1]:80/fantail"),
        ] {
            assert_eq!(text.parse::<GatewayUrl>().unwrap().as_str(), url);
        }
        let url: GatewayUrl = "http://[::1]:80/hunter2".parse().unwrap();
        assert_eq!(url.place(), "http://[::1]:80/…");
        for text in [
            "",
            "127.0.0.1:3000",
            "ftp://a",
            "http://",
            "http://u:p@a",
            "http://a/?x=1",
            "http://a/#x",
            "http://a#x",
            "http://a:word",
            "http://a:99999",
        ] {
            assert!(text.parse::<GatewayUrl>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_topic_has_a_witness_from_the_start(
            subscribers in 1..200_usize, topics in 1..80_usize, late_joiners in any::<bool>()
        ) {
            let plan = Plan {
                urls: vec!["http://a".parse().unwrap()],
                subscribers, topics, late_joiners,
                ..Plan::default()
            };
            prop_assert_eq!(plan.validate(), Ok(()));
            let roles = plan.roles();
            prop_assert_eq!(roles.len(), subscribers);
            for topic in 0..topics {
                let witness = |role: &&Role| role.join == Join::First && role.topics.contains(&topic);
                prop_assert!(roles.iter().find(witness).is_some(), "topic {topic}");
            }
            prop_assert!(roles.iter().all(|role| (1..=100).contains(&role.topics.len())));
        }
    }
}
