//! What an earlier engine left in flight and open, entered again.

use super::class::{Class, Part};
use super::episode::Cause;
use super::made_by::MadeBy;
use super::table::{GroupKey, What};
use super::{Arbiter, Touch};
use crate::model::Side;

impl Arbiter {
    /// Step 1: a change that an earlier engine applied at `here`'s peer, up to `offset` of `here`'s stream, and whose
    /// echo it had not read. Entered with all its keys, in its own words.
    pub fn recover_change(&mut self, here: Side, touches: &[Touch<'_>], offset: u64) {
        if self.one_way {
            return;
        }
        let table = &mut self.tables[here.other().index()];
        let group = if touches.len() > 1 {
            table.group(
                touches
                    .iter()
                    .map(|t| GroupKey { db: t.db, key: t.key.into(), written: t.class != Class::Read })
                    .collect(),
            )
        } else {
            0
        };
        for t in touches {
            table.push(t.hash, What { class: t.class, part: t.part, at: 0, group, made_by: MadeBy::UNKNOWN });
            table.recovered(offset);
        }
        table.seal(group);
    }

    /// Step 1: a whole-database deletion that an earlier engine applied at `here`'s peer.
    pub fn recover_flush(&mut self, here: Side, db: Option<u32>, offset: u64) {
        if self.one_way {
            return;
        }
        let table = &mut self.tables[here.other().index()];
        table.push_flush(db);
        table.recovered(offset);
    }

    /// To be called after all of step 1: what was in flight to a site when such a deletion was read from there is not
    /// known, so all that is in flight to it counts.
    pub fn recover_flushed(&mut self) {
        for here in Side::BOTH {
            let peer = here.other();
            for db in self.tables[peer.index()].flushed() {
                self.flushed[here.index()] = self.tables[here.index()].last_serial();
                for (db, key) in self.tables[here.index()].grouped_with(db) {
                    let hash = self.hash(db, &key);
                    self.differs(
                        &Touch { db, key: &key, hash, class: Class::Write, part: Part::WHOLE },
                        peer,
                        Cause::Spread,
                    );
                }
            }
        }
    }

    /// Step 2: an episode that was open, as a site had it written down. To be called with the highest number of each
    /// key, after all of step 1.
    pub fn recover_episode(&mut self, db: u32, key: &[u8], authority: Side) {
        let touch = Touch { db, key, hash: self.hash(db, key), class: Class::Write, part: Part::WHOLE };
        // One that has spread here from another key gives way: the authority that was written down has changes which
        // were not forwarded because of it.
        let known = self.episodes.get_mut(touch.hash, db, key).is_some_and(|e| e.cause != Cause::Spread);
        if !self.one_way && !known {
            self.open(&touch, authority, Cause::Recovery, None);
        }
    }
}
