//! Programs that decode streams by themselves, event by event.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;

use super::{ENCODINGS, document};
use crate::harness::chromium::Chromium;
use crate::harness::firefox::Firefox;
use crate::harness::{Backend, Stream, within};

/// Reads a stream with a program that decodes by itself, event by event.
async fn read_by(program: &str, arguments: &[&str], encoding: &str) {
    let settings = [("FANTAIL_COMPRESSION", encoding), ("FANTAIL_DRAIN", "0s")];
    let mut node = Backend::Embedded.start(&settings).await;
    let url = format!("{}/topics/t/events", node.base);
    let mut command = Command::new(program);
    command.args(arguments).arg(&url).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().unwrap_or_else(|error| {
        panic!("{program} is installed: {error}");
    });
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next_data = async || {
        loop {
            let line = within(&format!("a line by {program}"), lines.next_line()).await;
            let line = line.unwrap().unwrap_or_else(|| panic!("{program} ended: {encoding}"));
            if let Some(data) = line.strip_prefix("data: ") {
                return data.to_owned();
            }
        }
    };
    assert!(next_data().await.contains("connected"));
    for n in 0..20 {
        // Each is read before the next is there.
        let data = if n % 3 == 0 { json!(n) } else { document(n) };
        node.publish("t", data.clone()).await;
        assert_eq!(serde_json::from_str::<Value>(&next_data().await).unwrap(), data, "{encoding}");
    }
    assert!(node.metric("fantail_encoded_entries_total", encoding).await >= 20.0);
    node.node.terminate();
    let mut errors = String::new();
    let read = child.stderr.take().unwrap();
    let mut read = BufReader::new(read);
    within("its last words", read.read_to_string(&mut errors)).await.unwrap();
    let status = within("its end", child.wait()).await.unwrap();
    assert!(status.success(), "{program} minds how {encoding} ends: {status} {errors}");
    assert_eq!(node.node.process.ended().await, Some(0));
}

#[tokio::test]
async fn curl_decodes_each_event_as_it_comes_and_minds_nothing_at_the_end() {
    for encoding in ENCODINGS {
        for http in ["--http1.1", "--http2-prior-knowledge"] {
            let arguments = ["--compressed", "-sSN", "--noproxy", "*", http];
            read_by("curl", &arguments, encoding).await;
        }
    }
}

/// Reads with the library that comes with Python, to the end and its checksum.
const PYTHON: &str = r#"
import sys, urllib.request, zlib
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
request = urllib.request.Request(sys.argv[1], headers={"Accept-Encoding": "gzip"})
response = opener.open(request)
assert response.headers["Content-Encoding"] == "gzip"
decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)
while chunk := response.read1(65536):
    sys.stdout.buffer.write(decoder.decompress(chunk))
    sys.stdout.flush()
assert decoder.eof and not decoder.unused_data, "the stream has no end"
"#;

/// The same with those of Node, which are the libraries of their formats' authors.
const NODE: &str = r#"
const [encoding, url] = process.argv.slice(1);
const http = require('http'), zlib = require('zlib');
http.get(url, { headers: { 'accept-encoding': encoding } }, (response) => {
  if (response.headers['content-encoding'] !== encoding) throw new Error('another encoding');
  const decoder = encoding === 'gzip' ? zlib.createGunzip() : zlib.createBrotliDecompress();
  response.pipe(decoder).pipe(process.stdout);
  decoder.on('error', (error) => { throw error; });
});
"#;

#[tokio::test]
async fn python_and_node_decode_each_event_as_it_comes_and_mind_nothing_at_the_end() {
    read_by("python3", &["-c", PYTHON], "gzip").await;
    for encoding in ["gzip", "br"] {
        read_by("node", &["-e", NODE, encoding], encoding).await;
    }
}

#[tokio::test]
async fn chromium_decodes_each_event_as_it_comes_and_comes_back_after_the_end() {
    let browser = Chromium::start().await;
    for encoding in ENCODINGS {
        for reactors in ["1", "0"] {
            let settings = [
                ("FANTAIL_COMPRESSION", encoding),
                ("FANTAIL_REACTORS", reactors),
                ("FANTAIL_HEARTBEAT", "200ms"),
                // Each stream ends cleanly after a while, and the browser comes back.
                ("FANTAIL_MAX_STREAM_AGE", "3s"),
            ];
            let node = Backend::Embedded.start(&settings).await;
            browser.open(&format!("{}/healthz", node.base)).await;
            let script = "window.heard = []; window.errors = 0; window.opened = 0; \
                 const source = new EventSource('/events?topics=t,u&heartbeat=event'); \
                 const one = new EventSource('/topics/t/events'); \
                 window.beats = 0; \
                 source.addEventListener('heartbeat', () => window.beats++); \
                 one.onerror = source.onerror = () => window.errors++; \
                 one.onmessage = source.onmessage = event => \
                   event.data.includes('connected') ? window.opened++ : window.heard.push(event.data);";
            browser.client.execute(script, Vec::new()).await.unwrap();
            browser.until("window.opened >= 2").await;
            let mut sent = 0;
            for n in 0..6 {
                let data = if n % 3 == 2 { json!(n) } else { document(n) };
                node.publish("t", data.clone()).await;
                sent += 2;
                // Each is heard by both before the next is there.
                browser.until(&format!("window.heard.length === {sent}")).await;
                let heard = browser.value("window.heard.at(-1)").await;
                let heard: Value = serde_json::from_str(heard.as_str().unwrap()).unwrap();
                assert_eq!(heard, data, "{encoding}");
            }
            browser.until("window.beats >= 2").await;
            // Both ended at least once, came back, and missed nothing.
            browser.until("window.errors >= 2").await;
            node.publish("t", document(7)).await;
            browser.until(&format!("window.heard.length === {}", sent + 2)).await;
            assert!(node.metric("fantail_encoded_entries_total", encoding).await >= 6.0);
        }
    }
    browser.close().await;
}

/// Says to one node, in events of its own, what it hears of each of the others.
const PAGE: &str = r#"<!doctype html><title>Streams</title><script>
const [told, nodes] = NODES;
const headers = { 'Content-Type': 'application/json' };
const tell = (data) => fetch(`${told}/topics/heard/events`,
  { method: 'POST', headers, body: JSON.stringify({ data }) });
nodes.forEach((node, nth) => {
  const source = new EventSource(`${node}/topics/t/events`);
  source.onmessage = ({ data }) => tell({ nth, data: JSON.parse(data) });
});
</script>"#;

#[tokio::test]
async fn firefox_decodes_each_event_as_it_comes_and_comes_back_after_the_end() {
    let site = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", site.local_addr().unwrap());
    let mut nodes = Vec::new();
    for encoding in ENCODINGS {
        let settings = [
            ("FANTAIL_COMPRESSION", encoding),
            ("FANTAIL_CORS_ORIGINS", origin.as_str()),
            // Streams end cleanly after a while, and the browser comes back.
            ("FANTAIL_MAX_STREAM_AGE", "5s"),
        ];
        nodes.push(Backend::Embedded.start(&settings).await);
    }
    let told = Backend::Embedded.start(&[("FANTAIL_CORS_ORIGINS", &origin)]).await;
    let bases: Vec<&str> = nodes.iter().map(|node| node.base.as_str()).collect();
    let page = PAGE.replace("NODES", &json!([told.base, bases]).to_string());
    let serving = tokio::spawn(async move {
        while let Ok((mut socket, _)) = site.accept().await {
            let _ = socket.read(&mut [0; 4096]).await;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n";
            let _ = socket.write_all(format!("{head}{page}").as_bytes()).await;
        }
    });
    let mut heard = Stream::open(told.address, "/topics/heard/events").await;
    let browser = Firefox::show(&format!("{origin}/"), "gzip, br, zstd");
    // How often a stream of each node began. What else it hears is what comes next.
    let mut began = [0; ENCODINGS.len()];
    let mut next = async |began: &mut [usize; ENCODINGS.len()]| {
        let event = heard.event().await.json();
        let nth = event["nth"].as_u64().unwrap() as usize;
        let is_opening = event["data"]["type"] == "connected";
        began[nth] += usize::from(is_opening);
        (!is_opening).then(|| (nth, event["data"].clone()))
    };
    while began.contains(&0) {
        assert_eq!(next(&mut began).await, None);
    }
    let mut n = 0;
    // Until all have come back.
    while began.iter().any(|began| *began < 2) || n < 6 {
        let data = if n % 3 == 2 { json!(n) } else { document(n) };
        for nth in 0..ENCODINGS.len() {
            nodes[nth].publish("t", data.clone()).await;
            // Each is heard before the next is there.
            let heard = loop {
                if let Some(heard) = next(&mut began).await {
                    break heard;
                }
            };
            assert_eq!(heard, (nth, data.clone()), "{}", ENCODINGS[nth]);
        }
        n += 1;
    }
    for (node, encoding) in nodes.iter().zip(ENCODINGS) {
        assert!(node.metric("fantail_encoded_entries_total", encoding).await >= n as f64);
    }
    serving.abort();
    drop(browser);
}
