//! A job is started, or goes on: its definition, the precheck, both links attached.

use super::{ACCOUNT_MISSING, Managed, resting};
use crate::{
    engine::{
        job::{JobContext, JobError, Pause, RunningJob},
        precheck,
        supervisor::{
            EngineError,
            error::failed_items,
            record::{self, Record, Wanted},
        },
    },
    model::{Check, CheckId, CheckReport, CheckState, EventKind, Job, JobId, JobStatus, LinkState, Severity},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Before a job is tried again, what its last try left is removed: as long as that may take at most.
const CLEAN_UP: Duration = Duration::from_secs(5);

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
        self.check_and_attach(job, discard_previous, Some(progress)).await
    }

    async fn check_and_attach(
        &self,
        job: Option<Job>,
        discard_previous: bool,
        progress: Option<mpsc::Sender<Check>>,
    ) -> Result<(Option<CheckReport>, JobStatus), EngineError> {
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
        let places = |job: &Job| {
            [&job.source, &job.target].map(|i| (i.addresses.clone(), i.master_name.clone(), job.policy.two_way))
        };
        let elsewhere = places(&old.job) != places(&job) || old.job.policy.databases != job.policy.databases;
        if old.begun && old.only_tried {
            // What a start that failed half way has left stands for nothing. Where it can't be reached, the precheck says so
            // better, and it is removed before the links are attached.
            let removed = timeout(CLEAN_UP, RunningJob::remove_control_keys(&old.job, &old.id)).await;
            let removed = matches!(removed, Ok(Ok(())));
            let mut record = old;
            record.job = job;
            if !removed && elsewhere {
                // It may be there still, where this job is no longer about: so nothing here may bear its id.
                tracing::warn!(job = record.job.name, "control keys of its last try may be left at its old instances");
                _ = self.inner.records.remove(&record.id);
                self.remove_files(&record.id);
                record.id = JobId::draw();
            }
            if removed || elsewhere {
                (record.begun, record.only_tried) = (false, false);
            }
            return self.take(record);
        }
        if old.begun && discard_previous {
            RunningJob::remove_control_keys(&old.job, &old.id).await?;
        } else if old.begun && old.wanted != Wanted::Ended {
            if elsewhere {
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

    async fn precheck(&self, progress: Option<mpsc::Sender<Check>>) -> CheckReport {
        self.set_idle(LinkState::Prechecking, None);
        let (job, id) = (self.definition(), self.begun_id());
        // A job that goes on has filled its target itself.
        let goes_on = id.is_some() && !self.state().record.only_tried;
        let only: Option<Vec<CheckId>> =
            goes_on.then(|| CheckId::ALL.into_iter().filter(|i| *i != CheckId::TargetEmpty).collect());
        precheck::run(&job, id.as_ref(), only.as_deref(), self.inner.precheck_options(), progress).await
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
        let goes_on = before.begun && !before.only_tried;
        self.save(|record| {
            (record.wanted, record.failure) = (Wanted::Running, None);
            (record.begun, record.only_tried) = (true, !goes_on);
        })?;
        let idle = if goes_on { LinkState::Reconnecting } else { LinkState::Initializing };
        self.set_idle(idle, None);
        let started = tokio::select! {
            _ = break_off.cancelled() => Err(EngineError::BrokenOff),
            started = self.run(before.only_tried) => started.map_err(EngineError::Job),
        };
        match started {
            Ok(()) => {
                self.stands().await?;
                let (kind, text) = match goes_on {
                    true => (EventKind::JobResumed, "both links go on where they were"),
                    false => (EventKind::JobStarted, "both links have started"),
                };
                self.events.info(None, kind, text);
                self.inner.touch();
                Ok(())
            }
            Err(error) => {
                // Control keys may have been written: it stays begun.
                self.save(|record| record.wanted = before.wanted)?;
                match &error {
                    EngineError::BrokenOff => self.rest(),
                    error => self.keep_failure(LinkState::Failed, error.to_string())?,
                }
                Err(error)
            }
        }
    }

    /// `anew`: what control keys there are stand for nothing.
    async fn run(&self, anew: bool) -> Result<(), JobError> {
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
        if anew {
            RunningJob::remove_control_keys(&job, &id).await?;
        }
        let running = RunningJob::start(JobContext {
            job,
            id,
            spool_dir,
            events: self.events.clone(),
            homes: Default::default(),
        })
        .await?;
        let mut state = self.state();
        state.running = Some(Arc::new(running));
        state.since = Some(Instant::now());
        state.verifying = self.inner.stop.child_token();
        state.reason = None;
        Ok(())
    }

    /// Both links stand: from now on the job goes on where it was. Where that can't be written down, they don't run: the next
    /// engine would take what they have done for a try that failed.
    async fn stands(&self) -> Result<(), EngineError> {
        if !self.state().record.only_tried {
            return Ok(());
        }
        let saved = self.save(|record| record.only_tried = false);
        if saved.is_err() {
            self.halt().await;
        }
        saved
    }

    /// After a restart of the engine: tries to attach until it works, or somebody decides otherwise. What can't be
    /// mended by waiting fails at once.
    pub(in crate::engine::supervisor) async fn keep_resuming(&self) {
        let _one = self.operation.lock().await;
        let break_off = self.arm();
        let mut pause = Pause::of_an_engine();
        self.set_idle(LinkState::Reconnecting, Some("the engine has started again".into()));
        loop {
            let only_tried = self.state().record.only_tried;
            let tried = tokio::select! {
                _ = break_off.cancelled() => return,
                tried = self.run(only_tried) => tried,
            };
            let wait = match tried {
                Ok(()) => {
                    if let Err(error) = self.stands().await {
                        tracing::error!(%error, job = self.name(), "that the links stand can't be written down: halted");
                        return self.set_idle(LinkState::Failed, Some(error.to_string()));
                    }
                    self.events.info(None, EventKind::JobResumed, "the engine has started again; both links go on");
                    return self.inner.touch();
                }
                Err(error) if error.passing => {
                    let wait = pause.after_try(&error);
                    // A slot that moves is looked after so soon that nobody waits for it.
                    let what = match wait.as_secs() {
                        0 => error.what,
                        seconds => format!("{}; trying again in {seconds} s", error.what),
                    };
                    tracing::warn!(job = self.name(), "{what}");
                    self.set_idle(LinkState::Reconnecting, Some(what));
                    wait
                }
                Err(error) => {
                    if let Err(error) = self.keep_failure(LinkState::Failed, error.to_string()) {
                        tracing::error!(%error, "the job's failure can't be kept");
                    }
                    return;
                }
            };
            tokio::select! {
                _ = break_off.cancelled() => return,
                _ = sleep(wait) => {}
            }
        }
    }

    /// A job goes on; one whose first start failed is started again.
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
        if record.wanted == Wanted::Ended {
            let (what, name) = (format!("{} has ended", record.job.name), &record.job.name);
            let remedy = format!("start it again, with a new copy: `duplex start {name}`, or c in the console");
            return Err(EngineError::Usage { what, remedy });
        }
        if !record.begun || record.only_tried {
            return self.check_and_attach(None, false, None).await.map(|_| ());
        }
        let break_off = self.arm();
        self.attach(&break_off).await
    }
}
