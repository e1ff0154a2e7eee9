//! Which gateways are compared, how a session is played to both, and what is said of a difference.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::join;

use crate::gateway::{Gateway, Redis, Side};
use crate::http1::joined;
use crate::normal::{Normaliser, RETRY_MILLISECONDS};
use crate::player::{Player, Record, Wire};

/// How exactly the bytes of two gateways have to agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exactness {
    /// To the byte.
    Raw,
    /// But for the division of event streams into chunks.
    Joined,
}

/// Two gateways that have to say the same.
#[derive(Clone, Debug)]
pub struct Pair {
    pub sides: [Side; 2],
    pub exactness: Exactness,
}

/// The pairs to compare: this program carrying streams both ways; or, with `FANTAIL_BEFORE`, that
/// program and this one, carrying them the same way.
pub fn pairs() -> Vec<Pair> {
    let now = PathBuf::from(env!("CARGO_BIN_EXE_fantail"));
    let side = |binary: &PathBuf, reactors| Side { binary: binary.clone(), reactors };
    match before() {
        None => {
            vec![Pair { sides: ["1", "0"].map(|r| side(&now, r)), exactness: Exactness::Joined }]
        }
        Some(before) => {
            let any = std::env::var_os("FANTAIL_CHUNKS").is_some();
            let exactness = if any { Exactness::Joined } else { Exactness::Raw };
            let both = |reactors| [side(&before, reactors), side(&now, reactors)];
            ["1", "0"].map(|reactors| Pair { sides: both(reactors), exactness }).into()
        }
    }
}

/// The program to compare with, if there is one.
pub fn before() -> Option<PathBuf> {
    std::env::var_os("FANTAIL_BEFORE").map(PathBuf::from)
}

/// Where entries live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    Embedded,
    Redis,
}

/// Starts a gateway with these settings beside those that all have: nothing happens by time alone.
pub async fn start(side: &Side, settings: &[(&str, &str)]) -> Gateway {
    let retry = format!("{RETRY_MILLISECONDS}ms");
    let of_all =
        [("FANTAIL_HEARTBEAT", "10m"), ("FANTAIL_DRAIN", "100ms"), ("FANTAIL_RETRY", &*retry)];
    Gateway::start(side, &[&of_all[..], settings].concat()).await
}

/// Plays a session to both gateways of each pair, each started for it alone, on both logs and over
/// both wires, and compares everything that came back.
pub async fn everywhere(settings: &[(&str, &str)], session: impl AsyncFn(&mut Player)) {
    for log in [Log::Embedded, Log::Redis] {
        for wire in [Wire::Http1, Wire::Http2] {
            compare(log, wire, settings, &session).await;
        }
    }
}

/// The same on one log and over one wire.
pub async fn compare(
    log: Log,
    wire: Wire,
    settings: &[(&str, &str)],
    session: &impl AsyncFn(&mut Player),
) {
    let redis = match log {
        Log::Embedded => None,
        Log::Redis => Some(Redis::start().await),
    };
    for pair in pairs() {
        let [one, other] = &pair.sides;
        let play = async |side: &Side| {
            let url = redis.as_ref().map(Redis::url);
            let prefix = unique_prefix();
            let mut settings = settings.to_vec();
            if let Some(url) = &url {
                settings.extend([("FANTAIL_REDIS_URL", &**url), ("FANTAIL_REDIS_PREFIX", &prefix)]);
            }
            let mut player = Player::new(start(side, &settings).await, wire).await;
            session(&mut player).await;
            player.finish().await
        };
        let (said, said_by_other) = join!(play(one), play(other));
        let said = [said, said_by_other].map(|records| normalised(records, pair.exactness));
        if let Some(difference) = difference_of_records(&said) {
            panic!("{log:?}, {wire:?}: {one:?} and {other:?} differ in {difference}");
        }
    }
}

/// Gateways on one Redis do not meet.
fn unique_prefix() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("gateway-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn normalised(records: Vec<Record>, exactness: Exactness) -> Vec<Record> {
    let mut normaliser = Normaliser::default();
    let normalise = |Record { what, bytes }| {
        let what = String::from_utf8(normaliser.normalise(what.as_bytes())).unwrap();
        let bytes = match exactness {
            Exactness::Raw => bytes,
            Exactness::Joined => joined(&bytes),
        };
        Record { what, bytes: normaliser.normalise(&bytes) }
    };
    records.into_iter().map(normalise).collect()
}

fn difference_of_records([one, other]: &[Vec<Record>; 2]) -> Option<String> {
    for (one, other) in one.iter().zip(other) {
        if one.what != other.what {
            return Some(format!("what was asked: {:?} and {:?}", one.what, other.what));
        }
        if let Some(difference) = difference(&one.bytes, &other.bytes) {
            return Some(format!("{}:\n{difference}", one.what));
        }
    }
    (one.len() != other.len()).then(|| "the number of records".to_owned())
}

/// Shows where two byte strings begin to differ.
pub fn difference(one: &[u8], other: &[u8]) -> Option<String> {
    if one == other {
        return None;
    }
    let at = one.iter().zip(other).position(|(a, b)| a != b);
    let at = at.unwrap_or(one.len().min(other.len()));
    let show = |bytes: &[u8]| {
        let part = &bytes[at.saturating_sub(400)..bytes.len().min(at + 400)];
        part.escape_ascii().to_string().replace("\\n", "\\n\n    ")
    };
    Some(format!(
        "  of {} and {} bytes, from byte {at} on\n  one:\n    {}\n  other:\n    {}",
        one.len(),
        other.len(),
        show(one),
        show(other)
    ))
}
