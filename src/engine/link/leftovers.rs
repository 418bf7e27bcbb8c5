//! A copy that begins anew after a crash: what the copy before it left at the other site, and the new snapshot does not
//! name, is deleted there. See [`crate::engine::arbiter::leftovers`].

use super::room::wait_for_room;
use super::{Link, LinkError};
use crate::engine::apply::outbox::ItemKind;
use crate::engine::arbiter::class::{Class, Part};
use crate::engine::arbiter::classify::Reveals;
use crate::engine::arbiter::leftovers::Leftovers;
use crate::engine::arbiter::made_by::MadeBy;
use crate::engine::arbiter::{Touch, Verdict};
use crate::engine::net::NetError;
use crate::model::{EventKind, Severity};
use crate::wire::resp::encode;

impl Link {
    /// Remembers what the other site holds, where the copy is not the first.
    pub(super) async fn remember_leftovers(&mut self) {
        let Some(databases) = self.s.left_over.clone() else { return };
        let mut hashes = Vec::new();
        let found = async {
            for db in self.s.peer.databases().await?.into_iter().filter(|d| databases.contains(*d)) {
                let mut cursor = 0;
                loop {
                    let (next, keys) = self.s.peer.scan(db, cursor).await?;
                    let core = self.s.shared.lock();
                    let ours = keys.iter().filter(|k| self.s.decider.is_ours(db, k));
                    hashes.extend(ours.map(|k| core.arbiter.hash(db, k)));
                    cursor = next;
                    if cursor == 0 {
                        break;
                    }
                }
            }
            Ok::<(), NetError>(())
        };
        match found.await {
            Ok(()) => self.s.shared.lock().arbiter.expect_leftovers(Leftovers::new(hashes)),
            Err(e) => {
                self.s.left_over = None;
                self.s.shared.lock().arbiter.expect_leftovers(Leftovers::default());
                let text = format!(
                    "what the unfinished copy left at the {} can't be looked through: {e}; keys that were deleted \
                     meanwhile may stay there: run duplex verify",
                    self.peer()
                );
                self.s.events.emit(Some(self.s.direction), Severity::Warning, EventKind::SnapshotStarted, text);
            }
        }
    }

    /// Deletes at the other site what was there and has not been named, as if the snapshot had said so.
    pub(super) async fn delete_leftovers(&mut self) -> Result<(), LinkError> {
        let Some(databases) = self.s.left_over.take() else { return Ok(()) };
        if self.s.shared.lock().arbiter.leftovers().is_empty() {
            return Ok(());
        }
        let cut = |e: NetError| LinkError::Cut(e.to_string());
        let mut gone = 0;
        for db in self.s.peer.databases().await.map_err(cut)?.into_iter().filter(|d| databases.contains(*d)) {
            let mut cursor = 0;
            loop {
                let (next, keys) = self.s.peer.scan(db, cursor).await.map_err(cut)?;
                wait_for_room(&self.s.shared, self.peer(), false).await;
                gone += self.delete_unnamed(db, &keys);
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        self.s.shared.lock().arbiter.leftovers_deleted();
        if gone > 0 {
            let text =
                format!("{gone} keys that an unfinished copy had left are deleted: the new one does not hold them");
            self.s.events.info(Some(self.s.direction), EventKind::SnapshotFinished, text);
        }
        Ok(())
    }

    fn delete_unnamed(&mut self, db: u32, keys: &[Vec<u8>]) -> usize {
        let (here, peer) = (self.here, self.peer());
        let mut core = self.s.shared.lock();
        core.set_now(self.s.shared.now_ms());
        let mut run = super::run::Run::default();
        let mut gone = 0;
        for key in keys {
            let hash = core.arbiter.hash(db, key);
            if !self.s.decider.is_ours(db, key) || !core.arbiter.leftovers().holds(hash) {
                continue;
            }
            // SCAN may give a key twice.
            core.arbiter.name_leftover(hash);
            gone += 1;
            let touch = Touch { db, key, hash, class: Class::Delete, part: Part::WHOLE };
            core.arbiter.made_by(MadeBy::UNKNOWN, 0);
            let verdict = core.arbiter.change(here, &touch, 0);
            if core.arbiter.has_effects() {
                run.flush(&mut core, peer, ItemKind::Changes);
                core.carry_out();
            }
            let Verdict::Forward(serial) = verdict else { continue };
            let slot = core.facts[peer.index()].names.slot(key);
            if run.is_full() || !run.is_for(db, slot) {
                run.flush(&mut core, peer, ItemKind::Changes);
                run.set_place(db, slot);
            }
            run.tell(Reveals::Fewer(1));
            encode(run.data(), &[&b"UNLINK"[..], key]);
            run.added(1, serial);
        }
        run.flush(&mut core, peer, ItemKind::Changes);
        core.settle();
        self.s.shared.ring(core);
        gone
    }
}
