//! The first copy of a big instance, with writes going on at both sides, in bounded memory.

mod support;

use std::thread;
use support::{
    load::{Tally, assert_tally, fill, sized},
    versions::Slot,
    *,
};

/// The most memory that a process has held, in bytes.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("kilobytes") * 1024
}

/// The bound of the engine's memory in a first copy.
const BOUND: u64 = 128 << 20;

fn copy_with_writes_at_both_sides(slot: Slot, keys: u64) {
    let (a, b) = (Server::start(slot.server(), &[]), Server::start(slot.server(), &[]));
    fill(&a, keys, true);
    let mut loads = [Tally::start(&a, "load-a", 1_000), Tally::start(&b, "load-b", 1_000)];
    let job = JobSpec::between(a.addr(), b.addr()).policy("existing_keys = \"merge\"");
    let mut duplex = Duplex::new(&job);
    duplex.start();
    // Keys of the snapshot that the target's clients write while it loads: the later write wins.
    let newer = |i: u64| i * (keys / 1_000) / 60 * 60 + 1;
    thread::scope(|s| {
        s.spawn(|| {
            let mut c = b.client();
            for i in 0..1_000 {
                c.run(&format!("SET key:{} newer", newer(i)));
            }
        });
    });
    let seen = duplex.wait_status("the snapshot is loaded", secs(sized(180, 900)), |s| s.state() == "synchronizing");
    let snapshot = &seen.link("forward").expect("the forward link")["snapshot"];
    assert_eq!(snapshot["keys_done"], snapshot["keys_total"], "{snapshot:#}");
    let steps = [loads[0].stop(), loads[1].stop()];
    duplex.wait_applied(&a, &b, secs(60));
    let equal = assert_equal_within(&a, &b, secs(120));
    assert!(equal.len() as u64 >= keys + 6, "{} keys", equal.len());
    for server in [&a, &b] {
        assert_tally(server, "load-a", steps[0]);
        assert_tally(server, "load-b", steps[1]);
        let mut c = server.client();
        for i in 0..1_000 {
            assert_eq!(c.run(&format!("GET key:{}", newer(i))).text(), "newer", "a write during the copy was lost");
        }
    }
    let peak = peak_memory(duplex.engine_pid());
    eprintln!("{}: {keys} keys, the engine's memory peaked at {} MiB", a.name, peak >> 20);
    assert!(peak < BOUND, "the engine held {} MiB", peak >> 20);
}

#[test]
fn big_source_is_copied_under_load_on_the_usual() {
    copy_with_writes_at_both_sides(Slot::Usual, sized(200_000, 1_000_000));
}

#[test]
fn source_is_copied_under_load_on_the_oldest() {
    copy_with_writes_at_both_sides(Slot::Oldest, sized(50_000, 1_000_000));
}

#[test]
fn source_is_copied_under_load_on_the_newest_redis() {
    copy_with_writes_at_both_sides(Slot::NewestRedis, sized(50_000, 1_000_000));
}

#[test]
fn source_is_copied_under_load_on_the_newest_valkey() {
    copy_with_writes_at_both_sides(Slot::NewestValkey, sized(50_000, 1_000_000));
}

#[test]
fn engine_killed_in_the_middle_of_the_copy_ends_equal() {
    let (a, b) = (Server::start(Slot::Usual.server(), &[]), Server::start(Slot::Usual.server(), &[]));
    fill(&a, sized(100_000, 1_000_000), true);
    let mut duplex = Duplex::new(&JobSpec::between(a.addr(), b.addr()));
    duplex.start();
    let mut load = Tally::start(&a, "load-a", 1_000);
    for part in [1, 2] {
        let goal = part * sized(20_000, 200_000);
        wait_for("part of the snapshot is there", secs(60), || match support::compare::key_count(&b) {
            n if n > goal => Ok(()),
            n => Err(format!("{n} keys")),
        });
        duplex.crash();
        duplex.revive();
    }
    duplex.wait_state("synchronizing", secs(sized(180, 900)));
    let steps = load.stop();
    duplex.wait_applied(&a, &b, secs(60));
    assert_equal_within(&a, &b, secs(120));
    assert_tally(&b, "load-a", steps);
}

#[test]
fn key_renewed_during_the_copy_does_not_expire_at_the_target() {
    // At the fork it has a second to live; renewed at the source, it must never go at the target.
    let (a, b) = (Server::start(Slot::Usual.server(), &[]), Server::start(Slot::Usual.server(), &[]));
    fill(&a, sized(100_000, 500_000), false);
    let mut c = a.client();
    for i in 0..500 {
        c.run(&format!("SET short:{i} v PX 1500"));
    }
    let mut duplex = Duplex::new(&JobSpec::between(a.addr(), b.addr()));
    duplex.start();
    for i in 0..500 {
        c.run(&format!("PEXPIRE short:{i} 3600000"));
    }
    let renewed = c.run("EXISTS short:0 short:250 short:499").int();
    duplex.wait_state("synchronizing", secs(sized(180, 900)));
    assert_equal_within(&a, &b, secs(60));
    assert_eq!(b.client().run("EXISTS short:0 short:250 short:499").int(), renewed);
}
