//! What is left of the strands before, where the slots are divided otherwise by now.

use crate::support::{
    cluster::{Site, assert_sites_equal, slot},
    versions::Slot,
    *,
};
use crate::{Kind, job};
use std::collections::BTreeSet;

/// The strands that have keys at a standalone side.
fn strands_at(site: &Site) -> BTreeSet<String> {
    let Site::One(server) = site else { unreachable!("one server") };
    let names = server.client().run("KEYS duplex:*@*");
    let names = names.items().iter().map(Reply::text);
    names.map(|name| name.split('@').nth(1).expect("a name").trim_end_matches(":open").to_owned()).collect()
}

/// Each time that the slots are divided otherwise there are other strands, and their keys at a standalone side bear their names.
#[test]
fn of_former_strands_nothing_is_left_at_one_server() {
    let server = Slot::NewestRedis.server();
    let (a, b) = (Kind::Three.start(server), Kind::One.start(server));
    let duplex = Duplex::synced(&job(&a, &b));
    b.wait_copied(&a);
    let mut before = strands_at(&b);
    assert_eq!(before.len(), 3, "{before:?}");
    let key = "k1";
    for round in 0..3 {
        let cluster = a.cluster();
        let ports: Vec<u16> = cluster.masters().iter().map(|m| m.port).collect();
        let at = cluster.map()[slot(key.as_bytes())];
        cluster.migrate(slot(key.as_bytes()), *ports.iter().find(|port| **port != at).expect("another shard"));
        let now = wait_for("there are the strands of now", secs(60), || match strands_at(&b) {
            now if now.len() == 3 && now != before => Ok(now),
            now => Err(format!("{now:?}")),
        });
        before = now;
        a.router().run(&format!("SET {key} {round}"));
        assert_sites_equal(&a, &b, secs(60));
    }
    duplex.run(&["stop", &duplex.name]).code(0);
    for server in a.masters().into_iter().chain(b.masters()) {
        assert_eq!(compare::control_keys(server), Vec::<String>::new());
    }
}
