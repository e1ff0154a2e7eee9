//! What proxies say of a client's address: `Forwarded` (RFC 7239) and `X-Forwarded-For`.
//!
//! Each proxy adds the address of whoever asked it at the right. What a client wrote itself stands at
//! the left of that, and can be anything. So both are read from the right: as long as the one who says
//! something is trusted, what it says is taken.
//!
//! Most proxies write one of both headers and pass on the other as it came, which may be the client's
//! own. Nobody can tell then which of two addresses is true, so a request whose headers differ is
//! refused. A proxy should remove the one that it does not write.

use std::net::{IpAddr, SocketAddr};

use super::{TrustedProxies, plain};

/// How many proxies one request can have passed: more are no chain but a client's invention.
const HOPS_MAX: usize = 32;

/// Why it cannot be told who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedError {
    /// `Forwarded` cannot be read, so what our proxy added to it cannot be found.
    Malformed,
    /// The two headers name different clients.
    Contradiction,
}

/// The client of a request that came from `peer`, a trusted proxy, with these header lines: of each
/// header the lines in order. Where a proxy does not say whom it forwards for (`unknown`, a name of
/// its own, or nothing), that is the proxy itself.
///
/// # Errors
/// When it cannot be told.
pub fn client<'a>(
    peer: IpAddr,
    trusted: &TrustedProxies,
    forwarded: impl DoubleEndedIterator<Item = &'a [u8]>,
    x_forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> Result<IpAddr, ForwardedError> {
    let mut forwarded = forwarded.rev().peekable();
    let mut x_forwarded_for = x_forwarded_for.rev().peekable();
    let by_standard = match forwarded.peek() {
        Some(_) => {
            let lines = forwarded.map(|line| elements(line).ok_or(ForwardedError::Malformed));
            Some(follow(peer, trusted, lines.flat_map(reversed))?)
        }
        None => None,
    };
    let by_custom = match x_forwarded_for.peek() {
        Some(_) => {
            let addresses = x_forwarded_for.flat_map(|line| line.rsplit(|byte| *byte == b','));
            Some(follow(peer, trusted, addresses.map(|text| Ok(address(text.trim_ascii()))))?)
        }
        None => None,
    };
    match (by_standard, by_custom) {
        (Some(one), Some(other)) if one != other => Err(ForwardedError::Contradiction),
        (one, other) => Ok(one.or(other).unwrap_or(peer)),
    }
}

type Hop = Result<Option<IpAddr>, ForwardedError>;

/// The elements of a line from right to left, or the error that it is.
fn reversed(line: Result<Vec<Option<IpAddr>>, ForwardedError>) -> impl Iterator<Item = Hop> {
    let (elements, error) = match line {
        Ok(elements) => (elements, None),
        Err(error) => (Vec::new(), Some(Err(error))),
    };
    elements.into_iter().rev().map(Ok).chain(error)
}

/// Goes from proxy to proxy, the last one first, to the first that nobody trusts.
fn follow(
    peer: IpAddr,
    trusted: &TrustedProxies,
    hops: impl Iterator<Item = Hop>,
) -> Result<IpAddr, ForwardedError> {
    let mut known = peer;
    for hop in hops.take(HOPS_MAX) {
        let Some(address) = hop? else { break };
        known = address;
        if !trusted.contain(address) {
            break;
        }
    }
    Ok(known)
}

/// For whom each element of a line of `Forwarded` was forwarded, from left to right; `None` if the
/// line is none (RFC 7239 §4).
fn elements(line: &[u8]) -> Option<Vec<Option<IpAddr>>> {
    let mut elements = Vec::new();
    let mut rest = line.trim_ascii_start();
    loop {
        let mut forwarded_for = None;
        // Pairs of an element, with semicolons between them; an empty element says nothing.
        let mut is_first = true;
        while !rest.is_empty() && rest[0] != b',' {
            if !is_first {
                rest = rest.strip_prefix(b";")?.trim_ascii_start();
            }
            is_first = false;
            let (name, value, behind) = pair(rest)?;
            if name.eq_ignore_ascii_case(b"for") {
                if forwarded_for.is_some() {
                    return None;
                }
                forwarded_for = Some(address(&value));
            }
            rest = behind.trim_ascii_start();
        }
        if !is_first {
            elements.push(forwarded_for.flatten());
        }
        match rest.strip_prefix(b",") {
            Some(behind) => rest = behind.trim_ascii_start(),
            None => return Some(elements),
        }
    }
}

/// A pair `name=value`, its value without quotes, and what stands behind it.
fn pair(text: &[u8]) -> Option<(&[u8], Vec<u8>, &[u8])> {
    let (name, rest) = token(text)?;
    let rest = rest.strip_prefix(b"=")?;
    let Some(quoted) = rest.strip_prefix(b"\"") else {
        let (value, rest) = token(rest)?;
        return Some((name, value.to_vec(), rest));
    };
    let mut value = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    loop {
        match bytes.next()? {
            (at, b'"') => return Some((name, value, &quoted[at + 1..])),
            (_, b'\\') => value.push(*bytes.next()?.1),
            (_, byte) => value.push(*byte),
        }
    }
}

/// A token (RFC 9110 §5.6.2), or what some proxies write in its place: an address with a port, or
/// one of IPv6, without the quotes that it needs.
fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let belongs = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:[]".contains(&byte);
    let end = text.iter().position(|byte| !belongs(*byte)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// An address with or without a port, as either header may have it.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().map(IpAddr::V6).ok();
    // The port may also be a name of the proxy's own, which says as little.
    let before_port = || {
        let (host, port) = text.rsplit_once(':')?;
        let is_name = port.starts_with('_');
        is_name.then(|| address(host.as_bytes()))?
    };
    let address = text.parse().ok();
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.or_else(in_brackets).or_else(before_port).map(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(forwarded: &[&str], x_forwarded_for: &[&str]) -> Result<String, ForwardedError> {
        let networks = ["10.0.0.0/8", "fd00::/8"];
        let trusted = TrustedProxies::new(networks.map(|network| network.parse().unwrap()));
        let bytes = |lines: &[&str]| -> Vec<Vec<u8>> {
            lines.iter().map(|line| line.as_bytes().to_vec()).collect()
        };
        let (forwarded, x_forwarded_for) = (bytes(forwarded), bytes(x_forwarded_for));
        let client = client(
            "10.0.0.1".parse().unwrap(),
            &trusted,
            forwarded.iter().map(Vec::as_slice),
            x_forwarded_for.iter().map(Vec::as_slice),
        );
        client.map(|address| address.to_string())
    }

    #[test]
    fn the_client_is_the_rightmost_that_is_no_trusted_proxy() {
        for (lines, client) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&["198.51.100.9, 192.0.2.1"], "192.0.2.1"),
            (&["198.51.100.9, 192.0.2.1, 10.9.9.9"], "192.0.2.1"),
            (&["198.51.100.9", "192.0.2.1", "10.9.9.9,fd00::7"], "192.0.2.1"),
            // A client within: nobody stands before it.
            (&["10.7.7.7, 10.9.9.9"], "10.7.7.7"),
            (&["192.0.2.1:4711"], "192.0.2.1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["[2001:db8::1]:443"], "2001:db8::1"),
            (&["::ffff:192.0.2.1"], "192.0.2.1"),
            // Whom it does not name, it stands for itself.
            (&["unknown"], "10.0.0.1"),
            (&["192.0.2.1, unknown"], "10.0.0.1"),
            (&["192.0.2.1, junk, 10.9.9.9"], "10.9.9.9"),
            (&[""], "10.0.0.1"),
            (&[], "10.0.0.1"),
        ] {
            assert_eq!(told(&[], lines).as_deref(), Ok(client), "{lines:?}");
        }
    }

    #[test]
    fn the_standard_header_is_read_with_its_quotes() {
        for (lines, client) in [
            (&["for=192.0.2.1"][..], "192.0.2.1"),
            (&["For=\"192.0.2.1:80\";proto=https;by=203.0.113.43"], "192.0.2.1"),
            (&["for=198.51.100.9, for=192.0.2.1;host=\"a,b;for=1.1.1.1\""], "192.0.2.1"),
            (&["for=\"[2001:db8::1]:47011\""], "2001:db8::1"),
            (&["for=[2001:db8::1]"], "2001:db8::1"),
            (&["for=\"192.0.2.1:_port\""], "192.0.2.1"),
            (&["for=\"1\\92.0.2.1\""], "192.0.2.1"),
            (&["for=192.0.2.1, for=10.1.1.1", "for=10.2.2.2"], "192.0.2.1"),
            (&["for=192.0.2.1,, , for=10.1.1.1,"], "192.0.2.1"),
            (&["for=unknown"], "10.0.0.1"),
            (&["for=192.0.2.1, for=_hidden"], "10.0.0.1"),
            (&["for=192.0.2.1, proto=http"], "10.0.0.1"),
            // What a client wrote is not looked at once the proxy has begun a line of its own.
            (&["for=\"", "for=192.0.2.1"], "192.0.2.1"),
        ] {
            assert_eq!(told(lines, &[]).as_deref(), Ok(client), "{lines:?}");
        }
    }

    #[test]
    fn what_swallows_the_words_of_the_proxy_is_refused() {
        for line in [
            "for=\", for=192.0.2.1",
            "for=\"x\\\", for=192.0.2.1",
            "x, for=192.0.2.1",
            "for=, for=192.0.2.1",
            "=x, for=192.0.2.1",
            "for=1.1.1.1;for=192.0.2.1",
            "for=1.1.1.1 for=192.0.2.1",
            "for=1.1.1.1;",
            "for = 192.0.2.1",
        ] {
            assert_eq!(told(&[line], &[]), Err(ForwardedError::Malformed), "{line}");
        }
    }

    #[test]
    fn two_headers_that_name_two_clients_are_refused() {
        let same = told(&["for=192.0.2.1"], &["1.1.1.1, 192.0.2.1"]);
        assert_eq!(same.as_deref(), Ok("192.0.2.1"));
        for (forwarded, x_forwarded_for) in [
            ("for=192.0.2.1", "192.0.2.2"),
            ("for=unknown", "192.0.2.2"),
            ("for=192.0.2.1", "unknown"),
            ("for=192.0.2.1", ""),
        ] {
            let told = told(&[forwarded], &[x_forwarded_for]);
            assert_eq!(told, Err(ForwardedError::Contradiction), "{forwarded} {x_forwarded_for}");
        }
    }

    #[test]
    fn a_chain_without_end_is_not_followed() {
        let chain = format!("192.0.2.1{}", ", 10.1.1.1".repeat(HOPS_MAX));
        assert_eq!(told(&[], &[&chain]).as_deref(), Ok("10.1.1.1"));
    }

    proptest! {
        #[test]
        fn a_client_cannot_choose_its_address(
            written in prop::collection::vec("[ -~\u{e9}]{0,40}", 0..4),
            address in any::<u32>(),
            is_standard: bool,
        ) {
            let address = std::net::Ipv4Addr::from_bits(address);
            prop_assume!(address.octets()[0] != 10);
            let own = if is_standard { format!("for={address}") } else { address.to_string() };
            // The proxy adds to the last line, or a line of its own.
            for joined in [true, false] {
                let mut lines = written.clone();
                match lines.last_mut().filter(|_| joined) {
                    Some(last) => *last += &format!(", {own}"),
                    None => lines.push(own.clone()),
                }
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                let told = if is_standard { told(&lines, &[]) } else { told(&[], &lines) };
                let is_held = match told {
                    Ok(told) => told == address.to_string(),
                    Err(error) => is_standard && joined && error == ForwardedError::Malformed,
                };
                prop_assert!(is_held, "{lines:?}");
            }
        }
    }
}
