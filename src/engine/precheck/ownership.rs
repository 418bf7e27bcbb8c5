//! Control keys: those of this job (resume), of others (chains), and those that forbid to start (the same pair
//! twice, a ring).

use super::{
    Context, Finding,
    keys::{scan, select},
};
use crate::{
    engine::probe::server::{Refusal, bytes, text},
    model::{Direction, JobId, Side},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// How long a side is searched for control keys of jobs that do not run: those of jobs that do are known by the names
/// of their connections.
const SEARCHED: Duration = Duration::from_millis(250);

/// Bytes of a control key that are read.
const VALUE_READ: usize = 4096;

/// A control key that was found.
struct Found {
    side: Side,
    db: u32,
    job: String,
    /// `None`: a key of ours that is not a checkpoint.
    direction: Option<Direction>,
    key: String,
    /// Replication ids that its value names.
    replids: BTreeSet<String>,
}

pub(super) async fn control_keys(cx: &Context) -> Result<Finding, Refusal> {
    let (source, target) = futures::future::try_join(search(cx, Side::Source), search(cx, Side::Target)).await?;
    let mut notes = Vec::new();
    let mut found = Vec::new();
    for (side, (keys, looked_at, complete)) in [(Side::Source, source), (Side::Target, target)] {
        notes.push(format!("{side}: {} control keys in {looked_at} keys", keys.len()));
        if !complete {
            notes.push(format!("{side}: not all keys were looked at within {} ms", SEARCHED.as_millis()));
        }
        found.extend(keys);
    }
    let mut findings = vec![Finding::passed(notes.join("; "))];
    let (ours, others): (Vec<Found>, Vec<Found>) =
        found.into_iter().partition(|f| cx.id.as_ref().is_some_and(|id| id.0 == f.job));
    findings.extend(resume(cx, &ours));

    let mut jobs: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
    for f in &others {
        jobs.entry(&f.job).or_default().push(f);
    }
    let replids = [replids(cx, Side::Source).await?, replids(cx, Side::Target).await?];
    for (job, keys) in &jobs {
        let name = cx.options.names.iter().find(|(id, _)| id.0 == *job).map(|(_, name)| name);
        findings.push(other_job(job, name, keys, &replids));
    }
    findings.extend(ring(&others, &replids));
    Ok(Finding::all(findings))
}

fn resume(cx: &Context, ours: &[Found]) -> Option<Finding> {
    let id = cx.id.as_ref()?;
    let has = |direction| ours.iter().any(|f| f.direction == Some(direction) && f.side == Direction::to(direction));
    let wanted: Vec<Direction> =
        Direction::BOTH.into_iter().filter(|d| cx.job.policy.two_way || *d == Direction::Forward).collect();
    let there = wanted.iter().filter(|d| has(**d)).count();
    if there == wanted.len() {
        Some(Finding::passed(format!("this job's own ({id}) are there: it is resumed where it was")))
    } else if there > 0 || !ours.is_empty() {
        Some(Finding::warning(
            format!("this job's own ({id}) are there in part: {there} of {} directions", wanted.len()),
            "one side was emptied or replaced since the job last ran: what it holds no longer belongs to the position \
             that the other side names",
            format!(
                "start the job anew (`start --discard-previous`), or remove them: {}",
                ours.iter()
                    .map(|f| format!("{}: SELECT {}, DEL {}", f.side, f.db, f.key))
                    .collect::<Vec<_>>()
                    .join("; ")
            ),
        ))
    } else {
        None
    }
}

/// Control keys of another job: fine in a chain, refused where it syncs the same two instances.
fn other_job(job: &str, name: Option<&String>, keys: &[&Found], replids: &[BTreeSet<String>; 2]) -> Finding {
    let at = |side: Side, direction| keys.iter().any(|f| f.side == side && f.direction == Some(direction));
    let both_ways =
        Direction::BOTH.into_iter().any(|forward| at(Side::Target, forward) && at(Side::Source, forward.other()));
    let names_other =
        keys.iter().any(|f| f.direction.is_some() && !f.replids.is_disjoint(&replids[f.side.other().index()]));
    let list: Vec<String> = keys.iter().take(4).map(|f| format!("{} at the {} (db{})", f.key, f.side, f.db)).collect();
    let list = list.join(", ");
    if both_ways || names_other {
        let removed: Vec<String> =
            keys.iter().take(4).map(|f| format!("{}: SELECT {} and DEL {}", f.side, f.db, f.key)).collect();
        let why = "two jobs between the same two instances would carry each change twice";
        return match name {
            Some(name) => Finding::failed(
                format!("job {name} ({job}) syncs these two instances: {list}"),
                why,
                format!("end that job first (`duplex stop {name}`), which removes its control keys"),
            ),
            None => Finding::failed(
                format!("job {job} syncs these two instances: {list}"),
                why,
                format!(
                    "stop the other job (`duplex stop`), which removes its control keys; if it is gone for ever:\n{}",
                    removed.join("\n")
                ),
            ),
        };
    }
    Finding::passed(format!("control keys of another job: {list}; its changes are forwarded as any client's (a chain)"))
}

/// Both sides are written by other jobs from one third instance: together with this job that is a ring.
fn ring(others: &[Found], replids: &[BTreeSet<String>; 2]) -> Option<Finding> {
    let known: BTreeSet<&String> = replids.iter().flatten().collect();
    let third = |side: Side| -> BTreeSet<&String> {
        let of_side = others.iter().filter(|f| f.side == side && f.direction.is_some());
        of_side.flat_map(|f| &f.replids).filter(|id| !known.contains(id)).collect()
    };
    let shared: Vec<String> = third(Side::Source).intersection(&third(Side::Target)).map(|s| (*s).clone()).collect();
    (!shared.is_empty()).then(|| {
        Finding::failed(
            format!(
                "a third instance (replication id {}) is synced with both sides already: a ring",
                shared.join(", ")
            ),
            "in a ring each change would come back to where it was made, and go round for ever",
            "join the three instances in a chain: end one of the two other jobs, or do without this one",
        )
    })
}

async fn replids(cx: &Context, side: Side) -> Result<BTreeSet<String>, Refusal> {
    let info = cx.side(side).info().await?;
    let ids = ["master_replid", "master_replid2"].into_iter().filter_map(|f| info.text(f));
    Ok(ids.filter(|id| id.bytes().any(|b| b != b'0')).map(str::to_owned).collect())
}

/// All keys that begin as control keys do: found, keys looked at, and whether that was all.
async fn search(cx: &Context, side: Side) -> Result<(Vec<Found>, u64, bool), Refusal> {
    let context = cx.side(side);
    let own = context.own().await?;
    let info = context.info().await?;
    let pattern = format!("{}*", JobId::KEY_PREFIX);
    let deadline = Instant::now() + SEARCHED;
    let (mut found, mut looked_at, mut complete) = (Vec::new(), 0u64, true);
    // Where this job keeps its own comes first, so that they are found in the largest keyspace.
    if let Some(id) = &cx.id {
        let db = cx.job.policy.databases.first();
        select(&own, db).await?;
        for direction in Direction::BOTH {
            let key = id.control_key(direction);
            found.extend(read(&own, side, db, key.into_bytes()).await?);
        }
    }
    for id in running(&own).await? {
        for space in &info.keyspace {
            select(&own, space.db).await?;
            for direction in Direction::BOTH {
                let key = id.control_key(direction);
                if !found.iter().any(|f: &Found| f.db == space.db && f.key == key) {
                    found.extend(read(&own, side, space.db, key.into_bytes()).await?);
                }
            }
        }
    }
    for space in &info.keyspace {
        select(&own, space.db).await?;
        let mut cursor = b"0".to_vec();
        loop {
            let (next, keys) = scan(&own, &cursor, Some(&pattern)).await?;
            for key in keys {
                if !found.iter().any(|f: &Found| f.db == space.db && f.key.as_bytes() == key) {
                    found.extend(read(&own, side, space.db, key).await?);
                }
            }
            cursor = next;
            if cursor == b"0" {
                looked_at += space.keys;
                break;
            }
            if Instant::now() > deadline {
                complete = false;
                break;
            }
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|f| seen.insert((f.job.clone(), f.direction, f.replids.clone())));
    Ok((found, looked_at, complete))
}

/// The jobs that are connected to a server, by the names of their connections (`duplex:<job>:<role>`).
async fn running(own: &crate::engine::probe::server::Server) -> Result<Vec<JobId>, Refusal> {
    let mut cmd = redis::cmd("CLIENT");
    cmd.arg("LIST");
    let list = match own.ask(&cmd).await {
        Ok(list) => text(&list).unwrap_or_default(),
        // A right that another item asks for.
        Err(Refusal::Refused(_)) => String::new(),
        Err(broken) => return Err(broken),
    };
    Ok(jobs_of(&list))
}

fn jobs_of(list: &str) -> Vec<JobId> {
    let name = |line: &str| line.split(' ').find_map(|f| f.strip_prefix("name=").map(str::to_owned));
    let job = |name: String| Some(name.strip_prefix(JobId::KEY_PREFIX)?.split(':').next()?.to_owned());
    let jobs: BTreeSet<String> = list.lines().filter_map(name).filter_map(job).filter(|j| !j.is_empty()).collect();
    jobs.into_iter().map(JobId).collect()
}

/// Reads a key as a control key: `duplex:<job>:<direction>`, and the 40 hex digits that its value names.
async fn read(
    own: &crate::engine::probe::server::Server,
    side: Side,
    db: u32,
    key: Vec<u8>,
) -> Result<Option<Found>, Refusal> {
    let name = String::from_utf8_lossy(&key).into_owned();
    let Some(rest) = name.strip_prefix(JobId::KEY_PREFIX) else { return Ok(None) };
    let mut parts = rest.split(':');
    let job = parts.next().unwrap_or_default().trim_matches(['{', '}']).to_owned();
    // In jobs with clusters there is one for each slot (`{tag}`) or for each strand (`@strand`).
    let word = parts.next().map(|word| word.split(['{', '@']).next().unwrap_or_default());
    let direction = match (word, parts.next()) {
        (Some("forward"), None) => Some(Direction::Forward),
        (Some("reverse"), None) => Some(Direction::Reverse),
        _ => None,
    };
    let mut get = redis::cmd("GETRANGE");
    get.arg(&key).arg(0).arg(VALUE_READ);
    let value = match own.ask(&get).await {
        Ok(value) => bytes(value).unwrap_or_default(),
        // Another type than a string: it holds no position.
        Err(Refusal::Refused(_)) => Vec::new(),
        Err(broken) => return Err(broken),
    };
    if value.is_empty() && direction.is_some() {
        let mut exists = redis::cmd("EXISTS");
        exists.arg(&key);
        if own.ask(&exists).await.ok().and_then(|v| crate::engine::probe::server::int(&v)) == Some(0) {
            return Ok(None);
        }
    }
    Ok(Some(Found { side, db, job, direction, key: name, replids: hex_runs(&value) }))
}

/// Every run of exactly 40 hex digits.
fn hex_runs(value: &[u8]) -> BTreeSet<String> {
    value
        .split(|b| !b.is_ascii_hexdigit())
        .filter(|run| run.len() == 40)
        .map(|run| String::from_utf8_lossy(run).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_jobs_are_known_by_their_connections() {
        let list = "id=1 addr=1.2.3.4:5 name=duplex:k3xw:apply age=1\nid=2 name=duplex:k3xw:replica db=0\n\
                    id=3 name= db=0\nid=4 name=app\nid=5 name=duplex:abcd:control cmd=get\n";
        assert_eq!(jobs_of(list), [JobId("abcd".into()), JobId("k3xw".into())]);
    }

    #[test]
    fn finds_replication_ids_in_a_control_value() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let value = format!("1 7|{id},99,98|{},5", id.replace('0', "f"));
        assert_eq!(hex_runs(value.as_bytes()).len(), 2);
        assert!(hex_runs(b"deadbeef").is_empty());
    }
}
