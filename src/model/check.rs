//! Precheck items and their results.

use super::Side;
use serde::{Deserialize, Serialize};

/// One item of the precheck. The word is stable: scripts and the console name items by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckId {
    Reachable,
    Credentials,
    Rights,
    Version,
    RdbCompatibility,
    Role,
    Topology,
    SameInstance,
    TargetEmpty,
    Databases,
    MaxmemoryPolicy,
    Memory,
    Backlog,
    OutputBuffer,
    Fork,
    SpoolDisk,
    Clock,
    Commands,
    ControlKeys,
    BigKeys,
}

impl CheckId {
    pub const ALL: [CheckId; 20] = [
        CheckId::Reachable,
        CheckId::Credentials,
        CheckId::Rights,
        CheckId::Version,
        CheckId::RdbCompatibility,
        CheckId::Role,
        CheckId::Topology,
        CheckId::SameInstance,
        CheckId::TargetEmpty,
        CheckId::Databases,
        CheckId::MaxmemoryPolicy,
        CheckId::Memory,
        CheckId::Backlog,
        CheckId::OutputBuffer,
        CheckId::Fork,
        CheckId::SpoolDisk,
        CheckId::Clock,
        CheckId::Commands,
        CheckId::ControlKeys,
        CheckId::BigKeys,
    ];

    /// The word in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckId::Reachable => "reachable",
            CheckId::Credentials => "credentials",
            CheckId::Rights => "rights",
            CheckId::Version => "version",
            CheckId::RdbCompatibility => "rdb_compatibility",
            CheckId::Role => "role",
            CheckId::Topology => "topology",
            CheckId::SameInstance => "same_instance",
            CheckId::TargetEmpty => "target_empty",
            CheckId::Databases => "databases",
            CheckId::MaxmemoryPolicy => "maxmemory_policy",
            CheckId::Memory => "memory",
            CheckId::Backlog => "backlog",
            CheckId::OutputBuffer => "output_buffer",
            CheckId::Fork => "fork",
            CheckId::SpoolDisk => "spool_disk",
            CheckId::Clock => "clock",
            CheckId::Commands => "commands",
            CheckId::ControlKeys => "control_keys",
            CheckId::BigKeys => "big_keys",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    Pending,
    Running,
    Passed,
    Warning,
    Failed,
    /// Not done, since an item it needs failed.
    Skipped,
}

/// One item with its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub id: CheckId,
    pub state: CheckState,
    /// The side that the finding is about, where it is about one.
    pub side: Option<Side>,
    /// What was seen: always filled once the item has run.
    pub seen: String,
    /// Why it matters; filled when the state is warning, failed or skipped.
    pub why: String,
    /// What to do; filled when the state is warning or failed.
    pub remedy: String,
    /// Milliseconds the item took.
    pub took_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    pub version: u32,
    pub job: String,
    /// Whether the job may start: no item failed.
    pub passed: bool,
    pub items: Vec<Check>,
}
