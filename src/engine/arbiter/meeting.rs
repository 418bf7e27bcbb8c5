//! What a change meets: those in flight to its key that do not commute with it.

use super::class::{Class, Part, commute};
use super::earlier;
use super::hot::{MANY, commute_always};
use super::table::Table;

/// What stands against a change, of what is in flight to its site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meeting {
    /// Something that writes the key.
    pub against: bool,
    /// All of that are deletions.
    pub only_deletes: bool,
    /// Something that reads the key, to write another.
    pub was_read: bool,
    /// When the earliest of them was made (`u32::MAX`: nothing tells), and whether that is known of all.
    pub earliest: u32,
    pub known: bool,
    /// So many changes to the key were looked at.
    pub walked: usize,
}

impl Meeting {
    #[inline]
    fn none() -> Self {
        Meeting { against: false, only_deletes: true, was_read: false, earliest: u32::MAX, known: true, walked: 0 }
    }

    #[inline]
    fn meets(&mut self, class: Class) {
        if class == Class::Read {
            self.was_read = true;
        } else {
            self.against = true;
            self.only_deletes &= class.is_delete();
        }
    }

    /// So many that they had better be noted.
    pub fn many(&self) -> bool {
        self.walked > MANY
    }
}

impl Table {
    /// What a change meets. `open`: an episode of its key is, so nobody asks when the others were made, nor, unless this one
    /// deletes it, what they are.
    #[inline(always)]
    pub fn meet(&self, hash: u64, change: (Class, Part), open: bool) -> Meeting {
        if self.notes_classes()
            && let Some(met) = self.meet_noted(hash, change, open)
        {
            return met;
        }
        let mut met = Meeting::none();
        for (_, e) in self.changes(hash) {
            met.walked += 1;
            if commute(change, (e.class, e.part)) {
                continue;
            }
            met.meets(e.class);
            if e.class != Class::Read {
                met.known &= e.at != 0;
                met.earliest = earlier(met.earliest, e.at);
            }
        }
        met
    }

    /// The same by what is noted of the key, where that is enough. Hardly ever is anything noted of any.
    #[cold]
    fn meet_noted(&self, hash: u64, change: (Class, Part), open: bool) -> Option<Meeting> {
        let (mut met, mut parts_decide) = (Meeting::none(), false);
        for class in self.classes(hash)?.iter() {
            match commute_always(change.0, class) {
                Some(true) => {}
                Some(false) => met.meets(class),
                None => parts_decide = true,
            }
        }
        // A deletion commutes with nothing by parts.
        (open || !met.against && !parts_decide).then_some(met)
    }

    /// Whether nothing in flight stands against a change, reads included.
    pub fn is_free(&self, hash: u64, change: (Class, Part)) -> bool {
        if let Some(classes) = self.classes(hash) {
            let mut parts_decide = false;
            for class in classes.iter() {
                match commute_always(change.0, class) {
                    Some(true) => {}
                    Some(false) => return false,
                    None => parts_decide = true,
                }
            }
            if !parts_decide {
                return true;
            }
        }
        !self.changes(hash).any(|(_, e)| !commute(change, (e.class, e.part)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_by::MadeBy;
    use super::super::table::What;
    use super::*;

    fn what(class: Class, part: Part, at: u32) -> What {
        What { class, part, at, group: 0, made_by: MadeBy::UNKNOWN }
    }

    /// Both sites count on one key, and one of them is far behind.
    #[test]
    fn what_many_changes_are_is_known_without_a_look_at_each() {
        let (mut table, counts) = (Table::new(), (Class::Counter, Part::WHOLE));
        let mut looked = 0;
        for _ in 0..20_000 {
            let met = table.meet(7, counts, false);
            assert!(!met.against && !met.was_read && table.is_free(7, counts));
            looked += met.walked;
            if met.many() {
                table.note(7);
            }
            table.push(7, what(Class::Counter, Part::WHOLE, 1));
        }
        assert!(looked <= 2 * MANY * MANY, "{looked} changes were looked at");
        // What does not commute is found, however many stand before it and behind it.
        table.push(7, what(Class::Delete, Part::WHOLE, 5));
        (0..1_000).for_each(|_| _ = table.push(7, what(Class::Counter, Part::WHOLE, 9)));
        assert!(table.meet(7, counts, true).only_deletes, "but for what commutes");
        let met = table.meet(7, (Class::Write, Part::WHOLE), false);
        assert_eq!((met.against, met.only_deletes, met.earliest, met.walked), (true, false, 1, 21_001));
        assert_eq!(table.meet(7, (Class::Write, Part::WHOLE), true).walked, 0, "when it was is not asked");
        table.clear(20_001);
        assert!(table.is_free(7, counts), "the deletion has happened");
    }

    /// What is noted says what a walk says: of any changes, at any time.
    #[test]
    fn what_is_noted_is_what_a_walk_finds() {
        let mut rng = fastrand::Rng::with_seed(11);
        let (mut noted, mut plain) = (Table::new(), Table::new());
        let changes = |rng: &mut fastrand::Rng| {
            let class = Class::ALL[rng.usize(..Class::ALL.len())];
            let part = [Part::WHOLE, Part::one(1), Part::one(2), Part::one(3).and(4)][rng.usize(..4)];
            (class, part)
        };
        for round in 0..8_000 {
            // Now all of one class, now of every one.
            let (class, part) = if round / 500 % 2 == 0 { (Class::Counter, Part::WHOLE) } else { changes(&mut rng) };
            let (hash, at) = (rng.u64(1..5), rng.u32(..3));
            for table in [&mut noted, &mut plain] {
                table.push(hash, what(class, part, at));
            }
            let (hash, change, open) = (rng.u64(1..5), changes(&mut rng), rng.bool());
            let (met, walked) = (noted.meet(hash, change, open), plain.meet(hash, change, open));
            if met.many() {
                noted.note(hash);
            }
            let told = |m: Meeting| (m.against, m.only_deletes, m.was_read);
            // Where an episode is open nobody asks what stands against it, but of a deletion.
            if !open || change.0 == Class::Delete {
                assert_eq!(told(met), told(walked), "{change:?} in round {round}");
            }
            assert_eq!(met.was_read, walked.was_read);
            if !open && met.against {
                assert_eq!((met.earliest, met.known), (walked.earliest, walked.known));
            }
            assert_eq!(noted.is_free(hash, change), plain.is_free(hash, change));
            if rng.u32(..400) == 0 {
                let upto = noted.oldest_serial() + rng.u64(..=noted.len() as u64);
                noted.clear(upto);
                plain.clear(upto);
            }
        }
    }
}
