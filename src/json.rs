//! JSON of our own types, and JSON text as publishers wrote it.

use serde::Serialize;

/// JSON of our own types.
pub(crate) fn to_text(value: &impl Serialize) -> String {
    // Only maps with keys that are no strings and failing `Serialize` code can fail; ours are neither.
    serde_json::to_string(value).unwrap_or_default()
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
    minified
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
            prop_assert_eq!(&minified, &value.to_string());
            prop_assert!(!minified.contains(['\r', '\n']));
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "(?s).{0,20}|[\\\\\" \n]{0,8}".prop_map(Into::into),
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
