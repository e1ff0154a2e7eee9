//! Asks `GET /topics/{topic}/history` what the log still has: the evidence about resets and about
//! events that were not delivered.

use std::collections::HashSet;
use std::time::Duration;

use hyper::Method;
use serde::Deserialize;

use super::CheckContext;
use super::checker::{Claim, Evidence, Missing, MissingCause, Question};
use super::plan::GatewayUrl;
use crate::position::Position;

/// Entries that one question asks for; the API gives no more.
const PAGE_ENTRIES: usize = 256;

/// How many pages are read for one question at most: 256 × 256 entries. What lies beyond is taken
/// to be as contiguous as the entries before it.
const PAGES_MAX: usize = 256;

/// After this time every gateway is asked again before a violation is reported. In the middle of a
/// failover they may disagree for a moment about which server has the log: what one of them still
/// reads from the deposed one proves nothing.
const CONFIRM_DELAY: Duration = Duration::from_secs(3);

/// Between two attempts to ask.
const RETRY_DELAY: Duration = Duration::from_millis(200);

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

/// Reads what `topic` has after `seq`; asks one gateway after the other until `timeout` is over.
pub(super) async fn retained(
    context: &CheckContext,
    topic: usize,
    after: u64,
    timeout: Duration,
) -> Option<Retained> {
    let read = async {
        loop {
            if let Some(retained) = read(context, None, topic, after).await {
                return retained;
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    };
    tokio::time::timeout(timeout, read).await.ok()
}

/// Reads it from `gateway`, or from any.
async fn read(
    context: &CheckContext,
    gateway: Option<&GatewayUrl>,
    topic: usize,
    mut after: u64,
) -> Option<Retained> {
    let mut entries: Vec<Position> = Vec::new();
    for _ in 0..PAGES_MAX {
        // One gateway may be the one that is down.
        let url = gateway.unwrap_or_else(|| context.any_url());
        let topic = &context.topics[topic];
        // A bare number: what the log has there is asked, not what it says of a position.
        let url = format!("{url}/topics/{topic}/history?after={after}&limit={PAGE_ENTRIES}");
        let answer = context.client.ask(Method::GET, &url, &[], String::new()).await.ok()?;
        if answer.status != 200 {
            return None;
        }
        let page: Page = serde_json::from_slice(&answer.body).ok()?;
        let position = |text: Option<String>| text.and_then(|text| text.parse::<Position>().ok());
        let (oldest, head) = (position(page.oldest), position(page.head));
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

/// Whether a reset was spurious that told a client at `from` that it could not go on, when the
/// log's head was at `told_head`.
///
/// It was if the client's position is in the past of the log as it is now, and everything after it
/// can be read without a gap. The position `s` of epoch `e` is in the log's past exactly if `e`
/// reached `s` in it, and that shows in the log itself: an entry of `e` at `s` or later, or `e` as
/// the current epoch with a head at `s` or later. What can still be read now could be read then.
/// This holds for position 0 of an epoch too: if nothing of `e` is there any more, then nothing
/// proves that the log is still the same one, and the reset is taken as justified.
///
/// A log can become another one and return (a deposed master that comes back). So nothing is held
/// against a reset that was told by a log whose epoch, that of `told_head`, is not in this one.
pub(super) fn is_spurious(from: Position, told_head: Option<Position>, now: &Retained) -> bool {
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

/// Asks the log what it has to say of a claim.
pub(super) async fn evidence_on(context: &CheckContext, question: &Question) -> Evidence {
    let after = match question.claim {
        Claim::Reset { from, .. } => from.seq.saturating_sub(1),
        Claim::Earliest { .. } => 0,
    };
    let topic = question.topic;
    let Some(now) = retained(context, topic, after, context.plan.settle).await else {
        return Evidence::Unknown;
    };
    let refutes = |now: &Retained| match question.claim {
        Claim::Reset { from, head } => is_spurious(from, head, now),
        // What is the oldest now was there before. That it had been acknowledged when the stream
        // was asked for says that it was in this log, and not in one that was made anew since.
        Claim::Earliest { position, requested_at } => now.entries.first().is_some_and(|oldest| {
            oldest.seq <= position.seq
                && context.checker().was_acknowledged_before(topic, *oldest, requested_at)
        }),
    };
    if !refutes(&now) {
        return Evidence::Supports;
    }
    tokio::time::sleep(CONFIRM_DELAY).await;
    for gateway in &context.plan.urls {
        // One that does not answer has nothing to say for or against.
        let again = read(context, Some(gateway), topic, after).await;
        if again.is_some_and(|again| !refutes(&again)) {
            return Evidence::Supports;
        }
    }
    let first = now.entries.first().map_or_else(String::new, Position::to_string);
    let head = now.head.map_or_else(String::new, |head| head.to_string());
    Evidence::Refutes(format!("the log's history goes from {first} to {head}"))
}

/// Looks in the log for what was not delivered, and corrects what was concluded from streams alone.
pub(super) async fn verify_missing(context: &CheckContext, missing: &mut [Missing]) {
    let mut topics: Vec<usize> = missing.iter().map(|missing| missing.topic).collect();
    topics.sort_unstable();
    topics.dedup();
    for topic in topics {
        let of_topic = || missing.iter().filter(|missing| missing.topic == topic);
        let seqs =
            of_topic().flat_map(|missing| &missing.events).map(|(position, ..)| position.seq);
        let Some(first) = seqs.min() else { continue };
        let timeout = Duration::from_secs(5);
        let Some(now) = retained(context, topic, first.saturating_sub(1), timeout).await else {
            continue;
        };
        let has: HashSet<Position> = now.entries.iter().copied().collect();
        for missing in missing.iter_mut().filter(|missing| missing.topic == topic) {
            for (position, _, cause) in &mut missing.events {
                *cause = cause_of(*position, *cause, has.contains(position), &now);
            }
        }
    }
}

/// Why an event was not delivered, given what the log has now. One that is still
/// there was withheld, whatever a reset said. One that is gone although its epoch goes on was
/// acknowledged without being written; only a new epoch explains that a log lost something.
pub(super) fn cause_of(
    position: Position,
    concluded: MissingCause,
    is_there: bool,
    now: &Retained,
) -> MissingCause {
    if is_there {
        return MissingCause::Unannounced;
    }
    let covers = now.oldest.is_none_or(|oldest| oldest.seq <= position.seq);
    let epoch_ended = now.head.is_none_or(|head| head.epoch != position.epoch)
        && !now
            .entries
            .iter()
            .any(|entry| entry.epoch == position.epoch && entry.seq > position.seq);
    match concluded {
        MissingCause::Unannounced if covers && epoch_ended => MissingCause::LostByLog,
        concluded => concluded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(text: &str) -> Vec<Position> {
        text.split_whitespace().map(|text| text.parse().unwrap()).collect()
    }

    fn log(entries: &str, head: &str) -> Retained {
        let entries = positions(entries);
        Retained { oldest: entries.first().copied(), entries, head: head.parse().ok() }
    }

    fn spurious(from: &str, told_head: &str, now: &Retained) -> bool {
        is_spurious(from.parse().unwrap(), told_head.parse().ok(), now)
    }

    #[test]
    fn a_reset_is_spurious_if_the_position_and_all_after_it_are_there() {
        let now = log("4-aaaa 5-aaaa 6-bbbb 7-bbbb", "7-bbbb");
        assert!(spurious("4-aaaa", "7-bbbb", &now));
        assert!(spurious("5-aaaa", "5-aaaa", &now));
        assert!(spurious("7-bbbb", "7-bbbb", &now), "nothing after it, and the epoch goes on");
        assert!(
            spurious("3-aaaa", "7-bbbb", &now),
            "all after it is there, and the epoch reached it"
        );
        // A position that an opening event told in the epoch that came next.
        assert!(spurious("5-bbbb", "7-bbbb", &now));
    }

    #[test]
    fn a_reset_is_justified_if_something_is_gone_or_the_position_is_of_another_log() {
        let now = log("4-aaaa 5-aaaa 6-bbbb 7-bbbb", "7-bbbb");
        assert!(!spurious("2-aaaa", "7-bbbb", &now), "3 is gone");
        assert!(!spurious("6-aaaa", "7-bbbb", &now), "the log's 6 is another");
        assert!(!spurious("5-cccc", "7-bbbb", &now), "an epoch that left nothing");
        assert!(!spurious("8-bbbb", "7-bbbb", &now), "beyond the head");
        assert!(
            !spurious("4-aaaa", "9-dddd", &now),
            "told by another log than the one that is there now"
        );
        assert!(!spurious("4-aaaa", "7-bbbb", &log("4-aaaa 6-aaaa", "6-aaaa")), "a gap");
        assert!(
            !spurious("4-aaaa", "7-bbbb", &log("4-aaaa 5-aaaa", "6-aaaa")),
            "the head is missing"
        );
        assert!(!spurious(
            "4-aaaa",
            "7-bbbb",
            &Retained { entries: vec![], oldest: None, head: None }
        ));
    }

    #[test]
    fn position_0_is_of_this_log_only_if_its_epoch_left_something() {
        assert!(spurious("0-aaaa", "0-aaaa", &log("", "0-aaaa")));
        assert!(spurious("0-aaaa", "2-aaaa", &log("1-aaaa 2-aaaa", "2-aaaa")));
        assert!(!spurious("0-zzzz", "2-aaaa", &log("1-aaaa 2-aaaa", "2-aaaa")));
        assert!(!spurious("0-zzzz", "0-aaaa", &log("", "0-aaaa")));
    }

    #[test]
    fn what_the_log_still_has_was_withheld_and_only_a_new_epoch_explains_a_loss() {
        let now = log("4-aaaa 5-aaaa 6-bbbb", "6-bbbb");
        let cause = |position: &str, concluded, there| {
            cause_of(position.parse().unwrap(), concluded, there, &now)
        };
        assert_eq!(cause("5-aaaa", MissingCause::Announced, true), MissingCause::Unannounced);
        assert_eq!(cause("6-aaaa", MissingCause::Unannounced, false), MissingCause::LostByLog);
        assert_eq!(cause("9-aaaa", MissingCause::Unannounced, false), MissingCause::LostByLog);
        assert_eq!(
            cause("7-bbbb", MissingCause::Unannounced, false),
            MissingCause::Unannounced,
            "its epoch goes on"
        );
        assert_eq!(
            cause("2-aaaa", MissingCause::Unannounced, false),
            MissingCause::Unannounced,
            "nobody can tell"
        );
        assert_eq!(cause("2-aaaa", MissingCause::Announced, false), MissingCause::Announced);
    }
}
