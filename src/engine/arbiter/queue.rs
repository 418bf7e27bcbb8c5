//! A queue in blocks: it grows without a copy of what it holds, and gives back what a burst took.
//!
//! Invariants: an element is found by its place in two steps; at most one block is empty and kept, so that a queue of a
//! steady length allocates nothing.

use std::collections::VecDeque;

/// Elements in a block: large enough that the system's allocator keeps no block that is given back.
const BLOCK: usize = 16 << 10;

#[derive(Debug)]
pub struct Queue<T> {
    blocks: VecDeque<Vec<T>>,
    /// Elements of the first block that have been taken.
    taken: usize,
    /// Elements that are left: asked for with each of them.
    len: usize,
    spare: Vec<T>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue { blocks: VecDeque::new(), taken: 0, len: 0, spare: Vec::new() }
    }
}

impl<T: Copy> Queue<T> {
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes it holds.
    pub fn memory(&self) -> usize {
        let blocks = self.blocks.len() + usize::from(self.spare.capacity() > 0);
        blocks * BLOCK * size_of::<T>()
    }

    #[inline]
    pub fn get(&self, place: usize) -> Option<&T> {
        let place = place + self.taken;
        self.blocks.get(place / BLOCK)?.get(place % BLOCK)
    }

    #[inline]
    pub fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        let place = place + self.taken;
        self.blocks.get_mut(place / BLOCK)?.get_mut(place % BLOCK)
    }

    #[inline]
    pub fn push_back(&mut self, element: T) {
        if self.blocks.back().is_none_or(|b| b.len() == BLOCK) {
            let mut block = std::mem::take(&mut self.spare);
            block.reserve_exact(BLOCK);
            self.blocks.push_back(block);
        }
        if let Some(last) = self.blocks.back_mut() {
            last.push(element);
            self.len += 1;
        }
    }

    /// Takes so many off the front.
    pub fn drop_front(&mut self, n: usize) {
        let n = n.min(self.len);
        self.taken += n;
        self.len -= n;
        while self.taken >= BLOCK || (self.taken > 0 && self.is_empty()) {
            self.taken = self.taken.saturating_sub(BLOCK);
            let Some(mut block) = self.blocks.pop_front() else { break };
            block.clear();
            self.spare = block;
            if self.blocks.is_empty() {
                self.taken = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_what_a_deque_does() {
        let (mut q, mut model) = (Queue::default(), VecDeque::new());
        let mut rng = fastrand::Rng::with_seed(3);
        let mut next = 0u32;
        for round in 0..400 {
            // Now it grows, now it shrinks, at times to nothing; now and then by blocks at once.
            let size = if round % 7 == 0 { 50_000 } else { 1_500 };
            for _ in 0..rng.usize(0..size) {
                q.push_back(next);
                model.push_back(next);
                next += 1;
            }
            let most = if round % 40 == 39 { model.len() } else { size - 20 };
            for _ in 0..rng.usize(1..5) {
                let n = rng.usize(0..=most / 4);
                q.drop_front(n);
                model.drain(..n.min(model.len()));
            }
            assert_eq!((q.len(), q.is_empty(), q.get(0)), (model.len(), model.is_empty(), model.front()));
            for _ in 0..20 {
                let place = rng.usize(0..model.len() + 10);
                assert_eq!(q.get(place), model.get(place));
                assert_eq!(q.get_mut(place), model.get_mut(place));
            }
        }
        q.drop_front(usize::MAX);
        assert_eq!(q.memory(), BLOCK * 4, "one block is kept");
    }
}
