//! Bare checkpoints: transactions with nothing but the control key, when positions have moved and nothing carries them.
//!
//! Each comes back as an echo and moves positions itself, those of all strands that read that shard. So where nothing but that is
//! seen the next one waits twice as long, and a job at rest comes to rest. It is written all the same: a replica that is
//! promoted holds its stream from when it was last synchronized, and a position from before that would be lost with the master.

use super::{At, Writer};
use crate::engine::apply::control_key::{ControlKey, LoadPhase};
use crate::engine::apply::outbox::Item;
use crate::engine::apply::writer::Order;
use crate::engine::core::{Core, checkpoint_due};
use crate::model::Offset;
use std::time::Duration;

/// A bare checkpoint is written when enough of the source has been decided without one, or after this time.
const EVERY: Duration = Duration::from_millis(1000);
/// So many bytes are more than checkpoints that come back.
const MORE_THAN_OURS: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Checkpoints {
    /// What the newest control key says of this site's own stream: so much of that had come back.
    pub said_back: Offset,
    /// After so long even a little is written down.
    patience: Duration,
}

impl Checkpoints {
    pub fn from(said_back: Offset) -> Self {
        Checkpoints { said_back, patience: EVERY }
    }

    /// Whether one is due: so long after the last transaction, with so many bytes of the source decided since (`real`: among them
    /// more than our own checkpoints), and so much of this site's stream come back.
    fn are_due(&self, (bytes, real): (u64, bool), back: Offset, since: Duration) -> bool {
        let moved = self.moved(bytes, back);
        let much = checkpoint_due((bytes, real)) || checkpoint_due((moved, false));
        much || since >= EVERY && (real || moved >= MORE_THAN_OURS) || since >= self.patience && moved > 0
    }

    fn written(&mut self, (bytes, real): (u64, bool), back: Offset) {
        let quiet = !real && self.moved(bytes, back) < MORE_THAN_OURS;
        self.patience = if quiet { self.patience.saturating_mul(2) } else { EVERY };
    }

    /// Something else has carried the positions: what follows it is not only ours.
    pub fn carried(&mut self) {
        self.patience = EVERY;
    }

    fn moved(&self, bytes: u64, back: Offset) -> u64 {
        bytes.max(back.0.saturating_sub(self.said_back.0))
    }
}

impl Writer {
    pub(super) fn checkpoint(&mut self, core: &mut Core) -> Option<(Vec<Item>, ControlKey)> {
        let i = self.site.index();
        let unsaved = core.unsaved[i];
        let draining = *self.s.order.borrow() == Order::Drain;
        let echoed = core.come_back(self.site.other());
        // While something is parked positions stand still, or move with what is real.
        let quiet = unsaved.0 == 0 || !unsaved.1;
        let due = draining && unsaved.0 > 0
            || !(quiet && self.parked.held().is_some())
                && self.checkpoints.are_due(unsaved, echoed.offset, self.saved.elapsed());
        // While a snapshot loads there is no position to save.
        // Nor may a slot's control key say more than the slot has had.
        let waits = self.s.envelope.names.home().is_some_and(|home| self.parked.holds(home));
        if !due || waits || core.phase[self.site.other().index()] == LoadPhase::Loading {
            return None;
        }
        self.checkpoints.written(unsaved, echoed.offset);
        core.unsaved[i] = (0, false);
        let from = self.site.other().index();
        let serial = core.arbiter.last_serial(self.site);
        let at = At {
            serial,
            position: core.decided[from],
            echoed,
            // Where nothing is unanswered, there is nothing whose reply is to be waited for.
            replied: if self.window.is_empty() { core.decided[from] } else { core.replied[i] },
            phase: core.phase[from],
        };
        Some((Vec::new(), self.control_key(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_real_is_written_down_after_a_second_and_much_at_once() {
        let new = Checkpoints::from(Offset(1_000));
        let back = Offset(1_000);
        assert!(!new.are_due((0, false), back, SECOND * 1_000), "nothing has moved");
        assert!(!new.are_due((100, true), back, SECOND / 2) && new.are_due((100, true), back, SECOND));
        assert!(new.are_due((64 << 10, true), back, Duration::ZERO));
        assert!(!new.are_due((64 << 10, false), back, SECOND / 2) && new.are_due((64 << 10, false), back, SECOND));
        assert!(new.are_due((1 << 20, false), back, Duration::ZERO));
        // What has come back counts as well.
        assert!(new.are_due((0, false), Offset(1_000 + (1 << 20)), Duration::ZERO));
        assert!(new.are_due((0, false), Offset(1_001), SECOND));
    }

    #[test]
    fn a_job_at_rest_comes_to_rest() {
        // Two sites at rest: each checkpoint at one is a few bytes to be written down at the other.
        let mut sites = [Checkpoints::from(Offset(0)), Checkpoints::from(Offset(0))];
        let (mut last, mut unsaved, mut written) = ([0u64; 2], [300u64, 0], Vec::new());
        for now in 0..100_000u64 {
            for n in 0..2 {
                let since = Duration::from_secs(now - last[n]);
                if sites[n].are_due((unsaved[n], false), Offset(0), since) {
                    sites[n].written((unsaved[n], false), Offset(0));
                    (unsaved[n], last[n]) = (0, now);
                    unsaved[1 - n] += 350;
                    written.push(now);
                }
            }
        }
        assert!(written.len() < 40, "{written:?}");
        assert!(written.iter().filter(|at| **at < 60).count() >= 6, "within a minute all is written down: {written:?}");
        // Something real ends that, be it written down or carry something.
        assert!(sites.iter().all(|site| !site.are_due((1, false), Offset(0), SECOND)));
        sites[0].written((100, true), Offset(0));
        sites[1].carried();
        assert!(sites.iter().all(|site| site.are_due((1, false), Offset(0), SECOND)));
    }
}
