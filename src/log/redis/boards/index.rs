//! The index of boards: which number a board has, and which board a list is on (see `index.lua`).
//!
//! An id is claimed before the board itself changes, so that it is unique over all boards although
//! these lie on different servers. The script that then makes the board or the list knows until when
//! the claim is its own; a minute later somebody else may take over an id that nobody made. What is
//! refused gives back what it alone has claimed.
//!
//! Wherever the index may have less than was acknowledged, it is [made](super::making) from the boards.

use std::time::Duration;

use super::super::RedisLog;
use super::super::replies::unexpected;
use super::super::scripts::{self, Call};
use crate::board::{BOARDS_MAX, BoardError, ChangeError, NewList};
use crate::log::LogError;
use crate::topic::Topic;

/// For how long an id is its claimant's: longer than a call may be under way.
const CLAIM_USED_WITHIN: Duration = Duration::from_secs(10);

/// After this time an id may be taken over if it was claimed and not made.
const CLAIM_LIFETIME: Duration = Duration::from_secs(60);

/// A claim of an id for a board or a list.
pub(super) struct Claim {
    pub(super) id: Topic,
    /// As the index has it.
    text: String,
    /// In milliseconds since 1970, by the clock of the index.
    pub(super) used_until: u64,
    /// Nobody had claimed it before.
    is_new: bool,
}

/// A claim of a board.
pub(super) struct BoardClaim {
    pub(super) claim: Claim,
    pub(super) number: u64,
    /// Perhaps a board with this number was there before.
    pub(super) was_there: bool,
}

fn used_until(now: &str) -> Result<u64, LogError> {
    let now: u64 = now.parse().map_err(|_| unexpected("a time"))?;
    Ok(now + CLAIM_USED_WITHIN.as_millis() as u64)
}

fn topic(id: &str) -> Result<Topic, LogError> {
    Topic::new(id).map_err(|_| unexpected("an id"))
}

impl RedisLog {
    /// Asks the index. Where it is not complete it is made first.
    async fn ask_index(&self, call: impl Fn() -> Call<'static>) -> Result<Vec<String>, LogError> {
        let ask = async || {
            let answer: Vec<String> = self.commands.call(call()).await?;
            Ok::<_, LogError>((answer != ["", "incomplete"]).then_some(answer))
        };
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        let maker = self.begin_making().await?;
        let made = async {
            // Perhaps somebody else has just made it.
            if let Some(answer) = ask().await? {
                return Ok(Some(answer));
            }
            self.make_index(&maker, 0).await?;
            ask().await
        };
        let answer = made.await;
        self.end_making(&maker).await;
        answer?
            .ok_or_else(|| LogError::Unavailable("the index of boards is not made yet".to_owned()))
    }

    /// The board that a list is on, if the index knows one.
    pub(super) async fn find_list(&self, list: &Topic) -> Result<Option<Topic>, LogError> {
        let find = || Call::new(&scripts::LIST_FIND, &[self.keys.lists(list)]).arg(list.as_str());
        let answer = self.ask_index(find).await?;
        Ok(answer.first().and_then(|board| Topic::new(board).ok()))
    }

    /// The board that has a number, if one has.
    pub(in crate::log::redis) async fn find_board(
        &self,
        number: u64,
    ) -> Result<Option<Topic>, LogError> {
        let found = self.find_boards(number, &number.to_string(), 1, None).await?;
        Ok(found.into_iter().next().map(|(board, _)| board))
    }

    /// A page of all boards that the index knows, in the order of their numbers: those after one of
    /// them, or from a number on.
    pub(super) async fn boards_from(
        &self,
        number: u64,
        after: Option<&Topic>,
        limit: usize,
    ) -> Result<Vec<(Topic, u64)>, LogError> {
        self.find_boards(number, "+inf", limit, after).await
    }

    async fn find_boards(
        &self,
        lowest: u64,
        highest: &str,
        limit: usize,
        after: Option<&Topic>,
    ) -> Result<Vec<(Topic, u64)>, LogError> {
        let find = || {
            Call::new(&scripts::BOARD_FIND, &[self.keys.shared("boards")])
                // The first number is 1.
                .arg(lowest.max(1))
                .arg(highest)
                .arg(limit)
                .arg(after.map_or("", Topic::as_str))
        };
        let answer = self.ask_index(find).await?;
        let boards = answer[1..].chunks_exact(2);
        let read = |pair: &[String]| Some((Topic::new(&pair[0]).ok()?, pair[1].parse().ok()?));
        Ok(boards.filter_map(read).collect())
    }

    /// Claims an id for a board, a new one if there is none, and its number.
    pub(super) async fn claim_board(&self, id: Option<&Topic>) -> Result<BoardClaim, ChangeError> {
        let keys = ["boards", "board-seq", "claims"].map(|key| self.keys.shared(key));
        let claim = || {
            Call::new(&scripts::BOARD_CLAIM, &keys)
                .arg(id.map_or("", Topic::as_str))
                .arg(BOARDS_MAX)
                .arg(CLAIM_LIFETIME.as_millis() as u64)
        };
        let answer = self.ask_index(claim).await?;
        let [_, id, number, text, now, was_there] = &answer[..] else {
            let refusal = answer.first().and_then(|word| BoardError::from_word(word));
            return Err(refusal.ok_or_else(|| unexpected("a claim"))?.into());
        };
        let number = number.parse().map_err(|_| unexpected("a number"))?;
        let claim = Claim {
            id: topic(id)?,
            text: text.clone(),
            used_until: used_until(now)?,
            is_new: true,
        };
        Ok(BoardClaim { claim, number, was_there: was_there == "1" })
    }

    /// Ends the claim of a board: it was made, or the claim is given back. If this fails a number is
    /// left out, or the board's next one begins with higher numbers for its tasks.
    pub(super) async fn end_board_claim(&self, claim: &Claim, is_made: bool) {
        let keys = ["boards", "claims"].map(|key| self.keys.shared(key));
        let call = Call::new(&scripts::BOARD_RELEASE, &keys)
            .arg(claim.id.as_str())
            .arg(&claim.text)
            .arg(i32::from(is_made));
        let _: Result<i64, LogError> = self.commands.call(call).await;
    }

    /// Claims ids for new lists of a board, one after the other. Where one is refused, the others are
    /// given back.
    pub(super) async fn claim_lists(
        &self,
        board: &Topic,
        lists: &[NewList],
    ) -> Result<Vec<Claim>, ChangeError> {
        let mut claims: Vec<Claim> = Vec::with_capacity(lists.len());
        for list in lists {
            let is_twice = claims.iter().any(|claim| Some(&claim.id) == list.id.as_ref());
            let claimed: Result<Claim, ChangeError> = match &list.id {
                Some(_) if is_twice => Err(BoardError::ListExists.into()),
                Some(id) => {
                    let claimed = self.claim_list(id, board).await;
                    claimed.and_then(|claim| claim.ok_or_else(|| BoardError::ListExists.into()))
                }
                None => self.claim_new_list(board).await,
            };
            match claimed {
                Ok(claim) => claims.push(claim),
                Err(error) => {
                    self.give_back(board, &claims).await;
                    return Err(error);
                }
            }
        }
        Ok(claims)
    }

    /// Claims the next id that is free.
    async fn claim_new_list(&self, board: &Topic) -> Result<Claim, ChangeError> {
        let keys = ["boards", "list-seq"].map(|key| self.keys.shared(key));
        loop {
            let answer = self.ask_index(|| Call::new(&scripts::LIST_NUMBER, &keys)).await?;
            let number = answer.first().ok_or_else(|| unexpected("a number"))?;
            let id = topic(&format!("list-{number}"))?;
            // What this board has claimed already it may have.
            if let Some(claim) = self.claim_list(&id, board).await?
                && claim.is_new
            {
                return Ok(claim);
            }
        }
    }

    /// `None` if another board has the list, or may be about to make it.
    async fn claim_list(&self, list: &Topic, board: &Topic) -> Result<Option<Claim>, ChangeError> {
        let claim = async |instead_of: &str| {
            let call = || {
                Call::new(&scripts::LIST_CLAIM, &[self.keys.lists(list)])
                    .arg(list.as_str())
                    .arg(board.as_str())
                    .arg(instead_of)
            };
            self.ask_index(call).await
        };
        let mut answer = claim("").await?;
        let mut unused = None;
        if let [word, known, owner, age] = &answer[..]
            && word == "taken"
            && age.parse().is_ok_and(|age: u64| age > CLAIM_LIFETIME.as_millis() as u64)
            && !self.has_list(&topic(owner)?, list).await?
        {
            unused = Some(known.clone());
        }
        if let Some(unused) = unused {
            answer = claim(&unused).await?;
        }
        match &answer[..] {
            [word, text, now, is_new] if word == "ok" => Ok(Some(Claim {
                id: list.clone(),
                text: text.clone(),
                used_until: used_until(now)?,
                is_new: is_new == "1",
            })),
            [word, ..] if word == "taken" => Ok(None),
            _ => Err(unexpected("a claim").into()),
        }
    }

    async fn has_list(&self, board: &Topic, list: &Topic) -> Result<bool, LogError> {
        let mut pipe = redis::pipe();
        pipe.hexists(self.keys.state(board), format!("list:{list}"));
        let (has,): (bool,) = self.commands.pipe("hexists", &pipe).await?;
        Ok(has)
    }

    /// Gives back ids of lists that were claimed and not made. What this fails for is taken over by
    /// whoever wants it a minute later.
    pub(super) async fn give_back(&self, board: &Topic, claims: &[Claim]) {
        for claim in claims.iter().filter(|claim| claim.is_new) {
            // Somebody else may have made one of this name on the same board.
            if let Ok(false) = self.has_list(board, &claim.id).await {
                let call = Call::new(&scripts::LIST_RELEASE, &[self.keys.lists(&claim.id)])
                    .arg(claim.id.as_str())
                    .arg(&claim.text);
                let _: Result<i64, LogError> = self.commands.call(call).await;
            }
        }
    }
}
