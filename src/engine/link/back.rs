//! Which slots came to the shard that is read between where the link goes on and where the shard's stream ends now.

use super::{Link, LinkError};
use crate::engine::strand::SlotSet;
use crate::model::Offset;
use crate::wire::stream::{Batch, Decoder};
use bytes::Buf;

impl Link {
    /// Looks ahead, up to `end`, for slots that were away and are back. What is read is kept for the run.
    pub async fn came_back(&mut self, end: Offset) -> Result<SlotSet, LinkError> {
        self.read_up_to(end).await?;
        let (mut decoder, mut batch) = (Decoder::new(self.decoder.db()), Batch::default());
        let (mut rest, mut seen) = (self.rest.clone(), self.s.decider.look_ahead());
        while !rest.is_empty() {
            let used = decoder.decode(&rest, &mut batch);
            let used = used.map_err(|e| LinkError::Stream { address: self.s.replica.address(), why: e.to_string() })?;
            if used == 0 {
                break;
            }
            batch.entries.iter().for_each(|entry| seen.see(&batch, entry));
            rest.advance(used);
        }
        let until = Offset(self.read_until());
        let slots = self.s.decider.came_back(seen, until);
        self.s.shared.lock().arbiter.came_back(self.here, slots.clone());
        Ok(slots)
    }
}
