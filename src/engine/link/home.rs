//! The shard that a link reads from, asked whether a slot is still its own.
//!
//! A slot that moves to another shard leaves a DEL for each of its keys in the stream of the one that it leaves, which
//! looks like any client's. So a DEL is decided only when the shard has said, after the DEL was read, that it owns the
//! slot and is not giving it away. Until then the link stands still before it; if the slot has gone, the run ends and
//! the next one divides the slots anew.
//!
//! A slot may be back before the shard was asked. To take it, a shard makes itself a new epoch; so where its epoch is not what
//! it was when it was asked before the DEL, the DEL may be of a slot that was away. Then the key's state is carried, which is
//! right in either case.

use super::decide::Heard;
use crate::engine::net::{Control, Dialer, NetError, OwnSlots};
use crate::model::Offset;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Between two questions while a slot moves.
const AGAIN: Duration = Duration::from_millis(50);

pub struct Home {
    dialer: Dialer,
    address: String,
    control: Option<Control>,
    /// What it said, and up to where the stream had been read when it was asked.
    said: Option<(Offset, OwnSlots)>,
    /// From which offset on it certainly had the epoch that it has now.
    steady: Offset,
    homes: Homes,
}

/// What a job knows of its shards from one run to the next, by their addresses: the epoch of each one's configuration, and from
/// which offset on it certainly had that. It gets another with each slot that it takes.
///
/// And which slots have been coming to any of them.
#[derive(Debug, Clone, Default)]
pub struct Homes {
    epochs: Arc<Mutex<HashMap<String, (u64, Offset)>>>,
    pub heard: Heard,
}

impl Homes {
    /// A shard has this epoch, and its stream ends here. Gives from where on it has had it.
    fn seen(&self, address: &str, epoch: u64, end: Offset) -> Offset {
        let mut known = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(address) {
            Some((before, from)) if *before == epoch => *from,
            before => {
                // What lies before the first answer of all has to be believed: who asks late knows no better.
                let from = before.map_or(Offset(0), |_| end);
                known.insert(address.to_owned(), (epoch, from));
                from
            }
        }
    }
}

impl Home {
    pub fn new(dialer: Dialer, address: String, homes: Homes) -> Self {
        Home { dialer, address, control: None, said: None, steady: Offset(0), homes }
    }

    /// To be called before anything of the stream is decided: what is asked later is compared with this.
    pub async fn begin(&mut self) {
        self.look(Offset(0)).await;
    }

    /// Waits until these slots are wholly the shard's own, as of some moment after the stream was read up to `end`.
    /// `received`: how far it has been read now.
    ///
    /// Gives up to where a slot may have been away and come back unseen: a DEL before that may be no client's.
    pub async fn keeps(&mut self, slots: &[u16], end: Offset, received: impl Fn() -> Offset) -> Offset {
        loop {
            if let Some((until, own)) = &self.said
                && *until >= end
                && slots.iter().all(|s| own.keeps(*s))
            {
                return self.steady;
            }
            if self.said.as_ref().is_some_and(|(until, _)| *until >= end) {
                tokio::time::sleep(AGAIN).await;
            }
            if !self.look(received()).await {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    async fn look(&mut self, until: Offset) -> bool {
        match self.ask().await {
            Ok((own, offset)) => {
                self.steady = self.homes.seen(&self.address, own.epoch(), offset);
                self.said = Some((until, own));
                true
            }
            Err(error) => {
                tracing::debug!(address = self.address, %error, "whose the slots are could not be asked");
                self.control = None;
                false
            }
        }
    }

    /// Its slots, and then where its stream ended.
    async fn ask(&mut self) -> Result<(OwnSlots, Offset), NetError> {
        let mut control = match self.control.take() {
            Some(control) => control,
            None => self.dialer.control(&self.address).await?,
        };
        let own = OwnSlots::ask(&mut control).await?;
        let offset = control.info().await?.master_repl_offset.unwrap_or_default();
        self.control = Some(control);
        Ok((own, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_has_taken_a_slot_is_not_what_it_was() {
        let homes = Homes::default();
        assert_eq!(homes.seen("a:1", 7, Offset(100)), Offset(0));
        assert_eq!(homes.seen("a:1", 7, Offset(200)), Offset(0));
        assert_eq!(homes.seen("b:1", 9, Offset(50)), Offset(0), "each by itself");
        // In whichever run that is seen.
        let next_run = homes.clone();
        assert_eq!(next_run.seen("a:1", 10, Offset(300)), Offset(300));
        assert_eq!(homes.seen("a:1", 10, Offset(400)), Offset(300));
        assert_eq!(homes.seen("b:1", 9, Offset(500)), Offset(0));
    }
}
