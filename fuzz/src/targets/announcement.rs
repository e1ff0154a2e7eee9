//! What Redis pushes: announcements, and whatever else stands on our channels.

use std::cell::RefCell;

use bytes::Bytes;
use fantail::entry::{Data, Entry, Event, EventType};
use fantail::log::redis::fuzz::{Ear, Heard};
use fantail::position::Position;
use fantail::wire::sse;

use crate::Target;
use crate::standard::{Received, interpret, with_line_feeds};

pub(super) const TARGET: Target = Target {
    name: "announcement",
    run,
    words: &[
        ">3\r\n$7\r\nmessage\r\n$11\r\nfantail:{t}\r\n",
        "$11\r\nfantail:{t}\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "$9999999999\r\n",
        "*4294967295\r\n",
        ">2\r\n",
        "%1\r\n",
        "fantail:{index,}:canary:n",
        "1700000000000\n",
        "id: 7-k3f9\n",
        "id: 9007199254740991-zzzzzzzz\n",
        "event: x\n",
        "data: ",
        "\n\n",
        "message",
    ],
};

thread_local! {
    static EAR: RefCell<Ear> = RefCell::new(Ear::new().unwrap());
}

fn run(input: &[u8]) {
    EAR.with_borrow_mut(|ear| {
        ear.push(input);
        as_payload(ear, input);
        published(ear, input);
    });
}

/// What a payload is taken for is what stands in it, in the order in which it stands there.
fn as_payload(ear: &mut Ear, payload: &[u8]) {
    let frame = match ear.announcement("fantail:{t}", payload) {
        Heard::Entry(topic, frame) => {
            assert_eq!(topic.as_str(), "t");
            frame
        }
        Heard::Unreadable => return,
        Heard::Nothing => panic!("what stands on the channel of a topic concerns it"),
    };
    let mut lines = payload.splitn(3, |byte| *byte == b'\n');
    let milliseconds = std::str::from_utf8(lines.next().unwrap()).unwrap();
    assert_eq!(milliseconds.parse(), Ok(frame.milliseconds));
    let id = std::str::from_utf8(lines.next().unwrap()).unwrap();
    assert_eq!(id, format!("id: {}", frame.position));
    let text = lines.next().unwrap();
    // A frame is the text with the id before the blank line.
    let (last, fields) = text.split_last().map_or((b'\n', text), |(last, fields)| (*last, fields));
    assert_eq!(&frame.fields()[..], fields);
    let block = [fields, id.as_bytes(), b"\n", &[last]].concat();
    assert_eq!(&frame.block()[..], block);
    let chunk = format!("{:X}\r\n", block.len());
    assert_eq!(&frame.chunk()[..], [chunk.as_bytes(), &block, b"\r\n"].concat());
    // The log, which has the text without the id, makes the same of it.
    let rest = Bytes::copy_from_slice(text);
    let Position { seq, epoch } = frame.position;
    let entry = Entry { position: Position { seq, epoch }, milliseconds: 0, json: false, rest };
    assert_eq!(sse::frame(&entry).chunk(), frame.chunk());
}

/// Whatever somebody publishes arrives, announced, as it was published.
fn published(ear: &mut Ear, input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (first, data) = text.split_once('\n').unwrap_or(("", &text));
    let event_type = EventType::new(first).ok();
    let event = Event { event_type: event_type.clone(), data: Data::Text(data.to_owned()) };
    let written = sse::event_text(&event);
    let payload = [b"1700000000000\nid: 42-k3f9\n", &written[..]].concat();
    let Heard::Entry(_, frame) = ear.announcement("fantail:{t}", &payload) else {
        panic!("an event that was published is no announcement");
    };
    let block = frame.block();
    let received = interpret(std::str::from_utf8(&block).unwrap());
    let expected = Received {
        event_type: event_type.map_or("message".to_owned(), |kind| kind.as_str().to_owned()),
        data: with_line_feeds(data),
        id: "42-k3f9".to_owned(),
    };
    assert_eq!(received, [expected]);
}
