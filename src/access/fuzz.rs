//! What fuzzing asks of this room: its readers of what the network brings, each by itself.

use super::keys::{Algorithm, Keys};

/// A key of a JWK set: its `kid`, and the names of the algorithms that it may be used by.
pub type ReadKey = (Option<String>, Vec<String>);

/// Reads a JWK set; `None` where it is refused.
pub fn jwks(json: &[u8]) -> Option<Vec<ReadKey>> {
    let keys = Keys::of_jwks(json).ok()?;
    let name = |algorithm: &Algorithm| match algorithm {
        Algorithm::Known(known) => format!("{known:?}"),
        Algorithm::Es512 => "ES512".to_owned(),
    };
    let read = keys.all().map(|key| (key.id.clone(), key.algorithms.iter().map(name).collect()));
    Some(read.collect())
}
