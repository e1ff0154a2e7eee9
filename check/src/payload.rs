//! What a check publishes: data that says which event it is.
//!
//! The data is made anew from the number in it when an event comes back, so that a single changed
//! byte is seen without keeping what was sent.

use super::publish_log::EventId;

/// The type of every event of a check.
pub(super) const EVENT_TYPE: &str = "check";

/// What all events of a run have in common.
#[derive(Debug, Clone)]
pub(super) struct Payload {
    start: String,
    bytes: usize,
}

/// What the data of an event turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recognised {
    /// An event of this check, as it was sent.
    Event(EventId),
    /// An event of this check whose data was changed.
    Altered(EventId),
    /// No event of this check.
    Unknown,
}

impl Payload {
    /// For the run of this name, with data of about this size.
    pub(super) fn new(run: &str, bytes: usize) -> Payload {
        Payload { start: format!(r#"{{"run":"{run}","publisher":"#), bytes }
    }

    /// The data of an event, as JSON on one line without white space.
    pub(super) fn data(&self, publisher: usize, event: EventId) -> String {
        let mut data = format!(r#"{}{publisher},"number":{}"#, self.start, event.0);
        let around = data.len() + r#","padding":""}"#.len();
        if around < self.bytes {
            data.push_str(r#","padding":""#);
            data.extend(std::iter::repeat_n('x', self.bytes - around));
            data.push('"');
        }
        data.push('}');
        data
    }

    /// Recognises what a stream delivered.
    pub(super) fn recognise(&self, kind: &str, data: &str) -> Recognised {
        let read = || {
            let rest = data.strip_prefix(&self.start)?;
            let (publisher, rest) = rest.split_once(',')?;
            let rest = rest.strip_prefix(r#""number":"#)?;
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            Some((publisher.parse().ok()?, EventId(rest[..digits].parse().ok()?)))
        };
        match read() {
            None => Recognised::Unknown,
            Some((publisher, event))
                if kind == EVENT_TYPE && data == self.data(publisher, event) =>
            {
                Recognised::Event(event)
            }
            Some((_, event)) => Recognised::Altered(event),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_recognised_and_a_changed_byte_is_seen() {
        for bytes in [0, 60, 100, 1000] {
            let payload = Payload::new("abcdef", bytes);
            let data = payload.data(3, EventId(17));
            assert!(serde_json::from_str::<serde_json::Value>(&data).is_ok(), "{data}");
            assert_eq!(data.len(), bytes.max(42), "{data}");
            assert_eq!(payload.recognise("check", &data), Recognised::Event(EventId(17)));
            assert_eq!(payload.recognise("message", &data), Recognised::Altered(EventId(17)));
            let longer = format!("{data}\n");
            assert_eq!(payload.recognise("check", &longer), Recognised::Altered(EventId(17)));
            let other = Payload::new("ghijkl", bytes);
            assert_eq!(other.recognise("check", &data), Recognised::Unknown);
        }
    }
}
