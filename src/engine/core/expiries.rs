//! Expiries that are put off: while a copy and what was written meanwhile are caught up with, nothing that a link
//! writes may expire at the target by itself, as at a replica.
//!
//! A key that lives for a second is in the snapshot; it is renewed at the source again and again, and all that comes
//! minutes later. If the target expired it in between, an `INCR` that follows would begin anew from nothing there, with
//! no error to tell of it. So each expiry is written as [`FAR_MS`] later: the source alone deletes (its stream says
//! so), and the true time stands in the key itself. It survives a RENAME, a COPY and an engine's end, whatever sets
//! another expiry replaces it, and nothing has to be remembered: memory does not grow with the keys that expire.
//!
//! ```text
//!   True ──a copy begins──▶ PutOff ──the link is in step──▶ Asking ──every key was looked at──▶ True
//! ```
//!
//! In *Asking* new expiries are true again. The target is asked for those it has, in the order of its outbox; those
//! that are put off, and were not changed since they were asked for, are set to their true time. What is due by then is
//! settled by state. Names are kept up to [`NAMES`] bytes, also those
//! that a RENAME or COPY gives to such a key; with more of them all keys are looked at.
//!
//! Invariants: the control key goes on saying that the copy runs until the last true time has been written, so a crash
//! before that begins the copy again and leaves none put off; no more than [`BATCH`] keys are in a question.

use super::{Core, NewItem, unix_ms};
use crate::engine::apply::outbox::{ItemKind, Telltale};
use crate::engine::arbiter::class::{Class, Part};
use crate::engine::arbiter::classify::Reveals;
use crate::engine::arbiter::episode::Cause;
use crate::engine::arbiter::made_by::MadeBy;
use crate::engine::arbiter::{Touch, Verdict};
use crate::model::Side;
use crate::wire::resp::{encode, encode_part, encode_part_int};
use bytes::{BufMut, BytesMut};
use smallvec::SmallVec;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::Notify;

/// How much later an expiry is written: 1,115 years, which nobody asks for.
pub const FAR_MS: u64 = 1 << 45;
/// A key that has so long to live outlives every copy: its expiry is written as it is.
const HORIZON_MS: u64 = 7 * 24 * 3_600_000;
/// A key that has less than this to live when the link is in step is settled by state: a renewal may be on its way.
const SOON_MS: u64 = 2_000;
/// A link is in step when nothing that it has to write is older.
pub const IN_STEP_MS: u64 = 1_000;
/// Bytes of names that are kept, with what it takes to keep them.
const NAMES: usize = 4 << 20;
const NAME: usize = 32;
/// Keys of one question: a server with no absolute times answers for all of them within a millisecond.
pub const BATCH: usize = 1024;

/// The expiry that is meant.
pub fn meant(at: u64) -> u64 {
    if is_put_off(at) { at - FAR_MS } else { at }
}

/// It is none that anybody has asked for.
pub fn is_put_off(at: u64) -> bool {
    at >= FAR_MS
}

/// The expiry that is written while a link catches up.
pub fn put_off(at: u64, now: u64) -> u64 {
    let at = meant(at);
    if at < now.saturating_add(HORIZON_MS) { at + FAR_MS } else { at }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    True,
    PutOff,
    Asking,
}

/// A key in its database.
pub type Name = (u32, Box<[u8]>);

/// What one site was asked for and has not answered.
#[derive(Debug)]
struct Asked {
    question: u64,
    db: u32,
    keys: Vec<Box<[u8]>>,
    /// What the source itself says of each, where its stream tells no absolute times; empty where it need not be asked, or
    /// can't. `None` while it is asked.
    said: Option<Vec<Option<u64>>>,
    /// What the site has answered, while the source has not.
    came: Option<Vec<Option<u64>>>,
    /// Of those that were not changed since.
    same: HashSet<u64>,
}

/// What became of a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Seen to, but for these, which were changed meanwhile.
    Again(Vec<Box<[u8]>>),
    /// It did not come: all of it is to be asked again.
    Lost(Vec<Box<[u8]>>),
}

/// The expiries that one site holds of one link's keys.
#[derive(Debug, Default)]
pub struct Expiries {
    stage: Stage,
    names: Vec<Name>,
    bytes: usize,
    /// The names do not tell all: every key has to be looked at.
    look_at_all: bool,
    asked: Vec<Asked>,
    questions: u64,
    /// Keys that are settled by state, since they were due.
    settling: Vec<Name>,
    /// What came, and to which question.
    answers: Vec<(u64, Answer)>,
    /// Something is to be done, or was answered.
    pub bell: Arc<Notify>,
}

impl Expiries {
    /// A copy begins. `leftovers`: the site may hold keys of an earlier one.
    pub fn begin(&mut self, leftovers: bool) {
        *self =
            Expiries { stage: Stage::PutOff, look_at_all: leftovers, bell: self.bell.clone(), ..Expiries::default() };
    }

    /// Every expiry at the site is true.
    #[inline]
    pub fn are_true(&self) -> bool {
        self.stage == Stage::True
    }

    /// What is written to the site now has to outlive the catching up.
    #[inline]
    pub fn put_off(&self) -> bool {
        self.stage == Stage::PutOff
    }

    /// A key was written with an expiry that is put off.
    pub fn note(&mut self, db: u32, key: &[u8]) {
        if self.look_at_all || self.are_true() {
            return;
        }
        self.bytes += key.len() + NAME;
        if self.bytes > NAMES {
            return self.moved();
        }
        self.names.push((db, key.into()));
    }

    /// Keys may have come under other names.
    pub fn moved(&mut self) {
        self.look_at_all = !self.are_true();
        self.names = Vec::new();
    }

    /// The link is in step: what is written from now on expires when it says.
    pub fn ask_now(&mut self) {
        self.stage = Stage::Asking;
    }

    /// The keys to ask for that were noted so far.
    pub fn take_names(&mut self) -> Vec<Name> {
        self.bytes = 0;
        std::mem::take(&mut self.names)
    }

    pub fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    pub fn looks_at_all(&self) -> bool {
        self.look_at_all
    }

    /// Whether all keys have to be looked at; true once for each reason.
    pub fn take_look_at_all(&mut self) -> bool {
        std::mem::take(&mut self.look_at_all)
    }

    /// All that was put off has been seen to.
    pub fn done(&mut self) {
        *self = Expiries { bell: self.bell.clone(), ..Expiries::default() };
    }

    /// The answers that have come, by their questions.
    pub fn take_answers(&mut self) -> Vec<(u64, Answer)> {
        std::mem::take(&mut self.answers)
    }
}

impl Core {
    /// A key is changed by something that goes to the site from now on.
    #[inline]
    pub fn touched(&mut self, site: Side, hash: u64) {
        for asked in &mut self.expiries[site.index()].asked {
            asked.same.remove(&hash);
        }
    }

    /// Any key may be.
    pub fn touched_all(&mut self, site: Side) {
        for asked in &mut self.expiries[site.index()].asked {
            asked.same.clear();
        }
    }

    /// Nothing that the site has to be told is old; `unread_ms` is the age of what was read and not decided.
    pub fn is_in_step(&self, site: Side, unread_ms: Option<u64>) -> bool {
        let waiting = self.out[site.index()].oldest_ms().map(|at| self.now_ms.saturating_sub(at));
        self.snapshot_end[site.other().index()].is_some() && waiting.max(unread_ms).is_none_or(|age| age < IN_STEP_MS)
    }

    /// Asks the site when these keys of one database (and slot, in a cluster) expire, in the order of its outbox; with no keys
    /// it is asked all the same: what was written before is there when that has been answered. Gives the question's number.
    /// `source_too`: the source is asked as well, and [`Core::source_said`] has its answer.
    pub fn ask_expiries(&mut self, site: Side, db: u32, keys: Vec<Box<[u8]>>, source_too: bool) -> u64 {
        let mut data = BytesMut::new();
        let absolute = self.facts[site.index()].dialect.speaks_redis(7, 0);
        for key in &keys {
            encode(&mut data, &[if absolute { &b"PEXPIRETIME"[..] } else { b"PTTL" }, key]);
        }
        let mut commands = keys.len() as u32;
        if !absolute {
            encode(&mut data, &[b"TIME"]);
            commands += 1;
        }
        let slot = keys.first().and_then(|key| self.facts[site.index()].names.slot(key));
        let same = keys.iter().map(|key| self.arbiter.hash(db, key)).collect();
        let expiries = &mut self.expiries[site.index()];
        expiries.questions += 1;
        let question = expiries.questions;
        expiries.asked.push(Asked { question, db, keys, said: (!source_too).then(Vec::new), came: None, same });
        let serial = self.arbiter.last_serial(site);
        let item = NewItem::new(data.freeze(), commands, ItemKind::Expiries(question), serial);
        self.push(site, NewItem { db: Some(db), slot, ..item });
        question
    }

    /// The site's answer: milliseconds since 1970, `None` without an expiry. No list: the answer is lost.
    pub fn expiries_came(&mut self, site: Side, question: u64, at: Option<&[Option<u64>]>) {
        let asked = &mut self.expiries[site.index()].asked;
        let Some(place) = asked.iter().position(|a| a.question == question) else { return };
        match at {
            Some(at) if asked[place].said.is_none() => asked[place].came = Some(at.to_vec()),
            at => self.expiries_answered(site, place, at),
        }
    }

    /// The source's answer to the same question: of each key when it expires there, if it does; nothing where it has not
    /// answered.
    pub fn source_said(&mut self, site: Side, question: u64, said: Vec<Option<u64>>) {
        let asked = &mut self.expiries[site.index()].asked;
        let Some(place) = asked.iter().position(|a| a.question == question) else { return };
        asked[place].said = Some(said);
        if let Some(at) = asked[place].came.take() {
            self.expiries_answered(site, place, Some(&at));
        }
    }

    fn expiries_answered(&mut self, site: Side, place: usize, at: Option<&[Option<u64>]>) {
        let Asked { question, db, keys, said, same, .. } = self.expiries[site.index()].asked.remove(place);
        let said = said.unwrap_or_default();
        let answer = match at {
            Some(at) => {
                // It expires at the target when its source says, if it does there at all.
                let at: Vec<_> = at
                    .iter()
                    .enumerate()
                    .map(|(n, at)| {
                        let at = at.filter(|at| is_put_off(*at)).map(meant);
                        at.map(|at| said.get(n).copied().flatten().unwrap_or(at))
                    })
                    .collect();
                Answer::Again(self.set_true(site, db, keys, &same, &at))
            }
            None => Answer::Lost(keys),
        };
        let expiries = &mut self.expiries[site.index()];
        expiries.answers.push((question, answer));
        expiries.bell.notify_one();
    }

    /// Puts these times into the site's outbox, `None` for keys that have the true one; gives the keys that were changed
    /// since they were asked for.
    fn set_true(
        &mut self,
        site: Side,
        db: u32,
        keys: Vec<Box<[u8]>>,
        same: &HashSet<u64>,
        at: &[Option<u64>],
    ) -> Vec<Box<[u8]>> {
        let from = site.other();
        let mut again = Vec::new();
        let slot = keys.first().and_then(|key| self.facts[site.index()].names.slot(key));
        let (mut times, now) = (Times { slot, ..Times::default() }, unix_ms());
        for (key, at) in keys.into_iter().zip(at) {
            let Some(at) = *at else { continue };
            let hash = self.arbiter.hash(db, &key);
            if !same.contains(&hash) {
                again.push(key);
                continue;
            }
            // Its state is on its way, with the true time.
            if self.carry.holds(db, &key) {
                continue;
            }
            let touch = Touch { db, key: &key, hash, class: Class::Write, part: Part::WHOLE };
            if at <= now + SOON_MS {
                times.push(self, site, db);
                self.differs(&touch, from, Cause::Snapshot);
                self.carry_out();
                self.expiries[site.index()].settling.push((db, key));
                continue;
            }
            self.arbiter.made_by(MadeBy::SNAPSHOT, 0);
            let verdict = self.arbiter.change(from, &touch, 0);
            if self.arbiter.has_effects() {
                times.push(self, site, db);
                self.carry_out();
            }
            if let Verdict::Forward(serial) = verdict {
                times.add(&key, at, serial);
            }
        }
        times.push(self, site, db);
        self.settle();
        again
    }

    /// Keys that were changed each time they were asked for: their states are carried.
    pub fn settle_expiries(&mut self, site: Side, db: u32, keys: &[Box<[u8]>]) {
        for key in keys {
            let touch = Touch { db, key, hash: self.arbiter.hash(db, key), class: Class::Write, part: Part::WHOLE };
            self.differs(&touch, site.other(), Cause::Snapshot);
            self.carry_out();
            self.expiries[site.index()].settling.push((db, key.clone()));
        }
        self.settle();
    }

    /// How many keys are being settled by state since their expiry was due, or never stood still.
    pub fn expiries_settling(&mut self, site: Side) -> usize {
        let mut settling = std::mem::take(&mut self.expiries[site.index()].settling);
        settling.retain(|(db, key)| {
            self.carry.holds(*db, key) || self.arbiter.episodes().contains(self.arbiter.hash(*db, key), *db, key)
        });
        self.expiries[site.index()].settling = settling;
        self.expiries[site.index()].settling.len()
    }
}

/// Expiries that go in one item.
#[derive(Default)]
struct Times {
    /// The one slot of them all, where the site is a cluster.
    slot: Option<u16>,
    data: BytesMut,
    commands: u32,
    serial: u64,
    telltales: SmallVec<[Telltale; 2]>,
}

impl Times {
    fn add(&mut self, key: &[u8], at: u64, serial: u64) {
        self.telltales.push(Telltale { index: self.commands, reveals: Reveals::Zero });
        self.data.put_slice(b"*3\r\n$9\r\nPEXPIREAT\r\n");
        encode_part(&mut self.data, key);
        encode_part_int(&mut self.data, at);
        self.commands += 1;
        self.serial = serial;
    }

    fn push(&mut self, core: &mut Core, site: Side, db: u32) {
        if self.commands == 0 {
            return;
        }
        let slot = self.slot;
        let Times { data, commands, serial, telltales, .. } =
            std::mem::replace(self, Times { slot, ..Times::default() });
        let item = NewItem::new(data.freeze(), commands, ItemKind::Changes, serial);
        core.push(site, NewItem { db: Some(db), slot, telltales, ..item });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::arbiter::Arbiter;
    use crate::engine::conflicts::ConflictLog;
    use crate::engine::core::SiteFacts;
    use crate::engine::events::EventSink;
    use crate::engine::strand::Names;
    use crate::wire::dialect::Dialect;

    /// One of them may be refused and asked again behind the others.
    #[test]
    fn several_questions_are_answered_in_any_order() {
        const TO: Side = Side::Target;
        let names = |n: &str| Names::whole(format!("duplex:job:{n}"));
        let facts =
            ["reverse", "forward"].map(|n| SiteFacts { dialect: Dialect::redis(7, 0), names: names(n), control_db: 0 });
        let mut core = Core::new(Arbiter::new(1, 1, false), facts, ConflictLog::since(0), EventSink::new(|_| ()));
        core.expiries[TO.index()].begin(false);
        core.expiries[TO.index()].ask_now();
        let key = |n: u64| format!("k:{n}").into_bytes().into_boxed_slice();
        let [first, second] = [vec![key(0)], vec![key(1), key(2)]];
        let asked = [&first, &second].map(|keys| core.ask_expiries(TO, 0, keys.clone(), false));
        let far = Some(unix_ms() + 1_000_000 + FAR_MS);
        // The last key of the second question is changed before its answer comes.
        let hash = core.arbiter.hash(0, &second[1]);
        core.touched(TO, hash);
        core.expiries_came(TO, asked[1], Some(&[far, far]));
        assert_eq!(core.expiries[TO.index()].take_answers(), [(asked[1], Answer::Again(vec![key(2)]))]);
        assert_eq!(core.arbiter.in_flight(TO).0, 1, "of the other the true time is on its way");
        core.expiries_came(TO, asked[0], None);
        assert_eq!(core.expiries[TO.index()].take_answers(), [(asked[0], Answer::Lost(first))]);
        core.expiries_came(TO, asked[0], None);
        assert!(core.expiries[TO.index()].take_answers().is_empty(), "it was answered before");
        // Of the two that are asked, the later answer completes it, whichever that is.
        let (true_time, other) = (unix_ms() + 5_000_000, unix_ms() + 1_000_000);
        for source_first in [true, false] {
            let before = core.arbiter.in_flight(TO).0;
            let asked = core.ask_expiries(TO, 0, vec![key(3 + u64::from(source_first))], true);
            if source_first {
                core.source_said(TO, asked, vec![Some(true_time)]);
                assert_eq!(core.arbiter.in_flight(TO).0, before);
                core.expiries_came(TO, asked, Some(&[Some(other + FAR_MS)]));
            } else {
                core.expiries_came(TO, asked, Some(&[Some(other + FAR_MS)]));
                assert_eq!(core.arbiter.in_flight(TO).0, before);
                assert!(core.expiries[TO.index()].take_answers().is_empty());
                core.source_said(TO, asked, vec![Some(true_time)]);
            }
            assert_eq!(core.expiries[TO.index()].take_answers(), [(asked, Answer::Again(Vec::new()))]);
            assert_eq!(core.arbiter.in_flight(TO).0, before + 1);
            let items = core.out[TO.index()].take(usize::MAX, usize::MAX);
            let last = items.last().expect("the true time");
            assert!(last.data.windows(13).any(|w| w == true_time.to_string().as_bytes()), "the source's word counts");
        }
        // With no keys it is asked all the same.
        let asked = core.ask_expiries(TO, 0, Vec::new(), false);
        core.expiries_came(TO, asked, Some(&[]));
        assert_eq!(core.expiries[TO.index()].take_answers(), [(asked, Answer::Again(Vec::new()))]);
    }
}
