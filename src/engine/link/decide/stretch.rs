//! What a decider does within a stretch that is decided slot by slot: see [`super::order`].

use super::Decider;
use super::order::{Place, Step};
use crate::engine::apply::control_key::Position;
use crate::engine::core::Core;
use crate::wire::command::{self, Argv, Kind};
use crate::wire::slot::slot;
use crate::wire::stream::{Batch, Command, Entry};

/// A stretch that has not been decided to its end.
#[derive(Debug, Default)]
pub(super) struct Stretch {
    /// Whose changes follow each other just now.
    slot: Option<u16>,
    /// The last echo in it: what is written before the stretch's end must not say that it was read.
    pub echoed: Option<Position>,
    /// There was more in it than our own checkpoints.
    real: bool,
}

impl Decider {
    /// Whether more may be done at once where more is at hand.
    pub fn gathers(&self) -> bool {
        self.there.is_cluster()
    }

    /// Whether that is a gain, by what was read last.
    pub fn is_worth_gathering(&self) -> bool {
        !self.order.is_of_echoes()
    }

    /// Finds the order in which a batch is decided.
    pub(super) fn arrange(&mut self, core: &Core, batch: &Batch, base: u64) {
        self.closed = 0;
        // What is carried as state, or was had by some slots before, is looked at in the stream's order.
        if !self.there.is_cluster() || base < self.ahead.until.0 || !core.carry.is_idle() {
            return self.order.plain();
        }
        let mut order = std::mem::take(&mut self.order);
        order.arrange(batch.entries.iter().map(|entry| self.place_of(batch, entry)));
        self.order = order;
    }

    fn place_of(&self, batch: &Batch, entry: &Entry) -> Place {
        let commands = batch.commands(entry);
        let Some(first) = commands.first() else { return Place::Nothing };
        let mut found = None;
        let mut has_marker = false;
        for c in commands {
            let Some(slot) = slot_of(batch, c).filter(|slot| *found.get_or_insert(*slot) == *slot) else {
                return Place::Alone;
            };
            found = Some(slot);
            has_marker |= batch.arg(c, 1).is_some_and(|key| key.starts_with(self.names.base()));
        }
        // A standalone site's transactions are for many slots.
        match found.filter(|_| first.db == 0) {
            Some(_) if has_marker && !self.names.is_cluster() => Place::Alone,
            Some(slot) if has_marker => Place::Echo(slot),
            Some(slot) => Place::Slot(slot),
            None => Place::Alone,
        }
    }

    /// A step begins; `closes`: where the link is with its end.
    pub(super) fn begin_step(&mut self, core: &mut Core, step: Step, closes: Option<Position>) {
        self.closes = closes;
        if closes.is_none() && self.stretch.is_none() {
            self.stretch = Some(Stretch::default());
        }
        if let Some(stretch) = &mut self.stretch
            && std::mem::replace(&mut stretch.slot, step.slot) != step.slot
        {
            self.flush(core);
        }
    }

    /// The end of the entry that is being decided is reached: what is pushed from now on says so.
    pub(super) fn arrive(&mut self, core: &mut Core) {
        let (here, peer) = (self.here.index(), self.here.other().index());
        match (self.closes, &mut self.stretch) {
            (Some(end), stretch) => {
                core.decided[here] = end;
                core.had[peer].clear();
                if let Some(echoed) = stretch.as_mut().and_then(|s| s.echoed.take()) {
                    core.echoed[here] = echoed;
                }
            }
            (None, Some(Stretch { slot: Some(slot), .. })) => core.had[peer].reached(*slot, self.entry_end.offset),
            (None, _) => {}
        }
    }

    /// A step has been decided. `real`: there was more in it than our own checkpoint.
    pub(super) fn end_step(&mut self, core: &mut Core, batch: &Batch, step: Step, real: bool) {
        self.arrive(core);
        let Some(last) = step.closes else {
            if let Some(stretch) = &mut self.stretch {
                stretch.real |= real;
            }
            return;
        };
        let real = real || self.stretch.take().is_some_and(|s| s.real);
        let begin = self.closed.checked_sub(1).map_or(0, |before| batch.entries[before].end);
        self.closed = last as usize + 1;
        core.decided_bytes(self.here.other(), batch.entries[last as usize].end - begin, real);
    }
}

/// The one slot that all of a command's keys are in.
fn slot_of(batch: &Batch, command: &Command) -> Option<u16> {
    let args = batch.args(command);
    if args.argc() == 3 && args.arg(0).eq_ignore_ascii_case(b"set") {
        return Some(slot(args.arg(1)));
    }
    // A key that comes along with its slot is no client's change.
    let spec = command::lookup(&args).filter(|spec| spec.kind == Kind::Keyed && spec.name != "restore-asking")?;
    let keys = spec.keys(&args).filter(|keys| keys.complete)?;
    let mut slots = keys.iter().map(|key| slot(args.arg(key.arg as usize)));
    let first = slots.next()?;
    slots.all(|slot| slot == first).then_some(first)
}
