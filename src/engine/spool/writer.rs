//! The end that the replica fills.

use super::{Item, Shared, SpoolError, SpoolStats};
use crate::model::Offset;
use std::sync::Arc;
use std::time::Duration;

/// Pauses between tries of a failing disk.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// Takes items in order. Dropping it lets the reader finish and then see [`SpoolError::Closed`].
#[derive(Debug)]
pub struct SpoolWriter {
    shared: Arc<Shared>,
    /// A push was cut off while it wrote: nothing may follow.
    interrupted: bool,
    /// Memory ran full: go on with the disk until half of it is free, so that the files hold long stretches.
    spilling: bool,
}

impl SpoolWriter {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        SpoolWriter { shared, interrupted: false, spilling: false }
    }

    /// Takes one item. Waits while the bounds are reached or the disk fails; [`SpoolStats`] tells which. Not safe to
    /// cancel and go on: after that, every push fails with [`SpoolError::Interrupted`].
    pub async fn push(&mut self, item: Item) -> Result<(), SpoolError> {
        if self.interrupted {
            return Err(SpoolError::Interrupted);
        }
        loop {
            // In a block of its own, so that the guard is gone before anything is awaited.
            {
                let mut state = self.shared.lock();
                if state.reader_gone {
                    return Err(SpoolError::Closed);
                }
                if let Item::Stream { offset, bytes } = &item {
                    if let Some(expected) = state.log.expected().filter(|e| e != offset) {
                        return Err(SpoolError::Gap { expected, found: *offset });
                    }
                    if bytes.is_empty() {
                        return Ok(());
                    }
                }
                let bytes = content_len(&item);
                if state.log.memory <= self.shared.memory_bytes / 2 {
                    self.spilling = false;
                }
                let fits = !self.spilling && state.log.memory + item.cost() <= self.shared.memory_bytes;
                let memory_only = self.shared.disk_bytes == 0;
                if bytes == 0 || fits || (memory_only && state.log.memory == 0) {
                    state.disk.full = false;
                    state.log.push_memory(item);
                    drop(state);
                    self.shared.readable.notify_one();
                    return Ok(());
                }
                self.spilling = !memory_only;
                let room = state.disk.is_empty() || state.disk.bytes() + bytes <= self.shared.disk_bytes;
                if !memory_only && room {
                    state.disk.full = false;
                    drop(state);
                    return self.spill(item).await;
                }
                state.disk.full = true;
            }
            self.shared.writable.notified().await;
        }
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

    /// End of the stream bytes taken in.
    pub fn written(&self) -> Offset {
        self.shared.lock().log.written
    }

    pub fn stats(&self) -> SpoolStats {
        self.shared.stats()
    }
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
