//! [`Grant`]: what its holder may do, and [`Action`]: what somebody is about to do. Pure.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::names::Names;
use crate::topic::Topic;

/// What the ids begin with that the log gives to boards.
const NEW_BOARD: &str = "board-";

/// What somebody is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// Follow a topic, live or from an earlier position, or read its history.
    Subscribe(&'a Topic),
    /// Append events to a topic.
    Publish(&'a Topic),
    /// See a board as it is: alone, in the list of all, or as the snapshot of a stream.
    ReadBoard(&'a Topic),
    /// Make or change a board, its lists or its tasks.
    ChangeBoard(&'a Topic),
    /// See metrics and counts, and whatever else is under `/admin`.
    Administer,
}

/// What one holder may do. A ticket carries it to another node, so it is all that is known of a
/// token once that is verified.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Whose it is: the claim `sub`.
    pub subject: Option<String>,
    /// The name of the token it was in: the claim `jti`.
    pub token_id: Option<String>,
    /// Who gave it: the claim `iss`.
    pub issuer: Option<String>,
    /// When it was given, in seconds since 1970: the claim `iat`.
    pub issued_at: Option<u64>,
    /// From when on it is worth nothing, in seconds since 1970: the claim `exp`. `None` only for
    /// what somebody may do without a token.
    pub expires_at: Option<u64>,
    /// The SHA-256 of the token it was in, by which what belongs to one token is found again.
    pub digest: Option<[u8; 32]>,
    pub(super) subscribe: Names,
    pub(super) publish: Names,
    pub(super) read_boards: Option<Names>,
    pub(super) change_boards: Option<Names>,
    pub(super) admin: bool,
}

/// The claim `fantail` of a token.
#[derive(Debug, Default, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub(super) struct Claim {
    #[serde(default)]
    pub(super) subscribe: Names,
    #[serde(default)]
    pub(super) publish: Names,
    #[serde(default)]
    boards: BoardsClaim,
    #[serde(default)]
    admin: bool,
}

/// Of an object alone: a list of its fields' values, which serde takes for one, has no names.
impl<'de> Deserialize<'de> for Claim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Claim, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Claim;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Claim, A::Error> {
                Claim::deserialize(MapAccessDeserializer::new(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// What it says of boards, where that is not what it says of topics.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BoardsClaim {
    read: Option<Names>,
    change: Option<Names>,
}

impl Grant {
    /// Nothing: what a token is worth that says nothing else.
    pub fn nothing() -> Grant {
        Grant::of(Claim::default())
    }

    /// Everything, to anybody, for ever: a node without a key, for its own machine.
    pub fn everything() -> Grant {
        Grant { publish: Names::all(), admin: true, ..Grant::read_only() }
    }

    /// The same, but for administration.
    pub fn without_administration(self) -> Grant {
        Grant { admin: false, ..self }
    }

    /// Following and reading whatever there is; no change, no administration.
    pub fn read_only() -> Grant {
        Grant { subscribe: Names::all(), ..Grant::nothing() }
    }

    /// Administration, and nothing else.
    pub fn administration() -> Grant {
        Grant { admin: true, ..Grant::nothing() }
    }

    pub(super) fn of(claim: Claim) -> Grant {
        Grant {
            subject: None,
            token_id: None,
            issuer: None,
            issued_at: None,
            expires_at: None,
            digest: None,
            subscribe: claim.subscribe,
            publish: claim.publish,
            read_boards: claim.boards.read,
            change_boards: claim.boards.change,
            admin: claim.admin,
        }
    }

    /// Whether its holder may do this.
    pub fn allows(&self, action: &Action<'_>) -> bool {
        match action {
            Action::Subscribe(topic) => self.subscribe.contain(topic),
            Action::Publish(topic) => self.publish.contain(topic),
            Action::ReadBoard(board) => self.readable_boards().contain(board),
            Action::ChangeBoard(board) => self.changeable_boards().contain(board),
            Action::Administer => self.admin,
        }
    }

    /// Which boards its holder may read.
    pub fn readable_boards(&self) -> &Names {
        self.read_boards.as_ref().unwrap_or(&self.subscribe)
    }

    /// Whether there can be a board that its holder may change: who may change none needs no answer
    /// that depends on what there is.
    pub fn may_change_boards(&self) -> bool {
        !self.changeable_boards().is_empty()
    }

    /// Whether its holder may change every board, so that nobody has to look up which.
    pub fn may_change_all_boards(&self) -> bool {
        self.changeable_boards().contain_all_of("")
    }

    /// Whether its holder may make a board whose id the log will choose.
    pub fn may_make_boards(&self) -> bool {
        self.changeable_boards().contain_all_of(NEW_BOARD)
    }

    /// Whether it is worth nothing any more, `leeway` seconds after its time (RFC 7519 §4.1.4: it
    /// must not be accepted on or after it).
    pub fn has_expired(&self, now_seconds: u64, leeway_seconds: u64) -> bool {
        self.expires_at.is_some_and(|at| now_seconds >= at.saturating_add(leeway_seconds))
    }

    /// Whether its time is over, with nothing let pass for clocks that differ.
    pub fn is_over(&self, now: SystemTime) -> bool {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.has_expired(since.as_secs(), 0)
    }

    fn changeable_boards(&self) -> &Names {
        self.change_boards.as_ref().unwrap_or(&self.publish)
    }
}

/// Says whether somebody has a token, not whose it is or what is in it.
impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("of_a_token", &self.digest.is_some())
            .field("admin", &self.admin)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(claim: serde_json::Value) -> Grant {
        Grant::of(serde_json::from_value(claim).unwrap())
    }

    fn allowed(grant: &Grant, name: &str) -> [bool; 5] {
        let topic = Topic::new(name).unwrap();
        [
            Action::Subscribe(&topic),
            Action::Publish(&topic),
            Action::ReadBoard(&topic),
            Action::ChangeBoard(&topic),
            Action::Administer,
        ]
        .map(|action| grant.allows(&action))
    }

    #[test]
    fn topics_and_boards_go_together_unless_the_claim_tells_them_apart() {
        let plain = grant(serde_json::json!({ "subscribe": ["a", "b"], "publish": ["b"] }));
        assert_eq!(allowed(&plain, "a"), [true, false, true, false, false]);
        assert_eq!(allowed(&plain, "b"), [true, true, true, true, false]);
        assert_eq!(allowed(&plain, "c"), [false; 5]);
        let apart = grant(serde_json::json!({
            "subscribe": ["a"], "publish": ["*"], "boards": { "read": [], "change": ["c"] },
        }));
        assert_eq!(allowed(&apart, "a"), [true, true, false, false, false]);
        assert_eq!(allowed(&apart, "c"), [false, true, false, true, false]);
        let half = grant(serde_json::json!({ "publish": ["a"], "boards": { "read": ["a"] } }));
        assert_eq!(allowed(&half, "a"), [false, true, true, true, false]);
    }

    #[test]
    fn administration_is_nothing_else_and_nothing_else_is_administration() {
        let admin = grant(serde_json::json!({ "admin": true }));
        assert_eq!(allowed(&admin, "a"), [false, false, false, false, true]);
        let all = grant(serde_json::json!({ "subscribe": ["*"], "publish": ["*"] }));
        assert_eq!(allowed(&all, "a"), [true, true, true, true, false]);
        assert_eq!(allowed(&Grant::everything(), "a"), [true; 5]);
        assert_eq!(allowed(&Grant::read_only(), "a"), [true, false, true, false, false]);
        assert_eq!(allowed(&Grant::nothing(), "a"), [false; 5]);
    }

    #[test]
    fn a_board_of_any_id_may_be_made_only_by_whom_every_such_id_was_granted() {
        let may = |names: &[&str]| {
            let grant = grant(serde_json::json!({ "publish": names }));
            (grant.may_change_boards(), grant.may_make_boards(), grant.may_change_all_boards())
        };
        assert_eq!(may(&[]), (false, false, false));
        assert_eq!(may(&["board-1", "board-1*"]), (true, false, false));
        assert_eq!(may(&["board-*"]), (true, true, false));
        assert_eq!(may(&["b*"]), (true, true, false));
        assert_eq!(may(&["*"]), (true, true, true));
    }

    #[test]
    fn a_claim_of_another_shape_is_none() {
        for claim in [
            r#"{"subscribe":"a"}"#,
            r#"{"subscribe":["a*b"]}"#,
            r#"{"subscribe":[1]}"#,
            r#"{"subscibe":["a"]}"#,
            r#"{"admin":"yes"}"#,
            r#"{"boards":{"write":["a"]}}"#,
            r#"{"subscribe":["a"],"subscribe":["*"]}"#,
            "true",
        ] {
            assert!(serde_json::from_str::<Claim>(claim).is_err(), "{claim}");
        }
    }

    #[test]
    fn what_stands_in_it_is_not_shown() {
        let mut grant = grant(serde_json::json!({ "subscribe": ["plan-9"] }));
        grant.subject = Some("alice".to_owned());
        grant.token_id = Some("id-7".to_owned());
        let shown = format!("{grant:?}");
        assert!(!["alice", "plan", "id-7"].iter().any(|text| shown.contains(text)), "{shown}");
        // A ticket carries all of it.
        let json = serde_json::to_string(&grant).unwrap();
        assert_eq!(serde_json::from_str::<Grant>(&json).unwrap(), grant);
    }
}
