//! The files of a certificate and its key: read, and checked before anybody is shown them.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore};

/// Far more than any chain of certificates has, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where certificate and key are.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// What is in them.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// A certificate that can be shown.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) certified: CertifiedKey,
    /// Until when it is valid, in seconds since 1970; none if it has no end that can be told.
    pub(super) not_after: Option<u64>,
}

/// What is wrong with a file; its text is a sentence that names the setting.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WrongFile {
    is_key: bool,
    path: PathBuf,
    what: String,
}

impl fmt::Display for WrongFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let setting = if self.is_key {
            "--tls-key (FANTAIL_TLS_KEY)"
        } else {
            "--tls-cert (FANTAIL_TLS_CERT)"
        };
        write!(formatter, "{setting} is {:?}: {}", self.path, self.what)
    }
}

impl Files {
    /// Reads both.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(super) fn read(&self) -> Result<Contents, WrongFile> {
        let certificate = read(&self.certificate).map_err(|what| self.wrong(false, what))?;
        let key = read(&self.key).map_err(|what| self.wrong(true, what))?;
        Ok(Contents { certificate, key })
    }

    /// The certificate that they hold, as it can be shown `now`.
    ///
    /// # Errors
    /// When there is none, the key is another one's, or it is not valid now.
    pub(super) fn certificate(
        &self,
        contents: &Contents,
        now: SystemTime,
    ) -> Result<Certificate, WrongFile> {
        let chain: Result<Vec<CertificateDer<'static>>, _> =
            CertificateDer::pem_slice_iter(&contents.certificate).collect();
        let chain = chain.map_err(|error| self.wrong(false, format!("it is no PEM: {error}")))?;
        let Some(first) = chain.first().cloned() else {
            return Err(self.wrong(false, "it has no certificate (PEM)"));
        };
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|_| {
            self.wrong(true, "it has no private key that can be read (PEM, without a passphrase)")
        })?;
        let certified = CertifiedKey::from_der(chain, key, &default_provider());
        let certified = certified.map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let certificate = &self.certificate;
                self.wrong(
                    true,
                    format!("the key is not that of the certificate in {certificate:?}"),
                )
            }
            Error::InvalidCertificate(_) => {
                self.wrong(false, "its first certificate cannot be read")
            }
            other => self.wrong(true, format!("the key cannot be used: {other}")),
        })?;
        let not_after = validity(&first, now).map_err(|what| self.wrong(false, what))?;
        Ok(Certificate { certified, not_after })
    }

    fn wrong(&self, is_key: bool, what: impl Into<String>) -> WrongFile {
        let path = if is_key { &self.key } else { &self.certificate };
        WrongFile { is_key, path: path.clone(), what: what.into() }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error: std::io::Error| format!("cannot read it: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err("it is too large for a certificate or a key".to_owned());
    }
    Ok(bytes)
}

/// Whether a certificate is valid at that time, and until when.
///
/// # Errors
/// When it is not: what to say.
fn validity(certificate: &CertificateDer<'_>, now: SystemTime) -> Result<Option<u64>, String> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    match time_error(certificate, UnixTime::since_unix_epoch(now)) {
        Some(CertificateError::ExpiredContext { not_after, .. }) => {
            return Err(format!("the certificate has expired, at {}", date(not_after.as_secs())));
        }
        Some(CertificateError::NotValidYetContext { not_before, .. }) => {
            let from = date(not_before.as_secs());
            return Err(format!("the certificate is not valid before {from}; is the clock right?"));
        }
        // It ends before it begins.
        Some(CertificateError::Expired) => return Err("the certificate is never valid".to_owned()),
        _ => {}
    }
    // When it will have expired, it is said since when.
    let end_of_time = UnixTime::since_unix_epoch(Duration::from_secs(u64::from(u32::MAX) << 8));
    match time_error(certificate, end_of_time) {
        Some(CertificateError::ExpiredContext { not_after, .. }) => Ok(Some(not_after.as_secs())),
        _ => Ok(None),
    }
}

/// What is wrong with the validity of a certificate at a time. That nobody has signed it is no matter
/// here; time is looked at first.
fn time_error(certificate: &CertificateDer<'_>, at: UnixTime) -> Option<CertificateError> {
    let algorithms = default_provider().signature_verification_algorithms.all;
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let nobody = RootCertStore::empty();
    match verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, &[], at, algorithms) {
        Err(Error::InvalidCertificate(error)) => Some(error),
        _ => None,
    }
}

fn date(seconds: u64) -> String {
    let timestamp =
        i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    timestamp.map_or_else(|| "a time that cannot be told".to_owned(), |time| time.to_string())
}
