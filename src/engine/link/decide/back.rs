//! Slots that left the shard that is read and came back to it before anybody had seen them away.
//!
//! What clients did to them elsewhere came back as state. Where the way there and back lies within what a run still has to read
//! when it begins, it is known beforehand (`link/back`): what is said of them up to there is state and no change, and in their
//! keys this side's order stands until that has been read.

use super::Decider;
use super::imports::Imports;
use crate::engine::core::Core;
use crate::engine::strand::SlotSet;
use crate::model::Offset;
use crate::wire::command;
use crate::wire::slot::slot;
use crate::wire::stream::{Batch, Entry};

/// What is seen on a way through the stream, ahead of the decisions.
pub struct Ahead {
    imports: Imports,
    slots: SlotSet,
}

impl Decider {
    /// To be shown all entries that are still to be decided, in their order.
    pub fn look_ahead(&self) -> Ahead {
        Ahead { imports: self.imports.clone(), slots: self.imports.named() }
    }

    /// These slots came back before the run, and this is all said up to there. Gives those of them that are the link's.
    pub fn came_back(&mut self, seen: Ahead, until: Offset) -> SlotSet {
        let slots = self.slots().map(|own| own.and(&seen.slots)).unwrap_or_default();
        if !slots.is_empty() {
            self.imports.came_before(&slots);
            self.brought_until = self.brought_until.max(until);
            self.back_until = until;
        }
        slots
    }

    /// What was said of them has been read.
    pub(super) fn all_is_back(&mut self, core: &mut Core) {
        if self.back_until > Offset(0) && core.decided[self.here.index()].offset >= self.back_until {
            self.back_until = Offset(0);
            core.arbiter.came_back(self.here, SlotSet::none());
        }
    }
}

impl Ahead {
    pub fn see(&mut self, batch: &Batch, entry: &Entry) {
        for c in batch.commands(entry) {
            let args = batch.args(c);
            let Some(spec) = command::lookup(&args) else { continue };
            if spec.name == "restore-asking" {
                args.get(1).into_iter().for_each(|key| self.slots.insert(slot(key)));
            } else if spec.name.starts_with("cluster") {
                self.imports.hear(&args).iter().for_each(|slots| self.slots.add(slots));
            }
        }
    }
}
