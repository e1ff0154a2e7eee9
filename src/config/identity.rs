//! Whose tokens are believed: [`Issuer`] and where its keys are.

use std::fmt;
use std::path::PathBuf;

use super::Config;

/// A text that nobody may see.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for who verifies with it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Somebody whose tokens are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// What their tokens must have as `iss`; anything if absent.
    pub name: Option<String>,
    /// What their tokens must have as `aud`, or among it; none may have any if absent.
    pub audience: Option<String>,
    /// What they are verified with.
    pub keys: KeySource,
}

/// Where the keys of one issuer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A shared secret.
    Secret(Secret),
    /// A file that holds a shared secret.
    SecretFile(PathBuf),
    /// A PEM file with public keys.
    PublicKey(PathBuf),
    /// A JWK set: a URL (`http://…`, `https://…`), or the path of a file.
    Jwks(String),
}

impl Config {
    /// How the settings of tokens must relate.
    pub(super) fn check_keys(&self) -> Result<(), String> {
        let given = self.key_settings();
        if let [(one, _), (other, _), ..] = &given[..] {
            return Err(format!("{one} and {other} are both set: tokens are of one kind of key"));
        }
        let claims = [
            ("--jwt-issuer (FANTAIL_JWT_ISSUER)", &self.jwt_issuer),
            ("--jwt-audience (FANTAIL_JWT_AUDIENCE)", &self.jwt_audience),
        ];
        match claims.iter().find(|(_, claim)| claim.is_some()) {
            Some((setting, _)) if given.is_empty() => Err(format!(
                "{setting} needs a key to verify tokens with, such as --jwt-secret-file \
                 (FANTAIL_JWT_SECRET_FILE)"
            )),
            _ => Ok(()),
        }
    }

    /// Whose tokens are believed; nobody's if there is no key.
    pub fn issuers(&self) -> Vec<Issuer> {
        let keys = self.key_settings().into_iter().next();
        let issuer = keys.map(|(_, keys)| Issuer {
            name: self.jwt_issuer.clone(),
            audience: self.jwt_audience.clone(),
            keys,
        });
        issuer.into_iter().collect()
    }

    /// The keys that are set, of which one may be, by the setting.
    fn key_settings(&self) -> Vec<(&'static str, KeySource)> {
        let secret = self.jwt_secret.clone().map(KeySource::Secret);
        let secret_file = self.jwt_secret_file.clone().map(KeySource::SecretFile);
        let public_key = self.jwt_public_key.clone().map(KeySource::PublicKey);
        let jwks = self.jwks.clone().map(KeySource::Jwks);
        [
            ("--jwks (FANTAIL_JWKS)", jwks),
            ("--jwt-secret (FANTAIL_JWT_SECRET)", secret),
            ("--jwt-secret-file (FANTAIL_JWT_SECRET_FILE)", secret_file),
            ("--jwt-public-key (FANTAIL_JWT_PUBLIC_KEY)", public_key),
        ]
        .into_iter()
        .filter_map(|(setting, keys)| Some((setting, keys?)))
        .collect()
    }
}

pub(super) fn secret(text: &str) -> Result<Secret, String> {
    if text.trim().is_empty() {
        return Err("must be a secret of 32 bytes or more".to_owned());
    }
    Ok(Secret(text.to_owned()))
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("must be a path".to_owned()) } else { Ok(text.into()) }
}

pub(super) fn jwks(text: &str) -> Result<String, String> {
    let right = || {
        Err("must be a URL such as https://issuer.example/keys.json, without a user, or a path"
            .to_owned())
    };
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else {
        return if text.is_empty() || text.contains("://") { right() } else { Ok(text.to_owned()) };
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    if authority.is_empty() || authority.contains('@') || !rest.bytes().all(is_plain) {
        return right();
    }
    Ok(text.to_owned())
}

pub(super) fn claim(text: &str) -> Result<String, String> {
    let fits = (1..=1_000).contains(&text.len()) && !text.chars().any(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("must be 1 to 1000 bytes of text".to_owned()) }
}
