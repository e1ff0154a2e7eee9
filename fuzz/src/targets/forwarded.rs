//! `Forwarded` and `X-Forwarded-For`: whatever a client has written, what the proxy that is trusted
//! has added behind it holds.

use std::net::{IpAddr, Ipv4Addr};

use fantail::address::TrustedProxies;
use fantail::address::forwarded::{ForwardedError, client};

use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "forwarded",
    run,
    words: &[
        "for=",
        "for=192.0.2.60",
        "For=\"[2001:db8:cafe::17]:4711\"",
        "proto=https",
        "by=10.0.0.1",
        ";",
        ", ",
        "\"",
        "\\\"",
        "unknown",
        "_hidden",
        "192.0.2.1",
        "10.0.0.7",
        "[::1]",
        ":80",
        "::ffff:10.0.0.1",
        "\n",
    ],
};

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 99));

fn run(input: &[u8]) {
    let trusted = TrustedProxies::new(["10.0.0.0/8".parse().unwrap()]);
    let told = |forwarded: &[&[u8]], x_forwarded_for: &[&[u8]]| {
        let lines = |lines: &[&[u8]]| lines.iter().map(|line| line.to_vec()).collect::<Vec<_>>();
        let (forwarded, x_forwarded_for) = (lines(forwarded), lines(x_forwarded_for));
        let [forwarded, x_forwarded_for] =
            [&forwarded, &x_forwarded_for].map(|lines| lines.iter().map(Vec::as_slice));
        client(PROXY, &trusted, forwarded, x_forwarded_for)
    };
    let lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    // The proxy has added whom it was asked by, on the same line or on one of its own.
    for addition in [&b", 192.0.2.99"[..], b",192.0.2.99 "] {
        let mut joined = lines.clone();
        let last = [joined.pop().unwrap_or_default(), addition].concat();
        joined.push(&last);
        assert_eq!(told(&[], &joined), Ok(CLIENT));
    }
    let own_line = [&lines[..], &[b"192.0.2.99"]].concat();
    assert_eq!(told(&[], &own_line), Ok(CLIENT));
    let own_line = [&lines[..], &[b"for=192.0.2.99;proto=https"]].concat();
    assert_eq!(told(&own_line, &[]), Ok(CLIENT));
    let last = [lines.last().copied().unwrap_or_default(), b", for=192.0.2.99"].concat();
    let joined = [&lines[..lines.len() - 1], &[&last[..]]].concat();
    // A quote that a client has left open makes it unreadable, and never another client.
    let read = told(&joined, &[]);
    assert!([Ok(CLIENT), Err(ForwardedError::Malformed)].contains(&read), "{read:?}");
    // Both headers, one of which the client wrote: nobody is believed who differs from the other.
    let read = told(&lines, &[b"192.0.2.99"]);
    assert!(read.is_err() || read == Ok(CLIENT), "{read:?}");
    // What is told is the proxy, or stands there.
    if let Ok(address) = told(&[], &lines) {
        let text = String::from_utf8_lossy(input);
        let stands = |part: &str| stands_for(part).is_some_and(|said| said == address);
        assert!(address == PROXY || text.split([',', '\n']).any(stands), "{address} in {text:?}");
    }
}

/// The address that a part of `X-Forwarded-For` is, with or without brackets and a port.
fn stands_for(part: &str) -> Option<IpAddr> {
    let part = part.trim_matches([' ', '\t', '\r', '\u{c}']);
    let bare = part.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(host, _)| host);
    let without_port = part.rsplit_once(':').map(|(host, _)| host);
    let texts = [Some(part), bare, without_port];
    let address = texts.into_iter().flatten().find_map(|text| text.parse::<IpAddr>().ok());
    address.map(|address| address.to_canonical())
}
