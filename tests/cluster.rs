//! Clusters at either side or both: every write once, both sites equal, through crashes of the engine, failovers and
//! moved slots.

mod support;

use support::{
    cluster::{Site, Spread, assert_shared, assert_sites_equal, assert_spread},
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
