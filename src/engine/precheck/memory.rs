//! Room: memory at the target, eviction, disk for the spool.

use super::{Context, Finding, keys, size};
use crate::{
    engine::probe::{info::Info, server::Refusal},
    model::Side,
};
use std::path::{Path, PathBuf};

/// Nothing may be evicted where changes are written.
pub(super) async fn maxmemory_policy(cx: &Context) -> Result<Finding, Refusal> {
    let mut findings = Vec::new();
    for side in cx.both() {
        let info = side.info().await?;
        let name = side.name();
        let limit = info.number("maxmemory").unwrap_or(0);
        findings.push(
            match info.text("maxmemory_policy") {
                Some("noeviction") => Finding::passed(format!("{name}: noeviction")),
                Some(policy) if limit == 0 => {
                    Finding::passed(format!("{name}: {policy}, but no maxmemory, so nothing is evicted"))
                }
                Some(policy) => Finding::warning(
                    format!("{name}: {policy} above {}", size(limit)),
                    "an evicted key is deleted at the other side too, and a key evicted here while it is written \
                     there comes back",
                    format!("{}: CONFIG SET maxmemory-policy noeviction, with enough maxmemory", side.side),
                ),
                None => Finding::warning(
                    format!("{name}: INFO tells no maxmemory_policy"),
                    "evicted keys are deleted at the other side too",
                    "make sure that the policy is noeviction",
                ),
            }
            .at(side.side),
        );
    }
    Ok(Finding::all(findings))
}

/// The share of a server's data that the job selects, in bytes: by the number of keys.
fn selected_bytes(cx: &Context, info: &Info) -> Option<u64> {
    let data = info.number("used_memory_dataset").or_else(|| info.number("used_memory"))?;
    let all: u64 = info.keyspace.iter().map(|k| k.keys).sum();
    let selected: u64 = info.keyspace.iter().filter(|k| cx.job.policy.databases.contains(k.db)).map(|k| k.keys).sum();
    if all == 0 {
        return Some(0);
    }
    Some((data as f64 * selected as f64 / all as f64) as u64)
}

/// Whether the source's data fits into the target.
pub(super) async fn memory(cx: &Context) -> Result<Finding, Refusal> {
    let target = cx.side(Side::Target);
    let (a, b) = (cx.side(Side::Source).info().await?, target.info().await?);
    if keys::our_control_key(cx, &target.own().await?).await? {
        return Ok(Finding::passed("the job is resumed: the source's data is at the target already"));
    }
    let (Some(needed), Some(used)) = (selected_bytes(cx, a), b.number("used_memory")) else {
        return Ok(Finding::warning(
            "INFO tells no memory use",
            "a target without room stops the copy",
            "make sure that the target has as much memory as the source",
        ));
    };
    let limit = b.number("maxmemory").unwrap_or(0);
    let why = "a target that is out of memory refuses writes (OOM), and the sync stands still until there is room";
    if limit > 0 {
        let room = limit.saturating_sub(used);
        let seen = format!(
            "the source's selected data takes {}; the target has {} left ({} of {} used)",
            size(needed),
            size(room),
            size(used),
            size(limit)
        );
        let remedy = format!("target: CONFIG SET maxmemory {}", used.saturating_add(needed / 2 * 3));
        return Ok(if needed > room {
            Finding::failed(seen, why, remedy).at(Side::Target)
        } else if needed > room / 5 * 4 {
            Finding::warning(seen, why, remedy).at(Side::Target)
        } else {
            Finding::passed(seen)
        });
    }
    let host = b.number("total_system_memory").unwrap_or(0);
    if host == 0 {
        return Ok(Finding::passed(format!(
            "the source's selected data takes {}; the target has no maxmemory, its host's memory is not told",
            size(needed)
        )));
    }
    let room = host.saturating_sub(used);
    let seen = format!(
        "the source's selected data takes {}; the target has no maxmemory, its host {} with {} used by Redis",
        size(needed),
        size(host),
        size(used)
    );
    Ok(if needed > room / 5 * 4 {
        Finding::warning(seen, "a host without memory swaps, or kills the server", "use a host with more memory")
            .at(Side::Target)
    } else {
        Finding::passed(seen)
    })
}

/// Below this the spool can't even be opened in earnest, in bytes.
const LEAST_DISK: u64 = 16 << 20;

/// Free bytes where the spool will lie, against what it may have to hold.
pub(super) async fn spool_disk(cx: &Context) -> Result<Finding, Refusal> {
    let Some(dir) = &cx.options.spool_dir else {
        return Ok(Finding::passed("the engine has told no folder for its spool"));
    };
    let source = cx.side(Side::Source).info().await?;
    let cap = cx.job.limits.spool_disk;
    let existing = existing_part(dir);
    let stat = match nix::sys::statvfs::statvfs(&existing) {
        Ok(stat) => stat,
        Err(e) => {
            return Ok(Finding::failed(
                format!("{}: {e}", existing.display()),
                "the spool keeps what a slow target has not taken yet",
                format!("make {} a folder that the engine's user may write to", dir.display()),
            ));
        }
    };
    #[allow(clippy::useless_conversion, reason = "the types differ between systems")]
    let free = u64::from(stat.blocks_available()).saturating_mul(u64::from(stat.fragment_size()));
    let used = source.number("used_memory").unwrap_or(0);
    let needed = used.min(cap);
    let seen = format!(
        "{} free at {}; the source uses {}, the spool may take {}",
        size(free),
        existing.display(),
        size(used),
        size(cap)
    );
    let why = "while the first copy is loaded, all that is written at the source waits in the spool; when its disk is \
               full, the source cuts the link and the copy begins anew";
    let remedy = format!("free {} there, or set DUPLEX_HOME to a larger disk", size(needed.max(LEAST_DISK)));
    Ok(if free < LEAST_DISK {
        Finding::failed(seen, why, remedy)
    } else if free < needed {
        Finding::warning(seen, why, remedy)
    } else {
        Finding::passed(seen)
    })
}

/// The longest part of a path that exists.
fn existing_part(dir: &Path) -> PathBuf {
    dir.ancestors()
        .find(|p| !p.as_os_str().is_empty() && p.exists())
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
