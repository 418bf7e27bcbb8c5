//! The shard that a link reads from, asked whether a slot is still its own.
//!
//! A slot that moves to another shard leaves a DEL for each of its keys in the stream of the one that it leaves, which
//! looks like any client's. So a DEL is decided only when the shard has said, after the DEL was read, that it owns the
//! slot and is not giving it away. Until then the link stands still before it; if the slot has gone, the run ends and
//! the next one divides the slots anew.

use crate::engine::net::{Control, Dialer, OwnSlots};
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
}

impl Home {
    pub fn new(dialer: Dialer, address: String) -> Self {
        Home { dialer, address, control: None, said: None }
    }

    /// Waits until these slots are wholly the shard's own, as of some moment after the stream was read up to `end`.
    /// `received`: how far it has been read now.
    pub async fn keeps(&mut self, slots: &[u16], end: Offset, received: impl Fn() -> Offset) {
        loop {
            if let Some((until, own)) = &self.said
                && *until >= end
                && slots.iter().all(|s| own.keeps(*s))
            {
                return;
            }
            if self.said.as_ref().is_some_and(|(until, _)| *until >= end) {
                tokio::time::sleep(AGAIN).await;
            }
            let until = received();
            match self.ask().await {
                Ok(own) => self.said = Some((until, own)),
                Err(error) => {
                    tracing::debug!(address = self.address, %error, "whose the slots are could not be asked");
                    self.control = None;
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn ask(&mut self) -> Result<OwnSlots, crate::engine::net::NetError> {
        let mut control = match self.control.take() {
            Some(control) => control,
            None => self.dialer.control(&self.address).await?,
        };
        let own = OwnSlots::ask(&mut control).await?;
        self.control = Some(control);
        Ok(own)
    }
}
