//! Nodes that share a store which loses lists, forgets the last changes and goes away.

use std::collections::BTreeMap;

use async_trait::async_trait;
use proptest::prelude::*;

use super::*;
use crate::log::{Health, ListVersion, RevocationPage, RevocationRecord};

/// A store whose list can be lost, in part or as a whole.
#[derive(Default)]
struct Store {
    state: Mutex<StoreState>,
}

#[derive(Default)]
struct StoreState {
    list: u64,
    changes: u64,
    records: BTreeMap<RevokedKey, (u64, RevocationRecord)>,
    is_away: bool,
    lists: u64,
}

impl StoreState {
    fn name(&self) -> String {
        if self.list == 0 { String::new() } else { format!("list-{}", self.list) }
    }

    fn rename(&mut self) {
        self.lists += 1;
        self.list = self.lists;
    }
}

const PAGE: usize = 3;

#[async_trait]
impl RevocationStore for Store {
    async fn revocations(&self, known: &ListVersion) -> Result<RevocationPage, LogError> {
        let state = self.state.lock().unwrap();
        if state.is_away {
            return Err(LogError::Unavailable("away".to_owned()));
        }
        let after = if known.list == state.name() { known.changes } else { 0 };
        let mut changed: Vec<(u64, RevocationRecord)> =
            state.records.values().filter(|(change, _)| *change > after).copied().collect();
        changed.sort_by_key(|(change, _)| *change);
        changed.truncate(PAGE);
        let more = changed.len() == PAGE;
        let last = changed.last().map_or(state.changes, |(change, _)| *change);
        let changes = if more { last } else { state.changes };
        let version = ListVersion { list: state.name(), changes };
        let records = changed.into_iter().map(|(_, record)| record).collect();
        Ok(RevocationPage { version, records, more })
    }

    async fn put_revocations(
        &self,
        records: &[RevocationRecord],
        _: Option<usize>,
    ) -> Result<RevocationsPut, LogError> {
        let mut state = self.state.lock().unwrap();
        if state.is_away {
            return Err(LogError::OutcomeUnknown("away".to_owned()));
        }
        if state.list == 0 {
            state.rename();
        }
        for record in records {
            let before = state.records.get(&record.key);
            if before.is_none_or(|(_, before)| before.changed_at < record.changed_at) {
                state.changes += 1;
                let change = state.changes;
                state.records.insert(record.key, (change, *record));
            }
        }
        Ok(RevocationsPut::Taken)
    }

    async fn forget_revocations(&self, _: &[RevocationRecord]) -> Result<(), LogError> {
        Ok(())
    }
}

/// One clock for all, in seconds that a test counts.
#[derive(Default)]
struct Clock(Mutex<u64>);

#[async_trait]
impl Probe for Clock {
    async fn canary(&self) -> Result<(), LogError> {
        Ok(())
    }

    fn health(&self) -> Health {
        Health::Up
    }

    fn name(&self) -> &'static str {
        "clock"
    }

    fn now_milliseconds(&self) -> Option<u64> {
        Some(*self.0.lock().unwrap() * 1_000)
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Somebody says so at one of the nodes.
    Say { node: usize, whom: u8, lifts: bool },
    /// A node asks and tells.
    Exchange(usize),
    /// A node is a new process.
    Restart(usize),
    /// The store goes away, or comes back.
    Away(bool),
    /// It loses its list.
    Flush,
    /// Another process takes over, without the last so many changes.
    TakeOver(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize, 0..6_u8, any::<bool>())
            .prop_map(|(node, whom, lifts)| Step::Say { node, whom, lifts }),
        6 => (0..3_usize).prop_map(Step::Exchange),
        1 => (1..3_usize).prop_map(Step::Restart),
        2 => any::<bool>().prop_map(Step::Away),
        1 => Just(Step::Flush),
        1 => (0..4_u64).prop_map(Step::TakeOver),
    ]
}

fn whom(n: u8) -> Whom {
    if n.is_multiple_of(2) {
        Whom::Subject(format!("s{n}"))
    } else {
        Whom::TokenId(format!("t{n}"))
    }
}

fn revoked(node: &Revocations) -> Vec<u8> {
    let revocable = |n: u8| match whom(n) {
        whom @ Whom::Subject(_) => Revocable { subject: Some(whom.key()), ..Revocable::default() },
        whom @ Whom::TokenId(_) => Revocable { token_id: Some(whom.key()), ..Revocable::default() },
    };
    (0..6).filter(|n| node.have_revoked(&revocable(*n))).collect()
}

proptest! {
    /// Node 0 lives throughout, and knows of every change before the next: whatever happens to the
    /// store, all nodes come to say the same, and that is what was said last.
    #[test]
    fn whatever_the_store_loses_all_nodes_come_to_hold_what_was_said_last(
        steps in proptest::collection::vec(any_step(), 1..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = Arc::new(Store::default());
            let clock = Arc::new(Clock::default());
            let fresh = || Revocations::new(store.clone(), clock.clone());
            let mut nodes = [fresh(), fresh(), fresh()];
            let mut said = BTreeMap::new();
            for step in steps {
                *clock.0.lock().unwrap() += 1;
                match step {
                    Step::Say { node, whom: n, lifts } => {
                        // Elsewhere only what the living node will hear of before the store can lose it.
                        let node = if store.state.lock().unwrap().is_away { 0 } else { node };
                        let _ = match lifts {
                            false => nodes[node].take_back(&whom(n), None).await,
                            true => nodes[node].lift(&whom(n)).await,
                        };
                        said.insert(n, !lifts);
                        let _ = nodes[0].exchange(&mut None).await;
                    }
                    Step::Exchange(node) => {
                        let _ = nodes[node].exchange(&mut None).await;
                    }
                    Step::Restart(node) => nodes[node] = fresh(),
                    Step::Away(is_away) => store.state.lock().unwrap().is_away = is_away,
                    Step::Flush => {
                        let mut state = store.state.lock().unwrap();
                        state.records.clear();
                        (state.list, state.changes) = (0, 0);
                    }
                    Step::TakeOver(lost) => {
                        let mut state = store.state.lock().unwrap();
                        if state.list != 0 {
                            state.rename();
                            state.changes = state.changes.saturating_sub(lost);
                            let changes = state.changes;
                            state.records.retain(|_, (change, _)| *change <= changes);
                        }
                    }
                }
            }
            store.state.lock().unwrap().is_away = false;
            for node in [0, 1, 2, 0, 1, 2] {
                nodes[node].exchange(&mut None).await.unwrap();
            }
            let expected: Vec<u8> =
                said.iter().filter(|(_, revoked)| **revoked).map(|(n, _)| *n).collect();
            for node in &nodes {
                prop_assert_eq!(&revoked(node), &expected);
            }
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_read_no_list_knows_nothing_and_one_that_is_missing_is_believed_late() {
    let store = Arc::new(Store::default());
    store.state.lock().unwrap().is_away = true;
    let node = Revocations::new(store.clone(), Arc::new(Clock::default()));
    let running = tokio::spawn(node.clone().run());
    assert!(!node.are_known(Duration::from_secs(3600)).await);
    store.state.lock().unwrap().is_away = false;
    let began_at = Instant::now();
    assert!(node.are_known(Duration::from_secs(3600)).await);
    assert!(began_at.elapsed() >= ABSENT_FOR, "{:?}", began_at.elapsed());

    let _ = node.take_back(&whom(0), None).await;
    let other = Revocations::new(store, Arc::new(Clock::default()));
    let other_running = tokio::spawn(other.clone().run());
    let began_at = Instant::now();
    assert!(other.are_known(Duration::from_secs(3600)).await);
    assert!(began_at.elapsed() < INTERVAL, "{:?}", began_at.elapsed());
    assert_eq!(revoked(&other), [0]);
    running.abort();
    other_running.abort();
}

#[tokio::test]
async fn what_is_said_while_the_store_is_away_holds_here_and_is_told_later() {
    let store = Arc::new(Store::default());
    let clock = Arc::new(Clock::default());
    let [here, there] = [(), ()].map(|()| Revocations::new(store.clone(), clock.clone()));
    store.state.lock().unwrap().is_away = true;
    let mut news = here.news();
    news.borrow_and_update();
    let said = here.take_back(&whom(1), None).await;
    assert!(matches!(said, Err(NotRevoked::HereAlone(_))), "{said:?}");
    assert!(news.has_changed().unwrap());
    assert_eq!(revoked(&here), [1]);
    store.state.lock().unwrap().is_away = false;
    here.exchange(&mut None).await.unwrap();
    there.exchange(&mut None).await.unwrap();
    assert_eq!(revoked(&there), [1]);
}

#[test]
fn subjects_and_token_ids_are_told_apart() {
    assert_ne!(Whom::Subject("a".to_owned()).key(), Whom::TokenId("a".to_owned()).key());
    let mut grant = Grant::nothing();
    grant.subject = Some("a".to_owned());
    grant.issued_at = Some(7);
    let revocable = Revocable::of(&grant);
    assert_eq!(revocable.subject, Some(Whom::Subject("a".to_owned()).key()));
    assert_eq!((revocable.token_id, revocable.issued_at), (None, Some(7)));
}
