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
        #[test]
        fn any_bytes_end_well(input in proptest::collection::vec(any::<u8>(), 0..200), size in 0usize..5000) {
            if let Ok(out) = decompress(&input, size) {
                prop_assert_eq!(out.len(), size);
            }
        }
    }
}
