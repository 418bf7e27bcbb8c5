//! The order of the items: a queue whose front is what is still needed, with a cursor for what is read next. Sans-IO.

use super::Item;
use super::disk::Place;
use crate::model::Offset;
use std::collections::VecDeque;

/// Where an entry's content is.
#[derive(Debug)]
pub(super) enum Body {
    Memory(Item),
    Disk(Place),
    /// Snapshot bytes that were read: kept as a place holder until the entries before it are released.
    Gone,
}

/// What the reader gets next.
#[derive(Debug)]
pub(super) enum Next {
    Item(Item),
    /// Read it from the disk, then call [`Log::step`]. `skip` bytes of it are not wanted.
    OnDisk {
        place: Place,
        /// Position of its first byte, where it is of the stream.
        first: Option<Offset>,
        skip: u64,
    },
    Nothing,
}

/// A stretch of stream positions: first and end.
type Span = (Offset, Offset);

#[derive(Debug)]
struct Entry {
    body: Body,
    /// The stream bytes in it.
    span: Option<Span>,
    cost: u64,
    /// Entries before the last `Lost` that was read are of no more use.
    epoch: u64,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    /// Index in `entries` of what is read next.
    cursor: usize,
    /// Bytes of that entry that are not wanted, after a rewind into its middle.
    skip: u64,
    /// Of items in memory.
    pub(super) memory: u64,
    pub(super) written: Offset,
    pub(super) read: Offset,
    pub(super) released: Offset,
    /// Whether `written` means something: a stream has begun since the last `Lost`.
    pub(super) anchored: bool,
    epoch_written: u64,
    epoch_read: u64,
}

impl Log {
    /// The stream position that the next item must have, where one is due.
    pub(super) fn expected(&self) -> Option<Offset> {
        self.anchored.then_some(self.written)
    }

    /// Adds an item that stays in memory.
    pub(super) fn push_memory(&mut self, item: Item) {
        let cost = item.cost();
        let (span, epoch) = self.note(&item);
        self.memory += cost;
        self.entries.push_back(Entry { body: Body::Memory(item), span, cost, epoch });
    }

    /// Adds an item whose bytes lie in `place` now.
    pub(super) fn push_disk(&mut self, item: &Item, place: Place) {
        let (span, epoch) = self.note(item);
        // Small pieces that lie side by side are read back as one. Not the one under the cursor: it may just be read.
        if self.cursor + 1 < self.entries.len()
            && let Some(last) = self.entries.back_mut()
            && last.epoch == epoch
            && let (Body::Disk(before), Some(have), Some(more)) = (&mut last.body, &mut last.span, span)
            && have.1 == more.0
            && before.extend(&place)
        {
            have.1 = more.1;
            return;
        }
        self.entries.push_back(Entry { body: Body::Disk(place), span, cost: 0, epoch });
    }

    /// What a new item means for the written position; its span and its epoch.
    fn note(&mut self, item: &Item) -> (Option<Span>, u64) {
        let (span, epoch) = (span_of(item), self.epoch_written);
        match item {
            Item::SnapshotBegin { offset, .. } => self.written = *offset,
            Item::Snapshot(_) => {}
            Item::SnapshotEnd => self.anchored = true,
            Item::NewReplid { at, .. } => {
                self.anchored = true;
                self.written = *at;
            }
            Item::Stream { .. } => {
                self.anchored = true;
                self.written = span.map_or(self.written, |s| s.1);
            }
            Item::Lost { .. } => {
                self.anchored = false;
                self.epoch_written += 1;
            }
        }
        (span, epoch)
    }

    /// What is next. An item in memory is handed out at once, and the cursor moves on.
    pub(super) fn next(&mut self) -> Next {
        while matches!(self.entries.get(self.cursor), Some(Entry { body: Body::Gone, .. })) {
            self.cursor += 1;
        }
        let skip = self.skip;
        let Some(entry) = self.entries.get_mut(self.cursor) else { return Next::Nothing };
        let item = match &mut entry.body {
            Body::Disk(place) => return Next::OnDisk { place: place.clone(), first: entry.span.map(|s| s.0), skip },
            // Its bytes are of no use once they are read: hand them out instead of sharing them.
            Body::Memory(Item::Snapshot(bytes)) => {
                let bytes = std::mem::take(bytes);
                self.memory -= entry.cost;
                entry.cost = 0;
                entry.body = Body::Gone;
                Item::Snapshot(bytes)
            }
            Body::Memory(Item::Stream { offset, bytes }) => {
                Item::Stream { offset: offset.plus(skip), bytes: bytes.slice(skip as usize..) }
            }
            Body::Memory(item) => item.clone(),
            Body::Gone => return Next::Nothing,
        };
        self.step(&item);
        Next::Item(item)
    }

    /// The place of what is next, if it lies in a file, and how many bytes of it are not wanted. It stays as it is from now
    /// on: nothing is added to what is under the cursor.
    pub(super) fn next_on_disk(&self) -> Option<(Place, u64)> {
        match &self.entries.get(self.cursor)?.body {
            Body::Disk(place) => Some((place.clone(), self.skip)),
            _ => None,
        }
    }

    /// Moves the cursor over `item`, which was just handed out.
    pub(super) fn step(&mut self, item: &Item) {
        self.cursor += 1;
        self.skip = 0;
        match item {
            Item::Lost { .. } => self.epoch_read += 1,
            Item::SnapshotBegin { offset, .. } | Item::NewReplid { at: offset, .. } => self.anchor_reader(*offset),
            Item::Stream { offset, bytes } => {
                self.read = offset.plus(bytes.len() as u64);
            }
            _ => {}
        }
    }

    /// A stream starts at `offset` for the reader, unless it is on its way there already.
    fn anchor_reader(&mut self, offset: Offset) {
        if self.read != offset {
            self.read = offset;
            self.released = offset;
        }
    }

    /// Stream bytes before `upto` are not wanted any more.
    pub(super) fn release(&mut self, upto: Offset) {
        self.released = self.released.max(upto.min(self.read));
    }

    /// Takes the front entry if it is of no more use.
    pub(super) fn pop_released(&mut self) -> Option<Body> {
        let front = self.entries.front()?;
        let read = self.cursor > 0;
        let done = read
            && match front.span {
                Some((_, end)) => end <= self.released || front.epoch < self.epoch_read,
                None => true,
            };
        if !done {
            return None;
        }
        let entry = self.entries.pop_front()?;
        self.cursor -= 1;
        self.memory -= entry.cost;
        Some(entry.body)
    }

    /// Puts the cursor back to stream position `to`.
    pub(super) fn rewind(&mut self, to: Offset) -> Result<(), Span> {
        if to < self.released || to > self.read {
            return Err((self.released, self.read));
        }
        let mut target = self.cursor;
        for (index, entry) in self.entries.iter().enumerate().take(self.cursor) {
            let wanted = match entry.span {
                Some((_, end)) => end > to,
                // A name that was told right here is told again; one that was told earlier stands.
                None => matches!(&entry.body, Body::Memory(Item::NewReplid { at, .. }) if *at >= to),
            };
            if wanted && entry.epoch == self.epoch_read {
                target = index;
                break;
            }
        }
        // The cursor may stand inside a chunk already, after an earlier rewind: then that chunk is the one.
        self.cursor = target;
        self.skip = match self.entries.get(target).and_then(|e| e.span) {
            Some((first, end)) if first <= to && to < end => to.since(first),
            _ => 0,
        };
        self.read = to;
        Ok(())
    }
}

fn span_of(item: &Item) -> Option<Span> {
    item.stream().map(|(offset, bytes)| (offset, offset.plus(bytes.len() as u64)))
}
