//! Whose request it is, where a trusted proxy has brought it: one connection of a proxy carries the
//! requests of many clients.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, header};

use super::super::problem::Problem;
use crate::address::forwarded::{ForwardedError, client};
use crate::net::Peer;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// For all routes: from here on the address of the [`Peer`] is the client's.
///
/// # Errors
/// When it cannot be told who the client is.
pub(in crate::http) fn find_client(request: &mut Request) -> Result<(), Problem> {
    let headers = request.headers();
    let Some(peer) = request.extensions().get::<Peer>() else { return Ok(()) };
    if !peer.trusted.contain(peer.address) {
        return Ok(());
    }
    let forwarded = all_lines(headers, header::FORWARDED);
    let x_forwarded_for = all_lines(headers, X_FORWARDED_FOR);
    let address =
        client(peer.address, &peer.trusted, forwarded, x_forwarded_for).map_err(refused)?;
    if let Some(peer) = request.extensions_mut().get_mut::<Peer>() {
        peer.address = address;
    }
    Ok(())
}

fn all_lines(headers: &HeaderMap, name: HeaderName) -> impl DoubleEndedIterator<Item = &[u8]> {
    headers.get_all(name).iter().map(|value| value.as_bytes())
}

fn refused(why: ForwardedError) -> Problem {
    Problem::bad_request(match why {
        ForwardedError::Malformed => "Forwarded cannot be read",
        ForwardedError::Contradiction => {
            "Forwarded and X-Forwarded-For name different clients: a proxy should remove the one that \
             it does not write"
        }
    })
}
