//! [`Client`]: what a browser knows, and the follower that serves it (`connection/follower.rs`).

use fantail::frame::Frame;
use fantail::position::{LogHistory, Position, Verdict};
use fantail::replay::page::page_will_do;
use fantail::stream::decide::{self, Judgement, Step};

use crate::broken::Break;
use crate::harness::oracle::{LogEvent, Oracle};
use crate::harness::server::Server;
use crate::node::Node;
use crate::server::{Answer, Page, log_event};

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Client {
    /// It asked for snapshots.
    snapshot: bool,
    /// Its last event id.
    id: Option<Position>,
    /// What it has truly seen; nothing before its first snapshot.
    pub view: Option<LogEvent>,
    pub connection: Option<Connection>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Connection {
    pub node: usize,
    /// `None` until the topic is open and the hello is sent.
    place: Option<Position>,
    snapshot_due: bool,
    /// The log confirmed the place, and the tail was not renewed since.
    confirmed: bool,
    reading: Option<Reading>,
    /// It has looked and there was nothing to say: it waits to be woken.
    pub asleep: bool,
}

/// A question to the log that was answered, but whose answer the connection has not seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Reading {
    what: Question,
    /// The tail was renewed since it was asked.
    outdated: bool,
    answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Question {
    Page,
    LogHistory,
    Board,
}

/// A promise that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// An entry was delivered that does not follow what the client has seen.
    NotTheNext,
    /// An id was given out that means nothing.
    NoSuchPosition,
    /// A reset although nothing was lost.
    ResetInVain,
}

/// How a connection's look at its subscription goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// There is nothing to say.
    Idle,
    /// Something is said, or the log is asked.
    Goes {
        /// How many entries are handed out at once.
        entries: usize,
        /// A page that was read before is used; it could as well have been swept by now.
        cached: bool,
    },
}

/// What a step of a client's connection takes place among.
pub struct Surroundings<'a> {
    pub log: &'a mut Server,
    pub oracle: &'a mut Oracle,
    pub node: &'a mut Node,
    pub broken: Option<Break>,
    /// The connection breaks after so many entries of the handout; 0 if it does not.
    pub cut: usize,
    /// Do not use a page that was read before.
    pub fresh: bool,
}

impl Client {
    pub fn new(snapshot: bool) -> Client {
        Client { snapshot, ..Client::default() }
    }

    pub fn connect(&mut self, node: usize) {
        self.connection = Some(Connection {
            node,
            place: None,
            snapshot_due: false,
            confirmed: false,
            reading: None,
            asleep: false,
        });
    }

    /// What the next look of the connection would do.
    pub fn look(&self, node: &Node, broken: Option<Break>) -> Look {
        const GOES: Look = Look::Goes { entries: 0, cached: false };
        let Some(connection) = &self.connection else { return Look::Idle };
        let Some(place) = connection.place else {
            return if node.tail().is_some() { GOES } else { Look::Idle };
        };
        if connection.snapshot_due {
            return GOES;
        }
        match decide::after_tail(node.after(place, broken), connection.confirmed) {
            Step::Wait => Look::Idle,
            Step::Say(frames) => Look::Goes { entries: frames.len(), cached: false },
            Step::ReadLog => match cached(node, place, broken) {
                Some(answer) => Look::Goes { entries: next(answer, place).len(), cached: true },
                None => GOES,
            },
            Step::AskLog => GOES,
        }
    }

    /// Whether an answer of the log waits to be seen, and how many entries it leads to.
    pub fn answered(&self) -> Option<usize> {
        let connection = self.connection.as_ref()?;
        let reading = connection.reading.as_ref()?;
        let place = connection.place?;
        Some(match reading.what {
            Question::Page => next(&reading.answer, place).len(),
            Question::LogHistory | Question::Board => 0,
        })
    }

    /// Looks at the subscription.
    pub fn step(&mut self, around: Surroundings<'_>) -> Result<(), Wrong> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let Some(place) = connection.place else { return self.hello(around) };
        let confirmed = connection.confirmed;
        let mut ask = |what, answer| {
            connection.reading = Some(Reading { what, outdated: false, answer });
            Ok(())
        };
        if connection.snapshot_due {
            let answer = Answer::open(around.log, around.oracle, around.broken);
            return ask(Question::Board, answer);
        }
        match decide::after_tail(around.node.after(place, around.broken), confirmed) {
            Step::Say(frames) => self.deliver(&frames, around),
            Step::ReadLog => match cached(around.node, place, around.broken) {
                Some(answer) if !around.fresh => {
                    // Whether a reset is told in vain is a matter of now.
                    let page = answer.page.clone();
                    let answer = Answer::now(around.log, page);
                    self.take(Reading { what: Question::Page, outdated: false, answer }, around)
                }
                _ => ask(Question::Page, Answer::read(around.log, around.oracle, 0)),
            },
            Step::AskLog => {
                let answer = Answer::read(around.log, around.oracle, u64::MAX - 1);
                ask(Question::LogHistory, answer)
            }
            Step::Wait => Ok(()),
        }
    }

    /// Sees the log's answer.
    pub fn answer(&mut self, around: Surroundings<'_>) -> Result<(), Wrong> {
        let connection = self.connection.as_mut().expect("it reads");
        let reading = connection.reading.take().expect("it reads");
        if reading.what == Question::Page {
            around.node.page = Some(reading.answer.clone());
        }
        self.take(reading, around)
    }

    /// Says where the stream begins.
    fn hello(&mut self, around: Surroundings<'_>) -> Result<(), Wrong> {
        let connection = self.connection.as_mut().expect("it opens");
        let head = around.node.tail().expect("it is open").head();
        let mut place = self.id.unwrap_or(head);
        if around.broken == Some(Break::EpochForgotten) {
            place.epoch = head.epoch;
        }
        if self.snapshot && (self.id.is_none() || place.seq == 0) {
            place = Position { seq: 0, epoch: head.epoch };
            connection.snapshot_due = true;
        }
        connection.place = Some(place);
        if self.id.is_none() && !self.snapshot {
            self.view = Some(around.oracle.at(place).ok_or(Wrong::NoSuchPosition)?);
        }
        let hides = around.broken == Some(Break::ConnectedCarriesHead);
        self.id = Some(if hides { head } else { place });
        Ok(())
    }

    fn deliver(&mut self, frames: &[Frame], around: Surroundings<'_>) -> Result<(), Wrong> {
        let connection = self.connection.as_mut().expect("it is served");
        let count = if around.cut > 0 { around.cut } else { frames.len() };
        for frame in &frames[..count] {
            let view = self.view.ok_or(Wrong::NotTheNext)?;
            if !around.oracle.is_next(view, log_event(frame)) {
                return Err(Wrong::NotTheNext);
            }
            let said = around.oracle.at(frame.position).map(|said| around.oracle.entry(said));
            if said != Some(log_event(frame)) {
                return Err(Wrong::NoSuchPosition);
            }
            self.view = Some(log_event(frame));
            self.id = Some(frame.position);
        }
        connection.confirmed = false;
        connection.place = self.id;
        if around.broken == Some(Break::DeliveredTwice)
            && let Some(place) = &mut connection.place
        {
            place.seq -= 1;
        }
        if around.cut > 0 {
            self.connection = None;
        }
        Ok(())
    }

    fn take(&mut self, reading: Reading, around: Surroundings<'_>) -> Result<(), Wrong> {
        let connection = self.connection.as_mut().expect("it reads");
        let place = connection.place.expect("it follows");
        let Some(page) = &reading.answer.page else {
            // The log is gone: the relay makes it anew; we ask again a little later.
            around.node.look(around.broken);
            return Ok(());
        };
        match reading.what {
            Question::Board => {
                let position = page.history.at(page.history.head);
                connection.place = Some(position);
                connection.snapshot_due = false;
                connection.confirmed = false;
                self.view = Some(reading.answer.tip);
                self.id = Some(position);
                return Ok(());
            }
            Question::Page => {
                let frames = next(&reading.answer, place);
                if !frames.is_empty() {
                    let frames = frames.to_vec();
                    return self.deliver(&frames, around);
                }
                if around.broken == Some(Break::TrimmedNotTold)
                    && page.history.judge(place) == Verdict::Trimmed
                    && !page.frames.is_empty()
                {
                    let frames = page.frames.clone();
                    return self.deliver(&frames, around);
                }
            }
            Question::LogHistory => {}
        }
        let unsure_is_lost = around.broken == Some(Break::UnsureIsLost);
        if decide::by_log(&page.history, place) == Judgement::Confirmed && !unsure_is_lost {
            // The client is right and this node is late.
            connection.confirmed = !reading.outdated;
            around.node.look(around.broken);
            return Ok(());
        }
        self.reset(place, &page.history, &reading.answer, around)
    }

    fn reset(
        &mut self,
        from: Position,
        history: &LogHistory,
        answer: &Answer,
        around: Surroundings<'_>,
    ) -> Result<(), Wrong> {
        let connection = self.connection.as_mut().expect("it is served");
        let excused = around.oracle.is_forgotten(from.epoch);
        if around.oracle.continues(from, answer.tip, answer.oldest) && !excused {
            return Err(Wrong::ResetInVain);
        }
        connection.confirmed = false;
        let start = decide::after_reset(history);
        if self.snapshot {
            // It shows what it has until the snapshot comes.
            connection.snapshot_due = true;
            if around.broken == Some(Break::IdBeforeSnapshot) {
                self.id = Some(start);
            }
        } else {
            connection.place = Some(start);
            self.view = Some(around.oracle.at(start).ok_or(Wrong::NoSuchPosition)?);
            self.id = Some(start);
        }
        Ok(())
    }
}

impl Connection {
    /// The tail was brought to where the log was.
    pub fn renewed(&mut self) {
        self.confirmed = false;
        if let Some(reading) = &mut self.reading {
            reading.outdated = true;
        }
    }

    pub fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    pub fn is_following(&self) -> bool {
        self.place.is_some()
    }
}

/// The page that somebody read before, if it will do for `place` (`replay.rs`).
fn cached(node: &Node, place: Position, broken: Option<Break>) -> Option<&Answer> {
    let answer = node.page.as_ref()?;
    let page = answer.page.as_ref()?;
    let tail_head = node.tail()?.head();
    let has_next = page.frames.iter().any(|frame| frame.position.seq == place.seq + 1);
    let will_do = match broken {
        Some(Break::AnyPageWillDo) => has_next,
        Some(Break::PageAheadOfTail) => {
            let ahead = Position { seq: tail_head.seq.max(page.history.head), ..tail_head };
            page_will_do(&page.history, &page.frames, place, ahead)
        }
        _ => page_will_do(&page.history, &page.frames, place, tail_head),
    };
    will_do.then_some(answer)
}

/// The frames of a page that come after `place`, if the page's history says that it continues.
fn next(answer: &Answer, place: Position) -> &[Frame] {
    let Some(Page { history, frames }) = &answer.page else { return &[] };
    decide::by_page(history, frames, place).unwrap_or(&[])
}
