//! Values as logical elements, whatever their encoding.
//!
//! A [`Decoder`] takes a value whole or in the parts that the reader cut, and says what is in it in the order of the
//! encoding: for a stream its entries, what it knows of itself, then each group, the group's pending entries, its
//! consumers and what each of them owns.

use bytes::Bytes;

use super::grammar::{self, Tag};
use super::listpack::{self, Cell, Listpack, damaged};
use super::stream::{self, StreamId};
use super::walk::{Stop, Text, Token, Walker};
use super::ziplist::Ziplist;
use super::{Limits, RdbError, kind};
use crate::wire::lzf;

/// A piece of a value, with no trace of how it was encoded. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub enum Element {
    /// A string, or its next piece.
    Text(Bytes),
    /// A list's next element, from its head.
    Item(Bytes),
    /// A set's member.
    Member(Bytes),
    /// A sorted set's member. The score is never NaN.
    Scored { member: Bytes, score: f64 },
    /// A hash's field.
    Field { field: Bytes, value: Bytes, expire_ms: Option<u64> },
    /// A stream's entry: fields and values alternate.
    Entry { id: StreamId, fields: Vec<Bytes> },
    /// After a stream's last entry.
    Stream(StreamInfo),
    /// A stream's consumer group; what follows, up to the next, is in it.
    Group { name: Bytes, last: StreamId, entries_read: Option<u64> },
    /// An entry that was delivered to a consumer of the group and not acknowledged.
    Pending { id: StreamId, time_ms: u64, count: u64 },
    /// A consumer of the group. `active_ms` is known from Redis 7.2 on; `None` too if it never got an entry.
    Consumer { name: Bytes, seen_ms: u64, active_ms: Option<u64> },
    /// The consumer named last owns this pending entry.
    Owned(StreamId),
    /// This pending entry of the group has no consumer any more (Redis 8.8).
    Released(StreamId),
    /// How long (seconds) and how many ids a stream remembers of each producer (Redis 8.6).
    Idempotency { duration: u64, max_size: u64 },
    /// A producer's id for an entry that it added (Redis 8.6).
    Produced { producer: Bytes, id: Bytes, entry: StreamId },
}

/// What a stream knows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamInfo {
    pub length: u64,
    pub last: StreamId,
    /// The highest id that was ever deleted, and how many were ever added: from Redis 7.0 on.
    pub history: Option<(StreamId, u64)>,
}

/// Takes a value apart. The parts must be those of one value, in order, cut where the reader cut them.
pub struct Decoder {
    kind: u8,
    walker: Walker,
    cap: usize,
    /// Parts of a string are its plain bytes.
    plain: bool,
    /// Bytes of the value that were consumed.
    offset: u64,
    pair: Option<Bytes>,
    second: Option<Bytes>,
    number: u64,
    other: u64,
    min_expiry: u64,
    info: StreamInfo,
    id: StreamId,
    producer: Bytes,
}

impl Decoder {
    /// For a value of this kind, whole or in parts cut from its encoding. Values of modules are opaque.
    pub fn new(kind: u8) -> Result<Self, RdbError> {
        let ops = grammar::value(kind).filter(|_| kind != kind::MODULE_2).ok_or(RdbError::Opaque { kind })?;
        let cap = Limits::default().value;
        Ok(Decoder {
            kind,
            walker: Walker::new(ops, cap),
            cap,
            plain: false,
            offset: 0,
            pair: None,
            second: None,
            number: 0,
            other: 0,
            min_expiry: 0,
            info: StreamInfo::default(),
            id: StreamId::default(),
            producer: Bytes::new(),
        })
    }

    /// For the parts that follow an [`super::Item::BigBegin`] of this kind.
    pub fn big(kind: u8) -> Result<Self, RdbError> {
        let mut decoder = Self::new(kind)?;
        decoder.plain = kind == kind::STRING;
        Ok(decoder)
    }

    /// Takes the next part apart. Text is handed out as slices of `part` where it stands plain in it.
    pub fn feed(&mut self, part: &Bytes, sink: &mut impl FnMut(Element)) -> Result<(), RdbError> {
        if self.plain {
            sink(Element::Text(part.clone()));
            self.offset += part.len() as u64;
            return Ok(());
        }
        let mut at = 0;
        while at < part.len() {
            let begin = at;
            let (tag, token) = match self.walker.token(part, &mut at) {
                Ok(Some(found)) => found,
                Ok(None) => {
                    return Err(damaged(at, "the end of the value", (part.len() - at) as u64).shifted(self.offset));
                }
                Err(Stop::Need(_)) => {
                    let offset = part.len() as u64 + self.offset;
                    return Err(RdbError::Short { offset, expected: "an element" });
                }
                Err(Stop::Bad(error)) => return Err(error.shifted(self.offset)),
            };
            self.token(part, tag, token, sink).map_err(|e| e.shifted(self.offset + begin as u64))?;
        }
        self.offset += part.len() as u64;
        Ok(())
    }

    /// After the last part: an error if the value is not complete.
    pub fn finish(mut self) -> Result<(), RdbError> {
        match self.walker.token(&[], &mut 0) {
            _ if self.plain => Ok(()),
            Ok(None) => Ok(()),
            _ => Err(RdbError::Short { offset: self.offset, expected: "an element" }),
        }
    }

    fn text(&self, part: &Bytes, text: Text) -> Result<Bytes, RdbError> {
        match text {
            Text::Plain(range) => Ok(part.slice(range)),
            Text::Int(n) => Ok(Bytes::copy_from_slice(itoa::Buffer::new().format(n).as_bytes())),
            Text::Lzf(range, size) => {
                if size > self.cap {
                    let (bytes, cap) = (size as u64, self.cap as u64);
                    return Err(RdbError::TooBig { offset: 0, what: "a string", bytes, cap });
                }
                let unpacked = lzf::decompress(&part[range], size);
                unpacked.map(Bytes::from).map_err(|cause| RdbError::Lzf { offset: 0, cause })
            }
        }
    }

    fn token(&mut self, part: &Bytes, tag: Tag, token: Token, sink: &mut impl FnMut(Element)) -> Result<(), RdbError> {
        match token {
            Token::Str(text) => {
                let text = self.text(part, text)?;
                self.string(tag, text, sink)
            }
            Token::Len(n) => {
                self.length(tag, n, sink);
                Ok(())
            }
            Token::Fixed(range) => self.fixed(tag, &part[range], sink),
            Token::Score(score) => self.scored(score, sink),
            Token::Count | Token::Opaque => Ok(()),
        }
    }

    fn scored(&mut self, score: f64, sink: &mut impl FnMut(Element)) -> Result<(), RdbError> {
        let member = self.pair.take().unwrap_or_default();
        if score.is_nan() {
            return Err(damaged(0, "a score", 253));
        }
        sink(Element::Scored { member, score });
        Ok(())
    }

    fn string(&mut self, tag: Tag, text: Bytes, sink: &mut impl FnMut(Element)) -> Result<(), RdbError> {
        match tag {
            Tag::Item => sink(match self.kind {
                kind::STRING => Element::Text(text),
                kind::SET => Element::Member(text),
                _ => Element::Item(text),
            }),
            Tag::Blob => return self.blob(&text, sink),
            Tag::Member | Tag::Field => self.pair = Some(text),
            Tag::Value if self.kind == kind::HASH_2 => self.second = Some(text),
            Tag::Value => {
                let field = self.pair.take().unwrap_or_default();
                let ttl = std::mem::take(&mut self.number);
                let expire_ms = (ttl != 0).then(|| match self.kind {
                    kind::HASH_METADATA => self.min_expiry.saturating_add(ttl - 1),
                    _ => ttl,
                });
                sink(Element::Field { field, value: text, expire_ms });
            }
            Tag::NodeId => {
                self.id = StreamId::from_bytes(&text)
                    .ok_or_else(|| damaged(0, "a stream node's id of 16 bytes", text.len() as u64))?;
            }
            Tag::Node => return stream::node(self.id, &text, sink),
            Tag::Group => self.pair = Some(text),
            Tag::Consumer => self.pair = Some(text),
            Tag::Producer => self.producer = text,
            Tag::ProducerId => self.pair = Some(text),
            _ => {}
        }
        Ok(())
    }

    fn length(&mut self, tag: Tag, n: u64, sink: &mut impl FnMut(Element)) {
        match tag {
            Tag::FieldTtl | Tag::Container => self.number = n,
            Tag::Length => self.info.length = n,
            Tag::LastMs => self.info.last.ms = n,
            Tag::LastSeq => {
                self.info.last.seq = n;
                if self.kind == kind::STREAM {
                    sink(Element::Stream(self.info));
                }
            }
            Tag::DeletedMs => self.id.ms = n,
            Tag::DeletedSeq => self.id.seq = n,
            Tag::Added => {
                self.info.history = Some((self.id, n));
                sink(Element::Stream(self.info));
            }
            Tag::GroupMs => self.id.ms = n,
            Tag::GroupSeq => {
                self.id.seq = n;
                if self.kind == kind::STREAM {
                    let name = self.pair.take().unwrap_or_default();
                    sink(Element::Group { name, last: self.id, entries_read: None });
                }
            }
            Tag::GroupRead => {
                let name = self.pair.take().unwrap_or_default();
                // -1: the server could not tell
                sink(Element::Group { name, last: self.id, entries_read: (n != u64::MAX).then_some(n) });
            }
            Tag::PendingCount => sink(Element::Pending { id: self.id, time_ms: self.number, count: n }),
            Tag::IdmpDuration => self.number = n,
            Tag::IdmpMaxSize => sink(Element::Idempotency { duration: self.number, max_size: n }),
            Tag::ProducerMs => self.other = n,
            Tag::ProducerSeq => {
                let id = self.pair.take().unwrap_or_default();
                let entry = StreamId { ms: self.other, seq: n };
                sink(Element::Produced { producer: self.producer.clone(), id, entry });
            }
            _ => {}
        }
    }

    fn fixed(&mut self, tag: Tag, raw: &[u8], sink: &mut impl FnMut(Element)) -> Result<(), RdbError> {
        let number = raw.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
        let id = || StreamId::from_bytes(raw).unwrap_or_default();
        match tag {
            Tag::BinaryScore => return self.scored(f64::from_bits(number), sink),
            Tag::FieldExpiry => {
                let (field, value) = (self.pair.take().unwrap_or_default(), self.second.take().unwrap_or_default());
                sink(Element::Field { field, value, expire_ms: (number as i64 >= 0).then_some(number) });
            }
            Tag::MinExpiry => self.min_expiry = number,
            Tag::PendingId => self.id = id(),
            Tag::PendingTime => self.number = number,
            Tag::Seen if matches!(self.kind, kind::STREAM | kind::STREAM_2) => {
                let name = self.pair.take().unwrap_or_default();
                sink(Element::Consumer { name, seen_ms: number, active_ms: None });
            }
            Tag::Seen => self.number = number,
            Tag::Active => {
                let name = self.pair.take().unwrap_or_default();
                let active_ms = (number as i64 >= 0).then_some(number);
                sink(Element::Consumer { name, seen_ms: self.number, active_ms });
            }
            Tag::ReleasedId => sink(Element::Released(id())),
            Tag::ConsumerPendingId => sink(Element::Owned(id())),
            _ => {}
        }
        Ok(())
    }

    fn blob(&mut self, blob: &Bytes, sink: &mut impl FnMut(Element)) -> Result<(), RdbError> {
        match self.kind {
            kind::LIST_ZIPLIST | kind::LIST_QUICKLIST => {
                for cell in Ziplist::new(blob)? {
                    sink(Element::Item(cell?.bytes(blob)));
                }
            }
            kind::LIST_QUICKLIST_2 if self.number == 1 => sink(Element::Item(blob.clone())),
            kind::LIST_QUICKLIST_2 if self.number == 2 => {
                for cell in Listpack::new(blob)? {
                    sink(Element::Item(cell?.bytes(blob)));
                }
            }
            kind::LIST_QUICKLIST_2 => return Err(damaged(0, "a list node of kind 1 or 2", self.number)),
            kind::SET_LISTPACK => {
                for cell in Listpack::new(blob)? {
                    sink(Element::Member(cell?.bytes(blob)));
                }
            }
            kind::SET_INTSET => {
                for n in listpack::intset(blob)? {
                    sink(Element::Member(Cell::Int(n).bytes(blob)));
                }
            }
            kind::ZSET_ZIPLIST => scores(blob, Ziplist::new(blob)?, sink)?,
            kind::ZSET_LISTPACK => scores(blob, Listpack::new(blob)?, sink)?,
            kind::HASH_ZIPLIST => fields(blob, Ziplist::new(blob)?, sink)?,
            kind::HASH_LISTPACK => fields(blob, Listpack::new(blob)?, sink)?,
            kind::HASH_LISTPACK_EX | kind::HASH_LISTPACK_EX_PRE_GA => expiring_fields(blob, sink)?,
            kind::HASH_ZIPMAP => {
                for (field, value) in listpack::zipmap(blob)? {
                    let (field, value) = (field.bytes(blob), value.bytes(blob));
                    sink(Element::Field { field, value, expire_ms: None });
                }
            }
            kind => return Err(RdbError::Opaque { kind }),
        }
        Ok(())
    }
}

type Cells<'a> = &'a mut dyn Iterator<Item = Result<Cell, RdbError>>;

fn paired(cells: Cells<'_>, blob: &Bytes) -> Result<Cell, RdbError> {
    cells.next().unwrap_or(Err(RdbError::Short { offset: blob.len() as u64, expected: "an element's other half" }))
}

fn scores(
    blob: &Bytes,
    mut cells: impl Iterator<Item = Result<Cell, RdbError>>,
    sink: &mut impl FnMut(Element),
) -> Result<(), RdbError> {
    while let Some(member) = cells.next() {
        let member = member?.bytes(blob);
        let score = paired(&mut cells, blob)?.score(blob).filter(|s| !s.is_nan());
        let score = score.ok_or_else(|| damaged(0, "a score", 0))?;
        sink(Element::Scored { member, score });
    }
    Ok(())
}

fn fields(
    blob: &Bytes,
    mut cells: impl Iterator<Item = Result<Cell, RdbError>>,
    sink: &mut impl FnMut(Element),
) -> Result<(), RdbError> {
    while let Some(field) = cells.next() {
        let field = field?.bytes(blob);
        let value = paired(&mut cells, blob)?.bytes(blob);
        sink(Element::Field { field, value, expire_ms: None });
    }
    Ok(())
}

fn expiring_fields(blob: &Bytes, sink: &mut impl FnMut(Element)) -> Result<(), RdbError> {
    let mut cells = Listpack::new(blob)?;
    while let Some(field) = cells.next() {
        let field = field?.bytes(blob);
        let value = paired(&mut cells, blob)?.bytes(blob);
        let time = paired(&mut cells, blob)?.int(blob).filter(|t| *t >= 0);
        let time = time.ok_or_else(|| damaged(0, "a field's expiry", 0))?;
        sink(Element::Field { field, value, expire_ms: (time > 0).then_some(time as u64) });
    }
    Ok(())
}

/// Takes a whole value apart.
pub fn decode(kind: u8, value: &Bytes, mut sink: impl FnMut(Element)) -> Result<(), RdbError> {
    let mut decoder = Decoder::new(kind)?;
    decoder.feed(value, &mut sink)?;
    decoder.finish()
}
