//! Compares the two sides of a job.

use super::job::JobError;
use crate::model::{Job, JobId};
use tokio::sync::mpsc;

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    pub keys_compared: u64,
    pub missing_at_source: u64,
    pub missing_at_target: u64,
    pub differences: Vec<Difference>,
}

/// One key that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub db: u32,
    pub key: Vec<u8>,
    pub what: String,
}

/// Compares; `progress` takes keys done and keys in all.
pub async fn verify(_job: &Job, _id: &JobId, _progress: mpsc::Sender<(u64, u64)>) -> Result<Outcome, JobError> {
    Err(JobError { what: "not built".into(), remedy: String::new() })
}
