//! Recovery, before anything is applied: what an earlier engine applied, and whose echoes it had not read, is entered
//! into the in-flight table in its own words.

use super::decide::Marker;
use super::{Link, LinkError};
use crate::engine::arbiter::Touch;
use crate::engine::arbiter::class::Class;
use crate::engine::arbiter::classify::{Effect, classify};
use crate::engine::spool::{Item, SpoolError};
use crate::model::Offset;
use crate::wire::command;
use crate::wire::stream::{Batch, Decoder, Entry};
use bytes::Buf;
use smallvec::SmallVec;
use std::collections::HashSet;
use std::time::Duration;

/// From where to where an earlier engine's work is looked at again, in one site's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// What lies behind this had not come back as echoes.
    pub echoed: Offset,
    /// Of what lies behind this, the replies had not been seen.
    pub replied: Offset,
    /// Up to here it is applied at the other site; the link goes on from here.
    pub applied: Offset,
}

/// A stretch of the *other* site's stream that can't be read any more: what clients did in it was applied here, and its
/// echoes stand in this site's stream, behind where that is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unheard {
    pub after: Offset,
    pub upto: Offset,
}

/// How far [`Link::lost_ahead`] reads: the pipeline's window and a replica's usual lag are far less.
const AHEAD: usize = 64 << 20;
/// A stream of which more is due, and which brings nothing for so long, does not come any more.
const STALLED: Duration = Duration::from_secs(20);

/// What this site has from a master of the other that is no more, and nobody else has.
#[derive(Debug, Default)]
pub struct Lost {
    /// Each once, in the order of the stream.
    pub keys: Vec<Doubtful>,
    pub changes: u64,
    /// Keys that the other site has as well and whose changes are in flight, as far as anybody knows.
    pub unheard: Vec<Doubtful>,
    /// All was looked through.
    pub whole: bool,
}

/// A key that may have come out differently.
pub type Doubtful = (u32, Vec<u8>);

/// What a stream brings next, or that it has stood still for so long. Its server may be no master any more and never send what is
/// due: where nobody follows the topology yet, nothing else would tell.
async fn in_time(
    next: impl Future<Output = Result<Item, SpoolError>>,
    limit: Duration,
    address: impl FnOnce() -> String,
) -> Result<Item, SpoolError> {
    tokio::time::timeout(limit, next).await.unwrap_or_else(|_| {
        let why = format!("{} sends nothing of its stream, of which more is due", address());
        Ok(Item::Lost { why })
    })
}

impl Link {
    /// Reads the stream up to `span.applied`; gives the keys whose changes may have failed unseen.
    pub async fn rebuild(&mut self, span: Span) -> Result<Vec<Doubtful>, LinkError> {
        let mut doubtful = Vec::new();
        // What lies behind the end is kept from the decoder: a run of PINGs and SELECTs is one entry to it, and the end
        // may stand within such a run.
        let mut beyond = None;
        while self.offset < span.applied.0 {
            if beyond.is_none() && self.read_until() >= span.applied.0 {
                let wanted = match &self.part {
                    None => (span.applied.0 - self.offset) as usize,
                    Some(part) => part.bytes_up_to(span.applied.0),
                };
                beyond = Some(self.rest.split_off(wanted));
            }
            let used = if self.rest.len() >= self.decoder.needed() { self.decode()? } else { 0 };
            if used > 0 {
                for entry in &self.batch.entries {
                    for command in self.batch.commands(entry) {
                        let args = self.batch.args(command);
                        self.s.decider.hear(command::lookup(&args), &args);
                    }
                    self.look_again(entry, self.offset + entry.end, span, &mut doubtful);
                }
                self.dealt_with(used);
                continue;
            }
            if beyond.is_some() && self.part.is_some() && self.rest.is_empty() {
                // What lies between is not of this strand.
                self.offset = span.applied.0;
                break;
            }
            if beyond.is_some() {
                let why = format!("offset {} of the control key is inside a transaction", span.applied);
                return Err(LinkError::Stream { address: self.s.replica.address(), why });
            }
            match self.next_of_stream().await {
                Ok(Item::Stream { offset, bytes }) => self.take_stream(offset, bytes),
                Ok(Item::NewReplid { replid, .. }) => self.goes_on(replid)?,
                Ok(Item::Lost { why }) => return Err(LinkError::Cut(why)),
                Ok(_) => return Err(LinkError::Cut("a snapshot came where the stream was asked for".into())),
                Err(SpoolError::Closed) => return Err(LinkError::Cut("the source's stream ended".into())),
                Err(e) => return Err(e.into()),
            }
        }
        if let Some(beyond) = beyond {
            self.rest = beyond;
        }
        let mut core = self.s.shared.lock();
        core.decided[self.here.index()] = super::Position { offset: Offset(self.offset), db: self.decoder.db() };
        Ok(doubtful)
    }

    /// Some slots have had more than `span.applied`: that is in flight as well, and is passed over when its turn comes.
    /// Entered here, before anything of this engine is. `end`: where the stream ends.
    pub async fn rebuild_ahead(&mut self, span: Span, end: Offset) -> Result<(), LinkError> {
        let until = self.s.decider.ahead_until().min(end);
        if until <= span.applied {
            return Ok(());
        }
        self.read_up_to(until).await?;
        let (mut decoder, mut batch) = (Decoder::new(self.decoder.db()), Batch::default());
        let (mut rest, mut passed) = (self.rest.clone(), 0u64);
        while !rest.is_empty() && self.offset + passed < until.0 {
            let used = decoder.decode(&rest, &mut batch);
            let used = used.map_err(|e| LinkError::Stream { address: self.s.replica.address(), why: e.to_string() })?;
            if used == 0 {
                break;
            }
            let mut core = self.s.shared.lock();
            for entry in &batch.entries {
                let at = match &self.part {
                    None => self.offset + passed + entry.end,
                    Some(part) => part.end_of(passed + entry.end).unwrap_or(u64::MAX),
                };
                if at <= span.echoed.0 || self.s.decider.marker_of(&batch, entry).is_some() {
                    continue;
                }
                for command in batch.commands(entry) {
                    let args = batch.args(command);
                    let (Effect::Keys(touches) | Effect::Apart(touches)) = classify(&core.arbiter, command.db, &args)
                    else {
                        continue;
                    };
                    for t in touches.iter().filter(|t| self.s.decider.has_had_by(t.db, t.key, Offset(at))) {
                        core.arbiter.recover_change(self.here, std::slice::from_ref(t), at);
                    }
                }
            }
            drop(core);
            rest.advance(used);
            passed += used as u64;
        }
        Ok(())
    }

    /// The next of a stream of which more is due.
    async fn next_of_stream(&mut self) -> Result<Item, SpoolError> {
        let replica = &self.s.replica;
        in_time(self.s.spool.next(), STALLED, || replica.address()).await
    }

    /// Reads, and keeps for the run, up to `end` or [`AHEAD`] bytes.
    pub(super) async fn read_up_to(&mut self, end: Offset) -> Result<(), LinkError> {
        while self.read_until() < end.0 && self.rest.len() < AHEAD {
            match self.next_of_stream().await {
                Ok(Item::Stream { offset, bytes }) => self.take_stream(offset, bytes),
                Ok(Item::NewReplid { replid, .. }) => self.goes_on(replid)?,
                Ok(Item::Lost { why }) => return Err(LinkError::Cut(why)),
                Ok(_) => return Err(LinkError::Cut("the stream broke off".into())),
                Err(SpoolError::Closed) => return Err(LinkError::Cut("the source's stream ended".into())),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Looks ahead, up to `end`, for what was lost with a master of the other site: the keys of which only this site
    /// has the latest; and for what came from a stretch of the other site's stream that is no more. What is read is kept
    /// for the run; so it is no more than [`AHEAD`] bytes, and what was lost behind them is found when its turn comes.
    pub async fn lost_ahead(&mut self, end: Offset, unheard: Option<Unheard>) -> Result<Lost, LinkError> {
        self.read_up_to(end).await?;
        let mut lost = Lost { whole: self.read_until() >= end.0, ..Lost::default() };
        let db = self.decoder.db();
        let (mut decoder, mut batch) = (Decoder::new(db), Batch::default());
        let (mut rest, mut seen) = (self.rest.clone(), HashSet::new());
        while !rest.is_empty() {
            let used = decoder.decode(&rest, &mut batch);
            let used = used.map_err(|e| LinkError::Stream { address: self.s.replica.address(), why: e.to_string() })?;
            if used == 0 {
                break;
            }
            let core = self.s.shared.lock();
            for entry in &batch.entries {
                let Some(Marker::Ours(Some(marker))) = self.s.decider.marker_of(&batch, entry) else { continue };
                let is_lost = self.s.decider.is_lost(&marker);
                if !is_lost && !unheard.is_some_and(|u| self.s.decider.is_of(&marker, u)) {
                    continue;
                }
                for c in batch.commands(entry) {
                    let args = batch.args(c);
                    if let Effect::Keys(touches) | Effect::Apart(touches) = classify(&core.arbiter, c.db, &args) {
                        for t in
                            touches.iter().filter(|t| t.class != Class::Read && self.s.decider.is_ours(t.db, t.key))
                        {
                            lost.changes += u64::from(is_lost);
                            if seen.insert((is_lost, t.db, t.key.to_vec())) {
                                let keys = if is_lost { &mut lost.keys } else { &mut lost.unheard };
                                keys.push((t.db, t.key.to_vec()));
                            }
                        }
                    }
                }
            }
            drop(core);
            rest.advance(used);
        }
        Ok(lost)
    }

    fn look_again(&self, entry: &Entry, end: u64, span: Span, doubtful: &mut Vec<Doubtful>) {
        if self.s.decider.marker_of(&self.batch, entry).is_some() {
            return;
        }
        let mut core = self.s.shared.lock();
        // As they were decided: each command of a transaction for itself, and each key of a MSET.
        for command in self.batch.commands(entry) {
            let args = self.batch.args(command);
            let (touches, apart) = match classify(&core.arbiter, command.db, &args) {
                Effect::Keys(touches) => (touches, false),
                Effect::Apart(touches) => (touches, true),
                Effect::Flush(db) if self.s.decider.forwards_flush() => {
                    if end > span.echoed.0 {
                        core.arbiter.recover_flush(self.here, db, end);
                    }
                    continue;
                }
                _ => continue,
            };
            let touches: SmallVec<[Touch<'_>; 4]> =
                touches.into_iter().filter(|t| self.s.decider.is_ours(t.db, t.key)).collect();
            if end > span.echoed.0 {
                for part in touches.chunks(if apart { 1 } else { touches.len().max(1) }) {
                    core.arbiter.recover_change(self.here, part, end);
                }
            }
            if end > span.replied.0 {
                let written = touches.iter().filter(|t| t.class != Class::Read);
                doubtful.extend(written.map(|t| (t.db, t.key.to_vec())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_that_stands_still_is_not_waited_for_for_ever() {
        let address = || "127.0.0.1:7000".to_owned();
        let limit = Duration::from_millis(20);
        let never = in_time(std::future::pending(), limit, address).await;
        let Ok(Item::Lost { why }) = never else { panic!("{never:?}") };
        assert!(why.starts_with("127.0.0.1:7000 sends nothing"), "{why}");
        let bytes = Item::Stream { offset: Offset(7), bytes: "x".into() };
        let came = in_time(std::future::ready(Ok(bytes)), limit, address).await;
        assert!(matches!(came, Ok(Item::Stream { offset: Offset(7), .. })), "{came:?}");
        let closed = in_time(std::future::ready(Err(SpoolError::Closed)), limit, address).await;
        assert!(matches!(closed, Err(SpoolError::Closed)), "{closed:?}");
    }
}
