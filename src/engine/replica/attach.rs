//! The handshake: from a dialled connection to the answer of PSYNC.

use crate::engine::net::{Conversation, Dialer, Lineage, NetError, RawStream, ServerError, ServerInfo, Token};
use crate::model::{Offset, ReplId};
use crate::wire::dialect::{Dialect, Flavor};
use bytes::BytesMut;
use std::time::Duration;

/// The server's default for `repl-timeout`, where we may not ask.
const REPL_TIMEOUT: Duration = Duration::from_secs(60);

/// What is asked of the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// On from here.
    Position(ReplId, Offset),
    /// From the master's present position, as its INFO tells it.
    Current,
    Full {
        keep: bool,
    },
}

/// What the master answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The stream goes on right behind `at`.
    Continue { replid: ReplId, at: Offset },
    /// A snapshot comes; the stream behind it starts at the offset.
    Full { replid: ReplId, offset: Offset },
    /// It has not got the position, and was not asked for it: that would have made it fork for nothing.
    Lost { replid: ReplId, offset: Offset },
}

/// A connection on which the master now sends.
#[derive(Debug)]
pub(super) struct Attached {
    pub stream: RawStream,
    /// What came behind the answer.
    pub buffer: BytesMut,
    pub answer: Answer,
    /// Longer silence than this means that the master is gone: its `repl-timeout`.
    pub silence: Duration,
}

/// Speaks the handshake. The order and what may fail follow `syncWithMaster` of replication.c.
pub(super) async fn attach(
    dialer: &Dialer,
    address: &str,
    want: Want,
    allow_full: bool,
    dialect: Option<Dialect>,
    handshaking: impl FnOnce(),
) -> Result<Attached, NetError> {
    let mut talk = dialer.begin(address).await?;
    handshaking();
    let wait = dialer.deadlines().response;
    // Shown by INFO replication at the master; nothing listens there, so nobody can take us for a replica to promote.
    let port = talk.stream().local_addr().map(|a| a.port()).unwrap_or(0).to_string();
    // In one go: over a slow line each question by itself costs its round trip.
    let announced = |dialect: Option<Dialect>| {
        dialect.filter(|_| may_get_a_snapshot(want, allow_full)).and_then(version_to_announce)
    };
    let guessed = announced(dialect);
    let version: [&[u8]; 3] = [b"REPLCONF", b"version", guessed.as_deref().unwrap_or_default().as_bytes()];
    let questions: [&[&[u8]]; 6] = [
        &[b"PING"],
        &[b"INFO"],
        &[b"CONFIG", b"GET", b"repl-timeout"],
        &[b"REPLCONF", b"listening-port", port.as_bytes()],
        &[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"],
        &version,
    ];
    let known = usize::from(guessed.is_some());
    talk.send_all(&questions[..5 + known], wait).await?;
    // A user without the right to PING may still replicate; a server that loads may not.
    if let Token::Error(text) = talk.token(wait).await?
        && ServerError::classify(&text) != ServerError::NoPerm
    {
        return Err(NetError::from_reply(address, "PING", &text));
    }
    let info = read_info(&mut talk, wait).await?;
    let silence = read_repl_timeout(&mut talk, wait).await?.unwrap_or(REPL_TIMEOUT);
    for _ in 0..2 + known {
        read_replconf(&mut talk, wait).await?;
    }

    if let (Want::Position(replid, offset), Some(info), false) = (want, &info, allow_full)
        && let Some((replid, now)) = certainly_lost(info, replid, offset)
    {
        if !info.is_master() {
            // Its master may have it still, or it is not there yet.
            return Err(NetError::Server {
                address: address.to_owned(),
                doing: "PSYNC".into(),
                kind: ServerError::NoMasterLink,
                seen: format!(
                    "this replica is at offset {now} of history {replid} and has not got the stream behind {offset}"
                ),
            });
        }
        let offset = now;
        let (stream, buffer) = talk.into_parts();
        return Ok(Attached { stream, buffer, answer: Answer::Lost { replid, offset }, silence });
    }
    let position = match want {
        Want::Position(replid, offset) => Some((replid, offset)),
        Want::Current => info.as_ref().and_then(|i| i.replid.zip(i.master_repl_offset)),
        Want::Full { .. } => None,
    };
    let (id, from) = match position {
        Some((replid, offset)) => (replid.to_string(), offset.plus(1).to_string()),
        None => ("?".to_owned(), "-1".to_owned()),
    };
    if let Some(version) = announced(info.and_then(|i| i.dialect)).filter(|v| guessed.as_ref() != Some(v)) {
        talk.send(&[b"REPLCONF", b"version", version.as_bytes()], wait).await?;
        read_replconf(&mut talk, wait).await?;
    }
    // By itself: a server refuses PSYNC while an answer to something before it has not been sent.
    talk.send(&[b"PSYNC", id.as_bytes(), from.as_bytes()], wait).await?;
    // It may wait for other replicas (repl-diskless-sync-delay), with a newline each second.
    let line = talk.line(silence.max(wait)).await?;
    let answer = read_answer(address, &line, position)?;
    let (stream, buffer) = talk.into_parts();
    Ok(Attached { stream, buffer, answer, silence })
}

/// By the server's own account, PSYNC from this position would be answered with a snapshot. Gives where it is itself.
fn certainly_lost(info: &ServerInfo, replid: ReplId, offset: Offset) -> Option<(ReplId, Offset)> {
    let (lineage, now) = (Lineage::of(info)?, info.master_repl_offset?);
    let (first, length) = (info.backlog_first?, info.backlog_histlen?);
    let next = offset.0 + 1;
    let kept = info.backlog_active && next >= first && next <= first + length;
    (!kept || !lineage.holds(replid, offset)).then_some((lineage.replid, now))
}

async fn read_info(talk: &mut Conversation, wait: Duration) -> Result<Option<ServerInfo>, NetError> {
    match talk.token(wait).await? {
        Token::Bulk(text) => Ok(Some(ServerInfo::parse(&String::from_utf8_lossy(&text)))),
        Token::Error(text) if ServerError::classify(&text) == ServerError::NoPerm => Ok(None),
        Token::Error(text) => Err(NetError::from_reply(talk.address(), "INFO", &text)),
        _ => Ok(None),
    }
}

async fn read_repl_timeout(talk: &mut Conversation, wait: Duration) -> Result<Option<Duration>, NetError> {
    let Token::Array(count) = talk.token(wait).await? else { return Ok(None) };
    let mut last = Token::Nil;
    for _ in 0..count {
        last = talk.token(wait).await?;
    }
    let Token::Bulk(text) = last else { return Ok(None) };
    let seconds = std::str::from_utf8(&text).ok().and_then(|t| t.parse::<u64>().ok());
    // A master with repl-timeout 1 would make us give up between two of its pings.
    Ok(seconds.map(|s| Duration::from_secs(s.clamp(12, 3600))))
}

/// Older servers don't know every word; only a missing right is an error.
async fn read_replconf(talk: &mut Conversation, wait: Duration) -> Result<(), NetError> {
    match talk.token(wait).await? {
        Token::Error(text) if ServerError::classify(&text) == ServerError::NoPerm => {
            Err(NetError::from_reply(talk.address(), "REPLCONF", &text))
        }
        _ => Ok(()),
    }
}

/// Who announces a version from 8.0 on counts as a node of a Valkey cluster's shard: `CLUSTER SETSLOT` is refused (NOREPLICAS) unless
/// each of them acknowledges it within two seconds, and we acknowledge what has been applied at the other site. So nothing is
/// announced where nothing but the stream is to come.
fn may_get_a_snapshot(want: Want, allow_full: bool) -> bool {
    allow_full || !matches!(want, Want::Position(..))
}

/// Valkey 9 writes a snapshot in the version of who asks: without one an old one, in which a hash field's expiry has
/// no words, and the full sync fails. We announce the server's own.
fn version_to_announce(dialect: Dialect) -> Option<String> {
    let (major, minor, patch) = dialect.version;
    (dialect.flavor == Flavor::Valkey && major >= 9).then(|| format!("{major}.{minor}.{patch}"))
}

/// Reads `+CONTINUE [replid]`, `+FULLRESYNC replid offset`, or an error.
fn read_answer(address: &str, line: &str, asked: Option<(ReplId, Offset)>) -> Result<Answer, NetError> {
    if let Some(error) = line.strip_prefix('-') {
        return Err(NetError::from_reply(address, "PSYNC", error));
    }
    let strange = || NetError::Server {
        address: address.to_owned(),
        doing: "PSYNC".into(),
        kind: ServerError::Other,
        seen: line.chars().take(200).collect(),
    };
    let mut words = line.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("+CONTINUE"), replid, _) => {
            let (known, at) = asked.ok_or_else(strange)?;
            let replid = replid.map_or(Ok(known), |r| r.parse().map_err(|_| strange()))?;
            Ok(Answer::Continue { replid, at })
        }
        (Some("+FULLRESYNC"), Some(replid), Some(offset)) => Ok(Answer::Full {
            replid: replid.parse().map_err(|_| strange())?,
            offset: Offset(offset.parse().map_err(|_| strange())?),
        }),
        _ => Err(strange()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "8a2b1c4d5e6f708192a3b4c5d6e7f8091a2b3c4d";
    const B: &str = "00000000000000000000000000000000000000bb";

    #[test]
    fn answers_are_read() {
        let (a, b): (ReplId, ReplId) = (A.parse().unwrap(), B.parse().unwrap());
        let asked = Some((a, Offset(7)));
        let same = Ok(Answer::Continue { replid: a, at: Offset(7) });
        assert_eq!(read_answer("h:1", "+CONTINUE", asked), same);
        let failover = Ok(Answer::Continue { replid: b, at: Offset(7) });
        assert_eq!(read_answer("h:1", &format!("+CONTINUE {B}"), asked), failover);
        let full = Ok(Answer::Full { replid: b, offset: Offset(0) });
        assert_eq!(read_answer("h:1", &format!("+FULLRESYNC {B} 0"), asked), full);
    }

    #[test]
    fn strange_answers_are_errors() {
        for line in ["", "+CONTINUE", "+FULLRESYNC x 1", "+OK", &format!("+FULLRESYNC {A} -1")] {
            assert!(read_answer("h:1", line, None).is_err(), "{line:?}");
        }
        let e = read_answer("h:1", "-NOPERM this user has no permissions to run the 'psync' command", None);
        assert!(matches!(e, Err(NetError::NoPermission { .. })), "{e:?}");
        let e = read_answer("h:1", "-NOMASTERLINK Can't SYNC while not connected with my master", None).unwrap_err();
        assert!(!e.needs_a_person());
    }

    #[test]
    fn a_version_is_announced_only_where_a_snapshot_may_come() {
        let position = Want::Position("1".repeat(40).parse().expect("a name"), Offset(7));
        assert!(!may_get_a_snapshot(position, false));
        assert!(may_get_a_snapshot(position, true));
        assert!(may_get_a_snapshot(Want::Current, false));
        assert!(may_get_a_snapshot(Want::Full { keep: true }, false));
    }

    #[test]
    fn only_valkey_9_is_told_a_version() {
        assert_eq!(version_to_announce(Dialect::valkey(9, 1)).as_deref(), Some("9.1.0"));
        assert_eq!(version_to_announce(Dialect::valkey(8, 1)), None);
        assert_eq!(version_to_announce(Dialect::redis(8, 6)), None);
    }
}
