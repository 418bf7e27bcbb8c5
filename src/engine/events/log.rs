//! The engine's event log: numbered, the newest in memory, all of them in a file of JSON lines.
//!
//! Numbers grow by one and go on after a restart. Reporting never blocks: a thread writes the file, and when the disk
//! is slower than the events, lines are left out of the file (and counted in the program's log), never of the memory.
//! A file that has reached [`FILE_BYTES`] becomes `events.1.jsonl`, whose predecessor goes.

use super::{EventSink, NewEvent};
use crate::model::Event;
use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;

/// Events kept in memory, about 300 bytes each.
const RING: usize = 10_000;
/// Bytes of one file.
const FILE_BYTES: u64 = 8 << 20;
/// Lines that wait for the disk.
const QUEUE: usize = 4_096;

const FILE: &str = "events.jsonl";
const OLDER_FILE: &str = "events.1.jsonl";

/// The log of one engine. Cheap to clone.
#[derive(Clone)]
pub struct EventLog {
    inner: Arc<Inner>,
}

struct Inner {
    ring: Mutex<Ring>,
    /// The number of the newest event; readers that follow wait on it.
    newest: watch::Sender<u64>,
    writer: Mutex<Option<(SyncSender<Event>, JoinHandle<()>)>>,
}

struct Ring {
    events: VecDeque<Event>,
    seq: u64,
    lost: u64,
}

impl EventLog {
    /// Opens the log of a folder and reads its newest events back.
    pub fn open(dir: &Path) -> io::Result<EventLog> {
        let mut events = VecDeque::new();
        let mut seq = 0;
        for name in [OLDER_FILE, FILE] {
            read_back(&dir.join(name), &mut events, &mut seq)?;
        }
        let file = LogFile::open(dir)?;
        let (lines, queue) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("events".into()).spawn(move || {
            let mut file = file;
            while let Ok(event) = queue.recv() {
                if let Err(error) = file.write(&event) {
                    tracing::error!(%error, "can't write the event log");
                }
            }
        })?;
        let ring = Mutex::new(Ring { events, seq, lost: 0 });
        let inner = Inner { ring, newest: watch::Sender::new(seq), writer: Mutex::new(Some((lines, thread))) };
        Ok(EventLog { inner: Arc::new(inner) })
    }

    /// Where the parts of one job report.
    pub fn sink(&self, job: &str) -> EventSink {
        let (log, job) = (self.clone(), job.to_owned());
        EventSink::new(move |event| log.add(&job, event))
    }

    /// Numbers and keeps an event.
    pub fn add(&self, job: &str, event: NewEvent) {
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let mut ring = self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.seq += 1;
        let event = Event {
            seq: ring.seq,
            at_ms,
            job: job.to_owned(),
            direction: event.direction,
            severity: event.severity,
            kind: event.kind,
            text: event.text,
            conflict: event.conflict,
        };
        if ring.events.len() == RING {
            ring.events.pop_front();
        }
        ring.events.push_back(event.clone());
        // Still under the lock, so that the file has the order of the numbers.
        if let Some((lines, _)) = &*self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner) {
            match lines.try_send(event) {
                Ok(()) if ring.lost > 0 => {
                    tracing::warn!(lost = ring.lost, "the disk was too slow for the event log; its file has a gap");
                    ring.lost = 0;
                }
                Ok(()) => {}
                Err(_) => ring.lost += 1,
            }
        }
        self.inner.newest.send_replace(ring.seq);
    }

    /// The newest `limit` events with a higher number than `after`, oldest first; of one job, or of all.
    pub fn after(&self, job: Option<&str>, after: u64, limit: usize) -> Vec<Event> {
        let ring = self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<Event> = ring
            .events
            .iter()
            .rev()
            .take_while(|e| e.seq > after)
            .filter(|e| job.is_none_or(|name| e.job == name))
            .take(limit)
            .cloned()
            .collect();
        found.reverse();
        found
    }

    /// The number of the newest event, now and each time it grows.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.inner.newest.subscribe()
    }

    /// Writes what waits for the disk. Events after it are kept in memory alone.
    pub fn close(&self) {
        let writer = self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((lines, thread)) = writer {
            drop(lines);
            _ = thread.join();
        }
    }
}

/// Reads the events of a file into the ring. Lines that are not events (a crash in the middle of one) are skipped.
fn read_back(path: &Path, events: &mut VecDeque<Event>, seq: &mut u64) -> io::Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for line in BufReader::new(file).split(b'\n') {
        let Ok(event) = serde_json::from_slice::<Event>(&line?) else { continue };
        *seq = event.seq.max(*seq);
        if events.len() == RING {
            events.pop_front();
        }
        events.push_back(event);
    }
    Ok(())
}

struct LogFile {
    dir: PathBuf,
    file: File,
    bytes: u64,
}

impl LogFile {
    fn open(dir: &Path) -> io::Result<LogFile> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join(FILE))?;
        let bytes = file.metadata()?.len();
        let mut log = LogFile { dir: dir.to_owned(), file, bytes };
        if bytes > 0 {
            // Whatever a crash left of the last line ends here.
            log.file.write_all(b"\n")?;
        }
        Ok(log)
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        if self.bytes >= FILE_BYTES {
            fs::rename(self.dir.join(FILE), self.dir.join(OLDER_FILE))?;
            *self = LogFile::open(&self.dir)?;
        }
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventKind, Severity};

    fn event(text: &str) -> NewEvent {
        let (severity, kind) = (Severity::Info, EventKind::JobStarted);
        NewEvent { direction: None, severity, kind, text: text.into(), conflict: None }
    }

    fn texts(events: &[Event]) -> Vec<&str> {
        events.iter().map(|e| e.text.as_str()).collect()
    }

    #[test]
    fn events_are_numbered_filtered_and_cut_to_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let log = EventLog::open(dir.path()).unwrap();
        for (job, text) in [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")] {
            log.add(job, event(text));
        }
        assert_eq!(texts(&log.after(None, 0, 10)), ["1", "2", "3", "4"]);
        assert_eq!(texts(&log.after(Some("a"), 1, 10)), ["3", "4"]);
        assert_eq!(texts(&log.after(Some("a"), 0, 2)), ["3", "4"]);
        assert_eq!(texts(&log.after(None, 4, 10)), [""; 0]);
        assert_eq!(*log.newest().borrow(), 4);
    }

    #[test]
    fn numbers_go_on_after_a_restart_and_a_torn_line_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let log = EventLog::open(dir.path()).unwrap();
        log.sink("a").info(None, EventKind::JobStarted, "first");
        log.close();
        let path = dir.path().join(FILE);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"seq\":99,\"at").unwrap();

        let log = EventLog::open(dir.path()).unwrap();
        log.add("a", event("second"));
        log.close();

        let log = EventLog::open(dir.path()).unwrap();
        let found = log.after(None, 0, 10);
        assert_eq!(texts(&found), ["first", "second"]);
        assert_eq!((found[0].seq, found[1].seq), (1, 2));
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_full_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = LogFile::open(dir.path()).unwrap();
        let log = EventLog::open(dir.path()).unwrap();
        log.add("a", event("x"));
        let event = log.after(None, 0, 1).remove(0);
        file.write(&event).unwrap();
        file.bytes = FILE_BYTES;
        file.write(&event).unwrap();
        assert!(dir.path().join(OLDER_FILE).exists());
        assert!(file.bytes > 0 && file.bytes < FILE_BYTES);
    }
}
