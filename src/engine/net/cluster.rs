//! What a cluster says of itself: who owns which slots, and which node's word is the newest.
//!
//! One node may be behind: a master that was away while its replica was promoted believes for a moment that it still is
//! one. So several are asked, and of those that answer the one with the highest `cluster_current_epoch` is believed.

use super::masters::{read_slots, replicas};
use super::{Control, Deadlines, Dialer, NetError, ShardAddress, split_address};
use crate::engine::strand::SlotSet;
use futures::future::join_all;
use redis::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A node that is asked again and again must not hold up the others.
const DEADLINES: Deadlines = Deadlines { connect: Duration::from_secs(1), response: Duration::from_secs(2) };
/// Nodes that are asked at most.
const ASKED: usize = 24;

/// A cluster as one of its nodes sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// Grows with each failover and each slot that changes hands.
    pub epoch: u64,
    /// `cluster_state:ok`.
    pub ok: bool,
    pub shards: Vec<ShardAddress>,
    /// All nodes that serve slots, replicas too.
    pub nodes: BTreeSet<String>,
    /// Slots that are moving, as the masters asked say: between this and that node.
    pub moving: BTreeSet<u16>,
}

/// Asks the nodes of one cluster, over connections that it keeps.
pub struct ClusterWatch {
    dialer: Dialer,
    known: BTreeSet<String>,
    open: BTreeMap<String, Control>,
}

impl ClusterWatch {
    pub fn new(dialer: &Dialer) -> Self {
        let dialer = dialer.clone().with_deadlines(DEADLINES);
        ClusterWatch { known: dialer.instance().seeds().iter().cloned().collect(), open: BTreeMap::new(), dialer }
    }

    /// Nodes that were seen so far.
    pub fn known(&self) -> &BTreeSet<String> {
        &self.known
    }

    /// The newest view, of the nodes that answer; fails with one of their errors if none does.
    pub async fn look(&mut self) -> Result<ClusterView, NetError> {
        let mut views = Vec::new();
        let mut asked = BTreeSet::new();
        let mut last = NetError::NoAddress;
        // Those that the seeds name are asked too.
        for _ in 0..2 {
            let new: Vec<String> = self.known.difference(&asked).take(ASKED).cloned().collect();
            if new.is_empty() {
                break;
            }
            asked.extend(new.iter().cloned());
            let tries = new.into_iter().map(|address| {
                let (dialer, open) = (self.dialer.clone(), self.open.remove(&address));
                async move { (address.clone(), ask(&dialer, &address, open).await) }
            });
            for (address, answer) in join_all(tries).await {
                match answer {
                    Ok((control, view)) => {
                        self.open.insert(address, control);
                        self.known.extend(view.nodes.iter().cloned());
                        views.push(view);
                    }
                    Err(e) => last = e,
                }
            }
        }
        let moving = views.iter().flat_map(|v| v.moving.iter().copied()).collect();
        let newest = views.into_iter().max_by_key(|v| (v.ok, v.epoch)).ok_or(last)?;
        Ok(ClusterView { moving, ..newest })
    }
}

async fn ask(dialer: &Dialer, address: &str, open: Option<Control>) -> Result<(Control, ClusterView), NetError> {
    let mut control = match open {
        Some(control) => control,
        None => dialer.control(address).await?,
    };
    let slots: Value = control.ask(redis::cmd("CLUSTER").arg("SLOTS")).await?;
    let info: String = control.ask(redis::cmd("CLUSTER").arg("INFO")).await?;
    let nodes: String = control.ask(redis::cmd("CLUSTER").arg("NODES")).await?;
    let (host, _) = split_address(address)?;
    let shards = read_slots(&slots, &host);
    let field = |name: &str| info.lines().find_map(|l| l.trim_end().strip_prefix(name)?.strip_prefix(':'));
    let view = ClusterView {
        epoch: field("cluster_current_epoch").and_then(|e| e.parse().ok()).unwrap_or(0),
        ok: field("cluster_state") == Some("ok"),
        nodes: shards.iter().map(|s| s.address.clone()).chain(replicas(&slots, &host)).collect(),
        moving: moving(&nodes),
        shards,
    };
    Ok((control, view))
}

/// What a node says of its own slots.
#[derive(Debug, Clone)]
pub struct OwnSlots {
    epoch: u64,
    owned: SlotSet,
    moving: BTreeSet<u16>,
}

impl OwnSlots {
    pub async fn ask(control: &mut Control) -> Result<OwnSlots, NetError> {
        let nodes: String = control.ask(redis::cmd("CLUSTER").arg("NODES")).await?;
        Ok(OwnSlots { epoch: own_epoch(&nodes), owned: owned(&nodes), moving: moving(&nodes) })
    }

    /// Of its configuration: it is a new one after each slot that it has taken.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// It owns the slot and is neither giving it away nor taking it.
    pub fn keeps(&self, slot: u16) -> bool {
        self.owned.contains(slot) && !self.moving.contains(&slot)
    }
}

fn own_line(nodes: &str) -> Option<&str> {
    nodes.lines().find(|l| l.split(' ').nth(2).is_some_and(|flags| flags.split(',').any(|f| f == "myself")))
}

fn own_epoch(nodes: &str) -> u64 {
    own_line(nodes).and_then(|l| l.split(' ').nth(6)?.parse().ok()).unwrap_or(0)
}

/// `5-7` and `9` in the own line of `CLUSTER NODES`.
fn owned(nodes: &str) -> SlotSet {
    let words = own_line(nodes).into_iter().flat_map(|l| l.split_ascii_whitespace().skip(8));
    let ranges: Vec<(u16, u16)> = words
        .filter(|w| !w.starts_with('['))
        .filter_map(|w| {
            let (first, last) = w.split_once('-').unwrap_or((w, w));
            Some((first.parse().ok()?, last.parse().ok()?))
        })
        .collect();
    SlotSet::of(&ranges)
}

/// The slots that the asked node itself is giving away or taking: `[93-<-node]` and `[77->-node]` in its own line of
/// `CLUSTER NODES`.
fn moving(nodes: &str) -> BTreeSet<u16> {
    let words = own_line(nodes).into_iter().flat_map(|l| l.split_ascii_whitespace().skip(8));
    words.filter_map(|w| w.strip_prefix('[')?.split("-").next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_slots_are_read_from_the_own_line() {
        let text = "a 127.0.0.1:1@2 master - 0 1 1 connected 0-5\n\
                    b 127.0.0.1:3@4 myself,master - 0 0 2 connected 6-99 [93-<-a] [77->-c]\n";
        assert_eq!(moving(text), BTreeSet::from([77, 93]));
        assert_eq!(owned(text).to_string(), "6-99");
        assert_eq!((own_epoch(text), own_epoch("")), (2, 0));
        assert!(moving("").is_empty() && owned("").is_empty());
    }
}
