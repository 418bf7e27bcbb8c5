//! Clusters behind a proxy: one endpoint for writes, no cluster commands, transactions of one slot.

mod support;

use std::collections::BTreeSet;
use support::{
    cluster::{Cluster, Site, Spread, assert_all_there, assert_sites_equal, assert_spread},
    load::sized,
    routing::Routing,
    versions::Slot,
    *,
};

fn before(site: &Site) -> Routing {
    Routing::before(site.cluster().nodes.iter().map(|n| n.port).collect())
}

fn addresses(site: &Site) -> String {
    let all: Vec<String> = site.masters().iter().map(|n| format!("{:?}", n.addr())).collect();
    all.join(", ")
}

/// One way: of the target nothing can be reached but the proxy.
fn one_way(a: Site, b: Site) {
    let proxy = before(&b);
    let mut router = a.router();
    for n in 0..sized(100, 3_000) {
        router.run(&format!("SET before:{n} {n} PX 100000000"));
        router.run(&format!("RPUSH {{before:{n}}}:list 1 2 3"));
    }
    router.call("big", &["SET", "big", &"x".repeat(700_000)]);
    let job = JobSpec::between(a.addr(), proxy.addr())
        .target_line("topology = \"proxy\"")
        .policy("two_way = false\nexisting_keys = \"ignore\"");
    let mut duplex = Duplex::synced(&job);
    let mut load = Spread::start(&a, "a", 150);
    load.more(sized(60, 2_000));
    for _ in 0..sized(1, 8) {
        duplex.crash();
        load.more(50);
        duplex.revive();
        duplex.wait_state("synchronizing", secs(60));
        load.more(50);
        proxy.cut();
        load.more(50);
    }
    let steps = load.stop();
    duplex.wait_state("synchronizing", secs(60));
    assert_sites_equal(&a, &b, secs(90));
    assert_spread(&b, "a", &steps, &BTreeSet::new());
    assert!(proxy.transactions() > 100, "{}", proxy.transactions());
    duplex.run(&["verify", &duplex.name]).code(0);
    duplex.run(&["stop", &duplex.name]).code(0);
    let left = b.masters().into_iter().map(support::compare::control_keys).map(|keys| keys.len()).sum::<usize>();
    assert_eq!(left, 0);
}

#[test]
fn one_server_to_a_cluster_behind_a_proxy() {
    let name = Slot::Usual.server();
    one_way(Site::one(name), Site::many(name, 3));
}

#[test]
fn a_cluster_to_a_cluster_behind_a_proxy() {
    let name = Slot::NewestValkey.server();
    one_way(Site::split(name, &[8_000]), Site::many(name, 3));
}

/// Both ways: the nodes behind the proxy are read by their own addresses, and written to by the proxy's alone.
#[test]
fn both_ways_with_a_cluster_behind_a_proxy() {
    let name = Slot::NewestRedis.server();
    let (a, b) = (Site::one(name), Site::many(name, 3));
    let proxy = before(&b);
    let job = JobSpec::between(a.addr(), proxy.addr())
        .target_line("topology = \"proxy\"")
        .target_line(&format!("shards = [{}]", addresses(&b)));
    let mut duplex = Duplex::synced(&job);
    let mut loads = [Spread::start(&a, "a", 120), Spread::start(&b, "b", 120)];
    loads.iter().for_each(|l| l.more(sized(150, 2_000)));
    for _ in 0..sized(1, 8) {
        duplex.crash();
        loads.iter().for_each(|l| l.more(30));
        duplex.revive();
        duplex.wait_state("synchronizing", secs(60));
        proxy.cut();
        loads.iter().for_each(|l| l.more(30));
    }
    assert_all_there(&a, &b, &duplex, &mut loads);
    assert!(proxy.transactions() > 100, "{}", proxy.transactions());
    assert_eq!(duplex.status().total("apply_errors"), 0);
}

#[test]
fn what_a_proxy_refuses_is_said() {
    let name = Slot::Usual.server();
    let (a, b) = (Server::start(name, &[]), Site::Many(Cluster::start(name, 3, 0)));
    let proxy = before(&b);
    let through = |two_way: bool, lines: &str| {
        let job = JobSpec::between(a.addr(), proxy.addr()).target_line("topology = \"proxy\"").target_line(lines);
        let duplex = Duplex::new(&job.policy(&format!("two_way = {two_way}")));
        let file = duplex.job_file.to_str().expect("a path").to_owned();
        duplex.run(&["precheck", &file])
    };
    // What it holds can't be counted: the policy that asks for an empty target can't be kept.
    through(false, "").code(3).says(&["can't be told through a proxy", "existing_keys = \"ignore\""]);
    through(true, "").code(2).says(&["can't be read through a proxy", "shards ="]);
    // A proxy that is taken for a server.
    let plain = Duplex::new(&JobSpec::between(a.addr(), proxy.addr()).policy("two_way = false"));
    let file = plain.job_file.to_str().expect("a path").to_owned();
    plain.run(&["precheck", &file]).code(3).says(&["topology = \"proxy\""]);
    // Its nodes are reached and tell what it hides.
    through(true, &format!("shards = [{}]", addresses(&b))).code(0).says(&["transactions of one slot"]);
    proxy.refuse_transactions();
    through(false, "").code(3).says(&["refuses MULTI", "topology = \"cluster\""]);
}
