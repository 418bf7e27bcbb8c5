//! What a change in flight costs in allocations: none, once the table has grown to what is in flight. Counted by the
//! allocator of this test, for the thread that runs it.

#![expect(unsafe_code, reason = "an allocator is unsafe by its nature; this one only counts")]

use redis_duplex::engine::arbiter::class::{Class, Part};
use redis_duplex::engine::arbiter::{Arbiter, Touch, Verdict};
use redis_duplex::model::Side;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: each call is the system's; counting touches no memory of the allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(run: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    run();
    COUNT.get() - before
}

/// Changes of both sites to keys of their own, each kind of them in turn, with so many in flight to each site.
fn changes(arbiter: &mut Arbiter, keys: &[[Vec<u8>; 2]], in_flight: u64) {
    let kinds = [
        (Class::Write, Part::WHOLE),
        (Class::Delete, Part::WHOLE),
        (Class::HashSet, Part::one(7)),
        (Class::Read, Part::WHOLE),
    ];
    for (n, pair) in keys.iter().enumerate() {
        for (here, key) in Side::BOTH.into_iter().zip(pair) {
            let (class, part) = kinds[n % kinds.len()];
            let touch = Touch { db: 0, key, hash: arbiter.hash(0, key), class, part };
            let Verdict::Forward(serial) = arbiter.change(here, &touch, 5) else {
                panic!("no two sites write the same key here")
            };
            if n % 64 == 63 {
                arbiter.echo(here.other(), serial.saturating_sub(in_flight), 5);
            }
        }
    }
}

#[test]
fn a_change_in_flight_costs_no_allocation() {
    const IN_FLIGHT: u64 = 10_000;
    let mut arbiter = Arbiter::new(1, 7, false);
    let keys: Vec<_> = (0..100_000).map(|n| ["a", "b"].map(|site| format!("{site}:{n:012}").into_bytes())).collect();
    let growing = allocations(|| changes(&mut arbiter, &keys, IN_FLIGHT));
    assert!(growing > 0, "nothing is counted");
    let steady = allocations(|| changes(&mut arbiter, &keys, IN_FLIGHT));
    assert_eq!(arbiter.counters().opened, 0);
    // The blocks that hold them are made and given up as they come and go.
    let each = steady as f64 / (2.0 * keys.len() as f64);
    eprintln!("{growing} allocations while the table grows, then {steady}, {each:.5} a change");
    assert!(each < 0.002, "{steady} allocations for {} changes", 2 * keys.len());
}
