//! The list of revocations in Redis: a hash with what was said last of each key, and a sorted set
//! that has the keys in the order in which that was said, so that a node reads what is new alone.

use async_trait::async_trait;

use super::RedisLog;
use super::scripts::{self, Call};
use crate::log::{
    ListVersion, LogError, RevocationPage, RevocationRecord, RevocationState, RevocationStore,
    RevocationsPut, RevokedKey,
};
use crate::position::Epoch;

/// Records of one page.
const PAGE_RECORDS_MAX: usize = 500;

#[async_trait]
impl RevocationStore for RedisLog {
    async fn revocations(&self, known: &ListVersion) -> Result<RevocationPage, LogError> {
        let call = Call::new(&scripts::REVOCATIONS, &self.revocation_keys())
            .arg(&known.list)
            .arg(known.changes)
            .arg(PAGE_RECORDS_MAX);
        let answer: Vec<String> = self.commands.call(call).await?;
        let [list, changes, more, records @ ..] = &answer[..] else {
            return Err(unreadable());
        };
        let version =
            ListVersion { list: list.clone(), changes: changes.parse().map_err(|_| unreadable())? };
        // What no script writes is nothing that anybody said.
        let records = records.chunks_exact(2).filter_map(|pair| record(&pair[0], &pair[1]));
        Ok(RevocationPage { version, records: records.collect(), more: more == "1" })
    }

    async fn put_revocations(
        &self,
        records: &[RevocationRecord],
        records_max: Option<usize>,
    ) -> Result<RevocationsPut, LogError> {
        let mut call = Call::new(&scripts::REVOKE, &self.revocation_keys())
            .arg(Epoch::random().as_str())
            .arg(records_max.map(|max| max.to_string()).unwrap_or_default());
        for record in records {
            call = call.arg(hexadecimal(&record.key)).arg(text(record));
        }
        let taken: bool = self.commands.call(call).await?;
        Ok(if taken { RevocationsPut::Taken } else { RevocationsPut::Full })
    }

    async fn forget_revocations(&self, records: &[RevocationRecord]) -> Result<(), LogError> {
        let mut call = Call::new(&scripts::FORGET_REVOCATIONS, &self.revocation_keys());
        for record in records {
            call = call.arg(hexadecimal(&record.key)).arg(text(record));
        }
        let _removed: u64 = self.commands.call(call).await?;
        Ok(())
    }
}

impl RedisLog {
    fn revocation_keys(&self) -> [String; 2] {
        ["revoked", "revoked:order"].map(|what| self.keys.shared(what))
    }
}

fn unreadable() -> LogError {
    LogError::OutcomeUnknown("a script did not answer a list of revocations".to_owned())
}

/// A record as the scripts have it.
fn text(record: &RevocationRecord) -> String {
    let state = match record.state {
        RevocationState::Revoked { until: Some(seconds) } => seconds.to_string(),
        RevocationState::Revoked { until: None } => "-".to_owned(),
        RevocationState::Lifted => "lifted".to_owned(),
    };
    format!("{} {state}", record.changed_at)
}

fn record(key: &str, text: &str) -> Option<RevocationRecord> {
    let (changed_at, state) = text.split_once(' ')?;
    let state = match state {
        "-" => RevocationState::Revoked { until: None },
        "lifted" => RevocationState::Lifted,
        seconds => RevocationState::Revoked { until: Some(seconds.parse().ok()?) },
    };
    Some(RevocationRecord { key: key_of(key)?, changed_at: changed_at.parse().ok()?, state })
}

fn hexadecimal(key: &RevokedKey) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key_of(text: &str) -> Option<RevokedKey> {
    let mut key = RevokedKey::default();
    if text.len() != 2 * key.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_record() -> impl Strategy<Value = RevocationRecord> {
        let state = prop_oneof![
            proptest::option::of(any::<u64>()).prop_map(|until| RevocationState::Revoked { until }),
            Just(RevocationState::Lifted),
        ];
        (any::<RevokedKey>(), any::<u64>(), state)
            .prop_map(|(key, changed_at, state)| RevocationRecord { key, changed_at, state })
    }

    proptest! {
        #[test]
        fn a_record_is_read_back_as_it_was_written(written in any_record()) {
            let read = record(&hexadecimal(&written.key), &text(&written));
            prop_assert_eq!(read, Some(written));
        }

        #[test]
        fn what_nobody_wrote_is_no_record(key in "[0-9a-fé]{0,70}", text in ".{0,20}") {
            if let Some(read) = record(&key, &text) {
                prop_assert_eq!(hexadecimal(&read.key), key);
            }
        }
    }
}
