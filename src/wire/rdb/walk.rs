//! Walks an encoding by its table, one token at a time, over bytes that may not all be there yet.
//!
//! A [`Walker`] keeps its place between calls, so bytes are looked at once however small the pieces are in which they
//! come. It allocates nothing and trusts no length: a length above the cap is an error, any other is a number of bytes
//! to wait for.

use std::ops::Range;

use super::RdbError;
use super::grammar::{Op, Tag};

/// Why a step could not be made.
#[derive(Debug)]
pub(super) enum Stop {
    /// At least this many bytes more.
    Need(usize),
    Bad(RdbError),
}

fn unexpected(at: usize, expected: &'static str, seen: u64) -> Stop {
    Stop::Bad(RdbError::Unexpected { offset: at as u64, expected, seen })
}

/// A string where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    Plain(Range<usize>),
    Int(i64),
    /// Compressed, and how long it will be. At most what a server could hold is promised; unpacking checks the rest.
    Lzf(Range<usize>, usize),
}

#[derive(Debug)]
pub(super) enum Token {
    Len(u64),
    Str(Text),
    Fixed(Range<usize>),
    Score(f64),
    /// Repetitions follow.
    Count,
    Opaque,
}

#[inline]
fn bytes(buf: &[u8], at: usize, n: usize) -> Result<&[u8], Stop> {
    match buf.get(at..at.saturating_add(n)) {
        Some(found) => Ok(found),
        None => Err(Stop::Need(n.saturating_sub(buf.len().saturating_sub(at)))),
    }
}

/// A length, or the number of a special string encoding.
enum Head {
    Len(u64),
    Special(u8),
}

#[inline]
fn head(buf: &[u8], at: &mut usize) -> Result<Head, Stop> {
    let first = *buf.get(*at).ok_or(Stop::Need(1))?;
    match first >> 6 {
        0 => {
            *at += 1;
            Ok(Head::Len(u64::from(first)))
        }
        1 => {
            let low = *buf.get(*at + 1).ok_or(Stop::Need(1))?;
            *at += 2;
            Ok(Head::Len(u64::from(first & 63) << 8 | u64::from(low)))
        }
        2 if first == 0x80 => {
            let mut n = [0; 4];
            n.copy_from_slice(bytes(buf, *at + 1, 4)?);
            *at += 5;
            Ok(Head::Len(u64::from(u32::from_be_bytes(n))))
        }
        2 if first == 0x81 => {
            let mut n = [0; 8];
            n.copy_from_slice(bytes(buf, *at + 1, 8)?);
            *at += 9;
            Ok(Head::Len(u64::from_be_bytes(n)))
        }
        2 => Err(unexpected(*at, "a length", u64::from(first))),
        _ => {
            *at += 1;
            Ok(Head::Special(first & 63))
        }
    }
}

/// A length-encoded number. `at` moves only on success.
#[inline]
pub(super) fn len(buf: &[u8], at: &mut usize) -> Result<u64, Stop> {
    let begin = *at;
    match head(buf, at)? {
        Head::Len(n) => Ok(n),
        Head::Special(n) => {
            *at = begin;
            Err(unexpected(begin, "a number, not a string's encoding", u64::from(n)))
        }
    }
}

fn capped(at: usize, bytes: u64, cap: usize) -> Result<usize, Stop> {
    match usize::try_from(bytes) {
        Ok(n) if n <= cap => Ok(n),
        _ => Err(Stop::Bad(RdbError::TooBig { offset: at as u64, what: "a string", bytes, cap: cap as u64 })),
    }
}

/// A string. `at` moves only on success, behind it.
#[inline]
pub(super) fn text(buf: &[u8], at: &mut usize, cap: usize) -> Result<Text, Stop> {
    let mut p = *at;
    let found = match head(buf, &mut p)? {
        Head::Len(n) => {
            let n = capped(*at, n, cap)?;
            bytes(buf, p, n)?;
            p += n;
            Text::Plain(p - n..p)
        }
        Head::Special(0) => {
            let b = bytes(buf, p, 1)?;
            p += 1;
            Text::Int(i64::from(b[0] as i8))
        }
        Head::Special(1) => {
            let b = bytes(buf, p, 2)?;
            p += 2;
            Text::Int(i64::from(i16::from_le_bytes([b[0], b[1]])))
        }
        Head::Special(2) => {
            let b = bytes(buf, p, 4)?;
            p += 4;
            Text::Int(i64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]])))
        }
        Head::Special(3) => {
            let packed = capped(*at, len(buf, &mut p)?, cap)?;
            let size = capped(*at, len(buf, &mut p)?, cap)?;
            bytes(buf, p, packed)?;
            p += packed;
            Text::Lzf(p - packed..p, size)
        }
        Head::Special(n) => return Err(unexpected(*at, "a string encoding 0 to 3", u64::from(n))),
    };
    *at = p;
    Ok(found)
}

/// The head of a compressed string: how long it is, and how long unpacked; `None` for any other string. `at` moves
/// only on success.
pub(super) fn packed(buf: &[u8], at: &mut usize) -> Result<Option<(u64, u64)>, Stop> {
    let mut p = *at;
    if !matches!(head(buf, &mut p)?, Head::Special(3)) {
        return Ok(None);
    }
    let found = (len(buf, &mut p)?, len(buf, &mut p)?);
    *at = p;
    Ok(Some(found))
}

/// A score as text: a length byte, or one of three values that have none.
fn score(buf: &[u8], at: &mut usize) -> Result<f64, Stop> {
    let n = *buf.get(*at).ok_or(Stop::Need(1))?;
    let (value, size) = match n {
        253 => (f64::NAN, 1),
        254 => (f64::INFINITY, 1),
        255 => (f64::NEG_INFINITY, 1),
        _ => {
            let digits = bytes(buf, *at + 1, usize::from(n))?;
            let value = std::str::from_utf8(digits).ok().and_then(|s| s.trim().parse().ok());
            let value = value.ok_or_else(|| unexpected(*at + 1, "a number as text", u64::from(n)))?;
            (value, 1 + usize::from(n))
        }
    };
    *at += size;
    Ok(value)
}

/// One annotated field of a module's value; `true` at the end mark. `at` moves only on success.
fn module_field(buf: &[u8], at: &mut usize, cap: usize) -> Result<bool, Stop> {
    let mut p = *at;
    match len(buf, &mut p)? {
        0 => {
            *at = p;
            return Ok(true);
        }
        1 | 2 => {
            len(buf, &mut p)?;
        }
        3 => {
            bytes(buf, p, 4)?;
            p += 4;
        }
        4 => {
            bytes(buf, p, 8)?;
            p += 8;
        }
        5 => {
            text(buf, &mut p, cap)?;
        }
        n => return Err(unexpected(*at, "a module field 0 to 5", n)),
    }
    *at = p;
    Ok(false)
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    ops: &'static [Op],
    next: usize,
    /// Repetitions, this one included.
    left: u64,
}

/// The deepest table is a stream's: value, groups, consumers, pending.
const DEPTH: usize = 5;

/// A place in an encoding.
#[derive(Debug, Clone)]
pub(super) struct Walker {
    frames: [Frame; DEPTH],
    depth: usize,
    cap: usize,
}

impl Walker {
    /// At the beginning of `ops`; strings above `cap` bytes are refused.
    pub(super) fn new(ops: &'static [Op], cap: usize) -> Self {
        Walker { frames: [Frame { ops, next: 0, left: 1 }; DEPTH], depth: 1, cap }
    }

    /// The next token at `at`, which moves behind it; `None` when the encoding is complete. An error leaves the place
    /// and `at` as they were.
    #[inline]
    pub(super) fn token(&mut self, buf: &[u8], at: &mut usize) -> Result<Option<(Tag, Token)>, Stop> {
        loop {
            let Some(frame) = self.depth.checked_sub(1).and_then(|d| self.frames.get_mut(d)) else {
                return Ok(None);
            };
            let Some(op) = frame.ops.get(frame.next) else {
                frame.left -= 1;
                frame.next = 0;
                if frame.left == 0 {
                    self.depth -= 1;
                }
                continue;
            };
            let token = match *op {
                Op::Str(tag) => (tag, Token::Str(text(buf, at, self.cap)?)),
                Op::Len(tag) => (tag, Token::Len(len(buf, at)?)),
                Op::Fixed(tag, n) => {
                    bytes(buf, *at, n)?;
                    *at += n;
                    (tag, Token::Fixed(*at - n..*at))
                }
                Op::Text(tag) => (tag, Token::Score(score(buf, at)?)),
                Op::Module => {
                    if module_field(buf, at, self.cap)? {
                        frame.next += 1;
                    }
                    return Ok(Some((Tag::None, Token::Opaque)));
                }
                Op::Repeat(tag, ops) => {
                    let n = len(buf, at)?;
                    frame.next += 1;
                    if n > 0 {
                        self.frames[self.depth] = Frame { ops, next: 0, left: n };
                        self.depth += 1;
                    }
                    return Ok(Some((tag, Token::Count)));
                }
            };
            frame.next += 1;
            return Ok(Some(token));
        }
    }

    /// Walks on until the encoding is complete (`true`) or `at` has reached `limit`.
    #[inline]
    pub(super) fn skip(&mut self, buf: &[u8], at: &mut usize, limit: usize) -> Result<bool, Stop> {
        while *at < limit {
            let Some(frame) = self.depth.checked_sub(1).and_then(|d| self.frames.get_mut(d)) else {
                return Ok(true);
            };
            // Most steps are short plain strings and runs of plain bytes.
            match frame.ops.get(frame.next) {
                None if frame.left > 1 => {
                    frame.left -= 1;
                    frame.next = 0;
                    continue;
                }
                Some(Op::Str(_)) => {
                    if let Some(&n @ 0..64) = buf.get(*at)
                        && *at + usize::from(n) < buf.len()
                    {
                        *at += 1 + usize::from(n);
                        frame.next += 1;
                        continue;
                    }
                }
                Some(&Op::Fixed(_, n)) if buf.len().saturating_sub(*at) >= n => {
                    *at += n;
                    frame.next += 1;
                    continue;
                }
                _ => {}
            }
            if self.token(buf, at)?.is_none() {
                return Ok(true);
            }
        }
        // Complete without another byte?
        while let Some(frame) = self.depth.checked_sub(1).and_then(|d| self.frames.get_mut(d)) {
            if frame.next < frame.ops.len() || frame.left > 1 {
                return Ok(false);
            }
            self.depth -= 1;
        }
        Ok(true)
    }
}
