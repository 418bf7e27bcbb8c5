//! When a link may decide more: there is room where it goes, and it is its turn.

use super::Shared;
use crate::engine::core::turns::InFlight;
use crate::engine::gauge::Gauge;
use crate::model::Side;
use std::time::{Duration, Instant};

/// Bytes and items that may wait in an outbox before its link stops deciding.
const OUTBOX_BYTES: usize = 1 << 20;
const OUTBOX_ITEMS: usize = 4096;
/// How long something may wait for all before it to be answered.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// How often a link that is held looks whether it may go on: what it waits for rings no bell.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What a link may decide now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Any,
    /// The echoes that are next, up to the first change: they put nothing into the outbox, and what the other link is
    /// held for stands behind them.
    Echoes,
}

/// Waits until the link to this site may decide more. `echo`: what is next is one.
pub(super) async fn wait_for_room(shared: &Shared, site: Side, echo: bool) -> Room {
    loop {
        let room = shared.room[site.index()].notified();
        let its_turn = {
            let mut core = shared.lock();
            let here = site.other();
            let [own, others] = [site, here].map(|s| core.arbiter.in_flight(s).0);
            let in_flight = InFlight { own, together: own + others };
            let other = core.decided[site.index()].offset;
            let its_turn = core.turns.may_go_on(here, in_flight, other, shared.now_ms());
            let out = &core.out[site.index()];
            if its_turn && out.bytes() < OUTBOX_BYTES && out.len() < OUTBOX_ITEMS {
                return Room::Any;
            }
            // What an echo leads to where a conflict is settled finds room for itself, within bounds.
            if echo && out.bytes() < 2 * OUTBOX_BYTES && out.len() < 2 * OUTBOX_ITEMS {
                return Room::Echoes;
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

/// Waits until all that was decided for this site is answered; false if that takes too long.
pub(super) async fn all_is_answered(shared: &Shared, gauge: &Gauge, site: Side) -> bool {
    let until = Instant::now() + ANSWERED_WITHIN;
    while Instant::now() < until {
        {
            let core = shared.lock();
            // What a writer takes out of the outbox is in flight from then on.
            if core.out[site.index()].is_empty() && gauge.in_flight() == 0 {
                return true;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    false
}
