//! A run that begins while slots are on their way, and what is left of the strands before.

use crate::support::{
    cluster::{Cluster, Site, assert_sites_equal, slot},
    load::sized,
    versions::Slot,
    wait::{Stops, until},
    *,
};
use crate::{Kind, Loads, job, storm::overruled};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Slots without a break between two shards, until it is told to stop.
fn to_and_fro(cluster: &Cluster, slots: &[usize], stop: &AtomicBool) {
    let home = cluster.map()[slots[0]];
    let away = cluster.masters().iter().map(|m| m.port).find(|port| *port != home).expect("another shard");
    for to in [away, home].into_iter().cycle() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        cluster.migrate_at_once(slots, to);
        until(Instant::now() + Duration::from_millis(20));
    }
}

/// What an engine that begins has seen of the slots is true no more when it reads and writes their control keys: it is told so
/// by MOVED, looks again, and goes on exactly.
#[test]
fn slots_move_while_an_engine_attaches() {
    let server = Slot::NewestValkey.server();
    let (a, b) = (Kind::Three.start(server), Kind::One.start(server));
    let mut duplex = Duplex::synced(&job(&a, &b));
    b.wait_copied(&a);
    let loads = Loads::start(&a, &b, 200);
    let mut slots: Vec<usize> = (0..40).map(|n| slot(format!("both{n}").as_bytes())).collect();
    slots.retain(|slot| *slot < 5_000);
    let stop = AtomicBool::new(false);
    let met = thread::scope(|s| {
        let (stop, slots, cluster) = (&stop, &slots, a.cluster());
        let stops = Stops(stop);
        s.spawn(move || to_and_fro(cluster, slots, stop));
        let mut met = 0;
        for _ in 0..sized(30, 100) {
            duplex.crash();
            duplex.revive();
            until(Instant::now() + Duration::from_millis(400));
            let log = std::fs::read_to_string(duplex.engine_log()).expect("the engine's log");
            // As it is told where a run could not begin.
            met =
                log.lines().filter(|line| line.contains("managed::begin") && line.contains("an error: MOVED")).count();
            if met >= sized(3, 30) {
                break;
            }
        }
        drop(stops);
        met
    });
    assert!(met > 0, "no engine has met a slot that moved while it attached");
    // A key in conflict whose slot moves: what is lost of that the job tells.
    loads.end_exactly_but(&duplex, &a, &b, || overruled(&duplex));
}

/// The strands that have keys at a standalone side.
fn strands_at(site: &Site) -> BTreeSet<String> {
    let Site::One(server) = site else { unreachable!("one server") };
    let names = server.client().run("KEYS duplex:*@*");
    let names = names.items().iter().map(Reply::text);
    names.map(|name| name.split('@').nth(1).expect("a name").trim_end_matches(":open").to_owned()).collect()
}

/// Each time that the slots are divided otherwise there are other strands, and their keys at a standalone side bear their names.
#[test]
fn of_former_strands_nothing_is_left_at_one_server() {
    let server = Slot::NewestRedis.server();
    let (a, b) = (Kind::Three.start(server), Kind::One.start(server));
    let duplex = Duplex::synced(&job(&a, &b));
    b.wait_copied(&a);
    let mut before = strands_at(&b);
    assert_eq!(before.len(), 3, "{before:?}");
    let key = "k1";
    for round in 0..3 {
        let cluster = a.cluster();
        let ports: Vec<u16> = cluster.masters().iter().map(|m| m.port).collect();
        let at = cluster.map()[slot(key.as_bytes())];
        cluster.migrate(slot(key.as_bytes()), *ports.iter().find(|port| **port != at).expect("another shard"));
        let now = wait_for("there are the strands of now", secs(60), || match strands_at(&b) {
            now if now.len() == 3 && now != before => Ok(now),
            now => Err(format!("{now:?}")),
        });
        before = now;
        a.router().run(&format!("SET {key} {round}"));
        assert_sites_equal(&a, &b, secs(60));
    }
    duplex.run(&["stop", &duplex.name]).code(0);
    for server in a.masters().into_iter().chain(b.masters()) {
        assert_eq!(compare::control_keys(server), Vec::<String>::new());
    }
}
