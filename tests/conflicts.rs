//! Two sites write the same keys at the same time, over a slow line, with an engine that is killed and links that are
//! cut: once it is quiet, both hold the same, and nothing that adds up is missing.
//!
//! Everything random comes from a seed. A failing one is printed; `DUPLEX_SEED=n cargo test --test conflicts` plays
//! it again (the schedule of the threads is not part of it: several tries may be needed). `DUPLEX_SEEDS=n` runs n
//! seeds on each server, a quarter of them at each delay, to the end even if some fail; with `DUPLEX_STORM_RESULTS=file`
//! each leaves a line there. `make storms` is both.

mod support;

#[path = "conflicts/storm.rs"]
mod storm;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
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

/// The seeds of a run: `DUPLEX_SEED` alone, `DUPLEX_SEEDS` of them, or as many as the form of the run asks for.
fn seeds(first: u64, ci: u64, soak: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse().unwrap_or_else(|_| panic!("{name}={v}?")));
    match number("DUPLEX_SEED") {
        Some(seed) => vec![seed],
        None => (first..first + number("DUPLEX_SEEDS").unwrap_or(sized(ci, soak))).collect(),
    }
}

/// Storms between two servers of a kind, all of them even if some fail; what each came to goes to
/// `DUPLEX_STORM_RESULTS`.
#[track_caller]
fn storms(server: &str, seeds: &[u64]) {
    let mut failed = Vec::new();
    for &seed in seeds {
        let storm = Storm::of(seed);
        let outcome = std::panic::catch_unwind(|| storm.blow(seed, server, server));
        let told = match &outcome {
            Ok(told) => told.clone(),
            Err(why) => {
                failed.push(seed);
                let why = why.downcast_ref::<String>().map_or("it panicked", |s| s.lines().next().unwrap_or_default());
                format!("FAILED: {why}")
            }
        };
        let line = format!("{server} seed {seed} delay {:?} breaks {}: {told}\n", storm.delay, storm.breaks);
        eprint!("{line}");
        if let Some(file) = std::env::var_os("DUPLEX_STORM_RESULTS") {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).expect("the results' file");
            std::io::Write::write_all(&mut file, line.as_bytes()).expect("write the results");
        }
    }
    assert!(failed.is_empty(), "{} of {} storms failed on {server}: seeds {failed:?}", failed.len(), seeds.len());
}

/// A storm at both sides, with what the seed says goes wrong meanwhile.
struct Storm {
    delay: Duration,
    /// Kills of the engine and cuts of links while the storm blows.
    breaks: u32,
    seconds: u64,
    per_second: f64,
}

impl Storm {
    fn of(seed: u64) -> Storm {
        let delay = Duration::from_millis([0, 5, 30, 200][(seed % 4) as usize]);
        Storm { delay, breaks: ((seed / 4 + seed) % 4) as u32, seconds: sized(4, 8), per_second: sized(400.0, 800.0) }
    }

    /// What it came to, in a line.
    fn blow(&self, seed: u64, source: &str, target: &str) -> String {
        eprintln!(
            "seed {seed}: {source} and {target}, {:?} each way, {} breaks; replay: DUPLEX_SEED={seed}",
            self.delay, self.breaks
        );
        let (a, b) = (Server::start(source, &[]), Server::start(target, &[]));
        let (to_a, to_b) = (Proxy::to(a.port), Proxy::to(b.port));
        let mut duplex = Duplex::synced(&JobSpec::between(to_a.addr(), to_b.addr()));
        for proxy in [&to_a, &to_b] {
            proxy.delay(self.delay);
        }
        let mut rng = fastrand::Rng::with_seed(seed);
        let stop = AtomicBool::new(false);
        let certain: Vec<Certain> = thread::scope(|s| {
            let skills = Skills { six_two: speaks(&a.name).min(speaks(&b.name)) >= (6, 2) };
            let threads: Vec<_> = [(&a, "a0"), (&a, "a1"), (&b, "b0"), (&b, "b1")]
                .map(|(server, name)| Writer {
                    server,
                    name: name.into(),
                    rng: rng.fork(),
                    skills,
                    per_second: self.per_second,
                })
                .into_iter()
                .map(|writer| s.spawn(|| writer.run(&stop)))
                .collect();
            // Told to stop however this ends, or a panic here would wait for them for ever.
            let told = StopOnDrop(&stop);
            let ends = Instant::now() + Duration::from_secs(self.seconds);
            for n in 0..self.breaks {
                let share = f64::from(n) + rng.f64();
                until(ends - Duration::from_secs_f64(self.seconds as f64 * (1.0 - share / f64::from(self.breaks))));
                match rng.u32(0..4) {
                    0 => drop(to_a.cut()),
                    1 => drop(to_b.cut()),
                    _ => {
                        duplex.crash();
                        duplex.revive();
                    }
                }
            }
            until(ends);
            drop(told);
            threads.into_iter().map(|t| t.join().expect("a writer")).collect()
        });
        let quiet = Instant::now();
        let status = duplex.wait_state("synchronizing", secs(60));
        let settling = Instant::now();
        if quiet.elapsed() > secs(10) {
            let events = duplex.run(&["events", "--json"]).stdout;
            let lines: Vec<&str> = events.lines().filter(|l| !l.contains("conflict_settled")).collect();
            eprintln!(
                "slow: {:.1} s\n{}",
                quiet.elapsed().as_secs_f64(),
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
        let equal = assert_equal_within(&a, &b, secs(5) + 10 * self.delay);
        let told = format!(
            "{} writes, {} conflicts, {} keys equal {:.1} s after the last write ({:.1} s after the links were well)",
            certain.iter().map(|c| c.writes).sum::<u64>(),
            status.total("conflicts_settled"),
            equal.len(),
            quiet.elapsed().as_secs_f64(),
            settling.elapsed().as_secs_f64()
        );
        for server in [&a, &b] {
            assert_complete(server, &certain);
        }
        // It stays so: nothing is still on its way.
        assert_equal_within(&a, &b, secs(5));
        duplex.wait_status("no conflict is open", secs(10), |s| s.0["conflicts_open"] == 0);
        told
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Counters add up, sets and hashes hold what was added at either side.
#[track_caller]
fn assert_complete(server: &Server, certain: &[Certain]) {
    let mut c = server.client();
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for (key, by) in certain.iter().flat_map(|c| &c.added) {
        *sums.entry(key).or_default() += by;
    }
    for (key, sum) in sums {
        assert_eq!(c.run(&format!("GET {key}")).int(), sum, "{}: {key}", server.name);
    }
    for (read, pick) in [("SMEMBERS", 0), ("HKEYS", 1)] {
        let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for one in certain {
            for (key, all) in if pick == 0 { &one.members } else { &one.fields } {
                wanted.entry(key).or_default().extend(all.iter().map(String::as_str));
            }
        }
        for (key, all) in wanted {
            let found: BTreeSet<String> = c.run(&format!("{read} {key}")).items().iter().map(Reply::text).collect();
            let lost: Vec<_> = all.iter().filter(|m| !found.contains(**m)).collect();
            assert!(lost.is_empty(), "{}: {key} lost {} of {}: {lost:?}", server.name, lost.len(), all.len());
            assert_eq!(found.len(), all.len(), "{}: {key} holds what nobody added", server.name);
        }
    }
}

macro_rules! each_slot {
    ($($test:ident $slot:ident $first:literal $ci:literal),*) => { $(
        #[test]
        fn $test() {
            storms(Slot::$slot.server(), &seeds($first, $ci, 50));
        }
    )* };
}

// Five seeds of a storm in CI, chosen so that each delay and each number of breaks comes up; 200 in a soak.
each_slot!(
    sites_converge_on_the_oldest Oldest 1003 1,
    sites_converge_on_the_usual Usual 2001 2,
    sites_converge_on_the_newest_redis NewestRedis 3000 1,
    sites_converge_on_the_newest_valkey NewestValkey 4002 1
);

#[test]
fn sites_converge_between_neighbouring_versions() {
    for (n, (source, target)) in (5000..).zip(neighbours()) {
        let quiet = Storm { seconds: 2, breaks: 1, ..Storm::of(n) };
        eprintln!("{}", quiet.blow(n, &source, &target));
    }
}

/// Two servers and a job, `delay` each way to each of them.
fn apart(delay: Duration) -> (Server, Server, [Proxy; 2], Duplex) {
    let (a, b) = (Server::start(Slot::Usual.server(), &[]), Server::start(Slot::Usual.server(), &[]));
    let proxies = [Proxy::to(a.port), Proxy::to(b.port)];
    let duplex = Duplex::synced(&JobSpec::between(proxies[0].addr(), proxies[1].addr()));
    for p in &proxies {
        p.delay(delay);
    }
    (a, b, proxies, duplex)
}

#[test]
fn the_later_write_wins() {
    let (a, b, _proxies, duplex) = apart(Duration::from_millis(40));
    let (mut at_a, mut at_b) = (a.client(), b.client());
    // The engine learns each site's round trip before it judges times.
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
    let n: u64 = sized(100_000, 1_000_000);
    thread::scope(|s| {
        for (server, prefix) in [(&a, "a"), (&b, "b")] {
            s.spawn(move || {
                let mut c = server.client();
                for chunk in 0..n / 2_000 {
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
    assert_eq!(status.total("changes_applied"), n, "{:#}", status.0);
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
                    let writer = Writer { server: &a, name: name.into(), rng, skills, per_second: 4_000.0 };
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
