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
/// A run's buffer: its bytes, and room for the change that fills it.
const ROOM: usize = BYTES + (4 << 10);
/// Pairs of one MSET.
const PAIRS: u32 = 128;

#[derive(Default)]
pub struct Run {
    data: BytesMut,
    commands: u32,
    changes: u32,
    db: u32,
    slot: Option<u16>,
    serial: u64,
    telltales: SmallVec<[Telltale; 2]>,
    /// Keys and values, as RESP, that are set but not in `data` yet, and how many of them.
    pairs: BytesMut,
    sets: u32,
    /// Commands stand behind the keys that were set before them.
    in_order: bool,
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
        encode_part(&mut self.pairs, key);
        encode_part(&mut self.pairs, value);
        self.sets += 1;
        self.changes += 1;
        self.serial = serial;
        if self.sets >= PAIRS || self.pairs.len() >= BYTES / 2 {
            self.close();
        }
    }

    /// Where commands are to be written; tell of them with [`Run::added`].
    #[inline]
    pub fn data(&mut self) -> &mut BytesMut {
        if self.in_order {
            self.close();
        }
        if self.data.capacity() == 0 {
            self.data.reserve(ROOM);
        }
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

    /// Puts the keys that are set where the commands are.
    fn close(&mut self) {
        if self.sets == 0 {
            return;
        }
        if self.data.capacity() == 0 {
            self.data.reserve(ROOM);
        }
        match std::mem::take(&mut self.sets) {
            1 => self.data.put_slice(b"*3\r\n$3\r\nSET\r\n"),
            n => {
                encode_header(&mut self.data, 1 + 2 * n as usize);
                self.data.put_slice(b"$4\r\nMSET\r\n");
            }
        }
        self.data.put_slice(&self.pairs);
        self.pairs.clear();
        self.commands += 1;
    }

    /// Puts what was gathered into the outbox of a site.
    pub fn flush(&mut self, core: &mut Core, to: Side, kind: ItemKind) {
        self.close();
        if self.commands == 0 {
            return;
        }
        // An item must not keep more buffer than it needs: outbox and window are bounded by what is said in them. Full by
        // its number of changes, a run of small ones holds half of its room.
        let data = if self.data.len() < ROOM / 4 * 3 {
            let data = Bytes::copy_from_slice(&self.data);
            self.data.clear();
            data
        } else {
            std::mem::take(&mut self.data).freeze()
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
}
