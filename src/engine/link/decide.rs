//! From what was read to what is sent: each entry of a site's stream is an echo to drop, or changes to give a verdict.
//!
//! It owns the order in which one link's decisions reach the outbox. It refuses to wait: when an echo needs a state
//! that has not come yet, it says so and is called again. Invariants: the arbiter's effects are pushed before the
//! changes of the same call; the position moves on only when an entry's changes have been pushed; a run of changes
//! never ends inside a source's transaction without being glued to the next.

mod ahead;
mod back;
mod changes;
mod databases;
mod echoes;
mod glance;
mod imports;

pub use ahead::Ahead;
pub use echoes::Marker;
pub use imports::Heard;

use super::run::Run;
use crate::engine::apply::control_key::Position;
use crate::engine::apply::outbox::ItemKind;
use crate::engine::arbiter::Touch;
use crate::engine::arbiter::class::Class;
use crate::engine::arbiter::classify::{Effect, classify};
use crate::engine::arbiter::episode::Cause;
use crate::engine::core::Core;
use crate::engine::net::Lineage;
use crate::engine::strand::{Names, SlotSet};
use crate::model::{Databases, Offset, Side};
use crate::wire::command::{self, Argv, Spec};
use crate::wire::dialect::Dialect;
use crate::wire::slot::slot;
use crate::wire::stream::{Batch, Entry};
use bytes::Bytes;
use imports::Imports;

/// What a link has counted of its reading.
#[derive(Debug, Clone, Copy, Default)]
pub struct Read {
    pub changes: u64,
    /// Changes of the other direction that came back and were dropped.
    pub echoes: u64,
    pub flushes: u64,
    pub foreign_notes: u64,
    /// SWAPDB with a database that is not selected: not forwarded.
    pub swaps_refused: u64,
    /// SWAPDB while writes of the other site were on their way: those may have landed in the wrong database.
    pub swaps_crossed: u64,
}

impl Read {
    /// How many whole-database commands there were of each kind.
    pub fn whole_database(&self) -> [u64; 3] {
        [self.flushes, self.swaps_refused, self.swaps_crossed]
    }
}

/// What happened in a turn.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// All entries have been decided.
    Done,
    /// The entry with this index is an echo whose reply has not been seen: it may tell more than the echo does. Or it is of a
    /// slot that is moving away, and something waits to be written to it.
    Waits { entry: usize },
    /// Only echoes were to be decided, and the next entry is none.
    Change { entry: usize },
}

/// The knowledge by which one link decides.
pub struct Decider {
    here: Side,
    epoch: u64,
    /// What the other link's keys at `here` are called: its echo is known by its control key.
    names: Names,
    /// What ours at the other site are called.
    there: Names,
    own_prefix: Bytes,
    databases: Databases,
    target: Dialect,
    forward_flush: bool,
    two_way: bool,
    peer_lineage: Option<Lineage>,
    doubtful_until: Offset,
    /// Slots that had come further than their strand when it was put together.
    ahead: Ahead,
    /// Slots that are coming to the shard that is read.
    imports: Imports,
    /// Behind this nothing of what was brought before the run is left.
    brought_until: Offset,
    /// Up to here a DEL may be of a slot that was away for a moment.
    away_until: Offset,
    /// Slots that were away before the run are the authority of their keys up to here.
    back_until: Offset,
    run: Run,
    glance: glance::Glance,
    /// Where the entry that is being decided ends.
    entry_end: Position,
    /// A source's transaction is being decided.
    inside: bool,
    /// Of what is next only the echoes are to be decided.
    echoes_alone: bool,
    pub read: Read,
    /// When which of the bytes that are being decided were read: their end, milliseconds since 1970.
    read_times: Vec<(u64, u64)>,
}

/// When the parts of a batch were made: up to which offset, and when by the arbiter's clock; 0 unknown.
pub type Made = [(Offset, u32)];

/// Every key of this product, whatever the job.
const KEY_PREFIX: &[u8] = b"duplex:";

/// What has to be known to make a decider.
pub struct DeciderSetup {
    pub here: Side,
    pub epoch: u64,
    pub names: Names,
    pub there: Names,
    pub own_prefix: Bytes,
    pub databases: Databases,
    pub target: Dialect,
    pub forward_flush: bool,
    pub two_way: bool,
    /// The histories of the other site's stream, where this job's position in it goes on from an earlier engine's: an
    /// echo that names a position which is in none of them was lost with that site's old master.
    pub peer_lineage: Option<Lineage>,
    /// A copy to `here` was begun before and not finished: what clients did here up to this offset, and the other site
    /// has not been sent yet, that copy may have written over.
    pub doubtful_until: Offset,
    pub ahead: Ahead,
    /// Slots that came to the shard before the run, and where its stream ended then.
    pub brought: (SlotSet, Offset),
    /// What runs before have heard of slots that come.
    pub heard: Heard,
}

impl Decider {
    pub fn new(s: DeciderSetup) -> Self {
        Decider {
            here: s.here,
            epoch: s.epoch,
            names: s.names,
            there: s.there,
            own_prefix: s.own_prefix,
            databases: s.databases,
            target: s.target,
            forward_flush: s.forward_flush,
            two_way: s.two_way,
            peer_lineage: s.peer_lineage,
            doubtful_until: s.doubtful_until,
            ahead: s.ahead,
            imports: Imports::before(&s.brought.0, s.heard),
            brought_until: s.brought.1,
            away_until: Offset(0),
            back_until: Offset(0),
            run: Run::in_order(),
            glance: glance::Glance::default(),
            entry_end: Position::default(),
            inside: false,
            echoes_alone: false,
            read: Read::default(),
            read_times: Vec::new(),
        }
    }

    /// To be filled before a turn: (end of bytes, when they were read), in order.
    pub fn read_times(&mut self) -> &mut Vec<(u64, u64)> {
        &mut self.read_times
    }

    /// In the turns that follow only echoes are decided, up to the first entry that is none.
    pub fn echoes_alone(&mut self, alone: bool) {
        self.echoes_alone = alone;
    }

    /// The entry with this index is an echo.
    pub fn is_echo(&self, batch: &Batch, entry: usize) -> bool {
        batch.entries.get(entry).is_some_and(|e| matches!(self.marker_of(batch, e), Some(Marker::Ours(_))))
    }

    /// The slots that the link is about, if not all.
    pub fn slots(&self) -> Option<SlotSet> {
        self.there.strand().map(|strand| strand.slots.clone())
    }

    pub fn forwards_flush(&self) -> bool {
        self.forward_flush
    }

    /// Up to here slots of this site may have been away and come back: their keys' DELs may be no client's.
    pub fn were_away_until(&mut self, offset: Offset) {
        self.away_until = offset;
    }

    /// The slots in which an entry deletes keys that this link is about, if no engine of this job has made it.
    pub fn deletes(&self, batch: &Batch, entry: &Entry, slots: &mut Vec<u16>) {
        for c in batch.commands(entry) {
            let args = batch.args(c);
            let name = args.get(0).unwrap_or_default();
            if !name.eq_ignore_ascii_case(b"del") && !name.eq_ignore_ascii_case(b"unlink") {
                continue;
            }
            if self.marker_of(batch, entry).is_some() {
                return;
            }
            let keys = (1..args.argc()).filter_map(|n| args.get(n)).filter(|k| self.is_ours(c.db, k));
            slots.extend(keys.map(slot));
        }
    }

    /// Decides the entries of a batch from `from` on. `base`: the stream's offset at the batch's beginning. `at`: when
    /// they were read, in the arbiter's clock, 0 where that is unknown; `unix_ms`: the same on the wall clock.
    pub fn turn(&mut self, core: &mut Core, batch: &Batch, from: usize, base: u64, made: &Made, unix_ms: u64) -> Turn {
        let here = self.here.index();
        let mut made = made.iter().peekable();
        for (i, entry) in batch.entries.iter().enumerate().skip(from) {
            self.glance.at(core, self.here, batch, from, i);
            self.place_due(core);
            self.entry_end = Position::new(base + entry.end, entry.db);
            if !self.imports.is_empty() && self.entry_end.offset > self.brought_until {
                self.imports.before_is_over();
            }
            let mut real = true;
            if entry.commands.0 == entry.commands.1 {
                real = false;
            } else {
                match self.marker_of(batch, entry) {
                    Some(Marker::Ours(Some(m))) if self.lacks_reply(core, &m) => {
                        self.flush(core);
                        return Turn::Waits { entry: i };
                    }
                    Some(Marker::Ours(marker)) => real = self.echo(core, batch, entry, marker),
                    // Of another strand of this job: none of our keys are in it.
                    Some(Marker::Sibling) => real = false,
                    None if self.echoes_alone => {
                        self.flush(core);
                        return Turn::Change { entry: i };
                    }
                    None if !core.parked[here].is_empty() && self.is_parked(core, batch, entry) => {
                        self.flush(core);
                        return Turn::Waits { entry: i };
                    }
                    None => {
                        while made.next_if(|(upto, _)| upto.0 < self.entry_end.offset.0).is_some() {}
                        let at = made.peek().map_or(0, |(_, at)| *at);
                        self.local(core, batch, entry, at, unix_ms);
                        if self.entry_end.offset <= self.doubtful_until {
                            self.doubtful(core, batch, entry);
                        }
                    }
                }
            }
            let begin = base + i.checked_sub(1).map_or(0, |p| batch.entries[p].end);
            core.decided[here] = self.entry_end;
            core.decided_bytes(self.here.other(), base + entry.end - begin, real);
            if self.run.is_full() {
                self.flush(core);
            }
        }
        self.flush(core);
        self.all_is_back(core);
        core.place_due();
        if !core.arbiter.episodes().is_empty() {
            core.settle();
        }
        Turn::Done
    }

    /// These changes are at the other site soon, and may be lost here: its word stands.
    fn doubtful(&mut self, core: &mut Core, batch: &Batch, entry: &Entry) {
        for c in batch.commands(entry) {
            let args = batch.args(c);
            if let Effect::Keys(touches) | Effect::Apart(touches) = classify(&core.arbiter, c.db, &args) {
                for t in touches.iter().filter(|t| t.class != Class::Read) {
                    if self.wanted(std::slice::from_ref(t)) {
                        core.arbiter.differs(t, self.here.other(), Cause::Recovery);
                        self.effects(core);
                    }
                }
            }
        }
    }

    /// Changes that clients made.
    fn local(&mut self, core: &mut Core, batch: &Batch, entry: &Entry, at: u32, unix_ms: u64) {
        let commands = batch.commands(entry);
        if let [command] = commands {
            self.single(core, batch, command, at, unix_ms);
        } else {
            self.transaction(core, batch, commands, at, unix_ms);
        }
    }

    /// Changes that the other site has had, but whose replies may not have been seen: they may have failed.
    #[cold]
    fn may_have_failed(&mut self, core: &mut Core, effect: &Effect<'_>) {
        let (Effect::Keys(touches) | Effect::Apart(touches)) = effect else { return };
        let end = self.entry_end.offset;
        for t in touches.iter().filter(|t| t.class != Class::Read) {
            if self.is_ours(t.db, t.key)
                && self.has_had(t.key)
                && self.ahead.replied.get(&slot(t.key)).is_none_or(|replied| end > *replied)
            {
                core.differs(t, self.here, Cause::Recovery);
                self.effects(core);
            }
        }
    }

    /// All keys are in selected databases, and none is our product's own.
    fn wanted(&self, touches: &[Touch<'_>]) -> bool {
        touches.iter().all(|t| self.is_due(t.db, t.key))
    }

    /// A key that this link is about.
    #[inline]
    pub fn is_ours(&self, db: u32, key: &[u8]) -> bool {
        !key.starts_with(KEY_PREFIX)
            && self.databases.contains(db)
            && self.there.strand().is_none_or(|strand| strand.has(key))
    }

    /// The same, and the other site has not had this entry before.
    #[inline]
    fn is_due(&self, db: u32, key: &[u8]) -> bool {
        self.is_ours(db, key) && (self.entry_end.offset > self.ahead.until || !self.has_had(key))
    }

    /// Up to where some slots have had more than their strand.
    pub fn ahead_until(&self) -> Offset {
        self.ahead.until
    }

    /// The other site has what was done to this key up to here, beyond what its strand has had.
    pub fn has_had_by(&self, db: u32, key: &[u8], end: Offset) -> bool {
        self.is_ours(db, key) && self.ahead.slots.get(&slot(key)).is_some_and(|until| end <= *until)
    }

    /// The other site has this entry's changes to the key already.
    #[cold]
    fn has_had(&self, key: &[u8]) -> bool {
        self.ahead.slots.get(&slot(key)).is_some_and(|until| self.entry_end.offset <= *until)
    }

    /// The other site is a cluster, and can't run this as it is.
    fn crosses_slots(&self, touches: &[Touch<'_>]) -> bool {
        let Some((first, rest)) = touches.split_first().filter(|_| self.there.is_cluster()) else { return false };
        rest.iter().any(|t| self.there.slot(t.key) != self.there.slot(first.key))
    }

    /// Whether what touches no key goes by this link: of the strands of a job one does it.
    fn is_for_us(&self, spec: Option<&Spec>) -> bool {
        let side = match spec.map(|s| s.kind) {
            Some(command::Kind::Publish) => self.here,
            _ => self.here.other(),
        };
        self.there.strand().is_none_or(|strand| strand.leads[side.index()])
    }

    // ---- the run -----------------------------------------------------------------------------------------------

    /// A one-way job's states whose place is here.
    #[inline]
    fn place_due(&mut self, core: &mut Core) {
        if !core.carry.is_idle() {
            self.flush(core);
            core.place_due();
        }
    }

    /// Carries out what the arbiter asked for; what was decided before goes out first.
    fn effects(&mut self, core: &mut Core) {
        if core.arbiter.has_effects() {
            self.flush(core);
            core.carry_out();
        }
    }

    /// A change for this database and slot follows. Inside a source's transaction a run ends only where one of them changes,
    /// and is glued to the next.
    #[inline]
    fn begin(&mut self, core: &mut Core, db: u32, slot: Option<u16>) {
        if !self.run.is_for(db, slot) || (self.run.is_full() && !self.inside) {
            self.flush(core);
            self.run.set_place(db, slot);
        }
    }

    /// Puts what was gathered into the outbox.
    pub fn flush(&mut self, core: &mut Core) {
        self.run.flush(core, self.here.other(), ItemKind::Changes);
    }
}
