//! What a job has left at both sides goes.

use super::client_name;
use crate::engine::fence;
use crate::engine::job::JobError;
use crate::engine::net::Dialer;
use crate::engine::strand::{Names, SlotSet, Strand};
use crate::model::{Job, JobId, Side};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Deletes what a job has left at both sides, after shutting out its engine.
pub async fn remove_control_keys(job: &Job, id: &JobId) -> Result<(), JobError> {
    let db = job.policy.databases.first();
    let any = Arc::new(Strand::new(SlotSet::all()));
    let mut maps = Vec::new();
    // A one-way job writes nothing at its source, and may have no right to.
    for side in Side::BOTH.into_iter().filter(|s| *s == Side::Target || job.policy.two_way) {
        let named = Dialer::new(job.instance(side), &client_name(id, "control", None));
        let masters = named.masters().await?;
        maps.push((id.control_key(side.incoming()), named, masters));
    }
    // What is called by a strand's name at a standalone side is known from the cluster at the other.
    maps.sort_by_key(|(.., masters)| masters.iter().all(|m| m.slots.is_empty()));
    let mut strands = BTreeSet::new();
    for (base, named, masters) in maps {
        for master in masters {
            let mut control = named.control(&master.address).await?;
            let (apply, replica) = (client_name(id, "apply", None), client_name(id, "replica", None));
            fence::kill_clients(&mut control, &[&apply, &replica]).await?;
            if !master.slots.is_empty() {
                let slots = SlotSet::of(&master.slots);
                let names = Names::of(base.clone(), any.clone(), true);
                let (found, _) = fence::read_slots(&mut control, &names, slots.iter()).await?;
                strands.extend(found.into_iter().filter_map(|(_, key)| key.strand));
                fence::delete_slots(&mut control, &names, slots.iter()).await?;
                continue;
            }
            let by_strand = Names::of(base.clone(), any.clone(), false);
            strands.extend(fence::read_roll(&mut control, db, &by_strand).await?);
            fence::delete_keys(&mut control, db, &[&by_strand.roll()]).await?;
            for names in
                std::iter::once(Names::whole(base.clone())).chain(strands.iter().map(|s| by_strand.of_sibling(*s)))
            {
                let own = [names.control(None), names.notes(), names.part(b"")];
                fence::delete_keys(&mut control, db, &own.each_ref().map(|k| &k[..])).await?;
            }
        }
    }
    Ok(())
}
