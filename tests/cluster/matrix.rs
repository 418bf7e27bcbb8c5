//! Every kind of instance beside every other, both ways, with writers on both sides who also write the same keys.

use crate::support::{
    cluster::{Cluster, Gate, Site},
    duplex::Status,
    load::sized,
    server::Server,
    versions::Slot,
    wait::{Stops, until},
    *,
};
use crate::{
    Loads,
    group::{Group, Sentinel, in_step},
    storm,
};
use std::{
    collections::BTreeSet,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    One,
    Three,
    Six,
    /// A master and its replica, found by sentinels.
    Sentinel,
    /// A master that is written to, and its replica, which is read from.
    ReadFrom,
}

const KINDS: [Kind; 5] = [Kind::One, Kind::Three, Kind::Six, Kind::Sentinel, Kind::ReadFrom];

/// An instance, and how a job file tells of it.
struct Instance {
    kind: Kind,
    site: Site,
    replica: Option<Server>,
    /// They watch as long as they are kept.
    sentinels: Vec<Sentinel>,
}

impl Instance {
    fn start(kind: Kind, server: &str) -> Instance {
        let whole = |site| Instance { kind, site, replica: None, sentinels: Vec::new() };
        match kind {
            Kind::One => whole(Site::one(server)),
            Kind::Three => whole(Site::many(server, 3)),
            // Cut otherwise than three or six equal parts would be.
            Kind::Six => whole(Site::Many(Cluster::split(server, &[1_000, 5_000, 8_000, 8_192, 12_000], 0))),
            Kind::Sentinel => {
                let Group { mut servers, sentinels } = Group::start(server, &[], 1);
                let replica = servers.pop();
                let master = servers.pop().expect("a master");
                Instance { kind, site: Site::One(master), replica, sentinels }
            }
            Kind::ReadFrom => {
                let (master, replica) = (Server::start(server, &[]), Server::start(server, &[]));
                replica.client().run(&format!("REPLICAOF 127.0.0.1 {}", master.port));
                in_step(&master, &replica);
                Instance { kind, site: Site::One(master), replica: Some(replica), sentinels: Vec::new() }
            }
        }
    }

    /// Its section of a job file.
    fn section(&self) -> String {
        match self.kind {
            Kind::Sentinel => {
                let addresses: Vec<String> = self.sentinels.iter().map(|s| format!("{:?}", s.addr())).collect();
                format!("address = [{}]\n{}", addresses.join(", "), Group::lines())
            }
            Kind::ReadFrom => format!("address = {:?}\nread_from = \"replica\"\n", self.site.addr()),
            _ => format!("address = {:?}\n", self.site.addr()),
        }
    }

    /// The servers whose streams are read.
    fn read(&self) -> Vec<String> {
        match (&self.replica, self.kind) {
            (Some(replica), Kind::ReadFrom) => vec![replica.addr()],
            _ => self.site.masters().iter().map(|m| m.addr()).collect(),
        }
    }
}

/// The shards that a link reads, without those that it reads for several strands twice.
fn read_by(status: &Status, direction: &str) -> BTreeSet<String> {
    let shards = status.link(direction).map(|l| l["shards"].as_array().cloned().unwrap_or_default());
    let shards = shards.unwrap_or_default();
    shards.iter().filter_map(|s| s["address"].as_str()).map(str::to_owned).collect()
}

fn synced(server: &str, a: Kind, b: Kind) {
    eprintln!("{server}: {a:?} and {b:?}");
    let [a, b] = [a, b].map(|kind| Instance::start(kind, server));
    let mut router = a.site.router();
    for n in 0..200 {
        router.run(&format!("SET before:{n} {n}"));
        router.run(&format!("RPUSH {{before:{n}}}:list 1 2 3"));
    }
    let file = format!("name = \"orders\"\n[source]\n{}[target]\n{}", a.section(), b.section());
    let mut duplex = Duplex::with_file(&file);
    duplex.start();
    let status = duplex.wait_state("synchronizing", secs(60));
    for (instance, direction) in [(&a, "forward"), (&b, "reverse")] {
        assert_eq!(read_by(&status, direction), instance.read().into_iter().collect(), "{direction}: {:#}", status.0);
    }
    let loads = Loads::start(&a.site, &b.site, 200);
    let stop = AtomicBool::new(false);
    let wrote: Vec<storm::Wrote> = thread::scope(|s| {
        let stop = &stop;
        let stops = Stops(stop);
        let threads = [(&a, 1), (&b, 2)]
            .map(|(i, seed)| s.spawn(move || storm::write(i.site.router(), &Gate::default(), seed, stop)));
        loads.more(sized(200, 400));
        until(Instant::now() + Duration::from_millis(200));
        drop(stops);
        threads.into_iter().map(|t| t.join().expect("the writer")).collect()
    });
    loads.end_exactly(&duplex, &a.site, &b.site);
    let sites = [&a.site, &b.site];
    storm::assert_counted(&sites, &wrote, &BTreeSet::new());
    let wrote: [storm::Wrote; 2] = wrote.try_into().unwrap_or_else(|_| unreachable!("of two sides"));
    sites.into_iter().for_each(|site| storm::assert_pushed(site, &wrote));
    let status = duplex.status();
    assert!(status.total("conflicts_settled") > 0, "both wrote the same keys at once: {:#}", status.0);
    duplex.run(&["verify", &duplex.name]).code(0);
}

/// All pairs in the long form, which takes minutes (the runner's profile `soak`); in the short one some that no other test has.
fn kinds(slot: Slot, few: &[(Kind, Kind)]) {
    let all: Vec<(Kind, Kind)> = KINDS.into_iter().flat_map(|a| KINDS.map(|b| (a, b))).collect();
    for (a, b) in sized(few, &all) {
        synced(slot.server(), *a, *b);
    }
}

#[test]
fn kinds_of_instances_are_synced_on_the_usual() {
    kinds(Slot::Usual, &[(Kind::Sentinel, Kind::Three)]);
}

#[test]
fn kinds_of_instances_are_synced_on_the_newest_redis() {
    kinds(Slot::NewestRedis, &[(Kind::Six, Kind::ReadFrom)]);
}

#[test]
fn kinds_of_instances_are_synced_on_the_newest_valkey() {
    kinds(Slot::NewestValkey, &[(Kind::ReadFrom, Kind::Sentinel)]);
}
