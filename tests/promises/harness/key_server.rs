//! An issuer's server of keys, as they are and as they should not be.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What it answers.
#[derive(Clone, Debug)]
pub enum Answers {
    /// A set of these keys.
    Keys(Vec<Value>),
    /// 500.
    Broken,
    /// Nothing.
    Silent,
    /// Bytes without an end.
    Endless,
    /// One byte a second.
    Slowly,
    /// Go to the same place.
    InCircles,
    /// Something that is no set.
    Nonsense,
    /// A head of 90 KB.
    LargeHead,
}

/// A server on a loopback port of its own, until it is dropped.
pub struct KeyServer {
    origin: String,
    answers: Arc<Mutex<Answers>>,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl KeyServer {
    pub async fn start(answers: Answers) -> KeyServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        KeyServer::serve(listener, origin, answers)
    }

    /// Speaks TLS, as `localhost`, with the certificate and the key in `<name>.pem` and `<name>.key`.
    pub async fn start_over_tls(dir: &Path, name: &str, answers: Answers) -> KeyServer {
        let file = |ending: &str| dir.join(format!("{name}.{ending}"));
        let certificate = CertificateDer::from_pem_file(file("pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(rustls::ALL_VERSIONS)
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate], key)
                .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let listener = TlsListener { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
        KeyServer::serve(listener, origin, answers)
    }

    fn serve<L>(listener: L, origin: String, answers: Answers) -> KeyServer
    where
        L: axum::serve::Listener<Addr = SocketAddr>,
    {
        let (answers, asked) = (Arc::new(Mutex::new(answers)), Arc::<AtomicUsize>::default());
        let (now, counted) = (answers.clone(), asked.clone());
        let router = Router::new().fallback(async move || {
            counted.fetch_add(1, Ordering::Relaxed);
            let answers = now.lock().unwrap().clone();
            answer(answers).await
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        KeyServer { origin, answers, asked, task }
    }

    pub fn url(&self) -> String {
        format!("{}/keys.json?v=1", self.origin)
    }

    pub fn set(&self, answers: Answers) {
        *self.answers.lock().unwrap() = answers;
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One client after the other is taken on; who does not trust it is gone.
struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TlsStream<TcpStream>, SocketAddr) {
        loop {
            let Ok((socket, address)) = self.listener.accept().await else { continue };
            if let Ok(socket) = self.acceptor.accept(socket).await {
                return (socket, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn answer(answers: Answers) -> Response {
    let endless = |wait: Duration, part: &'static [u8]| {
        let parts = futures_util::stream::unfold((), move |()| async move {
            tokio::time::sleep(wait).await;
            Some((Ok::<_, io::Error>(Bytes::from_static(part)), ()))
        });
        Body::from_stream(parts).into_response()
    };
    match answers {
        Answers::Keys(keys) => axum::Json(json!({ "keys": keys })).into_response(),
        Answers::Broken => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Answers::Silent => std::future::pending().await,
        Answers::Endless => endless(Duration::ZERO, &[b' '; 16 << 10]),
        Answers::Slowly => endless(Duration::from_secs(1), b" "),
        Answers::InCircles => Redirect::temporary("/keys.json?v=1").into_response(),
        Answers::Nonsense => "<html>moved</html>".into_response(),
        Answers::LargeHead => {
            let mut response = "{\"keys\":[]}".into_response();
            let value: axum::http::HeaderValue = "x".repeat(1_000).parse().unwrap();
            for n in 0..90 {
                let name = format!("x-{n}").parse::<axum::http::HeaderName>().unwrap();
                response.headers_mut().insert(name, value.clone());
            }
            response
        }
    }
}
