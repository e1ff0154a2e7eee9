//! [`Commands`]: carries commands of one kind to the server that has what they are about.

use std::sync::Arc;
use std::time::Duration;

use redis::FromRedisValue;

use super::scripts::Call;
use super::servers::{Kind, Servers};
use crate::log::LogError;

/// Carries commands of one kind.
pub(super) struct Commands {
    servers: Arc<Servers>,
    kind: Kind,
}

impl Commands {
    pub(super) fn new(servers: Arc<Servers>, kind: Kind) -> Commands {
        Commands { servers, kind }
    }

    /// Runs a script.
    pub(super) async fn call<T: FromRedisValue>(&self, call: Call<'_>) -> Result<T, LogError> {
        self.servers.master().await?.lane(self.kind).call(call).await
    }

    /// Runs a script that writes, and waits as
    /// [`Lane::call_and_wait`](super::lane::Lane::call_and_wait) does.
    pub(super) async fn call_and_wait(
        &self,
        call: Call<'_>,
        replicas: usize,
        within: Duration,
    ) -> Result<(Vec<String>, usize), LogError> {
        self.servers.master().await?.lane(self.kind).call_and_wait(call, replicas, within).await
    }

    /// Sends commands as one batch. Redis may refuse some of them and do the others.
    pub(super) async fn pipe<T: FromRedisValue>(
        &self,
        name: &'static str,
        pipe: &redis::Pipeline,
    ) -> Result<T, LogError> {
        self.servers.master().await?.lane(self.kind).pipe(name, pipe).await
    }
}
