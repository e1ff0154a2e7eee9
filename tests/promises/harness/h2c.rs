//! Streams over HTTP/2 for tests that know a stream as an HTTP/1.1 connection: with `HTTP2=1` in the
//! environment every [`Stream`](super::Stream) speaks through a small proxy of its own, one HTTP/2
//! connection each. So the promises that hold on one road can be checked on the other.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper::header::{CONTENT_LENGTH, HOST};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// What the proxy takes ahead of a client that does not read, in bytes: the window that HTTP/2 has by
/// default. That of a socket is the client's.
const WINDOW_BYTES: u32 = 65_535;

/// Whether streams are to be opened over HTTP/2.
pub fn is_wanted() -> bool {
    std::env::var_os("HTTP2").is_some_and(|value| value == "1")
}

/// A socket that takes one request in HTTP/1.1, for a server that is spoken to in HTTP/2.
pub async fn in_front_of(server: TcpStream) -> io::Result<TcpStream> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    // The kernel doubles what it is told.
    let room = SockRef::from(&server).recv_buffer_size()? / 2;
    let near = TcpSocket::new_v4()?;
    near.set_recv_buffer_size(room as u32)?;
    let near = near.connect(listener.local_addr()?).await?;
    let (far, _) = listener.accept().await?;
    far.set_nodelay(true)?;
    SockRef::from(&far).set_send_buffer_size(room)?;
    // Whatever ends one side ends the other, which is all that a test can see of it.
    tokio::spawn(async move { carry(far, server).await.ok() });
    Ok(near)
}

async fn carry(mut far: TcpStream, server: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if far.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let response = ask(&head, server).await?;
    let mut out = format!("HTTP/1.1 {}\r\n", response.status());
    for (name, value) in response.headers() {
        out += &format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes()));
    }
    let has_length = response.headers().contains_key(CONTENT_LENGTH);
    if !has_length {
        out += "transfer-encoding: chunked\r\n";
    }
    out += "\r\n";
    far.write_all(out.as_bytes()).await?;
    let mut body = response.into_body();
    loop {
        let mut unasked = [0; 16];
        let frame = tokio::select! {
            frame = body.frame() => frame,
            read = far.read(&mut unasked) => match read? {
                0 => return Ok(()),
                _ => continue,
            },
        };
        let data = match frame {
            Some(frame) => frame.map_err(io::Error::other)?.into_data().unwrap_or_default(),
            None if has_length => return Ok(()),
            None => return far.write_all(b"0\r\n\r\n").await,
        };
        if has_length {
            far.write_all(&data).await?;
        } else if !data.is_empty() {
            let size = format!("{:x}\r\n", data.len());
            far.write_all(&[size.as_bytes(), &data, b"\r\n"].concat()).await?;
        }
    }
}

/// Asks over HTTP/2 what a head of HTTP/1.1 asks for.
async fn ask(head: &[u8], server: TcpStream) -> io::Result<Response<Incoming>> {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut parsed = httparse::Request::new(&mut fields);
    parsed.parse(head).map_err(io::Error::other)?;
    let is_host = |field: &&httparse::Header| field.name.eq_ignore_ascii_case(HOST.as_str());
    let host = parsed.headers.iter().find(is_host);
    let host = host.map_or("localhost".into(), |field| String::from_utf8_lossy(field.value));
    let path = parsed.path.ok_or(ErrorKind::InvalidInput)?;
    let mut request = Request::get(format!("http://{host}{path}"));
    for field in parsed.headers.iter().filter(|field| !is_host(field)) {
        request = request.header(field.name, field.value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    let mut client = http2::Builder::new(TokioExecutor::new());
    client.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    let (mut sender, connection) =
        client.handshake(TokioIo::new(server)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(io::Error::other)
}
