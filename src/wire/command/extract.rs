//! Keys out of arguments.

use super::Argv;
use super::spec::{Access, Begin, Find, Finder, Kind, Spec};
use smallvec::SmallVec;

/// A key: which argument, and what is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRef {
    /// The argument's number; the name is 0.
    pub arg: u32,
    pub access: Access,
    /// The database it is in, when that is not the selected one: `MOVE`, `COPY ... DB`.
    pub db: Option<u32>,
}

/// The keys of one command. A key that is named twice is listed twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    refs: SmallVec<[KeyRef; 4]>,
    /// False when the command may read keys that it does not name: `SORT ... BY pattern`, a script.
    pub complete: bool,
}

impl std::ops::Deref for Keys {
    type Target = [KeyRef];

    fn deref(&self) -> &[KeyRef] {
        &self.refs
    }
}

impl IntoIterator for Keys {
    type Item = KeyRef;
    type IntoIter = smallvec::IntoIter<[KeyRef; 4]>;

    fn into_iter(self) -> Self::IntoIter {
        self.refs.into_iter()
    }
}

impl Keys {
    fn new() -> Self {
        Keys { refs: SmallVec::new(), complete: true }
    }

    fn push(&mut self, arg: usize, access: Access) {
        self.refs.push(KeyRef { arg: arg as u32, access, db: None });
    }
}

pub(super) fn keys(spec: &Spec, argv: &(impl Argv + ?Sized)) -> Option<Keys> {
    if !spec.takes(argv.argc()) || (spec.container && spec.kind == Kind::Keyed) {
        return None;
    }
    let mut keys = Keys::new();
    match spec.finder {
        Finder::Sort => sort(argv, &mut keys)?,
        Finder::Migrate => migrate(argv, &mut keys)?,
        Finder::Move => other_database(argv, 1, 1, 2, &mut keys)?,
        Finder::Copy => copy(argv, &mut keys)?,
        Finder::GeoRadius => georadius(argv, spec, &mut keys)?,
        Finder::Specs | Finder::Script => {
            keys.complete = spec.finder == Finder::Specs;
            for part in spec.keys {
                match (part.begin, part.find) {
                    // One key at its place: most commands.
                    (Begin::Index(i), Find::Range { last: 0, .. }) if (i as usize) < argv.argc() => {
                        keys.push(i as usize, part.access);
                    }
                    (Begin::Index(i), how) => find(argv, i as usize, how, part.access, &mut keys)?,
                    // A keyword that is not there is an option that was not given.
                    (Begin::Keyword(word, from), how) => {
                        if let Some(begin) = keyword(argv, word.as_bytes(), from) {
                            find(argv, begin, how, part.access, &mut keys)?;
                        }
                    }
                }
            }
        }
    }
    Some(keys)
}

fn keyword(argv: &(impl Argv + ?Sized), word: &[u8], from: i16) -> Option<usize> {
    let argc = argv.argc();
    let found = |i: &usize| argv.arg(*i).eq_ignore_ascii_case(word);
    if from >= 0 {
        (from as usize..argc).find(found).map(|i| i + 1)
    } else {
        (1..=argc.checked_sub(from.unsigned_abs() as usize)?).rev().find(found).map(|i| i + 1)
    }
}

fn find(argv: &(impl Argv + ?Sized), begin: usize, find: Find, access: Access, keys: &mut Keys) -> Option<()> {
    let argc = argv.argc();
    let (first, step, count) = match find {
        Find::Range { last, step, limit } => {
            let last = if last >= 0 {
                begin + last as usize
            } else if limit > 1 {
                // STREAMS key key id id: the keys are the first half
                begin + argc.checked_sub(begin)? / limit as usize - 1
            } else {
                argc.checked_sub(last.unsigned_abs() as usize)?
            };
            if begin >= argc || last >= argc {
                // `PFMERGE dest`: no source at all is fine
                return if last < argc { Some(()) } else { None };
            }
            let step = step.max(1) as usize;
            (begin, step, (last + 1).saturating_sub(begin).div_ceil(step))
        }
        Find::Counted { count, first, step } => {
            let n: usize = number(argv.arg(begin + count as usize))?;
            (begin + first as usize, step.max(1) as usize, n)
        }
    };
    let last = first.checked_add(count.checked_sub(1).map_or(Some(0), |n| n.checked_mul(step))?)?;
    if count > 0 && last >= argc {
        return None;
    }
    for i in 0..count {
        keys.push(first + i * step, access);
    }
    Some(())
}

/// A number as Redis reads one: decimal digits and nothing else.
fn number(text: &[u8]) -> Option<usize> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    atoi::atoi(text)
}

/// `SORT key [BY p] [LIMIT a b] [GET p ...] [STORE dest]`: as `sortGetKeys` of Redis reads it, the last STORE counts.
fn sort(argv: &(impl Argv + ?Sized), keys: &mut Keys) -> Option<()> {
    keys.push(1, Access::RO.with(Access::ACCESS));
    let mut store = None;
    let mut i = 2;
    while i < argv.argc() {
        let word = argv.arg(i);
        i += if word.eq_ignore_ascii_case(b"LIMIT") {
            3
        } else if word.eq_ignore_ascii_case(b"BY") || word.eq_ignore_ascii_case(b"GET") {
            if memchr::memchr(b'*', argv.arg(i + 1)).is_some() {
                keys.complete = false;
            }
            2
        } else if word.eq_ignore_ascii_case(b"STORE") {
            store = Some(i + 1);
            2
        } else {
            1
        };
    }
    if let Some(dest) = store {
        if dest >= argv.argc() {
            return None;
        }
        keys.push(dest, Access::OW.with(Access::UPDATE));
    }
    Some(())
}

/// `MIGRATE host port key|"" db timeout [COPY] [REPLACE] [AUTH p | AUTH2 u p] [KEYS key ...]`
fn migrate(argv: &(impl Argv + ?Sized), keys: &mut Keys) -> Option<()> {
    let access = Access::RW.with(Access::ACCESS).with(Access::DELETE);
    if !argv.arg(3).is_empty() {
        keys.push(3, access);
        return Some(());
    }
    let mut i = 6;
    while i < argv.argc() {
        let word = argv.arg(i);
        if word.eq_ignore_ascii_case(b"KEYS") {
            (i + 1..argv.argc()).for_each(|k| keys.push(k, access));
            return Some(());
        }
        i += if word.eq_ignore_ascii_case(b"AUTH") {
            2
        } else if word.eq_ignore_ascii_case(b"AUTH2") {
            3
        } else {
            1
        };
    }
    None
}

/// `COPY source destination [DB n] [REPLACE]`
fn copy(argv: &(impl Argv + ?Sized), keys: &mut Keys) -> Option<()> {
    let read = Access::RO.with(Access::ACCESS);
    // REPLACE takes no value, and neither word can be the other's.
    if let Some(word) = (3..argv.argc()).find(|&i| argv.arg(i).eq_ignore_ascii_case(b"DB")) {
        other_database(argv, 1, 2, word + 1, keys)?;
        keys.refs[0].access = read;
        keys.refs[1].access = Access::OW.with(Access::UPDATE);
    } else {
        keys.push(1, read);
        keys.push(2, Access::OW.with(Access::UPDATE));
    }
    Some(())
}

/// A key that goes to a database whose number stands at `db`.
fn other_database(argv: &(impl Argv + ?Sized), from: usize, to: usize, db: usize, keys: &mut Keys) -> Option<()> {
    keys.push(from, Access::RW.with(Access::ACCESS).with(Access::DELETE));
    keys.push(to, Access::RW.with(Access::INSERT));
    keys.refs[1].db = Some(u32::try_from(number(argv.arg(db))?).ok()?);
    Some(())
}

/// `GEORADIUS[BYMEMBER] key ... [COUNT n] [STORE key] [STOREDIST key]`
fn georadius(argv: &(impl Argv + ?Sized), spec: &Spec, keys: &mut Keys) -> Option<()> {
    keys.push(1, Access::RO.with(Access::ACCESS));
    let mut store = None;
    let mut i = if spec.name == "georadius" { 6 } else { 5 };
    while i < argv.argc() {
        let word = argv.arg(i);
        i += if word.eq_ignore_ascii_case(b"STORE") || word.eq_ignore_ascii_case(b"STOREDIST") {
            store = Some(i + 1); // the last one counts
            2
        } else if word.eq_ignore_ascii_case(b"COUNT") {
            2
        } else {
            1
        };
    }
    if let Some(dest) = store {
        if dest >= argv.argc() {
            return None;
        }
        keys.push(dest, Access::OW.with(Access::UPDATE));
    }
    Some(())
}
