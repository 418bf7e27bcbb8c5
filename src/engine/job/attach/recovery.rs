//! Recovery, before anything is applied: the tables rebuilt, what was open opened, what is doubtful settled.

use super::plan::{Begin, Plan};
use super::{Ready, Site, UNKNOWN_DB, position_lost};
use crate::engine::arbiter::Touch;
use crate::engine::arbiter::class::{Class, Part};
use crate::engine::arbiter::episode::Cause;
use crate::engine::conflicts::shown;
use crate::engine::fence;
use crate::engine::job::{JobContext, JobError};
use crate::engine::link::LinkError;
use crate::engine::link::rebuild::{Lost, Unheard};
use crate::model::{EventKind, Severity, Side};
use std::collections::HashMap;

/// The three steps of recovery.
pub(super) async fn recover(context: &JobContext, ready: &mut Ready, plan: &Plan) -> Result<(), JobError> {
    let mut doubtful = Vec::new();
    for attached in ready.links.iter_mut().filter(|_| plan.resume) {
        let Some((span, _)) = plan.span(attached.direction) else { continue };
        let failed = |e| match e {
            LinkError::UnknownDb => JobError::passing(UNKNOWN_DB, ""),
            e => JobError::passing(e.to_string(), "it is tried again"),
        };
        let source = attached.direction.from();
        tracing::debug!(
            direction = %attached.direction,
            address = ready.sites[source.index()].address,
            strand = ready.strand.as_ref().map(|s| s.id.to_string()),
            echoed = %span.echoed,
            replied = %span.replied,
            applied = %span.applied,
            end = %ready.sites[source.index()].stream_end,
            "a table is rebuilt"
        );
        let found = attached.link.rebuild(span).await.map_err(failed)?;
        if !plan.ahead[attached.direction as usize].slots.is_empty() {
            let end = ready.sites[source.index()].control.info().await?.master_repl_offset.unwrap_or_default();
            attached.link.rebuild_ahead(span, end).await.map_err(failed)?;
        }
        doubtful.extend(found.into_iter().map(|(db, key)| (db, key, source)));
    }
    for attached in &mut ready.links {
        let site = &mut ready.sites[attached.direction.from().index()];
        if !site.names.is_cluster() || !matches!(plan.start(attached.direction), Begin::Position(..)) {
            continue;
        }
        // Before anything is opened: in what came back since, that side's order stands.
        let end = site.control.info().await?.master_repl_offset.unwrap_or_default();
        let back = attached.link.came_back(end).await;
        let back = back.map_err(|e| JobError::passing(e.to_string(), "it is tried again"))?;
        if !back.is_empty() {
            tracing::debug!(address = site.address, slots = %back, "slots were away and are back");
        }
    }
    let mut carried_back = Vec::new();
    for attached in &mut ready.links {
        let (here, peer) = (attached.direction.from(), attached.direction.to());
        // It may have failed over before an engine that has cut the positions and not come any further.
        let failed_over = ready.sites[peer.index()].lineage.is_some_and(|l| l.before.is_some());
        let unheard = plan.unheard[attached.direction.other() as usize];
        if !plan.two_way || !failed_over && unheard.is_none() {
            continue;
        }
        // The connections of the engine before us are dead: nothing of it comes behind this.
        let end = ready.sites[here.index()].control.info().await?.master_repl_offset.unwrap_or_default();
        let lost = attached.link.lost_ahead(end, unheard).await;
        let lost = lost.map_err(|e| JobError::passing(e.to_string(), "it is tried again"))?;
        if let Some(unheard) = unheard {
            if !lost.whole {
                return Err(position_lost(attached.direction.other(), unheard.after));
            }
            tell_unheard(context, peer, unheard, lost.unheard.len());
        }
        if !lost.keys.is_empty() || plan.cuts.iter().any(|c| c.side == peer) {
            tell_carried_back(context, here, &lost);
        }
        carried_back.extend(lost.keys.into_iter().map(|(db, key)| (db, key, here)));
        doubtful.extend(lost.unheard.into_iter().map(|(db, key)| (db, key, peer)));
    }
    let mut open: HashMap<(u32, Vec<u8>), (u64, Side)> = HashMap::new();
    for side in Side::BOTH {
        let db = ready.control_db;
        let Site { control, names, notes, .. } = &mut ready.sites[side.index()];
        let mut notes = match notes.take() {
            Some(notes) => notes,
            None => fence::read_notes(control, db, &names.notes()).await?,
        };
        notes.retain(|(_, key, ..)| names.strand().is_none_or(|strand| strand.has(key)));
        for (db, key, number, authority) in notes {
            let entry = open.entry((db, key)).or_insert((number, authority));
            if number > entry.0 {
                *entry = (number, authority);
            }
        }
    }
    let mut open: Vec<_> = open.into_iter().collect();
    open.sort_by_key(|(_, (number, _))| *number);
    let mut core = ready.shared.lock();
    core.arbiter.recover_flushed();
    for ((db, key), (_, authority)) in open {
        if plan.two_way {
            if core.arbiter.is_overruled(&key, authority) {
                core.overruled(db, &key, authority);
            }
            core.arbiter.recover_episode(db, &key, authority);
        } else {
            core.carry_again(db, &key);
        }
    }
    for (db, key, holder) in carried_back {
        core.arbiter.recover_episode(db, &key, holder);
    }
    for (db, key, source) in doubtful {
        let hash = core.arbiter.hash(db, &key);
        let touch = Touch { db, key: &key, hash, class: Class::Write, part: Part::WHOLE };
        core.differs(&touch, source, Cause::Recovery);
    }
    core.carry_out();
    core.settle();
    Ok(())
}

/// A site no longer has all of its stream that would have been looked at again.
fn tell_unheard(context: &JobContext, side: Side, unheard: Unheard, keys: usize) {
    let text = format!(
        "the {side} has its stream from offset {} on only, and what came back was noted up to {}: all of it is applied, and {}",
        unheard.upto,
        unheard.after,
        match keys {
            0 => "nothing that its clients wrote in between was still on its way".to_owned(),
            1 => "the key that its clients wrote in between is settled by state".to_owned(),
            n => format!("the {n} keys that its clients wrote in between are settled by state"),
        }
    );
    context.events.emit(Some(side.outgoing()), Severity::Info, EventKind::Failover, text);
}

/// What a site got from the other's old master, and the new one never had.
fn tell_carried_back(context: &JobContext, holder: Side, lost: &Lost) {
    let other = holder.other();
    let named: Vec<String> = lost.keys.iter().take(5).map(|(db, key)| format!("{:?} in db{db}", shown(key))).collect();
    let text = match lost.keys.len() {
        0 => format!("nothing that clients wrote at the {other}'s old master is missing at its new one"),
        n => format!(
            "{} changes of {n} keys were lost by the {other} in its failover, and the {holder} has them: these keys are \
             carried back, such as {}",
            lost.changes,
            named.join(", ")
        ),
    };
    let severity = if lost.keys.is_empty() { Severity::Info } else { Severity::Warning };
    context.events.emit(Some(holder.outgoing()), severity, EventKind::Failover, text);
}
