//! `fantail health`: asks a gateway whether it answers, and ends with the exit status that says so.
//!
//! A container's health check needs a program inside the image, and slim images have neither curl
//! nor wget. One question over a socket: no runtime, and a bound on every wait.

mod tls;

use std::fmt;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How long each of connecting, asking and reading may take: together less than the timeout of a
/// usual health check, so that the reason is told by us and not by the container engine.
const HEALTH_TIMEOUT: Duration = Duration::from_millis(900);

/// What is read of the answer at most; its first line is all that counts.
const ANSWER_BYTES_MAX: usize = 4096;

/// Where to ask: an `http://` or `https://` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthUrl {
    is_tls: bool,
    /// Host and port as written.
    authority: String,
    /// What stands in the `Host` header.
    host: String,
    path: String,
}

impl HealthUrl {
    /// `/healthz` of the gateway that listens on `address`, as asked from the same machine.
    pub fn of(mut address: SocketAddr) -> HealthUrl {
        // Somebody who listens everywhere listens on loopback too, and nobody connects to "any".
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        // By a name to which every node answers, whatever others it is said to have.
        let (authority, host) = (address.to_string(), "localhost".to_owned());
        HealthUrl { is_tls: false, authority, host, path: "/healthz".to_owned() }
    }

    /// The same, of a gateway that speaks TLS.
    pub fn over_tls(self) -> HealthUrl {
        HealthUrl { is_tls: true, ..self }
    }

    fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    /// Asks once; healthy is who answers 200.
    ///
    /// # Errors
    /// What went wrong, or what was answered instead, as one line.
    pub fn ask(&self) -> Result<(), String> {
        let place = self.place();
        let status = self.status().map_err(|error| format!("{place} does not answer: {error}"))?;
        match status.as_str() {
            "200" => Ok(()),
            other => Err(format!("{place} answers {}", told(other))),
        }
    }

    /// As it may stand in a log: of a path that is not one of ours, nobody knows what is in it.
    fn place(&self) -> String {
        let HealthUrl { authority, path, .. } = self;
        let scheme = self.scheme();
        match path.as_str() {
            "/" | "/healthz" | "/readyz" => format!("{scheme}://{authority}{path}"),
            _ => format!("{scheme}://{authority}/…"),
        }
    }

    fn status(&self) -> std::io::Result<String> {
        let address = self.authority.to_socket_addrs()?.next().ok_or_else(|| {
            std::io::Error::new(std::io::ErrorKind::NotFound, "the host has no address")
        })?;
        let socket = TcpStream::connect_timeout(&address, HEALTH_TIMEOUT)?;
        socket.set_read_timeout(Some(HEALTH_TIMEOUT))?;
        socket.set_write_timeout(Some(HEALTH_TIMEOUT))?;
        if self.is_tls {
            let host = self.authority.rsplit_once(':').map_or("", |(host, _)| host);
            let host = host.trim_matches(['[', ']']);
            self.status_on(tls::over(socket, host)?)
        } else {
            self.status_on(socket)
        }
    }

    fn status_on(&self, mut socket: impl Read + Write) -> std::io::Result<String> {
        let HealthUrl { host, path, .. } = self;
        write!(socket, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        let mut part = [0; 512];
        let asked_at = Instant::now();
        while !answer.contains(&b'\n') && answer.len() < ANSWER_BYTES_MAX {
            // Each read is bounded already; this bounds an answer that comes byte by byte.
            if asked_at.elapsed() > HEALTH_TIMEOUT {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            match socket.read(&mut part)? {
                0 => break,
                read => answer.extend_from_slice(&part[..read]),
            }
        }
        let answer = String::from_utf8_lossy(&answer);
        let mut words = answer.lines().next().unwrap_or_default().split(' ');
        match (words.next(), words.next()) {
            (Some(version), Some(status)) if version.starts_with("HTTP/1.") => {
                Ok(status.to_owned())
            }
            _ => Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "that is not HTTP")),
        }
    }
}

/// A status as it may stand in a log: whoever answered may have said anything.
fn told(status: &str) -> &str {
    let is_status = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
    if is_status { status } else { "what is no status" }
}

impl FromStr for HealthUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<HealthUrl, String> {
        let right = "must be an http:// or https:// URL such as http://127.0.0.1:3000/healthz";
        let (scheme, rest) = text.split_once("://").ok_or(right)?;
        let (is_tls, default_port) = match scheme {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return Err(right.to_owned()),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        // The text goes into a request head as it is: nothing in it may end a line or a word.
        let fits = !authority.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic());
        if !fits || authority.contains('@') {
            return Err(right.to_owned());
        }
        // The port is what follows the address of a host, which has colons itself in brackets.
        let after_host = authority.rfind(']').map_or(0, |end| end + 1);
        let port = authority[after_host..].split_once(':').map(|(_, port)| port);
        if port.is_some_and(|port| port.parse::<u16>().is_err()) || authority.contains(['?', '#']) {
            return Err(right.to_owned());
        }
        let has_port = port.is_some();
        let authority =
            if has_port { authority.to_owned() } else { format!("{authority}:{default_port}") };
        Ok(HealthUrl { is_tls, host: authority.clone(), authority, path: path.to_owned() })
    }
}

impl fmt::Display for HealthUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}{}", self.scheme(), self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers one connection with `answer` and says what was asked.
    fn answering(answer: &'static str) -> (HealthUrl, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = HealthUrl::of(listener.local_addr().unwrap());
        let asked = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).unwrap() == 1 {
                head.extend_from_slice(&byte);
            }
            socket.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(head).unwrap()
        });
        (url, asked)
    }

    #[test]
    fn only_200_is_healthy() {
        let (url, asked) = answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
        assert_eq!(url.ask(), Ok(()));
        let head = asked.join().unwrap();
        assert!(head.starts_with("GET /healthz HTTP/1.1\r\nHost: localhost\r\n"), "{head}");

        for (answer, told) in [
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "answers 503"),
            ("SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
            ("", "not HTTP"),
        ] {
            let (url, asked) = answering(answer);
            let line = url.ask().unwrap_err();
            assert!(line.contains(told) && line.contains("/healthz"), "{line}");
            asked.join().unwrap();
        }
    }

    #[test]
    fn nobody_listening_and_nobody_answering_are_both_told_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = HealthUrl::of(listener.local_addr().unwrap());
        // The kernel accepts, and then there is silence.
        let began_at = std::time::Instant::now();
        assert!(url.ask().unwrap_err().contains("does not answer"));
        assert!(began_at.elapsed() < 4 * HEALTH_TIMEOUT);
        drop(listener);
        assert!(url.ask().unwrap_err().contains("does not answer"));
    }

    #[test]
    fn what_was_asked_is_not_told_where_somebody_may_have_a_secret() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        for path in ["/hunter2", "/healthz?token=hunter2", "/?hunter2"] {
            let url: HealthUrl = format!("http://{address}{path}").parse().unwrap();
            let line = url.ask().unwrap_err();
            assert!(line.contains(&format!("http://{address}/…")), "{line}");
            assert!(!line.contains("hunter2"), "{line}");
        }
    }

    #[test]
    fn urls_are_read_and_addresses_that_mean_everywhere_become_loopback() {
        for (text, shown) in [
            ("http://127.0.0.1:3000/healthz", "http://127.0.0.1:3000/healthz"),
            ("http://[::1]:3000/readyz?x=1", "http://[::1]:3000/readyz?x=1"),
            ("http://gateway", "http://gateway:80/"),
            ("http://[::1]", "http://[::1]:80/"),
            ("https://[::1]/healthz", "https://[::1]:443/healthz"),
        ] {
            assert_eq!(text.parse::<HealthUrl>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "ftp://a/",
            "127.0.0.1:3000",
            "http://",
            "http://a b/",
            "http://u@a/",
            "http://a:word/",
            "http://a:1:2/",
            "http://::1/",
            "http://a?b",
            "http://a#b",
        ] {
            assert!(text.parse::<HealthUrl>().is_err(), "{text}");
        }
        for (listen, shown) in [
            ("0.0.0.0:3000", "http://127.0.0.1:3000/healthz"),
            ("[::]:3000", "http://[::1]:3000/healthz"),
            ("10.0.0.7:80", "http://10.0.0.7:80/healthz"),
        ] {
            assert_eq!(HealthUrl::of(listen.parse().unwrap()).to_string(), shown);
        }
    }
}
