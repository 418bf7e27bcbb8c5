//! A storm as a whole: two servers, a slow line to each, writers at both sides, what goes wrong meanwhile, and what has
//! to hold once it is quiet.

use super::storm::{Certain, Skills, Writer};
use crate::support::{
    load::{fill, sized},
    versions::speaks,
    wait::until,
    *,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// After the last write, at every delay.
const EQUAL_WITHIN: Duration = Duration::from_secs(5);

/// The seeds of a run: `DUPLEX_SEED` alone, `DUPLEX_SEEDS` of them, or as many as the form of the run asks for.
pub fn seeds(first: u64, ci: u64, soak: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse().unwrap_or_else(|_| panic!("{name}={v}?")));
    match number("DUPLEX_SEED") {
        Some(seed) => vec![seed],
        None => (first..first + number("DUPLEX_SEEDS").unwrap_or(sized(ci, soak))).collect(),
    }
}

/// Storms between two servers of a kind, all of them even if some fail; what each came to goes to
/// `DUPLEX_STORM_RESULTS`. Several blow at once: each of them mostly waits for its slow line.
#[track_caller]
pub fn storms(server: &str, seeds: &[u64]) {
    let all: Vec<_> = seeds.iter().map(|seed| (server, *seed, Storm::of(*seed))).collect();
    blow_all(&all, sized(5, 2));
}

/// The same, each between two servers of its own kind.
#[track_caller]
pub fn blow_all(storms: &[(&str, u64, Storm)], at_once: usize) {
    let mut failed = Vec::new();
    for some in storms.chunks(at_once) {
        failed.extend(thread::scope(|s| {
            let threads: Vec<_> =
                some.iter().map(|(server, seed, storm)| s.spawn(move || storm.blow_and_tell(*seed, server))).collect();
            threads.into_iter().flat_map(|t| t.join().expect("a storm tells how it ended")).collect::<Vec<String>>()
        }));
    }
    assert!(failed.is_empty(), "{} of {} storms failed: {failed:?}", failed.len(), storms.len());
}

/// A storm at both sides, with what the seed says goes wrong meanwhile.
pub struct Storm {
    pub delay: Duration,
    /// Kills of the engine and cuts of links while the storm blows.
    pub breaks: u32,
    pub seconds: u64,
    pub per_second: f64,
    /// Keys that the source holds before: their copy goes on while the storm blows, and they are written too.
    pub copied: u64,
}

impl Storm {
    pub fn of(seed: u64) -> Storm {
        let delay = Duration::from_millis([0, 5, 30, 200][(seed % 4) as usize]);
        Storm {
            delay,
            breaks: ((seed / 4 + seed) % 4) as u32,
            seconds: sized(4, 8),
            per_second: sized(400.0, 800.0),
            copied: 0,
        }
    }

    /// Server and seed, if it failed.
    fn blow_and_tell(&self, seed: u64, server: &str) -> Option<String> {
        let outcome = std::panic::catch_unwind(|| self.blow(seed, server, server));
        let told = match &outcome {
            Ok(told) => told.clone(),
            Err(why) => {
                let why = why.downcast_ref::<String>().map_or("it panicked", |s| s.lines().next().unwrap_or_default());
                format!("FAILED: {why}")
            }
        };
        let copied = if self.copied > 0 { format!(" over a copy of {} keys", self.copied) } else { String::new() };
        let line = format!("{server} seed {seed} delay {:?} breaks {}{copied}: {told}\n", self.delay, self.breaks);
        eprint!("{line}");
        if let Some(file) = std::env::var_os("DUPLEX_STORM_RESULTS") {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
            std::io::Write::write_all(&mut file.expect("the results' file"), line.as_bytes())
                .expect("write the results");
        }
        outcome.is_err().then(|| format!("{server} seed {seed}"))
    }

    /// What it came to, in a line.
    pub fn blow(&self, seed: u64, source: &str, target: &str) -> String {
        eprintln!(
            "seed {seed}: {source} and {target}, {:?} each way, {} breaks; replay: DUPLEX_SEED={seed}",
            self.delay, self.breaks
        );
        let (a, b) = (Server::start(source, &[]), Server::start(target, &[]));
        let (to_a, to_b) = (Proxy::to(a.port), Proxy::to(b.port));
        let job = JobSpec::between(to_a.addr(), to_b.addr());
        let mut duplex = if self.copied > 0 {
            fill(&a, self.copied, true);
            // So slow that the storm blows all the while.
            let pace = self.copied / (self.seconds + 1);
            let mut duplex = Duplex::new(&job.limits(&format!("max_ops_per_second = {pace}")));
            duplex.start();
            duplex
        } else {
            Duplex::synced(&job)
        };
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
                    copied: self.copied,
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
            if self.copied > 0 {
                // Both sides are written to until the snapshot has been loaded, however often it began anew.
                wait_for("the snapshot is loaded", secs(300), || loaded(&duplex));
                // It was there for the copy's sake: what follows has to be as quick as the line allows.
                duplex.run(&["limit", &duplex.name, "--ops", "0"]).code(0);
            }
            drop(told);
            threads.into_iter().map(|t| t.join().expect("a writer")).collect()
        });
        // Counted from the last write, also where the engine was killed or the copy came to its end just before it.
        let quiet = Instant::now();
        let (keys, after) = if self.copied > 0 {
            still_and_equal(&duplex, [&a, &b], [&to_a, &to_b], quiet + EQUAL_WITHIN)
        } else {
            (assert_equal_within(&a, &b, EQUAL_WITHIN).len(), Instant::now())
        };
        let told = format!(
            "{} writes, {} conflicts, {keys} keys equal {:.1} s after the last write",
            certain.iter().map(|c| c.writes).sum::<u64>(),
            duplex.status().total("conflicts_settled"),
            (after - quiet).as_secs_f64(),
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

/// All that the source's snapshot holds is at the target, or on its way there.
fn loaded(duplex: &Duplex) -> Result<(), String> {
    match duplex.try_status()?.link("forward") {
        Some(link) if link["state"] != "initializing" && link["state"] != "reconnecting" => Ok(()),
        link => Err(format!("{link:?}")),
    }
}

/// Both sides hold the same at this moment, whatever time it takes to read them: by then nothing comes through to either of
/// them any more, so what they hold they held then.
/// Gives the number of keys, and since when the job had been in step and had applied nothing.
#[track_caller]
fn still_and_equal(duplex: &Duplex, [a, b]: [&Server; 2], lines: [&Proxy; 2], by: Instant) -> (usize, Instant) {
    let counted =
        |s: &duplex::Status| ["changes_applied", "conflict_rounds", "conflicts_settled"].map(|what| s.total(what));
    let (mut still, mut before) = (Instant::now(), None);
    while Instant::now() < by {
        let asked = Instant::now();
        let status = duplex.try_status().ok();
        let rests = status.filter(|s| s.state() == "synchronizing" && s.0["conflicts_open"] == 0);
        let now = rests.as_ref().map(counted);
        if now.is_none() || now != before {
            (still, before) = (asked, now);
        }
        until(by.min(asked + Duration::from_millis(50)));
    }
    lines.iter().for_each(|line| line.stall(true));
    // One look: the keys of a storm live for two seconds at most and are gone by now, or live for a day.
    let keys = assert_equal_within(a, b, Duration::ZERO).len();
    lines.iter().for_each(|line| line.stall(false));
    (keys, still)
}

pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Counters add up, sets and hashes hold what was added at either side.
#[track_caller]
pub fn assert_complete(server: &Server, certain: &[Certain]) {
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
