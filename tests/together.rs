//! A shard whose slots lie in several shards at the other side is read once, and each of its strands gets its part.

mod support;

use std::time::{Duration, Instant};
use support::{
    cluster::{Cluster, Site, Spread, assert_all_there, assert_sites_equal, slot},
    load::sized,
    versions::Slot,
    *,
};

/// How many copies and streams a server has begun to send, and how many it sends now.
fn sent(server: &Server) -> [String; 3] {
    ["sync_full", "sync_partial_ok"]
        .map(|name| server.info("stats", name).expect("a number"))
        .into_iter()
        .chain(server.info("replication", "connected_slaves"))
        .collect::<Vec<_>>()
        .try_into()
        .expect("three")
}

/// Keys of all sizes, types and databases' worth of slots, with what is cut in parts.
fn fill_all_kinds(site: &Site) {
    let mut router = site.router();
    for n in 0..400 {
        router.run(&format!("SET text:{n} {n}"));
        router.run(&format!("HSET hash:{n} a {n} b {n}"));
        router.run(&format!("SET lives:{n} {n} PX 100000000"));
    }
    for n in 0..4 {
        // In parts in the snapshot, and not copied where it is cut.
        let big = "x".repeat(700_000 + n);
        router.call(&format!("big:{n}"), &["SET", &format!("big:{n}"), &big]);
        let list = format!("biglist:{n}");
        let elements = vec!["y".repeat(1000); 900];
        let words: Vec<&str> = ["RPUSH", &list].into_iter().chain(elements.iter().map(String::as_str)).collect();
        router.call(&list, &words);
    }
}

fn read_once(server: &str, shards: usize) {
    let (a, b) = (Site::one(server), Site::many(server, shards));
    fill_all_kinds(&a);
    let source = a.masters()[0];
    let mut duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    assert_eq!(sent(source), ["1", "0", "1"], "one copy, one stream");
    assert_sites_equal(&a, &b, secs(60));

    let mut loads = [Spread::start(&a, "a", 300), Spread::start(&b, "b", 300)];
    loads.iter().for_each(|l| l.more(sized(300, 3_000)));
    // What is in several slots, or in none.
    let mut client = source.client();
    for n in 0..20 {
        client.run(&format!("MSET text:{n} new text:{} new lives:{n} new", n + 100));
        client.run(&format!("RENAME hash:{n} renamed:{n}"));
        client.run("MULTI");
        client.run(&format!("INCR one:{n}"));
        client.run(&format!("INCR other:{n}"));
        client.run(&format!("APPEND big:0 {n}"));
        client.run("EXEC");
        client.run(&format!("DEL text:{} text:{} lives:{}", n + 200, n + 250, n + 200));
    }
    for _ in 0..sized(2, 10) {
        loads.iter().for_each(|l| l.more(60));
        duplex.crash();
        loads.iter().for_each(|l| l.more(60));
        duplex.revive();
        duplex.wait_state("synchronizing", secs(60));
    }
    let [full, _, now] = sent(source);
    assert_eq!([full.as_str(), now.as_str()], ["1", "1"], "it goes on from where it was, once for all");
    assert_all_there(&a, &b, &duplex, &mut loads);
    let status = duplex.status();
    assert_eq!(status.total("apply_errors"), 0, "{:#}", status.0);
    // WAIT counts one replica, which speaks for all shards.
    client.run("SET waited 1");
    assert_eq!(client.run("WAIT 1 20000").int(), 1);
    assert_eq!(b.router().run("GET waited").text(), "1");
}

#[test]
fn one_server_with_three_shards_is_read_once() {
    read_once(Slot::Usual.server(), 3);
}

#[test]
fn one_server_with_six_shards_is_read_once() {
    read_once(Slot::NewestValkey.server(), sized(4, 6));
}

#[test]
fn a_shard_that_stands_still_does_not_hold_up_the_others() {
    let name = Slot::Usual.server();
    let (a, b) = (Site::one(name), Site::Many(Cluster::start(name, 3, 0)));
    for node in &b.cluster().nodes {
        node.client().run("CONFIG SET cluster-require-full-coverage no");
        node.client().run("CONFIG SET cluster-node-timeout 60000");
    }
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    let map = b.cluster().map();
    let still = &b.cluster().nodes[2];
    let mut router = b.router();
    router.run("GET k:0");
    let is_there = |n: &u32| map[slot(format!("k:{n}").as_bytes())] == still.port;
    let (held, free): (Vec<u32>, Vec<u32>) = (0..3_000).partition(is_there);
    still.freeze();
    let began = Instant::now();
    let mut client = a.masters()[0].client();
    for n in 0..3_000 {
        client.run(&format!("SET k:{n} {n}"));
    }
    for n in &free {
        wait_for("the others go on", secs(20), || match router.run(&format!("GET k:{n}")) {
            Reply::Nil => Err("nothing".into()),
            _ => Ok(()),
        });
    }
    // What one of them has not applied, the source is not told of.
    assert_eq!(client.run("WAIT 1 50").int(), 0);
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    still.thaw();
    for n in &held {
        wait_for("the last ones come too", secs(30), || match router.run(&format!("GET k:{n}")) {
            Reply::Nil => Err("nothing".into()),
            _ => Ok(()),
        });
    }
    duplex.wait_state("synchronizing", secs(60));
    assert_sites_equal(&a, &b, secs(60));
    assert_eq!(client.run("WAIT 1 20000").int(), 1);
}

/// Two ways to divide the slots: each shard of either side is read once, whatever part of its strands begins anew.
#[test]
fn shards_of_two_clusters_are_read_once() {
    let name = Slot::NewestRedis.server();
    let (a, b) = (Site::split(name, &[8_000]), Site::split(name, &[3_000, 12_345]));
    fill_all_kinds(&a);
    let mut duplex = Duplex::new(&JobSpec::between(a.addr(), b.addr()));
    duplex.start();
    // In the middle of the copy, or just behind it: some strands have finished theirs, perhaps.
    duplex.crash();
    duplex.revive();
    duplex.wait_state("synchronizing", secs(60));
    for master in a.masters().into_iter().chain(b.masters()) {
        let [.., now] = sent(master);
        assert_eq!(now, "1", "{}", master.port);
    }
    let mut loads = [Spread::start(&a, "a", 300), Spread::start(&b, "b", 300)];
    loads.iter().for_each(|l| l.more(sized(200, 2_000)));
    duplex.crash();
    duplex.revive();
    loads.iter().for_each(|l| l.more(100));
    assert_all_there(&a, &b, &duplex, &mut loads);
}
