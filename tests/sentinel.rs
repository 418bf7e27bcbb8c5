//! A site fails over: masters found by name, a killed one, a planned failover, a split second of two masters. Nothing is
//! doubled, what one side still has is at both, and the old master comes back as a replica.

mod support;

#[path = "sentinel/group.rs"]
mod group;

use group::{Faithful, Group, assert_faithful, in_step};
use support::{
    load::{Tally, assert_tally, sized},
    versions::Slot,
    *,
};

/// The text of a job file whose named section has these addresses and lines.
fn job(name: &str, section: &str, addresses: &[String], lines: &str, other: &Server, policy: &str) -> String {
    let list = addresses.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(", ");
    let (own, plain) = (format!("address = [{list}]\n{lines}"), format!("address = {:?}\n", other.addr()));
    let (source, target) = if section == "source" { (own, plain) } else { (plain, own) };
    format!("name = \"{name}\"\n[source]\n{source}\n[target]\n{target}\n[policy]\n{policy}\n[limits]\n")
}

fn synced(text: &str) -> Duplex {
    let mut duplex = Duplex::with_file(text);
    duplex.start();
    duplex.wait_state("synchronizing", secs(60));
    duplex
}

/// The link that reads from the other side than `section` has applied all that it has now, and the other way round.
fn wait_applied(duplex: &Duplex, section: &str, own: &Server, other: &Server) {
    let (source, target) = if section == "source" { (own, other) } else { (other, own) };
    duplex.wait_applied(source, target, secs(30));
}

/// A site known by two addresses; its replica is promoted while the old master goes on: both take writes, and the
/// engine is at the old one. Then that dies.
fn two_masters(slot: Slot, section: &str) {
    let name = slot.server();
    let (mut old, heir, other) = (Server::start(name, &[]), Server::start(name, &[]), Server::start(name, &[]));
    heir.client().run(&format!("REPLICAOF 127.0.0.1 {}", old.port));
    in_step(&old, &heir);
    let duplex = synced(&job("orders", section, &[old.addr(), heir.addr()], "", &other, ""));
    // What all three have.
    for line in [
        "SET k before",
        "SET gone before",
        "SET from before",
        "INCRBY count 1",
        "RPUSH list before",
        "HSET hash f before g before",
        "ZADD zset 1 before",
        "SET stays before",
        "SET fades before",
    ] {
        old.client().run(line);
    }
    other.client().run("RPUSH theirs before");
    wait_applied(&duplex, section, &old, &other);
    in_step(&old, &heir);

    // When there are two masters, clients write at both, and the other side as well.
    heir.client().run("REPLICAOF NO ONE");
    for line in [
        "SET k lost",
        "DEL gone",
        "RENAME from to",
        "INCRBY count 10",
        "RPUSH list lost",
        "HSET hash f lost",
        "ZADD zset 2 lost",
        "EXPIRE fades 10000",
        "XADD stream 5-1 n lost",
        "SADD set lost",
    ] {
        old.client().run(line);
    }
    for line in ["INCRBY count 100", "RPUSH theirs while", "SET only there", "DEL stays"] {
        other.client().run(line);
    }
    wait_applied(&duplex, section, &old, &other);
    for line in ["INCRBY count 1000", "RPUSH own heir", "HSET hash g heir", "SADD set heir", "SET k2 heir"] {
        heir.client().run(line);
    }
    old.kill();

    // Then the engine goes to the heir, and what only the old master and the other side had is there too.
    wait_for("the engine is at the heir", secs(30), || {
        let text = duplex.run(&["status", &duplex.name, "--json"]).stdout;
        if text.contains(&heir.addr()) { Ok(()) } else { Err(text) }
    });
    duplex.wait_state("synchronizing", secs(60));
    assert_equal_within(&heir, &other, secs(30));
    let mut c = heir.client();
    assert_eq!(c.run("GET count").int(), 1111);
    let list = |c: &mut Client, key: &str| {
        c.run(&format!("LRANGE {key} 0 -1")).items().iter().map(Reply::text).collect::<Vec<_>>()
    };
    assert_eq!(list(&mut c, "list"), ["before", "lost"]);
    assert_eq!(list(&mut c, "theirs"), ["before", "while"]);
    assert_eq!(list(&mut c, "own"), ["heir"]);
    assert_eq!(c.run("GET k").text(), "lost");
    assert_eq!(c.run("GET only").text(), "there");
    assert_eq!(c.run("EXISTS gone from stays").int(), 0);
    assert_eq!(c.run("GET to").text(), "before");
    assert_eq!((c.run("HGET hash f").text(), c.run("HGET hash g").text()), ("lost".into(), "heir".into()));
    assert_eq!(c.run("SCARD set").int(), 2);
    assert!(c.run("TTL fades").int() > 5_000);
    let told = duplex.run(&["events", &duplex.name]).text();
    assert!(told.contains("lacks the last") && told.contains("carried back"), "{told}");

    // The old master comes back, empty, as the heir's replica; the links do not mind.
    old.restart();
    old.client().run(&format!("REPLICAOF 127.0.0.1 {}", heir.port));
    in_step(&heir, &old);
    c.run("INCR count");
    other.client().run("INCR count");
    wait_applied(&duplex, section, &heir, &other);
    assert_equal_within(&heir, &other, secs(30));
    assert_eq!(other.client().run("GET count").int(), 1113);
    let status = duplex.status();
    assert_eq!((status.state(), status.total("apply_errors")), ("synchronizing", 0), "{:#}", status.0);
}

macro_rules! each_slot {
    ($($test:ident $scenario:ident $slot:ident $section:literal),* $(,)?) => { $(
        #[test]
        fn $test() {
            $scenario(Slot::$slot, $section);
        }
    )* };
}

each_slot!(
    two_masters_at_the_target_on_the_oldest two_masters Oldest "target",
    two_masters_at_the_target_on_the_usual two_masters Usual "target",
    two_masters_at_the_target_on_the_newest_redis two_masters NewestRedis "target",
    two_masters_at_the_target_on_the_newest_valkey two_masters NewestValkey "target",
    two_masters_at_the_source_on_the_oldest two_masters Oldest "source",
    two_masters_at_the_source_on_the_usual two_masters Usual "source",
    two_masters_at_the_source_on_the_newest_redis two_masters NewestRedis "source",
    two_masters_at_the_source_on_the_newest_valkey two_masters NewestValkey "source",
);

/// A group under load at both sides, whose master is killed, or moved while it lives.
fn failovers(slot: Slot, section: &str, planned: bool) {
    let name = slot.server();
    let mut group = Group::start(name, &[], 1);
    let other = Server::start(name, &[]);
    let duplex = synced(&job("orders", section, &group.addresses(), &Group::lines(), &other, ""));
    let ports: Vec<u16> = group.servers.iter().map(|s| s.port).collect();
    let mut tally = Tally::start(&other, "other", 500);
    let mut faithful = Faithful::start(ports, "own", 500);
    for _ in 0..sized(2, 8) {
        faithful.more(400);
        if planned {
            group.fail_over();
        } else {
            group.kill_master();
        }
        faithful.more(200);
        let now = group.master().addr();
        duplex.wait_status("the links go on at the heir", secs(60), |s| {
            s.state() == "synchronizing" && s.0.to_string().contains(&now)
        });
        group.heal();
    }
    let (steps, kept) = (tally.stop(), faithful.stop());
    duplex.wait_state("synchronizing", secs(60));
    let master = group.master();
    assert_equal_within(master, &other, secs(60));
    for server in [master, &other] {
        assert_tally(server, "other", steps);
        assert_faithful(server, "own", &kept);
    }
    in_step(master, group.replica());
    assert_faithful(group.replica(), "own", &kept);
    assert!(kept.len() > 400, "{} steps were acknowledged", kept.len());
}

fn killed(slot: Slot, section: &str) {
    failovers(slot, section, false);
}

fn planned(slot: Slot, section: &str) {
    failovers(slot, section, true);
}

each_slot!(
    a_killed_target_master_is_followed_on_the_oldest killed Oldest "target",
    a_killed_target_master_is_followed_on_the_usual killed Usual "target",
    a_killed_target_master_is_followed_on_the_newest_redis killed NewestRedis "target",
    a_killed_target_master_is_followed_on_the_newest_valkey killed NewestValkey "target",
    a_killed_source_master_is_followed killed Usual "source",
    a_planned_failover_is_followed_on_the_oldest planned Oldest "target",
    a_planned_failover_is_followed_on_the_usual planned Usual "target",
    a_planned_failover_is_followed_on_the_newest_redis planned NewestRedis "target",
    a_planned_failover_is_followed_on_the_newest_valkey planned NewestValkey "target",
    a_planned_failover_of_the_source_is_followed planned Usual "source",
);
