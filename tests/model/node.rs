//! [`Node`]: relay and hub of one node, for one topic; the tail is the real one.
//!
//! The steps are those of `src/relay.rs`: whatever runs there between two awaits is one step here,
//! and each question to the log is asked, answered by the log, and taken note of in steps of
//! their own, between which anything may happen.

use fantail::frame::Frame;
use fantail::hub::tail::{Next, Pushed, Tail};
use fantail::position::{Epoch, LogHistory, Position};

use crate::broken::Break;
use crate::harness::oracle::Oracle;
use crate::harness::server::Server;
use crate::server::Answer;

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Node {
    /// The connection for announcements is up.
    pub connected: bool,
    /// The topic is to be subscribed on whatever connection there is.
    wanted: bool,
    /// Redis sends announcements on the current connection.
    pub subscribed: bool,
    /// A new connection was made: compare heads, once so many announcements that came before were
    /// heard.
    missed: Option<usize>,
    /// Announcements that were sent to this node and not heard yet, in a fixed order: they may be
    /// heard in any.
    pub announced: Vec<Frame>,
    /// The hub's entry.
    pub topic: Option<Topic>,
    pub repair: Option<Repair>,
    audit: Option<Audit>,
    /// What a page of the log was when somebody last read it.
    pub page: Option<Answer>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Topic {
    opening: bool,
    /// Absent until the log was asked.
    pub tail: Option<Tail>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repair {
    /// The hub has swept the topic for which it began.
    orphan: bool,
    /// Announced during the current read.
    pub parked: Vec<Frame>,
    /// Announced before the current read.
    announced: Vec<Frame>,
    /// Somebody found that the log has more.
    again: bool,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    AskedRead { after: u64 },
    AskedOpen,
    Read(Answer),
    Opened(Answer),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Audit {
    known: Option<Position>,
    head: Option<(Epoch, u64)>,
    unwritten_since: u64,
}

/// Whether the watchers of the topic were woken.
pub type Woken = bool;

impl Node {
    pub fn connected() -> Node {
        Node { connected: true, ..Node::default() }
    }

    /// The first connection of a topic has it opened.
    pub fn join(&mut self) {
        self.topic.get_or_insert_with(|| Topic { opening: true, tail: None });
    }

    /// Nobody has watched the topic for long enough.
    pub fn sweep(&mut self) {
        self.topic = None;
        self.missed = None;
        self.wanted = false;
        self.subscribed = false;
        // It holds the swept topic and finds it without a tail.
        self.audit = None;
        if let Some(repair) = &mut self.repair {
            repair.orphan = true;
        }
    }

    pub fn tail(&self) -> Option<&Tail> {
        self.topic.as_ref()?.tail.as_ref()
    }

    fn head(&self) -> Option<Position> {
        self.tail().map(Tail::head)
    }

    // --- The subscription -------------------------------------------------------------------

    pub fn can_subscribe(&self) -> bool {
        self.connected && self.topic.as_ref().is_some_and(|topic| topic.opening)
    }

    /// Subscribes, then has the log read.
    pub fn subscribe(&mut self, broken: Option<Break>) {
        self.topic.as_mut().expect("wanted").opening = false;
        self.wanted = true;
        self.subscribed = broken != Some(Break::ReadBeforeSubscribe);
        self.start_repair(None);
    }

    /// Only one that reads first has this to do.
    pub fn can_subscribe_late(&self) -> bool {
        self.connected && self.wanted && !self.subscribed && self.tail().is_some()
    }

    pub fn subscribe_late(&mut self) {
        self.subscribed = true;
    }

    pub fn disconnect(&mut self) {
        self.connected = false;
        self.subscribed = false;
    }

    /// What was announced and not heard goes down with the connection.
    pub fn lose_announced(&mut self) {
        self.announced.clear();
        self.missed = self.missed.map(|_| 0);
    }

    /// Subscribes everything that is wanted, then tells the relay.
    pub fn reconnect(&mut self, broken: Option<Break>) {
        self.connected = true;
        self.subscribed = self.wanted && broken != Some(Break::NotResubscribed);
        // Without topics there is nothing to compare, and what is joined later reads later.
        let told = self.topic.is_some() && broken != Some(Break::MissedNotTold);
        self.missed = told.then_some(self.announced.len());
    }

    // --- Announcements ----------------------------------------------------------------------

    /// Redis sends an announcement to whoever is subscribed.
    pub fn announce(&mut self, frame: &Frame) {
        if self.subscribed {
            self.announced.push(frame.clone());
            self.announced.sort_by_key(|frame| (frame.position.epoch, frame.position.seq));
        }
    }

    /// The announcement at `at` is next.
    pub fn take_announced(&mut self, at: usize) -> Frame {
        if let Some(before) = &mut self.missed
            && at < *before
        {
            *before -= 1;
        }
        self.announced.remove(at)
    }

    pub fn hear(&mut self, frame: Frame, broken: Option<Break>) -> Woken {
        let Some(topic) = &mut self.topic else { return false };
        if let Some(repair) = &mut self.repair {
            if broken != Some(Break::NotParked) {
                repair.parked.push(frame);
            }
            return false;
        }
        let Some(tail) = &mut topic.tail else { return false };
        match tail.push_announced(frame.clone()) {
            Pushed::Appended => broken != Some(Break::FeedDoesNotWake),
            Pushed::Known => false,
            Pushed::Gap if broken == Some(Break::GapIgnored) => {
                let Position { seq, epoch } = frame.position;
                let head = seq - 1;
                let unwritten = LogHistory::unwritten(u64::MAX, 0);
                *tail = Tail::new(LogHistory { epoch, head, oldest: seq, ..unwritten });
                tail.push_announced(frame);
                true
            }
            Pushed::Gap => {
                self.start_repair(Some(frame));
                false
            }
        }
    }

    // --- Repairs ----------------------------------------------------------------------------

    /// Somebody knows more of the log than the tail.
    pub fn look(&mut self, broken: Option<Break>) {
        if broken != Some(Break::LookAbsorbed) || self.repair.is_none() {
            self.start_repair(None);
        }
    }

    fn start_repair(&mut self, announced: Option<Frame>) {
        match &mut self.repair {
            Some(repair) => match announced {
                Some(frame) => repair.parked.push(frame),
                None => repair.again = true,
            },
            None => {
                let announced = announced.into_iter().collect();
                let stage = self.ask();
                self.repair = Some(Repair {
                    orphan: false,
                    parked: Vec::new(),
                    announced,
                    again: false,
                    stage,
                });
            }
        }
    }

    fn ask(&self) -> Stage {
        match self.head() {
            None => Stage::AskedOpen,
            Some(head) => Stage::AskedRead { after: head.seq },
        }
    }

    /// Whether a repair waits for the log, or has its answer.
    pub fn repair_waits(&self) -> Option<bool> {
        let repair = self.repair.as_ref()?;
        Some(matches!(repair.stage, Stage::AskedRead { .. } | Stage::AskedOpen))
    }

    /// The log answers.
    pub fn repair_reads(&mut self, log: &mut Server, oracle: &mut Oracle, broken: Option<Break>) {
        let Some(repair) = &mut self.repair else { return };
        repair.stage = match repair.stage {
            Stage::AskedRead { after } => Stage::Read(Answer::read(log, oracle, after)),
            Stage::AskedOpen => Stage::Opened(Answer::open(log, oracle, broken)),
            Stage::Read(_) | Stage::Opened(_) => unreachable!("answered already"),
        };
    }

    /// The answer does not come, or did not in time.
    pub fn repair_fails(&mut self) {
        let asked = self.ask();
        let Some(repair) = &mut self.repair else { return };
        if repair.orphan {
            return self.hand_over();
        }
        repair.announced = std::mem::take(&mut repair.parked);
        repair.again = false;
        repair.stage = asked;
    }

    /// A repair whose topic was swept ends. Those who came meanwhile rely on it.
    fn hand_over(&mut self) {
        self.repair = None;
        if self.topic.is_some() {
            self.start_repair(None);
        }
    }

    /// Takes the answer.
    pub fn repair_goes_on(&mut self) -> Woken {
        let Some(repair) = &mut self.repair else { return false };
        if repair.orphan {
            self.hand_over();
            return false;
        }
        let Some(topic) = &mut self.topic else { unreachable!("it would be an orphan") };
        match &repair.stage {
            Stage::Read(answer) if answer.log_is_gone() => {
                repair.stage = Stage::AskedOpen;
                return false;
            }
            Stage::Read(Answer { page: None, .. }) => unreachable!("it is gone"),
            Stage::Read(Answer { page: Some(page), .. }) => {
                let tail = topic.tail.as_mut().expect("a read is asked of an open topic");
                let progress = !page.frames.is_empty();
                if tail.refresh(page.history.clone(), page.frames.clone()) && progress {
                    repair.stage = Stage::AskedRead { after: tail.head().seq };
                    return true;
                }
            }
            Stage::Opened(answer) => {
                let history = answer.page.as_ref().expect("it was opened").history.clone();
                match &mut topic.tail {
                    Some(tail) => {
                        tail.refresh(history, Vec::new());
                    }
                    None => topic.tail = Some(Tail::new(history)),
                }
            }
            Stage::AskedRead { .. } | Stage::AskedOpen => unreachable!("not answered yet"),
        }
        let tail = topic.tail.as_mut().expect("open by now");
        for frame in repair.announced.drain(..) {
            tail.push_announced(frame);
        }
        // Unpark.
        while !repair.again && !repair.parked.is_empty() {
            repair.again = tail.push_announced(repair.parked[0].clone()) == Pushed::Gap;
            if !repair.again {
                repair.parked.remove(0);
            }
        }
        if std::mem::take(&mut repair.again) {
            repair.announced = std::mem::take(&mut repair.parked);
            repair.stage = Stage::AskedRead { after: tail.head().seq };
            return true;
        }
        self.repair = None;
        true
    }

    // --- Audits -----------------------------------------------------------------------------

    /// Whether there is a reason to audit. `periodic` audits are asked for only if they find
    /// something that no repair is about to find, because all others change nothing that the next
    /// one would not.
    pub fn audit_is_due(&self, log: &Server, periodic: bool) -> bool {
        let differs = || {
            self.head().is_some_and(|head| match log.head() {
                Some(now) => now != (head.epoch, head.seq),
                None => head.epoch.unwritten_time().is_none_or(|at| at < log.unwritten_since()),
            })
        };
        let finds = || periodic && self.repair.is_none() && differs();
        self.audit.is_none() && (self.missed == Some(0) || finds())
    }

    pub fn audit_asks(&mut self, log: &Server) {
        self.missed = self.missed.filter(|&before| before > 0);
        let (known, head, unwritten_since) = (self.head(), log.head(), log.unwritten_since());
        self.audit = self.topic.as_ref().map(|_| Audit { known, head, unwritten_since });
    }

    pub fn audit_runs(&self) -> bool {
        self.audit.is_some()
    }

    pub fn audit_compares(&mut self, broken: Option<Break>) {
        let Some(Audit { known, head, unwritten_since }) = self.audit.take() else { return };
        let Some(now) = self.head() else {
            if self.repair.is_some() {
                self.look(broken);
            }
            return;
        };
        let unwritten = now.epoch.unwritten_time();
        let agrees = match head {
            Some((epoch, seq)) => known
                .is_some_and(|known| epoch == now.epoch && (known.seq..=now.seq).contains(&seq)),
            None => known == Some(now) && unwritten.is_some(),
        };
        if !agrees || unwritten.is_some_and(|at| at < unwritten_since) {
            self.look(broken);
        }
    }

    // --- What connections ask ---------------------------------------------------------------

    /// What the tail says comes after `position`.
    pub fn after(&self, position: Position, broken: Option<Break>) -> Option<Next> {
        let tail = self.tail()?;
        let after = tail.after(position);
        if matches!(after, Next::Behind) && broken == Some(Break::GapIgnored) {
            let mut later = (position.seq + 1..tail.head().seq)
                .map(|seq| tail.after(Position { seq, ..position }));
            return later.find(|after| matches!(after, Next::Frames(_))).or(Some(after));
        }
        Some(after)
    }
}
