//! From which server of a site its stream is read: the master, or by the user's choice (`read_from = "replica"`) the best
//! of its replicas. Writes go to the master in any case.
//!
//! The replicas of one master share its history and its offsets, so a link goes from one to the other where it stands.
//! A replica that dies is left by the link itself (`replica/task`); one that stays behind is left from here, and so is the
//! master as soon as there is a replica again.

use super::{JobContext, JobError};
use crate::engine::net::{Control, Deadlines, Dialer};
use crate::engine::replica::{ReplicaHandle, ReplicaState};
use crate::model::job::ReadFrom;
use crate::model::{Direction, EventKind, Offset, Severity};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a replica is looked at.
const EVERY: Duration = Duration::from_secs(2);
/// A replica may stay behind its master for so long: it may be loading, or its link be mended.
const PATIENCE: Duration = Duration::from_secs(8);
/// Behind by more is behind. What is in flight between two servers under load is less.
const BEHIND_BYTES: u64 = 4 << 20;

/// Where to read from at the begin of a run: a replica that has the stream up to `at`, or the master where there is none.
pub async fn choose(
    context: &JobContext,
    direction: Direction,
    dialer: &Dialer,
    master: &str,
    at: Option<Offset>,
) -> Result<String, JobError> {
    if dialer.instance().read_from == ReadFrom::Master {
        return Ok(master.to_owned());
    }
    let seen = dialer.replicas(master).await?;
    if let Some(best) = seen.best(at) {
        return Ok(best.address.clone());
    }
    let why =
        if seen.good.is_empty() { seen.why_none() } else { "none has the stream up to where it is taken up".into() };
    let text = format!("the stream is read from the master {master}, since no replica can be read from: {why}");
    context.events.emit(Some(direction), Severity::Warning, EventKind::Failover, text);
    Ok(master.to_owned())
}

/// Looks for ever whether the server that the stream is read from is still the one to read from.
pub async fn follow(replica: Arc<ReplicaHandle>, dialer: Dialer, mut at_master: Control, master: String) {
    let dialer = dialer.with_deadlines(Deadlines { connect: EVERY, response: EVERY });
    let mut behind_since: Option<Instant> = None;
    loop {
        tokio::time::sleep(EVERY).await;
        let address = replica.address();
        // While it connects or copies, it goes its own way.
        if *replica.state().borrow() != ReplicaState::Streaming {
            behind_since = None;
            continue;
        }
        if address == master {
            let seen = dialer.replicas(&master).await;
            if seen.is_ok_and(|seen| seen.best(Some(replica.received())).is_some()) {
                replica.leave();
            }
            continue;
        }
        let Ok(end) = at_master.info().await.map(|info| info.master_repl_offset) else { continue };
        let info = dialer.info(&address).await;
        let well = info.is_ok_and(|info| {
            let lag = end.zip(info.master_repl_offset).map_or(0, |(end, at)| end.since(at));
            info.master_link_up == Some(true) && lag <= BEHIND_BYTES
        });
        if well {
            behind_since = None;
        } else if behind_since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
            behind_since = None;
            replica.leave();
        }
    }
}
