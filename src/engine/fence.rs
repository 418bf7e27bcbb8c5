//! One engine at a time: old connections are killed by their name before a control key is read, and the key's epoch
//! shuts out whoever comes back later.

mod look;
pub mod pages;

pub use look::{Asked, Left, Look, Note, Opened, look, open, open_again, shut_out};

use super::apply::control_key::ControlKey;
use super::core::parse_note;
use super::net::{Control, NetError};
use super::strand::{Names, StrandId};
use redis::Value;
use redis::aio::ConnectionLike;
use std::collections::BTreeSet;

/// Kills the clients whose name begins with one of these, and waits until the server no longer lists them. The asking
/// connection itself has to bear another name: nobody kills itself, and it would be waited for in vain.
pub async fn kill_clients(control: &mut Control, names: &[&str]) -> Result<(), NetError> {
    let mut found: Vec<String> = Vec::new();
    for pass in 0..look::PASSES {
        // All at once: over a slow line each question costs its round trip. A kill of one that is gone already is an error.
        let mut pipe = redis::pipe();
        for id in &found {
            pipe.cmd("CLIENT").arg("KILL").arg("ID").arg(id);
        }
        pipe.cmd("CLIENT").arg("LIST");
        let list = match each(control, &pipe, "CLIENT LIST").await?.pop() {
            Some(Value::BulkString(list)) => list,
            Some(Value::ServerError(e)) => {
                let seen = crate::engine::probe::server::error_line(&e);
                return match NetError::from_reply(control.address(), "CLIENT LIST", &seen) {
                    // A proxy that has no CLIENT has no list to search; the epoch alone has to do there.
                    NetError::Server { .. } => Ok(()),
                    e => Err(e),
                };
            }
            _ => return Ok(()),
        };
        found = ids_of(&String::from_utf8_lossy(&list), names).into_iter().map(str::to_owned).collect();
        if found.is_empty() {
            return Ok(());
        }
        if pass > 0 {
            tokio::time::sleep(look::BETWEEN).await;
        }
    }
    Ok(())
}

/// The ids in a `CLIENT LIST` of those whose name begins with one of these.
fn ids_of<'a>(list: &'a str, names: &[&str]) -> Vec<&'a str> {
    let mut ids = Vec::new();
    for line in list.lines() {
        let field = |key: &str| line.split(' ').find_map(|f| f.strip_prefix(key)?.strip_prefix('='));
        if field("name").is_some_and(|n| names.iter().any(|name| n.starts_with(name))) {
            ids.extend(field("id"));
        }
    }
    ids
}

/// Commands sent at once where there is one for each slot.
const AT_ONCE: usize = 2048;

/// The control keys of a job in these slots of a cluster, where there are any; and the slots of which it can't be told, with what
/// the shard has said: they are just moving away, and perhaps have taken theirs along, or the cluster calls itself down.
pub async fn read_slots(
    control: &mut Control,
    names: &Names,
    slots: impl Iterator<Item = u16>,
) -> Result<(Vec<(u16, ControlKey)>, Vec<(u16, NetError)>), NetError> {
    let slots: Vec<u16> = slots.collect();
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    for some in slots.chunks(AT_ONCE) {
        let mut pipe = redis::pipe();
        for slot in some {
            pipe.cmd("GET").arg(&names.control(Some(*slot))[..]);
        }
        for (slot, value) in some.iter().zip(each(control, &pipe, "the control keys").await?) {
            match value {
                Value::BulkString(text) => found.extend(ControlKey::parse(&text).map(|key| (*slot, key))),
                Value::ServerError(e) => {
                    let seen = crate::engine::probe::server::error_line(&e);
                    unread.push((*slot, NetError::from_reply(control.address(), "the control keys", &seen)));
                }
                _ => {}
            }
        }
    }
    Ok((found, unread))
}

/// Writes a control key into each of these slots.
pub async fn write_slots(
    control: &mut Control,
    names: &Names,
    slots: impl Iterator<Item = u16>,
    value: &ControlKey,
) -> Result<(), NetError> {
    let mut text = bytes::BytesMut::new();
    value.write(&mut text);
    let slots: Vec<u16> = slots.collect();
    for some in slots.chunks(AT_ONCE) {
        let mut pipe = redis::pipe();
        for slot in some {
            pipe.cmd("SET").arg(&names.control(Some(*slot))[..]).arg(&text[..]);
        }
        for value in each(control, &pipe, "the control keys").await? {
            if let Value::ServerError(e) = value {
                let seen = crate::engine::probe::server::error_line(&e);
                return Err(NetError::from_reply(control.address(), "the control keys", &seen));
            }
        }
    }
    Ok(())
}

/// The replies to a pipeline; an error stands in its place.
async fn each(control: &mut Control, pipe: &redis::Pipeline, doing: &str) -> Result<Vec<Value>, NetError> {
    let address = control.address().to_owned();
    let replies = control.req_packed_commands(pipe, 0, pipe.len()).await;
    replies.map_err(|e| NetError::from_redis(&address, doing, &e))
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

/// Some fields of the notes.
pub async fn read_fields<const N: usize>(
    control: &mut Control,
    db: u32,
    key: &[u8],
    fields: [&str; N],
) -> Result<[Option<String>; N], NetError> {
    let values: (Vec<Option<String>>,) = in_db(control, db, |p| {
        p.cmd("HMGET").arg(key).arg(&fields);
    })
    .await?;
    Ok(values.0.try_into().unwrap_or_else(|_| std::array::from_fn(|_| None)))
}

/// Writes one field of the notes.
pub async fn write_note(control: &mut Control, db: u32, key: &[u8], field: &str, value: &str) -> Result<(), NetError> {
    let _: (redis::Value,) = in_db(control, db, |p| {
        p.cmd("HSET").arg(key).arg(field).arg(value);
    })
    .await?;
    Ok(())
}

/// Deletes one field of the notes.
pub async fn delete_note(control: &mut Control, db: u32, key: &[u8], field: &str) -> Result<(), NetError> {
    let _: (redis::Value,) = in_db(control, db, |p| {
        p.cmd("HDEL").arg(key).arg(field);
    })
    .await?;
    Ok(())
}

/// The open episodes that are noted at a site: (db, key, number, authority).
pub async fn read_notes(control: &mut Control, db: u32, key: &[u8]) -> Result<Vec<Note>, NetError> {
    let notes: (Vec<(Vec<u8>, Vec<u8>)>,) = in_db(control, db, |p| {
        p.cmd("HGETALL").arg(key);
    })
    .await?;
    Ok(notes.0.iter().filter_map(|(f, v)| parse_note(f, v)).collect())
}

/// Writes these notes in place of whatever stands there, all at once.
pub async fn replace_notes(
    control: &mut Control,
    db: u32,
    key: &[u8],
    notes: &[(Vec<u8>, String)],
) -> Result<(), NetError> {
    let _: redis::Value = in_db(control, db, |p| {
        p.cmd("DEL").arg(key);
        for (field, value) in notes {
            p.cmd("HSET").arg(key).arg(field).arg(value);
        }
    })
    .await?;
    Ok(())
}

/// The strands that have keys at a standalone side.
pub async fn read_roll(control: &mut Control, db: u32, names: &Names) -> Result<BTreeSet<StrandId>, NetError> {
    let fields: (Vec<(String, String)>,) = in_db(control, db, |p| {
        p.cmd("HGETALL").arg(&names.roll()[..]);
    })
    .await?;
    Ok(fields.0.iter().filter_map(|(field, _)| field.parse().ok()).collect())
}

/// Deletes all that these strands have at a standalone side, and their names from the roll.
pub async fn strike_off(
    control: &mut Control,
    db: u32,
    names: &Names,
    strands: &BTreeSet<StrandId>,
) -> Result<(), NetError> {
    let keys: Vec<Vec<u8>> = strands
        .iter()
        .map(|id| names.of_sibling(*id))
        .flat_map(|n| [n.control(None), n.notes(), n.part(b"")].map(|key| key.to_vec()))
        .collect();
    let _: (redis::Value, redis::Value) = in_db(control, db, |p| {
        p.cmd("DEL").arg(&keys);
        p.cmd("HDEL").arg(&names.roll()[..]).arg(strands.iter().map(StrandId::to_string).collect::<Vec<_>>());
    })
    .await?;
    Ok(())
}

/// Deletes keys of ours.
pub async fn delete_keys(control: &mut Control, db: u32, keys: &[&[u8]]) -> Result<(), NetError> {
    let _: (redis::Value,) = in_db(control, db, |p| {
        p.cmd("DEL").arg(keys);
    })
    .await?;
    Ok(())
}

/// Deletes all that a job has left in these slots of a cluster.
pub async fn delete_slots(
    control: &mut Control,
    names: &Names,
    slots: impl Iterator<Item = u16>,
) -> Result<(), NetError> {
    let slots: Vec<u16> = slots.collect();
    for some in slots.chunks(AT_ONCE) {
        let mut pipe = redis::pipe();
        for slot in some {
            pipe.cmd("DEL").arg(&names.slot_keys(*slot).map(|k| k.to_vec())[..]);
        }
        for value in each(control, &pipe, "the control keys").await? {
            if let Value::ServerError(e) = value {
                let seen = crate::engine::probe::server::error_line(&e);
                return Err(NetError::from_reply(control.address(), "the control keys", &seen));
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::ids_of;

    #[test]
    fn only_clients_of_these_names_are_meant() {
        let list = "id=3 addr=h:1 laddr=h:2 fd=8 name=duplex:j1:apply age=1\nid=4 addr=h:1 name=duplex:j1:control db=0\n\
                    id=5 addr=h:1 name= db=0\nid=6 addr=h:1 name=duplex:j1:replica flags=S\nid=7 name=duplex:j2:apply\n";
        assert_eq!(ids_of(list, &["duplex:j1:apply", "duplex:j1:replica"]), ["3", "6"]);
        assert_eq!(ids_of(list, &["duplex:j1:apply"]), ["3"]);
        assert!(ids_of(list, &[]).is_empty());
    }
}
