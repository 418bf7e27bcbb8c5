//! What happened, as facts with a time: the event log of a job.

use super::{ConflictRecord, Direction};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Grows by one with each event of the engine; a reader continues from the last it saw.
    pub seq: u64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    pub job: String,
    pub direction: Option<Direction>,
    pub severity: Severity,
    pub kind: EventKind,
    /// In plain English.
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<Box<ConflictRecord>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Warning,
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    JobStarted,
    JobPaused,
    JobResumed,
    JobStopped,
    StateChanged,
    SnapshotStarted,
    SnapshotFinished,
    Connected,
    Disconnected,
    Resumed,
    FullResync,
    Failover,
    ConflictDetected,
    ConflictSettled,
    ApplyError,
    TargetRefuses,
    FlushSeen,
    SpoolFull,
    AlertRaised,
    AlertCleared,
    VerifyFinished,
    Failed,
}
