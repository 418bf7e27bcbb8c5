//! Load over many slots of a site, whose outcome is known exactly, and the gate at which those who write wait while a
//! server is killed.

use super::{
    cluster::{Site, assert_sites_equal},
    resp::Reply,
    wait::{secs, until, wait_for},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Where those who write wait while a server of theirs dies. Nothing of theirs is under way then, so all that they wrote was
/// answered.
#[derive(Default)]
pub struct Gate(RwLock<u64>);

impl Gate {
    /// Held for one step. The number grows with each death: connections from before it are not to be used any more.
    pub fn pass(&self) -> RwLockReadGuard<'_, u64> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// While this runs nobody passes.
    pub fn shut<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut deaths = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *deaths += 1;
        work()
    }
}

/// Counters, lists, streams and new keys in many slots, whose outcome is known exactly.
pub struct Spread {
    pub prefix: String,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<BTreeMap<u64, u64>>>,
}

/// Tags of a spread: as many slots, give or take.
const TAGS: u64 = 40;

impl Spread {
    /// Starts at about `per_second` steps a second.
    pub fn start(site: &Site, prefix: &str, per_second: u64) -> Spread {
        Spread::with(site, prefix, per_second, false, Arc::default())
    }

    /// The same through servers that die while this gate is shut: all is known exactly.
    pub fn behind(site: &Site, prefix: &str, per_second: u64, gate: Arc<Gate>) -> Spread {
        Spread::with(site, prefix, per_second, false, gate)
    }

    /// The same through servers that die: a write whose outcome is unknown is passed over, so nothing exact is known
    /// in the end.
    pub fn through(site: &Site, prefix: &str, per_second: u64) -> Spread {
        Spread::with(site, prefix, per_second, true, Arc::default())
    }

    fn with(site: &Site, prefix: &str, per_second: u64, through: bool, gate: Arc<Gate>) -> Spread {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (halt, count, prefix_there, mut router) = (stop.clone(), sent.clone(), prefix.to_owned(), site.router());
        let thread = thread::spawn(move || {
            let prefix = prefix_there;
            let began = Instant::now();
            let mut steps: BTreeMap<u64, u64> = BTreeMap::new();
            let (mut n, mut deaths) = (0u64, 0);
            while !halt.load(Ordering::SeqCst) {
                let turn = gate.pass();
                router.forget_after(*turn, &mut deaths);
                let tag = n * 7 % TAGS;
                let i = steps.entry(tag).or_default();
                let key = |kind: &str| format!("{{{prefix}{tag}}}:{kind}");
                let (count_key, list, stream) = (key("count"), key("list"), key("stream"));
                let mut call = |key: &str, argv: &[&str]| match router.try_call(key.as_bytes(), argv) {
                    Ok(Reply::Error(e)) if !through => panic!("{key}: {e}"),
                    Err(e) if !through => panic!("{key}: {e}"),
                    _ => {}
                };
                call(&count_key, &["INCR", &count_key]);
                call(&list, &["RPUSH", &list, &i.to_string()]);
                call(&stream, &["XADD", &stream, &format!("{}-1", *i + 1), "n", &i.to_string()]);
                // One command each at a cluster, the INCR a transaction behind the SET to its key; each new key is one that a
                // slot on its way has at neither end.
                let (turns, new) = (key("turns"), key(&format!("new:{i}")));
                call(&turns, &["SET", &turns, &(*i * 10).to_string()]);
                call(&turns, &["INCR", &turns]);
                call(&new, &["SET", &new, &i.to_string()]);
                // Both sites count on this one.
                let shared = format!("{{both{tag}}}:count");
                call(&shared, &["INCR", &shared]);
                *i += 1;
                drop(turn);
                n += 1;
                count.store(n, Ordering::SeqCst);
                if per_second > 0 {
                    until(began + Duration::from_secs_f64(n as f64 / per_second as f64));
                }
            }
            steps
        });
        Spread { prefix: prefix.to_owned(), stop, sent, thread: Some(thread) }
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// Waits for so many steps more.
    #[track_caller]
    pub fn more(&self, steps: u64) {
        let goal = self.sent() + steps;
        wait_for(&format!("load {} goes on", self.prefix), secs(60), || match self.sent() {
            n if n >= goal => Ok(()),
            n => Err(format!("{n} of {goal}")),
        });
    }

    /// Ends the load; steps of each tag.
    #[track_caller]
    pub fn stop(&mut self) -> BTreeMap<u64, u64> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().expect("it is stopped once").join().expect("the load ran through")
    }
}

impl Drop for Spread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// All steps of a spread stand at a site exactly once and in order.
#[track_caller]
pub fn assert_spread(site: &Site, prefix: &str, steps: &BTreeMap<u64, u64>, but: &BTreeSet<String>) {
    let mut router = site.router();
    let mut faults = Vec::new();
    for (tag, wanted) in steps {
        let key = |kind: &str| format!("{{{prefix}{tag}}}:{kind}");
        let count = router.run(&format!("GET {}", key("count"))).text();
        if count != wanted.to_string() && !but.contains(&key("count")) {
            faults.push(format!("{}: {count} instead of {wanted}", key("count")));
        }
        let list: Vec<String> =
            router.run(&format!("LRANGE {} 0 -1", key("list"))).items().iter().map(Reply::text).collect();
        let right: Vec<String> = (0..*wanted).map(|n| n.to_string()).collect();
        if list != right && !but.contains(&key("list")) {
            let at = list.iter().zip(&right).position(|(a, b)| a != b).unwrap_or(list.len().min(right.len()));
            let around = &list[at.saturating_sub(2)..(at + 3).min(list.len())];
            faults.push(format!("{}: {} of {wanted}, wrong at {at}: {around:?}", key("list"), list.len()));
        }
        let stream = router.run(&format!("XLEN {}", key("stream"))).int() as u64;
        if stream != *wanted && !but.contains(&key("stream")) {
            faults.push(format!("{}: {stream} of {wanted}", key("stream")));
        }
        let Some(last) = wanted.checked_sub(1) else { continue };
        let turns = router.run(&format!("GET {}", key("turns"))).text();
        if turns != (last * 10 + 1).to_string() && !but.contains(&key("turns")) {
            faults.push(format!("{}: {turns} instead of {}", key("turns"), last * 10 + 1));
        }
        for i in 0..*wanted {
            let new = key(&format!("new:{i}"));
            let found = router.run(&format!("GET {new}")).text();
            if found != i.to_string() && !but.contains(&new) {
                faults.push(format!("{new}: {found} instead of {i}"));
            }
        }
    }
    assert!(faults.is_empty(), "{prefix}: {} faults:\n{}", faults.len(), faults.join("\n"));
}

/// What both sites counted on is the sum of both. `but`: keys that are left out.
#[track_caller]
pub fn assert_shared(site: &Site, a: &BTreeMap<u64, u64>, b: &BTreeMap<u64, u64>, but: &BTreeSet<String>) {
    let mut router = site.router();
    let mut faults = Vec::new();
    for tag in 0..TAGS {
        let wanted = a.get(&tag).unwrap_or(&0) + b.get(&tag).unwrap_or(&0);
        let key = format!("{{both{tag}}}:count");
        let found = router.run(&format!("GET {key}")).text();
        if wanted > 0 && found != wanted.to_string() && !but.contains(&key) {
            faults.push(format!("{key}: {found} instead of {wanted}"));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Ends loads at both sides and waits until each of their steps stands exactly once at both.
#[track_caller]
pub fn assert_all_there(a: &Site, b: &Site, duplex: &super::duplex::Duplex, loads: &mut [Spread; 2]) {
    let steps = loads.each_mut().map(Spread::stop);
    duplex.wait_state("synchronizing", secs(60));
    assert_sites_equal(a, b, secs(90));
    for site in [a, b] {
        for (load, steps) in loads.iter().zip(&steps) {
            assert_spread(site, &load.prefix, steps, &BTreeSet::new());
        }
        assert_shared(site, &steps[0], &steps[1], &BTreeSet::new());
    }
}
