//! Flushes and swaps: commands that are about whole databases, our own keys in them included.

use super::Decider;
use crate::engine::apply::outbox::ItemKind;
use crate::engine::arbiter::Verdict;
use crate::engine::core::expiries::Expiries;
use crate::engine::core::{Core, NewItem};
use crate::model::Databases;
use crate::wire::resp::encode;
use crate::wire::stream::{Batch, Command};
use bytes::{Bytes, BytesMut};

impl Decider {
    pub(super) fn whole_database(&mut self, core: &mut Core, db: Option<u32>) {
        self.read.flushes += 1;
        core.touched_all(self.here.other());
        let control_db = core.facts[self.here.index()].control_db;
        if db.is_none_or(|d| d == control_db) {
            // Our own keys at this site went with it.
            self.flush(core);
            core.rewrite_notes(self.here, None);
        }
        // FLUSHALL takes databases along that were not selected, so it is said of each selected one.
        let list: Vec<Option<u32>> = match (&self.databases, db) {
            (Databases::Only(list), None) => list.iter().map(|d| Some(*d)).collect(),
            (_, one) => vec![one],
        };
        for db in list {
            if !self.forward_flush || !db.is_none_or(|d| self.databases.contains(d)) {
                continue;
            }
            if !core.carry.is_idle() {
                core.carry.want_all(db, self.entry_end.offset.0);
            }
            let Verdict::Forward(serial) = core.arbiter.flush(self.here, db) else { return };
            let mut data = BytesMut::new();
            encode(&mut data, &[if db.is_some() { &b"FLUSHDB"[..] } else { b"FLUSHALL" }]);
            self.sweeping(core, data.freeze(), db, serial);
        }
    }

    pub(super) fn swap(&mut self, core: &mut Core, batch: &Batch, command: &Command, a: u32, b: u32) {
        if a == b {
            return;
        }
        if !(self.databases.contains(a) && self.databases.contains(b)) {
            self.read.swaps_refused += 1;
            return;
        }
        self.read.changes += 1;
        core.touched_all(self.here.other());
        core.expiries.iter_mut().for_each(Expiries::moved);
        let control_db = core.facts[self.here.index()].control_db;
        let moved_to = [(a, b), (b, a)].into_iter().find(|(from, _)| *from == control_db).map(|(_, to)| to);
        if moved_to.is_some() {
            self.flush(core);
            core.rewrite_notes(self.here, moved_to);
        }
        if core.arbiter.in_flight(self.here).0 > 0 {
            self.read.swaps_crossed += 1;
        }
        if !core.carry.is_idle() {
            core.carry_swapped(a, b, self.entry_end.offset.0);
        }
        let Verdict::Forward(serial) = core.arbiter.pass(self.here) else { return };
        core.swap_sent(self.here.other(), serial, a, b);
        self.sweeping(core, batch.frame(command), None, serial);
        if moved_to.is_some() {
            core.rewrite_notes(self.here.other(), moved_to);
        }
    }

    /// A command that may take our keys at the other site along.
    fn sweeping(&mut self, core: &mut Core, data: Bytes, db: Option<u32>, serial: u64) {
        self.flush(core);
        core.decided[self.here.index()] = self.entry_end;
        let item = NewItem { db, changes: 1, ..NewItem::new(data, 1, ItemKind::Sweeping, serial) };
        core.push(self.here.other(), item);
        // The next transaction must find the key where it belongs.
        core.rewrite_notes(self.here.other(), None);
    }
}
