//! What the control keys of an engine before us mean: from where each direction goes on.

use super::inherit::Inherited;
use super::{AttachOptions, Site};
use crate::engine::apply::control_key::{ControlKey, LoadPhase, Position};
use crate::engine::job::lineage::{self, Cut};
use crate::engine::job::{JobContext, JobError};
use crate::engine::link::decide::Ahead;
use crate::engine::link::rebuild::{Span, Unheard};
use crate::engine::replica::Start;
use crate::engine::strand::{SlotSet, StrandId};
use crate::model::{Direction, EventKind, ExistingKeys, Offset, ReplId, Severity, Side};
use std::collections::BTreeSet;

/// What the control keys of an engine before us mean.
pub(super) struct Plan {
    pub(super) epoch: u64,
    /// The control key of each direction where the link goes on from it.
    pub(super) from: [Option<ControlKey>; 2],
    /// The links go on: the in-flight tables have to be rebuilt, and what was being settled is taken up.
    pub(super) resume: bool,
    pub(super) two_way: bool,
    pub(super) reverse_full: bool,
    pub(super) merge: bool,
    /// By direction: what lies in between in its stream had not been told to have come back, and the site no longer has it.
    /// So the other site's stream is looked through for it.
    pub(super) unheard: [Option<Unheard>; 2],
    /// Sites whose new master lacks what was read from the old one.
    pub(super) cuts: Vec<Cut>,
    /// The forward copy was begun before and not finished, and all that the target holds is either the source's, or in
    /// the reverse stream from where that goes on.
    pub(super) left_over: bool,
    /// The slots were divided in another way before, and the links go on.
    pub(super) inherits: bool,
    /// The same, while the forward copy was under way: that begins again, and only the reverse link goes on.
    pub(super) copies_again: bool,
    /// Some of the slots were another strand's.
    pub(super) others: bool,
    pub(super) ahead: [Ahead; 2],
    /// That is noted by the name of a history that is no more.
    pub(super) renamed: [bool; 2],
    /// By side: slots that came from another of its shards.
    pub(super) moved: [SlotSet; 2],
    pub(super) parents: BTreeSet<StrandId>,
}

impl Plan {
    pub(super) fn make(
        context: &JobContext,
        sites: &[Site; 2],
        epoch: u64,
        options: AttachOptions,
        inherits: bool,
    ) -> Result<Plan, JobError> {
        let two_way = context.job.policy.two_way;
        let forward = sites[Side::Target.index()].found;
        let reverse = sites[Side::Source.index()].found.filter(|_| two_way);
        let merge = context.job.policy.existing_keys == ExistingKeys::Merge;
        let streaming = |k: &ControlKey| k.phase == LoadPhase::Streaming && k.replid.is_some();
        if forward.is_some_and(|k| streaming(&k)) && reverse.is_none() && two_way && !options.lost[1] && !inherits {
            return Err(gone(Direction::Reverse, &sites[Side::Source.index()].address));
        }
        if forward.is_none() && reverse.is_some() && !options.lost[0] && !inherits {
            return Err(gone(Direction::Forward, &sites[Side::Target.index()].address));
        }
        let from = [forward, reverse].map(|k| k.filter(streaming));
        let mut from = [from[0].filter(|_| !options.lost[0]), from[1].filter(|_| !options.lost[1])];
        let cuts = lineage::cut(&mut from, Side::BOTH.map(|side| sites[side.index()].lineage));
        let mut plan = Plan {
            epoch,
            from,
            unheard: [None; 2],
            resume: from[0].is_some() && (from[1].is_some() || !two_way),
            two_way,
            reverse_full: options.reverse_full,
            merge: merge || options.lost[1],
            inherits,
            copies_again: false,
            others: false,
            ahead: Default::default(),
            renamed: [false; 2],
            moved: Default::default(),
            parents: BTreeSet::new(),
            cuts,
            left_over: forward.is_some_and(|k| k.phase == LoadPhase::Loading)
                && !options.lost[0]
                && match context.job.policy.existing_keys {
                    ExistingKeys::Block => from[1].is_some() || !two_way,
                    ExistingKeys::Merge => from[1].is_some(),
                    // Whose they are can't be told from theirs that the target had before.
                    ExistingKeys::Ignore => false,
                },
        };
        plan.unheard =
            Direction::BOTH.map(|direction| plan.unheard(direction, sites[direction.from().index()].kept_from));
        Ok(plan)
    }

    /// A master whose backlog began a moment ago, with its copy of the one before or with its size: all that is still to be
    /// applied may be in it while what came back as echoes was noted further back.
    fn unheard(&self, direction: Direction, kept_from: Option<Offset>) -> Option<Unheard> {
        let (span, _) = self.span(direction).filter(|_| self.resume && self.two_way)?;
        let (upto, kept) = (span.applied.min(span.replied), kept_from?);
        (span.echoed < kept && kept <= upto).then_some(Unheard { after: span.echoed, upto })
    }

    pub(super) fn tell_cuts(&self, context: &JobContext) {
        for Cut { side, at, bytes } in &self.cuts {
            let other = side.other();
            let head = format!(
                "the {side}'s new master lacks the last {bytes} bytes, behind offset {at}, of what its old one had passed on"
            );
            let (severity, tail) = if self.two_way {
                (Severity::Warning, format!("what the {other} got of it is carried back"))
            } else {
                let tail =
                    format!("the {other} holds writes that the {side} has lost: compare them with duplex verify");
                (Severity::Error, tail)
            };
            context.events.emit(Some(side.outgoing()), severity, EventKind::Failover, format!("{head}; {tail}"));
        }
    }

    /// What clients did at the target to a slot that has come to another shard is in no stream that is read, and the copy
    /// writes over it: both sides end equal, but something may be lost.
    pub(super) fn tell_moved_in_copy(&self, context: &JobContext) {
        let slots = &self.moved[Side::Target.index()];
        if self.copies_again && !slots.is_empty() {
            let text = format!(
                "slots {slots} of the target have moved before the first copy had ended: the source's values stand there, and \
                 what was done at the target since the copy began may be lost"
            );
            context.events.emit(None, Severity::Warning, EventKind::ConflictDetected, text);
        }
    }

    pub(super) fn take_over(&mut self, inherited: Inherited) {
        self.ahead = inherited.ahead;
        self.moved = inherited.moved;
        self.parents = inherited.parents;
        self.others = inherited.others;
        self.copies_again = inherited.copies_again;
        self.inherits = !inherited.copies_again;
        self.unheard = [None; 2];
    }

    /// Of the direction's stream: what was replied, echoed and applied.
    pub(super) fn span(&self, direction: Direction) -> Option<(Span, [Position; 3])> {
        let own = self.from[direction as usize]?;
        if !self.two_way {
            // Nothing comes back as an echo: only what may have failed unseen is looked at again.
            let p = [own.applied, own.replied, own.applied];
            let span = Span { echoed: p[2].offset, replied: p[1].offset, applied: p[0].offset };
            return Some((span, p));
        }
        let other = self.from[direction.other() as usize]?;
        // The other link's control key stands at the site that this one reads: it says how far that site's own stream
        // had come back.
        let p = [own.applied, own.replied, other.echoed];
        let span = Span { echoed: p[2].offset, replied: p[1].offset, applied: p[0].offset };
        Some((span, p))
    }

    /// Whether echoes of what engines before us brought from this side may still come, and are to be judged by whose stream they
    /// name. Where its stream begins with a snapshot none of them says anything. Where all of the slots came from another of its
    /// shards there is no position to go on from, and they come all the same: those of that shard.
    pub(super) fn knows_echoes_of(&self, side: Side) -> bool {
        self.inherits || self.from[side.outgoing() as usize].is_some()
    }

    pub(super) fn start(&self, direction: Direction) -> Begin {
        let Some(own) = self.from[direction as usize] else {
            return match direction {
                // All of its slots came from elsewhere: from now on, and what they hold is settled by state.
                _ if self.inherits => Begin::Nothing(Start::Current),
                Direction::Forward => Begin::Snapshot,
                Direction::Reverse if self.merge => Begin::Snapshot,
                Direction::Reverse if self.reverse_full => Begin::Nothing(Start::Full { keep_snapshot: false }),
                Direction::Reverse => Begin::Nothing(Start::Current),
            };
        };
        let Some(replid) = own.replid else { return Begin::Nothing(Start::Current) };
        let at = match self.span(direction).filter(|_| self.resume) {
            Some((_, [applied, replied, _])) if self.unheard[direction as usize].is_some() => {
                applied.min_by_offset(replied)
            }
            Some((_, positions)) => positions.into_iter().min_by_key(|p| p.offset).unwrap_or(own.applied),
            None => own.applied,
        };
        Begin::Position(replid, at)
    }
}

/// How a direction's stream begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Begin {
    Snapshot,
    Nothing(Start),
    Position(ReplId, Position),
}

fn gone(direction: Direction, address: &str) -> JobError {
    JobError::needs_copy(
        direction,
        format!(
            "{address} holds no control key of this job any more: it was flushed, replaced, or restored from a copy"
        ),
        "compare both sides, then start with a new copy: duplex start --discard-previous",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(from: [bool; 2], inherits: bool) -> Plan {
        let key = ControlKey::parse(b"1 1 0 0 s - 5 0 5 0 - 0 0").expect("a control key");
        Plan {
            epoch: 2,
            from: from.map(|known| known.then_some(key)),
            resume: false,
            two_way: true,
            reverse_full: false,
            merge: false,
            unheard: [None; 2],
            cuts: Vec::new(),
            left_over: false,
            inherits,
            copies_again: false,
            others: inherits,
            ahead: Default::default(),
            renamed: [false; 2],
            moved: Default::default(),
            parents: BTreeSet::new(),
        }
    }

    /// What the shard before brought would else be taken for a position in the stream of the one that has the slots now.
    #[test]
    fn echoes_are_judged_by_their_stream_also_where_all_slots_came_from_another_shard() {
        let judged = |from, inherits| Side::BOTH.map(|side| plan(from, inherits).knows_echoes_of(side));
        assert_eq!(judged([false, false], false), [false, false], "a first copy");
        assert_eq!(judged([true, true], false), [true, true]);
        // They came to another shard of the target: its stream is read from now on.
        assert_eq!(judged([true, false], true), [true, true]);
    }
}
