//! A strand's part of a stretch of its shard's stream, as bytes for its spool: which entries, and where in the shard's
//! stream each of them ends.
//!
//! ```text
//! body's length │ end of the stretch │ n │ n × (end in the body, end in the stream) │ body: the entries as they came
//! ```
//! Numbers are eight bytes, little-endian. A frame without a body tells that the stretch holds nothing for the strand.

use crate::model::Offset;
use crate::wire::stream::append;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::ops::Range;

/// An entry above this size is not copied.
const BIG: usize = 32 << 10;
/// The numbers before the list of ends.
const HEAD: usize = 24;
const END: usize = 16;

/// Makes frames.
#[derive(Debug, Default)]
pub(super) struct Framer {
    ends: Vec<(u64, u64)>,
    body: BytesMut,
    /// What of the body lies elsewhere, in front of `body`.
    pieces: Vec<Bytes>,
    length: u64,
    /// Where the spool's own count stands.
    at: u64,
}

impl Framer {
    /// The spool's count begins anew with a snapshot.
    pub fn begin(&mut self, at: Offset) {
        *self = Framer { at: at.0, ..Framer::default() };
    }

    pub fn at(&self) -> Offset {
        Offset(self.at)
    }

    /// An entry that ends at `end` of the stream.
    pub fn put(&mut self, buf: &Bytes, range: Range<usize>, end: Offset) {
        self.length += range.len() as u64;
        self.ends.push((self.length, end.0));
        if range.len() < BIG {
            return self.body.put_slice(&buf[range]);
        }
        if !self.body.is_empty() {
            self.pieces.push(self.body.split().freeze());
        }
        self.pieces.push(buf.slice(range));
    }

    /// The frame of all that was put since the last: pieces for the spool, each with its place there.
    pub fn finish(&mut self, end: Offset) -> impl Iterator<Item = (Offset, Bytes)> + use<> {
        let small = self.body.split();
        let in_one = if self.pieces.is_empty() { small.len() } else { 0 };
        let mut head = BytesMut::with_capacity(HEAD + END * self.ends.len() + in_one);
        head.put_u64_le(std::mem::take(&mut self.length));
        head.put_u64_le(end.0);
        head.put_u64_le(self.ends.len() as u64);
        for (in_body, in_stream) in self.ends.drain(..) {
            head.put_u64_le(in_body);
            head.put_u64_le(in_stream);
        }
        let mut pieces = std::mem::take(&mut self.pieces);
        if pieces.is_empty() {
            head.put_slice(&small);
        } else if !small.is_empty() {
            pieces.push(small.freeze());
        }
        let mut at = self.at;
        let placed: Vec<(Offset, Bytes)> = std::iter::once(head.freeze())
            .chain(pieces)
            .map(|piece| {
                let place = Offset(at);
                at += piece.len() as u64;
                (place, piece)
            })
            .collect();
        self.at = at;
        placed.into_iter()
    }
}

/// Reads frames, and knows where in the shard's stream the entries end whose bytes it has given out.
#[derive(Debug, Default)]
pub struct Unframer {
    raw: Bytes,
    head: Option<Head>,
    /// Up to where of the spool's own count all has been given out.
    taken: u64,
    /// Bytes of bodies that were given out, and of those that were dealt with.
    given: u64,
    dealt: u64,
    /// (Bytes of bodies, end in the stream): of each entry, and of each frame.
    ends: VecDeque<(u64, u64)>,
}

#[derive(Debug)]
struct Head {
    body: usize,
    length: u64,
}

impl Unframer {
    /// More of the spool's bytes.
    pub fn feed(&mut self, at: Offset, bytes: Bytes) {
        if self.raw.is_empty() && self.head.is_none() {
            self.taken = at.0;
        }
        let room = self.head.as_ref().map_or(HEAD, |h| h.body);
        append(&mut self.raw, bytes, room);
    }

    /// The entries of the next frame, if all of it is there; perhaps none.
    pub fn next_body(&mut self) -> Option<Bytes> {
        if self.head.is_none() {
            let mut head = self.raw.get(..HEAD)?;
            let (body, end, n) = (head.get_u64_le(), head.get_u64_le(), head.get_u64_le());
            let length = HEAD as u64 + n * END as u64;
            let mut list = self.raw.get(HEAD..usize::try_from(length).ok()?)?;
            while list.len() >= END {
                self.ends.push_back((self.given + list.get_u64_le(), list.get_u64_le()));
            }
            self.ends.push_back((self.given + body, end));
            self.raw.advance(length as usize);
            self.head = Some(Head { body: usize::try_from(body).ok()?, length });
        }
        let head = self.head.take_if(|head| self.raw.len() >= head.body)?;
        self.taken += head.length + head.body as u64;
        self.given += head.body as u64;
        Some(self.raw.split_to(head.body))
    }

    /// Where in the stream the entry ends that ends so many bytes behind those that were dealt with.
    pub fn end_of(&self, bytes: u64) -> Option<u64> {
        let at = self.dealt + bytes;
        let found = self.ends.partition_point(|(in_body, _)| *in_body < at);
        self.ends.get(found).filter(|(in_body, _)| *in_body == at).map(|(_, end)| *end)
    }

    /// So many bytes more were dealt with: gives up to where of the stream that is, with what was left out behind them.
    pub fn deal_with(&mut self, bytes: usize) -> Option<u64> {
        self.dealt += bytes as u64;
        let mut upto = None;
        while let Some((_, end)) = self.ends.front().filter(|(in_body, _)| *in_body <= self.dealt) {
            upto = Some(*end);
            self.ends.pop_front();
        }
        upto
    }

    /// Up to where of the stream is told by what was given out.
    pub fn reaches(&self) -> Option<u64> {
        // A frame whose body is not all there is not given out yet.
        let ends = self.ends.iter().rev();
        let mut given = ends.skip_while(|(in_body, _)| self.head.is_some() && *in_body > self.given);
        given.next().map(|(_, end)| *end)
    }

    /// Of the bytes that were given out and not dealt with, how many belong to entries that end at `upto` or before.
    pub fn bytes_up_to(&self, upto: u64) -> usize {
        let n = self.ends.partition_point(|(_, end)| *end <= upto);
        let in_body = n.checked_sub(1).and_then(|n| self.ends.get(n)).map_or(self.dealt, |(in_body, _)| *in_body);
        (in_body.min(self.given) - self.dealt) as usize
    }

    /// What of the spool is not needed any more, once all that was given out was dealt with.
    pub fn taken(&self) -> Offset {
        Offset(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(framer: &mut Framer, entries: &[(&[u8], u64)], end: u64) -> Vec<(Offset, Bytes)> {
        for (bytes, at) in entries {
            framer.put(&Bytes::copy_from_slice(bytes), 0..bytes.len(), Offset(*at));
        }
        framer.finish(Offset(end)).collect()
    }

    #[test]
    fn what_was_put_comes_out_with_its_places_however_it_is_cut() {
        let big = vec![b'b'; BIG + 1];
        let mut framer = Framer::default();
        framer.begin(Offset(1000));
        let mut pieces = frame(&mut framer, &[(b"aa", 1010), (b"bbb", 1030)], 1040);
        pieces.extend(frame(&mut framer, &[], 1050));
        pieces.extend(frame(&mut framer, &[(b"c", 1060), (&big, 90_000), (b"d", 90_010)], 90_010));
        let whole: Vec<u8> = pieces.iter().flat_map(|(_, b)| b.to_vec()).collect();
        let mut at = 1000;
        for (offset, bytes) in &pieces {
            assert_eq!(offset.0, at);
            at += bytes.len() as u64;
        }
        for step in [1, 7, 24, 40, whole.len()] {
            let mut reader = Unframer::default();
            let (mut bodies, mut reached) = (Vec::new(), Vec::new());
            for (n, part) in whole.chunks(step).enumerate() {
                reader.feed(Offset(1000 + (n * step) as u64), Bytes::copy_from_slice(part));
                while let Some(body) = reader.next_body() {
                    reached.push(reader.reaches());
                    bodies.push(body);
                }
            }
            let lengths: Vec<usize> = bodies.iter().map(Bytes::len).collect();
            assert_eq!(lengths, [5, 0, 2 + big.len()], "step {step}");
            assert_eq!(reached, [Some(1040), Some(1050), Some(90_010)], "step {step}");
            assert_eq!(reader.taken(), Offset(1000 + whole.len() as u64), "step {step}");
            assert_eq!((reader.end_of(2), reader.end_of(5), reader.end_of(3)), (Some(1010), Some(1030), None));
            assert_eq!((reader.bytes_up_to(1009), reader.bytes_up_to(1029), reader.bytes_up_to(1030)), (0, 2, 5));
            assert_eq!(reader.deal_with(2), Some(1010));
            assert_eq!((reader.end_of(3), reader.bytes_up_to(1030)), (Some(1030), 3));
            assert_eq!(reader.deal_with(3), Some(1050), "what was left out behind is passed over");
            assert_eq!(reader.deal_with(0), None);
            assert_eq!(reader.deal_with(2 + big.len()), Some(90_010));
        }
    }
}
