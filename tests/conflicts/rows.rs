//! The README's table of what happens when both sides change one key at the same time, row by row.

use crate::{
    apart,
    support::{resp::Argv, wait::until, *},
};
use std::time::{Duration, Instant};

/// (before, earlier, later, how the key is read, what that says at both sides); `k` stands for the key.
const IN_ORDER_OF_TIME: [(&str, &str, &str, &str, &str); 13] = [
    ("SADD k x m", "SADD k n", "SREM k m", "SCARD k", "2"),
    ("SADD k x m", "SREM k m", "SADD k n", "SISMEMBER k n", "1"),
    ("HSET k f 0", "HSET k f a", "HSET k f b", "HGET k f", "b"),
    ("HSET k f 0 g 0", "HSET k f a", "HDEL k f", "HEXISTS k f", "0"),
    ("HSET k f 0 g 0", "HDEL k f", "HSET k f b", "HGET k f", "b"),
    ("ZADD k 1 m", "ZADD k 2 m", "ZADD k 3 m", "ZSCORE k m", "3"),
    ("ZADD k 1 m 1 x", "ZADD k 2 m", "ZREM k m", "ZCARD k", "1"),
    ("ZADD k 1 m 1 x", "ZREM k m", "ZADD k 3 m", "ZSCORE k m", "3"),
    ("SET k 1", "INCRBYFLOAT k 0.5", "INCRBYFLOAT k 0.25", "GET k", "1.25"),
    ("RPUSH k 0", "RPUSH k a", "RPUSH k b", "LINDEX k -1", "b"),
    ("RPUSH k 0", "RPUSH k a", "RPUSH k b", "LINDEX k -2", "a"),
    ("XADD k 1-1 f v", "XADD k * f a", "XADD k * f b", "XLEN k", "3"),
    ("SET k 0", "SET k a", "APPEND k b", "GET k", "ab"),
];

#[test]
fn what_does_not_commute_is_settled_in_order_of_time() {
    const TRIES: usize = 8;
    let (a, b, _proxies, duplex) = apart(Duration::from_millis(60));
    let (mut at_a, mut at_b) = (a.client(), b.client());
    let named = |line: &str, row: usize, n: usize| line.replace(" k", &format!(" k:{row}:{n}"));
    for n in 0..TRIES {
        for (row, (before, ..)) in IN_ORDER_OF_TIME.iter().enumerate() {
            at_a.run(&named(before, row, n));
            at_a.run(&format!("SET warm-a:{row} {n}"));
            at_b.run(&format!("SET warm-b:{row} {n}"));
        }
    }
    assert_equal_within(&a, &b, secs(10));
    for n in 0..TRIES {
        let (first, second) = if n % 2 == 0 { (&mut at_a, &mut at_b) } else { (&mut at_b, &mut at_a) };
        let began = Instant::now();
        let all = |pick: fn(&(&str, &'static str, &'static str, &str, &str)) -> &'static str| -> Vec<Argv> {
            let lines = IN_ORDER_OF_TIME.iter().enumerate();
            lines.map(|(row, r)| words::words(&named(pick(r), row, n))).collect()
        };
        first.pipeline(&all(|r| r.1));
        until(began + Duration::from_millis(30));
        second.pipeline(&all(|r| r.2));
    }
    assert_equal_within(&a, &b, secs(10));
    let status = duplex.wait_status("no conflict is open", secs(10), |s| s.0["conflicts_open"] == 0);
    let settled = status.total("conflicts_settled");
    assert!(settled >= (TRIES * IN_ORDER_OF_TIME.len()) as u64 * 9 / 10, "only {settled} conflicts: it proves nothing");
    let mut otherwise = Vec::new();
    for (row, (_, earlier, later, read, says)) in IN_ORDER_OF_TIME.iter().enumerate() {
        for n in 0..TRIES {
            let reply = at_b.run(&named(read, row, n)).text();
            if reply != *says {
                otherwise.push(format!("{earlier}, then {later}: {read} says {reply}"));
            }
        }
    }
    // Times are judged to some milliseconds; a machine that stands still for longer than the 30 between the two may err.
    assert!(otherwise.len() <= TRIES * IN_ORDER_OF_TIME.len() / 50, "{otherwise:#?}");
}

/// Written on the same keys at both sides at once, these add up: (at the source, at the target, how it is read, its sum).
#[test]
fn all_that_commutes_adds_up() {
    const N: u64 = 500;
    let (a, b, _proxies, duplex) = apart(Duration::from_millis(20));
    let mut c = a.client();
    let members: Vec<String> = (0..2 * N).map(|i| format!("m{i}")).collect();
    c.run(&format!("SADD removed {}", members.join(" ")));
    for m in &members {
        c.run(&format!("ZADD zremoved 1 {m}"));
    }
    assert_equal_within(&a, &b, secs(10));
    std::thread::scope(|s| {
        for (server, first) in [(&a, 0), (&b, N)] {
            s.spawn(move || {
                let mut c = server.client();
                for i in first..first + N {
                    let lines = [
                        "DECRBY down 3".to_owned(),
                        "HINCRBY totals f 2".to_owned(),
                        format!("HSET fields f{i} v"),
                        format!("ZINCRBY scores 1 s{i}"),
                        format!("SETBIT bits {i} 1"),
                        format!("PFADD about e{i}"),
                        format!("SREM removed m{i}"),
                        format!("ZREM zremoved m{i}"),
                    ];
                    c.pipeline(&lines.iter().map(|l| words::words(l)).collect::<Vec<_>>());
                }
            });
        }
    });
    assert_equal_within(&a, &b, secs(20));
    let mut at_b = b.client();
    let all = 2 * N as i64;
    for (read, sum) in [
        ("GET down", -3 * all),
        ("HGET totals f", 2 * all),
        ("HLEN fields", all),
        ("ZCARD scores", all),
        ("BITCOUNT bits", all),
        ("EXISTS removed zremoved", 0),
    ] {
        assert_eq!(at_b.run(read).int(), sum, "{read}");
    }
    let status = duplex.wait_applied(&a, &b, secs(30));
    assert_eq!(status.total("conflicts_settled"), 0, "{:#}", status.0);
}
