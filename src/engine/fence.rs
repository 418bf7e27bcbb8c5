//! One engine at a time: old connections are killed by their name before a control key is read, and the key's epoch
//! shuts out whoever comes back later.

use super::apply::control_key::ControlKey;
use super::core::parse_note;
use super::net::{Control, NetError};
use crate::model::Side;
use redis::Value;
use redis::aio::ConnectionLike;
use std::time::Duration;

/// Kills the clients whose name begins so, and waits until the server no longer lists them.
pub async fn kill_clients(control: &mut Control, name: &str) -> Result<(), NetError> {
    for _ in 0..50 {
        let list: String = match control.ask(redis::cmd("CLIENT").arg("LIST")).await {
            Ok(list) => list,
            // A proxy that has no CLIENT has no list to search; the epoch alone has to do there.
            Err(NetError::Server { .. }) => return Ok(()),
            Err(e) => return Err(e),
        };
        let mut found = false;
        for line in list.lines() {
            let field = |key: &str| line.split(' ').find_map(|f| f.strip_prefix(key)?.strip_prefix('='));
            if !field("name").is_some_and(|n| n.starts_with(name)) {
                continue;
            }
            found = true;
            if let Some(id) = field("id") {
                let _: Result<i64, NetError> = control.ask(redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id)).await;
            }
        }
        if !found {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// The control key's value as it is now.
pub async fn read_control_key(control: &mut Control, db: u32, key: &[u8]) -> Result<Option<ControlKey>, NetError> {
    let value: (Option<Vec<u8>>,) = in_db(control, db, |p| {
        p.cmd("GET").arg(key);
    })
    .await?;
    Ok(value.0.and_then(|v| ControlKey::parse(&v)))
}

/// Writes the control key by itself.
pub async fn write_control_key(control: &mut Control, db: u32, key: &[u8], value: &ControlKey) -> Result<(), NetError> {
    let mut text = bytes::BytesMut::new();
    value.write(&mut text);
    let _: (redis::Value,) = in_db(control, db, |p| {
        p.cmd("SET").arg(key).arg(&text[..]);
    })
    .await?;
    Ok(())
}

/// The open episodes that are noted at a site: (db, key, number, authority).
pub async fn read_notes(
    control: &mut Control,
    db: u32,
    key: &[u8],
) -> Result<Vec<(u32, Vec<u8>, u64, Side)>, NetError> {
    let notes: (Vec<(Vec<u8>, Vec<u8>)>,) = in_db(control, db, |p| {
        p.cmd("HGETALL").arg(key);
    })
    .await?;
    Ok(notes.0.iter().filter_map(|(f, v)| parse_note(f, v)).collect())
}

/// Deletes keys of ours.
pub async fn delete_keys(control: &mut Control, db: u32, keys: &[&[u8]]) -> Result<(), NetError> {
    let _: (redis::Value,) = in_db(control, db, |p| {
        p.cmd("DEL").arg(keys);
    })
    .await?;
    Ok(())
}

/// Asks in a database and returns to database 0, as one transaction. An error names the word that was refused.
pub async fn in_db<T: redis::FromRedisValue>(
    control: &mut Control,
    db: u32,
    commands: impl FnOnce(&mut redis::Pipeline),
) -> Result<T, NetError> {
    // The redis crate's own transactions tell only that one was discarded, not which of its words was at fault.
    let mut pipe = redis::pipe();
    pipe.cmd("MULTI");
    if db != 0 {
        pipe.cmd("SELECT").arg(db);
    }
    commands(&mut pipe);
    if db != 0 {
        pipe.cmd("SELECT").arg(0);
    }
    pipe.cmd("EXEC");
    let address = control.address().to_owned();
    let doing = "the control key";
    let values = control.req_packed_commands(&pipe, 0, pipe.len()).await;
    let mut values = values.map_err(|e| NetError::from_redis(&address, doing, &e))?;
    let refused = |place: usize, e: &redis::ServerError| {
        let name = pipe.cmd_iter().nth(place).and_then(|c| c.args_iter().next().map(name_of)).unwrap_or_default();
        NetError::from_reply(&address, &name, &format!("{} {}", e.code(), e.details().unwrap_or("")))
    };
    for (place, value) in values.iter().enumerate() {
        if let Value::ServerError(e) = value {
            return Err(refused(place, e));
        }
    }
    let Some(Value::Array(mut answers)) = values.pop() else {
        return Err(NetError::Io { address, doing: "read an answer", seen: "EXEC gave no list".into() });
    };
    for (place, value) in answers.iter().enumerate() {
        if let Value::ServerError(e) = value {
            return Err(refused(place + 1, e));
        }
    }
    if db != 0 && answers.len() >= 2 {
        answers.remove(0);
        answers.pop();
    }
    T::from_redis_value(Value::Array(answers)).map_err(|e| NetError::from_redis(&address, doing, &e.into()))
}

fn name_of(word: redis::Arg<&[u8]>) -> String {
    match word {
        redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    }
}
