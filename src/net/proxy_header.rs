//! The PROXY protocol, versions 1 and 2: what a proxy says of a connection before its first byte.
//!
//! <https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>. Only the client's address is wanted;
//! additions (TLVs) are skipped. It is read only from trusted proxies. Pure: [`read`] is asked again
//! with all bytes from the beginning when more have come; `sockets` are [`proxied`](super::proxied)'s.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest header that is read, in bytes: of version 1 as specified; of version 2 all addresses
/// and more additions than are in use (a certificate's name, a TLS version), which are at most 64 KiB
/// by the format.
pub(super) const HEADER_BYTES_MAX: usize = 4 << 10;
const V1_BYTES_MAX: usize = 107;

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;

/// What is at the beginning of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// Something else.
    Absent,
    /// Too few bytes to tell: this can be something else, too.
    Undecided,
    /// The beginning of a header, and nothing else.
    Incomplete,
    /// A header of so many bytes, and the address of the client. `None` if it has none to tell (a
    /// connection of the proxy's own, such as a health check; one that did not come over IP).
    Complete(usize, Option<IpAddr>),
    /// It begins as a header and is none.
    Malformed,
}

/// What these bytes are, all that has come.
pub(super) fn read(bytes: &[u8]) -> Header {
    for (signature, rest) in
        [(V1_SIGNATURE, read_v1 as fn(&[u8]) -> Header), (V2_SIGNATURE, read_v2)]
    {
        if bytes.starts_with(signature) {
            return rest(bytes);
        }
        if signature.starts_with(bytes) {
            return Header::Undecided;
        }
    }
    Header::Absent
}

/// A line such as `PROXY TCP4 192.0.2.1 198.51.100.7 56324 443`.
fn read_v1(bytes: &[u8]) -> Header {
    let seen = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
        return if seen.len() < V1_BYTES_MAX { Header::Incomplete } else { Header::Malformed };
    };
    let line = seen[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    match line.and_then(source_of_line) {
        Some(source) => Header::Complete(end + 1, source),
        None => Header::Malformed,
    }
}

fn source_of_line(line: &str) -> Option<Option<IpAddr>> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored.
        return Some(None);
    }
    let mut address = || {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse().map(IpAddr::V4).ok(),
            "TCP6" => word.parse().map(IpAddr::V6).ok(),
            _ => None,
        }
    };
    let (source, _destination) = (address()?, address()?);
    for _ in 0..2 {
        let port = words.next()?;
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || port.parse::<u16>().is_err() {
            return None;
        }
    }
    words.next().is_none().then_some(Some(source))
}

fn read_v2(bytes: &[u8]) -> Header {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED_BYTES>() else {
        return Header::Incomplete;
    };
    let [.., version_and_command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Header::Malformed,
    };
    // High: unspecified, IPv4, IPv6, UNIX. Low: unspecified, stream, datagram.
    let addresses_bytes = match (family >> 4, family & 0xf) {
        // Whatever addresses it has are to be ignored.
        _ if is_local => 0,
        (0x0, 0x0..=0x2) => 0,
        (0x1, 0x0..=0x2) => 12,
        (0x2, 0x0..=0x2) => 36,
        (0x3, 0x0..=0x2) => 216,
        _ => return Header::Malformed,
    };
    let whole = V2_FIXED_BYTES + length;
    if length < addresses_bytes || whole > HEADER_BYTES_MAX {
        return Header::Malformed;
    }
    let Some(rest) = rest.get(..length) else { return Header::Incomplete };
    let source = match addresses_bytes {
        12 => rest.first_chunk().map(|source: &[u8; 4]| Ipv4Addr::from(*source).into()),
        36 => rest.first_chunk().map(|source: &[u8; 16]| Ipv6Addr::from(*source).into()),
        _ => None,
    };
    Header::Complete(whole, source)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;
    use proxy_header::{ParseConfig, ProxiedAddress, ProxyHeader, Tlv};

    use super::*;

    fn v2(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        let fixed = [version_and_command, family, length[0], length[1]];
        [V2_SIGNATURE, &fixed, rest].concat()
    }

    #[test]
    fn lines_of_version_1_are_read_as_specified() {
        for (line, address) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", Some("192.0.2.1")),
            ("PROXY TCP6 2001:db8::1 ::1 65535 0\r\n", Some("2001:db8::1")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 whatever\r\n", None),
        ] {
            let client = address.map(|address: &str| address.parse().unwrap());
            assert_eq!(read(line.as_bytes()), Header::Complete(line.len(), client), "{line:?}");
        }
        for line in [
            "PROXY \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443 1\r\n",
            "PROXY TCP4 192.0.2.1  198.51.100.7 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 65536\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 +1 443\r\n",
            "PROXY TCP4 ::1 ::1 1 1\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.1 1 1\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.1 1 1\r\n",
            "PROXY tcp4 192.0.2.1 192.0.2.1 1 1\r\n",
            "PROXY TCP4 192.0.2.256 192.0.2.1 1 1\r\n",
            &format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX)),
            &format!("PROXY UNKNOWN {}", "x".repeat(V1_BYTES_MAX)),
        ] {
            assert_eq!(read(line.as_bytes()), Header::Malformed, "{line:?}");
        }
    }

    #[test]
    fn headers_of_version_2_that_name_nobody_are_the_proxys_own() {
        for header in [
            // LOCAL, with and without addresses.
            v2(0x20, 0x00, &[]),
            v2(0x20, 0x11, &[192, 0, 2, 1, 198, 51, 100, 7, 0, 1, 0, 2]),
            v2(0x20, 0xff, &[]),
            v2(0x21, 0x00, b"\x04\0\x01x"),
            v2(0x21, 0x31, &[b'/'; 216]),
        ] {
            assert_eq!(read(&header), Header::Complete(header.len(), None), "{header:?}");
        }
        for header in [
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x31, &[0; 215]),
            v2(0x21, 0x41, &[0; 216]),
            v2(0x21, 0x13, &[0; 12]),
            v2(0x21, 0x11, &[0; HEADER_BYTES_MAX]),
        ] {
            assert_eq!(read(&header), Header::Malformed, "{header:?}");
        }
    }

    #[test]
    fn a_header_that_is_too_long_is_refused_before_it_has_come() {
        let header = v2(0x21, 0x11, &[0; HEADER_BYTES_MAX]);
        assert_eq!(read(&header[..V2_FIXED_BYTES]), Header::Malformed);
    }

    #[test]
    fn requests_are_no_headers() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"POST",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"PROXYING / HTTP/1.1\r\n",
            b"\r\nGET / HTTP/1.1\r\n",
            b"\x16\x03\x01",
        ] {
            assert_eq!(read(bytes), Header::Absent, "{bytes:?}");
        }
        for bytes in [&b""[..], b"P", b"PROXY", b"\r\n", b"\r\n\r\n\0\r\nQUIT"] {
            assert_eq!(read(bytes), Header::Undecided, "{bytes:?}");
        }
    }

    fn any_header() -> impl Strategy<Value = Vec<u8>> {
        let address = prop_oneof![
            any::<([u8; 4], [u8; 4], u16, u16)>().prop_map(|(from, to, port, other)| {
                (SocketAddr::from((from, port)), SocketAddr::from((to, other)))
            }),
            any::<([u8; 16], [u8; 16], u16, u16)>().prop_map(|(from, to, port, other)| {
                (SocketAddr::from((from, port)), SocketAddr::from((to, other)))
            }),
        ];
        let tlvs = prop::collection::vec(any::<(u8, Vec<u8>)>(), 0..3);
        (prop::option::of(address), tlvs, any::<bool>()).prop_map(|(address, tlvs, is_v1)| {
            let mut header = match address {
                Some((from, to)) => ProxyHeader::with_address(ProxiedAddress::stream(from, to)),
                None => ProxyHeader::with_local(),
            };
            let mut out = vec![0; 8 << 10];
            let length = if is_v1 {
                header.encode_to_slice_v1(&mut out)
            } else {
                for (kind, value) in tlvs {
                    header.append_tlv(Tlv::Custom(kind, value.into()));
                }
                header.encode_to_slice_v2(&mut out)
            };
            out.truncate(length.unwrap());
            out
        })
    }

    proptest! {
        #[test]
        fn headers_are_read_as_another_implementation_reads_them(
            header in any_header(),
            behind in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let whole = [&*header, &behind].concat();
            let config = ParseConfig::default();
            let (theirs, length) = ProxyHeader::parse(&whole, config).unwrap();
            let source = theirs.proxied_address().map(|address| address.source.ip());
            prop_assert_eq!(read(&whole), Header::Complete(length, source));
            // Whatever is missing, it is known that something is.
            for count in 0..header.len() {
                let part = read(&header[..count]);
                prop_assert!(matches!(part, Header::Undecided | Header::Incomplete), "{}", count);
            }
        }

        #[test]
        fn a_damaged_header_is_never_longer_than_what_has_come(
            mut header in any_header(),
            damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            for (at, byte) in damages {
                let at = at.index(header.len());
                header[at] = byte;
            }
            if let Header::Complete(length, _) = read(&header) {
                prop_assert!(length <= header.len());
                prop_assert!(length <= HEADER_BYTES_MAX);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            version in 0..3,
        ) {
            let signature = [&b""[..], V1_SIGNATURE, V2_SIGNATURE][version as usize];
            let _ = read(&[signature, &bytes].concat());
        }
    }
}
