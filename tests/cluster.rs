//! Clusters at either side or both: every write once, both sites equal, through crashes of the engine, failovers and
//! moved slots.

mod support;

use support::{
    cluster::{Cluster, Site, Spread, assert_shared, assert_sites_equal, assert_spread},
    load::sized,
    versions::Slot,
    *,
};

const THREE: usize = 3;
/// Another way to divide the slots among three.
const UNEVEN: [usize; 2] = [3_000, 12_345];

/// The pairs of kinds that are synced.
#[derive(Clone, Copy)]
enum Kind {
    One,
    Three,
    Uneven,
    Six,
}

impl Kind {
    fn start(self, server: &str) -> Site {
        match self {
            Kind::One => Site::one(server),
            Kind::Three => Site::many(server, THREE),
            Kind::Uneven => Site::split(server, &UNEVEN),
            Kind::Six => Site::many(server, 6),
        }
    }
}

fn job(a: &Site, b: &Site) -> JobSpec {
    JobSpec::between(a.addr(), b.addr())
}

/// Both ways, with keys that were there before.
fn synced(server: &str, a: Kind, b: Kind) {
    let (a, b) = (a.start(server), b.start(server));
    let mut router = a.router();
    for n in 0..500 {
        router.run(&format!("SET before:{n} {n}"));
        router.run(&format!("RPUSH {{before:{n}}}:list 1 2 3"));
    }
    let duplex = Duplex::synced(&job(&a, &b));
    let mut loads = [Spread::start(&a, "a", 300), Spread::start(&b, "b", 300)];
    loads.iter().for_each(|l| l.more(sized(600, 3_000)));
    let steps = loads.each_mut().map(Spread::stop);
    duplex.wait_state("synchronizing", secs(60));
    assert_sites_equal(&a, &b, secs(60));
    for site in [&a, &b] {
        assert_spread(site, "a", &steps[0]);
        assert_spread(site, "b", &steps[1]);
        assert_shared(site, &steps[0], &steps[1]);
    }
    let status = duplex.status();
    assert_eq!(status.total("apply_errors"), 0, "{:#}", status.0);
}

#[test]
fn one_server_and_three_shards() {
    synced(Slot::Usual.server(), Kind::One, Kind::Three);
}

#[test]
fn three_shards_and_one_server() {
    synced(Slot::NewestRedis.server(), Kind::Three, Kind::One);
}

#[test]
fn three_shards_and_three_others() {
    synced(Slot::NewestValkey.server(), Kind::Three, Kind::Uneven);
}

#[test]
fn three_shards_and_six() {
    synced(Slot::Usual.server(), Kind::Three, Kind::Six);
}

#[test]
fn six_shards_and_one_server() {
    synced(Slot::NewestValkey.server(), Kind::Six, Kind::One);
}

/// The engine is killed again and again, at any moment.
fn engine_is_killed(server: &str, a: Kind, b: Kind) {
    let (a, b) = (a.start(server), b.start(server));
    let mut duplex = Duplex::synced(&job(&a, &b));
    let mut loads = [Spread::start(&a, "a", 400), Spread::start(&b, "b", 400)];
    let mut rng = fastrand::Rng::with_seed(11);
    for _ in 0..sized(4, 15) {
        loads.iter().for_each(|l| l.more(rng.u64(20..300)));
        duplex.crash();
        loads.iter().for_each(|l| l.more(50));
        duplex.revive();
        duplex.wait_state("synchronizing", secs(60));
    }
    let steps = loads.each_mut().map(Spread::stop);
    assert_sites_equal(&a, &b, secs(60));
    for site in [&a, &b] {
        assert_spread(site, "a", &steps[0]);
        assert_spread(site, "b", &steps[1]);
        assert_shared(site, &steps[0], &steps[1]);
    }
}

#[test]
fn engine_is_killed_between_one_server_and_three_shards() {
    engine_is_killed(Slot::NewestRedis.server(), Kind::One, Kind::Three);
}

#[test]
fn engine_is_killed_between_three_shards_and_three_others() {
    engine_is_killed(Slot::Usual.server(), Kind::Three, Kind::Uneven);
}

#[test]
fn engine_is_killed_between_two_clusters_of_the_newest_valkey() {
    engine_is_killed(Slot::NewestValkey.server(), Kind::Uneven, Kind::Three);
}

/// A replica takes over in good order, at each side: nothing is lost anywhere.
fn masters_change_in_good_order(server: &str) {
    let a = Site::Many(Cluster::start(server, 3, 1));
    let b = Site::Many(Cluster::split(server, &UNEVEN, 1));
    let duplex = Duplex::synced(&job(&a, &b));
    let mut loads = [Spread::start(&a, "a", 300), Spread::start(&b, "b", 300)];
    for (site, replica) in [(&a, 3), (&b, 4), (&a, 5)] {
        loads.iter().for_each(|l| l.more(150));
        site.cluster().take_over(replica);
        let address = site.cluster().nodes[replica].addr();
        duplex.wait_status("the new master is read", secs(60), |s| {
            let shards = ["forward", "reverse"].map(|d| s.link(d).map(|l| l["shards"].to_string()).unwrap_or_default());
            s.state() == "synchronizing" && shards.iter().any(|s| s.contains(&address))
        });
    }
    let steps = loads.each_mut().map(Spread::stop);
    assert_sites_equal(&a, &b, secs(60));
    for site in [&a, &b] {
        assert_spread(site, "a", &steps[0]);
        assert_spread(site, "b", &steps[1]);
        assert_shared(site, &steps[0], &steps[1]);
    }
}

#[test]
fn masters_change_in_good_order_on_the_usual() {
    masters_change_in_good_order(Slot::Usual.server());
}

#[test]
fn masters_change_in_good_order_on_the_newest_valkey() {
    masters_change_in_good_order(Slot::NewestValkey.server());
}

/// A master is killed, its replica is promoted, the old master comes back as a replica of it.
fn masters_are_killed(server: &str) {
    let mut a = Site::Many(Cluster::start(server, 3, 1));
    let mut b = Site::Many(Cluster::split(server, &UNEVEN, 1));
    let duplex = Duplex::synced(&job(&a, &b));
    let mut loads = [Spread::through(&a, "a", 400), Spread::through(&b, "b", 400)];
    for round in 0..sized(2, 6) {
        loads.iter().for_each(|l| l.more(100));
        let cluster = if round % 2 == 0 { a.cluster_mut() } else { b.cluster_mut() };
        cluster.kill_a_master(round);
        loads.iter().for_each(|l| l.more(50));
        duplex.wait_state("synchronizing", secs(60));
    }
    let _ = loads.each_mut().map(Spread::stop);
    duplex.wait_state("synchronizing", secs(60));
    assert_sites_equal(&a, &b, secs(60));
    // And it goes on.
    a.router().run("SET after:all 1");
    assert_sites_equal(&a, &b, secs(60));
}

#[test]
fn masters_are_killed_on_the_newest_redis() {
    masters_are_killed(Slot::NewestRedis.server());
}

#[test]
fn masters_are_killed_on_the_newest_valkey() {
    masters_are_killed(Slot::NewestValkey.server());
}
