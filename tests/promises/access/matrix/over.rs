//! Every road that a grant has, when its token's time is over or it was revoked: not one frame more.

use std::time::Duration;

use serde_json::json;

use super::{BOARDS, Case, TOPICS, World, bearer, walk_with};
use crate::harness::tokens::in_seconds;
use crate::harness::{Backend, Stream, until, within};

/// How a grant is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Revoked,
    Expired,
}

impl World {
    /// Streams of every kind, each with what it is about.
    async fn open_all(&self, case: &Case, token: &str) -> Vec<(String, Stream)> {
        let mut paths = Vec::new();
        for name in TOPICS.into_iter().chain(BOARDS).filter(|name| case.follows(name)) {
            paths.push(format!("/topics/{name}/events"));
            paths.push(format!("/topics/{name}/events?from=earliest"));
            paths.push(format!("/events?topics={name},{name}"));
            if BOARDS.contains(&name) && case.reads(name) {
                paths.push(format!("/boards/{name}/events?snapshot=true"));
            }
        }
        let several = TOPICS.into_iter().chain(BOARDS).filter(|name| case.follows(name));
        let several = several.collect::<Vec<_>>().join(",");
        if !several.is_empty() {
            paths.push(format!("/events?topics={several}"));
            paths.push(format!("/events?topics={several}&from=earliest"));
        }
        let mut streams = Vec::new();
        for path in paths {
            let stream = Stream::request_with(self.node.address, &path, &[&bearer(token)]).await;
            assert_eq!(stream.status, 200, "{path}: {}", stream.head);
            streams.push((path, stream));
        }
        streams
    }

    async fn is_over(&self, case: &Case, how: Over) {
        let id = format!("token-{}", fastrand::u64(..));
        let expires_at = in_seconds(if how == Over::Expired { 3 } else { 600 });
        let token = self.signer.token(&json!({
            "jti": id, "iat": in_seconds(0), "exp": expires_at, "fantail": case.grant(),
        }));
        let mut streams = self.open_all(case, &token).await;
        // What a stream may have is over within a second.
        match how {
            Over::Revoked => {
                let revoked = Some(json!({ "tokenId": id }));
                let answer = self.all.send("POST", "/admin/revoke", revoked).await;
                assert_eq!(answer.status, 204, "{answer:?}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Over::Expired => {
                until("its time is over", async || (in_seconds(0) > expires_at).then_some(())).await
            }
        }
        for name in TOPICS.into_iter().chain(BOARDS) {
            self.all.publish(name, json!({ "of": name, "after": id })).await;
        }
        for (path, stream) in &mut streams {
            let what = format!("the end of {path}");
            let mut last = None;
            while let Some(event) = within(&what, stream.next()).await {
                assert!(!event.data.contains(&id), "{how:?}: {path} says {event:?}");
                last = Some(event);
            }
            let goodbye = last.unwrap_or_else(|| panic!("{path} ended without a word"));
            assert_eq!(goodbye.kind, "goodbye", "{path}");
        }
        // No road is left. For those that are no streams, clocks may differ by some seconds.
        let api = self.node.with_token(&token);
        until("its time is over for all", async || {
            (api.send("GET", "/boards", None).await.status == 401).then_some(())
        })
        .await;
        for name in TOPICS.into_iter().chain(BOARDS) {
            let event = json!({ "data": { "of": name } });
            for (method, path, body) in [
                ("GET", format!("/topics/{name}/events"), None),
                ("GET", format!("/topics/{name}/events?from=earliest"), None),
                ("GET", format!("/topics/{name}/events?lastEventId=1"), None),
                ("GET", format!("/topics/{name}/history"), None),
                ("GET", format!("/events?topics=a,{name}"), None),
                ("GET", format!("/boards/{name}/events?snapshot=true"), None),
                ("GET", format!("/boards/{name}"), None),
                ("POST", format!("/topics/{name}/events"), Some(event)),
                ("POST", format!("/boards/{name}/lists"), Some(json!({ "title": "L" }))),
                ("POST", "/tickets".to_owned(), None),
                ("GET", "/admin/connections".to_owned(), None),
                ("GET", "/metrics".to_owned(), None),
            ] {
                let answer = api.send(method, &path, body).await;
                assert_eq!(answer.problem(401), "unauthorized", "{how:?}: {method} {path}");
            }
        }
    }
}

#[test]
fn a_grant_that_is_over_has_no_road_in_an_embedded_log() {
    walk_with(Backend::Embedded, 8, async |world, case| world.is_over(case, Over::Revoked).await);
    walk_with(Backend::Embedded, 2, async |world, case| world.is_over(case, Over::Expired).await);
}

#[test]
fn a_grant_that_is_over_has_no_road_in_a_redis() {
    walk_with(Backend::Redis, 6, async |world, case| world.is_over(case, Over::Revoked).await);
    walk_with(Backend::Redis, 2, async |world, case| world.is_over(case, Over::Expired).await);
}
