//! What the two instances are: version, formats, role, topology, and whether they are two at all.

use super::{Context, Finding, SideContext, proxied};
use crate::{
    engine::{
        probe::{
            info::Info,
            modules, search_indexes,
            server::{Refusal, Server},
        },
        strand::SlotSet,
    },
    model::{Side, Topology, job::ReadFrom},
    wire::dialect::{Dialect, Flavor},
};

/// At least 5.0 each.
pub(super) async fn version(cx: &Context) -> Result<Finding, Refusal> {
    let mut findings = Vec::new();
    for side in cx.both() {
        let info = side.info().await?;
        let name = side.name();
        findings.push(
            match info.dialect {
                Some(d) if d.speaks_redis(5, 0) => Finding::passed(format!("{name}: {d}")),
                Some(d) => Finding::failed(
                    format!("{name}: {d}"),
                    "before 5.0 a server's stream and its scripts can't be followed safely",
                    format!("upgrade the {} to 5.0 or newer", side.side),
                ),
                None => Finding::warning(
                    format!("{name}: INFO tells no version"),
                    "what the server understands is guessed from its version",
                    "ask the provider which version of Redis or Valkey this is; 5.0 or newer is needed",
                ),
            }
            .at(side.side),
        );
    }
    let [source, target] = [Side::Source, Side::Target].map(|s| findings[s.index()].seen.clone());
    let mut all = Finding::all(findings);
    let dialects = [cx.side(Side::Source).info().await?.dialect, cx.side(Side::Target).info().await?.dialect];
    if let [Some(a), Some(b)] = dialects {
        let said = if a == b {
            "the same on both sides"
        } else if a.flavor != b.flavor {
            "different makes: what only one of them knows is put in older words or carried as state"
        } else if a.version > b.version {
            "the source is newer: its newer commands are put in older words for the target"
        } else {
            "the target is newer: its newer commands are put in older words for the source"
        };
        all.seen = format!("{source}; {target}; {said}");
    }
    Ok(all)
}

/// The RDB version in which a server writes values, seen in the footers of DUMP.
fn rdb_version(d: Dialect) -> u32 {
    match (d.flavor, (d.version.0, d.version.1)) {
        (Flavor::Valkey, v) if v >= (9, 0) => 80,
        (Flavor::Valkey, _) => 11,
        (Flavor::Redict, _) => 12,
        (Flavor::Redis, v) if v >= (8, 4) => 13,
        (Flavor::Redis, v) if v >= (7, 4) => 12,
        (Flavor::Redis, v) if v >= (7, 2) => 11,
        (Flavor::Redis, v) if v >= (7, 0) => 10,
        (Flavor::Redis, _) => 9,
    }
}

/// Whether fields of a hash can have an expiry of their own.
fn has_field_expiry(d: Dialect) -> bool {
    match d.flavor {
        Flavor::Redis => (d.version.0, d.version.1) >= (7, 4),
        Flavor::Valkey => d.version.0 >= 9,
        Flavor::Redict => false,
    }
}

/// Values, hash-field expiry and modules, in each direction that is synced.
pub(super) async fn rdb_compatibility(cx: &Context) -> Result<Finding, Refusal> {
    let mut findings = Vec::new();
    for from in Side::BOTH.into_iter().filter(|s| cx.reads(*s)) {
        let to = from.other();
        let (a, b) = (cx.side(from).info().await?, cx.side(to).info().await?);
        let (Some(da), Some(db)) = (a.dialect, b.dialect) else {
            findings.push(Finding::warning(
                format!("{from} to {to}: a version is unknown"),
                "which formats both sides know is told by their versions",
                "ask the provider for the version",
            ));
            continue;
        };
        let (ra, rb) = (rdb_version(da), rdb_version(db));
        let how = if ra == rb {
            format!("{from} to {to}: RDB {ra} on both sides, values go as they are")
        } else if ra > rb || (rb == 80 && ra == 12) {
            format!("{from} (RDB {ra}) to {to} (RDB {rb}): values that the {to} can't read are written as commands")
        } else {
            format!("{from} (RDB {ra}) to {to} (RDB {rb}): the {to} reads the older format")
        };
        findings.push(Finding::passed(how));
        if has_field_expiry(da) && !has_field_expiry(db) {
            findings.push(field_expiry(a, from, to, db));
        }
        let (ours, theirs) = (modules(cx.side(from).server()?, a).await, modules(cx.side(to).server()?, b).await);
        findings.extend(missing_modules(&ours, &theirs, from));
        if [&ours, &theirs].iter().all(|modules| modules.iter().any(|m| m == SEARCH)) {
            let (ours, theirs) = (cx.side(from).server()?, cx.side(to).server()?);
            findings.extend(missing_indexes(&search_indexes(ours).await, &search_indexes(theirs).await, from));
        }
    }
    Ok(Finding::all(findings))
}

fn field_expiry(info: &Info, from: Side, to: Side, to_dialect: Dialect) -> Finding {
    let hashes: u64 = info.keyspace.iter().map(|k| k.field_expiries).sum();
    if hashes == 0 {
        return Finding::passed(format!(
            "{to_dialect} knows no expiry of hash fields; no hash of the {from} has one now"
        ));
    }
    Finding::warning(
        format!(
            "{hashes} hashes of the {from} have fields with an expiry of their own, which {to_dialect} does not know"
        ),
        "such fields are carried without their expiry: at that side they stay until the field is deleted here",
        format!(
            "upgrade the {to} to Redis 7.4 or Valkey 9.0 or newer, or accept that these fields do not expire there"
        ),
    )
    .at(to)
}

/// Parts of a server that show up as modules and hold no data of their own.
const WITHOUT_DATA: [&str; 4] = ["lua", "RedisCompat", SEARCH, "redisgears_2"];
const SEARCH: &str = "search";

/// An index is no key: it is in a snapshot as the module's own words alone, which no command takes.
fn missing_indexes(ours: &[String], theirs: &[String], from: Side) -> Option<Finding> {
    let missing: Vec<&str> = ours.iter().filter(|i| !theirs.contains(i)).map(String::as_str).collect();
    let to = from.other();
    (!missing.is_empty()).then(|| {
        Finding::warning(
            format!("search indexes at the {from} but not at the {to}: {}", missing.join(", ")),
            "the keys that they index are carried, and indexes made from now on; those that are there already are not",
            format!("make them at the {to} with the same FT.CREATE, before or after the copy"),
        )
        .at(to)
    })
}

fn missing_modules(ours: &[String], theirs: &[String], from: Side) -> Option<Finding> {
    let missing: Vec<&str> = ours
        .iter()
        .filter(|m| !theirs.contains(m) && !WITHOUT_DATA.contains(&m.as_str()))
        .map(String::as_str)
        .collect();
    let to = from.other();
    (!missing.is_empty()).then(|| {
        Finding::warning(
            format!("modules at the {from} but not at the {to}: {}", missing.join(", ")),
            "keys of their types and their commands can't be carried to a server without them",
            format!("load {} at the {to}, or make sure that no synced key is of such a type", missing.join(", ")),
        )
        .at(to)
    })
}

/// Both have to be masters.
pub(super) async fn role(cx: &Context) -> Result<Finding, Refusal> {
    let mut findings = Vec::new();
    for side in cx.both() {
        let info = side.info().await?;
        let name = side.name();
        let master = info.master().unwrap_or_else(|| "an unknown master".into());
        if info.text("role") == Some("master") && cx.job.instance(side.side).read_from == ReadFrom::Replica {
            findings.push(replicas(cx, side).await?.at(side.side));
        }
        findings.push(
            match info.text("role") {
                Some("master") => Finding::passed(format!(
                    "{name}: master with {} replicas",
                    info.number("connected_slaves").unwrap_or(0)
                )),
                Some("slave") if reads_only(cx, side.side) => {
                    Finding::passed(format!("{name}: replica of {master}, only read from"))
                }
                Some("slave") => Finding::failed(
                    format!("{name}: a replica of {master}"),
                    "a replica takes writes from its master alone, and what is written to it is lost",
                    format!("use its master as the {}: address = \"{master}\"", side.side),
                ),
                other => Finding::warning(
                    format!("{name}: its role is {}", other.unwrap_or("not told")),
                    "only a master can be written to",
                    "make sure that the address is that of a master",
                ),
            }
            .at(side.side),
        );
    }
    Ok(Finding::all(findings))
}

/// Which replica the stream would be read from.
async fn replicas(cx: &Context, side: &SideContext) -> Result<Finding, Refusal> {
    if !cx.reads(side.side) {
        return Ok(Finding::passed(format!("{}: no stream is read from it", side.name())));
    }
    let master = side.server()?.address.clone();
    let seen = side.dialer.replicas(&master).await.map_err(|e| Refusal::Broken(e.to_string()))?;
    Ok(match seen.good.first() {
        Some(best) => Finding::passed(format!(
            "{}: its stream is read from the replica {}, {} bytes behind, {:.1} ms away ({} in step)",
            side.name(),
            best.address,
            best.lag_bytes,
            best.round_trip.as_secs_f64() * 1000.0,
            seen.good.len()
        )),
        None => Finding::warning(
            format!("{}: no replica can be read from: {}", side.name(), seen.why_none()),
            "read_from = \"replica\" is asked for; until there is one the master is read from",
            "let this host reach the replicas, under the addresses that the master's INFO replication lists and with the \
             same account (users are not replicated), or set read_from = \"master\"",
        ),
    })
}

/// The job only reads from this side, and from a replica by the user's choice.
fn reads_only(cx: &Context, side: Side) -> bool {
    !cx.writes(side) && cx.job.instance(side).read_from == ReadFrom::Replica
}

/// Standalone servers, masters found by sentinels, clusters that serve every slot. The one place that says so.
pub(super) async fn topology(cx: &Context) -> Result<Finding, Refusal> {
    const WHY: &str = "a job on such an instance would sync a part of its data, or none";
    let mut findings = Vec::new();
    for side in cx.both() {
        let name = side.name();
        let instance = cx.job.instance(side.side);
        let told = instance.topology;
        if instance.hides_shards() {
            findings.push(proxied::takes_writes(side, &side.server()?.address).await.at(side.side));
            continue;
        }
        let info = match side.info().await {
            Err(Refusal::Refused(line)) if !line.starts_with("NOPERM") => {
                findings.push(
                    Finding::failed(
                        format!("{name}: INFO is answered with {line}"),
                        WHY,
                        "if this is a proxy in front of a cluster, set `topology = \"proxy\"`: one that is only written to needs no \
                         more, of others the nodes are named too, `shards = [\"host:port\", …]`",
                    )
                    .at(side.side),
                );
                continue;
            }
            info => info?,
        };
        if let (Topology::Proxy, true, Some(address)) = (told, cx.writes(side.side), instance.addresses.first()) {
            findings.push(proxied::takes_writes(side, address).await.at(side.side));
        }
        findings.push(
            match (told, info.mode()) {
                (_, Some("sentinel")) => Finding::failed(
                    format!("{name}: a sentinel, not a server with data"),
                    WHY,
                    "set `topology = \"sentinel\"` and `master_name`: `redis-cli SENTINEL MASTERS` shows the names",
                ),
                (Topology::Cluster, _) if !info.is_cluster() => Finding::failed(
                    format!("{name}: named a cluster, but it runs in mode {}", info.mode().unwrap_or("?")),
                    WHY,
                    "set `topology = \"standalone\"`, or leave it out",
                ),
                (Topology::Standalone, _) if info.is_cluster() => Finding::failed(
                    format!("{name}: named a standalone instance, but it is part of a cluster"),
                    WHY,
                    "set `topology = \"cluster\"`, or leave it out",
                ),
                _ if info.is_cluster() => cluster(side, cx.job.policy.forward_flush).await,
                (Topology::Proxy, _) => Finding::failed(
                    format!("{name}: named a node behind a proxy, but it is no part of a cluster"),
                    WHY,
                    "a proxy is written to by slots: name the nodes of the cluster behind it as `shards`",
                ),
                (Topology::Sentinel, _) => Finding::passed(format!("{name}: the master that the sentinels name")),
                _ => Finding::passed(format!("{name}: standalone")),
            }
            .at(side.side),
        );
    }
    Ok(Finding::all(findings))
}

/// Every slot of a cluster has a master.
async fn cluster(side: &super::SideContext, forward_flush: bool) -> Finding {
    let name = side.name();
    let masters = match side.dialer.masters().await {
        Ok(masters) => masters,
        Err(e) => {
            let (seen, remedy) = e.parts();
            return Finding::failed(
                format!("{name}: {seen}"),
                "the shards of a cluster are found by asking it",
                remedy,
            );
        }
    };
    let mut covered = SlotSet::none();
    masters.iter().flat_map(|m| SlotSet::of(&m.slots).iter().collect::<Vec<_>>()).for_each(|s| covered.insert(s));
    let mut missing = SlotSet::all();
    missing.remove(&covered);
    if !missing.is_empty() {
        return Finding::failed(
            format!("{name}: a cluster of {} shards in which nobody serves the slots {missing}", masters.len()),
            "keys of these slots can be neither read nor written, and a cluster with such slots may refuse all",
            format!("look at `redis-cli --cluster check {}`, and give the slots an owner: `--cluster fix`", {
                masters.first().map_or("host:port", |m| m.address.as_str())
            }),
        );
    }
    if forward_flush {
        return Finding::failed(
            format!("{name}: a cluster, and the job forwards FLUSHALL"),
            "a shard's FLUSHALL is of its slots alone, and the other side has no command for that",
            "leave `forward_flush` out, and flush both sides by hand",
        );
    }
    let shards: Vec<String> = masters.iter().map(|m| format!("{} {}", m.address, SlotSet::of(&m.slots))).collect();
    Finding::passed(format!("{name}: a cluster of {} shards, all slots served: {}", masters.len(), shards.join("; ")))
}

/// Two instances, with no replication between them.
pub(super) async fn same_instance(cx: &Context) -> Result<Finding, Refusal> {
    let (source, target) = (cx.side(Side::Source), cx.side(Side::Target));
    let (a, b) = (source.info().await?, target.info().await?);
    let (sa, sb) = (source.server()?, target.server()?);
    let why = "a server synced with itself, or with a copy that replication keeps, would get each change twice";
    let equal = |field: &str| match (a.text(field), b.text(field)) {
        (Some(x), Some(y)) if !x.is_empty() && x.bytes().any(|c| c != b'0') => x == y,
        _ => false,
    };
    if equal("run_id") || sa.address == sb.address {
        return Ok(Finding::failed(
            format!(
                "{} and {} are one server (run_id {})",
                sa.address,
                sb.address,
                a.text("run_id").unwrap_or("not told")
            ),
            why,
            "give the job two different instances",
        ));
    }
    // Replicas share the id with their master and with each other: it tells only towards a master.
    let is_master_of = |master: &Server, master_info: &Info, replica: &Info| {
        let same_history =
            replica.text("master_replid").is_some_and(|id| master_info.text("master_replid") == Some(id));
        replica.is_replica()
            && (replica.master().as_deref() == Some(master.address.as_str())
                || same_history && !master_info.is_replica())
    };
    let relation = if is_master_of(sa, a, b) {
        Some("the target is a replica of the source".to_owned())
    } else if is_master_of(sb, b, a) {
        Some("the source is a replica of the target".to_owned())
    } else if a.is_replica() && b.is_replica() && a.master().is_some() && a.master() == b.master() {
        Some(format!("both are replicas of {}", a.master().unwrap_or_default()))
    } else if equal("master_replid") {
        Some("both are parts of one replication".to_owned())
    } else {
        None
    };
    Ok(match relation {
        Some(relation) => Finding::failed(
            format!("{relation} (replication id {})", b.text("master_replid").unwrap_or("not told")),
            why,
            "end the replication (`REPLICAOF NO ONE` at the replica), or give the job another instance",
        ),
        None => Finding::passed(format!(
            "two instances with no replication between them (replication ids {}… and {}…)",
            short(a),
            short(b)
        )),
    })
}

fn short(info: &Info) -> String {
    info.text("master_replid").unwrap_or("?").chars().take(8).collect()
}
