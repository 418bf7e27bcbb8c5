//! Streams: entries, the last id, groups with their position and what is pending in them.

use super::{NetError, Site};
use crate::engine::probe::server::{bytes, int, items};
use futures::future::try_join;
use redis::{Cmd, Value};

/// Entries of one part.
const STEP: i64 = 500;

/// Compares two streams: `None` is equal.
pub(super) async fn compare(a: &Site, b: &Site, key: &[u8]) -> Result<Option<String>, NetError> {
    if let Some(difference) = outlines(a, b, key).await? {
        return Ok(Some(difference));
    }
    if let Some(difference) = entries(a, b, key).await? {
        return Ok(Some(difference));
    }
    let (groups_a, groups_b) = try_join(groups(a, key), groups(b, key)).await?;
    if groups_a != groups_b {
        return Ok(Some("value: the groups differ".into()));
    }
    for group in groups_a {
        if let Some(difference) = pending(a, b, key, &group.name).await? {
            return Ok(Some(difference));
        }
    }
    Ok(None)
}

/// Length and last id.
async fn outlines(a: &Site, b: &Site, key: &[u8]) -> Result<Option<String>, NetError> {
    let mut cmd = redis::cmd("XINFO");
    cmd.arg("STREAM").arg(key);
    let (x, y) = match try_join(a.ask(&cmd), b.ask(&cmd)).await {
        Ok((x, y)) => (fields(x), fields(y)),
        // It went while we looked.
        Err(NetError::Server { seen, .. }) if seen.contains("no such key") => {
            return Ok(Some("value: it changes while it is looked at".into()));
        }
        Err(e) => return Err(e),
    };
    for (name, word) in [("length", "entries"), ("last-generated-id", "last ids")] {
        let (x, y) = (field(&x, name), field(&y, name));
        if x != y {
            let show = |v: Option<Vec<u8>>| v.map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
            return Ok(Some(format!("value: {word} {} / {}", show(x), show(y))));
        }
    }
    Ok(None)
}

async fn entries(a: &Site, b: &Site, key: &[u8]) -> Result<Option<String>, NetError> {
    let mut from = b"-".to_vec();
    loop {
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(key).arg(&from).arg("+").arg("COUNT").arg(STEP);
        let (x, y) = try_join(a.ask(&cmd), b.ask(&cmd)).await?;
        if x != y {
            return Ok(Some("value: the entries differ".into()));
        }
        match next_id(x) {
            Some(next) => from = next,
            None => return Ok(None),
        }
    }
}

/// The id that follows the last of a full page; `None` after the last page. `(id` is known from 6.2 on only.
fn next_id(page: Value) -> Option<Vec<u8>> {
    let page = items(page);
    if page.len() < usize::try_from(STEP).ok()? {
        return None;
    }
    let id = bytes(items(page.into_iter().next_back()?).into_iter().next()?)?;
    let (ms, seq) = std::str::from_utf8(&id).ok()?.split_once('-')?;
    let (ms, seq): (u64, u64) = (ms.parse().ok()?, seq.parse().ok()?);
    Some(
        match seq.checked_add(1) {
            Some(seq) => format!("{ms}-{seq}"),
            None => format!("{}-0", ms.checked_add(1)?),
        }
        .into_bytes(),
    )
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    name: Vec<u8>,
    pending: Option<i64>,
    last_delivered: Option<Vec<u8>>,
}

async fn groups(site: &Site, key: &[u8]) -> Result<Vec<Group>, NetError> {
    let mut cmd = redis::cmd("XINFO");
    cmd.arg("GROUPS").arg(key);
    let mut groups: Vec<Group> = items(site.ask(&cmd).await?)
        .into_iter()
        .map(|group| {
            let group = fields(group);
            Group {
                name: field(&group, "name").unwrap_or_default(),
                pending: field(&group, "pending").and_then(|n| atoi::atoi(&n)),
                last_delivered: field(&group, "last-delivered-id"),
            }
        })
        .collect();
    groups.sort_unstable();
    Ok(groups)
}

/// Id, consumer and number of deliveries.
type Delivery = (Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>);

/// Entries that were delivered and not acknowledged: id, consumer and number of deliveries (not the idle time).
async fn pending(a: &Site, b: &Site, key: &[u8], group: &[u8]) -> Result<Option<String>, NetError> {
    let mut from = b"-".to_vec();
    loop {
        let mut cmd: Cmd = redis::cmd("XPENDING");
        cmd.arg(key).arg(group).arg(&from).arg("+").arg(STEP);
        let (x, y) = try_join(a.ask(&cmd), b.ask(&cmd)).await?;
        let next = next_id(x.clone());
        let told = |page: Value| -> Vec<Delivery> {
            let entries = items(page).into_iter().map(items).map(Vec::into_iter);
            entries
                .map(|mut e| (e.next().and_then(bytes), e.next().and_then(bytes), e.nth(1).as_ref().and_then(int)))
                .collect()
        };
        if told(x) != told(y) {
            return Ok(Some(format!("value: what is pending in group {:?} differs", String::from_utf8_lossy(group))));
        }
        match next {
            Some(next) => from = next,
            None => return Ok(None),
        }
    }
}

/// A reply of names and values in turn.
fn fields(reply: Value) -> Vec<Value> {
    items(reply)
}

fn field(fields: &[Value], name: &str) -> Option<Vec<u8>> {
    fields
        .chunks_exact(2)
        .find(|pair| bytes(pair[0].clone()).as_deref() == Some(name.as_bytes()))
        .and_then(|pair| bytes(pair[1].clone()))
}
