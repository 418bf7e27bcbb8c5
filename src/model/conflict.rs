//! A settled or open conflict, as the operator sees it. A hash and a size stand for values, unless
//! the job's `show_values` asks for them.

use super::Side;
use serde::{Deserialize, Serialize};

/// What opens a conflict, in a word each.
pub const CAUSES: [&str; 11] = [
    "concurrent_write",
    "write_beats_delete",
    "several_keys",
    "spread",
    "apply_error",
    "expiry",
    "recovery",
    "snapshot",
    "merge",
    "untranslatable",
    "repair",
];

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConflictRecord {
    /// Unique within the job.
    pub number: u64,
    pub db: u32,
    /// Lossy UTF-8, at most 256 bytes.
    pub key: String,
    /// The side whose order of the changes stands.
    pub authority: Side,
    /// What opened it: one of [`CAUSES`].
    pub cause: String,
    /// The change at the source side, where one is known.
    pub source_change: Option<ConflictChange>,
    pub target_change: Option<ConflictChange>,
    /// Milliseconds since the Unix epoch.
    pub opened_ms: u64,
    /// `None` while it is open.
    pub settled_ms: Option<u64>,
    pub rounds: u32,
    /// The value that was carried last; `None` before that, and where there was no key.
    #[serde(default)]
    pub value: Option<Box<ConflictValue>>,
}

/// A value without its content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConflictValue {
    /// Bytes, as DUMP gives it.
    pub size: u64,
    /// The CRC-64 of DUMP, in hex: equal values of one server's version have equal ones.
    pub hash: String,
    /// The first of its content, where the job's `show_values` asks for it: at most 256 characters of a value of at most
    /// 64 KiB. A string as it is, anything else as the commands that make it.
    #[serde(default)]
    pub text: Option<String>,
}

/// One of the two changes that met.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConflictChange {
    /// The command's name, such as `SET`; `snapshot` for a key of a first copy; where the command is not known (after a
    /// crash, of a module) the class of the change: `write`, `INCR`.
    pub command: String,
    /// Bytes of the whole command, where known: of the change that revealed the conflict.
    pub size: Option<u64>,
    /// When the change was made, corrected by the site's round trip; milliseconds since the Unix epoch.
    pub at_ms: Option<u64>,
    /// The command with its arguments, at most 256 characters, where the job's `show_values` asks for it and this change
    /// revealed the conflict.
    #[serde(default)]
    pub text: Option<String>,
}

/// A key that conflicts again and again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HotKey {
    pub db: u32,
    pub key: String,
    pub conflicts: u64,
    pub rounds: u64,
}
