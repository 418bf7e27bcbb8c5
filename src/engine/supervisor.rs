//! Owns the jobs of an engine: starts, halts and remembers them, numbers what happens, and watches how they are.
//!
//! ```text
//!             start            attached
//! (unknown) ──▶ prechecking ──▶ running ◀──────── trying again (after a restart, while a side can't be reached)
//!   ▲               │ item failed  │ pause   ▲ resume          ▲
//!   │ resume        ▼              ▼         │                 │
//!   └──────── precheck_failed    paused ─────┘   ── engine ends and starts again: what ran goes on
//!                                  │ stop (removes the control keys from both sides)
//!                                  ▼
//!                                ended ── forget ──▶ (unknown)
//! ```
//! Refuses two operations on one job at a time: the second waits, and pause and stop break off a start. Invariant: a
//! job's record is on disk before its links may write a control key, so that no control key is ever without a job.

mod alerts;
mod error;
mod idle;
mod managed;
mod record;
mod sampler;

pub use error::EngineError;

use super::{
    events::EventLog,
    history::LinkSamples,
    precheck::{self, PrecheckOptions},
    probe::{self, Probed},
    verify,
};
use crate::model::{
    AccountSource, Check, CheckId, CheckReport, ConflictRecord, Direction, EngineStatus, HotKey, Instance, Job,
    JobStatus, job::file, secret::Inline, status::STATUS_VERSION,
};
use managed::Managed;
use record::{Record, Records, Wanted};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Where an engine keeps what it has to remember. Folders are made with mode 0700.
#[derive(Debug, Clone)]
pub struct EnginePaths {
    /// Jobs, events, history and spools.
    pub state: PathBuf,
}

impl EnginePaths {
    fn spool(&self, id: &crate::model::JobId) -> PathBuf {
        self.state.join("spool").join(&id.0)
    }
}

/// What to do at the start with the jobs that ran when the last engine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtOpen {
    /// They go on.
    Resume,
    /// They stay as they are: for an engine that was started for something else.
    Leave,
}

/// Open conflicts, settled ones, the keys that conflict most.
pub type Conflicts = (Vec<ConflictRecord>, Vec<ConflictRecord>, Vec<HotKey>);

/// The jobs of this process. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    paths: EnginePaths,
    records: Records,
    jobs: Mutex<BTreeMap<String, Arc<Managed>>>,
    events: EventLog,
    changed: watch::Sender<u64>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A lock whose data is whole between any two statements: a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    /// Tells those who wait on [`Engine::changed`].
    fn touch(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    fn precheck_options(&self) -> PrecheckOptions {
        let known: Vec<Arc<Managed>> = lock(&self.jobs).values().cloned().collect();
        let names = known.iter().filter_map(|job| Some((job.begun_id()?, job.name()))).collect();
        PrecheckOptions { spool_dir: Some(self.paths.state.join("spool")), names }
    }
}

impl Engine {
    /// Opens the engine of a state folder. The caller holds the lock that makes it the only one.
    pub async fn open(paths: EnginePaths, at_open: AtOpen) -> Result<Engine, EngineError> {
        let state_error = |what: &'static str| {
            let path = paths.state.clone();
            move |error| EngineError::State { what, path, error }
        };
        record::private_dir(&paths.state).map_err(state_error("make the state folder"))?;
        let records = Records::open(&paths.state).map_err(state_error("make the folder of jobs"))?;
        record::private_dir(&paths.state.join("history")).map_err(state_error("make the folder of histories"))?;
        let events = EventLog::open(&paths.state).map_err(state_error("open the event log"))?;
        let known = records.load().map_err(state_error("read the jobs"))?;
        let inner = Arc::new(Inner {
            paths,
            records,
            jobs: Mutex::default(),
            events,
            changed: watch::Sender::new(0),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        for record in known {
            let wanted = record.wanted;
            let managed = Arc::new(Managed::known(record, inner.clone()));
            lock(&inner.jobs).insert(managed.name(), managed.clone());
            if wanted == Wanted::Running && at_open == AtOpen::Resume {
                inner.tasks.spawn(async move { managed.keep_resuming().await });
            }
        }
        inner.tasks.spawn(sampler::run(inner.clone()));
        Ok(Engine { inner })
    }

    /// Halts all links and writes what is to be remembered. The jobs that ran go on at the next start.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        let all: Vec<Arc<Managed>> = lock(&self.inner.jobs).values().cloned().collect();
        futures::future::join_all(all.iter().map(|job| job.halt_for_close())).await;
        self.inner.tasks.wait().await;
        for job in all {
            job.store_history();
        }
        self.inner.events.close();
    }

    fn job(&self, name: &str) -> Result<Arc<Managed>, EngineError> {
        let jobs = lock(&self.inner.jobs);
        jobs.get(name)
            .cloned()
            .ok_or_else(|| EngineError::NoSuchJob { name: name.to_owned(), known: jobs.keys().cloned().collect() })
    }

    /// How the jobs are: all, by name, or the one of that name.
    pub fn status(&self, name: Option<&str>) -> Result<EngineStatus, EngineError> {
        let jobs: Vec<Arc<Managed>> = match name {
            Some(name) => vec![self.job(name)?],
            None => lock(&self.inner.jobs).values().cloned().collect(),
        };
        Ok(EngineStatus {
            version: STATUS_VERSION,
            engine_pid: std::process::id(),
            jobs: jobs.iter().map(|job| job.status()).collect(),
        })
    }

    /// Grows each time a job begins, ends or changes its state, and each second while any link runs.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    pub fn events(&self) -> &EventLog {
        &self.inner.events
    }

    /// Runs the precheck's items, all or `only`; `progress` sees every change of one.
    pub async fn precheck(
        &self,
        job: &Job,
        only: Option<&[CheckId]>,
        progress: Option<mpsc::Sender<Check>>,
    ) -> CheckReport {
        let mut job = job.clone();
        self.fill_accounts(&mut job);
        let job = &job;
        let id = self.job(&job.name).ok().and_then(|known| known.begun_id());
        precheck::run(job, id.as_ref(), only, self.inner.precheck_options(), progress).await
    }

    /// Precheck, then both links. A job of that name that is known is resumed, or (`discard_previous`) begun anew. The
    /// work goes on when the future is dropped: a client that goes away has started the job all the same.
    pub async fn start(
        &self,
        mut job: Job,
        discard_previous: bool,
        progress: mpsc::Sender<Check>,
    ) -> Result<(Option<CheckReport>, JobStatus), EngineError> {
        if let Some(fault) = file::name_fault(&job.name) {
            return Err(EngineError::Usage { what: fault, remedy: "choose another name".into() });
        }
        self.fill_accounts(&mut job);
        let managed = {
            let mut jobs = lock(&self.inner.jobs);
            let made = || Arc::new(Managed::known(Record::new(job.clone()), self.inner.clone()));
            jobs.entry(job.name.clone()).or_insert_with(made).clone()
        };
        self.detached(async move { managed.start(Some(job), discard_previous, progress).await }).await
    }

    /// The same for a job that is known.
    pub async fn start_known(
        &self,
        name: &str,
        progress: mpsc::Sender<Check>,
    ) -> Result<(Option<CheckReport>, JobStatus), EngineError> {
        let managed = self.job(name)?;
        self.detached(async move { managed.start(None, false, progress).await }).await
    }

    /// Halts both links. Fine where they are halted already.
    pub async fn pause(&self, name: &str) -> Result<(), EngineError> {
        let managed = self.job(name)?;
        self.detached(async move { managed.pause().await }).await
    }

    /// Attaches both links again, without a precheck; a job whose first start failed is started again, with one.
    pub async fn resume(&self, name: &str) -> Result<(), EngineError> {
        let managed = self.job(name)?;
        self.detached(async move { managed.resume().await }).await
    }

    /// Ends a job and removes its control keys from both sides.
    pub async fn stop(&self, name: &str) -> Result<(), EngineError> {
        let managed = self.job(name)?;
        self.detached(async move { managed.stop().await }).await
    }

    /// Forgets a job that has ended or never begun; with `abandon` any, whose control keys then stay where they are.
    pub async fn forget(&self, name: &str, abandon: bool) -> Result<(), EngineError> {
        let managed = self.job(name)?;
        managed.forget(abandon).await?;
        lock(&self.inner.jobs).remove(name);
        self.inner.touch();
        Ok(())
    }

    /// Compares the two sides, and with `repair` settles what differs. Dropping the future ends it.
    pub async fn verify(
        &self,
        name: &str,
        repair: bool,
        progress: mpsc::Sender<verify::Progress>,
    ) -> Result<(verify::Outcome, u64), EngineError> {
        self.job(name)?.verify(repair, progress).await
    }

    /// Dials an instance and tells what is there. Without an account it is dialled with the one that the job `of` holds
    /// for it, where it does.
    pub async fn probe(&self, instance: &Instance, of: Option<&str>) -> Result<Probed, EngineError> {
        let mut instance = instance.clone();
        if let Some(held) = of.and_then(|name| self.job(name).ok()) {
            fill_account(&mut instance, &held.definition());
        }
        probe::probe(&instance).await.map_err(|error| EngineError::from_words(&error.to_string()))
    }

    /// Open conflicts, settled ones (newest first, at most `limit`), and the keys that conflict most.
    pub fn conflicts(&self, name: &str, limit: usize) -> Result<Conflicts, EngineError> {
        Ok(self.job(name)?.conflicts(limit))
    }

    /// The samples of the job's links.
    pub fn history(&self, name: &str) -> Result<Vec<(Direction, LinkSamples)>, EngineError> {
        Ok(self.job(name)?.history())
    }

    /// Job files leave out the accounts that were typed: what a known job holds fills them in.
    fn fill_accounts(&self, job: &mut Job) {
        if let Ok(known) = self.job(&job.name) {
            let held = known.definition();
            fill_account(&mut job.source, &held);
            fill_account(&mut job.target, &held);
        }
        // what nobody holds is no account
        for account in
            [&mut job.source, &mut job.target].into_iter().flat_map(|i| [&mut i.account, &mut i.sentinel_account])
        {
            if matches!(account, AccountSource::Inline(inline) if inline.is_withheld() && !inline.is_unkept()) {
                *account = AccountSource::None;
            }
        }
    }

    /// The job as it was started. Of an account that was typed only the place is told, not the account.
    pub fn job_file(&self, name: &str) -> Result<Job, EngineError> {
        let mut job = self.job(name)?.definition();
        for instance in [&mut job.source, &mut job.target] {
            for account in [&mut instance.account, &mut instance.sentinel_account] {
                if let AccountSource::Inline(inline) = account {
                    *inline = inline.withheld();
                }
            }
        }
        Ok(job)
    }

    /// Changes the limits of a job, also while it runs; `None` leaves one as it is, 0 is no limit.
    pub fn set_limits(&self, name: &str, ops: Option<u64>, bytes: Option<u64>) -> Result<(), EngineError> {
        self.job(name)?.set_limits(ops, bytes)
    }

    /// Runs an operation in a task of its own, so that it is not cut in half when its caller goes away.
    async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        let engine = self.clone();
        let task = self.inner.tasks.spawn(async move {
            let done = work.await;
            engine.inner.touch();
            done
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "an operation on a job broke down");
            Err(EngineError::Usage {
                what: "the operation broke down in the engine".into(),
                remedy: "read the engine's log, then try again".into(),
            })
        })
    }
}

/// Gives an instance without an account the one that `held` has for the very same place; a password goes nowhere else,
/// nor to the same place by other means.
fn fill_account(instance: &mut Instance, held: &Job) {
    let place = |i: &Instance| (i.addresses.clone(), i.master_name.clone(), i.tls.clone());
    let Some(same) = [&held.source, &held.target].into_iter().find(|i| place(i) == place(instance)) else { return };
    for (missing, held) in
        [(&mut instance.account, &same.account), (&mut instance.sentinel_account, &same.sentinel_account)]
    {
        match (&*missing, held) {
            (AccountSource::None, AccountSource::Inline(_)) => *missing = held.clone(),
            // the place may be another one than before
            (AccountSource::Inline(empty), AccountSource::Inline(held)) if empty.is_withheld() => {
                let text = held.expose();
                let inline = if empty.is_unkept() { Inline::unkept(text) } else { Inline::new(text) };
                *missing = AccountSource::Inline(inline);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
