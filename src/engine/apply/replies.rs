//! Replies to transactions, matched to their items. Sans-IO: bytes go in, transactions that were answered come out.

use super::outbox::{Item, ItemKind};
use super::transaction::{Outcome, Transaction};
use crate::engine::arbiter::Token;
use crate::engine::arbiter::classify::Reveals;
use crate::engine::net::ServerError;
use crate::wire::resp::{Reply, ReplyReader, RespError};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// What a reply told beyond "done".
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// The command at this place of the item failed, or its reply shows a difference.
    Differs { item: usize, index: u32, reply: String },
    /// The commands at these places of the item gave keys another expiry, or none, so late that those may have run out at the
    /// site before.
    Renewed { item: usize, commands: Vec<u32> },
    /// The command at this place of the item answered nil, which need not mean anything.
    Nil { item: usize, index: u32 },
    /// A DEL at this place of the item found fewer keys than it names.
    DeletedFewer { item: usize, index: u32 },
    /// A restore failed: the key is not settled.
    RestoreFailed { item: usize, token: Token, reply: String },
    /// The state that a token asked for.
    State(Token, State),
    /// When the keys that were asked for expire.
    Expiries(u64, Vec<Option<u64>>),
    /// One of our notes failed; to be logged.
    NoteFailed { reply: String },
}

/// A key's value and expiry, as its site had them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The DUMP payload; `None`: no such key.
    pub dump: Option<Bytes>,
    /// Milliseconds since the Unix epoch by the site's clock; `None`: no expiry.
    pub expire_at_ms: Option<u64>,
}

/// Follows the replies of one connection.
#[derive(Debug, Default)]
pub struct Replies {
    reader: ReplyReader,
    /// Replies to the transaction at the front of the window that have been read.
    seen: u32,
    /// The first error among them.
    error: Option<String>,
}

/// An answer that fits nothing that was sent.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    #[error(transparent)]
    Resp(#[from] RespError),
    #[error("the server sent {0:?} where the reply to a transaction was due")]
    Unexpected(String),
    #[error("the server sent a reply that nothing had asked for")]
    Unasked,
}

impl ReplyError {
    fn unexpected(reply: &Reply<'_>) -> Self {
        ReplyError::Unexpected(format!("{reply:?}").chars().take(120).collect())
    }
}

impl Replies {
    /// Where a socket's bytes go.
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.reader.buffer()
    }

    /// Takes replies until the next transaction of the window is answered; gives its place in the window and what was
    /// found. Answered transactions stay where they are, with their outcome. `came_late`: an item's changes were applied long
    /// after they were made.
    pub fn next(
        &mut self,
        window: &mut VecDeque<Transaction>,
        findings: &mut Vec<Finding>,
        came_late: impl Fn(&Item) -> bool,
    ) -> Result<Option<usize>, ReplyError> {
        let place = window.iter().position(|t| t.outcome == Outcome::Pending);
        if let Some(transaction) = place.and_then(|p| window.get_mut(p)) {
            // By far the most replies say the same.
            if transaction.alone && self.reader.skip(b"+OK\r\n", 1) == 1 {
                transaction.outcome = Outcome::Applied;
                return Ok(place);
            }
            for same in [&b"+OK\r\n"[..], b"+QUEUED\r\n"].into_iter().filter(|_| !transaction.alone) {
                let left = (transaction.queued + 1).saturating_sub(self.seen);
                self.seen += self.reader.skip(same, left as usize) as u32;
            }
        }
        while let Some(reply) = self.reader.next_reply()? {
            let Some(transaction) = place.and_then(|p| window.get_mut(p)) else { return Err(ReplyError::Unasked) };
            if transaction.alone {
                transaction.outcome = match reply {
                    Reply::Simple(_) => Outcome::Applied,
                    Reply::Error(e) => Outcome::Refused(String::from_utf8_lossy(e).into_owned()),
                    other => return Err(ReplyError::unexpected(&other)),
                };
                return Ok(place);
            }
            // MULTI and each queued command answer before EXEC does.
            if self.seen <= transaction.queued {
                match reply {
                    Reply::Simple(_) => {}
                    Reply::Error(e) => {
                        if self.error.is_none() {
                            self.error = Some(String::from_utf8_lossy(e).into_owned());
                        }
                    }
                    other => return Err(ReplyError::unexpected(&other)),
                }
                self.seen += 1;
                continue;
            }
            self.seen = 0;
            let first = self.error.take();
            match reply {
                Reply::Array(elements) if first.is_none() => {
                    // Errors and nil have a minus sign.
                    let plain = transaction.items.iter().all(Item::is_plain);
                    let told = elements.as_bytes();
                    // To a cluster's the key that never is adds one nil: behind the control key, or before what sets that too.
                    let told = told.strip_prefix(b"+OK\r\n").unwrap_or(told);
                    let told = told.strip_prefix(b"$-1\r\n").unwrap_or(told);
                    if !plain || memchr::memchr(b'-', told).is_some() {
                        look_through(transaction, elements, findings, &came_late);
                    }
                    transaction.outcome = Outcome::Applied;
                }
                Reply::Error(e) => {
                    let text = first.unwrap_or_else(|| String::from_utf8_lossy(e).into_owned());
                    transaction.outcome = Outcome::Refused(text);
                }
                other => return Err(ReplyError::unexpected(&other)),
            }
            return Ok(place);
        }
        Ok(None)
    }
}

fn look_through<'a>(
    transaction: &Transaction,
    mut elements: impl Iterator<Item = Reply<'a>>,
    findings: &mut Vec<Finding>,
    came_late: &impl Fn(&Item) -> bool,
) {
    let mut at = 0u32;
    for (n_item, item) in transaction.items.iter().enumerate() {
        let n = n_item;
        for _ in at..transaction.first_reply[n] {
            let _ = elements.next();
        }
        at = transaction.first_reply[n] + item.commands;
        let mut telltales = item.telltales.iter().peekable();
        let mut values: Vec<Reply<'a>> = Vec::new();
        let (mut renewed, mut late) = (Vec::new(), None);
        for index in 0..item.commands {
            let Some(reply) = elements.next() else { return };
            let telltale = telltales.next_if(|t| t.index == index).map(|t| t.reveals);
            let text = |e: &[u8]| String::from_utf8_lossy(e).into_owned();
            match (&item.kind, reply) {
                (ItemKind::Ask(_) | ItemKind::Expiries(_), reply) => values.push(reply),
                (ItemKind::Merge, Reply::Error(e)) if e.starts_with(b"BUSYKEY") => {}
                (ItemKind::Changes | ItemKind::Merge | ItemKind::Sweeping, Reply::Error(e)) => {
                    findings.push(Finding::Differs { item: n, index, reply: text(e) });
                }
                (ItemKind::Restore(token), Reply::Error(e)) => {
                    findings.push(Finding::RestoreFailed { item: n, token: *token, reply: text(e) });
                }
                (ItemKind::Notes | ItemKind::AllNotes, Reply::Error(e)) => {
                    findings.push(Finding::NoteFailed { reply: text(e) })
                }
                (_, Reply::Int(0)) if matches!(telltale, Some(Reveals::Zero | Reveals::Renewal)) => {
                    findings.push(Finding::Differs { item: n, index, reply: "0".into() });
                }
                (_, Reply::Int(_))
                    if telltale == Some(Reveals::Renewal) && *late.get_or_insert_with(|| came_late(item)) =>
                {
                    renewed.push(index);
                }
                (_, Reply::Int(n)) if matches!(telltale, Some(Reveals::Fewer(keys)) if n < i64::from(keys)) => {
                    findings.push(Finding::DeletedFewer { item: n_item, index });
                }
                (_, Reply::Null) if telltale == Some(Reveals::Nil) => {
                    findings.push(Finding::Differs { item: n, index, reply: "nil".into() });
                }
                (ItemKind::Changes, Reply::Null) if telltale.is_none() => {
                    findings.push(Finding::Nil { item: n, index });
                }
                _ => {}
            }
        }
        if !renewed.is_empty() {
            findings.push(Finding::Renewed { item: n, commands: renewed });
        }
        if let ItemKind::Ask(token) = item.kind {
            findings.push(Finding::State(token, state(&values)));
        }
        if let ItemKind::Expiries(question) = item.kind {
            findings.push(Finding::Expiries(question, expiries(&values)));
        }
    }
}

/// What PTTL and PEXPIRETIME say of a key that is not there. Before 7.0 the clock goes on within a transaction, so a key may
/// expire between its DUMP and this: restored with "no expiry" it would stay for ever.
pub const GONE: i64 = -2;

/// DUMP, then PEXPIRETIME alone, or PTTL and TIME before 7.0.
fn state(values: &[Reply<'_>]) -> State {
    let ttl = values.get(1).and_then(Reply::int);
    let dump = match values.first() {
        Some(Reply::Bulk(b)) if ttl != Some(GONE) => Some(Bytes::copy_from_slice(b)),
        _ => None,
    };
    let ttl = ttl.and_then(|t| u64::try_from(t).ok());
    let now = values.get(2).and_then(time);
    State { dump, expire_at_ms: ttl.map(|t| t + now.unwrap_or(0)) }
}

/// PEXPIRETIME of some keys, or PTTL of them and TIME.
fn expiries(values: &[Reply<'_>]) -> Vec<Option<u64>> {
    let now = values.last().and_then(time);
    let keys = values.len() - usize::from(now.is_some());
    let at = |r: &Reply<'_>| r.int().and_then(|t| u64::try_from(t).ok()).map(|t| t + now.unwrap_or(0));
    values[..keys].iter().map(at).collect()
}

/// The reply to TIME, in milliseconds.
fn time(reply: &Reply<'_>) -> Option<u64> {
    let mut parts = reply.elements()?;
    let mut part = || parts.next().and_then(|r| r.int()).unwrap_or(0).max(0) as u64;
    let seconds = part();
    Some(seconds * 1000 + part() / 1000)
}

/// What a refusal means for the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It goes away without anybody's doing: wait.
    Passing,
    /// Somebody has to mend it; it is tried again until then.
    Standing,
    /// This server will never take one of the commands: not the transaction, but that command is at fault.
    Command,
}

impl Refusal {
    pub fn of(text: &str) -> Refusal {
        match ServerError::classify(text) {
            ServerError::UnknownCommand | ServerError::CrossSlot => Refusal::Command,
            ServerError::Other if text.starts_with("ERR") && !text.contains("MULTI") => Refusal::Command,
            kind if kind.passes_by_itself() => Refusal::Passing,
            _ => Refusal::Standing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_expires_between_the_two_looks_at_it_is_gone() {
        let state_of = |ttl: i64| state(&[Reply::Bulk(b"payload"), Reply::Int(ttl)]);
        let held = Some(Bytes::from_static(b"payload"));
        assert_eq!(state_of(GONE), State { dump: None, expire_at_ms: None });
        assert_eq!(state_of(-1), State { dump: held.clone(), expire_at_ms: None });
        assert_eq!(state_of(70), State { dump: held, expire_at_ms: Some(70) });
    }
}
