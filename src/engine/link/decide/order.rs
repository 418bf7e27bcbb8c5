//! In which order the entries of a batch are decided, where the other site is a cluster.
//!
//! A transaction to a cluster has one slot, and neighbours in a stream seldom have the same: decided as they stand, each
//! change would be a transaction of its own. Order matters within a slot alone. So where more entries are at hand than
//! one, those of a slot are decided one behind the other, and go in one transaction. Nothing is waited for: the more
//! there is to be done, the more is at hand.
//!
//! A *stretch* is what is decided in such an order: all between two entries that are about no single slot. Invariants:
//!
//! 1. Every entry is decided once. What is about no single slot stands where it stood: all before it comes before it.
//! 2. Of a slot, changes and echoes keep their order, whichever they are. So a change meets just those in flight that it
//!    would have met: an echo clears what was sent before, and of another slot than its own that has had an echo before.
//! 3. Echoes keep their order among themselves.
//! 4. Within a stretch the link's position stays where the stretch begins; it is the stretch's end with the last step.
//!    Until then only a slot can be told to be further ([`Had`](crate::engine::core::had::Had)): up to the last of its
//!    entries that was decided, which none of its own is missing before.

use std::collections::HashMap;

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// No key at all.
    Nothing,
    /// Keys of this slot.
    Slot(u16),
    /// The same; it is an echo.
    Echo(u16),
    /// Several slots, or it can't be told.
    Alone,
}

/// One entry's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub entry: u32,
    /// The slot whose changes follow each other here.
    pub slot: Option<u16>,
    /// All entries up to this one have been decided with this step.
    pub closes: Option<u32>,
}

/// Fewer entries than this are decided as they stand.
const FEW: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Order {
    steps: Vec<Step>,
    /// Of the stretch under way: (behind how many echoes, slot, entry).
    stretch: Vec<(u32, u32, u32)>,
    /// How many echoes there were when the slot's last one came.
    echoed: HashMap<u16, u32>,
    echoes: u32,
    /// Of the last batch: echoes and all.
    seen: [usize; 2],
}

const ECHO: u32 = 0;
/// A slot's number is written behind this.
const FIRST: u32 = 1;
const NOTHING: u32 = u32::MAX;

impl Order {
    /// The entries are decided as they stand.
    pub fn plain(&mut self) {
        self.steps.clear();
    }

    /// Arranges the entries of a batch.
    pub fn arrange(&mut self, places: impl ExactSizeIterator<Item = Place>) {
        self.steps.clear();
        self.seen = [0, places.len()];
        if places.len() < FEW {
            return;
        }
        for (entry, place) in (0u32..).zip(places) {
            match place {
                Place::Alone => {
                    self.close();
                    self.steps.push(Step { entry, slot: None, closes: Some(entry) });
                }
                Place::Echo(slot) => {
                    self.echoes += 1;
                    self.seen[0] += 1;
                    self.echoed.insert(slot, self.echoes);
                    self.stretch.push((self.echoes, ECHO, entry));
                }
                Place::Slot(slot) => {
                    let behind = if self.echoes == 0 { 0 } else { self.echoed.get(&slot).copied().unwrap_or(0) };
                    self.stretch.push((behind, FIRST + u32::from(slot), entry));
                }
                Place::Nothing => self.stretch.push((self.echoes, NOTHING, entry)),
            }
        }
        self.close();
    }

    /// Most of what is read are echoes: more of them at once is no gain.
    pub fn is_of_echoes(&self) -> bool {
        self.seen[0] * 2 > self.seen[1]
    }

    /// The step with this number.
    #[inline]
    pub fn step(&self, n: usize) -> Step {
        let plain = || Step { entry: n as u32, slot: None, closes: Some(n as u32) };
        self.steps.get(n).copied().unwrap_or_else(plain)
    }

    /// The stretch ends.
    fn close(&mut self) {
        let Some(&(.., last)) = self.stretch.last() else { return };
        let before = runs(&self.stretch);
        self.stretch.sort_unstable();
        if self.stretch.len() < FEW || runs(&self.stretch) * 4 > before * 3 {
            // There is little to gain, and each step is a position that can be written down.
            let first = last + 1 - self.stretch.len() as u32;
            let plain = |entry| Step { entry, slot: None, closes: Some(entry) };
            self.steps.extend((first..=last).map(plain));
        } else {
            let slot = |tag: u32| tag.checked_sub(FIRST).and_then(|slot| u16::try_from(slot).ok());
            let steps = self.stretch.iter().map(|&(_, tag, entry)| Step { entry, slot: slot(tag), closes: None });
            self.steps.extend(steps);
            if let Some(step) = self.steps.last_mut() {
                step.closes = Some(last);
            }
        }
        self.stretch.clear();
        self.echoed.clear();
        self.echoes = 0;
    }
}

/// Changes of one slot in a row count once.
fn runs(stretch: &[(u32, u32, u32)]) -> usize {
    let mut before = NOTHING;
    let begins = |&(_, tag, _): &(u32, u32, u32)| {
        let begins = tag != before && tag != NOTHING;
        before = tag;
        begins
    };
    stretch.iter().copied().filter(begins).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place() -> impl Strategy<Value = Place> {
        prop_oneof![
            30 => (0u16..6).prop_map(Place::Slot),
            5 => (0u16..6).prop_map(Place::Echo),
            2 => Just(Place::Nothing),
            1 => Just(Place::Alone),
        ]
    }

    fn slot_of(place: Place) -> Option<u16> {
        match place {
            Place::Slot(slot) | Place::Echo(slot) => Some(slot),
            Place::Nothing | Place::Alone => None,
        }
    }

    proptest! {
        #[test]
        fn a_slots_order_stands_and_no_position_passes_what_was_not_decided(
            batches in proptest::collection::vec(proptest::collection::vec(place(), 0..200), 1..4),
        ) {
            let mut order = Order::default();
            for places in batches {
                order.arrange(places.iter().copied());
                let steps: Vec<Step> = (0..places.len()).map(|n| order.step(n)).collect();
                let mut decided = vec![false; places.len()];
                // Of each slot its last entry that was decided; what all have had.
                let (mut had, mut all) = (HashMap::new(), None);
                let mut last_echo = None;
                for step in steps {
                    let (n, place) = (step.entry as usize, places[step.entry as usize]);
                    prop_assert!(!std::mem::replace(&mut decided[n], true), "{n} is decided twice");
                    if let Some(slot) = slot_of(place) {
                        prop_assert!(had.insert(slot, n).is_none_or(|before| before < n), "{slot} loses its order");
                        let missing = (0..n).find(|m| slot_of(places[*m]) == Some(slot) && !decided[*m]);
                        prop_assert_eq!(missing, None, "slot {} is told to be at {}", slot, n);
                    }
                    if matches!(place, Place::Echo(_)) {
                        prop_assert!(last_echo.replace(n).is_none_or(|before| before < n), "echoes lose their order");
                    }
                    if place == Place::Alone {
                        prop_assert!(decided[..n].iter().all(|d| *d) && decided[n + 1..].iter().all(|d| !d));
                    }
                    if let Some(slot) = step.slot {
                        prop_assert_eq!(place, Place::Slot(slot));
                    }
                    if let Some(closes) = step.closes {
                        prop_assert!(decided[..=closes as usize].iter().all(|d| *d), "passes what was not decided");
                        prop_assert!(decided[closes as usize + 1..].iter().all(|d| !d), "a stretch is a stretch");
                        prop_assert!(all.replace(closes).is_none_or(|before| before < closes));
                    }
                }
                prop_assert_eq!(all, (places.len() as u32).checked_sub(1));
                prop_assert!(decided.into_iter().all(|d| d));
            }
        }
    }

    #[test]
    fn changes_of_a_slot_follow_each_other_unless_its_echo_stands_between() {
        let mut order = Order::default();
        let mut places: Vec<Place> = (0..32).map(|n| Place::Slot(n % 2)).collect();
        places.push(Place::Echo(0));
        places.extend([Place::Slot(0), Place::Slot(1), Place::Alone, Place::Slot(1)]);
        order.arrange(places.iter().copied());
        let entries: Vec<u32> = (0..places.len()).map(|n| order.step(n).entry).collect();
        let mut wanted: Vec<u32> = (0..32).step_by(2).collect();
        wanted.extend((1..32).step_by(2));
        // The second slot has had no echo: what came behind the other's is no different from what came before.
        wanted.extend([34, 32, 33, 35, 36]);
        assert_eq!(entries, wanted);
        let closes: Vec<u32> = (0..places.len()).filter_map(|n| order.step(n).closes).collect();
        assert_eq!(closes, [34, 35, 36]);
    }

    #[test]
    fn where_nothing_is_gained_entries_stand_as_they_stood() {
        let mut order = Order::default();
        order.arrange((0..100).map(Place::Slot));
        assert_eq!(order.step(7), Step { entry: 7, slot: None, closes: Some(7) });
        order.arrange([Place::Slot(1), Place::Slot(2), Place::Slot(1)].into_iter());
        assert_eq!(order.step(1), Step { entry: 1, slot: None, closes: Some(1) });
    }
}
