//! Whole keys: values with an expiry, lists, sorted sets, databases.

use super::{Case, Line, Rewrite, TimeUnit, Word, one};
use crate::wire::command::Argv;

/// What of SET's and MSETEX's options matters.
#[derive(Default)]
struct Options {
    /// Milliseconds since 1970.
    deadline: Option<Word>,
    /// It is given in other words than `PXAT`.
    other_words: bool,
    keep_ttl: bool,
    /// The arguments of `NX` and `XX`.
    presence: Option<usize>,
    /// The arguments of `IFEQ value` and its like, which one.
    comparison: Option<usize>,
    get: bool,
}

fn options<A: Argv + ?Sized>(case: &Case<'_, A>, from: usize) -> Option<Options> {
    let mut found = Options::default();
    let mut n = from;
    while n < case.argc() {
        let word = case.argv.arg(n);
        if let Some(unit) = TimeUnit::option(word) {
            found.deadline = Some(case.deadline(unit, n + 1)?);
            found.other_words = unit != TimeUnit::PXAT;
            n += 1;
        } else if case.is(n, "KEEPTTL") {
            found.keep_ttl = true;
        } else if case.is(n, "NX") || case.is(n, "XX") {
            found.presence = Some(n);
        } else if case.is(n, "GET") {
            found.get = true;
        } else if word.len() > 2 && word[..2].eq_ignore_ascii_case(b"IF") && n + 1 < case.argc() {
            found.comparison = Some(n);
            n += 1;
        } else {
            return None;
        }
        n += 1;
    }
    Some(found)
}

/// `SET key value [NX|XX|IFEQ v|...] [GET] [EX|PX|EXAT|PXAT t|KEEPTTL]`
pub(super) fn set<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    if case.argc() == 3 {
        return None;
    }
    let options = options(case, 3)?;
    if options.keep_ttl && !case.target.has_keepttl() {
        return Some(Rewrite::State);
    }
    let pxat = case.target.has_pxat();
    let comparison_known = options.comparison.is_none_or(|n| case.target.knows_set_condition(case.argv.arg(n)));
    if !options.other_words && !options.get && comparison_known && (pxat || options.deadline.is_none()) {
        return None;
    }
    let mut line = vec![Word::Text("SET"), Word::Arg(1), Word::Arg(2)];
    if let Some(n) = options.comparison.filter(|_| comparison_known) {
        line.extend(case.args(n..n + 2));
    }
    if options.keep_ttl {
        line.push(Word::Text("KEEPTTL"));
    }
    match options.deadline {
        Some(deadline) if pxat => {
            line.extend(options.presence.map(|n| Word::Arg(n as u32)));
            line.extend([Word::Text("PXAT"), deadline]);
            one(line)
        }
        // Two commands: a condition that fails at the target must not leave the expiry to the other value.
        Some(deadline) => Some(Rewrite::Commands(vec![line, pexpireat(Word::Arg(1), deadline)])),
        None => {
            line.extend(options.presence.map(|n| Word::Arg(n as u32)));
            one(line)
        }
    }
}

fn pexpireat(key: Word, deadline: Word) -> Line {
    vec![Word::Text("PEXPIREAT"), key, deadline]
}

/// `SETEX key seconds value`, `PSETEX key milliseconds value`
pub(super) fn setex<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    let unit = if case.spec.name == "setex" { TimeUnit::EX } else { TimeUnit::PX };
    let deadline = case.deadline(unit, 2)?;
    if case.argc() != 4 {
        return None;
    }
    let mut set = vec![Word::Text("SET"), Word::Arg(1), Word::Arg(3)];
    if case.target.has_pxat() {
        set.extend([Word::Text("PXAT"), deadline]);
        return one(set);
    }
    Some(Rewrite::Commands(vec![set, pexpireat(Word::Arg(1), deadline)]))
}

/// `MSETEX n key value ... [NX|XX] [EX|PX|EXAT|PXAT t|KEEPTTL]`
pub(super) fn msetex<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    let pairs = usize::try_from(case.int(1)?).ok()?;
    let rest = pairs.checked_mul(2)?.checked_add(2)?;
    if pairs == 0 || rest > case.argc() {
        return None;
    }
    let options = options(case, rest)?;
    if case.known() {
        if !options.other_words {
            return None;
        }
        let mut line: Line = case.args(0..rest).collect();
        line.extend(options.presence.map(|n| Word::Arg(n as u32)));
        line.extend([Word::Text("PXAT"), options.deadline?]);
        return one(line);
    }
    if options.keep_ttl && !case.target.has_keepttl() {
        return Some(Rewrite::State);
    }
    if options.deadline.is_none() && !options.keep_ttl {
        let mut line = vec![Word::Text("MSET")];
        line.extend(case.args(2..rest));
        return one(line);
    }
    let mut lines = Vec::with_capacity(pairs * 2);
    for key in (2..rest as u32).step_by(2) {
        let mut set = vec![Word::Text("SET"), Word::Arg(key), Word::Arg(key + 1)];
        match &options.deadline {
            None => {
                set.push(Word::Text("KEEPTTL"));
                lines.push(set);
            }
            Some(deadline) if case.target.has_pxat() => {
                set.extend([Word::Text("PXAT"), deadline.clone()]);
                lines.push(set);
            }
            Some(deadline) => {
                lines.push(set);
                lines.push(pexpireat(Word::Arg(key), deadline.clone()));
            }
        }
    }
    Some(Rewrite::Commands(lines))
}

/// `GETDEL key`, `DELIFEQ key value`, `DELEX key [condition]`: it was deleted, so it is to be deleted.
pub(super) fn delete<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    if case.known() {
        return None;
    }
    one(vec![Word::Text("DEL"), Word::Arg(1)])
}

/// `GETEX key [EX|PX|EXAT|PXAT t|PERSIST]`: what it does beside reading.
pub(super) fn getex<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    if case.argc() == 2 {
        return Some(Rewrite::Drop);
    }
    if case.is(2, "PERSIST") {
        return one(vec![Word::Text("PERSIST"), Word::Arg(1)]);
    }
    let unit = TimeUnit::option(case.argv.arg(2))?;
    one(pexpireat(Word::Arg(1), case.deadline(unit, 3)?))
}

/// `[P]EXPIRE[AT] key time [NX|XX|GT|LT]`
pub(super) fn expire<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    let unit = TimeUnit::command(case.spec.name);
    let plain = case.argc() <= 3 || case.target.speaks_redis(7, 0);
    if !unit.relative && plain {
        return None;
    }
    let mut line = pexpireat(Word::Arg(1), case.deadline(unit, 2)?);
    if plain {
        line.extend(case.args(3..case.argc()));
    }
    one(line)
}

/// `RESTORE[-ASKING] key ttl payload [REPLACE] [ABSTTL] [IDLETIME s] [FREQ n]`
pub(super) fn restore<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    if !case.target.reads_payload(case.argv.arg(3)) {
        return Some(Rewrite::State);
    }
    let ttl = case.int(2)?;
    let absolute = (4..case.argc()).any(|n| case.is(n, "ABSTTL"));
    // A slot that is moved in is restored with another name, which only a cluster's node takes.
    if (absolute || ttl == 0) && case.spec.name == "restore" {
        return None;
    }
    let mut line: Line = vec![Word::Text("RESTORE"), Word::Arg(1)];
    if absolute || ttl == 0 {
        line.extend(case.args(2..case.argc()));
    } else {
        line.push(case.deadline(TimeUnit::PX, 2)?);
        line.extend(case.args(3..case.argc()));
        line.push(Word::Text("ABSTTL"));
    }
    one(line)
}

/// `LPOP key count`: trimming does the same where pops take no count.
pub(super) fn pop<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    if case.argc() != 3 || case.target.speaks_redis(6, 2) {
        return None;
    }
    let count = case.int(2).filter(|n| *n >= 0)?;
    let (from, to) = if case.spec.name == "lpop" { (count, -1) } else { (0, -1 - count) };
    one(vec![Word::Text("LTRIM"), Word::Arg(1), Word::number(from), Word::number(to)])
}

/// `LMOVE source destination from to`: the older word has one direction only.
pub(super) fn lmove<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    if case.known() {
        return None;
    }
    if case.is(3, "RIGHT") && case.is(4, "LEFT") {
        return one(vec![Word::Text("RPOPLPUSH"), Word::Arg(1), Word::Arg(2)]);
    }
    Some(Rewrite::State)
}

/// `ZADD key [NX|XX] [GT|LT] [CH] [INCR] score member ...`
pub(super) fn zadd<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    if case.target.speaks_redis(6, 2) {
        return None;
    }
    let flags = (2..case.argc())
        .take_while(|&n| ["NX", "XX", "GT", "LT", "CH", "INCR"].iter().any(|flag| case.is(n, flag)))
        .last()
        .map_or(2, |n| n + 1);
    let comparison: Vec<usize> = (2..flags).filter(|&n| case.is(n, "GT") || case.is(n, "LT")).collect();
    match (comparison.is_empty(), case.argc().saturating_sub(flags)) {
        (true, _) => None,
        (false, 2) => Some(case.without(&comparison)),
        // Which of several were changed is not told.
        _ => Some(Rewrite::State),
    }
}

/// `BITOP operation destination key ...`: four operations came with Redis 8.2, and no fork has them.
pub(super) fn bitop<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    let old = ["AND", "OR", "XOR", "NOT"].iter().any(|operation| case.is(1, operation));
    (!old && !case.target.has_bitop_diff()).then_some(Rewrite::State)
}

/// `FLUSHALL [ASYNC|SYNC]`, `FLUSHDB [ASYNC|SYNC]`
pub(super) fn flush<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    (case.is(1, "SYNC") && !case.target.speaks_redis(6, 2)).then(|| case.without(&[1]))
}
