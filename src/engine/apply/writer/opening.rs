//! A connection to the site: lost, dialled again, and what the site says was applied meanwhile.

use super::{End, Writer};
use crate::engine::apply::control_key::ControlKey;
use crate::engine::apply::transaction::Outcome;
use crate::engine::fence;
use crate::engine::gauge::Condition;
use crate::engine::net::{NetError, RawStream};
use crate::model::{EventKind, Severity};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long what was sent through a proxy may still be on its way when the connection is gone.
const AT_REST: Duration = Duration::from_secs(1);

impl Writer {
    pub(super) fn lost(&self, why: String) {
        self.s.trouble.notify_one();
        let fresh = self.s.gauge.set_condition(Condition::Reconnecting { why: why.clone() });
        if fresh {
            self.s.gauge.reconnected();
            self.s.events.emit(
                Some(self.s.direction),
                Severity::Warning,
                EventKind::Disconnected,
                format!("writing: {why}; trying again"),
            );
        }
    }

    /// Dials; on a reconnect makes sure that the old connection is dead and learns what it applied.
    pub(super) async fn open(&mut self, first: bool) -> Result<Result<RawStream, End>, NetError> {
        if let Some(stream) = self.s.opened.take() {
            return Ok(Ok(stream));
        }
        if self.s.one_at_a_time {
            return self.open_proxied(first).await;
        }
        let known = *self.s.replids[self.site.index()].read().unwrap_or_else(|p| p.into_inner());
        let (names, db) = (self.s.envelope.names.clone(), self.s.envelope.db);
        let in_db = (!names.is_cluster()).then_some(db);
        let (dialer, address) = (self.s.dialer.clone(), self.s.address.clone());
        let opened = if first {
            fence::open(&dialer, &address, in_db, known).await?
        } else {
            let apply = dialer.client_name();
            let asking = dialer.named(&apply.replacen(":apply", ":control", 1));
            let (opened, key) = if names.is_cluster() {
                let mut control = asking.control(&address).await?;
                fence::kill_clients(&mut control, &[apply]).await?;
                let slots = names.strand().map(|s| s.slots.clone()).unwrap_or_default();
                let (found, unread) = fence::read_slots(&mut control, &names, slots.iter()).await?;
                all_were_read(unread)?;
                let newest = found.iter().map(|(_, key)| *key).max_by_key(|key| (key.epoch, key.number));
                let home = names.home();
                let sent = self.window.iter().map(|t| (t.slot().or(home), t.control.number));
                let ours = newest.filter(|newest| newest.epoch == self.s.epoch);
                if ours.is_some_and(|newest| was_redirected(sent, newest, &found.into_iter().collect())) {
                    return Ok(Err(End::Redirected));
                }
                (fence::open(&dialer, &address, in_db, known).await?, newest)
            } else {
                let (key, notes) = (names.control(None), names.notes());
                let asked = fence::Asked { before: &[apply], db, key: &key, notes: &notes };
                let opened = fence::open_again(&dialer, &asking, &address, asked, known).await?;
                let key = opened.key;
                (opened, key)
            };
            if let Err(end) = self.reconcile(key) {
                return Ok(Err(end));
            }
            opened
        };
        // Behind this address (a name, a virtual one) is another server than before, or the same with another past. What
        // that means for the positions has to be looked at before anything is written.
        Ok(if opened.new_history { Err(End::WentBack) } else { Ok(opened.stream) })
    }

    /// The same through a proxy: there the old connection can't be ended, and what is behind it has no name of its own.
    async fn open_proxied(&mut self, first: bool) -> Result<Result<RawStream, End>, NetError> {
        if !first {
            // What was on its way has come through by then, or never does.
            tokio::time::sleep(AT_REST).await;
            let names = self.s.envelope.names.clone();
            let asking = self.s.dialer.named(&self.s.dialer.client_name().replacen(":apply", ":control", 1));
            let mut control = asking.control(&self.s.address).await?;
            let slots = names.strand().map(|strand| strand.slots.clone()).unwrap_or_default();
            let (found, unread) = fence::read_slots(&mut control, &names, slots.iter()).await?;
            all_were_read(unread)?;
            let key = found.into_iter().map(|(_, key)| key).max_by_key(|key| (key.epoch, key.number));
            if let Err(end) = self.reconcile(key) {
                return Ok(Err(end));
            }
        }
        self.s.dialer.raw(&self.s.address).await.map(Ok)
    }

    /// What the control key says was applied needs not be sent again.
    fn reconcile(&mut self, key: Option<ControlKey>) -> Result<(), End> {
        let Some(key) = key else {
            return if self.number == 0 { Ok(()) } else { Err(End::Gone) };
        };
        if key.epoch > self.s.epoch {
            return Err(End::Fenced);
        }
        if key.epoch < self.s.epoch || key.number < self.acked {
            return Err(End::WentBack);
        }
        // Applied, but their replies are lost: what failed in them has to be found by the keys.
        let now = Instant::now();
        let mut notes = false;
        while self.window.front().is_some_and(|t| t.control.number <= key.number) {
            let Some(t) = self.window.pop_front() else { break };
            self.window_bytes -= t.bytes;
            notes |= t.outcome != Outcome::Applied && t.items.iter().any(|i| i.kind.is_notes());
            self.unseen(&t);
            self.answered(&t, now);
        }
        for t in &mut self.window {
            t.outcome = Outcome::Pending;
        }
        if notes {
            // They may have been refused, and what was applied is what came behind them.
            let mut core = self.s.shared.lock();
            core.set_now(self.s.shared.now_ms());
            core.rewrite_notes(self.site, None);
            self.told(core);
        }
        self.tell_answered();
        Ok(())
    }
}

/// Each control key may be the one that tells. None can be read while the cluster calls itself down, nor that of a slot that is
/// moving: then it is looked again, and where slots have moved the run ends.
fn all_were_read(unread: Vec<(u16, NetError)>) -> Result<(), NetError> {
    unread.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
}

/// Of what was sent to a cluster, as slots and numbers, some was not applied though later transactions to other slots were: its
/// slot was moving, and the reply that said so is lost. Or the slot has gone, and took along how far it had come. What is
/// true of each slot is looked at by the next run; here all up to the newest number would count as applied.
fn was_redirected(
    sent: impl Iterator<Item = (Option<u16>, u64)>,
    newest: ControlKey,
    by_slot: &HashMap<u16, ControlKey>,
) -> bool {
    sent.filter(|(_, number)| *number <= newest.number).any(|(slot, number)| {
        let own = slot.and_then(|slot| by_slot.get(&slot));
        own.is_none_or(|own| (own.epoch, own.number) < (newest.epoch, number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_to_a_slot_that_was_moving_was_not_applied() {
        let newest: ControlKey = ControlKey::parse(b"1 0 0 0 s - 0 0 0 0 - 0 0").unwrap();
        let at = |epoch: u64, number: u64| ControlKey { epoch, number, ..newest };
        let newest = at(5, 9);
        let found = |pairs: &[(u16, ControlKey)]| pairs.iter().copied().collect::<HashMap<_, _>>();
        let redirected = |sent: &[(u16, u64)], by_slot: &[(u16, ControlKey)]| {
            was_redirected(sent.iter().map(|(s, n)| (Some(*s), *n)), newest, &found(by_slot))
        };
        // All that was sent was applied, or stands behind all that was.
        assert!(!redirected(&[(1, 7), (2, 8), (2, 9), (1, 10)], &[(1, at(5, 7)), (2, newest)]));
        // Slot 1 was moving when the eighth came, and no more when the ninth did.
        assert!(redirected(&[(1, 7), (1, 8), (2, 9)], &[(1, at(5, 7)), (2, newest)]));
        // Its key was written by the engine before.
        assert!(redirected(&[(1, 8), (2, 9)], &[(1, at(4, 30)), (2, newest)]));
        // It has gone.
        assert!(redirected(&[(1, 8), (2, 9)], &[(2, newest)]));
        assert!(!redirected(&[], &[(2, newest)]));
    }
}
