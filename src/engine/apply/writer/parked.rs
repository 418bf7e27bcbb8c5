//! What a cluster has redirected (MOVED, ASK, TRYAGAIN): kept apart, so that the other slots go on.
//!
//! Order matters only within a slot, so what comes later for the same slot waits behind it, and nothing of the slot is
//! applied any more ([`Names::never`](crate::engine::strand::Names::never)). When the slot has moved the run ends, and
//! the next one begins where the slot's own control key says; so it does when the slot stays where it is after all. While
//! anything is parked `replied` stands still, and the link that reads this site decides nothing of such a slot
//! ([`Core::parked`]): what is parked is concurrent with it, and later echoes no longer tell so.

use super::Writer;
use crate::engine::apply::control_key::Position;
use crate::engine::apply::outbox::{Item, ItemKind};
use crate::engine::apply::transaction::{Outcome, Transaction};
use crate::engine::core::Core;
use crate::engine::net::ServerError;
use crate::model::Side;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A slot that has not moved after so long is looked at anew by another run.
const PATIENCE: Duration = Duration::from_secs(8);
/// Bytes that are kept; then nothing more is taken until the run has ended.
const MOST: usize = 4 << 20;

#[derive(Debug, Default)]
pub(super) struct Parked {
    /// Since when, the number of the first transaction that was redirected, and what it and those behind it hold.
    slots: BTreeMap<u16, (Instant, u64, Vec<Item>)>,
    bytes: usize,
    /// Up to here all replies had been seen when the first was parked.
    held: Option<Position>,
}

impl Parked {
    pub fn is_full(&self) -> bool {
        self.bytes >= MOST
    }

    /// Where `replied` stands still.
    pub fn held(&self) -> Option<Position> {
        self.held
    }

    pub fn holds(&self, slot: u16) -> bool {
        self.slots.contains_key(&slot)
    }

    /// These have to wait behind what is parked of their slot.
    pub fn wants(&self, items: &[Item]) -> bool {
        !self.slots.is_empty() && items.iter().find_map(|i| i.slot).is_some_and(|s| self.slots.contains_key(&s))
    }

    pub fn add(&mut self, core: &mut Core, site: Side, number: u64, items: Vec<Item>) {
        let Some(slot) = items.iter().find_map(|i| i.slot) else { return };
        core.parked[site.index()].insert(slot);
        let (.., kept) = self.slots.entry(slot).or_insert_with(|| (Instant::now(), number, Vec::new()));
        for item in items {
            if let ItemKind::Ask(token) = item.kind {
                // Nobody may wait for its state.
                let now = core.now_ms();
                core.arbiter.token_lost(token, now);
                continue;
            }
            self.bytes += item.data.len();
            kept.push(item);
        }
    }

    /// Something has waited too long.
    fn is_overdue(&self) -> bool {
        self.slots.values().any(|(since, ..)| since.elapsed() > PATIENCE)
    }

    /// What is parked of this slot, no longer.
    fn give_back(&mut self, core: &mut Core, site: Side, slot: u16) -> Option<Vec<Item>> {
        let (.., items) = self.slots.remove(&slot)?;
        core.parked[site.index()].remove(&slot);
        self.bytes -= items.iter().map(|i| i.data.len()).sum::<usize>();
        if self.slots.is_empty() {
            self.held = None;
        }
        Some(items)
    }
}

impl Writer {
    /// Parks the transaction at this place of the window, if it was redirected.
    pub(super) fn park(&mut self, place: usize) {
        if !self.s.envelope.names.is_cluster() {
            return;
        }
        let redirected = |text: &str| {
            matches!(ServerError::classify(text), ServerError::Moved | ServerError::Ask | ServerError::TryAgain)
        };
        let Some(Outcome::Refused(text)) = self.window.get(place).map(|t| &t.outcome) else { return };
        if !redirected(text) {
            return;
        }
        tracing::debug!(direction = %self.s.direction, text, "redirected");
        self.s.trouble.notify_one();
        let Some(t) = self.window.remove(place) else { return };
        self.window_bytes -= t.bytes;
        self.parked.held.get_or_insert(self.replied);
        let shared = self.s.shared.clone();
        let mut core = shared.lock();
        core.set_now(shared.now_ms());
        if t.items.is_empty() {
            // A bare checkpoint: another will do.
            core.unsaved[self.site.index()].0 += 1;
            core.unsaved[self.site.index()].1 = true;
        }
        self.parked.add(&mut core, self.site, t.control.number, t.items);
        if self.parked.slots.is_empty() {
            self.parked.held = None;
        }
        drop(core);
        shared.state_came.notify_waiters();
        shared.settle.notify_one();
    }

    /// Whether the run has to end since a slot has been moving for so long.
    pub(super) fn parked_too_long(&self) -> bool {
        self.parked.is_overdue()
    }

    /// This transaction was applied: what is parked of its slot can't come before it any more. It had been sent before
    /// the slot began to move, or after that was given up again.
    pub(super) fn overtakes_parked(&mut self, t: &Transaction) {
        let slot = t.items.iter().find_map(|i| i.slot).or(self.s.envelope.names.home());
        let behind = |slot: &u16| self.parked.slots.get(slot).is_some_and(|(_, first, _)| *first < t.control.number);
        let Some(slot) = slot.filter(behind) else { return };
        let shared = self.s.shared.clone();
        let items = self.parked.give_back(&mut shared.lock(), self.site, slot);
        self.overtaken(&items.unwrap_or_default());
    }
}
