//! Every value of every version: each type in each encoding, copied and then changed, between all pairs of servers.
//!
//! A source with all it can hold is started as a job; after the copy both sides hold the same as far as both can hold
//! it; then each type is changed at both sides. What a target can't hold is told, and never stops anything.

mod support;

use support::{
    compare::{Level, differences, read},
    versions::{Slot, versions},
    words::words,
    *,
};

/// What makes one key of each type and encoding; a server ignores what it does not know.
const CORPUS: &str = include_str!("corpus/rdb/populate.txt");

/// Beside the corpus: binary names, bitmaps, an expiry of each kind, big values of each collection.
const MORE: &str = r#"
SET "\x00\xff\r\nbinary \xe4\xbd\xa0" "\x00\x01\x02"
SETBIT bits 100003 1
BITFIELD fields SET u8 0 200 SET i16 32 -5
PFADD hll:dense 1 2 3 4 5 6 7 8 9
EVAL "for i=1,3000 do redis.call('PFADD', 'hll:dense', i) end" 0
GEOADD geo 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
EVAL "for i=1,3000 do redis.call('RPUSH', 'big:list', 'element ' .. i) end" 0
EVAL "for i=1,3000 do redis.call('SADD', 'big:set', 'member ' .. i) end" 0
EVAL "for i=1,3000 do redis.call('SADD', 'big:intset', i * 3) end" 0
EVAL "for i=1,3000 do redis.call('ZADD', 'big:zset', i / 7, 'member ' .. i) end" 0
EVAL "for i=1,3000 do redis.call('HSET', 'big:hash', 'field ' .. i, 'value ' .. i) end" 0
EVAL "for i=1,3000 do redis.call('XADD', 'big:stream', i .. '-1', 'f', i) end" 0
EVAL "redis.call('SET', 'big:string', string.rep('0123456789abcdef', 200000))" 0
XGROUP CREATE big:stream g 0
XREADGROUP GROUP g c COUNT 1000 STREAMS big:stream >
XREADGROUP GROUP g d COUNT 500 STREAMS big:stream >
EXPIRE big:hash 100000
EXPIRE big:stream 100000
"#;

/// Changes of each type; `$p` is the writer's own prefix.
const CHANGES: &str = r#"
SET $p:s v
APPEND $p:s w
SETRANGE $p:s 5 xyz
SET $p:ttl v EX 1000
SET $p:ttl w KEEPTTL
GETEX $p:ttl EX 5000
PEXPIREAT $p:s 4102444800000
PERSIST $p:s
INCRBYFLOAT $p:f 1.5
SETBIT $p:bits 77 1
BITOP AND $p:and $p:bits $p:bits
BITOP DIFF $p:diff $p:bits $p:bits
PFADD $p:hll a b c
PFMERGE $p:hll2 $p:hll
MSETEX 2 $p:m1 a $p:m2 b EX 5000
RPUSH $p:l a b c d
LPUSH $p:l z
LINSERT $p:l BEFORE b bb
LSET $p:l 0 zz
LTRIM $p:l 0 3
LMOVE $p:l $p:l2 LEFT RIGHT
LMPOP 1 $p:l LEFT COUNT 1
SADD $p:set a b c 1 2 3
SREM $p:set a
SPOP $p:set
SMOVE $p:set $p:set2 b
SUNIONSTORE $p:set3 $p:set $p:set2
ZADD $p:z 1 a 2 b 3.5 c
ZADD $p:z GT CH 5 a
ZINCRBY $p:z 0.25 b
ZPOPMIN $p:z
ZRANGESTORE $p:z2 $p:z 0 -1
GEOADD $p:geo 13.361389 38.115556 Palermo
HSET $p:h a 1 b 2 c 3
HINCRBYFLOAT $p:h a 0.5
HDEL $p:h b
HPEXPIREAT $p:h 4102444800000 FIELDS 1 a
HSETEX $p:h2 EX 100000 FIELDS 2 x 1 y 2
HGETEX $p:h2 PERSIST FIELDS 1 x
HGETDEL $p:h2 FIELDS 1 y
XADD $p:x 1-1 a b
XADD $p:x MAXLEN ~ 1000 2-1 c d
XADD $p:x 3-1 e f
XGROUP CREATE $p:x g 0
XREADGROUP GROUP g me COUNT 2 STREAMS $p:x >
XACK $p:x g 1-1
XCLAIM $p:x g you 0 2-1
XDEL $p:x 3-1
XADD $p:x 9-1 g h
XTRIM $p:x MINID 2-1
XDELEX $p:x KEEPREF IDS 1 9-1
XSETID $p:x 20-1
COPY $p:set $p:copy
RENAME $p:copy $p:renamed
MULTI
INCR $p:n
RPUSH $p:l3 1
EXEC
EVAL "redis.call('INCR', KEYS[1]) redis.call('HSET', KEYS[2], 'f', 'v')" 2 $p:n $p:h3
DUMP $p:s
DEL $p:m1
"#;

/// Runs lines at a server; what it does not know or take is passed over.
fn run(server: &Server, lines: &str, prefix: &str) {
    let mut client = server.client();
    for line in lines.lines().filter(|l| !l.is_empty()) {
        let reply = client.call(&words(&line.replace("$p", prefix)));
        // A command that is not known inside MULTI spoils it: those stand alone in the lists.
        drop(reply);
    }
}

fn knows(server: &Server, command: &str) -> bool {
    matches!(server.client().call(&["COMMAND", "INFO", command]).items(), [Reply::Array(_)])
}

/// Keys that only servers with a module can hold, with a command of it.
const MODULES: [(&str, &str); 6] = [
    ("vectors", "VADD"),
    ("json", "JSON.SET"),
    ("series", "TS.ADD"),
    ("bloom", "BF.ADD"),
    ("cuckoo", "CF.ADD"),
    ("topk", "TOPK.RESERVE"),
];

/// Both servers hold the same, but for keys that one of them can't hold. Gives the number of keys and the names left out.
#[track_caller]
fn equal_as_far_as_possible(a: &Server, b: &Server) -> (usize, Vec<&'static str>) {
    let level = Level::of(a).and(Level::of(b));
    let left_out: Vec<&'static str> = MODULES
        .into_iter()
        .filter(|(name, command)| {
            let there = a.client().call(&["EXISTS", name]).int() == 1;
            there && !(knows(a, command) && knows(b, command))
        })
        .map(|(name, _)| name)
        .collect();
    let n = wait_for(&format!("{} and {} hold the same", a.name, b.name), secs(20), || {
        let wanted =
            |key: &[u8]| !key.starts_with(b"duplex:") && !left_out.iter().any(|name| key.ends_with(name.as_bytes()));
        let (left, right) = (read(a, level, &wanted), read(b, level, &wanted));
        match differences(&left, &right) {
            none if none.is_empty() => Ok(left.len()),
            some => Err(some[..some.len().min(20)].join("\n")),
        }
    });
    (n, left_out)
}

fn events(duplex: &Duplex) -> String {
    duplex.run(&["events", &duplex.name, "--json"]).stdout
}

fn alerts(duplex: &Duplex) -> Vec<String> {
    let status = duplex.status();
    let all = status.0["alerts"].as_array().cloned().unwrap_or_default();
    all.iter().filter_map(|a| a["rule"].as_str().map(str::to_owned)).collect()
}

/// All of it from one server to another, and changes back and forth.
fn every_value(source: &str, target: &str, two_way: bool) {
    eprintln!("{source} to {target}, two-way: {two_way}");
    let (a, b) = (Server::start(source, &[]), Server::start(target, &[]));
    run(&a, CORPUS, "");
    run(&a, MORE, "");
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()).policy(&format!("two_way = {two_way}")));
    let (keys, left_out) = equal_as_far_as_possible(&a, &b);
    assert!(keys > 40, "only {keys} keys");
    if knows(&a, "FUNCTION") && knows(&b, "FUNCTION") {
        let list = |s: &Server| format!("{:?}", s.client().run("FUNCTION LIST WITHCODE"));
        assert!(list(&b).contains("corpus"), "{source} to {target}: {}", list(&b));
        assert_eq!(list(&a), list(&b));
    } else if knows(&a, "FUNCTION") {
        assert!(events(&duplex).contains("function libraries"), "{}", events(&duplex));
    }
    if !left_out.is_empty() {
        wait_for("what can't be carried is told", secs(10), || {
            let told = events(&duplex);
            let missing: Vec<_> = left_out.iter().filter(|name| !told.contains(**name)).collect();
            if missing.is_empty() && alerts(&duplex).iter().any(|a| a == "keys_given_up") {
                Ok(())
            } else {
                Err(format!("{missing:?} {:?} {told}", alerts(&duplex)))
            }
        });
        let precheck = duplex.run(&["precheck", duplex.job_file.to_str().expect("a path"), "--json"]);
        assert!(precheck.stdout.contains("modules at the source"), "{}", precheck.text());
    }
    run(&a, CHANGES, "at-a");
    if two_way {
        run(&b, CHANGES, "at-b");
    }
    // Changes of what the copy brought, too.
    run(&a, "HSET hash:ttl-small d 4\nXADD big:stream * f v\nAPPEND big:string x\nRPUSH list:plain x", "");
    let (after, _) = equal_as_far_as_possible(&a, &b);
    assert!(after > keys + 15, "{after} keys, {keys} before the changes");
    let status = duplex.wait_status("nothing is open", secs(20), |s| s.0["conflicts_open"] == 0);
    assert_eq!(status.state(), "synchronizing", "{:#}", status.0);
    equal_as_far_as_possible(&a, &b);
}

/// A quarter of the sources, to all targets.
fn quarter(n: usize) {
    let all = versions();
    for source in all.iter().skip(n).step_by(4) {
        for target in &all {
            every_value(source, target, true);
        }
    }
}

#[test]
fn every_value_goes_to_every_version_first_quarter() {
    quarter(0);
}

#[test]
fn every_value_goes_to_every_version_second_quarter() {
    quarter(1);
}

#[test]
fn every_value_goes_to_every_version_third_quarter() {
    quarter(2);
}

#[test]
fn every_value_goes_to_every_version_fourth_quarter() {
    quarter(3);
}

#[test]
fn every_value_goes_one_way_to_the_oldest_and_from_it() {
    for newest in [Slot::NewestRedis, Slot::NewestValkey] {
        every_value(newest.server(), Slot::Oldest.server(), false);
        every_value(Slot::Oldest.server(), newest.server(), false);
    }
}

#[test]
fn one_way_carries_the_state_of_what_the_target_has_no_words_for() {
    let (a, b) = (Server::start("redis-8.6", &[]), Server::start(Slot::Oldest.server(), &[]));
    let mut duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()).policy("two_way = false"));
    let mut c = a.client();
    for i in 0..300 {
        for line in [
            "HSETEX h:$i EX 100000 FIELDS 2 x $i y 2",
            "HPEXPIREAT h:$i 4102444800000 FIELDS 1 x",
            "HINCRBY h:$i x 1",
            "RPUSH list:$i a b",
            "RENAME h:$i g:$i",
            "HSETEX g:$i PX 200 FIELDS 1 short v",
            "HSET g:$i z $i",
            "INCR count",
        ] {
            assert!(!c.run(&line.replace("$i", &i.to_string())).is_error(), "{line}");
        }
    }
    assert_equal_within(&a, &b, secs(20));
    assert_eq!(b.client().run("GET count").text(), "300", "a counter beside them is exact");
    // Fields that expire at the source are deleted at the target, which knows no expiry of fields.
    wait_for("the short fields are gone", secs(10), || match b.client().run("HEXISTS g:7 short").int() {
        0 => Ok(()),
        n => Err(n.to_string()),
    });
    assert_equal_within(&a, &b, secs(10));
    // What fails at the target is repaired: somebody wrote there.
    b.client().run("SET clash string");
    c.run("RPUSH clash a b c");
    b.client().run("DEL gone");
    c.run("SET gone v");
    wait_for("gone is there", secs(10), || match b.client().run("GET gone").text().as_str() {
        "v" => Ok(()),
        other => Err(other.to_owned()),
    });
    b.client().run("DEL gone");
    c.run("PEXPIRE gone 1000000");
    assert_equal_within(&a, &b, secs(10));
    assert_eq!(b.client().run("LLEN clash").int(), 3);
    // And it is taken up by an engine that comes after.
    for round in 0..5 {
        for i in 0..200 {
            c.run(&format!("HSETEX k:{i} EX 100000 FIELDS 1 f {round}"));
        }
        duplex.crash();
        for i in 0..200 {
            c.run(&format!("HINCRBY k:{i} f 1"));
        }
        duplex.revive();
    }
    assert_equal_within(&a, &b, secs(20));
    duplex.wait_status("nothing is open", secs(10), |s| s.0["conflicts_open"] == 0);
    assert_eq!(b.client().run("HLEN duplex:none").int(), 0);
}

/// Modules of Redis Stack between two servers that have them, and to one that has not.
#[test]
fn module_values_go_between_servers_that_have_the_module() {
    for name in ["redis-stack-7.2", "redis-stack-7.4"] {
        every_value(name, name, true);
    }
    let (a, b) = (Server::start("redis-stack-7.4", &[]), Server::start("redis-stack-7.4", &[]));
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    for (server, p) in [(&a, "a"), (&b, "b")] {
        let mut c = server.client();
        for line in [
            "JSON.SET $p:json $ '{\"n\":1,\"list\":[1,2]}'",
            "JSON.NUMINCRBY $p:json $.n 5",
            "JSON.ARRAPPEND $p:json $.list 3",
            "BF.RESERVE $p:bloom 0.01 100",
            "BF.ADD $p:bloom x",
            "TS.CREATE $p:series",
            "TS.ADD $p:series 1000 2.5",
            "CF.ADD $p:cuckoo x",
        ] {
            let reply = c.run(&line.replace("$p", p));
            assert!(!reply.is_error(), "{line}: {reply:?}");
        }
    }
    let text = |s: &Server, p: &str| format!("{:?}", s.client().run(&format!("JSON.GET {p}:json $")));
    for p in ["a", "b"] {
        wait_for("the documents are equal", secs(10), || match (text(&a, p), text(&b, p)) {
            (x, y) if x == y && x.contains('6') => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    for line in ["BF.EXISTS a:bloom x", "BF.EXISTS b:bloom x", "CF.EXISTS b:cuckoo x"] {
        for server in [&a, &b] {
            wait_for(line, secs(10), || match server.client().run(line).int() {
                1 => Ok(()),
                n => Err(n.to_string()),
            });
        }
    }
    duplex.wait_status("all is well", secs(10), |s| s.state() == "synchronizing" && s.0["conflicts_open"] == 0);
}

/// What is indexed is keys, and they are carried; an index itself only where it is made while the job runs. Those that
/// are there before it are named.
#[test]
fn search_indexes_are_made_at_both_sides_or_named() {
    let (a, b) = (Server::start("redis-stack-7.4", &[]), Server::start("redis-stack-7.4", &[]));
    let create = |name: &str| format!("FT.CREATE {name} ON HASH PREFIX 1 doc: SCHEMA t TEXT");
    a.client().run("HSET doc:1 t hello");
    assert_eq!(a.client().run(&create("early")).text(), "OK");
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    let precheck = || duplex.run(&["precheck", duplex.job_file.to_str().expect("a path"), "--json"]).stdout;
    assert!(precheck().contains("search indexes at the source but not at the target: early"), "{}", precheck());
    for (at, name) in [(&a, "from-a"), (&b, "from-b")] {
        assert_eq!(at.client().run(&create(name)).text(), "OK");
    }
    a.client().run("HSET doc:2 t hello");
    b.client().run("HSET doc:3 t hello");
    let found = |s: &Server, index: &str| match s.client().call(&["FT.SEARCH", index, "hello", "NOCONTENT"]) {
        reply if reply.is_error() => Err(format!("{reply:?}")),
        reply => match reply.items()[0].int() {
            3 => Ok(()),
            n => Err(n.to_string()),
        },
    };
    for (server, index) in [(&a, "from-a"), (&a, "from-b"), (&b, "from-a"), (&b, "from-b")] {
        wait_for(index, secs(20), || found(server, index));
    }
    assert!(found(&b, "early").is_err(), "it is carried after all: tell nobody that it is not");
    assert_eq!(b.client().run(&create("early")).text(), "OK");
    wait_for("the copied keys are in it", secs(20), || found(&b, "early"));
    assert!(!precheck().contains("search indexes"), "{}", precheck());
    assert_eq!(a.client().run("FT.DROPINDEX from-b").text(), "OK");
    wait_for("it has gone", secs(20), || found(&b, "from-b").map_or(Ok(()), |()| Err("it is there".into())));
    duplex.wait_status("all is well", secs(10), |s| s.state() == "synchronizing" && s.0["conflicts_open"] == 0);
}

#[test]
fn module_values_to_a_server_without_the_module_are_told_and_stop_nothing() {
    for target in [Slot::Oldest.server(), "redis-7.0", Slot::NewestValkey.server()] {
        for two_way in [true, false] {
            every_value("redis-stack-7.4", target, two_way);
            let (a, b) = (Server::start("redis-stack-7.4", &[]), Server::start(target, &[]));
            let policy = format!("two_way = {two_way}");
            let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()).policy(&policy));
            let mut c = a.client();
            for i in 0..300 {
                c.run(&format!("INCR count:{}", i % 7));
                assert!(!c.run(&format!("JSON.SET doc:{} $ {i}", i % 5)).is_error());
                c.run(&format!("RPUSH list {i}"));
            }
            wait_for("all else is there", secs(20), || match b.client().run("LLEN list").int() {
                300 => Ok(()),
                n => Err(format!("{n} of 300; {}", events(&duplex))),
            });
            assert_eq!(b.client().run("GET count:0").text(), "43");
            duplex.wait_status("nothing goes on for ever", secs(30), |s| s.0["conflicts_open"] == 0);
            wait_for("the alert is raised", secs(10), || match alerts(&duplex) {
                some if some.iter().any(|a| a == "keys_given_up") => Ok(()),
                other => Err(format!("{other:?}")),
            });
            assert!(b.client().run("PING").text() == "PONG", "the target has died");
        }
    }
}
