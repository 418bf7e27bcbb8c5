//! The README's table of what happens when both sides change one key at the same time, row by row: what is settled in the
//! order of time, what a deletion may take, what goes as one, and what is not promised. The rows run on every kind of
//! server; what is beside them on the usual one, and in a soak on each.

use super::apart_on;
use crate::support::{load::sized, resp::Client, versions::Slot, wait::until, *};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Two changes to the keys that begin with `$`, and what the two orders of time come to.
struct Row {
    name: &'static str,
    /// At both sides before.
    before: &'static [&'static str],
    /// Each a command, or several.
    x: &'static [&'static str],
    y: &'static [&'static str],
    /// Reads all that counts.
    read: &'static [&'static str],
    x_then_y: &'static [&'static str],
    y_then_x: &'static [&'static str],
}

/// What the sides end with does not depend on the order.
const fn either(
    name: &'static str,
    before: &'static [&'static str],
    x: &'static [&'static str],
    y: &'static [&'static str],
    read: &'static [&'static str],
    end: &'static [&'static str],
) -> Row {
    Row { name, before, x, y, read, x_then_y: end, y_then_x: end }
}

/// It does: X before Y comes to the first of `ends`, Y before X to the second.
const fn in_time(
    name: &'static str,
    before: &'static [&'static str],
    x: &'static [&'static str],
    y: &'static [&'static str],
    read: &'static [&'static str],
    ends: [&'static [&'static str]; 2],
) -> Row {
    Row { name, before, x, y, read, x_then_y: ends[0], y_then_x: ends[1] }
}

const ROWS: &[Row] = &[
    either("counters", &["SET $ 5"], &["INCR $"], &["DECRBY $ 3"], &["GET $"], &["3"]),
    in_time(
        "INCRBYFLOAT: the later result, not the sum",
        &["SET $ 10"],
        &["INCRBYFLOAT $ 1"],
        &["INCRBYFLOAT $ 2.5"],
        &["GET $"],
        [&["12.5"], &["11"]],
    ),
    in_time(
        "HINCRBYFLOAT: the later result, not the sum",
        &["HSET $ f 10 g 1"],
        &["HINCRBYFLOAT $ f 1"],
        &["HINCRBYFLOAT $ f 2.5"],
        &["HGET $ f"],
        [&["12.5"], &["11"]],
    ),
    either("sets: both add", &["SADD $ a"], &["SADD $ b"], &["SADD $ c"], &["SMEMBERS $"], &["a b c"]),
    either("sets: both remove", &["SADD $ a b c"], &["SREM $ b"], &["SREM $ c"], &["SMEMBERS $"], &["a"]),
    Row {
        name: "sets: one adds, one removes",
        before: &["SADD $ a"],
        x: &["SADD $ m"],
        y: &["SREM $ m"],
        read: &["SMEMBERS $"],
        // At the other side the member is not there: the command does nothing, and a server tells of no such command.
        x_then_y: &["a m"],
        y_then_x: &["a m"],
    },
    in_time(
        "sets: one removes a member that the other adds again",
        &["SADD $ a m"],
        &["SREM $ m"],
        &["SREM $ m", "SADD $ m"],
        &["SMEMBERS $"],
        [&["a m"], &["a"]],
    ),
    either("hashes: different fields", &["HSET $ a 1"], &["HSET $ b 2"], &["HINCRBY $ c 3"], &["HLEN $"], &["3"]),
    either("hashes: the same counter", &["HSET $ a 1"], &["HINCRBY $ a 2"], &["HINCRBY $ a 3"], &["HGET $ a"], &["6"]),
    in_time(
        "hashes: the same field",
        &["HSET $ f 1"],
        &["HSET $ f x"],
        &["HSET $ f y"],
        &["HGET $ f"],
        [&["y"], &["x"]],
    ),
    in_time(
        "hashes: HSET with HDEL",
        &["HSET $ f 1 g 1"],
        &["HSET $ f x"],
        &["HDEL $ f"],
        &["HGET $ f"],
        [&[""], &["x"]],
    ),
    either("sorted sets: others", &["ZADD $ 1 a"], &["ZADD $ 2 b"], &["ZINCRBY $ 3 c"], &["ZRANGE $ 0 -1"], &["a b c"]),
    either(
        "sorted sets: both remove",
        &["ZADD $ 1 a 2 b 3 c"],
        &["ZREM $ a"],
        &["ZREM $ b"],
        &["ZRANGE $ 0 -1"],
        &["c"],
    ),
    in_time(
        "sorted sets: the same member",
        &["ZADD $ 1 m"],
        &["ZADD $ 2 m"],
        &["ZADD $ 3 m"],
        &["ZSCORE $ m"],
        [&["3"], &["2"]],
    ),
    in_time(
        "sorted sets: ZADD with ZREM",
        &["ZADD $ 1 m 1 a"],
        &["ZADD $ 2 m"],
        &["ZREM $ m"],
        &["ZSCORE $ m"],
        [&[""], &["2"]],
    ),
    either("bits", &["SETBIT $ 9 0"], &["SETBIT $ 1 1"], &["SETBIT $ 5 1"], &["BITCOUNT $"], &["2"]),
    either("HyperLogLog", &["PFADD $ a"], &["PFADD $ b"], &["PFADD $ c"], &["PFCOUNT $"], &["3"]),
    in_time("SET with SET", &["SET $ old"], &["SET $ x"], &["SET $ y"], &["GET $"], [&["y"], &["x"]]),
    in_time(
        "lists: pushes at both sides",
        &["RPUSH $ a"],
        &["RPUSH $ x"],
        &["RPUSH $ y"],
        &["LRANGE $ 0 -1"],
        [&["a x y"], &["a y x"]],
    ),
    // Each takes the first, and both are done at either side: the second is gone without anybody having seen it.
    either("lists: pops at both sides", &["RPUSH $ 1 2 3"], &["LPOP $"], &["LPOP $"], &["LRANGE $ 0 -1"], &["3"]),
    either(
        "streams: XADD at both sides, the later's ID is the higher",
        &["XADD $ 1-1 f v"],
        &["XADD $ * f x"],
        &["XADD $ * f y"],
        &["XLEN $"],
        &["3"],
    ),
    Row {
        name: "streams: the later's ID is the lower",
        before: &["XADD $ 1-1 f v"],
        x: &["XADD $ 9-1 f x"],
        y: &["XADD $ 5-1 f y"],
        read: &["XLEN $"],
        // Where the higher one is, there is no place for the lower.
        x_then_y: &["2"],
        y_then_x: &["3"],
    },
    either("DEL with SET", &["SET $ old"], &["DEL $"], &["SET $ new"], &["GET $"], &["new"]),
    either("DEL with a new field", &["HSET $ a 1"], &["DEL $"], &["HSET $ b 2"], &["HGET $ b"], &["2"]),
    either("DEL with DEL", &["SET $ old"], &["DEL $"], &["DEL $"], &["EXISTS $"], &["0"]),
    Row {
        name: "different types: in that order the second can't be done",
        before: &[],
        x: &["SET $ x"],
        y: &["RPUSH $ y"],
        read: &["TYPE $"],
        x_then_y: &["string"],
        // SET writes over whatever there is.
        y_then_x: &["string"],
    },
    in_time(
        "MSET: each key for itself",
        &["MSET {$}a 0 {$}b 0"],
        &["MSET {$}a x {$}b x"],
        &["SET {$}b y"],
        &["GET {$}a", "GET {$}b"],
        [&["x", "y"], &["x", "x"]],
    ),
    either(
        "DEL of several keys: each for itself",
        &["MSET {$}a 0 {$}b 0"],
        &["DEL {$}a {$}b"],
        &["SET {$}b y"],
        &["EXISTS {$}a", "GET {$}b"],
        &["0", "y"],
    ),
    either(
        "RENAME with SET of its source: what its own side made of it",
        &["SET {$}a old"],
        &["RENAME {$}a {$}b"],
        &["SET {$}a new"],
        &["GET {$}a", "GET {$}b"],
        &["new", "old"],
    ),
    either(
        "LMOVE with a push: what its own side made of it",
        &["RPUSH {$}a 1 2"],
        &["RPOPLPUSH {$}a {$}b"],
        &["RPUSH {$}a 3"],
        &["LRANGE {$}a 0 -1", "LRANGE {$}b 0 -1"],
        &["1 3", "2"],
    ),
    either(
        "SUNIONSTORE with SADD to one of its sets: the result as its own side made it",
        &["SADD {$}a 1", "SADD {$}b 2"],
        &["SUNIONSTORE {$}d {$}a {$}b"],
        &["SADD {$}a 3"],
        &["SMEMBERS {$}d", "SMEMBERS {$}a"],
        &["1 2", "1 3"],
    ),
    in_time(
        "MULTI: a conflict on one key does not cost another",
        &["MSET {$}n 1 {$}k old"],
        &["MULTI", "INCR {$}n", "SET {$}k x", "EXEC"],
        &["MULTI", "INCRBY {$}n 10", "SET {$}k y", "EXEC"],
        &["GET {$}n", "GET {$}k"],
        [&["12", "y"], &["12", "x"]],
    ),
    in_time(
        "a script: the same",
        &["MSET {$}n 1 {$}k old"],
        &["EVAL \"redis.call('INCR', KEYS[1]) redis.call('SET', KEYS[2], 'x')\" 2 {$}n {$}k"],
        &["EVAL \"redis.call('INCR', KEYS[1]) redis.call('SET', KEYS[2], 'y')\" 2 {$}n {$}k"],
        &["GET {$}n", "GET {$}k"],
        [&["3", "y"], &["3", "x"]],
    ),
    in_time(
        "expiry times: the later",
        &["SET $ v"],
        &["PEXPIREAT $ 4000000000000"],
        &["PEXPIREAT $ 5000000000000"],
        &["TTL $"],
        [&["5000000000"], &["4000000000"]],
    ),
    in_time(
        "expiry with a write that clears it",
        &["SET $ v"],
        &["PEXPIREAT $ 4000000000000"],
        &["SET $ w"],
        &["TTL $"],
        [&["-1"], &["4000000000"]],
    ),
];

fn run(client: &mut Client, lines: &[&str], key: &str) {
    for line in lines {
        let reply = client.run(&line.replace('$', key));
        assert!(!reply.is_error(), "{line}: {reply:?}");
    }
}

/// What a read gives, in a line; sets in order, times as the second they name.
fn said(client: &mut Client, line: &str, key: &str) -> String {
    let reply = client.run(&line.replace('$', key));
    match &reply {
        Reply::Array(all) => {
            let mut all: Vec<String> = all.iter().map(Reply::text).collect();
            if line.starts_with("SMEMBERS") {
                all.sort();
            }
            all.join(" ")
        }
        Reply::Int(left @ 1..) if line.starts_with("TTL") => {
            let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs_f64();
            (((*left as f64 + now) / 1e6).round() * 1e6).to_string()
        }
        reply => reply.text(),
    }
}

/// The usual server; in a soak each kind.
fn servers() -> impl Iterator<Item = &'static str> {
    let all: &[Slot] = sized(&[Slot::Usual], &Slot::ALL);
    all.iter().map(|slot| slot.server()).inspect(|server| eprintln!("on {server}"))
}

#[test]
fn each_row_of_the_table_is_so_on_the_oldest() {
    each_row(Slot::Oldest, sized(1, 10));
}

#[test]
fn each_row_of_the_table_is_so_on_the_usual() {
    each_row(Slot::Usual, sized(2, 10));
}

#[test]
fn each_row_of_the_table_is_so_on_the_newest_redis() {
    each_row(Slot::NewestRedis, sized(1, 10));
}

#[test]
fn each_row_of_the_table_is_so_on_the_newest_valkey() {
    each_row(Slot::NewestValkey, sized(1, 10));
}

/// Each row in each order of time, begun at either side, so many times.
fn each_row(slot: Slot, times: usize) {
    // What was done at one side is seen at the other after two of these at the earliest.
    const DELAY: Duration = Duration::from_millis(40);
    let (a, b, _proxies, duplex) = apart_on(slot.server(), DELAY);
    let (mut at_a, mut at_b) = (a.client(), b.client());
    // The engine learns each site's round trip before it judges times.
    for i in 0..20 {
        at_a.run(&format!("SET warm-a:{i} v"));
        at_b.run(&format!("SET warm-b:{i} v"));
    }
    let mut pairs = Vec::new();
    for time in 0..times {
        for (n, row) in ROWS.iter().enumerate() {
            for x_first in [true, false] {
                for first_at_a in [true, false] {
                    let key = format!("k:{n}:{time}:{x_first}:{first_at_a}");
                    run(&mut at_a, row.before, &key);
                    pairs.push((row, key, x_first, first_at_a));
                }
            }
        }
    }
    assert_equal_within(&a, &b, secs(20));
    // Where a thread is held up, the second may have seen the first: that is no pair of concurrent changes.
    let written = pairs.len();
    pairs.retain(|(row, key, x_first, first_at_a)| {
        let (first, second) = if *first_at_a { (&mut at_a, &mut at_b) } else { (&mut at_b, &mut at_a) };
        let (earlier, later) = if *x_first { (row.x, row.y) } else { (row.y, row.x) };
        let began = Instant::now();
        run(first, earlier, key);
        until(began + Duration::from_millis(20));
        run(second, later, key);
        began.elapsed() < 2 * DELAY
    });
    assert!(pairs.len() * 2 > written, "only {} of {written} pairs were concurrent", pairs.len());
    assert_equal_within(&a, &b, secs(20));
    let (mut out_of_time, mut wrong) = (Vec::new(), Vec::new());
    for (row, key, x_first, _) in &pairs {
        let found: Vec<String> = row.read.iter().map(|line| said(&mut at_b, line, key)).collect();
        let (wanted, other) = if *x_first { (row.x_then_y, row.y_then_x) } else { (row.y_then_x, row.x_then_y) };
        if found == wanted {
            continue;
        }
        if found == other {
            out_of_time.push(key.clone());
        } else {
            wrong.push(format!("{} ({key}): {found:?}, not {wanted:?}", row.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), pairs.len(), wrong.join("\n"));
    // A thread that is held up for 20 ms has written at another time than it was to.
    assert!(out_of_time.len() * 50 <= pairs.len(), "against the order of time: {out_of_time:?}");
    let settled = duplex.status().total("conflicts_settled");
    assert!(
        settled as usize > pairs.len() / 3,
        "only {settled} conflicts in {} pairs: they prove nothing",
        pairs.len()
    );
}

/// What a reader may see while a key is settled: the earlier change after the later one, and then the later for good.
#[test]
fn a_reader_may_see_an_earlier_value_while_a_key_is_settled() {
    servers().for_each(reader_on);
}

fn reader_on(server: &str) {
    let (a, b, _proxies, _duplex) = apart_on(server, Duration::from_millis(30));
    let (mut at_a, mut at_b) = (a.client(), b.client());
    at_a.run("SET warm v");
    assert_equal_within(&a, &b, secs(10));
    at_a.run("SET k earlier");
    thread::sleep(Duration::from_millis(10));
    at_b.run("SET k later");
    let mut seen: Vec<String> = Vec::new();
    let ends = Instant::now() + secs(10);
    // Until it has been both.
    while Instant::now() < ends && !(seen.len() >= 3 && seen.last().is_some_and(|v| v == "later")) {
        let value = at_b.run("GET k").text();
        if seen.last() != Some(&value) {
            seen.push(value);
        }
    }
    assert_eq!(seen, ["later", "earlier", "later"]);
    assert_equal_within(&a, &b, secs(10));
    assert_eq!(at_a.run("GET k").text(), "later");
}

/// A client's transaction: nobody at the other side sees half of it while none of its keys is in conflict.
#[test]
fn a_transaction_without_conflict_is_seen_whole() {
    servers().for_each(transaction_on);
}

fn transaction_on(server: &str) {
    let (a, b, _proxies, _duplex) = apart_on(server, Duration::from_millis(2));
    let stop = AtomicBool::new(false);
    let looks = thread::scope(|s| {
        let reader = s.spawn(|| {
            let (mut c, mut looks) = (b.client(), 0);
            while !stop.load(Ordering::SeqCst) {
                for line in ["MULTI", "GET one", "GET two"] {
                    c.run(line);
                }
                let both: Vec<String> = c.run("EXEC").items().iter().map(Reply::text).collect();
                assert_eq!(both[0], both[1], "half of a transaction was seen");
                looks += 1;
            }
            looks
        });
        let mut c = a.client();
        for i in 0..sized(1_000, 20_000) {
            run(&mut c, &["MULTI", &format!("SET one {i}"), &format!("SET two {i}"), "EXEC"], "");
        }
        assert_equal_within(&a, &b, secs(20));
        stop.store(true, Ordering::SeqCst);
        reader.join().expect("no half is seen")
    });
    assert!(looks > 10, "only {looks} looks: they prove nothing");
}

/// A key that runs out at one side while the other gives it more time stays, also where nothing else is written to it.
#[test]
fn a_key_that_is_given_more_time_as_it_runs_out_stays() {
    servers().for_each(more_time_on);
}

fn more_time_on(server: &str) {
    let (a, b, _proxies, _duplex) = apart_on(server, Duration::from_millis(60));
    let (mut at_a, mut at_b) = (a.client(), b.client());
    let began = Instant::now();
    // At the earliest.
    let ends = |i: u64| began + Duration::from_millis(1_200 + 10 * i);
    for i in 0..50 {
        let left = ends(i).saturating_duration_since(Instant::now()).as_millis();
        at_a.run(&format!("SET k:{i} v PX {}", left + 1));
    }
    assert_equal_within(&a, &b, Duration::from_millis(1_000));
    // So late that it can't be at the other side in time, and so early that it is read before the deletion there, which would
    // be on its way otherwise. On a busy machine it may come too late for that.
    let mut in_time = Vec::new();
    for i in 0..50 {
        until(ends(i) - Duration::from_millis(50));
        let writer = if i % 2 == 0 { &mut at_a } else { &mut at_b };
        let line = if i % 4 < 2 { format!("PERSIST k:{i}") } else { format!("PEXPIRE k:{i} 1000000") };
        if writer.run(&line).int() == 1 && Instant::now() < ends(i) - Duration::from_millis(25) {
            in_time.push(i);
        }
    }
    assert_equal_within(&a, &b, secs(20));
    let lost: Vec<_> = in_time.iter().filter(|i| at_a.run(&format!("EXISTS k:{i}")).int() == 0).collect();
    assert!(lost.is_empty(), "lost of those that were in time: {lost:?}");
    assert!(in_time.len() >= 5, "only {} of 50 were in time: they prove nothing", in_time.len());
}

/// Consumers that wait at the sides of `takers` while producers push at those of `pushers`: what was taken, in order of
/// the element's number, and what is left in the end.
fn queue(server: &str, takers: &[usize], pushers: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let (a, b, _proxies, _duplex) = apart_on(server, Duration::from_millis(5));
    let sides = [&a, &b];
    let mut taken: Vec<usize> = thread::scope(|s| {
        let takers: Vec<_> = takers
            .iter()
            .map(|side| {
                s.spawn(|| {
                    let (mut c, mut got) = (sides[*side].client(), Vec::new());
                    while let Reply::Array(pair) = c.run("BLPOP queue 3") {
                        got.push(pair[1].text().parse().expect("a number"));
                    }
                    got
                })
            })
            .collect();
        let mut clients = sides.map(Server::client);
        for i in 0..PUSHED {
            clients[pushers[i % pushers.len()]].run(&format!("RPUSH queue {i}"));
            thread::sleep(Duration::from_millis(2));
        }
        takers.into_iter().flat_map(|t| t.join().expect("a taker")).collect()
    });
    taken.sort_unstable();
    // What nobody takes any more stays equal.
    assert_equal_within(&a, &b, secs(20));
    let left = a.client().run("LRANGE queue 0 -1").items().iter().map(|e| e.int() as usize).collect();
    (taken, left)
}

const PUSHED: usize = 200;

#[test]
fn a_queue_that_is_used_at_one_side_is_exact() {
    for server in servers() {
        for side in [0, 1] {
            let (taken, left) = queue(server, &[side], &[side]);
            assert_eq!((taken, left), ((0..PUSHED).collect(), vec![]), "{server}, at side {side}");
        }
    }
}

/// Not promised, and said so: an element may be taken twice, and another by nobody. The sides end equal all the same.
#[test]
fn a_queue_that_is_used_at_both_sides_ends_equal() {
    for server in servers() {
        for (takers, pushers) in [(&[0, 1][..], &[0, 1][..]), (&[0], &[1])] {
            let (taken, left) = queue(server, takers, pushers);
            let mut once = taken.clone();
            once.dedup();
            eprintln!("{} takings of {} of {PUSHED}, {} left", taken.len(), once.len(), left.len());
            assert!(!taken.is_empty());
        }
    }
}
