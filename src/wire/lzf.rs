//! LZF, the compression inside RDB strings. Only unpacking; every index is checked.
//!
//! The format (liblzf): a control byte below 32 is followed by `control + 1` literal bytes; any other is a copy from
//! what was written already: length in its upper three bits (7: one more length byte follows), distance in its lower
//! five and the next byte.

use thiserror::Error;

/// The most bytes that one byte of input can unpack to: a copy of 264 takes three.
const BEST_RATIO: usize = 88;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LzfError {
    #[error("LZF input ends inside an item, at byte {0}")]
    Short(usize),
    #[error("LZF copy at byte {0} reaches before the beginning of its output")]
    Before(usize),
    #[error("LZF output is {0} bytes, its header promised {1}")]
    Size(usize, usize),
}

/// Unpacks `input` to exactly `size` bytes. Allocates `size`, but only after it was found to be possible for an
/// input of this length, so a lying header costs nothing.
pub fn decompress(input: &[u8], size: usize) -> Result<Vec<u8>, LzfError> {
    let mut out = Vec::new();
    decompress_into(input, size, &mut out)?;
    Ok(out)
}

/// The same into a buffer that may be used again; what it held goes.
pub fn decompress_into(input: &[u8], size: usize, out: &mut Vec<u8>) -> Result<(), LzfError> {
    if size > input.len().saturating_mul(BEST_RATIO) {
        return Err(LzfError::Size(input.len().saturating_mul(BEST_RATIO), size));
    }
    out.clear();
    out.reserve(size);
    let mut at = 0;
    while at < input.len() {
        let begin = at;
        let control = usize::from(input[at]);
        at += 1;
        if control < 32 {
            let literal = input.get(at..at + control + 1).ok_or(LzfError::Short(begin))?;
            if out.len() + literal.len() > size {
                return Err(LzfError::Size(out.len() + literal.len(), size));
            }
            out.extend_from_slice(literal);
            at += control + 1;
            continue;
        }
        let mut length = control >> 5;
        if length == 7 {
            length += usize::from(*input.get(at).ok_or(LzfError::Short(begin))?);
            at += 1;
        }
        length += 2;
        let low = usize::from(*input.get(at).ok_or(LzfError::Short(begin))?);
        at += 1;
        let distance = ((control & 31) << 8 | low) + 1;
        let from = out.len().checked_sub(distance).ok_or(LzfError::Before(begin))?;
        if out.len() + length > size {
            return Err(LzfError::Size(out.len() + length, size));
        }
        // The copy may read what it has just written, a repeated pattern: it doubles with each turn.
        while length > 0 {
            let n = length.min(out.len() - from);
            out.extend_from_within(from..from + n);
            length -= n;
        }
    }
    if out.len() != size {
        return Err(LzfError::Size(out.len(), size));
    }
    Ok(())
}

/// How far back a copy can reach: 13 bits, and one.
const REACH: usize = 1 << 13;
/// The longest item: a control byte and 32 literals.
const LONGEST: usize = 33;

/// Unpacks piece by piece, in memory for the reach of a copy and one piece's output: for strings too long to be held.
#[derive(Debug)]
pub struct Unpacker {
    size: u64,
    done: u64,
    taken: u64,
    /// What the next copies may reach.
    history: Vec<u8>,
    /// The beginning of an item that is not there as a whole yet.
    rest: Vec<u8>,
}

impl Unpacker {
    /// `size`: what the header promised.
    pub fn new(size: u64) -> Self {
        Unpacker { size, done: 0, taken: 0, history: Vec::new(), rest: Vec::new() }
    }

    /// What the header promised.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes of the input and gives what they unpack to: at most 88 times as many, and some.
    pub fn feed(&mut self, input: &[u8]) -> Result<Vec<u8>, LzfError> {
        let mut joined = std::mem::take(&mut self.rest);
        joined.extend_from_slice(input);
        let mut out = std::mem::take(&mut self.history);
        let before = out.len();
        let mut at = 0;
        while let Some(&control) = joined.get(at) {
            let control = usize::from(control);
            let item = match control {
                0..32 => control + 2,
                _ => 2 + usize::from(control >> 5 == 7),
            };
            let Some(bytes) = joined.get(at..at + item) else { break };
            // As soon as an item goes beyond what was promised, so that the pieces decide nothing about what is said.
            let room = |more: usize| {
                let done = self.done + (out.len() - before + more) as u64;
                if done > self.size { Err(LzfError::Size(done as usize, self.size as usize)) } else { Ok(()) }
            };
            if control < 32 {
                room(bytes.len() - 1)?;
                out.extend_from_slice(&bytes[1..]);
            } else {
                let extra = if control >> 5 == 7 { usize::from(bytes[1]) } else { 0 };
                let length = (control >> 5) + extra + 2;
                let distance = ((control & 31) << 8 | usize::from(bytes[item - 1])) + 1;
                let place = self.taken as usize + at;
                let from = out.len().checked_sub(distance).ok_or(LzfError::Before(place))?;
                room(length)?;
                for i in from..from + length {
                    out.push(out[i]);
                }
            }
            at += item;
        }
        joined.drain(..at);
        debug_assert!(joined.len() < LONGEST);
        (self.rest, self.taken) = (joined, self.taken + at as u64);
        let fresh = out[before..].to_vec();
        self.done += fresh.len() as u64;
        out.drain(..out.len().saturating_sub(REACH));
        self.history = out;
        Ok(fresh)
    }

    /// The input has ended: it was whole, and as long as promised.
    pub fn finish(&self) -> Result<(), LzfError> {
        if !self.rest.is_empty() {
            return Err(LzfError::Short(self.taken as usize));
        }
        if self.done != self.size {
            return Err(LzfError::Size(self.done as usize, self.size as usize));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn literals_and_copies() {
        // "abc", then a copy of 6 from 3 back: a pattern that overlaps itself
        assert_eq!(decompress(&[2, b'a', b'b', b'c', 4 << 5, 2], 9).unwrap(), b"abcabcabc");
        // a long copy: 7 + 2 + 91 = 100
        let mut want = b"x".to_vec();
        want.extend_from_slice(&[b'x'; 100]);
        assert_eq!(decompress(&[0, b'x', 7 << 5, 91, 0], 101).unwrap(), want);
        assert_eq!(decompress(&[], 0).unwrap(), b"");
    }

    #[test]
    fn damage_is_named() {
        assert_eq!(decompress(&[5, b'a'], 6), Err(LzfError::Short(0)));
        assert_eq!(decompress(&[0, b'a', 1 << 5], 4), Err(LzfError::Short(2)));
        assert_eq!(decompress(&[0, b'a', 1 << 5, 9], 4), Err(LzfError::Before(2)));
        assert_eq!(decompress(&[0, b'a'], 2), Err(LzfError::Size(1, 2)));
        assert_eq!(decompress(&[1, b'a', b'b'], 1), Err(LzfError::Size(2, 1)));
        assert!(matches!(decompress(&[0, b'a'], usize::MAX), Err(LzfError::Size(..))), "nothing was allocated");
    }

    proptest! {
        /// In pieces it is what it is as a whole, or wrong in the same words.
        #[test]
        fn pieces_unpack_to_the_same(items in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 33)), 1..60),
                                     cuts in proptest::collection::vec(0usize..40, 0..40),
                                     promised in proptest::option::of(0usize..2_900)) {
            let mut input = vec![31];
            input.extend(0..32u8);
            for (control, bytes) in &items {
                input.push(*control);
                let n = match control { 0..32 => usize::from(*control) + 1, _ => 1 + usize::from(control >> 5 == 7) };
                input.extend_from_slice(&bytes[..n]);
            }
            let in_pieces = |size: usize| {
                let mut unpacker = Unpacker::new(size as u64);
                let (mut out, mut rest) = (Vec::new(), &input[..]);
                for cut in cuts.iter().copied().chain([usize::MAX]) {
                    let (piece, after) = rest.split_at(cut.min(rest.len()));
                    rest = after;
                    out.extend(unpacker.feed(piece)?);
                }
                unpacker.finish().map(|()| out)
            };
            // Any size, or the one that is right.
            let size = promised.unwrap_or_else(|| match in_pieces(2_900) {
                Err(LzfError::Size(size, _)) if size < 2_900 => size,
                _ => 2_900,
            });
            prop_assert_eq!(in_pieces(size), decompress(&input, size));
        }

        #[test]
        fn any_bytes_end_well(input in proptest::collection::vec(any::<u8>(), 0..200), size in 0usize..5000) {
            if let Ok(out) = decompress(&input, size) {
                prop_assert_eq!(out.len(), size);
            }
        }
    }
}
