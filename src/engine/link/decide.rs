//! From what was read to what is sent: each entry of a site's stream is an echo to drop, or changes to give a verdict.
//!
//! It owns the order in which one link's decisions reach the outbox. It refuses to wait: when an echo needs a state
//! that has not come yet, it says so and is called again. Invariants: the arbiter's effects are pushed before the
//! changes of the same call; the position moves on only when an entry's changes have been pushed; a run of changes
//! never ends inside a source's transaction without being glued to the next.

mod ahead;

pub use ahead::Ahead;

use super::run::Run;
use crate::engine::apply::control_key::{ControlKey, LoadPhase, Position};
use crate::engine::apply::outbox::{ItemKind, Telltale};
use crate::engine::arbiter::class::{Class, Part};
use crate::engine::arbiter::classify::{self, Effect, classify, classify_as};
use crate::engine::arbiter::episode::Cause;
use crate::engine::arbiter::{Touch, Verdict};
use crate::engine::core::expiries::{Expiries, put_off};
use crate::engine::core::{Core, NewItem, unix_ms};
use crate::engine::net::Lineage;
use crate::engine::strand::{Names, Whose};
use crate::model::{Databases, Offset, Side};
use crate::wire::command::{self, Argv, Spec};
use crate::wire::dialect::Dialect;
use crate::wire::resp::{encode, encode_header, encode_part};
use crate::wire::rewrite::{Line, Rewrite, encode_line, postpone, rewrite_as};
use crate::wire::slot::slot;
use crate::wire::stream::{Args, Batch, Command, Entry};
use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

/// A command above this size is a run of its own and is not copied.
const BIG_COMMAND: usize = 32 << 10;

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
    run: Run,
    /// Where the entry that is being decided ends.
    entry_end: Position,
    /// A source's transaction is being decided.
    inside: bool,
    pub read: Read,
    /// When which of the bytes that are being decided were read: their end, milliseconds since 1970.
    read_times: Vec<(u64, u64)>,
}

/// Whose echo an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// Of this link's other direction, with what its control key says (`None`: it can't be read).
    Ours(Option<ControlKey>),
    /// Of another strand of the job.
    Sibling,
}

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
            run: Run::default(),
            entry_end: Position::default(),
            inside: false,
            read: Read::default(),
            read_times: Vec::new(),
        }
    }

    /// To be filled before a turn: (end of bytes, when they were read), in order.
    pub fn read_times(&mut self) -> &mut Vec<(u64, u64)> {
        &mut self.read_times
    }

    pub fn forwards_flush(&self) -> bool {
        self.forward_flush
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

    /// Whose echo this entry is, if it is one of this job.
    pub fn marker_of(&self, batch: &Batch, entry: &Entry) -> Option<Marker> {
        batch.commands(entry).iter().find_map(|c| {
            let args = batch.args(c);
            let whose = self.names.whose(args.get(1)?);
            if whose == Whose::Nobodys || !args.get(0)?.eq_ignore_ascii_case(b"set") {
                return None;
            }
            Some(match whose {
                Whose::Ours => Marker::Ours(ControlKey::parse(args.get(2).unwrap_or_default())),
                _ => Marker::Sibling,
            })
        })
    }

    /// Decides the entries of a batch from `from` on. `base`: the stream's offset at the batch's beginning. `at`: when
    /// they were read, in the arbiter's clock, 0 where that is unknown; `unix_ms`: the same on the wall clock.
    pub fn turn(&mut self, core: &mut Core, batch: &Batch, from: usize, base: u64, at: u32, unix_ms: u64) -> Turn {
        let here = self.here.index();
        for (i, entry) in batch.entries.iter().enumerate().skip(from) {
            self.place_due(core);
            self.entry_end = Position::new(base + entry.end, entry.db);
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
                    None if !core.parked[here].is_empty() && self.is_parked(core, batch, entry) => {
                        self.flush(core);
                        return Turn::Waits { entry: i };
                    }
                    None => {
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
        core.place_due();
        if !core.arbiter.episodes().is_empty() {
            core.settle();
        }
        Turn::Done
    }

    /// The reply to this transaction of ours has not been seen, or the state for one of its tokens is not at hand.
    fn lacks_reply(&self, core: &Core, marker: &ControlKey) -> bool {
        self.two_way
            && marker.epoch == self.epoch
            && (marker.number > core.answered[self.here.index()]
                || core.arbiter.awaited(self.here, marker.serial).any(|t| !core.has_state(t)))
    }

    /// It touches a slot of which something waits to be written here.
    #[cold]
    fn is_parked(&self, core: &Core, batch: &Batch, entry: &Entry) -> bool {
        let parked = &core.parked[self.here.index()];
        batch.commands(entry).iter().any(|c| match classify(&core.arbiter, c.db, &batch.args(c)) {
            Effect::Keys(touches) | Effect::Apart(touches) => touches.iter().any(|t| parked.contains(&slot(t.key))),
            _ => false,
        })
    }

    /// Our own transaction, come back. Tells whether it carried anything but the control key.
    fn echo(&mut self, core: &mut Core, batch: &Batch, entry: &Entry, marker: Option<ControlKey>) -> bool {
        let here = self.here.index();
        let carried = batch
            .commands(entry)
            .iter()
            .filter(|c| !batch.arg(c, 1).unwrap_or_default().starts_with(&self.own_prefix))
            .count() as u64;
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

    fn single(&mut self, core: &mut Core, batch: &Batch, command: &Command, at: u32, unix_ms: u64) {
        let command = &Command { db: core.db_at_peer(self.here, command.db), ..*command };
        let args = batch.args(command);
        let spec = command::lookup(&args);
        core.arbiter.of_size(command.frame.1 - command.frame.0);
        if spec.is_some_and(|s| s.name == "set") && args.argc() == 3 && !is_big(command) {
            return self.plain_set(core, command.db, args.arg(1), batch.frame_bytes(command), at);
        }
        let effect = classify_as(spec, &core.arbiter, command.db, &args);
        if self.entry_end.offset <= self.ahead.until {
            self.may_have_failed(core, &effect);
        }
        if spec.is_some_and(|s| s.name == "restore-asking") {
            return self.came_with_its_slot(core, &effect, at);
        }
        match effect {
            Effect::Nothing => {}
            Effect::Keys(touches) => {
                if !self.wanted(&touches) || self.crosses_slots(&touches) {
                    return self.partly_wanted(core, &touches, at);
                }
                self.read.changes += 1;
                self.keys(core, batch, command, spec, &touches, at, unix_ms);
            }
            Effect::Apart(touches) => {
                self.read.changes += 1;
                self.apart(core, batch, command, spec, &touches, at);
            }
            Effect::Flush(db) => self.whole_database(core, db),
            Effect::Swap(a, b) => self.swap(core, batch, command, a, b),
            Effect::Pass if !self.is_for_us(spec) => {}
            Effect::Pass => {
                if is_sentinels_word(&args) {
                    return;
                }
                self.read.changes += 1;
                let Verdict::Forward(serial) = core.arbiter.pass(self.here) else { return };
                self.begin(core, command.db, None);
                self.forward(core, batch, command, spec, serial, None);
            }
        }
    }

    /// A key that a slot brought along when it moved to this shard: no client has changed it, but what it is now is told
    /// here alone.
    fn came_with_its_slot(&mut self, core: &mut Core, effect: &Effect<'_>, at: u32) {
        let Effect::Keys(touches) = effect else { return };
        if self.wanted(touches) {
            core.change_as_state(self.here, touches, at, self.entry_end.offset.0);
            self.effects(core);
        }
    }

    /// The most frequent change by far.
    fn plain_set(&mut self, core: &mut Core, db: u32, key: &[u8], frame: &[u8], at: u32) {
        if !self.is_due(db, key) {
            return;
        }
        self.read.changes += 1;
        let touch = Touch { db, key, hash: core.arbiter.hash(db, key), class: Class::Write, part: Part::WHOLE };
        core.touched(self.here.other(), touch.hash);
        let verdict = core.arbiter.change(self.here, &touch, at);
        self.effects(core);
        let Verdict::Forward(serial) = verdict else { return };
        self.begin(core, db, self.there.slot(key));
        self.run.data().put_slice(frame);
        self.run.added(1, serial);
    }

    /// A command whose keys go together.
    #[allow(clippy::too_many_arguments)]
    fn keys(
        &mut self,
        core: &mut Core,
        batch: &Batch,
        command: &Command,
        spec: Option<&Spec>,
        touches: &[Touch<'_>],
        at: u32,
        unix_ms: u64,
    ) {
        let args = batch.args(command);
        let end = self.entry_end.offset.0;
        if core.keep_back(self.here, touches, at, end) {
            return;
        }
        touches.iter().for_each(|t| core.touched(self.here.other(), t.hash));
        // A time that is relative counts from when it was read, which may be long ago.
        let unix_ms = self
            .read_times
            .get(self.read_times.partition_point(|(upto, _)| *upto < end))
            .map_or(unix_ms, |(_, at)| *at);
        // What we do not know we do not touch: a module of the user's.
        let mut words = spec.map_or(Rewrite::AsIs, |spec| rewrite_as(spec, &args, unix_ms, self.target));
        if !core.expiries.iter().all(Expiries::are_true) {
            self.put_off(core, spec, &args, touches, &mut words);
        }
        match words {
            Rewrite::Drop => return,
            Rewrite::AsIs if !core.is_unknown(self.here.other(), &args) => {}
            Rewrite::State | Rewrite::AsIs => {
                core.change_as_state(self.here, touches, at, end);
                return self.effects(core);
            }
            Rewrite::Commands(_) => {}
        }
        let verdict = match touches {
            [one] => core.arbiter.change(self.here, one, at),
            many => core.arbiter.change_many(self.here, many, at),
        };
        self.effects(core);
        let Verdict::Forward(serial) = verdict else { return };
        let slot = touches.first().and_then(|t| self.there.slot(t.key));
        self.begin(core, command.db, slot);
        match words {
            Rewrite::Commands(list) => self.rewritten(&list, &args, serial),
            _ => self.forward(core, batch, command, spec, serial, slot),
        }
    }

    /// One of the sites still has expiries that a copy has put off: those that this change sets are put off as well,
    /// and where it takes such a key to another name, that one has to be found.
    #[cold]
    fn put_off(
        &self,
        core: &mut Core,
        spec: Option<&Spec>,
        args: &Args<'_>,
        touches: &[Touch<'_>],
        words: &mut Rewrite,
    ) {
        let (here, peer) = (self.here.index(), self.here.other().index());
        if spec.is_none_or(|s| matches!(s.name, "rename" | "renamenx" | "copy" | "move")) {
            core.expiries[here].moved();
            if core.expiries[peer].put_off() {
                core.expiries[peer].moved();
            } else if !core.expiries[peer].are_true() && spec.is_some() {
                // It is being looked for: its state tells what is true.
                *words = Rewrite::State;
            }
        }
        if !core.expiries[peer].put_off() {
            return;
        }
        let now = unix_ms();
        if let Some(later) = postpone(args, words, |at| put_off(at, now)) {
            *words = later;
            for t in touches.iter().filter(|t| t.class != Class::Read) {
                core.expiries[peer].note(t.db, t.key);
            }
        }
    }

    /// DEL of several keys, MSET: each key stands for itself, the others are not held up by one in conflict.
    fn apart(
        &mut self,
        core: &mut Core,
        batch: &Batch,
        command: &Command,
        spec: Option<&Spec>,
        touches: &[Touch<'_>],
        at: u32,
    ) {
        let args = batch.args(command);
        let per_key = if touches.first().is_some_and(|t| t.class == Class::Delete) { 1 } else { 2 };
        let mut wanted: SmallVec<[(usize, u64); 8]> = SmallVec::new();
        for (n, touch) in touches.iter().enumerate() {
            if !self.is_due(touch.db, touch.key) {
                continue;
            }
            core.touched(self.here.other(), touch.hash);
            if core.keep_back(self.here, std::slice::from_ref(touch), at, self.entry_end.offset.0) {
                continue;
            }
            let verdict = core.arbiter.change(self.here, touch, at);
            self.effects(core);
            if let Verdict::Forward(serial) = verdict {
                wanted.push((n, serial));
            }
        }
        let Some(&(_, serial)) = wanted.last() else { return };
        if self.there.is_cluster() && touches.len() > 1 {
            // Each in its slot.
            for (n, serial) in wanted {
                self.begin(core, command.db, self.there.slot(touches[n].key));
                if per_key == 1 {
                    self.run.tell(classify::Reveals::Fewer(1));
                }
                let data = self.run.data();
                encode_header(data, 1 + per_key);
                encode_part(data, args.arg(0));
                (0..per_key).for_each(|k| encode_part(data, args.arg(1 + n * per_key + k)));
                self.run.added(1, serial);
            }
            return;
        }
        let slot = touches.first().and_then(|t| self.there.slot(t.key));
        self.begin(core, command.db, slot);
        if per_key == 1 && touches.len() > 1 {
            // One by one, so that each reply tells whether its key was there: see `hidden_deletes`.
            for (n, _) in wanted {
                self.run.tell(classify::Reveals::Fewer(1));
                encode(self.run.data(), &[args.arg(0), args.arg(1 + n)]);
                self.run.added_command();
            }
            return self.run.added(0, serial);
        }
        if wanted.len() == touches.len() {
            return self.forward(core, batch, command, spec, serial, slot);
        }
        let data = self.run.data();
        encode_header(data, 1 + per_key * wanted.len());
        encode_part(data, args.arg(0));
        for (n, _) in wanted {
            for k in 0..per_key {
                encode_part(data, args.arg(1 + n * per_key + k));
            }
        }
        self.run.added(1, serial);
    }

    /// A client's transaction or a script's effects. Each command stands for itself: what it does at the other site does
    /// not depend on the others. So one that meets a conflict does not hold up the rest (a counter in it still adds up),
    /// and without a conflict all of them go in one transaction.
    fn transaction(&mut self, core: &mut Core, batch: &Batch, commands: &[Command], at: u32, unix_ms: u64) {
        // What was gathered before keeps the position before this entry.
        if self.run.is_half_full() {
            self.flush(core);
        }
        core.glue = Some(self.here.other());
        self.inside = true;
        for command in commands {
            self.single(core, batch, command, at, unix_ms);
        }
        self.inside = false;
        core.glue = None;
        if self.run.is_empty() {
            core.out[self.here.other().index()].seal(self.entry_end);
        }
    }

    fn whole_database(&mut self, core: &mut Core, db: Option<u32>) {
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

    fn swap(&mut self, core: &mut Core, batch: &Batch, command: &Command, a: u32, b: u32) {
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

    /// A change that reaches into the selected databases from outside (MOVE, COPY … DB): what it left there is carried
    /// as state.
    fn partly_wanted(&mut self, core: &mut Core, touches: &[Touch<'_>], at: u32) {
        let inside: SmallVec<[Touch<'_>; 4]> = touches.iter().filter(|t| self.is_due(t.db, t.key)).copied().collect();
        if !inside.is_empty() {
            core.change_as_state(self.here, &inside, at, self.entry_end.offset.0);
            self.effects(core);
        }
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

    fn forward(
        &mut self,
        core: &mut Core,
        batch: &Batch,
        command: &Command,
        spec: Option<&Spec>,
        serial: u64,
        slot: Option<u16>,
    ) {
        let argc = (command.args.1 - command.args.0) as usize;
        let reveals = spec.and_then(|spec| classify::reveals(spec, argc));
        if !is_big(command) {
            if let Some(reveals) = reveals {
                self.run.tell(reveals);
            }
            self.run.data().put_slice(batch.frame_bytes(command));
            return self.run.added(1, serial);
        }
        // Not copied: the outbox holds on to the bytes as they were read.
        self.flush(core);
        core.decided[self.here.index()] = self.entry_end;
        core.push(
            self.here.other(),
            NewItem {
                db: Some(command.db),
                slot,
                changes: 1,
                telltales: reveals.map(|reveals| Telltale { index: 0, reveals }).into_iter().collect(),
                ..NewItem::new(batch.frame(command), 1, ItemKind::Changes, serial)
            },
        );
    }

    fn rewritten(&mut self, list: &[Line], original: &Args<'_>, serial: u64) {
        for line in list {
            let name = line.first().map_or(&[][..], |w| w.bytes(original));
            if let Some(reveals) = command::lookup_name(name).and_then(|spec| classify::reveals(spec, line.len())) {
                self.run.tell(reveals);
            }
            encode_line(self.run.data(), line, original);
            self.run.added_command();
        }
        self.run.added(0, serial);
    }

    /// Puts what was gathered into the outbox.
    pub fn flush(&mut self, core: &mut Core) {
        self.run.flush(core, self.here.other(), ItemKind::Changes);
    }
}

/// Sentinels find each other by messages at the servers they watch, and replication carries those along. Those of one
/// site must not hear the other's: where both call their master by one name, they would take it for one master.
fn is_sentinels_word(args: &Args<'_>) -> bool {
    args.get(0).is_some_and(|name| name.eq_ignore_ascii_case(b"publish"))
        && args.get(1).is_some_and(|channel| channel.starts_with(b"__sentinel__:"))
}

fn is_big(command: &Command) -> bool {
    (command.frame.1 - command.frame.0) as usize >= BIG_COMMAND
}
