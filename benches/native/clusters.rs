//! The same writes through one link between two servers and through jobs with six-shard clusters.

use super::{
    LIMIT, cpu, peak, scaled, setting,
    support::{
        cluster::{Cluster, SLOTS, Site as Place, slot},
        duplex::{Duplex, JobSpec},
        resp::encode,
        wait::{until, wait_for},
    },
};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    thread,
    time::{Duration, Instant},
};

/// Pipelines of SETs of 100 bytes for one master, of keys in its slots, that end with one of [`arrived_at`]'s.
struct Stream {
    master: usize,
    pipelines: Vec<Vec<u8>>,
}

const IN_A_PIPELINE: usize = 100;

/// `n` SETs for a site, each for the master that owns its slot.
fn streams(site: &Place, prefix: &str, n: u64) -> Vec<Stream> {
    let masters: Vec<u16> = site.masters().iter().map(|m| m.port).collect();
    let owner: Vec<usize> = match site {
        Place::One(_) => vec![0; SLOTS],
        Place::Many(cluster) => {
            cluster.map().iter().map(|port| masters.iter().position(|m| m == port).expect("a master")).collect()
        }
    };
    let mut streams: Vec<Stream> = (0..masters.len()).map(|master| Stream { master, pipelines: Vec::new() }).collect();
    let mut open = vec![(Vec::new(), 0usize); masters.len()];
    let each = n as usize / masters.len() / IN_A_PIPELINE;
    let mut i = 0u64;
    while streams.iter().any(|s| s.pipelines.len() < each) {
        let key = format!("{prefix}:{i:08}");
        i += 1;
        let at = owner[slot(key.as_bytes())];
        if streams[at].pipelines.len() == each {
            continue;
        }
        let (bytes, count) = &mut open[at];
        encode(bytes, &[b"SET".as_slice(), key.as_bytes(), &[b'x'; 100]]);
        *count += 1;
        if *count == IN_A_PIPELINE {
            streams[at].pipelines.push(std::mem::take(bytes));
            *count = 0;
        }
    }
    streams
}

/// Writes them, all masters at once; `per_second` changes in all, 0 for as fast as they go.
fn write(site: &Place, streams: &[Stream], per_second: f64) {
    let masters = site.masters();
    thread::scope(|s| {
        for stream in streams {
            let master = masters[stream.master];
            let pause = IN_A_PIPELINE as f64 * streams.len() as f64 / per_second;
            s.spawn(move || {
                let (mut replies, mut to) = master.client().into_parts();
                let mut answer = [0; 5 * IN_A_PIPELINE];
                let began = Instant::now();
                for (n, pipeline) in stream.pipelines.iter().enumerate() {
                    if per_second > 0.0 {
                        until(began + Duration::from_secs_f64(pause * n as f64));
                    }
                    to.write_all(pipeline).expect("send");
                    replies.read_exact(&mut answer).expect("replies");
                    assert!(answer.starts_with(b"+OK\r\n"), "{}", answer.escape_ascii());
                }
            });
        }
    });
}

/// Waits until a last write of each of the source's shards is at the target.
fn arrived_at(source: &Place, target: &Place, word: &str) {
    let (mut from, mut to) = (source.router(), target.router());
    for n in 0..64 {
        from.run(&format!("SET last:{n} {word}"));
    }
    for n in 0..64 {
        wait_for("the last write is there", LIMIT, || match to.run(&format!("GET last:{n}")).text() {
            text if text == word => Ok(()),
            other => Err(other),
        });
    }
}

/// Two-way jobs, written to at the source: at a moderate rate for what a change costs, then at full speed.
pub fn clusters() {
    let name = std::env::var("DUPLEX_BENCH_SERVER").unwrap_or_else(|_| "redis-7.0".into());
    let rate = setting("DUPLEX_BENCH_RATE", 6_000.0);
    let (calm, full) = ((rate * 6.0) as u64, scaled(120_000));
    let other: Vec<usize> = (1..6).map(|n| n * SLOTS / 6 + 900).collect();
    let six = || Place::Many(Cluster::start(&name, 6, 0));
    let kinds: [(&str, bool, bool, bool); 5] = [
        ("1 to 1", false, false, false),
        ("6 to 6, equal slots", true, true, false),
        ("6 to 6, other slots", true, true, true),
        ("1 to 6", false, true, false),
        ("6 to 1", true, false, false),
    ];
    let mut rows: BTreeMap<usize, Vec<[f64; 4]>> = BTreeMap::new();
    for _ in 0..setting("DUPLEX_BENCH_ROUNDS", 1.0) as u32 {
        for (place, (kind, many_a, many_b, cut)) in kinds.iter().enumerate() {
            if std::env::var("DUPLEX_BENCH_KIND").is_ok_and(|k| !k.split(';').any(|k| k == *kind)) {
                continue;
            }
            let a = if *many_a { six() } else { Place::one(&name) };
            let b = match (many_b, cut) {
                (true, true) => Place::Many(Cluster::split(&name, &other, 0)),
                (true, false) => six(),
                (false, _) => Place::one(&name),
            };
            let mut duplex = Duplex::new(&JobSpec::between(a.addr(), b.addr()));
            duplex.start();
            duplex.wait_state("synchronizing", LIMIT);
            let pid = duplex.engine_pid();
            let servers: Vec<u32> = a.masters().iter().chain(&b.masters()).map(|s| s.pid()).collect();
            let used = || (cpu(pid), servers.iter().map(|p| cpu(*p)).sum::<f64>());
            let (calm_streams, full_streams) = (streams(&a, "calm", calm), streams(&a, "full", full));
            arrived_at(&a, &b, "warm");
            let before = used();
            write(&a, &calm_streams, rate);
            arrived_at(&a, &b, "calm");
            let after = used();
            let million = calm as f64 / 1e6;
            let began = Instant::now();
            write(&a, &full_streams, 0.0);
            arrived_at(&a, &b, "full");
            let speed = full as f64 / began.elapsed().as_secs_f64();
            let row = [speed, (after.0 - before.0) / million, (after.1 - before.1) / million, peak(pid)];
            eprintln!("{kind}: {row:.2?}");
            rows.entry(place).or_default().push(row);
        }
    }
    println!(
        "\n| {name}, {full} changes at full speed, {calm} at {rate} a second | changes/s | of one link | CPU of the engine, s per million | times one link | CPU of the servers, s per million | peak memory, MiB |\n|---|---|---|---|---|---|---|"
    );
    let middle = |place: usize, i: usize| {
        let mut all: Vec<f64> = rows.get(&place)?.iter().map(|r| r[i]).collect();
        all.sort_by(f64::total_cmp);
        Some(all[all.len() / 2])
    };
    for (place, (kind, ..)) in kinds.iter().enumerate() {
        let Some(row) = (0..4).map(|i| middle(place, i)).collect::<Option<Vec<f64>>>() else { continue };
        let (speed, engine, servers, memory) = (row[0], row[1], row[2], row[3]);
        let of = |i: usize| middle(0, i).map_or("-".into(), |one| format!("{:.2}", row[i] / one));
        println!("| {kind} | {speed:.0} | {} | {engine:.2} | {} | {servers:.2} | {memory:.0} |", of(0), of(1));
    }
}
