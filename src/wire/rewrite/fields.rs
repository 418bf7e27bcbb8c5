//! Fields of a hash that expire.

use super::{Case, Line, Rewrite, TimeUnit, Word, one};
use crate::wire::command::Argv;

/// `FIELDS n field ...`, and where its parts stand.
struct Fields {
    /// The word `FIELDS`.
    word: usize,
    /// The first field.
    first: usize,
}

fn fields<A: Argv + ?Sized>(case: &Case<'_, A>, from: usize, per_field: usize) -> Option<Fields> {
    let word = (from..case.argc()).find(|&n| case.is(n, "FIELDS"))?;
    let count = usize::try_from(case.int(word + 1)?).ok()?;
    (count.checked_mul(per_field)?.checked_add(word + 2)? == case.argc()).then_some(Fields { word, first: word + 2 })
}

/// `H[P]EXPIRE[AT] key time [NX|XX|GT|LT] FIELDS n field ...`
pub(super) fn hexpire<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    if !case.known() {
        return Some(Rewrite::State);
    }
    let unit = TimeUnit::command(case.spec.name);
    if !unit.relative {
        return None;
    }
    let mut line = vec![Word::Text("HPEXPIREAT"), Word::Arg(1), case.deadline(unit, 2)?];
    line.extend(case.args(3..case.argc()));
    one(line)
}

/// `HPERSIST key FIELDS n field ...`: where fields do not expire it is so already.
pub(super) fn hpersist<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    (!case.known()).then_some(Rewrite::Drop)
}

/// `HSETEX key [FNX|FXX] [EX|PX|EXAT|PXAT t|KEEPTTL] FIELDS n field value ...`
pub(super) fn hsetex<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    let Fields { word, first } = fields(case, 2, 2)?;
    let mut deadline = None;
    let mut relative = false;
    let mut keep_ttl = false;
    let mut conditions = Vec::new();
    let mut n = 2;
    while n < word {
        if let Some(unit) = TimeUnit::option(case.argv.arg(n)) {
            deadline = Some(case.deadline(unit, n + 1)?);
            relative = unit.relative;
            n += 1;
        } else if case.is(n, "KEEPTTL") {
            keep_ttl = true;
        } else {
            conditions.push(n);
        }
        n += 1;
    }
    if case.known() {
        let foreign = conditions.iter().any(|&n| !case.is(n, "FNX") && !case.is(n, "FXX"));
        if !relative && !foreign {
            return None;
        }
        let mut line = vec![Word::Arg(0), Word::Arg(1)];
        line.extend(deadline.into_iter().flat_map(|d| [Word::Text("PXAT"), d]));
        line.extend(keep_ttl.then_some(Word::Text("KEEPTTL")));
        line.extend(case.args(word..case.argc()));
        return one(line);
    }
    let mut hset: Line = vec![Word::Text("HSET"), Word::Arg(1)];
    hset.extend(case.args(first..case.argc()));
    let expires = case.target.has_field_ttl();
    match deadline {
        Some(deadline) if expires => {
            let names = (first as u32..case.argc() as u32).step_by(2);
            let mut expire = vec![Word::Text("HPEXPIREAT"), Word::Arg(1), deadline, Word::Text("FIELDS")];
            expire.push(Word::number(names.len()));
            expire.extend(names.map(Word::Arg));
            Some(Rewrite::Commands(vec![hset, expire]))
        }
        Some(_) => Some(Rewrite::State),
        // There, HSET takes a field's expiry away; where no field has one, it does not matter.
        None if keep_ttl && expires => Some(Rewrite::State),
        None => one(hset),
    }
}

/// `HGETEX key [EX|PX|EXAT|PXAT t|PERSIST] FIELDS n field ...`: what it does beside reading.
pub(super) fn hgetex<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    let Fields { word, .. } = fields(case, 2, 1)?;
    if word == 2 {
        return Some(Rewrite::Drop);
    }
    let expires = case.target.has_field_ttl();
    let mut line = if case.is(2, "PERSIST") {
        if !expires {
            return Some(Rewrite::Drop);
        }
        vec![Word::Text("HPERSIST"), Word::Arg(1)]
    } else {
        if !expires {
            return Some(Rewrite::State);
        }
        let unit = TimeUnit::option(case.argv.arg(2))?;
        vec![Word::Text("HPEXPIREAT"), Word::Arg(1), case.deadline(unit, 3)?]
    };
    line.extend(case.args(word..case.argc()));
    one(line)
}

/// `HGETDEL key FIELDS n field ...`
pub(super) fn hgetdel<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    if case.known() {
        return None;
    }
    let Fields { first, .. } = fields(case, 2, 1)?;
    let mut line = vec![Word::Text("HDEL"), Word::Arg(1)];
    line.extend(case.args(first..case.argc()));
    one(line)
}
