//! A cluster that calls itself down.

use crate::job;
use crate::support::{
    cluster::{Site, Spread, assert_sites_equal, assert_spread},
    versions::Slot,
    words::words,
    *,
};
use std::collections::BTreeSet;

/// As long as a cluster is down it tells nobody its control keys: who writes to it and has lost his connection waits for them. That
/// they are not told does not mean that they are gone.
#[test]
fn a_cluster_that_is_down_has_lost_nothing() {
    let server = Slot::Usual.server();
    let (a, b) = (Site::one(server), Site::many(server, 3));
    let duplex = Duplex::synced(&job(&a, &b));
    let mut load = Spread::start(&a, "a", 200);
    load.more(100);
    let nodes = &b.cluster().nodes;
    nodes[2].freeze();
    wait_for("the cluster is down", secs(30), || {
        let mut client = nodes[0].client();
        let info = client.run("CLUSTER INFO").text();
        if !info.contains("cluster_state:fail") {
            return Err(info);
        }
        // Whoever writes there has to look how far that had come.
        let list = client.run("CLIENT LIST").text();
        for line in list.lines().filter(|line| line.contains(":apply")) {
            let id = line.split(' ').next().and_then(|id| id.strip_prefix("id=")).expect("an id");
            client.call(&words(&format!("CLIENT KILL ID {id}")));
        }
        Ok(())
    });
    let told = |what: &str| duplex.run(&["events", "--json", "-n", "1000"]).code(0).stdout.contains(what);
    // It asks for the control key of each slot, and as it is told nothing, once more.
    let slots = b.cluster().map().iter().filter(|port| **port == nodes[0].port).count();
    wait_for("the writer has looked, and looks again", secs(30), || {
        assert!(!told("holds no control key"), "nothing is gone");
        let stats = nodes[0].info("commandstats", "cmdstat_get").unwrap_or_default();
        let refused = stats.split(',').find_map(|part| part.strip_prefix("rejected_calls="));
        let refused = refused.map_or(0, |n| n.parse::<usize>().expect("a number"));
        if refused > slots { Ok(()) } else { Err(format!("{refused} of more than {slots}: {stats}")) }
    });
    nodes[2].thaw();
    b.cluster().wait_whole();
    load.more(100);
    let steps = load.stop();
    duplex.wait_state("synchronizing", secs(60));
    assert_sites_equal(&a, &b, secs(60));
    [&a, &b].into_iter().for_each(|site| assert_spread(site, "a", &steps, &BTreeSet::new()));
    assert!(!told("holds no control key"));
}
