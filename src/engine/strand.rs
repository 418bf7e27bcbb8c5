//! Strands: how a job whose sides are clusters is taken apart, and what each part calls its keys.
//!
//! A strand is one pair of a source's shard and a target's shard that have slots in common, restricted to those slots; a
//! standalone side is one shard with all of them. Every key belongs to exactly one strand, so each strand is what a
//! whole job is without clusters: an arbiter, two outboxes, two links. A job without a cluster is one strand without
//! slots ([`Names::whole`]).
//!
//! Names of our keys, behind `duplex:<job>:<direction>`:
//!
//! | | control key | notes |
//! |---|---|---|
//! | no cluster in the job | nothing | `:open` |
//! | a cluster | `{tag}`, one for each slot | `:open{tag}`, in the strand's first slot |
//! | a standalone side whose other side is a cluster | `@strand` | `@strand:open` |
//!
//! Within a strand all transactions to a shard go over one connection, and a shard's stream is one order: so of a
//! strand's control keys the one with the highest (epoch, number) tells its position, whichever slot it is in.

use crate::wire::slot::{SLOTS, hash_tag, slot, tag_for_slot};
use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

const WORDS: usize = SLOTS as usize / 64;

/// A set of cluster slots.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet(Box<[u64; WORDS]>);

impl SlotSet {
    pub fn none() -> Self {
        SlotSet(Box::new([0; WORDS]))
    }

    pub fn all() -> Self {
        SlotSet(Box::new([u64::MAX; WORDS]))
    }

    /// First and last of each range, both within.
    pub fn of(ranges: &[(u16, u16)]) -> Self {
        let mut set = SlotSet::none();
        for (first, last) in ranges {
            (*first..=(*last).min(SLOTS - 1)).for_each(|s| set.insert(s));
        }
        set
    }

    pub fn insert(&mut self, slot: u16) {
        self.0[slot as usize / 64 % WORDS] |= 1 << (slot % 64);
    }

    #[inline]
    pub fn contains(&self, slot: u16) -> bool {
        self.0[slot as usize / 64 % WORDS] >> (slot % 64) & 1 == 1
    }

    pub fn add(&mut self, other: &SlotSet) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(a, b)| *a |= b);
    }

    pub fn remove(&mut self, other: &SlotSet) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(a, b)| *a &= !b);
    }

    pub fn and(&self, other: &SlotSet) -> SlotSet {
        let mut both = self.clone();
        both.0.iter_mut().zip(other.0.iter()).for_each(|(a, b)| *a &= b);
        both
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|w| *w == 0)
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..SLOTS).filter(|s| self.contains(*s))
    }

    /// First and last of each range, in order.
    pub fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for s in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == s => *last = s,
                _ => ranges.push((s, s)),
            }
        }
        ranges
    }
}

impl Default for SlotSet {
    fn default() -> Self {
        SlotSet::none()
    }
}

impl FromStr for SlotSet {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        let number = |text: &str| text.parse::<u16>().ok().filter(|n| *n < SLOTS).ok_or(());
        let mut ranges = Vec::new();
        for part in s.split(',').filter(|p| !p.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            ranges.push((number(first)?, number(last)?));
        }
        Ok(SlotSet::of(&ranges))
    }
}

/// `0-5460,5462`.
impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (first, last)) in self.ranges().into_iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            if first == last { write!(f, "{comma}{first}") } else { write!(f, "{comma}{first}-{last}") }?;
        }
        Ok(())
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotSet({self})")
    }
}

/// Names a strand by its slots: its first one, which is also where its notes live in a cluster, and a hash of all.
/// Written `00042.1f2e3d4c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StrandId {
    pub home: u16,
    pub hash: u32,
}

impl StrandId {
    pub fn of(slots: &SlotSet) -> StrandId {
        let bytes: Vec<u8> = slots.0.iter().flat_map(|w| w.to_le_bytes()).collect();
        let hash = crate::wire::crc64::crc64(&bytes);
        StrandId { home: slots.iter().next().unwrap_or(0), hash: (hash ^ (hash >> 32)) as u32 }
    }

    /// Appends what `Display` shows: it stands in every transaction.
    pub fn write(&self, out: &mut BytesMut) {
        let mut text = *b"00000.00000000";
        let mut home = self.home;
        for place in text[..5].iter_mut().rev() {
            *place += (home % 10) as u8;
            home /= 10;
        }
        for (n, place) in text[6..].iter_mut().enumerate() {
            *place = b"0123456789abcdef"[(self.hash >> (28 - 4 * n) & 15) as usize];
        }
        out.put_slice(&text);
    }
}

impl fmt::Display for StrandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:05}.{:08x}", self.home, self.hash)
    }
}

impl FromStr for StrandId {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        let (home, hash) = s.split_once('.').ok_or(())?;
        let home = home.parse().ok().filter(|h| *h < SLOTS).ok_or(())?;
        Ok(StrandId { home, hash: u32::from_str_radix(hash, 16).map_err(|_| ())? })
    }
}

/// The slots of a strand, and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strand {
    pub slots: SlotSet,
    pub id: StrandId,
    /// By side: of the strands of its shard there this is the first. What is in no slot goes one way only once: a
    /// published message from each shard that tells it, a function to each shard that runs it.
    pub leads: [bool; 2],
}

impl Strand {
    pub fn new(slots: SlotSet) -> Strand {
        Strand { id: StrandId::of(&slots), slots, leads: [true; 2] }
    }

    #[inline]
    pub fn has(&self, key: &[u8]) -> bool {
        self.slots.contains(slot(key))
    }
}

/// Whose control key a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// This strand's.
    Ours,
    /// Another strand's of this job.
    Sibling,
    Nobodys,
}

/// A key's name that is needed for one transaction, and not kept.
pub type Name = SmallVec<[u8; 96]>;

/// What a strand's keys are called at one site.
#[derive(Debug, Clone)]
pub struct Names {
    /// `duplex:<job>:<direction>`.
    base: Bytes,
    strand: Option<Arc<Strand>>,
    /// The site is a cluster: a transaction has one slot.
    cluster: bool,
}

impl Names {
    /// Of a job without a cluster.
    pub fn whole(base: String) -> Names {
        Names { base: base.into(), strand: None, cluster: false }
    }

    pub fn of(base: String, strand: Arc<Strand>, cluster: bool) -> Names {
        Names { base: base.into(), strand: Some(strand), cluster }
    }

    /// How all of the job's keys at the site begin, in this direction.
    pub fn base(&self) -> &Bytes {
        &self.base
    }

    pub fn strand(&self) -> Option<&Arc<Strand>> {
        self.strand.as_ref()
    }

    pub fn id(&self) -> Option<StrandId> {
        self.strand.as_ref().map(|s| s.id)
    }

    pub fn is_cluster(&self) -> bool {
        self.cluster
    }

    /// The slot of a key, where that matters at this site.
    #[inline]
    pub fn slot(&self, key: &[u8]) -> Option<u16> {
        self.cluster.then(|| slot(key))
    }

    /// The slot of our notes, where that matters at this site.
    pub fn home(&self) -> Option<u16> {
        self.strand.as_ref().filter(|_| self.cluster).map(|s| s.id.home)
    }

    /// The control key for a transaction in this slot; without one, in the strand's first.
    pub fn control(&self, slot: Option<u16>) -> Bytes {
        Bytes::copy_from_slice(&self.control_name(slot))
    }

    /// The same, to be used at once.
    pub fn control_name(&self, slot: Option<u16>) -> Name {
        match &self.strand {
            None => Name::from_slice(&self.base),
            Some(strand) if self.cluster => tagged(&self.base, b"", slot.unwrap_or(strand.id.home)),
            Some(strand) => Name::from_vec([&self.base[..], b"@", strand.id.to_string().as_bytes()].concat()),
        }
    }

    /// The hash of open episodes.
    pub fn notes(&self) -> Bytes {
        match &self.strand {
            Some(strand) if self.cluster => with_tag(&self.base, b":open", strand.id.home),
            _ => Bytes::from([&self.control(None)[..], b":open"].concat()),
        }
    }

    /// The hash that names all strands which have keys at a standalone side: those bear the strands' names, and of strands of
    /// before nothing else tells them once the cluster's slots are others'.
    pub fn roll(&self) -> Bytes {
        Bytes::from([&self.base[..], b":strands"].concat())
    }

    /// Where the parts of a key's value are gathered.
    pub fn part(&self, key: &[u8]) -> Bytes {
        match self.slot(key) {
            Some(slot) => with_tag(&self.base, b":part", slot),
            None => Bytes::from([&self.control(None)[..], b":part"].concat()),
        }
    }

    /// A key that never is, in this slot of a cluster.
    ///
    /// A slot that moves away answers ASK to whoever names a key that is not, or no longer, there. A transaction that
    /// names this one is refused from the moment on in which its slot begins to move, whichever keys have gone by then:
    /// so of our transactions in a slot, those before that moment were applied and those behind it were not.
    pub fn never(&self, slot: Option<u16>) -> Option<Name> {
        let strand = self.strand.as_ref().filter(|_| self.cluster)?;
        Some(tagged(&self.base, b":none", slot.unwrap_or(strand.id.home)))
    }

    /// All that a job may have left in a slot of a cluster: control key, notes, parts.
    pub fn slot_keys(&self, slot: u16) -> [Bytes; 3] {
        [&b""[..], b":open", b":part"].map(|middle| with_tag(&self.base, middle, slot))
    }

    /// The names of another strand of this job at this site.
    pub fn of_sibling(&self, id: StrandId) -> Names {
        let strand = Strand { slots: SlotSet::none(), id, leads: [false; 2] };
        Names { base: self.base.clone(), strand: Some(Arc::new(strand)), cluster: self.cluster }
    }

    /// Whose control key this is.
    pub fn whose(&self, key: &[u8]) -> Whose {
        let Some(rest) = key.strip_prefix(&self.base[..]) else { return Whose::Nobodys };
        let ours = match (&self.strand, rest.first()) {
            (strand, None) => return if strand.is_none() { Whose::Ours } else { Whose::Nobodys },
            (Some(strand), Some(b'{')) => strand.slots.contains(slot(hash_tag(rest))),
            (Some(strand), Some(b'@')) if !rest.ends_with(b":open") && !rest.ends_with(b":part") => {
                rest[1..] == *strand.id.to_string().as_bytes()
            }
            _ => return Whose::Nobodys,
        };
        if ours { Whose::Ours } else { Whose::Sibling }
    }
}

fn with_tag(base: &[u8], middle: &[u8], slot: u16) -> Bytes {
    Bytes::copy_from_slice(&tagged(base, middle, slot))
}

fn tagged(base: &[u8], middle: &[u8], slot: u16) -> Name {
    let mut key = Name::new();
    for part in [base, middle, b"{", tag_for_slot(slot).as_bytes(), b"}"] {
        key.extend_from_slice(part);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_slots() {
        let a = SlotSet::of(&[(0, 5460), (16_383, 16_383)]);
        let b = SlotSet::of(&[(5000, 16_383)]);
        assert_eq!(a.and(&b).ranges(), [(5000, 5460), (16_383, 16_383)]);
        assert_eq!(a.to_string(), "0-5460,16383");
        assert_eq!(a.to_string().parse(), Ok(a));
        assert_eq!("".parse(), Ok(SlotSet::none()));
        assert!("1-x".parse::<SlotSet>().is_err() && "16384".parse::<SlotSet>().is_err());
        assert_eq!((SlotSet::all().len(), SlotSet::none().is_empty()), (SLOTS as usize, true));
        assert_eq!(SlotSet::all().ranges(), [(0, 16_383)]);
    }

    #[test]
    fn a_strand_is_named_by_all_of_its_slots() {
        let a = StrandId::of(&SlotSet::of(&[(7, 100)]));
        assert_ne!(a, StrandId::of(&SlotSet::of(&[(7, 101)])));
        assert_eq!(a.home, 7);
        assert_eq!(a.to_string().parse(), Ok(a));
        for id in [a, StrandId { home: 16_383, hash: 0xf }, StrandId { home: 0, hash: u32::MAX }] {
            let mut out = BytesMut::new();
            id.write(&mut out);
            assert_eq!(out, id.to_string());
        }
        assert!("1.2.3".parse::<StrandId>().is_err() && "99999.0".parse::<StrandId>().is_err());
    }

    #[test]
    fn names_lie_in_their_slots_and_tell_whose_they_are() {
        let strand = Arc::new(Strand::new(SlotSet::of(&[(100, 200)])));
        let there = Names::of("duplex:j:forward".into(), strand.clone(), true);
        for s in [100, 150, 200] {
            assert_eq!(slot(&there.control(Some(s))), s);
            assert_eq!(there.whose(&there.control(Some(s))), Whose::Ours);
        }
        assert_eq!((slot(&there.control(None)), slot(&there.notes())), (100, 100));
        assert_eq!(there.whose(&there.control(Some(201))), Whose::Sibling);
        assert_eq!(there.whose(&there.notes()), Whose::Nobodys);
        assert_eq!(slot(&there.part(b"foo")), slot(b"foo"));

        let here = Names::of("duplex:j:reverse".into(), strand, false);
        assert_eq!(here.whose(&here.control(None)), Whose::Ours);
        let other = here.of_sibling(StrandId { home: 1, hash: 2 });
        assert_eq!(here.whose(&other.control(None)), Whose::Sibling);
        assert_eq!((here.whose(&here.notes()), here.whose(&here.roll())), (Whose::Nobodys, Whose::Nobodys));
        assert_eq!(here.whose(b"duplex:j:reverse"), Whose::Nobodys);

        let whole = Names::whole("duplex:j:forward".into());
        assert_eq!(whole.control(Some(3)), "duplex:j:forward");
        assert_eq!(whole.notes(), "duplex:j:forward:open");
        assert_eq!(whole.whose(b"duplex:j:forward"), Whose::Ours);
        assert_eq!(whole.whose(b"duplex:j:forward:open"), Whose::Nobodys);
    }
}
