//! The product beside native replication, in one run, on the same machine: how long a first copy takes, how many
//! changes a second pass, how soon a write is seen at the other side, what it costs in CPU and memory.
//!
//! Each measurement is taken in turns (native, ours, native, ours, ...), so that what else the machine does meets both.
//! `benches/README.md` says how to read the table. `DUPLEX_BENCH_SCALE=0.1` makes everything a tenth as big,
//! `DUPLEX_BENCH_ROUNDS` sets the turns (3), `DUPLEX_BENCH_SERVER` the server (redis-7.0), `DUPLEX_BENCH_ONLY=native`
//! or `ours` leaves the other out, `DUPLEX_BENCH=snapshots,one_way,two_way,latency` takes some of the measurements.
//! `DUPLEX_BENCH=arbitration` is another: both ways together on keys of each side's own, arbitration off, on, off, on, ...
//! `DUPLEX_BENCH=cluster` is a third: the same writes through one standalone link and through jobs with six-shard clusters.

#[allow(dead_code, unused_imports, reason = "the part of the tests' support that a measurement needs")]
#[path = "../tests/support"]
mod support {
    pub mod cluster;
    pub mod compare;
    pub mod duplex;
    pub mod load;
    pub mod resp;
    pub mod router;
    pub mod server;
    pub mod site;
    pub mod spread;
    pub mod versions;
    pub mod wait;
    pub mod words;
}

#[path = "support/plot.rs"]
mod plot;

#[path = "native/clusters.rs"]
mod clusters;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};
use support::{
    compare::key_count,
    duplex::{Duplex, JobSpec},
    load::fill,
    resp::{Client, Reply, encode},
    server::{Server, field},
    wait::{until, wait_for},
};

/// Nothing here may take longer than this; far more than a slow machine needs.
const LIMIT: Duration = Duration::from_secs(900);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Native,
    Ours,
}

fn setting(name: &str, default: f64) -> f64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn scaled(n: u64) -> u64 {
    ((n as f64 * setting("DUPLEX_BENCH_SCALE", 1.0)) as u64).max(1_000)
}

fn server() -> Server {
    let name = std::env::var("DUPLEX_BENCH_SERVER").unwrap_or_else(|_| "redis-7.0".into());
    Server::start(&name, &["--repl-diskless-sync", "yes"])
}

/// Seconds of CPU that a process has used.
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name, in parentheses, may hold spaces: count behind it. utime and stime are fields 14 and 15, in ticks of
    // 1/100 s (USER_HZ, the same on every Linux).
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    (fields[11].parse::<f64>().expect("utime") + fields[12].parse::<f64>().expect("stime")) / 100.0
}

/// The most memory a process has had resident since it began, in MiB.
fn peak(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches("kB").trim().parse::<f64>().expect("kilobytes") / 1024.0
}

/// What a first copy took, in seconds.
struct Copied {
    /// From the command until the source was asked for its snapshot.
    before: f64,
    /// From then on until all keys were there.
    took: f64,
    /// Of both servers; the source's child is not in it.
    cpu: f64,
    engine_cpu: Option<f64>,
}

/// Two servers, connected one way or the other.
struct Site {
    a: Server,
    b: Server,
    duplex: Option<Duplex>,
}

impl Site {
    /// Connects two servers and waits until all that `a` holds is at `b`; also what that took.
    fn connect(way: Way, a: Server, b: Server, two_way: bool) -> (Site, Copied) {
        let keys = key_count(&a);
        let before: Vec<f64> = [&a, &b].map(|s| cpu(s.pid())).to_vec();
        // Before the source is asked for the snapshot, ours looks at both servers.
        let asked = thread::spawn({
            let mut client = a.client();
            move || loop {
                let info = client.run("INFO stats").text();
                if field(&info, "sync_full").is_some_and(|n| n != "0") {
                    return Instant::now();
                }
                until(Instant::now() + Duration::from_millis(2));
            }
        });
        let began;
        let duplex = match way {
            Way::Native => {
                began = Instant::now();
                b.client().run(&format!("REPLICAOF 127.0.0.1 {}", a.port));
                None
            }
            Way::Ours => {
                let job = JobSpec::between(a.addr(), b.addr()).policy(&format!("two_way = {two_way}"));
                let mut duplex = Duplex::new(&job);
                duplex.engine();
                began = Instant::now();
                duplex.start_job();
                Some(duplex)
            }
        };
        // Control keys come on top of those of the source; a replica that loads gives errors.
        let mut client = b.client();
        wait_for("all keys are there", LIMIT, || match client.call(&["DBSIZE"]) {
            Reply::Int(n) if n as u64 >= keys => Ok(()),
            other => Err(format!("{other:?} of {keys}")),
        });
        let ended = Instant::now();
        let asked = asked.join().expect("the source was asked");
        let used: Vec<f64> = [&a, &b].map(|s| cpu(s.pid())).into_iter().zip(before).map(|(n, b)| n - b).collect();
        let copied = Copied {
            before: (asked - began).as_secs_f64(),
            took: (ended - asked).as_secs_f64(),
            cpu: used.iter().sum::<f64>(),
            engine_cpu: duplex.as_ref().map(|d| cpu(d.engine_pid())),
        };
        if let Some(duplex) = &duplex {
            duplex.wait_state("synchronizing", LIMIT);
        }
        // A replica's stream may start late; what follows measures it, not its start.
        a.client().run("SET warm:last done");
        arrived(&b, "warm");
        (Site { a, b, duplex }, copied)
    }

    fn pids(&self) -> Vec<u32> {
        let engine = self.duplex.as_ref().map(Duplex::engine_pid);
        [self.a.pid(), self.b.pid()].into_iter().chain(engine).collect()
    }
}

/// Writes `n` SETs of 100 bytes over four connections, 500 in a pipeline. What is sent is made beforehand and replies are
/// counted by their bytes, so that the load takes little of the processors that it shares with what it loads.
fn blast(server: &Server, prefix: &str, n: u64) {
    const CONNECTIONS: u64 = 4;
    const PIPELINE: u64 = 500;
    /// Different pipelines of each connection, in turn.
    const PIPELINES: u64 = 100;
    const REPLY: usize = b"+OK\r\n".len();
    let value = [b'x'; 100];
    thread::scope(|s| {
        for c in 0..CONNECTIONS {
            s.spawn(move || {
                let pipelines: Vec<Vec<u8>> = (0..PIPELINES.min(n / CONNECTIONS / PIPELINE))
                    .map(|p| {
                        let mut out = Vec::new();
                        for i in 0..PIPELINE {
                            let key = format!("{prefix}:{c}:{:06}", p * PIPELINE + i);
                            encode(&mut out, &[b"SET".as_slice(), key.as_bytes(), &value]);
                        }
                        out
                    })
                    .collect();
                let (mut replies, mut to) = server.client().into_parts();
                let mut answer = [0; REPLY * PIPELINE as usize];
                for chunk in 0..n / CONNECTIONS / PIPELINE {
                    to.write_all(&pipelines[(chunk % PIPELINES) as usize]).expect("send");
                    replies.read_exact(&mut answer).expect("replies");
                }
                assert!(answer.starts_with(b"+OK\r\n"), "{}", answer.escape_ascii());
            });
        }
    });
    server.client().run(&format!("SET {prefix}:last done"));
}

/// Waits until the last write of a blast is seen.
fn arrived(server: &Server, prefix: &str) {
    let mut client = server.client();
    wait_for("the last write is there", LIMIT, || match client.run(&format!("GET {prefix}:last")).text().as_str() {
        "done" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// Seconds from the end of a load until every link of the job says that it lags by less than 100 ms.
fn calm_after(duplex: &Duplex, ended: Instant) -> f64 {
    wait_for("the lag is under 100 ms", LIMIT, || {
        let status = duplex.status();
        let lags: Vec<Option<u64>> =
            status.0["links"].as_array().into_iter().flatten().map(|l| l["lag_ms"].as_u64()).collect();
        match lags.is_empty() || lags.iter().any(|l| l.is_none_or(|l| l >= 100)) {
            false => Ok(()),
            true => Err(format!("{lags:?}")),
        }
    });
    ended.elapsed().as_secs_f64()
}

/// The place of the row that has the precheck in it.
const COMMAND_ON: usize = 7;
/// What the rows that native has too have to show, as ratio to native: at least, or (true) at most.
const AIMS: [(usize, f64, bool); 5] =
    [(0, 0.91, false), (1, 0.91, false), (COMMAND_ON, 1.1, true), (3, 0.8, false), (4, 0.6, false)];

/// What was measured, by name and way: one value a round.
#[derive(Default)]
struct Results {
    values: BTreeMap<(usize, &'static str, &'static str), BTreeMap<Way, Vec<f64>>>,
}

impl Results {
    fn add(&mut self, place: usize, name: &'static str, unit: &'static str, way: Way, value: f64) {
        eprintln!("{name}, {way:?}: {value:.2} {unit}");
        self.values.entry((place, name, unit)).or_default().entry(way).or_default().push(value);
    }

    /// The rows that both have, as ratios: ours to native's in the same round.
    fn bars(&self) -> Vec<plot::Bar> {
        let bar = |(&(place, name, _), ways): (&(usize, &str, &str), &BTreeMap<Way, Vec<f64>>)| {
            let (native, ours) = (ways.get(&Way::Native)?, ways.get(&Way::Ours)?);
            let mut ratios: Vec<f64> = ours.iter().zip(native).map(|(o, n)| o / n).collect();
            ratios.sort_by(f64::total_cmp);
            let aim = AIMS.iter().find(|(p, ..)| *p == place);
            Some(plot::Bar {
                name: name.to_owned(),
                ratio: *ratios.get(ratios.len() / 2)?,
                spread: (*ratios.first()?, *ratios.last()?),
                aim: aim.map(|a| a.1),
                less_is_better: aim.is_some_and(|a| a.2),
            })
        };
        // What comes before a copy is nothing in native, and what a ratio of CPU would be is said in the table.
        self.values.iter().filter(|((place, ..), _)| AIMS.iter().any(|a| a.0 == *place)).filter_map(bar).collect()
    }

    /// The plot beside what was built.
    fn draw(&self) {
        let bars = self.bars();
        if bars.is_empty() {
            return;
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/target/native.svg");
        std::fs::write(
            path,
            plot::svg("redis-duplex beside native replication (1 is native; the mark is the aim)", &bars),
        )
        .expect("the plot is written");
        println!("\nplot: {path}");
    }

    fn print(&self) {
        println!("\n| | unit | native | redis-duplex | ratio | spread of ours |\n|---|---|---|---|---|---|");
        for ((_, name, unit), ways) in &self.values {
            let sorted = |way: Way| {
                let mut v = ways.get(&way).cloned().unwrap_or_default();
                v.sort_by(f64::total_cmp);
                v
            };
            let (native, ours) = (sorted(Way::Native), sorted(Way::Ours));
            let middle = |v: &[f64]| v.get(v.len() / 2).copied();
            let show = |v: Option<f64>| {
                v.map_or("-".into(), |v| if v >= 1_000.0 { format!("{v:.0}") } else { format!("{v:.2}") })
            };
            let ratio = match (middle(&native), middle(&ours)) {
                (Some(n), Some(o)) if n > 0.0 => format!("{:.2}", o / n),
                _ => "-".into(),
            };
            let spread = match (ours.first(), ours.last()) {
                (Some(low), Some(high)) => format!("{} to {}", show(Some(*low)), show(Some(*high))),
                _ => "-".into(),
            };
            println!("| {name} | {unit} | {} | {} | {ratio} | {spread} |", show(middle(&native)), show(middle(&ours)));
        }
    }
}

fn snapshots(way: Way, results: &mut Results) {
    for (place, name, mixed) in [(0, "first copy, strings of 100 B", false), (1, "first copy, mixed types", true)] {
        let (a, b) = (server(), server());
        let keys = scaled(1_000_000);
        fill(&a, keys, mixed);
        let (site, copied) = Site::connect(way, a, b, false);
        results.add(place, name, "keys/s", way, keys as f64 / copied.took);
        if mixed {
            continue;
        }
        let million = keys as f64 / 1e6;
        results.add(2, "first copy, what comes before it", "s", way, copied.before);
        results.add(COMMAND_ON, "first copy, strings, from the command on", "s", way, copied.before + copied.took);
        results.add(8, "CPU of both servers, first copy", "s per million", way, copied.cpu / million);
        if let (Some(duplex), Some(cpu)) = (&site.duplex, copied.engine_cpu) {
            results.add(9, "CPU of the engine, first copy", "s per million", way, cpu / million);
            results.add(15, "peak memory of the engine, first copy", "MiB", way, peak(duplex.engine_pid()));
        }
    }
}

fn one_way(way: Way, results: &mut Results) {
    let (site, _) = Site::connect(way, server(), server(), false);
    let n = scaled(2_000_000);
    let before: Vec<f64> = site.pids().into_iter().map(cpu).collect();
    let began = Instant::now();
    blast(&site.a, "k", n);
    let ended = Instant::now();
    arrived(&site.b, "k");
    let rate = n as f64 / began.elapsed().as_secs_f64();
    let used: Vec<f64> = site.pids().into_iter().map(cpu).zip(before).map(|(now, then)| now - then).collect();
    let million = n as f64 / 1e6;
    results.add(3, "stream, one way", "changes/s", way, rate);
    results.add(10, "CPU of both servers, one way", "s per million", way, (used[0] + used[1]) / million);
    if let Some(engine) = used.get(2) {
        results.add(11, "CPU of the engine, one way", "s per million", way, engine / million);
    }
    if let Some(duplex) = &site.duplex {
        results.add(16, "peak memory of the engine, one way", "MiB", way, peak(duplex.engine_pid()));
        results.add(18, "lag under 100 ms again, one way", "s after the load", way, calm_after(duplex, ended));
    }
}

fn two_way(way: Way, results: &mut Results) {
    let n = scaled(1_000_000);
    let total = 2.0 * n as f64;
    match way {
        // Native replication has one direction: two pairs side by side carry the same load.
        Way::Native => {
            let pairs = [(); 2].map(|()| Site::connect(way, server(), server(), false).0);
            let began = Instant::now();
            thread::scope(|s| {
                for pair in &pairs {
                    s.spawn(|| {
                        blast(&pair.a, "k", n);
                        arrived(&pair.b, "k");
                    });
                }
            });
            results.add(4, "stream, both ways together", "changes/s", way, total / began.elapsed().as_secs_f64());
        }
        Way::Ours => {
            let (site, _) = Site::connect(way, server(), server(), true);
            let pid = site.duplex.as_ref().map(Duplex::engine_pid).expect("the engine runs");
            let (began, before) = (Instant::now(), cpu(pid));
            let loads_ended: Vec<Instant> = thread::scope(|s| {
                let loads = [(&site.a, &site.b, "a"), (&site.b, &site.a, "b")].map(|(from, to, prefix)| {
                    s.spawn(move || {
                        blast(from, prefix, n);
                        let ended = Instant::now();
                        arrived(to, prefix);
                        ended
                    })
                });
                loads.into_iter().map(|l| l.join().expect("the load")).collect()
            });
            results.add(4, "stream, both ways together", "changes/s", way, total / began.elapsed().as_secs_f64());
            results.add(12, "CPU of the engine, both ways", "s per million", way, (cpu(pid) - before) / total * 1e6);
            if let (Some(duplex), Some(ended)) = (&site.duplex, loads_ended.into_iter().max()) {
                let calm = calm_after(duplex, ended);
                results.add(19, "lag under 100 ms again, both ways", "s after the load", way, calm);
            }
            results.add(17, "peak memory of the engine, both ways", "MiB", way, peak(pid));
        }
    }
}

/// 200 writes a second at one side; the other tells of each by a keyspace event, so that nobody has to ask.
fn latency(way: Way, results: &mut Results) {
    let (site, _) = Site::connect(way, server(), server(), true);
    let writes = scaled(2_000) as usize;
    let sent = Mutex::new(Vec::<Instant>::with_capacity(writes));
    let mut seen: Vec<f64> = Vec::with_capacity(writes);
    site.b.client().run("CONFIG SET notify-keyspace-events E$");
    let mut events = site.b.client();
    events.run("SUBSCRIBE __keyevent@0__:set");
    thread::scope(|s| {
        s.spawn(|| {
            let mut client: Client = site.a.client();
            let began = Instant::now();
            for i in 0..writes {
                until(began + Duration::from_millis(5) * i as u32);
                sent.lock().expect("the times").push(Instant::now());
                client.run(&format!("SET clock:{i} x"));
            }
        });
        while seen.len() < writes {
            let event = events.read().expect("an event of each write");
            let now = Instant::now();
            let Some(i) = event.items().get(2).and_then(|k| k.text().strip_prefix("clock:")?.parse::<usize>().ok())
            else {
                continue;
            };
            seen.push(now.duration_since(sent.lock().expect("the times")[i]).as_secs_f64() * 1e3);
        }
    });
    seen.sort_by(f64::total_cmp);
    for (place, name, part) in [(5, "write to visible, p50", 0.5), (6, "write to visible, p99", 0.99)] {
        results.add(place, name, "ms", way, seen[((seen.len() - 1) as f64 * part) as usize]);
    }
    if let Some(duplex) = &site.duplex {
        let (before, began) = (cpu(duplex.engine_pid()), Instant::now());
        until(began + Duration::from_secs(20));
        let share = (cpu(duplex.engine_pid()) - before) / began.elapsed().as_secs_f64() * 100.0;
        results.add(13, "CPU of the engine, idle", "% of a core", way, share);
    }
}

/// Both ways together on keys of each side's own, by turns with arbitration switched off and on: what it costs where
/// there is no conflict.
fn arbitration() {
    let n = scaled(1_000_000);
    // By on: changes a second, and seconds of CPU for a million, the engine's and that of all three.
    let mut rates: BTreeMap<bool, Vec<[f64; 3]>> = BTreeMap::new();
    for round in 0..setting("DUPLEX_BENCH_ROUNDS", 5.0) as u32 {
        // Whoever goes first meets another machine: take turns in that, too.
        for on in if round % 2 == 0 { [false, true] } else { [true, false] } {
            let (a, b) = (server(), server());
            let mut duplex = Duplex::new(&JobSpec::between(a.addr(), b.addr()));
            if !on {
                duplex.env("DUPLEX_BENCH_WITHOUT_ARBITER", "the-sides-may-diverge");
            }
            duplex.start();
            duplex.wait_state("synchronizing", LIMIT);
            let pid = duplex.engine_pid();
            let used = || [pid, a.pid(), b.pid()].map(cpu);
            let (began, before) = (Instant::now(), used());
            thread::scope(|s| {
                for (from, to, prefix) in [(&a, &b, "a"), (&b, &a, "b")] {
                    s.spawn(move || {
                        blast(from, prefix, n);
                        arrived(to, prefix);
                    });
                }
            });
            let rate = 2.0 * n as f64 / began.elapsed().as_secs_f64();
            let million = 2.0 * n as f64 / 1e6;
            let after = used();
            let (engine, all) = (after[0] - before[0], after.iter().sum::<f64>() - before.iter().sum::<f64>());
            let status = duplex.status();
            let conflicts = status.total("conflicts_settled") + status.0["conflicts_open"].as_u64().unwrap_or(1);
            assert_eq!(conflicts, 0, "keys of each side's own are no conflict");
            eprintln!(
                "arbitration {on}: {rate:.0} changes/s, CPU per million {:.2} s of {:.2}",
                engine / million,
                all / million
            );
            rates.entry(on).or_default().push([rate, engine / million, all / million]);
        }
    }
    let middle = |on: bool, i: usize| {
        let mut all: Vec<f64> = rates[&on].iter().map(|r| r[i]).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    println!("\n| {n} changes each way | arbitration off | on | on / off |\n|---|---|---|---|");
    let rows = ["changes/s", "CPU of the engine, s per million", "CPU of engine and servers, s per million"];
    for (i, name) in rows.into_iter().enumerate() {
        let (off, on) = (middle(false, i), middle(true, i));
        println!("| {name} | {off:.2} | {on:.2} | {:.3} |", on / off);
    }
}

type Measure = fn(Way, &mut Results);

fn main() {
    let ways: &[Way] = match std::env::var("DUPLEX_BENCH_ONLY").as_deref() {
        Ok("native") => &[Way::Native],
        Ok("ours") => &[Way::Ours],
        _ => &[Way::Native, Way::Ours],
    };
    let wanted = std::env::var("DUPLEX_BENCH").ok();
    if wanted.as_deref() == Some("arbitration") {
        return arbitration();
    }
    if wanted.as_deref() == Some("cluster") {
        return clusters::clusters();
    }
    let measures: [(&str, Measure); 4] =
        [("snapshots", snapshots), ("one_way", one_way), ("two_way", two_way), ("latency", latency)];
    let mut results = Results::default();
    for _ in 0..setting("DUPLEX_BENCH_ROUNDS", 3.0) as u32 {
        for (name, measure) in &measures {
            if wanted.as_ref().is_some_and(|w| !w.split(',').any(|w| w == *name)) {
                continue;
            }
            for way in ways {
                measure(*way, &mut results);
            }
        }
    }
    results.print();
    results.draw();
}
