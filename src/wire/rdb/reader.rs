//! From chunks of an RDB stream to [`Item`]s.
//!
//! A record is an opcode with what belongs to it, or a type byte, a key and a value. The reader finds its end with the
//! tables of [`super::grammar`] and keeps its place in it between chunks, so no byte is looked at twice.

mod window;

use bytes::Bytes;

use super::grammar::{self, opcode};
use super::walk::{self, Stop, Text, Walker};
use super::{Family, Item, KeyEntry, Limits, RdbError, kind};
use crate::wire::lzf;
use window::Window;

/// Bytes of a long compressed string that are unpacked at a time: at most 88 times as many come of it.
const PACKED: usize = 4096;

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
    /// In a long compressed string.
    BigPacked {
        left: u64,
        unpacker: lzf::Unpacker,
    },
    /// In a long value's parts.
    BigValue {
        walker: Walker,
    },
    BigEnd,
    /// After the end mark, with the sum of all that came before.
    Checksum {
        sum: Option<u64>,
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
    window: Window,
    version: u16,
    family: Family,
    db: u32,
    before: Before,
    failed: Option<RdbError>,
}

impl Reader {
    pub fn new(limits: Limits) -> Self {
        Reader {
            limits,
            stage: Stage::Header,
            window: Window::new(limits.checksum),
            version: 0,
            family: Family::Redis,
            db: 0,
            before: Before::default(),
            failed: None,
        }
    }

    /// The next bytes of the stream. They are kept until items have been taken from them: take all items before
    /// feeding more, and no more than one chunk and one item are ever held. Keys and values are slices of the chunks
    /// they lie in: who keeps a small one for long keeps its chunk too, and should copy it.
    pub fn feed(&mut self, chunk: Bytes) {
        self.window.feed(chunk);
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
        matches!(self.stage, Stage::Done) && self.failed.is_none()
    }

    /// Bytes that have become items.
    pub fn offset(&self) -> u64 {
        self.window.offset()
    }

    /// Bytes that were fed and are not part of the RDB, once it is done: what follows it on the connection.
    pub fn take_rest(&mut self) -> Vec<Bytes> {
        if self.is_done() { self.window.take_rest() } else { Vec::new() }
    }

    /// The next item; `None` when it needs more bytes, or is done. An error is final: it comes again.
    #[allow(clippy::should_implement_trait)] // fallible, and `None` is not the end
    pub fn next(&mut self) -> Result<Option<Item>, RdbError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if matches!(self.stage, Stage::Record)
            && let Some(item) = self.plain_key()
        {
            return Ok(Some(item));
        }
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
                    if !self.window.more(n) {
                        return Ok(None);
                    }
                }
                Err(Stop::Bad(error)) => {
                    let error = error.shifted(base);
                    self.failed = Some(error.clone());
                    return Err(error);
                }
            }
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
            Stage::BigPacked { left, unpacker } => self.big_packed(left, unpacker),
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
        let view = self.window.view();
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
        self.window.advance(LEN);
        self.stage = Stage::Record;
        Ok(None)
    }

    fn record(&mut self) -> Result<Option<Item>, Stop> {
        let Some(&first) = self.window.view().first() else {
            return Err(Stop::Need(1));
        };
        if first == opcode::EOF {
            self.window.advance(1);
            self.stage = Stage::Checksum { sum: self.window.close_sum() };
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

    /// The most frequent records, where they lie whole and small in the view: a key, or its expiry and the key.
    /// Anything else goes the long way.
    #[inline]
    fn plain_key(&mut self) -> Option<Item> {
        const EXPIRY: usize = 9;
        let mut view = self.window.view();
        if let Some((&opcode::EXPIRETIME_MS, rest)) = view.split_first() {
            self.before.expire_ms = Some(expiry_ms(*rest.first_chunk()?));
            self.window.advance(EXPIRY);
            view = self.window.view();
        }
        let kind = *view.first()?;
        // Above these the families differ, and there are opcodes.
        if kind > kind::STREAM_3 {
            return None;
        }
        let mut at = 1;
        let Ok(Text::Plain(key)) = walk::text(view, &mut at, self.limits.big) else { return None };
        let begin = at;
        let limit = begin.saturating_add(self.limits.big);
        if kind == kind::STRING {
            walk::text(view, &mut at, self.limits.big).ok()?;
        } else {
            let mut walker = Walker::new(grammar::value(kind)?, self.limits.value);
            if !walker.skip(view, &mut at, limit.saturating_add(1)).ok()? {
                return None;
            }
        }
        if at > limit {
            return None;
        }
        let (key, value) = self.window.take_two(at, key, begin..at);
        Some(Item::Key(self.entry(kind, key, value)))
    }

    fn checksum(&mut self, sum: Option<u64>) -> Result<Option<Item>, Stop> {
        // Before version 5 the stream ended here.
        let mut ok = None;
        if self.version >= 5 {
            let Some(&want) = self.window.view().first_chunk::<8>() else {
                let missing = 8 - self.window.view().len();
                self.stage = Stage::Checksum { sum };
                return Err(Stop::Need(missing));
            };
            let want = u64::from_le_bytes(want);
            // 0: the writer computed none.
            ok = sum.filter(|_| want != 0).map(|sum| sum == want);
            self.window.advance(8);
        }
        self.stage = Stage::Done;
        Ok(Some(Item::End { checksum_ok: ok }))
    }

    fn key(&mut self, kind: u8) -> Result<Option<Item>, Stop> {
        let mut at = 1;
        let key = match walk::text(self.window.view(), &mut at, self.limits.value) {
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
        if kind == kind::STRING && at == begin {
            // A compressed string is as big as what it unpacks to.
            let mut head = begin;
            match walk::packed(self.window.view(), &mut head) {
                Ok(Some((_, size))) if size > self.limits.big as u64 => return self.begin_big(kind, key, begin),
                Ok(_) => {}
                Err(stop) => {
                    self.stage = Stage::Value { kind, key, begin, at, walker };
                    return Err(stop);
                }
            }
        }
        let parts = grammar::has_parts(kind) || kind == kind::STRING;
        let limit = begin.saturating_add(if parts { self.limits.big } else { self.limits.value });
        let view = self.window.view();
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
        let (key, value) = match key {
            Text::Plain(range) => self.window.take_two(end, range, begin..end),
            key => {
                let record = self.window.take(end);
                (own(&record, key)?, record.slice(begin..))
            }
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
            match walk::len(self.window.view(), &mut after) {
                Ok(left) => {
                    skip = after;
                    Stage::BigString { left }
                }
                Err(_) => match walk::packed(self.window.view(), &mut skip) {
                    Ok(Some((left, size))) => Stage::BigPacked { left, unpacker: lzf::Unpacker::new(size) },
                    // A number: it has no parts, however low the threshold.
                    Ok(None) => return self.number(key, begin),
                    Err(stop) => return Err(self.wait_for_string(key, begin, stop)),
                },
            }
        } else {
            let ops = grammar::value(kind).unwrap_or_default();
            Stage::BigValue { walker: Walker::new(ops, self.limits.value) }
        };
        let record = self.window.take(skip);
        let key = own(&record, key)?;
        Ok(Some(Item::BigBegin(self.entry(kind, key, Bytes::new()))))
    }

    /// A string that is written as a number.
    fn number(&mut self, key: Text, begin: usize) -> Result<Option<Item>, Stop> {
        let mut at = begin;
        match walk::text(self.window.view(), &mut at, self.limits.value) {
            Ok(_) => {
                let whole = self.window.take(at);
                let key = own(&whole, key)?;
                self.stage = Stage::Record;
                Ok(Some(Item::Key(self.entry(kind::STRING, key, whole.slice(begin..)))))
            }
            Err(stop) => Err(self.wait_for_string(key, begin, stop)),
        }
    }

    /// More bytes of a string's head have to come: it is looked at again from its beginning.
    fn wait_for_string(&mut self, key: Text, begin: usize, stop: Stop) -> Stop {
        let walker = Walker::new(grammar::value(kind::STRING).unwrap_or_default(), self.limits.value);
        self.stage = Stage::Value { kind: kind::STRING, key, begin, at: begin, walker };
        stop
    }

    /// Right after [`Item::BigBegin`]: how long the string is, if it is one.
    pub fn text_length(&self) -> Option<u64> {
        match &self.stage {
            Stage::BigString { left } => Some(*left),
            Stage::BigPacked { unpacker, .. } => Some(unpacker.size()),
            _ => None,
        }
    }

    fn big_string(&mut self, left: u64) -> Result<Option<Item>, Stop> {
        let there = self.window.view().len().min(self.limits.part);
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(there);
        if left == 0 {
            self.stage = Stage::BigEnd;
            return Ok(None);
        }
        self.stage = Stage::BigString { left: left - n as u64 };
        if n == 0 {
            return Err(Stop::Need(1));
        }
        Ok(Some(Item::BigPart(self.window.take(n))))
    }

    fn big_packed(&mut self, left: u64, mut unpacker: lzf::Unpacker) -> Result<Option<Item>, Stop> {
        let here = self.window.view().len().min(PACKED);
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(here);
        // Told by where it ends, which does not depend on the pieces in which it came.
        let damaged = |cause| Stop::Bad(RdbError::Lzf { offset: left, cause });
        if left == 0 {
            unpacker.finish().map_err(damaged)?;
            self.stage = Stage::BigEnd;
            return Ok(None);
        }
        if n == 0 {
            self.stage = Stage::BigPacked { left, unpacker };
            return Err(Stop::Need(1));
        }
        let plain = unpacker.feed(&self.window.view()[..n]).map_err(damaged)?;
        self.window.take(n);
        self.stage = Stage::BigPacked { left: left - n as u64, unpacker };
        Ok((!plain.is_empty()).then(|| Item::BigPart(plain.into())))
    }

    fn big_value(&mut self, mut walker: Walker) -> Result<Option<Item>, Stop> {
        let mut at = 0;
        let outcome = walker.skip(self.window.view(), &mut at, self.limits.part);
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
        Ok((at > 0).then(|| Item::BigPart(self.window.take(at))))
    }

    fn opcode(&mut self, op: u8, mut at: usize, mut walker: Walker) -> Result<Option<Item>, Stop> {
        let cap = self.limits.value;
        let view = self.window.view();
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
        let record = self.window.take(at);
        self.stage = Stage::Record;
        self.opened(op, &record)
    }

    /// A whole record after an opcode.
    fn opened(&mut self, op: u8, record: &Bytes) -> Result<Option<Item>, Stop> {
        let mut at = 1;
        let mut number = || walk::len(record, &mut at);
        let item = match op {
            opcode::EXPIRETIME_MS => {
                self.before.expire_ms = record[1..].first_chunk().copied().map(expiry_ms);
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

/// A time before 1970 is one that has passed.
fn expiry_ms(raw: [u8; 8]) -> u64 {
    i64::from_le_bytes(raw).max(0) as u64
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
