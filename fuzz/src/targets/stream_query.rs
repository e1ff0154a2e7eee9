//! The query of `GET /events`: lists of topics and where to start, beside the reading of the URL
//! Standard.

use std::collections::HashSet;

use fantail::http::fuzz::stream_query;
use fantail::topic::Topic;
use http::Uri;

use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "stream_query",
    run,
    words: &[
        "topics=",
        "boards=",
        "lastEventId=",
        "last_event_id=",
        "lastEventID=",
        "from=earliest",
        "snapshot=true",
        "snapshot=false",
        "connected=event",
        "heartbeat=event",
        "&",
        "=",
        ",",
        "%2C",
        "%20",
        "+",
        "%",
        "%zz",
        "%C3%B6",
        "%ff",
        "a,b,c,d,e,f,g,h",
        "42-k3f9",
    ],
};

const TOPICS_MAX: usize = 100;

fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Ok(uri) = format!("/events?{text}").parse::<Uri>() else { return };
    let Some(read) = stream_query(&uri) else { return };

    let query = uri.query().unwrap_or_default();
    let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let known = [
        "topics",
        "boards",
        "lastEventId",
        "lastEventID",
        "last_event_id",
        "from",
        "snapshot",
        "connected",
        "heartbeat",
    ];
    // A pair of nothing and nothing says nothing.
    for (name, value) in &pairs {
        assert!(known.contains(&&**name), "{name}={value} was taken");
    }
    let given = |wanted: &str| {
        let mut values = pairs.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value);
        let value = values.next();
        assert!(values.next().is_none(), "{wanted} was taken twice");
        value.cloned()
    };
    let mut expected: Vec<(Topic, bool)> = Vec::new();
    let mut seen = HashSet::new();
    for (list, is_board) in [(given("boards"), true), (given("topics"), false)] {
        for name in list.unwrap_or_default().split(',').filter(|name| !name.is_empty()) {
            if seen.insert(name.to_owned()) {
                expected.push((Topic::new(name).unwrap(), is_board));
            }
        }
    }
    assert_eq!(read.topics, expected);
    assert!((1..=TOPICS_MAX).contains(&read.topics.len()));
    assert_eq!(read.snapshot, given("snapshot").is_some_and(|text| text == "true"));

    // Several positions are one if they say the same, and otherwise none that could be read.
    let mut positions: Vec<&String> = pairs
        .iter()
        .filter(|(name, value)| {
            name.to_lowercase().replace('_', "") == "lasteventid" && !value.is_empty()
        })
        .map(|(_, value)| value)
        .collect();
    positions.dedup();
    match (&positions[..], read.last_event_id) {
        ([], said) => assert!(said.is_none_or(|said| said.is_empty())),
        ([one], Some(said)) => assert_eq!(**one, said),
        (several, Some(said)) => assert!(said.contains(", ") || several.contains(&&said), "{said}"),
        (several, None) => panic!("{several:?} were not read"),
    }
}
