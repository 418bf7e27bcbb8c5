//! Commands that rebuild a value from its elements, for targets that cannot `RESTORE` it.
//!
//! No command has more than [`MAX_ELEMENTS`] elements, nor more than [`MAX_BYTES`] of them unless a single one is
//! longer. Between two commands the key is visible and incomplete: a caller who minds puts them into one transaction,
//! or builds under another name and renames.
//!
//! Memory: one command's elements; for a stream also one group's pending entries, since their times come before the
//! consumers that own them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use super::decode::{Element, StreamInfo, decode};
use super::stream::StreamId;
use super::{KeyEntry, RdbError};
use crate::wire::dialect::{Dialect, Flavor};

/// Elements in one command: what holds up a server for well under a millisecond.
pub const MAX_ELEMENTS: usize = 512;
/// Bytes of elements in one command.
pub const MAX_BYTES: usize = 256 << 10;

/// A command, name first.
pub type Command = Vec<Bytes>;

/// What a value had and the target has no word for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// So many hash fields had an expiry; they were written without.
    FieldTtl(u64),
    /// So many consumers with nothing pending (targets before 6.2).
    Consumers(u64),
    /// So many producers' ids, by which a stream recognises what it has seen (Redis 8.6).
    ProducerIds(u64),
    /// So many pending entries without a consumer (Redis 8.8); a claim needs one.
    Released(u64),
}

impl Lost {
    /// What was lost, in the plural, and how many of it.
    pub fn words(self) -> (&'static str, u64) {
        match self {
            Lost::FieldTtl(n) => ("expiries of hash fields", n),
            Lost::Consumers(n) => ("idle consumers of stream groups", n),
            Lost::ProducerIds(n) => ("producers' ids of streams", n),
            Lost::Released(n) => ("pending entries whose consumer had let them go", n),
        }
    }
}

/// Rebuilds one key. Push its elements in the decoder's order, then finish.
pub struct Rebuild {
    key: Bytes,
    target: Dialect,
    out: Batch,
    started: bool,
    /// Of a string: how long it is, where that is known, and how much of it has been written.
    length: u64,
    written: u64,
    field_ttl: bool,
    expiries: BTreeMap<u64, Vec<Bytes>>,
    lost_ttl: u64,
    stream: Option<StreamState>,
}

/// The command in the making.
#[derive(Default)]
struct Batch {
    name: &'static str,
    args: Vec<Bytes>,
    elements: usize,
    bytes: usize,
}

#[derive(Default)]
struct StreamState {
    entries: u64,
    /// Pending entries that are not in the stream any more, not yet passed.
    ghosts: BTreeSet<StreamId>,
    /// Those that were put in for a while.
    placed: Vec<StreamId>,
    info: StreamInfo,
    group: Bytes,
    consumer: Bytes,
    /// The current group's: when delivered and how often.
    pending: HashMap<StreamId, (u64, u64)>,
    claim: Vec<StreamId>,
    claim_as: (u64, u64),
    claimed_any: bool,
    idle_consumers: u64,
    produced: u64,
    released: u64,
}

fn word(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn number(n: u64) -> Bytes {
    Bytes::copy_from_slice(itoa::Buffer::new().format(n).as_bytes())
}

fn id(id: StreamId) -> Bytes {
    Bytes::from(id.to_string())
}

/// The shortest text that reads back as the same score.
fn score(score: f64) -> Bytes {
    if score.is_infinite() {
        return word(if score > 0.0 { "inf" } else { "-inf" });
    }
    let text = format!("{score:?}");
    Bytes::from(text.strip_suffix(".0").map(str::to_owned).unwrap_or(text))
}

impl Rebuild {
    pub fn new(key: Bytes, target: Dialect) -> Self {
        Rebuild {
            key,
            target,
            out: Batch::default(),
            started: false,
            length: 0,
            written: 0,
            field_ttl: target.knows_field_ttl(),
            expiries: BTreeMap::new(),
            lost_ttl: 0,
            stream: None,
        }
    }

    /// The string that follows is so long. Room for all of it is then made at once: a server that appends to a string
    /// of 100 MB moves it time and again, which takes longer each time (the sum for 600 MB: 5.5 s instead of 1.9).
    pub fn with_length(mut self, length: u64) -> Self {
        self.length = length;
        self
    }

    /// The target would expire fields, but shall not. Their expiry is then reported as lost.
    pub fn without_field_ttl(mut self) -> Self {
        self.field_ttl = false;
        self
    }

    /// Entries that are pending in a group and were deleted from the stream. A server lets nobody claim what is not
    /// in the stream, so they are put into it, claimed and deleted again. Who streams a value in parts does not know
    /// them before it is too late to put them in: then the target leaves them out.
    pub fn with_deleted_pending(mut self, ghosts: BTreeSet<StreamId>) -> Self {
        self.stream.get_or_insert_default().ghosts = ghosts;
        self
    }

    /// Adds the next element.
    pub fn push(&mut self, element: Element, out: &mut Vec<Command>) {
        match element {
            Element::Text(text) => self.text(&text, out),
            Element::Item(item) => self.element("RPUSH", None, item, out),
            Element::Member(member) => self.element("SADD", None, member, out),
            Element::Scored { member, score: s } => self.element("ZADD", Some(score(s)), member, out),
            Element::Field { field, value, expire_ms } => {
                match expire_ms {
                    Some(ms) if self.field_ttl => self.expiries.entry(ms).or_default().push(field.clone()),
                    Some(_) => self.lost_ttl += 1,
                    None => {}
                }
                self.element("HSET", Some(field), value, out);
            }
            Element::Entry { id: at, fields } => self.entry(at, fields, out),
            Element::Stream(info) => self.info(info, out),
            Element::Group { name, last, entries_read } => self.group(name, last, entries_read, out),
            Element::Pending { id, time_ms, count } => {
                self.state().pending.insert(id, (time_ms, count));
            }
            Element::Consumer { name, .. } => self.consumer(name, out),
            Element::Owned(at) => self.owned(at, out),
            Element::Idempotency { duration, max_size } => {
                self.end_group(out);
                if self.target.flavor == Flavor::Redis && self.target.version >= (8, 6, 0) {
                    let words = [word("IDMP-DURATION"), number(duration), word("IDMP-MAXSIZE"), number(max_size)];
                    self.emit("XCFGSET", words, out);
                }
            }
            Element::Released(_) => self.state().released += 1,
            Element::Produced { .. } => self.state().produced += 1,
        }
    }

    /// The last commands: what is left, and the key's expiry. Says what could not be rebuilt.
    pub fn finish(mut self, expire_ms: Option<u64>, out: &mut Vec<Command>) -> Vec<Lost> {
        self.flush(out);
        let mut lost = Vec::new();
        if self.lost_ttl > 0 {
            lost.push(Lost::FieldTtl(self.lost_ttl));
        }
        if self.stream.is_some() {
            self.end_stream(out);
            let state = self.state();
            if state.idle_consumers > 0 {
                lost.push(Lost::Consumers(state.idle_consumers));
            }
            if state.produced > 0 {
                lost.push(Lost::ProducerIds(state.produced));
            }
            if state.released > 0 {
                lost.push(Lost::Released(state.released));
            }
        }
        if let Some(ms) = expire_ms {
            self.emit("PEXPIREAT", [number(ms)], out);
        }
        lost
    }

    fn emit(&self, name: &'static str, args: impl IntoIterator<Item = Bytes>, out: &mut Vec<Command>) {
        let mut command = vec![word(name), self.key.clone()];
        command.extend(args);
        out.push(command);
    }

    fn text(&mut self, text: &Bytes, out: &mut Vec<Command>) {
        // Room for all of it first, or each piece might have the server copy what is there already. That takes one call
        // as long as the kernel needs to find the memory, so it is spared where a string grows without being copied.
        let in_place = self.length > MAX_BYTES as u64 && !self.target.appends_in_place;
        if in_place && !self.started {
            self.begin_with(self.length, out);
        }
        let first = !std::mem::replace(&mut self.started, true);
        let mut from = 0;
        loop {
            let to = text.len().min(from + MAX_BYTES);
            let piece = text.slice(from..to);
            match (in_place, first && from == 0) {
                (true, _) => self.emit("SETRANGE", [number(self.written), piece], out),
                (false, true) => self.emit("SET", [piece], out),
                (false, false) => self.emit("APPEND", [piece], out),
            }
            self.written += (to - from) as u64;
            from = to;
            if from == text.len() {
                return;
            }
        }
    }

    /// So much of a string has its room before anything of it is written; the rest grows from there, where the target has
    /// space behind it.
    pub fn begin_with(&mut self, room: u64, out: &mut Vec<Command>) {
        self.started = true;
        self.emit("SETRANGE", [number(room.min(self.length).saturating_sub(1)), Bytes::from_static(b"\0")], out);
    }

    fn element(&mut self, name: &'static str, first: Option<Bytes>, second: Bytes, out: &mut Vec<Command>) {
        let bytes = first.as_ref().map_or(0, Bytes::len) + second.len();
        let batch = &mut self.out;
        if batch.elements == MAX_ELEMENTS || (batch.elements > 0 && batch.bytes + bytes > MAX_BYTES) {
            // Before the new element, whose expiry has been noted already: see `flush`.
            self.flush_but(first.as_ref(), out);
        }
        let batch = &mut self.out;
        batch.name = name;
        batch.args.extend(first);
        batch.args.push(second);
        batch.elements += 1;
        batch.bytes += bytes;
    }

    fn flush(&mut self, out: &mut Vec<Command>) {
        self.flush_but(None, out);
    }

    /// Sends the batch and the expiries of its fields, but not of `next`, which comes after it.
    fn flush_but(&mut self, next: Option<&Bytes>, out: &mut Vec<Command>) {
        let batch = std::mem::take(&mut self.out);
        if batch.elements == 0 {
            return;
        }
        self.emit(batch.name, batch.args, out);
        let expiries = std::mem::take(&mut self.expiries);
        for (ms, mut fields) in expiries {
            if next.is_some() && fields.last() == next {
                self.expiries.entry(ms).or_default().extend(fields.pop());
            }
            if !fields.is_empty() {
                let head = [number(ms), word("FIELDS"), number(fields.len() as u64)];
                self.emit("HPEXPIREAT", head.into_iter().chain(fields), out);
            }
        }
    }

    fn state(&mut self) -> &mut StreamState {
        self.stream.get_or_insert_default()
    }

    /// Puts in the deleted entries before `limit`.
    fn ghosts(&mut self, limit: Option<StreamId>, out: &mut Vec<Command>) {
        while let Some(&ghost) = self.state().ghosts.first() {
            if limit.is_some_and(|limit| ghost >= limit) {
                return;
            }
            let state = self.state();
            state.ghosts.pop_first();
            if limit.is_some() || ghost <= state.info.last {
                state.placed.push(ghost);
                self.emit("XADD", [id(ghost), word("-"), word("-")], out);
            }
        }
    }

    fn entry(&mut self, at: StreamId, fields: Vec<Bytes>, out: &mut Vec<Command>) {
        self.ghosts(Some(at), out);
        self.state().entries += 1;
        self.emit("XADD", std::iter::once(id(at)).chain(fields), out);
    }

    fn info(&mut self, info: StreamInfo, out: &mut Vec<Command>) {
        self.state().info = info;
        self.ghosts(None, out);
        let state = self.state();
        if state.entries == 0 && state.placed.is_empty() {
            // An empty stream: add an entry that is trimmed at once.
            let first = id(StreamId::new(0, 1));
            self.emit("XADD", [word("MAXLEN"), word("0"), first, word("-"), word("-")], out);
        }
    }

    fn group(&mut self, name: Bytes, last: StreamId, read: Option<u64>, out: &mut Vec<Command>) {
        self.end_group(out);
        let mut command = vec![word("XGROUP"), word("CREATE"), self.key.clone(), name.clone(), id(last)];
        if let Some(read) = read.filter(|_| self.target.speaks_redis(7, 0)) {
            command.extend([word("ENTRIESREAD"), number(read)]);
        }
        out.push(command);
        self.state().group = name;
    }

    fn consumer(&mut self, name: Bytes, out: &mut Vec<Command>) {
        self.end_consumer(out);
        if self.target.speaks_redis(6, 2) {
            let group = self.state().group.clone();
            out.push(vec![word("XGROUP"), word("CREATECONSUMER"), self.key.clone(), group, name.clone()]);
        }
        let state = self.state();
        state.consumer = name;
        state.claimed_any = false;
    }

    fn owned(&mut self, at: StreamId, out: &mut Vec<Command>) {
        let state = self.state();
        let claim_as = state.pending.get(&at).copied().unwrap_or_default();
        if state.claim.len() == MAX_ELEMENTS || (!state.claim.is_empty() && state.claim_as != claim_as) {
            self.claim(out);
        }
        let state = self.state();
        state.claim_as = claim_as;
        state.claim.push(at);
        state.claimed_any = true;
    }

    /// Sends the claims collected: one delivery time and count for all of them.
    fn claim(&mut self, out: &mut Vec<Command>) {
        let key = self.key.clone();
        let state = self.state();
        if state.claim.is_empty() {
            return;
        }
        let (time, count) = state.claim_as;
        let mut command = vec![word("XCLAIM"), key, state.group.clone(), state.consumer.clone(), word("0")];
        command.extend(state.claim.drain(..).map(id));
        command.extend([word("TIME"), number(time), word("RETRYCOUNT"), number(count)]);
        command.extend([word("FORCE"), word("JUSTID")]);
        out.push(command);
    }

    fn end_consumer(&mut self, out: &mut Vec<Command>) {
        self.claim(out);
        let knows = self.target.speaks_redis(6, 2);
        let state = self.state();
        if !std::mem::take(&mut state.consumer).is_empty() && !state.claimed_any && !knows {
            state.idle_consumers += 1;
        }
    }

    fn end_group(&mut self, out: &mut Vec<Command>) {
        self.end_consumer(out);
        self.state().pending.clear();
    }

    fn end_stream(&mut self, out: &mut Vec<Command>) {
        self.end_group(out);
        let placed = std::mem::take(&mut self.state().placed);
        for run in placed.chunks(MAX_ELEMENTS) {
            self.emit("XDEL", run.iter().copied().map(id), out);
        }
        let info = self.state().info;
        let mut words = vec![id(info.last)];
        if let Some((deleted, added)) = info.history.filter(|_| self.target.speaks_redis(7, 0)) {
            words.extend([word("ENTRIESADDED"), number(added), word("MAXDELETEDID"), id(deleted)]);
        }
        self.emit("XSETID", words, out);
    }
}

/// The commands that replace a key by a whole value, beginning with an `UNLINK`.
pub fn rebuild(entry: &KeyEntry, target: Dialect, out: &mut Vec<Command>) -> Result<Vec<Lost>, RdbError> {
    let mut elements = Vec::new();
    decode(entry.kind, &entry.value, |element| elements.push(element))?;
    let mut pending = BTreeSet::new();
    let mut alive = std::collections::HashSet::new();
    for element in &elements {
        match element {
            Element::Entry { id, .. } => drop(alive.insert(*id)),
            Element::Pending { id, .. } => drop(pending.insert(*id)),
            _ => {}
        }
    }
    pending.retain(|id| !alive.contains(id));
    let mut rebuild = Rebuild::new(entry.key.clone(), target);
    if let [Element::Text(text)] = &elements[..] {
        rebuild = rebuild.with_length(text.len() as u64);
    }
    if !pending.is_empty() {
        rebuild = rebuild.with_deleted_pending(pending);
    }
    // Of a big value, DEL would hold the server up.
    rebuild.emit(if target.speaks_redis(4, 0) { "UNLINK" } else { "DEL" }, [], out);
    for element in elements {
        rebuild.push(element, out);
    }
    Ok(rebuild.finish(entry.expire_ms, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long_string(target: Dialect) -> (Vec<String>, usize) {
        let text = Bytes::from(vec![b'x'; 3 * MAX_BYTES + 1]);
        let mut out = Vec::new();
        let mut rebuild = Rebuild::new(Bytes::from_static(b"k"), target).with_length(text.len() as u64);
        // Pieces of any size, as a snapshot is read.
        for piece in [&text[..MAX_BYTES + 5], &text[MAX_BYTES + 5..]] {
            rebuild.push(Element::Text(text.slice_ref(piece)), &mut out);
        }
        assert_eq!(rebuild.finish(None, &mut out), []);
        let names = out.iter().map(|c| String::from_utf8_lossy(&c[0]).into_owned()).collect();
        (names, out.iter().map(|c| c.last().map_or(0, Bytes::len)).sum())
    }

    #[test]
    fn a_long_string_is_given_its_room_first_but_where_it_grows_without_being_copied() {
        let (names, bytes) = long_string(Dialect::redis(7, 0));
        assert!(names.iter().all(|n| n == "SETRANGE") && names.len() == 5, "{names:?}");
        assert_eq!(bytes, 3 * MAX_BYTES + 1 + 1, "the last byte first, then all of it");
        let (mut out, text) = (Vec::new(), Bytes::from(vec![b'x'; 2 * MAX_BYTES]));
        let mut rebuild = Rebuild::new(Bytes::from_static(b"k"), Dialect::redis(7, 0)).with_length(text.len() as u64);
        rebuild.begin_with(1_000, &mut out);
        rebuild.push(Element::Text(text.clone()), &mut out);
        let places: Vec<&[u8]> = out.iter().map(|c| &c[2][..]).collect();
        assert_eq!(places, [&b"999"[..], b"0", MAX_BYTES.to_string().as_bytes()], "a part of its room, then all of it");
        let (names, bytes) = long_string(Dialect { appends_in_place: true, ..Dialect::redis(7, 0) });
        assert_eq!(names, ["SET", "APPEND", "APPEND", "APPEND"]);
        assert_eq!(bytes, 3 * MAX_BYTES + 1);
    }
}
