//! Which of two writes is the later, where that is hard to know: a line that has become slower, a stream that is behind,
//! an engine that was away.

use crate::{
    apart, later_wins,
    support::{compare::calls, *},
};
use std::{collections::BTreeSet, time::Duration};

/// The engine has looked at this server's clock so many more times.
fn looked_at(server: &Server, times: u64) {
    let before = calls(server, "time");
    wait_for("the server's clock is looked at", secs(20), || match calls(server, "time") - before {
        n if n >= times => Ok(()),
        n => Err(format!("{n} times of {times}")),
    });
}

/// So many conflicts have been settled since the engine has started: without them a test here would prove nothing.
fn settled(duplex: &Duplex, most: u64) {
    wait_for("each pair was in conflict", secs(20), || match duplex.status().total("conflicts_settled") {
        n if n >= most => Ok(()),
        n => Err(format!("{n} of {most}")),
    });
}

/// A line that becomes slower while the job runs.
#[test]
fn the_later_write_wins_where_one_line_has_become_slower() {
    let (a, b, proxies, duplex) = apart(Duration::from_millis(5));
    proxies[1].delay(Duration::from_millis(80));
    // The new way is known by the eighth look; the first of them may have been under way.
    looked_at(&b, 10);
    later_wins((a, b, proxies, duplex));
}

/// What one side did waits for seconds on its line and is read last, though it was made first.
#[test]
fn the_later_write_wins_where_the_earlier_is_read_last() {
    const KEYS: u64 = 20;
    let (a, b, proxies, duplex) = apart(Duration::from_millis(5));
    let (mut at_a, mut at_b) = (a.client(), b.client());
    at_a.run("SET warm-a v");
    at_b.run("SET warm-b v");
    assert_equal_within(&a, &b, secs(10));
    looked_at(&a, 2);
    proxies[0].stall_streams(true);
    for i in 0..KEYS {
        at_a.run(&format!("SET k:{i} earlier"));
    }
    looked_at(&a, 2);
    for i in 0..KEYS {
        at_b.run(&format!("SET k:{i} later"));
    }
    // It has been read, though not what was made before it.
    let last = format!("GET k:{}", KEYS - 1);
    wait_for("the later write is at the other side", secs(10), || match at_a.run(&last).text() {
        v if v == "later" => Ok(()),
        v => Err(v),
    });
    proxies[0].stall_streams(false);
    assert_equal_within(&a, &b, secs(20));
    settled(&duplex, KEYS);
    let later = (0..KEYS).filter(|i| at_a.run(&format!("GET k:{i}")).text() == "later").count() as u64;
    assert_eq!(later, KEYS, "the later write won {later} of {KEYS} times");
}

/// What was done while no engine ran was done at times that nobody knows, whichever side is read first: one side is chosen
/// for all of it.
#[test]
fn what_was_done_while_no_engine_ran_is_settled_one_way() {
    const KEYS: u64 = 20;
    let (a, b, proxies, mut duplex) = apart(Duration::from_millis(5));
    let (mut at_a, mut at_b) = (a.client(), b.client());
    for round in 0..4 {
        at_a.run(&format!("SET before:{round} a"));
        assert_equal_within(&a, &b, secs(10));
        duplex.crash();
        for i in 0..KEYS {
            let mut both = [(&mut at_a, "a"), (&mut at_b, "b")];
            if i % 2 == 1 {
                both.reverse();
            }
            for (client, value) in both {
                client.run(&format!("SET k:{round}:{i} {value}"));
            }
        }
        proxies[round % 2].delay(Duration::from_millis(60));
        proxies[1 - round % 2].delay(Duration::from_millis(5));
        duplex.revive();
        settled(&duplex, KEYS);
        assert_equal_within(&a, &b, secs(30));
        let ends: BTreeSet<String> = (0..KEYS).map(|i| at_a.run(&format!("GET k:{round}:{i}")).text()).collect();
        assert_eq!(ends, BTreeSet::from(["b".to_owned()]), "round {round}");
    }
}
