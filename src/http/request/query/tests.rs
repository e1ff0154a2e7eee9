use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start {
    last_event_id: Option<String>,
    from: Option<From>,
    #[serde(default)]
    snapshot: bool,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum From {
    Earliest,
}

impl Query for Page {}
impl Query for Start {}

fn read<T: Query>(query: &str) -> Result<T, String> {
    let uri = Uri::builder().path_and_query(format!("/?{query}")).build().unwrap();
    let read = Parameters::read(&uri).map(|Parameters(read)| read);
    read.map_err(|problem| format!("{problem:?}"))
}

fn position(query: &str) -> Option<String> {
    read::<Start>(query).unwrap().last_event_id
}

#[test]
fn each_parameter_becomes_what_its_field_is() {
    let page = Page { after: Some("4 2%-ä".to_owned()), limit: Some(7) };
    assert_eq!(read("after=4+2%-%C3%a4&limit=7"), Ok(page));
    assert_eq!(read(""), Ok(Page { after: None, limit: None }));
    assert_eq!(read("&&limit=7&"), Ok(Page { after: None, limit: Some(7) }));
    let start = Start { last_event_id: None, from: Some(From::Earliest), snapshot: true };
    assert_eq!(read("snapshot=true&from=earliest"), Ok(start));
}

#[test]
fn two_structs_share_a_query() {
    let (page, start) = read::<(Page, Start)>("limit=7&snapshot=true&lastEventId=x").unwrap();
    assert_eq!(page.limit, Some(7));
    assert_eq!((start.snapshot, start.last_event_id), (true, Some("x".to_owned())));
    assert!(read::<(Page, Start)>("limt=7").unwrap_err().contains("did you mean limit?"));
}

#[test]
fn what_cannot_be_read_is_said_by_name() {
    for (query, said) in [
        ("limit=-1", "limit must be a whole number"),
        ("limit=", "limit must be a whole number"),
        ("after=%ff", "after is not UTF-8"),
        ("after=1&after=1", "after may be given once only"),
    ] {
        let told = read::<Page>(query).unwrap_err();
        assert!(told.contains(said), "{query}: {told}");
    }
    for (query, said) in [
        ("snapshot=yes", "snapshot must be true or false"),
        ("snapshot", "snapshot must be true or false"),
        ("from=latest", "from must be earliest"),
        ("from=earliest&from=earliest", "from may be given once only"),
    ] {
        let told = read::<Start>(query).unwrap_err();
        assert!(told.contains(said), "{query}: {told}");
    }
}

#[test]
fn an_unknown_parameter_is_told_with_the_nearest_one() {
    let advice = unknown("board", &["boards", "topics"]);
    assert_eq!(advice, "unknown query parameter \"board\": did you mean boards?");
    let nothing = unknown("x", &[]);
    assert_eq!(nothing, "unknown query parameter \"x\": this request takes none");
    let two = unknown(&"é".repeat(100), &["after", "limit"]);
    let told = format!(
        "unknown query parameter \"{}…\": this request takes after and limit",
        "é".repeat(40)
    );
    assert_eq!(two, told);
}

#[test]
fn a_position_has_three_spellings_and_one_value() {
    for name in POSITION_SPELLINGS {
        assert_eq!(position(&format!("{name}=42-k3f9")).as_deref(), Some("42-k3f9"));
    }
    assert_eq!(position("lastEventId="), None);
    assert_eq!(position("lastEventId=&last_event_id=7").as_deref(), Some("7"));
    assert_eq!(position("lastEventId=7&lastEventID=7").as_deref(), Some("7"));
    assert_eq!(position("lastEventId=7&lastEventId=8&lastEventId=7").as_deref(), Some("7, 8"));
    assert_eq!(position("lastEventId=caf%E9").as_deref(), Some("caf\u{fffd}"));
    assert!(read::<Page>("last_event_id=7").unwrap_err().contains("takes after and limit"));
}

proptest! {
    #[test]
    fn any_query_is_read_or_refused_without_a_panic(query in "[a-z&=%+0-9A-F_]{0,60}") {
        let _ = read::<(Page, Start)>(&query);
    }

    #[test]
    fn what_was_encoded_is_read_again(text in ".{0,40}") {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let page = read::<Page>(&format!("after={encoded}")).unwrap();
        prop_assert_eq!(page.after, Some(text));
    }
}
