//! [`BodyReader`]: one HTTP/1.1 response as it comes off the socket; and [`Client`], which asks one
//! request after the other.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest response head that is read, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// In the hexadecimal size of a chunk.
    ChunkSize,
    /// Behind it, up to the end of the line.
    ChunkExtension,
    /// In the data of a chunk, of which `left` bytes are to come.
    ChunkData,
    /// In the line end behind the data of a chunk.
    ChunkEnd,
    /// In a body without chunks, of which `left` bytes are to come.
    Plain,
    Ended,
}

/// Takes the head and the chunks off a response, wherever they are cut. Keeps nothing once the head
/// is read.
#[derive(Debug)]
pub(crate) struct BodyReader {
    state: State,
    /// What has come of the head.
    head: Vec<u8>,
    /// Bytes that are left of the chunk, or of the body.
    left: u64,
}

impl BodyReader {
    /// At the beginning of a response.
    pub(crate) fn new() -> BodyReader {
        BodyReader { state: State::Head, head: Vec::new(), left: 0 }
    }

    /// Whether the head was read, and said 2xx.
    pub(crate) fn has_head(&self) -> bool {
        self.state != State::Head
    }

    /// Whether the whole body was read. A body that ends with the connection never is.
    pub(crate) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Reads on; gives the data of the body to `take`.
    ///
    /// # Errors
    /// When the status is none of 2xx, the head is none, or `take` says so. It should not be read
    /// any further then.
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            match self.state {
                State::Head => {
                    rest = self.read_head(rest)?;
                    continue;
                }
                State::ChunkSize => match (byte as char).to_digit(16) {
                    Some(digit) => self.left = self.left * 16 + u64::from(digit),
                    None if byte == b'\n' => self.begin_chunk(),
                    None => self.state = State::ChunkExtension,
                },
                State::ChunkExtension => {
                    if byte == b'\n' {
                        self.begin_chunk();
                    }
                }
                State::ChunkData | State::Plain => {
                    let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                    take(&rest[..length])?;
                    rest = &rest[length..];
                    self.left -= length as u64;
                    if self.left == 0 {
                        let chunk = self.state == State::ChunkData;
                        self.state = if chunk { State::ChunkEnd } else { State::Ended };
                    }
                    continue;
                }
                State::ChunkEnd => {
                    if byte == b'\n' {
                        self.state = State::ChunkSize;
                    }
                }
                // Of the line end behind the last chunk, and of whatever else comes.
                State::Ended => return Ok(()),
            }
            rest = &rest[1..];
        }
        Ok(())
    }

    fn begin_chunk(&mut self) {
        self.state = if self.left == 0 { State::Ended } else { State::ChunkData };
    }

    /// Returns what is left behind the head.
    fn read_head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], String> {
        let known = self.head.len();
        self.head.extend_from_slice(bytes);
        let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
            let too_long = self.head.len() > HEAD_BYTES_MAX;
            return if too_long { Err("a head without an end".to_owned()) } else { Ok(&[]) };
        };
        let head = String::from_utf8_lossy(&self.head[..end]);
        let status = head.get(9..12).unwrap_or_default();
        if !status.starts_with('2') {
            return Err(format!("answered with status {status}"));
        }
        (self.state, self.left) = match header(&head, "content-length").map(str::parse) {
            Some(Ok(0)) => (State::Ended, 0),
            Some(Ok(length)) => (State::Plain, length),
            Some(Err(_)) => return Err("answered with a length that is none".to_owned()),
            None if header(&head, "transfer-encoding").is_some() => (State::ChunkSize, 0),
            None => (State::Plain, u64::MAX),
        };
        self.head = Vec::new();
        Ok(&bytes[end + 4 - known..])
    }
}

/// The value of a header in a head.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// A connection for one request after the other.
pub(crate) struct Client {
    stream: TcpStream,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nothing listens there.
    pub(crate) fn connect(address: SocketAddrV4) -> Result<Client, String> {
        let stream = TcpStream::connect(address).map_err(|error| format!("{address}: {error}"))?;
        let set = stream.set_nodelay(true);
        set.and_then(|()| stream.set_read_timeout(Some(ANSWER_TIMEOUT)))
            .map_err(|error| error.to_string())?;
        Ok(Client { stream })
    }

    /// `GET path`; returns the body.
    ///
    /// # Errors
    /// When the answer is none of 2xx, or does not come.
    pub(crate) fn get(&mut self, path: &str) -> Result<Vec<u8>, String> {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"))
    }

    /// `POST path` with JSON; returns the body.
    ///
    /// # Errors
    /// When the answer is none of 2xx, or does not come.
    pub(crate) fn post(&mut self, path: &str, json: &str) -> Result<Vec<u8>, String> {
        self.ask(&format!(
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{json}",
            json.len()
        ))
    }

    fn ask(&mut self, request: &str) -> Result<Vec<u8>, String> {
        let line = request.lines().next().unwrap_or_default();
        let failed = |why: &dyn std::fmt::Display| format!("{line}: {why}");
        self.stream.write_all(request.as_bytes()).map_err(|error| failed(&error))?;
        let mut reader = BodyReader::new();
        let mut body = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        while !reader.has_ended() {
            let length = self.stream.read(&mut buffer).map_err(|error| failed(&error))?;
            if length == 0 {
                return Err(failed(&"the server closed the connection"));
            }
            reader
                .read(&buffer[..length], |data| {
                    body.extend_from_slice(data);
                    Ok(())
                })
                .map_err(|why| failed(&format!("{why}: {}", said(&buffer[..length]))))?;
        }
        Ok(body)
    }
}

/// The last line of an answer, for whoever looks for what went wrong.
fn said(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    text.lines().last().unwrap_or_default().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body of a response that comes in pieces of so many bytes, and whether it ended.
    fn read(text: &str, piece: usize) -> Result<(String, bool), String> {
        let mut reader = BodyReader::new();
        let mut body = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            reader.read(piece, |data| {
                body.extend_from_slice(data);
                Ok(())
            })?;
        }
        Ok((String::from_utf8(body).unwrap(), reader.has_ended()))
    }

    #[test]
    fn bodies_are_read_wherever_they_are_cut() {
        let ok = "HTTP/1.1 200 OK\r\n";
        for (response, body, ended) in [
            (
                "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n",
                "abc0123456789",
                false,
            ),
            ("transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", "a", true),
            ("content-length: 2\r\n\r\nok", "ok", true),
            ("content-length: 3\r\n\r\nok", "ok", false),
            ("content-length: 0\r\n\r\n", "", true),
            ("date: now\r\n\r\nuntil the end", "until the end", false),
        ] {
            let text = format!("{ok}{response}");
            for piece in [1, 2, 3, 7, text.len()] {
                let right = (body.to_owned(), ended);
                assert_eq!(read(&text, piece), Ok(right), "{response:?}, piece {piece}");
            }
        }
    }

    #[test]
    fn refusals_are_errors() {
        for piece in [1, 9, 100] {
            assert!(read("HTTP/1.1 503 Full\r\n\r\n", piece).unwrap_err().contains("503"));
        }
    }
}
