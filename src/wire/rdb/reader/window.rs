//! The part of a stream that is being looked at: contiguous, whatever the chunks.
//!
//! Bytes are seen where they lie: what lies within one chunk is handed out as slices of it. A record that began in an
//! earlier chunk is continued in `carry`, into which no more is copied than it needs (and a little ahead, which is
//! given back).
//!
//! Invariant: at the beginning of a record `carry` is empty; in it, `carry` holds the record from its beginning, and
//! its last `ahead` bytes also stand right before `pos` in the chunk.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::wire::crc64::Crc64;

/// At least this many bytes are appended to `carry` at a time, where they are there.
const AHEAD: usize = 4096;

pub(super) struct Window {
    chunk: Bytes,
    pos: usize,
    waiting: VecDeque<Bytes>,
    carry: BytesMut,
    ahead: usize,
    /// Stream offset of `chunk`'s first byte.
    base: u64,
    /// Of all bytes before `summed` in `chunk`; `None` when nobody asks.
    crc: Option<Crc64>,
    summed: usize,
}

impl Window {
    pub(super) fn new(checksum: bool) -> Self {
        Window {
            chunk: Bytes::new(),
            pos: 0,
            waiting: VecDeque::new(),
            carry: BytesMut::new(),
            ahead: 0,
            base: 0,
            crc: checksum.then(Crc64::new),
            summed: 0,
        }
    }

    pub(super) fn feed(&mut self, chunk: Bytes) {
        if self.pos == self.chunk.len() && self.waiting.is_empty() {
            self.retire();
            self.chunk = chunk;
        } else if !chunk.is_empty() {
            self.waiting.push_back(chunk);
        }
    }

    /// Where the view begins in the stream.
    pub(super) fn offset(&self) -> u64 {
        self.base + self.pos as u64 - self.carry.len() as u64
    }

    /// The bytes that are there and contiguous.
    #[inline]
    pub(super) fn view(&self) -> &[u8] {
        if self.carry.is_empty() { &self.chunk[self.pos..] } else { &self.carry }
    }

    /// Counts the chunk into the checksum and the offset; it has been used up.
    fn retire(&mut self) {
        if let Some(crc) = &mut self.crc {
            crc.update(&self.chunk[self.summed..]);
        }
        self.base += self.chunk.len() as u64;
        self.chunk = Bytes::new();
        self.pos = 0;
        self.summed = 0;
        self.ahead = 0;
    }

    /// Makes more bytes visible behind those of the current record, `need` if they are there; `false` when there are
    /// none.
    pub(super) fn more(&mut self, need: usize) -> bool {
        if self.pos == self.chunk.len() {
            let Some(next) = self.waiting.pop_front() else { return false };
            self.retire();
            self.chunk = next;
            if self.carry.is_empty() {
                return true;
            }
        } else if self.carry.is_empty() {
            if self.waiting.is_empty() {
                return false;
            }
            self.carry.extend_from_slice(&self.chunk[self.pos..]);
            self.pos = self.chunk.len();
            self.ahead = self.carry.len();
            return true;
        }
        let n = need.max(AHEAD).min(self.chunk.len() - self.pos);
        self.carry.extend_from_slice(&self.chunk[self.pos..self.pos + n]);
        self.pos += n;
        self.ahead += n;
        n > 0
    }

    /// Takes `n` bytes off the view's front. They must be in it.
    #[inline]
    pub(super) fn take(&mut self, n: usize) -> Bytes {
        if self.carry.is_empty() {
            let taken = self.chunk.slice(self.pos..self.pos + n);
            self.pos += n;
            return taken;
        }
        let taken = self.carry.split_to(n).freeze();
        self.give_back();
        taken
    }

    /// Takes `n` bytes off, and hands out two ranges of them; no third handle is made of them on the way.
    #[inline]
    pub(super) fn take_two(
        &mut self,
        n: usize,
        a: std::ops::Range<usize>,
        b: std::ops::Range<usize>,
    ) -> (Bytes, Bytes) {
        if !self.carry.is_empty() {
            let taken = self.take(n);
            return (taken.slice(a), taken.slice(b));
        }
        let from = self.pos;
        self.pos += n;
        (self.chunk.slice(from + a.start..from + a.end), self.chunk.slice(from + b.start..from + b.end))
    }

    /// Drops `n` bytes from the view's front. They must be in it.
    pub(super) fn advance(&mut self, n: usize) {
        if self.carry.is_empty() {
            self.pos += n;
        } else {
            self.carry.advance(n);
            self.give_back();
        }
    }

    /// Goes back to the chunk itself when all that is left of `carry` stands there too.
    fn give_back(&mut self) {
        if self.carry.len() <= self.ahead {
            self.pos -= self.carry.len();
            self.carry.clear();
            self.ahead = 0;
        }
    }

    /// The checksum of all bytes before the view, which begins a record. It is not computed any further.
    pub(super) fn close_sum(&mut self) -> Option<u64> {
        debug_assert!(self.carry.is_empty());
        let mut crc = self.crc.take()?;
        crc.update(&self.chunk[self.summed..self.pos]);
        Some(crc.value())
    }

    /// What has not been looked at.
    pub(super) fn take_rest(&mut self) -> Vec<Bytes> {
        let first = self.chunk.split_off(self.pos);
        first.has_remaining().then_some(first).into_iter().chain(self.waiting.drain(..)).collect()
    }
}
