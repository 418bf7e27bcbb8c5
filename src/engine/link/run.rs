//! Changes in a row that go into the outbox as one item.
//!
//! What a client said goes as it was said, but for plain SETs: several in a row go as one MSET, which has the same effect
//! (the same events, too) and costs both servers half as much, the one that runs it and the one whose stream brings it
//! back. The strings of a snapshot go so as well. Invariants: the order of the changes to a key stands; the commands of
//! one run are for one database and, where the site is a cluster, for one slot.

use crate::engine::apply::outbox::{ItemKind, Telltale};
use crate::engine::arbiter::classify::Reveals;
use crate::engine::core::{Core, NewItem};
use crate::model::Side;
use crate::wire::resp::{encode_header, encode_part};
use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

/// Changes and bytes in a run: what a transaction takes at most, so that a run never forces a larger one.
const CHANGES: u32 = 256;
const BYTES: usize = 64 << 10;
/// The runs of a stream share blocks of this size, each behind the other: what the allocator still takes from the memory that
/// it has, and does not ask the system for.
const BLOCK: usize = 124 << 10;
/// A run is not begun where less is left of a block: more than many small changes take, and larger ones move it to another.
const LEAST: usize = BYTES / 2;
/// A shorter run does not hold on to its block, but is copied.
const SHORT: usize = 8 << 10;
/// The block of a run that shares it with none: its bytes, and room for the change that fills it.
const ALONE: usize = BYTES + (4 << 10);
/// Pairs of one MSET.
const PAIRS: u32 = 128;
/// The beginning of a MSET of so many, in whose place that of a shorter one is put.
const FULL: &[u8] = b"*257\r\n$4\r\nMSET\r\n";

#[derive(Default)]
pub struct Run {
    data: BytesMut,
    commands: u32,
    changes: u32,
    db: u32,
    slot: Option<u16>,
    serial: u64,
    telltales: SmallVec<[Telltale; 2]>,
    /// Keys that are set by no command yet, and where in `data` their keys and values begin, as RESP, behind room for the
    /// command's beginning.
    sets: u32,
    begin: usize,
    /// Commands stand behind the keys that were set before them. In a run that is not in order, keys and values are gathered
    /// here instead.
    in_order: bool,
    pairs: BytesMut,
}

impl Run {
    pub fn is_empty(&self) -> bool {
        self.commands == 0 && self.sets == 0
    }

    pub fn is_full(&self) -> bool {
        self.changes >= CHANGES || self.data.len() + self.pairs.len() >= BYTES
    }

    /// Full enough that a source's transaction had better begin with another.
    pub fn is_half_full(&self) -> bool {
        self.changes >= CHANGES / 2
    }

    /// Commands for this database and slot can be added.
    #[inline]
    pub fn is_for(&self, db: u32, slot: Option<u16>) -> bool {
        self.db == db && self.slot == slot
    }

    /// Commands that follow are for this database and this slot. Only for an empty run.
    #[inline]
    pub fn set_place(&mut self, db: u32, slot: Option<u16>) {
        (self.db, self.slot) = (db, slot);
    }

    /// A run of a stream: several of its changes may be to one key.
    pub fn in_order() -> Self {
        Run { in_order: true, ..Run::default() }
    }

    /// Sets a key. In a run that is not in order, nothing else in it is about that key.
    pub fn set(&mut self, key: &[u8], value: &[u8], serial: u64) {
        if self.in_order && self.sets == 0 {
            self.make_room();
            self.data.put_slice(FULL);
            self.begin = self.data.len();
        }
        let pairs = if self.in_order { &mut self.data } else { &mut self.pairs };
        encode_part(pairs, key);
        encode_part(pairs, value);
        let len = pairs.len() - self.begin;
        self.sets += 1;
        self.changes += 1;
        self.serial = serial;
        if self.sets >= PAIRS || len >= BYTES / 2 {
            self.close();
        }
    }

    fn make_room(&mut self) {
        if self.data.is_empty() && self.data.capacity() < LEAST {
            self.data = BytesMut::with_capacity(if self.in_order { BLOCK } else { ALONE });
        }
    }

    /// Where commands are to be written; tell of them with [`Run::added`].
    #[inline]
    pub fn data(&mut self) -> &mut BytesMut {
        if self.in_order {
            self.close();
        }
        self.make_room();
        &mut self.data
    }

    /// The next command that is written has a reply which would reveal a difference.
    pub fn tell(&mut self, reveals: Reveals) {
        if self.in_order {
            self.close();
        }
        self.telltales.push(Telltale { index: self.commands, reveals });
    }

    /// A command was written, of a change that takes several.
    pub fn added_command(&mut self) {
        self.commands += 1;
    }

    /// One change was written as so many commands.
    pub fn added(&mut self, commands: u32, serial: u64) {
        self.commands += commands;
        self.changes += 1;
        self.serial = serial;
    }

    /// Makes a command of the keys that are set.
    fn close(&mut self) {
        let shorter;
        let begins: &[u8] = match std::mem::take(&mut self.sets) {
            0 => return,
            1 => b"*3\r\n$3\r\nSET\r\n",
            PAIRS => FULL,
            n => {
                let mut begins = BytesMut::with_capacity(FULL.len());
                encode_header(&mut begins, 1 + 2 * n as usize);
                begins.put_slice(b"$4\r\nMSET\r\n");
                shorter = begins;
                &shorter
            }
        };
        self.commands += 1;
        if !self.in_order {
            self.make_room();
            self.data.put_slice(begins);
            self.data.put_slice(&self.pairs);
            return self.pairs.clear();
        }
        let (at, pairs) = (self.begin - FULL.len(), std::mem::take(&mut self.begin));
        // None begins with more than what there is room for.
        let end = at + begins.len();
        if end < pairs {
            self.data.copy_within(pairs.., end);
            self.data.truncate(self.data.len() - (pairs - end));
        }
        self.data[at..end].copy_from_slice(begins);
    }

    /// Puts what was gathered into the outbox of a site.
    pub fn flush(&mut self, core: &mut Core, to: Side, kind: ItemKind) {
        self.close();
        if self.commands == 0 {
            return;
        }
        // An item must not keep more buffer than it needs: outbox and window are bounded by what is said in them.
        let short = if self.in_order { SHORT } else { ALONE / 4 * 3 };
        let data = if self.data.len() < short {
            let data = Bytes::copy_from_slice(&self.data);
            self.data.clear();
            data
        } else {
            self.data.split().freeze()
        };
        let item = NewItem {
            data,
            commands: std::mem::take(&mut self.commands),
            db: Some(self.db),
            slot: self.slot,
            kind,
            serial: self.serial,
            changes: std::mem::take(&mut self.changes),
            telltales: std::mem::take(&mut self.telltales),
        };
        core.push(to, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::command::Argv;
    use crate::wire::resp::encode;
    use crate::wire::stream::{Batch, Decoder};

    fn commands(run: &mut Run) -> String {
        run.close();
        String::from_utf8_lossy(&run.data).replace("\r\n", " ")
    }

    #[test]
    fn sets_in_a_row_are_one_command_and_what_follows_them_stands_behind() {
        let mut run = Run::in_order();
        run.set(b"a", b"1", 1);
        run.set(b"a", b"2", 2);
        run.tell(Reveals::Fewer(1));
        run.data().put_slice(b"*2\r\n$3\r\nDEL\r\n$1\r\na\r\n");
        run.added(1, 3);
        run.set(b"a", b"3", 4);
        assert_eq!(run.telltales[0].index, 1, "the reply that tells is the second command's");
        assert_eq!(commands(&mut run), "*5 $4 MSET $1 a $1 1 $1 a $1 2 *2 $3 DEL $1 a *3 $3 SET $1 a $1 3 ");
        assert_eq!((run.commands, run.changes, run.serial), (3, 4, 4));
    }

    /// However many keys are set, and whatever stands before them: each command says what it is to say, none of another's.
    #[test]
    fn runs_on_one_block_are_what_they_are_alone() {
        let mut rng = fastrand::Rng::with_seed(11);
        for in_order in [true, false] {
            let mut run = if in_order { Run::in_order() } else { Run::default() };
            for round in 0..200 {
                let mut wanted = Vec::new();
                let mut serial = 0;
                while !run.is_full() && rng.u32(..40) != 0 {
                    let sets = rng.u32(1..2 * PAIRS);
                    for n in 0..sets.min(CHANGES.saturating_sub(run.changes)) {
                        let (key, value) = (format!("{round}.{serial}.{n}"), vec![b'v'; rng.usize(..200)]);
                        serial += 1;
                        run.set(key.as_bytes(), &value, serial);
                        wanted.push((key.into_bytes(), value));
                    }
                    if in_order {
                        encode(run.data(), &[&b"INCR"[..], b"n"]);
                        serial += 1;
                        run.added(1, serial);
                        wanted.push((b"n".to_vec(), vec![]));
                    }
                }
                run.close();
                let (commands, changes) = (run.commands, run.changes);
                let data = match run.data.len() < SHORT {
                    true => std::mem::take(&mut run.data).freeze(),
                    false => run.data.split().freeze(),
                };
                (run.commands, run.changes) = (0, 0);
                let (mut decoder, mut batch) = (Decoder::new(0), Batch::default());
                assert_eq!(decoder.decode(&data, &mut batch).expect("commands"), data.len());
                assert_eq!((batch.entries.len(), changes as usize), (commands as usize, wanted.len()));
                let mut seen = Vec::new();
                for c in batch.entries.iter().flat_map(|e| batch.commands(e)) {
                    let args = batch.args(c);
                    match args.arg(0) {
                        b"INCR" => seen.push((args.arg(1).to_vec(), vec![])),
                        b"SET" => assert_eq!(args.argc(), 3),
                        name => assert!(name == b"MSET" && args.argc() > 3),
                    }
                    if args.arg(0) != b"INCR" {
                        seen.extend(
                            (1..args.argc()).step_by(2).map(|n| (args.arg(n).to_vec(), args.arg(n + 1).to_vec())),
                        );
                    }
                }
                assert!(seen == wanted, "round {round}, in order: {in_order}");
            }
        }
    }
}
