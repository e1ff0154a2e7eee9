//! Request heads over HTTP/2, as frames (RFC 9113), drawn at random: both gateways have to give the
//! same answers on both streams, or end the connection with the same error.

mod request;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::join;

use crate::compare::{Pair, difference, pairs, start};
use crate::gateway::{Gateway, PATIENCE};
use crate::heads::{number, without_heartbeats};
use crate::http1::{Connection, find};
use crate::normal::Normaliser;
use request::{ACK, Frames, GOAWAY, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE};

/// Connections to each gateway at a time.
const AT_ONCE: usize = 32;

/// How often a request is sent slowly whose answers differed; they have to agree once. Head blocks
/// are compressed, and agree only if both dates are of the same second.
const SLOW_TIMES: u64 = 5;

/// How frames are sent, and when their gateway is taken to wait for more.
#[derive(Clone, Copy)]
struct Pace {
    /// Each is read before the next is sent: what an error finds done is up to chance otherwise.
    one_by_one: bool,
    pause: Duration,
    silence: Duration,
}

const FAST: Pace = Pace {
    one_by_one: false,
    pause: Duration::from_millis(1),
    silence: Duration::from_millis(400),
};
const SLOW: Pace = Pace {
    one_by_one: true,
    pause: Duration::from_millis(25),
    silence: Duration::from_millis(1500),
};

#[tokio::test]
async fn request_heads_of_every_kind_over_http2() {
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    let count = number("HEADS").unwrap_or(2_000) / 4;
    let numbers = number("HEAD").map_or(0..count, |number| number..number + 1);
    for pair in pairs() {
        let began_at = Instant::now();
        let settings = [("FANTAIL_HEARTBEAT", "250ms")];
        let [one, other] = &pair.sides;
        let (one, other) = join!(start(one, &settings), start(other, &settings));
        let gateways = &[one, other];
        let outcomes: Vec<(u64, [Answers; 2])> = stream::iter(numbers.clone())
            .map(|number| async move { (number, ask(gateways, seed, number, 0, FAST).await) })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let streams = outcomes.iter().filter(|(_, [one, _])| one.is_stream()).count();
        let mut again = 0;
        for (number, [one, other]) in &outcomes {
            if one != other {
                again += 1;
                explain(&pair, gateways, seed, *number).await;
            }
        }
        println!(
            "{} request heads over HTTP/2 with SEED={seed} to {pair:?}: {streams} streams, {again} \
             once more, in {:.1} s",
            outcomes.len(),
            began_at.elapsed().as_secs_f64()
        );
        assert!(count < 100 || streams > outcomes.len() / 10, "most requests are nearly ordinary");
    }
}

/// Asks again, slowly; panics if the answers never agree.
async fn explain(pair: &Pair, gateways: &[Gateway; 2], seed: u64, number: u64) {
    let mut last = Default::default();
    for attempt in 1..=SLOW_TIMES {
        last = ask(gateways, seed, number, attempt, SLOW).await;
        if last[0] == last[1] {
            return;
        }
    }
    let [one, other] = last.map(|answers| format!("{answers:#?}").into_bytes());
    panic!(
        "SEED={seed} HEAD={number}: {pair:?} answer differently to {:#?}\n{}",
        Frames::draw(seed, number, &topic(number, 0)),
        difference(&one, &other).unwrap_or_default()
    );
}

fn topic(number: u64, attempt: u64) -> String {
    format!("h{number:07}{attempt}")
}

async fn ask(
    gateways: &[Gateway; 2],
    seed: u64,
    number: u64,
    attempt: u64,
    pace: Pace,
) -> [Answers; 2] {
    let frames = Frames::draw(seed, number, &topic(number, attempt));
    let [one, other] = gateways;
    let (one, other) = join!(exchange(one, &frames, pace), exchange(other, &frames, pace));
    [one, other]
}

/// What came back over one connection.
#[derive(Default, PartialEq, Eq)]
struct Answers {
    /// Of each stream: its head blocks as they were compressed, with their flags, its data, and how
    /// it was reset. When which of two streams is served is up to chance, and so is how data is
    /// divided into frames.
    streams: BTreeMap<u32, Answer>,
    /// Settings and errors of the connection. What is said of windows and pings is left out: it is
    /// said when there is time.
    connection: Vec<Vec<u8>>,
    ended: bool,
}

#[derive(Default, PartialEq, Eq)]
struct Answer {
    heads: Vec<Vec<u8>>,
    data: Vec<u8>,
    reset: Option<Vec<u8>>,
    ended: bool,
}

impl Answers {
    fn is_stream(&self) -> bool {
        self.streams.values().any(|answer| answer.is_stream())
    }

    /// Whether nothing more will come for this stream, but for heartbeats.
    fn has_answer(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_some_and(|answer| {
            answer.ended || answer.reset.is_some() || find(&answer.data, b": heartbeat\n").is_some()
        })
    }

    /// Reads the frames that came whole.
    fn read(mut bytes: &[u8]) -> Answers {
        let mut answers = Answers::default();
        while let Some((frame, rest)) = frame(bytes) {
            bytes = rest;
            let Frame { kind, flags, stream, payload } = frame;
            if stream == 0 {
                let is_said = kind == GOAWAY || (kind == SETTINGS && flags & ACK == 0);
                if is_said {
                    answers.connection.push([&[kind], payload].concat());
                }
                continue;
            }
            let answer = answers.streams.entry(stream).or_default();
            match kind {
                WINDOW_UPDATE => continue,
                RST_STREAM => answer.reset = Some(payload.to_vec()),
                request::DATA => answer.data.extend_from_slice(payload),
                // That there is no table is said in front of the first head.
                kind => {
                    let block = payload.strip_prefix(&[0x20]).unwrap_or(payload);
                    answer.heads.push([&[kind, flags], block].concat());
                }
            }
            answer.ended |= kind <= HEADERS && flags & request::END_STREAM > 0;
        }
        answers
    }

    fn normalised(mut self) -> Answers {
        for answer in self.streams.values_mut() {
            let data = without_heartbeats(&answer.data);
            answer.data = Normaliser::default().normalise(&data);
        }
        self
    }
}

impl Answer {
    fn is_stream(&self) -> bool {
        find(&self.data, b"\"type\":\"connected\"").is_some()
    }
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let escaped = |bytes: &Vec<u8>| bytes.escape_ascii().to_string();
        for (stream, answer) in &self.streams {
            let heads: Vec<String> = answer.heads.iter().map(escaped).collect();
            let reset = answer.reset.as_ref().map(escaped);
            let data = escaped(&answer.data);
            writeln!(f, "stream {stream}: {heads:?}\n  {data}\n  {reset:?} {}", answer.ended)?;
        }
        let connection: Vec<String> = self.connection.iter().map(escaped).collect();
        writeln!(f, "connection: {connection:?}, ended: {}", self.ended)
    }
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

/// The frame at the beginning, if it is whole, and what follows it.
fn frame(bytes: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    let (head, rest) = bytes.split_at_checked(9)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let (payload, rest) = rest.split_at_checked(length)?;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some((Frame { kind: head[3], flags: head[4], stream, payload }, rest))
}

/// Sends the frames of a request, and a plain request after them, and reads until both are answered,
/// the connection ends, or nothing comes any more.
async fn exchange(gateway: &Gateway, frames: &Frames, pace: Pace) -> Answers {
    let mut connection = Connection::open(gateway.address).await;
    let pieces = frames.pieces(pace.one_by_one);
    // Byte by byte it takes long enough.
    let pause = if pieces.len() > 50 { pace.pause / 10 } else { pace.pause };
    for (n, piece) in pieces.iter().enumerate() {
        if n > 0 {
            tokio::time::sleep(pause).await;
        }
        connection.send(piece).await;
    }
    let began_at = Instant::now();
    loop {
        let answers = Answers::read(&connection.received);
        let is_over = connection.end.is_some()
            || (answers.has_answer(frames.stream) && answers.has_answer(frames.next_stream));
        if is_over {
            return Answers { ended: connection.end.is_some(), ..answers }.normalised();
        }
        // A stream is heard of again by itself.
        let longest = if answers.is_stream() { PATIENCE } else { pace.silence };
        if tokio::time::timeout(longest, connection.more()).await.is_err() {
            assert!(began_at.elapsed() < PATIENCE, "a stream went silent: {answers:?}");
            return answers.normalised();
        }
    }
}
