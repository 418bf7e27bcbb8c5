//! Big values: copied and streamed in bounded memory of the engine, and with no call at the target that holds it up.

mod support;

use std::thread;
use support::{
    load::sized,
    resp::Argv,
    versions::{Slot, speaks},
    *,
};

/// The bound of the engine's memory, in bytes.
const BOUND: u64 = 128 << 20;
/// No call at the target may take longer, in microseconds.
const CALL: u64 = 50_000;

/// The most memory that a process has held, in bytes.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("kilobytes") * 1024
}

/// Has a server note each call that takes longer than [`CALL`].
fn watch_calls(server: &Server) {
    let mut c = server.client();
    c.run(&format!("CONFIG SET slowlog-log-slower-than {CALL}"));
    c.run("CONFIG SET slowlog-max-len 1000");
    c.run("SLOWLOG RESET");
}

/// The engine's calls that took too long, with their microseconds and first words; none where one or two did. That may be the machine's
/// doing: it has other things to do than to run this server, and the server's clock goes on meanwhile.
fn calls_too_long(server: &Server) -> Vec<(i64, String)> {
    let log = server.client().run("SLOWLOG GET 1000");
    let calls: Vec<(i64, String)> = log
        .items()
        .iter()
        .map(|e| {
            (e.items()[2].int(), e.items()[3].items().iter().take(3).map(Reply::text).collect::<Vec<_>>().join(" "))
        })
        // What the server and the test do by themselves. One kind of call is as long as its value is big, by the server's
        // making: DUMP of the authority in a conflict.
        .filter(|(us, name)| match name.split(' ').next().unwrap_or_default() {
            "CONFIG" | "PSYNC" | "psync" | "DEBUG" => false,
            "DUMP" => *us > 20 * CALL as i64,
            _ => true,
        })
        .collect();
    eprintln!("{}: calls over {} ms: {calls:?}", server.name, CALL / 1_000);
    if calls.len() <= 2 { Vec::new() } else { calls }
}

/// Runs it until it gives no call that took too long, three times at most: a call that always takes long does so in each
/// run, and what a busy machine does is in some.
#[track_caller]
fn assert_calls_are_short(mut run: impl FnMut() -> Vec<(i64, String)>) {
    let runs: Vec<_> = (0..3).map(|_| run()).take_while(|calls| !calls.is_empty()).collect();
    assert!(runs.len() < 3, "{runs:?}");
}

/// Fills a collection in pipelines of 100 commands with 1,000 elements each.
fn fill(server: &Server, key: &str, command: &str, n: u64) {
    let mut c = server.client();
    for chunk in 0..n.div_ceil(100_000) {
        let begin = chunk * 100_000;
        let commands: Vec<Argv> = (begin..n.min(begin + 100_000))
            .step_by(1_000)
            .map(|from| {
                let mut argv = vec![command.as_bytes().to_vec(), key.as_bytes().to_vec()];
                for i in from..(from + 1_000).min(n) {
                    match command {
                        "HSET" => argv.extend([format!("field:{i}"), format!("value:{i}")].map(String::into_bytes)),
                        "ZADD" => argv.extend([i.to_string(), format!("member:{i}")].map(String::into_bytes)),
                        _ => argv.push(format!("element:{i}").into_bytes()),
                    }
                }
                argv
            })
            .collect();
        for reply in c.pipeline(&commands) {
            assert!(!reply.is_error(), "{reply:?}");
        }
    }
}

/// A digest of a big value that costs no memory to compare: DEBUG DIGEST-VALUE is made of the elements.
fn digest(server: &Server, key: &str) -> String {
    let mut c = server.client();
    let reply = c.run(&format!("DEBUG DIGEST-VALUE {key}"));
    format!("{} {reply:?}", c.run(&format!("TYPE {key}")).text())
}

#[track_caller]
fn assert_same(a: &Server, b: &Server, keys: &[&str]) {
    for key in keys {
        wait_for(&format!("{key} is equal"), secs(60), || match (digest(a, key), digest(b, key)) {
            (x, y) if x == y => Ok(()),
            (x, y) => Err(format!("{x} | {y}")),
        });
    }
}

fn big_snapshot(slot: Slot, members: u64, string: usize) {
    assert_calls_are_short(|| one_big_snapshot(slot, members, string));
}

fn one_big_snapshot(slot: Slot, members: u64, string: usize) -> Vec<(i64, String)> {
    let options = ["--proto-max-bulk-len", "1gb"];
    let options: &[&str] = if speaks(slot.server()) >= (6, 0) { &options } else { &[] };
    let (a, b) = (Server::start(slot.server(), options), Server::start(slot.server(), options));
    fill(&a, "hash", "HSET", members);
    fill(&a, "set", "SADD", members / 4);
    fill(&a, "zset", "ZADD", members / 4);
    fill(&a, "list", "RPUSH", members / 2);
    let mut c = a.client();
    // One that compresses to next to nothing, and one that doesn't.
    c.run(&format!("SETRANGE zeroes {string} x"));
    let mut rng = fastrand::Rng::with_seed(1);
    let block: Vec<u8> = (0..1 << 20).map(|_| rng.u8(..)).collect();
    for _ in 0..(string >> 20).max(1) {
        c.call(&[b"APPEND".to_vec(), b"noise".to_vec(), block.clone()]);
    }
    c.run("PEXPIREAT hash 4102444800000");
    // The target holds something else under one of the names.
    fill(&b, "hash", "SADD", members / 4);
    watch_calls(&b);
    let job = JobSpec::between(a.addr(), b.addr()).policy("existing_keys = \"ignore\"");
    let mut duplex = Duplex::new(&job);
    duplex.start();
    duplex.wait_state("synchronizing", secs(sized(240, 1_200)));
    let status = duplex.wait_applied(&a, &b, secs(60));
    let peak = peak_memory(duplex.engine_pid());
    eprintln!("{}: {members} members, the engine's memory peaked at {} MiB", a.name, peak >> 20);
    let too_long = calls_too_long(&b);
    assert!(peak < BOUND, "the engine held {} MiB", peak >> 20);
    assert_eq!(status.total("conflict_rounds"), 0, "a big value was settled as if it were in conflict: {:#}", status.0);
    assert_same(&a, &b, &["hash", "set", "zset", "list", "zeroes", "noise"]);
    assert_eq!(b.client().run("EXISTS hash set zset list zeroes noise").int(), 6);
    let at = |s: &Server| s.client().run("PTTL hash").int();
    assert!((at(&a) - at(&b)).abs() < 1_000);
    too_long
}

#[test]
fn big_values_are_copied_in_bounded_memory_on_the_usual() {
    big_snapshot(Slot::Usual, sized(1_000_000, 10_000_000), sized(100, 600) << 20);
}

#[test]
fn big_values_are_copied_in_bounded_memory_on_the_newest_redis() {
    big_snapshot(Slot::NewestRedis, sized(400_000, 10_000_000), sized(50, 500) << 20);
}

#[test]
fn big_values_are_copied_in_bounded_memory_on_the_oldest() {
    big_snapshot(Slot::Oldest, sized(400_000, 10_000_000), sized(50, 500) << 20);
}

#[test]
fn big_values_are_copied_in_bounded_memory_on_the_newest_valkey() {
    big_snapshot(Slot::NewestValkey, sized(400_000, 10_000_000), sized(50, 500) << 20);
}

/// Each is as long as it takes for making its room, or moving it once, to be a call that takes too long.
fn long_strings(slot: Slot, policy: &str, mib: usize) {
    assert_calls_are_short(|| {
        let options = ["--proto-max-bulk-len", "1gb"];
        let (a, b) = (Server::start(slot.server(), &options), Server::start(slot.server(), &options));
        let mut rng = fastrand::Rng::with_seed(2);
        let block: Vec<u8> = (0..1 << 20).map(|_| rng.u8(..)).collect();
        let names = ["one", "two", "three", "four"];
        for name in names {
            for _ in 0..mib {
                a.client().call(&[b"APPEND".to_vec(), name.into(), block.clone()]);
            }
        }
        watch_calls(&b);
        let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()).policy(policy));
        let too_long = calls_too_long(&b);
        assert_same(&a, &b, &names);
        let named = |c: &str| c.contains("-space") || c.contains("-filler");
        wait_for("what has made space is gone", secs(10), || match b.client().run("CLIENT LIST").text() {
            list if named(&list) => Err(list),
            _ => Ok(()),
        });
        assert!(peak_memory(duplex.engine_pid()) < BOUND);
        too_long
    });
}

#[test]
fn long_strings_grow_where_they_are() {
    long_strings(Slot::Usual, "existing_keys = \"ignore\"", sized(130, 500));
}

#[test]
fn long_strings_of_a_merge_grow_where_they_are() {
    long_strings(Slot::NewestValkey, "existing_keys = \"merge\"", sized(130, 500));
}

#[test]
fn a_big_set_in_the_stream_takes_little_more_memory_than_itself() {
    let (a, b) = (Server::start(Slot::Usual.server(), &[]), Server::start(Slot::Usual.server(), &[]));
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    let before = peak_memory(duplex.engine_pid());
    let size: usize = 100 << 20;
    let began = std::time::Instant::now();
    a.client().call(&[b"SET".to_vec(), b"big".to_vec(), vec![b'x'; size]]);
    wait_for("it is there", secs(60), || match b.client().run("STRLEN big").int() {
        n if n as usize == size => Ok(()),
        n => Err(n.to_string()),
    });
    let took = began.elapsed();
    duplex.wait_applied(&a, &b, secs(60));
    let more = peak_memory(duplex.engine_pid()).saturating_sub(before);
    eprintln!("SET of 100 MiB: {took:?}, {} MiB before it, {} MiB more", before >> 20, more >> 20);
    assert_same(&a, &b, &["big"]);
    // One copy of it and little else: what is sent, and later its echo, have the memory one after the other. With what the
    // program takes before it (13 MiB where it is optimized) that is within the bound of all big values.
    assert!(more < size as u64 + (14 << 20), "{} MiB before it, {} MiB more", before >> 20, more >> 20);
}

#[test]
fn a_conflict_on_a_big_key_is_settled_in_parts() {
    for slot in [Slot::Usual, Slot::Oldest] {
        assert_calls_are_short(|| one_conflict_on_a_big_key(slot, sized(200_000, 2_000_000)));
    }
}

fn one_conflict_on_a_big_key(slot: Slot, members: u64) -> Vec<(i64, String)> {
    let (a, b) = (Server::start(slot.server(), &[]), Server::start(slot.server(), &[]));
    fill(&a, "hash", "HSET", members);
    let (to_a, to_b) = (Proxy::to(a.port), Proxy::to(b.port));
    let duplex = Duplex::synced(&JobSpec::between(to_a.addr(), to_b.addr()));
    assert_same(&a, &b, &["hash"]);
    for p in [&to_a, &to_b] {
        p.delay(std::time::Duration::from_millis(20));
    }
    watch_calls(&b);
    thread::scope(|s| {
        for (server, name) in [(&a, "at-a"), (&b, "at-b")] {
            s.spawn(move || {
                let mut c = server.client();
                for i in 0..100 {
                    // The same field at both sides, and fields of its own.
                    c.run(&format!("HSET hash both {name}-{i} {name}:{i} v"));
                }
            });
        }
    });
    let status = duplex
        .wait_status("it is settled", secs(60), |s| s.total("conflicts_settled") > 0 && s.0["conflicts_open"] == 0);
    duplex.wait_applied(&a, &b, secs(60));
    eprintln!("{}: {} rounds", a.name, status.total("conflict_rounds"));
    assert_same(&a, &b, &["hash"]);
    assert_eq!(b.client().run("HLEN hash").int() as u64, members + 201);
    // What can't be done in parts is told: the authority's DUMP.
    let events = duplex.run(&["events", &duplex.name, "--json"]).stdout;
    assert!(events.contains("it is read as a whole, and the "), "{events}");
    calls_too_long(&b)
}

#[test]
fn a_merge_keeps_what_is_there_also_where_values_go_as_commands() {
    // The reverse copy goes to an older server, which takes hardly any value as it stands.
    let (a, b) = (Server::start(Slot::Oldest.server(), &[]), Server::start(Slot::NewestRedis.server(), &[]));
    let mut at_b = b.client();
    for line in
        ["HSET both f target", "ZADD zset 1 target", "RPUSH mine a b", "SADD only-b x y", "XADD stream-b 1-1 f v"]
    {
        at_b.run(line);
    }
    fill(&b, "big-both", "SADD", 100_000);
    fill(&b, "big-b", "SADD", 100_000);
    let mut at_a = a.client();
    for line in ["HSET both f source", "ZADD zset 2 source", "SADD only-a z", "SET big-both small"] {
        at_a.run(line);
    }
    let _duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()).policy("existing_keys = \"merge\""));
    let equal = assert_equal_within(&a, &b, secs(30));
    assert_eq!(equal.len(), 8);
    for server in [&a, &b] {
        let mut c = server.client();
        assert_eq!(c.run("HGET both f").text(), "source");
        assert_eq!(c.run("ZSCORE zset source").int(), 2);
        assert_eq!(c.run("GET big-both").text(), "small");
        assert_eq!(c.run("SCARD big-b").int(), 100_000);
        assert_eq!(c.run("LLEN mine").int(), 2);
    }
}
