//! What the arbiter takes of a change that meets no conflict: `cargo bench --bench arbiter`.
//!
//! A change is checked against what is in flight from the other site and entered; its echo takes it out again. Both
//! sites change keys of their own, with so many changes in flight as a pipeline holds. Timed by hand, the best and the
//! middle of eleven runs: what is measured is a loop over memory.

use redis_duplex::engine::arbiter::class::{Class, Part};
use redis_duplex::engine::arbiter::{Arbiter, Touch, Verdict};
use redis_duplex::model::Side;
use std::hint::black_box;
use std::time::Instant;

const CHANGES: usize = 1 << 20;
/// Changes that one echo clears: what a transaction holds.
const BATCH: usize = 256;

fn main() {
    println!("{:<34} {:>14} {:>14} {:>14} {:>12}", "ns a change", "hash", "change", "echo", "bytes");
    for window in [1usize << 10, 1 << 14, 1 << 17] {
        let runs: Vec<[f64; 4]> = (0..11).map(|_| run(window)).collect();
        let column = |i: usize| {
            let mut all: Vec<f64> = runs.iter().map(|r| r[i]).collect();
            all.sort_by(f64::total_cmp);
            format!("{:.0} ({:.0})", all[0], all[all.len() / 2])
        };
        let name = format!("{window} in flight, best (middle)");
        println!("{name:<34} {:>14} {:>14} {:>14} {:>12}", column(0), column(1), column(2), column(3));
    }
}

/// Nanoseconds for the hash of a key, for a change with it, for an echo's part, and bytes of table a change in flight.
fn run(window: usize) -> [f64; 4] {
    let mut arbiter = Arbiter::new(1, 7, false);
    let keys: Vec<[u8; 20]> = (0..CHANGES).map(key).collect();
    let began = Instant::now();
    for k in &keys {
        black_box(arbiter.hash(0, k));
    }
    let hash = began.elapsed().as_nanos() as f64 / CHANGES as f64;
    let (mut changing, mut echoing, mut echoes, mut bytes) = (0u128, 0u128, 0usize, 0.0f64);
    let mut sent = std::collections::VecDeque::new();
    for (n, chunk) in keys.chunks(BATCH).enumerate() {
        let here = Side::BOTH[n % 2];
        let began = Instant::now();
        let mut last = 0;
        for k in chunk {
            let touch = Touch { db: 0, key: k, hash: arbiter.hash(0, k), class: Class::Write, part: Part::WHOLE };
            match arbiter.change(here, &touch, 5) {
                Verdict::Forward(serial) => last = serial,
                Verdict::Withhold => panic!("keys of one site met no change of the other"),
            }
        }
        changing += began.elapsed().as_nanos();
        sent.push_back((here.other(), last));
        if sent.len() * BATCH > window * 2 {
            let (site, serial) = sent.pop_front().expect("just pushed");
            let (held, memory) = arbiter.in_flight(site);
            bytes = bytes.max(memory as f64 / held as f64);
            let began = Instant::now();
            arbiter.echo(site, serial, 1);
            echoing += began.elapsed().as_nanos();
            echoes += BATCH;
        }
    }
    assert_eq!(arbiter.counters().opened, 0, "no conflict, no episode");
    [hash, changing as f64 / CHANGES as f64, echoing as f64 / echoes as f64, bytes]
}

fn key(i: usize) -> [u8; 20] {
    let mut out = *b"user:000000000000:cc";
    for (d, byte) in out[5..17].iter_mut().rev().enumerate() {
        *byte = b'0' + (i / 10usize.pow(d as u32) % 10) as u8;
    }
    out
}
