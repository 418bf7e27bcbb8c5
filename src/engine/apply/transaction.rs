//! One marked transaction: encoded once, kept until its reply is here, sent again as it is if it has to be.

use super::control_key::{ControlKey, Position};
use super::outbox::{Item, ItemKind};
use crate::engine::strand::Names;
use crate::wire::resp::{encode_header, encode_part, encode_part_int};
use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;
use std::time::Instant;

/// Above this size an item's bytes are not copied into the transaction's buffer but written from where they are.
const COPY_BELOW: usize = 8 << 10;
/// What a transaction takes beside its items: a control key twice, and its like.
const AROUND: usize = 640;
/// Small transactions share blocks of this size: to a cluster there is one for almost every change.
const BLOCK: usize = 32 << 10;

#[derive(Debug)]
pub struct Transaction {
    /// The bytes to write, in order.
    pub segments: SmallVec<[Bytes; 1]>,
    pub items: Vec<Item>,
    /// For each item, the place of its first command's reply in EXEC's array.
    pub first_reply: SmallVec<[u32; 4]>,
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

/// What transactions are written on, one behind the other.
#[derive(Debug, Default)]
pub struct Paper {
    block: BytesMut,
    /// The control key's value.
    value: BytesMut,
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
    pub fn encode(
        envelope: &Envelope,
        control: &ControlKey,
        items: Vec<Item>,
        sent: Instant,
        paper: &mut Paper,
    ) -> Self {
        let size: usize = items.iter().map(|i| if i.data.len() < COPY_BELOW { i.data.len() } else { 0 }).sum();
        let size = size + AROUND + 32 * items.len();
        let Paper { block: out, value } = paper;
        if out.capacity() < size {
            *out = BytesMut::with_capacity(if size <= BLOCK / 4 { BLOCK } else { size });
        }
        let mut segments = SmallVec::new();
        let mut queued = 0u32;
        let mut selected = envelope.db;
        let one_db = envelope.names.is_cluster();
        let slot = slot_of(&items);
        let key = envelope.names.control_name(slot);
        let mut select = |out: &mut BytesMut, db: u32, queued: &mut u32| {
            if !one_db && selected != db {
                encode_header(out, 2);
                encode_part(out, b"SELECT");
                encode_part_int(out, db);
                *queued += 1;
                selected = db;
            }
        };
        value.clear();
        control.write(value);
        let set_control = |out: &mut BytesMut| {
            out.put_slice(b"*3\r\n$3\r\nSET\r\n");
            encode_part(out, &key);
            encode_part(out, value);
        };
        out.put_slice(b"*1\r\n$5\r\nMULTI\r\n");
        set_control(out);
        queued += 1;
        if let Some(never) = envelope.names.never(slot) {
            out.put_slice(b"*2\r\n$3\r\nGET\r\n");
            encode_part(out, &never);
            queued += 1;
        }
        let mut first_reply = SmallVec::new();
        for item in &items {
            if let Some(db) = item.db {
                select(out, db, &mut queued);
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
        select(out, envelope.db, &mut queued);
        if items.iter().any(|i| i.kind == ItemKind::Sweeping) {
            set_control(out);
            queued += 1;
        }
        out.put_slice(b"*1\r\n$4\r\nEXEC\r\n");
        segments.push(out.split().freeze());
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
            sent,
            outcome: Outcome::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::apply::control_key::LoadPhase;
    use crate::engine::apply::outbox::Telltale;
    use crate::engine::apply::replies::{Finding, Replies};
    use crate::engine::arbiter::classify::Reveals;
    use crate::engine::strand::{SlotSet, Strand};
    use crate::wire::command::Argv;
    use crate::wire::resp::encode;
    use crate::wire::slot::slot;
    use crate::wire::stream::{Batch, Decoder};
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::sync::Arc;

    /// SETs of these values, each a command, of keys in one slot.
    fn item(values: &[usize], db: u32, in_slot: Option<u16>) -> Item {
        let mut data = BytesMut::new();
        for (n, len) in values.iter().enumerate() {
            encode(&mut data, &[b"SET", format!("{{a}}{n}").as_bytes(), &vec![b'v'; *len]]);
        }
        Item {
            data: data.freeze(),
            commands: values.len() as u32,
            db: Some(db),
            slot: in_slot,
            kind: ItemKind::Changes,
            serial: 1,
            phase: LoadPhase::Streaming,
            begin: crate::model::Offset(0),
            position: Position::default(),
            echoed: Position::default(),
            replied: Position::default(),
            decided_ms: 1,
            changes: values.len() as u32,
            telltales: SmallVec::new(),
            glued: false,
        }
    }

    fn control(number: u64) -> ControlKey {
        ControlKey { number, ..ControlKey::parse(b"1 7 0 5 s - 9 0 8 0 - 0 0").expect("a control key") }
    }

    fn envelope(cluster: bool) -> Envelope {
        let base = "duplex:j:forward".to_owned();
        let names =
            if cluster { Names::of(base, Arc::new(Strand::new(SlotSet::all())), true) } else { Names::whole(base) };
        Envelope { names, db: 0 }
    }

    /// What a server would make of a transaction's bytes.
    fn commands(t: &Transaction) -> Vec<Vec<Vec<u8>>> {
        let (mut decoder, mut batch) = (Decoder::new(0), Batch::default());
        let bytes = Bytes::from(t.segments.concat());
        assert_eq!(bytes.len(), t.bytes);
        assert_eq!(decoder.decode(&bytes, &mut batch).expect("commands"), bytes.len(), "no bytes are left over");
        assert_eq!(batch.entries.len(), 1, "one transaction");
        let words = |args: &dyn Argv| (0..args.argc()).map(|n| args.arg(n).to_vec()).collect();
        batch.commands(&batch.entries[0]).iter().map(|c| words(&batch.args(c))).collect()
    }

    proptest! {
        /// Transactions that are written one behind the other, into what the ones before have left of a block, and are
        /// dropped in any order, each hold exactly their own.
        #[test]
        fn transactions_on_one_paper_are_what_they_are_alone(
            cluster: bool,
            all in proptest::collection::vec((proptest::collection::vec(0usize..400, 1..4), 0u32..3, 0usize..4, any::<bool>()), 1..120),
        ) {
            let envelope = envelope(cluster);
            let mut paper = Paper::default();
            let mut kept = Vec::new();
            for (n, (values, db, big, drop)) in all.iter().enumerate() {
                let (db, at) = if cluster { (0, Some(slot(b"a"))) } else { (*db, None) };
                let mut items = vec![item(values, db, at)];
                if *big == 0 {
                    items.push(item(&[COPY_BELOW + 5], db, at));
                }
                let t = Transaction::encode(&envelope, &control(n as u64), items, Instant::now(), &mut paper);
                if !*drop {
                    kept.push((n, t));
                }
            }
            for (n, t) in &kept {
                let (values, db, big, _) = &all[*n];
                let found = commands(t);
                let mut wanted = vec![values.len() + usize::from(*big == 0)];
                // The control key, in a cluster the key that never is, elsewhere the way to the database and back.
                wanted.push(if cluster { 2 } else { 1 + 2 * usize::from(*db != 0) });
                prop_assert_eq!(t.queued as usize, wanted.iter().sum::<usize>());
                let sets: Vec<_> = found.iter().filter(|c| c[0] == b"SET").collect();
                let key = envelope.names.control(t.slot());
                prop_assert_eq!(&sets[0][1], &key.to_vec());
                prop_assert_eq!(ControlKey::parse(&sets[0][2]), Some(control(*n as u64)));
                let lengths: Vec<usize> = sets[1..].iter().map(|c| c[2].len()).collect();
                let mut whole = values.clone();
                whole.extend((*big == 0).then_some(COPY_BELOW + 5));
                prop_assert_eq!(lengths, whole);
            }
        }
    }

    /// What is found in EXEC's array, behind the replies to the control key and the key that never is.
    fn found(replies: &str) -> Vec<Finding> {
        found_in(item(&[1, 1], 0, Some(slot(b"a"))), replies, false)
    }

    fn found_in(item: Item, replies: &str, late: bool) -> Vec<Finding> {
        let envelope = envelope(true);
        let items = vec![item];
        let t = Transaction::encode(&envelope, &control(1), items, Instant::now(), &mut Paper::default());
        let mut window = VecDeque::from([t]);
        let mut reader = Replies::default();
        let queued = "+QUEUED\r\n".repeat(window[0].queued as usize);
        reader.buffer().put_slice(format!("+OK\r\n{queued}*4\r\n+OK\r\n$-1\r\n{replies}").as_bytes());
        let mut findings = Vec::new();
        assert_eq!(reader.next(&mut window, &mut findings, |_| late).expect("replies"), Some(0));
        assert_eq!(window[0].outcome, Outcome::Applied);
        findings
    }

    #[test]
    fn what_renewed_a_key_too_late_is_found() {
        let renewals = || {
            let telltales = (0..2).map(|index| Telltale { index, reveals: Reveals::Renewal }).collect();
            Item { telltales, ..item(&[1, 1], 0, Some(slot(b"a"))) }
        };
        assert_eq!(found_in(renewals(), ":1\r\n:1\r\n", false), []);
        let both = Finding::Renewed { item: 0, commands: vec![0, 1] };
        assert_eq!(found_in(renewals(), ":1\r\n:1\r\n", true), [both]);
        let gone = Finding::Differs { item: 0, index: 0, reply: "0".into() };
        let second = Finding::Renewed { item: 0, commands: vec![1] };
        assert_eq!(found_in(renewals(), ":0\r\n:1\r\n", false), std::slice::from_ref(&gone));
        assert_eq!(found_in(renewals(), ":0\r\n:1\r\n", true), [gone, second]);
        // Of a SET it tells that it did nothing; whose reply it is does not stand here.
        let nil = Finding::Nil { item: 0, index: 1 };
        assert_eq!(found("+OK\r\n$-1\r\n"), [nil]);
    }

    #[test]
    fn an_error_behind_the_nil_of_the_key_that_never_is_is_found() {
        assert_eq!(found("+OK\r\n+OK\r\n"), []);
        let failed = found("+OK\r\n-ERR no\r\n");
        assert!(matches!(&failed[..], [Finding::Differs { item: 0, index: 1, .. }]), "{failed:?}");
        let failed = found("-ERR no\r\n+OK\r\n");
        assert!(matches!(&failed[..], [Finding::Differs { item: 0, index: 0, .. }]), "{failed:?}");
    }
}
