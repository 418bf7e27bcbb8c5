//! What the instances hold: keys at the target, databases, big keys.

use super::{Context, Finding, SideContext, show, size};
use crate::{
    engine::{
        probe::{
            database_count, selectable,
            server::{Refusal, Server, bytes, int, scan_page},
        },
        strand::{Names, SlotSet, Strand},
    },
    model::{CheckState, Databases, ExistingKeys, JobId, Side},
};
use futures::future::try_join_all;
use std::time::{Duration, Instant};

/// Keys asked for with each SCAN.
const PAGE: usize = 500;

/// Keys of the target that are looked for at the source when both may hold some.
const SAMPLE: usize = 2_000;

/// What the target's selected databases hold beside control keys.
#[derive(Default)]
struct Held {
    /// Keys by DBSIZE, control keys not counted as far as they were seen.
    keys: u64,
    databases: Vec<u32>,
    /// A few names, with their database.
    examples: Vec<String>,
    /// Sampled keys that the source holds too, and how many were sampled.
    shared: u64,
    sampled: u64,
    /// This job's own control keys are there.
    ours: bool,
}

pub(super) async fn target_empty(cx: &Context) -> Result<Finding, Refusal> {
    let policy = cx.job.policy.existing_keys;
    let held = held(cx, policy != ExistingKeys::Block).await?;
    if held.ours {
        return Ok(Finding::passed(
            "the target holds this job's control keys: it is resumed where it was, and nothing is copied over",
        ));
    }
    let dbs: Vec<String> = held.databases.iter().map(|d| format!("db{d}")).collect();
    let dbs = dbs.join(", ");
    if held.keys == 0 {
        return Ok(Finding::passed("the target's selected databases are empty"));
    }
    let seen = format!("the target holds {} keys in {dbs}, such as {}", held.keys, held.examples.join(", "));
    let shared = format!("of {} sampled, {} are at the source too", held.sampled, held.shared);
    Ok(match policy {
        ExistingKeys::Block => Finding::failed(
            seen,
            "the first copy would write over the target's keys of the same names (policy: block)",
            format!(
                "empty it (target: FLUSHDB in {dbs}) after making sure that nobody needs these keys, select other \
                 databases, or choose the policy `existing_keys = \"ignore\"` or `\"merge\"`"
            ),
        )
        .at(Side::Target),
        ExistingKeys::Ignore if held.shared == 0 => Finding::passed(format!(
            "{seen}; {shared}: they stay at the target alone, and keys of the same name are written over (policy: ignore)"
        )),
        ExistingKeys::Merge if held.shared == 0 => {
            Finding::passed(format!("{seen}; {shared}: they are copied to the source as well (policy: merge)"))
        }
        ExistingKeys::Ignore => Finding::warning(
            format!("{seen}; {shared}"),
            "the source's values are written over the target's of the same names; the target's other keys stay at \
             the target alone (policy: ignore)",
            "save the target first (BGSAVE) if its values may be needed, or choose `existing_keys = \"block\"`",
        )
        .at(Side::Target),
        ExistingKeys::Merge => Finding::warning(
            format!("{seen}; {shared}"),
            "where both sides have a key, the source's value stands; what only one side has, both get (policy: merge)",
            "save the target first (BGSAVE) if its values may be needed, or choose `existing_keys = \"block\"`",
        )
        .at(Side::Target),
    })
}

async fn held(cx: &Context, compare: bool) -> Result<Held, Refusal> {
    let target = cx.side(Side::Target);
    let own = target.own().await?;
    let source = if compare { Some(cx.side(Side::Source).own().await?) } else { None };
    let mut held = Held { ours: our_control_key(cx, &own).await?, ..Held::default() };
    if held.ours {
        return Ok(held);
    }
    for (db, _) in cx.selected(Side::Target).await? {
        select(&own, db).await?;
        let total = int(&own.ask(&redis::cmd("DBSIZE")).await?).unwrap_or(0).unsigned_abs();
        let (mut control, mut cursor, mut seen) = (0u64, b"0".to_vec(), 0u64);
        if let Some(source) = &source {
            // A database that the source does not have shares no key with it.
            if select(source, db).await.is_err() {
                held.keys += total;
                continue;
            }
        }
        // Few keys may hide among many control keys (one a slot in a cluster), so go on until some are found.
        loop {
            let (next, keys) = scan(&own, &cursor, None).await?;
            seen += keys.len() as u64;
            let (ctl, data): (Vec<_>, Vec<_>) =
                keys.into_iter().partition(|k| k.starts_with(JobId::KEY_PREFIX.as_bytes()));
            control += ctl.len() as u64;
            held.examples.extend(
                data.iter().take(3usize.saturating_sub(held.examples.len())).map(|k| format!("db{db} {:?}", show(k))),
            );
            if let Some(source) = &source {
                held.sampled += data.len() as u64;
                held.shared += count_existing(source, &data).await?;
            }
            cursor = next;
            let enough = if compare { seen >= SAMPLE as u64 } else { !data.is_empty() };
            if cursor == b"0" || enough && total > control {
                break;
            }
        }
        if total > control {
            held.keys += total - control;
            held.databases.push(db);
        }
    }
    Ok(held)
}

/// Whether the job has an id and its control key is where the forward link keeps it.
pub(super) async fn our_control_key(cx: &Context, own: &Server) -> Result<bool, Refusal> {
    let Some(id) = &cx.id else { return Ok(false) };
    select(own, cx.job.policy.databases.first()).await?;
    let mut exists = redis::cmd("EXISTS");
    let base = id.control_key(Side::Target.incoming());
    if cx.side(Side::Target).info().await?.is_cluster() {
        // Each slot has one: any that this shard serves will do.
        let address = cx.side(Side::Target).server()?.address.clone();
        let masters = cx.side(Side::Target).dialer.masters().await.map_err(|e| Refusal::Broken(e.to_string()))?;
        let slots = masters.iter().find(|m| m.address == address).and_then(|m| m.slots.first());
        let any = std::sync::Arc::new(Strand::new(SlotSet::all()));
        exists.arg(&Names::of(base, any, true).control(slots.map(|s| s.0))[..]);
    } else {
        exists.arg(base);
    }
    Ok(int(&own.ask(&exists).await?) == Some(1))
}

pub(super) async fn select(own: &Server, db: u32) -> Result<(), Refusal> {
    let mut cmd = redis::cmd("SELECT");
    cmd.arg(db);
    own.ask(&cmd).await.map(drop)
}

/// One page of SCAN: the next cursor and the keys.
pub(super) async fn scan(
    own: &Server,
    cursor: &[u8],
    pattern: Option<&str>,
) -> Result<(Vec<u8>, Vec<Vec<u8>>), Refusal> {
    let mut cmd = redis::cmd("SCAN");
    cmd.arg(cursor);
    // A pattern that few keys have gives short answers, so that more can be looked at with each question.
    match pattern {
        Some(pattern) => cmd.arg("MATCH").arg(pattern).arg("COUNT").arg(10 * PAGE),
        None => cmd.arg("COUNT").arg(PAGE),
    };
    let (next, keys) = scan_page(own.ask(&cmd).await?)
        .ok_or_else(|| Refusal::Refused("SCAN was not answered with a cursor and keys".into()))?;
    Ok((next, keys.into_iter().filter_map(bytes).collect()))
}

async fn count_existing(own: &Server, keys: &[Vec<u8>]) -> Result<u64, Refusal> {
    if keys.is_empty() {
        return Ok(0);
    }
    // One by one: a cluster takes only keys of one slot, and answers for other shards' with an error.
    let mut pipe = redis::pipe();
    for key in keys {
        pipe.cmd("EXISTS").arg(key);
    }
    Ok(own.ask_all(&pipe).await?.iter().filter_map(int).sum::<i64>().unsigned_abs())
}

/// Every database that one side uses exists at the other.
pub(super) async fn databases(cx: &Context) -> Result<Finding, Refusal> {
    if let Some(finding) = databases_of_clusters(cx).await? {
        return Ok(finding);
    }
    let mut counts = Vec::new();
    for side in cx.both() {
        counts.push(database_count(&side.own().await?, side.info().await?).await);
    }
    let mut findings = Vec::new();
    for from in Side::BOTH.into_iter().filter(|s| cx.reads(*s)) {
        findings.push(fits(cx, from, &counts).await?);
    }
    if let Databases::Only(list) = &cx.job.policy.databases {
        for side in Side::BOTH {
            let missing = missing(cx.side(side), counts[side.index()], list).await?;
            if !missing.is_empty() {
                findings.push(
                    Finding::failed(
                        format!("the {side} has no {}", names(&missing)),
                        "the job selects databases that this instance does not have",
                        format!("select others, or raise `databases` in the {side}'s configuration and restart it"),
                    )
                    .at(side),
                );
            }
        }
    }
    Ok(Finding::all(findings))
}

/// A job with a cluster syncs database 0 alone: what is in others would be left out.
async fn databases_of_clusters(cx: &Context) -> Result<Option<Finding>, Refusal> {
    let mut cluster = None;
    for side in cx.both() {
        if side.info().await?.is_cluster() {
            cluster = Some(side.side);
        }
    }
    let Some(cluster) = cluster else { return Ok(None) };
    let others: Vec<u32> = match &cx.job.policy.databases {
        Databases::All => Vec::new(),
        Databases::Only(list) => list.iter().copied().filter(|db| *db != 0).collect(),
    };
    const WHY: &str = "slots are of database 0, so a job with a cluster syncs that one alone";
    const REMEDY: &str = "set `databases = [0]`, and move what is in other databases, or sync it with another job";
    if !others.is_empty() {
        let seen = format!("the job selects {}, and the {cluster} is a cluster", names(&others));
        return Ok(Some(Finding::failed(seen, WHY, REMEDY)));
    }
    let mut findings = Vec::new();
    for side in Side::BOTH {
        let used: Vec<u32> = cx.selected(side).await?.into_iter().map(|(db, _)| db).filter(|db| *db != 0).collect();
        findings.push(
            if used.is_empty() {
                Finding::passed(format!("{}: database 0 alone", cx.side(side).name()))
            } else {
                let seen = format!("the {side} has keys in {}, and the {cluster} is a cluster", names(&used));
                Finding::failed(seen, WHY, REMEDY)
            }
            .at(side),
        );
    }
    Ok(Some(Finding::all(findings)))
}

async fn fits(cx: &Context, from: Side, counts: &[Option<u32>]) -> Result<Finding, Refusal> {
    let to = from.other();
    let used: Vec<u32> = cx.selected(from).await?.into_iter().map(|(db, _)| db).collect();
    let missing = missing(cx.side(to), counts[to.index()], &used).await?;
    let count = |side: Side| counts[side.index()].map_or_else(|| "an unknown number of".into(), |n| n.to_string());
    if !missing.is_empty() {
        return Ok(Finding::failed(
            format!(
                "the {from} uses {}; the {to} has {} databases, without {}",
                names(&used),
                count(to),
                names(&missing)
            ),
            "what is written to a database that the other side does not have can't be carried there",
            format!(
                "set `databases {}` in the {to}'s redis.conf and restart it, or select only databases that both have",
                missing.iter().max().map_or(16, |m| m + 1)
            ),
        )
        .at(to));
    }
    let seen = format!(
        "the {from} has {} databases, {}",
        count(from),
        if used.is_empty() {
            "none of the selected holds keys".to_owned()
        } else {
            format!("keys in {}", names(&used))
        },
    );
    let fewer = matches!((counts[from.index()], counts[to.index()]), (Some(a), Some(b)) if a > b);
    Ok(if fewer && cx.job.policy.databases == Databases::All {
        Finding::warning(
            format!("{seen}; the {to} has {}", count(to)),
            format!("a write to a database of the {from} that the {to} does not have would stop the link"),
            format!("select the databases by number, or raise `databases` in the {to}'s redis.conf"),
        )
        .at(to)
    } else {
        Finding::passed(seen)
    })
}

/// Those of `wanted` that a side does not have.
async fn missing(side: &SideContext, count: Option<u32>, wanted: &[u32]) -> Result<Vec<u32>, Refusal> {
    if let Some(count) = count {
        return Ok(wanted.iter().copied().filter(|db| *db >= count).collect());
    }
    let own = side.own().await?;
    let mut missing = Vec::new();
    for db in wanted {
        if selectable(&own, *db).await == Some(false) {
            missing.push(*db);
        }
    }
    Ok(missing)
}

fn names(dbs: &[u32]) -> String {
    dbs.iter().map(|d| format!("db{d}")).collect::<Vec<_>>().join(", ")
}

/// Above this a value blocks both servers noticeably while it is carried, in bytes.
const BIG: u64 = 64 << 20;

/// How long each side's keys are sampled.
const SAMPLED: Duration = Duration::from_millis(300);

/// The biggest values of a sample.
pub(super) async fn big_keys(cx: &Context) -> Result<Finding, Refusal> {
    let sides = cx.both().iter().filter(|s| cx.reads(s.side));
    Ok(Finding::all(try_join_all(sides.map(|side| sample(cx, side))).await?))
}

async fn sample(cx: &Context, side: &SideContext) -> Result<Finding, Refusal> {
    let own = side.own().await?;
    let name = side.name();
    let selected = cx.selected(side.side).await?;
    let deadline = Instant::now() + SAMPLED;
    let (mut looked_at, mut big, mut biggest) = (0u64, Vec::new(), (0u64, String::new()));
    'sampled: for (db, _) in &selected {
        select(&own, *db).await?;
        let mut cursor = b"0".to_vec();
        loop {
            let (next, keys) = scan(&own, &cursor, None).await?;
            let mut pipe = redis::pipe();
            for key in &keys {
                pipe.cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(5);
            }
            let sizes = own.ask_all(&pipe).await?;
            if let Some(redis::Value::ServerError(e)) = sizes.first() {
                return Ok(Finding::warning(
                    format!("{name}: unknown, MEMORY USAGE was answered with {}", e.code()),
                    "big values block both servers while they are carried",
                    "make sure by `redis-cli --bigkeys` that no value is above 64 MB",
                )
                .at(side.side));
            }
            for (key, bytes) in keys.iter().zip(sizes.iter().filter_map(int)) {
                let bytes = bytes.unsigned_abs();
                looked_at += 1;
                if bytes > biggest.0 {
                    biggest = (bytes, format!("db{db} {:?}", show(key)));
                }
                if bytes > BIG {
                    big.push((bytes, format!("db{db} {:?}", show(key))));
                }
            }
            cursor = next;
            if cursor == b"0" {
                break;
            }
            if Instant::now() > deadline {
                break 'sampled;
            }
        }
    }
    let total: u64 = selected.iter().map(|(_, keys)| keys).sum();
    let seen = match looked_at {
        0 => format!("{name}: no keys"),
        _ => format!(
            "{name}: {looked_at} of {total} keys looked at, the biggest is {} of {}",
            biggest.1,
            size(biggest.0)
        ),
    };
    if big.is_empty() {
        return Ok(Finding::passed(seen));
    }
    big.sort_unstable_by(|a, b| b.cmp(a));
    let list: Vec<String> = big.iter().take(3).map(|(n, k)| format!("{k} {}", size(*n))).collect();
    Ok(Finding {
        state: CheckState::Warning,
        side: Some(side.side),
        seen: format!("{seen}; above {}: {}", size(BIG), list.join(", ")),
        why: "a conflict on such a key carries its whole value, which blocks both servers while it is made and loaded"
            .into(),
        remedy: "split these values into smaller keys where you can; else expect pauses of about a second for each \
                 100 MB in a conflict"
            .into(),
    })
}
