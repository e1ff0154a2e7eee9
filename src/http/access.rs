//! [`Caller`]: who sends a request, and what they may do.
//!
//! Who somebody is is found out before every route but those for everybody (the page's files, whether
//! the process lives and is ready), once. What they may do each handler asks of the [`Caller`],
//! before it reads a body or asks the log for anything.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use tokio::time::Instant;

use super::App;
use super::problem::Problem;
use super::request::{IdPath, TopicPath};
use crate::access::{Access, Action, Grant, Refused};
use crate::admission::client::{Client, Whose};
use crate::admission::client_rates::{Account, ClientRates};
use crate::net::Peer;
use crate::stream::terms::Holder;
use crate::stream::{Endings, Terms};
use crate::telemetry::metric;
use crate::topic::Topic;
use crate::wire::Speech;
pub(super) use revoked::check_not_revoked;
use ticket::ShownTicket;
pub(super) use ticket::StreamCaller;

mod revoked;
mod ticket;

/// What begins the value of the header that has a token (RFC 6750 §2.1), in any case.
const BEARER: &str = "Bearer";

/// Streams end by a clock that does not know later times.
const STREAM_LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Who sends a request.
#[derive(Clone)]
pub(crate) struct Caller {
    /// What they may do.
    pub(crate) grant: Arc<Grant>,
    /// How they said who they are.
    pub(crate) by: Credential,
    /// On whose account they do what they do, if that is counted.
    pub(crate) account: Option<Account>,
}

/// How somebody says who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credential {
    /// Not at all.
    Anonymous,
    /// By a token in the `Authorization` header.
    Bearer,
    /// By a token in a cookie.
    Cookie,
    /// By a ticket in the address of a stream.
    Ticket,
}

/// A request that was counted before it was known who sends it.
#[derive(Clone, Copy)]
pub(super) struct CountedAsNobody;

/// Finds out who sends a request on this path, which becomes an extension of it: a [`Caller`], or on
/// streams a [`ShownTicket`].
///
/// # Errors
/// 401 when they may do nothing, or nobody knows them; what is wrong with what they show.
pub(super) async fn identify(app: &App, path: &str, request: &mut Request) -> Result<(), Problem> {
    let shown = if app.access.is_configured() { shown_token(app, request)? } else { None };
    if let Some((token, by)) = shown {
        let grant = match app.access.verify(token, SystemTime::now()) {
            Err(why) if why.is_for_want_of_keys() => {
                // The request is not to be shared with whoever waits.
                let token = token.to_owned();
                // Before anybody waits for them: they may be nobody.
                let counted = super::count_request(&app.rates, path, request);
                request.extensions_mut().insert(CountedAsNobody);
                counted?;
                app.access.verify_when_known(&token).await?
            }
            verified => verified?,
        };
        check_not_revoked(app, &grant).await?;
        let account = client_of(request).and_then(|client| account(app, &grant, client));
        request.extensions_mut().insert(Caller { grant, by, account });
    } else if let Some(ticket) = ShownTicket::of(&app.access, path, request) {
        // What it is worth is asked when its stream can begin: it is good once.
        request.extensions_mut().insert(ticket);
    } else {
        let caller = Caller::anonymous(app, request)?;
        request.extensions_mut().insert(caller);
    }
    Ok(())
}

impl Caller {
    /// Whoever came in by the operators' door, where nobody is asked who they are.
    pub(super) fn operator() -> Caller {
        static GRANT: LazyLock<Arc<Grant>> = LazyLock::new(|| Arc::new(Grant::administration()));
        Caller { grant: GRANT.clone(), by: Credential::Anonymous, account: None }
    }

    fn anonymous(app: &App, request: &Request) -> Result<Caller, Problem> {
        let grant = app.access.anonymous().cloned().ok_or_else(Problem::no_credential)?;
        Ok(Caller { grant, by: Credential::Anonymous, account: account_of_nobody(request) })
    }

    /// What they may do, if they have shown a token for it or need none.
    ///
    /// # Errors
    /// 401 where they have shown nothing, and others have to.
    pub(super) fn of_a_token(&self, access: &Access) -> Result<&Grant, Problem> {
        if self.by == Credential::Anonymous && access.is_configured() {
            return Err(Problem::no_credential());
        }
        Ok(&self.grant)
    }

    /// Whether they may do this.
    ///
    /// # Errors
    /// 403, which names what they may not do it to. They named it themselves.
    pub(crate) fn may(&self, action: Action<'_>) -> Result<(), Problem> {
        if self.grant.allows(&action) {
            return Ok(());
        }
        Err(self.forbidden(match action {
            Action::Subscribe(topic) => format!("this grant does not allow to follow {topic}"),
            Action::Publish(topic) => format!("this grant does not allow to publish to {topic}"),
            Action::ReadBoard(board) => {
                format!("this grant does not allow to read the board {board}")
            }
            Action::ChangeBoard(board) => {
                format!("this grant does not allow to change the board {board}")
            }
            Action::Administer => "this needs a grant to administer".to_owned(),
        }))
    }

    /// Whether they may change the board that something they named is on; which that is, is not told.
    ///
    /// # Errors
    /// 403 if they may know of it, else what is `missing` where there is no such thing.
    pub(super) fn may_change_its_board(
        &self,
        board: &Topic,
        missing: impl Into<Problem>,
    ) -> Result<(), Problem> {
        if self.grant.allows(&Action::ChangeBoard(board)) {
            return Ok(());
        }
        if self.may_know_of(board) {
            let why = "this grant does not allow to change the board that this is on";
            return Err(self.forbidden(why));
        }
        metric::access_refused("forbidden");
        Err(missing.into())
    }

    /// Whether they may be told that a board has something.
    pub(super) fn may_know_of(&self, board: &Topic) -> bool {
        let may = |action| self.grant.allows(&action);
        may(Action::ChangeBoard(board)) || may(Action::ReadBoard(board))
    }

    /// Whether they may make a board whose id is chosen for them.
    pub(super) fn may_make_boards(&self) -> Result<(), Problem> {
        if self.grant.may_make_boards() {
            return Ok(());
        }
        Err(self.forbidden(
            "this grant does not allow to make a board without an id: only some ids were granted",
        ))
    }

    /// Whether they may publish so many events now; from now on those count.
    ///
    /// # Errors
    /// 429 when there were too many of late.
    pub(super) fn may_publish_now(
        &self,
        rates: &ClientRates,
        events: usize,
    ) -> Result<(), Problem> {
        let published = rates.publish(self.account, events);
        published.map_err(|why| Problem::too_fast("published", "events and changes", why))
    }

    /// 403: they may not.
    fn forbidden(&self, detail: impl Into<String>) -> Problem {
        metric::access_refused("forbidden");
        let problem = Problem::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden", detail.into());
        match self.by {
            Credential::Bearer => {
                problem.with_header(&["www-authenticate", "Bearer error=\"insufficient_scope\""])
            }
            Credential::Anonymous | Credential::Cookie | Credential::Ticket => problem,
        }
    }

    /// On what terms a stream of theirs runs that speaks like this.
    ///
    /// # Errors
    /// 401 when the token's time is over, whatever was let pass for clocks that differ.
    pub(super) fn terms(&self, endings: &Endings, speech: Speech) -> Result<Arc<Terms>, Problem> {
        let Grant { subject, token_id, issuer, issued_at, expires_at, digest, .. } = &*self.grant;
        let Some(digest) = digest else { return Ok(endings.open_terms(speech)) };
        let left = expires_at.map(|at| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Duration::from_secs(at).saturating_sub(now).min(STREAM_LONGEST)
        });
        if left == Some(Duration::ZERO) {
            return Err(Refused::Expired.into());
        }
        let holder = Holder {
            subject: subject.clone(),
            token_id: token_id.clone(),
            issuer: issuer.clone(),
            issued_at: *issued_at,
            expires_at: left.map(|left| Instant::now() + left),
            by_ticket: self.by == Credential::Ticket,
        };
        Ok(endings.terms_of_token(*digest, holder, speech))
    }
}

fn client_of(request: &Request) -> Option<Client> {
    request.extensions().get::<Peer>().map(Peer::client)
}

/// On whose account somebody acts who has shown a token for this: its subject's, or where it names
/// none, their address's.
fn account(app: &App, grant: &Grant, client: Client) -> Option<Account> {
    let whose = match &grant.subject {
        Some(subject) => Whose::Subject(app.admission.subject(grant.issuer.as_deref(), subject)),
        None if client.is_exempt => return None,
        None => Whose::Address(client.address),
    };
    Some(Account { whose, has_token: true })
}

/// The same for whoever has not said who they are, or has not been believed.
pub(super) fn account_of_nobody(request: &Request) -> Option<Account> {
    let client = client_of(request).filter(|client| !client.is_exempt)?;
    Some(Account { whose: Whose::Address(client.address), has_token: false })
}

/// The token that a request shows, and where.
fn shown_token<'a>(
    app: &App,
    request: &'a Request,
) -> Result<Option<(&'a str, Credential)>, Problem> {
    if let Some(token) = bearer(request.headers())? {
        return Ok(Some((token, Credential::Bearer)));
    }
    Ok(app.cookies.token(request)?.map(|token| (token, Credential::Cookie)))
}

/// The token in the `Authorization` header. Of other schemes, which are for somebody in front of
/// this node, nothing is read.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut token = None;
    for value in headers.get_all(header::AUTHORIZATION) {
        let value = value.as_bytes();
        let scheme = value.get(..BEARER.len()).unwrap_or_default();
        let rest = value.get(BEARER.len()..).unwrap_or_default();
        if !scheme.eq_ignore_ascii_case(BEARER.as_bytes()) || !matches!(rest, [] | [b' ', ..]) {
            continue;
        }
        let read = std::str::from_utf8(rest.trim_ascii()).map_err(|_| Refused::Malformed)?;
        if token.replace(read).is_some() {
            return Err(Problem::bad_request("send one token, in one Authorization header"));
        }
    }
    Ok(token)
}

impl Problem {
    /// 401: whoever this is has to say so.
    fn no_credential() -> Problem {
        metric::access_refused("missing");
        let detail =
            "this needs a token, in the header Authorization: Bearer or in a cookie".to_owned();
        let problem =
            Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized", detail);
        problem.with_header(&["www-authenticate", "Bearer"])
    }
}

/// 401 with the reason, and 503 where only a later moment will tell.
impl From<Refused> for Problem {
    fn from(why: Refused) -> Problem {
        if why == Refused::KeysMissing {
            metric::access_refused("keys");
            return Problem::try_later("keys-missing", "Keys missing", why.to_string());
        }
        metric::access_refused("token");
        let status = StatusCode::UNAUTHORIZED;
        let problem = Problem::new(status, "unauthorized", "Unauthorized", why.to_string());
        problem.with_header(&["www-authenticate", "Bearer error=\"invalid_token\""])
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // What is for everybody has no caller.
        parts.extensions.get::<Caller>().cloned().ok_or_else(Problem::no_credential)
    }
}

/// The topic in a path, to which the caller may publish. Known before a body is asked for, as all
/// that follow.
pub(super) struct PublishableTopic(pub(super) Topic, pub(super) Caller);

impl<S: Send + Sync> FromRequestParts<S> for PublishableTopic {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let TopicPath(topic) = TopicPath::from_request_parts(parts, state).await?;
        caller.may(Action::Publish(&topic))?;
        Ok(PublishableTopic(topic, caller))
    }
}

/// The board in a path, which the caller may change.
pub(super) struct ChangeableBoard(pub(super) Topic, pub(super) Caller);

impl<S: Send + Sync> FromRequestParts<S> for ChangeableBoard {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let IdPath(board) = IdPath::from_request_parts(parts, state).await?;
        caller.may(Action::ChangeBoard(&board))?;
        Ok(ChangeableBoard(board, caller))
    }
}

/// A caller who may change some boards, if they exist.
pub(super) struct BoardChanger(pub(super) Caller);

impl<S: Send + Sync> FromRequestParts<S> for BoardChanger {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        if !caller.grant.may_change_boards() {
            return Err(caller.forbidden("this grant does not allow to change any board"));
        }
        Ok(BoardChanger(caller))
    }
}

/// A caller who may administer.
pub(super) struct Administrator;

impl<S: Send + Sync> FromRequestParts<S> for Administrator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        caller.may(Action::Administer).map(|()| Administrator)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::response::IntoResponse;

    use super::*;

    fn token(values: &[&str]) -> Result<Option<String>, u16> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        let token = bearer(&headers).map(|token| token.map(str::to_owned));
        token.map_err(|problem| problem.into_response().status().as_u16())
    }

    #[test]
    fn a_token_is_read_from_one_header_of_its_scheme() {
        assert_eq!(token(&[]), Ok(None));
        assert_eq!(token(&["Bearer a.b.c"]), Ok(Some("a.b.c".to_owned())));
        assert_eq!(token(&["bEARER  a.b.c "]), Ok(Some("a.b.c".to_owned())));
        assert_eq!(token(&["Basic dXNlcjpwdw=="]), Ok(None));
        assert_eq!(token(&["Basic dXNlcjpwdw==", "Bearer a"]), Ok(Some("a".to_owned())));
        assert_eq!(token(&["Bearera.b.c"]), Ok(None));
        assert_eq!(token(&["Bearer"]), Ok(Some(String::new())));
        assert_eq!(token(&["Bearer a", "Bearer a"]), Err(400));
        assert_eq!(token(&["Bearer ä"]), Ok(Some("ä".to_owned())));
    }
}
