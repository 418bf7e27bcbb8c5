//! Clusters at either side or both: every write once, both sites equal, through crashes of the engine, failovers and
//! moved slots.

#[path = "cluster/alone.rs"]
mod alone;
#[path = "cluster/at_once.rs"]
mod at_once;
#[path = "cluster/attach.rs"]
mod attach;
#[path = "cluster/down.rs"]
mod down;
#[path = "sentinel/group.rs"]
#[allow(dead_code, reason = "the failover suite uses the rest")]
mod group;
#[path = "cluster/heirs.rs"]
mod heirs;
#[path = "cluster/matrix.rs"]
mod matrix;
#[path = "cluster/storm.rs"]
mod storm;
mod support;

use nix::sys::signal::Signal;
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};
use support::{
    cluster::{Cluster, Gate, Site, Spread, assert_shared, assert_sites_equal, assert_spread, slot},
    load::sized,
    server::signal,
    versions::Slot,
    wait::Stops,
    words::words,
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

    /// With so many replicas for each master of a cluster.
    fn start_with(self, server: &str, replicas: usize) -> Site {
        match self {
            Kind::One => Site::one(server),
            Kind::Three => Site::Many(Cluster::start(server, THREE, replicas)),
            Kind::Uneven => Site::Many(Cluster::split(server, &UNEVEN, replicas)),
            Kind::Six => Site::Many(Cluster::start(server, 6, replicas)),
        }
    }
}

fn job(a: &Site, b: &Site) -> JobSpec {
    JobSpec::between(a.addr(), b.addr())
}

/// Both sides write, as long as a test lasts.
struct Loads([Spread; 2]);

impl Loads {
    fn start(a: &Site, b: &Site, per_second: u64) -> Loads {
        Loads([Spread::start(a, "a", per_second), Spread::start(b, "b", per_second)])
    }

    /// The same while servers die, each only when its side's gate is shut.
    fn behind(sites: &[Site; 2], gates: &[Arc<Gate>; 2], per_second: u64) -> Loads {
        let load = |n: usize, prefix| Spread::behind(&sites[n], prefix, per_second, gates[n].clone());
        Loads([load(0, "a"), load(1, "b")])
    }

    fn more(&self, steps: u64) {
        self.0.iter().for_each(|l| l.more(steps));
    }

    /// Ends them: both sites are equal then, and hold each step exactly once.
    #[track_caller]
    fn end_exactly(self, duplex: &Duplex, a: &Site, b: &Site) {
        self.end_exactly_but(duplex, a, b, BTreeSet::new);
    }

    /// The same, but for the keys that are told when both sites are equal.
    #[track_caller]
    fn end_exactly_but(mut self, duplex: &Duplex, a: &Site, b: &Site, but: impl FnOnce() -> BTreeSet<String>) {
        let steps = self.0.each_mut().map(Spread::stop);
        duplex.wait_state("synchronizing", secs(60));
        assert_sites_equal(a, b, secs(60));
        let but = but();
        for site in [a, b] {
            assert_spread(site, "a", &steps[0], &but);
            assert_spread(site, "b", &steps[1], &but);
            assert_shared(site, &steps[0], &steps[1], &but);
        }
    }
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
    let loads = Loads::start(&a, &b, 300);
    loads.more(sized(600, 3_000));
    loads.end_exactly(&duplex, &a, &b);
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
    let loads = Loads::start(&a, &b, 400);
    let mut rng = fastrand::Rng::with_seed(11);
    for _ in 0..sized(4, 15) {
        loads.more(rng.u64(20..300));
        duplex.crash();
        loads.more(50);
        duplex.revive();
        duplex.wait_state("synchronizing", secs(60));
    }
    loads.end_exactly(&duplex, &a, &b);
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
    let loads = Loads::start(&a, &b, 300);
    for (site, replica) in [(&a, 3), (&b, 4), (&a, 5)] {
        loads.more(150);
        site.cluster().take_over(replica);
        let address = site.cluster().nodes[replica].addr();
        duplex.wait_status("the new master is read", secs(60), |s| {
            let shards = ["forward", "reverse"].map(|d| s.link(d).map(|l| l["shards"].to_string()).unwrap_or_default());
            s.state() == "synchronizing" && shards.iter().any(|s| s.contains(&address))
        });
    }
    loads.end_exactly(&duplex, &a, &b);
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
    let mut loads = Loads([Spread::through(&a, "a", 400), Spread::through(&b, "b", 400)]);
    for round in 0..sized(2, 6) {
        loads.more(100);
        let cluster = if round % 2 == 0 { a.cluster_mut() } else { b.cluster_mut() };
        cluster.kill_a_master(round);
        loads.more(50);
        duplex.wait_state("synchronizing", secs(60));
    }
    let _ = loads.0.each_mut().map(Spread::stop);
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

/// Slots that are written to move from shard to shard, at each side.
fn slots_move(server: &str, a: Kind, b: Kind) {
    let (a, b) = (a.start(server), b.start(server));
    let duplex = Duplex::synced(&job(&a, &b));
    let loads = Loads::start(&a, &b, 300);
    let mut rng = fastrand::Rng::with_seed(5);
    for round in 0..sized(4, 20) {
        loads.more(100);
        for (odd, site) in [(0, &a), (1, &b)] {
            let Site::Many(cluster) = site else { continue };
            let masters: Vec<u16> = cluster.masters().iter().map(|m| m.port).collect();
            for prefix in ["a", "b", "both"] {
                // No slot at both sides at once: there is no order between two such moves.
                let slot = slot(format!("{prefix}{}", 2 * rng.u32(0..20) + odd).as_bytes());
                let to = masters[rng.usize(0..masters.len())];
                cluster.migrate(slot, to);
            }
        }
        if round % 2 == 1 {
            loads.more(100);
            duplex.wait_state("synchronizing", secs(60));
        }
    }
    loads.end_exactly(&duplex, &a, &b);
}

#[test]
fn slots_move_opposite_one_server() {
    slots_move(Slot::Usual.server(), Kind::Three, Kind::One);
}

#[test]
fn slots_move_at_both_sides() {
    slots_move(Slot::NewestRedis.server(), Kind::Three, Kind::Uneven);
}

#[test]
fn slots_move_at_both_sides_of_the_newest_valkey() {
    slots_move(Slot::NewestValkey.server(), Kind::Three, Kind::Uneven);
}

/// Slots move at both sides while both write the same keys, the engine is killed, masters die and are replaced, a shard stands
/// still: at random, from a seed. `DUPLEX_SEED=n` plays one again, `DUPLEX_SEEDS=n` so many.
#[test]
fn storms_are_weathered() {
    let servers = [Slot::NewestRedis, Slot::NewestValkey, Slot::Usual];
    let pairs =
        [(Kind::Three, Kind::Uneven), (Kind::One, Kind::Three), (Kind::Six, Kind::Three), (Kind::Three, Kind::One)];
    for seed in storm::seeds(2, 50) {
        let (server, (a, b)) = (servers[seed as usize % 3].server(), pairs[seed as usize / 3 % pairs.len()]);
        // Which sides have replicas, so that masters may die: none, the one, the other, both. In the short form none.
        let replicas = sized(0, (seed + seed / 12) % 4);
        let mut sites = [a.start_with(server, replicas as usize & 1), b.start_with(server, replicas as usize >> 1)];
        storm::weather(server, seed, &mut sites);
    }
}

/// Valkey has a shard's replicas set a slot before it is set. We are among them, and we acknowledge what has been applied at the
/// other site: who moves slots does not wait for that.
#[test]
fn a_slot_is_set_while_the_engine_stands_still() {
    let server = Slot::NewestValkey.server();
    let (a, b) = (Site::Many(Cluster::start(server, 3, 1)), Site::one(server));
    let mut duplex = Duplex::synced(&job(&a, &b));
    b.wait_copied(&a);
    duplex.crash();
    duplex.revive();
    duplex.wait_state("synchronizing", secs(60));
    let (cluster, map) = (a.cluster(), a.cluster().map());
    let [owner, other] = [map[0], *map.last().expect("a map")].map(|port| &cluster.nodes[cluster.node_with_port(port)]);
    let id = owner.client().run("CLUSTER MYID").text();
    signal(duplex.engine_pid(), Signal::SIGSTOP);
    let said = [format!("IMPORTING {id}"), "STABLE".into()]
        .map(|what| other.client().call(&words(&format!("CLUSTER SETSLOT 0 {what}"))));
    signal(duplex.engine_pid(), Signal::SIGCONT);
    assert!(said.iter().all(|reply| !reply.is_error()), "{said:?}");
}

/// Slots move right after each of several kills, while all that was in flight is being looked at again.
#[test]
fn keys_in_conflict_move() {
    let server = Slot::NewestRedis.server();
    storm::move_in_conflict(&[Kind::Three, Kind::Uneven].map(|kind| kind.start(server)), true);
}

/// The same before the first copy is kept: each kill begins it again.
#[test]
fn slots_move_while_a_copy_begins_again() {
    let server = Slot::NewestRedis.server();
    storm::move_in_conflict(&[Kind::Three, Kind::Uneven].map(|kind| kind.start(server)), false);
}

fn conflicts_are_settled(server: &str, a: Kind, b: Kind) {
    let (a, b) = (a.start(server), b.start(server));
    let mut duplex = Duplex::synced(&job(&a, &b));
    let stop = AtomicBool::new(false);
    let wrote: Vec<storm::Wrote> = thread::scope(|s| {
        let stop = &stop;
        let stops = Stops(stop);
        let threads = [(&a, 1), (&b, 2)]
            .map(|(site, seed)| s.spawn(move || storm::write(site.router(), &Gate::default(), seed, stop)));
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..sized(2, 8) {
            support::wait::until(Instant::now() + Duration::from_millis(rng.u64(500..1500)));
            duplex.crash();
            duplex.revive();
        }
        drop(stops);
        threads.into_iter().map(|t| t.join().expect("the storm")).collect()
    });
    duplex.wait_state("synchronizing", secs(60));
    assert_sites_equal(&a, &b, secs(60));
    storm::assert_counted(&[&a, &b], &wrote, &BTreeSet::new());
    // The product's own word for it.
    let outcome = duplex.run(&["verify", &duplex.name, "--json"]).code(0);
    assert!(
        outcome.stdout.contains("\"equal\":true") || outcome.stdout.contains("\"equal\": true"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn conflicts_are_settled_between_one_server_and_three_shards() {
    conflicts_are_settled(Slot::Usual.server(), Kind::One, Kind::Three);
}

#[test]
fn conflicts_are_settled_between_three_shards_and_three_others() {
    conflicts_are_settled(Slot::NewestValkey.server(), Kind::Three, Kind::Uneven);
}

#[test]
fn what_spans_slots_at_one_server_arrives_in_a_cluster() {
    let (a, b) = (Site::one(Slot::NewestRedis.server()), Site::many(Slot::NewestRedis.server(), THREE));
    let duplex = Duplex::synced(&job(&a, &b));
    let Site::One(server) = &a else { unreachable!() };
    let mut client = server.client();
    client.run("MSET k1 1 k2 2 k3 3 k4 4 k5 5");
    client.run("RENAME k1 k9");
    client.run("SADD s1 a b");
    client.run("SADD s2 b c");
    client.run("SUNIONSTORE s3 s1 s2");
    client.run("RPUSH l1 a b c");
    client.run("LMOVE l1 l2 LEFT RIGHT");
    client.run("DEL k2 k3 none");
    for n in 0..300 {
        client.run("MULTI");
        for k in 0..4 {
            client.run(&format!("INCR t:{}", (n + k * 7) % 20));
        }
        client.run("EXEC");
        client.run(&format!("EVAL \"redis.call('INCR','e1') redis.call('RPUSH','e2',{n})\" 0"));
    }
    duplex.wait_state("synchronizing", secs(30));
    assert_sites_equal(&a, &b, secs(30));
    assert_eq!(b.router().run("LLEN e2").int(), 300);
    // And back.
    b.router().run("SET back 1");
    assert_sites_equal(&a, &b, secs(30));
    // Nothing is left when the job is stopped.
    duplex.run(&["stop", &duplex.name]).code(0);
    for server in a.masters().into_iter().chain(b.masters()) {
        assert_eq!(support::compare::control_keys(server), Vec::<String>::new());
    }
}

#[test]
fn a_slot_that_nobody_serves_is_named() {
    let server = Slot::Usual.server();
    let cluster = Cluster::bare(server, 2);
    cluster.nodes[0].client().run("CLUSTER ADDSLOTSRANGE 0 8000");
    cluster.nodes[1].client().run("CLUSTER ADDSLOTSRANGE 8001 12344 12346 16383");
    let (a, b) = (Site::one(server), Site::Many(cluster));
    wait_for("both nodes know the slots", secs(30), || {
        let known = b.cluster().nodes[0].client().run("CLUSTER SLOTS");
        if known.items().len() == 3 { Ok(()) } else { Err(format!("{known:?}")) }
    });
    let duplex = Duplex::new(&job(&a, &b));
    let file = duplex.job_file.to_str().expect("a path").to_owned();
    duplex.run(&["precheck", &file]).code(3).says(&["nobody serves the slots 12345"]);
}

#[test]
fn other_databases_are_refused_where_a_cluster_has_none() {
    let server = Slot::NewestValkey.server();
    let (a, b) = (Site::one(server), Site::many(server, THREE));
    let Site::One(one) = &a else { unreachable!() };
    let mut client = one.client();
    client.run("SELECT 3");
    client.run("SET k v");
    let duplex = Duplex::new(&job(&a, &b));
    let file = duplex.job_file.to_str().expect("a path").to_owned();
    duplex.run(&["precheck", &file]).code(3).says(&["the source has keys in db3", "databases = [0]"]);
    let duplex = Duplex::new(&job(&a, &b).policy("databases = [0]"));
    let file = duplex.job_file.to_str().expect("a path").to_owned();
    duplex.run(&["precheck", &file]).code(0);
}
