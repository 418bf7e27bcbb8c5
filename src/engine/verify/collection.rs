//! Strings, lists, sets, hashes and sorted sets: whole where they are small, in parts where they are big.

use super::{
    NetError, Site,
    look::{Subject, refused},
};
use crate::engine::probe::server::{bytes, int, items, scan_page};
use futures::future::try_join;
use redis::{Cmd, Pipeline, Value};

/// About the bytes that one part of a big value takes.
const PART: i64 = 1 << 20;

/// The question for a whole small value; `None` for types that are compared another way.
pub(super) fn whole(kind: &str) -> Option<fn(&mut Pipeline, &[u8])> {
    Some(match kind {
        "string" => |p, k| {
            p.cmd("GET").arg(k);
        },
        "list" => |p, k| {
            p.cmd("LRANGE").arg(k).arg(0).arg(-1);
        },
        "set" => |p, k| {
            p.cmd("SMEMBERS").arg(k);
        },
        "hash" => |p, k| {
            p.cmd("HGETALL").arg(k);
        },
        "zset" => |p, k| {
            p.cmd("ZRANGE").arg(k).arg(0).arg(-1).arg("WITHSCORES");
        },
        _ => return None,
    })
}

/// Compares small values of the types that [`whole`] knows: `None` is equal.
pub(super) async fn compare_whole(a: &Site, b: &Site, list: &[(&str, &[u8])]) -> Result<Vec<Option<String>>, NetError> {
    let mut pipe = redis::pipe();
    for (kind, key) in list {
        if let Some(ask) = whole(kind) {
            ask(&mut pipe, key);
        }
    }
    let (of_a, of_b) = try_join(a.ask_all(&pipe), b.ask_all(&pipe)).await?;
    let mut differences = Vec::with_capacity(list.len());
    let mut hashes = Vec::new();
    for (((kind, key), x), y) in list.iter().zip(of_a).zip(of_b) {
        refused_read(a, &x)?;
        refused_read(b, &y)?;
        differences.push(match *kind {
            "string" => string_difference(bytes(x), bytes(y)),
            "list" => (items(x) != items(y)).then(|| "value: the elements differ".to_owned()),
            "set" => (sorted(items(x)) != sorted(items(y))).then(|| "value: the members differ".to_owned()),
            "zset" => (scored(items(x)) != scored(items(y))).then(|| "value: members or scores differ".to_owned()),
            _ => {
                let (x, y) = (pairs(items(x)), pairs(items(y)));
                let differ = x != y;
                if !differ {
                    hashes.push((differences.len(), *key, x.into_iter().map(|(f, _)| f).collect()));
                }
                differ.then(|| "value: the fields differ".to_owned())
            }
        });
    }
    for (place, difference) in field_expiries(a, b, &hashes).await? {
        differences[place] = difference;
    }
    Ok(differences)
}

/// A key that changed its type meanwhile differs, until the next look.
fn refused_read(site: &Site, reply: &Value) -> Result<(), NetError> {
    match reply {
        Value::ServerError(e) if e.code() == "WRONGTYPE" => Ok(()),
        reply => refused(site, "read a value", reply),
    }
}

fn string_difference(a: Option<Vec<u8>>, b: Option<Vec<u8>>) -> Option<String> {
    let (Some(a), Some(b)) = (&a, &b) else {
        return (a != b).then(|| "value: it changes while it is looked at".to_owned());
    };
    if a == b || same_hyperloglog(a, b) {
        return None;
    }
    Some(match a.len() == b.len() {
        true => format!("value: strings of {} bytes differ", a.len()),
        false => format!("value: strings of {} / {} bytes", a.len(), b.len()),
    })
}

/// A HyperLogLog keeps its last count in bytes 8 to 15 and may have it on one side only.
fn same_hyperloglog(a: &[u8], b: &[u8]) -> bool {
    const MAGIC: &[u8] = b"HYLL";
    const HEADER: usize = 16;
    a.len() == b.len() && a.len() >= HEADER && a.starts_with(MAGIC) && a[..8] == b[..8] && a[HEADER..] == b[HEADER..]
}

fn sorted(list: Vec<Value>) -> Vec<Vec<u8>> {
    let mut list: Vec<Vec<u8>> = list.into_iter().filter_map(bytes).collect();
    list.sort_unstable();
    list
}

fn pairs(list: Vec<Value>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = list.into_iter().filter_map(bytes);
    let mut pairs = Vec::new();
    while let (Some(k), Some(v)) = (list.next(), list.next()) {
        pairs.push((k, v));
    }
    pairs.sort_unstable();
    pairs
}

/// Members with their scores as numbers: versions write the same number in different digits.
fn scored(list: Vec<Value>) -> Vec<(Vec<u8>, Option<u64>)> {
    pairs(list).into_iter().map(|(member, score)| (member, number(&score))).collect()
}

/// A number by its value: -0 is 0.
fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse::<f64>().ok().map(|n| (n + 0.0).to_bits())
}

/// A place in a list, a hash and some of its fields.
type HashFields<'a> = (usize, &'a [u8], Vec<Vec<u8>>);

/// Compares the expiry of hashes' fields, where both servers know such: each place with its difference.
async fn field_expiries(
    a: &Site,
    b: &Site,
    hashes: &[HashFields<'_>],
) -> Result<Vec<(usize, Option<String>)>, NetError> {
    if !(a.field_expiry && b.field_expiry) {
        return Ok(Vec::new());
    }
    let asked: Vec<&HashFields> = hashes.iter().filter(|(_, _, fields)| !fields.is_empty()).collect();
    let mut pipe = redis::pipe();
    for (_, key, fields) in &asked {
        pipe.cmd("HPEXPIRETIME").arg(key).arg("FIELDS").arg(fields.len()).arg(fields);
    }
    let (of_a, of_b) = try_join(a.ask_all(&pipe), b.ask_all(&pipe)).await?;
    let mut found = Vec::with_capacity(asked.len());
    for (((place, _, _), x), y) in asked.into_iter().zip(of_a).zip(of_b) {
        refused_read(a, &x)?;
        refused_read(b, &y)?;
        found.push((*place, (x != y).then(|| "value: the expiry of fields differs".to_owned())));
    }
    Ok(found)
}

/// Compares a big value part by part: `None` is equal.
pub(super) async fn compare_in_parts(
    a: &Site,
    b: &Site,
    kind: &str,
    subject: &Subject,
) -> Result<Option<String>, NetError> {
    let key = subject.key.as_slice();
    let length = match kind {
        "string" => "STRLEN",
        "list" => "LLEN",
        "set" => "SCARD",
        "hash" => "HLEN",
        "zset" => "ZCARD",
        _ => return by_dump(a, b, kind, key).await,
    };
    let mut cmd = redis::cmd(length);
    cmd.arg(key);
    let (x, y) = match try_join(a.ask(&cmd), b.ask(&cmd)).await {
        Ok((x, y)) => (int(&x).unwrap_or(0), int(&y).unwrap_or(0)),
        Err(e) => return changed_type(e),
    };
    if x != y {
        let unit = if kind == "string" { "bytes" } else { "elements" };
        return Ok(Some(format!("value: {x} / {y} {unit}")));
    }
    let memory = subject.memory.iter().flatten().max().copied().unwrap_or(PART * 8);
    // Elements of one part, so that it takes about a megabyte.
    let step = if kind == "string" { PART } else { (PART / (memory / x.max(1)).max(1)).clamp(1, 1000) };
    let compared = match kind {
        "string" => ranges(a, b, "GETRANGE", key, x, step).await,
        "list" => ranges(a, b, "LRANGE", key, x, step).await,
        _ => members(a, b, kind, key, step).await,
    };
    compared.or_else(changed_type)
}

/// A key that changes its type while it is read differs until the next look.
fn changed_type(e: NetError) -> Result<Option<String>, NetError> {
    match e {
        NetError::Server { kind: crate::engine::net::ServerError::WrongType, .. } => {
            Ok(Some("value: it changes while it is looked at".into()))
        }
        e => Err(e),
    }
}

async fn ranges(
    a: &Site,
    b: &Site,
    command: &str,
    key: &[u8],
    length: i64,
    step: i64,
) -> Result<Option<String>, NetError> {
    let mut from = 0;
    while from < length {
        let mut cmd = redis::cmd(command);
        cmd.arg(key).arg(from).arg(from + step - 1);
        let (x, y) = try_join(a.ask(&cmd), b.ask(&cmd)).await?;
        if x != y {
            return Ok(Some(format!("value: a difference from {from} on")));
        }
        from += step;
    }
    Ok(None)
}

/// Goes through the source's elements and asks the target for each; the counts are equal already.
async fn members(a: &Site, b: &Site, kind: &str, key: &[u8], step: i64) -> Result<Option<String>, NetError> {
    let command = match kind {
        "set" => "SSCAN",
        "hash" => "HSCAN",
        _ => "ZSCAN",
    };
    let mut cursor = b"0".to_vec();
    loop {
        let mut cmd = redis::cmd(command);
        cmd.arg(key).arg(&cursor).arg("COUNT").arg(step);
        let Some((next, page)) = scan_page(a.ask(&cmd).await?) else { return Ok(None) };
        let difference = match kind {
            "set" => set_page(b, key, page).await?,
            "hash" => hash_page(a, b, key, page).await?,
            _ => zset_page(b, key, page).await?,
        };
        if difference.is_some() {
            return Ok(difference);
        }
        cursor = next;
        if cursor == b"0" {
            return Ok(None);
        }
    }
}

async fn set_page(b: &Site, key: &[u8], page: Vec<Value>) -> Result<Option<String>, NetError> {
    let mut pipe = redis::pipe();
    for member in page.into_iter().filter_map(bytes) {
        pipe.cmd("SISMEMBER").arg(key).arg(member);
    }
    let there = b.ask_all(&pipe).await?;
    there.iter().try_for_each(|reply| refused_read(b, reply))?;
    Ok(there.iter().any(|v| int(v) != Some(1)).then(|| "value: the members differ".into()))
}

async fn hash_page(a: &Site, b: &Site, key: &[u8], page: Vec<Value>) -> Result<Option<String>, NetError> {
    let pairs = pairs(page);
    if pairs.is_empty() {
        return Ok(None);
    }
    let mut cmd: Cmd = redis::cmd("HMGET");
    cmd.arg(key);
    for (field, _) in &pairs {
        cmd.arg(field);
    }
    let values = items(b.ask(&cmd).await?);
    if values.len() != pairs.len() || values.into_iter().zip(&pairs).any(|(v, (_, w))| bytes(v).as_ref() != Some(w)) {
        return Ok(Some("value: the fields differ".into()));
    }
    let fields: Vec<Vec<u8>> = pairs.into_iter().map(|(f, _)| f).collect();
    let found = field_expiries(a, b, &[(0, key, fields)]).await?;
    Ok(found.into_iter().find_map(|(_, difference)| difference))
}

async fn zset_page(b: &Site, key: &[u8], page: Vec<Value>) -> Result<Option<String>, NetError> {
    let pairs = pairs(page);
    let mut pipe = redis::pipe();
    for (member, _) in &pairs {
        pipe.cmd("ZSCORE").arg(key).arg(member);
    }
    let scores = b.ask_all(&pipe).await?;
    scores.iter().try_for_each(|reply| refused_read(b, reply))?;
    let differ =
        pairs.iter().zip(scores).any(|((_, score), other)| bytes(other).and_then(|o| number(&o)) != number(score));
    Ok(differ.then(|| "value: members or scores differ".into()))
}

/// Types that only their DUMP tells (modules, vector sets).
async fn by_dump(a: &Site, b: &Site, kind: &str, key: &[u8]) -> Result<Option<String>, NetError> {
    let mut cmd = redis::cmd("DUMP");
    cmd.arg(key);
    let (x, y) = try_join(a.ask(&cmd), b.ask(&cmd)).await?;
    let body = |v: Value| {
        bytes(v).map(|mut b| {
            b.truncate(b.len().saturating_sub(10));
            b
        })
    };
    Ok((body(x) != body(y)).then(|| format!("value: the dumps of type {kind} differ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_compared_as_numbers() {
        assert_eq!(number(b"0.10000000000000001"), number(b"0.1"));
        assert_eq!(number(b"-0"), number(b"0"));
        assert_eq!(number(b"inf"), Some(f64::INFINITY.to_bits()));
        assert_ne!(number(b"1"), number(b"2"));
    }

    #[test]
    fn the_cached_count_of_a_hyperloglog_is_no_difference() {
        let mut a = b"HYLL\x01\0\0\0aaaaaaaabody".to_vec();
        let b = b"HYLL\x01\0\0\0bbbbbbbbbody".to_vec();
        assert!(same_hyperloglog(&a, &b));
        a[20 - 1] = b'x';
        assert!(!same_hyperloglog(&a, &b));
    }
}
