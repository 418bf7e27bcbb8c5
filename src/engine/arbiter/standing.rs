//! Whose order stands in every episode of a key, whatever opens it: while a copy runs, and where a cluster's slot has moved.

use super::episode::Cause;
use super::{Arbiter, Touch};
use crate::engine::strand::SlotSet;
use crate::model::Side;
use crate::wire::slot::slot;

/// Slots in which a side's order stands, by side.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// They came from another of its shards and are being settled by its state.
    moved: Option<Box<[SlotSet; 2]>>,
    /// They were away, and are back at the shard that is read; what that says of it has not been read yet.
    back: Option<Box<[SlotSet; 2]>>,
}

impl Slots {
    pub(super) fn are_none(&self) -> bool {
        self.moved.is_none() && self.back.is_none()
    }

    fn side_of(&self, key: &[u8]) -> Option<Side> {
        if self.are_none() {
            return None;
        }
        let slot = slot(key);
        let holds = |sets: &Option<Box<[SlotSet; 2]>>, side: Side| {
            sets.as_ref().is_some_and(|sets| sets[side.index()].contains(slot))
        };
        // Of what was away while it moved at the other side nothing is settled but by that one.
        [&self.moved, &self.back].into_iter().find_map(|sets| Side::BOTH.into_iter().find(|side| holds(sets, *side)))
    }
}

fn some(slots: &[SlotSet; 2]) -> Option<Box<[SlotSet; 2]>> {
    slots.iter().any(|s| !s.is_empty()).then(|| Box::new(slots.clone()))
}

impl Arbiter {
    /// Slots of these sides may move.
    pub fn slots_may_move(&mut self, sides: [bool; 2]) {
        self.whole = sides;
    }

    /// These slots came from another shard of their side: until they are settled by its state it is the authority of all
    /// that they hold, since no stream that is read tells all that happened to them there.
    pub fn moved(&mut self, slots: &[SlotSet; 2]) {
        self.slots.moved = some(slots);
    }

    pub fn moved_is_settled(&mut self, side: Side) {
        if let Some(mut slots) = self.slots.moved.take() {
            slots[side.index()] = SlotSet::none();
            self.slots.moved = some(&slots);
        }
    }

    /// These slots were away from the shard of this side, and came back before its stream was read up to there: what clients did
    /// to them meanwhile stands there as state. A transfer of the other side's state would write over it before it was read; and
    /// what the other side did is forwarded in any case. So until that has been read, this side is the authority.
    pub fn came_back(&mut self, side: Side, slots: SlotSet) {
        let mut sets = self.slots.back.take().unwrap_or_default();
        sets[side.index()] = slots;
        self.slots.back = some(&sets);
    }

    /// Whose order stands in every episode of this key, whatever opens it.
    pub(super) fn standing(&self, key: &[u8]) -> Option<Side> {
        self.loading.or_else(|| self.slots.side_of(key))
    }

    /// An episode of this key was noted with an authority that stands no more, since its slot has moved at the other side.
    pub fn is_overruled(&self, key: &[u8], authority: Side) -> bool {
        !self.slots.are_none() && self.standing(key).is_some_and(|side| side != authority)
    }

    /// A key has come to a shard of `here` together with its slot: whose changes may be lost by that, if anybody's. Where the
    /// other site's state stands, what clients did to it at the shard before is told nowhere; where an episode had the other
    /// site as authority, what that one withheld.
    pub fn loses_by_move(&self, here: Side, touch: &Touch<'_>) -> Option<Side> {
        let peer = here.other();
        match self.standing(touch.key) {
            _ if self.one_way => None,
            Some(side) => (side == peer).then_some(here),
            None => {
                let open = self.episodes.find(touch.hash, touch.db, touch.key)?;
                (open.authority == peer && open.cause != Cause::Spread).then_some(peer)
            }
        }
    }
}
