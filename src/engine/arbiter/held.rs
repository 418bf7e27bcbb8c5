//! Changes in flight in the order in which they were sent, and found by their key.
//!
//! ```text
//!   heads   one for each bucket of hashes: the newest change in it, by its serial's low half
//!   tags    one for each bucket too: a bit for each sixteenth of the hashes that have been in it of late
//!   slots   a change each, in order; each names the one before it of the same bucket
//!   parts   which part of its key a change is about, where that is not the whole of it
//!   runs    what many changes in a row have in common: class, group, time, command
//! ```
//!
//! Invariants: a chain goes from newer to older and ends where what is in flight begins, so taking changes off the front
//! costs nothing but counting: a head or a link that points before the front is the end of its chain. A slot takes 8
//! bytes, its share of heads and tags 3 to 6; 4 more where changes near it are about parts; a run takes 16, and under a load
//! of one kind there is one for some hundred changes. What a burst took is given back.
//!
//! A slot keeps 32 bits of its key's hash, and its bucket stands for at least 16 more: with a million changes in flight,
//! one lookup in some hundred million takes a key for another. Such a key is then settled without need, which is safe.

use super::class::{Class, Part};
use super::hot::{Classes, Hot};
use super::made_by::MadeBy;
use super::parts::Parts;
use super::queue::Queue;
use std::collections::VecDeque;
use std::hint::black_box;

/// What a change does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct What {
    pub class: Class,
    pub part: Part,
    /// Milliseconds of the arbiter's clock when the change was made; 0 where unknown.
    pub at: u32,
    /// Names the group of a change to several keys; 0 for a change to one.
    pub group: u32,
    /// What made it, by its number in the command table, for the operator.
    pub made_by: MadeBy,
}

impl What {
    /// The state of a key, put there by a round.
    pub fn transfer() -> Self {
        What { class: Class::Transfer, part: Part::WHOLE, at: 0, group: 0, made_by: MadeBy::UNKNOWN }
    }
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Bits 16 to 47 of the key's hash.
    hash: u32,
    /// How many slots back the one before it of the same bucket stands; 0 if there is none.
    back: u32,
}

/// From this change on, up to where the next run begins.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// Its serial's low half.
    from: u32,
    at: u32,
    /// The class in the low byte, above it the group.
    class_and_group: u32,
    made_by: MadeBy,
}

/// Groups are numbered from 1 to this, then again: so many are never in flight at once.
pub const GROUPS: u32 = (1 << 24) - 1;

/// Buckets that there are at least: the low 16 bits of a hash.
const BUCKETS: usize = 1 << 16;
/// Changes for each bucket, before there are twice as many.
const LOAD: usize = 2;
/// Heads are looked through for such that point nowhere once in so many changes: what they hold wraps at twice as many.
const SWEEP: u64 = 1 << 31;
/// Buckets whose chains are walked side by side where there come to be twice as many.
const ABREAST: usize = 32;
/// Runs that are kept room for when nothing is in flight.
const RUNS_KEPT: usize = 1 << 10;

#[derive(Debug)]
pub struct Held {
    slots: Queue<Slot>,
    /// The serial of the first slot. Serials begin at 1 and count changes, tokens and restores alike.
    first: u64,
    heads: Vec<u32>,
    /// By far the most keys that are looked for are not in flight: most of them are known by their tag.
    tags: Vec<u16>,
    swept: u64,
    parts: Parts,
    runs: VecDeque<Run>,
    hot: Hot,
}

impl Held {
    pub fn new(first: u64) -> Self {
        Held {
            slots: Queue::default(),
            first,
            heads: Vec::new(),
            tags: Vec::new(),
            swept: first,
            parts: Parts::default(),
            runs: VecDeque::new(),
            hot: Hot::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes it holds.
    pub fn memory(&self) -> usize {
        self.slots.memory()
            + self.heads.capacity() * size_of::<u32>()
            + self.tags.capacity() * size_of::<u16>()
            + self.parts.memory()
            + self.runs.capacity() * size_of::<Run>()
            + self.hot.memory()
    }

    /// The serial of the oldest change, or of the next if there is none.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The serial of the next change.
    pub fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// The place of the change with this low half of a serial, if it is in flight.
    #[inline]
    fn place(&self, low: u32) -> Option<usize> {
        let place = low.wrapping_sub(self.first as u32) as usize;
        (place < self.slots.len()).then_some(place)
    }

    /// What a head holds that points nowhere: the serial before the first.
    fn nowhere(&self) -> u32 {
        (self.first as u32).wrapping_sub(1)
    }

    #[inline]
    fn bucket(&self, hash: u64) -> usize {
        hash as usize & (self.heads.len() - 1)
    }

    /// Enters a change; gives its serial.
    pub fn push(&mut self, hash: u64, what: What) -> u64 {
        if self.heads.is_empty() {
            self.heads = vec![self.nowhere(); BUCKETS];
            self.tags = vec![0; BUCKETS];
            self.swept = self.first;
        } else if self.slots.len() >= LOAD * self.heads.len() {
            self.grow();
        }
        let serial = self.next();
        if serial - self.swept >= SWEEP {
            self.sweep();
        }
        let bucket = self.bucket(hash);
        let slot_hash = (hash >> 16) as u32;
        let back = match self.place(self.heads[bucket]) {
            Some(place) => {
                self.tags[bucket] |= tag(slot_hash);
                (self.slots.len() - place) as u32
            }
            None => {
                self.tags[bucket] = tag(slot_hash);
                0
            }
        };
        self.heads[bucket] = serial as u32;
        let class_and_group = what.group << 8 | what.class as u32;
        if self
            .runs
            .back()
            .is_none_or(|r| r.at != what.at || r.class_and_group != class_and_group || r.made_by != what.made_by)
        {
            self.runs.push_back(Run { from: serial as u32, at: what.at, class_and_group, made_by: what.made_by });
        }
        if what.part != Part::WHOLE {
            self.parts.set(serial, what.part);
        }
        if !self.hot.is_empty() {
            self.hot.see(hash, serial, what);
        }
        self.slots.push_back(Slot { hash: slot_hash, back });
        serial
    }

    /// What stands where [`Held::changes`] looks first.
    #[inline]
    pub fn glance(&self, hash: u64) -> u32 {
        let bucket = hash as usize & self.tags.len().wrapping_sub(1);
        self.tags.get(bucket).copied().unwrap_or_default().into()
    }

    /// What stands where [`Held::changes`] looks next, where it has to look further.
    #[inline]
    pub fn glance_further(&self, hash: u64) -> u32 {
        let bucket = hash as usize & self.tags.len().wrapping_sub(1);
        match self.tags.get(bucket) {
            Some(tags) if tags & tag((hash >> 16) as u32) != 0 => {
                self.place(self.heads[bucket]).and_then(|place| self.slots.get(place)).map_or(0, |slot| slot.hash)
            }
            _ => 0,
        }
    }

    /// What stands where [`Held::push`] writes.
    #[inline]
    pub fn glance_to_push(&self, hash: u64) -> u32 {
        let bucket = hash as usize & self.heads.len().wrapping_sub(1);
        self.heads.get(bucket).copied().unwrap_or_default() ^ self.glance(hash)
    }

    /// Takes a serial for something that is no change to a key.
    pub fn mark(&mut self) -> u64 {
        let serial = self.next();
        if self.runs.is_empty() {
            self.runs.push_back(Run {
                from: serial as u32,
                at: 0,
                class_and_group: Class::Read as u32,
                made_by: MadeBy::UNKNOWN,
            });
        }
        // In no bucket, so nothing finds it.
        self.slots.push_back(Slot { hash: 0, back: 0 });
        serial
    }

    /// Takes a serial and holds nothing.
    pub fn skip(&mut self) -> u64 {
        debug_assert!(self.is_empty());
        self.first += 1;
        self.first - 1
    }

    /// The changes to a key in flight, newest first, each with its serial.
    #[inline]
    pub fn changes(&self, hash: u64) -> impl Iterator<Item = (u64, What)> + '_ {
        let (bucket, hash) = (if self.heads.is_empty() { 0 } else { self.bucket(hash) }, (hash >> 16) as u32);
        let may_be = self.tags.get(bucket).is_some_and(|tags| tags & tag(hash) != 0);
        let mut next = if may_be { self.place(self.heads[bucket]) } else { None };
        std::iter::from_fn(move || {
            loop {
                let place = next?;
                let slot = self.slots.get(place)?;
                next = match slot.back {
                    0 => None,
                    back => place.checked_sub(back as usize),
                };
                if slot.hash == hash {
                    return Some((self.first + place as u64, self.what(place)));
                }
            }
        })
    }

    /// Of some key it is noted which classes of changes to it are in flight.
    #[inline]
    pub fn notes_classes(&self) -> bool {
        !self.hot.is_empty()
    }

    /// Which classes of changes to a key are in flight, where that is noted.
    #[inline]
    pub fn classes(&self, hash: u64) -> Option<Classes<'_>> {
        self.hot.get(hash, self.first)
    }

    /// A walk through the changes to this key is long: from now on their classes are noted.
    #[cold]
    pub fn note(&mut self, hash: u64) {
        let mut hot = std::mem::take(&mut self.hot);
        hot.note(hash, self.first, self.changes(hash));
        self.hot = hot;
    }

    fn what(&self, place: usize) -> What {
        let part = self.parts.get(self.first + place as u64);
        let run = self.runs.partition_point(|r| r.from.wrapping_sub(self.first as u32) as usize <= place);
        let Run { at, class_and_group, made_by, .. } = self.runs[run - 1];
        What { class: Class::ALL[(class_and_group & 0xff) as usize], part, at, group: class_and_group >> 8, made_by }
    }

    /// Everything up to this serial has happened.
    pub fn clear(&mut self, serial: u64) {
        if serial < self.first {
            return;
        }
        let n = (serial - self.first + 1).min(self.slots.len() as u64);
        self.slots.drop_front(n as usize);
        self.first += n;
        self.parts.clear_before(self.first);
        if self.slots.is_empty() {
            self.hot.clear();
            self.runs.clear();
            self.runs.shrink_to(RUNS_KEPT);
            if self.heads.len() > BUCKETS {
                (self.heads, self.tags) = (Vec::new(), Vec::new());
            }
            return;
        }
        let first = self.first as u32;
        while self.runs.get(1).is_some_and(|r| (r.from.wrapping_sub(first) as i32) <= 0) {
            self.runs.pop_front();
        }
        // It may have begun before.
        self.runs[0].from = first;
    }

    /// Twice as many buckets: each chain becomes two, by the next bit of the hash.
    #[cold]
    fn grow(&mut self) {
        let old = std::mem::take(&mut self.heads);
        let bit = old.len().trailing_zeros() - 16;
        let mut heads = vec![self.nowhere(); 2 * old.len()];
        self.tags = vec![0; heads.len()];
        for (bucket, low) in old.iter().enumerate() {
            if bucket % ABREAST == 0 {
                self.walk_abreast(&old[bucket..(bucket + ABREAST).min(old.len())]);
            }
            let mut next = self.place(*low);
            // The place of the last slot of each, so far.
            let mut last: [Option<usize>; 2] = [None; 2];
            while let Some(place) = next {
                let Some(slot) = self.slots.get_mut(place) else { break };
                next = match std::mem::take(&mut slot.back) {
                    0 => None,
                    back => place.checked_sub(back as usize),
                };
                let half = (slot.hash >> bit & 1) as usize;
                self.tags[bucket + half * old.len()] |= tag(slot.hash);
                match last[half].replace(place) {
                    None => heads[bucket + half * old.len()] = (self.first + place as u64) as u32,
                    Some(newer) => {
                        if let Some(newer_slot) = self.slots.get_mut(newer) {
                            newer_slot.back = (newer - place) as u32;
                        }
                    }
                }
            }
        }
        self.heads = heads;
        self.swept = self.first;
    }

    /// Looks at the chains of some buckets, a step of each in turn. Walked one after the other each step would wait for memory,
    /// since it begins where the one before it says; so memory answers for many at once, and what is walked next is near.
    fn walk_abreast(&self, heads: &[u32]) {
        let mut at = [None; ABREAST];
        for (place, low) in at.iter_mut().zip(heads) {
            *place = self.place(*low);
        }
        let mut on_the_way = true;
        while on_the_way {
            on_the_way = false;
            for place in &mut at {
                let Some(here) = *place else { continue };
                *place = match self.slots.get(here) {
                    Some(slot) if slot.back != 0 => here.checked_sub(slot.back as usize),
                    _ => None,
                };
                on_the_way |= place.is_some();
            }
        }
        // Or it would not be looked at all.
        black_box(at);
    }

    /// Heads that point before the front would come to point at something again when serials have wrapped.
    #[cold]
    fn sweep(&mut self) {
        let (first, len, nowhere) = (self.first as u32, self.slots.len() as u32, self.nowhere());
        for head in self.heads.iter_mut().filter(|h| h.wrapping_sub(first) >= len) {
            *head = nowhere;
        }
        self.swept = self.next();
    }
}

#[inline]
fn tag(slot_hash: u32) -> u16 {
    1 << (slot_hash >> 28)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::command::lookup;

    fn plain() -> What {
        What { class: Class::Write, part: Part::WHOLE, at: 1, group: 0, made_by: MadeBy::UNKNOWN }
    }

    #[test]
    fn a_change_is_small() {
        assert_eq!((size_of::<Slot>(), size_of::<Run>()), (8, 16));
        let mut h = Held::new(1);
        let mut rng = fastrand::Rng::with_seed(2);
        // At every size, right after it has grown too; the first block and heads are there from the first change on.
        h.push(1, plain());
        let first = h.memory();
        for i in 0..1_000_000 {
            h.push(rng.u64(1..), plain());
            let each = (h.memory() - first) as f64 / h.len() as f64;
            assert!(each < 16.0, "{each} bytes a change with {i} in flight");
        }
        h.clear(u64::MAX);
        assert!(h.memory() <= first, "a burst is given back: {} of {first}", h.memory());
        // Fields of hashes.
        for i in 0..300_000 {
            h.push(rng.u64(1..), What { part: Part::one(i), ..plain() });
        }
        let each = h.memory() as f64 / h.len() as f64;
        assert!(each < 20.0, "{each} bytes a change");
        h.clear(u64::MAX);
        assert!(h.memory() <= first, "a burst is given back: {} of {first}", h.memory());
        // Nothing in common, the worst that can be.
        for i in 0..300_000 {
            h.push(rng.u64(1..), What { at: i, part: Part::one(i.into()), ..plain() });
        }
        let each = h.memory() as f64 / h.len() as f64;
        assert!(each < 48.0, "{each} bytes a change");
    }

    #[test]
    fn it_keeps_what_a_change_was() {
        let set = MadeBy::command(lookup(&["SET"]));
        let mut h = Held::new(1);
        let mut n = 0;
        for class in Class::ALL {
            for (group, made_by) in [(0, MadeBy::UNKNOWN), (1, set), (1, MadeBy::SNAPSHOT), (GROUPS, set)] {
                for at in [0, 7, u32::MAX] {
                    n += 1;
                    h.push(n << 20, What { class, part: Part::one(n), at, group, made_by });
                }
            }
        }
        for cleared in 0..n {
            h.clear(cleared);
            let mut m = 0;
            for class in Class::ALL {
                for (group, made_by) in [(0, MadeBy::UNKNOWN), (1, set), (1, MadeBy::SNAPSHOT), (GROUPS, set)] {
                    for at in [0, 7, u32::MAX] {
                        m += 1;
                        let seen: Vec<_> = h.changes(m << 20).collect();
                        let expected = (m, What { class, part: Part::one(m), at, group, made_by });
                        assert_eq!(seen, if m > cleared { vec![expected] } else { vec![] });
                    }
                }
            }
        }
    }

    /// What is in flight is found, newest first, and nothing else: while it grows over many sizes, while the front is
    /// taken off, and over the wrap of what heads hold.
    #[test]
    fn every_change_is_found_at_every_size() {
        for first in [1, (1 << 32) - 300_000] {
            let mut h = Held::new(first);
            let mut rng = fastrand::Rng::with_seed(first);
            let mut model: VecDeque<(u64, u64)> = VecDeque::new();
            for round in 0..9 {
                for i in 0..50_000u32 {
                    // Some keys have many changes; some differ in a single bit that a bucket may or may not see.
                    let hash = match i % 4 {
                        0 => rng.u64(1..50) << 30,
                        1 => 1 << rng.u32(..48),
                        _ => rng.u64(1..) & ((1 << 48) - 1),
                    };
                    let serial = if i % 97 == 0 { h.mark() } else { h.push(hash, plain()) };
                    if i % 97 != 0 {
                        model.push_back((serial, hash));
                    }
                }
                if round % 3 == 2 {
                    let upto = h.first() + rng.u64(..h.len() as u64);
                    h.clear(upto);
                    model.retain(|(s, _)| *s > upto);
                    assert_eq!(h.first(), upto + 1);
                }
                let mut by_hash: std::collections::HashMap<u64, Vec<u64>> = Default::default();
                model.iter().rev().for_each(|(s, hash)| by_hash.entry(*hash).or_default().push(*s));
                for (hash, expected) in by_hash.iter().filter(|(_, s)| s.len() > 1 || s[0] % 16 == 0) {
                    let seen: Vec<u64> = h.changes(*hash).map(|(s, _)| s).collect();
                    assert_eq!(&seen, expected, "{hash:x} in round {round}");
                }
                for _ in 0..1_000 {
                    let hash = rng.u64(1..) & ((1 << 48) - 1);
                    assert!(by_hash.contains_key(&hash) || h.changes(hash).next().is_none(), "{hash:x}");
                }
            }
            h.clear(u64::MAX);
            assert!(h.is_empty() && h.changes(1 << 30).next().is_none());
        }
    }

    /// A head that nobody has touched since its serial was in flight 2^32 changes ago points nowhere.
    #[test]
    fn an_old_head_comes_to_point_at_nothing_again() {
        let mut h = Held::new(1);
        h.push(5, plain());
        h.clear(1);
        assert_eq!(h.changes(5).next(), None);
        // Serials move on without that bucket: skipped here, with a sweep in between as there would be one.
        h.first = (1 << 31) + 10;
        h.push(6, plain());
        h.clear(u64::MAX);
        h.first = (1 << 32) - 2;
        for bucket in 100..110 {
            h.push(bucket, plain());
        }
        assert_eq!(h.place(1), Some(3), "the serial's low half is in flight again");
        assert_eq!(h.changes(5).next(), None);
        assert_ne!(h.heads[5], 1);
    }
}
