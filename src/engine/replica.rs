//! A shard's replica: attaches to a master as a replica does, and moves its bytes into the spool at full speed.
//!
//! ```text
//!            ┌──────────────────────── back-off ◀───────────────────────────┐
//!            ▼                                                              │ cut, silent, refused
//!  Connecting ─▶ Handshaking ─▶ WaitingForSnapshot ─▶ Snapshot ─▶ Streaming ─┤
//!      │             │  CONTINUE ───────────────────────────────▶           │
//!      │             │                                                Reconnecting
//!      │             └─ FULLRESYNC where a resume was asked ─▶ PositionLost (end)
//!      └─ wrong password, no right, no such command ─▶ Failed, tried again each 15 s
//! ```
//!
//! It owns one connection to one master, the handshake, the acknowledgements and the reconnects. It refuses to decode:
//! the stream's bytes go to the spool as they came. Invariants: the spool holds the stream without a gap and without
//! a byte twice, over any number of reconnects; a full resync is never followed where a position was to be kept,
//! unless it is allowed; the master hears the *applied* offset, at least each second, also while the spool is full.
//!
//! The protocol is that of `replication.c` of Redis 2.8 and later (PSYNC), with `psync2` of 4.0.

mod attach;
mod pump;
mod retry;
mod shared;
mod task;

pub use shared::{ReplicaCounters, ReplicaHandle, ReplicaState};

use super::events::EventSink;
use super::net::Dialer;
use super::spool::SpoolWriter;
use crate::model::{Direction, Offset, ReplId};
use crate::wire::dialect::Dialect;
use tokio::sync::watch;

/// Where the stream is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Right behind `offset`, which is the number of stream bytes that we already have (`PSYNC replid offset+1`).
    Resume { replid: ReplId, offset: Offset },
    /// Wherever the master is now. No snapshot is taken where the master has a backlog; else its snapshot is read and
    /// thrown away, and the stream begins behind it.
    Current,
    /// With a snapshot, which is given to the spool if `keep_snapshot`, else thrown away.
    Full { keep_snapshot: bool },
}

/// How the replica behaves.
#[derive(Clone)]
pub struct ReplicaOptions {
    /// Where it tells what happened, and as whom.
    pub events: EventSink,
    pub direction: Direction,
    /// What is applied at the other instance: acknowledged to the master. Values beyond what was received are cut.
    pub applied: watch::Receiver<Offset>,
    /// Follow a full resync where the position is lost: the spool gets `Lost`, then the new snapshot.
    pub allow_full: bool,
    /// Ask the instance for its master again before each reconnect (sentinel; a standalone with several addresses).
    pub follow_master: bool,
    /// Read from a replica of this master: before each reconnect the best one is looked for, and where there is none the
    /// master itself is read from.
    pub replicas_of: Option<String>,
    /// What the instance is, where that is known: one question less.
    pub dialect: Option<Dialect>,
}

impl ReplicaOptions {
    pub fn new(events: EventSink, direction: Direction, applied: watch::Receiver<Offset>) -> Self {
        ReplicaOptions {
            events,
            direction,
            applied,
            allow_full: false,
            follow_master: false,
            replicas_of: None,
            dialect: None,
        }
    }
}

/// Makes replicas.
#[derive(Debug)]
pub struct Replica;

impl Replica {
    /// Starts the task. It runs until it is stopped, its handle is dropped, the position is lost, or the spool's
    /// reader is gone.
    pub fn spawn(
        dialer: Dialer,
        address: &str,
        start: Start,
        spool: SpoolWriter,
        options: ReplicaOptions,
    ) -> ReplicaHandle {
        let (publisher, parts) = shared::channel(address);
        let task = tokio::spawn(task::run(dialer, start, spool, options, publisher));
        parts.with_task(task)
    }
}
