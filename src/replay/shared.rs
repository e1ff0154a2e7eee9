//! [`Shared`]: results of reads, shared by those who asked before they began.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::log::LogError;

/// Results of reads, some of which are kept for a while.
pub(crate) struct Shared<K, V, E = LogError> {
    slots: Mutex<BTreeMap<K, Arc<Slot<V, E>>>>,
    slots_max: usize,
}

struct Slot<V, E> {
    asked_at: Mutex<Instant>,
    /// Held while reading; the next in line finds what was read.
    last: AsyncMutex<Option<(Instant, Result<V, E>)>>,
}

impl<K: Ord + Clone, V: Clone, E: Clone> Shared<K, V, E> {
    /// Keeps results for so many keys at most.
    pub(crate) fn new(slots_max: usize) -> Shared<K, V, E> {
        Shared { slots: Mutex::default(), slots_max }
    }

    /// The result of a read of `key` that began after this call, or an earlier one that is
    /// `good` all the same. `read` is given the result before, which nobody else has then. Failures
    /// are shared too, so that a log that does not answer is not asked once per client.
    pub(super) async fn get<F: Future<Output = Result<V, E>>>(
        &self,
        key: K,
        good: impl Fn(&V) -> bool,
        read: impl FnOnce(Option<V>) -> F,
    ) -> Result<V, E> {
        let asked_at = Instant::now();
        self.slot(key, asked_at).get(asked_at, good, read).await
    }

    /// The result of a read of `key` that began after this call: the same for all who ask before it
    /// begins, and kept for nobody who asks later. A read whose asker is gone is begun anew by the
    /// next in line.
    pub(crate) async fn together<F: Future<Output = Result<V, E>>>(
        &self,
        key: K,
        read: impl FnOnce() -> F,
    ) -> Result<V, E> {
        let asked_at = Instant::now();
        let slot = self.slot(key.clone(), asked_at);
        let asking = Asking { shared: self, key, slot };
        asking.slot.get(asked_at, |_| false, |_| read()).await
    }

    /// The last key in a range that a result is kept for, or being read.
    pub(super) fn last_in(&self, range: RangeInclusive<K>) -> Option<K> {
        self.slots().range(range).next_back().map(|(key, _)| key.clone())
    }

    fn slot(&self, key: K, asked_at: Instant) -> Arc<Slot<V, E>> {
        let mut slots = self.slots();
        if slots.len() >= self.slots_max && !slots.contains_key(&key) {
            remove_oldest(&mut slots);
        }
        let slot = slots.entry(key).or_insert_with(|| {
            Arc::new(Slot { asked_at: Mutex::new(asked_at), last: AsyncMutex::new(None) })
        });
        *slot.asked_at.lock().unwrap_or_else(PoisonError::into_inner) = asked_at;
        slot.clone()
    }

    /// Forgets the results that nobody asked for for so long.
    pub(super) fn sweep(&self, stays: Duration) {
        self.slots().retain(|_, slot| slot.asked_at().elapsed() < stays);
    }

    /// Forgets the result that nobody asked for for longest; who waits for it still gets it. Says
    /// whether there was one.
    pub(super) fn forget_oldest(&self) -> bool {
        remove_oldest(&mut self.slots())
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<K, Arc<Slot<V, E>>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Clone, E: Clone> Slot<V, E> {
    async fn get<F: Future<Output = Result<V, E>>>(
        &self,
        asked_at: Instant,
        good: impl Fn(&V) -> bool,
        read: impl FnOnce(Option<V>) -> F,
    ) -> Result<V, E> {
        let mut last = self.last.lock().await;
        if let Some((began_at, result)) = &*last
            && (*began_at > asked_at || result.as_ref().is_ok_and(good))
        {
            return result.clone();
        }
        let began_at = Instant::now();
        let before = last.take().and_then(|(_, result)| result.ok());
        let result = read(before).await;
        *last = Some((began_at, result.clone()));
        result
    }
}

impl<V, E> Slot<V, E> {
    fn asked_at(&self) -> Instant {
        *self.asked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who asks together with others. The last to leave takes the result along.
struct Asking<'a, K: Ord, V, E> {
    shared: &'a Shared<K, V, E>,
    key: K,
    slot: Arc<Slot<V, E>>,
}

impl<K: Ord, V, E> Drop for Asking<'_, K, V, E> {
    fn drop(&mut self) {
        let mut slots = self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = slots.get(&self.key).is_some_and(|slot| Arc::ptr_eq(slot, &self.slot));
        // Ours and the map's: who asks gets another under this lock alone.
        if is_there && Arc::strong_count(&self.slot) == 2 {
            slots.remove(&self.key);
        }
    }
}

fn remove_oldest<K: Ord + Clone, V, E>(slots: &mut BTreeMap<K, Arc<Slot<V, E>>>) -> bool {
    let oldest = slots.iter().min_by_key(|(_, slot)| slot.asked_at());
    let Some(key) = oldest.map(|(key, _)| key.clone()) else { return false };
    slots.remove(&key).is_some()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_asks_while_a_read_runs_shares_the_next_one() {
        let shared = Arc::new(Shared::<u32, usize>::new(9));
        let reads = Arc::new(AtomicUsize::new(0));
        let mut asking = Vec::new();
        for n in 0..1000_u64 {
            let (shared, reads) = (shared.clone(), reads.clone());
            asking.push(tokio::spawn(async move {
                // Half come while the first read runs.
                tokio::time::sleep(Duration::from_millis(n % 2)).await;
                let read = |_| async {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    Ok(reads.fetch_add(1, Ordering::Relaxed))
                };
                shared.get(7, |_| false, read).await.unwrap()
            }));
        }
        for asked in asking {
            asked.await.unwrap();
        }
        assert!(reads.load(Ordering::Relaxed) <= 3, "{reads:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_from_before_the_question_is_no_answer_unless_it_is_good() {
        let shared = Shared::<u32, usize>::new(9);
        let read = |n| move |_| async move { Ok(n) };
        assert_eq!(shared.get(1, |_| false, read(1)).await.unwrap(), 1);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(shared.get(1, |_| false, read(2)).await.unwrap(), 2);
        assert_eq!(shared.get(1, |&n| n == 2, read(3)).await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_is_no_room_the_one_goes_that_nobody_asked_for_for_longest() {
        let shared = Shared::<u32, u32>::new(3);
        let read = |n| move |_| async move { Ok(n) };
        for n in [1, 2, 3, 1, 4] {
            tokio::time::advance(Duration::from_millis(1)).await;
            shared.get(n, |_| true, read(n)).await.unwrap();
        }
        let kept: Vec<u32> = shared.slots().keys().copied().collect();
        assert_eq!(kept, [1, 3, 4]);
        assert_eq!(shared.last_in(0..=2), Some(1));
        assert!(shared.forget_oldest());
        assert_eq!(shared.last_in(0..=3), Some(1));
    }
    #[tokio::test(start_paused = true)]
    async fn who_asks_together_has_one_answer_as_new_as_the_question_and_leaves_none_behind() {
        let shared = Arc::new(Shared::<u32, Arc<usize>>::new(usize::MAX));
        let begun = Arc::new(AtomicUsize::new(0));
        let mut asking = Vec::new();
        for n in 0..1000_u64 {
            let (shared, begun) = (shared.clone(), begun.clone());
            asking.push(tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(n % 5)).await;
                let begun_before = begun.load(Ordering::Relaxed);
                let read = || async {
                    let nth = begun.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok::<_, LogError>(Arc::new(nth))
                };
                // One in ten is gone before it has an answer, perhaps while it reads.
                let asked = shared.together(7, read);
                let patience = Duration::from_millis(if n % 10 == 0 { 7 } else { 1_000 });
                let answer = tokio::time::timeout(patience, asked).await.ok()?.unwrap();
                assert!(*answer >= begun_before, "{n}: read before it was asked for");
                Some(answer)
            }));
        }
        let mut answers = Vec::new();
        for asked in asking {
            answers.extend(asked.await.unwrap());
        }
        assert_eq!(answers.len(), 900);
        assert!(begun.load(Ordering::Relaxed) <= 10, "{begun:?}");
        assert!(shared.slots().is_empty());
        let answer = answers.pop().unwrap();
        answers.retain(|other| Arc::ptr_eq(other, &answer));
        assert_eq!(Arc::strong_count(&answer), answers.len() + 1);
    }
}
