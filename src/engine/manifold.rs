//! A shard that several strands read is read once: one replica, whose bytes are parsed once and handed to the strands by
//! slot.
//!
//! ```text
//!                                      ┌─▶ spool ─▶ link of a strand
//!  replica ─▶ spool (small) ─▶ manifold┼─▶ spool ─▶ link of another
//!     ▲                                └─▶ …
//!     └── ACK: the lowest offset that all of them have applied
//! ```
//!
//! It owns the cutting of a shard's snapshot and stream, and who gets what. It refuses to decide anything: what it hands
//! on stands as the shard has sent it. Invariants:
//!
//! 1. A strand gets every entry that names a key of its slots, its own echoes, and what can't be told to be about no key of
//!    its slots; each whole, in the stream's order, once.
//! 2. Of what is left out a strand is told where it ends, so its position moves on with its siblings' changes. It is always
//!    the end of an entry, so that the stream can be taken up there.
//! 3. A strand's part begins at the strand's own position; the replica begins at the earliest of them.
//! 4. The shard hears the lowest offset that all of its strands have applied: `WAIT` there means all of them.
//! 5. A strand that stands still fills its own spool, memory and then files, like any link; the others go on until that one
//!    is full. Then all of the shard wait, and the status of that strand says why.
//! 6. Only strands that begin in one history and in one way (a snapshot, a position, now) are read together.

mod frame;
mod lowest;
mod route;
mod snapshot;

pub use frame::Unframer;
pub use lowest::lowest;
pub use route::Routes;

use super::replica::ReplicaHandle;
use super::spool::{Item, SpoolError, SpoolReader, SpoolWriter};
use crate::model::Offset;
use crate::wire::stream::{Batch, Decoder, append};
use bytes::{Buf, Bytes};
use frame::Framer;
use route::To;
use snapshot::Cutter;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Where a strand's part goes.
pub struct Outlet {
    pub spool: SpoolWriter,
    /// What ends here or before is not for it.
    pub from: Offset,
    framer: Framer,
}

impl Outlet {
    pub fn new(spool: SpoolWriter, from: Offset) -> Self {
        Outlet { spool, from, framer: Framer::default() }
    }
}

/// What it needs.
pub struct Setup {
    /// Kept as long as it is read.
    pub replica: Arc<ReplicaHandle>,
    /// What the shard is told that it is applied.
    pub applied: watch::Receiver<Offset>,
    pub spool: SpoolReader,
    /// In the order of the routes' strands.
    pub outlets: Vec<Outlet>,
    pub routes: Routes,
    /// Where the replica begins, and the database that is selected there.
    pub from: Offset,
    pub db: u32,
    /// From there to here some strands do not know the database: a marker of the job tells.
    pub nameless: Option<Offset>,
}

/// The tasks of a shard that is read once; they end with it.
pub struct Manifold {
    tasks: Vec<JoinHandle<()>>,
}

impl Manifold {
    pub fn spawn(setup: Setup) -> Manifold {
        let mut running = Running {
            decoder: Decoder::new(setup.db),
            batch: Batch::default(),
            rest: Bytes::new(),
            offset: setup.from.0,
            db: setup.db,
            cutter: None,
            s: setup,
        };
        let task = tokio::spawn(async move {
            // Closed: the replica or a link has ended, and says why itself.
            let _ = running.run().await;
        });
        Manifold { tasks: vec![task] }
    }

    /// A task that ends with it.
    pub fn with(mut self, task: JoinHandle<()>) -> Manifold {
        self.tasks.push(task);
        self
    }

    /// From now on somebody else sees to it that they end.
    pub fn into_tasks(mut self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.tasks)
    }
}

impl Drop for Manifold {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

struct Running {
    s: Setup,
    decoder: Decoder,
    batch: Batch,
    /// Bytes that are no whole entry yet, and the offset of the first of them.
    rest: Bytes,
    offset: u64,
    /// The database at the last entry's end.
    db: u32,
    cutter: Option<Cutter>,
}

impl Running {
    async fn run(&mut self) -> Result<(), SpoolError> {
        loop {
            match self.s.spool.next().await? {
                Item::SnapshotBegin { replid, offset, .. } => {
                    self.offset = offset.0;
                    self.rest = Bytes::new();
                    (self.db, self.s.nameless) = (0, None);
                    self.decoder.reset(0);
                    self.cutter = Some(Cutter::new(self.s.outlets.len()));
                    for outlet in &mut self.s.outlets {
                        outlet.from = offset;
                        outlet.framer.begin(offset);
                        outlet.spool.push(Item::SnapshotBegin { replid, offset, total: None }).await?;
                    }
                }
                Item::Snapshot(bytes) => self.snapshot(bytes).await?,
                Item::SnapshotEnd => {
                    if let Some(why) = self.cutter.take().and_then(Cutter::end) {
                        return self.lost(why).await;
                    }
                    for outlet in &mut self.s.outlets {
                        outlet.spool.push(Item::SnapshotEnd).await?;
                    }
                }
                Item::NewReplid { replid, .. } => {
                    for outlet in &mut self.s.outlets {
                        // Positions in a part's spool are its own.
                        let at = outlet.framer.at();
                        outlet.spool.push(Item::NewReplid { replid, at }).await?;
                    }
                }
                Item::Stream { bytes, .. } => self.stream(bytes).await?,
                Item::Lost { why } => self.lost(why).await?,
            }
        }
    }

    async fn lost(&mut self, why: String) -> Result<(), SpoolError> {
        (self.cutter, self.rest) = (None, Bytes::new());
        for outlet in &mut self.s.outlets {
            outlet.spool.push(Item::Lost { why: why.clone() }).await?;
        }
        Ok(())
    }

    async fn snapshot(&mut self, bytes: Bytes) -> Result<(), SpoolError> {
        let Some(cutter) = &mut self.cutter else { return Ok(()) };
        if let Err(e) = cutter.feed(bytes, &self.s.routes) {
            let why = format!("the snapshot of {} can't be read: {e}", self.s.replica.address());
            self.lost(why).await?;
            // What follows has no beginning.
            return Err(SpoolError::Closed);
        }
        for (outlet, part) in self.s.outlets.iter_mut().zip(cutter.parts()) {
            if let Some(bytes) = part {
                outlet.spool.push(Item::Snapshot(bytes)).await?;
            }
        }
        Ok(())
    }

    async fn stream(&mut self, bytes: Bytes) -> Result<(), SpoolError> {
        append(&mut self.rest, bytes, self.decoder.needed());
        while !self.rest.is_empty() && self.rest.len() >= self.decoder.needed() {
            let used = match self.decoder.decode(&self.rest, &mut self.batch) {
                Ok(0) => return Ok(()),
                Ok(used) => used,
                Err(e) => {
                    let why = format!("the stream of {} can't be understood: {e}", self.s.replica.address());
                    self.lost(why).await?;
                    return Err(SpoolError::Closed);
                }
            };
            self.hand_out();
            let end = Offset(self.offset + used as u64);
            for outlet in self.s.outlets.iter_mut().filter(|o| end > o.from) {
                for (offset, bytes) in outlet.framer.finish(end) {
                    outlet.spool.push(Item::Stream { offset, bytes }).await?;
                }
            }
            self.rest.advance(used);
            self.offset = end.0;
            self.s.spool.release(end);
        }
        // When these bytes came, no strand asks any more.
        self.s.replica.forget_times(*self.s.applied.borrow());
        Ok(())
    }

    /// Puts each entry of the batch where it belongs.
    fn hand_out(&mut self) {
        let mut begin = 0;
        let outlets = &mut self.s.outlets;
        for entry in &self.batch.entries {
            let range = begin as usize..entry.end as usize;
            let end = Offset(self.offset + entry.end);
            begin = entry.end;
            // A SELECT is for all: what follows it stands in that database for each of them.
            let to = match std::mem::replace(&mut self.db, entry.db) == entry.db && self.s.nameless.is_none() {
                true => self.s.routes.of_entry(&self.batch, entry),
                false => To::All,
            };
            if self.s.nameless.is_some_and(|until| end > until) && self.s.routes.has_marker(&self.batch, entry) {
                self.s.nameless = None;
            }
            let put = |outlet: &mut Outlet| {
                if end > outlet.from {
                    outlet.framer.put(&self.batch.buf, range.clone(), end);
                }
            };
            match to {
                To::Nobody => {}
                To::All => outlets.iter_mut().for_each(put),
                To::One(n) => put(&mut outlets[n as usize]),
                To::Some(list) => list.iter().for_each(|n| put(&mut outlets[*n as usize])),
            }
        }
    }
}
