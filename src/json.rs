//! JSON of our own types, and JSON text as publishers wrote it.

use serde::Serialize;

/// JSON of our own types, on one line for everybody who reads it.
pub(crate) fn to_text(value: &impl Serialize) -> String {
    // Only maps with keys that are no strings and failing `Serialize` code can fail; ours are neither.
    on_one_line(serde_json::to_string(value).unwrap_or_default())
}

/// Characters that end a line for some readers of event streams, though not for the standard, as
/// they are and as JSON strings can have them instead.
const LINE_ENDS: [(char, &str); 3] =
    [('\u{85}', "\\u0085"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")];

/// The same JSON without characters at which some readers would cut it. In JSON they can only stand
/// inside strings.
fn on_one_line(json: String) -> String {
    if !json.contains(LINE_ENDS.map(|(character, _)| character)) {
        return json;
    }
    LINE_ENDS.iter().fold(json, |json, (character, escaped)| json.replace(*character, escaped))
}

/// Removes the white space between the tokens of a valid JSON text, so that it takes one `data:`
/// line. Numbers, keys and their order stay as the publisher wrote them.
pub fn minify(json: &str) -> String {
    let mut minified = String::with_capacity(json.len());
    let mut in_string = false;
    let mut escaped = false;
    for c in json.chars() {
        if in_string {
            minified.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if !matches!(c, ' ' | '\t' | '\r' | '\n') {
            minified.push(c);
            in_string = c == '"';
        }
    }
    on_one_line(minified)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn minified_json_means_the_same_on_one_line(value in any_json(), pretty in any::<bool>()) {
            let text = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                format!(" \t\r\n{value}\n")
            };
            let minified = minify(&text);
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&minified).unwrap(), value);
            let line_ends = ['\r', '\n', '\u{85}', '\u{2028}', '\u{2029}'];
            prop_assert!(!minified.contains(line_ends));
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "(?s).{0,20}|[\\\\\" \n\u{85}\u{2028}\u{2029}]{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::hash_map("[a\\\\\" ]{0,4}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }
}
