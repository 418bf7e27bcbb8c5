//! Commands in other words: absolute times, and what the target knows.
//!
//! Owns what has to change in a command of one server's stream before a client sends it to another server. A command in
//! a stream is one that took effect, so a condition (`NX`, `GT`, `IFEQ`) may be left out where the target has no word
//! for it, if the command is about one thing only. What the target can't be told in words is [`Rewrite::State`]: the
//! caller carries the value of the keys it writes instead.
//!
//! Invariants: the common case is settled by one comparison; large values are never copied ([`Word::Arg`]); whatever
//! was relative to a clock is absolute afterwards, counted from when the command was read.
//!
//! Which server puts what into its stream was looked at, not read about: `tests/wire/rewrite_matrix.rs` runs every
//! command below on every server, and what comes out of its stream on every other.

mod fields;
mod keyspace;
mod postpone;
mod streams;
#[cfg(test)]
mod tests;

pub use postpone::postpone;

use super::command::{Argv, Kind, Rule, Spec, lookup};
use super::dialect::Dialect;
use super::resp::{encode_header, encode_part};
use bytes::BytesMut;
use smallvec::SmallVec;

/// What is to be sent instead of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// The command itself.
    AsIs,
    /// These, in this order, as one transaction.
    Commands(Vec<Line>),
    /// The target has no words for it: carry the state of the keys that it writes.
    State,
    /// Nothing: it would not change anything that the target keeps.
    Drop,
}

/// The words of one command.
pub type Line = Vec<Word>;

/// One word of a rewritten command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// An argument of the original, by its number.
    Arg(u32),
    Text(&'static str),
    Own(SmallVec<[u8; 24]>),
}

impl Word {
    fn number(n: impl itoa::Integer) -> Word {
        Word::Own(SmallVec::from_slice(itoa::Buffer::new().format(n).as_bytes()))
    }

    /// Its bytes, given the original.
    pub fn bytes<'a>(&'a self, original: &'a (impl Argv + ?Sized)) -> &'a [u8] {
        match self {
            Word::Arg(n) => original.arg(*n as usize),
            Word::Text(text) => text.as_bytes(),
            Word::Own(own) => own,
        }
    }
}

/// Appends a rewritten command in RESP.
pub fn encode_line(out: &mut BytesMut, line: &[Word], original: &(impl Argv + ?Sized)) {
    encode_header(out, line.len());
    for word in line {
        encode_part(out, word.bytes(original));
    }
}

/// Puts a command into the target's words. `read_at_ms` is when the command was read from the source's stream, in
/// milliseconds since 1970 by the clock that the target's keys expire by.
pub fn rewrite(argv: &(impl Argv + ?Sized), read_at_ms: u64, target: Dialect) -> Rewrite {
    match lookup(argv) {
        Some(spec) => rewrite_as(spec, argv, read_at_ms, target),
        // What we do not know we do not touch: a module of the user's.
        None => Rewrite::AsIs,
    }
}

/// The same, for a caller that has looked the command up already.
#[inline]
pub fn rewrite_as(spec: &Spec, argv: &(impl Argv + ?Sized), read_at_ms: u64, target: Dialect) -> Rewrite {
    if spec.rule == Rule::None {
        return if spec.known_to(&target) || spec.module { Rewrite::AsIs } else { unknown(spec) };
    }
    if !spec.takes(argv.argc()) {
        return Rewrite::AsIs; // no server says this
    }
    let case = Case { spec, argv, read_at_ms, target };
    by_rule(&case).unwrap_or(Rewrite::AsIs)
}

/// A command that the target does not have and that there is no rule for.
#[cold]
fn unknown(spec: &Spec) -> Rewrite {
    match spec.kind {
        Kind::Keyed if spec.write => Rewrite::State,
        _ => Rewrite::Drop,
    }
}

/// What a rule has to go by.
struct Case<'a, A: Argv + ?Sized> {
    spec: &'a Spec,
    argv: &'a A,
    read_at_ms: u64,
    target: Dialect,
}

impl<A: Argv + ?Sized> Case<'_, A> {
    fn argc(&self) -> usize {
        self.argv.argc()
    }

    /// The `n`-th argument is this word, in any case.
    fn is(&self, n: usize, word: &str) -> bool {
        self.argv.arg(n).eq_ignore_ascii_case(word.as_bytes())
    }

    fn int(&self, n: usize) -> Option<i64> {
        let text = self.argv.arg(n);
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        atoi::atoi(text)
    }

    fn known(&self) -> bool {
        self.spec.known_to(&self.target)
    }

    /// A time in the words of [`TimeUnit`], as milliseconds since 1970.
    fn deadline(&self, unit: TimeUnit, n: usize) -> Option<Word> {
        let value = self.int(n)?;
        let ms = if unit.seconds { value.saturating_mul(1000) } else { value };
        let now = i64::try_from(self.read_at_ms).unwrap_or(i64::MAX);
        Some(Word::number(if unit.relative { now.saturating_add(ms) } else { ms }))
    }

    /// Arguments of the original, from one number up to before another.
    fn args(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = Word> + use<A> {
        (range.start as u32..range.end as u32).map(Word::Arg)
    }

    /// The whole original but for some of its arguments.
    fn without(&self, omit: &[usize]) -> Rewrite {
        let line = (0..self.argc()).filter(|n| !omit.contains(n)).map(|n| Word::Arg(n as u32)).collect();
        Rewrite::Commands(vec![line])
    }
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TimeUnit {
    seconds: bool,
    relative: bool,
}

impl TimeUnit {
    const EX: TimeUnit = TimeUnit { seconds: true, relative: true };
    const PX: TimeUnit = TimeUnit { seconds: false, relative: true };
    const EXAT: TimeUnit = TimeUnit { seconds: true, relative: false };
    const PXAT: TimeUnit = TimeUnit { seconds: false, relative: false };

    /// The options `EX`, `PX`, `EXAT`, `PXAT`.
    fn option(word: &[u8]) -> Option<TimeUnit> {
        let known = [(&b"EX"[..], Self::EX), (b"PX", Self::PX), (b"EXAT", Self::EXAT), (b"PXAT", Self::PXAT)];
        known.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, unit)| unit)
    }

    /// The commands `EXPIRE`, `PEXPIRE`, `EXPIREAT`, `PEXPIREAT`, also with an `H` before them.
    fn command(name: &str) -> TimeUnit {
        let name = name.strip_prefix('h').unwrap_or(name);
        TimeUnit { seconds: !name.starts_with('p'), relative: !name.ends_with("at") }
    }
}

fn one(line: Line) -> Option<Rewrite> {
    Some(Rewrite::Commands(vec![line]))
}

/// `None`: nothing to change, or arguments that no server would have accepted.
fn by_rule<A: Argv + ?Sized>(case: &Case<'_, A>) -> Option<Rewrite> {
    match case.spec.rule {
        Rule::None => None,
        Rule::Set => keyspace::set(case),
        Rule::SetEx => keyspace::setex(case),
        Rule::MSetEx => keyspace::msetex(case),
        Rule::GetDel | Rule::DelIf => keyspace::delete(case),
        Rule::GetEx => keyspace::getex(case),
        Rule::Expire => keyspace::expire(case),
        Rule::Restore => keyspace::restore(case),
        Rule::Pop => keyspace::pop(case),
        Rule::LMove => keyspace::lmove(case),
        Rule::ZAdd => keyspace::zadd(case),
        Rule::BitOp => keyspace::bitop(case),
        Rule::Flush => keyspace::flush(case),
        Rule::HExpire => fields::hexpire(case),
        Rule::HPersist => fields::hpersist(case),
        Rule::HSetEx => fields::hsetex(case),
        Rule::HGetEx => fields::hgetex(case),
        Rule::HGetDel => fields::hgetdel(case),
        Rule::XAdd => streams::xadd(case),
        Rule::XTrim => streams::xtrim(case),
        Rule::XDelEx => streams::xdelex(case),
        Rule::XAckDel => streams::xackdel(case),
        Rule::XSetId => streams::xsetid(case),
        Rule::XGroup => streams::xgroup(case),
        Rule::Omit => (!case.known()).then_some(Rewrite::Drop),
    }
}
