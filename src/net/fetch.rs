//! [`KeysAt`]: the keys of an issuer, fetched from its HTTP server.
//!
//! Whoever answers there may be slow, broken or somebody else: everything is bounded, in bytes and in
//! time. There is a connection for each question, since they are minutes apart. Nobody is followed to
//! another place: who was asked answers, or nobody does.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::uri::Scheme;
use axum::http::{HeaderMap, Request, Uri, header};
use http_body::Body as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::access::jwks::{KeyServer, Published};

/// The largest set of keys, in bytes: many hundreds of them.
const KEYS_BYTES_MAX: usize = 256 << 10;

/// The largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// How long an issuer may take to answer, from the question for its address to the last byte.
const KEYS_TIMEOUT: Duration = Duration::from_secs(5);

/// An issuer that wants its keys to be fetched more often is not obeyed.
const AGE_MIN: Duration = Duration::from_secs(60);

/// The keys that an issuer publishes at a URL.
pub(crate) struct KeysAt(String);

impl KeysAt {
    /// `url` begins with `http://` or `https://`.
    pub(crate) fn new(url: &str) -> KeysAt {
        KeysAt(url.to_owned())
    }
}

#[async_trait]
impl KeyServer for KeysAt {
    fn place(&self) -> String {
        // What follows may be meant for nobody else.
        let (scheme, rest) = self.0.split_once("://").unwrap_or_default();
        format!("{scheme}://{}", rest.split(['/', '?']).next().unwrap_or_default())
    }

    async fn fetch(&self) -> Result<Published, String> {
        let fetched = tokio::time::timeout(KEYS_TIMEOUT, fetch(&self.0)).await;
        fetched.unwrap_or_else(|_| Err(format!("no whole answer within {KEYS_TIMEOUT:?}")))
    }
}

/// # Errors
/// Why there is no answer, in words that have nothing of the URL or of what was answered.
async fn fetch(url: &str) -> Result<Published, String> {
    let uri: Uri = url.parse().map_err(|_| "it is no URL".to_owned())?;
    let host = uri.host().ok_or("it names no host")?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let with_tls = uri.scheme() == Some(&Scheme::HTTPS);
    let port = uri.port_u16().unwrap_or(if with_tls { 443 } else { 80 });
    let socket = TcpStream::connect((host, port)).await;
    let socket = socket.map_err(|error| format!("cannot connect: {error}"))?;
    if !with_tls {
        return ask(socket, &uri).await;
    }
    let name =
        ServerName::try_from(host.to_owned()).map_err(|_| "its host can have no certificate")?;
    // It reads files, which may have changed since.
    let trusting = tokio::task::spawn_blocking(trusting_the_system).await;
    let trusting = trusting.map_err(|_| "cannot read whom the system trusts")??;
    let socket = TlsConnector::from(Arc::new(trusting)).connect(name, socket).await;
    ask(socket.map_err(|error| format!("cannot connect over TLS: {error}"))?, &uri).await
}

/// TLS to whoever those vouch for whom the system trusts, or those in the file or directory that
/// `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
fn trusting_the_system() -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(format!("there is no certificate of anybody whom the system trusts{why}"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

async fn ask<S>(socket: S, uri: &Uri) -> Result<Published, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| format!("no answer that can be understood: {error}");
    let mut client = http1::Builder::new();
    client.max_buf_size(HEAD_BYTES_MAX);
    let handshake = client.handshake(TokioIo::new(socket)).await;
    let (mut sender, connection) = handshake.map_err(failed)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::USER_AGENT, concat!("fantail/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(String::new())
        .map_err(|_| "it is no URL that can be asked for".to_owned())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        if status.is_redirection() {
            return Err(format!("it answered {status}, and nobody is followed elsewhere"));
        }
        if status != 200 {
            return Err(format!("it answered {status}"));
        }
        let fresh_for = max_age(response.headers()).map(|age| age.max(AGE_MIN));
        let mut body = response.into_body();
        let mut set = Vec::new();
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            let Ok(data) = frame.map_err(failed)?.into_data() else { continue };
            if set.len() + data.len() > KEYS_BYTES_MAX {
                return Err(format!("the answer has more than {KEYS_BYTES_MAX} bytes"));
            }
            set.extend_from_slice(&data);
        }
        Ok(Published { set, fresh_for })
    };
    tokio::pin!(answer);
    let ended = tokio::select! {
        answer = &mut answer => return answer,
        ended = connection => ended,
    };
    // Whatever had come by then is there.
    match ended {
        Ok(()) => answer.await,
        Err(error) => Err(failed(error)),
    }
}

/// How long an answer may be used, if that is told (RFC 9111 §5.2.2.1).
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values =
        headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let seconds = values.flat_map(|value| value.split(',')).find_map(|directive| {
        let (name, seconds) = directive.split_once('=')?;
        let seconds = name.trim().eq_ignore_ascii_case("max-age").then_some(seconds)?;
        seconds.trim().trim_matches('"').parse().ok()
    });
    seconds.map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn how_long_keys_may_be_used_is_read_from_what_caches_are_told() {
        for (values, seconds) in [
            (&["max-age=300"][..], Some(300)),
            (&["public, Max-Age=60, must-revalidate"], Some(60)),
            (&["no-transform", "s-maxage=1, max-age=\"7\""], Some(7)),
            (&["no-store"], None),
            (&["max-age=soon"], None),
            (&["max-age=-1"], None),
            (&["max-age"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CACHE_CONTROL, HeaderValue::from_static(value));
            }
            assert_eq!(max_age(&headers), seconds.map(Duration::from_secs), "{values:?}");
        }
    }

    #[test]
    fn of_a_url_its_host_is_told_and_no_more() {
        for (url, place) in [
            ("https://issuer.example/keys?token=hunter2", "https://issuer.example"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("https://[::1]:1?hunter2", "https://[::1]:1"),
        ] {
            assert_eq!(KeysAt::new(url).place(), place);
        }
    }
}
