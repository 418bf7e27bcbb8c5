//! The precheck on real servers: each item passing and failing for real.

#[path = "support/precheck_support.rs"]
mod precheck_support;

use precheck_support::*;
use redis_duplex::{
    engine::{
        precheck::{self, PrecheckOptions},
        probe,
    },
    model::{Check, CheckId, CheckState, Databases, Direction, ExistingKeys, Instance, JobId, Topology},
};

use CheckState::{Failed, Passed, Skipped, Warning};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_empty_servers_of_each_version_pass() {
    for name in VERSIONS {
        let (a, b) = (Server::start(name, &[]), Server::start(name, &[]));
        let job = job(a.instance(), b.instance());
        let report = report(&job, None).await;
        for check in &report.items {
            if std::env::var_os("SHOW").is_some() {
                println!(
                    "{name} {:?} {} [{}] why: {} do: {} {} ms",
                    check.state,
                    check.id.as_str(),
                    check.seen,
                    check.why,
                    check.remedy,
                    check.took_ms
                );
            }
            assert_eq!(check.state, Passed, "{name}: {check:#?}");
            assert!(!check.seen.is_empty(), "{name}: {check:#?}");
            assert!(check.took_ms < 10_000, "{check:?}");
        }
        assert!(report.passed);
        let ids: Vec<CheckId> = report.items.iter().map(|c| c.id).collect();
        assert_eq!(ids, CheckId::ALL);
        assert_eq!(a.run("DBSIZE"), redis::Value::Int(0), "the precheck writes nothing");
    }
}

// --- reachable and credentials

/// Nothing of a job is looked at but one side.
fn towards(address: String) -> Instance {
    Instance { addresses: vec![address], ..Instance::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_port_is_told_from_a_silent_server_and_from_another_service() {
    let a = Server::start(USUAL, &[]);

    let closed = format!("127.0.0.1:{}", free_port());
    let check = item(&job(a.instance(), towards(closed.clone())), CheckId::Reachable).await;
    expect(&check, Failed, &["closed", &closed]);
    assert_eq!(check.side, Some(redis_duplex::model::Side::Target));

    let web = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = web.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in web.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let check = item(&job(a.instance(), towards(address)), CheckId::Reachable).await;
    expect(&check, Failed, &["not Redis", "HTTP/1.1 400"]);

    // A listener that accepts (the kernel does) and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let check = item(&job(a.instance(), towards(silent.local_addr().unwrap().to_string())), CheckId::Reachable).await;
    expect(&check, Failed, &["did not answer"]);
    assert!(check.took_ms < 10_000, "{check:?}");

    let check = item(&job(a.instance(), towards("no-such-host.invalid:6379".into())), CheckId::Reachable).await;
    expect(&check, Failed, &["resolve"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_drops_packets_is_named_as_that() {
    // A listening socket whose queue is full: the kernel drops further SYNs, as a firewall does.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut fill = Vec::new();
    for _ in 0..8 {
        let stream = tokio::net::TcpStream::connect(address);
        fill.push(tokio::time::timeout(std::time::Duration::from_millis(100), stream).await);
    }
    assert!(fill.iter().any(Result::is_err), "the queue takes more than 8");
    let a = Server::start(USUAL, &[]);
    let check = item(&job(a.instance(), towards(address.to_string())), CheckId::Reachable).await;
    expect(&check, Failed, &["packets are dropped", "security group"]);
    assert!(check.took_ms < 10_000, "{check:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_a_failed_item_is_skipped_and_says_why() {
    let a = Server::start(USUAL, &[]);
    let job = job(a.instance(), towards(format!("127.0.0.1:{}", free_port())));
    let whole = report(&job, None).await;
    assert!(!whole.passed);
    assert_eq!(whole.items[0].state, Failed);
    for check in &whole.items[1..] {
        assert_eq!(check.state, Skipped, "{check:?}");
        assert!(check.why.contains("reachable") && check.why.contains("closed"), "{check:?}");
    }
    // Asked for alone, an item brings what it needs along without showing it.
    let one = report(&job, Some(&[CheckId::Clock])).await;
    assert_eq!((one.items.len(), one.items[0].id, one.items[0].state), (1, CheckId::Clock, Skipped));
    assert!(!one.passed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_item_reports_that_it_runs_and_then_its_result() {
    let (a, b) = (Server::start(USUAL, &[]), Server::start(USUAL, &[]));
    let job = job(a.instance(), b.instance());
    let (send, mut receive) = tokio::sync::mpsc::channel(4);
    let only = [CheckId::Version, CheckId::Clock];
    let run = precheck::run(&job, None, Some(&only), PrecheckOptions::default(), Some(send));
    let mut seen: Vec<Check> = Vec::new();
    let listen = async {
        while let Some(check) = receive.recv().await {
            seen.push(check);
        }
    };
    let (report, ()) = tokio::join!(run, listen);
    assert_eq!(report.items.len(), 2);
    for id in only {
        let states: Vec<CheckState> = seen.iter().filter(|c| c.id == id).map(|c| c.state).collect();
        assert_eq!(states, [CheckState::Running, Passed], "{id:?}");
    }
    assert_eq!(seen.len(), 4, "nothing else is reported: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_and_missing_passwords_fail_with_what_to_do() {
    for name in VERSIONS {
        let a = Server::start(name, &["requirepass se:cret"]);
        let b = Server::start(name, &[]);
        let check = item(&job(a.instance_as(":wrong"), b.instance()), CheckId::Credentials).await;
        expect(&check, Failed, &["source", "password", "--askpass"]);
        assert!(!format!("{check:?}").contains("wrong\""), "no password is shown: {check:?}");

        let check = item(&job(towards(a.address()), b.instance()), CheckId::Credentials).await;
        expect(&check, Failed, &["asks for a password", "account ="]);

        let check = item(&job(a.instance_as(":se:cret"), b.instance()), CheckId::Credentials).await;
        expect(&check, Passed, &[]);

        let check = item(&job(a.instance(), b.instance_as(":needless")), CheckId::Credentials).await;
        expect(&check, Failed, &["target"]);
    }
    let a = Server::start(USUAL, &[]);
    let check = item(&job(a.instance_as("nobody:secret"), a.instance()), CheckId::Credentials).await;
    expect(&check, Failed, &["WRONGPASS", "ACL LIST"]);
}

// --- rights

/// The words that follow `redis-cli -h host -p port` in the remedy's line.
fn printed_acl_line(check: &Check) -> String {
    let line = check.remedy.lines().find(|l| l.contains("ACL SETUSER")).unwrap_or_else(|| panic!("{check:#?}"));
    line[line.find("ACL SETUSER").unwrap()..].to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn granting_exactly_the_printed_acl_line_is_enough() {
    let weak = [
        // no more than to log in
        "ACL SETUSER app on >pw +ping +client|setname",
        // not even the name of the connection
        "ACL SETUSER app on >pw",
        // all but replication
        "ACL SETUSER app on >pw ~* +@all -psync -replconf",
        // all commands, some keys
        "ACL SETUSER app on >pw ~app:* +@all",
        // one command taken away
        "ACL SETUSER app on >pw ~* +@all -restore -hset",
        // read only
        "ACL SETUSER app on >pw ~* +@read +@connection +@admin +info",
        // without the ACL commands themselves
        "ACL SETUSER app on >pw ~* +@all -acl -psync",
        "ACL SETUSER app on >pw ~app:* +@all -acl -dump",
    ];
    for name in ["redis-6.0", "redis-6.2", USUAL, NEWEST, VALKEY] {
        let (a, b) = (Server::start(name, &[]), Server::start(name, &[]));
        for (n, acl) in weak.iter().enumerate() {
            let user = format!("app{n}");
            a.run(&acl.replace("app on", &format!("{user} on")));
            let job = job(a.instance_as(&format!("{user}:pw")), b.instance());
            let mut check = item(&job, CheckId::Rights).await;
            if check.state == Skipped {
                check = item(&job, CheckId::Credentials).await;
            }
            expect(&check, Failed, &["ACL SETUSER", &user]);
            a.run(&printed_acl_line(&check));
            let check = item(&job, CheckId::Rights).await;
            assert_ne!(check.state, Failed, "{name}, {acl}: {check:#?}");
        }
        // PSYNC was tried, and never run.
        assert_eq!(a.info("sync_full").as_deref(), Some("0"), "{name}");
        assert_eq!(a.info("connected_slaves").as_deref(), Some("0"), "{name}");
        assert_eq!(a.run("DBSIZE"), redis::Value::Int(0), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_named_and_nothing_more_is_granted() {
    let (a, b) = (Server::start(USUAL, &[]), Server::start(USUAL, &[]));
    a.run("ACL SETUSER app on >pw ~* &* +@all -psync -restore");
    let job = job(a.instance_as("app:pw"), b.instance());
    let check = item(&job, CheckId::Rights).await;
    expect(&check, Failed, &["PSYNC", "RESTORE"]);
    assert_eq!(printed_acl_line(&check), "ACL SETUSER app +psync +restore");

    a.run("ACL SETUSER app +@all -config");
    let check = item(&job, CheckId::Rights).await;
    expect(&check, Warning, &["CONFIG GET", "+config|get"]);
    let check = item(&job, CheckId::OutputBuffer).await;
    expect(&check, Warning, &["unknown", "NOPERM"]);
    // The database count is found by other means.
    let check = item(&job, CheckId::Databases).await;
    expect(&check, Passed, &["16 databases"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_way_asks_for_no_more_than_it_needs() {
    let (a, b) = (Server::start(USUAL, &[]), Server::start(USUAL, &[]));
    a.run("ACL SETUSER reader on >pw ~* +@all -@write");
    let mut job = job(a.instance_as("reader:pw"), b.instance());
    expect(&item(&job, CheckId::Rights).await, Failed, &["write commands", "+@write"]);
    job.policy.two_way = false;
    expect(&item(&job, CheckId::Rights).await, Passed, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renamed_commands_are_named() {
    for name in [OLDEST, USUAL] {
        let a = Server::start(name, &["rename-command PSYNC \"\"", "rename-command CONFIG \"\""]);
        let b = Server::start(name, &[]);
        let check = item(&job(a.instance(), b.instance()), CheckId::Commands).await;
        expect(&check, Failed, &["PSYNC", "rename-command"]);
        let check = item(&job(b.instance(), b.instance()), CheckId::Commands).await;
        expect(&check, Passed, &[]);
    }
}

// --- what the instances are

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_formats_and_modules_are_compared() {
    let (old, new) = (Server::start(OLDEST, &[]), Server::start(NEWEST, &[]));
    let check = item(&job(new.instance(), old.instance()), CheckId::Version).await;
    expect(&check, Passed, &["Redis 8.6.3", "Redis 5.0.6", "the source is newer"]);
    let to_old = job(new.instance(), old.instance());
    let check = item(&to_old, CheckId::RdbCompatibility).await;
    expect(&check, Warning, &["RDB 13", "RDB 9", "written as commands", "vectorset"]);

    new.script("HSET h f 1\nHEXPIRE h 1000 FIELDS 1 f");
    let check = item(&to_old, CheckId::RdbCompatibility).await;
    expect(&check, Warning, &["1 hashes", "expiry of their own", "Redis 7.4"]);

    let valkey = Server::start(VALKEY, &[]);
    valkey.script("HSET h f 1\nHEXPIRE h 1000 FIELDS 1 f");
    let usual = Server::start(USUAL, &[]);
    let check = item(&job(valkey.instance(), usual.instance()), CheckId::RdbCompatibility).await;
    expect(&check, Warning, &["1 hashes", "Redis 7.0.15 does not know"]);
    let check = item(&job(usual.instance(), valkey.instance()), CheckId::RdbCompatibility).await;
    expect(&check, Warning, &["1 hashes"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_and_its_master_are_found() {
    for name in VERSIONS {
        let (master, replica, other) = (Server::start(name, &[]), Server::start(name, &[]), Server::start(name, &[]));
        replica.run(&format!("REPLICAOF 127.0.0.1 {}", master.port));
        wait_for("the replica is connected", || replica.info("master_link_status").as_deref() == Some("up"));

        let check = item(&job(other.instance(), replica.instance()), CheckId::Role).await;
        expect(&check, Failed, &["a replica of", &master.address()]);
        let check = item(&job(replica.instance(), other.instance()), CheckId::Role).await;
        expect(&check, Failed, &["source", &format!("address = \"{}\"", master.address())]);

        let check = item(&job(master.instance(), replica.instance()), CheckId::SameInstance).await;
        expect(&check, Failed, &["the target is a replica of the source"]);
        let check = item(&job(replica.instance(), master.instance()), CheckId::SameInstance).await;
        expect(&check, Failed, &["the source is a replica of the target"]);
        let check = item(&job(master.instance(), other.instance()), CheckId::SameInstance).await;
        expect(&check, Passed, &["two instances"]);

        other.run(&format!("REPLICAOF 127.0.0.1 {}", master.port));
        wait_for("the other is connected", || other.info("master_link_status").as_deref() == Some("up"));
        let check = item(&job(replica.instance(), other.instance()), CheckId::SameInstance).await;
        expect(&check, Failed, &["both are replicas of", &master.address()]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_by_two_names_is_one_server() {
    for name in [OLDEST, NEWEST] {
        let a = Server::start(name, &[]);
        let mut other = a.instance();
        other.addresses = vec![format!("localhost:{}", a.port)];
        let check = item(&job(a.instance(), other), CheckId::SameInstance).await;
        expect(&check, Failed, &["one server", "run_id"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_are_known_by_their_slots() {
    for name in VERSIONS {
        let a = Server::start(name, &[]);
        let b = Server::start(name, &["cluster-enabled yes"]);
        let slots: Vec<String> = (0..16384).map(|n| n.to_string()).collect();
        let mut command = vec!["CLUSTER", "ADDSLOTS"];
        command.extend(slots.iter().map(String::as_str));
        b.call(&command);
        wait_for("the cluster is up", || {
            let info = b.run("CLUSTER INFO");
            format!("{info:?}").contains("cluster_state:ok")
        });
        let check = item(&job(a.instance(), b.instance()), CheckId::Topology).await;
        expect(&check, Passed, &["target", "a cluster of 1 shards, all slots served", "0-16383"]);
        let mut told = job(a.instance(), b.instance());
        told.source.topology = Topology::Standalone;
        told.target.topology = Topology::Standalone;
        let check = item(&told, CheckId::Topology).await;
        expect(&check, Failed, &["named a standalone instance", "topology = \"cluster\""]);
        told.target = a.instance();
        expect(&item(&told, CheckId::Topology).await, Passed, &["standalone"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_that_sentinels_name_is_checked_and_a_sentinel_itself_is_refused() {
    for name in [USUAL, VALKEY] {
        let (a, b) = (Server::start(name, &[]), Server::start(name, &[]));
        let monitor = format!("sentinel monitor main 127.0.0.1 {} 1", b.port);
        let sentinel = Server::start_with(name, &["--sentinel"], &[&monitor]);
        let mut job = job(a.instance(), sentinel.instance());
        expect(&item(&job, CheckId::Topology).await, Failed, &["a sentinel", "master_name"]);
        job.target.topology = Topology::Sentinel;
        job.target.master_name = Some("main".into());
        expect(&item(&job, CheckId::Topology).await, Passed, &["the master that the sentinels name", &b.address()]);
        b.run("SET there 1");
        expect(&item(&job, CheckId::TargetEmpty).await, Failed, &["\"there\""]);
        job.target.master_name = Some("other".into());
        expect(&item(&job, CheckId::Credentials).await, Failed, &["\"other\"", "SENTINEL MASTERS"]);
    }
}

// --- keys and databases

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_holds_keys_blocks_or_warns_by_policy() {
    for name in VERSIONS {
        let (a, b) = (Server::start(name, &[]), Server::start(name, &[]));
        b.script("SET there 1\nSELECT 3\nSET three 1");
        let mut job = job(a.instance(), b.instance());
        let check = item(&job, CheckId::TargetEmpty).await;
        expect(&check, Failed, &["2 keys", "db0, db3", "\"there\"", "existing_keys"]);

        job.policy.databases = Databases::Only(vec![1, 3]);
        let check = item(&job, CheckId::TargetEmpty).await;
        expect(&check, Failed, &["1 keys in db3", "\"three\""]);
        job.policy.databases = Databases::Only(vec![1]);
        expect(&item(&job, CheckId::TargetEmpty).await, Passed, &["empty"]);

        job.policy.databases = Databases::All;
        job.policy.existing_keys = ExistingKeys::Ignore;
        expect(&item(&job, CheckId::TargetEmpty).await, Passed, &["stay at the target alone", "2 sampled, 0"]);
        a.run("SET there 2");
        expect(&item(&job, CheckId::TargetEmpty).await, Warning, &["1 are at the source too", "written over"]);
        job.policy.existing_keys = ExistingKeys::Merge;
        expect(&item(&job, CheckId::TargetEmpty).await, Warning, &["both get"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_control_keys_at_the_target_mean_that_the_job_is_resumed() {
    let (a, b) = (Server::start(USUAL, &[]), Server::start(USUAL, &[]));
    let id = JobId("0123456789ab".into());
    b.call(&["SET", &id.control_key(Direction::Forward), "1"]);
    let job = job(a.instance(), b.instance());
    // Control keys alone are not data.
    expect(&item(&job, CheckId::TargetEmpty).await, Passed, &["empty"]);
    b.run("SET data 1");
    expect(&item(&job, CheckId::TargetEmpty).await, Failed, &["1 keys", "\"data\""]);
    let only = [CheckId::TargetEmpty, CheckId::ControlKeys, CheckId::Memory];
    let known = async |job| precheck::run(job, Some(&id), Some(&only), PrecheckOptions::default(), None).await.items;
    let checks = known(&job).await;
    expect(&checks[0], Passed, &["resumed"]);
    expect(&checks[1], Passed, &["resumed"]);
    expect(&checks[2], Warning, &["in part", "1 of 2"]);
    a.call(&["SET", &id.control_key(Direction::Reverse), "1"]);
    expect(&known(&job).await[2], Passed, &["resumed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_job_on_the_same_pair_and_a_ring_are_refused_and_a_chain_is_not() {
    for name in [OLDEST, USUAL] {
        let (a, b) = (Server::start(name, &[]), Server::start(name, &[]));
        let job = job(a.instance(), b.instance());
        let other = JobId("aaaaaaaaaaaa".into());
        let third = "c".repeat(40);

        // B is the target of another job, from elsewhere: a chain.
        b.call(&["SET", &other.control_key(Direction::Forward), &format!("1 1|{third},10,10|{third},5")]);
        expect(&item(&job, CheckId::ControlKeys).await, Passed, &["chain", "aaaaaaaaaaaa"]);

        // A is written from the same third instance: a ring.
        let another = JobId("bbbbbbbbbbbb".into());
        a.call(&["SET", &another.control_key(Direction::Reverse), &format!("1 1|{third},10,10|{third},5")]);
        expect(&item(&job, CheckId::ControlKeys).await, Failed, &["ring", &third]);
        a.call(&["DEL", &another.control_key(Direction::Reverse)]);

        // The other job writes to both: the same pair.
        a.call(&["SET", &other.control_key(Direction::Reverse), "1"]);
        expect(
            &item(&job, CheckId::ControlKeys).await,
            Failed,
            &["syncs these two instances", "duplex stop", "DEL duplex:"],
        );
        a.call(&["DEL", &other.control_key(Direction::Reverse)]);

        // One way only, but its position is in A's stream.
        let replid = a.info("master_replid").unwrap();
        b.call(&["SET", &other.control_key(Direction::Forward), &format!("1 1|{replid},10,10|{third},5")]);
        expect(&item(&job, CheckId::ControlKeys).await, Failed, &["syncs these two instances"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_that_the_other_side_lacks_are_named() {
    for name in VERSIONS {
        let (a, b) = (Server::start(name, &["databases 20"]), Server::start(name, &["databases 4"]));
        let mut job = job(a.instance(), b.instance());
        expect(&item(&job, CheckId::Databases).await, Warning, &["20 databases", "has 4"]);
        a.script("SELECT 17\nSET k v");
        expect(&item(&job, CheckId::Databases).await, Failed, &["db17", "databases 18"]);
        job.policy.databases = Databases::Only(vec![0, 3]);
        expect(&item(&job, CheckId::Databases).await, Passed, &["keys"]);
        job.policy.databases = Databases::Only(vec![0, 17]);
        expect(&item(&job, CheckId::Databases).await, Failed, &["the target has no db17"]);
    }
    // Without CONFIG the number is found by trying.
    let a = Server::start(OLDEST, &["databases 300", "rename-command CONFIG \"\""]);
    let probed = probe::probe(&a.instance()).await.unwrap();
    assert_eq!(probed.database_count, Some(300));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn big_keys_are_found() {
    let (a, b) = (Server::start(USUAL, &[]), Server::start(USUAL, &[]));
    a.script("SET small 1\nSETRANGE huge 70000000 x");
    let check = item(&job(a.instance(), b.instance()), CheckId::BigKeys).await;
    expect(&check, Warning, &["\"huge\"", "2 of 2 keys"]);
    assert_eq!(check.side, Some(redis_duplex::model::Side::Source));
}

// --- room and replication

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eviction_and_too_little_memory_are_found() {
    for name in VERSIONS {
        let (a, b) =
            (Server::start(name, &[]), Server::start(name, &["maxmemory 30mb", "maxmemory-policy allkeys-lru"]));
        let job = job(a.instance(), b.instance());
        expect(&item(&job, CheckId::MaxmemoryPolicy).await, Warning, &["allkeys-lru", "noeviction"]);
        expect(&item(&job, CheckId::Memory).await, Passed, &[]);
        a.script("SETRANGE k 40000000 x");
        expect(&item(&job, CheckId::Memory).await, Failed, &["CONFIG SET maxmemory"]);
        b.run("CONFIG SET maxmemory-policy noeviction");
        expect(&item(&job, CheckId::MaxmemoryPolicy).await, Passed, &[]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_that_is_too_small_for_the_write_rate_is_found() {
    let (a, b) = (Server::start(USUAL, &["repl-backlog-size 1mb"]), Server::start(USUAL, &[]));
    let replica = Server::start(USUAL, &["repl-diskless-sync-delay 0"]);
    replica.run(&format!("REPLICAOF 127.0.0.1 {}", a.port));
    wait_for("the replica is connected", || replica.info("master_link_status").as_deref() == Some("up"));
    let job = job(a.instance(), b.instance());
    expect(&item(&job, CheckId::Backlog).await, Passed, &["60 min"]);

    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (stopped, mut client) = (stop.clone(), a.client());
    let load = std::thread::spawn(move || {
        let value = "x".repeat(10_000);
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let _: redis::Value = redis::cmd("SET").arg("k").arg(&value).query(&mut client).unwrap();
        }
    });
    let check = item(&job, CheckId::Backlog).await;
    expect(&check, Warning, &["1 MiB", "source: CONFIG SET repl-backlog-size"]);
    a.run("CONFIG SET repl-backlog-ttl 60");
    let check = item(&job, CheckId::Backlog).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    load.join().unwrap();
    expect(&check, Warning, &["CONFIG SET repl-backlog-ttl 3600"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_output_buffers_failed_saves_and_full_disks_are_found() {
    for name in VERSIONS {
        let (a, b) = (
            Server::start(name, &["client-output-buffer-limit replica 32mb 8mb 10", "dbfilename a-folder.rdb"]),
            Server::start(name, &[]),
        );
        let mut job = job(a.instance(), b.instance());
        let check = item(&job, CheckId::OutputBuffer).await;
        expect(&check, Warning, &["32 MiB", "replica 256mb 64mb 60"]);
        a.call(&["CONFIG", "SET", "client-output-buffer-limit", "replica 256mb 64mb 60"]);
        expect(&item(&job, CheckId::OutputBuffer).await, Passed, &[]);

        // A save into a name that is a folder fails.
        expect(&item(&job, CheckId::Fork).await, Passed, &["last bgsave ok"]);
        let dir = a.data_dir().join("a-folder.rdb");
        std::fs::create_dir(&dir).unwrap();
        a.run("BGSAVE");
        wait_for("the save has failed", || a.info("rdb_last_bgsave_status").as_deref() == Some("err"));
        expect(&item(&job, CheckId::Fork).await, Warning, &["last bgsave err", "overcommit"]);

        job.limits.spool_disk = 1 << 20;
        expect(&item(&job, CheckId::SpoolDisk).await, Passed, &["free at"]);
    }
}

// --- probe

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_tells_what_is_there() {
    for (name, version) in VERSIONS.iter().zip(["Redis 5.0.6", "Redis 7.0.15", "Redis 8.6.3", "Valkey 9.1.2"]) {
        let a = Server::start(name, &["databases 9", "requirepass pw"]);
        a.script("SET k v\nSELECT 4\nMSET a 1 b 2");
        let probed = probe::probe(&a.instance()).await.unwrap();
        assert_eq!(probed.topology, Topology::Standalone);
        assert_eq!(probed.databases, [(0, 1), (4, 2)]);
        assert_eq!(probed.database_count, Some(9));
        let [shard] = probed.shards.as_slice() else { panic!("{probed:?}") };
        assert_eq!(
            (shard.address.as_str(), shard.version.as_str(), shard.role.as_str()),
            (a.address().as_str(), version, "master")
        );
        assert!(shard.seen_as.starts_with("127.0.0.1:"), "{shard:?}");
        assert!(shard.round_trip_us > 0 && shard.round_trip_us < 1_000_000, "{shard:?}");
    }
    let closed = towards(format!("127.0.0.1:{}", free_port()));
    let error = probe::probe(&closed).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}
