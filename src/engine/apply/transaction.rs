//! One marked transaction: encoded once, kept until its reply is here, sent again as it is if it has to be.
//!
//! ```text
//! MULTI                             MULTI                                      MSET <control key> <value> k v ...
//! SET <control key> <value>         GET <never>
//! GET <never>         (cluster)     MSET <control key> <value> k v ...
//! SET k v, INCR n, ...              EXEC
//! EXEC
//! ```
//!
//! What stands in the middle and on the right is for clusters, where one transaction has one slot and so is mostly one change: if
//! all of it is plain SETs and MSETs. On the right it is one command of four to the server, and one of four in its stream; in
//! the middle the latter alone, from 7.0 on.
//!
//! The key that never is sees to it that of transactions to a slot that begins to move a prefix is applied. One alone needs it
//! not: it is applied or refused as a whole. So a transaction goes alone if none to its slot is unanswered; those that follow
//! it before its answer is here read the key that never is.

use super::control_key::{ControlKey, Position};
use super::outbox::{Item, ItemKind};
use super::pairs;
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
    /// It is one command without MULTI and EXEC, and has one reply.
    pub alone: bool,
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
    /// One MSET may set the control key and what it stands for.
    pub joins: bool,
}

impl Envelope {
    /// Behind a proxy it goes by itself: what a proxy makes of a command with several keys nobody has asked it.
    pub fn new(names: Names, db: u32, behind_proxy: bool) -> Self {
        Envelope { joins: names.is_cluster() && !behind_proxy, names, db }
    }
}

/// What transactions are written on, one behind the other.
#[derive(Debug, Default)]
pub struct Paper {
    block: BytesMut,
    /// The control key's value.
    value: BytesMut,
}

/// The slot of all that these touch, where the site is a cluster.
pub(super) fn slot_of(items: &[Item]) -> Option<u16> {
    items.iter().find_map(|i| i.slot)
}

impl Transaction {
    /// The cluster slot that it is for; `None`: any would do, so it goes where the strand is at home.
    pub fn slot(&self) -> Option<u16> {
        slot_of(&self.items)
    }

    /// Encodes the items behind the control key. The transaction begins in the control key's database and returns to
    /// it, so that one that is refused leaves those behind it right. `alone`: none to its slot is unanswered.
    pub fn encode(
        envelope: &Envelope,
        control: &ControlKey,
        items: Vec<Item>,
        alone: bool,
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
        let get_never = |out: &mut BytesMut| {
            let Some(never) = envelope.names.never(slot) else { return 0 };
            out.put_slice(b"*2\r\n$3\r\nGET\r\n");
            encode_part(out, &never);
            1
        };
        let mut first_reply = SmallVec::new();
        // What is long is not copied.
        let put = |out: &mut BytesMut, segments: &mut SmallVec<[Bytes; 1]>, data: &Bytes, from: usize| {
            if data.len() < COPY_BELOW {
                out.put_slice(&data[from..]);
            } else {
                segments.push(out.split().freeze());
                segments.push(data.slice(from..));
            }
        };
        let joined = if envelope.joins { pairs::count(&items) } else { None };
        let alone = alone && joined.is_some();
        if !alone {
            out.put_slice(b"*1\r\n$5\r\nMULTI\r\n");
        }
        if let Some(count) = joined {
            if !alone {
                queued = get_never(out) + 1;
            }
            encode_header(out, 3 + 2 * count);
            out.put_slice(b"$4\r\nMSET\r\n");
            encode_part(out, &key);
            encode_part(out, value);
            for item in &items {
                put(out, &mut segments, &item.data, pairs::begin(item));
                first_reply.push(queued.saturating_sub(1));
            }
        } else {
            set_control(out);
            queued = 1 + get_never(out);
            for item in &items {
                if let Some(db) = item.db {
                    select(out, db, &mut queued);
                }
                first_reply.push(queued);
                queued += item.commands;
                put(out, &mut segments, &item.data, 0);
            }
            select(out, envelope.db, &mut queued);
            if items.iter().any(|i| i.kind == ItemKind::Sweeping) {
                set_control(out);
                queued += 1;
            }
        }
        if !alone {
            out.put_slice(b"*1\r\n$4\r\nEXEC\r\n");
        }
        segments.push(out.split().freeze());
        Transaction {
            bytes: segments.iter().map(Bytes::len).sum(),
            segments,
            first_reply,
            queued,
            alone,
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

    /// The same in one MSET.
    fn mset(lengths: &[usize], db: u32, in_slot: Option<u16>) -> Item {
        let mut words = vec![b"MSET".to_vec()];
        for (n, len) in lengths.iter().enumerate() {
            words.extend([format!("{{a}}{n}").into_bytes(), vec![b'v'; *len]]);
        }
        let mut data = BytesMut::new();
        encode(&mut data, &words);
        Item { data: data.freeze(), commands: 1, ..item(lengths, db, in_slot) }
    }

    fn control(number: u64) -> ControlKey {
        ControlKey { number, ..ControlKey::parse(b"1 7 0 5 s - 9 0 8 0 - 0 0").expect("a control key") }
    }

    fn control_of(envelope: &Envelope, number: u64) -> ControlKey {
        ControlKey { strand: envelope.names.id(), ..control(number) }
    }

    fn envelope(cluster: bool) -> Envelope {
        let base = "duplex:j:forward".to_owned();
        let names =
            if cluster { Names::of(base, Arc::new(Strand::new(SlotSet::all())), true) } else { Names::whole(base) };
        Envelope::new(names, 0, false)
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

    /// What one is to be made of, and how.
    #[derive(Debug, Clone)]
    struct Wanted {
        /// Lengths of the values of each item's SETs, which are one MSET or one command each.
        items: Vec<(Vec<usize>, bool)>,
        db: u32,
        alone: bool,
        drop: bool,
    }

    fn wanted() -> impl Strategy<Value = Wanted> {
        let lengths = prop_oneof![9 => 0usize..400, 1 => Just(COPY_BELOW + 5)];
        let item = (proptest::collection::vec(lengths, 1..4), any::<bool>());
        (proptest::collection::vec(item, 1..4), 0u32..3, any::<bool>(), any::<bool>())
            .prop_map(|(items, db, alone, drop)| Wanted { items, db, alone, drop })
    }

    proptest! {
        /// Transactions that are written one behind the other, into what the ones before have left of a block, and are
        /// dropped in any order, each hold exactly their own.
        #[test]
        fn transactions_on_one_paper_are_what_they_are_alone(
            cluster: bool,
            proxy: bool,
            all in proptest::collection::vec(wanted(), 1..80),
        ) {
            let envelope = Envelope::new(envelope(cluster).names, 0, proxy);
            let mut paper = Paper::default();
            let mut kept = Vec::new();
            for (n, wanted) in all.iter().enumerate() {
                let (db, at) = if cluster { (0, Some(slot(b"a"))) } else { (wanted.db, None) };
                let made = |(lengths, one): &(Vec<usize>, bool)| if *one { mset(lengths, db, at) } else { item(lengths, db, at) };
                let items = wanted.items.iter().map(made).collect();
                let t = Transaction::encode(&envelope, &control_of(&envelope, n as u64), items, wanted.alone, Instant::now(), &mut paper);
                if !wanted.drop {
                    kept.push((n, t));
                }
            }
            for (n, t) in &kept {
                let wanted = &all[*n];
                let found = commands(t);
                // One command of each item, be it a SET or a MSET: they are joined with the control key.
                let joined = cluster && !proxy && wanted.items.iter().all(|(lengths, one)| *one || lengths.len() == 1);
                prop_assert_eq!(t.alone, joined && wanted.alone);
                let names: Vec<&[u8]> = found.iter().map(|c| &c[0][..]).collect();
                if joined {
                    let without = [&b"MSET"[..]];
                    let with = [&b"GET"[..], b"MSET"];
                    prop_assert_eq!(&names[..], if t.alone { &without[..] } else { &with[..] });
                    prop_assert_eq!(t.queued as usize, if t.alone { 0 } else { 2 });
                } else {
                    prop_assert_eq!(names[0], b"SET");
                    prop_assert_eq!(names.contains(&&b"GET"[..]), cluster);
                    let selects = 2 * usize::from(!cluster && wanted.db != 0);
                    prop_assert_eq!(t.queued as usize, found.len() + selects);
                }
                let set = found.iter().filter(|c| c[0].ends_with(b"SET")).flat_map(|c| c[1..].chunks(2));
                let set: Vec<(&[u8], &[u8])> = set.map(|pair| (&pair[0][..], &pair[1][..])).collect();
                let key = envelope.names.control(t.slot());
                prop_assert_eq!(set[0].0, &key[..]);
                prop_assert_eq!(ControlKey::parse(set[0].1), Some(control_of(&envelope, *n as u64)));
                let lengths: Vec<usize> = set[1..].iter().map(|(_, value)| value.len()).collect();
                let whole: Vec<usize> = wanted.items.iter().flat_map(|(lengths, _)| lengths.clone()).collect();
                prop_assert_eq!(lengths, whole);
                // What comes back of it is known for an echo.
                let marked = found.iter().find_map(|c| ControlKey::set_by(&c[0], c.get(2).map(|v| &v[..]), cluster));
                prop_assert_eq!(marked, Some(Some(control_of(&envelope, *n as u64))));
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
        let t = Transaction::encode(&envelope, &control(1), items, false, Instant::now(), &mut Paper::default());
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

    /// What becomes of some transactions with these answers.
    fn outcomes(transactions: Vec<Transaction>, replies: &str) -> Vec<Outcome> {
        let mut window = VecDeque::from(transactions);
        let mut reader = Replies::default();
        reader.buffer().put_slice(replies.as_bytes());
        let mut findings = Vec::new();
        while reader.next(&mut window, &mut findings, |_| false).expect("replies").is_some() {}
        assert_eq!(findings, []);
        window.into_iter().map(|t| t.outcome).collect()
    }

    #[test]
    fn one_command_has_one_answer() {
        let made = |alone| {
            let items = vec![item(&[1], 0, Some(slot(b"a")))];
            Transaction::encode(&envelope(true), &control(1), items, alone, Instant::now(), &mut Paper::default())
        };
        let in_multi = "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$-1\r\n+OK\r\n";
        let all = || vec![made(true), made(false), made(true), made(true)];
        let refused = |text: &str| Outcome::Refused(text.to_owned());
        let told = outcomes(all(), &format!("+OK\r\n{in_multi}-TRYAGAIN later\r\n+OK\r\n"));
        assert_eq!(told, [Outcome::Applied, Outcome::Applied, refused("TRYAGAIN later"), Outcome::Applied]);
        let asked = "+OK\r\n-ASK 1 127.0.0.1:1\r\n+QUEUED\r\n-EXECABORT discarded\r\n";
        let told = outcomes(all(), &format!("+OK\r\n{asked}+OK\r\n"));
        assert_eq!(told, [Outcome::Applied, refused("ASK 1 127.0.0.1:1"), Outcome::Applied, Outcome::Pending]);
        let mut window = VecDeque::from(all());
        let mut reader = Replies::default();
        reader.buffer().put_slice(b":1\r\n");
        assert!(reader.next(&mut window, &mut Vec::new(), |_| false).is_err(), "a number is no answer to MSET");
    }

    #[test]
    fn only_plain_sets_are_joined_with_their_control_key() {
        let joined = |item: Item, envelope: &Envelope| {
            let t = Transaction::encode(envelope, &control(1), vec![item], true, Instant::now(), &mut Paper::default());
            assert_eq!(t.alone, commands(&t)[0][0] == b"MSET");
            t.alone
        };
        let at = Some(slot(b"a"));
        let said = |words: &[&str]| {
            let mut data = BytesMut::new();
            encode(&mut data, words);
            Item { data: data.freeze(), commands: 1, ..item(&[1], 0, at) }
        };
        let cluster = envelope(true);
        for words in [&["SET", "{a}1", "v"][..], &["set", "{a}1", ""], &["mSet", "{a}1", "v", "{a}2", "w"]] {
            assert!(joined(said(words), &cluster), "{words:?}");
        }
        for words in [
            &["SET", "{a}1", "v", "KEEPTTL"][..],
            &["SET", "{a}1", "v", "PXAT", "1"],
            &["GETSET", "{a}1", "v"],
            &["SETNX", "{a}1", "v"],
            &["MSETNX", "{a}1", "v"],
            &["GET", "{a}1", "v"],
            &["INCR", "{a}1"],
            &["DEL", "{a}1"],
        ] {
            assert!(!joined(said(words), &cluster), "{words:?}");
        }
        let set = || said(&["SET", "{a}1", "v"]);
        assert!(!joined(Item { kind: ItemKind::Merge, ..set() }, &cluster), "a key of a copy");
        let telltales = SmallVec::from_elem(Telltale { index: 0, reveals: Reveals::Zero }, 1);
        assert!(!joined(Item { telltales, ..set() }, &cluster), "a reply that tells something");
        assert!(!joined(set(), &envelope(false)), "to one server, where many changes are one transaction");
        assert!(!joined(set(), &Envelope::new(cluster.names, 0, true)), "through a proxy");
    }
}
