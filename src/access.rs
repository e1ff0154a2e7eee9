//! Who may do what: [`Access`] verifies tokens, and a [`Grant`] says what its holder may do.
//!
//! A request comes with a token ([`http`](crate::http) finds it), or without one. A token becomes
//! the grant that is in it, or is [refused](Refused); what somebody without one may do is a grant
//! like any other. Every route asks the grant before anything is read from the log or written to it,
//! and streams run on [terms](crate::stream::Terms) that end with it.
//!
//! - [`names`]: exact names of topics, and beginnings of names.
//! - [`grant`]: what may be done to which of them.
//! - `keys`: what tokens are verified with, and the algorithms that each kind of key allows.
//! - [`jwks`]: keys that an issuer publishes, and changes.
//! - `token`: signature and claims.
//! - `mercure`: what a token says that was made for a Mercure hub.
//! - `issuer`: whose tokens are believed.
//! - [`revocations`]: what was taken back of those who have a grant.
//! - [`tickets`]: what stands for a token in an address, once and for seconds.
//! - `verified`: a bounded memory of tokens that were found right.
//!
//! No error, log line or `Debug` output in this room has a token, a secret, or a word of a claim.

#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod grant;
mod issuer;
pub mod jwks;
mod keys;
mod mercure;
#[cfg(test)]
#[path = "../tests/promises/harness/tokens.rs"]
mod minting;
pub mod names;
pub mod revocations;
pub mod tickets;
mod token;
mod verified;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};

use crate::config;
use issuer::{Issuer, KeyServers};
use jwks::{Heard, Jwks};
use token::LEEWAY_SECONDS;
use verified::Verified;

pub use grant::{Action, Grant};
pub use token::{Refused, TOKEN_BYTES_MAX};

/// Whom this node believes, and what those may do who say nothing.
pub struct Access {
    issuers: Vec<Issuer>,
    verified: Verified,
    anonymous: Option<Arc<Grant>>,
}

impl Access {
    /// Believes these issuers; keys that one publishes are fetched by what `key_servers` makes.
    /// Whoever has no token may do what `anonymous` says.
    ///
    /// # Errors
    /// One sentence that says which setting is wrong, and what would be right.
    pub fn new(
        issuers: &[config::Issuer],
        anonymous: Option<Grant>,
        key_servers: KeyServers<'_>,
    ) -> Result<Access, String> {
        let issuers = issuers.iter().map(|issuer| Issuer::new(issuer, key_servers));
        let issuers: Vec<Issuer> = issuers.collect::<Result<_, _>>()?;
        Ok(Access { issuers, verified: Verified::default(), anonymous: anonymous.map(Arc::new) })
    }

    /// Whether any token can be believed.
    pub fn is_configured(&self) -> bool {
        !self.issuers.is_empty()
    }

    /// What somebody without a token may do; `None` is nothing.
    pub fn anonymous(&self) -> Option<&Arc<Grant>> {
        self.anonymous.as_ref()
    }

    /// The keys of those issuers who publish them: somebody has to [run](Jwks::run) each.
    pub fn published(&self) -> impl Iterator<Item = &Arc<Jwks>> {
        self.issuers.iter().filter_map(Issuer::published)
    }

    /// What this token grants, where [`verify`](Access::verify) could not say for want of keys. Waits
    /// a little for them.
    ///
    /// # Errors
    /// Why it is worth nothing. [`Refused::KeysMissing`] if only a later moment will tell.
    pub async fn verify_when_known(&self, token: &str) -> Result<Arc<Grant>, Refused> {
        let Some(jwks) = self.issuer_of(token)?.1.published() else {
            return self.verify(token, SystemTime::now());
        };
        let mut asking = jwks.ask();
        loop {
            let heard = asking.heard().await;
            match self.verify(token, SystemTime::now()) {
                Err(why) if why.is_for_want_of_keys() => match heard {
                    Heard::Keys => {}
                    Heard::AllKeys => return Err(why),
                    Heard::Nothing => return Err(Refused::KeysMissing),
                },
                verified => return verified,
            }
        }
    }

    /// What this token grants, by the keys that are known now.
    ///
    /// # Errors
    /// Why it is worth nothing.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Arc<Grant>, Refused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused::TooLong);
        }
        let now = seconds(now);
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let are_current = |(issuer, version): (usize, u64)| {
            let issuer = self.issuers.get(issuer).and_then(|issuer| issuer.keys().ok());
            issuer.is_some_and(|(_, current)| current == version)
        };
        if let Some(grant) = self.verified.get(&key, are_current) {
            return if grant.has_expired(now, LEEWAY_SECONDS) {
                Err(Refused::Expired)
            } else {
                Ok(grant)
            };
        }
        let (at, issuer) = self.issuer_of(token)?;
        let (keys, version) = issuer.keys()?;
        let grant = token::verify(token, &keys, issuer.expected(), now)?;
        let grant = Arc::new(Grant { digest: Some(key), ..grant });
        self.verified.add(key, grant.clone(), token.len(), (at, version));
        Ok(grant)
    }

    /// Whose token this says that it is. It is verified with the keys of this issuer and nobody
    /// else's, and has to say the same then.
    fn issuer_of(&self, token: &str) -> Result<(usize, &Issuer), Refused> {
        if let [only] = &self.issuers[..] {
            return Ok((0, only));
        }
        let told = token::told_issuer(token)?;
        let mut issuers = self.issuers.iter().enumerate();
        issuers.find(|(_, issuer)| issuer.name == told && told.is_some()).ok_or(Refused::Issuer)
    }
}

/// Seconds since 1970; before, none.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
