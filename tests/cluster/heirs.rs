//! What a strand takes over from those before it, where the slots are divided otherwise when an engine comes back.

use crate::support::{
    cluster::{Site, slot},
    versions::Slot,
    *,
};
use crate::{Kind, job};

/// A key that lives in the first shard of three, in another slot than these.
fn key_in_the_first_shard(but: &[usize]) -> String {
    let names = (0..).map(|n| format!("k{n}"));
    names.into_iter().find(|k| slot(k.as_bytes()) < 5_000 && !but.contains(&slot(k.as_bytes()))).expect("one of them")
}

/// A conflict was open when the engine died, and another slot of its strand has moved since. The conflict's key was not written
/// any more, so nothing but the note tells of it.
#[test]
fn what_was_open_goes_along() {
    let server = Slot::NewestRedis.server();
    let (a, b) = (Kind::Three.start(server), Kind::One.start(server));
    let moves = key_in_the_first_shard(&[]);
    let stays = key_in_the_first_shard(&[slot(moves.as_bytes())]);
    let mut router = a.router();
    router.run(&format!("SET {moves} 1"));
    router.run(&format!("SET {stays} 1"));
    let mut duplex = Duplex::synced(&job(&a, &b));
    b.wait_copied(&a);
    duplex.crash();
    let Site::Many(cluster) = &a else { unreachable!("it has three shards") };
    let map = cluster.map();
    // The strand's notes are where its first slot is: beside the control key there.
    let mut home = cluster.nodes[cluster.node_with_port(map[0])].client();
    let names = home.run("KEYS duplex:*:reverse{*");
    let control =
        names.items().iter().map(Reply::text).find(|name| slot(name.as_bytes()) == 0).expect("a control key in slot 0");
    let notes = control.replace(":reverse{", ":reverse:open{");
    assert_eq!(home.run(&format!("EXISTS {notes}")).int(), 0, "nothing was open");
    home.run(&format!("HSET {notes} 0:{stays} \"99 s\""));
    let to = *map.last().expect("a map");
    assert_ne!(map[slot(moves.as_bytes())], to);
    cluster.migrate(slot(moves.as_bytes()), to);
    duplex.revive();
    duplex.wait_state("synchronizing", secs(60));
    wait_for("the conflict is settled", secs(30), || {
        let events = duplex.run(&["events", "--json", "-n", "1000"]).code(0).stdout;
        // As it stands in a string of JSON.
        let told = format!("conflict on \\\"{stays}\\\" (db0) settled");
        if events.contains(&told) { Ok(()) } else { Err(events) }
    });
    wait_for("it is open no more", secs(30), || match home.run(&format!("HEXISTS {notes} 0:{stays}")).int() {
        0 => Ok(()),
        _ => Err(format!("{:?}", home.run(&format!("HGETALL {notes}")))),
    });
}
