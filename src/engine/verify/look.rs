//! One look at a page of keys: both sides asked at once, the cheap way first.

use super::{NetError, Site, VerifyOptions, collection, streams};
use crate::engine::core::unix_ms;
use crate::engine::probe::server::{bytes, error_line, int, items, text};
use redis::Value;
use std::fmt;

/// Values that take no more than this at both sides are compared whole, in bytes.
pub(super) const SMALL: i64 = 32 << 10;

/// What follows the value in a DUMP: 2 bytes RDB version, 8 bytes CRC-64.
const FOOTER: usize = 10;

/// How a key differs.
#[derive(Debug, Clone, PartialEq)]
pub enum Difference {
    MissingAtSource,
    MissingAtTarget,
    /// Types by the word of `TYPE`.
    Type(String, String),
    /// Unequal values; what of them, in words.
    Value(String),
    /// Expiry times in milliseconds since the Unix epoch, of source and target; `None` is no expiry.
    Expiry(Option<i64>, Option<i64>),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |t: &Option<i64>| t.map_or_else(|| "none".to_owned(), |ms| ms.to_string());
        match self {
            Difference::MissingAtSource => f.write_str("missing at source"),
            Difference::MissingAtTarget => f.write_str("missing at target"),
            Difference::Type(a, b) => write!(f, "type {a} / {b}"),
            Difference::Value(what) => f.write_str(what),
            Difference::Expiry(a, b) => write!(f, "expiry {} / {}", time(a), time(b)),
        }
    }
}

/// A key of a page while it is looked at.
pub(super) struct Subject {
    pub key: Vec<u8>,
    /// Bytes that the value takes at the two sides, where `MEMORY USAGE` tells.
    pub memory: [Option<i64>; 2],
    expiry: [Expiry; 2],
}

impl Subject {
    pub fn is_small(&self) -> bool {
        self.memory.iter().all(|m| m.is_some_and(|n| n <= SMALL))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    Gone,
    Never,
    At(i64),
}

/// Those keys that differ now, with how. Keys that neither side has are equal.
pub(super) async fn at(
    a: &Site,
    b: &Site,
    keys: Vec<Vec<u8>>,
    options: &VerifyOptions,
) -> Result<Vec<(Vec<u8>, Difference)>, NetError> {
    let (of_a, of_b) = futures::future::try_join(outline(a, &keys), outline(b, &keys)).await?;
    let mut found = Vec::new();
    let mut both = Vec::new();
    for ((key, a), b) in keys.into_iter().zip(of_a).zip(of_b) {
        match (a.0, b.0) {
            (Expiry::Gone, Expiry::Gone) => {}
            (Expiry::Gone, _) => found.push((key, Difference::MissingAtSource)),
            (_, Expiry::Gone) => found.push((key, Difference::MissingAtTarget)),
            expiry => both.push(Subject { key, memory: [a.1, b.1], expiry: [expiry.0, expiry.1] }),
        }
    }
    let mut open = Vec::new();
    let (small, big): (Vec<Subject>, Vec<Subject>) = both.into_iter().partition(Subject::is_small);
    let (dumps_a, dumps_b) = futures::future::try_join(dumps(a, &small), dumps(b, &small)).await?;
    for ((subject, x), y) in small.into_iter().zip(dumps_a).zip(dumps_b) {
        if same_dump(&x, &y) {
            found.extend(expiry_difference(subject, options));
        } else {
            open.push(subject);
        }
    }
    open.extend(big);
    let values = by_type(a, b, &open).await?;
    for (subject, difference) in open.into_iter().zip(values) {
        match difference {
            Some(difference) => found.push((subject.key, difference)),
            None => found.extend(expiry_difference(subject, options)),
        }
    }
    Ok(found)
}

/// Expiry and size of each key.
async fn outline(site: &Site, keys: &[Vec<u8>]) -> Result<Vec<(Expiry, Option<i64>)>, NetError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipe = redis::pipe();
    // Before 7.0 only the time that is left is told: the server's own clock makes it absolute.
    pipe.cmd("TIME");
    for key in keys {
        pipe.cmd(if site.absolute { "PEXPIRETIME" } else { "PTTL" }).arg(key);
        pipe.cmd("MEMORY").arg("USAGE").arg(key);
    }
    let mut replies = site.ask_all(&pipe).await?.into_iter();
    let time: Vec<i64> = items(replies.next().unwrap_or_default()).iter().filter_map(int).collect();
    let now = match time.as_slice() {
        [s, us] => s * 1000 + us / 1000,
        // A proxy has no clock to ask.
        _ => i64::try_from(unix_ms()).unwrap_or(0),
    };
    let mut outlines = Vec::with_capacity(keys.len());
    while let (Some(expiry), Some(memory)) = (replies.next(), replies.next()) {
        refused(site, if site.absolute { "PEXPIRETIME" } else { "PTTL" }, &expiry)?;
        let expiry = match int(&expiry) {
            Some(-1) => Expiry::Never,
            Some(ms) if ms >= 0 && site.absolute => Expiry::At(ms),
            Some(ms) if ms >= 0 => Expiry::At(now + ms),
            _ => Expiry::Gone,
        };
        outlines.push((expiry, int(&memory)));
    }
    Ok(outlines)
}

/// A right that is missing is an error, not a difference.
pub(super) fn refused(site: &Site, doing: &str, reply: &Value) -> Result<(), NetError> {
    match reply {
        Value::ServerError(e) => Err(NetError::from_reply(&site.server.address, doing, &error_line(e))),
        _ => Ok(()),
    }
}

fn expiry_difference(subject: Subject, options: &VerifyOptions) -> Option<(Vec<u8>, Difference)> {
    let time = |e: Expiry| match e {
        Expiry::At(ms) => Some(ms),
        _ => None,
    };
    let (a, b) = (time(subject.expiry[0]), time(subject.expiry[1]));
    let equal = match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.abs_diff(b) <= options.expiry_tolerance_ms,
        _ => false,
    };
    (!equal).then_some((subject.key, Difference::Expiry(a, b)))
}

/// The DUMP of each key; `None` where there is none.
async fn dumps(site: &Site, subjects: &[Subject]) -> Result<Vec<Option<Vec<u8>>>, NetError> {
    let mut pipe = redis::pipe();
    for subject in subjects {
        pipe.cmd("DUMP").arg(&subject.key);
    }
    Ok(site.ask_all(&pipe).await?.into_iter().map(bytes).collect())
}

/// Equal but for the footer: the same type byte and the same bytes are the same value in every version.
fn same_dump(a: &Option<Vec<u8>>, b: &Option<Vec<u8>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) if a.len() > FOOTER && a.len() == b.len() => a[..a.len() - FOOTER] == b[..b.len() - FOOTER],
        _ => false,
    }
}

/// Compares values in the words of their types: `None` is equal.
async fn by_type(a: &Site, b: &Site, subjects: &[Subject]) -> Result<Vec<Option<Difference>>, NetError> {
    if subjects.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipe = redis::pipe();
    for subject in subjects {
        pipe.cmd("TYPE").arg(&subject.key);
    }
    let (types_a, types_b) = futures::future::try_join(a.ask_all(&pipe), b.ask_all(&pipe)).await?;
    for (site, replies) in [(a, &types_a), (b, &types_b)] {
        replies.iter().try_for_each(|reply| refused(site, "TYPE", reply))?;
    }
    let word = |v: &Value| text(v).unwrap_or_default();
    let types: Vec<(String, String)> = types_a.iter().map(word).zip(types_b.iter().map(word)).collect();

    let small: Vec<usize> = (0..subjects.len())
        .filter(|i| types[*i].0 == types[*i].1 && subjects[*i].is_small() && collection::whole(&types[*i].0).is_some())
        .collect();
    let mut differences: Vec<Option<Difference>> = vec![None; subjects.len()];
    let list: Vec<(&str, &[u8])> = small.iter().map(|i| (types[*i].0.as_str(), subjects[*i].key.as_slice())).collect();
    for (i, difference) in small.iter().zip(collection::compare_whole(a, b, &list).await?) {
        differences[*i] = difference.map(Difference::Value);
    }
    for (i, subject) in subjects.iter().enumerate() {
        if small.contains(&i) {
            continue;
        }
        let (x, y) = &types[i];
        differences[i] = match (x.as_str(), y.as_str()) {
            // It went while we looked: the next look tells.
            ("none", "none") => None,
            ("none", _) => Some(Difference::MissingAtSource),
            (_, "none") => Some(Difference::MissingAtTarget),
            (x, y) if x != y => Some(Difference::Type(x.to_owned(), y.to_owned())),
            ("stream", _) => streams::compare(a, b, &subject.key).await?.map(Difference::Value),
            (kind, _) => collection::compare_in_parts(a, b, kind, subject).await?.map(Difference::Value),
        };
    }
    Ok(differences)
}
