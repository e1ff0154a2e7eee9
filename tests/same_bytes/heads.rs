//! Request heads over HTTP/1.1, thousands of them, drawn at random: both gateways have to give the
//! same answer, and have to take the same bytes for the next request on the connection.

mod request;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::io::AsyncWriteExt;
use tokio::join;

use crate::compare::{Exactness, Pair, difference, pairs, start};
use crate::gateway::{Gateway, PATIENCE};
use crate::http1::{Connection, answer_length, find, joined};
use crate::normal::Normaliser;
use request::{Pieces, Request};

/// The request after each.
const NEXT: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: next.localhost\r\nConnection: close\r\n\r\n";

const HELLO: &[u8] = b"\"type\":\"connected\",\"node\":\"gateway\"}\n";
const HEARTBEAT: &[u8] = b": heartbeat\n";
const HEARTBEAT_CHUNK: &[u8] = b"C\r\n: heartbeat\n\r\n";

/// Connections to each gateway at a time.
const AT_ONCE: usize = 48;

/// How a request is sent, and when its gateway is taken to wait for more.
#[derive(Clone, Copy)]
struct Pace {
    /// Between two pieces.
    pause: Duration,
    /// Between two single bytes.
    pause_of_bytes: Duration,
    silence: Duration,
}

/// As fast as it goes: what a gateway has read at a time, and so whether it finds the rest of a body
/// that nobody wanted, is up to chance.
const FAST: Pace = Pace {
    pause: Duration::from_millis(1),
    pause_of_bytes: Duration::ZERO,
    silence: Duration::from_millis(150),
};

/// So slow that everything sent was read before anything else is.
const SLOW: Pace = Pace {
    pause: Duration::from_millis(50),
    pause_of_bytes: Duration::from_millis(2),
    silence: Duration::from_millis(700),
};

/// How often a request is sent slowly whose answers differed. None of the answers of one gateway may
/// be among those of the other then: machines stand still sometimes, and what is up to chance for
/// one is up to chance for both.
const SLOW_TIMES: u64 = 5;

/// A number from the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[tokio::test]
async fn request_heads_of_every_kind() {
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    let count = number("HEADS").unwrap_or(2_000);
    let numbers = number("HEAD").map_or(0..count, |number| number..number + 1);
    for pair in pairs() {
        let began_at = Instant::now();
        let settings = [("FANTAIL_HEARTBEAT", "250ms")];
        let [one, other] = &pair.sides;
        let (one, other) = join!(start(one, &settings), start(other, &settings));
        let both = Both { pair: &pair, gateways: [one, other] };
        let both = &both;
        let outcomes: Vec<(u64, [Vec<u8>; 2])> = stream::iter(numbers.clone())
            .map(|number| async move {
                let request = Request::draw(seed, number, &topic(number, 0));
                (number, both.ask(&request, FAST).await)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut kinds = HashMap::<String, usize>::new();
        let mut again = 0;
        for (number, [one, other]) in &outcomes {
            *kinds.entry(kind(one)).or_default() += 1;
            if one != other {
                again += 1;
                both.explain(seed, *number).await;
            }
        }
        println!(
            "{count} request heads with SEED={seed} to {pair:?}: {kinds:?}, {again} of them once more \
             slowly, in {:.1} s",
            began_at.elapsed().as_secs_f64()
        );
        if outcomes.len() < 100 {
            continue;
        }
        let streams = kinds.get("a stream").copied().unwrap_or_default();
        assert!(streams > outcomes.len() / 5, "most requests are nearly ordinary");
        // Otherwise nothing would be compared: heads past the HTTP server, and with it.
        for (side, gateway) in pair.sides.iter().zip(&both.gateways) {
            if side.is_of_now() {
                let taken = taken(gateway).await;
                let enough = outcomes.len() / 20..streams;
                assert_eq!(enough.contains(&taken), side.reactors != "0", "{taken} of {side:?}");
            }
        }
    }
}

/// How many heads a gateway has taken past the HTTP server.
async fn taken(gateway: &Gateway) -> usize {
    let metrics = gateway.get("/metrics").await;
    let series = "fantail_request_heads_total{outcome=\"taken\"} ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(series));
    value.map_or(0, |value| value.parse().unwrap())
}

/// What came of a request, roughly.
fn kind(answer: &[u8]) -> String {
    if find(answer, HELLO).is_some() {
        return "a stream".to_owned();
    }
    let text = String::from_utf8_lossy(answer);
    text.lines().next().map_or("nothing", |line| line.get(9..12).unwrap_or("?")).to_owned()
}

/// Two gateways that have to answer the same.
struct Both<'a> {
    pair: &'a Pair,
    gateways: [Gateway; 2],
}

impl Both<'_> {
    /// Sends a request to both; what came back, normalised.
    async fn ask(&self, request: &Request, pace: Pace) -> [Vec<u8>; 2] {
        let [one, other] = &self.gateways;
        let (one, other) = join!(exchange(one, request, pace), exchange(other, request, pace));
        [one, other].map(|bytes| {
            let bytes = match self.pair.exactness {
                Exactness::Raw => bytes,
                Exactness::Joined => joined(&bytes),
            };
            Normaliser::default().normalise(&bytes)
        })
    }

    /// Asks again, slowly, and panics with the simplest request that is still answered differently.
    async fn explain(&self, seed: u64, number: u64) {
        let draw = |attempt| Request::draw(seed, number, &topic(number, attempt));
        let Some(mut answers) = self.differ(draw).await else { return };
        let mut request = draw(SLOW_TIMES + 1);
        'simpler: loop {
            for simpler in request.simpler() {
                if let Some(differ) = self.differ(|_| simpler.clone()).await {
                    (request, answers) = (simpler, differ);
                    continue 'simpler;
                }
            }
            break;
        }
        panic!(
            "SEED={seed} HEAD={number}: {:?} answer differently to\n{}\nsent {:?}, followed at once: \
             {}\n{}",
            self.pair,
            request.bytes().escape_ascii(),
            request.pieces,
            request.followed_at_once,
            difference(&answers[0], &answers[1]).unwrap_or_default()
        );
    }

    /// Two answers, if none of one gateway is among those of the other.
    async fn differ(&self, draw: impl Fn(u64) -> Request) -> Option<[Vec<u8>; 2]> {
        let (mut ones, mut others) = (Vec::new(), Vec::new());
        for attempt in 1..=SLOW_TIMES {
            let [one, other] = self.ask(&draw(attempt), SLOW).await;
            ones.push(one);
            others.push(other);
            if ones.iter().any(|one| others.contains(one)) {
                return None;
            }
        }
        ones.pop().zip(others.pop()).map(|(one, other)| [one, other])
    }
}

/// A name for the topic of one attempt; all are of the same length.
fn topic(number: u64, attempt: u64) -> String {
    format!("t{number:07}{attempt}")
}

/// Sends a request and the next over one connection; everything that comes back, but for heartbeats.
/// A stream is left at the heartbeat after the next request was sent.
async fn exchange(gateway: &Gateway, request: &Request, pace: Pace) -> Vec<u8> {
    let mut connection = Connection::open(gateway.address).await;
    let pieces = request.pieces(NEXT);
    let head_length = request.bytes().len() - request.body.len();
    let mut sent = 0;
    for piece in &pieces {
        let pause = match &request.pieces {
            // What comes behind a head may find its answer being written.
            Pieces::Bytes if sent != head_length => pace.pause_of_bytes,
            _ => pace.pause,
        };
        match pause {
            Duration::ZERO => tokio::task::yield_now().await,
            _ if sent == 0 => {}
            _ => tokio::time::sleep(pause).await,
        }
        connection.send(piece).await;
        sent += piece.len();
    }
    let mut next_sent = request.followed_at_once;
    let mut nothing_more = false;
    let mut heard_from = None;
    let began_at = Instant::now();
    loop {
        let hello = find(&connection.received, HELLO);
        let answered =
            hello.is_some() || answer_length(&connection.received, request.is_to_head()).is_some();
        if answered && !std::mem::replace(&mut next_sent, true) {
            connection.send(NEXT).await;
        }
        if hello.is_some() {
            let from = *heard_from.get_or_insert(connection.received.len());
            if has_whole_heartbeat(&connection.received[from..]) {
                return without_heartbeats(&connection.received);
            }
        }
        match tokio::time::timeout(pace.silence, connection.more()).await {
            Ok(true) => {}
            Ok(false) => return without_heartbeats(&connection.received),
            // A stream is heard of again by itself.
            Err(_) if hello.is_some() && began_at.elapsed() < PATIENCE => {}
            Err(_) if !std::mem::replace(&mut next_sent, true) => connection.send(NEXT).await,
            Err(_) if !std::mem::replace(&mut nothing_more, true) => {
                let _ = connection.socket.shutdown().await;
            }
            Err(_) => {
                let what = if began_at.elapsed() < PATIENCE { continue } else { b"<it hangs>" };
                return [&connection.received[..], what].concat();
            }
        }
    }
}

fn has_whole_heartbeat(bytes: &[u8]) -> bool {
    find(bytes, HEARTBEAT).is_some_and(|at| {
        let in_chunk = bytes[..at].ends_with(b"\r\n");
        !in_chunk || bytes[at + HEARTBEAT.len()..].starts_with(b"\r\n")
    })
}

/// How many there are is up to the time that everything takes.
pub fn without_heartbeats(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for heartbeat in [HEARTBEAT_CHUNK, HEARTBEAT] {
        while let Some(at) = find(&bytes, heartbeat) {
            bytes.drain(at..at + heartbeat.len());
        }
    }
    bytes
}
