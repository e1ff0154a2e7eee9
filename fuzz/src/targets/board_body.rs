//! The bodies of requests to the task board.

use fantail::http::fuzz::board_bodies;
use serde_json::Value;

use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "board_body",
    run,
    words: &[
        "{\"title\":\"x\"}",
        "\"title\"",
        "\"listId\"",
        "\"index\"",
        "\"id\"",
        "\"name\"",
        "\"lists\"",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "null",
        "0",
        "-1",
        "1.5",
        "18446744073709551616",
        "\"\\u0000\"",
        "\\ud800",
        "\u{feff}",
        "[\"x\",\"y\"]",
    ],
};

/// What each of them has to have, and what it may have besides.
const SHAPES: [(&str, &[&str], &[&str]); 5] = [
    ("task", &["title", "listId"], &[]),
    ("title", &["title"], &[]),
    ("place", &["listId"], &["index"]),
    ("board", &["name"], &["id", "lists"]),
    ("list", &["title"], &["id"]),
];

fn run(input: &[u8]) {
    let taken = board_bodies(input);
    if taken.is_empty() {
        return;
    }
    let text = std::str::from_utf8(input).unwrap();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let value: Value = serde_json::from_str(text).unwrap();
    let object = value.as_object().unwrap();
    for name in taken {
        let (_, needed, allowed) = SHAPES.iter().find(|(shape, ..)| *shape == name).unwrap();
        for field in *needed {
            assert!(object[*field].is_string(), "{name}: {field} in {text}");
        }
        for (field, value) in object {
            let is_known = needed.contains(&&**field) || allowed.contains(&&**field);
            assert!(is_known, "{name}: {field} in {text}");
            match field.as_str() {
                "index" => assert!(value.is_u64() || value.is_null(), "{text}"),
                "lists" => {
                    assert!(value.as_array().is_some_and(|lists| lists.len() <= 200), "{text}")
                }
                _ => assert!(value.is_string() || value.is_null(), "{text}"),
            }
        }
    }
}
