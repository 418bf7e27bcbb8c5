//! Changes in a row that go into the outbox as one item.
//!
//! Most streams are mostly plain SETs, and so are most snapshots: those that follow each other become one MSET, which
//! does the same (it too drops an expiry, replaces any type and fires a keyspace event for each key) for a third of what
//! single SETs cost the target. Invariants: the order of the changes stands; commands of one run are for one database.

use crate::engine::apply::outbox::{ItemKind, Telltale};
use crate::engine::core::{Core, NewItem};
use crate::model::Side;
use crate::wire::resp::{encode_header, encode_part};
use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

/// Changes and bytes in a run: what a transaction takes at most, so that a run never forces a larger one.
const CHANGES: u32 = 512;
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
    serial: u64,
    telltales: SmallVec<[Telltale; 2]>,
    /// Keys and values, as RESP, of the SETs that are not in `data` yet, and how many of them.
    pairs: BytesMut,
    sets: u32,
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

    pub fn db(&self) -> u32 {
        self.db
    }

    /// Commands that follow are for this database. Only for an empty run.
    pub fn set_db(&mut self, db: u32) {
        self.db = db;
    }

    /// A plain `SET key value`: `pair` is the two of them as RESP.
    #[inline]
    pub fn set(&mut self, pair: &[u8], serial: u64) {
        self.pairs.put_slice(pair);
        self.added_set(serial);
    }

    /// The same, from a key and a value.
    pub fn set_parts(&mut self, key: &[u8], value: &[u8], serial: u64) {
        encode_part(&mut self.pairs, key);
        encode_part(&mut self.pairs, value);
        self.added_set(serial);
    }

    #[inline]
    fn added_set(&mut self, serial: u64) {
        self.sets += 1;
        self.changes += 1;
        self.serial = serial;
        if self.sets >= PAIRS || self.pairs.len() >= BYTES / 2 {
            self.close();
        }
    }

    /// Where other commands are to be written; tell of them with [`Run::added`].
    pub fn data(&mut self) -> &mut BytesMut {
        self.close();
        self.data_beside_sets()
    }

    /// The same where the order against the SETs does not matter, since all keys are different: they need not be cut
    /// short.
    pub fn data_beside_sets(&mut self) -> &mut BytesMut {
        if self.data.capacity() == 0 {
            self.data.reserve(ROOM);
        }
        &mut self.data
    }

    /// The number of the next command in the run, to which a telltale would belong.
    pub fn next_index(&mut self) -> u32 {
        self.close();
        self.commands
    }

    pub fn tell(&mut self, telltale: Telltale) {
        self.telltales.push(telltale);
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

    /// Puts the gathered SETs where the other commands are.
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
        // A small item must not keep a large buffer: an outbox may hold thousands of them.
        let data = if self.data.len() < BYTES / 4 {
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
            kind,
            serial: self.serial,
            changes: std::mem::take(&mut self.changes),
            telltales: std::mem::take(&mut self.telltales),
        };
        core.push(to, item);
    }
}
