//! What a failover does to the positions of an engine before us, and how they are cut back.
//!
//! ```text
//!   the stream that was read   ├───── shared ─────┤╌╌╌╌ only the old master had this ╌╌╌╌▶ applied
//!   the new master's stream    ├───── shared ─────┼────── its own history ──────▶
//!                                                 cut
//! ```
//!
//! Two things may have been lost with the old master, and each is found by itself:
//! - what *we had written* there: the control key that the new master holds is from before it, so the other site's
//!   stream is applied again from there, once;
//! - what *clients had written* there and we had applied at the other site already: the position in the control key at
//!   that other site lies behind the cut. It is set back to the cut, and the echoes in the other site's stream that name
//!   a position behind it are no echoes any more: nobody but that site holds their changes. Their keys are carried back
//!   as state (`link/decide`). All of them stand behind the position from which that stream is read again: each was sent
//!   after something had been read that the new master's control key does not know of.
//!
//! Invariants: a position never lies behind the cut of the history that it is resumed in; what came back as an echo is
//! never more than what is applied.

use crate::engine::apply::control_key::{ControlKey, Position};
use crate::engine::link::UNKNOWN_DB;
use crate::engine::net::Lineage;
use crate::model::{Direction, Offset, ReplId, Side};

/// A site's new master lacks the end of what had been read from the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The site that failed over.
    pub side: Side,
    /// Where the histories part.
    pub at: Offset,
    /// Bytes of the old master's stream behind it that are applied at the other site.
    pub bytes: u64,
}

/// Cuts the positions of both directions' control keys (where their links go on from them) back to what the sites'
/// streams hold now.
pub fn cut(keys: &mut [Option<ControlKey>; 2], lineages: [Option<Lineage>; 2]) -> Vec<Cut> {
    let mut cuts = Vec::new();
    for direction in Direction::BOTH {
        let side = direction.from();
        let Some(lineage) = lineages[side.index()] else { continue };
        let upto = |replid: Option<ReplId>| replid.and_then(|id| lineage.shares(id));
        if let Some(own) = &mut keys[direction as usize]
            && let Some(at) = upto(own.replid)
        {
            if own.applied.offset > at {
                cuts.push(Cut { side, at, bytes: own.applied.offset.since(at) });
            }
            own.applied = back(own.applied, at);
            own.replied = back(own.replied, at);
        }
        // The other direction's key stands at this site, and says how far this site's stream had come back.
        if let Some(other) = &mut keys[direction.other() as usize]
            && let Some(at) = upto(other.peer_replid)
        {
            other.echoed = back(other.echoed, at);
        }
    }
    if let [Some(forward), Some(reverse)] = keys {
        forward.echoed = forward.echoed.min_by_offset(reverse.applied);
        reverse.echoed = reverse.echoed.min_by_offset(forward.applied);
    }
    cuts
}

/// A new master begins its own history by naming its database, so the one at the cut need not be known.
fn back(position: Position, at: Offset) -> Position {
    if position.offset > at { Position { offset: at, db: UNKNOWN_DB } } else { position }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::apply::control_key::LoadPhase;

    fn id(c: char) -> ReplId {
        c.to_string().repeat(40).parse().unwrap()
    }

    fn key(own: char, applied: u64, replied: u64, peer: char, echoed: u64) -> ControlKey {
        ControlKey {
            epoch: 1,
            number: 9,
            serial: 9,
            phase: LoadPhase::Streaming,
            replid: Some(id(own)),
            applied: Position::new(applied, 0),
            replied: Position::new(replied, 0),
            peer_replid: Some(id(peer)),
            echoed: Position::new(echoed, 0),
            strand: None,
        }
    }

    #[test]
    fn a_position_behind_the_promotion_is_cut_back_to_it() {
        // Given a target that failed over at 500, with the source's stream applied up to 900 by what it still holds.
        let at_target = key('a', 900, 880, 'b', 450);
        let at_source = key('b', 700, 480, 'a', 1_000);
        let lineages = [
            Some(Lineage { replid: id('a'), before: None }),
            Some(Lineage { replid: id('c'), before: Some((id('b'), Offset(500))) }),
        ];
        let mut keys = [Some(at_target), Some(at_source)];
        let cuts = cut(&mut keys, lineages);
        assert_eq!(cuts, [Cut { side: Side::Target, at: Offset(500), bytes: 200 }]);
        let [forward, reverse] = keys.map(Option::unwrap);
        assert_eq!(forward, at_target, "what is at the new master is as it says");
        assert_eq!(reverse.applied, Position { offset: Offset(500), db: UNKNOWN_DB });
        assert_eq!(reverse.replied, at_source.replied);
        assert_eq!(reverse.echoed.offset, Offset(900), "echoes of what is lost are lost");
    }

    #[test]
    fn positions_that_are_shared_or_of_nobody_stay() {
        let same = [Some(key('a', 900, 880, 'b', 450)), Some(key('b', 700, 480, 'a', 800))];
        let lineages =
            [Some(Lineage { replid: id('a'), before: None }), Some(Lineage { replid: id('b'), before: None })];
        let mut keys = same;
        assert_eq!((cut(&mut keys, lineages), keys), (vec![], same));
        let strange = [lineages[0], Some(Lineage { replid: id('d'), before: Some((id('e'), Offset(1))) })];
        assert_eq!((cut(&mut keys, strange), keys), (vec![], same), "PSYNC answers for those");
    }
}
