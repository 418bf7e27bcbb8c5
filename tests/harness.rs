//! The tests' own ground, proven with plain servers: a suite that stands on a broken harness proves nothing.

mod support;

use std::time::{Duration, Instant};
use support::{
    compare::{differences, keyspace},
    observer::Observer,
    versions::Slot,
    *,
};

/// Keys of every type that all servers know, some that expire, in two databases.
fn fill(server: &Server) {
    let mut c = server.client();
    for line in [
        "SET string value",
        "SET soon value PX 3600000",
        "SET binary \"\\x00\\xff\\r\\n\"",
        "RPUSH list a b a",
        "SADD set a b 3",
        "SADD ints 1 2 3",
        "HSET hash f v g w",
        "ZADD zset 1 a 2.5 b",
        "XADD stream 1-1 f v",
        "XGROUP CREATE stream group 0",
        "XREADGROUP GROUP group me STREAMS stream >",
        "SELECT 3",
        "SET other v",
    ] {
        c.run(line);
    }
}

#[test]
fn comparer_sees_each_kind_of_difference() {
    for slot in Slot::ALL {
        let (a, b) = (Server::start(slot.server(), &[]), Server::start(slot.server(), &[]));
        fill(&a);
        // Native replication makes them equal, then each line below makes one key differ.
        let mut c = b.client();
        c.run(&format!("REPLICAOF 127.0.0.1 {}", a.port));
        wait_for("the replica is up", secs(20), || match b.info("replication", "master_link_status").as_deref() {
            Some("up") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        assert_equal_within(&a, &b, secs(10));
        c.run("REPLICAOF NO ONE");
        for line in [
            "SET string other",
            "PERSIST soon",
            "APPEND binary x",
            "LPOP list",
            "SREM set a",
            "SADD ints x",
            "HSET hash f other",
            "ZADD zset 3 a",
            "XACK stream group 1-1",
        ] {
            c.run(line);
        }
        c.run("SELECT 3");
        c.run("DEL other");
        let found = differences(&keyspace(&a), &keyspace(&b));
        assert_eq!(found.len(), 10, "{}: {found:#?}", a.name);
    }
}

#[test]
fn comparer_sees_a_hash_fields_expiry() {
    let name = Slot::NewestRedis.server();
    let (a, b) = (Server::start(name, &[]), Server::start(name, &[]));
    for s in [&a, &b] {
        s.client().run("HSET hash f v");
    }
    assert_equal_within(&a, &b, secs(5));
    a.client().run("HPEXPIRE hash 3600000 FIELDS 1 f");
    assert_eq!(differences(&keyspace(&a), &keyspace(&b)).len(), 1);
}

#[test]
fn server_can_be_killed_and_started_again_on_its_port() {
    let mut server = Server::start(Slot::Usual.server(), &["--appendonly", "yes", "--appendfsync", "always"]);
    server.client().run("SET k v");
    let (port, pid) = (server.port, server.pid());
    server.kill();
    assert!(Client::try_to(port).is_err(), "it still answers");
    server.restart();
    assert_eq!(server.port, port);
    assert_ne!(server.pid(), pid);
    assert_eq!(server.client().run("GET k").text(), "v");
}

#[test]
fn frozen_server_answers_once_it_is_thawed() {
    let server = Server::start(Slot::Usual.server(), &[]);
    let mut c = server.client();
    server.freeze();
    c.patience(Duration::from_millis(100));
    assert!(c.try_call(&["PING"]).is_err());
    server.thaw();
    assert_eq!(server.client().run("PING").text(), "PONG");
}

#[test]
fn proxy_delays_cuts_refuses_and_stalls() {
    let server = Server::start(Slot::Usual.server(), &[]);
    let proxy = Proxy::to(server.port);
    let mut c = Client::to(proxy.port);
    assert_eq!(c.run("PING").text(), "PONG");
    proxy.delay(Duration::from_millis(30));
    let began = Instant::now();
    c.run("PING");
    assert!(began.elapsed() >= Duration::from_millis(60), "{:?}", began.elapsed());
    proxy.delay(Duration::ZERO);
    proxy.stall(true);
    c.patience(Duration::from_millis(200));
    assert!(c.try_call(&["PING"]).is_err());
    proxy.stall(false);
    assert_eq!(proxy.cut(), 1);
    assert!(c.try_call(&["PING"]).and_then(|_| c.try_call(&["PING"])).is_err(), "a cut connection answers");
    proxy.refuse(true);
    assert!(Client::try_to(proxy.port).and_then(|mut c| c.try_call(&["PING"])).is_err());
    proxy.refuse(false);
    assert_eq!(Client::to(proxy.port).run("PING").text(), "PONG");
}

#[test]
fn proxy_carries_a_hundred_megabytes_a_second() {
    let server = Server::start(Slot::Usual.server(), &[]);
    let proxy = Proxy::to(server.port);
    let mut c = Client::to(proxy.port);
    let value = vec![b'x'; 32 << 20];
    // The best of a few: other work on the machine must not fail this.
    let mut rates = (0..5).map(|_| {
        let began = Instant::now();
        c.call(&[b"SET".as_slice(), b"k", &value]);
        assert_eq!(c.run("GET k").bytes().len(), value.len());
        2.0 * value.len() as f64 / 1e6 / began.elapsed().as_secs_f64()
    });
    assert!(rates.any(|rate| rate > 100.0), "five times less than 100 MB/s");
}

#[test]
fn observer_tells_the_engines_units_from_others() {
    for slot in Slot::ALL {
        let server = Server::start(slot.server(), &[]);
        let observer = Observer::of(&server);
        let mut c = server.client();
        for line in ["SET a 1", "MULTI", "SET duplex:1:forward x", "SET b 2", "EXEC", "SET duplex:1:forward y"] {
            c.run(line);
        }
        let brought = wait_for("the stream is read", secs(10), || match observer.units() {
            units if units.len() == 3 => Ok(observer.brought()),
            units => Err(format!("{units:?}")),
        });
        assert_eq!(brought.len(), 1, "{brought:?}");
        assert!(brought[0].contains("SET b 2"), "{brought:?}");
    }
}
