//! Stream nodes: many entries in one listpack (`t_stream.c`).
//!
//! A node begins with a master entry: valid entries, deleted ones, number of fields, the fields, 0. Each entry then is
//! flags, the difference of its id to the node's in both halves, its fields unless they are the master's, its values,
//! and how many elements it took, for walking backwards.

use std::fmt;

use bytes::Bytes;

use super::RdbError;
use super::decode::Element;
use super::listpack::{Cell, Listpack, damaged};

/// The id of a stream entry, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StreamId {
    pub ms: u64,
    pub seq: u64,
}

impl StreamId {
    pub const fn new(ms: u64, seq: u64) -> Self {
        StreamId { ms, seq }
    }

    /// From its 16 bytes, big endian.
    pub(super) fn from_bytes(raw: &[u8]) -> Option<Self> {
        let (ms, rest) = raw.split_first_chunk::<8>()?;
        let seq = rest.first_chunk::<8>().filter(|_| rest.len() == 8)?;
        Some(StreamId { ms: u64::from_be_bytes(*ms), seq: u64::from_be_bytes(*seq) })
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;

struct Cells<'a> {
    list: Listpack<'a>,
    blob: &'a Bytes,
}

impl Cells<'_> {
    fn next(&mut self) -> Result<Option<Cell>, RdbError> {
        self.list.next().transpose()
    }

    fn cell(&mut self, expected: &'static str) -> Result<Cell, RdbError> {
        self.next()?.ok_or(RdbError::Short { offset: self.blob.len() as u64, expected })
    }

    fn number(&mut self, expected: &'static str) -> Result<i64, RdbError> {
        let cell = self.cell(expected)?;
        cell.int(self.blob).ok_or_else(|| damaged(0, expected, 0))
    }

    fn bytes(&mut self, expected: &'static str) -> Result<Bytes, RdbError> {
        Ok(self.cell(expected)?.bytes(self.blob))
    }
}

/// The living entries of the node whose first id is `base`.
pub(super) fn node(base: StreamId, blob: &Bytes, sink: &mut impl FnMut(Element)) -> Result<(), RdbError> {
    let mut cells = Cells { list: Listpack::new(blob)?, blob };
    cells.number("a stream node's entry count")?;
    cells.number("a stream node's deleted count")?;
    let mut master = Vec::new();
    for _ in 0..cells.number("a stream node's field count")? {
        master.push(cells.bytes("a stream node's field")?);
    }
    cells.number("the end of a stream node's fields")?;
    while let Some(flags) = cells.next()? {
        let flags = flags.int(blob).ok_or_else(|| damaged(0, "a stream entry's flags", 0))?;
        // The halves wrap: the server adds them as unsigned numbers.
        let id = StreamId {
            ms: base.ms.wrapping_add(cells.number("a stream entry's time")? as u64),
            seq: base.seq.wrapping_add(cells.number("a stream entry's sequence")? as u64),
        };
        let mut fields = Vec::new();
        if flags & SAME_FIELDS != 0 {
            for field in &master {
                fields.push(field.clone());
                fields.push(cells.bytes("a stream entry's value")?);
            }
        } else {
            for _ in 0..cells.number("a stream entry's field count")? {
                fields.push(cells.bytes("a stream entry's field")?);
                fields.push(cells.bytes("a stream entry's value")?);
            }
        }
        cells.number("a stream entry's element count")?;
        if flags & DELETED == 0 {
            sink(Element::Entry { id, fields });
        }
    }
    Ok(())
}
