//! What one link measures of itself while it runs; read by the status several times a second, written by its tasks.

use crate::model::{LinkStatus, Offset};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How the site that is written to behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Fine,
    Reconnecting {
        why: String,
    },
    /// It refuses writes as a whole; they are tried again.
    Refused {
        why: String,
        remedy: String,
    },
}

#[derive(Debug)]
pub struct Gauge {
    pub changes: AtomicU64,
    pub bytes: AtomicU64,
    pub echoes: AtomicU64,
    pub errors: AtomicU64,
    pub reconnects: AtomicU64,
    pub snapshot_keys: AtomicU64,
    /// Bytes of the snapshot that were read.
    pub snapshot_bytes: AtomicU64,
    /// Keys of the snapshot, 0 while unknown.
    pub snapshot_total: AtomicU64,
    in_flight: AtomicU64,
    max_ops: AtomicU64,
    max_bytes: AtomicU64,
    applied: watch::Sender<Offset>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    condition: Condition,
    /// (received, applied, when) now and then, newest last: from it the age of what is not applied yet is read.
    arrivals: std::collections::VecDeque<(u64, Instant)>,
    /// The longest way from decision to reply since it was last asked for.
    latency_ms: u64,
    logged: Option<Instant>,
    rate: Rate,
}

/// Changes and bytes a second, over about the last second.
#[derive(Debug)]
struct Rate {
    at: Instant,
    changes: u64,
    bytes: u64,
    changes_per_second: f64,
    bytes_per_second: f64,
}

/// Errors of single changes are logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(1);

impl Gauge {
    pub fn new(applied: Offset, max_ops: u64, max_bytes: u64) -> Self {
        Gauge {
            changes: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            echoes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            snapshot_keys: AtomicU64::new(0),
            snapshot_bytes: AtomicU64::new(0),
            snapshot_total: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            max_ops: AtomicU64::new(max_ops),
            max_bytes: AtomicU64::new(max_bytes),
            applied: watch::channel(applied).0,
            inner: Mutex::new(Inner {
                condition: Condition::Fine,
                arrivals: Default::default(),
                latency_ms: 0,
                logged: None,
                rate: Rate { at: Instant::now(), changes: 0, bytes: 0, changes_per_second: 0.0, bytes_per_second: 0.0 },
            }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What is applied at the other site, to be acknowledged to the source.
    pub fn watch_applied(&self) -> watch::Receiver<Offset> {
        self.applied.subscribe()
    }

    pub fn applied_offset(&self) -> Offset {
        *self.applied.borrow()
    }

    /// A transaction was answered.
    pub fn applied(&self, offset: Offset, changes: u64, bytes: u64, latency_ms: u64) {
        self.changes.fetch_add(changes, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.advance(offset);
        if latency_ms > 0 {
            let mut inner = self.inner();
            inner.latency_ms = inner.latency_ms.max(latency_ms);
        }
    }

    /// The stream was decided up to here and nothing of it waits to be written.
    pub fn advance(&self, offset: Offset) {
        self.applied.send_if_modified(|a| {
            let moved = offset > *a;
            *a = (*a).max(offset);
            moved
        });
    }

    /// Gives true if it is new.
    pub fn set_condition(&self, condition: Condition) -> bool {
        let mut inner = self.inner();
        let fresh = std::mem::discriminant(&inner.condition) != std::mem::discriminant(&condition);
        inner.condition = condition;
        fresh
    }

    pub fn condition(&self) -> Condition {
        self.inner().condition.clone()
    }

    pub fn set_in_flight(&self, transactions: u64) {
        self.in_flight.store(transactions, Relaxed);
    }

    /// Transactions written or about to be, whose replies have not been seen.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    pub fn apply_error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    pub fn reconnected(&self) {
        self.reconnects.fetch_add(1, Relaxed);
    }

    /// Whether an error may be logged now; a flood of them is only counted.
    pub fn may_log_error(&self) -> bool {
        let mut inner = self.inner();
        let may = inner.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY);
        if may {
            inner.logged = Some(Instant::now());
        }
        may
    }

    /// Changes and bytes a second that are allowed; 0 is no limit.
    pub fn limits(&self) -> (u64, u64) {
        (self.max_ops.load(Relaxed), self.max_bytes.load(Relaxed))
    }

    pub fn set_limits(&self, max_ops: u64, max_bytes: u64) {
        self.max_ops.store(max_ops, Relaxed);
        self.max_bytes.store(max_bytes, Relaxed);
    }

    /// To be called some times a second with what has been received.
    pub fn tick(&self, received: Offset) {
        let applied = self.applied_offset();
        let mut inner = self.inner();
        while inner.arrivals.front().is_some_and(|(o, _)| *o <= applied.0) {
            inner.arrivals.pop_front();
        }
        if received > applied && inner.arrivals.back().is_none_or(|(o, _)| *o < received.0) {
            // A long outage is remembered in fewer points.
            if inner.arrivals.len() > 4096 {
                let mut keep = false;
                inner.arrivals.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
            inner.arrivals.push_back((received.0, Instant::now()));
        }
        let (changes, bytes) = (self.changes.load(Relaxed), self.bytes.load(Relaxed));
        let rate = &mut inner.rate;
        let passed = rate.at.elapsed().as_secs_f64();
        if passed >= 0.9 {
            rate.changes_per_second = (changes - rate.changes) as f64 / passed;
            rate.bytes_per_second = (bytes - rate.bytes) as f64 / passed;
            (rate.at, rate.changes, rate.bytes) = (Instant::now(), changes, bytes);
        }
    }

    /// Fills in what is measured. `received`: what has been read from the source.
    pub fn fill(&self, status: &mut LinkStatus, received: Offset, streaming: bool) {
        let applied = self.applied_offset();
        let mut inner = self.inner();
        status.changes_applied = self.changes.load(Relaxed);
        status.echoes_dropped = self.echoes.load(Relaxed);
        status.apply_errors = self.errors.load(Relaxed);
        status.reconnects = self.reconnects.load(Relaxed);
        status.in_flight = self.in_flight.load(Relaxed);
        status.changes_per_second = Some(inner.rate.changes_per_second);
        status.bytes_per_second = Some(inner.rate.bytes_per_second as u64);
        if streaming {
            status.lag_bytes = Some(received.since(applied));
            let waiting = inner.arrivals.iter().find(|(o, _)| *o > applied.0).map(|(_, at)| at.elapsed());
            let waiting = waiting.map_or(0, |w| w.as_millis() as u64);
            status.lag_ms = Some(waiting.max(inner.latency_ms));
            inner.latency_ms = 0;
        }
    }
}
