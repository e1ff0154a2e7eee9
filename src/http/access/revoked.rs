//! Whether a grant still holds.

use std::time::Duration;

use axum::http::StatusCode;

use super::super::App;
use super::super::problem::Problem;
use crate::access::Grant;
use crate::telemetry::metric;

/// How long a request waits for the list to be read, where a node has just started: longer than it
/// takes to believe that there is none.
const KNOWN_WITHIN: Duration = Duration::from_secs(4);

/// Whether a grant still holds.
///
/// # Errors
/// 401 if it was taken back. 503 if nobody can say yet: a node that has just started and cannot reach
/// Redis lets nobody pass who shows a token, for it may be a revoked one. Others are better served by
/// another node, and here nothing could be delivered anyway.
pub(in crate::http) async fn check_not_revoked(app: &App, grant: &Grant) -> Result<(), Problem> {
    if grant.digest.is_none() {
        return Ok(());
    }
    if !app.revocations.are_known(KNOWN_WITHIN).await {
        metric::access_refused("unknown");
        return Err(Problem::try_later(
            "revocations-unknown",
            "Revocations unknown",
            "this node has just started and could not read yet which tokens were revoked"
                .to_owned(),
        ));
    }
    if app.revocations.have_revoked_grant(grant) {
        metric::access_refused("revoked");
        let status = StatusCode::UNAUTHORIZED;
        let detail = "the token was revoked".to_owned();
        let problem = Problem::new(status, "unauthorized", "Unauthorized", detail);
        return Err(problem.with_header(&["www-authenticate", "Bearer error=\"invalid_token\""]));
    }
    Ok(())
}
