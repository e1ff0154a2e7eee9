//! The PROXY header that a trusted proxy may begin a connection with.

use std::net::IpAddr;

use fantail::net::fuzz::{ProxyHeader, proxy_header};

use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "proxy_header",
    run,
    words: &[
        "PROXY ",
        "TCP4 ",
        "TCP6 ",
        "UNKNOWN",
        "192.0.2.1 ",
        "2001:db8::1 ",
        "56324 443",
        " 65536",
        "\r\n",
        "\r\n\r\n\0\r\nQUIT\n",
        "\u{21}\u{11}\0\u{0c}",
        "\u{20}\0\0\0",
        "\u{21}\u{21}\0\u{24}",
        "GET / HTTP/1.1\r\n",
    ],
};

/// What is read of one at most.
const HEADER_BYTES_MAX: usize = 4 << 10;

fn run(input: &[u8]) {
    let read = proxy_header(input);
    is_the_same_in_pieces(input, &read);
    if let ProxyHeader::Complete(length, client) = read {
        assert!(length <= input.len().min(HEADER_BYTES_MAX));
        // Nothing behind it was looked at.
        assert_eq!(proxy_header(&input[..length]), ProxyHeader::Complete(length, client));
        let said = &input[..length];
        match said.strip_prefix(b"PROXY ") {
            Some(line) => is_as_the_line_says(line, client),
            None => is_as_the_bytes_say(said, client),
        }
    }
    written(input);
}

/// However little has come, what is decided stays so, and nothing is given up that may be right.
fn is_the_same_in_pieces(input: &[u8], whole: &ProxyHeader) {
    let ends = (0..input.len().min(300)).chain((300..input.len()).step_by(997));
    for end in ends {
        match proxy_header(&input[..end]) {
            ProxyHeader::Undecided | ProxyHeader::Incomplete => {}
            decided => assert_eq!(decided, *whole, "after {end} bytes"),
        }
    }
    if matches!(whole, ProxyHeader::Undecided | ProxyHeader::Incomplete) {
        assert!(input.len() < HEADER_BYTES_MAX, "{} bytes decide nothing", input.len());
    }
}

fn is_as_the_line_says(line: &[u8], client: Option<IpAddr>) {
    let line = std::str::from_utf8(line).unwrap().strip_suffix("\r\n").unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    if words[0] == "UNKNOWN" {
        return assert_eq!(client, None);
    }
    let [family, source, target, from, to] = words[..] else { panic!("{line:?}") };
    let client = client.unwrap();
    assert_eq!(source.parse(), Ok(client));
    assert_eq!(family == "TCP4", client.is_ipv4(), "{line:?}");
    assert_eq!(target.parse::<IpAddr>().map(|target| target.is_ipv4()), Ok(client.is_ipv4()));
    assert!([from, to].iter().all(|port| port.parse::<u16>().is_ok()), "{line:?}");
}

fn is_as_the_bytes_say(said: &[u8], client: Option<IpAddr>) {
    assert_eq!(said.len(), 16 + usize::from(said[14]) * 256 + usize::from(said[15]));
    let is_local = said[12] == 0x20;
    assert!(is_local || said[12] == 0x21);
    let expected = match said[13] >> 4 {
        1 if !is_local => Some(IpAddr::from(<[u8; 4]>::try_from(&said[16..20]).unwrap())),
        2 if !is_local => Some(IpAddr::from(<[u8; 16]>::try_from(&said[16..32]).unwrap())),
        _ => None,
    };
    assert_eq!(client, expected);
}

/// What a proxy writes is read, whatever comes behind it.
fn written(input: &[u8]) {
    let mut bytes = [0; 36];
    for (byte, from) in bytes.iter_mut().zip(input) {
        *byte = *from;
    }
    let [v4, v6]: [IpAddr; 2] = [
        <[u8; 4]>::try_from(&bytes[..4]).unwrap().into(),
        <[u8; 16]>::try_from(&bytes[..16]).unwrap().into(),
    ];
    let port = u16::from_be_bytes([bytes[32], bytes[33]]);
    for (client, family) in [(v4, 0x11), (v6, 0x21)] {
        let word = if client.is_ipv4() { "TCP4" } else { "TCP6" };
        let line = format!("PROXY {word} {client} {client} {port} {port}\r\n");
        let addresses = if client.is_ipv4() { &bytes[..12] } else { &bytes[..36] };
        let fixed = [0x21, family, 0, addresses.len() as u8];
        let binary = [b"\r\n\r\n\0\r\nQUIT\n", &fixed[..], addresses].concat();
        for header in [line.into_bytes(), binary] {
            let whole = [&header, input].concat();
            let read = proxy_header(&whole);
            assert_eq!(read, ProxyHeader::Complete(header.len(), Some(client)));
        }
    }
}
