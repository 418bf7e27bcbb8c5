//! What the account may do, and the exact `ACL SETUSER` that grants what is missing; renamed and disabled commands.
//!
//! Nothing is run: from 7.0 on `ACL DRYRUN` tells, before that (and where ACL is forbidden) the command is queued in a
//! MULTI that is discarded, which checks rights and runs nothing.

mod needs;

use super::{Context, Finding, SideContext, proxied, reach::cli};
use crate::{
    engine::probe::server::{Refusal, Server, error_line, items, text},
    model::Side,
};
use futures::future::try_join_all;
use needs::{Need, OPTIONAL, READS, WRITE_SAMPLES, WRITES};
use redis::Value;
use std::collections::BTreeSet;

/// Above this many missing write commands the whole category is granted.
const MANY: usize = 8;

/// A user's answer to one need.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Allowed,
    /// The command is not allowed.
    Command,
    /// The command is, but not with any key.
    Key,
    /// The command is, but not on any channel.
    Channel,
    /// The server has no such command, or can't tell.
    Unknown(String),
}

pub(super) async fn rights(cx: &Context) -> Result<Finding, Refusal> {
    Ok(Finding::all(try_join_all(cx.both().iter().map(|side| of_side(cx, side))).await?))
}

async fn of_side(cx: &Context, side: &SideContext) -> Result<Finding, Refusal> {
    if cx.job.instance(side.side).hides_shards() {
        return Ok(proxied::rights(side));
    }
    let server = side.server()?;
    let name = side.name();
    let mut whoami = redis::cmd("ACL");
    whoami.arg("WHOAMI");
    let user = match server.ask(&whoami).await {
        Ok(user) => text(&user),
        Err(Refusal::Refused(line)) if line.contains("unknown command") && before_acl(side).await? => {
            return Ok(Finding::passed(format!(
                "{name}: before 6.0 there are no users: who has the password has every right"
            ))
            .at(side.side));
        }
        Err(Refusal::Refused(_)) => None,
        Err(broken) => return Err(broken),
    };
    // Whether it is a cluster; without the right to ask, that right is missing first.
    let _ = side.info().await;
    let needs = wanted(cx, side.side);
    let version = side.dialer.version(&server.address).await;
    let own = side.own().await?;
    let mut verdicts = match &user {
        Some(user) => dry_run(&own, user, &needs).await?,
        None => None,
    };
    if verdicts.is_none() {
        verdicts = queue(&own, &needs).await?;
    }
    let user = user.or_else(|| configured_user(cx, side.side)).unwrap_or_else(|| "default".into());
    // The other shards of a cluster may know the account otherwise.
    for other in side.others() {
        if let Some(there) = dry_run(other, &user, &needs).await? {
            let worse = |v: &Verdict| matches!(v, Verdict::Command | Verdict::Key);
            if there.iter().any(worse) && verdicts.as_ref().is_some_and(|v| !v.iter().any(worse)) {
                let mut finding = judge(side, &user, &needs, &there, version);
                finding.seen = format!("{} (at the shard {})", finding.seen, other.address);
                return Ok(finding.at(side.side));
            }
        }
    }
    Ok(match verdicts {
        Some(verdicts) => judge(side, &user, &needs, &verdicts, version),
        None => Finding::failed(
            format!(
                "{name}: user {user} has no right to MULTI and DISCARD; what else is missing can't be tried without it"
            ),
            WHY,
            grant_remedy(side, &user, &whole_grant(cx, side.side, version, &all_of(server, version).await)),
        ),
    }
    .at(side.side))
}

const WHY: &str = "the sync reads the instance as a replica does and writes all kinds of commands to all keys";

/// The line that grants what is missing.
fn grant_remedy(side: &SideContext, user: &str, grants: &str) -> String {
    format!(
        "run as an administrator: redis-cli {} ACL SETUSER {user} {grants}\n(then ACL SAVE or CONFIG REWRITE, so that it \
         outlives a restart)",
        cli(side.server().map_or("", |s| s.address.as_str()))
    )
}

async fn before_acl(side: &SideContext) -> Result<bool, Refusal> {
    Ok(side.info().await?.dialect.is_some_and(|d| !d.speaks_redis(6, 0)))
}

/// The user of the job's account, where it stands in the job itself.
pub(super) fn configured_user(cx: &Context, side: Side) -> Option<String> {
    match &cx.job.instance(side).account {
        crate::model::AccountSource::Inline(inline) => crate::model::Account::parse(inline.expose()).user,
        _ => None,
    }
}

/// What the job needs at a side.
fn wanted(cx: &Context, side: Side) -> Vec<&'static Need> {
    let mut needs: Vec<&Need> = Vec::new();
    if cx.reads(side) {
        needs.extend(READS);
    }
    needs.extend(needs::BOTH);
    let info = cx.side(side).server().ok().and_then(|s| s.known_info());
    if info.is_some_and(|info| info.is_cluster()) {
        needs.extend(needs::CLUSTERS);
    }
    if cx.writes(side) {
        needs.extend(WRITES);
        needs.extend(WRITE_SAMPLES);
    }
    needs.extend(OPTIONAL);
    needs
}

/// What brings a right along, at a server of this version: before 6.2 the time is something to read.
fn brought_by(need: &Need, version: Option<(u32, u32)>) -> &'static str {
    if need.command == "TIME" && version.is_none() { "+@read" } else { need.within }
}

/// The words for `ACL SETUSER` that grant all that the job needs at a side. Before 6.2 (`None`) there are no rights to
/// channels, and the word for them is refused; so is one for a subcommand of `all_of`, which are granted as a whole.
pub(super) fn whole_grant(cx: &Context, side: Side, version: Option<(u32, u32)>, all_of: &[&str]) -> String {
    let needs = wanted(cx, side);
    let is_there = |grant: &str| all_of.iter().any(|c| grant.strip_prefix('+').is_some_and(|g| g.starts_with(c)));
    let needed = needs.iter().filter(|n| brought_by(n, version).is_empty() && !is_there(n.grant));
    let mut grants: BTreeSet<&str> = needed.map(|n| n.grant).collect();
    grants.extend(cx.writes(side).then_some("+@write"));
    let channels = if cx.writes(side) && version.is_some() { " &*" } else { "" };
    format!("{}{channels} ~*", grants.into_iter().collect::<Vec<_>>().join(" "))
}

/// Before 6.2: the commands with subcommands that the account has as a whole.
async fn all_of(server: &Server, version: Option<(u32, u32)>) -> Vec<&'static str> {
    let mut all = Vec::new();
    for (prefix, name) in [("client|", "CLIENT"), ("config|", "CONFIG"), ("cluster|", "CLUSTER")] {
        if version.is_none() && server.ask(redis::cmd(name).arg("HELP")).await.is_ok() {
            all.push(prefix);
        }
    }
    all
}

/// `None` where `ACL DRYRUN` itself is refused or not known.
async fn dry_run(own: &Server, user: &str, needs: &[&Need]) -> Result<Option<Vec<Verdict>>, Refusal> {
    let mut pipe = redis::pipe();
    for need in needs {
        pipe.cmd("ACL").arg("DRYRUN").arg(user);
        for arg in need.words() {
            pipe.arg(arg);
        }
    }
    let mut verdicts = Vec::with_capacity(needs.len());
    for reply in own.ask_all(&pipe).await? {
        verdicts.push(match reply {
            Value::Okay => Verdict::Allowed,
            Value::ServerError(e) => {
                let line = error_line(&e);
                let low = line.to_ascii_lowercase();
                if low.starts_with("noperm") || low.contains("unknown command") || low.contains("unknown subcommand") {
                    return Ok(None);
                }
                // `Command 'x' not found`, or a wrong number of arguments in that version.
                Verdict::Unknown(line)
            }
            other => refusal_kind(&text(&other).unwrap_or_default()),
        });
    }
    Ok(Some(verdicts))
}

/// Reads the words of a refusal: of the command itself, or of the key it was tried with.
fn refusal_kind(line: &str) -> Verdict {
    let low = line.to_ascii_lowercase();
    if low.contains("run the") || low.contains("run this command") {
        Verdict::Command
    } else if low.contains("channel") {
        Verdict::Channel
    } else if low.contains("key") {
        Verdict::Key
    } else {
        Verdict::Command
    }
}

/// Queues each command in a MULTI and discards it; `None` where MULTI or DISCARD is refused, so that nothing can be
/// tried.
async fn queue(own: &Server, needs: &[&Need]) -> Result<Option<Vec<Verdict>>, Refusal> {
    // An empty transaction does nothing.
    let mut may_exec = true;
    for command in ["MULTI", "DISCARD", "MULTI", "EXEC", "DISCARD", "MULTI"] {
        match own.ask(&redis::cmd(command)).await {
            Err(Refusal::Refused(line)) if command == "EXEC" => {
                // From 6.2 on it says that the transaction is discarded because of that.
                may_exec = !line.contains("NOPERM");
            }
            // There is nothing to discard behind an EXEC that went through.
            Err(Refusal::Refused(line)) if command == "DISCARD" && line.contains("without MULTI") => {}
            Ok(_) => {}
            Err(Refusal::Refused(_)) => return Ok(None),
            Err(broken) => return Err(broken),
        }
    }
    let mut verdicts = Vec::with_capacity(needs.len());
    for need in needs {
        let mut words = need.words();
        let name = words.next().unwrap_or_default();
        // MULTI is proven by now; EXEC and DISCARD would end the transaction.
        if matches!(name, "MULTI" | "EXEC" | "DISCARD") {
            verdicts.push(if name == "EXEC" && !may_exec { Verdict::Command } else { Verdict::Allowed });
            continue;
        }
        let mut cmd = redis::cmd(name);
        for arg in words {
            cmd.arg(arg);
        }
        verdicts.push(match own.ask(&cmd).await {
            Ok(_) => Verdict::Allowed,
            Err(Refusal::Refused(line)) if line.starts_with("NOPERM") => refusal_kind(&line),
            Err(Refusal::Refused(line)) => Verdict::Unknown(line),
            Err(broken) => return Err(broken),
        });
    }
    let _ = own.ask(&redis::cmd("DISCARD")).await;
    // PSYNC can't be queued from 7.0 on. Asked to take over a failover, a server that is in none answers with an error
    // and does nothing: enough to learn whether the command is allowed.
    for (need, verdict) in needs.iter().zip(&mut verdicts) {
        if need.command == "PSYNC ? -1" && matches!(verdict, Verdict::Unknown(_)) {
            let mut cmd = redis::cmd("PSYNC");
            cmd.arg("?").arg("-1").arg("FAILOVER");
            *verdict = match own.ask(&cmd).await {
                Err(Refusal::Refused(line)) if line.starts_with("NOPERM") => Verdict::Command,
                Err(Refusal::Refused(line)) if line.contains("FAILOVER") => Verdict::Allowed,
                Err(other) => Verdict::Unknown(other.to_string()),
                Ok(_) => Verdict::Unknown("an unexpected answer".into()),
            };
        }
    }
    Ok(Some(verdicts))
}

fn judge(
    side: &SideContext,
    user: &str,
    needs: &[&Need],
    verdicts: &[Verdict],
    version: Option<(u32, u32)>,
) -> Finding {
    let name = side.name();
    let (mut grants, mut missing, mut optional) = (Vec::new(), Vec::new(), Vec::new());
    let (mut missing_writes, mut keys, mut channels) = (Vec::new(), false, false);
    for (need, verdict) in needs.iter().zip(verdicts) {
        match verdict {
            Verdict::Allowed | Verdict::Unknown(_) => {}
            Verdict::Key => keys = true,
            Verdict::Channel => channels = true,
            Verdict::Command if need.optional => optional.push(*need),
            Verdict::Command if need.sample => missing_writes.push(*need),
            Verdict::Command => {
                missing.push(need.title());
                grants.push(need.grant.to_owned());
            }
        }
    }
    if missing_writes.len() > MANY {
        missing.push(format!("{} write commands", missing_writes.len()));
        grants.push("+@write".into());
    } else {
        missing.extend(missing_writes.iter().map(|n| n.title()));
        grants.extend(missing_writes.iter().map(|n| n.grant.to_owned()));
    }
    // Where no command with a key was allowed, nothing is known of the keys: they are granted with the rest.
    let tried_keys = needs.iter().zip(verdicts).any(|(n, v)| n.has_key() && *v == Verdict::Allowed);
    if keys {
        missing.push("keys other than those of a pattern".into());
    } else if !tried_keys && !missing.is_empty() {
        keys = true;
    }
    if channels {
        missing.push("PUBLISH on channels other than those of a pattern".into());
    }
    let optional_grants = optional.iter().map(|n| n.grant).collect::<BTreeSet<_>>();
    if !missing.is_empty() {
        let mut unique: BTreeSet<&str> = grants.iter().map(String::as_str).collect();
        unique.extend(optional_grants);
        // A category that is granted brings these along.
        let whole = unique.clone();
        let brought = |g: &str| needs.iter().any(|n| n.grant == g && whole.contains(brought_by(n, version)));
        unique.retain(|g| !brought(g));
        let mut line: Vec<&str> = unique.into_iter().collect();
        line.extend(channels.then_some("&*"));
        line.extend(keys.then_some("~*"));
        return Finding::failed(
            format!("{name}: user {user} has no right to {}", missing.join(", ")),
            WHY,
            grant_remedy(side, user, &line.join(" ")),
        );
    }
    if !optional.is_empty() {
        let unknown: Vec<&str> = optional.iter().map(|n| n.unlocks).collect::<BTreeSet<_>>().into_iter().collect();
        return Finding::warning(
            format!(
                "{name}: user {user} has every right that is needed, but not {}",
                optional.iter().map(|n| n.title()).collect::<Vec<_>>().join(", ")
            ),
            format!("without these stays unknown or undone: {}", unknown.join(", ")),
            grant_remedy(side, user, &optional_grants.into_iter().collect::<Vec<_>>().join(" ")),
        );
    }
    let untold = verdicts.iter().filter(|v| matches!(v, Verdict::Unknown(_))).count();
    let tried = needs.len() - untold;
    Finding::passed(format!("{name}: user {user} has every right that is needed ({tried} commands tried, on any key)"))
}

/// The commands that the engine itself sends exist under their own names.
pub(super) async fn commands(cx: &Context) -> Result<Finding, Refusal> {
    let mut findings = Vec::new();
    for side in cx.both() {
        findings.push(match cx.job.instance(side.side).hides_shards() {
            true => proxied::rights(side),
            false => known(cx, side).await?.at(side.side),
        });
    }
    Ok(Finding::all(findings))
}

async fn known(cx: &Context, side: &SideContext) -> Result<Finding, Refusal> {
    let name = side.name();
    let needed: Vec<(&str, bool)> = wanted(cx, side.side)
        .iter()
        .filter(|n| !n.since_7 || n.optional)
        .filter_map(|n| Some((n.words().next()?, n.optional)))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let mut cmd = redis::cmd("COMMAND");
    cmd.arg("INFO");
    for (command, _) in &needed {
        cmd.arg(*command);
    }
    let replies = match side.server()?.ask(&cmd).await {
        Ok(value) => items(value),
        Err(Refusal::Refused(line)) => {
            return Ok(Finding::warning(
                format!("{name}: unknown, COMMAND INFO was answered with {line}"),
                "renamed or disabled commands stop the sync when they are first needed",
                "ask the provider whether PSYNC, REPLCONF, DUMP, RESTORE and CLIENT are there under these names",
            ));
        }
        Err(broken) => return Err(broken),
    };
    let gone = |optional: bool| -> Vec<&str> {
        let mut names: Vec<&str> = needed
            .iter()
            .zip(&replies)
            .filter(|((_, o), r)| *o == optional && !matches!(r, Value::Array(_)))
            .map(|((c, _), _)| *c)
            .filter(|c| optional || !OPTIONAL_WHERE_OLD.contains(c))
            .collect();
        names.dedup();
        names
    };
    let (required, optional) = (gone(false), gone(true));
    if !required.is_empty() {
        return Ok(Finding::failed(
            format!("{name}: renamed or disabled: {}", required.join(", ")),
            "the engine sends these commands by their own names, and other servers' streams hold them",
            format!(
                "take the lines `rename-command {} …` out of the {}'s configuration and restart it; a managed service \
                 may have a switch for PSYNC (\"replication\", \"migration\")",
                required.join(" …`, `rename-command "),
                side.side
            ),
        ));
    }
    if !optional.is_empty() {
        return Ok(Finding::warning(
            format!("{name}: renamed or disabled: {}", optional.join(", ")),
            "what these tell stays unknown",
            "nothing has to be done; look at backlog and buffers by hand",
        ));
    }
    let there = replies.iter().filter(|r| matches!(r, Value::Array(_))).count();
    Ok(Finding::passed(format!("{name}: the {there} commands that are needed are there under their own names")))
}

/// Commands that older versions do not have, and do without.
const OPTIONAL_WHERE_OLD: [&str; 3] = ["COPY", "LMOVE", "XAUTOCLAIM"];
