//! The in-flight table of one site: which changes were sent to it and have not been read back as echoes.
//!
//! It owns what the changes have beside their keys: groups (changes to several keys), whole-database deletions, and what
//! came from an earlier engine. The changes themselves are in [`Held`]. Nothing is allocated per change once the window
//! has been reached, and what a burst took is given back.

pub use super::held::What;
use super::held::{GROUPS, Held};
use super::hot::Classes;
use std::collections::{HashMap, VecDeque};

/// A key of a change to several keys.
#[derive(Debug, Clone)]
pub struct GroupKey {
    pub db: u32,
    pub key: Box<[u8]>,
    pub written: bool,
}

#[derive(Debug)]
pub struct Table {
    held: Held,
    groups: HashMap<u32, Vec<GroupKey>>,
    /// Groups by the serial of their last entry, in order.
    sealed: VecDeque<(u64, u32)>,
    group_serial: u32,
    /// Of changes that an earlier engine sent: (offset, serial). They are cleared by offset.
    recovered: VecDeque<(u64, u64)>,
    /// Whole-database deletions in flight: serial and database (`None` for all).
    flushes: VecDeque<(u64, Option<u32>)>,
}

impl Default for Table {
    fn default() -> Self {
        Table::new()
    }
}

impl Table {
    pub fn new() -> Self {
        Table::beginning_at(1)
    }

    fn beginning_at(first: u64) -> Self {
        Table {
            held: Held::new(first),
            groups: HashMap::new(),
            sealed: VecDeque::new(),
            group_serial: 0,
            recovered: VecDeque::new(),
            flushes: VecDeque::new(),
        }
    }

    /// How many keys of changes are in flight.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Bytes the table holds.
    pub fn memory(&self) -> usize {
        self.held.memory()
    }

    /// The serial of the newest entry; 0 before the first.
    pub fn last_serial(&self) -> u64 {
        self.held.next() - 1
    }

    /// The serial of the oldest entry, or of the next if there is none.
    pub fn oldest_serial(&self) -> u64 {
        self.held.first()
    }

    /// Enters one key of a change; returns its serial.
    #[inline]
    pub fn push(&mut self, hash: u64, what: What) -> u64 {
        self.held.push(hash, what)
    }

    /// What stands where changes to this key are looked for.
    #[inline]
    pub fn glance(&self, hash: u64) -> u32 {
        self.held.glance(hash)
    }

    /// What stands behind it, where changes to this key may be found.
    #[inline]
    pub fn glance_further(&self, hash: u64) -> u32 {
        self.held.glance_further(hash)
    }

    /// What stands where a change to this key is entered.
    #[inline]
    pub fn glance_to_push(&self, hash: u64) -> u32 {
        self.held.glance_to_push(hash)
    }

    /// Takes a serial for something that is no change to a key (a token, a bare checkpoint).
    pub fn mark(&mut self) -> u64 {
        self.held.mark()
    }

    /// Takes a serial and holds nothing: for a job with one link, which reads no echoes.
    pub fn skip(&mut self) -> u64 {
        self.held.skip()
    }

    /// Opens a group for a change to several keys; its number goes into the entries that follow.
    pub fn group(&mut self, keys: Vec<GroupKey>) -> u32 {
        self.group_serial = self.group_serial % GROUPS + 1;
        self.groups.insert(self.group_serial, keys);
        self.group_serial
    }

    /// All entries of a group have been pushed: it goes when the newest of them does.
    pub fn seal(&mut self, group: u32) {
        if group != 0 {
            self.sealed.push_back((self.last_serial(), group));
        }
    }

    /// The keys of a group.
    pub fn group_keys(&self, group: u32) -> &[GroupKey] {
        self.groups.get(&group).map_or(&[], Vec::as_slice)
    }

    /// The keys that are written by changes to several keys of which one is in this database, or all. In the order of
    /// their names.
    pub fn grouped_with(&self, db: Option<u32>) -> Vec<(u32, Box<[u8]>)> {
        let groups = self.groups.values().filter(|keys| keys.iter().any(|k| db.is_none_or(|db| k.db == db)));
        let written = groups.flatten().filter(|k| k.written);
        let mut all: Vec<_> = written.map(|k| (k.db, k.key.clone())).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Enters a deletion of a whole database (`None`: of all).
    pub fn push_flush(&mut self, db: Option<u32>) -> u64 {
        let serial = self.mark();
        self.flushes.push_back((serial, db));
        serial
    }

    /// The databases (`None`: all) of the deletions in flight.
    pub fn flushed(&self) -> Vec<Option<u32>> {
        self.flushes.iter().map(|(_, db)| *db).collect()
    }

    /// Whether a whole-database deletion that covers `db` is in flight.
    pub fn flush_covers(&self, db: u32) -> bool {
        self.flushes.iter().any(|&(_, f)| f.is_none_or(|f| f == db))
    }

    /// Remembers that the newest entry came from an earlier engine, at this position of its source's stream.
    pub fn recovered(&mut self, offset: u64) {
        let serial = self.last_serial();
        self.recovered.push_back((offset, serial));
    }

    /// The serial up to which an earlier engine's entries reach at this position; 0 if none of them is left.
    pub fn recovered_serial(&self, offset: u64) -> u64 {
        let upto = self.recovered.partition_point(|(o, _)| *o <= offset);
        upto.checked_sub(1).and_then(|i| self.recovered.get(i)).map_or(0, |(_, s)| *s)
    }

    /// The changes to a key in flight, newest first, each with its serial.
    #[inline]
    pub fn changes(&self, hash: u64) -> impl Iterator<Item = (u64, What)> + '_ {
        self.held.changes(hash)
    }

    /// Of some key they are noted.
    #[inline]
    pub fn notes_classes(&self) -> bool {
        self.held.notes_classes()
    }

    /// Which classes of changes to a key are in flight, where that is noted.
    #[inline]
    pub fn classes(&self, hash: u64) -> Option<Classes<'_>> {
        self.held.classes(hash)
    }

    /// A walk through the changes to this key is long: from now on their classes are noted.
    pub fn note(&mut self, hash: u64) {
        self.held.note(hash);
    }

    /// An echo was read: everything sent up to `serial` has happened there.
    pub fn clear(&mut self, serial: u64) {
        self.held.clear(serial);
        while let Some(&(_, group)) = self.sealed.front().filter(|(s, _)| *s <= serial) {
            self.sealed.pop_front();
            self.groups.remove(&group);
        }
        while self.flushes.front().is_some_and(|(s, _)| *s <= serial) {
            self.flushes.pop_front();
        }
        while self.recovered.front().is_some_and(|(_, s)| *s <= serial) {
            self.recovered.pop_front();
        }
    }

    /// An echo that an earlier engine caused was read: what it applied up to `offset` has happened there.
    pub fn clear_recovered(&mut self, offset: u64) {
        let mut upto = 0;
        while let Some(&(o, serial)) = self.recovered.front()
            && o <= offset
        {
            upto = serial;
            self.recovered.pop_front();
        }
        self.clear(upto);
    }
}

#[cfg(test)]
impl Table {
    /// Nothing is held for anything that is over.
    pub(super) fn is_clean(&self) -> bool {
        self.held.is_empty()
            && self.groups.is_empty()
            && self.sealed.is_empty()
            && self.recovered.is_empty()
            && self.flushes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::class::{Class, Part};
    use super::super::made_by::MadeBy;
    use super::*;

    fn write(group: u32) -> What {
        What { class: Class::Write, part: Part::WHOLE, at: 0, group, made_by: MadeBy::UNKNOWN }
    }

    #[test]
    fn finds_what_is_in_flight_and_only_that() {
        let mut model: VecDeque<(u64, u64)> = VecDeque::new();
        let mut t = Table::new();
        let mut rng = fastrand::Rng::with_seed(7);
        let mut cleared = 0;
        for _ in 0..50_000 {
            if rng.u32(..10) < 7 {
                let hash = u64::from(rng.u32(..20)) + 1;
                let serial = if rng.u32(..9) == 0 {
                    t.mark()
                } else {
                    let s = t.push(hash, write(0));
                    model.push_back((s, hash));
                    s
                };
                assert_eq!(serial, t.last_serial());
            } else if t.last_serial() > cleared {
                cleared += rng.u64(1..=(t.last_serial() - cleared));
                t.clear(cleared);
                model.retain(|(s, _)| *s > cleared);
            }
            for hash in 1..=20u64 {
                let expected: Vec<u64> = model.iter().rev().filter(|(_, h)| *h == hash).map(|(s, _)| *s).collect();
                let seen: Vec<u64> = t.changes(hash).map(|(s, _)| s).collect();
                assert_eq!(seen, expected);
            }
        }
    }

    /// The index keeps the low half of a serial: it wraps after 2^32 changes.
    #[test]
    fn the_low_half_of_a_serial_may_wrap() {
        let mut t = Table::beginning_at((1 << 32) - 50);
        let mut model: VecDeque<(u64, u64)> = VecDeque::new();
        for i in 0..200u64 {
            let hash = i % 7 + 1;
            model.push_back((t.push(hash, write(0)), hash));
            if i > 60 {
                let (s, _) = model.pop_front().unwrap();
                t.clear(s);
            }
            for hash in 1..=7u64 {
                let expected: Vec<u64> = model.iter().rev().filter(|(_, h)| *h == hash).map(|(s, _)| *s).collect();
                assert_eq!(t.changes(hash).map(|(s, _)| s).collect::<Vec<_>>(), expected);
            }
        }
        t.clear(u64::MAX);
        assert!(t.is_clean());
    }

    #[test]
    fn a_group_goes_with_its_last_entry_and_its_number_may_come_again() {
        let mut t = Table { group_serial: GROUPS - 1, ..Table::new() };
        let key = |k: &[u8]| GroupKey { db: 0, key: k.into(), written: true };
        let mut groups = Vec::new();
        for _ in 0..3 {
            let g = t.group(vec![key(b"a"), key(b"b")]);
            t.push(1, write(g));
            t.push(2, write(g));
            t.seal(g);
            groups.push(g);
        }
        assert_eq!(groups, [GROUPS, 1, 2], "0 names no group");
        t.clear(1);
        assert_eq!(t.group_keys(GROUPS).len(), 2, "half of it is still in flight");
        t.clear(2);
        assert_eq!(t.group_keys(GROUPS).len(), 0);
        assert_eq!(t.group_keys(1).len(), 2);
        t.clear(6);
        assert!(t.is_clean());
    }

    #[test]
    fn what_an_earlier_engine_sent_is_cleared_by_offset() {
        let mut t = Table::new();
        for (offset, hash) in [(100, 1), (150, 2), (150, 3), (200, 4)] {
            t.push(hash, write(0));
            t.recovered(offset);
        }
        t.push(5, write(0));
        t.clear_recovered(150);
        let left: Vec<u64> = (1..=5).filter(|h| t.changes(*h).next().is_some()).collect();
        assert_eq!(left, [4, 5]);
        t.clear_recovered(1000);
        let left: Vec<u64> = (1..=5).filter(|h| t.changes(*h).next().is_some()).collect();
        assert_eq!(left, [5]);
    }
}
