//! What a replica read and the link has not yet done with: memory first, then files; read in order, replayable.
//!
//! ```text
//!            released          read              written
//!  ─ gone ──────┼── kept for rewind ──┼── waiting ──────┼
//! ```
//!
//! It owns the order of a shard's items and the files of one folder. It refuses to drop anything: when memory is full
//! it writes files, when the files' bound is reached or the disk fails the writer waits, and [`SpoolStats`] says so.
//!
//! Invariants: items come out in the order in which they went in; stream bytes between *released* and *read* can be
//! read again; snapshot bytes are gone once read. An item in memory costs no copy and no task switch.
//!
//! After [`Item::Lost`] positions start anew: what was read before it is released by reading it.

mod disk;
mod log;
mod reader;
mod writer;

pub use reader::{SpoolReader, SpoolReleaser};
pub use writer::SpoolWriter;

use crate::model::{Offset, ReplId};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;

/// One thing that came from a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A snapshot begins; the stream that follows it starts at `offset`. `total` is its size in bytes where the server
    /// said so.
    SnapshotBegin { replid: ReplId, offset: Offset, total: Option<u64> },
    /// Some of the snapshot's bytes (an RDB file).
    Snapshot(Bytes),
    /// The snapshot is complete.
    SnapshotEnd,
    /// Bytes of the stream. `offset` is the number of stream bytes before the first of them.
    Stream { offset: Offset, bytes: Bytes },
    /// From here on the stream's history has this name: at the start of a stream, and after a failover.
    NewReplid { replid: ReplId, at: Offset },
    /// Continuity ends here: a snapshot was cut short, or the position was lost. A `SnapshotBegin` or `NewReplid`
    /// follows if the replica goes on.
    Lost { why: String },
}

impl Item {
    /// The stream's bytes in it.
    fn stream(&self) -> Option<(Offset, &Bytes)> {
        match self {
            Item::Stream { offset, bytes } => Some((*offset, bytes)),
            _ => None,
        }
    }

    /// Bytes it is charged with in memory: its content and the entry.
    fn cost(&self) -> u64 {
        let content = match self {
            Item::Snapshot(bytes) | Item::Stream { bytes, .. } => bytes.len(),
            Item::Lost { why } => why.len(),
            _ => 0,
        };
        (content + ENTRY_COST) as u64
    }
}

/// What an entry costs beside its bytes.
const ENTRY_COST: usize = 128;

/// Bounds of a spool.
#[derive(Debug, Clone)]
pub struct SpoolOptions {
    /// Bytes kept in memory before files are written.
    pub memory_bytes: u64,
    /// Bytes kept in files; then the writer waits. A single item larger than this is still taken when nothing else is
    /// there.
    pub disk_bytes: u64,
    /// The spool's own folder: made with mode 0700; segments of an earlier run in it are removed.
    pub dir: PathBuf,
}

/// How the spool is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpoolStats {
    pub bytes_memory: u64,
    /// Bytes of the files of which something is still needed.
    pub bytes_disk: u64,
    /// The writer waits for space: nothing is read from the source.
    pub full: bool,
    /// The disk's last error, until a write succeeds.
    pub disk_error: Option<String>,
    /// End of the stream bytes taken in.
    pub written: Offset,
    /// End of the stream bytes handed out.
    pub read: Offset,
    pub released: Offset,
}

/// Why the spool could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("the spool file or folder {path} can't be used: {source}; {remedy}")]
    Disk { path: PathBuf, source: std::io::Error, remedy: &'static str },
    #[error("the other end of the spool is gone; the link has ended")]
    Closed,
    #[error("stream position {asked} is not in the spool, which holds {first} to {end}; take it from the source again")]
    NotHeld { asked: Offset, first: Offset, end: Offset },
    #[error("stream bytes at {found} were given where {expected} is next; the replica lost count, start it anew")]
    Gap { expected: Offset, found: Offset },
    #[error("a write to the spool was cut off half-way; start the replica anew")]
    Interrupted,
}

impl SpoolError {
    fn disk(path: impl Into<PathBuf>, source: std::io::Error) -> SpoolError {
        use std::io::ErrorKind as K;
        let remedy = match source.kind() {
            K::StorageFull | K::QuotaExceeded => "free space there, or move the spool to another disk",
            K::PermissionDenied | K::ReadOnlyFilesystem => "let the engine's user write there",
            K::NotFound => "somebody removed it: leave the spool's folder alone while the job runs",
            _ => "check the disk and its mount",
        };
        SpoolError::Disk { path: path.into(), source, remedy }
    }
}

/// Makes spools.
#[derive(Debug)]
pub struct Spool;

impl Spool {
    /// Prepares the folder and gives the two ends. Blocking, but short: a folder is made, old segments are removed.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(options: SpoolOptions) -> Result<(SpoolWriter, SpoolReader), SpoolError> {
        let disk = disk::Disk::prepare(&options)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State { log: log::Log::default(), disk, writer_gone: false, reader_gone: false }),
            memory_bytes: options.memory_bytes,
            disk_bytes: options.disk_bytes,
            readable: Notify::new(),
            writable: Notify::new(),
        });
        Ok((SpoolWriter::new(shared.clone()), SpoolReader::new(shared)))
    }
}

/// What both ends share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    memory_bytes: u64,
    disk_bytes: u64,
    /// Something was pushed, or the writer is gone.
    readable: Notify,
    /// Something was released, or the reader is gone.
    writable: Notify,
}

#[derive(Debug)]
struct State {
    log: log::Log,
    disk: disk::Disk,
    writer_gone: bool,
    reader_gone: bool,
}

impl Shared {
    /// No code panics while it holds the lock; if it did, the state is still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn stats(&self) -> SpoolStats {
        let state = self.lock();
        SpoolStats {
            bytes_memory: state.log.memory,
            bytes_disk: state.disk.bytes(),
            full: state.disk.full,
            disk_error: state.disk.error.clone(),
            written: state.log.written,
            read: state.log.read,
            released: state.log.released,
        }
    }

    fn release(&self, upto: Offset) {
        let mut state = self.lock();
        state.log.release(upto);
        self.collect(state);
    }

    /// Frees what is released, and wakes the writer.
    fn collect(&self, mut state: MutexGuard<'_, State>) {
        let State { log, disk, .. } = &mut *state;
        let mut freed = false;
        while let Some(entry) = log.pop_released() {
            freed = true;
            if let log::Body::Disk(place) = &entry {
                disk.forget(place);
            }
        }
        let dead = if freed { disk.take_dead() } else { vec![] };
        drop(state);
        if freed {
            self.writable.notify_one();
        }
        disk::remove_files(dead);
    }
}
