//! Recovery, before anything is applied: what an earlier engine applied, and whose echoes it had not read, is entered
//! into the in-flight table in its own words.

use super::{Link, LinkError};
use crate::engine::arbiter::Touch;
use crate::engine::arbiter::class::Class;
use crate::engine::arbiter::classify::{Effect, classify};
use crate::engine::spool::{Item, SpoolError};
use crate::model::Offset;
use crate::wire::stream::Entry;
use bytes::Buf;
use smallvec::SmallVec;

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

/// A key that may have come out differently.
pub type Doubtful = (u32, Vec<u8>);

impl Link {
    /// Reads the stream up to `span.applied`; gives the keys whose changes may have failed unseen.
    pub async fn rebuild(&mut self, span: Span) -> Result<Vec<Doubtful>, LinkError> {
        let mut doubtful = Vec::new();
        while self.offset < span.applied.0 {
            match self.s.spool.next().await {
                Ok(Item::Stream { bytes, .. }) => self.take(bytes),
                Ok(Item::NewReplid { replid, .. }) => self.set_replid(replid),
                Ok(Item::Lost { why }) => return Err(LinkError::Cut(why)),
                Ok(_) => return Err(LinkError::Cut("a snapshot came where the stream was asked for".into())),
                Err(SpoolError::Closed) => return Err(LinkError::Cut("the source's stream ended".into())),
                Err(e) => return Err(e.into()),
            }
            while self.offset < span.applied.0 && self.rest.len() >= self.decoder.needed() {
                let used = self.decode()?;
                if used == 0 {
                    break;
                }
                let mut done = 0;
                let mut db = self.decoder.db();
                for entry in &self.batch.entries {
                    let end = self.offset + entry.end;
                    if end > span.applied.0 {
                        break;
                    }
                    self.look_again(entry, end, span, &mut doubtful);
                    (done, db) = (entry.end as usize, entry.db);
                }
                if done < used {
                    // The rest of the batch is for later: begin again behind what was looked at.
                    self.decoder.reset(db);
                }
                self.rest.advance(done);
                self.offset += done as u64;
                self.s.spool.release(Offset(self.offset));
                if done == 0 {
                    let why = format!("offset {} of the control key is inside a transaction", span.applied);
                    return Err(LinkError::Stream { address: self.s.replica.address(), why });
                }
            }
        }
        let mut core = self.s.shared.lock();
        core.decided[self.here.index()] = super::Position { offset: Offset(self.offset), db: self.decoder.db() };
        Ok(doubtful)
    }

    fn look_again(&self, entry: &Entry, end: u64, span: Span, doubtful: &mut Vec<Doubtful>) {
        if self.s.decider.marker_of(&self.batch, entry).is_some() {
            return;
        }
        let mut core = self.s.shared.lock();
        let all: Vec<_> = self.batch.commands(entry).iter().map(|c| (c.db, self.batch.args(c))).collect();
        let mut touches: SmallVec<[Touch<'_>; 4]> = SmallVec::new();
        let mut flushes: SmallVec<[Option<u32>; 1]> = SmallVec::new();
        for (db, args) in &all {
            match classify(&core.arbiter, *db, args) {
                Effect::Keys(t) | Effect::Apart(t) => {
                    touches.extend(t.into_iter().filter(|t| !t.key.starts_with(b"duplex:")));
                }
                Effect::Flush(db) if self.s.decider.forwards_flush() => flushes.push(db),
                _ => {}
            }
        }
        for db in flushes.into_iter().filter(|_| end > span.echoed.0) {
            core.arbiter.recover_flush(self.here, db, end);
        }
        if end > span.echoed.0 && !touches.is_empty() {
            core.arbiter.recover_change(self.here, &touches, end);
        }
        if end > span.replied.0 {
            let written = touches.iter().filter(|t| t.class != Class::Read);
            doubtful.extend(written.map(|t| (t.db, t.key.to_vec())));
        }
    }
}
