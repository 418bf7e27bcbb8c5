//! When a link may decide more: there is room where it goes, and it is its turn.

use super::Shared;
use crate::model::Side;
use std::time::Duration;

/// Bytes and items that may wait in an outbox before its link stops deciding.
const OUTBOX_BYTES: usize = 1 << 20;
const OUTBOX_ITEMS: usize = 4096;
/// How often a link that is held looks whether it may go on: what it waits for rings no bell.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Waits until the link to this site may decide more.
pub(super) async fn wait_for_room(shared: &Shared, site: Side) {
    loop {
        let room = shared.room[site.index()].notified();
        let its_turn = {
            let mut core = shared.lock();
            let here = site.other();
            let (in_flight, other) = (core.arbiter.in_flight(site).0, core.decided[site.index()].offset);
            let its_turn = core.turns.may_go_on(here, in_flight, other, shared.now_ms());
            let out = &core.out[site.index()];
            if its_turn && out.bytes() < OUTBOX_BYTES && out.len() < OUTBOX_ITEMS {
                return;
            }
            its_turn
        };
        if its_turn {
            room.await;
        } else {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
