//! One direction: reads a site's snapshot and stream, decides, and leaves the rest to the other site's writer.
//!
//! ```text
//!             ┌────────────── snapshot asked for ──────────────┐
//!   Starting ─┤                                                ▼
//!             └─ position known ─▶ Rebuilding ─▶ Streaming ◀─ Loading
//!                                  (recovery)
//! ```
//!
//! It owns a spool's reading end, the decoder and the [`decide::Decider`]. It refuses to dial: the replica and the
//! writer do.

mod back;
pub mod decide;
pub mod home;
mod leftovers;
pub mod loader;
pub mod peer;
pub mod rebuild;
mod room;
mod run;
mod space;

use super::apply::control_key::{LoadPhase, Position};
use super::clock::StreamClock;
use super::core::Shared;
pub use super::core::unix_ms;
use super::events::EventSink;
use super::gauge::Gauge;
use super::manifold::Unframer;
use super::replica::ReplicaHandle;
use super::spool::{Item, SpoolError, SpoolReader};
use crate::model::{Databases, Direction, EventKind, Offset, ReplId, Severity, Side};
use crate::wire::stream::{Batch, Decoder, StreamError, append};
use bytes::{Buf, Bytes};
use decide::{Decider, Turn};
use loader::{LoadError, Loader};
use room::{Room, all_is_answered, wait_for_room};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The database is not known: a stream that was taken up in its middle has not named one yet.
pub const UNKNOWN_DB: u32 = u32::MAX;

/// Why a link can't go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    #[error("the stream of {address} can't be understood: {why}")]
    Stream { address: String, why: String },
    #[error("the snapshot of {address} can't be read: {why}")]
    Snapshot { address: String, why: String },
    #[error("{0}")]
    Spool(String),
    /// The stream begins in a database that it has not named: it has to be taken up with a full sync.
    #[error("the stream does not say which database it is in")]
    UnknownDb,
    #[error("the snapshot was cut off: {0}")]
    Cut(String),
    /// The stream goes on under another name: the site failed over. What that means for the positions is looked at
    /// where a run begins.
    #[error("{address} has begun another history")]
    NewHistory { address: String },
}

impl From<SpoolError> for LinkError {
    fn from(e: SpoolError) -> Self {
        LinkError::Spool(e.to_string())
    }
}

/// What a link needs to run.
pub struct LinkSetup {
    pub shared: Arc<Shared>,
    pub gauge: Arc<Gauge>,
    pub events: EventSink,
    pub direction: Direction,
    pub replica: Arc<ReplicaHandle>,
    pub spool: SpoolReader,
    /// The spool holds this strand's part of a stream that several read together.
    pub in_parts: bool,
    pub decider: Decider,
    pub loader: Loader,
    /// Where the source is a cluster: asks its shard whose a slot is.
    pub home: Option<home::Home>,
    /// Asks the other site what it holds.
    pub peer: peer::Peer,
    /// The copy follows one that was not finished, in these databases: what that one left and this one does not hold
    /// has gone at the source meanwhile.
    pub left_over: Option<Databases>,
    pub replids: Arc<[std::sync::RwLock<Option<ReplId>>; 2]>,
    /// Where the stream is taken up, and in which database ([`UNKNOWN_DB`]).
    pub from: Position,
    pub control_db: u32,
    /// By which it is known when a change was made.
    pub clock: Arc<StreamClock>,
    /// Where the source's stream ended when it was attached: what stands before it was made while nobody read.
    pub unread_until: Offset,
}

/// The reading half of one direction.
pub struct Link {
    s: LinkSetup,
    here: Side,
    decoder: Decoder,
    batch: Batch,
    /// Bytes that are no whole entry yet, and the offset of the first of them.
    rest: Bytes,
    offset: u64,
    /// Where the entries end, if the rest is a part of the stream.
    part: Option<Unframer>,
    /// Reconnects of the replica that were seen, and when the stream's times are known again.
    reconnects: u64,
    unknown_until: u64,
    /// When the parts of the batch at hand were made.
    made: Vec<(Offset, u32)>,
    /// What the operator has been told of.
    told: decide::Read,
}

impl Link {
    pub fn new(s: LinkSetup) -> Self {
        let here = s.direction.from();
        Link {
            here,
            decoder: Decoder::new(s.from.db),
            batch: Batch::default(),
            rest: Bytes::new(),
            offset: s.from.offset.0,
            part: s.in_parts.then(Unframer::default),
            reconnects: 0,
            unknown_until: s.unread_until.0,
            made: Vec::new(),
            told: decide::Read::default(),
            s,
        }
    }

    pub fn setup(&mut self) -> &mut LinkSetup {
        &mut self.s
    }

    fn peer(&self) -> Side {
        self.here.other()
    }

    /// Reads and decides until something makes that impossible; ends without an error when the replica has.
    pub async fn run(mut self) -> Result<(), LinkError> {
        if let Some(home) = &mut self.s.home {
            home.begin().await;
        }
        // What a rebuild has read beyond its end is not to wait for more.
        self.entries().await?;
        if self.part.is_some() {
            self.pass_over();
        }
        loop {
            let next = match self.part {
                None => self.s.spool.next_behind(&mut self.rest).await,
                Some(_) => self.s.spool.next().await,
            };
            let item = match next {
                Ok(item) => item,
                Err(SpoolError::Closed) => return Ok(()),
                Err(e) => return Err(e.into()),
            };
            match item {
                Item::SnapshotBegin { replid, offset, .. } => {
                    self.snapshot_begins(replid, offset);
                    self.remember_leftovers().await;
                }
                Item::Snapshot(bytes) => self.snapshot(bytes).await?,
                Item::SnapshotEnd => self.snapshot_ends().await?,
                Item::Stream { offset, bytes } => self.stream(offset, bytes).await?,
                Item::NewReplid { replid, .. } => self.goes_on(replid)?,
                Item::Lost { why } => return Err(LinkError::Cut(why)),
            }
        }
    }

    /// The stream goes on, under the name that is known.
    fn goes_on(&self, replid: ReplId) -> Result<(), LinkError> {
        let known = *self.s.replids[self.here.index()].read().unwrap_or_else(|p| p.into_inner());
        if known.is_some_and(|known| known != replid) {
            return Err(LinkError::NewHistory { address: self.s.replica.address() });
        }
        self.set_replid(replid);
        Ok(())
    }

    fn set_replid(&self, replid: ReplId) {
        let mut name = self.s.replids[self.here.index()].write().unwrap_or_else(|p| p.into_inner());
        *name = Some(replid);
    }

    // ---- the snapshot ------------------------------------------------------------------------------------------

    fn snapshot_begins(&mut self, replid: ReplId, offset: Offset) {
        self.set_replid(replid);
        self.offset = offset.0;
        self.rest = Bytes::new();
        self.part = self.s.in_parts.then(Unframer::default);
        self.decoder.reset(0);
        let mut core = self.s.shared.lock();
        core.phase[self.here.index()] = LoadPhase::Loading;
        core.decided[self.here.index()] = Position { offset, db: 0 };
        if core.expiries[self.peer().index()].are_true() {
            // It began within a run: what the other site holds is not known.
            core.expiries[self.peer().index()].begin(true);
        }
        let text = format!("copying the snapshot of {}", self.s.replica.address());
        self.s.events.info(Some(self.s.direction), EventKind::SnapshotStarted, text);
    }

    async fn snapshot(&mut self, bytes: Bytes) -> Result<(), LinkError> {
        self.s.loader.feed(bytes);
        loop {
            wait_for_room(&self.s.shared, self.peer(), false).await;
            let gathered = self.s.loader.gather().map_err(|e| snapshot_error(self.s.replica.address(), &e))?;
            if !gathered {
                return Ok(());
            }
            let questions = self.s.loader.questions();
            if !questions.is_empty() {
                let held = self.s.peer.held(questions).await.map_err(|e| LinkError::Cut(e.to_string()))?;
                self.s.loader.held_there(&held);
            }
            let keys = self.decide_gathered()?;
            self.s.gauge.snapshot_keys.fetch_add(keys, Relaxed);
            self.s.gauge.snapshot_bytes.store(self.s.loader.bytes(), Relaxed);
            self.s.gauge.snapshot_total.store(self.s.loader.keys_total(), Relaxed);
            if let Some(length) = self.s.loader.long_string() {
                self.make_space(length).await?;
            }
        }
    }

    /// Gives the number of keys.
    fn decide_gathered(&mut self) -> Result<u64, LinkError> {
        let mut core = self.s.shared.lock();
        core.set_now(self.s.shared.now_ms());
        let keys = self.s.loader.decide(&mut core).map_err(|e| snapshot_error(self.s.replica.address(), &e))?;
        self.s.shared.ring(core);
        Ok(keys)
    }

    /// A string of that length begins in space of its own. What was decided before is written first: the space is free for
    /// all until the string is there.
    async fn make_space(&mut self, length: u64) -> Result<(), LinkError> {
        if !all_is_answered(&self.s.shared, &self.s.gauge, self.peer()).await {
            return Ok(());
        }
        let Some(space) = self.s.peer.makes_space(length).await else { return Ok(()) };
        for upto in space::BEGINNING {
            self.s.loader.begin_in_space(upto);
            self.decide_gathered()?;
            if !all_is_answered(&self.s.shared, &self.s.gauge, self.peer()).await {
                break;
            }
        }
        drop(space);
        Ok(())
    }

    async fn snapshot_ends(&mut self) -> Result<(), LinkError> {
        self.s.loader.finish().map_err(|e| snapshot_error(self.s.replica.address(), &e))?;
        self.delete_leftovers().await?;
        let mut core = self.s.shared.lock();
        core.set_now(self.s.shared.now_ms());
        core.decided[self.here.index()] = Position::new(self.offset, 0);
        core.snapshot_read(self.here);
        drop(core);
        self.s.shared.wake_writers();
        let keys = self.s.gauge.snapshot_keys.load(Relaxed);
        self.s.events.info(
            Some(self.s.direction),
            EventKind::SnapshotFinished,
            format!("the snapshot is read: {keys} keys; its stream follows"),
        );
        Ok(())
    }

    // ---- the stream --------------------------------------------------------------------------------------------

    async fn stream(&mut self, offset: Offset, bytes: Bytes) -> Result<(), LinkError> {
        // Behind the rest; or in its place, and it is the beginning of these.
        debug_assert!(self.part.is_some() || offset.0 == self.offset + self.rest.len() as u64);
        let Some(part) = &mut self.part else {
            self.take(bytes);
            return self.entries().await;
        };
        part.feed(offset, bytes);
        while let Some(body) = self.part.as_mut().and_then(Unframer::next_body) {
            self.take(body);
            self.entries().await?;
            self.pass_over();
        }
        Ok(())
    }

    /// Bytes of the stream have come, of which all that is whole is put behind the rest.
    fn take_stream(&mut self, offset: Offset, bytes: Bytes) {
        let Some(part) = &mut self.part else { return self.take(bytes) };
        part.feed(offset, bytes);
        while let Some(body) = self.part.as_mut().and_then(Unframer::next_body) {
            self.take(body);
        }
    }

    /// Up to where the stream was read.
    /// When the batch at hand was made; it is decided at `now`, `unix` by the clock of the day.
    fn look_when(&mut self, now: u64, unix: u64) {
        self.made.clear();
        if self.offset < self.unknown_until {
            return;
        }
        let end = self.offset + self.batch.entries.last().map_or(0, |entry| entry.end);
        // It may have waited in the spool.
        let waited = self.s.decider.read_times().first().map_or(0, |(_, came)| unix.saturating_sub(*came));
        let read = now.saturating_sub(waited) * 1_000;
        let clock = self.s.clock.lock();
        let made = clock.made(Offset(self.offset), Offset(end), read);
        self.made.extend(made.map(|(upto, at)| (upto, known(at / 1_000))));
    }

    fn read_until(&self) -> u64 {
        match &self.part {
            None => self.offset + self.rest.len() as u64,
            Some(part) => part.reaches().unwrap_or(self.offset).max(self.offset),
        }
    }

    /// So many bytes of the rest were dealt with.
    fn dealt_with(&mut self, used: usize) {
        self.rest.advance(used);
        if self.rest.is_empty() {
            // Or what has been decided would be held until something comes: a command may be of any size.
            let rest = std::mem::take(&mut self.rest);
            self.s.spool.give_back(rest);
        }
        match &mut self.part {
            None => {
                self.offset += used as u64;
                self.s.spool.release(Offset(self.offset));
            }
            Some(part) => {
                self.offset = part.deal_with(used).map_or(self.offset, |upto| upto.max(self.offset));
                if self.rest.is_empty() {
                    self.s.spool.release(part.taken());
                }
            }
        }
    }

    /// The position moves on over what is left out of this strand's part.
    fn pass_over(&mut self) {
        self.dealt_with(0);
        let mut core = self.s.shared.lock();
        let before = core.decided[self.here.index()].offset;
        if before.0 >= self.offset {
            return;
        }
        core.decided[self.here.index()] = Position::new(self.offset, self.decoder.db());
        core.decided_bytes(self.peer(), self.offset - before.0, false);
        if core.out[self.peer().index()].is_empty() {
            self.nothing_waits(&core);
        }
        self.s.shared.ring(core);
    }

    /// Decides all whole entries at hand.
    async fn entries(&mut self) -> Result<(), LinkError> {
        loop {
            if self.rest.is_empty() || self.rest.len() < self.decoder.needed() {
                return Ok(());
            }
            let used = self.decode()?;
            if used == 0 {
                self.batch.release();
                return Ok(());
            }
            self.slots_stay().await;
            self.decide().await;
            self.batch.release();
            self.dealt_with(used);
        }
    }

    /// A deletion at a cluster may be a slot that moves away: waits until that is known not to be so.
    async fn slots_stay(&mut self) {
        let LinkSetup { home: Some(home), decider, replica, .. } = &mut self.s else { return };
        let mut slots = Vec::new();
        let mut end = 0;
        for entry in &self.batch.entries {
            let before = slots.len();
            decider.deletes(&self.batch, entry, &mut slots);
            if slots.len() > before {
                end = entry.end;
            }
        }
        if !slots.is_empty() {
            let away = home.keeps(&slots, Offset(self.offset + end), || replica.received()).await;
            decider.were_away_until(away);
        }
    }

    fn take(&mut self, bytes: Bytes) {
        append(&mut self.rest, bytes, self.decoder.needed());
    }

    fn decode(&mut self) -> Result<usize, LinkError> {
        let used = self.decode_rest()?;
        let Some(part) = &self.part else { return Ok(used) };
        for entry in &mut self.batch.entries {
            let end = part.end_of(entry.end).ok_or_else(|| LinkError::Stream {
                address: self.s.replica.address(),
                why: format!("an entry of this part ends nowhere, {} bytes behind offset {}", entry.end, self.offset),
            })?;
            entry.end = end.saturating_sub(self.offset);
        }
        Ok(used)
    }

    fn decode_rest(&mut self) -> Result<usize, LinkError> {
        let bad = |e: StreamError| LinkError::Stream { address: self.s.replica.address(), why: e.to_string() };
        let used = self.decoder.decode(&self.rest, &mut self.batch).map_err(bad)?;
        // A stream that was taken up in its middle: our own marker tells which database it is in.
        let nameless = self.batch.entries.iter().find(|e| self.batch.commands(e).iter().any(|c| c.db == UNKNOWN_DB));
        if let Some(entry) = nameless {
            if self.s.decider.marker_of(&self.batch, entry).is_none() {
                return Err(LinkError::UnknownDb);
            }
            self.decoder.reset(self.s.control_db);
            // From now on the position can be resumed from: it is worth writing down.
            self.s.shared.lock().unsaved[self.peer().index()].1 = true;
            return self.decoder.decode(&self.rest, &mut self.batch).map_err(bad);
        }
        Ok(used)
    }

    async fn decide(&mut self) {
        let reconnects = self.s.replica.counters().reconnects;
        if reconnects != self.reconnects {
            // What was made while we were away was made at an unknown time.
            self.reconnects = reconnects;
            self.unknown_until = self.s.replica.received().0.max(self.read_until());
        }
        let mut from = 0;
        let mut echo = self.s.decider.is_echo(&self.batch, 0);
        loop {
            let room = wait_for_room(&self.s.shared, self.peer(), echo).await;
            let now = self.s.shared.now_ms();
            let unix = unix_ms();
            self.s.replica.read_times(Offset(self.offset), self.part.is_none(), self.s.decider.read_times());
            self.look_when(now, unix);
            // The state's bell is looked for before the look under the lock, so that it is not missed.
            let shared = self.s.shared.clone();
            let came = shared.state_came.notified();
            tokio::pin!(came);
            came.as_mut().enable();
            let turn = {
                let mut core = self.s.shared.lock();
                core.set_now(now);
                self.s.decider.echoes_alone(room == Room::Echoes);
                let turn = self.s.decider.turn(&mut core, &self.batch, from, self.offset, &self.made, unix);
                if core.out[self.peer().index()].is_empty() && turn == Turn::Done {
                    self.nothing_waits(&core);
                }
                if core.rounds_wait && !core.arbiter.episodes().is_empty() {
                    self.s.shared.settle.notify_one();
                }
                self.s.shared.ring(core);
                turn
            };
            self.s.gauge.echoes.store(self.s.decider.read.echoes, Relaxed);
            self.tell_what_was_seen();
            match turn {
                Turn::Done => return,
                Turn::Waits { entry } => {
                    from = entry;
                    came.await;
                }
                Turn::Change { entry } => from = entry,
            }
            echo = !matches!(turn, Turn::Change { .. }) && self.s.decider.is_echo(&self.batch, from);
        }
    }

    /// Whole-database commands that an operator should know of.
    fn tell_what_was_seen(&mut self) {
        let (now, before) = (self.s.decider.read, std::mem::replace(&mut self.told, self.s.decider.read));
        if now.whole_database() == before.whole_database() {
            return;
        }
        let address = self.s.replica.address();
        let tell = |severity, text: String| {
            self.s.events.emit(Some(self.s.direction), severity, EventKind::FlushSeen, text);
        };
        if now.flushes > before.flushes {
            let was = if self.s.decider.forwards_flush() { "was" } else { "was not" };
            tell(
                Severity::Error,
                format!("FLUSHDB or FLUSHALL was run at {address}; by the job's policy it {was} forwarded"),
            );
        }
        if now.swaps_refused > before.swaps_refused {
            let text =
                format!("SWAPDB with a database that is not selected was run at {address}: it was not forwarded");
            tell(Severity::Error, text);
        }
        if now.swaps_crossed > before.swaps_crossed {
            let text = format!(
                "SWAPDB was run at {address} while writes of the other side were on their way: run duplex verify --repair"
            );
            tell(Severity::Warning, text);
        }
    }

    /// Echoes and noise alone: the position moves on with nothing to apply.
    fn nothing_waits(&self, core: &super::core::Core) {
        if self.s.gauge.in_flight() == 0 {
            self.s.gauge.advance(core.decided[self.here.index()].offset);
        }
    }
}

fn snapshot_error(address: String, e: &LoadError) -> LinkError {
    LinkError::Snapshot { address, why: e.to_string() }
}

/// A time of the job's clock as the arbiter keeps it: its low half, which wraps after 49 days. 0 is its word for unknown.
fn known(ms: u64) -> u32 {
    (ms as u32).max(1)
}
