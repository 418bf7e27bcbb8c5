//! What the operator sees of conflicts: open ones, the latest settled, the keys that conflict most.

use super::arbiter::class::Class;
use super::arbiter::episode::Episode;
use crate::model::conflict::ConflictChange;
use crate::model::{ConflictRecord, HotKey, Side};
use std::collections::{HashMap, VecDeque};

/// Settled conflicts that are kept for the list.
const KEPT: usize = 1000;
/// Keys whose conflicts are counted; when more conflict, the rarest half is forgotten.
const COUNTED: usize = 2000;

/// A database and a key in it.
type Place = (u32, Box<[u8]>);

#[derive(Debug, Default)]
pub struct ConflictLog {
    settled: VecDeque<ConflictRecord>,
    /// Conflicts and rounds of a key.
    hot: HashMap<Place, (u64, u64)>,
    opened_ms: HashMap<u64, u64>,
    /// Unix time of the job clock's zero, in milliseconds.
    epoch_ms: u64,
}

impl ConflictLog {
    /// A log whose clock began at this Unix time, in milliseconds.
    pub fn since(epoch_ms: u64) -> Self {
        ConflictLog { epoch_ms, ..ConflictLog::default() }
    }

    /// An episode began.
    pub fn opened(&mut self, number: u64, now_ms: u64) {
        self.opened_ms.insert(number, now_ms);
    }

    /// An episode ended; gives the record for the event.
    pub fn settled(&mut self, e: &Episode) -> ConflictRecord {
        let record = self.record(e);
        self.opened_ms.remove(&e.number);
        if self.hot.len() >= COUNTED {
            let mut counts: Vec<u64> = self.hot.values().map(|v| v.0).collect();
            counts.sort_unstable();
            let middle = counts[counts.len() / 2];
            self.hot.retain(|_, v| v.0 > middle);
        }
        let hot = self.hot.entry((e.db, e.key.clone())).or_default();
        hot.0 += 1;
        hot.1 += u64::from(e.rounds);
        if self.settled.len() == KEPT {
            self.settled.pop_front();
        }
        self.settled.push_back(record.clone());
        record
    }

    /// Episodes that were replaced left their times behind.
    pub fn forget_replaced(&mut self, is_open: impl Fn(u64) -> bool) {
        self.opened_ms.retain(|n, _| is_open(*n));
    }

    /// The record of an episode, open or settled.
    pub fn record(&self, e: &Episode) -> ConflictRecord {
        let unix = |ms: u64| self.epoch_ms + ms;
        let opened = self.opened_ms.get(&e.number).copied().unwrap_or(0);
        let change = |side: Side| {
            let seen: Option<(Class, u32)> = match e.opened_by {
                Some((by, class, at)) if by == side => Some((class, at)),
                // What is in flight to one site was made at the other.
                _ => e.seen_in_flight[side.other().index()],
            };
            seen.map(|(class, at)| ConflictChange {
                command: class.as_str().to_owned(),
                size: None,
                at_ms: (at != 0).then(|| unix(widen(at, opened))),
            })
        };
        ConflictRecord {
            number: e.number,
            db: e.db,
            key: shown(&e.key),
            authority: e.authority,
            cause: e.cause.as_str().to_owned(),
            source_change: change(Side::Source),
            target_change: change(Side::Target),
            opened_ms: unix(opened),
            settled_ms: e.settled.map(unix),
            rounds: e.rounds,
        }
    }

    /// The latest settled, newest first.
    pub fn latest(&self, limit: usize) -> Vec<ConflictRecord> {
        self.settled.iter().rev().take(limit).cloned().collect()
    }

    /// The keys with the most conflicts.
    pub fn hottest(&self, limit: usize) -> Vec<HotKey> {
        let mut all: Vec<_> = self.hot.iter().collect();
        all.sort_by_key(|(_, v)| std::cmp::Reverse(v.0));
        all.into_iter()
            .take(limit)
            .map(|((db, key), (conflicts, rounds))| HotKey {
                db: *db,
                key: shown(key),
                conflicts: *conflicts,
                rounds: *rounds,
            })
            .collect()
    }
}

/// A time of which the low half is kept (it wraps after 49 days), as the one nearest to another.
fn widen(low: u32, near: u64) -> u64 {
    near.saturating_add_signed(i64::from(low.wrapping_sub(near as u32) as i32))
}

/// A key as text, cut to 256 bytes.
pub fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(&key[..key.len().min(256)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::widen;

    #[test]
    fn a_time_is_near_the_conflict_that_it_is_told_with() {
        let day = 24 * 3_600_000u64;
        for now in [5_000, 49 * day, 50 * day, (1u64 << 32) + 10, 400 * day] {
            for ago in [0, 20, 4_000] {
                assert_eq!(widen((now - ago) as u32, now), now - ago);
            }
            // It may have been read a little after the conflict was opened.
            assert_eq!(widen((now + 30) as u32, now), now + 30);
        }
    }
}
