//! Replies, found in a buffer that grows, and looked at in place.

use super::{Limits, RespError, count};
use bytes::{Buf, BytesMut};

/// A complete reply, borrowed from the buffer.
///
/// RESP3's richer types fold into what they carry: a verbatim string is a `Bulk` with its `txt:` prefix, a blob error is
/// an `Error`, attributes are skipped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reply<'a> {
    /// `+OK`
    Simple(&'a [u8]),
    /// `-ERR ...` or `!len`, without the marker.
    Error(&'a [u8]),
    /// `:1`
    Int(i64),
    /// `$len`, `=len`
    Bulk(&'a [u8]),
    /// `$-1`, `*-1`, `_`: nothing, or an EXEC that a WATCH stopped.
    Null,
    /// `,1.5`, as written.
    Double(&'a [u8]),
    /// `#t`
    Bool(bool),
    /// `(123`, as written.
    BigNumber(&'a [u8]),
    /// `*n`, `~n`
    Array(Elements<'a>),
    /// `%n`: keys and values in turn.
    Map(Elements<'a>),
    /// `>n`: an out-of-band message, no answer to a command.
    Push(Elements<'a>),
}

impl<'a> Reply<'a> {
    /// Reads a complete reply at the front of `frame`; `None` when it is not complete or no RESP.
    pub fn parse(frame: &'a [u8]) -> Option<Reply<'a>> {
        take(frame).map(|(reply, _)| reply)
    }

    /// The text of a string of any kind.
    pub fn bytes(&self) -> Option<&'a [u8]> {
        match *self {
            Reply::Simple(b) | Reply::Bulk(b) | Reply::Double(b) | Reply::BigNumber(b) => Some(b),
            _ => None,
        }
    }

    /// The number, also one that came as text.
    pub fn int(&self) -> Option<i64> {
        match *self {
            Reply::Int(n) => Some(n),
            Reply::Bool(b) => Some(b.into()),
            _ => atoi::atoi(self.bytes()?),
        }
    }

    /// The elements of an array, set, map or push.
    pub fn elements(&self) -> Option<Elements<'a>> {
        match *self {
            Reply::Array(e) | Reply::Map(e) | Reply::Push(e) => Some(e),
            _ => None,
        }
    }

    /// A map, or an array that stands for one in RESP2, as pairs.
    pub fn pairs(&self) -> Option<Pairs<'a>> {
        self.elements().map(Pairs)
    }

    /// The text of an error.
    pub fn error(&self) -> Option<&'a [u8]> {
        match *self {
            Reply::Error(e) => Some(e),
            _ => None,
        }
    }

    /// `+OK`
    pub fn is_ok(&self) -> bool {
        *self == Reply::Simple(b"OK")
    }
}

/// The elements of an aggregate, read one by one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Elements<'a> {
    left: usize,
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    /// The elements that are left, as they came.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Reply<'a>;

    fn next(&mut self) -> Option<Reply<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (reply, len) = take(self.rest)?;
        self.rest = self.rest.get(len..)?;
        Some(reply)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Elements<'_> {}

/// Elements, two by two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pairs<'a>(Elements<'a>);

impl<'a> Iterator for Pairs<'a> {
    type Item = (Reply<'a>, Reply<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }
}

/// The same for a frame whose end is known: an array's elements need not be walked to find it.
fn parse_whole(frame: &[u8]) -> Option<Reply<'_>> {
    if frame.first() == Some(&b'*')
        && let Some((left @ 0.., body)) = count(frame, 1).ok()?
    {
        return Some(Reply::Array(Elements { left: usize::try_from(left).ok()?, rest: frame.get(body..)? }));
    }
    Reply::parse(frame)
}

/// One reply and its length.
fn take(buf: &[u8]) -> Option<(Reply<'_>, usize)> {
    let limits = Limits { bulk: usize::MAX >> 1, ..Limits::default() };
    let mut at = 0;
    loop {
        let Item { marker, n, body, end } = item(buf, at, &limits).ok()??;
        let aggregate = |per: usize| {
            let left = (n as usize).checked_mul(per)?;
            let mut scan = ReplyScan { at: body, left: left as u64, begun: true };
            let len = if left == 0 { body } else { scan.step(buf, &limits).ok()?.ok()? };
            Some((Elements { left, rest: &buf[body..len] }, len))
        };
        let text = || buf.get(body..end - 2);
        return Some(match marker {
            b'+' => (Reply::Simple(text()?), end),
            b'-' | b'!' => (Reply::Error(text()?), end),
            b':' => (Reply::Int(n), end),
            b'$' | b'*' if n < 0 => (Reply::Null, end),
            b'$' | b'=' => (Reply::Bulk(text()?), end),
            b'_' => (Reply::Null, end),
            b',' => (Reply::Double(text()?), end),
            b'#' => (Reply::Bool(text()? == b"t"), end),
            b'(' => (Reply::BigNumber(text()?), end),
            b'%' => aggregate(2).map(|(e, len)| (Reply::Map(e), len))?,
            b'>' => aggregate(1).map(|(e, len)| (Reply::Push(e), len))?,
            b'|' => {
                at = aggregate(2)?.1; // attributes say something about the reply that follows
                continue;
            }
            _ => aggregate(1).map(|(e, len)| (Reply::Array(e), len))?,
        });
    }
}

/// A type byte and what belongs to it alone.
struct Item {
    marker: u8,
    /// The integer of `:`, or the length or count of what has one.
    n: i64,
    /// Where the text, or the first element, begins.
    body: usize,
    /// Behind the line or the bulk; for an aggregate the same as `body`.
    end: usize,
}

#[inline]
fn item(buf: &[u8], at: usize, limits: &Limits) -> Result<Option<Item>, RespError> {
    let Some(&marker) = buf.get(at) else { return Ok(None) };
    let body = at + 1;
    match marker {
        b':' => Ok(count(buf, body)?.map(|(n, end)| Item { marker, n, body, end })),
        b'*' | b'%' | b'~' | b'>' | b'|' => match count(buf, body)? {
            Some((n, _)) if n as u64 > limits.args as u64 && (n, marker) != (-1, b'*') => {
                Err(RespError::TooLarge { at, what: "an array", size: n as u64, limit: limits.args as u64 })
            }
            Some((n, end)) => Ok(Some(Item { marker, n, body: end, end })),
            None => Ok(None),
        },
        b'$' | b'!' | b'=' => match count(buf, body)? {
            Some((-1, end)) if marker == b'$' => Ok(Some(Item { marker, n: -1, body: end, end })),
            Some((n, _)) if n < 0 || n as u64 > limits.bulk as u64 => {
                Err(RespError::TooLarge { at, what: "a string", size: n as u64, limit: limits.bulk as u64 })
            }
            Some((n, body)) => {
                let end = body + n as usize + 2;
                if let Some(&found) = buf.get(end - 2..end).and_then(|t| t.iter().find(|b| !b"\r\n".contains(b))) {
                    return Err(RespError::Unexpected { at: end - 2, expected: "the end of a string", found });
                }
                Ok(Some(Item { marker, n, body, end }))
            }
            None => Ok(None),
        },
        b'+' | b'-' | b',' | b'#' | b'(' | b'_' => match memchr::memchr(b'\n', &buf[body..]) {
            Some(0) => Err(RespError::Unexpected { at: body, expected: "a line", found: b'\n' }),
            Some(i) if buf[body + i - 1] != b'\r' => {
                Err(RespError::Unexpected { at: body + i - 1, expected: "a carriage return", found: buf[body + i - 1] })
            }
            Some(i) => Ok(Some(Item { marker, n: 0, body, end: body + i + 1 })),
            None if buf.len() - body > limits.line => Err(RespError::TooLarge {
                at,
                what: "a line",
                size: (buf.len() - body) as u64,
                limit: limits.line as u64,
            }),
            None => Ok(None),
        },
        found => Err(RespError::Unexpected { at, expected: "a reply", found }),
    }
}

/// Finds where a reply ends, and remembers where it stopped inside one that is not complete.
#[derive(Debug, Clone, Default)]
pub struct ReplyScan {
    at: usize,
    /// Items still to come; meaningful once begun. However deep arrays nest, one number is enough to find the end.
    left: u64,
    begun: bool,
}

impl ReplyScan {
    /// The length of the reply at the front of `buf`, or `Err(n)` inside `Ok`: the buffer has to be at least `n` bytes
    /// long. When a length came, the scan is ready for the next reply at the front of a buffer.
    ///
    /// # Errors
    /// [`RespError`] when the bytes are no reply or a limit is passed.
    pub fn step(&mut self, buf: &[u8], limits: &Limits) -> Result<Result<usize, usize>, RespError> {
        if !self.begun {
            *self = ReplyScan { at: 0, left: 1, begun: true };
        }
        while self.left > 0 {
            let Some(it) = item(buf, self.at, limits)? else {
                return Ok(Err((buf.len() + 1).max(self.at.saturating_add((self.left as usize).saturating_mul(3)))));
            };
            if it.end > buf.len() {
                return Ok(Err(it.end.saturating_add((self.left as usize - 1).saturating_mul(3))));
            }
            let of = it.n.max(0) as u64;
            self.left = match it.marker {
                b'*' | b'~' | b'>' => self.left - 1 + of,
                b'%' => self.left - 1 + 2 * of,
                b'|' => self.left + 2 * of,
                _ => self.left - 1,
            };
            if self.left > u64::MAX >> 8 {
                return Err(RespError::Number { at: self.at });
            }
            self.at = it.end;
        }
        let len = self.at;
        *self = ReplyScan::default();
        Ok(Ok(len))
    }
}

/// The length of the reply at the front of `buf`; `Ok(Err(n))`: the buffer has to be at least `n` bytes long.
/// For one look; use [`ReplyScan`] or [`ReplyReader`] when a reply may come in many pieces.
///
/// # Errors
/// [`RespError`] when the bytes are no reply.
pub fn frame_len(buf: &[u8]) -> Result<Result<usize, usize>, RespError> {
    ReplyScan::default().step(buf, &Limits::default())
}

/// Takes bytes as they come, gives replies one by one.
#[derive(Debug, Default)]
pub struct ReplyReader {
    buf: BytesMut,
    scan: ReplyScan,
    limits: Limits,
    /// The reply that was given last still stands at the front.
    given: usize,
    needed: usize,
}

impl ReplyReader {
    pub fn new(limits: Limits) -> Self {
        ReplyReader { limits, ..Default::default() }
    }

    /// Where a socket's bytes go: append to it, take nothing away.
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.discard();
        &mut self.buf
    }

    /// The next complete reply; `None` when more bytes have to come first.
    ///
    /// # Errors
    /// [`RespError`]: the connection can't be used any more.
    pub fn next_reply(&mut self) -> Result<Option<Reply<'_>>, RespError> {
        self.discard();
        match self.scan.step(&self.buf, &self.limits)? {
            Ok(len) => {
                self.given = len;
                self.needed = 0;
                match parse_whole(&self.buf[..len]) {
                    Some(reply) => Ok(Some(reply)),
                    None => Err(RespError::Number { at: 0 }),
                }
            }
            Err(needed) => {
                self.needed = needed;
                Ok(None)
            }
        }
    }

    /// Skips replies at the front that are exactly these bytes, at most so many; gives how many they were.
    pub fn skip(&mut self, same: &[u8], most: usize) -> usize {
        self.discard();
        if self.scan.begun {
            return 0;
        }
        let n = self.buf.chunks_exact(same.len()).take(most).take_while(|reply| *reply == same).count();
        self.buf.advance(n * same.len());
        n
    }

    /// At least how many more bytes have to come before there can be a reply.
    pub fn missing(&self) -> usize {
        self.needed.saturating_sub(self.buf.len())
    }

    fn discard(&mut self) {
        if self.given > 0 {
            self.buf.advance(std::mem::take(&mut self.given));
        }
    }
}
