//! Much that waits for a cluster goes there slot by slot, and once, whatever happens meanwhile.

use crate::support::{
    cluster::{Site, assert_sites_equal, slot},
    load::sized,
    resp::Reply,
    versions::Slot,
    wait::{secs, until},
    *,
};
use crate::{Kind, job};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Counters and lists: some hundred keys, each in a slot of its own.
const KEYS: u64 = 150;

/// Each list is appended to and each counter counted once a round, all in one pipeline for each master.
fn rounds(site: &Site, first: u64, n: u64) {
    let masters = site.masters();
    let ports: Vec<u16> = masters.iter().map(|m| m.port).collect();
    let owner = |key: &str| match site {
        Site::One(_) => ports[0],
        Site::Many(cluster) => cluster.map()[slot(key.as_bytes())],
    };
    let mut by_master: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for k in 0..KEYS {
        for key in [format!("list:{k}"), format!("count:{k}")] {
            by_master.entry(owner(&key)).or_default().push(key);
        }
    }
    for round in first..first + n {
        for master in &masters {
            let mut client = master.client();
            let keys = &by_master[&master.port];
            for key in keys {
                match key.starts_with("list") {
                    true => client.queue(&["RPUSH", key, &round.to_string()]),
                    false => client.queue(&["INCR", key]),
                }
            }
            client.flush().expect("sent");
            for key in keys {
                assert!(!client.read().expect("a reply").is_error(), "{key}");
            }
        }
    }
}

/// How many transactions the masters have run, by their own count.
fn transactions(site: &Site) -> u64 {
    let one = |text: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix("cmdstat_exec:calls=")).map(str::to_owned);
        line.and_then(|l| l.split(',').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    site.masters().iter().map(|m| one(&m.client().run("INFO commandstats").text())).sum()
}

/// Written at one side faster than the job may carry it, while clients count at the other, and the engine is killed.
fn killed_in_a_backlog(server: &str, a: Kind, b: Kind) {
    let (a, b) = (a.start(server), b.start(server));
    let mut duplex = Duplex::synced(&job(&a, &b).limits("max_ops_per_second = 3000"));
    let (before, stop, counted) = (transactions(&b), AtomicBool::new(false), AtomicU64::new(0));
    let n = sized(40, 400);
    thread::scope(|s| {
        s.spawn(|| {
            let mut router = b.router();
            while !stop.load(Ordering::SeqCst) {
                let k = counted.fetch_add(1, Ordering::SeqCst) % KEYS;
                assert!(matches!(router.run(&format!("INCR count:{k}")), Reply::Int(_)));
                until(Instant::now() + Duration::from_millis(5));
            }
        });
        let mut rng = fastrand::Rng::with_seed(3);
        rounds(&a, 0, n / 2);
        for round in 0..sized(3, 20) {
            until(Instant::now() + Duration::from_millis(rng.u64(100..700)));
            duplex.crash();
            rounds(&a, n / 2 + round, 1);
            duplex.revive();
            duplex.wait_state("synchronizing", secs(60));
        }
        let more = sized(3, 20);
        rounds(&a, n / 2 + more, n - n / 2 - more);
        stop.store(true, Ordering::SeqCst);
    });
    duplex.wait_state("synchronizing", secs(60));
    assert_sites_equal(&a, &b, secs(60));
    let ran = transactions(&b) - before;
    let mut router = b.router();
    let whole: Vec<String> = (0..n).map(|n| n.to_string()).collect();
    let counted = counted.into_inner();
    for k in 0..KEYS {
        let list = router.run(&format!("LRANGE list:{k} 0 -1"));
        let list: Vec<String> = list.items().iter().map(Reply::text).collect();
        assert_eq!(list, whole, "list:{k}");
        let at_b = counted / KEYS + u64::from(k < counted % KEYS);
        assert_eq!(router.run(&format!("GET count:{k}")).text(), (n + at_b).to_string(), "count:{k}");
    }
    let changes = 2 * KEYS * n;
    assert!(ran < changes / 2, "{changes} changes went in {ran} transactions");
}

#[test]
fn a_backlog_between_clusters_goes_slot_by_slot_and_once() {
    killed_in_a_backlog(Slot::Usual.server(), Kind::Three, Kind::Uneven);
}

#[test]
fn a_backlog_of_one_server_goes_to_a_cluster_slot_by_slot_and_once() {
    killed_in_a_backlog(Slot::NewestValkey.server(), Kind::One, Kind::Three);
}
