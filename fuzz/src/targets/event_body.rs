//! The body of `POST /topics/{topic}/events`, from JSON to what a page gets.

use fantail::entry::{Data, Event};
use fantail::http::fuzz::events;
use fantail::wire::sse::{event_text, read_event_text};
use serde_json::Value;

use crate::Target;
use crate::standard::{interpret, with_line_feeds};

pub(super) const TARGET: Target = Target {
    name: "event_body",
    run,
    words: &[
        "{\"data\":",
        "{\"event\":\"x\",\"data\":",
        "\"data\"",
        "\"event\"",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "null",
        "true",
        "\"\"",
        "\"\\n\"",
        "\\u0000",
        "\\ud800",
        "\\ud83d\\ude00",
        "1e400",
        "-0",
        "12345678901234567890123",
        "1.0",
        "\u{feff}",
        "\u{2028}",
        "\u{85}",
        "\"reset\"",
        "\u{1f}\u{8b}",
        " ",
        "\\r",
        "{\"data\":1}",
    ],
};

const EVENTS_MAX: usize = 1_000;

fn run(input: &[u8]) {
    let Some(events) = events(input) else { return };
    assert!((1..=EVENTS_MAX).contains(&events.len()));
    let text = std::str::from_utf8(input).unwrap();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // It does not read what is nested hundreds of times, and needs not be asked about it.
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        assert_eq!(values.len(), events.len());
        for (value, event) in values.iter().zip(&events) {
            says(value, event);
        }
    }
    for event in &events {
        arrives(event);
    }
}

/// The event is what the JSON says, and the JSON says nothing else.
fn says(value: &Value, event: &Event) {
    let object = value.as_object().unwrap();
    assert!(object.keys().all(|key| key == "event" || key == "data"), "{object:?}");
    let event_type = object.get("event").filter(|value| !value.is_null());
    let event_type = event_type.map(|value| value.as_str().unwrap());
    assert_eq!(event.event_type.as_ref().map(|kind| kind.as_str()), event_type);
    match (&event.data, &object["data"]) {
        (Data::Text(text), Value::String(said)) => assert_eq!(text, said),
        (Data::Json(json), said) => {
            assert!(!said.is_string());
            assert_eq!(serde_json::from_str::<Value>(json).unwrap(), *said);
        }
        (data, said) => panic!("{data:?} for {said:?}"),
    }
}

/// A page gets the same, in one event, and so does who reads the history.
fn arrives(event: &Event) {
    let written = event_text(event);
    let written = std::str::from_utf8(&written).unwrap();
    let received = interpret(written);
    let [received] = &received[..] else { panic!("{written:?} is {received:?}") };
    let event_type = event.event_type.as_ref().map(|kind| kind.as_str());
    let data = with_line_feeds(event.data.text());
    assert_eq!(received.event_type, event_type.unwrap_or("message"));
    assert_eq!(received.data, data);
    assert_eq!(read_event_text(written), (event_type, data));
    if let Data::Json(json) = &event.data {
        assert!(!json.contains(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']), "{json:?}");
    }
}
