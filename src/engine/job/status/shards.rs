//! The parts of a link in a job with clusters as one: what adds up is summed, of the rest the worst stands.

use crate::model::{LinkStatus, ShardStatus, SnapshotStatus};

/// One link's strands as one link; `None` without any.
pub(super) fn together(mut parts: Vec<LinkStatus>) -> Option<LinkStatus> {
    let mut whole = parts.pop()?;
    for part in parts.iter_mut().rev() {
        add(&mut whole, part);
    }
    whole.shards.sort_by(|a, b| first_slot(a).cmp(&first_slot(b)).then_with(|| a.address.cmp(&b.address)));
    Some(whole)
}

fn first_slot(shard: &ShardStatus) -> Option<u32> {
    shard.slots.as_deref()?.split(['-', ',']).next()?.parse().ok()
}

fn add(whole: &mut LinkStatus, part: &mut LinkStatus) {
    if part.state.urgency() > whole.state.urgency() {
        (whole.state, whole.reason) = (part.state, part.reason.take());
    }
    // What is unknown of one is unknown of all.
    whole.lag_ms = whole.lag_ms.zip(part.lag_ms).map(|(a, b)| a.max(b));
    whole.lag_bytes = whole.lag_bytes.zip(part.lag_bytes).map(|(a, b)| a.max(b));
    whole.changes_per_second = whole.changes_per_second.zip(part.changes_per_second).map(|(a, b)| a + b);
    whole.bytes_per_second = whole.bytes_per_second.zip(part.bytes_per_second).map(|(a, b)| a + b);
    whole.snapshot = match (whole.snapshot.take(), part.snapshot.take()) {
        (Some(a), Some(b)) => Some(SnapshotStatus {
            keys_done: a.keys_done + b.keys_done,
            keys_total: a.keys_total.zip(b.keys_total).map(|(a, b)| a + b),
            bytes_done: a.bytes_done + b.bytes_done,
            bytes_total: a.bytes_total.zip(b.bytes_total).map(|(a, b)| a + b),
            seconds_left: a.seconds_left.zip(b.seconds_left).map(|(a, b)| a.max(b)),
        }),
        (a, b) => a.or(b),
    };
    for (sum, more) in [
        (&mut whole.changes_applied, part.changes_applied),
        (&mut whole.echoes_dropped, part.echoes_dropped),
        (&mut whole.conflicts_settled, part.conflicts_settled),
        (&mut whole.conflict_rounds, part.conflict_rounds),
        (&mut whole.conflicts_open, part.conflicts_open),
        (&mut whole.apply_errors, part.apply_errors),
        (&mut whole.spool_bytes, part.spool_bytes),
        (&mut whole.in_flight, part.in_flight),
        (&mut whole.reconnects, part.reconnects),
    ] {
        *sum += more;
    }
    whole.spool_full |= part.spool_full;
    whole.resume_window_seconds = least(whole.resume_window_seconds, part.resume_window_seconds);
    whole.backlog_bytes = least(whole.backlog_bytes, part.backlog_bytes);
    for shard in part.shards.drain(..) {
        match whole.shards.iter_mut().find(|s| s.address == shard.address) {
            Some(same) => merge(same, shard),
            None => whole.shards.push(shard),
        }
    }
}

/// Two strands of one shard: its stream is applied as far as the slower one is.
fn merge(same: &mut ShardStatus, other: ShardStatus) {
    same.offset_received = same.offset_received.max(other.offset_received);
    same.offset_applied = same.offset_applied.zip(other.offset_applied).map(|(a, b)| a.min(b));
    same.lag_ms = same.lag_ms.zip(other.lag_ms).map(|(a, b)| a.max(b));
    if other.state.map(|s| s.urgency()) > same.state.map(|s| s.urgency()) {
        same.state = other.state;
    }
}

fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Direction, LinkState};

    fn part(address: &str, slots: &str, state: LinkState, lag_ms: Option<u64>, applied: u64) -> LinkStatus {
        LinkStatus {
            direction: Direction::Forward,
            state,
            reason: Some(address.into()),
            snapshot: Some(SnapshotStatus { keys_done: 5, keys_total: Some(10), ..Default::default() }),
            lag_ms,
            lag_bytes: Some(1),
            changes_per_second: Some(2.0),
            bytes_per_second: Some(3),
            changes_applied: 4,
            echoes_dropped: 0,
            conflicts_settled: 0,
            conflict_rounds: 0,
            conflicts_open: 0,
            apply_errors: 0,
            resume_window_seconds: Some(applied),
            backlog_bytes: None,
            spool_bytes: 0,
            spool_full: false,
            in_flight: 0,
            reconnects: 0,
            shards: vec![ShardStatus {
                address: address.into(),
                replid: None,
                offset_received: Some(9),
                offset_applied: Some(applied),
                state: Some(state),
                lag_ms,
                slots: Some(slots.into()),
            }],
        }
    }

    #[test]
    fn the_worst_stands_and_the_rest_is_summed() {
        let fine = LinkState::Synchronizing;
        let whole = together(vec![
            part("b", "100-199", fine, Some(1), 7),
            part("a", "0-99", LinkState::Lagging, Some(900), 8),
            part("b", "100-199", fine, Some(3), 5),
        ])
        .unwrap();
        assert_eq!((whole.state, whole.reason.as_deref()), (LinkState::Lagging, Some("a")));
        assert_eq!((whole.lag_ms, whole.changes_applied, whole.resume_window_seconds), (Some(900), 12, Some(5)));
        assert_eq!(whole.changes_per_second, Some(6.0));
        let shards: Vec<_> = whole.shards.iter().map(|s| (s.address.as_str(), s.offset_applied, s.lag_ms)).collect();
        assert_eq!(shards, [("a", Some(8), Some(900)), ("b", Some(5), Some(3))]);
        assert_eq!(whole.snapshot.unwrap().keys_total, Some(30));
        assert_eq!(
            together(vec![part("a", "0", fine, None, 1), part("b", "1", fine, Some(1), 1)]).unwrap().lag_ms,
            None
        );
        assert!(together(vec![]).is_none());
    }
}
