//! [`Issuer`]: whose tokens are believed, what they have to say, and with which keys.

use std::path::Path;
use std::sync::Arc;

use super::keys::{KeyError, Keys, SECRET_BYTES_MIN};
use super::token::Expected;
use crate::config;

/// The largest file of keys: many hundreds of them.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Somebody whose tokens are believed.
pub(super) struct Issuer {
    pub(super) name: Option<String>,
    audience: Option<String>,
    keys: Arc<Keys>,
}

impl Issuer {
    /// Reads what was set.
    ///
    /// # Errors
    /// One sentence that names the setting, and no more of a secret than that it is one.
    pub(super) fn new(settings: &config::Issuer) -> Result<Issuer, String> {
        let keys = match &settings.keys {
            config::KeySource::Secret(secret) => {
                of_secret(secret.reveal().as_bytes(), "--jwt-secret (FANTAIL_JWT_SECRET)")?
            }
            config::KeySource::SecretFile(path) => {
                let setting = "--jwt-secret-file (FANTAIL_JWT_SECRET_FILE)";
                let text = read(path, setting)?;
                // What editors put there, and most ways of making a file.
                let secret = text.strip_suffix(b"\n").unwrap_or(&text);
                let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
                of_secret(secret, &named(setting, path))?
            }
            config::KeySource::PublicKey(path) => {
                let setting = "--jwt-public-key (FANTAIL_JWT_PUBLIC_KEY)";
                let text = read(path, setting)?;
                Keys::of_pem(&text).map_err(|error| wrong(&named(setting, path), error))?
            }
        };
        let config::Issuer { name, audience, .. } = settings.clone();
        Ok(Issuer { name, audience, keys: Arc::new(keys) })
    }

    /// The keys it has now, and a number that tells them from those it had before.
    pub(super) fn keys(&self) -> (Arc<Keys>, u64) {
        (self.keys.clone(), 0)
    }

    /// What its tokens must say.
    pub(super) fn expected(&self) -> Expected<'_> {
        Expected { issuer: self.name.as_deref(), audience: self.audience.as_deref() }
    }
}

fn of_secret(secret: &[u8], setting: &str) -> Result<Keys, String> {
    let keys = Keys::of_secret(secret).map_err(|error| wrong(setting, error))?;
    if secret.len() < SECRET_BYTES_MIN {
        tracing::warn!(
            "{setting} has {} bytes: a secret of less than {SECRET_BYTES_MIN} can be guessed by \
             whoever has seen one token, and then everything is theirs (RFC 7518 §3.2). Make one \
             with: openssl rand -base64 48",
            secret.len()
        );
    }
    Ok(keys)
}

fn named(setting: &str, path: &Path) -> String {
    format!("{setting} is {:?}", path.display().to_string())
}

fn wrong(setting: &str, error: KeyError) -> String {
    format!("{setting}: {error}")
}

/// A file of keys, all of it.
fn read(path: &Path, setting: &str) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let cannot = |error| format!("{}: cannot read it: {error}", named(setting, path));
    let file = std::fs::File::open(path).map_err(cannot)?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(cannot)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{}: it is too large for a file of keys", named(setting, path)));
    }
    Ok(text)
}
