//! What an unfinished copy may have left at the other site: keys that have since gone at the site that is copied.
//!
//! A copy that is begun anew does not tell of keys which were deleted between its snapshot and the one before: no stream
//! that is read brings their deletion. So what the other site holds when the new copy begins is remembered, and whatever
//! the new snapshot does not name is deleted there as if the snapshot had said so. Eight bytes and a bit a key.

/// Hashes of keys, and which of them a snapshot has named.
#[derive(Debug, Default)]
pub struct Leftovers {
    sorted: Vec<u64>,
    named: Vec<u64>,
    /// The other site has not been looked through yet: any key may be one.
    unknown: bool,
}

impl Leftovers {
    pub fn new(mut hashes: Vec<u64>) -> Self {
        hashes.sort_unstable();
        hashes.dedup();
        Leftovers { named: vec![0; hashes.len().div_ceil(64)], sorted: hashes, unknown: false }
    }

    /// Before the other site has been looked through.
    pub fn unknown() -> Self {
        Leftovers { unknown: true, ..Leftovers::default() }
    }

    /// The snapshot holds this key.
    #[inline]
    pub fn name(&mut self, hash: u64) {
        if !self.sorted.is_empty()
            && let Ok(i) = self.sorted.binary_search(&hash)
        {
            self.named[i / 64] |= 1 << (i % 64);
        }
    }

    /// Whether this key was there and has not been named.
    pub fn holds(&self, hash: u64) -> bool {
        self.unknown || self.sorted.binary_search(&hash).is_ok_and(|i| self.named[i / 64] & (1 << (i % 64)) == 0)
    }

    /// How many have not been named.
    pub fn len(&self) -> usize {
        self.sorted.len() - self.named.iter().map(|w| w.count_ones() as usize).sum::<usize>()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_left() {
        let mut all = Leftovers::new((0..200).map(|i| i * 7).collect());
        assert_eq!(all.len(), 200);
        (0..199).for_each(|i| all.name(i * 7));
        all.name(3);
        assert!(all.holds(199 * 7) && !all.holds(198 * 7) && !all.holds(3));
        assert_eq!(all.len(), 1);
        all.name(199 * 7);
        assert!(all.is_empty() && Leftovers::default().is_empty());
        assert!(Leftovers::unknown().holds(3) && !Leftovers::default().holds(3));
    }
}
