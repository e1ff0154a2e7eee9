//! Tokens for a Fantail that has a key: one for each stream, as every user has their own.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What they are signed with.
pub(super) const SECRET: &str = "for the bench alone: whoever reads this can sign with it";

/// `{"alg":"HS256"}`, encoded.
const HEADER: &str = "eyJhbGciOiJIUzI1NiJ9";

/// The year 2100.
const EXPIRES_AT: u64 = 4_102_444_800;

/// A token that nobody has had before, of somebody who may follow everything, with as much in it as
/// an application would say of one of its users.
pub(super) fn of_a_follower() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let user = NEXT.fetch_add(1, Ordering::Relaxed);
    signed(&format!(
        "{{\"sub\":\"user-{user}\",\"jti\":\"{user:032x}\",\"exp\":{EXPIRES_AT},\
         \"fantail\":{{\"subscribe\":[\"bench-*\",\"user-{user}\"]}}}}"
    ))
}

/// The token of the application, which may publish everything.
pub(super) fn of_the_application() -> String {
    signed(&format!("{{\"sub\":\"app\",\"exp\":{EXPIRES_AT},\"fantail\":{{\"publish\":[\"*\"]}}}}"))
}

fn signed(claims: &str) -> String {
    let message = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(claims));
    let tag = sign(&Key::new(HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_token_of_their_own() {
        let [one, other] = [of_a_follower(), of_a_follower()];
        assert_ne!(one, other);
        let parts: Vec<&str> = one.split('.').collect();
        assert_eq!(URL_SAFE_NO_PAD.decode(parts[0]).unwrap(), br#"{"alg":"HS256"}"#);
        let claims: serde_json::Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        assert_eq!(claims["fantail"]["subscribe"][0], "bench-*");
        assert_eq!(URL_SAFE_NO_PAD.decode(parts[2]).unwrap().len(), 32);
    }
}
