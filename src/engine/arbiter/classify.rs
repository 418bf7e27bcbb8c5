//! What a command of the stream touches, in the arbiter's classes.
//!
//! One row a family: its commands commute with each other as [`super::class`] says. A command that no row names is a
//! plain write of each key that it writes, which commutes with nothing: always safe.

use super::class::{Class, Part};
use super::{Arbiter, Touch};
use crate::wire::command::{self, Argv, Kind, Spec, WholeDatabase};
use smallvec::SmallVec;

/// What one command is to the arbiter.
#[derive(Debug)]
pub enum Effect<'a> {
    /// Changes that have to be applied as one: one key or several.
    Keys(SmallVec<[Touch<'a>; 2]>),
    /// The same, but each key stands for itself and the command can be taken apart (DEL of several keys, MSET).
    Apart(SmallVec<[Touch<'a>; 2]>),
    /// FLUSHDB (its database) or FLUSHALL (`None`).
    Flush(Option<u32>),
    /// SWAPDB.
    Swap(u32, u32),
    /// Goes to the other site and touches no key: PUBLISH, FUNCTION, SCRIPT.
    Pass,
    /// Nothing for the other site.
    Nothing,
}

/// Which reply reveals a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reveals {
    /// `:0` (EXPIRE and PERSIST of a key that is gone, SMOVE of a member that is not there).
    Zero,
    /// The same; and where it came late, any: the key may have run out before, and something else have taken its name.
    Renewal,
    /// Nil (LMOVE and LPOP of a list that is gone).
    Nil,
    /// Fewer deletions than keys were named: what a DEL in the echo then deleted, it had not deleted itself.
    Fewer(u32),
}

/// Classifies one command that ran in `db`.
pub fn classify<'a>(arbiter: &Arbiter, db: u32, argv: &'a (impl Argv + ?Sized)) -> Effect<'a> {
    classify_as(command::lookup(argv), arbiter, db, argv)
}

/// The same, for a caller that has looked the command up already.
pub fn classify_as<'a>(spec: Option<&Spec>, arbiter: &Arbiter, db: u32, argv: &'a (impl Argv + ?Sized)) -> Effect<'a> {
    let touch =
        |db: u32, key: &'a [u8], class: Class, part: Part| Touch { db, key, hash: arbiter.hash(db, key), class, part };
    let Some(spec) = spec else {
        // A module's command that we don't know: nearly all name their key first.
        return match argv.argc() {
            0 | 1 => Effect::Pass,
            _ => Effect::Keys(SmallVec::from_iter([touch(db, argv.arg(1), Class::Write, Part::WHOLE)])),
        };
    };
    match spec.kind {
        Kind::Keyed => {}
        Kind::WholeDatabase(WholeDatabase::FlushAll) => return Effect::Flush(None),
        Kind::WholeDatabase(WholeDatabase::FlushDb) => return Effect::Flush(Some(db)),
        Kind::WholeDatabase(WholeDatabase::SwapDb) => {
            let n = |i| atoi::atoi::<u32>(argv.arg(i)).unwrap_or(0);
            return Effect::Swap(n(1), n(2));
        }
        Kind::Publish | Kind::Script | Kind::Function | Kind::SearchIndex => return Effect::Pass,
        Kind::Control | Kind::Slots | Kind::Other => return Effect::Nothing,
    }
    let one = |class, part| Effect::Keys(SmallVec::from_iter([touch(db, argv.arg(1), class, part)]));
    match spec.name {
        "set" | "setex" | "psetex" | "getset" | "append" | "lpush" | "rpush" | "lpop" | "rpop" | "pexpireat"
        | "expireat" | "expire" | "pexpire" | "persist" | "restore" | "xadd" => one(Class::Write, Part::WHOLE),
        "incr" | "decr" | "incrby" | "decrby" => one(Class::Counter, Part::WHOLE),
        "sadd" => one(Class::SetAdd, Part::WHOLE),
        "srem" => one(Class::SetRemove, Part::WHOLE),
        "hset" | "hmset" => one(Class::HashSet, parts(argv, 2, 2)),
        "hsetnx" => one(Class::HashSet, Part::one(member(argv.arg(2)))),
        "hincrby" => one(Class::HashCounter, Part::one(member(argv.arg(2)))),
        "hdel" => one(Class::HashRemove, Part::WHOLE),
        "zadd" => one(Class::SortedAdd, sorted_parts(argv)),
        "zincrby" => one(Class::SortedAdd, Part::one(member(argv.arg(3)))),
        "zrem" => one(Class::SortedRemove, Part::WHOLE),
        "setbit" => one(Class::Bit, Part::one(member(argv.arg(2)))),
        "pfadd" => one(Class::HyperLogLog, Part::WHOLE),
        "del" | "unlink" => {
            let keys = 1..argv.argc();
            Effect::Apart(keys.map(|i| touch(db, argv.arg(i), Class::Delete, Part::WHOLE)).collect())
        }
        "getdel" => one(Class::Delete, Part::WHOLE),
        "mset" => {
            let keys = (1..argv.argc()).step_by(2);
            Effect::Apart(keys.map(|i| touch(db, argv.arg(i), Class::Write, Part::WHOLE)).collect())
        }
        "move" => {
            let to = atoi::atoi::<u32>(argv.arg(2)).unwrap_or(db);
            Effect::Keys(SmallVec::from_iter([
                touch(db, argv.arg(1), Class::Write, Part::WHOLE),
                touch(to, argv.arg(1), Class::Write, Part::WHOLE),
            ]))
        }
        "copy" => {
            let to = (3..argv.argc()).find(|i| argv.arg(*i).eq_ignore_ascii_case(b"db"));
            let to = to.and_then(|i| atoi::atoi::<u32>(argv.arg(i + 1))).unwrap_or(db);
            Effect::Keys(SmallVec::from_iter([
                touch(db, argv.arg(1), Class::Read, Part::WHOLE),
                touch(to, argv.arg(2), Class::Write, Part::WHOLE),
            ]))
        }
        _ => match spec.keys(argv) {
            Some(keys) if !keys.is_empty() => Effect::Keys(
                keys.iter()
                    .map(|k| {
                        // A script may write what it only says it reads.
                        let reads = !k.access.writes() && keys.complete;
                        let class = if reads { Class::Read } else { Class::Write };
                        touch(db, argv.arg(k.arg as usize), class, Part::WHOLE)
                    })
                    .collect(),
            ),
            _ if spec.write => Effect::Pass,
            _ => Effect::Nothing,
        },
    }
}

/// Which reply tells that the target held something else than the source, where no error does. `argc`: of the command.
pub fn reveals(spec: &Spec, argc: usize) -> Option<Reveals> {
    match spec.name {
        "del" | "unlink" => Some(Reveals::Fewer(argc as u32 - 1)),
        "pexpireat" | "expireat" | "expire" | "pexpire" | "persist" => Some(Reveals::Renewal),
        "smove" | "move" | "renamenx" | "lpushx" | "rpushx" | "linsert" | "copy" | "msetnx" | "setnx" | "hsetnx" => {
            Some(Reveals::Zero)
        }
        "lpop" | "rpop" | "lmove" | "rpoplpush" | "spop" | "getset" | "lmpop" | "zmpop" => Some(Reveals::Nil),
        _ => None,
    }
}

fn member(bytes: &[u8]) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut h = foldhash::fast::FixedState::with_seed(1).build_hasher();
    h.write(bytes);
    h.finish()
}

/// The members at every `step`-th argument from `first` on.
fn parts(argv: &(impl Argv + ?Sized), first: usize, step: usize) -> Part {
    if argv.argc() <= first {
        return Part::WHOLE;
    }
    let mut part = Part::one(member(argv.arg(first)));
    for i in (first + step..argv.argc()).step_by(step) {
        part = part.and(member(argv.arg(i)));
    }
    part
}

/// ZADD's members stand behind its options and their scores.
fn sorted_parts(argv: &(impl Argv + ?Sized)) -> Part {
    let mut first = 2;
    while first < argv.argc() {
        let word = argv.arg(first);
        if word.eq_ignore_ascii_case(b"incr") {
            break;
        }
        if ![&b"nx"[..], b"xx", b"gt", b"lt", b"ch"].iter().any(|o| word.eq_ignore_ascii_case(o)) {
            break;
        }
        first += 1;
    }
    if argv.arg(first).eq_ignore_ascii_case(b"incr") { Part::WHOLE } else { parts(argv, first + 1, 2) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touches(words: &[&str]) -> Vec<(u32, String, Class)> {
        let arbiter = Arbiter::new(1, 1, false);
        match classify(&arbiter, 0, words) {
            Effect::Keys(t) | Effect::Apart(t) => {
                t.iter().map(|t| (t.db, String::from_utf8_lossy(t.key).into_owned(), t.class)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_family_has_its_class() {
        assert_eq!(touches(&["SET", "k", "v"]), [(0, "k".into(), Class::Write)]);
        assert_eq!(touches(&["IncrBy", "k", "2"]), [(0, "k".into(), Class::Counter)]);
        assert_eq!(touches(&["MOVE", "k", "3"]), [(0, "k".into(), Class::Write), (3, "k".into(), Class::Write)]);
        assert_eq!(
            touches(&["SUNIONSTORE", "d", "a", "b"]),
            [(0, "d".into(), Class::Write), (0, "a".into(), Class::Read), (0, "b".into(), Class::Read)]
        );
        assert_eq!(touches(&["RENAME", "a", "b"]), [(0, "a".into(), Class::Write), (0, "b".into(), Class::Write)]);
        assert_eq!(touches(&["EVAL", "return 1", "1", "a"]), [(0, "a".into(), Class::Write)]);
    }

    #[test]
    fn fields_and_members_are_told_apart() {
        let part = |words: &[&str]| {
            let arbiter = Arbiter::new(1, 1, false);
            match classify(&arbiter, 0, words) {
                Effect::Keys(t) => t[0].part,
                other => panic!("{other:?}"),
            }
        };
        assert!(!part(&["HSET", "h", "a", "1"]).overlaps(part(&["HSET", "h", "b", "1"])));
        assert!(part(&["HSET", "h", "a", "1", "b", "2"]).overlaps(part(&["HINCRBY", "h", "b", "1"])));
        assert!(!part(&["ZADD", "z", "1", "a"]).overlaps(part(&["ZADD", "z", "GT", "1", "b"])));
        assert!(part(&["ZADD", "z", "CH", "1", "a"]).overlaps(part(&["ZINCRBY", "z", "1", "a"])));
    }
}
