//! Later times: a command that sets the expiry of whole keys, with another one instead.
//!
//! For whoever has to keep a target from expiring keys by itself for a while. The expiry of single hash fields stays.

use super::{Line, Rewrite, TimeUnit, Word};
use crate::wire::command::Argv;

/// The same, with each expiry of a whole key put where `later` says (milliseconds since 1970 in and out). `words` is
/// what [`super::rewrite`] made of `argv`: times are absolute. `None`: it sets none, or `later` leaves it as it is.
pub fn postpone(argv: &(impl Argv + ?Sized), words: &Rewrite, later: impl Fn(u64) -> u64) -> Option<Rewrite> {
    match words {
        Rewrite::AsIs => {
            // Few commands set an expiry: the others are not copied.
            if !["set", "pexpireat", "expireat", "restore", "msetex"].iter().any(|n| is(argv.arg(0), n)) {
                return None;
            }
            let mut line: Line = (0..argv.argc() as u32).map(Word::Arg).collect();
            put_off(&mut line, argv, &later).then(|| Rewrite::Commands(vec![line]))
        }
        Rewrite::Commands(lines) => {
            let mut lines = lines.clone();
            let mut any = false;
            for line in &mut lines {
                any |= put_off(line, argv, &later);
            }
            any.then_some(Rewrite::Commands(lines))
        }
        Rewrite::State | Rewrite::Drop => None,
    }
}

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

/// Changes the time of one command; false if it has none.
fn put_off(line: &mut Line, argv: &(impl Argv + ?Sized), later: &impl Fn(u64) -> u64) -> bool {
    let Some(name) = line.first().map(|w| w.bytes(argv).to_ascii_lowercase()) else { return false };
    // Where the time stands, and how it is said.
    let (at, seconds) = match &name[..] {
        b"pexpireat" => (2, false),
        b"expireat" => (2, true),
        b"restore" if (4..line.len()).any(|n| is(line[n].bytes(argv), "absttl")) => (2, false),
        b"set" | b"msetex" => {
            let first = if name == b"set"[..] { 3 } else { options_of_msetex(line, argv) };
            let option = (first..line.len()).find(|n| TimeUnit::option(line[*n].bytes(argv)).is_some());
            let Some(option) = option else { return false };
            match TimeUnit::option(line[option].bytes(argv)) {
                Some(TimeUnit { seconds, relative: false }) => (option + 1, seconds),
                _ => return false,
            }
        }
        _ => return false,
    };
    let Some(time) = line.get(at).and_then(|w| atoi::atoi::<u64>(w.bytes(argv))).filter(|t| *t > 0) else {
        return false;
    };
    let before = if seconds { time.saturating_mul(1000) } else { time };
    let after = later(before);
    if after == before {
        return false;
    }
    line[at] = Word::number(after);
    match &name[..] {
        b"expireat" | b"pexpireat" => {
            // It took effect at its source: a condition has been met.
            line[0] = Word::Text("PEXPIREAT");
            line.truncate(3);
        }
        b"set" | b"msetex" => line[at - 1] = Word::Text("PXAT"),
        _ => {}
    }
    true
}

fn options_of_msetex(line: &Line, argv: &(impl Argv + ?Sized)) -> usize {
    let pairs = line.get(1).and_then(|w| atoi::atoi::<usize>(w.bytes(argv))).unwrap_or(0);
    pairs.saturating_mul(2).saturating_add(2).min(line.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dialect::Dialect;
    use crate::wire::rewrite::{encode_line, rewrite};

    const FAR: u64 = 1 << 45;

    fn far(words: &[&str], target: Dialect) -> Option<String> {
        let rewritten = rewrite(words, 5_000, target);
        let Rewrite::Commands(lines) = postpone(words, &rewritten, |t| if t < 1_000_000 { t + FAR } else { t })? else {
            panic!("{words:?}");
        };
        let mut out = bytes::BytesMut::new();
        lines.iter().for_each(|l| encode_line(&mut out, l, words));
        let text = String::from_utf8(out.to_vec()).unwrap();
        Some(text.split("\r\n").filter(|l| !l.starts_with(['*', '$']) && !l.is_empty()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn each_way_to_say_an_expiry_is_put_off() {
        let new = Dialect::redis(8, 6);
        let old = Dialect::redis(5, 0);
        let at = |ms: u64| (FAR + ms).to_string();
        let says = |words: &[&str], target, expected: String| {
            assert_eq!(far(words, target).as_deref(), Some(&expected[..]), "{words:?}");
        };
        says(&["PEXPIREAT", "k", "700"], new, format!("PEXPIREAT k {}", at(700)));
        says(&["pexpireat", "k", "700", "GT"], new, format!("PEXPIREAT k {}", at(700)));
        says(&["EXPIREAT", "k", "7"], new, format!("PEXPIREAT k {}", at(7_000)));
        says(&["EXPIRE", "k", "7"], old, format!("PEXPIREAT k {}", at(12_000)));
        says(&["SET", "PXAT", "EXAT", "PXAT", "700"], new, format!("SET PXAT EXAT PXAT {}", at(700)));
        says(&["SET", "k", "v", "XX", "EXAT", "7"], new, format!("SET k v XX PXAT {}", at(7_000)));
        says(&["SETEX", "k", "7", "v"], old, format!("SET k v PEXPIREAT k {}", at(12_000)));
        says(&["PSETEX", "k", "7", "v"], new, format!("SET k v PXAT {}", at(5_007)));
        says(&["GETEX", "k", "PXAT", "700"], new, format!("PEXPIREAT k {}", at(700)));
        says(&["MSETEX", "1", "PXAT", "v", "PXAT", "700"], new, format!("MSETEX 1 PXAT v PXAT {}", at(700)));
    }

    #[test]
    fn what_sets_none_and_what_is_far_already_stays() {
        let new = Dialect::redis(8, 6);
        let far_already = (FAR + 700).to_string();
        for words in [
            &["SET", "k", "v"][..],
            &["SET", "k", "v", "KEEPTTL"],
            &["SET", "k", "PXAT"],
            &["PERSIST", "k"],
            &["INCR", "k"],
            &["DEL", "pexpireat"],
            &["RESTORE", "k", "0", "x", "ABSTTL"],
            &["PEXPIREAT", "k", &far_already],
            &["PEXPIREAT", "k", "2000000"],
        ] {
            assert_eq!(far(words, new), None, "{words:?}");
        }
    }
}
