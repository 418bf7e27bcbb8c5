//! Least rights: the line that the precheck prints lets a job do all it does, and of its words none is too many. Passwords
//! change under a running job.

mod support;

use support::{
    load::{Tally, assert_tally, fill, sized},
    versions::Slot,
    words::words,
    *,
};

/// The words behind `ACL SETUSER <user>` that the precheck prints for an account that may log in, and no more.
fn printed(duplex: &Duplex, user: &str) -> Vec<String> {
    let file = duplex.job_file.to_str().expect("a path");
    let report = duplex.run(&["precheck", file, "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report.stdout).expect("a report");
    let remedies = report["items"].as_array().expect("items").iter().filter_map(|i| i["remedy"].as_str());
    let mark = format!("ACL SETUSER {user} ");
    let line = remedies.flat_map(|r| r.lines()).find_map(|l| Some(l.split_once(&mark)?.1.to_owned()));
    line.unwrap_or_else(|| panic!("no line for {user} in {report:#}")).split(' ').map(str::to_owned).collect()
}

fn grant(server: &Server, user: &str, words: &[String]) {
    let mut client = server.client();
    let mut command = vec!["ACL".to_owned(), "SETUSER".into(), user.into(), "reset".into(), "on".into(), ">pw".into()];
    command.extend(words.iter().cloned());
    let reply = client.call(&command);
    assert!(!reply.is_error(), "{command:?}: {reply:?}");
}

/// What the server has refused this user since it was last asked.
fn refused(server: &Server, user: &str) -> Vec<String> {
    let log = server.client().run("ACL LOG 100");
    let words = |r: &Reply| r.items().iter().map(|w| format!("{w:?}").trim_matches('"').to_owned()).collect::<Vec<_>>();
    let entries = log.items().iter().map(words).filter(|w| w.iter().any(|w| w == user));
    let all = entries.filter_map(|w| Some(w.iter().skip_while(|w| *w != "object").nth(1)?.clone()));
    let all: Vec<String> = all.collect();
    server.client().run("ACL LOG RESET");
    // The precheck asks who it is, and does without where it may not.
    let needless = |what: &String| what == "acl|whoami" || what == "acl";
    all.into_iter().filter(|what| !needless(what)).collect()
}

/// A job of two accounts, each of which may do what the precheck prints for it.
fn job(a: &Server, b: &Server, policy: &str) -> JobSpec {
    JobSpec::between(a.addr(), b.addr())
        .source_line("account = \"reader:pw\"")
        .target_line("account = \"writer:pw\"")
        .policy(policy)
}

/// Grants both accounts what is printed for them; gives the words.
fn granted(a: &Server, b: &Server, spec: &JobSpec) -> [Vec<String>; 2] {
    let duplex = Duplex::new(spec);
    let weak = ["+ping".to_owned(), "+client|setname".to_owned()];
    grant(a, "reader", &weak);
    grant(b, "writer", &weak);
    let source = printed(&duplex, "reader");
    grant(a, "reader", &source);
    let target = printed(&duplex, "writer");
    grant(b, "writer", &target);
    let file = duplex.job_file.to_str().expect("a path");
    duplex.run(&["precheck", file]).code(0);
    [source, target]
}

/// All kinds of things that a job comes across: a copy, each type, conflicts, expiry, scripts, messages, a flush.
fn all_kinds(a: &Server, b: &Server, two_way: bool) {
    let lines = [
        "SET s 1",
        "APPEND s 2",
        "INCR n",
        "SETEX e 1000 v",
        "PEXPIRE s 100000",
        "PERSIST s",
        "GETDEL n",
        "RPUSH l 1 2 3",
        "LPOP l",
        "LMOVE l m LEFT RIGHT",
        "SADD set a b c",
        "SPOP set",
        "SUNIONSTORE u set set",
        "HSET h f v g w",
        "HINCRBYFLOAT h x 1.5",
        "HDEL h f",
        "ZADD z 1 a 2 b",
        "ZPOPMIN z",
        "ZRANGESTORE zz z 0 -1",
        "GEOADD geo 1 1 p",
        "PFADD pf a b",
        "XADD x * f v",
        "XGROUP CREATE x g 0",
        "XREADGROUP GROUP g c COUNT 1 STREAMS x >",
        "XTRIM x MAXLEN 1",
        "SETBIT bits 7 1",
        "BITOP NOT bits2 bits",
        "COPY s copied",
        "RENAME copied renamed",
        "SORT set ALPHA STORE sorted",
        "MSET m1 1 m2 2",
        "DEL m1 m2",
        "UNLINK s",
        "PUBLISH news hello",
        "EVAL \"redis.call('SET', KEYS[1], 'x') redis.call('INCR', KEYS[2])\" 2 by:script other:script",
    ];
    for line in lines {
        // The second time some of it is there already; and while a stream is being settled, its group is of the moment.
        let run = |server: &Server, line: &str| {
            if let Reply::Error(e) = server.client().call(&words(line)) {
                let passing = e.starts_with("BUSYGROUP") || e.starts_with("NOGROUP") || e.contains("no such key");
                // Older servers have fewer commands.
                let unknown = e.starts_with("ERR unknown command");
                assert!(passing || unknown || e.contains("equal or smaller"), "{line}: {e}");
            }
        };
        run(a, line);
        if two_way {
            run(b, &line.replace(" s ", " sb "));
        }
    }
    for i in 0..200 {
        a.client().run(&format!("RPUSH hot {i}"));
        if two_way {
            b.client().run(&format!("RPUSH hot {i}"));
            b.client().run("DEL hot2");
        }
        a.client().run("SET hot2 x PX 5");
    }
    // A value above the size that goes in one piece.
    a.client().run("SETRANGE big 2000000 x");
}

fn the_printed_line_suffices(slot: Slot, two_way: bool) {
    it_suffices(slot.server(), two_way);
}

/// Where `make test` has not installed it, `make soak` does.
fn is_here(name: &str) -> bool {
    support::versions::home(name).exists()
}

fn it_suffices(name: &str, two_way: bool) {
    let (a, b) = (Server::start(name, &[]), Server::start(name, &[]));
    fill(&a, 500, true);
    let policy = format!("two_way = {two_way}\nforward_flush = true");
    let spec = job(&a, &b, &policy);
    granted(&a, &b, &spec);
    refused(&a, "reader");
    refused(&b, "writer");
    let mut duplex = Duplex::synced(&spec);
    all_kinds(&a, &b, two_way);
    duplex.crash();
    all_kinds(&a, &b, two_way);
    duplex.revive();
    duplex.wait_state("synchronizing", secs(60));
    assert_equal_within(&a, &b, secs(60));
    a.client().run("FLUSHALL");
    a.client().run("SET after flush");
    assert_equal_within(&a, &b, secs(60));
    duplex.run(&["verify", &duplex.name]).code(0);
    duplex.run(&["stop", &duplex.name]).code(0);
    assert_eq!([refused(&a, "reader"), refused(&b, "writer")], [Vec::<String>::new(), vec![]]);
    assert_eq!(support::compare::control_keys(&a).len() + support::compare::control_keys(&b).len(), 0);
}

#[test]
fn the_printed_line_suffices_on_the_usual() {
    the_printed_line_suffices(Slot::Usual, true);
}

#[test]
fn the_printed_line_suffices_on_the_newest_redis() {
    the_printed_line_suffices(Slot::NewestRedis, true);
}

#[test]
fn the_printed_line_suffices_on_the_newest_valkey() {
    the_printed_line_suffices(Slot::NewestValkey, true);
}

/// Its accounts have no rights to channels, and refuse the word for them.
#[test]
fn the_printed_line_suffices_on_6_0() {
    if is_here("redis-6.0") {
        it_suffices("redis-6.0", true);
    }
}

#[test]
fn the_printed_line_suffices_on_6_2() {
    if is_here("redis-6.2") {
        it_suffices("redis-6.2", false);
    }
}

#[test]
fn the_printed_line_suffices_one_way() {
    the_printed_line_suffices(Slot::Usual, false);
}

#[test]
fn each_word_of_the_printed_line_is_needed_and_is_named_when_it_is_missing() {
    let (usual, valkey) = (Slot::Usual.server(), Slot::NewestValkey.server());
    let more: &[(&str, bool)] = if sized(0, 1) == 1 { &[("redis-6.2", true), ("redis-6.0", false)] } else { &[] };
    let all = [(usual, true), (valkey, false), ("redis-6.0", true)].into_iter().chain(more.iter().copied());
    for (name, two_way) in all.filter(|(name, _)| is_here(name)) {
        let (a, b) = (Server::start(name, &[]), Server::start(name, &[]));
        let spec = job(&a, &b, &format!("two_way = {two_way}"));
        let words = granted(&a, &b, &spec);
        let duplex = Duplex::new(&spec);
        let file = duplex.job_file.to_str().expect("a path");
        for (server, user, words) in [(&a, "reader", &words[0]), (&b, "writer", &words[1])] {
            for (n, word) in words.iter().enumerate() {
                let mut fewer = words.clone();
                fewer.remove(n);
                grant(server, user, &fewer);
                let report = duplex.run(&["precheck", file, "--json"]);
                let report: serde_json::Value = serde_json::from_str(&report.stdout).expect("a report");
                let items = report["items"].as_array().expect("items");
                let named = items.iter().any(|i| {
                    matches!(i["state"].as_str(), Some("failed" | "warning"))
                        && i["remedy"].as_str().is_some_and(|r| {
                            r.lines().any(|l| l.contains(&format!("SETUSER {user}")) && l.split(' ').any(|w| w == word))
                        })
                });
                assert!(named, "{name}, {user}, two_way = {two_way}: nobody misses {word}:\n{report:#}");
            }
            grant(server, user, words);
        }
    }
}

/// Ends the engine's connections, so that it has to log in again.
fn kill_connections(server: &Server) {
    let mut client = server.client();
    for line in client.run("CLIENT LIST").text().lines().filter(|l| l.contains("name=duplex:")) {
        let id = line.split(' ').find_map(|f| f.strip_prefix("id=")).expect("an id");
        client.call(&["CLIENT", "KILL", "ID", id]);
    }
}

#[test]
fn passwords_change_under_a_running_job() {
    let name = Slot::Usual.server();
    let (a, b) = (Server::start(name, &[]), Server::start(name, &[]));
    for server in [&a, &b] {
        server.client().run("ACL SETUSER app on >first ~* &* +@all");
    }
    let dir = tempfile::tempdir().expect("a folder");
    let (plain, vault) = (dir.path().join("account"), dir.path().join("vault"));
    let write = |text: &str| {
        std::fs::write(&plain, format!("app:{text}\n")).expect("write");
        std::fs::write(&vault, format!("app:{text}\n")).expect("write");
    };
    write("first");
    let spec = JobSpec::between(a.addr(), b.addr())
        .source_line(&format!("account_file = {:?}", plain.display().to_string()))
        .target_line(&format!("account_command = \"cat {}\"", vault.display()));
    let duplex = Duplex::synced(&spec);
    let mut loads = [Tally::start(&a, "a", 500), Tally::start(&b, "b", 500)];
    // In good order: the new password is valid before the old one goes.
    for server in [&a, &b] {
        server.client().run("ACL SETUSER app >second");
    }
    write("second");
    for server in [&a, &b] {
        server.client().run("ACL SETUSER app <first");
        kill_connections(server);
    }
    duplex.wait_state("synchronizing", secs(60));
    // The wrong way round: it is told, and mended by the file alone.
    for server in [&a, &b] {
        server.client().run("ACL SETUSER app >third <second");
        kill_connections(server);
    }
    duplex.wait_status("the refusal is told", secs(40), |s| {
        s.0.to_string().contains("rejected the user or the password")
    });
    write("third");
    duplex.wait_state("synchronizing", secs(60));
    let steps = loads.each_mut().map(|l| l.stop());
    assert_equal_within(&a, &b, secs(60));
    for server in [&a, &b] {
        assert_tally(server, "a", steps[0]);
        assert_tally(server, "b", steps[1]);
    }
    let all = format!("{}{}", duplex.run(&["events", &duplex.name]).text(), duplex.log_tail());
    assert!(!["first", "second", "third"].iter().any(|p| all.contains(&format!("app:{p}"))), "a password is told");
}

#[test]
fn a_right_that_is_taken_away_under_a_running_job_is_named() {
    // From a server with fields that expire to one that has no word for them: such keys go as whole values.
    let (a, b) = (Server::start(Slot::NewestRedis.server(), &[]), Server::start(Slot::Usual.server(), &[]));
    let spec = job(&a, &b, "two_way = false");
    granted(&a, &b, &spec);
    let duplex = Duplex::synced(&spec);
    a.client().run("ACL SETUSER reader -dump");
    a.client().run("HSET h f v");
    a.client().run("HEXPIRE h 1000 FIELDS 1 f");
    let told = |what: &str, words: &[&str]| {
        wait_for(what, secs(30), || {
            let events = duplex.run(&["events", &duplex.name]).text();
            if words.iter().all(|w| events.contains(w)) { Ok(()) } else { Err(events) }
        });
    };
    told("the missing right to read is told", &["can't be had", "DUMP", "ACL SETUSER"]);
    a.client().run("ACL SETUSER reader +dump");
    wait_for("the key has come", secs(60), || match b.client().run("HGET h f") {
        Reply::Nil => Err("nothing".into()),
        _ => Ok(()),
    });
    b.client().run("ACL SETUSER writer -incr");
    a.client().run("INCR n");
    told("the missing right to write is told", &["refuses writes", "'incr'", "ACL SETUSER"]);
    b.client().run("ACL SETUSER writer +incr");
    duplex.wait_applied(&a, &b, secs(60));
    assert_eq!(b.client().run("GET n").int(), 1);
}
