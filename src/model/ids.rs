//! Identifiers and positions, each a type of its own so that none is taken for another.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// One direction of a job. `Forward` copies from the job's source to its target, `Reverse` the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Forward,
    Reverse,
}

impl Direction {
    pub const BOTH: [Direction; 2] = [Direction::Forward, Direction::Reverse];

    /// The other direction.
    pub fn other(self) -> Self {
        match self {
            Direction::Forward => Direction::Reverse,
            Direction::Reverse => Direction::Forward,
        }
    }

    /// The side of the job that this direction reads from.
    pub fn from(self) -> Side {
        match self {
            Direction::Forward => Side::Source,
            Direction::Reverse => Side::Target,
        }
    }

    /// The side of the job that this direction writes to.
    pub fn to(self) -> Side {
        self.from().other()
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Forward => "forward",
            Direction::Reverse => "reverse",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One of the two instances of a job, as the job file names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Source,
    Target,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::Source, Side::Target];

    /// The other side.
    pub fn other(self) -> Self {
        match self {
            Side::Source => Side::Target,
            Side::Target => Side::Source,
        }
    }

    /// The direction whose stream is read from this side.
    pub fn outgoing(self) -> Direction {
        match self {
            Side::Source => Direction::Forward,
            Side::Target => Direction::Reverse,
        }
    }

    /// The direction that writes to this side.
    pub fn incoming(self) -> Direction {
        self.outgoing().other()
    }

    /// 0 for the source, 1 for the target: an index for pairs.
    pub fn index(self) -> usize {
        self as usize
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Target => "target",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A logical database of an instance (`SELECT n`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Db(pub u32);

impl fmt::Display for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "db{}", self.0)
    }
}

/// A position in a shard's replication stream: the number of bytes that lie before it, in the server's own counting
/// (`master_repl_offset`). A stream is resumed with `PSYNC replid offset+1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// This position moved on by `bytes`.
    pub fn plus(self, bytes: u64) -> Self {
        Offset(self.0 + bytes)
    }

    /// Bytes from `earlier` to here; 0 if `earlier` is later.
    pub fn since(self, earlier: Offset) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The 40 hex characters that name a replication history (`master_replid`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplId([u8; 40]);

/// Why a text is not a replication id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a replication id is 40 hexadecimal characters, not {0:?}")]
pub struct BadReplId(pub String);

impl ReplId {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("?")
    }
}

impl FromStr for ReplId {
    type Err = BadReplId;
    fn from_str(s: &str) -> Result<Self, BadReplId> {
        match <[u8; 40]>::try_from(s.as_bytes()) {
            Ok(id) if id.iter().all(u8::is_ascii_hexdigit) => Ok(ReplId(id)),
            _ => Err(BadReplId(s.chars().take(64).collect())),
        }
    }
}

impl fmt::Display for ReplId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ReplId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ReplId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ReplId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Names a job for ever, also in its control keys: 12 lower-case hex characters, drawn when the job is first started.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub String);

impl JobId {
    /// The prefix of every key that this product adds to an instance.
    pub const KEY_PREFIX: &'static str = "duplex:";

    /// A new id from 48 random bits.
    pub fn draw() -> Self {
        JobId(format!("{:012x}", fastrand::u64(..) >> 16))
    }

    /// The control key that `direction` writes at the instance it writes to.
    pub fn control_key(&self, direction: Direction) -> String {
        format!("{}{}:{}", Self::KEY_PREFIX, self.0, direction)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
