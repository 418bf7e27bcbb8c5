//! From chunks of an RDB stream to [`Item`]s.
//!
//! Bytes are looked at where they lie: an item that lies within one chunk is handed out as slices of it. One that
//! began in an earlier chunk is continued in `carry`, into which no more is copied than it needs (and a little ahead,
//! which is given back).
//!
//! Invariant: at the beginning of a record `carry` is empty; in it, `carry` holds the record from its beginning, and
//! at most `ahead` bytes of it, its last, also still stand before `pos` in the chunk.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::grammar::{self, opcode};
use super::walk::{self, Stop, Text, Walker};
use super::{Family, Item, KeyEntry, Limits, RdbError, kind};
use crate::wire::crc64::Crc64;
use crate::wire::lzf;

/// At least this many bytes are appended to `carry` at a time, where they are there.
const AHEAD: usize = 4096;

#[derive(Debug)]
enum Stage {
    Header,
    /// A record's first byte is next.
    Record,
    /// In a record after an opcode.
    Opcode {
        op: u8,
        at: usize,
        walker: Walker,
    },
    /// In a key's record, before or in the key.
    Key {
        kind: u8,
    },
    /// In a key's value.
    Value {
        kind: u8,
        key: Text,
        begin: usize,
        at: usize,
        walker: Walker,
    },
    /// In a long string's content.
    BigString {
        left: u64,
    },
    /// In a long value's parts.
    BigValue {
        walker: Walker,
    },
    BigEnd,
    /// After the end mark, with the sum of all that came before.
    Checksum {
        sum: u64,
    },
    Done,
}

/// What stands before a key and belongs to it.
#[derive(Debug, Default, Clone, Copy)]
struct Before {
    expire_ms: Option<u64>,
    idle: Option<u64>,
    freq: Option<u8>,
}

/// Walks an RDB stream. Feed it chunks, take items until `None`, feed more.
pub struct Reader {
    limits: Limits,
    stage: Stage,
    chunk: Bytes,
    pos: usize,
    waiting: VecDeque<Bytes>,
    carry: BytesMut,
    /// So many of the last bytes of `carry` stand right before `pos` in `chunk`.
    ahead: usize,
    /// Stream offset of `chunk`'s first byte.
    base: u64,
    crc: Crc64,
    /// From here on `chunk` is not in `crc` yet.
    crc_from: usize,
    version: u16,
    family: Family,
    db: u32,
    before: Before,
}

impl Reader {
    pub fn new(limits: Limits) -> Self {
        Reader {
            limits,
            stage: Stage::Header,
            chunk: Bytes::new(),
            pos: 0,
            waiting: VecDeque::new(),
            carry: BytesMut::new(),
            ahead: 0,
            base: 0,
            crc: Crc64::new(),
            crc_from: 0,
            version: 0,
            family: Family::Redis,
            db: 0,
            before: Before::default(),
        }
    }

    /// The next bytes of the stream. They are kept until items have been taken from them: take all items before
    /// feeding more, and no more than one chunk and one item are ever held.
    pub fn feed(&mut self, chunk: Bytes) {
        if self.pos == self.chunk.len() && self.waiting.is_empty() {
            self.retire();
            self.chunk = chunk;
        } else if !chunk.is_empty() {
            self.waiting.push_back(chunk);
        }
    }

    /// The RDB version in the stream's header; 0 before it was read.
    pub fn version(&self) -> u16 {
        self.version
    }

    pub fn family(&self) -> Family {
        self.family
    }

    /// The stream is complete, to the last byte of its checksum.
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Bytes that have become items.
    pub fn offset(&self) -> u64 {
        self.base + self.pos as u64 - self.carry.len() as u64
    }

    /// Bytes that were fed and are not part of the RDB, once it is done: what follows it on the connection.
    pub fn take_rest(&mut self) -> Vec<Bytes> {
        let mut rest = Vec::new();
        if self.is_done() {
            let first = self.chunk.split_off(self.pos);
            rest.extend((!first.is_empty()).then_some(first));
            rest.extend(self.waiting.drain(..));
        }
        rest
    }

    /// The next item; `None` when it needs more bytes, or is done. An error is final.
    #[allow(clippy::should_implement_trait)] // fallible, and `None` is not the end
    pub fn next(&mut self) -> Result<Option<Item>, RdbError> {
        loop {
            let base = self.offset();
            match self.step() {
                Ok(Some(item)) => return Ok(Some(item)),
                Ok(None) => {
                    if matches!(self.stage, Stage::Done) {
                        return Ok(None);
                    }
                }
                Err(Stop::Need(n)) => {
                    if !self.more(n) {
                        return Ok(None);
                    }
                }
                Err(Stop::Bad(error)) => return Err(error.shifted(base)),
            }
        }
    }

    fn view(&self) -> &[u8] {
        if self.carry.is_empty() { &self.chunk[self.pos..] } else { &self.carry }
    }

    /// Counts the chunk into the checksum and the offset; it has been used up.
    fn retire(&mut self) {
        if self.limits.checksum {
            self.crc.update(&self.chunk[self.crc_from..]);
        }
        self.base += self.chunk.len() as u64;
        self.chunk = Bytes::new();
        self.pos = 0;
        self.crc_from = 0;
        self.ahead = 0;
    }

    /// Makes more bytes visible behind those of the current record; `false` when there are none.
    fn more(&mut self, need: usize) -> bool {
        if self.pos == self.chunk.len() {
            let Some(next) = self.waiting.pop_front() else { return false };
            self.retire();
            self.chunk = next;
            if self.carry.is_empty() {
                return true;
            }
        } else if self.carry.is_empty() {
            if self.waiting.is_empty() {
                return false;
            }
            self.carry.extend_from_slice(&self.chunk[self.pos..]);
            self.pos = self.chunk.len();
            self.ahead = self.carry.len();
            return true;
        }
        let n = need.max(AHEAD).min(self.chunk.len() - self.pos);
        self.carry.extend_from_slice(&self.chunk[self.pos..self.pos + n]);
        self.pos += n;
        self.ahead += n;
        n > 0
    }

    /// Takes `n` bytes off the view's front.
    fn take(&mut self, n: usize) -> Bytes {
        if self.carry.is_empty() {
            let taken = self.chunk.slice(self.pos..self.pos + n);
            self.pos += n;
            return taken;
        }
        let taken = self.carry.split_to(n).freeze();
        self.give_back();
        taken
    }

    /// Drops `n` bytes from the view's front.
    fn advance(&mut self, n: usize) {
        if self.carry.is_empty() {
            self.pos += n;
        } else {
            self.carry.advance(n);
            self.give_back();
        }
    }

    /// Goes back to the chunk itself when all that is left of `carry` stands there too.
    fn give_back(&mut self) {
        if self.carry.len() <= self.ahead {
            self.pos -= self.carry.len();
            self.carry.clear();
            self.ahead = 0;
        }
    }

    fn step(&mut self) -> Result<Option<Item>, Stop> {
        if matches!(self.stage, Stage::Record) {
            return self.record();
        }
        let stage = std::mem::replace(&mut self.stage, Stage::Done);
        match stage {
            Stage::Record => self.record(),
            Stage::Key { kind } => self.key(kind),
            Stage::Value { kind, key, begin, at, walker } => self.value(kind, key, begin, at, walker),
            Stage::Opcode { op, at, walker } => self.opcode(op, at, walker),
            Stage::Header => self.header(),
            Stage::BigString { left } => self.big_string(left),
            Stage::BigValue { walker } => self.big_value(walker),
            Stage::BigEnd => {
                self.stage = Stage::Record;
                Ok(Some(Item::BigEnd))
            }
            Stage::Checksum { sum } => self.checksum(sum),
            Stage::Done => Ok(None),
        }
    }

    fn header(&mut self) -> Result<Option<Item>, Stop> {
        const LEN: usize = 9;
        let view = self.view();
        if view.len() < LEN {
            let missing = LEN - view.len();
            self.stage = Stage::Header;
            return Err(Stop::Need(missing));
        }
        let (family, digits) = match (view.strip_prefix(b"REDIS"), view.strip_prefix(b"VALKEY")) {
            (Some(rest), _) => (Family::Redis, &rest[..4]),
            (_, Some(rest)) => (Family::Valkey, &rest[..3]),
            _ => return Err(bad(0, "the magic REDIS or VALKEY", u64::from(view[0]))),
        };
        let version = atoi::atoi::<u16>(digits).filter(|_| digits.iter().all(u8::is_ascii_digit));
        let version = version.filter(|v| *v > 0);
        let version = version.ok_or_else(|| bad(5, "an RDB version in digits", u64::from(view[LEN - 1])))?;
        (self.family, self.version) = (family, version);
        self.advance(LEN);
        self.stage = Stage::Record;
        Ok(None)
    }

    fn record(&mut self) -> Result<Option<Item>, Stop> {
        debug_assert!(self.carry.is_empty());
        let Some(&first) = self.chunk.get(self.pos) else {
            return Err(Stop::Need(1));
        };
        if first == kind::STRING
            && let Some(item) = self.plain_string()
        {
            return Ok(Some(item));
        }
        if first == opcode::EOF {
            self.pos += 1;
            if self.limits.checksum {
                self.crc.update(&self.chunk[self.crc_from..self.pos]);
            }
            self.crc_from = self.chunk.len();
            self.stage = Stage::Checksum { sum: self.crc.value() };
        } else if first >= opcode::FIRST {
            let ops = grammar::after(first, self.family);
            let ops = ops.ok_or(Stop::Bad(RdbError::UnknownOpcode { offset: 0, opcode: first }))?;
            self.stage = Stage::Opcode { op: first, at: 1, walker: Walker::new(ops, self.limits.value) };
        } else {
            let kind = grammar::kind_of(first, self.family);
            if grammar::value(kind).is_none() {
                return Err(Stop::Bad(RdbError::UnknownType { offset: 0, kind: first }));
            }
            return self.key(kind);
        }
        Ok(None)
    }

    /// The most frequent record, where it lies whole and small in the chunk; anything else goes the long way.
    fn plain_string(&mut self) -> Option<Item> {
        let view = &self.chunk[self.pos..];
        let mut at = 1;
        let Ok(Text::Plain(key)) = walk::text(view, &mut at, self.limits.big) else { return None };
        let begin = at;
        walk::text(view, &mut at, self.limits.big).ok()?;
        if at - begin > self.limits.big {
            return None;
        }
        let from = self.pos;
        self.pos += at;
        let value = self.chunk.slice(from + begin..from + at);
        let key = self.chunk.slice(from + key.start..from + key.end);
        Some(Item::Key(self.entry(kind::STRING, key, value)))
    }

    fn checksum(&mut self, sum: u64) -> Result<Option<Item>, Stop> {
        // Before version 5 the stream ended here.
        let mut ok = None;
        if self.version >= 5 {
            let Some(&want) = self.view().first_chunk::<8>() else {
                let missing = 8 - self.view().len();
                self.stage = Stage::Checksum { sum };
                return Err(Stop::Need(missing));
            };
            let want = u64::from_le_bytes(want);
            if self.limits.checksum && want != 0 {
                ok = Some(want == sum);
            }
            self.advance(8);
        }
        // What follows is not ours.
        self.limits.checksum = false;
        self.stage = Stage::Done;
        Ok(Some(Item::End { checksum_ok: ok }))
    }

    fn key(&mut self, kind: u8) -> Result<Option<Item>, Stop> {
        let mut at = 1;
        let key = match walk::text(self.view(), &mut at, self.limits.value) {
            Ok(key) => key,
            Err(stop) => {
                self.stage = Stage::Key { kind };
                return Err(stop);
            }
        };
        let Some(ops) = grammar::value(kind) else {
            return Err(Stop::Bad(RdbError::UnknownType { offset: 0, kind }));
        };
        self.value(kind, key, at, at, Walker::new(ops, self.limits.value))
    }

    /// Walks a value. A long one is begun anew in parts, if it has any.
    fn value(
        &mut self,
        kind: u8,
        key: Text,
        begin: usize,
        mut at: usize,
        mut walker: Walker,
    ) -> Result<Option<Item>, Stop> {
        let parts = grammar::has_parts(kind) || kind == kind::STRING;
        let limit = begin.saturating_add(if parts { self.limits.big } else { self.limits.value });
        let view = self.view();
        let end = match walker.skip(view, &mut at, limit.saturating_add(1)) {
            Ok(true) if at <= limit => at,
            Ok(_) if parts => return self.begin_big(kind, key, begin),
            Ok(_) => return Err(too_big(begin, at, self.limits.value)),
            Err(Stop::Need(n)) if view.len().saturating_add(n) > limit => {
                if parts {
                    return self.begin_big(kind, key, begin);
                }
                return Err(too_big(begin, view.len().saturating_add(n), self.limits.value));
            }
            Err(stop) => {
                self.stage = Stage::Value { kind, key, begin, at, walker };
                return Err(stop);
            }
        };
        let (whole, value) = if self.carry.is_empty() {
            let from = self.pos;
            self.pos += end;
            (None, self.chunk.slice(from + begin..from + end))
        } else {
            let whole = self.take(end);
            let value = whole.slice(begin..);
            (Some(whole), value)
        };
        let key = match (&whole, key) {
            (Some(whole), key) => own(whole, key)?,
            (None, Text::Plain(range)) => {
                let from = self.pos - end;
                self.chunk.slice(from + range.start..from + range.end)
            }
            (None, key) => own(&self.chunk.slice(self.pos - end..self.pos), key)?,
        };
        self.stage = Stage::Record;
        Ok(Some(Item::Key(self.entry(kind, key, value))))
    }

    fn entry(&mut self, kind: u8, key: Bytes, value: Bytes) -> KeyEntry {
        let Before { expire_ms, idle, freq } = std::mem::take(&mut self.before);
        KeyEntry { db: self.db, key, kind, value, expire_ms, idle, freq }
    }

    fn begin_big(&mut self, kind: u8, key: Text, begin: usize) -> Result<Option<Item>, Stop> {
        let mut skip = begin;
        self.stage = if kind == kind::STRING {
            let mut after = begin;
            match walk::len(self.view(), &mut after) {
                Ok(left) => {
                    skip = after;
                    Stage::BigString { left }
                }
                // Compressed: it has to be whole to be unpacked.
                Err(_) => {
                    let cap = self.limits.value;
                    return self.compressed(key, begin, cap);
                }
            }
        } else {
            let ops = grammar::value(kind).unwrap_or_default();
            Stage::BigValue { walker: Walker::new(ops, self.limits.value) }
        };
        let record = self.take(skip);
        let key = own(&record, key)?;
        Ok(Some(Item::BigBegin(self.entry(kind, key, Bytes::new()))))
    }

    /// A compressed string above the threshold: it comes whole, up to the cap.
    fn compressed(&mut self, key: Text, begin: usize, cap: usize) -> Result<Option<Item>, Stop> {
        let mut at = begin;
        match walk::text(self.view(), &mut at, cap) {
            Ok(_) => {
                let whole = self.take(at);
                let key = own(&whole, key)?;
                self.stage = Stage::Record;
                Ok(Some(Item::Key(self.entry(kind::STRING, key, whole.slice(begin..)))))
            }
            Err(stop) => {
                let walker = Walker::new(grammar::value(kind::STRING).unwrap_or_default(), cap);
                self.stage = Stage::Value { kind: kind::STRING, key, begin, at: begin, walker };
                Err(stop)
            }
        }
    }

    fn big_string(&mut self, left: u64) -> Result<Option<Item>, Stop> {
        let there = self.view().len().min(self.limits.part);
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(there);
        if left == 0 {
            self.stage = Stage::BigEnd;
            return Ok(None);
        }
        self.stage = Stage::BigString { left: left - n as u64 };
        if n == 0 {
            return Err(Stop::Need(1));
        }
        Ok(Some(Item::BigPart(self.take(n))))
    }

    fn big_value(&mut self, mut walker: Walker) -> Result<Option<Item>, Stop> {
        let mut at = 0;
        let outcome = walker.skip(self.view(), &mut at, self.limits.part);
        match outcome {
            Ok(true) => self.stage = Stage::BigEnd,
            Ok(false) => self.stage = Stage::BigValue { walker },
            Err(Stop::Need(n)) => {
                self.stage = Stage::BigValue { walker };
                if at == 0 {
                    return Err(Stop::Need(n));
                }
            }
            Err(bad) => return Err(bad),
        }
        Ok((at > 0).then(|| Item::BigPart(self.take(at))))
    }

    fn opcode(&mut self, op: u8, mut at: usize, mut walker: Walker) -> Result<Option<Item>, Stop> {
        let cap = self.limits.value;
        let view = self.view();
        match walker.skip(view, &mut at, cap) {
            Ok(true) => {}
            Ok(false) => return Err(too_big(0, at, cap)),
            Err(Stop::Need(n)) if view.len().saturating_add(n) > cap => {
                return Err(too_big(0, view.len().saturating_add(n), cap));
            }
            Err(stop) => {
                self.stage = Stage::Opcode { op, at, walker };
                return Err(stop);
            }
        }
        let record = self.take(at);
        self.stage = Stage::Record;
        self.opened(op, &record)
    }

    /// A whole record after an opcode.
    fn opened(&mut self, op: u8, record: &Bytes) -> Result<Option<Item>, Stop> {
        let mut at = 1;
        let mut number = || walk::len(record, &mut at);
        let item = match op {
            opcode::EXPIRETIME_MS => {
                let ms = record[1..].first_chunk::<8>().map(|b| i64::from_le_bytes(*b));
                self.before.expire_ms = ms.map(|ms| ms.max(0) as u64);
                return Ok(None);
            }
            opcode::EXPIRETIME => {
                let s = record[1..].first_chunk::<4>().map(|b| i32::from_le_bytes(*b));
                self.before.expire_ms = s.map(|s| s.max(0) as u64 * 1000);
                return Ok(None);
            }
            opcode::IDLE => {
                self.before.idle = Some(number()?);
                return Ok(None);
            }
            opcode::FREQ => {
                self.before.freq = record.get(1).copied();
                return Ok(None);
            }
            opcode::SELECTDB => {
                let db = number()?;
                self.db = u32::try_from(db).map_err(|_| bad(1, "a database number", db))?;
                Item::Db(self.db)
            }
            opcode::RESIZEDB => Item::Resize { keys: number()?, expires: number()? },
            opcode::AUX => {
                let key = walk::text(record, &mut at, record.len())?;
                let value = walk::text(record, &mut at, self.limits.value)?;
                Item::Aux { key: own(record, key)?, value: own(record, value)? }
            }
            opcode::FUNCTION2 => {
                let code = walk::text(record, &mut at, self.limits.value)?;
                Item::Function(own(record, code)?)
            }
            // Only release candidates of 7.0 wrote these, and 7.0 itself refuses them.
            opcode::FUNCTION_PRE_GA => return Err(bad(0, "a function of 7.0 or later", u64::from(op))),
            opcode::MODULE_AUX => Item::ModuleAux(record.slice(1..)),
            opcode::KEY_META_OR_SLOT_IMPORT => match self.family {
                Family::Redis => Item::KeyMeta(record.slice(1..)),
                Family::Valkey => Item::SlotImport(record.slice(1..)),
            },
            _ => return Ok(None),
        };
        Ok(Some(item))
    }
}

fn bad(at: usize, expected: &'static str, seen: u64) -> Stop {
    Stop::Bad(RdbError::Unexpected { offset: at as u64, expected, seen })
}

fn too_big(at: usize, bytes: usize, cap: usize) -> Stop {
    Stop::Bad(RdbError::TooBig { offset: at as u64, what: "a value", bytes: bytes as u64, cap: cap as u64 })
}

/// The string itself: a slice where it stands plain, else made.
fn own(record: &Bytes, text: Text) -> Result<Bytes, Stop> {
    match text {
        Text::Plain(range) => Ok(record.slice(range)),
        Text::Int(n) => Ok(Bytes::copy_from_slice(itoa::Buffer::new().format(n).as_bytes())),
        Text::Lzf(range, size) => {
            let offset = range.start as u64;
            let unpacked = lzf::decompress(&record[range], size);
            unpacked.map(Bytes::from).map_err(|cause| Stop::Bad(RdbError::Lzf { offset, cause }))
        }
    }
}
