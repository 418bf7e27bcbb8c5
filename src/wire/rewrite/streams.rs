//! Streams and their groups.

use super::{Case, Rewrite, Word, one};
use crate::wire::command::Argv;

/// What is to happen to the options of XADD and XTRIM.
#[derive(Default)]
struct Options {
    /// These arguments have to go.
    omit: Vec<usize>,
    /// Some of it can't be said at all.
    state: bool,
    /// The producer of `IDMP producer id`.
    producer: Option<usize>,
    /// Behind the options: the id of XADD.
    end: usize,
}

fn options<A: Argv + ?Sized>(case: &Case<'_, A>) -> Options {
    let references = case.target.has_stream_references();
    let mut found = Options::default();
    let mut approximate = false;
    let mut limits = Vec::new();
    let mut n = 2;
    while n < case.argc() {
        if case.is(n, "NOMKSTREAM") {
            if !case.target.speaks_redis(6, 2) {
                found.omit.push(n); // it was there
            }
        } else if case.is(n, "MAXLEN") || case.is(n, "MINID") {
            found.state |= case.is(n, "MINID") && !case.target.speaks_redis(6, 2);
            n += 1;
            if case.is(n, "~") || case.is(n, "=") {
                approximate = case.is(n, "~");
                n += 1;
            }
        } else if case.is(n, "LIMIT") {
            limits.extend([n, n + 1]);
            n += 1;
        } else if case.is(n, "KEEPREF") {
            if !references {
                found.omit.push(n);
            }
        } else if case.is(n, "DELREF") || case.is(n, "ACKED") {
            found.state |= !references;
        } else if case.is(n, "IDMP") {
            found.omit.extend(n..n + 3);
            found.producer = Some(n + 1);
            n += 2;
        } else if case.is(n, "IDMPAUTO") {
            found.omit.extend(n..n + 2);
            n += 1;
        } else {
            break;
        }
        n += 1;
    }
    // A server tells its replicas what it did (`= 1-1 LIMIT 10`) in words that it does not take from a client.
    if !approximate {
        found.omit.append(&mut limits);
    }
    found.end = n;
    found
}

/// `XADD key [NOMKSTREAM] [KEEPREF|DELREF|ACKED] [IDMP p i|IDMPAUTO p] [MAXLEN|MINID [=|~] n [LIMIT n]] id field value ...`
///
/// A client may say IDMP only with an id of `*`; so the entry is added without, and what it stands for is recorded
/// beside it. What IDMPAUTO stands for only the source could say: there, an entry is not known again at the target.
pub(super) fn xadd<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    // An id begins with a digit: no options, the common case.
    if case.argv.arg(2).first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let options = options(case);
    if options.state {
        return Some(Rewrite::State);
    }
    let id = u32::try_from(options.end).ok().filter(|_| options.end < case.argc())?;
    match (options.omit.is_empty(), options.producer) {
        (true, _) => None,
        (false, Some(producer)) if case.target.has_idempotent_xadd() => {
            let mut record = vec![Word::Text("XIDMPRECORD"), Word::Arg(1)];
            record.extend(case.args(producer..producer + 2));
            record.push(Word::Arg(id));
            let Rewrite::Commands(mut lines) = case.without(&options.omit) else { return None };
            lines.push(record);
            Some(Rewrite::Commands(lines))
        }
        _ => Some(case.without(&options.omit)),
    }
}

/// `XTRIM key MAXLEN|MINID [=|~] n [LIMIT n] [KEEPREF|DELREF|ACKED]`
pub(super) fn xtrim<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    let options = options(case);
    if options.state {
        return Some(Rewrite::State);
    }
    (!options.omit.is_empty()).then(|| case.without(&options.omit))
}

/// `[KEEPREF|DELREF|ACKED] IDS n id ...`: where the ids begin, if references are kept, as the older words do.
fn plain_ids<A: Argv + ?Sized>(case: &Case<'_, A>, from: usize) -> Option<usize> {
    let ids = (from..case.argc()).find(|&n| case.is(n, "IDS"))? + 2;
    (from..ids).all(|n| !case.is(n, "DELREF") && !case.is(n, "ACKED")).then_some(ids)
}

/// `XDELEX key [KEEPREF|DELREF|ACKED] IDS n id ...`
pub(super) fn xdelex<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    if case.known() {
        return None;
    }
    let Some(ids) = plain_ids(case, 2) else { return Some(Rewrite::State) };
    let mut line = vec![Word::Text("XDEL"), Word::Arg(1)];
    line.extend(case.args(ids..case.argc()));
    one(line)
}

/// `XACKDEL key group [KEEPREF|DELREF|ACKED] IDS n id ...`: of several ids, only those that were pending are deleted.
pub(super) fn xackdel<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    if case.known() {
        return None;
    }
    match plain_ids(case, 3) {
        Some(id) if id + 1 == case.argc() => Some(Rewrite::Commands(vec![
            vec![Word::Text("XACK"), Word::Arg(1), Word::Arg(2), Word::Arg(id as u32)],
            vec![Word::Text("XDEL"), Word::Arg(1), Word::Arg(id as u32)],
        ])),
        _ => Some(Rewrite::State),
    }
}

/// `XSETID key id [ENTRIESADDED n MAXDELETEDID id]`
pub(super) fn xsetid<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    if case.argc() == 3 || case.target.speaks_redis(7, 0) {
        return None;
    }
    one(case.args(0..3).collect())
}

/// `XGROUP CREATE|SETID key group id [MKSTREAM] [ENTRIESREAD n]`, `XGROUP CREATECONSUMER key group consumer`
pub(super) fn xgroup<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    if case.spec.name == "xgroup|createconsumer" {
        // Before 6.2 a consumer comes into being when it claims its first entry.
        return (!case.target.speaks_redis(6, 2)).then_some(Rewrite::Drop);
    }
    if case.target.speaks_redis(7, 0) {
        return None;
    }
    let read = (5..case.argc()).find(|&n| case.is(n, "ENTRIESREAD"))?;
    Some(case.without(&[read, read + 1]))
}
