//! A job is started, or goes on: its definition, the precheck, both links attached.

use super::{ACCOUNT_MISSING, Managed, resting};
use crate::{
    engine::{
        job::{JobContext, JobError, RunningJob},
        precheck::{self, PrecheckOptions},
        supervisor::{
            EngineError,
            error::failed_items,
            record::{self, Record, Wanted},
        },
    },
    model::{Check, CheckId, CheckReport, CheckState, EventKind, Job, JobStatus, LinkState, Severity},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

/// Between two tries to attach a job again: doubles from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

impl Managed {
    /// Starts the job with this definition, or with the one that it has.
    pub(in crate::engine::supervisor) async fn start(
        &self,
        job: Option<Job>,
        discard_previous: bool,
        progress: mpsc::Sender<Check>,
    ) -> Result<(Option<CheckReport>, JobStatus), EngineError> {
        let _one = self.operation.lock().await;
        if let Some(running) = self.running() {
            if running.status().state != LinkState::Failed {
                return self.start_running(job, discard_previous).map(|status| (None, status));
            }
            self.halt().await;
        }
        self.redefine(job, discard_previous).await?;
        self.has_accounts()?;
        let break_off = self.arm();
        let report = tokio::select! {
            _ = break_off.cancelled() => {
                self.rest();
                return Err(EngineError::BrokenOff);
            }
            report = self.precheck(progress) => report,
        };
        if !report.passed {
            let refused = |c: &Check| c.id == CheckId::Credentials && c.state == CheckState::Failed;
            if report.items.iter().any(refused) {
                // one that is kept nowhere and is wrong has to be asked for again
                for account in self.state().record.job.unkept_accounts() {
                    *account = account.withheld();
                }
            }
            let reason = format!("precheck failed: {}", failed_items(&report));
            self.keep_failure(LinkState::PrecheckFailed, reason)?;
            return Err(EngineError::Precheck(Box::new(report)));
        }
        self.attach(&break_off).await?;
        Ok((Some(report), self.status()))
    }

    /// A start of what runs already.
    fn start_running(&self, job: Option<Job>, discard_previous: bool) -> Result<JobStatus, EngineError> {
        let name = self.name();
        if discard_previous {
            let what = format!("{name} is running; what it has done can't be discarded under it");
            return Err(EngineError::Usage { what, remedy: format!("`duplex stop {name}` first") });
        }
        if job.is_some_and(|job| job != self.definition()) {
            let what = format!("{name} is running with another definition");
            return Err(EngineError::Usage { what, remedy: format!("`duplex pause {name}`, then start it again") });
        }
        Ok(self.status())
    }

    /// Takes over a new definition, where that leads to the same job or to a new one.
    async fn redefine(&self, job: Option<Job>, discard_previous: bool) -> Result<(), EngineError> {
        let old = self.state().record.clone();
        let job = job.unwrap_or_else(|| old.job.clone());
        if old.begun && discard_previous {
            RunningJob::remove_control_keys(&old.job, &old.id).await?;
        } else if old.begun && old.wanted != Wanted::Ended {
            let places = |job: &Job| {
                [&job.source, &job.target].map(|i| (i.addresses.clone(), i.master_name.clone(), job.policy.two_way))
            };
            if places(&old.job) != places(&job) || old.job.policy.databases != job.policy.databases {
                let name = &job.name;
                return Err(EngineError::Usage {
                    what: format!("{name} is known with other instances, databases or directions"),
                    remedy: format!(
                        "give this job another name, or end the known one (`duplex stop {name}`), or begin it anew with \
                         --discard-previous"
                    ),
                });
            }
            let mut record = old;
            record.job = job;
            return self.take(record);
        }
        let mut fresh = Record::new(job);
        if !old.begun {
            // Nothing carries the old id yet.
            fresh.id = old.id.clone();
        } else {
            _ = self.inner.records.remove(&old.id);
            self.remove_files(&old.id);
        }
        self.take(fresh)
    }

    fn take(&self, record: Record) -> Result<(), EngineError> {
        let mut state = self.state();
        if state.record.id != record.id {
            state.last = None;
            state.samples = Default::default();
        }
        state.record = record;
        Ok(())
    }

    /// Back to how the job stands when nothing is done with it.
    fn rest(&self) {
        let (idle, reason) = resting(&self.state().record);
        self.set_idle(idle, reason);
    }

    /// Keeps how a start failed, also for after a restart.
    fn keep_failure(&self, state: LinkState, reason: String) -> Result<(), EngineError> {
        self.events.emit(None, Severity::Error, EventKind::Failed, reason.clone());
        self.set_idle(state, Some(reason.clone()));
        self.save(|record| record.failure = Some((state, reason)))
    }

    async fn precheck(&self, progress: mpsc::Sender<Check>) -> CheckReport {
        self.set_idle(LinkState::Prechecking, None);
        let (job, id) = (self.definition(), self.begun_id());
        // A job that goes on has filled its target itself.
        let only: Option<Vec<CheckId>> =
            id.is_some().then(|| CheckId::ALL.into_iter().filter(|i| *i != CheckId::TargetEmpty).collect());
        let options = PrecheckOptions { spool_dir: Some(self.inner.paths.state.join("spool")) };
        precheck::run(&job, id.as_ref(), only.as_deref(), options, Some(progress)).await
    }

    /// A token that breaks off what begins now.
    fn arm(&self) -> CancellationToken {
        let token = self.inner.stop.child_token();
        self.state().break_off = token.clone();
        token
    }

    /// Attaches both links. The record is on disk before they may write a control key.
    async fn attach(&self, break_off: &CancellationToken) -> Result<(), EngineError> {
        let before = self.state().record.clone();
        self.save(|record| (record.wanted, record.begun, record.failure) = (Wanted::Running, true, None))?;
        let idle = if before.begun { LinkState::Reconnecting } else { LinkState::Initializing };
        self.set_idle(idle, None);
        let started = tokio::select! {
            _ = break_off.cancelled() => Err(EngineError::BrokenOff),
            started = self.run() => started.map_err(EngineError::Job),
        };
        match started {
            Ok(()) => {
                let (kind, text) = match before.begun {
                    true => (EventKind::JobResumed, "both links go on where they were"),
                    false => (EventKind::JobStarted, "both links have started"),
                };
                self.events.info(None, kind, text);
                self.inner.touch();
                Ok(())
            }
            Err(error) => {
                self.save(|record| (record.wanted, record.begun) = (before.wanted, before.begun))?;
                match &error {
                    EngineError::BrokenOff => self.rest(),
                    error => self.keep_failure(LinkState::Failed, error.to_string())?,
                }
                Err(error)
            }
        }
    }

    async fn run(&self) -> Result<(), JobError> {
        let (job, id) = {
            let state = self.state();
            (state.record.job.clone(), state.record.id.clone())
        };
        if job.lacks_account() {
            return Err(JobError::lasting(
                ACCOUNT_MISSING,
                "type it in the console (`duplex`), or start the job with its file",
            ));
        }
        let spool_dir = self.inner.paths.spool(&id);
        record::private_dir(&spool_dir).map_err(|error| {
            let what = format!("can't make the spool's folder {}: {error}", spool_dir.display());
            JobError::lasting(what, "see to its rights and its free space")
        })?;
        let running = RunningJob::start(JobContext { job, id, spool_dir, events: self.events.clone() }).await?;
        let mut state = self.state();
        state.running = Some(Arc::new(running));
        state.since = Some(Instant::now());
        state.verifying = self.inner.stop.child_token();
        state.reason = None;
        Ok(())
    }

    /// After a restart of the engine: tries to attach until it works, or somebody decides otherwise. What can't be
    /// mended by waiting fails at once.
    pub(in crate::engine::supervisor) async fn keep_resuming(&self) {
        let _one = self.operation.lock().await;
        let break_off = self.arm();
        let mut wait = FIRST_RETRY;
        self.set_idle(LinkState::Reconnecting, Some("the engine has started again".into()));
        loop {
            let tried = tokio::select! {
                _ = break_off.cancelled() => return,
                tried = self.run() => tried,
            };
            match tried {
                Ok(()) => {
                    self.events.info(None, EventKind::JobResumed, "the engine has started again; both links go on");
                    return self.inner.touch();
                }
                Err(error) if error.passing => {
                    let what = format!("{}; trying again in {} s", error.what, wait.as_secs());
                    tracing::warn!(job = self.name(), "{what}");
                    self.set_idle(LinkState::Reconnecting, Some(what));
                }
                Err(error) => {
                    if let Err(error) = self.keep_failure(LinkState::Failed, error.to_string()) {
                        tracing::error!(%error, "the job's failure can't be kept");
                    }
                    return;
                }
            }
            tokio::select! {
                _ = break_off.cancelled() => return,
                _ = sleep(wait) => wait = (wait * 2).min(LAST_RETRY),
            }
        }
    }

    pub(in crate::engine::supervisor) async fn resume(&self) -> Result<(), EngineError> {
        // A user who resumes doesn't wait for the next try.
        self.state().break_off.cancel();
        let _one = self.operation.lock().await;
        if let Some(running) = self.running() {
            if running.status().state != LinkState::Failed {
                return Ok(());
            }
            self.halt().await;
        }
        let record = self.state().record.clone();
        if record.wanted == Wanted::Ended || !record.begun {
            let name = &record.job.name;
            let what = format!("{name} has {}", if record.begun { "ended" } else { "not been started" });
            return Err(EngineError::Usage { what, remedy: format!("start it: `duplex start {name}`") });
        }
        let break_off = self.arm();
        self.attach(&break_off).await
    }
}
