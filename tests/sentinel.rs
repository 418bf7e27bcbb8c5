//! A site fails over: masters found by name, a killed one, a planned failover, a split second of two masters. Nothing is
//! doubled, what one side still has is at both, and the old master comes back as a replica.

mod support;

#[path = "sentinel/group.rs"]
mod group;

#[path = "conflicts/storm.rs"]
#[allow(dead_code, reason = "what is certain of a storm through failovers is told by other means")]
mod storm;

use group::{Faithful, Group, assert_faithful, could_be_heirs, in_step, writable};
use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};
use storm::{Certain, Skills, Writer};
use support::{
    load::{Tally, assert_tally, fill, sized},
    proxy::Proxy,
    server::Server,
    versions::{Slot, speaks},
    wait::until,
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

/// The replica was begun anew a moment ago, and its backlog with it; nothing was written since. Then it is the master.
fn a_young_heir(section: &str) {
    let name = Slot::Usual.server();
    let quick = ["--repl-ping-replica-period", "1"];
    let (mut old, mut heir) = (Server::start(name, &quick), Server::start(name, &quick));
    let other = Server::start(name, &quick);
    heir.client().run(&format!("REPLICAOF 127.0.0.1 {}", old.port));
    in_step(&old, &heir);
    let duplex = synced(&job("orders", section, &[old.addr(), heir.addr()], "", &other, ""));
    for line in ["RPUSH list before", "INCR count", "SET k before"] {
        old.client().run(line);
        other.client().run(&line.replace("list", "theirs"));
    }
    wait_applied(&duplex, section, &old, &other);
    assert_equal_within(&old, &other, secs(30));
    // What the job has noted is behind its end: only the server's own words come.
    let quiet = old.offset();
    wait_for("an idle master's stream goes on", secs(30), || {
        if old.offset() >= quiet + 3 * 14 { Ok(()) } else { Err(format!("{} behind {quiet}", old.offset())) }
    });
    heir.kill();
    heir.restart();
    heir.client().run(&format!("REPLICAOF 127.0.0.1 {}", old.port));
    in_step(&old, &heir);

    heir.client().run("REPLICAOF NO ONE");
    old.kill();
    other.client().run("INCR count");
    heir.client().run("RPUSH list heir");
    wait_for("the engine is at the heir", secs(30), || {
        let text = duplex.run(&["status", &duplex.name, "--json"]).stdout;
        if text.contains(&heir.addr()) { Ok(()) } else { Err(text) }
    });
    duplex.wait_state("synchronizing", secs(60));
    heir.client().run("INCR count");
    other.client().run("SET k after");
    wait_applied(&duplex, section, &heir, &other);
    assert_equal_within(&heir, &other, secs(30));
    assert_eq!(heir.client().run("GET count").int(), 4);
    assert_eq!(heir.client().run("GET k").text(), "after");
    let list = other.client().run("LRANGE list 0 -1");
    assert_eq!(list.items().iter().map(Reply::text).collect::<Vec<_>>(), ["before", "heir"]);
}

#[test]
fn an_heir_that_has_just_copied_is_gone_on_from() {
    for section in ["source", "target"] {
        a_young_heir(section);
    }
}

/// The new master's backlog begins behind changes that were in flight: no stream tells of them any more but, as echoes, that
/// of the other side.
#[test]
fn what_was_in_flight_when_the_heir_copied_is_settled() {
    let name = Slot::Usual.server();
    let (mut old, mut heir, source) = (Server::start(name, &[]), Server::start(name, &[]), Server::start(name, &[]));
    let way = Proxy::to(source.port);
    heir.client().run(&format!("REPLICAOF 127.0.0.1 {}", old.port));
    in_step(&old, &heir);
    let addresses = format!("address = [{:?}, {:?}]", old.addr(), heir.addr());
    let text = format!("name = \"orders\"\n[source]\naddress = {:?}\n[target]\n{addresses}\n", way.addr());
    let mut duplex = synced(&text);
    for server in [&old, &source] {
        server.client().run("INCR count");
        server.client().run("SADD set before");
    }
    duplex.wait_applied(&source, &old, secs(30));
    // The source's stream is not read: nothing that the target's clients do is known to have come back.
    way.stall_streams(true);
    let arrived = |key: &str, wanted: i64| {
        wait_for("the source has what the target's clients did", secs(30), || {
            match source.client().run(&format!("GET {key}")).text() {
                n if n == wanted.to_string() => Ok(()),
                n => Err(n),
            }
        });
    };
    let repeat = |server: &Server, n: u32, line: &str| (0..n).for_each(|_| drop(server.client().run(line)));
    repeat(&old, 50, "INCR count");
    repeat(&old, 1, "SADD set target");
    repeat(&old, 1, "SET k target");
    arrived("count", 52);
    repeat(&source, 30, "INCR count");
    repeat(&source, 1, "SADD set source");
    repeat(&source, 1, "SET k source");
    heir.kill();
    heir.restart();
    heir.client().run(&format!("REPLICAOF 127.0.0.1 {}", old.port));
    in_step(&old, &heir);
    repeat(&old, 3, "INCR behind");
    arrived("behind", 3);
    in_step(&old, &heir);

    duplex.crash();
    heir.client().run("REPLICAOF NO ONE");
    old.kill();
    way.stall_streams(false);
    way.cut();
    duplex.engine();
    duplex.wait_state("synchronizing", secs(60));
    duplex.wait_applied(&source, &heir, secs(30));
    assert_equal_within(&heir, &source, secs(30));
    assert_eq!(source.client().run("GET count").int(), 82);
    assert_eq!(source.client().run("SCARD set").int(), 3);
    let told = duplex.run(&["events", &duplex.name]).text();
    assert!(told.contains("keys that its clients wrote in between are settled by state"), "{told}");
}

#[test]
fn a_one_way_source_that_fails_over_is_followed_and_what_it_lost_is_told() {
    let name = Slot::Usual.server();
    let (mut old, heir, other) = (Server::start(name, &[]), Server::start(name, &[]), Server::start(name, &[]));
    heir.client().run(&format!("REPLICAOF 127.0.0.1 {}", old.port));
    in_step(&old, &heir);
    let duplex = synced(&job("orders", "source", &[old.addr(), heir.addr()], "", &other, "two_way = false"));
    old.client().run("RPUSH list before");
    duplex.wait_applied(&old, &other, secs(30));
    in_step(&old, &heir);
    heir.client().run("REPLICAOF NO ONE");
    old.client().run("SET lost 1");
    duplex.wait_applied(&old, &other, secs(30));
    heir.client().run("RPUSH list heir");
    old.kill();
    wait_for("the heir is read", secs(60), || match other.client().run("LLEN list").int() {
        2 => Ok(()),
        n => Err(format!("{n}\n{}", duplex.run(&["events", &duplex.name]).text())),
    });
    assert_eq!(other.client().run("GET lost").text(), "1", "it is nobody's to take away");
    let told = duplex.run(&["events", &duplex.name]).text().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("the target holds writes that the source has lost"), "{told}");
    duplex.run(&["verify", &duplex.name]).says(&["lost"]);
}

#[test]
fn a_failover_during_the_first_copy_copies_again() {
    let name = Slot::Usual.server();
    for section in ["target", "source"] {
        let mut group = Group::start(name, &[], 1);
        let other = Server::start(name, &[]);
        let source = if section == "source" { group.master() } else { &other };
        fill(source, 30_000, true);
        if section == "source" {
            in_step(group.master(), group.replica());
        }
        let text =
            job("orders", section, &group.addresses(), &Group::lines(), &other, "") + "max_ops_per_second = 6000\n";
        let mut duplex = Duplex::with_file(&text);
        duplex.start();
        duplex.wait_status("some of it is copied", secs(30), |s| {
            s.link("forward").is_some_and(|l| l["snapshot"]["keys_done"].as_u64().unwrap_or(0) > 6_000)
        });
        other.client().run("INCR count");
        group.kill_master();
        other.client().run("INCR count");
        group.master().client().run("INCR own");
        duplex.wait_state("synchronizing", secs(90));
        group.heal();
        assert_equal_within(group.master(), &other, secs(60));
        assert_eq!(group.master().client().run("GET count").int(), 2, "{section}");
        assert_eq!(other.client().run("GET own").int(), 1, "{section}");
    }
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

/// A job of a group behind sentinels of their own password, and a plain server.
fn guarded(lines: &str, group: &Group, sentinel: &group::Sentinel, other: &Server) -> Duplex {
    let addresses = [format!("127.0.0.1:{}", support::server::free_port()), sentinel.addr()];
    let lines = format!("topology = \"sentinel\"\n{lines}");
    let _ = group;
    Duplex::with_file(&job("orders", "source", &addresses, &lines, other, ""))
}

#[test]
fn what_sentinels_refuse_is_told_with_what_mends_it() {
    let name = Slot::Usual.server();
    let group = Group::start(name, &[], 1);
    let other = Server::start(name, &[]);
    let sentinel = group::Sentinel::watching(name, &group.servers[0], 1, "requirepass open");
    let precheck = |lines: &str| {
        let duplex = guarded(lines, &group, &sentinel, &other);
        let file = duplex.job_file.to_str().expect("a path").to_owned();
        duplex.run(&["precheck", &file])
    };
    // The first of the addresses is nobody's: the next is asked.
    precheck("master_name = \"main\"\nsentinel_account = \":open\"").says(&["the master that the sentinels name"]);
    precheck("master_name = \"cache\"\nsentinel_account = \":open\"").code(3).says(&[
        "no sentinel knows the master \"cache\"",
        "knows main",
        "set master_name",
    ]);
    precheck("master_name = \"main\"").code(3).says(&["asks for a password", "sentinel_account = "]);
    precheck("master_name = \"main\"\nsentinel_account = \":wrong\"")
        .code(3)
        .says(&["rejected the user or the password", "sentinel_account"]);
    // The master's own account is another matter.
    for server in &group.servers {
        server.client().run("CONFIG SET masterauth secret");
        server.client().run("CONFIG SET requirepass secret");
    }
    let lines = "master_name = \"main\"\nsentinel_account = \":open\"";
    precheck(lines).code(3).says(&["asks for a password", " account = "]);
    precheck(&format!("{lines}\naccount = \":secret\"")).says(&["the master that the sentinels name"]);
    // A server with data in a sentinel's place.
    let addresses = [group.servers[0].addr()];
    let lines = "master_name = \"main\"\ntopology = \"sentinel\"\nsentinel_account = \":secret\"\n";
    let duplex = Duplex::with_file(&job("orders", "source", &addresses, lines, &other, ""));
    let file = duplex.job_file.to_str().expect("a path");
    duplex.run(&["precheck", file]).code(3).says(&["is no sentinel"]);
    // A proxy in front of who knows what.
    let spec = JobSpec::between(other.addr(), group.servers[0].addr()).target_line("topology = \"proxy\"");
    let duplex = Duplex::new(&spec.target_line("account = \":secret\""));
    let file = duplex.job_file.to_str().expect("a path");
    duplex.run(&["precheck", file]).code(2).says(&["can't be read through a proxy", "shards ="]);
}

#[test]
fn sentinels_with_an_account_of_their_own_are_followed() {
    let name = Slot::NewestValkey.server();
    let servers = vec![Server::start(name, &[]), Server::start(name, &[])];
    servers[1].client().run(&format!("REPLICAOF 127.0.0.1 {}", servers[0].port));
    in_step(&servers[0], &servers[1]);
    let sentinel = group::Sentinel::watching(name, &servers[0], 1, "requirepass open");
    sentinel
        .client()
        .run("ACL SETUSER duplex on >pw +ping +client|setname +sentinel|get-master-addr-by-name +sentinel|master");
    let mut group = Group { servers, sentinels: vec![sentinel] };
    group.knows_its_replica();
    let other = Server::start(name, &[]);
    let lines = format!("{}sentinel_account = \"duplex:pw\"\n", Group::lines());
    let duplex = synced(&job("orders", "target", &group.addresses(), &lines, &other, ""));
    let mut tally = Tally::start(&other, "other", 500);
    group.kill_master();
    let now = group.master().addr();
    duplex.wait_status("the links go on at the heir", secs(60), |s| {
        s.state() == "synchronizing" && s.0.to_string().contains(&now)
    });
    let steps = tally.stop();
    duplex.wait_state("synchronizing", secs(60));
    assert_equal_within(group.master(), &other, secs(60));
    assert_tally(group.master(), "other", steps);
}

/// Writes anything at whoever is a group's master, through failovers, until told to stop.
fn blow(ports: &[u16], mut writer: Writer<'_>, stop: &AtomicBool) {
    let (began, mut client, mut certain) = (Instant::now(), None, Certain::default());
    while !stop.load(SeqCst) {
        let Some(c) = client.as_mut() else {
            client = ports.iter().find_map(|p| writable(*p));
            if client.is_none() {
                until(Instant::now() + Duration::from_millis(20));
            }
            continue;
        };
        let commands = writer.step(&mut certain);
        commands.iter().for_each(|argv| c.queue(argv));
        let mut lost = c.flush().is_err();
        for _ in &commands {
            lost |= match c.read() {
                Ok(Reply::Error(e)) => e.starts_with("READONLY") || e.starts_with("UNBLOCKED"),
                Ok(_) => false,
                Err(_) => true,
            };
            if lost {
                break;
            }
        }
        if lost {
            client = None;
        }
        certain.writes += commands.len() as u64;
        until(began + Duration::from_secs_f64(certain.writes as f64 / writer.per_second));
    }
}

/// Two groups, random writes at both on few keys, and in between masters are killed or moved, engines killed.
fn storm_through_failovers(seed: u64) {
    let slot = [Slot::Usual, Slot::NewestRedis, Slot::NewestValkey][(seed % 3) as usize];
    let name = slot.server();
    // Where both sides lose what they had not passed on, what the other had acknowledged may be lost as well.
    let both = seed % 4 == 3;
    eprintln!("seed {seed}: {name}, {}; replay: DUPLEX_SEED={seed}", if both { "both sides" } else { "one side" });
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut groups = [Group::start(name, &[], 1), Group::start(name, &[], 1)];
    let sections = ["source", "target"].map(|section| {
        let list = groups[usize::from(section == "target")].addresses();
        let list = list.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(", ");
        format!("[{section}]\naddress = [{list}]\n{}", Group::lines())
    });
    let mut duplex = synced(&format!("name = \"orders\"\n{}\n{}\n", sections[0], sections[1]));
    let ports = groups.each_ref().map(|g| g.servers.iter().map(|s| s.port).collect::<Vec<u16>>());
    let placeholder = Server::start(name, &[]);
    let stop = AtomicBool::new(false);
    let mut loads = [Faithful::start(ports[0].clone(), "a", 400), Faithful::start(ports[1].clone(), "b", 400)];
    let kept = thread::scope(|s| {
        let told = StopOnDrop(&stop);
        let skills = Skills { six_two: speaks(name) >= (6, 2) };
        for (side, writer) in [(0, "a0"), (0, "a1"), (1, "b0"), (1, "b1")] {
            let writer = Writer {
                server: &placeholder,
                name: writer.into(),
                rng: rng.fork(),
                skills,
                per_second: 300.0,
                copied: 0,
            };
            let (ports, stop) = (&ports[side], &stop);
            s.spawn(move || blow(ports, writer, stop));
        }
        for _ in 0..sized(3, 8) {
            loads.iter().for_each(|l| l.more(rng.u64(50..300)));
            let side = if both { rng.usize(0..2) } else { (seed % 2) as usize };
            let crash = rng.u32(0..3);
            if crash == 0 {
                duplex.crash();
            }
            match rng.bool() {
                true => groups[side].kill_master(),
                false => groups[side].fail_over(),
            }
            if both && rng.bool() {
                groups[1 - side].kill_master();
            }
            loads.iter().for_each(|l| l.more(rng.u64(50..300)));
            match crash {
                0 => duplex.engine(),
                1 => {
                    duplex.crash();
                    duplex.engine();
                }
                _ => {}
            }
            groups.iter_mut().for_each(Group::heal);
            duplex.wait_state("synchronizing", secs(60));
            could_be_heirs(&groups);
        }
        let kept = loads.each_mut().map(|l| l.stop());
        drop(told);
        kept
    });
    duplex.wait_state("synchronizing", secs(60));
    let masters = groups.each_ref().map(|g| g.master());
    assert_equal_within(masters[0], masters[1], secs(60));
    for server in masters {
        for (prefix, kept) in [("a", &kept[0]), ("b", &kept[1])] {
            assert_faithful(server, prefix, if both { &[] } else { kept });
        }
    }
    for group in &groups {
        in_step(group.master(), group.replica());
        assert_equal_within(group.master(), group.replica(), secs(30));
    }
}

/// Tells the writers to stop however this ends: a panic would wait for them for ever.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn both_sides_end_equal_through_failovers() {
    let seeds = match std::env::var("DUPLEX_SEED") {
        Ok(seed) => vec![seed.parse().expect("DUPLEX_SEED is a number")],
        Err(_) => (2..2 + sized(2, 50)).collect(),
    };
    seeds.into_iter().for_each(storm_through_failovers);
}
