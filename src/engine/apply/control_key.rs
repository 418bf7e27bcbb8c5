//! The control key: the marker of our transactions and the checkpoint, in one value.
//!
//! Its text is words with one space between, in this order:
//!
//! ```text
//! 1 EPOCH NUMBER SERIAL PHASE REPLID OFFSET DB REPLIED DB PEER-REPLID ECHOED DB [STRAND]
//! ```
//!
//! `PHASE` is `l` while the snapshot is being loaded (OFFSET is then where the stream will begin) and `s` after. A
//! database stands beside each position, since PSYNC does not say which one was selected there. An unknown replication
//! id is `-`. `STRAND` stands in jobs with a cluster: which strand wrote it.

use crate::engine::strand::StrandId;
use crate::model::{Offset, ReplId};
use bytes::{BufMut, BytesMut};

/// A position in a stream, with the database that is selected there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    pub offset: Offset,
    pub db: u32,
}

impl Position {
    /// The later of two positions of one stream.
    pub fn max_by_offset(self, other: Position) -> Position {
        if other.offset > self.offset { other } else { self }
    }

    /// The earlier of two positions of one stream.
    pub fn min_by_offset(self, other: Position) -> Position {
        if other.offset < self.offset { other } else { self }
    }

    pub fn new(offset: u64, db: u32) -> Self {
        Position { offset: Offset(offset), db }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadPhase {
    /// The snapshot is being loaded: after a crash it has to be loaded again.
    Loading,
    /// The stream is being applied.
    Streaming,
}

/// What a transaction says of itself, and a recovering engine reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlKey {
    /// Grows with each start of the job's engine.
    pub epoch: u64,
    /// Counts the transactions of this engine to this site: tells which of a window were applied.
    pub number: u64,
    /// The arbiter's serial of the last change in the transaction: an echo with it clears every change up to it.
    pub serial: u64,
    pub phase: LoadPhase,
    /// The history of the stream that is being applied here.
    pub replid: Option<ReplId>,
    /// Up to here it is applied, in this site.
    pub applied: Position,
    /// Up to here the replies have been seen: a change behind it may have failed unseen.
    pub replied: Position,
    /// The history of the stream of the site that holds this key.
    pub peer_replid: Option<ReplId>,
    /// How far that stream had come back as echoes from the other site, at that point of the applied stream.
    pub echoed: Position,
    /// Who wrote it, in a job with a cluster.
    pub strand: Option<StrandId>,
}

impl ControlKey {
    /// Appends the value's text.
    pub fn write(&self, out: &mut BytesMut) {
        let mut n = itoa::Buffer::new();
        let mut word = |out: &mut BytesMut, v: u64| {
            out.put_slice(n.format(v).as_bytes());
            out.put_u8(b' ');
        };
        out.put_slice(b"1 ");
        word(out, self.epoch);
        word(out, self.number);
        word(out, self.serial);
        out.put_slice(match self.phase {
            LoadPhase::Loading => b"l ",
            LoadPhase::Streaming => b"s ",
        });
        out.put_slice(self.replid.as_ref().map_or("-", |r| r.as_str()).as_bytes());
        out.put_u8(b' ');
        for p in [self.applied, self.replied] {
            word(out, p.offset.0);
            word(out, p.db.into());
        }
        out.put_slice(self.peer_replid.as_ref().map_or("-", |r| r.as_str()).as_bytes());
        out.put_u8(b' ');
        word(out, self.echoed.offset.0);
        word(out, self.echoed.db.into());
        out.truncate(out.len() - 1);
        if let Some(strand) = self.strand {
            out.put_u8(b' ');
            strand.write(out);
        }
    }

    /// Reads the value's text; `None` if it is no control key of a version that we know.
    pub fn parse(text: &[u8]) -> Option<ControlKey> {
        let mut words = text.split(|b| *b == b' ');
        if words.next()? != b"1" {
            return None;
        }
        let epoch = number(words.next()?)?;
        let count = number(words.next()?)?;
        let serial = number(words.next()?)?;
        let phase = match words.next()? {
            b"l" => LoadPhase::Loading,
            b"s" => LoadPhase::Streaming,
            _ => return None,
        };
        let replid = text_of(words.next()?)?.parse().ok();
        let applied = position(&mut words)?;
        let replied = position(&mut words)?;
        let peer_replid = text_of(words.next()?)?.parse().ok();
        let echoed = position(&mut words)?;
        let strand = match words.next() {
            None => None,
            Some(word) => Some(text_of(word)?.parse().ok()?),
        };
        words.next().is_none().then_some(ControlKey {
            epoch,
            number: count,
            serial,
            phase,
            replid,
            applied,
            replied,
            peer_replid,
            echoed,
            strand,
        })
    }
}

impl ControlKey {
    /// The control key that a command with this name and this second argument sets, if its first is the name of one. In a
    /// cluster what a transaction changes may stand beside it in one MSET, and who wrote it stands in it; any other MSET is a
    /// client's, whatever names it uses. `None`: it is no such command; `Some(None)`: it sets one that can't be read.
    pub fn set_by(name: &[u8], value: Option<&[u8]>, cluster: bool) -> Option<Option<ControlKey>> {
        if name.eq_ignore_ascii_case(b"set") {
            Some(ControlKey::parse(value.unwrap_or_default()))
        } else if cluster && name.eq_ignore_ascii_case(b"mset") {
            ControlKey::parse(value?).filter(|control| control.strand.is_some()).map(Some)
        } else {
            None
        }
    }
}

/// A number in decimal: there are nine in every transaction that comes back.
fn number(word: &[u8]) -> Option<u64> {
    let digit = |n: u64, b: &u8| n.checked_mul(10)?.checked_add(u64::from(b.checked_sub(b'0').filter(|d| *d < 10)?));
    if word.is_empty() { None } else { word.iter().try_fold(0, digit) }
}

fn position<'a>(words: &mut impl Iterator<Item = &'a [u8]>) -> Option<Position> {
    Some(Position::new(number(words.next()?)?, number(words.next()?)?.try_into().ok()?))
}

fn text_of(word: &[u8]) -> Option<&str> {
    std::str::from_utf8(word).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(epoch: u64, number: u64, serial: u64, load: bool, id in proptest::option::of("[0-9a-f]{40}"), home in proptest::option::of(0u16..16384),
                                   a: u64, b: u64, c: u64, db: u32) {
            let key = ControlKey {
                epoch, number, serial,
                phase: if load { LoadPhase::Loading } else { LoadPhase::Streaming },
                replid: id.as_ref().map(|i| i.parse().unwrap()),
                applied: Position::new(a, db), replied: Position::new(b, 0),
                peer_replid: None, echoed: Position::new(c, db),
                strand: home.map(|home| StrandId { home, hash: serial as u32 }),
            };
            let mut out = BytesMut::new();
            key.write(&mut out);
            prop_assert_eq!(ControlKey::parse(&out), Some(key));
        }

        #[test]
        fn anything_else_is_refused(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(ControlKey::parse(&text), None);
        }
    }
}
