//! The arbiter: which changes of two sites are concurrent, and how one key's conflict is settled. Sans-IO.
//!
//! It owns the in-flight table of each site and the open episodes; both links of a job share one, under one lock. It
//! refuses to know of sockets, streams and time: callers tell it what was read, and carry out its [`Effect`]s **in
//! order, before** whatever they send themselves for the same call.
//!
//! Invariants
//! - A change read from a site's stream is concurrent with the other site's changes to the same key exactly when
//!   those are in flight to that site at that moment.
//! - `Effect::Persist` of an episode stands in the outbox of a site before anything whose loss it would excuse.
//! - While an episode is open, the authority's own changes to its key are not forwarded (the coming transfer carries
//!   them), except after a RESTORE that has been placed, and to a cluster; the other site's always are.
//! - An episode ends only when the RESTORE's echo was read and the other site had not changed the key since the token.

pub mod class;
pub mod classify;
mod echoes;
pub mod episode;
mod held;
mod hot;
pub mod leftovers;
pub mod made_by;
mod meeting;
mod opening;
mod parts;
mod queue;
mod recovery;
mod settling;
mod standing;
pub mod table;

use crate::model::Side;
use class::{Class, Part};
use episode::{Cause, Episode, Episodes, Phase};
use leftovers::Leftovers;
use made_by::MadeBy;
use std::collections::VecDeque;
use table::{GroupKey, Table, What};

/// One key that a change reads or writes.
#[derive(Debug, Clone, Copy)]
pub struct Touch<'a> {
    pub db: u32,
    pub key: &'a [u8],
    /// Of (db, key), by [`Arbiter::hash`].
    pub hash: u64,
    pub class: Class,
    pub part: Part,
}

impl Touch<'_> {
    fn writes(&self) -> bool {
        self.class != Class::Read
    }
}

/// Whether a change goes to the other site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it; it has been entered as in flight, and this is its serial there.
    Forward(u64),
    /// Do not send it: a state transfer carries its result, or a concurrent write stands.
    Withhold,
}

/// Names a question for a key's state, for ever: no echo of an earlier engine is ever taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// What the caller has to put into a site's outbox, or to report.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Ask `site` for the key's state at the end of a transaction; the transaction's serial is at least this one.
    Ask { site: Side, token: Token, db: u32, key: Box<[u8]>, serial: u64 },
    /// Put the state that `token` brought into `site`'s outbox, now: nothing read later may come before it.
    Restore { site: Side, token: Token, db: u32, key: Box<[u8]>, serial: u64 },
    /// Write down at `site`, in the order of its outbox, that the episode is open.
    Persist { site: Side, db: u32, key: Box<[u8]>, number: u64, authority: Side },
    /// Write down at `site` that no episode of the key is open any more.
    Forget { site: Side, db: u32, key: Box<[u8]> },
    /// An episode began (or took another authority): for the operator.
    Opened { number: u64 },
    /// An episode ended.
    Settled(Box<Episode>),
}

/// What has been counted since the start; the same names as in the status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub opened: u64,
    /// By the site whose order stood: the link that reads it carries the state.
    pub settled: [u64; 2],
    /// Transfers that were asked for, by the site that was asked.
    pub rounds: [u64; 2],
    pub withheld: u64,
}

#[derive(Debug)]
pub struct Arbiter {
    /// By the site they are in flight to.
    tables: [Table; 2],
    episodes: Episodes,
    effects: Vec<Effect>,
    /// Tokens sent to a site whose echo has not been read: (serial, token, when it was sent), in order.
    asked: [VecDeque<(u64, Token, u64)>; 2],
    room: settling::Room,
    /// Restores sent to a site whose echo has not been read.
    restored: [VecDeque<(u64, Token)>; 2],
    token_serial: u64,
    counters: Counters,
    /// The site whose snapshot is being copied: what it holds is not at the other site yet.
    loading: Option<Side>,
    /// Whose order stands in what has moved.
    slots: standing::Slots,
    /// By side: it is a cluster, whose state may come to stand for a key at any moment, since its slot moves. So a change of the
    /// other side is not withheld from it, though the coming transfer carries it too and writes over it.
    whole: [bool; 2],
    /// What a copy before this one may have left at the other site.
    leftovers: Leftovers,
    /// The newest serial in flight to a site when a whole-database deletion was read from it.
    flushed: [u64; 2],
    /// The newest time that `echo` or `settle` was called with.
    now_ms: u64,
    /// Bytes of the command that is being decided, for the operator; 0 unknown.
    size: u32,
    /// What made the change that is being decided, for the operator.
    made_by: MadeBy,
    /// A job with one link: nothing can be concurrent, nothing is entered.
    one_way: bool,
    hasher: foldhash::quality::FixedState,
}

impl Arbiter {
    /// `epoch` grows with each start of the job's engine; tokens and episode numbers are unique through it.
    /// `seed` varies the hash of keys, so that nobody can prepare keys that collide.
    pub fn new(epoch: u64, seed: u64, one_way: bool) -> Self {
        Arbiter {
            tables: [Table::new(), Table::new()],
            episodes: Episodes::new(epoch << 32),
            effects: Vec::new(),
            asked: Default::default(),
            room: settling::Room::new(),
            restored: Default::default(),
            token_serial: epoch << 32,
            counters: Counters::default(),
            loading: None,
            slots: standing::Slots::default(),
            whole: [false; 2],
            leftovers: Leftovers::default(),
            flushed: [0; 2],
            now_ms: 0,
            size: 0,
            made_by: MadeBy::UNKNOWN,
            one_way,
            hasher: foldhash::quality::FixedState::with_seed(seed),
        }
    }

    /// The hash under which a key is in flight.
    #[inline]
    pub fn hash(&self, db: u32, key: &[u8]) -> u64 {
        use std::hash::{BuildHasher, Hasher};
        let mut h = self.hasher.build_hasher();
        h.write_u32(db);
        h.write(key);
        h.finish().max(1)
    }

    /// What stands where a change of `here` to the key with this hash will be looked for and entered; says nothing by itself.
    #[inline]
    pub fn glance(&self, here: Side, hash: u64) -> u32 {
        self.tables[here.index()].glance(hash) ^ self.tables[here.other().index()].glance_to_push(hash)
    }

    /// The same for what stands behind that: to be asked when that has been looked at.
    #[inline]
    pub fn glance_further(&self, here: Side, hash: u64) -> u32 {
        self.tables[here.index()].glance_further(hash)
    }

    pub fn is_one_way(&self) -> bool {
        self.one_way
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    pub fn episodes(&self) -> &Episodes {
        &self.episodes
    }

    /// Keys in flight to a site, and the bytes of the table that holds them.
    pub fn in_flight(&self, site: Side) -> (usize, usize) {
        (self.tables[site.index()].len(), self.tables[site.index()].memory())
    }

    /// The serial of the newest thing sent to a site.
    pub fn last_serial(&self, site: Side) -> u64 {
        self.tables[site.index()].last_serial()
    }

    /// Nothing is in flight and no episode is open.
    pub fn is_quiet(&self) -> bool {
        self.episodes.is_empty() && self.tables.iter().all(Table::is_empty)
    }

    /// What the caller has to do, in order. To be taken after each call below, under the same lock.
    pub fn take_effects(&mut self) -> std::vec::Drain<'_, Effect> {
        self.effects.drain(..)
    }

    pub fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// The changes that follow were made by this, of so many bytes (0 unknown).
    #[inline]
    pub fn made_by(&mut self, what: MadeBy, bytes: u32) {
        (self.made_by, self.size) = (what, bytes);
    }

    // ---- reading -----------------------------------------------------------------------------------------------

    /// A change to one key was read from `here`'s stream. `at`: when it was made, in the arbiter's clock; 0 unknown.
    pub fn change(&mut self, here: Side, touch: &Touch<'_>, at: u32) -> Verdict {
        let peer = here.other();
        if self.one_way {
            return Verdict::Forward(self.tables[peer.index()].skip());
        }
        let mut open = self.is_open(touch);
        let table = &mut self.tables[here.index()];
        let met = table.meet(touch.hash, (touch.class, touch.part), open);
        if met.many() {
            table.note(touch.hash);
        }
        let (only_deletes, earliest, known) = (met.only_deletes, met.earliest, met.known);
        let against = met.against || table.flush_covers(touch.db) && !touch.class.is_delete();
        if met.was_read {
            // What is in flight reads this key and writes another: that one comes out differently here.
            self.spread(touch.db, touch.key, touch.hash);
            open = self.is_open(touch);
        }
        if !against && !open {
            return self.enter(peer, touch, at);
        }
        if touch.class == Class::Delete && against && !only_deletes {
            // A deletion never beats a concurrent write: it may be the expiry of the value before.
            match self.episodes.get_mut(touch.hash, touch.db, touch.key) {
                None => self.open(touch, peer, Cause::WriteBeatsDelete, Some((here, at))),
                Some(e) if e.authority == peer => e.dirty |= e.phase != Phase::NeedToken,
                Some(_) => {}
            }
            self.counters.withheld += 1;
            return Verdict::Withhold;
        }
        if !open {
            // At the site of the earlier change the later one is applied on top: the order in time stands.
            let authority = match () {
                () if only_deletes || earliest == u32::MAX => peer,
                // Which of them is read first says nothing then.
                () if !known || at == 0 => Side::Source,
                () if later(earliest, at) => peer,
                () => here,
            };
            self.open(touch, authority, Cause::ConcurrentWrite, Some((here, at)));
        }
        let Some(e) = self.episodes.get_mut(touch.hash, touch.db, touch.key) else {
            return self.enter(peer, touch, at);
        };
        if e.authority == here {
            // After the RESTORE that has been placed, in order; before it, the transfer carries this change.
            if self.whole[peer.index()] || e.phase == Phase::RestoreSent && !e.dirty {
                return self.enter(peer, touch, at);
            }
            self.counters.withheld += 1;
            return Verdict::Withhold;
        }
        e.dirty |= e.phase != Phase::NeedToken;
        self.enter(peer, touch, at)
    }

    /// A command that touches several keys and can't be applied by halves was read from `here`'s stream: RENAME, LMOVE,
    /// SUNIONSTORE. (Of a client's transaction and a script's effects each command is decided by itself.) A key may stand
    /// in it several times.
    pub fn change_many(&mut self, here: Side, touches: &[Touch<'_>], at: u32) -> Verdict {
        let peer = here.other();
        if self.one_way {
            return Verdict::Forward(self.tables[peer.index()].skip());
        }
        // What an unfinished copy has left here is not there. Once a client here has deleted it, nothing tells of it.
        let on_leftovers = touches.iter().any(|t| self.leftovers.holds(t.hash));
        if !on_leftovers && self.may_go_whole(here, touches) {
            return self.enter_many(peer, touches, at);
        }
        let stands = |t: &Touch<'_>| self.standing(t.key) == Some(peer);
        if self.loading == Some(peer) || (!self.slots.are_none() && touches.iter().any(stands)) {
            // It runs there on what is there, and that stands.
            for t in touches.iter().filter(|t| t.writes()) {
                match self.episodes.get_mut(t.hash, t.db, t.key) {
                    Some(e) if e.authority == peer => e.dirty |= e.phase != Phase::NeedToken,
                    _ => self.open(t, peer, Cause::SeveralKeys, Some((here, at))),
                }
            }
            return self.enter_many(peer, touches, at);
        }
        self.carry_as_state(here, touches, at, Cause::SeveralKeys);
        self.counters.withheld += 1;
        Verdict::Withhold
    }

    /// A change that can't be said in the other site's words was read from `here`'s stream: its keys are carried as
    /// state.
    pub fn change_as_state(&mut self, here: Side, touches: &[Touch<'_>], at: u32) {
        if self.one_way {
            return;
        }
        self.carry_as_state(here, touches, at, Cause::Untranslatable);
    }

    /// Whether [`Arbiter::change_many`] would forward these as they stand. Where it would not, commands that touch one
    /// key each had better be handled one by one: nothing is lost then that a transfer of the other site's state would
    /// overwrite.
    pub fn may_go_whole(&self, here: Side, touches: &[Touch<'_>]) -> bool {
        self.one_way || touches.iter().all(|t| self.is_free(here, t))
    }

    /// A whole-database deletion was read from `here`'s stream and goes to its peer. What is in flight to `here` comes
    /// on top of it there, and came before it at the peer: see [`Arbiter::runs_after_flush`].
    pub fn flush(&mut self, here: Side, db: Option<u32>) -> Verdict {
        let peer = here.other();
        if self.one_way {
            return Verdict::Forward(self.tables[peer.index()].skip());
        }
        self.flushed[here.index()] = self.tables[here.index()].last_serial();
        // A change to several keys that is on its way here finds fewer of them than it did at its source, and may do
        // nothing at all and leave no echo to judge by.
        for (db, key) in self.tables[here.index()].grouped_with(db) {
            let touch = Touch { db, key: &key, hash: self.hash(db, &key), class: Class::Write, part: Part::WHOLE };
            if !self.episodes.contains(touch.hash, db, &key) {
                self.open(&touch, peer, Cause::Spread, None);
            }
        }
        // A state that the peer has given, or will have given before it is flushed, holds no longer.
        self.episodes.mark_dirty(db, peer);
        Verdict::Forward(self.tables[peer.index()].push_flush(db))
    }

    /// Whether some of what the next echo answers was sent to `here` before a whole-database deletion was read from there. Then
    /// the other site loses what `here` keeps: each key that a command of the echo writes
    /// [`differs`](Arbiter::differs), with `here` as authority. To be asked before [`Arbiter::echo`].
    pub fn runs_after_flush(&self, here: Side) -> bool {
        self.tables[here.index()].oldest_serial() <= self.flushed[here.index()]
    }

    /// Something that touches no key is sent to a site (PUBLISH, a function): it takes a serial alone.
    pub fn pass(&mut self, here: Side) -> Verdict {
        let table = &mut self.tables[here.other().index()];
        Verdict::Forward(if self.one_way { table.skip() } else { table.mark() })
    }

    /// A snapshot of this site begins to be copied to an empty or older site (`None`: the copy is certain to survive a
    /// crash). Until then the other site can't be the authority of anything: it does not hold all, and a crash begins the
    /// copy anew, over whatever the other site alone has.
    pub fn loading(&mut self, side: Option<Side>) {
        self.loading = side;
        if side.is_none() {
            self.leftovers = Leftovers::default();
        }
    }

    pub fn is_loading(&self, side: Side) -> bool {
        self.loading == Some(side)
    }

    /// A copy begins anew: this is what the other site holds, of which the snapshot will name what is still there.
    pub fn expect_leftovers(&mut self, leftovers: Leftovers) {
        self.leftovers = leftovers;
    }

    /// What the snapshot has not named so far.
    pub fn leftovers(&self) -> &Leftovers {
        &self.leftovers
    }

    /// All that were still there are being deleted. The others stay known while the copy is not certain: a client there has
    /// deleted them, and what it made of them before is still to be read.
    pub fn leftovers_deleted(&mut self) {
        if self.loading.is_none() {
            self.leftovers = Leftovers::default();
        }
    }

    /// This one is being dealt with.
    pub fn name_leftover(&mut self, hash: u64) {
        self.leftovers.name(hash);
    }

    /// One key of the snapshot of `here` is to be sent. `merge`: the site's own key stands aside if the other has one.
    pub fn snapshot_key(&mut self, here: Side, touch: &Touch<'_>, merge: bool) -> Verdict {
        let peer = here.other();
        self.made_by(MadeBy::SNAPSHOT, 0);
        self.leftovers.name(touch.hash);
        if self.one_way {
            return Verdict::Forward(self.tables[peer.index()].skip());
        }
        if self.is_free(here, touch) {
            return self.enter(peer, touch, 0);
        }
        if merge {
            // What is in flight to here came from the side that stands.
            if !self.episodes.contains(touch.hash, touch.db, touch.key) {
                self.open(touch, peer, Cause::Merge, Some((here, 0)));
            }
            return Verdict::Withhold;
        }
        // The other site has changed this key while the snapshot was under way: that change is on top of it, here.
        match self.episodes.get_mut(touch.hash, touch.db, touch.key) {
            Some(e) => e.dirty |= e.phase != Phase::NeedToken,
            None => self.open(touch, here, Cause::Snapshot, Some((here, 0))),
        }
        Verdict::Withhold
    }

    // ---- inside ------------------------------------------------------------------------------------------------

    fn enter(&mut self, site: Side, t: &Touch<'_>, at: u32) -> Verdict {
        let what = What { class: t.class, part: t.part, at, group: 0, made_by: self.made_by };
        Verdict::Forward(self.tables[site.index()].push(t.hash, what))
    }

    /// Enters a change to several keys.
    fn enter_many(&mut self, site: Side, touches: &[Touch<'_>], at: u32) -> Verdict {
        let table = &mut self.tables[site.index()];
        if touches.is_empty() {
            return Verdict::Forward(table.mark());
        }
        let mut keys: Vec<GroupKey> = Vec::with_capacity(touches.len());
        for t in touches {
            match keys.iter_mut().find(|k| k.db == t.db && *k.key == *t.key) {
                Some(k) => k.written |= t.writes(),
                None => keys.push(GroupKey { db: t.db, key: t.key.into(), written: t.writes() }),
            }
        }
        let group = table.group(keys);
        let mut serial = table.last_serial();
        for t in touches {
            serial = table.push(t.hash, What { class: t.class, part: t.part, at, group, made_by: self.made_by });
        }
        table.seal(group);
        Verdict::Forward(serial)
    }

    /// No change in flight to `here` stands against this one, and no episode of its key is open.
    fn is_free(&self, here: Side, t: &Touch<'_>) -> bool {
        let table = &self.tables[here.index()];
        table.is_free(t.hash, (t.class, t.part)) && !self.is_open(t) && !table.flush_covers(t.db)
    }

    /// An episode of this key is.
    fn is_open(&self, t: &Touch<'_>) -> bool {
        !self.episodes.is_empty() && self.episodes.contains(t.hash, t.db, t.key)
    }
}

/// Whether `b` is strictly later than `a` in the arbiter's wrapping clock.
fn later(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) > 0
}

/// The earlier of two times; `u32::MAX` stands for none yet.
fn earlier(a: u32, b: u32) -> u32 {
    if a == u32::MAX || later(b, a) { b } else { a }
}

#[cfg(test)]
mod tests;
