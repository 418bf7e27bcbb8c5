//! The vocabulary: what a job, a link, an event and a check are. Serde only; no I/O, nothing of ours imported.
//!
//! Everything that crosses a boundary (job file, control socket, `--json`, history file) is made of these types,
//! so that a script, the console and the engine speak of the same things by the same names.

pub mod check;
pub mod code;
pub mod conflict;
pub mod event;
pub mod ids;
pub mod job;
pub mod secret;
pub mod status;

pub use check::{Check, CheckId, CheckReport, CheckState};
pub use code::ExitCode;
pub use conflict::{ConflictRecord, HotKey};
pub use event::{Event, EventKind, Severity};
pub use ids::{Db, Direction, JobId, Offset, ReplId, Side};
pub use job::{Databases, ExistingKeys, Instance, Job, Limits, Policy, Topology};
pub use secret::{Account, AccountSource};
pub use status::{EngineStatus, JobState, JobStatus, LinkState, LinkStatus, ShardStatus, SnapshotStatus};
