//! [`nearest`]: which known name was probably meant by one that is not known. Pure.
//!
//! For names that people write: [query parameters](crate::http) and the settings of the program.

/// The longest name that is compared, in bytes: comparing takes time for each byte of both.
pub const NAME_BYTES_MAX: usize = 40;

/// The known name that was probably meant: what is left of both without case and punctuation is
/// the same, begins with the other, or differs in a third of its letters at most.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let meant = letters(name);
    let candidates = known.into_iter().filter_map(|known| {
        let letters = letters(known);
        let edits = strsim::osa_distance(&meant, &letters);
        let is_start = meant.len() >= 3 && letters.starts_with(&meant)
            || letters.len() >= 3 && meant.starts_with(&letters);
        (is_start || edits <= (letters.chars().count() / 3).max(1)).then_some((edits, known))
    });
    candidates.min_by_key(|(edits, _)| *edits).map(|(_, known)| known)
}

fn letters(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_a_little_wrong_is_recognised_and_nothing_else() {
        let known = ["boards", "topics", "lastEventId", "from", "snapshot", "heartbeat"];
        for (name, meant) in [
            ("board", Some("boards")),
            ("Topics", Some("topics")),
            ("topic", Some("topics")),
            ("tpoics", Some("topics")),
            ("last-event-id", Some("lastEventId")),
            ("lasteventid", Some("lastEventId")),
            ("lastEvenId", Some("lastEventId")),
            ("form", Some("from")),
            ("snapshots", Some("snapshot")),
            ("heart", Some("heartbeat")),
            ("_", None),
            ("", None),
            ("utm_source", None),
            (&"topics".repeat(10_000), None),
        ] {
            assert_eq!(nearest(name, known), meant, "{name}");
        }
    }

    proptest! {
        #[test]
        fn one_that_is_misspelt_a_little_is_recognised(
            at in 0..11_usize, how in 0..3, letter in "[a-z]"
        ) {
            let known = ["lastEventId", "from", "snapshot"];
            let mut name = known[0].to_owned();
            match how {
                0 => drop(name.remove(at)),
                1 => name.insert_str(at, &letter),
                _ => name.replace_range(at..=at, &letter),
            }
            prop_assert_eq!(nearest(&name, known), Some(known[0]));
        }
    }
}
