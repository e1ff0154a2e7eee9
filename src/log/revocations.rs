//! [`RevocationStore`]: what was taken back of those who had a grant, as all nodes share it.
//!
//! The list is kept by every node in its own memory, and the store is how they tell each other: a
//! store that loses it gets it back from any of them. So of two records of one key the later one
//! counts, wherever they meet.

use async_trait::async_trait;

use super::LogError;

/// The digest of whom a record is about. Names are not kept: the list may be large, and it is
/// nobody's business.
pub type RevokedKey = [u8; 32];

/// What the last change says about one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevocationRecord {
    /// About whom.
    pub key: RevokedKey,
    /// When that was said, in milliseconds since 1970 of the log's clock.
    pub changed_at: u64,
    /// What was said.
    pub state: RevocationState,
}

/// Whether something is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationState {
    /// It is, until this time in seconds since 1970, or for good.
    Revoked {
        /// When it lets go.
        until: Option<u64>,
    },
    /// It was, and is not any more. Kept for some time, for those who have the older record.
    Lifted,
}

/// Which list a store has, and how many changes it has had.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListVersion {
    /// Its name. Another one if it may have lost something: then nothing that was read before counts
    /// as known to it. Empty while there is none.
    pub list: String,
    /// The number of the last change.
    pub changes: u64,
}

/// What has changed in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationPage {
    /// The list as of the last record here.
    pub version: ListVersion,
    /// The changes, each key once, the oldest first.
    pub records: Vec<RevocationRecord>,
    /// There are more.
    pub more: bool,
}

/// What became of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationsPut {
    /// The other nodes can read them.
    Taken,
    /// There are as many in the list as there may be; none was taken.
    Full,
}

/// The list of what was taken back.
#[async_trait]
pub trait RevocationStore: Send + Sync + 'static {
    /// What changed after `known`: everything, if that is a version of another list. Some hundred
    /// records at most.
    async fn revocations(&self, known: &ListVersion) -> Result<RevocationPage, LogError>;

    /// Tells the other nodes of these records, some hundred at most. One counts unless the list has a
    /// later one of its key. With `records_max` none is taken if the list would have more than that.
    async fn put_revocations(
        &self,
        records: &[RevocationRecord],
        records_max: Option<usize>,
    ) -> Result<RevocationsPut, LogError>;

    /// Removes these records, some hundred at most, as far as they are still the last of their keys:
    /// their time is over.
    async fn forget_revocations(&self, records: &[RevocationRecord]) -> Result<(), LogError>;
}
