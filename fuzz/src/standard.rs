//! Event streams as the HTML Living Standard interprets them (section 9.2.6), written from it and
//! nothing else.

/// An event as a page gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// `message` if it had no type.
    pub event_type: String,
    /// Its data.
    pub data: String,
    /// The last event id as of this event.
    pub id: String,
}

/// What a page gets of this stream.
pub fn interpret(stream: &str) -> Vec<Received> {
    let (mut events, mut data, mut event_type) = (Vec::new(), String::new(), String::new());
    let (mut id, mut id_buffer) = (String::new(), String::new());
    let mut rest = stream;
    while let Some(end) = rest.find(['\r', '\n']) {
        let line = &rest[..end];
        rest = &rest[end + if rest[end..].starts_with("\r\n") { 2 } else { 1 }..];
        if line.is_empty() {
            id.clone_from(&id_buffer);
            let event_type = std::mem::take(&mut event_type);
            let mut data = std::mem::take(&mut data);
            if data.is_empty() {
                continue;
            }
            data.pop();
            let event_type = if event_type.is_empty() { "message".to_owned() } else { event_type };
            events.push(Received { event_type, data, id: id.clone() });
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            "event" => value.clone_into(&mut event_type),
            "id" if !value.contains('\0') => value.clone_into(&mut id_buffer),
            _ => {}
        }
    }
    events
}

/// The same text with the line ends that remain when it went through an event stream.
pub fn with_line_feeds(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}
