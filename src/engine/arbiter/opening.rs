//! Episodes are opened, and spread to what depends on their keys.

use super::class::Class;
use super::episode::{Cause, Episode, Met, Phase};
use super::{Arbiter, Effect, Touch};
use crate::model::Side;

impl Arbiter {
    /// Each key that is written here is settled by this site's state. A state that is asked for and not read yet is
    /// from after this change; one that is on its way to the other site is from before it.
    pub(super) fn carry_as_state(&mut self, here: Side, touches: &[Touch<'_>], at: u32, cause: Cause) {
        for t in touches.iter().filter(|t| t.writes()) {
            match self.episodes.get_mut(t.hash, t.db, t.key) {
                Some(e) if e.authority == here => e.dirty |= e.phase == Phase::RestoreSent,
                // Also flips one: this write is the latest.
                _ => self.open(t, here, cause, Some((here, at))),
            }
        }
    }

    /// Opens an episode (or gives an open one another authority), and one for every key that it spreads to: a change
    /// to several keys that is in flight and touches this key runs on other data than it did at its source, so its
    /// source is the authority for all that it writes.
    pub(super) fn open(&mut self, touch: &Touch<'_>, authority: Side, cause: Cause, by: Option<(Side, u32)>) {
        self.open_one(touch.db, touch.key, touch.hash, authority, cause, by.map(|(side, at)| (side, touch.class, at)));
        self.spread(touch.db, touch.key, touch.hash);
    }

    /// Opens episodes for all that the changes in flight which touch this key write, and so on.
    pub(super) fn spread(&mut self, db: u32, key: &[u8], hash: u64) {
        let mut todo: Vec<(u32, Box<[u8]>, u64)> = vec![(db, key.into(), hash)];
        while let Some((db, key, hash)) = todo.pop() {
            let mut reached: Vec<(u32, Box<[u8]>, u64, Side)> = Vec::new();
            for site in Side::BOTH {
                let table = &self.tables[site.index()];
                if table.classes(hash).is_some_and(|classes| !classes.grouped()) {
                    continue;
                }
                for (_, entry) in table.changes(hash) {
                    for k in table.group_keys(entry.group).iter().filter(|k| k.written) {
                        if !(k.db == db && k.key == key) {
                            reached.push((k.db, k.key.clone(), self.hash(k.db, &k.key), site.other()));
                        }
                    }
                }
            }
            for (db, key, hash, source) in reached {
                if !self.episodes.contains(hash, db, &key) {
                    self.open_one(db, &key, hash, source, Cause::Spread, None);
                    todo.push((db, key, hash));
                }
            }
        }
    }

    fn open_one(
        &mut self,
        db: u32,
        key: &[u8],
        hash: u64,
        authority: Side,
        cause: Cause,
        by: Option<(Side, Class, u32)>,
    ) {
        let authority = self.standing(key).unwrap_or(authority);
        let mut e = Episode::new(db, key.into(), hash, authority, cause);
        e.seen_in_flight = Side::BOTH.map(|s| self.tables[s.index()].changes(hash).next().map(|(_, e)| Met::of(&e)));
        e.opened_by = by.map(|(side, class, at)| (side, Met { class, at, made_by: self.made_by }));
        e.opened_size = if by.is_some() { self.size } else { 0 };
        let number = self.episodes.open(e, self.now_ms);
        self.counters.opened += 1;
        for site in Side::BOTH {
            self.effects.push(Effect::Persist { site, db, key: key.into(), number, authority });
        }
        self.effects.push(Effect::Opened { number });
    }
}
