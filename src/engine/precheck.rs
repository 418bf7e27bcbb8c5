//! Whether a job may start: every item at once, each with what was seen, why it matters and what to do.
//!
//! ```text
//! reachable ─▶ credentials ─▶ all others, side by side
//! ```
//! An item whose prerequisite failed is skipped. Nothing is ever written to an instance: rights are tried with
//! `ACL DRYRUN`, or by queueing a command in a MULTI that is discarded. The whole run is bounded: each item ends
//! within [`ITEM_LIMIT`].

mod buffers;
mod clock;
mod finding;
mod identity;
mod keys;
mod memory;
mod ownership;
mod proxied;
mod reach;
mod rights;

use super::{
    net::{Deadlines, Dialer},
    probe::{
        info::Info,
        server::{Refusal, Server},
    },
};
use crate::model::{Check, CheckId, CheckReport, CheckState, Job, JobId, Side};
use finding::Finding;
use futures::future::join_all;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio::sync::{OnceCell, mpsc};

/// The longest an item may take.
pub const ITEM_LIMIT: Duration = Duration::from_secs(10);

/// Shorter than a link's, so that an item ends with its own words before [`ITEM_LIMIT`].
const DEADLINES: Deadlines = Deadlines { connect: Duration::from_secs(3), response: Duration::from_secs(8) };

/// The version of the report's shape.
const REPORT_VERSION: u32 = 1;

/// What the precheck has to know beside the job.
#[derive(Debug, Clone, Default)]
pub struct PrecheckOptions {
    /// The folder in which the job's spool will lie; need not exist yet. `None`: the spool's disk is not looked at.
    pub spool_dir: Option<PathBuf>,
    /// Names of the jobs that this engine knows, to say by name whose control keys are found.
    pub names: BTreeMap<JobId, String>,
}

/// One instance of the job while it is checked.
pub(crate) struct SideContext {
    pub side: Side,
    pub dialer: Dialer,
    server: OnceCell<Server>,
    /// In a cluster: the other shards' masters.
    others: OnceCell<Vec<Server>>,
}

impl SideContext {
    /// The connection that all items share: never SELECT on it.
    pub fn server(&self) -> Result<&Server, Refusal> {
        self.server.get().ok_or_else(|| Refusal::Broken("not connected".into()))
    }

    pub async fn info(&self) -> Result<&Info, Refusal> {
        self.server()?.info().await
    }

    /// The masters of a cluster beside the one of [`SideContext::server`].
    pub fn others(&self) -> &[Server] {
        self.others.get().map_or(&[], Vec::as_slice)
    }

    /// A connection of an item's own, on which it may SELECT and MULTI.
    pub async fn own(&self) -> Result<Server, Refusal> {
        let address = self.server()?.address.clone();
        let conn = self.dialer.control(&address).await.map_err(|e| Refusal::Broken(e.to_string()))?;
        Ok(Server::new(conn))
    }

    /// `source 10.0.0.1:6379`, for the beginning of a finding.
    pub fn name(&self) -> String {
        match self.server.get() {
            Some(server) => format!("{} {}", self.side, server.address),
            None => self.side.to_string(),
        }
    }
}

pub(crate) struct Context {
    pub job: Job,
    pub id: Option<JobId>,
    pub options: PrecheckOptions,
    sides: [SideContext; 2],
}

impl Context {
    pub fn side(&self, side: Side) -> &SideContext {
        &self.sides[side.index()]
    }

    pub fn both(&self) -> &[SideContext; 2] {
        &self.sides
    }

    /// A stream is read from this side.
    pub fn reads(&self, side: Side) -> bool {
        side == Side::Source || self.job.policy.two_way
    }

    /// Changes are written to this side.
    pub fn writes(&self, side: Side) -> bool {
        side == Side::Target || self.job.policy.two_way
    }

    /// The databases of a side that are selected by the job and hold keys, with their number of keys.
    pub async fn selected(&self, side: Side) -> Result<Vec<(u32, u64)>, Refusal> {
        let info = self.side(side).info().await?;
        let databases = &self.job.policy.databases;
        Ok(info.keyspace.iter().filter(|k| databases.contains(k.db) && k.keys > 0).map(|k| (k.db, k.keys)).collect())
    }
}

/// Runs all items of the precheck, or those of `only` (what they need is then run silently), and reports each into
/// `progress`: once as running, once with its result. `id` is the job's where it has been started before: control
/// keys of that id mean that it is resumed.
pub async fn run(
    job: &Job,
    id: Option<&JobId>,
    only: Option<&[CheckId]>,
    options: PrecheckOptions,
    progress: Option<mpsc::Sender<Check>>,
) -> CheckReport {
    let name = format!("duplex-precheck:{}", job.name);
    let sides = Side::BOTH.map(|side| SideContext {
        side,
        dialer: Dialer::new(job.instance(side), &name).with_deadlines(DEADLINES),
        server: OnceCell::new(),
        others: OnceCell::new(),
    });
    let cx = Context { job: job.clone(), id: id.cloned(), options, sides };
    let wanted = |item: &CheckId| only.is_none_or(|list| list.contains(item));
    let reporter = Reporter { progress, only };

    let mut items = Vec::new();
    let mut broken: Option<Check> = None;
    for item in [CheckId::Reachable, CheckId::Credentials] {
        let check = match &broken {
            Some(needed) => reporter.skip(item, needed).await,
            None => reporter.run(item, &cx).await,
        };
        if broken.is_none() && check.state == CheckState::Failed {
            broken = Some(check.clone());
        }
        items.push(check);
    }
    let rest = CheckId::ALL.iter().copied().skip(2).filter(wanted);
    match &broken {
        Some(needed) => {
            for item in rest {
                items.push(reporter.skip(item, needed).await);
            }
        }
        None => items.extend(join_all(rest.map(|item| reporter.run(item, &cx))).await),
    }
    items.retain(|check| wanted(&check.id));
    let passed = broken.is_none() && items.iter().all(|c| c.state != CheckState::Failed);
    CheckReport { version: REPORT_VERSION, job: job.name.clone(), passed, items }
}

struct Reporter<'a> {
    progress: Option<mpsc::Sender<Check>>,
    only: Option<&'a [CheckId]>,
}

impl Reporter<'_> {
    async fn tell(&self, check: &Check) {
        if let (Some(progress), true) = (&self.progress, self.only.is_none_or(|list| list.contains(&check.id))) {
            // A listener that has gone does not stop the run.
            let _ = progress.send(check.clone()).await;
        }
    }

    async fn run(&self, id: CheckId, cx: &Context) -> Check {
        let mut check = blank(id, CheckState::Running);
        self.tell(&check).await;
        let start = Instant::now();
        let finding = match tokio::time::timeout(ITEM_LIMIT, look(id, cx)).await {
            Ok(Ok(finding)) => finding,
            Ok(Err(Refusal::Refused(line))) if cx.job.target.hides_shards() => proxied::untold(&line),
            Ok(Err(refusal)) => unknown(&refusal),
            Err(_) => Finding::failed(
                format!("not done within {} s", ITEM_LIMIT.as_secs()),
                "an instance that answers this slowly can't be synced either",
                "look at the instance's load (SLOWLOG GET, LATENCY DOCTOR) and at the network, then run the item again",
            ),
        };
        check.state = finding.state;
        check.side = finding.side;
        check.seen = finding.seen;
        check.why = finding.why;
        check.remedy = finding.remedy;
        check.took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.tell(&check).await;
        check
    }

    async fn skip(&self, id: CheckId, needed: &Check) -> Check {
        let mut check = blank(id, CheckState::Skipped);
        check.side = needed.side;
        check.seen = format!("not done: {} failed", needed.id.as_str());
        check.why = format!("it needs {}: {}", needed.id.as_str(), needed.seen);
        self.tell(&check).await;
        check
    }
}

fn blank(id: CheckId, state: CheckState) -> Check {
    Check { id, state, side: None, seen: String::new(), why: String::new(), remedy: String::new(), took_ms: 0 }
}

/// A question that an item can't do without was not answered.
fn unknown(refusal: &Refusal) -> Finding {
    match refusal {
        Refusal::Refused(line) => Finding::warning(
            format!("unknown: the server answered {line}"),
            "what could not be asked can't be judged",
            "grant the account the command (see the item rights), or look at this by hand",
        ),
        Refusal::Broken(what) => Finding::failed(
            what.clone(),
            "the connection broke while the item was looked at",
            "run the item again; if it stays so, look at the network between here and the instance",
        ),
    }
}

async fn look(id: CheckId, cx: &Context) -> Result<Finding, Refusal> {
    match id {
        CheckId::Reachable => Ok(reach::reachable(cx).await),
        CheckId::Credentials => Ok(reach::credentials(cx).await),
        CheckId::Rights => rights::rights(cx).await,
        CheckId::Version => identity::version(cx).await,
        CheckId::RdbCompatibility => identity::rdb_compatibility(cx).await,
        CheckId::Role => identity::role(cx).await,
        CheckId::Topology => identity::topology(cx).await,
        CheckId::SameInstance => identity::same_instance(cx).await,
        CheckId::TargetEmpty if cx.job.target.hides_shards() => Ok(proxied::target_empty(cx)),
        CheckId::TargetEmpty => keys::target_empty(cx).await,
        CheckId::Databases => keys::databases(cx).await,
        CheckId::MaxmemoryPolicy => memory::maxmemory_policy(cx).await,
        CheckId::Memory => memory::memory(cx).await,
        CheckId::Backlog => buffers::backlog(cx).await,
        CheckId::OutputBuffer => buffers::output_buffer(cx).await,
        CheckId::Fork => buffers::fork(cx).await,
        CheckId::SpoolDisk => memory::spool_disk(cx).await,
        CheckId::Clock => clock::clock(cx).await,
        CheckId::Commands => rights::commands(cx).await,
        CheckId::ControlKeys => ownership::control_keys(cx).await,
        CheckId::BigKeys => keys::big_keys(cx).await,
    }
}

/// A number of bytes for people: `64 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    humansize::format_size(bytes, humansize::BINARY)
}

/// A key for people: lossy, at most 80 characters.
pub(crate) fn show(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(key);
    let mut shown: String = text.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().count() > 80 {
        shown.push('…');
    }
    shown
}
