//! How far a first copy is and how long it still takes. Sans-IO.
//!
//! Keys are counted when the other site has answered for them, not when they are read: what waits in the spool or the
//! outbox is not done. The time left goes by the rate of the last seconds, so that it follows a limit that is changed.

use crate::engine::replica::ReplicaState;
use crate::model::SnapshotStatus;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Over how long the rate is taken.
const WINDOW: Duration = Duration::from_secs(8);
/// Points in it are at least so far apart.
const APART: Duration = Duration::from_millis(250);
/// A rate over less than this says nothing.
const SHORTEST: Duration = Duration::from_millis(1_000);

/// Follows one first copy.
#[derive(Debug, Default)]
pub struct Progress {
    points: VecDeque<(Instant, u64)>,
    /// Bytes of the snapshot that have come; the total is theirs once it has come as a whole.
    received: u64,
    total: Option<u64>,
}

/// What is known at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// It is still being loaded.
    pub loading: bool,
    /// Keys that were read from it, and changes that the other site has answered for.
    pub keys_read: u64,
    pub keys_applied: u64,
    /// Keys that the source said it has, 0 unknown.
    pub keys_expected: u64,
    /// Bytes of it that were read.
    pub bytes_read: u64,
    pub replica: &'a ReplicaState,
    /// So many strands have a part of what it reads.
    pub together: u64,
}

impl Progress {
    /// The rate changes from here on: what was measured says nothing about it.
    pub fn reset(&mut self) {
        self.points.clear();
    }

    pub fn status(&mut self, seen: Seen<'_>, now: Instant) -> SnapshotStatus {
        match seen.replica {
            ReplicaState::Snapshot { bytes_done, bytes_total } => {
                self.received = self.received.max(*bytes_done / seen.together);
                self.total = bytes_total.map(|total| total / seen.together);
            }
            ReplicaState::Streaming => self.total = self.total.or(Some(self.received.max(seen.bytes_read))),
            _ => {}
        }
        if !seen.loading {
            // Big values count as several changes, values in conflict as none: in the end all of them are there.
            let bytes = seen.bytes_read.max(self.received).max(self.total.unwrap_or(0));
            return SnapshotStatus {
                keys_done: seen.keys_read,
                keys_total: Some(seen.keys_read),
                bytes_done: bytes,
                bytes_total: Some(bytes),
                seconds_left: Some(0),
            };
        }
        let done = seen.keys_applied.min(seen.keys_read);
        let total = Some(seen.keys_expected.max(seen.keys_read)).filter(|t| *t > 0);
        if self.points.back().is_none_or(|(at, _)| now.duration_since(*at) >= APART) {
            self.points.push_back((now, done));
        }
        while self.points.len() > 2 && self.points.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.points.pop_front();
        }
        // Bytes that were read but whose keys are not applied yet are not done either.
        let bytes = match seen.keys_read {
            0 => 0,
            read => (u128::from(seen.bytes_read) * u128::from(done) / u128::from(read)) as u64,
        };
        let total_bytes = self.total.map(|t| t.max(bytes));
        SnapshotStatus {
            keys_done: done,
            keys_total: total,
            bytes_done: bytes,
            bytes_total: total_bytes,
            seconds_left: total.and_then(|total| self.left(done, total, now)),
        }
    }

    fn left(&self, done: u64, total: u64, now: Instant) -> Option<u64> {
        let (at, before) = *self.points.front()?;
        let passed = now.duration_since(at);
        if passed < SHORTEST || done <= before {
            return None;
        }
        let rate = (done - before) as f64 / passed.as_secs_f64();
        Some((total.saturating_sub(done) as f64 / rate).round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(replica: &ReplicaState, read: u64, applied: u64) -> Seen<'_> {
        Seen {
            loading: true,
            keys_read: read,
            keys_applied: applied,
            keys_expected: 10_000,
            bytes_read: read * 100,
            replica,
            together: 1,
        }
    }

    #[test]
    fn the_time_left_follows_the_rate_of_the_last_seconds() {
        let mut p = Progress::default();
        let begun = Instant::now();
        let replica = ReplicaState::Streaming;
        let at = |s: f64| begun + Duration::from_secs_f64(s);
        assert_eq!(p.status(seen(&replica, 0, 0), begun).seconds_left, None, "nothing is known yet");
        let mut last = None;
        // A hundred keys a second.
        for tick in 1..=20u64 {
            last = p.status(seen(&replica, 5_000, tick * 50), at(tick as f64 / 2.0)).seconds_left;
        }
        assert_eq!(last, Some(90));
        // The limit is raised tenfold: half a minute of memory would be wrong for as long.
        p.reset();
        for tick in 1..=6u64 {
            last = p.status(seen(&replica, 9_000, 1_000 + tick * 500), at(10.0 + tick as f64 / 2.0)).seconds_left;
        }
        assert_eq!(last, Some(6));
    }

    #[test]
    fn what_is_read_but_not_applied_is_not_done() {
        let mut p = Progress::default();
        let replica = ReplicaState::Snapshot { bytes_done: 1_000_000, bytes_total: Some(1_000_000) };
        let status = p.status(seen(&replica, 8_000, 2_000), Instant::now());
        assert_eq!((status.keys_done, status.keys_total), (2_000, Some(10_000)));
        assert_eq!((status.bytes_done, status.bytes_total), (200_000, Some(1_000_000)));
    }

    #[test]
    fn the_bytes_are_known_also_after_the_transfer() {
        let mut p = Progress::default();
        let now = Instant::now();
        let coming = ReplicaState::Snapshot { bytes_done: 640_000, bytes_total: None };
        assert_eq!(p.status(seen(&coming, 100, 100), now).bytes_total, None, "a diskless source does not say");
        let done = ReplicaState::Streaming;
        assert_eq!(p.status(seen(&done, 200, 100), now).bytes_total, Some(640_000));
        let status = p.status(Seen { loading: false, ..seen(&done, 10_000, 9_990) }, now);
        assert_eq!((status.keys_done, status.keys_total, status.seconds_left), (10_000, Some(10_000), Some(0)));
        assert_eq!(status.bytes_done, 1_000_000);
        assert_eq!(status.bytes_total, Some(1_000_000));
    }
}
