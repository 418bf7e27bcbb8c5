//! Keys of which very many changes are in flight: which classes of them there are, without a look at each.
//!
//! A change is compared with all that are in flight to its key. Both sites count on one key, a site is far behind, and each of
//! the next hundred thousand changes would look at the hundred thousand before it. So for a key that had many, the newest change
//! of each class is noted from then on. Whether one of a class is in flight is told by that, and nothing has to be taken out
//! when changes have happened: a newest one from before the front is none.
//!
//! Invariant: what is noted of a key is what a walk through its changes would find.

use super::class::{Class, Part, commute};
use super::held::What;
use std::collections::HashMap;

/// Changes to a key that a walk may find before they are noted here. Few in the simulation of two sites, whose keys are seldom so
/// busy: there it decides by what is noted as often as by a walk.
pub const MANY: usize = if cfg!(test) { 3 } else { 64 };
/// Keys that are noted before it is looked which of them have nothing in flight any more.
const KEYS: usize = 64;
/// What tells one key from another: as many bits of a hash as a change in flight is known by.
const BITS: u64 = (1 << 48) - 1;

/// The newest change to a key of each class, and of those to several keys, by its serial; 0 if there was none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Newest {
    of: [u64; Class::ALL.len()],
    grouped: u64,
}

impl Newest {
    fn see(&mut self, serial: u64, what: &What) {
        let of = &mut self.of[what.class as usize];
        *of = (*of).max(serial);
        if what.group != 0 {
            self.grouped = self.grouped.max(serial);
        }
    }

    fn newest(&self) -> u64 {
        self.of.iter().copied().max().unwrap_or_default()
    }
}

/// What is noted of a key, as of what is in flight now.
#[derive(Debug, Clone, Copy)]
pub struct Classes<'a> {
    newest: &'a Newest,
    /// The serial of the oldest change in flight.
    first: u64,
}

impl Classes<'_> {
    /// The classes of which a change is in flight.
    pub fn iter(&self) -> impl Iterator<Item = Class> + '_ {
        Class::ALL.into_iter().filter(|class| self.newest.of[*class as usize] >= self.first)
    }

    /// A change to several keys is among them.
    pub fn grouped(&self) -> bool {
        self.newest.grouped >= self.first
    }
}

#[derive(Debug, Default)]
pub struct Hot {
    keys: HashMap<u64, Newest, foldhash::fast::FixedState>,
    /// When there are so many it is looked which of them are over.
    look_at: usize,
}

impl Hot {
    /// Bytes it holds.
    pub fn memory(&self) -> usize {
        self.keys.capacity() * size_of::<(u64, Newest)>()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What is noted of a key, where it had many; `first`: the oldest serial in flight.
    #[inline]
    pub fn get(&self, hash: u64, first: u64) -> Option<Classes<'_>> {
        if self.keys.is_empty() {
            return None;
        }
        self.keys.get(&(hash & BITS)).map(|newest| Classes { newest, first })
    }

    /// A change is entered.
    #[cold]
    pub fn see(&mut self, hash: u64, serial: u64, what: What) {
        if let Some(newest) = self.keys.get_mut(&(hash & BITS)) {
            newest.see(serial, &what);
        }
    }

    /// From now on this key is noted; these are its changes in flight.
    pub fn note(&mut self, hash: u64, first: u64, changes: impl Iterator<Item = (u64, What)>) {
        if self.keys.len() >= self.look_at.max(KEYS) {
            self.keys.retain(|_, newest| newest.newest() >= first);
            self.look_at = 2 * self.keys.len();
        }
        let mut newest = Newest::default();
        changes.for_each(|(serial, what)| newest.see(serial, &what));
        self.keys.insert(hash & BITS, newest);
    }

    /// Nothing is in flight.
    pub fn clear(&mut self) {
        if !self.keys.is_empty() {
            *self = Hot::default();
        }
    }
}

/// Whether changes of these classes commute, where that does not depend on which parts of their key they are about.
pub fn commute_always(a: Class, b: Class) -> Option<bool> {
    let always = commute((a, Part::WHOLE), (b, Part::WHOLE));
    let at_times = commute((a, Part::one(1)), (b, Part::one(2)));
    (always == at_times).then_some(always)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::arbiter::made_by::MadeBy;

    fn what(class: Class) -> What {
        What { class, part: Part::WHOLE, at: 0, group: 0, made_by: MadeBy::UNKNOWN }
    }

    #[test]
    fn keys_that_have_nothing_in_flight_are_forgotten() {
        let mut hot = Hot::default();
        for n in 1..=10_000u64 {
            hot.note(n, n.saturating_sub(100), [(n, what(Class::Counter))].into_iter());
            assert!(hot.keys.len() <= 300, "{} of {n}", hot.keys.len());
        }
        assert!(hot.get(10_000, 9_990).is_some());
        hot.clear();
        assert_eq!(hot.memory(), 0);
    }

    #[test]
    fn what_parts_decide_is_not_decided_without_them() {
        for a in Class::ALL {
            for b in Class::ALL {
                let Some(always) = commute_always(a, b) else { continue };
                let mask = Part::one(3).and(4);
                for (p, q) in [(Part::one(1), Part::one(1)), (Part::one(1), Part::one(9)), (mask, Part::WHOLE)] {
                    assert_eq!(commute((a, p), (b, q)), always, "{a:?} {b:?}");
                }
            }
        }
        assert_eq!(commute_always(Class::HashSet, Class::HashCounter), None);
        assert_eq!(commute_always(Class::Counter, Class::Counter), Some(true));
    }
}
