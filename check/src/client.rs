//! [`Client`]: HTTP requests and streams, as a browser or an application server makes them.
//!
//! HTTP/1.1, and over TLS HTTP/2 where the other side has it. Every stream has a connection of its
//! own, so that what happens to one connection happens to one subscriber.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

/// How long a connection may take until it stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer that is read, in bytes: a page of history with large events.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// An answer that was read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// Sends requests.
#[derive(Debug, Clone)]
pub(super) struct Client {
    requests: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    streams: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    headers: HeaderMap,
    answer_timeout: Duration,
}

impl Client {
    /// A client that sends these headers with everything; `insecure` believes every certificate.
    ///
    /// # Errors
    /// One line: a header that is none, or no trusted certificates can be found.
    pub(super) fn new(
        headers: &[(String, String)],
        answer_timeout: Duration,
        insecure: bool,
    ) -> Result<Client, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let wrong = |_| format!("{name:?} with this value is no header");
            let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is no header"))?;
            let value = HeaderValue::from_str(value).map_err(wrong)?;
            map.append(name, value);
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.enforce_http(false);
        let provider = rustls::crypto::ring::default_provider();
        let builder = hyper_rustls::HttpsConnectorBuilder::new();
        let builder = if insecure {
            let tls = rustls::ClientConfig::builder_with_provider(provider.clone().into())
                .with_safe_default_protocol_versions()
                .map_err(|error| format!("cannot speak TLS: {error}"))?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                .with_no_client_auth();
            builder.with_tls_config(tls)
        } else {
            builder
                .with_provider_and_native_roots(provider)
                .map_err(|error| format!("cannot read the system's certificates: {error}"))?
        };
        let connector = builder.https_or_http().enable_all_versions().wrap_connector(connector);
        let mut requests = Pool::builder(TokioExecutor::new());
        // What is sent twice must be sent by a publisher that knows it.
        requests.retry_canceled_requests(false).pool_timer(TokioTimer::new());
        let mut streams = Pool::builder(TokioExecutor::new());
        streams.retry_canceled_requests(false).pool_max_idle_per_host(0);
        Ok(Client {
            requests: requests.build(connector.clone()),
            streams: streams.build(connector),
            headers: map,
            answer_timeout,
        })
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// One line; whether the request had any effect is not known then.
    pub(super) async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: &[(&'static str, &str)],
        body: String,
    ) -> Result<Answer, String> {
        let answer = async {
            let request = self.request(method, url, headers, body)?;
            let response =
                self.requests.request(request).await.map_err(|error| with_causes(&error))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
                Some(_) => format!("an answer of more than {ANSWER_BYTES_MAX} bytes"),
                None => with_causes(&*error),
            })?;
            Ok(Answer { status, body: body.to_bytes() })
        };
        let within = tokio::time::timeout(self.answer_timeout, answer).await;
        within.unwrap_or_else(|_| Err(format!("no answer within {:?}", self.answer_timeout)))
    }

    /// Asks for a stream as an `EventSource` does; the answer's head.
    ///
    /// # Errors
    /// One line.
    pub(super) async fn stream(
        &self,
        url: &str,
        last_event_id: &str,
    ) -> Result<Response<Incoming>, String> {
        let mut headers = vec![("accept", "text/event-stream"), ("cache-control", "no-cache")];
        if !last_event_id.is_empty() {
            headers.push(("last-event-id", last_event_id));
        }
        let request = self.request(Method::GET, url, &headers, String::new())?;
        let response = tokio::time::timeout(self.answer_timeout, self.streams.request(request));
        match response.await {
            Ok(response) => response.map_err(|error| with_causes(&error)),
            Err(_) => Err(format!("no answer within {:?}", self.answer_timeout)),
        }
    }

    fn request(
        &self,
        method: Method,
        url: &str,
        headers: &[(&'static str, &str)],
        body: String,
    ) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder().method(method).uri(url);
        if let Some(map) = request.headers_mut() {
            map.extend(self.headers.clone());
        }
        for (name, value) in headers {
            let value = HeaderValue::from_bytes(value.as_bytes());
            request = request.header(*name, value.map_err(|_| format!("{name} cannot be sent"))?);
        }
        request.body(Full::new(body.into())).map_err(|error| error.to_string())
    }
}

/// An error with its causes, on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Believes every certificate, whoever signed it; that its owner holds the key is still checked.
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
