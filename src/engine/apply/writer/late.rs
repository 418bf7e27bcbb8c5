//! One-way jobs: what came to the target so late that a key may have run out there meanwhile.
//!
//! A target expires keys by its own clock. Where the link lags by more than a key has left, the key goes there, and what the
//! source then did to it found a living one: an `INCR` begins at nothing at the target, with no error to tell of it. Two links
//! see the target's deletion come back and settle it. With one link nobody reads that, but it can be inferred:
//!
//! For a key to live at the source beyond the time at which it ran out at the target, something must have given it another
//! expiry (or none, or another value as a whole) *before* that time at the source, and that must have come to the target *after* it.
//! So among the changes to each key that is lost there is a renewal which came late. A SET that is one brings the whole value;
//! an EXPIRE or a PERSIST does not, so where one of these came late its key's state is carried. All else needs no look:
//! a key that nothing renews runs out at the source as well, whose deletion removes what was made of it at the target.
//!
//! Invariants: no change counts as in time that was applied more than [`LATE`] after it was made; one that was made less than
//! half a second later than it may have been counts as late, which costs a transfer and nothing else.

use super::Writer;
use super::replied::each_command;
use crate::engine::apply::outbox::Item;
use crate::engine::arbiter::episode::Cause;
use crate::engine::clock::StreamClock;
use crate::engine::core::expiries::is_put_off;
use crate::engine::core::{Core, Shared};
use crate::model::Side;
use crate::wire::stream::{Batch, Command};
use std::time::{Duration, Instant};

/// A source is looked at twice a second, so younger is not known of what was just made.
const LATE: Duration = Duration::from_millis(1_000);

/// The first change of an item may have been made longer than [`LATE`] before now, when the reply to it is seen.
pub(super) fn came_late(item: &Item, clock: &StreamClock, shared: &Shared, now: Instant) -> bool {
    // Before the first look it may have been made while no engine ran, and the job's clock did not either.
    let Some(made) = clock.lock().not_before(item.begin) else { return true };
    shared.us_at(now).saturating_sub(made) > LATE.as_micros() as u64
}

impl Writer {
    /// These commands of an item renewed keys, and came late.
    #[cold]
    pub(super) fn renewed(&self, core: &mut Core, item: &Item, commands: &[u32]) {
        // While a copy is caught up with, nothing expires at the target by itself.
        if core.expiries[self.site.index()].put_off() {
            return;
        }
        let mut commands = commands.iter().peekable();
        // What was put off before it was in step, and is answered only now, is set to its true time with all others.
        let is_put_off = |batch: &Batch, command: &Command| {
            let args = batch.args(command);
            args.get(2).and_then(atoi::atoi::<u64>).is_some_and(is_put_off)
        };
        each_command(item, |at, batch, command| {
            if commands.next_if(|c| **c == at).is_some() && !is_put_off(batch, command) {
                self.differs_in(core, batch, command, Side::Source, Cause::Expiry);
            }
        });
        core.carry_out();
    }

    /// A command answered nil. A SET that took effect at its source has not, at the target: with XX, of a key that has run out.
    #[cold]
    pub(super) fn answered_nil(&self, core: &mut Core, item: &Item, index: u32) {
        if self.s.two_way {
            return;
        }
        each_command(item, |at, batch, command| {
            if at == index && batch.args(command).get(0).is_some_and(|name| name.eq_ignore_ascii_case(b"set")) {
                self.differs_in(core, batch, command, Side::Source, Cause::Expiry);
            }
        });
        core.carry_out();
    }
}
