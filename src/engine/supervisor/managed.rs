//! One job: its record, its links while they run, and what it tells of itself. What is done with it: `begin`, `halt`.

mod begin;
mod halt;

use super::{
    Conflicts, EngineError, Inner, alerts, idle,
    record::{self, Record, Wanted},
};
use crate::{
    engine::{
        events::EventSink,
        history::{LinkSamples, sample},
        job::{JobError, RunningJob},
        verify,
    },
    model::{Direction, EventKind, Job, JobId, JobState, JobStatus, LinkState, Severity, status::Alert},
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

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
            // who pauses or ends a job knows; but what has failed has not ceased to while it is tried again, maybe in vain
            None if matches!(status.state, LinkState::Paused | LinkState::Ended | LinkState::NotConfigured) => {
                Vec::new()
            }
            None => state.alerts.clone(),
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

    pub(super) async fn verify(
        &self,
        repair: bool,
        progress: mpsc::Sender<verify::Progress>,
    ) -> Result<(verify::Outcome, u64), EngineError> {
        self.has_accounts()?;
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
