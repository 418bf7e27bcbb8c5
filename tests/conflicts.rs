//! Two sites write the same keys at the same time, over a slow line, with an engine that is killed and links that are
//! cut: once it is quiet, both hold the same, and nothing that adds up is missing.
//!
//! Everything random comes from a seed. A failing one is printed; `DUPLEX_SEED=n cargo test --test conflicts` plays
//! it again (the schedule of the threads is not part of it: several tries may be needed). `DUPLEX_SEEDS=n` runs n
//! seeds on each server, a quarter of them at each delay, to the end even if some fail; with `DUPLEX_STORM_RESULTS=file`
//! each leaves a line there. `make storms` is both, and as many over copies of 200,000 keys.

mod support;

#[path = "conflicts/hot.rs"]
mod hot;
#[path = "conflicts/recovery.rs"]
mod recovery;
#[path = "conflicts/rows.rs"]
mod rows;
#[path = "conflicts/run.rs"]
mod run;
#[path = "conflicts/storm.rs"]
mod storm;
#[path = "conflicts/table.rs"]
mod table;
#[path = "conflicts/time.rs"]
mod time;
#[path = "conflicts/told.rs"]
mod told;

use run::{StopOnDrop, Storm, assert_complete, blow_all, seeds, storms};
use std::{
    collections::BTreeSet,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};
use storm::{Certain, Skills, Writer};
use support::{
    load::sized,
    resp::Argv,
    versions::{Slot, neighbours, speaks},
    wait::until,
    *,
};

macro_rules! each_slot {
    ($($test:ident $slot:ident $first:literal $ci:literal),*) => { $(
        #[test]
        fn $test() {
            storms(Slot::$slot.server(), &seeds($first, $ci, 50));
        }
    )* };
}

// Five seeds on each in CI: every delay, one of them twice, and every number of breaks; 200 in a soak.
each_slot!(
    sites_converge_on_the_oldest Oldest 1003 5,
    sites_converge_on_the_usual Usual 2001 5,
    sites_converge_on_the_newest_redis NewestRedis 3000 5,
    sites_converge_on_the_newest_valkey NewestValkey 4002 5
);

#[test]
fn sites_converge_between_neighbouring_versions() {
    for (n, (source, target)) in (5000..).zip(neighbours()) {
        let quiet = Storm { seconds: 2, breaks: 1, ..Storm::of(n) };
        eprintln!("{}", quiet.blow(n, &source, &target));
    }
}

/// Every server at every delay in sixteen seeds; a copy that is killed begins anew.
#[test]
fn sites_converge_while_a_snapshot_loads() {
    let over_a_copy = |seed| Storm { copied: sized(50_000, 200_000), ..Storm::of(seed) };
    let server = |seed: u64| Slot::ALL[(seed / 4 % 4) as usize].server();
    let all: Vec<_> = seeds(6001, 1, 16).into_iter().map(|seed| (server(seed), seed, over_a_copy(seed))).collect();
    blow_all(&all, sized(1, 2));
}

/// Two servers and a job, `delay` each way to each of them.
pub(crate) fn apart(delay: Duration) -> (Server, Server, [Proxy; 2], Duplex) {
    apart_on(Slot::Usual.server(), delay)
}

/// The same with servers of this kind.
pub(crate) fn apart_on(server: &str, delay: Duration) -> (Server, Server, [Proxy; 2], Duplex) {
    let (a, b) = (Server::start(server, &[]), Server::start(server, &[]));
    let proxies = [Proxy::to(a.port), Proxy::to(b.port)];
    let duplex = Duplex::synced(&JobSpec::between(proxies[0].addr(), proxies[1].addr()));
    for p in &proxies {
        p.delay(delay);
    }
    (a, b, proxies, duplex)
}

#[test]
fn the_later_write_wins() {
    later_wins(apart(Duration::from_millis(40)));
}

/// What the nearer side did is read long before what the other did at the same time.
#[test]
fn the_later_write_wins_where_one_side_is_farther() {
    let (a, b) = (Server::start(Slot::Usual.server(), &[]), Server::start(Slot::Usual.server(), &[]));
    let proxies = [Proxy::to(a.port), Proxy::to(b.port)];
    // From the begin: the engine learns each site's round trip where it attaches.
    proxies[0].delay(Duration::from_millis(5));
    proxies[1].delay(Duration::from_millis(80));
    let duplex = Duplex::synced(&JobSpec::between(proxies[0].addr(), proxies[1].addr()));
    later_wins((a, b, proxies, duplex));
}

/// Two writes 20 ms apart, in either order, a hundred times.
pub(crate) fn later_wins((a, b, _proxies, duplex): (Server, Server, [Proxy; 2], Duplex)) {
    let (mut at_a, mut at_b) = (a.client(), b.client());
    for i in 0..20 {
        at_a.run(&format!("SET warm-a:{i} v"));
        at_b.run(&format!("SET warm-b:{i} v"));
    }
    assert_equal_within(&a, &b, secs(10));
    for i in 0..100 {
        let (first, second) = if i % 2 == 0 { (&mut at_a, &mut at_b) } else { (&mut at_b, &mut at_a) };
        let began = Instant::now();
        first.run(&format!("SET k:{i} earlier"));
        until(began + Duration::from_millis(20));
        second.run(&format!("SET k:{i} later"));
    }
    assert_equal_within(&a, &b, secs(20));
    let later = (0..100).filter(|i| at_a.run(&format!("GET k:{i}")).text() == "later").count();
    let settled = duplex.status().total("conflicts_settled");
    assert!(settled >= 90, "only {settled} of 100 pairs were in conflict: the test proves nothing");
    assert!(later >= 99, "the later write won {later} of 100 times");
}

#[test]
fn a_refill_just_after_expiry_is_never_lost() {
    const TRIES: u64 = 1_000;
    for refill_at_target in [false, true] {
        let (a, b, _proxies, _duplex) = apart(Duration::from_millis(5));
        let mut rng = fastrand::Rng::with_seed(11);
        let mut c = a.client();
        let began = Instant::now();
        // All keys are at both sides long before the first expires; one expires each 2 ms.
        let expires = |i: u64| 1_500 + 2 * i;
        let commands: Vec<Argv> =
            (0..TRIES).map(|i| words::words(&format!("SET k:{i} old PX {}", expires(i)))).collect();
        c.pipeline(&commands);
        assert_equal_within(&a, &b, Duration::from_millis(1_400));
        let mut filler = if refill_at_target { b.client() } else { a.client() };
        for i in 0..TRIES {
            until(began + Duration::from_millis(expires(i)) + Duration::from_micros(rng.u64(0..4_000)));
            filler.run(&format!("SET k:{i} new"));
        }
        assert_equal_within(&a, &b, secs(20));
        for server in [&a, &b] {
            let mut c = server.client();
            let lost: Vec<u64> = (0..TRIES).filter(|i| c.run(&format!("GET k:{i}")).text() != "new").collect();
            assert!(lost.is_empty(), "refills lost (refill at target: {refill_at_target}): {lost:?}");
        }
    }
}

#[test]
fn a_deletion_never_beats_a_concurrent_write() {
    let (a, b, _proxies, _duplex) = apart(Duration::from_millis(30));
    let (mut at_a, mut at_b) = (a.client(), b.client());
    for i in 0..200 {
        at_a.run(&format!("SET k:{i} old"));
    }
    assert_equal_within(&a, &b, secs(10));
    for i in 0..200 {
        let (deleter, writer) = if i % 2 == 0 { (&mut at_a, &mut at_b) } else { (&mut at_b, &mut at_a) };
        if i % 4 < 2 {
            writer.run(&format!("SET k:{i} new"));
            deleter.run(&format!("DEL k:{i}"));
        } else {
            deleter.run(&format!("DEL k:{i}"));
            writer.run(&format!("SET k:{i} new"));
        }
    }
    assert_equal_within(&a, &b, secs(20));
    let lost: Vec<u64> = (0..200).filter(|i| at_a.run(&format!("GET k:{i}")).text() != "new").collect();
    assert!(lost.is_empty(), "writes lost to a deletion: {lost:?}");
}

#[test]
fn different_keys_are_no_conflict() {
    let (a, b, _proxies, duplex) = apart(Duration::from_millis(20));
    // So many each way.
    let n: u64 = sized(50_000, 1_000_000);
    thread::scope(|s| {
        for (server, prefix) in [(&a, "a"), (&b, "b")] {
            s.spawn(move || {
                let mut c = server.client();
                for chunk in 0..n / 1_000 {
                    let commands: Vec<Argv> = (0..1_000)
                        .map(|i| words::words(&format!("SET {prefix}:{} {chunk}", (chunk * 1_000 + i) % 20_000)))
                        .collect();
                    c.pipeline(&commands);
                }
            });
        }
    });
    assert_equal_within(&a, &b, secs(120));
    let status = duplex.wait_applied(&a, &b, secs(30));
    assert_eq!((status.total("conflicts_settled"), status.total("conflict_rounds")), (0, 0), "{:#}", status.0);
    assert_eq!(status.total("changes_applied"), 2 * n, "{:#}", status.0);
}

#[test]
fn changes_that_commute_are_no_conflict() {
    let (a, b, _proxies, duplex) = apart(Duration::from_millis(20));
    thread::scope(|s| {
        for (server, site) in [(&a, "a"), (&b, "b")] {
            s.spawn(move || {
                let mut c = server.client();
                for i in 0..2_000 {
                    for line in
                        ["INCR count", "SADD set $s-$i", "HSET hash $s-$i v", "ZADD zset $i $s-$i", "PFADD hll $s-$i"]
                    {
                        c.queue(&words::words(&line.replace("$s", site).replace("$i", &i.to_string())));
                    }
                    c.flush().expect("send");
                    (0..5).for_each(|_| assert!(!c.read().expect("a reply").is_error()));
                }
            });
        }
    });
    assert_equal_within(&a, &b, secs(30));
    let mut c = b.client();
    assert_eq!(c.run("GET count").text(), "4000");
    for read in ["SCARD set", "HLEN hash", "ZCARD zset"] {
        assert_eq!(c.run(read).int(), 4_000, "{read}");
    }
    let status = duplex.wait_applied(&a, &b, secs(30));
    assert_eq!(status.total("conflicts_settled"), 0, "{:#}", status.0);
}

#[test]
fn the_storm_knows_its_own_totals() {
    // The load itself, on a server and its native replica: what it is sure of is so, and the comparer bears it out.
    for slot in Slot::ALL {
        let (a, b) = (Server::start(slot.server(), &[]), Server::start(slot.server(), &[]));
        b.client().run(&format!("REPLICAOF 127.0.0.1 {}", a.port));
        wait_for("the replica is up", secs(20), || match b.info("replication", "master_link_status").as_deref() {
            Some("up") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let stop = AtomicBool::new(false);
        let certain: Vec<Certain> = thread::scope(|s| {
            let skills = Skills { six_two: speaks(&a.name) >= (6, 2) };
            let threads: Vec<_> = [("a0", 1), ("a1", 2)]
                .map(|(name, seed)| {
                    let rng = fastrand::Rng::with_seed(seed);
                    let writer = Writer { server: &a, name: name.into(), rng, skills, per_second: 4_000.0, copied: 0 };
                    s.spawn(|| writer.run(&stop))
                })
                .into();
            let told = StopOnDrop(&stop);
            until(Instant::now() + Duration::from_secs(1));
            drop(told);
            threads.into_iter().map(|t| t.join().expect("a writer")).collect()
        });
        let equal = assert_equal_within(&a, &b, secs(5));
        let kinds: BTreeSet<&str> = equal.values().map(|e| e.kind.as_str()).collect();
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["hash", "list", "set", "stream", "string", "zset"]);
        for server in [&a, &b] {
            assert_complete(server, &certain);
        }
    }
}
