//! What the operator sees of conflicts: open ones, the latest settled, the keys that conflict most.

mod text;

use super::arbiter::episode::{Episode, Met};
use crate::model::conflict::{ConflictChange, ConflictValue};
use crate::model::{ConflictRecord, HotKey, Side};
use crate::wire::command::Argv;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};

/// Settled conflicts that are kept for the list.
const KEPT: usize = 1000;
/// Keys whose conflicts are counted; when more conflict, the rarest half is forgotten.
const COUNTED: usize = 2000;

/// A database and a key in it.
type Place = (u32, Box<[u8]>);

/// What is known of an open episode beside what the arbiter knows.
#[derive(Debug, Default)]
struct Open {
    at_ms: u64,
    /// The value that was carried last.
    value: Option<Carried>,
    /// The command that revealed it, where the job shows values.
    command: Option<Box<str>>,
}

#[derive(Debug)]
struct Carried {
    size: u64,
    sum: u64,
    /// Where the job shows values.
    text: Option<String>,
}

#[derive(Debug, Default)]
pub struct ConflictLog {
    settled: VecDeque<ConflictRecord>,
    /// Conflicts and rounds of a key.
    hot: HashMap<Place, (u64, u64)>,
    open: HashMap<u64, Open>,
    /// Unix time of the job clock's zero, in milliseconds.
    epoch_ms: u64,
    /// Whether the job shows commands and values.
    shows: bool,
    /// The command that is being decided, where it does.
    deciding: Option<Box<str>>,
}

impl ConflictLog {
    /// A log whose clock began at this Unix time, in milliseconds.
    pub fn since(epoch_ms: u64) -> Self {
        ConflictLog { epoch_ms, ..ConflictLog::default() }
    }

    /// Commands and values are shown, not only told by size and hash.
    pub fn showing(self, shows: bool) -> Self {
        ConflictLog { shows, ..self }
    }

    /// This command is being decided: it may reveal a conflict. Costs nothing where values are not shown.
    #[inline]
    pub fn deciding(&mut self, argv: &(impl Argv + ?Sized)) {
        if self.shows {
            self.deciding = Some(text::command(argv));
        }
    }

    /// An episode began. `revealed`: by the command that is being decided.
    pub fn opened(&mut self, number: u64, now_ms: u64, revealed: bool) {
        let command = self.deciding.as_ref().filter(|_| revealed).cloned();
        self.open.insert(number, Open { at_ms: now_ms, value: None, command });
    }

    /// A value is carried to settle it: what DUMP gave, or nothing if there is no such key.
    pub fn carried(&mut self, number: u64, key: &[u8], dump: Option<&Bytes>) {
        if let Some(open) = self.open.get_mut(&number) {
            // DUMP ends with the version of the format, two bytes, and its CRC-64 (redis, cluster.c, createDumpPayload).
            open.value = dump.and_then(|d| {
                let text = if self.shows { text::value(key, d) } else { None };
                Some(Carried { size: d.len() as u64, sum: u64::from_le_bytes(*d.last_chunk()?), text })
            });
        }
    }

    /// An episode ended; gives the record for the event.
    pub fn settled(&mut self, e: &Episode) -> ConflictRecord {
        let record = self.record(e);
        self.open.remove(&e.number);
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

    /// Episodes that were replaced left their times behind. `count`: how many are open.
    pub fn forget_replaced(&mut self, count: usize, is_open: impl Fn(u64) -> bool) {
        if self.open.len() < 2 * count + 1_000 {
            return;
        }
        self.open.retain(|n, _| is_open(*n));
    }

    /// The record of an episode, open or settled.
    pub fn record(&self, e: &Episode) -> ConflictRecord {
        let unix = |ms: u64| self.epoch_ms + ms;
        let open = self.open.get(&e.number);
        let opened = open.map_or(0, |o| o.at_ms);
        let change = |side: Side| {
            let (met, revealed) = match e.opened_by {
                Some((by, met)) if by == side => (Some(met), true),
                // What is in flight to one site was made at the other.
                _ => (e.seen_in_flight[side.other().index()], false),
            };
            met.map(|Met { class, at, made_by }| ConflictChange {
                command: made_by.name().unwrap_or_else(|| class.as_str().to_owned()),
                size: (revealed && e.opened_size != 0).then(|| u64::from(e.opened_size)),
                at_ms: (at != 0).then(|| unix(widen(at, opened))),
                text: open.filter(|_| revealed).and_then(|o| o.command.as_deref()).map(str::to_owned),
            })
        };
        let value = open.and_then(|o| o.value.as_ref());
        ConflictRecord {
            value: value.map(|v| {
                Box::new(ConflictValue { size: v.size, hash: format!("{:016x}", v.sum), text: v.text.clone() })
            }),
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
    use super::*;
    use crate::engine::arbiter::class::Class;
    use crate::engine::arbiter::episode::Cause;
    use crate::engine::arbiter::made_by::MadeBy;
    use crate::wire::command::lookup;
    use crate::wire::rdb::payload::restore_payload;

    /// A conflict in which a command at the target revealed what was in flight to it.
    fn met(class: Class, at: u32, words: &[&str]) -> Met {
        Met { class, at, made_by: MadeBy::command(lookup(words)) }
    }

    fn settled(mut log: ConflictLog) -> (ConflictRecord, ConflictLog) {
        let mut e = Episode::new(0, b"k"[..].into(), 1, Side::Source, Cause::ConcurrentWrite);
        e.number = 7;
        (e.opened_by, e.opened_size) = (Some((Side::Target, met(Class::Write, 30, &["append"]))), 33);
        e.seen_in_flight[Side::Target.index()] = Some(met(Class::Counter, 20, &["DECR"]));
        log.deciding(&["APPEND", "k", "se cret"]);
        log.opened(7, 40, true);
        let mut dump = bytes::BytesMut::new();
        restore_payload(0, b"\x06secret", 11, &mut dump);
        log.carried(7, b"k", Some(&dump.freeze()));
        e.settled = Some(50);
        (log.settled(&e), log)
    }

    #[test]
    fn a_record_tells_of_both_changes_and_of_the_value_by_its_checksum_alone() {
        let (r, log) = settled(ConflictLog::since(1_000_000));
        let change = |command: &str, size, at_ms| ConflictChange { command: command.into(), size, at_ms, text: None };
        assert_eq!(r.source_change, Some(change("DECR", None, Some(1_000_020))));
        assert_eq!(r.target_change, Some(change("APPEND", Some(33), Some(1_000_030))));
        assert_eq!((r.opened_ms, r.settled_ms), (1_000_040, Some(1_000_050)));
        assert_eq!(*r.value.unwrap(), ConflictValue { size: 18, hash: "b7861abf50e9c3af".into(), text: None });
        assert_eq!((log.hottest(1)[0].conflicts, log.open.len()), (1, 0));
    }

    #[test]
    fn a_job_that_asks_for_values_sees_them() {
        let (r, _) = settled(ConflictLog::since(0).showing(true));
        assert_eq!(r.target_change.unwrap().text.as_deref(), Some("APPEND k \"se cret\""));
        assert_eq!(r.source_change.unwrap().text, None, "what was in flight is known by its name alone");
        assert_eq!(r.value.unwrap().text.as_deref(), Some("secret"));
    }

    #[test]
    fn where_the_command_is_not_known_its_class_is_told() {
        let mut e = Episode::new(0, b"k"[..].into(), 1, Side::Source, Cause::Recovery);
        e.seen_in_flight[1] = Some(met(Class::Counter, 0, &["zz.unheard"]));
        let r = ConflictLog::default().record(&e);
        let change = r.source_change.unwrap();
        assert_eq!((change.command.as_str(), change.at_ms, r.target_change), ("INCR", None, None));
    }

    #[test]
    fn episodes_that_were_replaced_are_forgotten() {
        let mut log = ConflictLog::default();
        for n in 0..5_000 {
            log.opened(n, 1, true);
            log.forget_replaced(1, |m| m == n);
        }
        assert!(log.open.len() <= 1_002, "{}", log.open.len());
    }

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
