//! The end that the replica fills.

use super::{Item, Shared, SpoolError, SpoolStats};
use crate::model::Offset;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Pauses between tries of a failing disk.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// Memory that only items without bytes use: they can't go to the disk, and the bound holds for them too.
const FOR_MARKERS: u64 = 8 * super::ENTRY_COST as u64;

/// Takes items in order. Dropping it lets the reader finish and then see [`SpoolError::Closed`].
#[derive(Debug)]
pub struct SpoolWriter {
    shared: Arc<Shared>,
    /// A push was cut off while it wrote: nothing may follow.
    interrupted: bool,
    /// Memory ran full: go on with the disk until half of what may be used of it is free, so that the files hold long
    /// stretches.
    spilling: bool,
    /// The bytes that were last written to the disk: of no more use but for the memory they take.
    spilled: Option<Bytes>,
}

impl SpoolWriter {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        SpoolWriter { shared, interrupted: false, spilling: false, spilled: None }
    }

    /// Takes one item. Waits while the bounds are reached or the disk fails; [`SpoolStats`] tells which. Not safe to
    /// cancel and go on: after that, every push fails with [`SpoolError::Interrupted`].
    pub async fn push(&mut self, item: Item) -> Result<(), SpoolError> {
        if self.interrupted {
            return Err(SpoolError::Interrupted);
        }
        let mut item = item;
        self.spilled = None;
        loop {
            item = match self.place(item)? {
                Placed::InMemory => return Ok(()),
                Placed::ToDisk(item) => return self.spill(item).await,
                Placed::NoRoom(item) => item,
            };
            self.shared.writable.notified().await;
        }
    }

    /// Decides where the item goes; into memory it goes at once.
    fn place(&mut self, item: Item) -> Result<Placed, SpoolError> {
        let mut state = self.shared.lock();
        if state.reader_gone {
            return Err(SpoolError::Closed);
        }
        if let Item::Stream { offset, bytes } = &item {
            if let Some(expected) = state.log.expected().filter(|e| e != offset) {
                return Err(SpoolError::Gap { expected, found: *offset });
            }
            if bytes.is_empty() {
                return Ok(Placed::InMemory);
            }
        }
        let bytes = content_len(&item);
        // What lies in files takes long to be read: until it has been, a quarter of the memory does as well.
        let most = if state.disk.is_empty() { self.shared.memory_bytes } else { self.shared.memory_bytes / 4 };
        if state.log.memory <= most / 2 {
            self.spilling = false;
        }
        let fits = !self.spilling && state.log.memory + item.cost() + (most / 8).min(FOR_MARKERS) <= most;
        let memory_only = self.shared.disk_bytes == 0;
        if bytes == 0 || fits || (memory_only && state.log.memory == 0) {
            state.disk.full = false;
            state.log.push_memory(item);
            let kept = if state.disk.is_empty() { state.disk.take_kept() } else { vec![] };
            drop(state);
            self.shared.readable.notify_one();
            super::disk::remove_files(kept);
            return Ok(Placed::InMemory);
        }
        self.spilling = !memory_only;
        let mut removed = Vec::new();
        let room = state.disk.has_room(bytes, self.shared.disk_bytes, &mut removed);
        state.disk.full = memory_only || !room;
        super::disk::remove_files(removed);
        Ok(if state.disk.full { Placed::NoRoom(item) } else { Placed::ToDisk(item) })
    }

    /// Writes the item's bytes to the disk, as often as it takes.
    async fn spill(&mut self, item: Item) -> Result<(), SpoolError> {
        self.interrupted = true;
        let content = match &item {
            Item::Stream { bytes, .. } | Item::Snapshot(bytes) => bytes.clone(),
            _ => return Ok(()),
        };
        let mut slot = Arc::new(self.shared.lock().disk.slot());
        let mut pause = RETRY_FIRST;
        loop {
            let (to, bytes) = (slot.clone(), content.clone());
            let written = tokio::task::spawn_blocking(move || to.write(&bytes)).await;
            let error = match written {
                Ok(Ok(place)) => {
                    let mut state = self.shared.lock();
                    state.disk.commit(&place);
                    state.log.push_disk(&item, place);
                    drop(state);
                    self.shared.readable.notify_one();
                    self.interrupted = false;
                    drop(item);
                    self.spilled = Some(content);
                    return Ok(());
                }
                Ok(Err(e)) => e.to_string(),
                Err(e) => e.to_string(),
            };
            {
                let mut state = self.shared.lock();
                state.disk.error = Some(error);
                if state.reader_gone {
                    state.disk.give_up();
                    return Err(SpoolError::Closed);
                }
            }
            // Space may come free by a release; nobody tells us of space that others free.
            let _ = tokio::time::timeout(pause, self.shared.writable.notified()).await;
            pause = (pause * 2).min(RETRY_LAST);
            slot = Arc::new(self.shared.lock().disk.slot());
        }
    }

    /// What was pushed last lies on the disk: here are its bytes back, for the memory they take.
    pub fn take_spilled(&mut self) -> Option<Bytes> {
        self.spilled.take()
    }

    /// Stream bytes that have not been handed out.
    pub fn waiting(&self) -> u64 {
        let state = self.shared.lock();
        state.log.written.0.saturating_sub(state.log.read.0)
    }

    /// End of the stream bytes taken in.
    pub fn written(&self) -> Offset {
        self.shared.lock().log.written
    }

    pub fn stats(&self) -> SpoolStats {
        self.shared.stats()
    }
}

/// What became of an item.
enum Placed {
    InMemory,
    ToDisk(Item),
    NoRoom(Item),
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        self.shared.lock().writer_gone = true;
        self.shared.readable.notify_one();
    }
}

fn content_len(item: &Item) -> u64 {
    match item {
        Item::Stream { bytes, .. } | Item::Snapshot(bytes) => bytes.len() as u64,
        _ => 0,
    }
}
