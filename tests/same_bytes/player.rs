//! [`Player`]: plays a session to one gateway, over one wire, and keeps everything that comes back.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper::header::HeaderValue;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpSocket, TcpStream};

use crate::gateway::{Gateway, within};
use crate::http1::{Connection, find};

/// What is spoken to a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Http1,
    /// With prior knowledge. Bodies are compared byte for byte, headers by name, value and order;
    /// how they are divided into frames is up to the HTTP library and the windows of the moment.
    Http2,
}

/// Something that came back: what it belongs to, and all of its bytes.
pub struct Record {
    pub what: String,
    pub bytes: Vec<u8>,
}

/// Plays a session to one gateway.
pub struct Player {
    pub gateway: Gateway,
    records: Vec<Record>,
    streams: Vec<(String, Stream)>,
    /// For everything that is no stream over HTTP/1.1: one after the other, on one connection.
    calls: Connection,
    calls_read: usize,
    /// For everything over HTTP/2.
    http2: Option<http2::SendRequest<Full<Bytes>>>,
}

enum Stream {
    /// It was left before its end.
    Left,
    Http1 {
        connection: Connection,
        only_stream: bool,
    },
    Http2 {
        head: Vec<u8>,
        body: Incoming,
        received: Vec<u8>,
        end: Option<String>,
    },
}

/// What a session has to know of an answer to go on.
pub struct Answer {
    /// The `Last-Event-ID` header: the position of the event that a write caused.
    pub position: String,
}

impl Player {
    pub async fn new(gateway: Gateway, wire: Wire) -> Player {
        let http2 = match wire {
            Wire::Http1 => None,
            Wire::Http2 => Some(http2_connection(gateway.address).await),
        };
        let calls = Connection::open(gateway.address).await;
        Player { gateway, records: Vec::new(), streams: Vec::new(), calls, calls_read: 0, http2 }
    }

    pub fn record(&mut self, what: impl Into<String>, bytes: Vec<u8>) {
        self.records.push(Record { what: what.into(), bytes });
    }

    /// Sends a request such as `POST /tasks` and waits for its answer.
    pub async fn call(&mut self, request: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let what = format!("{request} {headers:?} {body:.200}");
        let bytes = match &mut self.http2 {
            None => {
                let mut head = format!("{request} HTTP/1.1\r\nHost: gateway.localhost\r\n");
                for (name, value) in headers {
                    head += &format!("{name}: {value}\r\n");
                }
                if !body.is_empty() {
                    head += &format!("Content-Length: {}\r\n", body.len());
                }
                self.calls.send(format!("{head}\r\n{body}").as_bytes()).await;
                let to_head = request.starts_with("HEAD ");
                let end = self.calls.answer(self.calls_read, to_head).await;
                let bytes = self.calls.received[self.calls_read..end].to_vec();
                if self.calls.end.is_some() {
                    self.calls = Connection::open(self.gateway.address).await;
                    self.calls_read = 0;
                } else {
                    self.calls_read = end;
                }
                bytes
            }
            Some(sender) => {
                let request = http2_request(request, headers, body);
                let response = within(&what, sender.send_request(request)).await.unwrap();
                let mut bytes = head_of(&response);
                let body = within(&what, response.into_body().collect()).await.unwrap();
                bytes.extend_from_slice(&body.to_bytes());
                bytes
            }
        };
        let text = String::from_utf8_lossy(&bytes);
        let position = text.lines().find_map(|line| line.strip_prefix("last-event-id: "));
        let answer = Answer { position: position.unwrap_or_default().to_owned() };
        self.record(what, bytes);
        answer
    }

    /// A JSON body to `POST` or `PATCH`.
    pub async fn json(&mut self, request: &str, body: &str) -> Answer {
        self.call(request, &[("content-type", "application/json")], body).await
    }

    /// Publishes an event, as JSON, to a topic.
    pub async fn publish(&mut self, topic: &str, event: &str) -> Answer {
        self.json(&format!("POST /topics/{topic}/events"), event).await
    }

    /// Asks for a stream; it is a number here.
    pub async fn open(&mut self, target: &str, headers: &[(&str, &str)]) -> usize {
        self.open_with(target, headers, false).await
    }

    /// The same, on a connection of its own that takes few bytes ahead of its reader.
    pub async fn open_narrow(&mut self, target: &str, headers: &[(&str, &str)]) -> usize {
        self.open_with(target, headers, true).await
    }

    async fn open_with(&mut self, target: &str, headers: &[(&str, &str)], narrow: bool) -> usize {
        let address = self.gateway.address;
        let stream = match &mut self.http2 {
            None => {
                let mut connection = Connection::of(connect(address, narrow).await);
                let mut head = format!(
                    "GET {target} HTTP/1.1\r\nHost: gateway.localhost\r\nAccept: text/event-stream\r\n"
                );
                for (name, value) in headers {
                    head += &format!("{name}: {value}\r\n");
                }
                connection.send(format!("{head}\r\n").as_bytes()).await;
                Stream::Http1 { connection, only_stream: false }
            }
            Some(sender) => {
                let request = http2_request(&format!("GET {target}"), headers, "");
                let sent = if narrow {
                    let mut apart = http2_connection(address).await;
                    within(target, apart.send_request(request)).await
                } else {
                    within(target, sender.send_request(request)).await
                };
                let response = sent.unwrap();
                let head = head_of(&response);
                Stream::Http2 { head, body: response.into_body(), received: Vec::new(), end: None }
            }
        };
        self.streams.push((format!("the stream {target} {headers:?}"), stream));
        self.streams.len() - 1
    }

    /// Waits until a stream has said this.
    pub async fn until(&mut self, stream: usize, said: &str) {
        self.until_times(stream, said, 1).await;
    }

    /// Waits until a stream has said this so many times.
    pub async fn until_times(&mut self, stream: usize, said: &str, times: usize) {
        let (what, stream) = &mut self.streams[stream];
        let what = format!("{said:?} from {what}");
        let mut from = 0;
        let mut count = 0;
        stream
            .body_until(&what, |body| {
                while let Some(at) = find(&body[from..], said.as_bytes()) {
                    from += at + said.len();
                    count += 1;
                }
                from = from.max(body.len().saturating_sub(said.len()));
                count >= times
            })
            .await;
    }

    /// Waits until a stream has said the event at this position, to the end of its block.
    pub async fn until_event(&mut self, stream: usize, position: &str) {
        assert!(!position.is_empty(), "no position to wait for");
        let (what, stream) = &mut self.streams[stream];
        let what = format!("{position} from {what}");
        let id = format!("{position}\n");
        let mut from = 0;
        stream
            .body_until(&what, |body| match find(&body[from..], id.as_bytes()) {
                Some(at) => find(&body[from + at..], b"\n\n").is_some(),
                None => {
                    from = body.len().saturating_sub(id.len());
                    false
                }
            })
            .await;
    }

    /// Waits until every stream has said its hello.
    pub async fn until_all_said_hello(&mut self) {
        for stream in 0..self.streams.len() {
            self.until(stream, "\"type\":\"connected\"").await;
        }
    }

    /// Leaves a stream, and keeps what it has said up to the so-manieth time of this.
    pub async fn leave(&mut self, stream: usize, said: &str, times: usize) {
        self.until_times(stream, said, times).await;
        let (what, stream) = &mut self.streams[stream];
        let mut bytes = std::mem::replace(stream, Stream::Left).into_bytes();
        let mut at = 0;
        for _ in 0..times {
            at += find(&bytes[at..], said.as_bytes()).expect("in one piece") + said.len();
        }
        bytes.truncate(at);
        let what = what.clone();
        self.record(what, bytes);
    }

    /// Ends the gateway by SIGTERM, reads all streams to their ends, and returns everything.
    pub async fn finish(mut self) -> Vec<Record> {
        self.gateway.terminate();
        for (what, mut stream) in std::mem::take(&mut self.streams) {
            within(&what, stream.until_end()).await;
            self.record(what, stream.into_bytes());
        }
        within("the end of calls", self.calls.until_end()).await;
        let rest = self.calls.received[self.calls_read..].to_vec();
        self.record(format!("the connection of calls, {:?}", self.calls.end), rest);
        let status = self.gateway.ended().await;
        self.record("the gateway", format!("{status}\n").into_bytes());
        self.records
    }

    /// Takes a connection over which something was said, to be read to its end, or kept only up to
    /// the end of its stream.
    pub fn keep(&mut self, what: String, connection: Connection, only_stream: bool) {
        self.streams.push((what, Stream::Http1 { connection, only_stream }));
    }

    /// How many streams were asked for.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }
}

impl Stream {
    async fn body_until(&mut self, what: &str, mut condition: impl FnMut(&[u8]) -> bool) {
        if let Stream::Http1 { connection, .. } = self {
            return connection.body_until(what, condition).await;
        }
        loop {
            if let Stream::Http2 { received, .. } = self
                && condition(received)
            {
                return;
            }
            assert!(within(what, self.more()).await, "{what}: it ended");
        }
    }

    /// Reads some more; no at the end.
    async fn more(&mut self) -> bool {
        match self {
            Stream::Left | Stream::Http2 { end: Some(_), .. } => false,
            Stream::Http1 { connection, .. } => connection.more().await,
            Stream::Http2 { body, received, end, .. } => {
                match body.frame().await {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => received.extend_from_slice(&data),
                        Err(other) => *end = Some(format!("<{other:?}>")),
                    },
                    Some(Err(error)) => *end = Some(format!("<broken: {error:?}>")),
                    None => *end = Some("<the end>".to_owned()),
                }
                end.is_none()
            }
        }
    }

    async fn until_end(&mut self) {
        while self.more().await {}
    }

    /// Everything that was received.
    fn into_bytes(self) -> Vec<u8> {
        match self {
            Stream::Left => Vec::new(),
            Stream::Http1 { connection, only_stream } => {
                let mut bytes = connection.received;
                if only_stream {
                    let end = find(&bytes, b"\r\n0\r\n\r\n").expect("the last chunk");
                    bytes.truncate(end + 7);
                } else if let Some(end) = connection.end {
                    bytes.extend_from_slice(format!("<{end:?}>").as_bytes());
                }
                bytes
            }
            Stream::Http2 { head, received, end, .. } => {
                [head, received, end.unwrap_or_default().into_bytes()].concat()
            }
        }
    }
}

async fn connect(address: SocketAddr, narrow: bool) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    if narrow {
        socket.set_recv_buffer_size(16 << 10).unwrap();
    }
    within("a connection", socket.connect(address)).await.unwrap()
}

async fn http2_connection(address: SocketAddr) -> http2::SendRequest<Full<Bytes>> {
    let socket = connect(address, false).await;
    socket.set_nodelay(true).unwrap();
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn http2_request(request: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let (method, target) = request.split_once(' ').unwrap();
    let mut builder =
        Request::builder().method(method).uri(format!("http://gateway.localhost{target}"));
    for (name, value) in headers {
        builder = builder.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    builder.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}

/// The head of a response over HTTP/2, as lines.
fn head_of(response: &Response<Incoming>) -> Vec<u8> {
    let mut head = format!("HTTP/2 {}\r\n", response.status().as_u16()).into_bytes();
    for (name, value) in response.headers() {
        head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    head.extend_from_slice(b"\r\n");
    head
}
