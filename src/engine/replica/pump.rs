//! One connection's life after the handshake: bytes into the spool, acknowledgements out.
//!
//! Both run in one task as two futures, so that acknowledgements go on while the spool is full.

use super::attach::{Answer, Attached};
use super::shared::{Publisher, ReplicaState};
use crate::engine::net::{NetError, RawReader, RawWriter, request};
use crate::engine::spool::{Item, SpoolError, SpoolWriter};
use crate::model::Offset;
use bytes::{Buf, BytesMut};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// A read's room. Large reads are what keeps a replica ahead of its master.
const READ_BYTES: usize = 256 << 10;
const READ_MIN: usize = 16 << 10;
/// Where so much waits to be decided, nobody waits for what comes next: it is left to gather for a moment. A server sends in
/// pieces of 16 KiB; read as they come, each costs a wake-up, and each few a write to a file.
const FAR_BEHIND: u64 = 1 << 20;
const GATHER_FOR: Duration = Duration::from_millis(2);
/// A read of so much leaves nothing to gain.
const GATHERED: usize = READ_BYTES / 2;
/// `$EOF:` and the end of a diskless snapshot are followed and marked by this many bytes (CONFIG_RUN_ID_SIZE).
const MARK: usize = 40;
const MAX_HEADER: usize = 1024;

/// The master measures our life by these.
const ACK_EVERY: Duration = Duration::from_secs(1);
/// After a snapshot without a length the stream starts with an ACK that comes when the master counts us online.
const ACK_HURRY: Duration = Duration::from_millis(100);
const HURRY_FOR: Duration = Duration::from_secs(3);
/// Shortest time between two: `WAIT` at the source is answered by them.
const ACK_SOONEST: Duration = Duration::from_millis(50);
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    Net(NetError),
    Spool(SpoolError),
    /// It was told to go elsewhere.
    Left,
    /// In the middle of a snapshot of which the spool has a part.
    SnapshotCut(NetError),
}

impl From<SpoolError> for End {
    fn from(e: SpoolError) -> Self {
        End::Spool(e)
    }
}

/// Between the two futures.
#[derive(Debug, Default)]
struct Pulse {
    /// ACK often: the master waits for one to begin.
    hurry: AtomicBool,
    hurried: Notify,
    /// The writing half failed: stop reading.
    closing: Notify,
}

/// Runs until the connection ends. Never leaves a push to the spool half done.
pub(super) async fn run(
    attached: Attached,
    address: &str,
    keep_snapshot: bool,
    spool: &mut SpoolWriter,
    applied: watch::Receiver<Offset>,
    publisher: &Publisher,
) -> End {
    let Attached { stream, buffer, answer, silence } = attached;
    let (reader, writer) = stream.into_split();
    let pulse = Pulse::default();
    let mut pump = Pump { reader, buffer, address, silence, spool, publisher, pulse: &pulse };
    let read = pump.run(answer, keep_snapshot);
    let acknowledge = acknowledge(writer, applied, publisher, &pulse, address);
    let leave = publisher.leave_wanted();
    tokio::pin!(read, acknowledge);
    tokio::select! {
        end = &mut read => end,
        () = leave.notified() => {
            pulse.closing.notify_one();
            match read.await {
                End::Net(_) => End::Left,
                end => end,
            }
        }
        failed = &mut acknowledge => {
            // What is being pushed is pushed; the next read is not made.
            pulse.closing.notify_one();
            match read.await {
                End::Net(_) => End::Net(failed),
                End::SnapshotCut(_) => End::SnapshotCut(failed),
                end => end,
            }
        }
    }
}

struct Pump<'a> {
    reader: RawReader,
    buffer: BytesMut,
    address: &'a str,
    silence: Duration,
    spool: &'a mut SpoolWriter,
    publisher: &'a Publisher,
    pulse: &'a Pulse,
}

impl Pump<'_> {
    async fn run(&mut self, answer: Answer, keep_snapshot: bool) -> End {
        let result = match answer {
            Answer::Continue { .. } | Answer::Lost { .. } => Ok(()),
            Answer::Full { replid, offset } => self.snapshot(replid, offset, keep_snapshot).await,
        };
        match result {
            Ok(()) => self.stream().await,
            Err(end) => end,
        }
    }

    /// The stream, for ever.
    async fn stream(&mut self) -> End {
        self.publisher.state(ReplicaState::Streaming);
        let mut offset = self.publisher.received();
        loop {
            if !self.buffer.is_empty() {
                let bytes = self.buffer.split().freeze();
                let read = bytes.len();
                let next = offset.plus(read as u64);
                self.publisher.stream_came(next);
                if let Err(e) = self.spool.push(Item::Stream { offset, bytes }).await {
                    return End::Spool(e);
                }
                self.read_into_place_of_spilled();
                offset = next;
                self.publisher.set_received(offset);
                if read < GATHERED && self.spool.waiting() >= FAR_BEHIND {
                    tokio::time::sleep(GATHER_FOR).await;
                }
            }
            if let Err(e) = self.fill("read the stream").await {
                return End::Net(e);
            }
        }
    }

    /// What lies in a file now leaves its memory to the next read.
    fn read_into_place_of_spilled(&mut self) {
        let Some(bytes) = self.spool.take_spilled() else { return };
        if self.buffer.is_empty() {
            // It shares that memory, and would keep it from being used again.
            self.buffer = BytesMut::new();
            if let Ok(mut buffer) = bytes.try_into_mut() {
                buffer.clear();
                self.buffer = buffer;
            }
        }
    }

    /// `$<length>` or `$EOF:<mark>`, the payload, and its end.
    async fn snapshot(&mut self, replid: crate::model::ReplId, offset: Offset, keep: bool) -> Result<(), End> {
        self.publisher.state(ReplicaState::WaitingForSnapshot);
        let header = self.header().await.map_err(End::Net)?;
        let total = match header {
            Header::Sized(total) => Some(total),
            Header::Marked(_) => None,
        };
        if keep {
            self.spool.push(Item::SnapshotBegin { replid, offset, total }).await?;
        }
        let mut progress = Progress { keep, done: 0, total, told: Instant::now() };
        self.publisher.state(ReplicaState::Snapshot { bytes_done: 0, bytes_total: total });
        match header {
            Header::Sized(total) => self.sized(total, &mut progress).await?,
            Header::Marked(mark) => self.marked(&mark, &mut progress).await?,
        }
        if keep {
            self.spool.push(Item::SnapshotEnd).await?;
        } else {
            self.spool.push(Item::NewReplid { replid, at: offset }).await?;
        }
        self.publisher.snapshot_complete();
        if total.is_none() {
            self.pulse.hurry.store(true, Relaxed);
            self.pulse.hurried.notify_one();
        }
        Ok(())
    }

    async fn header(&mut self) -> Result<Header, NetError> {
        loop {
            while self.buffer.first() == Some(&b'\n') {
                self.buffer.advance(1);
            }
            if let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line = self.buffer.split_to(end + 1);
                let line = line.trim_ascii_end();
                return Header::read(line).ok_or_else(|| match line.strip_prefix(b"-") {
                    Some(error) => NetError::from_reply(self.address, "PSYNC", &String::from_utf8_lossy(error)),
                    None => self.strange(line),
                });
            }
            if self.buffer.len() > MAX_HEADER {
                return Err(self.strange(&self.buffer[..MAX_HEADER]));
            }
            self.fill("wait for the snapshot").await?;
        }
    }

    fn strange(&self, line: &[u8]) -> NetError {
        NetError::Server {
            address: self.address.to_owned(),
            doing: "PSYNC".into(),
            kind: crate::engine::net::ServerError::Other,
            seen: String::from_utf8_lossy(line).chars().take(200).collect(),
        }
    }

    async fn sized(&mut self, total: u64, progress: &mut Progress) -> Result<(), End> {
        while progress.done < total {
            let take = (total - progress.done).min(self.buffer.len() as u64) as usize;
            self.deliver(take, progress).await?;
            if progress.done < total {
                self.fill_snapshot(progress).await?;
            }
        }
        Ok(())
    }

    /// The mark ends the payload; it may lie across reads, so its length less one is held back.
    async fn marked(&mut self, mark: &[u8; MARK], progress: &mut Progress) -> Result<(), End> {
        let finder = memchr::memmem::Finder::new(mark);
        loop {
            if let Some(end) = finder.find(&self.buffer) {
                self.deliver(end, progress).await?;
                self.buffer.advance(MARK);
                return Ok(());
            }
            self.deliver(self.buffer.len().saturating_sub(MARK - 1), progress).await?;
            self.fill_snapshot(progress).await?;
        }
    }

    /// Hands the first `take` bytes of the buffer on.
    async fn deliver(&mut self, take: usize, progress: &mut Progress) -> Result<(), End> {
        if take == 0 {
            return Ok(());
        }
        let bytes = self.buffer.split_to(take).freeze();
        progress.done += take as u64;
        if progress.keep {
            self.spool.push(Item::Snapshot(bytes)).await?;
        }
        if progress.told.elapsed() >= PROGRESS_EVERY {
            progress.told = Instant::now();
            let (bytes_done, bytes_total) = (progress.done, progress.total);
            self.publisher.state(ReplicaState::Snapshot { bytes_done, bytes_total });
        }
        Ok(())
    }

    async fn fill_snapshot(&mut self, progress: &Progress) -> Result<(), End> {
        let cut = if progress.keep { End::SnapshotCut } else { End::Net };
        self.fill("read the snapshot").await.map_err(cut)
    }

    /// Reads at least a byte.
    async fn fill(&mut self, doing: &'static str) -> Result<(), NetError> {
        if self.buffer.capacity() - self.buffer.len() < READ_MIN {
            self.buffer.reserve(READ_BYTES);
        }
        let read = tokio::select! {
            read = tokio::time::timeout(self.silence, self.reader.read_buf(&mut self.buffer)) => read,
            _ = self.pulse.closing.notified() => {
                return Err(NetError::Closed { address: self.address.to_owned(), doing });
            }
        };
        match read {
            Ok(Ok(0)) => Err(NetError::Closed { address: self.address.to_owned(), doing }),
            Ok(Ok(count)) => {
                self.publisher.read(count);
                Ok(())
            }
            Ok(Err(e)) => Err(NetError::from_io(self.address, doing, &e)),
            Err(_) => Err(NetError::TimedOut { address: self.address.to_owned(), doing, waited: self.silence }),
        }
    }
}

struct Progress {
    keep: bool,
    done: u64,
    total: Option<u64>,
    told: Instant,
}

/// How the payload's end is known.
#[derive(Debug, PartialEq, Eq)]
enum Header {
    Sized(u64),
    Marked([u8; MARK]),
}

impl Header {
    fn read(line: &[u8]) -> Option<Header> {
        let rest = line.strip_prefix(b"$")?;
        match rest.strip_prefix(b"EOF:") {
            Some(mark) => Some(Header::Marked(mark.try_into().ok()?)),
            None => Some(Header::Sized(std::str::from_utf8(rest).ok()?.parse().ok()?)),
        }
    }
}

/// Sends `REPLCONF ACK`; returns only when that fails.
async fn acknowledge(
    mut writer: RawWriter,
    mut applied: watch::Receiver<Offset>,
    publisher: &Publisher,
    pulse: &Pulse,
    address: &str,
) -> NetError {
    let begun = publisher.received();
    let mut last: Option<Instant> = None;
    let mut hurry_until: Option<Instant> = None;
    let mut applied_open = true;
    let mut rate = Rate::new(publisher.bytes());
    loop {
        if pulse.hurry.swap(false, Relaxed) {
            hurry_until = Some(Instant::now() + HURRY_FOR);
        }
        if hurry_until.is_some_and(|until| Instant::now() > until || publisher.received() > begun) {
            hurry_until = None;
        }
        let period = if hurry_until.is_some() { ACK_HURRY } else { ACK_EVERY };
        let due = last.map_or_else(Instant::now, |at| at + period);
        tokio::select! {
            _ = tokio::time::sleep_until(due) => {}
            _ = pulse.hurried.notified() => continue,
            changed = applied.changed(), if applied_open => match changed {
                Err(_) => {
                    applied_open = false;
                    continue;
                }
                Ok(()) => if let Some(at) = last {
                    tokio::time::sleep_until(at + ACK_SOONEST).await;
                }
            },
        }
        // Never more than we have: a link that resumes elsewhere may know of a later position.
        let offset = (*applied.borrow_and_update()).min(publisher.received());
        let ack = request(&[b"REPLCONF", b"ACK", offset.to_string().as_bytes()]);
        let sent = tokio::time::timeout(WRITE_DEADLINE, async {
            writer.write_all(&ack).await?;
            writer.flush().await
        });
        const DOING: &str = "acknowledge";
        match sent.await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return NetError::from_io(address, DOING, &e),
            Err(_) => {
                return NetError::TimedOut { address: address.to_owned(), doing: DOING, waited: WRITE_DEADLINE };
            }
        }
        last = Some(Instant::now());
        if let Some(bytes_per_second) = rate.measure(publisher.bytes()) {
            publisher.set_rate(bytes_per_second);
        }
    }
}

/// Bytes a second, measured over a second or more.
struct Rate {
    bytes: u64,
    at: Instant,
}

impl Rate {
    fn new(bytes: u64) -> Self {
        Rate { bytes, at: Instant::now() }
    }

    fn measure(&mut self, bytes: u64) -> Option<u64> {
        let elapsed = self.at.elapsed();
        if elapsed < Duration::from_millis(900) {
            return None;
        }
        let rate = (bytes - self.bytes) as f64 / elapsed.as_secs_f64();
        *self = Rate::new(bytes);
        Some(rate as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_payload_are_known_by_their_header() {
        assert_eq!(Header::read(b"$175"), Some(Header::Sized(175)));
        let mark = [b'x'; MARK];
        assert_eq!(Header::read(&[b"$EOF:".as_slice(), &mark].concat()), Some(Header::Marked(mark)));
        for strange in [b"".as_slice(), b"$", b"$-1", b"$EOF:short", b"+OK", b"-ERR no"] {
            assert_eq!(Header::read(strange), None);
        }
    }
}
