//! Corner cases that no schedule is likely to dwell on: bounds, back-off, cost.

use crate::engine::arbiter::class::{Class, Part};
use crate::engine::arbiter::leftovers::Leftovers;
use crate::engine::arbiter::made_by::MadeBy;
use crate::engine::arbiter::settling::ROUNDS_AT_ONCE;
use crate::engine::arbiter::{Arbiter, Cause, Effect, Touch, Verdict};
use crate::engine::strand::SlotSet;
use crate::model::Side;
use crate::wire::command::lookup;
use crate::wire::slot::slot;
use std::time::Instant;

fn touch<'a>(a: &Arbiter, key: &'a [u8], class: Class) -> Touch<'a> {
    Touch { db: 0, key, hash: a.hash(0, key), class, part: Part::WHOLE }
}

fn serial(v: Verdict) -> u64 {
    match v {
        Verdict::Forward(s) => s,
        Verdict::Withhold => panic!("withheld"),
    }
}

#[test]
fn an_avalanche_of_conflicts_asks_for_a_bounded_number_of_states_at_once() {
    let mut a = Arbiter::new(1, 1, false);
    let keys: Vec<[u8; 4]> = (0..3000u32).map(u32::to_be_bytes).collect();
    for k in &keys {
        let t = touch(&a, k, Class::Write);
        a.differs(&t, Side::Source, Cause::Repair);
    }
    let mut settled = 0;
    for round in 0..1000 {
        assert_eq!(a.settle(round), None, "an echo tells when to go on, not the clock");
        let asked: Vec<u64> = a
            .take_effects()
            .filter_map(|e| if let Effect::Ask { serial, .. } = e { Some(serial) } else { None })
            .collect();
        assert!(asked.len() <= ROUNDS_AT_ONCE);
        let Some(last) = asked.last() else { break };
        a.echo(Side::Source, *last, round);
        let back: Vec<u64> = a
            .take_effects()
            .filter_map(|e| if let Effect::Restore { serial, .. } = e { Some(serial) } else { None })
            .collect();
        assert_eq!(back.len(), asked.len(), "a state for each token");
        let last = back[back.len() - 1];
        a.echo(Side::Target, last, round);
        settled += a.take_effects().filter(|e| matches!(e, Effect::Settled(_))).count();
    }
    assert_eq!(settled, keys.len());
    assert!(a.is_quiet());
}

#[test]
fn a_hot_key_waits_longer_each_time_and_keeps_nobody_waiting() {
    let mut a = Arbiter::new(1, 1, false);
    let hot = b"hot";
    let t = touch(&a, hot, Class::Write);
    a.differs(&t, Side::Source, Cause::Repair);
    let (mut asks, mut other_asked) = (0, 0);
    for now in 0..10_000u64 {
        if now == 5000 {
            let t = touch(&a, b"cold", Class::Write);
            a.differs(&t, Side::Source, Cause::Repair);
        }
        a.settle(now);
        let effects: Vec<Effect> = a.take_effects().collect();
        for e in effects {
            if let Effect::Ask { key, serial, .. } = e {
                asks += u32::from(*key == *hot);
                if *key == *b"cold" {
                    other_asked = now;
                }
                // The target changes the hot key again before the state has come over.
                let t = touch(&a, hot, Class::Write);
                serial_after(&mut a, &t);
                a.echo(Side::Source, serial, now);
            }
        }
        let restored: Vec<u64> = a
            .take_effects()
            .filter_map(|e| if let Effect::Restore { serial, .. } = e { Some(serial) } else { None })
            .collect();
        if let Some(last) = restored.last() {
            a.echo(Side::Target, *last, now);
        }
    }
    assert!((10..=25).contains(&asks), "{asks} rounds in ten seconds");
    assert_eq!(other_asked, 5000);
}

fn serial_after(a: &mut Arbiter, t: &Touch<'_>) -> u64 {
    serial(a.change(Side::Target, t, 1))
}

/// Each flip of the authority is a round in vain as well.
#[test]
fn flips_of_the_authority_back_off_too() {
    let mut a = Arbiter::new(1, 1, false);
    let mut asks = 0;
    let keys: [&[u8]; 2] = [b"a", b"b"];
    for now in 0..5000u64 {
        let touches = keys.map(|k| touch(&a, k, Class::Write));
        let side = Side::BOTH[(now % 2) as usize];
        a.change_many(side, &touches, 1);
        a.settle(now);
        asks += a.take_effects().filter(|e| matches!(e, Effect::Ask { .. })).count();
    }
    assert!(asks < 60, "{asks} tokens for two keys in five seconds");
    assert_eq!(a.episodes().len(), 2);
}

#[test]
fn a_change_that_can_not_be_said_takes_the_authority() {
    let mut a = Arbiter::new(1, 1, false);
    let t = touch(&a, b"k", Class::Write);
    a.differs(&t, Side::Source, Cause::Repair);
    a.change_as_state(Side::Target, &[t], 1);
    assert_eq!(a.episodes().iter().next().map(|e| e.authority), Some(Side::Target));
}

#[test]
fn a_change_without_keys_leaves_nothing_behind() {
    let mut a = Arbiter::new(1, 1, false);
    let s = serial(a.change_many(Side::Source, &[], 1));
    a.echo(Side::Target, s, 1);
    assert!(a.is_quiet() && a.tables.iter().all(|t| t.is_clean()));
}

/// How long a change of a key that nobody else writes takes, with its echo. Run with `--ignored --nocapture`, optimised.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_change_without_conflict() {
    const KEYS: u32 = 1 << 16;
    const N: u64 = 4_000_000;
    const WINDOW: u64 = 10_000;
    let mut a = Arbiter::new(1, 1, false);
    let keys: Vec<[u8; 16]> = (0..KEYS)
        .map(|i| {
            let mut k = *b"user:00000000:id";
            k[5..9].copy_from_slice(&i.to_be_bytes());
            k
        })
        .collect();
    let began = Instant::now();
    let mut last = [0; 2];
    for i in 0..N {
        let side = Side::BOTH[(i & 1) as usize];
        let key = &keys[(i.wrapping_mul(0x9e37_79b9) as u32 % KEYS / 2 * 2 + (i & 1) as u32) as usize];
        let t = touch(&a, key, Class::Write);
        last[side.other().index()] = serial(a.change(side, &t, i as u32 | 1));
        if i % 100 == 0 && i > WINDOW {
            for s in Side::BOTH {
                a.echo(s, last[s.index()] - WINDOW / 2, i);
            }
        }
    }
    let each = began.elapsed().as_nanos() as f64 / N as f64;
    eprintln!("{each:.1} ns a change, {} bytes", a.in_flight(Side::Source).1);
    assert_eq!(a.counters().opened, 0);
}

#[test]
fn the_side_where_a_slot_moved_stands_whatever_opens_an_episode() {
    let mut a = Arbiter::new(1, 1, false);
    let mut moved = [SlotSet::none(), SlotSet::none()];
    moved[Side::Target.index()].insert(slot(b"{m}1"));
    a.moved(&moved);
    let authority = |a: &Arbiter, key: &[u8]| a.episodes().iter().find(|e| &*e.key == key).map(|e| e.authority);
    let t = touch(&a, b"{m}1", Class::Write);
    a.differs(&t, Side::Source, Cause::Recovery);
    a.recover_episode(0, b"{m}2", Side::Source);
    a.recover_episode(0, b"other", Side::Source);
    // A command of the other side whose keys are in conflict is not withheld: its outcome is in no state that is carried.
    let several = [touch(&a, b"{m}1", Class::Write), touch(&a, b"{m}3", Class::Write)];
    serial(a.change_many(Side::Source, &several, 0));
    for key in [&b"{m}1"[..], b"{m}2", b"{m}3"] {
        assert_eq!(authority(&a, key), Some(Side::Target), "{}", key.escape_ascii());
    }
    assert_eq!(authority(&a, b"other"), Some(Side::Source));
    // Until its keys are settled.
    a.moved_is_settled(Side::Target);
    a.recover_episode(0, b"{m}4", Side::Source);
    assert_eq!(authority(&a, b"{m}4"), Some(Side::Source));
}

/// What clients did while its slot was away stands in the stream as state, behind what is in doubt now.
#[test]
fn the_side_whose_slot_was_away_stands_until_that_is_read() {
    let mut a = Arbiter::new(1, 1, false);
    a.came_back(Side::Target, SlotSet::of(&[(slot(b"{m}"), slot(b"{m}"))]));
    let authority = |a: &Arbiter, key: &[u8]| a.episodes().iter().find(|e| &*e.key == key).map(|e| e.authority);
    let t = touch(&a, b"{m}1", Class::Counter);
    a.differs(&t, Side::Source, Cause::Recovery);
    assert_eq!(authority(&a, b"{m}1"), Some(Side::Target));
    assert_eq!(a.loses_by_move(Side::Target, &t), None);
    assert!(a.is_overruled(b"{m}2", Side::Source) && !a.is_overruled(b"{m}2", Side::Target));
    // Where it has moved at the other side as well, that one's state is all that is settled by.
    let mut moved = [SlotSet::none(), SlotSet::none()];
    moved[Side::Source.index()].insert(slot(b"{m}"));
    a.moved(&moved);
    a.differs(&touch(&a, b"{m}3", Class::Counter), Side::Target, Cause::Recovery);
    assert_eq!(authority(&a, b"{m}3"), Some(Side::Source));
    a.moved_is_settled(Side::Source);
    a.came_back(Side::Target, SlotSet::none());
    a.differs(&touch(&a, b"{m}4", Class::Counter), Side::Source, Cause::Recovery);
    assert_eq!(authority(&a, b"{m}4"), Some(Side::Source));
}

/// A copy is begun anew; the source has deleted `a` meanwhile, which the first one has left at the target. There a client
/// makes a union with it and deletes it: the union comes out differently at the source, and no reply says so.
#[test]
fn what_is_made_of_a_leftover_is_settled() {
    for known in [false, true] {
        let mut a = Arbiter::new(1, 1, false);
        a.loading(Some(Side::Source));
        let left = a.hash(0, b"a");
        a.expect_leftovers(if known { Leftovers::new(vec![left]) } else { Leftovers::unknown() });
        let union = [touch(&a, b"a", Class::Read), touch(&a, b"b", Class::Read), touch(&a, b"d", Class::Write)];
        // Also where the leftovers that are still there have been deleted before that is read.
        a.leftovers_deleted();
        serial(a.change_many(Side::Target, &union, 1));
        serial(a.change(Side::Target, &touch(&a, b"a", Class::Delete), 2));
        let open: Vec<_> = a.episodes().iter().map(|e| (&*e.key, e.authority)).collect();
        assert_eq!(open, [(&b"d"[..], Side::Source)]);
    }
}

/// A cluster whose slots move may come to be the authority before any transfer has brought what was withheld from it.
#[test]
fn nothing_is_withheld_from_a_cluster() {
    for clusters in [[false; 2], [true, false]] {
        let mut a = Arbiter::new(1, 1, false);
        a.slots_may_move(clusters);
        let (set, push) = (touch(&a, b"k", Class::Write), touch(&a, b"k", Class::Counter));
        a.differs(&set, Side::Target, Cause::Repair);
        let goes = |v: Verdict| matches!(v, Verdict::Forward(_));
        assert_eq!(goes(a.change(Side::Target, &push, 1)), clusters[0], "the authority's own change, to the source");
        assert!(goes(a.change(Side::Source, &push, 1)), "the other side's goes in any case");
        // One that others overtook is done at the source again, if its state may come to stand.
        assert_eq!(goes(a.overtaken(Side::Source, &push)), clusters[0]);
        // What stands at a side whose slot has moved: the flip finds all of it there.
        a.change_as_state(Side::Source, &[set], 2);
        assert_eq!(a.episodes().iter().next().map(|e| e.authority), Some(Side::Source));
    }
}

#[test]
fn a_change_that_is_sent_again_is_not_called_by_the_command_that_is_decided_just_then() {
    let mut a = Arbiter::new(1, 1, false);
    a.slots_may_move([false, true]);
    let k = touch(&a, b"k", Class::Write);
    a.made_by(MadeBy::command(lookup(&["SET"])), 30);
    assert!(matches!(a.overtaken(Side::Target, &k), Verdict::Forward(_)));
    a.take_effects();
    let entered = a.tables[Side::Target.index()].changes(k.hash).next().map(|(_, what)| what.made_by);
    assert_eq!(entered, Some(MadeBy::UNKNOWN));
}
