//! What the simulated commands touch, and how: the simulation's own small classifier.

use super::site::{Cmd, Key};
use crate::engine::arbiter::class::{Class, Part};
use smallvec::{SmallVec, smallvec};

/// A key that a command touches.
pub type Word = (Key, Class, Part);

pub fn words(cmd: &Cmd) -> SmallVec<[Word; 4]> {
    use Class::*;
    let whole = Part::WHOLE;
    let one = |n: u32| Part::one(u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7);
    match cmd {
        Cmd::Set(k, ..)
        | Cmd::Push(k, _)
        | Cmd::LPop(k)
        | Cmd::ExpireAt(k, _)
        | Cmd::Persist(k)
        | Cmd::Restore(k, ..) => smallvec![(*k, Write, whole)],
        Cmd::Flush(_) => SmallVec::new(),
        Cmd::MSet(pairs) => pairs.iter().map(|(k, _)| (*k, Write, whole)).collect(),
        Cmd::Del(keys) => keys.iter().map(|k| (*k, Delete, whole)).collect(),
        Cmd::Incr(k, _) => smallvec![(*k, Counter, whole)],
        Cmd::SAdd(k, _) => smallvec![(*k, SetAdd, whole)],
        Cmd::SRem(k, _) => smallvec![(*k, SetRemove, whole)],
        Cmd::HSet(k, f, _) => smallvec![(*k, HashSet, one(*f))],
        Cmd::HIncr(k, f, _) => smallvec![(*k, HashCounter, one(*f))],
        Cmd::HDel(k, f) => smallvec![(*k, HashRemove, one(*f))],
        Cmd::ZAdd(k, m, _) => smallvec![(*k, SortedAdd, one(*m))],
        Cmd::ZRem(k, m) => smallvec![(*k, SortedRemove, one(*m))],
        Cmd::Rename(a, b) | Cmd::LMove(a, b) | Cmd::SMove(a, b, _) => {
            smallvec![(*a, Write, whole), (*b, Write, whole)]
        }
        Cmd::SUnionStore(d, a, b) => smallvec![(*a, Read, whole), (*b, Read, whole), (*d, Write, whole)],
        Cmd::Move(a, db) => smallvec![(*a, Write, whole), (Key { db: *db, id: a.id }, Write, whole)],
    }
}

/// Commands of several keys that are as good as one command for each.
pub fn split(cmd: &Cmd) -> SmallVec<[Cmd; 2]> {
    match cmd {
        Cmd::Del(keys) => keys.iter().map(|k| Cmd::Del(vec![*k])).collect(),
        Cmd::MSet(pairs) => pairs.iter().map(|(k, v)| Cmd::Set(*k, super::site::Value::Text(*v), None)).collect(),
        other => smallvec![other.clone()],
    }
}
