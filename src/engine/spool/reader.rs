//! The end that the link drains.

use super::log::Next;
use super::{Item, Shared, SpoolError, SpoolStats};
use crate::model::Offset;
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
            let (place, first, skip) = {
                let mut state = self.shared.lock();
                match state.log.next() {
                    Next::Item(item) => {
                        self.shared.collect(state);
                        return Ok(item);
                    }
                    Next::OnDisk { place, first, skip } => (place, first, skip),
                    Next::Nothing if state.writer_gone => return Err(SpoolError::Closed),
                    Next::Nothing => {
                        drop(state);
                        self.shared.readable.notified().await;
                        continue;
                    }
                }
            };
            let (bytes, path) = tokio::task::spawn_blocking(move || (place.read(skip), place))
                .await
                .map_err(|e| SpoolError::disk("", std::io::Error::other(e)))?;
            drop(path);
            let bytes = bytes?;
            let item = match first {
                Some(first) => Item::Stream { offset: first.plus(skip), bytes },
                None => Item::Snapshot(bytes),
            };
            let mut state = self.shared.lock();
            state.log.step(&item);
            self.shared.collect(state);
            return Ok(item);
        }
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
            _ => None,
        }
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

impl Drop for SpoolReader {
    fn drop(&mut self) {
        self.shared.lock().reader_gone = true;
        self.shared.writable.notify_one();
    }
}
