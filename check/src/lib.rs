//! `fantail check`: an independent witness of the promises, against any running gateways.
//!
//! [`Check::start`] sends publishers and roaming subscribers to work; [`Check::progress`] says how
//! it goes; [`Check::finish`] waits for the last deliveries and returns the [`Verdict`]. Requests
//! that fail and connections that break are normal to it: what counts is what is promised.
//!
//! Whoever tests with faults starts a check, does harm while it runs, and reads the verdict.
//!
//! # How it sees
//!
//! The data of every event says which one it is. The [`checker`] keeps, for each subscriber and
//! topic, a [`view`] of the numbers that were delivered, and one [`publish_log`] of what was
//! acknowledged where. It knows the gateways over HTTP alone and shares no code with them: streams
//! are read by a parser of its own ([`event_stream`]), and so are the ids on them ([`position`]).
//!
//! # What it cannot see
//!
//! - A reset is judged by what `GET /topics/{topic}/history` says afterwards ([`history`]): a
//!   gateway that lies in both is believed.
//! - Of an event that was sent before a subscriber joined, and that has another epoch than the
//!   position where it joined, nobody can say whether it was due to that subscriber. Those who
//!   joined before it are its witnesses; every topic has one.
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

pub mod checker;
mod client;
pub mod event_stream;
mod history;
mod latency;
mod payload;
mod plan;
pub mod position;
pub mod publish_log;
mod publisher;
mod subscriber;
mod verdict;
pub mod view;
mod violation;

pub use checker::Counts;
pub use latency::LatencyHistogram;
pub use plan::{GatewayUrl, Plan};
pub use verdict::{Outcome, Verdict};
pub use view::ResetReason;
pub use violation::{Kind, Violation};

use checker::{Checker, Question, Rules};
use client::Client;
use payload::Payload;
use plan::{Join, Role};
use verdict::milliseconds;

/// Questions to the log that are under way at a time.
const QUESTIONS_MAX: usize = 16;

/// When everything acknowledged has come except for what is missing, how long to go on waiting for
/// that: numbers that a stream has passed do not come any more.
const STRAGGLER_TIMEOUT: Duration = Duration::from_secs(2);

/// How often to look whether everything has come.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

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
struct CheckContext {
    plan: Plan,
    run: String,
    topics: Vec<String>,
    payload: Payload,
    client: Client,
    started: Instant,
    checker: Mutex<Checker>,
    phase: watch::Sender<Phase>,
    questions: Arc<Semaphore>,
    questions_open: AtomicUsize,
    /// To spawn questions from wherever they come up.
    itself: std::sync::Weak<CheckContext>,
}

impl CheckContext {
    fn checker(&self) -> MutexGuard<'_, Checker> {
        self.checker.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Asks the log, in a task of its own.
    fn ask_log(&self, question: Question) {
        let Some(context) = self.itself.upgrade() else { return };
        context.questions_open.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let _permit = context.questions.acquire().await;
            let evidence = history::evidence_on(&context, &question).await;
            context.checker().answer_question(question, &evidence);
            context.questions_open.fetch_sub(1, Ordering::Relaxed);
        });
    }
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
pub struct Check {
    context: Arc<CheckContext>,
    subscribers: JoinSet<()>,
    publishers: JoinSet<()>,
    published_from: Instant,
}

impl Check {
    /// Connects the subscribers that join first, waits until they have had their opening event,
    /// and begins to publish.
    ///
    /// # Errors
    /// [`CannotRun`] if the plan is wrong, no gateway answers as one, or no subscriber gets a
    /// stream within [`Plan::settle`].
    pub async fn start(plan: Plan) -> Result<Check, CannotRun> {
        plan.validate().map_err(CannotRun)?;
        let run: String = std::iter::repeat_with(fastrand::lowercase).take(6).collect();
        let topics: Vec<String> = (1..=plan.topics).map(|n| format!("check-{run}-{n}")).collect();
        let roles = plan.roles();
        let follows: Vec<Vec<usize>> = roles.iter().map(|role| role.topics.clone()).collect();
        let rules = Rules { idempotent: plan.idempotent, loss_expected: plan.loss_expected };
        let client = Client::new(&plan.headers, plan.answer_timeout, plan.insecure);
        let client = client.map_err(CannotRun)?;
        let context = Arc::new_cyclic(|itself| CheckContext {
            checker: Mutex::new(Checker::new(rules, topics.clone(), &follows)),
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
        check_reachable(&context).await?;

        let mut subscribers = JoinSet::new();
        let is_first = |(_, role): &(usize, &Role)| role.join == Join::First;
        let witnesses: Vec<usize> =
            roles.iter().enumerate().filter(is_first).map(|(number, _)| number).collect();
        for (number, role) in roles.into_iter().enumerate() {
            subscribers.spawn(subscriber::run(
                context.clone(),
                number,
                role,
                context.phase.subscribe(),
            ));
        }
        until_opened(&context, &witnesses).await?;
        let published_from = Instant::now();
        context.phase.send_replace(Phase::Publishing);
        let mut publishers = JoinSet::new();
        for publisher in 0..context.plan.publishers {
            publishers.spawn(publisher::run(context.clone(), publisher, context.phase.subscribe()));
        }
        Ok(Check { context, subscribers, publishers, published_from })
    }

    /// How it goes. Cheap.
    pub fn progress(&self) -> Progress {
        let checker = self.context.checker();
        Progress {
            elapsed: self.published_from.elapsed(),
            counts: checker.counts(),
            lag_median: checker.lags().quantile(0.5),
            lag_max: checker.lags().max(),
        }
    }

    /// The names of the topics of this check.
    pub fn topics(&self) -> &[String] {
        &self.context.topics
    }

    /// Waits until [`Plan::duration`] has passed since the first event.
    pub async fn until_planned_end(&self) {
        let left = self.context.plan.duration.saturating_sub(self.published_from.elapsed());
        tokio::time::sleep(left).await;
    }

    /// How long after `since` the last of the subscribers was delivered an event that was
    /// acknowledged after it; `None` while one of them was not. Only subscribers count that had
    /// joined by then. Exact to some 10 ms and, where a topic has few events, to the time between
    /// two of them.
    pub fn progress_after(&self, since: Instant) -> Option<Duration> {
        let since = since.saturating_duration_since(self.context.started);
        let reached = self.context.checker().progress_after(since)?;
        Some(reached.saturating_sub(since))
    }

    /// Waits for [`Check::progress_after`].
    pub async fn next_delivery_after(&self, since: Instant) -> Duration {
        loop {
            if let Some(after) = self.progress_after(since) {
                return after;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Stops publishing, waits until every subscriber has everything that was acknowledged or
    /// [`Plan::settle`] is over, and judges.
    pub async fn finish(mut self) -> Verdict {
        let context = self.context.clone();
        let published_for = self.published_from.elapsed();
        context.phase.send_replace(Phase::Settling);
        let deadline = Instant::now() + context.plan.settle;
        let answers = async { while self.publishers.join_next().await.is_some() {} };
        // What was not answered may be answered yet; half of the time is for its delivery.
        let _ = tokio::time::timeout(context.plan.settle / 2, answers).await;
        self.publishers.abort_all();
        let mut all_newest_since = None;
        let mut missing = loop {
            let settled = context.checker().is_settled();
            let asking = context.questions_open.load(Ordering::Relaxed) > 0;
            if settled && !asking {
                let missing = context.checker().missing();
                let since = *all_newest_since.get_or_insert_with(Instant::now);
                if missing.is_empty() || since.elapsed() > STRAGGLER_TIMEOUT {
                    break missing;
                }
            }
            if Instant::now() >= deadline {
                break context.checker().missing();
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        };
        context.phase.send_replace(Phase::Closing);
        while self.subscribers.join_next().await.is_some() {}
        history::verify_missing(&context, &mut missing).await;
        let now = context.now();
        let mut checker = context.checker();
        checker.close(&missing, now);
        Verdict::new(&checker, &context.plan, &context.run, published_for)
    }
}

/// Whether at least one gateway to read from and one to publish to answers as one.
async fn check_reachable(context: &CheckContext) -> Result<(), CannotRun> {
    let mut urls: Vec<&[GatewayUrl]> = vec![&context.plan.urls];
    if !context.plan.publish_urls.is_empty() {
        urls.push(&context.plan.publish_urls);
    }
    for urls in urls {
        let mut refusals = Vec::new();
        for base in urls {
            let url = format!("{base}/topics/{}/history?limit=1", context.topics[0]);
            match context.client.ask(hyper::Method::GET, &url, &[], String::new()).await {
                // One that cannot serve yet may be able to by the time that it is needed.
                Ok(answer) if answer.status == 200 || answer.status >= 500 => {
                    refusals.clear();
                    break;
                }
                Ok(answer) => {
                    refusals.push(format!("{} answers {}", base.place(), answer.status));
                }
                Err(why) => refusals.push(format!("{} does not answer: {why}", base.place())),
            }
        }
        if !refusals.is_empty() {
            return Err(CannotRun(refusals.join("; ")));
        }
    }
    Ok(())
}

/// Waits until these subscribers have had their opening event, or [`Plan::settle`] is over.
async fn until_opened(context: &CheckContext, witnesses: &[usize]) -> Result<(), CannotRun> {
    let within = context.plan.settle;
    let deadline = Instant::now() + within;
    loop {
        let opened = {
            let checker = context.checker();
            witnesses.iter().filter(|witness| checker.has_opened(**witness)).count()
        };
        if opened == witnesses.len() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            // Those that have none may get one yet; that they did not by the end is in the verdict.
            let none = CannotRun(format!("no subscriber got a stream within {within:?}"));
            return if opened == 0 { Err(none) } else { Ok(()) };
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
