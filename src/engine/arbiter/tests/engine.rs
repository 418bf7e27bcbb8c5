//! The engine around the arbiter, in small: outboxes, transactions, replies, recovery. It keeps every rule that the
//! real one has to keep, so that a schedule that converges here says something about it.
//!
//! Rules that the arbiter's convergence rests on, beside those in its own module head:
//! - An echo is taken only when the replies of all transactions up to it have been seen.
//! - Each transaction has a serial of its own; one that holds bookkeeping alone takes a `pass`.
//! - `replied` in a control key never runs ahead of the persisted episodes that the replies caused.
//! - A transaction ends at a token; it never ends inside an entry of its source's log.

use super::site::{Book, Cmd, Control, Entry, Key, Reply, Site, State};
use super::words::{Word, split, words};
use crate::engine::arbiter::class::Class;
use crate::engine::arbiter::episode::Cause;
use crate::engine::arbiter::leftovers::Leftovers;
use crate::engine::arbiter::{Arbiter, Effect, Token, Touch, Verdict};
use crate::model::Side;
use std::collections::{BTreeMap, HashMap, VecDeque};

#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// No arbitration: everything is forwarded.
    pub naive: bool,
    /// A transaction that meets a conflict is handled command by command, instead of being withheld whole.
    pub split: bool,
    /// A hidden deletion is handled as a change of the site, as an alternative to a difference.
    pub hidden_as_change: bool,
    /// Who is the authority after an error; `None`: the source of what failed.
    pub error_authority: Option<Side>,
    /// One change in so many has no known time; 0: all are known.
    pub unknown_time_every: u32,
}

#[derive(Debug, Clone)]
enum Item {
    Change { cmd: Cmd, serial: u64 },
    Ask { token: Token, key: Key, serial: u64 },
    Book(Book),
}

/// Something in an outbox, with the position that holds once it is applied.
#[derive(Debug, Clone)]
struct Outgoing {
    item: Item,
    offset: usize,
    echoed: usize,
    replied: usize,
}

#[derive(Debug, Clone)]
struct Txn {
    cmds: Vec<Cmd>,
    book: Vec<Book>,
    ask: Option<(Token, Key)>,
    control: Control,
}

#[derive(Debug)]
enum Outcome {
    Applied(Vec<Reply>, Option<State>),
    Rejected,
}

/// What goes to one site.
#[derive(Debug, Default)]
struct Lane {
    outbox: VecDeque<Outgoing>,
    /// Sent, not executed yet.
    wire: VecDeque<Txn>,
    /// Executed, the reply not seen yet.
    answered: VecDeque<(Txn, Outcome)>,
    /// Rejected, and what became of those behind them is not known yet.
    rejected: VecDeque<Txn>,
    /// All transactions up to this serial have an outcome that is known.
    resolved: u64,
    last_serial: u64,
    /// How far of the source's log the replies have been seen.
    replied: usize,
    /// The part of it whose episodes are certainly written down.
    safe: usize,
    /// Own deletions that took effect, of transactions whose echo was not read yet.
    deleted: VecDeque<(u64, BTreeMap<Key, usize>)>,
    sent_offset: usize,
}

impl Lane {
    fn outstanding(&self) -> bool {
        !(self.wire.is_empty() && self.answered.is_empty() && self.rejected.is_empty())
    }
}

pub struct Engine {
    pub arbiter: Arbiter,
    options: Options,
    epoch: u64,
    /// How far each site's log has been read.
    pub pos: [usize; 2],
    /// How far of the other site's log had come back in each site's.
    echoed: [usize; 2],
    lanes: [Lane; 2],
    dumps: HashMap<Token, Option<State>>,
    /// Keys of a site's snapshot that were not read yet, and whether the other site's keys stand.
    snapshots: [VecDeque<(Key, State)>; 2],
    merge: [bool; 2],
    /// The newest serial of a snapshot to each site.
    snapshot_serial: [u64; 2],
    /// The newest echo of this engine that was read from each site, while a snapshot loads: serial and position.
    read_back: [(u64, usize); 2],
    changes: u32,
    /// Up to here of the target's log, what its changes left there may have been lost to an unfinished copy.
    doubtful_until: usize,
}

fn touch<'a>(arbiter: &Arbiter, word: &Word, bytes: &'a [u8; 4]) -> Touch<'a> {
    let (key, class, part) = *word;
    Touch { db: key.db, key: bytes, hash: arbiter.hash(key.db, bytes), class, part }
}

fn key_of(db: u32, bytes: &[u8]) -> Key {
    Key { db, id: u32::from_be_bytes(bytes.try_into().expect("a key of the simulation")) }
}

/// Runs `f` with the touches of these words.
fn with_touches<R>(arbiter: &mut Arbiter, words: &[Word], f: impl FnOnce(&mut Arbiter, &[Touch<'_>]) -> R) -> R {
    let bytes: Vec<[u8; 4]> = words.iter().map(|w| w.0.id.to_be_bytes()).collect();
    let touches: Vec<Touch<'_>> = words.iter().zip(&bytes).map(|(w, b)| touch(arbiter, w, b)).collect();
    f(arbiter, &touches)
}

fn deleted_keys(cmds: &[Cmd]) -> BTreeMap<Key, usize> {
    let mut seen = BTreeMap::new();
    for cmd in cmds {
        if let Cmd::Del(keys) = cmd {
            for k in keys {
                *seen.entry(*k).or_insert(0) += 1;
            }
        }
    }
    seen
}

impl Engine {
    pub fn new(epoch: u64, options: Options) -> Self {
        Engine {
            arbiter: Arbiter::new(epoch, 42, options.naive),
            options,
            epoch,
            pos: [0; 2],
            echoed: [0; 2],
            lanes: Default::default(),
            dumps: HashMap::new(),
            snapshots: Default::default(),
            merge: [false; 2],
            snapshot_serial: [0; 2],
            read_back: [(0, 0); 2],
            changes: 0,
            doubtful_until: 0,
        }
    }

    /// Begins with a copy of all that `side` holds.
    pub fn load_snapshot(&mut self, side: Side, site: &Site, merge: bool) {
        self.snapshots[side.index()] = site.data.iter().map(|(k, s)| (*k, s.clone())).collect();
        self.merge[side.index()] = merge;
        if !merge {
            self.arbiter.loading(Some(side));
        }
    }

    /// The copy of the source was not finished when the engine died: it begins anew, over what the first has left. The
    /// reverse stream goes on from where it was.
    pub fn copy_again(sites: &mut [Site; 2], options: Options) -> Self {
        let epoch = sites.iter().map(|s| s.control.epoch).max().unwrap_or(0) + 1;
        let mut e = Engine::new(epoch, options);
        let (s, t) = (Side::Source.index(), Side::Target.index());
        let reverse = sites[s].control;
        e.pos = [sites[s].log.len(), reverse.offset];
        e.echoed = [reverse.offset, reverse.echoed];
        let forward = Control { epoch, serial: 0, offset: e.pos[s], replied: e.pos[s], echoed: reverse.offset };
        sites[t].control = forward;
        sites[s].control = Control { epoch, serial: 0, ..reverse };
        for (lane, control) in e.lanes.iter_mut().zip([reverse, forward]) {
            (lane.replied, lane.safe, lane.sent_offset) = (control.offset, control.offset, control.offset);
        }
        for site in sites.iter_mut() {
            site.persisted.clear();
        }
        let hashes = sites[t].data.keys().map(|k| e.arbiter.hash(k.db, &k.id.to_be_bytes())).collect();
        e.arbiter.expect_leftovers(Leftovers::new(hashes));
        e.doubtful_until = sites[t].log.len();
        e.load_snapshot(Side::Source, &sites[s], false);
        if e.snapshots[s].is_empty() {
            e.delete_leftovers(Side::Source, sites);
            e.snapshot_serial[t] = e.arbiter.last_serial(Side::Target);
        }
        e
    }

    /// What an unfinished copy left and the new one has not named.
    fn delete_leftovers(&mut self, here: Side, sites: &[Site; 2]) {
        let keys: Vec<Key> = sites[here.other().index()].data.keys().copied().collect();
        for key in keys {
            let word = [(key, Class::Delete, super::whole())];
            let hash = self.arbiter.hash(key.db, &key.id.to_be_bytes());
            if self.arbiter.leftovers().holds(hash) {
                let verdict = with_touches(&mut self.arbiter, &word, |a, t| a.change(here, &t[0], 0));
                self.forward(here, verdict, Cmd::Del(vec![key]));
            }
        }
        self.arbiter.expect_leftovers(Leftovers::default());
    }

    /// The three steps of recovery, from what the sites hold.
    pub fn recover(sites: &[Site; 2], options: Options) -> Self {
        let epoch = sites.iter().map(|s| s.control.epoch).max().unwrap_or(0) + 1;
        let mut e = Engine::new(epoch, options);
        for s in Side::BOTH {
            let here = &sites[s.other().index()].control;
            e.pos[s.index()] = here.offset;
            e.echoed[s.index()] = here.echoed;
            let lane = &mut e.lanes[s.index()];
            let own = &sites[s.index()].control;
            (lane.replied, lane.safe, lane.sent_offset) = (own.replied, own.replied, own.offset);
        }
        // 1: what was applied at a site and has not been read as an echo yet, in its own words.
        for source in Side::BOTH {
            let (from, to) = (e.echoed[source.other().index()], sites[source.other().index()].control.offset);
            for offset in from..to {
                match &sites[source.index()].log[offset] {
                    Entry::Local { cmds, .. } if matches!(cmds[..], [Cmd::Flush(_)]) => {
                        let [Cmd::Flush(db)] = cmds[..] else { continue };
                        e.arbiter.recover_flush(source, Some(db), offset as u64 + 1);
                    }
                    // As they were decided: each command of a transaction for itself, and each key of an MSET.
                    Entry::Local { cmds, .. } if options.split => {
                        for part in cmds.iter().flat_map(split) {
                            let all = words(&part);
                            with_touches(&mut e.arbiter, &all, |a, t| a.recover_change(source, t, offset as u64 + 1));
                        }
                    }
                    Entry::Local { cmds, .. } => {
                        let all: Vec<Word> = cmds.iter().flat_map(words).collect();
                        with_touches(&mut e.arbiter, &all, |a, t| a.recover_change(source, t, offset as u64 + 1));
                    }
                    Entry::Marked { cmds, .. } if options.hidden_as_change => {
                        for key in deleted_keys(cmds).keys() {
                            let w = [(*key, Class::Delete, super::whole())];
                            with_touches(&mut e.arbiter, &w, |a, t| a.recover_change(source, t, offset as u64 + 1));
                        }
                    }
                    Entry::Marked { .. } => {}
                }
            }
        }
        e.arbiter.recover_flushed();
        // 2: the episodes that were open, the highest number of each key.
        let mut open: BTreeMap<Key, (u64, Side)> = BTreeMap::new();
        for site in sites {
            for (k, p) in &site.persisted {
                let best = open.entry(*k).or_insert(*p);
                if p.0 > best.0 {
                    *best = *p;
                }
            }
        }
        let mut open: Vec<_> = open.into_iter().collect();
        open.sort_by_key(|(_, (n, _))| *n);
        for (key, (_, authority)) in open {
            e.arbiter.recover_episode(key.db, &key.id.to_be_bytes(), authority);
        }
        // 3: what was applied, but may have failed unseen.
        for source in Side::BOTH {
            let control = sites[source.other().index()].control;
            for offset in control.replied..control.offset {
                let Entry::Local { cmds, .. } = &sites[source.index()].log[offset] else { continue };
                for cmd in cmds {
                    e.differs(&words(cmd), source, Cause::Recovery);
                }
            }
        }
        e.carry_out();
        for s in Side::BOTH {
            // What follows from an unseen reply is in the outbox now, so all counts as seen from here on.
            let lane = &mut e.lanes[s.index()];
            lane.replied = sites[s.index()].control.offset;
        }
        e
    }

    // ---- reading ---------------------------------------------------------------------------------------------------

    /// Reads the next entry of a site's log. False if there is none or it has to wait.
    pub fn read(&mut self, here: Side, sites: &[Site; 2], now: u64) -> bool {
        let i = here.index();
        if Side::BOTH.iter().any(|s| self.arbiter.is_loading(*s)) && self.has_loaded(sites) {
            self.arbiter.loading(None);
        }
        if let Some((key, state)) = self.snapshots[i].pop_front() {
            let merge = self.merge[i];
            let word = [(key, Class::Write, super::whole())];
            let verdict = with_touches(&mut self.arbiter, &word, |a, t| a.snapshot_key(here, &t[0], merge));
            self.forward(here, verdict, Cmd::Restore(key, Some(state), !merge));
            if self.snapshots[i].is_empty() {
                if !merge {
                    self.delete_leftovers(here, sites);
                }
                self.snapshot_serial[here.other().index()] = self.arbiter.last_serial(here.other());
            }
            return true;
        }
        let Some(entry) = sites[i].log.get(self.pos[i]) else { return false };
        match entry {
            Entry::Local { at, cmds } => {
                self.pos[i] += 1;
                self.changes += 1;
                let unknown = self.options.unknown_time_every;
                let at = if unknown != 0 && self.changes.is_multiple_of(unknown) { 0 } else { *at as u32 };
                self.local(here, cmds, at);
                if here == Side::Target && self.pos[i] <= self.doubtful_until {
                    let all: Vec<Word> = cmds.iter().flat_map(words).collect();
                    self.differs(&all, here.other(), Cause::Recovery);
                }
                true
            }
            Entry::Marked { control, cmds } => self.marked(here, control, cmds, now),
        }
    }

    fn marked(&mut self, here: Side, control: &Control, cmds: &[Cmd], now: u64) -> bool {
        let i = here.index();
        let own = control.epoch == self.epoch;
        if own && self.lanes[i].resolved < control.serial {
            return false;
        }
        self.pos[i] += 1;
        let serial = if own { control.serial } else { self.arbiter.serial_of_before(here, control.offset as u64) };
        let mut effective = BTreeMap::new();
        while let Some((s, _)) = self.lanes[i].deleted.front()
            && own
            && *s <= control.serial
        {
            let Some((_, d)) = self.lanes[i].deleted.pop_front() else { break };
            for (k, n) in d {
                *effective.entry(k).or_insert(0) += n;
            }
        }
        for (key, seen) in deleted_keys(cmds) {
            let bytes = key.id.to_be_bytes();
            let hash = self.arbiter.hash(key.db, &bytes);
            if own && seen <= effective.get(&key).copied().unwrap_or(0) {
                continue;
            }
            if !self.arbiter.writes_up_to(here, serial, hash) {
                continue;
            }
            let word = [(key, Class::Delete, super::whole())];
            if self.options.hidden_as_change {
                let verdict = with_touches(&mut self.arbiter, &word, |a, t| a.change(here, &t[0], now as u32));
                self.forward(here, verdict, Cmd::Del(vec![key]));
            } else {
                self.differs(&word, here.other(), Cause::Expiry);
            }
        }
        if self.arbiter.runs_after_flush(here) {
            for cmd in cmds {
                self.differs(&words(cmd), here, Cause::ConcurrentWrite);
            }
        }
        // As long as something runs on top of a deletion of the other site, a later engine has to know of it.
        if !self.arbiter.runs_after_flush(here.other()) {
            self.echoed[i] = self.echoed[i].max(control.offset);
        }
        if own {
            assert!(self.arbiter.awaited(here, serial).all(|t| self.dumps.contains_key(&t)), "a state is missing");
            self.arbiter.echo(here, serial, now);
            if self.read_back[i].0 < self.snapshot_serial[i] || !self.snapshots[here.other().index()].is_empty() {
                self.read_back[i] = (serial, self.pos[i]);
            }
        } else {
            self.arbiter.echo_of_before(here, control.offset as u64);
        }
        self.carry_out();
        true
    }

    fn local(&mut self, here: Side, cmds: &[Cmd], at: u32) {
        if let [Cmd::Flush(db)] = cmds {
            let verdict = self.arbiter.flush(here, Some(*db));
            self.forward(here, verdict, Cmd::Flush(*db));
            return;
        }
        if let [cmd] = cmds {
            for part in split(cmd) {
                self.one(here, part, at);
            }
            return;
        }
        let all: Vec<Word> = cmds.iter().flat_map(words).collect();
        let whole = with_touches(&mut self.arbiter, &all, |a, t| a.may_go_whole(here, t));
        if !whole && self.options.split {
            for cmd in cmds {
                for part in split(cmd) {
                    self.one(here, part, at);
                }
            }
            return;
        }
        let verdict = with_touches(&mut self.arbiter, &all, |a, t| a.change_many(here, t, at));
        self.carry_out();
        if let Verdict::Forward(serial) = verdict {
            for cmd in cmds {
                self.push(here.other(), Item::Change { cmd: cmd.clone(), serial });
            }
        }
    }

    /// One command, of one key or of several.
    fn one(&mut self, here: Side, cmd: Cmd, at: u32) {
        let w = words(&cmd);
        let verdict = with_touches(&mut self.arbiter, &w, |a, t| match t {
            [t] => a.change(here, t, at),
            many => a.change_many(here, many, at),
        });
        self.forward(here, verdict, cmd);
    }

    fn forward(&mut self, here: Side, verdict: Verdict, cmd: Cmd) {
        self.carry_out();
        if let Verdict::Forward(serial) = verdict {
            self.push(here.other(), Item::Change { cmd, serial });
        }
    }

    // ---- writing ---------------------------------------------------------------------------------------------------

    fn push(&mut self, target: Side, item: Item) {
        let source = target.other().index();
        let lane = &mut self.lanes[target.index()];
        let (offset, echoed, replied) = (self.pos[source], self.echoed[source], lane.replied);
        lane.outbox.push_back(Outgoing { item, offset, echoed, replied });
    }

    fn carry_out(&mut self) {
        let effects: Vec<Effect> = self.arbiter.take_effects().collect();
        for effect in effects {
            match effect {
                Effect::Ask { site, token, db, key, serial } => {
                    self.push(site, Item::Ask { token, key: key_of(db, &key), serial });
                }
                Effect::Restore { site, token, db, key, serial } => {
                    let state = self.dumps.remove(&token).expect("the state had been waited for");
                    self.push(site, Item::Change { cmd: Cmd::Restore(key_of(db, &key), state, true), serial });
                }
                Effect::Persist { site, db, key, number, authority } => {
                    self.push(site, Item::Book(Book::Persist { key: key_of(db, &key), number, authority }));
                }
                Effect::Forget { site, db, key } => {
                    self.push(site, Item::Book(Book::Forget { key: key_of(db, &key) }));
                }
                Effect::Opened { .. } | Effect::Settled(_) => {}
            }
        }
    }

    pub fn settle(&mut self, now: u64) {
        self.arbiter.settle(now);
        self.carry_out();
    }

    /// Makes a transaction of (the beginning of) an outbox and sends it. `most`: items, as far as it can be cut there.
    /// `bare`: also if it carries nothing but the position.
    pub fn build(&mut self, target: Side, most: usize, bare: bool) -> bool {
        let source = target.other();
        let (pos, echoed) = (self.pos[source.index()], self.echoed[source.index()]);
        let lane = &mut self.lanes[target.index()];
        if !lane.rejected.is_empty() || (lane.outbox.is_empty() && !(bare && lane.sent_offset < pos)) {
            return false;
        }
        let mut txn = Txn { cmds: Vec::new(), book: Vec::new(), ask: None, control: Control::default() };
        let c = &mut txn.control;
        (c.epoch, c.offset, c.echoed, c.replied) = (self.epoch, pos, echoed, lane.replied);
        let (mut taken, mut serial) = (0, 0);
        while let Some(out) = lane.outbox.pop_front() {
            taken += 1;
            match out.item {
                Item::Change { cmd, serial: s } => {
                    serial = s;
                    txn.cmds.push(cmd);
                }
                Item::Ask { token, key, serial: s } => {
                    serial = s;
                    txn.ask = Some((token, key));
                }
                Item::Book(b) => txn.book.push(b),
            }
            let Some(next) = lane.outbox.front() else { break };
            let whole = next.offset > out.offset && serial != 0;
            if txn.ask.is_some() || (taken >= most && whole) {
                let c = &mut txn.control;
                (c.offset, c.echoed, c.replied) = (out.offset, out.echoed, out.replied.min(lane.safe));
                break;
            }
        }
        if lane.wire.iter().chain(lane.answered.iter().map(|(t, _)| t)).any(|t| !t.book.is_empty()) {
            txn.control.replied = txn.control.replied.min(lane.safe);
        }
        if serial <= lane.last_serial {
            let Verdict::Forward(s) = self.arbiter.pass(source) else { unreachable!("a pass is always forwarded") };
            serial = s;
        }
        let lane = &mut self.lanes[target.index()];
        txn.control.serial = serial;
        lane.last_serial = serial;
        lane.sent_offset = txn.control.offset;
        lane.wire.push_back(txn);
        true
    }

    /// The site executes the next transaction, or rejects it as a whole.
    pub fn deliver(&mut self, target: Side, sites: &mut [Site; 2], now: u64, reject: bool) -> bool {
        let lane = &mut self.lanes[target.index()];
        let Some(txn) = lane.wire.pop_front() else { return false };
        let outcome = if reject {
            Outcome::Rejected
        } else {
            let (replies, state) =
                sites[target.index()].marked(now, txn.control, &txn.cmds, &txn.book, txn.ask.map(|(_, k)| k));
            Outcome::Applied(replies, state)
        };
        lane.answered.push_back((txn, outcome));
        true
    }

    // ---- replies ---------------------------------------------------------------------------------------------------

    fn differs(&mut self, words: &[Word], authority: Side, cause: Cause) {
        for w in words.iter().filter(|w| w.1 != Class::Read) {
            with_touches(&mut self.arbiter, std::slice::from_ref(w), |a, t| a.differs(&t[0], authority, cause));
        }
        self.carry_out();
    }

    /// Sees the next reply from a site.
    pub fn see(&mut self, target: Side, now: u64) -> bool {
        let lane = &mut self.lanes[target.index()];
        let Some((txn, outcome)) = lane.answered.pop_front() else { return false };
        match outcome {
            Outcome::Rejected => lane.rejected.push_back(txn),
            Outcome::Applied(replies, state) => {
                // One behind them has passed: they are overtaken, and can't be sent again.
                for lost in std::mem::take(&mut self.lanes[target.index()].rejected) {
                    self.lost(target, &lost, true, now);
                }
                self.applied(target, txn, &replies, state);
            }
        }
        let lane = &mut self.lanes[target.index()];
        if lane.wire.is_empty() && lane.answered.is_empty() {
            lane.wire = std::mem::take(&mut lane.rejected);
        }
        true
    }

    fn applied(&mut self, target: Side, txn: Txn, replies: &[Reply], state: Option<State>) {
        let source = target.other();
        let mut effective: BTreeMap<Key, usize> = BTreeMap::new();
        for (cmd, reply) in txn.cmds.iter().zip(replies) {
            match (cmd, reply) {
                (_, Reply::Error) => {
                    self.differs(&words(cmd), self.options.error_authority.unwrap_or(source), Cause::ApplyError);
                }
                (Cmd::ExpireAt(..) | Cmd::Persist(_), Reply::Nothing) => {
                    self.differs(&words(cmd), source, Cause::Expiry);
                }
                (Cmd::Del(keys), Reply::Done) => {
                    for k in keys {
                        *effective.entry(*k).or_insert(0) += 1;
                    }
                }
                (Cmd::Restore(k, ..), Reply::Done) => *effective.entry(*k).or_insert(0) += 1,
                _ => {}
            }
        }
        if let Some((token, _)) = txn.ask {
            self.dumps.insert(token, state);
        }
        let lane = &mut self.lanes[target.index()];
        lane.deleted.push_back((txn.control.serial, effective));
        lane.safe = lane.safe.max(txn.control.replied);
        self.resolve(target, &txn);
    }

    fn resolve(&mut self, target: Side, txn: &Txn) {
        let lane = &mut self.lanes[target.index()];
        lane.resolved = txn.control.serial;
        lane.replied = lane.replied.max(txn.control.offset);
    }

    /// A transaction that was not applied though later ones were, or that was, but its replies are lost.
    fn lost(&mut self, target: Side, txn: &Txn, certainly: bool, now: u64) {
        for cmd in txn.cmds.iter().flat_map(split) {
            let w = words(&cmd);
            if certainly && w.len() == 1 && !matches!(cmd, Cmd::Restore(..)) {
                let verdict = with_touches(&mut self.arbiter, &w, |a, t| a.overtaken(target, &t[0]));
                self.forward(target.other(), verdict, cmd);
            } else {
                self.differs(&w, target.other(), Cause::ApplyError);
            }
        }
        if let Some((token, _)) = txn.ask {
            self.arbiter.token_lost(token, now);
        }
        for b in &txn.book {
            // What holds now, behind all that has been said meanwhile.
            let (Book::Persist { key, .. } | Book::Forget { key }) = b;
            let open = self.arbiter.episodes().iter().find(|e| key_of(e.db, &e.key) == *key);
            let b = match open {
                Some(e) => Book::Persist { key: *key, number: e.number, authority: e.authority },
                None => Book::Forget { key: *key },
            };
            self.push(target, Item::Book(b));
        }
        self.carry_out();
        self.resolve(target, txn);
    }

    // ---- faults ----------------------------------------------------------------------------------------------------

    /// The engine dies: of what was sent, some still arrives, a prefix.
    pub fn die(mut self, sites: &mut [Site; 2], now: u64, rng: &mut fastrand::Rng, rejections: bool) {
        for target in Side::BOTH {
            let n = rng.usize(..=self.lanes[target.index()].wire.len());
            for _ in 0..n {
                self.deliver(target, sites, now, rejections && rng.u32(..6) == 0);
            }
        }
    }

    /// The connection to a site is lost: of what was sent some still arrives, and no reply is seen any more. The old
    /// connection is killed, the control key is read, and the rest is sent again as it was.
    pub fn cut(&mut self, target: Side, sites: &mut [Site; 2], now: u64, rng: &mut fastrand::Rng, rejections: bool) {
        let n = rng.usize(..=self.lanes[target.index()].wire.len());
        for _ in 0..n {
            self.deliver(target, sites, now, rejections && rng.u32(..6) == 0);
        }
        let control = sites[target.index()].control;
        let upto = if control.epoch == self.epoch { control.serial } else { 0 };
        let lane = &mut self.lanes[target.index()];
        let mut all: VecDeque<Txn> = std::mem::take(&mut lane.rejected);
        all.extend(std::mem::take(&mut lane.answered).into_iter().map(|(t, _)| t));
        all.extend(std::mem::take(&mut lane.wire));
        for txn in all {
            if txn.control.serial <= upto {
                self.lost(target, &txn, false, now);
            } else {
                self.lanes[target.index()].wire.push_back(txn);
            }
        }
    }

    // ---- quiet -----------------------------------------------------------------------------------------------------

    /// The copy at the beginning has arrived and come back as echoes, and the source's control key tells of that. An
    /// engine that dies before has to begin it anew: no log tells of its keys, so they could not be found in flight.
    pub fn has_loaded(&self, sites: &[Site; 2]) -> bool {
        Side::BOTH.iter().all(|s| {
            let i = s.index();
            self.snapshots[s.other().index()].is_empty()
                && self.read_back[i].0 >= self.snapshot_serial[i]
                && (self.snapshot_serial[i] == 0 || sites[s.other().index()].control.offset >= self.read_back[i].1)
        })
    }

    pub fn is_idle(&self, sites: &[Site; 2]) -> bool {
        self.arbiter.is_quiet()
            && self.snapshots.iter().all(VecDeque::is_empty)
            && Side::BOTH.iter().all(|s| {
                let (i, lane) = (s.index(), &self.lanes[s.index()]);
                lane.outbox.is_empty() && !lane.outstanding() && self.pos[i] >= sites[i].log.len()
            })
    }

    /// Why it is not idle.
    pub fn describe(&self) -> String {
        let lanes: Vec<String> = self
            .lanes
            .iter()
            .map(|l| {
                format!(
                    "outbox {} wire {} answered {} rejected {} resolved {} last {}",
                    l.outbox.len(),
                    l.wire.len(),
                    l.answered.len(),
                    l.rejected.len(),
                    l.resolved,
                    l.last_serial
                )
            })
            .collect();
        let flight = Side::BOTH.map(|s| self.arbiter.in_flight(s).0);
        let open: Vec<_> = self.arbiter.episodes().iter().take(4).collect();
        format!("pos {:?} {lanes:?} in flight {flight:?} open {open:#?}", self.pos)
    }
}
