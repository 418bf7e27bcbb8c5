//! What a plain SET is to a cluster: one command, with the control key in it, and one in its stream.

use crate::support::{
    cluster::{Cluster, assert_sites_equal, slot},
    duplex::Status,
    server::field,
    versions::Slot,
    *,
};
use crate::{Kind, job};

/// How often the masters have run a command.
fn calls(cluster: &Cluster, command: &str) -> u64 {
    let of = |server: &&Server| -> u64 {
        let stats = server.client().run("INFO commandstats").text();
        let calls = field(&stats, &format!("cmdstat_{command}"));
        calls.map_or(0, |stat| stat.trim_start_matches("calls=").split(',').next().unwrap().parse().unwrap())
    };
    cluster.masters().iter().map(of).sum()
}

const SETS: u64 = 300;

/// Nothing of what came from the source was taken for a change of the target's clients.
fn nothing_went_back(status: &Status) {
    assert_eq!((status.count("reverse", "changes_applied"), status.count("reverse", "conflicts_settled")), (0, 0));
    assert!(status.count("reverse", "echoes_dropped") >= SETS, "{:#}", status.0);
}

fn plain_sets(server: &str) {
    let (a, b) = (Kind::Three.start(server), Kind::Uneven.start(server));
    let duplex = Duplex::synced(&job(&a, &b));
    let (msets, execs) = (calls(b.cluster(), "mset"), calls(b.cluster(), "exec"));
    let mut router = a.router();
    for n in 0..SETS {
        router.run(&format!("SET key:{n} {n}"));
    }
    assert_sites_equal(&a, &b, secs(30));
    let (msets, execs) = (calls(b.cluster(), "mset") - msets, calls(b.cluster(), "exec") - execs);
    assert!(msets >= SETS * 9 / 10, "{msets} MSETs for {SETS} SETs");
    // A checkpoint now and then.
    assert!(execs < SETS / 4, "{execs} EXECs for {SETS} SETs");
    let back = |status: &Status| status.count("reverse", "echoes_dropped") >= SETS;
    nothing_went_back(&duplex.wait_status("all is back", secs(30), back));

    // Many at once to one slot, in turn with what is no plain SET: one behind the other, each once.
    let a_client = a.cluster().masters()[0].port;
    let tag = (0..).map(|n| format!("t{n}")).find(|t| a.cluster().map()[slot(t.as_bytes())] == a_client).unwrap();
    let mut client = a.cluster().masters()[0].client();
    let say = |line: String| line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
    let all: Vec<_> = (0..200)
        .flat_map(|n| {
            let lines = ["n".to_owned(), "n".to_owned(), "s".to_owned(), format!("last:{n}")]
                .map(|key| format!("{{{tag}}}:{key}"));
            let [n_key, again, s_key, last] = lines;
            [
                format!("SET {n_key} {}", n * 10),
                format!("INCR {again}"),
                format!("APPEND {s_key} x"),
                format!("SET {last} {n}"),
            ]
        })
        .map(say)
        .collect();
    client.pipeline(&all);
    assert_sites_equal(&a, &b, secs(30));
    let mut there = b.router();
    assert_eq!(there.run(&format!("GET {{{tag}}}:n")).text(), "1991");
    assert_eq!(there.run(&format!("STRLEN {{{tag}}}:s")).int(), 200);
    let back = |status: &Status| status.count("reverse", "echoes_dropped") >= SETS + 800;
    nothing_went_back(&duplex.wait_status("all is back", secs(30), back));
}

#[test]
fn a_plain_set_is_one_command_at_a_cluster() {
    plain_sets(Slot::Usual.server());
}

#[test]
fn a_plain_set_is_one_command_at_a_cluster_of_the_newest_redis() {
    plain_sets(Slot::NewestRedis.server());
}

#[test]
fn a_plain_set_is_one_command_at_a_cluster_of_the_newest_valkey() {
    plain_sets(Slot::NewestValkey.server());
}
