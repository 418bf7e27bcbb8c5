//! RESP: decoding frames in place, encoding commands.
//!
//! Owns the two shapes in which bytes cross a Redis connection: commands ([`CommandScan`]: arrays of bulk strings,
//! inline lines, bare newlines) and replies ([`ReplyScan`], [`Reply`]: RESP2 and RESP3). Nothing is copied and nothing
//! is allocated per frame; an argument is a range into the caller's buffer.
//!
//! Invariants: a scan never looks at a byte twice, also when a frame comes in many pieces; what it says is needed is a
//! true lower bound, so that waiting for it can't hang; no length is trusted before it is checked against [`Limits`].
//!
//! The format: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

mod encode;
mod reply;
mod scan;

pub use encode::{encode, encode_header, encode_part, encode_part_int, encoded_len};
pub use reply::{Elements, Pairs, Reply, ReplyReader, ReplyScan, frame_len};
pub use scan::{CommandScan, Step};

/// What a decoder accepts. Beyond it, the bytes are taken to be no RESP at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest bulk string, in bytes. Redis's own default of `proto-max-bulk-len` is 512 MiB.
    pub bulk: usize,
    /// The most arguments of a command. Redis takes `INT_MAX` from an authenticated client, so a stream may carry it.
    pub args: usize,
    /// The longest inline command or reply line, in bytes; Redis's `PROTO_INLINE_MAX_SIZE` is 64 KiB.
    pub line: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bulk: 512 << 20, args: i32::MAX as usize, line: 64 << 10 }
    }
}

/// Bytes that are no RESP. A connection can't be used after it: where the next frame begins is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RespError {
    #[error("read a RESP frame at byte {at}: expected {expected}, found byte 0x{found:02x}; is this a Redis server?")]
    Unexpected { at: usize, expected: &'static str, found: u8 },
    #[error("read a RESP frame at byte {at}: the number is too long or no number; is this a Redis server?")]
    Number { at: usize },
    #[error(
        "read a RESP frame at byte {at}: {what} of {size}, the limit is {limit}; raise the limit if the data is real"
    )]
    TooLarge { at: usize, what: &'static str, size: u64, limit: u64 },
    #[error("read an inline command at byte {at}: quoted arguments never stand in a replication stream")]
    Quoted { at: usize },
}

/// A length or count line, `<digits>\r\n`, at `at` (behind the type byte). `None` when it is not all there yet.
/// `-1` is the only negative number that Redis writes here.
#[inline]
fn count(buf: &[u8], at: usize) -> Result<Option<(i64, usize)>, RespError> {
    // 20 bytes hold every i64 with its sign; a longer run of digits is no length
    const LONGEST: usize = 20;
    let mut i = at;
    let mut value: i64 = 0;
    let negative = buf.get(i) == Some(&b'-');
    if negative {
        i += 1;
    }
    let first = i;
    loop {
        match buf.get(i) {
            Some(b @ b'0'..=b'9') => {
                value = value
                    .checked_mul(10)
                    .and_then(|v| v.checked_add(i64::from(b - b'0')))
                    .ok_or(RespError::Number { at })?;
                i += 1;
                if i - at > LONGEST {
                    return Err(RespError::Number { at });
                }
            }
            Some(b'\r') if i > first => {
                return match buf.get(i + 1) {
                    Some(b'\n') => Ok(Some((if negative { -value } else { value }, i + 2))),
                    Some(&found) => Err(RespError::Unexpected { at: i + 1, expected: "a line feed", found }),
                    None => Ok(None),
                };
            }
            Some(&found) => return Err(RespError::Unexpected { at: i, expected: "a digit", found }),
            None => return Ok(None),
        }
    }
}
