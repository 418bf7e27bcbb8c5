//! How far single slots of a cluster have been sent a stream of which a stretch is decided slot by slot.
//!
//! Within such a stretch the link's position stays where the stretch begins, and each transaction says beside it how far
//! its own slot has come. Invariant: what a slot's control key says never goes back; whatever is written in the slot
//! meanwhile, a note or a question, says so too.

use crate::model::Offset;
use std::collections::HashMap;

#[derive(Debug, Default)]
pub struct Had {
    slots: HashMap<u16, Offset>,
    /// The slot whose changes follow each other just now.
    last: Option<(u16, Offset)>,
}

impl Had {
    /// All changes of the slot up to here have been put into the outbox, or are about to be.
    #[inline]
    pub fn reached(&mut self, slot: u16, end: Offset) {
        match &mut self.last {
            Some((last, at)) if *last == slot => *at = end,
            last => {
                if let Some((slot, at)) = last.replace((slot, end)) {
                    self.slots.insert(slot, at);
                }
            }
        }
    }

    /// How far a slot is, where the link is at `position`.
    #[inline]
    pub fn of(&self, slot: Option<u16>, position: Offset) -> Offset {
        let Some((last, at)) = self.last else { return position };
        let own = slot.and_then(|slot| if slot == last { Some(at) } else { self.slots.get(&slot).copied() });
        own.map_or(position, |own| own.max(position))
    }

    /// The stretch has been decided: all are where the link is.
    pub fn clear(&mut self) {
        if self.last.take().is_some() {
            self.slots.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_is_where_it_was_left_until_the_stretch_ends() {
        let mut had = Had::default();
        assert_eq!(had.of(Some(1), Offset(100)), Offset(100));
        had.reached(1, Offset(120));
        had.reached(1, Offset(180));
        had.reached(2, Offset(130));
        let at = |had: &Had| [Some(1), Some(2), Some(3), None].map(|slot| had.of(slot, Offset(100)).0);
        assert_eq!(at(&had), [180, 130, 100, 100]);
        had.reached(1, Offset(190));
        assert_eq!(at(&had), [190, 130, 100, 100]);
        had.clear();
        assert_eq!(at(&had), [100, 100, 100, 100]);
    }
}
