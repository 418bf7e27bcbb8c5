//! A snapshot's keys to items: each a change like any other, whose time is unknown.
//!
//! Parsing goes on outside the job's lock, deciding under it, a few hundred keys at a time. A value too big for one
//! RESTORE goes as the commands of its type, in parts; if a change at the other site meets it half-way, the rest is
//! left to the state transfer.

use super::run::Run;
use super::space;
use crate::engine::apply::outbox::ItemKind;
use crate::engine::arbiter::class::{Class, Part};
use crate::engine::arbiter::{Touch, Verdict};
use crate::engine::core::expiries::{meant, put_off};
use crate::engine::core::{Core, NewItem, unix_ms};
use crate::engine::strand::Names;
use crate::engine::transfer::{BIG, LONGEST, write_entry};
use crate::model::{Databases, Side};
use crate::wire::dialect::Dialect;
use crate::wire::rdb::commands::{Command, Lost, Rebuild};
use crate::wire::rdb::decode::Decoder;
use crate::wire::rdb::{Item, KeyEntry, Limits, RdbError, Reader};
use crate::wire::resp::encode;
use bytes::Bytes;

/// What is gathered for one turn under the lock.
const KEYS: usize = 256;
const BYTES: usize = 128 << 10;
/// Strings below this are written by SET: those above are not worth a thought.
const SMALL: usize = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Rdb(#[from] RdbError),
    #[error("it ends before its end mark")]
    Short,
    #[error("its checksum does not match: it was damaged on the way")]
    Checksum,
}

/// A piece of the snapshot that is ready to be decided.
enum Piece {
    Key(KeyEntry),
    /// Commands of a big value; `first` begins it.
    Part {
        db: u32,
        key: Bytes,
        commands: Vec<Command>,
        first: bool,
    },
    Function(Bytes),
}

/// A value that comes in parts.
struct Big {
    entry: KeyEntry,
    decoder: Decoder,
    /// Taken out for the last commands.
    rebuild: Option<Rebuild>,
}

pub struct Loader {
    here: Side,
    target: Dialect,
    databases: Databases,
    /// Keys that the other site has stay: BUSYKEY is no error.
    merge: bool,
    /// Read, but not loaded: the policy wants the keys of the other side only.
    discard: bool,
    reader: Reader,
    pieces: Vec<Piece>,
    big: Option<Big>,
    /// A big key whose rest is left to the state transfer.
    abandoned: Option<(u32, Bytes)>,
    /// What our keys at the other site are called; the strand that this is about.
    names: Names,
    /// Whether what is in no slot (functions) is for us.
    slotless: bool,
    keys_total: u64,
    /// The database that is being read.
    db: u32,
    ended: bool,
    /// Of big values, until there is a turn to tell of it.
    lost: Vec<Lost>,
    /// Keys whose expiry was put off, until there is a turn to tell of it.
    put_off: Vec<(u32, Bytes)>,
    /// For texts that are not as they stand.
    room: Vec<u8>,
    /// So long is the string that has just begun.
    long_string: Option<u64>,
}

impl Loader {
    pub fn new(here: Side, target: Dialect, databases: Databases, merge: bool, discard: bool, names: Names) -> Self {
        let limits = Limits { big: BIG, value: LONGEST, ..Limits::default() };
        Loader {
            here,
            target,
            databases,
            merge,
            discard,
            reader: Reader::new(limits),
            pieces: Vec::new(),
            big: None,
            abandoned: None,
            slotless: names.strand().is_none_or(|s| s.leads[here.other().index()]),
            names,
            keys_total: 0,
            db: 0,
            ended: false,
            lost: Vec::new(),
            put_off: Vec::new(),
            room: Vec::new(),
            long_string: None,
        }
    }

    /// Bytes of the RDB file, in order.
    pub fn feed(&mut self, bytes: Bytes) {
        self.reader.feed(bytes);
    }

    /// Keys that the snapshot says it has, in selected databases; 0 while unknown.
    pub fn keys_total(&self) -> u64 {
        self.keys_total
    }

    /// Bytes of the file that were read.
    pub fn bytes(&self) -> u64 {
        self.reader.offset()
    }

    /// Parses up to a turn's worth. False: nothing is ready and more bytes are needed.
    pub fn gather(&mut self) -> Result<bool, LoadError> {
        let (mut bytes, now) = (0, unix_ms());
        while self.pieces.len() < KEYS && bytes < BYTES && self.long_string.is_none() {
            let Some(item) = self.reader.next()? else { return Ok(!self.pieces.is_empty()) };
            match item {
                Item::Db(n) => self.db = n,
                Item::Resize { keys, .. } if self.databases.contains(self.db) => self.keys_total += keys,
                Item::Function(code) if !self.discard && self.slotless => self.pieces.push(Piece::Function(code)),
                Item::Key(mut entry) if self.wanted(&entry) => {
                    self.outlives(&mut entry, now);
                    bytes += entry.value.len() + entry.key.len();
                    self.pieces.push(Piece::Key(entry));
                }
                Item::BigBegin(mut entry) if self.wanted(&entry) => {
                    self.outlives(&mut entry, now);
                    // In a merge it is made under a name of ours: what is there must stay, and a part is no value.
                    let name = if self.merge { self.names.part(&entry.key) } else { entry.key.clone() };
                    let length = self.reader.text_length().unwrap_or_default();
                    self.long_string = (length >= space::LEAST).then_some(length);
                    self.big = Some(Big {
                        decoder: Decoder::big(entry.kind)?,
                        rebuild: Some(Rebuild::new(name.clone(), self.target).with_length(length)),
                        entry: entry.clone(),
                    });
                    let delete = vec![Bytes::from_static(b"UNLINK"), name];
                    self.pieces.push(Piece::Part { db: entry.db, key: entry.key, commands: vec![delete], first: true });
                }
                Item::BigPart(part) => {
                    bytes += part.len();
                    self.big_part(&part)?;
                }
                Item::BigEnd => self.big_end()?,
                Item::End { checksum_ok } => {
                    if checksum_ok == Some(false) {
                        return Err(LoadError::Checksum);
                    }
                    self.ended = true;
                }
                _ => {}
            }
        }
        // Perhaps of parts that nobody wants: there may be more all the same.
        Ok(true)
    }

    /// The key must not expire at the target before the stream that may renew it is reached.
    fn outlives(&mut self, entry: &mut KeyEntry, now: u64) {
        let Some(at) = &mut entry.expire_ms else { return };
        let later = put_off(*at, now);
        if later != *at || meant(later) != later {
            *at = later;
            self.put_off.push((entry.db, entry.key.clone()));
        }
    }

    fn wanted(&self, entry: &KeyEntry) -> bool {
        !self.discard
            && self.databases.contains(entry.db)
            && !entry.key.starts_with(b"duplex:")
            && self.names.strand().is_none_or(|s| s.has(&entry.key))
    }

    fn big_part(&mut self, part: &Bytes) -> Result<(), LoadError> {
        let Some(big) = &mut self.big else { return Ok(()) };
        let Some(rebuild) = &mut big.rebuild else { return Ok(()) };
        let mut commands = Vec::new();
        big.decoder.feed(part, &mut |element| rebuild.push(element, &mut commands))?;
        if !commands.is_empty() {
            let (db, key) = (big.entry.db, big.entry.key.clone());
            self.pieces.push(Piece::Part { db, key, commands, first: false });
        }
        Ok(())
    }

    fn big_end(&mut self) -> Result<(), LoadError> {
        let Some(mut big) = self.big.take() else { return Ok(()) };
        big.decoder.finish()?;
        let Some(rebuild) = big.rebuild.take() else { return Ok(()) };
        let mut commands = Vec::new();
        self.lost.extend(rebuild.finish(big.entry.expire_ms, &mut commands));
        if self.merge {
            let part = self.names.part(&big.entry.key);
            commands.push(vec![Bytes::from_static(b"RENAMENX"), part.clone(), big.entry.key.clone()]);
            commands.push(vec![Bytes::from_static(b"UNLINK"), part]);
        }
        // Nothing is entered as in flight that is not sent: nothing would ever clear it.
        if !commands.is_empty() {
            self.pieces.push(Piece::Part { db: big.entry.db, key: big.entry.key, commands, first: false });
        }
        Ok(())
    }

    /// A string so long has begun that there should be space for it at the target before more of it is gathered. Told once.
    pub fn long_string(&mut self) -> Option<u64> {
        self.long_string.take()
    }

    /// There is: that it begins, up to here, is what is decided next, alone.
    pub fn begin_in_space(&mut self, upto: u64) {
        let Some(big) = &mut self.big else { return };
        let Some(rebuild) = &mut big.rebuild else { return };
        let mut commands = Vec::new();
        rebuild.begin_with(upto, &mut commands);
        self.pieces.push(Piece::Part { db: big.entry.db, key: big.entry.key.clone(), commands, first: false });
    }

    /// Keys of a merge that can only be written by commands, which would write over what is there: whoever has the
    /// target's ear asks whether it holds them.
    pub fn questions(&self) -> Vec<(u32, Bytes)> {
        if !self.merge {
            return Vec::new();
        }
        let asks = |p: &Piece| match p {
            Piece::Key(entry) if !self.target.knows_type(entry.kind) => Some((entry.db, entry.key.clone())),
            _ => None,
        };
        self.pieces.iter().filter_map(asks).collect()
    }

    /// The target holds these of [`Loader::questions`]: they stay as they are.
    pub fn held_there(&mut self, held: &[(u32, Bytes)]) {
        if held.is_empty() {
            return;
        }
        self.pieces.retain(|p| match p {
            Piece::Key(e) => !held.contains(&(e.db, e.key.clone())),
            Piece::Part { .. } | Piece::Function(_) => true,
        });
    }

    /// Decides what was gathered and puts it into the outbox. Gives the number of keys.
    pub fn decide(&mut self, core: &mut Core) -> Result<u64, LoadError> {
        for (db, key) in self.put_off.drain(..) {
            core.expiries[self.here.other().index()].note(db, &key);
        }
        core.count_lost(self.here.other(), &std::mem::take(&mut self.lost));
        let mut run = Run::default();
        let mut keys = 0;
        for piece in std::mem::take(&mut self.pieces) {
            match piece {
                Piece::Key(entry) => {
                    keys += 1;
                    self.key(core, &mut run, &entry);
                }
                Piece::Part { db, key, commands, first } => {
                    keys += u64::from(first);
                    self.part(core, &mut run, db, &key, &commands, first);
                }
                Piece::Function(_) if !self.target.speaks_redis(7, 0) => {
                    core.count_lost_words(self.here.other(), "function libraries", 1);
                }
                Piece::Function(code) => {
                    let Verdict::Forward(serial) = core.arbiter.pass(self.here) else { continue };
                    self.begin(core, &mut run, 0, None);
                    encode(run.data(), &[&b"FUNCTION"[..], b"LOAD", b"REPLACE", &code]);
                    run.added(1, serial);
                }
            }
        }
        self.flush(core, &mut run);
        core.settle();
        Ok(keys)
    }

    fn flush(&self, core: &mut Core, run: &mut Run) {
        let kind = if self.merge { ItemKind::Merge } else { ItemKind::Changes };
        run.flush(core, self.here.other(), kind);
    }

    /// Commands for this database and slot follow.
    fn begin(&self, core: &mut Core, run: &mut Run, db: u32, slot: Option<u16>) {
        if !run.is_for(db, slot) || run.is_full() {
            self.flush(core, run);
            run.set_place(db, slot);
        }
    }

    fn key(&mut self, core: &mut Core, run: &mut Run, entry: &KeyEntry) {
        let Some(serial) = self.verdict(core, run, entry.db, &entry.key) else { return };
        self.begin(core, run, entry.db, self.names.slot(&entry.key));
        // What a plain SET says just as well costs the target less than a RESTORE.
        let bare = !self.merge && entry.expire_ms.or(entry.idle).is_none() && entry.freq.is_none();
        if bare && let Some(text) = entry.text(SMALL, &mut self.room) {
            return run.set(&entry.key, text, serial);
        }
        let data = run.data();
        let before = data.len();
        match write_entry(data, entry, self.target, !self.merge) {
            Ok((commands, lost)) => {
                core.count_lost(self.here.other(), &lost);
                run.added(commands, serial);
            }
            // One value that the target can't be told of is no reason to copy none.
            Err(e) => {
                data.truncate(before);
                let to = self.here.other();
                core.impossible(to, entry.db, &entry.key, &e.to_string());
                // It was entered as in flight: an echo has to say that it is not.
                self.flush(core, run);
                let item = NewItem::new(Bytes::new(), 0, ItemKind::Changes, serial);
                core.push(to, NewItem { slot: self.names.slot(&entry.key), ..item });
            }
        }
    }

    fn part(&mut self, core: &mut Core, run: &mut Run, db: u32, key: &Bytes, commands: &[Command], first: bool) {
        if first {
            self.abandoned = None;
        } else if self.abandoned.as_ref().is_some_and(|(d, k)| *d == db && k == key) {
            return;
        }
        let Some(serial) = self.verdict(core, run, db, key) else {
            self.abandoned = Some((db, key.clone()));
            return;
        };
        self.begin(core, run, db, self.names.slot(key));
        let own = first && !self.merge;
        let serial = if own { self.own_delete(core, db, key).unwrap_or(serial) } else { serial };
        for command in commands {
            encode(run.data(), command);
        }
        run.added(commands.len() as u32, serial);
    }

    fn verdict(&self, core: &mut Core, run: &mut Run, db: u32, key: &[u8]) -> Option<u64> {
        let touch = Touch { db, key, hash: core.arbiter.hash(db, key), class: Class::Write, part: Part::WHOLE };
        let verdict = core.arbiter.snapshot_key(self.here, &touch, self.merge);
        if core.arbiter.has_effects() {
            self.flush(core, run);
            core.carry_out();
        }
        match verdict {
            Verdict::Forward(serial) => Some(serial),
            Verdict::Withhold => None,
        }
    }

    /// The UNLINK before the parts of a value is entered too: its echo is no expiry at the target.
    fn own_delete(&self, core: &mut Core, db: u32, key: &[u8]) -> Option<u64> {
        let touch = Touch { db, key, hash: core.arbiter.hash(db, key), class: Class::Delete, part: Part::WHOLE };
        match core.arbiter.change(self.here, &touch, 0) {
            Verdict::Forward(serial) => Some(serial),
            Verdict::Withhold => None,
        }
    }

    /// The file has ended: was it whole?
    pub fn finish(&mut self) -> Result<(), LoadError> {
        if self.ended { Ok(()) } else { Err(LoadError::Short) }
    }
}
