//! Requests as bytes: what no client library would send.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Answer, h2c, within};

/// What the server answers to these bytes, until it closes the connection.
pub async fn say(address: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = within("an end", socket.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends a request of HTTP/1.1, given by its lines, and reads the answer that it gets first.
pub async fn ask(address: SocketAddr, lines: &[&str], body: &[u8]) -> Answer {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head: String = lines.iter().flat_map(|line| [line, "\r\n"]).collect();
    socket.write_all(&[head.as_bytes(), b"\r\n", body].concat()).await.unwrap();
    read_answer(&mut socket).await
}

/// Has a first request answered on a connection of HTTP/1.1, so that the HTTP server carries what is
/// asked for next, reactors or not. Over HTTP/2 it does anyway.
pub async fn leave_to_http_server(socket: &mut TcpStream) {
    if !h2c::is_wanted() {
        socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(read_answer(socket).await.status, 200);
    }
}

/// Reads one answer, which must have a length.
pub async fn read_answer(socket: &mut TcpStream) -> Answer {
    let mut received = Vec::new();
    within("an answer", async {
        loop {
            if let Some(answer) = parse_answer(&received, true) {
                return answer;
            }
            let read = socket.read_buf(&mut received).await;
            let text = String::from_utf8_lossy(&received);
            assert!(read.is_ok_and(|read| read > 0), "the connection ended after {text:?}");
        }
    })
    .await
}

/// The answer that these bytes begin with, once it is whole. One to `HEAD` tells the length of a body
/// that it does not have.
pub fn parse_answer(bytes: &[u8], has_body: bool) -> Option<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes).unwrap() else { return None };
    let mut headers = reqwest::header::HeaderMap::new();
    for field in head.headers.iter() {
        let name: reqwest::header::HeaderName = field.name.parse().unwrap();
        headers.append(name, field.value.try_into().unwrap());
    }
    let body_bytes = headers.get("content-length").filter(|_| has_body);
    let body_bytes = body_bytes.map_or(0, |value| value.to_str().unwrap().parse().unwrap());
    let body = bytes[length..].get(..body_bytes)?;
    let text = String::from_utf8_lossy(body).into_owned();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Some(Answer { status: head.code.unwrap(), headers, body })
}
