//! Slots that move with all of their keys in one step (Redis from 8.4, Valkey from 9.0 on), at either side and under load.
//!
//! What such a move writes into the streams of the two shards is nobody's change: the keys come as commands like any client's,
//! and where they go they are deleted, by commands like any client's or by one for the whole slot.

use crate::support::{
    cluster::{Cluster, Router, Site, slot},
    load::sized,
    resp::Reply,
    versions::Slot,
    wait::{Stops, until},
    *,
};
use crate::{Kind, Loads, job, storm::overruled};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The tags whose slots move at this side: none moves at both.
fn tags(prefix: &str, side: usize) -> Vec<String> {
    (0..40).map(|n| format!("{prefix}{n}")).filter(|tag| slot(tag.as_bytes()) % 2 == side).collect()
}

/// Keys that nobody writes any more, in the slots that move.
fn still(side: usize) -> Vec<String> {
    tags("both", side)
        .into_iter()
        .flat_map(|tag| ["list", "hash", "text"].map(|kind| format!("{{{tag}}}:still:{kind}")))
        .collect()
}

fn fill(router: &mut Router, side: usize) {
    for key in still(side) {
        match key.rsplit(':').next() {
            Some("list") => router.run(&format!("RPUSH {key} 1 2 3")),
            Some("hash") => router.run(&format!("HSET {key} f 1 g 2")),
            _ => router.run(&format!("SET {key} v")),
        };
    }
}

/// Looks at them until told to stop, and gives what was not as it had been.
fn watch(mut router: Router, keys: &[String], stop: &AtomicBool) -> Vec<String> {
    let mut faults = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        for key in keys {
            let (question, wanted) = match key.rsplit(':').next() {
                Some("list") => (format!("LLEN {key}"), 3),
                Some("hash") => (format!("HLEN {key}"), 2),
                _ => (format!("STRLEN {key}"), 1),
            };
            match router.run(&question) {
                Reply::Int(n) if n == wanted => {}
                other => faults.push(format!("{question}: {other:?} instead of {wanted}")),
            }
        }
        until(Instant::now() + Duration::from_millis(2));
    }
    faults
}

fn others(cluster: &Cluster, slot: usize) -> Vec<u16> {
    let at = cluster.map()[slot];
    cluster.masters().iter().map(|m| m.port).filter(|port| *port != at).collect()
}

/// `straight_back`: half of them return at once, perhaps before they have been seen to be away.
fn slots_move_at_once(server: &str, straight_back: bool) {
    let [a, b] = [Kind::Three, Kind::Uneven];
    let sites = [a.start(server), b.start(server)];
    let [a, b] = &sites;
    for side in 0..2 {
        fill(&mut a.router(), side);
    }
    let duplex = Duplex::synced(&job(a, b));
    let loads = Loads::start(a, b, 300);
    let stop = AtomicBool::new(false);
    let faults: Vec<String> = thread::scope(|s| {
        let stop = &stop;
        let stops = Stops(stop);
        // Seen from the side where they do not move.
        let watches = [0, 1].map(|side: usize| {
            let router = sites[1 - side].router();
            s.spawn(move || watch(router, &still(side), stop))
        });
        let mut rng = fastrand::Rng::with_seed(5);
        for round in 0..sized(4, 20) {
            loads.more(100);
            for (side, site) in sites.iter().enumerate() {
                let Site::Many(cluster) = site else { continue };
                for prefix in ["a", "b", "both"] {
                    let tags = tags(prefix, side);
                    let slot = slot(tags[rng.usize(0..tags.len())].as_bytes());
                    let (from, others) = (cluster.map()[slot], others(cluster, slot));
                    cluster.migrate_at_once(&[slot], others[rng.usize(0..others.len())]);
                    if straight_back && rng.bool() {
                        cluster.migrate_at_once(&[slot], from);
                    }
                }
            }
            if round % 2 == 1 {
                loads.more(100);
                duplex.wait_state("synchronizing", secs(60));
            }
        }
        drop(stops);
        watches.into_iter().flat_map(|w| w.join().expect("it looks")).collect()
    });
    match straight_back {
        // A key in conflict whose slot moves: what is lost of that the job tells.
        true => loads.end_exactly_but(&duplex, a, b, || overruled(&duplex)),
        false => loads.end_exactly(&duplex, a, b),
    }
    assert!(
        faults.is_empty(),
        "{} looks at keys that nobody wrote:\n{}",
        faults.len(),
        faults[..faults.len().min(20)].join("\n")
    );
}

#[test]
fn slots_move_at_once_on_the_newest_redis() {
    slots_move_at_once(Slot::NewestRedis.server(), true);
}

#[test]
fn slots_move_at_once_on_the_newest_valkey() {
    slots_move_at_once(Slot::NewestValkey.server(), false);
}

#[test]
fn slots_come_straight_back_on_the_newest_valkey() {
    slots_move_at_once(Slot::NewestValkey.server(), true);
}

/// An engine dies with much unanswered, and before another looks, slots go to another shard, are written to there, and come back:
/// what was in doubt is not settled by what the other side holds, which would write over it.
fn slots_were_away_when_an_engine_begins(server: &str) {
    let sites = [Kind::Three, Kind::Uneven].map(|kind| kind.start(server));
    let [a, b] = &sites;
    let mut duplex = Duplex::synced(&job(a, b));
    b.wait_copied(a);
    let loads = Loads::start(a, b, 300);
    for round in 0..sized(2, 12) {
        loads.more(100);
        let side = round as usize % 2;
        let cluster = sites[side].cluster();
        // What the engine has sent is done there after it has died.
        cluster.nodes.iter().for_each(Server::freeze);
        until(Instant::now() + Duration::from_millis(300));
        duplex.crash();
        cluster.nodes.iter().for_each(Server::thaw);
        cluster.wait_agreed();
        let map = cluster.map();
        let home = map[slot(tags("both", side)[0].as_bytes())];
        let mut slots: Vec<usize> = tags("both", side).iter().map(|tag| slot(tag.as_bytes())).collect();
        slots.retain(|slot| map[*slot] == home);
        let away = others(cluster, slots[0])[0];
        for to in [away, home] {
            match cluster.migrates_at_once() {
                Some(_) => cluster.migrate_at_once(&slots, to),
                None => slots.iter().for_each(|slot| cluster.migrate(*slot, to)),
            }
            loads.more(40);
        }
        duplex.revive();
        duplex.wait_state("synchronizing", secs(60));
    }
    loads.end_exactly(&duplex, a, b);
}

#[test]
fn slots_were_away_when_an_engine_begins_on_the_newest_valkey() {
    slots_were_away_when_an_engine_begins(Slot::NewestValkey.server());
}

#[test]
fn slots_were_away_when_an_engine_begins_on_the_usual() {
    slots_were_away_when_an_engine_begins(Slot::Usual.server());
}
