//! Commands, found in a buffer that grows.

use super::{Limits, RespError, count};

/// The fewest bytes an argument takes: `$0\r\n\r\n`.
const SHORTEST_ARG: usize = 6;

/// What stands at the front of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A command; its arguments were appended to the vector (none for `*0`).
    Command { start: usize, end: usize },
    /// A bare newline, a keepalive.
    Blank { end: usize },
    /// Not all of it is there. The buffer has to be at least this long, in bytes from its beginning.
    NeedMore(usize),
}

/// Walks over commands, and remembers where it stopped inside one that is not complete.
///
/// The buffer that it is given must begin where the last one did, unless [`CommandScan::rebase`] said otherwise.
#[derive(Debug, Clone, Default)]
pub struct CommandScan {
    /// The command under way begins here.
    start: usize,
    /// The next byte to look at.
    at: usize,
    /// Arguments still to come of the command under way; 0 between commands.
    left: usize,
}

impl CommandScan {
    /// Begins at a byte of the buffer, which has to be a frame's first.
    pub fn at(at: usize) -> Self {
        CommandScan { start: at, at, left: 0 }
    }

    /// Where the command under way, or else the next one, begins.
    pub fn boundary(&self) -> usize {
        self.start
    }

    /// The caller dropped this many bytes from the front of the buffer, at most up to [`CommandScan::boundary`].
    pub fn rebase(&mut self, dropped: usize) {
        debug_assert!(dropped <= self.start);
        self.start -= dropped;
        self.at -= dropped;
    }

    /// Takes one step. Argument ranges are appended to `args` as they are found, also those of an incomplete command:
    /// call again with the same vector.
    ///
    /// # Errors
    /// [`RespError`] when the bytes are no command or a limit is passed.
    #[inline]
    pub fn step(&mut self, buf: &[u8], limits: &Limits, args: &mut Vec<(u32, u32)>) -> Result<Step, RespError> {
        let mut at = self.at;
        let mut left = self.left;
        if left == 0 {
            match buf.get(at) {
                None => return Ok(Step::NeedMore(at + 1)),
                Some(b'*') => {
                    let Some((n, next)) = count(buf, at + 1)? else { return Ok(Step::NeedMore(buf.len() + 1)) };
                    if n <= 0 {
                        return Ok(self.done(next)); // Redis takes `*0` and `*-1` as nothing
                    }
                    if n as u64 > limits.args as u64 {
                        return Err(RespError::TooLarge {
                            at,
                            what: "a command with arguments in number",
                            size: n as u64,
                            limit: limits.args as u64,
                        });
                    }
                    left = n as usize;
                    at = next;
                }
                Some(_) => return self.line(buf, limits, args),
            }
        }
        // All that is needed beyond `at` is known exactly, but for arguments whose length is not there yet.
        while let Some(&marker) = buf.get(at) {
            if marker != b'$' {
                return Err(RespError::Unexpected { at, expected: "'$'", found: marker });
            }
            let Some((len, value)) = count(buf, at + 1)? else { break };
            if len < 0 || len as u64 > limits.bulk as u64 {
                return Err(RespError::TooLarge {
                    at,
                    what: "an argument with bytes in number",
                    size: len as u64,
                    limit: limits.bulk as u64,
                });
            }
            let end = value + len as usize;
            let Some(&[cr, lf]) = buf.get(end..end + 2) else {
                self.at = at;
                self.left = left;
                return Ok(Step::NeedMore(end + 2 + (left - 1).saturating_mul(SHORTEST_ARG)));
            };
            if (cr, lf) != (b'\r', b'\n') {
                return Err(RespError::Unexpected { at: end, expected: "the end of an argument", found: cr });
            }
            args.push((offset(value)?, offset(end)?));
            at = end + 2;
            left -= 1;
            if left == 0 {
                return Ok(self.done(at));
            }
        }
        self.at = at;
        self.left = left;
        Ok(Step::NeedMore((at.saturating_add(left.saturating_mul(SHORTEST_ARG))).max(buf.len() + 1)))
    }

    fn done(&mut self, end: usize) -> Step {
        let start = std::mem::replace(&mut self.start, end);
        self.at = end;
        self.left = 0;
        Step::Command { start, end }
    }

    /// An inline command or a bare newline. `at` moves along, so that a long line is not searched again.
    #[cold]
    fn line(&mut self, buf: &[u8], limits: &Limits, args: &mut Vec<(u32, u32)>) -> Result<Step, RespError> {
        let start = self.start;
        let newline = memchr::memchr(b'\n', &buf[start..]);
        // The same whether its end has come or not: what is said must not depend on how it was cut.
        let size = newline.unwrap_or(buf.len() - start);
        if size > limits.line {
            return Err(RespError::TooLarge {
                at: start,
                what: "a line with bytes in number",
                size: size as u64,
                limit: limits.line as u64,
            });
        }
        let Some(n) = newline else { return Ok(Step::NeedMore(buf.len() + 1)) };
        let end = start + n + 1;
        let mut at = start;
        let line = &buf[start..end];
        if let Some(i) = memchr::memchr2(b'"', b'\'', line) {
            return Err(RespError::Quoted { at: start + i });
        }
        if let Some(i) = line.iter().position(|b| !matches!(b, b' '..=b'~' | b'\r' | b'\n' | b'\t')) {
            return Err(RespError::Unexpected { at: start + i, expected: "'*'", found: line[i] });
        }
        let mut words = 0;
        for word in line.split(|b| b.is_ascii_whitespace()) {
            if !word.is_empty() {
                args.push((offset(at)?, offset(at + word.len())?));
                words += 1;
            }
            at += word.len() + 1;
        }
        let step = self.done(end);
        Ok(if words == 0 { Step::Blank { end } } else { step })
    }
}

/// Ranges are 32 bits wide: half the memory for the many arguments of a batch.
fn offset(at: usize) -> Result<u32, RespError> {
    u32::try_from(at).map_err(|_| RespError::TooLarge {
        at,
        what: "a unit of the stream with bytes in number",
        size: at as u64,
        limit: u64::from(u32::MAX),
    })
}
