//! The spool's files: append-only segments, each given up when nothing in it is needed any more.
//!
//! Bytes are written and read at explicit positions on blocking threads; this module keeps the accounts. A segment is
//! the unit of giving space back, so there are at least eight to the bound.
//!
//! What is given up is written to again where more has to be: making a file and removing it takes as long as reading it
//! does, and both are wanted when there is much else to do. Some are kept for that, within the bound, until the spool has
//! had no need of files for a while.

use super::{SpoolError, SpoolOptions};
use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Large enough that files are few, small enough that a day of backlog is given back as it drains, and that the first ones of a
/// short one are soon written to again.
const SEGMENT_BYTES: u64 = 16 << 20;
/// Files that are kept to be written to again.
const KEPT: usize = 16;
/// For so long after the last file was needed.
const KEPT_FOR: Duration = Duration::from_secs(1);
/// Neighbours are read back together up to this size: what fits into a processor's cache.
pub(super) const MERGE_BYTES: u64 = 512 << 10;
const SUFFIX: &str = ".segment";

/// One file.
#[derive(Debug)]
pub(super) struct Segment {
    file: Arc<File>,
    path: PathBuf,
    /// How long the file is: longer than what is in it, where it is written to again.
    size: AtomicU64,
}

impl Segment {
    /// The same file for other bytes: none of its places is one of the other's.
    fn again(&self) -> Arc<Segment> {
        Arc::new(Segment { file: self.file.clone(), path: self.path.clone(), size: self.size().into() })
    }

    fn size(&self) -> u64 {
        self.size.load(Relaxed)
    }
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

    /// Its bytes after the first `skip`.
    pub(super) fn len_behind(&self, skip: u64) -> usize {
        self.len.saturating_sub(skip) as usize
    }

    /// Reads the bytes after the first `skip`, as many as `into` has room for. Blocking.
    pub(super) fn read(&self, skip: u64, into: &mut [u8]) -> Result<(), SpoolError> {
        let Segment { file, path, .. } = &*self.segment;
        file.read_exact_at(into, self.at + skip).map_err(|e| SpoolError::disk(path, e))
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
    /// Files that hold nothing needed.
    emptied: Vec<Arc<Segment>>,
    /// Since when there are no others.
    empty_since: Option<Instant>,
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
    /// Over what this one held, which is cut to this size before.
    Again { segment: Arc<Segment>, size: u64 },
    /// Into a new file of this name.
    Create(PathBuf),
}

impl Slot {
    /// Writes. Blocking. A failed write may be done again: it goes to the same position, or to a file made anew.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<Place, SpoolError> {
        let (segment, at) = match self {
            Slot::Append { segment, at } => (segment.clone(), *at),
            Slot::Again { segment, size } => {
                if segment.size() > *size {
                    segment.file.set_len(*size).map_err(|e| SpoolError::disk(&segment.path, e))?;
                    segment.size.store(*size, Relaxed);
                }
                (segment.clone(), 0)
            }
            Slot::Create(path) => {
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(path)
                    .map_err(|e| SpoolError::disk(path, e))?;
                (Arc::new(Segment { file: Arc::new(file), path: path.clone(), size: 0.into() }), 0)
            }
        };
        if let Err(e) = segment.file.write_all_at(bytes, at) {
            // The next try takes another file.
            if !matches!(self, Slot::Append { .. }) {
                let _ = std::fs::remove_file(&segment.path);
            }
            return Err(SpoolError::disk(&segment.path, e));
        }
        let len = bytes.len() as u64;
        segment.size.fetch_max(at + len, Relaxed);
        Ok(Place { segment, at, len })
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
            emptied: Vec::new(),
            empty_since: None,
            number: 0,
            writing: false,
            full: false,
            error: None,
        })
    }

    /// Bytes of the files of which something is still needed.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.len).sum()
    }

    /// Whether so many more are within this bound. Files that are only kept go where they stand in the way: into `removed`.
    pub(super) fn has_room(&mut self, more: u64, most: u64, removed: &mut Vec<Arc<Segment>>) -> bool {
        loop {
            let files = self.segments.iter().map(|a| &a.segment).chain(&self.emptied);
            let now: u64 = files.map(|s| s.size()).sum();
            let grows = match (self.segments.back(), self.emptied.last()) {
                (Some(last), _) if last.len < self.segment_bytes => {
                    (last.len + more).saturating_sub(last.segment.size())
                }
                (_, Some(again)) => more.saturating_sub(again.size()),
                _ => more,
            };
            match now + grows <= most {
                true => return true,
                // One that is larger than the bound is taken when nothing else is there.
                false if self.emptied.is_empty() => return self.segments.is_empty(),
                false => removed.push(self.emptied.swap_remove(0)),
            }
        }
    }

    /// Takes out the files that were kept, if none has been needed for long.
    pub(super) fn take_kept(&mut self) -> Vec<Arc<Segment>> {
        match self.empty_since {
            Some(since) if since.elapsed() >= KEPT_FOR => {
                self.empty_since = None;
                std::mem::take(&mut self.emptied)
            }
            _ => vec![],
        }
    }

    /// Whether nothing in files is needed.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Where the next bytes go. [`Disk::commit`] or [`Disk::give_up`] must follow.
    pub(super) fn slot(&mut self) -> Slot {
        self.writing = true;
        match self.segments.back() {
            Some(last) if last.len < self.segment_bytes => Slot::Append { segment: last.segment.clone(), at: last.len },
            _ => match self.emptied.pop() {
                Some(segment) => Slot::Again { segment, size: self.segment_bytes },
                None => {
                    self.number += 1;
                    Slot::Create(self.dir.join(format!("{:010}{SUFFIX}", self.number)))
                }
            },
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
                self.empty_since = None;
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

    /// Segments that hold nothing needed are kept to be written to again, or taken out where there are enough of those.
    pub(super) fn take_dead(&mut self) -> Vec<Arc<Segment>> {
        let mut dead = Vec::new();
        let keep_last = self.writing;
        let last = self.segments.len();
        let mut index = 0;
        self.segments.retain(|account| {
            index += 1;
            let keep = account.live > 0 || (keep_last && index == last);
            if !keep && self.emptied.len() < KEPT {
                self.emptied.push(account.segment.again());
            } else if !keep {
                dead.push(account.segment.clone());
            }
            keep
        });
        if self.segments.is_empty() && !self.emptied.is_empty() && self.empty_since.is_none() {
            self.empty_since = Some(Instant::now());
        }
        dead
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for segment in self.segments.iter().map(|account| &account.segment).chain(&self.emptied) {
            let _ = std::fs::remove_file(&segment.path);
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
