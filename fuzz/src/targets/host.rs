//! The host of a request.

use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "host",
    run,
    words: &[
        "localhost",
        "127.0.0.1",
        "[::1]",
        "[fe80::1%25eth0]",
        ":3000",
        ":65536",
        "%2D",
        "%",
        ".",
        "..",
        "@",
        "/",
        "a.example",
        "xn--kln-sna",
    ],
};

fn run(input: &[u8]) {
    if !fantail::http::fuzz::is_host(input) {
        return;
    }
    let text = std::str::from_utf8(input).unwrap();
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
    // Nothing that divides a URL, or joins two hosts.
    assert!(!text.contains(['/', '?', '#', '@', ',', '\\', '*', '"', '<', '>']), "{text:?}");
    // The port, if there is one, is what a URL can have.
    let after_address = text.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match text[after_address..].split_once(':') {
        Some((host, port)) => (format!("{}{host}", &text[..after_address]), port),
        None => (text.to_owned(), ""),
    };
    assert!(!host.is_empty(), "{text:?}");
    assert!(port.is_empty() || port.parse::<u16>().is_ok(), "{text:?}");
    // As the reader of `http` has it, which knows no scope of an address.
    if !text.contains('%') {
        let authority: http::uri::Authority = text.parse().unwrap_or_else(|error| {
            panic!("{text:?} is no authority: {error}");
        });
        assert_eq!(authority.host(), host);
    }
}
