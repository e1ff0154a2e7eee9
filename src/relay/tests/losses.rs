//! Announcements that are lost, one and all of them, and a relay that cannot hear as much as comes.

use super::*;
use crate::entry::Entry;
use crate::log::Notifier;
use crate::wire::sse;

#[tokio::test(start_paused = true)]
async fn after_a_loss_all_topics_are_audited_at_once_and_those_that_differ_are_read() {
    const TOPICS: usize = 12_000;
    let world = World::start();
    let joined = world.follow_many(TOPICS).await;
    tokio::time::sleep(AUDIT_INTERVAL / 2).await;
    let busiest = topic("11999");
    let _more = [world.follow(&busiest).await, world.follow(&busiest).await];
    let lost = world.log.publish(&busiest, "lost", false);
    let lost_too = world.log.publish(&topic("2345"), "lost", false);
    world.log.asked();
    world.log.tell(Notification::MaybeLost);
    soon().await;
    let asked = world.log.asked();
    let Asked::Heads(first) = &asked[0] else { panic!("{:?}", asked[0]) };
    assert_eq!(first[0], busiest, "what most streams follow comes first");
    let reads = asked.iter().filter(|asked| !matches!(asked, Asked::Heads(_)));
    let reads: Vec<&Asked> = reads.collect();
    assert_eq!(reads, [&Asked::Read(busiest), &Asked::Read(topic("2345"))]);
    assert!(
        asked
            .iter()
            .all(|asked| !matches!(asked, Asked::Heads(topics) if topics.len() > SLICE_TOPICS_MAX))
    );
    assert_eq!(joined[11_999].topic.head(), Some(lost));
    assert_eq!(joined[2_345].topic.head(), Some(lost_too));
}

#[tokio::test(start_paused = true)]
async fn an_audit_that_fails_after_a_loss_is_made_up_for() {
    const TOPICS: usize = 12_000;
    let world = World::start();
    let _joined = world.follow_many(TOPICS).await;
    world.log.asked();
    world.log.state().away = true;
    world.log.tell(Notification::MaybeLost);
    tokio::time::sleep(AUDIT_INTERVAL * 3).await;
    let failed = world.heads_asked();
    assert!(failed <= 4 * SLICE_TOPICS_MAX, "a log that is away is not asked much: {failed}");
    world.log.state().away = false;
    tokio::time::sleep(AUDIT_INTERVAL).await;
    assert!(world.heads_asked() >= TOPICS);
}

/// Waits until something has happened; not by the clock, which stands while there is work to do.
async fn happens(what: impl Fn() -> bool) -> bool {
    for _ in 0..10_000 {
        if what() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_has_more_to_hear_than_it_can_opens_audits_and_leaves_topics_all_the_same() {
    let (notifier, notifications) = Notifier::new();
    let (world, _announced) = World::that_hears(notifications, Duration::from_secs(3_600));
    // More comes than is heard, of a topic that others follow.
    let flood = tokio::spawn(async move {
        let position = Position { seq: 1, epoch: "k3f9".parse().unwrap() };
        let rest = "data: flood\n\n".into();
        let frame = sse::frame(&Entry { position, milliseconds: 0, json: false, rest });
        loop {
            (0..1_000).for_each(|_| notifier.notify(topic("flooded"), frame.clone()));
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let joined = world.hub.join(&topic("t"), Arc::default());
    assert!(happens(|| joined.topic.head().is_some()).await, "it is not opened");
    let lost = world.log.publish(&topic("t"), "lost", false);
    tokio::time::advance(AUDIT_INTERVAL).await;
    assert!(happens(|| joined.topic.head() == Some(lost)).await, "what was lost is not found");
    drop(joined);
    tokio::time::advance(TOPIC_LINGER + Duration::from_secs(1)).await;
    let is_left = || world.log.asked().contains(&Asked::Unsubscribe(vec![topic("t")]));
    assert!(happens(is_left).await, "it is not left");
    flood.abort();
}

#[tokio::test(start_paused = true)]
async fn losses_one_after_the_other_keep_no_audit_from_getting_round() {
    let world = World::start();
    let joined = world.follow_many(3_000).await;
    let round = world.hub.begin_round();
    world.log.state().heads_take = Duration::from_millis(50);
    let log = world.log.clone();
    let losses = tokio::spawn(async move {
        loop {
            log.tell(Notification::Dropped);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lost = world.log.publish(joined[2_345].topic.name(), "lost", false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(joined[2_345].topic.head(), Some(lost));
    // Nor do they hurry the clock of the rounds, or stop it.
    tokio::time::sleep(AUDIT_INTERVAL * 8).await;
    let rounds = world.hub.begin_round() - round;
    assert!((8..=11).contains(&rounds), "{rounds}");
    losses.abort();
}

#[tokio::test(start_paused = true)]
async fn losses_while_the_log_is_away_do_not_have_it_asked_more_often() {
    let world = World::start();
    let joined = world.follow(&topic("t")).await;
    world.log.state().away = true;
    world.relay.request_repair(&joined.topic);
    for _ in 0..3_000 {
        world.log.tell(Notification::Dropped);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let asked = world.log.asked().into_iter().filter(|asked| matches!(asked, Asked::Read(_)));
    let asked = asked.count();
    assert!((60..130).contains(&asked), "about once a second, not {asked}");
}
