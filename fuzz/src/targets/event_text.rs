//! The text of an event, as histories read it back.

use fantail::entry::{Data, Event, EventType};
use fantail::wire::sse::{event_text, read_event_text};

use crate::Target;
use crate::standard::{interpret, with_line_feeds};

pub(super) const TARGET: Target = Target {
    name: "event_text",
    run,
    words: &[
        "event: ",
        "data: ",
        "data:",
        "id: 1-k3f9\n",
        "retry: 1\n",
        ": c\n",
        "\n\n",
        "\r\n",
        "\r",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "\0",
    ],
};

fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    // Whatever is stored is read, and what was read is written and read again as the same.
    let (event_type, data) = read_event_text(&text);
    let valid = event_type.and_then(|event_type| EventType::new(event_type).ok());
    reads_back(valid.as_ref(), &data);
    // What somebody publishes.
    let (first, rest) = text.split_once('\n').unwrap_or(("", &text));
    reads_back(EventType::new(first).ok().as_ref(), rest);
}

fn reads_back(event_type: Option<&EventType>, data: &str) {
    let event = Event { event_type: event_type.cloned(), data: Data::Text(data.to_owned()) };
    let written = event_text(&event);
    let written = std::str::from_utf8(&written).unwrap();
    let (read_type, read_data) = read_event_text(written);
    assert_eq!(read_type, event_type.map(EventType::as_str));
    assert_eq!(read_data, with_line_feeds(data));
    // And a page gets the same of it.
    let received = interpret(written);
    let [received] = &received[..] else { panic!("{written:?} is {received:?}") };
    assert_eq!(received.event_type, read_type.unwrap_or("message"));
    assert_eq!(received.data, read_data);
}
