//! Whatever is wrong with the instances or the job file: the exit code says of which kind, the text says what was
//! tried, what was seen and what to do, and nothing hangs.

mod support;

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};
use support::{server::free_port, versions::Slot, *};

fn usual() -> Server {
    Server::start(Slot::Usual.server(), &[])
}

/// Prechecks a job: exit code 3, quickly, with these words; then `start` refuses it the same way.
#[track_caller]
fn refused(job: &JobSpec, words: &[&str]) {
    let mut duplex = Duplex::new(job);
    let file = duplex.job_file.to_str().expect("a path").to_owned();
    let began = Instant::now();
    duplex.run(&["precheck", &file]).code(3).says(words);
    assert!(began.elapsed() < secs(40), "it took {:?} to find out", began.elapsed());
    let json = duplex.run(&["precheck", &file, "--json"]).code(3);
    let report: serde_json::Value =
        serde_json::from_str(&json.stdout).unwrap_or_else(|e| panic!("{e}: {}", json.text()));
    assert_eq!(report["passed"], false, "{report:#}");
    let failed: Vec<_> =
        report["items"].as_array().into_iter().flatten().filter(|i| i["state"] == "failed").cloned().collect();
    assert!(!failed.is_empty(), "{report:#}");
    for item in failed {
        for part in ["seen", "why", "remedy"] {
            assert!(item[part].as_str().is_some_and(|t| !t.is_empty()), "{part} is empty in {item:#}");
        }
    }
    duplex.engine();
    duplex.run(&["start", &file]).code(3).says(words);
}

/// A port where something answers that is not Redis: it says `answer` to whatever comes.
fn impostor(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut buf = [0; 4096];
                let _ = client.set_read_timeout(Some(Duration::from_secs(30)));
                while let Ok(1..) = client.read(&mut buf) {
                    if client.write_all(answer).is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

#[test]
fn a_closed_port_is_named() {
    let b = usual();
    let address = format!("127.0.0.1:{}", free_port());
    refused(&JobSpec::between(&address, b.addr()), &[&address, "refused"]);
}

#[test]
fn a_host_that_is_not_known_is_named() {
    let b = usual();
    refused(&JobSpec::between("no-such-host.invalid:6379", b.addr()), &["no-such-host.invalid"]);
}

#[test]
fn an_instance_that_never_answers_is_given_up_in_time() {
    let (a, b) = (usual(), usual());
    let proxy = Proxy::to(b.port);
    proxy.stall(true);
    refused(&JobSpec::between(a.addr(), proxy.addr()), &[&proxy.addr()]);
}

#[test]
fn a_wrong_password_is_told_from_a_missing_one() {
    let (a, b) = (Server::start(Slot::Usual.server(), &["--requirepass", "right"]), usual());
    let job = JobSpec::between(a.addr(), b.addr());
    refused(&job.clone(), &["password"]);
    refused(&job.clone().source_line("account = \":wrong\""), &["password"]);
    refused(&job.source_line("account = \"nobody:right\""), &["user", "password"]);
}

#[test]
fn a_wrong_password_is_told_by_the_oldest_server_too() {
    let (a, b) = (Server::start(Slot::Oldest.server(), &["--requirepass", "right"]), usual());
    let job = JobSpec::between(a.addr(), b.addr());
    refused(&job.clone(), &["password"]);
    refused(&job.source_line("account = \":wrong\""), &["password"]);
}

#[test]
fn missing_rights_are_named_with_the_command_that_grants_them() {
    let (a, b) = (usual(), usual());
    a.client().run("ACL SETUSER sync on >pw ~* &* +@all -psync");
    b.client().run("ACL SETUSER sync on >pw ~app:* &* +@all -restore -eval");
    let job = JobSpec::between(a.addr(), b.addr());
    refused(&job.clone().source_line("account = \"sync:pw\""), &["psync", "ACL SETUSER sync"]);
    refused(&job.target_line("account = \"sync:pw\""), &["restore", "ACL SETUSER sync", "~*"]);
}

#[test]
fn a_target_that_is_a_replica_is_refused_with_its_masters_address() {
    let (a, b, master) = (usual(), usual(), usual());
    b.client().run(&format!("REPLICAOF 127.0.0.1 {}", master.port));
    refused(&JobSpec::between(a.addr(), b.addr()), &["replica", &master.addr()]);
}

#[test]
fn a_source_that_is_not_redis_is_told() {
    let b = usual();
    for (answer, word) in [
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".as_slice(), "redis"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "redis"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "tls = true"),
        (b"$99999999999999999999\r\n", "redis"),
        (b"*-5\r\n", "redis"),
    ] {
        let port = impostor(answer);
        refused(&JobSpec::between(format!("127.0.0.1:{port}"), b.addr()), &[&format!("127.0.0.1:{port}"), word]);
    }
}

#[test]
fn both_sides_may_not_be_one_instance() {
    let a = usual();
    // The same words in the file are a mistake of the file; two words for one server are found by asking it.
    let duplex = Duplex::new(&JobSpec::between(a.addr(), a.addr()));
    duplex.run(&["precheck", duplex.job_file.to_str().expect("a path")]).code(2).says(&["two different instances"]);
    refused(&JobSpec::between(a.addr(), format!("localhost:{}", a.port)), &["same"]);
}

#[test]
fn replication_between_the_two_is_seen() {
    let (a, b) = (usual(), usual());
    a.client().run(&format!("REPLICAOF 127.0.0.1 {}", b.port));
    wait_for("the replica is up", secs(20), || match a.info("replication", "master_link_status").as_deref() {
        Some("up") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    refused(&JobSpec::between(a.addr(), b.addr()), &["repli"]);
}

#[test]
fn a_database_that_the_target_does_not_have_is_told() {
    let (a, b) = (usual(), Server::start(Slot::Usual.server(), &["--databases", "2"]));
    let mut c = a.client();
    c.run("SELECT 9");
    c.run("SET k v");
    refused(&JobSpec::between(a.addr(), b.addr()), &["database"]);
    refused(&JobSpec::between(b.addr(), a.addr()).policy("databases = [0, 9]"), &["database"]);
}

#[test]
fn renamed_commands_are_told() {
    let (a, b) = (usual(), Server::start(Slot::Usual.server(), &["--rename-command", "RESTORE", ""]));
    refused(&JobSpec::between(a.addr(), b.addr()), &["restore"]);
}

#[test]
fn a_second_job_between_the_same_two_is_refused() {
    let (a, b) = (usual(), usual());
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    for (name, source, target) in [("again", &a, &b), ("reversed", &b, &a)] {
        let file = duplex.home().join(format!("{name}.toml"));
        let job = JobSpec::between(source.addr(), target.addr()).name(name).policy("existing_keys = \"merge\"");
        std::fs::write(&file, job.toml()).expect("write the job file");
        duplex.run(&["start", file.to_str().expect("a path")]).code(3).says(&["syncs these two instances", "stop"]);
    }
    duplex.wait_state("synchronizing", secs(10));
}

#[test]
fn each_mistake_in_a_job_file_is_named_with_its_line_and_what_is_allowed() {
    let good = JobSpec::between("127.0.0.1:1", "127.0.0.1:2").toml();
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} is not in the file");
        good.replacen(from, to, 1)
    };
    let policy = |line: &str| with("[policy]\n", &format!("[policy]\n{line}\n"));
    let line_of = |text: &str, needle: &str| text.lines().position(|l| l.contains(needle)).map_or(1, |n| n + 1);
    let cases: Vec<(String, &str, Vec<&str>)> = vec![
        (policy("existing_keys = \"keep\""), "existing_keys", vec!["existing_keys", "block", "ignore", "merge"]),
        (policy("conflict = \"first\""), "conflict", vec!["conflict", "overwrite"]),
        (policy("databases = \"some\""), "databases", vec!["databases", "all"]),
        (policy("databases = []"), "databases", vec!["databases", "empty"]),
        (policy("databases = [-1]"), "databases", vec!["database"]),
        (policy("two_way = \"yes\""), "two_way", vec!["two_way", "true"]),
        (policy("tow_way = true"), "tow_way", vec!["tow_way", "two_way"]),
        (with("[limits]\n", "[limits]\nspool_disk = \"10 parsecs\"\n"), "spool_disk", vec!["spool_disk", "GiB"]),
        (with("[limits]\n", "[limits]\nmax_ops_per_second = -3\n"), "max_ops", vec!["max_ops_per_second"]),
        (with("[target]\naddress = \"127.0.0.1:2\"\n", "[target]\n"), "[target]", vec!["target", "address"]),
        (with("[target]\n", "[targets]\n"), "[targets]", vec!["target"]),
        (with("name = \"orders\"\n", ""), "", vec!["name"]),
        (with("name = \"orders\"", "name = \"or ders/\""), "or ders", vec!["name", "letters"]),
        (with("address = \"127.0.0.1:1\"", "address = \"127.0.0.1\""), "address", vec!["address", "port"]),
        (with("address = \"127.0.0.1:1\"", "address = \"127.0.0.1:99999\""), "99999", vec!["address", "99999"]),
        (with("address = \"127.0.0.1:1\"", "address = []"), "address", vec!["address"]),
        (
            with("address = \"127.0.0.1:1\"", "address = \"127.0.0.1:1\"\ntopology = \"ring\""),
            "topology",
            vec!["topology", "auto", "standalone", "cluster", "sentinel"],
        ),
        (
            with("address = \"127.0.0.1:1\"", "address = \"127.0.0.1:1\"\naccount = \"a:b\"\naccount_env = \"X\""),
            "account_env",
            vec!["account", "account_env"],
        ),
        (
            with("address = \"127.0.0.1:1\"", "address = \"127.0.0.1:1\"\ntopology = \"sentinel\""),
            "",
            vec!["master_name"],
        ),
        (with("[source]\n", "[source\n"), "[source", vec![]),
        ("\u{0}\u{1}not toml".to_owned(), "", vec![]),
        (String::new(), "", vec!["name"]),
    ];
    for (text, needle, words) in cases {
        let duplex = Duplex::with_file(&text);
        let file = duplex.job_file.to_str().expect("a path").to_owned();
        for command in ["precheck", "start"] {
            let ended = duplex.run(&[command, &file]);
            assert_eq!(ended.code, Some(2), "{command} of\n{text}\nwrote\n{}", ended.text());
            let ended = ended.says(&["job.toml"]).says(&words);
            if !needle.is_empty() {
                let line = line_of(&text, needle).to_string();
                assert!(ended.text().contains(&line), "line {line} is not named:\n{}\nfor\n{text}", ended.text());
            }
            assert!(!ended.text().contains("panicked"), "{}", ended.text());
        }
    }
}

#[test]
fn a_job_file_that_cannot_be_read_is_named() {
    let duplex = Duplex::with_file("");
    let missing = duplex.home().join("missing.toml");
    for command in ["precheck", "start"] {
        duplex.run(&[command, missing.to_str().expect("a path")]).code(2).says(&["missing.toml"]);
        duplex.run(&[command, duplex.home().to_str().expect("a path")]).code(2);
    }
}

#[test]
fn without_an_engine_each_command_says_so() {
    let duplex = Duplex::with_file("");
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["events"],
        &["pause", "orders"],
        &["stop", "orders"],
        &["verify", "orders"],
    ] {
        duplex.run(args).code(5).says(&["engine"]);
    }
    duplex.run(&["doctor"]).code(0).says(&[duplex.home().to_str().expect("a path")]);
}

#[test]
fn an_unknown_job_is_named() {
    let mut duplex = Duplex::with_file("");
    duplex.engine();
    for command in ["status", "pause", "resume", "stop", "verify", "start"] {
        let ended = duplex.run(&[command, "nobody"]);
        assert!(matches!(ended.code, Some(1 | 2)), "{}: {:?}\n{}", ended.what, ended.code, ended.text());
        ended.says(&["nobody"]);
    }
}

#[test]
fn usage_errors_are_two() {
    let duplex = Duplex::with_file("");
    for args in [&["no-such-command"][..], &["status", "--no-such-flag"], &["precheck"], &["pause"]] {
        duplex.run(args).code(2).says(&["usage"]);
    }
    duplex.run(&["--help"]).code(0).says(&["precheck", "start", "status", "verify"]);
    duplex.run(&["--version"]).code(0).says(&[env!("CARGO_PKG_VERSION")]);
}
