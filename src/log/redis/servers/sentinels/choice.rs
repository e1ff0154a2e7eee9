//! [`choose`]: which master the sentinels mean, by what each of them says.
//!
//! Each failover has a number, the master's configuration epoch, and sentinels hear of it one after
//! the other: one that says a lower number has not heard of the last failover. So the highest number
//! is right, and a lower one than was heard before is an old story, unless most of the sentinels tell
//! it for long: then they were made anew, and count from the beginning.

use std::time::Duration;

use tokio::time::Instant;

use crate::log::redis::address::Place;

/// For how long most of the sentinels must tell an old story until it is believed. Those who have
/// missed something hear of it within two seconds, and a master that was deposed is told so within
/// ten.
const OLD_STORY_BELIEVED_AFTER: Duration = Duration::from_secs(15);

/// What one sentinel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has not been asked for long enough to have answered.
    NotYet,
    /// It cannot be asked, or knows no such master, for this reason.
    Nothing(String),
    /// This is the master.
    Master {
        /// Where it is.
        place: Place,
        /// How many failovers led to it, as the sentinels count.
        epoch: u64,
    },
}

/// A sentinel, and what it says.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) sentinel: Place,
    pub(super) answer: Answer,
}

/// A master that a sentinel names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::log::redis) struct Choice {
    pub(in crate::log::redis) place: Place,
    pub(super) epoch: u64,
    /// Who names it; one of them.
    pub(in crate::log::redis) by: Place,
}

impl Choice {
    /// Whether both mean the same reign of the same master.
    pub(super) fn is_same(&self, other: &Choice) -> bool {
        self.place == other.place && self.epoch == other.epoch
    }
}

/// What was chosen before, and how long it has been contradicted.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub(super) now: Option<Choice>,
    /// Since when most of the sentinels tell an old story.
    contradicted_since: Option<Instant>,
}

impl Chosen {
    /// Chooses by what is said now. Where nobody says anything, what was chosen before holds; where
    /// nothing was, it is not chosen before all have answered, or `may_not_wait` says that they had
    /// their time.
    pub(super) fn choose(&mut self, asked: &[Asked], may_not_wait: bool, now: Instant) {
        let best = best(asked, self.now.as_ref());
        let is_old_story = match (&best, &self.now) {
            (Some(best), Some(before)) => best.epoch < before.epoch,
            _ => false,
        };
        if !is_old_story {
            self.contradicted_since = None;
            let all_answered = asked.iter().all(|asked| asked.answer != Answer::NotYet);
            if best.is_some() && (self.now.is_some() || all_answered || may_not_wait) {
                self.now = best;
            }
            return;
        }
        let tellers = asked.iter().filter(|asked| matches!(asked.answer, Answer::Master { .. }));
        if tellers.count() * 2 <= asked.len() {
            self.contradicted_since = None;
        } else if now - *self.contradicted_since.get_or_insert(now) >= OLD_STORY_BELIEVED_AFTER {
            self.contradicted_since = None;
            self.now = best;
        }
    }
}

/// Of the masters with the highest epoch the one from before, else the one that most name, else the
/// one that is named first.
fn best(asked: &[Asked], before: Option<&Choice>) -> Option<Choice> {
    let named = || {
        asked.iter().filter_map(|Asked { sentinel, answer }| match answer {
            Answer::Master { place, epoch } => {
                Some(Choice { place: place.clone(), epoch: *epoch, by: sentinel.clone() })
            }
            _ => None,
        })
    };
    let epoch = named().map(|choice| choice.epoch).max()?;
    let newest: Vec<Choice> = named().filter(|choice| choice.epoch == epoch).collect();
    let weight = |choice: &Choice| {
        let votes = newest.iter().filter(|other| other.place == choice.place).count();
        (before.is_some_and(|before| before.place == choice.place), votes)
    };
    let heaviest = newest.iter().map(weight).max()?;
    newest.iter().find(|choice| weight(choice) == heaviest).cloned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(port: u16) -> Place {
        Place { host: "h".to_owned(), port }
    }

    fn asked(answers: &[Option<(u16, u64)>]) -> Vec<Asked> {
        let asked = answers.iter().zip(1..).map(|(answer, n)| Asked {
            sentinel: place(n),
            answer: match answer {
                Some((port, epoch)) => Answer::Master { place: place(*port), epoch: *epoch },
                None => Answer::Nothing("away".to_owned()),
            },
        });
        asked.collect()
    }

    fn chosen(chosen: &Chosen) -> Option<(u16, u64)> {
        chosen.now.as_ref().map(|choice| (choice.place.port, choice.epoch))
    }

    #[test]
    fn one_that_has_not_heard_of_a_failover_is_not_believed_wherever_it_stands() {
        for answers in [
            [Some((7, 0)), Some((8, 1)), Some((8, 1))],
            [Some((7, 0)), Some((7, 0)), Some((8, 1))],
            [Some((8, 1)), Some((7, 0)), None],
        ] {
            let mut choice = Chosen::default();
            choice.choose(&asked(&answers), false, Instant::now());
            assert_eq!(chosen(&choice), Some((8, 1)), "{answers:?}");
        }
    }

    #[test]
    fn whoever_was_followed_is_not_left_for_an_old_story_that_one_tells() {
        let mut choice = Chosen::default();
        let began_at = Instant::now();
        choice.choose(&asked(&[Some((8, 3)), Some((8, 3)), None]), false, began_at);
        for seconds in 1..100 {
            let now = began_at + Duration::from_secs(seconds);
            choice.choose(&asked(&[None, None, Some((7, 2))]), false, now);
            assert_eq!(chosen(&choice), Some((8, 3)));
        }
        // Nor for silence.
        choice.choose(&asked(&[None, None, None]), true, began_at);
        assert_eq!(chosen(&choice), Some((8, 3)));
    }

    #[test]
    fn sentinels_that_were_made_anew_are_believed_after_a_while() {
        let mut choice = Chosen::default();
        let began_at = Instant::now();
        choice.choose(&asked(&[Some((8, 3)), Some((8, 3)), Some((8, 3))]), false, began_at);
        let anew = asked(&[None, Some((9, 0)), Some((9, 0))]);
        choice.choose(&anew, false, began_at);
        choice.choose(&anew, false, began_at + OLD_STORY_BELIEVED_AFTER / 2);
        assert_eq!(chosen(&choice), Some((8, 3)));
        choice.choose(&anew, false, began_at + OLD_STORY_BELIEVED_AFTER);
        assert_eq!(chosen(&choice), Some((9, 0)));
    }

    #[test]
    fn at_the_beginning_all_are_waited_for_and_not_for_ever() {
        let mut answers = asked(&[Some((7, 0)), Some((8, 1))]);
        answers[1].answer = Answer::NotYet;
        let mut choice = Chosen::default();
        choice.choose(&answers, false, Instant::now());
        assert_eq!(chosen(&choice), None);
        choice.choose(&answers, true, Instant::now());
        assert_eq!(chosen(&choice), Some((7, 0)));
    }

    proptest! {
        #[test]
        fn what_is_chosen_is_said_by_somebody_and_no_one_says_anything_newer(
            answers in proptest::collection::vec(proptest::option::of((0..3_u16, 0..3_u64)), 0..6),
            before in proptest::option::of((0..3_u16, 0..3_u64)),
        ) {
            let now = Instant::now();
            let mut choice = Chosen::default();
            choice.choose(&asked(&[before]), true, now);
            choice.choose(&asked(&answers), true, now);
            let after = chosen(&choice);
            prop_assert!(after == before || answers.contains(&after));
            // Whatever is said, nothing is older than what was known.
            prop_assert!(before.map(|(_, epoch)| epoch) <= after.map(|(_, epoch)| epoch));
            let newest = answers.iter().flatten().map(|(_, epoch)| *epoch).max();
            prop_assert!(newest <= after.map(|(_, epoch)| epoch));
            // The same epoch leads elsewhere only if nobody names the one from before any more.
            let same_epoch = after.map(|(_, epoch)| epoch) == before.map(|(_, epoch)| epoch);
            if after != before && same_epoch {
                prop_assert!(!answers.contains(&before));
            }
        }
    }
}
