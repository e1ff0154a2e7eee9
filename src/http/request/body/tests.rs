use axum::http::HeaderValue;
use serde_json::Value;

use super::*;

fn headers(name: header::HeaderName, values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(&name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[test]
fn json_has_several_names() {
    let is_json = |values: &[&str]| is_json(&headers(header::CONTENT_TYPE, values)).is_ok();
    for right in [
        "application/json",
        "Application/JSON",
        "application/json;charset=utf-8",
        "application/json ; Charset = \"UTF-8\"; x=y",
        "application/json;",
        "application/vnd.api+json",
        "application/cloudevents-batch+json; charset=UTF8",
    ] {
        assert!(is_json(&[right]), "{right}");
    }
    for wrong in [
        "",
        "json",
        "text/json",
        "text/plain",
        "application/jsonp",
        "application/json-seq",
        "application/x+jsonx",
        "application/+json",
        "application/a b+json",
        "application/json, application/json",
        "multipart/form-data; boundary=json",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/json; charset=iso-8859-1",
    ] {
        assert!(!is_json(&[wrong]), "{wrong}");
    }
    assert!(!is_json(&[]));
    assert!(!is_json(&["application/json", "application/json"]));
}

#[test]
fn a_body_that_is_encoded_is_refused_by_its_header() {
    let is_plain =
        |values: &[&str]| is_encoded_as_it_is(&headers(header::CONTENT_ENCODING, values)).is_ok();
    for right in [&[][..], &[""], &["identity"], &["Identity, identity"], &["identity", ""]] {
        assert!(is_plain(right), "{right:?}");
    }
    for wrong in [&["gzip"][..], &["br"], &["identity, gzip"], &["identity", "deflate"], &["x"]] {
        assert!(!is_plain(wrong), "{wrong:?}");
    }
}

#[test]
fn what_is_no_json_is_told_in_words() {
    let utf_16 = |text: &str, to_bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        text.encode_utf16().flat_map(to_bytes).collect()
    };
    let utf_32: Vec<u8> = "{}".chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
    for (bytes, said) in [
        (b"".to_vec(), "the body is empty"),
        (b"\xef\xbb\xbf".to_vec(), "the body is empty"),
        (utf_16("{}", u16::to_le_bytes), "in UTF-16"),
        (utf_16("{}", u16::to_be_bytes), "in UTF-16"),
        (utf_16("\u{feff}{\"é\":1}", u16::to_le_bytes), "in UTF-16"),
        (utf_16("\u{feff}{\"é\":1}", u16::to_be_bytes), "in UTF-16"),
        (utf_16("7", u16::to_be_bytes), "in UTF-16"),
        (utf_32, "in UTF-32"),
        (b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), "compressed (gzip)"),
        (b"\x28\xb5\x2f\xfd\x04".to_vec(), "compressed (zstd)"),
        (b"x\x9c\x01".to_vec(), "compressed (deflate)"),
        (b"BZh91AY&SY".to_vec(), "compressed (bzip2)"),
        (b"\xfd7zXZ\0\0\x04".to_vec(), "compressed (xz)"),
        // Brotli and deflate without a head have no mark.
        (b"\x8b\x05\x80{}\x03".to_vec(), "not JSON: it begins with byte 0x8b"),
        (b"\xabV*I".to_vec(), "not JSON: it begins with byte 0xab"),
        (b"\x0b\x02\x80".to_vec(), "not JSON: it begins with byte 0x0b"),
        (b"{\"a\":\"\xe9\"}".to_vec(), "not UTF-8 at byte 6"),
        (b"\xef\xbb\xbf{\"a\":\"\xe9\"}".to_vec(), "not UTF-8 at byte 9"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}".to_vec(), "not JSON: it begins with byte 0xef"),
        (b"{\"a\":1".to_vec(), "not the JSON wanted: EOF"),
        (b"{} {}".to_vec(), "not the JSON wanted: trailing characters"),
        (b"title=x".to_vec(), "not the JSON wanted: expected"),
    ] {
        let told = parse::<Value>(&bytes).unwrap_err();
        assert!(told.contains(said), "{bytes:?}: {told}");
    }
    assert_eq!(parse::<Value>(b"\xef\xbb\xbf {\"a\":1}\r\n").unwrap()["a"], 1);
}

#[test]
fn a_body_around_which_more_than_chunks_is_put_is_refused_by_its_header() {
    let is_plain =
        |values: &[&str]| is_encoded_as_it_is(&headers(header::TRANSFER_ENCODING, values)).is_ok();
    for right in [&["chunked"][..], &["Chunked"], &["", "chunked"]] {
        assert!(is_plain(right), "{right:?}");
    }
    for wrong in [&["gzip, chunked"][..], &["gzip", "chunked"], &["identity, chunked"]] {
        assert!(!is_plain(wrong), "{wrong:?}");
    }
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: u8,
}

#[test]
fn an_object_is_no_list_and_what_is_told_of_its_names_is_short() {
    let read = |text: &str| parse::<Object<Named>>(text.as_bytes());
    assert_eq!(read(r#"{"name":7}"#), Ok(Object(Named { name: 7 })));
    for list in ["[7]", "[]", "[[7]]", r#""name""#, "null"] {
        assert!(read(list).unwrap_err().contains("expected an object"), "{list}");
    }
    assert!(parse::<AtMost<Named, 3>>(b"[[7]]").unwrap_err().contains("expected an object"));
    for long in ["x", "é", "\u{1f426}"] {
        let told = read(&format!(r#"{{"{}":7}}"#, long.repeat(1 << 18))).unwrap_err();
        assert!(told.chars().count() < 400, "{}", told.len());
        assert!(told.contains("unknown field") && told.contains("expected `name`"), "{told}");
    }
}

#[test]
fn a_list_is_counted_while_it_is_read() {
    let read = |text: &str| serde_json::from_str::<AtMost<Named, 2>>(text);
    let named = |name| Named { name };
    let text = r#"[{"name":1},{"name":2}]"#;
    assert_eq!(read(text).unwrap(), AtMost(vec![named(1), named(2)]));
    // What is beyond is not kept, and what follows it not even looked at.
    let text = r#"[{"name":1},{"name":2},{"name":3},"x"]"#;
    assert!(read(text).unwrap_err().to_string().contains("at most 2"));
    assert!(read("7").is_err());
}
