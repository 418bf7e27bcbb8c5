//! Rows of the README's table of what happens when both sides change one key at the same time: what adds up.

use crate::{apart, support::*};
use std::time::Duration;

/// Written on the same keys at both sides at once, these add up.
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
