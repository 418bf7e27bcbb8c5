//! When keys expire, by what a server says. Where it knows no absolute times (before 7.0), what is left is asked between two
//! looks at its clock.

use super::TRIES;
use crate::engine::core::expiries::BATCH;
use crate::engine::fence::in_db;
use crate::engine::net::{Control, NetError};
use crate::wire::dialect::Dialect;
use redis::FromRedisValue;

/// When keys expire.
pub async fn times(
    control: &mut Control,
    db: u32,
    keys: &[Box<[u8]>],
    dialect: Dialect,
) -> Result<Vec<Option<u64>>, NetError> {
    let positive = |reply: &redis::Value| i64::from_redis_value_ref(reply).ok().and_then(|t| u64::try_from(t).ok());
    if dialect.speaks_redis(7, 0) {
        let replies: Vec<redis::Value> = in_db(control, db, |pipe| {
            for key in keys {
                pipe.cmd("PEXPIRETIME").arg(&key[..]);
            }
        })
        .await?;
        return Ok(replies.iter().map(positive).collect());
    }
    let time = |reply: Option<&redis::Value>| {
        let (seconds, micros) = <(u64, u64)>::from_redis_value_ref(reply?).ok()?;
        Some(seconds * 1000 + micros / 1000)
    };
    let mut said = vec![None; keys.len()];
    let mut parts: Vec<usize> = (0..keys.len().div_ceil(BATCH)).collect();
    // Where a server was held up between the time and what is left, it is asked again.
    for _ in 0..TRIES {
        let of = |part: usize| part * BATCH..keys.len().min((part + 1) * BATCH);
        let replies: Vec<redis::Value> = in_db(control, db, |pipe| {
            for part in &parts {
                pipe.cmd("TIME");
                for key in &keys[of(*part)] {
                    pipe.cmd("PTTL").arg(&key[..]);
                }
                pipe.cmd("TIME");
            }
        })
        .await?;
        let mut replies = replies.iter();
        let mut again = Vec::new();
        for part in parts {
            let Some(begun) = time(replies.next()) else { return Ok(said) };
            for (said, reply) in said[of(part)].iter_mut().zip(replies.by_ref()) {
                *said = positive(reply).map(|left| left + begun);
            }
            let Some(ended) = time(replies.next()) else { return Ok(said) };
            if ended.saturating_sub(begun) > 1 {
                again.push(part);
            }
        }
        parts = again;
        if parts.is_empty() {
            break;
        }
    }
    Ok(said)
}
