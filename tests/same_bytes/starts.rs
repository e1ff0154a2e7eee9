//! Sessions: which streams there are, and where each starts.

use crate::compare::everywhere;
use crate::player::Player;
use crate::sessions::TASK;

/// A topic whose name has to be encoded wherever it stands.
const ODD_TOPIC: &str = "%C3%BC:%25";

#[tokio::test]
async fn where_a_stream_of_one_topic_starts() {
    everywhere(&[("FANTAIL_HISTORY_SIZE", "3")], async |player| {
        let mut ids = Vec::new();
        for n in 1..=5 {
            ids.push(player.publish("t", &format!(r#"{{"data":{n}}}"#)).await.position);
        }
        let epoch = ids[0].split_once('-').unwrap().1.to_owned();
        let of_epoch = |seq: u64| format!("{seq}-{epoch}");
        let long = "x".repeat(200);
        let mut starts: Vec<String> = [0, 1, 2, 3, 5, 6].map(of_epoch).into();
        for text in [
            "0-zzzzzz", "5-zzzzzz", "0", "1", "2", "3", "5", "99", "05", "5-", "-", "x", "5-ABCD",
            "t:5", "a,b", "{", "\"5\"", "🦊", &long,
        ] {
            starts.push(text.to_owned());
        }
        for start in &starts {
            player.open("/topics/t/events", &[("last-event-id", start)]).await;
        }
        player.open("/topics/t/events", &[("last-event-id", "")]).await;
        player.open("/topics/t/events?from=earliest", &[("last-event-id", &ids[3])]).await;
        for query in [
            format!("?lastEventId={}", ids[3]),
            "?lastEventId=4".to_owned(),
            "?lastEventId=".to_owned(),
            "?lastEventId=%0Aid:%204".to_owned(),
            "?lastEventId=4&from=earliest".to_owned(),
            "?lastEventId=1&lastEventId=2".to_owned(),
            "?from=earliest".to_owned(),
        ] {
            player.open(&format!("/topics/t/events{query}"), &[]).await;
        }
        player.open("/topics/t/events?lastEventId=4", &[("last-event-id", "3")]).await;
        player.open("/topics/t/events?lastEventId=4", &[("last-event-id", "")]).await;
        for stream in 0..player.streams() {
            player.until_event(stream, &ids[4]).await;
        }
        one_more_for_all(player, "t").await;
        for query in ["?from=nowhen", "?snapshot=perhaps", "?other=1"] {
            player.call(&format!("GET /topics/t/events{query}"), &[], "").await;
        }
    })
    .await;
}

/// Publishes to a topic until all streams have heard of it.
async fn one_more_for_all(player: &mut Player, topic: &str) {
    let data = r#"{"data":"the last"}"#;
    player.publish(topic, data).await;
    for stream in 0..player.streams() {
        player.until(stream, "data: the last\n").await;
    }
}

#[tokio::test]
async fn where_a_stream_of_an_empty_topic_starts() {
    everywhere(&[], async |player| {
        let starts = [("", 0), ("0", 0), ("1", 1), ("0-zzzzzz", 1), ("1-zzzzzz", 1), ("x", 1)];
        for (n, (start, resets)) in starts.into_iter().enumerate() {
            let id = [("last-event-id", start)];
            let board = "/boards/board-1/events?snapshot=true";
            let snapshot = player.open(board, &id).await;
            player.until(snapshot, "event: snapshot").await;
            for topic in ["same".to_owned(), format!("own-{n}")] {
                let stream = player.open(&format!("/topics/{topic}/events"), &id).await;
                player.until(stream, "\"type\":\"connected\"").await;
                player.until_times(stream, "event: reset", resets).await;
                if topic != "same" {
                    let position = player.publish(&topic, r#"{"data":1}"#).await.position;
                    player.until_event(stream, &position).await;
                }
            }
        }
        let stream = player.open("/topics/earliest/events?from=earliest", &[]).await;
        player.until(stream, "\"type\":\"connected\"").await;
        let published = player.publish("same", r#"{"data":1}"#).await.position;
        let created = player.json("POST /tasks", TASK).await.position;
        for n in 0..starts.len() {
            player.until_event(3 * n, &created).await;
            player.until_event(3 * n + 1, &published).await;
        }
    })
    .await;
}

#[tokio::test]
async fn where_a_stream_of_several_topics_starts() {
    everywhere(&[("FANTAIL_HISTORY_SIZE", "3")], async |player| {
        let mut last = Vec::new();
        for (topic, count) in [("a", 5), ("b", 2), (ODD_TOPIC, 1)] {
            for n in 1..=count {
                last.push(player.publish(topic, &format!(r#"{{"data":{n}}}"#)).await.position);
            }
        }
        let (a, b) = (&last[4], &last[6]);
        let target = format!("/events?topics={ODD_TOPIC},a,b,new&boards=board-1");
        let epoch = |id: &str| id.split_once('-').unwrap().1.to_owned();
        let cursors = [
            String::new(),
            format!("a:{a},b:{b}"),
            format!("b:{b},a:{a},other:{a}"),
            format!("a:3-{},b:0-{}", epoch(a), epoch(b)),
            format!("a:1-{},b:1-{}", epoch(a), epoch(b)),
            format!("a:{a},b:2-zzzzzz,new:0-zzzzzz"),
            format!("a:{a},b:x"),
            format!("a:{a},b"),
            format!("a:{a},a:3-{}", epoch(a)),
            a.clone(),
            "3".to_owned(),
            "a:3,b:1".to_owned(),
            "x".to_owned(),
            ",".to_owned(),
        ];
        for cursor in &cursors {
            player.open(&target, &[("last-event-id", cursor)]).await;
        }
        player.open(&format!("{target}&from=earliest"), &[]).await;
        player.open("/events?topics=a,b,new&lastEventId=x", &[]).await;
        // Each says its resets first, and then what follows, topic by topic.
        for stream in 0..player.streams() {
            player.until(stream, &format!("a:{a},b:{b},new:")).await;
        }
        one_more_for_all(player, "a").await;
        let created = player.json("POST /tasks", TASK).await.position;
        for stream in 0..=cursors.len() {
            player.until(stream, &format!("board-1:{created},")).await;
        }
    })
    .await;
}

#[tokio::test]
async fn which_streams_there_are() {
    everywhere(&[], async |player| {
        let hundred: Vec<String> = (0..101).map(|n| format!("t{n}")).collect();
        let long = "x".repeat(200);
        let too_long = "x".repeat(201);
        let many_long: Vec<String> = (100..140).map(|n| format!("{}{n}", &long[3..])).collect();
        for target in [
            "/boards/nope/events",
            "/boards/nope/events?snapshot=true",
            "/boards/a%20b/events",
            "/topics/a%20b/events",
            "/topics/a%2Cb/events",
            "/topics/%FF/events",
            "/topics//events",
            &format!("/topics/{too_long}/events"),
            "/events",
            "/events?topics=",
            "/events?topics=,&boards=,",
            "/events?boards=board-1,nope",
            "/events?topics=a%20b",
            "/events?topics=a&from=x",
            &format!("/events?topics={}", hundred.join(",")),
            &format!("/events?topics={}", many_long.join(",")),
            "/topics/t/x/events",
            "/Events?topics=t",
        ] {
            player.call(&format!("GET {target}"), &[], "").await;
        }
        for target in [
            "/topics/t/events",
            "/topics/t/events/",
            "/topics/%74/events",
            "/topics/a%2Fb/events",
            "/topics/board-1/events",
            "/topics/board-1/events?snapshot=true",
            &format!("/topics/{long}/events"),
            "/events?topics=t",
            "/events?topics=t,t&boards=board-1,board-1",
            "/events?topics=,t,,",
            "/events?boards=board-1&snapshot=true",
            "/events?boards=board-1&topics=t&snapshot=true",
            &format!("/events?topics={}", hundred[1..].join(",")),
        ] {
            player.open(target, &[("origin", "https://a.example")]).await;
        }
        player.until_all_said_hello().await;
        for stream in [5, 10, 11] {
            player.until(stream, "event: snapshot").await;
        }
        let last = player.publish("t", r#"{"data":"x"}"#).await.position;
        for stream in [0, 1, 2, 7, 9] {
            player.until_event(stream, &last).await;
        }
        for stream in [8, 11] {
            player.until(stream, "data: x\n").await;
        }
    })
    .await;
}
