//! A job's status, put together from what its parts measure.

mod shards;

use super::Inner;
use super::progress::Seen;
use super::run::{LinkRun, Run, StrandRun};
use crate::engine::apply::control_key::LoadPhase;
use crate::engine::conflicts::shown;
use crate::engine::core::given_up::GivenUp;
use crate::engine::gauge::Condition;
use crate::engine::replica::ReplicaState;
use crate::engine::strand::SlotSet;
use crate::model::status::Alert;
use crate::model::{Direction, JobStatus, LinkState, LinkStatus, Severity, ShardStatus, SnapshotStatus};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Below this a link that catches up is called in step, in milliseconds and bytes.
const CAUGHT_UP_MS: u64 = 1000;
const CAUGHT_UP_BYTES: u64 = 1 << 20;
/// Keys that are named as those with the most conflicts.
const HOT_KEYS: usize = 5;

pub fn of(inner: &Inner) -> JobStatus {
    let job = &inner.context.job;
    let state = inner.state();
    let (run, waiting, failed) = (state.run.clone(), state.waiting.clone(), state.failed.clone());
    let uptime = state.since.elapsed().as_secs();
    let last = state.last.clone();
    drop(state);
    let mut status = JobStatus {
        name: job.name.clone(),
        id: inner.context.id.clone(),
        state: LinkState::Initializing,
        reason: None,
        uptime_seconds: Some(uptime),
        source: job.source.label().to_owned(),
        target: job.target.label().to_owned(),
        two_way: job.policy.two_way,
        conflicts_open: 0,
        conflicts_settled: 0,
        conflict_rounds: 0,
        hot_keys: Vec::new(),
        links: Vec::new(),
        alerts: Vec::new(),
    };
    match (run, failed.or(waiting)) {
        (Some(run), _) => {
            let mut parts: [Vec<LinkStatus>; 2] = Default::default();
            for strand in &run.strands {
                {
                    let core = strand.shared.lock();
                    status.conflicts_open += core.open() as u64;
                    status.hot_keys.extend(core.conflicts.hottest(HOT_KEYS));
                    status.alerts.extend(given_up(&core.given_up));
                }
                for l in &strand.links {
                    let part = link(strand, l, &run, job.limits.lag_alert_ms);
                    parts[l.direction as usize].push(part);
                }
            }
            status.links = parts.into_iter().filter_map(shards::together).collect();
            status.alerts.extend(run.strands.iter().flat_map(|s| &s.links).filter_map(evicted));
            status.hot_keys.sort_by_key(|k| std::cmp::Reverse(k.conflicts));
            status.hot_keys.truncate(HOT_KEYS);
        }
        (None, error) => {
            // The last numbers stand; only the state has changed.
            let passing = error.as_ref().is_some_and(|e| e.passing);
            let state = if passing { LinkState::Reconnecting } else { LinkState::Failed };
            status.reason = error.map(|e| e.to_string());
            status.links = last.map(|l| l.links).unwrap_or_default();
            for link in &mut status.links {
                link.state = state;
                link.reason = status.reason.clone();
                (link.lag_ms, link.lag_bytes, link.changes_per_second, link.bytes_per_second) =
                    (None, None, None, None);
            }
        }
    }
    status.conflicts_settled = status.links.iter().map(|l| l.conflicts_settled).sum();
    status.conflict_rounds = status.links.iter().map(|l| l.conflict_rounds).sum();
    if let Some(worst) = status.links.iter().max_by_key(|l| l.state.urgency()) {
        status.state = worst.state;
        status.reason = worst.reason.clone();
    }
    status
}

/// Keys that a side does not take: nobody but the operator can do something about them.
fn given_up(given_up: &GivenUp) -> Vec<Alert> {
    let mut alerts = Vec::new();
    for direction in [Direction::Forward, Direction::Reverse] {
        let (count, Some((db, key, why))) = given_up.of(direction.to()) else { continue };
        let (key, to) = (shown(key), direction.to());
        alerts.push(Alert {
            rule: "keys_given_up".into(),
            direction: Some(direction),
            severity: Severity::Error,
            text: format!("{count} keys can't be carried to the {to}, such as {key:?} in db{db}: {why}"),
            remedy: format!(
                "see the events for their names; give the {to} what it lacks (a module, a newer version) and run \
                 duplex verify --repair, or delete these keys"
            ),
        });
    }
    alerts
}

/// A side drops keys for want of memory: each is a deletion to the other side.
fn evicted(l: &LinkRun) -> Option<Alert> {
    let (count, from) = (l.source.get().evicted?, l.direction.from());
    Some(Alert {
        rule: "keys_evicted".into(),
        direction: Some(l.direction),
        severity: Severity::Warning,
        text: format!(
            "the {from} evicts keys for want of memory, {count} since the links run: each is deleted at the {} too",
            from.other()
        ),
        remedy: format!("raise maxmemory at the {from}, or set maxmemory-policy noeviction there"),
    })
}

fn link(strand: &StrandRun, l: &LinkRun, run: &Run, lag_alert_ms: u64) -> LinkStatus {
    let (counters, open, loading, read, waiting) = {
        let core = strand.shared.lock();
        let from = l.direction.from();
        let waiting = core.out[l.direction.to().index()].len();
        (
            core.arbiter.counters(),
            core.arbiter.episodes().iter().filter(|e| e.authority == from).count() as u64,
            core.phase[from.index()] == LoadPhase::Loading,
            core.snapshot_end[from.index()].is_some(),
            waiting,
        )
    };
    let spool = l.spool.stats();
    let facts = l.source.get();
    let mut status = LinkStatus {
        direction: l.direction,
        state: LinkState::Initializing,
        reason: None,
        snapshot: None,
        lag_ms: None,
        lag_bytes: None,
        changes_per_second: None,
        bytes_per_second: None,
        changes_applied: 0,
        echoes_dropped: 0,
        // A conflict is booked once, with the link that carries the state: both together are the job's.
        conflicts_settled: counters.settled[l.direction.from().index()],
        conflict_rounds: counters.rounds[l.direction.from().index()],
        conflicts_open: open,
        apply_errors: 0,
        resume_window_seconds: facts.resume_window_seconds,
        backlog_bytes: facts.backlog_bytes,
        spool_bytes: spool.bytes_memory + spool.bytes_disk,
        spool_full: spool.full,
        in_flight: 0,
        reconnects: 0,
        shards: Vec::new(),
    };
    let replica = l.replica.state().borrow().clone();
    let received = l.replica.received();
    l.gauge.fill(&mut status, received, !loading && matches!(replica, ReplicaState::Streaming));
    if l.first {
        status.reconnects += l.replica.counters().reconnects;
    }
    if l.with_snapshot {
        // What a shard says of its keys is not said of a part of its slots.
        let keys = l.gauge.snapshot_total.load(Relaxed);
        let keys = if strand.strand.is_some() { l.keys_expected } else { keys.max(l.keys_expected) };
        status.snapshot = Some(snapshot(l, &replica, loading, keys));
    }
    (status.state, status.reason) = state(l, &replica, (loading, read), waiting, &status, lag_alert_ms);
    if spool.full {
        status.reason.get_or_insert("the spool is full: reading from the source is paused".into());
    }
    let address = l.replica.address();
    let shard = run.maps[l.direction.from().index()].iter().find(|m| m.address == address);
    status.shards = vec![ShardStatus {
        slots: shard.filter(|m| !m.slots.is_empty()).map(|m| SlotSet::of(&m.slots).to_string()),
        address,
        replid: l.replica.replid().map(|r| r.to_string()),
        offset_received: Some(received.0),
        offset_applied: (!loading).then(|| l.gauge.applied_offset().0),
        state: Some(status.state),
        lag_ms: status.lag_ms,
    }];
    status
}

fn state(
    l: &LinkRun,
    replica: &ReplicaState,
    (loading, read): (bool, bool),
    waiting: usize,
    status: &LinkStatus,
    lag_alert_ms: u64,
) -> (LinkState, Option<String>) {
    match replica {
        ReplicaState::Reconnecting { why, .. } => return (LinkState::Reconnecting, Some(why.clone())),
        ReplicaState::Failed { why, remedy, .. } => {
            return (LinkState::Reconnecting, Some(format!("{why}; {remedy}")));
        }
        ReplicaState::PositionLost { .. } | ReplicaState::Stopped => return (LinkState::Reconnecting, None),
        _ => {}
    }
    match l.gauge.condition() {
        Condition::Fine => {}
        Condition::Reconnecting { why } => return (LinkState::Reconnecting, Some(why)),
        Condition::Refused { why, remedy } => return (LinkState::Reconnecting, Some(format!("{why}; {remedy}"))),
    }
    if loading || !matches!(replica, ReplicaState::Streaming) {
        let state = if loading && read { LinkState::CatchingUp } else { LinkState::Initializing };
        return (state, None);
    }
    let (ms, bytes) = (status.lag_ms.unwrap_or(0), status.lag_bytes.unwrap_or(0));
    let near = ms < CAUGHT_UP_MS && bytes < CAUGHT_UP_BYTES && waiting < 1024;
    if near {
        l.caught_up.store(true, Relaxed);
    }
    if !l.caught_up.load(Relaxed) {
        return (LinkState::CatchingUp, None);
    }
    if ms >= lag_alert_ms {
        return (LinkState::Lagging, Some(format!("{:.1} s behind", ms as f64 / 1000.0)));
    }
    (LinkState::Synchronizing, None)
}

fn snapshot(l: &LinkRun, replica: &ReplicaState, loading: bool, keys_expected: u64) -> SnapshotStatus {
    let seen = Seen {
        loading,
        keys_read: l.gauge.snapshot_keys.load(Relaxed),
        keys_applied: l.gauge.changes.load(Relaxed),
        keys_expected,
        bytes_read: l.gauge.snapshot_bytes.load(Relaxed),
        replica,
        together: l.together as u64,
    };
    l.progress.lock().unwrap_or_else(|p| p.into_inner()).status(seen, Instant::now())
}
