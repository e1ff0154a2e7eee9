//! TLS in tests: a certificate of the test's own, clients that trust it alone, and a way to run all
//! promises over TLS. With `TLS=1` in the environment every [`Node`](super::Node) speaks TLS alone, and
//! where it seems to listen a [`Front`] does, which passes every byte and every end on.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::process::TempDir;

/// Whether nodes are to speak TLS.
pub fn is_wanted() -> bool {
    std::env::var_os("TLS").is_some_and(|value| value == "1")
}

/// A certificate for `localhost` and 127.0.0.1 and its key, as files.
pub struct CertificateFiles {
    dir: TempDir,
}

/// The certificate of all nodes that have no other.
pub static CERTIFICATE: LazyLock<CertificateFiles> = LazyLock::new(CertificateFiles::make);

impl CertificateFiles {
    /// A new one, valid for two days.
    pub fn make() -> CertificateFiles {
        let files = CertificateFiles { dir: TempDir::new() };
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args(["-subj", "/CN=localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .args(["-days", "2"])
            .arg("-keyout")
            .arg(files.key())
            .arg("-out")
            .arg(files.certificate())
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("openssl is installed").success());
        files
    }

    /// One whose time is over as soon as it has begun: in a second.
    pub fn make_expired() -> CertificateFiles {
        let files = CertificateFiles::make();
        let signed = Command::new("openssl")
            .args(["x509", "-days", "0", "-in"])
            .arg(files.certificate())
            .arg("-signkey")
            .arg(files.key())
            .output()
            .unwrap();
        assert!(signed.status.success());
        std::fs::write(files.certificate(), signed.stdout).unwrap();
        files
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.0.join("certificate.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.dir.0.join("key.pem")
    }

    /// Puts those of another in its place, each at one moment.
    pub fn become_like(&self, other: &CertificateFiles) {
        for (from, to) in [(other.key(), self.key()), (other.certificate(), self.certificate())] {
            let beside = to.with_extension("new");
            std::fs::copy(from, &beside).unwrap();
            std::fs::rename(beside, to).unwrap();
        }
    }

    /// The settings of a node that has it.
    pub fn settings(&self) -> [(&'static str, String); 2] {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        [("FANTAIL_TLS_CERT", text(&self.certificate())), ("FANTAIL_TLS_KEY", text(&self.key()))]
    }

    /// A client that trusts this certificate and nothing else, and prefers these protocols.
    pub fn client(
        &self,
        protocols: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.certificate()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

/// Speaks TLS on a socket.
pub async fn over(socket: TcpStream, client: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    socket.set_nodelay(true)?;
    client.connect(ServerName::try_from("localhost").unwrap(), socket).await
}

/// A client that takes any certificate: what is tested through a [`Front`] is something else.
fn client_of_anybody() -> TlsConnector {
    let provider = rustls::crypto::ring::default_provider();
    let config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Where a node seems to listen: takes connections without TLS, and speaks it with the node.
pub struct Front {
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

/// What each direction may hold of a connection, in bytes; the kernel doubles it.
const BUFFER_BYTES: usize = 16 << 10;

impl Front {
    /// Listens at `address`, in front of a node that is there or will be soon.
    pub async fn listen(address: &str, node: SocketAddr) -> io::Result<Front> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address.parse().unwrap())?;
        let listener: TcpListener = socket.listen(4096)?;
        let address = listener.local_addr()?;
        static CLIENT: LazyLock<TlsConnector> = LazyLock::new(client_of_anybody);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(async move { pass_on(near, node, &CLIENT).await.ok() });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Front { address, accepting })
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Both directions until both have ended, or one has broken.
async fn pass_on(near: TcpStream, node: SocketAddr, client: &TlsConnector) -> io::Result<()> {
    near.set_nodelay(true)?;
    SockRef::from(&near).set_send_buffer_size(BUFFER_BYTES)?;
    // Whatever breaks here breaks there: until both have ended well, the end is a reset.
    SockRef::from(&near).set_linger(Some(Duration::ZERO))?;
    let far = TcpSocket::new_v4()?;
    far.set_recv_buffer_size(BUFFER_BYTES as u32)?;
    let far = far.connect(node).await?;
    SockRef::from(&far).set_linger(Some(Duration::ZERO))?;
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = tokio::io::split(over(far, client).await?);
    let up = async {
        let mut part = vec![0; BUFFER_BYTES];
        loop {
            match near_read.read(&mut part).await? {
                0 => return far_write.shutdown().await,
                count => {
                    far_write.write_all(&part[..count]).await?;
                    far_write.flush().await?;
                }
            }
        }
    };
    let down = async {
        let mut part = vec![0; BUFFER_BYTES];
        loop {
            match far_read.read(&mut part).await {
                // A node that gives a connection up says nothing more.
                Ok(0) => return near_write.shutdown().await,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return near_write.shutdown().await;
                }
                Err(error) => return Err(error),
                Ok(count) => near_write.write_all(&part[..count]).await?,
            }
        }
    };
    tokio::try_join!(up, down)?;
    // Both ends were said; what is still on its way arrives.
    let far = far_read.unsplit(far_write);
    SockRef::from(far.get_ref().0).set_linger(None)?;
    SockRef::from(near_read.as_ref()).set_linger(None)
}
