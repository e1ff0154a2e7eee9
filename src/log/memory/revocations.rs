//! The list of revocations of one node: it is in the memory of whoever asks.

use async_trait::async_trait;

use super::MemoryLog;
use crate::log::{
    ListVersion, LogError, RevocationPage, RevocationRecord, RevocationStore, RevocationsPut,
};

/// Its name: there is one, and it is never lost while the process lives.
const LIST: &str = "memory";

#[async_trait]
impl RevocationStore for MemoryLog {
    async fn revocations(&self, _: &ListVersion) -> Result<RevocationPage, LogError> {
        let version = ListVersion { list: LIST.to_owned(), changes: 0 };
        Ok(RevocationPage { version, records: Vec::new(), more: false })
    }

    async fn put_revocations(
        &self,
        _: &[RevocationRecord],
        _: Option<usize>,
    ) -> Result<RevocationsPut, LogError> {
        Ok(RevocationsPut::Taken)
    }

    async fn forget_revocations(&self, _: &[RevocationRecord]) -> Result<(), LogError> {
        Ok(())
    }
}
