//! Sessions that only HTTP/1.1 can have: several requests on one connection, bodies where none
//! belong, the other versions, and what clients do with a connection beside asking.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::compare::{Log, before, compare, pairs, start};
use crate::gateway::{Gateway, within};
use crate::http1::Connection;
use crate::player::{Player, Wire};

/// One step of a talk over one connection.
enum Step {
    /// Sends this.
    Say(&'static str),
    /// Waits for the answer to a request that began before.
    Answer,
    /// The same, where the answer has a head alone.
    Head,
    /// Waits until this has come, whatever it belongs to.
    Until(&'static str),
    /// Has an event published that the stream on this connection hears.
    Publish,
    /// Says that nothing more is sent.
    HalfClose,
    /// Waits until the gateway hangs up.
    End,
    /// The connection is left, and nothing more of it compared: to a client that sends no more a
    /// reactor goes on as long as it reads, but the HTTP server hangs up.
    Left,
    /// What comes after the end of the stream is not compared. A request that was sent behind a
    /// stream is answered only if the HTTP server carried that stream, and if it ended in the first
    /// moments of a drain, before connections are told not to begin another request. Whoever is not
    /// answered sends it again elsewhere.
    Unheard,
}

use Step::{Answer, End, HalfClose, Head, Left, Publish, Say, Unheard, Until};

const STREAM: &str = "GET /topics/t/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
const OTHER: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
const LAST: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const HELLO: &str = "\"type\":\"connected\",\"node\":\"gateway\"}\n";

/// What is said over one connection each. Where a talk does not end by itself, the gateway ends it
/// by its drain.
fn talks() -> Vec<Vec<Step>> {
    vec![
        // A stream by itself, in pieces, and as a later request.
        vec![Say(STREAM), Until(HELLO), Publish],
        vec![
            Say("GET /topics/t/ev"),
            Say("ents HTTP/1.1\r\nHost: localhost\r\n\r"),
            Say("\n"),
            Until(HELLO),
        ],
        vec![Say("\r\n\r\n"), Say(STREAM), Until(HELLO), Publish],
        vec![Say(OTHER), Answer, Say(STREAM), Until(HELLO), Publish],
        vec![Say(OTHER), Answer, Say(OTHER), Answer, Say(STREAM), Until(HELLO)],
        vec![
            Say("GET /boards/nope/events HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            Answer,
            Say("GET /topics/t/events?from=x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            Answer,
            Say(STREAM),
            Until(HELLO),
            Publish,
        ],
        // More than one request at once.
        vec![
            Say(
                "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /topics/t/events HTTP/1.1\r\nHost: localhost\r\n\r\n",
            ),
            Until(HELLO),
            Publish,
        ],
        vec![
            Say(
                "GET /topics/t/events HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            ),
            Until(HELLO),
            Publish,
            Unheard,
        ],
        vec![
            Say(
                "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /b HTTP/1.1\r\nHost: localhost\r\n\r\n",
            ),
            Answer,
            Answer,
            Answer,
        ],
        vec![
            Say(
                "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n\
                 GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            ),
            End,
        ],
        // What is said to a stream is not heard.
        vec![Say(STREAM), Until(HELLO), Say(OTHER), Publish, Say("rubbish"), Publish, Unheard],
        // Its reader has gone halfway, or says so at once.
        vec![Say(STREAM), Until(HELLO), HalfClose, Left],
        vec![Say(OTHER), Answer, HalfClose, End],
        vec![HalfClose, End],
        vec![Say("GET /healthz HT"), HalfClose, End],
        // Who wants the connection to end after the answer, and who knows no better.
        vec![
            Say("GET /topics/t/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
            Until(HELLO),
            Publish,
        ],
        vec![
            Say(
                "GET /topics/t/events HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n",
            ),
            Until(HELLO),
            Publish,
        ],
        vec![
            Say(
                "GET /topics/t/events HTTP/1.1\r\nHost: localhost\r\nConnection: Keep-Alive, x\r\n\r\n",
            ),
            Until(HELLO),
            Publish,
        ],
        vec![Say("GET /topics/t/events HTTP/1.0\r\n\r\n"), Until(HELLO), Publish],
        vec![
            Say("GET /topics/t/events HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
            Until(HELLO),
            Publish,
        ],
        vec![
            Say("GET /boards/nope/events HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
            Answer,
            Say(LAST),
            End,
        ],
        vec![Say("GET /healthz HTTP/1.0\r\n\r\n"), End],
        vec![
            Say("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
            Answer,
            Say(LAST),
            End,
        ],
        vec![
            Say("HEAD /topics/t/events HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            Head,
            Say(LAST),
            End,
        ],
        vec![Say("HEAD /topics/t/events HTTP/1.0\r\nHost: localhost\r\n\r\n"), End],
        // Bodies where none belong, and whole ones in every coding.
        vec![
            Say("GET /topics/t/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"),
            Until(HELLO),
            Publish,
        ],
        vec![
            Say("GET /topics/t/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"),
            Until(HELLO),
            Publish,
        ],
        vec![
            Say(
                "GET /topics/t/events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n\
                 0\r\n\r\n",
            ),
            Until(HELLO),
            Publish,
        ],
        vec![
            Say("GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"),
            Answer,
            Say(LAST),
            End,
        ],
        vec![
            Say(
                "POST /topics/u/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 Content-Length: 10\r\n\r\n{\"data\"",
            ),
            Say(":1}"),
            Answer,
            Say(LAST),
            End,
        ],
        vec![
            Say(
                "POST /topics/v/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 Transfer-Encoding: chunked\r\n\r\n4;x=y\r\n{\"da\r\n6\r\nta\":1}\r\n",
            ),
            Say("0\r\nTrailer: x\r\n\r\n"),
            Answer,
            Say(LAST),
            End,
        ],
        vec![
            Say(
                "POST /topics/w/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 Expect: 100-continue\r\nContent-Length: 10\r\n\r\n",
            ),
            Until("100 Continue\r\n\r\n"),
            Say("{\"data\":1}"),
            Answer,
            Say(LAST),
            End,
        ],
        vec![
            Say("GET /topics/t/events HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\r\n"),
            Until(HELLO),
            Publish,
        ],
        vec![
            Say(
                "POST /topics/x/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 Content-Length: 2000000\r\n\r\n",
            ),
            HalfClose,
            End,
        ],
        // Targets and upgrades that proxies and browsers send.
        vec![
            Say("GET http://localhost/topics/t/events HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            Until(HELLO),
            Publish,
        ],
        vec![
            Say("GET http://b.localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            Answer,
            Say(LAST),
            End,
        ],
        vec![Say("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n"), Answer, Say(LAST), End],
        vec![Say("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n"), Answer],
        vec![
            Say(
                "GET /topics/t/events HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                 Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
            ),
            Until(HELLO),
            Publish,
        ],
        vec![
            Say(
                "GET /topics/t/events HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 \r\n",
            ),
            Until(HELLO),
            Publish,
        ],
        // No HTTP at all.
        vec![Say("\u{16}\u{3}\u{1}\u{0}\u{a5}\u{1}\u{0}\u{0}\u{a1}\u{3}\u{3}"), End],
        vec![Say("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"), End],
        vec![Say("PRI * HTTP/2.0\r\nHost: localhost\r\n\r\n"), End],
        vec![Say("GET /topics/t/events\r\n\r\n"), End],
    ]
}

#[tokio::test]
async fn what_is_said_over_one_connection() {
    compare(Log::Embedded, Wire::Http1, &[], &async |player: &mut Player| {
        'talks: for (n, steps) in talks().iter().enumerate() {
            let mut connection = Connection::open(player.gateway.address).await;
            let mut answered = 0;
            let mut heard = 0;
            let mut unheard = false;
            for step in steps {
                match step {
                    Say(text) => {
                        let text = text.replace("/topics/t/", &format!("/topics/t{n}/"));
                        connection.send(text.as_bytes()).await;
                        // Time to be looked at by itself; it makes no difference to what is said.
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Answer => answered = connection.answer(answered, false).await,
                    Head => answered = connection.answer(answered, true).await,
                    Until(text) => connection.raw_until(text).await,
                    Publish => {
                        heard += 1;
                        let data = format!("talk {n} {heard}");
                        player.publish(&format!("t{n}"), &format!(r#"{{"data":"{data}"}}"#)).await;
                        connection.raw_until(&data).await;
                    }
                    HalfClose => connection.socket.shutdown().await.unwrap(),
                    End => within(&format!("the end of talk {n}"), connection.until_end()).await,
                    Left => continue 'talks,
                    Unheard => unheard = true,
                }
            }
            player.keep(format!("talk {n}"), connection, unheard);
        }
    })
    .await;
}

/// Otherwise nothing would be compared here: one of both carries streams itself, the other leaves
/// them to the HTTP server.
#[tokio::test]
async fn both_ways_are_taken() {
    if before().is_some() {
        return;
    }
    for pair in pairs() {
        for (side, parked) in pair.sides.iter().zip([1, 0]) {
            let gateway = start(side, &[]).await;
            let mut stream = Connection::open(gateway.address).await;
            stream.send(STREAM.as_bytes()).await;
            stream.raw_until(HELLO).await;
            within(&format!("{parked} parked streams of {side:?}"), async {
                while parked_streams(&gateway).await != parked {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await;
        }
    }
}

async fn parked_streams(gateway: &Gateway) -> usize {
    let metrics = gateway.get("/metrics").await;
    let value = metrics.lines().find_map(|line| line.strip_prefix("fantail_parked_connections "));
    value.map_or(0, |value| value.parse().unwrap())
}
