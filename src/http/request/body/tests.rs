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
        (b"{\"a\":\"\xe9\"}".to_vec(), "not UTF-8 at byte 6"),
        (b"\xef\xbb\xbf{\"a\":\"\xe9\"}".to_vec(), "not UTF-8 at byte 9"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}".to_vec(), "not the JSON wanted"),
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
fn a_list_is_counted_while_it_is_read() {
    let read = |text: &str| serde_json::from_str::<AtMost<u8, 3>>(text);
    assert_eq!(read("[1,2,3]").unwrap(), AtMost(vec![1, 2, 3]));
    // What is beyond is not even looked at.
    assert!(read("[1,2,3,4,\"x\"]").unwrap_err().to_string().contains("at most 3"));
    assert!(read("7").is_err());
}
