//! How long a recovery takes over a slow line, in round trips: what was written just before the engine was killed, and
//! while it was away, has to be at the other side soon after it is back.

use crate::{
    apart,
    support::{
        compare::{control_keys, key_count},
        load::{fill, sized},
        versions::Slot,
        *,
    },
};
use std::time::{Duration, Instant};

/// Each way.
const DELAY: Duration = Duration::from_millis(200);

/// The target's control key says that the copy has ended. Before that a killed engine copies again, which takes longer than
/// to go on does.
fn copied(target: &Server) {
    wait_for("the copy's end is noted at the target", secs(10), || {
        let keys = control_keys(target);
        let key = keys.iter().find_map(|key| key.strip_prefix("db0 ").filter(|k| k.ends_with(":forward")));
        let said = target.client().run(&format!("GET {}", key.ok_or("no control key")?)).text();
        if said.split(' ').nth(4) == Some("s") { Ok(()) } else { Err(said) }
    });
}

/// From the engine's begin, or the cut, until both sides are equal; with writes at both sides before it, on keys that are
/// in conflict, and after it.
fn recovers(what: &str, cut: impl FnOnce(&[Proxy; 2], &mut Duplex)) -> f64 {
    let (a, b, proxies, mut duplex) = apart(DELAY);
    copied(&b);
    let (mut at_a, mut at_b) = (a.client(), b.client());
    for i in 0..200 {
        at_a.run(&format!("SET k:{} a{i}", i % 50));
        at_b.run(&format!("RPUSH l:{} b{i}", i % 50));
        at_b.run(&format!("SET k:{} b{i}", i % 70));
    }
    let cut_at = Instant::now();
    cut(&proxies, &mut duplex);
    for i in 0..100 {
        at_a.run(&format!("INCR n:{i}"));
        at_b.run(&format!("SET k:{i} late"));
    }
    assert_equal_within(&a, &b, secs(30));
    let took = cut_at.elapsed().as_secs_f64();
    eprintln!("{what}: equal {took:.2} s after, {:.1} round trips", took / (2.0 * DELAY.as_secs_f64()));
    took
}

#[test]
fn a_killed_engine_is_in_step_again_after_few_round_trips() {
    let took = recovers("killed", |_, duplex| {
        duplex.crash();
        duplex.revive();
    });
    assert!(took < sized(5.0, 4.0), "{took:.2} s");
}

#[test]
fn a_cut_line_is_mended_in_few_round_trips() {
    for side in [0, 1] {
        let took = recovers("cut", |proxies, _| _ = proxies[side].cut());
        assert!(took < sized(5.0, 4.0), "{took:.2} s");
    }
}

/// It has to look through what the first one left, twice, and at the end for the expiries that it has put off: over a slow
/// line that must not take a round trip for each few keys.
#[test]
fn a_copy_that_begins_anew_over_a_slow_line_takes_few_round_trips() {
    const KEYS: u64 = 50_000;
    let (a, b) = (Server::start(Slot::Usual.server(), &[]), Server::start(Slot::Usual.server(), &[]));
    fill(&a, KEYS, true);
    let proxies = [&a, &b].map(|server| Proxy::to(server.port));
    let job = JobSpec::between(proxies[0].addr(), proxies[1].addr());
    let mut duplex = Duplex::new(&job.limits(&format!("max_ops_per_second = {}", KEYS / 2)));
    duplex.start();
    wait_for("most of it is copied", secs(30), || match key_count(&b) {
        n if n > KEYS / 2 => Ok(()),
        n => Err(format!("{n} keys")),
    });
    duplex.crash();
    let kept: Vec<String> = b.client().run("KEYS key:*1").items().iter().take(100).map(Reply::text).collect();
    a.client().run(&format!("DEL {}", kept.join(" ")));
    proxies.iter().for_each(|p| p.delay(DELAY));
    let begun = Instant::now();
    duplex.revive();
    duplex.run(&["limit", &duplex.name, "--ops", "0"]).code(0);
    duplex.wait_state("synchronizing", secs(60));
    let took = begun.elapsed().as_secs_f64();
    eprintln!("copied anew: {took:.2} s, {:.1} round trips", took / (2.0 * DELAY.as_secs_f64()));
    assert_equal_within(&a, &b, secs(5));
    assert!(took < 15.0, "{took:.2} s");
}
