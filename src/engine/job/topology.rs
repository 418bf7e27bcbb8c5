//! Follows the topology of a job's clusters while it runs: a master that was replaced or a slot that changed hands ends
//! the run, and the next one begins with what the clusters are then.

use crate::engine::net::{ClusterView, ClusterWatch, Dialer, ShardAddress};
use crate::model::Side;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How often a cluster is asked when nothing rings.
const EVERY: Duration = Duration::from_millis(1000);
/// How often at most, when something does.
const AT_MOST_EVERY: Duration = Duration::from_millis(100);

/// While slots go on moving, a run lasts so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits until a cluster is no longer what this map says and is whole again; gives what changed.
pub async fn changed(
    side: Side,
    dialer: Dialer,
    map: Vec<ShardAddress>,
    bell: Arc<Notify>,
    mut known: impl FnMut(&BTreeSet<String>),
) -> String {
    let mut watch = ClusterWatch::new(&dialer);
    let mut since = None;
    loop {
        if let Ok(view) = watch.look().await {
            known(watch.known());
            if let Some(what) = difference(&map, &view)
                // Slots move one after the other: not a run for each.
                && (view.moving.is_empty() || since.get_or_insert_with(Instant::now).elapsed() > PATIENCE)
            {
                return format!("the {side} cluster has changed: {what}");
            }
        }
        tokio::time::sleep(AT_MOST_EVERY).await;
        let _ = tokio::time::timeout(EVERY - AT_MOST_EVERY, bell.notified()).await;
    }
}

/// What differs between the map that a run works by and what the cluster says; `None` too while it can't serve all
/// slots, since there is nothing better to go to.
fn difference(map: &[ShardAddress], view: &ClusterView) -> Option<String> {
    let covered: usize = view.shards.iter().flat_map(|s| &s.slots).map(|(a, b)| usize::from(b - a) + 1).sum();
    if !view.ok || covered < usize::from(crate::wire::slot::SLOTS) {
        return None;
    }
    for shard in &view.shards {
        match map.iter().find(|m| m.address == shard.address) {
            Some(same) if same.slots == shard.slots => {}
            Some(_) => return Some(format!("{} serves other slots", shard.address)),
            None => {
                let before = map.iter().find(|m| m.slots == shard.slots).map(|m| format!(" in place of {}", m.address));
                return Some(format!("{} is a master{}", shard.address, before.unwrap_or_default()));
            }
        }
    }
    (map.len() != view.shards.len()).then(|| format!("it has {} shards, before {}", view.shards.len(), map.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(address: &str, slots: &[(u16, u16)]) -> ShardAddress {
        ShardAddress { address: address.into(), node_id: None, slots: slots.to_vec() }
    }

    fn view(shards: Vec<ShardAddress>) -> ClusterView {
        ClusterView { epoch: 1, ok: true, shards, nodes: BTreeSet::new(), moving: BTreeSet::new() }
    }

    #[test]
    fn failovers_and_moved_slots_are_seen_and_a_broken_cluster_is_waited_for() {
        let map = [shard("a:1", &[(0, 8000)]), shard("b:1", &[(8001, 16_383)])];
        assert_eq!(difference(&map, &view(map.to_vec())), None);
        let failover = vec![shard("c:1", &[(0, 8000)]), map[1].clone()];
        assert_eq!(difference(&map, &view(failover)).unwrap(), "c:1 is a master in place of a:1");
        let moved = vec![shard("a:1", &[(0, 7999)]), shard("b:1", &[(8000, 16_383)])];
        assert!(difference(&map, &view(moved)).unwrap().contains("other slots"));
        assert_eq!(difference(&map, &view(vec![shard("b:1", &[(8001, 16_383)])])), None);
        let one = vec![shard("b:1", &[(0, 16_383)])];
        assert!(difference(&map, &view(one)).is_some());
    }
}
