//! One job: its record, its links while they run, and the operations on it.

use super::{
    Conflicts, EngineError, Inner, alerts,
    error::failed_items,
    idle,
    record::{self, Record, Wanted},
};
use crate::{
    engine::{
        events::EventSink,
        history::{LinkSamples, sample},
        job::{JobContext, JobError, RunningJob},
        precheck::{self, PrecheckOptions},
        verify,
    },
    model::{
        Check, CheckId, CheckReport, CheckState, Direction, EventKind, Job, JobId, JobState, JobStatus, LinkState,
        Severity, status::Alert,
    },
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// What is under way may take this long to finish when links are halted; then they end where they are.
const HALT_DEADLINE: Duration = Duration::from_secs(15);
/// Between two tries to attach a job again: doubles from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// A job whose account was to be kept nowhere can't go on by itself after a restart.
const ACCOUNT_MISSING: &str = "its account was typed and is kept nowhere, so it has to be typed again";

pub(super) struct Managed {
    inner: Arc<Inner>,
    events: EventSink,
    /// One operation at a time.
    operation: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

struct State {
    record: Record,
    /// Where the links don't run: how it stands.
    idle: LinkState,
    reason: Option<String>,
    running: Option<Arc<RunningJob>>,
    since: Option<Instant>,
    /// The last status of links that have been halted, for their counters.
    last: Option<JobStatus>,
    samples: [LinkSamples; 2],
    alerts: Vec<Alert>,
    /// The state that was last told as an event.
    told: Option<JobState>,
    /// Breaks off the start or the tries to resume that are under way.
    break_off: CancellationToken,
    /// Ends comparisons, which keep the links from being halted.
    verifying: CancellationToken,
}

impl Managed {
    /// A job from its record, with nothing running.
    pub(super) fn known(record: Record, inner: Arc<Inner>) -> Managed {
        let (idle, reason) = resting(&record);
        let samples = match record::read_json(&history_file(&inner, &record.id)) {
            Ok(found) => found.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, job = record.job.name, "the job's history can't be read; it begins anew");
                Default::default()
            }
        };
        let events = inner.events.sink(&record.job.name);
        let state = State {
            record,
            idle,
            reason,
            running: None,
            since: None,
            last: None,
            samples,
            alerts: Vec::new(),
            told: None,
            break_off: inner.stop.child_token(),
            verifying: inner.stop.child_token(),
        };
        Managed { inner, events, operation: tokio::sync::Mutex::default(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self) -> String {
        self.state().record.job.name.clone()
    }

    pub(super) fn definition(&self) -> Job {
        self.state().record.job.clone()
    }

    /// The id, where control keys of it may stand in the instances.
    pub(super) fn begun_id(&self) -> Option<JobId> {
        let state = self.state();
        state.record.begun.then(|| state.record.id.clone())
    }

    fn running(&self) -> Option<Arc<RunningJob>> {
        self.state().running.clone()
    }

    fn set_idle(&self, idle: LinkState, reason: Option<String>) {
        let mut state = self.state();
        state.idle = idle;
        state.reason = reason;
        drop(state);
        self.inner.touch();
    }

    /// Changes the record and puts it on disk before anything acts on it.
    fn save(&self, change: impl FnOnce(&mut Record)) -> Result<(), EngineError> {
        let mut record = self.state().record.clone();
        change(&mut record);
        self.inner.records.save(&record).map_err(|error| EngineError::State {
            what: "write the job's record",
            path: self.inner.paths.state.clone(),
            error,
        })?;
        self.state().record = record;
        Ok(())
    }

    pub(super) fn status(&self) -> JobStatus {
        let (running, mut status, since, alerts) = {
            let state = self.state();
            let status = match &state.last {
                Some(last) => idle::halted(last.clone(), state.idle, state.reason.as_deref()),
                None => idle::status(&state.record.job, &state.record.id, state.idle, state.reason.as_deref()),
            };
            (state.running.clone(), status, state.since, state.alerts.clone())
        };
        match running {
            Some(running) => {
                status = running.status();
                status.uptime_seconds = since.map(|s| s.elapsed().as_secs());
                status.alerts = alerts;
            }
            None => status.alerts = self.resting_alerts(),
        }
        status
    }

    /// Refuses what can't be done before an account that is kept nowhere has been typed again.
    fn has_accounts(&self) -> Result<(), EngineError> {
        let job = self.definition();
        if !job.lacks_account() {
            return Ok(());
        }
        let remedy = "type it in the console (`duplex`, then resume the job), or start the job with its file";
        Err(EngineError::Usage { what: format!("{}: {ACCOUNT_MISSING}", job.name), remedy: remedy.into() })
    }

    /// What an operator should see to of a job whose links don't run.
    fn resting_alerts(&self) -> Vec<Alert> {
        let state = self.state();
        if state.record.wanted == Wanted::Ended || !state.record.job.lacks_account() {
            return Vec::new();
        }
        vec![Alert {
            rule: "account_missing".into(),
            direction: None,
            severity: Severity::Error,
            text: ACCOUNT_MISSING.into(),
            remedy: "resume the job in the console: it asks for the account".into(),
        }]
    }

    /// Takes the sample of a second; says whether any link runs.
    pub(super) fn sample(&self, now: u64) -> bool {
        let running = self.running();
        let status = match &running {
            Some(running) => running.status(),
            None => self.status(),
        };
        let mut state = self.state();
        if running.is_some() {
            for link in &status.links {
                state.samples[alerts::index(link.direction)].push(sample(now, link));
            }
        }
        let found = match running {
            Some(_) => alerts::evaluate(&state.record.job, &status, &state.alerts),
            None => Vec::new(),
        };
        let before = std::mem::replace(&mut state.alerts, found.clone());
        let told = state.told.replace(status.state);
        drop(state);
        if told.is_some_and(|t| t != status.state) {
            let severity = match status.state {
                LinkState::Failed | LinkState::PrecheckFailed => Severity::Error,
                s if s.is_unhealthy() => Severity::Warning,
                _ => Severity::Info,
            };
            let why = status.reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default();
            self.events.emit(None, severity, EventKind::StateChanged, format!("{}{why}", status.state.as_str()));
        }
        self.tell(&before, &found);
        running_or_busy(status.state)
    }

    fn tell(&self, before: &[Alert], now: &[Alert]) {
        let (raised, cleared) = alerts::difference(before, now);
        for alert in raised {
            let text = format!("{}: {}", alert.text, alert.remedy);
            self.events.emit(alert.direction, alert.severity, EventKind::AlertRaised, text);
        }
        for alert in cleared {
            let text = format!("no longer so: {}", alert.text);
            self.events.emit(alert.direction, Severity::Info, EventKind::AlertCleared, text);
        }
    }

    /// Starts the job with this definition, or with the one that it has.
    pub(super) async fn start(
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
    pub(super) async fn keep_resuming(&self) {
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

    pub(super) async fn pause(&self) -> Result<(), EngineError> {
        self.state().break_off.cancel();
        let _one = self.operation.lock().await;
        let record = self.state().record.clone();
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

    pub(super) async fn resume(&self) -> Result<(), EngineError> {
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

    pub(super) async fn stop(&self) -> Result<(), EngineError> {
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

    pub(super) async fn forget(&self) -> Result<(), EngineError> {
        let _one = self.operation.lock().await;
        let record = self.state().record.clone();
        if record.begun && record.wanted != Wanted::Ended {
            let name = &record.job.name;
            let what = format!("{name} has not ended: its control keys are still in both instances");
            return Err(EngineError::Usage { what, remedy: format!("`duplex stop {name}` first") });
        }
        self.remove_files(&record.id);
        self.inner.records.remove(&record.id).map_err(|error| EngineError::State {
            what: "remove the job's record",
            path: self.inner.paths.state.clone(),
            error,
        })
    }

    fn remove_files(&self, id: &JobId) {
        _ = std::fs::remove_dir_all(self.inner.paths.spool(id));
        _ = std::fs::remove_file(history_file(&self.inner, id));
    }

    /// Halts the links; says whether they ran.
    async fn halt(&self) -> bool {
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
    pub(super) async fn halt_for_close(&self) {
        self.state().break_off.cancel();
        let _one = self.operation.lock().await;
        if self.halt().await {
            self.set_idle(LinkState::Paused, Some("the engine has ended".into()));
        }
    }

    pub(super) async fn verify(
        &self,
        repair: bool,
        progress: mpsc::Sender<verify::Progress>,
    ) -> Result<(verify::Outcome, u64), EngineError> {
        let (job, ended) = {
            let mut state = self.state();
            if state.verifying.is_cancelled() {
                // A pause broke off what ran then; this is another.
                state.verifying = self.inner.stop.child_token();
            }
            (state.record.job.clone(), state.verifying.clone())
        };
        if repair && self.running().is_none() {
            let what = format!("{} is not running; what differs is settled by its links", job.name);
            return Err(EngineError::Usage { what, remedy: format!("`duplex resume {}` first", job.name) });
        }
        let outcome = tokio::select! {
            _ = ended.cancelled() => return Err(EngineError::BrokenOff),
            outcome = verify::verify(&job, progress) => outcome.map_err(JobError::from)?,
        };
        let mut repaired = 0;
        if repair && !outcome.equal {
            let Some(running) = self.running() else { return Err(EngineError::BrokenOff) };
            let keys = outcome.keys.clone();
            repaired = keys.len() as u64;
            tokio::select! {
                _ = ended.cancelled() => return Err(EngineError::BrokenOff),
                _ = running.repair(keys) => {}
            }
        }
        let differing = outcome.differing + outcome.missing_at_source + outcome.missing_at_target;
        let text = match differing {
            0 => format!("both sides are equal: {} keys compared", outcome.keys_compared),
            n => format!("{n} of {} keys differ, {repaired} of them repaired", outcome.keys_compared),
        };
        let severity = if differing == 0 { Severity::Info } else { Severity::Warning };
        self.events.emit(None, severity, EventKind::VerifyFinished, text);
        Ok((outcome, repaired))
    }

    pub(super) fn conflicts(&self, limit: usize) -> Conflicts {
        self.running().map(|running| running.conflicts(limit)).unwrap_or_default()
    }

    pub(super) fn history(&self) -> Vec<(Direction, LinkSamples)> {
        let state = self.state();
        let count = if state.record.job.policy.two_way { 2 } else { 1 };
        Direction::BOTH.into_iter().zip(state.samples.clone()).take(count).collect()
    }

    pub(super) fn store_history(&self) {
        let (id, samples) = {
            let state = self.state();
            (state.record.id.clone(), state.samples.clone())
        };
        if samples.iter().all(|s| s.seconds().next().is_none()) {
            return;
        }
        if let Err(error) = record::write_json(&history_file(&self.inner, &id), &samples) {
            tracing::warn!(%error, job = self.name(), "can't store the job's history");
        }
    }

    pub(super) fn set_limits(&self, ops: Option<u64>, bytes: Option<u64>) -> Result<(), EngineError> {
        let mut limits = self.state().record.job.limits.clone();
        limits.max_ops_per_second = ops.unwrap_or(limits.max_ops_per_second);
        limits.max_bytes_per_second = bytes.unwrap_or(limits.max_bytes_per_second);
        let (ops, bytes) = (limits.max_ops_per_second, limits.max_bytes_per_second);
        self.save(|record| record.job.limits = limits)?;
        if let Some(running) = self.running() {
            running.set_limits(ops, bytes);
        }
        Ok(())
    }
}

/// How a job stands when nothing is done with it, and why.
fn resting(record: &Record) -> (LinkState, Option<String>) {
    match (&record.failure, record.wanted) {
        (Some((state, reason)), _) => (*state, Some(reason.clone())),
        (None, Wanted::Ended) => (LinkState::Ended, None),
        (None, _) if record.begun => (LinkState::Paused, None),
        (None, _) => (LinkState::NotConfigured, None),
    }
}

fn history_file(inner: &Inner, id: &JobId) -> PathBuf {
    inner.paths.state.join("history").join(format!("{id}.json"))
}

/// Whether screens want to see this state move.
fn running_or_busy(state: LinkState) -> bool {
    !matches!(state, LinkState::NotConfigured | LinkState::Paused | LinkState::Ended | LinkState::PrecheckFailed)
}
