//! What a strand takes over where the slots are divided in another way than when an engine last ran: a slot has moved, a
//! shard was added or taken away.
//!
//! Each slot's control key tells which strand it belonged to, and the newest key of that strand how far it was. So each
//! slot of a new strand has a position of its own in the stream that the new strand reads: the strand begins at the
//! earliest of them, and passes over what other slots have had already. A slot that came from another shard of the side
//! that is read has none: what the stream of its new owner says of it from now on is followed, and all of its keys are
//! settled by state with that side as authority ([`Inherited::moved`]). What the other side has to bring to such a slot
//! has its exact position all the same, since a slot takes its control key along.

use super::place::Found;
use crate::engine::apply::control_key::{ControlKey, LoadPhase, Position};
use crate::engine::job::JobError;
use crate::engine::link::decide::Ahead;
use crate::engine::net::Lineage;
use crate::engine::strand::{SlotSet, Strand, StrandId};
use crate::model::{Direction, Offset, ReplId, Side};
use std::collections::{BTreeSet, HashMap};

/// What a strand goes on from.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The control key of each direction, as it would be had the strand been there before. `None`: nothing is known of
    /// that stream.
    pub from: [Option<ControlKey>; 2],
    pub ahead: [Ahead; 2],
    /// By side: slots that came from another of its shards.
    pub moved: [SlotSet; 2],
    /// The strands before: their notes are read.
    pub parents: BTreeSet<StrandId>,
    /// Some of the slots were another strand's.
    pub others: bool,
    /// A copy was under way, and begins again.
    pub copies_again: bool,
}

/// What has to be known of the shard that a strand has at a side.
#[derive(Debug, Clone, Copy)]
pub struct Ground {
    /// The side is a cluster.
    pub cluster: bool,
    /// The histories of the shard's stream, where it tells them.
    pub lineage: Option<Lineage>,
    /// Where that ends.
    pub stream_end: Offset,
}

impl Ground {
    /// Whether positions in a history of this name are positions in the shard's stream.
    fn knows(&self, replid: Option<ReplId>) -> bool {
        replid.zip(self.lineage).is_some_and(|(id, lineage)| lineage.shares(id).is_some())
    }
}

/// `Ok(None)`: the slots are this strand's own since before and all are as far as it is, or they are nobody's.
pub fn inherit(
    strand: &Strand,
    grounds: [Ground; 2],
    found: &[Found; 2],
    two_way: bool,
) -> Result<Option<Inherited>, JobError> {
    let owner = |side: Side, slot: u16| {
        let first = if grounds[side.index()].cluster { side } else { side.other() };
        found[first.index()].owners.get(&slot).copied()
    };
    let mut result = Inherited::default();
    for side in Side::BOTH {
        result.parents.extend(strand.slots.iter().filter_map(|slot| owner(side, slot)));
    }
    if result.parents.is_empty() {
        return Ok(None);
    }
    let directions = if two_way { &Direction::BOTH[..] } else { &[Direction::Forward] };
    let same = result.parents.len() == 1 && result.parents.contains(&strand.id);
    let mut exact = [true; 2];
    for direction in directions {
        let (from, to) = (direction.from(), direction.to());
        let shard = grounds[from.index()];
        let mut at: Vec<(u16, Offset)> = Vec::new();
        let mut replied = HashMap::new();
        let mut base: Option<ControlKey> = None;
        for slot in strand.slots.iter() {
            let Some(key) = owner(to, slot).and_then(|id| found[to.index()].newest.get(&id)) else {
                continue;
            };
            result.copies_again |= key.phase == LoadPhase::Loading;
            if !shard.knows(key.replid) {
                if shard.cluster && !found[from.index()].by_slot.contains_key(&slot) {
                    // It may be on its way just now.
                    return Err(JobError::moving(
                        format!("slot {slot} of the {from} has come to another shard without its control key"),
                        "if it stays so, the slot has lost its data: compare both sides, then start with a new copy: \
                         duplex start --discard-previous",
                    ));
                }
                result.moved[from.index()].insert(slot);
                continue;
            }
            // What came after the slot's own last transaction, and after all that was answered, was not applied in it.
            let mut position = match found[to.index()].by_slot.get(&slot) {
                Some(own) if shard.knows(own.replid) => own.applied.offset.max(key.replied.offset),
                // From before the last failover but one: nothing that is not answered was applied since.
                Some(_) => key.replied.offset,
                None => key.applied.offset,
            };
            let noted = owner(to, slot).and_then(|id| found[to.index()].noted.get(&id));
            if let Some(noted) = noted.filter(|n| shard.knows(n.ahead.stream)) {
                position = position.max(noted.ahead.slots.get(&slot).copied().unwrap_or_default());
            }
            exact[*direction as usize] &= position == key.applied.offset;
            at.push((slot, position));
            replied.insert(slot, key.replied.offset);
            let merged = base.get_or_insert(*key);
            merged.applied = merged.applied.min_by_offset(Position { offset: position, ..key.applied });
            merged.replied = merged.replied.min_by_offset(key.replied);
        }
        let Some(mut base) = base else { continue };
        base.strand = Some(strand.id);
        base.replied = base.replied.min_by_offset(base.applied);
        let ahead: HashMap<u16, Offset> = at.into_iter().filter(|(_, o)| *o > base.applied.offset).collect();
        replied.retain(|slot, _| ahead.contains_key(slot));
        result.ahead[*direction as usize] = Ahead { replied, ..Ahead::new(ahead, base.replid) };
        result.from[*direction as usize] = Some(base);
    }
    // What had not been settled when the last engine ended.
    for noted in result.parents.iter().chain([&strand.id]).filter_map(|id| found[1].noted.get(id)) {
        for (moved, noted) in result.moved.iter_mut().zip(&noted.moved) {
            moved.add(&noted.and(&strand.slots));
        }
    }
    // Where both sides have moved a slot, the source's state stands.
    let [source, target] = &mut result.moved;
    target.remove(source);
    result.others = !same;
    if result.copies_again {
        // The copy tells all of what the source holds. What clients did at the target is in its stream alone, from where
        // each slot was left: that is gone on with, whoever had the slots.
        result.moved[Side::Source.index()] = SlotSet::none();
        result.ahead[Direction::Forward as usize] = Ahead::default();
        if let Some(key) = &mut result.from[Direction::Forward as usize] {
            key.phase = LoadPhase::Loading;
        }
        exact[Direction::Forward as usize] = true;
    }
    if same && exact == [true; 2] && result.moved.iter().all(|m| m.is_empty()) {
        return Ok(None);
    }
    // How far each stream had come back as echoes, as the link the other way knows it.
    for direction in directions {
        let stream = direction.to();
        let shard = grounds[stream.index()];
        let back = result.from[direction.other() as usize].map(|k| (k.replid, k.applied));
        let parents = strand.slots.iter().filter_map(|slot| found[stream.index()].newest.get(&owner(stream, slot)?));
        let echoed = parents.filter(|k| shard.knows(k.peer_replid)).map(|k| (k.peer_replid, k.echoed));
        let least = [echoed.reduce(less), back].into_iter().flatten().reduce(less);
        if let Some(key) = &mut result.from[*direction as usize] {
            // Together with whose stream it is a position in: the first of the keys may be from a slot that another shard had.
            // Nothing of a stream that was not read before has come back: it is read from now on. Position 0 would ask a
            // later engine for all of it, which is to be had by a copy alone.
            let now = (shard.lineage.map(|l| l.replid), Position { offset: shard.stream_end, ..Position::default() });
            (key.peer_replid, key.echoed) = least.unwrap_or(now);
        }
    }
    Ok(Some(result))
}

fn less(a: (Option<ReplId>, Position), b: (Option<ReplId>, Position)) -> (Option<ReplId>, Position) {
    if b.1.offset < a.1.offset { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(c: char) -> ReplId {
        c.to_string().repeat(40).parse().expect("a name")
    }

    fn ground(cluster: bool, own: char) -> Ground {
        let lineage = Some(Lineage { replid: history(own), before: None });
        Ground { cluster, lineage, stream_end: Offset(77_000) }
    }

    fn key(of: &Strand, own: char, applied: u64, peer: char, echoed: u64) -> ControlKey {
        ControlKey {
            epoch: 3,
            number: 9,
            serial: 9,
            phase: LoadPhase::Streaming,
            replid: Some(history(own)),
            applied: Position::new(applied, 0),
            replied: Position::new(applied, 0),
            peer_replid: Some(history(peer)),
            echoed: Position::new(echoed, 0),
            strand: Some(of.id),
        }
    }

    fn strand(slots: (u16, u16)) -> Strand {
        Strand::new(SlotSet::of(&[slots]))
    }

    /// What a strand left at a side: the control key in each of its slots.
    fn leave(found: &mut Found, of: &Strand, left: ControlKey) {
        found.newest.insert(of.id, left);
        for slot in of.slots.iter() {
            found.owners.insert(slot, of.id);
            found.by_slot.insert(slot, left);
        }
    }

    /// The source has one shard, of history `a`. At the target slot 0 was another shard's, of history `e`, and the others were
    /// always those of the one with history `b`.
    fn one_slot_came() -> (Strand, [Ground; 2], [Found; 2], [Strand; 2]) {
        let (came, stayed) = (strand((0, 0)), strand((1, 9)));
        let mut found = [Found::default(), Found::default()];
        leave(&mut found[0], &came, key(&came, 'e', 400, 'a', 4_000));
        leave(&mut found[0], &stayed, key(&stayed, 'b', 7_000, 'a', 4_100));
        leave(&mut found[1], &came, key(&came, 'a', 5_000, 'e', 300));
        leave(&mut found[1], &stayed, key(&stayed, 'a', 5_200, 'b', 6_500));
        (strand((0, 9)), [ground(true, 'a'), ground(true, 'b')], found, [came, stayed])
    }

    #[test]
    fn how_far_a_stream_had_come_back_is_told_together_with_whose_stream_it_is() {
        let (heir, grounds, found, _) = one_slot_came();
        let result = inherit(&heir, grounds, &found, true).expect("nothing is on its way").expect("it inherits");
        let forward = result.from[0].expect("the source's stream is known");
        // The first slot's key tells of 300 in e's stream: of that of b it says nothing.
        assert_eq!((forward.peer_replid, forward.echoed.offset), (Some(history('b')), Offset(6_500)));
        let reverse = result.from[1].expect("the target's stream is known of the slots that stayed");
        assert_eq!((reverse.peer_replid, reverse.echoed.offset), (Some(history('a')), Offset(4_000)));
        assert_eq!(result.moved[1].to_string(), "0");
    }

    #[test]
    fn of_a_stream_that_nobody_had_read_all_is_still_to_come() {
        let (_, grounds, mut found, [came, _]) = one_slot_came();
        for f in &mut found {
            f.newest.retain(|id, _| *id == came.id);
            f.owners.retain(|_, id| *id == came.id);
            f.by_slot.retain(|slot, _| *slot == 0);
        }
        let heir = strand((0, 0));
        let result = inherit(&heir, grounds, &found, true).expect("nothing is on its way").expect("it inherits");
        let forward = result.from[0].expect("the source's stream is known");
        assert_eq!((forward.peer_replid, forward.echoed.offset), (Some(history('b')), Offset(77_000)));
        assert!(result.from[1].is_none());
    }

    #[test]
    fn all_strands_before_are_asked_what_they_had_open() {
        let (heir, grounds, found, before) = one_slot_came();
        let result = inherit(&heir, grounds, &found, true).expect("nothing is on its way").expect("it inherits");
        assert_eq!(result.parents, before.iter().map(|s| s.id).collect());
        assert!(result.others);
    }

    /// The source has failed over twice since anything was written to a slot.
    #[test]
    fn a_slot_whose_own_key_is_too_old_has_had_what_was_answered() {
        let stayed = strand((0, 1));
        let mut found = [Found::default(), Found::default()];
        let newest = ControlKey { replied: Position::new(6_000, 0), ..key(&stayed, 'a', 7_000, 'b', 500) };
        leave(&mut found[1], &stayed, newest);
        leave(&mut found[0], &stayed, key(&stayed, 'b', 600, 'a', 5_000));
        found[1].by_slot.insert(1, key(&stayed, 'e', 5_900, 'b', 500));
        let result = inherit(&stayed, [ground(true, 'a'), ground(true, 'b')], &found, true);
        let result = result.expect("nothing is on its way").expect("one slot is ahead of the other");
        assert_eq!(result.from[0].expect("the stream is known").applied.offset, Offset(6_000));
        assert_eq!(result.ahead[0].slots, HashMap::from([(0, Offset(7_000))]));
    }

    #[test]
    fn a_strand_that_is_what_it_was_inherits_nothing() {
        let (_, grounds, mut found, [_, stayed]) = one_slot_came();
        assert!(inherit(&stayed, grounds, &found, true).expect("nothing is on its way").is_none());
        found.iter_mut().for_each(|f| *f = Found::default());
        assert!(inherit(&stayed, grounds, &found, true).expect("nothing is on its way").is_none());
    }
}
