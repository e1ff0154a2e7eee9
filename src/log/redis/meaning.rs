//! What an error of Redis, or of the way there, means to whoever runs this node, and how it is told.
//!
//! Nothing that is told has a secret in it: a server that does not know a command repeats its
//! arguments, and one of those is the password.

use std::error::Error;
use std::sync::Arc;

use redis::{ErrorKind, RedisError};
use rustls::{AlertDescription, CertificateError};

/// What it means, as a part of a sentence.
pub(super) fn meaning(error: &RedisError) -> &'static str {
    if let Some(error) = of_tls(error) {
        return meaning_in_tls(error);
    }
    match error.code() {
        Some("WRONGPASS" | "NOAUTH") => WRONG_PASSWORD,
        _ if is_denied(error) => "the user of FANTAIL_REDIS_URL lacks rights in Redis",
        _ if error.kind() == ErrorKind::AuthenticationFailed => WRONG_PASSWORD,
        Some("LOADING") => "Redis is loading its data",
        Some(_) => "Redis refuses",
        None if error.kind() == ErrorKind::InvalidClientConfig => "Redis cannot be asked",
        None if error.is_connection_refusal() => "nothing listens where Redis should be",
        None if error.is_timeout() => "Redis does not answer",
        None if error.kind() == ErrorKind::Parse => "no Redis answers where Redis should be",
        None => "Redis cannot be reached",
    }
}

/// What it means where a sentinel was asked, said of the sentinel.
pub(super) fn meaning_of_sentinel(error: &RedisError) -> String {
    if of_tls(error).is_some() {
        return format!("cannot be asked: {} ({})", meaning(error), told(error));
    }
    let is_about_passwords = matches!(error.code(), Some("WRONGPASS" | "NOAUTH"))
        || error.kind() == ErrorKind::AuthenticationFailed;
    if is_denied(error) {
        format!("lets its user not do what is needed: {}", told(error))
    } else if is_about_passwords {
        "refuses the user or the password for sentinels (FANTAIL_REDIS_SENTINEL_USER, \
         FANTAIL_REDIS_SENTINEL_PASSWORD_FILE)"
            .to_owned()
    } else if error.is_connection_refusal() {
        "is not there: nothing listens at its address".to_owned()
    } else if error.is_timeout() {
        "does not answer".to_owned()
    } else if error.to_string().contains("unknown command") {
        "is no sentinel".to_owned()
    } else {
        format!("cannot be asked: {}", told(error))
    }
}

const WRONG_PASSWORD: &str = "Redis refuses the user or the password of FANTAIL_REDIS_URL (or of \
                              FANTAIL_REDIS_PASSWORD_FILE)";

fn meaning_in_tls(error: &rustls::Error) -> &'static str {
    use AlertDescription as Alert;
    match error {
        rustls::Error::InvalidCertificate(why) => match why {
            // The other is that of a CA of the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the certificate of Redis is signed by nobody who is trusted here (FANTAIL_REDIS_CA, \
                 or those that the system trusts)"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the certificate of Redis has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the certificate of Redis is not valid yet"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the certificate of Redis is not for the host of FANTAIL_REDIS_URL"
            }
            _ => "the certificate of Redis cannot be accepted",
        },
        rustls::Error::AlertReceived(Alert::CertificateRequired) => {
            "Redis wants a certificate of this node (FANTAIL_REDIS_CERT, FANTAIL_REDIS_KEY)"
        }
        rustls::Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError,
        ) => "Redis does not accept the certificate of FANTAIL_REDIS_CERT",
        rustls::Error::InvalidMessage(_) => {
            "what answers where Redis should be speaks no TLS (redis:// goes without)"
        }
        _ => "TLS with Redis cannot be agreed on",
    }
}

/// What went wrong in TLS, if that is what went wrong.
fn of_tls(error: &RedisError) -> Option<&rustls::Error> {
    let source = error.source()?;
    let source = match source.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        Some(shared) => &**shared as &(dyn Error + 'static),
        None => source,
    };
    let inner = source.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    inner.map_or(source.downcast_ref(), |inner| inner.downcast_ref())
}

/// Whether the user lacks a right.
pub(super) fn is_denied(error: &RedisError) -> bool {
    error.code() == Some("NOPERM") || error.to_string().contains("NOPERM")
}

/// Whether somebody is there who will not answer otherwise soon, or nobody can be asked until a file
/// is mended.
pub(super) fn is_refusal(error: &RedisError) -> bool {
    let passes = ["LOADING", "MASTERDOWN", "BUSY", "TRYAGAIN", "CLUSTERDOWN"];
    [ErrorKind::AuthenticationFailed, ErrorKind::InvalidClientConfig].contains(&error.kind())
        || of_tls(error).is_some()
        || error.code().is_some_and(|code| !passes.contains(&code))
}

/// What is wrong with a connection that was made or tried, on one line.
pub(super) fn told(error: &RedisError) -> String {
    match (error.kind(), error.detail()) {
        (ErrorKind::Parse, _) => "what answers there does not speak as Redis does".to_owned(),
        (ErrorKind::InvalidClientConfig, Some(sentence)) => one_line(sentence),
        _ => one_line(&error.to_string()),
    }
}

/// Words of a library or of a server, which may have several lines, without the arguments of a
/// command that it does not know.
pub(super) fn one_line(text: &str) -> String {
    let text = text.split(", with args beginning with").next().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use redis::ServerErrorKind;

    use super::*;

    #[test]
    fn a_server_that_repeats_what_it_was_told_is_not_quoted() {
        // As Redis says it of a HELLO that was renamed; AUTH is a part of it.
        let words =
            "unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'app' 'hunter2' ";
        let kind = ErrorKind::Server(ServerErrorKind::ResponseError);
        let error = RedisError::from((kind, "An error was signalled", words.to_owned()));
        let told = told(&error);
        assert!(told.contains("unknown command 'HELLO'") && !told.contains("hunter2"), "{told}");
    }

    #[test]
    fn what_fails_in_tls_is_told_as_what_it_is() {
        let in_io = |error: rustls::Error| {
            RedisError::from(std::io::Error::new(std::io::ErrorKind::InvalidData, error))
        };
        for (error, told) in [
            (rustls::Error::InvalidCertificate(CertificateError::Expired), "has expired"),
            (
                rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer),
                "signed by nobody",
            ),
            (rustls::Error::AlertReceived(AlertDescription::CertificateRequired), "REDIS_CERT"),
            (rustls::Error::AlertReceived(AlertDescription::UnknownCA), "does not accept"),
        ] {
            for error in [in_io(error.clone()), RedisError::from(error)] {
                assert!(meaning(&error).contains(told), "{}", meaning(&error));
                assert!(is_refusal(&error));
            }
        }
        let broken = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(meaning(&broken), "Redis cannot be reached");
        assert!(!is_refusal(&broken));
    }
}
