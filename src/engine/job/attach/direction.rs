//! One direction is attached: its spool, its replica, its link, and where its stream begins.

use super::plan::{Begin, Plan};
use super::{Attached, Ready, client_name, share};
use crate::engine::apply::control_key::{LoadPhase, Position};
use crate::engine::arbiter::leftovers::Leftovers;
use crate::engine::clock::StreamClock;
use crate::engine::core::{SiteFacts, own_prefix};
use crate::engine::gauge::Gauge;
use crate::engine::job::{JobContext, JobError, reading};
use crate::engine::link::decide::{Decider, DeciderSetup};
use crate::engine::link::home::Home;
use crate::engine::link::loader::Loader;
use crate::engine::link::peer::Peer;
use crate::engine::link::{Link, LinkSetup, UNKNOWN_DB as NO_DB};
use crate::engine::net::Dialer;
use crate::engine::replica::{Replica, ReplicaHandle, ReplicaOptions, ReplicaState, Start};
use crate::engine::spool::{Spool, SpoolOptions, SpoolReader, SpoolWriter};
use crate::model::job::ReadFrom;
use crate::model::{Direction, Offset, ReplId};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What a link reads from.
pub(super) struct Reading {
    pub gauge: Arc<Gauge>,
    pub replica: Arc<ReplicaHandle>,
    pub spool: SpoolReader,
    /// Of so many strands that are read together this is one, and perhaps the first of them.
    pub together: usize,
    pub first: bool,
    /// Where the stream begins, for this strand.
    pub replid: ReplId,
    pub at: Offset,
}

/// A strand's own spool and gauge.
pub(super) fn spool(
    context: &JobContext,
    ready: &Ready,
    direction: Direction,
    strands: usize,
) -> Result<(SpoolWriter, SpoolReader), JobError> {
    let limits = &context.job.limits;
    spool_in(
        context,
        &match &ready.strand {
            None => direction.as_str().to_owned(),
            Some(strand) => format!("{direction}-{}", strand.id),
        },
        share(limits.spool_memory, strands),
        share(limits.spool_disk, strands),
    )
}

pub(super) fn spool_in(
    context: &JobContext,
    folder: &str,
    memory_bytes: u64,
    disk_bytes: u64,
) -> Result<(SpoolWriter, SpoolReader), JobError> {
    let options = SpoolOptions { memory_bytes, disk_bytes, dir: context.spool_dir.join(folder) };
    Spool::new(options).map_err(|e| JobError::lasting(e.to_string(), "mend the disk or move the state folder"))
}

pub(super) fn gauge(direction: Direction, begin: Begin, limits: (u64, u64), plan: &Plan) -> Arc<Gauge> {
    let applied = match begin {
        Begin::Position(_, at) => plan.from[direction as usize].map_or(at.offset, |k| k.applied.offset),
        _ => Offset(0),
    };
    Arc::new(Gauge::new(applied, limits.0, limits.1))
}

/// A replica of the site that a direction reads.
pub(super) async fn replica(
    context: &JobContext,
    ready: &Ready,
    direction: Direction,
    begin: Begin,
    writer: SpoolWriter,
    applied: watch::Receiver<Offset>,
) -> Result<(ReplicaHandle, ReplId, Offset), JobError> {
    let (job, from) = (&context.job, direction.from());
    let site = &ready.sites[from.index()];
    let dialer = site.dialer.named(&client_name(&context.id, "replica", ready.strand.as_deref()));
    let mut options = ReplicaOptions::new(context.events.clone(), direction, applied);
    options.dialect = Some(site.dialect);
    let start = match begin {
        Begin::Snapshot => Start::Full { keep_snapshot: true },
        Begin::Nothing(start) => start,
        Begin::Position(replid, at) => Start::Resume { replid, offset: at.offset },
    };
    let mut address = site.address.clone();
    if site.is_master {
        let at = match begin {
            Begin::Position(_, at) => Some(at.offset),
            _ => None,
        };
        address = reading::choose(context, direction, &dialer, &site.address, at).await?;
        options.replicas_of = (job.instance(from).read_from == ReadFrom::Replica).then(|| site.address.clone());
    }
    let replica = Replica::spawn(dialer, &address, start, writer, options);
    let (replid, at) = wait_attached(&replica, direction).await?;
    Ok((replica, replid, at))
}

/// One direction, ready to go, and where its stream begins.
pub(super) fn attached(
    context: &JobContext,
    ready: &Ready,
    facts: &[SiteFacts; 2],
    direction: Direction,
    begin: Begin,
    plan: &Plan,
    reading: Reading,
) -> Result<(Attached, Position), JobError> {
    let (job, from, to) = (&context.job, direction.from(), direction.to());
    let site = &ready.sites[from.index()];
    let Reading { gauge, replica, spool: reader, together, first, replid, at } = reading;
    let spool = reader.releaser();
    if matches!(begin, Begin::Position(..)) && site.lineage.is_some_and(|l| l.replid != replid) {
        let what = format!("{} has begun another history while it was attached to", site.address);
        return Err(JobError::passing(what, "it is looked at again"));
    }
    let db = match begin {
        // A cluster has no other.
        _ if site.names.is_cluster() => 0,
        Begin::Position(_, p) => p.db,
        Begin::Nothing(Start::Current) => NO_DB,
        _ => 0,
    };
    let position = Position { offset: at, db };
    *ready.replids[from.index()].write().unwrap_or_else(|p| p.into_inner()) = Some(replid);
    let with_snapshot = matches!(begin, Begin::Snapshot);
    {
        let mut core = ready.shared.lock();
        core.decided[from.index()] = position;
        core.phase[from.index()] = if with_snapshot { LoadPhase::Loading } else { LoadPhase::Streaming };
        if let Some(own) = plan.from[direction as usize] {
            core.echoed[from.index()] = own.echoed;
        }
        if with_snapshot {
            // A copy that did not end has left keys whose expiry it had put off.
            core.expiries[to.index()].begin(ready.sites[to.index()].keys > 0);
        }
        if with_snapshot && direction == Direction::Forward && job.policy.two_way {
            core.arbiter.loading(Some(from));
            if plan.left_over {
                core.arbiter.expect_leftovers(Leftovers::unknown());
            }
        }
        core.replied[to.index()] = plan.from[direction as usize].map_or(position, |k| k.applied);
    }
    let merge = plan.merge && direction == Direction::Reverse;
    let target = facts[to.index()].dialect;
    let databases = job.policy.databases.clone();
    // What stands in the target's stream and the unfinished copy may have written over.
    let unfinished = site.found.is_some_and(|k| k.phase == LoadPhase::Loading);
    let doubtful_until = if direction == Direction::Reverse && unfinished { site.stream_end } else { Offset(0) };
    let decider = Decider::new(DeciderSetup {
        here: from,
        epoch: ready.epoch,
        names: facts[from.index()].names.clone(),
        there: facts[to.index()].names.clone(),
        own_prefix: Bytes::from(own_prefix(&context.id)),
        databases: databases.clone(),
        target,
        forward_flush: job.policy.forward_flush,
        two_way: job.policy.two_way,
        // Without a position that goes on, a snapshot tells all that the other site holds.
        peer_lineage: ready.sites[to.index()].lineage.filter(|_| plan.knows_echoes_of(to)),
        doubtful_until,
        ahead: plan.ahead[direction as usize].clone(),
        brought: match plan.copies_again {
            // The copy tells of what the source holds, and what clients did at the target is wanted in their own words.
            true => Default::default(),
            false => (plan.moved[from.index()].clone(), site.stream_end),
        },
        heard: context.homes.heard.clone(),
    });
    let clock = Arc::new(StreamClock::new(site.way_ms));
    let link = Link::new(LinkSetup {
        shared: ready.shared.clone(),
        gauge: gauge.clone(),
        events: context.events.clone(),
        direction,
        replica: replica.clone(),
        spool: reader,
        in_parts: together > 1,
        decider,
        loader: Loader::new(from, target, databases.clone(), merge, false, facts[to.index()].names.clone()),
        home: site.names.is_cluster().then(|| {
            let dialer = Dialer::new(job.instance(from), &client_name(&context.id, "control", None));
            Home::new(dialer, site.address.clone(), context.homes.clone())
        }),
        peer: Peer::new(
            ready.sites[to.index()].dialer.clone(),
            ready.sites[to.index()].address.clone(),
            facts[to.index()].names.is_cluster(),
        ),
        left_over: (with_snapshot && direction == Direction::Forward && plan.left_over).then(|| databases.clone()),
        replids: ready.replids.clone(),
        from: position,
        control_db: ready.control_db,
        clock: clock.clone(),
        unread_until: site.stream_end,
    });
    let attached =
        Attached { direction, clock, link, gauge, replica, spool, with_snapshot, together, first, writer: None };
    Ok((attached, position))
}

/// Waits for the stream's begin; what only a person can mend is told at once.
async fn wait_attached(replica: &ReplicaHandle, direction: Direction) -> Result<(ReplId, Offset), JobError> {
    /// A snapshot begins when the source has forked, and a busy source forks when its present save has ended.
    const PATIENCE: Duration = Duration::from_secs(120);
    let mut state = replica.state();
    let watched = async {
        loop {
            match &*state.borrow_and_update() {
                ReplicaState::Failed { why, remedy, .. } => {
                    return JobError::lasting(format!("{direction} link: {why}"), remedy.clone());
                }
                ReplicaState::Reconnecting { why, attempt, .. } if *attempt >= 3 => {
                    return JobError::passing(format!("{direction} link: {why}"), "check that the source is up");
                }
                _ => {}
            }
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let attached = async {
        match tokio::time::timeout(PATIENCE, replica.attached()).await {
            Ok(Ok(position)) => Ok(position),
            Ok(Err(ReplicaState::PositionLost { asked, .. })) => Err(position_lost(direction, asked.1)),
            Ok(Err(other)) => Err(JobError::passing(format!("{direction} link: ended as {other:?}"), "start it again")),
            Err(_) => Err(JobError::passing(
                format!("{direction} link: the source did not begin to send within {} s", PATIENCE.as_secs()),
                "see the source's log: it may not be able to fork",
            )),
        }
    };
    tokio::select! {
        biased;
        done = attached => done,
        error = watched => Err(error),
    }
}

/// The error that says that the source has not kept the stream.
pub fn position_lost(direction: Direction, asked: Offset) -> JobError {
    JobError::needs_copy(
        direction,
        format!(
            "{direction} link: the {} no longer has its stream from offset {asked} on: the backlog was too small for \
             the time away",
            direction.from()
        ),
        "compare both sides with duplex verify, then start with a new copy (duplex start --discard-previous), or set \
         policy.allow_resnapshot; a larger repl-backlog-size there makes the window longer",
    )
}
