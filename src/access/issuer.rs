//! [`Issuer`]: whose tokens are believed, what they have to say, and with which keys.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::jwks::{Jwks, KeyServer, Published};
use super::keys::{KeyError, Keys, SECRET_BYTES_MIN};
use super::token::{Expected, Refused};
use crate::config;

/// The largest file of keys: many hundreds of them.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Somebody whose tokens are believed.
pub(super) struct Issuer {
    pub(super) name: Option<String>,
    audience: Option<String>,
    /// What their tokens say to Mercure hubs is read, too.
    mercure: bool,
    keys: KeysOf,
}

/// The keys of an issuer.
enum KeysOf {
    /// Read once.
    Fixed(Arc<Keys>),
    /// Fetched, and fetched again.
    Published(Arc<Jwks>),
}

/// Makes what fetches the keys that are at a URL.
pub(super) type KeyServers<'a> = &'a dyn Fn(&str) -> Arc<dyn KeyServer>;

impl Issuer {
    /// Reads what was set.
    ///
    /// # Errors
    /// One sentence that names the setting, and no more of a secret than that it is one.
    pub(super) fn new(
        settings: &config::Issuer,
        key_servers: KeyServers<'_>,
    ) -> Result<Issuer, String> {
        let setting = &settings.key_setting();
        let fixed = |keys| KeysOf::Fixed(Arc::new(keys));
        let keys = match &settings.keys {
            config::KeySource::Secret(secret) => {
                fixed(of_secret(secret.reveal().as_bytes(), setting)?)
            }
            config::KeySource::SecretFile(path) => {
                let text = read(path, setting)?;
                // What editors put there, and most ways of making a file.
                let secret = text.strip_suffix(b"\n").unwrap_or(&text);
                let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
                fixed(of_secret(secret, &named(setting, path))?)
            }
            config::KeySource::PublicKey(path) => {
                let text = read(path, setting)?;
                fixed(Keys::of_pem(&text).map_err(|error| wrong(&named(setting, path), error))?)
            }
            config::KeySource::Jwks(place) => {
                KeysOf::Published(Arc::new(published(place, setting, key_servers)?))
            }
        };
        let config::Issuer { name, audience, mercure, .. } = settings;
        Ok(Issuer { name: name.clone(), audience: audience.clone(), mercure: *mercure, keys })
    }

    /// The keys it has now, and a number that tells them from those it had before.
    ///
    /// # Errors
    /// [`Refused::KeysMissing`] before the first have come.
    pub(super) fn keys(&self) -> Result<(Arc<Keys>, u64), Refused> {
        match &self.keys {
            KeysOf::Fixed(keys) => Ok((keys.clone(), 0)),
            KeysOf::Published(jwks) => match jwks.keys() {
                (Some(keys), version) => Ok((keys, version)),
                (None, _) => Err(Refused::KeysMissing),
            },
        }
    }

    /// The keys that have to be fetched.
    pub(super) fn published(&self) -> Option<&Arc<Jwks>> {
        match &self.keys {
            KeysOf::Fixed(_) => None,
            KeysOf::Published(jwks) => Some(jwks),
        }
    }

    /// What its tokens must say.
    pub(super) fn expected(&self) -> Expected<'_> {
        let (issuer, audience) = (self.name.as_deref(), self.audience.as_deref());
        Expected { issuer, audience, mercure: self.mercure }
    }
}

/// A set that is published at a URL, or lies in a file, which has to be there.
fn published(place: &str, setting: &str, key_servers: KeyServers<'_>) -> Result<Jwks, String> {
    if !place.contains("://") {
        let path = Path::new(place);
        let set = read_again(path).map_err(|why| format!("{}: {why}", named(setting, path)))?;
        let keys = Keys::of_jwks(&set).map_err(|error| wrong(&named(setting, path), error))?;
        return Ok(Jwks::with(Arc::new(KeyFile(path.to_owned())), keys, &set));
    }
    if let Some(rest) = place.strip_prefix("http://")
        && !is_here(rest)
    {
        tracing::warn!(
            "{setting} is fetched without TLS: whoever is in between can put keys of their own there"
        );
    }
    Ok(Jwks::new(key_servers(place)))
}

/// Whether a URL leads to this machine, by what stands behind its scheme.
fn is_here(rest: &str) -> bool {
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or_default(),
    };
    let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
}

/// A JWK set in a file.
struct KeyFile(PathBuf);

#[async_trait]
impl KeyServer for KeyFile {
    fn place(&self) -> String {
        self.0.display().to_string()
    }

    async fn fetch(&self) -> Result<Published, String> {
        // Small, and on a disk of this machine. Looked at as often as keys may be.
        let set = read_again(&self.0)?;
        Ok(Published { set, fresh_for: Some(Duration::ZERO) })
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

/// A file that is read again and again: from a pipe that would be waited for without an end.
fn read_again(path: &Path) -> Result<Vec<u8>, String> {
    let kind = std::fs::metadata(path).map_err(|error| format!("cannot read it: {error}"))?;
    if !kind.is_file() {
        return Err("cannot read it: it is no file".to_owned());
    }
    read_text(path)
}

/// A file of keys, all of it.
fn read(path: &Path, setting: &str) -> Result<Vec<u8>, String> {
    read_text(path).map_err(|why| format!("{}: {why}", named(setting, path)))
}

fn read_text(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let cannot = |error| format!("cannot read it: {error}");
    let file = std::fs::File::open(path).map_err(cannot)?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(cannot)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err("it is too large for a file of keys".to_owned());
    }
    Ok(text)
}
