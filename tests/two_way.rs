//! A job between two real servers, as its user sees it: both ways at once, policies, databases, pause, stop, flush,
//! publish, scripts, big values.

mod support;

use nix::sys::signal::Signal;
use serde_json::Value;
use std::{thread, time::Duration};
use support::{
    compare::{control_keys, key_count, keyspace},
    observer::{Observer, subscriber},
    resp::Argv,
    server::signal,
    versions::{Slot, neighbours},
    words::words,
    *,
};

fn usual() -> Server {
    Server::start(Slot::Usual.server(), &[])
}

/// Sends `n` SETs of keys that begin with `prefix`, in a pipeline.
fn sets(server: &Server, prefix: &str, n: usize) {
    let commands: Vec<Argv> = (0..n).map(|i| words(&format!("SET {prefix}:{i} value-{i}"))).collect();
    for reply in server.client().pipeline(&commands) {
        assert!(!reply.is_error(), "{reply:?}");
    }
}

#[track_caller]
fn wait_value(server: &Server, line: &str, value: &str) {
    let mut c = server.client();
    wait_for(&format!("{}: {line} is {value:?}", server.name), secs(10), || match c.run(line).text() {
        v if v == value => Ok(()),
        v => Err(format!("{v:?}")),
    });
}

/// n changes at A and n at B on different keys: n applied each way, 0 come back, no conflict, equal.
fn n_each_way(source: &str, target: &str) {
    const N: usize = 5_000;
    let (a, b) = (Server::start(source, &[]), Server::start(target, &[]));
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    let (at_a, at_b) = (Observer::of(&a), Observer::of(&b));
    let before = duplex.status();
    thread::scope(|s| {
        s.spawn(|| sets(&a, "a", N));
        s.spawn(|| sets(&b, "b", N));
    });
    let equal = assert_equal_within(&a, &b, secs(30));
    assert_eq!(equal.len(), 2 * N);
    let after = duplex.wait_applied(&a, &b, secs(20));
    for direction in ["forward", "reverse"] {
        let moved = |field: &str| after.count(direction, field) - before.count(direction, field);
        assert_eq!(moved("changes_applied"), N as u64, "{direction}: {:#}", after.0);
        assert!(moved("echoes_dropped") > 0, "{direction}: {:#}", after.0);
        assert_eq!(moved("conflicts_settled"), 0, "{direction}: {:#}", after.0);
        assert_eq!(moved("apply_errors"), 0, "{direction}: {:#}", after.0);
    }
    assert_eq!((at_a.brought_changes(), at_b.brought_changes()), (N, N), "changes that came from the other side");
}

macro_rules! each_slot {
    ($($test:ident $slot:ident),*) => { $(
        #[test]
        fn $test() {
            n_each_way(Slot::$slot.server(), Slot::$slot.server());
        }
    )* };
}

each_slot!(
    n_each_way_and_none_back_on_the_oldest Oldest,
    n_each_way_and_none_back_on_the_usual Usual,
    n_each_way_and_none_back_on_the_newest_redis NewestRedis,
    n_each_way_and_none_back_on_the_newest_valkey NewestValkey
);

#[test]
fn n_each_way_and_none_back_between_neighbouring_versions() {
    for (source, target) in neighbours() {
        eprintln!("{source} and {target}");
        n_each_way(&source, &target);
    }
}

#[test]
fn only_the_selected_databases_are_synced() {
    let (a, b) = (usual(), usual());
    for (server, word) in [(&a, "a"), (&b, "b")] {
        let mut c = server.client();
        c.run("SELECT 1");
        c.run(&format!("SET left-alone {word}"));
    }
    let _duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()).policy("databases = [0, 3]"));
    for (server, word) in [(&a, "a"), (&b, "b")] {
        let mut c = server.client();
        for db in [0, 1, 3, 5] {
            c.run(&format!("SELECT {db}"));
            c.run(&format!("SET from-{word} {db}"));
        }
        // A transaction across selected and unselected databases.
        for line in
            ["MULTI", "SELECT 3", "RPUSH list-$w x", "SELECT 5", "SET other-$w x", "SELECT 0", "SET last-$w x", "EXEC"]
        {
            c.run(&line.replace("$w", word));
        }
    }
    let selected = |server: &Server| {
        let all = keyspace(server);
        all.into_iter().filter(|((db, _), _)| [0, 3].contains(db)).collect::<support::compare::Keyspace>()
    };
    wait_for("the selected databases are equal", secs(10), || {
        let (left, right) = (selected(&a), selected(&b));
        let different = differences(&left, &right);
        match (left.len(), different.is_empty()) {
            (8, true) => Ok(()),
            (n, _) => Err(format!("{n} keys, {different:?}")),
        }
    });
    for (server, own, other) in [(&a, "a", "b"), (&b, "b", "a")] {
        for db in [1, 5] {
            let mut c = server.client();
            c.run(&format!("SELECT {db}"));
            assert_eq!(c.run(&format!("GET from-{own}")).text(), db.to_string());
            assert_eq!(c.run(&format!("EXISTS from-{other}")).int(), 0, "db{db} is not selected");
        }
    }
}

#[test]
fn pause_holds_changes_back_and_resume_brings_them() {
    let (a, b) = (usual(), usual());
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    sets(&a, "before", 10);
    assert_equal_within(&a, &b, secs(10));
    duplex.run(&["pause", &duplex.name]).code(0);
    duplex.wait_state("paused", secs(10));
    sets(&a, "meanwhile-a", 100);
    sets(&b, "meanwhile-b", 100);
    a.client().run("INCR count");
    b.client().run("RPUSH list x");
    let brought =
        b.client().run("EXISTS meanwhile-a:0 count").int() + a.client().run("EXISTS meanwhile-b:0 list").int();
    assert_eq!(brought, 0, "a paused job brought changes");
    duplex.run(&["resume", &duplex.name]).code(0);
    duplex.wait_state("synchronizing", secs(20));
    assert_eq!(assert_equal_within(&a, &b, secs(10)).len(), 212);
    assert_eq!(a.client().run("GET count").text(), "1");
    assert_eq!(a.client().run("LLEN list").int(), 1);
    duplex.run(&["pause", &duplex.name]).code(0);
    // `start` with the name of a known job resumes it too.
    duplex.run(&["start", &duplex.name]).code(0);
    duplex.wait_state("synchronizing", secs(20));
}

#[test]
fn stop_removes_the_control_keys_and_nothing_else() {
    let (a, b) = (usual(), usual());
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()).policy("databases = [2, 4]"));
    for server in [&a, &b] {
        let mut c = server.client();
        c.run("SELECT 4");
        c.run(&format!("SET from:{} x", server.port));
    }
    assert_equal_within(&a, &b, secs(10));
    assert!(
        !control_keys(&a).is_empty() && !control_keys(&b).is_empty(),
        "{:?} {:?}",
        control_keys(&a),
        control_keys(&b)
    );
    assert!(control_keys(&b).iter().all(|k| k.starts_with("db2 duplex:")), "{:?}", control_keys(&b));
    duplex.run(&["stop", &duplex.name]).code(0);
    assert_eq!((control_keys(&a), control_keys(&b)), (vec![], vec![]));
    assert_eq!((key_count(&a), key_count(&b)), (2, 2));
    sets(&a, "after", 1);
    assert!(duplex.try_status().map_or(true, |s| s.state() == "ended"));
    assert_eq!(b.client().run("EXISTS after:0").int(), 0);
}

#[test]
fn a_target_with_keys_is_refused_by_default() {
    let (a, b) = (usual(), usual());
    a.client().run("SET k source");
    b.client().run("SET k target");
    let mut duplex = Duplex::new(&JobSpec::between(a.addr(), b.addr()));
    duplex.engine();
    let file = duplex.job_file.to_str().expect("a path").to_owned();
    duplex.run(&["precheck", &file]).code(3).says(&["empty", "existing_keys"]);
    duplex.run(&["start", &file]).code(3).says(&["empty"]);
    assert_eq!(b.client().run("GET k").text(), "target");
    assert_eq!((key_count(&a), key_count(&b)), (1, 1), "a refused job left something behind");
}

#[test]
fn ignore_overwrites_the_same_key_and_leaves_the_others_where_they_are() {
    let (a, b) = (usual(), usual());
    a.client().run("MSET both source only-source x");
    b.client().run("MSET both target only-target x");
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()).policy("existing_keys = \"ignore\""));
    wait_value(&b, "GET both", "source");
    wait_value(&b, "GET only-source", "x");
    duplex.wait_applied(&a, &b, secs(10));
    assert_eq!(a.client().run("EXISTS only-target").int(), 0);
    assert_eq!(b.client().run("EXISTS only-target").int(), 1);
    // From here on what was left at the target is as good as any key there.
    b.client().run("APPEND only-target y");
    wait_value(&a, "EXISTS only-target", "1");
}

#[test]
fn merge_gives_each_side_what_only_the_other_has() {
    let (a, b) = (usual(), usual());
    a.client().run("MSET both source only-source x");
    b.client().run("MSET both target only-target x");
    for i in 0..500 {
        a.client().run(&format!("SADD set-a:{i} {i}"));
        b.client().run(&format!("HSET hash-b:{i} f {i}"));
    }
    b.client().run("SET going v PX 3600000");
    let _duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()).policy("existing_keys = \"merge\""));
    let equal = assert_equal_within(&a, &b, secs(20));
    assert_eq!(equal.len(), 1004);
    assert_eq!(a.client().run("GET both").text(), "source");
    assert_eq!(a.client().run("GET only-target").text(), "x");
}

#[test]
fn expiry_is_carried_and_an_expired_key_is_gone_at_both_sides() {
    for slot in Slot::ALL {
        let (a, b) = (Server::start(slot.server(), &[]), Server::start(slot.server(), &[]));
        a.client().run("SET in-the-snapshot v PX 3600000");
        a.client().run("SET soon-in-the-snapshot v PX 1500");
        let _duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
        a.client().run("SET lives v EX 3600");
        b.client().run("SET lives-too v PX 3600000");
        a.client().run("SET soon v PX 700");
        b.client().run("RPUSH soon-list v");
        b.client().run("PEXPIRE soon-list 700");
        let equal = wait_for("what had to expire is gone", secs(10), || match assert_equal_within(&a, &b, secs(10)) {
            all if all.len() == 3 => Ok(all),
            all => Err(format!("{:?}", all.keys())),
        });
        assert!(equal.values().all(|e| e.expires.is_some()), "{equal:?}");
    }
}

#[test]
fn a_published_message_is_heard_once_at_the_other_side() {
    let (a, b) = (usual(), usual());
    let _duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    for (from, to) in [(&a, &b), (&b, &a)] {
        let mut hearers = [subscriber(from, "news"), subscriber(to, "news")];
        let mut publisher = from.client();
        for text in ["one", "two", "end"] {
            publisher.run(&format!("PUBLISH news {text}"));
        }
        // A change after the messages: what returned would have been heard before it came back.
        publisher.run(&format!("SET after:{} v", from.port));
        wait_value(to, &format!("GET after:{}", from.port), "v");
        publisher.run("PUBLISH news last");
        for hearer in &mut hearers {
            let heard: Vec<String> = (0..4).map(|_| hearer.read().expect("a message").items()[2].text()).collect();
            assert_eq!(heard, ["one", "two", "end", "last"]);
        }
    }
}

#[test]
fn transactions_and_scripts_stay_whole() {
    let (a, b) = (usual(), usual());
    let _duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    let watched = Observer::of(&b);
    let mut c = a.client();
    for i in 0..200 {
        for line in ["MULTI", "INCR n", "RPUSH list $i", "SET k:$i v EX 1000", "HSET h $i $i", "EXEC"] {
            c.run(&line.replace("$i", &i.to_string()));
        }
        c.run(&format!("EVAL \"redis.call('INCR', KEYS[1]) redis.call('SADD', KEYS[2], ARGV[1]) return 1\" 2 n s {i}"));
    }
    assert_equal_within(&a, &b, secs(20));
    assert_eq!(b.client().run("GET n").text(), "400");
    // Whatever the engine made of them, no transaction of A was cut in two: n and list move together.
    for unit in watched.units() {
        let count = |name: &str, key: &str| {
            unit.iter()
                .filter(|c| c[0].eq_ignore_ascii_case(name.as_bytes()) && c.get(1).is_some_and(|k| k == key.as_bytes()))
                .count()
        };
        assert_eq!(count("RPUSH", "list") + count("SADD", "s"), count("INCR", "n"), "{unit:?}");
    }
}

#[test]
fn big_values_pass_in_the_snapshot_and_in_the_stream() {
    let (a, b) = (usual(), usual());
    let big = |server: &Server, name: &str| {
        let mut c = server.client();
        c.call(&[b"SET".to_vec(), format!("{name}:string").into_bytes(), vec![b'x'; 20 << 20]]);
        for (command, per) in [("HSET", 2), ("SADD", 1), ("RPUSH", 1)] {
            for chunk in 0..100 {
                let mut args = vec![command.to_owned(), format!("{name}:{command}")];
                args.extend((0..1000 * per).map(|i| format!("{chunk}-{i}")));
                assert!(!c.call(&args).is_error());
            }
        }
    };
    big(&a, "snapshot");
    let _duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    assert_eq!(assert_equal_within(&a, &b, secs(60)).len(), 4);
    big(&a, "forward");
    big(&b, "reverse");
    assert_eq!(assert_equal_within(&a, &b, secs(60)).len(), 12);
}

#[test]
fn a_flush_is_not_forwarded_but_told_and_the_sync_goes_on() {
    let (a, b) = (usual(), usual());
    let mut duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    sets(&a, "k", 100);
    assert_equal_within(&a, &b, secs(10));
    a.client().run("FLUSHALL");
    wait_for("the flush is told", secs(10), || {
        let events = duplex.run(&["events", &duplex.name, "--json"]).stdout;
        if events.contains("flush_seen") { Ok(()) } else { Err(events) }
    });
    assert_eq!(b.client().run("EXISTS k:0 k:99").int(), 2, "the flush was forwarded");
    // It took the control keys of the reverse link with it: they come back, and nothing is applied twice.
    wait_for("the control keys are written again", secs(10), || match control_keys(&a) {
        keys if keys.is_empty() => Err("none".to_owned()),
        _ => Ok(()),
    });
    for round in 1..=3 {
        a.client().run("INCR n");
        b.client().run("INCR m");
        wait_value(&b, "GET n", &round.to_string());
        wait_value(&a, "GET m", &round.to_string());
        if round == 2 {
            duplex.crash();
            duplex.revive();
            duplex.wait_state("synchronizing", secs(20));
        }
    }
}

#[test]
fn a_flush_is_forwarded_where_the_policy_says_so() {
    let (a, b) = (usual(), usual());
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()).policy("forward_flush = true"));
    for (from, to) in [(&a, &b), (&b, &a)] {
        sets(from, "k", 100);
        assert_equal_within(&a, &b, secs(10));
        from.client().run("FLUSHALL");
        wait_value(to, "EXISTS k:0", "0");
        from.client().run("SET after flush");
        wait_value(to, "GET after", "flush");
        assert_equal_within(&a, &b, secs(10));
    }
    duplex.wait_state("synchronizing", secs(10));
}

#[test]
fn a_swap_of_the_database_that_holds_the_control_keys_breaks_nothing() {
    let (a, b) = (usual(), usual());
    let mut duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    a.client().run("RPUSH list 1");
    wait_value(&b, "LLEN list", "1");
    a.client().run("SWAPDB 0 1");
    a.client().run("RPUSH list 2");
    // A write at the other side that crosses a swap is told of, not settled: here it comes after.
    wait_value(&b, "LINDEX list 0", "2");
    b.client().run("INCR n");
    assert_equal_within(&a, &b, secs(10));
    duplex.crash();
    a.client().run("RPUSH list 3");
    b.client().run("RPUSH other 1");
    duplex.revive();
    duplex.wait_state("synchronizing", secs(20));
    assert_equal_within(&a, &b, secs(10));
    assert_eq!(a.client().run("LRANGE list 0 -1").items().len(), 2);
}

#[test]
fn a_write_before_the_swap_arrives_goes_to_the_database_that_was_meant() {
    let (a, b) = (usual(), usual());
    let to_b = Proxy::to(b.port);
    let _duplex = Duplex::synced(&JobSpec::between(a.addr(), to_b.addr()));
    to_b.delay(Duration::from_millis(150));
    a.client().run("SWAPDB 0 1");
    // The swap is on its way to B, which still calls this database 0.
    b.client().run("INCR n");
    assert_equal_within(&a, &b, secs(10));
    let mut at_a = a.client();
    at_a.run("SELECT 1");
    assert_eq!(at_a.run("GET n").text(), "1");
}

#[test]
fn one_way_brings_nothing_back() {
    let (a, b) = (usual(), usual());
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()).policy("two_way = false"));
    b.client().run("SET at-b v");
    a.client().run("SET at-a v");
    wait_value(&b, "GET at-a", "v");
    assert_eq!(a.client().run("EXISTS at-b").int(), 0);
    let status = duplex.status();
    assert!(status.link("reverse").is_none_or(|l| l["state"] == "not_configured"), "{:#}", status.0);
    assert_eq!(control_keys(&a), Vec::<String>::new());
}

#[test]
fn wait_at_the_source_means_applied_at_the_other_side() {
    let (a, b) = (usual(), usual());
    let _duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    let (mut at_a, mut at_b) = (a.client(), b.client());
    for i in 0..50 {
        at_a.run(&format!("SET k {i}"));
        assert_eq!(at_a.run("WAIT 1 5000").int(), 1, "change {i} was not acknowledged within 5 s");
        assert_eq!(at_b.run("GET k").text(), i.to_string());
    }
}

#[test]
fn a_chain_of_two_jobs_carries_changes_from_end_to_end() {
    let (a, b, c) = (usual(), usual(), usual());
    let mut duplex = Duplex::new(&JobSpec::between(a.addr(), b.addr()).name("ab"));
    duplex.start();
    let second = duplex.home().join("second.toml");
    std::fs::write(&second, JobSpec::between(b.addr(), c.addr()).name("bc").toml()).expect("write the job file");
    duplex.run(&["start", second.to_str().expect("a path")]).code(0);
    for (server, word) in [(&a, "a"), (&b, "b"), (&c, "c")] {
        sets(server, word, 500);
        server.client().run("INCR n");
    }
    assert_eq!(assert_equal_within(&a, &c, secs(20)).len(), 1501);
    assert_equal_within(&a, &b, secs(20));
    assert_eq!(b.client().run("GET n").text(), "3");
}

#[test]
fn accounts_are_taken_from_the_file_the_environment_a_file_or_a_command() {
    let (a, b) = (Server::start(Slot::Usual.server(), &["--requirepass", "a:b:c"]), usual());
    b.client().run("ACL SETUSER sync on >pass:word ~* &* +@all");
    b.client().run("ACL SETUSER default off");
    for (line, name) in [
        ("account = \":a:b:c\"", "inline"),
        ("account_env = \"SYNC_ACCOUNT\"", "env"),
        ("account_file = \"$home/account\"", "file"),
        ("account_command = \"echo :a:b:c\"", "command"),
    ] {
        let job = JobSpec::between(a.addr(), b.addr()).name(name).policy("existing_keys = \"merge\"");
        let mut duplex = Duplex::new(&job);
        let line = line.replace("$home", duplex.home().to_str().expect("a path"));
        let job = job.source_line(&line).target_line("account = \"sync:pass:word\"");
        std::fs::write(&duplex.job_file, job.toml()).expect("write the job file");
        std::fs::write(duplex.home().join("account"), ":a:b:c\n").expect("write the account");
        duplex.env("SYNC_ACCOUNT", ":a:b:c");
        duplex.start();
        duplex.wait_state("synchronizing", secs(20));
        a.client().run(&format!("SET via {name}"));
        let mut at_b = Client::to(b.port);
        at_b.run("AUTH sync pass:word");
        wait_for("the change arrives", secs(10), || match at_b.run("GET via").text() {
            v if v == name => Ok(()),
            v => Err(v),
        });
        duplex.run(&["stop", name]).code(0);
        assert!(!duplex.log_tail().contains("b:c"), "a password in a log:\n{}", duplex.log_tail());
    }
}

#[test]
fn start_brings_an_engine_up_that_outlives_it() {
    let (a, b) = (usual(), usual());
    let duplex = Duplex::new(&JobSpec::between(a.addr(), b.addr()));
    duplex.run(&["status"]).code(5);
    duplex.start_job();
    let status: Value = serde_json::from_str(&duplex.run(&["status", "--json"]).stdout).expect("JSON");
    let pid = u32::try_from(status["engine_pid"].as_u64().expect("engine_pid")).expect("a pid");
    a.client().run("SET k v");
    wait_value(&b, "GET k", "v");
    signal(pid, Signal::SIGTERM);
    wait_for("the engine ends", secs(20), || match duplex.run(&["status"]) {
        ended if ended.code == Some(5) => Ok(()),
        ended => Err(ended.text()),
    });
}

#[test]
fn foreground_runs_until_it_is_told_to_end() {
    let (a, b) = (usual(), usual());
    let duplex = Duplex::new(&JobSpec::between(a.addr(), b.addr()));
    let (mut child, lines) = duplex.spawn(&["start", "--foreground", duplex.job_file.to_str().expect("a path")]);
    a.client().run("SET k v");
    wait_value(&b, "GET k", "v");
    wait_for("it prints a status line", secs(10), || match lines.lock().expect("its lines").clone() {
        text if text.contains("synchronizing") => Ok(()),
        text => Err(text),
    });
    signal(child.id(), Signal::SIGTERM);
    let code = wait_for("it ends", secs(20), || match child.try_wait() {
        Ok(Some(status)) => Ok(status.code()),
        other => Err(format!("{other:?}")),
    });
    assert!(matches!(code, Some(0 | 130)), "{code:?}");
}

#[test]
fn verify_finds_what_differs_and_repairs_it() {
    let (a, b) = (usual(), usual());
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    sets(&a, "k", 1_000);
    assert_equal_within(&a, &b, secs(10));
    let outcome: Value =
        serde_json::from_str(&duplex.run(&["verify", &duplex.name, "--json"]).code(0).stdout).expect("JSON");
    assert_eq!(
        (&outcome["equal"], &outcome["keys_compared"]),
        (&Value::from(true), &Value::from(1_000)),
        "{outcome:#}"
    );
    duplex.run(&["pause", &duplex.name]).code(0);
    duplex.wait_state("paused", secs(10));
    a.client().run("SET k:7 other");
    a.client().run("DEL k:8");
    b.client().run("PEXPIRE k:9 3600000");
    let found = duplex.run(&["verify", &duplex.name, "--json"]).code(1);
    let outcome: Value = serde_json::from_str(&found.stdout).expect("JSON");
    assert_eq!(
        (&outcome["equal"], &outcome["examples"].as_array().map(Vec::len)),
        (&Value::from(false), &Some(3)),
        "{outcome:#}"
    );
    for key in ["k:7", "k:8", "k:9"] {
        assert!(found.stdout.contains(key), "{}", found.stdout);
    }
    // Running again, the links bring what was written meanwhile: nothing differs any more.
    duplex.run(&["resume", &duplex.name]).code(0);
    assert_equal_within(&a, &b, secs(10));
}

#[test]
fn verify_repairs_what_no_stream_told_of() {
    let (a, b) = (usual(), usual());
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    sets(&a, "k", 1_000);
    assert_equal_within(&a, &b, secs(10));
    // Written behind the engine's back: marked as if it were the job's own echo, so nobody forwards it.
    let marker = control_keys(&b).into_iter().find(|k| k.ends_with(":forward")).expect("the control key");
    let marker = marker.split_once(' ').map_or(marker.clone(), |(_, key)| key.to_owned());
    let mut at_b = b.client();
    let value = at_b.run(&format!("GET {marker}")).text();
    for change in ["SET k:7 other", "DEL k:8", "PEXPIRE k:9 3600000", "RPUSH extra 1"] {
        at_b.run("MULTI");
        at_b.call(&["SET", &marker, &value]);
        at_b.run(change);
        at_b.run("EXEC");
    }
    let found = duplex.run(&["verify", &duplex.name, "--json"]).code(1);
    let outcome: Value = serde_json::from_str(&found.stdout).expect("JSON");
    assert_eq!(outcome["examples"].as_array().map(Vec::len), Some(4), "{outcome:#}");
    let repaired = duplex.run(&["verify", &duplex.name, "--repair", "--json"]);
    let outcome: Value = serde_json::from_str(&repaired.stdout).expect("JSON");
    assert_eq!(outcome["repaired"], Value::from(4), "{outcome:#}");
    assert_equal_within(&a, &b, secs(10));
    assert_eq!(a.client().run("GET k:7").text(), b.client().run("GET k:7").text());
    assert_eq!(b.client().run("EXISTS extra").int(), 0, "the source's word stands");
}

#[test]
fn status_holds_what_the_interface_promises() {
    let (a, b) = (usual(), usual());
    let mut duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    let whole: Value = serde_json::from_str(&duplex.run(&["status", "--json"]).code(0).stdout).expect("JSON");
    assert_eq!((&whole["version"], &whole["engine_pid"]), (&Value::from(1), &Value::from(duplex.engine_pid())));
    let job = duplex.status();
    for direction in ["forward", "reverse"] {
        let link = job.link(direction).unwrap_or_else(|| panic!("{:#}", job.0));
        for field in [
            "state",
            "reason",
            "snapshot",
            "lag_ms",
            "lag_bytes",
            "changes_per_second",
            "bytes_per_second",
            "changes_applied",
            "echoes_dropped",
            "conflicts_settled",
            "conflict_rounds",
            "apply_errors",
            "resume_window_seconds",
            "spool_bytes",
            "shards",
        ] {
            assert!(link.get(field).is_some(), "{direction}.{field} is missing in {link:#}");
        }
        for field in ["address", "replid", "offset_received", "offset_applied"] {
            assert!(link["shards"][0].get(field).is_some(), "{direction}.shards.{field} is missing in {link:#}");
        }
    }
    // Idle is no lag.
    duplex.wait_status("the lag is small", secs(10), |s| {
        ["forward", "reverse"].iter().all(|d| s.link(d).and_then(|l| l["lag_ms"].as_u64()).is_some_and(|ms| ms < 2_000))
    });
    assert_eq!(duplex.terminate(), Some(0));
}

#[test]
fn rate_limit_holds() {
    let (a, b) = (usual(), usual());
    let _duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()).limits("max_ops_per_second = 500"));
    let began = std::time::Instant::now();
    sets(&a, "k", 2_000);
    assert_equal_within(&a, &b, secs(30));
    // A second's worth may go out at once.
    assert!(began.elapsed() > Duration::from_millis(2_500), "2,000 changes at 500 a second took {:?}", began.elapsed());
}
