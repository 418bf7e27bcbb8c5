//! What a strand takes over from those before it, where the slots are divided otherwise when an engine comes back.

use crate::support::{
    cluster::{Site, assert_sites_equal, slot},
    positions::wait_come_back,
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

/// The value of the control key in a slot of a site, by which the strand that it names is known, and whether it says that the
/// first copy is under way.
fn control_key(site: &Site, slot: usize) -> String {
    let map = site.cluster().map();
    let mut home = site.cluster().nodes[site.cluster().node_with_port(map[slot])].client();
    let names = home.run(&format!("CLUSTER GETKEYSINSLOT {slot} 100"));
    let mut names = names.items().iter().map(Reply::text);
    let name = names.find(|name| name.starts_with("duplex:") && name.contains(":forward{")).expect("a control key");
    home.run(&format!("GET {name}")).text()
}

/// A slot has moved, and the shard to which it came takes no control keys just now: so an attach ends when the strand that keeps
/// the other slots is written down, and nothing is of the one that got this slot. What the slot's own control key says is from
/// when the first copy was under way; that the copy has ended since, a control key said that is the heir's now.
#[test]
fn an_attach_that_ends_halfway_does_not_bring_the_copy_back() {
    let server = Slot::NewestRedis.server();
    let (a, b) = (Kind::Three.start(server), Kind::Three.start(server));
    let mut duplex = Duplex::synced(&job(&a, &b));
    let key = key_in_the_first_shard(&[]);
    let (home, moves) = (0, slot(key.as_bytes()));
    let strand = |slot| control_key(&b, slot).split(' ').next_back().expect("words").to_owned();
    let says = |slot, phase| control_key(&b, slot).split(' ').nth(4) == Some(phase);
    wait_for("the copy is over, as one control key of the strand says", secs(30), || match says(home, "s") {
        true => Ok(()),
        false => Err(control_key(&b, home)),
    });
    // Only the target's clients write there, so the slot's own key is what it was.
    (0..5).for_each(|n| drop(b.router().run(&format!("RPUSH {key} {n}"))));
    assert_sites_equal(&a, &b, secs(30));
    assert!(says(moves, "l"), "{}", control_key(&b, moves));
    let before = strand(home);
    assert_eq!(strand(moves), before);

    duplex.crash();
    let cluster = b.cluster();
    let to = *cluster.map().last().expect("a map");
    assert_ne!(cluster.map()[moves], to);
    cluster.migrate(moves, to);
    // In the stream of a shard that this slot was never read from.
    (5..8).for_each(|n| drop(b.router().run(&format!("RPUSH {key} {n}"))));
    let mut there = cluster.nodes[cluster.node_with_port(to)].client();
    there.run("ACL SETUSER default -set");
    duplex.revive();
    wait_for("the heir of the others is written down", secs(60), || match strand(home) {
        now if now != before => Ok(()),
        now => Err(now),
    });
    assert_eq!(strand(moves), before);
    duplex.crash();
    there.run("ACL SETUSER default +set");
    duplex.revive();
    duplex.wait_state("synchronizing", secs(60));
    assert_sites_equal(&a, &b, secs(30));
    let wanted: Vec<String> = (0..8).map(|n| n.to_string()).collect();
    let found = b.router().run(&format!("LRANGE {key} 0 -1"));
    assert_eq!(found.items().iter().map(Reply::text).collect::<Vec<_>>(), wanted);
    let events = duplex.run(&["events", "--json", "-n", "1000"]).code(0).stdout;
    assert!(!events.contains("before the first copy had ended"), "{events}");
    // Nor is anything left of what was kept meanwhile.
    for node in b.masters() {
        let mut client = node.client();
        let names = client.run("KEYS duplex:*:open{*");
        for notes in names.items().iter().map(Reply::text) {
            let kept = client.run(&format!("HGETALL {notes}"));
            assert!(kept.items().iter().all(|word| !word.text().starts_with("newest@")), "{notes}: {kept:?}");
        }
    }
}

/// One strand of three has writes, at the one server; the others say all the same how far the stream there has come: a replica of
/// it that is promoted, or an engine that begins again, asks for all from the least that any of them says.
#[test]
fn a_strand_without_writes_does_not_stay_behind() {
    let server = Slot::Usual.server();
    let (a, b) = (Kind::Three.start(server), Kind::One.start(server));
    let duplex = Duplex::synced(&job(&a, &b));
    b.wait_copied(&a);
    let key = key_in_the_first_shard(&[]);
    let mut client = b.router();
    let value = "x".repeat(64 << 10);
    for _ in 0..100 {
        client.run(&format!("SET {key} {value}"));
    }
    assert_sites_equal(&a, &b, secs(30));
    wait_come_back(&b, 2 << 20);
    duplex.wait_state("synchronizing", secs(30));
}
