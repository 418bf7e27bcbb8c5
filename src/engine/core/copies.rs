//! When a copy is certain to survive a crash.
//!
//! A snapshot's keys are in no log: a crash before all of their echoes have been read could not tell which of them were in
//! flight, nor which of them a site had refused. So the control key goes on saying that it loads until all of that is known
//! and written down; a crash before that copies again.

use super::Core;
use crate::engine::apply::control_key::LoadPhase;
use crate::model::{Offset, Side};

/// A snapshot that was read to its end.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotEnd {
    /// The serial of its last key.
    pub serial: u64,
    /// Where in the other site's stream the echo of that key ended.
    pub echoed_at: Option<Offset>,
}

impl Core {
    /// A snapshot of `side` has been handed out. Its keys are in no log: a crash before all of their echoes have been
    /// read, and before that is written down at `side`, would forget which of them were in flight. Until then the
    /// control key goes on saying that it loads.
    pub fn snapshot_read(&mut self, side: Side) {
        let serial = self.arbiter.last_serial(side.other());
        // With nothing in flight the last echo has been read already, and no other may come.
        let peer = side.other();
        let echoed_at = (self.arbiter.in_flight(peer).0 == 0).then(|| self.decided[peer.index()].offset);
        if echoed_at.is_some() {
            self.unsaved[side.index()] = (u64::MAX / 2, true);
        }
        self.snapshot_end[side.index()] = Some(SnapshotEnd { serial, echoed_at });
        self.expiries[peer.index()].bell.notify_one();
        self.look_at_snapshots();
    }

    /// To be asked now and then: has a snapshot become safe?
    pub fn look_at_snapshots(&mut self) {
        for side in Side::BOTH {
            let Some(end) = self.snapshot_end[side.index()] else { continue };
            // The link from the other site has applied its stream beyond the echoes, and said so at `side`. Of what the
            // replies to the copy had led to, all is noted there too: what has been refused and overtaken is not yet.
            let safe = self.arbiter.is_one_way()
                || self.notes_owed[side.index()] == 0
                    && end.echoed_at.is_some_and(|at| self.replied[side.index()].offset >= at);
            if safe && self.expiries[side.other().index()].are_true() {
                self.snapshot_is_safe(side);
            }
        }
    }

    fn snapshot_is_safe(&mut self, side: Side) {
        self.snapshot_end[side.index()] = None;
        self.phase[side.index()] = LoadPhase::Streaming;
        self.unsaved[side.other().index()] = (u64::MAX / 2, true);
    }

    /// A control key that no longer says that `side` is being copied is at the other site. Before that a crash would begin the
    /// copy again, so nobody else may be the authority of anything: what was withheld for it would be lost.
    pub fn streaming_is_said(&mut self, side: Side) {
        // With a merge both sites are copied; only the forward copy's end counts here.
        if self.phase[side.index()] == LoadPhase::Streaming && self.arbiter.is_loading(side) {
            self.arbiter.loading(None);
        }
    }

    /// Notes that were written again, so many times, are at a site, or have been overtaken and are to be written once more.
    pub fn notes_written(&mut self, site: Side, times: u32) {
        self.notes_owed[site.index()] = self.notes_owed[site.index()].saturating_sub(times);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::apply::control_key::Position;
    use crate::engine::arbiter::class::{Class, Part};
    use crate::engine::arbiter::{Arbiter, Touch, Verdict};
    use crate::engine::conflicts::ConflictLog;
    use crate::engine::core::SiteFacts;
    use crate::engine::events::EventSink;
    use crate::engine::strand::Names;
    use crate::wire::dialect::Dialect;

    const A: Side = Side::Source;
    const B: Side = Side::Target;

    fn loading() -> Core {
        let names = |n: &str| Names::whole(format!("duplex:job:{n}"));
        let facts =
            ["reverse", "forward"].map(|n| SiteFacts { dialect: Dialect::redis(7, 0), names: names(n), control_db: 0 });
        let mut core = Core::new(Arbiter::new(1, 1, false), facts, ConflictLog::since(0), EventSink::new(|_| ()));
        core.arbiter.loading(Some(A));
        core.phase[A.index()] = LoadPhase::Loading;
        let touch =
            Touch { db: 0, key: b"k", hash: core.arbiter.hash(0, b"k"), class: Class::Write, part: Part::WHOLE };
        assert_eq!(core.arbiter.snapshot_key(A, &touch, false), Verdict::Forward(1));
        core.snapshot_read(A);
        core
    }

    /// The echo of the last key is read at this offset of the target's stream.
    fn echoed(core: &mut Core, at: u64) {
        core.arbiter.echo(B, 1, 1);
        core.snapshot_end[A.index()] = Some(SnapshotEnd { serial: 1, echoed_at: Some(Offset(at)) });
    }

    fn is_certain(core: &mut Core) -> bool {
        core.look_at_snapshots();
        let certain = core.phase[A.index()] == LoadPhase::Streaming;
        // Until the other site's control key says so, a crash begins it again.
        assert!(core.arbiter.is_loading(A));
        core.streaming_is_said(A);
        assert_eq!(core.arbiter.is_loading(A), !certain);
        certain
    }

    #[test]
    fn a_copy_is_certain_when_its_echoes_are_written_down_at_its_site() {
        let mut core = loading();
        assert!(!is_certain(&mut core));
        echoed(&mut core, 100);
        core.replied[A.index()] = Position::new(99, 0);
        assert!(!is_certain(&mut core));
        core.replied[A.index()] = Position::new(100, 0);
        assert!(is_certain(&mut core));
    }

    /// A key of the copy was refused and overtaken, and so was what noted that at the copied site, while a checkpoint
    /// behind it went through: a crash now would leave nobody who knows of that key.
    #[test]
    fn a_copy_is_not_certain_while_notes_are_owed() {
        let mut core = loading();
        echoed(&mut core, 100);
        core.rewrite_notes(A, None);
        core.replied[A.index()] = Position::new(100, 0);
        assert!(!is_certain(&mut core));
        // Overtaken once more, and written again.
        core.rewrite_notes(A, None);
        core.notes_written(A, 1);
        assert!(!is_certain(&mut core));
        core.notes_written(A, 1);
        assert!(is_certain(&mut core));
    }
}
