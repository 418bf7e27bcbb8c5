//! Open episodes: the settling of one key's conflict each, and when each is due for a round.

use super::Token;
use super::class::Class;
use super::made_by::MadeBy;
use super::table::What;
use crate::model::Side;
use crate::model::conflict::CAUSES;
use smallvec::SmallVec;
use std::collections::{BTreeSet, HashMap};

/// How long a token waits after a round that was in vain: doubled each time, at most a second.
const BACKOFF_FIRST_MS: u64 = 2;
const BACKOFF_MOST_MS: u64 = 1000;

/// ```text
///   NeedToken ──token sent──▶ TokenSent ──its echo──▶ RestoreSent ──its echo, clean──▶ (settled)
///       ▲                                                  │
///       └──────────── the other site wrote since ──────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    NeedToken,
    TokenSent,
    RestoreSent,
}

/// What opened an episode. In the order of [`CAUSES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    ConcurrentWrite = 0,
    WriteBeatsDelete = 1,
    SeveralKeys = 2,
    Spread = 3,
    ApplyError = 4,
    Expiry = 5,
    Recovery = 6,
    Snapshot = 7,
    Merge = 8,
    Untranslatable = 9,
    Repair = 10,
}

impl Cause {
    /// The word in events and JSON.
    pub fn as_str(self) -> &'static str {
        CAUSES[self as usize]
    }
}

/// One of the changes that met, for the operator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Met {
    pub class: Class,
    /// Milliseconds of the arbiter's clock; 0 unknown.
    pub at: u32,
    pub made_by: MadeBy,
}

impl Met {
    pub(super) fn of(what: &What) -> Self {
        Met { class: what.class, at: what.at, made_by: what.made_by }
    }
}

/// One conflict on one key.
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    /// Grows for ever; on recovery the highest of a key wins.
    pub number: u64,
    pub db: u32,
    pub key: Box<[u8]>,
    pub hash: u64,
    /// The site whose order of the changes stands.
    pub authority: Side,
    pub cause: Cause,
    pub phase: Phase,
    /// The site that is not the authority changed the key since the token was sent.
    pub dirty: bool,
    pub rounds: u32,
    /// When the arbiter opened it is the caller's to note; set by `echo` when it ends.
    pub settled: Option<u64>,
    /// The change that revealed the conflict, and where it was made.
    pub opened_by: Option<(Side, Met)>,
    /// Bytes of the command that made it; 0 unknown.
    pub opened_size: u32,
    /// The newest change in flight to each site at that moment.
    pub seen_in_flight: [Option<Met>; 2],
    token: Option<Token>,
    not_before: u64,
    backoff: u64,
}

impl Episode {
    pub(in crate::engine) fn new(db: u32, key: Box<[u8]>, hash: u64, authority: Side, cause: Cause) -> Self {
        Episode {
            number: 0,
            db,
            key,
            hash,
            authority,
            cause,
            phase: Phase::NeedToken,
            dirty: false,
            rounds: 0,
            settled: None,
            opened_by: None,
            opened_size: 0,
            seen_in_flight: [None; 2],
            token: None,
            not_before: 0,
            backoff: 0,
        }
    }

    /// Another round is needed; a hot key waits longer each time.
    pub(super) fn again(&mut self, now_ms: u64) {
        self.phase = Phase::NeedToken;
        self.dirty = false;
        self.backoff = (self.backoff * 2).clamp(BACKOFF_FIRST_MS, BACKOFF_MOST_MS);
        self.not_before = now_ms + self.backoff;
    }
}

/// All open episodes, at most one a key.
#[derive(Debug)]
pub struct Episodes {
    serial: u64,
    by_number: HashMap<u64, Episode>,
    by_hash: HashMap<u64, SmallVec<[u64; 1]>>,
    by_token: HashMap<Token, u64>,
    due: BTreeSet<(u64, u64)>,
}

impl Episodes {
    pub(super) fn new(serial: u64) -> Self {
        Episodes {
            serial,
            by_number: HashMap::new(),
            by_hash: HashMap::new(),
            by_token: HashMap::new(),
            due: BTreeSet::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Episode> {
        self.by_number.values()
    }

    pub fn get(&self, number: u64) -> Option<&Episode> {
        self.by_number.get(&number)
    }

    fn number(&self, hash: u64, db: u32, key: &[u8]) -> Option<u64> {
        let numbers = self.by_hash.get(&hash)?;
        numbers.iter().copied().find(|n| self.by_number.get(n).is_some_and(|e| e.db == db && *e.key == *key))
    }

    pub fn contains(&self, hash: u64, db: u32, key: &[u8]) -> bool {
        self.number(hash, db, key).is_some()
    }

    pub fn find(&self, hash: u64, db: u32, key: &[u8]) -> Option<&Episode> {
        self.by_number.get(&self.number(hash, db, key)?)
    }

    pub(super) fn get_mut(&mut self, hash: u64, db: u32, key: &[u8]) -> Option<&mut Episode> {
        let n = self.number(hash, db, key)?;
        self.by_number.get_mut(&n)
    }

    pub fn by_token(&self, token: Token) -> Option<&Episode> {
        self.by_number.get(self.by_token.get(&token)?)
    }

    pub(super) fn by_token_mut(&mut self, token: Token) -> Option<&mut Episode> {
        self.by_number.get_mut(self.by_token.get(&token)?)
    }

    /// Opens an episode under a new number; one that is open for the key is replaced, and its token means nothing
    /// any more. How hot the key was stays known: writes of several keys at both sites flip the authority again and
    /// again, and each flip would cost a token at once.
    pub(super) fn open(&mut self, mut e: Episode, now_ms: u64) -> u64 {
        if let Some(old) = self.number(e.hash, e.db, &e.key).and_then(|n| self.take(n)) {
            e.rounds = old.rounds;
            e.backoff = old.backoff;
            e.not_before = old.not_before;
            if old.phase != Phase::NeedToken {
                e.again(now_ms);
            }
        }
        self.serial += 1;
        e.number = self.serial;
        self.by_hash.entry(e.hash).or_default().push(e.number);
        self.due.insert((e.not_before, e.number));
        self.by_number.insert(e.number, e);
        self.serial
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<Episode> {
        let number = *self.by_token.get(&token)?;
        self.take(number)
    }

    /// Takes the episode of a key out, whatever its phase.
    pub(super) fn remove_key(&mut self, hash: u64, db: u32, key: &[u8]) -> Option<Episode> {
        let number = self.number(hash, db, key)?;
        self.take(number)
    }

    fn take(&mut self, number: u64) -> Option<Episode> {
        let e = self.by_number.remove(&number)?;
        self.due.remove(&(e.not_before, number));
        if let Some(t) = e.token {
            self.by_token.remove(&t);
        }
        if let Some(list) = self.by_hash.get_mut(&e.hash) {
            list.retain(|n| *n != number);
            if list.is_empty() {
                self.by_hash.remove(&e.hash);
            }
        }
        Some(e)
    }

    /// The state of each key of the database (`None`: of all) that this authority gives is out of date.
    pub(super) fn mark_dirty(&mut self, db: Option<u32>, authority: Side) {
        for e in self.by_number.values_mut().filter(|e| db.is_none_or(|db| e.db == db) && e.authority == authority) {
            e.dirty |= e.phase != Phase::NeedToken;
        }
    }

    /// Puts an episode that needs another token back in line.
    pub(super) fn queue(&mut self, token: Token) {
        if let Some(number) = self.by_token.remove(&token)
            && let Some(e) = self.by_number.get_mut(&number)
        {
            e.token = None;
            self.due.insert((e.not_before, number));
        }
    }

    /// Takes the next episode in line whose time has come out of the line.
    pub(super) fn next_due(&mut self, now_ms: u64) -> Option<&mut Episode> {
        let &(at, number) = self.due.first()?;
        if at > now_ms {
            return None;
        }
        self.due.pop_first();
        self.by_number.get_mut(&number)
    }

    /// When the next episode in line is due.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    pub(super) fn set_token(&mut self, number: u64, token: Token) {
        if let Some(e) = self.by_number.get_mut(&number) {
            e.token = Some(token);
            self.by_token.insert(token, number);
        }
    }
}

#[cfg(test)]
impl Episodes {
    /// Nothing is held for anything that is over.
    pub(super) fn is_clean(&self) -> bool {
        self.by_number.is_empty() && self.by_hash.is_empty() && self.by_token.is_empty() && self.due.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_has_its_word() {
        for (cause, word) in [
            (Cause::ConcurrentWrite, "concurrent_write"),
            (Cause::SeveralKeys, "several_keys"),
            (Cause::Snapshot, "snapshot"),
            (Cause::Repair, "repair"),
        ] {
            assert_eq!(cause.as_str(), word);
        }
    }
}
