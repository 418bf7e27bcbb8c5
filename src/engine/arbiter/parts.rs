//! Which part of its key a change in flight is about, by its serial: a hash's field, a set's member.
//!
//! Most changes are about the whole of their key. Of those nothing is kept, unless one near them is not. Invariants: a
//! serial that nothing was set for is about the whole; nothing is held of serials before those that were cleared, but what
//! shares a block with later ones.

use super::class::Part;
use std::collections::VecDeque;

/// Serials in a block.
const BLOCK: u64 = 4 << 10;

#[derive(Debug, Default)]
pub struct Parts {
    /// One behind the other; one in which all changes are about the whole of their key has no elements.
    blocks: VecDeque<Vec<Part>>,
    /// The number of the first block.
    first: u64,
}

impl Parts {
    /// Bytes it holds.
    pub fn memory(&self) -> usize {
        self.blocks.iter().map(|b| b.capacity() * size_of::<Part>()).sum::<usize>()
            + self.blocks.capacity() * size_of::<Vec<Part>>()
    }

    #[inline]
    pub fn get(&self, serial: u64) -> Part {
        let Some(block) = (serial / BLOCK).checked_sub(self.first) else { return Part::WHOLE };
        let block = self.blocks.get(block as usize);
        block.and_then(|b| b.get((serial % BLOCK) as usize)).copied().unwrap_or(Part::WHOLE)
    }

    /// Serials come in order, and none that was cleared comes again.
    pub fn set(&mut self, serial: u64, part: Part) {
        let number = serial / BLOCK;
        if self.blocks.is_empty() {
            self.first = number;
        }
        let Some(block) = number.checked_sub(self.first) else { return };
        while self.blocks.len() as u64 <= block {
            self.blocks.push_back(Vec::new());
        }
        let Some(block) = self.blocks.get_mut(block as usize) else { return };
        if block.is_empty() {
            block.resize(BLOCK as usize, Part::WHOLE);
        }
        if let Some(place) = block.get_mut((serial % BLOCK) as usize) {
            *place = part;
        }
    }

    /// Serials before this one are not asked for any more.
    #[inline]
    pub fn clear_before(&mut self, serial: u64) {
        if self.blocks.is_empty() {
            return;
        }
        while self.first < serial / BLOCK && self.blocks.pop_front().is_some() {
            self.first += 1;
        }
        if self.blocks.is_empty() {
            self.blocks = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_parts_and_nothing_of_what_is_over() {
        let mut rng = fastrand::Rng::with_seed(5);
        let (mut parts, mut model) = (Parts::default(), VecDeque::new());
        let (mut next, mut first) = (BLOCK * 7 - 3, BLOCK * 7 - 3);
        for round in 0..60 {
            // Long stretches of whole keys, long ones of parts, and both mixed.
            let one_in = [u64::MAX, 1, 3][round % 3];
            for _ in 0..rng.u64(0..3 * BLOCK) {
                let part = if rng.u64(..).is_multiple_of(one_in) { Part::one(rng.u64(..)) } else { Part::WHOLE };
                if part != Part::WHOLE {
                    parts.set(next, part);
                }
                model.push_back(part);
                next += 1;
            }
            let gone = rng.u64(0..=next - first);
            first += gone;
            model.drain(..gone as usize);
            parts.clear_before(first);
            assert!(model.iter().enumerate().all(|(n, part)| parts.get(first + n as u64) == *part), "round {round}");
            assert_eq!(parts.get(next), Part::WHOLE);
            let most = ((next - first) / BLOCK + 2) as usize * BLOCK as usize * size_of::<Part>();
            assert!(parts.memory() <= most + (4 << 10), "round {round}: {}", parts.memory());
        }
        parts.clear_before(next + BLOCK);
        assert_eq!(parts.memory(), 0);
    }
}
