//! Slots that came from another shard of a side: every key of them is settled by that side's state, since no stream that
//! we have read tells all that happened to them on their way.

use crate::engine::arbiter::Touch;
use crate::engine::arbiter::class::{Class, Part};
use crate::engine::arbiter::episode::Cause;
use crate::engine::core::Shared;
use crate::engine::net::{Control, NetError};
use crate::engine::strand::{Names, SlotSet};
use crate::model::{EventKind, JobId, Side};
use crate::wire::slot::slot;
use std::sync::Arc;
use std::time::Duration;

/// Keys that are settled at once.
const AT_ONCE: usize = 128;
const TICK: Duration = Duration::from_millis(20);
const AGAIN: Duration = Duration::from_millis(500);

/// One strand's work.
pub struct Moved {
    pub shared: Arc<Shared>,
    pub events: crate::engine::events::EventSink,
    pub sites: [(Control, Names); 2],
    /// The side whose slots moved, whose state stands.
    pub side: Side,
    pub slots: SlotSet,
}

impl Moved {
    /// Settles them all, however often a server is away meanwhile.
    pub async fn settle(mut self) {
        let mut keys = [0; 2];
        for site in Side::BOTH {
            loop {
                match self.of_site(site).await {
                    Ok(found) => {
                        keys.iter_mut().zip(found).for_each(|(keys, n)| *keys += n);
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(%error, %site, "the keys of moved slots could not be listed; trying again");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        }
        while self.shared.lock().open() > 0 {
            tokio::time::sleep(TICK).await;
        }
        let mut core = self.shared.lock();
        core.set_now(self.shared.now_ms());
        core.moved_is_settled(self.side);
        self.shared.ring(core);
        for text in told(&self.slots, self.side, keys) {
            self.events.info(None, EventKind::Resumed, text);
        }
    }

    /// How many keys a site holds, by the side whose state stands.
    async fn of_site(&mut self, site: Side) -> Result<[u64; 2], NetError> {
        let (mut control, names) = self.sites[site.index()].clone();
        let mut found = [0; 2];
        if names.is_cluster() {
            for slot in self.slots.iter() {
                let question = |what: &str| {
                    let mut cmd = redis::cmd("CLUSTER");
                    cmd.arg(what).arg(slot);
                    cmd
                };
                let count: u64 = control.ask(&question("COUNTKEYSINSLOT")).await?;
                if count > 0 {
                    // Some may be added meanwhile: those are changes that the stream tells.
                    let keys: Vec<Vec<u8>> = control.ask(question("GETKEYSINSLOT").arg(count + 100)).await?;
                    self.open(&keys, &mut found).await;
                }
            }
            return Ok(found);
        }
        let mut cursor = 0u64;
        loop {
            let (next, keys): (u64, Vec<Vec<u8>>) =
                control.ask(redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(2_000)).await?;
            let ours: Vec<Vec<u8>> = keys.into_iter().filter(|k| self.slots.contains(slot(k))).collect();
            self.open(&ours, &mut found).await;
            if next == 0 {
                return Ok(found);
            }
            cursor = next;
        }
    }

    async fn open(&self, keys: &[Vec<u8>], found: &mut [u64; 2]) {
        for some in keys.chunks(AT_ONCE) {
            while self.shared.lock().open() > AT_ONCE {
                tokio::time::sleep(TICK).await;
            }
            let mut core = self.shared.lock();
            core.set_now(self.shared.now_ms());
            for key in some.iter().filter(|k| !k.starts_with(JobId::KEY_PREFIX.as_bytes())) {
                let touch =
                    Touch { db: 0, key, hash: core.arbiter.hash(0, key), class: Class::Write, part: Part::WHOLE };
                core.differs(&touch, self.side, Cause::Recovery);
                core.carry_out();
                // While a copy runs it is the copied side's.
                let open = core.arbiter.episodes().find(touch.hash, 0, key);
                found[open.map_or(self.side, |e| e.authority).index()] += 1;
            }
            core.settle();
            self.shared.ring(core);
            self.shared.settle.notify_one();
        }
    }
}

/// By whose state how many keys were settled.
fn told(slots: &SlotSet, side: Side, keys: [u64; 2]) -> Vec<String> {
    let none = keys == [0; 2];
    let by = |s: &Side| keys[s.index()] > 0 || none && *s == side;
    let text = |s: Side| format!("slots {slots} have moved: {} keys were settled by the {s}'s state", keys[s.index()]);
    Side::BOTH.into_iter().filter(by).map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_whose_state_stands() {
        let slots = SlotSet::of(&[(3, 4)]);
        let of = |side, keys| told(&slots, side, keys);
        let end = |n: u64, side: &str| format!("slots 3-4 have moved: {n} keys were settled by the {side}'s state");
        assert_eq!(of(Side::Target, [0, 7]), [end(7, "target")]);
        // The copy of the source has begun again, and its state stands.
        assert_eq!(of(Side::Target, [9, 0]), [end(9, "source")]);
        assert_eq!(of(Side::Target, [9, 7]), [end(9, "source"), end(7, "target")]);
        assert_eq!(of(Side::Source, [0, 0]), [end(0, "source")]);
    }
}
