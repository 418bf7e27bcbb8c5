//! What the task tells and others see: the state, the position, the counters.

use crate::model::{Offset, ReplId};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Where the replica is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicaState {
    Connecting,
    Handshaking,
    /// The master prepares a snapshot (it forks, or waits for more replicas).
    WaitingForSnapshot,
    Snapshot {
        bytes_done: u64,
        bytes_total: Option<u64>,
    },
    Streaming,
    /// The connection failed; it is tried again. `attempt` counts from 1 since the last success.
    Reconnecting {
        why: String,
        attempt: u32,
        since: Instant,
    },
    /// The master has not kept the stream from where we are. The task has ended.
    PositionLost {
        asked: (ReplId, Offset),
        offered: (ReplId, Offset),
    },
    /// A person has to do something; it is tried again each 15 s all the same.
    Failed {
        why: String,
        remedy: String,
        since: Instant,
    },
    /// The task has ended: it was stopped, or nobody reads the spool.
    Stopped,
}

impl ReplicaState {
    /// Whether the task has ended.
    pub fn is_final(&self) -> bool {
        matches!(self, ReplicaState::PositionLost { .. } | ReplicaState::Stopped)
    }
}

/// Totals since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ReplicaCounters {
    /// Bytes read, snapshots included.
    pub bytes: u64,
    /// Over the last second.
    pub bytes_per_second: u64,
    /// Connections made after the first.
    pub reconnects: u64,
    pub full_resyncs: u64,
    /// Age of the last byte; `None` before the first.
    pub silent_for: Option<Duration>,
}

/// A running replica. Dropping it ends the task at once.
#[derive(Debug)]
pub struct ReplicaHandle {
    state: watch::Receiver<ReplicaState>,
    attached: watch::Receiver<Option<(ReplId, Offset)>>,
    shared: Arc<Shared>,
    stop: Arc<tokio::sync::Notify>,
    leave: Arc<tokio::sync::Notify>,
    task: Option<JoinHandle<()>>,
}

impl ReplicaHandle {
    /// The state, and how to be told of the next. Progress of a snapshot is told at most ten times a second.
    pub fn state(&self) -> watch::Receiver<ReplicaState> {
        self.state.clone()
    }

    /// The name of the stream's history as of now.
    pub fn replid(&self) -> Option<ReplId> {
        self.shared.name().replid
    }

    /// The master that it is attached to, or tries.
    pub fn address(&self) -> String {
        self.shared.name().address.clone()
    }

    /// End of what was taken into the spool.
    pub fn received(&self) -> Offset {
        Offset(self.shared.received.load(Relaxed))
    }

    /// Puts into `out` when the bytes behind `from` came: (their end, milliseconds since 1970), in order. What came
    /// before is forgotten, if nobody else reads them.
    pub fn read_times(&self, from: Offset, alone: bool, out: &mut Vec<(u64, u64)>) {
        if alone {
            self.forget_times(from);
        }
        let times = self.shared.times();
        let first = times.partition_point(|(end, _)| *end <= from.0);
        out.clear();
        // A batch spans few reads, unless it comes from a file.
        out.extend(times.range(first..).take(SPAN));
    }

    /// Nobody asks any more when the bytes before `upto` came.
    pub fn forget_times(&self, upto: Offset) {
        let mut times = self.shared.times();
        while times.front().is_some_and(|(end, _)| *end <= upto.0) {
            times.pop_front();
        }
    }

    /// For how many milliseconds bytes behind `from` have been here.
    pub fn unread_ms(&self, from: Offset) -> Option<u64> {
        let times = self.shared.times();
        let (_, at) = times.iter().find(|(end, _)| *end > from.0)?;
        Some(unix_ms().saturating_sub(*at))
    }

    pub fn counters(&self) -> ReplicaCounters {
        let shared = &self.shared;
        let last = shared.last_byte_ms.load(Relaxed);
        let now = shared.since.elapsed();
        ReplicaCounters {
            bytes: shared.bytes.load(Relaxed),
            bytes_per_second: shared.rate.load(Relaxed),
            reconnects: shared.reconnects.load(Relaxed),
            full_resyncs: shared.full_resyncs.load(Relaxed),
            silent_for: (last > 0).then(|| now.saturating_sub(Duration::from_millis(last))),
        }
    }

    /// Waits until the stream's beginning is known (CONTINUE or FULLRESYNC was answered): its name and first
    /// position. The error is the state in which the task ended.
    pub async fn attached(&self) -> Result<(ReplId, Offset), ReplicaState> {
        let mut attached = self.attached.clone();
        match attached.wait_for(Option::is_some).await {
            Ok(position) => position.ok_or(ReplicaState::Stopped),
            Err(_) => Err(self.state.borrow().clone()),
        }
    }

    /// Ends the connection; the stream goes on from another server: one that [`ReplicaOptions`](super::ReplicaOptions)
    /// says to look for.
    pub fn leave(&self) {
        self.leave.notify_one();
    }

    /// Ends the connection and the task, and waits for it.
    pub async fn stop(mut self) {
        self.stop.notify_one();
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }

    pub(super) fn with_task(mut self, task: JoinHandle<()>) -> Self {
        self.task = Some(task);
        self
    }
}

impl Drop for ReplicaHandle {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Numbers that are written while bytes move.
#[derive(Debug)]
struct Shared {
    since: Instant,
    received: AtomicU64,
    bytes: AtomicU64,
    rate: AtomicU64,
    reconnects: AtomicU64,
    full_resyncs: AtomicU64,
    last_byte_ms: AtomicU64,
    name: Mutex<Name>,
    /// When which bytes of the stream came: their end, milliseconds since 1970.
    times: Mutex<VecDeque<(u64, u64)>>,
}

/// So many times are remembered; beyond them every second one is.
const TIMES: usize = 8192;
/// And so many of them are told at once.
const SPAN: usize = 64;

#[derive(Debug, Clone)]
struct Name {
    address: String,
    replid: Option<ReplId>,
    /// Whether the stream can be resumed from *received*: it has begun, and no snapshot is under way.
    resumable: bool,
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

impl Shared {
    fn times(&self) -> std::sync::MutexGuard<'_, VecDeque<(u64, u64)>> {
        self.times.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Bytes up to here have come now.
    fn came(&self, end: Offset) {
        let (mut times, now) = (self.times(), unix_ms());
        match times.back_mut() {
            Some(last) if last.1 == now => last.0 = end.0,
            _ => times.push_back((end.0, now)),
        }
        if times.len() > TIMES {
            // The later of two stands for both, so that none is lost; the newest is kept.
            let mut keep = times.len().is_multiple_of(2);
            times.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    fn name(&self) -> std::sync::MutexGuard<'_, Name> {
        self.name.lock().unwrap_or_else(|p| p.into_inner())
    }
}

/// The task's side.
pub(super) struct Publisher {
    state: watch::Sender<ReplicaState>,
    attached: watch::Sender<Option<(ReplId, Offset)>>,
    shared: Arc<Shared>,
    stop: Arc<tokio::sync::Notify>,
    leave: Arc<tokio::sync::Notify>,
}

pub(super) fn channel(address: &str) -> (Publisher, ReplicaHandle) {
    let (state, state_seen) = watch::channel(ReplicaState::Connecting);
    let (attached, attached_seen) = watch::channel(None);
    let stop = Arc::new(tokio::sync::Notify::new());
    let leave = Arc::new(tokio::sync::Notify::new());
    let shared = Arc::new(Shared {
        since: Instant::now(),
        received: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        rate: AtomicU64::new(0),
        reconnects: AtomicU64::new(0),
        full_resyncs: AtomicU64::new(0),
        last_byte_ms: AtomicU64::new(0),
        name: Mutex::new(Name { address: address.to_owned(), replid: None, resumable: false }),
        times: Mutex::default(),
    });
    let handle = ReplicaHandle {
        state: state_seen,
        attached: attached_seen,
        shared: shared.clone(),
        stop: stop.clone(),
        leave: leave.clone(),
        task: None,
    };
    (Publisher { state, attached, shared, stop, leave }, handle)
}

impl Publisher {
    pub fn state(&self, state: ReplicaState) {
        self.state.send_if_modified(|now| {
            let changed = *now != state;
            *now = state;
            changed
        });
    }

    /// The stream begins here, right away or behind a snapshot.
    pub fn attached(&self, replid: ReplId, at: Offset, resumable: bool) {
        self.set_received(at);
        let mut name = self.shared.name();
        (name.replid, name.resumable) = (Some(replid), resumable);
        drop(name);
        self.attached.send_replace(Some((replid, at)));
    }

    /// The snapshot is complete: from here on the stream can be resumed.
    pub fn snapshot_complete(&self) {
        self.shared.name().resumable = true;
    }

    /// Where the stream can be resumed.
    pub fn position(&self) -> Option<(ReplId, Offset)> {
        let name = self.shared.name();
        name.replid.filter(|_| name.resumable).map(|replid| (replid, self.received()))
    }

    pub fn set_address(&self, address: &str) {
        self.shared.name().address = address.to_owned();
    }

    pub fn address(&self) -> String {
        self.shared.name().address.clone()
    }

    pub fn set_received(&self, offset: Offset) {
        self.shared.received.store(offset.0, Relaxed);
    }

    /// Bytes of the stream up to here have come.
    pub fn stream_came(&self, end: Offset) {
        self.shared.came(end);
    }

    pub fn received(&self) -> Offset {
        Offset(self.shared.received.load(Relaxed))
    }

    /// `bytes` more were read.
    pub fn read(&self, bytes: usize) {
        self.shared.bytes.fetch_add(bytes as u64, Relaxed);
        self.shared.last_byte_ms.store((self.shared.since.elapsed().as_millis() as u64).max(1), Relaxed);
    }

    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Relaxed)
    }

    pub fn set_rate(&self, bytes_per_second: u64) {
        self.shared.rate.store(bytes_per_second, Relaxed);
    }

    pub fn reconnected(&self) {
        self.shared.reconnects.fetch_add(1, Relaxed);
    }

    pub fn resynced(&self) {
        self.shared.full_resyncs.fetch_add(1, Relaxed);
    }

    /// Completes when the handle's `leave` was called.
    pub fn leave_wanted(&self) -> Arc<tokio::sync::Notify> {
        self.leave.clone()
    }

    /// Completes when the handle's `stop` was called.
    pub fn stop_wanted(&self) -> Arc<tokio::sync::Notify> {
        self.stop.clone()
    }
}
