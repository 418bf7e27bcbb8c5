//! Our own transactions come back: the table is cleared, and what an echo tells beyond that is seen to.

use super::{Decider, KEY_PREFIX};
use crate::engine::apply::control_key::{ControlKey, LoadPhase};
use crate::engine::arbiter::Touch;
use crate::engine::arbiter::class::{Class, Part};
use crate::engine::arbiter::classify::{Effect, classify};
use crate::engine::arbiter::episode::Cause;
use crate::engine::core::Core;
use crate::engine::link::rebuild::Unheard;
use crate::engine::strand::Whose;
use crate::wire::command::Argv;
use crate::wire::slot::slot;
use crate::wire::stream::{Args, Batch, Entry};
use smallvec::SmallVec;

/// Whose echo an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// Of this link's other direction, with what its control key says (`None`: it can't be read).
    Ours(Option<ControlKey>),
    /// Of another strand of the job.
    Sibling,
}

impl Decider {
    /// Whose echo this entry is, if it is one of this job.
    pub fn marker_of(&self, batch: &Batch, entry: &Entry) -> Option<Marker> {
        batch.commands(entry).iter().find_map(|c| {
            let args = batch.args(c);
            let whose = self.names.whose(args.get(1)?);
            if whose == Whose::Nobodys {
                return None;
            }
            // A control key that comes along with its slot is no echo.
            if !self.imports.is_empty() && self.imports.hold(args.get(1)?) {
                return None;
            }
            let control = ControlKey::set_by(args.get(0)?, args.get(2), self.names.is_cluster())?;
            Some(if whose == Whose::Ours { Marker::Ours(control) } else { Marker::Sibling })
        })
    }

    /// The reply to this transaction of ours has not been seen, or the state for one of its tokens is not at hand.
    pub(super) fn lacks_reply(&self, core: &Core, marker: &ControlKey) -> bool {
        self.two_way
            && marker.epoch == self.epoch
            && (marker.number > core.answered[self.here.index()]
                || core.arbiter.awaited(self.here, marker.serial).any(|t| !core.has_state(t)))
    }

    /// It touches a slot of which something waits to be written here.
    #[cold]
    pub(super) fn is_parked(&self, core: &Core, batch: &Batch, entry: &Entry) -> bool {
        let parked = &core.parked[self.here.index()];
        batch.commands(entry).iter().any(|c| match classify(&core.arbiter, c.db, &batch.args(c)) {
            Effect::Keys(touches) | Effect::Apart(touches) => touches.iter().any(|t| parked.contains(&slot(t.key))),
            _ => false,
        })
    }

    /// Our own transaction, come back. Tells whether it carried anything but the control key.
    pub(super) fn echo(&mut self, core: &mut Core, batch: &Batch, entry: &Entry, marker: Option<ControlKey>) -> bool {
        let here = self.here.index();
        let carried: u64 = batch.commands(entry).iter().map(|c| changes_in(&batch.args(c), &self.own_prefix)).sum();
        self.read.echoes += carried;
        let Some(marker) = marker else { return carried > 0 };
        if self.is_of_another_shard(&marker) {
            return carried > 0;
        }
        if self.is_lost(&marker) {
            self.carry_back(core, batch, entry, &marker);
            return carried > 0;
        }
        // As long as something is on its way that comes on top of a whole-database deletion, a later engine has to know.
        if !core.arbiter.runs_after_flush(self.here.other()) {
            core.echoed[here] = marker.applied;
        }
        if !self.two_way {
            return carried > 0;
        }
        let own = marker.epoch == self.epoch;
        let serial =
            if own { marker.serial } else { core.arbiter.serial_of_before(self.here, marker.applied.offset.0) };
        if carried > 0 {
            self.hidden_deletes(core, batch, entry, own.then_some(marker.number), serial);
            if core.arbiter.runs_after_flush(self.here) {
                self.ran_after_flush(core, batch, entry);
            }
        }
        if own {
            core.read_back[here] = core.read_back[here].max(marker.number);
            core.arbiter.echo(self.here, serial, core.now_ms());
            core.forget_deletions(self.here, marker.number);
            core.swaps_done(self.here, serial);
            let loading = self.here.other().index();
            if let Some(end) = &mut core.snapshot_end[loading]
                && end.echoed_at.is_none()
                && serial >= end.serial
            {
                end.echoed_at = Some(self.entry_end.offset);
                core.unsaved[self.here.other().index()] = (u64::MAX / 2, true);
            }
        } else {
            core.arbiter.echo_of_before(self.here, marker.applied.offset.0);
        }
        self.effects(core);
        carried > 0
    }

    /// An earlier engine brought this from the shard of the other site that had the slot then: it says nothing of the one
    /// that has it now, neither where its stream is nor that anything was lost.
    fn is_of_another_shard(&self, marker: &ControlKey) -> bool {
        self.names.strand().is_some_and(|strand| marker.strand != Some(strand.id))
            && marker.epoch != self.epoch
            && marker.replid.zip(self.peer_lineage).is_some_and(|(id, l)| l.shares(id).is_none())
    }

    /// An earlier engine brought this from a master of the other site that is no more, and its heir never had it.
    pub fn is_lost(&self, marker: &ControlKey) -> bool {
        self.two_way
            && marker.epoch != self.epoch
            && !self.is_of_another_shard(marker)
            && marker.phase == LoadPhase::Streaming
            && marker.replid.zip(self.peer_lineage).is_some_and(|(id, l)| !l.holds(id, marker.applied.offset))
    }

    /// It brought what stands in this stretch of the other site's stream.
    pub fn is_of(&self, marker: &ControlKey, unheard: Unheard) -> bool {
        let at = marker.applied.offset;
        marker.phase == LoadPhase::Streaming
            && (unheard.after < at && at <= unheard.upto)
            && marker.replid.zip(self.peer_lineage).is_some_and(|(id, l)| l.holds(id, at))
    }

    /// What a lost echo wrote is held by this site alone: its state goes back to the other. Where an episode is open
    /// already, its authority stands: it holds changes that were withheld because of it.
    fn carry_back(&mut self, core: &mut Core, batch: &Batch, entry: &Entry, marker: &ControlKey) {
        for c in batch.commands(entry) {
            let args = batch.args(c);
            match classify(&core.arbiter, c.db, &args) {
                Effect::Keys(mut touches) | Effect::Apart(mut touches) => {
                    touches.retain(|t| t.class != Class::Read && self.is_ours(t.db, t.key));
                    for t in &touches {
                        core.arbiter.differs(t, self.here, Cause::Recovery);
                        self.effects(core);
                    }
                }
                // Of these no state can be carried: they are done at the other site as if they had been made here.
                Effect::Flush(db) => self.whole_database(core, db),
                Effect::Swap(a, b) => self.swap(core, batch, c, a, b),
                Effect::Nothing | Effect::Pass => {}
            }
        }
        // It stands behind the echoes of all that an earlier engine applied here and the heir has.
        core.arbiter.echo_of_before(self.here, marker.applied.offset.0);
        self.effects(core);
    }

    /// A DEL in an echo that the transaction did not make itself: the key had expired at this site when a change
    /// reached it, so the site has lost what the other still has. `number`: the transaction's, `None` if an earlier
    /// engine sent it.
    fn hidden_deletes(&mut self, core: &mut Core, batch: &Batch, entry: &Entry, number: Option<u64>, serial: u64) {
        // Database, key, hash, and how often it was deleted.
        type Deleted<'a> = (u32, &'a [u8], u64, usize);
        let mut seen: SmallVec<[Deleted<'_>; 4]> = SmallVec::new();
        for c in batch.commands(entry) {
            let args = batch.args(c);
            let name = args.get(0).unwrap_or_default();
            if !name.eq_ignore_ascii_case(b"del") && !name.eq_ignore_ascii_case(b"unlink") {
                continue;
            }
            for key in (1..args.argc()).filter_map(|n| args.get(n)).filter(|k| !k.starts_with(KEY_PREFIX)) {
                match seen.iter_mut().find(|s| s.0 == c.db && s.1 == key) {
                    Some(s) => s.3 += 1,
                    None => seen.push((c.db, key, core.arbiter.hash(c.db, key), 1)),
                }
            }
        }
        for (db, key, hash, times) in seen {
            if let Some(number) = number {
                let own = core.arbiter.own_deletes(self.here, serial, hash);
                if times <= own.saturating_sub(core.deletions_in_vain(self.here, number, hash)) {
                    continue;
                }
            }
            if core.arbiter.writes_up_to(self.here, serial, hash) {
                let touch = Touch { db, key, hash, class: Class::Delete, part: Part::WHOLE };
                core.arbiter.differs(&touch, self.here.other(), Cause::Expiry);
                self.effects(core);
            }
        }
    }

    /// What this echo wrote came on top of a whole-database deletion here, and before it at the other site.
    fn ran_after_flush(&mut self, core: &mut Core, batch: &Batch, entry: &Entry) {
        for c in batch.commands(entry) {
            let args = batch.args(c);
            if let Effect::Keys(mut touches) | Effect::Apart(mut touches) = classify(&core.arbiter, c.db, &args) {
                touches.retain(|t| t.class != Class::Read && self.is_ours(t.db, t.key));
                for t in &touches {
                    core.arbiter.differs(t, self.here, Cause::ConcurrentWrite);
                    self.effects(core);
                }
            }
        }
    }
}

/// How many changes a command of ours stands for: several SETs go as one MSET, perhaps with the control key before them.
fn changes_in(args: &Args<'_>, own_prefix: &[u8]) -> u64 {
    let own = args.get(1).is_some_and(|key| key.starts_with(own_prefix));
    let changes = match args.argc() {
        pairs @ 4.. if args.arg(0).eq_ignore_ascii_case(b"mset") => (pairs as u64 - 1) / 2,
        _ => 1,
    };
    changes - u64::from(own)
}
