use super::*;

const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

fn budget() -> Budget {
    Budget::new(100, WRITE_TIMEOUT)
}

#[tokio::test(start_paused = true)]
async fn bytes_count_until_their_last_reader_lets_go_of_them() {
    let budget = budget();
    let held = budget.reserve(80).await.hold(vec![0; 50]);
    assert_eq!(budget.held(), 50);
    let part = held.slice(3..4);
    drop(held);
    assert_eq!(budget.held(), 50);
    assert!(budget.try_reserve(60).is_none());
    let waits = budget.reserve(60);
    let waits = tokio::time::timeout(Duration::from_secs(1), waits).await;
    assert!(waits.is_err());
    drop(part);
    assert_eq!(budget.held(), 0);
    budget.reserve(60).await;
}

#[tokio::test(start_paused = true)]
async fn what_turns_out_larger_is_kept_and_the_next_wait_for_it() {
    let budget = budget();
    let (first, second) = (budget.reserve(40).await, budget.reserve(40).await);
    let first = first.hold(vec![0; 90]);
    assert_eq!(budget.held(), 130);
    let second = second.hold(vec![0; 60]);
    assert_eq!(budget.held(), 150);
    drop(second);
    // 90 of 100 are held.
    assert!(budget.try_reserve(11).is_none());
    drop(budget.try_reserve(10).unwrap());
    // More than there is takes all there is, and is not refused.
    drop(first);
    let huge = budget.reserve(1_000).await.hold(vec![0; 1_000]);
    assert_eq!(budget.held(), 1_000);
    assert!(budget.try_reserve(1).is_none());
    drop(huge);
    assert_eq!(budget.held(), 0);
    drop(budget.try_reserve(100).unwrap());
}

#[tokio::test(start_paused = true)]
async fn who_waits_gets_what_others_overdrew_after_it_is_given_back() {
    let budget = budget();
    let reserved = budget.reserve(50).await;
    let waiting = tokio::spawn({
        let budget = budget.clone();
        async move { drop(budget.reserve(70).await) }
    });
    tokio::task::yield_now().await;
    assert!(budget.is_waited_for());
    let held = reserved.hold(vec![0; 80]);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(held);
    waiting.await.unwrap();
    assert!(!budget.is_waited_for());
    assert_eq!(budget.held(), 0);
    drop(budget.try_reserve(100).unwrap());
}

#[tokio::test(start_paused = true)]
async fn who_keeps_a_part_keeps_the_whole_and_has_a_pace_while_somebody_waits() {
    let budget = budget();
    let page = budget.reserve(64).await.hold(vec![0; 64]);
    let parts = [page.slice(3..5), page.slice(60..), Bytes::from_static(b"of nobody")];
    assert!(budget.holds(&parts[0]) && !budget.holds(&parts[2]));
    assert_eq!(budget.held_for(&parts), 64);
    let began_at = Instant::now();
    let mut pace = Pace::new(began_at);
    let in_window = |n: u32| began_at + WRITE_TIMEOUT / 4 * n;
    // Nobody waits.
    assert!(!budget.is_behind(&mut pace, in_window(1), &parts));
    let waiting = tokio::spawn({
        let budget = budget.clone();
        async move { drop(budget.reserve(50).await) }
    });
    tokio::task::yield_now().await;
    pace.took(4);
    assert!(!budget.is_behind(&mut pace, in_window(2), &parts));
    pace.took(3);
    assert!(budget.is_behind(&mut pace, in_window(3), &parts));
    drop((page, parts));
    waiting.await.unwrap();
}
