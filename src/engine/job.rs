//! Two links as one job.

use super::events::EventSink;
use crate::model::{ConflictRecord, HotKey, Job, JobId, JobStatus};
use std::path::PathBuf;

/// What a job needs to run.
#[derive(Clone)]
pub struct JobContext {
    pub job: Job,
    pub id: JobId,
    /// The job's own folder for spool segments, mode 0700; emptied at the start.
    pub spool_dir: PathBuf,
    pub events: EventSink,
}

/// Why a job could not be started or was given up.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct JobError {
    pub what: String,
    pub remedy: String,
}

/// A job whose links run in tasks of this process. Dropping it ends them where they are; nothing is lost, since all
/// positions live in the control keys.
pub struct RunningJob {}

impl RunningJob {
    /// Starts both links; returns when both streams are attached (the first copy may go on for hours). Resumes from
    /// the control keys where the instances hold some of this job's id.
    pub async fn start(_context: JobContext) -> Result<RunningJob, JobError> {
        Err(JobError { what: "not built".into(), remedy: String::new() })
    }

    /// How it is now. Cheap: called several times a second.
    pub fn status(&self) -> JobStatus {
        unimplemented!()
    }

    /// Open conflicts, settled ones (newest first, at most `limit`), hottest keys.
    pub fn conflicts(&self, _limit: usize) -> (Vec<ConflictRecord>, Vec<ConflictRecord>, Vec<HotKey>) {
        unimplemented!()
    }

    /// Settles keys by state transfer as if they were in conflict (`verify --repair`); the source's value stands.
    pub async fn repair(&self, _keys: Vec<(u32, Vec<u8>)>) {}

    /// Changes the rate limits of the running links; 0 is no limit.
    pub fn set_limits(&self, _max_ops_per_second: u64, _max_bytes_per_second: u64) {}

    /// Lets what is under way finish (at most a few seconds), then ends the links. Control keys stay.
    pub async fn halt(self) {}

    /// Removes the control keys of a job from both sides. Works for a job that does not run.
    pub async fn remove_control_keys(_job: &Job, _id: &JobId) -> Result<(), JobError> {
        Ok(())
    }
}
