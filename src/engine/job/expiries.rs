//! After a copy: every expiry that was put off is set to its true time.
//!
//! It waits until the link is in step, then asks the target for the keys whose names were kept, or for all keys, a
//! thousand to a question and many questions under way; [`crate::engine::core::expiries`] decides. Over a slow line each
//! question that waits for the one before costs a round trip: so questions are put, pages are read and the source is asked
//! without waiting for earlier answers, as far as there is room. It owns one connection to the target, made when all keys
//! have to be looked at.

mod times;

use crate::engine::core::Shared;
use crate::engine::core::expiries::{Answer, BATCH, Name};
use crate::engine::fence::pages::Pages;
use crate::engine::net::{Control, Dialer, NetError};
use crate::engine::replica::ReplicaHandle;
use crate::engine::strand::Names;
use crate::model::{Databases, Direction, Side};
use crate::wire::dialect::Dialect;
use futures::future::join_all;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use times::times;
use tokio::task::JoinSet;

/// How often it is looked whether a link is in step.
const LOOK: Duration = Duration::from_millis(20);
const AGAIN: Duration = Duration::from_millis(500);
/// A key that was changed each time it was asked for is settled by state.
const TRIES: u32 = 3;
/// So many keys are settled by state at a time.
const SETTLING: usize = 1024;
/// How long it waits for the last of them: one that is given up, or changes all the time, is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Names of a page where all keys are looked at: some 2 ms of the server's time. Over a slow line more.
const PAGE: u64 = 8 * BATCH as u64;
/// Keys that are asked for at a time, and how many of them where answers take long: two pages and more, so that the next comes
/// while this one is asked for. Each takes its name twice and some 200 bytes.
const AT_ONCE: usize = 16 * BATCH;
const AT_ONCE_FAR: usize = 192 * BATCH;
const FAR: Duration = Duration::from_millis(100);
/// The source is asked for so many at a time.
const SAID: usize = 8 * BATCH;
/// It is looked again so many times at most. What clients have renamed by then in each look is settled by state.
const LOOKS: u32 = 8;

/// What it needs.
pub struct Setup {
    pub shared: Arc<Shared>,
    pub direction: Direction,
    pub replica: Arc<ReplicaHandle>,
    /// The target's.
    pub address: String,
    /// The source, where one of the two knows no absolute times (before 7.0): those of the stream are known from when
    /// they were read and those of the target from when it was asked, and exactly from the source alone.
    pub source: Option<(Dialer, String, Dialect)>,
    pub source_control: Option<Control>,
    /// What it is being asked.
    pub source_asked: JoinSet<bool>,
    /// Where names are looked for when they are not remembered.
    pub look_at: (Dialer, String),
    pub look_control: Option<Control>,
    pub databases: Databases,
    /// Of the target.
    pub names: Names,
}

/// Sees to the expiries of one link's copies, for ever.
pub async fn see_to(mut s: Setup) {
    let site = s.direction.to().index();
    let bell = s.shared.lock().expiries[site].bell.clone();
    loop {
        bell.notified().await;
        let (are_true, all) = {
            let expiries = &s.shared.lock().expiries[site];
            (expiries.are_true(), expiries.looks_at_all())
        };
        if !are_true {
            s.dial_ahead(all).await;
        }
        while s.wait_in_step().await {
            s.make_true().await;
        }
    }
}

/// Keys of one database that are to be asked for, those of a slot beside each other.
struct Part {
    db: u32,
    keys: Vec<Box<[u8]>>,
    /// How many times they were asked for before.
    tries: u32,
}

/// A question that has not been answered.
struct Question {
    db: u32,
    keys: usize,
    tries: u32,
    put: Instant,
}

/// What is to be asked, and what has been and was not answered.
struct Asking {
    parts: VecDeque<Part>,
    questions: HashMap<u64, Question>,
    /// Keys of these questions, and how many there may be.
    keys: usize,
    room: usize,
}

impl Asking {
    fn new() -> Asking {
        Asking { parts: VecDeque::new(), questions: HashMap::new(), keys: 0, room: AT_ONCE }
    }

    /// An answer to this question has come.
    fn answered(&mut self, question: u64) -> Option<Question> {
        let asked = self.questions.remove(&question)?;
        self.keys -= asked.keys;
        if asked.put.elapsed() > FAR {
            self.room = AT_ONCE_FAR;
        }
        Some(asked)
    }
}

impl Setup {
    /// Keys of one question have one of these: a transaction in a cluster is for one slot.
    fn slot(&self, key: &[u8]) -> Option<u16> {
        self.names.slot(key)
    }

    /// Another strand of the job sees to the rest.
    fn is_ours(&self, key: &[u8]) -> bool {
        self.names.strand().is_none_or(|strand| strand.has(key))
    }

    /// While the link catches up. What fails now is told when it is needed.
    async fn dial_ahead(&mut self, look_at_all: bool) {
        let look = async {
            let (dialer, address) = &self.look_at;
            if look_at_all && self.look_control.is_none() { dialer.control(address).await.ok() } else { None }
        };
        let ask = async {
            let (dialer, address, _) = self.source.as_ref().filter(|_| self.source_control.is_none())?;
            dialer.control(address).await.ok()
        };
        let (look, ask) = futures::join!(look, ask);
        self.look_control = self.look_control.take().or(look);
        self.source_control = self.source_control.take().or(ask);
    }

    /// Returns when the link is in step; `false` if there is nothing to see to.
    async fn wait_in_step(&self) -> bool {
        let (to, from) = (self.direction.to(), self.direction.from());
        loop {
            {
                let mut core = self.shared.lock();
                core.set_now(self.shared.now_ms());
                if core.expiries[to.index()].are_true() || core.snapshot_end[from.index()].is_none() {
                    return false;
                }
                let unread = self.replica.unread_ms(core.decided[from.index()].offset);
                if core.is_in_step(to, unread) {
                    core.expiries[to.index()].ask_now();
                    return true;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn make_true(&mut self) {
        let to = self.direction.to();
        let (begun, address) = (Instant::now(), self.address.clone());
        let told = |what: &str, keys: usize| {
            let ms = begun.elapsed().as_millis() as u64;
            tracing::debug!(address, keys, ms, "expiries that a copy has put off: {what}");
        };
        for look in 0.. {
            let (names, all) = {
                let mut core = self.shared.lock();
                let expiries = &mut core.expiries[to.index()];
                (expiries.take_names(), expiries.take_look_at_all())
            };
            told(if all { "all keys are looked at" } else { "known keys are asked for" }, names.len());
            let mut asking = Asking::new();
            self.add(&mut asking, names, if look < LOOKS { 0 } else { TRIES });
            self.put(&mut asking).await;
            if all && look < LOOKS {
                while let Err(e) = self.look_at_all(&mut asking).await {
                    tracing::warn!(address = %self.address, why = %e, "looking for expiries that a copy has put off");
                    tokio::time::sleep(AGAIN).await;
                }
            }
            self.finish(&mut asking).await;
            told("all were asked for", self.shared.lock().expiries_settling(to));
            // What the answers led to is there when this has been answered.
            asking.parts.push_back(Part { db: self.databases.first(), keys: Vec::new(), tries: 0 });
            self.put(&mut asking).await;
            self.settled(0).await;
            self.finish(&mut asking).await;
            told("those that were due are settled", 0);
            self.read_back().await;
            let mut core = self.shared.lock();
            let expiries = &mut core.expiries[to.index()];
            if look < LOOKS && (expiries.has_names() || expiries.looks_at_all()) {
                continue;
            }
            expiries.done();
            told("all are true", 0);
            core.look_at_snapshots();
            break;
        }
        self.shared.wake_writers();
    }

    /// Waits until no more than so many keys are being settled by state.
    async fn settled(&self, most: usize) {
        let begun = Instant::now();
        while self.shared.lock().expiries_settling(self.direction.to()) > most && begun.elapsed() < PATIENCE {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the target's stream has been read up to the last answer: what clients there have renamed before it is
    /// known by then. That has no limit of its own: the stream is read on for as long as the run lasts, and a run whose
    /// stream can't be had ends.
    async fn read_back(&self) {
        let to = self.direction.to().index();
        let (number, one_way) = {
            let core = self.shared.lock();
            (core.answered[to], core.arbiter.is_one_way())
        };
        while !one_way && self.shared.lock().read_back[to] < number {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A connection to look at all keys over.
    async fn looking(&mut self) -> Result<Control, NetError> {
        match self.look_control.take() {
            Some(control) => Ok(control),
            None => {
                let (dialer, address) = &self.look_at;
                dialer.control(address).await
            }
        }
    }

    async fn look_at_all(&mut self, asking: &mut Asking) -> Result<(), NetError> {
        // What was written before is there when this has been answered.
        asking.parts.push_back(Part { db: self.databases.first(), keys: Vec::new(), tries: 0 });
        self.put(asking).await;
        let mut control = self.looking().await?;
        let mut pages = Pages::of(PAGE);
        let asked = Instant::now();
        let mut there = control.info().await?;
        pages.took(asked.elapsed());
        self.finish(asking).await;
        let mut looked_at = HashSet::new();
        loop {
            let dbs = there.keyspace.iter().map(|k| k.db).filter(|db| self.databases.contains(*db));
            let new: Vec<u32> = dbs.filter(|db| looked_at.insert(*db)).collect();
            if new.is_empty() {
                return Ok(());
            }
            for db in new {
                let mut cursor = Some(0);
                loop {
                    // The next page comes while it is asked for the keys of this one.
                    let next = async {
                        match cursor {
                            Some(cursor) => Some(pages.next(&mut control, db, cursor).await),
                            None => None,
                        }
                    };
                    let (page, ()) = futures::join!(next, self.put(asking));
                    let Some(page) = page else { break };
                    let (next, keys) = page?;
                    let keys = keys.into_iter().filter(|k| !k.starts_with(b"duplex:") && self.is_ours(k));
                    let names = keys.map(|k| (db, k.into_boxed_slice())).collect();
                    self.add(asking, names, 0);
                    cursor = (next != 0).then_some(next);
                }
            }
            // Asked while the first answer was on its way, it knew nothing of a database that had no keys before that.
            there = control.info().await?;
        }
    }

    /// These are to be asked for.
    fn add(&self, asking: &mut Asking, mut names: Vec<Name>, tries: u32) {
        names.sort_unstable();
        names.dedup();
        names.sort_by_cached_key(|(db, key)| (*db, self.slot(key)));
        let mut names = names.into_iter().peekable();
        while let Some((db, key)) = names.next() {
            let mut keys = vec![key];
            while keys.len() < asking.room
                && let Some((_, key)) = names.next_if(|n| n.0 == db)
            {
                keys.push(key);
            }
            asking.parts.push_back(Part { db, keys, tries });
        }
    }

    /// Asks for all that is to be asked for; the last answers are not waited for.
    async fn put(&mut self, asking: &mut Asking) {
        let to = self.direction.to();
        while let Some(Part { db, keys, tries }) = asking.parts.pop_front() {
            self.settled(SETTLING).await;
            if tries >= TRIES {
                let mut core = self.shared.lock();
                core.set_now(self.shared.now_ms());
                core.settle_expiries(to, db, &keys);
                self.shared.ring(core);
                continue;
            }
            while asking.keys > 0 && asking.keys + keys.len() > asking.room {
                self.take_answers(asking).await;
            }
            let source = if keys.is_empty() { None } else { self.asking_source().await };
            let asked_of_source = if source.is_some() { keys.clone() } else { Vec::new() };
            let mut questions = Vec::new();
            let mut core = self.shared.lock();
            core.set_now(self.shared.now_ms());
            let mut keys = keys.into_iter().peekable();
            loop {
                let mut some: Vec<_> = keys.next().into_iter().collect();
                let slot = some.first().and_then(|key| self.slot(key));
                while some.len() < BATCH
                    && let Some(key) = keys.next_if(|key| self.slot(key) == slot)
                {
                    some.push(key);
                }
                let asked = Question { db, keys: some.len(), tries, put: Instant::now() };
                asking.keys += some.len();
                let question = core.ask_expiries(to, db, some, source.is_some());
                questions.push((question, asked.keys));
                asking.questions.insert(question, asked);
                if keys.peek().is_none() {
                    break;
                }
            }
            self.shared.ring(core);
            if let Some((control, dialect)) = source {
                let said = said(self.shared.clone(), to, control, dialect, db, asked_of_source, questions);
                self.source_asked.spawn(said);
            }
        }
    }

    /// Waits until each key has been seen to.
    async fn finish(&mut self, asking: &mut Asking) {
        loop {
            self.put(asking).await;
            if asking.questions.is_empty() {
                return;
            }
            self.take_answers(asking).await;
        }
    }

    /// Waits for answers; what was changed since it was asked for, or was not answered, is to be asked for again.
    async fn take_answers(&self, asking: &mut Asking) {
        let to = self.direction.to().index();
        let bell = self.shared.lock().expiries[to].bell.clone();
        bell.notified().await;
        let answers = self.shared.lock().expiries[to].take_answers();
        let mut lost = false;
        for (question, answer) in answers {
            let Some(Question { db, tries, .. }) = asking.answered(question) else { continue };
            let tries_again = matches!(answer, Answer::Lost(_));
            lost |= tries_again;
            let (Answer::Again(keys) | Answer::Lost(keys)) = answer;
            if !keys.is_empty() || tries_again {
                asking.parts.push_back(Part { db, keys, tries: tries + 1 });
            }
        }
        if lost {
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The connection to the source, where it has to be asked and can be, and what it speaks.
    async fn asking_source(&mut self) -> Option<(Control, Dialect)> {
        let (dialer, address, dialect) = self.source.as_ref()?;
        while let Some(answered) = self.source_asked.try_join_next() {
            if !answered.unwrap_or(false) {
                self.source_control = None;
            }
        }
        if self.source_control.is_none() {
            self.source_control = dialer.control(address).await.ok();
        }
        self.source_control.clone().map(|control| (control, *dialect))
    }
}

/// Asks the source when some keys expire, for these questions (their numbers, and how many of the keys each is for); it is
/// not waited for, since the target is asked at the same time. Gives whether it has answered.
async fn said(
    shared: Arc<Shared>,
    to: Side,
    control: Control,
    dialect: Dialect,
    db: u32,
    keys: Vec<Box<[u8]>>,
    questions: Vec<(u64, usize)>,
) -> bool {
    // Over one connection, and without waiting for one another.
    let parts = keys.chunks(SAID).map(|some| {
        let mut control = control.clone();
        async move { times(&mut control, db, some, dialect).await }
    });
    let said = join_all(parts).await.into_iter().collect::<Result<Vec<_>, _>>();
    let answered = said.is_ok();
    let mut said = said.unwrap_or_default().concat().into_iter();
    let mut core = shared.lock();
    core.set_now(shared.now_ms());
    for (question, keys) in questions {
        core.source_said(to, question, said.by_ref().take(keys).collect());
    }
    shared.ring(core);
    answered
}
