//! One marked transaction: encoded once, kept until its reply is here, sent again as it is if it has to be.

use super::control_key::{ControlKey, Position};
use super::outbox::{Item, ItemKind};
use crate::engine::strand::Names;
use crate::wire::resp::{encode, encode_header, encode_part, encode_part_int};
use bytes::{BufMut, Bytes, BytesMut};
use std::time::Instant;

/// Above this size an item's bytes are not copied into the transaction's buffer but written from where they are.
const COPY_BELOW: usize = 32 << 10;

#[derive(Debug)]
pub struct Transaction {
    /// The bytes to write, in order.
    pub segments: Vec<Bytes>,
    pub items: Vec<Item>,
    /// For each item, the place of its first command's reply in EXEC's array.
    pub first_reply: Vec<u32>,
    /// Commands between MULTI and EXEC: as many `+QUEUED`, as many elements.
    pub queued: u32,
    /// What its control key says.
    pub control: ControlKey,
    /// How far the source has come with it.
    pub position: Position,
    pub bytes: usize,
    /// Changes of the source in it.
    pub changes: u32,
    pub decided_ms: u64,
    /// When it was made, to be written at once.
    pub sent: Instant,
    pub outcome: Outcome,
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// No reply yet.
    Pending,
    /// EXEC answered with an array, which was looked through.
    Applied,
    /// Refused as a whole; the text of the first error.
    Refused(String),
}

/// What stays the same over a link's transactions.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// What the control key is called, by slot.
    pub names: Names,
    /// The database that holds it. A cluster knows no other than 0, and no SELECT.
    pub db: u32,
}

/// The slot of all that these touch, where the site is a cluster.
fn slot_of(items: &[Item]) -> Option<u16> {
    items.iter().find_map(|i| i.slot)
}

impl Transaction {
    /// The cluster slot that it is for; `None`: any would do, so it goes where the strand is at home.
    pub fn slot(&self) -> Option<u16> {
        slot_of(&self.items)
    }

    /// Encodes the items behind the control key. The transaction begins in the control key's database and returns to
    /// it, so that one that is refused leaves those behind it right.
    pub fn encode(envelope: &Envelope, control: &ControlKey, items: Vec<Item>) -> Self {
        let size: usize = items.iter().map(|i| if i.data.len() < COPY_BELOW { i.data.len() } else { 0 }).sum();
        let mut out = BytesMut::with_capacity(size + 512 + 32 * items.len());
        let mut segments = Vec::new();
        let mut queued = 0u32;
        let mut selected = envelope.db;
        let one_db = envelope.names.is_cluster();
        let slot = slot_of(&items);
        let key = envelope.names.control(slot);
        let mut select = |out: &mut BytesMut, db: u32, queued: &mut u32| {
            if !one_db && selected != db {
                encode_header(out, 2);
                encode_part(out, b"SELECT");
                encode_part_int(out, db);
                *queued += 1;
                selected = db;
            }
        };
        out.put_slice(b"*1\r\n$5\r\nMULTI\r\n");
        let mut value = BytesMut::with_capacity(192);
        control.write(&mut value);
        encode(&mut out, &[&b"SET"[..], &key, &value]);
        queued += 1;
        if let Some(never) = envelope.names.never(slot) {
            encode(&mut out, &[&b"GET"[..], &never]);
            queued += 1;
        }
        let mut first_reply = Vec::with_capacity(items.len());
        for item in &items {
            if let Some(db) = item.db {
                select(&mut out, db, &mut queued);
            }
            first_reply.push(queued);
            queued += item.commands;
            if item.data.len() < COPY_BELOW {
                out.put_slice(&item.data);
            } else {
                segments.push(out.split().freeze());
                segments.push(item.data.clone());
            }
        }
        select(&mut out, envelope.db, &mut queued);
        if items.iter().any(|i| i.kind == ItemKind::Sweeping) {
            encode(&mut out, &[&b"SET"[..], &key, &value]);
            queued += 1;
        }
        out.put_slice(b"*1\r\n$4\r\nEXEC\r\n");
        segments.push(out.freeze());
        Transaction {
            bytes: segments.iter().map(Bytes::len).sum(),
            segments,
            first_reply,
            queued,
            control: *control,
            position: control.applied,
            changes: items.iter().map(|i| i.changes).sum(),
            decided_ms: items.first().map_or(0, |i| i.decided_ms),
            items,
            sent: Instant::now(),
            outcome: Outcome::Pending,
        }
    }
}
