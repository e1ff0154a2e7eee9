//! [`Names`]: which topics, or boards, a grant is about.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::topic::Topic;

/// The mark that stands for whatever follows; it has to be the last of a name.
const ANY: char = '*';

/// Exact names, and beginnings of names that end in `*`; `*` alone is every name. Empty: none.
///
/// Both lists are sorted and have nothing twice, and no beginning begins with another one. So one
/// comparison in each finds out whether a name is meant, however many there are.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Names {
    exact: Vec<Topic>,
    beginnings: Vec<Box<str>>,
}

/// A text that names no topics: it has a `*` that is not its last character, or can be no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameError;

impl Names {
    /// Every name.
    pub fn all() -> Names {
        Names { exact: Vec::new(), beginnings: vec!["".into()] }
    }

    /// Takes texts such as `board-1`, `board-*` and `*`.
    ///
    /// # Errors
    /// When one of them names nothing that can be.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Names, NameError> {
        let mut exact = Vec::new();
        let mut beginnings: Vec<Box<str>> = Vec::new();
        for text in texts {
            match text.strip_suffix(ANY) {
                Some(beginning) => {
                    // Whatever can follow it makes it a name: `.` is one only with more behind it.
                    let is_beginning = Topic::new(&format!("{beginning}x")).is_ok();
                    if beginning.contains(ANY) || !is_beginning {
                        return Err(NameError);
                    }
                    beginnings.push(beginning.into());
                }
                None if text.contains(ANY) => return Err(NameError),
                None => exact.push(Topic::new(text).map_err(|_| NameError)?),
            }
        }
        exact.sort_unstable();
        exact.dedup();
        beginnings.sort_unstable();
        // What is sorted has those that begin with another right behind it.
        beginnings.dedup_by(|later, kept| later.starts_with(&**kept));
        Ok(Names { exact, beginnings })
    }

    /// Whether this topic is meant.
    pub fn contain(&self, topic: &Topic) -> bool {
        self.exact.binary_search(topic).is_ok() || self.contain_all_of(topic.as_str())
    }

    /// Whether every name is meant that begins so.
    pub fn contain_all_of(&self, beginning: &str) -> bool {
        // If one of ours begins it, so does every one of ours between the two; there are none.
        let after = self.beginnings.partition_point(|ours| **ours <= *beginning);
        after.checked_sub(1).is_some_and(|at| beginning.starts_with(&*self.beginnings[at]))
    }

    /// Whether no name is meant.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.beginnings.is_empty()
    }

    /// All that either of them means.
    pub fn and(&self, others: &Names) -> Names {
        let texts: Vec<String> = self.texts().chain(others.texts()).collect();
        // Both were made of such texts before.
        Names::new(texts.iter().map(String::as_str)).unwrap_or_default()
    }

    fn texts(&self) -> impl Iterator<Item = String> {
        let exact = self.exact.iter().map(Topic::to_string);
        exact.chain(self.beginnings.iter().map(|beginning| format!("{beginning}{ANY}")))
    }
}

/// Says how many, not which: what a token names is nobody's business but its holder's.
impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Names({} exact, {} beginnings)", self.exact.len(), self.beginnings.len())
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.texts())
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Names, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        Names::new(texts.iter().map(String::as_str))
            .map_err(|NameError| D::Error::custom("a list has something that names no topics"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(texts: &[&str]) -> Names {
        Names::new(texts.iter().copied()).unwrap()
    }

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    #[test]
    fn a_star_at_the_end_stands_for_whatever_follows_and_nothing_else_does() {
        let some = names(&["news", "board-*"]);
        for (name, meant) in [
            ("news", true),
            ("board-", true),
            ("board-7", true),
            ("board-*", true),
            ("board", false),
            ("Board-7", false),
            ("news-2", false),
            ("new", false),
        ] {
            assert_eq!(some.contain(&topic(name)), meant, "{name}");
        }
        assert!(Names::all().contain(&topic("…")));
        assert!(Names::all().contain_all_of(""));
        assert!(!some.contain_all_of("") && some.contain_all_of("board-x"));
        assert!(names(&[]).is_empty() && !names(&[]).contain(&topic("news")));
    }

    #[test]
    fn what_can_name_nothing_is_refused() {
        for text in ["", "a*b", "**", "*a", "a**", "a b", "a,b*", "{x}", "..", "a\n", "x{id}*"] {
            assert_eq!(Names::new([text]), Err(NameError), "{text:?}");
        }
        assert_eq!(Names::new(["ok", "*no"]), Err(NameError), "one is enough");
        assert_eq!(Names::new([&*"x".repeat(201)]), Err(NameError));
        // Short enough to begin a name.
        assert!(Names::new([&*format!("{}*", "x".repeat(199))]).is_ok());
        assert_eq!(Names::new([&*format!("{}*", "x".repeat(200))]), Err(NameError));
        assert!(names(&["..*"]).contain(&topic("...")));
    }

    #[test]
    fn they_do_not_say_which_they_are() {
        let shown = format!("{:?}", names(&["secret-plan", "secret-*"]));
        assert!(!shown.contains("plan"), "{shown}");
    }

    fn text() -> impl Strategy<Value = String> {
        "[ab]{1,4}\\*?|\\*"
    }

    proptest! {
        /// The obvious model: look at one after the other.
        #[test]
        fn a_name_is_meant_if_one_of_the_texts_means_it(
            texts in proptest::collection::vec(text(), 0..8),
            others in proptest::collection::vec(text(), 0..4),
            name in "[ab]{1,6}",
        ) {
            let read = |texts: &[String]| Names::new(texts.iter().map(String::as_str)).unwrap();
            let means = |texts: &[String], name: &str| texts.iter().any(|text| {
                text.strip_suffix('*').map_or(text == name, |start| name.starts_with(start))
            });
            let covers = |texts: &[String], start: &str| texts.iter().any(|text| {
                text.strip_suffix('*').is_some_and(|ours| start.starts_with(ours))
            });
            let some = read(&texts);
            prop_assert_eq!(some.contain(&topic(&name)), means(&texts, &name));
            prop_assert_eq!(some.contain_all_of(&name), covers(&texts, &name));
            prop_assert_eq!(some.is_empty(), texts.is_empty());
            let both = some.and(&read(&others));
            prop_assert_eq!(both.contain(&topic(&name)), means(&texts, &name) || means(&others, &name));
            // A ticket carries them.
            let json = serde_json::to_string(&some).unwrap();
            prop_assert_eq!(serde_json::from_str::<Names>(&json).unwrap(), some);
        }
    }
}
