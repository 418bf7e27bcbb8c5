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

use crate::engine::net::{Control, Dialer, NetError, OwnSlots};
use crate::model::Offset;
use std::time::Duration;

/// Between two questions while a slot moves.
const AGAIN: Duration = Duration::from_millis(50);

pub struct Home {
    dialer: Dialer,
    address: String,
    control: Option<Control>,
    /// What it said, and up to where the stream had been read when it was asked.
    said: Option<(Offset, OwnSlots)>,
    /// Its configuration's epoch, and from which offset on it certainly had that: it gets another with each slot that it takes.
    steady: Option<(u64, Offset)>,
}

impl Home {
    pub fn new(dialer: Dialer, address: String) -> Self {
        Home { dialer, address, control: None, said: None, steady: None }
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
                return self.steady.map_or(Offset(0), |(_, from)| from);
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
                match self.steady {
                    Some((epoch, _)) if epoch == own.epoch() => {}
                    // What lies before the first answer has to be believed: who asks late knows no better.
                    None => self.steady = Some((own.epoch(), Offset(0))),
                    Some(_) => self.steady = Some((own.epoch(), offset)),
                }
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
