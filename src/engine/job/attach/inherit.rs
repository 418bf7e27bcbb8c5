//! What a strand takes over where the slots are divided in another way than when an engine last ran: a slot has moved, a
//! shard was added or taken away.
//!
//! Each slot's control key tells which strand it belonged to, and the newest key of that strand how far it was. So each
//! slot of a new strand has a position of its own in the stream that the new strand reads: the strand begins at the
//! earliest of them, and passes over what other slots have had already. A slot that came from another shard of the side
//! that is read has none: what the stream of its new owner says of it from now on is followed, and all of its keys are
//! settled by state with that side as authority ([`Inherited::moved`]). What the other side has to bring to such a slot
//! has its exact position all the same, since a slot takes its control key along.

use super::place::{Found, Place};
use crate::engine::apply::control_key::{ControlKey, LoadPhase, Position};
use crate::engine::job::JobError;
use crate::engine::link::decide::Ahead;
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

/// `Ok(None)`: the slots are this strand's own since before and all are as far as it is, or they are nobody's.
pub fn inherit(
    strand: &Strand,
    shards: [usize; 2],
    places: &[Place; 2],
    found: &[Found; 2],
    two_way: bool,
) -> Result<Option<Inherited>, JobError> {
    let owner = |side: Side, slot: u16| {
        let first = if places[side.index()].cluster { side } else { side.other() };
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
        let shard = &places[from.index()].shards[shards[from.index()]];
        let mut at: Vec<(u16, Offset)> = Vec::new();
        let mut replied = HashMap::new();
        let mut base: Option<ControlKey> = None;
        for slot in strand.slots.iter() {
            let Some(key) = owner(to, slot).and_then(|id| found[to.index()].newest.get(&id)) else {
                continue;
            };
            result.copies_again |= key.phase == LoadPhase::Loading;
            if !shard.knows(key.replid) {
                if places[from.index()].cluster && !found[from.index()].by_slot.contains_key(&slot) {
                    // It may be on its way just now.
                    return Err(JobError::passing(
                        format!("slot {slot} of the {from} has come to another shard without its control key"),
                        "if it stays so, the slot has lost its data: compare both sides, then start with a new copy: \
                         duplex start --discard-previous",
                    ));
                }
                result.moved[from.index()].insert(slot);
                continue;
            }
            // What came after the slot's own last transaction, and after all that was answered, was not applied in it.
            let own = found[to.index()].by_slot.get(&slot).filter(|own| shard.knows(own.replid));
            let mut position = match own {
                Some(own) => own.applied.offset.max(key.replied.offset),
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
            merged.applied = earlier(merged.applied, Position { offset: position, ..key.applied });
            merged.replied = earlier(merged.replied, key.replied);
        }
        let Some(mut base) = base else { continue };
        base.strand = Some(strand.id);
        base.replied = earlier(base.replied, base.applied);
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
        let shard = &places[stream.index()].shards[shards[stream.index()]];
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

fn earlier(a: Position, b: Position) -> Position {
    if b.offset < a.offset { b } else { a }
}
