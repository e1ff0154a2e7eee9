//! [`World`]: everything together, and every step that can happen in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use stateright::{Model, Property};

use crate::broken::Break;
use crate::client::{Client, Look, Surroundings, Wrong};
use crate::harness::keyspace::Key;
use crate::harness::oracle::Oracle;
use crate::harness::server::Server;
use crate::node::Node;
use crate::server::{append, has};

/// What can happen, and how often: small enough that all of it can be tried.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    pub nodes: usize,
    pub clients: usize,
    /// The clients are boards' streams with snapshots.
    pub snapshots: bool,
    /// Try from every state what comes of it if nothing bad happens any more.
    pub calm: bool,
    /// Announcements may be heard in any order, not only in that of their sending.
    pub disorder: bool,
    pub history_entries_max: usize,
    /// There is a log from the beginning, as a board has; otherwise the first entry makes it.
    pub begun: bool,
    /// Heads are compared again and again, and not only after a reconnect.
    pub audits: bool,
    /// Announcements may be lost while the subscription is up.
    pub losses: bool,
    /// Nodes may leave a topic that nobody watches, and pages may be swept.
    pub sweeps: bool,
    /// What can happen only so often.
    pub left: Left,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Left {
    pub appends: u8,
    /// Clients drop their connection.
    pub drops: u8,
    /// An announcement is heard twice.
    pub echoes: u8,
    /// The subscription of a node breaks.
    pub cuts: u8,
    /// A question of a repair is not answered.
    pub failures: u8,
    /// A replica takes over, with what it has.
    pub failovers: u8,
    pub flushes: u8,
    /// One key is evicted.
    pub evictions: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub log: Server,
    /// What replicas may have: the log as it was, oldest first. Kept while one may take over.
    copies: Vec<Server>,
    oracle: Oracle,
    pub nodes: Vec<Node>,
    pub clients: Vec<Client>,
    left: Left,
    pub wrong: Option<Wrong>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    // What must happen sooner or later.
    RepairGoesOn {
        node: usize,
    },
    LogAnswersRepair {
        node: usize,
    },
    AuditCompares {
        node: usize,
    },
    Hear {
        node: usize,
        at: usize,
    },
    Reconnect {
        node: usize,
    },
    Subscribe {
        node: usize,
    },
    AuditAsks {
        node: usize,
    },
    Answer {
        client: usize,
        cut: usize,
    },
    Step {
        client: usize,
        cut: usize,
        fresh: bool,
    },
    Connect {
        client: usize,
        node: usize,
    },
    // What may happen.
    /// The announcement is lost on the way to these nodes.
    Append {
        lost: usize,
    },
    HearAndAgain {
        node: usize,
        at: usize,
    },
    /// What was announced and not heard may be lost with it.
    Cut {
        node: usize,
        lost: bool,
    },
    RepairFails {
        node: usize,
    },
    Drop {
        client: usize,
    },
    Sweep {
        node: usize,
    },
    FailOver {
        to: usize,
    },
    Flush,
    Evict(Key),
}

/// The model: a world, its bounds, and perhaps something that was broken on purpose.
#[derive(Debug, Clone)]
pub struct World {
    pub bounds: Bounds,
    pub broken: Option<Break>,
    pub seen: Arc<Seen>,
}

/// How often something of interest happened, to know that it can.
#[derive(Debug, Default)]
pub struct Seen {
    pub quiet: AtomicUsize,
}

impl World {
    /// What must happen sooner or later if nothing else does.
    fn owed(&self, state: &State) -> Vec<Action> {
        let mut actions = Vec::new();
        for (at, node) in state.nodes.iter().enumerate() {
            match node.repair_waits() {
                Some(true) => actions.push(Action::LogAnswersRepair { node: at }),
                Some(false) => actions.push(Action::RepairGoesOn { node: at }),
                None => {}
            }
            if node.audit_runs() {
                actions.push(Action::AuditCompares { node: at });
            }
            let heard = if self.bounds.disorder {
                node.announced.len()
            } else {
                1.min(node.announced.len())
            };
            actions.extend((0..heard).map(|n| Action::Hear { node: at, at: n }));
            if !node.connected {
                actions.push(Action::Reconnect { node: at });
            }
            let late = self.broken == Some(Break::ReadBeforeSubscribe) && node.can_subscribe_late();
            if node.can_subscribe() || late {
                actions.push(Action::Subscribe { node: at });
            }
            let audits = self.bounds.audits && self.broken != Some(Break::NoAudit);
            if node.audit_is_due(&state.log, audits) {
                actions.push(Action::AuditAsks { node: at });
            }
        }
        for (at, client) in state.clients.iter().enumerate() {
            let Some(connection) = &client.connection else {
                // Nodes are alike, so that the first to be asked may be the first.
                let first = state.nodes.iter().all(|node| node.topic.is_none());
                let nodes = 0..if first { 1 } else { state.nodes.len() };
                actions.extend(nodes.map(|node| Action::Connect { client: at, node }));
                continue;
            };
            if client.answered().is_some() || connection.is_reading() {
                actions.push(Action::Answer { client: at, cut: 0 });
            } else if !connection.asleep {
                actions.push(Action::Step { client: at, cut: 0, fresh: false });
            }
        }
        actions
    }

    fn may(&self, state: &State, actions: &mut Vec<Action>) {
        let left = &state.left;
        if left.appends > 0 {
            let all = if self.bounds.losses { 1 << state.nodes.len() } else { 1 };
            let may_hear = |node: &Node| node.subscribed;
            let deaf = (0..state.nodes.len()).filter(|&n| !may_hear(&state.nodes[n]));
            let deaf = deaf.fold(0, |deaf, n| deaf | 1 << n);
            let lost = (0..all).filter(|lost| lost & deaf == 0);
            actions.extend(lost.map(|lost| Action::Append { lost }));
        }
        for (at, node) in state.nodes.iter().enumerate() {
            if left.echoes > 0 {
                let all = 0..node.announced.len();
                actions.extend(all.map(|n| Action::HearAndAgain { node: at, at: n }));
            }
            if left.cuts > 0 && node.connected {
                actions.push(Action::Cut { node: at, lost: false });
                if !node.announced.is_empty() {
                    actions.push(Action::Cut { node: at, lost: true });
                }
            }
            if left.failures > 0 && node.repair_waits().is_some() {
                actions.push(Action::RepairFails { node: at });
            }
            let is_here = |client: &Client| {
                client.connection.as_ref().is_some_and(|connection| connection.node == at)
            };
            if self.bounds.sweeps && node.topic.is_some() && !state.clients.iter().any(is_here) {
                actions.push(Action::Sweep { node: at });
            }
        }
        for (at, client) in state.clients.iter().enumerate() {
            let Some(connection) = &client.connection else { continue };
            let look = client.look(&state.nodes[connection.node], self.broken);
            let steps = !connection.is_reading() && !connection.asleep;
            if self.bounds.sweeps && steps && matches!(look, Look::Goes { cached: true, .. }) {
                actions.push(Action::Step { client: at, cut: 0, fresh: true });
            }
            if left.drops == 0 {
                continue;
            }
            actions.push(Action::Drop { client: at });
            match (look, client.answered()) {
                (_, Some(entries)) => {
                    actions.extend((1..entries).map(|cut| Action::Answer { client: at, cut }));
                }
                (Look::Goes { entries, .. }, None) if steps => {
                    let cuts = 1..entries;
                    let cut = |cut| Action::Step { client: at, cut, fresh: false };
                    actions.extend(cuts.map(cut));
                }
                _ => {}
            }
        }
        if left.failovers > 0 {
            actions.extend((0..state.copies.len()).map(|to| Action::FailOver { to }));
        }
        if left.flushes > 0 && has(&state.log, Key::Seq) {
            actions.push(Action::Flush);
        }
        if left.evictions > 0 {
            let keys = [Key::Seq, Key::Log, Key::Meta].into_iter();
            actions.extend(keys.filter(|&key| has(&state.log, key)).map(Action::Evict));
        }
    }

    fn act(&self, state: &mut State, action: Action) -> Result<(), Wrong> {
        let broken = self.broken;
        match action {
            Action::RepairGoesOn { node } => {
                let stood_at = state.nodes[node].tail().map(|tail| tail.head());
                if state.nodes[node].repair_goes_on() {
                    let moved = state.nodes[node].tail().map(|tail| tail.head()) != stood_at;
                    state.wake(node, moved || broken != Some(Break::ConfirmedUntilMoved));
                }
            }
            Action::LogAnswersRepair { node } => {
                let State { log, oracle, nodes, .. } = state;
                nodes[node].repair_reads(log, oracle, broken);
            }
            Action::AuditCompares { node } => state.nodes[node].audit_compares(broken),
            Action::Hear { node, at } => {
                let frame = state.nodes[node].take_announced(at);
                if state.nodes[node].hear(frame, broken) {
                    state.wake(node, false);
                }
            }
            Action::HearAndAgain { node, at } => {
                state.left.echoes -= 1;
                let frame = state.nodes[node].announced[at].clone();
                if state.nodes[node].hear(frame, broken) {
                    state.wake(node, false);
                }
            }
            Action::Reconnect { node } => state.nodes[node].reconnect(broken),
            Action::Subscribe { node } => {
                let node = &mut state.nodes[node];
                if node.can_subscribe() {
                    node.subscribe(broken);
                } else {
                    node.subscribe_late();
                }
            }
            Action::AuditAsks { node } => state.nodes[node].audit_asks(&state.log),
            Action::Step { client, cut, fresh } => {
                state.left.drops -= u8::from(cut > 0);
                let (client, around) = state.served(client, cut, fresh, broken);
                client.step(around)?;
            }
            Action::Answer { client, cut } => {
                state.left.drops -= u8::from(cut > 0);
                let (client, around) = state.served(client, cut, false, broken);
                client.answer(around)?;
            }
            Action::Connect { client, node } => {
                state.nodes[node].join();
                state.clients[client].connect(node);
            }
            Action::Append { lost } => {
                state.left.appends -= 1;
                let State { log, oracle, nodes, .. } = state;
                let frame = append(log, oracle, self.bounds.history_entries_max, broken);
                let heard = nodes.iter_mut().enumerate().filter(|(n, _)| lost & 1 << n == 0);
                heard.for_each(|(_, node)| node.announce(&frame));
            }
            Action::Cut { node, lost } => {
                state.left.cuts -= 1;
                state.nodes[node].disconnect();
                if lost {
                    state.nodes[node].lose_announced();
                }
            }
            Action::RepairFails { node } => {
                state.left.failures -= 1;
                state.nodes[node].repair_fails();
            }
            Action::Drop { client } => {
                state.left.drops -= 1;
                state.clients[client].connection = None;
            }
            Action::Sweep { node } => state.nodes[node].sweep(),
            Action::FailOver { to } => {
                state.left.failovers -= 1;
                state.copies.truncate(to + 1);
                state.log.take_over(&state.copies[to]);
                state.nodes.iter_mut().for_each(Node::disconnect);
            }
            Action::Flush => {
                state.left.flushes -= 1;
                state.log.flush(&mut state.oracle);
            }
            Action::Evict(key) => {
                state.left.evictions -= 1;
                state.log.lose(key, &mut state.oracle);
            }
        }
        Ok(())
    }

    /// Nothing is owed to anybody, and yet somebody has not seen everything.
    fn is_stuck(&self, state: &State) -> bool {
        if state.wrong.is_some() || !self.owed(state).is_empty() {
            return false;
        }
        self.seen.quiet.fetch_add(1, Ordering::Relaxed);
        !state.everybody_has_everything()
    }

    /// Whether everybody gets everything if nothing bad happens any more.
    fn heals(&self, state: &State) -> bool {
        let mut state = state.clone();
        for _ in 0..200 {
            let Some(&action) = self.owed(&state).first() else {
                return state.everybody_has_everything();
            };
            match self.next_state(&state, action) {
                Some(next) if next.wrong.is_none() => state = next,
                _ => return true,
            }
        }
        false
    }
}

impl State {
    fn wake(&mut self, node: usize, renewed: bool) {
        let connections = self.clients.iter_mut().filter_map(|client| client.connection.as_mut());
        for connection in connections.filter(|connection| connection.node == node) {
            connection.asleep = false;
            if renewed {
                connection.renewed();
            }
        }
    }

    fn served(
        &mut self,
        client: usize,
        cut: usize,
        fresh: bool,
        broken: Option<Break>,
    ) -> (&mut Client, Surroundings<'_>) {
        let State { log, oracle, nodes, clients, .. } = self;
        let client = &mut clients[client];
        let node = client.connection.as_ref().map_or(0, |connection| connection.node);
        let node = &mut nodes[node];
        (client, Surroundings { log, oracle, node, broken, cut, fresh })
    }

    /// Whoever would find nothing to say waits to be woken.
    fn put_to_sleep(&mut self, broken: Option<Break>) {
        for client in &mut self.clients {
            let Some(connection) = &client.connection else { continue };
            let node = &self.nodes[connection.node];
            let idle = !connection.asleep
                && !connection.is_reading()
                && client.look(node, broken) == Look::Idle;
            if idle && let Some(connection) = &mut client.connection {
                connection.asleep = true;
            }
        }
    }

    fn replicate(&mut self) {
        if self.left.failovers == 0 {
            self.copies.clear();
        } else if self.copies.last().is_none_or(|copy| *copy != self.log.copy()) {
            self.copies.push(self.log.copy());
        }
    }

    fn everybody_has_everything(&self) -> bool {
        self.clients.iter().all(|client| {
            let follows = client.connection.as_ref().is_some_and(|it| it.is_following());
            let newest = self.oracle.entry(self.log.tip);
            let both_empty = |view| self.oracle.is_empty(view) && self.oracle.is_empty(newest);
            let has = |view| self.oracle.entry(view) == newest || both_empty(view);
            follows && client.view.is_some_and(has)
        })
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut oracle = Oracle::default();
        let mut log = Server::new(oracle.anew());
        if self.bounds.begun {
            log.begin(&mut oracle);
        }
        let node = Node::connected();
        let client = Client::new(self.bounds.snapshots);
        vec![State {
            copies: Vec::new(),
            log,
            oracle,
            nodes: vec![node; self.bounds.nodes],
            clients: vec![client; self.bounds.clients],
            left: self.bounds.left.clone(),
            wrong: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // Nothing that comes after a broken promise is of interest.
        if state.wrong.is_none() {
            actions.extend(self.owed(state));
            self.may(state, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        if let Err(wrong) = self.act(&mut next, action) {
            next.wrong = Some(wrong);
        }
        next.put_to_sleep(self.broken);
        next.replicate();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<World>> {
        let mut properties = vec![
            Property::always(
                "ids go up by one and are what they say",
                |_: &World, state: &State| {
                    !matches!(state.wrong, Some(Wrong::NotTheNext | Wrong::NoSuchPosition))
                },
            ),
            Property::always("no reset is told in vain", |_: &World, state: &State| {
                state.wrong != Some(Wrong::ResetInVain)
            }),
            Property::always(
                "when all is quiet, everybody has seen everything",
                |world: &World, state: &State| !world.is_stuck(state),
            ),
        ];
        if self.bounds.calm {
            properties.push(Property::always("calm heals", World::heals));
        }
        properties
    }
}
