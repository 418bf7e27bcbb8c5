//! Two concurrent writes to one key, in every interleaving: who wins?

use super::engine::{Engine, Options};
use super::site::{Cmd, Key, Site, State, Value};
use crate::model::Side;

const OPTIONS: Options = Options {
    naive: false,
    split: true,
    hidden_as_change: false,
    error_authority: None,
    unknown_time_every: 0,
    slots_move: false,
    untranslatable_every: 0,
};
const KEY: Key = Key { db: 0, id: 7 };

fn both_hold_the_key(modern: [bool; 2]) -> [Site; 2] {
    modern.map(|modern| {
        let mut site = Site::new(modern, 0);
        site.data.insert(KEY, State { value: Value::Text(0), expires: None });
        site
    })
}

fn rest(engine: &mut Engine, sites: &mut [Site; 2], from: u64) {
    for now in from..from + 3000 {
        for side in Side::BOTH {
            engine.read(side, sites, now);
            engine.build(side, 8, false);
            engine.deliver(side, sites, now, false);
            engine.see(side, now);
        }
        engine.settle(now);
    }
}

/// The source runs `first` and the target `second`, in either order; returns what both hold in the end, and which side
/// wrote last.
fn race(seed: u64, first: &Cmd, second: &Cmd) -> (Option<Value>, Side) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut sites = both_hold_the_key([true, true]);
    let mut engine = Engine::new(1, OPTIONS);
    let mut todo = vec![(Side::Source, first), (Side::Target, second)];
    rng.shuffle(&mut todo);
    let mut last = Side::Source;
    for now in 1000..4000 {
        let side = Side::BOTH[rng.usize(..2)];
        match rng.u32(..12) {
            0 => {
                if let Some((side, cmd)) = todo.pop() {
                    sites[side.index()].client(now, std::slice::from_ref(cmd));
                    last = side;
                }
            }
            1..=3 => drop(engine.read(side, &sites, now)),
            4 | 5 => drop(engine.build(side, 8, true)),
            6 | 7 => drop(engine.deliver(side, &mut sites, now, false)),
            8 | 9 => drop(engine.see(side, now)),
            _ => engine.settle(now),
        }
    }
    rest(&mut engine, &mut sites, 4000);
    assert!(todo.is_empty() && engine.is_idle(&sites), "seed {seed}: no rest");
    assert_eq!(sites[0].data.get(&KEY), sites[1].data.get(&KEY), "seed {seed}");
    (sites[0].data.get(&KEY).map(|s| s.value.clone()), last)
}

#[test]
fn the_later_of_two_sets_wins() {
    for seed in super::seeds(400) {
        let (value, last) = race(seed, &Cmd::Set(KEY, Value::Text(1), None), &Cmd::Set(KEY, Value::Text(2), None));
        assert_eq!(value, Some(Value::Text(if last == Side::Source { 1 } else { 2 })), "seed {seed}, last {last}");
    }
}

#[test]
fn a_set_beats_a_concurrent_deletion() {
    for seed in super::seeds(400) {
        let set = Cmd::Set(KEY, Value::Text(1), None);
        let (value, last) = race(seed, &set, &Cmd::Del(vec![KEY]));
        // A deletion made after the write had come over is no concurrent one.
        assert!(value == Some(Value::Text(1)) || last == Side::Target, "seed {seed}: {value:?}");
        let (value, last) = race(seed, &Cmd::Del(vec![KEY]), &set);
        assert!(value == Some(Value::Text(1)) || last == Side::Source, "seed {seed}: {value:?}");
    }
}

/// The same where neither write can have been seen by the other side: the write always stands.
#[test]
fn a_set_beats_a_deletion_that_has_not_seen_it() {
    for first in Side::BOTH {
        let mut sites = both_hold_the_key([true, false]);
        let mut engine = Engine::new(1, OPTIONS);
        let set = (Side::Source, Cmd::Set(KEY, Value::Text(1), None));
        let del = (Side::Target, Cmd::Del(vec![KEY]));
        let order = if first == Side::Source { [set, del] } else { [del, set] };
        for (i, (side, cmd)) in order.into_iter().enumerate() {
            sites[side.index()].client(1000 + i as u64, &[cmd]);
        }
        rest(&mut engine, &mut sites, 1010);
        assert!(engine.is_idle(&sites));
        for s in &sites {
            assert_eq!(s.data.get(&KEY).map(|s| &s.value), Some(&Value::Text(1)), "{first} first");
        }
    }
}
