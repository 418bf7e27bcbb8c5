//! One-way jobs: asks the source for the states of keys that the stream's words can't carry.
//!
//! DUMP, the expiry and the stream's offset come from one transaction, so the state has an exact place among the
//! changes; [`crate::engine::core::carry`] puts it there. It owns one connection to the source, made when the first key
//! is wanted.

use crate::engine::apply::replies::{GONE, State};
use crate::engine::core::Shared;
use crate::engine::core::carry::Key;
use crate::engine::events::EventSink;
use crate::engine::net::{Control, Dialer, NetError};
use crate::model::{Direction, EventKind, Severity};
use crate::wire::dialect::Dialect;
use bytes::Bytes;
use futures::StreamExt;
use redis::Value;
use std::sync::Arc;
use std::time::Duration;

/// A value of some 100 MB takes a source about a second to put together.
const PATIENCE: Duration = Duration::from_secs(60);
/// So many keys are asked for without waiting for answers, or a slow line would keep each for a round trip; those that follow
/// a longer value, one by one, since each is held until its place comes.
const AT_ONCE: usize = 64;
const AT_ONCE_FIRST: usize = 8;
const SMALL: usize = 64 << 10;
const AGAIN_FIRST: Duration = Duration::from_millis(500);
const AGAIN_MOST: Duration = Duration::from_secs(30);

/// Asks for ever.
pub async fn ask(shared: Arc<Shared>, events: EventSink, dialer: Dialer, address: String, source: Dialect) {
    let (mut again, mut told) = (AGAIN_FIRST, false);
    let bell = shared.lock().carry_bell.clone();
    let mut control: Option<Control> = None;
    let mut at_once = AT_ONCE_FIRST;
    loop {
        let due = {
            let mut core = shared.lock();
            let now = shared.now_ms();
            core.set_now(now);
            core.carry.ask(now)
        };
        let keys = match due {
            Ok(keys) => keys,
            Err(wait) => {
                let wait = wait.map_or(Duration::from_secs(1), Duration::from_millis);
                // States wait for the stream: when some are placed there is room to ask for more.
                let _ = tokio::time::timeout(wait, bell.notified()).await;
                continue;
            }
        };
        let connected = match &control {
            Some(known) => Ok(known.clone()),
            None => connect(&dialer, &address).await,
        };
        let mut failed = None;
        match connected {
            Ok(connection) => {
                let mut longest = 0;
                let asked = keys.into_iter().map(|key| {
                    let (connection, address) = (connection.clone(), &*address);
                    async move { (one(connection, address, source, &key).await, key) }
                });
                // In their order: the stream comes past what was asked for first, first.
                let mut answers = futures::stream::iter(asked).buffered(at_once);
                while let Some((answer, key)) = answers.next().await {
                    let answer = answer.map_err(|e| failed = Some(e.to_string())).ok();
                    let size = answer.as_ref().and_then(|(state, _)| state.dump.as_ref()).map_or(0, Bytes::len);
                    longest = longest.max(size);
                    {
                        let mut core = shared.lock();
                        core.set_now(shared.now_ms());
                        core.carried(std::slice::from_ref(&key), answer.map(|(state, at)| (vec![state], at)));
                    }
                    shared.wake_writers();
                }
                at_once = if longest <= SMALL { (at_once * 2).min(AT_ONCE) } else { 1 };
                control = Some(connection.clone());
            }
            Err(e) => {
                let mut core = shared.lock();
                core.set_now(shared.now_ms());
                core.carried(&keys, None);
                failed = Some(e.to_string());
            }
        }
        let Some(why) = failed else {
            (again, told) = (AGAIN_FIRST, false);
            continue;
        };
        tracing::warn!(%address, why, "a key's state could not be had; asking again");
        // Once is the network; a second time somebody may have to do something.
        if again > AGAIN_FIRST && !told {
            told = true;
            let text = format!("some keys go to the target as whole values, and these can't be had: {why}");
            events.emit(Some(Direction::Forward), Severity::Error, EventKind::ApplyError, text);
        }
        control = None;
        tokio::time::sleep(again).await;
        again = (again * 2).min(AGAIN_MOST);
    }
}

async fn connect(dialer: &Dialer, address: &str) -> Result<Control, NetError> {
    let mut fresh = dialer.control(address).await?;
    fresh.set_response_timeout(PATIENCE);
    Ok(fresh)
}

async fn one(
    mut connection: Control,
    address: &str,
    source: Dialect,
    (db, key): &Key,
) -> Result<(State, u64), NetError> {
    let values: Vec<Value> = crate::engine::fence::in_db(&mut connection, *db, |pipe| {
        pipe.cmd("DUMP").arg(&key[..]);
        if source.speaks_redis(7, 0) {
            pipe.cmd("PEXPIRETIME").arg(&key[..]);
        } else {
            pipe.cmd("PTTL").arg(&key[..]).cmd("TIME");
        }
        pipe.cmd("INFO").arg("replication");
    })
    .await?;
    read(values).ok_or_else(|| odd(address))
}

fn odd(address: &str) -> NetError {
    let seen = "an answer that does not fit DUMP and INFO in a transaction".to_owned();
    NetError::Io { address: address.to_owned(), doing: "read a key's state", seen }
}

/// The replies to DUMP, PEXPIRETIME (or PTTL and TIME) and INFO.
fn read(values: Vec<Value>) -> Option<(State, u64)> {
    let info = match values.last()? {
        Value::BulkString(text) => String::from_utf8_lossy(text).into_owned(),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => text.clone(),
        _ => return None,
    };
    let offset = info.lines().find_map(|l| l.strip_prefix("master_repl_offset:"))?.trim().parse().ok()?;
    let mut values = values.into_iter();
    let dump = match values.next()? {
        Value::BulkString(payload) => Some(Bytes::from(payload)),
        Value::Nil => None,
        _ => return None,
    };
    let Value::Int(ttl) = values.next()? else { return None };
    let dump = dump.filter(|_| ttl != GONE);
    let now = match values.next()? {
        Value::Array(time) => {
            let part = |n: usize| match time.get(n) {
                Some(Value::BulkString(text)) => atoi::atoi::<u64>(text),
                Some(Value::Int(n)) => u64::try_from(*n).ok(),
                _ => None,
            };
            part(0)? * 1000 + part(1)? / 1000
        }
        _ => 0,
    };
    let expire_at_ms = u64::try_from(ttl).ok().map(|t| t + now);
    Some((State { dump, expire_at_ms }, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn both_forms_of_the_expiry_are_read() {
        let info = || bulk("# Replication\r\nrole:master\r\nmaster_repl_offset:1234\r\nmaster_replid:x\r\n");
        let state = |at| State { dump: Some(Bytes::from_static(b"d")), expire_at_ms: at };
        assert_eq!(read(vec![bulk("d"), Value::Int(5_000), info()]), Some((state(Some(5_000)), 1234)));
        assert_eq!(read(vec![bulk("d"), Value::Int(-1), info()]), Some((state(None), 1234)));
        let time = Value::Array(vec![bulk("7"), bulk("250999")]);
        assert_eq!(read(vec![bulk("d"), Value::Int(50), time, info()]), Some((state(Some(7_300)), 1234)));
        let gone = State { dump: None, expire_at_ms: None };
        let time = Value::Array(vec![bulk("7"), bulk("250999")]);
        let expired_meanwhile = vec![bulk("d"), Value::Int(-2), time, info()];
        assert_eq!(read(expired_meanwhile), Some((gone.clone(), 1234)));
        assert_eq!(read(vec![Value::Nil, Value::Int(-2), info()]), Some((gone, 1234)));
        assert_eq!(read(vec![bulk("d"), Value::Int(-1), bulk("nothing")]), None);
        assert_eq!(read(vec![]), None);
    }
}
