//! Nothing lost, nothing doubled: counters, lists and streams at full pipeline, both ways at once, while the engine is
//! killed, links are cut, servers stop, freeze, fill up or turn read-only.

mod support;

use std::time::{Duration, Instant};
use support::{
    load::{Tally, assert_tally, sized},
    versions::Slot,
    wait::until,
    *,
};

/// How often something is broken in one run.
fn times() -> u32 {
    sized(5, 20)
}

struct Pair {
    a: Server,
    b: Server,
    to_a: Proxy,
    to_b: Proxy,
    duplex: Duplex,
    loads: [Tally; 2],
}

impl Pair {
    /// Two servers behind proxies, a job that synchronizes, a load at each side.
    fn loaded(slot: Slot, args: &[&str], per_second: u64, policy: &str) -> Pair {
        let (a, b) = (Server::start(slot.server(), args), Server::start(slot.server(), args));
        let (to_a, to_b) = (Proxy::to(a.port), Proxy::to(b.port));
        let duplex = Duplex::synced(&JobSpec::between(to_a.addr(), to_b.addr()).policy(policy));
        let loads = [Tally::start(&a, "a", per_second), Tally::start(&b, "b", per_second)];
        Pair { a, b, to_a, to_b, duplex, loads }
    }

    /// Waits until the loads have gone on for so many more steps each: what happens next happens under way.
    fn more(&self, steps: u64) {
        for load in &self.loads {
            let goal = load.sent() + steps;
            wait_for(&format!("load {} goes on", load.prefix), secs(30), || match load.sent() {
                n if n >= goal => Ok(()),
                n => Err(format!("{n} of {goal}")),
            });
        }
    }

    /// Ends the loads; then every step stands at both sides exactly once.
    fn exact(mut self) {
        let steps = [self.loads[0].stop(), self.loads[1].stop()];
        self.duplex.wait_state("synchronizing", secs(60));
        assert_equal_within(&self.a, &self.b, secs(120));
        for server in [&self.a, &self.b] {
            assert_tally(server, "a", steps[0]);
            assert_tally(server, "b", steps[1]);
        }
        let status = self.duplex.status();
        assert_eq!(status.total("apply_errors"), 0, "{:#}", status.0);
    }
}

fn engine_is_killed(slot: Slot) {
    let mut pair = Pair::loaded(slot, &[], 2_000, "");
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..times() {
        pair.more(rng.u64(200..1_500));
        pair.duplex.crash();
        pair.more(200);
        pair.duplex.revive();
        pair.duplex.wait_state("synchronizing", secs(60));
    }
    pair.exact();
}

fn links_are_cut(slot: Slot) {
    let pair = Pair::loaded(slot, &[], 2_000, "");
    let mut rng = fastrand::Rng::with_seed(8);
    for round in 0..times() {
        pair.more(rng.u64(200..1_500));
        let cut = match round % 3 {
            0 => pair.to_a.cut(),
            1 => pair.to_b.cut(),
            _ => pair.to_a.cut() + pair.to_b.cut(),
        };
        assert!(cut > 0, "there was nothing to cut");
        pair.more(200);
        pair.duplex.wait_state("synchronizing", secs(60));
    }
    pair.exact();
}

macro_rules! each_slot {
    ($($test:ident $scenario:ident $slot:ident),* $(,)?) => { $(
        #[test]
        fn $test() {
            $scenario(Slot::$slot);
        }
    )* };
}

each_slot!(
    engine_is_killed_on_the_oldest engine_is_killed Oldest,
    engine_is_killed_on_the_usual engine_is_killed Usual,
    engine_is_killed_on_the_newest_redis engine_is_killed NewestRedis,
    engine_is_killed_on_the_newest_valkey engine_is_killed NewestValkey,
    links_are_cut_on_the_oldest links_are_cut Oldest,
    links_are_cut_on_the_usual links_are_cut Usual,
    links_are_cut_on_the_newest_redis links_are_cut NewestRedis,
    links_are_cut_on_the_newest_valkey links_are_cut NewestValkey,
);

#[test]
fn engine_is_killed_at_full_speed_and_while_it_recovers() {
    let mut pair = Pair::loaded(Slot::Usual, &[], 0, "");
    let mut rng = fastrand::Rng::with_seed(9);
    for _ in 0..times() {
        pair.more(500);
        pair.duplex.crash();
        pair.duplex.engine();
        // No waiting for a healthy state: the next kill may hit the recovery itself.
        until(Instant::now() + Duration::from_millis(rng.u64(0..400)));
    }
    pair.exact();
}

#[test]
fn engine_ends_in_good_order_and_goes_on() {
    let mut pair = Pair::loaded(Slot::Usual, &[], 2_000, "");
    for _ in 0..times() {
        pair.more(500);
        assert_eq!(pair.duplex.terminate(), Some(0));
        pair.more(200);
        pair.duplex.revive();
        pair.duplex.wait_state("synchronizing", secs(60));
    }
    pair.exact();
}

#[test]
fn connections_of_a_dead_engine_deliver_late() {
    // What a killed engine had sent is still on its way when the next one reads the control keys.
    let mut pair = Pair::loaded(Slot::Usual, &[], 2_000, "");
    for proxy in [&pair.to_a, &pair.to_b] {
        proxy.delay(Duration::from_millis(150));
    }
    for _ in 0..times() {
        pair.more(1_000);
        pair.duplex.crash();
        pair.duplex.revive();
        pair.duplex.wait_state("synchronizing", secs(60));
    }
    pair.exact();
}

#[test]
fn server_is_frozen_for_seconds() {
    let pair = Pair::loaded(Slot::Usual, &[], 2_000, "");
    for target in [true, false] {
        let (frozen, load) = if target { (&pair.b, &pair.loads[0]) } else { (&pair.a, &pair.loads[1]) };
        frozen.freeze();
        let goal = load.sent() + 6_000;
        wait_for("three seconds' load at the other side", secs(60), || match load.sent() {
            n if n >= goal => Ok(()),
            n => Err(format!("{n} of {goal}")),
        });
        frozen.thaw();
        pair.more(1_000);
        pair.duplex.wait_state("synchronizing", secs(60));
    }
    pair.exact();
}

#[test]
fn link_is_silent_for_longer_than_its_deadlines() {
    let pair = Pair::loaded(Slot::Usual, &[], 500, "");
    pair.more(500);
    pair.to_b.stall(true);
    pair.duplex.wait_status("the silence is noticed", secs(60), |s| {
        matches!(s.state(), "reconnecting" | "lagging" | "failed")
    });
    pair.to_b.stall(false);
    pair.more(500);
    pair.duplex.wait_state("synchronizing", secs(90));
    pair.exact();
}

#[test]
fn target_with_an_aof_is_killed_and_comes_back() {
    // Its own stream is lost with it, so the reverse link needs a new snapshot; what A sent must not be doubled.
    let args = ["--appendonly", "yes", "--appendfsync", "always"];
    let (a, mut b) = (Server::start(Slot::Usual.server(), &args), Server::start(Slot::Usual.server(), &args));
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()).policy("allow_resnapshot = true"));
    b.client().run("RPUSH only-b 1 2 3");
    let mut load = Tally::start(&a, "a", 1_000);
    for _ in 0..sized(2, 10) {
        let goal = load.sent() + 1_000;
        wait_for(
            "the load goes on",
            secs(30),
            || if load.sent() >= goal { Ok(()) } else { Err(load.sent().to_string()) },
        );
        b.kill();
        b.restart();
        duplex.wait_state("synchronizing", secs(60));
    }
    let steps = load.stop();
    assert_equal_within(&a, &b, secs(60));
    assert_tally(&a, "a", steps);
    assert_tally(&b, "a", steps);
    assert_eq!(a.client().run("LLEN only-b").int(), 3);
}

#[test]
fn target_that_runs_out_of_memory_is_retried() {
    let (a, b) = (Server::start(Slot::Usual.server(), &[]), Server::start(Slot::Usual.server(), &[]));
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    b.client().run("CONFIG SET maxmemory-policy noeviction");
    b.client().run("CONFIG SET maxmemory 1");
    let mut load = Tally::start(&a, "a", 1_000);
    wait_for("the refusal is told", secs(20), || {
        let events = duplex.run(&["events", &duplex.name, "--json"]).stdout;
        if events.contains("target_refuses") { Ok(()) } else { Err(events) }
    });
    assert_eq!(b.client().run("EXISTS a:count").int(), 0, "a refused transaction left something behind");
    b.client().run("CONFIG SET maxmemory 0");
    let steps = load.stop();
    duplex.wait_state("synchronizing", secs(60));
    assert_equal_within(&a, &b, secs(60));
    assert_tally(&b, "a", steps);
}

#[test]
fn target_that_turns_read_only_is_retried() {
    let (a, b) = (Server::start(Slot::Usual.server(), &[]), Server::start(Slot::Usual.server(), &[]));
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    let mut load = Tally::start(&a, "a", 1_000);
    // A replica of nobody that answers: read-only, with its data.
    let nobody = support::server::free_port();
    b.client().run(&format!("REPLICAOF 127.0.0.1 {nobody}"));
    wait_for("the refusal is told", secs(20), || {
        let events = duplex.run(&["events", &duplex.name, "--json"]).stdout;
        if events.contains("target_refuses") { Ok(()) } else { Err(events) }
    });
    b.client().run("REPLICAOF NO ONE");
    let steps = load.stop();
    duplex.wait_state("synchronizing", secs(60));
    assert_equal_within(&a, &b, secs(60));
    assert_tally(&b, "a", steps);
}
