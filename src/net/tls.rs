//! [`Tls`]: TLS at the node, for nodes that browsers reach without a proxy.
//!
//! TLS 1.3 and 1.2, and over it HTTP/2 or HTTP/1.1 as the client prefers (ALPN; one that offers neither
//! is refused, RFC 7301 §3.2). [`files`] reads certificate and key, and [`socket`] is what the HTTP
//! server sees; [`stream`] carries what it need not see. When the files change, new connections get the new certificate; those that are open
//! keep the keys that they have agreed on.

pub(super) mod files;
pub(super) mod socket;
pub(super) mod stream;

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use self::files::{Certificate, Contents, Files};
use self::socket::TlsSocket;
use super::peer::SocketState;
use super::socket::TimeoutSocket;
use crate::telemetry::metric;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What waits encrypted for a slow peer, in bytes: as much as HTTP/1.1 writes ahead besides.
const ENCRYPTED_BYTES_MAX: usize = 32 << 10;

/// TLS with a certificate that follows its files.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    current: Arc<Current>,
    files: Arc<Files>,
    contents: Contents,
}

/// What new connections are shown.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Tls {
    /// With the certificates and the key in these files (PEM).
    ///
    /// # Errors
    /// One sentence that names the setting that is wrong.
    pub(crate) fn new(certificate: PathBuf, key: PathBuf) -> Result<Tls, String> {
        let files = Files { certificate, key };
        let contents = files.read().map_err(|wrong| wrong.to_string())?;
        let Certificate { certified, not_after } =
            files.certificate(&contents, SystemTime::now()).map_err(|wrong| wrong.to_string())?;
        metric::certificate_expires(not_after);
        let current = Arc::new(Current(RwLock::new(Arc::new(certified))));
        let config =
            config(current.clone()).map_err(|error| format!("cannot speak TLS: {error}"))?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Tls { acceptor, current, files: Arc::new(files), contents })
    }

    /// Speaks TLS with whoever came.
    ///
    /// # Errors
    /// When the peer does not, or wants what this node does not offer.
    pub(super) async fn accept(
        &self,
        socket: TimeoutSocket,
        state: Arc<SocketState>,
    ) -> io::Result<TlsSocket> {
        let accept = self.acceptor.accept_with(socket, |connection| {
            connection.set_buffer_limit(Some(ENCRYPTED_BYTES_MAX));
        });
        Ok(TlsSocket::new(accept.await?, state))
    }

    /// Looks at the files for ever, and takes what they hold when it has changed and is right.
    /// Otherwise the old certificate stays, and it is said once what is wrong.
    pub(crate) async fn follow_files(self) -> Infallible {
        let mut shown = self.contents;
        // What was found wrong, and whether it has been said. Two files do not change at one moment, so
        // that it may be right when it is looked at again.
        let mut wrong: Option<(Result<Contents, String>, bool)> = None;
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let files = self.files.clone();
            // A file can be as slow as the network that it is on.
            let read = tokio::task::spawn_blocking(move || files.read());
            let Ok(read) = read.await else { continue };
            let read = read.map_err(|wrong| wrong.to_string());
            if read.as_ref().is_ok_and(|read| *read == shown) {
                wrong = None;
                continue;
            }
            if wrong.as_ref().is_some_and(|(seen, is_said)| *is_said && *seen == read) {
                continue;
            }
            let taken = read.clone().and_then(|contents| {
                let taken = self.files.certificate(&contents, SystemTime::now());
                taken.map_err(|wrong| wrong.to_string())
            });
            match (taken, read) {
                (Ok(Certificate { certified, not_after }), Ok(contents)) => {
                    *self.current.0.write().unwrap_or_else(PoisonError::into_inner) =
                        Arc::new(certified);
                    (shown, wrong) = (contents, None);
                    metric::certificate_expires(not_after);
                    metric::certificate_looked_at("taken");
                    tracing::info!("the certificate has changed: new connections get the new one");
                }
                (Err(why), read) => {
                    let is_seen_again = wrong.is_some_and(|(seen, _)| seen == read);
                    if is_seen_again {
                        metric::certificate_looked_at("wrong");
                        tracing::error!(why, "a new certificate cannot be used, the old one stays");
                    }
                    wrong = Some((read, is_seen_again));
                }
                (Ok(_), Err(_)) => {}
            }
        }
    }
}

fn config(current: Arc<Current>) -> Result<ServerConfig, rustls::Error> {
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let mut config = builder
        .with_protocol_versions(&versions)?
        .with_no_client_auth()
        .with_cert_resolver(current);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A client that comes back brings its session with it, sealed with keys that change every six
    // hours: nothing is kept for clients that may never come back.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Ticketer::new()?;
    Ok(config)
}
