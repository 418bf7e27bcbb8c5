//! The engine around the arbiter, in small: outboxes, transactions, replies, recovery. It keeps every rule that the
//! real one has to keep, so that a schedule that converges here says something about it.
//!
//! Rules that the arbiter's convergence rests on, beside those in its own module head:
//! - An echo is taken only when the replies of all transactions up to it have been seen.
//! - Each transaction has a serial of its own; one that holds bookkeeping alone takes a `pass`.
//! - `replied` in a control key never runs ahead of the persisted episodes that the replies caused.
//! - A transaction ends at a token; it never ends inside an entry of its source's log.

mod begin;
mod writing;

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
    /// Of a client's transaction each command is decided by itself, as the product does it; or else all of them as one.
    pub split: bool,
    /// One command in so many has no words at the other site and is carried as state; 0: none.
    pub untranslatable_every: u32,
    /// A hidden deletion is handled as a change of the site, as an alternative to a difference.
    pub hidden_as_change: bool,
    /// Who is the authority after an error; `None`: the source of what failed.
    pub error_authority: Option<Side>,
    /// One change in so many has no known time; 0: all are known.
    pub unknown_time_every: u32,
    /// Both sites are clusters: a key's slot may move at either at any moment, and that site's state stands then.
    pub slots_move: bool,
}

#[derive(Debug, Clone)]
enum Item {
    Change {
        cmd: Cmd,
        serial: u64,
    },
    Ask {
        token: Token,
        key: Key,
        serial: u64,
    },
    Book(Book),
    /// The same once more, of a transaction that was not applied.
    BookAgain(Book),
}

/// Something in an outbox, with the position that holds once it is applied.
#[derive(Debug, Clone)]
struct Outgoing {
    item: Item,
    offset: usize,
    echoed: usize,
    replied: usize,
    /// The source's snapshot is not certain to survive a crash.
    loading: bool,
}

#[derive(Debug, Clone)]
struct Txn {
    cmds: Vec<Cmd>,
    book: Vec<Book>,
    /// So many of it are written again.
    again: usize,
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
    /// A transaction is to go even if it carries nothing but what the control key says.
    due: bool,
    /// Bookkeeping of transactions that were not applied, which has not been applied since either.
    owed: usize,
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
    /// By the site that is copied: a crash begins the copy again. What is sent to the other site says so.
    loading: [bool; 2],
    /// Copies that have been read to their end: the serial of the last key, and where its echo stood in the other site's
    /// log.
    ends: [Option<(u64, Option<usize>)>; 2],
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
        let mut arbiter = Arbiter::new(epoch, 42, options.naive);
        arbiter.slots_may_move([options.slots_move; 2]);
        Engine {
            arbiter,
            options,
            epoch,
            pos: [0; 2],
            echoed: [0; 2],
            lanes: Default::default(),
            dumps: HashMap::new(),
            snapshots: Default::default(),
            merge: [false; 2],
            loading: [false; 2],
            ends: [None; 2],
            changes: 0,
            doubtful_until: 0,
        }
    }

    // ---- reading ---------------------------------------------------------------------------------------------------

    /// Reads the next entry of a site's log. False if there is none or it has to wait.
    pub fn read(&mut self, here: Side, sites: &[Site; 2], now: u64) -> bool {
        let i = here.index();
        self.look_at_snapshots();
        if let Some((key, state)) = self.snapshots[i].pop_front() {
            let merge = self.merge[i];
            let word = [(key, Class::Write, super::whole())];
            let verdict = with_touches(&mut self.arbiter, &word, |a, t| a.snapshot_key(here, &t[0], merge));
            self.forward(here, verdict, Cmd::Restore(key, Some(state), !merge));
            if self.snapshots[i].is_empty() {
                if !merge {
                    self.delete_leftovers(here, sites);
                }
                self.snapshot_read(here);
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
            let copied = here.other().index();
            if let Some((last, at @ None)) = &mut self.ends[copied]
                && serial >= *last
            {
                *at = Some(self.pos[i]);
                self.lanes[copied].due = true;
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
        // As the product does it: each command for itself, all of them in one transaction.
        if cmds.len() == 1 || self.options.split {
            for part in cmds.iter().flat_map(split) {
                self.one(here, part, at);
            }
            return;
        }
        let all: Vec<Word> = cmds.iter().flat_map(words).collect();
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
        let every = self.options.untranslatable_every;
        // Not of what is counted: where it flips an authority, what was withheld of that side's changes is lost.
        let counts = |key: Key| key.id < super::schedule::HOT && !self.options.slots_move;
        let may = w.iter().all(|(key, class, _)| !counts(*key) && *class != Class::Delete);
        if every != 0 && may && self.changes.is_multiple_of(every) {
            with_touches(&mut self.arbiter, &w, |a, t| a.change_as_state(here, t, at));
            return self.carry_out();
        }
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

    // ---- quiet -----------------------------------------------------------------------------------------------------

    /// As `Core::snapshot_read` does it.
    pub(super) fn snapshot_read(&mut self, side: Side) {
        let peer = side.other();
        let echoed_at = (self.arbiter.in_flight(peer).0 == 0).then(|| self.pos[peer.index()]);
        self.lanes[side.index()].due |= echoed_at.is_some();
        self.ends[side.index()] = Some((self.arbiter.last_serial(peer), echoed_at));
    }

    /// As `Core::look_at_snapshots` does it: a copy is certain once the echo of its last key has been read, the replies of
    /// the copied site up to there have been seen, and nothing is owed there of the bookkeeping that they led to. What is sent from then on says so, and no log tells of its keys: an
    /// engine that dies before that has arrived begins the copy anew.
    pub(super) fn look_at_snapshots(&mut self) {
        for side in Side::BOTH {
            let Some((_, Some(at))) = self.ends[side.index()] else { continue };
            if self.lanes[side.index()].replied < at || self.lanes[side.index()].owed > 0 {
                continue;
            }
            self.ends[side.index()] = None;
            self.loading[side.index()] = false;
            self.lanes[side.other().index()].due = true;
        }
    }

    pub fn is_idle(&self, sites: &[Site; 2]) -> bool {
        self.arbiter.is_quiet()
            && self.snapshots.iter().all(VecDeque::is_empty)
            && self.loading == [false; 2]
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
        let ends = self.ends;
        format!("pos {:?} {lanes:?} in flight {flight:?} copies {ends:?} open {open:#?}", self.pos)
    }
}
