//! What a change does to a key, as far as another change to the same key cares: which pairs commute.
//!
//! Two concurrent changes that commute are no conflict: each site applies both, in either order, and ends the same.
//! When in doubt they do not commute: an episode costs one key's transfer and is always safe.

/// What one change does to one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// Only looks at the key (a source of SUNIONSTORE). Commutes with looks alone.
    Read,
    /// Removes the key, whatever it holds: DEL, UNLINK, an expiry, an eviction.
    Delete,
    /// Adds an integer to a string: addition commutes, and no order of additions overflows differently in the end.
    Counter,
    /// SADD: the union does not ask for an order.
    SetAdd,
    /// SREM. Not with SADD, even of another member: a set that was emptied in between loses its expiry.
    SetRemove,
    /// HSET, HSETNX as HSET of one or more fields: commutes with changes of other fields.
    HashSet,
    /// HINCRBY: commutes with itself on any field, and with HSET of other fields.
    HashCounter,
    /// HDEL, only with itself (as SREM).
    HashRemove,
    /// ZADD, ZINCRBY of one or more members: commutes with changes of other members. Not with itself on one member:
    /// the last score wins, and floating-point sums depend on their order.
    SortedAdd,
    /// ZREM, only with itself.
    SortedRemove,
    /// SETBIT: commutes with other bits.
    Bit,
    /// PFADD: registers take the maximum.
    HyperLogLog,
    /// Anything else, whole-value writes included.
    Write,
    /// The whole state of the key, put there by a round of an episode.
    Transfer,
    /// Removes every key of its database (FLUSHDB, FLUSHALL): a deletion of each.
    Flush,
}

impl Class {
    /// In the order of their numbers.
    pub(super) const ALL: [Class; 15] = [
        Class::Read,
        Class::Delete,
        Class::Counter,
        Class::SetAdd,
        Class::SetRemove,
        Class::HashSet,
        Class::HashCounter,
        Class::HashRemove,
        Class::SortedAdd,
        Class::SortedRemove,
        Class::Bit,
        Class::HyperLogLog,
        Class::Write,
        Class::Transfer,
        Class::Flush,
    ];
}

/// Which part of the key a change touches: one member exactly, several as a bloom mask, or nothing known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Part(u32);

/// The highest bit tells a mask of several members from the hash of one.
const MASK: u32 = 1 << 31;

impl Part {
    /// Parts unknown: overlaps with every other.
    pub const WHOLE: Part = Part(u32::MAX);

    /// One member, field or bit, by its hash.
    pub fn one(hash: u64) -> Self {
        Part(hash as u32 & !MASK)
    }

    /// With one more member.
    pub fn and(self, hash: u64) -> Self {
        Part(self.mask() | Part::one(hash).mask() | MASK)
    }

    fn mask(self) -> u32 {
        if self.0 & MASK != 0 { self.0 & !MASK } else { 1 << (self.0 % 31) }
    }

    /// False only when the two certainly touch different members.
    pub fn overlaps(self, other: Part) -> bool {
        if (self.0 | other.0) & MASK == 0 { self.0 == other.0 } else { self.mask() & other.mask() != 0 }
    }
}

/// Whether two concurrent changes to one key end the same in either order.
pub fn commute(a: (Class, Part), b: (Class, Part)) -> bool {
    use Class::*;
    match (a.0, b.0) {
        (Read, Read)
        | (Delete, Delete)
        | (Counter, Counter)
        | (SetAdd, SetAdd)
        | (SetRemove, SetRemove)
        | (HashCounter, HashCounter)
        | (HashRemove, HashRemove)
        | (SortedRemove, SortedRemove)
        | (HyperLogLog, HyperLogLog)
        | (Flush, Flush)
        | (Flush, Delete)
        | (Delete, Flush) => true,
        (HashSet, HashSet) | (HashSet, HashCounter) | (HashCounter, HashSet) | (SortedAdd, SortedAdd) | (Bit, Bit) => {
            !a.1.overlaps(b.1)
        }
        _ => false,
    }
}

impl Class {
    /// The word for the operator where the command itself is no longer known.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Read => "read",
            Class::Delete => "DEL",
            Class::Counter => "INCR",
            Class::SetAdd => "SADD",
            Class::SetRemove => "SREM",
            Class::HashSet => "HSET",
            Class::HashCounter => "HINCRBY",
            Class::HashRemove => "HDEL",
            Class::SortedAdd => "ZADD",
            Class::SortedRemove => "ZREM",
            Class::Bit => "SETBIT",
            Class::HyperLogLog => "PFADD",
            Class::Write => "write",
            Class::Transfer => "RESTORE",
            Class::Flush => "FLUSH",
        }
    }

    /// A deletion, of this key or of all.
    pub fn is_delete(self) -> bool {
        matches!(self, Class::Delete | Class::Flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classes_stand_in_the_order_of_their_numbers() {
        for (n, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, n);
        }
    }

    #[test]
    fn commuting_does_not_depend_on_the_side() {
        for a in Class::ALL {
            for b in Class::ALL {
                for (p, q) in [(Part::one(1), Part::one(2)), (Part::one(1), Part::one(1)), (Part::WHOLE, Part::one(9))]
                {
                    assert_eq!(commute((a, p), (b, q)), commute((b, q), (a, p)), "{a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn a_write_commutes_with_nothing() {
        for a in Class::ALL {
            assert!(!commute((Class::Write, Part::WHOLE), (a, Part::one(1))), "{a:?}");
            assert!(!commute((Class::Transfer, Part::WHOLE), (a, Part::one(1))), "{a:?}");
        }
    }

    #[test]
    fn different_fields_commute_and_equal_ones_do_not() {
        let (x, y) = (Part::one(1), Part::one(2));
        assert!(commute((Class::HashSet, x), (Class::HashSet, y)));
        assert!(!commute((Class::HashSet, x), (Class::HashSet, x)));
        let both = x.and(2);
        assert!(!commute((Class::HashSet, both), (Class::HashSet, y)));
        assert!(commute((Class::HashSet, both), (Class::HashSet, Part::one(3))));
        assert!(!commute((Class::HashSet, Part::WHOLE), (Class::HashSet, y)));
    }

    #[test]
    fn a_mask_always_overlaps_each_of_its_members() {
        for i in 0..1000u64 {
            let h = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mask = Part::one(h ^ 77).and(h).and(h >> 7);
            assert!(mask.overlaps(Part::one(h)) && Part::one(h).overlaps(mask));
        }
    }
}
