//! `read_from = "replica"`: the streams come from replicas, writes go to the masters, and the replica that is read from
//! may die, fall behind, or become the master.

mod support;

#[path = "sentinel/group.rs"]
#[allow(dead_code, reason = "the failover suite uses the rest")]
mod group;

use group::{Faithful, Group, assert_faithful, in_step};
use support::{
    load::{Tally, assert_tally, fill},
    server::Server,
    versions::Slot,
    *,
};

/// A master and so many replicas of it, in step.
struct Site {
    master: Server,
    replicas: Vec<Server>,
}

impl Site {
    fn start(name: &str, replicas: usize) -> Site {
        let master = Server::start(name, &[]);
        let replicas: Vec<Server> =
            (0..replicas).map(|_| Server::start(name, &["--repl-diskless-sync", "no"])).collect();
        for r in &replicas {
            r.client().run(&format!("REPLICAOF 127.0.0.1 {}", master.port));
        }
        let site = Site { master, replicas };
        site.in_step();
        site
    }

    fn in_step(&self) {
        self.replicas.iter().filter(|r| r.is_running()).for_each(|r| in_step(&self.master, r));
    }

    /// The replica that has this address.
    fn at(&mut self, address: &str) -> &mut Server {
        self.replicas.iter_mut().find(|r| r.addr() == address).unwrap_or_else(|| panic!("no replica at {address}"))
    }
}

const READ: &str = "read_from = \"replica\"";

fn reading(status: &support::duplex::Status, direction: &str) -> String {
    let link = status.link(direction).expect("the link");
    link["shards"][0]["address"].as_str().unwrap_or_default().to_owned()
}

/// Waits until the forward link reads from an address that is wanted, and streams.
fn wait_reading(duplex: &Duplex, what: &str, wanted: impl Fn(&str) -> bool) -> String {
    let status = duplex.wait_status(what, secs(60), |s| s.state() == "synchronizing" && wanted(&reading(s, "forward")));
    reading(&status, "forward")
}

fn streams_come_from_replicas(slot: Slot) {
    let (a, b) = (Site::start(slot.server(), 2), Site::start(slot.server(), 1));
    fill(&a.master, 2_000, true);
    // A replica holds what has expired until its master says so.
    a.master.client().run("SET brief x PX 1");
    a.in_step();
    let job = JobSpec::between(a.master.addr(), b.master.addr()).source_line(READ).target_line(READ);
    let duplex = Duplex::synced(&job);
    let status = duplex.status();
    assert!(a.replicas.iter().any(|r| r.addr() == reading(&status, "forward")), "{:#}", status.0);
    assert_eq!(reading(&status, "reverse"), b.replicas[0].addr());
    let slaves = |s: &Server| s.info("replication", "connected_slaves").unwrap_or_default();
    assert_eq!(
        (slaves(&a.master), slaves(&b.master)),
        ("2".into(), "1".into()),
        "the masters feed their replicas alone"
    );
    let mut loads = [Tally::start(&a.master, "a", 1_000), Tally::start(&b.master, "b", 1_000)];
    for _ in 0..200 {
        a.master.client().run("INCR both");
        b.master.client().run("INCR both");
        a.master.client().run("SET mine a");
        b.master.client().run("SET mine b");
    }
    let steps = loads.each_mut().map(|l| l.stop());
    duplex.wait_state("synchronizing", secs(60));
    assert_equal_within(&a.master, &b.master, secs(60));
    for server in [&a.master, &b.master] {
        assert_tally(server, "a", steps[0]);
        assert_tally(server, "b", steps[1]);
        assert_eq!(server.client().run("GET both").int(), 400);
    }
    assert_eq!(duplex.status().total("apply_errors"), 0);
}

#[test]
fn streams_come_from_replicas_on_the_oldest() {
    streams_come_from_replicas(Slot::Oldest);
}

#[test]
fn streams_come_from_replicas_on_the_usual() {
    streams_come_from_replicas(Slot::Usual);
}

#[test]
fn streams_come_from_replicas_on_the_newest_redis() {
    streams_come_from_replicas(Slot::NewestRedis);
}

#[test]
fn streams_come_from_replicas_on_the_newest_valkey() {
    streams_come_from_replicas(Slot::NewestValkey);
}

#[test]
fn a_replica_that_dies_is_replaced_and_in_the_end_the_master_is_read() {
    let name = Slot::Usual.server();
    let (mut a, b) = (Site::start(name, 2), Server::start(name, &[]));
    let duplex = Duplex::synced(&JobSpec::between(a.master.addr(), b.addr()).source_line(READ));
    let mut loads = [Tally::start(&a.master, "a", 1_000), Tally::start(&b, "b", 1_000)];
    let first = wait_reading(&duplex, "a replica is read", |at| at != a.master.addr());
    a.at(&first).kill();
    // The master may be read in between, as long as it does not list the other one as online yet.
    let master = a.master.addr();
    let second = wait_reading(&duplex, "the other replica is read", |at| at != first && at != master);
    a.at(&second).kill();
    wait_reading(&duplex, "the master is read", |at| at == master);
    // One of them comes back, with nothing: it copies its master's data first.
    let back = a.at(&first);
    back.restart();
    back.client().run(&format!("REPLICAOF {}", master.replace(':', " ")));
    wait_reading(&duplex, "the replica is read again", |at| at == first);
    let steps = loads.each_mut().map(|l| l.stop());
    duplex.wait_state("synchronizing", secs(60));
    assert_equal_within(&a.master, &b, secs(60));
    for server in [&a.master, &b] {
        assert_tally(server, "a", steps[0]);
        assert_tally(server, "b", steps[1]);
    }
    let events = duplex.run(&["events", &duplex.name]).text();
    assert!(events.contains("no replica of it can be read from"), "{events}");
    assert_eq!(duplex.status().total("apply_errors"), 0);
}

#[test]
fn a_replica_that_stands_still_is_left() {
    let name = Slot::Usual.server();
    let (mut a, b) = (Site::start(name, 2), Server::start(name, &[]));
    let duplex = Duplex::synced(&JobSpec::between(a.master.addr(), b.addr()).source_line(READ));
    let first = wait_reading(&duplex, "a replica is read", |at| at != a.master.addr());
    let mut load = Tally::start(&a.master, "a", 500);
    a.at(&first).freeze();
    wait_reading(&duplex, "another is read", |at| at != first);
    a.at(&first).thaw();
    let steps = load.stop();
    duplex.wait_state("synchronizing", secs(60));
    assert_equal_within(&a.master, &b, secs(60));
    assert_tally(&b, "a", steps);
}

#[test]
fn the_replica_that_is_read_becomes_the_master() {
    let name = Slot::Usual.server();
    let mut group = Group::start(name, &[], 1);
    let other = Server::start(name, &[]);
    let sentinels = group.addresses().iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(", ");
    let mut duplex = Duplex::with_file(&format!(
        "name = \"orders\"\n[source]\naddress = [{sentinels}]\n{}{READ}\n[target]\naddress = {:?}\n",
        Group::lines(),
        other.addr()
    ));
    duplex.start();
    let replica = group.replica().addr();
    wait_reading(&duplex, "the replica is read", |at| at == replica);
    let ports: Vec<u16> = group.servers.iter().map(|s| s.port).collect();
    let mut tally = Tally::start(&other, "other", 500);
    let mut faithful = Faithful::start(ports, "own", 500);
    faithful.more(400);
    group.kill_master();
    faithful.more(200);
    wait_reading(&duplex, "the heir is read", |at| at == replica);
    group.heal();
    let replica = group.replica().addr();
    wait_reading(&duplex, "the old master is read as a replica", |at| at == replica);
    let (steps, kept) = (tally.stop(), faithful.stop());
    duplex.wait_state("synchronizing", secs(60));
    assert_equal_within(group.master(), &other, secs(60));
    for server in [group.master(), &other] {
        assert_tally(server, "other", steps);
        assert_faithful(server, "own", &kept);
    }
}

#[test]
fn a_one_way_job_may_read_from_a_replica_that_its_file_names() {
    for slot in [Slot::Usual, Slot::NewestValkey] {
        let (a, b) = (Site::start(slot.server(), 1), Server::start(slot.server(), &[]));
        fill(&a.master, 500, true);
        a.in_step();
        let job = JobSpec::between(a.replicas[0].addr(), b.addr()).source_line(READ).policy("two_way = false");
        let duplex = Duplex::synced(&job);
        let mut load = Tally::start(&a.master, "a", 1_000);
        wait_for("some load", secs(20), || if load.sent() > 500 { Ok(()) } else { Err(load.sent().to_string()) });
        let steps = load.stop();
        duplex.wait_applied(&a.master, &b, secs(60));
        assert_equal_within(&a.master, &b, secs(60));
        assert_tally(&b, "a", steps);
        assert_eq!(a.master.info("replication", "connected_slaves").as_deref(), Some("1"));
    }
}

#[test]
fn the_precheck_names_the_replica_or_says_why_there_is_none() {
    let name = Slot::Usual.server();
    let (mut a, b) = (Site::start(name, 1), Server::start(name, &[]));
    let job = JobSpec::between(a.master.addr(), b.addr()).source_line(READ);
    let duplex = Duplex::new(&job);
    let file = duplex.job_file.to_str().expect("a path").to_owned();
    let replica = a.replicas[0].addr();
    duplex.run(&["precheck", &file]).code(0).says(&["its stream is read from the replica", &replica]);
    // Users are not replicated: the account of the job may not be known there.
    a.replicas[0].client().run("CONFIG SET requirepass other");
    duplex.run(&["precheck", &file]).code(0).says(&["no replica can be read from", "asks for a password", "read_from"]);
    a.replicas[0].kill();
    wait_for("the master has noticed", secs(20), || match a.master.info("replication", "connected_slaves") {
        Some(n) if n == "0" => Ok(()),
        n => Err(format!("{n:?}")),
    });
    duplex.run(&["precheck", &file]).code(0).says(&["no replica can be read from", "the master lists none"]);
}
