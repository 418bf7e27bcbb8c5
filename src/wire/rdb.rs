//! RDB: a snapshot as a stream of keys, and single values in and out of DUMP payloads.
//!
//! - [`Reader`] walks an RDB stream in chunks of any size and hands out each key with its value as it stands, without
//!   decoding it: that is what `RESTORE` takes. Values above a threshold come in parts.
//! - [`payload`] builds and opens DUMP payloads.
//! - [`decode`] turns a value (or its parts) into elements, [`commands`] turns elements into commands, for targets that
//!   do not know the value's type byte, and for values too big for one `RESTORE`.
//!
//! The format is that of `rdb.h`/`rdb.c` of Redis 2.6 to 8.6 (RDB 1 to 13) and Valkey 9 (RDB 80). All lengths in it
//! are claims: nothing is allocated for a length before the bytes have arrived, and each assembled value has a cap.
//! Every error names the offset in the stream, what was expected there and what was seen.

pub mod commands;
pub mod decode;
mod grammar;
pub mod kind;
mod listpack;
pub mod payload;
mod reader;
mod stream;
pub mod vectorset;
mod walk;
mod ziplist;

use crate::wire::lzf;
use bytes::Bytes;
use thiserror::Error;

pub use reader::Reader;
pub use stream::StreamId;

/// Which line of servers wrote a stream or payload: they give type byte 22 and opcode 243 different meanings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `REDIS` magic; Redis, Redict, KeyDB and Valkey up to 8.
    Redis,
    /// `VALKEY` magic, RDB 80 and later.
    Valkey,
}

/// How much of a stream is held in memory. Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Values above this come in parts, where their encoding has parts. 1 MiB: a `RESTORE` of that size holds up the
    /// target for a few milliseconds, and nine in ten real keys are far below.
    pub big: usize,
    /// A part ends at the first boundary after this many bytes.
    pub part: usize,
    /// No key, value without parts, or single element may be longer. 512 MiB is what a server takes in one command
    /// (`proto-max-bulk-len`).
    pub value: usize,
    /// Compare the checksum at the end with that of the bytes.
    pub checksum: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { big: 1 << 20, part: 256 << 10, value: 512 << 20, checksum: true }
    }
}

/// A key as it stands in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry {
    pub db: u32,
    pub key: Bytes,
    /// The type byte, see [`kind`].
    pub kind: u8,
    /// The value as it stands, without the type byte. Empty in [`Item::BigBegin`].
    pub value: Bytes,
    /// Milliseconds since 1970.
    pub expire_ms: Option<u64>,
    /// Seconds since it was last used (under an LRU policy).
    pub idle: Option<u64>,
    /// LFU counter (under an LFU policy).
    pub freq: Option<u8>,
}

impl KeyEntry {
    /// The text of a string of at most so many bytes, as it stands, or from a number or unpacked into `room`. `None` for
    /// any other value, and where the text can't be had.
    pub fn text<'a>(&'a self, most: usize, room: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        if self.kind != kind::STRING {
            return None;
        }
        match walk::text(&self.value, &mut 0, most).ok()? {
            walk::Text::Plain(range) => return self.value.get(range),
            walk::Text::Int(n) => {
                room.clear();
                room.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
            }
            walk::Text::Lzf(range, size) => lzf::decompress_into(self.value.get(range)?, size, room).ok()?,
        }
        Some(room)
    }
}

/// What a stream consists of, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Aux {
        key: Bytes,
        value: Bytes,
    },
    /// The keys that follow are in this database.
    Db(u32),
    /// How many keys the selected database has; a hint, and 0 in some versions.
    Resize {
        keys: u64,
        expires: u64,
    },
    /// A function library's source, as `FUNCTION LOAD` takes it (Redis 7.0 and later).
    Function(Bytes),
    /// What a module saved beside its keys: raw.
    ModuleAux(Bytes),
    /// Module metadata of the key that follows (Redis 8.6): raw. It stands before the type byte in a DUMP payload.
    KeyMeta(Bytes),
    /// A slot that was being imported when the snapshot was made (Valkey 9): raw.
    SlotImport(Bytes),
    Key(KeyEntry),
    /// A key whose value follows in parts. A caller loads it under its final name only if that is what it wants:
    /// the value is not complete before `BigEnd`.
    BigBegin(KeyEntry),
    /// A piece of the value: for a string its plain bytes, else a run of the encoding, for [`decode::Decoder::feed`].
    BigPart(Bytes),
    BigEnd,
    /// The end of the snapshot. `None` where there was nothing to compare: the writer or the caller switched it off.
    End {
        checksum_ok: Option<bool>,
    },
}

/// Why a stream or a value cannot be read. `offset` counts from the first byte of what was read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RdbError {
    #[error("RDB byte {offset}: expected {expected}, saw {seen:#x}")]
    Unexpected { offset: u64, expected: &'static str, seen: u64 },
    #[error("RDB byte {offset}: {what} of {bytes} bytes is over the cap of {cap}; raise the cap if it is real")]
    TooBig { offset: u64, what: &'static str, bytes: u64, cap: u64 },
    #[error("RDB byte {offset}: type byte {kind} is not known; the source is newer than this program")]
    UnknownType { offset: u64, kind: u8 },
    #[error("RDB byte {offset}: opcode {opcode} is not known; the source is newer than this program")]
    UnknownOpcode { offset: u64, opcode: u8 },
    #[error("RDB byte {offset}: damaged compression: {cause}")]
    Lzf { offset: u64, cause: super::lzf::LzfError },
    #[error("RDB value ends at byte {offset}, inside {expected}")]
    Short { offset: u64, expected: &'static str },
    #[error("a value of type {kind} (a module's, or of an unknown encoding) cannot be taken apart")]
    Opaque { kind: u8 },
    #[error("DUMP payload of {bytes} bytes: {what}")]
    Payload { bytes: usize, what: &'static str },
}

impl RdbError {
    /// The same error in something that begins `base` bytes later.
    fn shifted(mut self, base: u64) -> Self {
        match &mut self {
            RdbError::Unexpected { offset, .. }
            | RdbError::TooBig { offset, .. }
            | RdbError::UnknownType { offset, .. }
            | RdbError::UnknownOpcode { offset, .. }
            | RdbError::Lzf { offset, .. }
            | RdbError::Short { offset, .. } => *offset = offset.saturating_add(base),
            RdbError::Opaque { .. } | RdbError::Payload { .. } => {}
        }
        self
    }
}
