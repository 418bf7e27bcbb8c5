//! What is running and how it is: `status --json`, the job list and the dashboard are drawn from these.
//! What is not known is `None`, never 0.

use super::{Direction, HotKey, JobId};
use serde::{Deserialize, Serialize};

/// The version of this shape; it grows only when a field changes its meaning.
pub const STATUS_VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineStatus {
    pub version: u32,
    /// The process that holds the links.
    pub engine_pid: u32,
    pub jobs: Vec<JobStatus>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobStatus {
    pub name: String,
    pub id: JobId,
    pub state: JobState,
    /// In plain words, where `state` needs some.
    #[serde(default)]
    pub reason: Option<String>,
    /// Seconds since the job was last started or resumed.
    #[serde(default)]
    pub uptime_seconds: Option<u64>,
    /// How the screens call the two instances.
    #[serde(default)]
    pub source: String,
    #[serde(default)]
    pub target: String,
    #[serde(default)]
    pub two_way: bool,
    #[serde(default)]
    pub conflicts_open: u64,
    /// Settled since the job was last started or resumed, and how many rounds that took.
    #[serde(default)]
    pub conflicts_settled: u64,
    #[serde(default)]
    pub conflict_rounds: u64,
    /// The keys that have been in conflict most often since then, five at most.
    #[serde(default)]
    pub hot_keys: Vec<HotKey>,
    pub links: Vec<LinkStatus>,
    /// What an operator should see to now, most urgent first.
    #[serde(default)]
    pub alerts: Vec<Alert>,
}

/// A job's state is its less healthy link's.
pub type JobState = LinkState;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    NotConfigured,
    Prechecking,
    PrecheckFailed,
    Initializing,
    CatchingUp,
    Synchronizing,
    Lagging,
    Reconnecting,
    Paused,
    Failed,
    Ended,
}

impl LinkState {
    pub const ALL: [LinkState; 11] = [
        LinkState::NotConfigured,
        LinkState::Prechecking,
        LinkState::PrecheckFailed,
        LinkState::Initializing,
        LinkState::CatchingUp,
        LinkState::Synchronizing,
        LinkState::Lagging,
        LinkState::Reconnecting,
        LinkState::Paused,
        LinkState::Failed,
        LinkState::Ended,
    ];

    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            LinkState::NotConfigured => "not_configured",
            LinkState::Prechecking => "prechecking",
            LinkState::PrecheckFailed => "precheck_failed",
            LinkState::Initializing => "initializing",
            LinkState::CatchingUp => "catching_up",
            LinkState::Synchronizing => "synchronizing",
            LinkState::Lagging => "lagging",
            LinkState::Reconnecting => "reconnecting",
            LinkState::Paused => "paused",
            LinkState::Failed => "failed",
            LinkState::Ended => "ended",
        }
    }

    /// Whether `status` should exit with 4.
    pub fn is_unhealthy(self) -> bool {
        matches!(self, LinkState::PrecheckFailed | LinkState::Lagging | LinkState::Reconnecting | LinkState::Failed)
    }

    /// How urgently this state wants a person: the job's state is its links' highest.
    pub fn urgency(self) -> u8 {
        match self {
            LinkState::Failed => 10,
            LinkState::PrecheckFailed => 9,
            LinkState::Reconnecting => 8,
            LinkState::Lagging => 7,
            LinkState::Initializing => 6,
            LinkState::Prechecking => 5,
            LinkState::CatchingUp => 4,
            LinkState::Paused => 3,
            LinkState::Synchronizing => 2,
            LinkState::Ended => 1,
            LinkState::NotConfigured => 0,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    pub direction: Direction,
    pub state: LinkState,
    /// Why, in plain words, where the state needs some.
    pub reason: Option<String>,
    pub snapshot: Option<SnapshotStatus>,
    /// Age of the oldest change read from the stream and not yet acknowledged by the other site.
    pub lag_ms: Option<u64>,
    pub lag_bytes: Option<u64>,
    pub changes_per_second: Option<f64>,
    pub bytes_per_second: Option<u64>,
    pub changes_applied: u64,
    pub echoes_dropped: u64,
    pub conflicts_settled: u64,
    pub conflict_rounds: u64,
    #[serde(default)]
    pub conflicts_open: u64,
    pub apply_errors: u64,
    /// How long the link can be away before its position is lost, at the present write rate.
    pub resume_window_seconds: Option<u64>,
    #[serde(default)]
    pub backlog_bytes: Option<u64>,
    pub spool_bytes: u64,
    /// The spool's bounds are reached: nothing more is read from the source.
    #[serde(default)]
    pub spool_full: bool,
    #[serde(default)]
    pub in_flight: u64,
    #[serde(default)]
    pub reconnects: u64,
    pub shards: Vec<ShardStatus>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    pub keys_done: u64,
    pub keys_total: Option<u64>,
    pub bytes_done: u64,
    pub bytes_total: Option<u64>,
    /// Seconds left at the present rate.
    #[serde(default)]
    pub seconds_left: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardStatus {
    pub address: String,
    pub replid: Option<String>,
    pub offset_received: Option<u64>,
    pub offset_applied: Option<u64>,
    #[serde(default)]
    pub state: Option<LinkState>,
    #[serde(default)]
    pub lag_ms: Option<u64>,
    /// `first-last,...` in a cluster.
    #[serde(default)]
    pub slots: Option<String>,
}

/// A rule over the live state that holds now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Stable name of the rule, such as `resume_window_short`.
    pub rule: String,
    pub direction: Option<Direction>,
    pub severity: super::Severity,
    /// What is so, in plain English.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

/// One point of a link's history. The engine keeps one a second for 15 minutes and one each 30 s for 6 hours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since the Unix epoch.
    pub at: u64,
    /// The highest lag in the interval, in milliseconds; `None` is unknown.
    pub lag_ms: Option<u32>,
    pub changes_per_second: f32,
    pub bytes_per_second: f32,
}
