//! Listpacks, and intsets and zipmaps beside them: collections in one run of bytes.
//!
//! A listpack (`listpack.c`): 4 bytes total size, 2 bytes number of elements (65535: count them), elements, 0xFF. Each
//! element is its encoding, its data, and its own length again for walking backwards. Lengths are little endian.

use bytes::Bytes;

use super::RdbError;

/// An element: text where it stands, or a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Text(std::ops::Range<usize>),
    Int(i64),
}

impl Cell {
    /// The element as a command's argument.
    pub(super) fn bytes(&self, blob: &Bytes) -> Bytes {
        match self {
            Cell::Text(range) => blob.slice(range.clone()),
            Cell::Int(n) => Bytes::copy_from_slice(itoa::Buffer::new().format(*n).as_bytes()),
        }
    }

    /// The element as a number, as the server would read it.
    pub(super) fn int(&self, blob: &[u8]) -> Option<i64> {
        match self {
            Cell::Text(range) => {
                let text = blob.get(range.clone())?;
                let (n, used) = <i64 as atoi::FromRadix10SignedChecked>::from_radix_10_signed_checked(text);
                n.filter(|_| used == text.len() && used > 0)
            }
            Cell::Int(n) => Some(*n),
        }
    }

    /// The element as a score.
    pub(super) fn score(&self, blob: &[u8]) -> Option<f64> {
        match self {
            Cell::Text(range) => std::str::from_utf8(blob.get(range.clone())?).ok()?.trim().parse().ok(),
            Cell::Int(n) => Some(*n as f64),
        }
    }
}

pub(super) fn damaged(at: usize, expected: &'static str, seen: u64) -> RdbError {
    RdbError::Unexpected { offset: at as u64, expected, seen }
}

pub(super) fn run<const N: usize>(blob: &[u8], at: usize) -> Result<[u8; N], RdbError> {
    let found = blob.get(at..).and_then(|rest| rest.first_chunk::<N>());
    found.copied().ok_or(RdbError::Short { offset: at as u64, expected: "a packed element" })
}

pub(super) fn span(blob: &[u8], at: usize, len: usize) -> Result<std::ops::Range<usize>, RdbError> {
    match at.checked_add(len) {
        Some(end) if end <= blob.len() => Ok(at..end),
        _ => Err(RdbError::Short { offset: at as u64, expected: "a packed element's text" }),
    }
}

/// The elements of a listpack, in order.
pub(super) struct Listpack<'a> {
    blob: &'a [u8],
    at: usize,
}

const HEAD: usize = 6;
const END: u8 = 0xff;

impl<'a> Listpack<'a> {
    pub(super) fn new(blob: &'a [u8]) -> Result<Self, RdbError> {
        let size = u32::from_le_bytes(run::<4>(blob, 0)?);
        if size as usize != blob.len() || blob.len() <= HEAD {
            return Err(damaged(0, "a listpack's own size", u64::from(size)));
        }
        Ok(Listpack { blob, at: HEAD })
    }

    fn cell(&mut self) -> Result<Option<Cell>, RdbError> {
        let (blob, at) = (self.blob, self.at);
        let [first] = run::<1>(blob, at)?;
        let second = |at| run::<1>(blob, at).map(|[b]| b);
        let (cell, size) = match first {
            END if at + 1 == blob.len() => return Ok(None),
            0..=0x7f => (Cell::Int(i64::from(first)), 1),
            0x80..=0xbf => {
                let n = usize::from(first & 0x3f);
                (Cell::Text(span(blob, at + 1, n)?), 1 + n)
            }
            0xc0..=0xdf => {
                // 13 bits, two's complement
                let n = i64::from(first & 0x1f) << 8 | i64::from(second(at + 1)?);
                (Cell::Int(if n >= 1 << 12 { n - (1 << 13) } else { n }), 2)
            }
            0xe0..=0xef => {
                let n = usize::from(first & 0x0f) << 8 | usize::from(second(at + 1)?);
                (Cell::Text(span(blob, at + 2, n)?), 2 + n)
            }
            0xf0 => {
                let n = u32::from_le_bytes(run::<4>(blob, at + 1)?) as usize;
                (Cell::Text(span(blob, at + 5, n)?), 5 + n)
            }
            0xf1 => (Cell::Int(i64::from(i16::from_le_bytes(run::<2>(blob, at + 1)?))), 3),
            0xf2 => {
                let [a, b, c] = run::<3>(blob, at + 1)?;
                (Cell::Int(i64::from(i32::from_le_bytes([0, a, b, c]) >> 8)), 4)
            }
            0xf3 => (Cell::Int(i64::from(i32::from_le_bytes(run::<4>(blob, at + 1)?))), 5),
            0xf4 => (Cell::Int(i64::from_le_bytes(run::<8>(blob, at + 1)?)), 9),
            _ => return Err(damaged(at, "a listpack element", u64::from(first))),
        };
        let back = match size {
            0..=127 => 1,
            128..=16_383 => 2,
            16_384..=2_097_151 => 3,
            2_097_152..=268_435_455 => 4,
            _ => 5,
        };
        self.at = span(blob, at + size, back)?.end;
        Ok(Some(cell))
    }
}

impl Iterator for Listpack<'_> {
    type Item = Result<Cell, RdbError>;

    fn next(&mut self) -> Option<Self::Item> {
        let cell = self.cell();
        if cell.is_err() {
            // Once, then nothing more.
            self.blob = &[END];
            self.at = 0;
        }
        cell.transpose()
    }
}

/// The numbers of an intset (`intset.c`): 4 bytes width, 4 bytes count, the numbers.
pub(super) fn intset(blob: &[u8]) -> Result<impl Iterator<Item = i64>, RdbError> {
    let width = u32::from_le_bytes(run::<4>(blob, 0)?) as usize;
    let count = u32::from_le_bytes(run::<4>(blob, 4)?) as usize;
    if !matches!(width, 2 | 4 | 8) {
        return Err(damaged(0, "an intset's width 2, 4 or 8", width as u64));
    }
    if count.checked_mul(width).and_then(|n| n.checked_add(8)) != Some(blob.len()) {
        return Err(damaged(4, "an intset's own count", count as u64));
    }
    Ok(blob[8..].chunks_exact(width).map(|n| match *n {
        [a, b] => i64::from(i16::from_le_bytes([a, b])),
        [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => i64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => 0, // not reached: the width was checked
    }))
}

/// Fields and values of a zipmap, the hashes of Redis before 2.6 (`zipmap.c`): a count byte, then for each field its
/// length (one byte, or 254 and four), the field, the value's length, a byte saying how many bytes are unused behind
/// the value, the value, those bytes; at the end 255.
pub(super) fn zipmap(blob: &[u8]) -> Result<Vec<(Cell, Cell)>, RdbError> {
    fn length(blob: &[u8], at: &mut usize) -> Result<Option<usize>, RdbError> {
        let [first] = run::<1>(blob, *at)?;
        *at += 1;
        match first {
            255 => Ok(None),
            254 => {
                let n = u32::from_le_bytes(run::<4>(blob, *at)?);
                *at += 4;
                Ok(Some(n as usize))
            }
            n => Ok(Some(usize::from(n))),
        }
    }
    let mut pairs = Vec::new();
    let mut at = 1;
    while let Some(n) = length(blob, &mut at)? {
        let field = span(blob, at, n)?;
        at = field.end;
        let n = length(blob, &mut at)?.ok_or_else(|| damaged(at - 1, "a zipmap value's length", 255))?;
        let [free] = run::<1>(blob, at)?;
        let value = span(blob, at + 1, n)?;
        at = span(blob, value.end, usize::from(free))?.end;
        pairs.push((Cell::Text(field), Cell::Text(value)));
    }
    if at != blob.len() {
        return Err(damaged(at, "the end of a zipmap", (blob.len() - at) as u64));
    }
    Ok(pairs)
}
