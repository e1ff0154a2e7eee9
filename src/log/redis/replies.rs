//! Reading what Redis replies: positions, epochs and entries.
//!
//! Whatever does not look as our scripts leave it is an error of the log, never a panic.

use bytes::Bytes;
use redis::{FromRedisValue, Value};

use crate::entry::Entry;
use crate::log::{Appended, LogError};
use crate::position::{Epoch, LogHistory, Position, SEQ_MAX};

/// Whether a script answers that it did what it was asked, now or before.
pub(super) fn has_written(answer: &[String]) -> bool {
    answer.first().is_some_and(|word| word == "ok")
}

/// Whether a script on a topic answers that it has to have more keys.
pub(super) fn asks_for_keys(answer: &[String]) -> bool {
    answer.len() == 1 && answer[0] == "which"
}

/// The position in the answer of a script that appends and whether it did so before, or why it did
/// not. An answer that cannot be understood says nothing about what the script did.
pub(super) fn accepted(answer: &[String]) -> Result<Appended, LogError> {
    let unknown = |what| LogError::OutcomeUnknown(format!("a script did not answer {what}"));
    let position = |seq, epoch| {
        let position: Result<Position, _> = format!("{seq}-{epoch}").parse();
        position.map_err(|_| unknown("a position"))
    };
    match answer {
        [word, seq, epoch, rest @ ..] if word == "ok" => {
            let replayed = rest.get(1).is_some_and(|word| word == "replayed");
            Ok(Appended { last: position(seq, epoch)?, replayed })
        }
        [word, seq, epoch] if word == "precondition_failed" => {
            let head = match epoch.strip_prefix('@').map(str::parse) {
                Some(Ok(now)) => Position { seq: 0, epoch: Epoch::unwritten_at(now) },
                _ => position(seq, epoch)?,
            };
            Err(LogError::PreconditionFailed(head))
        }
        [word] if word == "key_reused" => Err(LogError::KeyReused),
        [word] if word == "reserved_event_type" => Err(LogError::ReservedEventType),
        _ => Err(unknown("as it should")),
    }
}

/// Redis holds something under our keys that we did not put there.
pub(super) fn unexpected(what: &str) -> LogError {
    LogError::Unavailable(format!("unexpected data in Redis instead of {what}"))
}

pub(super) fn text(value: Value) -> Result<String, LogError> {
    String::from_redis_value(value).map_err(|_| unexpected("text"))
}

/// Reads seq, meta and the id of the oldest entry, or what is told of a topic without a log instead
/// (see `log.lua`).
pub(super) fn history(head: &str, meta: &str, oldest: &str) -> Result<LogHistory, LogError> {
    let read = || {
        if meta.is_empty() {
            return Some(LogHistory::unwritten(head.parse().ok()?, oldest.parse().ok()?));
        }
        // No client could come back with a larger one.
        let head = head.parse().ok().filter(|&head| head <= SEQ_MAX)?;
        let mut words = meta.split(' ');
        let epoch = words.next()?.parse().ok()?;
        // One with too many digits is beyond the head like others.
        let floor: u64 = words.nth(1)?.parse().unwrap_or(u64::MAX);
        let mut words = words.peekable();
        // Whether it is a board's.
        words.next_if(|word| ["+", "-"].contains(word));
        let before = words.next_if(|word| word.starts_with('@'));
        let (unwritten_since, begun_at) = before.and_then(times).unwrap_or((1, 0));
        let deleted = words.next_if(|word| word.starts_with('-'));
        let deleted = deleted.and_then(|word| word[1..].parse().ok()).unwrap_or(0);
        // How many bytes were appended is the scripts' alone.
        let past_epochs = words.filter(|word| !word.starts_with('#')).map(|word| {
            let (epoch, end) = word.split_once(':')?;
            // Nor can an epoch have reached beyond the head: who was told that a position there is
            // right would wait for a tail that knows it.
            Some((epoch.parse().ok()?, end.parse::<u64>().ok()?.min(head)))
        });
        let past_epochs = past_epochs.collect::<Option<_>>()?;
        let oldest = match oldest.split_once('-') {
            Some((seq, _)) => seq.parse().ok()?,
            None => head + 1,
        };
        // Whatever is stored, the oldest entry that can be read is at most the next one: whoever was
        // told to go on beyond that would be lost there, and told so again and again.
        let oldest = oldest.max(floor.saturating_add(1)).min(head + 1);
        Some(LogHistory {
            epoch,
            past_epochs,
            head,
            oldest,
            deleted_through: deleted.min(oldest - 1),
            unwritten_since,
            begun_at,
        })
    };
    read().ok_or_else(|| unexpected("epochs"))
}

/// Reads `@<since>-<began>`.
fn times(word: &str) -> Option<(u64, u64)> {
    let (since, began) = word.strip_prefix('@')?.split_once('-')?;
    Some((since.parse().ok()?, began.parse().ok()?))
}

/// Reads one entry: `[id, [e, epoch, t, milliseconds, j, json, f, rest]]`.
pub(super) fn entry(value: Value) -> Result<Entry, LogError> {
    let (id, fields) =
        <(String, Vec<Value>)>::from_redis_value(value).map_err(|_| unexpected("an entry"))?;
    let mut values = fields.into_iter().skip(1).step_by(2);
    let mut next = || values.next().ok_or_else(|| unexpected("a field"));
    let epoch = text(next()?)?;
    let milliseconds = text(next()?)?;
    let json = text(next()?)? == "1";
    let Value::BulkString(rest) = next()? else { return Err(unexpected("a frame")) };
    let seq = id.split_once('-').map_or("", |(seq, _)| seq);
    Ok(Entry {
        position: format!("{seq}-{epoch}").parse().map_err(|_| unexpected("a position"))?,
        milliseconds: milliseconds.parse().map_err(|_| unexpected("a time"))?,
        json,
        rest: Bytes::from(rest),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accept(words: &[&str]) -> Result<Appended, LogError> {
        accepted(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn an_answer_that_cannot_be_understood_says_nothing_of_what_was_done() {
        assert!(accept(&["ok", "7", "k3f9aa"]).is_ok_and(|appended| !appended.replayed));
        for answer in
            [&["ok", "7"][..], &["ok", "many", "k3f9aa"], &["ok", "7", "?"], &["fine"], &[]]
        {
            let outcome = accept(answer);
            assert!(matches!(outcome, Err(LogError::OutcomeUnknown(_))), "{answer:?}");
        }
    }

    #[test]
    fn what_is_stored_beyond_the_head_is_cut_down_to_it() {
        let history = history("10", "aaaa reign 999999 - @17-20 bbbb:12 cccc:4", "3-0").unwrap();
        assert_eq!((history.unwritten_since, history.begun_at), (17, 20));
        assert_eq!((history.head, history.oldest), (10, 11));
        let ends: Vec<u64> = history.past_epochs.iter().map(|&(_, end)| end).collect();
        assert_eq!(ends, [10, 4]);
    }

    proptest! {
        #[test]
        fn whatever_is_stored_no_place_in_the_history_is_beyond_the_head(
            head in "[0-9]{1,20}",
            meta in "([0-9a-z]{4,8}|[ -~]{0,9}) [0-9a-f]{1,40} [0-9]{1,30}( [+-])?( @[0-9]{0,21}-?[0-9]{0,21})?( -[0-9]{0,21})?( [0-9a-z]{4}:[0-9]{1,21}){0,3}( #[0-9-]{0,21})?",
            oldest in "|[0-9]{1,20}-0|[ -~]{0,9}",
        ) {
            if let Ok(history) = history(&head, &meta, &oldest) {
                prop_assert!(history.head <= SEQ_MAX);
                prop_assert!(history.oldest <= history.head + 1);
                prop_assert!(history.deleted_through < history.oldest);
                prop_assert!(history.past_epochs.iter().all(|&(_, end)| end <= history.head));
            }
        }
    }
}
