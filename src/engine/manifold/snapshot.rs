//! A shard's snapshot cut into one for each strand: every record goes, as it stands, to whom its key belongs.

use super::route::{Routes, To};
use crate::engine::transfer::{BIG, LONGEST};
use crate::wire::rdb::{Item, Limits, RdbError, Reader};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;

/// `REDIS0011`, `VALKEY080`.
const HEADER: usize = 9;
/// The end mark, and a checksum that says that there is none: the whole file's has been looked at here.
const END: [u8; 9] = [0xff, 0, 0, 0, 0, 0, 0, 0, 0];
/// So much of a part is handed on at once.
const PIECE: usize = 64 << 10;

pub(super) struct Cutter {
    reader: Reader,
    /// What was read and is not handed out, and how far into the file it begins.
    raw: VecDeque<Bytes>,
    begin: u64,
    parts: Vec<BytesMut>,
    /// Whose the value is that comes in parts.
    big: To,
    ended: Option<bool>,
}

impl Cutter {
    pub fn new(strands: usize) -> Cutter {
        let limits = Limits { big: BIG, value: LONGEST, ..Limits::default() };
        Cutter {
            reader: Reader::new(limits),
            raw: VecDeque::new(),
            begin: 0,
            parts: vec![BytesMut::new(); strands],
            big: To::Nobody,
            ended: None,
        }
    }

    pub fn feed(&mut self, bytes: Bytes, routes: &Routes) -> Result<(), RdbError> {
        self.raw.push_back(bytes.clone());
        self.reader.feed(bytes);
        while let Some(item) = self.reader.next()? {
            if self.begin == 0 {
                self.move_to(&To::All, HEADER as u64);
            }
            let upto = self.reader.offset();
            match item {
                Item::Key(entry) => self.move_to(&routes.of_key(&entry.key), upto),
                Item::BigBegin(entry) => {
                    self.big = routes.of_key(&entry.key);
                    self.move_big(upto);
                }
                Item::BigPart(_) | Item::BigEnd => self.move_big(upto),
                Item::End { checksum_ok } => {
                    self.ended = Some(checksum_ok != Some(false));
                    self.parts.iter_mut().for_each(|part| part.put_slice(&END));
                }
                // It stands before the key that it is about, and is a part of its record.
                Item::KeyMeta(_) => {}
                Item::Aux { .. }
                | Item::Db(_)
                | Item::Resize { .. }
                | Item::Function(_)
                | Item::ModuleAux(_)
                | Item::SlotImport(_) => self.move_to(&To::All, upto),
            }
        }
        Ok(())
    }

    fn move_big(&mut self, upto: u64) {
        let to = std::mem::replace(&mut self.big, To::Nobody);
        self.move_to(&to, upto);
        self.big = to;
    }

    /// The bytes up to `upto` of the file are for these.
    fn move_to(&mut self, to: &To, upto: u64) {
        let mut left = upto.saturating_sub(self.begin) as usize;
        self.begin = self.begin.max(upto);
        while left > 0 {
            let Some(front) = self.raw.front_mut() else { return };
            let n = left.min(front.len());
            match to {
                To::Nobody => {}
                To::One(one) => self.parts[*one as usize].put_slice(&front[..n]),
                To::Some(list) => list.iter().for_each(|one| self.parts[*one as usize].put_slice(&front[..n])),
                To::All => self.parts.iter_mut().for_each(|part| part.put_slice(&front[..n])),
            }
            front.advance(n);
            if front.is_empty() {
                self.raw.pop_front();
            }
            left -= n;
        }
    }

    /// What is to be handed on, by strand.
    pub fn parts(&mut self) -> impl Iterator<Item = Option<Bytes>> {
        let all = self.ended.is_some();
        self.parts
            .iter_mut()
            .map(move |part| (part.len() >= PIECE || (all && !part.is_empty())).then(|| part.split().freeze()))
    }

    /// The file has ended: why it can't be used, if so.
    pub fn end(self) -> Option<String> {
        match self.ended {
            Some(true) => None,
            Some(false) => Some("the snapshot's checksum does not match: it was damaged on the way".into()),
            None => Some("the snapshot ends before its end mark".into()),
        }
    }
}
