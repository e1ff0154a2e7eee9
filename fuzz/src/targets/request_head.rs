//! The first request head of a connection, which is looked at before the HTTP server sees it: what is
//! taken there is what hyper would have read, header by header, and nothing is left over.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use fantail::net::fuzz::request_head;
use http::request::Parts;
use http_body_util::Empty;
use hyper::body::{Body, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;

use crate::{INPUT_BYTES_MAX, Target};

pub(super) const TARGET: Target = Target {
    name: "request_head",
    run,
    words: &[
        "GET ",
        "HEAD ",
        "POST ",
        "/topics/t/events",
        "/events?topics=a",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        "\r\n\r\n",
        "\n\n",
        "\r\n",
        "Host: a\r\n",
        "Connection: keep-alive\r\n",
        "Connection: close\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\n",
        "Upgrade: h2c\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Expect: 100-continue\r\n",
        "Last-Event-ID: 42-k3f9\r\n",
        " folded\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "http://a/topics/t/events",
        "Host : a\r\n",
        ": x\r\n",
        "\0",
    ],
};

fn run(input: &[u8]) {
    let Some((length, taken)) = request_head(input) else { return };
    assert!(length <= input.len());
    let head = &input[..length];
    let read = as_hyper_reads(head);
    let [(parts, has_body)] = &read[..] else {
        panic!("{} requests in {:?}", read.len(), String::from_utf8_lossy(head));
    };
    assert_eq!(taken.method, http::Method::GET);
    assert_eq!(taken.method, parts.method);
    assert_eq!(taken.uri, parts.uri);
    assert_eq!(taken.version, parts.version);
    assert_eq!(taken.headers, parts.headers);
    assert!(!has_body);
    // Shorter it is none: nothing of what comes behind was looked at.
    assert!(request_head(&head[..length - 1]).is_none());
}

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
}

/// The requests that hyper finds in these bytes and nothing after them, and whether each has a body.
fn as_hyper_reads(bytes: &[u8]) -> Vec<(Parts, bool)> {
    let requests = Rc::new(RefCell::new(Vec::new()));
    let seen = requests.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (parts, body) = request.into_parts();
        seen.borrow_mut().push((parts, !body.is_end_stream()));
        async { Ok::<_, Infallible>(hyper::Response::new(Empty::<Bytes>::new())) }
    });
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(2 * INPUT_BYTES_MAX);
            client.write_all(bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let mut connection = http1::Builder::new();
            connection.half_close(true).max_buf_size(INPUT_BYTES_MAX);
            let _ = connection.serve_connection(TokioIo::new(server), service).await;
        });
    });
    requests.take()
}
