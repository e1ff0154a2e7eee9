//! Whose tokens are believed: [`Issuer`] and where its keys are.

use std::fmt;
use std::path::PathBuf;

use super::Config;

/// A text that nobody may see.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(super) fn of(text: &str) -> Secret {
        Secret(text.to_owned())
    }

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
    /// What they say to Mercure hubs is read, too.
    pub mercure: bool,
    /// It is one of those in the settings file.
    pub is_of_file: bool,
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

impl Issuer {
    /// The setting that says where their keys are, for whoever has to correct it.
    pub fn key_setting(&self) -> String {
        if !self.is_of_file {
            return self.keys.setting().to_owned();
        }
        let name = self.name.as_deref().unwrap_or_default();
        format!("{} of the issuer {name:?} in the settings file", self.keys.file_key())
    }
}

impl KeySource {
    /// The setting of the one issuer that flags and variables have.
    fn setting(&self) -> &'static str {
        match self {
            KeySource::Secret(_) => "--jwt-secret (FANTAIL_JWT_SECRET)",
            KeySource::SecretFile(_) => "--jwt-secret-file (FANTAIL_JWT_SECRET_FILE)",
            KeySource::PublicKey(_) => "--jwt-public-key (FANTAIL_JWT_PUBLIC_KEY)",
            KeySource::Jwks(_) => "--jwks (FANTAIL_JWKS)",
        }
    }

    /// The key in a table of an issuer.
    fn file_key(&self) -> &'static str {
        match self {
            KeySource::Secret(_) | KeySource::SecretFile(_) => "secret_file",
            KeySource::PublicKey(_) => "public_key",
            KeySource::Jwks(_) => "jwks",
        }
    }
}

impl Config {
    /// How the settings of tokens must relate.
    pub(super) fn check_keys(&self) -> Result<(), String> {
        let given = self.key_sources();
        if let [one, other, ..] = &given[..] {
            return Err(format!(
                "{} and {} are both set: tokens are of one kind of key, and several issuers stand in \
                 the settings file",
                one.setting(),
                other.setting()
            ));
        }
        if let ([one], [_, ..]) = (&given[..], &self.issuers_of_file[..]) {
            return Err(format!(
                "{} is set, and there are [[issuers]] in the settings file: give all issuers there",
                one.setting()
            ));
        }
        let claims = [
            ("--jwt-issuer (FANTAIL_JWT_ISSUER)", &self.jwt_issuer),
            ("--jwt-audience (FANTAIL_JWT_AUDIENCE)", &self.jwt_audience),
        ];
        if let Some((setting, _)) = claims.iter().find(|(_, claim)| claim.is_some())
            && given.is_empty()
        {
            return Err(match self.issuers_of_file[..] {
                [] => format!("{setting} needs {A_KEY}"),
                _ => format!(
                    "{setting} is set, and there are [[issuers]] in the settings file: each of them \
                     has an issuer and an audience of its own"
                ),
            });
        }
        if self.mercure_tokens && self.issuers().is_empty() {
            return Err(format!("--mercure-tokens (FANTAIL_MERCURE_TOKENS) needs {A_KEY}"));
        }
        Ok(())
    }

    /// Whose tokens are believed; nobody's if there is no key.
    pub fn issuers(&self) -> Vec<Issuer> {
        let issuer = self.key_sources().into_iter().next().map(|keys| Issuer {
            name: self.jwt_issuer.clone(),
            audience: self.jwt_audience.clone(),
            keys,
            mercure: false,
            is_of_file: false,
        });
        let mercure = self.mercure_tokens;
        let issuers = issuer.into_iter().chain(self.issuers_of_file.iter().cloned());
        issuers.map(|issuer| Issuer { mercure, ..issuer }).collect()
    }

    /// The keys that flags and variables set, of which one may be.
    fn key_sources(&self) -> Vec<KeySource> {
        let sources = [
            self.jwt_secret.clone().map(KeySource::Secret),
            self.jwt_secret_file.clone().map(KeySource::SecretFile),
            self.jwt_public_key.clone().map(KeySource::PublicKey),
            self.jwks.clone().map(KeySource::Jwks),
        ];
        sources.into_iter().flatten().collect()
    }
}

/// What is missing where settings of tokens are there and no key is.
const A_KEY: &str =
    "a key to verify tokens with, such as --jwt-secret-file (FANTAIL_JWT_SECRET_FILE)";

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
