//! To which slots of a cluster something is on its way: a transaction to any other may go alone.

use crate::engine::apply::transaction::Transaction;
use std::collections::VecDeque;

/// Slots share places: seldom is one taken for busy that is not, as the slots of a shard are mostly in a row.
const PLACES: usize = 2048;

/// The number of the newest transaction to each slot.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    newest: Vec<u64>,
}

impl Unanswered {
    /// Whether a transaction of this window may be to that slot. Those before its first are answered; those that were taken
    /// out of it have been parked, and what is to their slots waits behind them.
    pub fn has(&self, slot: u16, window: &VecDeque<Transaction>) -> bool {
        let newest = self.newest.get(usize::from(slot) % PLACES).copied().unwrap_or(0);
        window.front().is_some_and(|first| newest >= first.control.number)
    }

    pub fn sent(&mut self, slot: u16, number: u64) {
        if self.newest.is_empty() {
            self.newest = vec![0; PLACES];
        }
        self.newest[usize::from(slot) % PLACES] = number;
    }
}
