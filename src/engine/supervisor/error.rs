//! Why an operation on a job was not done.

use crate::{engine::job::JobError, model::CheckReport};
use std::{io, path::PathBuf};

/// What was tried and what was seen; [`EngineError::remedy`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("no job is called {name:?}")]
    NoSuchJob { name: String, known: Vec<String> },
    /// The request does not fit the state of things.
    #[error("{what}")]
    Usage { what: String, remedy: String },
    #[error("the precheck failed: {}", failed_items(.0))]
    Precheck(Box<CheckReport>),
    #[error("{}", .0.what)]
    Job(#[from] JobError),
    #[error("can't {what} ({}): {error}", path.display())]
    State { what: &'static str, path: PathBuf, error: io::Error },
    /// A pause, a stop or the end of the engine came in between.
    #[error("broken off, since the job was paused or stopped meanwhile")]
    BrokenOff,
}

impl EngineError {
    /// From a sentence of the form `what was seen; what to do`.
    pub(super) fn from_words(text: &str) -> EngineError {
        let (what, remedy) = text.rsplit_once("; ").unwrap_or((text, ""));
        EngineError::Job(JobError::lasting(what, remedy))
    }

    /// What to do about it; may be empty.
    pub fn remedy(&self) -> String {
        match self {
            EngineError::NoSuchJob { known, .. } if known.is_empty() => {
                "the engine knows no job yet; start one with `duplex start JOB.toml`".into()
            }
            EngineError::NoSuchJob { known, .. } => format!("it knows: {}", known.join(", ")),
            EngineError::Usage { remedy, .. } => remedy.clone(),
            EngineError::Precheck(_) => "mend what the items say, then start again".into(),
            EngineError::Job(error) => error.remedy.clone(),
            EngineError::State { path, .. } => format!("see to the rights and the free space of {}", path.display()),
            EngineError::BrokenOff => String::new(),
        }
    }
}

/// The failed items of a report, in words.
pub(super) fn failed_items(report: &CheckReport) -> String {
    let failed: Vec<&str> =
        report.items.iter().filter(|i| i.state == crate::model::CheckState::Failed).map(|i| i.id.as_str()).collect();
    match failed.as_slice() {
        [] => "an item did not pass".into(),
        items => items.join(", "),
    }
}
