//! Keys that expire, or are renewed, while the first copy runs.

mod support;

use std::time::{Duration, Instant};
use support::{load::fill, resp::Argv, versions::Slot, wait::until, words::words, *};

const KEYS: u64 = 300;

fn each(server: &Server, line: &str) {
    let commands: Vec<Argv> = (0..KEYS).map(|i| words(&line.replace("$i", &i.to_string()))).collect();
    for reply in server.client().pipeline(&commands) {
        assert!(!reply.is_error(), "{line}: {reply:?}");
    }
}

/// A copy that takes some five seconds; keys with a second to live are renewed, changed and renewed, or left alone.
///
/// `counted`: with counters that are changed and then renewed as well.
fn while_loading(slot: Slot, two_way: bool, counted: bool) {
    let (a, b) = (Server::start(slot.server(), &[]), Server::start(slot.server(), &[]));
    fill(&a, 10_000, false);
    each(&a, "SET renewed:$i 41 PX 1500");
    if counted {
        each(&a, "SET counted:$i 41 PX 1500");
    }
    each(&a, "SET kept:$i 41 PX 1500");
    each(&a, "SET gone:$i 41 PX 1500");
    each(&a, "SET later:$i v PX 3600000");
    let begun = Instant::now();
    let job = JobSpec::between(a.addr(), b.addr());
    let job = job.limits("max_ops_per_second = 2000").policy(&format!("two_way = {two_way}"));
    let mut duplex = Duplex::new(&job);
    duplex.start();
    assert!(begun.elapsed() < Duration::from_millis(1_400), "too slow a machine for this test: {:?}", begun.elapsed());
    each(&a, "PEXPIRE renewed:$i 3600000");
    if counted {
        each(&a, "INCR counted:$i");
        each(&a, "PEXPIRE counted:$i 3600000");
    }
    each(&a, "PERSIST kept:$i");
    let renewed = a.client().run("EXISTS renewed:0 kept:0").int();
    assert_eq!(renewed, 2, "renewed too late");
    until(begun + Duration::from_millis(2_000));
    duplex.run(&["limit", &duplex.name, "--ops", "0"]).code(0);
    duplex.wait_state("synchronizing", secs(60));
    let equal = assert_equal_within(&a, &b, secs(20));
    assert_eq!(equal.len() as u64, 10_000 + (3 + u64::from(counted)) * KEYS, "{}, two-way {two_way}", a.name);
    let mut c = b.client();
    for i in 0..KEYS {
        if counted {
            assert_eq!(c.run(&format!("GET counted:{i}")).text(), "42");
        }
        assert_eq!(c.run(&format!("EXISTS gone:{i}")).int(), 0, "an expired key came back");
    }
    // The time that is left is the same, to what can be seen of it from two questions.
    let left = |s: &Server, key: &str| (s.client().run(&format!("PTTL {key}")).int(), Instant::now());
    for key in ["renewed:7", "later:7"] {
        let ((x, at), (y, then)) = (left(&a, key), left(&b, key));
        let off = x - y - then.duration_since(at).as_millis() as i64;
        assert!(off.abs() <= 5, "{key}: {off} ms apart");
    }
}

#[test]
fn keys_renewed_while_the_copy_runs_are_kept_on_the_usual() {
    while_loading(Slot::Usual, true, false);
    while_loading(Slot::Usual, false, false);
}

#[test]
fn keys_renewed_while_the_copy_runs_are_kept_on_the_oldest() {
    while_loading(Slot::Oldest, true, false);
    while_loading(Slot::Oldest, false, false);
}

#[test]
fn counters_changed_and_renewed_while_the_copy_runs_are_kept() {
    for slot in [Slot::Usual, Slot::Oldest] {
        while_loading(slot, true, true);
        while_loading(slot, false, true);
    }
}
