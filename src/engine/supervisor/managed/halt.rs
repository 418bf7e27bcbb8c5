//! A job is paused, ended, forgotten: its links are halted first.

use super::{Managed, history_file};
use crate::{
    engine::{
        job::RunningJob,
        supervisor::{EngineError, record::Wanted},
    },
    model::{EventKind, JobId, LinkState, Severity},
};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// What is under way may take this long to finish when links are halted; then they end where they are.
const HALT_DEADLINE: Duration = Duration::from_secs(15);

impl Managed {
    pub(in crate::engine::supervisor) async fn pause(&self) -> Result<(), EngineError> {
        let starting = self.operation.try_lock().is_err();
        self.state().break_off.cancel();
        let _one = self.operation.lock().await;
        let record = self.state().record.clone();
        if starting && !record.begun {
            // It was in its first precheck, which is broken off.
            return Ok(());
        }
        if record.wanted == Wanted::Ended || !record.begun {
            let what = format!("{} has {}", record.job.name, if record.begun { "ended" } else { "not been started" });
            return Err(EngineError::Usage { what, remedy: "there is nothing to pause".into() });
        }
        self.save(|record| (record.wanted, record.failure) = (Wanted::Paused, None))?;
        let ran = self.halt().await;
        self.set_idle(LinkState::Paused, None);
        if ran {
            self.events.info(None, EventKind::JobPaused, "both links are halted; their positions are kept");
        }
        Ok(())
    }

    pub(in crate::engine::supervisor) async fn stop(&self) -> Result<(), EngineError> {
        self.state().break_off.cancel();
        let _one = self.operation.lock().await;
        let record = self.state().record.clone();
        self.halt().await;
        if record.begun && record.wanted != Wanted::Ended {
            self.has_accounts()?;
            self.save(|record| record.wanted = Wanted::Paused)?;
            self.set_idle(LinkState::Paused, None);
            if let Err(error) = RunningJob::remove_control_keys(&record.job, &record.id).await {
                let reason = format!("halted, but its control keys are still there: {}", error.what);
                self.set_idle(LinkState::Failed, Some(reason.clone()));
                self.events.emit(None, Severity::Error, EventKind::Failed, reason);
                return Err(error.into());
            }
            self.events.info(None, EventKind::JobStopped, "ended; its control keys are gone from both sides");
        }
        self.save(|record| (record.wanted, record.failure) = (Wanted::Ended, None))?;
        _ = std::fs::remove_dir_all(self.inner.paths.spool(&record.id));
        self.set_idle(LinkState::Ended, None);
        Ok(())
    }

    /// `abandon`: also where its control keys could not be removed, since an instance is gone for good.
    pub(in crate::engine::supervisor) async fn forget(&self, abandon: bool) -> Result<(), EngineError> {
        if abandon {
            self.state().break_off.cancel();
        }
        let _one = self.operation.lock().await;
        let record = self.state().record.clone();
        if abandon {
            self.halt().await;
        } else if record.begun && record.wanted != Wanted::Ended {
            let name = &record.job.name;
            let what = format!("{name} has not ended: its control keys are still in both instances");
            return Err(EngineError::Usage {
                what,
                remedy: format!(
                    "`duplex stop {name}` first; where an instance is gone for good, `duplex forget {name} --abandon`"
                ),
            });
        }
        self.remove_files(&record.id);
        self.inner.records.remove(&record.id).map_err(|error| EngineError::State {
            what: "remove the job's record",
            path: self.inner.paths.state.clone(),
            error,
        })
    }

    pub(super) fn remove_files(&self, id: &JobId) {
        _ = std::fs::remove_dir_all(self.inner.paths.spool(id));
        _ = std::fs::remove_file(history_file(&self.inner, id));
    }

    /// Halts the links; says whether they ran.
    pub(super) async fn halt(&self) -> bool {
        let running = {
            let mut state = self.state();
            state.verifying.cancel();
            state.since = None;
            state.running.take()
        };
        let Some(running) = running else { return false };
        let last = running.status();
        match Arc::try_unwrap(running) {
            Ok(running) => {
                if timeout(HALT_DEADLINE, running.halt()).await.is_err() {
                    tracing::warn!(job = self.name(), "the links did not finish in time; ended where they were");
                }
            }
            // Somebody looks at it this moment: it ends when they let go, where it is, which is safe.
            Err(_) => tracing::debug!(job = self.name(), "the links are in use; they end at once"),
        }
        self.state().last = Some(last);
        true
    }

    /// The engine ends: what the user wants stays as it is.
    pub(in crate::engine::supervisor) async fn halt_for_close(&self) {
        self.state().break_off.cancel();
        let _one = self.operation.lock().await;
        if self.halt().await {
            self.set_idle(LinkState::Paused, Some("the engine has ended".into()));
        }
    }
}
