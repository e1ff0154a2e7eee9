//! [`RedisFiles`]: what is shown to Redis and does not stand in its URL.

use std::path::PathBuf;

/// Files that a connection to Redis needs. They are read anew for each one, so that what is renewed
/// in them works without a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct RedisFiles {
    /// File with the password for Redis, instead of one in the URL; the user stands in the URL, and a newline at the end is no part of it
    #[arg(long, env = "FANTAIL_REDIS_PASSWORD_FILE", value_name = "FILE")]
    pub redis_password_file: Option<PathBuf>,

    /// PEM file with the certificates of those who may sign that of Redis [default: those that the system trusts]; with rediss:// alone
    #[arg(long, env = "FANTAIL_REDIS_CA", value_name = "FILE")]
    pub redis_ca: Option<PathBuf>,

    /// PEM file with the certificate to show to Redis, and those between it and its CA; with rediss:// alone
    #[arg(long, env = "FANTAIL_REDIS_CERT", value_name = "FILE")]
    pub redis_cert: Option<PathBuf>,

    /// PEM file with the private key of that certificate
    #[arg(long, env = "FANTAIL_REDIS_KEY", value_name = "FILE")]
    pub redis_key: Option<PathBuf>,
}

impl RedisFiles {
    /// How they must relate to each other and to the URL.
    ///
    /// # Errors
    /// One line that names the settings and what would be right.
    pub(super) fn check_relations(&self, url: Option<&str>) -> Result<(), String> {
        let RedisFiles { redis_password_file, redis_ca, redis_cert, redis_key } = self;
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
        let has_tls = ["rediss://", "valkeys://"].iter().any(|scheme| url.starts_with(scheme));
        if let Some((setting, file)) = given.find(|(setting, _)| *setting != password_file)
            && !has_tls
        {
            return Err(format!(
                "{setting} is {file:?}: it needs a --redis-url (FANTAIL_REDIS_URL) that begins with \
                 rediss://, which has TLS"
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
}
