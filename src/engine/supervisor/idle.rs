//! The status of a job whose links don't run.

use crate::model::{Direction, Job, JobId, JobStatus, LinkState, LinkStatus};

/// A job in `state`, with nothing known about its links.
pub fn status(job: &Job, id: &JobId, state: LinkState, reason: Option<&str>) -> JobStatus {
    let directions = if job.policy.two_way { &Direction::BOTH[..] } else { &Direction::BOTH[..1] };
    JobStatus {
        name: job.name.clone(),
        id: id.clone(),
        state,
        reason: reason.map(str::to_owned),
        uptime_seconds: None,
        source: job.source.label().to_owned(),
        target: job.target.label().to_owned(),
        two_way: job.policy.two_way,
        conflicts_open: 0,
        conflicts_settled: 0,
        conflict_rounds: 0,
        hot_keys: Vec::new(),
        links: directions.iter().map(|d| link(*d, state, reason)).collect(),
        alerts: Vec::new(),
    }
}

fn link(direction: Direction, state: LinkState, reason: Option<&str>) -> LinkStatus {
    LinkStatus {
        direction,
        state,
        reason: reason.map(str::to_owned),
        snapshot: None,
        lag_ms: None,
        lag_bytes: None,
        changes_per_second: None,
        bytes_per_second: None,
        changes_applied: 0,
        echoes_dropped: 0,
        conflicts_settled: 0,
        conflict_rounds: 0,
        conflicts_open: 0,
        apply_errors: 0,
        resume_window_seconds: None,
        backlog_bytes: None,
        spool_bytes: 0,
        spool_full: false,
        in_flight: 0,
        reconnects: 0,
        shards: Vec::new(),
    }
}

/// What a job's links had counted when they were halted; what holds only while they run is unknown again.
pub fn halted(mut last: JobStatus, state: LinkState, reason: Option<&str>) -> JobStatus {
    last.state = state;
    last.reason = reason.map(str::to_owned);
    last.uptime_seconds = None;
    last.alerts.clear();
    for link in &mut last.links {
        link.state = state;
        link.reason = reason.map(str::to_owned);
        (link.lag_ms, link.lag_bytes) = (None, None);
        (link.changes_per_second, link.bytes_per_second) = (None, None);
        link.resume_window_seconds = None;
        link.in_flight = 0;
        for shard in &mut link.shards {
            shard.state = Some(state);
            shard.lag_ms = None;
        }
    }
    last
}
