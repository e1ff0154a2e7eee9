//! What tokens of Mercure hubs grant, where that is asked for (`FANTAIL_MERCURE_TOKENS`). Pure.
//!
//! Of version 1.0, `authorization_details` (RFC 9396) whose type is [`DETAIL`]; of the versions
//! before, the claim `mercure`. Both name topics exactly, all of them by `*`, or by a pattern (a URL
//! pattern, a URI template). Patterns would mean other topics here than they do there, so they grant
//! nothing. Neither does whatever else is in such a token: what is not understood may be a condition,
//! or a restriction.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::names::Names;

/// The type of those details that are about topics of a hub.
const DETAIL: &str = "https://mercure.rocks/authorization-detail";

/// What such a detail may have. The last is about whoever follows, and shown to others there.
const DETAIL_MEMBERS: [&str; 4] = ["type", "actions", "topics", "payload"];

/// What each of its topics may have.
const TOPIC_MEMBERS: [&str; 2] = ["match", "match_type"];

/// The kind of match that names one topic, or every one; it is meant where none is named.
const EXACT: &str = "exact";

/// The name that means every topic.
const EVERY: &str = "*";

/// What such a token grants.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) subscribe: Names,
    pub(super) publish: Names,
}

/// Reads both claims, those that there are.
pub(super) fn granted(details: Option<&RawValue>, claim: Option<&RawValue>) -> Granted {
    let read = |claim: Option<&RawValue>| {
        let read: Option<Value> = claim.and_then(|claim| serde_json::from_str(claim.get()).ok());
        read.unwrap_or_default()
    };
    let (details, claim) = (read(details), read(claim));
    let details: Vec<(&[Value], Vec<&str>)> = list(&details).iter().filter_map(of_detail).collect();
    let names = |action: &str| {
        let of_details = details
            .iter()
            .filter(|(actions, _)| actions.iter().any(|other| other == action))
            .flat_map(|(_, topics)| topics.iter().copied());
        let of_claim = list(&claim[action]).iter().filter_map(Value::as_str);
        names(of_details.chain(of_claim))
    };
    Granted { subscribe: names("subscribe"), publish: names("publish") }
}

/// The actions of a detail, and the topics that it names.
fn of_detail(detail: &Value) -> Option<(&[Value], Vec<&str>)> {
    let detail = with_members(detail, &DETAIL_MEMBERS)?;
    if detail.get("type")? != DETAIL {
        return None;
    }
    let topic = |topic| {
        let topic = with_members(topic, &TOPIC_MEMBERS)?;
        let is_exact = topic.get("match_type").is_none_or(|kind| kind == EXACT);
        topic.get("match")?.as_str().filter(|_| is_exact)
    };
    let topics = list(detail.get("topics")?).iter().filter_map(topic).collect();
    Some((list(detail.get("actions")?), topics))
}

/// An object that has none but these members.
fn with_members<'a>(value: &'a Value, members: &[&str]) -> Option<&'a Map<String, Value>> {
    value.as_object().filter(|object| object.keys().all(|key| members.contains(&key.as_str())))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Those that name one topic that there can be, or every one.
fn names<'a>(texts: impl Iterator<Item = &'a str>) -> Names {
    let mut exact = Vec::new();
    for text in texts {
        if text == EVERY {
            return Names::all();
        }
        // With a `*` in it a name is exact there, and cannot be said here.
        if !text.contains(EVERY) && Names::new([text]).is_ok() {
            exact.push(text);
        }
    }
    Names::new(exact).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::topic::Topic;

    fn of(details: &Value, claim: &Value) -> Granted {
        let raw = |value: &Value| {
            (!value.is_null()).then(|| RawValue::from_string(value.to_string()).unwrap())
        };
        granted(raw(details).as_deref(), raw(claim).as_deref())
    }

    fn exactly(subscribe: &[&str], publish: &[&str]) -> Granted {
        let names = |texts: &[&str]| Names::new(texts.iter().copied()).unwrap();
        Granted { subscribe: names(subscribe), publish: names(publish) }
    }

    fn detail(actions: Value, topics: Value) -> Value {
        json!({ "type": DETAIL, "actions": actions, "topics": topics })
    }

    #[test]
    fn details_of_the_type_grant_exact_topics_and_all() {
        let book = "https://example.com/books/1";
        let subscribe = json!(["subscribe"]);
        let with_payload = json!({
            "type": DETAIL, "actions": ["subscribe"], "topics": [{ "match": "a" }],
            "payload": { "user": 1 },
        });
        for (details, granted) in [
            (json!([detail(subscribe.clone(), json!([{ "match": book }]))]), exactly(&[book], &[])),
            (json!([with_payload]), exactly(&["a"], &[])),
            (
                json!([detail(
                    json!(["publish", "subscribe"]),
                    json!([{ "match": "a" }, { "match": "b", "match_type": "exact" }])
                )]),
                exactly(&["a", "b"], &["a", "b"]),
            ),
            (
                json!([
                    detail(json!(["publish"]), json!([{ "match": "*" }])),
                    detail(subscribe, json!([{ "match": "a" }])),
                ]),
                exactly(&["a"], &["*"]),
            ),
        ] {
            assert_eq!(of(&details, &Value::Null), granted, "{details}");
        }
    }

    #[test]
    fn whatever_else_is_in_a_detail_grants_nothing() {
        let all = json!([{ "match": "*" }]);
        let both = json!(["subscribe", "publish"]);
        let with = |member: &str, value: Value| {
            let mut detail = detail(both.clone(), all.clone());
            detail[member] = value;
            detail
        };
        for detail in [
            with("type", json!("https://mercure.rocks/")),
            with("type", json!([DETAIL])),
            // Somewhere else, perhaps, or only if.
            with("locations", json!(["https://other.example"])),
            with("privileges", json!(["admin"])),
            with("topics", json!("*")),
            with("topics", json!(["*"])),
            with("topics", json!({ "match": "*" })),
            with("topics", json!([{ "match": "*", "match_type": "urlpattern" }])),
            with("topics", json!([{ "match": "*", "match_type": "Exact" }])),
            with("topics", json!([{ "match": "*", "match_type": null }])),
            with("topics", json!([{ "match": "*", "unless": "a" }])),
            with("topics", json!([{ "match": ["*"] }])),
            with("topics", json!([{ "match": "a*" }, { "match": "**" }, { "match": "a b" }])),
            with("topics", json!([{ "match": "" }, { "match": "/books/{id}" }])),
            with("actions", json!("subscribe")),
            with("actions", json!(["*", "admin", "Subscribe"])),
            with("actions", json!({ "subscribe": true })),
            json!({ "type": DETAIL }),
            json!("*"),
        ] {
            assert_eq!(of(&json!([detail]), &Value::Null), Granted::default(), "{detail}");
        }
        let alone = detail(both.clone(), all.clone());
        assert_eq!(of(&alone, &Value::Null), Granted::default(), "it is no list");
        // One that is not understood takes nothing from the others.
        let beside = json!([with("locations", json!([])), detail(both, json!([{ "match": "a" }]))]);
        assert_eq!(of(&beside, &Value::Null), exactly(&["a"], &["a"]));
    }

    #[test]
    fn the_older_claim_grants_exact_topics_and_all() {
        for (claim, granted) in [
            (json!({ "subscribe": ["a"], "publish": ["*"] }), exactly(&["a"], &["*"])),
            (json!({ "subscribe": ["https://example.com/books/{id}", "b"] }), exactly(&["b"], &[])),
            (json!({ "publish": ["a*", "https://example.com/*"] }), exactly(&[], &[])),
            (json!({ "publish": null, "payload": {} }), exactly(&[], &[])),
            (json!({ "publish": [] }), exactly(&[], &[])),
            (json!({ "subscribe": [{ "match": "*" }, 1, null, "a"] }), exactly(&["a"], &[])),
            (json!({ "publish": "*" }), exactly(&[], &[])),
            (json!(["*"]), exactly(&[], &[])),
            (json!("*"), exactly(&[], &[])),
        ] {
            assert_eq!(of(&Value::Null, &claim), granted, "{claim}");
        }
    }

    #[test]
    fn both_together_grant_what_each_grants() {
        let details = json!([detail(json!(["subscribe"]), json!([{ "match": "a" }]))]);
        let claim = json!({ "subscribe": ["b"], "publish": ["c"] });
        assert_eq!(of(&details, &claim), exactly(&["a", "b"], &["c"]));
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![Just("*".to_owned()), "[ab*{/:]{0,4}", "[ab]{1,2}"]
    }

    proptest! {
        /// The simplest model there is: a text means itself, and `*` alone everything.
        #[test]
        fn a_topic_is_granted_only_by_its_own_name_or_by_all(
            texts in prop::collection::vec((text(), any::<bool>(), any::<bool>()), 0..5),
            asked in "[ab*{/:]{1,3}",
        ) {
            let topics: Vec<Value> = texts.iter().map(|(text, is_exact, is_told)| {
                match (is_exact, is_told) {
                    (true, false) => json!({ "match": text }),
                    (true, true) => json!({ "match": text, "match_type": "exact" }),
                    (false, _) => json!({ "match": text, "match_type": "urlpattern" }),
                }
            }).collect();
            let details = json!([detail(json!(["subscribe"]), json!(topics))]);
            let strings: Vec<&String> =
                texts.iter().filter(|(_, is_exact, _)| *is_exact).map(|(text, ..)| text).collect();
            let claim = json!({ "subscribe": strings });
            for granted in [of(&details, &Value::Null), of(&Value::Null, &claim)] {
                prop_assert!(granted.publish.is_empty());
                let Ok(topic) = Topic::new(&asked) else { continue };
                let means = |text: &&String| **text == "*" || **text == asked && !text.contains('*');
                prop_assert_eq!(granted.subscribe.contain(&topic), strings.iter().any(means));
            }
        }
    }
}
