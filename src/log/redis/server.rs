//! [`Server`]: where a Redis is, and what this node shows there to be let in.
//!
//! A password, a certificate and whom to trust may stand in files. They are read for every connection
//! that is made, so that what is renewed in them is shown from the next one on: certificates of some
//! hours and rotated passwords need no restart. A connection that is there stays; Redis asks once.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind, ProtocolVersion,
    RedisConnectionInfo, RedisError, TlsCertificates,
};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use super::address::{self, Address, Place};
use crate::config::RedisFiles;

/// The largest file that is read: the certificates that a whole system trusts are a quarter of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a Redis is, and the files that say what to show there.
#[derive(Debug)]
pub(super) struct Server {
    /// Without what stands in files.
    info: ConnectionInfo,
    files: RedisFiles,
    password_file: Option<PasswordFile>,
    /// Host and port, as told to people.
    place: String,
}

/// A file with a password, and the setting that names it.
#[derive(Debug, Clone)]
struct PasswordFile {
    setting: &'static str,
    file: PathBuf,
}

/// What stands in the files.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Shown {
    password: Option<String>,
    ca: Option<Vec<u8>>,
    /// Certificate and key.
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Server {
    /// The server of an address that names one.
    pub(super) fn new(info: ConnectionInfo, files: &RedisFiles) -> Server {
        // RESP3 tells of broken connections and carries announcements.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let info = info.set_redis_settings(settings);
        let place = info.addr().to_string();
        let password_file = files.redis_password_file.clone().map(|file| PasswordFile {
            setting: "--redis-password-file (FANTAIL_REDIS_PASSWORD_FILE)",
            file,
        });
        Server { info, files: files.clone(), password_file, place }
    }

    /// A sentinel of the master at `info`: reached as that is, with or without TLS, by a user and a
    /// password of its own.
    pub(super) fn of_sentinels(info: &ConnectionInfo, files: &RedisFiles) -> Server {
        let mut settings = RedisConnectionInfo::default();
        if let Some(user) = &files.redis_sentinel_user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &files.redis_sentinel_password {
            settings = settings.set_password(password.reveal());
        }
        let mut server = Server::new(info.clone().set_redis_settings(settings), files);
        server.password_file =
            files.redis_sentinel_password_file.clone().map(|file| PasswordFile {
                setting: "--redis-sentinel-password-file (FANTAIL_REDIS_SENTINEL_PASSWORD_FILE)",
                file,
            });
        server
    }

    /// Another one, to which the same is shown.
    pub(super) fn at(&self, place: &Place, told: String) -> Server {
        let (host, port) = (place.host.clone(), place.port);
        let addr = match self.info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        Server {
            info: self.info.clone().set_addr(addr),
            files: self.files.clone(),
            password_file: self.password_file.clone(),
            place: told,
        }
    }

    /// Host and port.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Reads the files.
    ///
    /// # Errors
    /// One sentence that names the setting whose file cannot be used, and says why. It has nothing
    /// of what stands in the file.
    pub(super) fn shown(&self) -> Result<Shown, String> {
        let RedisFiles { redis_ca, redis_cert, redis_key, .. } = &self.files;
        let password = self.password_file.as_ref().map(password).transpose()?;
        let ca = redis_ca.as_deref().map(ca).transpose()?;
        let identity = match (redis_cert, redis_key) {
            (Some(certificate), Some(key)) => Some(identity(certificate, key)?),
            _ => None,
        };
        Ok(Shown { password, ca, identity })
    }

    /// How to connect and show this.
    pub(super) fn info_with(&self, shown: &Shown) -> Result<ConnectionInfo, RedisError> {
        let Shown { password, ca, identity } = shown;
        let mut info = self.info.clone();
        if let Some(password) = password {
            let settings = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(settings);
        }
        if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Ok(info);
        }
        let client_tls = identity
            .clone()
            .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        let certificates = TlsCertificates { client_tls, root_cert: ca.clone() };
        Ok(Client::build_with_tls(info, certificates)?.get_connection_info().clone())
    }

    /// How to connect now.
    pub(super) fn info(&self) -> Result<ConnectionInfo, RedisError> {
        self.info_with(&self.shown().map_err(unusable)?)
    }
}

/// The error of a connection that cannot be tried; its detail is the whole sentence.
pub(super) fn unusable(sentence: String) -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, "settings of Redis", sentence))
}

/// Checks that the files can be used now.
///
/// # Errors
/// One sentence that names the setting whose file cannot be used, and says why.
pub fn check_files(url: &str, files: &RedisFiles) -> Result<(), String> {
    let (info, has_sentinels) = match address::read(url)? {
        Address::One(info) => (info, false),
        Address::Sentinels(sentinels) => (sentinels.master, true),
    };
    if files.redis_password_file.is_some() && info.redis_settings().password().is_some() {
        return Err("--redis-password-file (FANTAIL_REDIS_PASSWORD_FILE) and --redis-url \
                    (FANTAIL_REDIS_URL) both have a password: leave it in the file"
            .to_owned());
    }
    if has_sentinels {
        Server::of_sentinels(&info, files).shown()?;
    }
    Server::new(info, files).shown().map(drop)
}

/// What TLS computes with.
pub(super) fn crypto() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn password(from: &PasswordFile) -> Result<String, String> {
    let PasswordFile { setting, file } = from;
    let wrong = |what: &str| format!("{setting} is {file:?}: {what}");
    let text = String::from_utf8(read(file).map_err(|error| wrong(&error))?);
    let mut text = text.map_err(|_| wrong("it is not UTF-8"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() { Err(wrong("it has no password")) } else { Ok(text) }
}

fn ca(file: &Path) -> Result<Vec<u8>, String> {
    let wrong = |what: &str| format!("--redis-ca (FANTAIL_REDIS_CA) is {file:?}: {what}");
    let pem = read(file).map_err(|error| wrong(&error))?;
    let mut trusted = RootCertStore::empty();
    for certificate in certificates(&pem).map_err(wrong)? {
        let added = trusted.add(certificate);
        added.map_err(|_| wrong("a certificate in it cannot be one of a CA"))?;
    }
    // As a connection does it.
    let verifier = WebPkiServerVerifier::builder_with_provider(trusted.into(), crypto().into());
    verifier.build().map_err(|_| wrong("its certificates cannot be used"))?;
    Ok(pem)
}

fn identity(certificate_file: &Path, key_file: &Path) -> Result<(Vec<u8>, Vec<u8>), String> {
    let wrong_certificate =
        |what: &str| format!("--redis-cert (FANTAIL_REDIS_CERT) is {certificate_file:?}: {what}");
    let wrong_key = |what: &str| format!("--redis-key (FANTAIL_REDIS_KEY) is {key_file:?}: {what}");
    let certificate = read(certificate_file).map_err(|error| wrong_certificate(&error))?;
    let chain = certificates(&certificate).map_err(wrong_certificate)?;
    let key = read(key_file).map_err(|error| wrong_key(&error))?;
    let read_key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
        wrong_key("it has no private key in PEM that needs no passphrase (BEGIN PRIVATE KEY)")
    })?;
    match CertifiedKey::from_der(chain, read_key, &crypto()) {
        Ok(_) => Ok((certificate, key)),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(wrong_key(&format!("it is not the key of the certificate in {certificate_file:?}")))
        }
        Err(rustls::Error::InvalidCertificate(_)) => {
            Err(wrong_certificate("a certificate in it cannot be read"))
        }
        Err(_) => Err(wrong_key("keys of this kind cannot be used")),
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err("it has no certificate in PEM (BEGIN CERTIFICATE)"),
        Err(_) => Err("it is not PEM"),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error| format!("it cannot be read: {error}");
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(cannot)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}
