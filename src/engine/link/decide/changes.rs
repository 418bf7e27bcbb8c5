//! What clients did, command by command: verdicts asked for, and what is forwarded put into words.

use super::Decider;
use crate::engine::apply::outbox::{ItemKind, Telltale};
use crate::engine::arbiter::class::{Class, Part};
use crate::engine::arbiter::classify::{self, Effect, classify_as};
use crate::engine::arbiter::made_by::MadeBy;
use crate::engine::arbiter::{Touch, Verdict};
use crate::engine::core::expiries::{Expiries, put_off};
use crate::engine::core::{Core, NewItem, unix_ms};
use crate::wire::command::{self, Argv, Spec};
use crate::wire::resp::{encode, encode_header, encode_part};
use crate::wire::rewrite::{Line, Rewrite, encode_line, postpone, rewrite_as};
use crate::wire::stream::{Args, Batch, Command};
use bytes::BufMut;
use smallvec::SmallVec;

/// A command above this size is a run of its own and is not copied.
const BIG_COMMAND: usize = 32 << 10;
/// Of values up to this, several in a row are set by one command: to others what a command costs beside them is nothing.
const SMALL: usize = 4 << 10;

impl Decider {
    pub(super) fn single(&mut self, core: &mut Core, batch: &Batch, command: &Command, at: u32, unix_ms: u64) {
        let command = &Command { db: core.db_at_peer(self.here, command.db), ..*command };
        let args = batch.args(command);
        let spec = command::lookup(&args);
        core.conflicts.deciding(&args);
        core.arbiter.made_by(MadeBy::command(spec), command.frame.1 - command.frame.0);
        if (!self.imports.is_empty() || self.entry_end.offset <= self.away_until) && self.is_brought(spec, &args) {
            return self.came_with_its_slot(core, classify_as(spec, &core.arbiter, command.db, &args), at);
        }
        if spec.is_some_and(|s| s.name == "set") && args.argc() == 3 && !is_big(command) {
            return self.plain_set(core, command.db, [args.arg(1), args.arg(2)], batch.frame_bytes(command), at);
        }
        let effect = classify_as(spec, &core.arbiter, command.db, &args);
        if self.entry_end.offset <= self.ahead.until {
            self.may_have_failed(core, &effect);
        }
        if spec.is_some_and(|s| s.name == "restore-asking") {
            return self.came_with_its_slot(core, effect, at);
        }
        match effect {
            Effect::Nothing => self.hear(spec, &args),
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

    /// What the servers of a cluster tell each other by way of the stream.
    pub fn hear(&mut self, spec: Option<&Spec>, args: &Args<'_>) {
        if self.names.is_cluster() && spec.is_some_and(|spec| spec.name.starts_with("cluster")) {
            self.imports.hear(args);
        }
    }

    /// A slot is coming to this shard, and brings this along: one of its keys, what was done to that at the shard before, or all
    /// functions of that one. Or it may have been away, and this is what it left.
    #[cold]
    fn is_brought(&self, spec: Option<&Spec>, args: &Args<'_>) -> bool {
        let Some(spec) = spec else { return false };
        match spec.kind {
            _ if matches!(spec.name, "del" | "unlink") && self.entry_end.offset <= self.away_until => true,
            command::Kind::Function => {
                !self.imports.is_empty() && args.get(1).is_some_and(|word| word.eq_ignore_ascii_case(b"restore"))
            }
            _ => spec.keys(args).is_some_and(|keys| keys.iter().any(|k| self.imports.hold(args.arg(k.arg as usize)))),
        }
    }

    /// A key that a slot brought along when it moved to this shard: no client has changed it, but what it is now is told
    /// here alone.
    fn came_with_its_slot(&mut self, core: &mut Core, effect: Effect<'_>, at: u32) {
        let (Effect::Keys(mut touches) | Effect::Apart(mut touches)) = effect else { return };
        touches.retain(|t| self.is_due(t.db, t.key));
        for t in &touches {
            if let Some(loses) = core.arbiter.loses_by_move(self.here, t) {
                core.overruled(t.db, t.key, loses);
            }
        }
        core.change_as_state(self.here, &touches, at, self.entry_end.offset.0);
        self.effects(core);
    }

    /// The most frequent change by far.
    fn plain_set(&mut self, core: &mut Core, db: u32, [key, value]: [&[u8]; 2], frame: &[u8], at: u32) {
        if !self.is_due(db, key) {
            return;
        }
        self.read.changes += 1;
        let known = if self.inside { None } else { self.glance.hash(db) };
        let hash = known.unwrap_or_else(|| core.arbiter.hash(db, key));
        let touch = Touch { db, key, hash, class: Class::Write, part: Part::WHOLE };
        let Some(serial) = self.serial_of(core, &touch, at) else { return };
        self.begin(core, db, self.there.slot(key));
        if value.len() <= SMALL {
            return self.run.set(key, value, serial);
        }
        self.run.data().put_slice(frame);
        self.run.added(1, serial);
    }

    /// The verdict on a change to one key: its serial, if it goes to the other site.
    #[inline]
    fn serial_of(&mut self, core: &mut Core, touch: &Touch<'_>, at: u32) -> Option<u64> {
        core.touched(self.here.other(), touch.hash);
        let verdict = core.arbiter.change(self.here, touch, at);
        self.effects(core);
        match verdict {
            Verdict::Forward(serial) => Some(serial),
            Verdict::Withhold => None,
        }
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
        let written = || touches.iter().filter(|t| t.class != Class::Read);
        match spec {
            // It may have taken any key anywhere.
            None => {
                core.expiries[here].moved();
                if core.expiries[peer].put_off() {
                    core.expiries[peer].moved();
                }
            }
            Some(spec) if matches!(spec.name, "rename" | "renamenx" | "copy" | "move") => {
                written().for_each(|t| core.expiries[here].note(t.db, t.key));
                if core.expiries[peer].put_off() {
                    written().for_each(|t| core.expiries[peer].note(t.db, t.key));
                } else if !core.expiries[peer].are_true() {
                    // It is being looked for: its state tells what is true.
                    *words = Rewrite::State;
                }
            }
            Some(_) => {}
        }
        if !core.expiries[peer].put_off() {
            return;
        }
        let now = unix_ms();
        if let Some(later) = postpone(args, words, |at| put_off(at, now)) {
            *words = later;
            written().for_each(|t| core.expiries[peer].note(t.db, t.key));
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
            if core.keep_back(self.here, std::slice::from_ref(touch), at, self.entry_end.offset.0) {
                continue;
            }
            if let Some(serial) = self.serial_of(core, touch, at) {
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
    pub(super) fn transaction(&mut self, core: &mut Core, batch: &Batch, commands: &[Command], at: u32, unix_ms: u64) {
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

    /// A change that reaches into the selected databases from outside (MOVE, COPY … DB): what it left there is carried
    /// as state.
    fn partly_wanted(&mut self, core: &mut Core, touches: &[Touch<'_>], at: u32) {
        let inside: SmallVec<[Touch<'_>; 4]> = touches.iter().filter(|t| self.is_due(t.db, t.key)).copied().collect();
        if !inside.is_empty() {
            core.change_as_state(self.here, &inside, at, self.entry_end.offset.0);
            self.effects(core);
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
