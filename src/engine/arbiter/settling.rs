//! Rounds: tokens for what is due, and what replies say of a key.

use super::class::Class;
use super::episode::{Cause, Phase};
use super::made_by::MadeBy;
use super::{Arbiter, Effect, Token, Touch, Verdict};
use crate::model::Side;
use std::collections::VecDeque;

/// Tokens under way at once; more wait, so that an avalanche of conflicts does not fill a link with transfers.
pub(super) const ROUNDS_AT_ONCE: usize = 256;
/// Over a slow line, where that many would leave it idle most of the time, there are more of them: as many to each of these.
const ROUND_TRIP_MS: u64 = 50;
const ROUND_TRIPS: u64 = 8;
/// No more of them than states of their mean size fit into this.
const STATES: usize = 4 << 20;

/// How many tokens may be under way.
#[derive(Debug)]
pub(super) struct Room {
    tokens: usize,
    mean_bytes: usize,
}

impl Room {
    pub(super) fn new() -> Room {
        Room { tokens: ROUNDS_AT_ONCE, mean_bytes: 0 }
    }

    pub(super) fn tokens(&self) -> usize {
        self.tokens.min(STATES / self.mean_bytes.max(1)).max(ROUNDS_AT_ONCE)
    }

    /// A token has come back after so long.
    pub(super) fn came_back(&mut self, ms: u64) {
        self.tokens = ROUNDS_AT_ONCE * (ms / ROUND_TRIP_MS).clamp(1, ROUND_TRIPS) as usize;
    }

    /// A state of so many bytes has come.
    pub(super) fn weighs(&mut self, bytes: usize) {
        self.mean_bytes = (self.mean_bytes * 7 + bytes) / 8;
    }
}

impl Arbiter {
    /// A change that was sent to a site failed there, or its reply shows that the site held something else: the sites
    /// differ in this key. `authority`: whose value stands where no episode is open yet.
    pub fn differs(&mut self, touch: &Touch<'_>, authority: Side, cause: Cause) {
        if self.one_way {
            return;
        }
        match self.episodes.get_mut(touch.hash, touch.db, touch.key) {
            Some(e) => e.dirty |= e.phase != Phase::NeedToken,
            None => self.open(touch, authority, cause, None),
        }
    }

    /// A change to one key that was sent to `target` was certainly not applied there (its transaction was rejected),
    /// though later ones were. [`Verdict::Forward`]: send it again; the target is the authority of an open episode, so
    /// it needs the change and its place among the others does not matter.
    pub fn overtaken(&mut self, target: Side, touch: &Touch<'_>) -> Verdict {
        if self.one_way || touch.class == Class::Transfer {
            // With one link there is nobody who could settle it: the next write to the key does.
            self.differs(touch, target.other(), Cause::ApplyError);
            return Verdict::Withhold;
        }
        // Also one that this opens: while a copy loads, its source is the authority whatever was wanted.
        self.differs(touch, target.other(), Cause::ApplyError);
        // It was decided long ago: what is decided just now has not made it.
        self.made_by(MadeBy::UNKNOWN, 0);
        let again = self.episodes.get_mut(touch.hash, touch.db, touch.key).is_some_and(|e| e.authority == target);
        if again || self.whole[target.index()] { self.enter(target, touch, 0) } else { Verdict::Withhold }
    }

    /// The state of this key can't be written where it is wanted, however often it is tried: its episode ends as it is.
    pub fn give_up(&mut self, touch: &Touch<'_>) {
        if let Some(e) = self.episodes.remove_key(touch.hash, touch.db, touch.key) {
            for site in Side::BOTH {
                self.effects.push(Effect::Forget { site, db: e.db, key: e.key.clone() });
            }
        }
    }

    /// The transaction with this token was applied, but its reply is lost: ask again.
    pub fn token_lost(&mut self, token: Token, now_ms: u64) {
        if let Some(e) = self.episodes.by_token_mut(token)
            && e.phase == Phase::TokenSent
        {
            e.again(now_ms);
            self.episodes.queue(token);
        }
    }

    /// The state that a token has brought is of this size.
    pub fn state_weighs(&mut self, bytes: usize) {
        self.room.weighs(bytes);
    }

    /// Sends tokens for the episodes that are due; to be called after whatever may have opened one and after each echo.
    /// Returns when to call again at the latest; `None` if only an echo or a conflict can give it something to do.
    pub fn settle(&mut self, now_ms: u64) -> Option<u64> {
        self.now_ms = self.now_ms.max(now_ms);
        while self.asked.iter().map(VecDeque::len).sum::<usize>() < self.room.tokens() {
            let Some(e) = self.episodes.next_due(now_ms) else { return self.episodes.next_at() };
            self.token_serial += 1;
            let token = Token(self.token_serial);
            e.phase = Phase::TokenSent;
            e.dirty = false;
            e.rounds += 1;
            let (site, db, key, old) = (e.authority, e.db, e.key.clone(), e.number);
            self.episodes.set_token(old, token);
            self.counters.rounds[site.index()] += 1;
            let serial = self.tables[site.index()].mark();
            self.asked[site.index()].push_back((serial, token, self.now_ms));
            self.effects.push(Effect::Ask { site, token, db, key, serial });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_a_slow_line_more_small_states_are_asked_for_at_once() {
        let mut room = Room::new();
        for (ms, tokens) in [(0, 256), (10, 256), (120, 512), (400, 2_048), (60_000, 2_048)] {
            room.came_back(ms);
            assert_eq!(room.tokens(), tokens, "{ms} ms");
        }
        (0..50).for_each(|_| room.weighs(100));
        assert_eq!(room.tokens(), 2_048);
        (0..50).for_each(|_| room.weighs(1 << 20));
        assert_eq!(room.tokens(), ROUNDS_AT_ONCE);
        (0..50).for_each(|_| room.weighs(0));
        room.came_back(1);
        assert_eq!(room.tokens(), ROUNDS_AT_ONCE);
    }
}
