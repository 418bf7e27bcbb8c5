//! Verify on real servers: equal whatever the versions, and every way to differ is seen.

#[path = "support/precheck_support.rs"]
mod precheck_support;

use precheck_support::*;
use redis_duplex::{
    engine::{
        net::Dialer,
        verify::{self, Difference, Outcome, VerifyOptions},
    },
    model::Databases,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

async fn compare(a: &Server, b: &Server, databases: &Databases) -> Outcome {
    // What differs here stays so: one more look suffices.
    let options = VerifyOptions { waits: vec![Duration::from_millis(1)], ..VerifyOptions::default() };
    let (a, b) = (Dialer::new(&a.instance(), "test"), Dialer::new(&b.instance(), "test"));
    verify::compare_with(&a, &b, databases, &options, None).await.unwrap()
}

fn in_an_hour() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() + 3_600_000
}

/// One key of each type, small, and big enough for another encoding and for being compared in parts.
fn fill(server: &Server, expire_at: u128) {
    server.script(&format!(
        "SET s value
         SET n 12345
         SET ttl value
         PEXPIREAT ttl {expire_at}
         RPUSH l a b c 1 2
         SADD ints 1 2 3
         SADD set x y z
         ZADD z 1.5 a 0.1 b -3 c inf d 3.14159265358979 e
         HSET h f1 v1 f2 v2
         PFADD hll a b c d
         GEOADD geo 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
         XADD st 1-1 f v
         XADD st 2-1 f v g w
         XADD st 3-1 f v
         XGROUP CREATE st grp 0
         XREADGROUP GROUP grp consumer COUNT 2 STREAMS st >
         XACK st grp 1-1
         SETRANGE bigstring 3000000 x
         SELECT 5
         SET five 5"
    ));
    let mut client = server.client();
    let mut pipe = redis::pipe();
    for n in 0..3_000 {
        let text = format!("element-{n}-with-some-text-around-it");
        pipe.cmd("RPUSH").arg("biglist").arg(&text).ignore();
        pipe.cmd("SADD").arg("bigset").arg(&text).ignore();
        pipe.cmd("ZADD").arg("bigzset").arg(n as f64 / 7.0).arg(&text).ignore();
        pipe.cmd("HSET").arg("bighash").arg(&text).arg(n).ignore();
        pipe.cmd("XADD").arg("bigstream").arg(format!("{}-1", n + 1)).arg("f").arg(&text).ignore();
    }
    pipe.query::<()>(&mut client).unwrap();
}

const KEYS: u64 = 18;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_data_is_equal_whatever_the_versions() {
    let pairs = [(OLDEST, NEWEST), (USUAL, VALKEY), (NEWEST, VALKEY), (OLDEST, OLDEST), (VALKEY, OLDEST)];
    for (x, y) in pairs {
        let (a, b) = (Server::start(x, &[]), Server::start(y, &[]));
        let at = in_an_hour();
        fill(&a, at);
        fill(&b, at);
        // Equal values in other encodings, reached in another order.
        a.script("RPUSH list2 1\nRPUSH list2 2\nSADD set2 1 2 x\nSREM set2 x\nHSET hash2 b 2\nHSET hash2 a 1\nZADD zset2 2 b 1 a");
        b.script("LPUSH list2 2\nLPUSH list2 1\nSADD set2 2 1\nHSET hash2 a 1 b 2\nZADD zset2 1 a\nZADD zset2 2 b");
        // One side has counted the HyperLogLog.
        a.run("PFCOUNT hll");
        // Control keys are nobody's data.
        a.run("SET duplex:0123456789ab:reverse 1");
        b.run("SET duplex:0123456789ab:forward 2");
        let outcome = compare(&a, &b, &Databases::All).await;
        assert!(outcome.equal, "{x} / {y}: {:#?}", outcome.examples);
        assert_eq!(outcome.keys_compared, KEYS + 4, "{x} / {y}");
        assert_eq!((outcome.differing, outcome.missing_at_source, outcome.missing_at_target), (0, 0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_differ_is_seen() {
    // Key, what is done to it at the target, what is said of it.
    let changes = [
        ("s", "SET s valve", "strings of 5 bytes differ"),
        ("s", "APPEND s x", "strings of 5 / 6 bytes"),
        ("n", "INCR n", "strings"),
        ("ttl", "PERSIST ttl", "/ none"),
        ("ttl", "PEXPIRE ttl 3000000", "expiry"),
        ("s", "EXPIRE s 1000", "expiry none /"),
        ("l", "LSET l 1 B", "elements"),
        ("l", "RPUSH l x", "elements"),
        ("ints", "SADD ints 4", "members"),
        ("set", "SREM set x", "members"),
        ("z", "ZADD z 1.6 a", "scores"),
        ("z", "ZREM z d", "scores"),
        ("h", "HSET h f1 v2", "fields"),
        ("h", "HDEL h f1", "fields"),
        ("hll", "PFADD hll e", "strings"),
        ("geo", "ZREM geo Catania", "scores"),
        ("st", "XADD st 4-1 f v", "entries 3 / 4"),
        ("st", "XDEL st 2-1", "entries 3 / 2"),
        ("st", "XSETID st 9-9", "last ids 3-1 / 9-9"),
        ("st", "XACK st grp 2-1", "groups"),
        ("st", "XGROUP CREATE st other 0", "groups"),
        ("st", "XGROUP SETID st grp 0", "groups"),
        ("st", "XCLAIM st grp somebody 0 2-1", "pending"),
        ("bigstring", "SETRANGE bigstring 2999999 y", "from 2097152 on"),
        ("bigstring", "APPEND bigstring y", "3000001 / 3000002 bytes"),
        ("biglist", "LSET biglist 2999 x", "from"),
        ("biglist", "LPOP biglist", "3000 / 2999 elements"),
        ("bigset", "SADD bigset x", "3000 / 3001 elements"),
        ("bigzset", "ZINCRBY bigzset 0.5 element-777-with-some-text-around-it", "scores"),
        ("bighash", "HSET bighash element-777-with-some-text-around-it x", "fields"),
        ("bigstream", "XDEL bigstream 7-1", "entries 3000 / 2999"),
        ("s", "DEL s", "missing at target"),
        ("new", "SET new 1", "missing at source"),
    ];
    for (x, y) in [(NEWEST, NEWEST), (OLDEST, VALKEY), (USUAL, OLDEST)] {
        let (a, b) = (Server::start(x, &[]), Server::start(y, &[]));
        let at = in_an_hour();
        for (key, change, said) in changes {
            b.run("FLUSHALL");
            if matches!(a.run("DBSIZE"), redis::Value::Int(0)) {
                fill(&a, at);
            }
            fill(&b, at);
            b.run(change);
            let outcome = compare(&a, &b, &Databases::All).await;
            let [example] = outcome.examples.as_slice() else { panic!("{x} / {y}, {change}: {outcome:#?}") };
            let text = example.difference.to_string();
            assert!(text.contains(said), "{x} / {y}, {change}: {text}");
            assert_eq!((example.db, example.key.as_slice()), (0, key.as_bytes()), "{change}");
            assert_eq!(outcome.keys, [(0, key.as_bytes().to_vec())], "{change}");
            assert!(!outcome.equal);
            assert_eq!(outcome.differing + outcome.missing_at_source + outcome.missing_at_target, 1, "{change}");
        }
        // A member exchanged, so that the number stays.
        b.run("FLUSHALL");
        fill(&b, at);
        b.script(
            "SREM bigset element-5-with-some-text-around-it\nSADD bigset other\nDEL h\nRPUSH h x\nSELECT 5\nSET five 6",
        );
        let mut seen: Vec<(u32, String, String)> = compare(&a, &b, &Databases::All)
            .await
            .examples
            .into_iter()
            .map(|e| (e.db, String::from_utf8(e.key).unwrap(), e.difference.to_string()))
            .collect();
        seen.sort();
        let seen: Vec<(u32, &str, &str)> = seen.iter().map(|(d, k, t)| (*d, k.as_str(), t.as_str())).collect();
        let expected = [
            (0, "bigset", "value: the members differ"),
            (0, "h", "type hash / list"),
            (5, "five", "value: strings of 1 bytes differ"),
        ];
        assert_eq!(seen, expected, "{x} / {y}");
        // Only what is selected is compared.
        assert_eq!(compare(&a, &b, &Databases::Only(vec![5])).await.keys, [(5, b"five".to_vec())]);
        assert!(compare(&a, &b, &Databases::Only(vec![1])).await.equal);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_expiry_of_hash_fields_is_compared_where_both_know_it() {
    let at = in_an_hour();
    for (x, y) in [(NEWEST, NEWEST), (NEWEST, VALKEY), (VALKEY, VALKEY)] {
        let (a, b) = (Server::start(x, &[]), Server::start(y, &[]));
        for server in [&a, &b] {
            server.script(&format!("HSET h f 1 g 2\nHPEXPIREAT h {at} FIELDS 1 f"));
        }
        let outcome = compare(&a, &b, &Databases::All).await;
        assert!(outcome.equal, "{x} / {y}: {outcome:?}");
        b.run("HPERSIST h FIELDS 1 f");
        let outcome = compare(&a, &b, &Databases::All).await;
        let [example] = outcome.examples.as_slice() else { panic!("{x} / {y}: {outcome:?}") };
        assert_eq!(example.difference, Difference::Value("value: the expiry of fields differs".into()), "{x} / {y}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expiry_times_are_equal_within_the_tolerance() {
    let (a, b) = (Server::start(USUAL, &[]), Server::start(USUAL, &[]));
    let at = in_an_hour();
    a.script(&format!("SET k v\nPEXPIREAT k {at}"));
    b.script(&format!("SET k v\nPEXPIREAT k {}", at + 50));
    assert!(compare(&a, &b, &Databases::All).await.equal);
    b.run(&format!("PEXPIREAT k {}", at + 51));
    assert_eq!(compare(&a, &b, &Databases::All).await.differing, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_still_under_way_is_looked_at_again() {
    let (a, b) = (Server::start(USUAL, &[]), Server::start(USUAL, &[]));
    for server in [&a, &b] {
        let mut pipe = redis::pipe();
        for n in 0..2000 {
            pipe.cmd("SET").arg(format!("k{n}")).arg(n).ignore();
        }
        pipe.query::<()>(&mut server.client()).unwrap();
    }
    a.script("SET k7 changed\nSET new 1\nDEL k9");
    let dialers = [Dialer::new(&a.instance(), "test"), Dialer::new(&b.instance(), "test")];
    let (send, mut progress) = tokio::sync::mpsc::channel(1);
    let options = VerifyOptions::default();
    let everything = Databases::All;
    let run = verify::compare_with(&dialers[0], &dialers[1], &everything, &options, Some(send));
    // The change arrives at B once verify has said that keys differ.
    let arrive = async {
        while let Some(told) = progress.recv().await {
            if told.text.contains("3 keys differ") {
                b.script("SET k7 changed\nSET new 1\nDEL k9");
                return true;
            }
        }
        false
    };
    let (outcome, arrived) = tokio::join!(run, arrive);
    assert!(arrived, "nothing was looked at again");
    assert!(outcome.unwrap().equal);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_keys_are_compared_and_those_missing_at_either_side_are_found() {
    let (a, b) = (Server::start(NEWEST, &[]), Server::start(USUAL, &[]));
    let total = 100_000u64;
    for (server, leave_out) in [(&a, 500), (&b, 300)] {
        let mut client = server.client();
        for chunk in 0..total / 1000 {
            let mut pipe = redis::pipe();
            for n in (chunk * 1000..(chunk + 1) * 1000).filter(|n| n % 1000 != leave_out) {
                match n % 4 {
                    0 => pipe.cmd("SET").arg(format!("key:{n}")).arg(n).ignore(),
                    1 => pipe.cmd("HSET").arg(format!("key:{n}")).arg("f").arg(n).ignore(),
                    2 => pipe.cmd("RPUSH").arg(format!("key:{n}")).arg(n).arg("x").ignore(),
                    _ => pipe.cmd("SADD").arg(format!("key:{n}")).arg(n).arg("x").ignore(),
                };
            }
            pipe.query::<()>(&mut client).unwrap();
        }
    }
    let outcome = compare(&a, &b, &Databases::All).await;
    println!("{} keys in {:.2} s", outcome.keys_compared, outcome.seconds);
    assert_eq!((outcome.missing_at_source, outcome.missing_at_target, outcome.differing), (100, 100, 0));
    assert_eq!(outcome.keys_compared, total);
    assert_eq!((outcome.keys.len(), outcome.examples.len()), (200, 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_without_rights_is_an_error_and_no_difference() {
    let (a, b) = (Server::start(USUAL, &[]), Server::start(USUAL, &[]));
    for server in [&a, &b] {
        server.run("SADD s a b c");
    }
    b.run("ACL SETUSER app on >pw ~* +@all -@read +scan +exists +pexpiretime");
    let dialers = [Dialer::new(&a.instance(), "test"), Dialer::new(&b.instance_as("app:pw"), "test")];
    let error = verify::compare(&dialers[0], &dialers[1], &Databases::All).await.unwrap_err();
    assert!(error.to_string().contains("NOPERM"), "{error}");
}
