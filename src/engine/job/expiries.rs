//! After a copy: every expiry that was put off is set to its true time.
//!
//! It waits until the link is in step, then asks the target for the keys whose names were kept, or for all keys, a
//! thousand to a question and several questions under way; [`crate::engine::core::expiries`] decides. It owns one
//! connection to the target, made when all keys have to be looked at.

use crate::engine::core::Shared;
use crate::engine::core::expiries::{AT_ONCE, Answer, BATCH, Name};
use crate::engine::fence::in_db;
use crate::engine::net::{Control, Dialer, NetError};
use crate::engine::replica::ReplicaHandle;
use crate::engine::strand::Names;
use crate::model::{Databases, Direction};
use crate::wire::dialect::Dialect;
use redis::FromRedisValue;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is looked whether a link is in step.
const LOOK: Duration = Duration::from_millis(20);
const AGAIN: Duration = Duration::from_millis(500);
/// A key that was changed each time it was asked for is settled by state.
const TRIES: u32 = 3;
/// So many keys are settled by state at a time.
const SETTLING: usize = 1024;
/// How long it waits for the last of them: one that is given up, or changes all the time, is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Names of a page where all keys are looked at: some 2 ms of the server's time.
const PAGE: usize = 8 * BATCH;
/// All keys are looked at so many times at most: keys that are renamed all the time may hide.
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
    /// Where names are looked for when they are not remembered.
    pub look_at: (Dialer, String),
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
        while let Some(put_off) = s.wait_in_step().await {
            s.make_true(put_off).await;
        }
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

    /// Gives the names to ask for when the link is in step; `None` if there is nothing to see to.
    async fn wait_in_step(&self) -> Option<Vec<Name>> {
        let (to, from) = (self.direction.to(), self.direction.from());
        loop {
            {
                let mut core = self.shared.lock();
                core.set_now(self.shared.now_ms());
                if core.expiries[to.index()].are_true() || core.snapshot_end[from.index()].is_none() {
                    return None;
                }
                let unread = self.replica.unread_ms(core.decided[from.index()].offset);
                if core.is_in_step(to, unread) {
                    return Some(core.expiries[to.index()].ask_now());
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn make_true(&mut self, mut names: Vec<Name>) {
        let to = self.direction.to();
        names.sort_unstable();
        names.dedup();
        names.sort_by_cached_key(|(db, key)| (*db, self.slot(key)));
        let mut names = names.into_iter().peekable();
        while let Some((db, key)) = names.next() {
            let slot = self.slot(&key);
            let mut keys = vec![key];
            while keys.len() < AT_ONCE * BATCH
                && let Some((_, key)) = names.next_if(|n| n.0 == db && self.slot(&n.1) == slot)
            {
                keys.push(key);
            }
            self.ask(db, keys).await;
        }
        for _ in 0..LOOKS {
            if !self.shared.lock().expiries[to.index()].take_look_at_all() {
                break;
            }
            while let Err(e) = self.look_at_all().await {
                tracing::warn!(address = %self.address, why = %e, "looking for expiries that a copy has put off");
                tokio::time::sleep(AGAIN).await;
            }
        }
        self.settled(0).await;
        let mut core = self.shared.lock();
        core.expiries[to.index()].done();
        core.look_at_snapshots();
        drop(core);
        self.shared.wake_writers();
    }

    /// Waits until no more than so many keys are being settled by state.
    async fn settled(&self, most: usize) {
        let begun = Instant::now();
        while self.shared.lock().expiries_settling(self.direction.to()) > most && begun.elapsed() < PATIENCE {
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look_at_all(&mut self) -> Result<(), NetError> {
        // What was written before is there when this has been answered.
        self.ask(self.databases.first(), Vec::new()).await;
        let (dialer, address) = &self.look_at;
        let mut control = dialer.control(address).await?;
        let all = control.info().await?.keyspace;
        for db in all.iter().map(|k| k.db) {
            if !self.databases.contains(db) {
                continue;
            }
            let mut cursor = 0;
            loop {
                let (next, keys) = page(&mut control, db, cursor).await?;
                let mut keys: Vec<_> = keys.into_iter().filter(|k| self.is_ours(k)).collect();
                keys.sort_by_cached_key(|key| self.slot(key));
                let parts: Vec<_> = keys.chunk_by(|a, b| self.slot(a) == self.slot(b)).map(<[_]>::to_vec).collect();
                for part in parts {
                    for some in part.chunks(AT_ONCE * BATCH) {
                        self.ask(db, some.to_vec()).await;
                    }
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// What the source says of some keys; nothing where that is not needed, or not to be had.
    async fn said(&mut self, db: u32, keys: &[Box<[u8]>]) -> Vec<Option<u64>> {
        let Some((dialer, address, dialect)) = &self.source else { return Vec::new() };
        if keys.is_empty() {
            return Vec::new();
        }
        let mut control = match self.source_control.take() {
            Some(control) => control,
            None => match dialer.control(address).await {
                Ok(control) => control,
                Err(_) => return Vec::new(),
            },
        };
        let Ok(said) = times(&mut control, db, keys, *dialect).await else { return Vec::new() };
        self.source_control = Some(control);
        said
    }

    /// Asks for some keys of one database until each has been seen to.
    async fn ask(&mut self, db: u32, mut keys: Vec<Box<[u8]>>) {
        let to = self.direction.to();
        let bell = self.shared.lock().expiries[to.index()].bell.clone();
        self.settled(SETTLING).await;
        for tries in 0.. {
            if tries == TRIES {
                let mut core = self.shared.lock();
                core.set_now(self.shared.now_ms());
                core.settle_expiries(to, db, &keys);
                return self.shared.ring(core);
            }
            let said = self.said(db, &keys).await;
            let mut unanswered = {
                let mut core = self.shared.lock();
                core.set_now(self.shared.now_ms());
                let questions = core.ask_expiries(to, db, std::mem::take(&mut keys), &said);
                self.shared.ring(core);
                questions
            };
            let mut lost = false;
            while unanswered > 0 {
                bell.notified().await;
                for answer in self.shared.lock().expiries[to.index()].take_answers() {
                    unanswered -= 1;
                    match answer {
                        Answer::Again(some) => keys.extend(some),
                        Answer::Lost(all) => {
                            lost = true;
                            keys.extend(all);
                        }
                    }
                }
            }
            if lost {
                tokio::time::sleep(AGAIN).await;
            } else if keys.is_empty() {
                return;
            }
        }
    }
}

/// When keys expire.
async fn times(
    control: &mut Control,
    db: u32,
    keys: &[Box<[u8]>],
    dialect: Dialect,
) -> Result<Vec<Option<u64>>, NetError> {
    let positive = |reply: &redis::Value| i64::from_redis_value_ref(reply).ok().and_then(|t| u64::try_from(t).ok());
    if dialect.speaks_redis(7, 0) {
        let replies: Vec<redis::Value> = in_db(control, db, |pipe| {
            for key in keys {
                pipe.cmd("PEXPIRETIME").arg(&key[..]);
            }
        })
        .await?;
        return Ok(replies.iter().map(positive).collect());
    }
    let time = |reply: Option<&redis::Value>| {
        let (seconds, micros) = <(u64, u64)>::from_redis_value_ref(reply?).ok()?;
        Some(seconds * 1000 + micros / 1000)
    };
    let mut said = vec![None; keys.len()];
    let mut parts: Vec<usize> = (0..keys.len().div_ceil(BATCH)).collect();
    // Where a server was held up between the time and what is left, it is asked again.
    for _ in 0..TRIES {
        let of = |part: usize| part * BATCH..keys.len().min((part + 1) * BATCH);
        let replies: Vec<redis::Value> = in_db(control, db, |pipe| {
            for part in &parts {
                pipe.cmd("TIME");
                for key in &keys[of(*part)] {
                    pipe.cmd("PTTL").arg(&key[..]);
                }
                pipe.cmd("TIME");
            }
        })
        .await?;
        let mut replies = replies.iter();
        let mut again = Vec::new();
        for part in parts {
            let Some(begun) = time(replies.next()) else { return Ok(said) };
            for (said, reply) in said[of(part)].iter_mut().zip(replies.by_ref()) {
                *said = positive(reply).map(|left| left + begun);
            }
            let Some(ended) = time(replies.next()) else { return Ok(said) };
            if ended.saturating_sub(begun) > 1 {
                again.push(part);
            }
        }
        parts = again;
        if parts.is_empty() {
            break;
        }
    }
    Ok(said)
}

/// One page of a database's keys, none of them our own.
async fn page(control: &mut Control, db: u32, cursor: u64) -> Result<(u64, Vec<Box<[u8]>>), NetError> {
    let ((next, keys),): ((u64, Vec<Vec<u8>>),) = in_db(control, db, |pipe| {
        pipe.cmd("SCAN").arg(cursor).arg("COUNT").arg(PAGE);
    })
    .await?;
    let own = |key: &Vec<u8>| key.starts_with(b"duplex:");
    Ok((next, keys.into_iter().filter(|k| !own(k)).map(Vec::into_boxed_slice).collect()))
}
