//! One key written as fast as it goes at both sides: nobody else may notice.

use crate::{
    apart,
    support::{load::sized, resp::Argv, wait::until, *},
};
use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Writes of the hot key, a second, at each side.
const PER_SECOND: u64 = 5_000;
const PIPELINE: u64 = 25;

/// How long writes to other keys take from one site until they are seen at the other, in milliseconds, in order.
fn lags(from: &Server, to: &Server, name: &str, ends: Instant) -> Vec<f64> {
    let sent = Mutex::new(Vec::<Instant>::new());
    let over = AtomicBool::new(false);
    to.client().run("CONFIG SET notify-keyspace-events K$");
    let mut events = to.client();
    events.run(&format!("PSUBSCRIBE __keyspace@0__:{name}:*"));
    let mut seen = Vec::new();
    thread::scope(|s| {
        s.spawn(|| {
            let mut c = from.client();
            let began = Instant::now();
            for i in 0.. {
                until(began + Duration::from_millis(10) * i);
                sent.lock().expect("the times").push(Instant::now());
                c.run(&format!("SET {name}:{i} x"));
                if Instant::now() > ends {
                    break;
                }
            }
            over.store(true, Ordering::SeqCst);
        });
        while !(over.load(Ordering::SeqCst) && seen.len() == sent.lock().expect("the times").len()) {
            let event = events.read().expect("an event of each write");
            let now = Instant::now();
            let key = event.items().get(2).map(Reply::text).unwrap_or_default();
            let i: usize = key.rsplit(':').next().and_then(|n| n.parse().ok()).expect("the number of a probe");
            seen.push((now - sent.lock().expect("the times")[i]).as_secs_f64() * 1e3);
        }
    });
    seen.sort_by(f64::total_cmp);
    seen
}

/// Both directions at once.
fn lags_both_ways(a: &Server, b: &Server, name: &str, seconds: u64) -> [Vec<f64>; 2] {
    let ends = Instant::now() + Duration::from_secs(seconds);
    thread::scope(|s| {
        let there = s.spawn(|| lags(a, b, &format!("{name}-there"), ends));
        let back = s.spawn(|| lags(b, a, &format!("{name}-back"), ends));
        [there, back].map(|t| t.join().expect("the probes"))
    })
}

fn part(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

#[test]
fn a_hot_key_holds_up_nothing_else() {
    let seconds = sized(5, 30);
    let (a, b, _proxies, duplex) = apart(Duration::from_millis(5));
    let calm = lags_both_ways(&a, &b, "calm", 3);
    let stop = AtomicBool::new(false);
    let (hot, answers, written) = thread::scope(|s| {
        let writers = [(&a, "a"), (&b, "b")].map(|(server, site)| {
            let stop = &stop;
            s.spawn(move || {
                let mut c = server.client();
                let (began, mut n) = (Instant::now(), 0);
                while !stop.load(Ordering::SeqCst) {
                    let commands: Vec<Argv> = (n..n + PIPELINE)
                        .map(|i| if i % 10 == 9 { format!("APPEND hot +{i}") } else { format!("SET hot {site}{i}") })
                        .map(|line| words::words(&line))
                        .collect();
                    c.pipeline(&commands);
                    n += PIPELINE;
                    until(began + Duration::from_secs_f64(n as f64 / PER_SECOND as f64));
                }
                (n as f64 / began.elapsed().as_secs_f64()) as u64
            })
        });
        let probes = s.spawn(|| lags_both_ways(&a, &b, "hot-probe", seconds));
        let mut answers = Vec::new();
        while !probes.is_finished() {
            let asked = Instant::now();
            duplex.status();
            answers.push(asked.elapsed().as_secs_f64() * 1e3);
            until(asked + Duration::from_millis(250));
        }
        stop.store(true, Ordering::SeqCst);
        let written = writers.map(|w| w.join().expect("a writer"));
        (probes.join().expect("the probes"), answers, written)
    });
    let quiet = Instant::now();
    assert_equal_within(&a, &b, secs(5));
    let settled = quiet.elapsed();
    let status = duplex.wait_status("no conflict is open", secs(10), |s| s.0["conflicts_open"] == 0);
    let slowest = answers.iter().copied().fold(0.0, f64::max);
    eprintln!(
        "hot key: {written:?} writes/s for {seconds} s, {} conflicts in {} rounds; equal {:.1} s after; status answered {} times, slowest {slowest:.0} ms",
        status.total("conflicts_settled"),
        status.total("conflict_rounds"),
        settled.as_secs_f64(),
        answers.len()
    );
    for (direction, calm, hot) in [("there", &calm[0], &hot[0]), ("back", &calm[1], &hot[1])] {
        let [before, during] = [calm, hot].map(|l| (part(l, 0.5), part(l, 0.99)));
        eprintln!(
            "other keys, {direction}: p50 {:.1} ms before, {:.1} ms beside the hot key; p99 {:.1} and {:.1} ms",
            before.0, during.0, before.1, during.1
        );
        // A fraction of what an outage or a blocked link would cost; a busy machine alone costs some of it.
        assert!(during.0 < 2.0 * before.0 + 25.0, "{direction}: other keys wait for the hot one");
    }
    assert!(slowest < 2_000.0, "status took {slowest} ms");
    assert!(written.iter().all(|w| *w > PER_SECOND / 2), "only {written:?} writes a second: the test proves nothing");
}
