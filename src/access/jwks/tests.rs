use std::sync::Mutex;

use serde_json::json;

use super::super::minting::Signer;
use super::*;

/// An issuer that answers what it is told to, after a second.
#[derive(Default)]
struct Issuer {
    answers: Mutex<Option<Vec<u8>>>,
    fresh_for: Option<Duration>,
    asked_at: Mutex<Vec<Instant>>,
}

impl Issuer {
    fn publish(&self, signers: &[(&Signer, &str)]) {
        let keys: Vec<_> = signers.iter().map(|(signer, id)| signer.jwk(id)).collect();
        *self.answers.lock().unwrap() = Some(json!({ "keys": keys }).to_string().into_bytes());
    }

    fn say(&self, answer: Option<&str>) {
        *self.answers.lock().unwrap() = answer.map(|answer| answer.as_bytes().to_vec());
    }

    fn asked(&self) -> usize {
        self.asked_at.lock().unwrap().len()
    }
}

#[async_trait]
impl KeyServer for Issuer {
    fn place(&self) -> String {
        "an issuer".to_owned()
    }

    async fn fetch(&self) -> Result<Published, String> {
        self.asked_at.lock().unwrap().push(Instant::now());
        // What it says is as old as the question.
        let answer = self.answers.lock().unwrap().clone();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let set = answer.ok_or("it is away")?;
        Ok(Published { set, fresh_for: self.fresh_for })
    }
}

fn fetched_from(issuer: &Arc<Issuer>) -> Arc<Jwks> {
    let jwks = Arc::new(Jwks::new(issuer.clone()));
    let running = jwks.clone();
    tokio::spawn(async move { running.run().await });
    jwks
}

fn has(jwks: &Jwks, id: &str) -> bool {
    jwks.keys().0.is_some_and(|keys| keys.named(Some(id)).next().is_some())
}

async fn after(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_missing_does_not_exist_only_if_it_was_asked_for_afterwards() {
    let (issuer, signer) = (Arc::new(Issuer::default()), Signer::new("ES256"));
    issuer.publish(&[(&signer, "a")]);
    let jwks = fetched_from(&issuer);
    // The first fetch is under way, and what it brings may be older than the token.
    after(0).await;
    tokio::task::yield_now().await;
    issuer.publish(&[(&signer, "a"), (&signer, "b")]);
    let mut early = jwks.ask();
    assert_eq!(early.heard().await, Heard::Keys);
    assert!(has(&jwks, "a") && !has(&jwks, "b"));
    assert_eq!(early.heard().await, Heard::Nothing, "it cannot be asked again so soon");
    after(10).await;
    assert!(has(&jwks, "b"), "what was asked for is fetched all the same");
    let mut late = jwks.ask();
    assert_eq!(late.heard().await, Heard::AllKeys);
}

#[tokio::test(start_paused = true)]
async fn however_many_ask_the_issuer_is_asked_once_in_a_while() {
    let (issuer, signer) = (Arc::new(Issuer::default()), Signer::new("ES256"));
    issuer.publish(&[(&signer, "a")]);
    let jwks = fetched_from(&issuer);
    for _ in 0..100_000 {
        drop(jwks.ask());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Each takes a second.
    assert!((150..=170).contains(&issuer.asked()), "{} times in 1,000 s", issuer.asked());
    let asked_at = issuer.asked_at.lock().unwrap();
    assert!(asked_at.windows(2).all(|pair| pair[1] - pair[0] >= PAUSE));
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_again_when_they_are_old() {
    for (fresh_for, seldom, often) in [
        (None, 6, 6),
        (Some(60), 59, 59),
        (Some(86_400), 6, 6),
        // Nobody makes it more often than somebody who asks for a missing key.
        (Some(0), 600, 601),
    ] {
        let fresh_for = fresh_for.map(Duration::from_secs);
        let issuer = Arc::new(Issuer { fresh_for, ..Issuer::default() });
        issuer.publish(&[(&Signer::new("ES256"), "a")]);
        let _jwks = fetched_from(&issuer);
        after(3_599).await;
        let asked = issuer.asked();
        assert!((seldom..=often).contains(&asked), "{fresh_for:?}: {asked} times in an hour");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_outlive_an_issuer_that_is_away_or_says_something_else() {
    let (issuer, signer) = (Arc::new(Issuer::default()), Signer::new("ES256"));
    issuer.publish(&[(&signer, "a")]);
    let jwks = fetched_from(&issuer);
    after(2).await;
    let version = jwks.keys().1;
    for answer in [None, Some("<html>"), Some("{}"), Some(r#"{"keys":[]}"#)] {
        issuer.say(answer);
        let before = issuer.asked();
        after(3_600).await;
        let asked = issuer.asked() - before;
        assert!((40..150).contains(&asked), "{answer:?}: {asked} times in an hour");
        assert!(has(&jwks, "a"), "{answer:?}");
        assert_eq!(jwks.keys().1, version);
        let mut asking = jwks.ask();
        assert_eq!(asking.heard().await, Heard::Nothing, "nobody knows what is missing");
    }
    issuer.publish(&[(&signer, "b")]);
    jwks.ask();
    after(70).await;
    assert!(has(&jwks, "b") && !has(&jwks, "a"));
    assert_ne!(jwks.keys().1, version);
}

#[tokio::test(start_paused = true)]
async fn of_those_who_wait_there_are_only_so_many() {
    let jwks = Jwks::new(Arc::new(Issuer::default()));
    let mut waiting: Vec<Asking> = (0..WAITING_MAX).map(|_| jwks.ask()).collect();
    let asked_at = Instant::now();
    assert_eq!(jwks.ask().heard().await, Heard::Nothing);
    assert!(asked_at.elapsed() < WAIT_MAX);
    assert_eq!(waiting[0].heard().await, Heard::Nothing);
    assert!(asked_at.elapsed() >= WAIT_MAX);
    waiting.pop();
    let asked_at = Instant::now();
    assert_eq!(jwks.ask().heard().await, Heard::Nothing);
    assert!(asked_at.elapsed() >= WAIT_MAX);
}

#[tokio::test(start_paused = true)]
async fn before_the_first_keys_nobody_knows_anything() {
    let issuer = Arc::new(Issuer::default());
    let jwks = fetched_from(&issuer);
    after(3_600).await;
    assert!(jwks.keys().0.is_none());
    issuer.publish(&[(&Signer::new("ES256"), "a")]);
    // Who asks has it fetched at once, or after the pause.
    jwks.ask();
    after(7).await;
    assert!(has(&jwks, "a"));
}
