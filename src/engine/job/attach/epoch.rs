//! The raised epoch: it shuts out an engine before us, and begins our own positions.

use super::plan::{Begin, Plan};
use super::{Ready, Site};
use crate::engine::apply::control_key::{ControlKey, LoadPhase, Position};
use crate::engine::fence;
use crate::engine::job::JobError;
use crate::model::{Direction, Side};

/// Writes our epoch into the control key that this direction writes, so that an older engine is shut out, a crash from
/// now on is recovered from here, and the stream of that site shows a marker of ours.
pub(super) async fn raise_epoch(
    ready: &Ready,
    direction: Direction,
    begin: Begin,
    at: Position,
    begins: &[Position; 2],
    plan: &Plan,
) -> Result<(), JobError> {
    let replid = |side: Side| ready.replids[side.index()].read().map(|r| *r).unwrap_or_else(|p| *p.into_inner());
    let (from, to) = (direction.from(), direction.to());
    let key = ControlKey {
        epoch: ready.epoch,
        number: 0,
        serial: 0,
        phase: if matches!(begin, Begin::Snapshot) { LoadPhase::Loading } else { LoadPhase::Streaming },
        replid: replid(from),
        applied: at,
        replied: at,
        peer_replid: replid(to),
        // Of a stream that is not attached yet it is known where it will be.
        echoed: plan.from[direction.other() as usize].map_or(begins[to.index()], |k| k.applied),
        strand: ready.strand.as_ref().map(|s| s.id),
    };
    let key = match plan.from[direction as usize] {
        // It goes on from where it was; the epoch is new, and perhaps the names of the histories.
        Some(found) => ControlKey {
            epoch: ready.epoch,
            number: 0,
            serial: 0,
            replid: replid(from),
            peer_replid: replid(to).or(found.peer_replid),
            ..found
        },
        None => key,
    };
    let db = ready.control_db;
    let fresh = plan.from[direction as usize].is_none() && !plan.inherits;
    if fresh && !plan.copies_again {
        // Conflicts that were open before a new copy are settled by it, wherever they were noted.
        // A one-way job may write nothing at its source.
        let both = plan.two_way && direction == Direction::Forward;
        for side in Side::BOTH.into_iter().filter(|s| *s == to || both) {
            let Site { control, names, .. } = &ready.sites[side.index()];
            fence::delete_keys(&mut control.clone(), db, &[&names.notes()]).await?;
        }
    }
    let Site { control, names, .. } = &ready.sites[to.index()];
    let control = &mut control.clone();
    match names.strand().filter(|_| names.is_cluster() && (fresh || plan.others)) {
        // In every slot, so that each tells for ever whose it is: a slot may come to another strand.
        Some(strand) => fence::write_slots(control, names, strand.slots.iter(), &key).await?,
        None => fence::write_control_key(control, db, &names.control(None), &key).await?,
    }
    Ok(())
}
