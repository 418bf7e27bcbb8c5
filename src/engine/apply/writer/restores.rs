//! What became of the states that a writer wrote: tried again, given up, or well.

use super::Writer;
use crate::engine::apply::outbox::{Item, ItemKind};
use crate::engine::apply::transaction::Transaction;
use crate::engine::arbiter::Token;
use crate::engine::arbiter::Touch;
use crate::engine::arbiter::class::{Class, Part};
use crate::engine::core::Core;
use crate::wire::stream::{Batch, Decoder};

impl Writer {
    /// A state could not be written: another round, or the key is given up.
    pub(super) fn restore_failed(&self, core: &mut Core, item: &Item, token: Token, reply: &str) {
        self.s.gauge.apply_error();
        with_key(core, item, |core, touch| core.restore_failed(self.site, touch, token, reply));
        core.carry_out();
    }

    /// The replies to a transaction were seen: keys that had been given up may be well again.
    pub(super) fn restores_answered(&self, t: &Transaction) {
        let restored = |i: &&Item| matches!(i.kind, ItemKind::Restore(_)) && !i.data.is_empty();
        if !t.items.iter().any(|i| restored(&i)) {
            return;
        }
        let mut core = self.s.shared.lock();
        if core.given_up.is_empty() {
            return;
        }
        for item in t.items.iter().filter(restored) {
            let ItemKind::Restore(token) = item.kind else { continue };
            with_key(&mut core, item, |core, touch| core.restore_answered(self.site, touch, token));
        }
    }
}

/// Calls with the key that a state's commands write: the first argument of the first of them.
fn with_key(core: &mut Core, item: &Item, call: impl FnOnce(&mut Core, &Touch<'_>)) {
    let (mut decoder, mut batch) = (Decoder::new(item.db.unwrap_or(0)), Batch::default());
    let Ok(1..) = decoder.decode(&item.data, &mut batch) else { return };
    let Some(first) = batch.commands.first() else { return };
    let args = batch.args(first);
    let Some(key) = args.get(1) else { return };
    let touch =
        Touch { db: first.db, key, hash: core.arbiter.hash(first.db, key), class: Class::Write, part: Part::WHOLE };
    call(core, &touch);
}
