//! Values that a site does not take: how often each was tried, and when it is given up.
//!
//! A state transfer that fails is asked for again, since the key may have changed its type meanwhile; one that fails
//! each time (a module's value at a server without the module, a value damaged at its source) is given up after
//! [`ROUNDS`], so that it neither loops nor hides. Sans-IO. Invariant: memory is bounded whatever fails.

use crate::engine::arbiter::Token;
use crate::model::Side;
use std::collections::HashMap;

/// Failed rounds after which a key is given up.
pub const ROUNDS: u32 = 8;
/// Failures further apart than this, in milliseconds, have nothing to do with each other.
const APART_MS: u64 = 60_000;
/// Keys that are remembered; beyond them only their number is.
const KEPT: usize = 4_096;

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Again,
    GivenUp {
        /// It was not given up before: to be told.
        news: bool,
    },
}

#[derive(Debug)]
struct Failure {
    rounds: u32,
    last_ms: u64,
    /// The transfer that failed last.
    token: Token,
    given_up: bool,
    why: String,
}

type Key = (Side, u32, Box<[u8]>);

/// A key that was given up: its database, its name, why.
pub type Example<'a> = (u32, &'a [u8], &'a str);

#[derive(Debug, Default)]
pub struct GivenUp {
    failures: HashMap<Key, Failure>,
    /// Given up, but not remembered.
    beyond: u64,
}

impl GivenUp {
    /// The transfer of a key to `site` failed there.
    pub fn failed(&mut self, site: Side, db: u32, key: &[u8], token: Token, why: &str, now_ms: u64) -> Verdict {
        self.count(site, db, key, token, why, now_ms, ROUNDS)
    }

    /// A key's value can't even be said in the site's words.
    pub fn impossible(&mut self, site: Side, db: u32, key: &[u8], why: &str, now_ms: u64) -> Verdict {
        self.count(site, db, key, Token(0), why, now_ms, 1)
    }

    #[allow(clippy::too_many_arguments, reason = "private; its two callers name them")]
    fn count(&mut self, site: Side, db: u32, key: &[u8], token: Token, why: &str, now_ms: u64, most: u32) -> Verdict {
        let name: Key = (site, db, key.into());
        if self.failures.len() >= KEPT && !self.failures.contains_key(&name) {
            self.failures.retain(|_, f| f.given_up);
            if self.failures.len() >= KEPT {
                self.beyond += 1;
                return Verdict::GivenUp { news: false };
            }
        }
        let f = self.failures.entry(name).or_insert_with(|| Failure {
            rounds: 0,
            last_ms: now_ms,
            token,
            given_up: false,
            why: String::new(),
        });
        if now_ms.saturating_sub(f.last_ms) > APART_MS {
            f.rounds = 0;
        }
        f.rounds = f.rounds.saturating_add(1);
        (f.last_ms, f.token) = (now_ms, token);
        f.why = why.chars().take(200).collect();
        if f.rounds < most {
            return Verdict::Again;
        }
        Verdict::GivenUp { news: !std::mem::replace(&mut f.given_up, true) }
    }

    /// A transfer was answered; unless it is the one that failed, the key is well again.
    pub fn answered(&mut self, site: Side, db: u32, key: &[u8], token: Token) {
        let name: Key = (site, db, key.into());
        if self.failures.get(&name).is_some_and(|f| f.token != token) {
            self.failures.remove(&name);
        }
    }

    /// Nothing has failed.
    pub fn is_empty(&self) -> bool {
        self.failures.is_empty()
    }

    /// How many keys of a site are given up, and one of them: its database, name and why.
    pub fn of(&self, site: Side) -> (u64, Option<Example<'_>>) {
        let mut all = self.failures.iter().filter(|((s, ..), f)| *s == site && f.given_up);
        let one = all.next().map(|((_, db, key), f)| (*db, &key[..], &f.why[..]));
        (u64::from(one.is_some()) + all.count() as u64 + self.beyond, one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: Side = Side::Target;

    #[test]
    fn it_is_given_up_after_so_many_rounds_and_told_once() {
        let mut g = GivenUp::default();
        for n in 1..ROUNDS {
            assert_eq!(g.failed(SITE, 0, b"k", Token(n.into()), "bad", u64::from(n)), Verdict::Again);
            assert_eq!(g.of(SITE).0, 0);
        }
        assert_eq!(g.failed(SITE, 0, b"k", Token(100), "bad", 100), Verdict::GivenUp { news: true });
        assert_eq!(g.failed(SITE, 0, b"k", Token(101), "worse", 101), Verdict::GivenUp { news: false });
        assert_eq!(g.of(SITE), (1, Some((0, &b"k"[..], "worse"))));
        assert_eq!(g.of(Side::Source).0, 0);
    }

    #[test]
    fn failures_far_apart_are_counted_anew() {
        let mut g = GivenUp::default();
        for n in 0..50 {
            assert_eq!(g.failed(SITE, 0, b"k", Token(n), "bad", n * (APART_MS + 1)), Verdict::Again);
        }
    }

    #[test]
    fn a_transfer_that_succeeds_takes_it_off_the_list() {
        let mut g = GivenUp::default();
        assert_eq!(g.impossible(SITE, 0, b"k", "no module", 1), Verdict::GivenUp { news: true });
        g.failed(SITE, 0, b"k", Token(5), "bad", 2);
        g.answered(SITE, 0, b"k", Token(5));
        assert_eq!(g.of(SITE).0, 1, "that was the one that failed");
        g.answered(SITE, 0, b"k", Token(6));
        assert_eq!(g.of(SITE).0, 0);
        assert!(g.is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let mut g = GivenUp::default();
        for n in 0..3 * KEPT as u64 {
            g.impossible(SITE, 0, &n.to_be_bytes(), "no", n);
        }
        assert!(g.failures.len() <= KEPT);
        assert_eq!(g.of(SITE).0, 3 * KEPT as u64);
    }
}
