//! Ziplists, the packed collections of Redis 2.4 to 6.2 (`ziplist.c`).
//!
//! 4 bytes total size, 4 bytes offset of the last element, 2 bytes number of elements, elements, 0xFF. Each element is
//! the previous one's length (one byte, or 254 and four), its encoding, its data. Text lengths are big endian, the rest
//! is little endian.

use super::RdbError;
use super::listpack::{Cell, damaged, run, span};

pub(super) struct Ziplist<'a> {
    blob: &'a [u8],
    at: usize,
}

const HEAD: usize = 10;
const END: u8 = 0xff;

impl<'a> Ziplist<'a> {
    pub(super) fn new(blob: &'a [u8]) -> Result<Self, RdbError> {
        let size = u32::from_le_bytes(run::<4>(blob, 0)?);
        if size as usize != blob.len() || blob.len() <= HEAD {
            return Err(damaged(0, "a ziplist's own size", u64::from(size)));
        }
        Ok(Ziplist { blob, at: HEAD })
    }

    fn cell(&mut self) -> Result<Option<Cell>, RdbError> {
        let blob = self.blob;
        let mut at = self.at;
        let [previous] = run::<1>(blob, at)?;
        if previous == END && at + 1 == blob.len() {
            return Ok(None);
        }
        at += if previous == 254 { 5 } else { 1 };
        let [first] = run::<1>(blob, at)?;
        let (cell, size) = match first {
            0..=0x3f => {
                let n = usize::from(first);
                (Cell::Text(span(blob, at + 1, n)?), 1 + n)
            }
            0x40..=0x7f => {
                let [low] = run::<1>(blob, at + 1)?;
                let n = usize::from(first & 0x3f) << 8 | usize::from(low);
                (Cell::Text(span(blob, at + 2, n)?), 2 + n)
            }
            0x80 => {
                let n = u32::from_be_bytes(run::<4>(blob, at + 1)?) as usize;
                (Cell::Text(span(blob, at + 5, n)?), 5 + n)
            }
            0xc0 => (Cell::Int(i64::from(i16::from_le_bytes(run::<2>(blob, at + 1)?))), 3),
            0xd0 => (Cell::Int(i64::from(i32::from_le_bytes(run::<4>(blob, at + 1)?))), 5),
            0xe0 => (Cell::Int(i64::from_le_bytes(run::<8>(blob, at + 1)?)), 9),
            0xf0 => {
                let [a, b, c] = run::<3>(blob, at + 1)?;
                (Cell::Int(i64::from(i32::from_le_bytes([0, a, b, c]) >> 8)), 4)
            }
            0xfe => {
                let [n] = run::<1>(blob, at + 1)?;
                (Cell::Int(i64::from(n as i8)), 2)
            }
            0xf1..=0xfd => (Cell::Int(i64::from(first & 0x0f) - 1), 1),
            _ => return Err(damaged(at, "a ziplist element", u64::from(first))),
        };
        self.at = at + size;
        Ok(Some(cell))
    }
}

impl Iterator for Ziplist<'_> {
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
