//! What the control keys can't say: read from the strands before, and noted for this one before its control keys are written.
//!
//! Strands whose first slot is the same have one hash for their notes. One that takes over slots of another writes into what
//! may still be all that is known of these, and of others of that one, since an engine dies between any two writes. So each
//! field bears its strand's name, and stands as long as any slot's control key names that strand; and an open episode counts,
//! and is left where it stands, as long as its slot's names the strand that noted it.

use super::Begun;
use super::place::{Found, Place};
use crate::engine::apply::control_key::ControlKey;
use crate::engine::core;
use crate::engine::fence;
use crate::engine::job::JobError;
use crate::engine::strand::StrandId;
use crate::model::{Direction, Side};
use crate::wire::slot::slot;
use bytes::BytesMut;
use futures::future::{join_all, try_join_all};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// For as long as this a run waits at most until notes are gone that say nothing any more.
const FORGETTING: Duration = Duration::from_secs(1);

impl Begun {
    /// Reads what the strands before had open. Theirs is the last word on it until the control keys are this strand's.
    pub(super) async fn read_notes(&mut self, places: &[Place; 2], found: &[Found; 2]) -> Result<(), JobError> {
        if !self.plan.inherits && !self.plan.copies_again {
            return Ok(());
        }
        let db = self.ready.control_db;
        for (side, place) in Side::BOTH.into_iter().zip(places) {
            let site = &mut self.ready.sites[side.index()];
            let Some(strand) = site.names.strand().cloned() else { continue };
            let mut open: HashMap<(u32, Vec<u8>), (u64, Side)> = HashMap::new();
            for id in &known_here(found, &self.plan.parents, strand.id, place.cluster) {
                let Some(shard) = place.shards.iter().find(|s| s.slots.contains(id.home)) else { continue };
                let same_hash = place.cluster && id.home == strand.id.home;
                if same_hash {
                    let newest = newest_of(&found[side.index()], *id);
                    site.others_notes.extend(newest.map(|text| (core::newest_field(*id).into_bytes(), text)));
                }
                if same_hash && *id != strand.id {
                    site.others_notes.extend(fields_of(&found[side.index()], found, *id));
                }
                let before = site.names.of_sibling(*id).notes();
                for (db, key, number, authority) in fence::read_notes(&mut shard.control.clone(), db, &before).await? {
                    if !owns(found, *id, slot(&key)) {
                        continue;
                    }
                    if !strand.has(&key) {
                        if same_hash {
                            site.others_notes.push(core::note(db, &key, number, authority));
                        }
                        continue;
                    }
                    let entry = open.entry((db, key)).or_insert((number, authority));
                    if number > entry.0 {
                        *entry = (number, authority);
                    }
                }
            }
            if !self.plan.inherits {
                // What was open is settled by the copy.
                continue;
            }
            site.notes = Some(open.into_iter().map(|((db, key), (n, authority))| (db, key, n, authority)).collect());
        }
        Ok(())
    }

    /// What the control keys can't say is there before they are: which slots are ahead of their strand, which are to be
    /// settled, and what the strands before had open, since nobody looks for theirs once the control keys are this one's.
    pub(super) async fn note_down(&mut self, found: &[Found; 2]) -> Result<(), JobError> {
        let plan = &self.plan;
        let Some(id) = self.ready.strand.as_ref().map(|s| s.id) else { return Ok(()) };
        let db = self.ready.control_db;
        for direction in Direction::BOTH {
            let site = &mut self.ready.sites[direction.to().index()];
            let mut fields = vec![(core::ahead_field(id), plan.ahead[direction as usize].to_text())];
            if direction == Direction::Forward {
                fields.extend(Side::BOTH.map(|s| (core::moved_field(s, id), plan.moved[s.index()].to_string())));
            }
            fields.retain(|(_, text)| !text.is_empty());
            if plan.two_way && !site.names.is_cluster() && !found[direction.to().index()].roll.contains(&id) {
                fence::write_note(&mut site.control, db, &site.names.roll(), &id.to_string(), "").await?;
            }
            if plan.inherits || plan.copies_again {
                let open = site.notes.iter().flatten();
                let open = open.map(|(db, key, n, authority)| core::note(*db, key, *n, *authority));
                let fields = fields.iter().map(|(field, text)| (field.as_bytes().to_vec(), text.clone()));
                let all: Vec<_> = fields.chain(open).chain(std::mem::take(&mut site.others_notes)).collect();
                fence::replace_notes(&mut site.control, db, &site.names.notes(), &all).await?;
            } else if plan.renamed[direction as usize] {
                let (field, text) = (core::ahead_field(id), plan.ahead[direction as usize].to_text());
                fence::write_note(&mut site.control, db, &site.names.notes(), &field, &text).await?;
            }
            // A standalone side is asked by the strands that the cluster's slots name: so it is there before they do.
            if let Some(key) = site.found.filter(|_| plan.copies_again && !site.names.is_cluster()) {
                let key = ControlKey { epoch: plan.epoch, number: 0, serial: 0, ..key };
                fence::write_control_key(&mut site.control, db, &site.names.control(None), &key).await?;
            }
            self.ready.shared.lock().kept_notes[direction.to().index()] = fields;
        }
        Ok(())
    }
}

/// The newest control key of each strand whose slots are divided anew, at the sides that are clusters, beside its notes.
///
/// It is in one of the strand's slots, and says how far all of them are. The others may hold one from when the first copy was
/// under way: once that one slot is an heir's, nothing else would tell that the copy has ended, nor how far what was done in
/// the slots that no heir has written yet had come. An attach that ends there would have the next one copy again.
pub(super) async fn keep_newest(places: &[Place; 2], begun: &[Begun], found: &[Found; 2]) -> Result<Divided, JobError> {
    let Some(one) = begun.first() else { return Ok(Divided::default()) };
    let anew = begun.iter().filter(|b| b.plan.others || b.plan.copies_again);
    let slots = anew.filter_map(|b| b.ready.strand.as_ref()).flat_map(|strand| strand.slots.iter());
    let slots: Vec<u16> = slots.collect();
    let mut divided = Divided::default();
    let db = one.ready.control_db;
    let mut writes = Vec::new();
    for (n, place) in places.iter().enumerate().filter(|(_, place)| place.cluster) {
        divided.0[n] = slots.iter().filter_map(|slot| found[n].owners.get(slot).copied()).collect();
        for id in &divided.0[n] {
            let Some(text) = newest_of(&found[n], *id) else { continue };
            let Some(mut control) = place.control_of(id.home) else { continue };
            let (notes, field) = (one.ready.sites[n].names.of_sibling(*id).notes(), core::newest_field(*id));
            writes.push(async move { fence::write_note(&mut control, db, &notes, &field, &text).await });
        }
    }
    try_join_all(writes).await?;
    Ok(divided)
}

/// The strands of before whose slots all have their heirs' control keys now, by side.
#[derive(Debug, Default)]
pub(super) struct Divided([BTreeSet<StrandId>; 2]);

impl Divided {
    /// No control key names them any more, so what was kept of them says nothing, also where it can't be deleted: nobody waits
    /// long for that.
    pub(super) async fn forget_newest(self, places: &[Place; 2], begun: &[Begun]) {
        let Some(one) = begun.first() else { return };
        let mut deletions = Vec::new();
        for ((place, ids), site) in places.iter().zip(self.0).zip(&one.ready.sites) {
            for id in ids {
                let Some(mut control) = place.control_of(id.home) else { continue };
                let (notes, field) = (site.names.of_sibling(id).notes(), core::newest_field(id));
                deletions.push(async move {
                    if let Err(error) = fence::delete_note(&mut control, one.ready.control_db, &notes, &field).await {
                        tracing::debug!(%error, field, "a note that says nothing any more stays");
                    }
                });
            }
        }
        let _ = tokio::time::timeout(FORGETTING, join_all(deletions)).await;
    }
}

/// What the strands of before have at a standalone side goes. Every control key bears the name of one of `now`.
pub(super) async fn strike_off(places: &mut [Place; 2], begun: &[Begun], found: &[Found; 2]) -> Result<(), JobError> {
    let now: BTreeSet<StrandId> = begun.iter().filter_map(|b| b.ready.strand.as_ref().map(|s| s.id)).collect();
    let Some(one) = begun.first() else { return Ok(()) };
    for (n, place) in places.iter_mut().enumerate().filter(|(_, place)| !place.cluster) {
        let before: BTreeSet<StrandId> = found[n].roll.difference(&now).copied().collect();
        if !before.is_empty() {
            let control = &mut place.shards[0].control;
            fence::strike_off(control, one.ready.control_db, &one.ready.sites[n].names, &before).await?;
        }
    }
    Ok(())
}

/// The strands before, and who else has its notes where this one writes its own. An attach that did not finish has written some
/// control keys: that of the slot where those notes are may name its heir by then, and others, of slots that are somebody else's
/// now, still name it.
fn known_here(
    found: &[Found; 2],
    parents: &BTreeSet<StrandId>,
    own: StrandId,
    in_a_cluster: bool,
) -> BTreeSet<StrandId> {
    let named = found.iter().flat_map(|f| f.owners.values().copied());
    parents.iter().copied().chain(named.filter(|id| in_a_cluster && id.home == own.home)).collect()
}

/// The slot's control key, at one side at least, is this strand's.
fn owns(found: &[Found; 2], id: StrandId, slot: u16) -> bool {
    found.iter().any(|f| f.owners.get(&slot) == Some(&id))
}

/// A strand's newest control key at a side, as a note, as long as a slot's names the strand.
fn newest_of(at: &Found, id: StrandId) -> Option<String> {
    let newest = at.newest.get(&id).filter(|_| at.owners.values().any(|owner| *owner == id))?;
    let mut text = BytesMut::new();
    newest.write(&mut text);
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// What a strand had noted at a side beside open episodes, as long as any slot's control key names it.
fn fields_of(at: &Found, found: &[Found; 2], id: StrandId) -> Vec<(Vec<u8>, String)> {
    let named = found.iter().flat_map(|f| f.owners.values()).any(|owner| *owner == id);
    let Some(noted) = at.noted.get(&id).filter(|_| named) else { return Vec::new() };
    let mut fields = vec![(core::ahead_field(id), noted.ahead.to_text())];
    fields.extend(Side::BOTH.map(|side| (core::moved_field(side, id), noted.moved[side.index()].to_string())));
    fields.retain(|(_, text)| !text.is_empty());
    fields.into_iter().map(|(field, text)| (field.into_bytes(), text)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::place::Noted;
    use super::*;
    use crate::engine::link::decide::Ahead;
    use crate::engine::strand::{SlotSet, Strand};
    use crate::model::Offset;

    /// A strand had the slots 0 to 9, of which 3 was ahead. The engine dies when its heirs have noted what they take over, and
    /// before the control keys say that they have: the next one looks for the notes of the strand that those name.
    #[test]
    fn what_is_noted_stands_as_long_as_a_control_key_names_its_strand() {
        let (before, heir) = (Strand::new(SlotSet::of(&[(0, 9)])), Strand::new(SlotSet::of(&[(0, 2), (4, 9)])));
        let stream = "00000000000000000000000000000000000000bb".parse().expect("a name");
        let mut found = [Found::default(), Found::default()];
        found[0].owners.extend(before.slots.iter().map(|slot| (slot, before.id)));
        let ahead = Ahead::new([(3, Offset(70))].into(), Some(stream));
        let moved = [SlotSet::of(&[(5, 5)]), SlotSet::none()];
        found[0].noted.insert(before.id, Noted { ahead: ahead.clone(), moved });
        let kept = |found: &[Found; 2]| -> Vec<(String, String)> {
            let fields = fields_of(&found[0], found, before.id).into_iter();
            fields.map(|(field, text)| (String::from_utf8(field).expect("a name"), text)).collect()
        };
        let wanted =
            [(core::ahead_field(before.id), ahead.to_text()), (core::moved_field(Side::Source, before.id), "5".into())];
        assert_eq!(kept(&found), wanted);
        // One slot is enough, whoever has it now.
        found[0].owners.values_mut().for_each(|owner| *owner = heir.id);
        found[1].owners.insert(4, before.id);
        assert_eq!(kept(&found), wanted);
        assert!(owns(&found, before.id, 4) && owns(&found, heir.id, 4) && !owns(&found, before.id, 3));
        found[1].owners.insert(4, heir.id);
        assert!(kept(&found).is_empty());
    }

    /// Slot 1 holds the strand's newest control key and slot 3 one from the copy's begin. Then slot 1 is the heir's.
    #[test]
    fn the_newest_control_key_is_kept_as_long_as_one_of_its_slots_names_the_strand() {
        let (before, heir) = (Strand::new(SlotSet::of(&[(0, 9)])), Strand::new(SlotSet::of(&[(0, 2), (4, 9)])));
        let key = |text: &str| ControlKey::parse(format!("{text} {}", before.id).as_bytes()).expect("a control key");
        let (oldest, newest) = (key("1 1 0 0 l - 5 0 5 0 - 0 0"), key("1 1 8 8 s - 90 0 80 0 - 0 0"));
        let mut found = Found::default();
        found.owners.extend([(1, before.id), (3, before.id)]);
        [newest, oldest].into_iter().for_each(|key| found.note(key, before.id));
        let kept = newest_of(&found, before.id).expect("it is kept");
        assert_eq!(ControlKey::parse(kept.as_bytes()), Some(newest));
        // What the next attach finds: of the strand slot 3 alone, and this note.
        let mut found = Found::default();
        found.owners.extend([(1, heir.id), (3, before.id)]);
        found.note(oldest, before.id);
        found.keep(&kept, before.id);
        assert_eq!(found.newest[&before.id], newest);
        assert_eq!(newest_of(&found, before.id), Some(kept.clone()), "and so does the one after it");
        // Of one that is the heir's altogether nothing is said, whatever is still noted.
        let mut found = Found::default();
        found.owners.extend([(1, heir.id), (3, heir.id)]);
        found.keep(&kept, before.id);
        assert!(found.newest.is_empty() && newest_of(&found, before.id).is_none());
    }

    /// Slot 0 names the heir already; slot 3, which is another strand's now, still names the strand before, whose notes stand where
    /// the heir's do.
    #[test]
    fn notes_are_kept_of_who_is_no_strand_before_any_more() {
        let (before, heir) = (Strand::new(SlotSet::of(&[(0, 9)])), Strand::new(SlotSet::of(&[(0, 2), (4, 9)])));
        let elsewhere = Strand::new(SlotSet::of(&[(20, 29)]));
        let mut found = [Found::default(), Found::default()];
        found[0].owners.extend(heir.slots.iter().map(|slot| (slot, heir.id)));
        found[0].owners.extend([(3, before.id), (20, elsewhere.id)]);
        let parents = BTreeSet::from([heir.id]);
        assert_eq!(known_here(&found, &parents, heir.id, true), BTreeSet::from([heir.id, before.id]));
        assert_eq!(known_here(&found, &parents, heir.id, false), parents, "by its name at a standalone side");
    }
}
