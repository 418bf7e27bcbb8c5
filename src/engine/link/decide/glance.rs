//! A glance at where the keys of the next changes will be looked for and entered.
//!
//! With some hundred thousand changes in flight the arbiter's tables are in no near cache, and each change would wait for
//! three places of them, one after the other. Looked at in a row, with nothing in between that depends on what is there,
//! memory answers for many at once, and a moment later, when the changes are decided, those places are near.
//!
//! It decides nothing and changes nothing. A key's hash is kept for its change; where that is about another database by then
//! (two have changed places), it is made anew.

use super::KEY_PREFIX;
use crate::engine::core::Core;
use crate::model::Side;
use crate::wire::stream::Batch;
use std::hint::black_box;

/// Entries at one glance: their places fit into the nearest cache.
const ENTRIES: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Glance {
    /// Database and hash, 0 where an entry is no single command of a client's.
    keys: [(u32, u64); ENTRIES],
    /// The place of the entry that is being decided.
    now: usize,
}

impl Glance {
    /// The entry at this place of a turn is decided next.
    #[inline]
    pub(super) fn at(&mut self, core: &Core, here: Side, batch: &Batch, from: usize, entry: usize) {
        self.now = (entry - from) % ENTRIES;
        if self.now == 0 {
            self.look(core, here, batch, entry);
        }
    }

    fn look(&mut self, core: &Core, here: Side, batch: &Batch, from: usize) {
        let arbiter = &core.arbiter;
        if arbiter.is_one_way() {
            return;
        }
        let mut seen = 0;
        for (key, entry) in self.keys.iter_mut().zip(&batch.entries[from..]) {
            *key = (0, 0);
            if let [command] = batch.commands(entry)
                && let Some(name) = batch.arg(command, 1)
                && !name.starts_with(KEY_PREFIX)
            {
                let db = core.db_at_peer(here, command.db);
                *key = (db, arbiter.hash(db, name));
                seen ^= arbiter.glance(here, key.1);
            }
        }
        // By now those places are near, and some of them name others.
        for (_, hash) in &self.keys {
            seen ^= arbiter.glance_further(here, *hash);
        }
        // Or it would not be looked at all.
        black_box(seen);
    }

    /// The hash of the key of the command that is decided now, which is its entry's only one.
    #[inline]
    pub(super) fn hash(&self, db: u32) -> Option<u64> {
        let (of, hash) = self.keys[self.now];
        (hash != 0 && of == db).then_some(hash)
    }
}
