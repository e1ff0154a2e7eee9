//! `fantail check`: an independent witness of the promises, against any running gateways.
//!
//! [`Checker::start`] sends publishers and roaming subscribers to work; [`Running`] says how it
//! goes; [`Running::finish`] waits for the last deliveries and returns the [`Verdict`]. Requests
//! that fail and connections that break are normal to it: what counts is what is promised.
//!
//! Whoever tests with faults starts a check, does harm while it runs, and reads the verdict.
//!
//! # How it sees
//!
//! Every event carries a token. The [`judge`] keeps, for each subscriber and topic, a [`view`] of
//! the numbers that were delivered, and one [`ledger`] of what was acknowledged where. It knows the
//! gateways over HTTP alone and shares no code with them: streams are read by an interpreter of its
//! own ([`events`]), and so are the ids on them ([`position`]).
//!
//! # What it cannot see
//!
//! - A reset is judged by what `GET /topics/{topic}/history` says afterwards ([`history`]): a
//!   gateway that lies in both is believed.
//! - Of an event that was sent before a subscriber joined, and that has another epoch than the
//!   place where it joined, nobody can say whether it was due to that subscriber. Those who joined
//!   before it are its witnesses; every topic has one.
//!
//! # Memory
//!
//! Some 150 bytes an event, 8 bytes for each of at most 100 deliveries a second and subscriber, and
//! some kilobytes a subscriber. Ten minutes at 1,000 events a second to 50 subscribers, which had
//! 4.9 million deliveries, took 107 MiB.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

mod client;
pub mod events;
mod history;
pub mod judge;
mod lag;
pub mod ledger;
mod payload;
mod plan;
pub mod position;
mod publisher;
mod subscriber;
mod verdict;
pub mod view;
mod violation;

pub use judge::Counts;
pub use lag::Lags;
pub use plan::{GatewayUrl, Plan};
pub use verdict::{Outcome, Verdict};
pub use view::Reason;
pub use violation::{Kind, Violation};

use client::Client;
use judge::{Judge, Question, Rules};
use payload::Payload;
use plan::Join;
use verdict::milliseconds;

/// Questions to the log that are under way at a time.
const QUESTIONS_MAX: usize = 16;

/// When everything acknowledged has come except for what is missing, how long to go on waiting for
/// that: numbers that a stream has passed do not come any more.
const STRAGGLERS: Duration = Duration::from_secs(2);

/// How often to look whether everything has come.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Why a check could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CannotRun(pub String);

impl fmt::Display for CannotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CannotRun {}

/// The acts of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Subscribers join.
    Opening,
    /// Events are published.
    Publishing,
    /// Nothing new is published; what is under way may arrive.
    Settling,
    /// Everybody stops.
    Closing,
}

/// What everybody in a check shares.
struct Scene {
    plan: Plan,
    run: String,
    topics: Vec<String>,
    payload: Payload,
    client: Client,
    started: Instant,
    judge: Mutex<Judge>,
    phase: watch::Sender<Phase>,
    questions: Arc<Semaphore>,
    questions_open: AtomicUsize,
    /// To spawn questions from wherever they come up.
    itself: std::sync::Weak<Scene>,
}

impl Scene {
    fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since the start.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn any_url(&self) -> &GatewayUrl {
        &self.plan.urls[fastrand::usize(..self.plan.urls.len())]
    }

    /// Waits until publishing has gone on for `time`.
    async fn until_publishing(&self, time: Duration) {
        let mut phase = self.phase.subscribe();
        let _ = phase.wait_for(|phase| *phase >= Phase::Publishing).await;
        tokio::time::sleep(time).await;
    }

    /// Asks the log, aside.
    fn ask(&self, question: Question) {
        let Some(scene) = self.itself.upgrade() else { return };
        scene.questions_open.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let _permit = scene.questions.acquire().await;
            let (finding, evidence) = history::decide(&scene, &question).await;
            scene.judge().answer(question, finding, &evidence);
            scene.questions_open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Starts checks.
#[derive(Debug)]
pub struct Checker;

impl Checker {
    /// Connects the subscribers that join first, waits until they have had their opening event,
    /// and begins to publish.
    ///
    /// # Errors
    /// [`CannotRun`] if the plan is wrong, no gateway answers as one, or no subscriber gets a
    /// stream within [`Plan::settle`].
    pub async fn start(plan: Plan) -> Result<Running, CannotRun> {
        if let Some(wrong) = plan.wrong() {
            return Err(CannotRun(wrong));
        }
        let run: String = std::iter::repeat_with(fastrand::lowercase).take(6).collect();
        let topics: Vec<String> = (1..=plan.topics).map(|n| format!("check-{run}-{n}")).collect();
        let roles = plan.roles();
        let follows: Vec<Vec<usize>> = roles.iter().map(|role| role.topics.clone()).collect();
        let rules = Rules { idempotent: plan.idempotent, loss_expected: plan.loss_expected };
        let client = Client::new(&plan.headers, plan.answer_within, plan.insecure);
        let client = client.map_err(CannotRun)?;
        let scene = Arc::new_cyclic(|itself| Scene {
            judge: Mutex::new(Judge::new(rules, topics.clone(), &follows)),
            payload: Payload::new(&run, plan.payload_bytes),
            phase: watch::Sender::new(Phase::Opening),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            questions_open: AtomicUsize::new(0),
            started: Instant::now(),
            itself: itself.clone(),
            plan,
            run,
            topics,
            client,
        });
        can_run(&scene).await?;

        let mut tasks = JoinSet::new();
        let first = |join: Join| join == Join::First;
        let witnesses: Vec<usize> =
            roles.iter().enumerate().filter(|(_, role)| first(role.join)).map(|(n, _)| n).collect();
        for (number, role) in roles.into_iter().enumerate() {
            tasks.spawn(subscriber::run(scene.clone(), number, role, scene.phase.subscribe()));
        }
        let deadline = Instant::now() + scene.plan.settle;
        loop {
            let opened = {
                let judge = scene.judge();
                witnesses.iter().filter(|witness| judge.has_opened(**witness)).count()
            };
            if opened == witnesses.len() {
                break;
            }
            if Instant::now() >= deadline {
                if opened == 0 {
                    let within = scene.plan.settle;
                    return Err(CannotRun(format!("no subscriber got a stream within {within:?}")));
                }
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let published_from = Instant::now();
        scene.phase.send_replace(Phase::Publishing);
        let mut publishers = JoinSet::new();
        for publisher in 0..scene.plan.publishers {
            publishers.spawn(publisher::run(scene.clone(), publisher, scene.phase.subscribe()));
        }
        Ok(Running { scene, subscribers: tasks, publishers, published_from })
    }
}

/// Whether at least one gateway to read from and one to publish to answers as one.
async fn can_run(scene: &Scene) -> Result<(), CannotRun> {
    let mut urls: Vec<&[GatewayUrl]> = vec![&scene.plan.urls];
    if !scene.plan.publish_urls.is_empty() {
        urls.push(&scene.plan.publish_urls);
    }
    for urls in urls {
        let mut refusals = Vec::new();
        for base in urls {
            let url = format!("{base}/topics/{}/history?limit=1", scene.topics[0]);
            match scene.client.ask(hyper::Method::GET, &url, &[], String::new()).await {
                // One that cannot serve yet may be able to by the time that it is needed.
                Ok(answer) if answer.status == 200 || answer.status >= 500 => {
                    refusals.clear();
                    break;
                }
                Ok(answer) => refusals.push(format!("{url} answers {}", answer.status)),
                Err(why) => refusals.push(format!("{base} does not answer: {why}")),
            }
        }
        if !refusals.is_empty() {
            return Err(CannotRun(refusals.join("; ")));
        }
    }
    Ok(())
}

/// How a check goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Since the first event was published.
    pub elapsed: Duration,
    /// The sums so far; what is lost is counted only at the end.
    pub counts: Counts,
    /// Half of the deliveries took at most this long after their event was sent.
    pub lag_median: Duration,
    /// The longest that a delivery took.
    pub lag_max: Duration,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        write!(
            f,
            "{:4} s  {} acknowledged, {} delivered, lag {} (max {}), {} roamed, {} dropped, \
             {} resets, {} violations",
            self.elapsed.as_secs(),
            counts.acknowledged,
            counts.delivered,
            milliseconds(self.lag_median),
            milliseconds(self.lag_max),
            counts.roams,
            counts.drops,
            counts.resets,
            counts.violations
        )
    }
}

/// A check that is under way. Ends at once, without a verdict, when dropped.
pub struct Running {
    scene: Arc<Scene>,
    subscribers: JoinSet<()>,
    publishers: JoinSet<()>,
    published_from: Instant,
}

impl Running {
    /// How it goes. Cheap.
    pub fn progress(&self) -> Progress {
        let judge = self.scene.judge();
        Progress {
            elapsed: self.published_from.elapsed(),
            counts: judge.counts(),
            lag_median: judge.lags().quantile(0.5),
            lag_max: judge.lags().max(),
        }
    }

    /// The names of the topics of this check.
    pub fn topics(&self) -> &[String] {
        &self.scene.topics
    }

    /// Waits until [`Plan::duration`] has passed since the first event.
    pub async fn until_planned_end(&self) {
        let left = self.scene.plan.duration.saturating_sub(self.published_from.elapsed());
        tokio::time::sleep(left).await;
    }

    /// How long after `since` the last of the subscribers was delivered an event that was
    /// acknowledged after it; `None` while one of them was not. Only subscribers count that had
    /// joined by then. Exact to some 10 ms and, where a topic has few events, to the time between
    /// two of them.
    pub fn progress_after(&self, since: Instant) -> Option<Duration> {
        let since = since.saturating_duration_since(self.scene.started);
        let reached = self.scene.judge().progress_after(since)?;
        Some(reached.saturating_sub(since))
    }

    /// Waits for [`Running::progress_after`].
    pub async fn next_delivery_after(&self, since: Instant) -> Duration {
        loop {
            if let Some(after) = self.progress_after(since) {
                return after;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Stops publishing, waits until every subscriber has everything that was acknowledged or
    /// [`Plan::settle`] is over, and judges.
    pub async fn finish(mut self) -> Verdict {
        let scene = self.scene.clone();
        let published_for = self.published_from.elapsed();
        scene.phase.send_replace(Phase::Settling);
        let deadline = Instant::now() + scene.plan.settle;
        let answers = async { while self.publishers.join_next().await.is_some() {} };
        // What was not answered may be answered yet; half of the time is for its delivery.
        let _ = tokio::time::timeout(scene.plan.settle / 2, answers).await;
        self.publishers.abort_all();
        let mut all_newest_since = None;
        let mut missing = loop {
            let settled = scene.judge().is_settled();
            let asking = scene.questions_open.load(Ordering::Relaxed) > 0;
            if settled && !asking {
                let missing = scene.judge().missing();
                let since = *all_newest_since.get_or_insert_with(Instant::now);
                if missing.is_empty() || since.elapsed() > STRAGGLERS {
                    break missing;
                }
            }
            if Instant::now() >= deadline {
                break scene.judge().missing();
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        scene.phase.send_replace(Phase::Closing);
        while self.subscribers.join_next().await.is_some() {}
        history::audit(&scene, &mut missing).await;
        let now = scene.now();
        let mut judge = scene.judge();
        judge.close(&missing, now);
        Verdict::new(&judge, &scene.plan, &scene.run, published_for)
    }
}
