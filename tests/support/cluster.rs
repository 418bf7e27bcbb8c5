//! Clusters of real servers on free ports of 127.0.0.1. What else tests of clusters need comes along: a site that is one server
//! or a cluster, a client that follows redirections, and loads.

pub use super::router::Router;
pub use super::site::{Site, assert_sites_equal};
pub use super::spread::{Gate, Spread, assert_all_there, assert_shared, assert_spread};
use super::{
    resp::{Argv, Client, Reply},
    server::{Server, free_port},
    versions::speaks,
    wait::{secs, until, wait_for},
};
use std::time::{Duration, Instant};

pub const SLOTS: usize = 16_384;

/// The slot of a key, as the cluster specification says: CRC-16/XMODEM of it, or of what stands in `{}`.
pub fn slot(key: &[u8]) -> usize {
    let tag = key.iter().position(|b| *b == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|b| *b == b'}').filter(|n| *n > 0).map(|n| &rest[..n])
    });
    let mut crc = 0u16;
    for byte in tag.unwrap_or(key) {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 };
        }
    }
    crc as usize % SLOTS
}

/// Masters, and perhaps replicas of them.
pub struct Cluster {
    pub nodes: Vec<Server>,
}

impl Cluster {
    /// `shards` masters that share the slots evenly, with so many replicas each.
    #[track_caller]
    pub fn start(name: &str, shards: usize, replicas: usize) -> Cluster {
        let even: Vec<usize> = (1..shards).map(|n| n * SLOTS / shards).collect();
        Cluster::split(name, &even, replicas)
    }

    /// The same, with the slots cut at these.
    #[track_caller]
    pub fn split(name: &str, cuts: &[usize], replicas: usize) -> Cluster {
        let shards = cuts.len() + 1;
        let cluster = Cluster::bare(name, shards * (1 + replicas));
        let bounds: Vec<usize> = [0].into_iter().chain(cuts.iter().copied()).chain([SLOTS]).collect();
        for n in 0..shards {
            let (first, last) = (bounds[n], bounds[n + 1] - 1);
            cluster.nodes[n].client().run(&format!("CLUSTER ADDSLOTSRANGE {first} {last}"));
        }
        cluster.wait_whole();
        for n in shards..cluster.nodes.len() {
            let master = cluster.nodes[n % shards].client().run("CLUSTER MYID").text();
            wait_for("a replica takes its master", secs(30), || {
                match cluster.nodes[n].client().call(&["CLUSTER", "REPLICATE", &master]) {
                    Reply::Status(_) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        }
        for n in shards..cluster.nodes.len() {
            cluster.wait_in_sync(n);
        }
        cluster
    }

    /// Nodes that know each other, without slots.
    #[track_caller]
    pub fn bare(name: &str, nodes: usize) -> Cluster {
        assert!(speaks(name) >= (7, 0), "{name}: its bus port can't be chosen");
        let mut bus = Vec::new();
        let nodes: Vec<Server> = (0..nodes)
            .map(|_| {
                let port = free_port();
                bus.push(port);
                let port = port.to_string();
                let args = ["--cluster-enabled", "yes", "--cluster-port", &port, "--cluster-node-timeout", "1500"];
                let more = ["--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no"];
                Server::start(name, &[&args[..], &more[..]].concat())
            })
            .collect();
        for (n, node) in nodes.iter().enumerate() {
            node.client().run(&format!("CLUSTER SET-CONFIG-EPOCH {}", n + 1));
        }
        for (node, bus) in nodes.iter().zip(&bus).skip(1) {
            nodes[0].client().run(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port));
        }
        let count = nodes.len();
        for (node, bus) in nodes.iter().zip(&bus) {
            let mut met = Instant::now();
            wait_for("the nodes know each other", secs(60), || {
                let known = node.client().run("CLUSTER NODES").text();
                if known.lines().filter(|l| !l.contains("handshake")).count() == count {
                    return Ok(());
                }
                // A handshake that took too long is given up by the servers.
                if met.elapsed() > Duration::from_secs(3) {
                    met = Instant::now();
                    nodes[0].client().run(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port));
                }
                Err(known)
            });
        }
        Cluster { nodes }
    }

    /// Every node sees all slots served.
    #[track_caller]
    pub fn wait_whole(&self) {
        for node in self.nodes.iter().filter(|n| n.is_running()) {
            wait_for("the cluster serves all slots", secs(60), || {
                let mut client = node.client();
                let info = client.run("CLUSTER INFO").text();
                if info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384") {
                    Ok(())
                } else {
                    Err(format!("{info}\n{}", client.run("CLUSTER NODES").text()))
                }
            });
        }
    }

    /// A replica follows its master.
    #[track_caller]
    pub fn wait_in_sync(&self, n: usize) {
        wait_for("the replica is in sync", secs(60), || {
            match self.nodes[n].info("replication", "master_link_status").as_deref() {
                Some("up") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// A replica takes its master's place, who steps back in good order.
    #[track_caller]
    pub fn take_over(&self, n: usize) {
        self.wait_in_sync(n);
        wait_for("the replica takes over", secs(30), || {
            let mut client = self.nodes[n].client();
            if client.run("ROLE").items()[0].text() == "master" {
                return Ok(());
            }
            Err(format!("{:?}", client.call(&["CLUSTER", "FAILOVER"])))
        });
    }

    /// Kills a master, waits until its replica has taken its place, and starts it again as a replica of that one.
    #[track_caller]
    pub fn kill_a_master(&mut self, which: usize) {
        let masters: Vec<u16> = self.masters().iter().map(|m| m.port).collect();
        self.kill_for_good(masters[which % masters.len()], &Gate::default());
    }

    /// The same with the master at this port. What was written to it from behind the gate is at its replica by then; of what
    /// others have written just now, some may be lost.
    #[track_caller]
    pub fn kill_for_good(&mut self, port: u16, gate: &Gate) {
        let n = self.node_with_port(port);
        gate.shut(|| {
            self.wait_level(port);
            self.nodes[n].kill();
        });
        self.wait_promoted(port);
        self.nodes[n].restart();
        self.wait_in_sync(n);
        self.wait_agreed();
    }

    /// A master stands still until its replica has taken its place, and at least for so long; then it goes on for a moment as if
    /// it still were one. Those behind the gate wait until that is over, others write to both.
    #[track_caller]
    pub fn freeze_through(&self, port: u16, gate: &Gate, least: Duration) {
        let n = self.node_with_port(port);
        gate.shut(|| {
            self.wait_level(port);
            let till = Instant::now() + least;
            self.nodes[n].freeze();
            self.wait_promoted(port);
            until(till);
            self.nodes[n].thaw();
            self.wait_agreed();
            self.wait_in_sync(n);
        });
    }

    /// A replica of this master has got all that the master has written so far.
    #[track_caller]
    fn wait_level(&self, port: u16) {
        let at = self.nodes[self.node_with_port(port)].offset();
        wait_for("a replica has all of its master", secs(30), || {
            let behind: Vec<_> = self.nodes.iter().filter(|n| n.is_running()).collect();
            let level = behind.iter().any(|n| {
                let text = n.client().run("INFO replication").text();
                let number = |name: &str| super::server::field(&text, name).and_then(|o| o.parse::<u64>().ok());
                super::server::field(&text, "role").as_deref() == Some("slave")
                    && number("master_port") == Some(u64::from(port))
                    && number("slave_repl_offset").is_some_and(|offset| offset >= at)
            });
            if level { Ok(()) } else { Err(format!("none has {at}")) }
        });
    }

    #[track_caller]
    fn wait_promoted(&self, port: u16) {
        wait_for("a replica is promoted", secs(60), || {
            let node = self.nodes.iter().find(|n| n.is_running() && n.port != port).expect("a node runs");
            match slots_by_port(&mut node.client()) {
                Some(map) if !map.contains(&port) => Ok(()),
                _ => Err(node.client().run("CLUSTER NODES").text()),
            }
        });
    }

    /// All nodes that run say the same of the slots, and serve them.
    #[track_caller]
    pub fn wait_agreed(&self) {
        self.wait_whole();
        wait_for("all nodes say the same of the slots", secs(60), || {
            let maps = self.nodes.iter().filter(|n| n.is_running()).map(|n| slots_by_port(&mut n.client()));
            let maps: Vec<_> = maps.collect();
            if maps.windows(2).all(|two| two[0] == two[1]) && maps[0].is_some() {
                Ok(())
            } else {
                Err("they do not".into())
            }
        });
    }

    /// The nodes that are masters with slots, by what the nodes say.
    #[track_caller]
    pub fn masters(&self) -> Vec<&Server> {
        let map = self.map();
        let mut ports: Vec<u16> = map.clone();
        ports.sort_unstable();
        ports.dedup();
        ports.iter().map(|p| self.nodes.iter().find(|n| n.port == *p).expect("one of ours")).collect()
    }

    /// The port that serves each slot.
    #[track_caller]
    pub fn map(&self) -> Vec<u16> {
        let node = self.nodes.iter().find(|n| n.is_running()).expect("a node runs");
        wait_for("a map of all slots", secs(60), || match slots_by_port(&mut node.client()) {
            Some(map) => Ok(map),
            None => Err(node.client().run("CLUSTER NODES").text()),
        })
    }

    pub fn node_with_port(&self, port: u16) -> usize {
        self.nodes.iter().position(|n| n.port == port).expect("one of ours")
    }

    /// Moves a slot with all of its keys to another node, key by key, as `redis-cli --cluster reshard` does.
    #[track_caller]
    pub fn migrate(&self, slot: usize, to: u16) {
        let from = self.map()[slot];
        if from == to {
            return;
        }
        let (source, target) = (&self.nodes[self.node_with_port(from)], &self.nodes[self.node_with_port(to)]);
        let (mut a, mut b) = (source.client(), target.client());
        let (from_id, to_id) = (a.run("CLUSTER MYID").text(), b.run("CLUSTER MYID").text());
        set_slot(&mut b, slot, &format!("IMPORTING {from_id}"));
        set_slot(&mut a, slot, &format!("MIGRATING {to_id}"));
        loop {
            let keys = a.run(&format!("CLUSTER GETKEYSINSLOT {slot} 10"));
            if keys.items().is_empty() {
                break;
            }
            let mut argv: Argv = ["MIGRATE", "127.0.0.1", &to.to_string(), "", "0", "60000", "KEYS"]
                .map(|w| w.as_bytes().to_vec())
                .into();
            argv.extend(keys.items().iter().map(Reply::bytes));
            match a.call(&argv) {
                Reply::Error(e) => panic!("MIGRATE: {e}"),
                _ => continue,
            }
        }
        // The new owner first: it makes a config epoch of its own.
        set_slot(&mut b, slot, &format!("NODE {to_id}"));
        set_slot(&mut a, slot, &format!("NODE {to_id}"));
        for node in self.nodes.iter().filter(|n| n.is_running()) {
            wait_for("all nodes know of the slot's move", secs(30), || match slots_by_port(&mut node.client()) {
                Some(map) if map[slot] == to => Ok(()),
                Some(map) => Err(format!("slot {slot} is at {}", map[slot])),
                None => Err("no map".into()),
            });
        }
    }

    /// How this server moves slots with all of their keys in one step, if it can.
    pub fn migrates_at_once(&self) -> Option<AtOnce> {
        let help = format!("{:?}", self.nodes[0].client().run("CLUSTER HELP"));
        let ways = [("MIGRATESLOTS SLOTSRANGE", AtOnce::Export), ("MIGRATION IMPORT", AtOnce::Import)];
        ways.into_iter().find(|(words, _)| help.contains(words)).map(|(_, way)| way)
    }

    /// Moves slots of one shard to another node, all at once.
    #[track_caller]
    pub fn migrate_at_once(&self, slots: &[usize], to: u16) {
        let way = self.migrates_at_once().expect("the server can");
        let from = self.map()[slots[0]];
        if from == to {
            return;
        }
        let node = |port| &self.nodes[self.node_with_port(port)];
        let to_id = node(to).client().run("CLUSTER MYID").text();
        let ranges: Vec<String> = slots.iter().map(|slot| format!("{slot} {slot}")).collect();
        let ranges = ranges.join(" ");
        let (mut asked, line) = match way {
            AtOnce::Export => (node(from).client(), format!("CLUSTER MIGRATESLOTS SLOTSRANGE {ranges} NODE {to_id}")),
            AtOnce::Import => (node(to).client(), format!("CLUSTER MIGRATION IMPORT {ranges}")),
        };
        let (mut said, mut when) = (asked.call(&super::words::words(&line)), Instant::now());
        wait_for("the slots move at once", secs(60), || {
            for node in self.nodes.iter().filter(|n| n.is_running()) {
                let map = slots_by_port(&mut node.client()).ok_or("no map")?;
                if slots.iter().any(|slot| map[*slot] != to) {
                    // One that failed is not tried again by itself.
                    if when.elapsed() > Duration::from_secs(5) {
                        (said, when) = (asked.call(&super::words::words(&line)), Instant::now());
                    }
                    return Err(format!("{} is still without; {line}: {said:?}", node.port));
                }
            }
            Ok(())
        });
    }
}

/// Which of the two shards is told to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtOnce {
    /// The one that has the slots: Valkey from 9.0 on.
    Export,
    /// The one that is to get them: Redis from 8.4 on.
    Import,
}

/// Valkey has a master's replicas set it first: where they don't answer in time it was not done, and they are given more.
#[track_caller]
fn set_slot(node: &mut Client, slot: usize, what: &str) {
    let mut line = format!("CLUSTER SETSLOT {slot} {what}");
    wait_for("a slot is set", secs(60), || match node.call(&super::words::words(&line)) {
        Reply::Error(e) if e.starts_with("NOREPLICAS") => {
            line = format!("CLUSTER SETSLOT {slot} {what} TIMEOUT 8000");
            Err(e)
        }
        Reply::Error(e) => panic!("{line}: {e}"),
        _ => Ok(()),
    });
}

/// `None` while a slot is not served.
pub fn slots_by_port(client: &mut Client) -> Option<Vec<u16>> {
    let mut map = vec![0u16; SLOTS];
    // The node may just be dying.
    let Ok(Reply::Array(ranges)) = client.try_call(&["CLUSTER", "SLOTS"]) else { return None };
    for range in &ranges {
        let range = range.items();
        let port = range[2].items()[1].int() as u16;
        for s in range[0].int()..=range[1].int() {
            map[s as usize] = port;
        }
    }
    (!map.contains(&0)).then_some(map)
}
