//! One-way jobs: keys whose state is to be carried, since no word of the stream will do.
//!
//! A job with one link reads no echoes, so where a state belongs among the changes is told by the source itself: DUMP
//! and the stream's offset are asked for in one transaction there. Sans-IO; who asks is [`super::super::job`]'s.
//!
//! ```text
//!   wanted ──asked──▶ Asked ──state of offset X──▶ Known ──the stream is decided up to X──▶ placed, forgotten
//!     ▲                 │                             │
//!     └── changed behind X, or no answer ◀────────────┘
//! ```
//!
//! Invariants: while a key is here, no change of it goes to the target; a state is placed exactly where the stream has
//! been decided up to its offset, so what is older is in it and what is newer follows it; states at hand are bounded
//! in bytes ([`HELD`]).

use crate::engine::apply::replies::State;
use std::collections::{HashMap, VecDeque};

/// Bytes of states that may wait for the stream; beyond it no more are asked for.
const HELD: usize = 16 << 20;
/// Keys that are asked for at once.
const AT_ONCE: usize = 64;
/// How long a key waits that was changed faster than it could be asked for, in milliseconds: doubled each time.
const AGAIN_FIRST_MS: u64 = 1;
const AGAIN_MOST_MS: u64 = 500;

/// A key, in its database.
pub type Key = (u32, Box<[u8]>);

#[derive(Debug)]
enum Stage {
    Wanted { not_before: u64 },
    Asked,
    Known { state: State, at: u64 },
}

#[derive(Debug)]
struct Carried {
    stage: Stage,
    /// Where the last change of it ends that was kept back.
    touched: u64,
    tries: u32,
}

#[derive(Debug, Default)]
pub struct Carry {
    keys: HashMap<Key, Carried>,
    wanted: VecDeque<Key>,
    /// States at hand, by the offset they belong to; small, since few are asked for at once.
    known: Vec<(u64, Key)>,
    held: usize,
    /// States placed so far.
    pub carried: u64,
}

impl Carry {
    /// No key is being carried: the common case.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key is being carried: its changes are kept back.
    pub fn holds(&self, db: u32, key: &[u8]) -> bool {
        // A lookup by parts of a tuple needs the tuple; keys are only here for moments.
        !self.keys.is_empty() && self.keys.contains_key(&(db, Box::from(key)))
    }

    /// Carry this key. `end`: where the change ends that it is for, 0 for one that the target was sent before. Gives
    /// true if it was not being carried.
    pub fn want(&mut self, db: u32, key: &[u8], end: u64) -> bool {
        let name: Key = (db, key.into());
        let Some(carried) = self.keys.get_mut(&name) else {
            self.wanted.push_back(name.clone());
            self.keys.insert(name, Carried { stage: Stage::Wanted { not_before: 0 }, touched: end, tries: 0 });
            return true;
        };
        carried.touched = carried.touched.max(end);
        if matches!(&carried.stage, Stage::Known { at, .. } if *at < end) {
            self.again(&name, 0);
        }
        false
    }

    /// A whole database is changed (all, without one): what is being carried of it has to be looked at again.
    pub fn want_all(&mut self, db: Option<u32>, end: u64) {
        let keys: Vec<Key> = self.keys.keys().filter(|k| db.is_none_or(|d| d == k.0)).cloned().collect();
        for (db, key) in keys {
            self.want(db, &key, end);
        }
    }

    /// All keys that are being carried.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.keys()
    }

    fn again(&mut self, name: &Key, now_ms: u64) {
        let Some(carried) = self.keys.get_mut(name) else { return };
        let wait = (AGAIN_FIRST_MS << carried.tries.min(16)).min(AGAIN_MOST_MS);
        carried.tries += 1;
        let before = std::mem::replace(&mut carried.stage, Stage::Wanted { not_before: now_ms + wait });
        if let Stage::Known { state, .. } = before {
            self.held -= size(&state);
            self.known.retain(|(_, k)| k != name);
        }
        self.wanted.push_back(name.clone());
    }

    /// The next keys to ask for, and how long to wait if none is due: `None` until there is something new.
    pub fn ask(&mut self, now_ms: u64) -> Result<Vec<Key>, Option<u64>> {
        let mut due = Vec::new();
        let mut next: Option<u64> = None;
        for _ in 0..self.wanted.len() {
            if due.len() == AT_ONCE || self.held > HELD {
                break;
            }
            let Some(name) = self.wanted.pop_front() else { break };
            match self.keys.get_mut(&name) {
                Some(Carried { stage: Stage::Wanted { not_before }, .. }) if *not_before > now_ms => {
                    let wait = *not_before - now_ms;
                    next = Some(next.map_or(wait, |n| n.min(wait)));
                    self.wanted.push_back(name);
                }
                Some(carried @ Carried { stage: Stage::Wanted { .. }, .. }) => {
                    carried.stage = Stage::Asked;
                    due.push(name);
                }
                _ => {}
            }
        }
        if due.is_empty() { Err(next) } else { Ok(due) }
    }

    /// The state of a key as it was where the source's stream stood at `at`.
    pub fn came(&mut self, name: &Key, state: State, at: u64, now_ms: u64) {
        let Some(carried) = self.keys.get_mut(name) else { return };
        if !matches!(carried.stage, Stage::Asked) {
            return;
        }
        if at < carried.touched {
            // The stream was faster: what it changed meanwhile was kept back and is not in this state.
            return self.again(name, now_ms);
        }
        self.held += size(&state);
        carried.stage = Stage::Known { state, at };
        self.known.push((at, name.clone()));
    }

    /// No answer came for a key.
    pub fn unanswered(&mut self, name: &Key, now_ms: u64) {
        if self.keys.get(name).is_some_and(|c| matches!(c.stage, Stage::Asked)) {
            self.again(name, now_ms);
        }
    }

    /// The state of a key can't be had at all.
    pub fn forget(&mut self, name: &Key) {
        if let Some(Carried { stage: Stage::Known { state, .. }, .. }) = self.keys.remove(name) {
            self.held -= size(&state);
            self.known.retain(|(_, k)| k != name);
        }
    }

    /// Some state's place has been reached.
    #[inline]
    pub fn is_due(&self, decided: u64) -> bool {
        self.known.iter().any(|(at, _)| *at <= decided)
    }

    /// The states whose place is here, the stream being decided up to `decided`. Their changes go through again.
    pub fn take_due(&mut self, decided: u64) -> Vec<(Key, State)> {
        let mut due = Vec::new();
        let mut i = 0;
        while i < self.known.len() {
            if self.known[i].0 > decided {
                i += 1;
                continue;
            }
            let (_, name) = self.known.swap_remove(i);
            if let Some(Carried { stage: Stage::Known { state, .. }, .. }) = self.keys.remove(&name) {
                self.held -= size(&state);
                self.carried += 1;
                due.push((name, state));
            }
        }
        due
    }
}

fn size(state: &State) -> usize {
    state.dump.as_ref().map_or(0, |d| d.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn state(text: &'static str) -> State {
        State { dump: Some(Bytes::from_static(text.as_bytes())), expire_at_ms: None }
    }

    fn key(name: &str) -> Key {
        (0, name.as_bytes().into())
    }

    #[test]
    fn a_state_is_placed_where_the_stream_reaches_its_offset() {
        let mut c = Carry::default();
        assert!(c.want(0, b"k", 100));
        assert!(!c.want(0, b"k", 120), "it is on its way already");
        assert!(c.holds(0, b"k") && !c.holds(1, b"k") && !c.holds(0, b"other"));
        assert_eq!(c.ask(1), Ok(vec![key("k")]));
        assert_eq!(c.ask(1), Err(None), "nothing is asked twice");
        c.came(&key("k"), state("v"), 150, 2);
        assert!(!c.is_due(149));
        assert!(c.take_due(149).is_empty());
        assert_eq!(c.take_due(150), [(key("k"), state("v"))]);
        assert!(c.is_idle());
    }

    #[test]
    fn a_change_behind_the_state_makes_it_worthless() {
        let mut c = Carry::default();
        c.want(0, b"k", 100);
        assert!(c.ask(1).is_ok());
        c.want(0, b"k", 200);
        c.came(&key("k"), state("old"), 150, 5);
        assert!(c.take_due(10_000).is_empty());
        assert_eq!(c.ask(5), Err(Some(1)));
        assert_eq!(c.ask(6), Ok(vec![key("k")]));
        c.came(&key("k"), state("new"), 250, 7);
        // And one that comes while the state waits for the stream.
        c.want(0, b"k", 300);
        assert!(c.take_due(300).is_empty());
        assert_eq!(c.ask(1_000), Ok(vec![key("k")]));
        c.came(&key("k"), state("newest"), 300, 1_001);
        assert_eq!(c.take_due(300), [(key("k"), state("newest"))]);
        assert_eq!((c.held, c.known.len(), c.wanted.len()), (0, 0, 0));
    }

    #[test]
    fn what_was_not_answered_is_asked_again() {
        let mut c = Carry::default();
        c.want(0, b"k", 100);
        assert!(c.ask(1).is_ok());
        c.unanswered(&key("k"), 1);
        assert_eq!(c.ask(1_000), Ok(vec![key("k")]));
        c.forget(&key("k"));
        assert!(c.is_idle());
        c.came(&key("k"), state("late"), 500, 1_000);
        assert!(c.is_idle());
    }

    #[test]
    fn states_that_wait_are_bounded() {
        let mut c = Carry::default();
        let big = State { dump: Some(Bytes::from(vec![0; 1 << 20])), expire_at_ms: None };
        for i in 0..500u32 {
            c.want(0, &i.to_be_bytes(), 1);
        }
        let mut got = 0;
        while let Ok(keys) = c.ask(1) {
            got += keys.len();
            for k in keys {
                c.came(&k, big.clone(), 1_000_000, 1);
            }
        }
        assert!((17..=17 + AT_ONCE).contains(&got), "{got}");
        assert_eq!(c.take_due(1_000_000).len(), got);
        assert!(c.ask(1).is_ok(), "there is room again");
    }

    #[test]
    fn a_change_of_a_whole_database_makes_its_states_worthless() {
        let mut c = Carry::default();
        for (db, k) in [(0, b"a"), (1, b"b")] {
            c.want(db, k, 10);
        }
        for k in c.ask(1).unwrap() {
            c.came(&k, state("v"), 20, 1);
        }
        c.want_all(Some(1), 30);
        assert_eq!(c.take_due(30).len(), 1);
        assert!(c.holds(1, b"b"));
    }

    /// Against a model: a source that changes keys, a stream that is decided later, states that come at any time. At
    /// the end the target holds what the source does.
    #[test]
    fn any_schedule_ends_equal() {
        for seed in 0..2_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut c = Carry::default();
            let (mut source, mut target) = ([0u64; 4], [0u64; 4]);
            // Entries of the stream: key, its value afterwards, whether the target has words for it.
            let mut stream: Vec<(usize, u64, bool)> = Vec::new();
            let (mut decided, mut now) = (0usize, 0u64);
            let mut asked: Vec<(Key, u64, u64)> = Vec::new();
            let index = |k: &Key| k.1[0] as usize;
            let place = |c: &mut Carry, target: &mut [u64; 4], decided: usize| {
                for (k, s) in c.take_due(decided as u64) {
                    target[index(&k)] = u64::from_be_bytes(s.dump.unwrap()[..].try_into().unwrap());
                }
            };
            for step in 0..400 {
                now += rng.u64(0..3);
                match rng.u32(0..5) {
                    0 | 1 if step < 300 => {
                        let k = rng.usize(0..4);
                        source[k] += 1;
                        stream.push((k, source[k], rng.u32(0..4) > 0));
                    }
                    2 => {
                        if let Ok(keys) = c.ask(now) {
                            for k in keys {
                                let value = source[index(&k)];
                                asked.push((k, value, stream.len() as u64));
                            }
                        }
                    }
                    3 if !asked.is_empty() => {
                        let (k, value, at) = asked.swap_remove(rng.usize(0..asked.len()));
                        if rng.u32(0..8) == 0 {
                            c.unanswered(&k, now);
                        } else {
                            let dump = Some(Bytes::copy_from_slice(&value.to_be_bytes()));
                            c.came(&k, State { dump, expire_at_ms: None }, at, now);
                            place(&mut c, &mut target, decided);
                        }
                    }
                    _ if decided < stream.len() => {
                        place(&mut c, &mut target, decided);
                        let (k, value, said) = stream[decided];
                        let name = [k as u8];
                        let end = decided as u64 + 1;
                        if !said || c.holds(0, &name) {
                            c.want(0, &name, end);
                        } else {
                            assert_eq!(target[k] + 1, value, "seed {seed}: a change was lost or came twice");
                            target[k] = value;
                        }
                        decided += 1;
                        place(&mut c, &mut target, decided);
                    }
                    _ => {}
                }
            }
            // Quiet: everything is decided and answered.
            while decided < stream.len() || !c.is_idle() {
                now += 1_000;
                for (k, value, at) in asked.drain(..) {
                    let dump = Some(Bytes::copy_from_slice(&value.to_be_bytes()));
                    c.came(&k, State { dump, expire_at_ms: None }, at, now);
                }
                place(&mut c, &mut target, decided);
                if let Some(&(k, value, said)) = stream.get(decided) {
                    let name = [k as u8];
                    if !said || c.holds(0, &name) {
                        c.want(0, &name, decided as u64 + 1);
                    } else {
                        target[k] = value;
                    }
                    decided += 1;
                    place(&mut c, &mut target, decided);
                }
                if let Ok(keys) = c.ask(now) {
                    for k in keys {
                        let value = source[index(&k)];
                        asked.push((k, value, stream.len() as u64));
                    }
                }
            }
            assert_eq!(source, target, "seed {seed}");
        }
    }
}
