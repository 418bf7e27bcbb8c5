//! What the two links of a job share: the arbiter and the outboxes, under one lock.
//!
//! Both links decide under this lock, once a batch, and push to the outboxes before they let go: the order of decisions
//! is the order on the wire. Nothing here waits.

pub mod carry;
mod copies;
pub mod expiries;
pub mod given_up;
mod settling;
pub mod turns;

use super::apply::control_key::{LoadPhase, Position};
use super::apply::outbox::{Item, ItemKind, Outbox};
use super::apply::replies::State;
use super::arbiter::{Arbiter, Effect, Token};
use super::conflicts::ConflictLog;
use super::events::EventSink;
use super::strand::{Names, StrandId};
use crate::model::{EventKind, JobId, Offset, Side};
use crate::wire::dialect::Dialect;
use crate::wire::resp::{encode, encode_header, encode_part};
use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// A job's core and the bells that tell its tasks to look.
pub struct Shared {
    core: Mutex<Core>,
    /// Something was put into a site's outbox.
    pub ready: [Notify; 2],
    /// A site's outbox has room again.
    pub room: [Notify; 2],
    /// The state for a token has come, or is not wanted any more.
    pub state_came: Notify,
    /// Episodes wait for tokens.
    pub settle: Notify,
    started: Instant,
}

impl Shared {
    pub fn new(core: Core) -> Self {
        Shared {
            core: Mutex::new(core),
            ready: Default::default(),
            room: Default::default(),
            state_came: Notify::new(),
            settle: Notify::new(),
            started: Instant::now(),
        }
    }

    /// Milliseconds of the job's clock; never 0.
    pub fn now_ms(&self) -> u64 {
        self.ms_at(Instant::now())
    }

    /// The same, of a moment that is at hand.
    pub fn ms_at(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64 + 1
    }

    /// Microseconds of the job's clock.
    pub fn us_at(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_micros() as u64 + 1_000
    }

    /// No code panics while it holds the lock by design; if it did, the state is still whole between calls.
    pub fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Ends a turn under the lock, and wakes the writers that have something to write.
    pub fn ring(&self, mut core: MutexGuard<'_, Core>) {
        let ring = std::mem::take(&mut core.ring);
        drop(core);
        for (ready, ring) in self.ready.iter().zip(ring) {
            if ring {
                ready.notify_one();
            }
        }
    }

    /// Wakes the writers of both sites.
    pub fn wake_writers(&self) {
        self.ready[0].notify_one();
        self.ready[1].notify_one();
    }
}

/// What is fixed about a site.
#[derive(Debug, Clone)]
pub struct SiteFacts {
    pub dialect: Dialect,
    /// What our keys there are called.
    pub names: Names,
    /// The database where they live.
    pub control_db: u32,
}

/// The keys that a job adds to an instance begin with this.
pub fn own_prefix(id: &JobId) -> String {
    format!("{}{}:", JobId::KEY_PREFIX, id)
}

pub struct Core {
    pub arbiter: Arbiter,
    /// By the site that is written to.
    pub out: [Outbox; 2],
    /// How far a site's stream has been decided.
    pub decided: [Position; 2],
    /// How far the other site's stream had come back as echoes in a site's stream.
    pub echoed: [Position; 2],
    /// Whether a site's snapshot is still being loaded at the other.
    pub phase: [LoadPhase; 2],
    /// Stream bytes of the other site that were decided since something was last put into this site's outbox, and
    /// whether anything but our own bare checkpoints was among them.
    pub unsaved: [(u64, bool); 2],
    /// Where the first of them began that was more.
    began: [Offset; 2],
    pub facts: [SiteFacts; 2],
    pub conflicts: ConflictLog,
    /// The number of the newest transaction to a site such that its reply and all before it have been seen.
    pub answered: [u64; 2],
    /// The number of the newest one whose echo has been read.
    pub read_back: [u64; 2],
    /// Up to where of the other site's stream the replies from a site have been seen.
    pub replied: [Position; 2],
    /// Snapshots of a site that have been read to their end, and are not yet certain to survive a crash.
    pub snapshot_end: [Option<copies::SnapshotEnd>; 2],
    /// SWAPDBs on their way to a site: what is read from it before their echo was made under the old names.
    swaps: [VecDeque<(u64, u32, u32)>; 2],
    /// DELs that found nothing: the number of their transaction, the hash of the key.
    fewer: [VecDeque<(u64, u64)>; 2],
    /// A source's transaction is being decided for this site: what is pushed now goes in one of ours.
    pub glue: Option<Side>,
    /// One-way jobs: keys whose state is being carried, and the bell of the task that asks for states.
    pub carry: carry::Carry,
    pub carry_bell: Arc<Notify>,
    carry_token: u64,
    /// By the site: whether what a first copy wrote there expires when it should.
    pub expiries: [expiries::Expiries; 2],
    /// Keys that a site does not take.
    pub given_up: given_up::GivenUp,
    /// What a site has no word for, counted.
    lost: HashMap<(Side, &'static str), u64>,
    /// Commands that a site has said it does not know, in small letters.
    unknown: [HashSet<Box<[u8]>>; 2],
    /// Some episode waits for the time of its next round: whoever settled has to ring the bell of who sleeps till then.
    pub rounds_wait: bool,
    /// Which of the two links has to let the other read first.
    pub turns: turns::Turns,
    /// By the site that is written to: slots of which something waits there until they have moved or stay.
    pub parked: [BTreeSet<u16>; 2],
    /// By site: fields of its notes beside the open episodes, as they were written where the run began.
    pub kept_notes: [Vec<(String, String)>; 2],
    /// By site: how many times all notes are to be written again, and have not been.
    notes_owed: [u32; 2],
    /// Keys that were told to be overruled, and which: each is told once.
    overruled: u64,
    overruled_keys: HashSet<u64>,
    states: HashMap<Token, State>,
    events: EventSink,
    now_ms: u64,
    /// The writers that have something new to look at.
    ring: [bool; 2],
}

impl Core {
    pub fn new(arbiter: Arbiter, facts: [SiteFacts; 2], conflicts: ConflictLog, events: EventSink) -> Self {
        Core {
            arbiter,
            out: Default::default(),
            decided: [Position::default(); 2],
            echoed: [Position::default(); 2],
            phase: [LoadPhase::Streaming; 2],
            unsaved: [(0, false); 2],
            began: [Offset(0); 2],
            facts,
            conflicts,
            answered: [0; 2],
            read_back: [0; 2],
            replied: [Position::default(); 2],
            snapshot_end: [None; 2],
            swaps: Default::default(),
            fewer: Default::default(),
            glue: None,
            carry: carry::Carry::default(),
            carry_bell: Arc::default(),
            carry_token: 0,
            expiries: Default::default(),
            given_up: given_up::GivenUp::default(),
            lost: HashMap::new(),
            unknown: Default::default(),
            rounds_wait: false,
            turns: turns::Turns::default(),
            parked: Default::default(),
            kept_notes: Default::default(),
            notes_owed: [0; 2],
            overruled: 0,
            overruled_keys: HashSet::new(),
            states: HashMap::new(),
            events,
            now_ms: 1,
            ring: [false; 2],
        }
    }

    /// Nothing waits to be written to a site.
    pub fn out_is_empty(&self, site: Side) -> bool {
        self.out[site.index()].is_empty()
    }

    /// Stream bytes of the other site were decided that left nothing to write at this one. `real`: there was more in
    /// them than our own checkpoints.
    pub fn decided_bytes(&mut self, site: Side, bytes: u64, real: bool) {
        let unsaved = &mut self.unsaved[site.index()];
        if real && !unsaved.1 {
            let end = self.decided[site.other().index()].offset;
            self.began[site.index()] = Offset(end.0.saturating_sub(bytes));
        }
        unsaved.0 += bytes;
        unsaved.1 |= real;
        self.ring[site.index()] |= checkpoint_due(*unsaved);
    }

    /// To be told at the begin of each turn under the lock.
    pub fn set_now(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Puts commands into a site's outbox, with the positions as they are now.
    pub fn push(&mut self, site: Side, item: NewItem) {
        let (i, from) = (site.index(), site.other().index());
        let begin = if self.unsaved[i].1 { self.began[i] } else { self.decided[from].offset };
        self.unsaved[i] = (0, false);
        self.ring[i] = true;
        self.out[i].push(Item {
            data: item.data,
            commands: item.commands,
            db: item.db,
            slot: item.slot,
            kind: item.kind,
            serial: item.serial,
            phase: self.phase[from],
            begin,
            position: self.decided[from],
            echoed: self.come_back(site.other()),
            replied: self.replied[i],
            decided_ms: self.now_ms,
            changes: item.changes,
            telltales: item.telltales,
            glued: self.glue == Some(site),
        });
    }

    /// How far the other site's stream has come back in that of `here`, as of what has been decided: up to the newest echo; or all
    /// that was decided of it, where nothing is on its way to `here`. Otherwise it would stay where it was as long as nothing is
    /// written there, while the stream moves on, and be asked for long after the server has forgotten it.
    pub fn come_back(&self, here: Side) -> Position {
        let (known, peer) = (self.echoed[here.index()], here.other());
        let decided = self.decided[peer.index()];
        let streaming = self.phase.iter().all(|phase| *phase == LoadPhase::Streaming);
        let all = streaming
            && !self.arbiter.is_one_way()
            && self.arbiter.in_flight(here).0 == 0
            && !self.arbiter.runs_after_flush(peer);
        if all && decided.offset > known.offset { decided } else { known }
    }

    /// A SWAPDB is sent to a site.
    pub fn swap_sent(&mut self, site: Side, serial: u64, a: u32, b: u32) {
        self.swaps[site.index()].push_back((serial, a, b));
    }

    /// The echo of what was sent to a site up to this serial has been read.
    pub fn swaps_done(&mut self, site: Side, serial: u64) {
        while self.swaps[site.index()].front().is_some_and(|(s, ..)| *s <= serial) {
            self.swaps[site.index()].pop_front();
        }
    }

    /// What the other site calls a database in which a change was made at this one: it may have swapped before.
    pub fn db_at_peer(&self, site: Side, db: u32) -> u32 {
        self.swaps[site.index()].iter().fold(db, |db, &(_, a, b)| match db {
            d if d == a => b,
            d if d == b => a,
            d => d,
        })
    }

    /// A DEL of this key, in this transaction to a site, found nothing.
    pub fn deleted_nothing(&mut self, site: Side, number: u64, hash: u64) {
        self.fewer[site.index()].push_back((number, hash));
    }

    /// How many DELs of this key in the transactions up to this number found nothing.
    pub fn deletions_in_vain(&self, site: Side, number: u64, hash: u64) -> usize {
        let fewer = self.fewer[site.index()].iter();
        fewer.take_while(|(n, _)| *n <= number).filter(|(_, h)| *h == hash).count()
    }

    /// The echo of the transaction with this number has been dealt with.
    pub fn forget_deletions(&mut self, site: Side, number: u64) {
        while self.fewer[site.index()].front().is_some_and(|(n, _)| *n <= number) {
            self.fewer[site.index()].pop_front();
        }
    }

    /// The state that a token asked for has come.
    pub fn state_came(&mut self, token: Token, state: State) {
        self.arbiter.state_weighs(state.dump.as_ref().map_or(0, |dump| dump.len()));
        if self.arbiter.wants(token) {
            self.states.insert(token, state);
        }
    }

    /// Whether the state for a token is at hand.
    pub fn has_state(&self, token: Token) -> bool {
        self.states.contains_key(&token)
    }

    /// Sends tokens for the episodes that are due; gives when to come again.
    pub fn settle(&mut self) -> Option<u64> {
        let next = self.arbiter.settle(self.now_ms);
        self.carry_out();
        self.rounds_wait = next.is_some();
        next
    }

    /// Carries out what the arbiter asks for. To be called after each of its calls, before anything else is pushed.
    pub fn carry_out(&mut self) {
        if !self.arbiter.has_effects() {
            return;
        }
        let effects: Vec<Effect> = self.arbiter.take_effects().collect();
        for effect in effects {
            match effect {
                Effect::Ask { site, token, db, key, serial } => self.ask(site, token, db, &key, serial),
                Effect::Restore { site, token, db, key, serial } => self.restore(site, token, db, &key, serial),
                Effect::Persist { site, db, key, number, authority } => {
                    self.persist(site, db, &key, number, authority);
                }
                Effect::Forget { site, db, key } => self.note(site, &[b"HDEL", &field(db, &key)]),
                Effect::Opened { number } => {
                    let open = self.arbiter.episodes();
                    let by = open.get(number).and_then(|e| e.opened_by);
                    self.conflicts.opened(number, self.now_ms, by.is_some_and(|(_, met)| met.made_by.is_command()));
                    self.conflicts.forget_replaced(open.len(), |n| open.get(n).is_some());
                }
                Effect::Settled(e) => {
                    let record = self.conflicts.settled(&e);
                    let text = format!(
                        "conflict on {:?} (db{}) settled: {}, the {} side's order stands, {} round{}",
                        record.key,
                        record.db,
                        record.cause.replace('_', " "),
                        record.authority,
                        record.rounds,
                        if record.rounds == 1 { "" } else { "s" }
                    );
                    self.events.conflict(EventKind::ConflictSettled, text, record);
                }
            }
        }
    }

    fn ask(&mut self, site: Side, token: Token, db: u32, key: &[u8], serial: u64) {
        let mut data = BytesMut::new();
        encode(&mut data, &[b"DUMP", key]);
        let commands = if self.facts[site.index()].dialect.speaks_redis(7, 0) {
            encode(&mut data, &[&b"PEXPIRETIME"[..], key]);
            2
        } else {
            encode(&mut data, &[&b"PTTL"[..], key]);
            encode(&mut data, &[b"TIME"]);
            3
        };
        self.push(
            site,
            NewItem {
                db: Some(db),
                slot: self.facts[site.index()].names.slot(key),
                ..NewItem::new(data.freeze(), commands, ItemKind::Ask(token), serial)
            },
        );
    }

    fn restore(&mut self, site: Side, token: Token, db: u32, key: &[u8], serial: u64) {
        // The caller of `echo` made sure that it is at hand; a token without a state asks again.
        let Some(state) = self.states.remove(&token) else {
            self.arbiter.token_lost(token, self.now_ms);
            return;
        };
        if let Some(e) = self.arbiter.episodes().by_token(token) {
            self.conflicts.carried(e.number, &e.key, state.dump.as_ref());
            self.tell_if_big(e, &state);
        }
        self.transfer(site, token, db, key, &state, serial);
    }

    /// A site's control keys were swept away, or (`moved_to`) carried to another database: they are written again at
    /// once, open episodes included.
    pub fn rewrite_notes(&mut self, site: Side, moved_to: Option<u32>) {
        if let Some(db) = moved_to {
            let facts = &self.facts[site.index()];
            let mut data = BytesMut::new();
            encode(&mut data, &[&b"DEL"[..], &facts.names.control(None), &facts.names.notes()]);
            let serial = self.arbiter.last_serial(site);
            self.push(site, NewItem { db: Some(db), ..NewItem::new(data.freeze(), 1, ItemKind::Notes, serial) });
        }
        let open: Vec<_> =
            self.arbiter.episodes().iter().map(|e| (e.db, e.key.clone(), e.number, e.authority)).collect();
        // In one transaction: half of the notes would be worse than the old ones.
        let glue = self.glue.replace(site);
        let facts = &self.facts[site.index()];
        let (key, slot) = (facts.names.notes(), facts.names.home());
        let mut data = BytesMut::new();
        encode(&mut data, &[&b"DEL"[..], &key]);
        let (db, serial) = (Some(self.facts[site.index()].control_db), self.arbiter.last_serial(site));
        self.push(site, NewItem { db, slot, ..NewItem::new(data.freeze(), 1, ItemKind::AllNotes, serial) });
        self.notes_owed[site.index()] += 1;
        for (field, value) in self.kept_notes[site.index()].clone() {
            self.note(site, &[b"HSET", field.as_bytes(), value.as_bytes()]);
        }
        for (db, key, number, authority) in open {
            self.persist(site, db, &key, number, authority);
        }
        self.glue = glue;
        if self.glue != Some(site) {
            let position = self.decided[site.other().index()];
            self.out[site.index()].seal(position);
        }
        if site == Side::Target {
            let carried: Vec<_> = self.carry.keys().cloned().collect();
            for (db, key) in carried {
                self.persist(site, db, &key, 0, Side::Source);
            }
        }
        self.unsaved[site.index()] = (u64::MAX / 2, true);
        self.ring[site.index()] = true;
    }

    fn persist(&mut self, site: Side, db: u32, key: &[u8], number: u64, authority: Side) {
        let (field, value) = note(db, key, number, authority);
        self.note(site, &[b"HSET", &field, value.as_bytes()]);
    }

    /// The keys of the slots that came from another shard of `side` have all been settled.
    pub fn moved_is_settled(&mut self, side: Side) {
        self.arbiter.moved_is_settled(side);
        let Some(id) = self.facts[Side::Target.index()].names.id() else { return };
        let field = moved_field(side, id);
        self.kept_notes[Side::Target.index()].retain(|(kept, _)| *kept != field);
        self.note(Side::Target, &[b"HDEL", field.as_bytes()]);
    }

    /// Writes one of our own notes at a site: `words` are the command, the key is put behind its name.
    fn note(&mut self, site: Side, words: &[&[u8]]) {
        let facts = &self.facts[site.index()];
        let mut data = BytesMut::new();
        encode_header(&mut data, words.len() + 1);
        encode_part(&mut data, words[0]);
        encode_part(&mut data, &facts.names.notes());
        for word in &words[1..] {
            encode_part(&mut data, word);
        }
        let (db, slot) = (Some(facts.control_db), facts.names.home());
        let serial = self.arbiter.last_serial(site);
        self.push(site, NewItem { db, slot, ..NewItem::new(data.freeze(), 1, ItemKind::Notes, serial) });
    }
}

/// A bare checkpoint is written when so many bytes of the source have been decided without one.
const CHECKPOINT_BYTES: u64 = 64 << 10;
/// The same when all of them were our own bare checkpoints, coming back.
const CHECKPOINT_BYTES_IDLE: u64 = 1 << 20;

/// So much was decided (and something real in it) that it has to be written down, however short ago that was done.
pub fn checkpoint_due((bytes, real): (u64, bool)) -> bool {
    bytes >= if real { CHECKPOINT_BYTES } else { CHECKPOINT_BYTES_IDLE }
}

/// What is put into an outbox.
pub struct NewItem {
    pub data: Bytes,
    pub commands: u32,
    pub db: Option<u32>,
    /// The slot of its keys, where the site is a cluster.
    pub slot: Option<u16>,
    pub kind: ItemKind,
    pub serial: u64,
    pub changes: u32,
    pub telltales: SmallVec<[super::apply::outbox::Telltale; 2]>,
}

impl NewItem {
    pub fn new(data: Bytes, commands: u32, kind: ItemKind, serial: u64) -> Self {
        NewItem { data, commands, db: None, slot: None, kind, serial, changes: 0, telltales: SmallVec::new() }
    }
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// The field under which an open episode is noted: the database, a colon, the key.
fn field(db: u32, key: &[u8]) -> Vec<u8> {
    let mut out = format!("{db}:").into_bytes();
    out.extend_from_slice(key);
    out
}

/// How an open episode is noted: field and value.
pub fn note(db: u32, key: &[u8], number: u64, authority: Side) -> (Vec<u8>, String) {
    let letter = match authority {
        Side::Source => "s",
        Side::Target => "t",
    };
    (field(db, key), format!("{number} {letter}"))
}

/// The field of a strand's notes at the target that names the slots which came from another shard of this side.
pub fn moved_field(side: Side, id: StrandId) -> String {
    match side {
        Side::Source => format!("moved-source@{id}"),
        Side::Target => format!("moved-target@{id}"),
    }
}

/// The field of a strand's notes that says which slots have had more than the strand.
pub fn ahead_field(id: StrandId) -> String {
    format!("ahead@{id}")
}

/// The field that keeps a strand's newest control key while those of its slots become others'.
pub fn newest_field(id: StrandId) -> String {
    format!("newest@{id}")
}

/// The reverse of [`field`] with its value: (db, key, number, authority).
pub fn parse_note(field: &[u8], value: &[u8]) -> Option<(u32, Vec<u8>, u64, Side)> {
    let colon = field.iter().position(|b| *b == b':')?;
    let db = atoi::atoi(&field[..colon])?;
    let (number, letter) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    let authority = match letter {
        "s" => Side::Source,
        "t" => Side::Target,
        _ => return None,
    };
    Some((db, field[colon + 1..].to_vec(), number.parse().ok()?, authority))
}
