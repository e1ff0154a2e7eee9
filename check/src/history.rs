//! Asks `GET /topics/{topic}/history` what the log still has: the evidence about resets and about
//! events that were not delivered.

use std::collections::HashSet;
use std::time::Duration;

use hyper::Method;
use serde::Deserialize;

use super::Scene;
use super::judge::{Doubt, Fate, Finding, Missing, Question};
use super::plan::GatewayUrl;
use crate::position::Position;

/// Entries that one question asks for; the API gives no more.
const PAGE_ENTRIES: usize = 256;

/// How many pages are read for one question at most: 256 × 256 entries. What lies beyond is taken
/// to be as contiguous as the entries before it.
const PAGES_MAX: usize = 256;

/// After this time every gateway is asked again before somebody is accused. In the middle of a
/// failover they may disagree for a moment about which server has the log: what one of them still
/// reads from the deposed one proves nothing.
const CONFIRM_AFTER: Duration = Duration::from_secs(3);

/// Between two attempts to ask.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What the log has from some number on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Retained {
    /// Its entries in order, from the asked number on or from the oldest.
    pub(super) entries: Vec<Position>,
    /// The oldest entry that can be read, in the current epoch; `None` if there is none.
    pub(super) oldest: Option<Position>,
    /// The head; `None` if there is no such log.
    pub(super) head: Option<Position>,
}

#[derive(Deserialize)]
struct Page {
    entries: Vec<PageEntry>,
    more: bool,
    oldest: Option<String>,
    head: Option<String>,
}

#[derive(Deserialize)]
struct PageEntry {
    id: String,
}

/// Reads what `topic` has after `seq`; asks one gateway after the other until `patience` is over.
pub(super) async fn retained(
    scene: &Scene,
    topic: usize,
    after: u64,
    patience: Duration,
) -> Option<Retained> {
    let read = async {
        loop {
            if let Some(retained) = read(scene, None, topic, after).await {
                return retained;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    };
    tokio::time::timeout(patience, read).await.ok()
}

/// Reads it from `gateway`, or from any.
async fn read(
    scene: &Scene,
    gateway: Option<&GatewayUrl>,
    topic: usize,
    mut after: u64,
) -> Option<Retained> {
    let mut entries: Vec<Position> = Vec::new();
    for _ in 0..PAGES_MAX {
        // One gateway may be the one that is down.
        let url = gateway.unwrap_or_else(|| scene.any_url());
        let topic = &scene.topics[topic];
        // A bare number: what the log has there is asked, not what it says of a position.
        let url = format!("{url}/topics/{topic}/history?after={after}&limit={PAGE_ENTRIES}");
        let answer = scene.client.ask(Method::GET, &url, &[], String::new()).await.ok()?;
        if answer.status != 200 {
            return None;
        }
        let page: Page = serde_json::from_slice(&answer.body).ok()?;
        let place = |text: Option<String>| text.and_then(|text| text.parse::<Position>().ok());
        let (oldest, head) = (place(page.oldest), place(page.head));
        for entry in page.entries {
            entries.push(entry.id.parse().ok()?);
        }
        match entries.last() {
            Some(last) if page.more && last.seq > after => after = last.seq,
            _ => return Some(Retained { entries, oldest, head }),
        }
    }
    None
}

/// Whether a reset was in vain that told a client at `from` that it could not go on, when the log's
/// head was at `told_head`.
///
/// It was if the client's place is in the past of the log as it is now, and everything after it
/// can be read without a hole. The place `s` of epoch `e` is in the log's past exactly if `e`
/// reached `s` in it, and that shows in the log itself: an entry of `e` at `s` or later, or `e` as
/// the current epoch with a head at `s` or later. What can still be read now could be read then.
/// This holds for place 0 of an epoch too: if nothing of `e` is there any more, then nothing proves
/// that the log is still the same one, and the reset is taken as justified.
///
/// A log can become another one and return (a deposed master that comes back). So nothing is held
/// against a reset that was told by a log whose epoch, that of `told_head`, is not in this one.
pub(super) fn in_vain(from: Position, told_head: Option<Position>, now: &Retained) -> bool {
    let Some(head) = now.head else { return false };
    let mut entries = now.entries.iter().filter(|entry| entry.seq >= from.seq);
    let reaches =
        now.entries.iter().any(|entry| entry.epoch == from.epoch && entry.seq >= from.seq)
            || (head.epoch == from.epoch && head.seq >= from.seq);
    let after: Vec<u64> =
        entries.by_ref().map(|entry| entry.seq).filter(|&s| s > from.seq).collect();
    let contiguous = after.iter().zip(from.seq + 1..).all(|(&seq, expected)| seq == expected)
        && after.last().map_or(from.seq, |&last| last) >= head.seq;
    let same_log = told_head.is_none_or(|told| {
        told.epoch == head.epoch || now.entries.iter().any(|entry| entry.epoch == told.epoch)
    });
    reaches && contiguous && same_log
}

/// Asks the log what the judge wants to know, and says what that was.
pub(super) async fn decide(scene: &Scene, question: &Question) -> (Finding, String) {
    let after = match question.doubt {
        Doubt::Reset { from, .. } => from.seq.saturating_sub(1),
        Doubt::Earliest { .. } => 0,
    };
    let topic = question.topic;
    let Some(now) = retained(scene, topic, after, scene.plan.settle).await else {
        return (Finding::Unknown, String::new());
    };
    let accuses = |now: &Retained| match question.doubt {
        Doubt::Reset { from, head } => in_vain(from, head, now),
        // What is the oldest now was there before. That it had been acknowledged when the stream
        // was asked for says that it was in this log, and not in one that was made anew since.
        Doubt::Earliest { place, asked_at } => now.entries.first().is_some_and(|oldest| {
            oldest.seq <= place.seq
                && scene.judge().was_acknowledged_before(topic, *oldest, asked_at)
        }),
    };
    if !accuses(&now) {
        return (Finding::Excuses, String::new());
    }
    tokio::time::sleep(CONFIRM_AFTER).await;
    for gateway in &scene.plan.urls {
        // One that does not answer has nothing to say for or against.
        let again = read(scene, Some(gateway), topic, after).await;
        if again.is_some_and(|again| !accuses(&again)) {
            return (Finding::Excuses, String::new());
        }
    }
    let first = now.entries.first().map_or_else(String::new, Position::to_string);
    let head = now.head.map_or_else(String::new, |head| head.to_string());
    (Finding::Accuses, format!("the log's history goes from {first} to {head}"))
}

/// Looks in the log for what was not delivered, and corrects what was concluded from streams alone.
pub(super) async fn audit(scene: &Scene, missing: &mut [Missing]) {
    let mut topics: Vec<usize> = missing.iter().map(|missing| missing.topic).collect();
    topics.sort_unstable();
    topics.dedup();
    for topic in topics {
        let of_topic = || missing.iter().filter(|missing| missing.topic == topic);
        let seqs = of_topic().flat_map(|missing| &missing.events).map(|(place, ..)| place.seq);
        let Some(first) = seqs.min() else { continue };
        let patience = Duration::from_secs(5);
        let Some(now) = retained(scene, topic, first.saturating_sub(1), patience).await else {
            continue;
        };
        let has: HashSet<Position> = now.entries.iter().copied().collect();
        for missing in missing.iter_mut().filter(|missing| missing.topic == topic) {
            for (place, _, fate) in &mut missing.events {
                *fate = fate_of(*place, *fate, has.contains(place), &now);
            }
        }
    }
}

/// What became of an event that was not delivered, given what the log has now. One that is still
/// there was withheld, whatever a reset said. One that is gone although its epoch goes on was
/// acknowledged without being written; only a new epoch explains that a log lost something.
pub(super) fn fate_of(place: Position, concluded: Fate, is_there: bool, now: &Retained) -> Fate {
    if is_there {
        return Fate::Silence;
    }
    let covers = now.oldest.is_none_or(|oldest| oldest.seq <= place.seq);
    let epoch_ended = now.head.is_none_or(|head| head.epoch != place.epoch)
        && !now.entries.iter().any(|entry| entry.epoch == place.epoch && entry.seq > place.seq);
    match concluded {
        Fate::Silence if covers && epoch_ended => Fate::LostByLog,
        concluded => concluded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<Position> {
        text.split_whitespace().map(|text| text.parse().unwrap()).collect()
    }

    fn log(entries: &str, head: &str) -> Retained {
        let entries = places(entries);
        Retained { oldest: entries.first().copied(), entries, head: head.parse().ok() }
    }

    fn vain(from: &str, told_head: &str, now: &Retained) -> bool {
        in_vain(from.parse().unwrap(), told_head.parse().ok(), now)
    }

    #[test]
    fn a_reset_is_in_vain_if_the_place_and_all_after_it_are_there() {
        let now = log("4-aaaa 5-aaaa 6-bbbb 7-bbbb", "7-bbbb");
        assert!(vain("4-aaaa", "7-bbbb", &now));
        assert!(vain("5-aaaa", "5-aaaa", &now));
        assert!(vain("7-bbbb", "7-bbbb", &now), "nothing after it, and the epoch goes on");
        assert!(vain("3-aaaa", "7-bbbb", &now), "all after it is there, and the epoch reached it");
        // A place that an opening event told in the epoch that came next.
        assert!(vain("5-bbbb", "7-bbbb", &now));
    }

    #[test]
    fn a_reset_is_justified_if_something_is_gone_or_the_place_is_of_another_log() {
        let now = log("4-aaaa 5-aaaa 6-bbbb 7-bbbb", "7-bbbb");
        assert!(!vain("2-aaaa", "7-bbbb", &now), "3 is gone");
        assert!(!vain("6-aaaa", "7-bbbb", &now), "the log's 6 is another");
        assert!(!vain("5-cccc", "7-bbbb", &now), "an epoch that left nothing");
        assert!(!vain("8-bbbb", "7-bbbb", &now), "beyond the head");
        assert!(
            !vain("4-aaaa", "9-dddd", &now),
            "told by another log than the one that is there now"
        );
        assert!(!vain("4-aaaa", "7-bbbb", &log("4-aaaa 6-aaaa", "6-aaaa")), "a hole");
        assert!(!vain("4-aaaa", "7-bbbb", &log("4-aaaa 5-aaaa", "6-aaaa")), "the head is missing");
        assert!(!vain("4-aaaa", "7-bbbb", &Retained { entries: vec![], oldest: None, head: None }));
    }

    #[test]
    fn place_0_is_of_this_log_only_if_its_epoch_left_something() {
        assert!(vain("0-aaaa", "0-aaaa", &log("", "0-aaaa")));
        assert!(vain("0-aaaa", "2-aaaa", &log("1-aaaa 2-aaaa", "2-aaaa")));
        assert!(!vain("0-zzzz", "2-aaaa", &log("1-aaaa 2-aaaa", "2-aaaa")));
        assert!(!vain("0-zzzz", "0-aaaa", &log("", "0-aaaa")));
    }

    #[test]
    fn what_the_log_still_has_was_withheld_and_only_a_new_epoch_explains_a_loss() {
        let now = log("4-aaaa 5-aaaa 6-bbbb", "6-bbbb");
        let fate =
            |place: &str, concluded, there| fate_of(place.parse().unwrap(), concluded, there, &now);
        assert_eq!(fate("5-aaaa", Fate::Told, true), Fate::Silence);
        assert_eq!(fate("6-aaaa", Fate::Silence, false), Fate::LostByLog);
        assert_eq!(fate("9-aaaa", Fate::Silence, false), Fate::LostByLog);
        assert_eq!(fate("7-bbbb", Fate::Silence, false), Fate::Silence, "its epoch goes on");
        assert_eq!(fate("2-aaaa", Fate::Silence, false), Fate::Silence, "nobody can tell");
        assert_eq!(fate("2-aaaa", Fate::Told, false), Fate::Told);
    }
}
