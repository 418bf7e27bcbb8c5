//! The end that the link drains.

use super::disk::Place;
use super::log::Next;
use super::{Item, Shared, SpoolError, SpoolStats};
use crate::model::Offset;
use bytes::Bytes;
use std::sync::Arc;

/// Hands items out in order. Dropping it makes the writer's next push fail with [`SpoolError::Closed`].
#[derive(Debug)]
pub struct SpoolReader {
    shared: Arc<Shared>,
}

/// Releases from another task than the reader's. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SpoolReleaser {
    shared: Arc<Shared>,
}

impl SpoolReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        SpoolReader { shared }
    }

    /// The next item; waits for one. Safe to cancel. A disk error may pass: call again.
    pub async fn next(&mut self) -> Result<Item, SpoolError> {
        loop {
            match self.step() {
                Step::Item(item) => return Ok(item),
                Step::Closed => return Err(SpoolError::Closed),
                Step::Wait => self.shared.readable.notified().await,
                Step::Read { place, first, skip } => return self.read(place, first, skip).await,
            }
        }
    }

    fn step(&mut self) -> Step {
        let mut state = self.shared.lock();
        match state.log.next() {
            Next::Item(item) => {
                self.shared.collect(state);
                Step::Item(item)
            }
            Next::OnDisk { place, first, skip } => Step::Read { place, first, skip },
            Next::Nothing if state.writer_gone => Step::Closed,
            Next::Nothing => Step::Wait,
        }
    }

    /// Reads a place from the disk; only then does the cursor move on.
    async fn read(&mut self, place: Place, first: Option<Offset>, skip: u64) -> Result<Item, SpoolError> {
        let bytes = tokio::task::spawn_blocking(move || place.read(skip))
            .await
            .map_err(|e| SpoolError::disk("", std::io::Error::other(e)))??;
        let item = match first {
            Some(first) => Item::Stream { offset: first.plus(skip), bytes },
            None => Item::Snapshot(bytes),
        };
        let mut state = self.shared.lock();
        state.log.step(&item);
        self.shared.collect(state);
        Ok(item)
    }

    /// The next item if it lies in memory; `None` where there is none or it has to come from the disk: then call
    /// [`SpoolReader::next`].
    pub fn try_next(&mut self) -> Option<Item> {
        let mut state = self.shared.lock();
        match state.log.next() {
            Next::Item(item) => {
                self.shared.collect(state);
                Some(item)
            }
            Next::OnDisk { .. } | Next::Nothing => None,
        }
    }

    /// More of the stream, if that is what comes next and it is at hand, in memory or in a file.
    pub async fn more(&mut self) -> Result<Option<(Offset, Bytes)>, SpoolError> {
        if !self.shared.lock().log.is_stream_next() {
            return Ok(None);
        }
        match self.next().await? {
            Item::Stream { offset, bytes } => Ok(Some((offset, bytes))),
            _ => Ok(None),
        }
    }

    /// Bytes that it keeps in memory at most.
    pub fn memory_bytes(&self) -> u64 {
        self.shared.memory_bytes
    }

    /// Stream bytes before `upto` are not needed any more. At most what was read is released.
    pub fn release(&self, upto: Offset) {
        self.shared.release(upto);
    }

    /// A handle that releases from elsewhere.
    pub fn releaser(&self) -> SpoolReleaser {
        SpoolReleaser { shared: self.shared.clone() }
    }

    /// Reads the stream again from `to`, which must lie between *released* and *read*. The first stream item then
    /// starts exactly there.
    pub fn rewind(&mut self, to: Offset) -> Result<(), SpoolError> {
        let mut state = self.shared.lock();
        state.log.rewind(to).map_err(|(first, end)| SpoolError::NotHeld { asked: to, first, end })
    }

    pub fn stats(&self) -> SpoolStats {
        self.shared.stats()
    }
}

impl SpoolReleaser {
    /// Stream bytes before `upto` are not needed any more. At most what was read is released.
    pub fn release(&self, upto: Offset) {
        self.shared.release(upto);
    }

    pub fn stats(&self) -> SpoolStats {
        self.shared.stats()
    }
}

/// What there is to do for the next item.
enum Step {
    Item(Item),
    Read { place: Place, first: Option<Offset>, skip: u64 },
    Wait,
    Closed,
}

impl Drop for SpoolReader {
    fn drop(&mut self) {
        self.shared.lock().reader_gone = true;
        self.shared.writable.notify_one();
    }
}
