//! Replication at the sites that are read from: backlog, output buffer, fork.

use super::{Context, Finding, SideContext, size};
use crate::engine::probe::server::Refusal;
use futures::future::try_join_all;
use std::time::{Duration, Instant};

/// Below this a resume window is a warning.
const SHORT_WINDOW: Duration = Duration::from_secs(600);

/// How long the write rate is measured: the longest that a start has to wait for its precheck.
const MEASURED: Duration = Duration::from_millis(250);

/// How long a link may be away: the backlog against the write rate.
pub(super) async fn backlog(cx: &Context) -> Result<Finding, Refusal> {
    let sides = cx.both().iter().filter(|s| cx.reads(s.side));
    Ok(Finding::all(try_join_all(sides.map(one_backlog)).await?))
}

async fn one_backlog(side: &SideContext) -> Result<Finding, Refusal> {
    let server = side.server()?;
    let start = Instant::now();
    let before = server.fresh_info().await?;
    tokio::time::sleep(MEASURED).await;
    let after = server.fresh_info().await?;
    let seconds = start.elapsed().as_secs_f64();
    let grown = |field: &str| Some(after.number(field)?.saturating_sub(before.number(field)?) as f64 / seconds);
    let name = side.name();

    let active = after.text("repl_backlog_active") == Some("1");
    let config = |name: &'static str| async move { server.config(name).await.ok().flatten() };
    let bytes = match after.number("repl_backlog_size").filter(|n| *n > 0) {
        Some(n) => Some(n),
        None => config("repl-backlog-size").await.and_then(|v| v.parse().ok()),
    };
    let Some(bytes) = bytes else {
        return Ok(Finding::warning(
            format!("{name}: neither INFO nor CONFIG GET tells repl-backlog-size"),
            "how long a link can be away before it has to copy everything again depends on it",
            "ask the provider for repl-backlog-size; 256 MB or more is a good start",
        )
        .at(side.side));
    };
    // 0 is for ever.
    let ttl: Option<u64> = config("repl-backlog-ttl").await.and_then(|v| v.parse().ok());
    // Without a backlog the offset stands still: then the changes are counted, each as long as a command is on average.
    let per_command = match (after.number("total_net_input_bytes"), after.number("total_commands_processed")) {
        (Some(bytes), Some(commands)) if commands > 0 => (bytes as f64 / commands as f64).max(64.0),
        _ => 256.0,
    };
    let rate = match active {
        true => grown("master_repl_offset").unwrap_or(0.0),
        false => grown("rdb_changes_since_last_save").unwrap_or(0.0) * per_command,
    };
    let by_size = if rate >= 1.0 { bytes as f64 / rate } else { f64::INFINITY };
    let by_ttl = match ttl {
        Some(0) => f64::INFINITY,
        Some(s) => s as f64,
        None => 3600.0,
    };
    let window = by_size.min(by_ttl);
    let seen = format!(
        "{name}: backlog of {}{}, {}{}/s written now: a link can be away for {}",
        size(bytes),
        if active { "" } else { " (none yet: the first link makes it)" },
        if active { "" } else { "about " },
        size(rate as u64),
        minutes(window),
    );
    if window >= SHORT_WINDOW.as_secs_f64() {
        return Ok(Finding::passed(seen).at(side.side));
    }
    let mut remedy = Vec::new();
    if by_size < SHORT_WINDOW.as_secs_f64() {
        // Enough for an hour, in whole 64 MiB.
        let hour = ((rate * 3600.0) as u64).div_ceil(64 << 20).max(1) * (64 << 20);
        remedy.push(format!("{}: CONFIG SET repl-backlog-size {hour}", side.side));
    }
    if by_ttl < SHORT_WINDOW.as_secs_f64() {
        remedy.push(format!("{}: CONFIG SET repl-backlog-ttl 3600", side.side));
    }
    Ok(Finding::warning(
        seen,
        "after a longer break the stream can't be resumed, and everything has to be copied again",
        remedy.join("\n"),
    )
    .at(side.side))
}

fn minutes(seconds: f64) -> String {
    if seconds.is_infinite() {
        "any time".into()
    } else if seconds < 90.0 {
        format!("{seconds:.0} s")
    } else {
        format!("{:.0} min", seconds / 60.0)
    }
}

/// The least that `client-output-buffer-limit replica` should allow: (hard bytes, soft bytes, soft seconds).
const LEAST_BUFFER: (u64, u64, u64) = (256 << 20, 64 << 20, 60);

/// The buffer in which a server keeps what a replica has not taken yet.
pub(super) async fn output_buffer(cx: &Context) -> Result<Finding, Refusal> {
    let mut findings = Vec::new();
    for side in cx.both().iter().filter(|s| cx.reads(s.side)) {
        let name = side.name();
        let why = "a server cuts off a replica that takes its stream too slowly, and the first copy begins anew";
        let set = format!("{}: CONFIG SET client-output-buffer-limit \"replica 256mb 64mb 60\"", side.side);
        let limits = side.server()?.config("client-output-buffer-limit").await;
        let finding = match limits {
            Ok(Some(text)) => match replica_limit(&text) {
                Some((hard, soft, seconds)) => {
                    let seen = format!("{name}: replica {} {} {seconds} s", limit(hard), limit(soft));
                    let small = (hard != 0 && hard < LEAST_BUFFER.0)
                        || (soft != 0 && (soft < LEAST_BUFFER.1 || seconds < LEAST_BUFFER.2));
                    if small { Finding::warning(seen, why, set) } else { Finding::passed(seen) }
                }
                None => Finding::warning(format!("{name}: not understood: {text}"), why, set),
            },
            Ok(None) => Finding::warning(format!("{name}: the server tells no limit"), why, set),
            Err(Refusal::Refused(line)) => Finding::warning(
                format!("{name}: unknown, CONFIG GET was answered with {line}"),
                why,
                "ask the provider for client-output-buffer-limit; `replica 256mb 64mb 60` or more is fine",
            ),
            Err(broken) => return Err(broken),
        };
        findings.push(finding.at(side.side));
    }
    Ok(Finding::all(findings))
}

fn limit(bytes: u64) -> String {
    if bytes == 0 { "no limit".into() } else { size(bytes) }
}

/// Hard bytes, soft bytes and soft seconds of the class `replica` (called `slave` before 7.0).
fn replica_limit(text: &str) -> Option<(u64, u64, u64)> {
    let mut words = text.split_ascii_whitespace();
    words.find(|w| *w == "slave" || *w == "replica")?;
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// Forks that take longer than this are a warning, in microseconds.
const SLOW_FORK_US: u64 = 1_000_000;

/// A full copy needs the server to fork.
pub(super) async fn fork(cx: &Context) -> Result<Finding, Refusal> {
    let mut findings = Vec::new();
    for side in cx.both().iter().filter(|s| cx.reads(s.side)) {
        let info = side.info().await?;
        let name = side.name();
        let why = "the first copy is made by a forked process of the server";
        let diskless = match side.server()?.config("repl-diskless-sync").await {
            Ok(Some(v)) if v == "yes" => "diskless",
            Ok(Some(_)) => "by way of its disk",
            _ => "way unknown",
        };
        let last = info.text("rdb_last_bgsave_status").unwrap_or("unknown");
        let fork_us = info.number("latest_fork_usec").unwrap_or(0);
        let used = info.number("used_memory_rss").or_else(|| info.number("used_memory")).unwrap_or(0);
        let host = info.number("total_system_memory").unwrap_or(0);
        let seen = format!("{name}: last bgsave {last}, last fork {} ms, copies {diskless}", fork_us / 1000);
        findings.push(
            if info.text("loading") == Some("1") {
                Finding::failed(
                    format!("{name}: it is loading its data"),
                    why,
                    "wait until it has loaded (INFO persistence: loading:0)",
                )
            } else if last == "err" {
                Finding::warning(
                    seen,
                    why,
                    format!(
                        "look at the {}'s log for why the last BGSAVE failed: memory (`sysctl vm.overcommit_memory=1` \
                         on its host), disk space, or rights to its folder; then run BGSAVE by hand",
                        side.side
                    ),
                )
            } else if host > 0 && used > host / 2 {
                Finding::warning(
                    format!("{seen}; it uses {} of its host's {}", size(used), size(host)),
                    "a server that uses more than half of its host's memory can only fork where memory is overcommitted",
                    "on its host: sysctl vm.overcommit_memory=1",
                )
            } else if fork_us > SLOW_FORK_US {
                Finding::warning(
                    seen,
                    "a server does nothing else while it forks: its clients wait that long",
                    "start the job at a quiet hour, or switch transparent huge pages off on its host",
                )
            } else {
                Finding::passed(seen)
            }
            .at(side.side),
        );
    }
    Ok(Finding::all(findings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_replica_class_by_either_name() {
        let text = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(replica_limit(text), Some(LEAST_BUFFER));
        assert_eq!(replica_limit(&text.replace("slave", "replica")), Some(LEAST_BUFFER));
        assert_eq!(replica_limit("normal 0 0 0"), None);
    }
}
