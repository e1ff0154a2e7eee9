mod fake_log;
mod losses;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::repairs::BUFFERED_FRAMES_MAX;
use super::*;
use crate::hub::tail::Next;
use crate::hub::{Joined, TOPIC_LINGER};
use crate::position::Position;
use fake_log::{Asked, FakeLog};

/// A relay between a fake log and a real hub, on paused time.
struct World {
    log: Arc<FakeLog>,
    hub: Arc<Hub>,
    relay: Arc<Relay>,
}

impl World {
    fn start() -> World {
        World::with_ttl(Duration::from_secs(3_600))
    }

    fn with_ttl(history_ttl: Duration) -> World {
        let (heard, notifications) = mpsc::channel(8);
        let (world, mut announced) = World::that_hears(notifications.into(), history_ttl);
        tokio::spawn(async move {
            while let Some(notification) = announced.recv().await {
                let _ = heard.send(notification).await;
            }
        });
        world
    }

    /// One that hears these, and not what its log announces, which is returned.
    fn that_hears(
        notifications: Notifications,
        history_ttl: Duration,
    ) -> (World, mpsc::UnboundedReceiver<Notification>) {
        let (log, announced) = FakeLog::new();
        let log = Arc::new(log);
        let hub = Hub::new();
        let relay = Relay::new(log.clone(), hub.clone(), history_ttl);
        tokio::spawn(relay.clone().run(notifications));
        (World { log, hub, relay }, announced)
    }

    /// Somebody follows a topic, which is open when this returns.
    async fn follow(&self, topic: &Topic) -> Joined {
        let joined = self.hub.join(topic, Arc::default());
        soon().await;
        assert!(joined.topic.head().is_some());
        joined
    }

    /// Somebody follows so many topics; the n-th is called `n`.
    async fn follow_many(&self, count: usize) -> Vec<Joined> {
        let joined: Vec<Joined> =
            (0..count).map(|n| self.hub.join(&topic(&n.to_string()), Arc::default())).collect();
        soon().await;
        assert!(joined.iter().all(|joined| joined.topic.head().is_some()));
        joined
    }

    /// What was asked but for heads since this was last called.
    fn asked(&self) -> Vec<Asked> {
        let asked = self.log.asked().into_iter();
        asked.filter(|asked| !matches!(asked, Asked::Heads(_))).collect()
    }

    /// How many heads were asked for since this was last called.
    fn heads_asked(&self) -> usize {
        self.asked_topics(|asked| match asked {
            Asked::Heads(topics) => Some(topics),
            _ => None,
        })
        .len()
    }

    fn asked_topics(&self, which: impl Fn(Asked) -> Option<Vec<Topic>>) -> Vec<Topic> {
        self.log.asked().into_iter().filter_map(which).flatten().collect()
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// Everything happens that can happen now, and no audit.
async fn soon() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

/// The numbers of the entries that a tail has after a position.
fn after(topic: &HubTopic, position: Position) -> Vec<u64> {
    match topic.after(position) {
        Some(Next::Frames(frames)) => frames.iter().map(|frame| frame.position.seq).collect(),
        Some(Next::Nothing) => Vec::new(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_announced_is_not_read() {
    let world = World::start();
    let joined = world.follow(&topic("t")).await;
    let start = joined.topic.head().unwrap();
    world.log.publish(&topic("t"), "1", true);
    world.log.publish(&topic("t"), "2", true);
    soon().await;
    assert_eq!(after(&joined.topic, start), [1, 2]);
    let asked = [Asked::Subscribe(vec![topic("t")]), Asked::Open(topic("t"))];
    assert_eq!(world.asked(), asked);
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_before_an_announced_entry_is_read() {
    let world = World::start();
    let joined = world.follow(&topic("t")).await;
    let start = joined.topic.head().unwrap();
    world.log.publish(&topic("t"), "1", true);
    world.log.publish(&topic("t"), "2", false);
    world.log.publish(&topic("t"), "3", true);
    soon().await;
    assert_eq!(after(&joined.topic, start), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn what_is_announced_while_a_topic_is_read_follows_what_was_read() {
    let world = World::start();
    let joined = world.follow(&topic("t")).await;
    let start = joined.topic.head().unwrap();
    world.log.publish(&topic("t"), "1", false);
    world.log.hold(true);
    world.relay.request_repair(&joined.topic);
    soon().await;
    world.log.publish(&topic("t"), "2", true);
    world.log.publish(&topic("t"), "3", true);
    soon().await;
    assert_eq!(after(&joined.topic, start), [0; 0], "what came first is not there yet");
    world.log.asked();
    world.log.hold(false);
    soon().await;
    assert_eq!(after(&joined.topic, start), [1, 2, 3]);
    assert_eq!(world.asked(), [], "it was read once");
}

#[tokio::test(start_paused = true)]
async fn announcements_beyond_the_buffer_are_read_from_the_log() {
    let world = World::start();
    let joined = world.follow(&topic("t")).await;
    world.log.hold(true);
    world.relay.request_repair(&joined.topic);
    soon().await;
    let mut last = None;
    for n in 0..BUFFERED_FRAMES_MAX * 2 {
        last = Some(world.log.publish(&topic("t"), &n.to_string(), true));
    }
    soon().await;
    world.log.hold(false);
    soon().await;
    assert_eq!(joined.topic.head(), last);
}

#[tokio::test(start_paused = true)]
async fn what_all_repairs_buffer_has_a_sum() {
    let world = World::start();
    let mut all = Vec::new();
    for n in 0..40 {
        all.push(world.follow(&topic(&format!("t{n}"))).await);
    }
    world.log.hold(true);
    let text = "x".repeat(1 << 20);
    let mut lasts = Vec::new();
    for joined in &all {
        world.relay.request_repair(&joined.topic);
        soon().await;
        lasts.push(world.log.publish(joined.topic.name(), &text, true));
        soon().await;
    }
    let buffered = world.relay.buffered_bytes.load(std::sync::atomic::Ordering::Relaxed);
    assert!((16 << 20..34 << 20).contains(&buffered), "{buffered}");
    world.log.hold(false);
    soon().await;
    for (joined, last) in all.iter().zip(lasts) {
        assert_eq!(joined.topic.head(), Some(last));
    }
    assert_eq!(world.relay.buffered_bytes.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_whose_log_is_gone_begins_anew() {
    let world = World::start();
    let joined = world.follow(&topic("t")).await;
    world.log.publish(&topic("t"), "1", true);
    soon().await;
    let old = joined.topic.head().unwrap();
    world.log.forget(&topic("t"));
    tokio::time::sleep(AUDIT_INTERVAL).await;
    let new = joined.topic.head().unwrap();
    assert!(new.seq == 0 && new.epoch != old.epoch, "{old} {new}");
    assert_eq!(joined.topic.after(old), Some(Next::Unsure));
    let first = world.log.publish(&topic("t"), "another 1", true);
    soon().await;
    assert_eq!(joined.topic.head(), Some(first));
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_subscribed_before_it_is_read() {
    let world = World::start();
    world.log.hold(true);
    let joined = world.hub.join(&topic("t"), Arc::default());
    soon().await;
    // Nobody is told of it, and whoever reads later finds it.
    let first = world.log.publish(&topic("t"), "1", true);
    assert_eq!(world.asked(), [Asked::Subscribe(vec![topic("t")])]);
    world.log.hold(false);
    soon().await;
    assert_eq!(joined.topic.head(), Some(first));
    assert_eq!(world.asked(), [Asked::Open(topic("t"))]);
}

#[tokio::test(start_paused = true)]
async fn an_audit_finds_that_the_last_announcement_was_lost() {
    let world = World::start();
    let joined = world.follow(&topic("t")).await;
    let first = world.log.publish(&topic("t"), "1", true);
    soon().await;
    let lost = world.log.publish(&topic("t"), "2", false);
    soon().await;
    assert_eq!(joined.topic.head(), Some(first));
    tokio::time::sleep(AUDIT_INTERVAL).await;
    assert_eq!(joined.topic.head(), Some(lost));
}

#[tokio::test(start_paused = true)]
async fn a_repair_that_is_wanted_while_one_runs_reads_again() {
    let world = World::start();
    let joined = world.follow(&topic("t")).await;
    world.log.hold(true);
    world.relay.request_repair(&joined.topic);
    soon().await;
    let late = world.log.publish(&topic("t"), "1", false);
    world.relay.request_repair(&joined.topic);
    world.relay.request_repair(&joined.topic);
    world.log.asked();
    world.log.hold(false);
    soon().await;
    assert_eq!(joined.topic.head(), Some(late));
    assert_eq!(world.asked(), [Asked::Read(topic("t"))]);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_away_is_asked_at_once_when_it_can_be_heard_again() {
    let world = World::start();
    let joined = world.follow(&topic("t")).await;
    let late = world.log.publish(&topic("t"), "1", false);
    world.log.state().away = true;
    world.relay.request_repair(&joined.topic);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = world.log.asked().into_iter().filter(|asked| matches!(asked, Asked::Read(_)));
    // Each wait is a random half to whole of a second, once they have grown.
    assert!((60..130).contains(&asked.count()), "about once a second");
    world.log.state().away = false;
    world.log.tell(Notification::MaybeLost);
    soon().await;
    assert_eq!(joined.topic.head(), Some(late));
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_nobody_follows_any_more_is_unsubscribed() {
    let world = World::start();
    let joined = world.follow(&topic("t")).await;
    drop(joined);
    world.log.asked();
    tokio::time::sleep(TOPIC_LINGER + Duration::from_secs(1)).await;
    let left = world.asked_topics(|asked| match asked {
        Asked::Unsubscribe(topics) => Some(topics),
        _ => None,
    });
    assert_eq!(left, [topic("t")]);
    assert_eq!(world.hub.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_left_before_it_was_opened_is_not_subscribed() {
    let world = World::start();
    // The opening of others is under way for so long that somebody comes and leaves meanwhile.
    world.log.hold(true);
    let _slow = world.hub.join(&topic("slow"), Arc::default());
    soon().await;
    drop(world.hub.join(&topic("gone"), Arc::default()));
    drop(world.hub.join(&topic("back"), Arc::default()));
    tokio::time::sleep(TOPIC_LINGER * 2).await;
    let swept = world.hub.sweep(9).removed;
    assert_eq!(swept, [topic("gone"), topic("back")]);
    let _back = world.hub.join(&topic("back"), Arc::default());
    world.log.hold(false);
    soon().await;
    let subscribed = world.asked_topics(|asked| match asked {
        Asked::Subscribe(topics) => Some(topics),
        _ => None,
    });
    assert_eq!(subscribed, [topic("slow"), topic("back")]);
}

#[tokio::test(start_paused = true)]
async fn while_the_log_is_away_one_slice_of_topics_is_tried_again() {
    let world = World::start();
    world.log.state().away = true;
    let count = SLICE_TOPICS_MAX * 6;
    let joined: Vec<Joined> =
        (0..count).map(|n| world.hub.join(&topic(&n.to_string()), Arc::default())).collect();
    soon().await;
    let tried = || {
        let asked = world.log.asked().into_iter();
        asked.filter(|asked| matches!(asked, Asked::Subscribe(_))).count()
    };
    assert_eq!(tried(), 6, "each slice is tried when it comes");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(tried() <= 50);
    world.log.state().away = false;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(joined.iter().all(|joined| joined.topic.head().is_some()));
}

#[tokio::test(start_paused = true)]
async fn few_topics_are_all_audited_in_every_interval() {
    let world = World::start();
    let _joined = world.follow_many(3_000).await;
    tokio::time::sleep(AUDIT_INTERVAL).await;
    world.heads_asked();
    for _ in 0..5 {
        tokio::time::sleep(AUDIT_INTERVAL).await;
        assert_eq!(world.heads_asked(), 3_000);
    }
}

#[tokio::test(start_paused = true)]
async fn many_topics_are_audited_in_turn_and_active_ones_as_often_as_few() {
    const TOPICS: usize = 12_000;
    let world = World::start();
    let joined = world.follow_many(TOPICS).await;
    tokio::time::sleep(AUDIT_INTERVAL * 2).await;
    world.heads_asked();
    // No more in an interval than is said, and each within the time that is said.
    let mut asked = 0;
    let idle_rounds = IDLE_AUDIT_INTERVAL.as_secs() / AUDIT_INTERVAL.as_secs();
    for _ in 0..idle_rounds {
        tokio::time::sleep(AUDIT_INTERVAL).await;
        let now = world.heads_asked();
        assert!(now <= 11_000, "{now}");
        asked += now;
    }
    assert!(asked > TOPICS);
    // A topic on which something happens does not wait for its turn, many times over.
    let active = &joined[17].topic;
    for _ in 0..3 {
        world.log.publish(active.name(), "announced", true);
        soon().await;
        let lost = world.log.publish(active.name(), "lost", false);
        tokio::time::sleep(AUDIT_INTERVAL * 2).await;
        assert_eq!(active.head(), Some(lost));
    }
    // One on which nothing happened waits for its turn, and not longer.
    let lost = world.log.publish(joined[18].topic.name(), "lost", false);
    tokio::time::sleep(IDLE_AUDIT_INTERVAL + AUDIT_INTERVAL).await;
    assert_eq!(joined[18].topic.head(), Some(lost));
}

#[tokio::test(start_paused = true)]
async fn a_great_many_repairs_are_not_begun_at_once() {
    let world = World::start();
    let joined = world.follow_many(3_000).await;
    for joined in &joined {
        world.log.publish(joined.topic.name(), "lost", false);
    }
    world.log.hold(true);
    world.log.tell(Notification::MaybeLost);
    soon().await;
    let under_way = world.relay.repairs().len();
    assert!((1_000..=1_500).contains(&under_way), "{under_way}");
    world.log.hold(false);
    soon().await;
    assert!(joined.iter().all(|joined| joined.topic.head().unwrap().seq == 1));
}

#[tokio::test(start_paused = true)]
async fn histories_of_followed_topics_are_kept_in_time() {
    const TOPICS: usize = 12_000;
    let ttl = Duration::from_secs(40);
    let world = World::with_ttl(ttl);
    let began_at = Instant::now();
    let _joined = world.follow_many(TOPICS).await;
    tokio::time::sleep(ttl * 4).await;
    let mut kept = HashMap::<Topic, Vec<Duration>>::new();
    for (at, asked) in std::mem::take(&mut world.log.state().asked) {
        let Asked::Keep(topics) = asked else { continue };
        assert!(topics.len() <= SLICE_TOPICS_MAX);
        for topic in topics {
            kept.entry(topic).or_default().push(at - began_at);
        }
    }
    assert_eq!(kept.len(), TOPICS);
    for (topic, times) in kept {
        let mut last = Duration::ZERO;
        for at in times.into_iter().chain([ttl * 4]) {
            assert!(at - last < ttl * 3 / 4, "{topic} was not kept from {last:?} to {at:?}");
            last = at;
        }
    }
}
