//! Two links as one job: the order of start, the shared core, and what is done when a part of it fails.
//!
//! ```text
//!   start ─▶ attach ─▶ rebuild (if an engine was here before) ─▶ run ──┬─ told to halt ─▶ drained, ended
//!              ▲                                                       ├─ a link broke ──┐
//!              └────────────── again, with a back-off ◀────────────────┴─────────────────┘
//!                                                    └─ position lost, fenced, key gone ─▶ failed: a person decides
//! ```
//!
//! Invariants: both streams are attached before the forward snapshot is applied, so no write made meanwhile is lost;
//! everything a run knows can be built again from the two control keys and the two streams, so a run is simply ended
//! and begun anew whenever something in it is doubtful.

mod attach;
mod carry;
mod expiries;
mod follow;
mod lineage;
mod looks;
mod moved;
mod pause;
mod progress;
mod reading;
mod run;
mod status;
mod topology;
mod watch;

use super::events::{EventSink, Quiet};
use super::link::home::Homes;
use super::net::NetError;
use crate::model::{ConflictRecord, Direction, EventKind, HotKey, Job, JobId, JobStatus, Severity};
use attach::AttachOptions;
pub(in crate::engine) use pause::Pause;
use run::{Run, RunEnd};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::watch as channel;

/// What a job needs to run.
#[derive(Clone)]
pub struct JobContext {
    pub job: Job,
    pub id: JobId,
    /// The job's own folder for spool segments, mode 0700; emptied at the start.
    pub spool_dir: PathBuf,
    pub events: EventSink,
    /// What is known of the clusters' shards from the runs before.
    pub homes: Homes,
}

/// Why a job could not be started or was given up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct JobError {
    pub what: String,
    pub remedy: String,
    /// Trying again may help: nobody has to change anything.
    pub passing: bool,
    /// Slots of a cluster are just changing hands: the next look finds that done.
    pub moving: bool,
    /// This direction's position is lost: nothing but a new copy mends it.
    pub needs_copy: Option<Direction>,
}

impl JobError {
    pub fn lasting(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        JobError { what: what.into(), remedy: remedy.into(), passing: false, moving: false, needs_copy: None }
    }

    /// A direction's position is lost.
    pub fn needs_copy(direction: Direction, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        JobError { needs_copy: Some(direction), ..JobError::lasting(what, remedy) }
    }

    pub fn passing(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        JobError { what: what.into(), remedy: remedy.into(), passing: true, moving: false, needs_copy: None }
    }

    /// The same, and nothing is the matter but that slots of a cluster move.
    pub fn moving(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        JobError { moving: true, ..JobError::passing(what, remedy) }
    }
}

impl From<NetError> for JobError {
    fn from(e: NetError) -> Self {
        let (what, remedy) = e.parts();
        JobError { what, remedy, passing: !e.needs_a_person(), moving: e.is_redirection(), needs_copy: None }
    }
}

/// How long a run may write to the end what it has decided when the topology has changed.
const HAND_OVER: Duration = Duration::from_millis(500);
/// Keys that are shown as the hottest in conflict.
const HOTTEST: usize = 20;
/// How long halting waits for what is under way.
const DRAIN: Duration = Duration::from_secs(5);

/// A job whose links run in tasks of this process. Dropping it ends them where they are; nothing is lost, since all
/// positions live in the control keys.
pub struct RunningJob {
    inner: Arc<Inner>,
    halt: channel::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

struct Inner {
    context: JobContext,
    state: Mutex<State>,
    limits: Mutex<(u64, u64)>,
    /// On while the begin of a run, that has failed for good, is tried again.
    quiet: Quiet,
    /// Nodes of clusters that were seen, by side: more seeds for when those of the job file are away.
    nodes: Arc<Mutex<[BTreeSet<String>; 2]>>,
}

struct State {
    run: Option<Arc<Run>>,
    /// Between runs: why.
    waiting: Option<JobError>,
    failed: Option<JobError>,
    since: Instant,
    last: Option<JobStatus>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The context, with every node that was seen as one more seed.
    fn with_nodes(&self) -> JobContext {
        let mut context = self.context.clone();
        let nodes = self.nodes.lock().unwrap_or_else(|p| p.into_inner());
        for (instance, nodes) in [&mut context.job.source, &mut context.job.target].into_iter().zip(nodes.iter()) {
            nodes.iter().for_each(|node| instance.add_seed(node));
        }
        context
    }
}

impl RunningJob {
    /// Starts both links; returns when both streams are attached (the first copy may go on for hours). Resumes from
    /// the control keys where the instances hold some of this job's id.
    pub async fn start(context: JobContext) -> Result<RunningJob, JobError> {
        let limits = (context.job.limits.max_ops_per_second, context.job.limits.max_bytes_per_second);
        let quiet = Quiet::default();
        let inner = Arc::new(Inner {
            context: JobContext { events: context.events.quieted(quiet.clone()), ..context },
            quiet,
            state: Mutex::new(State { run: None, waiting: None, failed: None, since: Instant::now(), last: None }),
            limits: Mutex::new(limits),
            nodes: Arc::default(),
        });
        let run = begin(&inner, AttachOptions::default()).await?;
        let (halt, halted) = channel::channel(false);
        let task = tokio::spawn(supervise(inner.clone(), run, halted));
        Ok(RunningJob { inner, halt, task })
    }

    /// How it is now. Cheap: called several times a second.
    pub fn status(&self) -> JobStatus {
        status::of(&self.inner)
    }

    /// Open conflicts, settled ones (newest first, at most `limit`), hottest keys.
    pub fn conflicts(&self, limit: usize) -> (Vec<ConflictRecord>, Vec<ConflictRecord>, Vec<HotKey>) {
        let Some(run) = self.inner.state().run.clone() else { return Default::default() };
        let (mut open, mut settled, mut hot) = (Vec::new(), Vec::new(), Vec::new());
        for strand in &run.strands {
            let core = strand.shared.lock();
            open.extend(core.arbiter.episodes().iter().take(limit).map(|e| core.conflicts.record(e)));
            settled.extend(core.conflicts.latest(limit));
            hot.extend(core.conflicts.hottest(HOTTEST));
        }
        open.sort_by_key(|r: &ConflictRecord| std::cmp::Reverse(r.number));
        if run.strands.len() > 1 {
            settled.sort_by_key(|r: &ConflictRecord| std::cmp::Reverse((r.settled_ms, r.number)));
            settled.truncate(limit);
            hot.sort_by_key(|h: &HotKey| std::cmp::Reverse(h.conflicts));
            hot.truncate(HOTTEST);
        }
        (open, settled, hot)
    }

    /// Settles keys by state transfer as if they were in conflict (`verify --repair`); the source's value stands.
    pub async fn repair(&self, keys: Vec<(u32, Vec<u8>)>) {
        let Some(run) = self.inner.state().run.clone() else { return };
        for some in keys.chunks(64) {
            run.repair(some).await;
        }
    }

    /// Changes the rate limits of the running links; 0 is no limit.
    pub fn set_limits(&self, max_ops_per_second: u64, max_bytes_per_second: u64) {
        let limits = (max_ops_per_second, max_bytes_per_second);
        *self.inner.limits.lock().unwrap_or_else(|p| p.into_inner()) = limits;
        if let Some(run) = &self.inner.state().run {
            run.set_limits(limits.0, limits.1);
        }
    }

    /// Lets what is under way finish (at most a few seconds), then ends the links. Control keys stay.
    pub async fn halt(mut self) {
        let _ = self.halt.send(true);
        if tokio::time::timeout(DRAIN + Duration::from_secs(2), &mut self.task).await.is_err() {
            self.task.abort();
        }
    }

    /// Removes the control keys of a job from both sides. Works for a job that does not run.
    pub async fn remove_control_keys(job: &Job, id: &JobId) -> Result<(), JobError> {
        attach::remove_control_keys(job, id).await
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        let _ = self.halt.send(true);
        if let Some(run) = self.inner.state().run.take() {
            run.abort();
        }
        self.task.abort();
    }
}

async fn begin(inner: &Arc<Inner>, options: AttachOptions) -> Result<Arc<Run>, JobError> {
    let limits = *inner.limits.lock().unwrap_or_else(|p| p.into_inner());
    let context = &inner.with_nodes();
    let attached = match attach::attach(context, options, limits).await {
        // A stream that was taken up in its middle did not say which database it is in: begin it with a full sync.
        Err(e) if e.what == attach::UNKNOWN_DB => {
            attach::attach(context, AttachOptions { reverse_full: true, ..options }, limits).await
        }
        Err(e) if allows_copy(inner, &e) => {
            // The other direction may turn out to be lost as well.
            let again = options.without(e.needs_copy);
            tell_copy(inner, &e);
            match attach::attach(context, again, limits).await {
                Err(e) if allows_copy(inner, &e) && again != again.without(e.needs_copy) => {
                    tell_copy(inner, &e);
                    attach::attach(context, again.without(e.needs_copy), limits).await
                }
                other => other,
            }
        }
        other => other,
    }?;
    let run = Arc::new(Run::spawn(context, attached, &inner.nodes));
    let mut state = inner.state();
    state.run = Some(run.clone());
    state.waiting = None;
    Ok(run)
}

/// The position is lost, and the job's policy allows a new copy.
fn allows_copy(inner: &Inner, error: &JobError) -> bool {
    error.needs_copy.is_some() && inner.context.job.policy.allow_resnapshot
}

fn tell_copy(inner: &Inner, error: &JobError) {
    let text = format!(
        "{}; the job's policy allows a new copy, which begins now: compare both sides with duplex verify afterwards",
        error.what
    );
    inner.context.events.emit(error.needs_copy, Severity::Warning, EventKind::FullResync, text);
}

/// Follows one run after the other until the job is halted or has failed.
async fn supervise(inner: Arc<Inner>, mut run: Arc<Run>, mut halted: channel::Receiver<bool>) {
    let events = inner.context.events.clone();
    let mut pause = Pause::default();
    let mut options = AttachOptions::default();
    loop {
        let mut lost = false;
        let began = Instant::now();
        let end = tokio::select! {
            end = run.ended() => end,
            () = told(&mut halted) => {
                run.drain(DRAIN).await;
                return;
            }
        };
        inner.state().last = Some(status::of(&inner));
        if matches!(end, RunEnd::Topology(_) | RunEnd::Again(_)) {
            // What was decided is written where it still can be: the less is left to be looked at again.
            run.drain(HAND_OVER).await;
        }
        run.abort();
        let error = match end {
            RunEnd::Failed(error) if allows_copy(&inner, &error) => {
                options = options.without(error.needs_copy);
                error
            }
            // Another master may have it.
            RunEnd::Lost(error) => {
                lost = true;
                error
            }
            RunEnd::Failed(error) => {
                events.emit(None, Severity::Error, EventKind::Failed, error.to_string());
                let mut state = inner.state();
                state.run = None;
                state.failed = Some(error);
                return;
            }
            RunEnd::UnknownDb => {
                options.reverse_full = true;
                JobError::passing("the reverse stream has to be taken up with a full sync", "nothing: it is done now")
            }
            RunEnd::Again(error) => error,
            RunEnd::Topology(error) => error,
        };
        events.emit(None, Severity::Warning, EventKind::Disconnected, format!("{error}; starting the links again"));
        let mut wait = pause.after_run(&error, began.elapsed());
        let mut error = error;
        run = loop {
            {
                let mut state = inner.state();
                state.run = None;
                state.waiting = Some(error);
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = told(&mut halted) => return,
            }
            let attempt = tokio::select! {
                attempt = begin(&inner, options) => attempt,
                () = told(&mut halted) => return,
            };
            match attempt {
                Ok(run) => {
                    inner.quiet.off();
                    events.info(None, EventKind::Resumed, "both links run again");
                    break run;
                }
                Err(e) if e.passing => {
                    wait = pause.after_try(&e);
                    error = e;
                }
                Err(e) if lost && e.needs_copy.is_some() => {
                    events.emit(None, Severity::Error, EventKind::Failed, e.to_string());
                    let mut state = inner.state();
                    state.failed = Some(e);
                    return;
                }
                Err(e) => {
                    // It is looked at again now and then. Once told is enough.
                    inner.quiet.on();
                    events.emit(None, Severity::Error, EventKind::Failed, e.to_string());
                    wait = pause.after_try(&e);
                    error = e;
                }
            }
        };
        options = AttachOptions::default();
    }
}

/// Waits for the order to halt (or for nobody being left to give it).
async fn told(halted: &mut channel::Receiver<bool>) {
    let _ = halted.wait_for(|h| *h).await;
}
