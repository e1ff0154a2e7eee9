//! [`Conditions`]: under what conditions a write may happen, judged in the same atomic step as the
//! write itself.

use std::fmt;
use std::str::FromStr;

use crate::position::Position;

/// The longest [`IdempotencyKey`], in bytes.
const KEY_BYTES_MAX: usize = 255;

/// What must be so for a write to happen. By default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The same key on the same topic within the idempotency window gets the first answer, and
    /// nothing is written again.
    pub idempotency_key: Option<IdempotencyKey>,
    /// The newest entry must be the one at this position.
    pub if_match: Option<Position>,
}

impl Conditions {
    /// No conditions.
    pub const NONE: Conditions = Conditions { idempotency_key: None, if_match: None };
}

/// A name that a client gives one request, to repeat it safely: 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// A text is no [`IdempotencyKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyKeyError;

impl IdempotencyKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdempotencyKey {
    type Err = IdempotencyKeyError;

    fn from_str(text: &str) -> Result<IdempotencyKey, IdempotencyKeyError> {
        let fits = (1..=KEY_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(IdempotencyKey(text.to_owned())) } else { Err(IdempotencyKeyError) }
    }
}

impl fmt::Display for IdempotencyKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an idempotency key has 1 to {KEY_BYTES_MAX} visible ASCII characters")
    }
}

impl std::error::Error for IdempotencyKeyError {}
