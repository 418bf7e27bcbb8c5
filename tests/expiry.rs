//! Keys that expire, or are renewed, while the first copy runs and is caught up with.

mod support;

use std::thread;
use std::time::{Duration, Instant};
use support::load::{fill, sized};
use support::{proxy::Proxy, resp::Argv, versions::Slot, versions::speaks, wait::until, words::words, *};

const KEYS: u64 = 300;
/// How long the keys that are renewed have to live when the copy begins, and how long the copy is held up.
const LIFE: Duration = Duration::from_millis(6_000);
const HELD_UP: Duration = Duration::from_millis(6_500);

fn each(server: &Server, line: &str) {
    each_of(server, line, KEYS);
}

fn each_of(server: &Server, line: &str, keys: u64) {
    let commands: Vec<Argv> = (0..keys).map(|i| words(&line.replace("$i", &i.to_string()))).collect();
    for reply in server.client().pipeline(&commands) {
        assert!(!reply.is_error(), "{line}: {reply:?}");
    }
}

/// When these keys expire, in milliseconds since 1970 by the server's clock; `None` for those that do not.
fn expiries(server: &Server, keys: &[String]) -> Vec<Option<i64>> {
    let mut client = server.client();
    if speaks(&server.name) >= (7, 0) {
        let commands: Vec<Argv> = keys.iter().map(|key| words(&format!("PEXPIRETIME {key}"))).collect();
        return client.pipeline(&commands).iter().map(|r| Some(r.int()).filter(|t| *t >= 0)).collect();
    }
    let one = |key: &String| {
        // A server that was held up between the two is asked again.
        let asked = ["MULTI", "TIME", &format!("PTTL {key}"), "TIME", "EXEC"].map(words);
        loop {
            let replies = client.pipeline(&asked);
            let results = replies.last().expect("EXEC answers").items();
            let at = |n: usize| results[n].items()[0].int() * 1000 + results[n].items()[1].int() / 1000;
            if at(2) - at(0) <= 1 {
                return Some(results[1].int()).filter(|t| *t >= 0).map(|t| t + at(0));
            }
        }
    };
    keys.iter().map(one).collect()
}

/// Both expire these keys at the same time.
#[track_caller]
fn assert_same_expiries(a: &Server, b: &Server, keys: &[String]) {
    for ((key, x), y) in keys.iter().zip(expiries(a, keys)).zip(expiries(b, keys)) {
        let same = match (x, y) {
            (Some(x), Some(y)) => (x - y).abs() <= 5,
            (x, y) => x == y,
        };
        assert!(same, "{}: {key} expires at {x:?} at the source, at {y:?} at the target", a.name);
    }
}

fn names(prefixes: &[&str]) -> Vec<String> {
    prefixes.iter().flat_map(|p| (0..KEYS).map(move |i| format!("{p}:{i}"))).collect()
}

/// A copy that takes longer than some of its keys live. They are renewed, changed and renewed, renewed over and over,
/// persisted, renamed, or left alone.
fn while_loading(slot: Slot, two_way: bool) {
    let (a, b) = (Server::start(slot.server(), &[]), Server::start(slot.server(), &[]));
    let copies = speaks(slot.server()) >= (6, 2);
    fill(&a, 40_000, false);
    each(&a, "SET later:$i v PX 3600000");
    each(&a, "SET moved:$i v PX 3600000");
    each(&a, "SET month:$i v PX 2592000000");
    let job = JobSpec::between(a.addr(), b.addr());
    let job = job.limits("max_ops_per_second = 1000").policy(&format!("two_way = {two_way}"));
    let mut duplex = Duplex::new(&job);
    duplex.engine();
    let begun = Instant::now();
    for prefix in ["renewed", "counted", "kept", "gone", "renamed"] {
        each(&a, &format!("SET {prefix}:$i 41 PX {}", LIFE.as_millis()));
    }
    duplex.start_job();
    each(&a, "PEXPIRE renewed:$i 3600000");
    each(&a, "INCR counted:$i");
    each(&a, "PEXPIRE counted:$i 3600000");
    each(&a, "PERSIST kept:$i");
    each(&a, "RENAME renamed:$i name:$i");
    each(&a, "PEXPIRE name:$i 3600000");
    each(&a, "RENAME moved:$i to:$i");
    if copies {
        each(&a, "COPY later:$i copy:$i");
    }
    let renewed = a.client().run("EXISTS renewed:0 counted:299 kept:0 name:299").int();
    assert_eq!(renewed, 4, "too slow a machine for this test: {:?}", begun.elapsed());
    // In the stream alone: counters with a window that slides, as rate limits are kept.
    each(&a, "SET window:$i 1 PX 1500");
    while begun.elapsed() < HELD_UP {
        each(&a, "INCR window:$i");
        each(&a, "PEXPIRE window:$i 1500");
        thread::sleep(Duration::from_millis(50));
    }
    each(&a, "PEXPIRE window:$i 3600000");
    until(begun + HELD_UP);
    assert_eq!(duplex.status().state(), "initializing", "the copy runs still");
    duplex.run(&["limit", &duplex.name, "--ops", "0"]).code(0);
    duplex.wait_state("synchronizing", secs(60));
    let mut lasting = names(&["renewed", "counted", "kept", "name", "later", "to", "month", "window"]);
    if copies {
        lasting.extend(names(&["copy"]));
    }
    // As soon as it says that it is in step.
    assert_same_expiries(&a, &b, &lasting);
    let equal = assert_equal_within(&a, &b, secs(20));
    assert_eq!(equal.len(), 40_000 + lasting.len(), "{}, two-way {two_way}", a.name);
    let mut c = b.client();
    for i in 0..KEYS {
        assert_eq!(c.run(&format!("GET counted:{i}")).text(), "42");
        assert_eq!(c.run(&format!("EXISTS gone:{i}")).int(), 0, "an expired key came back");
    }
    assert!(c.run("GET window:0").int() > 3, "the window slid");
}

#[test]
fn keys_renewed_while_the_copy_runs_are_kept_on_the_oldest() {
    while_loading(Slot::Oldest, true);
    while_loading(Slot::Oldest, false);
}

#[test]
fn keys_renewed_while_the_copy_runs_are_kept_on_the_usual() {
    while_loading(Slot::Usual, true);
    while_loading(Slot::Usual, false);
}

#[test]
fn keys_renewed_while_the_copy_runs_are_kept_on_the_newest_redis() {
    while_loading(Slot::NewestRedis, true);
    while_loading(Slot::NewestRedis, false);
}

#[test]
fn keys_renewed_while_the_copy_runs_are_kept_on_the_newest_valkey() {
    while_loading(Slot::NewestValkey, true);
    while_loading(Slot::NewestValkey, false);
}

/// Values that go in parts, and those that an older target takes as commands.
fn values_of_all_sizes(from: Slot, to: Slot) {
    let (a, b) = (Server::start(from.server(), &[]), Server::start(to.server(), &[]));
    fill(&a, 8_000, false);
    let mut c = a.client();
    for i in 0..3 {
        for chunk in 0..20 {
            let mut line = format!("HSET big:{i}");
            (0..500).for_each(|n| line += &format!(" field:{chunk}:{n} {:064}", n));
            c.run(&line);
        }
        c.run(&format!("ZADD sorted:{i} 1 a 2 b 3 c"));
        c.run(&format!("RPUSH list:{i} a b c"));
        c.run(&format!("SET long:{i} {}", "x".repeat(700_000)));
    }
    let keys: Vec<String> =
        ["big", "sorted", "list", "long"].iter().flat_map(|p| (0..3).map(move |i| format!("{p}:{i}"))).collect();
    let job = JobSpec::between(a.addr(), b.addr()).limits("max_ops_per_second = 1000").policy("two_way = false");
    let mut duplex = Duplex::new(&job);
    duplex.engine();
    let begun = Instant::now();
    for key in &keys {
        assert_eq!(c.run(&format!("PEXPIRE {key} {}", LIFE.as_millis())).int(), 1);
    }
    duplex.start_job();
    for i in 0..3 {
        c.run(&format!("HSET big:{i} one more"));
        c.run(&format!("ZINCRBY sorted:{i} 1 a"));
        c.run(&format!("RPUSH list:{i} d"));
        c.run(&format!("APPEND long:{i} y"));
    }
    for key in &keys {
        assert_eq!(c.run(&format!("PEXPIRE {key} 3600000")).int(), 1, "too slow a machine: {:?}", begun.elapsed());
    }
    until(begun + HELD_UP);
    duplex.run(&["limit", &duplex.name, "--ops", "0"]).code(0);
    duplex.wait_state("synchronizing", secs(60));
    assert_same_expiries(&a, &b, &keys);
    assert_equal_within(&a, &b, secs(20));
}

#[test]
fn values_of_all_sizes_outlive_the_copy() {
    values_of_all_sizes(Slot::Usual, Slot::Usual);
}

#[test]
fn values_that_go_as_commands_outlive_the_copy() {
    values_of_all_sizes(Slot::NewestRedis, Slot::Oldest);
}

/// Writes of the target's clients to keys that live shorter than the copy runs.
#[test]
fn writes_of_the_target_meanwhile_are_settled() {
    for slot in [Slot::Oldest, Slot::NewestValkey] {
        let (a, b) = (Server::start(slot.server(), &[]), Server::start(slot.server(), &[]));
        fill(&a, 40_000, false);
        let mut duplex = Duplex::new(&JobSpec::between(a.addr(), b.addr()).limits("max_ops_per_second = 1000"));
        duplex.engine();
        for prefix in ["both", "here", "there"] {
            each(&a, &format!("SET {prefix}:$i 10 PX {}", LIFE.as_millis()));
        }
        let begun = Instant::now();
        duplex.start_job();
        each(&a, "INCR both:$i");
        each(&b, "SET both:$i 20 PX 1800000");
        each(&a, "PEXPIRE both:$i 3600000");
        each(&b, "SET here:$i 30");
        each(&a, "INCR there:$i");
        each(&a, "PEXPIRE there:$i 3600000");
        each(&b, "INCR there:$i");
        until(begun + HELD_UP);
        duplex.run(&["limit", &duplex.name, "--ops", "0"]).code(0);
        duplex.wait_state("synchronizing", secs(60));
        duplex.wait_applied(&a, &b, secs(20));
        let equal = assert_equal_within(&a, &b, secs(20));
        assert!(equal.len() as u64 >= 40_000 + 2 * KEYS, "{} keys", equal.len());
        assert_same_expiries(&a, &b, &names(&["both", "here", "there"]));
    }
}

/// An engine that dies before the true times are set leaves none behind that is put off.
#[test]
fn a_crash_before_the_copy_is_caught_up_with_leaves_no_key_for_ever() {
    let (a, b) = (Server::start(Slot::Usual.server(), &[]), Server::start(Slot::Usual.server(), &[]));
    fill(&a, 2_000, false);
    each(&a, "SET hour:$i v PX 3600000");
    let job = JobSpec::between(a.addr(), b.addr()).limits("max_ops_per_second = 1000").policy("two_way = false");
    let mut duplex = Duplex::new(&job);
    duplex.engine();
    each(&a, "SET short:$i v PX 5000");
    let begun = Instant::now();
    duplex.start_job();
    for round in 0..20 {
        each(&a, &format!("SET more:{round}:$i v PX 3600000"));
    }
    duplex.wait_state("catching_up", secs(60));
    duplex.crash();
    // Those that the first copy has brought expire at the source while nobody looks.
    until(begun + Duration::from_millis(5_500));
    assert_eq!(a.client().run("EXISTS short:0 short:1 short:299").int(), 0);
    duplex.revive();
    duplex.run(&["limit", &duplex.name, "--ops", "0"]).code(0);
    duplex.wait_state("synchronizing", secs(60));
    let mut keys = names(&["hour", "short"]);
    (0..20).for_each(|round| keys.extend(names(&[&format!("more:{round}")])));
    assert_same_expiries(&a, &b, &keys);
    assert_equal_within(&a, &b, secs(20));
}

/// So many keys that their names are not kept: all keys are looked at.
#[test]
fn many_keys_that_expire_have_their_true_times() {
    let (a, b) = (Server::start(Slot::Usual.server(), &[]), Server::start(Slot::Usual.server(), &[]));
    let mut c = a.client();
    for chunk in 0..100 {
        let commands: Vec<Argv> =
            (0..1_200).map(|i| words(&format!("SET session:{chunk}:{i} v PX {}", 600_000 + i))).collect();
        c.pipeline(&commands);
    }
    let mut duplex = Duplex::new(&JobSpec::between(a.addr(), b.addr()));
    duplex.start();
    duplex.wait_state("synchronizing", secs(60));
    let keys: Vec<String> =
        (0..100).flat_map(|chunk| (0..1_200).map(move |i| format!("session:{chunk}:{i}"))).collect();
    for keys in keys.chunks(10_000) {
        assert_same_expiries(&a, &b, keys);
    }
}

/// What keeps changes from their target for longer than keys live.
#[derive(Debug, Clone, Copy)]
enum HeldUp {
    Target,
    Engine,
    Stream,
    Line,
}

/// A one-way job that lags by more than its keys have to live. All are renewed before they run out at the source, and have
/// run out at the target when that comes.
fn renewed_while_the_link_lags(slot: Slot, by: HeldUp) {
    // Few, so that each is renewed in time on a busy machine too.
    const SOME: u64 = 50;
    let each = |server: &Server, line: &str| each_of(server, line, SOME);
    let (a, b) = (Server::start(slot.server(), &[]), Server::start(slot.server(), &[]));
    let line = Proxy::to(a.port);
    let job = JobSpec::between(line.addr(), b.addr()).policy("two_way = false");
    let mut duplex = Duplex::synced(&job);
    let kinds = ["counted", "first", "renewed", "kept", "set", "gone", "window", "left"];
    for kind in kinds {
        each(&a, &format!("SET {kind}:$i 41 PX 2500"));
    }
    each(&a, "HSET hash:$i one 1");
    each(&a, "PEXPIRE hash:$i 2500");
    let begun = Instant::now();
    // Here as well as there, before anything is held up.
    duplex.wait_applied(&a, &b, secs(1));
    match by {
        HeldUp::Target => b.freeze(),
        HeldUp::Engine => duplex.crash(),
        HeldUp::Stream => line.stall_streams(true),
        HeldUp::Line => line.stall(true),
    }
    each(&a, "INCR counted:$i");
    each(&a, "PEXPIRE counted:$i 3600000");
    each(&a, "PEXPIRE first:$i 3600000");
    each(&a, "INCR first:$i");
    each(&a, "PEXPIRE renewed:$i 3600000");
    each(&a, "APPEND kept:$i 00");
    each(&a, "PERSIST kept:$i");
    each(&a, "SET set:$i 42 XX PX 3600000");
    each(&a, "HSET hash:$i two 2");
    each(&a, "PEXPIRE hash:$i 3600000");
    each(&a, "INCR gone:$i");
    let renewed = a.client().run("EXISTS counted:49 first:0 kept:49 set:49 hash:49 gone:49").int();
    assert_eq!(renewed, 6, "too slow a machine for this test: {:?}", begun.elapsed());
    while begun.elapsed() < Duration::from_millis(4_000) {
        each(&a, "INCR window:$i");
        each(&a, "PEXPIRE window:$i 2500");
        thread::sleep(Duration::from_millis(50));
    }
    each(&a, "PEXPIRE window:$i 3600000");
    assert!(a.client().run("GET window:49").int() > 43, "too slow a machine for this test");
    until(begun + Duration::from_millis(5_000));
    match by {
        HeldUp::Target => b.thaw(),
        HeldUp::Engine => duplex.revive(),
        HeldUp::Stream => line.stall_streams(false),
        HeldUp::Line => line.stall(false),
    }
    duplex.wait_applied(&a, &b, secs(20));
    let equal = assert_equal_within(&a, &b, secs(20));
    let lasting = ["counted", "first", "renewed", "kept", "set", "hash", "window"];
    let lasting: Vec<String> = lasting.iter().flat_map(|kind| (0..SOME).map(move |i| format!("{kind}:{i}"))).collect();
    assert_eq!(equal.len(), lasting.len(), "{} held up by {by:?}", a.name);
    assert_same_expiries(&a, &b, &lasting);
    let mut c = b.client();
    for i in 0..SOME {
        for key in ["counted", "first", "set"] {
            assert_eq!(c.run(&format!("GET {key}:{i}")).text(), "42");
        }
        assert_eq!(c.run(&format!("EXISTS gone:{i} left:{i}")).int(), 0, "an expired key came back");
    }
}

#[test]
fn keys_renewed_while_a_one_way_link_lags_are_kept() {
    let each = [HeldUp::Target, HeldUp::Engine, HeldUp::Stream, HeldUp::Line];
    let all: Vec<(Slot, HeldUp)> = sized(
        Slot::ALL.into_iter().zip(each).collect(),
        Slot::ALL.into_iter().flat_map(|slot| each.map(|by| (slot, by))).collect(),
    );
    for some in all.chunks(4) {
        thread::scope(|scope| {
            for (slot, by) in some.iter().copied() {
                scope.spawn(move || renewed_while_the_link_lags(slot, by));
            }
        });
    }
}
