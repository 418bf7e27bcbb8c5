//! The end that the link drains.

use super::disk::Place;
use super::log::Next;
use super::{Item, Shared, SpoolError, SpoolStats};
use crate::model::Offset;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Room in front of what is read from a file: for what the reader has left over, at most a transaction of ours as a rule.
const FRONT: usize = 128 << 10;
/// Room for that and for what is read at once as a rule.
const USUAL: usize = FRONT + super::disk::MERGE_BYTES as usize;
/// A buffer that was made for more than what is read at once is not kept.
const TOO_LARGE: usize = FRONT + 2 * super::disk::MERGE_BYTES as usize;

/// Hands items out in order. Dropping it makes the writer's next push fail with [`SpoolError::Closed`].
#[derive(Debug)]
pub struct SpoolReader {
    shared: Arc<Shared>,
    /// What comes next, where it lies in a file: read while the reader deals with what came before it.
    ahead: Option<Ahead>,
    /// What the bytes behind those are read into: memory that is taken and given back for each costs as much as reading, and
    /// so does making it zero. All of it has been written to before.
    spare: BytesMut,
    /// The whole of what was handed out last, to have it back when nobody else holds on to it.
    lent: Bytes,
}

/// A place that is being read.
#[derive(Debug)]
struct Ahead {
    place: Place,
    skip: u64,
    read: JoinHandle<Result<BytesMut, SpoolError>>,
}

/// Releases from another task than the reader's. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SpoolReleaser {
    shared: Arc<Shared>,
}

impl SpoolReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        SpoolReader { shared, ahead: None, spare: BytesMut::new(), lent: Bytes::new() }
    }

    /// The next item; waits for one. Safe to cancel. A disk error may pass: call again.
    pub async fn next(&mut self) -> Result<Item, SpoolError> {
        self.next_behind(&mut Bytes::new()).await
    }

    /// The same for a reader that has bytes left over from the stream's last ones: where the next ones lie in a file, and
    /// these are few, they are put in front of them without copying those. Then `rest` is taken, and the item begins with
    /// it, at its position.
    pub async fn next_behind(&mut self, rest: &mut Bytes) -> Result<Item, SpoolError> {
        loop {
            match self.step() {
                Step::Item(item) => return Ok(item),
                Step::Closed => return Err(SpoolError::Closed),
                Step::Wait => self.shared.readable.notified().await,
                Step::Read { place, first, skip } => return self.read(place, first, skip, rest).await,
            }
        }
    }

    /// These bytes have been dealt with: where nobody else holds on to them, others are read into their place.
    pub fn give_back(&mut self, bytes: Bytes) {
        drop(bytes);
        let lent = std::mem::take(&mut self.lent);
        if lent.is_empty() || (self.ahead.is_none() && self.shared.lock().disk.is_empty()) {
            return;
        }
        match lent.try_into_mut() {
            Ok(buffer) if buffer.capacity() <= TOO_LARGE => self.spare = buffer,
            Ok(_) => {}
            Err(lent) => self.lent = lent,
        }
    }

    fn step(&mut self) -> Step {
        let mut state = self.shared.lock();
        match state.log.next() {
            Next::Item(item) => {
                if state.disk.is_empty() {
                    (self.spare, self.lent) = (BytesMut::new(), Bytes::new());
                }
                self.shared.collect(state);
                Step::Item(item)
            }
            Next::OnDisk { place, first, skip } => Step::Read { place, first, skip },
            Next::Nothing if state.writer_gone => Step::Closed,
            Next::Nothing => Step::Wait,
        }
    }

    /// Reads a place from the disk, stream bytes behind what is left over; only then does the cursor move on.
    async fn read(
        &mut self,
        place: Place,
        first: Option<Offset>,
        skip: u64,
        rest: &mut Bytes,
    ) -> Result<Item, SpoolError> {
        let mut ahead = match self.ahead.take() {
            Some(ahead) if ahead.skip == skip && ahead.place.is(&place) => ahead,
            // The reader has gone back.
            _ => self.begin(place, skip),
        };
        let read = (&mut ahead.read).await;
        let mut buffer = read.map_err(|e| SpoolError::disk("", std::io::Error::other(e)))??;
        let end = FRONT + ahead.place.len_behind(skip);
        let item = match first {
            Some(first) => {
                let front = if rest.len() <= FRONT { std::mem::take(rest) } else { Bytes::new() };
                let begin = FRONT - front.len();
                buffer[begin..FRONT].copy_from_slice(&front);
                let offset = Offset(first.0 + skip - front.len() as u64);
                self.give_back(front);
                self.lent = buffer.freeze();
                Item::Stream { offset, bytes: self.lent.slice(begin..end) }
            }
            None => Item::Snapshot(buffer.freeze().slice(FRONT..end)),
        };
        let mut state = self.shared.lock();
        state.log.step(&item);
        let next = state.log.next_on_disk();
        self.shared.collect(state);
        self.ahead = next.map(|(place, skip)| self.begin(place, skip));
        Ok(item)
    }

    fn begin(&mut self, place: Place, skip: u64) -> Ahead {
        let mut buffer = std::mem::take(&mut self.spare);
        let at = place.clone();
        let read = tokio::task::spawn_blocking(move || {
            let end = FRONT + at.len_behind(skip);
            if buffer.len() < end {
                buffer = BytesMut::zeroed(end.max(USUAL));
            }
            at.read(skip, &mut buffer[FRONT..end]).map(|()| buffer)
        });
        Ahead { place, skip, read }
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
