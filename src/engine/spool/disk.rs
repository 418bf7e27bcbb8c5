//! The spool's files: append-only segments, each removed when nothing in it is needed any more.
//!
//! Bytes are written and read at explicit positions on blocking threads; this module keeps the accounts. A segment is
//! the unit of giving space back, so there are at least eight to the bound.

use super::{SpoolError, SpoolOptions};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Large enough that files are few, small enough that a day of backlog is given back as it drains.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Neighbours are read back together up to this size: what fits into a processor's cache.
pub(super) const MERGE_BYTES: u64 = 512 << 10;
const SUFFIX: &str = ".segment";

/// One file.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    path: PathBuf,
}

/// Some bytes of a segment.
#[derive(Debug, Clone)]
pub(super) struct Place {
    segment: Arc<Segment>,
    at: u64,
    len: u64,
}

impl Place {
    /// Whether it is the same place.
    pub(super) fn is(&self, other: &Place) -> bool {
        Arc::ptr_eq(&self.segment, &other.segment) && (self.at, self.len) == (other.at, other.len)
    }

    /// Takes `next` in, if it follows in the same file.
    pub(super) fn extend(&mut self, next: &Place) -> bool {
        let fits = Arc::ptr_eq(&self.segment, &next.segment)
            && self.at + self.len == next.at
            && self.len + next.len <= MERGE_BYTES;
        if fits {
            self.len += next.len;
        }
        fits
    }

    /// Puts the bytes after the first `skip` behind what the buffer holds. Blocking.
    pub(super) fn read(&self, skip: u64, buffer: &mut BytesMut) -> Result<(), SpoolError> {
        let front = buffer.len();
        buffer.resize(front + (self.len - skip) as usize, 0);
        self.segment
            .file
            .read_exact_at(&mut buffer[front..], self.at + skip)
            .map_err(|e| SpoolError::disk(&self.segment.path, e))
    }
}

#[derive(Debug)]
struct Account {
    segment: Arc<Segment>,
    /// Bytes in the file.
    len: u64,
    /// Bytes in it that are still needed.
    live: u64,
}

/// The accounts of all segments.
#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    segment_bytes: u64,
    segments: VecDeque<Account>,
    number: u64,
    /// A write to the last segment is under way: it must stay.
    writing: bool,
    pub(super) full: bool,
    pub(super) error: Option<String>,
}

/// Where the next bytes go.
#[derive(Debug)]
pub(super) enum Slot {
    /// Behind what the last segment holds.
    Append { segment: Arc<Segment>, at: u64 },
    /// Into a new file of this name.
    Create(PathBuf),
}

impl Slot {
    /// Writes. Blocking. A failed write may be done again: it goes to the same position, or to a file made anew.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<Place, SpoolError> {
        let (segment, at) = match self {
            Slot::Append { segment, at } => (segment.clone(), *at),
            Slot::Create(path) => {
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(path)
                    .map_err(|e| SpoolError::disk(path, e))?;
                (Arc::new(Segment { file, path: path.clone() }), 0)
            }
        };
        if let Err(e) = segment.file.write_all_at(bytes, at) {
            // The next try makes a file of another name.
            if let Slot::Create(path) = self {
                let _ = std::fs::remove_file(path);
            }
            return Err(SpoolError::disk(&segment.path, e));
        }
        Ok(Place { segment, at, len: bytes.len() as u64 })
    }
}

impl Disk {
    pub(super) fn prepare(options: &SpoolOptions) -> Result<Disk, SpoolError> {
        let dir = &options.dir;
        let failed = |e| SpoolError::disk(dir, e);
        if options.disk_bytes > 0 {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
            for entry in std::fs::read_dir(dir).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                if is_segment(&path) {
                    std::fs::remove_file(&path).map_err(|e| SpoolError::disk(&path, e))?;
                }
            }
        }
        Ok(Disk {
            dir: dir.clone(),
            segment_bytes: (options.disk_bytes / 8).clamp(1, SEGMENT_BYTES),
            segments: VecDeque::new(),
            number: 0,
            writing: false,
            full: false,
            error: None,
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.len).sum()
    }

    /// Whether there are no files.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Where the next bytes go. [`Disk::commit`] or [`Disk::give_up`] must follow.
    pub(super) fn slot(&mut self) -> Slot {
        self.writing = true;
        match self.segments.back() {
            Some(last) if last.len < self.segment_bytes => Slot::Append { segment: last.segment.clone(), at: last.len },
            _ => {
                self.number += 1;
                Slot::Create(self.dir.join(format!("{:010}{SUFFIX}", self.number)))
            }
        }
    }

    /// The bytes are in their place.
    pub(super) fn commit(&mut self, place: &Place) {
        self.writing = false;
        self.error = None;
        match self.segments.back_mut() {
            Some(last) if Arc::ptr_eq(&last.segment, &place.segment) => {
                last.len += place.len;
                last.live += place.len;
            }
            _ => {
                let (len, live) = (place.len, place.len);
                self.segments.push_back(Account { segment: place.segment.clone(), len, live });
            }
        }
    }

    pub(super) fn give_up(&mut self) {
        self.writing = false;
    }

    /// These bytes are not needed any more.
    pub(super) fn forget(&mut self, place: &Place) {
        if let Some(account) = self.segments.iter_mut().find(|a| Arc::ptr_eq(&a.segment, &place.segment)) {
            account.live -= place.len;
        }
    }

    /// Takes out the segments that hold nothing needed.
    pub(super) fn take_dead(&mut self) -> Vec<Arc<Segment>> {
        let mut dead = Vec::new();
        let keep_last = self.writing;
        let last = self.segments.len();
        let mut index = 0;
        self.segments.retain(|account| {
            index += 1;
            let keep = account.live > 0 || (keep_last && index == last);
            if !keep {
                dead.push(account.segment.clone());
            }
            keep
        });
        dead
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for account in &self.segments {
            let _ = std::fs::remove_file(&account.segment.path);
        }
    }
}

/// Removes files off the async threads. A file that can't be removed is removed at the next start.
pub(super) fn remove_files(segments: Vec<Arc<Segment>>) {
    if segments.is_empty() {
        return;
    }
    let remove = move || {
        for segment in segments {
            let _ = std::fs::remove_file(&segment.path);
        }
    };
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(remove)),
        Err(_) => remove(),
    }
}

fn is_segment(path: &Path) -> bool {
    path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.ends_with(SUFFIX))
}
