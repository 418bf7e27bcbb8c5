//! What can be told of a cluster behind a proxy, and what the proxy refuses.

use super::{Context, Finding, SideContext};
use crate::{
    engine::probe::server::{Refusal, Server},
    model::{ExistingKeys, Side},
};
use redis::Value;

/// A key of ours in some slot; it is only asked for.
const PROBE: &str = "duplex:probe{a}";

const WHY: &str = "each batch of changes is one transaction in one slot that holds its position too: without it a crash would lose \
                   changes or apply them twice";

/// What is written through it, with arguments to queue it by; nothing of it is run.
const WRITTEN: [&[&str]; 9] = [
    &["SET", PROBE, "v"],
    &["DEL", PROBE],
    &["UNLINK", PROBE],
    &["PEXPIREAT", PROBE, "1"],
    &["RESTORE", PROBE, "0", "x"],
    &["HSET", PROBE, "f", "v"],
    &["HDEL", PROBE, "f"],
    &["HMGET", PROBE, "f"],
    &["DUMP", PROBE],
];

/// Whether the proxy takes what is written: transactions of one slot, and in them these commands.
pub(super) async fn takes_writes(side: &SideContext, address: &str) -> Finding {
    let name = format!("{} {address}", side.side);
    let server = match side.dialer.control(address).await {
        Ok(conn) => Server::new(conn),
        Err(e) => {
            let (seen, remedy) = e.parts();
            return Finding::failed(format!("{name}: {seen}"), WHY, remedy);
        }
    };
    let refused = |what: &str, line: &str| {
        Finding::failed(
            format!("{name}: the proxy refuses {what}: {line}"),
            WHY,
            format!(
                "let the proxy pass {what}; where it can't, name the cluster's own nodes as the {}'s address, with \
                 `topology = \"cluster\"`",
                side.side
            ),
        )
    };
    // A transaction that is run, and changes nothing.
    for (step, words) in [&["MULTI"][..], &["GET", PROBE], &["EXEC"]].into_iter().enumerate() {
        match (step, ask(&server, words).await) {
            (2, Ok(Value::Array(_))) | (0 | 1, Ok(_)) => {}
            (_, Ok(other)) => return refused(words[0], &format!("it answers {other:?}")),
            (_, Err(refusal)) => return refused(words[0], &refusal.to_string()),
        }
    }
    let mut missing = Vec::new();
    for words in WRITTEN {
        for step in [&["MULTI"][..], words, &["DISCARD"]] {
            match ask(&server, step).await {
                Ok(_) => {}
                Err(Refusal::Refused(line)) if step == words => missing.push((words[0], line)),
                Err(refusal) => return refused(step[0], &refusal.to_string()),
            }
        }
    }
    // Before 7.0 there are no absolute times: the server's clock is asked for with what a key has left.
    let old = ask(&server, &["PEXPIRETIME", PROBE]).await.is_err();
    for step in [&["MULTI"][..], &["TIME"], &["DISCARD"]].into_iter().filter(|_| old) {
        match ask(&server, step).await {
            Err(Refusal::Refused(line)) if step == ["TIME"] => missing.push(("PEXPIRETIME and TIME", line)),
            Err(refusal) => return refused(step[0], &refusal.to_string()),
            Ok(_) => {}
        }
    }
    match missing.first() {
        Some((_, line)) => {
            let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
            refused(&names.join(", "), line)
        }
        None => Finding::passed(format!(
            "{name}: a proxy that takes transactions of one slot; each is answered before the next is sent"
        )),
    }
}

async fn ask(server: &Server, words: &[&str]) -> Result<Value, Refusal> {
    let mut cmd = redis::cmd(words[0]);
    for word in &words[1..] {
        cmd.arg(*word);
    }
    server.ask(&cmd).await
}

/// Of the keys behind a proxy nothing is known.
pub(super) fn target_empty(cx: &Context) -> Finding {
    let name = cx.side(Side::Target).name();
    match cx.job.policy.existing_keys {
        ExistingKeys::Block => Finding::failed(
            format!("{name}: whether the target is empty can't be told through a proxy"),
            "the job is to start only at an empty target, so that nothing there is written over",
            "look at DBSIZE of each master behind the proxy; where all are empty, or their keys may be written over, set \
             `existing_keys = \"ignore\"`",
        ),
        ExistingKeys::Ignore => Finding::warning(
            format!("{name}: which keys it holds can't be told through a proxy"),
            "keys of the same names are written over, others stay at the target alone",
            "nothing has to be done if the target is empty, or may lose them",
        ),
        ExistingKeys::Merge => Finding::passed(format!("{name}: keys that it holds stay as they are")),
    }
    .at(Side::Target)
}

/// The rights behind a proxy are those of its own account at the servers.
pub(super) fn rights(side: &SideContext) -> Finding {
    Finding::passed(format!(
        "{}: behind a proxy; what it takes is tried by the item topology, what the servers take shows when it is written",
        side.name()
    ))
    .at(side.side)
}

/// What a proxy does not tell.
pub(super) fn untold(line: &str) -> Finding {
    Finding::warning(
        format!("unknown: the proxy answered {line}"),
        "what a proxy does not tell can't be judged",
        "look at this by hand at the servers behind the proxy, or name them: `shards = [\"host:port\", …]`",
    )
}
