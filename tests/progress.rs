//! How far a first copy is and how long it takes, under a limit that is changed while it runs; how gently it begins.

mod support;

use serde_json::Value;
use std::time::{Duration, Instant};
use support::{load::fill, versions::Slot, wait::until, *};

const KEYS: u64 = 20_000;

fn snapshot(status: &duplex::Status) -> Option<(u64, u64, u64, Option<u64>)> {
    let s = &status.link("forward")?["snapshot"];
    Some((s["keys_done"].as_u64()?, s["keys_total"].as_u64()?, s["bytes_done"].as_u64()?, s["seconds_left"].as_u64()))
}

#[test]
fn keys_and_time_left_are_right_within_a_fifth() {
    for slot in [Slot::Oldest, Slot::Usual] {
        let (a, b) = (Server::start(slot.server(), &[]), Server::start(slot.server(), &[]));
        fill(&a, KEYS, true);
        let mut duplex = Duplex::new(&JobSpec::between(a.addr(), b.addr()).limits("max_ops_per_second = 2000"));
        duplex.start();
        let mut told: Vec<(Instant, u64, u64)> = Vec::new();
        let mut told_bytes: Vec<(u64, u64)> = Vec::new();
        let begun = Instant::now();
        let ended = loop {
            let status = duplex.status();
            if status.state() == "synchronizing" {
                break Instant::now();
            }
            if let Some((done, total, bytes, left)) = snapshot(&status) {
                told_bytes.push((done, bytes));
                let here = support::compare::key_count(&b);
                // The control key and what was answered meanwhile are in one of the two numbers only.
                assert!(done <= here + 1, "{done} keys are told, {here} are there");
                assert!((KEYS..=KEYS + 1).contains(&total), "{total} keys in all: {:#}", status.0);
                told.extend(
                    left.filter(|_| done * 10 > KEYS && done * 10 < KEYS * 8).map(|l| (Instant::now(), done, l)),
                );
            }
            assert!(begun.elapsed() < secs(60), "{:#}", status.0);
            until(Instant::now() + Duration::from_millis(200));
        };
        assert!(told.len() > 5, "only {} estimates in {:?}", told.len(), begun.elapsed());
        for (at, done, left) in &told {
            let truth = ended.duration_since(*at).as_secs_f64();
            let off = (*left as f64 - truth).abs();
            // A second is as exact as it is told.
            assert!(off <= truth * 0.2 + 1.0, "{}: at {done} keys: told {left} s, it took {truth:.1} s", a.name);
        }
        let status = duplex.status();
        let (done, total, bytes, _) = snapshot(&status).expect("the snapshot's numbers stay");
        assert_eq!((done, total), (KEYS, KEYS), "{:#}", status.0);
        let s = &status.link("forward").expect("it is there")["snapshot"];
        assert_eq!(s["bytes_total"].as_u64(), Some(bytes), "{s:#}");
        assert!(bytes > 300_000, "{bytes} bytes");
        // Keys of all types come mixed, so a part of the keys is as big a part of the bytes.
        let halfway = told_bytes.iter().filter(|(done, _)| done * 10 > KEYS && done * 10 < KEYS * 9);
        for (done, then) in halfway {
            let (part, expected) = (*then as f64 / bytes as f64, *done as f64 / KEYS as f64);
            assert!((part - expected).abs() <= expected * 0.2, "{then} of {bytes} bytes at {done} of {KEYS} keys");
        }
        // What was copied says nothing of how fast clients write: the target's backlog lasts as long as it is kept.
        duplex.wait_status("the target's window", secs(20), |s| {
            s.link("reverse").and_then(|l| l["resume_window_seconds"].as_u64()).is_some_and(|s| s >= 3_600)
        });
    }
}

#[test]
fn limits_are_changed_while_the_job_runs() {
    let (a, b) = (Server::start(Slot::Usual.server(), &[]), Server::start(Slot::Usual.server(), &[]));
    fill(&a, KEYS, false);
    let mut duplex = Duplex::new(&JobSpec::between(a.addr(), b.addr()).limits("max_ops_per_second = 500"));
    duplex.start();
    let begun = Instant::now();
    wait_for("some keys are there", secs(20), || match support::compare::key_count(&b) {
        n if n > 1_000 => Ok(()),
        n => Err(n.to_string()),
    });
    assert!(begun.elapsed() > Duration::from_secs(1), "the limit of the job file does not hold");
    // 19,000 keys would take 38 s more.
    let answer = duplex.run(&["limit", &duplex.name, "--ops", "0", "--json"]).code(0);
    let answer: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    assert_eq!((&answer["max_ops_per_second"], &answer["version"]), (&Value::from(0), &Value::from(1)));
    let raised = Instant::now();
    duplex.wait_state("synchronizing", secs(15));
    eprintln!("the rest took {:?}", raised.elapsed());
    assert_equal_within(&a, &b, secs(10));
    // By bytes, in the stream; and it is kept over a crash of the engine.
    duplex.run(&["limit", &duplex.name, "--bytes", "50kb"]).code(0).says(&["51200 bytes"]);
    duplex.crash();
    duplex.revive();
    duplex.wait_state("synchronizing", secs(20));
    let begun = Instant::now();
    let mut c = a.client();
    for i in 0..200 {
        c.call(&[b"SET".to_vec(), format!("big:{i}").into_bytes(), vec![b'x'; 1_000]]);
    }
    assert_equal_within(&a, &b, secs(30));
    assert!(begun.elapsed() > Duration::from_secs(2), "200 kB at 50 kB a second took {:?}", begun.elapsed());
    duplex.run(&["limit", &duplex.name]).code(2).says(&["--ops"]);
    duplex.run(&["limit", "nobody", "--ops", "1"]).code(2);
}

/// A target that may be busy is not met with a full window: little is sent before it has answered, then more and more.
#[test]
fn a_target_is_met_gently() {
    const WAY: Duration = Duration::from_millis(150);
    let (a, b) = (Server::start(Slot::Usual.server(), &[]), Server::start(Slot::Usual.server(), &[]));
    let keys: Vec<support::resp::Argv> =
        (0..8_000).map(|i| vec![b"SET".to_vec(), format!("key:{i}").into_bytes(), vec![b'x'; 1_000]]).collect();
    assert!(a.client().pipeline(&keys).iter().all(|r| !r.is_error()));
    let to_b = Proxy::to(b.port);
    let mut duplex = Duplex::new(&JobSpec::between(a.addr(), to_b.addr()).policy("two_way = false"));
    to_b.delay(WAY);
    duplex.start();
    // What has gone to the target and back, some times in each round trip.
    let mut seen: Vec<(Instant, u64)> = Vec::new();
    let begun = Instant::now();
    while support::compare::key_count(&b) < 8_000 {
        assert!(begun.elapsed() < secs(60), "{:#}", duplex.status().0);
        seen.push((Instant::now(), to_b.bytes()));
        until(Instant::now() + Duration::from_millis(10));
    }
    seen.push((Instant::now(), to_b.bytes()));
    // As much as comes within a round trip from this moment on: no answer to it has had any effect.
    let in_one = |at: usize| {
        let end = seen[at].0 + WAY * 2 - Duration::from_millis(50);
        seen[at..].iter().take_while(|(t, _)| *t <= end).last().map_or(0, |(_, bytes)| bytes - seen[at].1)
    };
    let first = (0..seen.len()).find(|at| in_one(*at) > 100_000).map(in_one).expect("the copy is seen");
    let most = (0..seen.len()).map(in_one).max().unwrap_or(0);
    eprintln!("in the first round trip {first} bytes, at most {most}; {:?} in all", begun.elapsed());
    // Four transactions of 64 KiB, and the one that is begun while there is room.
    assert!(first < 400_000, "{first} bytes before the first answer");
    assert!(most > 2 * first, "it stays at {most} bytes a round trip");
}

#[test]
fn a_full_spool_is_told_until_there_is_room_again_and_loses_nothing() {
    // Given a job with a small spool.
    let (a, b) = (Server::start(Slot::Usual.server(), &[]), Server::start(Slot::Usual.server(), &[]));
    let spec = JobSpec::between(a.addr(), b.addr()).limits("spool_memory = \"1MiB\"\nspool_disk = \"8MiB\"");
    let duplex = Duplex::synced(&spec);
    let alerts = |status: &duplex::Status| -> Vec<String> {
        let all = status.0["alerts"].as_array().cloned().unwrap_or_default();
        all.iter().filter_map(|a| Some(a["rule"].as_str()?.to_owned())).collect()
    };
    // When the target stands still, and more is written at the source than the spool takes.
    support::server::signal(b.pid(), nix::sys::signal::Signal::SIGSTOP);
    let value = "v".repeat(300_000);
    let mut client = a.client();
    for n in 0..80 {
        client.run(&format!("SET key:{n} {value}"));
    }
    // Then that is said, as an alert and with the link, though a spool is never full to its last byte.
    let full = duplex.wait_status("full", secs(60), |s| alerts(s).iter().any(|rule| rule == "spool_full"));
    assert_eq!(full.link("forward").map(|l| l["spool_full"].clone()), Some(Value::Bool(true)));
    assert_eq!(full.link("reverse").map(|l| l["spool_full"].clone()), Some(Value::Bool(false)));
    // And when the target goes on, all of it arrives.
    support::server::signal(b.pid(), nix::sys::signal::Signal::SIGCONT);
    duplex.wait_status("room", secs(60), |s| !alerts(s).iter().any(|rule| rule.starts_with("spool")));
    assert_equal_within(&a, &b, secs(30));
}
