//! What a cluster has redirected (MOVED, ASK, TRYAGAIN): kept apart, so that the other slots go on.
//!
//! Order matters only within a slot, so what comes later for the same slot waits behind it. If the slot has moved, the
//! run ends and the next one begins where the slot's own control key says; to find that again, `replied` stands still
//! while anything is parked. If the slot stays after all, the keys are settled by state.

use super::Writer;
use crate::engine::apply::control_key::Position;
use crate::engine::apply::outbox::{Item, ItemKind};
use crate::engine::apply::transaction::Outcome;
use crate::engine::core::Core;
use crate::engine::net::ServerError;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A slot that has not moved after so long stays where it is.
const PATIENCE: Duration = Duration::from_secs(8);
/// Bytes that are kept; then nothing more is taken until the run has ended.
const MOST: usize = 4 << 20;

#[derive(Debug, Default)]
pub(super) struct Parked {
    slots: BTreeMap<u16, (Instant, Vec<Item>)>,
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

    pub fn add(&mut self, core: &mut Core, items: Vec<Item>) {
        let Some(slot) = items.iter().find_map(|i| i.slot) else { return };
        let (_, kept) = self.slots.entry(slot).or_insert_with(|| (Instant::now(), Vec::new()));
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

    /// What has waited long enough.
    fn due(&mut self) -> Option<Vec<Item>> {
        let slot = self.slots.iter().find(|(_, (since, _))| since.elapsed() > PATIENCE).map(|(slot, _)| *slot)?;
        let (_, items) = self.slots.remove(&slot)?;
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
        self.parked.add(&mut core, t.items);
        if self.parked.slots.is_empty() {
            self.parked.held = None;
        }
        drop(core);
        shared.state_came.notify_waiters();
        shared.settle.notify_one();
    }

    /// To be called now and then.
    pub(super) fn look_at_parked(&mut self) {
        while let Some(items) = self.parked.due() {
            self.overtaken(&items);
        }
    }
}
