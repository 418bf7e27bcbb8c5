//! What goes over the control socket.

use crate::model::{
    Check, CheckId, CheckReport, ConflictRecord, Direction, EngineStatus, Event, HotKey, Instance, Job,
    status::{JobStatus, Sample},
};
use serde::{Deserialize, Serialize};

/// Raised when a frame of an older side would be misunderstood.
pub const PROTOCOL_VERSION: u32 = 1;

/// The longest frame either side accepts, in bytes.
pub const MAX_FRAME: usize = 16 << 20;

/// From client to engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    pub id: u64,
    pub request: Request,
}

/// From engine to client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    pub id: u64,
    /// No more answers to this id follow.
    pub last: bool,
    pub reply: Reply,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// The first of a connection. A read-only client's changing requests are refused.
    Hello { version: u32, readonly: bool },
    /// → `Status`.
    Status { job: Option<String> },
    /// The status again each time it may have changed, at most every `every_ms`, until `Cancel`. → `Status`…
    Watch { job: Option<String>, every_ms: u64 },
    /// Events with a higher `seq` than `after`, oldest first; with `follow`, also those to come. → `Event`… `Done`
    Events { job: Option<String>, after: u64, limit: usize, follow: bool },
    /// Runs the items (all, or `only`) of a job that need not be known. → `Check`… `Report`
    Precheck { job: Box<Job>, only: Option<Vec<CheckId>> },
    /// Precheck, then both links. Resumes a job of that name which is known. → `Check`… `Report`? `Started` | `Error`
    Start { job: Box<Job>, discard_previous: bool },
    /// The same for a job the engine knows.
    StartKnown { name: String },
    /// → `Done`
    Pause { name: String },
    /// One whose first start failed is started again, precheck included. → `Done`
    Resume { name: String },
    /// Ends the job and removes its control keys from both sides. → `Done`
    Stop { name: String },
    /// Forgets an ended job; with `abandon` any, whose control keys then stay in both instances. → `Done`
    Forget {
        name: String,
        #[serde(default)]
        abandon: bool,
    },
    /// Compares the two sides. → `Progress`… `Verified`
    Verify { name: String, repair: bool },
    /// Dials an instance and tells what is there (step 1 of the wizard). An account that it lacks is the one that the
    /// known job `of` holds for it. → `Probed` | `Error`
    Probe {
        instance: Box<Instance>,
        #[serde(default)]
        of: Option<String>,
    },
    /// Open and settled conflicts, newest first. → `Conflicts`
    Conflicts { name: String, limit: usize },
    /// The samples of both links. → `History`
    History { name: String },
    /// The job as it was started, without its secrets. → `Job`
    JobFile { name: String },
    /// Changes the limits of a running job. → `Done`
    SetLimits { name: String, max_ops_per_second: Option<u64>, max_bytes_per_second: Option<u64> },
    /// Ends a `Watch`, `Events` or `Verify` of this connection. → `Done`
    Cancel { id: u64 },
    /// Stops the engine; the jobs go on when it is started again. → `Done`
    Shutdown,
}

impl Request {
    /// Whether a read-only client may send it.
    pub fn is_readonly(&self) -> bool {
        matches!(
            self,
            Request::Hello { .. }
                | Request::Status { .. }
                | Request::Watch { .. }
                | Request::Events { .. }
                | Request::Conflicts { .. }
                | Request::History { .. }
                | Request::JobFile { .. }
                | Request::Cancel { .. }
        )
    }

    /// Whether `reply` is the last answer to this request.
    pub fn is_last(&self, reply: &Reply) -> bool {
        match (self, reply) {
            (_, Reply::Error { .. }) => true,
            (Request::Watch { .. }, reply) => matches!(reply, Reply::Done),
            (Request::Events { .. }, reply) => matches!(reply, Reply::Done),
            (Request::Precheck { .. }, reply) => matches!(reply, Reply::Report { .. }),
            (Request::Start { .. } | Request::StartKnown { .. }, reply) => matches!(reply, Reply::Started { .. }),
            (Request::Verify { .. }, reply) => matches!(reply, Reply::Verified { .. }),
            _ => true,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Hello { version: u32, engine_version: String, pid: u32 },
    Status { status: EngineStatus },
    Event { event: Event },
    Check { check: Check },
    Report { report: CheckReport },
    Started { job: Box<JobStatus> },
    Done,
    Progress { text: String, done: u64, total: Option<u64> },
    Verified { outcome: VerifyOutcome },
    Probed { probe: Probe },
    Conflicts { open: Vec<ConflictRecord>, settled: Vec<ConflictRecord>, hottest: Vec<HotKey> },
    History { links: Vec<LinkHistory> },
    Job { job: Box<Job> },
    Error { error: Failure },
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: FailureKind,
    /// What was tried and what was seen.
    pub message: String,
    /// What to do; may be empty.
    pub remedy: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Another protocol version at the other end.
    Version,
    /// The request makes no sense: no such job, a bad value.
    Usage,
    /// A check failed; the report came before.
    Precheck,
    /// A read-only client asked for a change.
    ReadOnly,
    /// Tried and failed.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkHistory {
    pub direction: Direction,
    /// One a second, the last 15 minutes, oldest first.
    pub seconds: Vec<Sample>,
    /// One each 30 seconds, the last 6 hours, oldest first.
    pub half_minutes: Vec<Sample>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyOutcome {
    pub version: u32,
    pub keys_compared: u64,
    pub equal: bool,
    pub differing: u64,
    pub missing_at_source: u64,
    pub missing_at_target: u64,
    pub repaired: u64,
    /// At most 100 of the keys that differ.
    pub examples: Vec<KeyDifference>,
    pub seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyDifference {
    pub db: u32,
    pub key: String,
    /// In words: `missing at target`, `value`, `type list / hash`, `expiry 1000 / none`.
    pub difference: String,
}

/// What an instance said of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    pub shards: Vec<ProbedShard>,
    pub topology: crate::model::Topology,
    /// Keys in each database that holds any.
    pub databases: Vec<(u32, u64)>,
    /// How many databases the server has; `None` where it does not say.
    pub database_count: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProbedShard {
    pub address: String,
    /// `Redis 7.0.15`, `Valkey 9.1.2`.
    pub version: String,
    pub role: String,
    /// The address from which the server sees us.
    pub seen_as: String,
    pub round_trip_us: u64,
}
