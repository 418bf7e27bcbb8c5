//! What can go wrong between a client and its engine.

use crate::control::protocol::{Failure, FailureKind};
use crate::model::ExitCode;
use std::{path::PathBuf, time::Duration};

/// What was tried and what was seen; [`ClientError::remedy`] says what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClientError {
    #[error("no engine runs (nothing answers on {})", path.display())]
    NoEngine { path: PathBuf },
    #[error("can't reach the engine on {}: {reason}", path.display())]
    Connect { path: PathBuf, reason: String },
    #[error("{message}")]
    Version { message: String, remedy: String },
    #[error("the engine has ended or closed the connection")]
    Lost,
    #[error("tried to {what}, and nothing came for {} s", after.as_secs())]
    Timeout { what: &'static str, after: Duration },
    #[error("the engine's answer makes no sense: {0}")]
    Garbled(String),
    /// The engine did not do it, and says why.
    #[error("{}", .0.message)]
    Refused(Failure),
}

impl ClientError {
    /// What to do about it; may be empty.
    pub fn remedy(&self) -> String {
        match self {
            ClientError::NoEngine { .. } => {
                "start one with `duplex engine`, or start a job: `duplex start JOB.toml`".into()
            }
            ClientError::Connect { .. } => "see `duplex doctor` for the places this session uses".into(),
            ClientError::Version { remedy, .. } => remedy.clone(),
            ClientError::Lost => "look into the engine's log (`duplex doctor` says where it is), then try again".into(),
            ClientError::Timeout { .. } => {
                "look whether the engine is busy or stopped: `duplex doctor`, then its log".into()
            }
            ClientError::Garbled(_) => "use the client and the engine of one version".into(),
            ClientError::Refused(failure) => failure.remedy.clone(),
        }
    }

    /// The exit code of a command that ends with this error.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            ClientError::NoEngine { .. } | ClientError::Connect { .. } | ClientError::Version { .. } => {
                ExitCode::NoEngine
            }
            ClientError::Refused(failure) => match failure.kind {
                FailureKind::Version => ExitCode::NoEngine,
                FailureKind::Usage | FailureKind::ReadOnly => ExitCode::Usage,
                FailureKind::Precheck => ExitCode::PrecheckFailed,
                FailureKind::Failed => ExitCode::Failed,
            },
            ClientError::Lost | ClientError::Timeout { .. } | ClientError::Garbled(_) => ExitCode::Failed,
        }
    }

    /// The failure as the protocol words it, for a screen that shows only those.
    pub fn to_failure(&self) -> Failure {
        match self {
            ClientError::Refused(failure) => failure.clone(),
            other => Failure {
                kind: match other {
                    ClientError::Version { .. } => FailureKind::Version,
                    _ => FailureKind::Failed,
                },
                message: other.to_string(),
                remedy: other.remedy(),
            },
        }
    }
}
