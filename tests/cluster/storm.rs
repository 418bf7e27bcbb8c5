//! Slots that move, engines that are killed, shards that stand still: at random and at once.

use crate::support::{
    cluster::{Cluster, Gate, Router, Site, assert_sites_equal, slot},
    load::{sized, soak},
    positions::wait_resumable,
    wait::{Stops, secs, until},
    words::words,
    *,
};
use crate::{Loads, job};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// `DUPLEX_SEED` alone, `DUPLEX_SEEDS` of them, or as many as the form of the run asks for.
pub fn seeds(ci: u64, soak: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number"));
    match number("DUPLEX_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("DUPLEX_SEEDS").unwrap_or(sized(ci, soak))).collect(),
    }
}

/// What a side has written, as far as its outcome is exact.
#[derive(Default)]
pub struct Wrote {
    /// On counters that both sides add to, by counter.
    pub counted: [u64; COUNTERS],
    /// By list: what was pushed, each word once.
    pub pushed: BTreeMap<u32, Vec<String>>,
}

const COUNTERS: usize = 10;
const LISTS: u32 = 10;

/// Both sides write the same keys, in every way that one key can be written, until it is told to stop.
pub fn write(mut router: Router, gate: &Gate, seed: u64, stop: &AtomicBool) -> Wrote {
    let mut deaths = 0;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut wrote = Wrote::default();
    while !stop.load(Ordering::SeqCst) {
        let turn = gate.pass();
        router.forget_after(*turn, &mut deaths);
        let (n, word) = (rng.u32(0..30), rng.u32(..).to_string());
        let (s, l, h, z) = (format!("s:{n}"), format!("l:{n}"), format!("h:{n}"), format!("z:{n}"));
        let line = match rng.u32(0..12) {
            0..3 => format!("SET {s} {word}"),
            3 => format!("DEL {s}"),
            4 => format!("RPUSH {l} {word}"),
            5 => format!("LPOP {l}"),
            6 => format!("HSET {h} f{} {word}", rng.u32(0..4)),
            7 => format!("HDEL {h} f{}", rng.u32(0..4)),
            8 => format!("ZADD {z} {} m{}", rng.u32(0..9), rng.u32(0..4)),
            9 => format!("PEXPIRE {s} {}", rng.u32(1..300)),
            10 => format!("RENAME {{{s}}}:a {{{s}}}:b"),
            _ => format!("SET {{{s}}}:a {word}"),
        };
        let argv = words(&line);
        let key = argv[1].clone();
        // RENAME of a key that is not there answers with an error, which changes nothing.
        router.try_call(&key, &argv).expect("the site answers");
        let counter = n as usize % COUNTERS;
        router.run(&format!("INCR n:{counter}"));
        wrote.counted[counter] += 1;
        let all: u64 = wrote.counted.iter().sum();
        if all.is_multiple_of(16) {
            let list = rng.u32(0..LISTS);
            let word = format!("{seed}-{all}");
            router.run(&format!("RPUSH u:{list} {word}"));
            wrote.pushed.entry(list).or_default().push(word);
        }
    }
    wrote
}

/// The keys of which the job has told that they were in conflict when their slot moved: of these what one side did may be
/// lost, and both sides are equal all the same. Of all others nothing may be.
pub fn overruled(duplex: &Duplex) -> BTreeSet<String> {
    let events = duplex.run(&["events", "--json", "-n", "10000"]).code(0).stdout;
    assert!(!events.contains("more keys were in conflict when their slots moved"), "keys are not told by name");
    let told = events.lines().filter_map(|line| {
        let event: serde_json::Value = serde_json::from_str(line).expect("an event");
        let text = event["text"].as_str().expect("a text");
        let (key, _) = text.split_once(" in db0 was in conflict when its slot moved")?;
        Some(key.trim_matches('"').to_owned())
    });
    let mut told: BTreeSet<String> = told.collect();
    // A copy that a kill had ended early, and slots that moved meanwhile: told by their numbers.
    let texts = events.lines().filter_map(|line| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        let text = event["text"].as_str()?;
        let (slots, _) = text.strip_prefix("slots ")?.split_once(" of the target have moved before the first copy")?;
        Some(slots.to_owned())
    });
    let number = |text: &str| text.parse::<usize>().expect("a slot");
    for range in texts.flat_map(|slots| slots.split(',').map(str::to_owned).collect::<Vec<_>>()) {
        let (first, last) = range.split_once('-').unwrap_or((&range, &range));
        let moved = number(first)..=number(last);
        let counters = (0..COUNTERS).map(|n| format!("n:{n}"));
        told.extend(counters.filter(|key| moved.contains(&slot(key.as_bytes()))));
    }
    eprintln!("in conflict when their slots moved: {told:?}");
    told
}

/// What both sides counted together. `but`: keys that are left out.
#[track_caller]
pub fn assert_counted(sites: &[&Site; 2], wrote: &[Wrote], but: &BTreeSet<String>) {
    for site in sites {
        let mut router = site.router();
        let mut faults = Vec::new();
        for n in 0..COUNTERS {
            let key = format!("n:{n}");
            let wanted: u64 = wrote.iter().map(|w| w.counted[n]).sum();
            let found: u64 = router.run(&format!("GET {key}")).text().parse().unwrap_or(0);
            if found != wanted && !but.contains(&key) {
                faults.push(format!("{key}: {found} instead of {wanted}"));
            }
        }
        assert!(faults.is_empty(), "what both sides counted:\n{}", faults.join("\n"));
    }
}

/// What both sides pushed stands there once, in the order of each side.
#[track_caller]
pub fn assert_pushed(site: &Site, wrote: &[Wrote; 2]) {
    let mut faults = Vec::new();
    for list in 0..LISTS {
        let found = site.router().run(&format!("LRANGE u:{list} 0 -1"));
        let found: Vec<String> = found.items().iter().map(|w| w.text()).collect();
        let mut wanted: Vec<&String> = wrote.iter().filter_map(|w| w.pushed.get(&list)).flatten().collect();
        let mut sorted: Vec<&String> = found.iter().collect();
        wanted.sort();
        sorted.sort();
        let missing = wanted.iter().filter(|w| !found.contains(w)).count();
        if wanted != sorted {
            faults.push(format!("u:{list}: {} of {}, {missing} missing", found.len(), wanted.len()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The slots that are written here and move at this side. None moves at both, where no order between the moves is known; nor do
/// those of the lists that both sides push to: what is in conflict while its slot moves is settled by that side's state.
fn movable(side: usize) -> Vec<usize> {
    let tagged = (0..40).flat_map(|n| ["a", "b", "both"].map(|prefix| format!("{prefix}{n}")));
    let plain = (0..30).flat_map(|n| ["s", "l", "h", "z", "n"].map(|kind| format!("{kind}:{n}")));
    let lists: Vec<usize> = (0..LISTS).map(|n| slot(format!("u:{n}").as_bytes())).collect();
    let slots = tagged.chain(plain).map(|key| slot(key.as_bytes()));
    slots.filter(|slot| slot % 2 == side && !lists.contains(slot)).collect()
}

fn some_master(cluster: &Cluster, rng: &mut fastrand::Rng) -> u16 {
    let ports: Vec<u16> = cluster.masters().iter().map(|m| m.port).collect();
    ports[rng.usize(0..ports.len())]
}

/// A job that is told of every node: whichever is dead when the engine begins.
fn job_of_all(sites: &[Site; 2]) -> Duplex {
    let addresses = sites.each_ref().map(|site| match site {
        Site::One(server) => format!("{:?}", server.addr()),
        Site::Many(cluster) => format!("{:?}", cluster.nodes.iter().map(Server::addr).collect::<Vec<_>>()),
    });
    let [a, b] = addresses;
    let mut duplex =
        Duplex::with_file(&format!("name = \"orders\"\n[source]\naddress = {a}\n[target]\naddress = {b}\n"));
    duplex.start();
    duplex.wait_state("synchronizing", secs(60));
    duplex
}

/// What happens to a site, or to the engine.
fn strike(sites: &mut [Site; 2], side: usize, gates: &[Arc<Gate>; 2], rng: &mut fastrand::Rng, duplex: &mut Duplex) {
    let Site::Many(cluster) = &sites[side] else { return kill_engine(duplex, rng) };
    let has_replicas = cluster.nodes.len() > cluster.masters().len();
    let what = rng.u32(0..10);
    if has_replicas && matches!(what, 6..9) {
        gates[0].shut(|| gates[1].shut(|| wait_resumable(sites, side)));
    }
    let (cluster, gate) = (sites[side].cluster_mut(), &gates[side]);
    match what {
        0..6 => {
            let slots = movable(side);
            let at_once = soak() && cluster.migrates_at_once().is_some();
            for _ in 0..rng.u32(1..5) {
                let (slot, to) = (slots[rng.usize(0..slots.len())], some_master(cluster, rng));
                match at_once && rng.bool() {
                    true => cluster.migrate_at_once(&[slot], to),
                    false => cluster.migrate(slot, to),
                }
            }
        }
        7 if has_replicas => {
            // Half of the time the engine dies along with the master.
            let both = rng.bool();
            if both {
                duplex.crash();
            }
            cluster.kill_for_good(some_master(cluster, rng), gate);
            if both {
                duplex.revive();
            }
        }
        // One that stands still for longer than its nodes wait for it is replaced: that has to be at the gate as well.
        6 | 8 if has_replicas => {
            cluster.freeze_through(some_master(cluster, rng), gate, Duration::from_millis(sized(1_000, 10_000)));
        }
        6 => {
            let port = some_master(cluster, rng);
            let node = &cluster.nodes[cluster.node_with_port(port)];
            node.freeze();
            until(Instant::now() + Duration::from_millis(sized(1_000, 10_000)));
            node.thaw();
            cluster.wait_whole();
        }
        _ => kill_engine(duplex, rng),
    }
}

fn kill_engine(duplex: &mut Duplex, rng: &mut fastrand::Rng) {
    duplex.crash();
    until(Instant::now() + Duration::from_millis(rng.u64(0..500)));
    duplex.revive();
}

/// One storm: both sides end equal, and what is exact without it is exact after it, but for keys of which the job itself has
/// told otherwise.
pub fn weather(server: &str, seed: u64, sites: &mut [Site; 2]) {
    eprintln!(
        "seed {seed}: {server}, {:?} shards on {:?} nodes; replay: DUPLEX_SEED={seed}",
        sites.each_ref().map(|site| site.masters().len()),
        sites.each_ref().map(|site| site.router().nodes()),
    );
    let mut duplex = job_of_all(sites);
    // Slots that move while a kill begins the first copy again are another test's.
    sites[1].wait_copied(&sites[0]);
    let gates: [Arc<Gate>; 2] = Default::default();
    let loads = Loads::behind(sites, &gates, 200);
    let stop = AtomicBool::new(false);
    let wrote: Vec<Wrote> = thread::scope(|s| {
        let stop = &stop;
        let stops = Stops(stop);
        let threads = [0, 1].map(|n| {
            let (router, gate) = (sites[n].router(), gates[n].clone());
            s.spawn(move || write(router, &gate, seed * 2 + n as u64 + 1, stop))
        });
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..sized(8, 25) {
            until(Instant::now() + Duration::from_millis(rng.u64(50..700)));
            let side = rng.usize(0..2);
            strike(sites, side, &gates, &mut rng, &mut duplex);
        }
        drop(stops);
        threads.into_iter().map(|t| t.join().expect("the storm")).collect()
    });
    let mut but = BTreeSet::new();
    let [a, b] = &*sites;
    loads.end_exactly_but(&duplex, a, b, || {
        but = overruled(&duplex);
        but.clone()
    });
    assert_counted(&[a, b], &wrote, &but);
    let wrote: [Wrote; 2] = wrote.try_into().unwrap_or_else(|_| unreachable!("of two sides"));
    sites.iter().for_each(|site| assert_pushed(site, &wrote));
}

/// Slots move while keys in them are in conflict: the engine has just been killed, so all that was in flight is being looked
/// at again, and some strands have nothing but slots that have just moved. The job goes on, both sides end equal, and of keys that
/// it does not name nothing is missing.
///
/// `copied`: only when a kill would not begin the first copy again. Otherwise slots move while that is begun again and again.
pub fn move_in_conflict(sites: &[Site; 2], copied: bool) {
    let [a, b] = sites;
    let mut duplex = Duplex::synced(&job(a, b));
    if copied {
        b.wait_copied(a);
    }
    let stop = AtomicBool::new(false);
    let wrote: Vec<Wrote> = thread::scope(|s| {
        let stop = &stop;
        let stops = Stops(stop);
        let threads =
            [(a, 1), (b, 2)].map(|(site, n)| s.spawn(move || write(site.router(), &Gate::default(), n, stop)));
        let mut rng = fastrand::Rng::with_seed(7);
        for round in 0..sized(6, 30) {
            duplex.crash();
            duplex.revive();
            until(Instant::now() + Duration::from_millis(rng.u64(100..500)));
            let side = round % 2;
            let Site::Many(cluster) = &sites[side] else { continue };
            let slots = (0..COUNTERS).map(|n| slot(format!("n:{n}").as_bytes())).filter(|slot| slot % 2 == side);
            for slot in slots {
                cluster.migrate(slot, some_master(cluster, &mut rng));
            }
            until(Instant::now() + Duration::from_millis(rng.u64(100..1_500)));
        }
        drop(stops);
        threads.into_iter().map(|t| t.join().expect("the storm")).collect()
    });
    duplex.wait_state("synchronizing", secs(60));
    assert_sites_equal(a, b, secs(60));
    assert_counted(&[a, b], &wrote, &overruled(&duplex));
}
