//! [`RedisFiles`]: what is shown to Redis and does not stand in its URL.

use std::path::PathBuf;

use super::identity::{self, Secret};
use super::redis_url::{SENTINEL_SCHEMES, TLS_SCHEMES};

/// What a connection to Redis, or to its sentinels, needs besides the URL. Files are read anew for each one, so that what is renewed
/// in them works without a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct RedisFiles {
    /// File with the password for Redis, instead of one in the URL; the user stands in the URL, and a newline at the end is no part of it
    #[arg(long, env = "FANTAIL_REDIS_PASSWORD_FILE", value_name = "FILE")]
    pub redis_password_file: Option<PathBuf>,

    /// PEM file with the certificates of those who may sign that of Redis [default: those that the system trusts]; with rediss:// and redis-sentinels:// alone
    #[arg(long, env = "FANTAIL_REDIS_CA", value_name = "FILE")]
    pub redis_ca: Option<PathBuf>,

    /// PEM file with the certificate to show to Redis, and those between it and its CA; with rediss:// and redis-sentinels:// alone
    #[arg(long, env = "FANTAIL_REDIS_CERT", value_name = "FILE")]
    pub redis_cert: Option<PathBuf>,

    /// PEM file with the private key of that certificate
    #[arg(long, env = "FANTAIL_REDIS_KEY", value_name = "FILE")]
    pub redis_key: Option<PathBuf>,

    /// User to show to sentinels; that of the URL is for the master [default: the one without a name]
    #[arg(long, env = "FANTAIL_REDIS_SENTINEL_USER", value_parser = identity::claim)]
    pub redis_sentinel_user: Option<String>,

    /// Password for sentinels; that of the URL is for the master. A flag is seen by everybody on the machine: use the variable or the file [default: none]
    #[arg(long, env = "FANTAIL_REDIS_SENTINEL_PASSWORD", hide_env_values = true, value_parser = sentinel_password)]
    pub redis_sentinel_password: Option<Secret>,

    /// File with the password for sentinels; a newline at the end is no part of it
    #[arg(long, env = "FANTAIL_REDIS_SENTINEL_PASSWORD_FILE", value_name = "FILE")]
    pub redis_sentinel_password_file: Option<PathBuf>,
}

fn sentinel_password(text: &str) -> Result<Secret, String> {
    if text.is_empty() {
        return Err("must be a password: without one leave it out".to_owned());
    }
    Ok(Secret::of(text))
}

impl RedisFiles {
    /// How they must relate to each other and to the URL.
    ///
    /// # Errors
    /// One line that names the settings and what would be right.
    pub(super) fn check_relations(&self, url: Option<&str>) -> Result<(), String> {
        self.check_sentinels(url)?;
        let RedisFiles { redis_password_file, redis_ca, redis_cert, redis_key, .. } = self;
        let for_tls = [
            ("--redis-ca (FANTAIL_REDIS_CA)", redis_ca),
            ("--redis-cert (FANTAIL_REDIS_CERT)", redis_cert),
            ("--redis-key (FANTAIL_REDIS_KEY)", redis_key),
        ];
        let password_file = "--redis-password-file (FANTAIL_REDIS_PASSWORD_FILE)";
        let mut given = for_tls
            .into_iter()
            .chain([(password_file, redis_password_file)])
            .filter_map(|(setting, file)| file.as_ref().map(|file| (setting, file)));
        let Some(url) = url else {
            return match given.next() {
                None => Ok(()),
                Some((setting, file)) => Err(format!(
                    "{setting} is {file:?}: it needs --redis-url (FANTAIL_REDIS_URL), the embedded \
                     log connects to nobody"
                )),
            };
        };
        let has_tls = TLS_SCHEMES.iter().any(|scheme| url.starts_with(scheme));
        if let Some((setting, file)) = given.find(|(setting, _)| *setting != password_file)
            && !has_tls
        {
            return Err(format!(
                "{setting} is {file:?}: it needs a --redis-url (FANTAIL_REDIS_URL) that begins with \
                 rediss:// or redis-sentinels://, which have TLS"
            ));
        }
        match (redis_cert, redis_key) {
            (Some(_), None) => Err("--redis-cert (FANTAIL_REDIS_CERT) needs --redis-key \
                                    (FANTAIL_REDIS_KEY), the private key of the certificate"
                .to_owned()),
            (None, Some(_)) => Err("--redis-key (FANTAIL_REDIS_KEY) needs --redis-cert \
                                    (FANTAIL_REDIS_CERT), the certificate that it is the key of"
                .to_owned()),
            _ => Ok(()),
        }
    }

    fn check_sentinels(&self, url: Option<&str>) -> Result<(), String> {
        let password = "--redis-sentinel-password (FANTAIL_REDIS_SENTINEL_PASSWORD)";
        let file = "--redis-sentinel-password-file (FANTAIL_REDIS_SENTINEL_PASSWORD_FILE)";
        if self.redis_sentinel_password.is_some() && self.redis_sentinel_password_file.is_some() {
            return Err(format!("{password} and {file} are both given: one password is enough"));
        }
        let has_password =
            self.redis_sentinel_password.is_some() || self.redis_sentinel_password_file.is_some();
        if self.redis_sentinel_user.is_some() && !has_password {
            return Err(format!(
                "--redis-sentinel-user (FANTAIL_REDIS_SENTINEL_USER) needs a password: {file}"
            ));
        }
        let given = [
            (
                "--redis-sentinel-user (FANTAIL_REDIS_SENTINEL_USER)",
                self.redis_sentinel_user.is_some(),
            ),
            (password, self.redis_sentinel_password.is_some()),
            (file, self.redis_sentinel_password_file.is_some()),
        ];
        let has_sentinels =
            url.is_some_and(|url| SENTINEL_SCHEMES.iter().any(|scheme| url.starts_with(scheme)));
        match given.into_iter().find(|(_, is_given)| *is_given) {
            Some((setting, _)) if !has_sentinels => Err(format!(
                "{setting} needs a --redis-url (FANTAIL_REDIS_URL) that begins with \
                 redis-sentinel:// or redis-sentinels://: others have no sentinels"
            )),
            _ => Ok(()),
        }
    }
}
