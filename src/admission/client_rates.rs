//! [`ClientRates`]: the rates that clients are held to, and on whose account something is done.

use std::sync::Arc;

use super::client::Whose;
use super::rates::{Rates, TooFast};
use crate::config::{Rate, RateByToken};

/// On whose account something is done, and whether they have shown a token for it.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    /// Whose.
    pub whose: Whose,
    /// Those who have shown none may have another rate.
    pub has_token: bool,
}

/// What clients do in a time. What is on nobody's account is not counted.
pub struct ClientRates {
    requests: ByToken,
    published: ByToken,
    new_topics: Option<Rates>,
}

struct ByToken {
    with: Option<Arc<Rates>>,
    without: Option<Arc<Rates>>,
}

impl ByToken {
    fn new(rate: RateByToken) -> ByToken {
        let with = Rates::new(rate.with).map(Arc::new);
        // Where both are the same, so are the buckets.
        let without = match rate.with == rate.without {
            true => with.clone(),
            false => Rates::new(rate.without).map(Arc::new),
        };
        ByToken { with, without }
    }

    fn take(&self, account: Option<Account>, count: usize) -> Result<(), TooFast> {
        let Some(Account { whose, has_token }) = account else { return Ok(()) };
        let rates = if has_token { &self.with } else { &self.without };
        rates.as_ref().map_or(Ok(()), |rates| rates.take(whose, count))
    }
}

impl ClientRates {
    /// Holds clients to these.
    pub fn new(requests: RateByToken, published: RateByToken, new_topics: Rate) -> ClientRates {
        ClientRates {
            requests: ByToken::new(requests),
            published: ByToken::new(published),
            new_topics: Rates::new(new_topics),
        }
    }

    /// One more request.
    ///
    /// # Errors
    /// When there were too many.
    pub fn request(&self, account: Option<Account>) -> Result<(), TooFast> {
        self.requests.take(account, 1)
    }

    /// So many events more, or changes of boards.
    ///
    /// # Errors
    /// When there were too many.
    pub fn publish(&self, account: Option<Account>, events: usize) -> Result<(), TooFast> {
        self.published.take(account, events)
    }

    /// So many topics more that nobody followed before.
    ///
    /// # Errors
    /// When there were too many.
    pub fn watch_new(&self, account: Option<Account>, topics: usize) -> Result<(), TooFast> {
        match (&self.new_topics, account) {
            (Some(rates), Some(Account { whose, .. })) if topics > 0 => rates.take(whose, topics),
            _ => Ok(()),
        }
    }
}
